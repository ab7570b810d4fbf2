//! Publishing a file: whole and durable under its final name, or not there at all.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};
use crate::file::name;
use crate::storage::{PAGE_BYTES, Storage, WriteFile};

/// Writes are gathered up to this many bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// So many at once are written as they are.
const DIRECT_BYTES: usize = 64 << 10;
/// The disk is kept busy with what is there: bytes are sent on their way while more are made, so that the sync, for which
/// everybody waits, finds little left to do. Each so many of a large file, and each quarter of what there is of a small one,
/// but not less than that.
const WAY_BYTES: u64 = 2 << 20;
const WAY_BYTES_MIN: u64 = 512 << 10;
/// A device has a cache of its own, which a sync empties: that, too, is begun each so many bytes.
const SYNC_BYTES: u64 = 8 << 20;

/// A file that is being written, with the checksum of what went into it so far.
pub(crate) struct Sink {
    file: Box<dyn WriteFile>,
    /// The temporary name, for messages.
    path: PathBuf,
    buffer: Vec<u8>,
    checksum: Checksum,
    /// Bytes written, and how many of them are on their way to the disk.
    written: u64,
    on_their_way: u64,
    /// Those that a sync was begun for.
    begun: u64,
}

/// What the seal of a file says of all the bytes before it.
enum Checksum {
    /// XXH3-128, in binary files.
    Content(Box<Xxh3Default>),
    /// CRC-32, in JSON.
    Crc(crc32fast::Hasher),
}

impl Sink {
    fn new(file: Box<dyn WriteFile>, path: PathBuf) -> Sink {
        let checksum = Checksum::Content(Box::default());
        Sink { file, path, buffer: Vec::new(), checksum, written: 0, on_their_way: 0, begun: 0 }
    }

    /// Says before the first byte that the seal will be one of JSON's.
    pub(crate) fn seal_with_crc(&mut self) {
        self.checksum = Checksum::Crc(crc32fast::Hasher::new());
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let is_direct = bytes.len() >= DIRECT_BYTES;
        if is_direct || self.buffer.len().saturating_add(bytes.len()) > BUFFER_BYTES {
            self.flush()?;
        }
        if is_direct {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes put so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.saturating_add(self.buffer.len() as u64)
    }

    /// XXH3-128 of all bytes put so far.
    pub(crate) fn content(&mut self) -> Result<u128> {
        self.flush()?;
        match &self.checksum {
            Checksum::Content(content) => Ok(content.digest128()),
            Checksum::Crc(_) => unreachable!("a binary file"),
        }
    }

    /// CRC-32 of all bytes put so far, after [`seal_with_crc`](Self::seal_with_crc).
    pub(crate) fn crc(&mut self) -> Result<u32> {
        self.flush()?;
        match &self.checksum {
            Checksum::Crc(crc) => Ok(crc.clone().finalize()),
            Checksum::Content(_) => unreachable!("a JSON file"),
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer)?;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.checksum {
            Checksum::Content(content) => content.update(bytes),
            Checksum::Crc(crc) => crc.update(bytes),
        }
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written.saturating_sub(self.on_their_way) >= (self.written / 4).clamp(WAY_BYTES_MIN, WAY_BYTES) {
            // Whole pages: one that is being written to the disk may not take more bytes until it is there.
            let whole = self.written & !(PAGE_BYTES - 1);
            self.file.will_sync(self.on_their_way..whole);
            self.on_their_way = whole;
            if whole.saturating_sub(self.begun) >= SYNC_BYTES {
                self.file.begin_sync();
                self.begun = whole;
            }
        }
        Ok(())
    }

    /// Syncs all bytes put so far.
    fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.sync().map_err(Error::io("sync", &self.path))
    }
}

/// Names tried before a directory full of leftovers is taken for an error.
const TEMP_NAMES_MAX: usize = 64;

/// A new temporary file; skips names that a killed process of the same id left behind.
pub(crate) fn create_temp(storage: &dyn Storage, dir: &Path, file_name: &str) -> Result<(PathBuf, Box<dyn WriteFile>)> {
    let mut tries = 0_usize;
    loop {
        let temp = dir.join(name::temp_name(file_name));
        tries = tries.saturating_add(1);
        match storage.create(&temp) {
            Ok(file) => return Ok((temp, file)),
            Err(taken) if taken.kind() == ErrorKind::AlreadyExists && tries < TEMP_NAMES_MAX => {}
            Err(error) => return Err(Error::io("create", &temp)(error)),
        }
    }
}

/// Makes a directory, and all that is missing above it, durably. One that holds something already is left as it is.
pub(crate) fn create_dir(storage: &dyn Storage, dir: &Path) -> Result<()> {
    let entries = match storage.list(dir) {
        Ok(entries) => entries,
        Err(_) => {
            storage.create_dir_all(dir).map_err(Error::io("create directory", dir))?;
            storage.list(dir).map_err(Error::io("list directory", dir))?
        }
    };
    // An empty one was perhaps made a moment ago, by an attempt that came no further.
    if !entries.is_empty() {
        return Ok(());
    }
    // Every directory above may be new, too. The nearest that was there already is the last that matters; more does no
    // harm, and one that may not be read has been there before.
    for above in dir.ancestors().skip(1) {
        match storage.sync_dir(above) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => break,
            synced => synced.map_err(Error::io("sync directory", above))?,
        }
    }
    Ok(())
}

/// What to do about a file that has the final name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Backups never overwrite one another.
    Refuse,
    /// As `Refuse`, but a file whose name could not be made durable stays: what it holds is in the log, too, and a
    /// removal that is not durable either would leave it to come back when the log has gone on without it.
    RefuseAndKeep,
    /// `save` to a path that the caller named.
    Replace,
}

/// Writes a file with `fill` and publishes it as `path`, without reading it back. See [`publish_checked`].
pub(crate) fn publish<T>(
    storage: &dyn Storage,
    path: &Path,
    existing: Existing,
    fill: impl FnOnce(&mut Sink) -> Result<T>,
) -> Result<(T, u64)> {
    publish_checked(storage, path, existing, fill, |_| Ok(()))
}

/// Writes a file with `fill`, lets `check` look at it under its temporary name, and publishes it as `path`. Gives what
/// `fill` gave, and the file's bytes.
///
/// 1. Create a temporary file in the same directory. A crash leaves a temporary name, which no reader looks at.
/// 2. Fill it, sync it and check it. A crash: as before.
/// 3. Rename it. A crash leaves the temporary or the final name, either whole.
/// 4. Sync the directory. Only now does the caller hear of success.
///
/// A failure before step 4 removes the temporary file; one in step 4 removes the final one, as nobody can say whether
/// it would survive a crash, and it must not come back beside the backup that is made in its stead (but see
/// [`Existing::RefuseAndKeep`]).
pub(crate) fn publish_checked<T>(
    storage: &dyn Storage,
    path: &Path,
    existing: Existing,
    fill: impl FnOnce(&mut Sink) -> Result<T>,
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<(T, u64)> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let file_name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let (temp, file) = create_temp(storage, dir, &file_name)?;
    let mut sink = Sink::new(file, temp.clone());
    let filled = fill(&mut sink).and_then(|value| {
        sink.sync()?;
        Ok((value, sink.written()))
    });
    drop(sink);
    let published = filled.and_then(|done| {
        check(&temp)?;
        match existing {
            Existing::Refuse | Existing::RefuseAndKeep => storage.rename_new(&temp, path),
            Existing::Replace => storage.rename(&temp, path),
        }
        .map_err(Error::io("rename a temporary file to", path))?;
        Ok(done)
    });
    let done = published.inspect_err(|_| {
        // The first error is the one to tell; the name says that the file is temporary in any case.
        let _ = storage.remove(&temp);
    })?;
    if let Err(error) = storage.sync_dir(dir) {
        if existing == Existing::Refuse {
            let _ = storage.remove(path);
        }
        return Err(Error::io("sync directory", dir)(error));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::io;

    use xxhash_rust::xxh3::xxh3_128;

    use super::*;
    use crate::storage::MemoryStorage;

    fn written_in_pieces(bytes: &[u8], with_crc: bool, pieces: impl Fn(u64) -> usize) {
        let storage = MemoryStorage::new();
        let path = Path::new("dir/file");
        storage.create_dir_all(Path::new("dir")).unwrap();
        let fill = |sink: &mut Sink| {
            if with_crc {
                sink.seal_with_crc();
            }
            let (mut rest, mut n) = (bytes, 0);
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(pieces(n).min(rest.len()));
                sink.put(piece)?;
                (rest, n) = (behind, n + 1);
            }
            if with_crc {
                assert_eq!(sink.crc()?, crc32fast::hash(bytes));
            } else {
                assert_eq!(sink.content()?, xxh3_128(bytes));
            }
            sink.put(b"end")
        };
        let ((), written) = publish(&storage, path, Existing::Refuse, fill).unwrap();
        assert_eq!(written, bytes.len() as u64 + 3);
        assert!(storage.read(path).unwrap() == [bytes, b"end"].concat(), "{} bytes", bytes.len());
    }

    #[test]
    fn a_file_of_any_size_is_what_was_put_in_whatever_pieces() {
        let bytes: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for len in [0, 1, BUFFER_BYTES, BUFFER_BYTES + 1, WAY_BYTES as usize, bytes.len()] {
            let bytes = &bytes[..len];
            for with_crc in [false, true] {
                written_in_pieces(bytes, with_crc, |_| 300_000);
                written_in_pieces(bytes, with_crc, |n| [100, 5_000_000, 70_000, BUFFER_BYTES][n as usize % 4]);
                written_in_pieces(bytes, with_crc, |_| 9_000);
            }
        }
    }

    /// A file that takes so many bytes.
    #[derive(Default)]
    struct Fake {
        room: u64,
        written: u64,
        /// What it was told it will be asked to sync, and how often.
        told: std::sync::Arc<std::sync::Mutex<(u64, usize)>>,
        /// How often a sync was begun.
        begun: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    }

    impl io::Write for Fake {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.room = self.room.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::StorageFull)?;
            self.written += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl WriteFile for Fake {
        fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn set_len(&mut self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn will_sync(&mut self, bytes: std::ops::Range<u64>) {
            let mut told = self.told.lock().unwrap();
            assert_eq!(bytes.start, told.0, "each byte once");
            assert!(bytes.start < bytes.end && bytes.end <= self.written, "{bytes:?} of {}", self.written);
            *told = (bytes.end, told.1 + 1);
        }

        fn begin_sync(&mut self) {
            self.begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(self.written - self.told.lock().unwrap().0 < PAGE_BYTES, "what is synced is on its way");
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_large_file_is_sent_on_its_way_while_it_grows_and_each_byte_once() {
        let told = std::sync::Arc::default();
        let file = Fake { room: u64::MAX, told: std::sync::Arc::clone(&told), ..Fake::default() };
        let mut sink = Sink::new(Box::new(file), "f".into());
        let piece = vec![1; 100_001];
        (0..200).for_each(|_| sink.put(&piece).unwrap());
        sink.sync().unwrap();
        let (bytes, times) = *told.lock().unwrap();
        assert!(sink.written() - bytes < 2 * WAY_BYTES && bytes % PAGE_BYTES == 0, "{bytes} of {}", sink.written());
        assert!((8..20).contains(&times), "{times}");
    }

    #[test]
    fn syncs_of_a_large_file_are_begun_while_it_grows_and_none_of_a_small_one() {
        for (pieces, syncs) in [(80, 0), (110, 1), (250, 2), (1_000, 11)] {
            let begun = std::sync::Arc::default();
            let file = Fake { room: u64::MAX, begun: std::sync::Arc::clone(&begun), ..Fake::default() };
            let mut sink = Sink::new(Box::new(file), "f".into());
            (0..pieces).for_each(|_| sink.put(&[1; 100_000]).unwrap());
            sink.sync().unwrap();
            assert_eq!(begun.load(std::sync::atomic::Ordering::Relaxed), syncs, "{} bytes", sink.written());
        }
    }

    #[cfg(feature = "sim")]
    #[test]
    fn a_file_whose_sync_failed_while_it_grew_is_not_published() {
        use crate::storage::sim::{Dirty, Fault, Repeat, SimStorage};

        let write = |storage: &SimStorage| {
            publish(storage, Path::new("f"), Existing::Refuse, |sink| {
                (0..110).try_for_each(|_| sink.put(&[1; 100_000])) // one sync is begun, and more comes behind it
            })
        };
        let sound = SimStorage::new();
        write(&sound).unwrap();
        let all = sound.op_count();
        let mut failed = 0;
        for op in 1..=all {
            for dirty in [Dirty::Kept, Dirty::Dropped] {
                let storage = SimStorage::new();
                storage.fail_at(op, Fault::SyncFails { dirty }, Repeat::Once);
                let outcome = write(&storage);
                if storage.fault_hits() == 0 {
                    outcome.unwrap();
                    continue;
                }
                failed += 1;
                assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
                assert!(storage.list(Path::new("")).unwrap().is_empty(), "operation {op}");
                assert_eq!(storage.violations(), [""; 0]);
            }
        }
        assert_eq!(failed, 2 * 3, "the sync that is begun, the one in the end, that of the directory");
    }

    #[test]
    fn of_a_small_file_most_is_on_its_way_before_it_is_synced() {
        for pieces in 20..60 {
            let told = std::sync::Arc::default();
            let file = Fake { room: u64::MAX, told: std::sync::Arc::clone(&told), ..Fake::default() };
            let mut sink = Sink::new(Box::new(file), "f".into());
            (0..pieces).for_each(|_| sink.put(&[1; 30_000]).unwrap());
            sink.sync().unwrap();
            let (bytes, times) = *told.lock().unwrap();
            let left = sink.written() - bytes;
            assert!(left < WAY_BYTES_MIN + BUFFER_BYTES as u64 + PAGE_BYTES && times <= 4, "{left} after {times}");
        }
    }

    #[test]
    fn a_write_that_fails_is_told_wherever_in_the_file_it_is() {
        let whole = 12 << 20;
        for room in [0, 1 << 20, 8 << 20, whole - 1] {
            let mut sink = Sink::new(Box::new(Fake { room, ..Fake::default() }), "f".into());
            let piece = vec![1; 100_000];
            let mut put = || {
                while sink.written() + piece.len() as u64 <= whole {
                    sink.put(&piece)?;
                }
                sink.put(&piece[..(whole - sink.written()) as usize])?;
                sink.content()
            };
            assert!(matches!(put(), Err(Error::DiskFull { .. })), "room for {room}");
        }
        let mut sink = Sink::new(Box::new(Fake { room: whole, ..Fake::default() }), "f".into());
        (0..3).for_each(|_| sink.put(&vec![1; 4 << 20]).unwrap());
        assert_eq!(sink.content().unwrap(), xxh3_128(&vec![1; 12 << 20]));
    }
}
