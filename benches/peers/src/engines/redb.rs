//! redb: a copy-on-write B+ tree in one file.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use super::{Capability, Engine, Entry, Kind, Promise, Reader, Res, present};
use crate::data::{Touched, User, decoded, encoded, key, seen};

const USERS: TableDefinition<&[u8; 8], &[u8]> = TableDefinition::new("users");

pub(crate) static ENTRY: Entry = Entry {
    name: "redb",
    title: "redb",
    package: Some("redb"),
    kind: Kind::Store,
    unsynced: "`Durability::None`, 1 GiB cache",
    synced: "`Durability::Immediate`, 1 GiB cache",
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
        let durability = match promise {
            Promise::Unsynced => Durability::None,
            Promise::Synced => Durability::Immediate,
        };
        let db = Database::builder().set_cache_size(1 << 30).create(dir.join("redb"))?;
        Ok(Box::new(Redb { db, durability, backups: AtomicU64::new(0) }))
    },
    missing: present,
};

struct Redb {
    db: Database,
    durability: Durability,
    backups: AtomicU64,
}

impl Redb {
    fn write(&self, body: impl FnOnce(&WriteTransaction) -> Res<()>) -> Res<()> {
        let mut tx = self.db.begin_write()?;
        tx.set_durability(self.durability)?;
        body(&tx)?;
        Ok(tx.commit()?)
    }

    fn table(&self) -> Res<Option<ReadOnlyTable<&'static [u8; 8], &'static [u8]>>> {
        match self.db.begin_read()?.open_table(USERS) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn insert(tx: &WriteTransaction, users: &[User]) -> Res<()> {
    let mut table = tx.open_table(USERS)?;
    for user in users {
        encoded(user, |bytes| table.insert(&key(user.id), bytes).map(drop))??;
    }
    Ok(())
}

impl Engine for Redb {
    fn insert(&self, user: &User) -> Res<()> {
        self.write(|tx| insert(tx, std::slice::from_ref(user)))
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        self.write(|tx| insert(tx, users))
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(Newest(self)))
    }

    fn pinned(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(View(self.table()?.ok_or("no table")?)))
    }

    /// A commit that is durable takes those before it with it.
    fn settle(&self) -> Res<()> {
        Ok(self.db.begin_write()?.commit()?)
    }

    /// redb has no backup: everything that one read transaction sees goes into a second database, synced.
    fn backup_full(&self, dir: &Path) -> Res<u64> {
        let path = dir.join(format!("backup-{}", self.backups.fetch_add(1, Ordering::Relaxed)));
        let copy = Database::builder().set_cache_size(64 << 20).create(&path)?;
        let view = self.table()?.ok_or("no table")?;
        let tx = copy.begin_write()?;
        {
            let mut table = tx.open_table(USERS)?;
            for entry in view.iter()? {
                let (key, value) = entry?;
                table.insert(key.value(), value.value())?;
            }
        }
        tx.commit()?;
        drop(copy);
        let file = std::fs::File::options().write(true).open(&path)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }

    fn close_small(mut self: Box<Self>) -> Res<()> {
        while self.db.compact()? {}
        Ok(())
    }
}

struct Newest<'a>(&'a Redb);

impl Reader for Newest<'_> {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        match self.0.table()? {
            Some(table) => View(table).get(id),
            None => Ok(None),
        }
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        match self.0.table()? {
            Some(table) => View(table).encoded(id),
            None => Ok(None),
        }
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        match self.0.table()? {
            Some(table) => View(table).scan(from, limit),
            None => Ok(Touched::default()),
        }
    }

    fn scan_encoded(&mut self, from: i64, limit: usize) -> Res<Touched> {
        match self.0.table()? {
            Some(table) => View(table).each(from, limit, Touched::measure),
            None => Ok(Touched::default()),
        }
    }
}

struct View(ReadOnlyTable<&'static [u8; 8], &'static [u8]>);

impl View {
    fn each(&self, from: i64, limit: usize, add: impl Fn(&mut Touched, &[u8]) -> Res<()>) -> Res<Touched> {
        let mut touched = Touched::default();
        for entry in self.0.range::<&[u8; 8]>(&key(from)..)?.take(limit) {
            add(&mut touched, entry?.1.value())?;
        }
        Ok(touched)
    }
}

impl Reader for View {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        let found = self.0.get(&key(id))?;
        Ok(found.map(|bytes| decoded(bytes.value())).transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.0.get(&key(id))?.map(|bytes| seen(bytes.value())))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        self.each(from, limit, Touched::decode)
    }
}
