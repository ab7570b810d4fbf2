//! A disk that crashes: for testing that a program keeps what it promised, whatever the power does.
//!
//! [`SimStorage`] is a [`Storage`](crate::Storage) in memory that tells what was written from what was synced. It
//! records every operation, gives each a number, and makes [every disk](SimStorage::images) that a crash just after
//! an operation may leave. The program is then started on each of these. It can also make any operation
//! [fail](SimStorage::fail_at), and it [watches the order](SimStorage::violations) of writes. It knows no time, no
//! threads and no chance: the same program makes the same recording, and a failure is found again by its [`ImageId`].
//!
//! ```
//! use dictdb::Storage;
//! use dictdb::sim::{Budget, SimStorage};
//! use std::{io, path::Path};
//!
//! /// Replaces the file `to`, and promises that it is durable.
//! fn publish(disk: &SimStorage, bytes: &[u8], sync_the_directory: bool) -> io::Result<()> {
//!     let mut file = disk.create(Path::new("data/note.tmp"))?;
//!     file.write_all(bytes)?;
//!     file.sync()?;
//!     disk.rename(Path::new("data/note.tmp"), Path::new("data/note"))?;
//!     if sync_the_directory {
//!         disk.sync_dir(Path::new("data"))?;
//!     }
//!     disk.mark(1); // from here on the new note is promised
//!     Ok(())
//! }
//!
//! /// The images that break the promise: the new note once it was promised, and until then the old or the new one.
//! fn broken_images(sync_the_directory: bool) -> io::Result<Vec<String>> {
//!     let disk = SimStorage::new();
//!     disk.write("data/note", *b"old")?;
//!     publish(&disk, b"newer", sync_the_directory)?;
//!     let mut broken = Vec::new();
//!     for n in disk.crash_points() {
//!         let is_promised = disk.marks_before(n).contains(&1);
//!         for image in disk.images(n, &Budget::default()) {
//!             // A program of your own is opened here, on image.storage().
//!             let note = image.storage().read("data/note")?;
//!             if note != b"newer" && (is_promised || note != b"old") {
//!                 broken.push(format!("SIM_REPRO={}\n{}", image.id(), image.describe()));
//!             }
//!         }
//!     }
//!     assert_eq!(disk.violations(), [""; 0]);
//!     Ok(broken)
//! }
//!
//! assert_eq!(broken_images(true)?, [""; 0]);
//! assert!(!broken_images(false)?.is_empty(), "a rename may be lost until its directory is synced");
//! # Ok::<(), io::Error>(())
//! ```
//!
//! # What a crash leaves
//!
//! - Bytes that were synced and not written since.
//! - Of every write and change of length since the last sync of the file: all, nothing, or, of a write, its beginning or
//!   its end up to any byte. They are kept or lost each for itself, in any combination. In the place of what is lost
//!   stands a [`Fill`].
//! - Of every entry made, renamed or removed since the last [`sync_dir`](crate::Storage::sync_dir) of its directory:
//!   either, each for itself, whatever became of the file's bytes. A rename is one step: the old name or the new one. It
//!   counts for the directory of the new name. Syncing a file does not make its name durable.
//! - [`Budget`] limits how many of the combinations are made; two pending operations meet in all four of theirs at least,
//!   and a torn write meets all other entries kept and all lost.
//!
//! # What is not modelled
//!
//! - Sectors: writes tear at any byte, which is worse than what disks do; but bytes next to a write are safe.
//! - The order that a file system's journal keeps among names, lengths and bytes. It would spare the program some of
//!   these images; a program that relies on it works on some file systems only.
//! - Two torn writes in one image, or one write torn into more than two pieces.
//! - Bytes that rot, or that come back otherwise than they were read before. Change them with [`SimStorage::write`].
//! - Memory maps, hard links, symbolic links, permissions, and other processes.
//! - Time: nothing becomes durable by waiting. An image may hold anything that was not synced, so this misses nothing.

mod disk;
mod fault;
mod handles;
mod images;
mod ledger;
mod monitor;
mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fault::{Dirty, Fault, Repeat};
pub use images::{Image, ImageId, Images};
pub use monitor::Removal;
pub use plan::{Budget, Fill};

use super::{DirEntry, DirLock, LockError, ReadFile, Storage, WriteFile};
use disk::{Act, Disk, normal};
use handles::{Lock, Reader, Writer};
use ledger::{Effect, Node};

/// A disk in memory that records what is done to it. Clones are the same disk. See the [module](self).
///
/// Every method of [`Storage`] and of the handles that it returns is one operation and has a number, from 1, whether or
/// not it succeeds; only [`seek`](io::Seek::seek), [`flush`](io::Write::flush) and giving back a lock have none.
#[derive(Clone, Default)]
pub struct SimStorage {
    disk: Arc<Mutex<Disk>>,
}

impl SimStorage {
    /// An empty disk.
    pub fn new() -> SimStorage {
        SimStorage::default()
    }

    fn of(disk: Disk) -> SimStorage {
        SimStorage { disk: Arc::new(Mutex::new(disk)) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a file of these bytes at `path`, in place of the one that may be there, and the directories above it. All
    /// of it is durable at once: it is what a test finds, not what a program does.
    ///
    /// Before the first operation it has no number; later it is an operation of its own.
    ///
    /// Fails where a directory is at `path`, or a file above it.
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) -> io::Result<()> {
        self.disk().put(normal(path.as_ref()), Arc::new(bytes.into()))
    }

    /// The bytes of the file at `path`, as the process sees them. Not an operation.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let disk = self.disk();
        disk.file(&normal(path.as_ref())).map(|inode| disk.seen(inode).to_vec())
    }

    /// The paths of all files that the process sees, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        let disk = self.disk();
        let files = disk.now.names.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        files.map(|(name, _)| name.to_path_buf()).collect()
    }

    /// A new disk with all that the process sees, durable, and nothing recorded: what a clean shutdown leaves.
    pub fn settled(&self) -> SimStorage {
        let mut now = self.disk().now.clone();
        now.durable = Arc::clone(&now.names);
        now.entries.clear();
        for inode in &mut now.inodes {
            inode.durable = Arc::clone(&inode.seen);
            inode.pending.clear();
            inode.unsynced = false;
        }
        SimStorage::of(Disk::of(now))
    }

    /// How many operations there were: the number of the last one.
    pub fn op_count(&self) -> u64 {
        self.disk().op_count()
    }

    /// Records that something was promised, or begun; what, is the caller's. Not an operation.
    pub fn mark(&self, mark: u64) {
        let mut disk = self.disk();
        if !disk.is_dead {
            let after = disk.op_count();
            disk.marks.push((after, mark));
        }
    }

    /// The marks made before the disk changed after operation `n`, in order: what had been promised at the latest of
    /// the moments at which a crash leaves the images of `n`.
    pub fn marks_before(&self, n: u64) -> Vec<u64> {
        let disk = self.disk();
        let behind = (1..).zip(&disk.steps).filter(|(op, step)| *op > n && !matches!(step.effect, Effect::Nothing));
        let end = behind.map(|(op, _)| op).next().unwrap_or(u64::MAX);
        disk.marks.iter().filter(|(after, _)| *after < end).map(|(_, mark)| *mark).collect()
    }

    /// Where a crash can be told from one at an earlier operation: 0, which is before the first, and the number of
    /// each operation that changed the disk or what a crash may leave of it.
    pub fn crash_points(&self) -> Vec<u64> {
        let disk = self.disk();
        let changes = (1..).zip(&disk.steps).filter(|(_, step)| !matches!(step.effect, Effect::Nothing));
        std::iter::once(0).chain(changes.map(|(op, _)| op)).collect()
    }

    /// Every disk, within the budget, that a crash just after operation `n` may leave. The first has all that was
    /// written, the second (unless it is the same) only what was synced.
    pub fn images(&self, n: u64, budget: &Budget) -> Images {
        Images::of(&self.disk(), n, budget)
    }

    /// The image of this id, made again. The program has to have done the same operations, and the budget to be the
    /// same. `None` where there is none.
    pub fn image(&self, id: ImageId, budget: &Budget) -> Option<Image> {
        self.images(id.op, budget).at(id.index)
    }

    /// Makes the operation number `op` fail, or every one from it on. Of several faults that fit an operation, the one
    /// planned first strikes.
    pub fn fail_at(&self, op: u64, fault: Fault, repeat: Repeat) {
        self.disk().faults.plan(op, fault, repeat);
    }

    /// How many operations were struck by a fault: a test that plans one can see that it did something.
    pub fn fault_hits(&self) -> u64 {
        self.disk().faults.hits
    }

    /// Plans no more faults.
    pub fn clear_faults(&self) {
        self.disk().faults.clear();
    }

    /// Leaves room for the files to grow by this many bytes in all; what is removed or cut off comes back. A write that
    /// fits in part says so, one that does not fit at all fails with `StorageFull`, as do new files once nothing is left.
    pub fn set_space(&self, bytes: u64) {
        self.disk().space = Some(bytes);
    }

    /// The process dies: every later operation, through this disk, its clones and all open handles, fails and changes
    /// nothing. What a crash leaves of the files is in [`images`](Self::images).
    pub fn crash(&self) {
        self.disk().is_dead = true;
    }

    /// Mistakes in the order of operations, a line each, found whether or not an image shows them:
    ///
    /// - a file gets a name that does not end in `.tmp` while its bytes are not synced;
    /// - a file loses its name against the [rule](Self::set_removal_rule);
    /// - a write, a sync or a change of length through a handle on which one failed (short writes and `Interrupted` are
    ///   no failures);
    /// - a write or a change of length of a file that was removed.
    pub fn violations(&self) -> Vec<String> {
        self.disk().monitor.violations.clone()
    }

    /// Says which files may lose their names, by removal or because a rename gives the name to another; an error is a
    /// [violation](Self::violations). Must not use this disk.
    ///
    /// Without a rule of the caller's, this one holds: a log segment or a snapshot of a store goes only while another
    /// snapshot in its directory is durable, in its bytes and in its name.
    pub fn set_removal_rule(&self, rule: impl Fn(&Removal<'_>) -> Result<(), String> + Send + Sync + 'static) {
        self.disk().monitor.set_rule(rule);
    }
}

impl fmt::Debug for SimStorage {
    /// The paths, not the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimStorage").field(&self.paths()).finish()
    }
}

impl Storage for SimStorage {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk().create_dir_all(normal(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = normal(dir);
        self.disk().look(Act::List(Arc::clone(&dir)), |disk| disk.list(&dir))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let path = normal(path);
        let inode = self.disk().look(Act::Open(Arc::clone(&path)), |disk| disk.file(&path))?;
        Ok(Box::new(Reader { storage: self.clone(), inode, position: 0 }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let inode = self.disk().create(normal(path))?;
        Ok(Box::new(Writer { storage: self.clone(), inode, position: 0, has_failed: false, untold: None }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        let act = Act::Rename(Arc::clone(&from), Arc::clone(&to));
        self.disk().rename(act, from, to, Disk::refuse_directory)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        let act = Act::RenameNew(Arc::clone(&from), Arc::clone(&to));
        let refuse = |disk: &Disk, to: &Path| {
            if disk.is_taken(to) { Err(ErrorKind::AlreadyExists.into()) } else { Ok(()) }
        };
        self.disk().rename(act, from, to, refuse)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk().remove(normal(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().sync_dir(normal(dir))
    }

    /// Holds off only those who share this disk; leaves no file. A crash gives it back.
    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
        let dir = normal(dir);
        let mut disk = self.disk();
        let is_free = disk
            .look(Act::Lock(Arc::clone(&dir)), |disk| disk.require_dir(&dir).map(|()| !disk.locked.contains(&*dir)))?;
        if !is_free {
            return Err(LockError::Held { pid: Some(std::process::id()) });
        }
        disk.locked.insert(dir.to_path_buf());
        Ok(Box::new(Lock { storage: self.clone(), dir }))
    }
}
