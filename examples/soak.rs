//! Lets a store live for a while: mixed operations from four threads, automatic checkpoints, incremental backups, and each
//! chain restored and compared as it grows. Prints a line every ten seconds; exits with an error on any difference, and
//! where memory or disk outgrow their bounds.
//!
//! ```sh
//! cargo run --release --example soak -- 10                 # minutes; 1 unless said otherwise
//! cargo run --release --example soak -- 10 /path/to/dir    # where; else a temporary directory
//! ```
//!
//! In a directory that is named the store stays, under `data`, and goes on the next time; `backups` must be empty, and is
//! left so.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dictdb::{
    BackupFormat, BackupManager, CheckpointPolicy, Clock, DictDb, Durability, Options, SystemClock, record, restore,
};

type Failure = Box<dyn std::error::Error>;

/// Keys of each thread's table: the state is bounded, so memory and disk must be.
const KEYS: u64 = 20_000;
const THREADS: u64 = 4;
/// A chain is restored, compared and begun anew after this many backups.
const BACKUPS_OF_A_CHAIN: u32 = 24;

const USAGE: &str = "usage: soak [MINUTES [DIR]]

  MINUTES   how long, such as 10 or 0.5; 1 unless said otherwise
  DIR       where: the store stays in DIR/data and goes on the next time, DIR/backups must be empty;
            a temporary directory unless said otherwise";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if matches!(arguments.first().map(String::as_str), Some("--help" | "-h")) {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match soak(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("soak: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn soak(arguments: &[String]) -> Result<(), Failure> {
    let minutes = arguments.first().map_or("1", String::as_str);
    let time = minutes.parse().ok().and_then(|minutes: f64| Duration::try_from_secs_f64(minutes * 60.0).ok());
    let time = time.ok_or_else(|| format!("{minutes:?} is no number of minutes\n\n{USAGE}"))?;
    if let Some(unknown) = arguments.get(2) {
        return Err(format!("{unknown:?} is one argument too many\n\n{USAGE}").into());
    }
    let temporary = tempfile::tempdir()?;
    let dir = arguments.get(1).map_or(temporary.path().to_owned(), PathBuf::from);
    let (data, backups) = (dir.join("data"), dir.join("backups"));
    // Each chain is removed when it is compared: nobody else's files may be among them.
    if std::fs::read_dir(&backups).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} is not empty: name another directory", backups.display()).into());
    }
    let db = options().open(&data)?;
    let before = db.seq();
    for n in 0..THREADS {
        if db.table(&name(n)).is_err() {
            db.create_table(&name(n), "id")?;
        }
    }
    let stop = AtomicBool::new(false);
    let operations = AtomicU64::new(0);
    let outcome = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|n| {
                let (db, stop, operations) = (&db, &stop, &operations);
                scope.spawn(move || write(db, n, stop, operations))
            })
            .collect();
        let outcome = watch(&db, &data, &backups, time, &operations);
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().map_err(|_| "a writer panicked")??;
        }
        outcome
    });
    outcome?;
    let (digest, seq) = (db.digest(), db.seq());
    println!("closing: {}", db.close()?);
    let db = options().open(&data)?;
    println!("{}", db.open_report().ok_or("no report")?);
    if (db.digest(), db.seq()) != (digest, seq) {
        return Err("the reopened store is not what was closed".into());
    }
    let (operations, commits) = (operations.load(Ordering::Relaxed), seq.get() - before.get());
    println!("{operations} operations, {commits} commits; the reopened store is what was closed");
    Ok(())
}

fn options() -> Options {
    let policy = CheckpointPolicy::automatic().log_bytes(16 << 20);
    Options::new()
        .durability(Durability::Interval(Duration::from_millis(20)))
        .ring_bytes(8 << 20)
        .segment_bytes(8 << 20)
        .checkpoint(policy)
}

fn name(n: u64) -> String {
    format!("t{n}")
}

/// Reads, inserts, replacements, deletions, and transactions over two tables, in an order that a seed gives.
fn write(db: &DictDb, n: u64, stop: &AtomicBool, operations: &AtomicU64) -> dictdb::Result<()> {
    let mut random = fastrand::Rng::with_seed(n);
    let (own, next) = (name(n), name((n + 1) % THREADS));
    let table = db.table(&own)?;
    while !stop.load(Ordering::Relaxed) {
        let id = random.u64(..KEYS) as i64;
        let text = "x".repeat(random.usize(..200));
        match random.u32(..10) {
            0..6 => drop(table.upsert(record! { "id": id, "text": text })?),
            6..8 => drop(table.delete(id)?),
            8 => db
                .transaction_with(Durability::Manual, |tx| {
                    tx.table(&own)?.upsert(record! { "id": id, "text": text.as_str() })?;
                    tx.table(&next)?.delete(id)
                })
                .map(drop)?,
            _ => drop(table.get(id)?),
        }
        operations.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Backs up, restores, compares and measures until the time is over.
fn watch(db: &DictDb, data: &Path, backups: &Path, time: Duration, operations: &AtomicU64) -> Result<(), Failure> {
    let started = SystemClock.monotonic();
    let elapsed = || SystemClock.monotonic().saturating_sub(started);
    let (mut chain, mut restored, mut printed) = (0_u32, 0_u64, Duration::ZERO);
    let (mut memory_max, mut disk_max) = (0_u64, 0_u64);
    let (ticks, receiver) = std::sync::mpsc::channel::<()>();
    while elapsed() < time {
        let dir = backups.join(format!("chain{chain}"));
        let manager = BackupManager::builder(db, &dir).file_format(BackupFormat::Binary).incremental(true).build()?;
        for round in 0..BACKUPS_OF_A_CHAIN {
            let report = manager.backup_now()?;
            if round % 4 == 3 {
                let (copy, restore_report) = restore(&dir)?;
                // What was committed after the backup is not in it: the restored state is compared with the log's own
                // digest at that seq, which the backup's seal holds and restore has compared; here the seq.
                if copy.seq() != report.seq || restore_report.fell_back {
                    return Err(format!("{report}, and restored: {restore_report}").into());
                }
                restored += 1;
            }
            let (memory, disk) = (resident_bytes(), bytes_in(data)?);
            (memory_max, disk_max) = (memory_max.max(memory), disk_max.max(disk));
            if disk > 400 << 20 || memory > 3 << 30 {
                return Err(format!("{memory} bytes of memory, {disk} bytes of disk: not bounded").into());
            }
            if elapsed().saturating_sub(printed) >= Duration::from_secs(10) {
                printed = elapsed();
                let (memory, disk, operations) = (memory >> 20, disk >> 20, operations.load(Ordering::Relaxed));
                let seconds = printed.as_secs();
                println!(
                    "{seconds:4} s: {operations} operations, {restored} restores, {memory} MiB memory, {disk} MiB disk"
                );
                println!("        {}", db.durability_report());
            }
            if elapsed() >= time {
                break;
            }
            // Nothing is ever sent: a pause.
            let _ = receiver.recv_timeout(Duration::from_millis(250));
        }
        drop(manager);
        std::fs::remove_dir_all(&dir)?;
        chain += 1;
    }
    drop(ticks);
    let (memory, disk) = (memory_max >> 20, disk_max >> 20);
    println!("{chain} chains, {restored} restores compared; at most {memory} MiB of memory, {disk} MiB of disk");
    Ok(())
}

/// By the kernel's word; 0 where there is none.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * 4096)
}

fn bytes_in(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        // A file may go between the listing and the look.
        bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}
