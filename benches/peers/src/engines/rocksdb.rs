//! RocksDB: a log-structured merge tree in C++.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rocksdb::backup::{BackupEngine, BackupEngineOptions};
use rocksdb::{BlockBasedOptions, Cache, DB, DBRawIterator, Env, Options, Snapshot, WriteBatch, WriteOptions};

use super::{Capability, Engine, Entry, Kind, Promise, Reader, Res, bytes_on_disk, present};
use crate::data::{Touched, User, decoded, encoded, key, seen};

pub(crate) static ENTRY: Entry = Entry {
    name: "rocksdb",
    title: "RocksDB",
    package: Some("rocksdb"),
    kind: Kind::Store,
    unsynced: "WAL on, `sync=false`, 1 GiB block cache, bloom filter of 10 bits, no compression, 2 background threads",
    synced: "WAL on, `sync=true`",
    capabilities: &[
        Capability::Unsynced,
        Capability::Synced,
        Capability::Read,
        Capability::Encoded,
        Capability::Pinned,
        Capability::Scan,
        Capability::Backup,
        Capability::Incremental,
        Capability::Reopen,
        Capability::Bytes,
    ],
    open: |dir, promise| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(1 << 30));
        blocks.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        options.increase_parallelism(2);
        let db = DB::open(&options, dir.join("rocksdb"))?;
        let mut write = WriteOptions::default();
        write.set_sync(promise == Promise::Synced);
        Ok(Box::new(Rocks { db, write, backups: Mutex::new(None) }))
    },
    missing: present,
};

struct Rocks {
    db: DB,
    write: WriteOptions,
    backups: Mutex<Option<(PathBuf, Kept)>>,
}

/// Stays open between backups, as its opening reads what is there.
struct Kept(BackupEngine);

impl Engine for Rocks {
    fn insert(&self, user: &User) -> Res<()> {
        encoded(user, |bytes| self.db.put_opt(key(user.id), bytes, &self.write))??;
        Ok(())
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let mut batch = WriteBatch::default();
        for user in users {
            encoded(user, |bytes| batch.put(key(user.id), bytes))?;
        }
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(&self.db))
    }

    fn pinned(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(self.db.snapshot()))
    }

    fn settle(&self) -> Res<()> {
        self.db.flush()?;
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn close_small(self: Box<Self>) -> Res<()> {
        self.settle()
    }

    /// `BackupEngine` with sync and a flush of the memtable: table files are copied once, later backups add new ones.
    fn backup_full(&self, dir: &Path) -> Res<u64> {
        self.backup_delta(dir)
    }

    fn backup_delta(&self, dir: &Path) -> Res<u64> {
        let mut kept = self.backups.lock().map_err(|_| "a backup panicked")?;
        if kept.as_ref().is_none_or(|(of, _)| of != dir) {
            let mut options = BackupEngineOptions::new(dir)?;
            options.set_sync(true);
            *kept = Some((dir.to_owned(), Kept(BackupEngine::open(&options, &Env::new()?)?)));
        }
        let (_, Kept(engine)) = kept.as_mut().ok_or("no backup engine")?;
        let before = bytes_on_disk(dir)?;
        engine.create_new_backup_flush(&self.db, true)?;
        Ok(bytes_on_disk(dir)? - before)
    }
}

/// The raw iterator lends its values; the other one copies each key and value into boxes.
fn each(
    mut at: DBRawIterator<'_>,
    from: i64,
    limit: usize,
    add: impl Fn(&mut Touched, &[u8]) -> Res<()>,
) -> Res<Touched> {
    let mut touched = Touched::default();
    at.seek(key(from));
    while touched.records < limit as u64
        && let Some(value) = at.value()
    {
        add(&mut touched, value)?;
        at.next();
    }
    at.status()?;
    Ok(touched)
}

impl Reader for &DB {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(self.get_pinned(key(id))?.map(|bytes| decoded(&bytes)).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.get_pinned(key(id))?.map(|bytes| seen(&bytes)))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        each(self.raw_iterator(), from, limit, Touched::decode)
    }

    fn scan_encoded(&mut self, from: i64, limit: usize) -> Res<Touched> {
        each(self.raw_iterator(), from, limit, Touched::measure)
    }
}

impl Reader for Snapshot<'_> {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(self.get_pinned(key(id))?.map(|bytes| decoded(&bytes)).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.get_pinned(key(id))?.map(|bytes| seen(&bytes)))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        each(self.raw_iterator(), from, limit, Touched::decode)
    }
}
