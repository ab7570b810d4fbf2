//! w4: reads by key.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{How, Job, Outcome, State, Turns, Workload, changed, join, more, rate};
use crate::data::shuffled_anew;
use crate::engines::{Capability, Engine, Entry, Reader, Res};

pub(crate) static W4: Workload = Workload {
    name: "w4",
    title: "Random reads by key",
    needs: &[Capability::Unsynced, Capability::Read],
    only: None,
    limit: Some("btreemap"),
    metrics: &[
        more("decoded_1", "decoded to the struct, 1 reader", "reads/s"),
        more("decoded_2", "decoded to the struct, 2 readers", "reads/s"),
        more("decoded_scale", "decoded, 2 readers", "times 1 reader"),
        more("encoded_1", "encoded, 1 reader", "reads/s"),
        more("encoded_2", "encoded, 2 readers", "reads/s"),
        more("encoded_scale", "encoded, 2 readers", "times 1 reader"),
        more("view_1", "decoded, 1 reader, all in one view", "reads/s"),
        more("held", "decoded, 1 reader, while a view is held", "reads/s"),
        more("held_share", "while a view is held", "of the reads without"),
        more("writing", "decoded, 1 reader while a writer writes", "reads/s"),
        more("writer", "commits of that writer", "commits/s"),
        more("held_writing", "decoded, 1 reader, a writer writes, a view of before is held", "reads/s"),
        more("held_writer", "commits of that writer", "commits/s"),
        more("held_writing_share", "the writer writes, a view is held", "of the reads without a view"),
    ],
    how: How::Turns(Turns { state: State::Loaded, in_a_round: |_| 12, turn }),
};

const STRIDE: u64 = 64;

fn turn(job: &Job, entry: &Entry, engine: &dyn Engine, at: u64) -> Res<Outcome> {
    let time = job.slice(1.0 / 16.0);
    let ids = shuffled_anew(job.records);
    // Every turn reads on from somewhere else.
    let from = (at as usize).wrapping_mul(0x9E37_79B1) % ids.len();
    let ids = Ids { ids, from };
    let pinned = entry.can(Capability::Pinned);
    let mut outcome = Outcome::default();
    match at % 4 {
        0 => {
            both(&mut outcome, "decoded", |readers| readers_at_once(engine, &ids, time, readers, true))?;
            if pinned {
                outcome.set("view_1", read(&mut *engine.pinned()?, &ids, 0, time, true)?);
            }
        }
        1 if entry.can(Capability::Encoded) => {
            both(&mut outcome, "encoded", |readers| readers_at_once(engine, &ids, time, readers, false))?;
        }
        2 if pinned => {
            let quiet = || read(&mut *engine.reader()?, &ids, 0, time, true);
            let without = quiet()?;
            let held = while_held(engine, ids.at(0), quiet)?;
            let again = quiet()?;
            outcome.set("held", held);
            outcome.set("held_share", held / ((without + again) / 2.0));
        }
        3 => {
            let writing = || while_writing(job, engine, &ids, time, at);
            let (without, writer) = writing()?;
            outcome.set("writing", without);
            outcome.set("writer", writer);
            if pinned {
                let (held, writer) = while_held(engine, ids.at(0), writing)?;
                let (again, _) = writing()?;
                outcome.set("held_writing", held);
                outcome.set("held_writer", writer);
                outcome.set("held_writing_share", held / ((without + again) / 2.0));
            }
        }
        _ => {}
    }
    Ok(outcome)
}

/// The order of the reads, and where they begin in it.
struct Ids {
    ids: Vec<i64>,
    from: usize,
}

impl Ids {
    fn at(&self, index: usize) -> i64 {
        self.ids[(self.from + index) % self.ids.len()]
    }

    /// From there on, over and over again. Two readers never read the same at the same time.
    fn of(&self, reader: usize) -> impl Iterator<Item = i64> {
        let skipped = (self.from + reader * (self.ids.len() / 2)) % self.ids.len();
        self.ids.iter().copied().cycle().skip(skipped)
    }
}

fn both(outcome: &mut Outcome, key: &str, reads: impl Fn(usize) -> Res<f64>) -> Res<()> {
    let one = reads(1)?;
    let two = reads(2)?;
    outcome.set(&format!("{key}_1"), one);
    outcome.set(&format!("{key}_2"), two);
    outcome.set(&format!("{key}_scale"), two / one);
    Ok(())
}

fn readers_at_once(engine: &dyn Engine, ids: &Ids, time: Duration, readers: usize, decode: bool) -> Res<f64> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..readers).map(|at| scope.spawn(move || read(&mut *engine.reader()?, ids, at, time, decode))).collect();
        threads.into_iter().map(join).sum::<Res<f64>>()
    })
}

fn read(reader: &mut dyn Reader, ids: &Ids, at: usize, time: Duration, decode: bool) -> Res<f64> {
    let mut next = ids.of(at);
    let mut once = |reader: &mut dyn Reader| {
        let id = next.next().ok_or("no records")?;
        let found =
            if decode { black_box(reader.get(id)?).is_some() } else { black_box(reader.encoded(id)?).is_some() };
        if found { Ok(()) } else { Err(format!("record {id} is missing").into()) }
    };
    // The first of a connection prepares statements, and skips to where it begins.
    once(reader)?;
    rate(time, STRIDE, |_| once(reader))
}

/// Runs `work` while another thread holds a view: LMDB lets a thread have one read transaction.
fn while_held<T>(engine: &dyn Engine, id: i64, work: impl FnOnce() -> Res<T>) -> Res<T> {
    let (opened, is_open) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let holder = scope.spawn(move || {
            let mut held = engine.pinned()?;
            let before = held.get(id)?;
            opened.send(())?;
            // An error is the end of `work`, too.
            let _ = is_done.recv();
            if held.get(id)? == before { Ok(()) } else { Err("a view changed while it was held".into()) }
        });
        let result = is_open.recv().map_err(Into::into).and_then(|()| work());
        drop(done);
        join(holder)?;
        result
    })
}

fn while_writing(job: &Job, engine: &dyn Engine, ids: &Ids, time: Duration, seed: u64) -> Res<(f64, f64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (start, mut commits) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                engine.put(&changed(&mut rng, job.records))?;
                commits += 1;
            }
            Res::Ok(f64::from(commits) / start.elapsed().as_secs_f64())
        });
        let reads = engine.reader().and_then(|mut reader| read(&mut *reader, ids, 0, time, true));
        stop.store(true, Ordering::Relaxed);
        let writes = join(writer)?;
        Ok((reads?, writes))
    })
}
