//! Deltas are read one after the other and their changes made together: what is wrong with one of them is said of that
//! one, and the state before it is still to be had.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use dictdb::{
    BackupFormat, BackupManager, DictDb, Error, ManualClock, MemoryStorage, RestoreOptions, Timestamp, record,
};

use crate::chain::{Contents, DIR, contents, storage_of};
use crate::forged::Parts;

const DELTAS: i64 = 5;
/// More of them than one thread would be left to make alone.
const RECORDS: i64 = 6_000;

/// A full backup and deltas of thousands of changes each, and what the database held at each of them.
fn chain() -> Vec<(PathBuf, Vec<u8>, Contents)> {
    let storage = MemoryStorage::new();
    let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let db = DictDb::builder().clock(clock.clone()).build();
    let manager = BackupManager::builder(&db, DIR)
        .storage(storage.clone())
        .file_format(BackupFormat::Binary)
        .incremental(true)
        .build()
        .unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut files = Vec::new();
    for delta in 0..=DELTAS {
        if delta == 0 {
            db.create_table("numbers", "id").unwrap();
            db.create_table("names", "id").unwrap();
        }
        for commit in 0..20 {
            db.transaction(|tx| {
                let (numbers, names) = (tx.table("numbers")?, tx.table("names")?);
                for _ in 0..RECORDS / 20 {
                    let id = rng.i64(1_000..RECORDS);
                    numbers.upsert(record! { "id": id, "sum": delta as f64 })?;
                    names.upsert(record! { "id": format!("the same beginning {id}"), "of": id })?;
                }
                // Each delta has one float and one deleted key of its own.
                if commit == 10 {
                    numbers.insert(record! { "id": 200 + delta, "sum": mark(delta) })?;
                    numbers.insert(record! { "id": 300 + delta, "sum": 0.0 })?;
                }
                if commit == 15 {
                    numbers.delete(300 + delta)?;
                }
                // The next delta deletes what this one puts.
                if commit == 5 {
                    numbers.insert(record! { "id": 400 + delta, "sum": -mark(delta) })?;
                    if delta > 0 {
                        numbers.delete(400 + delta - 1)?;
                    }
                }
                Ok::<_, Error>(())
            })
            .unwrap();
        }
        clock.advance(Duration::from_secs(1));
        let report = if delta == 0 { manager.backup_full() } else { manager.backup_delta() }.unwrap();
        let bytes = storage.read(&report.file).unwrap();
        files.push((report.file, bytes, contents(&db)));
    }
    files
}

fn mark(delta: i64) -> f64 {
    1_234.567 + delta as f64
}

/// The file with one run of bytes, which it has once, in the place of another, and all its checksums right.
fn with(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut parts = Parts::of(bytes);
    let mut found = 0;
    for (_, payload) in &mut parts.frames {
        for at in 0..payload.len() {
            if payload[at..].starts_with(from) {
                payload[at..at + to.len()].copy_from_slice(to);
                found += 1;
            }
        }
    }
    assert_eq!(found, 1);
    parts.forge()
}

/// A delete of an integer key: mutation, kind of key, zigzag.
fn delete(key: i64) -> Vec<u8> {
    let zigzag = u16::try_from(key * 2).unwrap();
    vec![2, 0, (zigzag & 0x7f) as u8 | 0x80, (zigzag >> 7) as u8]
}

/// The values of a record: an integer that takes two bytes, and a float.
fn put(key: i64, sum: f64) -> Vec<u8> {
    [&[3], &delete(key)[2..], &[5], &sum.to_le_bytes()].concat()
}

#[test]
fn a_chain_of_deltas_whose_changes_are_made_together_restores_to_what_each_of_them_left() {
    let chain = chain();
    for len in 1..=chain.len() {
        let files = chain.iter().take(len).map(|(path, bytes, _)| (path.clone(), bytes.clone())).collect();
        let (db, report) = RestoreOptions::new().storage(storage_of(&files)).restore(DIR).unwrap();
        assert_eq!(report.deltas.len(), len - 1);
        assert_eq!(contents(&db), chain[len - 1].2);
    }
}

#[test]
fn who_breaks_a_restore_off_is_told_so_whatever_a_delta_before_lies_about() {
    let chain = chain();
    let mut files: BTreeMap<_, _> = chain.iter().map(|(path, bytes, _)| (path.clone(), bytes.clone())).collect();
    let (path, bytes, _) = &chain[1];
    files.insert(path.clone(), with(bytes, &mark(1).to_le_bytes(), &0.5_f64.to_le_bytes()));
    let third = chain[3].0.clone();
    let options = RestoreOptions::new().storage(storage_of(&files)).accept_earlier(true).on_progress(move |progress| {
        if progress.file == third { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let error = options.restore(DIR).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
}

#[test]
fn a_delta_that_lies_is_named_and_the_state_before_it_is_to_be_had_whatever_deltas_come_behind() {
    let chain = chain();
    for lying in 1..chain.len() {
        let n = lying as i64;
        let (path, bytes, _) = &chain[lying];
        let lies = [
            ("whose digest", with(bytes, &mark(n).to_le_bytes(), &0.5_f64.to_le_bytes())),
            ("whose digest", with(bytes, &put(400 + n, -mark(n)), &put(500, -mark(n)))),
            ("a record 500 of table \"numbers\" to delete", with(bytes, &delete(300 + n), &delete(500))),
        ];
        for (expected, forged) in lies {
            let mut files: BTreeMap<_, _> =
                chain.iter().map(|(path, bytes, _)| (path.clone(), bytes.clone())).collect();
            files.insert(path.clone(), forged);
            let options = RestoreOptions::new().storage(storage_of(&files));
            let error = options.restore(DIR).unwrap_err().to_string();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(error.contains(name) && error.contains(expected), "{lying}: {error}");
            let (db, report) = options.accept_earlier(true).restore(DIR).unwrap();
            assert_eq!((report.deltas.len(), report.damaged.len()), (lying - 1, 1), "{report}");
            assert_eq!(contents(&db), chain[lying - 1].2);
        }
    }
}
