//! The directory that a store has locked: a path, which may come to lead elsewhere.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::storage::DirLock;

/// A directory and its lock, until that is given back.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    lock: Arc<Mutex<Option<Box<dyn DirLock>>>>,
}

impl Place {
    pub(crate) fn new(dir: &Path, lock: Box<dyn DirLock>) -> Place {
        Place { dir: dir.to_owned(), lock: Arc::new(Mutex::new(Some(lock))) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Refuses a path that leads to another directory than the one that is locked, or to none any more: what was made or
    /// removed there would be another store's. For whoever is about to.
    pub(crate) fn check(&self) -> Result<()> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = lock.as_ref().map_or(Ok(true), |lock| lock.is_at(&self.dir));
        match is_there {
            Ok(true) => Ok(()),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("look at", &self.dir)(error)),
            _ => {
                let moved = "the directory was moved, removed or replaced while the store was open";
                Err(Error::io("write in", &self.dir)(io::Error::new(ErrorKind::NotFound, moved)))
            }
        }
    }

    /// Whether another handle may have the directory by now.
    pub(crate) fn is_given_back(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    pub(crate) fn give_back(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
