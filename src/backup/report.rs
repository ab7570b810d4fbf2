//! What happened, for people and programs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::DamagedBackup;
use crate::file::name::{BackupFormat, BackupKind};
use crate::history::{Point, Seq, Timestamp};

/// A backup that was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// The file.
    pub file: PathBuf,
    /// Full or delta.
    pub kind: BackupKind,
    /// JSON or binary.
    pub format: BackupFormat,
    /// Why it is a full backup although a delta was wanted.
    pub promoted: Option<Promotion>,
    /// A delta's commits lie after this seq; `None` for a full backup.
    pub base_seq: Option<Seq>,
    /// The seq that the file leads to.
    pub seq: Seq,
    /// Commits in a delta; 0 for a full backup.
    pub commits: u64,
    /// Records of a full backup; puts and deletes (in JSON: records upserted and deleted) of a delta.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took, syncs included, by the database's clock.
    pub duration: Duration,
    /// A delta from the checkpoint before to this full backup, so that an older full backup and its deltas still lead
    /// to here, should this one ever be damaged. Made by incremental managers where commits lay between.
    pub bridge: Option<PathBuf>,
    /// Why the bridge could not be written; the full backup itself stands.
    pub bridge_failure: Option<String>,
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = file_name(&self.file);
        write!(f, "{} backup {name}: ", self.kind)?;
        match self.base_seq {
            Some(base) => write!(f, "commits ({base}, {}], {} changes", self.seq, self.records)?,
            None => write!(f, "{} records at seq {}", self.records, self.seq)?,
        }
        write!(f, ", {} bytes in {:.1?}", self.bytes, self.duration)?;
        if let Some(why) = self.promoted {
            write!(f, " (a full one, as {why})")?;
        }
        if let Some(bridge) = &self.bridge {
            write!(f, ", bridged by {}", file_name(bridge))?;
        }
        if let Some(failure) = &self.bridge_failure {
            write!(f, ", without a bridge from the chain before: {failure}")?;
        }
        Ok(())
    }
}

/// Why a delta became a full backup. Nothing is lost by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Promotion {
    /// The directory holds no chain that leads to a point of this database's history.
    NoChain,
    /// The newest file in the directory is damaged, or was renamed or copied, so that nobody knows where it leads; a warning
    /// says which it is. Put it aside.
    NewestDamaged,
    /// The ring no longer holds all commits since the checkpoint. Give it more bytes, or back up more often.
    Gap,
    /// A file of the chain is no longer there. (Damage inside a file shows only when it is read.)
    ChainBroken,
    /// The log of the store could not be read back to the checkpoint: it is damaged, or the disk fails; a warning says
    /// where. Take a checkpoint, so that the next open needs no more of it, and suspect the disk.
    LogUnreadable,
}

impl fmt::Display for Promotion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Promotion::NoChain => "there is no chain for a delta to join onto",
            Promotion::NewestDamaged => "the newest file in the directory is damaged, or was renamed or copied",
            Promotion::Gap => "the ring no longer holds all commits since the checkpoint",
            Promotion::ChainBroken => "a file of the chain is gone",
            Promotion::LogUnreadable => "the store's log could not be read: take a checkpoint, and suspect the disk",
        })
    }
}

/// What became of a notified change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notified {
    /// The manager runs; its thread makes the backup as soon as `min_backup_interval` allows.
    Scheduled,
    /// The manager does not run, so the backup was made at once.
    BackedUp(Box<BackupReport>),
    /// The manager does not run, and nothing was committed since the last backup, whose files are all there; or the handle
    /// was closed, and the one that went on has backed it up.
    Unchanged,
    /// The manager does not run, and the last backup is less than `min_backup_interval` ago: the change is kept, and
    /// backed up by the next notification after that, or by `start` or `stop`.
    Deferred,
}

/// How a manager is doing; see [`BackupManager::status`](crate::BackupManager::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupStatus {
    /// Whether the thread runs.
    pub running: bool,
    /// The newest backup that this manager made, or found in the directory and goes on from.
    pub last_success: Option<LastBackup>,
    /// Commits that no backup of the chain covers yet.
    pub pending_commits: u64,
    /// Backups that failed since the last one that succeeded.
    pub consecutive_failures: u64,
    /// The last failure's message, until a backup succeeds.
    pub last_failure: Option<String>,
    /// Deltas since the newest full backup: the length of the chain.
    pub deltas_since_full: u32,
    /// Whether a notified change waits for its backup.
    pub change_pending: bool,
}

/// The newest backup.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LastBackup {
    /// When it was made, by the clock of whoever made it.
    pub time: Timestamp,
    /// The seq that it leads to.
    pub seq: Seq,
    /// Its file.
    pub file: PathBuf,
}

impl fmt::Display for BackupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.running { "running" } else { "stopped" })?;
        match &self.last_success {
            Some(last) => {
                write!(f, ", last backup {} at seq {} ({})", last.time, last.seq, file_name(&last.file))?;
            }
            None => f.write_str(", no backup yet")?,
        }
        write!(f, ", {} commits pending, {} deltas since full", self.pending_commits, self.deltas_since_full)?;
        if let Some(failure) = &self.last_failure {
            write!(f, ", {} failed in a row: {failure}", self.consecutive_failures)?;
        }
        Ok(())
    }
}

/// What a restore did; see [`restore`](crate::restore).
#[derive(Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The directory.
    pub dir: PathBuf,
    /// The full backup that it began with; `None` where the deltas began at the empty database.
    pub full: Option<PathBuf>,
    /// The deltas applied, in order.
    pub deltas: Vec<PathBuf>,
    /// The point that was reached: the restored database holds exactly this state.
    pub point: Point,
    /// Time of its newest commit, by the clock of the database that made it.
    pub time: Timestamp,
    /// Records restored.
    pub records: u64,
    /// Bytes of the files read.
    pub bytes: u64,
    /// How long it took, by the clock.
    pub duration: Duration,
    /// Whether a full backup newer than the one used was damaged, so that an older one and its longer chain were used.
    pub fell_back: bool,
    /// Files that were passed over because they are damaged. Put them aside, and take a full backup soon.
    pub damaged: Vec<DamagedBackup>,
    /// Sound deltas left out under [`RestoreOptions::accept_earlier`](crate::RestoreOptions::accept_earlier).
    pub left_out: Vec<PathBuf>,
    /// JSON files that were used though their checksum does not fit their text, under
    /// [`RestoreOptions::ignore_checksum`](crate::RestoreOptions::ignore_checksum): those that somebody edited, and those that
    /// are damaged in a way that shows nowhere else.
    pub unchecked: Vec<PathBuf>,
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.full.as_deref().map_or("the empty database".into(), file_name);
        write!(f, "restored {} records at seq {} from {from}", self.records, self.point.seq)?;
        write!(f, " and {} deltas, {} bytes in {:.1?}", self.deltas.len(), self.bytes, self.duration)?;
        if self.fell_back {
            f.write_str("; FELL BACK to an older full backup")?;
        }
        for damaged in &self.damaged {
            write!(f, "; passed over: {}", damaged.error)?;
        }
        if !self.left_out.is_empty() {
            write!(f, "; LEFT OUT {} later deltas", self.left_out.len())?;
        }
        for file in &self.unchecked {
            write!(f, "; TAKEN THOUGH ITS CHECKSUM DOES NOT FIT: {}", file_name(file))?;
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()
}
