//! Writing DictDB's documents.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::definition::TableDefinition;
use crate::error::{Error, Result};
use crate::file::json::head::{self, Head};
use crate::file::json::seal;
use crate::file::sink::Sink;
use crate::file::{Made, Origin};
use crate::history::Timestamp;
use crate::mutation::{CommitReader, Event};
use crate::progress::Watch;
use crate::ring::RingSlice;
use crate::row::{self, RowRef, RowView};
use crate::state::{State, TableState};
use crate::value::Key;

/// Records between two reports of progress.
const REPORT_EVERY: u64 = 1_024;

/// Writes a full backup: DictDB's document, one record a line.
pub(crate) fn write_full(sink: &mut Sink, state: &State, origin: &Origin, watch: &Watch<'_>) -> Result<Made> {
    let total = state.record_count();
    let mut out = Document::begin(sink, state, origin, true, (state.table_count() as u64, total))?;
    out.text(",\n    \"tables\": {")?;
    let mut records = 0_u64;
    for (n, (name, table)) in state.tables().enumerate() {
        out.text(if n > 0 { ",\n        " } else { "\n        " })?;
        out.value(&**name)?;
        out.text(": {")?;
        out.definition(table.definition(), "\n            ")?;
        out.text(",\n            \"next_key\": ")?;
        out.value(&table.next_key())?;
        out.text(",\n            \"records\": [")?;
        for (n, (key, row)) in table.iter().enumerate() {
            out.text(if n > 0 { ",\n                " } else { "\n                " })?;
            out.record(name, &key, row)?;
            records = records.saturating_add(1);
            if records.is_multiple_of(REPORT_EVERY) || records == total {
                watch.report(records, Some(total), out.sink.written(), None)?;
            }
        }
        out.text("\n            ]\n        }")?;
    }
    out.text("\n    }")?;
    out.seal()?;
    Ok(Made { records, commits: 0 })
}

/// What a run of commits did to one table, by its outcome.
#[derive(Default)]
struct Touched {
    /// The table of that name that stood at the base is gone.
    dropped: bool,
    /// The table that stands now was created since the base.
    created: bool,
    keys: BTreeSet<Key>,
}

/// Writes a delta: DictDB's document of the records that the commits of `slice` left behind, as they are in `state`.
pub(crate) fn write_delta(
    sink: &mut Sink,
    slice: &RingSlice,
    state: &State,
    origin: &Origin,
    watch: &Watch<'_>,
) -> Result<Made> {
    assert_eq!(slice.last, state.seq, "a delta leads to the state that was backed up");
    let touched = touched_by(slice);
    let present: Vec<Outcome<'_>> = touched.iter().filter_map(|(name, t)| Outcome::of(name, t, state)).collect();
    let records = present.iter().map(|o| o.upserts.len().saturating_add(o.deletes.len()) as u64).sum();
    let commits = slice.last.since(slice.after);
    let mut out = Document::begin(sink, state, origin, false, (commits, records))?;
    let dropped: Vec<&str> = touched.iter().filter(|(_, t)| t.dropped).map(|(name, _)| name.as_str()).collect();
    if !dropped.is_empty() {
        out.text(",\n    \"dictdb_dropped\": ")?;
        out.value(&dropped)?;
    }
    out.text(",\n    \"type\": \"delta\",\n    \"timestamp\": ")?;
    out.text(&seconds(origin.created))?;
    out.text(",\n    \"tables\": {")?;
    let mut done = 0_u64;
    for (n, Outcome { name, created, table, upserts, deletes }) in present.iter().enumerate() {
        out.text(if n > 0 { ",\n        " } else { "\n        " })?;
        out.value(name)?;
        out.text(": {\n            ")?;
        if *created {
            out.text("\"created\": {")?;
            out.definition(table.definition(), "")?;
            out.text("},\n            ")?;
        }
        out.text("\"next_key\": ")?;
        out.value(&table.next_key())?;
        out.text(",\n            \"upserts\": [")?;
        for (n, (key, row)) in upserts.iter().enumerate() {
            out.text(if n > 0 { ",\n                " } else { "\n                " })?;
            out.record(name, key, *row)?;
            done = done.saturating_add(1);
            if done.is_multiple_of(REPORT_EVERY) {
                watch.report(done, Some(records), out.sink.written(), None)?;
            }
        }
        out.text("\n            ],\n            \"deletes\": [")?;
        for (n, key) in deletes.iter().enumerate() {
            out.text(if n > 0 { ", " } else { "" })?;
            match key {
                Key::Int(n) => out.value(n)?,
                Key::Str(s) => out.value(&**s)?,
            }
            done = done.saturating_add(1);
        }
        out.text("]\n        }")?;
        watch.report(done, Some(records), out.sink.written(), None)?;
    }
    out.text("\n    }")?;
    out.seal()?;
    Ok(Made { records, commits })
}

/// What became of one table that is still there.
struct Outcome<'t> {
    name: &'t str,
    created: bool,
    table: &'t TableState,
    upserts: Vec<(&'t Key, RowRef<'t>)>,
    deletes: Vec<&'t Key>,
}

impl<'t> Outcome<'t> {
    fn of(name: &'t str, touched: &'t Touched, state: &'t State) -> Option<Outcome<'t>> {
        let table = state.table(name)?;
        let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
        for key in &touched.keys {
            match table.get(key) {
                Some(row) => upserts.push((key, row)),
                // A table made since the base held nothing at the base that would have to go.
                None if !touched.created => deletes.push(key),
                None => {}
            }
        }
        Some(Outcome { name, created: touched.created, table, upserts, deletes })
    }
}

/// Folds the commits, which this process made, into what they touched.
fn touched_by(slice: &RingSlice) -> BTreeMap<String, Touched> {
    let mut tables: BTreeMap<String, Touched> = BTreeMap::new();
    for frame in slice.frames() {
        let Ok(mut reader) = CommitReader::new(frame.payload) else { unreachable!("a frame in the ring is valid") };
        while let Ok(Some((table, event))) = reader.next() {
            // A name is made a String once a table, not once a change.
            let touched = match tables.get_mut(table) {
                Some(touched) => touched,
                None => tables.entry(table.to_owned()).or_default(),
            };
            match event {
                Event::Put { key_field, names, values } => {
                    let Ok((_, key)) = row::key_at_field(RowRef::Split { names, values }, key_field) else {
                        unreachable!("a frame in the ring is valid")
                    };
                    touched.keys.insert(key);
                }
                Event::Delete { key } => {
                    touched.keys.insert(key);
                }
                Event::Create { .. } => touched.created = true,
                Event::Drop => {
                    touched.dropped |= !touched.created;
                    touched.created = false;
                    touched.keys.clear();
                }
            }
        }
    }
    tables
}

/// Seconds since 1970 with six decimals, as Python's `time.time()` gives them.
fn seconds(time: Timestamp) -> String {
    let (sign, micros) = (if time.as_micros() < 0 { "-" } else { "" }, time.as_micros().unsigned_abs());
    format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// A document under construction.
struct Document<'s> {
    sink: &'s mut Sink,
    scratch: Vec<u8>,
}

impl<'s> Document<'s> {
    /// `counts`: groups and records, as the head defines them.
    fn begin(
        sink: &'s mut Sink,
        state: &State,
        origin: &Origin,
        snapshot: bool,
        counts: (u64, u64),
    ) -> Result<Document<'s>> {
        sink.seal_with_crc();
        let mut out = Document { sink, scratch: Vec::new() };
        let head = Head {
            snapshot,
            parent: state.identity.parent,
            base: origin.base,
            end: state.point(),
            created: origin.created,
            time: state.time,
            groups: counts.0,
            records: counts.1,
        };
        out.text(head::OPENING)?;
        out.value(&head.raw())?;
        Ok(out)
    }

    fn text(&mut self, text: &str) -> Result<()> {
        self.sink.put(text.as_bytes())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.try_value(value).unwrap_or_else(|error| unreachable!("strings and numbers are JSON: {error}"))
    }

    /// The outer error is JSON's, the inner one the storage's.
    fn try_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<Result<()>, serde_json::Error> {
        self.scratch.clear();
        serde_json::to_writer(&mut self.scratch, value)?;
        Ok(self.sink.put(&self.scratch))
    }

    fn record(&mut self, table: &str, key: &Key, row: RowRef<'_>) -> Result<()> {
        self.try_value(&RowView::new(row)).unwrap_or_else(|error| {
            let (field, value) = row::first_non_finite(row)
                .map_or_else(|| (String::new(), error.to_string()), |(path, value)| (path, value.to_string()));
            Err(Error::NotRepresentable { table: table.to_owned(), key: key.clone(), field, value })
        })
    }

    /// The members `primary_key` and `schema`, as DictDB writes them.
    fn definition(&mut self, definition: &TableDefinition, lead: &str) -> Result<()> {
        self.text(lead)?;
        self.text("\"primary_key\": ")?;
        self.value(definition.primary_key())?;
        self.text(",")?;
        self.text(if lead.is_empty() { " " } else { lead })?;
        self.text("\"schema\": ")?;
        let Some(schema) = definition.schema_ref() else { return self.text("null") };
        self.text("{")?;
        for (n, (name, field_type)) in schema.fields().enumerate() {
            self.text(if n > 0 { ", " } else { "" })?;
            self.value(name)?;
            self.text(": ")?;
            self.value(field_type.name())?;
        }
        self.text("}")
    }

    fn seal(self) -> Result<()> {
        let (bytes, crc) = (self.sink.written(), self.sink.crc()?);
        self.sink.put(seal::render(bytes, crc).as_bytes())
    }
}
