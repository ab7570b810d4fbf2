//! Progress callbacks: figures that rise to the totals, and a way out that leaves nothing behind.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use dictdb::{DictDb, Error, LoadOptions, RestoreOptions, Stage, record};

use crate::faulty::{DIR, FORMATS, Faulty, builder, commit, database, restored};

/// stage, records done and total, bytes done and total
type Figures = (Stage, u64, Option<u64>, u64, Option<u64>);

fn large() -> DictDb {
    let db = database();
    let rows = (0..5_000).map(|n| record! { "n": n, "text": "x".repeat(200) });
    db.table("t").unwrap().insert_many(rows).unwrap();
    db
}

fn assert_rising(figures: &[Figures], label: &str) {
    assert!(figures.len() >= 3, "{label}: only {} reports of 5,000 records", figures.len());
    for pair in figures.windows(2) {
        assert!(pair[0].1 <= pair[1].1 && pair[0].3 <= pair[1].3, "{label}: {pair:?}");
    }
    let (_, records, records_total, bytes, bytes_total) = figures[figures.len() - 1];
    assert!(records >= 5_000 && records_total.is_none_or(|total| total == records), "{label}: {records}");
    assert!(bytes_total.is_none_or(|total| bytes <= total), "{label}: {bytes} of {bytes_total:?}");
}

#[test]
fn figures_rise_and_end_at_the_totals() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), large());
        let seen: Arc<Mutex<Vec<Figures>>> = Arc::default();
        let note = |seen: &Arc<Mutex<Vec<Figures>>>| {
            let seen = seen.clone();
            move |p: &dictdb::Progress<'_>| {
                assert!(p.file.starts_with(DIR) && !p.file.to_string_lossy().ends_with(".tmp"));
                seen.lock().unwrap().push((p.stage, p.records_done, p.records_total, p.bytes_done, p.bytes_total));
                ControlFlow::Continue(())
            }
        };
        let take = |stage| {
            let all = std::mem::take(&mut *seen.lock().unwrap());
            assert!(all.iter().any(|figures| figures.0 == stage), "{format}: {all:?}");
            all.into_iter().filter(|figures| figures.0 == stage).collect::<Vec<_>>()
        };
        let manager = builder(&db, &storage, format).on_progress(note(&seen)).build().unwrap();
        let report = manager.backup_full().unwrap();
        let full = take(Stage::WritingFull);
        assert_rising(&full, "writing a full backup");
        assert_eq!((full[full.len() - 1].1, full[0].2), (report.records, Some(report.records)));
        for n in 1..=5_000 {
            db.table("t").unwrap().update(n, record! { "n": -n }).unwrap();
        }
        manager.backup_delta().unwrap();
        assert_rising(&take(Stage::WritingDelta), "writing a delta");

        let options = RestoreOptions::new().storage(storage.files.clone()).on_progress(note(&seen));
        options.restore(DIR).unwrap();
        let reading = std::mem::take(&mut *seen.lock().unwrap());
        for stage in [Stage::ReadingFull, Stage::ReadingDelta] {
            let one: Vec<_> = reading.iter().filter(|figures| figures.0 == stage).copied().collect();
            assert_rising(&one, "reading");
        }
    }
}

#[test]
fn a_delta_tells_how_far_it_is_each_thousand_commits_or_so_however_small_they_are() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let told: Arc<Mutex<Vec<u64>>> = Arc::default();
        let note = Arc::clone(&told);
        let builder = builder(&db, &storage, format).on_progress(move |progress| {
            if progress.stage == Stage::WritingDelta {
                note.lock().unwrap().push(progress.records_done);
            }
            ControlFlow::Continue(())
        });
        let manager = builder.build().unwrap();
        manager.backup_full().unwrap();
        for n in 0..5_000 {
            db.table("t").unwrap().insert(record! { "n": n }).unwrap();
        }
        manager.backup_delta().unwrap();
        let told = told.lock().unwrap();
        let steps = told.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(told[0] <= 1_100 && steps.max().unwrap() <= 1_100 && told.last() == Some(&5_000), "{format}: {told:?}");
    }
}

#[test]
fn a_backup_cancelled_at_any_report_leaves_nothing_and_is_no_failure() {
    for format in FORMATS {
        for full in [true, false] {
            let (storage, db) = (Faulty::default(), large());
            builder(&db, &storage, format).build().unwrap().backup_full().unwrap();
            for n in 1..=3_000 {
                db.table("t").unwrap().update(n, record! { "n": -n }).unwrap();
            }
            let left = Arc::new(Mutex::new(0_i32));
            let countdown = left.clone();
            let manager = builder(&db, &storage, format)
                .on_progress(move |_| {
                    *countdown.lock().unwrap() -= 1;
                    if *countdown.lock().unwrap() < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
                .on_backup_failure(|error, _| panic!("a cancelled backup is no failure: {error}"))
                .build()
                .unwrap();
            let mut cancelled = 0;
            loop {
                *left.lock().unwrap() = cancelled;
                let (names, before) = (storage.names(), manager.status());
                // Not incremental, or a cancelled bridge would count as a full backup that stands.
                let outcome = if full { manager.backup_full() } else { manager.backup_delta() };
                match outcome {
                    Err(Error::Cancelled) => {
                        assert_eq!(storage.names(), names, "{format}: something stayed");
                        let after = manager.status();
                        assert_eq!((after.consecutive_failures, after.last_failure), (0, None));
                        assert_eq!(after.pending_commits, before.pending_commits);
                        cancelled += 1;
                    }
                    Ok(_) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(cancelled >= 2, "{format}: {cancelled}");
            *left.lock().unwrap() = i32::MAX;
            commit(&db);
            manager.backup_now().unwrap();
            assert_eq!(restored(&storage).0, db.digest());
        }
    }
}

#[test]
fn a_restore_or_load_cancelled_at_any_report_gives_nothing_and_writes_nothing() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), large());
        let manager = builder(&db, &storage, format).build().unwrap();
        let full = manager.backup_full().unwrap().file;
        for n in 1..=3_000 {
            db.table("t").unwrap().update(n, record! { "n": -n }).unwrap();
        }
        manager.backup_delta().unwrap();
        let names = storage.names();
        let cancel_after = |reports: usize| {
            let left = Mutex::new(reports);
            move |_: &dictdb::Progress<'_>| {
                let mut left = left.lock().unwrap();
                if *left == 0 {
                    return ControlFlow::Break(());
                }
                *left -= 1;
                ControlFlow::Continue(())
            }
        };
        let mut cancelled = 0;
        loop {
            let options = RestoreOptions::new().storage(storage.files.clone()).accept_earlier(true);
            match options.on_progress(cancel_after(cancelled)).restore(DIR) {
                Err(Error::Cancelled) => cancelled += 1,
                Ok((restored, _)) => break assert_eq!(restored.digest(), db.digest()),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(cancelled >= 4, "{format}: {cancelled}");
        let options = LoadOptions::new().storage(storage.files.clone()).on_progress(cancel_after(1));
        assert!(matches!(DictDb::load_with(&full, &options), Err(Error::Cancelled)));
        assert_eq!(storage.names(), names);
    }
}

#[test]
fn a_progress_callback_that_panics_costs_neither_the_backup_nor_the_manager() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), large());
        let manager = builder(&db, &storage, format).on_progress(|_| panic!("a broken progress bar")).build().unwrap();
        for _ in 0..3 {
            commit(&db);
            manager.backup_now().unwrap();
            assert_eq!(restored(&storage).0, db.digest());
            assert_eq!(storage.names(), storage.backups(), "no temporary file stays");
        }
        manager.start().unwrap();
        commit(&db);
        manager.notify_change().unwrap();
        manager.stop().unwrap();
        assert_eq!(restored(&storage).0, db.digest());
    }
}
