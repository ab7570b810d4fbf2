//! Stores made of what DictDB 1.11 wrote: they begin at seq 0, and not empty.

use dictdb::{
    BackupFormat, BackupManager, CheckpointPolicy, DictDb, Durability, MemoryStorage, Options, RestoreOptions, record,
};

const DIR: &str = "/data";
const BACKUPS: &str = "/backups";
const DOCUMENT: &str = r#"{"tables": {"users": {"primary_key": "id", "schema": null, "records": [
    {"id": 1, "name": "Ann"}, {"id": 2, "name": "Bo"}]}}}"#;

fn options(storage: &MemoryStorage) -> Options {
    Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual()).preallocate_bytes(1_024)
}

fn written_by_1_11() -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.write(format!("{BACKUPS}/dictdb_backup_1700000000_000000.json"), DOCUMENT.as_bytes()).unwrap();
    storage
}

fn restore_into(storage: &MemoryStorage, backups: &str) {
    RestoreOptions::new().storage(storage.clone()).restore_into(backups, DIR).unwrap();
}

/// Opens it again and again, and adds a record each time.
fn goes_on(storage: &MemoryStorage, durability: Durability, close: bool) {
    for id in 3..8_i64 {
        let opened = options(storage).durability(durability).open(DIR);
        let db = opened.unwrap_or_else(|error| panic!("{durability:?}, closed {close}, before record {id}: {error}"));
        let users = db.table("users").unwrap();
        assert_eq!(users.len().unwrap(), id as usize - 1, "{durability:?}, closed {close}");
        users.insert(record! { "id": id, "name": "more" }).unwrap();
        drop(users);
        if close { drop(db.close().unwrap()) } else { drop(db) }
    }
    for id in 8..10 {
        let db = options(storage).open(DIR).unwrap();
        db.table("users").unwrap().insert(record! { "id": id }).unwrap();
        db.checkpoint().unwrap();
    }
    let db = options(storage).open(DIR).unwrap();
    assert_eq!(db.table("users").unwrap().get(1).unwrap().unwrap()["name"], "Ann");
    assert_eq!(db.table("users").unwrap().len().unwrap(), 9);
}

#[test]
fn a_store_made_of_a_backup_of_dictdb_1_11_goes_on_after_its_first_commit() {
    for durability in [Durability::Sync, Durability::Manual] {
        for close in [true, false] {
            let storage = written_by_1_11();
            restore_into(&storage, BACKUPS);
            goes_on(&storage, durability, close);
        }
    }
}

/// Where nothing was committed to it.
#[test]
fn a_store_made_of_a_backup_of_what_dictdb_1_11_wrote_goes_on_after_its_first_commit() {
    let storage = written_by_1_11();
    let (db, _) = RestoreOptions::new().storage(storage.clone()).restore(BACKUPS).unwrap();
    back_up(&storage, &db, "/own");
    restore_into(&storage, "/own");
    goes_on(&storage, Durability::Sync, true);
}

fn back_up(storage: &MemoryStorage, db: &DictDb, dir: &str) {
    let builder = BackupManager::builder(db, dir).storage(storage.clone()).file_format(BackupFormat::Binary);
    builder.incremental(true).build().unwrap().backup_now().unwrap();
}

#[test]
fn a_store_made_of_a_backup_of_dictdb_1_11_is_backed_up_further_and_what_is_restored_of_it_goes_on() {
    let storage = written_by_1_11();
    restore_into(&storage, BACKUPS);
    for id in 3..6_i64 {
        let db = options(&storage).open(DIR).unwrap();
        back_up(&storage, &db, "/own");
        db.table("users").unwrap().insert(record! { "id": id }).unwrap();
        back_up(&storage, &db, "/own");
        let (restored, _) = RestoreOptions::new().storage(storage.clone()).restore("/own").unwrap();
        assert_eq!((restored.digest(), restored.seq()), (db.digest(), db.seq()), "record {id}");
        drop(db);
    }
    RestoreOptions::new().storage(storage.clone()).restore_into("/own", "/again").unwrap();
    for id in 6..9_i64 {
        let db = options(&storage).open("/again").unwrap();
        assert_eq!(db.table("users").unwrap().len().unwrap(), id as usize - 1);
        db.table("users").unwrap().insert(record! { "id": id }).unwrap();
    }
}
