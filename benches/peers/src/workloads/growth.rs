//! growth: what becomes of dictdb's rates as a table of small records grows.

use std::hint::black_box;
use std::time::Instant;

use dictdb::{Durability, Options};
use serde::{Deserialize, Serialize};

use super::{Job, Outcome, Workload, less, more, rate};
use crate::data::{shuffled, shuffled_anew};
use crate::engines::{Capability, Entry, Res};

pub(crate) static GROWTH: Workload = Workload {
    name: "growth",
    title: "dictdb as it grows: small records, 100 thousand to 20 million",
    needs: &[Capability::Reopen],
    only: Some(&["dictdb"]),
    limit: None,
    metrics: &[
        more("insert_100k", "inserts, one a commit, to 100 thousand", "records/s"),
        more("insert_1m", "inserts to 1 million", "records/s"),
        more("insert_5m", "inserts to 5 million", "records/s"),
        more("insert_20m", "inserts to 20 million", "records/s"),
        more("read_100k", "random reads, decoded, of 100 thousand", "reads/s"),
        more("read_1m", "random reads of 1 million", "reads/s"),
        more("read_5m", "random reads of 5 million", "reads/s"),
        more("read_20m", "random reads of 20 million", "reads/s"),
        less("open_100k", "opening a snapshot of 100 thousand", "s"),
        less("open_1m", "opening a snapshot of 1 million", "s"),
        less("open_5m", "opening a snapshot of 5 million", "s"),
        less("open_20m", "opening a snapshot of 20 million", "s"),
    ],
    run: growth,
};

#[derive(Serialize, Deserialize)]
struct Small {
    id: i64,
    n: u32,
}

fn growth(job: &Job, _: &Entry) -> Res<Outcome> {
    let mut outcome = Outcome::default();
    let sizes =
        [("100k", 100_000, false), ("1m", 1_000_000, false), ("5m", 5_000_000, true), ("20m", 20_000_000, true)];
    for (name, records, large) in sizes {
        if large && !job.large {
            continue;
        }
        let dir = job.dir.join(name);
        let options = || Options::new().durability(Durability::Manual);
        let db = options().open(&dir)?;
        db.create_table("small", "id")?;
        let table = db.typed::<Small>("small")?;
        let ids = shuffled(records);
        let start = Instant::now();
        for &id in &ids {
            table.insert(&Small { id, n: id as u32 })?;
        }
        outcome.set(&format!("insert_{name}"), records as f64 / start.elapsed().as_secs_f64());
        db.checkpoint()?;
        let ids = shuffled_anew(records);
        let mut next = ids.iter().cycle();
        let reads = rate(job.time(), 64, |_| {
            black_box(table.get(*next.next().ok_or("no records")?)?.ok_or("a record is missing")?);
            Ok(())
        })?;
        outcome.set(&format!("read_{name}"), reads);
        drop(table);
        db.close()?;
        let start = Instant::now();
        let db = options().open(&dir)?;
        black_box(db.typed::<Small>("small")?.get(0)?.ok_or("a record is missing")?);
        outcome.set(&format!("open_{name}"), start.elapsed().as_secs_f64());
        db.close()?;
        std::fs::remove_dir_all(dir)?;
    }
    Ok(outcome)
}
