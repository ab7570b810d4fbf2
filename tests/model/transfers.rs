//! Backups while four threads write: every file of every chain restores to a state in which no money is missing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dictdb::{
    BackupFormat, BackupKind, BackupManager, DictDb, Error, MemoryStorage, RestoreOptions, Seq, list_backups, record,
};
use fastrand::Rng;

const WRITERS: u64 = 4;
const BACKUPS: usize = 50;
const ACCOUNTS: i64 = 40;
const TOTAL: i64 = 2 * ACCOUNTS * 100;

/// Why a transfer did not come about.
#[derive(Debug)]
enum Refused {
    NotEnough,
    ByDatabase(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::ByDatabase(error)
    }
}

fn bank(ring_bytes: usize) -> DictDb {
    let db = DictDb::builder().ring_bytes(ring_bytes).build();
    for name in ["left", "right"] {
        let table = db.create_table(name, "id").unwrap();
        table.insert_many((1..=ACCOUNTS).map(|id| record! { "id": id, "sum": 100 })).unwrap();
    }
    db
}

/// Moves money from a random account of one table to one of the other, takes it before it knows whether there is
/// enough, and breaks off by an error or a panic now and then, with the money half moved.
fn transfer(db: &DictDb, random: &mut Rng) {
    let (from, to) = if random.bool() { ("left", "right") } else { ("right", "left") };
    let (payer, payee, amount) = (random.i64(1..=ACCOUNTS), random.i64(1..=ACCOUNTS), random.i64(1..60));
    let panics = random.u8(0..50) == 0;
    let moved = catch_unwind(AssertUnwindSafe(|| {
        db.transaction(|tx| {
            let (from, to) = (tx.table(from)?, tx.table(to)?);
            let sum = |record: Option<dictdb::Record>| record.unwrap()["sum"].as_i64().unwrap();
            let left = sum(from.get(payer)?) - amount;
            from.update(payer, record! { "sum": left })?;
            if panics {
                resume_unwind(Box::new("with the money half moved"));
            }
            if left < 0 {
                return Err(Refused::NotEnough);
            }
            to.update(payee, record! { "sum": sum(to.get(payee)?) + amount })?;
            Ok(())
        })
    }));
    match moved {
        Ok(Ok(()) | Err(Refused::NotEnough)) => assert!(!panics),
        Ok(Err(Refused::ByDatabase(error))) => panic!("{error}"),
        Err(_) => assert!(panics),
    }
}

fn money(db: &DictDb) -> i64 {
    let view = db.snapshot();
    let sums = ["left", "right"].map(|name| {
        let table = view.table(name).unwrap();
        assert_eq!(table.len() as i64, ACCOUNTS);
        table.iter().map(|(_, account)| account["sum"].as_i64().unwrap()).sum::<i64>()
    });
    sums.iter().sum()
}

/// One file of the chain, in the order of publication, and the point that it leads to.
struct Published {
    path: std::path::PathBuf,
    kind: BackupKind,
    base: Option<dictdb::Point>,
    end: dictdb::Point,
}

fn back_up_under_load(ring_bytes: usize, dir: &std::path::Path, seed: u64) -> Vec<Published> {
    println!("seed {seed}");
    let db = bank(ring_bytes);
    let done = AtomicBool::new(false);
    let seen_wrong = AtomicU64::new(0);
    let mut random = Rng::with_seed(seed);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, done) = (db.clone(), &done);
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed ^ (writer + 1) << 32);
                while !done.load(Ordering::Relaxed) {
                    transfer(&db, &mut random);
                }
            });
        }
        // Ends the writers also where something below fails.
        let _end = Ending(&done);
        let mut manager = None;
        let mut last = Seq::ZERO;
        for n in 0..BACKUPS {
            if n % 5 == 0 {
                drop(manager.take());
                let format = if random.bool() { BackupFormat::Json } else { BackupFormat::Binary };
                let builder = BackupManager::builder(&db, dir).file_format(format).incremental(true);
                manager = Some(builder.max_deltas_before_full(random.u32(1..6)).build().unwrap());
            }
            let manager = manager.as_ref().unwrap();
            // Some commits lie between any two backups.
            while db.seq().since(last) < 20 {
                std::thread::yield_now();
            }
            let report = match random.u8(0..4) {
                0 => manager.backup_full(),
                1 => manager.backup_delta(),
                _ => manager.backup_now(),
            };
            last = report.unwrap().seq;
            seen_wrong.fetch_add(u64::from(money(&db) != TOTAL), Ordering::Relaxed);
        }
    });
    assert_eq!(seen_wrong.into_inner(), 0, "a reader saw money half moved");
    let published: Vec<Published> = list_backups(dir)
        .unwrap()
        .into_iter()
        .map(|file| {
            let details = file.details.unwrap();
            Published { path: file.path, kind: file.kind, base: details.base, end: details.end.unwrap() }
        })
        .collect();
    assert!(published.len() >= BACKUPS);
    published
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The directory as it was after each file was published, each restored.
fn restore_every_prefix(published: &[Published], dir: &std::path::Path) {
    let storage = MemoryStorage::new();
    for file in published {
        storage.write(&file.path, std::fs::read(&file.path).unwrap()).unwrap();
        let (db, report) = RestoreOptions::new().storage(storage.clone()).restore(dir).unwrap();
        assert_eq!(report.point, file.end, "{report}");
        assert_eq!(db.digest(), file.end.digest);
        assert_eq!(money(&db), TOTAL, "{report}");
        assert!(report.damaged.is_empty() && report.left_out.is_empty() && !report.fell_back, "{report}");
    }
}

#[test]
fn backups_taken_during_transfers_restore_with_every_sum_whole_and_chain_without_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let published = back_up_under_load(64 << 20, dir.path(), 1);
    restore_every_prefix(&published, dir.path());

    // The ring forgot nothing and commits lay between any two backups: the deltas alone (bridges among them) lead from
    // the first file to the last.
    let mut end = published[0].end;
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for file in &published {
        *kinds.entry(format!("{} {}", file.kind, file.path.extension().unwrap().display())).or_default() += 1;
    }
    for delta in published[1..].iter().filter(|file| file.kind == BackupKind::Delta) {
        assert_eq!(delta.base, Some(end), "{}", delta.path.display());
        assert!(delta.end.seq > end.seq);
        end = delta.end;
    }
    println!("{kinds:?}");
    assert_eq!(end, published.last().unwrap().end);
    assert_eq!(kinds.len(), 4, "both kinds in both formats");

    // And so they restore, without any full backup but the first.
    let storage = MemoryStorage::new();
    for (n, file) in published.iter().enumerate() {
        if n == 0 || file.kind == BackupKind::Delta {
            storage.write(&file.path, std::fs::read(&file.path).unwrap()).unwrap();
        }
    }
    let (db, report) = RestoreOptions::new().storage(storage).restore(dir.path()).unwrap();
    assert_eq!((report.point, money(&db)), (end, TOTAL), "{report}");
}

#[test]
fn backups_taken_during_transfers_over_a_tiny_ring_restore_with_every_sum_whole() {
    let dir = tempfile::tempdir().unwrap();
    // About as much as is written between two backups: some deltas become full backups.
    let published = back_up_under_load(16 << 10, dir.path(), 2);
    restore_every_prefix(&published, dir.path());
    for (n, file) in published.iter().enumerate().filter(|(_, file)| file.kind == BackupKind::Delta) {
        let joins = published[..n].iter().any(|earlier| Some(earlier.end) == file.base);
        assert!(joins || n == 0, "{} joins onto nothing before it", file.path.display());
    }
    assert!(published.iter().any(|file| file.kind == BackupKind::Full), "a gap makes a full backup");
}
