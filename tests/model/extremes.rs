//! Tables with very many fields, and very many tables.

use dictdb::{
    BackupFormat, DictDb, Error, FieldType, LoadOptions, MemoryStorage, Record, Schema, TableDefinition, Value,
};

/// Compared with each other one by one, these would take minutes.
#[test]
fn a_record_of_a_wide_schema_is_checked_and_restored_in_any_order_of_its_fields() {
    let name = |n: i64| format!("field {n:06}");
    let schema = Schema::new((0..60_000).map(|n| (name(n), FieldType::Int)));
    let dir = tempfile::tempdir().unwrap();
    for format in [BackupFormat::Binary, BackupFormat::Json] {
        let db = DictDb::new();
        let table = db.create_table("t", TableDefinition::new("id").schema(schema.clone())).unwrap();
        let key = ("id".to_owned(), Value::Int(1));
        let backwards: Record = (0..60_000).rev().map(|n| (name(n), Value::Int(n))).chain([key]).collect();
        table.insert(backwards.clone()).unwrap();
        let mut lacking = backwards;
        lacking.remove(&name(30_000));
        let error = table.upsert(lacking).unwrap_err();
        assert!(matches!(&error, Error::SchemaViolation { field, .. } if *field == name(30_000)), "{error}");
        let file = dir.path().join("wide");
        db.save(&file, format).unwrap();
        assert_eq!(DictDb::load(&file).unwrap().digest(), db.digest());
    }
}

#[test]
fn there_are_at_most_65536_tables_and_one_more_is_refused_wherever_it_comes_from() {
    let db = DictDb::new();
    db.transaction(|tx| (0..65_536).try_for_each(|n| tx.create_table(&n.to_string(), "id").map(drop))).unwrap();
    let before = db.digest();
    let refused = db.create_table("one more", "id").unwrap_err();
    assert!(matches!(&refused, Error::InvalidDefinition { table, .. } if table == "one more"), "{refused}");
    assert!(refused.to_string().contains("65536"), "{refused}");
    assert!(matches!(db.create_table("7", "id"), Err(Error::TableExists { .. })));
    assert_eq!(db.digest(), before);
    db.drop_table("7").unwrap();
    db.create_table("one more", "id").unwrap();

    let tables = |count: u32| {
        let tables: Vec<_> =
            (0..count).map(|n| format!(r#""{n}": {{"primary_key": "id", "schema": null, "records": []}}"#)).collect();
        let storage = MemoryStorage::new();
        storage.write("/full.json", format!(r#"{{"tables": {{{}}}}}"#, tables.join(", ")).into_bytes()).unwrap();
        DictDb::load_with("/full.json", &LoadOptions::new().storage(storage))
    };
    assert_eq!(tables(65_536).unwrap().table_names().len(), 65_536);
    let error = tables(65_537).unwrap_err();
    assert!(error.to_string().contains("no more than 65536 tables"), "{error}");
}
