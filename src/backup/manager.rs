//! The backup manager: DictDB's, with its defects mended.

use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use crate::backup::chain::{Chain, Settings, Wanted};
use crate::backup::report::{BackupReport, BackupStatus, LastBackup, Notified};
use crate::backup::schedule::{Cause, Schedule, Step};
use crate::clock::SteadyClock;
use crate::db::DictDb;
use crate::error::{Error, Result, catch_panics};
use crate::file::compression::Compression;
use crate::file::give_way;
use crate::file::name::BackupFormat;
use crate::file::sink::create_dir;
use crate::progress::{Progress, ProgressFn};
use crate::storage::{DiskStorage, Storage};
use crate::store;

type FailureFn = dyn Fn(&Error, u64) + Send + Sync;

/// Backs a database up into a directory: periodically, when told of a change, and by hand; in full or incrementally.
///
/// Parameters, defaults and methods are those of DictDB's `BackupManager`. Backups never hold up writers: they work
/// on an O(1) snapshot and on shared parts of the ring. Dropping the manager stops it, as [`stop`](Self::stop) does.
///
/// ```
/// use dictdb::{record, BackupFormat, BackupManager, DictDb};
/// use std::time::Duration;
/// let dir = tempfile::tempdir()?;
/// let db = DictDb::new();
/// let events = db.create_table("events", "id")?;
/// let backup = BackupManager::builder(&db, dir.path())
///     .backup_interval(Duration::from_secs(60))
///     .file_format(BackupFormat::Binary)
///     .incremental(true)
///     .on_backup_failure(|error, consecutive| eprintln!("backup failed ({consecutive}x): {error}"))
///     .build()?;
/// backup.start()?;
/// events.insert(record! { "kind": "click" })?;
/// backup.notify_change()?;
/// backup.stop()?;
/// assert_eq!(backup.status().pending_commits, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BackupManager {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    db: DictDb,
    settings: Settings,
    on_failure: Option<Box<FailureFn>>,
    /// The threads that are in it.
    telling: Mutex<Vec<ThreadId>>,
    /// Held for the whole of a backup: one at a time.
    chain: Mutex<Chain>,
    /// The thread that holds it.
    backing_up: Mutex<Option<ThreadId>>,
    /// When the next one is due. Taken alone or inside `chain`, and only for a moment.
    timing: Mutex<Timing>,
    changed: Condvar,
    /// What `status` tells. Taken alone or inside `chain`, and only for a moment.
    record: Mutex<Track>,
}

struct Timing {
    schedule: Schedule,
    running: bool,
    /// Raised by every start and stop: a thread that was stopped ends, though another one was started meanwhile.
    generation: u64,
}

/// The manager's own record of how it is doing.
#[derive(Default)]
struct Track {
    failures: u64,
    last_failure: Option<String>,
    last: Option<LastBackup>,
    deltas: u32,
}

/// Settings of a [`BackupManager`]; see [`BackupManager::builder`].
pub struct BackupManagerBuilder {
    db: DictDb,
    dir: PathBuf,
    backup_interval: Duration,
    file_format: BackupFormat,
    compression: Compression,
    min_backup_interval: Duration,
    on_failure: Option<Box<FailureFn>>,
    incremental: bool,
    max_deltas_before_full: u32,
    progress: Option<Box<ProgressFn>>,
    storage: Box<dyn Storage>,
}

impl BackupManagerBuilder {
    /// Time between periodic backups, from the end of one to the next; 300 s unless said otherwise.
    pub fn backup_interval(mut self, interval: Duration) -> Self {
        self.backup_interval = interval;
        self
    }

    /// JSON (unless said otherwise), which DictDB reads too, or binary.
    pub fn file_format(mut self, format: BackupFormat) -> Self {
        self.file_format = format;
        self
    }

    /// Whether full backups are compressed; `None` unless said otherwise. For the binary format only: a backup in JSON is
    /// to be read with nothing but an editor. Deltas stay as the log has them.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Least time between a backup and one made because of a notified change; 5 s unless said otherwise. A change
    /// inside it waits for its end.
    pub fn min_backup_interval(mut self, interval: Duration) -> Self {
        self.min_backup_interval = interval;
        self
    }

    /// Called after each backup that failed, with the error and the count of failures since the last success. No lock
    /// is held meanwhile; a panic in it is logged and goes no further. It may stop the manager, or try again: a backup that
    /// fails there gives it the error, and does not call it once more.
    pub fn on_backup_failure(mut self, callback: impl Fn(&Error, u64) + Send + Sync + 'static) -> Self {
        self.on_failure = Some(Box::new(callback));
        self
    }

    /// Whether the usual backup is a delta; `false` unless said otherwise.
    pub fn incremental(mut self, incremental: bool) -> Self {
        self.incremental = incremental;
        self
    }

    /// Deltas after which the usual backup is a full one again; 10 unless said otherwise.
    pub fn max_deltas_before_full(mut self, deltas: u32) -> Self {
        self.max_deltas_before_full = deltas;
        self
    }

    /// Called as backups proceed; `Break` ends the one at hand with [`Error::Cancelled`] and leaves nothing of it. A
    /// panic in it is logged, and the backup goes on. It cannot itself make a backup with this manager
    /// ([`Error::NestedBackup`]).
    pub fn on_progress(mut self, callback: impl Fn(&Progress<'_>) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Where files are written; the disk unless said otherwise.
    pub fn storage(mut self, storage: impl Storage + 'static) -> Self {
        self.storage = Box::new(storage);
        self
    }

    /// Makes the directory if need be, and looks at what it holds: where a chain there leads to a point of this
    /// database's history, the manager goes on with it.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`]; [`Error::InvalidSetting`] for an interval of zero, and for compression of JSON;
    /// [`Error::StoreDirectory`] for a directory that holds a store.
    pub fn build(self) -> Result<BackupManager> {
        if self.backup_interval.is_zero() {
            let problem = "must be longer than zero, or backups would never pause".to_owned();
            return Err(Error::InvalidSetting { setting: "backup_interval", problem });
        }
        if self.compression != Compression::None && self.file_format == BackupFormat::Json {
            let problem =
                "JSON is not compressed: use file_format(BackupFormat::Binary), or Compression::None".to_owned();
            return Err(Error::InvalidSetting { setting: "compression", problem });
        }
        if store::is_store(&*self.storage, &self.dir) {
            return Err(Error::StoreDirectory { dir: self.dir });
        }
        create_dir(&*self.storage, &self.dir)?;
        let chain = Chain::open(&*self.storage, &self.dir, &self.db)?;
        let state = self.db.read_in_passing().clone();
        let record = Track { last: chain.last(&state), deltas: chain.deltas(&state), ..Track::default() };
        let settings = Settings {
            clock: SteadyClock::new(self.db.clock().clone()),
            dir: self.dir,
            format: self.file_format,
            compression: self.compression,
            incremental: self.incremental,
            max_deltas_before_full: self.max_deltas_before_full,
            progress: self.progress.map(unpanicking),
            storage: self.storage,
        };
        let schedule = Schedule::new(self.backup_interval, self.min_backup_interval);
        let inner = Inner {
            db: self.db,
            settings,
            on_failure: self.on_failure,
            chain: Mutex::new(chain),
            telling: Mutex::default(),
            backing_up: Mutex::new(None),
            timing: Mutex::new(Timing { schedule, running: false, generation: 0 }),
            changed: Condvar::new(),
            record: Mutex::new(record),
        };
        Ok(BackupManager { inner: Arc::new(inner), thread: Mutex::new(None) })
    }
}

impl fmt::Debug for BackupManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupManagerBuilder")
            .field("dir", &self.dir)
            .field("backup_interval", &self.backup_interval)
            .field("file_format", &self.file_format)
            .field("compression", &self.compression)
            .field("min_backup_interval", &self.min_backup_interval)
            .field("on_backup_failure", &self.on_failure.is_some())
            .field("incremental", &self.incremental)
            .field("max_deltas_before_full", &self.max_deltas_before_full)
            .finish_non_exhaustive()
    }
}

impl BackupManager {
    /// A manager with DictDB's defaults: JSON, full backups, every 300 s once started.
    ///
    /// # Errors
    /// As [`BackupManagerBuilder::build`].
    pub fn new(db: &DictDb, dir: impl AsRef<Path>) -> Result<BackupManager> {
        BackupManager::builder(db, dir).build()
    }

    /// Settings for a manager that backs `db` up into `dir`.
    pub fn builder(db: &DictDb, dir: impl AsRef<Path>) -> BackupManagerBuilder {
        BackupManagerBuilder {
            db: db.clone(),
            dir: dir.as_ref().to_owned(),
            backup_interval: Duration::from_secs(300),
            file_format: BackupFormat::Json,
            compression: Compression::None,
            min_backup_interval: Duration::from_secs(5),
            on_failure: None,
            incremental: false,
            max_deltas_before_full: 10,
            progress: None,
            storage: Box::new(DiskStorage),
        }
    }

    /// Starts the thread that makes periodic and notified backups; does nothing where it runs already. Works again
    /// after [`stop`](Self::stop).
    ///
    /// # Errors
    /// [`Error::Io`] where the operating system gives no thread.
    pub fn start(&self) -> Result<()> {
        let mut thread = lock(&self.thread);
        let mut timing = lock(&self.inner.timing);
        if timing.running {
            return Ok(());
        }
        let generation = timing.generation.wrapping_add(1);
        let inner = self.inner.clone();
        let spawned = std::thread::Builder::new().name("dictdb-backup".to_owned()).spawn(move || inner.run(generation));
        let handle = spawned.map_err(Error::io("start the backup thread for", &self.inner.settings.dir))?;
        // One that stop() was called from inside of ends by itself.
        *thread = Some(handle);
        timing.schedule.start(self.inner.now());
        timing.running = true;
        timing.generation = generation;
        drop(timing);
        self.inner.changed.notify_all();
        Ok(())
    }

    /// Stops the thread, after the backup that it may be making, and finishes a pending notified change first: its
    /// report, where there was one and something to back up. A change whose backup failed counts as pending, also where
    /// that fails meanwhile, on whatever thread. Does nothing else where the manager does not run. (Called from inside a
    /// callback it does not wait for the thread; from inside `on_progress` it leaves a pending change to the next `stop`.)
    ///
    /// # Errors
    /// As [`backup_now`](Self::backup_now), of the pending change's backup.
    pub fn stop(&self) -> Result<Option<BackupReport>> {
        let thread = {
            let mut thread = lock(&self.thread);
            let mut timing = lock(&self.inner.timing);
            timing.running = false;
            timing.generation = timing.generation.wrapping_add(1);
            timing.schedule.stop();
            thread.take()
        };
        self.inner.changed.notify_all();
        let inside = self.inner.is_inside_backup();
        if let Some(handle) = thread {
            // No lock is held: a callback on that thread may be calling start() or stop() itself.
            if inside || handle.thread().id() == std::thread::current().id() {
                lock(&self.thread).get_or_insert(handle);
            } else if handle.join().is_err() {
                tracing::error!("the backup thread ended with a panic");
            }
        }
        if inside {
            // Not now; by the next stop, which at the latest comes when the manager is dropped.
            return Ok(None);
        }
        if self.inner.is_change_left() { self.inner.automatic(Cause::Stop) } else { Ok(None) }
    }

    /// Makes a backup now: a delta in an incremental manager, unless its chain has reached
    /// `max_deltas_before_full`; else a full one. Always writes a file. Waits for one that is being made.
    ///
    /// # Errors
    /// [`Error::Io`], also where the storage panics, [`Error::DiskFull`]; [`Error::NotRepresentable`] (NaN in JSON),
    /// [`Error::Cancelled`], [`Error::NestedBackup`]; [`Error::LeftBehind`] where the store was closed, or only looked at, and
    /// somebody has backed up here what came later; [`Error::StoreDirectory`] where a store was made in the directory since,
    /// [`Error::Exhausted`] where a name there has the last stamp.
    /// Failures count, and the callback hears of them, as for automatic backups (a cancelled backup is none). A failed
    /// backup leaves no file, unless the storage panicked or refused to remove it, and the checkpoint where it was: the
    /// next one that succeeds holds everything.
    pub fn backup_now(&self) -> Result<BackupReport> {
        self.inner.attempt(Cause::Manual, Wanted::Usual).and_then(some)
    }

    /// Makes a full backup now: writes and syncs the whole state as it stands, while writers go on. In an incremental
    /// manager a delta leads over to it from the chain before; see [`BackupReport::bridge`].
    ///
    /// # Errors
    /// As [`backup_now`](Self::backup_now).
    pub fn backup_full(&self) -> Result<BackupReport> {
        self.inner.attempt(Cause::Manual, Wanted::Full).and_then(some)
    }

    /// Makes a delta backup now, also in a manager that is not incremental: writes and syncs what was committed since
    /// the last backup, so the cost grows with that and not with the database. A full one is made where no delta could
    /// be restored from: see [`BackupReport::promoted`].
    ///
    /// # Errors
    /// As [`backup_now`](Self::backup_now).
    pub fn backup_delta(&self) -> Result<BackupReport> {
        self.inner.attempt(Cause::Manual, Wanted::Delta).and_then(some)
    }

    /// Tells of a significant change. Where the manager runs, its thread makes a backup as soon as
    /// `min_backup_interval` allows, and this returns at once; where it does not, the backup is made here, or kept for
    /// later. Changes that come while one waits share its backup. Should that backup fail, the next periodic one or `stop`
    /// makes up for it.
    ///
    /// # Errors
    /// As [`backup_now`](Self::backup_now), where the backup is made here.
    pub fn notify_change(&self) -> Result<Notified> {
        let step = {
            let mut timing = lock(&self.inner.timing);
            timing.schedule.notify();
            if timing.running { None } else { Some(timing.schedule.inline_step(self.inner.now())) }
        };
        match step {
            None => {
                self.inner.changed.notify_all();
                Ok(Notified::Scheduled)
            }
            Some(_) if self.inner.is_inside_backup() => Ok(Notified::Deferred),
            Some(Step::WaitUntil(_)) => Ok(Notified::Deferred),
            Some(Step::Backup(cause)) => Ok(match self.inner.automatic(cause)? {
                Some(report) => Notified::BackedUp(Box::new(report)),
                None => Notified::Unchanged,
            }),
        }
    }

    /// Backups that failed since the last one that succeeded.
    pub fn consecutive_failures(&self) -> u64 {
        lock(&self.inner.record).failures
    }

    /// Deltas since the newest full backup, those found in the directory included.
    pub fn deltas_since_full(&self) -> u32 {
        lock(&self.inner.record).deltas
    }

    /// The directory.
    pub fn backup_dir(&self) -> &Path {
        &self.inner.settings.dir
    }

    /// How the manager is doing. Never waits for a backup.
    pub fn status(&self) -> BackupStatus {
        let (running, change_pending) = {
            let timing = lock(&self.inner.timing);
            (timing.running, timing.schedule.is_pending())
        };
        let record = lock(&self.inner.record);
        let state = self.inner.db.read_in_passing();
        let covered = record.last.as_ref().map_or(state.identity.origin(), |last| last.seq);
        // Restored or loaded: what it began with is in no backup of this directory unless one was joined.
        let inherited = u64::from(record.last.is_none() && state.identity.parent.is_some());
        BackupStatus {
            running,
            last_success: record.last.clone(),
            pending_commits: state.seq.since(covered).saturating_add(inherited),
            consecutive_failures: record.failures,
            last_failure: record.last_failure.clone(),
            deltas_since_full: record.deltas,
            change_pending,
        }
    }
}

impl Drop for BackupManager {
    fn drop(&mut self) {
        // The failure was counted, logged and told to the callback; there is nobody else to tell.
        let _ = self.stop();
    }
}

impl fmt::Debug for BackupManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupManager({:?}, {})", self.inner.settings.dir, self.status())
    }
}

/// A backup that people rely on does not end, nor the thread that makes it, because of a broken progress bar.
fn unpanicking(callback: Box<ProgressFn>) -> Box<ProgressFn> {
    Box::new(move |progress| {
        catch_unwind(AssertUnwindSafe(|| callback(progress))).unwrap_or_else(|_| {
            tracing::error!("on_progress panicked; the backup goes on");
            ControlFlow::Continue(())
        })
    })
}

fn some(report: Option<BackupReport>) -> Result<BackupReport> {
    match report {
        Some(report) => Ok(report),
        None => unreachable!("only automatic backups are skipped"),
    }
}

/// No lock here but `chain` is held across the user's code, unless that is the clock, which must not come back here; and what
/// they guard is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn now(&self) -> Duration {
        self.settings.clock.monotonic()
    }

    /// The thread: asks the schedule what is due, and does it, until it is told to stop.
    fn run(&self, generation: u64) {
        give_way();
        let mut timing = lock(&self.timing);
        while timing.running && timing.generation == generation {
            let now = self.now();
            match timing.schedule.next(now) {
                Step::Backup(cause) => {
                    drop(timing);
                    // A failure was counted, logged and told to the callback; here is nobody else to tell.
                    let _ = self.automatic(cause);
                    timing = lock(&self.timing);
                }
                Step::WaitUntil(None) => timing = self.changed.wait(timing).unwrap_or_else(PoisonError::into_inner),
                Step::WaitUntil(Some(due)) => {
                    let waited = self.changed.wait_timeout(timing, due.saturating_sub(now));
                    timing = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn automatic(&self, cause: Cause) -> Result<Option<BackupReport>> {
        self.attempt(cause, Wanted::Usual)
    }

    /// One backup, with everything that belongs to it. `Ok(None)` where an automatic one found nothing to do.
    fn attempt(&self, cause: Cause, wanted: Wanted) -> Result<Option<BackupReport>> {
        if self.is_inside_backup() {
            return Err(Error::NestedBackup);
        }
        let (outcome, failures) = {
            let mut chain = lock(&self.chain);
            *lock(&self.backing_up) = Some(std::thread::current().id());
            // Before the state is looked at: a change notified from here on is not taken for backed up.
            lock(&self.timing).schedule.began(cause);
            let outcome = catch_panics("back up into", &self.settings.dir, || self.make(&mut chain, cause, wanted));
            *lock(&self.backing_up) = None;
            let failure = outcome.as_ref().err().filter(|error| !matches!(error, Error::Cancelled));
            let failures = failure.map(|error| self.count_failure(error));
            let now = self.now();
            match &outcome {
                Ok(Some(_)) => lock(&self.timing).schedule.finished(now),
                Ok(None) => lock(&self.timing).schedule.skipped(now),
                Err(_) => lock(&self.timing).schedule.failed(now),
            }
            self.changed.notify_all();
            (outcome, failures)
        };
        if let (Err(error), Some(failures)) = (&outcome, failures) {
            self.tell_failure(error, failures);
        }
        outcome
    }

    fn make(&self, chain: &mut Chain, cause: Cause, wanted: Wanted) -> Result<Option<BackupReport>> {
        if cause != Cause::Manual && chain.is_up_to_date(&self.settings, &self.db)? {
            tracing::debug!("nothing was committed since the last backup, and its files are there");
            return Ok(None);
        }
        let (report, state) = match chain.back_up(&self.settings, &self.db, wanted) {
            Err(Error::LeftBehind { newest, stands, .. })
                if cause != Cause::Manual && chain.is_covered(&newest, &stands) =>
            {
                tracing::debug!("the handle that went on has backed up what this one holds");
                return Ok(None);
            }
            made => made?,
        };
        let (last, deltas) = (chain.last(&state), chain.deltas(&state));
        *lock(&self.record) = Track { failures: 0, last_failure: None, last, deltas };
        tracing::info!("{report}");
        Ok(Some(report))
    }

    /// Gives how many there have been in a row.
    fn count_failure(&self, error: &Error) -> u64 {
        let mut record = lock(&self.record);
        record.failures = record.failures.saturating_add(1);
        record.last_failure = Some(error.to_string());
        record.failures
    }

    /// Whether a notified change is still to be backed up, once no attempt is under way that may have done it.
    fn is_change_left(&self) -> bool {
        let mut timing = lock(&self.timing);
        while timing.schedule.is_saving() {
            timing = self.changed.wait(timing).unwrap_or_else(PoisonError::into_inner);
        }
        timing.schedule.is_pending()
    }

    /// Whether this thread is making a backup: then this is a call from inside its progress callback.
    fn is_inside_backup(&self) -> bool {
        *lock(&self.backing_up) == Some(std::thread::current().id())
    }

    fn tell_failure(&self, error: &Error, failures: u64) {
        tracing::error!(consecutive = failures, "backup failed: {error}");
        let Some(callback) = &self.on_failure else { return };
        let here = std::thread::current().id();
        {
            // Whoever tries again in it, while the disk is full, would be called for ever.
            let mut telling = lock(&self.telling);
            if telling.contains(&here) {
                return;
            }
            telling.push(here);
        }
        if catch_unwind(AssertUnwindSafe(|| callback(error, failures))).is_err() {
            tracing::error!("on_backup_failure panicked; the manager goes on");
        }
        lock(&self.telling).retain(|thread| *thread != here);
    }
}
