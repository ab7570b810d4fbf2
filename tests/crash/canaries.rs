//! Seeded mistakes: a harness that does not find them proves nothing.
//!
//! Each stands between the store and the simulated disk, and makes of the store one that has the mistake.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dictdb::sim::{Budget, SimStorage};
use dictdb::{DirEntry, DirLock, Durability, LockError, ReadFile, Storage, WriteFile};

use crate::check::{check_image, check_store};
use crate::story::{DATA, Story, WORKLOADS, options, rows_of};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// Files are never synced.
    NoSync,
    /// Directories are never synced.
    NoDirectorySync,
    /// A file is synced only after it has got its name.
    SyncAfterRename,
    /// What a snapshot makes superfluous is removed before the snapshot has its name.
    DeleteBeforePublish,
    /// A sync says Ok at once and is done before the next operation.
    AcknowledgeBeforeSync,
    /// A log is taken to end at the first frame that is not sound, whatever comes behind it.
    TruncateAtAnyBadFrame,
}

#[derive(Clone, Debug)]
struct Mistaken {
    disk: SimStorage,
    mistake: Mistake,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// Files whose sync was put off.
    put_off: BTreeMap<PathBuf, Inner>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} syncs put off", self.put_off.len())
    }
}

type Inner = Arc<Mutex<Box<dyn WriteFile>>>;

impl Mistaken {
    fn new(disk: &SimStorage, mistake: Mistake) -> Mistaken {
        Mistaken { disk: disk.clone(), mistake, shared: Arc::default() }
    }

    /// Does what was put off.
    fn catch_up(&self) {
        if self.mistake == Mistake::AcknowledgeBeforeSync {
            for file in std::mem::take(&mut self.shared.lock().unwrap().put_off).into_values() {
                file.lock().unwrap().sync().unwrap();
            }
        }
    }

    fn rename_with(
        &self,
        from: &Path,
        to: &Path,
        rename: impl FnOnce(&SimStorage, &Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        self.catch_up();
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if self.mistake == Mistake::DeleteBeforePublish && name(to).starts_with("dictdb_snapshot_") {
            let newest_log = self.disk.paths().into_iter().filter(|path| name(path).starts_with("dictdb_log_")).max();
            for path in self.disk.paths() {
                let older = name(&path).starts_with("dictdb_log_") || name(&path).starts_with("dictdb_snapshot_");
                if older && Some(&path) != newest_log.as_ref() {
                    self.disk.remove(&path)?;
                }
            }
            self.disk.sync_dir(Path::new(DATA))?;
        }
        rename(&self.disk, from, to)?;
        if self.mistake == Mistake::SyncAfterRename
            && let Some(file) = self.shared.lock().unwrap().put_off.remove(from)
        {
            file.lock().unwrap().sync()?;
        }
        Ok(())
    }
}

impl Storage for Mistaken {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.catch_up();
        self.disk.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.catch_up();
        let mut file = self.disk.open(path)?;
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if self.mistake != Mistake::TruncateAtAnyBadFrame || !is_log {
            return Ok(file);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let sound = sound_bytes(&bytes);
        bytes[sound..].fill(0);
        Ok(Box::new(Buffer(io::Cursor::new(bytes))))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.catch_up();
        let inner = Arc::new(Mutex::new(self.disk.create(path)?));
        Ok(Box::new(Writer { inner, path: path.to_owned(), storage: self.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_with(from, to, |disk, from, to| disk.rename(from, to))
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_with(from, to, |disk, from, to| disk.rename_new(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.catch_up();
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.catch_up();
        if self.mistake == Mistake::NoDirectorySync { Ok(()) } else { self.disk.sync_dir(dir) }
    }
    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
        self.disk.lock(dir)
    }
}

struct Writer {
    inner: Inner,
    path: PathBuf,
    storage: Mistaken,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.storage.catch_up();
        self.inner.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for Writer {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.storage.catch_up();
        self.inner.lock().unwrap().write_at(bytes, offset)
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.storage.catch_up();
        self.inner.lock().unwrap().set_len(len)
    }
    fn sync(&mut self) -> io::Result<()> {
        let is_temporary = self.path.extension().is_some_and(|extension| extension == "tmp");
        let put_off = match self.storage.mistake {
            Mistake::NoSync => return Ok(()),
            Mistake::AcknowledgeBeforeSync => true,
            // A segment goes on under its name, and its later syncs are in their place.
            Mistake::SyncAfterRename => is_temporary && self.storage.disk.paths().contains(&self.path),
            _ => false,
        };
        if put_off {
            self.storage.shared.lock().unwrap().put_off.insert(self.path.clone(), Arc::clone(&self.inner));
            return Ok(());
        }
        self.inner.lock().unwrap().sync()
    }
}

/// A file read as other bytes than those on the disk.
struct Buffer(io::Cursor<Vec<u8>>);

impl Read for Buffer {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Seek for Buffer {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl ReadFile for Buffer {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.get_ref().len() as u64)
    }
}

/// How many bytes at the start of a segment are its header and sound frames, by SPEC.md.
fn sound_bytes(bytes: &[u8]) -> usize {
    let mut at = 128;
    let Some(lineage) = bytes.get(16..32) else { return bytes.len() };
    let seed = crc32fast::hash(lineage);
    let crc = |bytes: &[u8]| {
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        hasher.update(bytes);
        hasher.finalize().to_le_bytes()
    };
    while let Some(header) = bytes.get(at..at + 32) {
        let length = u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize;
        let sound = crc(&header[..28]) == header[28..32]
            && bytes.get(at + 32..at + 32 + length).is_some_and(|payload| crc(payload) == header[24..28]);
        if !sound {
            break;
        }
        at += 32 + length;
    }
    at.min(bytes.len())
}

/// What the harness finds in a store with this mistake: the first thing.
fn find(mistake: Mistake) -> Option<String> {
    if mistake == Mistake::TruncateAtAnyBadFrame {
        return find_in_rot(mistake);
    }
    for workload in WORKLOADS.iter().filter(|workload| ["log", "checkpoints"].contains(&workload.name)) {
        let story = Story::through(workload.durability, move |disk| Box::new(Mistaken::new(disk, mistake)));
        (workload.play)(&story);
        if let Some(violation) = story.disk.violations().first() {
            return Some(violation.clone());
        }
        let states = story.states.borrow();
        for n in story.disk.crash_points() {
            let promised = story.promised(n);
            for image in story.disk.images(n, &Budget::small()) {
                if let Err(wrong) = check_image(&image.storage(), &promised, &states) {
                    return Some(wrong);
                }
            }
        }
    }
    None
}

/// As [`find`], of damage to a commit that was acknowledged, behind which others were.
fn find_in_rot(mistake: Mistake) -> Option<String> {
    let story = Story::new(Durability::Sync);
    let db = story.open().unwrap();
    for id in 0..4 {
        story.put(&db, id, 10);
    }
    story.drop(db);
    let promised = story.promised(story.disk.op_count());
    let path = story.disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "log")).unwrap();
    let bytes = story.disk.read(&path).unwrap();
    for at in 128..sound_bytes(&bytes) {
        let disk = story.disk.settled();
        let mut rotten = bytes.clone();
        rotten[at] ^= 1;
        disk.write(&path, rotten).unwrap();
        match options(Mistaken::new(&disk, mistake), Durability::Sync).open(DATA) {
            Err(dictdb::Error::Corrupt { .. }) => {}
            Err(error) => return Some(error.to_string()),
            // Nothing can tell the last commit's damage from a write that never completed.
            Ok(db) if db.seq().get() + 1 < promised.acked => {
                return Some(format!("seq {} of {} after byte {at} changed", db.seq(), promised.acked));
            }
            Ok(db) => assert_eq!(Some(&rows_of(&db)), story.states.borrow().get(&db.seq().get())),
        }
    }
    None
}

#[test]
fn every_seeded_mistake_is_found_and_a_store_without_one_is_not_blamed() {
    for mistake in [
        Mistake::NoSync,
        Mistake::NoDirectorySync,
        Mistake::SyncAfterRename,
        Mistake::DeleteBeforePublish,
        Mistake::AcknowledgeBeforeSync,
        Mistake::TruncateAtAnyBadFrame,
    ] {
        match find(mistake) {
            Some(found) => println!("{mistake:?} is found: {}", found.lines().next().unwrap_or_default()),
            None => panic!("{mistake:?} goes unnoticed"),
        }
    }
    assert_eq!(find(Mistake::None), None);
    assert_eq!(find_in_rot(Mistake::None), None);
}

#[test]
fn the_mistake_of_delivering_no_more_than_the_sound_bytes_is_one_only_where_there_is_damage() {
    let story = Story::new(Durability::Sync);
    (WORKLOADS[0].play)(&story);
    let last = story.disk.op_count();
    let through = Mistaken::new(&story.disk.settled(), Mistake::TruncateAtAnyBadFrame);
    let db = options(through, Durability::Sync).open(DATA).unwrap();
    assert_eq!(db.seq().get(), story.promised(last).acked);
    check_store(&story.disk.settled(), &story.promised(last), &story.states.borrow()).unwrap();
}
