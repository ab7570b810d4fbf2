//! Managers of handles that another one has gone on from: closed ones, and those that only look on.

use std::sync::{Arc, Mutex};

use dictdb::sim::{Fault, Repeat, SimStorage};
use dictdb::{BackupFormat, BackupManager, CheckpointPolicy, DictDb, Error, Key, Options, RestoreOptions, record};

use super::hooked::{Hooked, Op};

fn options(disk: &SimStorage) -> Options {
    Options::new().storage(disk.clone()).checkpoint(CheckpointPolicy::manual()).preallocate_bytes(1_024)
}

fn ids(db: &DictDb) -> Vec<Key> {
    db.table("t").unwrap().iter().unwrap().map(|(key, _)| key).collect()
}

#[test]
fn the_manager_of_a_handle_that_was_closed_never_hides_what_the_store_has_backed_up_since() {
    for format in [BackupFormat::Json, BackupFormat::Binary] {
        for incremental in [false, true] {
            for is_look in [false, true] {
                let disk = SimStorage::new();
                let manager = |db: &DictDb| {
                    let builder = BackupManager::builder(db, "backups").storage(disk.clone());
                    builder.file_format(format).incremental(incremental).build().unwrap()
                };
                let db = options(&disk).open("data").unwrap();
                db.create_table("t", "id").unwrap().insert(record! { "id": 1 }).unwrap();
                let early = manager(&db);
                db.close().unwrap();
                // Nobody has gone on: it may still back up what it holds.
                early.backup_now().unwrap();
                let old = match is_look {
                    true => manager(&options(&disk).open_read_only("data").unwrap()),
                    false => early,
                };
                let db = options(&disk).open("data").unwrap();
                db.table("t").unwrap().insert(record! { "id": 2 }).unwrap();
                let new = manager(&db);
                new.backup_now().unwrap();
                for _ in 0..2 {
                    for refused in [old.backup_full(), old.backup_delta()] {
                        assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
                    }
                    let (restored, report) = RestoreOptions::new().storage(disk.clone()).restore("backups").unwrap();
                    assert_eq!(
                        ids(&restored),
                        [Key::from(1), Key::from(2)],
                        "{format} {incremental} {is_look}: {report}"
                    );
                    new.backup_now().unwrap();
                }
            }
        }
    }
}

#[test]
fn a_poisoned_handle_that_was_closed_does_not_bring_back_the_commits_that_reopening_gave_up() {
    let disk = SimStorage::new();
    let manager = |db: &DictDb| BackupManager::builder(db, "backups").storage(disk.clone()).build().unwrap();
    let db = options(&disk).open("data").unwrap();
    let table = db.create_table("t", "id").unwrap();
    let old = manager(&db);
    table.insert(record! { "id": 1 }).unwrap();
    disk.fail_at(disk.op_count() + 1, Fault::Error(std::io::ErrorKind::Other), Repeat::Once);
    table.insert(record! { "id": "given up" }).unwrap_err();
    db.close().unwrap_err(); // gives the lock back
    let db = options(&disk).open("data").unwrap();
    assert_eq!(ids(&db), [Key::from(1)]);
    db.table("t").unwrap().insert(record! { "id": 2 }).unwrap();
    manager(&db).backup_now().unwrap();
    old.backup_now().unwrap_err();
    let (restored, report) = RestoreOptions::new().storage(disk).restore("backups").unwrap();
    assert_eq!(ids(&restored), [Key::from(1), Key::from(2)], "{report}");
}

/// A change that waits for its backup is saved when the manager goes.
#[test]
fn a_manager_that_is_dropped_behind_a_close_hides_nothing_with_the_change_that_waited() {
    let disk = SimStorage::new();
    let manager = |db: &DictDb| BackupManager::builder(db, "backups").storage(disk.clone()).build().unwrap();
    let db = options(&disk).open("data").unwrap();
    let table = db.create_table("t", "id").unwrap();
    let old = manager(&db);
    old.backup_now().unwrap();
    table.insert(record! { "id": 1 }).unwrap();
    old.notify_change().unwrap();
    db.close().unwrap();
    let db = options(&disk).open("data").unwrap();
    db.table("t").unwrap().insert(record! { "id": 2 }).unwrap();
    manager(&db).backup_full().unwrap();
    drop((old, table));
    let (restored, report) = RestoreOptions::new().storage(disk).restore("backups").unwrap();
    assert_eq!(ids(&restored), [Key::from(1), Key::from(2)], "{report}");
}

fn manager(disk: &SimStorage, db: &DictDb) -> BackupManager {
    BackupManager::builder(db, "backups").storage(disk.clone()).build().unwrap()
}

fn restored(disk: &SimStorage) -> Vec<Key> {
    ids(&RestoreOptions::new().storage(disk.clone()).restore("backups").unwrap().0)
}

fn insert(db: &DictDb, id: i64) {
    let table = db.table("t").or_else(|_| db.create_table("t", "id")).unwrap();
    table.insert(record! { "id": id }).unwrap();
}

#[test]
fn the_last_backup_behind_a_close_is_made_whatever_history_the_directory_had_before() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 1);
    manager(&disk, &db).backup_now().unwrap();
    insert(&db, 2);
    drop(db); // a crash: what comes next is another history
    let db = options(&disk).open("data").unwrap();
    let last = manager(&disk, &db);
    insert(&db, 3);
    last.notify_change().unwrap();
    db.close().unwrap();
    last.stop().unwrap();
    assert_eq!(restored(&disk), [Key::from(1), Key::from(2), Key::from(3)]);

    // The same where the directory is that of DictDB 1.11 which the store was made of.
    let disk = SimStorage::new();
    let document = r#"{"tables": {"t": {"primary_key": "id", "schema": null, "records": [{"id": 1}]}}}"#;
    disk.write("backups/dictdb_backup_1700000000_000000.json", document.as_bytes()).unwrap();
    RestoreOptions::new().storage(disk.clone()).restore_into("backups", "data").unwrap();
    let db = options(&disk).open("data").unwrap();
    let last = manager(&disk, &db);
    insert(&db, 2);
    db.close().unwrap();
    last.backup_now().unwrap();
    assert_eq!(restored(&disk), [Key::from(1), Key::from(2)]);
}

/// A retention that was none takes the full backup, and leaves a delta that leads to its own history from nowhere.
#[test]
fn the_last_backup_behind_a_close_is_made_also_where_a_file_of_its_chain_is_gone() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 1);
    let incremental = || {
        let builder = BackupManager::builder(&db, "backups").storage(disk.clone());
        builder.incremental(true).build().unwrap()
    };
    let (last, other) = (incremental(), incremental());
    let full = last.backup_full().unwrap();
    insert(&db, 2);
    other.backup_delta().unwrap();
    dictdb::Storage::remove(&disk, &full.file).unwrap();
    insert(&db, 3);
    drop(other);
    db.clone().close().unwrap();
    last.backup_now().unwrap();
    assert_eq!(restored(&disk), [Key::from(1), Key::from(2), Key::from(3)]);
}

/// The history of a look is one of its own, and so is that of each session behind one that was not closed.
#[test]
fn a_look_hides_no_backup_of_the_store_whatever_history_that_is_of() {
    for is_live in [true, false] {
        let disk = SimStorage::new();
        let db = options(&disk).open("data").unwrap();
        insert(&db, 1);
        manager(&disk, &db).backup_now().unwrap();
        let mut live = Some(db);
        if !is_live {
            live.take().map(DictDb::close).unwrap().unwrap();
        }
        let look = manager(&disk, &options(&disk).open_read_only("data").unwrap());
        for id in 2..4 {
            let db = live.take().unwrap_or_else(|| options(&disk).open("data").unwrap());
            insert(&db, id);
            manager(&disk, &db).backup_now().unwrap();
        }
        let refused = look.backup_full();
        assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{is_live}: {refused:?}");
        assert_eq!(restored(&disk), [Key::from(1), Key::from(2), Key::from(3)]);
    }
}

#[test]
fn a_backup_that_another_handle_makes_between_a_look_at_the_directory_and_the_stamp_is_not_hidden() {
    type Others = Box<dyn FnOnce() + Send>;
    let between: Arc<Mutex<Option<Others>>> = Arc::default();
    let once = Arc::clone(&between);
    let storage = Hooked::new(move |op, _| {
        let others = if op == Op::List { once.lock().unwrap().take() } else { None };
        others.into_iter().for_each(|others| others());
        Ok(())
    });
    let files = storage.files.clone();
    let open = {
        let options = Options::new().storage(files.clone()).checkpoint(CheckpointPolicy::manual());
        move || options.open("data").unwrap()
    };
    let db = open();
    insert(&db, 1);
    let old = BackupManager::builder(&db, "backups").storage(storage).build().unwrap();
    old.backup_now().unwrap();
    let others = files.clone();
    *between.lock().unwrap() = Some(Box::new(move || {
        db.close().unwrap();
        let db = open();
        insert(&db, 2);
        BackupManager::builder(&db, "backups").storage(others).build().unwrap().backup_now().unwrap();
    }));
    let refused = old.backup_now();
    assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
    assert_eq!(ids(&RestoreOptions::new().storage(files).restore("backups").unwrap().0), [Key::from(1), Key::from(2)]);
}

#[test]
fn a_change_that_the_handle_which_went_on_has_backed_up_is_no_failure_of_the_manager_that_is_left_behind() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 1);
    let old = manager(&disk, &db);
    old.backup_now().unwrap();
    insert(&db, 2);
    old.notify_change().unwrap();
    db.close().unwrap();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 3);
    manager(&disk, &db).backup_now().unwrap();
    for _ in 0..2 {
        assert!(old.stop().unwrap().is_none());
        assert_eq!(old.status().consecutive_failures, 0);
    }
    assert!(matches!(old.backup_now(), Err(Error::LeftBehind { .. })), "by hand it is");
}

/// What reopening gave up is in no backup of the handle that went on.
#[test]
fn a_change_of_a_history_that_was_given_up_is_a_failure_of_the_manager_that_is_left_behind() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 1);
    let old = manager(&disk, &db);
    old.backup_now().unwrap();
    disk.fail_at(disk.op_count() + 1, Fault::Error(std::io::ErrorKind::Other), Repeat::Once);
    db.table("t").unwrap().insert(record! { "id": "given up" }).unwrap_err();
    old.notify_change().unwrap();
    db.close().unwrap_err(); // gives the lock back
    let db = options(&disk).open("data").unwrap();
    (2..6).for_each(|id| insert(&db, id));
    manager(&disk, &db).backup_now().unwrap();
    let refused = old.stop();
    assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
    assert_eq!(old.status().consecutive_failures, 1);
}

#[test]
fn a_manager_made_behind_a_close_does_not_take_what_it_finds_for_a_backup_of_its_change() {
    let disk = SimStorage::new();
    let closed = options(&disk).open("data").unwrap();
    insert(&closed, 1);
    closed.clone().close().unwrap();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 2);
    manager(&disk, &db).backup_now().unwrap();
    let refused = manager(&disk, &closed).notify_change();
    assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
}

#[test]
fn a_look_backs_up_what_is_newer_than_the_stores_backups_and_takes_over_from_another_database() {
    let disk = SimStorage::new();
    let other = DictDb::new();
    (1..9).for_each(|id| insert(&other, -id));
    manager(&disk, &other).backup_now().unwrap();
    let db = options(&disk).open("data").unwrap();
    for id in 1..4 {
        insert(&db, id);
        let look = manager(&disk, &options(&disk).open_read_only("data").unwrap());
        look.backup_full().unwrap();
        if id == 2 {
            manager(&disk, &db).backup_now().unwrap();
        }
        assert_eq!(restored(&disk), (1..=id).map(Key::from).collect::<Vec<_>>());
    }
}

/// What a handle that went on has backed up may be what was damaged.
#[test]
fn the_manager_of_a_closed_handle_puts_nothing_over_a_newest_backup_that_is_damaged() {
    let disk = SimStorage::new();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 1);
    let last = manager(&disk, &db);
    last.backup_now().unwrap();
    db.close().unwrap();
    let db = options(&disk).open("data").unwrap();
    insert(&db, 2);
    let newest = manager(&disk, &db).backup_now().unwrap().file;
    let mut bytes = disk.read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    disk.write(&newest, bytes).unwrap();
    let refused = last.backup_now();
    assert!(matches!(refused, Err(Error::LeftBehind { .. })), "{refused:?}");
    // The one that went on mends it.
    manager(&disk, &db).backup_now().unwrap();
    assert_eq!(restored(&disk), [Key::from(1), Key::from(2)]);
}
