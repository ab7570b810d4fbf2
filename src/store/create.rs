//! Directories that become a store's: made, locked, and filled with a restored state.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::file::compression::Compression;
use crate::file::name::BackupFormat;
use crate::file::sink::{Existing, Sink, create_dir, publish_checked};
use crate::file::store_name::{Entry, StoreFile};
use crate::file::{self, Origin};
use crate::history::Timestamp;
use crate::log::Stamps;
use crate::progress::{ProgressFn, Stage, Watch};
use crate::state::State;
use crate::storage::{DirEntry, DirLock, LockError, Storage};
use crate::store::directory::path;

/// Makes the directory if need be, durably, and takes its lock.
pub(crate) fn own(storage: &dyn Storage, dir: &Path) -> Result<Box<dyn DirLock>> {
    create_dir(storage, dir)?;
    storage.lock(dir).map_err(|refused| match refused {
        LockError::Held { pid } => Error::Locked { dir: dir.to_owned(), pid },
        LockError::Io(error) => Error::io("lock", dir)(error),
    })
}

/// Whether a directory is a store's, by the names in it: no place for backups.
/// One that cannot be listed is for the caller to find out about.
pub(crate) fn is_store(storage: &dyn Storage, dir: &Path) -> bool {
    storage.list(dir).unwrap_or_default().iter().any(|entry| is_of_a_store(&entry.name))
}

/// Whether a name is that of a store's file, or of its lock.
pub(crate) fn is_of_a_store(name: &OsStr) -> bool {
    matches!(Entry::of(name), Entry::File(_) | Entry::Lock)
}

/// Refuses a directory that holds anything but what an attempt to make a store in it may have left.
pub(crate) fn check_empty(storage: &dyn Storage, dir: &Path) -> Result<()> {
    let entries = entries(storage, dir)?.unwrap_or_default();
    let taken = entries.iter().find(|entry| !matches!(Entry::of(&entry.name), Entry::Lock | Entry::Leftover));
    match taken {
        None => Ok(()),
        Some(entry) => Err(Error::NotEmpty { dir: dir.to_owned(), found: entry.name.to_string_lossy().into_owned() }),
    }
}

/// Makes a store of a state that begins a history: one snapshot, whose rename is what makes the directory a store.
pub(crate) fn create(storage: &dyn Storage, dir: &Path, state: &State, progress: Option<&ProgressFn>) -> Result<()> {
    let _lock = own(storage, dir)?;
    check_empty(storage, dir)?;
    let stamp = Stamps::after(None).next(SystemClock.now())?;
    let file = path(dir, StoreFile::Snapshot, stamp);
    let created = Timestamp::from_micros(i64::try_from(stamp.get()).unwrap_or(i64::MAX));
    let origin = Origin { base: None, created };
    let watch = Watch::new(progress, Stage::WritingFull, &file);
    let fill = |sink: &mut Sink| {
        file::write_full(BackupFormat::Binary, Compression::None, sink, state.clone(), &origin, &watch)
    };
    publish_checked(storage, &file, Existing::Refuse, fill, |temp| {
        file::verify(storage, temp, &Watch::new(progress, Stage::ReadingFull, temp))
    })?;
    Ok(())
}

/// `None` where there is no such directory.
fn entries(storage: &dyn Storage, dir: &Path) -> Result<Option<Vec<DirEntry>>> {
    match storage.list(dir) {
        Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(None),
        entries => entries.map(Some).map_err(Error::io("list directory", dir)),
    }
}
