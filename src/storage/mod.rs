//! Files: the seam between the database and the file system, and the only floor that names `std::fs`.
//!
//! [`Storage`] is what the floors above know. [`DiskStorage`] is the real thing, [`MemoryStorage`] its twin for tests;
//! one suite of promises, at the end of this file, runs over both. Errors are plain [`io::Error`]s: the callers add
//! the operation and the path.

mod disk;
mod memory;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

pub use disk::DiskStorage;
pub use memory::MemoryStorage;

/// What the database needs of a file system.
///
/// Implement it to keep backups elsewhere, or wrap a storage to make it fail where a test wants it to:
///
/// ```
/// use dictdb::{DirEntry, MemoryStorage, ReadFile, Storage, WriteFile};
/// use std::{io, path::Path};
///
/// /// A disk on which no rename succeeds.
/// #[derive(Debug)]
/// struct NoRenames(MemoryStorage);
///
/// impl Storage for NoRenames {
///     fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
///         Err(io::ErrorKind::Other.into())
///     }
///     fn rename_new(&self, _: &Path, _: &Path) -> io::Result<()> {
///         Err(io::ErrorKind::Other.into())
///     }
///     fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
///         self.0.create_dir_all(dir)
///     }
///     fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
///         self.0.list(dir)
///     }
///     fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
///         self.0.open(path)
///     }
///     fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
///         self.0.create(path)
///     }
///     fn remove(&self, path: &Path) -> io::Result<()> {
///         self.0.remove(path)
///     }
///     fn sync_dir(&self, dir: &Path) -> io::Result<()> {
///         self.0.sync_dir(dir)
///     }
/// }
///
/// let storage = NoRenames(MemoryStorage::new());
/// storage.create(Path::new("a"))?;
/// assert!(storage.rename(Path::new("a"), Path::new("b")).is_err());
/// assert!(storage.open(Path::new("a")).is_ok());
/// # Ok::<(), io::Error>(())
/// ```
///
/// # What an implementation promises
/// 1. A method that returns an error has left the files as they were, but for bytes written to a file that
///    [`create`](Self::create) returned.
/// 2. After [`WriteFile::sync`] returns Ok the file's bytes survive a crash; after [`sync_dir`](Self::sync_dir)
///    returns Ok, so do the directory's names: created, renamed and removed.
/// 3. [`rename`](Self::rename) and [`rename_new`](Self::rename_new) are atomic: after a crash the target is what it
///    was, or all of the source.
/// 4. The kinds of errors that the methods name. Others are free.
///
/// An empty directory path is the current directory, as it comes out of [`Path::parent`].
pub trait Storage: Send + Sync + Debug {
    /// Creates `dir` and what is missing above it. Ok where it is there already.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The entries of `dir`, in no order, without `.` and `..`. `NotFound` without the directory, `NotADirectory`
    /// where it is something else.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Opens a file to read it from its beginning. `NotFound` without it; a directory, or anything else that is not
    /// a file, is an error here and not at the first read.
    ///
    /// The reader stays with this file when its name goes to another one, or goes.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Creates an empty file to write it. `AlreadyExists` where the name is taken, whatever bears it; `NotFound`
    /// without the directory.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Gives the file `from` the name `to`, atomically, in place of the file that may bear it. `NotFound` without
    /// `from` or without the directory of `to`. Directories are not renamed.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// As [`rename`](Self::rename), but `AlreadyExists` where `to` is taken. A file that somebody else puts there at
    /// the same moment is never replaced. After an error `from` is where it was.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file. `NotFound` without it; an error for a directory.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable, so far as the file system can. `NotFound` without the directory.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name within the directory.
    pub name: OsString,
    /// The bytes of a file, 0 for everything else.
    pub len: u64,
    /// Whether it is a file: not a directory, not a symbolic link (wherever that leads), not a device.
    pub is_file: bool,
}

/// A file being read.
pub trait ReadFile: Read + Seek + Send {
    /// The bytes of the file, from its beginning to its end.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A file being written. It buffers nothing: callers write large pieces, or wrap it in a [`std::io::BufWriter`].
pub trait WriteFile: Write + Send {
    /// Makes all that was written durable: the bytes and the length, on the device.
    ///
    /// After an error nothing is known about what was written, and another try proves nothing: systems forget the
    /// pages that they failed to write (Rebello et al., "Can Applications Recover from fsync Failures?", ATC'20).
    fn sync(&mut self) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, SeekFrom};

    use super::*;

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
            [
                DirEntry { name: "a".into(), len: 5, is_file: true },
                DirEntry { name: "d".into(), len: 0, is_file: false },
            ]
        );
        assert_eq!(names(storage, &dir.join("d")), ["e", "inside"]);
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
}
