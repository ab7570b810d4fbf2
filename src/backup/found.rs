//! What a manager finds in its directory: where the files there lead, and what is not known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::backup::catalog::{Catalog, Entry, Tip};
use crate::db::DictDb;
use crate::error::{Error, Result};
use crate::file::name::Stamp;
use crate::file::{self, Trust};
use crate::history::{Lineage, Point};
use crate::storage::Storage;

/// What a directory held when it was looked at.
#[derive(Debug)]
pub(super) struct Found {
    /// The checkpoint: how far the newest file's history leads, and the files that lead there.
    pub(super) tip: Option<Tip>,
    /// That point, or without one where the newest file leads, of whatever history.
    pub(super) newest: Option<Point>,
    /// Where the newest file leads, and whose it is, is not known: it is damaged, or this program does not read it.
    pub(super) is_newest_unknown: bool,
    /// The former.
    pub(super) is_newest_damaged: bool,
    /// Whether a file there may be a full backup that this program does not read.
    pub(super) has_unreadable: bool,
    /// The newest stamp.
    pub(super) known: Option<Stamp>,
    /// The newest stamp of a pickle.
    pub(super) pickle: Option<Stamp>,
    /// Where each history here began that did not begin empty.
    parents: BTreeMap<Lineage, Point>,
}

impl Found {
    pub(crate) fn read(storage: &dyn Storage, dir: &Path, db: &DictDb) -> Result<Found> {
        let mut catalog = Catalog::read(storage, dir, Trust::default())?;
        let mut checked = Vec::new();
        let tip = loop {
            let tip = catalog.tip();
            let last = catalog.entries.last().map(|entry| entry.name);
            let leads = tip.as_ref().and_then(|tip| tip.names.first().copied());
            let Some(name) = last.into_iter().chain(leads).find(|name| !checked.contains(name)) else { break tip };
            checked.push(name);
            let Some(at) = catalog.entries.iter().position(|entry| entry.name == name) else { break tip };
            let Entry { path, name, found } = catalog.entries.remove(at);
            let check = |summary| file::check_summary(storage, &path, &summary, Trust::default()).map(|()| summary);
            let found = match found.and_then(check) {
                // Where it leads, and so what the next backup ties in with, is not known: another attempt may tell.
                Err(error @ Error::Io { .. }) => return Err(error),
                // No delta joins onto a file that says where it leads and is damaged.
                found => found,
            };
            catalog.entries.insert(at, Entry { path, name, found });
        };
        let last = || {
            catalog.entries.iter().rev().find_map(|entry| match (&entry.found, entry.history()) {
                (Ok(_), Some(history)) => Some(history.end),
                (Ok(_), None) => Some(Point::empty(Lineage::DICTDB_1_11)),
                _ => None,
            })
        };
        let newest = tip.as_ref().map(|tip| tip.point).or_else(last);
        let known = catalog.entries.last().map(|entry| entry.name.stamp);
        let has_unreadable = catalog.has_unreadable();
        // A store that was put back from a copy has no part in what was backed up behind that.
        let tip = tip.filter(|tip| db.may_have_been_at(tip.point));
        let histories = catalog.entries.iter().filter_map(Entry::history);
        let parents = histories.filter_map(|history| Some((history.end.lineage, history.parent?))).collect();
        let newest_error = catalog.entries.last().and_then(|entry| entry.found.as_ref().err());
        if let Some(error) = newest_error {
            tracing::warn!("where the newest backup leads is not known: {error}");
        }
        let (is_newest_unknown, is_newest_damaged) =
            (newest_error.is_some(), newest_error.is_some_and(Error::is_damage));
        let pickle = catalog.pickles.last().map(|(stamp, _)| *stamp);
        Ok(Found { tip, newest, has_unreadable, known, pickle, parents, is_newest_unknown, is_newest_damaged })
    }

    /// Whether a history is one of these, or has a history in common with one that both came of.
    pub(super) fn is_tied(&self, lineage: Lineage, to: &[Option<Lineage>]) -> bool {
        let own = self.ancestry(lineage);
        to.iter().flatten().any(|other| !self.ancestry(*other).is_disjoint(&own))
    }

    /// A history and those that it came of, as far as the files tell.
    fn ancestry(&self, lineage: Lineage) -> BTreeSet<Lineage> {
        let mut ancestry = BTreeSet::new();
        let mut next = Some(lineage);
        // What files say may go round in a circle.
        while let Some(lineage) = next.filter(|lineage| ancestry.insert(*lineage)) {
            next = self.parents.get(&lineage).map(|parent| parent.lineage);
        }
        ancestry
    }
}
