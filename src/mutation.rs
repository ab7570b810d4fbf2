//! Events: what a commit's payload says, as bytes and as public types.
//!
//! ```text
//! commit = time, mutation, mutation, ...    up to the end of the payload, at least one
//! time   = 8 bytes, i64, microseconds since 1970
//! mutation
//!   0 table   name                       the mutations behind it are of this table
//!   1 put     key field, row             row: length and bytes; key field: index of the primary key in it
//!   5 again   values                     a put with the key field and the names of the put before it; length and bytes
//!   2 delete  key
//!   3 create  definition
//!   4 drop
//! ```
//!
//! A `table` entry stands only where the table changes, and never last. `again` stands for every put that it can stand
//! for: where a put came before, behind the last `table` entry, whose key field and names are the same. So every commit
//! has one encoding.

use std::ops::Range;

use crate::definition::TableDefinition;
use crate::history::{Seq, Timestamp};
use crate::limits::NAME_BYTES_MAX;
use crate::row::{self, RowRef};
use crate::value::{Key, Record};
use crate::wire::{self, Malformed, Reader};

const TABLE: u8 = 0;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const CREATE: u8 = 3;
const DROP: u8 = 4;
const AGAIN: u8 = 5;

/// One change of a table, decided: an outcome, never an expression.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Mutation {
    /// The record now stands under this key, whether or not one did before.
    Put {
        /// The table.
        table: String,
        /// The record's primary key.
        key: Key,
        /// The whole record.
        record: Record,
    },
    /// The record with this key is gone.
    Delete {
        /// The table.
        table: String,
        /// The key.
        key: Key,
    },
    /// The table now exists, empty.
    CreateTable {
        /// The table.
        table: String,
        /// What it is.
        definition: TableDefinition,
    },
    /// The table is gone, with all its records.
    DropTable {
        /// The table.
        table: String,
    },
}

/// Mutations that were applied together, as the change feed hands them out.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Its number.
    pub seq: Seq,
    /// When it was made, by the database's clock: an annotation.
    pub time: Timestamp,
    /// What it did, in order.
    pub mutations: Vec<Mutation>,
}

/// A mutation as it lies in a payload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event<'a> {
    Put { key_field: usize, names: &'a [u8], values: &'a [u8] },
    Delete { key: Key },
    Create { definition: TableDefinition },
    Drop,
}

/// Writes the payload of one commit behind what `out` holds already.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommitWriter {
    /// Where in the buffer the name of the table stands that the mutations are of.
    table: Option<Range<usize>>,
    /// The last put of that table: its key field, and where its row or its names stand.
    last: Option<(usize, Last)>,
}

/// Where the names of the last put are known to stand; they are looked for when another put follows.
#[derive(Clone, Debug)]
enum Last {
    Row(Range<usize>),
    Names(Range<usize>),
}

impl CommitWriter {
    /// Begins a payload; [`CommitWriter::set_time`] fills in the time.
    pub(crate) fn begin(out: &mut Vec<u8>) -> CommitWriter {
        out.extend_from_slice(&[0; 8]);
        CommitWriter::default()
    }

    pub(crate) fn set_time(payload: &mut [u8], time: Timestamp) {
        if let Some(bytes) = payload.first_chunk_mut() {
            *bytes = time.as_micros().to_le_bytes();
        }
    }

    pub(crate) fn put(&mut self, out: &mut Vec<u8>, table: &str, key_field: usize, row: &[u8]) {
        self.table(out, table);
        if let Some(values) = self.values_of_the_same(out, key_field, row) {
            out.push(AGAIN);
            wire::put_bytes(out, values);
            return;
        }
        out.push(PUT);
        wire::put_u64(out, key_field as u64);
        wire::put_bytes(out, row);
        self.last = Some((key_field, Last::Row(out.len().saturating_sub(row.len())..out.len())));
    }

    /// The values of a row that has the key field and the names of the last put.
    fn values_of_the_same<'r>(&mut self, out: &[u8], key_field: usize, row: &'r [u8]) -> Option<&'r [u8]> {
        let (last_field, last) = self.last.as_mut()?;
        if let Last::Row(range) = last {
            let (names, _) = row::split(out.get(range.clone())?).ok()?;
            *last = Last::Names(range.start..range.start.saturating_add(names.len()));
        }
        let Last::Names(range) = last else { return None };
        // No names are the front of others: their count stands before them, each one's length before it.
        row.strip_prefix(out.get(range.clone())?).filter(|_| *last_field == key_field)
    }

    pub(crate) fn delete(&mut self, out: &mut Vec<u8>, table: &str, key: &Key) {
        self.table(out, table);
        out.push(DELETE);
        key.encode_into(out);
    }

    pub(crate) fn create(&mut self, out: &mut Vec<u8>, table: &str, definition: &TableDefinition) {
        self.table(out, table);
        out.push(CREATE);
        definition.encode_into(out);
    }

    pub(crate) fn drop_table(&mut self, out: &mut Vec<u8>, table: &str) {
        self.table(out, table);
        out.push(DROP);
    }

    fn table(&mut self, out: &mut Vec<u8>, table: &str) {
        let current = self.table.clone().and_then(|name| out.get(name));
        if current != Some(table.as_bytes()) {
            out.push(TABLE);
            wire::put_str(out, table);
            self.table = Some(out.len().saturating_sub(table.len())..out.len());
            self.last = None;
        }
    }
}

/// Reads a payload, event by event. Names and values are handed out unchecked.
#[derive(Debug)]
pub(crate) struct CommitReader<'a> {
    reader: Reader<'a>,
    time: Timestamp,
    table: Option<&'a str>,
    /// Key field and names of the last put of that table.
    last: Option<(usize, &'a [u8])>,
}

impl<'a> CommitReader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Result<CommitReader<'a>, Malformed> {
        let mut reader = Reader::new(payload);
        let time = reader.take(8)?.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
        if reader.is_empty() {
            return Err(reader.malformed("at least one mutation"));
        }
        Ok(CommitReader { reader, time: Timestamp::from_micros(time), table: None, last: None })
    }

    pub(crate) fn time(&self) -> Timestamp {
        self.time
    }

    pub(crate) fn pos(&self) -> usize {
        self.reader.pos()
    }

    /// The next event and its table; `None` at the end of the payload.
    pub(crate) fn next(&mut self) -> Result<Option<(&'a str, Event<'a>)>, Malformed> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let mut tag = self.reader.u8()?;
        if tag == TABLE {
            let name = self.reader.str()?;
            if name.len() > NAME_BYTES_MAX || self.table == Some(name) {
                return Err(self.reader.malformed("the name of another table, of 65,536 bytes at most"));
            }
            self.table = Some(name);
            self.last = None;
            tag = self.reader.u8()?;
        }
        let table = self.table.ok_or_else(|| self.reader.malformed("a table before its mutations"))?;
        let event = match tag {
            PUT => {
                let key_field = usize::try_from(self.reader.u64()?)
                    .map_err(|_| self.reader.malformed("the index of a field of the row"))?;
                let row = self.reader.bytes()?;
                let (names, values) = row::split(row).map_err(|m| {
                    let row_at = self.reader.pos().saturating_sub(row.len());
                    Malformed { at: row_at.saturating_add(m.at), ..m }
                })?;
                if self.last == Some((key_field, names)) {
                    return Err(self.reader.malformed("before it mutation 5, for the names of the put before"));
                }
                self.last = Some((key_field, names));
                Event::Put { key_field, names, values }
            }
            AGAIN => {
                let before = || self.reader.malformed("a put before mutation 5");
                let (key_field, names) = self.last.ok_or_else(before)?;
                Event::Put { key_field, names, values: self.reader.bytes()? }
            }
            DELETE => Event::Delete { key: Key::decode(&mut self.reader)? },
            CREATE => Event::Create { definition: TableDefinition::decode(&mut self.reader)? },
            DROP => Event::Drop,
            _ => return Err(self.reader.malformed("a mutation from 1 to 5")),
        };
        Ok(Some((table, event)))
    }
}

/// How many puts and deletes a payload has, without a look into their rows.
pub(crate) fn count_records(payload: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader::new(payload);
    reader.take(8)?;
    let mut records = 0_u64;
    while !reader.is_empty() {
        let tag = reader.u8()?;
        match tag {
            TABLE | AGAIN => drop(reader.bytes()?),
            PUT => {
                reader.u64()?;
                reader.bytes()?;
            }
            DELETE => drop(Key::decode(&mut reader)?),
            CREATE => drop(TableDefinition::decode(&mut reader)?),
            DROP => {}
            _ => return Err(reader.malformed("a mutation from 1 to 5")),
        }
        records = records.saturating_add(u64::from(matches!(tag, PUT | AGAIN | DELETE)));
    }
    Ok(records)
}

impl Commit {
    /// Decodes a payload whole.
    pub(crate) fn decode(seq: Seq, payload: &[u8]) -> Result<Commit, Malformed> {
        let mut reader = CommitReader::new(payload)?;
        let mut mutations = Vec::new();
        while let Some((table, event)) = reader.next()? {
            let table = table.to_owned();
            mutations.push(match event {
                Event::Put { key_field, names, values } => {
                    let row = RowRef::Split { names, values };
                    let (_, key) = row::key_at_field(row, key_field)?;
                    Mutation::Put { table, key, record: row::decode_record(row)? }
                }
                Event::Delete { key } => Mutation::Delete { table, key },
                Event::Create { definition } => Mutation::CreateTable { table, definition },
                Event::Drop => Mutation::DropTable { table },
            });
        }
        Ok(Commit { seq, time: reader.time(), mutations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;

    #[test]
    fn the_puts_and_deletes_counted_are_those_that_are_read() {
        let mut random = fastrand::Rng::with_seed(3);
        for round in 0..300 {
            let mut payload = Vec::new();
            let mut writer = CommitWriter::begin(&mut payload);
            for _ in 0..=random.usize(..8) {
                let table = ["t", "another"][random.usize(..2)];
                let mut row = Vec::new();
                let names = if random.bool() {
                    record! { "id": 1, "n": round }
                } else {
                    record! { "id": "text" }
                };
                row::encode_record(&names, &mut row).unwrap();
                match random.u8(..8) {
                    0 => writer.create(&mut payload, table, &TableDefinition::new("id")),
                    1 => writer.drop_table(&mut payload, table),
                    2 => writer.delete(&mut payload, table, &Key::from("key")),
                    3 => writer.delete(&mut payload, table, &Key::Int(round)),
                    _ => writer.put(&mut payload, table, 0, &row),
                }
            }
            let (mut reader, mut read) = (CommitReader::new(&payload).unwrap(), 0);
            while let Some((_, event)) = reader.next().unwrap() {
                read += u64::from(matches!(event, Event::Put { .. } | Event::Delete { .. }));
            }
            assert_eq!(count_records(&payload), Ok(read));
        }
    }
}
