//! Small chains of every shape, with the state at each backup point, and the one rule that every damaged directory is
//! judged by.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dictdb::{
    BackupFormat, BackupManager, Compression, DictDb, Error, FieldType, Key, ManualClock, MemoryStorage, Point, Record,
    RestoreOptions, RestoreReport, Schema, Storage, TableDefinition, Timestamp, record,
};

pub(crate) const DIR: &str = "/backups";
pub(crate) const FORMATS: [BackupFormat; 2] = [BackupFormat::Binary, BackupFormat::Json];

/// What a database holds, in plain types.
pub(crate) type Contents = BTreeMap<String, (TableDefinition, Vec<(Key, Record)>)>;

pub(crate) fn contents(db: &DictDb) -> Contents {
    let view = db.snapshot();
    let table = |name: String| {
        let table = view.table(&name).unwrap();
        (name, (table.definition().clone(), table.iter().collect()))
    };
    view.table_names().into_iter().map(table).collect()
}

/// A state that was backed up.
pub(crate) struct BackupPoint {
    pub(crate) point: Point,
    pub(crate) contents: Contents,
    pub(crate) time: Timestamp,
}

/// A directory of backups.
pub(crate) struct Chain {
    pub(crate) label: String,
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    /// In the order in which they were backed up.
    pub(crate) points: Vec<BackupPoint>,
}

/// How a chain comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// full, delta, delta, full and its bridge, delta.
    Bridged,
    /// Deltas from the empty database; binary only, as DictDB could not load such a chain.
    DeltasOnly,
    /// full, full, full.
    FullsOnly,
    /// The same with one block in them that is compressed, among others that compression makes no smaller; binary only.
    Compressed,
}

/// A database with small tables of both sorts, and ways to change it.
struct Story {
    db: DictDb,
    clock: ManualClock,
    /// What tells this history's records from another's.
    who: &'static str,
    step: i64,
}

impl Story {
    fn begin(who: &'static str) -> Story {
        let clock = ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
        let db = DictDb::builder().clock(clock.clone()).build();
        let schema = Schema::new([("id", FieldType::Int), ("name", FieldType::Str), ("sum", FieldType::Float)]);
        db.create_table("accounts", TableDefinition::new("id").schema(schema)).unwrap();
        db.create_table("notes", "code").unwrap();
        Story { db, clock, who, step: 0 }
    }

    /// A table whose records compression makes smaller.
    fn repeat(&self) {
        let words = self.db.create_table("words", "id").unwrap();
        words.insert_many((0..4).map(|_| record! { "by": self.who, "text": "much the same words" })).unwrap();
    }

    /// Three commits, each of another kind.
    fn go_on(&mut self) {
        self.clock.advance(Duration::from_micros(17));
        self.step += 1;
        let (step, who) = (self.step, self.who);
        let accounts = self.db.table("accounts").unwrap();
        accounts.insert(record! { "name": format!("{who}{step}"), "sum": step as f64 / 2.0 }).unwrap();
        self.db
            .transaction(|tx| {
                let notes = tx.table("notes")?;
                notes.upsert(record! { "code": format!("n{}", step % 2), "by": who, "list": [step, null, true] })?;
                tx.table("accounts")?.update(1, record! { "sum": -0.5 * step as f64 })?;
                Ok::<_, Error>(())
            })
            .unwrap();
        match step {
            2 => {
                accounts.delete(2).unwrap();
            }
            3 => {
                self.db.create_table("extra", "id").unwrap().insert(record! { "who": who }).unwrap();
            }
            4 => self.db.drop_table("extra").unwrap(),
            _ => {}
        }
    }
}

impl Chain {
    pub(crate) fn new(shape: Shape, format: BackupFormat, who: &'static str) -> Chain {
        let storage = MemoryStorage::new();
        let mut story = Story::begin(who);
        let is_compressed = shape == Shape::Compressed;
        if is_compressed {
            story.repeat();
        }
        let manager = BackupManager::builder(&story.db, DIR)
            .file_format(format)
            .compression(if is_compressed { Compression::Lz4 } else { Compression::None })
            .storage(storage.clone())
            .incremental(!matches!(shape, Shape::FullsOnly | Shape::Compressed))
            .max_deltas_before_full(if shape == Shape::Bridged { 2 } else { 10 })
            .build()
            .unwrap();
        let mut points = Vec::new();
        let backups = if shape == Shape::Bridged { 5 } else { 3 };
        for n in 0..backups {
            story.go_on();
            let full_first = n == 0 && shape == Shape::Bridged;
            if full_first { manager.backup_full() } else { manager.backup_now() }.unwrap();
            let view = story.db.snapshot();
            points.push(BackupPoint { point: view.point(), contents: contents(&story.db), time: view.time() });
        }
        let files: BTreeMap<_, _> =
            storage.paths().into_iter().map(|p| (p.clone(), storage.read(p).unwrap())).collect();
        let wanted = match shape {
            // A full backup is made over a chain that leads here, so it brings a bridge.
            Shape::Bridged => ["backup", "backup", "delta", "delta", "delta", "delta"].as_slice(),
            Shape::DeltasOnly => &["delta", "delta", "delta"],
            Shape::FullsOnly | Shape::Compressed => &["backup", "backup", "backup"],
        };
        let label = format!("{shape:?} {format} chain of {who}");
        let kinds: Vec<bool> = files.keys().map(|p| p.to_string_lossy().contains("_backup_")).collect();
        assert_eq!(kinds, wanted.iter().map(|k| *k == "backup").collect::<Vec<_>>(), "{label}: {:?}", files.keys());
        Chain { label, files, points }
    }

    /// Every shape in every format that it exists in.
    pub(crate) fn all(who: &'static str) -> Vec<Chain> {
        let mut chains =
            Vec::from([Shape::DeltasOnly, Shape::Compressed].map(|shape| Chain::new(shape, FORMATS[0], who)));
        for format in FORMATS {
            chains.push(Chain::new(Shape::Bridged, format, who));
            chains.push(Chain::new(Shape::FullsOnly, format, who));
        }
        chains
    }

    /// The files that are of one kind, in order.
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<&PathBuf> {
        self.files.keys().filter(|path| path.to_string_lossy().contains(kind)).collect()
    }

    /// A chain whose only difference is one file.
    pub(crate) fn with(&self, path: &Path, bytes: Vec<u8>) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = self.files.clone();
        files.insert(path.to_owned(), bytes);
        files
    }
}

pub(crate) fn storage_of(files: &BTreeMap<PathBuf, Vec<u8>>) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.create_dir_all(Path::new(DIR)).unwrap();
    for (path, bytes) in files {
        storage.write(path, bytes.clone()).unwrap();
    }
    storage
}

/// What a reader may hold at once beyond the bytes of the files: two buffers of 64 KiB for JSON (the reader's and the
/// checksum's, one after the other, and their doubling while a vector grows), the head's line, tables and messages.
/// A buffered reader takes at most the file's size.
const FIXED_BYTES: u64 = 96 << 10;
/// Of the files' bytes: the reader's buffer, a payload, the rows in memory, the state before the delta at hand. Small
/// records cost more in memory than on disk.
const PER_FILE_BYTE: u64 = 12;

/// Runs `work` and fails where it panics or holds more memory at once than a small multiple of what it was given.
pub(crate) fn bounded<T>(label: &dyn Fn() -> String, input_bytes: usize, work: impl FnOnce() -> T) -> T {
    let mut outcome = None;
    let used = allocation_counter::measure(|| outcome = Some(catch_unwind(AssertUnwindSafe(work))));
    let limit = FIXED_BYTES + PER_FILE_BYTE * input_bytes as u64;
    assert!(used.bytes_max <= limit, "{}: {} bytes at once, and {limit} were allowed", label(), used.bytes_max);
    match outcome {
        Some(Ok(value)) => value,
        _ => panic!("{}: panicked", label()),
    }
}

/// What came of a restore that kept the rule.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The index of the backup point.
    Point(usize, RestoreReport),
    Refused(Error),
}

impl Outcome {
    pub(crate) fn reached(&self) -> Option<usize> {
        match self {
            Outcome::Point(index, _) => Some(*index),
            Outcome::Refused(_) => None,
        }
    }
}

/// Restores from `files` and judges it: the true state of a backup point of one of `chains`, and the report says of
/// which; or an error that names file, offset and what was expected. The files stay as they are.
pub(crate) fn restore_and_judge(
    label: &dyn Fn() -> String,
    files: &BTreeMap<PathBuf, Vec<u8>>,
    chains: &[&Chain],
    options: RestoreOptions,
) -> Outcome {
    let storage = storage_of(files);
    let bytes = files.values().map(Vec::len).sum();
    let options = options.storage(storage.clone());
    let restored = bounded(label, bytes, || options.restore(DIR));
    let unchanged = storage.paths().iter().eq(files.keys())
        && files.iter().all(|(path, bytes)| storage.read(path).unwrap() == *bytes);
    assert!(unchanged, "{}: restoring wrote to the directory", label());
    match restored {
        Ok((db, report)) => {
            let points = chains.iter().flat_map(|chain| chain.points.iter().enumerate());
            let found = points.into_iter().find(|(_, known)| known.point == report.point);
            let Some((index, known)) = found else { panic!("{}: no such backup point: {report}", label()) };
            assert_eq!(db.digest(), known.point.digest, "{}", label());
            assert_eq!(contents(&db), known.contents, "{}", label());
            assert_eq!(report.time, known.time, "{}", label());
            assert_eq!(db.parent(), Some(known.point), "{}", label());
            Outcome::Point(index, report)
        }
        Err(error) => {
            assert_says_where(label, &error);
            Outcome::Refused(error)
        }
    }
}

/// An error about a directory of damaged files says enough to act on.
pub(crate) fn assert_says_where(label: &dyn Fn() -> String, error: &Error) {
    let text = error.to_string();
    let says = match error {
        Error::Corrupt { file, offset, expected } => {
            !expected.is_empty() && text.contains(&offset.to_string()) && text.contains(&*file.to_string_lossy())
        }
        Error::ChecksumMismatch { file, .. }
        | Error::UnsupportedVersion { file, .. }
        | Error::WrongKind { file, .. }
        | Error::MissingLink { file, .. }
        | Error::DoesNotJoin { file, .. } => text.contains(&*file.to_string_lossy()),
        Error::NoBackup { damaged, .. } => {
            damaged.iter().for_each(|one| assert_says_where(label, &one.error));
            text.contains(DIR)
        }
        Error::SeveralHistories { .. } => text.contains(DIR),
        _ => false,
    };
    assert!(says, "{}: {error:?}", label());
}
