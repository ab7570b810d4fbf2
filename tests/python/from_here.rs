//! Chains written here in JSON are loaded by the real DictDB 1.11, record for record.

use std::path::{Path, PathBuf};

use dictdb::{
    BackupFormat, BackupKind, BackupManager, DictDb, Error, FieldType, Key, Record, Schema, TableDefinition, Value,
    record,
};

use crate::oracle::{self, Plain, assert_same, of_db, read_json};
use crate::venv;

/// What DictDB held after one file.
struct Stage {
    affected: u64,
    tables: Plain,
    json: serde_json::Value,
}

/// Loads a chain with the real DictDB; `None` where there is no Python, which has been said.
fn load_there(files: &[PathBuf]) -> Option<Vec<Stage>> {
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let printed: Vec<serde_json::Value> = serde_json::from_str(&venv::run("load_chain.py", &paths)?).unwrap();
    assert_eq!(printed.len(), files.len());
    let stage = |json: serde_json::Value| Stage {
        affected: json["affected"].as_u64().unwrap(),
        tables: oracle::tables(&json["tables"]),
        json,
    };
    Some(printed.into_iter().map(stage).collect())
}

/// The feed's events as flat records with the geometry inside.
fn feed() -> Vec<Record> {
    let feed = read_json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/earthquakes.json"));
    let event = |feature: &serde_json::Value| {
        let mut event = record! { "id": feature["id"].as_str().unwrap() };
        event.extend(Record::try_from(feature["properties"].clone()).unwrap());
        event.insert("geometry", feature["geometry"].clone());
        event
    };
    feed["features"].as_array().unwrap().iter().map(event).collect()
}

/// Values of every kind, at their ends, as they may stand in JSON.
fn odd_values() -> Vec<Value> {
    let mut values: Vec<Value> = vec![Value::Null, true.into(), false.into(), 1.into(), 0.into(), 1.0.into()];
    values.extend([i64::MIN, i64::MAX, (1 << 53) + 1, -1].map(Value::from));
    values.extend([1_u64 << 63, u64::MAX].map(Value::from));
    values.extend(
        [0.0, -0.0, 2.0, 0.1, 5e-324, 2.2250738585072014e-308, 1e-7, 1e16, 1e17, 1.5e300, f64::MAX].map(Value::from),
    );
    values.extend([9007199254740993.0, -122.197, 0.30000000000000004].map(Value::from));
    let texts =
        ["", "ä", "日本", "\u{1f30b}", "\"\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}", "\u{2028}\u{feff}\u{fffd}\u{10ffff}"];
    values.extend(texts.map(Value::from));
    values.push(Value::List(vec![]));
    values.push(Value::Dict(Record::new()));
    values.push(Value::List(values.clone()));
    values.push(record! { "": 1, "z": { "a": [[], [{}], { "b": null }] }, "a": 2.0, "\u{1f30b}\"": [true] }.into());
    values
}

fn odd_records(first: i64) -> impl Iterator<Item = Record> {
    odd_values().into_iter().zip(first..).map(|(value, id)| record! { "id": id, "value": value, "whole": 2.0 })
}

/// A backup as it was made, and what the database held then.
struct Made {
    file: PathBuf,
    bridge: Option<PathBuf>,
    held: Plain,
}

/// Full, three deltas, full, two deltas.
fn write_chain(dir: &Path) -> Vec<Made> {
    let db = DictDb::new();
    let quakes = db.create_table("quakes", "id").unwrap();
    let schema = Schema::new([("code", FieldType::Str), ("events", FieldType::Int), ("strongest", FieldType::Float)]);
    let nets = db.create_table("nets", TableDefinition::new("code").schema(schema)).unwrap();
    let odd = db.create_table("odd", "id").unwrap();
    db.create_table("empty ☃", "schlüssel").unwrap();
    let feed = feed();
    let key = |event: &Record| Key::from(event["id"].as_str().unwrap());
    let backup = BackupManager::builder(&db, dir).file_format(BackupFormat::Json).incremental(true).build().unwrap();
    let mut made = Vec::new();
    for (step, events) in feed.chunks(feed.len().div_ceil(6)).enumerate() {
        for event in events {
            let code = event["net"].as_str().unwrap();
            let count = nets.get(code).unwrap().map_or(0, |net| net["events"].as_i64().unwrap());
            let strongest = event["mag"].as_f64().unwrap();
            nets.upsert(record! { "code": code, "events": count + 1, "strongest": strongest }).unwrap();
            quakes.insert(event.clone()).unwrap();
        }
        // Every third event of the step before grows by a field and changes two; every fifth goes.
        for (n, event) in
            feed.chunks(feed.len().div_ceil(6)).nth(step.wrapping_sub(1)).unwrap_or_default().iter().enumerate()
        {
            if n % 3 == 0 {
                let change = record! { "felt": n, "mag": 2.0, "seen": { "step": step, "by": ["a", null, true] } };
                quakes.update(key(event), change).unwrap();
            }
            if n % 5 == 0 {
                quakes.delete(key(event)).unwrap();
            }
        }
        odd.insert_many(odd_records(step as i64 * 100)).unwrap();
        odd.upsert(record! { "id": format!("ключ {step}"), "id2": step }).unwrap();
        if step > 0 {
            odd.delete(step as i64 * 100 - 99).unwrap();
            // Comes and goes between two backups: its delete names a key that the base never had.
            odd.insert(record! { "id": "brief" }).unwrap();
            odd.delete("brief").unwrap();
        }
        let report = if step == 4 { backup.backup_full() } else { backup.backup_now() }.unwrap();
        assert_eq!(report.kind == BackupKind::Full, step == 0 || step == 4, "{report}");
        made.push(Made { file: report.file, bridge: report.bridge, held: of_db(&db) });
    }
    assert_eq!(made.len(), 6);
    made
}

#[test]
fn a_chain_written_here_is_loaded_by_the_real_dictdb_record_for_record() {
    let dir = tempfile::tempdir().unwrap();
    let made = write_chain(dir.path());
    let files = |range: std::ops::Range<usize>| made[range].iter().map(|made| made.file.clone()).collect::<Vec<_>>();
    let bridge = made[4].bridge.clone().unwrap();

    // The first full backup, its deltas, and the one that leads over to the second.
    let mut first = files(0..4);
    first.push(bridge.clone());
    let Some(stages) = load_there(&first) else { return };
    let db = DictDb::load(&first[0]).unwrap();
    for (n, (stage, made)) in stages.iter().zip(&made).enumerate() {
        assert_same(&stage.tables, &made.held, &format!("{}", first[n].display()));
        if n > 0 {
            assert_eq!(db.apply_delta(&first[n]).unwrap(), stage.affected, "both count alike");
        }
    }

    // The second and its deltas.
    let second = files(4..6);
    for (stage, made) in load_there(&second).unwrap().iter().zip(&made[4..]) {
        assert_same(&stage.tables, &made.held, &format!("{}", made.file.display()));
    }

    // DictDB's guide applies all deltas by their names, or all that are newer than the full backup: both come to the
    // same, the bridge included, where records lose no fields.
    let mut by_name = files(1..4);
    by_name.extend([bridge.clone(), made[5].file.clone()]);
    by_name.sort();
    by_name.insert(0, made[4].file.clone());
    for recipe in [vec![made[4].file.clone(), bridge, made[5].file.clone()], by_name] {
        let stages = load_there(&recipe).unwrap();
        assert_same(&stages.last().unwrap().tables, &made[5].held, "DictDB's recipe");
    }
}

#[test]
fn what_the_real_dictdb_saves_of_a_file_of_ours_comes_back_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let db = DictDb::new();
    db.create_table("quakes", "id").unwrap().insert_many(feed()).unwrap();
    let odd = db.create_table("odd", "id").unwrap();
    odd.insert_many(odd_records(0)).unwrap();
    let kinds = [
        ("s", FieldType::Str),
        ("i", FieldType::Int),
        ("f", FieldType::Float),
        ("b", FieldType::Bool),
        ("l", FieldType::List),
        ("d", FieldType::Dict),
    ];
    let strict = db.create_table("strict", TableDefinition::new("s").schema(Schema::new(kinds))).unwrap();
    strict.insert(record! { "s": "x", "i": 2, "f": 2.0, "b": false, "l": [], "d": {} }).unwrap();
    db.create_table("empty", "id").unwrap();

    let [full, again, delta, changed] = ["full", "again", "delta", "changed"].map(|name| dir.path().join(name));
    db.save(&full, BackupFormat::Json).unwrap();
    if venv::run("save_again.py", &[&full, &again, &delta, &changed]).is_none() {
        return;
    }
    let loaded = DictDb::load(&again).unwrap();
    assert_same(&of_db(&loaded), &of_db(&db), "saved again");
    assert_eq!(loaded.digest(), db.digest());

    // A delta of the real one, onto ours and onto its own.
    let expected = oracle::tables(&read_json(&changed)["tables"]);
    for base in [&full, &again] {
        let loaded = DictDb::load(base).unwrap();
        assert_eq!(loaded.apply_delta(&delta).unwrap(), 4);
        assert_eq!(loaded.table("odd").unwrap().get(3).unwrap(), Some(record! { "id": 3 }), "not merged: what it held");
        assert_same(&of_db(&loaded), &expected, "changed there");
    }
    let record = DictDb::load(&changed).unwrap().table("odd").unwrap().get(900).unwrap().unwrap();
    assert_eq!(record.get("small"), Some(&Value::Float(5e-324)));
    assert_eq!((record.get("whole"), record.get("int")), (Some(&Value::Float(2.0)), Some(&Value::Int(2))));
}

/// What is lost on the way to DictDB 1.11, because it has nothing to hold it. A full backup loses none but the next
/// automatic key.
#[test]
fn what_dictdb_1_11_does_not_take_from_our_json_is_what_the_readme_says() {
    let dir = tempfile::tempdir().unwrap();
    let db = DictDb::new();
    let users = db.create_table("users", "id").unwrap();
    users.insert_many([record! { "id": 1, "a": 1, "b": 2 }, record! { "id": 2 }, record! { "id": 3 }]).unwrap();
    users.delete(3).unwrap();
    db.create_table("going", "id").unwrap().insert(record! { "id": 1 }).unwrap();
    db.create_table("remade", "id").unwrap().insert(record! { "id": 1, "old": true }).unwrap();
    let backup = BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap();
    let full = backup.backup_now().unwrap().file;

    users.replace(record! { "id": 1, "a": 9 }).unwrap();
    users.insert(record! {}).unwrap();
    db.drop_table("going").unwrap();
    db.drop_table("remade").unwrap();
    db.create_table("remade", "id").unwrap().insert(record! { "id": 2 }).unwrap();
    db.create_table("new", "id").unwrap().insert(record! { "id": 1 }).unwrap();
    let delta = backup.backup_now().unwrap().file;
    let after = backup.backup_full().unwrap().file;

    let Some(stages) = load_there(&[full, delta]) else { return };
    let records =
        |stage: &Stage, table: &str| -> Vec<String> { stage.tables[table].records.values().cloned().collect() };
    let next_key = |stage: &Stage| stage.json["tables"]["users"]["next_key"].as_u64().unwrap();
    let [before, patched] = stages.as_slice() else { panic!("two files, two stages") };
    assert_eq!(next_key(before), 3, "the key of the deleted record is given again; here it would be 4");
    assert_eq!(records(patched, "users")[0], r#"{"id":1,"a":9,"b":2}"#, "a field taken away by `replace` stays");
    assert_eq!(records(patched, "users")[2], r#"{"id":4}"#);
    assert_eq!(next_key(patched), 3, "records of a delta do not raise the next automatic key");
    assert_eq!(records(patched, "going"), [r#"{"id":1}"#], "a dropped table stays");
    assert_eq!(records(patched, "remade"), [r#"{"id":1,"old":true}"#, r#"{"id":2}"#], "and so do its records");
    assert!(!patched.tables.contains_key("new"), "a table made after the full backup is passed over");

    let whole = load_there(&[after]).unwrap();
    assert_same(&whole[0].tables, &of_db(&db), "a full backup holds it all");
    assert_eq!(next_key(&whole[0]), 5);
}

#[test]
fn what_json_cannot_hold_is_refused_by_name_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let db = DictDb::new();
    let table = db.create_table("t", "id").unwrap();
    let backup = BackupManager::builder(&db, dir.path()).build().unwrap();
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        table.upsert(record! { "id": 7, "deep": [{ "x": number }] }).unwrap();
        let error = backup.backup_now().unwrap_err();
        assert!(matches!(&error, Error::NotRepresentable { table, key, .. } if table == "t" && *key == Key::from(7)));
        assert!(error.to_string().contains("deep"), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
