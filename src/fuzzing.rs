//! What the fuzz targets do, for `cargo fuzz` and for `cargo test` alike: the corpus is replayed through this code.
//!
//! A target takes any bytes and says whether the reader accepted what became of them. The first byte picks how
//! (`Mode`): taken as they are, or with checksums, counts and digest made right first, without which next to nothing
//! would get past them to the reader behind. A target panics where a promise is broken:
//! - no bytes make a reader panic, and an error says a place inside the file;
//! - what is accepted is as its seal says, and is written again as the same bytes;
//! - what is accepted means the same in the other format;
//! - what opens as a store is there again after every commit, close, crash and fault, as far as it was acknowledged.
//!
//! Not a stable interface.

#![expect(clippy::expect_used, reason = "a harness reports by panicking")]

use std::path::Path;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::file::compression::{self, Compression, Compressor};
use crate::file::header::{FileKind, HEADER_BYTES, Header};
use crate::file::name::{BackupFormat, BackupKind};
use crate::file::seal::Seal;
use crate::file::sink::{Existing, Sink, publish};
use crate::file::{self, Made, Origin, Trust, json};
use crate::frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::history::{Seq, Timestamp};
use crate::mutation::{Commit, CommitReader, CommitWriter, Event, Mutation};
use crate::progress::{Stage, Watch};
use crate::ring::RingBytes;
use crate::ring::{Ring, RingSlice};
use crate::row;
use crate::state::State;
use crate::storage::{MemoryStorage, Storage};
use crate::wire::{self, Reader};

mod log;
mod repair;
mod seeds;
mod store;

pub use log::log_recover;
pub use seeds::{Seed, seeds};
pub use store::store_ops;

use repair::frames_of;
use seeds::{BASE, LINEAGE, operations};

/// A target: its name and what it does.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("delta_binary", delta_binary),
    ("delta_json", delta_json),
    ("snapshot_binary", snapshot_binary),
    ("snapshot_json", snapshot_json),
    ("frame", frame),
    ("delta_roundtrip", delta_roundtrip),
    ("log_recover", log_recover),
    ("store_ops", store_ops),
];

/// Choices, taken one by one off an input; 0 where it is at its end.
struct Picks<'a>(&'a [u8]);

impl Picks<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn pick(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// Some bytes, their number first.
    fn some(&mut self) -> Vec<u8> {
        let wanted = usize::from(self.pick());
        let (some, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        some.to_vec()
    }
}

/// What the first byte of an input asks for, by its remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Mode {
    /// The rest is the file.
    Raw = 0,
    /// The rest is the file, its checksums to be made right.
    Checksums = 1,
    /// The rest is the file; checksums, counts and digest are to be made right.
    Everything = 2,
    /// The rest is what a file holds; header and seal are to be put around it.
    Contents = 3,
    /// The rest picks operations on a database, whose commits are then the file (`delta_roundtrip` only).
    Operations = 4,
}

impl Mode {
    /// Takes it off the front; the last of `modes` is for all that is left over.
    fn of(data: &[u8], modes: u8) -> Option<(Mode, &[u8])> {
        let (first, rest) = data.split_first()?;
        let mode = match first % modes {
            0 => Mode::Raw,
            1 => Mode::Checksums,
            2 => Mode::Everything,
            3 => Mode::Contents,
            _ => Mode::Operations,
        };
        Some((mode, rest))
    }
}

/// A delta backup in binary, applied to a database that has tables and rows.
pub fn delta_binary(data: &[u8]) -> bool {
    let Some((mode, rest)) = Mode::of(data, 4) else { return false };
    let file = repair::container(FileKind::Delta, mode, rest);
    let state = apply(&file, Trust::default());
    if mode == Mode::Contents {
        assert_eq!(
            state.is_some(),
            repair::replays(&file),
            "what recovery replays a restore applies, and nothing else"
        );
    }
    let Some(state) = state else { return false };
    let summary = inspect(&file, BackupKind::Delta).expect("a delta that applies has a beginning and an end");
    assert_eq!(summary.history.map(|h| h.end), history_of(&file, &state), "the seal says where the delta leads");
    if file.first() == Some(&0x89) {
        same_delta_in_json(&slice_of(&file, &state), &state);
    }
    same_snapshot_again(&state);
    true
}

/// A delta backup in JSON, ours or DictDB 1.11's, applied to a database that has tables and rows.
pub fn delta_json(data: &[u8]) -> bool {
    let Some((mode, rest)) = Mode::of(data, 4) else { return false };
    let file = repair::delta_document(mode, rest);
    let Some(state) = apply(&file, Trust::default()) else { return false };
    let lenient = apply(&file, Trust { ignore_checksum: true }).expect("less strict is not stricter");
    assert_eq!((lenient.point(), lenient.time), (state.point(), state.time));
    let summary = inspect(&file, BackupKind::Delta).expect("a delta that applies has a beginning and an end");
    assert_eq!(summary.history.map(|h| h.end), history_of(&file, &state), "the head says where the delta leads");
    if summary.history.is_none() {
        same_as_a_commit(&file, &state);
    }
    same_snapshot_again(&state);
    true
}

/// A full backup in binary.
pub fn snapshot_binary(data: &[u8]) -> bool {
    let Some((mode, rest)) = Mode::of(data, 4) else { return false };
    let file = repair::container(FileKind::Snapshot, mode, rest);
    let Some(state) = load(&file, Trust::default()) else { return false };
    let summary = inspect(&file, BackupKind::Full).expect("a full backup that loads has a beginning and an end");
    assert_eq!(summary.history.map(|h| h.end), history_of(&file, &state), "the seal says what the backup holds");
    if file.first() == Some(&0x89) {
        let again = write_full(BackupFormat::Binary, &state, origin_of(&file)).expect("memory takes every file");
        // How rows are split into blocks, and compressed, is the writer's choice: one plain frame a table at this size.
        let blocks = frames_of(&file).filter(|frame| frame[0] == FrameKind::Rows as u8).count();
        let filled = state.tables().filter(|(_, table)| table.len() > 0).count();
        if blocks == filled && file.len() < crate::limits::BLOCK_BYTES {
            assert_eq!(again, file, "what is accepted is written again as the same bytes");
        }
    }
    same_snapshot_again(&state);
    true
}

/// A full backup in JSON, ours or DictDB 1.11's.
pub fn snapshot_json(data: &[u8]) -> bool {
    let Some((mode, rest)) = Mode::of(data, 4) else { return false };
    let file = repair::full_document(mode, rest);
    let Some(state) = load(&file, Trust::default()) else { return false };
    let lenient = load(&file, Trust { ignore_checksum: true }).expect("less strict is not stricter");
    assert_eq!((lenient.point(), lenient.time), (state.point(), state.time));
    let summary = inspect(&file, BackupKind::Full).expect("a full backup that loads has a beginning and an end");
    assert_eq!(summary.history.map(|h| h.end), history_of(&file, &state), "the head says what the backup holds");
    same_snapshot_again(&state);
    true
}

/// Frames one after the other, and what their payloads say, to the last value.
pub fn frame(data: &[u8]) -> bool {
    let Some((mode, rest)) = Mode::of(data, 2) else { return false };
    let bytes = if mode == Mode::Raw { rest.to_vec() } else { repair::frames(rest, LINEAGE) };
    let mut left = bytes.as_slice();
    let mut accepted = false;
    while let Some((header, behind)) = left.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let Ok(parsed) = FrameHeader::parse(header, LINEAGE) else { break };
        let Some((payload, behind)) = behind.split_at_checked(parsed.payload_bytes) else { break };
        if !parsed.fits(payload, LINEAGE) {
            break;
        }
        let again = repair::frame_of(parsed.kind, LINEAGE, parsed.seq, parsed.synced, payload);
        assert_eq!(again, left[..again.len()], "an accepted frame is written again as the same bytes");
        accepted |= match parsed.kind {
            FrameKind::Commit => commit_payload(parsed.seq, payload),
            FrameKind::Table => table_payload(payload),
            FrameKind::Rows => rows_payload(payload),
            FrameKind::CompressedRows => compressed_payload(payload),
            FrameKind::Seal | FrameKind::Continued => Seal::decode(&parsed, payload).is_some_and(|seal| {
                assert_eq!(
                    seal.encode_as(parsed.kind, LINEAGE, parsed.synced),
                    again,
                    "an accepted seal is written again as the same bytes"
                );
                true
            }),
        };
        left = behind;
    }
    accepted
}

/// A delta in binary: its commits read and written again, one by one and as a file.
pub fn delta_roundtrip(data: &[u8]) -> bool {
    let Some((mode, rest)) = Mode::of(data, 5) else { return false };
    let file = match mode {
        Mode::Operations => operations(rest),
        _ => repair::container(FileKind::Delta, mode, rest),
    };
    let state = match apply(&file, Trust::default()) {
        Some(state) if file.first() == Some(&0x89) => state,
        refused => {
            assert!(mode != Mode::Operations || refused.is_some(), "what the write path made is accepted");
            return false;
        }
    };
    let slice = slice_of(&file, &state);
    for frame in slice.frames() {
        assert!(commit_payload(frame.seq, frame.payload), "a commit that applies also decodes");
    }
    let again = write_delta(BackupFormat::Binary, &slice, &state, origin_of(&file)).expect("memory takes every file");
    assert_eq!(again, file, "what is accepted is written again as the same bytes");
    same_delta_in_json(&slice, &state);
    true
}

/// Where files lie.
const PATH: &str = "/fuzz/file";

fn storage_with(file: &[u8]) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.write(PATH, file).expect("memory takes every file");
    storage
}

fn watch(stage: Stage) -> Watch<'static> {
    Watch::new(None, stage, Path::new(PATH))
}

/// A refusal that tells of damage tells a place inside the file, and memory fails at nothing.
fn accepted<T>(file: &[u8], outcome: Result<T>) -> Option<T> {
    match outcome {
        Ok(value) => return Some(value),
        Err(Error::Corrupt { offset, expected, .. }) => {
            let bytes = file.len() as u64;
            assert!(offset <= bytes, "damage at byte {offset} of {bytes}: {expected}");
            assert!(!expected.is_empty());
        }
        Err(error @ (Error::Io { .. } | Error::Cancelled | Error::Poisoned { .. })) => panic!("{error}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    None
}

fn load(file: &[u8], trust: Trust) -> Option<State> {
    let read = file::read_full(&storage_with(file), Path::new(PATH), trust, &watch(Stage::ReadingFull));
    accepted(file, read)
}

fn apply(file: &[u8], trust: Trust) -> Option<State> {
    let mut state = BASE.clone();
    let watch = watch(Stage::ReadingDelta);
    let applied = file::apply_delta(&storage_with(file), Path::new(PATH), &mut state, trust, &watch);
    accepted(file, applied).map(|_| state)
}

fn inspect(file: &[u8], kind: BackupKind) -> Option<file::Summary> {
    accepted(file, file::inspect(&storage_with(file), Path::new(PATH), kind, Trust::default()))
}

fn written(fill: impl FnOnce(&mut Sink) -> Result<Made>) -> Result<Vec<u8>> {
    let storage = MemoryStorage::new();
    storage.create_dir_all(Path::new("/fuzz")).expect("memory has room for a directory");
    publish(&storage, Path::new(PATH), Existing::Refuse, fill)?;
    Ok(storage.read(PATH).expect("what was published is there"))
}

fn write_full(format: BackupFormat, state: &State, origin: Origin) -> Result<Vec<u8>> {
    write_compressed(format, Compression::None, state, origin)
}

fn write_compressed(format: BackupFormat, compression: Compression, state: &State, origin: Origin) -> Result<Vec<u8>> {
    written(|sink| file::write_full(format, compression, sink, state.clone(), &origin, &watch(Stage::WritingFull)))
}

fn write_delta(format: BackupFormat, slice: &RingSlice, state: &State, origin: Origin) -> Result<Vec<u8>> {
    written(|sink| file::write_delta(format, sink, slice, state, &origin, &watch(Stage::WritingDelta)))
}

/// The state's point, where the file is one that has a history.
fn history_of(file: &[u8], state: &State) -> Option<crate::Point> {
    let ours = file.first() == Some(&0x89) || file.starts_with(json::head::OPENING.as_bytes());
    ours.then(|| state.point())
}

/// What the header of an accepted binary file says that the state does not.
fn origin_of(file: &[u8]) -> Origin {
    let header = file.first_chunk::<HEADER_BYTES>().expect("an accepted file has a header");
    let header = Header::parse(header, Path::new(PATH)).expect("an accepted file has a sound header");
    Origin { base: header.base, created: header.created }
}

/// The commits of an accepted binary delta, as a ring of the smallest size hands them out.
fn slice_of(file: &[u8], state: &State) -> RingSlice {
    let mut ring = Ring::new(RingBytes::Fixed(file.len()), BASE.seq);
    for (frame, n) in frames_of(file).zip(1..) {
        ring.push(Seq::new(BASE.seq.get().saturating_add(n)), frame);
    }
    ring.since(BASE.seq, state.seq).expect("the ring holds the whole file")
}

const NO_ORIGIN: Origin = Origin { base: None, created: Timestamp::from_micros(-1) };

/// Any state goes through either format and comes back the same, and is then written as the same bytes.
fn same_snapshot_again(state: &State) {
    for (format, compression) in [
        (BackupFormat::Binary, Compression::None),
        (BackupFormat::Binary, Compression::Lz4),
        (BackupFormat::Json, Compression::None),
    ] {
        let write = |state| write_compressed(format, compression, state, NO_ORIGIN);
        let file = match write(state) {
            Ok(file) => file,
            Err(error) => return assert_not_representable(&error, format, state),
        };
        let again = load(&file, Trust::default()).unwrap_or_else(|| panic!("{format:?} of {state:?} is refused"));
        assert_eq!((again.identity, again.time, again.point()), (state.identity, state.time, state.point()));
        let twice = write(&again).expect("it was written before");
        assert!(twice == file, "{format:?} of {state:?} is written in two ways");
    }
}

/// The commits' outcome, written as JSON and applied to what the commits applied to, is what the commits led to.
fn same_delta_in_json(slice: &RingSlice, state: &State) {
    let origin = Origin { base: Some(BASE.point()), created: Timestamp::from_micros(1) };
    let file = match write_delta(BackupFormat::Json, slice, state, origin) {
        Ok(file) => file,
        Err(error) => return assert_not_representable(&error, BackupFormat::Json, state),
    };
    let again = apply(&file, Trust::default())
        .unwrap_or_else(|| panic!("refused though ours:\n{}", String::from_utf8_lossy(&file)));
    assert_eq!((again.identity, again.time, again.point()), (state.identity, state.time, state.point()));
}

/// Only JSON cannot hold everything, and only floats that are no numbers.
fn assert_not_representable(error: &Error, format: BackupFormat, state: &State) {
    let Error::NotRepresentable { table, key, .. } = error else { panic!("{format:?}: {error}") };
    let row = state.table(table).and_then(|table| table.get(key)).expect("the error names a record that is there");
    assert!(format == BackupFormat::Json && row::first_non_finite(row).is_some(), "{error}");
}

/// A delta of DictDB 1.11 goes into a running database as a commit, with the same outcome.
fn same_as_a_commit(file: &[u8], state: &State) {
    let (mut live, mut frame) = (BASE.clone(), Vec::new());
    let mut batch = Batch::new(&mut live, &mut frame);
    let (storage, watch) = (storage_with(file), watch(Stage::ReadingDelta));
    let applied = json::commit_dictdb_delta(&storage, Path::new(PATH), &mut batch, &watch);
    accepted(file, applied).expect("what a restore applies, a running database applies");
    let nothing_done = batch.is_empty();
    assert_eq!(live.digest(), state.digest(), "restored and live agree");
    if nothing_done {
        return;
    }
    let payload = frame.get(FRAME_HEADER_BYTES..).expect("a batch begins with room for the frame's header");
    let mut replayed = BASE.clone();
    replayed.apply(Seq::new(BASE.seq.get().saturating_add(1)), payload).expect("what was committed is replayed");
    assert_eq!(replayed.digest(), state.digest(), "the log says what was done");
}

/// A commit's payload: read, decoded, and each way written again as the same bytes.
fn commit_payload(seq: Seq, payload: &[u8]) -> bool {
    let Ok(commit) = Commit::decode(seq, payload) else { return false };
    let mut reader = CommitReader::new(payload).expect("it was read before");
    let mut again = Vec::new();
    let mut writer = CommitWriter::begin(&mut again);
    for mutation in &commit.mutations {
        let (table, event) = reader.next().expect("it was read before").expect("as many as were decoded");
        match (event, mutation) {
            (Event::Put { key_field, names, values }, Mutation::Put { key, record, .. }) => {
                let row = &[names, values].concat();
                if row::validate(row).is_err() {
                    // Replay refuses it: decoding is for what a ring holds.
                    return false;
                }
                let mut encoded = Vec::new();
                row::encode_record(record, &mut encoded).expect("a decoded record encodes");
                assert_eq!(encoded, *row, "a record is written again as the same bytes");
                let (_, found) = row::key_at_field(row, key_field).expect("it was read before");
                assert_eq!(found, *key);
                writer.put(&mut again, table, key_field, &encoded);
            }
            (Event::Delete { .. }, Mutation::Delete { key, .. }) => writer.delete(&mut again, table, key),
            (Event::Create { .. }, Mutation::CreateTable { definition, .. }) => {
                writer.create(&mut again, table, definition);
            }
            (Event::Drop, Mutation::DropTable { .. }) => writer.drop_table(&mut again, table),
            (event, mutation) => panic!("{event:?} was decoded as {mutation:?}"),
        }
    }
    CommitWriter::set_time(&mut again, commit.time);
    assert_eq!(again, payload, "a commit is written again as the same bytes");
    true
}

/// The payload of a snapshot's table frame.
fn table_payload(payload: &[u8]) -> bool {
    let mut reader = Reader::new(payload);
    let Ok(name) = reader.str() else { return false };
    let Ok(definition) = crate::TableDefinition::decode(&mut reader) else { return false };
    let (Ok(next_key), Ok(rows), Ok(())) = (reader.u64(), reader.u64(), reader.finish()) else { return false };
    let mut again = Vec::new();
    wire::put_str(&mut again, name);
    definition.encode_into(&mut again);
    wire::put_u64(&mut again, next_key);
    wire::put_u64(&mut again, rows);
    assert_eq!(again, payload, "a table is written again as the same bytes");
    true
}

/// The payload of a snapshot's compressed rows frame: what it decompresses to.
fn compressed_payload(payload: &[u8]) -> bool {
    let Ok(block) = compression::decompressed(payload) else { return false };
    let mut again = block.clone();
    if Compressor::new().compress(&mut again, 0) {
        assert_eq!(compression::decompressed(&again), Ok(block.clone()), "what was compressed decompresses");
    }
    rows_payload(&block)
}

/// The payload of a snapshot's rows frame: every row that is one goes through everything that reads rows.
fn rows_payload(payload: &[u8]) -> bool {
    let mut valid = false;
    for (names, values) in repair::rows_of(Reader::new(payload)) {
        let bytes = &[names, values].concat();
        if row::validate(bytes).is_err() {
            // Never more than an error, whatever the bytes are.
            let _ = (row::decode_record(bytes), row::find_key(bytes, "id"), row::merge(bytes, bytes));
            let _ = (row::first_non_finite(bytes), serde_json::to_string(&row::RowView::new(bytes)));
            continue;
        }
        valid = true;
        let record = row::decode_record(bytes).expect("a valid row decodes");
        let mut again = Vec::new();
        row::encode_record(&record, &mut again).expect("a decoded record encodes");
        assert_eq!(again, *bytes, "a row is written again as the same bytes");
        row::find_key(bytes, "id").expect("a valid row is searched");
        assert_eq!(row::merge(bytes, bytes).as_ref(), Ok(bytes), "a row merged with itself is itself");
        match serde_json::to_string(&row::RowView::new(bytes)) {
            Ok(text) => {
                again.clear();
                row::json_text_to_row(&text, &mut again).unwrap_or_else(|error| panic!("{error}: {text}"));
                assert_eq!(again, *bytes, "a row comes back from JSON as the same bytes: {text}");
                assert_eq!(row::first_non_finite(bytes).map(|(_, float)| float), None);
            }
            Err(error) => assert!(row::first_non_finite(bytes).is_some(), "{error}"),
        }
    }
    valid
}
