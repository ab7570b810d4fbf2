//! Names of the files of an opened store. With `name`, the only place that formats or parses a file name.
//!
//! ```text
//! dictdb_log_<seconds>_<micros>.log         a log segment
//! dictdb_snapshot_<seconds>_<micros>.bin    a checkpoint's snapshot
//! dictdb_torn_<seconds>_<micros>.bin        the torn tail of the log segment with this stamp
//! dictdb.lock                               the lock
//! .<one of the above>.<pid>-<n>.tmp         a file that is being written
//! ```

use std::ffi::OsStr;

use crate::file::name::{self, Stamp};
use crate::storage::LOCK_FILE;

/// What a file of a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum StoreFile {
    Log,
    Snapshot,
    Torn,
}

impl StoreFile {
    const ALL: [StoreFile; 3] = [StoreFile::Log, StoreFile::Snapshot, StoreFile::Torn];

    const fn affixes(self) -> (&'static str, &'static str) {
        match self {
            StoreFile::Log => ("dictdb_log_", ".log"),
            StoreFile::Snapshot => ("dictdb_snapshot_", ".bin"),
            StoreFile::Torn => ("dictdb_torn_", ".bin"),
        }
    }
}

/// The name of one file of a store, taken apart. In a store, stamps only rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StoreName {
    pub(crate) stamp: Stamp,
    pub(crate) kind: StoreFile,
}

impl StoreName {
    pub(crate) fn file_name(&self) -> String {
        let (prefix, suffix) = self.kind.affixes();
        format!("{prefix}{}{suffix}", self.stamp)
    }

    /// `None` for everything that [`file_name`](Self::file_name) does not return.
    pub(crate) fn parse(name: &OsStr) -> Option<StoreName> {
        let name = name.to_str()?;
        StoreFile::ALL.into_iter().find_map(|kind| {
            let (prefix, suffix) = kind.affixes();
            let stamp = Stamp::parse(name.strip_prefix(prefix)?.strip_suffix(suffix)?)?;
            Some(StoreName { stamp, kind })
        })
    }
}

/// What an entry of a directory is to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    File(StoreName),
    Lock,
    /// What a process that was killed left of a file that it was writing.
    Leftover,
    /// A backup, which a store does not hold.
    Backup,
    Foreign,
}

impl Entry {
    pub(crate) fn of(name: &OsStr) -> Entry {
        if let Some(name) = StoreName::parse(name) {
            Entry::File(name)
        } else if name == LOCK_FILE {
            Entry::Lock
        } else if name::temp_target(name).is_some_and(|target| StoreName::parse(OsStr::new(target)).is_some()) {
            Entry::Leftover
        } else if name::BackupName::parse(name).is_some() {
            Entry::Backup
        } else {
            Entry::Foreign
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_as_what_it_was_made_from() {
        for kind in StoreFile::ALL {
            for stamp in [0, 1, 1_795_344_629_791_450, u64::MAX].map(Stamp::new) {
                let name = StoreName { stamp, kind };
                assert_eq!(Entry::of(OsStr::new(&name.file_name())), Entry::File(name));
                assert_eq!(Entry::of(OsStr::new(&name::temp_name(&name.file_name()))), Entry::Leftover);
            }
        }
        let name = StoreName { stamp: Stamp::new(1_795_344_629_791_450), kind: StoreFile::Log };
        assert_eq!(name.file_name(), "dictdb_log_1795344629_791450.log");
    }

    #[test]
    fn names_that_only_look_like_a_stores_are_foreign() {
        for trick in [
            "",
            ".",
            "dictdb_log_1_000000.bin",
            "dictdb_snapshot_1_000000.log",
            "dictdb_log_01_000000.log",
            "dictdb_log_1_00000.log",
            "dictdb_log_+1_000000.log",
            "dictdb_log_1_000000.log~",
            "DICTDB_LOG_1_000000.log",
            "dictdb_log_1_000000.log.tmp",
            ".dictdb_log_1_000000.log.1.tmp",
            ".notes.1-0.tmp",
            "dictdb.lock~",
            "a",
        ] {
            assert_eq!(Entry::of(OsStr::new(trick)), Entry::Foreign, "{trick:?}");
        }
        assert_eq!(Entry::of(OsStr::new(LOCK_FILE)), Entry::Lock);
        assert_eq!(Entry::of(OsStr::new("dictdb_backup_1_000000.json")), Entry::Backup);
    }
}
