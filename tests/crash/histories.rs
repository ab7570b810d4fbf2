//! Histories that end before their first commit.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dictdb::sim::{Budget, Fault, Fill, Repeat, SimStorage};
use dictdb::{BackupFormat, BackupManager, DictDb, Digest, Durability, Error, RestoreOptions, Seq, Stage, Storage};

use crate::story::{BACKUPS, DATA, Story, options};

/// A close that fails before its seal leaves a segment without commits. The history that begins behind it has a
/// checkpoint at its first seq; where none of its commits is proven, the one after it begins at the same place, and the
/// log does not know the checkpoint's history.
#[test]
fn a_checkpoint_of_a_history_without_proven_commits_never_hides_the_commits_behind_it() {
    let mut reopened = 0;
    for at in 1.. {
        let story = Story::new(Durability::Sync);
        let db = story.open().unwrap();
        story.put(&db, 1, 40);
        story.put(&db, 2, 40);
        story.disk.fail_at(story.disk.op_count() + at, Fault::Error(ErrorKind::Other), Repeat::Once);
        story.close(db);
        if story.disk.fault_hits() == 0 {
            break;
        }
        story.disk.clear_faults();
        story.errors.borrow_mut().clear();
        for id in 3..6 {
            let db = story.open();
            let db = db.unwrap_or_else(|| panic!("operation {at} of close failed: {:?}", story.errors.borrow()));
            if id == 3 {
                story.checkpoint(&db);
            }
            story.put(&db, id, 40);
            story.drop(db);
            reopened += 1;
        }
        let db = story.open();
        let db = db.unwrap_or_else(|| panic!("operation {at} of close failed: {:?}", story.errors.borrow()));
        let states = story.states.borrow();
        assert_eq!(states.get(&db.seq().get()), Some(&crate::story::rows_of(&db)));
        assert_eq!(db.seq().get(), 6, "operation {at} of close failed");
    }
    assert!(reopened > 10, "{reopened}");
}

/// The same with the backup: the chain goes on, and leads to what the store holds.
#[test]
fn a_backup_of_commits_that_a_crash_takes_never_breaks_the_chain_behind_it() {
    for restored in [false, true] {
        let story = Story::new(Durability::Manual);
        let back_up = |disk: &SimStorage, db: &dictdb::DictDb| {
            let builder = BackupManager::builder(db, BACKUPS).storage(disk.clone());
            let report = builder.file_format(BackupFormat::Binary).incremental(true).build().unwrap().backup_now();
            report.unwrap()
        };
        let db = story.open().unwrap();
        story.put(&db, 1, 40);
        back_up(&story.disk, &db);
        story.close(db);
        let disk = if restored {
            let disk = story.disk.settled();
            for path in disk.paths().into_iter().filter(|path| path.starts_with(DATA)) {
                disk.remove(&path).unwrap();
            }
            RestoreOptions::new().storage(disk.clone()).restore_into(BACKUPS, DATA).unwrap();
            disk
        } else {
            story.disk.settled()
        };
        let db = options(disk.clone(), Durability::Manual).open(DATA).unwrap();
        db.table("t").unwrap().upsert(dictdb::record! { "id": 2, "text": "shown and lost" }).unwrap();
        back_up(&disk, &db);
        let mut images = 0;
        for image in disk.images(disk.op_count(), &Budget::default()) {
            let disk = image.storage();
            let db = options(disk.clone(), Durability::Manual).open(DATA).unwrap();
            for id in 3..5 {
                db.table("t").unwrap().upsert(dictdb::record! { "id": id, "text": "another" }).unwrap();
                back_up(&disk, &db);
            }
            let (digest, _) = (db.digest(), db.close().unwrap());
            let (copy, report) = RestoreOptions::new().storage(disk).restore(BACKUPS).unwrap();
            assert_eq!(copy.digest(), digest, "{report}\n{}", image.describe());
            images += 1;
        }
        assert!(images > 0);
    }
}

/// Commits that were shown, to a backup or to a feed, and lost in a crash: others get their seqs, in another history.
#[test]
fn a_commit_that_was_shown_and_lost_never_shares_its_seq_and_history_with_another() {
    let story = Story::new(Durability::Manual);
    let db = story.open().unwrap();
    story.put(&db, 1, 40);
    story.close(db);
    let db = story.open().unwrap();
    story.put(&db, 2, 40);
    let (shown, digest, seq, n) = (db.lineage(), db.digest(), db.seq(), story.disk.op_count());
    for image in story.disk.images(n, &Budget::default()) {
        let db = options(image.storage(), Durability::Manual).open(DATA).unwrap();
        story.put(&db, 3, 40);
        assert!(db.seq() <= seq, "nothing of it was synced");
        assert!(db.digest() == digest || db.lineage() != shown, "{}", image.describe());
    }
}

/// What `Manual` hands to the system without a sync reaches the disk in any order, or not: of the whole log, whose segments
/// are larger here than all of it, a crash leaves a beginning.
#[test]
fn what_was_written_and_not_synced_comes_back_as_a_prefix_or_not_at_all() {
    const BYTES: usize = 40_000;
    for preallocate in [512, 600_000, 1 << 20] {
        let disk = SimStorage::new();
        let open = |disk: SimStorage| {
            let options = options(disk, Durability::Manual).segment_bytes(64 << 20).preallocate_bytes(preallocate);
            options.open(DATA).unwrap()
        };
        let db = open(disk.clone());
        let table = db.create_table("t", "id").unwrap();
        let mut digests = vec![db.digest()];
        let mut put = |id: i64| {
            let text = char::from(b'a' + id as u8).to_string().repeat(BYTES);
            table.insert(dictdb::record! { "id": id, "text": text }).unwrap();
            digests.push(db.digest());
        };
        put(0);
        db.sync().unwrap();
        let safe = db.seq();
        (1..15).for_each(&mut put);
        wait_until_something_is_written_behind(safe, &db);
        let (mut images, mut some, mut none) = (0, 0, 0);
        for image in disk.images(disk.op_count(), &Budget::small().cuts(20)) {
            let disk = image.storage();
            let db = open(disk.clone());
            let kept = db.seq().get() - safe.get();
            assert_eq!(Some(&db.digest()), digests.get(kept as usize + 1), "{}", image.describe());
            images += 1;
            some += u32::from(kept > 0);
            none += u32::from(kept == 0);
            db.table("t").unwrap().insert(dictdb::record! { "id": 100 }).unwrap();
            let digest = db.digest();
            db.close().unwrap();
            assert_eq!(open(disk).digest(), digest, "{}", image.describe());
        }
        assert!(images > 50 && some > 0 && none > 0, "{images} images, {some} with some of it, {none} without");
    }
}

/// The thread of `Manual` has written what gathered, and has not synced it.
fn wait_until_something_is_written_behind(safe: Seq, db: &DictDb) {
    let written = || db.durability_report().written.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while written() == safe && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(written() > safe, "the thread has written what gathered");
    assert_eq!(db.durability_report().synced, Some(safe), "and has not synced it");
}

/// A store under `Manual` whose frames are all of one size.
struct Even {
    disk: SimStorage,
    db: DictDb,
    /// Of the state after each commit.
    digests: Vec<Digest>,
}

impl Even {
    fn open(disk: &SimStorage) -> DictDb {
        let options = options(disk.clone(), Durability::Manual).segment_bytes(700_000).preallocate_bytes(512);
        options.ring_bytes(8 << 20).open(DATA).unwrap_or_else(|error| panic!("{error}"))
    }

    fn new() -> Even {
        let disk = SimStorage::new();
        let db = Even::open(&disk);
        let mut digests = vec![db.digest()];
        db.create_table("t", "id").unwrap();
        digests.push(db.digest());
        Even { disk, db, digests }
    }

    fn put(&mut self, count: usize) {
        let table = self.db.table("t").unwrap();
        for _ in 0..count {
            let id = 100_000 + self.digests.len() as i64;
            table.insert(dictdb::record! { "id": id, "text": "x".repeat(10_000) }).unwrap();
            self.digests.push(self.db.digest());
        }
    }

    fn put_and_sync(&mut self, count: usize) {
        self.put(count);
        self.db.sync().unwrap();
    }

    /// Until the newest segment has but one or two commits.
    fn begin_a_segment(&mut self) {
        let is_log = |path: &&PathBuf| path.extension().is_some_and(|e| e == "log");
        let segments = |disk: &SimStorage| disk.paths().iter().filter(is_log).count();
        let before = segments(&self.disk);
        while segments(&self.disk) == before {
            self.put_and_sync(1);
        }
    }

    /// Crashes; bytes of the file that was removed last stand where writes were lost.
    fn assert_opens_whatever_a_crash_shows(&self, safe: Seq) {
        let (mut images, mut torn) = (0, 0);
        let mut budget = Budget::small().cuts(3).fills([Fill::Stale]);
        budget.tails_max = 1;
        for image in self.disk.images(self.disk.op_count(), &budget) {
            let db = Even::open(&image.storage());
            assert!(db.seq() >= safe, "{}", image.describe());
            assert_eq!(Some(&db.digest()), self.digests.get(db.seq().get() as usize), "{}", image.describe());
            images += 1;
            torn += u32::from(db.open_report().unwrap().torn.is_some());
        }
        assert!(images > 50 && torn > 10, "{images} images, {torn} with a torn tail");
    }
}

/// The place of what was written and not synced may show, after a crash, the bytes of a segment that a checkpoint removed.
/// Where all frames are of one size a whole one of them may begin just where the sound ones of this segment end.
#[test]
fn frames_of_a_removed_segment_that_a_crash_shows_behind_the_log_never_keep_it_from_opening() {
    let mut even = Even::new();
    for count in [250, 100] {
        even.put_and_sync(count);
        even.db.checkpoint().unwrap();
    }
    even.put_and_sync(30);
    even.begin_a_segment();
    let safe = even.db.seq();
    even.put(60);
    wait_until_something_is_written_behind(safe, &even.db);
    even.assert_opens_whatever_a_crash_shows(safe);
}

/// The same with a delta, which has the frames of commits that the log had not synced when it was made: they may say that
/// they are further on than the log.
#[test]
fn frames_of_a_delta_that_is_gone_never_keep_a_log_from_opening_that_had_not_synced_them() {
    for is_cancelled in [false, true] {
        let mut even = Even::new();
        even.put_and_sync(30);
        even.begin_a_segment();
        // The delta's frames begin some commits behind the segment's.
        even.put_and_sync(5);
        let builder = BackupManager::builder(&even.db, BACKUPS).storage(even.disk.clone()).incremental(true);
        let builder = builder.file_format(BackupFormat::Binary).on_progress(move |progress| {
            let stop = is_cancelled && progress.stage == Stage::WritingDelta;
            if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let manager = builder.build().unwrap();
        manager.backup_full().unwrap();
        even.put_and_sync(2);
        let safe = even.db.seq();
        even.put(58);
        wait_until_something_is_written_behind(safe, &even.db);
        match manager.backup_delta() {
            Ok(made) if !is_cancelled => even.disk.remove(&made.file).unwrap(),
            Err(Error::Cancelled) if is_cancelled => {}
            other => panic!("{other:?}"),
        }
        even.assert_opens_whatever_a_crash_shows(safe);
    }
}
