//! Inputs to start from, and the database that deltas are applied to. Everything here is the same in every run.

use std::sync::LazyLock;

use super::log;
use super::repair::{SEPARATOR, frames_of, without_seal};
use super::{
    BackupFormat, Batch, Compression, FRAME_HEADER_BYTES, FrameKind, Mode, NO_ORIGIN, Origin, Ring, Seq, State,
    Timestamp, frame, json, repair, row, wire, write_compressed, write_delta, write_full,
};
use crate::definition::{FieldType, Schema, TableDefinition};
use crate::file::header::{FileKind, Header};
use crate::history::{Digest, Lineage};
use crate::mutation::CommitWriter;
use crate::record;
use crate::ring::RingBytes;
use crate::state::Identity;
use crate::value::{Key, Record, Value};

/// The history of everything here.
pub(super) const LINEAGE: Lineage = Lineage::from_bytes(*b"the fuzzers' own");

/// What deltas are applied to: two tables with rows and one without.
pub(super) static BASE: LazyLock<State> = LazyLock::new(|| {
    let mut state = State::empty(Identity { lineage: LINEAGE, parent: None });
    commit(&mut state, |batch| {
        for name in ["a", "b", "c"] {
            create(batch, name);
        }
    });
    commit(&mut state, |batch| {
        for n in 1..=3_i64 {
            insert(batch, "a", record! { "id": n, "v": n * 100 });
        }
        insert(batch, "b", record! { "k": "x", "n": 1, "f": 1.5 });
        insert(batch, "b", record! { "k": "y", "n": 2, "f": -0.0 });
    });
    state
});

/// The tables that inputs know by name; `b` has a schema.
fn create(batch: &mut Batch<'_>, name: &str) {
    let definition = if name == "b" {
        let fields = [("k", FieldType::Str), ("n", FieldType::Int), ("f", FieldType::Float)];
        TableDefinition::new("k").schema(Schema::new(fields))
    } else {
        TableDefinition::new("id")
    };
    // Where it is there already, nothing happens.
    let _ = batch.create_table(name, &definition);
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut row = Vec::new();
    row::encode_record(record, &mut row).expect("a record within the limits");
    row
}

fn insert(batch: &mut Batch<'_>, table: &str, record: Record) {
    batch.insert(table, &encoded(&record)).expect("a record that fits its table");
}

/// Commits what `body` does, as the database does it; gives the frame, or nothing where nothing was done.
pub(super) fn commit(state: &mut State, body: impl FnOnce(&mut Batch<'_>)) -> Vec<u8> {
    let mut frame = Vec::new();
    let seq = Seq::new(state.seq.get().saturating_add(1));
    let mut batch = Batch::new(state, &mut frame);
    body(&mut batch);
    if batch.is_empty() {
        return Vec::new();
    }
    let time = Timestamp::from_micros(1_000_000 * seq.get().cast_signed());
    CommitWriter::set_time(&mut frame[FRAME_HEADER_BYTES..], time);
    frame::finish(&mut frame, 0, FrameKind::Commit, state.identity.lineage, seq, Seq::ZERO);
    (state.seq, state.time) = (seq, time);
    frame
}

/// A binary delta of the operations that the bytes pick, most of which succeed; those that fail must leave no trace.
pub(super) fn operations(data: &[u8]) -> Vec<u8> {
    let header = Header {
        kind: FileKind::Delta,
        lineage: LINEAGE,
        parent: None,
        base: Some(BASE.point()),
        created: BASE.time,
        preallocation: 0,
    };
    let mut file = header.encode().to_vec();
    let mut state = BASE.clone();
    let mut bytes = data.iter().copied();
    while bytes.len() > 0 {
        file.extend_from_slice(&commit(&mut state, |batch| {
            while let Some(operation) = bytes.next().filter(|operation| operation % 9 != 8) {
                let mut pick = || bytes.next().unwrap_or(0);
                // The base has no table d.
                let table = ["a", "b", "c", "d"][usize::from(pick() % 4)];
                let record = record_of(table, pick(), pick());
                let key = record.get(if table == "b" { "k" } else { "id" }).and_then(|key| match key {
                    Value::Int(n) => Some(Key::Int(*n)),
                    Value::Str(s) => Some(Key::from(s.as_str())),
                    _ => None,
                });
                let row = encoded(&record);
                // Whether it succeeds is for the state to say; a refusal changes nothing.
                let _ = match (operation % 9, key) {
                    (0, _) => batch.insert(table, &row).is_ok(),
                    (1, _) => batch.upsert(table, &row).is_ok(),
                    (2, _) => batch.replace(table, &row).is_ok(),
                    (3, Some(key)) => batch.update(table, &key, &row).is_ok(),
                    (4 | 5, Some(key)) => batch.delete(table, &key).is_ok(),
                    (6, _) => batch.drop_table(table).is_ok(),
                    _ => {
                        create(batch, table);
                        true
                    }
                };
            }
        }));
    }
    repair::sealed(file)
}

fn record_of(table: &str, key: u8, value: u8) -> Record {
    let mut record = Record::new();
    let mut field = |name: &str, value: Value| record.insert(name, value);
    let name = if table == "b" { "k" } else { "id" };
    match key % 8 {
        0 => None,
        1 => field(name, Value::Null),
        2 | 3 => field(name, Value::from(["x", "z"][usize::from(key % 2)])),
        n => field(name, Value::Int(i64::from(n) - 4)),
    };
    if table == "b" {
        field("n", Value::Int(value.into()));
        field("f", Value::Float(f64::from(value) / 4.0));
        return record;
    }
    let value = match value % 8 {
        0 => Value::Null,
        1 => Value::Int(i64::MIN),
        2 => Value::from(u64::MAX),
        3 => Value::Float(value.into()),
        4 => Value::from("text"),
        5 => Value::List(vec![Value::Int(1), Value::Null]),
        6 => Value::from(record! { "deep": [{ "er": true }] }),
        _ if value == 0xFF => Value::Float(f64::NAN),
        _ => Value::Bool(true),
    };
    field("v", value);
    record
}

/// One input of the committed corpus.
pub struct Seed {
    /// Which target it is for.
    pub target: &'static str,
    /// Its file name.
    pub name: &'static str,
    /// What the target is given.
    pub data: Vec<u8>,
    /// Whether the reader accepts it.
    pub accepted: bool,
}

/// The corpus that is committed, as this code makes it.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, name, accepted, mode: Mode, rest: &[u8]| {
        let mut data = vec![mode as u8];
        data.extend_from_slice(rest);
        seeds.push(Seed { target, name, data, accepted });
    };

    let (state, frames) = changed();
    let mut ring = Ring::new(RingBytes::Fixed(1 << 20), BASE.seq);
    for (frame, n) in frames.iter().zip(1..) {
        ring.push(Seq::new(BASE.seq.get().saturating_add(n)), frame);
    }
    let slice = ring.since(BASE.seq, state.seq).expect("a ring that holds everything");
    let origin = Origin { base: Some(BASE.point()), created: Timestamp::from_micros(9) };
    let delta = |format| write_delta(format, &slice, &state, origin).expect("memory takes every file");
    let full = |format, state: &State| write_full(format, state, NO_ORIGIN).expect("memory takes every file");

    let delta_binary = delta(BackupFormat::Binary);
    let delta_payloads = joined(frames_of(&delta_binary).map(|frame| frame[FRAME_HEADER_BYTES..].to_vec()));
    for target in ["delta_binary", "delta_roundtrip"] {
        add(target, "whole", true, Mode::Raw, &delta_binary);
        add(target, "checksums", true, Mode::Checksums, &forget_checksums(&delta_binary));
        add(target, "everything", true, Mode::Everything, &forget_checksums(&delta_binary));
        add(target, "contents", true, Mode::Contents, &delta_payloads);
        add(target, "empty", true, Mode::Contents, b"");
        add(target, "cut", false, Mode::Raw, &delta_binary[..delta_binary.len() / 2]);
        add(target, "table_named_twice", false, Mode::Contents, &named_twice());
    }
    add("delta_roundtrip", "operations", true, Mode::Operations, OPERATIONS);

    let document = delta(BackupFormat::Json);
    add("delta_json", "whole", true, Mode::Raw, &document);
    add("delta_json", "checksums", true, Mode::Checksums, without_seal(&document));
    add("delta_json", "everything", true, Mode::Everything, without_seal(&document));
    add("delta_json", "contents", true, Mode::Contents, body_of(&document));
    add("delta_json", "dictdb", true, Mode::Raw, DICTDB_DELTA);
    add("delta_json", "damaged", false, Mode::Raw, &document[1..]);

    let snapshot = full(BackupFormat::Binary, &state);
    let kinds_and_payloads = kinds_and_payloads_of(&snapshot, 1);
    add("snapshot_binary", "whole", true, Mode::Raw, &snapshot);
    add("snapshot_binary", "checksums", true, Mode::Checksums, &forget_checksums(&snapshot));
    add("snapshot_binary", "everything", true, Mode::Everything, &forget_checksums(&snapshot));
    add("snapshot_binary", "contents", true, Mode::Contents, &kinds_and_payloads);
    add("snapshot_binary", "empty", true, Mode::Contents, b"");
    add("snapshot_binary", "key_twice", false, Mode::Contents, &key_twice());
    add("snapshot_binary", "cut", false, Mode::Raw, &snapshot[..snapshot.len() / 2]);

    let compressed = write_compressed(BackupFormat::Binary, Compression::Lz4, &repetitive(), NO_ORIGIN);
    let compressed = compressed.expect("memory takes every file");
    let kinds: Vec<u8> = frames_of(&compressed).map(|frame| frame[0]).collect();
    assert_eq!(kinds, [2, 3, 2, 6, 2], "a table whose rows do not get smaller, one whose do, an empty one");
    add("snapshot_binary", "compressed", true, Mode::Raw, &compressed);
    add("snapshot_binary", "compressed_everything", true, Mode::Everything, &forget_checksums(&compressed));
    let in_kind = |kind: fn(u8) -> u8| {
        joined(frames_of(&compressed).map(|frame| [&[kind(frame[0])], &frame[FRAME_HEADER_BYTES..]].concat()))
    };
    let as_they_are = in_kind(|kind| [0, 1, 2][usize::from(kind / 3)]);
    add("snapshot_binary", "compressed_contents", true, Mode::Contents, &as_they_are);
    let taken_for_plain = in_kind(|kind| u8::from(kind != 2));
    add("snapshot_binary", "compressed_as_plain", false, Mode::Contents, &taken_for_plain);
    let to_be_compressed = kinds_and_payloads_of(&full(BackupFormat::Binary, &repetitive()), 3);
    add("snapshot_binary", "to_be_compressed", true, Mode::Contents, &to_be_compressed);

    let document = full(BackupFormat::Json, &state);
    add("snapshot_json", "whole", true, Mode::Raw, &document);
    add("snapshot_json", "checksums", true, Mode::Checksums, without_seal(&document));
    add("snapshot_json", "everything", true, Mode::Everything, without_seal(&document));
    add("snapshot_json", "contents", true, Mode::Contents, body_of(&document));
    add("snapshot_json", "dictdb", true, Mode::Raw, DICTDB_FULL);
    add("snapshot_json", "damaged", false, Mode::Raw, &document[1..]);

    let between = |file: &[u8]| file[128..].to_vec();
    add("frame", "commits", true, Mode::Raw, &between(&delta_binary));
    add("frame", "tables_and_rows", true, Mode::Raw, &between(&snapshot));
    add("frame", "compressed", true, Mode::Raw, &between(&compressed));
    add("frame", "checksums", true, Mode::Checksums, &between(&forget_checksums(&snapshot)));
    add("frame", "zeros", false, Mode::Raw, &[0; 256]);

    let segment = log::segment(&[COMMITS, CLOSE].concat());
    add("log_recover", "closed", true, Mode::Raw, &segment);
    add("log_recover", "checksums", true, Mode::Checksums, &forget_checksums(&log::segment(COMMITS)));
    add("log_recover", "cut", false, Mode::Raw, &segment[..segment.len() / 2]);
    add("log_recover", "torn", true, Mode::Everything, &[COMMITS, FORGED_LENGTH].concat());
    add("log_recover", "segments", true, Mode::Everything, &[COMMITS, NEXT_SEGMENT, COMMITS, CLOSE].concat());
    let histories = [COMMITS, NEW_HISTORY, COMMITS, SNAPSHOT, COMMITS, NEXT_SEGMENT].concat();
    add("log_recover", "histories", true, Mode::Everything, &histories);
    add("log_recover", "stray", false, Mode::Everything, &[COMMITS, WRONG_SEQ, COMMITS].concat());

    add("store_ops", "crashes", true, Mode::Raw, &[PUTS, CRASH, PUTS, CRASH_EARLIER, PUTS, DROP].concat());
    add("store_ops", "checkpoints", true, Mode::Raw, &[PUTS, CHECKPOINT, PUTS, CHECKPOINT, PUTS, CHECKPOINT].concat());
    add("store_ops", "by_hand", true, Mode::Checksums, &[PUTS, SYNC, PUTS, CRASH, PUTS, CLOSE_AND_OPEN].concat());
    let backups = [PUTS, FULL, PUTS, DELTA, RESTORE, CRASH, PUTS, DELTA, RESTORE, CLOSE_AND_OPEN].concat();
    add("store_ops", "backups", true, Mode::Raw, &backups);
    add("store_ops", "backups_json", true, Mode::Contents, &backups);
    add("store_ops", "faults", true, Mode::Raw, &[PUTS, FAULT, PUTS, DROP, PUTS, FAULT, CHECKPOINT, CRASH].concat());
    seeds
}

/// Steps of `log_recover`'s writer: what, then how; what is said to be synced comes last.
const COMMITS: &[u8] = &[0, 3, 7, 0, 0, 11, 8, 0, 0, 2, 4, 3];
const CLOSE: &[u8] = &[9, 0xFE];
const FORGED_LENGTH: &[u8] = &[8, 3];
const NEXT_SEGMENT: &[u8] = &[14, 0x3C, 1];
const NEW_HISTORY: &[u8] = &[16, 2, 0x7E, 1];
const SNAPSHOT: &[u8] = &[17, 1, 1];
const WRONG_SEQ: &[u8] = &[6, 3, 7, 9, 0];

/// Steps of `store_ops`: what, then how.
const PUTS: &[u8] = &[0, 0, 1, 40, 0, 0, 2, 180, 5, 0, 1, 6, 0, 66, 3, 4, 11, 0, 0, 3, 250];
const SYNC: &[u8] = &[8];
const CHECKPOINT: &[u8] = &[9];
const CLOSE_AND_OPEN: &[u8] = &[10];
const DROP: &[u8] = &[11];
const FULL: &[u8] = &[12];
const DELTA: &[u8] = &[13];
const RESTORE: &[u8] = &[14, 15];
const FAULT: &[u8] = &[16, 9, 2];
const CRASH: &[u8] = &[17, 3];
const CRASH_EARLIER: &[u8] = &[18, 4, 5];

/// Operations of every kind, in commits of one and of many.
const OPERATIONS: &[u8] = &[
    0, 0, 0, 4, 1, 0, 5, 2, 8, // insert and upsert in a
    2, 0, 5, 6, 3, 0, 6, 7, 4, 0, 7, 0, 8, // replace, update, delete
    6, 1, 0, 0, 7, 1, 0, 0, 0, 1, 2, 9, 8, // drop b, create it again, insert
    7, 3, 0, 0, 0, 3, 5, 2, 6, 3, 0, 0, 8, // create d, insert, drop it again
    6, 2, 0, 0, 8, 7, 2, 0, 0, 0, 2, 0, 5, // drop c, create it, an automatic key
];

/// The base after commits that do everything there is, and their frames.
fn changed() -> (State, Vec<Vec<u8>>) {
    let mut state = BASE.clone();
    let first = commit(&mut state, |batch| {
        insert(batch, "a", record! { "id": -7, "null": null, "yes": true, "no": false, "big": u64::MAX });
        insert(
            batch,
            "a",
            record! { "id": "text", "é": "ü", "list": [1, 2.5, "x", [], {}], "dict": { "a": { "b": 1e300 } } },
        );
        insert(batch, "b", record! { "k": "z", "n": i64::MIN, "f": 0.1 });
    });
    let second = commit(&mut state, |batch| {
        assert!(batch.delete("a", &Key::Int(2)).expect("the table is there"));
        batch.drop_table("c").expect("the table is there");
        create(batch, "c");
        insert(batch, "c", record! { "v": "an automatic key" });
    });
    let third = commit(&mut state, |batch| {
        batch.create_table("d", &TableDefinition::new("")).expect("no such table yet");
        insert(batch, "d", record! { "": 0 });
        batch.drop_table("b").expect("the table is there");
    });
    assert!(state.digest() != Digest::EMPTY);
    (state, vec![first, second, third])
}

/// A commit that says the name of the table at hand again: a second form of the same thing, which is refused.
fn named_twice() -> Vec<u8> {
    let mut payload = Vec::new();
    CommitWriter::begin(&mut payload).delete(&mut payload, "a", &Key::Int(1));
    CommitWriter::default().delete(&mut payload, "a", &Key::Int(2));
    payload
}

/// A snapshot of one table whose one record stands there twice.
fn key_twice() -> Vec<u8> {
    let row = encoded(&record! { "id": 1 });
    let (names, values) = row::split(&row).expect("a row");
    let (mut table, mut rows) = (vec![0], vec![1]);
    wire::put_str(&mut table, "a");
    TableDefinition::new("id").encode_into(&mut table);
    wire::put_u64(&mut table, 2);
    wire::put_u64(&mut table, 1);
    rows.push(1);
    rows.extend_from_slice(names);
    rows.push(2);
    for _ in 0..2 {
        rows.extend_from_slice(values);
    }
    joined([table, rows].into_iter())
}

/// Tables and blocks of a snapshot that is not compressed, blocks under the number that [`Mode::Contents`] is to know them
/// by.
fn kinds_and_payloads_of(snapshot: &[u8], rows: u8) -> Vec<u8> {
    joined(frames_of(snapshot).map(|frame| {
        let kind = if frame[0] == FrameKind::Rows as u8 { rows } else { 0 };
        [&[kind], &frame[FRAME_HEADER_BYTES..]].concat()
    }))
}

/// The base with rows that compression makes smaller.
fn repetitive() -> State {
    let mut state = BASE.clone();
    commit(&mut state, |batch| {
        batch.drop_table("a").expect("the table is there");
        create(batch, "a");
        insert(batch, "a", record! { "id": 1 });
        batch.drop_table("b").expect("the table is there");
        batch.create_table("b", &TableDefinition::new("k")).expect("no such table yet");
        for n in 1..=4_i64 {
            insert(batch, "b", record! { "k": n, "text": "much the same text", "n": n });
        }
    });
    state
}

fn joined(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    pieces.collect::<Vec<_>>().join(&SEPARATOR[..])
}

/// Zeros where the checksums of header and frames stood, so that a change elsewhere is the only one that counts.
fn forget_checksums(file: &[u8]) -> Vec<u8> {
    let mut out = file.to_vec();
    out[124..128].fill(0);
    let mut at = 128;
    let lengths: Vec<usize> = frames_of(file).map(<[u8]>::len).collect();
    for length in lengths {
        out[at + 24..at + 32].fill(0);
        at += length;
    }
    out[at + 24..at + 32].fill(0);
    out
}

/// A document of ours from behind its head to before its seal.
fn body_of(document: &[u8]) -> &[u8] {
    let document = without_seal(document);
    let line = document[json::head::OPENING.len()..].iter().position(|byte| *byte == b'\n');
    &document[json::head::OPENING.len() + line.expect("the head has a line of its own") - 1..]
}

/// As DictDB 1.11 for Python writes them.
const DICTDB_FULL: &[u8] = br#"{
    "tables": {
        "users": {
            "primary_key": "id",
            "schema": {"id": "int", "name": "str"},
            "records": [
                {"id": 1, "name": "Ann"},
                {"name": "Bob"}
            ]
        },
        "notes": {"primary_key": "id", "schema": null, "records": [{"id": "a", "x": [1.5, {"y": null}]}]}
    }
}
"#;

const DICTDB_DELTA: &[u8] = br#"{
    "type": "delta",
    "timestamp": 1795344630.061409,
    "tables": {
        "a": {"upserts": [{"id": 2, "v": "changed"}, {"v": "new"}], "deletes": [3, 99]},
        "b": {"upserts": [], "deletes": ["y"]}
    }
}
"#;
