//! What DictDB 1.11 makes of its files, retold in a few lines over plain JSON: no code of the crate.

use std::collections::BTreeMap;
use std::path::Path;

use dictdb::{DictDb, Record};
use serde_json::Value;

/// A table: its primary key, its schema (null where it has none), and each record as text by its key as text. Text,
/// so that types (2 or 2.0) and the order of fields count.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PlainTable {
    pub(crate) primary_key: String,
    pub(crate) schema: Value,
    pub(crate) records: BTreeMap<String, String>,
}

pub(crate) type Plain = BTreeMap<String, PlainTable>;

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The tables of a document with members `primary_key`, `records` and perhaps `schema`: a full backup's member
/// `tables`, or `expected.json`.
pub(crate) fn tables(json: &Value) -> Plain {
    let table = |(name, table): (&String, &Value)| {
        let primary_key = table["primary_key"].as_str().unwrap().to_owned();
        let records = table["records"].as_array().unwrap();
        let by_key: BTreeMap<String, String> =
            records.iter().map(|record| (record[&primary_key].to_string(), record.to_string())).collect();
        assert_eq!(by_key.len(), records.len(), "a key twice in {name}");
        (name.clone(), PlainTable { primary_key, schema: table["schema"].clone(), records: by_key })
    };
    json.as_object().unwrap().iter().map(table).collect()
}

/// DictDB's `apply_delta`: upserts merge, deletes remove, unknown tables are passed over. Gives the affected records.
/// (Here upserts replace, which comes to the same unless a record was deleted and inserted anew with fewer fields.)
pub(crate) fn apply_delta(plain: &mut Plain, delta: &Value) -> u64 {
    let mut affected = 0;
    for (name, changes) in delta["tables"].as_object().unwrap() {
        let Some(table) = plain.get_mut(name) else { continue };
        for upsert in changes["upserts"].as_array().unwrap() {
            let record = table.records.entry(upsert[&table.primary_key].to_string()).or_insert_with(|| "{}".to_owned());
            let mut fields: serde_json::Map<String, Value> = serde_json::from_str(record).unwrap();
            fields.extend(upsert.as_object().unwrap().clone());
            *record = serde_json::to_string(&fields).unwrap();
            affected += 1;
        }
        for key in changes["deletes"].as_array().unwrap() {
            affected += u64::from(table.records.remove(&key.to_string()).is_some());
        }
    }
    affected
}

/// What a database holds, in the same form.
pub(crate) fn of_db(db: &DictDb) -> Plain {
    let mut plain = Plain::new();
    for name in db.table_names() {
        let view = db.table(&name).unwrap().view().unwrap();
        let definition = view.definition();
        let schema = definition.schema_ref().map(|schema| {
            let fields = schema.fields().map(|(field, kind)| (field.to_owned(), kind.name().into()));
            Value::Object(fields.collect())
        });
        let text = |record: &Record| serde_json::to_string(record).unwrap();
        let key = |record: &Record| serde_json::to_string(&record[definition.primary_key()]).unwrap();
        let records = view.iter().map(|(_, record)| (key(&record), text(&record))).collect();
        let primary_key = definition.primary_key().to_owned();
        plain.insert(name, PlainTable { primary_key, schema: schema.unwrap_or(Value::Null), records });
    }
    plain
}

/// Fails with the first difference, not with megabytes of both.
#[track_caller]
pub(crate) fn assert_same(found: &Plain, expected: &Plain, what: &str) {
    let names = |plain: &Plain| plain.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{what}: tables");
    for (name, expected) in expected {
        let found = &found[name];
        assert_eq!(found.primary_key, expected.primary_key, "{what}: {name}");
        assert_eq!(found.schema.to_string(), expected.schema.to_string(), "{what}: schema of {name}");
        for key in found.records.keys().chain(expected.records.keys()) {
            assert_eq!(found.records.get(key), expected.records.get(key), "{what}: {name} {key}");
        }
    }
}
