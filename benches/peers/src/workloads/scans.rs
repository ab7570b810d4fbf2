//! w5: reads in key order.

use std::hint::black_box;

use super::{How, Job, Outcome, State, Turns, Workload, more, rate};
use crate::data::Touched;
use crate::engines::{Capability, Engine, Entry, Reader, Res};

pub(crate) static W5: Workload = Workload {
    name: "w5",
    title: "Scans in key order",
    needs: &[Capability::Unsynced, Capability::Read, Capability::Scan],
    only: None,
    limit: Some("btreemap"),
    metrics: &[
        more("full", "all records, decoded, every value touched", "records/s"),
        more("hundred", "100 records from a random key on, decoded, every value touched", "scans/s"),
        more("full_encoded", "all records, encoded: the sum of their lengths", "records/s"),
        more("hundred_encoded", "100 records from a random key on, encoded", "scans/s"),
    ],
    how: How::Turns(Turns { state: State::Loaded, in_a_round: |_| 8, turn }),
};

fn turn(job: &Job, entry: &Entry, engine: &dyn Engine, at: u64) -> Res<Outcome> {
    let mut outcome = Outcome::default();
    let mut reader = engine.reader()?;
    let (decode, suffix) = if at % 4 < 2 { (true, "") } else { (false, "_encoded") };
    if !decode && !entry.can(Capability::Encoded) {
        return Ok(outcome);
    }
    let time = job.slice(0.125);
    let records = job.records;
    if at.is_multiple_of(2) {
        // At least one whole scan, and as many more as the time allows.
        let full = rate(time, 1, |_| {
            let seen = black_box(scan(&mut *reader, 0, usize::MAX / 2, decode)?).records;
            if seen == records { Ok(()) } else { Err(format!("a scan of {records} records saw {seen}").into()) }
        })?;
        outcome.set(&format!("full{suffix}"), full * records as f64);
    } else {
        let mut rng = fastrand::Rng::with_seed(at);
        let last = records.saturating_sub(100).max(1);
        let hundred = rate(time, 8, |_| {
            black_box(scan(&mut *reader, rng.u64(0..last) as i64, 100, decode)?);
            Ok(())
        })?;
        outcome.set(&format!("hundred{suffix}"), hundred);
    }
    Ok(outcome)
}

fn scan(reader: &mut dyn Reader, from: i64, limit: usize, decode: bool) -> Res<Touched> {
    if decode { reader.scan(from, limit) } else { reader.scan_encoded(from, limit) }
}
