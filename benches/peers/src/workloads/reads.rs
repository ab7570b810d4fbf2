//! w4 and w5: reads by key and in order.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use super::{Job, Outcome, Workload, changed, join, loaded, more, rate};
use crate::data::shuffled_anew;
use crate::engines::{Capability, Engine, Entry, Promise, Reader, Res};

pub(crate) static W4: Workload = Workload {
    name: "w4",
    title: "Random reads by key",
    needs: &[Capability::Unsynced, Capability::Read],
    only: None,
    limit: Some("hashmap"),
    metrics: &[
        more("decoded_1", "decoded to the struct, 1 reader", "reads/s"),
        more("decoded_2", "decoded to the struct, 2 readers", "reads/s"),
        more("encoded_1", "encoded, 1 reader (dictdb: row walked, not built)", "reads/s"),
        more("encoded_2", "encoded, 2 readers (dictdb: row walked, not built)", "reads/s"),
        more("view_1", "decoded, 1 reader, all in one view", "reads/s"),
        more("writing", "decoded, 1 reader while a writer writes", "reads/s"),
        more("writer", "commits of that writer", "commits/s"),
        more("held", "decoded, 1 reader, the writer writes, a view of before is held", "reads/s"),
        more("held_writer", "commits of that writer", "commits/s"),
    ],
    run: points,
};

pub(crate) static W5: Workload = Workload {
    name: "w5",
    title: "Scans in key order, every value touched",
    needs: &[Capability::Unsynced, Capability::Read, Capability::Scan],
    only: None,
    limit: Some("btreemap"),
    metrics: &[
        more("full", "all records", "records/s"),
        more("hundred", "100 records from a random key on", "scans/s"),
    ],
    run: scans,
};

const STRIDE: u64 = 64;

fn points(job: &Job, entry: &Entry) -> Res<Outcome> {
    let engine = loaded(job, entry, Promise::Unsynced)?;
    let engine = &*engine;
    let ids = shuffled_anew(job.records);
    let mut outcome = Outcome::default();
    // Compaction leaves caches cold: without this, whatever is measured first would be of another engine than the rest.
    warm(engine, &ids)?;
    for readers in [1, 2] {
        let reads = |decode: bool| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..readers)
                    .map(|at| {
                        // Two readers begin at different places, and never read the same at the same time.
                        let ids = &ids[ids.len() / 2 * at..];
                        scope.spawn(move || read(job, &mut *engine.reader()?, ids, decode))
                    })
                    .collect();
                threads.into_iter().map(join).sum::<Res<f64>>()
            })
        };
        outcome.set(&format!("decoded_{readers}"), reads(true)?);
        outcome.set(&format!("encoded_{readers}"), reads(false)?);
    }
    let pinned = entry.can(Capability::Pinned);
    if pinned {
        outcome.set("view_1", read(job, &mut *engine.pinned()?, &ids, true)?);
    }
    let (reads, writes) = while_writing(job, engine, &ids)?;
    outcome.set("writing", reads);
    outcome.set("writer", writes);
    if pinned {
        let (reads, writes) = while_held(engine, ids[0], || while_writing(job, engine, &ids))?;
        outcome.set("held", reads);
        outcome.set("held_writer", writes);
    }
    Ok(outcome)
}

/// Reads every record once, as the measurements do.
fn warm(engine: &dyn Engine, ids: &[i64]) -> Res<()> {
    let mut reader = engine.reader()?;
    for &id in ids {
        black_box(reader.get(id)?);
    }
    Ok(())
}

fn read(job: &Job, reader: &mut dyn Reader, ids: &[i64], decode: bool) -> Res<f64> {
    let mut next = ids.iter().cycle();
    rate(job.time(), STRIDE, |_| {
        let id = *next.next().ok_or("no records")?;
        let found =
            if decode { black_box(reader.get(id)?).is_some() } else { black_box(reader.encoded(id)?).is_some() };
        if found { Ok(()) } else { Err(format!("record {id} is missing").into()) }
    })
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

fn while_writing(job: &Job, engine: &dyn Engine, ids: &[i64]) -> Res<(f64, f64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(11);
            let (start, mut commits) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                engine.put(&changed(&mut rng, job.records))?;
                commits += 1;
            }
            Res::Ok(f64::from(commits) / start.elapsed().as_secs_f64())
        });
        let reads = engine.reader().and_then(|mut reader| read(job, &mut *reader, ids, true));
        stop.store(true, Ordering::Relaxed);
        let writes = join(writer)?;
        Ok((reads?, writes))
    })
}

fn scans(job: &Job, entry: &Entry) -> Res<Outcome> {
    let engine = loaded(job, entry, Promise::Unsynced)?;
    let mut outcome = Outcome::default();
    let mut reader = engine.reader()?;
    let records = job.records;
    black_box(reader.scan(0, usize::MAX / 2)?); // warms caches, as in w4
    // At least one whole scan, and as many more as the time allows.
    let full = rate(job.time(), 1, |_| {
        let touched = reader.scan(0, usize::MAX / 2)?;
        if black_box(touched).records != records {
            return Err(format!("a scan of {records} records saw {}", touched.records).into());
        }
        Ok(())
    })?;
    outcome.set("full", full * records as f64);
    let mut rng = fastrand::Rng::with_seed(13);
    let last = records.saturating_sub(100).max(1);
    outcome.set(
        "hundred",
        rate(job.time(), 8, |_| {
            black_box(reader.scan(rng.u64(0..last) as i64, 100)?);
            Ok(())
        })?,
    );
    Ok(outcome)
}
