//! Snapshots and full backups that are compressed.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dictdb::{
    BackupFormat, BackupManager, CheckpointPolicy, Compression, DictDb, Error, LoadOptions, MemoryStorage, Options,
    Storage, record,
};

const DIR: &str = "/data";

fn options(storage: &MemoryStorage) -> Options {
    Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual())
}

fn commit(db: &DictDb, n: i64) {
    let table = db.table("t").or_else(|_| db.create_table("t", "id")).unwrap();
    for _ in 0..n {
        let seq = db.seq().get() as i64;
        table.insert(record! { "id": seq, "text": format!("commit {seq}") }).unwrap();
    }
}

fn snapshots(storage: &MemoryStorage) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("dictdb_snapshot_");
    storage.paths().into_iter().filter(is_one).collect()
}

fn flip(storage: &MemoryStorage, path: &Path, at: usize) {
    let mut bytes = storage.read(path).unwrap();
    bytes[at] ^= 1;
    storage.write(path, bytes).unwrap();
}

#[test]
fn compressed_snapshots_are_smaller_and_open_beside_plain_ones_whatever_the_store_is_set_to() {
    let storage = MemoryStorage::new();
    let (mut sizes, mut digest) = (Vec::new(), None);
    for compression in [Compression::None, Compression::Lz4, Compression::Lz4, Compression::None] {
        let db = options(&storage).compression(compression).open(DIR).unwrap();
        assert!(digest.is_none_or(|digest| digest == db.digest()));
        commit(&db, 40);
        let report = db.checkpoint().unwrap();
        let file = storage.read(report.file.unwrap()).unwrap();
        let table = 128 + 32 + u32::from_le_bytes(*file[132..].first_chunk().unwrap()) as usize;
        assert_eq!(file[table], if compression == Compression::Lz4 { 6 } else { 3 }, "{compression}");
        sizes.push(file.len());
        digest = Some(db.digest());
        // Without a close: what opens it next has the snapshot alone to go by.
        drop(db);
    }
    // Of 120 records compressed, and of 160 that are not.
    assert!(sizes[2] < sizes[3] / 2, "{sizes:?}");
    let newest = snapshots(&storage).pop().unwrap();
    flip(&storage, &newest, 250);
    let db = options(&storage).open(DIR).unwrap();
    assert_eq!((Some(db.digest()), db.open_report().unwrap().fell_back), (digest, true), "to a compressed one");
    // The same without one to fall back to.
    let older = snapshots(&storage).remove(0);
    drop(db);
    storage.remove(&newest).unwrap();
    for at in (128..storage.read(&older).unwrap().len()).step_by(7) {
        let damaged = MemoryStorage::new();
        storage.paths().iter().for_each(|path| damaged.write(path, storage.read(path).unwrap()).unwrap());
        flip(&damaged, &older, at);
        let opened = options(&damaged).open(DIR);
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "byte {at}: {opened:?}");
    }
}

#[test]
fn many_blocks_compressed_side_by_side_stand_in_order_are_told_one_by_one_and_load_whole() {
    let db = DictDb::new();
    let mut random = fastrand::Rng::with_seed(3);
    for (name, count) in [("a", 30_000_i64), ("b", 1), ("c", 70_000), ("empty", 0)] {
        let table = db.create_table(name, "id").unwrap();
        let noise = |random: &mut fastrand::Rng| std::iter::repeat_with(|| random.alphanumeric()).take(40).collect();
        // Every fourth block or so is noise alone, and stays as it is.
        let text =
            |n: i64, random: &mut fastrand::Rng| if n / 3_000 % 4 == 0 { noise(random) } else { "x".repeat(100) };
        table.insert_many((0..count).map(|n| record! { "id": n, "text": text(n, &mut random) })).unwrap();
    }
    let (storage, told) = (MemoryStorage::new(), Arc::new(Mutex::new(Vec::new())));
    let telling = Arc::clone(&told);
    let manager = BackupManager::builder(&db, "/backups")
        .storage(storage.clone())
        .file_format(BackupFormat::Binary)
        .compression(Compression::Lz4)
        .on_progress(move |progress| {
            telling.lock().unwrap().push((progress.records_done, progress.bytes_done));
            ControlFlow::Continue(())
        })
        .build()
        .unwrap();
    let [one, two] = [(); 2].map(|()| manager.backup_full().unwrap());
    assert!(one.bytes < 4_000_000, "{one}");
    let told = told.lock().unwrap();
    let (first, second) = told.split_at(told.len() / 2);
    assert_eq!(first, second, "the same state is written as the same blocks");
    assert!(first.len() > 30 && first.is_sorted() && first.last().unwrap().0 == one.records, "{first:?}");
    for report in [one, two] {
        let loaded = DictDb::load_with(&report.file, &LoadOptions::new().storage(storage.clone())).unwrap();
        assert_eq!((loaded.digest(), loaded.seq()), (db.digest(), db.seq()));
    }
}
