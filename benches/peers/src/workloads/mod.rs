//! What is measured. Each workload runs in a process of its own, against one engine in an empty directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::data::{User, users};
use crate::engines::{Capability, Engine, Entry, Promise, Res};

mod backups;
mod growth;
mod memory;
mod mixed;
mod opens;
mod reads;
mod writes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

pub(crate) struct Metric {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

const fn more(key: &'static str, title: &'static str, unit: &'static str) -> Metric {
    Metric { key, title, unit, better: Better::More }
}

const fn less(key: &'static str, title: &'static str, unit: &'static str) -> Metric {
    Metric { key, title, unit, better: Better::Less }
}

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) needs: &'static [Capability],
    /// The only engines it is for, where it is not for all that meet its needs.
    pub(crate) only: Option<&'static [&'static str]>,
    /// The engine that shows what the machine could do.
    pub(crate) limit: Option<&'static str>,
    pub(crate) metrics: &'static [Metric],
    run: fn(&Job, &Entry) -> Res<Outcome>,
}

impl Workload {
    pub(crate) fn suits(&self, entry: &Entry) -> bool {
        self.needs.iter().all(|&need| entry.can(need)) && self.only.is_none_or(|only| only.contains(&entry.name))
    }
}

pub(crate) fn all() -> Vec<&'static Workload> {
    vec![
        &writes::W1,
        &writes::W2,
        &writes::W3,
        &reads::W4,
        &reads::W5,
        &backups::W6,
        &backups::W7,
        &opens::W8,
        &memory::W9,
        &mixed::W10,
        &growth::GROWTH,
    ]
}

/// What a child process is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) workload: String,
    pub(crate) engine: String,
    /// Empty, and the child's alone.
    pub(crate) dir: PathBuf,
    pub(crate) records: u64,
    /// How long a measurement by time lasts.
    pub(crate) seconds: f64,
    /// Also the sizes that take long.
    pub(crate) large: bool,
}

impl Job {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// What it answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) metrics: Vec<(String, f64)>,
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    fn set(&mut self, key: &str, value: f64) {
        self.metrics.push((key.to_owned(), value));
    }
}

/// Runs the job in this process. `started` is when the process began.
pub(crate) fn run(job: &Job, started: Instant) -> Res<Outcome> {
    let entry = crate::engines::by_name(&job.engine).ok_or("no such engine")?;
    if let Some(outcome) = opens::run_probe(job, entry, started)? {
        return Ok(outcome);
    }
    let workload = all().into_iter().find(|w| w.name == job.workload).ok_or("no such workload")?;
    (workload.run)(job, entry)
}

/// Opens the engine with all records in it, at rest.
fn loaded(job: &Job, entry: &Entry, promise: Promise) -> Res<Box<dyn Engine>> {
    let engine = (entry.open)(&job.dir, promise)?;
    load(&*engine, job.records)?;
    engine.settle()?;
    Ok(engine)
}

fn load(engine: &dyn Engine, records: u64) -> Res<()> {
    for users in users(records).chunks(1_000) {
        engine.insert_many(users)?;
    }
    Ok(())
}

/// Calls `work` with 0, 1, 2 .. until `time` is over; calls a second. Asks the clock once in `stride` calls.
fn rate(time: Duration, stride: u64, mut work: impl FnMut(u64) -> Res<()>) -> Res<f64> {
    let start = Instant::now();
    let mut calls = 0;
    loop {
        for _ in 0..stride {
            work(calls)?;
            calls += 1;
        }
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok(calls as f64 / elapsed.as_secs_f64());
        }
    }
}

/// Joins, and passes on what a thread ended with.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Res<T>>) -> Res<T> {
    thread.join().map_err(|_| "a thread panicked")?
}

/// The next version of a random record.
fn changed(rng: &mut fastrand::Rng, records: u64) -> User {
    User::version(rng.u64(0..records) as i64, rng.u64(1..))
}

/// Seconds that a plain write and fsync of as many bytes takes, into a new file in `dir`.
fn raw_write(dir: &Path, bytes: u64) -> Res<f64> {
    use std::io::Write;
    let path = dir.join("raw-limit");
    let block = vec![0xA5; 1 << 20];
    let start = Instant::now();
    let mut file = std::fs::File::create(&path)?;
    let mut left = usize::try_from(bytes)?;
    while left > 0 {
        let now = left.min(block.len());
        file.write_all(&block[..now])?;
        left -= now;
    }
    file.sync_all()?;
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(seconds)
}
