//! What the manager does with a directory, without its thread.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use dictdb::{
    BackupFormat, BackupKind, BackupManager, Compression, DictDb, Error, ManualClock, Notified, Promotion,
    RestoreOptions, Storage, Timestamp, record,
};

use crate::faulty::{DIR, FORMATS, Faulty, Gate, Op, builder, commit, database, restored};

#[test]
fn automatic_backups_skip_where_nothing_was_committed_and_manual_ones_always_write() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let manager = builder(&db, &storage, format).build().unwrap();
        manager.backup_now().unwrap();
        let files = storage.backups().len();
        assert!(matches!(manager.notify_change(), Ok(Notified::Unchanged)));
        assert_eq!(storage.backups().len(), files);
        for wanted in 1..=3 {
            let report = manager.backup_delta().unwrap();
            assert_eq!((report.kind, report.commits, report.records), (BackupKind::Delta, 0, 0), "{report}");
            assert_eq!(storage.backups().len(), files + wanted);
        }
        manager.backup_full().unwrap();
        assert_eq!(storage.backups().len(), files + 4, "and no bridge over nothing");
        assert_eq!(restored(&storage).0, db.digest());
    }
}

// Whether anything was committed was once all that was asked: a database in memory then had no copy.
#[test]
fn an_automatic_backup_is_made_though_nothing_was_committed_where_a_file_of_the_last_one_is_gone() {
    for format in FORMATS {
        for gone in [0..1, 1..2, 0..2] {
            let (storage, db) = (Faulty::default(), database());
            let manager = builder(&db, &storage, format).build().unwrap();
            let mut files = vec![manager.backup_full().unwrap().file];
            commit(&db);
            files.push(manager.backup_delta().unwrap().file);
            assert!(matches!(manager.notify_change(), Ok(Notified::Unchanged)));

            storage.fail_every(Op::List, ErrorKind::PermissionDenied);
            let error = manager.notify_change().unwrap_err();
            assert!(matches!(&error, Error::Io { op: "list directory", .. }), "{error}");
            assert_eq!(manager.consecutive_failures(), 1);
            assert!(manager.status().change_pending);
            storage.heal();
            assert!(manager.stop().unwrap().is_none());

            for file in &files[gone.clone()] {
                storage.files.remove(file).unwrap();
            }
            let outcome = manager.notify_change();
            assert!(matches!(outcome, Ok(Notified::BackedUp(_))), "{format}, files {gone:?} gone: {outcome:?}");
            assert_eq!(restored(&storage).0, db.digest());
            assert!(matches!(manager.notify_change(), Ok(Notified::Unchanged)));
        }
    }
}

#[test]
fn a_change_notified_to_a_stopped_manager_is_backed_up_at_once_or_kept_for_later() {
    let (storage, clock) = (Faulty::default(), ManualClock::new(Timestamp::from_micros(0)));
    let db = DictDb::builder().clock(clock.clone()).build();
    db.create_table("t", "id").unwrap();
    let manager = builder(&db, &storage, FORMATS[0]).min_backup_interval(Duration::from_secs(5)).build().unwrap();
    assert!(matches!(manager.notify_change(), Ok(Notified::BackedUp(_))));
    commit(&db);
    clock.advance(Duration::from_nanos(4_999_999_999));
    assert!(matches!(manager.notify_change(), Ok(Notified::Deferred)));
    assert!(manager.status().change_pending);
    assert_eq!(manager.status().pending_commits, 1);
    clock.advance(Duration::from_nanos(1));
    assert!(matches!(manager.notify_change(), Ok(Notified::BackedUp(report)) if report.commits == 1));
    commit(&db);
    assert!(matches!(manager.notify_change(), Ok(Notified::Deferred)));
    let report = manager.stop().unwrap().unwrap();
    assert_eq!(report.commits, 1, "stop finishes what waits, though the thread never ran");
    assert_eq!(restored(&storage).0, db.digest());
    assert!(manager.stop().unwrap().is_none(), "once");
}

#[test]
fn a_manager_goes_on_with_the_chain_that_it_finds() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let mut deltas = None;
        for round in 0..12 {
            commit(&db);
            let manager = builder(&db, &storage, format).max_deltas_before_full(3).build().unwrap();
            assert_eq!(deltas.unwrap_or(0), manager.deltas_since_full(), "{format}, round {round}");
            assert_eq!(manager.status().last_success.is_some(), round > 0);
            assert_eq!(manager.status().pending_commits, if round == 0 { db.seq().get() } else { 1 });
            let report = manager.backup_now().unwrap();
            let promoted = (round == 0 && format == BackupFormat::Json).then_some(Promotion::NoChain);
            assert_eq!(report.promoted, promoted, "{format}, round {round}: {report}");
            // Binary begins with deltas from the empty database.
            let place = if format == BackupFormat::Json { round % 4 } else { (round + 1) % 4 };
            assert_eq!(manager.deltas_since_full(), place, "{format}, round {round}");
            assert_eq!(report.kind == BackupKind::Full, place == 0, "{format}, round {round}: {report}");
            assert_eq!(report.bridge.is_some(), place == 0 && round > 0, "{format}, round {round}: {report}");
            deltas = Some(place);
        }
        assert_eq!(restored(&storage).0, db.digest());
    }
}

#[test]
fn a_restored_database_goes_on_with_the_chain_that_it_came_from() {
    for format in FORMATS {
        let (storage, mut db) = (Faulty::default(), database());
        builder(&db, &storage, format).build().unwrap().backup_full().unwrap();
        for round in 1..=4 {
            commit(&db);
            let manager = builder(&db, &storage, format).build().unwrap();
            let report = manager.backup_now().unwrap();
            assert_eq!((report.kind, report.promoted), (BackupKind::Delta, None), "{format}: {report}");
            assert_eq!(manager.deltas_since_full(), round);
            let (again, report) = RestoreOptions::new().storage(storage.files.clone()).restore(DIR).unwrap();
            assert_eq!((again.digest(), again.seq()), (db.digest(), db.seq()), "{format}: {report}");
            assert_ne!(again.lineage(), db.lineage());
            db = again;
        }
    }
}

#[test]
fn a_gap_in_the_ring_makes_the_delta_a_full_backup_and_the_report_says_so() {
    for format in FORMATS {
        let storage = Faulty::default();
        let db = DictDb::builder().ring_bytes(512).build();
        db.create_table("t", "id").unwrap();
        let manager = builder(&db, &storage, format).build().unwrap();
        manager.backup_full().unwrap();
        commit(&db);
        assert_eq!(manager.backup_delta().unwrap().promoted, None, "one commit fits into the ring");
        (0..100).for_each(|_| commit(&db));
        let report = manager.backup_now().unwrap();
        assert_eq!((report.kind, report.promoted), (BackupKind::Full, Some(Promotion::Gap)), "{report}");
        assert!(report.to_string().contains("ring no longer holds"), "{report}");
        assert_eq!((report.bridge.as_ref(), manager.deltas_since_full()), (None, 0));
        assert_eq!(restored(&storage).0, db.digest());
        commit(&db);
        assert_eq!(manager.backup_now().unwrap().promoted, None);
        assert_eq!(restored(&storage).0, db.digest());
    }
}

#[test]
fn a_file_gone_from_the_chain_makes_the_next_backup_a_full_one() {
    for format in FORMATS {
        for gone in 0..3 {
            let (storage, db) = (Faulty::default(), database());
            let manager = builder(&db, &storage, format).build().unwrap();
            let mut files = vec![manager.backup_full().unwrap().file];
            for _ in 0..2 {
                commit(&db);
                files.push(manager.backup_delta().unwrap().file);
            }
            dictdb::Storage::remove(&storage.files, &files[gone]).unwrap();
            commit(&db);
            let report = manager.backup_delta().unwrap();
            assert_eq!((report.kind, report.promoted), (BackupKind::Full, Some(Promotion::ChainBroken)), "{report}");
            assert_eq!(restored(&storage).0, db.digest(), "{format}, file {gone} gone");
        }
    }
}

#[test]
fn two_managers_on_one_directory_take_turns_on_one_chain() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let managers = [0, 1].map(|_| builder(&db, &storage, format).max_deltas_before_full(4).build().unwrap());
        let mut random = fastrand::Rng::with_seed(7);
        let mut files = 0;
        for round in 0..60 {
            commit(&db);
            let manager = &managers[random.usize(..2)];
            let report = match random.u8(..4) {
                0 => manager.backup_full(),
                1 => manager.backup_delta(),
                _ => manager.backup_now(),
            };
            let report = report.unwrap();
            files += 1 + usize::from(report.bridge.is_some());
            assert_eq!(storage.backups().len(), files, "{format}, round {round}: a file was overwritten");
            let (digest, from) = restored(&storage);
            assert_eq!(digest, db.digest(), "{format}, round {round}: {report}; {from}");
        }
    }
}

#[test]
fn two_managers_that_choose_one_name_at_one_moment_do_not_overwrite_one_another() {
    for format in FORMATS {
        let storage = Faulty::default();
        // Of two databases, as of two processes; the clock stands still, so that both give the same stamp.
        let clock = ManualClock::new(Timestamp::from_micros(77));
        let [db, another] = [(); 2].map(|()| DictDb::builder().clock(clock.clone()).build());
        db.create_table("t", "id").unwrap();
        let (one, other) =
            (builder(&db, &storage, format).build().unwrap(), builder(&another, &storage, format).build().unwrap());
        let gate = Gate::new();
        let in_hook = gate.clone();
        let armed = std::sync::atomic::AtomicBool::new(true);
        storage.hook(move |op| {
            if op == Op::Create && armed.swap(false, std::sync::atomic::Ordering::SeqCst) {
                in_hook.pass(); // the name is chosen
            }
        });
        std::thread::scope(|scope| {
            let first = scope.spawn(|| one.backup_full());
            gate.wait_for_arrival();
            let second = other.backup_full().unwrap();
            let bytes = storage.files.read(&second.file).unwrap();
            gate.open();
            let refused = first.join().unwrap().unwrap_err();
            let Error::Io { path, source, .. } = &refused else { panic!("{refused:?}") };
            assert_eq!((path, source.kind()), (&second.file, std::io::ErrorKind::AlreadyExists));
            assert_eq!(storage.files.read(&second.file).unwrap(), bytes, "overwritten");
        });
        commit(&db);
        one.backup_now().unwrap();
        assert_eq!(restored(&storage).0, db.digest());
        assert_eq!(storage.names(), storage.backups(), "no temporary file stays");
    }
}

#[test]
fn a_name_behind_which_there_is_no_other_hinders_backups_no_longer_than_it_is_there() {
    for format in FORMATS {
        let storage = Faulty::default();
        let db = database();
        let last = format!("{DIR}/dictdb_backup_9223372036854_775807.json");
        storage.files.create_dir_all(Path::new(DIR)).unwrap();
        storage.files.write(&last, b"{}".to_vec()).unwrap();
        let refused = builder(&db, &storage, format).build().unwrap().backup_full().unwrap_err();
        assert!(matches!(refused, Error::Exhausted { .. }), "{refused:?}");
        storage.files.remove(Path::new(&last)).unwrap();
        builder(&db, &storage, format).build().unwrap().backup_full().unwrap();
        assert_eq!(restored(&storage).0, db.digest());
    }
}

#[test]
fn a_name_behind_which_there_is_no_other_hinders_a_manager_no_longer_than_it_is_there() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let [manager, other] = [0, 1].map(|_| builder(&db, &storage, format).build().unwrap());
        manager.backup_full().unwrap();
        let last = format!("{DIR}/dictdb_backup_9223372036854_775807.json");
        storage.files.write(&last, b"{}".to_vec()).unwrap();
        commit(&db);
        let refused = manager.backup_now().unwrap_err();
        assert!(matches!(refused, Error::Exhausted { .. }), "{refused:?}");
        storage.files.remove(Path::new(&last)).unwrap();
        for _ in 0..2 {
            manager.backup_now().unwrap();
            assert_eq!(restored(&storage).0, db.digest());
            commit(&db);
        }
        // It still sees what another manager does.
        let seen = other.backup_now().unwrap();
        commit(&db);
        let report = manager.backup_delta().unwrap();
        assert_eq!(report.base_seq, Some(seen.seq), "{report}");
        assert_eq!(restored(&storage).0, db.digest());
    }
}

/// A full backup as a later version would write it: all that this one knows of it is how its version is told.
fn of_a_later_version(format: BackupFormat) -> Vec<u8> {
    let (storage, db) = (Faulty::default(), database());
    let report = builder(&db, &storage, format).build().unwrap().backup_full().unwrap();
    let mut bytes = storage.files.read(&report.file).unwrap();
    match format {
        BackupFormat::Binary => {
            bytes[8] = 3;
            let crc = crc32fast::hash(&bytes[..124]);
            bytes[124..128].copy_from_slice(&crc.to_le_bytes());
            bytes
        }
        BackupFormat::Json => {
            let text = String::from_utf8(bytes).unwrap();
            let (text, _) = text.rsplit_once(",\n    \"dictdb_seal\"").unwrap();
            let later = text.replacen("\"format\":2", "\"format\":3", 1);
            assert_ne!(later, text);
            let (length, crc) = (later.len(), crc32fast::hash(later.as_bytes()));
            let seal = format!(",\n    \"dictdb_seal\": {{\"bytes\": {length}, \"crc32\": \"{crc:08x}\"}}\n}}\n");
            (later + &seal).into_bytes()
        }
    }
}

#[test]
fn beside_a_full_backup_of_a_later_version_a_database_begins_with_a_full_backup_and_restores() {
    for (later, extension) in FORMATS.into_iter().zip(["bin", "json"]) {
        let later = of_a_later_version(later);
        let path = format!("{DIR}/dictdb_backup_1700000000_000000.{extension}");
        for begun_before in [false, true] {
            let (storage, db) = (Faulty::default(), database());
            if begun_before {
                // A chain from the empty database, which nothing can restore once the other file is there.
                let manager = builder(&db, &storage, BackupFormat::Binary).build().unwrap();
                assert_eq!(manager.backup_now().unwrap().kind, BackupKind::Delta);
                commit(&db);
            }
            storage.files.create_dir_all(Path::new(DIR)).unwrap();
            storage.files.write(&path, later.clone()).unwrap();
            let manager = builder(&db, &storage, BackupFormat::Binary).build().unwrap();
            let report = manager.backup_now().unwrap();
            assert_eq!((report.kind, report.promoted), (BackupKind::Full, Some(Promotion::NoChain)), "{report}");
            for _ in 0..3 {
                assert_eq!(restored(&storage).0, db.digest());
                commit(&db);
                assert_eq!(manager.backup_now().unwrap().kind, BackupKind::Delta);
            }
            assert_eq!(storage.files.read(&path).unwrap(), later);
        }
    }
}

#[test]
fn a_fresh_database_in_an_old_directory_begins_with_a_full_backup_and_is_what_is_restored() {
    for format in FORMATS {
        for same_clock in [false, true] {
            let storage = Faulty::default();
            let old = database();
            let manager = builder(&old, &storage, format).build().unwrap();
            manager.backup_full().unwrap();
            commit(&old);
            manager.backup_now().unwrap();
            drop(manager);

            let clock = ManualClock::new(Timestamp::from_micros(if same_clock { 0 } else { i64::MAX / 4 }));
            let fresh = DictDb::builder().clock(clock).build();
            fresh.create_table("other", "id").unwrap().insert(record! { "fresh": true }).unwrap();
            let manager = builder(&fresh, &storage, format).build().unwrap();
            assert!(manager.status().last_success.is_none() && manager.deltas_since_full() == 0);
            let report = manager.backup_now().unwrap();
            assert_eq!((report.kind, report.promoted), (BackupKind::Full, Some(Promotion::NoChain)), "{report}");
            assert_eq!(restored(&storage).0, fresh.digest());
            fresh.drop_table("other").unwrap();
            assert_eq!(manager.backup_now().unwrap().kind, BackupKind::Delta);
            assert_eq!(restored(&storage).0, fresh.digest());
            // The old one is still there for who asks for it in its own directory; here the newest counts.
        }
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let db = database();
    let zero = BackupManager::builder(&db, DIR).storage(Faulty::default()).backup_interval(Duration::ZERO).build();
    assert!(matches!(zero, Err(Error::InvalidSetting { setting: "backup_interval", .. })));
    let compressed = |format| {
        let builder = BackupManager::builder(&db, DIR).storage(Faulty::default());
        builder.compression(Compression::Lz4).file_format(format).build()
    };
    let json = compressed(BackupFormat::Json).unwrap_err();
    assert!(matches!(json, Error::InvalidSetting { setting: "compression", .. }), "{json}");
    assert!(json.to_string().contains("file_format(BackupFormat::Binary)"), "{json}");
    compressed(BackupFormat::Binary).unwrap();
}
