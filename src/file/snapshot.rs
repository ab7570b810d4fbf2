//! A full backup in binary: per table a frame with its definition, then frames with its rows in key order.
//!
//! ```text
//! table frame (kind 2)   name, definition, next automatic key (varint), rows (varint)
//! rows frame  (kind 3)   a block: the names of its rows once, then the rows, see [`blocks`](crate::file::blocks)
//!             (kind 6)   the same compressed, see [`compression`](crate::file::compression)
//! ```
//!
//! Tables stand in the order of their names, rows in the order of their keys; every frame bears the snapshot's seq.

mod encode;

use std::path::Path;

use crate::definition::TableDefinition;
use crate::error::{Error, Result};
use crate::file::blocks::{Block, Decoded};
use crate::file::compression::Compression;
use crate::file::container::{ContainerReader, ContainerWriter, Frame, Item};
use crate::file::header::{FileKind, Header};
use crate::file::sink::Sink;
use crate::file::{Made, Origin};
use crate::frame::{FrameHeader, FrameKind};
use crate::history::Seq;
use crate::limits::NAME_BYTES_MAX;
use crate::pipeline;
use crate::progress::Watch;
use crate::state::{Identity, State, TableState};
use crate::value::Key;
use crate::wire::{Malformed, Reader};

/// Smaller files are not worth a thread.
const SMALL_BYTES: u64 = 4 << 20;

/// Writes a snapshot of `state` into `sink`.
pub(crate) fn write(
    compression: Compression,
    sink: &mut Sink,
    state: State,
    origin: &Origin,
    watch: &Watch<'_>,
) -> Result<Made> {
    let header = origin.header(FileKind::Snapshot, state.identity);
    let mut out = ContainerWriter::begin(sink, &header)?;
    let total = state.record_count();
    let mut records = 0_u64;
    let mut take = |frame: &[u8], rows: u64| {
        out.frame(frame)?;
        records = records.saturating_add(rows);
        if rows > 0 { watch.report(records, Some(total), out.written(), None) } else { Ok(()) }
    };
    let (seq, digest, time, tables) = (state.seq, state.digest(), state.time, state.table_count());
    encode::frames(state, compression, &mut take)?;
    out.seal(seq, digest, time, tables as u64, records)?;
    Ok(Made { records, commits: 0 })
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
    let seal = pipeline::with_threads(pipeline::threads_for(file_bytes, SMALL_BYTES), Block::decode, |blocks| {
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
        state.create_table(&open.name, open.table).map_err(|not_created| not_created.expected(&open.name))
    }
}
