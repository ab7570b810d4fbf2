//! Managers of handles that another one has gone on from: closed ones, and those that only look on.

use dictdb::sim::{Fault, Repeat, SimStorage};
use dictdb::{BackupFormat, BackupManager, CheckpointPolicy, DictDb, Error, Key, Options, RestoreOptions, record};

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
