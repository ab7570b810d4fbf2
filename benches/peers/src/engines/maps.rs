//! The limits in memory: the standard library's maps behind a lock, records as postcard. No log, no history, no views.

use std::collections::{BTreeMap, HashMap};
use std::sync::RwLock;

use super::{Capability, Engine, Entry, Kind, Reader, Res, present};
use crate::data::{Touched, User, decoded, encoded, seen};

pub(crate) static BTREE: Entry = Entry {
    name: "btreemap",
    title: "BTreeMap in a RwLock",
    package: None,
    kind: Kind::Limit,
    unsynced: "`RwLock<BTreeMap<i64, Box<[u8]>>>`, no files; a view is a copy of the map",
    synced: "-",
    capabilities: &[
        Capability::Unsynced,
        Capability::Read,
        Capability::Encoded,
        Capability::Pinned,
        Capability::Scan,
        Capability::Bytes,
    ],
    open: |_, _| Ok(Box::new(Ordered(RwLock::default()))),
    missing: present,
};

pub(crate) static HASH: Entry = Entry {
    name: "hashmap",
    title: "HashMap in a RwLock",
    package: None,
    kind: Kind::Limit,
    unsynced: "`RwLock<HashMap<i64, Box<[u8]>>>`, no files",
    synced: "-",
    capabilities: &[Capability::Unsynced, Capability::Read, Capability::Encoded, Capability::Bytes],
    open: |_, _| Ok(Box::new(Hashed(RwLock::default()))),
    missing: present,
};

/// What a snapshot is to a map: a copy of all of it.
struct Copied(BTreeMap<i64, Box<[u8]>>);

const PANICKED: &str = "a writer panicked";

struct Ordered(RwLock<BTreeMap<i64, Box<[u8]>>>);

impl Engine for Ordered {
    fn insert(&self, user: &User) -> Res<()> {
        let row = encoded(user, |bytes| bytes.into())?;
        self.0.write().map_err(|_| PANICKED)?.insert(user.id, row);
        Ok(())
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let mut map = self.0.write().map_err(|_| PANICKED)?;
        for user in users {
            map.insert(user.id, encoded(user, |bytes| bytes.into())?);
        }
        Ok(())
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
    }

    fn pinned(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(Copied(self.0.read().map_err(|_| PANICKED)?.clone())))
    }
}

fn each(
    map: &BTreeMap<i64, Box<[u8]>>,
    from: i64,
    limit: usize,
    add: impl Fn(&mut Touched, &[u8]) -> Res<()>,
) -> Res<Touched> {
    let mut touched = Touched::default();
    for (_, bytes) in map.range(from..).take(limit) {
        add(&mut touched, bytes)?;
    }
    Ok(touched)
}

impl Reader for Copied {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(self.0.get(&id).map(|bytes| decoded(bytes)).transpose()?)
    }
}

impl Reader for &Ordered {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        let map = self.0.read().map_err(|_| PANICKED)?;
        Ok(map.get(&id).map(|bytes| decoded(bytes)).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.0.read().map_err(|_| PANICKED)?.get(&id).map(|bytes| seen(bytes)))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        each(&*self.0.read().map_err(|_| PANICKED)?, from, limit, Touched::decode)
    }

    fn scan_encoded(&mut self, from: i64, limit: usize) -> Res<Touched> {
        each(&*self.0.read().map_err(|_| PANICKED)?, from, limit, Touched::measure)
    }
}

struct Hashed(RwLock<HashMap<i64, Box<[u8]>>>);

impl Engine for Hashed {
    fn insert(&self, user: &User) -> Res<()> {
        let row = encoded(user, |bytes| bytes.into())?;
        self.0.write().map_err(|_| PANICKED)?.insert(user.id, row);
        Ok(())
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let mut map = self.0.write().map_err(|_| PANICKED)?;
        for user in users {
            map.insert(user.id, encoded(user, |bytes| bytes.into())?);
        }
        Ok(())
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(self))
    }
}

impl Reader for &Hashed {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        let map = self.0.read().map_err(|_| PANICKED)?;
        Ok(map.get(&id).map(|bytes| decoded(bytes)).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.0.read().map_err(|_| PANICKED)?.get(&id).map(|bytes| seen(bytes)))
    }
}
