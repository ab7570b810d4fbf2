//! What a store's directory holds: its snapshots, and the line of segments that make up its log.

use std::path::{Path, PathBuf};

use crate::error::{DamagedBackup, Error, Result};
use crate::file::container::ContainerReader;
use crate::file::header::{FileKind, Header};
use crate::file::name::Stamp;
use crate::file::store_name::{Entry, StoreFile, StoreName};
use crate::history::{Lineage, Point, Seq, Timestamp};
use crate::log::{Later, SegmentReader};
use crate::storage::Storage;

/// Files by name; nothing has been opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    /// In the order of their stamps.
    pub(crate) files: Vec<StoreName>,
    pub(crate) leftovers: Vec<PathBuf>,
}

impl Directory {
    /// Whether a store was ever written to here, by the names.
    pub(crate) fn has_commits(&self) -> bool {
        self.files.iter().any(|name| matches!(name.kind, StoreFile::Log | StoreFile::Snapshot))
    }

    /// Lists a directory. One that is not there is empty; one that holds other things than a store is an error.
    pub(crate) fn read(storage: &dyn Storage, dir: &Path) -> Result<Directory> {
        let entries = match storage.list(dir) {
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            entries => entries.map_err(Error::io("list directory", dir))?,
        };
        let mut found = Directory::default();
        let mut stranger = None;
        for entry in entries {
            match Entry::of(&entry.name) {
                Entry::File(name) if entry.is_file => found.files.push(name),
                Entry::Leftover if entry.is_file => found.leftovers.push(dir.join(entry.name)),
                Entry::Lock => {}
                // Made by `mkfs` at the root of a file system of its own.
                Entry::Foreign if entry.name == "lost+found" => {}
                kind => stranger = Some((kind, entry.name)),
            }
        }
        found.files.sort_unstable();
        if found.files.is_empty()
            && let Some((kind, name)) = stranger
        {
            let problem = match kind {
                Entry::Backup => "holds backups, not a store: restore them into another directory with \
                                  RestoreOptions::restore_into, and open that"
                    .to_owned(),
                _ => format!("holds no store, and other things (such as {name:?}): name a directory of its own for it"),
            };
            return Err(Error::NotAStore { dir: dir.to_owned(), problem });
        }
        Ok(found)
    }

    pub(crate) fn newest(&self) -> Option<Stamp> {
        self.files.last().map(|name| name.stamp)
    }

    /// Those of one kind, oldest first.
    pub(crate) fn of_kind(&self, kind: StoreFile) -> impl DoubleEndedIterator<Item = Stamp> + '_ {
        self.files.iter().filter(move |name| name.kind == kind).map(|name| name.stamp)
    }
}

pub(crate) fn path(dir: &Path, kind: StoreFile, stamp: Stamp) -> PathBuf {
    dir.join(StoreName { stamp, kind }.file_name())
}

/// A segment's header, which passed its checks.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) stamp: Stamp,
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    pub(crate) base: Point,
}

impl Segment {
    pub(crate) fn open(storage: &dyn Storage, dir: &Path, stamp: Stamp) -> Result<Segment> {
        let path = path(dir, StoreFile::Log, stamp);
        let reader = SegmentReader::open(storage, &path)?;
        check_stamp(&path, &reader.header, stamp)?;
        let base = reader.base();
        if reader.header.base.is_some_and(|base| base.is_empty()) {
            return Err(Error::corrupt(&path, 32, "no base where the log begins at the empty database"));
        }
        if base.lineage != reader.header.lineage && reader.header.parent != Some(base) {
            return Err(Error::corrupt(&path, 72, "as parent the point that the segment begins after"));
        }
        Ok(Segment { stamp, base, header: reader.header, path })
    }

    /// Where it begins, as a point of its own history.
    fn origin(&self) -> Point {
        Point { lineage: self.header.lineage, ..self.base }
    }

    /// Whether the log goes on from `self` to `next`, as far as headers can say.
    fn joins(&self, next: &Segment) -> bool {
        let base = next.base;
        let continues = next.header.lineage == self.header.lineage || next.header.parent == Some(base);
        next.header.base.is_some() && base.lineage == self.header.lineage && base.seq >= self.base.seq && continues
    }
}

impl Segment {
    /// Whether a later history began where this one did, and nothing of this one is part of it: its name was never
    /// known to be durable, so it may be there or not.
    fn is_dead_beside(&self, next: &Segment) -> bool {
        self.header.lineage != next.header.lineage && self.header.base.is_some() && self.base == next.base && {
            self.base.lineage != self.header.lineage
        }
    }

    /// Whether something in it is known to have been durable, its name with it. Reads all of it.
    pub(crate) fn is_proven(&self, storage: &dyn Storage) -> Result<bool> {
        let ending = SegmentReader::open(storage, &self.path).and_then(|mut reader| reader.read(None, |_| Ok(())));
        match ending {
            // A later frame may say it of the first one though that is damaged.
            Ok(ending) => Ok(ending.proven > self.base.seq || ending.later == Later::Proof || ending.seal.is_some()),
            Err(error) if is_io(&error) => Err(error),
            // A seal that does not fit.
            Err(_) => Ok(true),
        }
    }
}

/// The newest segments, without a hole between them.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) segments: Vec<Segment>,
    /// Those passed over: histories that began at the base of one of `segments`, and of which nothing is part of the line.
    dead: Vec<Segment>,
    /// Why the segment before the first of them is not one of them, where it is damaged.
    pub(crate) broken_by: Option<Error>,
}

impl Line {
    pub(crate) fn read(storage: &dyn Storage, dir: &Path, found: &Directory) -> Result<Line> {
        let mut line = Line::default();
        for stamp in found.of_kind(StoreFile::Log).rev() {
            match Segment::open(storage, dir, stamp) {
                Ok(segment) => match line.segments.last() {
                    Some(next) if segment.is_dead_beside(next) => line.dead.push(segment),
                    Some(next) if !segment.joins(next) => break,
                    _ => line.segments.push(segment),
                },
                // Nothing says what the newest one holds.
                Err(error) if line.segments.is_empty() || is_io(&error) => return Err(error),
                Err(error) => {
                    line.broken_by = Some(error);
                    break;
                }
            }
        }
        line.segments.reverse();
        Ok(line)
    }

    /// Whether `point` lies in a history of the line behind the place where the next history began. Nobody knew of it
    /// then, and what leads there is not part of the line.
    pub(crate) fn has_left_behind(&self, point: Point) -> bool {
        self.segments.iter().zip(self.segments.iter().skip(1)).any(|(segment, next)| {
            let history_ends = segment.header.lineage != next.header.lineage;
            history_ends && segment.header.lineage == point.lineage && next.base.seq < point.seq
        })
    }

    /// The segment that holds what comes after `point`, or begins there.
    pub(crate) fn position(&self, point: Point) -> Option<usize> {
        // The origin of a history that was passed over is the point that it began at.
        let is_origin = |dead: &&Segment| dead.origin() == point;
        let begun_at = self.dead.iter().find(is_origin).map_or(point, |dead| dead.base);
        if let Some(at) = self.segments.iter().rposition(|segment| segment.base == begun_at) {
            return Some(at);
        }
        let at = self
            .segments
            .iter()
            .rposition(|segment| segment.header.lineage == point.lineage && segment.base.seq <= point.seq)?;
        let next = self.segments.get(at.saturating_add(1));
        next.is_none_or(|next| next.base.seq >= point.seq).then_some(at)
    }
}

/// What a snapshot says of itself at its beginning and its end; what lies between has not been read.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotInfo {
    pub(crate) stamp: Stamp,
    pub(crate) path: PathBuf,
    pub(crate) point: Point,
    pub(crate) parent: Option<Point>,
}

impl SnapshotInfo {
    pub(crate) fn open(storage: &dyn Storage, dir: &Path, stamp: Stamp) -> Result<SnapshotInfo> {
        let path = path(dir, StoreFile::Snapshot, stamp);
        let mut file = ContainerReader::open(storage, &path)?;
        if file.header.kind != FileKind::Snapshot {
            let expected = "a snapshot: the file was renamed or copied";
            return Err(Error::corrupt(&path, 10, expected));
        }
        check_stamp(&path, &file.header, stamp)?;
        let seal = file.peek_seal()?;
        let point = Point { lineage: file.header.lineage, seq: seal.seq, digest: seal.digest };
        Ok(SnapshotInfo { stamp, parent: file.header.parent, path, point })
    }

    /// Whether its history has no commit of its own before it: then it needs no log.
    pub(crate) fn is_origin(&self) -> bool {
        self.point.seq == self.parent.map_or(Seq::ZERO, |parent| parent.seq)
    }

    /// How far it says that a history was durable: its own when it was written, the one before when its own began.
    pub(crate) fn durable_in(&self, lineage: Lineage) -> Option<Seq> {
        let points = std::iter::once(self.point).chain(self.parent);
        points.filter(|point| point.lineage == lineage).map(|point| point.seq).max()
    }

    /// The point of the history before its own at which the state is the same.
    pub(crate) fn twin(&self) -> Option<Point> {
        self.parent.filter(|parent| (parent.seq, parent.digest) == (self.point.seq, self.point.digest))
    }
}

/// All snapshots, newest first; the damaged ones apart.
pub(crate) fn snapshots(
    storage: &dyn Storage,
    dir: &Path,
    found: &Directory,
) -> Result<(Vec<SnapshotInfo>, Vec<DamagedBackup>)> {
    let (mut sound, mut damaged) = (Vec::new(), Vec::new());
    for stamp in found.of_kind(StoreFile::Snapshot).rev() {
        match SnapshotInfo::open(storage, dir, stamp) {
            Ok(info) => sound.push(info),
            Err(error) if is_io(&error) => return Err(error),
            Err(error) => {
                let file = path(dir, StoreFile::Snapshot, stamp);
                damaged.push(DamagedBackup { file, error: Box::new(error) });
            }
        }
    }
    Ok((sound, damaged))
}

fn check_stamp(path: &Path, header: &Header, stamp: Stamp) -> Result<()> {
    let created = i64::try_from(stamp.get()).ok().map(Timestamp::from_micros);
    if created == Some(header.created) {
        return Ok(());
    }
    Err(Error::corrupt(path, 112, "the stamp of the file's name: the file was renamed or copied"))
}

/// A file that cannot be read, or not by this program, is not a damaged one: nothing may be decided without it.
pub(crate) fn is_io(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::DiskFull { .. } | Error::UnsupportedVersion { .. } | Error::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Digest;
    use crate::storage::MemoryStorage;

    #[test]
    fn the_origin_of_a_history_that_is_passed_over_is_where_the_one_beside_it_begins() {
        let (storage, dir) = (MemoryStorage::new(), Path::new("/store"));
        let [first, passed_over, last] = [1, 2, 3].map(|id| Lineage::from_bytes([id; 16]));
        let end = Point { lineage: first, seq: Seq::new(4), digest: Digest::from_u128(7) };
        for (stamp, lineage, base) in [(1, first, None), (2, passed_over, Some(end)), (3, last, Some(end))] {
            let created = Timestamp::from_micros(stamp);
            let header = Header { kind: FileKind::Log, lineage, parent: base, base, created, preallocation: 512 };
            let stamp = Stamp::new(stamp.cast_unsigned());
            storage.write(path(dir, StoreFile::Log, stamp), header.encode()).unwrap();
        }
        let found = Directory::read(&storage, dir).unwrap();
        let line = Line::read(&storage, dir, &found).unwrap();
        assert_eq!(line.segments.iter().map(|segment| segment.header.lineage).collect::<Vec<_>>(), [first, last]);
        let origin = Point { lineage: passed_over, ..end };
        assert_eq!((line.position(end), line.position(origin)), (Some(1), Some(1)));
        assert_eq!(line.position(Point { seq: Seq::new(5), ..origin }), None, "nothing of it is part of the line");
        assert_eq!(line.position(Point { digest: Digest::from_u128(8), ..origin }), None);
    }
}
