//! Settings of an opened store, checked once.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::db::DictDb;
use crate::error::{Error, Result};
use crate::file::compression::Compression;
use crate::file::header::PREALLOCATION_MIN;
use crate::limits::{PREALLOCATE_BYTES_DEFAULT, RING_PART_OF_RECORDS_IN_STORE, SEGMENT_BYTES_DEFAULT};
use crate::progress::{Progress, ProgressFn};
use crate::ring::RingBytes;
use crate::storage::{DiskStorage, Storage};

/// What a commit's `Ok` promises. The stronger ones come later in the order.
///
/// | survives | `Manual` | `Interval(d)` | `Sync` |
/// |---|---|---|---|
/// | the handle's last clone dropped, `close` | every commit | every commit | every commit |
/// | a crash of the process (panic, kill) | up to the last `sync` | all but the last `d` and the time of two syncs | every commit |
/// | a crash of the system, a loss of power | up to the last `sync` | the same | every commit |
///
/// Whatever is lost is the newest: what comes back is a prefix of the commits in their order, each whole. A loss of power
/// is survived as far as the device keeps what it said it had written (SPEC.md, "Assumptions"). Readers may see a commit
/// a moment before it is durable.
///
/// ```
/// use dictdb::Durability;
/// use std::time::Duration;
/// assert!(Durability::Sync > Durability::Interval(Duration::from_secs(1)));
/// assert_eq!(Durability::default(), Durability::Sync);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Ok means: in memory. [`DictDb::sync`](crate::DictDb::sync) makes durable what was committed before it.
    /// A thread of the store's hands to the system what has gathered once that is 512 KiB, and syncs it each 8 MiB and where
    /// a log segment ends; writers wait for it only once 8 MiB have gathered.
    Manual,
    /// Ok means: in memory; a thread of the store's writes and syncs what has gathered at least this often. While the
    /// disk is slower than that, as often as it can, and writers wait once 8 MiB have gathered.
    Interval(Duration),
    /// Ok means: written and synced. Writers that commit at the same time share one sync.
    #[default]
    Sync,
}

impl PartialOrd for Durability {
    fn partial_cmp(&self, other: &Durability) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Durability {
    fn cmp(&self, other: &Durability) -> std::cmp::Ordering {
        // A shorter interval promises more.
        let rank = |d: &Durability| match *d {
            Durability::Manual => (0, Duration::ZERO),
            Durability::Interval(every) => (1, Duration::MAX.saturating_sub(every)),
            Durability::Sync => (2, Duration::ZERO),
        };
        rank(self).cmp(&rank(other))
    }
}

/// When a store writes a checkpoint by itself: a snapshot of the state, after which older log segments can go.
///
/// ```
/// use dictdb::{CheckpointPolicy, Options};
/// use std::time::Duration;
/// let policy = CheckpointPolicy::automatic().log_bytes(16 << 20).max_recovery_time(Duration::from_secs(2));
/// let options = Options::new().checkpoint(policy);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPolicy {
    automatic: bool,
    log_bytes: u64,
    max_recovery_time: Option<Duration>,
}

/// Log bytes below which replay time is not worth a checkpoint.
const WORTH_BYTES: u64 = 1 << 20;

impl CheckpointPolicy {
    /// By a thread of the store's: once the log behind the newest snapshot has both 64 MiB and as many bytes as that
    /// snapshot, or once its replay would take more than 10 seconds, as measured on this machine with this data.
    pub const fn automatic() -> CheckpointPolicy {
        CheckpointPolicy {
            automatic: true,
            log_bytes: SEGMENT_BYTES_DEFAULT,
            max_recovery_time: Some(Duration::from_secs(10)),
        }
    }

    /// Only by [`DictDb::checkpoint`](crate::DictDb::checkpoint).
    pub const fn manual() -> CheckpointPolicy {
        CheckpointPolicy { automatic: false, log_bytes: u64::MAX, max_recovery_time: None }
    }

    /// The log's bytes below which none is written because of its size.
    pub const fn log_bytes(mut self, bytes: u64) -> CheckpointPolicy {
        self.log_bytes = bytes;
        self
    }

    /// The longest that replaying the log behind the newest snapshot may take, by the replay speed that the store
    /// measures. (Reading the snapshot comes on top.)
    pub const fn max_recovery_time(mut self, time: Duration) -> CheckpointPolicy {
        self.max_recovery_time = Some(time);
        self
    }

    /// After how many bytes of log it is worth a look whether one is due.
    pub(crate) fn look_every(&self) -> u64 {
        (self.log_bytes / 8).clamp(1, 4 << 20)
    }

    pub(crate) const fn is_automatic(&self) -> bool {
        self.automatic
    }

    /// Whether one is due. `replay_rate` in bytes a second, where it was measured.
    pub(crate) fn is_due(&self, log_bytes: u64, snapshot_bytes: u64, replay_rate: Option<f64>) -> bool {
        if !self.automatic || log_bytes == 0 {
            return false;
        }
        let too_long = self.max_recovery_time.zip(replay_rate).is_some_and(|(max, rate)| {
            log_bytes >= WORTH_BYTES.min(self.log_bytes) && log_bytes as f64 > max.as_secs_f64() * rate
        });
        too_long || (log_bytes >= self.log_bytes && log_bytes >= snapshot_bytes)
    }
}

impl Default for CheckpointPolicy {
    fn default() -> CheckpointPolicy {
        CheckpointPolicy::automatic()
    }
}

/// How to open a store; see [`DictDb::open`].
///
/// ```
/// use dictdb::{Durability, Options};
/// use std::time::Duration;
/// let dir = tempfile::tempdir()?;
/// let db = Options::new().durability(Durability::Interval(Duration::from_millis(50))).open(dir.path().join("data"))?;
/// db.create_table("users", "id")?;
/// db.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) ring_bytes: RingBytes,
    pub(crate) segment_bytes: u64,
    pub(crate) preallocate_bytes: u64,
    pub(crate) checkpoint: CheckpointPolicy,
    pub(crate) compression: Compression,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) progress: Option<Arc<ProgressFn>>,
    pub(crate) create_if_missing: bool,
}

impl Options {
    /// What [`DictDb::open`] does.
    pub fn new() -> Options {
        Options {
            durability: Durability::Sync,
            ring_bytes: RingBytes::OfRecords(RING_PART_OF_RECORDS_IN_STORE),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            preallocate_bytes: PREALLOCATE_BYTES_DEFAULT,
            checkpoint: CheckpointPolicy::automatic(),
            compression: Compression::None,
            clock: Arc::new(SystemClock),
            storage: Arc::new(DiskStorage),
            progress: None,
            create_if_missing: true,
        }
    }

    /// Whether a store is begun in a directory that is not there, or has none with a commit; `true` unless said otherwise, and a
    /// look at one without a commit then shows an empty store. (A look at a directory that is not there is [`Error::Io`] in any
    /// case.) With `false` it is [`Error::NotAStore`], and nothing is made: a program whose store has been
    /// made does not begin an empty one, and back that up over the other, where a disk is not mounted, a path is mistyped, or a
    /// [`restore_into`](crate::RestoreOptions::restore_into) did not come to its end.
    ///
    /// ```
    /// use dictdb::{DictDb, Error, Options};
    /// let dir = tempfile::tempdir()?;
    /// let dir = dir.path().join("data");
    /// let there = Options::new().create_if_missing(false);
    /// assert!(matches!(there.open(&dir), Err(Error::NotAStore { .. })));
    /// DictDb::open(&dir)?.create_table("users", "id")?; // once, when the program is set up
    /// there.open(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_if_missing(mut self, create: bool) -> Options {
        self.create_if_missing = create;
        self
    }

    /// What a commit's `Ok` promises; `Sync` unless said otherwise.
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// Bytes of the newest commits kept in memory for delta backups and change feeds. Unless said otherwise a thirty-second
    /// of the bytes of the records' values, at least 4 MiB and at most 64 MiB. Delta backups that reach further back read the
    /// log.
    pub fn ring_bytes(mut self, bytes: usize) -> Options {
        self.ring_bytes = RingBytes::Fixed(bytes);
        self
    }

    /// Bytes of a log segment after which the next one is begun; 64 MiB unless said otherwise, at least 512. A segment
    /// is larger than this by at most one commit; the first one after a crash also by the commits that were written once
    /// more.
    pub fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self
    }

    /// Bytes that a log segment is made with, and grows by; 1 MiB unless said otherwise, from 512 to 1 GiB. More makes
    /// the rare sync that has to change the file's size rarer; less saves disk where there are many small stores.
    pub fn preallocate_bytes(mut self, bytes: u64) -> Options {
        self.preallocate_bytes = bytes;
        self
    }

    /// When checkpoints are written.
    pub fn checkpoint(mut self, policy: CheckpointPolicy) -> Options {
        self.checkpoint = policy;
        self
    }

    /// Whether the snapshots that checkpoints write are compressed; `None` unless said otherwise. The log is not. As
    /// compressed snapshots are smaller, automatic checkpoints come no later, and perhaps earlier.
    ///
    /// ```
    /// use dictdb::{Compression, Options, record};
    /// let dir = tempfile::tempdir()?;
    /// let dir = dir.path().join("data");
    /// let db = Options::new().compression(Compression::Lz4).open(&dir)?;
    /// db.create_table("users", "id")?.insert_many((0..1_000).map(|_| record! { "role": "reader" }))?;
    /// db.checkpoint()?;
    /// db.close()?;
    /// dictdb::DictDb::open(&dir)?; // whatever it is set to
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compression(mut self, compression: Compression) -> Options {
        self.compression = compression;
        self
    }

    /// Where times come from; the system's clock unless said otherwise.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Options {
        self.clock = Arc::new(clock);
        self
    }

    /// Where files are; the disk unless said otherwise.
    pub fn storage(mut self, storage: impl Storage + 'static) -> Options {
        self.storage = Arc::new(storage);
        self
    }

    /// Called while the store is opened, at least once a block of records or some thousand commits; `Break` ends it
    /// with [`Error::Cancelled`]. A look that has to look again begins anew.
    pub fn on_progress(
        mut self,
        callback: impl Fn(&Progress<'_>) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Options {
        self.progress = Some(Arc::new(callback));
        self
    }

    /// Opens a store; see [`DictDb::open`].
    ///
    /// # Errors
    /// As there; [`Error::InvalidSetting`], [`Error::Cancelled`].
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<DictDb> {
        self.check()?;
        super::open(self, dir.as_ref())
    }

    /// Looks at a store without writing; see [`DictDb::open_read_only`].
    ///
    /// # Errors
    /// As there; [`Error::Cancelled`].
    pub fn open_read_only(&self, dir: impl AsRef<Path>) -> Result<DictDb> {
        super::open_read_only(self, dir.as_ref())
    }

    fn check(&self) -> Result<()> {
        let least = u64::from(PREALLOCATION_MIN);
        let invalid = |setting, problem: String| Err(Error::InvalidSetting { setting, problem });
        if self.durability == Durability::Interval(Duration::ZERO) {
            return invalid("durability", "Interval must be longer than zero: use Sync".to_owned());
        }
        if self.segment_bytes < least {
            return invalid("segment_bytes", format!("must be at least {least}, not {}", self.segment_bytes));
        }
        if self.preallocate_bytes < least || self.preallocate_bytes > 1 << 30 {
            return invalid(
                "preallocate_bytes",
                format!("must be from {least} to 2^30, not {}", self.preallocate_bytes),
            );
        }
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("durability", &self.durability)
            .field("ring_bytes", &self.ring_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .field("checkpoint", &self.checkpoint)
            .field("compression", &self.compression)
            .field("create_if_missing", &self.create_if_missing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_by_size_or_by_measured_replay_time_and_never_by_a_guess() {
        let policy = CheckpointPolicy::automatic().log_bytes(4 << 20).max_recovery_time(Duration::from_secs(2));
        for (log_bytes, snapshot_bytes, rate, due) in [
            (0, 0, Some(0.0), false),
            (4 << 20, 0, None, true),
            ((4 << 20) - 1, 0, None, false),
            (4 << 20, 5 << 20, None, false),
            (5 << 20, 5 << 20, None, true),
            (3 << 20, 50 << 20, Some(1e6), true),
            (3 << 20, 50 << 20, Some(2e6), false),
            (3 << 10, 50 << 20, Some(1.0), false),
        ] {
            assert_eq!(policy.is_due(log_bytes, snapshot_bytes, rate), due, "{log_bytes} {snapshot_bytes} {rate:?}");
            assert!(!CheckpointPolicy::manual().is_due(log_bytes, snapshot_bytes, rate));
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_name() {
        let all = [
            (Options::new().segment_bytes(511), "segment_bytes"),
            (Options::new().preallocate_bytes(511), "preallocate_bytes"),
            (Options::new().preallocate_bytes((1 << 30) + 1), "preallocate_bytes"),
            (Options::new().durability(Durability::Interval(Duration::ZERO)), "durability"),
        ];
        for (options, name) in all {
            match options.storage(crate::storage::MemoryStorage::new()).open("d") {
                Err(Error::InvalidSetting { setting, .. }) => assert_eq!(setting, name),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_shorter_interval_promises_more() {
        let interval = |secs| Durability::Interval(Duration::from_secs(secs));
        assert!(Durability::Manual < interval(60) && interval(60) < interval(1) && interval(1) < Durability::Sync);
    }
}
