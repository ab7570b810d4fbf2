//! Which of a directory's files lead to a state, and which of them that state leaves out.

use std::collections::BTreeMap;

use crate::backup::catalog::{Catalog, Entry};
use crate::file;
use crate::file::name::{BackupKind, Order};
use crate::history::{Digest, Lineage, Point, Seq};
use crate::state::State;

/// Where a route begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At a full backup; its place in the catalog.
    Full(usize),
    /// At the empty database.
    Empty(Lineage),
}

/// A full backup and the deltas that were applied to it.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) start: Start,
    /// How far it goes along each history that it passed through.
    reached: BTreeMap<Lineage, Seq>,
    /// Which entries of the catalog the deltas are, in their order.
    pub(super) used: Vec<usize>,
    /// Where the full backup stands. (Two handles that followed one another may have given one stamp twice.)
    pub(super) since: Option<Order>,
    /// Where the newest of the deltas stands, or else the full backup.
    pub(super) last_used: Option<Order>,
    /// Where it leads.
    pub(super) end: Point,
    /// The digest there, as the last file states it: text that was edited has another.
    stated: Digest,
}

impl Route {
    /// Of what stands in `state` behind its start.
    pub(super) fn begin(catalog: &Catalog, start: Start, state: &State) -> Route {
        let full = match start {
            Start::Full(index) => catalog.entries.get(index),
            Start::Empty(_) => None,
        };
        let since = full.map(|full| full.name.order());
        let stated = full.and_then(Entry::history).map_or(Digest::EMPTY, |history| history.end.digest);
        let reached = state.identity.parent.map(|parent| (parent.lineage, parent.seq)).into_iter().collect();
        let mut route = Route { start, reached, used: Vec::new(), since, last_used: since, end: state.point(), stated };
        route.reached.insert(state.identity.lineage, state.seq);
        route
    }

    /// The delta of this entry, which is the last of those used, has been read.
    pub(super) fn goes_on(&mut self, entry: &Entry, state: &State) {
        self.reached.insert(state.identity.lineage, state.seq);
        self.last_used = self.last_used.max(Some(entry.name.order()));
        self.stated = entry.history().map_or(self.stated, |history| history.end.digest);
    }

    /// Whether it came past a point.
    pub(super) fn covers(&self, point: Point) -> bool {
        self.reached.get(&point.lineage).is_some_and(|seq| point.seq <= *seq)
    }

    /// Whether it leads on from where the other ends.
    pub(super) fn leads_beyond(&self, other: &Route) -> bool {
        self.covers(other.end) && !other.covers(self.end)
    }

    /// Whether it is of DictDB 1.11, whose deltas nothing but the order of stamps joins.
    pub(super) fn is_legacy(&self) -> bool {
        self.end.lineage == Lineage::DICTDB_1_11
    }

    /// What it leaves out of the deltas newer than its full backup. A sound one that leads beyond its end was left out. A
    /// damaged one was needed unless a later file was used. `check` marks what only its unread middle can tell to be
    /// damaged.
    pub(super) fn missed<E>(
        &self,
        catalog: &mut Catalog,
        mut check: impl FnMut(&mut Entry) -> Result<(), E>,
    ) -> Result<Missed, E> {
        let mut missed = Missed::default();
        // A chain that begins at the empty database has nothing to do with what DictDB 1.11 wrote before.
        let root = self.used.first().filter(|_| self.since.is_none()).and_then(|index| catalog.entries.get(*index));
        let root = root.map(|root| root.name.order());
        for (index, entry) in catalog.entries.iter_mut().enumerate() {
            if entry.name.kind != BackupKind::Delta || Some(entry.name.order()) <= self.since {
                continue;
            }
            if self.used.contains(&index) || entry.history().is_some_and(|history| self.covers(history.end)) {
                continue;
            }
            check(entry)?; // before it is called a stranger to the chain
            match &entry.found {
                Ok(_) if entry.is_of_dictdb() && root.is_some_and(|root| entry.name.order() < root) => {}
                Ok(_) => missed.left_out.push(index),
                Err(_) => {
                    missed.damaged.push(index);
                    if Some(entry.name.order()) > self.last_used {
                        missed.needed.push(index);
                    }
                }
            }
        }
        Ok(missed)
    }

    /// Whether it goes past the base of one that it leaves out. (Else that base lies behind a link that is missing.)
    pub(super) fn goes_past(&self, catalog: &Catalog, missed: &Missed) -> bool {
        let base = |index: &usize| catalog.entries.get(*index)?.history()?.base;
        missed.left_out.iter().filter_map(base).any(|base| self.covers(base))
    }

    /// The delta to apply next, to the state that it has led to: of those that join, the one behind which the others lead
    /// furthest, and of several the one that itself does. (One that leads further at first may end where no other joins: of
    /// two managers each may have begun one at the same point.)
    pub(super) fn next_delta(&self, catalog: &Catalog, ends: &[Option<Seq>], state: &State) -> Option<usize> {
        // Stamps rise along a chain. An older delta that joins all the same is one of another future of this point: of
        // commits that were given up when somebody went back to it and went on from there.
        let mut newer = catalog.entries.iter().zip(ends).enumerate().filter(|(_, (entry, _))| {
            let is_newer = Some(entry.name.order()) > self.last_used;
            entry.name.kind == BackupKind::Delta && entry.found.is_ok() && is_newer
        });
        if self.is_legacy() {
            // DictDB 1.11: whatever comes after the full backup, in the order of the stamps; but not behind another one,
            // which may be what it goes on from.
            let is_next_full =
                |entry: &&Entry| entry.name.kind == BackupKind::Full && Some(entry.name.order()) > self.since;
            let until = catalog.entries.iter().find(is_next_full).map(|full| full.name.order());
            let goes_on = |entry: &Entry| entry.is_of_dictdb() && until.is_none_or(|until| entry.name.order() < until);
            return newer.find(|(_, (entry, _))| goes_on(entry)).map(|(index, _)| index);
        }
        let joining = newer.filter_map(|(index, (entry, end))| {
            let history = entry.history()?;
            // By lineage, even where both are empty: a link left out would be missed further on.
            let parent = state.identity.parent.map(|parent| parent.lineage);
            let known = |base: &Point| base.lineage == state.identity.lineage || Some(base.lineage) == parent;
            let joins = history.base.is_some_and(|base| known(&base) && file::joins(base, state, self.stated));
            joins.then_some((*end, history.end.seq, entry.name.order(), index))
        });
        // An empty delta leads nowhere, unless into the history of a restored database: it comes after those that lead on.
        joining.max().map(|(.., index)| index)
    }
}

/// What a route leaves out; places in the catalog.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// Sound deltas that lead beyond its end.
    pub(super) left_out: Vec<usize>,
    /// Damaged deltas.
    pub(super) damaged: Vec<usize>,
    /// Those of them that were needed.
    pub(super) needed: Vec<usize>,
}

impl Missed {
    pub(super) fn is_nothing(&self) -> bool {
        self.left_out.is_empty() && self.needed.is_empty()
    }
}

/// How far the deltas lead that come to be applied when one of them is, by their own words; by their places in the catalog.
pub(super) fn ends(catalog: &Catalog) -> Vec<Option<Seq>> {
    let mut ends = vec![None; catalog.entries.len()];
    // Stamps rise along a chain, so that what may come behind a delta has been seen before it.
    let mut seen: BTreeMap<Seq, Vec<(&Entry, Point, Seq)>> = BTreeMap::new();
    for (entry, end) in catalog.entries.iter().zip(&mut ends).rev() {
        let Some(history) = entry.history().filter(|_| entry.name.kind == BackupKind::Delta) else { continue };
        let restored_there =
            |base: &Point| history.parent.is_some_and(|p| (p.lineage, p.seq) == (base.lineage, base.seq));
        let joins = |next: &Entry, base: &Point| {
            next.name.order() > entry.name.order()
                && base.digest == history.end.digest
                && (base.lineage == history.end.lineage || restored_there(base))
        };
        let behind = seen.get(&history.end.seq).into_iter().flatten();
        let furthest = behind.filter(|(next, base, _)| joins(next, base)).map(|(_, _, end)| *end).max();
        let furthest = furthest.unwrap_or_default().max(history.end.seq);
        *end = Some(furthest);
        if let Some(base) = history.base {
            seen.entry(base.seq).or_default().push((entry, base, furthest));
        }
    }
    ends
}
