//! From a directory of backups back to a database: the newest sound snapshot, then the deltas that join onto it.

use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::backup::catalog::{Catalog, Entry};
use crate::backup::report::RestoreReport;
use crate::backup::route::{self, Missed, Route, Start};
use crate::clock::{Clock, SystemClock};
use crate::db::{Builder, DictDb};
use crate::error::{DamagedBackup, Error, Result};
use crate::file::name::BackupKind;
use crate::file::{self, Pending, Trust, Unsound};
use crate::history::{Lineage, Point, Timestamp};
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
/// [`Error::SeveralHistories`], [`Error::UnsupportedVersion`], [`Error::UnsupportedValue`], [`Error::WrongKind`],
/// [`Error::Io`]; [`Error::StoreDirectory`] for the directory of a store.
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

    /// Takes JSON files' text as it stands; see [`LoadOptions::ignore_checksum`](crate::LoadOptions::ignore_checksum). The
    /// report names those whose checksum does not fit (`unchecked`).
    /// Which deltas join is then told by the digests that the files state.
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
        let started = SystemClock.monotonic();
        let (state, mut report) = self.recover(dir.as_ref())?;
        store::create(&*self.storage, target, &state, self.progress.as_deref())?;
        report.duration = SystemClock.monotonic().saturating_sub(started);
        Ok(report)
    }

    /// The state, already the beginning of a new history.
    fn recover(&self, dir: &Path) -> Result<(State, RestoreReport)> {
        let started = SystemClock.monotonic();
        let mut catalog = self.catalog(dir)?;
        let (mut state, route, missed) = self.furthest(dir, &mut catalog)?;
        let mut report = report(dir, &mut catalog, &route, missed);
        if report.full.is_none() && report.deltas.is_empty() {
            // The empty database is no backup.
            return Err(Error::NoBackup { dir: dir.to_owned(), damaged: report.damaged });
        }
        report.unchecked = self.unchecked(&catalog, &report)?;
        report.point = state.point();
        report.time = state.time;
        report.records = state.record_count();
        report.duration = SystemClock.monotonic().saturating_sub(started);
        state.identity = Identity::child_of(report.point);
        if report.fell_back || !report.unchecked.is_empty() {
            tracing::warn!(dir = %dir.display(), "restored, and not all was as it should be: {report}");
        } else {
            tracing::info!(dir = %dir.display(), "{report}");
        }
        Ok((state, report))
    }

    /// Which of the files used do not have the checksum that they state, where none was asked for.
    fn unchecked(&self, catalog: &Catalog, report: &RestoreReport) -> Result<Vec<PathBuf>> {
        if !self.trust.ignore_checksum {
            return Ok(Vec::new());
        }
        let mut unchecked = Vec::new();
        let is_used = |file: &PathBuf| report.full.as_ref() == Some(file) || report.deltas.contains(file);
        for Entry { path: file, found, .. } in catalog.entries.iter().filter(|entry| is_used(&entry.path)) {
            // DictDB 1.11 states none.
            let Some(summary) = found.as_ref().ok().filter(|summary| summary.history.is_some()) else { continue };
            match file::check_summary(&*self.storage, file, summary, Trust::default()) {
                Ok(()) => {}
                Err(error) if error.is_damage() => {
                    tracing::warn!("taken as it stands: {error}");
                    unchecked.push(file.clone());
                }
                // It was there when it was read.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => unchecked.push(file.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(unchecked)
    }

    /// The state that leaves nothing out, or the furthest for who accepts an earlier one. Where the chain of the newest full
    /// backup goes past the base of what it leaves out, that of an older one may lead there: another manager may have begun
    /// a delta where that full backup was made in the midst of it. One state at a time is held: the furthest is made again
    /// where it was not the last.
    fn furthest(&self, dir: &Path, catalog: &mut Catalog) -> Result<(State, Route, Missed)> {
        let mut best: Option<Route> = None;
        let mut hindrance = None;
        // What the chains of newer full backups left out, and where each of those deltas leads.
        let mut left_out: Vec<(usize, Point)> = Vec::new();
        let mut passed_over: Vec<Point> = Vec::new();
        let mut before = catalog.entries.len();
        while let Some((start, state)) = self.begin(catalog, before)? {
            let (state, route) = self.follow(catalog, start, state)?;
            let missed = self.missed(catalog, &route)?;
            hindrance = hindrance.or(missed.needed.first().copied());
            // One of them that turned out damaged is missed, also where a bridge of a later stamp was used in its place.
            let is_found_damaged =
                |index: &usize| catalog.entries.get(*index).is_some_and(|entry| entry.found.is_err());
            let lost = left_out.iter().find(|(index, end)| is_found_damaged(index) && !route.covers(*end));
            hindrance = hindrance.or(lost.map(|(index, _)| *index));
            let is_whole = passed_over.iter().all(|end| route.covers(*end));
            if is_whole && missed.is_nothing() && lost.is_none() {
                return Ok((state, route, missed));
            }
            let end = |full: usize| catalog.entries.get(full)?.history().map(|history| (full, history.end));
            let older = match start {
                Start::Full(full) if route.goes_past(catalog, &missed) => end(full),
                _ => None,
            };
            if is_whole && best.as_ref().is_none_or(|best| route.leads_beyond(best)) {
                if older.is_none() {
                    self.accept(catalog, &route, &missed, hindrance)?;
                    return Ok((state, route, missed));
                }
                best = Some(route);
            }
            let Some((full, end)) = older else { break };
            passed_over.push(end);
            let leads_to = |index: &usize| Some((*index, catalog.entries.get(*index)?.history()?.end));
            left_out.extend(missed.left_out.iter().filter_map(leads_to));
            before = full;
        }
        let Some(best) = best else { return Err(no_backup(dir, catalog)) };
        // What was found damaged since counts, too.
        let missed = self.missed(catalog, &best)?;
        self.accept(catalog, &best, &missed, hindrance)?;
        let state = self.load(catalog, best.start)?;
        let (state, route) = self.follow(catalog, best.start, state)?;
        let missed = self.missed(catalog, &route)?;
        Ok((state, route, missed))
    }

    /// Refuses a route that leaves something out, unless an earlier state is asked for: with what is wrong with the first
    /// damaged delta that it needs, or that hindered another route, or else with the first that does not join.
    fn accept(&self, catalog: &mut Catalog, route: &Route, missed: &Missed, hindrance: Option<usize>) -> Result<()> {
        if self.accept_earlier || missed.is_nothing() {
            return Ok(());
        }
        let needed = missed.needed.first().copied().or(hindrance);
        if let Some(damaged) = needed.and_then(|index| take_damaged(catalog, index)) {
            return Err(*damaged.error);
        }
        match missed.left_out.first().and_then(|index| catalog.entries.get(*index)) {
            Some(entry) => {
                let base = entry.history().and_then(|history| history.base);
                let needs = Box::new(base.unwrap_or(Point::empty(Lineage::DICTDB_1_11)));
                Err(Error::MissingLink { file: entry.path.clone(), needs, reached: Box::new(route.end) })
            }
            None => Ok(()),
        }
    }

    /// What the directory holds of the one history that is to be restored.
    fn catalog(&self, dir: &Path) -> Result<Catalog> {
        let mut catalog = Catalog::read(&*self.storage, dir, self.trust)?;
        if catalog.entries.is_empty() && store::is_store(&*self.storage, dir) {
            return Err(Error::StoreDirectory { dir: dir.to_owned() });
        }
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
        // Each with the lineage of its newest file, under which it can be asked for.
        let mut histories: Vec<(Lineage, BTreeSet<Lineage>)> = Vec::new();
        for entry in &catalog.entries {
            let Some(lineage) = entry.lineage() else { continue };
            if entry.is_of_dictdb() && !catalog.has_full_of_dictdb() {
                // Deltas that say nothing, of no history that is here.
                continue;
            }
            let history = entry.history();
            // A full backup's base ties it to what it took the directory over from, which may be another database's.
            let takes_over = entry.name.kind == BackupKind::Full && self.lineage.is_some();
            let base = history.and_then(|h| h.base).filter(|_| !takes_over);
            let ties = [history.and_then(|h| h.parent), base];
            let mut own: BTreeSet<Lineage> = ties.into_iter().flatten().map(|point| point.lineage).collect();
            own.insert(lineage);
            let (tied, apart): (Vec<_>, Vec<_>) =
                histories.into_iter().partition(|(_, other)| !other.is_disjoint(&own));
            own.extend(tied.into_iter().flat_map(|(_, lineages)| lineages));
            histories = apart;
            histories.push((lineage, own));
        }
        let several = |wanted: Option<Lineage>| Error::SeveralHistories {
            dir: dir.to_owned(),
            wanted,
            lineages: histories.iter().map(|(newest, _)| *newest).collect(),
        };
        let Some(wanted) = self.lineage else {
            return if histories.len() > 1 { Err(several(None)) } else { Ok(()) };
        };
        let pickled = (Lineage::DICTDB_1_11, BTreeSet::from([Lineage::DICTDB_1_11]));
        let is_pickled = wanted == Lineage::DICTDB_1_11 && !catalog.pickles.is_empty();
        let found = histories.iter().find(|(_, history)| history.contains(&wanted));
        let found = found.or(is_pickled.then_some(&pickled));
        let (_, kept) = found.ok_or_else(|| several(Some(wanted)))?;
        catalog.entries.retain(|entry| entry.lineage().is_none_or(|lineage| kept.contains(&lineage)));
        if !kept.contains(&Lineage::DICTDB_1_11) {
            catalog.pickles.clear();
        }
        Ok(())
    }

    /// Marks an entry as damaged that only its unread middle can tell to be.
    fn check_entry(&self, entry: &mut Entry) -> Result<()> {
        let Ok(summary) = &entry.found else { return Ok(()) };
        match file::check_summary(&*self.storage, &entry.path, summary, self.trust) {
            Err(error) if error.is_damage() => entry.found = Err(error),
            // It is what it says it is, DictDB's: that is all that was asked.
            Err(Error::UnsupportedValue { .. }) => {}
            other => other?,
        }
        Ok(())
    }

    /// Where to begin: at the newest full backup in these first places of the catalog that is sound, or at the empty
    /// database. Those found damaged are marked.
    fn begin(&self, catalog: &mut Catalog, before: usize) -> Result<Option<(Start, State)>> {
        let is_first = before == catalog.entries.len();
        for index in (0..before).rev() {
            let Some(entry) = catalog.entries.get_mut(index).filter(|entry| entry.name.kind == BackupKind::Full) else {
                continue;
            };
            let read = match std::mem::replace(&mut entry.found, Err(Error::Cancelled)) {
                Err(error) => Err(error),
                Ok(summary) => {
                    entry.found = Ok(summary);
                    self.read_full(&entry.path)
                }
            };
            match read {
                Ok(state) => {
                    if is_first {
                        refuse_pickle(catalog, Some(index))?;
                    }
                    return Ok(Some((Start::Full(index), state)));
                }
                Err(error) if error.is_damage() => {
                    tracing::warn!("passed over a damaged full backup: {error}");
                    entry.found = Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        if is_first {
            refuse_pickle(catalog, None)?;
        }
        // No full backup: the chain may begin at the empty database.
        let root = catalog.entries.iter().find_map(|entry| {
            let history = entry.history().filter(|_| entry.name.kind == BackupKind::Delta)?;
            let from_empty = history.base == Some(Point::empty(history.end.lineage)) && history.parent.is_none();
            from_empty.then_some(history.end.lineage)
        });
        Ok(root.map(|lineage| (Start::Empty(lineage), State::empty(Identity { lineage, parent: None }))))
    }

    /// The state at the beginning of a route, once more.
    fn load(&self, catalog: &Catalog, start: Start) -> Result<State> {
        match start {
            Start::Full(index) => match catalog.entries.get(index) {
                Some(full) => self.read_full(&full.path),
                None => unreachable!("a route begins at a file of its catalog"),
            },
            Start::Empty(lineage) => Ok(State::empty(Identity { lineage, parent: None })),
        }
    }

    fn read_full(&self, path: &Path) -> Result<State> {
        let watch = Watch::new(self.progress.as_deref(), Stage::ReadingFull, path);
        file::read_full(&*self.storage, path, self.trust, &watch)
    }

    /// Applies the deltas that join onto `state`, which is that at the start. It is read again where a delta turns out
    /// damaged halfway: no copy is kept for that case, so that what is applied is applied in place.
    fn follow(&self, catalog: &mut Catalog, start: Start, mut state: State) -> Result<(State, Route)> {
        loop {
            match self.apply_all(catalog, start, state)? {
                Some(followed) => return Ok(followed),
                // The damaged one is known now, so this ends.
                None => state = self.load(catalog, start)?,
            }
        }
    }

    /// `None`, and a note in the catalog, where a delta turned out damaged: the state is of no use then.
    fn apply_all(&self, catalog: &mut Catalog, start: Start, mut state: State) -> Result<Option<(State, Route)>> {
        let mut route = Route::begin(catalog, start, &state);
        let mut pending = Pending::default();
        let ends = route::ends(catalog);
        loop {
            let next = route.next_delta(catalog, &ends, &state);
            // Nothing but the order of stamps joins these: the first damaged one ends the chain.
            let before = (route.is_legacy() && next.is_some()).then(|| state.clone());
            let outcome = match next.and_then(|index| Some((index, catalog.entries.get(index)?))) {
                Some((index, entry)) => {
                    route.used.push(index);
                    let watch = Watch::new(self.progress.as_deref(), Stage::ReadingDelta, &entry.path);
                    let (storage, path) = (&*self.storage, &entry.path);
                    let read = file::read_delta(storage, path, &mut state, &mut pending, self.trust, &watch);
                    read.map(|_| route.goes_on(entry, &state))
                }
                None => pending.settle(&mut state),
            };
            match outcome {
                Ok(()) if next.is_none() => {
                    route.end = state.point();
                    return Ok(Some((state, route)));
                }
                Ok(()) => {}
                Err(Unsound { delta, error }) if error.is_damage() => {
                    let damaged = route.used.get(delta).and_then(|index| catalog.entries.get_mut(*index));
                    let Some(damaged) = damaged else { return Err(error) };
                    damaged.found = Err(error);
                    route.used.pop();
                    return Ok(before.map(|before| {
                        route.end = before.point();
                        (before, route)
                    }));
                }
                Err(Unsound { error, .. }) => return Err(error),
            }
        }
    }

    /// What a route leaves out. What cannot be read now may be sound, and so may what is of another version: that is no
    /// reason for an earlier state.
    fn missed(&self, catalog: &mut Catalog, route: &Route) -> Result<Missed> {
        let missed = route.missed(catalog, |entry| self.check_entry(entry))?;
        for index in &missed.needed {
            let no_damage = |entry: &Entry| entry.found.as_ref().is_err_and(|error| !error.is_damage());
            if catalog.entries.get(*index).is_some_and(no_damage)
                && let Some(unread) = take_damaged(catalog, *index)
            {
                return Err(*unread.error);
            }
        }
        Ok(missed)
    }
}

/// A pickle is an obstacle where it is newer than the full backup that was found sound: what comes before is an earlier state.
/// To a chain of ours it is none that goes on behind it, whose files say what they join onto, nor to another way to a state
/// that was found.
fn refuse_pickle(catalog: &Catalog, full: Option<usize>) -> Result<()> {
    let full = full.and_then(|index| catalog.entries.get(index));
    let is_ours = full.is_some_and(|full| full.history().is_some());
    let ours = catalog.entries.iter().filter(|entry| is_ours && entry.history().is_some());
    let after = full.into_iter().chain(ours).map(|entry| entry.name.stamp).max();
    let Some((_, pickle)) = catalog.pickles.last().filter(|(stamp, _)| Some(*stamp) > after) else { return Ok(()) };
    let expected = "JSON (in DictDB, load it and save it with file_format=\"json\"), not a pickle".to_owned();
    Err(Error::UnsupportedValue { file: pickle.to_owned(), offset: 0, expected })
}

/// What is wrong with an entry, which is of no further use then.
fn take_damaged(catalog: &mut Catalog, index: usize) -> Option<DamagedBackup> {
    let entry = catalog.entries.get_mut(index)?;
    let error = std::mem::replace(&mut entry.found, Err(Error::Cancelled)).err()?;
    Some(DamagedBackup { file: entry.path.clone(), error: Box::new(error) })
}

/// The full backups from this place on that are damaged, the newest first.
fn damaged_fulls(catalog: &mut Catalog, from: usize) -> Vec<DamagedBackup> {
    let is_damaged = |entry: &Entry| entry.name.kind == BackupKind::Full && entry.found.is_err();
    let all = catalog.entries.iter().enumerate().skip(from).rev();
    let damaged: Vec<usize> = all.filter(|(_, entry)| is_damaged(entry)).map(|(index, _)| index).collect();
    damaged.into_iter().filter_map(|index| take_damaged(catalog, index)).collect()
}

/// Why there is nothing to begin with.
fn no_backup(dir: &Path, catalog: &mut Catalog) -> Error {
    let damaged = damaged_fulls(catalog, 0);
    if damaged.is_empty() {
        // Deltas only, and not all of them can be read: their word is the one to hear.
        let error = catalog.entries.drain(..).find_map(|entry| entry.found.err());
        return error.unwrap_or_else(|| Error::NoBackup { dir: dir.to_owned(), damaged });
    }
    Error::NoBackup { dir: dir.to_owned(), damaged }
}

/// Says which files lead to the state, and what was passed over and left out; the rest is for who has the state.
fn report(dir: &Path, catalog: &mut Catalog, route: &Route, missed: Missed) -> RestoreReport {
    let (full, newer) = match route.start {
        Start::Full(index) => (Some(index), index.saturating_add(1)),
        Start::Empty(_) => (None, 0),
    };
    let files = full.iter().chain(&route.used).filter_map(|index| catalog.entries.get(*index));
    let bytes = files.fold(0, |bytes: u64, entry| bytes.saturating_add(entry.bytes()));
    let path = |index: &usize| catalog.entries.get(*index).map(|entry| entry.path.clone());
    let (full, deltas) = (full.as_ref().and_then(path), route.used.iter().filter_map(path).collect());
    let left_out = missed.left_out.iter().filter_map(path).collect();
    let mut damaged = damaged_fulls(catalog, newer);
    let fell_back = !damaged.is_empty();
    damaged.extend(missed.damaged.into_iter().filter_map(|index| take_damaged(catalog, index)));
    RestoreReport {
        dir: dir.to_owned(),
        full,
        deltas,
        point: route.end,
        time: Timestamp::default(),
        records: 0,
        bytes,
        duration: Duration::ZERO,
        fell_back,
        damaged,
        left_out,
        unchecked: Vec::new(),
    }
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
