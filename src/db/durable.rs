//! The handle of an opened store: open, close, and how far commits are safe.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::{Access, DictDb};
use crate::error::Result;
use crate::history::Seq;
use crate::log::SegmentEnd;
use crate::store::{DurabilityReport, OpenReport, Options, Store};

impl DictDb {
    /// Opens a store: a directory in which every commit is logged before its `Ok`. One that is not there, or is empty,
    /// becomes a new store. What was acknowledged before is there again, whatever ended the process; what was found,
    /// and how, is in [`open_report`](Self::open_report).
    ///
    /// One handle (and its clones) has a store at a time. Opening changes nothing but the lock file, and needs no free
    /// space on the disk. Costs reading the newest snapshot and the log behind it; memory: the state, at most the
    /// ring's bytes, one commit, and after a crash up to three times the commits that nothing proves durable (under
    /// `Sync` the last ones, under `Manual` at most a segment).
    ///
    /// ```
    /// use dictdb::{record, DictDb};
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path().join("data");
    /// let db = DictDb::open(&dir)?; // for instance "data"
    /// db.create_table("users", "id")?.insert(record! { "id": 1, "name": "Ann" })?; // synced
    /// db.close()?;
    ///
    /// let db = DictDb::open(&dir)?;
    /// println!("{}", db.open_report().unwrap());
    /// assert_eq!(db.table("users")?.get(1)?.unwrap()["name"], "Ann");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked); [`Error::Corrupt`](crate::Error::Corrupt) where something that was durable is missing or changed: look at the store
    /// with [`open_read_only`](Self::open_read_only), and restore a backup into a new directory;
    /// [`Error::NotAStore`](crate::Error::NotAStore), [`Error::UnsupportedVersion`](crate::Error::UnsupportedVersion), [`Error::Io`](crate::Error::Io).
    pub fn open(dir: impl AsRef<Path>) -> Result<DictDb> {
        Options::new().open(dir)
    }

    /// Looks at a store without writing a byte and without its lock: one that is damaged, on a disk that is read-only, or
    /// in use (then as it stood a moment ago). Where the log is damaged, the database shows what comes before, and
    /// [`OpenReport::damage`] says where and how; what looks damaged is looked at once more, as it may have been read while it was
    /// written. Writes are [`Error::ReadOnly`](crate::Error::ReadOnly). Backups can be made of it; of a store that
    /// is open, or was not closed, they begin a history of their own, and the store's own later deltas do not join onto them.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) where there is no sound snapshot to begin with; [`Error::NotAStore`](crate::Error::NotAStore), [`Error::Io`](crate::Error::Io).
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<DictDb> {
        Options::new().open_read_only(dir)
    }

    /// Ends an opened store: writes and syncs what is left, seals the log, so that the next open finds that nothing is
    /// missing and goes on with this history, and gives the lock back. Clones of the handle can still read. A database
    /// that is not a store just ends.
    ///
    /// Dropping a store without this is safe: everything is synced, but the next open begins a new history.
    ///
    /// # Errors
    /// [`Error::Poisoned`](crate::Error::Poisoned) with the first failure; [`Error::Io`](crate::Error::Io), [`Error::DiskFull`](crate::Error::DiskFull) where the seal could not be
    /// written, which loses no commit; [`Error::Closed`](crate::Error::Closed). The lock is given back in any of these cases.
    /// [`Error::NestedWrite`](crate::Error::NestedWrite) from inside a transaction, which goes on: nothing is ended then.
    pub fn close(self) -> Result<DurabilityReport> {
        if let Access::Store(store) = &self.shared.access {
            self.refuse_inside_transaction()?;
            // Without the writers' lock, and while the syncer goes on: a checkpoint may take long to break off, and its storage
            // may itself write to the database.
            store.stop_checkpoints();
            // Nothing is appended from here on. What a panic inside the engine left in memory is not sealed.
            let writer = self.shared.writer.lock();
            store.stop();
            let end = if writer.is_ok() { Some(SegmentEnd::of(&self.read())) } else { None };
            let _writer = writer.unwrap_or_else(PoisonError::into_inner);
            store.close(end)?;
        }
        Ok(self.durability_report())
    }

    /// Makes every commit so far durable: what [`Manual`](crate::Durability::Manual) and
    /// [`Interval`](crate::Durability::Interval) leave to later. Returns when it is done. Does nothing for a database
    /// that is not a store.
    ///
    /// # Errors
    /// [`Error::Poisoned`](crate::Error::Poisoned) after the log's first failure, also where nothing is left to sync.
    pub fn sync(&self) -> Result<()> {
        self.store().map_or(Ok(()), Store::sync)
    }

    /// How far the commits are safe: in memory, written, synced, in the newest checkpoint, in the newest backup.
    pub fn durability_report(&self) -> DurabilityReport {
        let backup = self.shared.backed_up.load(Ordering::Relaxed).checked_sub(1).map(Seq::new);
        match &self.shared.access {
            Access::Store(store) => store.report(|| self.seq(), backup),
            Access::Memory | Access::ReadOnly(_) => DurabilityReport {
                memory: self.seq(),
                written: None,
                synced: None,
                checkpoint: None,
                backup,
                log_bytes: 0,
                poisoned: None,
                checkpoint_failures: 0,
                last_checkpoint_failure: None,
            },
        }
    }

    /// What opening the store found; `None` for a database that was not opened from a directory.
    pub fn open_report(&self) -> Option<Arc<OpenReport>> {
        match &self.shared.access {
            Access::Store(store) => Some(Arc::clone(store.open_report())),
            Access::ReadOnly(report) => Some(Arc::clone(report)),
            Access::Memory => None,
        }
    }
}
