//! Whose directory it is: other processes, other handles, other things in it. What is refused is refused in clear words,
//! and nothing is written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dictdb::{
    BackupFormat, BackupManager, CheckpointPolicy, DictDb, Error, LOCK_FILE, MemoryStorage, Options, RestoreOptions,
    record,
};

use crate::damage::repair;
use crate::damage_shapes::frames;
use crate::kill::{Child, say, wait_for_the_end};

/// Every file and directory below `dir`, with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), None);
                left.push(path);
            } else {
                found.insert(path.clone(), Some(fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Runs `work`, which changes nothing below `dir`.
fn unchanged<T>(dir: &Path, work: impl FnOnce() -> T) -> T {
    let before = contents(dir);
    let outcome = work();
    let after = contents(dir);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(after == before);
    outcome
}

fn options() -> Options {
    Options::new().checkpoint(CheckpointPolicy::manual()).segment_bytes(2_000).preallocate_bytes(1_024)
}

fn insert(db: &DictDb, ids: std::ops::Range<i64>) {
    let table = db.table("t").or_else(|_| db.create_table("t", "id")).unwrap();
    for id in ids {
        table.insert(record! { "id": id, "text": format!("record {id}") }).unwrap();
    }
}

/// A closed store of ten records.
fn store(dir: &Path) -> dictdb::Digest {
    let db = options().open(dir).unwrap();
    insert(&db, 0..10);
    let digest = db.digest();
    db.close().unwrap();
    digest
}

fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    contents(dir).into_keys().filter(is_one).collect()
}

const HELD_DIR: &str = "DICTDB_HELD_DIR";
const HOLDER: &str =
    "directories::a_store_that_another_process_holds_is_refused_with_its_pid_and_free_when_it_is_killed";

#[test]
fn a_store_that_another_process_holds_is_refused_with_its_pid_and_free_when_it_is_killed() {
    if let Some(dir) = std::env::var_os(HELD_DIR) {
        let db = options().open(Path::new(&dir)).unwrap();
        insert(&db, 0..10);
        say("holding");
        return wait_for_the_end();
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    let mut child = Child::start(HOLDER, &[(HELD_DIR, dir.as_os_str())]);
    child.wait_for("holding");
    unchanged(place.path(), || {
        let refused = options().open(&dir).unwrap_err();
        let text = refused.to_string();
        let id = child.id();
        assert!(matches!(&refused, Error::Locked { dir: d, pid } if *d == dir && *pid == Some(id)), "{refused:?}");
        assert!(text.contains(&format!("process {id}")) && text.contains(dir.to_str().unwrap()), "{text}");
        // Looking is allowed.
        let live = options().open_read_only(&dir).unwrap();
        assert_eq!(live.table("t").unwrap().len().unwrap(), 10);
        let report = live.open_report().unwrap();
        let text = report.to_string();
        assert!(
            report.read_only && text.starts_with("looked at ") && text.ends_with("; it is open, or was not closed"),
            "{text}"
        );
        let taken = RestoreOptions::new().restore_into(place.path().join("backups"), &dir).unwrap_err();
        assert!(matches!(taken, Error::NotEmpty { .. }), "{taken:?}");
    });
    drop(child.kill());
    let db = options().open(&dir).unwrap();
    assert_eq!(db.table("t").unwrap().len().unwrap(), 10);
    insert(&db, 10..11);
}

#[test]
fn one_handle_and_its_clones_have_a_store_and_the_last_of_them_or_a_close_gives_it_back() {
    let place = tempfile::tempdir().unwrap();
    let locked = |storage: Option<&MemoryStorage>| {
        let options = storage.map_or_else(options, |storage| options().storage(storage.clone()));
        let dir = place.path().join("data");
        let refused = |why: &str| match options.open(&dir) {
            Err(Error::Locked { pid, .. }) => {
                let expected = storage.is_none().then(std::process::id);
                assert!(pid == expected || pid == Some(std::process::id()), "{why}: {pid:?}");
            }
            other => panic!("{why}: {other:?}"),
        };
        let db = options.open(&dir).unwrap();
        refused("held before the first write");
        insert(&db, 0..3);
        refused("held");
        let clone = db.clone();
        drop(db);
        refused("a clone holds it");
        drop(clone);
        let db = options.open(&dir).unwrap();
        let table = db.table("t").unwrap();
        drop(db);
        refused("a table's handle holds it");
        drop(table);
        let db = options.open(&dir).unwrap();
        let clone = db.clone();
        db.close().unwrap();
        let next = options.open(&dir).unwrap();
        assert_eq!(next.digest(), clone.digest());
        drop(clone);
        refused("the closed one's last clone took nothing away with it");
        insert(&next, 3..4);
    };
    locked(None);
    locked(Some(&MemoryStorage::new()));
}

#[test]
fn a_failed_open_gives_the_lock_back() {
    let place = tempfile::tempdir().unwrap();
    store(place.path());
    let log = files(place.path(), "dictdb_log").pop().unwrap();
    let good = fs::read(&log).unwrap();
    let mut bad = good.clone();
    bad[200] ^= 1;
    fs::write(&log, bad).unwrap();
    for _ in 0..2 {
        let refused = options().open(place.path()).unwrap_err();
        assert!(matches!(refused, Error::Corrupt { .. }), "{refused:?}");
    }
    fs::write(&log, good).unwrap();
    assert_eq!(options().open(place.path()).unwrap().table("t").unwrap().len().unwrap(), 10);
}

#[cfg(unix)]
#[test]
fn removing_the_lock_file_frees_no_store() {
    let place = tempfile::tempdir().unwrap();
    store(place.path());
    let held = options().open(place.path()).unwrap();
    for _ in 0..2 {
        fs::remove_file(place.path().join(LOCK_FILE)).unwrap();
        let refused = options().open(place.path()).unwrap_err();
        assert!(matches!(refused, Error::Locked { .. }), "{refused:?}");
    }
    insert(&held, 10..11);
    held.close().unwrap();
    let db = options().open(place.path()).unwrap();
    assert_eq!(db.table("t").unwrap().len().unwrap(), 11);
}

const READ_ONLY_DIR: &str = "DICTDB_READ_ONLY_DIR";
const READER: &str = "directories::a_directory_that_may_not_be_written_is_refused_and_can_be_looked_at";

/// What a process finds that may not write the directory.
fn look_at_read_only(dir: &Path) {
    for dir in [dir.join("store"), dir.join("empty"), dir.join("new")] {
        match options().open(&dir) {
            Err(Error::Io { op, source, .. }) => say(&format!("open: {op} {:?}", source.kind())),
            other => say(&format!("open: {other:?}")),
        }
    }
    match options().open_read_only(dir.join("store")) {
        Ok(db) => say(&format!("read: {}", db.table("t").unwrap().len().unwrap())),
        Err(error) => say(&format!("read: {error:?}")),
    }
    say("done");
}

#[cfg(unix)]
#[test]
fn a_directory_that_may_not_be_written_is_refused_and_can_be_looked_at() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    if let Some(dir) = std::env::var_os(READ_ONLY_DIR) {
        return look_at_read_only(Path::new(&dir));
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    store(&at("store"));
    fs::create_dir(at("empty")).unwrap();
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for path in contents(place.path()).into_keys().chain([place.path().to_owned()]) {
        allow(&path, if path.is_dir() { 0o555 } else { 0o444 });
    }
    let mut command = Child::command(&std::env::current_exe().unwrap(), READER);
    command.env(READ_ONLY_DIR, place.path());
    let is_root = fs::metadata(place.path()).unwrap().uid() == 0;
    if is_root {
        // Permissions do not bind root: somebody else looks.
        command.uid(65_534).gid(65_534);
    }
    unchanged(place.path(), || match Child::spawn(&mut command) {
        Ok(mut child) => {
            child.wait_for("done");
            let denied = "PermissionDenied";
            let expected = ["lock", "lock", "create directory"].map(|op| format!("open: {op} {denied}"));
            assert_eq!(child.said[..3], expected);
            assert_eq!(child.said[3..], ["read: 10", "done"]);
        }
        Err(error) if is_root => {
            eprintln!(
                "SKIPPED: runs as root, which nothing is denied to, and cannot start a process that is not: {error}"
            );
        }
        Err(error) => panic!("{error}"),
    });
    allow(place.path(), 0o755);
    ["store", "empty"].iter().for_each(|name| allow(&at(name), 0o755));
}

#[test]
fn a_stores_directory_is_no_place_for_backups() {
    let place = tempfile::tempdir().unwrap();
    let (dir, other) = (place.path().join("data"), DictDb::new());
    let refused = |what: &str| {
        unchanged(&dir, || match BackupManager::builder(&other, &dir).build() {
            Err(Error::StoreDirectory { dir: named }) => assert_eq!(named, dir),
            other => panic!("{what}: {:?}", other.map(drop)),
        });
    };
    let db = options().open(&dir).unwrap();
    refused("just opened, nothing written");
    insert(&db, 0..5);
    refused("open");
    let own = BackupManager::builder(&db, &dir).build().map(drop);
    assert!(matches!(own, Err(Error::StoreDirectory { .. })), "its own");
    db.checkpoint().unwrap();
    db.close().unwrap();
    refused("closed");
    for log in files(&dir, "dictdb_log").into_iter().chain([dir.join(LOCK_FILE)]) {
        fs::remove_file(log).unwrap();
    }
    refused("a snapshot alone");
}

#[test]
fn a_directory_of_backups_is_no_store() {
    let place = tempfile::tempdir().unwrap();
    let db = DictDb::new();
    insert(&db, 0..5);
    for (name, format) in [("json", BackupFormat::Json), ("binary", BackupFormat::Binary)] {
        let dir = place.path().join(name);
        let manager = BackupManager::builder(&db, &dir).file_format(format).build().unwrap();
        manager.backup_full().unwrap();
        unchanged(&dir, || {
            for opened in [options().open(&dir), options().open_read_only(&dir)] {
                match opened {
                    Err(refused @ Error::NotAStore { .. }) => {
                        let text = refused.to_string();
                        assert!(text.contains("restore_into") && text.contains(dir.to_str().unwrap()), "{text}");
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        // It still is one of backups.
        manager.backup_full().unwrap();
        assert_eq!(dictdb::restore(&dir).unwrap().0.digest(), db.digest());
    }
}

#[test]
fn a_directory_of_other_things_is_no_store() {
    let place = tempfile::tempdir().unwrap();
    type Make = fn(&Path);
    let kinds: [(&str, Make); 5] = [
        ("thesis.tex", |path| fs::write(path, "it is getting there").unwrap()),
        (".git", |path| fs::create_dir(path).unwrap()),
        ("dictdb_log_1_000000.log", |path| fs::create_dir(path).unwrap()),
        ("dictdb_log_1_000000.log.bak", |path| fs::write(path, "").unwrap()),
        ("dictdb_log_01_000000.log", |path| fs::write(path, "").unwrap()),
    ];
    for (at, (name, make)) in kinds.into_iter().enumerate() {
        let dir = place.path().join(at.to_string());
        fs::create_dir(&dir).unwrap();
        make(&dir.join(name));
        unchanged(&dir, || {
            for opened in [options().open(&dir), options().open_read_only(&dir)] {
                match opened {
                    Err(refused @ Error::NotAStore { .. }) => assert!(refused.to_string().contains(name), "{refused}"),
                    other => panic!("{name}: {other:?}"),
                }
            }
        });
    }
}

#[test]
fn what_stands_where_the_directory_or_its_lock_should_be_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "a file").unwrap();
    let locked = place.path().join("locked");
    fs::create_dir_all(locked.join(LOCK_FILE)).unwrap();
    unchanged(place.path(), || {
        for dir in [&file, &file.join("below")] {
            for opened in [options().open(dir), options().open_read_only(dir)] {
                match opened {
                    Err(Error::Io { path, .. }) => assert_eq!(&path, dir),
                    other => panic!("{other:?}"),
                }
            }
        }
        let refused = options().open(&locked).unwrap_err();
        assert!(matches!(&refused, Error::Io { op: "lock", .. }), "{refused:?}");
    });
}

#[test]
fn missing_directories_are_made_by_open_and_not_by_looking() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("a/b/c");
    unchanged(place.path(), || match options().open_read_only(&dir) {
        Err(Error::Io { source, path, .. }) => {
            assert_eq!((source.kind(), path), (std::io::ErrorKind::NotFound, dir.clone()))
        }
        other => panic!("{other:?}"),
    });
    let db = options().open(&dir).unwrap();
    insert(&db, 0..1);
    drop(db);
    assert_eq!(options().open(&dir).unwrap().table("t").unwrap().len().unwrap(), 1);
}

#[test]
fn opening_writes_nothing_but_the_lock_file() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    drop(options().open(&dir).unwrap());
    assert_eq!(contents(&dir).into_keys().collect::<Vec<_>>(), [dir.join(LOCK_FILE)]);
    store(&dir);
    for unclean in [false, true] {
        if unclean {
            insert(&options().open(&dir).unwrap(), 10..20);
        }
        drop(unchanged(&dir, || options().open(&dir).unwrap()));
        unchanged(&dir, || {
            options().open_read_only(&dir).unwrap();
        });
    }
}

#[test]
fn looking_at_a_store_changes_no_byte_and_takes_no_lock() {
    let place = tempfile::tempdir().unwrap();
    let (empty, dir) = (place.path().join("empty"), place.path().join("data"));
    fs::create_dir(&empty).unwrap();
    unchanged(&empty, || {
        let db = options().open_read_only(&empty).unwrap();
        assert_eq!((db.seq().get(), db.table_names().len()), (0, 0));
    });

    let digest = store(&dir);
    fs::remove_file(dir.join(LOCK_FILE)).unwrap();
    unchanged(&dir, || {
        let db = options().open_read_only(&dir).unwrap();
        let report = db.open_report().unwrap();
        assert!(report.read_only && report.clean && !report.to_string().contains("is open"), "{report}");
        assert_eq!(db.digest(), digest);
        let table = db.table("t").unwrap();
        let writes: [Result<(), Error>; 6] = [
            table.insert(record! { "id": 99 }).map(drop),
            db.transaction(|tx| tx.table("t")?.insert(record! { "id": 99 })).map(drop),
            db.create_table("u", "id").map(drop),
            db.drop_table("t"),
            db.checkpoint().map(drop),
            db.transaction(|_| Ok::<_, Error>(())),
        ];
        for (at, write) in writes.into_iter().enumerate() {
            assert!(matches!(write, Err(Error::ReadOnly)), "{at}: {write:?}");
        }
        assert_eq!(db.digest(), digest);
        // Backups of it can be made.
        let backups = place.path().join("backups");
        BackupManager::builder(&db, &backups).build().unwrap().backup_full().unwrap();
        assert_eq!(dictdb::restore(&backups).unwrap().0.digest(), digest);
        db.sync().unwrap();
        db.close().unwrap();
    });

    let live = options().open(&dir).unwrap();
    insert(&live, 10..15);
    unchanged(&dir, || {
        let db = options().open_read_only(&dir).unwrap();
        assert_eq!(db.digest(), live.digest());
    });
    insert(&live, 15..16);
    drop(live);

    // The newest segment is damaged in the middle of what was synced.
    let log = files(&dir, "dictdb_log").pop().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[150] ^= 0x40;
    fs::write(&log, bytes).unwrap();
    unchanged(&dir, || {
        let db = options().open_read_only(&dir).unwrap();
        let report = db.open_report().unwrap();
        assert!(matches!(report.damage.as_deref(), Some(Error::Corrupt { file, .. }) if *file == log), "{report}");
        assert!(report.to_string().contains("DAMAGED"), "{report}");
        assert_eq!(db.table("t").unwrap().len().unwrap(), 10, "what comes before it");
    });
    assert!(matches!(options().open(&dir), Err(Error::Corrupt { file, .. }) if file == log));
}

#[test]
fn what_a_killed_process_left_goes_with_the_next_checkpoint_and_foreign_files_never_do() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    store(dir);
    let left = [
        ".dictdb_log_1_000000.log.123-0.tmp",
        ".dictdb_snapshot_99999999999_000000.bin.123-7.tmp",
        ".dictdb_torn_5_000000.bin.9-1.tmp",
    ];
    let foreign = ["notes.txt", ".hidden.tmp", "dictdb.lock.bak", "dictdb_log_x.log", "dictdb_backup_1_000000.bin"];
    for name in left.iter().chain(&foreign) {
        fs::write(dir.join(name), name).unwrap();
    }
    fs::create_dir(dir.join("mine")).unwrap();
    fs::write(dir.join("mine/dictdb_log_1_000000.log"), "mine").unwrap();
    fs::create_dir(dir.join(".dictdb_log_2_000000.log.1-1.tmp")).unwrap();

    let db = options().open(dir).unwrap();
    assert_eq!(db.open_report().unwrap().leftovers, 3);
    assert_eq!(db.table("t").unwrap().len().unwrap(), 10);
    insert(&db, 10..20);
    assert!(left.iter().all(|name| dir.join(name).exists()));
    let report = db.checkpoint().unwrap();
    assert!(left.iter().all(|name| !dir.join(name).exists() && report.removed.contains(&dir.join(name))), "{report}");
    for round in 2..6 {
        insert(&db, round * 10..round * 10 + 10);
        db.checkpoint().unwrap();
    }
    db.close().unwrap();
    let db = options().open(dir).unwrap();
    assert_eq!(db.open_report().unwrap().leftovers, 0);
    for name in foreign {
        assert_eq!(fs::read(dir.join(name)).unwrap(), name.as_bytes());
    }
    assert_eq!(fs::read(dir.join("mine/dictdb_log_1_000000.log")).unwrap(), b"mine");
    assert!(dir.join(".dictdb_log_2_000000.log.1-1.tmp").is_dir());
}

#[test]
fn a_directory_of_nothing_but_leftovers_and_a_stale_lock_becomes_a_store() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join(LOCK_FILE), "4194304\n").unwrap();
    fs::write(place.path().join(".dictdb_log_1_000000.log.123-0.tmp"), "half a header").unwrap();
    fs::create_dir(place.path().join("lost+found")).unwrap();
    let db = options().open(place.path()).unwrap();
    assert_eq!(db.seq().get(), 0);
    insert(&db, 0..3);
    drop(db);
    let db = options().open(place.path()).unwrap();
    assert_eq!(db.table("t").unwrap().len().unwrap(), 3);
    let pid = fs::read_to_string(place.path().join(LOCK_FILE)).unwrap();
    assert_eq!(pid, format!("{}\n", std::process::id()));
}

// It wrote its next segments and snapshots into the store that stood under its path by then, whose commits went with that.
#[cfg(unix)]
#[test]
fn a_store_whose_directory_was_moved_makes_and_removes_no_file_in_the_one_that_took_its_place() {
    for commits_before in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let (data, backups) = (place.path().join("data"), place.path().join("backups"));
        let old = options().open(&data).unwrap();
        insert(&old, 0..10);
        BackupManager::new(&old, &backups).unwrap().backup_full().unwrap();
        fs::rename(&data, place.path().join("moved")).unwrap();
        RestoreOptions::new().restore_into(&backups, &data).unwrap();
        let new = options().open(&data).unwrap();
        insert(&new, 10..30);
        if commits_before {
            // The segment that is open takes them, wherever it is.
            insert(&old, 10..12);
        }
        unchanged(&data, || {
            let checkpoint = old.checkpoint().unwrap_err();
            // The segment that is open takes this whole commit.
            old.table("t").unwrap().insert_many((50..600).map(|id| record! { "id": id })).unwrap();
            let refused: [(&str, Error); 3] = [
                ("checkpoint", checkpoint),
                ("the next segment", old.table("t").unwrap().insert(record! { "id": 700 }).unwrap_err()),
                ("close", old.close().unwrap_err()),
            ];
            for (what, error) in refused {
                let text = error.to_string();
                assert!(text.contains("moved, removed or replaced") && text.contains("data"), "{what}: {text}");
            }
        });
        let digest = new.digest();
        drop(new);
        let new = options().open(&data).unwrap();
        assert_eq!((new.digest(), new.table("t").unwrap().len().unwrap()), (digest, 30));
    }
}

// With nothing to write it tidied up all the same.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_has_nothing_to_write_removes_nothing_from_another_directory_either() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let db = options().open(&data).unwrap();
    let mut all = BTreeMap::new();
    for round in 0..4 {
        insert(&db, round * 50..round * 50 + 50);
        all.extend(contents(&data));
        db.checkpoint().unwrap();
    }
    all.extend(contents(&data));
    fs::rename(&data, place.path().join("moved")).unwrap();
    fs::create_dir(&data).unwrap();
    for (file, bytes) in all {
        fs::write(file, bytes.unwrap()).unwrap();
    }
    unchanged(&data, || {
        let report = db.checkpoint().unwrap();
        let why = report.not_removed.unwrap_or_default();
        assert!(report.removed.is_empty() && why.contains("moved, removed or replaced"), "{why}");
    });
}

#[cfg(unix)]
#[test]
fn a_store_whose_directory_was_removed_takes_no_commits_beyond_its_segment() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let db = options().open(&data).unwrap();
    insert(&db, 0..10);
    fs::remove_dir_all(&data).unwrap();
    let outcome = (10..300).try_for_each(|id| db.table("t")?.insert(record! { "id": id, "text": "lost" }).map(drop));
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("moved, removed or replaced"), "{text}");
    assert!(!data.exists());
}

#[test]
fn files_of_another_store_that_were_copied_over_one_do_not_have_its_own_removed() {
    for closed in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let [ours, other] = ["ours", "other"].map(|name| place.path().join(name));
        for dir in [&ours, &other] {
            let db = options().open(dir).unwrap();
            insert(&db, 0..40);
            if *dir == ours {
                db.checkpoint().unwrap();
            }
            insert(&db, 40..42);
            if closed {
                db.close().unwrap();
            }
        }
        let before = contents(&ours);
        for file in files(&other, "dictdb_") {
            if file.file_name().unwrap() != LOCK_FILE {
                fs::copy(&file, ours.join(file.file_name().unwrap())).unwrap();
            }
        }
        let db = options().open(&ours).unwrap();
        let mut not_removed = None;
        for round in 0..3 {
            insert(&db, 100 + round * 50..150 + round * 50);
            not_removed = db.checkpoint().unwrap().not_removed;
        }
        let why = not_removed.unwrap_or_default();
        assert!(why.contains("older files are of a history that nothing ties to this store's"), "{why}");
        db.close().unwrap();
        let after = contents(&ours);
        for (file, bytes) in before.iter().filter(|(file, _)| !file.ends_with(LOCK_FILE)) {
            assert!(after.get(file) == Some(bytes), "{} is gone", file.display());
        }
    }
}

/// Copies the other's log over ours, goes on, and checkpoints until every older file is superfluous.
fn go_on_with_the_log_of(other: &Path, ours: &Path) {
    for file in files(other, "dictdb_log_") {
        fs::copy(&file, ours.join(file.file_name().unwrap())).unwrap();
    }
    let db = options().open(ours).unwrap();
    for round in 0..3 {
        insert(&db, 100 + round * 50..150 + round * 50);
        db.checkpoint().unwrap();
    }
}

/// What comes behind the damage says that it was durable.
#[test]
fn nor_where_the_first_commit_of_one_of_them_is_damaged() {
    let place = tempfile::tempdir().unwrap();
    let [ours, other] = ["ours", "other"].map(|name| place.path().join(name));
    for dir in [&ours, &other] {
        let db = options().open(dir).unwrap();
        insert(&db, 0..40);
    }
    let damaged = files(&ours, "dictdb_log_").remove(0);
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[128 + 40] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    go_on_with_the_log_of(&other, &ours);
    assert!(damaged.exists());
}

/// What is whole but for a seal of another length is no less somebody's.
#[test]
fn nor_where_the_seal_of_one_of_them_does_not_fit() {
    let place = tempfile::tempdir().unwrap();
    let [ours, other] = ["ours", "other"].map(|name| place.path().join(name));
    for dir in [&ours, &other] {
        store(dir);
    }
    let sealed = files(&ours, "dictdb_log_").pop().unwrap();
    let mut bytes = fs::read(&sealed).unwrap();
    let seal = frames(&bytes).pop().unwrap();
    bytes[seal.bytes.start + 32 + 48] ^= 1; // the bytes of the file
    repair(&mut bytes, &seal);
    fs::write(&sealed, bytes).unwrap();
    go_on_with_the_log_of(&other, &ours);
    assert!(sealed.exists());
}

/// It is another history than the one that goes on beside it, and nothing says that its name was ever durable.
#[test]
fn a_segment_of_which_nothing_was_ever_proven_goes_with_the_checkpoints_that_make_it_superfluous() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let db = options().open(&data).unwrap();
    db.create_table("t", "id").unwrap();
    drop(db);
    let first = files(&data, "dictdb_log_").remove(0);
    let db = options().open(&data).unwrap();
    assert_eq!(db.open_report().unwrap().unproven, 1);
    for round in 0..3 {
        insert(&db, 50 * round..50 * round + 50);
        let report = db.checkpoint().unwrap();
        assert_eq!(report.not_removed, None, "{report}");
    }
    assert!(!first.exists(), "{:?}", files(&data, "dictdb_"));
}
