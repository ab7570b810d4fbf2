//! dictdb itself, as a store and in memory, through its typed table.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use dictdb::{
    BackupFormat, BackupManager, CheckpointPolicy, Compression, DictDb, Durability, Options, TableView, TypedTable,
};

use super::{Capability, Engine, Entry, Kind, Promise, Reader, Res, present};
use crate::data::{Touched, User, seen};

pub(crate) static STORE: Entry = Entry {
    name: "dictdb",
    title: "dictdb (store)",
    package: Some("dictdb"),
    kind: Kind::Ours,
    unsynced: "`Durability::Manual`, automatic checkpoints",
    synced: "`Durability::Sync`, automatic checkpoints",
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
        Capability::Compressed,
    ],
    open: |dir, promise| {
        let durability = match promise {
            Promise::Unsynced => Durability::Manual,
            Promise::Synced => Durability::Sync,
        };
        let options = Options::new().durability(durability).checkpoint(CheckpointPolicy::automatic());
        engine(options.open(dir.join("store"))?)
    },
    missing: present,
};

pub(crate) static MEMORY: Entry = Entry {
    name: "dictdb-memory",
    title: "dictdb (memory)",
    package: Some("dictdb"),
    kind: Kind::Ours,
    unsynced: "`DictDb::new()`, no files",
    synced: "-",
    capabilities: &[
        Capability::Unsynced,
        Capability::Read,
        Capability::Encoded,
        Capability::Pinned,
        Capability::Scan,
        Capability::Backup,
        Capability::Incremental,
        Capability::Bytes,
        Capability::Json,
    ],
    open: |_, _| engine(DictDb::new()),
    missing: present,
};

/// A store whose checkpoints do not come in between: for counts, which should be the same every time.
pub(crate) fn unattended(dir: &Path) -> Res<Box<dyn Engine>> {
    engine(
        Options::new().durability(Durability::Manual).checkpoint(CheckpointPolicy::manual()).open(dir.join("store"))?,
    )
}

/// A database that was restored from the backups in `dir`, as an engine.
pub(crate) fn restored(dir: &Path) -> Res<Box<dyn Engine>> {
    engine(dictdb::restore(dir)?.0)
}

fn engine(db: DictDb) -> Res<Box<dyn Engine>> {
    if db.table("users").is_err() {
        db.create_table("users", "id")?;
    }
    let users = db.typed("users")?;
    Ok(Box::new(Dict { db, users, manager: Mutex::new(None) }))
}

struct Dict {
    db: DictDb,
    users: TypedTable<User>,
    manager: Mutex<Option<(PathBuf, BackupManager)>>,
}

impl Dict {
    fn backup(&self, dir: &Path, delta: bool, compression: Compression) -> Res<u64> {
        let mut kept = self.manager.lock().map_err(|_| "a backup panicked")?;
        if kept.as_ref().is_none_or(|(of, _)| of != dir) {
            let manager = BackupManager::builder(&self.db, dir)
                .file_format(BackupFormat::Binary)
                .compression(compression)
                .incremental(true)
                .max_deltas_before_full(u32::MAX)
                .build()?;
            *kept = Some((dir.to_owned(), manager));
        }
        let (_, manager) = kept.as_ref().ok_or("no manager")?;
        let report = if delta { manager.backup_delta()? } else { manager.backup_full()? };
        match report.promoted {
            Some(why) if delta => Err(format!("a full backup instead of a delta: {why}").into()),
            _ => Ok(report.bytes),
        }
    }
}

impl Engine for Dict {
    fn insert(&self, user: &User) -> Res<()> {
        self.users.insert(user)?;
        Ok(())
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        self.users.insert_many(users)?;
        Ok(())
    }

    fn put(&self, user: &User) -> Res<()> {
        self.users.upsert(user)?;
        Ok(())
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(&self.users))
    }

    fn pinned(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(self.db.snapshot().table("users")?))
    }

    fn settle(&self) -> Res<()> {
        if self.db.open_report().is_some() {
            self.db.checkpoint()?;
        }
        Ok(())
    }

    fn backup_full(&self, dir: &Path) -> Res<u64> {
        self.backup(dir, false, Compression::None)
    }

    fn backup_compressed(&self, dir: &Path) -> Res<u64> {
        self.backup(dir, false, Compression::Lz4)
    }

    fn backup_delta(&self, dir: &Path) -> Res<u64> {
        self.backup(dir, true, Compression::None)
    }

    fn snapshot_bytes(&self) -> Res<Option<u64>> {
        Ok(Some(self.db.checkpoint()?.bytes))
    }

    fn log_bytes(&self) -> Option<u64> {
        self.db.open_report().is_some().then(|| self.db.durability_report().log_bytes)
    }

    fn close_small(self: Box<Self>) -> Res<()> {
        self.settle()?;
        (self as Box<dyn Engine>).close()
    }

    fn close(self: Box<Self>) -> Res<()> {
        let Dict { db, users, manager } = *self;
        drop((users, manager));
        db.close()?;
        Ok(())
    }
}

impl Reader for &TypedTable<User> {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(TypedTable::get(self, id)?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.read(id, |record| seen(record.values()))?)
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        self.untyped().view()?.scan(from, limit)
    }

    fn scan_encoded(&mut self, from: i64, limit: usize) -> Res<Touched> {
        self.untyped().view()?.scan_encoded(from, limit)
    }
}

impl Reader for TableView {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        Ok(self.get_as(id)?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        Ok(self.get_ref(id).map(|record| seen(record.values())))
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        let mut touched = Touched::default();
        for user in self.refs(from..).take(limit) {
            touched.add(&user.decode()?);
        }
        Ok(touched)
    }

    fn scan_encoded(&mut self, from: i64, limit: usize) -> Res<Touched> {
        let mut touched = Touched::default();
        for user in self.refs(from..).take(limit) {
            touched.measure(user.values())?;
        }
        Ok(touched)
    }
}
