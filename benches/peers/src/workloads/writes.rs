//! w1 to w3: inserts.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::{Job, Outcome, Workload, join, less, more, rate};
use crate::data::{User, users};
use crate::engines::{Capability, Engine, Entry, Promise, Res};
use crate::stats::percentile;

pub(crate) static W1: Workload = Workload {
    name: "w1",
    title: "One commit per insert, random keys, not synced",
    needs: &[Capability::Unsynced],
    only: None,
    limit: Some("btreemap"),
    metrics: &[more("inserts", "inserts, one a commit", "records/s")],
    run: |job, entry| inserts(job, entry, 1),
};

pub(crate) static W2: Workload = Workload {
    name: "w2",
    title: "1,000 inserts per commit, random keys, not synced",
    needs: &[Capability::Unsynced],
    only: None,
    limit: Some("btreemap"),
    metrics: &[more("inserts", "inserts, 1,000 a commit", "records/s")],
    run: |job, entry| inserts(job, entry, 1_000),
};

pub(crate) static W3: Workload = Workload {
    name: "w3",
    title: "One commit per insert, synced before its `Ok`",
    needs: &[Capability::Synced],
    only: None,
    limit: Some("raw"),
    metrics: &[
        more("one", "1 writer", "commits/s"),
        less("one_p99", "1 writer, 99 % of commits within", "us"),
        more("sixteen", "16 writers", "commits/s"),
        less("sixteen_p99", "16 writers, 99 % of commits within", "us"),
    ],
    run: synced,
};

/// An engine that is slower than this has told enough.
const LONGEST: Duration = Duration::from_secs(20);

fn inserts(job: &Job, entry: &Entry, batch: usize) -> Res<Outcome> {
    let users = users(job.records);
    let engine = (entry.open)(&job.dir, Promise::Unsynced)?;
    let mut outcome = Outcome::default();
    let start = Instant::now();
    let mut done = 0;
    for chunk in users.chunks(1_000) {
        if batch == 1 {
            for user in chunk {
                engine.insert(user)?;
            }
        } else {
            engine.insert_many(chunk)?;
        }
        done += chunk.len();
        if start.elapsed() > LONGEST && done < users.len() {
            outcome.notes.push(format!("stopped after {} s, before all records were in", LONGEST.as_secs()));
            break;
        }
    }
    outcome.set("inserts", done as f64 / start.elapsed().as_secs_f64());
    engine.close()?;
    Ok(outcome)
}

fn synced(job: &Job, entry: &Entry) -> Res<Outcome> {
    let mut outcome = Outcome::default();
    let engine = (entry.open)(&job.dir, Promise::Synced)?;
    let next = AtomicI64::new(0);
    // Begins files and tables.
    insert_next(&*engine, &next)?;
    for (writers, rate_key, time_key) in [(1, "one", "one_p99"), (16, "sixteen", "sixteen_p99")] {
        let (commits, mut times) = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..writers).map(|_| scope.spawn(|| timed_inserts(job, &*engine, &next))).collect();
            let mut all = (0.0, Vec::new());
            for thread in threads {
                let (commits, mut times) = join(thread)?;
                all.0 += commits;
                all.1.append(&mut times);
            }
            Res::Ok(all)
        })?;
        outcome.set(rate_key, commits);
        outcome.set(time_key, percentile(&mut times, 0.99));
    }
    engine.close()?;
    Ok(outcome)
}

fn timed_inserts(job: &Job, engine: &dyn Engine, next: &AtomicI64) -> Res<(f64, Vec<f64>)> {
    let mut times = Vec::new();
    let commits = rate(job.time(), 1, |_| {
        let start = Instant::now();
        insert_next(engine, next)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        Ok(())
    })?;
    Ok((commits, times))
}

/// Keys that are all over the place and never twice the same: a multiplication by an odd number is a permutation.
fn insert_next(engine: &dyn Engine, next: &AtomicI64) -> Res<()> {
    let id = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B1) & 0xFFFF_FFFF;
    engine.insert(&User::new(id))
}
