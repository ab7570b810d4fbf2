//! Promises that were once broken, in short.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dictdb::{
    BackupFormat, BackupManager, CheckpointPolicy, DictDb, DirLock, DiskStorage, Durability, Error, LockError,
    MemoryStorage, Options, RestoreOptions, Storage, WriteFile, record,
};

const DIR: &str = "/data";
const BACKUPS: &str = "/backups";

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
    left_to_files! { create_dir_all list open rename rename_new remove sync_dir lock }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn WriteFile>> {
        if path.to_string_lossy().contains("snapshot") && self.panics.load(Ordering::Relaxed) {
            self.panicked.fetch_add(1, Ordering::Relaxed);
            panic!("the storage panics");
        }
        self.files.create(path)
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
    left_to_files! { create_dir_all list open rename sync_dir }
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

/// What a loss of power leaves of it, all of whose writes have reached the disk.
fn crashed(storage: &MemoryStorage) -> MemoryStorage {
    let left = MemoryStorage::new();
    left.create_dir_all(Path::new(DIR)).unwrap();
    for path in storage.paths() {
        left.write(&path, storage.read(&path).unwrap()).unwrap();
    }
    left
}

/// A first write makes a segment before its commit can be seen; a crash right behind that leaves one without a commit.
/// The history that begins there is closed without a commit of its own.
#[test]
fn a_history_that_is_closed_before_its_first_commit_goes_on_with_the_next_write() {
    let storage = MemoryStorage::new();
    let options = |storage: &MemoryStorage| {
        Options::new().storage(storage.clone()).durability(Durability::Manual).checkpoint(CheckpointPolicy::manual())
    };
    let db = options(&storage).open(DIR).unwrap();
    db.create_table("t", "id").unwrap().insert(record! { "id": 1 }).unwrap();
    db.close().unwrap();
    let db = options(&storage).open(DIR).unwrap();
    db.table("t").unwrap().insert(record! { "id": 2 }).unwrap();
    let storage = crashed(&storage);
    drop(db);
    let db = options(&storage).open(DIR).unwrap();
    assert!(!db.open_report().unwrap().clean);
    let lineage = db.lineage();
    db.close().unwrap();
    for id in 3..6 {
        let db = options(&storage).open(DIR).unwrap();
        assert_eq!((db.open_report().unwrap().clean, db.lineage()), (true, lineage));
        db.table("t").unwrap().insert(record! { "id": id }).unwrap();
        db.close().unwrap();
    }
    let db = options(&storage).open(DIR).unwrap();
    assert_eq!(db.table("t").unwrap().len().unwrap(), 4);
}

/// A segment's header says what the state was at its base; where the files before it lead to that seq, it must fit.
#[test]
fn a_segment_whose_base_has_another_digest_than_the_files_before_it_lead_to_is_refused_at_once() {
    let storage = MemoryStorage::new();
    let options = Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual()).segment_bytes(512);
    let db = options.open(DIR).unwrap();
    db.create_table("t", "id").unwrap().insert(record! { "id": 1, "text": "x".repeat(500) }).unwrap();
    db.checkpoint().unwrap();
    db.table("t").unwrap().insert(record! { "id": 2 }).unwrap();
    db.sync().unwrap();
    let files = storage.paths();
    let newest = files.iter().filter(|path| path.to_string_lossy().contains("_log_")).max().unwrap();
    drop(db);
    let mut bytes = storage.read(newest).unwrap();
    bytes[56] ^= 1;
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    storage.write(newest, bytes).unwrap();
    let error = options.open(DIR).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, offset: 32, .. } if file == newest), "{error}");
}

/// On a disk without room the lock file cannot name its holder; the lock holds all the same.
#[cfg(unix)]
#[test]
fn a_lock_can_be_taken_where_nothing_can_be_written() {
    const DIR_IN: &str = "DICTDB_TEST_NO_ROOM";
    if let Some(dir) = std::env::var_os(DIR_IN) {
        let dir = Path::new(&dir);
        std::fs::write(dir.join("larger"), "than nothing").unwrap_err();
        let lock = DiskStorage.lock(dir).unwrap();
        assert!(matches!(DiskStorage.lock(dir), Err(LockError::Held { .. })));
        drop(lock);
        drop(DiskStorage.lock(dir).unwrap());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "regressions::a_lock_can_be_taken_where_nothing_can_be_written";
    // A limit of zero bytes for every file, without the signal that comes with it.
    let script = format!("trap '' XFSZ; ulimit -f 0; exec \"$0\" {test} --exact --nocapture");
    let mut child = std::process::Command::new("sh");
    child.args(["-c", &script]).arg(std::env::current_exe().unwrap()).env(DIR_IN, dir.path());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn manual(storage: &MemoryStorage) -> Options {
    Options::new().storage(storage.clone()).durability(Durability::Manual).checkpoint(CheckpointPolicy::manual())
}

/// Everything that the storage holds, backups included.
fn copy_of(storage: &MemoryStorage) -> MemoryStorage {
    let copy = MemoryStorage::new();
    for dir in [DIR, BACKUPS] {
        copy.create_dir_all(Path::new(dir)).unwrap();
    }
    for path in storage.paths() {
        copy.write(&path, storage.read(&path).unwrap()).unwrap();
    }
    copy
}

fn back_up(storage: &MemoryStorage, db: &DictDb) {
    let manager = BackupManager::builder(db, BACKUPS).storage(storage.clone()).incremental(true);
    manager.file_format(BackupFormat::Binary).build().unwrap().backup_delta().unwrap();
}

/// A commit that was shown and is in a backup, and lost in a crash; and another one in its place.
fn loses_a_commit_that_was_shown(storage: &MemoryStorage) {
    let shown = manual(storage).open(DIR).unwrap();
    shown.create_table("shown", "id").unwrap();
    back_up(storage, &shown);
    let storage = copy_of(storage);
    let db = manual(&storage).open(DIR).unwrap();
    assert!(db.table("shown").is_err(), "it was not synced");
    db.create_table("other", "id").unwrap();
    back_up(&storage, &db);
    db.table("other").unwrap().insert(record! { "id": 1 }).unwrap();
    back_up(&storage, &db);
    assert_ne!((db.lineage(), db.seq().get()), (shown.lineage(), shown.seq().get() + 1), "one history, two states");
    let (restored, report) = RestoreOptions::new().storage(storage).restore(BACKUPS).unwrap();
    assert_eq!(restored.digest(), db.digest(), "{report}");
}

#[test]
fn a_checkpoint_before_the_first_commit_of_a_history_is_not_taken_for_a_close() {
    let storage = copy_of(&MemoryStorage::new());
    let db = manual(&storage).open(DIR).unwrap();
    db.create_table("t", "id").unwrap();
    back_up(&storage, &db);
    db.close().unwrap();
    let db = manual(&storage).open(DIR).unwrap();
    db.table("t").unwrap().insert(record! { "id": 1 }).unwrap();
    let storage = copy_of(&storage);
    let db = manual(&storage).open(DIR).unwrap();
    assert!(!db.open_report().unwrap().clean);
    db.checkpoint().unwrap();
    // It goes on behind the checkpoint and loses what it shows.
    db.create_table("shown", "id").unwrap();
    back_up(&storage, &db);
    let (lineage, seq) = (db.lineage(), db.seq());
    let storage = copy_of(&storage);
    let db = manual(&storage).open(DIR).unwrap();
    assert!(!db.open_report().unwrap().clean);
    db.create_table("other", "id").unwrap();
    back_up(&storage, &db);
    assert_ne!((db.lineage(), db.seq()), (lineage, seq), "one history, two states");
    let (restored, report) = RestoreOptions::new().storage(storage).restore(BACKUPS).unwrap();
    assert_eq!(restored.digest(), db.digest(), "{report}");
}

#[test]
fn a_store_made_of_a_backup_without_commits_never_has_two_states_at_one_point_of_its_history() {
    let storage = copy_of(&MemoryStorage::new());
    back_up(&storage, &DictDb::new());
    RestoreOptions::new().storage(storage.clone()).restore_into(BACKUPS, DIR).unwrap();
    loses_a_commit_that_was_shown(&storage);
}

#[test]
fn a_store_closed_before_its_first_commit_never_has_two_states_at_one_point_of_its_history() {
    let storage = copy_of(&MemoryStorage::new());
    manual(&storage).open(DIR).unwrap().close().unwrap();
    loses_a_commit_that_was_shown(&storage);
}

/// The log once proved its first commit by a frame behind it, and a new history began there. That frame is gone; what
/// the checkpoint says of its history's beginning is still there, and it is the proof now.
#[test]
fn a_store_that_fell_back_from_the_first_checkpoint_of_a_history_opens_again_after_a_commit() {
    let storage = MemoryStorage::new();
    let options = Options::new().storage(storage.clone()).durability(Durability::Manual);
    let options = options.checkpoint(CheckpointPolicy::manual());
    let files = |kind: &str| -> Vec<_> {
        storage.paths().into_iter().filter(|path| path.to_string_lossy().contains(kind)).collect()
    };
    let change = |path: &Path, how: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = storage.read(path).unwrap();
        how(&mut bytes);
        storage.write(path, bytes).unwrap();
    };
    let db = options.open(DIR).unwrap();
    db.create_table("t", "id").unwrap();
    let ends = |log: &Path| storage.read(log).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    db.sync().unwrap();
    let log = files("dictdb_log_").remove(0);
    let first = ends(&log);
    let table = db.table("t").unwrap();
    table.insert(record! { "id": 1, "text": "x".repeat(100) }).unwrap();
    table.insert(record! { "id": 2 }).unwrap();
    drop((db, table));
    // In the payload of the frame behind the first.
    change(&log, &|bytes| bytes[first + 40] ^= 1);
    let db = options.open(DIR).unwrap();
    assert_eq!(
        (db.seq().get(), db.open_report().unwrap().unproven),
        (1, 0),
        "the frame behind the torn one is the proof"
    );
    db.checkpoint().unwrap();
    let lineage = db.lineage();
    drop(db);
    let snapshot = files("dictdb_snapshot_").remove(0);
    change(&snapshot, &|bytes| bytes[150] ^= 1);
    change(&log, &|bytes| bytes[first..].fill(0));

    let db = options.open(DIR).unwrap();
    let report = db.open_report().unwrap();
    assert!(report.fell_back && report.unproven == 0 && db.lineage() != lineage, "{report}");
    db.table("t").unwrap().insert(record! { "id": 3 }).unwrap();
    let digest = db.digest();
    drop(db);
    let db = options.open(DIR).unwrap();
    assert_eq!(db.digest(), digest);
    drop(db);

    // Without that commit it is damage, whatever else is left of the log.
    files("dictdb_log_").into_iter().filter(|path| *path != log).for_each(|path| storage.remove(&path).unwrap());
    change(&log, &|bytes| bytes[128..].fill(0));
    let error = options.open(DIR).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

/// What is left is a snapshot that a restore made, and a newer one that is damaged but for its beginning and its end. That
/// one says how far the history of the first was durable.
#[test]
fn a_restored_store_that_lost_its_log_does_not_go_on_with_a_history_that_was_once_longer() {
    let storage = MemoryStorage::new();
    back_up(&storage, &DictDb::new());
    RestoreOptions::new().storage(storage.clone()).restore_into(BACKUPS, DIR).unwrap();
    let db = manual(&storage).open(DIR).unwrap();
    db.create_table("t", "id").unwrap().insert(record! { "id": 1 }).unwrap();
    db.close().unwrap();
    // Begun, and killed before its commit reached the disk.
    let db = manual(&storage).open(DIR).unwrap();
    let lineage = db.lineage();
    db.table("t").unwrap().insert(record! { "id": 2 }).unwrap();
    let storage = copy_of(&storage);
    let db = manual(&storage).open(DIR).unwrap();
    assert!(db.lineage() != lineage && db.seq().get() == 2, "{}", db.open_report().unwrap());
    db.checkpoint().unwrap();
    drop(db);
    let files = |kind: &str| -> Vec<_> {
        storage.paths().into_iter().filter(|path| path.to_string_lossy().contains(kind)).collect()
    };
    let newest = files("dictdb_snapshot_").pop().unwrap();
    let mut bytes = storage.read(&newest).unwrap();
    bytes[150] ^= 1;
    storage.write(&newest, bytes).unwrap();
    files("dictdb_log_").iter().for_each(|path| storage.remove(path).unwrap());
    let error = manual(&storage).open(DIR).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, .. } if *file == newest), "{error}");

    // Where its end is damaged as well, nothing says that the first one's history was longer; it ends all the same.
    let bytes = storage.read(&newest).unwrap();
    storage.write(&newest, &bytes[..bytes.len() - 1]).unwrap();
    let db = manual(&storage).open(DIR).unwrap();
    let report = db.open_report().unwrap();
    assert!(report.fell_back && !report.clean && db.lineage() != lineage, "{report}");
    db.create_table("t", "id").unwrap();
    let digest = db.digest();
    drop(db);
    assert_eq!(manual(&storage).open(DIR).unwrap().digest(), digest);
}

/// Under `Manual` frames that nobody had synced between two syncs bore no witness to one another, and there were as many of
/// them as a segment has room for.
#[test]
fn rot_in_what_a_store_under_manual_had_synced_is_no_torn_tail_but_in_the_last_few_mebibytes() {
    let storage = MemoryStorage::new();
    let db = manual(&storage).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    db.sync().unwrap();
    let safe = db.durability_report().synced;
    let text = "x".repeat(10_000);
    let started = std::time::Instant::now();
    while db.durability_report().synced == safe {
        if db.seq().get() < 3_000 {
            table.insert(record! { "text": text.as_str() }).unwrap();
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "no sync after {} commits", db.seq());
        std::thread::yield_now();
    }
    table.insert(record! { "text": text.as_str() }).unwrap();
    db.sync().unwrap();
    drop((table, db));
    let is_log = |path: &std::path::PathBuf| path.to_string_lossy().contains("dictdb_log_");
    let log = storage.paths().into_iter().find(is_log).unwrap();
    let mut bytes = storage.read(&log).unwrap();
    bytes[1_000_000] ^= 1;
    storage.remove(&log).unwrap();
    storage.write(&log, bytes).unwrap();
    let error = manual(&storage).open(DIR).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn a_store_under_manual_is_synced_each_few_mebibytes_in_every_segment() {
    let storage = MemoryStorage::new();
    let db = manual(&storage).segment_bytes(10 << 20).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let text = "x".repeat(600_000);
    let started = std::time::Instant::now();
    let mut syncs = std::collections::BTreeSet::new();
    for _ in 0..60 {
        table.upsert(record! { "id": 1, "text": text.as_str() }).unwrap();
        while db.durability_report().written != Some(db.seq()) {
            assert!(started.elapsed() < std::time::Duration::from_secs(60), "{}", db.durability_report());
            std::thread::yield_now();
        }
        syncs.extend(db.durability_report().synced.filter(|synced| synced.get() > 0));
    }
    // Three segments were filled.
    assert!(syncs.len() >= 3, "{syncs:?}");
}
