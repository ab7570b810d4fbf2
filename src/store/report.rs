//! What was found and what holds, for people and programs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{DamagedBackup, Error};
use crate::history::{Digest, Lineage, Point, Seq, Timestamp};

/// What opening a store found; see [`DictDb::open_report`](crate::DictDb::open_report).
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenReport {
    /// The store's directory.
    pub dir: PathBuf,
    /// The snapshot begun with; `None` where the log reaches back to the empty database.
    pub snapshot: Option<PathBuf>,
    /// Log segments read.
    pub segments: u64,
    /// Commits replayed from them.
    pub commits: u64,
    /// Bytes of these commits' frames.
    pub log_bytes: u64,
    /// Records in the database.
    pub records: u64,
    /// Where the database stands.
    pub point: Point,
    /// Time of its newest commit, by the clock of the process that made it.
    pub time: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// Whether the store was only looked at; see [`DictDb::open_read_only`](crate::DictDb::open_read_only). Then another
    /// process may have it open; once that has written, it looks like a store that was not closed.
    pub read_only: bool,
    /// Whether the store was closed, so that its history goes on. Where there is [`damage`](Self::damage), nobody can tell.
    pub clean: bool,
    /// The point of the history before at which a new one began, because the store was not closed. Of a store
    /// that was only looked at, this handle and its backups alone have the new history.
    pub new_lineage_from: Option<Point>,
    /// Commits that were found sound, but of which nothing proves that they were durable: they are kept, and written
    /// once more by the first write, where the store was opened for writing. Not counted where there is [`damage`](Self::damage).
    pub unproven: u64,
    /// Bytes of writes that never completed; in a store that another process has open they may do so yet.
    pub torn: Option<TornReport>,
    /// Whether a newer snapshot was damaged, so that an older one and the longer log were used.
    pub fell_back: bool,
    /// Damaged snapshots. Put them aside, and take a checkpoint and a backup soon.
    pub damaged: Vec<DamagedBackup>,
    /// Of a store opened read-only: where its log is damaged. The database shows what comes before.
    pub damage: Option<Box<Error>>,
    /// Temporary files: of a process that was killed, which the next checkpoint removes, or of one that has the store open.
    pub leftovers: u64,
}

/// A torn tail: what a crash left of writes whose `Ok` nobody was given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornReport {
    /// The log segment.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes, not counting zeros at the end. The first write keeps them in a file `dictdb_torn_...`.
    pub bytes: u64,
}

impl OpenReport {
    pub(crate) fn new(dir: &Path, leftovers: usize) -> OpenReport {
        OpenReport {
            dir: dir.to_owned(),
            snapshot: None,
            segments: 0,
            commits: 0,
            log_bytes: 0,
            records: 0,
            point: Point { lineage: Lineage::NONE, seq: Seq::ZERO, digest: Digest::EMPTY },
            time: Timestamp::default(),
            duration: Duration::ZERO,
            read_only: false,
            clean: true,
            new_lineage_from: None,
            unproven: 0,
            torn: None,
            fell_back: false,
            damaged: Vec::new(),
            damage: None,
            leftovers: leftovers as u64,
        }
    }
}

impl fmt::Display for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.read_only { "looked at" } else { "opened" };
        write!(f, "{how} {}: {} records at seq {}", self.dir.display(), self.records, self.point.seq)?;
        match &self.snapshot {
            Some(snapshot) => write!(f, " from {}", file_name(snapshot))?,
            None => f.write_str(" from the empty database")?,
        }
        let (commits, bytes, segments) = (self.commits, self.log_bytes, self.segments);
        write!(f, " and {commits} commits ({bytes} bytes in {segments} log segments) in {:.1?}", self.duration)?;
        if !self.clean && self.damage.is_none() {
            f.write_str(if self.read_only { "; it is open, or was not closed" } else { "; it was not closed" })?;
        }
        if let Some(from) = self.new_lineage_from.as_ref().filter(|_| !self.read_only) {
            write!(f, ", a new history begins behind seq {}", from.seq)?;
        }
        if let Some(torn) = &self.torn {
            let TornReport { file, offset, bytes } = torn;
            let are = if self.read_only { "are not complete" } else { "never completed" };
            write!(f, "; {bytes} bytes of writes that {are} at byte {offset} of {}", file_name(file))?;
        }
        if self.fell_back {
            f.write_str("; FELL BACK to an older snapshot")?;
        }
        for damaged in &self.damaged {
            write!(f, "; damaged: {}", damaged.error)?;
        }
        if let Some(damage) = &self.damage {
            write!(f, "; THE LOG IS DAMAGED, what comes behind is not shown: {damage}")?;
        }
        Ok(())
    }
}

/// How far a database's commits are safe; see [`DictDb::durability_report`](crate::DictDb::durability_report).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DurabilityReport {
    /// The newest commit.
    pub memory: Seq,
    /// The newest commit handed to the operating system; `None` for a database that is not an opened store.
    pub written: Option<Seq>,
    /// The newest commit known to be durable in the log.
    pub synced: Option<Seq>,
    /// The newest commit in the newest checkpoint.
    pub checkpoint: Option<Seq>,
    /// The newest commit in the newest backup that a manager of this process made.
    pub backup: Option<Seq>,
    /// Bytes of the log behind the newest checkpoint.
    pub log_bytes: u64,
    /// Why nothing more can be written.
    pub poisoned: Option<Arc<Error>>,
    /// Checkpoints that failed since the last one that succeeded, and why the last one did.
    pub checkpoint_failures: u64,
    /// The last such failure.
    pub last_checkpoint_failure: Option<String>,
}

impl fmt::Display for DurabilityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seq = |seq: Option<Seq>| seq.map_or("none".to_owned(), |seq| seq.to_string());
        write!(f, "seq {} in memory", self.memory)?;
        if self.synced.is_some() {
            write!(f, ", {} written, {} synced", seq(self.written), seq(self.synced))?;
            write!(
                f,
                ", {} in the newest checkpoint ({} bytes of log behind it)",
                seq(self.checkpoint),
                self.log_bytes
            )?;
        }
        write!(f, ", {} in the newest backup", seq(self.backup))?;
        if let Some(cause) = &self.poisoned {
            write!(f, "; POISONED: {cause}")?;
        }
        if let Some(failure) = &self.last_checkpoint_failure {
            write!(f, "; {} checkpoints failed in a row: {failure}", self.checkpoint_failures)?;
        }
        Ok(())
    }
}

/// What a checkpoint did; see [`DictDb::checkpoint`](crate::DictDb::checkpoint).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The seq that the newest checkpoint holds.
    pub seq: Seq,
    /// The snapshot's file; `None` where the newest checkpoint holds that seq already, and none was written.
    pub file: Option<PathBuf>,
    /// Records in it.
    pub records: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// How long it took, verification included.
    pub duration: Duration,
    /// Files that it made superfluous and removed.
    pub removed: Vec<PathBuf>,
    /// Why not all of them were removed: an error, or how many are of a history that nothing ties to this store's, as where
    /// somebody copied them here. The next checkpoint tries again; in another session, the next one that writes a snapshot.
    pub not_removed: Option<String>,
}

impl fmt::Display for CheckpointReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            None if self.seq == Seq::ZERO => f.write_str("nothing was committed yet that a checkpoint could hold")?,
            None => write!(f, "the newest checkpoint holds seq {} already", self.seq)?,
            Some(file) => {
                let (records, bytes) = (self.records, self.bytes);
                let name = file_name(file);
                write!(
                    f,
                    "checkpoint {name}: {records} records at seq {}, {bytes} bytes in {:.1?}",
                    self.seq, self.duration
                )?;
            }
        }
        if !self.removed.is_empty() {
            write!(f, ", {} older files removed", self.removed.len())?;
        }
        if let Some(why) = &self.not_removed {
            write!(f, ", not all older files removed: {why}")?;
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()
}
