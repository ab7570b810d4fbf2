//! The file system in memory: the disk's twin, for tests.
//!
//! It is built as a file system is, names apart from files, so that readers and writers keep their file whatever
//! becomes of its name. A crash is not modelled here: what is written is there, synced or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirEntry, DirLock, LockError, ReadFile, Storage, WriteFile};

/// Files that live in memory. Clones are the same files; they go with the last clone, reader and writer.
///
/// It behaves as [`DiskStorage`](crate::DiskStorage) does, errors included. Relative paths have a root of their own.
///
/// ```
/// use dictdb::{MemoryStorage, Storage};
/// use std::path::Path;
///
/// let storage = MemoryStorage::new();
/// storage.write("backups/note", b"hello")?;
/// storage.rename(Path::new("backups/note"), Path::new("backups/letter"))?;
/// assert_eq!(storage.read("backups/letter")?, b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryStorage {
    nodes: Arc<Mutex<Nodes>>,
    /// Directories whose lock is held.
    locked: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl MemoryStorage {
    /// An empty one.
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    /// Puts a file of these bytes at `path`, in place of the one that may be there, and the directories above it.
    /// Whoever reads the old one goes on doing so.
    ///
    /// Fails where a directory is at `path`, or a file above it.
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) -> io::Result<()> {
        let path = normal(path.as_ref());
        let mut nodes = self.nodes();
        nodes.create_dir_all(path.parent().unwrap_or(Path::new("")))?;
        nodes.refuse_directory(&path)?;
        nodes.0.insert(path, Node::File(Arc::new(Mutex::new(bytes.into()))));
        Ok(())
    }

    /// The bytes of the file at `path`.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let bytes = self.nodes().file(&normal(path.as_ref()))?;
        Ok(lock(&bytes).clone())
    }

    /// The paths of all files, in order; directories are not among them.
    pub fn paths(&self) -> Vec<PathBuf> {
        let files = |(path, node): (&PathBuf, &Node)| matches!(node, Node::File(_)).then(|| path.clone());
        self.nodes().0.iter().filter_map(files).collect()
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        lock(&self.nodes)
    }
}

impl fmt::Debug for MemoryStorage {
    /// The paths, not the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryStorage").field(&self.paths()).finish()
    }
}

impl Storage for MemoryStorage {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.nodes().create_dir_all(&normal(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let (dir, nodes) = (normal(dir), self.nodes());
        nodes.require_dir(&dir)?;
        // Paths are ordered by their components: those below a directory come in one run behind it.
        let below = nodes.0.range::<Path, _>((Bound::Excluded(dir.as_path()), Bound::Unbounded));
        let below = below.take_while(|(path, _)| path.starts_with(&dir));
        let entry = |(path, node): (&PathBuf, &Node)| {
            let name = path.file_name()?.to_owned();
            Some(match node {
                Node::Dir => DirEntry { name, len: 0, is_file: false },
                Node::File(bytes) => DirEntry { name, len: lock(bytes).len() as u64, is_file: true },
            })
        };
        Ok(below.filter(|(path, _)| path.parent() == Some(&dir)).filter_map(entry).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(Reader { bytes: self.nodes().file(&normal(path))?, position: 0 }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let (path, mut nodes) = (normal(path), self.nodes());
        nodes.require_parent(&path)?;
        if nodes.is_taken(&path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let bytes = Bytes::default();
        nodes.0.insert(path, Node::File(Arc::clone(&bytes)));
        Ok(Box::new(Writer { bytes, position: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.nodes().rename(&normal(from), normal(to), Nodes::refuse_directory)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.nodes().rename(&normal(from), normal(to), |nodes, to| {
            if nodes.is_taken(to) { Err(ErrorKind::AlreadyExists.into()) } else { Ok(()) }
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (path, mut nodes) = (normal(path), self.nodes());
        nodes.file(&path)?;
        nodes.0.remove(&path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.nodes().require_dir(&normal(dir))
    }

    /// Holds off only those who share these files; leaves no file.
    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
        let dir = normal(dir);
        self.nodes().require_dir(&dir)?;
        if !lock(&self.locked).insert(dir.clone()) {
            return Err(LockError::Held { pid: Some(std::process::id()) });
        }
        Ok(Box::new(HeldLock { locked: Arc::clone(&self.locked), dir }))
    }
}

#[derive(Debug)]
struct HeldLock {
    locked: Arc<Mutex<BTreeSet<PathBuf>>>,
    dir: PathBuf,
}

impl DirLock for HeldLock {}

impl Drop for HeldLock {
    fn drop(&mut self) {
        lock(&self.locked).remove(&self.dir);
    }
}

/// One file, whatever its names; shared with its readers and writers.
type Bytes = Arc<Mutex<Vec<u8>>>;

enum Node {
    Dir,
    File(Bytes),
}

/// What there is, by normal path. The two roots, `/` and the empty path, are there without being listed.
#[derive(Default)]
struct Nodes(BTreeMap<PathBuf, Node>);

impl Nodes {
    fn is_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || matches!(self.0.get(path), Some(Node::Dir))
    }

    fn is_taken(&self, path: &Path) -> bool {
        path.parent().is_none() || self.0.contains_key(path)
    }

    fn file(&self, path: &Path) -> io::Result<Bytes> {
        match self.0.get(path) {
            Some(Node::File(bytes)) => Ok(Arc::clone(bytes)),
            _ if self.is_dir(path) => Err(ErrorKind::IsADirectory.into()),
            _ if self.is_below_a_file(path) => Err(ErrorKind::NotADirectory.into()),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn is_below_a_file(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|above| matches!(self.0.get(above), Some(Node::File(_))))
    }

    fn require_dir(&self, path: &Path) -> io::Result<()> {
        match self.file(path) {
            _ if self.is_dir(path) => Ok(()),
            Ok(_) => Err(ErrorKind::NotADirectory.into()),
            Err(missing) => Err(missing),
        }
    }

    fn require_parent(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.require_dir(parent))
    }

    fn refuse_directory(&self, path: &Path) -> io::Result<()> {
        if self.is_dir(path) { Err(ErrorKind::IsADirectory.into()) } else { Ok(()) }
    }

    fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        if let Some(Node::File(_)) = self.0.get(dir) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if self.is_below_a_file(dir) {
            return Err(ErrorKind::NotADirectory.into());
        }
        for above in dir.ancestors().filter(|above| above.parent().is_some()) {
            self.0.insert(above.to_owned(), Node::Dir);
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: PathBuf, check: impl Fn(&Nodes, &Path) -> io::Result<()>) -> io::Result<()> {
        let bytes = self.file(from)?;
        self.require_parent(&to)?;
        check(self, &to)?;
        self.0.remove(from);
        self.0.insert(to, Node::File(bytes));
        Ok(())
    }
}

/// Without `.` and `..`, which lead nowhere unexpected as there are no links.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = normal.pop(),
            other => normal.push(other),
        }
    }
    normal
}

/// A panic elsewhere leaves the files whole: no change here is made in two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Reader {
    bytes: Bytes,
    position: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = lock(&self.bytes);
        let position = usize::try_from(self.position).unwrap_or(usize::MAX);
        let n = bytes.get(position..).unwrap_or_default().read(buffer)?;
        self.position = self.position.saturating_add(n as u64);
        Ok(n)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => (lock(&self.bytes).len() as u64).checked_add_signed(by),
        };
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl ReadFile for Reader {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.bytes).len() as u64)
    }
}

struct Writer {
    bytes: Bytes,
    /// Where [`Write`] goes on.
    position: u64,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_at(bytes, self.position)?;
        self.position = self.position.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for Writer {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let end = start.checked_add(bytes.len()).ok_or(ErrorKind::FileTooLarge)?;
        let mut file = lock(&self.bytes);
        if !bytes.is_empty() && file.len() < end {
            file.resize(end, 0);
        }
        if let Some(place) = file.get_mut(start..end) {
            place.copy_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
        lock(&self.bytes).resize(len, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_the_same_files() {
        let storage = MemoryStorage::new();
        storage.clone().write("a/b", *b"1").unwrap();
        assert_eq!(storage.read("a/b").unwrap(), b"1");
        assert_eq!(storage.paths(), [Path::new("a/b")]);
    }

    #[test]
    fn writing_over_a_file_leaves_its_readers_the_old_one() {
        let storage = MemoryStorage::new();
        storage.write("a", *b"old").unwrap();
        let mut reader = storage.open(Path::new("a")).unwrap();
        storage.write("a", *b"new").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), storage.read("a").unwrap()), ("old", b"new".to_vec()));
    }

    #[test]
    fn writing_never_turns_a_file_into_a_directory_or_back() {
        let storage = MemoryStorage::new();
        storage.write("d/a", *b"1").unwrap();
        assert_eq!(storage.write("d", *b"2").unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(storage.write("d/a/x/y", *b"2").unwrap_err().kind(), ErrorKind::NotADirectory);
        storage.write("d/a/x", *b"2").unwrap_err();
        storage.write("", *b"2").unwrap_err();
        assert_eq!(storage.read("d").unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(storage.paths(), [Path::new("d/a")]);
    }

    #[test]
    fn both_roots_are_there_from_the_start() {
        let storage = MemoryStorage::new();
        for root in ["", ".", "/"] {
            let root = Path::new(root);
            assert_eq!(storage.list(root).unwrap(), []);
            storage.sync_dir(root).unwrap();
            storage.create_dir_all(root).unwrap();
            storage.create(&root.join("a")).unwrap();
            storage.remove(&root.join("a")).unwrap();
        }
    }

    #[test]
    fn a_neighbour_whose_name_begins_the_same_is_not_listed() {
        let storage = MemoryStorage::new();
        for path in ["/d/a", "/d-/b", "/d.x", "/dd/c", "e", "d/f"] {
            storage.write(path, *b"").unwrap();
        }
        let names = |dir| storage.list(Path::new(dir)).unwrap().into_iter().map(|e| e.name).collect::<Vec<_>>();
        assert_eq!(names("/d"), ["a"]);
        assert_eq!(names("d"), ["f"]);
        assert_eq!(names(""), ["d", "e"]);
        assert_eq!(names("/").len(), 4);
    }
}
