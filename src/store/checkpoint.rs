//! Checkpoints: the state compacted into a snapshot while writers go on, and what is superfluous behind it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::db::DictDb;
use crate::error::{Error, PANICKED, Result};
use crate::file::name::BackupFormat;
use crate::file::sink::{Existing, Sink, publish_checked};
use crate::file::store_name::StoreFile;
use crate::file::{self, Origin};
use crate::history::{Lineage, Point, Seq, Timestamp};
use crate::log::Goal;
use crate::progress::{Progress, Stage, Watch};
use crate::state::State;
use crate::store::directory::{Directory, Line, Segment, SnapshotInfo, is_io, path, snapshots};
use crate::store::{CheckpointReport, Store, poisoned};

impl DictDb {
    /// Writes a checkpoint of an opened store by hand: a snapshot of the state as it stands now, read back and checked,
    /// after which the snapshots and log segments that only older ones needed are removed. One older snapshot and its
    /// log are kept, in case the newest is ever damaged. Writers go on meanwhile. Where nothing was committed since the
    /// newest checkpoint, nothing is written; and unless this session has written one, nothing but temporary files removed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path().join("data");
    /// let db = dictdb::DictDb::open(&dir)?;
    /// db.create_table("users", "id")?;
    /// println!("{}", db.checkpoint()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`]: the store goes on without it. [`Error::Poisoned`], [`Error::Closed`],
    /// [`Error::ReadOnly`]; [`Error::Unsupported`] for a database that is not a store.
    pub fn checkpoint(&self) -> Result<CheckpointReport> {
        let store = self.writable_store()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| store.checkpoint(self)));
        let mut track = store.track();
        match &outcome {
            Ok(Ok(_)) => {
                (track.failures, track.last_failure) = (0, None);
                store.keepers.checkpointed();
            }
            // The store's end is no failure of it.
            Ok(Err(Error::Closed)) => {}
            Ok(Err(error)) => track.fail(error.to_string()),
            Err(_) => track.fail(PANICKED.to_owned()),
        }
        drop(track);
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Store {
    /// 1. The log is synced up to the snapshot's seq, so that the snapshot never runs ahead of it.
    /// 2. The snapshot is written under a temporary name, synced, and read back: nothing is published, or removed, on
    ///    the word of one that does not come back as it was written. A crash leaves the temporary name.
    /// 3. It is renamed and the directory synced. A crash leaves the store as it was, or with one snapshot more.
    /// 4. Older snapshots go, then the segments that only they needed, oldest first. A crash leaves some of them.
    fn checkpoint(&self, db: &DictDb) -> Result<CheckpointReport> {
        let _one = self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        let started = self.clock.monotonic();
        // The other way round, commits in between would count as behind the checkpoint and not be.
        let log_bytes = self.log_bytes.load(Ordering::Relaxed);
        let state = db.read_in_passing().clone();
        let nothing_new = state.seq == Seq::ZERO || self.track().checkpoint == Some(state.seq);
        let mut report = CheckpointReport {
            seq: state.seq,
            file: None,
            records: state.record_count(),
            bytes: 0,
            duration: std::time::Duration::ZERO,
            removed: Vec::new(),
            not_removed: None,
        };
        if !nothing_new {
            self.log.reach(state.seq.get(), Goal::Synced).map_err(poisoned)?;
            self.place.check()?;
            let (file, bytes) = self.write_snapshot(state)?;
            let mut track = self.track();
            track.checkpoint = Some(report.seq);
            track.snapshot_bytes = bytes;
            track.published = true;
            track.verify(file.clone());
            drop(track);
            self.log_bytes.fetch_sub(log_bytes, Ordering::Relaxed);
            (report.file, report.bytes) = (Some(file), bytes);
        }
        report.not_removed = match self.retire(&mut report.removed) {
            Ok(0) => None,
            Ok(foreign) => Some(format!("{foreign} older files are of a history that nothing ties to this store's")),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = &report.not_removed {
            tracing::warn!(dir = %self.place.dir().display(), "older files stay: {why}");
        }
        report.duration = self.clock.monotonic().saturating_sub(started);
        tracing::info!("{report}");
        Ok(report)
    }

    fn write_snapshot(&self, state: State) -> Result<(PathBuf, u64)> {
        let stamp = self.stamps.next(self.clock.now())?;
        let file = path(self.place.dir(), StoreFile::Snapshot, stamp);
        let created = Timestamp::from_micros(i64::try_from(stamp.get()).unwrap_or(i64::MAX));
        let origin = Origin { base: None, created };
        let go_on = self.until_it_stops();
        let watch = Watch::new(Some(&go_on), Stage::WritingFull, &file);
        let storage = &*self.storage;
        let fill =
            |sink: &mut Sink| file::write_full(BackupFormat::Binary, self.compression, sink, state, &origin, &watch);
        match publish_checked(storage, &file, Existing::RefuseAndKeep, fill, |temp| file::verify(storage, temp, &watch))
        {
            Ok((_, bytes)) => Ok((file, bytes)),
            Err(Error::Cancelled) => Err(Error::Closed),
            Err(error) => Err(error),
        }
    }

    /// A callback that breaks off what is under way once the store is to end.
    fn until_it_stops(&self) -> impl Fn(&Progress<'_>) -> ControlFlow<()> + Send + Sync + 'static {
        let stopping = Arc::clone(&self.stopping);
        move |_| match stopping.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    /// Whether a snapshot is what was written: not just its ends, for what comes before it goes on its word. Read once. No
    /// later sync of the directory makes a name durable that an earlier one has failed for.
    fn is_a_fallback(&self, SnapshotInfo { stamp, path: file, .. }: &SnapshotInfo) -> bool {
        if self.track().verified.contains(file) {
            return true;
        }
        if Some(*stamp) > self.found {
            return false;
        }
        let go_on = self.until_it_stops();
        let verified = file::verify(&*self.storage, file, &Watch::new(Some(&go_on), Stage::ReadingFull, file));
        match &verified {
            Ok(()) => self.track().verify(file.to_owned()),
            Err(Error::Cancelled) => {}
            Err(error) => tracing::warn!("an older snapshot is no fall-back: {error}"),
        }
        verified.is_ok()
    }

    /// Removes what neither the newest snapshot nor the one before it needs, and what killed processes left; but nothing of a
    /// history that nothing ties to theirs, which somebody put here. Gives how many such files there are.
    fn retire(&self, removed: &mut Vec<PathBuf>) -> Result<usize> {
        self.place.check()?;
        let leftovers = self.track().leftovers.clone();
        let mut hindered = Ok(());
        for file in leftovers {
            match self.remove(file.clone(), removed) {
                Ok(()) => self.track().leftovers.retain(|left| *left != file),
                // The next checkpoint tries again; what is superfluous goes all the same.
                Err(error) => hindered = hindered.and(Err(error)),
            }
        }
        let foreign = self.retire_older(removed)?;
        hindered.map(|()| foreign)
    }

    fn remove(&self, file: PathBuf, removed: &mut Vec<PathBuf>) -> Result<()> {
        match self.storage.remove(&file) {
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(Error::io("remove", &file)),
        }?;
        removed.push(file);
        Ok(())
    }

    fn retire_older(&self, removed: &mut Vec<PathBuf>) -> Result<usize> {
        // The name of one that was found here may be one whose sync failed: nothing is given up for it.
        if !self.track().published {
            return Ok(0);
        }
        let storage = &*self.storage;
        let found = Directory::read(storage, self.place.dir())?;
        let (sound, _) = snapshots(storage, self.place.dir(), &found)?;
        let Some(fallback) = sound.iter().skip(1).find(|info| self.is_a_fallback(info)) else { return Ok(0) };
        let line = Line::read(storage, self.place.dir(), &found)?;
        let Some(needed) = line.position(fallback.point).and_then(|at| line.segments.get(at)) else { return Ok(0) };
        let mut older = Vec::new();
        for stamp in found.of_kind(StoreFile::Snapshot).filter(|stamp| *stamp < fallback.stamp) {
            let info = sound.iter().find(|info| info.stamp == stamp);
            older.push((path(self.place.dir(), StoreFile::Snapshot, stamp), info.map(history_of), None));
        }
        for stamp in found.of_kind(StoreFile::Log).filter(|stamp| *stamp < needed.stamp) {
            let segment = match Segment::open(storage, self.place.dir(), stamp) {
                Err(error) if is_io(&error) => return Err(error),
                segment => segment.ok(),
            };
            let history = segment.as_ref().map(|segment| (segment.header.lineage, segment.header.parent));
            older.push((path(self.place.dir(), StoreFile::Log, stamp), history, segment));
        }
        let kept = sound.iter().take_while(|info| info.stamp >= fallback.stamp).map(history_of);
        let kept = kept.chain(line.segments.iter().map(|segment| (segment.header.lineage, segment.header.parent)));
        let own = tied_to(kept, older.iter().filter_map(|(_, history, _)| *history));
        let mut foreign = 0_usize;
        for (file, history, segment) in older {
            let is_tied = history.is_none_or(|(lineage, _)| own.contains(&lineage));
            // Before its first durable commit a history is tied to nothing.
            if is_tied || matches!(segment, Some(segment) if !segment.is_proven(storage)?) {
                self.remove(file, removed)?;
            } else {
                foreign = foreign.saturating_add(1);
            }
        }
        Ok(foreign)
    }
}

/// A lineage and where it began.
type History = (Lineage, Option<Point>);

/// The lineages of a store's own histories and of those that are tied to them, by what the headers say of their parents.
fn tied_to(own: impl Iterator<Item = History>, others: impl Iterator<Item = History> + Clone) -> BTreeSet<Lineage> {
    let lineages =
        |(lineage, parent): History| [Some(lineage), parent.map(|parent| parent.lineage)].into_iter().flatten();
    let mut tied: BTreeSet<Lineage> = own.flat_map(lineages).collect();
    loop {
        let before = tied.len();
        for history in others.clone() {
            if lineages(history).any(|lineage| tied.contains(&lineage)) {
                tied.extend(lineages(history));
            }
        }
        if tied.len() == before {
            return tied;
        }
    }
}

fn history_of(info: &SnapshotInfo) -> History {
    (info.point.lineage, info.parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Digest;
    use crate::storage::MemoryStorage;
    use crate::{BackupManager, record};

    /// A close would wait for the reading of many gigabytes.
    #[test]
    fn a_snapshot_that_is_read_back_is_broken_off_between_two_of_its_frames() {
        let (storage, db) = (MemoryStorage::new(), DictDb::new());
        db.create_table("t", "id").unwrap().insert(record! { "id": 1 }).unwrap();
        let manager = BackupManager::builder(&db, "/b").storage(storage.clone()).file_format(BackupFormat::Binary);
        let full = manager.build().unwrap().backup_full().unwrap().file;
        let stops = |_: &Progress<'_>| ControlFlow::Break(());
        for (callback, broken_off) in [(None, false), (Some(&stops as &crate::progress::ProgressFn), true)] {
            let verified = file::verify(&storage, &full, &Watch::new(callback, Stage::ReadingFull, &full));
            assert_eq!(matches!(verified, Err(Error::Cancelled)), broken_off, "{verified:?}");
            assert_eq!(verified.is_ok(), !broken_off);
        }
    }

    #[test]
    fn a_history_is_tied_to_a_stores_own_over_any_number_of_others_in_whatever_order() {
        let lineage = |id| Lineage::from_bytes([id; 16]);
        let begun_at = |id, parent| {
            let parent = Point { lineage: lineage(parent), seq: Seq::new(1), digest: Digest::EMPTY };
            (lineage(id), Some(parent))
        };
        // 1 is its own; 4 came of 3, 3 of 2, 2 of 1; 6 of 5, which is not to be seen.
        let mut others = [begun_at(2, 1), begun_at(3, 2), begun_at(4, 3), begun_at(6, 5)];
        for _ in 0..2 {
            let tied = tied_to([(lineage(1), None)].into_iter(), others.into_iter());
            assert_eq!(tied, BTreeSet::from([1, 2, 3, 4].map(lineage)));
            others.reverse();
        }
    }
}
