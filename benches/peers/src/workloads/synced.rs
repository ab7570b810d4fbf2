//! w3: inserts that are on the disk before their `Ok`.

use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use super::{How, Job, Outcome, State, Turns, Workload, join, less, more, rate};
use crate::data::User;
use crate::engines::{Capability, Engine, Entry, Res};
use crate::stats::percentile;

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
    // Turns of a twentieth of the time, and of a tenth with 16 writers: 100 and 200 ms.
    how: How::Turns(Turns { state: State::Empty, in_a_round: |_| 30, turn }),
};

fn turn(job: &Job, _: &Entry, engine: &dyn Engine, at: u64) -> Res<Outcome> {
    let (writers, share, rate_key, time_key) =
        if at % 3 == 2 { (16, 0.1, "sixteen", "sixteen_p99") } else { (1, 0.05, "one", "one_p99") };
    let ready = Barrier::new(writers);
    let (commits, mut times) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| {
                    ready.wait();
                    let mut times = Vec::new();
                    let commits = rate(job.slice(share), 1, |_| {
                        let start = Instant::now();
                        insert_next(engine)?;
                        times.push(start.elapsed().as_secs_f64() * 1e6);
                        Ok(())
                    })?;
                    Ok((commits, times))
                })
            })
            .collect();
        let mut all = (0.0, Vec::new());
        for thread in threads {
            let (commits, mut times) = join(thread)?;
            all.0 += commits;
            all.1.append(&mut times);
        }
        Res::Ok(all)
    })?;
    let mut outcome = Outcome::default();
    outcome.set(rate_key, commits);
    outcome.set(time_key, percentile(&mut times, 0.99));
    Ok(outcome)
}

/// Keys that are all over the place and never twice the same: a multiplication by an odd number is a permutation.
pub(super) fn insert_next(engine: &dyn Engine) -> Res<()> {
    static NEXT: AtomicI64 = AtomicI64::new(0);
    let id = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B1) & 0xFFFF_FFFF;
    engine.insert(&User::new(id))
}
