//! A storage that fails where a test wants it to, and a database to back up into it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dictdb::{
    BackupFormat, BackupManager, BackupManagerBuilder, DictDb, Digest, DirEntry, DirLock, LockError, MemoryStorage,
    ReadFile, RestoreOptions, RestoreReport, Storage, WriteFile, record,
};

pub(crate) const DIR: &str = "/backups";
pub(crate) const FORMATS: [BackupFormat; 2] = [BackupFormat::Binary, BackupFormat::Json];

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    CreateDir,
    List,
    Open,
    Read,
    Create,
    Write,
    Sync,
    Rename,
    Remove,
    SyncDir,
}

/// Which operations fail, counted from when the fault was set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Of one sort only, or of any.
    pub(crate) op: Option<Op>,
    /// The first to fail, from 0.
    pub(crate) at: usize,
    /// Whether all after it fail as well.
    pub(crate) forever: bool,
    pub(crate) kind: ErrorKind,
}

type Hook = Arc<dyn Fn(Op) + Send + Sync>;

#[derive(Default)]
struct Plan {
    fault: Option<Fault>,
    /// Whether what fails panics.
    panics: bool,
    /// Operations that the fault counts.
    seen: usize,
    /// Bytes that can still be written.
    space: Option<u64>,
    /// The most that one write takes.
    piece: Option<usize>,
    hook: Option<Hook>,
}

/// A [`MemoryStorage`] with faults. Clones are the same storage.
#[derive(Clone, Default)]
pub(crate) struct Faulty {
    pub(crate) files: MemoryStorage,
    plan: Arc<Mutex<Plan>>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl Faulty {
    pub(crate) fn fail(&self, fault: Fault) {
        let mut plan = self.plan.lock().unwrap();
        (plan.fault, plan.panics, plan.seen) = (Some(fault), false, 0);
    }

    /// As [`fail`](Self::fail), with a panic instead of an error.
    pub(crate) fn panic(&self, fault: Fault) {
        self.fail(fault);
        self.plan.lock().unwrap().panics = true;
    }

    pub(crate) fn fail_every(&self, op: Op, kind: ErrorKind) {
        self.fail(Fault { op: Some(op), at: 0, forever: true, kind });
    }

    pub(crate) fn space(&self, bytes: u64) {
        self.plan.lock().unwrap().space = Some(bytes);
    }

    pub(crate) fn piece(&self, bytes: usize) {
        self.plan.lock().unwrap().piece = Some(bytes);
    }

    /// Ends all faults. Gives the count of operations since the last one was set.
    pub(crate) fn heal(&self) -> usize {
        let mut plan = self.plan.lock().unwrap();
        (plan.fault, plan.space, plan.piece) = (None, None, None);
        std::mem::take(&mut plan.seen)
    }

    /// Called before each operation, without any lock held.
    pub(crate) fn hook(&self, hook: impl Fn(Op) + Send + Sync + 'static) {
        self.plan.lock().unwrap().hook = Some(Arc::new(hook));
    }

    /// Handles of this storage, the caller's own included.
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.plan)
    }

    fn step(&self, op: Op) -> io::Result<()> {
        let (failed, panics, hook) = {
            let mut plan = self.plan.lock().unwrap();
            let mut failed = None;
            if let Some(fault) = plan.fault.filter(|fault| fault.op.is_none_or(|wanted| wanted == op)) {
                let hit = if fault.forever { plan.seen >= fault.at } else { plan.seen == fault.at };
                failed = hit.then_some(fault.kind);
                plan.seen += 1;
            }
            (failed, plan.panics, plan.hook.clone())
        };
        if let Some(hook) = hook {
            hook(op);
        }
        let Some(kind) = failed else { return Ok(()) };
        assert!(!panics, "the storage panics");
        Err(kind.into())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.files.paths().iter().map(name).collect()
    }

    /// Names without those of temporary files.
    pub(crate) fn backups(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.starts_with("dictdb_")).collect()
    }
}

impl Storage for Faulty {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.step(Op::CreateDir)?;
        self.files.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.step(Op::List)?;
        self.files.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.step(Op::Open)?;
        Ok(Box::new(FaultyReader { file: self.files.open(path)?, storage: self.clone() }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.step(Op::Create)?;
        Ok(Box::new(FaultyWriter { file: self.files.create(path)?, storage: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Op::Rename)?;
        self.files.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Op::Rename)?;
        self.files.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Op::Remove)?;
        self.files.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(Op::SyncDir)?;
        self.files.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
        self.files.lock(dir)
    }
}

struct FaultyReader {
    file: Box<dyn ReadFile>,
    storage: Faulty,
}

impl Read for FaultyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.storage.step(Op::Read)?;
        let piece = self.storage.plan.lock().unwrap().piece.unwrap_or(usize::MAX).min(out.len());
        self.file.read(&mut out[..piece])
    }
}

impl Seek for FaultyReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl ReadFile for FaultyReader {
    fn len(&self) -> io::Result<u64> {
        self.storage.step(Op::Read)?;
        self.file.len()
    }
}

struct FaultyWriter {
    file: Box<dyn WriteFile>,
    storage: Faulty,
}

impl FaultyWriter {
    /// How many of `bytes` the plan lets through.
    fn admit(&self, bytes: &[u8]) -> io::Result<usize> {
        self.storage.step(Op::Write)?;
        let mut plan = self.storage.plan.lock().unwrap();
        let mut take = bytes.len().min(plan.piece.unwrap_or(usize::MAX));
        if let Some(space) = &mut plan.space {
            take = take.min(usize::try_from(*space).unwrap_or(usize::MAX));
            *space -= take as u64;
            if take == 0 && !bytes.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
        }
        Ok(take)
    }
}

impl Write for FaultyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = self.admit(bytes)?;
        self.file.write(&bytes[..take])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl WriteFile for FaultyWriter {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let take = self.admit(bytes)?;
        self.file.write_at(&bytes[..take], offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.storage.step(Op::Write)?;
        self.file.set_len(len)
    }

    fn will_sync(&mut self, bytes: std::ops::Range<u64>) {
        self.file.will_sync(bytes);
    }

    fn begin_sync(&mut self) {
        self.file.begin_sync();
    }

    fn sync(&mut self) -> io::Result<()> {
        self.storage.step(Op::Sync)?;
        self.file.sync()
    }
}

/// A database with one table of a few records.
pub(crate) fn database() -> DictDb {
    let db = DictDb::new();
    db.create_table("t", "id").unwrap();
    commit(&db);
    db
}

pub(crate) fn commit(db: &DictDb) {
    let seq = db.seq().get() as i64;
    db.table("t").unwrap().insert(record! { "at": seq, "text": format!("commit {seq}") }).unwrap();
}

/// An incremental manager that leaves the timing to the test.
pub(crate) fn builder(db: &DictDb, storage: &Faulty, format: BackupFormat) -> BackupManagerBuilder {
    BackupManager::builder(db, DIR)
        .storage(storage.clone())
        .file_format(format)
        .incremental(true)
        .min_backup_interval(Duration::ZERO)
        .backup_interval(Duration::MAX)
}

/// What the directory restores to, read without any fault.
pub(crate) fn restored(storage: &Faulty) -> (Digest, RestoreReport) {
    let (db, report) = RestoreOptions::new().storage(storage.files.clone()).restore(DIR).unwrap();
    (db.digest(), report)
}

/// A place where one thread waits for another: [`pass`](Gate::pass) tells of its arrival and waits to be let through.
#[derive(Debug)]
pub(crate) struct Gate {
    arrived: (SyncSender<()>, Mutex<Receiver<()>>),
    opened: (SyncSender<()>, Mutex<Receiver<()>>),
}

/// So that a broken promise fails its test instead of hanging it. No test waits for this to pass.
const GIVE_UP: Duration = Duration::from_secs(120);

pub(crate) fn receive<T>(from: &Receiver<T>) -> T {
    match from.recv_timeout(GIVE_UP) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("what was waited for never came"),
        Err(RecvTimeoutError::Disconnected) => panic!("who was waited for has gone"),
    }
}

impl Gate {
    pub(crate) fn new() -> Arc<Gate> {
        let channel = || {
            let (sender, receiver) = sync_channel(64);
            (sender, Mutex::new(receiver))
        };
        Arc::new(Gate { arrived: channel(), opened: channel() })
    }

    pub(crate) fn pass(&self) {
        self.arrived.0.send(()).unwrap();
        receive(&self.opened.1.lock().unwrap());
    }

    pub(crate) fn wait_for_arrival(&self) {
        receive(&self.arrived.1.lock().unwrap());
    }

    pub(crate) fn open(&self) {
        self.opened.0.send(()).unwrap();
    }
}
