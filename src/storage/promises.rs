//! What every storage promises, as tests over each of them.

use std::io::{ErrorKind, SeekFrom};

use std::io::{self, Read, Seek, Write};
use std::path::Path;

use super::{DirEntry, LOCK_FILE, LockError, Storage};

/// Each promise becomes a test over each backend, with a fresh directory.
macro_rules! promises {
    ($($promise:ident)*) => {
        mod on_disk {
            $(#[test]
            fn $promise() {
                let dir = tempfile::tempdir().unwrap();
                super::$promise(&crate::storage::DiskStorage, dir.path());
            })*
        }
        mod in_memory {
            $(#[test]
            fn $promise() {
                let storage = crate::storage::MemoryStorage::new();
                let dir = std::path::Path::new("/data");
                crate::storage::Storage::create_dir_all(&storage, dir).unwrap();
                super::$promise(&storage, dir);
            })*
        }
        #[cfg(feature = "sim")]
        mod in_simulation {
            $(#[test]
            fn $promise() {
                let storage = crate::storage::sim::SimStorage::new();
                let dir = std::path::Path::new("/data");
                crate::storage::Storage::create_dir_all(&storage, dir).unwrap();
                super::$promise(&storage, dir);
            })*
        }
    };
}

promises! {
    what_is_written_is_read_back
    a_reader_seeks_as_in_any_file
    a_reader_keeps_its_file_when_the_name_goes_to_another
    a_reader_sees_what_is_appended_behind_it
    a_writer_keeps_its_file_across_a_rename
    create_refuses_every_taken_name
    rename_replaces_the_target_and_frees_the_source
    rename_new_refuses_a_taken_name_and_leaves_both_files
    rename_new_moves_to_a_free_name
    a_rename_onto_itself_changes_nothing
    a_failed_rename_leaves_the_source
    listing_tells_files_from_directories_and_their_lengths
    removed_files_are_gone_and_directories_are_not_removed
    directories_are_made_with_all_that_is_above_them
    what_is_missing_is_not_found
    a_file_in_place_of_a_directory_is_told
    a_directory_does_not_open_as_a_file
    dots_in_a_path_lead_nowhere_else
    writes_at_an_offset_overwrite_extend_and_leave_zeros_between
    zeros_are_written_over_what_is_there_and_behind_it_and_writing_goes_on_where_it_was
    a_length_that_is_set_cuts_or_fills_with_zeros
    syncs_that_are_begun_change_nothing_of_what_is_written
    a_directory_has_one_lock_and_it_comes_free_when_dropped
}

fn put(storage: &impl Storage, path: &Path, bytes: &[u8]) {
    let mut file = storage.create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync().unwrap();
}

fn get(storage: &impl Storage, path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    storage.open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn names(storage: &impl Storage, dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = storage.list(dir).unwrap().into_iter().map(|e| e.name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("should have failed"),
        Err(error) => error.kind(),
    }
}

fn what_is_written_is_read_back(storage: &impl Storage, dir: &Path) {
    let path = dir.join("a");
    put(storage, &path, b"");
    assert!(storage.open(&path).unwrap().is_empty().unwrap());
    storage.remove(&path).unwrap();

    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut file = storage.create(&path).unwrap();
    for piece in bytes.chunks(777) {
        file.write_all(piece).unwrap();
    }
    file.flush().unwrap();
    file.sync().unwrap();
    drop(file);
    storage.sync_dir(dir).unwrap();
    assert_eq!(get(storage, &path), bytes);
    assert_eq!(storage.open(&path).unwrap().len().unwrap(), 400_000);
}

fn a_reader_seeks_as_in_any_file(storage: &impl Storage, dir: &Path) {
    put(storage, &dir.join("a"), b"0123456789");
    let mut file = storage.open(&dir.join("a")).unwrap();
    let mut two = [0; 2];
    for (to, at, want) in [
        (SeekFrom::Start(3), 3, b"34"),
        (SeekFrom::End(-2), 8, b"89"),
        (SeekFrom::Current(-4), 6, b"67"),
        (SeekFrom::Current(-8), 0, b"01"),
    ] {
        assert_eq!(file.seek(to).unwrap(), at);
        file.read_exact(&mut two).unwrap();
        assert_eq!(&two, want);
    }
    assert_eq!(file.seek(SeekFrom::Start(1_000)).unwrap(), 1_000);
    assert_eq!(file.read(&mut two).unwrap(), 0, "past the end there is nothing");
    for before in [SeekFrom::Current(-1_001), SeekFrom::End(-11), SeekFrom::End(i64::MIN)] {
        assert_eq!(kind(file.seek(before)), ErrorKind::InvalidInput);
    }
    assert_eq!(file.stream_position().unwrap(), 1_000, "a failed seek moves nothing");
    assert_eq!(file.len().unwrap(), 10);
}

fn a_reader_keeps_its_file_when_the_name_goes_to_another(storage: &impl Storage, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    put(storage, &a, b"old");
    put(storage, &b, b"newer");
    let (mut old, mut newer) = (storage.open(&a).unwrap(), storage.open(&b).unwrap());
    storage.rename(&b, &a).unwrap();
    storage.remove(&a).unwrap();
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    newer.read_to_string(&mut text).unwrap();
    assert_eq!(text, "oldnewer");
    assert_eq!(old.len().unwrap(), 3);
}

fn a_reader_sees_what_is_appended_behind_it(storage: &impl Storage, dir: &Path) {
    let mut writer = storage.create(&dir.join("a")).unwrap();
    writer.write_all(b"ab").unwrap();
    let mut reader = storage.open(&dir.join("a")).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    writer.write_all(b"cd").unwrap();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abcd");
    assert_eq!(reader.len().unwrap(), 4);
}

fn a_writer_keeps_its_file_across_a_rename(storage: &impl Storage, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    let mut writer = storage.create(&a).unwrap();
    writer.write_all(b"1").unwrap();
    storage.rename(&a, &b).unwrap();
    put(storage, &a, b"another");
    writer.write_all(b"2").unwrap();
    writer.sync().unwrap();
    assert_eq!((get(storage, &a), get(storage, &b)), (b"another".to_vec(), b"12".to_vec()));
}

fn create_refuses_every_taken_name(storage: &impl Storage, dir: &Path) {
    put(storage, &dir.join("a"), b"kept");
    storage.create_dir_all(&dir.join("d")).unwrap();
    assert_eq!(kind(storage.create(&dir.join("a"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(storage.create(&dir.join("d"))), ErrorKind::AlreadyExists);
    assert_eq!(get(storage, &dir.join("a")), b"kept");
}

fn rename_replaces_the_target_and_frees_the_source(storage: &impl Storage, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    put(storage, &a, b"new");
    put(storage, &b, b"old");
    storage.rename(&a, &b).unwrap();
    assert_eq!(get(storage, &b), b"new");
    assert_eq!(names(storage, dir), ["b"]);
    storage.rename(&b, &a).unwrap();
    assert_eq!(names(storage, dir), ["a"]);
}

fn rename_new_refuses_a_taken_name_and_leaves_both_files(storage: &impl Storage, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    put(storage, &a, b"new");
    put(storage, &b, b"old");
    storage.create_dir_all(&dir.join("d")).unwrap();
    assert_eq!(kind(storage.rename_new(&a, &b)), ErrorKind::AlreadyExists);
    assert_eq!(kind(storage.rename_new(&a, &dir.join("d"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(storage.rename_new(&a, &a)), ErrorKind::AlreadyExists);
    assert_eq!((get(storage, &a), get(storage, &b)), (b"new".to_vec(), b"old".to_vec()));
    assert_eq!(names(storage, dir), ["a", "b", "d"]);
}

fn rename_new_moves_to_a_free_name(storage: &impl Storage, dir: &Path) {
    put(storage, &dir.join("a"), b"1");
    storage.rename_new(&dir.join("a"), &dir.join("b")).unwrap();
    assert_eq!(get(storage, &dir.join("b")), b"1");
    assert_eq!(names(storage, dir), ["b"]);
}

fn a_rename_onto_itself_changes_nothing(storage: &impl Storage, dir: &Path) {
    put(storage, &dir.join("a"), b"1");
    storage.rename(&dir.join("a"), &dir.join("a")).unwrap();
    assert_eq!(get(storage, &dir.join("a")), b"1");
}

fn a_failed_rename_leaves_the_source(storage: &impl Storage, dir: &Path) {
    let (a, d, nowhere) = (dir.join("a"), dir.join("d"), dir.join("none/a"));
    put(storage, &a, b"1");
    storage.create_dir_all(&d).unwrap();
    assert_eq!(kind(storage.rename(&a, &nowhere)), ErrorKind::NotFound);
    assert_eq!(kind(storage.rename_new(&a, &nowhere)), ErrorKind::NotFound);
    assert_eq!(kind(storage.rename(&a, &a.join("x"))), ErrorKind::NotADirectory);
    assert_eq!(kind(storage.rename_new(&a, &a.join("x"))), ErrorKind::NotADirectory);
    storage.rename(&a, &d).unwrap_err();
    assert_eq!(get(storage, &a), b"1");
    assert_eq!(names(storage, dir), ["a", "d"]);
}

fn listing_tells_files_from_directories_and_their_lengths(storage: &impl Storage, dir: &Path) {
    assert_eq!(storage.list(dir).unwrap(), []);
    put(storage, &dir.join("a"), b"12345");
    storage.create_dir_all(&dir.join("d/e")).unwrap();
    put(storage, &dir.join("d/inside"), b"1");
    let mut entries = storage.list(dir).unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(
        entries,
        [DirEntry { name: "a".into(), len: 5, is_file: true }, DirEntry { name: "d".into(), len: 0, is_file: false },]
    );
    assert_eq!(names(storage, &dir.join("d")), ["e", "inside"]);
    assert_eq!(storage.file_names(dir).unwrap(), ["a"]);
    assert_eq!(storage.file_names(&dir.join("d")).unwrap(), ["inside"]);
    assert_eq!(kind(storage.file_names(&dir.join("none"))), ErrorKind::NotFound);
    assert_eq!(kind(storage.file_names(&dir.join("a"))), kind(storage.list(&dir.join("a"))));
}

fn removed_files_are_gone_and_directories_are_not_removed(storage: &impl Storage, dir: &Path) {
    put(storage, &dir.join("a"), b"1");
    storage.create_dir_all(&dir.join("d")).unwrap();
    storage.remove(&dir.join("a")).unwrap();
    storage.remove(&dir.join("d")).unwrap_err();
    assert_eq!(names(storage, dir), ["d"]);
    assert_eq!(kind(storage.remove(&dir.join("a"))), ErrorKind::NotFound);
}

fn directories_are_made_with_all_that_is_above_them(storage: &impl Storage, dir: &Path) {
    let deep = dir.join("a/b/c");
    storage.create_dir_all(&deep).unwrap();
    storage.create_dir_all(&deep).unwrap();
    put(storage, &deep.join("f"), b"1");
    storage.sync_dir(&deep).unwrap();
    assert_eq!(names(storage, &dir.join("a/b")), ["c"]);
    assert_eq!(kind(storage.create_dir_all(&deep.join("f"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(storage.create_dir_all(&deep.join("f/g"))), ErrorKind::NotADirectory);
    assert_eq!(names(storage, &deep), ["f"]);
}

fn what_is_missing_is_not_found(storage: &impl Storage, dir: &Path) {
    let missing = dir.join("none");
    assert_eq!(kind(storage.open(&missing)), ErrorKind::NotFound);
    assert_eq!(kind(storage.open(&missing.join("x"))), ErrorKind::NotFound);
    assert_eq!(kind(storage.list(&missing)), ErrorKind::NotFound);
    assert_eq!(kind(storage.remove(&missing)), ErrorKind::NotFound);
    assert_eq!(kind(storage.sync_dir(&missing)), ErrorKind::NotFound);
    assert_eq!(kind(storage.create(&missing.join("x"))), ErrorKind::NotFound);
    put(storage, &dir.join("there"), b"1");
    for to in ["free", "there"] {
        assert_eq!(kind(storage.rename(&missing, &dir.join(to))), ErrorKind::NotFound);
        assert_eq!(kind(storage.rename_new(&missing, &dir.join(to))), ErrorKind::NotFound);
    }
    assert_eq!(names(storage, dir), ["there"]);
}

fn a_file_in_place_of_a_directory_is_told(storage: &impl Storage, dir: &Path) {
    let file = dir.join("a");
    put(storage, &file, b"1");
    assert_eq!(kind(storage.list(&file)), ErrorKind::NotADirectory);
    assert_eq!(kind(storage.sync_dir(&file)), ErrorKind::NotADirectory);
    assert_eq!(kind(storage.create(&file.join("x"))), ErrorKind::NotADirectory);
    assert_eq!(kind(storage.open(&file.join("x"))), ErrorKind::NotADirectory);
    assert_eq!(kind(storage.open(&file.join("x/y"))), ErrorKind::NotADirectory);
    assert_eq!(kind(storage.remove(&file.join("x"))), ErrorKind::NotADirectory);
}

fn a_directory_does_not_open_as_a_file(storage: &impl Storage, dir: &Path) {
    assert_eq!(kind(storage.open(dir)), ErrorKind::IsADirectory);
}

fn dots_in_a_path_lead_nowhere_else(storage: &impl Storage, dir: &Path) {
    storage.create_dir_all(&dir.join("d")).unwrap();
    put(storage, &dir.join("./d/../a"), b"1");
    assert_eq!(get(storage, &dir.join("d/./../a")), b"1");
    assert_eq!(names(storage, &dir.join("d/..")), ["a", "d"]);
}

fn writes_at_an_offset_overwrite_extend_and_leave_zeros_between(storage: &impl Storage, dir: &Path) {
    let path = dir.join("a");
    let mut file = storage.create(&path).unwrap();
    file.write_all(b"0123456789").unwrap();
    file.write_all_at(b"ab", 3).unwrap();
    file.write_all_at(b"cd", 12).unwrap();
    file.sync_data().unwrap();
    assert_eq!(get(storage, &path), b"012ab56789\0\0cd");
    file.write_all(b"XY").unwrap();
    assert_eq!(get(storage, &path), b"012ab56789XYcd", "Write goes on where it was");
    file.write_all_at(b"", 100).unwrap();
    assert_eq!(get(storage, &path).len(), 14);
}

fn zeros_are_written_over_what_is_there_and_behind_it_and_writing_goes_on_where_it_was(
    storage: &impl Storage,
    dir: &Path,
) {
    for (n, (from, to)) in [(0, 0), (3, 9), (5, 5_000), (4_096, 300_000), (9, 3)].into_iter().enumerate() {
        let path = dir.join(n.to_string());
        let mut file = storage.create(&path).unwrap();
        file.write_all(&[7; 6_000]).unwrap();
        file.write_zeros(from..to).unwrap();
        file.write_all(&[8; 10]).unwrap();
        drop(file);
        let mut expected = vec![7; 6_000];
        expected.resize(expected.len().max(to as usize), 0);
        expected.get_mut(from as usize..to as usize).unwrap_or_default().fill(0);
        expected.resize(expected.len().max(6_010), 0);
        expected[6_000..6_010].fill(8);
        assert!(get(storage, &path) == expected, "{from}..{to}");
    }
}

fn a_length_that_is_set_cuts_or_fills_with_zeros(storage: &impl Storage, dir: &Path) {
    let path = dir.join("a");
    let mut file = storage.create(&path).unwrap();
    file.write_all(b"0123456789").unwrap();
    file.set_len(4).unwrap();
    assert_eq!(get(storage, &path), b"0123");
    file.set_len(6).unwrap();
    file.sync().unwrap();
    assert_eq!(get(storage, &path), b"0123\0\0");
}

fn a_directory_has_one_lock_and_it_comes_free_when_dropped(storage: &impl Storage, dir: &Path) {
    storage.create_dir_all(&dir.join("d")).unwrap();
    let held = storage.lock(dir).unwrap();
    let other = storage.lock(&dir.join("d")).unwrap();
    for _ in 0..2 {
        match storage.lock(&dir.join("d/..")) {
            Err(LockError::Held { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
    }
    // Removing the file that names the holder gives the lock to nobody else.
    let _ = storage.remove(&dir.join(LOCK_FILE));
    assert!(matches!(storage.lock(dir), Err(LockError::Held { .. })));
    drop((held, other));
    drop(storage.lock(dir).unwrap());
    drop(storage.lock(dir).unwrap());
    match storage.lock(&dir.join("none")) {
        Err(LockError::Io(error)) => assert_eq!(error.kind(), ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
}

fn syncs_that_are_begun_change_nothing_of_what_is_written(storage: &impl Storage, dir: &Path) {
    let (synced, dropped) = (dir.join("a"), dir.join("b"));
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for path in [&synced, &dropped] {
        let mut file = storage.create(path).unwrap();
        file.begin_sync();
        for piece in bytes.chunks(50_000) {
            file.write_all(piece).unwrap();
            file.begin_sync();
        }
        if path == &synced {
            file.sync().unwrap();
            file.begin_sync();
            file.write_all(b"more").unwrap();
            file.sync_data().unwrap();
        }
    }
    assert!(get(storage, &synced) == [&bytes[..], b"more"].concat());
    assert!(get(storage, &dropped) == bytes, "a file that is dropped meanwhile");
}
