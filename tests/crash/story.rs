//! Workloads, and what they promised when.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use dictdb::sim::{Removal, SimStorage};
use dictdb::{
    BackupFormat, BackupManager, CheckpointPolicy, DictDb, Durability, Error, ManualClock, Options, RestoreOptions,
    Storage, Timestamp, record,
};

/// What stands between a workload and the disk.
type Through = Rc<dyn Fn(&SimStorage) -> Box<dyn Storage>>;

pub(crate) const DATA: &str = "/data";
pub(crate) const BACKUPS: &str = "/backups";

/// The one table's records; `None` before it is made.
pub(crate) type Rows = Option<BTreeMap<i64, String>>;

/// What a mark in the recording says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// A commit of this seq is about to be made.
    Issued,
    /// Everything up to this seq was acknowledged as synced.
    Acked,
    /// A backup that holds this seq was acknowledged.
    BackedUp,
    /// A restore into the store's directory was acknowledged.
    Restored,
    /// The store is about to be closed.
    Closing,
    /// That was acknowledged.
    Closed,
}

const SAID: [Said; 6] = [Said::Issued, Said::Acked, Said::BackedUp, Said::Restored, Said::Closing, Said::Closed];

/// What must be there after a crash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Promised {
    pub(crate) acked: u64,
    pub(crate) issued: u64,
    pub(crate) backed_up: Option<u64>,
    pub(crate) restored: bool,
    /// How far the store was closed behind the last commit.
    pub(crate) closed: Closed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closed {
    #[default]
    No,
    /// It may be, or not.
    Perhaps,
    Yes,
}

/// One run of a workload, as it happened.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) disk: SimStorage,
    /// Where the workload goes through, for canaries; else the disk.
    pub(crate) through: Through,
    durability: Durability,
    /// The rows at each seq.
    pub(crate) states: Rc<RefCell<BTreeMap<u64, Rows>>>,
    rows: Rc<RefCell<Rows>>,
    /// Set by the first commit that failed: none may succeed behind it until the store is reopened.
    broken: Rc<RefCell<bool>>,
    /// What went wrong, where faults were planned.
    pub(crate) errors: Rc<RefCell<Vec<String>>>,
}

/// A storage behind a box, as the settings want a type.
#[derive(Debug)]
pub(crate) struct Boxed(pub(crate) Box<dyn Storage>);

impl Storage for Boxed {
    fn create_dir_all(&self, dir: &Path) -> std::io::Result<()> {
        self.0.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<dictdb::DirEntry>> {
        self.0.list(dir)
    }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn dictdb::ReadFile>> {
        self.0.open(path)
    }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn dictdb::WriteFile>> {
        self.0.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.0.rename_new(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, dir: &Path) -> Result<Box<dyn dictdb::DirLock>, dictdb::LockError> {
        self.0.lock(dir)
    }
}

/// Settings that make small files and start no thread.
pub(crate) fn options(storage: impl Storage + 'static, durability: Durability) -> Options {
    Options::new()
        .storage(storage)
        .durability(durability)
        .checkpoint(CheckpointPolicy::manual())
        .segment_bytes(600)
        .preallocate_bytes(512)
        .ring_bytes(400)
        .clock(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)))
}

pub(crate) fn rows_of(db: &DictDb) -> Rows {
    let table = db.table("t").ok()?;
    let row = |(_, record): (dictdb::Key, dictdb::Record)| {
        (record["id"].as_i64().unwrap(), record["text"].as_str().unwrap().to_owned())
    };
    Some(table.iter().unwrap().map(row).collect())
}

/// A segment goes only beside a durable snapshot. So does a snapshot, unless every segment is still there: then it is one
/// whose own publication failed.
fn removals() -> impl Fn(&Removal<'_>) -> Result<(), String> + Send + Sync + 'static {
    let begins = |path: &Path, prefix: &str| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
    let a_segment_is_gone = AtomicBool::new(false);
    move |removal| {
        let beside = removal.durable.iter().any(|path| path.starts_with(DATA) && begins(path, "dictdb_snapshot_"));
        let is_segment = begins(removal.path, "dictdb_log_");
        if is_segment {
            a_segment_is_gone.store(true, Ordering::Relaxed);
        }
        let is_needed = is_segment || begins(removal.path, "dictdb_snapshot_");
        if is_needed && !beside && a_segment_is_gone.load(Ordering::Relaxed) {
            return Err("no snapshot beside it is durable in its bytes and its name".to_owned());
        }
        Ok(())
    }
}

impl Story {
    pub(crate) fn new(durability: Durability) -> Story {
        Story::through(durability, |disk| Box::new(disk.clone()))
    }

    pub(crate) fn through(
        durability: Durability,
        through: impl Fn(&SimStorage) -> Box<dyn Storage> + 'static,
    ) -> Story {
        let disk = SimStorage::new();
        disk.set_removal_rule(removals());
        Story {
            disk,
            through: Rc::new(through),
            durability,
            states: Rc::new(RefCell::new(BTreeMap::from([(0, None)]))),
            rows: Rc::default(),
            broken: Rc::default(),
            errors: Rc::default(),
        }
    }

    fn say(&self, said: Said, seq: u64) {
        let kind = SAID.iter().position(|s| *s == said).unwrap() as u64;
        self.disk.mark(seq * SAID.len() as u64 + kind);
    }

    /// What had been promised at a crash after operation `n`.
    pub(crate) fn promised(&self, n: u64) -> Promised {
        let mut promised = Promised::default();
        for mark in self.disk.marks_before(n) {
            let (seq, kind) = (mark / SAID.len() as u64, SAID[(mark % SAID.len() as u64) as usize]);
            match kind {
                Said::Issued => (promised.issued, promised.closed) = (promised.issued.max(seq), Closed::No),
                Said::Acked => promised.acked = promised.acked.max(seq),
                Said::BackedUp => promised.backed_up = promised.backed_up.max(Some(seq)),
                Said::Restored => promised.restored = true,
                Said::Closing => promised.closed = promised.closed.max(Closed::Perhaps),
                Said::Closed => promised.closed = Closed::Yes,
            }
        }
        promised
    }

    fn fail(&self, what: &str, error: &Error) {
        self.errors.borrow_mut().push(format!("{what}: {error}"));
    }

    /// `None` where a planned fault hinders it.
    pub(crate) fn open(&self) -> Option<DictDb> {
        match options(Boxed((self.through)(&self.disk)), self.durability).open(DATA) {
            Ok(db) => {
                *self.broken.borrow_mut() = false;
                *self.rows.borrow_mut() = rows_of(&db);
                Some(db)
            }
            Err(error) => {
                self.fail("open", &error);
                None
            }
        }
    }

    fn write(&self, db: &DictDb, change: impl FnOnce(&mut Rows), write: impl FnOnce() -> Result<(), Error>) {
        let (before, seq) = (db.seq().get(), db.seq().get() + 1);
        self.say(Said::Issued, seq);
        let mut rows = self.rows.borrow().clone();
        change(&mut rows);
        let outcome = write();
        // In memory a commit whose log failed may stand or not; on disk, too.
        if db.seq().get() == seq {
            *self.rows.borrow_mut() = rows.clone();
            self.states.borrow_mut().insert(seq, rows);
        }
        match outcome {
            Ok(()) => {
                assert!(!*self.broken.borrow(), "a commit was accepted behind one that failed");
                assert_eq!(db.seq().get(), seq, "one commit more than {before}");
                if self.durability == Durability::Sync {
                    self.say(Said::Acked, seq);
                }
            }
            Err(error) => {
                assert!(matches!(error, Error::Poisoned { .. }), "{error}");
                *self.broken.borrow_mut() = true;
                self.fail("commit", &error);
            }
        }
    }

    pub(crate) fn create(&self, db: &DictDb) {
        self.write(db, |rows| *rows = Some(BTreeMap::new()), || db.create_table("t", "id").map(drop));
    }

    /// `false` where a planned fault hinders it.
    fn has_table(&self, db: &DictDb) -> bool {
        if db.table("t").is_err() {
            self.create(db);
        }
        db.table("t").is_ok()
    }

    pub(crate) fn put(&self, db: &DictDb, id: i64, bytes: usize) {
        if !self.has_table(db) {
            return;
        }
        let text = format!("{id}:{}", "x".repeat(bytes));
        let put = |rows: &mut Rows| _ = rows.get_or_insert_default().insert(id, text.clone());
        self.write(db, put, || {
            db.transaction(|tx| tx.table("t")?.upsert(record! { "id": id, "text": text.as_str() })).map(drop)
        });
    }

    /// One commit of several mutations.
    pub(crate) fn several(&self, db: &DictDb, puts: &[i64], delete: i64) {
        if !self.has_table(db) {
            return;
        }
        let text = |id: i64| format!("several {id}");
        let change = |rows: &mut Rows| {
            let rows = rows.get_or_insert_default();
            rows.extend(puts.iter().map(|id| (*id, text(*id))));
            rows.remove(&delete);
        };
        self.write(db, change, || {
            db.transaction(|tx| {
                let table = tx.table("t")?;
                for id in puts {
                    table.upsert(record! { "id": *id, "text": text(*id) })?;
                }
                table.delete(delete)?;
                Ok::<_, Error>(())
            })
        });
    }

    pub(crate) fn sync(&self, db: &DictDb) {
        let seq = db.seq().get();
        match db.sync() {
            Ok(()) => self.say(Said::Acked, seq),
            Err(error) => {
                *self.broken.borrow_mut() = true;
                self.fail("sync", &error);
            }
        }
    }

    pub(crate) fn checkpoint(&self, db: &DictDb) {
        let seq = db.seq().get();
        match db.checkpoint() {
            Ok(_) => self.say(Said::Acked, seq),
            Err(error) => self.fail("checkpoint", &error),
        }
    }

    pub(crate) fn close(&self, db: DictDb) {
        let seq = db.seq().get();
        self.say(Said::Closing, seq);
        match db.close() {
            Ok(_) => {
                self.say(Said::Acked, seq);
                self.say(Said::Closed, seq);
            }
            Err(error) => self.fail("close", &error),
        }
    }

    /// Ends without a close: what was committed is durable all the same.
    pub(crate) fn drop(&self, db: DictDb) {
        drop(db);
    }

    pub(crate) fn manager(&self, db: &DictDb, format: BackupFormat) -> Option<BackupManager> {
        let builder = BackupManager::builder(db, BACKUPS).storage(Boxed((self.through)(&self.disk)));
        match builder.file_format(format).incremental(true).build() {
            Ok(manager) => Some(manager),
            Err(error) => {
                self.fail("manager", &error);
                None
            }
        }
    }

    pub(crate) fn back_up(&self, manager: &BackupManager, full: bool) {
        match if full { manager.backup_full() } else { manager.backup_delta() } {
            Ok(report) => self.say(Said::BackedUp, report.seq.get()),
            Err(error) => self.fail("backup", &error),
        }
    }

    pub(crate) fn restore_into(&self) {
        match RestoreOptions::new().storage(Boxed((self.through)(&self.disk))).restore_into(BACKUPS, DATA) {
            Ok(_) => self.say(Said::Restored, 0),
            Err(error) => self.fail("restore_into", &error),
        }
    }
}

/// A workload: what a program does between two crashes.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) durability: Durability,
    pub(crate) play: fn(&Story),
}

/// Short ones: what they leave pending at a crash is gone through completely.
pub(crate) const WORKLOADS: [Workload; 9] = [
    Workload { name: "log", durability: Durability::Sync, play: log },
    Workload { name: "rotation", durability: Durability::Sync, play: rotation },
    Workload { name: "checkpoints", durability: Durability::Sync, play: checkpoints },
    Workload { name: "reopening", durability: Durability::Sync, play: reopening },
    Workload { name: "nothing new", durability: Durability::Sync, play: nothing_new },
    Workload { name: "syncs by hand", durability: Durability::Manual, play: by_hand },
    Workload { name: "large commits", durability: Durability::Sync, play: large },
    Workload { name: "backups", durability: Durability::Sync, play: backups },
    Workload { name: "restore into", durability: Durability::Sync, play: restored },
];

fn log(story: &Story) {
    let Some(db) = story.open() else { return };
    story.create(&db);
    for id in 0..4 {
        story.put(&db, id, 5);
    }
    story.several(&db, &[1, 7, 8], 0);
    story.close(db);
}

fn rotation(story: &Story) {
    let Some(db) = story.open() else { return };
    story.create(&db);
    for id in 0..10 {
        story.put(&db, id % 4, 150);
    }
    story.drop(db);
}

fn checkpoints(story: &Story) {
    let Some(db) = story.open() else { return };
    story.create(&db);
    for id in 0..9 {
        story.put(&db, id, 120);
        if id % 3 == 2 {
            story.checkpoint(&db);
        }
    }
    story.put(&db, 3, 20);
    story.close(db);
}

fn reopening(story: &Story) {
    for round in 0..5 {
        let Some(db) = story.open() else { continue };
        if round == 0 {
            story.create(&db);
        }
        story.put(&db, round, 40);
        story.several(&db, &[round + 10, round + 20], round + 9);
        if round == 2 {
            story.checkpoint(&db);
        }
        if round % 2 == 0 { story.drop(db) } else { story.close(db) }
    }
}

/// Histories that begin and end without a commit of their own.
fn nothing_new(story: &Story) {
    let Some(db) = story.open() else { return };
    story.put(&db, 1, 40);
    story.checkpoint(&db);
    story.put(&db, 2, 40);
    story.drop(db);
    for round in 0..3 {
        let Some(db) = story.open() else { continue };
        if round != 1 {
            story.checkpoint(&db);
        }
        story.drop(db);
    }
    let Some(db) = story.open() else { return };
    story.put(&db, 3, 40);
    story.checkpoint(&db);
    story.close(db);
    let Some(db) = story.open() else { return };
    story.checkpoint(&db);
    story.close(db);
}

fn by_hand(story: &Story) {
    let Some(db) = story.open() else { return };
    story.create(&db);
    for id in 0..4 {
        story.put(&db, id, 60);
    }
    story.sync(&db);
    for id in 0..5 {
        story.put(&db, id, 130);
    }
    story.sync(&db);
    story.put(&db, 9, 10);
    story.checkpoint(&db);
    story.put(&db, 10, 10);
    story.close(db);
}

fn large(story: &Story) {
    let Some(db) = story.open() else { return };
    story.create(&db);
    story.put(&db, 1, 1_300);
    story.put(&db, 2, 20);
    story.put(&db, 3, 400);
    story.put(&db, 4, 2_000);
    story.drop(db);
    let Some(db) = story.open() else { return };
    story.put(&db, 5, 700);
    story.close(db);
}

fn backups(story: &Story) {
    let Some(db) = story.open() else { return };
    story.create(&db);
    story.put(&db, 1, 30);
    let Some(manager) = story.manager(&db, BackupFormat::Binary) else { return };
    for id in 2..7 {
        story.back_up(&manager, id % 3 == 0);
        story.put(&db, id, 90);
        if id == 4 {
            story.checkpoint(&db);
        }
    }
    story.back_up(&manager, false);
    drop(manager);
    story.close(db);
}

fn restored(story: &Story) {
    // What the backups hold is there before the first operation.
    let source = DictDb::new();
    let table = source.create_table("t", "id").unwrap();
    story.states.borrow_mut().insert(0, None);
    for id in 1..4 {
        table.insert(record! { "id": id, "text": "kept" }).unwrap();
    }
    let files = dictdb::MemoryStorage::new();
    let manager = BackupManager::builder(&source, BACKUPS).storage(files.clone()).build().unwrap();
    manager.backup_full().unwrap();
    for path in files.paths() {
        story.disk.write(&path, files.read(&path).unwrap()).unwrap();
    }
    let rows: Rows = Some((1..4).map(|id| (id, "kept".to_owned())).collect());
    story.states.borrow_mut().insert(source.seq().get(), rows);

    story.restore_into();
    let Some(db) = story.open() else { return };
    if db.seq() != source.seq() {
        return; // a planned fault hindered the restore: this is a store of its own
    }
    for id in 5..8 {
        story.put(&db, id, 50);
    }
    story.checkpoint(&db);
    story.put(&db, 9, 50);
    story.close(db);
}
