//! Backups of opened stores, and stores made of backups.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dictdb::{
    BackupFormat, BackupKind, BackupManager, CheckpointPolicy, DictDb, Durability, Error, LOCK_FILE, MemoryStorage,
    Options, Promotion, ReadFile, RestoreOptions, Storage, record,
};

use super::hooked::{Hooked, Op};

const DIR: &str = "/data";
const BACKUPS: &str = "/backups";
const FORMATS: [BackupFormat; 2] = [BackupFormat::Binary, BackupFormat::Json];

fn options(storage: &MemoryStorage) -> Options {
    Options::new()
        .storage(storage.clone())
        .checkpoint(CheckpointPolicy::manual())
        .segment_bytes(2_000)
        .preallocate_bytes(1_024)
}

fn manager(db: &DictDb, storage: &MemoryStorage, format: BackupFormat) -> BackupManager {
    BackupManager::builder(db, BACKUPS)
        .storage(storage.clone())
        .file_format(format)
        .incremental(true)
        .max_deltas_before_full(1_000)
        .min_backup_interval(Duration::ZERO)
        .backup_interval(Duration::MAX)
        .build()
        .unwrap()
}

fn commit(db: &DictDb, n: i64) {
    let table = db.table("t").or_else(|_| db.create_table("t", "id")).unwrap();
    for _ in 0..n {
        let seq = db.seq().get() as i64;
        table.upsert(record! { "id": seq % 50, "text": format!("commit {seq}") }).unwrap();
    }
}

fn restored(storage: &MemoryStorage) -> DictDb {
    RestoreOptions::new().storage(storage.clone()).restore(BACKUPS).unwrap().0
}

/// The files as they are now, for another process to find after this one was killed.
fn copy(storage: &MemoryStorage) -> MemoryStorage {
    let other = MemoryStorage::new();
    storage.paths().into_iter().for_each(|path| other.write(&path, storage.read(&path).unwrap()).unwrap());
    other
}

fn files(storage: &MemoryStorage, dir: &str, prefix: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    storage.paths().into_iter().filter(|path| path.starts_with(dir)).filter(is_one).collect()
}

#[test]
fn a_chain_goes_on_after_a_close_with_deltas_out_of_the_log_where_the_ring_is_empty() {
    for format in FORMATS {
        for ring_bytes in [64 << 20, 1_000, 0] {
            let storage = MemoryStorage::new();
            let settings = options(&storage).ring_bytes(ring_bytes);
            let mut db = settings.open(DIR).unwrap();
            commit(&db, 30);
            let mut covered = manager(&db, &storage, format).backup_full().unwrap().seq;
            for session in 0..6 {
                commit(&db, 30);
                if session == 2 {
                    db.checkpoint().unwrap();
                }
                db.close().unwrap();
                db = settings.open(DIR).unwrap();
                let manager = manager(&db, &storage, format);
                assert_eq!(manager.status().pending_commits, 30);
                if session % 2 == 0 {
                    commit(&db, 20);
                }
                let report = manager.backup_now().unwrap();
                assert_eq!((report.kind, report.promoted, report.base_seq), (BackupKind::Delta, None, Some(covered)));
                assert_eq!(report.commits, db.seq().since(covered), "{report}");
                covered = report.seq;
                assert_eq!(db.durability_report().backup, Some(covered));
                assert_eq!(restored(&storage).digest(), db.digest(), "{report}");
            }
        }
    }
}

// The chain once went on from the furthest point of the lineage, which here is of commits that were given up.
#[test]
fn backups_of_a_store_put_back_from_a_copy_restore_though_those_of_before_lead_further() {
    for format in FORMATS {
        let (data, backups) = (MemoryStorage::new(), MemoryStorage::new());
        let session = |data: &MemoryStorage, commits: &[i64], wanted: BackupKind| {
            let db = options(data).open(DIR).unwrap();
            let manager = manager(&db, &backups, format);
            for n in commits {
                commit(&db, *n);
                let is_first = backups.paths().is_empty();
                let report = if is_first { manager.backup_full() } else { manager.backup_now() }.unwrap();
                assert_eq!(restored(&backups).digest(), db.digest(), "{format}, {report}");
                assert!(report.kind == wanted || *n != commits[0], "{format}, {report}");
            }
            db.close().unwrap();
        };
        session(&data, &[20], BackupKind::Full);
        let kept = copy(&data);
        session(&data, &[20, 30], BackupKind::Delta);
        let db = options(&kept).open(DIR).unwrap();
        db.table("t").unwrap().upsert(record! { "id": -1, "text": "not what was there then" }).unwrap();
        db.close().unwrap();
        session(&kept, &[10, 5], BackupKind::Full);
        session(&kept, &[50, 1], BackupKind::Delta);
        session(&kept, &[1, 1], BackupKind::Delta);
    }
}

#[test]
fn a_backup_that_the_log_no_longer_reaches_back_to_is_followed_by_a_full_one() {
    let storage = MemoryStorage::new();
    let db = options(&storage).ring_bytes(0).open(DIR).unwrap();
    commit(&db, 50);
    let manager = manager(&db, &storage, BackupFormat::Binary);
    manager.backup_full().unwrap();
    for _ in 0..4 {
        commit(&db, 50);
        db.checkpoint().unwrap();
    }
    let report = manager.backup_delta().unwrap();
    assert_eq!((report.kind, report.promoted), (BackupKind::Full, Some(Promotion::Gap)), "{report}");
    assert_eq!(restored(&storage).digest(), db.digest());
    commit(&db, 50);
    let report = manager.backup_delta().unwrap();
    assert_eq!((report.kind, report.commits), (BackupKind::Delta, 50), "{report}");
    assert_eq!(restored(&storage).digest(), db.digest());
}

#[test]
fn a_delta_never_leaves_out_what_is_damaged_in_the_log() {
    let storage = MemoryStorage::new();
    let db = options(&storage).ring_bytes(0).open(DIR).unwrap();
    commit(&db, 5);
    manager(&db, &storage, BackupFormat::Binary).backup_full().unwrap();
    commit(&db, 200);
    let logs = files(&storage, DIR, "dictdb_log_");
    let log = &logs[logs.len() / 2];
    let good = storage.read(log).unwrap();
    for at in (0..1_600).step_by(97) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        storage.write(log, bytes).unwrap();
        let manager = manager(&db, &storage, BackupFormat::Binary);
        assert_eq!(manager.status().pending_commits, 200);
        let report = manager.backup_delta().unwrap();
        let why = (report.kind, report.promoted);
        assert_eq!(why, (BackupKind::Full, Some(Promotion::LogUnreadable)), "{at}: {report}");
        assert_eq!(restored(&storage).digest(), db.digest());
        storage.write(log, good.clone()).unwrap();
        // The next round goes on from the first full one again.
        storage.remove(&report.file).unwrap();
    }
    let report = manager(&db, &storage, BackupFormat::Binary).backup_delta().unwrap();
    assert_eq!((report.kind, report.commits), (BackupKind::Delta, 200), "{report}");
    assert_eq!(restored(&storage).digest(), db.digest());
}

#[test]
fn after_an_unclean_end_the_next_backup_restores_to_what_the_store_holds() {
    for format in FORMATS {
        for (ahead, ring_bytes) in [(0, 0), (0, 64 << 20), (7, 0), (7, 64 << 20)] {
            let storage = MemoryStorage::new();
            let settings =
                |storage: &MemoryStorage| options(storage).ring_bytes(ring_bytes).durability(Durability::Manual);
            let db = settings(&storage).open(DIR).unwrap();
            commit(&db, 30);
            manager(&db, &storage, format).backup_full().unwrap();
            commit(&db, 30);
            db.sync().unwrap();
            // The backup is ahead of what is durable: these commits die with the process.
            commit(&db, ahead);
            let covered = manager(&db, &storage, format).backup_delta().unwrap().seq;
            let storage = copy(&storage);
            drop(db);
            let db = settings(&storage).open(DIR).unwrap();
            // To read a delta out of the log, the log has to be written first.
            let lost = if ring_bytes == 0 { 0 } else { ahead as u64 };
            assert_eq!(db.seq().get() + lost, covered.get());
            commit(&db, 3);
            let report = manager(&db, &storage, format).backup_now().unwrap();
            assert_eq!(report.kind, BackupKind::Full, "{report}");
            assert_eq!(restored(&storage).digest(), db.digest(), "{report}");
            commit(&db, 3);
            let report = manager(&db, &storage, format).backup_now().unwrap();
            assert_eq!(report.kind, BackupKind::Delta, "{report}");
            assert_eq!(restored(&storage).digest(), db.digest(), "{report}");
        }
    }
}

const SEED: &str = "DICTDB_BACKUPS_SEED";

#[test]
fn every_backup_of_a_store_restores_whatever_its_life_was() {
    let one = std::env::var(SEED).ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = one.map_or(0..80, |seed| seed..seed + 1);
    let (mut deltas, mut fulls) = (0, 0);
    for seed in seeds {
        println!("{SEED}={seed} cargo test --test store every_backup_of_a_store -- --nocapture");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut storage = MemoryStorage::new();
        let format = FORMATS[random.usize(..2)];
        let ring_bytes = [0, 500, 64 << 20][random.usize(..3)];
        let settings = |storage: &MemoryStorage| {
            options(storage)
                .ring_bytes(ring_bytes)
                .durability([Durability::Sync, Durability::Manual][(seed % 2) as usize])
        };
        let mut db = settings(&storage).open(DIR).unwrap();
        commit(&db, 1);
        for step in 0..40 {
            match random.u32(..12) {
                0..4 => commit(&db, random.i64(1..20)),
                4 => drop(db.checkpoint().unwrap()),
                5 => db.sync().unwrap(),
                6 => {
                    let (digest, lineage) = (db.digest(), db.lineage());
                    db.close().unwrap();
                    db = settings(&storage).open(DIR).unwrap();
                    assert_eq!(db.digest(), digest, "step {step}");
                    // One without a commit is begun anew each time.
                    assert!(db.lineage() == lineage || db.seq().get() == 0, "step {step}");
                }
                7 => {
                    let digest = db.digest();
                    drop(db);
                    db = settings(&storage).open(DIR).unwrap();
                    assert_eq!(db.digest(), digest, "step {step}");
                }
                8 => {
                    let synced = db.durability_report().synced;
                    storage = copy(&storage);
                    db = settings(&storage).open(DIR).unwrap();
                    assert!(Some(db.seq()) >= synced, "step {step}: {}", db.open_report().unwrap());
                }
                kind => {
                    let manager = manager(&db, &storage, format);
                    let report = match kind {
                        9 => manager.backup_now(),
                        10 => manager.backup_delta(),
                        _ => manager.backup_full(),
                    };
                    let report = report.unwrap();
                    *if report.kind == BackupKind::Delta { &mut deltas } else { &mut fulls } += 1;
                    assert_eq!(report.seq, db.seq());
                    let (copy, found) = RestoreOptions::new().storage(storage.clone()).restore(BACKUPS).unwrap();
                    assert_eq!((copy.digest(), copy.seq()), (db.digest(), db.seq()), "step {step}: {report}; {found}");
                    let target = format!("/restored {step}");
                    let restore = RestoreOptions::new().storage(storage.clone());
                    restore.restore_into(BACKUPS, &target).unwrap();
                    assert_eq!(settings(&storage).open(&target).unwrap().digest(), db.digest(), "step {step}");
                }
            }
        }
    }
    println!("{deltas} deltas, {fulls} full backups");
    assert!(one.is_some() || (deltas > 100 && fulls > 100));
}

#[test]
fn a_restored_store_opens_goes_on_and_is_backed_up_further() {
    for format in FORMATS {
        let storage = MemoryStorage::new();
        let db = options(&storage).open(DIR).unwrap();
        commit(&db, 30);
        let first = manager(&db, &storage, format);
        first.backup_full().unwrap();
        commit(&db, 30);
        first.backup_delta().unwrap();
        let report = RestoreOptions::new().storage(storage.clone()).restore_into(BACKUPS, "/new/store").unwrap();
        assert_eq!((report.point, report.records), (db.snapshot().point(), 50));
        assert_eq!(files(&storage, "/new", "").len(), 1, "one snapshot");

        for session in 0..4 {
            let new = options(&storage).ring_bytes(0).open("/new/store").unwrap();
            let found = new.open_report().unwrap();
            assert!(found.clean && !found.fell_back, "{found}");
            if session == 0 {
                assert_eq!((new.digest(), new.parent(), new.seq()), (db.digest(), Some(report.point), db.seq()));
                assert_ne!(new.lineage(), db.lineage());
            }
            commit(&new, 10);
            let digest = new.digest();
            let further = manager(&new, &storage, format).backup_now().unwrap();
            assert_eq!(further.kind, BackupKind::Delta, "{further}");
            assert_eq!(restored(&storage).digest(), digest);
            if session == 2 {
                new.checkpoint().unwrap();
            }
            new.close().unwrap();
            assert_eq!(options(&storage).open_read_only("/new/store").unwrap().digest(), digest);
        }
    }
}

#[test]
fn a_store_is_restored_only_into_a_directory_of_its_own() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 30);
    manager(&db, &storage, BackupFormat::Binary).backup_full().unwrap();
    let other = options(&storage).open("/just opened").unwrap();
    storage.write("/notes/a.txt", "a").unwrap();
    storage.write("/file", "f").unwrap();
    storage.create_dir_all(Path::new("/empty")).unwrap();
    storage.write("/killed/.dictdb_snapshot_1_000000.bin.77-0.tmp", "half").unwrap();
    storage.write(Path::new("/killed").join(LOCK_FILE), "77").unwrap();
    let before = storage.paths();
    let into = |target: &str| RestoreOptions::new().storage(storage.clone()).restore_into(BACKUPS, target);
    for (target, holds) in [(DIR, "dictdb_log_"), (BACKUPS, "dictdb_backup_"), ("/notes", "a.txt")] {
        match into(target) {
            Err(refused @ Error::NotEmpty { .. }) => assert!(refused.to_string().contains(holds), "{refused}"),
            other => panic!("{target}: {other:?}"),
        }
    }
    assert!(matches!(into("/just opened"), Err(Error::Locked { .. })));
    assert!(matches!(into("/file"), Err(Error::Io { .. })));
    let none = RestoreOptions::new().storage(storage.clone()).restore_into("/empty", "/target").unwrap_err();
    assert!(matches!(none, Error::NoBackup { .. }), "{none:?}");
    assert_eq!(storage.paths(), before);
    commit(&other, 1);

    for target in ["/empty", "/not/there/yet", "/killed"] {
        into(target).unwrap();
        assert_eq!(options(&storage).open(target).unwrap().digest(), db.digest(), "{target}");
        assert!(matches!(into(target), Err(Error::NotEmpty { .. })), "{target}");
    }
}

#[test]
fn on_the_disk_too_a_store_is_backed_up_and_restored_as_a_store() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let settings = Options::new().ring_bytes(0).segment_bytes(2_000).preallocate_bytes(1_024);
    let mut db = settings.open(at("data")).unwrap();
    let build = |db: &DictDb| BackupManager::builder(db, at("backups")).incremental(true).build().unwrap();
    for session in 0..3 {
        commit(&db, 20);
        let report = build(&db).backup_now().unwrap();
        assert_eq!(report.kind, if session == 0 { BackupKind::Full } else { BackupKind::Delta }, "{report}");
        db.close().unwrap();
        db = settings.open(at("data")).unwrap();
    }
    for target in ["one", "two"] {
        RestoreOptions::new().restore_into(at("backups"), at(target)).unwrap();
        let store = settings.open(at(target)).unwrap();
        assert_eq!(store.digest(), db.digest());
        commit(&store, 5);
        store.close().unwrap();
        assert_eq!(settings.open(at(target)).unwrap().seq().since(db.seq()), 5);
        let again = RestoreOptions::new().restore_into(at("backups"), at(target));
        assert!(matches!(again, Err(Error::NotEmpty { .. })));
    }
}

#[test]
fn a_log_segment_under_the_name_of_a_delta_is_told_as_one_and_passed_over_by_who_accepts_an_earlier_point() {
    let storage = MemoryStorage::new();
    let db = options(&storage).open(DIR).unwrap();
    commit(&db, 5);
    manager(&db, &storage, BackupFormat::Binary).backup_full().unwrap();
    let digest = db.digest();
    db.close().unwrap();
    let segments = files(&storage, DIR, "dictdb_log_");
    assert_eq!(segments.len(), 2, "one with the commits, and one that says that the store was closed");
    for segment in segments {
        let copied = Path::new(BACKUPS).join("dictdb_delta_4000000000_000000.bin");
        storage.write(&copied, storage.read(&segment).unwrap()).unwrap();
        let restoring = RestoreOptions::new().storage(storage.clone());
        let error = restoring.restore(BACKUPS).unwrap_err();
        assert!(matches!(&error, Error::WrongKind { file, .. } if *file == copied), "{error}");
        let (restored, report) = restoring.accept_earlier(true).restore(BACKUPS).unwrap();
        assert_eq!((restored.digest(), report.damaged.len()), (digest, 1), "{report}");
        assert_eq!(report.damaged[0].file, copied);
    }
}

/// A storage that counts how often segments of the log are opened.
#[derive(Clone, Debug, Default)]
struct Counting {
    files: MemoryStorage,
    segments: Arc<AtomicUsize>,
}

impl Storage for Counting {
    left_to_files! { create_dir_all list create rename rename_new remove sync_dir lock }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn ReadFile>> {
        if path.to_string_lossy().contains("dictdb_log_") {
            self.segments.fetch_add(1, Ordering::Relaxed);
        }
        self.files.open(path)
    }
}

#[test]
fn full_backups_without_deltas_read_nothing_of_the_log() {
    let storage = Counting::default();
    let db = options(&storage.files).storage(storage.clone()).ring_bytes(0).open(DIR).unwrap();
    let builder = || BackupManager::builder(&db, BACKUPS).storage(storage.files.clone());
    let manager = builder().build().unwrap();
    storage.segments.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        commit(&db, 20);
        manager.backup_now().unwrap();
        assert_eq!(storage.segments.load(Ordering::Relaxed), 0);
    }
    commit(&db, 20);
    let report = builder().incremental(true).build().unwrap().backup_full().unwrap();
    assert!(report.bridge.is_some() && storage.segments.load(Ordering::Relaxed) > 0, "a bridge comes out of it");
    assert_eq!(restored(&storage.files).digest(), db.digest());
}

/// Of the two only one lives on; what the other had is given up.
#[test]
fn a_store_put_back_from_a_copy_and_gone_on_past_the_old_tip_makes_backups_that_restore() {
    for format in FORMATS {
        let storage = MemoryStorage::new();
        let db = options(&storage).open(DIR).unwrap();
        commit(&db, 2);
        manager(&db, &storage, format).backup_now().unwrap();
        db.close().unwrap();
        let copied = copy(&storage);
        let db = options(&storage).open(DIR).unwrap();
        commit(&db, 1);
        manager(&db, &storage, format).backup_now().unwrap();
        db.close().unwrap();

        let db = options(&copied).open(DIR).unwrap();
        let table = db.table("t").unwrap();
        for id in 100..105 {
            table.insert(record! { "id": id }).unwrap();
        }
        let manager = || manager(&db, &storage, format);
        assert!(manager().status().last_success.is_none(), "what is there was given up");
        // Nor is it any the more its own for a backup that failed.
        let cancelled = BackupManager::builder(&db, BACKUPS).storage(storage.clone()).file_format(format);
        let cancelled = cancelled.on_progress(|_| std::ops::ControlFlow::Break(())).build().unwrap();
        assert!(matches!(cancelled.backup_now(), Err(Error::Cancelled)));
        let manager = manager();
        assert!(manager.status().last_success.is_none());
        for _ in 0..3 {
            manager.backup_now().unwrap();
            assert_eq!(restored(&storage).digest(), db.digest(), "{format}");
            table.upsert(record! { "id": 100, "text": "changed" }).unwrap();
        }
        // Two of those behind the first were deltas.
        assert_eq!(manager.status().deltas_since_full, 2);
    }
}

#[test]
fn a_full_backup_behind_one_that_was_removed_ties_in_with_what_is_there() {
    let storage = MemoryStorage::new();
    let manager = |db: &DictDb| BackupManager::builder(db, BACKUPS).storage(storage.clone()).build().unwrap();
    let old = DictDb::new();
    commit(&old, 1);
    manager(&old).backup_full().unwrap();
    // A fresh database takes the directory over.
    let new = DictDb::new();
    commit(&new, 3);
    let of_new = manager(&new);
    let first = of_new.backup_full().unwrap();
    storage.remove(&first.file).unwrap();
    of_new.backup_full().unwrap();
    assert_eq!(restored(&storage).digest(), new.digest());
}

#[test]
fn each_lineage_that_is_told_where_there_are_several_can_be_restored() {
    for _ in 0..10 {
        let (storage, elsewhere) = (MemoryStorage::new(), MemoryStorage::new());
        let back_up = |storage: &MemoryStorage| {
            let db = DictDb::new();
            commit(&db, 1);
            BackupManager::builder(&db, BACKUPS).storage(storage.clone()).build().unwrap().backup_full().unwrap().file
        };
        let first = back_up(&storage);
        back_up(&storage); // takes over from the first, which goes
        storage.remove(&first).unwrap();
        let stranger = back_up(&elsewhere);
        storage.write(&stranger, elsewhere.read(&stranger).unwrap()).unwrap();
        let refused = RestoreOptions::new().storage(storage.clone()).restore(BACKUPS);
        let Err(Error::SeveralHistories { lineages, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(lineages.len(), 2);
        for lineage in lineages {
            RestoreOptions::new().storage(storage.clone()).lineage(lineage).restore(BACKUPS).unwrap();
        }
    }
}

#[test]
fn nobody_opens_a_store_while_it_is_made_of_a_backup() {
    let disk: Arc<OnceLock<MemoryStorage>> = Arc::default();
    let (there, tries) = (Arc::clone(&disk), Arc::new(AtomicUsize::new(0)));
    let tried = Arc::clone(&tries);
    let storage = Hooked::new(move |op, path| {
        if matches!(op, Op::Create | Op::Publish) && path.starts_with(DIR) {
            let outcome = options(there.get().unwrap()).open(DIR);
            assert!(matches!(outcome, Err(Error::Locked { .. })), "{outcome:?}");
            tried.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    disk.set(storage.files.clone()).unwrap();
    let db = DictDb::new();
    commit(&db, 5);
    manager(&db, &storage.files, BackupFormat::Binary).backup_full().unwrap();
    RestoreOptions::new().storage(storage).restore_into(BACKUPS, DIR).unwrap();
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    assert_eq!(options(disk.get().unwrap()).open(DIR).unwrap().digest(), db.digest());
}

#[test]
fn a_manager_writes_no_backup_among_the_files_of_a_store_that_was_made_in_its_directory() {
    let storage = MemoryStorage::new();
    let db = DictDb::new();
    commit(&db, 1);
    let manager = manager(&db, &storage, BackupFormat::Binary);
    manager.backup_now().unwrap();
    let elsewhere = options(&storage).open(DIR).unwrap();
    commit(&elsewhere, 1);
    elsewhere.close().unwrap();
    for file in storage.paths().into_iter().filter(|path| path.starts_with(DIR)) {
        storage.write(Path::new(BACKUPS).join(file.file_name().unwrap()), storage.read(&file).unwrap()).unwrap();
    }
    commit(&db, 2);
    for refused in [manager.backup_now(), manager.backup_full()] {
        assert!(matches!(&refused, Err(Error::StoreDirectory { dir }) if dir == Path::new(BACKUPS)), "{refused:?}");
    }
}

#[test]
fn a_restore_out_of_a_stores_directory_says_that_it_is_one() {
    let storage = MemoryStorage::new();
    commit(&options(&storage).open(DIR).unwrap(), 1);
    let refused = RestoreOptions::new().storage(storage.clone()).restore(DIR).unwrap_err();
    assert!(matches!(&refused, Error::StoreDirectory { .. }), "{refused}");
    assert!(refused.to_string().contains("DictDb::open"), "{refused}");
}

#[test]
fn a_delta_behind_a_copy_of_a_backup_under_another_name_becomes_a_full_backup_and_says_why() {
    let storage = MemoryStorage::new();
    let db = DictDb::new();
    commit(&db, 1);
    let manager = manager(&db, &storage, BackupFormat::Binary);
    let full = manager.backup_now().unwrap().file;
    storage
        .write(Path::new(BACKUPS).join("dictdb_backup_9999999999_000000.bin"), storage.read(&full).unwrap())
        .unwrap();
    commit(&db, 2);
    let report = manager.backup_now().unwrap();
    assert_eq!(report.promoted, Some(Promotion::NewestDamaged), "{report}");
    assert!(report.to_string().contains("renamed or copied"), "{report}");
    let (restored, _) = RestoreOptions::new().storage(storage).restore(BACKUPS).unwrap();
    assert_eq!(restored.digest(), db.digest());
}

#[test]
fn a_store_that_must_be_there_is_not_begun_anew_where_its_disk_is_not_mounted() {
    let storage = MemoryStorage::new();
    let must = options(&storage).create_if_missing(false);
    storage.create_dir_all(Path::new("/mounted")).unwrap();
    for dir in ["/gone", "/mounted"] {
        let refused = must.open(dir).unwrap_err();
        assert!(matches!(&refused, Error::NotAStore { .. }), "{refused}");
        assert!(refused.to_string().contains(dir), "{refused}");
    }
    assert!(matches!(must.open_read_only("/mounted").unwrap_err(), Error::NotAStore { .. }));
    assert!(storage.paths().is_empty(), "nothing was made: {:?}", storage.paths());
    // Begun, and never written to: as a restore leaves it that does not come to its end.
    let disk = tempfile::tempdir().unwrap();
    DictDb::open(disk.path()).unwrap().close().unwrap();
    assert!(disk.path().join(LOCK_FILE).exists());
    assert!(matches!(Options::new().create_if_missing(false).open(disk.path()), Err(Error::NotAStore { .. })));
    commit(&options(&storage).open(DIR).unwrap(), 1);
    must.open(DIR).unwrap().close().unwrap();
    must.open_read_only(DIR).unwrap();
}

#[test]
fn a_directory_whose_names_are_used_up_says_which_and_what_to_do() {
    let storage = MemoryStorage::new();
    let db = DictDb::new();
    commit(&db, 1);
    storage.write(Path::new(BACKUPS).join("dictdb_backup_9223372036854_775807.json"), Vec::new()).unwrap();
    let refused = manager(&db, &storage, BackupFormat::Binary).backup_now().unwrap_err();
    assert!(matches!(refused, Error::Exhausted { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains(BACKUPS) && text.contains("move that file away"), "{text}");
}
