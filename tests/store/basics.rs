//! The ways of a store's life without any fault.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use dictdb::{
    BackupFormat, CheckpointPolicy, DictDb, Durability, Error, LoadOptions, ManualClock, MemoryStorage, Options, Seq,
    Storage, Timestamp, record,
};

use super::hooked::{Hooked, Op};

const DIR: &str = "/data";

fn options(storage: &MemoryStorage) -> Options {
    Options::new()
        .storage(storage.clone())
        .checkpoint(CheckpointPolicy::manual())
        .segment_bytes(2_000)
        .preallocate_bytes(1_024)
}

fn commit(db: &DictDb, n: i64) {
    let table = db.table("t").or_else(|_| db.create_table("t", "id")).unwrap();
    for _ in 0..n {
        let seq = db.seq().get() as i64;
        table.insert(record! { "id": seq, "text": format!("commit {seq}") }).unwrap();
    }
}

fn files(storage: &MemoryStorage, prefix: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    storage.paths().into_iter().filter(is_one).collect()
}

fn logs(storage: &MemoryStorage) -> Vec<PathBuf> {
    files(storage, "dictdb_log_")
}

fn snapshots(storage: &MemoryStorage) -> Vec<PathBuf> {
    files(storage, "dictdb_snapshot_")
}

fn flip(storage: &MemoryStorage, path: &Path, at: usize) {
    let mut bytes = storage.read(path).unwrap();
    bytes[at] ^= 1;
    storage.write(path, bytes).unwrap();
}

#[test]
fn a_closed_store_goes_on_with_its_history_and_a_dropped_one_begins_a_new_one_with_the_same_records() {
    let storage = MemoryStorage::new();
    let mut db = options(&storage).open(DIR).unwrap();
    assert_eq!(db.parent(), None);
    commit(&db, 100);
    for round in 0..32 {
        let (lineage, parent, digest, seq) = (db.lineage(), db.parent(), db.digest(), db.seq());
        let point = db.snapshot().point();
        // All orders of closed and dropped, with and without commits and checkpoints between.
        let closed = round % 2 == 0;
        if closed {
            let report = db.close().unwrap();
            assert_eq!((report.memory, report.synced), (seq, Some(seq)));
        } else {
            drop(db);
        }
        db = options(&storage).open(DIR).unwrap();
        let report = db.open_report().unwrap();
        assert_eq!((db.digest(), db.seq()), (digest, seq), "{report}");
        assert_eq!(report.point, db.snapshot().point());
        assert_eq!((report.clean, db.lineage() == lineage), (closed, closed), "{report}");
        if closed {
            assert_eq!((db.parent(), report.new_lineage_from), (parent, None));
        } else {
            let from = report.new_lineage_from.unwrap();
            assert_eq!(db.parent(), Some(from));
            assert!(from.lineage == lineage && from.seq <= point.seq, "{report}");
            assert_eq!(report.unproven, point.seq.since(from.seq), "{report}");
        }
        commit(&db, [0, 1, 30][round % 3]);
        if closed {
            // Of one that nothing was written to since it was opened: the next must find it as it was.
            commit(&db, 1);
        }
        if round % 8 >= 6 {
            db.checkpoint().unwrap();
        }
    }
}

#[test]
fn a_store_that_nothing_was_written_to_is_found_as_it_was() {
    let storage = MemoryStorage::new();
    for _ in 0..3 {
        let db = options(&storage).open(DIR).unwrap();
        assert_eq!((db.seq(), db.open_report().unwrap().clean), (Seq::ZERO, true));
        drop(db);
        options(&storage).open(DIR).unwrap().close().unwrap();
    }
    assert_eq!(storage.paths(), [""; 0].map(PathBuf::from));
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 3);
    let lineage = db.lineage();
    db.close().unwrap();
    let before = storage.paths();
    for _ in 0..3 {
        // Neither dropping nor closing an untouched one takes the seal away.
        let db = options(&storage).open(DIR).unwrap();
        assert_eq!(db.lineage(), lineage);
        drop(db);
    }
    let db = options(&storage).open(DIR).unwrap();
    assert_eq!((db.lineage(), db.open_report().unwrap().clean), (lineage, true));
    assert_eq!(storage.paths(), before);
}

#[test]
fn each_durability_acknowledges_what_it_says() {
    let storage = MemoryStorage::new();
    let open = |durability| options(&storage).durability(durability).open(DIR).unwrap();

    let db = open(Durability::Sync);
    for _ in 0..5 {
        commit(&db, 1);
        let report = db.durability_report();
        assert_eq!((report.memory, report.written, report.synced), (db.seq(), Some(db.seq()), Some(db.seq())));
    }
    let safe = db.seq();
    db.close().unwrap();

    let db = open(Durability::Manual);
    commit(&db, 5);
    let report = db.durability_report();
    assert_eq!((report.memory, report.written, report.synced), (db.seq(), Some(safe), Some(safe)), "{report}");
    db.sync().unwrap();
    assert_eq!(db.durability_report().synced, Some(db.seq()));
    commit(&db, 5);
    let insert = |id: i64| db.transaction_with(Durability::Sync, |tx| tx.table("t")?.insert(record! { "id": id }));
    insert(1_000).unwrap();
    assert_eq!(db.durability_report().synced, Some(db.seq()));
    commit(&db, 5);
    let behind = db.durability_report().synced;
    // It cannot ask for less, and one that wrote nothing waits for nothing.
    db.transaction_with(Durability::Sync, |_| Ok::<_, Error>(())).unwrap();
    assert_eq!(db.durability_report().synced, behind);
    let (digest, seq) = (db.digest(), db.seq());
    // Dropping syncs what is left.
    drop(db);
    let db = open(Durability::Sync);
    assert_eq!((db.digest(), db.seq()), (digest, seq));
    db.transaction_with(Durability::Manual, |tx| tx.table("t")?.insert(record! { "id": 1_001 })).unwrap();
    assert_eq!(db.durability_report().synced, Some(db.seq()));
}

#[test]
fn what_was_not_synced_is_in_no_file_and_a_sync_puts_it_there() {
    let storage = MemoryStorage::new();
    let db = options(&storage).durability(Durability::Manual).open(DIR).unwrap();
    commit(&db, 10);
    assert_eq!(options(&storage).open_read_only(DIR).unwrap().seq(), Seq::ZERO);
    db.sync().unwrap();
    assert_eq!(options(&storage).open_read_only(DIR).unwrap().digest(), db.digest());
}

#[test]
fn what_gathers_is_written_without_being_told_and_not_synced_at_once_under_manual() {
    let storage = MemoryStorage::new();
    let db = options(&storage).durability(Durability::Manual).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    db.sync().unwrap();
    let safe = db.seq();
    let text = "x".repeat(1_000);
    let before = Instant::now();
    while db.durability_report().written == Some(safe) {
        table.insert(record! { "text": text.as_str() }).unwrap();
        assert!(before.elapsed() < Duration::from_secs(60), "not after {} commits", db.seq());
    }
    assert_eq!(db.durability_report().synced, Some(safe));
    let written = db.durability_report().written.unwrap();
    let there = options(&storage).open_read_only(DIR).unwrap();
    assert!(there.seq() >= written && there.table("t").unwrap().len().unwrap() > 400, "{written}");
}

#[test]
fn an_interval_syncs_without_being_told() {
    let storage = MemoryStorage::new();
    let db = options(&storage).durability(Durability::Interval(Duration::from_millis(1))).open(DIR).unwrap();
    for _ in 0..20 {
        commit(&db, 3);
        let mut turns = 0_u64;
        while db.durability_report().synced != Some(db.seq()) {
            turns += 1;
            assert!(turns < 2_000_000_000, "never synced: {}", db.durability_report());
            yield_now();
        }
    }
    let db = {
        let (digest, seq) = (db.digest(), db.seq());
        db.close().unwrap();
        let db = options(&storage).durability(Durability::Interval(Duration::from_secs(3_600))).open(DIR).unwrap();
        assert_eq!((db.digest(), db.seq()), (digest, seq));
        db
    };
    commit(&db, 3);
    commit(&db, 3);
    let (digest, seq) = (db.digest(), db.seq());
    // An hour is not waited for, by close,
    assert_eq!(db.close().unwrap().synced, Some(seq));
    let db = options(&storage).durability(Durability::Interval(Duration::from_secs(3_600))).open(DIR).unwrap();
    assert_eq!(db.digest(), digest);
    commit(&db, 3);
    commit(&db, 3);
    // or when the last handle goes, though the store's own thread has long begun to wait.
    (0..100_000).for_each(|_| yield_now());
    let digest = db.digest();
    drop(db);
    assert_eq!(options(&storage).open(DIR).unwrap().digest(), digest);
}

#[test]
fn a_log_of_many_segments_is_one_log() {
    let storage = MemoryStorage::new();
    let small = options(&storage).segment_bytes(512).preallocate_bytes(512);
    let db = small.open(DIR).unwrap();
    commit(&db, 500);
    let (digest, lineage) = (db.digest(), db.lineage());
    db.close().unwrap();
    let count = logs(&storage).len();
    assert!(count > 50, "{count}");
    let db = small.open(DIR).unwrap();
    let report = db.open_report().unwrap();
    assert_eq!((report.segments, report.commits, db.digest()), (count as u64, 501, digest), "{report}");
    assert_eq!(db.lineage(), lineage);
    // The whole of it is there for a change feed that begins at the beginning.
    assert_eq!(db.commits_since(Seq::ZERO).unwrap().count(), 501);
}

#[test]
fn commits_larger_than_a_segment_and_than_the_ring_come_back() {
    let storage = MemoryStorage::new();
    let settings = options(&storage).ring_bytes(0);
    let db = settings.open(DIR).unwrap();
    db.create_table("t", "id").unwrap();
    for (id, bytes) in [100_000, 1, 5_000, 1_000_000, 1_900, 2_000, 2_100].into_iter().enumerate() {
        db.table("t").unwrap().insert(record! { "id": id as i64, "x": "x".repeat(bytes) }).unwrap();
    }
    let many = (100..3_000).map(|id| record! { "id": id, "text": "many at once" });
    db.table("t").unwrap().insert_many(many).unwrap();
    let digest = db.digest();
    assert!(matches!(db.commits_since(Seq::ZERO), Err(Error::Gap { .. })));
    drop(db);
    let db = settings.open(DIR).unwrap();
    assert_eq!(db.digest(), digest, "{}", db.open_report().unwrap());
    commit(&db, 10);
    db.close().unwrap();
    assert_eq!(settings.open(DIR).unwrap().table("t").unwrap().len().unwrap(), 7 + 2_900 + 10);
}

#[test]
fn a_commit_that_wrote_nothing_is_in_no_log() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    db.transaction(|_| Ok::<_, Error>(())).unwrap();
    assert!(db.transaction(|tx| tx.create_table("t", "id").and(Err::<(), _>(Error::Cancelled))).is_err());
    assert!(!storage.paths().iter().any(|path| path.starts_with(DIR)), "{storage:?}");
    commit(&db, 1);
    let seq = db.seq();
    assert!(!db.table("t").unwrap().delete(77).unwrap());
    db.transaction(|tx| tx.table("t")?.delete(78)).unwrap();
    assert_eq!(db.seq(), seq);
    drop(db);
    assert_eq!(options(&storage).open(DIR).unwrap().seq(), seq);
}

#[test]
fn a_checkpoint_keeps_the_one_before_it_and_the_log_that_that_one_needs_and_nothing_else() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    let mut older = Vec::new();
    for round in 0..8 {
        commit(&db, 60);
        let report = db.checkpoint().unwrap();
        assert_eq!((report.seq, report.not_removed.as_ref()), (db.seq(), None));
        assert_eq!(db.durability_report().checkpoint, Some(db.seq()));
        assert_eq!(db.durability_report().log_bytes, 0);
        assert_eq!(snapshots(&storage).len(), 2.min(round + 1));
        let kept = logs(&storage);
        assert!(kept.len() <= 10, "{kept:?}");
        if round >= 2 {
            assert!(!report.removed.is_empty() && report.removed.iter().all(|gone| !storage.paths().contains(gone)));
        }
        // Nothing new, nothing written.
        let before = storage.paths();
        let again = db.checkpoint().unwrap();
        assert_eq!((again.file, again.removed.len(), storage.paths()), (None, 0, before));
        older.push((report.file.unwrap(), report.seq));
        // Both generations lead to here: the newest, and the one before it with its log.
        let [before, newest] = [&older[older.len().saturating_sub(2)], &older[older.len() - 1]];
        let look = options(&storage).open_read_only(DIR).unwrap();
        assert_eq!(look.open_report().unwrap().snapshot.as_ref(), Some(&newest.0));
        if round > 0 {
            let good = storage.read(&newest.0).unwrap();
            flip(&storage, &newest.0, 200);
            let look = options(&storage).open_read_only(DIR).unwrap();
            let report = look.open_report().unwrap();
            assert_eq!((look.digest(), report.snapshot.as_ref()), (db.digest(), Some(&before.0)), "{report}");
            assert_eq!(report.commits, db.seq().since(before.1), "{report}");
            assert!(report.fell_back && report.damaged.len() == 1 && report.damage.is_none(), "{report}");
            storage.write(&newest.0, good).unwrap();
        }
    }
}

#[test]
fn a_store_whose_newest_snapshot_is_damaged_opens_from_the_one_before_says_so_and_goes_on() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    for _ in 0..3 {
        commit(&db, 40);
        db.checkpoint().unwrap();
    }
    commit(&db, 40);
    let (digest, lineage) = (db.digest(), db.lineage());
    db.close().unwrap();
    let newest = snapshots(&storage).pop().unwrap();
    flip(&storage, &newest, 300);
    let db = options(&storage).open(DIR).unwrap();
    let report = db.open_report().unwrap();
    assert_eq!((db.digest(), db.lineage(), report.fell_back), (digest, lineage, true), "{report}");
    assert_eq!(report.damaged[0].file, newest);
    let text = report.to_string();
    assert!(text.contains("FELL BACK") && text.contains(newest.file_name().unwrap().to_str().unwrap()), "{text}");
    // Another generation, made while the damaged file is still there, is a sound fall-back again.
    for _ in 0..2 {
        commit(&db, 40);
        db.checkpoint().unwrap();
    }
    let digest = db.digest();
    db.close().unwrap();
    let newest = snapshots(&storage).pop().unwrap();
    flip(&storage, &newest, 300);
    assert_eq!(options(&storage).open(DIR).unwrap().digest(), digest);
    // Without a sound one it does not open, and says which file is damaged.
    snapshots(&storage).iter().filter(|path| **path != newest).for_each(|path| flip(&storage, path, 300));
    assert!(matches!(options(&storage).open(DIR), Err(Error::Corrupt { .. })));
}

#[test]
fn the_first_snapshot_needs_none_before_it_while_the_log_reaches_back_to_the_beginning() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 40);
    db.checkpoint().unwrap();
    commit(&db, 5);
    let digest = db.digest();
    db.close().unwrap();
    flip(&storage, &snapshots(&storage)[0], 300);
    let db = options(&storage).open(DIR).unwrap();
    let report = db.open_report().unwrap();
    assert_eq!((db.digest(), report.snapshot.as_ref(), report.fell_back), (digest, None, true), "{report}");
}

#[test]
fn checkpoints_come_by_themselves_once_the_log_has_grown() {
    let storage = MemoryStorage::new();
    let policy = CheckpointPolicy::automatic().log_bytes(4 << 10);
    let settings = options(&storage).checkpoint(policy);
    let mut db = settings.open(DIR).unwrap();
    for round in 0..6 {
        let before = db.durability_report().checkpoint;
        let mut commits = 0;
        while db.durability_report().checkpoint == before {
            commits += 1;
            assert!(commits < 1_000_000, "no checkpoint after {commits} commits: {}", db.durability_report());
            // Only so much that it has something to do: the snapshot must not outgrow the log for ever.
            let table = db.table("t").or_else(|_| db.create_table("t", "id")).unwrap();
            table.upsert(record! { "id": commits % 10, "text": format!("{round} {commits}") }).unwrap();
            yield_now();
        }
        assert!(commits > 10, "after {commits} commits");
        let digest = db.digest();
        if round % 2 == 0 {
            db.close().unwrap();
            db = settings.open(DIR).unwrap();
        }
        assert_eq!(db.digest(), digest);
    }
    let report = db.durability_report();
    assert_eq!((report.checkpoint_failures, report.last_checkpoint_failure), (0, None));
}

#[test]
fn many_short_sessions_leave_a_bounded_number_of_segments_where_checkpoints_are_automatic() {
    let storage = MemoryStorage::new();
    let settings = options(&storage).checkpoint(CheckpointPolicy::automatic());
    for session in 0..80 {
        let db = settings.open(DIR).unwrap();
        commit(&db, 1);
        assert_eq!(db.table("t").unwrap().len().unwrap(), session + 1);
    }
    let mut turns = 0_u64;
    let db = settings.open(DIR).unwrap();
    while db.durability_report().checkpoint.is_none() {
        turns += 1;
        assert!(turns < 2_000_000_000, "{} segments and no checkpoint", logs(&storage).len());
        yield_now();
    }
}

#[test]
fn after_close_clones_read_on_and_write_no_more() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 5);
    let (clone, table) = (db.clone(), db.table("t").unwrap());
    db.close().unwrap();
    let before = storage.paths();
    assert_eq!(table.len().unwrap(), 5);
    assert_eq!(clone.commits_since(Seq::ZERO).unwrap().count(), 6);
    let refused: [(&str, Result<(), Error>); 7] = [
        ("insert", table.insert(record! { "id": 99 }).map(drop)),
        ("transaction", clone.transaction(|tx| tx.table("t")?.insert(record! { "id": 99 })).map(drop)),
        ("empty transaction", clone.transaction(|_| Ok(()))),
        ("create", clone.create_table("u", "id").map(drop)),
        ("drop", clone.drop_table("t")),
        ("checkpoint", clone.checkpoint().map(drop)),
        ("close", clone.clone().close().map(drop)),
    ];
    for (what, outcome) in refused {
        assert!(matches!(outcome, Err(Error::Closed)), "{what}: {outcome:?}");
    }
    assert_eq!((table.len().unwrap(), storage.paths()), (5, before));
    let report = clone.durability_report();
    assert!(report.poisoned.is_none());
    assert_eq!((report.checkpoint_failures, report.last_checkpoint_failure), (0, None), "the end is no failure");
    clone.sync().unwrap();
    // The last handle of a closed store writes nothing either.
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 1);
    drop((clone, table));
    commit(&db, 1);
    db.close().unwrap();
    assert!(options(&storage).open(DIR).unwrap().open_report().unwrap().clean);
}

#[test]
fn a_write_inside_a_transaction_that_goes_around_it_is_refused_on_a_store_too() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 1);
    db.transaction(|tx| {
        tx.table("t")?.insert(record! { "id": 50 })?;
        let around: [Result<(), Error>; 4] = [
            db.table("t")?.insert(record! { "id": 51 }).map(drop),
            db.transaction_with(Durability::Sync, |_| Ok(())),
            db.drop_table("t"),
            db.clone().close().map(drop),
        ];
        for (at, outcome) in around.into_iter().enumerate() {
            assert!(matches!(outcome, Err(Error::NestedWrite)), "{at}: {outcome:?}");
        }
        // These write no commit.
        db.sync()?;
        assert_eq!(db.checkpoint()?.seq.get(), 2);
        Ok::<_, Error>(())
    })
    .unwrap();
    commit(&db, 1);
    let digest = db.digest();
    drop(db);
    let db = options(&storage).open(DIR).unwrap();
    assert_eq!((db.digest(), db.table("t").unwrap().len().unwrap()), (digest, 3));
}

#[test]
fn a_delta_is_not_applied_to_a_store() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 2);
    let before = (db.digest(), db.lineage(), storage.paths());
    let refused = db.apply_delta_with("/delta.bin", &LoadOptions::new().storage(storage.clone())).unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. } | Error::Io { .. }), "{refused:?}");
    let memory = DictDb::new();
    let place = tempfile::tempdir().unwrap();
    memory.create_table("u", "id").unwrap();
    let manager = dictdb::BackupManager::builder(&memory, place.path())
        .incremental(true)
        .file_format(BackupFormat::Binary)
        .build()
        .unwrap();
    manager.backup_full().unwrap();
    memory.create_table("v", "id").unwrap();
    let delta = manager.backup_delta().unwrap().file;
    let refused = db.apply_delta(&delta).unwrap_err();
    assert!(matches!(refused, Error::Unsupported { what } if what.contains("restore_into")), "{refused:?}");
    assert_eq!((db.digest(), db.lineage(), storage.paths()), before);
    commit(&db, 1);
}

#[test]
fn a_clock_before_1970_that_goes_back_or_stands_still_changes_nothing() {
    let storage = MemoryStorage::new();
    let clock = ManualClock::new(Timestamp::from_micros(-5_000_000_000));
    let settings = options(&storage).segment_bytes(512).preallocate_bytes(512).clock(clock.clone());
    let mut db = settings.open(DIR).unwrap();
    for (round, wall) in
        [-5_000_000_000, i64::MIN, 0, 1_000, 1_000, 10, 2_000_000_000_000_000, 5].into_iter().enumerate()
    {
        clock.set(Timestamp::from_micros(wall));
        commit(&db, 30);
        assert_eq!(db.snapshot().time(), Timestamp::from_micros(wall));
        db.checkpoint().unwrap();
        commit(&db, 30);
        let (digest, seq) = (db.digest(), db.seq());
        if round % 2 == 0 {
            db.close().unwrap();
        } else {
            drop(db);
        }
        db = settings.open(DIR).unwrap();
        let report = db.open_report().unwrap();
        assert_eq!((db.digest(), db.seq(), report.fell_back), (digest, seq, false), "{report}");
        assert_eq!(report.time, Timestamp::from_micros(wall));
        assert_eq!(report.commits, 30, "{report}");
    }
}

#[test]
fn the_reports_say_what_was_found_and_what_holds() {
    let storage = MemoryStorage::new();
    let clock = ManualClock::new(Timestamp::from_micros(1_000_000));
    let settings = options(&storage).clock(clock);
    let db = settings.open(DIR).unwrap();
    let text = |db: &DictDb| db.open_report().unwrap().to_string();
    let empty =
        "opened /data: 0 records at seq 0 from the empty database and 0 commits (0 bytes in 0 log segments) in 0.0ns";
    assert_eq!(text(&db), empty);
    commit(&db, 3);
    let bytes = db.durability_report().log_bytes;
    assert_eq!(
        db.durability_report().to_string(),
        format!(
            "seq 4 in memory, 4 written, 4 synced, none in the newest checkpoint ({bytes} bytes of log behind it), none in the newest backup"
        )
    );
    db.close().unwrap();
    let found = format!(
        "opened /data: 3 records at seq 4 from the empty database and 4 commits ({bytes} bytes in 2 log segments) in 0.0ns"
    );
    let db = settings.open(DIR).unwrap();
    assert_eq!(text(&db), found);
    assert_eq!(db.durability_report().log_bytes, bytes);
    commit(&db, 1);
    drop(db);
    let db = settings.open(DIR).unwrap();
    let proven = db.open_report().unwrap().new_lineage_from.unwrap().seq;
    assert!(text(&db).ends_with(&format!("in 0.0ns; it was not closed, a new history begins behind seq {proven}")));
    let report = db.checkpoint().unwrap().to_string();
    assert!(
        report.starts_with("checkpoint dictdb_snapshot_1_") && report.contains(": 4 records at seq 5, "),
        "{report}"
    );
    assert_eq!(db.checkpoint().unwrap().to_string(), "the newest checkpoint holds seq 5 already");

    let memory = DictDb::new();
    assert!(memory.open_report().is_none());
    assert_eq!(memory.durability_report().to_string(), "seq 0 in memory, none in the newest backup");
    memory.sync().unwrap();
    assert!(matches!(memory.checkpoint(), Err(Error::Unsupported { .. })));
    memory.close().unwrap();
}

#[test]
fn a_torn_tail_is_kept_aside_by_the_first_write_and_reported() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 3);
    drop(db);
    let log = logs(&storage).pop().unwrap();
    let db = options(&storage).open_read_only(DIR).unwrap();
    let (digest, seq, end) = (db.digest(), db.seq(), 128 + db.open_report().unwrap().log_bytes as usize);
    let mut bytes = storage.read(&log).unwrap();
    bytes[end..end + 40].fill(0xee);
    storage.write(&log, bytes).unwrap();
    for look in [true, true, false] {
        // Looking twice finds it twice: nothing was written.
        let db = if look { options(&storage).open_read_only(DIR) } else { options(&storage).open(DIR) }.unwrap();
        let report = db.open_report().unwrap();
        let torn = report.torn.clone().unwrap();
        assert_eq!((torn.file, torn.offset, torn.bytes), (log.clone(), end as u64, 40));
        assert_eq!((db.digest(), db.seq()), (digest, seq), "{report}");
        // Of a store that is only looked at, another process may be writing them.
        let text =
            if look { "40 bytes of writes that are not complete" } else { "40 bytes of writes that never completed" };
        assert!(report.to_string().contains(text) && report.read_only == look, "{report}");
        assert_eq!(files(&storage, "dictdb_torn_"), [""; 0].map(PathBuf::from));
    }
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 1);
    let kept = files(&storage, "dictdb_torn_");
    assert_eq!(storage.read(&kept[0]).unwrap(), [0xee; 40]);
    assert_eq!(kept.len(), 1);
    let digest = db.digest();
    drop(db);
    let db = options(&storage).open(DIR).unwrap();
    assert_eq!((db.digest(), db.open_report().unwrap().torn.clone()), (digest, None));
}

#[test]
fn opening_can_be_cancelled_and_gives_the_lock_back() {
    let storage = MemoryStorage::new();
    let db = options(&storage).segment_bytes(1 << 20).open(DIR).unwrap();
    commit(&db, 5_000);
    db.checkpoint().unwrap();
    commit(&db, 5_000);
    drop(db);
    let before = storage.list(Path::new(DIR)).unwrap();
    let cancelled = options(&storage).on_progress(|_| std::ops::ControlFlow::Break(())).open(DIR).unwrap_err();
    assert!(matches!(cancelled, Error::Cancelled), "{cancelled:?}");
    assert_eq!(storage.list(Path::new(DIR)).unwrap(), before);
    assert_eq!(options(&storage).open(DIR).unwrap().table("t").unwrap().len().unwrap(), 10_000);
}

/// Until a segment stands behind the one that is torn, nothing has kept what was torn.
#[test]
fn a_torn_tail_is_kept_aside_also_where_a_checkpoint_comes_before_the_first_write() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 4);
    drop(db);
    // The newest commit is torn in its last byte: its head says that all before it was synced.
    let log = logs(&storage).pop().unwrap();
    let bytes = storage.read(&log).unwrap();
    flip(&storage, &log, bytes.iter().rposition(|byte| *byte != 0).unwrap());
    for _ in 0..2 {
        let db = options(&storage).open(DIR).unwrap();
        let report = db.open_report().unwrap();
        assert!(report.torn.is_some() && report.unproven == 0, "{report}");
        db.checkpoint().unwrap();
    }
    for _ in 0..4 {
        let db = options(&storage).open(DIR).unwrap();
        commit(&db, 1);
        db.checkpoint().unwrap();
    }
    assert!(!storage.paths().contains(&log), "superfluous by now");
    assert_eq!(files(&storage, "dictdb_torn_").len(), 1);
    assert_eq!(options(&storage).open(DIR).unwrap().open_report().unwrap().torn, None);
}

/// The process that kept it came no further: its disk was full when the next segment was to be made.
#[test]
fn a_torn_tail_that_is_kept_already_hinders_no_later_write_and_stays_as_it_is() {
    let is_full = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&is_full);
    let storage = Hooked::new(move |op, path| {
        let is_segment = path.extension().is_some_and(|extension| extension == "log");
        let is_refused = op == Op::Publish && is_segment && fails.load(Ordering::SeqCst);
        if is_refused { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    let files_of = storage.files.clone();
    let settings = options(&files_of).storage(storage);
    let db = settings.open(DIR).unwrap();
    commit(&db, 3);
    drop(db);
    let log = logs(&files_of).pop().unwrap();
    let mut bytes = files_of.read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[end..end + 40].fill(0xee);
    files_of.write(&log, bytes).unwrap();
    is_full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let db = settings.open(DIR).unwrap();
        assert!(db.open_report().unwrap().torn.is_some());
        let refused = db.table("t").unwrap().insert(record! { "id": 100 });
        assert!(
            matches!(&refused, Err(Error::Poisoned { cause }) if matches!(**cause, Error::DiskFull { .. })),
            "{refused:?}"
        );
        let kept = files(&files_of, "dictdb_torn_").pop().unwrap();
        assert_eq!(files_of.read(kept).unwrap(), [0xee; 40]);
    }
    is_full.store(false, Ordering::SeqCst);
    let db = settings.open(DIR).unwrap();
    assert!(db.open_report().unwrap().torn.is_some());
    commit(&db, 1);
    let digest = db.digest();
    drop(db);
    let kept = files(&files_of, "dictdb_torn_");
    assert_eq!((kept.len(), files_of.read(&kept[0]).unwrap()), (1, vec![0xee; 40]));
    let db = settings.open(DIR).unwrap();
    assert_eq!((db.digest(), db.open_report().unwrap().torn.clone()), (digest, None));
}

#[test]
fn a_torn_tail_of_any_length_is_kept_aside_whole() {
    for len in [1, 65_535, 65_536, 65_537, 300_000] {
        let storage = MemoryStorage::new();
        let settings = options(&storage).segment_bytes(1 << 20).preallocate_bytes(1 << 20);
        let db = settings.open(DIR).unwrap();
        commit(&db, 3);
        drop(db);
        let log = logs(&storage).pop().unwrap();
        let mut bytes = storage.read(&log).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // Zeros among them belong to it.
        let tail: Vec<u8> = (0..len).map(|n| if n % 100_000 < 50_000 { n as u8 | 1 } else { 0 }).chain([7]).collect();
        bytes[end..end + tail.len()].copy_from_slice(&tail);
        storage.write(&log, bytes).unwrap();
        let db = settings.open(DIR).unwrap();
        assert_eq!(db.open_report().unwrap().torn.as_ref().unwrap().bytes, tail.len() as u64);
        commit(&db, 1);
        assert!(storage.read(files(&storage, "dictdb_torn_").pop().unwrap()).unwrap() == tail, "{} bytes", tail.len());
    }
}

#[test]
fn what_was_preallocated_and_not_used_is_given_back_when_a_segment_ends() {
    let storage = MemoryStorage::new();
    let settings = options(&storage).preallocate_bytes(1 << 20);
    let db = settings.open(DIR).unwrap();
    commit(&db, 100);
    let lengths = || logs(&storage).iter().map(|log| storage.read(log).unwrap().len()).collect::<Vec<_>>();
    let [ended @ .., open] = &lengths()[..] else { panic!("no log") };
    assert!(ended.len() > 1 && ended.iter().all(|len| *len < 4_000) && *open == 1 << 20, "{ended:?}");
    db.close().unwrap();
    assert!(lengths().iter().all(|len| *len < 4_000), "{:?}", lengths());
}

#[test]
fn an_interval_hurries_once_much_has_gathered_and_then_takes_its_time_again() {
    let storage = MemoryStorage::new();
    let db = options(&storage).durability(Durability::Interval(Duration::from_secs(3_600))).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    table.insert(record! { "text": "x".repeat(3 << 20) }).unwrap();
    let (before, large) = (Instant::now(), db.seq());
    while db.durability_report().synced != Some(large) {
        assert!(before.elapsed() < Duration::from_secs(30), "{}", db.durability_report());
        yield_now();
    }
    commit(&db, 1);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(db.durability_report().synced, Some(large), "an hour has not gone by");
}

/// The name of a snapshot that it only found may be gone after a crash.
#[test]
fn a_checkpoint_removes_nothing_before_its_session_has_written_a_snapshot() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 60);
    let first = logs(&storage).remove(0);
    let bytes = storage.read(&first).unwrap();
    for _ in 0..3 {
        commit(&db, 60);
        db.checkpoint().unwrap();
    }
    assert!(!storage.paths().contains(&first));
    storage.write(&first, bytes).unwrap();
    db.close().unwrap();
    let db = options(&storage).open(DIR).unwrap();
    let report = db.checkpoint().unwrap();
    assert_eq!((report.file, report.removed, report.not_removed), (None, vec![], None));
    commit(&db, 1);
    assert!(db.checkpoint().unwrap().removed.contains(&first));
}
