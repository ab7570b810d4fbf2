//! sled: a Bw-tree like index over a log.

use super::{Capability, Engine, Entry, Kind, Promise, Reader, Res, present};
use crate::data::{Touched, User, decoded, encoded, key, seen};

pub(crate) static ENTRY: Entry = Entry {
    name: "sled",
    title: "sled",
    package: Some("sled"),
    kind: Kind::Store,
    unsynced: "no flush (`flush_every_ms(None)`), 1 GiB cache",
    synced: "`flush()` after each commit (does not reach fsync: on Linux it is `sync_file_range`)",
    capabilities: &[
        Capability::Unsynced,
        Capability::Synced,
        Capability::Read,
        Capability::Encoded,
        Capability::Scan,
        Capability::Reopen,
        Capability::Bytes,
    ],
    open: |dir, promise| {
        let db = ::sled::Config::new()
            .path(dir.join("sled"))
            .cache_capacity(1 << 30)
            .mode(::sled::Mode::HighThroughput)
            .flush_every_ms(None)
            .open()?;
        Ok(Box::new(Sled { db, promise }))
    },
    missing: present,
};

struct Sled {
    db: ::sled::Db,
    promise: Promise,
}

impl Sled {
    fn flush(&self) -> Res<()> {
        if self.promise == Promise::Synced {
            self.db.flush()?;
        }
        Ok(())
    }
}

impl Engine for Sled {
    fn insert(&self, user: &User) -> Res<()> {
        encoded(user, |bytes| self.db.insert(key(user.id), bytes))??;
        self.flush()
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let mut batch = ::sled::Batch::default();
        for user in users {
            encoded(user, |bytes| batch.insert(&key(user.id), bytes))?;
        }
        self.db.apply_batch(batch)?;
        self.flush()
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(&self.db))
    }

    fn settle(&self) -> Res<()> {
        self.db.flush()?;
        Ok(())
    }

    fn close_small(self: Box<Self>) -> Res<()> {
        (self as Box<dyn Engine>).close()
    }

    fn close(self: Box<Self>) -> Res<()> {
        self.db.flush()?;
        Ok(())
    }
}

fn each(db: &::sled::Db, from: i64, limit: usize, add: impl Fn(&mut Touched, &[u8]) -> Res<()>) -> Res<Touched> {
    let mut touched = Touched::default();
    for entry in db.range(key(from)..).take(limit) {
        add(&mut touched, &entry?.1)?;
    }
    Ok(touched)
}

impl Reader for &::sled::Db {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(::sled::Tree::get(self, key(id))?.map(|bytes| decoded(&bytes)).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(::sled::Tree::get(self, key(id))?.map(|bytes| seen(&bytes)))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        each(self, from, limit, Touched::decode)
    }

    fn scan_encoded(&mut self, from: i64, limit: usize) -> Res<Touched> {
        each(self, from, limit, Touched::measure)
    }
}
