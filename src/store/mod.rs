//! An opened store: a directory whose log makes commits durable.
//!
//! | module | what |
//! |---|---|
//! | `options` | settings, checked once; when a checkpoint is due |
//! | `directory` | what the directory holds |
//! | `recover` | from there to the state |
//! | `create` | a store made of a restored state |
//! | `checkpoint` | a snapshot while writers go on, and what can go behind it |
//! | `keeper` | the thread, where there has to be one |
//! | `report` | what was found and what holds |
//!
//! Promise: an acknowledged commit survives any crash, one of the recovery included, and what cannot be trusted is refused,
//! not guessed.

mod checkpoint;
mod create;
mod directory;
mod keeper;
mod options;
mod recover;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::db::{Access, DictDb};
use crate::error::{Error, Result};
use crate::file::compression::Compression;
use crate::file::name::Stamp;
use crate::file::store_name::StoreFile;
use crate::history::{Lineage, Seq};
use crate::limits::{GATHERED_BYTES_MAX, PENDING_BYTES_MAX, WRITTEN_BYTES};
use crate::log::{Goal, Group, LogWriter, Place, Reached, SegmentEnd, SegmentReader, Stamps};
use crate::ring::{RingBytes, RingSlice, Unserved};
use crate::storage::{DirLock, Storage};

use directory::{Directory, Line};
use keeper::Keepers;
use recover::{Recovered, Recovery};

pub(crate) use create::{check_empty, create, is_of_a_store, is_store};
pub use options::{CheckpointPolicy, Durability, Options};
pub use report::{CheckpointReport, DurabilityReport, OpenReport, TornReport};

/// What an opened store has beside the database in memory.
pub(crate) struct Store {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    log: Group<LogWriter>,
    stamps: Arc<Stamps>,
    /// The newest that the open found: of a later one this session knows whether its name is durable.
    found: Option<Stamp>,
    durability: Durability,
    policy: CheckpointPolicy,
    /// Of snapshots.
    compression: Compression,
    segment_bytes: u64,
    ring_bytes: RingBytes,
    /// Whether a write has been prepared since the store was opened. Changed only by the holder of the database's writer
    /// lock.
    is_begun: AtomicBool,
    /// Frame bytes in the segment that is being filled. Changed only by the holder of the database's writer lock.
    filled: AtomicU64,
    /// Frame bytes behind the newest checkpoint.
    log_bytes: AtomicU64,
    /// Held for the whole of a checkpoint: one at a time.
    checkpointing: Mutex<()>,
    /// Only for a moment.
    track: Mutex<Track>,
    keepers: Keepers,
    /// Set once the store is to end: a checkpoint under way breaks off.
    stopping: Arc<AtomicBool>,
    /// Whether commits wait for the keeper's write or sync: 0 for none, 1 for some, 2 for so many that it must come early.
    unsynced: AtomicU8,
    /// Its lock is given back by `close`, or when the last handle goes.
    place: Place,
    report: Arc<OpenReport>,
}

/// What `durability_report` tells, beside the log's own.
#[derive(Debug, Default)]
struct Track {
    checkpoint: Option<Seq>,
    snapshot_bytes: u64,
    failures: u64,
    last_failure: Option<String>,
    /// Of the replay, in bytes a second, as measured.
    replay_rate: Option<f64>,
    leftovers: Vec<PathBuf>,
    /// Whether this session has published a snapshot: its name is known to be durable.
    published: bool,
    /// Snapshots that were read back whole in this session.
    verified: Vec<PathBuf>,
}

impl Track {
    /// Counts a checkpoint that failed.
    fn fail(&mut self, why: String) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(why);
    }

    /// Notes a snapshot that was read back. Only the newest few are ever asked about.
    fn verify(&mut self, file: PathBuf) {
        self.verified.push(file);
        if self.verified.len() > 8 {
            self.verified.remove(0);
        }
    }
}

/// Times that a store in use is looked at before what is found is taken for what it is.
const LOOKS_MAX: u32 = 10;

/// Bytes of log replayed that a measured rate is based on.
const MEASURED_BYTES_MIN: u64 = 1 << 20;

pub(crate) fn open(options: &Options, dir: &Path) -> Result<DictDb> {
    let storage = Arc::clone(&options.storage);
    let started = options.clock.monotonic();
    // Looked at before anything is made in it.
    check_is_there(options, dir, &Directory::read(&*storage, dir)?)?;
    let lock = create::own(&*storage, dir)?;
    // Names that a process which was killed had not synced yet are made durable before anything is built on them.
    storage.sync_dir(dir).map_err(Error::io("sync directory", dir))?;
    let found = Directory::read(&*storage, dir)?;
    let recovery = Recovery {
        storage: &*storage,
        dir,
        ring_bytes: options.ring_bytes,
        progress: options.progress.as_deref(),
        clock: &*options.clock,
        lenient: false,
        before: None,
    };
    let mut recovered = recovery.run(&found)?;
    recovered.report.duration = options.clock.monotonic().saturating_sub(started);
    log_report(&recovered.report);
    Store::start(options, dir, lock, found, recovered)
}

pub(crate) fn open_read_only(options: &Options, dir: &Path) -> Result<DictDb> {
    let storage = &*options.storage;
    let started = options.clock.monotonic();
    // One that is not there is an error, not an empty store.
    storage.list(dir).map_err(Error::io("list directory", dir))?;
    let progress = options.progress.as_deref();
    let (ring_bytes, clock) = (options.ring_bytes, &*options.clock);
    let recovery = Recovery { storage, dir, ring_bytes, progress, clock, lenient: true, before: None };
    let mut found = Directory::read(storage, dir)?;
    check_is_there(options, dir, &found)?;
    let (mut looks, mut before) = (1_u32, None);
    let Recovered { state, ring, mut report, .. } = loop {
        let outcome = recovery.run(&found);
        let trouble = match &outcome {
            Err(error) => Some(error.to_string()),
            Ok(recovered) => recovered.report.damage.as_ref().map(ToString::to_string),
        };
        if trouble.is_none() || looks >= LOOKS_MAX || matches!(outcome, Err(Error::Cancelled)) {
            break outcome?;
        }
        // What looks like damage, or is gone, in a store that is in use: it went on meanwhile, in other files, or in one that
        // was read while it was written. Damage is what is found twice.
        let again = Directory::read(storage, dir)?;
        let is_known = trouble == before || outcome.as_ref().is_err_and(directory::is_io);
        if again.files == found.files && is_known {
            break outcome?;
        }
        (found, looks, before) = (again, looks.saturating_add(1), trouble);
    };
    report.read_only = true;
    report.duration = options.clock.monotonic().saturating_sub(started);
    log_report(&report);
    Ok(DictDb::assemble(state, ring, Arc::clone(&options.clock), Access::ReadOnly(Arc::new(report))))
}

/// Refuses to begin an empty store where that is not wanted.
fn check_is_there(options: &Options, dir: &Path, found: &Directory) -> Result<()> {
    if options.create_if_missing || found.has_commits() {
        return Ok(());
    }
    let problem =
        "holds no commit, and create_if_missing(false) begins no store: is its disk mounted, and its path right?";
    Err(Error::NotAStore { dir: dir.to_owned(), problem: problem.to_owned() })
}

fn log_report(report: &OpenReport) {
    if report.fell_back || report.damage.is_some() || !report.damaged.is_empty() {
        tracing::warn!("{report}");
    } else {
        tracing::info!("{report}");
    }
}

impl Store {
    fn start(
        options: &Options,
        dir: &Path,
        lock: Box<dyn DirLock>,
        found: Directory,
        recovered: Recovered,
    ) -> Result<DictDb> {
        let Recovered { state, ring, durable, pending, torn, checkpoint, log_bytes, replay_time, report } = recovered;
        let newest = found.newest();
        let stamps = Arc::new(Stamps::after(newest));
        let place = Place::new(dir, lock);
        let writer = LogWriter {
            storage: Arc::clone(&options.storage),
            place: place.clone(),
            clock: Arc::clone(&options.clock),
            stamps: Arc::clone(&stamps),
            identity: state.identity,
            preallocation: u32::try_from(options.preallocate_bytes).unwrap_or(u32::MAX),
            base: durable,
            torn,
            sealed: report.clean,
            is_new: report.snapshot.is_none() && report.segments == 0,
            active: None,
        };
        let snapshot_bytes = match &report.snapshot {
            Some(file) => options.storage.open(file).and_then(|file| file.len()).map_err(Error::io("read", file))?,
            None => 0,
        };
        // That of the snapshot comes on top, and is no shorter for another checkpoint.
        let seconds = replay_time.as_secs_f64();
        let measured = log_bytes >= MEASURED_BYTES_MIN && seconds > 0.0;
        let track = Track {
            checkpoint,
            snapshot_bytes,
            replay_rate: measured.then(|| log_bytes as f64 / seconds),
            leftovers: found.leftovers,
            ..Track::default()
        };
        let store = Store {
            storage: Arc::clone(&options.storage),
            clock: Arc::clone(&options.clock),
            log: Group::new(writer, durable.point.seq.get()),
            stamps,
            found: newest,
            durability: options.durability,
            policy: options.checkpoint,
            compression: options.compression,
            segment_bytes: options.segment_bytes,
            ring_bytes: options.ring_bytes,
            is_begun: AtomicBool::new(false),
            filled: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            checkpointing: Mutex::new(()),
            track: Mutex::new(track),
            keepers: Keepers::default(),
            stopping: Arc::default(),
            unsynced: AtomicU8::new(0),
            place,
            report: Arc::new(report),
        };
        for (seq, frame) in &pending {
            // Where a segment ends is a matter of what the state was there; this one may grow a little longer.
            store.append(*seq, frame, || None)?;
        }
        store.log_bytes.store(log_bytes, Ordering::Relaxed);
        let db = DictDb::assemble(state, ring, Arc::clone(&options.clock), Access::Store(Box::new(store)));
        keeper::start(&db)?;
        Ok(db)
    }

    /// Whether a frame of so many bytes is the last of its segment. For the holder of the database's writer lock.
    pub(crate) fn fills_a_segment(&self, frame_bytes: usize) -> bool {
        self.filled.load(Ordering::Relaxed).saturating_add(frame_bytes as u64) >= self.segment_bytes
    }

    /// Appends a commit's frame. `end` is asked for the point behind it where the segment is full.
    pub(crate) fn append(&self, seq: Seq, frame: &[u8], end: impl FnOnce() -> Option<SegmentEnd>) -> Result<usize> {
        let bytes = frame.len() as u64;
        let mark = || {
            let end = if self.fills_a_segment(frame.len()) { end() } else { None };
            let filled = self.filled.load(Ordering::Relaxed).saturating_add(bytes);
            self.filled.store(if end.is_some() { 0 } else { filled }, Ordering::Relaxed);
            end
        };
        self.log.append(seq.get(), frame, mark).map_err(poisoned)
    }

    /// The log grew by a commit that readers see: a checkpoint takes off what was counted before it looks at the state.
    pub(crate) fn grew(&self, bytes: u64) {
        let before = self.log_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.keepers.log_grew(before.saturating_add(bytes));
    }

    /// Waits until the commit is as durable as the store, or the caller, asks for.
    pub(crate) fn settle(&self, seq: Seq, pending: usize, asked: Option<Durability>) -> Result<()> {
        // Anything stronger than what the store does by itself is done now.
        if self.durability == Durability::Sync || asked.is_some_and(|asked| asked > self.durability) {
            return self.log.reach(seq.get(), Goal::Synced).map_err(poisoned);
        }
        let urgency = match self.durability {
            Durability::Manual if pending < WRITTEN_BYTES => return Ok(()),
            Durability::Interval(_) if pending < GATHERED_BYTES_MAX => 1,
            _ => 2,
        };
        // Most commits find it there already; it is taken back before the bytes that it is about are.
        if self.unsynced.load(Ordering::Acquire) < urgency
            && self.unsynced.fetch_max(urgency, Ordering::AcqRel) < urgency
        {
            self.keepers.wake_syncer(urgency > 1);
        }
        if pending >= PENDING_BYTES_MAX {
            self.log.reach(seq.get(), Goal::Written).map_err(poisoned)?;
        }
        Ok(())
    }

    /// Makes everything appended so far durable. Behind a failure there is no such promise, also where nothing is left;
    /// behind a close all is.
    pub(crate) fn sync(&self) -> Result<()> {
        if let Some(cause) = self.log.failure().filter(|cause| !matches!(**cause, Error::Closed)) {
            return Err(poisoned(cause));
        }
        let appended = self.log.reached().appended;
        self.log.reach(appended, Goal::Synced).map_err(poisoned)
    }

    /// Frame bytes in the segment that is being filled.
    pub(crate) fn filled(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }

    /// Hands everything appended so far to the system.
    pub(crate) fn write_out(&self) -> Result<()> {
        let appended = self.log.reached().appended;
        self.log.reach(appended, Goal::Written).map_err(poisoned)
    }

    /// The seq that a frame made now may call durable.
    pub(crate) fn synced(&self) -> Seq {
        Seq::new(self.log.synced())
    }

    /// Before a write: see [`LogWriter::reopen`]. Called by the holder of the database's writer lock.
    pub(crate) fn begin(&self) -> Result<()> {
        self.check()?;
        if self.is_begun.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.log.prepare(LogWriter::reopen).map_err(poisoned)?;
        self.is_begun.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Refuses what could not be logged.
    pub(crate) fn check(&self) -> Result<()> {
        self.log.failure().map_or(Ok(()), |cause| Err(poisoned(cause)))
    }

    pub(crate) fn open_report(&self) -> &Arc<OpenReport> {
        &self.report
    }

    /// `memory` is asked after the log, and a commit that is logged is in memory next: so no report is of a log that is ahead.
    pub(crate) fn report(&self, memory: impl FnOnce() -> Seq, backup: Option<Seq>) -> DurabilityReport {
        let Reached { written, synced, .. } = self.log.reached();
        let memory = memory().max(Seq::new(written));
        let track = self.track();
        DurabilityReport {
            memory,
            written: Some(Seq::new(written)),
            synced: Some(Seq::new(synced)),
            checkpoint: track.checkpoint,
            backup,
            log_bytes: self.log_bytes.load(Ordering::Relaxed),
            poisoned: self.log.failure().filter(|cause| !matches!(**cause, Error::Closed)),
            checkpoint_failures: track.failures,
            last_checkpoint_failure: track.last_failure.clone(),
        }
    }

    /// The frames in `(after, last]` out of the log's segments, for a backup that the ring does not reach back for.
    pub(crate) fn slice(&self, lineage: Lineage, after: Seq, last: Seq) -> Result<RingSlice, Unserved> {
        let gap = || Unserved::Gap { oldest: last.next().unwrap_or(last) };
        // What is there otherwise may have been put back from a copy, and be another future of the same history.
        let is_own = || !self.is_given_back() && self.place.check().is_ok();
        if !is_own() {
            return Err(gap());
        }
        match self.read_slice(lineage, after, last) {
            Ok(slice) if is_own() => slice.ok_or_else(gap),
            Ok(_) => Err(gap()),
            // A checkpoint has just removed it.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Err(gap()),
            Err(error) => {
                tracing::warn!("the log cannot serve a delta: {error}");
                Err(Unserved::Unreadable)
            }
        }
    }

    /// `None` where the log does not reach back so far, or that would be too much.
    fn read_slice(&self, lineage: Lineage, after: Seq, last: Seq) -> Result<Option<RingSlice>> {
        // A delta larger than this is no cheaper than a full backup, and would be in memory at once.
        let bytes_max = self.ring_bytes.most().max(PENDING_BYTES_MAX);
        self.log.reach(last.get(), Goal::Written).map_err(poisoned)?;
        let found = Directory::read(&*self.storage, self.place.dir())?;
        let line = Line::read(&*self.storage, self.place.dir(), &found)?;
        let mut bytes = Vec::new();
        let mut at = after;
        let mut ends = line.segments.iter().skip(1).map(|next| Some(next.base.seq)).chain([None]);
        for segment in &line.segments {
            let end = ends.next().flatten();
            let wanted = segment.header.lineage == lineage && segment.base.seq <= at && end.is_none_or(|end| end > at);
            if !wanted || at >= last {
                continue;
            }
            let mut reader = SegmentReader::open(&*self.storage, &segment.path)?;
            let until = end.map_or(last, |end| end.min(last));
            let mut fits = true;
            let read = reader.read(Some(until), |frame| {
                let wanted = frame.seq > after;
                fits = !wanted || bytes.len().saturating_add(frame.payload.len()) <= bytes_max;
                if wanted && fits {
                    bytes.extend_from_slice(frame.header_bytes);
                    bytes.extend_from_slice(frame.payload);
                    at = frame.seq;
                }
                if fits { Ok(()) } else { Err(Error::Cancelled) }
            });
            if !fits {
                return Ok(None);
            }
            let ending = read?;
            if ending.last < until {
                return Err(Error::corrupt(&segment.path, ending.at, format!("the commits up to seq {until}")));
            }
        }
        match line.broken_by {
            _ if at == last => Ok(Some(RingSlice::new(after, last, vec![Arc::new(bytes)]))),
            Some(damage) => Err(damage),
            None => Ok(None),
        }
    }

    /// Writes and syncs what is left, and seals the log at `end`, or not at all. Gives the lock back, whatever becomes of that.
    pub(crate) fn close(&self, end: Option<SegmentEnd>) -> Result<()> {
        let synced = self.sync();
        let _unlocked = GiveBack(self);
        synced?;
        let writer = self.log.end(Error::Closed).map_err(poisoned)?;
        match end {
            Some(end) => writer.close(end),
            None => Err(poisoned(Arc::new(Error::Panicked))),
        }
    }

    /// Whether it was closed, so that another handle may go on with its history.
    pub(crate) fn is_given_back(&self) -> bool {
        self.place.is_given_back()
    }

    /// Ends the thread that writes checkpoints, breaks off one under way, and waits for that.
    pub(crate) fn stop_checkpoints(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.keepers.stop_checkpoints();
        // One made by hand, or one that another close waits for. Those that begin now end at once.
        drop(self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the store's threads.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.keepers.stop();
    }

    fn track(&self) -> MutexGuard<'_, Track> {
        self.track.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checkpoint_due(&self) -> bool {
        let track = self.track();
        self.policy.is_due(self.log_bytes.load(Ordering::Relaxed), track.snapshot_bytes, track.replay_rate)
    }

    fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    fn replay_rate(&self) -> Option<f64> {
        self.track().replay_rate
    }

    fn set_replay_rate(&self, bytes_per_second: f64) {
        self.track().replay_rate = Some(bytes_per_second);
    }

    /// Commits from here on wait for another round of the keeper's than the one that comes now.
    fn mark_synced(&self) {
        self.unsynced.store(0, Ordering::Release);
    }

    fn files(&self, kind: StoreFile) -> Result<usize> {
        Ok(Directory::read(&*self.storage, self.place.dir())?.of_kind(kind).count())
    }
}

/// Gives the directory's lock back at its end, also where the storage panics before.
struct GiveBack<'a>(&'a Store);

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        self.0.place.give_back();
    }
}

impl Drop for Store {
    /// Commits whose `Ok` promised less than durability are made durable all the same, as nothing hinders it. One that
    /// was only looked at is left as it was found. The log is not sealed: that is what `close` is for, which can say
    /// that it failed.
    fn drop(&mut self) {
        self.keepers.stop();
        let has_commits = Seq::new(self.log.reached().appended) > self.report.point.seq;
        if has_commits
            && self.log.failure().is_none()
            && let Err(error) = self.sync()
        {
            tracing::error!(dir = %self.place.dir().display(), "the newest commits were not made durable: {error}");
        }
    }
}

/// What a writer is told of the log's first failure.
fn poisoned(cause: Arc<Error>) -> Error {
    match *cause {
        Error::Closed => Error::Closed,
        _ => Error::Poisoned { cause },
    }
}
