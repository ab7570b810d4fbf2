//! The clock is an annotation: whatever it shows, the same backups hold the same data.

use std::time::Duration;

use dictdb::{
    BackupFormat, BackupManager, DictDb, Digest, ManualClock, MemoryStorage, RestoreOptions, Timestamp, record,
};

use crate::faulty::{DIR, FORMATS};

const DAY: i64 = 86_400_000_000;
const NOW: i64 = 1_790_000_000_000_000;

/// What a clock shows at each step.
type Shows = fn(i64) -> i64;

fn clocks() -> Vec<(&'static str, Shows)> {
    vec![
        ("goes on", |step| NOW + step * 1_000_000),
        ("stands still", |_| NOW),
        ("falls back a day, once", |step| if step < 5 { NOW + step } else { NOW - DAY + step }),
        ("falls back a day at every step", |step| NOW - step * DAY),
        ("jumps to and fro", |step| if step % 2 == 0 { NOW } else { NOW - 30 * DAY }),
        ("is before 1970", |step| -5_000_000 + step),
        ("falls to before 1970", |step| NOW - step * NOW / 3),
        ("is at the beginning of time", |_| i64::MIN),
        ("crosses 1970", |step| -3 + step),
        ("was set to the far future once", |step| if step == 2 { NOW * 5 } else { NOW }),
    ]
}

/// Digests at each backup, and the kinds of files in the order of their making.
fn scenario(format: BackupFormat, name: &str, shows: Shows) -> (Vec<Digest>, Vec<bool>) {
    let storage = MemoryStorage::new();
    let clock = ManualClock::new(Timestamp::from_micros(shows(0)));
    let db = DictDb::builder().clock(clock.clone()).build();
    let table = db.create_table("t", "id").unwrap();
    let (mut digests, mut kinds, mut newest) = (Vec::new(), Vec::new(), String::new());
    let manager = || {
        let builder = BackupManager::builder(&db, DIR).storage(storage.clone()).file_format(format);
        builder.incremental(true).max_deltas_before_full(3).build().unwrap()
    };
    let mut manager_now = manager();
    for step in 1..=12 {
        clock.set(Timestamp::from_micros(shows(step)));
        table.upsert(record! { "id": step % 5, "step": step }).unwrap();
        if step == 7 {
            manager_now = manager(); // another process goes on with the directory
        }
        let label = format!("{format}, the clock {name}, step {step}");
        let report = manager_now.backup_now().unwrap();
        assert_eq!(report.promoted.is_some(), step == 1 && format == BackupFormat::Json, "{label}: {report}");
        assert!(report.duration.is_zero(), "{label}");
        for file in [Some(&report.file), report.bridge.as_ref()].into_iter().flatten() {
            // The stamp: what follows the kind, seconds padded so that they compare as text.
            let stamp = file.file_stem().unwrap().to_str().unwrap().splitn(3, '_').nth(2).unwrap();
            let stamp = format!("{stamp:0>30}");
            assert!(stamp > newest, "{label}: {} does not rise", file.display());
            newest = stamp;
        }
        kinds.push(report.kind == dictdb::BackupKind::Full);
        let (restored, from) = RestoreOptions::new().storage(storage.clone()).restore(DIR).unwrap();
        assert_eq!((restored.digest(), from.point.seq), (db.digest(), db.seq()), "{label}: {from}");
        assert_eq!(from.time, Timestamp::from_micros(shows(step)), "{label}: the annotation is the clock's word");
        digests.push(db.digest());
    }
    (digests, kinds)
}

#[test]
fn a_clock_that_jumps_stands_still_or_is_before_1970_changes_no_outcome() {
    for format in FORMATS {
        let mut first = None;
        for (name, shows) in clocks() {
            let outcome = scenario(format, name, shows);
            assert_eq!(first.get_or_insert_with(|| outcome.clone()), &outcome, "{format}, the clock {name}");
        }
    }
}

#[test]
fn the_schedule_goes_by_the_monotonic_clock_alone() {
    let (storage, clock) = (MemoryStorage::new(), ManualClock::new(Timestamp::from_micros(NOW)));
    let db = DictDb::builder().clock(clock.clone()).build();
    let table = db.create_table("t", "id").unwrap();
    let manager =
        BackupManager::builder(&db, DIR).storage(storage).min_backup_interval(Duration::from_secs(5)).build().unwrap();
    manager.backup_now().unwrap();
    table.insert(record! {}).unwrap();
    for wall in [NOW + 365 * DAY, NOW - DAY, -1] {
        clock.set(Timestamp::from_micros(wall));
        assert!(matches!(manager.notify_change(), Ok(dictdb::Notified::Deferred)), "the wall clock says {wall}");
    }
    clock.advance(Duration::from_secs(5));
    assert!(matches!(manager.notify_change(), Ok(dictdb::Notified::BackedUp(_))));
}
