//! Promises that were once broken, in short.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dictdb::{
    CheckpointPolicy, DirEntry, DirLock, LockError, MemoryStorage, Options, ReadFile, Storage, WriteFile, record,
};

const DIR: &str = "/data";

/// A store that was not closed has commits of which nothing proves that they were durable; a look at it must not add
/// a segment each time.
#[test]
fn an_unclean_store_that_is_only_looked_at_stays_as_it_is() {
    let storage = MemoryStorage::new();
    let options = Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual());
    let db = options.open(DIR).unwrap();
    db.create_table("t", "id").unwrap().insert(record! { "id": 1 }).unwrap();
    let digest = db.digest();
    drop(db);
    let before: Vec<_> = storage.paths().into_iter().map(|path| (storage.read(&path).unwrap(), path)).collect();
    for _ in 0..5 {
        let db = options.open(DIR).unwrap();
        assert_eq!((db.digest(), db.open_report().unwrap().unproven), (digest, 1));
    }
    let after: Vec<_> = storage.paths().into_iter().map(|path| (storage.read(&path).unwrap(), path)).collect();
    assert_eq!(before, after);
}

#[cfg(unix)]
#[test]
fn a_lock_file_that_is_a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target) = (dir.path().join("data"), dir.path().join("target"));
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(&target, data.join(dictdb::LOCK_FILE)).unwrap();
    let error = Options::new().open(&data).unwrap_err();
    assert!(error.to_string().contains("lock"), "{error}");
    assert!(!target.exists());
}

/// A storage whose snapshots panic for a while.
#[derive(Clone, Debug, Default)]
struct Panicking {
    files: MemoryStorage,
    panics: Arc<AtomicBool>,
    panicked: Arc<AtomicUsize>,
}

impl Storage for Panicking {
    fn create_dir_all(&self, dir: &Path) -> std::io::Result<()> {
        self.files.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<DirEntry>> {
        self.files.list(dir)
    }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn ReadFile>> {
        self.files.open(path)
    }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn WriteFile>> {
        if path.to_string_lossy().contains("snapshot") && self.panics.load(Ordering::Relaxed) {
            self.panicked.fetch_add(1, Ordering::Relaxed);
            panic!("the storage panics");
        }
        self.files.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.files.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.files.rename_new(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.files.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.files.sync_dir(dir)
    }
    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
        self.files.lock(dir)
    }
}

#[test]
fn a_storage_that_panics_in_a_checkpoint_does_not_end_checkpoints() {
    let storage = Panicking::default();
    storage.panics.store(true, Ordering::Relaxed);
    let policy = CheckpointPolicy::automatic().log_bytes(2_000);
    let db = Options::new().storage(storage.clone()).checkpoint(policy).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let mut id = 0;
    let mut commit_until = |done: &dyn Fn() -> bool| {
        for _ in 0..2_000_000 {
            if done() {
                return true;
            }
            table.upsert(record! { "id": id % 100, "text": "x".repeat(100) }).unwrap();
            id += 1;
            std::thread::yield_now();
        }
        false
    };
    assert!(commit_until(&|| storage.panicked.load(Ordering::Relaxed) > 0), "no checkpoint was tried");
    storage.panics.store(false, Ordering::Relaxed);
    assert!(commit_until(&|| db.durability_report().checkpoint.is_some()), "none came after the one that panicked");
}

/// One whose middle is damaged still has a beginning and an end.
#[test]
fn a_damaged_snapshot_is_never_kept_as_the_fall_back_in_a_sound_ones_place() {
    let storage = MemoryStorage::new();
    let options = Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual());
    let snapshots = || -> Vec<_> {
        storage.paths().into_iter().filter(|path| path.to_string_lossy().contains("snapshot")).collect()
    };
    let db = options.open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    for id in 0..2 {
        table.insert(record! { "id": id, "text": "x".repeat(300) }).unwrap();
        db.checkpoint().unwrap();
    }
    drop(table);
    db.close().unwrap();
    let [first, second] = &snapshots()[..] else { panic!("two snapshots") };
    let mut bytes = storage.read(second).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    storage.write(second, bytes).unwrap();
    let db = options.open(DIR).unwrap();
    assert!(db.open_report().unwrap().fell_back);
    db.table("t").unwrap().insert(record! { "id": 3 }).unwrap();
    db.checkpoint().unwrap();
    let digest = db.digest();
    db.close().unwrap();
    let third = snapshots().into_iter().max().unwrap();
    assert!(snapshots().contains(first), "the one sound snapshot before the newest is gone");
    let bytes = storage.read(&third).unwrap();
    storage.write(&third, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(options.open(DIR).unwrap().digest(), digest);
}

/// A storage that stops in the middle of a snapshot, and hears of the lock's end.
#[derive(Clone, Debug, Default)]
struct Gated {
    files: MemoryStorage,
    in_snapshot: Arc<AtomicBool>,
    open: Arc<AtomicBool>,
    let_go_inside: Arc<AtomicBool>,
}

#[derive(Debug)]
struct GatedLock {
    _inner: Box<dyn DirLock>,
    storage: Gated,
}

impl DirLock for GatedLock {}

impl Drop for GatedLock {
    fn drop(&mut self) {
        if self.storage.in_snapshot.load(Ordering::SeqCst) {
            self.storage.let_go_inside.store(true, Ordering::SeqCst);
        }
    }
}

impl Storage for Gated {
    fn create_dir_all(&self, dir: &Path) -> std::io::Result<()> {
        self.files.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<DirEntry>> {
        self.files.list(dir)
    }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn ReadFile>> {
        self.files.open(path)
    }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn WriteFile>> {
        let file = self.files.create(path)?;
        if path.to_string_lossy().contains("snapshot") {
            self.in_snapshot.store(true, Ordering::SeqCst);
            while !self.open.load(Ordering::SeqCst) && !self.let_go_inside.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
        Ok(file)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.files.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        if to.to_string_lossy().contains("snapshot") {
            self.in_snapshot.store(false, Ordering::SeqCst);
        }
        self.files.rename_new(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        if path.to_string_lossy().contains("snapshot") {
            self.in_snapshot.store(false, Ordering::SeqCst);
        }
        self.files.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.files.sync_dir(dir)
    }
    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
        Ok(Box::new(GatedLock { _inner: self.files.lock(dir)?, storage: self.clone() }))
    }
}

#[test]
fn a_close_gives_the_lock_back_only_when_no_checkpoint_is_writing() {
    let storage = Gated::default();
    let options = Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual());
    let db = options.open(DIR).unwrap();
    db.create_table("t", "id").unwrap().insert(record! { "id": 1 }).unwrap();
    let (checkpointed, closing) = (db.clone(), db.clone());
    std::thread::scope(|scope| {
        scope.spawn(move || drop(checkpointed.checkpoint()));
        while !storage.in_snapshot.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let closed = scope.spawn(move || closing.close().map(drop));
        for _ in 0..300_000 {
            if closed.is_finished() {
                break;
            }
            std::thread::yield_now();
        }
        storage.open.store(true, Ordering::SeqCst);
        closed.join().unwrap().unwrap();
    });
    assert!(
        !storage.let_go_inside.load(Ordering::SeqCst),
        "the lock was given back while a snapshot was being written"
    );
    drop(db);
    assert!(options.open(DIR).unwrap().open_report().unwrap().clean);
}
