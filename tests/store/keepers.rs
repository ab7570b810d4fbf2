//! What a store does by itself, whatever stands in its way: syncs of an interval, checkpoints, tidying up.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dictdb::{
    BackupFormat, BackupManager, CheckpointPolicy, Clock, DictDb, Durability, ManualClock, MemoryStorage, Options,
    ReadFile, Storage, SystemClock, Timestamp, record,
};

const DIR: &str = "/data";
const A_MILLISECOND: Durability = Durability::Interval(Duration::from_millis(1));
const AGES: Duration = Duration::from_secs(10);

fn is_snapshot(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().contains("dictdb_snapshot_")
}

/// Holds up whoever reads back a snapshot that was just written.
#[derive(Clone, Debug, Default)]
struct Slow {
    files: MemoryStorage,
    reading: Arc<AtomicBool>,
    go_on: Arc<AtomicBool>,
}

impl Storage for Slow {
    left_to_files! { create_dir_all list create rename rename_new remove sync_dir lock }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn ReadFile>> {
        if is_snapshot(path) {
            self.reading.store(true, Ordering::SeqCst);
            while !self.go_on.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
        self.files.open(path)
    }
}

/// The commits that `db` has acknowledged by now become durable, within ages.
fn becomes_durable(db: &DictDb) -> Result<(), String> {
    let (acked, began) = (db.seq(), Instant::now());
    while db.durability_report().synced.unwrap() < acked {
        if began.elapsed() > AGES {
            return Err(format!("seq {acked} is not durable: {}", db.durability_report()));
        }
        thread::yield_now();
    }
    Ok(())
}

#[test]
fn an_interval_holds_for_commits_made_while_a_close_waits_for_a_checkpoint() {
    let storage = Slow::default();
    let policy = CheckpointPolicy::automatic().log_bytes(1_000);
    let db = Options::new().storage(storage.clone()).durability(A_MILLISECOND).checkpoint(policy).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    while !storage.reading.load(Ordering::SeqCst) {
        table.insert(record! { "text": "x".repeat(100) }).unwrap();
        thread::yield_now();
    }
    let is_over = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let closing = db.clone();
        scope.spawn(move || closing.close().map(drop));
        let commits = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) && table.insert(record! {}).is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let outcome = (0..50).try_for_each(|_| {
            thread::sleep(Duration::from_millis(2));
            becomes_durable(&db)
        });
        storage.go_on.store(true, Ordering::SeqCst);
        is_over.store(true, Ordering::SeqCst);
        commits.join().unwrap();
        outcome
    });
    assert_eq!(outcome, Ok(()));
}

/// Panics once it is told to.
#[derive(Clone, Debug, Default)]
struct PanicsOnce(Arc<AtomicBool>);

impl Clock for PanicsOnce {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        assert!(!self.0.swap(false, Ordering::SeqCst), "the clock panics");
        SystemClock.monotonic()
    }
}

#[test]
fn a_clock_that_panics_once_ends_no_interval() {
    let clock = PanicsOnce::default();
    let options = Options::new().storage(MemoryStorage::new()).clock(clock.clone()).durability(A_MILLISECOND);
    let db = options.checkpoint(CheckpointPolicy::manual()).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    db.sync().unwrap();
    clock.0.store(true, Ordering::SeqCst);
    while clock.0.load(Ordering::SeqCst) {
        table.insert(record! {}).unwrap();
        thread::yield_now();
    }
    for _ in 0..20 {
        table.insert(record! {}).unwrap();
        becomes_durable(&db).unwrap();
    }
}

/// Each reading of a snapshot takes a minute.
#[derive(Clone, Debug)]
struct Large {
    files: MemoryStorage,
    clock: ManualClock,
    written: Arc<AtomicU64>,
}

impl Storage for Large {
    left_to_files! { create_dir_all list create rename remove sync_dir lock }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn ReadFile>> {
        if is_snapshot(path) {
            self.clock.advance(Duration::from_secs(60));
        }
        self.files.open(path)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.written.fetch_add(u64::from(is_snapshot(to)), Ordering::SeqCst);
        self.files.rename_new(from, to)
    }
}

#[test]
fn the_time_that_reading_the_snapshot_takes_calls_for_no_checkpoints() {
    let clock = ManualClock::new(Timestamp::from_micros(1_000_000_000));
    let storage = Large { files: MemoryStorage::new(), clock: clock.clone(), written: Arc::default() };
    let options = Options::new().storage(storage.clone()).clock(clock).durability(Durability::Manual);
    let text = "x".repeat(1_000);
    let fill = |db: &DictDb, mebibytes: i64| {
        let table = db.table("t").unwrap();
        for id in 0..mebibytes * 1_050 {
            table.upsert(record! { "id": id % 100, "text": text.as_str() }).unwrap();
        }
    };
    let db = options.clone().checkpoint(CheckpointPolicy::manual()).open(DIR).unwrap();
    db.create_table("t", "id").unwrap();
    db.checkpoint().unwrap();
    fill(&db, 2);
    db.close().unwrap();

    // By this clock the two mebibytes are replayed in no time.
    let db = options.checkpoint(CheckpointPolicy::automatic()).open(DIR).unwrap();
    let before = storage.written.load(Ordering::SeqCst);
    for _ in 0..10 {
        fill(&db, 4);
        thread::sleep(Duration::from_millis(20));
    }
    drop(db);
    assert_eq!(storage.written.load(Ordering::SeqCst), before, "of 64 MiB of log there were 42");
}

/// Removes no temporary file, for a while, and panics where it is to make a snapshot, for another.
#[derive(Clone, Debug, Default)]
struct Stubborn {
    files: MemoryStorage,
    keeps: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    tried: Arc<AtomicU64>,
}

impl Storage for Stubborn {
    left_to_files! { create_dir_all list open rename rename_new sync_dir lock }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn dictdb::WriteFile>> {
        if is_snapshot(path) && self.panics.load(Ordering::SeqCst) {
            self.tried.fetch_add(1, Ordering::SeqCst);
            panic!("the storage panics");
        }
        self.files.create(path)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        if path.extension().is_some_and(|end| end == "tmp") && self.keeps.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        self.files.remove(path)
    }
}

#[test]
fn leftovers_that_cannot_be_removed_hold_up_nothing_and_go_with_a_later_checkpoint() {
    let storage = Stubborn::default();
    let leftovers = || {
        let is_one = |path: &PathBuf| path.extension().is_some_and(|end| end == "tmp");
        storage.files.paths().into_iter().filter(is_one).count()
    };
    for n in 0..3 {
        storage.files.write(format!("{DIR}/.dictdb_log_1_00000{n}.log.7-{n}.tmp"), *b"left").unwrap();
    }
    let db = Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual()).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    storage.keeps.store(true, Ordering::SeqCst);
    for removed in [0, 0, 1] {
        table.insert(record! {}).unwrap();
        let report = db.checkpoint().unwrap();
        assert!(report.not_removed.clone().is_some_and(|why| why.contains("permission denied")), "{report}");
        assert_eq!(
            (leftovers(), report.removed.len()),
            (3, removed),
            "superfluous snapshots go all the same: {report}"
        );
    }
    storage.keeps.store(false, Ordering::SeqCst);
    let report = db.checkpoint().unwrap();
    assert_eq!((leftovers(), report.removed.len(), report.not_removed), (0, 3, None));
}

#[test]
fn an_automatic_checkpoint_that_panics_is_counted_and_not_tried_at_every_look() {
    let storage = Stubborn::default();
    storage.panics.store(true, Ordering::SeqCst);
    let policy = CheckpointPolicy::automatic().log_bytes(1 << 20);
    let options = Options::new().storage(storage.clone()).durability(Durability::Manual).checkpoint(policy);
    let db = options.open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let text = "x".repeat(10_000);
    let began = Instant::now();
    let mut commits = 0;
    while db.durability_report().checkpoint_failures < 3 {
        table.upsert(record! { "id": commits % 10, "text": text.as_str() }).unwrap();
        commits += 1;
        assert!(began.elapsed() < AGES, "{}", db.durability_report());
        thread::sleep(Duration::from_micros(100));
    }
    let report = db.durability_report();
    assert!(report.checkpoint_failures <= storage.tried.load(Ordering::SeqCst));
    assert!(report.last_checkpoint_failure.is_some_and(|why| why.contains("panicked")));
    let (before, tries) = (db.durability_report().log_bytes, storage.tried.load(Ordering::SeqCst));
    while db.durability_report().log_bytes < 8 * before {
        table.upsert(record! { "id": commits % 10, "text": text.as_str() }).unwrap();
        commits += 1;
    }
    // One each quarter more: nine and a bit for a log that grows to eight times its length. A look comes each 64 KiB.
    let tries = storage.tried.load(Ordering::SeqCst) - tries;
    assert!(tries <= 11, "{tries} tries from {before} bytes of log on");
}

/// Each try takes a while, in which the log grows by many looks.
#[derive(Clone, Debug, Default)]
struct Full {
    files: MemoryStorage,
    tried: Arc<AtomicU64>,
}

impl Storage for Full {
    left_to_files! { create_dir_all list open rename rename_new remove sync_dir lock }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn dictdb::WriteFile>> {
        if is_snapshot(path) {
            self.tried.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.files.create(path)
    }
}

#[test]
fn an_automatic_checkpoint_that_fails_is_not_tried_again_at_once_though_the_log_grew_meanwhile() {
    let storage = Full::default();
    let policy = CheckpointPolicy::automatic().log_bytes(1 << 20);
    let options = Options::new().storage(storage.clone()).durability(Durability::Manual).checkpoint(policy);
    let db = options.open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let text = "x".repeat(10_000);
    for n in 0..10_000 {
        table.upsert(record! { "id": n % 10, "text": text.as_str() }).unwrap();
        if n % 20 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    // A quarter more each time, from 1 MiB to 96.
    let tries = storage.tried.load(Ordering::SeqCst);
    assert!((1..=22).contains(&tries), "{tries} tries, each of which costs a snapshot");
}

type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Does something of the test's before it makes a snapshot, once.
#[derive(Clone, Default)]
struct Audit {
    files: MemoryStorage,
    hook: Hook,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audit")
    }
}

impl Storage for Audit {
    left_to_files! { create_dir_all list open rename rename_new remove sync_dir lock }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn dictdb::WriteFile>> {
        let hook = if is_snapshot(path) { self.hook.lock().unwrap().take() } else { None };
        if let Some(hook) = hook {
            hook();
        }
        self.files.create(path)
    }
}

#[test]
fn a_close_does_not_wait_for_a_checkpoint_whose_storage_writes_to_the_database() {
    let storage = Audit::default();
    let policy = CheckpointPolicy::automatic().log_bytes(1_000);
    let db = Options::new().storage(storage.clone()).checkpoint(policy).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let (inside, is_inside) = mpsc::channel();
    let audit = table.clone();
    *storage.hook.lock().unwrap() = Some(Box::new(move || {
        inside.send(()).unwrap();
        // Until the close is under way.
        thread::sleep(Duration::from_millis(200));
        let _ = audit.insert(record! { "text": "a checkpoint begins" });
    }));
    for _ in 0..50 {
        table.insert(record! { "text": "x".repeat(100) }).unwrap();
    }
    is_inside.recv_timeout(AGES).unwrap();
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(db.close().map(drop)).unwrap());
    is_done.recv_timeout(AGES).expect("they wait for one another").unwrap();
}

#[test]
fn a_delta_comes_out_of_the_log_though_a_large_commit_lies_before_it_there() {
    let storage = MemoryStorage::new();
    let options = Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual());
    let db = options.ring_bytes(0).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    table.insert(record! { "text": "x".repeat(9 << 20) }).unwrap();
    let builder = BackupManager::builder(&db, "/backups").storage(storage.clone()).file_format(BackupFormat::Binary);
    let manager = builder.incremental(true).build().unwrap();
    manager.backup_full().unwrap();
    for n in 0..3 {
        table.insert(record! { "n": n }).unwrap();
        let report = manager.backup_delta().unwrap();
        assert_eq!(report.promoted, None, "{report}");
    }
}
