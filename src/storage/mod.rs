//! Files: the seam between the database and the file system, and the only floor that names `std::fs`.
//!
//! [`Storage`] is what the floors above know. [`DiskStorage`] is the real thing, [`MemoryStorage`] its twin for tests,
//! `sim` (a feature) a disk that crashes; one suite of promises, in `promises.rs`, runs over each of them. Errors are
//! plain [`io::Error`]s: the callers add the operation and the path.

mod disk;
mod memory;
#[cfg(test)]
mod promises;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(target_os = "linux")]
mod syncer;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::path::Path;

pub use disk::DiskStorage;
pub use memory::MemoryStorage;

/// What the database needs of a file system.
///
/// Implement it to keep backups elsewhere, or wrap a storage to make it fail where a test wants it to:
///
/// ```
/// use dictdb::{DirEntry, DirLock, LockError, MemoryStorage, ReadFile, Storage, WriteFile};
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
///     fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
///         self.0.lock(dir)
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

    /// The names of those that are files, in no order. Where nobody needs their lengths a file system need not look at each
    /// of them. Errors as [`list`](Self::list), from which it is made unless overridden; a storage that wraps another should
    /// pass it on.
    fn file_names(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.list(dir)?.into_iter().filter(|entry| entry.is_file).map(|entry| entry.name).collect())
    }

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

    /// Takes the lock of `dir`, which one holder at a time can have, of this process or another. It is given back
    /// when the returned guard is dropped, or its process ends in whatever way.
    ///
    /// May leave a file [`LOCK_FILE`] in the directory, which holds the holder's process id.
    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError>;
}

/// The name of the file that [`Storage::lock`] may leave in a directory.
pub const LOCK_FILE: &str = "dictdb.lock";

/// The lock of a directory; dropping it gives it back.
pub trait DirLock: Send + Sync + Debug {
    /// Whether `dir`, under which the directory was locked, still leads to it, and not to another one: asked before files are
    /// made or removed there. `true` where the storage cannot tell.
    ///
    /// # Errors
    /// `NotFound` where it leads to nothing any more.
    fn is_at(&self, dir: &Path) -> io::Result<bool> {
        let _ = dir;
        Ok(true)
    }
}

/// Why a directory could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Somebody has the lock.
    Held {
        /// The holder's process, where it is known.
        pid: Option<u32>,
    },
    /// The lock could not be tried.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> LockError {
        LockError::Io(error)
    }
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

/// Of the memory in which the system keeps what is on its way to the disk.
pub(crate) const PAGE_BYTES: u64 = 4_096;

/// A file being written. It buffers nothing: callers write large pieces, or wrap it in a [`std::io::BufWriter`]; but a log is
/// written a commit or a few at a time.
///
/// [`Write`] appends behind what it wrote last; [`write_at`](Self::write_at) leaves that place as it is.
pub trait WriteFile: Write + Send {
    /// Writes bytes at `offset`, over what is there or behind it, and says how many were written: at least one,
    /// unless `bytes` is empty. What lies between the old end and `offset` reads as zeros.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. On an error any part of it may have been written.
    fn write_all_at(&mut self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    bytes = bytes.get(n..).unwrap_or_default();
                    offset = offset.saturating_add(n as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes zeros to these bytes of the file, which grows where they lie behind its end: room for what will be written there
    /// in small pieces, each synced. The place of [`Write`] stays. On an error any part of them may have been written. Unless
    /// overridden, as by [`DiskStorage`] on Linux, it writes 64 KiB at a time with [`write_at`](Self::write_at); a file that
    /// wraps another should pass it on.
    fn write_zeros(&mut self, bytes: Range<u64>) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = bytes.start;
        while at < bytes.end {
            let take = usize::try_from(bytes.end.saturating_sub(at)).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.write_all_at(ZEROS.get(..take).unwrap_or_default(), at)?;
            at = at.saturating_add(take as u64);
        }
        Ok(())
    }

    /// Cuts the file off at `len` bytes, or fills it up with zeros to that length.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Says that these bytes of the file, written before, will be synced soon: what is done about it while more are made
    /// makes that sync shorter. Promises nothing, and need not wait. Does nothing unless overridden; a file that wraps
    /// another should pass it on.
    fn will_sync(&mut self, _bytes: Range<u64>) {}

    /// Begins to make durable what was written so far, while the caller writes more, so that the next
    /// [`sync`](Self::sync) or [`sync_data`](Self::sync_data) finds less to do. Promises nothing, and does not wait. What fails
    /// is told by the next of these, whatever else that one finds: systems tell a failure once. Does nothing unless overridden,
    /// as by [`DiskStorage`] on Linux, where a thread does it; a file that wraps another should pass it on.
    fn begin_sync(&mut self) {}

    /// As [`sync`](Self::sync), but what is not needed to read the bytes back, such as times, may be left out.
    fn sync_data(&mut self) -> io::Result<()> {
        self.sync()
    }

    /// Makes all that was written durable: the bytes and the length, on the device.
    ///
    /// After an error nothing is known about what was written, and another try proves nothing: systems forget the
    /// pages that they failed to write (Rebello et al., "Can Applications Recover from fsync Failures?", ATC'20).
    fn sync(&mut self) -> io::Result<()>;
}
