//! w6 and w7: backups, full and incremental.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Job, Outcome, Workload, changed, join, less, load, loaded, more, raw_write};
use crate::engines::{Capability, Engine, Entry, Promise, Res};
use crate::stats::percentile;

pub(crate) static W6: Workload = Workload {
    name: "w6",
    title: "A full backup, synced, while a writer writes",
    needs: &[Capability::Unsynced, Capability::Backup],
    only: None,
    limit: None,
    metrics: &[
        less("seconds", "takes", "s"),
        more("speed", "writes", "MB/s"),
        less("bytes", "is", "MB"),
        less("against_raw", "takes, against a write and fsync of as many bytes", "times"),
        less("longest", "longest pause of the writer", "ms"),
        less("longest_without", "longest pause without a backup", "ms"),
        less("p999", "99.9 % of its commits within", "us"),
        less("p999_without", "99.9 % of its commits without a backup within", "us"),
    ],
    run: full,
};

pub(crate) static W7: Workload = Workload {
    name: "w7",
    title: "An incremental backup, synced, after 1 % of the records changed",
    needs: &[Capability::Unsynced, Capability::Incremental],
    only: None,
    limit: None,
    metrics: &[
        less("tenth", "a tenth of the records: takes", "s"),
        less("tenth_bytes", "is", "MB"),
        less("tenth_raw", "takes, against a write and fsync of as many bytes", "times"),
        less("all", "all records: takes", "s"),
        less("all_bytes", "is", "MB"),
        less("all_raw", "takes, against a write and fsync of as many bytes", "times"),
        less("five", "five times the records: takes", "s"),
        less("five_bytes", "is", "MB"),
        less("five_raw", "takes, against a write and fsync of as many bytes", "times"),
    ],
    run: incremental,
};

/// The times of a writer's commits in microseconds, while `work` runs.
fn writing<T>(job: &Job, engine: &dyn Engine, work: impl FnOnce() -> Res<T>) -> Res<(T, Vec<f64>)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(17);
            let mut times = Vec::with_capacity(4 << 20);
            while !stop.load(Ordering::Relaxed) {
                let user = changed(&mut rng, job.records);
                let start = Instant::now();
                engine.put(&user)?;
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            Res::Ok(times)
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let times = join(writer)?;
        Ok((done?, times))
    })
}

fn wait(time: Duration) {
    let until = Instant::now() + time;
    while let left = until.saturating_duration_since(Instant::now())
        && !left.is_zero()
    {
        std::thread::park_timeout(left);
    }
}

fn full(job: &Job, entry: &Entry) -> Res<Outcome> {
    let engine = loaded(job, entry, Promise::Unsynced)?;
    let dir = job.dir.join("backups");
    std::fs::create_dir(&dir)?;
    let ((seconds, bytes), mut with) = writing(job, &*engine, || {
        let start = Instant::now();
        let bytes = engine.backup_full(&dir)?;
        Ok((start.elapsed().as_secs_f64(), bytes))
    })?;
    // As long as the backup took, so that both had the same chance of a long pause.
    let ((), mut without) = writing(job, &*engine, || {
        wait(Duration::from_secs_f64(seconds));
        Ok(())
    })?;
    let raw = raw_write(&job.dir, bytes)?;
    let mut outcome = Outcome::default();
    outcome.set("seconds", seconds);
    outcome.set("bytes", bytes as f64 / 1e6);
    outcome.set("speed", bytes as f64 / 1e6 / seconds);
    outcome.set("against_raw", seconds / raw);
    outcome.set("longest", percentile(&mut with, 1.0) / 1e3);
    outcome.set("longest_without", percentile(&mut without, 1.0) / 1e3);
    outcome.set("p999", percentile(&mut with, 0.999));
    outcome.set("p999_without", percentile(&mut without, 0.999));
    Ok(outcome)
}

fn incremental(job: &Job, entry: &Entry) -> Res<Outcome> {
    let mut outcome = Outcome::default();
    let mut sizes = vec![("tenth", job.records / 10), ("all", job.records)];
    if job.large {
        sizes.push(("five", job.records * 5));
    }
    for (key, records) in sizes {
        let dir = job.dir.join(key);
        std::fs::create_dir(&dir)?;
        let (seconds, bytes) = delta(entry, &dir, records.max(100))?;
        outcome.set(key, seconds);
        outcome.set(&format!("{key}_bytes"), bytes as f64 / 1e6);
        outcome.set(&format!("{key}_raw"), seconds / raw_write(&dir, bytes)?);
        std::fs::remove_dir_all(dir)?;
    }
    Ok(outcome)
}

fn delta(entry: &Entry, dir: &Path, records: u64) -> Res<(f64, u64)> {
    let engine = (entry.open)(dir, Promise::Unsynced)?;
    load(&*engine, records)?;
    engine.settle()?;
    let backups = dir.join("backups");
    std::fs::create_dir(&backups)?;
    engine.backup_full(&backups)?;
    let mut rng = fastrand::Rng::with_seed(19);
    for _ in 0..records / 100 {
        engine.put(&changed(&mut rng, records))?;
    }
    let start = Instant::now();
    let bytes = engine.backup_delta(&backups)?;
    Ok((start.elapsed().as_secs_f64(), bytes))
}
