//! What reports, statuses and listings say: figures that nothing else is decided by, and the words that are logged.

use std::path::Path;
use std::time::Duration;

use dictdb::{
    BackupKind, BackupManager, BackupReport, DictDb, ManualClock, Options, RestoreOptions, Stage, Storage, Timestamp,
    list_backups, record,
};

use crate::faulty::{DIR, FORMATS, Fault, Faulty, Op, builder, commit, database};

fn file_name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

fn bytes_of(storage: &Faulty, file: &Path) -> u64 {
    storage.files.read(file).unwrap().len() as u64
}

#[test]
fn a_backup_report_says_what_is_in_the_file_how_large_it_is_and_how_long_it_took() {
    for format in FORMATS {
        let (storage, clock) = (Faulty::default(), ManualClock::new(Timestamp::from_micros(7_000_000)));
        let db = DictDb::builder().clock(clock.clone()).build();
        let table = db.create_table("t", "id").unwrap();
        table.insert_many((0..3).map(|id| record! { "id": id })).unwrap();
        clock.advance(Duration::from_secs(60));
        let manager = builder(&db, &storage, format).build().unwrap();
        let syncing = clock.clone();
        storage.hook(move |op| {
            if op == Op::Sync {
                syncing.advance(Duration::from_secs(2));
            }
        });
        let full = manager.backup_full().unwrap();
        table.upsert(record! { "id": 1, "n": 1 }).unwrap();
        table.delete(2).unwrap();
        clock.advance(Duration::from_secs(1));
        let delta = manager.backup_delta().unwrap();
        for report in [&full, &delta] {
            assert_eq!(report.bytes, bytes_of(&storage, &report.file), "{report}");
            assert_eq!(report.duration, Duration::from_secs(2), "syncs included: {report}");
        }
        let text = |report: &BackupReport, what: &str| {
            format!("{} backup {}: {what}, {} bytes in 2.0s", report.kind, file_name(&report.file), report.bytes)
        };
        assert_eq!(full.to_string(), text(&full, "3 records at seq 2"));
        assert_eq!(delta.to_string(), text(&delta, "commits (2, 4], 2 changes"));

        // When it was made, whoever asks: the one that made it, or one that found it.
        for manager in [manager, builder(&db, &storage, format).build().unwrap()] {
            let last = manager.status().last_success.unwrap();
            assert_eq!((last.file, last.seq), (delta.file.clone(), db.seq()));
            assert_eq!(last.time, Timestamp::from_micros(70_000_000), "{format}");
        }
    }
}

#[test]
fn a_bridge_that_cannot_be_written_is_told_and_the_full_backup_stands() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let manager = builder(&db, &storage, format).build().unwrap();
        manager.backup_full().unwrap();
        commit(&db);
        let kind = std::io::ErrorKind::PermissionDenied;
        storage.fail(Fault { op: Some(Op::Create), at: 1, forever: false, kind });
        let report = manager.backup_full().unwrap();
        storage.heal();
        let failure = report.bridge_failure.clone().unwrap();
        assert!(report.bridge.is_none() && report.to_string().contains(&failure), "{report}");
        assert_eq!(manager.status().last_success.map(|last| last.file), Some(report.file));
        assert_eq!(manager.consecutive_failures(), 0);
    }
}

#[test]
fn a_status_says_how_often_backups_failed_in_a_row_and_why() {
    let (storage, db) = (Faulty::default(), database());
    let manager = builder(&db, &storage, FORMATS[0]).build().unwrap();
    storage.fail_every(Op::Create, std::io::ErrorKind::PermissionDenied);
    let error = [0, 1].map(|_| manager.backup_now().unwrap_err())[1].to_string();
    let text = manager.status().to_string();
    assert!(text.starts_with("stopped, no backup yet, 2 commits pending"), "{text}");
    assert!(text.ends_with(&format!(", 2 failed in a row: {error}")), "{text}");
}

#[test]
fn what_a_restored_database_began_with_is_pending_until_a_directory_has_it() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        builder(&db, &storage, format).build().unwrap().backup_full().unwrap();
        let (db, _) = RestoreOptions::new().storage(storage.files.clone()).restore(DIR).unwrap();
        let elsewhere = Faulty::default();
        let manager = builder(&db, &elsewhere, format).build().unwrap();
        assert_eq!(manager.status().pending_commits, 1, "all that was restored, as one");
        commit(&db);
        assert_eq!(manager.status().pending_commits, 2);
        assert_eq!(builder(&db, &storage, format).build().unwrap().status().pending_commits, 1, "joined");
        manager.backup_now().unwrap();
        assert_eq!(manager.status().pending_commits, 0);
    }
}

#[test]
fn a_restore_report_says_what_it_read_and_what_it_did_without() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let manager = builder(&db, &storage, format).build().unwrap();
        let full = manager.backup_full().unwrap().file;
        let deltas = [0, 1].map(|_| {
            commit(&db);
            manager.backup_delta().unwrap().file
        });
        let options = RestoreOptions::new().storage(storage.files.clone());
        let (_, report) = options.restore(DIR).unwrap();
        let bytes = [&full, &deltas[0], &deltas[1]].map(|file| bytes_of(&storage, file)).iter().sum::<u64>();
        assert_eq!((report.records, report.bytes), (3, bytes), "{report}");
        let text = format!("restored 3 records at seq 4 from {} and 2 deltas, {bytes} bytes in ", file_name(&full));
        assert!(report.to_string().starts_with(&text), "{report}");

        let newer = manager.backup_full().unwrap().file;
        storage.files.write(&newer, *b"garbage").unwrap();
        let (_, report) = options.restore(DIR).unwrap();
        let told = format!("; FELL BACK to an older full backup; passed over: {}", report.damaged[0].error);
        assert!(report.to_string().ends_with(&told), "{report}");

        storage.files.remove(&newer).unwrap();
        storage.files.remove(&deltas[0]).unwrap();
        let (_, report) = options.accept_earlier(true).restore(DIR).unwrap();
        assert!(report.to_string().ends_with("; LEFT OUT 1 later deltas"), "{report}");
    }
}

#[test]
fn a_listing_says_of_each_file_where_it_begins_and_ends_what_it_holds_and_of_when_that_is() {
    for format in FORMATS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(Timestamp::from_micros(7_000_000)));
        let db = DictDb::builder().clock(clock.clone()).build();
        let table = db.create_table("t", "id").unwrap();
        let manager = BackupManager::builder(&db, dir.path()).file_format(format).build().unwrap();
        let mut points = vec![None];
        for kind in [BackupKind::Full, BackupKind::Delta, BackupKind::Full] {
            clock.advance(Duration::from_secs(1));
            table.insert_many((0..2).map(|_| record! { "n": 1 })).unwrap();
            let committed = db.snapshot().time();
            clock.advance(Duration::from_secs(1));
            if kind == BackupKind::Full { manager.backup_full() } else { manager.backup_delta() }.unwrap();
            let one = list_backups(dir.path()).unwrap().pop().unwrap();
            let details = one.details.unwrap();
            assert_eq!((one.kind, one.format, details.time), (kind, format, Some(committed)));
            assert_eq!((details.base, details.end), (points[points.len() - 1], Some(db.snapshot().point())));
            let held = if kind == BackupKind::Full { table.len().unwrap() } else { 2 };
            assert_eq!(details.records, Some(held as u64), "{kind} {format}");
            assert_eq!(details.bytes, std::fs::metadata(&one.path).unwrap().len());
            points.push(details.end);
        }
    }
}

#[test]
fn the_progress_of_an_open_is_told_in_commits_of_the_log() {
    let storage = Faulty::default();
    let options = || Options::new().storage(storage.files.clone());
    let db = options().open("/data").unwrap();
    db.create_table("t", "id").unwrap();
    (0..4_100).for_each(|_| commit(&db));
    db.close().unwrap();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = told.clone();
    let opening = options().on_progress(move |progress| {
        telling.lock().unwrap().push((progress.stage, progress.to_string()));
        std::ops::ControlFlow::Continue(())
    });
    drop(opening.open("/data").unwrap());
    let told = told.lock().unwrap();
    let (stage, text) = told.last().unwrap();
    assert_eq!(*stage, Stage::ReadingLog);
    assert!(text.starts_with("replaying log segment ") && text.contains(" commits, "), "{text}");
}

#[test]
fn the_bytes_of_a_views_records_are_the_same_whichever_way_they_came() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let manager = builder(&db, &storage, format).build().unwrap();
        manager.backup_full().unwrap();
        let before = db.snapshot().record_bytes();
        let key = db.table("t").unwrap().insert(record! { "text": "x".repeat(1_000) }).unwrap();
        assert!((before + 1_000..before + 1_100).contains(&db.snapshot().record_bytes()));
        manager.backup_delta().unwrap();
        let (again, _) = RestoreOptions::new().storage(storage.files.clone()).restore(DIR).unwrap();
        assert_eq!(again.snapshot().record_bytes(), db.snapshot().record_bytes(), "{format}");
        db.table("t").unwrap().delete(key).unwrap();
        assert_eq!(db.snapshot().record_bytes(), before);
    }
}
