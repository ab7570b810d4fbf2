//! w8: from files to the first answer, in a process that has just begun. The files are in the system's page cache.

use std::path::Path;
use std::time::Instant;

use super::{Job, Outcome, Workload, changed, less, load};
use crate::engines::{self, Capability, Engine, Entry, Promise, Res};

pub(crate) static W8: Workload = Workload {
    name: "w8",
    title: "From a process's start to the first read",
    needs: &[Capability::Unsynced, Capability::Read, Capability::Reopen],
    only: None,
    limit: None,
    metrics: &[
        less("first", "settled and closed (dictdb: a snapshot alone): one read", "s"),
        less("scan", "the same: all records scanned", "s"),
        less("log", "10 % changed since, closed (dictdb: snapshot and log): one read", "s"),
        less("restore", "dictdb: restored from a full backup and 10 deltas: one read", "s"),
    ],
    run: opens,
};

/// Workload names of the processes that w8 starts; nobody else asks for them.
const PROBES: [&str; 3] = ["probe-read", "probe-scan", "probe-restore"];

fn opens(job: &Job, entry: &Entry) -> Res<Outcome> {
    let mut outcome = Outcome::default();
    let engine = (entry.open)(&job.dir, Promise::Unsynced)?;
    load(&*engine, job.records)?;
    engine.settle()?;
    engine.close()?;
    outcome.set("first", probe(job, PROBES[0], &job.dir)?);
    outcome.set("scan", probe(job, PROBES[1], &job.dir)?);

    let engine = (entry.open)(&job.dir, Promise::Unsynced)?;
    let mut rng = fastrand::Rng::with_seed(23);
    for _ in 0..job.records / 10 {
        engine.put(&changed(&mut rng, job.records))?;
    }
    engine.close()?;
    outcome.set("log", probe(job, PROBES[0], &job.dir)?);

    if entry.name == "dictdb" {
        let engine = (entry.open)(&job.dir, Promise::Unsynced)?;
        let backups = job.dir.join("backups");
        std::fs::create_dir(&backups)?;
        engine.backup_full(&backups)?;
        for _ in 0..10 {
            for _ in 0..(job.records / 100).max(1) {
                engine.put(&changed(&mut rng, job.records))?;
            }
            engine.backup_delta(&backups)?;
        }
        engine.close()?;
        outcome.set("restore", probe(job, PROBES[2], &backups)?);
    }
    Ok(outcome)
}

/// Seconds from the start of a new process's `main` to its answer.
fn probe(job: &Job, name: &str, dir: &Path) -> Res<f64> {
    let job = Job { workload: name.to_owned(), dir: dir.to_owned(), ..job.clone() };
    let outcome = crate::runner::in_child(&job)?;
    outcome.metrics.first().map(|(_, seconds)| *seconds).ok_or_else(|| "a probe without an answer".into())
}

/// The new process's side of it; `None` where the job is another.
pub(super) fn run_probe(job: &Job, entry: &Entry, started: Instant) -> Res<Option<Outcome>> {
    if !PROBES.contains(&&job.workload[..]) {
        return Ok(None);
    }
    let engine: Box<dyn Engine> = if job.workload == PROBES[2] {
        engines::dictdb::restored(&job.dir)?
    } else {
        (entry.open)(&job.dir, Promise::Unsynced)?
    };
    {
        let mut reader = engine.reader()?;
        let seen = if job.workload == PROBES[1] {
            reader.scan(0, usize::MAX / 2)?.records
        } else {
            reader.get(job.records as i64 / 2)?.map_or(0, |_| job.records)
        };
        if seen != job.records {
            return Err(format!("{seen} of {} records after opening", job.records).into());
        }
    }
    let mut outcome = Outcome::default();
    outcome.set("seconds", started.elapsed().as_secs_f64());
    engine.close()?;
    Ok(Some(outcome))
}
