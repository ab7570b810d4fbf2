//! From a directory of backups back to a database: the newest sound snapshot, then the deltas that join onto it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup::catalog::{Catalog, Entry};
use crate::backup::report::RestoreReport;
use crate::clock::{Clock, SystemClock};
use crate::db::{Builder, DictDb};
use crate::error::{DamagedBackup, Error, Result};
use crate::file::name::{BackupKind, Stamp};
use crate::file::{self, Pending, Trust, Unsound};
use crate::history::{Digest, Lineage, Point, Seq};
use crate::progress::{Progress, ProgressFn, Stage, Watch};
use crate::state::{Identity, State};
use crate::storage::{DiskStorage, Storage};
use crate::store;

/// Restores the newest state that a directory of backups leads to, and says how.
///
/// Takes the newest full backup and applies the deltas that join onto it by (lineage, seq, digest); every file is
/// checked whole and the digest compared before anything is handed out. Where the newest full backup is damaged, an
/// older one and its longer chain take its place, and the report says so. A missing or damaged delta is an error, as
/// leaving it out would lose commits: see [`RestoreOptions::accept_earlier`]. A chain of DictDB 1.11 (JSON) restores by
/// the time stamps in its names.
///
/// Nothing is ever written to the directory. The restored database begins a new history whose parent is the point
/// reached; a [`BackupManager`](crate::BackupManager) on the same directory goes on with the chain. Memory: the
/// restored state and some tens of megabytes of blocks on their way, or the largest block or commit.
///
/// ```
/// use dictdb::{record, restore, BackupManager, DictDb};
/// let dir = tempfile::tempdir()?;
/// let db = DictDb::new();
/// db.create_table("users", "id")?.insert(record! { "name": "Ann" })?;
/// BackupManager::new(&db, dir.path())?.backup_full()?;
/// let lost = db.digest();
/// drop(db);
///
/// let (db, report) = restore(dir.path())?;
/// assert_eq!(db.digest(), lost);
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::NoBackup`], [`Error::MissingLink`], [`Error::Corrupt`], [`Error::ChecksumMismatch`],
/// [`Error::SeveralHistories`], [`Error::UnsupportedVersion`], [`Error::Io`].
pub fn restore(dir: impl AsRef<Path>) -> Result<(DictDb, RestoreReport)> {
    RestoreOptions::new().restore(dir)
}

/// How to restore; see [`restore`].
///
/// ```no_run
/// use dictdb::RestoreOptions;
/// let (db, report) = RestoreOptions::new()
///     .accept_earlier(true)
///     .on_progress(|progress| {
///         eprintln!("{progress}");
///         std::ops::ControlFlow::Continue(())
///     })
///     .restore("backups")?;
/// # Ok::<(), dictdb::Error>(())
/// ```
#[derive(Clone)]
pub struct RestoreOptions {
    lineage: Option<Lineage>,
    accept_earlier: bool,
    trust: Trust,
    builder: Builder,
    progress: Option<Arc<ProgressFn>>,
    storage: Arc<dyn Storage>,
}

impl RestoreOptions {
    /// What [`restore`] does.
    pub fn new() -> RestoreOptions {
        RestoreOptions {
            lineage: None,
            accept_earlier: false,
            trust: Trust::default(),
            builder: DictDb::builder(),
            progress: None,
            storage: Arc::new(DiskStorage),
        }
    }

    /// Restores the history that this lineage is part of, where the directory holds several: what it descends from and
    /// what descends from it, and nothing that merely took the directory over.
    pub fn lineage(mut self, lineage: Lineage) -> RestoreOptions {
        self.lineage = Some(lineage);
        self
    }

    /// Where a delta is missing or damaged, gives the state before it instead of an error; the report names what was
    /// passed over and left out.
    pub fn accept_earlier(mut self, accept: bool) -> RestoreOptions {
        self.accept_earlier = accept;
        self
    }

    /// Takes JSON files' text as it stands; see [`LoadOptions::ignore_checksum`](crate::LoadOptions::ignore_checksum).
    pub fn ignore_checksum(mut self, ignore: bool) -> RestoreOptions {
        self.trust.ignore_checksum = ignore;
        self
    }

    /// Settings of the restored database.
    pub fn database(mut self, builder: Builder) -> RestoreOptions {
        self.builder = builder;
        self
    }

    /// Called at least once a block of records; `Break` ends the work with [`Error::Cancelled`].
    pub fn on_progress(
        mut self,
        callback: impl Fn(&Progress<'_>) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> RestoreOptions {
        self.progress = Some(Arc::new(callback));
        self
    }

    /// Where files are read from; the disk unless said otherwise.
    pub fn storage(mut self, storage: impl Storage + 'static) -> RestoreOptions {
        self.storage = Arc::new(storage);
        self
    }

    /// Restores; see [`restore`].
    ///
    /// # Errors
    /// As [`restore`]; [`Error::Cancelled`].
    pub fn restore(&self, dir: impl AsRef<Path>) -> Result<(DictDb, RestoreReport)> {
        let (state, report) = self.recover(dir.as_ref())?;
        Ok((self.builder.clone().build_from(state), report))
    }

    /// Restores into a directory of its own, as a store: `dir` holds the backups, `target` becomes what
    /// [`DictDb::open`] opens. The target must be empty, or not be there. The store is written under a temporary name,
    /// read back and checked, and appears by one rename. After an error or a crash before that there is no store: restore
    /// once more before anything opens the target, which would begin an empty one there.
    ///
    /// ```
    /// use dictdb::{record, BackupManager, DictDb, RestoreOptions};
    /// let dir = tempfile::tempdir()?;
    /// let (backups, data) = (dir.path().join("backups"), dir.path().join("data"));
    /// let db = DictDb::new();
    /// db.create_table("users", "id")?.insert(record! { "name": "Ann" })?;
    /// BackupManager::new(&db, &backups)?.backup_full()?;
    ///
    /// println!("{}", RestoreOptions::new().restore_into(&backups, &data)?);
    /// assert_eq!(DictDb::open(&data)?.digest(), db.digest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`restore`](Self::restore); [`Error::NotEmpty`], [`Error::Locked`], [`Error::DiskFull`].
    pub fn restore_into(&self, dir: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<RestoreReport> {
        let target = target.as_ref();
        store::check_empty(&*self.storage, target)?;
        let (state, report) = self.recover(dir.as_ref())?;
        store::create(&*self.storage, target, &state, self.progress.as_deref())?;
        Ok(report)
    }

    /// The state, already the beginning of a new history.
    fn recover(&self, dir: &Path) -> Result<(State, RestoreReport)> {
        let started = SystemClock.monotonic();
        let (mut state, mut report) = match self.whole(dir) {
            Err(error) if self.accept_earlier && (error.is_damage() || matches!(error, Error::MissingLink { .. })) => {
                self.replay(dir, &mut self.catalog(dir)?, 0, true)?
            }
            outcome => outcome?,
        };
        report.point = state.point();
        report.time = state.time;
        report.records = state.record_count();
        report.duration = SystemClock.monotonic().saturating_sub(started);
        state.identity = Identity::child_of(report.point);
        if report.fell_back {
            tracing::warn!(dir = %dir.display(), "restored from an older full backup: {report}");
        } else {
            tracing::info!(dir = %dir.display(), "{report}");
        }
        Ok((state, report))
    }

    /// The state that leaves nothing out. Where the chain of the newest full backup has a hole, that of an older one may
    /// have none: another manager may have begun a delta where that full backup was made in the midst of it.
    fn whole(&self, dir: &Path) -> Result<(State, RestoreReport)> {
        let mut hole = None;
        for passed_over in 0.. {
            let mut catalog = self.catalog(dir)?;
            let newer: Vec<Point> = sound_fulls(&catalog).take(passed_over).collect();
            if newer.len() < passed_over {
                break;
            }
            match self.replay(dir, &mut catalog, passed_over, false) {
                Ok((state, report)) => {
                    let covered = |end: &Point| end.lineage == state.identity.lineage && end.seq <= state.seq;
                    if newer.iter().all(covered) {
                        return Ok((state, report));
                    }
                }
                Err(error @ Error::MissingLink { .. }) => _ = hole.get_or_insert(error),
                // What is wrong with the newest is what there is to say.
                Err(error) => return Err(hole.unwrap_or(error)),
            }
        }
        Err(hole.unwrap_or_else(|| Error::NoBackup { dir: dir.to_owned(), damaged: Vec::new() }))
    }

    /// What the directory holds of the one history that is to be restored.
    fn catalog(&self, dir: &Path) -> Result<Catalog> {
        let mut catalog = Catalog::read(&*self.storage, dir, self.trust)?;
        if let Err(Error::SeveralHistories { .. }) = self.keep_one_history(dir, &mut catalog) {
            // A damaged first line of a JSON file can make a stranger of it.
            for entry in &mut catalog.entries {
                self.check_entry(entry)?;
            }
            self.keep_one_history(dir, &mut catalog)?;
        }
        Ok(catalog)
    }

    /// Leaves the files of one history in the catalog: lineages that parents and bases tie together are one.
    fn keep_one_history(&self, dir: &Path, catalog: &mut Catalog) -> Result<()> {
        let mut histories: Vec<BTreeSet<Lineage>> = Vec::new();
        for entry in &catalog.entries {
            let Some(lineage) = entry.lineage() else { continue };
            let history = entry.history();
            // A full backup's base ties it to what it took the directory over from, which may be another database's.
            let takes_over = entry.name.kind == BackupKind::Full && self.lineage.is_some();
            let base = history.and_then(|h| h.base).filter(|_| !takes_over);
            let ties = [history.and_then(|h| h.parent), base];
            let mut own: BTreeSet<Lineage> = ties.into_iter().flatten().map(|point| point.lineage).collect();
            own.insert(lineage);
            let (tied, apart): (Vec<_>, Vec<_>) = histories.into_iter().partition(|other| !other.is_disjoint(&own));
            own.extend(tied.into_iter().flatten());
            histories = apart;
            histories.push(own);
        }
        let several = |wanted: Option<Lineage>| Error::SeveralHistories {
            dir: dir.to_owned(),
            wanted,
            lineages: histories.iter().filter_map(|history| history.first().copied()).collect(),
        };
        let kept = match self.lineage {
            Some(wanted) => {
                let found = histories.iter().find(|history| history.contains(&wanted));
                found.ok_or_else(|| several(Some(wanted)))?
            }
            None if histories.len() > 1 => return Err(several(None)),
            None => match histories.first() {
                Some(only) => only,
                None => return Ok(()),
            },
        };
        catalog.entries.retain(|entry| entry.lineage().is_none_or(|lineage| kept.contains(&lineage)));
        Ok(())
    }

    /// Marks an entry as damaged that only its unread middle can tell to be.
    fn check_entry(&self, entry: &mut Entry) -> Result<()> {
        let Ok(summary) = &entry.found else { return Ok(()) };
        match file::check_summary(&*self.storage, &entry.path, summary, self.trust) {
            Err(error) if error.is_damage() => entry.found = Err(error),
            other => other?,
        }
        Ok(())
    }

    /// Walks the full backups from the newest, passes over so many that seem sound, reads the first sound one behind
    /// them and applies what joins onto it.
    fn replay(
        &self,
        dir: &Path,
        catalog: &mut Catalog,
        mut pass_over: usize,
        accept_earlier: bool,
    ) -> Result<(State, RestoreReport)> {
        let mut report = RestoreReport {
            dir: dir.to_owned(),
            full: None,
            deltas: Vec::new(),
            point: Point::empty(Lineage::NONE),
            time: crate::history::Timestamp::default(),
            records: 0,
            bytes: 0,
            duration: std::time::Duration::ZERO,
            fell_back: false,
            damaged: Vec::new(),
            left_out: Vec::new(),
        };
        let fulls: Vec<usize> =
            (0..catalog.entries.len()).rev().filter(|i| is_kind(catalog, *i, BackupKind::Full)).collect();
        for index in fulls {
            let Some(entry) = catalog.entries.get_mut(index) else { continue };
            if pass_over > 0 && entry.history().is_some() {
                pass_over = pass_over.saturating_sub(1);
                continue;
            }
            let path = entry.path.clone();
            let read = match std::mem::replace(&mut entry.found, Err(Error::Cancelled)) {
                Err(error) => Err(error),
                Ok(summary) => {
                    let read = self.read_full(&path);
                    entry.found = Ok(summary);
                    let stated = entry.history().map_or(Digest::EMPTY, |history| history.end.digest);
                    read.map(|state| (state, entry.name.stamp, stated))
                }
            };
            match read {
                Ok((state, stamp, stated)) => {
                    report.bytes = report.bytes.saturating_add(entry.bytes());
                    report.full = Some(path);
                    report.fell_back = !report.damaged.is_empty();
                    let again = || self.read_full(report.full.as_deref().unwrap_or(dir));
                    let followed = self.follow(catalog, (state, stated), again, Some(stamp))?;
                    return self.judge(catalog, followed, Some(stamp), report, accept_earlier);
                }
                Err(error) if error.is_damage() => {
                    tracing::warn!("passed over a damaged full backup: {error}");
                    report.damaged.push(DamagedBackup { file: path, error: Box::new(error) });
                }
                Err(error) => return Err(error),
            }
        }
        // No full backup: the chain may begin at the empty database.
        let root = catalog.entries.iter().find_map(|entry| {
            let history = entry.history().filter(|_| entry.name.kind == BackupKind::Delta)?;
            let from_empty = history.base == Some(Point::empty(history.end.lineage)) && history.parent.is_none();
            from_empty.then_some(history.end.lineage)
        });
        match root {
            Some(lineage) => {
                report.fell_back = !report.damaged.is_empty();
                let empty = || State::empty(Identity { lineage, parent: None });
                let followed = self.follow(catalog, (empty(), Digest::EMPTY), || Ok(empty()), None)?;
                let (state, report) = self.judge(catalog, followed, None, report, accept_earlier)?;
                if report.deltas.is_empty() {
                    // The empty database is no backup.
                    return Err(Error::NoBackup { dir: dir.to_owned(), damaged: report.damaged });
                }
                Ok((state, report))
            }
            None if report.damaged.is_empty() && catalog.entries.iter().any(|e| e.found.is_err()) => {
                // Deltas only, and not all of them can be read: their word is the one to hear.
                let error = catalog.entries.drain(..).find_map(|entry| entry.found.err());
                Err(error.unwrap_or(Error::Cancelled))
            }
            None => Err(Error::NoBackup { dir: dir.to_owned(), damaged: report.damaged }),
        }
    }

    fn read_full(&self, path: &Path) -> Result<State> {
        let watch = Watch::new(self.progress.as_deref(), Stage::ReadingFull, path);
        file::read_full(&*self.storage, path, self.trust, &watch)
    }

    /// Applies the deltas that join onto `state`, which the full backup stamped `since` gave, with the digest that it states
    /// (text that was edited has another), and which `again` gives
    /// again where a delta turns out damaged halfway: no copy is kept for that case, so that what is applied is applied
    /// in place.
    fn follow(
        &self,
        catalog: &mut Catalog,
        (mut state, stated): (State, Digest),
        again: impl Fn() -> Result<State>,
        since: Option<Stamp>,
    ) -> Result<Followed> {
        loop {
            match self.apply_all(catalog, (state, stated), since)? {
                Some(followed) => return Ok(followed),
                // The damaged one is known now, so this ends.
                None => state = again()?,
            }
        }
    }

    /// `None`, and a note in the catalog, where a delta turned out damaged: the state is of no use then.
    fn apply_all(
        &self,
        catalog: &mut Catalog,
        (state, mut stated): (State, Digest),
        since: Option<Stamp>,
    ) -> Result<Option<Followed>> {
        let legacy = state.identity.lineage == Lineage::DICTDB_1_11;
        let mut reached: BTreeMap<Lineage, Seq> = [(state.identity.lineage, state.seq)].into();
        reached.extend(state.identity.parent.map(|parent| (parent.lineage, parent.seq)));
        let mut followed = Followed { state, reached, used: Vec::new(), last_used: since };
        let mut pending = Pending::default();
        let ends = ends(catalog);
        loop {
            let Followed { state, reached, used, last_used } = &mut followed;
            let next = next_delta(catalog, &ends, state, stated, *last_used, legacy);
            // Nothing but the order of stamps joins these: the first damaged one ends the chain.
            let before = (legacy && next.is_some()).then(|| state.clone());
            let outcome = match next.and_then(|index| Some((index, catalog.entries.get(index)?))) {
                Some((index, entry)) => {
                    used.push(index);
                    let watch = Watch::new(self.progress.as_deref(), Stage::ReadingDelta, &entry.path);
                    let (storage, path) = (&*self.storage, &entry.path);
                    file::read_delta(storage, path, state, &mut pending, self.trust, &watch).map(|_| {
                        reached.insert(state.identity.lineage, state.seq);
                        *last_used = (*last_used).max(Some(entry.name.stamp));
                        stated = entry.history().map_or(stated, |history| history.end.digest);
                    })
                }
                None => pending.settle(state),
            };
            match outcome {
                Ok(()) if next.is_none() => return Ok(Some(followed)),
                Ok(()) => {}
                Err(Unsound { delta, error }) if error.is_damage() => {
                    let damaged = used.get(delta).and_then(|index| catalog.entries.get_mut(*index));
                    let Some(damaged) = damaged else { return Err(error) };
                    damaged.found = Err(error);
                    used.pop();
                    return Ok(before.map(|before| Followed { state: before, ..followed }));
                }
                Err(Unsound { error, .. }) => return Err(error),
            }
        }
    }

    /// Says what was left out and what is damaged, and whether the state that was reached is one to hand out.
    fn judge(
        &self,
        catalog: &mut Catalog,
        followed: Followed,
        since: Option<Stamp>,
        mut report: RestoreReport,
        accept_earlier: bool,
    ) -> Result<(State, RestoreReport)> {
        let Followed { state, reached, used, last_used } = followed;
        for entry in used.iter().filter_map(|index| catalog.entries.get(*index)) {
            report.bytes = report.bytes.saturating_add(entry.bytes());
            report.deltas.push(entry.path.clone());
        }
        // A sound delta that leads beyond the state was left out. A damaged one was needed unless a later file was used.
        let newer = |entry: &Entry| Some(entry.name.stamp) > last_used;
        let mut missed: Option<(usize, PathBuf, Point)> = None;
        for (index, entry) in catalog.entries.iter_mut().enumerate() {
            if entry.name.kind != BackupKind::Delta || Some(entry.name.stamp) <= since {
                continue;
            }
            let covered = |entry: &Entry| {
                entry.history().is_some_and(|h| reached.get(&h.end.lineage).is_some_and(|seq| h.end.seq <= *seq))
            };
            if !used.contains(&index) && !covered(entry) {
                self.check_entry(entry)?; // before it is called a stranger to the chain
            }
            match &entry.found {
                Ok(_) if used.contains(&index) => {}
                Ok(summary) => {
                    if !covered(entry) {
                        let base = summary.history.and_then(|h| h.base);
                        let needs = base.unwrap_or(Point::empty(Lineage::DICTDB_1_11));
                        report.left_out.push(entry.path.clone());
                        missed.get_or_insert((index, entry.path.clone(), needs));
                    }
                }
                Err(_) => {
                    let needed = newer(entry);
                    if let Err(error) = std::mem::replace(&mut entry.found, Err(Error::Cancelled)) {
                        // What cannot be read now may be sound: that is no reason for an earlier state.
                        if needed && (!accept_earlier || matches!(error, Error::Io { .. })) {
                            return Err(error);
                        }
                        report.damaged.push(DamagedBackup { file: entry.path.clone(), error: Box::new(error) });
                    }
                }
            }
        }
        match missed {
            Some((_, file, needs)) if !accept_earlier => {
                let reached = Box::new(state.point());
                Err(Error::MissingLink { file, needs: Box::new(needs), reached })
            }
            _ => Ok((state, report)),
        }
    }
}

/// A full backup and the deltas that were applied to it.
struct Followed {
    state: State,
    /// How far it goes along each history that it passed through.
    reached: BTreeMap<Lineage, Seq>,
    /// Which entries of the catalog the deltas are, in their order.
    used: Vec<usize>,
    /// Stamp of the newest of them, or of the full backup.
    last_used: Option<Stamp>,
}

/// How far the deltas lead that come to be applied when one of them is, by their own words; by their places in the catalog.
fn ends(catalog: &Catalog) -> Vec<Option<Seq>> {
    let mut ends = vec![None; catalog.entries.len()];
    // Stamps rise along a chain, so that what may come behind a delta has been seen before it.
    let mut seen: BTreeMap<Seq, Vec<(&Entry, Point, Seq)>> = BTreeMap::new();
    for (entry, end) in catalog.entries.iter().zip(&mut ends).rev() {
        let Some(history) = entry.history().filter(|_| entry.name.kind == BackupKind::Delta) else { continue };
        let restored_there =
            |base: &Point| history.parent.is_some_and(|p| (p.lineage, p.seq) == (base.lineage, base.seq));
        let joins = |next: &Entry, base: &Point| {
            next.name.stamp > entry.name.stamp
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

/// The delta to apply next: of those that join onto the state with the digest that its files state, the one behind which the others lead
/// furthest, and of several the one that itself does. (One that leads further at first may end where no other joins: of
/// two managers each may have begun one at the same point.)
fn next_delta(
    catalog: &Catalog,
    ends: &[Option<Seq>],
    state: &State,
    digest: Digest,
    since: Option<Stamp>,
    legacy: bool,
) -> Option<usize> {
    // Stamps rise along a chain. An older delta that joins all the same is one of another future of this point: of
    // commits that were given up when somebody went back to it and went on from there.
    let mut newer = catalog.entries.iter().zip(ends).enumerate().filter(|(_, (entry, _))| {
        entry.name.kind == BackupKind::Delta && entry.found.is_ok() && Some(entry.name.stamp) > since
    });
    if legacy {
        // DictDB 1.11: whatever comes after the full backup, in the order of the stamps.
        return newer.find(|(_, (entry, _))| entry.history().is_none()).map(|(index, _)| index);
    }
    let joining = newer.filter_map(|(index, (entry, end))| {
        let history = entry.history()?;
        // By lineage, even where both are empty: a link left out would be missed further on.
        let parent = state.identity.parent.map(|parent| parent.lineage);
        let known = |base: &Point| base.lineage == state.identity.lineage || Some(base.lineage) == parent;
        let joins = history.base.is_some_and(|base| known(&base) && file::joins(base, state, digest));
        joins.then_some((*end, history.end.seq, entry.name.stamp, index))
    });
    // An empty delta leads nowhere, unless into the history of a restored database: it comes after those that lead on.
    joining.max().map(|(.., index)| index)
}

/// Where the full backups lead that seem sound and are not DictDB 1.11's, the newest first.
fn sound_fulls(catalog: &Catalog) -> impl Iterator<Item = Point> {
    let fulls = catalog.entries.iter().rev().filter(|entry| entry.name.kind == BackupKind::Full);
    fulls.filter_map(|entry| entry.history().map(|history| history.end))
}

fn is_kind(catalog: &Catalog, index: usize, kind: BackupKind) -> bool {
    catalog.entries.get(index).is_some_and(|entry| entry.name.kind == kind)
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.found.as_ref().map_or(0, |summary| summary.bytes)
    }
}

impl Default for RestoreOptions {
    fn default() -> RestoreOptions {
        RestoreOptions::new()
    }
}

impl fmt::Debug for RestoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RestoreOptions");
        out.field("lineage", &self.lineage).field("accept_earlier", &self.accept_earlier);
        out.field("trust", &self.trust).field("storage", &self.storage).finish_non_exhaustive()
    }
}
