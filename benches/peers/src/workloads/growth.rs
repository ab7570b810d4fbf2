//! growth: what becomes of dictdb's rates as a table of small records grows, and of a bare map's beside it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::RwLock;
use std::time::Instant;

use dictdb::{DictDb, Durability, Options};
use serde::{Deserialize, Serialize};

use super::{How, Job, Outcome, Workload, more, opens, rate};
use crate::data::{shuffled, shuffled_anew};
use crate::engines::{Capability, Entry, Res, dictdb::STORE};

/// Sizes by their names: of the records a tenth, all, five and twenty times as many.
pub(crate) const SIZES: [(&str, f64); 4] = [("tenth", 0.1), ("all", 1.0), ("five", 5.0), ("twenty", 20.0)];

pub(crate) static GROWTH: Workload = Workload {
    name: "growth",
    title: "As a table of small records grows",
    needs: &[Capability::Unsynced],
    only: Some(&["dictdb", "btreemap"]),
    limit: Some("btreemap"),
    metrics: &[
        more("insert_tenth", "inserts, one a commit, to {tenth}", "records/s"),
        more("insert_all", "inserts to {all}", "records/s"),
        more("insert_five", "inserts to {five}", "records/s"),
        more("insert_twenty", "inserts to {twenty}", "records/s"),
        more("read_tenth", "random reads, decoded, of {tenth}", "reads/s"),
        more("read_all", "random reads of {all}", "reads/s"),
        more("read_five", "random reads of {five}", "reads/s"),
        more("read_twenty", "random reads of {twenty}", "reads/s"),
        more("open_tenth", "from a process's start to the first read, a snapshot of {tenth}", "records/s"),
        more("open_all", "the same, of {all}", "records/s"),
        more("open_five", "the same, of {five}", "records/s"),
        more("open_twenty", "the same, of {twenty}", "records/s"),
    ],
    how: How::Alone(growth),
};

const PROBE: &str = "probe-growth";

#[derive(Serialize, Deserialize)]
struct Small {
    id: i64,
    n: u32,
}

fn growth(job: &Job, entry: &Entry) -> Res<Outcome> {
    let mut outcome = Outcome::default();
    for (name, times) in SIZES {
        let records = (job.records as f64 * times) as u64;
        if entry.name == STORE.name {
            let dir = job.dir.join(name);
            let db = open(&dir)?;
            db.create_table("small", "id")?;
            let table = db.typed::<Small>("small")?;
            let insert = |small: &Small| {
                table.insert(small)?;
                Ok(())
            };
            both(&mut outcome, job, name, records, insert, |id| Ok(table.get(id)?))?;
            db.checkpoint()?;
            drop(table);
            db.close()?;
            let seconds = opens::probe(&Job { records, ..job.clone() }, PROBE, &dir)?;
            outcome.set(&format!("open_{name}"), records as f64 / seconds);
            std::fs::remove_dir_all(dir)?;
        } else {
            let map = RwLock::new(BTreeMap::new());
            let insert = |small: &Small| {
                let bytes = postcard::to_stdvec(small)?.into_boxed_slice();
                map.write().map_err(|_| "a writer panicked")?.insert(small.id, bytes);
                Ok(())
            };
            let get = |id| {
                let map = map.read().map_err(|_| "a writer panicked")?;
                Ok(map.get(&id).map(|bytes| postcard::from_bytes(bytes)).transpose()?)
            };
            both(&mut outcome, job, name, records, insert, get)?;
        }
    }
    Ok(outcome)
}

fn open(dir: &Path) -> Res<DictDb> {
    Ok(Options::new().durability(Durability::Manual).open(dir)?)
}

fn both(
    outcome: &mut Outcome,
    job: &Job,
    name: &str,
    records: u64,
    insert: impl Fn(&Small) -> Res<()>,
    get: impl Fn(i64) -> Res<Option<Small>>,
) -> Res<()> {
    let ids = shuffled(records);
    let start = Instant::now();
    for &id in &ids {
        insert(&Small { id, n: id as u32 })?;
    }
    outcome.set(&format!("insert_{name}"), records as f64 / start.elapsed().as_secs_f64());
    drop(ids);
    let ids = shuffled_anew(records);
    let mut next = ids.iter().cycle();
    let reads = rate(job.slice(0.5), 64, |_| {
        black_box(get(*next.next().ok_or("no records")?)?.ok_or("a record is missing")?);
        Ok(())
    })?;
    outcome.set(&format!("read_{name}"), reads);
    Ok(())
}

/// The process that opens; `None` where the job is another.
pub(super) fn run_probe(job: &Job, started: Instant) -> Res<Option<Outcome>> {
    if job.workload != PROBE {
        return Ok(None);
    }
    let db = open(&job.dir)?;
    black_box(db.typed::<Small>("small")?.get(job.records as i64 / 2)?.ok_or("a record is missing")?);
    let mut outcome = Outcome::default();
    outcome.set("seconds", started.elapsed().as_secs_f64());
    db.close()?;
    Ok(Some(outcome))
}
