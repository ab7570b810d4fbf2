//! The one error type, with variants chosen by what the caller does next.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::history::{Lineage, Point, Seq};
use crate::value::Key;

/// What went wrong, in words that say what to do next.
///
/// ```
/// use dictdb::{record, DictDb, Error};
/// let db = DictDb::new();
/// let users = db.create_table("users", "id")?;
/// users.insert(record! { "id": 1 })?;
/// match users.insert(record! { "id": 1 }) {
///     Err(Error::DuplicateKey { table, key }) => assert_eq!((table.as_str(), key), ("users", 1.into())),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage refused an operation. Nothing was published; what was there before is untouched. (But by a
    /// [`save`](crate::DictDb::save) whose directory could not be synced: the file is the new one, and a crash may bring back
    /// the old.)
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `read`, `create`, `write`, `sync`, `rename`, ...
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's word.
        #[source]
        source: io::Error,
    },
    /// The disk is full. What was there before is untouched; make room and try again. A store whose log could not be
    /// written is poisoned: it reads on, and takes writes again once it is reopened with room.
    #[error("cannot {op} {}: the disk is full ({source}); make room and try again", path.display())]
    DiskFull {
        /// What was tried, as a verb.
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's word.
        #[source]
        source: io::Error,
    },
    /// Bytes that are not what they were when written. Restore from another backup; the file was left as it is.
    #[error("{} is damaged at byte {offset}: expected {expected}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes from its start.
        offset: u64,
        /// What should have stood there.
        expected: String,
    },
    /// A JSON backup whose text no longer fits its checksum, as after an edit by hand.
    #[error(
        "the checksum of {} no longer fits its text (stored {stored:08x}, computed {computed:08x}): the file is damaged \
         or was edited; if it was edited on purpose, ignore_checksum(true) of RestoreOptions takes it as it stands in a restore, that of \
         LoadOptions in load_with and apply_delta_with",
        file.display()
    )]
    ChecksumMismatch {
        /// The file.
        file: PathBuf,
        /// The CRC-32 that the file states.
        stored: u32,
        /// The CRC-32 of its bytes.
        computed: u32,
    },
    /// A file of another format version than this program reads. Use the dictdb that wrote it, or a newer one.
    #[error(
        "{} has format version {found}, and this dictdb reads {supported}: use the dictdb that wrote it, or a newer one",
        file.display()
    )]
    UnsupportedVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u16,
        /// The version read here.
        supported: u16,
    },
    /// A sound JSON backup of DictDB 1.11 that holds what no record here can: NaN or an infinity, an integer beyond 64 bits,
    /// half of a surrogate pair, a name twice in one object, a key that is neither an integer nor a string, more than the
    /// limits allow. Nothing is damaged, and no older backup is taken in its place.
    #[error(
        "{} holds what no record here can, at byte {offset}: expected {expected}. It is not damaged: change that in the \
         DictDB that wrote it and back up anew, or move the file away to restore the backup before it", file.display()
    )]
    UnsupportedValue {
        /// The file.
        file: PathBuf,
        /// Where in it, about, in bytes from its start.
        offset: u64,
        /// What could have stood there.
        expected: String,
    },
    /// A file of another kind than the one asked for (a delta where a full backup is wanted, or the reverse).
    #[error("{} is a {found}, not a {wanted}", file.display())]
    WrongKind {
        /// The file.
        file: PathBuf,
        /// What was asked for.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The directory holds nothing to restore from.
    #[error("{} holds no backup to restore from{}", dir.display(), seen_damaged(damaged))]
    NoBackup {
        /// The directory.
        dir: PathBuf,
        /// Full backups that are there and damaged, with what was found.
        damaged: Vec<DamagedBackup>,
    },
    /// The chain has a hole: no file that is there leads from where it got to the named delta.
    #[error("{}", missing_link(file, needs, reached))]
    MissingLink {
        /// The delta that does not join.
        file: PathBuf,
        /// Where it joins onto; the empty point of [`Lineage::DICTDB_1_11`] for a delta of DictDB 1.11, which does not say.
        needs: Box<Point>,
        /// How far the chain reaches without it.
        reached: Box<Point>,
    },
    /// A delta was applied to a database that does not stand where the delta begins.
    #[error(
        "{} joins onto {needs}; this database stands at {stands}: apply the deltas in order to an unchanged restored \
         database, or let restore() find the chain", file.display()
    )]
    DoesNotJoin {
        /// The delta.
        file: PathBuf,
        /// Where it joins onto.
        needs: Box<Point>,
        /// Where the database stands.
        stands: Box<Point>,
    },
    /// Backups of unrelated databases share a directory, and nothing says that one took over from the other; or none is of
    /// the history asked for.
    #[error("{} {}", dir.display(), histories(*wanted, lineages))]
    SeveralHistories {
        /// The directory.
        dir: PathBuf,
        /// The lineage that [`RestoreOptions::lineage`](crate::RestoreOptions::lineage) asked for, of which nothing is there.
        wanted: Option<Lineage>,
        /// One lineage of each history.
        lineages: Vec<Lineage>,
    },
    /// No table of that name.
    #[error("there is no table {table:?}: create it with create_table, or see table_names()")]
    NoSuchTable {
        /// The name asked for.
        table: String,
    },
    /// A table of that name is there already.
    #[error("table {table:?} exists already: use table({table:?}), or drop it first")]
    TableExists {
        /// The name.
        table: String,
    },
    /// No record with that key.
    #[error("table {table:?} has no record with key {key}")]
    NoSuchRecord {
        /// The table.
        table: String,
        /// The key asked for.
        key: Key,
    },
    /// A record with that key is there already.
    #[error("table {table:?} has a record with key {key} already: use upsert or replace to overwrite it")]
    DuplicateKey {
        /// The table.
        table: String,
        /// The key.
        key: Key,
    },
    /// A record whose primary key is not an integer (64 bits, signed) or a string, or is too long, or was changed.
    #[error("table {table:?}: the primary key {field:?} {problem}")]
    InvalidKey {
        /// The table.
        table: String,
        /// The primary key's field name.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A record that does not fit its table's schema.
    #[error("table {table:?}, key {key}: field {field:?} {problem}")]
    SchemaViolation {
        /// The table.
        table: String,
        /// The record's key.
        key: Key,
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A table definition that cannot be used.
    #[error("table {table:?} cannot be defined: {problem}")]
    InvalidDefinition {
        /// The table.
        table: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value that cannot become a record.
    #[error("table {table:?}: the value cannot be stored as a record: {problem}")]
    Encode {
        /// The table.
        table: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A record that does not fit the type it was asked for as.
    #[error("table {table:?}, key {key}: the record does not fit the type asked for: {problem}")]
    Decode {
        /// The table.
        table: String,
        /// The record's key.
        key: Key,
        /// What is wrong with it.
        problem: String,
    },
    /// More than the format holds in one piece. Split it, or, a name, shorten it.
    #[error("{what} takes {bytes} bytes, and the limit is {limit}: split it, or shorten it")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its bytes.
        bytes: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// Automatic keys, sequence numbers or the stamps of file names have reached the end of their range.
    #[error("{what} has no numbers left")]
    Exhausted {
        /// Which counter.
        what: String,
    },
    /// A value that JSON cannot hold exactly. Use the binary format, or change the value.
    #[error("table {table:?}, key {key}, field {field:?}: JSON cannot hold {value}; use the binary format")]
    NotRepresentable {
        /// The table.
        table: String,
        /// The record's key.
        key: Key,
        /// The path of the field.
        field: String,
        /// The value.
        value: String,
    },
    /// The ring no longer holds the commits asked for. Take a snapshot and go on from its seq.
    #[error(
        "the commits after seq {wanted} are no longer in memory, which has those from seq {oldest} on: take a snapshot() and \
         go on from its seq, or give the ring more bytes"
    )]
    Gap {
        /// The commits after this one were wanted.
        wanted: Seq,
        /// The oldest commit still held, or the next to come where none is.
        oldest: Seq,
    },
    /// Commits were asked for that lie in the future.
    #[error("seq {wanted} has not been reached yet: the database stands at {last}")]
    Ahead {
        /// The seq asked for.
        wanted: Seq,
        /// The newest seq.
        last: Seq,
    },
    /// The progress callback asked to stop. Nothing was published.
    #[error("cancelled by the progress callback")]
    Cancelled,
    /// A write from inside a transaction that did not go through the transaction.
    #[error("a write inside transaction(..) must go through its `tx`; this one would wait for itself forever")]
    NestedWrite,
    /// A backup was asked for from inside the progress callback of one of the same manager.
    #[error("a backup cannot be made from inside on_progress of the same manager: it would wait for itself forever")]
    NestedBackup,
    /// A backup of a handle whose history another one went on with, and backed up in the same directory: of a store that was
    /// closed and opened again, or only looked at. It would be what restores, and the newer commits would not. (A manager that
    /// was made only after its handle was closed takes all that is not of its history for that.)
    #[error(
        "{} holds a backup of {newest}, and this handle, which was closed or only looks on, stands at {stands}: back up \
         the handle that has the store open", dir.display()
    )]
    LeftBehind {
        /// The directory.
        dir: PathBuf,
        /// Where its newest backup leads.
        newest: Box<Point>,
        /// Where the handle stands.
        stands: Box<Point>,
    },
    /// An earlier write broke off: an append or a sync of the log failed, or the engine panicked. Reads go on; nothing
    /// more can be written through this handle or its clones. Whether the commit that reports this first is durable
    /// is not known: reopening the store decides it, by what is found on disk.
    #[error(
        "nothing more can be written, as an earlier write failed: {cause}; reads go on; reopen the store to write again"
    )]
    Poisoned {
        /// What failed first.
        #[source]
        cause: Arc<Error>,
    },
    /// A writer or the storage panicked halfway through a commit: the cause of an [`Error::Poisoned`].
    #[error("a write broke off inside the engine or its storage")]
    Panicked,
    /// Somebody has the store open: another process, or another handle of this one that is not a clone.
    #[error(
        "{} is in use by {}: close it there, or look at it with DictDb::open_read_only", dir.display(), holder(*pid)
    )]
    Locked {
        /// The store's directory.
        dir: PathBuf,
        /// The holder's process id, where it could be read.
        pid: Option<u32>,
    },
    /// A directory that holds something else than a store. Nothing was written to it.
    #[error("{} {problem}", dir.display())]
    NotAStore {
        /// The directory.
        dir: PathBuf,
        /// What it holds, and what to do.
        problem: String,
    },
    /// A directory that must be empty, or not be there, and is not. Nothing was written to it.
    #[error("{} is not empty (it holds {found:?}): name a directory that is empty or not there yet", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// One of its entries.
        found: String,
    },
    /// The directory of a store was given where one of backups is wanted. Nothing was written to it.
    #[error("{} is the directory of a store: open it with DictDb::open; backups need a directory of their own, better on another disk", dir.display())]
    StoreDirectory {
        /// The directory.
        dir: PathBuf,
    },
    /// A write to a database that was opened to be looked at.
    #[error("this database was opened with open_read_only: open it with DictDb::open to write")]
    ReadOnly,
    /// A write to a store that was closed.
    #[error("this store was closed: open it again to write")]
    Closed,
    /// What a database kept in memory alone, or an opened store, cannot do.
    #[error("{what}")]
    Unsupported {
        /// What, why, and what to do instead.
        what: &'static str,
    },
    /// A setting that makes no sense.
    #[error("{setting} {problem}")]
    InvalidSetting {
        /// Which one.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A backup file that was found damaged, and how.
#[derive(Debug)]
pub struct DamagedBackup {
    /// The file.
    pub file: PathBuf,
    /// What was found.
    pub error: Box<Error>,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { op, path, source },
                _ => Error::Io { op, path, source },
            }
        }
    }

    /// Damage to a file, as opposed to a storage that cannot be read or a program that is too old.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Error::Corrupt { .. }
                | Error::ChecksumMismatch { .. }
                | Error::WrongKind { .. }
                | Error::DoesNotJoin { .. }
        )
    }

    /// Whether a full disk is behind this: [`Error::DiskFull`], or an [`Error::Poisoned`] that it caused.
    ///
    /// ```
    /// # use dictdb::Error;
    /// assert!(!Error::ReadOnly.is_disk_full());
    /// ```
    pub fn is_disk_full(&self) -> bool {
        match self {
            Error::DiskFull { .. } => true,
            Error::Poisoned { cause } => cause.is_disk_full(),
            _ => false,
        }
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, expected: impl Into<String>) -> Error {
        Error::Corrupt { file: file.to_owned(), offset, expected: expected.into() }
    }
}

pub(crate) const PANICKED: &str = "the storage or the clock panicked";

/// A storage or a clock of the user's that panics fails what it was wanted for, and nothing else.
pub(crate) fn catch_panics<T>(op: &'static str, dir: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Io { op, path: dir.to_owned(), source: io::Error::other(PANICKED) }))
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another process or handle".to_owned(), |pid| format!("process {pid}"))
}

/// Why a delta is missed, and what to do.
fn missing_link(file: &Path, needs: &Point, reached: &Point) -> String {
    let (file, accept) = (file.display(), "accept the earlier point with RestoreOptions::accept_earlier(true)");
    if *needs == Point::empty(Lineage::DICTDB_1_11) {
        return format!(
            "{file} is a delta of DictDB 1.11, which does not say what it joins onto, and comes behind a full backup that is \
             damaged, or one or a chain that is not DictDB's, so that it is not known whether it goes on from there (the chain \
             before reaches {reached}): if it does not, move that full backup away, or this delta; else load and apply_delta \
             it by hand, or {accept}"
        );
    }
    format!(
        "{file} joins onto {needs}, which the chain does not reach (it reaches {reached}): a backup is missing or damaged; \
         put it back, or {accept}"
    )
}

/// What a directory holds instead of the one history wanted.
fn histories(wanted: Option<Lineage>, found: &[Lineage]) -> String {
    let list = found.iter().map(Lineage::to_string).collect::<Vec<_>>().join(", ");
    match wanted {
        None => format!(
            "holds backups of unrelated histories ({list}): say which one to restore with RestoreOptions::lineage, or \
             move the strangers away"
        ),
        Some(wanted) if found.is_empty() => format!("holds no backup of lineage {wanted}, and of no other"),
        Some(wanted) => format!(
            "holds no backup of lineage {wanted}, only of {list}: restore one of those with RestoreOptions::lineage, or \
             look for another directory"
        ),
    }
}

fn seen_damaged(damaged: &[DamagedBackup]) -> String {
    match damaged.first() {
        None => String::new(),
        Some(first) => format!(" ({} damaged; the newest: {})", damaged.len(), first.error),
    }
}
