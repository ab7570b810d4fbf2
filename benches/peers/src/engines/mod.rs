//! Every store that is measured, behind one trait. A workload knows nothing else.

use std::path::Path;

use crate::data::{Touched, User};

pub(crate) mod dctdb;
pub(crate) mod dictdb;
mod fjall;
mod lmdb;
mod maps;
#[cfg(feature = "logs")]
mod okaywal;
#[cfg(feature = "logs")]
mod raft_engine;
mod raw;
mod redb;
mod redis;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;
mod sqlite;

pub(crate) type Res<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What a commit's `Ok` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing about the disk.
    Unsynced,
    /// Written and synced.
    Synced,
}

/// What an engine can do; a workload runs where its needs are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Commits that do not wait for the disk.
    Unsynced,
    /// Commits that do.
    Synced,
    /// Reads by key.
    Read,
    /// Reads that hand out a record's bytes, without making the struct of them.
    Encoded,
    /// Reads of many keys in one view of the data.
    Pinned,
    /// Scans in key order.
    Scan,
    /// A full backup while writers go on.
    Backup,
    /// A backup of what changed since the one before.
    Incremental,
    /// A directory that another process opens.
    Reopen,
    /// Holds records in this process, or in files of its own: its bytes can be counted.
    Bytes,
    /// Full backups as JSON, and deltas: what DictDB for Python does.
    Json,
    /// Full backups that are compressed where that is asked for.
    Compressed,
}

pub(crate) trait Engine: Sync {
    /// Adds one record, as a commit of its own.
    fn insert(&self, user: &User) -> Res<()>;
    /// Adds records in one commit.
    fn insert_many(&self, users: &[User]) -> Res<()>;
    /// Adds a record or replaces it, as a commit of its own.
    fn put(&self, user: &User) -> Res<()> {
        self.insert(user)
    }
    /// What one thread reads through; every call sees the newest commits.
    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        unsupported("reads")
    }
    /// The same in one view of the data as of now, which it holds.
    fn pinned(&self) -> Res<Box<dyn Reader + '_>> {
        unsupported("views")
    }
    /// The state that a store at rest has: log written into the tables, tables compacted. Not measured.
    fn settle(&self) -> Res<()> {
        Ok(())
    }
    /// Writes a backup into `dir`, synced; its bytes.
    fn backup_full(&self, _dir: &Path) -> Res<u64> {
        unsupported("backups")
    }
    /// The same compressed, where a full backup is not.
    fn backup_compressed(&self, _dir: &Path) -> Res<u64> {
        unsupported("compressed backups")
    }
    /// Writes what changed since the last one into the same `dir`, synced; its bytes.
    fn backup_delta(&self, _dir: &Path) -> Res<u64> {
        unsupported("incremental backups")
    }
    /// Bytes of the log so far, where the store tells.
    fn log_bytes(&self) -> Option<u64> {
        None
    }
    /// Bytes of a snapshot made now, where the store has such a file beside its log.
    fn snapshot_bytes(&self) -> Res<Option<u64>> {
        Ok(None)
    }
    /// The process that holds the records, where it is not this one.
    fn process(&self) -> Option<u32> {
        None
    }
    fn close(self: Box<Self>) -> Res<()> {
        Ok(())
    }
    /// Closes it with files as small as its manual knows how to make them.
    fn close_small(self: Box<Self>) -> Res<()> {
        unsupported("files")
    }
}

pub(crate) trait Reader {
    fn get(&mut self, id: i64) -> Res<Option<User>>;
    /// Reads the record without making the struct of it, and looks at its bytes; how many it has.
    fn encoded(&mut self, _id: i64) -> Res<Option<usize>> {
        unsupported("reads of encoded records")
    }
    /// Decodes up to `limit` records from `from` on, in key order, and touches every value.
    fn scan(&mut self, _from: i64, _limit: usize) -> Res<Touched> {
        unsupported("ordered scans")
    }
    /// The same without decoding: the sum of the records' lengths.
    fn scan_encoded(&mut self, _from: i64, _limit: usize) -> Res<Touched> {
        unsupported("scans of encoded records")
    }
}

fn unsupported<T>(what: &str) -> Res<T> {
    Err(format!("has no {what}").into())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Store,
    /// Keeps an order of entries and nothing to read them by.
    Log,
    /// What the machine could do.
    Limit,
}

pub(crate) struct Entry {
    /// On the command line.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Its crate in the lock file.
    pub(crate) package: Option<&'static str>,
    pub(crate) kind: Kind,
    pub(crate) unsynced: &'static str,
    pub(crate) synced: &'static str,
    pub(crate) capabilities: &'static [Capability],
    pub(crate) open: fn(&Path, Promise) -> Res<Box<dyn Engine>>,
    /// Why it cannot run here.
    pub(crate) missing: fn() -> Option<String>,
}

impl Entry {
    pub(crate) fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}

pub(crate) fn present() -> Option<String> {
    None
}

pub(crate) fn all() -> Vec<&'static Entry> {
    vec![
        &dictdb::STORE,
        &dictdb::MEMORY,
        &redb::ENTRY,
        &fjall::ENTRY,
        &lmdb::ENTRY,
        &sqlite::ENTRY,
        #[cfg(feature = "rocksdb")]
        &rocksdb::ENTRY,
        &sled::ENTRY,
        &redis::ENTRY,
        #[cfg(feature = "logs")]
        &raft_engine::ENTRY,
        #[cfg(feature = "logs")]
        &okaywal::ENTRY,
        &maps::BTREE,
        &maps::HASH,
        &raw::ENTRY,
        &dctdb::ENTRY,
    ]
}

pub(crate) fn by_name(name: &str) -> Option<&'static Entry> {
    all().into_iter().find(|entry| entry.name == name)
}

/// Bytes of all files below `dir`, as allocated to them.
pub(crate) fn bytes_on_disk(dir: &Path) -> Res<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            // A background thread removed it meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e.into()),
        };
        bytes += if meta.is_dir() { bytes_on_disk(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(bytes)
}
