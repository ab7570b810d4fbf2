//! w7: incremental backups.

use std::path::PathBuf;
use std::time::Instant;

use super::{How, Job, Outcome, Workload, changed, less, load, raw_write};
use crate::engines::{Capability, Engine, Entry, Promise, Res};
use crate::stats::Spread;

pub(crate) static W7: Workload = Workload {
    name: "w7",
    title: "An incremental backup, synced, after 1 % of the records changed",
    needs: &[Capability::Unsynced, Capability::Incremental],
    only: None,
    limit: None,
    metrics: &[
        less("tenth_row", "{tenth} records: a changed row costs", "us"),
        less("all_row", "{all} records: a changed row costs", "us"),
        less("five_row", "{five} records: a changed row costs", "us"),
        less("tenth_raw", "{tenth} records: takes, against a write and fsync of as many bytes", "times"),
        less("all_raw", "{all} records: takes, against a write and fsync of as many bytes", "times"),
        less("five_raw", "{five} records: takes, against a write and fsync of as many bytes", "times"),
        less("five_tenth", "a changed row of {five} records costs", "times one of {tenth}"),
        less("five_all", "a changed row of {five} records costs", "times one of {all}"),
        less("five_bytes", "{five} records: is", "MB"),
    ],
    how: How::Alone(deltas),
};

/// How often each size has its turn.
const TURNS: usize = 7;

struct Size {
    key: &'static str,
    records: u64,
    engine: Box<dyn Engine>,
    backups: PathBuf,
    /// Microseconds a changed row, times as long as the raw write.
    per_row: Vec<f64>,
    raw: Vec<f64>,
    bytes: u64,
}

fn deltas(job: &Job, entry: &Entry) -> Res<Outcome> {
    let mut sizes = Vec::new();
    for (key, records) in [("tenth", job.records / 10), ("all", job.records), ("five", job.records * 5)] {
        let dir = job.dir.join(key);
        std::fs::create_dir(&dir)?;
        let engine = (entry.open)(&dir, Promise::Unsynced)?;
        load(&*engine, records)?;
        engine.settle()?;
        let backups = dir.join("backups");
        std::fs::create_dir(&backups)?;
        engine.backup_full(&backups)?;
        sizes.push(Size { key, records, engine, backups, per_row: Vec::new(), raw: Vec::new(), bytes: 0 });
    }
    let mut rng = fastrand::Rng::with_seed(19);
    // All sizes in turn, so that the disk's mood is the same for each.
    for turn in 0..TURNS {
        for size in &mut sizes {
            let changes = size.records / 100;
            for _ in 0..changes {
                size.engine.put(&changed(&mut rng, size.records))?;
            }
            super::sync(&job.dir)?;
            // As many bytes as the last one had are near enough to those that it will have.
            let raw_before = if turn == 0 { None } else { Some(raw_write(&job.dir, size.bytes)?) };
            let start = Instant::now();
            size.bytes = size.engine.backup_delta(&size.backups)?;
            let seconds = start.elapsed().as_secs_f64();
            let raw_after = raw_write(&job.dir, size.bytes)?;
            let raw = raw_before.map_or(raw_after, |before| (before + raw_after) / 2.0);
            size.per_row.push(seconds * 1e6 / changes as f64);
            size.raw.push(seconds / raw);
        }
    }
    let mut outcome = Outcome::default();
    let median = |values: &[f64]| Spread::of(values).map_or(0.0, |spread| spread.median);
    let [tenth, all, five] = &sizes[..] else {
        return Err("three sizes".into());
    };
    for size in [tenth, all, five] {
        outcome.set(&format!("{}_row", size.key), median(&size.per_row));
        outcome.set(&format!("{}_raw", size.key), median(&size.raw));
    }
    let ratios = |other: &Size| -> Vec<f64> { five.per_row.iter().zip(&other.per_row).map(|(a, b)| a / b).collect() };
    outcome.set("five_tenth", median(&ratios(tenth)));
    outcome.set("five_all", median(&ratios(all)));
    outcome.set("five_bytes", five.bytes as f64 / 1e6);
    for size in sizes {
        size.engine.close()?;
    }
    Ok(outcome)
}
