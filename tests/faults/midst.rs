//! Two managers of one database and one directory, one of them in the midst of the other's full backup; then damage.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dictdb::{BackupKind, BackupReport, Clock, DictDb, Error, RestoreOptions, Storage, Timestamp};

use crate::faulty::{DIR, FORMATS, Faulty, Op, builder, commit, database, restored};

/// A directory, and what the two managers did there.
struct Midst {
    storage: Faulty,
    db: DictDb,
    /// A delta from seq 2, where the first full backup stands, to 3.
    before: BackupReport,
    /// At seq 4, with a bridge that leads to it from 3.
    full: BackupReport,
    /// At seq 5, by the other manager, which made it before the first such operation of the full backup.
    delta: BackupReport,
}

fn midst(format: dictdb::BackupFormat, at: Op) -> Midst {
    let (storage, db) = (Faulty::default(), database());
    let [manager, other] = [0, 1].map(|_| Arc::new(builder(&db, &storage, format).build().unwrap()));
    manager.backup_full().unwrap();
    commit(&db);
    let before = manager.backup_delta().unwrap();
    commit(&db);
    let armed = AtomicBool::new(true);
    let made = Arc::new(std::sync::OnceLock::new());
    let (in_hook, writing) = (made.clone(), db.clone());
    storage.hook(move |op| {
        if op == at && armed.swap(false, Ordering::SeqCst) {
            commit(&writing);
            in_hook.set(other.backup_delta().unwrap()).unwrap();
        }
    });
    let full = manager.backup_full().unwrap();
    storage.hook(|_| {});
    let delta = made.get().unwrap().clone();
    assert!(full.bridge.is_some(), "{full}");
    assert_eq!((delta.kind, full.seq.get(), delta.seq.get()), (BackupKind::Delta, 4, 5), "{delta}");
    assert_eq!(restored(&storage).0, db.digest());
    Midst { storage, db, before, full, delta }
}

/// Flips a bit in the middle, which only who reads the whole of the file can see.
fn damage(storage: &Faulty, path: &Path) {
    let mut bytes = storage.files.read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    storage.files.write(path, bytes).unwrap();
}

fn restoring(storage: &Faulty) -> RestoreOptions {
    RestoreOptions::new().storage(storage.files.clone())
}

/// The file that a restore which accepts nothing earlier calls damaged.
fn found_damaged(storage: &Faulty) -> std::path::PathBuf {
    match restoring(storage).restore(DIR).unwrap_err() {
        Error::Corrupt { file, .. } | Error::ChecksumMismatch { file, .. } => file,
        error => panic!("{error}"),
    }
}

// The error was once that of the newest full backup's chain: a link is missing, before a delta that was sound.
#[test]
fn a_damaged_delta_is_named_and_costs_no_commit_before_it_though_the_newest_full_backup_does_not_lead_there() {
    for format in FORMATS {
        let Midst { storage, db, before, full, delta } = midst(format, Op::Create);
        assert_eq!(delta.base_seq, Some(before.seq), "{delta} did not know of {full}");
        let digest = db.digest();
        commit(&db);
        let last = builder(&db, &storage, format).build().unwrap().backup_delta().unwrap();
        assert_eq!((last.base_seq, restored(&storage).0), (Some(delta.seq), db.digest()), "{last}");
        let sound = storage.files.read(&last.file).unwrap();
        damage(&storage, &last.file);
        assert_eq!(found_damaged(&storage), last.file);
        let (reached, report) = restoring(&storage).accept_earlier(true).restore(DIR).unwrap();
        assert_eq!((reached.digest(), report.point.seq), (digest, delta.seq), "{report}");
        assert!(report.left_out.is_empty() && !report.fell_back, "{report}");
        assert_eq!(report.damaged.iter().map(|damaged| &damaged.file).collect::<Vec<_>>(), [&last.file]);

        // Where the one before it is damaged the full backup is as far as there is.
        storage.files.write(&last.file, sound).unwrap();
        let sound = storage.files.read(&delta.file).unwrap();
        damage(&storage, &delta.file);
        assert_eq!(found_damaged(&storage), delta.file);
        let (_, report) = restoring(&storage).accept_earlier(true).restore(DIR).unwrap();
        assert_eq!((report.point.seq, report.full.as_ref()), (full.seq, Some(&full.file)), "{report}");
        assert_eq!(report.damaged.iter().map(|damaged| &damaged.file).collect::<Vec<_>>(), [&delta.file]);
        assert_eq!(report.left_out, std::slice::from_ref(&last.file));

        // And so it is where what came before the full backup is.
        storage.files.write(&delta.file, sound).unwrap();
        damage(&storage, &before.file);
        assert_eq!(found_damaged(&storage), before.file);
        let (_, report) = restoring(&storage).accept_earlier(true).restore(DIR).unwrap();
        assert_eq!((report.point.seq, report.full.as_ref()), (full.seq, Some(&full.file)), "{report}");
        assert_eq!(report.left_out, [delta.file, last.file]);
    }
}

// That the newest full backup lies in the past of what is restored was once told by the last history alone.
#[test]
fn a_restored_database_goes_on_though_the_newest_full_backup_does_not_lead_there() {
    for format in FORMATS {
        let Midst { storage, .. } = midst(format, Op::Create);
        let (again, _) = restoring(&storage).restore(DIR).unwrap();
        commit(&again);
        let report = builder(&again, &storage, format).build().unwrap().backup_now().unwrap();
        assert_eq!(report.kind, BackupKind::Delta, "{report}");
        assert_eq!(restored(&storage).0, again.digest());
    }
}

// A bridge was once stamped after what another manager had put onto the full backup, and so was of no use for that.
#[test]
fn a_bridge_leads_on_to_what_another_manager_put_onto_the_full_backup_before_the_bridge_was_there() {
    for format in FORMATS {
        let Midst { storage, db, full, delta, .. } = midst(format, Op::SyncDir);
        assert_eq!(delta.base_seq, Some(full.seq), "{delta}");
        damage(&storage, &full.file);
        let (digest, report) = restored(&storage);
        assert_eq!((digest, report.deltas.len()), (db.digest(), 3), "{report}");
        assert!(report.fell_back && report.left_out.is_empty(), "{report}");
    }
}

/// A clock that shows what it is told to.
#[derive(Clone, Debug, Default)]
struct Told {
    now: Arc<std::sync::atomic::AtomicI64>,
    /// How far it goes each time that it is looked at.
    step: Arc<std::sync::atomic::AtomicI64>,
}

impl Clock for Told {
    fn now(&self) -> Timestamp {
        let step = self.step.load(Ordering::SeqCst);
        Timestamp::from_micros(self.now.fetch_add(step, Ordering::SeqCst))
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

// The bridge has a later stamp than the delta, which so was not needed; its commits were left out, and Ok was said.
#[test]
fn a_damaged_delta_stamped_between_a_full_backup_and_its_bridge_is_never_left_out_silently() {
    let (storage, clock) = (Faulty::default(), Told::default());
    clock.now.store(1_000_000_000_000, Ordering::SeqCst);
    let db = DictDb::builder().clock(clock.clone()).build();
    db.create_table("t", "id").unwrap();
    let apart = |dir: &str| {
        let manager = dictdb::BackupManager::builder(&db, dir).storage(storage.clone()).incremental(true);
        manager.file_format(FORMATS[0]).build().unwrap()
    };
    let manager = apart(DIR);
    let first = manager.backup_full().unwrap();
    let elsewhere = Path::new("/elsewhere").join(first.file.file_name().unwrap());
    storage.create_dir_all(Path::new("/elsewhere")).unwrap();
    storage.files.write(&elsewhere, storage.files.read(&first.file).unwrap()).unwrap();
    let other = apart("/elsewhere");
    commit(&db);
    clock.step.store(10, Ordering::SeqCst);
    let full = manager.backup_full().unwrap();
    clock.step.store(0, Ordering::SeqCst);
    let stamp = |path: &Path| -> i64 {
        let digits = path.to_str().unwrap().chars().filter(char::is_ascii_digit);
        digits.collect::<String>().parse().unwrap()
    };
    clock.now.store(stamp(&full.file) + 5, Ordering::SeqCst);
    commit(&db);
    let delta = other.backup_delta().unwrap();
    let bridge = full.bridge.clone().unwrap();
    assert!(stamp(&full.file) < stamp(&delta.file) && stamp(&delta.file) < stamp(&bridge), "{delta}");
    let here = Path::new(DIR).join(delta.file.file_name().unwrap());
    storage.files.write(&here, storage.files.read(&delta.file).unwrap()).unwrap();
    assert_eq!(restored(&storage).0, db.digest());
    damage(&storage, &here);
    assert_eq!(found_damaged(&storage), here);
    let (_, report) = restoring(&storage).accept_earlier(true).restore(DIR).unwrap();
    assert_eq!((report.point.seq, report.damaged.len()), (full.seq, 1), "{report}");
}
