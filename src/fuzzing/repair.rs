//! Files made of any bytes, with as much put right as the mode asks for.

use std::path::Path;

use crate::definition::TableDefinition;
use crate::file::Trust;
use crate::file::compression::{self, Compressor};
use crate::file::header::{FileKind, HEADER_BYTES, Header};
use crate::file::json::head::{self, Head, RawHead};
use crate::file::json::seal as json_seal;
use crate::file::seal::{SEAL_BYTES, Seal};
use crate::frame::{self, FRAME_HEADER_BYTES, FrameKind};
use crate::fuzzing::seeds::{BASE, LINEAGE};
use crate::fuzzing::{Mode, PATH, apply, load};
use crate::history::{Digest, Lineage, Point, Seq, Timestamp};
use crate::row;
use crate::state::{Identity, State, TableState};
use crate::wire::{Malformed, Reader};

/// What separates payloads in [`Mode::Contents`]: bytes that no UTF-8 and few numbers hold.
pub(super) const SEPARATOR: [u8; 3] = [0xFF, 0xFE, b'|'];

/// The seq that made-up snapshots stand at.
const SNAPSHOT_SEQ: Seq = Seq::new(7);

/// One finished frame.
pub(super) fn frame_of(kind: FrameKind, lineage: Lineage, seq: Seq, synced: Seq, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = frame::begin(&mut out);
    out.extend_from_slice(payload);
    frame::finish(&mut out, start, kind, lineage, seq, synced);
    out
}

/// The frames of a container between header and seal, one by one, by the lengths that they state.
pub(super) fn frames_of(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = file.len().saturating_sub(SEAL_BYTES);
    let mut left = file.get(HEADER_BYTES..end).unwrap_or_default();
    std::iter::from_fn(move || {
        let (_, _, rest) = frame::split_first(left)?;
        let (frame, rest) = left.split_at(left.len() - rest.len());
        left = rest;
        Some(frame)
    })
}

/// A binary file of the kind.
pub(super) fn container(kind: FileKind, mode: Mode, data: &[u8]) -> Vec<u8> {
    match mode {
        Mode::Raw | Mode::Operations => data.to_vec(),
        Mode::Checksums => image(data, false),
        Mode::Everything => image(data, true),
        Mode::Contents => contents(kind, data),
    }
}

/// Frames with checksums that fit: a length that reaches too far ends where the bytes do, and what is too short for a
/// frame is left away.
pub(super) fn frames(data: &[u8], lineage: Lineage) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut left = data;
    while let Some((header, behind)) = left.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let stated = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let (payload, rest) = behind.split_at(stated.min(behind.len()));
        let start = out.len();
        out.extend_from_slice(header);
        out.extend_from_slice(payload);
        seal_frame(&mut out[start..], lineage);
        left = rest;
    }
    out
}

/// Length and both checksums of one frame; whatever else its header says stays.
pub(super) fn seal_frame(frame: &mut [u8], lineage: Lineage) {
    let (header, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let crc = |bytes: &[u8]| {
        let mut hasher = lineage.hasher();
        hasher.update(bytes);
        hasher.finalize().to_le_bytes()
    };
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[24..28].copy_from_slice(&crc(payload));
    let of_header = crc(&header[..28]);
    header[28..32].copy_from_slice(&of_header);
}

/// A whole file, put right: the last bytes are its seal, those between it and the header its frames.
fn image(data: &[u8], everything: bool) -> Vec<u8> {
    let Some((header, behind)) = data.split_first_chunk::<HEADER_BYTES>() else { return data.to_vec() };
    let Some((middle, seal)) = behind.split_last_chunk::<SEAL_BYTES>() else { return data.to_vec() };
    let mut file = header.to_vec();
    let crc = crc32fast::hash(&file[..124]);
    file[124..].copy_from_slice(&crc.to_le_bytes());
    let mut lineage = [0; 16];
    lineage.copy_from_slice(&file[16..32]);
    let lineage = Lineage::from_bytes(lineage);
    file.extend_from_slice(&frames(middle, lineage));
    let long = |at: usize| seal.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
    let wide = |at: usize| seal.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u128::from_le_bytes(*b));
    let stated = Seal {
        seq: Seq::new(long(8)),
        digest: Digest::from_u128(wide(FRAME_HEADER_BYTES)),
        time: Timestamp::from_micros(long(FRAME_HEADER_BYTES + 16).cast_signed()),
        frames: 0,
        groups: long(FRAME_HEADER_BYTES + 32),
        records: long(FRAME_HEADER_BYTES + 40),
        file_bytes: 0,
        content: 0,
    };
    if everything { sealed(file) } else { sealed_as(file, lineage, stated) }
}

/// A file of these payloads, each with its kind before it in a snapshot.
fn contents(kind: FileKind, data: &[u8]) -> Vec<u8> {
    let base = (kind == FileKind::Delta).then(|| BASE.point());
    let header =
        Header { kind, lineage: LINEAGE, parent: None, base, created: Timestamp::from_micros(1), preallocation: 0 };
    let mut file = header.encode().to_vec();
    let mut seq = BASE.seq.get();
    for payload in payloads(data) {
        let frame = match kind {
            FileKind::Delta | FileKind::Log => {
                seq = seq.saturating_add(1);
                frame_of(FrameKind::Commit, LINEAGE, Seq::new(seq), Seq::ZERO, payload)
            }
            FileKind::Snapshot => {
                let Some((first, payload)) = payload.split_first().filter(|(_, rest)| !rest.is_empty()) else {
                    continue;
                };
                let mut payload = payload.to_vec();
                let kind = match first % 4 {
                    0 => FrameKind::Table,
                    1 => FrameKind::Rows,
                    2 => FrameKind::CompressedRows,
                    _ if Compressor::new().compress(&mut payload, 0) => FrameKind::CompressedRows,
                    _ => FrameKind::Rows,
                };
                frame_of(kind, LINEAGE, SNAPSHOT_SEQ, Seq::ZERO, &payload)
            }
        };
        file.extend_from_slice(&frame);
    }
    sealed(file)
}

/// The pieces between separators, without the empty ones: no frame is empty.
pub(super) fn payloads(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = Some(data);
    std::iter::from_fn(move || {
        let bytes = left?;
        let at = bytes.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let (piece, rest) = match at {
            Some(at) => (&bytes[..at], Some(&bytes[at + SEPARATOR.len()..])),
            None => (bytes, None),
        };
        left = rest;
        Some(piece)
    })
    .filter(|piece| !piece.is_empty())
}

/// Appends the seal that fits header and frames, its digest and counts told by replaying them.
pub(super) fn sealed(mut file: Vec<u8>) -> Vec<u8> {
    let mut seal = Seal {
        seq: SNAPSHOT_SEQ,
        digest: Digest::EMPTY,
        time: Timestamp::from_micros(5),
        frames: 0,
        groups: 0,
        records: 0,
        file_bytes: 0,
        content: 0,
    };
    let header = file.first_chunk().and_then(|header| Header::parse(header, Path::new(PATH)).ok());
    let Some(header) = header else { return sealed_as(file, LINEAGE, seal) };
    // `frames_of` leaves a seal's room at the end.
    let frames_end = file.len();
    file.resize(frames_end + SEAL_BYTES, 0);
    match header.kind {
        FileKind::Delta | FileKind::Log => {
            let mut state = BASE.clone();
            for frame in frames_of(&file) {
                let Ok(applied) = state.apply(Seq::new(seq_of(frame)), &frame[FRAME_HEADER_BYTES..]) else { break };
                seal.groups = seal.groups.saturating_add(1);
                seal.records = seal.records.saturating_add(applied.puts).saturating_add(applied.deletes);
                seal.time = state.time;
            }
            (seal.seq, seal.digest) = (state.seq, state.digest());
        }
        FileKind::Snapshot => {
            let mut seq = None;
            let (state, records) = trusted(frames_of(&file).inspect(|frame| seq = seq.or(Some(seq_of(frame)))));
            seal.seq = seq.map_or(SNAPSHOT_SEQ, Seq::new);
            (seal.groups, seal.records) = (state.tables().count() as u64, records);
            seal.digest = state.digest();
        }
    }
    file.truncate(frames_end);
    sealed_as(file, header.lineage, seal)
}

/// Whether the commits of a delta replay one by one, as those of a log do.
pub(super) fn replays(delta: &[u8]) -> bool {
    let mut state = BASE.clone();
    frames_of(delta).all(|frame| state.apply(Seq::new(seq_of(frame)), &frame[FRAME_HEADER_BYTES..]).is_ok())
}

fn seq_of(frame: &[u8]) -> u64 {
    frame.get(8..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Appends the seal with what follows from the bytes before it filled in.
fn sealed_as(mut file: Vec<u8>, lineage: Lineage, mut seal: Seal) -> Vec<u8> {
    file.resize(file.len() + SEAL_BYTES, 0);
    seal.frames = frames_of(&file).count() as u64;
    seal.file_bytes = file.len() as u64;
    file.truncate(file.len() - SEAL_BYTES);
    seal.content = xxhash_rust::xxh3::xxh3_128(&file);
    file.extend_from_slice(&seal.encode(lineage));
    file
}

/// The names and values of the rows in a block, as far as it comes.
pub(super) fn rows_of(mut reader: Reader<'_>) -> Vec<(&[u8], &[u8])> {
    let mut rows = Vec::new();
    let mut read = || {
        let mut shapes = Vec::new();
        for _ in 0..reader.count(1)? {
            let mut names = reader.clone();
            let count = row::names(&mut reader)?;
            let names = names.take(names.remaining() - reader.remaining())?;
            shapes.push((names, count));
        }
        for _ in 0..reader.count(1)? {
            let shape = if shapes.len() > 1 { reader.u64()? } else { 0 };
            let shape = usize::try_from(shape).ok().and_then(|shape| shapes.get(shape));
            let (names, count) = *shape.ok_or_else(|| reader.malformed("a shape"))?;
            let mut values = reader.clone();
            row::values(&mut reader, count, count)?;
            rows.push((names, values.take(values.remaining() - reader.remaining())?));
        }
        Ok::<_, Malformed>(())
    };
    let _ = read();
    rows
}

/// What a snapshot's frames say, by a second and trusting reader, as far as it comes; and how many rows there were.
fn trusted<'f>(frames: impl Iterator<Item = &'f [u8]>) -> (State, u64) {
    let mut records = 0_u64;
    let mut tables: Vec<(String, TableState, u64)> = Vec::new();
    for frame in frames {
        let (mut payload, block);
        payload = &frame[FRAME_HEADER_BYTES..];
        if frame[0] == FrameKind::CompressedRows as u8 {
            let Ok(held) = compression::decompressed(payload) else { break };
            block = held;
            payload = &block;
        }
        let mut reader = Reader::new(payload);
        if frame[0] == FrameKind::Table as u8 {
            let Ok(name) = reader.str() else { break };
            let Ok(definition) = TableDefinition::decode(&mut reader) else { break };
            let Ok(next_key) = reader.u64() else { break };
            tables.push((name.to_owned(), TableState::new(name, definition), next_key));
        } else {
            let Some((_, table, _)) = tables.last_mut() else { break };
            for (names, values) in rows_of(reader) {
                records = records.saturating_add(1);
                if let Ok(key) = table.admit(names, values, None) {
                    table.put_split(key, (names, values));
                }
            }
        }
    }
    let mut state = State::empty(Identity { lineage: LINEAGE, parent: None });
    for (name, mut table, next_key) in tables {
        table.set_next_key(next_key);
        let _ = state.create_table(&name, table);
    }
    (state, records)
}

/// A full backup in JSON.
pub(super) fn full_document(mode: Mode, data: &[u8]) -> Vec<u8> {
    let head = Head {
        snapshot: true,
        parent: None,
        base: None,
        end: Point { lineage: LINEAGE, seq: SNAPSHOT_SEQ, digest: Digest::EMPTY },
        created: Timestamp::from_micros(1),
        time: Timestamp::from_micros(5),
        groups: 0,
        records: 0,
    };
    document(mode, data, head, |file| {
        let state = load(file, Trust { ignore_checksum: true })?;
        Some((state.tables().count() as u64, state.record_count(), state))
    })
}

/// A delta backup in JSON.
pub(super) fn delta_document(mode: Mode, data: &[u8]) -> Vec<u8> {
    let seq = Seq::new(BASE.seq.get().saturating_add(2));
    let head = Head {
        snapshot: false,
        parent: None,
        base: Some(BASE.point()),
        end: Point { lineage: LINEAGE, seq, digest: Digest::EMPTY },
        created: Timestamp::from_micros(1),
        time: Timestamp::from_micros(5),
        groups: 2,
        records: 0,
    };
    document(mode, data, head, |file| {
        let state = apply(file, Trust { ignore_checksum: true })?;
        Some((state.seq.since(BASE.seq), 0, state))
    })
}

/// A document, put right as far as `mode` says; `read` takes one as it stands, and gives groups, records and state.
fn document(mode: Mode, data: &[u8], made_up: Head, read: impl Fn(&[u8]) -> Option<(u64, u64, State)>) -> Vec<u8> {
    let (head, body) = match mode {
        Mode::Raw | Mode::Operations => return data.to_vec(),
        Mode::Checksums => return with_seal(without_seal(data).to_vec()),
        Mode::Contents => (made_up, data),
        Mode::Everything => {
            let Some((head, body)) = split_head(data) else { return with_seal(without_seal(data).to_vec()) };
            (head, without_seal(body))
        }
    };
    let draft = with_head(&head, body);
    let Some((groups, records, state)) = read(&draft) else { return draft };
    let end = Point { digest: state.digest(), ..head.end };
    let base = if head.snapshot { head.base } else { Some(BASE.point()) };
    with_head(&Head { end, groups, records, base, ..head }, body)
}

/// The head of a document of ours, and all that comes behind it.
fn split_head(document: &[u8]) -> Option<(Head, &[u8])> {
    let behind = document.strip_prefix(head::OPENING.as_bytes())?;
    // The head's line ends with the comma that the body begins with.
    let comma = behind.iter().position(|byte| *byte == b'\n')?.checked_sub(1)?;
    let (line, body) = behind.split_at(comma);
    let raw: RawHead = serde_json::from_slice(line).ok()?;
    Some((Head::check(&raw, Path::new(PATH), 0).ok()?, body))
}

fn with_head(head: &Head, body: &[u8]) -> Vec<u8> {
    let mut file = head::OPENING.as_bytes().to_vec();
    file.extend_from_slice(&serde_json::to_vec(&head.raw()).unwrap_or_default());
    file.extend_from_slice(body);
    with_seal(file)
}

fn with_seal(mut file: Vec<u8>) -> Vec<u8> {
    let seal = json_seal::render(file.len() as u64, crc32fast::hash(&file));
    file.extend_from_slice(seal.as_bytes());
    file
}

/// The document up to where its seal begins.
pub(super) fn without_seal(data: &[u8]) -> &[u8] {
    const OPENING: &[u8] = b",\n    \"dictdb_seal\"";
    let at = data.windows(OPENING.len()).rposition(|window| window == OPENING);
    at.map_or(data, |at| &data[..at])
}
