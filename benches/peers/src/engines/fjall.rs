//! fjall: a log-structured merge tree in Rust.

use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::{Capability, Engine, Entry, Kind, Promise, Reader, Res, present};
use crate::data::{Touched, User, decoded, encoded, key, seen};

pub(crate) static ENTRY: Entry = Entry {
    name: "fjall",
    title: "fjall",
    package: Some("fjall"),
    kind: Kind::Store,
    unsynced: "no `persist` (each commit reaches the system's buffers), 1 GiB cache, default compression",
    synced: "`persist(PersistMode::SyncData)` after each commit",
    capabilities: &[
        Capability::Unsynced,
        Capability::Synced,
        Capability::Read,
        Capability::Encoded,
        Capability::Pinned,
        Capability::Scan,
        Capability::Reopen,
        Capability::Bytes,
    ],
    open: |dir, promise| {
        let db = Database::builder(dir.join("fjall")).cache_size(1 << 30).open()?;
        let users = db.keyspace("users", KeyspaceCreateOptions::default)?;
        Ok(Box::new(Fjall { db, users, promise }))
    },
    missing: present,
};

struct Fjall {
    db: Database,
    users: Keyspace,
    promise: Promise,
}

impl Fjall {
    fn persist(&self) -> Res<()> {
        if self.promise == Promise::Synced {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    fn insert(&self, user: &User) -> Res<()> {
        encoded(user, |bytes| self.users.insert(key(user.id), bytes))??;
        self.persist()
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let mut batch = self.db.batch();
        for user in users {
            encoded(user, |bytes| batch.insert(&self.users, key(user.id), bytes))?;
        }
        batch.commit()?;
        self.persist()
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(&self.users))
    }

    fn pinned(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(View { view: self.db.snapshot(), users: &self.users }))
    }

    fn settle(&self) -> Res<()> {
        self.users.rotate_memtable_and_wait()?;
        self.users.major_compact()?;
        self.db.persist(PersistMode::SyncAll)?;
        Ok(())
    }

    fn close_small(self: Box<Self>) -> Res<()> {
        self.settle()?;
        (self as Box<dyn Engine>).close()
    }

    fn close(self: Box<Self>) -> Res<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}

fn touch(entries: impl Iterator<Item = Guard>, add: impl Fn(&mut Touched, &[u8]) -> Res<()>) -> Res<Touched> {
    let mut touched = Touched::default();
    for entry in entries {
        add(&mut touched, &entry.value()?)?;
    }
    Ok(touched)
}

impl Reader for &Keyspace {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(Keyspace::get(self, key(id))?.map(|bytes| decoded(&bytes)).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(Keyspace::get(self, key(id))?.map(|bytes| seen(&bytes)))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        touch(self.range(key(from)..).take(limit), Touched::decode)
    }

    fn scan_encoded(&mut self, from: i64, limit: usize) -> Res<Touched> {
        touch(self.range(key(from)..).take(limit), Touched::measure)
    }
}

struct View<'a> {
    view: Snapshot,
    users: &'a Keyspace,
}

impl Reader for View<'_> {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(self.view.get(self.users, key(id))?.map(|bytes| decoded(&bytes)).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.view.get(self.users, key(id))?.map(|bytes| seen(&bytes)))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        touch(self.view.range(self.users, key(from)..).take(limit), Touched::decode)
    }
}
