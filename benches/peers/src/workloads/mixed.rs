//! w10: reads and writes mixed, most of them of few keys.

use std::hint::black_box;

use super::{How, Job, Outcome, State, Turns, Workload, join, more, rate};
use crate::data::{User, Zipf};
use crate::engines::{Capability, Engine, Entry, Res};

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
    how: How::Turns(Turns { state: State::Loaded, in_a_round: |_| 6, turn }),
};

fn turn(job: &Job, _: &Entry, engine: &dyn Engine, at: u64) -> Res<Outcome> {
    let zipf = Zipf::new(job.records);
    let percent = if at.is_multiple_of(2) { 95 } else { 50 };
    let operations = std::thread::scope(|scope| {
        let zipf = &zipf;
        let threads: Vec<_> =
            (0..2).map(|thread| scope.spawn(move || operate(job, engine, zipf, percent, at * 2 + thread))).collect();
        threads.into_iter().map(join).sum::<Res<f64>>()
    })?;
    let mut outcome = Outcome::default();
    outcome.set(&format!("reads_{percent}"), operations);
    Ok(outcome)
}

fn operate(job: &Job, engine: &dyn Engine, zipf: &Zipf, percent: u32, seed: u64) -> Res<f64> {
    let mut reader = engine.reader()?;
    let mut rng = fastrand::Rng::with_seed(seed);
    rate(job.slice(0.125), 32, |_| {
        let id = zipf.id(&mut rng);
        if rng.u32(0..100) < percent {
            black_box(reader.get(id)?.ok_or("a record is missing")?);
        } else {
            engine.put(&User::version(id, rng.u64(1..)))?;
        }
        Ok(())
    })
}
