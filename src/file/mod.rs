//! Backup files: what their bytes mean. One kind each, streaming; which file to read or write is decided above.
//!
//! | module | what |
//! |---|---|
//! | `name`, `store_name` | file names |
//! | `header`, `seal`, `container` | the frame around every binary file |
//! | `snapshot`, `delta` | full and delta backups in binary |
//! | `blocks`, `compression` | a snapshot's rows, and how they get smaller |
//! | `json` | both in DictDB's JSON |
//! | `source`, `sink` | reading with offsets; publishing whole or not at all |
//! | `blocks`, `pipeline` | a snapshot's rows; the threads that decode them |
//!
//! Promise: nothing here trusts a byte. What is handed up has passed every check of SPEC.md, or is an error that names
//! file and offset.

use std::path::Path;

use crate::error::{Error, Result};
use crate::history::{Digest, Lineage, Point, Timestamp};
use crate::progress::Watch;
use crate::ring::RingSlice;
use crate::state::{Applied, Identity, State};
use crate::storage::Storage;

mod blocks;
pub(crate) mod compression;
pub(crate) mod container;
mod delta;
pub(crate) mod header;
pub(crate) mod json;
pub(crate) mod name;
pub(crate) mod seal;
pub(crate) mod sink;
mod snapshot;
pub(crate) mod source;
pub(crate) mod store_name;

use compression::Compression;
use container::ContainerReader;
pub(crate) use delta::{Pending, Unsound};
use header::{FileKind, Header};
use name::{BackupFormat, BackupKind};
use sink::Sink;
use source::Source;

/// What a file is written with beside the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) base: Option<Point>,
    pub(crate) created: Timestamp,
}

impl Origin {
    fn header(&self, kind: FileKind, identity: Identity) -> Header {
        let Origin { base, created } = *self;
        Header { kind, lineage: identity.lineage, parent: identity.parent, base, created, preallocation: 0 }
    }
}

/// What a writer wrote.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made {
    /// Records of a full backup; puts and deletes of a delta.
    pub(crate) records: u64,
    pub(crate) commits: u64,
}

/// How strictly JSON is read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trust {
    /// Take the text as it stands: neither its checksum nor its digest is compared, nor the digest of what comes behind it.
    pub(crate) ignore_checksum: bool,
}

/// `compression` is for the binary format.
pub(crate) fn write_full(
    format: BackupFormat,
    compression: Compression,
    sink: &mut Sink,
    state: State,
    origin: &Origin,
    watch: &Watch<'_>,
) -> Result<Made> {
    match format {
        BackupFormat::Binary => snapshot::write(compression, sink, state, origin, watch),
        BackupFormat::Json => json::write_full(sink, &state, origin, watch),
    }
}

pub(crate) fn write_delta(
    format: BackupFormat,
    sink: &mut Sink,
    slice: &RingSlice,
    state: &State,
    origin: &Origin,
    watch: &Watch<'_>,
) -> Result<Made> {
    match format {
        BackupFormat::Binary => delta::write(sink, slice, state, origin, watch),
        BackupFormat::Json => json::write_delta(sink, slice, state, origin, watch),
    }
}

/// Reads a full backup whole and checks all of it, its format told by its content.
pub(crate) fn read_full(storage: &dyn Storage, path: &Path, trust: Trust, watch: &Watch<'_>) -> Result<State> {
    match sniff(storage, path)? {
        BackupFormat::Binary => snapshot::read(ContainerReader::open(storage, path)?, watch),
        BackupFormat::Json => json::read_full(storage, path, trust, watch),
    }
}

/// Reads a binary file whole and checks its checksums, counts and hash; what its rows say is not looked at.
pub(crate) fn verify(storage: &dyn Storage, path: &Path, watch: &Watch<'_>) -> Result<()> {
    let mut file = ContainerReader::open(storage, path)?;
    let bytes = file.bytes();
    while let container::Item::Frame(_) = file.next()? {
        watch.report(0, None, file.offset(), Some(bytes))?;
    }
    Ok(())
}

/// Applies a delta, its format told by its content. On failure the state is of no use.
pub(crate) fn apply_delta(
    storage: &dyn Storage,
    path: &Path,
    state: &mut State,
    trust: Trust,
    watch: &Watch<'_>,
) -> Result<Applied> {
    let mut pending = Pending::default();
    let applied = read_delta(storage, path, state, &mut pending, trust, watch).map_err(|unsound| unsound.error)?;
    pending.settle(state).map_err(|unsound| unsound.error)?;
    Ok(applied)
}

/// The same for one of several, whose changes are made together with the others': see [`Pending`].
pub(crate) fn read_delta(
    storage: &dyn Storage,
    path: &Path,
    state: &mut State,
    pending: &mut Pending,
    trust: Trust,
    watch: &Watch<'_>,
) -> std::result::Result<Applied, Unsound> {
    let file = match sniff(storage, path) {
        Ok(BackupFormat::Binary) => ContainerReader::open(storage, path).map(Some),
        Ok(BackupFormat::Json) => Ok(None),
        Err(error) => Err(error),
    };
    match file {
        Ok(Some(file)) => delta::read(file, state, pending, trust, watch),
        Ok(None) => {
            pending.settle(state)?;
            pending.begin(path.to_owned());
            json::apply_delta(storage, path, state, trust, watch).map_err(|error| pending.unsound(state, error))
        }
        Err(error) => {
            pending.begin(path.to_owned());
            Err(pending.unsound(state, error))
        }
    }
}

/// What a file says of itself at its beginning and its end; what lies between has not been read.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) kind: BackupKind,
    pub(crate) format: BackupFormat,
    /// `None` for a file of DictDB 1.11.
    pub(crate) history: Option<SummaryHistory>,
    pub(crate) bytes: u64,
}

/// The part of a summary that files of DictDB 1.11 lack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SummaryHistory {
    pub(crate) parent: Option<Point>,
    pub(crate) base: Option<Point>,
    pub(crate) end: Point,
    pub(crate) created: Timestamp,
    pub(crate) time: Timestamp,
    pub(crate) records: u64,
}

/// Reads a file's beginning and end. `expected` is the kind that its name says, which for a file of DictDB 1.11 is all
/// there is to go by.
pub(crate) fn inspect(storage: &dyn Storage, path: &Path, expected: BackupKind, trust: Trust) -> Result<Summary> {
    if sniff(storage, path)? == BackupFormat::Json {
        return json::inspect(storage, path, expected, trust);
    }
    let mut file = ContainerReader::open(storage, path)?;
    let kind = match file.header.kind {
        FileKind::Snapshot => BackupKind::Full,
        FileKind::Delta => BackupKind::Delta,
        // It ends in another way, if it ends at all.
        FileKind::Log => {
            let (file, found) = (path.to_owned(), FileKind::Log.name());
            return Err(Error::WrongKind { file, wanted: "backup", found });
        }
    };
    let seal = file.peek_seal()?;
    if seal.file_bytes != file.bytes() {
        return Err(Error::corrupt(
            path,
            file.bytes(),
            format!("a file of {} bytes, as its seal says", seal.file_bytes),
        ));
    }
    let Header { lineage, parent, base, created, .. } = file.header;
    let end = Point { lineage, seq: seal.seq, digest: seal.digest };
    let history = SummaryHistory { parent, base, end, created, time: seal.time, records: seal.records };
    Ok(Summary { kind, format: BackupFormat::Binary, history: Some(history), bytes: file.bytes() })
}

/// Checks what [`inspect`] took at its word, as far as it did: a binary file's header and seal have checksums of their
/// own, the first line of a JSON file lies under the one that covers the whole of it; one without is DictDB 1.11's.
pub(crate) fn check_summary(storage: &dyn Storage, path: &Path, summary: &Summary, trust: Trust) -> Result<()> {
    match summary.format {
        BackupFormat::Json if summary.history.is_none() => json::verify_dictdb(storage, path),
        BackupFormat::Json if !trust.ignore_checksum => json::verify(storage, path),
        _ => Ok(()),
    }
}

/// Binary files begin with a byte that no JSON text has.
fn sniff(storage: &dyn Storage, path: &Path) -> Result<BackupFormat> {
    let mut source = Source::open(storage, path)?;
    match source.array::<1>("a binary backup's magic, or JSON")? {
        [0x89] => Ok(BackupFormat::Binary),
        [b'{' | b' ' | b'\t' | b'\r' | b'\n'] => Ok(BackupFormat::Json),
        _ => Err(Error::corrupt(path, 0, "a binary backup's magic (89 44 44 42 ...) or JSON's {")),
    }
}

fn check_digest(path: &Path, at: u64, stated: crate::history::Digest, state: &State) -> Result<()> {
    let computed = state.digest();
    if stated == computed {
        return Ok(());
    }
    Err(Error::corrupt(path, at, format!("contents whose digest is the {stated} that the file states, not {computed}")))
}

/// A delta joins onto a state at its base, or onto one that was restored from its base and not written to since.
/// `digest` is the state's; text that was edited has made another of it than the delta says.
fn check_joins(path: &Path, base: Option<Point>, state: &State, digest: Digest, trust: Trust) -> Result<()> {
    let needs = base.ok_or_else(|| Error::corrupt(path, 32, "the base that the delta joins onto"))?;
    if joins(needs, state, if trust.ignore_checksum { needs.digest } else { digest }) {
        return Ok(());
    }
    let stands = Point { lineage: state.identity.lineage, seq: state.seq, digest };
    Err(Error::DoesNotJoin { file: path.to_owned(), needs: Box::new(needs), stands: Box::new(stands) })
}

pub(crate) fn joins(base: Point, state: &State, digest: Digest) -> bool {
    let parent = state.identity.parent;
    let restored_there = parent.is_some_and(|parent| parent.lineage == base.lineage && parent.seq == base.seq);
    // The empty database is the same in every history, before its first commit.
    let from_empty = base.seq == crate::history::Seq::ZERO && parent.is_none() && state.table_count() == 0;
    let same_history = base.lineage == state.identity.lineage || restored_there || from_empty;
    let same_place = base.seq == state.seq && same_history;
    same_place && base.digest == digest && base.lineage != Lineage::NONE
}

/// Lets the program's other threads go first, from here to the end of this one: nobody should wait for a core because
/// a file is being written.
pub(crate) fn give_way() {
    /// What is added to a thread's niceness: such a thread gets a tenth of what one of the others does.
    #[cfg(target_os = "linux")]
    const NICE: i32 = 10;
    // On Linux it is the thread's own; elsewhere it would be the whole program's.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICE);
}
