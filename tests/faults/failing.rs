//! Whatever the storage refuses, and whenever: nothing half-made bears a backup's name, the checkpoint stays, somebody
//! is told, and the next backup that succeeds holds everything.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex};

use dictdb::{BackupFormat, BackupManager, BackupReport, DictDb, Error, RestoreOptions, Result, Storage};

use crate::faulty::{DIR, FORMATS, Fault, Faulty, Op, builder, commit, database, restored};

/// The backup that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The first of the directory.
    First,
    Delta,
    /// A full one with commits since the chain before: it brings a bridge.
    Bridged,
}

const KINDS: [Kind; 3] = [Kind::First, Kind::Delta, Kind::Bridged];

struct Scene {
    label: String,
    kind: Kind,
    storage: Faulty,
    db: DictDb,
    manager: BackupManager,
    heard: Arc<Mutex<Vec<u64>>>,
}

impl Scene {
    fn new(kind: Kind, format: BackupFormat) -> Scene {
        let (storage, db, heard) = (Faulty::default(), database(), Arc::new(Mutex::new(Vec::new())));
        let callback = {
            let heard = heard.clone();
            move |_: &Error, count| heard.lock().unwrap().push(count)
        };
        let manager = builder(&db, &storage, format).on_backup_failure(callback).build().unwrap();
        if kind != Kind::First {
            manager.backup_full().unwrap();
            commit(&db);
            manager.backup_delta().unwrap();
            commit(&db);
        }
        Scene { label: format!("{kind:?} {format}"), kind, storage, db, manager, heard }
    }

    fn back_up(&self) -> Result<BackupReport> {
        match self.kind {
            Kind::First | Kind::Bridged => self.manager.backup_full(),
            Kind::Delta => self.manager.backup_delta(),
        }
    }

    /// Backs up under the fault that was set, twice; judges what it left; heals the storage and judges the next ones.
    /// Gives the error, where the backup failed.
    fn fail_and_recover(&self, how: &str) -> Option<Error> {
        let label = format!("{}, {how}", self.label);
        let (before, names) = (self.manager.status(), self.storage.names());
        let error = match self.back_up() {
            Ok(report) => {
                // Only a bridge may fail without failing the backup.
                assert!(report.bridge_failure.is_some() || self.kind != Kind::Bridged || report.bridge.is_some());
                assert_eq!(restored(&self.storage).0, self.db.digest(), "{label}: {report}");
                None
            }
            Err(error) => {
                self.judge_failure(&label, &error, &before, &names);
                Some(error)
            }
        };
        self.storage.heal();
        for _ in 0..2 {
            commit(&self.db);
            let report = self.manager.backup_now().unwrap();
            assert_eq!(self.manager.consecutive_failures(), 0, "{label}");
            let (digest, restored) = restored(&self.storage);
            assert_eq!(digest, self.db.digest(), "{label}: {report}; {restored}");
            assert!(!restored.fell_back && restored.damaged.is_empty(), "{label}: {restored}");
        }
        assert_eq!(self.manager.status().pending_commits, 0, "{label}");
        error
    }

    fn judge_failure(&self, label: &str, error: &Error, before: &dictdb::BackupStatus, names: &[String]) {
        let (Error::Io { op, path, .. } | Error::DiskFull { op, path, .. }) = error else {
            panic!("{label}: {error:?}")
        };
        let text = error.to_string();
        assert!(path.starts_with(DIR) && text.contains(op) && text.contains(DIR), "{label}: {error}");
        let status = self.manager.status();
        assert_eq!(status.consecutive_failures, 1, "{label}");
        assert_eq!(status.last_failure.as_ref(), Some(&text), "{label}");
        assert_eq!(*self.heard.lock().unwrap(), [1], "{label}");
        let checkpoint = |status: &dictdb::BackupStatus| {
            let last = status.last_success.as_ref().map(|last| (last.seq, last.file.clone()));
            (last, status.pending_commits, status.deltas_since_full)
        };
        assert_eq!(checkpoint(&status), checkpoint(before), "{label}: the checkpoint moved");
        for name in names {
            assert!(self.storage.names().contains(name), "{label}: {name} is gone");
        }
        // Whatever bears a final name is whole: with it the directory leads to the checkpoint, or to the live state.
        let options = RestoreOptions::new().storage(self.storage.files.clone());
        match options.restore(DIR) {
            Ok((db, report)) => {
                let covered = db.digest() == self.db.digest()
                    || Some(report.point.seq) == before.last_success.as_ref().map(|last| last.seq);
                assert!(covered && report.damaged.is_empty(), "{label}: {report}");
            }
            Err(Error::NoBackup { damaged, .. }) => {
                assert!(self.kind == Kind::First && damaged.is_empty(), "{label}");
            }
            Err(error) => panic!("{label}: {error}"),
        }
    }

    fn assert_no_leftovers(&self, label: &str) {
        assert_eq!(self.storage.names(), self.storage.backups(), "{label}: temporary files stayed");
    }
}

fn scenes() -> impl Iterator<Item = (Kind, BackupFormat)> {
    KINDS.into_iter().flat_map(|kind| FORMATS.map(|format| (kind, format)))
}

#[test]
fn no_space_after_any_count_of_bytes_leaves_no_half_backup() {
    for (kind, format) in scenes() {
        let bytes = Scene::new(kind, format).back_up().unwrap().bytes;
        for space in 0..bytes {
            let scene = Scene::new(kind, format);
            scene.storage.space(space);
            let error = scene.fail_and_recover(&format!("{space} bytes of space"));
            let Some(Error::DiskFull { op: "write", source, .. }) = error else { panic!("{space}: {error:?}") };
            assert_eq!(source.kind(), ErrorKind::StorageFull);
            scene.assert_no_leftovers(&format!("{space} bytes of space"));
        }
        let scene = Scene::new(kind, format);
        scene.storage.space(bytes);
        let error = scene.fail_and_recover("just enough space");
        assert!(error.is_none(), "{error:?}");
    }
}

#[test]
fn any_operation_may_fail_once_or_from_then_on() {
    let kinds = [ErrorKind::PermissionDenied, ErrorKind::StorageFull, ErrorKind::NotFound, ErrorKind::Other];
    for (kind, format) in scenes() {
        for (error_kind, forever) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
            let mut failed = 0;
            for at in 0.. {
                let scene = Scene::new(kind, format);
                scene.storage.fail(Fault { op: None, at, forever, kind: error_kind });
                let label = format!("{error_kind:?} at operation {at}, forever: {forever}");
                failed += usize::from(scene.fail_and_recover(&label).is_some());
                if !forever {
                    scene.assert_no_leftovers(&label);
                }
                let scene = Scene::new(kind, format);
                scene.storage.fail(Fault { op: None, at: usize::MAX, forever, kind: error_kind });
                scene.back_up().unwrap();
                if at > scene.storage.heal() {
                    break; // every operation of the backup has had its turn
                }
            }
            assert!(failed >= 6, "list, create, write, sync, rename, sync directory: only {failed} failed");
        }
    }
}

#[test]
fn a_storage_that_panics_at_any_operation_fails_the_backup_and_nothing_else() {
    for (kind, format) in scenes() {
        for forever in [false, true] {
            let mut failed = 0;
            for at in 0.. {
                let scene = Scene::new(kind, format);
                scene.storage.panic(Fault { op: None, at, forever, kind: ErrorKind::Other });
                let label = format!("a panic at operation {at}, forever: {forever}");
                if let Some(error) = scene.fail_and_recover(&label) {
                    assert!(error.to_string().contains("panicked"), "{label}: {error}");
                    failed += 1;
                }
                let scene = Scene::new(kind, format);
                scene.storage.fail(Fault { op: None, at: usize::MAX, forever, kind: ErrorKind::Other });
                scene.back_up().unwrap();
                if at > scene.storage.heal() {
                    break; // every operation of the backup has had its turn
                }
            }
            assert!(failed >= 6, "list, create, write, sync, rename, sync directory: only {failed} failed");
        }
    }
}

#[test]
fn each_refusal_names_the_operation_and_the_path() {
    for (kind, format) in scenes() {
        for (op, verb, final_name) in [
            (Op::List, "list directory", false),
            (Op::Create, "create", false),
            (Op::Write, "write", false),
            (Op::Sync, "sync", false),
            (Op::Rename, "rename a temporary file to", true),
            (Op::SyncDir, "sync directory", false),
        ] {
            for error_kind in [ErrorKind::PermissionDenied, ErrorKind::Other] {
                let scene = Scene::new(kind, format);
                scene.storage.fail_every(op, error_kind);
                let error = scene.fail_and_recover(&format!("{op:?} refused")).unwrap();
                let Error::Io { op: said, path, source } = &error else { panic!("{error:?}") };
                assert_eq!((*said, source.kind()), (verb, error_kind));
                let name = path.file_name().unwrap().to_str().unwrap();
                let is_dir = matches!(op, Op::List | Op::SyncDir);
                assert_eq!(path == Path::new(DIR), is_dir, "{error}");
                assert_eq!(name.starts_with("dictdb_"), final_name, "{error}");
                scene.assert_no_leftovers(&format!("{op:?} refused"));
            }
        }
    }
}

#[test]
fn a_directory_sync_refused_where_nothing_can_be_removed_leaves_a_whole_backup_that_the_chain_goes_on_from() {
    for (kind, format) in scenes() {
        // From the directory's sync on, everything fails: the file keeps its final name.
        let mut failing_from = (0..).map(|at| {
            let scene = Scene::new(kind, format);
            scene.storage.fail(Fault { op: None, at, forever: true, kind: ErrorKind::Other });
            let before = scene.storage.backups().len();
            (scene.back_up().unwrap_err(), scene, before)
        });
        let is_dir_sync = |error: &Error| matches!(error, Error::Io { op: "sync directory", .. });
        let (_, scene, before) = failing_from.find(|(error, ..)| is_dir_sync(error)).unwrap();
        assert_eq!(scene.storage.backups().len(), before + 1, "{}", scene.label);
        scene.storage.heal();
        commit(&scene.db);
        scene.manager.backup_delta().unwrap();
        let (digest, report) = restored(&scene.storage);
        assert_eq!(digest, scene.db.digest(), "{}: {report}", scene.label);
    }
}

#[test]
fn short_writes_and_reads_of_any_length_are_gone_on_with() {
    for (kind, format) in scenes() {
        for piece in [1, 2, 3, 7, 31, 100, 1_000] {
            let scene = Scene::new(kind, format);
            scene.storage.piece(piece);
            scene.back_up().unwrap();
            let (db, _) = RestoreOptions::new().storage(scene.storage.clone()).restore(DIR).unwrap();
            assert_eq!(db.digest(), scene.db.digest(), "{}, {piece} bytes at a time", scene.label);
        }
    }
}

#[test]
fn a_write_that_takes_nothing_is_an_error_and_no_endless_loop() {
    for (kind, format) in scenes() {
        let scene = Scene::new(kind, format);
        scene.storage.piece(0);
        let error = scene.fail_and_recover("writes take nothing").unwrap();
        assert!(matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::WriteZero), "{error}");
    }
}

#[test]
fn failures_in_a_row_are_counted_told_and_forgotten_by_a_success() {
    let scene = Scene::new(Kind::Delta, FORMATS[0]);
    scene.storage.fail_every(Op::Create, ErrorKind::PermissionDenied);
    for count in 1..=5 {
        let outcome = if count % 2 == 0 { scene.manager.backup_full() } else { scene.manager.backup_now() };
        assert!(outcome.is_err());
        assert_eq!(scene.manager.consecutive_failures(), count);
    }
    assert!(scene.manager.notify_change().is_err(), "inline, so it is returned");
    assert_eq!(*scene.heard.lock().unwrap(), [1, 2, 3, 4, 5, 6]);
    scene.storage.heal();
    scene.manager.backup_now().unwrap();
    assert_eq!((scene.manager.consecutive_failures(), scene.manager.status().last_failure), (0, None));
    scene.storage.fail_every(Op::Create, ErrorKind::PermissionDenied);
    scene.manager.backup_now().unwrap_err();
    assert_eq!(scene.heard.lock().unwrap().last(), Some(&1));
}

#[test]
fn a_storage_that_cannot_be_read_fails_the_restore_and_is_not_taken_for_damage() {
    for format in FORMATS {
        let scene = Scene::new(Kind::Bridged, format);
        scene.back_up().unwrap();
        let restore = || RestoreOptions::new().storage(scene.storage.clone()).accept_earlier(true).restore(DIR);
        scene.storage.fail(Fault { op: None, at: usize::MAX, forever: false, kind: ErrorKind::Other });
        restore().unwrap();
        let operations = scene.storage.heal();
        let mut unneeded = 0;
        for at in 0..operations {
            let (names, label) = (scene.storage.names(), format!("{format}, operation {at} of {operations}"));
            scene.storage.fail(Fault { op: None, at, forever: false, kind: ErrorKind::Other });
            match restore() {
                // The file was not needed, as it lies before the newest full backup.
                Ok((db, report)) => {
                    assert_eq!(db.digest(), scene.db.digest(), "{label}: {report}");
                    unneeded += 1;
                }
                Err(Error::Io { path, .. }) => assert!(path.starts_with(DIR), "{label}: {path:?}"),
                Err(error) => panic!("{label}: {error:?}"),
            }
            assert_eq!(scene.storage.names(), names, "{label}");
            scene.storage.heal();
        }
        assert!(operations - unneeded >= 10, "{format}: {unneeded} of {operations}");
        assert_eq!(restore().unwrap().0.digest(), scene.db.digest());
    }
}

#[test]
fn a_manager_is_not_built_on_a_directory_that_cannot_be_made_or_read() {
    let (storage, db) = (Faulty::default(), database());
    for (op, verb) in [(Op::CreateDir, "create directory"), (Op::List, "list directory")] {
        storage.fail_every(op, ErrorKind::PermissionDenied);
        let error = builder(&db, &storage, FORMATS[0]).build().map(|_| ()).unwrap_err();
        assert!(matches!(&error, Error::Io { op, path, .. } if *op == verb && path == Path::new(DIR)), "{error}");
        storage.heal();
    }
    storage.files.write("/file", *b"").unwrap();
    assert!(storage.create_dir_all(Path::new("/file")).is_err());
    let error = BackupManager::builder(&db, "/file").storage(storage).build().map(|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Io { op: "create directory", .. }), "{error}");
}

/// The next full backup says what it takes over from; without it the directory would hold two histories.
#[test]
fn a_directory_whose_newest_backup_cannot_be_read_at_the_moment_is_not_taken_for_one_without_it() {
    for format in FORMATS {
        let mut refused = 0;
        for at in 0.. {
            let storage = Faulty::default();
            builder(&database(), &storage, format).build().unwrap().backup_full().unwrap();
            let next = database();
            storage.fail(Fault { op: None, at, forever: false, kind: ErrorKind::Other });
            let manager = builder(&next, &storage, format).build();
            let operations = storage.heal();
            let manager = match manager {
                Ok(manager) => manager,
                Err(error) => {
                    assert!(matches!(&error, Error::Io { path, .. } if path.starts_with(DIR)), "{error}");
                    refused += 1;
                    builder(&next, &storage, format).build().unwrap()
                }
            };
            manager.backup_full().unwrap();
            let (restored, _) = RestoreOptions::new().storage(storage).restore(DIR).unwrap();
            assert_eq!(restored.digest(), next.digest(), "{format}, operation {at}");
            if operations <= at {
                break;
            }
        }
        assert!(refused > 5, "{format}: {refused}");
    }
}
