//! A full backup in binary: per table a frame with its definition, then frames with its rows in key order.
//!
//! ```text
//! table frame (kind 2)   name, definition, next automatic key (varint), rows (varint)
//! rows frame  (kind 3)   a block: the names of its rows once, then the rows, see [`blocks`](crate::file::blocks)
//!             (kind 6)   the same compressed, see [`compression`](crate::file::compression)
//! ```
//!
//! Tables stand in the order of their names, rows in the order of their keys; every frame bears the snapshot's seq.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::definition::TableDefinition;
use crate::error::{Error, Result};
use crate::file::blocks::{Block, BlockWriter, Decoded};
use crate::file::compression::{Compression, Compressor};
use crate::file::container::{ContainerReader, ContainerWriter, Frame, Item};
use crate::file::header::{FileKind, Header};
use crate::file::sink::Sink;
use crate::file::{Made, Origin, pipeline};
use crate::frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::history::Seq;
use crate::limits::{BLOCK_BYTES, NAME_BYTES_MAX};
use crate::progress::Watch;
use crate::state::{Identity, State, TableState};
use crate::value::Key;
use crate::wire::{self, Malformed, Reader};

/// Writes a snapshot of `state` into `sink`.
pub(crate) fn write(
    compression: Compression,
    sink: &mut Sink,
    state: &State,
    origin: &Origin,
    watch: &Watch<'_>,
) -> Result<Made> {
    let header = origin.header(FileKind::Snapshot, state.identity);
    let mut out = ContainerWriter::begin(sink, &header)?;
    let seed = state.identity.lineage.crc_seed();
    let total = state.record_count();
    let mut records = 0_u64;
    let mut bytes = Vec::new();
    let mut round = Round::new(compression, seed, state.seq);
    let mut written = |count: u64, bytes: u64| {
        records = records.saturating_add(count);
        watch.report(records, Some(total), bytes, None)
    };
    for (name, table) in state.tables() {
        bytes.clear();
        let start = frame::begin(&mut bytes);
        wire::put_str(&mut bytes, name);
        table.definition().encode_into(&mut bytes);
        wire::put_u64(&mut bytes, table.next_key());
        wire::put_u64(&mut bytes, table.len() as u64);
        frame::finish(&mut bytes, start, FrameKind::Table, seed, state.seq, Seq::ZERO);
        out.frame(&bytes)?;

        let mut rows = table.rows().values();
        // Names and counts stand before the rows, so a block's rows are gathered first.
        let mut block = BlockWriter::default();
        loop {
            while block.bytes() < BLOCK_BYTES
                && let Some(row) = rows.next()
            {
                block.push(table.shapes().parts(row));
            }
            if block.len() == 0 {
                break;
            }
            if round.push(&mut block) {
                round.write(&mut out, &mut written)?;
            }
        }
        round.write(&mut out, &mut written)?;
    }
    out.seal(state.seq, state.digest(), state.time, state.table_count() as u64, records)?;
    Ok(Made { records, commits: 0 })
}

/// A round ends with the block that reaches this many bytes.
const ROUND_BYTES: usize = 4 << 20;

/// Blocks of rows on their way into the file: made into frames by all cores where they are to be compressed.
struct Round {
    compression: Compression,
    lineage_seed: u32,
    seq: Seq,
    threads: usize,
    /// Frames, finished by `write`, and the rows in them.
    frames: Vec<(Vec<u8>, u64)>,
    bytes: usize,
    /// Buffers of the round before.
    spare: Vec<Vec<u8>>,
}

impl Round {
    fn new(compression: Compression, lineage_seed: u32, seq: Seq) -> Round {
        let threads = if compression == Compression::None { 1 } else { pipeline::cores() };
        Round { compression, lineage_seed, seq, threads, frames: Vec::new(), bytes: 0, spare: Vec::new() }
    }

    /// Takes a block in. Says whether the round is full.
    fn push(&mut self, block: &mut BlockWriter<'_>) -> bool {
        let mut bytes = self.spare.pop().unwrap_or_default();
        let rows = block.len() as u64;
        bytes.clear();
        frame::begin(&mut bytes);
        block.finish(&mut bytes);
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.frames.push((bytes, rows));
        self.threads == 1 || self.bytes >= ROUND_BYTES
    }

    /// Writes the blocks of the round, and calls `each` with the rows of one and the bytes written so far.
    fn write(&mut self, out: &mut ContainerWriter<'_>, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        let (lineage_seed, seq) = (self.lineage_seed, self.seq);
        let threads = self.threads.min(self.frames.len());
        let next = Mutex::new(self.frames.iter_mut());
        let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
        let compressor = || match self.compression {
            Compression::None => None,
            Compression::Lz4 => Some(Compressor::new()),
        };
        pipeline::on_threads("dictdb-compress", threads, || {
            let mut compressor = compressor();
            while let Some((bytes, _)) = take() {
                let compressed = compressor.as_mut().is_some_and(|one| one.compress(bytes, FRAME_HEADER_BYTES));
                let kind = if compressed { FrameKind::CompressedRows } else { FrameKind::Rows };
                frame::finish(bytes, 0, kind, lineage_seed, seq, Seq::ZERO);
            }
        });
        for (bytes, rows) in self.frames.drain(..) {
            out.frame(&bytes)?;
            each(rows, out.written())?;
            self.spare.push(bytes);
        }
        self.bytes = 0;
        Ok(())
    }
}

/// Reads a snapshot whole and checks it against its seal.
pub(crate) fn read(mut file: ContainerReader, watch: &Watch<'_>) -> Result<State> {
    let path = file.path().to_owned();
    if file.header.kind != FileKind::Snapshot {
        return Err(wrong_kind(&path, &file.header, FileKind::Snapshot));
    }
    let identity = Identity { lineage: file.header.lineage, parent: file.header.parent };
    let mut state = State::empty(identity);
    let expected = file.peek_seal()?;
    let file_bytes = file.bytes();
    let mut open: Option<OpenTable> = None;
    let mut records = 0_u64;
    // Buffers that were read from.
    let mut spare = Vec::new();
    let mut take = |decoded: Decoded, open: &mut Option<OpenTable>, spare: &mut Vec<Vec<u8>>| {
        let Some(OpenTable { table, last, .. }) = open else { return Ok(()) };
        let (count, end, buffer) = decoded.append_to(&path, table, last)?;
        spare.push(buffer);
        records = records.saturating_add(count);
        watch.report(records, Some(expected.records), end, Some(file_bytes))
    };
    let seal = pipeline::with_threads(pipeline::threads_for(file_bytes), Block::decode, |blocks| {
        loop {
            let at = file.offset();
            let next = file.next();
            let sound = |header: &FrameHeader| header.seq == expected.seq && header.synced == Seq::ZERO;
            let is_rows = |frame: &Frame<'_>| frame.header.kind.is_rows() && sound(&frame.header);
            if !matches!(&next, Ok(Item::Frame(frame)) if is_rows(frame)) {
                // What comes before it in the file is told before it.
                while let Some(decoded) = blocks.next() {
                    take(decoded, &mut open, &mut spare)?;
                }
            }
            match next? {
                Item::Seal(seal) => {
                    OpenTable::close(open.take(), &mut state).map_err(|e| Error::corrupt(&path, at, e))?;
                    return Ok(seal);
                }
                Item::Frame(Frame { header, payload, payload_at }) => {
                    if !sound(&header) {
                        return Err(Error::corrupt(&path, at, format!("a frame of seq {}", expected.seq)));
                    }
                    match header.kind {
                        FrameKind::Table => {
                            let malformed = |m: Malformed| {
                                Error::corrupt(&path, payload_at.saturating_add(m.at as u64), m.expected)
                            };
                            let last = open.as_ref().map(|t| t.name.clone());
                            OpenTable::close(open.take(), &mut state).map_err(|e| Error::corrupt(&path, at, e))?;
                            let table = OpenTable::parse(payload).map_err(malformed)?;
                            if last.is_some_and(|last| last >= table.name) {
                                let expected = "a table whose name comes after the one before it";
                                return Err(Error::corrupt(&path, payload_at, expected));
                            }
                            open = Some(table);
                        }
                        kind @ (FrameKind::Rows | FrameKind::CompressedRows) => {
                            let Some(OpenTable { table, .. }) = &mut open else {
                                return Err(Error::corrupt(&path, at, "a table before its rows"));
                            };
                            let payload = file.take_payload(spare.pop().unwrap_or_default());
                            let block = Block::new(table, kind, payload, payload_at, file.offset());
                            blocks.give(block.bytes(), block);
                            while let Some(decoded) = blocks.ready() {
                                take(decoded, &mut open, &mut spare)?;
                            }
                        }
                        FrameKind::Commit | FrameKind::Seal | FrameKind::Continued => {
                            let expected = "a frame of kind 2 (table), 3 (rows) or 6 (compressed rows)";
                            return Err(Error::corrupt(&path, at, expected));
                        }
                    }
                }
            }
        }
    })?;
    state.seq = seal.seq;
    state.time = seal.time;
    let at = file_bytes;
    if (seal.groups, seal.records) != (state.table_count() as u64, records) {
        let expected = format!("{} tables and {} records before the seal", seal.groups, seal.records);
        return Err(Error::corrupt(&path, at, expected));
    }
    super::check_digest(&path, at, seal.digest, &state)?;
    Ok(state)
}

pub(crate) fn wrong_kind(path: &Path, header: &Header, wanted: FileKind) -> Error {
    Error::WrongKind { file: path.to_owned(), wanted: wanted.name(), found: header.kind.name() }
}

/// A table whose rows are still coming.
struct OpenTable {
    name: String,
    table: TableState,
    next_key: u64,
    rows: u64,
    last: Option<Key>,
}

impl OpenTable {
    fn parse(payload: &[u8]) -> Result<OpenTable, Malformed> {
        let mut reader = Reader::new(payload);
        let name = reader.str()?.to_owned();
        if name.len() > NAME_BYTES_MAX {
            return Err(reader.malformed("a table name of at most 65,536 bytes"));
        }
        let definition = TableDefinition::decode(&mut reader)?;
        let next_key = reader.u64()?;
        let rows = reader.u64()?;
        reader.finish()?;
        let table = TableState::new(&name, definition);
        Ok(OpenTable { name, table, next_key, rows, last: None })
    }

    fn close(open: Option<OpenTable>, state: &mut State) -> Result<(), String> {
        let Some(mut open) = open else { return Ok(()) };
        if open.rows != open.table.len() as u64 {
            return Err(format!("{} rows of table {:?}, not {}", open.rows, open.name, open.table.len()));
        }
        if !open.table.set_next_key(open.next_key) {
            return Err(format!("a next automatic key of table {:?} above all its keys", open.name));
        }
        state.create_table(&open.name, open.table);
        Ok(())
    }
}
