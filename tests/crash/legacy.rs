//! A store made of what DictDB 1.11 wrote stands at seq 0, and not empty: a crash of its first commits takes none of that.

use dictdb::sim::{Budget, SimStorage};
use dictdb::{DictDb, Durability, RestoreOptions, record};

use crate::story::{BACKUPS, DATA, options};

const DOCUMENT: &str =
    r#"{"tables": {"users": {"primary_key": "id", "schema": null, "records": [{"id": 1}, {"id": 2}]}}}"#;

fn open(disk: &SimStorage, durability: Durability) -> Result<DictDb, String> {
    let db = options(disk.clone(), durability).open(DATA).map_err(|error| format!("does not open: {error}"))?;
    match db.table("users") {
        Ok(_) => Ok(db),
        Err(error) => Err(error.to_string()),
    }
}

/// The records that the store has, from 1 on.
fn count(db: &DictDb) -> i64 {
    let keys: Vec<_> = db.table("users").unwrap().iter().unwrap().map(|(key, _)| key).collect();
    assert!(keys.iter().cloned().eq((1..).map(dictdb::Key::from).take(keys.len())), "{keys:?}");
    keys.len() as i64
}

fn add(db: &DictDb, id: i64) {
    db.table("users").unwrap().insert(record! { "id": id, "text": "of some length" }).unwrap();
}

#[test]
fn a_store_made_of_a_backup_of_dictdb_1_11_keeps_its_records_through_a_crash_anywhere() {
    for durability in [Durability::Sync, Durability::Manual] {
        let disk = SimStorage::new();
        disk.write(format!("{BACKUPS}/dictdb_backup_1700000000_000000.json"), DOCUMENT.as_bytes()).unwrap();
        RestoreOptions::new().storage(disk.clone()).restore_into(BACKUPS, DATA).unwrap();
        let begun = disk.op_count();
        // How many records were acknowledged as durable by which operation.
        let mut acked = vec![(begun, 2)];
        for id in 3..8 {
            let db = open(&disk, durability).unwrap();
            add(&db, id);
            if durability == Durability::Sync {
                acked.push((disk.op_count(), id));
            }
            if id % 2 == 0 {
                db.close().unwrap();
            } else {
                drop(db);
            }
            acked.push((disk.op_count(), id));
        }
        let mut images = 0;
        for n in disk.crash_points().into_iter().filter(|n| *n >= begun) {
            let least = acked.iter().filter(|(at, _)| *at <= n).map(|(_, id)| *id).max().unwrap();
            for image in disk.images(n, &Budget::small()) {
                images += 1;
                let disk = image.storage();
                let survives = || {
                    let db = open(&disk, Durability::Sync)?;
                    let found = count(&db);
                    if found < least {
                        return Err(format!("{found} records of {least}"));
                    }
                    add(&db, found + 1);
                    drop(db);
                    let again = count(&open(&disk, Durability::Sync)?);
                    if again == found + 1 {
                        Ok(())
                    } else {
                        Err(format!("{again} records behind one more than {found}"))
                    }
                };
                survives()
                    .unwrap_or_else(|wrong| panic!("{durability:?}, {}: {wrong}\n{}", image.id(), image.describe()));
            }
        }
        assert!(images > 500, "{images}");
    }
}
