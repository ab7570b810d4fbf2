//! What else lies in a directory, and what becomes of the directory itself; some of it on the real disk.

use std::path::Path;

use dictdb::{BackupManager, BackupStatus, Error, MemoryStorage, RestoreOptions, Storage, list_backups, restore};

use crate::faulty::{DIR, FORMATS, Faulty, builder, commit, database, restored};

#[test]
fn strange_names_temporary_files_and_directories_are_neither_read_nor_touched() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let strange = [
            ".dictdb_backup_1700000000_000001.bin.123-4.tmp",
            "dictdb_backup_1700000000_1.json",
            "dictdb_backup_1700000000_0000001.json",
            "dictdb_backup_99999999999999999999_000001.json",
            "dictdb_backup_1700000000_000001.pickle",
            "dictdb_backup_1700000000_000001.json~",
            "Dictdb_backup_1700000000_000001.json",
            "dictdb_delta_-1_000001.bin",
            "dictdb_delta__000001.bin",
            "dictdb_delta_1_000001",
            "notes.txt",
        ];
        for name in strange {
            storage.files.write(Path::new(DIR).join(name), *b"garbage").unwrap();
        }
        for name in ["dictdb_backup_9999999999_000000.json", "dictdb_delta_9999999999_000000.bin"] {
            storage.files.create_dir_all(&Path::new(DIR).join(name).join("inside")).unwrap();
        }
        let manager = builder(&db, &storage, format).build().unwrap();
        assert!(manager.status().last_success.is_none());
        let mut ours = Vec::new();
        for _ in 0..3 {
            commit(&db);
            let report = manager.backup_now().unwrap();
            ours.push(report.file.file_name().unwrap().to_str().unwrap().to_owned());
            assert_eq!(restored(&storage).0, db.digest());
        }
        assert!(ours.iter().all(|name| !name.contains("_9999999999_")), "no directory's stamp counts: {ours:?}");
        for name in strange {
            assert_eq!(storage.files.read(Path::new(DIR).join(name)).unwrap(), b"garbage", "{name}");
        }
        assert_eq!(storage.names().len(), strange.len() + ours.len(), "{format}: {:?}", storage.names());
    }
}

#[test]
fn a_damaged_file_of_a_later_stamp_does_not_stop_backups_and_is_reported_by_restore() {
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let manager = builder(&db, &storage, format).build().unwrap();
        manager.backup_full().unwrap();
        storage.files.write(Path::new(DIR).join("dictdb_backup_4000000000_000000.bin"), *b"garbage").unwrap();
        for _ in 0..3 {
            commit(&db);
            let report = manager.backup_now().unwrap();
            assert!(report.file.to_string_lossy().contains("_4000000000_00000"), "stamps rise past it: {report}");
            let (digest, from) = restored(&storage);
            assert_eq!(digest, db.digest(), "{from}");
        }
    }
}

fn checkpoint(status: &BackupStatus) -> (Option<u64>, u64) {
    (status.last_success.as_ref().map(|last| last.seq.get()), status.pending_commits)
}

#[test]
fn a_directory_removed_under_the_manager_fails_until_it_is_back_and_then_gets_a_full_backup() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backups");
    let db = database();
    let manager = BackupManager::builder(&db, &path).incremental(true).build().unwrap();
    manager.backup_now().unwrap();
    commit(&db);
    let before = checkpoint(&manager.status());
    std::fs::remove_dir_all(&path).unwrap();
    for count in 1..=2 {
        let error = manager.backup_now().unwrap_err();
        assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{error}");
        assert_eq!(manager.consecutive_failures(), count);
        assert_eq!(checkpoint(&manager.status()), before);
    }
    assert!(!path.exists(), "a directory that went, as a disk that was unmounted, is not made anew in silence");
    std::fs::create_dir(&path).unwrap();
    let report = manager.backup_now().unwrap();
    assert_eq!(report.promoted, Some(dictdb::Promotion::ChainBroken), "{report}");
    assert_eq!(restore(&path).unwrap().0.digest(), db.digest());
    assert_eq!(manager.consecutive_failures(), 0);
}

#[test]
fn a_file_in_place_of_the_directory_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backups");
    std::fs::write(&path, "not a directory").unwrap();
    let db = database();
    let error = BackupManager::new(&db, &path).map(|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Io { op: "create directory", path: named, .. } if *named == path), "{error}");
    let error = restore(&path).map(|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Io { op: "list directory", path: named, .. } if *named == path), "{error}");
    std::fs::remove_file(&path).unwrap();
    let manager = BackupManager::new(&db, &path).unwrap();
    manager.backup_now().unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, "not a directory").unwrap();
    let error = manager.backup_now().unwrap_err();
    assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"not a directory");
}

#[cfg(unix)]
#[test]
fn links_with_backup_names_are_ignored_wherever_they_lead() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stranger = database();
    commit(&stranger);
    let foreign = BackupManager::new(&stranger, elsewhere.path()).unwrap().backup_full().unwrap();
    let db = database();
    let manager = BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap();
    let own = manager.backup_now().unwrap();
    for (name, target) in [
        ("dictdb_backup_9999999999_000000.json", foreign.file.as_path()),
        ("dictdb_backup_9999999999_000001.json", Path::new("nowhere")),
        ("dictdb_delta_9999999999_000002.json", own.file.as_path()),
        ("dictdb_backup_9999999999_000003.bin", elsewhere.path()),
    ] {
        std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
    }
    commit(&db);
    let report = manager.backup_now().unwrap();
    assert!(!report.file.to_string_lossy().contains("_9999999999_"), "{report}");
    let (restored, report) = restore(dir.path()).unwrap();
    assert_eq!(restored.digest(), db.digest(), "{report}");
    assert!(report.damaged.is_empty(), "{report}");
    assert_eq!(list_backups(dir.path()).unwrap().len(), 2);
}

#[cfg(unix)]
#[test]
fn a_directory_without_permission_to_write_fails_cleanly() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let db = database();
    let manager = BackupManager::builder(&db, dir.path()).incremental(true).build().unwrap();
    manager.backup_now().unwrap();
    commit(&db);
    let allow = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    if std::fs::write(dir.path().join("probe"), "").is_ok() {
        eprintln!("NOT TESTED: this user (root?) may write into a read-only directory");
        return;
    }
    let error = manager.backup_now().unwrap_err();
    allow(0o755);
    let Error::Io { op: "create", path, source } = &error else { panic!("{error:?}") };
    assert_eq!((path.parent(), source.kind()), (Some(dir.path()), std::io::ErrorKind::PermissionDenied));
    manager.backup_now().unwrap();
    assert_eq!(restore(dir.path()).unwrap().0.digest(), db.digest());
}

#[test]
fn a_restore_never_writes_to_the_directory() {
    // Of a storage that only reads, everything restores.
    #[derive(Debug)]
    struct ReadOnly(MemoryStorage);
    impl Storage for ReadOnly {
        fn create_dir_all(&self, dir: &Path) -> std::io::Result<()> {
            panic!("create_dir_all({dir:?})")
        }
        fn list(&self, dir: &Path) -> std::io::Result<Vec<dictdb::DirEntry>> {
            self.0.list(dir)
        }
        fn open(&self, path: &Path) -> std::io::Result<Box<dyn dictdb::ReadFile>> {
            self.0.open(path)
        }
        fn create(&self, path: &Path) -> std::io::Result<Box<dyn dictdb::WriteFile>> {
            panic!("create({path:?})")
        }
        fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
            panic!("rename({from:?}, {to:?})")
        }
        fn rename_new(&self, from: &Path, to: &Path) -> std::io::Result<()> {
            panic!("rename_new({from:?}, {to:?})")
        }
        fn remove(&self, path: &Path) -> std::io::Result<()> {
            panic!("remove({path:?})")
        }
        fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
            panic!("sync_dir({dir:?})")
        }
        fn lock(&self, dir: &Path) -> Result<Box<dyn dictdb::DirLock>, dictdb::LockError> {
            panic!("lock({dir:?})")
        }
    }
    for format in FORMATS {
        let (storage, db) = (Faulty::default(), database());
        let manager = builder(&db, &storage, format).build().unwrap();
        for _ in 0..3 {
            commit(&db);
            manager.backup_now().unwrap();
        }
        let (restored, _) = RestoreOptions::new().storage(ReadOnly(storage.files)).restore(DIR).unwrap();
        assert_eq!(restored.digest(), db.digest());
    }
}
