//! w6: full backups.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{How, Job, Outcome, State, Turns, Workload, changed, join, less, more, raw_write, sync};
use crate::engines::{Capability, Engine, Entry, Res};
use crate::stats::percentile;

pub(crate) static W6: Workload = Workload {
    name: "w6",
    title: "A full backup, synced, while a writer writes",
    needs: &[Capability::Unsynced, Capability::Read, Capability::Backup],
    only: None,
    limit: None,
    metrics: &[
        less("seconds", "takes", "s"),
        more("speed", "writes", "MB/s"),
        less("bytes", "is", "MB"),
        less("against_raw", "takes, against a write and fsync of as many bytes", "times"),
        less("quiet", "without a writer: takes", "s"),
        less("quiet_against_raw", "without a writer: takes, against a write and fsync of as many bytes", "times"),
        less("longest", "longest pause of the writer", "ms"),
        less("longest_running", "the same, waits for a core not counted", "ms"),
        less(
            "longest_clock",
            "longest pause of the machine itself: of a thread that only reads the clock, no waits for a core",
            "ms",
        ),
        less("longest_without", "longest pause without a backup", "ms"),
        less("p999", "99.9 % of its commits within", "us"),
        less("p999_without", "99.9 % of its commits without a backup within", "us"),
        less("p999_ratio", "99.9 % of its commits within", "times that without"),
    ],
    how: How::Turns(Turns { state: State::Loaded, in_a_round: |_| 3, turn }),
};

fn turn(job: &Job, _: &Entry, engine: &dyn Engine, at: u64) -> Res<Outcome> {
    // What turns before have left to be written, merged or checkpointed is not this one's.
    engine.settle()?;
    sync(&job.dir)?;
    let dir = job.dir.join("backups");
    // Into a new directory each time: a store that knows an earlier backup may write less.
    let backup = |name: &str| {
        let dir = dir.join(format!("{name}-{at}"));
        std::fs::create_dir_all(&dir)?;
        let start = Instant::now();
        let bytes = engine.backup_full(&dir)?;
        Res::Ok((start.elapsed().as_secs_f64(), bytes))
    };
    let (quiet, bytes) = backup("quiet")?;
    let raw_before = raw_write(&job.dir, bytes)?;
    let ((seconds, bytes), mut with) = writing(job, engine, || backup("writing"))?;
    let raw_after = raw_write(&job.dir, bytes)?;
    // As long as the backup took, so that both had the same chance of a long pause.
    let ((), mut without) = writing(job, engine, || {
        wait(Duration::from_secs_f64(seconds));
        Ok(())
    })?;
    std::fs::remove_dir_all(&dir)?;
    // Behind the figures without a backup: it leaves the machine busy.
    let longest_clock = clock_pause(job, bytes, seconds)?;
    let raw = (raw_before + raw_after) / 2.0;
    let mut outcome = Outcome::default();
    outcome.set("seconds", seconds);
    outcome.set("bytes", bytes as f64 / 1e6);
    outcome.set("speed", bytes as f64 / 1e6 / seconds);
    outcome.set("against_raw", seconds / raw);
    outcome.set("quiet", quiet);
    outcome.set("quiet_against_raw", quiet / raw);
    outcome.set("longest", percentile(&mut with.times, 1.0) / 1e3);
    outcome.set("longest_running", with.longest_running * 1e3);
    if let Some(longest_clock) = longest_clock {
        outcome.set("longest_clock", longest_clock * 1e3);
    }
    outcome.set("longest_without", percentile(&mut without.times, 1.0) / 1e3);
    let (with, without) = (percentile(&mut with.times, 0.999), percentile(&mut without.times, 0.999));
    outcome.set("p999", with);
    outcome.set("p999_without", without);
    outcome.set("p999_ratio", with / without);
    Ok(outcome)
}

struct Commits {
    /// In microseconds.
    times: Vec<f64>,
    /// In seconds, of it only what was not spent waiting for a core.
    longest_running: f64,
}

/// Seconds that a commit has to take to be looked at.
const LONG: f64 = 0.5e-3;

/// The times of a writer's commits while `work` runs.
fn writing<T>(job: &Job, engine: &dyn Engine, work: impl FnOnce() -> Res<T>) -> Res<(T, Commits)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let waits = || core_wait().unwrap_or(0.0);
            let mut rng = fastrand::Rng::with_seed(17);
            let mut times = Vec::with_capacity(4 << 20);
            let (mut longest_running, mut waited) = (0.0_f64, waits());
            while !stop.load(Ordering::Relaxed) {
                let user = changed(&mut rng, job.records);
                let start = Instant::now();
                engine.put(&user)?;
                let time = start.elapsed().as_secs_f64();
                times.push(time * 1e6);
                if time > LONG {
                    let now = waits();
                    longest_running = longest_running.max(time - (now - waited));
                    waited = now;
                } else {
                    longest_running = longest_running.max(time);
                    // Asking costs as much as a commit.
                    if times.len().is_multiple_of(64) {
                        waited = waits();
                    }
                }
            }
            Res::Ok(Commits { times, longest_running })
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let times = join(writer)?;
        Ok((done?, times))
    })
}

/// How long the machine itself stops when it has as much to do, in seconds: the longest time between two looks at the clock
/// of a thread that does nothing else, while another one is busy and as many bytes are written and synced, for as long as a
/// backup took. Waits for a core of half a millisecond and more are not counted; nothing where the system does not tell
/// them. Where a host gives a machine less time than its cores could use, all of them stop at once.
fn clock_pause(job: &Job, bytes: u64, seconds: f64) -> Res<Option<f64>> {
    if core_wait().is_none() {
        return Ok(None);
    }
    let stop = AtomicBool::new(false);
    let watch = || {
        let (mut longest, mut waited) = (0.0_f64, core_wait());
        let (mut looks, mut last) = (0_u64, Instant::now());
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let time = (now - last).as_secs_f64();
            (last, looks) = (now, looks + 1);
            if time > LONG || looks.is_multiple_of(4_096) {
                let before = std::mem::replace(&mut waited, core_wait());
                longest = longest.max(time - waited.zip(before).map_or(0.0, |(now, before)| now - before));
                last = Instant::now();
            } else {
                longest = longest.max(time);
            }
        }
        longest
    };
    std::thread::scope(|scope| {
        let watcher = scope.spawn(watch);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let mut written = raw_write(&job.dir, bytes);
        while written.is_ok() && Instant::now() < until {
            written = raw_write(&job.dir, bytes);
        }
        stop.store(true, Ordering::Relaxed);
        let longest = watcher.join().map_err(|_| "a thread that reads the clock panicked")?;
        written.map(|_| Some(longest))
    })
}

/// Seconds for which this thread could have run and had no core; `None` where the system does not tell.
fn core_wait() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(stat.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1e9)
}

fn wait(time: Duration) {
    let until = Instant::now() + time;
    while let left = until.saturating_duration_since(Instant::now())
        && !left.is_zero()
    {
        std::thread::park_timeout(left);
    }
}
