//! The backup guide of DictDB for Python, section by section: what it promises holds here, by the same names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dictdb::{
    BackupFormat, BackupKind, BackupManager, DictDb, Error, ManualClock, Notified, Timestamp, list_backups, record,
    restore,
};
use tempfile::TempDir;

/// 2009-02-13T23:31:30.123456Z, the stamp in the guide.
const GUIDE_TIME: Timestamp = Timestamp::from_micros(1_234_567_890_123_456);

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A database with a table `users` of one record, and a clock that stands still.
fn users() -> (DictDb, ManualClock) {
    let clock = ManualClock::new(GUIDE_TIME);
    let db = DictDb::builder().clock(clock.clone()).build();
    let users = db.create_table("users", "id").unwrap();
    users.insert(record! { "id": 1, "name": "Alice" }).unwrap();
    (db, clock)
}

fn add_user(db: &DictDb) {
    db.table("users").unwrap().insert(record! { "name": "Bob" }).unwrap();
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn kinds(dir: &Path) -> Vec<BackupKind> {
    list_backups(dir).unwrap().iter().map(|backup| backup.kind).collect()
}

#[test]
fn basic_usage_backs_up_between_start_and_stop() {
    let dir = directory();
    let db = DictDb::new();
    let users = db.create_table("users", "id").unwrap();
    let backup = BackupManager::builder(&db, dir.path())
        .backup_interval(Duration::from_secs(300))
        .file_format("json".parse().unwrap())
        .build()
        .unwrap();
    assert!(!backup.status().running);
    backup.start().unwrap();
    assert!(backup.status().running);
    users.insert(record! { "name": "Alice" }).unwrap();
    assert!(matches!(backup.notify_change().unwrap(), Notified::Scheduled));
    backup.stop().unwrap();
    assert!(!backup.status().running);
    assert_eq!(backup.status().pending_commits, 0, "stop finishes what was notified");
    assert_eq!(restore(dir.path()).unwrap().0.digest(), db.digest());
}

#[test]
fn a_stopped_manager_starts_again() {
    let dir = directory();
    let (db, _) = users();
    let backup = BackupManager::new(&db, dir.path()).unwrap();
    for _ in 0..3 {
        backup.start().unwrap();
        backup.start().unwrap();
        add_user(&db);
        backup.notify_change().unwrap();
        backup.stop().unwrap();
        backup.stop().unwrap();
        assert_eq!(restore(dir.path()).unwrap().0.digest(), db.digest());
    }
}

#[test]
fn every_option_has_the_default_of_the_guide() {
    let (db, _) = users();
    let settings = format!("{:?}", BackupManager::builder(&db, "backups"));
    for setting in [
        "dir: \"backups\"",
        "backup_interval: 300s",
        "file_format: Json",
        "min_backup_interval: 5s",
        "on_backup_failure: false",
        "incremental: false",
        "max_deltas_before_full: 10",
    ] {
        assert!(settings.contains(setting), "{setting} in {settings}");
    }
}

#[test]
fn the_backup_directory_is_made_with_what_is_above_it() {
    let dir = directory();
    let (db, _) = users();
    let nested = dir.path().join("data/backups");
    let backup = BackupManager::new(&db, &nested).unwrap();
    assert_eq!(backup.backup_dir(), nested);
    let report = backup.backup_now().unwrap();
    assert_eq!(report.file.parent(), Some(nested.as_path()));
}

#[test]
fn the_file_format_decides_name_and_content_and_pickle_says_what_to_use() {
    let dir = directory();
    let (db, _) = users();
    for (name, format, extension, first_byte) in
        [("json", BackupFormat::Json, "json", b'{'), ("BINARY", BackupFormat::Binary, "bin", 0x89)]
    {
        let parsed = name.parse().unwrap();
        assert_eq!(parsed, format);
        let backup = BackupManager::builder(&db, dir.path()).file_format(parsed).build().unwrap();
        let file = backup.backup_full().unwrap().file;
        assert_eq!(file.extension().unwrap(), extension);
        assert_eq!(fs::read(&file).unwrap()[0], first_byte);
        assert_eq!(DictDb::load(&file).unwrap().digest(), db.digest());
    }
    let refused = "pickle".parse::<BackupFormat>().unwrap_err().to_string();
    assert!(refused.contains("its counterpart here is \"binary\""), "{refused}");
}

#[test]
fn manual_backups_are_made_at_once_in_the_kind_asked_for() {
    let dir = directory();
    let (db, _) = users();
    let backup = BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap();
    assert_eq!(backup.backup_now().unwrap().kind, BackupKind::Full, "the first one is the base");
    add_user(&db);
    assert_eq!(backup.backup_now().unwrap().kind, BackupKind::Delta);
    assert_eq!(backup.backup_full().unwrap().kind, BackupKind::Full);
    add_user(&db);
    assert_eq!(backup.backup_delta().unwrap().kind, BackupKind::Delta);
    // Without a change in between they write all the same.
    assert_eq!(backup.backup_delta().unwrap().commits, 0);
    let plain = directory();
    let backup = BackupManager::new(&db, plain.path()).unwrap();
    backup.backup_now().unwrap();
    backup.backup_now().unwrap();
    assert_eq!(kinds(plain.path()), [BackupKind::Full, BackupKind::Full]);
}

#[test]
fn a_notified_change_keeps_min_backup_interval_and_is_not_dropped() {
    let dir = directory();
    let (db, clock) = users();
    let backup = BackupManager::new(&db, dir.path()).unwrap();
    assert!(matches!(backup.notify_change().unwrap(), Notified::BackedUp(_)));
    add_user(&db);
    clock.advance(Duration::from_millis(4_999));
    assert!(matches!(backup.notify_change().unwrap(), Notified::Deferred));
    assert!(backup.status().change_pending);
    assert_eq!(kinds(dir.path()).len(), 1);
    clock.advance(Duration::from_millis(1));
    assert!(matches!(backup.notify_change().unwrap(), Notified::BackedUp(_)));
    clock.advance(Duration::from_secs(5));
    assert!(matches!(backup.notify_change().unwrap(), Notified::Unchanged));
    add_user(&db);
    assert!(matches!(backup.notify_change().unwrap(), Notified::BackedUp(_)));
    add_user(&db);
    assert!(matches!(backup.notify_change().unwrap(), Notified::Deferred));
    backup.stop().unwrap();
    assert_eq!(backup.status().pending_commits, 0, "stop makes the backup that was deferred");
}

#[test]
fn min_backup_interval_is_a_setting() {
    let dir = directory();
    let (db, clock) = users();
    let ten = Duration::from_secs(10);
    let backup = BackupManager::builder(&db, dir.path()).min_backup_interval(ten).build().unwrap();
    backup.backup_now().unwrap();
    add_user(&db);
    clock.advance(Duration::from_secs(9));
    assert!(matches!(backup.notify_change().unwrap(), Notified::Deferred));
    clock.advance(Duration::from_secs(1));
    assert!(matches!(backup.notify_change().unwrap(), Notified::BackedUp(_)));
}

#[test]
fn an_interval_of_zero_is_refused() {
    let dir = directory();
    let (db, _) = users();
    let refused = BackupManager::builder(&db, dir.path()).backup_interval(Duration::ZERO).build();
    assert!(matches!(refused, Err(Error::InvalidSetting { setting: "backup_interval", .. })));
}

#[test]
fn incremental_mode_writes_a_full_backup_after_max_deltas_before_full() {
    for (setting, max) in [(None, 10), (Some(3), 3)] {
        let dir = directory();
        let (db, _) = users();
        let mut builder = BackupManager::builder(&db, dir.path()).incremental(true);
        if let Some(deltas) = setting {
            builder = builder.max_deltas_before_full(deltas);
        }
        let backup = builder.build().unwrap();
        backup.backup_now().unwrap();
        for delta in 1..=max {
            add_user(&db);
            assert_eq!(backup.backup_now().unwrap().kind, BackupKind::Delta);
            assert_eq!(backup.deltas_since_full(), delta);
        }
        add_user(&db);
        let full = backup.backup_now().unwrap();
        assert_eq!((full.kind, full.promoted, backup.deltas_since_full()), (BackupKind::Full, None, 0));
        assert_eq!(restore(dir.path()).unwrap().0.digest(), db.digest());
    }
}

#[test]
fn a_full_backup_resets_deltas_since_full() {
    let dir = directory();
    let (db, _) = users();
    let backup = BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap();
    backup.backup_full().unwrap();
    add_user(&db);
    backup.backup_delta().unwrap();
    assert_eq!(backup.deltas_since_full(), 1);
    backup.backup_full().unwrap();
    assert_eq!(backup.deltas_since_full(), 0);
}

#[test]
fn a_delta_has_the_members_of_the_guide() {
    let dir = directory();
    let (db, _) = users();
    let users = db.table("users").unwrap();
    for id in [2, 3] {
        users.insert(record! { "id": id }).unwrap();
    }
    let backup = BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap();
    backup.backup_full().unwrap();
    users.update(1, record! { "name": "Alice II" }).unwrap();
    users.delete(2).unwrap();
    users.delete(3).unwrap();
    let delta = backup.backup_delta().unwrap().file;
    let json: serde_json::Value = serde_json::from_slice(&fs::read(delta).unwrap()).unwrap();
    assert_eq!(json["type"], "delta");
    assert_eq!(json["timestamp"], 1_234_567_890.123_457, "one microsecond after the full backup");
    assert_eq!(json["tables"]["users"]["upserts"], serde_json::json!([{ "id": 1, "name": "Alice II" }]));
    assert_eq!(json["tables"]["users"]["deletes"], serde_json::json!([2, 3]));
}

#[test]
fn a_failure_calls_back_with_the_error_and_the_count_until_one_succeeds() {
    let dir = directory();
    let path = dir.path().join("backups");
    let (db, _) = users();
    let told: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
    let backup = BackupManager::builder(&db, &path)
        .on_backup_failure({
            let told = told.clone();
            move |error, consecutive_failures| told.lock().unwrap().push((error.to_string(), consecutive_failures))
        })
        .build()
        .unwrap();
    fs::remove_dir(&path).unwrap();
    for failures in 1..=3 {
        let error = backup.backup_now().unwrap_err();
        assert_eq!(backup.consecutive_failures(), failures);
        let told = told.lock().unwrap();
        assert_eq!(told.last(), Some(&(error.to_string(), failures)));
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    assert!(backup.status().last_failure.is_some());
    fs::create_dir(&path).unwrap();
    backup.backup_now().unwrap();
    assert_eq!((backup.consecutive_failures(), backup.status().last_failure), (0, None));
    assert_eq!(told.lock().unwrap().len(), 3);
}

#[test]
fn files_are_named_as_in_the_guide_and_always_rising() {
    let dir = directory();
    let (db, clock) = users();
    let backup = BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap();
    assert_eq!(file_name(&backup.backup_now().unwrap().file), "dictdb_backup_1234567890_123456.json");
    clock.set(Timestamp::from_micros(0)); // somebody sets the clock back
    add_user(&db);
    assert_eq!(file_name(&backup.backup_now().unwrap().file), "dictdb_delta_1234567890_123457.json");
    clock.set(Timestamp::from_micros(2_000_000_000_000_007));
    assert_eq!(file_name(&backup.backup_full().unwrap().file), "dictdb_backup_2000000000_000007.json");
}

#[test]
fn the_status_tells_failures_deltas_and_what_is_not_backed_up_yet() {
    let dir = directory();
    let (db, _) = users();
    let backup = BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap();
    assert_eq!(backup.status().pending_commits, 2);
    assert!(backup.status().last_success.is_none());
    backup.backup_now().unwrap();
    add_user(&db);
    backup.backup_now().unwrap();
    add_user(&db);
    let status = backup.status();
    assert_eq!((status.consecutive_failures, status.deltas_since_full, status.pending_commits), (0, 1, 1));
    assert_eq!(status.last_success.unwrap().seq.get(), 3);
}

#[test]
fn the_production_setup_of_the_guide_keeps_every_event() {
    let dir = directory();
    let backups = dir.path().join("data/backups");
    let db = DictDb::new();
    let events = db.create_table("events", "event_id").unwrap();
    let backup = BackupManager::builder(&db, &backups)
        .backup_interval(Duration::from_secs(60))
        .file_format(BackupFormat::Json)
        .min_backup_interval(Duration::from_secs(10))
        .on_backup_failure(|error, count| panic!("backup failed ({count}x): {error}"))
        .incremental(true)
        .max_deltas_before_full(20)
        .build()
        .unwrap();
    backup.start().unwrap();
    for event_id in 0..100 {
        events.insert(record! { "event_id": event_id, "type": "click" }).unwrap();
    }
    backup.notify_change().unwrap();
    backup.backup_full().unwrap();
    backup.stop().unwrap();
    let lost = db.digest();
    drop((backup, events, db));

    let (db, _) = restore(&backups).unwrap();
    assert_eq!((db.digest(), db.table("events").unwrap().len().unwrap()), (lost, 100));
}

/// A chain of a full backup and three deltas, and the database that it leads to.
fn chain(dir: &Path, format: BackupFormat) -> DictDb {
    let (db, _) = users();
    let backup = BackupManager::builder(&db, dir).incremental(true).file_format(format).build().unwrap();
    backup.backup_full().unwrap();
    for id in 10..13 {
        let users = db.table("users").unwrap();
        users.insert_many([record! { "id": id }, record! { "id": id + 100 }]).unwrap();
        users.delete(id).unwrap();
        backup.backup_delta().unwrap();
    }
    db
}

fn newest_full(dir: &Path) -> PathBuf {
    let fulls = list_backups(dir).unwrap().into_iter().filter(|backup| backup.kind == BackupKind::Full);
    fulls.last().unwrap().path
}

#[test]
fn the_newest_full_backup_loads_and_deltas_apply_in_order_with_their_counts() {
    for (format, changed) in [(BackupFormat::Json, 1), (BackupFormat::Binary, 3)] {
        let dir = directory();
        let db = chain(dir.path(), format);
        let loaded = DictDb::load(newest_full(dir.path())).unwrap();
        assert_eq!(loaded.table("users").unwrap().len().unwrap(), 1);
        let deltas = list_backups(dir.path()).unwrap().into_iter().filter(|backup| backup.kind == BackupKind::Delta);
        for delta in deltas {
            if delta.details.unwrap().end.unwrap().seq <= loaded.seq() {
                continue; // a bridge to the full backup
            }
            // JSON has the outcome, one record put; the binary log has what was done, two puts and a delete.
            assert_eq!(loaded.apply_delta(&delta.path).unwrap(), changed);
        }
        assert_eq!((loaded.digest(), loaded.seq()), (db.digest(), db.seq()));
    }
}

#[test]
fn a_delta_out_of_order_is_refused_and_changes_nothing() {
    let dir = directory();
    chain(dir.path(), BackupFormat::Json);
    let loaded = DictDb::load(newest_full(dir.path())).unwrap();
    let last = list_backups(dir.path()).unwrap().pop().unwrap().path;
    let before = loaded.digest();
    assert!(matches!(loaded.apply_delta(&last), Err(Error::DoesNotJoin { .. })));
    assert_eq!(loaded.digest(), before);
}

#[test]
fn restore_finds_the_newest_full_backup_and_its_deltas_by_itself() {
    let dir = directory();
    let db = chain(dir.path(), BackupFormat::Binary);
    let (restored, report) = restore(dir.path()).unwrap();
    assert_eq!((restored.digest(), restored.seq()), (db.digest(), db.seq()));
    assert_eq!((report.full.unwrap(), report.deltas.len()), (newest_full(dir.path()), 3));
}

#[test]
fn dictdbs_own_chain_restores_and_loads_file_by_file() {
    let dir = Path::new("tests/data/dictdb-1.11");
    let (restored, _) = restore(dir).unwrap();
    let loaded = DictDb::load(newest_full(dir)).unwrap();
    for delta in list_backups(dir).unwrap().into_iter().filter(|backup| backup.kind == BackupKind::Delta) {
        assert!(loaded.apply_delta(&delta.path).unwrap() > 0);
    }
    assert_eq!(loaded.digest(), restored.digest());
}

#[test]
fn tables_are_made_found_filled_and_dropped() {
    let db = DictDb::new();
    let events = db.create_table("events", "event_id").unwrap();
    assert_eq!(events.definition().unwrap().primary_key(), "event_id");
    events.insert(record! { "event_id": 7, "type": "click" }).unwrap();
    let found = db.table("events").unwrap();
    assert_eq!(found.get(7).unwrap().unwrap()["type"], "click");
    assert!(matches!(events.insert(record! { "event_id": 7 }), Err(Error::DuplicateKey { .. })));
    db.drop_table("events").unwrap();
    assert!(matches!(db.table("events"), Err(Error::NoSuchTable { .. })));
}

#[test]
fn a_record_without_a_key_gets_one_that_was_never_used() {
    let dir = directory();
    let db = DictDb::new();
    let users = db.create_table("users", "id").unwrap();
    for id in 1..=3 {
        assert_eq!(users.insert(record! { "name": "x" }).unwrap(), id.into());
    }
    users.delete(3).unwrap();
    BackupManager::new(&db, dir.path()).unwrap().backup_full().unwrap();
    let (restored, _) = restore(dir.path()).unwrap();
    assert_eq!(restored.table("users").unwrap().insert(record! {}).unwrap(), 4.into());
}

#[test]
fn a_progress_callback_sees_the_rows_and_can_cancel() {
    let dir = directory();
    let (db, _) = users();
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let backup = BackupManager::builder(&db, dir.path())
        .on_progress({
            let seen = seen.clone();
            move |progress| {
                seen.lock().unwrap().push(progress.records_done);
                std::ops::ControlFlow::Break(())
            }
        })
        .build()
        .unwrap();
    assert!(matches!(backup.backup_now(), Err(Error::Cancelled)));
    assert_eq!((seen.lock().unwrap().as_slice(), backup.consecutive_failures()), ([1].as_slice(), 0));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing of it is left");
}

#[test]
fn deltas_by_hand_go_past_the_bridge_that_follows_a_full_backup() {
    let dir = directory();
    let (db, _) = users();
    let backup = BackupManager::builder(&db, dir.path()).incremental(true).max_deltas_before_full(1).build().unwrap();
    for _ in 0..4 {
        add_user(&db);
        backup.backup_now().unwrap();
    }
    // full, delta, full, its bridge, delta
    let backups = list_backups(dir.path()).unwrap();
    let latest = backups.iter().rposition(|b| b.kind == BackupKind::Full).unwrap();
    assert_eq!((backups.len(), latest), (5, 2));
    let loaded = DictDb::load(&backups[latest].path).unwrap();
    let mut applied = 0;
    for delta in backups[latest + 1..].iter().filter(|delta| !is_bridge_to(delta, &loaded)) {
        applied += loaded.apply_delta(&delta.path).unwrap();
    }
    assert_eq!((applied, loaded.digest()), (1, db.digest()));
}

/// The rule of the README's loop.
fn is_bridge_to(delta: &dictdb::BackupFile, db: &DictDb) -> bool {
    let details = delta.details.as_ref().unwrap();
    let (base, end) = (details.base.unwrap().seq, details.end.unwrap().seq);
    base < end && end <= db.seq()
}

#[test]
fn deltas_by_hand_follow_a_restored_database_through_its_empty_delta() {
    let dir = directory();
    let (db, _) = users();
    BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap().backup_full().unwrap();
    let (again, _) = restore(dir.path()).unwrap();
    let backup = BackupManager::builder(&again, dir.path()).incremental(true).build().unwrap();
    backup.backup_delta().unwrap();
    add_user(&again);
    backup.backup_delta().unwrap();
    let backups = list_backups(dir.path()).unwrap();
    let loaded = DictDb::load(&backups[0].path).unwrap();
    for delta in backups[1..].iter().filter(|delta| !is_bridge_to(delta, &loaded)) {
        loaded.apply_delta(&delta.path).unwrap();
    }
    assert_eq!(loaded.digest(), again.digest());
}

#[test]
fn an_upsert_and_its_delta_replace_the_whole_record() {
    for format in [BackupFormat::Json, BackupFormat::Binary] {
        let dir = directory();
        let (db, _) = users();
        let backup = BackupManager::builder(&db, dir.path()).incremental(true).file_format(format).build().unwrap();
        backup.backup_full().unwrap();
        db.table("users").unwrap().upsert(record! { "id": 1, "mail": "a@example.org" }).unwrap();
        backup.backup_delta().unwrap();
        let (restored, _) = restore(dir.path()).unwrap();
        let alice = restored.table("users").unwrap().get(1).unwrap().unwrap();
        assert_eq!(alice, record! { "id": 1, "mail": "a@example.org" }, "the name is gone");
    }
}

#[test]
fn a_delta_carries_tables_made_and_dropped() {
    for format in [BackupFormat::Json, BackupFormat::Binary] {
        let dir = directory();
        let (db, _) = users();
        let backup = BackupManager::builder(&db, dir.path()).incremental(true).file_format(format).build().unwrap();
        backup.backup_full().unwrap();
        db.drop_table("users").unwrap();
        db.create_table("events", "event_id").unwrap().insert(record! { "event_id": "e" }).unwrap();
        assert_eq!(backup.backup_delta().unwrap().kind, BackupKind::Delta);
        let (restored, _) = restore(dir.path()).unwrap();
        assert_eq!((restored.table_names(), restored.digest()), (vec!["events".to_owned()], db.digest()));
    }
}

#[test]
fn a_snapshot_shows_one_point_of_all_tables() {
    let (db, _) = users();
    db.create_table("log", "id").unwrap();
    let before = db.snapshot();
    db.transaction(|tx| {
        tx.table("users")?.delete(1)?;
        tx.table("log")?.insert(record! { "what": "deleted 1" })
    })
    .unwrap();
    assert_eq!((before.table("users").unwrap().len(), before.table("log").unwrap().len()), (1, 0));
    let after = db.snapshot();
    assert_eq!((after.table("users").unwrap().len(), after.table("log").unwrap().len()), (0, 1));
}

#[test]
fn a_callback_that_panics_does_not_stop_the_manager() {
    let dir = directory();
    let path = dir.path().join("backups");
    let (db, _) = users();
    let (tell, told) = std::sync::mpsc::channel();
    let tell = Mutex::new(tell);
    let backup = BackupManager::builder(&db, &path)
        .min_backup_interval(Duration::ZERO)
        .on_backup_failure(move |_, count| {
            tell.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).send(count).unwrap();
            panic!("this panic is part of the test");
        })
        .build()
        .unwrap();
    fs::remove_dir(&path).unwrap();
    backup.start().unwrap();
    backup.notify_change().unwrap();
    assert_eq!(told.recv(), Ok(1));
    // The thread is still there for the next one.
    backup.notify_change().unwrap();
    assert_eq!(told.recv(), Ok(2));
    fs::create_dir(&path).unwrap();
    add_user(&db);
    backup.notify_change().unwrap();
    backup.stop().unwrap();
    assert_eq!(restore(&path).unwrap().0.digest(), db.digest());
}
