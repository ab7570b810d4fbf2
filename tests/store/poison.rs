//! What becomes of a store whose disk fails, fills up, or whose storage panics: nothing acknowledged is lost, nobody
//! waits for ever, reads go on, and opening it again decides.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use dictdb::{
    CheckpointPolicy, DictDb, DirEntry, DirLock, Durability, Error, LockError, MemoryStorage, Options, ReadFile,
    Storage, WriteFile, record,
};

const DIR: &str = "/data";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Create,
    Write,
    Sync,
    SyncDir,
    Rename,
    Lock,
}

/// What is to happen to the next operation of a sort.
#[derive(Clone, Copy, Debug)]
enum Ill {
    Fails(ErrorKind),
    Panics,
}

#[derive(Default)]
struct Plan {
    once: Option<(Op, Ill)>,
    forever: Vec<(Op, ErrorKind)>,
    /// Bytes that can still be written.
    space: Option<u64>,
    /// Called before each sync, without a lock.
    before_sync: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// A storage that falls ill where a test wants it to. Clones are the same.
#[derive(Clone, Default)]
struct Sick {
    files: MemoryStorage,
    plan: Arc<Mutex<Plan>>,
}

impl fmt::Debug for Sick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl Sick {
    fn once(&self, op: Op, ill: Ill) {
        self.plan.lock().unwrap().once = Some((op, ill));
    }

    fn space(&self, bytes: Option<u64>) {
        self.plan.lock().unwrap().space = bytes;
    }

    fn is_cured(&self) -> bool {
        self.plan.lock().unwrap().once.is_none()
    }

    fn step(&self, op: Op) -> io::Result<()> {
        let (ill, hook) = {
            let mut plan = self.plan.lock().unwrap();
            let hook = plan.before_sync.clone().filter(|_| op == Op::Sync);
            let forever = plan.forever.iter().find(|(of, _)| *of == op).map(|(_, kind)| Ill::Fails(*kind));
            (plan.once.take_if(|(of, _)| *of == op).map(|(_, ill)| ill).or(forever), hook)
        };
        if let Some(hook) = hook {
            hook();
        }
        match ill {
            None => Ok(()),
            Some(Ill::Fails(kind)) => Err(io::Error::new(kind, "the disk is ill")),
            Some(Ill::Panics) => panic!("the storage panics"),
        }
    }
}

impl Storage for Sick {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.step(Op::Create)?;
        self.files.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.files.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.files.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.step(Op::Create)?;
        Ok(Box::new(SickFile { file: self.files.create(path)?, storage: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Op::Rename)?;
        self.files.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Op::Rename)?;
        self.files.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(Op::SyncDir)?;
        self.files.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
        self.step(Op::Lock)?;
        self.files.lock(dir)
    }
}

struct SickFile {
    file: Box<dyn WriteFile>,
    storage: Sick,
}

impl SickFile {
    fn admit(&self, bytes: &[u8]) -> io::Result<usize> {
        self.storage.step(Op::Write)?;
        let mut plan = self.storage.plan.lock().unwrap();
        let Some(space) = &mut plan.space else { return Ok(bytes.len()) };
        let take = bytes.len().min(*space as usize);
        *space -= take as u64;
        if take == 0 && !bytes.is_empty() { Err(ErrorKind::StorageFull.into()) } else { Ok(take) }
    }
}

impl Write for SickFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = self.admit(bytes)?;
        self.file.write(&bytes[..take])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl WriteFile for SickFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let take = self.admit(bytes)?;
        self.file.write_at(&bytes[..take], offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn will_sync(&mut self, bytes: std::ops::Range<u64>) {
        self.file.will_sync(bytes);
    }

    fn begin_sync(&mut self) {
        self.file.begin_sync();
    }

    fn sync(&mut self) -> io::Result<()> {
        self.storage.step(Op::Sync)?;
        self.file.sync()
    }
}

fn options(storage: &Sick) -> Options {
    Options::new()
        .storage(storage.clone())
        .checkpoint(CheckpointPolicy::manual())
        .segment_bytes(2_000)
        .preallocate_bytes(1_024)
}

fn insert(db: &DictDb, id: i64) -> Result<(), Error> {
    db.table("t")?.insert(record! { "id": id, "text": format!("record {id}") }).map(drop)
}

/// A store of ten records.
fn store(storage: &Sick) -> DictDb {
    let db = options(storage).open(DIR).unwrap();
    db.create_table("t", "id").unwrap();
    (0..10).for_each(|id| insert(&db, id).unwrap());
    db
}

/// All writes there are, each of which must be refused with the same first cause.
fn refused_with(db: &DictDb, is_cause: impl Fn(&Error) -> bool) {
    let writes: [(&str, Result<(), Error>); 7] = [
        ("insert", insert(db, 1_000)),
        ("transaction", db.transaction(|tx| tx.table("t")?.insert(record! { "id": 1_000 })).map(drop)),
        ("an empty transaction", db.transaction(|_| Ok(()))),
        ("create", db.create_table("u", "id").map(drop)),
        ("drop", db.drop_table("t")),
        ("sync", db.sync()),
        ("checkpoint", db.checkpoint().map(drop)),
    ];
    for (what, outcome) in writes {
        match outcome {
            Err(Error::Poisoned { cause }) if is_cause(&cause) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    let poisoned = db.durability_report().poisoned.unwrap();
    assert!(is_cause(&poisoned), "{poisoned}");
    assert!(db.durability_report().to_string().contains("POISONED"));
}

/// Ids are those of `expected`, in order, and perhaps the next of `perhaps`.
fn holds(db: &DictDb, expected: i64, perhaps: i64) -> i64 {
    let ids: Vec<_> = db.table("t").unwrap().iter().unwrap().map(|(_, record)| record["id"].clone()).collect();
    let found = ids.len() as i64;
    assert!(ids.iter().zip(0..).all(|(id, n)| *id == n), "{ids:?}");
    assert!((expected..=expected + perhaps).contains(&found), "{found} records, {expected} were acknowledged");
    found
}

#[test]
fn after_one_failed_operation_of_the_log_every_write_gets_its_cause_reads_go_on_and_reopening_decides() {
    for (op, fails, name) in [
        (Op::Sync, 10, "sync"),
        (Op::Write, 10, "append to"),
        (Op::Create, 12, "create"),
        (Op::Rename, 12, "rename a temporary file to"),
        (Op::SyncDir, 12, "sync directory"),
    ] {
        let storage = Sick::default();
        // A segment holds about twelve such commits: those that make a file fail when the next one is begun.
        let db = options(&storage).segment_bytes(800).open(DIR).unwrap();
        db.create_table("t", "id").unwrap();
        (0..fails - 2).for_each(|id| insert(&db, id).unwrap());
        let mut acked = fails - 2;
        storage.once(op, Ill::Fails(ErrorKind::Other));
        let first = loop {
            match insert(&db, acked) {
                Ok(()) => acked += 1,
                Err(error) => break error,
            }
            assert!(acked < 100, "{op:?} never failed");
        };
        assert!(storage.is_cured());
        let is_cause = |cause: &Error| matches!(cause, Error::Io { op, .. } if *op == name || *op == "sync");
        assert!(matches!(&first, Error::Poisoned { cause } if is_cause(cause)), "{op:?}: {first:?}");
        assert!(!first.is_disk_full() && first.to_string().contains("reopen"), "{first}");
        // The disk is well again, and the store is not: what was not written lies between.
        refused_with(&db, is_cause);
        refused_with(&db.clone(), is_cause);
        assert_eq!(db.table("t").unwrap().get(0).unwrap().unwrap()["text"], "record 0");
        let clone = db.clone();
        match db.close() {
            Err(Error::Poisoned { cause }) if is_cause(&cause) => {}
            other => panic!("{op:?}: {other:?}"),
        }
        // The lock is free though a clone lives.
        let db = options(&storage).open(DIR).unwrap();
        let report = db.open_report().unwrap();
        assert!(!report.clean && report.damage.is_none(), "{report}");
        let found = holds(&db, acked, 1);
        insert(&db, found).unwrap();
        assert!(insert(&clone, 77).is_err());
        drop(clone);
        drop(db);
        assert_eq!(holds(&options(&storage).open(DIR).unwrap(), found + 1, 0), found + 1, "{op:?}");
    }
}

#[test]
fn a_poisoned_store_that_is_dropped_writes_nothing_more() {
    let storage = Sick::default();
    let db = options(&storage).durability(Durability::Manual).open(DIR).unwrap();
    db.create_table("t", "id").unwrap();
    (0..10).for_each(|id| insert(&db, id).unwrap());
    db.sync().unwrap();
    insert(&db, 10).unwrap();
    storage.once(Op::Sync, Ill::Fails(ErrorKind::Other));
    assert!(matches!(db.sync(), Err(Error::Poisoned { .. })));
    let before: Vec<_> = storage.files.paths().iter().map(|path| storage.files.read(path).unwrap()).collect();
    drop(db);
    let after: Vec<_> = storage.files.paths().iter().map(|path| storage.files.read(path).unwrap()).collect();
    assert!(before == after);
    holds(&options(&storage).open(DIR).unwrap(), 10, 1);
}

#[test]
fn a_full_disk_is_told_apart_opening_needs_no_room_and_with_room_it_goes_on() {
    let storage = Sick::default();
    let db = store(&storage);
    let mut acked = 10;
    let mut space = 0;
    for round in 0..40 {
        // A little more each time: the disk is full in the midst of every step that takes room.
        storage.space(Some(space));
        space += 61;
        let db = if round == 0 { db.clone() } else { options(&storage).open(DIR).unwrap() };
        let found = holds(&db, acked, 1);
        acked = found;
        let full = loop {
            match insert(&db, acked) {
                Ok(()) => acked += 1,
                Err(error) => break error,
            }
            assert!(acked < 10_000, "never full");
        };
        assert!(full.is_disk_full() && matches!(full, Error::Poisoned { .. }), "{full:?}");
        assert!(full.to_string().contains("full"), "{full}");
        refused_with(&db, Error::is_disk_full);
        assert!(db.table("t").unwrap().len().unwrap() as i64 >= acked);
        assert!(db.close().unwrap_err().is_disk_full());
        // Looking, too, needs no room.
        holds(&options(&storage).open_read_only(DIR).unwrap(), acked, 1);
    }
    drop(db);
    storage.space(None);
    let db = options(&storage).open(DIR).unwrap();
    let found = holds(&db, acked, 1);
    (found..found + 50).for_each(|id| insert(&db, id).unwrap());
    db.checkpoint().unwrap();
    db.close().unwrap();
    holds(&options(&storage).open(DIR).unwrap(), found + 50, 0);
}

#[test]
fn a_checkpoint_that_fails_is_counted_and_the_store_goes_on_without_it() {
    let storage = Sick::default();
    let db = store(&storage);
    let before = storage.files.paths();
    for (count, op) in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::SyncDir].into_iter().enumerate() {
        storage.once(op, Ill::Fails(ErrorKind::Other));
        let failed = db.checkpoint().unwrap_err();
        assert!(matches!(failed, Error::Io { .. }), "{op:?}: {failed:?}");
        let report = db.durability_report();
        assert_eq!((report.checkpoint_failures, report.checkpoint), (count as u64 + 1, None));
        assert_eq!(report.last_checkpoint_failure, Some(failed.to_string()));
        assert!(report.poisoned.is_none() && report.to_string().contains("checkpoints failed in a row"), "{report}");
        // A snapshot whose name may not be durable stays, in case it is: it is sound, and the log is kept beside it.
        let kept = usize::from(op == Op::SyncDir);
        assert_eq!(storage.files.paths().len(), before.len() + kept, "{op:?}");
        assert!(before.iter().all(|path| storage.files.paths().contains(path)), "{op:?}");
    }
    let before = storage.files.paths();
    storage.space(Some(100));
    assert!(matches!(db.checkpoint(), Err(Error::DiskFull { .. })));
    storage.space(None);
    assert_eq!(storage.files.paths(), before);
    insert(&db, 10).unwrap();
    db.checkpoint().unwrap();
    let report = db.durability_report();
    assert_eq!((report.checkpoint_failures, report.last_checkpoint_failure), (0, None));
    drop(db);
    holds(&options(&storage).open(DIR).unwrap(), 11, 0);
}

/// A crash may take it, and the newest may be damaged then.
#[test]
fn a_snapshot_whose_name_may_not_be_durable_is_nobodys_fall_back() {
    let storage = Sick::default();
    let db = store(&storage);
    let snapshots = || {
        let is_one = |path: &std::path::PathBuf| path.to_string_lossy().contains("/dictdb_snapshot_");
        storage.files.paths().into_iter().filter(is_one).collect::<Vec<_>>()
    };
    db.checkpoint().unwrap();
    insert(&db, 10).unwrap();
    storage.once(Op::SyncDir, Ill::Fails(ErrorKind::Other));
    db.checkpoint().unwrap_err();
    insert(&db, 11).unwrap();
    db.checkpoint().unwrap();
    let [_, unsure, newest] = &snapshots()[..] else { panic!("{:?}", snapshots()) };
    let files = MemoryStorage::new();
    for path in storage.files.paths().into_iter().filter(|path| path != unsure) {
        let mut bytes = storage.files.read(&path).unwrap();
        if path == *newest {
            bytes.truncate(200);
        }
        files.write(&path, bytes).unwrap();
    }
    let after_a_crash = Options::new().storage(files).checkpoint(CheckpointPolicy::manual()).open(DIR).unwrap();
    assert!(after_a_crash.open_report().unwrap().fell_back);
    holds(&after_a_crash, 12, 0);
    // Behind the next one it is superfluous.
    insert(&db, 12).unwrap();
    db.checkpoint().unwrap();
    assert_eq!(snapshots().len(), 2);
}

#[test]
fn a_close_that_cannot_seal_says_so_loses_nothing_and_gives_the_lock_back() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
        let storage = Sick::default();
        let db = store(&storage);
        storage.once(op, Ill::Fails(ErrorKind::Other));
        let failed = db.close().unwrap_err();
        assert!(matches!(failed, Error::Io { .. }), "{op:?}: {failed:?}");
        assert!(storage.is_cured());
        let db = options(&storage).open(DIR).unwrap();
        holds(&db, 10, 0);
        insert(&db, 10).unwrap();
        db.close().unwrap();
        holds(&options(&storage).open(DIR).unwrap(), 11, 0);
    }
}

#[test]
fn an_open_that_fails_gives_the_lock_back_and_changes_nothing() {
    let storage = Sick::default();
    drop(store(&storage));
    let before = storage.files.paths();
    for op in [Op::Lock, Op::SyncDir] {
        storage.once(op, Ill::Fails(ErrorKind::PermissionDenied));
        match options(&storage).open(DIR) {
            Err(Error::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::PermissionDenied),
            other => panic!("{op:?}: {other:?}"),
        }
        assert_eq!(storage.files.paths(), before);
    }
    // A file system that nothing can be written to.
    let all = [Op::Create, Op::Write, Op::Sync, Op::SyncDir, Op::Rename, Op::Lock];
    storage.plan.lock().unwrap().forever = all.map(|op| (op, ErrorKind::ReadOnlyFilesystem)).to_vec();
    match options(&storage).open(DIR) {
        Err(Error::Io { op: "lock", source, .. }) => assert_eq!(source.kind(), ErrorKind::ReadOnlyFilesystem),
        other => panic!("{other:?}"),
    }
    holds(&options(&storage).open_read_only(DIR).unwrap(), 10, 0);
    storage.plan.lock().unwrap().forever.clear();
    holds(&options(&storage).open(DIR).unwrap(), 10, 0);
}

/// Four threads commit; none of the syncs before which `hold` waits is let through until all four wait for one.
fn four_wait_for_one_sync(ill: Ill, is_cause: impl Fn(&Error) -> bool) {
    let storage = Sick::default();
    let db = store(&storage);
    let before = db.seq();
    let all = db.clone();
    let hold = move || {
        let mut turns = 0_u64;
        while all.seq().since(before) < 4 {
            turns += 1;
            assert!(turns < 2_000_000_000, "four commits never came");
            thread::yield_now();
        }
    };
    storage.plan.lock().unwrap().before_sync = Some(Arc::new(hold));
    storage.once(Op::Sync, ill);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let writers: Vec<_> = (10..14)
            .map(|id| {
                scope.spawn({
                    let db = &db;
                    move || insert(db, id)
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    storage.plan.lock().unwrap().before_sync = None;
    let mut causes = Vec::new();
    for outcome in outcomes {
        match outcome {
            Err(Error::Poisoned { cause }) if is_cause(&cause) => causes.push(cause),
            other => panic!("{other:?}"),
        }
    }
    assert!(causes.iter().all(|cause| Arc::ptr_eq(cause, &causes[0])), "one cause for all");
    refused_with(&db, &is_cause);
    assert!(matches!(db.close(), Err(Error::Poisoned { .. })));
    let db = options(&storage).open(DIR).unwrap();
    assert!((10..=14).contains(&db.table("t").unwrap().len().unwrap()));
    insert(&db, 100).unwrap();
}

#[test]
fn under_manual_a_writer_goes_on_while_the_disk_hangs_on_what_has_gathered() {
    let storage = Sick::default();
    let db = options(&storage).durability(Durability::Manual).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let writer = thread::current().id();
    let (arrived, arrival) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let hang = move || {
        assert_ne!(thread::current().id(), writer, "the writer syncs");
        arrived.send(()).unwrap();
        // Until the other end is gone.
        let _ = held.lock().unwrap().recv();
    };
    storage.plan.lock().unwrap().before_sync = Some(Arc::new(hang));
    let large = "x".repeat(1 << 20);
    for id in 0..3 {
        table.insert(record! { "id": id, "text": large.as_str() }).unwrap();
    }
    arrival.recv().unwrap();
    for id in 3..8 {
        table.insert(record! { "id": id, "text": large.as_str() }).unwrap();
    }
    assert_eq!(table.len().unwrap(), 8);
    storage.plan.lock().unwrap().before_sync = None;
    drop(release);
    db.close().unwrap();
    assert_eq!(options(&storage).open(DIR).unwrap().table("t").unwrap().len().unwrap(), 8);
}

/// Otherwise what waits for a slow disk would fill the memory.
#[test]
fn a_writer_waits_once_8_mib_are_not_written_under_manual_and_with_an_interval() {
    const ROW: usize = 1 << 20;
    for durability in [Durability::Manual, Durability::Interval(Duration::from_secs(3_600))] {
        let storage = Sick::default();
        let db = options(&storage).segment_bytes(64 << 20).durability(durability).open(DIR).unwrap();
        let table = db.create_table("t", "id").unwrap();
        db.sync().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        // Until the other end is gone.
        let hang = move || _ = held.lock().unwrap().recv();
        storage.plan.lock().unwrap().before_sync = Some(Arc::new(hang));
        let done = Arc::new(AtomicUsize::new(0));
        let (made, writing) = (Arc::clone(&done), db.clone());
        let writer = thread::spawn(move || {
            let text = "x".repeat(ROW);
            for id in 0..40 {
                table.insert(record! { "id": id, "text": text.as_str() }).unwrap();
                made.fetch_add(1, Ordering::SeqCst);
                let report = writing.durability_report();
                let waiting = report.memory.get() - report.written.unwrap().get();
                // What the hanging sync is for counts as not written.
                assert!(waiting <= 18, "{waiting} MiB are not written, and the writer goes on: {report}");
            }
        });
        // Once it does not go on the disk does.
        let mut before = usize::MAX;
        while before != done.load(Ordering::SeqCst) {
            before = done.load(Ordering::SeqCst);
            thread::sleep(Duration::from_millis(100));
        }
        storage.plan.lock().unwrap().before_sync = None;
        drop(release);
        writer.join().unwrap();
        assert_eq!(db.table("t").unwrap().len().unwrap(), 40);
    }
}

#[test]
fn four_writers_that_wait_for_one_failing_sync_all_get_its_error() {
    four_wait_for_one_sync(Ill::Fails(ErrorKind::Other), |cause| matches!(cause, Error::Io { op: "sync", .. }));
}

#[test]
fn four_writers_that_wait_for_a_sync_that_panics_are_all_answered() {
    four_wait_for_one_sync(Ill::Panics, |cause| matches!(cause, Error::Panicked));
}

#[test]
fn a_storage_that_panics_anywhere_in_the_log_poisons_and_hangs_nobody() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
        let storage = Sick::default();
        let db = store(&storage);
        storage.once(op, Ill::Panics);
        let mut acked = 10;
        let broken = loop {
            match insert(&db, acked) {
                Ok(()) => acked += 1,
                Err(error) => break error,
            }
            assert!(acked < 1_000, "{op:?} never came");
        };
        assert!(matches!(&broken, Error::Poisoned { cause } if matches!(**cause, Error::Panicked)), "{broken:?}");
        refused_with(&db, |cause| matches!(cause, Error::Panicked));
        thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(|| assert!(insert(&db, 500).is_err()))));
        assert!(matches!(db.close(), Err(Error::Poisoned { .. })));
        let db = options(&storage).open(DIR).unwrap();
        let found = holds(&db, acked, 1);
        insert(&db, found).unwrap();
    }
}

#[test]
fn a_storage_that_panics_in_a_checkpoint_breaks_that_one_and_nothing_else() {
    let storage = Sick::default();
    let db = store(&storage);
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
        storage.once(op, Ill::Panics);
        assert!(catch_unwind(AssertUnwindSafe(|| db.checkpoint().map(drop))).is_err());
    }
    insert(&db, 10).unwrap();
    db.checkpoint().unwrap();
    insert(&db, 11).unwrap();
    drop(db);
    holds(&options(&storage).open(DIR).unwrap(), 12, 0);
}

#[test]
fn with_an_interval_a_failed_sync_is_told_to_the_next_write_and_to_close() {
    let storage = Sick::default();
    let interval = Durability::Interval(std::time::Duration::from_millis(1));
    let db = options(&storage).durability(interval).open(DIR).unwrap();
    db.create_table("t", "id").unwrap();
    db.sync().unwrap();
    storage.plan.lock().unwrap().forever = vec![(Op::Sync, ErrorKind::Other)];
    let (mut acked, mut turns) = (0, 0_u64);
    let told = loop {
        match insert(&db, acked) {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
        while db.durability_report().poisoned.is_none() {
            turns += 1;
            assert!(turns < 2_000_000_000, "the store's own thread never failed");
            thread::yield_now();
        }
    };
    let is_cause = |error: &Error| matches!(error, Error::Poisoned { cause } if matches!(**cause, Error::Io { .. }));
    assert!(is_cause(&told), "{told:?}");
    storage.plan.lock().unwrap().forever.clear();
    assert!(is_cause(&db.close().unwrap_err()));
    holds(&options(&storage).open(DIR).unwrap(), 0, acked);
}

/// What the failed write was to begin with is not in the queue of what is not synced.
#[test]
fn a_sync_behind_a_first_write_that_failed_is_refused_with_its_cause() {
    let storage = Sick::default();
    store(&storage).close().unwrap();
    let db = options(&storage).durability(Durability::Manual).open(DIR).unwrap();
    storage.once(Op::Create, Ill::Fails(ErrorKind::Other));
    assert!(matches!(insert(&db, 10), Err(Error::Poisoned { .. })));
    assert!(storage.is_cured());
    refused_with(&db, |cause| matches!(cause, Error::Io { op: "create", .. }));
}

#[test]
fn a_storage_that_panics_in_a_close_keeps_no_lock() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
        let storage = Sick::default();
        let db = store(&storage);
        storage.once(op, Ill::Panics);
        assert!(catch_unwind(AssertUnwindSafe(|| db.clone().close().map(drop))).is_err(), "{op:?}");
        let again = options(&storage).open(DIR).unwrap();
        holds(&again, 10, 0);
        assert!(!again.open_report().unwrap().clean, "{op:?}");
    }
}
