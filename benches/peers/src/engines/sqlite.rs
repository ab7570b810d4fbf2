//! SQLite through rusqlite: a B-tree in one file, with a write-ahead log.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OptionalExtension};

use super::{Capability, Engine, Entry, Kind, Promise, Reader, Res, present};
use crate::data::{Touched, User, decoded, encoded, seen};

pub(crate) static ENTRY: Entry = Entry {
    name: "sqlite",
    title: "SQLite",
    package: Some("rusqlite"),
    kind: Kind::Store,
    unsynced: "`journal_mode=WAL`, `synchronous=OFF`, 1 GiB cache, prepared statements",
    synced: "`journal_mode=WAL`, `synchronous=FULL`",
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
        let path = dir.join("sqlite");
        let writer = connect(&path)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        let level = match promise {
            Promise::Unsynced => "OFF",
            Promise::Synced => "FULL",
        };
        writer.pragma_update(None, "synchronous", level)?;
        writer.execute_batch("CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, record BLOB NOT NULL)")?;
        Ok(Box::new(Sqlite { writer: Mutex::new(writer), path, backups: AtomicU64::new(0) }))
    },
    missing: present,
};

fn connect(path: &Path) -> Res<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.pragma_update(None, "cache_size", -(1 << 20))?;
    connection.pragma_update(None, "mmap_size", 1_i64 << 30)?;
    Ok(connection)
}

/// One connection writes, as SQLite has one writer at a time and a lock costs less than its retries; every reader has
/// one of its own.
struct Sqlite {
    writer: Mutex<Connection>,
    path: PathBuf,
    backups: AtomicU64,
}

const PUT: &str = "INSERT OR REPLACE INTO users (id, record) VALUES (?1, ?2)";

impl Sqlite {
    fn ask(&self, sql: &str) -> Res<()> {
        Ok(self.writer.lock().map_err(|_| "a writer panicked")?.execute_batch(sql)?)
    }
}

impl Engine for Sqlite {
    fn insert(&self, user: &User) -> Res<()> {
        let writer = self.writer.lock().map_err(|_| "a writer panicked")?;
        let mut put = writer.prepare_cached(PUT)?;
        encoded(user, |bytes| put.execute((user.id, bytes)))??;
        Ok(())
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let mut writer = self.writer.lock().map_err(|_| "a writer panicked")?;
        let tx = writer.transaction()?;
        {
            let mut put = tx.prepare_cached(PUT)?;
            for user in users {
                encoded(user, |bytes| put.execute((user.id, bytes)))??;
            }
        }
        Ok(tx.commit()?)
    }

    fn reader(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(connect(&self.path)?))
    }

    fn pinned(&self) -> Res<Box<dyn Reader + '_>> {
        let connection = connect(&self.path)?;
        connection.execute_batch("BEGIN")?;
        // A transaction begins with its first read.
        connection.query_row("SELECT count(*) FROM (SELECT 1 FROM users LIMIT 1)", (), |_| Ok(()))?;
        Ok(Box::new(connection))
    }

    fn settle(&self) -> Res<()> {
        self.ask("PRAGMA wal_checkpoint(TRUNCATE)")
    }

    fn close_small(self: Box<Self>) -> Res<()> {
        self.ask("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
    }

    fn backup_full(&self, dir: &Path) -> Res<u64> {
        let path = dir.join(format!("backup-{}", self.backups.fetch_add(1, Ordering::Relaxed)));
        let source = connect(&self.path)?;
        let mut target = Connection::open(&path)?;
        // All pages in one step: in several, every write meanwhile begins the copy anew.
        Backup::new(&source, &mut target)?.step(-1)?;
        target.close().map_err(|(_, e)| e)?;
        let file = std::fs::File::options().write(true).open(&path)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

fn each(
    connection: &Connection,
    from: i64,
    limit: usize,
    add: impl Fn(&mut Touched, &[u8]) -> Res<()>,
) -> Res<Touched> {
    let mut select = connection.prepare_cached("SELECT record FROM users WHERE id >= ?1 ORDER BY id LIMIT ?2")?;
    let mut rows = select.query((from, i64::try_from(limit)?))?;
    let mut touched = Touched::default();
    while let Some(row) = rows.next()? {
        add(&mut touched, row.get_ref(0)?.as_blob()?)?;
    }
    Ok(touched)
}

impl Reader for Connection {
    fn get(&mut self, id: i64) -> Res<Option<User>> {
        let mut select = self.prepare_cached("SELECT record FROM users WHERE id = ?1")?;
        let user = select.query_row([id], |row| Ok(decoded(row.get_ref(0)?.as_blob()?))).optional()?;
        Ok(user.transpose()?)
    }

    fn encoded(&mut self, id: i64) -> Res<Option<usize>> {
        let mut select = self.prepare_cached("SELECT record FROM users WHERE id = ?1")?;
        Ok(select.query_row([id], |row| Ok(seen(row.get_ref(0)?.as_blob()?))).optional()?)
    }

    fn scan(&mut self, from: i64, limit: usize) -> Res<Touched> {
        each(self, from, limit, Touched::decode)
    }

    fn scan_encoded(&mut self, from: i64, limit: usize) -> Res<Touched> {
        each(self, from, limit, Touched::measure)
    }
}
