//! w1 and w2: inserts that do not wait for the disk.

use std::time::{Duration, Instant};

use super::{How, Job, Outcome, Workload, more};
use crate::data::{shuffled, users};
use crate::engines::{Capability, Entry, Promise, Res};

pub(crate) static W1: Workload = Workload {
    name: "w1",
    title: "One commit per insert, random keys, not synced",
    needs: &[Capability::Unsynced],
    only: None,
    limit: Some("btreemap"),
    metrics: &[more("inserts", "inserts, one a commit", "records/s")],
    how: How::Alone(|job, entry| inserts(job, entry, 1)),
};

pub(crate) static W2: Workload = Workload {
    name: "w2",
    title: "1,000 inserts per commit, random keys, not synced",
    needs: &[Capability::Unsynced],
    only: None,
    limit: Some("btreemap"),
    metrics: &[more("inserts", "inserts, 1,000 a commit", "records/s")],
    how: How::Alone(|job, entry| inserts(job, entry, 1_000)),
};

/// An engine that is slower than this has told enough.
const LONGEST: Duration = Duration::from_secs(8);

fn inserts(job: &Job, entry: &Entry, batch: usize) -> Res<Outcome> {
    let users = users(&shuffled(job.records));
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
