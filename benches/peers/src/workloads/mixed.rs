//! w10: reads and writes mixed, most of them of few keys.

use std::hint::black_box;

use super::{Job, Outcome, Workload, join, loaded, more, rate};
use crate::data::{User, Zipf};
use crate::engines::{Capability, Engine, Entry, Promise, Res};

pub(crate) static W10: Workload = Workload {
    name: "w10",
    title: "Reads and writes mixed, keys after Zipf (0.99), 2 threads, not synced",
    needs: &[Capability::Unsynced, Capability::Read],
    only: None,
    limit: Some("btreemap"),
    metrics: &[
        more("reads_95", "95 % reads, 5 % writes", "operations/s"),
        more("reads_50", "50 % reads, 50 % writes", "operations/s"),
    ],
    run: mixed,
};

fn mixed(job: &Job, entry: &Entry) -> Res<Outcome> {
    let engine = loaded(job, entry, Promise::Unsynced)?;
    warm(&*engine, job.records)?;
    let zipf = Zipf::new(job.records);
    let mut outcome = Outcome::default();
    for percent in [95, 50] {
        let operations = std::thread::scope(|scope| {
            let (engine, zipf) = (&*engine, &zipf);
            let threads: Vec<_> =
                (0..2).map(|thread| scope.spawn(move || operate(job, engine, zipf, percent, 29 + thread))).collect();
            threads.into_iter().map(join).sum::<Res<f64>>()
        })?;
        outcome.set(&format!("reads_{percent}"), operations);
    }
    Ok(outcome)
}

/// Reads every record once: compaction leaves caches cold.
fn warm(engine: &dyn Engine, records: u64) -> Res<()> {
    let mut reader = engine.reader()?;
    for id in 0..records as i64 {
        black_box(reader.get(id)?);
    }
    Ok(())
}

fn operate(job: &Job, engine: &dyn Engine, zipf: &Zipf, percent: u32, seed: u64) -> Res<f64> {
    let mut reader = engine.reader()?;
    let mut rng = fastrand::Rng::with_seed(seed);
    rate(job.time(), 32, |_| {
        let id = zipf.id(&mut rng);
        if rng.u32(0..100) < percent {
            black_box(reader.get(id)?.ok_or("a record is missing")?);
        } else {
            engine.put(&User::version(id, rng.u64(1..)))?;
        }
        Ok(())
    })
}
