//! What the API promises, one test each.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use dictdb::{
    BackupFormat, BackupKind, BackupManager, Commit, Commits, DictDb, Error, FieldType, Key, LoadOptions, ManualClock,
    Mutation, Record, Records, RecordsAs, RestoreOptions, Schema, Seq, Snapshot, Table, TableDefinition, TableView,
    Timestamp, TypedTable, Upserted, Value, record, restore,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: Option<i64>,
    name: String,
}

fn user(id: impl Into<Option<i64>>, name: &str) -> User {
    User { id: id.into(), name: name.to_owned() }
}

fn users() -> (DictDb, Table) {
    let db = DictDb::new();
    let table = db.create_table("users", "id").unwrap();
    (db, table)
}

fn with_schema(db: &DictDb) -> Table {
    let schema = Schema::new([("id", FieldType::Int), ("name", FieldType::Str)]);
    db.create_table("strict", TableDefinition::new("id").schema(schema)).unwrap()
}

fn keys(records: impl Iterator<Item = (Key, Record)>) -> Vec<i64> {
    records.map(|(key, _)| if let Key::Int(n) = key { n } else { panic!("{key}") }).collect()
}

#[test]
fn handles_are_send_sync_and_clone() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    check::<DictDb>();
    check::<Table>();
    check::<TypedTable<User>>();
    check::<Snapshot>();
    check::<TableView>();
    check::<Records>();
    check::<RecordsAs<User>>();
    check::<Commits>();
    check::<Commit>();
    check::<RestoreOptions>();
    fn shared<T: Send + Sync + 'static>() {}
    shared::<BackupManager>();
    shared::<Error>();
    // Also of a type that is neither.
    check::<TypedTable<std::rc::Rc<()>>>();
}

#[test]
fn a_clone_is_the_same_database_on_any_thread() {
    let (db, users) = users();
    let clone = db.clone();
    std::thread::spawn(move || clone.table("users").unwrap().insert(record! { "id": 1 }).unwrap()).join().unwrap();
    assert!(users.contains_key(1).unwrap());
}

#[test]
fn a_transaction_reads_its_own_writes_and_nobody_else_does_before_it_commits() {
    let (db, users) = users();
    users.insert(record! { "id": 1, "name": "Ann" }).unwrap();
    let seq = db.seq();
    let kept = db.transaction(|tx| {
        let inside = tx.table("users")?;
        assert_eq!(inside.insert(record! { "name": "Bo" })?, 2.into());
        inside.update(1, record! { "age": 41 })?;
        assert_eq!(inside.get(1)?.unwrap().to_string(), r#"{"id": 1, "name": "Ann", "age": 41}"#);
        assert_eq!((inside.len()?, inside.contains_key(2)?), (2, true));
        assert!(inside.delete(1)?);
        assert_eq!(keys(inside.iter()?), [2]);
        let made = tx.create_table("made", "id")?;
        assert_eq!(made.upsert(record! { "id": "x" })?, ("x".into(), Upserted::Inserted));
        assert_eq!(tx.table_names(), ["made", "users"]);
        assert_eq!(tx.typed::<User>("users")?.get(2)?, Some(user(2, "Bo")));
        // Readers, here and on other threads, see the state before it.
        assert_eq!((users.len()?, users.contains_key(1)?), (1, true));
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(db.table_names(), ["users"])).join().unwrap());
        tx.drop_table("users")?;
        assert!(matches!(inside.len(), Err(Error::NoSuchTable { .. })));
        tx.create_table("users", "id")?.insert(record! { "name": "Cy" })
    });
    assert_eq!(kept.unwrap(), 1.into(), "a table made again counts its keys anew");
    assert_eq!(db.seq().since(seq), 1, "all of it is one commit");
    assert_eq!(users.get(1).unwrap().unwrap()["name"], "Cy");
}

#[test]
fn a_transaction_leaves_nothing_on_an_error_or_a_panic_and_writing_goes_on() {
    let (db, users) = users();
    users.insert(record! { "id": 1 }).unwrap();
    let before = (db.seq(), db.digest(), db.table_names());
    let spoil = |tx: &dictdb::Transaction<'_>| {
        tx.table("users")?.delete(1)?;
        tx.table("users")?.insert(record! { "id": 77 })?;
        tx.create_table("other", "id")?.insert(record! { "id": 1 })?;
        Ok::<_, Error>(())
    };
    let failed = db.transaction(|tx| {
        spoil(tx)?;
        tx.table("users")?.insert(record! { "id": 77 }).map(|_| ())
    });
    assert!(matches!(failed, Err(Error::DuplicateKey { .. })));
    assert_eq!((db.seq(), db.digest(), db.table_names()), before);

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        db.transaction(|tx| {
            spoil(tx)?;
            resume_unwind(Box::new("in the middle"));
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok::<(), Error>(())
        })
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"in the middle"));
    assert_eq!((db.seq(), db.digest(), db.table_names()), before);
    // The writer's lock was given back, and the key that the transaction took was too.
    assert_eq!(users.insert(record! {}).unwrap(), 2.into());
}

#[test]
fn a_failed_operation_in_a_transaction_changes_nothing_and_the_rest_commits() {
    let (db, users) = users();
    db.transaction(|tx| {
        let users = tx.table("users")?;
        users.insert(record! { "id": 1 })?;
        assert!(matches!(users.insert(record! { "id": 1 }), Err(Error::DuplicateKey { .. })));
        assert!(matches!(users.update(5, record! {}), Err(Error::NoSuchRecord { .. })));
        assert!(matches!(tx.drop_table("none"), Err(Error::NoSuchTable { .. })));
        // As documented: the records before the one that does not fit are part of the transaction.
        assert!(users.insert_many([record! { "id": 2 }, record! { "id": 1 }, record! { "id": 3 }]).is_err());
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!(keys(users.iter().unwrap()), [1, 2]);
}

#[test]
fn an_empty_transaction_is_no_commit() {
    let (db, users) = users();
    let seq = db.seq();
    db.transaction(|tx| tx.table("users").map(|_| ())).unwrap();
    assert!(!users.delete(5).unwrap());
    assert_eq!(users.insert_many(Vec::<Record>::new()).unwrap(), []);
    assert_eq!(db.seq(), seq);
}

#[test]
fn a_write_past_the_transaction_is_an_error_and_no_deadlock() {
    let (db, users) = users();
    let (other, other_table) = self::users();
    let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::NestedWrite)), "{result:?}");
    db.transaction(|tx| {
        refused(users.insert(record! {}).map(drop));
        refused(users.insert_many([record! {}]).map(drop));
        refused(users.upsert(record! { "id": 1 }).map(drop));
        refused(users.update(1, record! {}).map(drop));
        refused(users.replace(record! { "id": 1 }).map(drop));
        refused(users.delete(1).map(drop));
        refused(db.create_table("x", "id").map(drop));
        refused(db.drop_table("users"));
        refused(db.transaction(|_| Ok(())));
        // Another database has another writer; reading is never refused.
        other_table.insert(record! { "id": 1 })?;
        assert_eq!(db.snapshot().table_names(), ["users"]);
        tx.table("users")?.insert(record! { "id": 9 })
    })
    .unwrap();
    assert_eq!((other.seq(), keys(users.iter().unwrap())), (Seq::new(2), vec![9]));
    users.insert(record! {}).unwrap();
}

#[test]
fn insert_many_is_one_commit_all_or_nothing() {
    let (db, users) = users();
    let typed = db.typed::<User>("users").unwrap();
    let keys_given = users.insert_many([record! { "id": 5 }, record! {}, record! { "id": "a" }]).unwrap();
    assert_eq!(keys_given, [Key::from(5), 6.into(), "a".into()]);
    let before = (db.seq(), db.digest());
    assert_eq!(before.0, Seq::new(2));
    for bad in [record! { "id": 5 }, record! { "id": 20 }, record! { "id": true }] {
        let refused = users.insert_many([record! { "id": 20 }, record! {}, bad]);
        assert!(matches!(refused, Err(Error::DuplicateKey { .. } | Error::InvalidKey { .. })));
        assert_eq!((db.seq(), db.digest()), before);
    }
    // Also one so large that it is made on a copy.
    let mut many: Vec<Record> = (100..6_000).map(|id| record! { "id": id }).collect();
    many.push(record! { "id": 5 });
    assert!(matches!(users.insert_many(many), Err(Error::DuplicateKey { .. })));
    assert_eq!((db.seq(), db.digest()), before);
    assert!(typed.insert_many(&[user(30, "x"), user(5, "y")]).is_err());
    assert_eq!((db.seq(), db.digest()), before);
    assert_eq!(typed.insert_many(&[user(None, "x"), user(30, "y")]).unwrap(), [Key::from(7), 30.into()]);
}

#[test]
fn automatic_keys_never_repeat_after_delete_restart_or_restore() {
    for format in [BackupFormat::Json, BackupFormat::Binary] {
        let dir = tempfile::tempdir().unwrap();
        let (db, table) = users();
        assert_eq!(table.insert(record! {}).unwrap(), 1.into());
        assert_eq!(table.insert(record! { "id": 10 }).unwrap(), 10.into());
        assert_eq!(table.insert(record! { "id": -4 }).unwrap(), (-4).into());
        assert_eq!(table.insert(record! { "id": null, "a": 1 }).unwrap(), 11.into());
        assert_eq!(table.get(11).unwrap().unwrap().keys().collect::<Vec<_>>(), ["id", "a"], "null is filled in place");
        assert!(table.delete(11).unwrap());
        assert_eq!(table.insert(record! { "a": 1 }).unwrap(), 12.into());
        assert_eq!(table.get(12).unwrap().unwrap().keys().collect::<Vec<_>>(), ["a", "id"], "else it comes last");
        let manager = BackupManager::builder(&db, dir.path()).file_format(format).incremental(true).build().unwrap();
        table.delete(12).unwrap();
        manager.backup_full().unwrap();
        assert_eq!(restore(dir.path()).unwrap().0.table("users").unwrap().insert(record! {}).unwrap(), 13.into());
        // Taken and given up again between two backups: only the counter shows it.
        assert_eq!(table.insert(record! {}).unwrap(), 13.into());
        table.delete(13).unwrap();
        manager.backup_delta().unwrap();
        let (restored, report) = restore(dir.path()).unwrap();
        assert_eq!(report.deltas.len(), 1);
        assert_eq!(restored.table("users").unwrap().insert(record! {}).unwrap(), 14.into());
        // And after a restart of the restored one.
        let file = dir.path().join("saved");
        let restored_table = restored.table("users").unwrap();
        restored_table.delete(14).unwrap();
        restored.save(&file, format).unwrap();
        assert_eq!(DictDb::load(&file).unwrap().table("users").unwrap().insert(record! {}).unwrap(), 15.into());
    }
}

#[test]
fn automatic_keys_end_where_the_integers_do() {
    let (_, table) = users();
    table.insert(record! { "id": i64::MAX - 1 }).unwrap();
    assert_eq!(table.insert(record! {}).unwrap(), i64::MAX.into());
    table.delete(i64::MAX).unwrap();
    assert!(matches!(table.insert(record! {}), Err(Error::Exhausted { .. })));
    assert_eq!(table.insert(record! { "id": 1 }).unwrap(), 1.into(), "a key of one's own is still taken");
}

/// Every way in which a record can come into a table that refuses it, its key being 1.
fn every_write(db: &DictDb, table: &str, bad: &Record, check: &dyn Fn(&str, Result<(), Error>)) {
    let handle = db.table(table).unwrap();
    check("insert", handle.insert(bad.clone()).map(drop));
    check("insert_many", handle.insert_many([bad.clone()]).map(drop));
    check("upsert", handle.upsert(bad.clone()).map(drop));
    check("replace", handle.replace(bad.clone()).map(drop));
    let typed = db.typed::<serde_json::Value>(table).unwrap();
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(&bad.to_string()) {
        check("typed insert", typed.insert(&json).map(drop));
        check("typed insert_many", typed.insert_many([&json]).map(drop));
        check("typed upsert", typed.upsert(&json).map(drop));
        check("typed replace", typed.replace(&json).map(drop));
    }
    db.transaction(|tx| {
        let inside = tx.table(table)?;
        check("transaction insert", inside.insert(bad.clone()).map(drop));
        check("transaction insert_many", inside.insert_many([bad.clone()]).map(drop));
        check("transaction upsert", inside.upsert(bad.clone()).map(drop));
        check("transaction replace", inside.replace(bad.clone()).map(drop));
        Ok::<_, Error>(())
    })
    .unwrap();
}

#[test]
fn a_schema_is_enforced_on_every_way_to_write_and_after_restore() {
    let bad = [
        record! { "id": 1 },
        record! { "id": 1, "name": 7 },
        record! { "id": 1, "name": null },
        record! { "id": 1, "name": "x", "more": 1 },
        record! { "id": "1", "name": "x" },
    ];
    let check_all = |db: &DictDb| {
        let before = (db.seq(), db.digest());
        for bad in &bad {
            every_write(db, "strict", bad, &|way, result| {
                assert!(matches!(result, Err(Error::SchemaViolation { .. })), "{way} of {bad}: {result:?}");
            });
        }
        let table = db.table("strict").unwrap();
        for changes in [record! { "name": 7 }, record! { "more": 1 }, record! { "name": null }] {
            assert!(matches!(table.update(1, changes.clone()), Err(Error::SchemaViolation { .. })), "{changes}");
            let inside = db.transaction(|tx| tx.table("strict")?.update(1, changes.clone()));
            assert!(matches!(inside, Err(Error::SchemaViolation { .. })), "{changes}");
        }
        assert_eq!((db.seq(), db.digest()), before, "a refused record leaves nothing");
        table.update(1, record! { "name": "Bo" }).unwrap();
        table.update(1, record! { "name": "Ann" }).unwrap();
    };
    let db = DictDb::new();
    with_schema(&db).insert(record! { "id": 1, "name": "Ann" }).unwrap();
    check_all(&db);
    for format in [BackupFormat::Json, BackupFormat::Binary] {
        let dir = tempfile::tempdir().unwrap();
        let manager = BackupManager::builder(&db, dir.path()).file_format(format).incremental(true).build().unwrap();
        manager.backup_full().unwrap();
        check_all(&restore(dir.path()).unwrap().0);
        // Also a table that only a delta knows of.
        db.drop_table("strict").unwrap();
        with_schema(&db).insert(record! { "id": 1, "name": "Ann" }).unwrap();
        manager.backup_delta().unwrap();
        let restored = restore(dir.path()).unwrap().0;
        assert_eq!(restored.digest(), db.digest());
        check_all(&restored);
    }
}

#[test]
fn a_definition_that_cannot_be_used_is_refused() {
    let db = DictDb::new();
    for (what, schema) in [
        ("a list for a key", Schema::new([("id", FieldType::List)])),
        ("a name twice", Schema::new([("id", FieldType::Int), ("a", FieldType::Int), ("a", FieldType::Int)])),
    ] {
        let made = db.create_table("t", TableDefinition::new("id").schema(schema));
        assert!(matches!(made, Err(Error::InvalidDefinition { .. })), "{what}");
    }
    assert!(matches!(db.create_table("t", "x".repeat(65_537)), Err(Error::InvalidDefinition { .. })));
    assert!(matches!(db.create_table(&"x".repeat(65_537), "id"), Err(Error::TooLarge { .. })));
    assert_eq!((db.seq(), db.table_names().len()), (Seq::ZERO, 0));
    db.create_table(&"x".repeat(65_536), "x".repeat(65_536)).unwrap();
}

#[test]
fn what_is_no_key_is_refused_on_every_way_to_write() {
    let (db, table) = users();
    table.insert(record! { "id": 1 }).unwrap();
    let before = (db.seq(), db.digest());
    for no_key in [
        Value::Bool(true),
        Value::Float(1.0),
        Value::UInt(1 << 63),
        Value::List(vec![]),
        Value::Dict(record! {}),
        Value::Str("x".repeat(65_537)),
    ] {
        every_write(&db, "users", &record! { "id": no_key.clone() }, &|way, result| {
            assert!(matches!(result, Err(Error::InvalidKey { .. })), "{way} with a {}: {result:?}", no_key.kind());
        });
        assert!(matches!(table.update(1, record! { "id": no_key }), Err(Error::InvalidKey { .. })));
    }
    // Replace needs to be told which; update does not move a record.
    assert!(matches!(table.replace(record! { "id": null }), Err(Error::InvalidKey { .. })));
    assert!(matches!(table.replace(record! {}), Err(Error::InvalidKey { .. })));
    assert!(matches!(table.update(1, record! { "id": 2 }), Err(Error::InvalidKey { .. })));
    assert!(matches!(table.update(1, record! { "id": null }), Err(Error::InvalidKey { .. })));
    assert_eq!((db.seq(), db.digest()), before);
    // The borders of what is one.
    let longest = "x".repeat(65_536);
    for key in [Key::from(i64::MIN), i64::MAX.into(), "".into(), longest.into()] {
        assert_eq!(table.insert(record! { "id": &key }).unwrap(), key);
        assert!(table.contains_key(&key).unwrap());
    }
    assert_eq!(table.insert(Record::from([("id", Value::UInt(7))])).unwrap(), 7.into(), "a small u64 is an integer");
}

#[test]
fn upsert_replaces_the_whole_record_and_update_merges_in_place() {
    let (_, table) = users();
    table.insert(record! { "a": 1, "id": 1, "b": 2 }).unwrap();
    let now = table.update(1, record! { "b": null, "c": 3, "id": 1 }).unwrap();
    assert_eq!(now.to_string(), r#"{"a": 1, "id": 1, "b": null, "c": 3}"#);
    assert_eq!(table.upsert(record! { "c": 1, "id": 1 }).unwrap(), (1.into(), Upserted::Replaced));
    assert_eq!(table.get(1).unwrap().unwrap().to_string(), r#"{"c": 1, "id": 1}"#);
    assert_eq!(table.upsert(record! { "c": 1 }).unwrap(), (2.into(), Upserted::Inserted));
    assert!(matches!(table.replace(record! { "id": 9 }), Err(Error::NoSuchRecord { .. })));
}

#[test]
fn records_are_at_most_100_levels_deep() {
    let (db, table) = users();
    let nested = |levels: usize| {
        let value = (1..levels).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        record! { "id": 1, "v": value }
    };
    for levels in [101, 102, 500] {
        let refused = table.insert(nested(levels));
        assert!(matches!(refused, Err(Error::Encode { .. })), "{levels}");
    }
    assert_eq!(db.seq(), Seq::new(1));
    table.insert(nested(100)).unwrap();
    for format in [BackupFormat::Json, BackupFormat::Binary] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep");
        db.save(&file, format).unwrap();
        assert_eq!(DictDb::load(&file).unwrap().digest(), db.digest());
    }
}

#[test]
fn a_snapshot_and_an_iterator_do_not_see_later_writes() {
    let (db, table) = users();
    table.insert_many((0..1_000).map(|id| record! { "id": id })).unwrap();
    let (snapshot, digest) = (db.snapshot(), db.digest());
    let mut records = table.iter().unwrap();
    assert_eq!(records.next().unwrap().0, 0.into());
    (0..1_000).step_by(2).for_each(|id| assert!(table.delete(id).unwrap()));
    table.upsert(record! { "id": 501, "new": true }).unwrap();
    table.insert(record! { "id": 5_000 }).unwrap();
    db.create_table("later", "id").unwrap();
    db.drop_table("users").unwrap();
    assert_eq!(keys(records), (1..1_000).collect::<Vec<_>>());
    assert_eq!((snapshot.digest(), snapshot.table_names()), (digest, vec!["users".to_owned()]));
    let view = snapshot.table("users").unwrap();
    assert_eq!((view.len(), snapshot.record_count()), (1_000, 1_000));
    assert_eq!(view.get(501), Some(record! { "id": 501 }));
    assert!(!view.contains_key(5_000));
}

#[test]
fn iterators_meet_in_the_middle_whatever_the_steps() {
    let (_, table) = users();
    table.insert_many((0..700).map(|id| record! { "id": id })).unwrap();
    let all: Vec<i64> = (0..700).collect();
    assert_eq!(keys(table.iter().unwrap()), all);
    assert_eq!(keys(table.iter().unwrap().rev()), all.iter().rev().copied().collect::<Vec<_>>());
    // More than is fetched at a time from one side, less from the other.
    for from_front in [0, 1, 127, 128, 129, 350, 699, 700] {
        for (from, to) in [(0, 700), (3, 697), (100, 101), (5, 5)] {
            let mut records = table.range(from..to).unwrap();
            let front = keys(records.by_ref().take(from_front));
            let mut found = keys(records.by_ref().rev());
            found.extend(front.iter().rev());
            found.reverse();
            assert_eq!(found, (from..to).collect::<Vec<_>>(), "{from_front} of {from}..{to}");
            assert!(records.next().is_none() && records.next_back().is_none());
        }
    }
    let mut records = table.iter().unwrap();
    for n in 0..350 {
        assert_eq!(records.next().unwrap().0, n.into());
        assert_eq!(records.next_back().unwrap().0, (699 - n).into());
    }
    assert!(records.next_back().is_none() && records.next().is_none());
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
fn a_range_that_ends_before_it_begins_is_empty() {
    use std::ops::Bound::{Excluded, Included};
    let (_, table) = users();
    table.insert_many((0..10).map(|id| record! { "id": id })).unwrap();
    table.insert_many([record! { "id": "a" }, record! { "id": "b" }]).unwrap();
    assert_eq!(table.range(5..3).unwrap().count(), 0);
    assert_eq!(table.range(5..=3).unwrap().count(), 0);
    assert_eq!(table.range(5..5).unwrap().count(), 0);
    assert_eq!(table.range(5..=5).unwrap().count(), 1);
    assert_eq!(table.range((Excluded(5), Excluded(5))).unwrap().count(), 0);
    assert_eq!(table.range((Excluded(5), Included(5))).unwrap().rev().count(), 0);
    assert_eq!(table.range((Excluded(5), Excluded(6))).unwrap().rev().count(), 0);
    assert_eq!(table.range("z".."a").unwrap().rev().count(), 0);
    assert_eq!(table.range(Key::from("a")..Key::from(3)).unwrap().count(), 0, "strings come behind the integers");
    assert_eq!(table.range(Key::from(8)..Key::from("b")).unwrap().count(), 3);
    assert_eq!(table.range("a"..).unwrap().count(), 2);
    assert_eq!(keys(table.range(..3).unwrap()), [0, 1, 2]);
    assert_eq!(table.range(100..200).unwrap().count(), 0);
}

#[test]
fn a_range_of_strings_has_no_integers_in_it_whichever_way_it_is_walked() {
    let (db, table) = users();
    table.insert_many((0..200).map(|id| record! { "id": id })).unwrap();
    assert_eq!((table.range("a"..).unwrap().count(), table.range("a"..).unwrap().rev().count()), (0, 0));
    assert_eq!((table.range(..="a").unwrap().count(), table.range(..="a").unwrap().rev().count()), (200, 200));
    let view = table.view().unwrap();
    assert_eq!(
        (view.refs("a"..).count(), view.refs(.."a").count(), view.refs(Key::from(198)..="a".into()).count()),
        (0, 200, 2)
    );
    let inside = db.transaction(|tx| {
        tx.table("users")?.insert(record! { "id": "b" })?;
        Ok::<_, Error>((
            keys(tx.table("users")?.range(Key::from(197)..="a".into())?),
            tx.table("users")?.range("a"..)?.count(),
        ))
    });
    assert_eq!(inside.unwrap(), (vec![197, 198, 199], 1));
}

#[test]
fn typed_and_dynamic_handles_serve_the_same_table() {
    let (db, table) = users();
    let typed = db.typed::<User>("users").unwrap();
    assert_eq!(typed.insert(&user(None, "Ann")).unwrap(), 1.into());
    assert_eq!(table.get(1).unwrap().unwrap().to_string(), r#"{"id": 1, "name": "Ann"}"#);
    table.insert(record! { "id": 5, "name": "Bo", "more": [1] }).unwrap();
    assert_eq!(typed.get(5).unwrap(), Some(user(5, "Bo")));
    assert_eq!(typed.upsert(&user(5, "Cy")).unwrap(), (5.into(), Upserted::Replaced));
    assert_eq!(typed.replace(&user(1, "Di")).unwrap(), 1.into());
    assert!(matches!(typed.replace(&user(None, "x")), Err(Error::InvalidKey { .. })));
    let all: Vec<User> = typed.iter().unwrap().map(|entry| entry.unwrap().1).collect();
    assert_eq!(all, [user(1, "Di"), user(5, "Cy")]);
    assert_eq!(typed.range(2..).unwrap().count(), 1);
    // A record that does not fit the type says which it is; the others are still read.
    table.insert(record! { "id": 3, "name": 7 }).unwrap();
    assert!(matches!(typed.get(3), Err(Error::Decode { key: Key::Int(3), .. })));
    let fits: Vec<bool> = typed.iter().unwrap().map(|entry| entry.is_ok()).collect();
    assert_eq!(fits, [true, false, true]);
    assert!(matches!(db.typed::<Vec<i64>>("users").unwrap().insert(&vec![1]), Err(Error::Encode { .. })));
    assert!(typed.delete(3).unwrap() && !typed.contains_key(3).unwrap() && typed.len().unwrap() == 2);
}

#[test]
fn a_serializer_may_itself_read_and_write_the_database() {
    struct Busy(Table);
    impl Serialize for Busy {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let inner = self.0.insert(record! { "inner": true }).map_err(serde::ser::Error::custom)?;
            let count = self.0.len().map_err(serde::ser::Error::custom)?;
            record! { "saw": &inner, "count": count }.serialize(serializer)
        }
    }
    let (db, table) = users();
    let key = db.typed::<Busy>("users").unwrap().insert(&Busy(table.clone())).unwrap();
    assert_eq!(key, 2.into());
    assert_eq!(table.get(2).unwrap().unwrap().to_string(), r#"{"saw": 1, "count": 1, "id": 2}"#);
}

#[test]
fn a_serializer_that_panics_changes_nothing_and_writing_goes_on() {
    struct Panics;
    impl Serialize for Panics {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            resume_unwind(Box::new("while serializing"))
        }
    }
    let (db, table) = users();
    let before = (db.seq(), db.digest());
    let typed = db.typed::<Panics>("users").unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| typed.insert(&Panics))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| typed.insert_many([&Panics]))).is_err());
    assert_eq!((db.seq(), db.digest()), before);
    table.insert(record! {}).unwrap();
}

#[test]
fn the_change_feed_tells_a_gap_from_what_is_yet_to_come() {
    let db = DictDb::builder().ring_bytes(500).build();
    let table = db.create_table("t", "id").unwrap();
    assert_eq!(db.commits_since(db.seq()).unwrap().count(), 0);
    (0..100).for_each(|n| drop(table.insert(record! { "n": n }).unwrap()));
    let last = db.seq();
    assert!(
        matches!(db.commits_since(Seq::new(102)), Err(Error::Ahead { wanted, last: l }) if wanted.get() == 102 && l == last)
    );
    let Err(Error::Gap { wanted, oldest }) = db.commits_since(Seq::ZERO) else {
        panic!("500 bytes hold no 100 commits")
    };
    assert_eq!(wanted, Seq::ZERO);
    // What it names as the oldest is there, and all behind it; one earlier is not.
    let held: Vec<Commit> = db.commits_since(Seq::new(oldest.get() - 1)).unwrap().collect();
    assert!(held.iter().map(|commit| commit.seq.get()).eq(oldest.get()..=last.get()) && !held.is_empty());
    assert!(matches!(&held[0].mutations[..], [Mutation::Put { table, key: Key::Int(_), .. }] if table == "t"));
    assert!(db.commits_since(Seq::new(oldest.get() - 2)).is_err());
    // A feed that was opened sees none of the later commits, and loses none to the ring.
    let feed = db.commits_since(Seq::new(oldest.get() - 1)).unwrap();
    (0..100).for_each(|n| drop(table.insert(record! { "n": n }).unwrap()));
    assert!(feed.eq(held));
    let none = DictDb::builder().ring_bytes(0).build();
    none.create_table("t", "id").unwrap();
    assert!(matches!(none.commits_since(Seq::ZERO), Err(Error::Gap { oldest, .. }) if oldest.get() == 2));
}

#[test]
fn a_handle_serves_the_table_that_was_made_again_under_its_name() {
    let (db, table) = users();
    let typed = db.typed::<User>("users").unwrap();
    table.insert(record! { "id": 7, "name": "Ann" }).unwrap();
    db.drop_table("users").unwrap();
    let gone = |result: Result<(), Error>| assert!(matches!(result, Err(Error::NoSuchTable { .. })), "{result:?}");
    gone(table.get(7).map(drop));
    gone(table.len().map(drop));
    gone(table.iter().map(drop));
    gone(table.definition().map(drop));
    gone(table.insert(record! {}).map(drop));
    gone(table.insert_many([record! {}]).map(drop));
    gone(table.upsert(record! {}).map(drop));
    gone(table.update(7, record! {}).map(drop));
    gone(table.replace(record! { "id": 7 }).map(drop));
    gone(table.delete(7).map(drop));
    gone(typed.get(7).map(drop));
    gone(typed.insert(&user(None, "x")).map(drop));
    gone(db.table("users").map(drop));
    gone(db.drop_table("users"));
    db.create_table("users", "name").unwrap();
    assert!(matches!(db.create_table("users", "id"), Err(Error::TableExists { .. })));
    assert_eq!(table.definition().unwrap().primary_key(), "name");
    assert_eq!(table.len().unwrap(), 0);
    assert_eq!(typed.insert(&user(7, "Ann")).unwrap(), "Ann".into());
}

fn incremental(db: &DictDb, dir: &std::path::Path) -> BackupManager {
    let builder = BackupManager::builder(db, dir).file_format(BackupFormat::Binary).incremental(true);
    builder.max_deltas_before_full(100).build().unwrap()
}

// Somebody loads an older full backup and goes on from there. Its delta in the same directory joins onto that very
// point, and so onto the new full backup made there; restore once applied it, and gave back what had been given up.
#[test]
fn commits_that_were_given_up_do_not_come_back_behind_a_newer_full_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table) = users();
    let manager = incremental(&db, dir.path());
    let full = manager.backup_full().unwrap().file;
    table.insert(record! { "id": 1, "given": "up" }).unwrap();
    manager.backup_delta().unwrap();
    let again = DictDb::load(full).unwrap();
    assert_eq!(incremental(&again, dir.path()).backup_now().unwrap().kind, BackupKind::Full);
    let (restored, report) = restore(dir.path()).unwrap();
    assert_eq!(report.point, again.snapshot().point(), "{report}");
    assert!(report.deltas.is_empty() && restored.table("users").unwrap().is_empty().unwrap(), "{report}");
}

// Two futures of one point: the database that made the backups went on, and so did one restored from them. The delta of
// the former once passed for covered by the full backup of the latter, as its seqs were lower.
#[test]
fn a_delta_of_another_future_of_the_same_point_is_not_taken_for_covered() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let clock = ManualClock::new(Timestamp::from_micros(1_000_000));
    let db = DictDb::builder().clock(clock.clone()).build();
    let table = db.create_table("users", "id").unwrap();
    let full = incremental(&db, dir.path()).backup_full().unwrap().file;
    std::fs::copy(&full, elsewhere.path().join(full.file_name().unwrap())).unwrap();

    let again = RestoreOptions::new().database(DictDb::builder().clock(clock.clone())).restore(dir.path()).unwrap().0;
    again.table("users").unwrap().insert_many([record! { "id": 1 }]).unwrap();
    again.table("users").unwrap().insert_many([record! { "id": 2 }]).unwrap();
    incremental(&again, dir.path()).backup_full().unwrap();

    clock.advance(std::time::Duration::from_secs(1));
    table.insert(record! { "id": 3 }).unwrap();
    let delta = incremental(&db, elsewhere.path()).backup_delta().unwrap();
    assert_eq!((delta.kind, delta.seq < again.seq()), (BackupKind::Delta, true));
    std::fs::copy(&delta.file, dir.path().join(delta.file.file_name().unwrap())).unwrap();

    let refused = restore(dir.path());
    assert!(matches!(&refused, Err(Error::MissingLink { .. })), "{refused:?}");
    let (earlier, report) = RestoreOptions::new().accept_earlier(true).restore(dir.path()).unwrap();
    assert_eq!((earlier.digest(), report.left_out.len()), (again.digest(), 1));
}

// Two empty deltas at one point, the second of a restored database: restore once applied the first one last, and ended
// in the history before.
#[test]
fn an_empty_delta_of_a_restored_database_leads_into_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table) = users();
    let manager = incremental(&db, dir.path());
    manager.backup_full().unwrap();
    table.insert(record! {}).unwrap();
    manager.backup_delta().unwrap();
    manager.backup_delta().unwrap();
    drop(manager);
    let again = restore(dir.path()).unwrap().0;
    let manager = incremental(&again, dir.path());
    assert_eq!(manager.backup_now().unwrap().kind, BackupKind::Delta);
    assert_eq!(restore(dir.path()).unwrap().1.point, again.snapshot().point());
    again.table("users").unwrap().insert(record! {}).unwrap();
    manager.backup_now().unwrap();
    assert_eq!(restore(dir.path()).unwrap().1.point, again.snapshot().point());
}

// A chain without a full backup, gone on with by a restored database: a manager made anew once took it for broken.
#[test]
fn a_chain_from_the_empty_database_goes_on_after_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table) = users();
    table.insert(record! {}).unwrap();
    assert_eq!(incremental(&db, dir.path()).backup_now().unwrap().base_seq, Some(Seq::ZERO));
    let again = restore(dir.path()).unwrap().0;
    for deltas in 2..5 {
        again.table("users").unwrap().insert(record! {}).unwrap();
        let manager = incremental(&again, dir.path());
        assert_eq!(manager.status().last_success.map(|last| last.seq.get() + 1), Some(again.seq().get()));
        assert_eq!(manager.backup_now().unwrap().kind, BackupKind::Delta);
        assert_eq!(manager.deltas_since_full(), deltas);
    }
    let (restored, report) = restore(dir.path()).unwrap();
    assert_eq!((report.full, restored.digest()), (None, again.digest()));
}

/// Swallows the error of a field that cannot be stored.
struct Sloppy;

impl Serialize for Sloppy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        let _ = map.serialize_entry("large", &u128::MAX);
        map.serialize_entry("id", &1)?;
        map.end()
    }
}

// Such a row was once stored with a name and no value: reading it panicked, and no backup of it could be read.
#[test]
fn a_record_whose_serialize_swallowed_an_error_is_refused_and_not_stored() {
    let (db, table) = users();
    let refused = db.typed::<Sloppy>("users").unwrap().insert(&Sloppy);
    assert!(matches!(&refused, Err(Error::Encode { problem, .. }) if problem.contains("swallowed")), "{refused:?}");
    assert!(table.is_empty().unwrap());
}

// Both write deltas of one history from where they last looked: restore once gave up at the newest full backup.
#[test]
fn two_managers_of_one_database_in_one_directory_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table) = users();
    let (one, two) = (incremental(&db, dir.path()), incremental(&db, dir.path()));
    let storage = dir.path().to_owned();
    one.backup_full().unwrap();
    // A full backup of the one comes out between the other's look at the directory and its file's own publication.
    let between = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (other, armed) = (one, between.clone());
    let racing = BackupManager::builder(&db, &storage)
        .file_format(BackupFormat::Binary)
        .incremental(true)
        .on_progress(move |_| {
            if armed.swap(false, std::sync::atomic::Ordering::Relaxed) {
                other.backup_full().unwrap();
            }
            std::ops::ControlFlow::Continue(())
        })
        .build()
        .unwrap();
    for n in 0..12 {
        table.insert(record! { "n": n }).unwrap();
        match n % 3 {
            0 => two.backup_now().unwrap(),
            _ => racing.backup_now().unwrap(),
        };
        let (restored, report) = restore(dir.path()).unwrap();
        assert_eq!(restored.digest(), db.digest(), "after {n}: {report}");
    }
    assert!(!between.load(std::sync::atomic::Ordering::Relaxed), "the race took place");
}

#[test]
fn a_backup_asked_for_inside_on_progress_is_refused_and_stop_and_notify_there_do_not_wait_for_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = users();
    let cell = std::sync::Arc::new(std::sync::OnceLock::<std::sync::Weak<BackupManager>>::new());
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (inside, outcomes) = (cell.clone(), seen.clone());
    let manager = BackupManager::builder(&db, dir.path())
        .min_backup_interval(std::time::Duration::ZERO)
        .on_progress(move |_| {
            let manager = inside.get().unwrap().upgrade().unwrap();
            let nested = matches!(manager.backup_now(), Err(Error::NestedBackup));
            let notified = format!("{:?}", manager.notify_change().unwrap());
            outcomes.lock().unwrap().push((nested, notified, manager.stop().is_ok()));
            std::ops::ControlFlow::Continue(())
        })
        .build()
        .unwrap();
    let manager = std::sync::Arc::new(manager);
    cell.set(std::sync::Arc::downgrade(&manager)).unwrap();
    db.table("users").unwrap().insert(record! {}).unwrap();
    manager.backup_full().unwrap();
    manager.start().unwrap();
    manager.backup_full().unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 2 && seen.iter().all(|(nested, _, stopped)| *nested && *stopped), "{seen:?}");
    assert_eq!((seen[0].1.as_str(), seen[seen.len() - 1].1.as_str()), ("Deferred", "Scheduled"));
}

#[test]
fn what_a_progress_callback_of_apply_delta_does_breaks_no_database_and_waits_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (db, users) = users();
    let manager = incremental(&db, dir.path());
    let full = manager.backup_full().unwrap().file;
    users.insert(record! { "name": "Ann" }).unwrap();
    let delta = manager.backup_delta().unwrap().file;

    let loaded = DictDb::load(&full).unwrap();
    let panicking = LoadOptions::new().on_progress(|_| panic!("of the user's"));
    let broken = catch_unwind(AssertUnwindSafe(|| loaded.apply_delta_with(&delta, &panicking)));
    assert!(broken.is_err());
    let inside = loaded.clone();
    let writing = LoadOptions::new().on_progress(move |_| {
        let refused = inside.table("users").unwrap().insert(record! {});
        assert!(matches!(refused, Err(Error::NestedWrite)), "{refused:?}");
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(loaded.apply_delta_with(&delta, &writing).unwrap(), 1);
    assert_eq!(loaded.table("users").unwrap().insert(record! {}).unwrap(), Key::Int(2));
}

#[test]
fn a_notified_change_whose_backup_failed_is_saved_by_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table) = users();
    let manager = BackupManager::new(&db, dir.path()).unwrap();
    table.insert(record! { "id": 1, "x": f64::NAN }).unwrap();
    assert!(manager.notify_change().is_err());
    assert!(manager.status().change_pending);
    table.update(1, record! { "x": 0 }).unwrap();
    assert!(manager.stop().unwrap().is_some());
    assert_eq!(restore(dir.path()).unwrap().0.digest(), db.digest());
}

// The base of a full backup once tied the two databases together, whichever was asked for.
#[test]
fn a_lineage_that_is_asked_for_never_gives_a_database_that_took_the_directory_over() {
    let dir = tempfile::tempdir().unwrap();
    let (old, table) = users();
    table.insert(record! { "id": "old" }).unwrap();
    incremental(&old, dir.path()).backup_full().unwrap();
    let (new, _) = users();
    let taken_over = incremental(&new, dir.path()).backup_full().unwrap();
    assert_eq!(restore(dir.path()).unwrap().0.digest(), new.digest());
    let asked = |db: &DictDb| RestoreOptions::new().lineage(db.lineage()).restore(dir.path());
    assert_eq!(asked(&old).unwrap().0.digest(), old.digest());
    assert_eq!(asked(&new).unwrap().0.digest(), new.digest());
    std::fs::write(&taken_over.file, "").unwrap();
    assert!(asked(&new).is_err());
}

// It once said that the histories there were unrelated, and to do what the caller had done.
#[test]
fn a_lineage_of_which_a_directory_has_nothing_is_told_with_those_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let (there, table) = users();
    table.insert(record! { "id": "there" }).unwrap();
    incremental(&there, dir.path()).backup_full().unwrap();
    let (elsewhere, _) = users();
    let error = RestoreOptions::new().lineage(elsewhere.lineage()).restore(dir.path()).unwrap_err();
    let (wanted, found) = (elsewhere.lineage(), there.lineage());
    let text = error.to_string();
    assert!(text.contains(&format!("no backup of lineage {wanted}, only of {found}")), "{text}");
    assert!(matches!(error, Error::SeveralHistories { wanted: Some(_), lineages, .. } if lineages == [found]));

    let (third, _) = users();
    let alone = tempfile::tempdir().unwrap();
    for db in [&third, &there] {
        let report = incremental(db, alone.path()).backup_full().unwrap();
        std::fs::rename(&report.file, dir.path().join(report.file.file_name().unwrap())).unwrap();
    }
    let text = restore(dir.path()).unwrap_err().to_string();
    assert!(text.contains(&third.lineage().to_string()) && text.contains(&found.to_string()), "{text}");
}

// Of the deltas that join the one that leads furthest was taken, and it was a dead end: the others were called a hole.
#[test]
fn of_two_deltas_begun_at_one_point_restore_takes_the_one_behind_which_the_chain_goes_on() {
    let (dir, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (db, table) = users();
    let add = |count: usize| (0..count).for_each(|_| drop(table.insert(record! { "name": "x" }).unwrap()));
    add(1);
    let first = incremental(&db, dir.path());
    let full = first.backup_full().unwrap().file;
    std::fs::copy(&full, beside.path().join(full.file_name().unwrap())).unwrap();
    // What two managers of one directory do that begin at the same time.
    let second = incremental(&db, beside.path());
    add(3);
    first.backup_delta().unwrap();
    add(2);
    let longer = second.backup_delta().unwrap().file;
    add(2);
    first.backup_delta().unwrap();
    std::fs::copy(&longer, dir.path().join(longer.file_name().unwrap())).unwrap();
    for _ in 0..3 {
        let (copy, report) = restore(dir.path()).unwrap();
        assert_eq!((copy.digest(), copy.seq()), (db.digest(), db.seq()), "{report}");
        assert!(!report.deltas.contains(&dir.path().join(longer.file_name().unwrap())), "{report}");
        add(5);
        first.backup_delta().unwrap();
    }
}

// A file of ours that had lost its first line was taken for one of DictDB 1.11, and so for one of another database.
#[test]
fn an_old_delta_that_was_written_anew_on_one_line_does_not_hinder_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table) = users();
    let manager = BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap();
    let mut reports = Vec::new();
    for full in [true, false, false] {
        table.insert(record! { "name": "x" }).unwrap();
        reports.push(if full { manager.backup_full() } else { manager.backup_delta() }.unwrap());
    }
    let anew = |file: &std::path::Path| {
        let text = std::fs::read_to_string(file).unwrap();
        std::fs::write(file, text.lines().map(str::trim).collect::<String>()).unwrap();
    };
    // What is needed is told as damaged.
    anew(&reports[2].file);
    let refused = restore(dir.path()).unwrap_err();
    assert!(matches!(&refused, Error::Corrupt { file, .. } if *file == reports[2].file), "{refused}");
    anew(&reports[0].file);
    // Behind another full backup none of them is.
    manager.backup_full().unwrap();
    let (copy, report) = restore(dir.path()).unwrap();
    assert_eq!((copy.digest(), report.fell_back), (db.digest(), false), "{report}");
}

/// Looks something up, and notes that it did, before it knows its key.
struct Found<F>(F);

impl<F: FnOnce()> From<Found<F>> for Key {
    fn from(found: Found<F>) -> Key {
        found.0();
        Key::from(1)
    }
}

#[test]
fn what_a_key_is_made_from_may_itself_use_the_database() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let db = DictDb::new();
        let table = db.create_table("t", "id").unwrap();
        let note = || Found(|| drop(table.insert(record! {}).unwrap()));
        assert!(table.contains_key(note()).unwrap());
        assert!(table.get(note()).unwrap().is_some() && table.read(note(), |_| ()).unwrap().is_some());
        assert!(table.delete(note()).unwrap());
        db.transaction(|tx| {
            let table = tx.table("t")?;
            let note = || Found(|| drop(table.insert(record! {}).unwrap()));
            assert!(!table.contains_key(note())?);
            assert!(!table.delete(note())?);
            table.get(note()).map(drop)
        })
        .unwrap();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(std::time::Duration::from_secs(30)).expect("it waits for itself");
}

/// Of a buffer that each thread has, and that is written down when the thread ends.
#[test]
fn tables_are_read_and_written_while_a_thread_ends() {
    struct AtTheEnd(Option<Table>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let Some(table) = self.0.take() else { return };
            table.insert(record! { "id": 2, "name": "at the end" }).unwrap();
            table.update(1, record! { "name": "new" }).unwrap();
            assert_eq!(table.get(1).unwrap().unwrap()["name"], "new");
        }
    }
    thread_local!(static BUFFER: std::cell::RefCell<AtTheEnd> = const { std::cell::RefCell::new(AtTheEnd(None)) });
    let (db, table) = users();
    std::thread::spawn(move || {
        // Made before anything that the crate keeps of a thread, so that it goes after that.
        BUFFER.with(|buffer| buffer.borrow_mut().0 = Some(table.clone()));
        table.insert(record! { "id": 1, "name": "old" }).unwrap();
        table.get(1).unwrap();
        db.typed::<User>("users").unwrap().insert(&user(3, "typed")).unwrap();
        db
    })
    .join()
    .map(|db| assert_eq!(db.table("users").unwrap().len().unwrap(), 3))
    .unwrap();
}

#[test]
fn handles_may_be_used_across_a_panic_that_somebody_catches() {
    let (db, table) = users();
    assert!(catch_unwind(|| table.insert(record! { "id": 1 }).map(|_| panic!("behind a write"))).is_err());
    assert!(catch_unwind(|| db.transaction(|_| -> Result<(), Error> { panic!("in a write") })).is_err());
    assert_eq!(table.len().unwrap(), 1);
}
