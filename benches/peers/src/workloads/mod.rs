//! What is measured, and how: in a process of its own for each run, or in short turns of all engines.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::data::{User, shuffled, users};
use crate::engines::{Capability, Engine, Entry, Res};

mod backups;
mod deltas;
mod growth;
mod instructions;
mod memory;
mod mixed;
mod opens;
mod python;
mod reads;
mod scans;
mod synced;
mod turns;
mod writes;

pub(crate) use growth::SIZES as GROWTH_SIZES;
pub(crate) use instructions::OPERATIONS;
pub(crate) use turns::serve;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

pub(crate) struct Metric {
    pub(crate) key: &'static str,
    /// `{tenth}`, `{all}`, `{five}` and `{twenty}` stand for shares and multiples of the records.
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
    pub(crate) how: How,
}

pub(crate) enum How {
    /// Each round in a new process and an empty directory, one engine after the other.
    Alone(fn(&Job, &Entry) -> Res<Outcome>),
    /// The same, in one round: what it finds does not change from run to run.
    Once(fn(&Job, &Entry) -> Res<Outcome>),
    /// In short turns: every engine has a process, and they work one at a time, A B C A B C. A change in the mood of
    /// the disk or the machine meets all of them alike.
    Turns(Turns),
}

pub(crate) struct Turns {
    pub(crate) state: State,
    /// How many turns each engine has in a round, when a measurement by time lasts as many seconds.
    pub(crate) in_a_round: fn(f64) -> u64,
    turn: fn(&Job, &Entry, &dyn Engine, u64) -> Res<Outcome>,
}

/// What the processes that take turns have before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// An empty store whose commits are synced; new processes each round.
    Empty,
    /// All records, at rest and read once; commits are not synced; new processes each round.
    Loaded,
    /// Files alone, which the turns open; the same for all rounds.
    Files,
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
        &synced::W3,
        &reads::W4,
        &scans::W5,
        &backups::W6,
        &deltas::W7,
        &opens::W8,
        &memory::W9,
        &mixed::W10,
        &growth::GROWTH,
        &python::PYTHON,
    ]
}

pub(crate) fn by_name(name: &str) -> Res<&'static Workload> {
    all().into_iter().find(|workload| workload.name == name).ok_or_else(|| format!("no workload {name}").into())
}

/// What a child process is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// A workload's name; of a process that takes turns nothing.
    pub(crate) workload: String,
    pub(crate) engine: String,
    /// Empty, and the child's alone.
    pub(crate) dir: PathBuf,
    pub(crate) records: u64,
    /// How long a measurement by time lasts.
    pub(crate) seconds: f64,
    /// It takes turns, told through its standard input.
    pub(crate) state: Option<State>,
}

impl Job {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// A part of that.
    fn slice(&self, share: f64) -> Duration {
        self.time().mul_f64(share)
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
    if let Some(outcome) = opens::run_probe(job, started)? {
        return Ok(outcome);
    }
    if let Some(outcome) = growth::run_probe(job, started)? {
        return Ok(outcome);
    }
    if let Some(outcome) = instructions::run(job)? {
        return Ok(outcome);
    }
    let entry = crate::engines::by_name(&job.engine).ok_or("no such engine")?;
    match by_name(&job.workload)?.how {
        How::Alone(run) | How::Once(run) => run(job, entry),
        How::Turns(_) => Err("takes turns".into()),
    }
}

/// Not measured.
fn load(engine: &dyn Engine, records: u64) -> Res<()> {
    for ids in shuffled(records).chunks(1_000) {
        engine.insert_many(&users(ids))?;
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

/// Leaves nothing for the disk to write that is not measured.
fn sync(dir: &Path) -> Res<()> {
    std::process::Command::new("sync").arg("-f").arg(dir).status()?;
    Ok(())
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
