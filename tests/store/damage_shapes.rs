//! Small stores to damage, with all that is known of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dictdb::{
    BackupManager, CheckpointPolicy, DictDb, Digest, Durability, ManualClock, MemoryStorage, Options, RestoreOptions,
    Storage, Timestamp, record,
};

pub(crate) const DIR: &str = "/data";

/// A directory's files, or what became of them.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A store that no process has open.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) files: Files,
    /// What each file ever held at the end of a step, in order.
    pub(crate) versions: BTreeMap<PathBuf, Vec<Vec<u8>>>,
    /// Of the state after each commit.
    pub(crate) digests: Vec<Digest>,
    /// The newest segment, where it was never sealed, and its commits.
    pub(crate) open: Option<(PathBuf, Vec<Frame>)>,
}

/// A commit's frame in a segment.
pub(crate) struct Frame {
    pub(crate) seq: u64,
    pub(crate) synced: u64,
    pub(crate) kind: u8,
    pub(crate) bytes: Range<usize>,
}

pub(crate) fn options(storage: &MemoryStorage) -> Options {
    Options::new()
        .storage(storage.clone())
        .clock(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)))
        .checkpoint(CheckpointPolicy::manual())
        .ring_bytes(4_096)
        .segment_bytes(512)
        .preallocate_bytes(512)
}

pub(crate) fn storage_of(files: &Files) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.create_dir_all(Path::new(DIR)).unwrap();
    for (path, bytes) in files {
        storage.write(path, bytes.clone()).unwrap();
    }
    storage
}

/// All files of the store's directory.
pub(crate) fn files_of(storage: &MemoryStorage) -> Files {
    let ours = storage.paths().into_iter().filter(|path| path.starts_with(DIR));
    ours.map(|path| (path.clone(), storage.read(&path).unwrap())).collect()
}

pub(crate) fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "log")
}

/// The frames of a binary file, up to where there are none.
pub(crate) fn frames(file: &[u8]) -> Vec<Frame> {
    let long = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let mut frames = Vec::new();
    let mut at = 128;
    while file.get(at).is_some_and(|kind| *kind != 0) {
        let end = at + 32 + u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize;
        frames.push(Frame { seq: long(at + 8), synced: long(at + 16), kind: file[at], bytes: at..end });
        at = end;
    }
    frames
}

/// Commits that put, change and delete, one after the other.
pub(crate) fn commit(db: &DictDb, count: u64) {
    for _ in 0..count {
        let table = db.table("t").unwrap();
        let seq = db.seq().get() as i64;
        match seq % 5 {
            4 => assert!(table.delete(seq - 2).unwrap()),
            3 => drop(table.update(seq - 2, record! { "n": seq }).unwrap()),
            _ => drop(table.insert(record! { "id": seq, "n": -seq }).unwrap()),
        }
    }
}

/// Makes a store step by step, and looks at it after each.
struct Making {
    storage: MemoryStorage,
    versions: BTreeMap<PathBuf, Vec<Vec<u8>>>,
    digests: Vec<Digest>,
}

impl Making {
    fn new() -> Making {
        let digests = vec![DictDb::new().digest()];
        Making { storage: MemoryStorage::new(), versions: BTreeMap::new(), digests }
    }

    fn look(&mut self) {
        for (path, bytes) in files_of(&self.storage) {
            let versions = self.versions.entry(path).or_default();
            if versions.last() != Some(&bytes) {
                versions.push(bytes);
            }
        }
    }

    fn table(&mut self, db: &DictDb) {
        db.create_table("t", "id").unwrap();
        self.digests.push(db.digest());
        self.look();
    }

    fn commit(&mut self, db: &DictDb, count: u64) {
        for _ in 0..count {
            commit(db, 1);
            self.digests.push(db.digest());
            self.look();
        }
    }

    fn checkpoint(&mut self, db: &DictDb) {
        db.checkpoint().unwrap();
        self.look();
    }

    fn shape(mut self, name: &'static str) -> Shape {
        self.look();
        let files = files_of(&self.storage);
        let newest = files.iter().rfind(|(path, _)| is_log(path));
        let open = newest.map(|(path, bytes)| (path.clone(), frames(bytes)));
        let open = open.filter(|(_, frames)| frames.iter().all(|frame| frame.kind == 1));
        println!(
            "{name}: {} commits, {} bytes in",
            self.digests.len() - 1,
            files.values().map(Vec::len).sum::<usize>()
        );
        for (path, bytes) in &files {
            println!("  {} {} bytes, {} frames", path.display(), bytes.len(), frames(bytes).len());
        }
        Shape { name, files, versions: self.versions, digests: self.digests, open }
    }
}

/// Two snapshots, more than one segment behind the newest, closed.
pub(crate) fn closed() -> Shape {
    let mut making = Making::new();
    let db = options(&making.storage).open(DIR).unwrap();
    making.table(&db);
    making.commit(&db, 4);
    making.checkpoint(&db);
    making.commit(&db, 6);
    making.checkpoint(&db);
    making.commit(&db, 16);
    db.close().unwrap();
    let shape = making.shape("closed");
    assert!(shape.open.is_none());
    assert_eq!(shape.files.keys().filter(|path| !is_log(path)).count(), 2);
    assert!(shape.files.keys().filter(|path| is_log(path)).count() >= 4);
    shape
}

/// One segment, closed, of more than one step of preallocation.
pub(crate) fn closed_log() -> Shape {
    let mut making = Making::new();
    let db = options(&making.storage).segment_bytes(4_096).open(DIR).unwrap();
    making.table(&db);
    making.commit(&db, 14);
    db.close().unwrap();
    let shape = making.shape("closed, only a log");
    assert!(shape.open.is_none());
    shape
}

/// A snapshot, and two sessions that ended without a close.
pub(crate) fn dropped() -> Shape {
    let mut making = Making::new();
    let db = options(&making.storage).open(DIR).unwrap();
    making.table(&db);
    making.commit(&db, 4);
    making.checkpoint(&db);
    making.commit(&db, 2);
    drop(db);
    let db = options(&making.storage).segment_bytes(4_096).open(DIR).unwrap();
    making.commit(&db, 8);
    drop(db);
    let shape = making.shape("dropped");
    assert!(shape.open.is_some());
    shape
}

/// Segments, the last of them open.
pub(crate) fn only_a_log() -> Shape {
    let mut making = Making::new();
    let db = options(&making.storage).open(DIR).unwrap();
    making.table(&db);
    making.commit(&db, 13);
    drop(db);
    let shape = making.shape("only a log");
    assert!(shape.open.is_some() && shape.files.len() > 1);
    shape
}

/// One open segment of which several commits were synced at a time.
pub(crate) fn in_groups() -> Shape {
    let mut making = Making::new();
    let db = options(&making.storage).durability(Durability::Manual).segment_bytes(4_096).open(DIR).unwrap();
    making.table(&db);
    for count in [3, 4, 5] {
        making.commit(&db, count);
        db.sync().unwrap();
        making.look();
    }
    drop(db);
    let shape = making.shape("synced in groups");
    assert_eq!(shape.open.as_ref().unwrap().1.iter().map(|frame| frame.synced).max(), Some(8));
    shape
}

/// Restored into, and not opened since.
pub(crate) fn restored() -> Shape {
    let mut making = Making::new();
    let db = DictDb::new();
    making.table(&db);
    making.commit(&db, 12);
    let manager = BackupManager::builder(&db, "/backups").storage(making.storage.clone()).build().unwrap();
    manager.backup_full().unwrap();
    RestoreOptions::new().storage(making.storage.clone()).restore_into("/backups", DIR).unwrap();
    let shape = making.shape("restored");
    assert_eq!(shape.files.len(), 1);
    shape
}
