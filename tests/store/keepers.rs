//! What a store does by itself, whatever stands in its way: syncs of an interval, checkpoints, tidying up.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dictdb::{
    BackupFormat, BackupManager, CheckpointPolicy, Clock, DictDb, Durability, Error, ManualClock, MemoryStorage,
    Options, Promotion, Storage, SystemClock, Timestamp, record,
};

use super::hooked::{Hooked, Op};

const DIR: &str = "/data";
const A_MILLISECOND: Durability = Durability::Interval(Duration::from_millis(1));
const AGES: Duration = Duration::from_secs(10);

fn is_snapshot(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().contains("dictdb_snapshot_")
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
    // Whoever reads back a snapshot that was just written is held up.
    let (reading, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_reading, may_go_on) = (Arc::clone(&reading), Arc::clone(&go_on));
    let storage = Hooked::new(move |op, path| {
        if op == Op::Open && is_snapshot(path) {
            is_reading.store(true, Ordering::SeqCst);
            while !may_go_on.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
        Ok(())
    });
    let policy = CheckpointPolicy::automatic().log_bytes(1_000);
    let db = Options::new().storage(storage).durability(A_MILLISECOND).checkpoint(policy).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    while !reading.load(Ordering::SeqCst) {
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
        go_on.store(true, Ordering::SeqCst);
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

#[test]
fn the_time_that_reading_the_snapshot_takes_calls_for_no_checkpoints() {
    let clock = ManualClock::new(Timestamp::from_micros(1_000_000_000));
    let written = Arc::new(AtomicU64::new(0));
    let (passes, published) = (clock.clone(), Arc::clone(&written));
    let storage = Hooked::new(move |op, path| {
        match op {
            Op::Open if is_snapshot(path) => passes.advance(Duration::from_secs(60)),
            Op::Publish if is_snapshot(path) => _ = published.fetch_add(1, Ordering::SeqCst),
            _ => {}
        }
        Ok(())
    });
    let options = Options::new().storage(storage).clock(clock).durability(Durability::Manual);
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
    let before = written.load(Ordering::SeqCst);
    for _ in 0..10 {
        fill(&db, 4);
        thread::sleep(Duration::from_millis(20));
    }
    drop(db);
    assert_eq!(written.load(Ordering::SeqCst), before, "of 64 MiB of log there were 42");
}

#[test]
fn leftovers_that_cannot_be_removed_hold_up_nothing_and_go_with_a_later_checkpoint() {
    let keeps = Arc::new(AtomicBool::new(false));
    let stubborn = Arc::clone(&keeps);
    let storage = Hooked::new(move |op, path| {
        let is_leftover = path.extension().is_some_and(|end| end == "tmp");
        match op {
            Op::Remove if is_leftover && stubborn.load(Ordering::SeqCst) => Err(ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        }
    });
    let leftovers = || {
        let is_one = |path: &PathBuf| path.extension().is_some_and(|end| end == "tmp");
        storage.files.paths().into_iter().filter(is_one).count()
    };
    for n in 0..3 {
        storage.files.write(format!("{DIR}/.dictdb_log_1_00000{n}.log.7-{n}.tmp"), *b"left").unwrap();
    }
    let db = Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual()).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    keeps.store(true, Ordering::SeqCst);
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
    keeps.store(false, Ordering::SeqCst);
    let report = db.checkpoint().unwrap();
    assert_eq!((leftovers(), report.removed.len(), report.not_removed), (0, 3, None));
}

/// A store of which each automatic checkpoint fails, and how many were tried.
fn with_failing_checkpoints(fail: impl Fn() -> std::io::Error + Send + Sync + 'static) -> (DictDb, Arc<AtomicU64>) {
    let tried = Arc::new(AtomicU64::new(0));
    let tries = Arc::clone(&tried);
    let storage = Hooked::new(move |op, path| {
        if op != Op::Create || !is_snapshot(path) {
            return Ok(());
        }
        tries.fetch_add(1, Ordering::SeqCst);
        Err(fail())
    });
    let policy = CheckpointPolicy::automatic().log_bytes(1 << 20);
    let options = Options::new().storage(storage).durability(Durability::Manual).checkpoint(policy);
    (options.open(DIR).unwrap(), tried)
}

#[test]
fn an_automatic_checkpoint_that_panics_is_counted_and_not_tried_at_every_look() {
    let (db, tried) = with_failing_checkpoints(|| panic!("the storage panics"));
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
    assert!(report.checkpoint_failures <= tried.load(Ordering::SeqCst));
    assert!(report.last_checkpoint_failure.is_some_and(|why| why.contains("panicked")));
    let (before, tries) = (db.durability_report().log_bytes, tried.load(Ordering::SeqCst));
    while db.durability_report().log_bytes < 8 * before {
        table.upsert(record! { "id": commits % 10, "text": text.as_str() }).unwrap();
        commits += 1;
    }
    // One each quarter more: nine and a bit for a log that grows to eight times its length. A look comes each 64 KiB.
    let tries = tried.load(Ordering::SeqCst) - tries;
    assert!(tries <= 11, "{tries} tries from {before} bytes of log on");
}

#[test]
fn an_automatic_checkpoint_that_fails_is_not_tried_again_at_once_though_the_log_grew_meanwhile() {
    let (db, tried) = with_failing_checkpoints(|| {
        // A while, in which the log grows by many looks.
        thread::sleep(Duration::from_millis(20));
        ErrorKind::StorageFull.into()
    });
    let table = db.create_table("t", "id").unwrap();
    let text = "x".repeat(10_000);
    for n in 0..10_000 {
        table.upsert(record! { "id": n % 10, "text": text.as_str() }).unwrap();
        if n % 20 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    // A quarter more each time, from 1 MiB to 96.
    let tries = tried.load(Ordering::SeqCst);
    assert!((1..=22).contains(&tries), "{tries} tries, each of which costs a snapshot");
}

#[test]
fn a_close_waits_for_no_checkpoint_whose_storage_writes_to_the_database_whoever_makes_it() {
    for by_hand in [false, true] {
        let (inside, is_inside) = mpsc::channel();
        let audit: Arc<OnceLock<dictdb::Table>> = Arc::default();
        let trail = Arc::clone(&audit);
        let storage = Hooked::new(move |op, path| {
            if op == Op::Create
                && is_snapshot(path)
                && let Some(table) = trail.get()
            {
                let _ = inside.send(());
                // Until the closes are under way.
                thread::sleep(Duration::from_millis(200));
                let _ = table.insert(record! { "text": "a checkpoint begins" });
            }
            Ok(())
        });
        let automatic = CheckpointPolicy::automatic().log_bytes(1_000);
        let policy = if by_hand { CheckpointPolicy::manual() } else { automatic };
        let db = Options::new().storage(storage).checkpoint(policy).open(DIR).unwrap();
        let table = db.create_table("t", "id").unwrap();
        audit.set(table.clone()).unwrap();
        for _ in 0..50 {
            table.insert(record! { "text": "x".repeat(100) }).unwrap();
        }
        if by_hand {
            let db = db.clone();
            thread::spawn(move || db.checkpoint().map(drop));
        }
        is_inside.recv_timeout(AGES).unwrap();
        let (done, is_done) = mpsc::channel();
        for db in [db.clone(), db] {
            let done = done.clone();
            thread::spawn(move || done.send(db.close().map(drop)).unwrap());
        }
        for _ in 0..2 {
            is_done.recv_timeout(AGES).expect("they wait for one another").ok();
        }
    }
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

#[test]
fn commits_made_while_a_checkpoint_is_written_count_as_log_behind_it() {
    let audit: Arc<OnceLock<dictdb::Table>> = Arc::default();
    let trail = Arc::clone(&audit);
    let storage = Hooked::new(move |op, path| {
        if op == Op::Publish
            && is_snapshot(path)
            && let Some(table) = trail.get()
        {
            table.insert(record! { "text": "while it is published" }).unwrap();
        }
        Ok(())
    });
    let db = Options::new().storage(storage).checkpoint(CheckpointPolicy::manual()).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let grows_by = |text: &str| {
        let before = db.durability_report().log_bytes;
        table.insert(record! { "text": text }).unwrap();
        db.durability_report().log_bytes - before
    };
    let one = grows_by("while it is published");
    audit.set(table.clone()).unwrap();
    assert_eq!(db.checkpoint().unwrap().seq.get(), 2);
    assert_eq!((db.seq().get(), db.durability_report().log_bytes), (3, one));
}

/// It would be in memory at once, and is no smaller than a full backup.
#[test]
fn a_delta_of_more_than_the_log_is_read_for_becomes_a_full_backup() {
    let storage = MemoryStorage::new();
    let options = Options::new().storage(storage.clone()).checkpoint(CheckpointPolicy::manual());
    let db = options.ring_bytes(0).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let builder = BackupManager::builder(&db, "/backups").storage(storage.clone()).file_format(BackupFormat::Binary);
    let manager = builder.incremental(true).build().unwrap();
    manager.backup_full().unwrap();
    let text = "x".repeat(1 << 20);
    for (commits, promoted) in [(7, None), (9, Some(Promotion::Gap))] {
        for _ in 0..commits {
            table.insert(record! { "text": text.as_str() }).unwrap();
        }
        let report = manager.backup_delta().unwrap();
        assert_eq!(report.promoted, promoted, "{report}");
    }
}

#[test]
fn a_snapshot_that_does_not_come_back_as_it_was_written_is_not_published_and_nothing_goes_for_it() {
    let disk: Arc<OnceLock<MemoryStorage>> = Arc::default();
    let rotting = Arc::clone(&disk);
    let storage = Hooked::new(move |op, path| {
        if op == Op::Open
            && is_snapshot(path)
            && path.extension().unwrap() == "tmp"
            && let Some(files) = rotting.get()
        {
            let mut bytes = files.read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            files.write(path, bytes).unwrap();
        }
        Ok(())
    });
    let files = storage.files.clone();
    let db = Options::new().storage(storage).checkpoint(CheckpointPolicy::manual()).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    for _ in 0..2 {
        table.insert(record! { "text": "x".repeat(1_000) }).unwrap();
        db.checkpoint().unwrap();
    }
    table.insert(record! { "text": "x".repeat(1_000) }).unwrap();
    let before = files.paths();
    disk.set(files.clone()).unwrap();
    let error = db.checkpoint().unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!((files.paths(), db.durability_report().checkpoint_failures), (before, 1));
}

#[test]
fn a_leftover_that_somebody_else_has_removed_hinders_no_checkpoint() {
    let files = MemoryStorage::new();
    let leftover = Path::new(DIR).join(".dictdb_log_1_000000.log.123-0.tmp");
    let options = Options::new().storage(files.clone()).checkpoint(CheckpointPolicy::manual());
    drop(options.open(DIR).unwrap());
    files.write(&leftover, b"half a header".to_vec()).unwrap();
    let db = options.open(DIR).unwrap();
    assert_eq!(db.open_report().unwrap().leftovers, 1);
    files.remove(&leftover).unwrap();
    db.create_table("t", "id").unwrap();
    assert_eq!(db.checkpoint().unwrap().not_removed, None);
}

#[test]
fn no_automatic_checkpoint_comes_before_the_log_has_as_many_bytes_as_the_newest_snapshot() {
    let policy = CheckpointPolicy::automatic().log_bytes(1_000).max_recovery_time(Duration::MAX);
    let options = Options::new().storage(MemoryStorage::new()).durability(Durability::Manual).checkpoint(policy);
    let mut db = options.open(DIR).unwrap();
    db.create_table("t", "id").unwrap().insert(record! { "text": "x".repeat(1 << 20) }).unwrap();
    let began = Instant::now();
    while db.durability_report().checkpoint != Some(db.seq()) {
        assert!(began.elapsed() < AGES, "{}", db.durability_report());
        thread::yield_now();
    }
    let newest = db.durability_report().checkpoint;
    for is_found in [false, true] {
        if is_found {
            db.close().unwrap();
            db = options.open(DIR).unwrap();
        }
        for _ in 0..20 {
            db.table("t").unwrap().insert(record! { "text": "x".repeat(1_000) }).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(db.durability_report().checkpoint, newest, "found in the directory: {is_found}");
    }
    db.table("t").unwrap().insert(record! { "text": "x".repeat(1 << 20) }).unwrap();
    let began = Instant::now();
    while db.durability_report().checkpoint == newest {
        assert!(began.elapsed() < AGES, "{}", db.durability_report());
        thread::yield_now();
    }
}
