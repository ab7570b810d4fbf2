//! The file system of the operating system.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
#[cfg(target_os = "linux")]
use std::num::NonZero;
#[cfg(target_os = "linux")]
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempPath;

#[cfg(target_os = "linux")]
use super::PAGE_BYTES;
#[cfg(target_os = "linux")]
use super::syncer::Syncer;
use super::{DirEntry, DirLock, LOCK_FILE, LockError, ReadFile, Storage, WriteFile};

/// The files of the operating system.
///
/// ```
/// use dictdb::{DiskStorage, Storage};
/// let here = DiskStorage.list(std::path::Path::new("."))?;
/// assert!(here.iter().all(|entry| entry.name != ".."));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStorage;

impl Storage for DiskStorage {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(or_current(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(or_current(dir))? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since the directory was read: then it is not in the directory.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_file = metadata.is_file();
            entries.push(DirEntry { name: entry.file_name(), len: if is_file { metadata.len() } else { 0 }, is_file });
        }
        Ok(entries)
    }

    fn file_names(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(or_current(dir))? {
            let entry = entry?;
            // Most often the directory says it.
            match entry.file_type() {
                Ok(kind) if kind.is_file() => names.push(entry.file_name()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        // Before it is opened, for opening a pipe waits for its writer; and after, for it may be another by then.
        require_file(&fs::metadata(path)?)?;
        let file = File::open(path)?;
        require_file(&file.metadata()?)?;
        Ok(Box::new(file))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(Writer::of(File::create_new(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// `renameat2` where there is one; else a hard link, so that a crash in between leaves the file under both names.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut source = TempPath::try_from_path(from)?;
        source.disable_cleanup(true); // or it would be removed when the rename fails
        source.persist_noclobber(to).map_err(|failed| failed.error)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = or_current(dir);
        if !fs::metadata(dir)?.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        match sync_names(dir) {
            Err(error) if cannot_sync_directories(&error) => {
                warn_not_durable(dir, &error);
                Ok(())
            }
            result => result,
        }
    }

    /// Locks the file [`LOCK_FILE`], made if need be, and where the system has it the directory itself, so that
    /// removing the file frees nothing. The file stays when the lock goes; what it says of the holder is stale then.
    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
        let dir = or_current(dir);
        let path = dir.join(LOCK_FILE);
        match fs::symlink_metadata(&path) {
            // A link would be followed, and what it leads to be made.
            Ok(metadata) => require_file(&metadata)?,
            Err(missing) if missing.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        require_file(&fs::symlink_metadata(&path)?)?;
        let held = |file: &mut File| {
            let mut text = String::new();
            let _ = file.take(32).read_to_string(&mut text);
            LockError::Held { pid: text.trim().parse().ok() }
        };
        // Waiting for the other's end is for people, with the directory and the pid in their hands.
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(held(&mut file)),
            Err(fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        let mut lock = HeldLock { process: std::process::id(), file, names: None, is_known: false };
        match lock_names(dir) {
            Ok(names) => {
                lock.names = names;
                lock.is_known = same_dir(&lock.names, dir)?;
            }
            Err(fs::TryLockError::WouldBlock) => return Err(held(&mut lock.file)),
            // Not every file system knows it; then the file has to do.
            Err(fs::TryLockError::Error(_)) => {}
        }
        // A courtesy to whoever is refused: on a full disk the lock has to do without.
        let pid = format!("{}\n", std::process::id());
        let named = lock.file.rewind().and_then(|()| lock.file.write_all(pid.as_bytes()));
        if let Err(error) = named.and_then(|()| lock.file.set_len(pid.len() as u64)) {
            tracing::debug!(file = %path.display(), %error, "the lock file does not name its holder");
        }
        Ok(Box::new(lock))
    }
}

#[derive(Debug)]
struct HeldLock {
    /// The process that took it: one that it forked has the same open files, and must not unlock them.
    process: u32,
    file: File,
    names: Option<File>,
    /// Whether the file system calls the directory the same by its path as by `names`: not each does.
    is_known: bool,
}

impl DirLock for HeldLock {
    fn is_at(&self, dir: &Path) -> io::Result<bool> {
        Ok(!self.is_known || same_dir(&self.names, or_current(dir))?)
    }
}

impl Drop for HeldLock {
    /// The locks go with the open files; but a process that another thread is starting just now has these open too,
    /// until it has become another program.
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        for file in std::iter::once(&self.file).chain(&self.names) {
            let _ = file.unlock();
        }
    }
}

/// Whether a path leads to the directory that is open.
#[cfg(unix)]
fn same_dir(open: &Option<File>, dir: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let Some(open) = open else { return Ok(false) };
    let (open, there) = (open.metadata()?, fs::metadata(dir)?);
    Ok((open.dev(), open.ino()) == (there.dev(), there.ino()))
}

#[cfg(not(unix))]
fn same_dir(_: &Option<File>, _: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(unix)]
fn lock_names(dir: &Path) -> Result<Option<File>, fs::TryLockError> {
    let dir = File::open(dir).map_err(fs::TryLockError::Error)?;
    dir.try_lock()?;
    Ok(Some(dir))
}

#[cfg(not(unix))]
fn lock_names(_: &Path) -> Result<Option<File>, fs::TryLockError> {
    Ok(None)
}

impl ReadFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// A file being written.
struct Writer {
    file: Arc<File>,
    /// Since it was last synced something began to do that.
    #[cfg(target_os = "linux")]
    syncer: Option<Syncer>,
}

impl Writer {
    fn of(file: File) -> Writer {
        Writer {
            file: Arc::new(file),
            #[cfg(target_os = "linux")]
            syncer: None,
        }
    }

    /// What the syncs that were begun have come to; none goes on then.
    fn end_syncer(&mut self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(syncer) = self.syncer.take() {
            return syncer.end();
        }
        Ok(())
    }
}

impl Drop for Writer {
    /// Whoever removes the file next has its room back, and no thread holds it open.
    fn drop(&mut self) {
        let _ = self.end_syncer();
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for Writer {
    #[cfg(unix)]
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(&*self.file, bytes, offset)
    }

    #[cfg(not(unix))]
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        use std::io::SeekFrom;
        let mut file = &*self.file;
        let here = file.stream_position()?;
        file.seek(SeekFrom::Start(offset))?;
        let written = file.write(bytes);
        file.seek(SeekFrom::Start(here))?;
        written
    }

    /// A page at a time: what is written at once newer Linux keeps as one piece of memory, up to megabytes, and each later
    /// write and sync there goes through all of it.
    #[cfg(target_os = "linux")]
    fn write_zeros(&mut self, bytes: Range<u64>) -> io::Result<()> {
        static ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];
        pages(bytes).try_for_each(|page| {
            let len = usize::try_from(page.end.saturating_sub(page.start)).unwrap_or(ZEROS.len());
            self.write_all_at(ZEROS.get(..len).unwrap_or(&ZEROS), page.start)
        })
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Linux begins to write out pages that it is told nobody will need, and keeps those that are not written yet.
    #[cfg(target_os = "linux")]
    fn will_sync(&mut self, bytes: Range<u64>) {
        let len = NonZero::new(bytes.end.saturating_sub(bytes.start));
        if len.is_some() {
            // A hint: where it is not understood nothing is lost.
            let _ = rustix::fs::fadvise(&*self.file, bytes.start, len, rustix::fs::Advice::DontNeed);
        }
    }

    /// On Linux alone: where a file takes one operation at a time, the next write would wait for it.
    #[cfg(target_os = "linux")]
    fn begin_sync(&mut self) {
        if let Some(syncer) = &self.syncer {
            return syncer.again();
        }
        let file = Arc::clone(&self.file);
        // Without a thread it is left to the sync.
        self.syncer = Syncer::start(move || file.sync_data()).ok();
    }

    fn sync(&mut self) -> io::Result<()> {
        let synced = self.file.sync_all();
        self.end_syncer().and(synced)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let synced = self.file.sync_data();
        self.end_syncer().and(synced)
    }
}

/// What lies of these bytes in each page.
#[cfg(target_os = "linux")]
fn pages(bytes: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut at = bytes.start;
    std::iter::from_fn(move || {
        let page_end = (at | (PAGE_BYTES - 1)).saturating_add(1);
        let page = at..page_end.min(bytes.end);
        at = page.end.max(at);
        (page.start < page.end).then_some(page)
    })
}

/// `Path::new("backup.bin").parent()` is the empty path, which the operating system does not take for a directory.
fn or_current(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

fn require_file(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        Ok(())
    } else if metadata.is_dir() {
        Err(ErrorKind::IsADirectory.into())
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, "neither a file nor a directory"))
    }
}

#[cfg(unix)]
fn sync_names(dir: &Path) -> io::Result<()> {
    let dir = File::open(dir)?;
    // Once the directory is open, `NotFound` can only mean that the server of a network file system does not know
    // the operation (SMB: restic #3720); the directory itself was found.
    dir.sync_all().map_err(|error| match error.kind() {
        ErrorKind::NotFound => io::Error::new(ErrorKind::Unsupported, error),
        _ => error,
    })
}

#[cfg(not(unix))]
fn sync_names(_: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Whether `error` says that directories cannot be synced here, and not that syncing this one failed.
fn cannot_sync_directories(error: &io::Error) -> bool {
    const EBADF: i32 = 9; // as PostgreSQL's fsync_fname_ext takes it
    const ENOTTY: i32 = 25; // F_FULLFSYNC over SMB on macOS
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
        || (cfg!(unix) && matches!(error.raw_os_error(), Some(EBADF | ENOTTY)))
}

/// Once in a process: it is the file system that lacks it, so every later call would say the same.
fn warn_not_durable(dir: &Path, error: &io::Error) {
    static WARNED: std::sync::Once = std::sync::Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            dir = %dir.display(),
            %error,
            "this file system cannot sync a directory: a new file's name may be lost in a crash"
        );
    });
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_a_missing_ability_to_sync_a_directory_is_forgiven() {
        for (errno, forgiven) in [
            (5, false),  // EIO
            (28, false), // ENOSPC
            (13, false), // EACCES
            (2, false),  // ENOENT
            (30, false), // EROFS
            (22, true),  // EINVAL
            (9, true),   // EBADF
            (25, true),  // ENOTTY
        ] {
            assert_eq!(cannot_sync_directories(&io::Error::from_raw_os_error(errno)), forgiven, "{errno}");
        }
        assert!(cannot_sync_directories(&ErrorKind::Unsupported.into()));
    }

    #[test]
    fn the_empty_path_is_the_current_directory() {
        DiskStorage.create_dir_all(Path::new("")).unwrap();
        DiskStorage.sync_dir(Path::new("")).unwrap();
        let names = |dir| DiskStorage.list(Path::new(dir)).unwrap().into_iter().map(|e| e.name).collect::<Vec<_>>();
        assert_eq!(names(""), names("."));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_listed_as_links_and_never_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        DiskStorage.create(&at("file")).unwrap().write_all(b"123").unwrap();
        DiskStorage.create_dir_all(&at("dir")).unwrap();
        for (target, link) in [("file", "to_file"), ("dir", "to_dir"), ("gone", "dangling"), ("loop", "loop")] {
            std::os::unix::fs::symlink(at(target), at(link)).unwrap();
        }
        let files: Vec<_> = DiskStorage.list(dir.path()).unwrap().into_iter().filter(|e| e.is_file).collect();
        assert_eq!(files, [DirEntry { name: "file".into(), len: 3, is_file: true }]);
        for link in ["to_file", "to_dir", "dangling", "loop"] {
            let taken = DiskStorage.create(&at(link)).err().unwrap();
            assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "{link}");
            let taken = DiskStorage.rename_new(&at("file"), &at(link)).unwrap_err();
            assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "{link}");
        }
        assert!(!at("gone").exists());
        assert!(at("file").exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn zeros_are_written_page_by_page_and_each_of_them() {
        for (from, to) in
            [(0, 8_192), (1, 4_096), (4_095, 4_097), (5_000, 5_001), (4_096, 4_096), (9, 3), (176, 20_000)]
        {
            let written: Vec<Range<u64>> = pages(from..to).collect();
            assert!(written.windows(2).all(|pair| pair[0].end == pair[1].start), "{written:?}");
            assert_eq!(written.iter().map(|page| page.end - page.start).sum::<u64>(), to.saturating_sub(from));
            let numbers: Vec<u64> = written.iter().map(|page| page.start / PAGE_BYTES).collect();
            let touched: Vec<u64> =
                if from < to { (from / PAGE_BYTES..=(to - 1) / PAGE_BYTES).collect() } else { vec![] };
            assert_eq!(numbers, touched, "a write for each page that has some of {from}..{to}");

            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let mut writer = DiskStorage.create(&path).unwrap();
            writer.write_all(&[7; 24_000]).unwrap();
            writer.write_zeros(from..to).unwrap();
            let bytes = fs::read(&path).unwrap();
            let is_zero = |at: usize| (from..to).contains(&(at as u64));
            assert!(
                bytes.len() == 24_000
                    && bytes.iter().enumerate().all(|(at, byte)| *byte == if is_zero(at) { 0 } else { 7 })
            );
        }
        assert_eq!(pages(u64::MAX - 5_000..u64::MAX).count(), 2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_sync_that_was_begun_has_met_is_told_by_the_next_one_and_once() {
        // A pipe cannot be synced.
        let (_reader, pipe) = io::pipe().unwrap();
        let pipe = Arc::new(File::from(std::os::fd::OwnedFd::from(pipe)));
        for sync in [WriteFile::sync, WriteFile::sync_data] {
            let mut writer = Writer { file: Arc::clone(&pipe), syncer: None };
            writer.begin_sync();
            writer.file = Arc::new(tempfile::tempfile().unwrap());
            sync(&mut writer).unwrap_err();
            sync(&mut writer).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_is_dropped_while_it_is_synced_is_open_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::of(File::create_new(dir.path().join("a")).unwrap());
        let file = Arc::downgrade(&writer.file);
        writer.write_all(&vec![1; 16 << 20]).unwrap();
        writer.begin_sync();
        assert!(file.strong_count() > 1, "a thread has it");
        drop(writer);
        assert_eq!(file.strong_count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_or_a_pipe_does_not_open_as_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [Path::new("/dev/zero"), &pipe] {
            let refused = DiskStorage.open(path).err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
    }

    /// As a process has them that another thread is starting just then.
    #[cfg(unix)]
    #[test]
    fn a_lock_that_is_given_back_is_free_though_its_files_are_open_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create_new(dir.path().join(LOCK_FILE)).unwrap();
        file.try_lock().unwrap();
        let lock =
            HeldLock { process: std::process::id(), file, names: lock_names(dir.path()).unwrap(), is_known: true };
        let _elsewhere = (lock.file.try_clone().unwrap(), lock.names.as_ref().unwrap().try_clone().unwrap());
        assert!(matches!(DiskStorage.lock(dir.path()), Err(LockError::Held { .. })));
        drop(lock);
        DiskStorage.lock(dir.path()).unwrap();
    }
}
