//! Stores that were put back from a copy, or restored at an older point, while a handle or a look of before is kept.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dictdb::sim::SimStorage;
use dictdb::{
    BackupFormat, BackupManager, BackupManagerBuilder, CheckpointPolicy, DictDb, DiskStorage, Error, Key, ManualClock,
    Options, RestoreOptions, Storage, Timestamp, record,
};

use super::hooked::{Hooked, Op};

fn options(storage: &(impl Storage + Clone + 'static)) -> Options {
    Options::new()
        .storage(storage.clone())
        .checkpoint(CheckpointPolicy::manual())
        .preallocate_bytes(1_024)
        .ring_bytes(0)
}

fn manager(storage: &(impl Storage + Clone + 'static), db: &DictDb) -> BackupManagerBuilder {
    BackupManager::builder(db, "backups").storage(storage.clone()).file_format(BackupFormat::Binary)
}

fn insert(db: &DictDb, ids: std::ops::Range<i64>) {
    let table = db.table("t").or_else(|_| db.create_table("t", "id")).unwrap();
    for id in ids {
        table.insert(record! { "id": id }).unwrap();
    }
}

fn restored(storage: &(impl Storage + Clone + 'static)) -> Vec<i64> {
    let (db, _) = RestoreOptions::new().storage(storage.clone()).restore("backups").unwrap();
    let keys = db.table("t").unwrap().iter().unwrap().map(|(key, _)| key);
    keys.map(|key| if let Key::Int(id) = key { id } else { panic!("{key}") }).collect()
}

fn copy(disk: &SimStorage) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.paths().into_iter().filter(|path| path.starts_with("data"));
    files.map(|path| (path.clone(), disk.read(&path).unwrap())).collect()
}

fn put_back(disk: &SimStorage, copy: Vec<(PathBuf, Vec<u8>)>) {
    for path in disk.paths().into_iter().filter(|path| path.starts_with("data")) {
        Storage::remove(disk, &path).unwrap();
    }
    for (path, bytes) in copy {
        disk.write(path, bytes).unwrap();
    }
}

#[test]
fn the_last_delta_behind_a_close_is_never_read_out_of_a_log_that_was_put_back_and_went_on() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 1..2);
    manager(&disk, &db).build().unwrap().backup_now().unwrap();
    db.close().unwrap();
    let before = copy(&disk);
    let closed = options(&disk).open("data").unwrap();
    let last = manager(&disk, &closed).incremental(true).build().unwrap();
    insert(&closed, 2..5);
    closed.close().unwrap();
    put_back(&disk, before);
    let other = options(&disk).open("data").unwrap();
    insert(&other, 102..106);
    let report = last.backup_delta().unwrap();
    assert!(report.promoted.is_some(), "{report}");
    assert_eq!(restored(&disk), [1, 2, 3, 4]);
}

#[test]
fn the_manager_of_a_closed_handle_hides_no_backup_of_the_store_that_was_put_back_and_went_on() {
    // Of the session's beginning, or of one before.
    for older in [false, true] {
        let disk = SimStorage::new();
        let db = options(&disk).open("data").unwrap();
        insert(&db, 1..3);
        db.close().unwrap();
        let before = copy(&disk);
        if older {
            let db = options(&disk).open("data").unwrap();
            insert(&db, 3..7);
            db.close().unwrap();
        }
        let closed = options(&disk).open("data").unwrap();
        let last = manager(&disk, &closed).build().unwrap();
        insert(&closed, 7..9);
        closed.close().unwrap();
        put_back(&disk, before);
        let other = options(&disk).open("data").unwrap();
        insert(&other, 100..102);
        manager(&disk, &other).build().unwrap().backup_now().unwrap();
        let refused = last.backup_full();
        assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{older}: {refused:?}");
        assert_eq!(restored(&disk), [1, 2, 100, 101]);
    }
}

/// Though it has fewer commits than the look.
#[test]
fn a_look_hides_no_backup_of_a_store_that_was_restored_at_an_older_point_and_went_on() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 1..2);
    manager(&disk, &db).build().unwrap().backup_now().unwrap();
    insert(&db, 2..6);
    db.close().unwrap();
    let look = options(&disk).open_read_only("data").unwrap();
    let kept = manager(&disk, &look).build().unwrap();
    RestoreOptions::new().storage(disk.clone()).restore_into("backups", "elsewhere").unwrap();
    let db = options(&disk).open("elsewhere").unwrap();
    insert(&db, 100..101);
    manager(&disk, &db).build().unwrap().backup_now().unwrap();
    for _ in 0..2 {
        let refused = kept.backup_full();
        assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
        assert_eq!(restored(&disk), [1, 100]);
    }
    // Who wants it for a backup makes a manager for that.
    manager(&disk, &look).build().unwrap().backup_full().unwrap();
    assert_eq!(restored(&disk), [1, 2, 3, 4, 5]);
}

/// A clock that was set right, behind the newest name, gives each handle the stamp next to that.
#[test]
fn two_handles_that_follow_one_another_and_get_one_stamp_lose_no_backup() {
    type Others = Box<dyn FnOnce() + Send>;
    let meanwhile: Arc<Mutex<Option<Others>>> = Arc::default();
    let taken = Arc::clone(&meanwhile);
    let hooked = Hooked::new(move |op, path| {
        if op == Op::Create && path.starts_with("backups") {
            let others = taken.lock().unwrap().take();
            others.into_iter().for_each(|others| others());
        }
        Ok(())
    });
    let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let open = {
        let options = options(&hooked).clock(clock.clone());
        move || options.open("data").unwrap()
    };
    let db = open();
    insert(&db, 1..2);
    let old = manager(&hooked, &db).build().unwrap();
    old.backup_now().unwrap();
    clock.set(Timestamp::from_micros(1_600_000_000_000_000));
    let (storage, stamps) = (hooked.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&stamps);
    *meanwhile.lock().unwrap() = Some(Box::new(move || {
        db.close().unwrap();
        let db = open();
        insert(&db, 2..3);
        let report = manager(&storage, &db).incremental(true).build().unwrap().backup_now().unwrap();
        assert_eq!(restored(&storage), [1, 2]);
        seen.lock().unwrap().push(report.file);
    }));
    let full = old.backup_now().unwrap().file;
    let delta = stamps.lock().unwrap().pop().unwrap();
    let stamp = |file: &PathBuf| file.file_stem().unwrap().to_str().unwrap().split_once('_').unwrap().1.to_owned();
    assert_eq!(stamp(&full).split_once('_').unwrap().1, stamp(&delta).split_once('_').unwrap().1);
    assert_eq!(restored(&hooked), [1, 2]);
}

/// The lock goes with the directory that was moved away.
#[cfg(unix)]
#[test]
fn a_delta_is_never_read_out_of_the_log_of_a_store_that_stands_in_the_place_of_the_open_one() {
    let place = tempfile::tempdir().unwrap();
    let [data, copy, backups] = ["data", "copy", "backups"].map(|name| place.path().join(name));
    let open = || options(&DiskStorage).preallocate_bytes(1 << 20).open(&data).unwrap();
    let db = open();
    insert(&db, 1..3);
    db.close().unwrap();
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    let db = open();
    insert(&db, 3..4); // its segment is begun
    let manager = BackupManager::builder(&db, &backups).file_format(BackupFormat::Binary).incremental(true);
    let manager = manager.build().unwrap();
    manager.backup_full().unwrap();
    std::fs::rename(&data, place.path().join("moved")).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    let other = open();
    insert(&other, 100..104);
    insert(&db, 4..6);
    let report = manager.backup_delta().unwrap();
    assert!(report.promoted.is_some(), "{report}");
    let (restored, _) = RestoreOptions::new().restore(&backups).unwrap();
    assert_eq!(restored.digest(), db.digest());
}

/// A copy of a store that was closed goes on with the same history.
#[test]
fn a_look_hides_no_backup_of_a_store_that_was_put_back_and_went_on() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 1..3);
    manager(&disk, &db).build().unwrap().backup_now().unwrap();
    db.close().unwrap();
    let before = copy(&disk);
    let db = options(&disk).open("data").unwrap();
    insert(&db, 3..9);
    db.close().unwrap();
    let look = options(&disk).open_read_only("data").unwrap();
    let kept = manager(&disk, &look).build().unwrap();
    put_back(&disk, before);
    let db = options(&disk).open("data").unwrap();
    insert(&db, 100..102);
    manager(&disk, &db).build().unwrap().backup_now().unwrap();
    for _ in 0..2 {
        let refused = kept.backup_full();
        assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
        assert_eq!(restored(&disk), [1, 2, 100, 101]);
    }
}

/// Nobody knows where it leads, unless that is mended, and then it must not be the older one.
#[test]
fn a_look_puts_nothing_over_a_newest_backup_that_is_damaged() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 1..2);
    manager(&disk, &db).build().unwrap().backup_now().unwrap();
    insert(&db, 2..4);
    db.sync().unwrap();
    let look = options(&disk).open_read_only("data").unwrap();
    let kept = manager(&disk, &look).build().unwrap();
    insert(&db, 4..9);
    let newest = manager(&disk, &db).build().unwrap().backup_now().unwrap().file;
    let sound = disk.read(&newest).unwrap();
    disk.write(&newest, sound[..sound.len() - 1].to_vec()).unwrap();
    let refused = kept.backup_full();
    assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
    disk.write(&newest, sound).unwrap();
    assert_eq!(restored(&disk), [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// Nothing there is proven to be durable yet, and so the look's own history has no parent.
#[test]
fn a_look_at_the_first_commit_of_a_store_hides_no_backup_of_what_follows() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    db.create_table("t", "id").unwrap();
    let look = options(&disk).open_read_only("data").unwrap();
    assert!(look.table("t").is_ok() && look.parent().is_none());
    let kept = manager(&disk, &look).build().unwrap();
    insert(&db, 1..4);
    manager(&disk, &db).build().unwrap().backup_now().unwrap();
    for kept in [kept, manager(&disk, &look).build().unwrap()] {
        let refused = kept.backup_full();
        assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
        assert_eq!(restored(&disk), [1, 2, 3]);
    }
}

/// A copy of the history that the look's own came of, over a session that was not closed.
#[test]
fn a_look_hides_no_backup_of_a_store_that_was_put_back_into_an_earlier_history() {
    let disk = SimStorage::new();
    let mut db = options(&disk).open("data").unwrap();
    insert(&db, 1..3);
    db.close().unwrap();
    let before = copy(&disk);
    for first in [3, 6] {
        db = options(&disk).open("data").unwrap();
        insert(&db, first..first + 3);
        manager(&disk, &db).build().unwrap().backup_now().unwrap();
        drop(db);
    }
    db = options(&disk).open("data").unwrap();
    insert(&db, 9..12);
    manager(&disk, &db).build().unwrap().backup_now().unwrap();
    let kept = manager(&disk, &options(&disk).open_read_only("data").unwrap()).build().unwrap();
    drop(db);
    put_back(&disk, before);
    db = options(&disk).open("data").unwrap();
    insert(&db, 100..102);
    manager(&disk, &db).build().unwrap().backup_now().unwrap();
    let refused = kept.backup_full();
    assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
    assert_eq!(restored(&disk), [1, 2, 100, 101]);
}
