//! One commit in the making: decides each mutation against a state, applies it there and encodes it.
//!
//! A single operation works on the live state: it either fails before it touched anything, or is committed. A
//! transaction works on a copy, which is dropped when it fails.

use crate::definition::TableDefinition;
use crate::error::{Error, Result};
use crate::frame::{self, FRAME_HEADER_BYTES, FrameKind};
use crate::history::{Lineage, Seq, Timestamp};
use crate::limits::{FRAME_PAYLOAD_BYTES_MAX, NAME_BYTES_MAX, TABLES_MAX};
use crate::mutation::CommitWriter;
use crate::put::{self, Put};
use crate::rows::Ways;
use crate::state::{NotCreated, State, TableState};
use crate::tree::{WARM_MAX, Way};
use crate::value::Key;

/// A mutation's bytes beside its row: table name, tags, lengths, keys.
const OVERHEAD_BYTES: usize = 2 * NAME_BYTES_MAX + 64;

/// What a commit's frame says beside its mutations; `synced` is the newest commit known to be durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    pub(crate) lineage: Lineage,
    pub(crate) seq: Seq,
    pub(crate) time: Timestamp,
    pub(crate) synced: Seq,
}

impl Seal {
    /// Fills in time, header and checksums of the frame that begins at `start`.
    pub(crate) fn close(&self, frame: &mut [u8], start: usize) {
        if let Some(payload) = frame.get_mut(start.saturating_add(FRAME_HEADER_BYTES)..) {
            CommitWriter::set_time(payload, self.time);
        }
        frame::finish(frame, start, FrameKind::Commit, self.lineage, self.seq, self.synced);
    }
}

#[derive(Debug)]
pub(crate) struct Batch<'a> {
    state: &'a mut State,
    /// The frame under construction, header space included.
    frame: &'a mut Vec<u8>,
    start: usize,
    writer: CommitWriter,
    mutations: u64,
    /// For a single operation.
    closing: Option<Closing>,
}

/// Closes a frame, again where it has grown since.
#[derive(Debug)]
struct Closing {
    seal: Seal,
    /// How long the frame was when it was closed.
    closed: usize,
}

impl Closing {
    fn close(&mut self, frame: &mut [u8], start: usize) {
        if self.closed != frame.len() {
            self.seal.close(frame, start);
            self.closed = frame.len();
        }
    }
}

/// Encoded rows, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Rows {
    /// What was appended to `bytes` since the last call is a row.
    pub(crate) fn end_row(&mut self) {
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// From one of them on.
    fn iter_from(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        let (before, ends) = self.ends.split_at_checked(first).unwrap_or_default();
        let starts = before.last().copied().or(Some(0)).into_iter().chain(ends.iter().copied());
        starts.zip(ends).filter_map(|(start, end)| self.bytes.get(start..*end))
    }
}

/// What an upsert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upserted {
    /// There was no record with that key.
    Inserted,
    /// The record with that key was replaced.
    Replaced,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(state: &'a mut State, frame: &'a mut Vec<u8>) -> Batch<'a> {
        frame.clear();
        let start = frame::begin(frame);
        let writer = CommitWriter::begin(frame);
        Batch { state, frame, start, writer, mutations: 0, closing: None }
    }

    /// For one operation. Where it is one mutation its frame is closed while the memory comes that it changes.
    pub(crate) fn of_one(state: &'a mut State, frame: &'a mut Vec<u8>, seal: Seal) -> Batch<'a> {
        Batch { closing: Some(Closing { seal, closed: 0 }), ..Batch::new(state, frame) }
    }

    /// Closes the frame, unless that was done behind the last mutation. Commits up to `synced` are durable by now.
    pub(crate) fn close(&mut self, synced: Seq) {
        if let Some(closing) = &mut self.closing {
            closing.seal.synced = synced;
            closing.close(self.frame, self.start);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mutations == 0
    }

    pub(crate) fn state(&self) -> &State {
        self.state
    }

    /// Where in the buffer the frame begins.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    pub(crate) fn insert(&mut self, table: &str, row: &[u8]) -> Result<Key> {
        let (frame_bytes, writer) = (self.frame.len(), self.writer.clone());
        self.insert_row(table, row, None).inspect_err(|_| {
            self.frame.truncate(frame_bytes);
            self.writer = writer;
            if let Some(closing) = &mut self.closing {
                closing.closed = 0;
            }
        })
    }

    /// Where it fails, the table is as it was, and the frame is to be set back. One of many comes with the way to its place,
    /// whose memory was asked for; that of one alone comes while its event is written and the frame closed.
    fn insert_row(&mut self, table: &str, row: &[u8], way: Option<Way>) -> Result<Key> {
        self.room().check(row.len())?;
        let state = existing(self.state, table)?;
        let Put { key, field, row } = put::keyed(state, table, row)?;
        let (is_alone, way) = (way.is_none(), way.unwrap_or_else(|| state.prefetch(&key)));
        self.writer.put(self.frame, table, field, &row);
        if is_alone && let Some(closing) = &mut self.closing {
            closing.close(self.frame, self.start);
        }
        if !state.put_new(&way, &key, &row) {
            return Err(Error::DuplicateKey { table: table.to_owned(), key });
        }
        self.mutations = self.mutations.saturating_add(1);
        Ok(key)
    }

    /// All of the rows or none. What came before in this batch stays.
    pub(crate) fn insert_all(&mut self, table: &str, rows: &Rows) -> Result<Vec<Key>> {
        let (frame_bytes, mutations) = (self.frame.len(), self.mutations);
        let writer = self.writer.clone();
        let next_key = existing(self.state, table)?.next_key();
        let (mut keys, mut ways) = (Vec::with_capacity(rows.len()), Ways::new());
        for (n, row) in rows.iter_from(0).enumerate() {
            if n.is_multiple_of(WARM_MAX) {
                ways = existing(self.state, table)?.warm(rows.iter_from(n));
            }
            let way = ways.get(n % WARM_MAX).copied().unwrap_or(Way::UNKNOWN);
            match self.insert_row(table, row, Some(way)) {
                Ok(key) => keys.push(key),
                Err(error) => {
                    let state = existing(self.state, table)?;
                    for key in &keys {
                        state.delete(key);
                    }
                    state.take_back_keys(next_key);
                    self.frame.truncate(frame_bytes);
                    self.mutations = mutations;
                    self.writer = writer;
                    return Err(error);
                }
            }
        }
        Ok(keys)
    }

    pub(crate) fn table(&self, name: &str) -> Option<&TableState> {
        self.state.table(name)
    }

    pub(crate) fn upsert(&mut self, table: &str, row: &[u8]) -> Result<(Key, Upserted)> {
        let (put, replaced) = self.put(table, |state| put::keyed(state, table, row))?;
        Ok((put.key, if replaced { Upserted::Replaced } else { Upserted::Inserted }))
    }

    pub(crate) fn replace(&mut self, table: &str, row: &[u8]) -> Result<Key> {
        self.put(table, |state| put::replacing(state, table, row)).map(|(put, _)| put.key)
    }

    /// Merges the fields of `changes` into the record; its key must stay. Gives the new row.
    pub(crate) fn update(&mut self, table: &str, key: &Key, changes: &[u8]) -> Result<Vec<u8>> {
        self.put(table, |state| put::merged(state, table, key, changes)).map(|(put, _)| put.row.into_owned())
    }

    /// Puts what `decide` makes of the table; whether it replaces a record.
    fn put<'r>(&mut self, table: &str, decide: impl FnOnce(&TableState) -> Result<Put<'r>>) -> Result<(Put<'r>, bool)> {
        let room = self.room();
        let state = existing(self.state, table)?;
        let put = decide(state)?;
        room.check(put.row.len())?;
        state.prefetch(&put.key);
        self.writer.put(self.frame, table, put.field, &put.row);
        if let Some(closing) = &mut self.closing {
            closing.close(self.frame, self.start);
        }
        let replaced = state.put(put.key.clone(), &put.row);
        self.mutations = self.mutations.saturating_add(1);
        Ok((put, replaced))
    }

    /// Whether there was a record with that key.
    pub(crate) fn delete(&mut self, table: &str, key: &Key) -> Result<bool> {
        self.room().check(0)?;
        if !existing(self.state, table)?.delete(key) {
            return Ok(false);
        }
        self.writer.delete(self.frame, table, key);
        self.mutations = self.mutations.saturating_add(1);
        Ok(true)
    }

    pub(crate) fn create_table(&mut self, table: &str, definition: &TableDefinition) -> Result<()> {
        if table.len() > NAME_BYTES_MAX {
            let limit = NAME_BYTES_MAX as u64;
            return Err(Error::TooLarge { what: "a table's name", bytes: table.len() as u64, limit });
        }
        definition.check().map_err(|problem| Error::InvalidDefinition { table: table.to_owned(), problem })?;
        let schema_bytes = definition.schema_ref().map_or(0, |s| s.fields().map(|(name, _)| name.len() + 8).sum());
        self.room().check(schema_bytes)?;
        let created = self.state.create_table(table, TableState::new(table, definition.clone()));
        created.map_err(|not_created| match not_created {
            NotCreated::Exists => Error::TableExists { table: table.to_owned() },
            NotCreated::TooMany => {
                let problem = format!("there are {TABLES_MAX}, the most there can be: drop one, or share one");
                Error::InvalidDefinition { table: table.to_owned(), problem }
            }
        })?;
        self.writer.create(self.frame, table, definition);
        self.mutations = self.mutations.saturating_add(1);
        Ok(())
    }

    pub(crate) fn drop_table(&mut self, table: &str) -> Result<()> {
        self.room().check(0)?;
        if !self.state.drop_table(table) {
            return Err(no_table(table));
        }
        self.writer.drop_table(self.frame, table);
        self.mutations = self.mutations.saturating_add(1);
        Ok(())
    }

    fn room(&self) -> Room {
        Room { used: self.frame.len().saturating_sub(self.start) }
    }
}

/// What the frame can still take.
#[derive(Clone, Copy)]
struct Room {
    used: usize,
}

impl Room {
    fn check(self, bytes: usize) -> Result<()> {
        let payload = self.used.saturating_add(bytes).saturating_add(OVERHEAD_BYTES);
        if frame::payload_fits(payload) {
            return Ok(());
        }
        let limit = FRAME_PAYLOAD_BYTES_MAX as u64;
        Err(Error::TooLarge { what: "one commit", bytes: payload as u64, limit })
    }
}

pub(crate) fn no_table(table: &str) -> Error {
    Error::NoSuchTable { table: table.to_owned() }
}

fn existing<'s>(state: &'s mut State, table: &str) -> Result<&'s mut TableState> {
    state.table_mut(table).ok_or_else(|| no_table(table))
}
