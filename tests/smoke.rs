//! smoke
use dictdb::*;
use serde::{Deserialize, Serialize};
#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct User {
    id: Option<i64>,
    name: String,
    age: u32,
    tags: Vec<String>,
}

#[test]
fn round_trip() {
    for format in [BackupFormat::Json, BackupFormat::Binary] {
        let dir = tempfile::tempdir().unwrap();
        let db = DictDb::new();
        db.create_table("users", "id").unwrap();
        let users = db.typed::<User>("users").unwrap();
        for i in 0..1000 {
            users.insert(&User { id: None, name: format!("u{i}"), age: i, tags: vec!["a".into()] }).unwrap();
        }
        let m = BackupManager::builder(&db, dir.path())
            .file_format(format)
            .incremental(true)
            .max_deltas_before_full(3)
            .build()
            .unwrap();
        println!("{}", m.backup_now().unwrap());
        for k in 1..10 {
            users.delete(k).unwrap();
            db.create_table(&format!("t{k}"), "code")
                .unwrap()
                .insert(record! {"code": "x", "v": 1.5, "n": null})
                .unwrap();
            println!("{}", m.backup_now().unwrap());
            let (r, rep) = restore(dir.path()).unwrap();
            println!("{rep}");
            assert_eq!(r.digest(), db.digest());
            assert_eq!(r.seq(), db.seq());
            assert_eq!(
                users.insert(&User { id: None, name: "x".into(), age: 1, tags: vec![] }).unwrap(),
                r.typed::<User>("users")
                    .unwrap()
                    .insert(&User { id: None, name: "x".into(), age: 1, tags: vec![] })
                    .unwrap()
            );
        }
        println!("{}", m.backup_full().unwrap());
        println!("{:?} {}", m, m.status());
        drop(m);
        let (r, _) = restore(dir.path()).unwrap();
        let m = BackupManager::builder(&r, dir.path()).file_format(format).incremental(true).build().unwrap();
        r.drop_table("t1").unwrap();
        println!("{}", m.backup_now().unwrap());
        println!("{:?}", list_backups(dir.path()).unwrap().last());
        let (r2, rep) = restore(dir.path()).unwrap();
        println!("{rep}");
        assert_eq!(r.digest(), r2.digest());
    }
}

#[test]
fn legacy() {
    let (db, rep) = restore("tests/data/dictdb-1.11").unwrap();
    println!("{rep}");
    let want: serde_json::Value =
        serde_json::from_slice(&std::fs::read("tests/data/dictdb-1.11/expected.json").unwrap()).unwrap();
    for (name, t) in want.as_object().unwrap() {
        let table = db.table(name).unwrap();
        assert_eq!(table.definition().unwrap().primary_key(), t["primary_key"]);
        let recs = t["records"].as_array().unwrap();
        assert_eq!(table.len().unwrap(), recs.len());
        for r in recs {
            let k = &r[t["primary_key"].as_str().unwrap()];
            let key: Key = match k {
                serde_json::Value::String(s) => s.as_str().into(),
                n => n.as_i64().unwrap().into(),
            };
            let got = table.get(key).unwrap().unwrap();
            assert_eq!(serde_json::to_string(&got).unwrap(), serde_json::to_string(r).unwrap());
        }
    }
}
