//! The public API against a plain model: random sequences, transfers under load, and its promises one by one.
#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "model/api.rs"]
mod api;
#[path = "model/extremes.rs"]
mod extremes;
#[path = "model/managers.rs"]
mod managers;
#[path = "model/operation.rs"]
mod operation;
#[path = "model/plain.rs"]
mod plain;
#[path = "model/sequence.rs"]
mod sequence;
#[path = "model/transfers.rs"]
mod transfers;
#[path = "model/values.rs"]
mod values;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Sequences run by default.
const SEQUENCES: u64 = 10_000;
/// From this many on, everything rare must have come up.
const SEQUENCES_FOR_COVERAGE: u64 = 2_000;

/// What the sequences must have met, or they prove less than they seem to.
const RARE: &[&str] = &[
    "tables made again",
    "operations refused: NoTable",
    "operations refused: TableExists",
    "operations refused: NoRecord",
    "operations refused: Duplicate",
    "operations refused: Key",
    "operations refused: Schema",
    "operations refused: Depth",
    "operations refused: Exhausted",
    "operations refused: Definition",
    "transactions committed",
    "transactions failed",
    "transactions panicked",
    "nested writes refused",
    "automatic keys",
    "typed operations",
    "fulls json",
    "fulls binary",
    "blocks",
    "compressed blocks",
    "deltas json",
    "deltas binary",
    "empty deltas",
    "promotions: Gap",
    "promotions: NoChain",
    "bridges",
    "bridges restored across a damaged full backup",
    "chains by hand",
    "restores from the empty database",
    "restores to go on from",
    "restores that lost commits",
    "loads to go on from",
    "loads of an older full backup",
    "managers made anew",
    "notified changes backed up",
    "notified changes deferred",
    "backups refused: not representable",
    "feeds replayed",
    "feed gaps",
    "snapshots held",
    "saves and loads",
    "sequences on disk",
];

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

#[test]
fn every_backup_of_every_random_sequence_restores_to_what_the_model_holds() {
    let count = setting("DICTDB_MODEL_SEQUENCES").unwrap_or(SEQUENCES);
    let first = setting("DICTDB_MODEL_SEED").unwrap_or(0);
    let trace = count == 1;
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let totals: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut counts = sequence::Counts::default();
                while !failed.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let seed = first.wrapping_add(n);
                    let run = || sequence::run(seed, trace, &mut counts);
                    if catch_unwind(AssertUnwindSafe(run)).is_err() {
                        failed.store(true, Ordering::Relaxed);
                        eprintln!(
                            "\nsequence {seed} failed. To run it alone, with every step printed:\n    \
                             DICTDB_MODEL_SEED={seed} DICTDB_MODEL_SEQUENCES=1 cargo test --test model every_backup -- --nocapture\n"
                        );
                    }
                }
                let mut totals = totals.lock().unwrap();
                for (what, n) in counts.0 {
                    *totals.entry(what).or_default() += n;
                }
            });
        }
    });
    assert!(!failed.load(Ordering::Relaxed), "a sequence failed; its seed stands above");
    let totals = totals.into_inner().unwrap();
    let of = |what: &str| totals.get(what).copied().unwrap_or(0);
    println!(
        "{count} sequences from seed {first}: {} operations, {} backups, {} restores",
        of("operations"),
        of("backups"),
        of("restores")
    );
    for (what, n) in &totals {
        println!("    {n:>9} {what}");
    }
    if count >= SEQUENCES_FOR_COVERAGE {
        let missed: Vec<_> = RARE.iter().filter(|what| of(what) == 0).collect();
        assert!(missed.is_empty(), "the sequences never met {missed:?}");
    }
}
