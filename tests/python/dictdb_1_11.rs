//! Files that DictDB 1.11 wrote restore here to exactly what it held.

use std::path::{Path, PathBuf};

use dictdb::{DictDb, Error, Lineage, list_backups, restore};

use crate::oracle::{self, Plain, assert_same, of_db, read_json};

const FULL: &str = "dictdb_backup_1795344629_791450.json";
const DELTAS: [&str; 3] = [
    "dictdb_delta_1795344629_940267.json",
    "dictdb_delta_1795344630_061409.json",
    "dictdb_delta_1795344630_111907.json",
];

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dictdb-1.11").join(file)
}

/// The full backup, and the chain after each delta.
fn stages() -> [Plain; 4] {
    let mut plain = oracle::tables(&read_json(&data(FULL))["tables"]);
    let mut stages = [plain.clone(), plain.clone(), plain.clone(), plain.clone()];
    for (stage, delta) in stages.iter_mut().skip(1).zip(DELTAS) {
        oracle::apply_delta(&mut plain, &read_json(&data(delta)));
        *stage = plain.clone();
    }
    stages
}

#[test]
fn a_chain_of_dictdb_1_11_restores_to_exactly_what_it_held() {
    let (db, report) = restore(data("")).unwrap();
    assert_eq!(report.full, Some(data(FULL)));
    assert_eq!(report.deltas, DELTAS.map(data));
    assert_eq!(report.point.lineage, Lineage::DICTDB_1_11);
    assert!(!report.fell_back && report.damaged.is_empty() && report.left_out.is_empty(), "{report}");

    let mut expected = oracle::tables(&read_json(&data("expected.json")));
    let full = oracle::tables(&read_json(&data(FULL))["tables"]);
    for (name, table) in &mut expected {
        table.schema = full[name].schema.clone(); // expected.json has none
    }
    assert_eq!(report.records as usize, expected.values().map(|table| table.records.len()).sum::<usize>());
    assert_same(&of_db(&db), &expected, "restored");
    assert!(!expected["nets"].schema.is_null(), "the chain has a table with a schema");
}

#[test]
fn the_single_files_of_dictdb_1_11_load_and_apply_with_its_own_counts() {
    let db = DictDb::load(data(FULL)).unwrap();
    let mut plain = oracle::tables(&read_json(&data(FULL))["tables"]);
    assert_same(&of_db(&db), &plain, "full");
    for delta in DELTAS {
        let affected = oracle::apply_delta(&mut plain, &read_json(&data(delta)));
        assert!(affected > 0);
        assert_eq!(db.apply_delta(data(delta)).unwrap(), affected, "{delta}");
        assert_same(&of_db(&db), &plain, delta);
    }
}

#[test]
fn deltas_of_dictdb_1_11_older_than_the_chosen_full_are_ignored() {
    let stages = stages();
    // The full backup put behind 0, 1, 2 and all 3 of the deltas.
    let stamps = ["1795344629_791450", "1795344630_000000", "1795344630_100000", "1795344631_000000"];
    for (older, stamp) in stamps.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        for delta in DELTAS {
            std::fs::copy(data(delta), dir.path().join(delta)).unwrap();
        }
        std::fs::copy(data(FULL), dir.path().join(format!("dictdb_backup_{stamp}.json"))).unwrap();
        let mut expected = stages[0].clone();
        for delta in &DELTAS[older..] {
            oracle::apply_delta(&mut expected, &read_json(&data(delta)));
        }
        let (db, report) = restore(dir.path()).unwrap();
        let applied: Vec<PathBuf> = DELTAS[older..].iter().map(|delta| dir.path().join(delta)).collect();
        assert_eq!(report.deltas, applied, "{older} older");
        assert!(report.left_out.is_empty(), "{report}");
        assert_same(&of_db(&db), &expected, &format!("{older} older"));
        // Had an old delta been applied, it would show.
        assert!(older == 0 || of_db(&db) != stages[3], "{older} older");
    }
}

#[test]
fn the_newest_full_backup_of_dictdb_1_11_is_the_one_restored() {
    let dir = tempfile::tempdir().unwrap();
    for file in DELTAS.into_iter().chain([FULL]) {
        std::fs::copy(data(file), dir.path().join(file)).unwrap();
    }
    // A full backup of DictDB's that holds something else than the chain before it.
    let newer = r#"{"tables": {"t": {"primary_key": "id", "schema": null, "records": [{"id": 1, "x": 2.0}]}}}"#;
    std::fs::write(dir.path().join("dictdb_backup_1795344640_000000.json"), newer).unwrap();
    let (db, report) = restore(dir.path()).unwrap();
    assert!(report.deltas.is_empty());
    assert_eq!(db.table_names(), ["t"]);
    let record = db.table("t").unwrap().get(1).unwrap().unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), r#"{"id":1,"x":2.0}"#);
}

#[test]
fn the_files_of_dictdb_1_11_are_listed_and_never_written_to() {
    let read =
        || -> Vec<Vec<u8>> { DELTAS.iter().chain([&FULL]).map(|file| std::fs::read(data(file)).unwrap()).collect() };
    let before = read();
    let listed = list_backups(data("")).unwrap();
    assert_eq!(
        listed.iter().map(|backup| backup.path.clone()).collect::<Vec<_>>(),
        [FULL].iter().chain(&DELTAS).map(|file| data(file)).collect::<Vec<_>>()
    );
    assert!(listed.iter().all(|backup| backup.details.as_ref().is_ok_and(|details| details.end.is_none())));
    let (db, _) = restore(data("")).unwrap();
    assert_eq!(db.parent().unwrap().lineage, Lineage::DICTDB_1_11);
    assert!(read() == before);
}

/// What Python's `json` writes and reads, and no record here holds.
const NOT_HELD: [&str; 12] = [
    r#"{"id": 1, "x": NaN}"#,
    r#"{"id": 1, "x": [0, Infinity]}"#,
    r#"{"id": 1, "x": -Infinity}"#,
    r#"{"id": 1, "x": 18446744073709551616}"#,
    r#"{"id": 1, "x": -9223372036854775809}"#,
    r#"{"id": 1, "x": "\udc80"}"#,
    r#"{"id": 1, "x": {"1": 0, "1": 1}}"#,
    r#"{"id": 1, "x": 0, "x": 1}"#,
    r#"{"id": 1.5, "x": 0}"#,
    r#"{"id": true, "x": 0}"#,
    r#"{"id": null, "x": 0}"#,
    r#"{"id": 18446744073709551615, "x": 0}"#,
];

fn full_of(record: &str) -> String {
    format!(r#"{{"tables": {{"t": {{"primary_key": "id", "schema": null, "records": [{record}]}}}}}}"#)
}

#[test]
fn what_python_writes_and_no_record_holds_is_refused_with_its_place_and_called_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("full.json");
    for record in NOT_HELD {
        let full = full_of(record);
        std::fs::write(&file, &full).unwrap();
        let Err(error) = DictDb::load(&file) else { panic!("{record} was taken") };
        let Error::UnsupportedValue { file: named, offset, .. } = &error else { panic!("{record}: {error}") };
        assert_eq!(*named, file);
        let at = full.find(record).unwrap() as u64;
        assert!((at..=at + record.len() as u64).contains(offset), "{record} stands at {at}: {error}");
        assert!(error.to_string().contains("not damaged"), "{error}");
    }
}

#[test]
fn a_backup_of_dictdb_that_no_record_here_holds_is_never_silently_replaced_by_an_older_one() {
    for record in NOT_HELD {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("dictdb_backup_1795344629_000001.json", &full_of(r#"{"id": 1, "x": 0}"#));
        let newest = "dictdb_backup_1795344629_000002.json";
        write(newest, &full_of(record));
        let Err(error) = restore(dir.path()) else { panic!("{record}: an older state was given") };
        assert!(matches!(error, Error::UnsupportedValue { .. }), "{record}: {error}");
        // Its text cut short is damage, as ever.
        write(newest, full_of(record).split_at(60).0);
        let (db, report) = restore(dir.path()).unwrap();
        assert!(report.fell_back && db.table("t").unwrap().len().unwrap() == 1, "{report}");
        std::fs::remove_file(dir.path().join(newest)).unwrap();
        write(
            "dictdb_delta_1795344629_000002.json",
            &format!(
                r#"{{"type": "delta", "timestamp": 1.5, "tables": {{"t": {{"upserts": [{record}], "deletes": []}}}}}}"#
            ),
        );
        let Err(error) = restore(dir.path()) else { panic!("{record} in a delta: an older state was given") };
        assert!(matches!(error, Error::UnsupportedValue { .. }), "{record} in a delta: {error}");
    }
}

#[test]
fn keys_to_delete_and_tables_that_are_not_held_are_no_damage_and_what_breaks_a_schema_is() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("dictdb_backup_1795344629_000001.json", &full_of(r#"{"id": 1, "x": 0}"#));
    for key in ["1.5", "true", "null", "18446744073709551616"] {
        write(
            "dictdb_delta_1795344629_000002.json",
            &format!(
                r#"{{"type": "delta", "timestamp": 1.5, "tables": {{"t": {{"upserts": [], "deletes": [{key}]}}}}}}"#
            ),
        );
        let error = restore(dir.path()).unwrap_err();
        assert!(matches!(error, Error::UnsupportedValue { .. }), "{key}: {error}");
    }
    std::fs::remove_file(dir.path().join("dictdb_delta_1795344629_000002.json")).unwrap();
    let newest = "dictdb_backup_1795344629_000002.json";
    let name = "x".repeat(65_537);
    write(newest, &full_of(r#"{"id": 1}"#).replace(r#""t""#, &format!("{name:?}")));
    assert!(matches!(restore(dir.path()).unwrap_err(), Error::UnsupportedValue { .. }));
    write(newest, &full_of(r#"{"id": 1}"#).replace(r#""primary_key": "id""#, &format!(r#""primary_key": {name:?}"#)));
    assert!(matches!(restore(dir.path()).unwrap_err(), Error::UnsupportedValue { .. }));
    // Half of a surrogate pair, which Python's text may hold, in a name; and two names that JSON makes one of.
    let schema = full_of(r#"{"id": 1}"#).replace("null", r#"{"id": "int", "x": "str"}"#);
    for not_held in [
        full_of(r#"{"id": 1}"#).replace(r#""t""#, r#""\udc80t""#),
        full_of(r#"{"id": 1}"#).replace(r#""t""#, r#""\ud800""#),
        full_of(r#"{"\udc80": 1}"#).replace(r#""primary_key": "id""#, r#""primary_key": "\udc80""#),
        schema.replace(r#""x""#, r#""\udc80""#),
        schema.replace(r#""x": "str""#, r#""x": "str", "x": "str""#),
    ] {
        write(newest, &not_held);
        let error = restore(dir.path()).unwrap_err();
        assert!(matches!(error, Error::UnsupportedValue { .. }), "{not_held}: {error}");
    }
    // DictDB would not load these either.
    for damaged in [
        full_of(r#"{"id": 1, "nbme": "Ann"}"#).replace("null", r#"{"id": "int", "name": "str"}"#),
        full_of("[1]"),
        full_of(r#"{"id": 1}, {"id": 1}"#),
    ] {
        write(newest, &damaged);
        let (_, report) = restore(dir.path()).unwrap();
        assert!(report.fell_back, "{damaged}: {report}");
    }
}

#[test]
fn a_value_that_is_not_held_in_a_file_of_another_history_hides_none_of_the_histories() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("dictdb_backup_1795344629_000001.json"), full_of(NOT_HELD[0])).unwrap();
    let db = DictDb::new();
    db.create_table("t", "id").unwrap();
    dictdb::BackupManager::new(&db, dir.path()).unwrap().backup_full().unwrap();
    let error = restore(dir.path()).unwrap_err();
    assert!(matches!(error, Error::SeveralHistories { .. }), "{error}");
    let lineage = db.lineage();
    let (restored, _) = dictdb::RestoreOptions::new().lineage(lineage).restore(dir.path()).unwrap();
    assert_eq!(restored.digest(), db.digest());
}
