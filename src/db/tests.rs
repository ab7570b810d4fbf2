//! The write path at its edges: the last numbers, commits that do not fit, panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::record;
use crate::storage::MemoryStorage;
use crate::store::Options;
use crate::value::{Key, Record};

/// A database whose last commit had this seq.
fn at(seq: u64) -> DictDb {
    let mut state = State::empty(Identity::fresh());
    state.seq = Seq::new(seq);
    Builder::default().build_from(state)
}

#[test]
fn the_last_seq_is_given_out_and_then_every_write_is_refused_without_a_trace() {
    let db = at(u64::MAX - 2);
    let table = db.create_table("t", "id").unwrap();
    table.insert(record! { "id": 1 }).unwrap();
    assert_eq!(db.seq().get(), u64::MAX);
    let before = db.digest();
    assert!(matches!(table.insert(record! { "id": 2 }), Err(Error::Exhausted { .. })));
    assert!(matches!(table.insert_many([record! { "id": 3 }]), Err(Error::Exhausted { .. })));
    let in_transaction = db.transaction(|tx| tx.table("t")?.insert(record! { "id": 4 }));
    assert!(matches!(in_transaction, Err(Error::Exhausted { .. })));
    assert_eq!((db.seq().get(), db.digest()), (u64::MAX, before));
}

/// What it left in memory may be half of a commit.
#[test]
fn a_close_behind_a_panic_inside_the_engine_says_so_and_seals_nothing() {
    let options = Options::new().storage(MemoryStorage::new());
    let db = options.open("/data").unwrap();
    db.create_table("t", "id").unwrap().insert(record! { "id": 1 }).unwrap();
    let digest = db.digest();
    let broken = catch_unwind(AssertUnwindSafe(|| {
        let _writer = db.shared.writer.lock();
        if let Some(table) = db.shared.state.write().unwrap().table_mut("t") {
            table.delete(&Key::Int(1));
        }
        panic!("in the midst of a commit");
    }));
    assert!(broken.is_err());
    let refused = db.close();
    assert!(matches!(&refused, Err(Error::Poisoned { cause }) if matches!(**cause, Error::Panicked)), "{refused:?}");
    let db = options.open("/data").unwrap();
    assert_eq!(db.digest(), digest);
    assert!(!db.open_report().unwrap().clean, "{}", db.open_report().unwrap());
}

#[test]
fn the_last_automatic_key_is_given_out_and_never_again() {
    let db = DictDb::new();
    let table = db.create_table("t", "id").unwrap();
    table.insert(record! { "id": i64::MAX - 1 }).unwrap();
    assert_eq!(table.insert(Record::new()).unwrap(), i64::MAX.into());
    table.delete(i64::MAX).unwrap();
    assert!(matches!(table.insert(Record::new()), Err(Error::Exhausted { .. })));
    assert_eq!(table.len().unwrap(), 1);
}

#[test]
fn a_commit_that_would_not_fit_into_a_frame_is_refused_before_anything_changes() {
    let db = DictDb::builder().ring_bytes(0).build();
    let table = db.create_table("t", "id").unwrap();
    let before = db.digest();
    let large = "x".repeat(200 << 20);
    for inserts in [true, false] {
        let too_much = db.transaction(|tx| {
            let table = tx.table("t")?;
            for id in 0..6 {
                let record = record! { "id": id, "x": large.as_str() };
                if inserts {
                    table.insert(record)?;
                } else {
                    table.upsert(record)?;
                }
            }
            Ok::<_, Error>(())
        });
        assert!(matches!(too_much, Err(Error::TooLarge { what: "one commit", .. })), "{too_much:?}");
    }
    let one = table.insert(record! { "x": "x".repeat(257 << 20) });
    assert!(matches!(one, Err(Error::TooLarge { what: "a record", .. })), "{one:?}");
    assert_eq!((db.digest(), db.seq().get()), (before, 1));
}

/// A clock of the user's that breaks.
#[derive(Debug)]
struct Broken(std::sync::atomic::AtomicBool);

impl Clock for Broken {
    fn now(&self) -> Timestamp {
        assert!(!self.0.load(Ordering::Relaxed), "the clock is broken");
        Timestamp::default()
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

#[derive(Clone, Debug)]
struct Shared(Arc<Broken>);

impl Clock for Shared {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> std::time::Duration {
        self.0.monotonic()
    }
}

#[test]
fn a_clock_that_panics_leaves_nothing_half_done() {
    let clock = Shared(Arc::new(Broken(false.into())));
    let db = DictDb::builder().clock(clock.clone()).build();
    let table = db.create_table("t", "id").unwrap();
    let before = db.digest();
    clock.0.0.store(true, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| table.insert(record! { "id": 1 }))).is_err());
    let in_transaction = || db.transaction(|tx| tx.table("t")?.insert(record! { "id": 1 }));
    assert!(catch_unwind(AssertUnwindSafe(in_transaction)).is_err());
    clock.0.0.store(false, Ordering::Relaxed);
    assert_eq!((db.digest(), db.seq().get()), (before, 1));
    table.insert(record! { "id": 1 }).unwrap();
    assert_eq!(db.commits_since(Seq::new(1)).unwrap().count(), 1);
}

#[test]
fn after_a_panic_inside_the_engine_reads_go_on_and_writes_are_refused() {
    let db = DictDb::new();
    let table = db.create_table("t", "id").unwrap();
    let broken = AssertUnwindSafe(|| db.write(|_| -> Result<()> { panic!("a bug of the engine's") }));
    assert!(catch_unwind(broken).is_err());
    assert_eq!(table.len().unwrap(), 0);
    assert!(matches!(table.insert(record! { "id": 1 }), Err(Error::Poisoned { .. })));
    assert!(matches!(db.transaction(|_| Ok::<_, Error>(())), Err(Error::Poisoned { .. })));
}

#[test]
fn a_large_record_that_is_refused_leaves_no_memory_held() {
    let db = DictDb::new();
    let table = db.create_table("t", "id").unwrap();
    table.insert(record! { "id": 1 }).unwrap();
    let large = "x".repeat(4 << 20);
    assert!(matches!(table.insert(record! { "id": 1, "x": large }), Err(Error::DuplicateKey { .. })));
    assert!(db.shared.writer.lock().unwrap().frame_capacity() <= 1 << 20);
}

#[test]
fn a_large_transaction_that_fails_or_panics_leaves_no_memory_held() {
    let db = DictDb::new();
    db.create_table("t", "id").unwrap();
    let large = record! { "x": "x".repeat(4 << 20) };
    let insert = |tx: &crate::Transaction<'_>| tx.table("t")?.insert(large.clone());
    let held = || db.shared.writer.lock().unwrap().frame_capacity();
    let failed: Result<()> = db.transaction(|tx| insert(tx).and(Err(Error::Cancelled)));
    assert!(matches!(failed, Err(Error::Cancelled)));
    assert!(held() <= 1 << 20, "{}", held());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        db.transaction(|tx| {
            insert(tx)?;
            panic!("of the user's");
            #[expect(unreachable_code, reason = "says of which type it would be")]
            Ok::<(), Error>(())
        })
    }));
    assert!(panicked.is_err());
    assert!(held() <= 1 << 20, "{}", held());
}

#[test]
fn records_refused_together_take_no_automatic_key() {
    let db = DictDb::new();
    let table = db.create_table("t", "id").unwrap();
    table.insert(record! { "id": 1 }).unwrap();
    let before = db.digest();
    let refused = table.insert_many([record! { "id": 1_000 }, record! { "id": 1 }]);
    assert!(matches!(refused, Err(Error::DuplicateKey { .. })));
    assert_eq!(db.digest(), before);
    assert_eq!(table.insert(record! { "n": 1 }).unwrap(), Key::Int(2));
}

#[test]
fn an_insert_refused_inside_a_transaction_leaves_no_trace_in_its_commit() {
    let (db, wanted) = (DictDb::new(), DictDb::new());
    for db in [&db, &wanted] {
        db.create_table("t", "id").unwrap();
        db.create_table("u", "id").unwrap();
        db.table("t").unwrap().insert(record! { "id": 1, "other": true }).unwrap();
    }
    let commit = |db: &DictDb, refused: bool| {
        db.transaction(|tx| {
            for n in 2..40 {
                let table = if n % 5 == 0 { "u" } else { "t" };
                if refused {
                    let taken = if n % 3 == 0 {
                        record! { "id": 1, "n": n }
                    } else {
                        record! { "id": 1, "m": n }
                    };
                    assert!(matches!(tx.table("t")?.insert(taken), Err(Error::DuplicateKey { .. })));
                }
                tx.table(table)?.insert(record! { "id": n, "n": n })?;
            }
            Ok::<_, Error>(())
        })
        .unwrap();
        let commits: Vec<_> = db.commits_since(Seq::new(3)).unwrap().map(|commit| commit.mutations).collect();
        (commits, db.digest())
    };
    assert_eq!(commit(&db, true), commit(&wanted, false));
}

#[test]
fn a_commit_is_the_same_in_one_step_or_two_and_whether_or_not_a_view_shares_what_it_changes() {
    let clock = crate::clock::ManualClock::new(Timestamp::default());
    let build = || {
        let state = State::empty(Identity { lineage: Lineage::NONE, parent: None });
        DictDb::builder().clock(clock.clone()).build_from(state)
    };
    let (alone, viewed) = (build(), build());
    let mut views = Vec::new();
    let mut rng = fastrand::Rng::with_seed(3);
    for db in [&alone, &viewed] {
        db.create_table("t", "id").unwrap();
    }
    for step in 0..3_000 {
        match rng.u8(0..4) {
            0 => views.push((viewed.snapshot(), viewed.digest())),
            1 => views.clear(),
            _ => {}
        }
        // In one step or in two.
        viewed.shared.considerate.store(rng.u32(0..2), Ordering::Relaxed);
        let (kind, seed) = (rng.u8(0..6), rng.u64(..));
        let outcomes = [&alone, &viewed].map(|db| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let table = db.table("t").unwrap();
            let key =
                if step > 2_000 && rng.bool() { rng.u8(..200).to_string().into() } else { Key::Int(rng.i64(..200)) };
            let mut record = record! { "text": "x".repeat(rng.usize(..300)) };
            if rng.bool() {
                record.insert("n", step);
            }
            let with_key = |mut record: Record| {
                match key.clone() {
                    Key::Int(n) => record.insert("id", n),
                    Key::Str(text) => record.insert("id", text.to_string()),
                };
                record
            };
            let outcome = match kind {
                0 => table.insert(with_key(record)).map(|key| key.to_string()),
                1 => table.upsert(with_key(record)).map(|done| format!("{done:?}")),
                2 => table.update(key.clone(), record).map(|record| record.to_string()),
                3 => table.replace(with_key(record)).map(|key| key.to_string()),
                4 => table.insert(record).map(|key| key.to_string()),
                _ => table.delete(key.clone()).map(|was_there| was_there.to_string()),
            };
            outcome.map_err(|error| error.to_string())
        });
        assert_eq!(outcomes[0], outcomes[1], "step {step}");
        assert_eq!((alone.digest(), alone.seq()), (viewed.digest(), viewed.seq()), "step {step}");
        for (view, digest) in &views {
            assert_eq!(view.digest(), *digest);
        }
    }
    let commits = [&alone, &viewed].map(|db| db.commits_since(Seq::ZERO).unwrap().collect::<Vec<_>>());
    assert!(commits[0].len() > 1_000, "{}", commits[0].len());
    assert_eq!(commits[0], commits[1]);
    let records = [&alone, &viewed].map(|db| db.table("t").unwrap().iter().unwrap().collect::<Vec<_>>());
    assert_eq!(records[0], records[1]);
}

#[test]
fn the_engines_own_looks_at_the_state_slow_no_writer() {
    let waits = |look: fn(&DictDb)| {
        let db = DictDb::new();
        let (state, looks) = (db.shared.state.write().unwrap(), std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                looks.store(true, Ordering::Relaxed);
                look(&db);
            });
            while !looks.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            (0..10_000).for_each(|_| std::thread::yield_now());
            drop(state);
        });
        db.shared.considerate.load(Ordering::Relaxed)
    };
    // A reader's look does.
    while waits(|db| drop(db.read())) == 0 {}
    let saves = |db: &DictDb| {
        let dir = tempfile::tempdir().unwrap();
        db.save(dir.path().join("file"), crate::file::name::BackupFormat::Binary).unwrap();
    };
    assert_eq!(waits(saves), 0);
}

/// A frame is closed while the memory comes that its mutation changes: another mutation behind that one opens it again.
#[test]
fn a_commit_that_goes_on_behind_its_first_mutation_is_logged_whole() {
    let storage = MemoryStorage::new();
    let open = || Options::new().storage(storage.clone()).open("/data").unwrap();
    let db = open();
    db.create_table("t", "id").unwrap();
    let row = |id: i64, text: &str| {
        let mut row = Vec::new();
        crate::row::encode_record(&record! { "id": id, "text": text }, &mut row).unwrap();
        row
    };
    db.write(|batch| batch.insert("t", &row(1, "one"))).unwrap();
    db.write(|batch| {
        batch.insert("t", &row(2, "two"))?;
        batch.upsert("t", &row(1, "another"))?;
        // Refused, and then one as long.
        assert!(batch.insert("t", &row(1, "six")).is_err());
        batch.insert("t", &row(3, "six"))?;
        batch.delete("t", &Key::Int(2))
    })
    .unwrap();
    db.write(|batch| {
        assert!(batch.insert("t", &row(3, "abc")).is_err());
        batch.insert("t", &row(4, "def"))
    })
    .unwrap();
    let (digest, seq) = (db.digest(), db.seq());
    drop(db);
    let again = open();
    assert_eq!((again.digest(), again.seq(), again.open_report().unwrap().torn.is_some()), (digest, seq, false));
}
