//! What lies behind a full backup that cannot be used: files of DictDB 1.11 do not say what they join onto.

use std::path::{Path, PathBuf};

use dictdb::{
    BackupFormat, BackupManager, DictDb, Error, Lineage, ManualClock, MemoryStorage, RestoreOptions, Storage,
    Timestamp, record, restore,
};

fn full(a: u32, b: u32) -> String {
    let records = format!(r#"[{{"id": 1, "a": {a}}}, {{"id": 2, "b": {b}}}]"#);
    format!(r#"{{"tables": {{"t": {{"primary_key": "id", "schema": null, "records": {records}}}}}}}"#)
}

fn delta(record: &str) -> String {
    format!(r#"{{"type": "delta", "timestamp": 1.5, "tables": {{"t": {{"upserts": [{record}], "deletes": []}}}}}}"#)
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The fields `a` of record 1 and `b` of record 2.
fn held(db: &DictDb) -> (i64, i64) {
    let table = db.table("t").unwrap();
    let field = |key: i64, name: &str| table.get(key).unwrap().unwrap()[name].as_i64().unwrap();
    (field(1, "a"), field(2, "b"))
}

#[test]
fn a_delta_of_dictdb_1_11_behind_a_damaged_full_backup_never_goes_onto_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "dictdb_backup_1795344629_000001.json", &full(1, 1));
    let between = write(dir.path(), "dictdb_delta_1795344629_000002.json", &delta(r#"{"id": 1, "a": 2}"#));
    let newest = write(dir.path(), "dictdb_backup_1795344629_000003.json", &full(2, 2));
    let behind = write(dir.path(), "dictdb_delta_1795344629_000004.json", &delta(r#"{"id": 1, "a": 3}"#));
    assert_eq!(held(&restore(dir.path()).unwrap().0), (3, 2));

    let text = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &text[..text.len() / 2]).unwrap();
    let error = restore(dir.path()).unwrap_err();
    let Error::MissingLink { file, needs, .. } = &error else { panic!("{error}") };
    assert_eq!((file, needs.lineage), (&behind, Lineage::DICTDB_1_11));
    assert!(error.to_string().contains("move that full backup away"), "{error}");
    let (db, report) = RestoreOptions::new().accept_earlier(true).restore(dir.path()).unwrap();
    assert_eq!(held(&db), (2, 1), "{report}");
    assert!(report.fell_back && report.deltas == [between] && report.left_out == [behind], "{report}");

    // Its owner knows that the delta does not go on from it.
    std::fs::remove_file(&newest).unwrap();
    assert_eq!(held(&restore(dir.path()).unwrap().0), (3, 1));
}

#[test]
fn damage_to_a_full_backup_of_ours_never_makes_a_delta_of_dictdb_1_11_join_where_it_did_not() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "dictdb_backup_1795344629_000001.json", &full(1, 1));
    let (db, _) = restore(dir.path()).unwrap();
    db.table("t").unwrap().update(2, record! { "b": 5 }).unwrap();
    let ours = BackupManager::new(&db, dir.path()).unwrap().backup_full().unwrap().file;
    let behind = write(dir.path(), "dictdb_delta_9999999999_000000.json", &delta(r#"{"id": 1, "a": 3}"#));
    let text = std::fs::read(&ours).unwrap();
    for cut in [0, 40] {
        std::fs::write(&ours, &text[..text.len() - cut]).unwrap();
        let error = restore(dir.path()).unwrap_err();
        assert!(matches!(&error, Error::MissingLink { file, .. } if *file == behind), "{cut}: {error}");
        let (db, report) = RestoreOptions::new().accept_earlier(true).restore(dir.path()).unwrap();
        assert_eq!(held(&db), (1, if cut == 0 { 5 } else { 1 }), "{report}");
        assert_eq!((report.fell_back, &*report.left_out), (cut != 0, &*vec![behind.clone()]), "{report}");
    }
}

#[test]
fn a_delta_of_dictdb_1_11_in_a_directory_of_ours_is_missed_and_hides_no_history() {
    let dir = tempfile::tempdir().unwrap();
    let db = DictDb::new();
    db.create_table("t", "id").unwrap().insert(record! { "id": 1, "a": 1 }).unwrap();
    BackupManager::new(&db, dir.path()).unwrap().backup_full().unwrap();
    let stranger = write(dir.path(), "dictdb_delta_9999999999_000000.json", &delta(r#"{"id": 1, "a": 3}"#));
    let error = restore(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::MissingLink { file, .. } if *file == stranger), "{error}");
    let (restored, report) = RestoreOptions::new().lineage(db.lineage()).restore(dir.path()).unwrap();
    assert_eq!(restored.digest(), db.digest());
    assert!(report.left_out.is_empty(), "{report}");
}

#[test]
fn a_full_backup_that_dictdb_1_11_pickled_is_never_passed_over_for_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "dictdb_backup_1795344629_000002.pickle", "\u{80}\u{5}");
    let refused = |named: &str| {
        let error = restore(dir.path()).unwrap_err();
        let Error::UnsupportedValue { file, expected, .. } = &error else { panic!("{error}") };
        assert_eq!(*file, dir.path().join(named));
        assert!(expected.contains("file_format=\"json\""), "{error}");
    };
    refused("dictdb_backup_1795344629_000002.pickle");
    write(dir.path(), "dictdb_delta_1795344629_000003.json", &delta(r#"{"id": 1, "a": 3}"#));
    refused("dictdb_backup_1795344629_000002.pickle");
    write(dir.path(), "dictdb_backup_1795344629_000001.json", &full(1, 1));
    refused("dictdb_backup_1795344629_000002.pickle");
    // An older one is no more looked at than any other.
    let newest = write(dir.path(), "dictdb_backup_1795344629_000004.json", &full(3, 2));
    assert_eq!(held(&restore(dir.path()).unwrap().0), (3, 2));
    std::fs::write(&newest, "{").unwrap();
    refused("dictdb_backup_1795344629_000002.pickle");
    write(dir.path(), "dictdb_backup_1795344629_000005.pickle", "");
    refused("dictdb_backup_1795344629_000005.pickle");
}

#[test]
fn an_incremental_manager_beside_a_pickle_begins_with_a_full_backup_that_restores() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "dictdb_backup_1795344629_000002.pickle", "");
    let db = DictDb::new();
    db.create_table("t", "id").unwrap().insert(record! { "a": 1 }).unwrap();
    let manager = BackupManager::builder(&db, dir.path()).incremental(true).file_format(BackupFormat::Binary);
    manager.build().unwrap().backup_now().unwrap();
    assert_eq!(restore(dir.path()).unwrap().0.digest(), db.digest());
    // That of another program, newer: only who asks for this history gets it.
    write(dir.path(), "dictdb_backup_9999999999_000000.pickle", "");
    assert!(matches!(restore(dir.path()), Err(Error::UnsupportedValue { .. })));
    let (restored, _) = RestoreOptions::new().lineage(db.lineage()).restore(dir.path()).unwrap();
    assert_eq!(restored.digest(), db.digest());
}

#[test]
fn a_delta_of_dictdb_1_11_by_hand_is_refused_as_a_restore_refuses_it_by_file_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let with_schema = full(1, 1).replace("null", r#"{"id": "int", "a": "int", "b": "int"}"#);
    let begun = write(
        dir.path(),
        "dictdb_backup_1795344629_000001.json",
        &with_schema.replace(r#", "b": 1"#, r#", "b": 1, "a": 1"#).replace(r#""a": 1}, "#, r#""a": 1, "b": 1}, "#),
    );
    for (bad, unsupported) in [
        (delta(r#"{"id": true, "a": 1, "b": 1}"#), true),
        (delta(r#"{"id": null, "a": 1, "b": 1}"#), true),
        (delta(r#"{"id": 3, "a": 18446744073709551616, "b": 1}"#), true),
        (delta(r#"{"id": 3, "a": "text", "b": 1}"#), false),
        (delta(r#"{"id": 3, "a": 1, "b": 1}"#).replace(r#""t""#, r#""new""#), false),
        (delta("").replace(r#""deletes": []"#, r#""deletes": [1]"#).replace(r#""t""#, r#""new""#), false),
    ] {
        let file = write(dir.path(), "dictdb_delta_1795344629_000002.json", &bad);
        let db = DictDb::load(&begun).unwrap();
        let before = db.digest();
        let by_hand = db.apply_delta(&file).unwrap_err();
        assert_eq!(db.digest(), before, "{bad}");
        assert_eq!(by_hand.to_string(), restore(dir.path()).unwrap_err().to_string(), "{bad}");
        assert_eq!(matches!(by_hand, Error::UnsupportedValue { .. }), unsupported, "{bad}: {by_hand}");
        assert!(by_hand.to_string().contains("dictdb_delta_1795344629_000002.json"), "{by_hand}");
    }
    // Without a key it gets the next one, as in Python.
    let file = write(dir.path(), "dictdb_delta_1795344629_000002.json", &delta(r#"{"a": 1, "b": 7}"#));
    let db = DictDb::load(&begun).unwrap();
    assert_eq!(db.apply_delta(&file).unwrap(), 1);
    assert_eq!(db.table("t").unwrap().get(3).unwrap().unwrap()["b"], 7);
    assert_eq!(restore(dir.path()).unwrap().0.digest(), db.digest());
}

#[test]
fn a_pickle_that_is_ahead_of_the_clock_hides_no_backup_of_ours_and_none_that_came_later_does() {
    let storage = MemoryStorage::new();
    let pickle = |stamp: &str| storage.write(format!("/b/dictdb_backup_{stamp}.pickle"), Vec::new()).unwrap();
    pickle("1700000400_000000");
    let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let db = DictDb::builder().clock(clock).build();
    let table = db.create_table("t", "id").unwrap();
    let manager = BackupManager::builder(&db, "/b").storage(storage.clone()).incremental(true);
    let manager = manager.file_format(BackupFormat::Binary).build().unwrap();
    for id in 0..3 {
        table.insert(record! { "id": id }).unwrap();
        manager.backup_now().unwrap();
        let (restored, _) = RestoreOptions::new().storage(storage.clone()).restore("/b").unwrap();
        assert_eq!(restored.digest(), db.digest());
        // One that is ahead still, and one that is older than all that is here.
        pickle(["1700000500_000000", "1500000000_000000", "1500000001_000000"][id as usize]);
    }
    // A chain that would begin at the empty database does not begin beside one.
    let storage = MemoryStorage::new();
    let manager = BackupManager::builder(&db, "/b").storage(storage.clone()).incremental(true);
    let manager = manager.file_format(BackupFormat::Binary).build().unwrap();
    storage.write("/b/dictdb_backup_1500000000_000000.pickle", Vec::new()).unwrap();
    manager.backup_now().unwrap();
    let (restored, _) = RestoreOptions::new().storage(storage).restore("/b").unwrap();
    assert_eq!(restored.digest(), db.digest());
}

#[test]
fn who_asks_for_the_history_of_dictdb_1_11_where_there_are_pickles_alone_hears_of_them() {
    let storage = MemoryStorage::new();
    storage.write("/b/dictdb_backup_1500000000_000000.pickle", Vec::new()).unwrap();
    let refused = RestoreOptions::new().storage(storage).lineage(Lineage::DICTDB_1_11).restore("/b").unwrap_err();
    assert!(matches!(refused, Error::UnsupportedValue { .. }), "{refused}");
}

/// It is looked for where a delta was left out, that of an older full backup.
#[test]
fn an_old_pickle_is_no_obstacle_to_the_state_of_a_newer_full_backup() {
    let storage = MemoryStorage::new();
    let db = DictDb::new();
    let table = db.create_table("t", "id").unwrap();
    let manager = |storage: &MemoryStorage| {
        let manager = BackupManager::builder(&db, "/b").storage(storage.clone());
        manager.file_format(BackupFormat::Binary).build().unwrap()
    };
    let first = manager(&storage).backup_full().unwrap().file;
    let aside = MemoryStorage::new();
    aside.write(&first, storage.read(&first).unwrap()).unwrap();
    table.insert(record! { "id": 1 }).unwrap();
    manager(&storage).backup_full().unwrap();
    let digest = db.digest();
    table.insert(record! { "id": 2 }).unwrap();
    let delta = manager(&aside).backup_delta().unwrap().file;
    storage.write(&delta, aside.read(&delta).unwrap()).unwrap();
    storage.remove(&first).unwrap();
    storage.write("/b/dictdb_backup_1500000000_000000.pickle", Vec::new()).unwrap();
    let restoring = RestoreOptions::new().storage(storage);
    assert!(matches!(restoring.restore("/b").unwrap_err(), Error::MissingLink { .. }));
    let (restored, report) = restoring.accept_earlier(true).restore("/b").unwrap();
    assert_eq!((restored.digest(), report.left_out.len()), (digest, 1), "{report}");
}

/// Newer than the full backup before it, whichever part of the one behind it is damaged.
#[test]
fn a_pickle_between_a_damaged_full_backup_of_ours_and_an_older_one_is_not_passed_over() {
    let storage = MemoryStorage::new();
    let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let db = DictDb::builder().clock(clock.clone()).build();
    let table = db.create_table("t", "id").unwrap();
    let manager = BackupManager::builder(&db, "/b").storage(storage.clone()).file_format(BackupFormat::Binary);
    let manager = manager.build().unwrap();
    table.insert(record! { "a": 1 }).unwrap();
    manager.backup_full().unwrap();
    storage.write("/b/dictdb_backup_1700000100_000000.pickle", Vec::new()).unwrap();
    clock.set(Timestamp::from_micros(1_700_000_200_000_000));
    table.insert(record! { "a": 2 }).unwrap();
    let newest = manager.backup_full().unwrap().file;
    let whole = storage.read(&newest).unwrap();
    for at in [0, 8, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        storage.write(&newest, damaged).unwrap();
        let restoring = RestoreOptions::new().storage(storage.clone());
        let refused = restoring.restore("/b").map(|(_, report)| report.to_string()).unwrap_err();
        assert!(matches!(refused, Error::UnsupportedValue { .. }), "{at}: {refused}");
        let (_, report) = restoring.lineage(db.lineage()).restore("/b").unwrap();
        assert!(report.fell_back, "{at}: {report}");
    }
}

#[test]
fn a_damaged_newest_backup_is_said_to_be_why_a_delta_became_a_full_one_also_beside_an_old_pickle() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "dictdb_backup_1500000000_000000.pickle", "");
    let db = DictDb::new();
    db.create_table("t", "id").unwrap().insert(record! { "a": 1 }).unwrap();
    let full = BackupManager::new(&db, dir.path()).unwrap().backup_full().unwrap().file;
    std::fs::write(&full, "{").unwrap();
    let report = BackupManager::new(&db, dir.path()).unwrap().backup_delta().unwrap();
    assert_eq!(report.promoted, Some(dictdb::Promotion::NewestDamaged), "{report}");
}

/// As long as what goes on behind the pickle is whole without the one that is damaged, wherever that shows.
#[test]
fn a_pickle_behind_a_damaged_full_backup_of_ours_is_no_obstacle_to_the_chain_that_goes_on() {
    let storage = MemoryStorage::new();
    let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let db = DictDb::builder().clock(clock.clone()).build();
    let table = db.create_table("t", "id").unwrap();
    let manager = BackupManager::builder(&db, "/b").storage(storage.clone()).file_format(BackupFormat::Binary);
    let manager = manager.incremental(true).build().unwrap();
    manager.backup_full().unwrap();
    table.insert(record! { "a": 1 }).unwrap();
    let newest = manager.backup_full().unwrap();
    assert!(newest.bridge.is_some());
    storage.write("/b/dictdb_backup_1700000100_000000.pickle", Vec::new()).unwrap();
    clock.set(Timestamp::from_micros(1_700_000_200_000_000));
    table.insert(record! { "a": 2 }).unwrap();
    manager.backup_delta().unwrap();
    let whole = storage.read(&newest.file).unwrap();
    for at in [0, 8, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        storage.write(&newest.file, damaged).unwrap();
        let (restored, report) = RestoreOptions::new().storage(storage.clone()).restore("/b").unwrap();
        assert_eq!((restored.digest(), report.fell_back), (db.digest(), true), "{at}: {report}");
    }
}

/// No full backup is to be moved away there.
#[test]
fn a_delta_of_dictdb_1_11_before_a_chain_from_the_empty_database_is_passed_over_and_one_behind_it_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let db = DictDb::new();
    let manager = BackupManager::builder(&db, dir.path()).incremental(true).file_format(BackupFormat::Binary);
    let manager = manager.build().unwrap();
    for id in 0..2 {
        let table = db.table("t").or_else(|_| db.create_table("t", "id")).unwrap();
        table.insert(record! { "id": id }).unwrap();
        assert!(manager.backup_now().unwrap().base_seq.is_some());
    }
    write(dir.path(), "dictdb_delta_1500000000_000000.json", &delta(r#"{"id": 1, "a": 3}"#));
    let (restored, report) = restore(dir.path()).unwrap();
    assert_eq!((restored.digest(), report.left_out.len()), (db.digest(), 0), "{report}");
    let behind = write(dir.path(), "dictdb_delta_9999999999_000000.json", &delta(r#"{"id": 1, "a": 3}"#));
    let error = restore(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::MissingLink { file, .. } if *file == behind), "{error}");
    assert!(error.to_string().contains("or this delta"), "{error}");
    std::fs::remove_file(&behind).unwrap();
    assert_eq!(restore(dir.path()).unwrap().0.digest(), db.digest());
}
