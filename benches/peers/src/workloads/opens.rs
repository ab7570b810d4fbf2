//! w8: from files to the first answer, in a process that has just begun. The files are in the system's page cache.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::{How, Job, Outcome, State, Turns, Workload, changed, less, load, more};
use crate::engines::{self, Capability, Engine, Entry, Promise, Res};

pub(crate) static W8: Workload = Workload {
    name: "w8",
    title: "From a process's start to the first read",
    needs: &[Capability::Unsynced, Capability::Read, Capability::Reopen],
    only: None,
    limit: None,
    metrics: &[
        less("first", "at rest (dictdb: a snapshot alone; Redis: RDB): one read", "s"),
        more("rows", "the same", "records/s"),
        less("scan", "the same: all records scanned and decoded", "s"),
        less("log", "10 % changed since (dictdb: snapshot and log; Redis: RDB and log): one read", "s"),
        less("full", "restored from a full backup: one read", "s"),
        less("deltas", "restored from a full backup and 10 deltas of 1 % each: one read", "s"),
        less("deltas_full", "10 deltas and the full backup take", "times the full one alone"),
        less("compressed", "restored from a compressed full backup: one read", "s"),
        less("compressed_full", "the compressed full backup takes", "times the one that is not"),
        less("disk", "a plain read of the full backup's bytes, from the disk", "s"),
        less("full_disk", "restored from the full backup, from the disk: one read", "s"),
        less("compressed_disk", "restored from the compressed full backup, from the disk: one read", "s"),
        less("compressed_full_disk", "the compressed full backup from the disk takes", "times the one that is not"),
        less("compressed_raw_disk", "the compressed full backup from the disk takes", "times the plain read"),
    ],
    how: How::Turns(Turns { state: State::Files, in_a_round: |_| 3, turn }),
};

/// Workload names of the processes that w8 starts; nobody else asks for them.
const PROBES: [&str; 3] = ["probe-read", "probe-scan", "probe-restore"];

/// Directories: at rest, changed since, a full backup, a full backup and deltas, a compressed full backup.
const DIRS: [&str; 5] = ["rest", "changed", "full", "deltas", "compressed"];

pub(super) fn prepare(job: &Job, entry: &Entry) -> Res<()> {
    let [rest, after, full, deltas, compressed] = DIRS.map(|name| job.dir.join(name));
    std::fs::create_dir(&rest)?;
    let engine = (entry.open)(&rest, Promise::Unsynced)?;
    load(&*engine, job.records)?;
    engine.settle()?;
    engine.close()?;
    // LMDB's file has holes.
    let copied = Command::new("cp").args(["-r", "--sparse=always"]).arg(&rest).arg(&after).status()?;
    if !copied.success() {
        return Err("cp failed".into());
    }
    let engine = (entry.open)(&after, Promise::Unsynced)?;
    let mut rng = fastrand::Rng::with_seed(23);
    for _ in 0..job.records / 10 {
        engine.put(&changed(&mut rng, job.records))?;
    }
    engine.close()?;
    if entry.name == engines::dictdb::STORE.name {
        let scratch = job.dir.join("scratch");
        std::fs::create_dir(&scratch)?;
        let engine = (entry.open)(&scratch, Promise::Unsynced)?;
        load(&*engine, job.records)?;
        std::fs::create_dir(&compressed)?;
        engine.backup_compressed(&compressed)?;
        for dir in [&full, &deltas] {
            std::fs::create_dir(dir)?;
            engine.backup_full(dir)?;
        }
        for _ in 0..10 {
            for _ in 0..(job.records / 100).max(1) {
                engine.put(&changed(&mut rng, job.records))?;
            }
            engine.backup_delta(&deltas)?;
        }
        engine.close()?;
    }
    super::sync(&job.dir)
}

fn turn(job: &Job, entry: &Entry, _: &dyn Engine, _: u64) -> Res<Outcome> {
    let [rest, after, full, deltas, compressed] = DIRS.map(|name| job.dir.join(name));
    let mut outcome = Outcome::default();
    let first = probe(job, PROBES[0], &rest)?;
    outcome.set("first", first);
    outcome.set("rows", job.records as f64 / first);
    if entry.can(Capability::Scan) {
        outcome.set("scan", probe(job, PROBES[1], &rest)?);
    }
    outcome.set("log", probe(job, PROBES[0], &after)?);
    if full.exists() {
        let restore = |dir: &Path| probe(job, PROBES[2], dir);
        let from_disk = |dir: &Path| forget(dir).and_then(|()| restore(dir));
        let [in_cache, with_deltas, lz4] = [restore(&full)?, restore(&deltas)?, restore(&compressed)?];
        outcome.set("full", in_cache);
        outcome.set("deltas", with_deltas);
        outcome.set("deltas_full", with_deltas / in_cache);
        outcome.set("compressed", lz4);
        outcome.set("compressed_full", lz4 / in_cache);
        let [plain, lz4, raw] = [from_disk(&full)?, from_disk(&compressed)?, read_from_disk(&full)?];
        outcome.set("disk", raw);
        outcome.set("full_disk", plain);
        outcome.set("compressed_disk", lz4);
        outcome.set("compressed_full_disk", lz4 / plain);
        outcome.set("compressed_raw_disk", lz4 / raw);
    }
    Ok(outcome)
}

fn files(dir: &Path) -> Res<Vec<PathBuf>> {
    std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

/// Drops the files, which were synced, from the system's page cache.
fn forget(dir: &Path) -> Res<()> {
    for file in files(dir)? {
        let mut input = std::ffi::OsString::from("if=");
        input.push(file);
        let dropped = Command::new("dd").arg(input).args(["iflag=nocache", "count=0", "status=none"]).status()?;
        if !dropped.success() {
            return Err("dd cannot drop a file from the page cache".into());
        }
    }
    Ok(())
}

/// Seconds that reading them takes then, from front to back and for nothing else.
fn read_from_disk(dir: &Path) -> Res<f64> {
    forget(dir)?;
    let mut block = vec![0; 1 << 20];
    let start = Instant::now();
    for file in files(dir)? {
        let mut file = std::fs::File::open(file)?;
        while file.read(&mut block)? > 0 {}
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds from the start of a new process's `main` to its answer.
pub(super) fn probe(job: &Job, name: &str, dir: &Path) -> Res<f64> {
    let job = Job { workload: name.to_owned(), dir: dir.to_owned(), state: None, ..job.clone() };
    let outcome = crate::runner::in_child(&job)?;
    outcome.metrics.first().map(|(_, seconds)| *seconds).ok_or_else(|| "a probe without an answer".into())
}

/// The new process's side of it; `None` where the job is another.
pub(super) fn run_probe(job: &Job, started: Instant) -> Res<Option<Outcome>> {
    if !PROBES.contains(&&job.workload[..]) {
        return Ok(None);
    }
    let entry = engines::by_name(&job.engine).ok_or("no such engine")?;
    let engine: Box<dyn Engine> = if job.workload == PROBES[2] {
        engines::dictdb::restored(&job.dir)?
    } else {
        (entry.open)(&job.dir, Promise::Unsynced)?
    };
    let seconds = {
        let mut reader = engine.reader()?;
        let seen = if job.workload == PROBES[1] {
            reader.scan(0, usize::MAX / 2)?.records
        } else {
            reader.get(job.records as i64 / 2)?.map_or(0, |_| job.records)
        };
        let seconds = started.elapsed().as_secs_f64();
        if seen != job.records {
            return Err(format!("{seen} of {} records after opening", job.records).into());
        }
        seconds
    };
    let mut outcome = Outcome::default();
    outcome.set("seconds", seconds);
    engine.close()?;
    Ok(Some(outcome))
}
