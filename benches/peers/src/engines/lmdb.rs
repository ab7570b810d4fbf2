//! LMDB through heed: a copy-on-write B+ tree in a memory map.

#![expect(unsafe_code, reason = "a memory map is undefined behaviour once somebody else changes its file: nobody does")]

use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::types::Bytes;
use heed::{CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use super::{Capability, Engine, Entry, Kind, Promise, Reader, Res, present};
use crate::data::{Touched, User, decoded, encoded, key, seen};

pub(crate) static ENTRY: Entry = Entry {
    name: "lmdb",
    title: "LMDB (heed)",
    package: Some("heed"),
    kind: Kind::Store,
    unsynced: "`WRITEMAP`, `NOSYNC`, `NOMETASYNC`",
    synced: "default flags: fdatasync at each commit",
    capabilities: &[
        Capability::Unsynced,
        Capability::Synced,
        Capability::Read,
        Capability::Encoded,
        Capability::Pinned,
        Capability::Scan,
        Capability::Backup,
        Capability::Reopen,
        Capability::Bytes,
    ],
    open: |dir, promise| {
        let path = dir.join("lmdb");
        std::fs::create_dir_all(&path)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(64);
        if promise == Promise::Unsynced {
            // SAFETY: the flags weaken durability alone; no crash is survived with this file.
            unsafe { options.flags(EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC) };
        }
        // SAFETY: the directory is this process's own, and on no network file system.
        let env = unsafe { options.open(&path)? };
        let users = env
            .create_databases_and_commit(env.write_txn()?, |opener, tx| {
                opener.create_database(tx, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok(Box::new(Lmdb { env, users, backups: AtomicU64::new(0) }))
    },
    missing: present,
};

/// Addresses, not memory.
const MAP_BYTES: usize = 32 << 30;

struct Lmdb {
    env: Env,
    users: Database<'static, Bytes, Bytes>,
    backups: AtomicU64,
}

impl Engine for Lmdb {
    fn insert(&self, user: &User) -> Res<()> {
        self.insert_many(std::slice::from_ref(user))
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let mut tx = self.env.write_txn()?;
        for user in users {
            encoded(user, |bytes| self.users.put(&mut tx, &key(user.id), bytes))??;
        }
        Ok(tx.commit()?)
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
    }

    fn pinned(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(View { tx: self.env.read_txn()?, users: self.users }))
    }

    fn settle(&self) -> Res<()> {
        Ok(self.env.force_sync()?)
    }

    fn backup_full(&self, dir: &Path) -> Res<u64> {
        let path = dir.join(format!("backup-{}", self.backups.fetch_add(1, Ordering::Relaxed)));
        let file = self.env.copy_to_path(path, CompactionOption::Disabled)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }

    /// A copy without free pages is LMDB's way to a small file.
    fn close_small(self: Box<Self>) -> Res<()> {
        let path = self.env.path().to_owned();
        let small = path.join("small");
        drop(self.env.copy_to_path(&small, CompactionOption::Enabled)?);
        (self as Box<dyn Engine>).close()?;
        std::fs::rename(small, path.join("data.mdb"))?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Res<()> {
        self.env.force_sync()?;
        let Lmdb { env, .. } = *self;
        env.prepare_for_closing().wait();
        Ok(())
    }
}

impl Reader for &Lmdb {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        let tx = self.env.read_txn()?;
        Ok(self.users.get(&tx, &key(id))?.map(decoded).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        let tx = self.env.read_txn()?;
        Ok(self.users.get(&tx, &key(id))?.map(seen))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        View { tx: self.env.read_txn()?, users: self.users }.scan(from, limit)
    }

    fn scan_encoded(&mut self, from: i64, limit: usize) -> Res<Touched> {
        View { tx: self.env.read_txn()?, users: self.users }.each(from, limit, Touched::measure)
    }
}

struct View<'a> {
    tx: RoTxn<'a, WithTls>,
    users: Database<'static, Bytes, Bytes>,
}

impl View<'_> {
    fn each(&self, from: i64, limit: usize, add: impl Fn(&mut Touched, &[u8]) -> Res<()>) -> Res<Touched> {
        let mut touched = Touched::default();
        let from = key(from);
        let range = (Bound::Included(&from[..]), Bound::Unbounded);
        for entry in self.users.range(&self.tx, &range)?.take(limit) {
            add(&mut touched, entry?.1)?;
        }
        Ok(touched)
    }
}

impl Reader for View<'_> {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(self.users.get(&self.tx, &key(id))?.map(decoded).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.users.get(&self.tx, &key(id))?.map(seen))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        self.each(from, limit, Touched::decode)
    }
}
