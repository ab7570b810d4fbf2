//! The shortest whole story: keep records, back them up, lose the process, get them back.

use dictdb::{BackupManager, DictDb, record, restore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;

    let db = DictDb::new();
    let users = db.create_table("users", "id")?;
    let ann = users.insert(record! { "name": "Ann", "tags": ["admin"] })?; // automatic key
    users.insert(record! { "id": 7, "name": "Bo" })?;

    let backup = BackupManager::builder(&db, dir.path()).incremental(true).build()?;
    println!("{}", backup.backup_now()?); // the first is a full one

    users.update(&ann, record! { "age": 41 })?; // merges fields
    users.delete(7)?;
    println!("{}", backup.backup_now()?); // a delta: these two changes only

    let digest = db.digest();
    drop((backup, users, db)); // the process is lost

    let (db, report) = restore(dir.path())?;
    println!("{report}");
    assert_eq!(db.digest(), digest);
    assert_eq!(db.table("users")?.get(ann)?, Some(record! { "id": 1, "name": "Ann", "tags": ["admin"], "age": 41 }));
    Ok(())
}
