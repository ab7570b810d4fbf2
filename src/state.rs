//! The tables in memory: the fold of the log up to a seq.
//!
//! Everything is held in persistent maps, so cloning a [`State`] is a few pointer copies and neither side sees what
//! the other does afterwards. [`State::apply`] says what a commit is and does, and it is deterministic; recovery goes through
//! it. Live commits make the same changes one by one, and a restore those of many commits together ([`net`]).

mod admit;
mod net;
mod place;
mod prepared;

use std::sync::Arc;

use arrayvec::ArrayVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

pub(crate) use self::place::InPlace;
use crate::definition::{FieldType, TableDefinition};
use crate::history::{Digest, Lineage, Point, Seq, Timestamp};
use crate::limits::{NAME_BYTES_MAX, TABLES_MAX};
use crate::mutation::{CommitReader, Event};
use crate::row::{self, Parts, RowCopy, RowRef, Shapes, Summary, Tag};
use crate::rows::{self, Leaves, Rows, Ways};
use crate::tree::{Tree, WARM_MAX, Way};
use crate::value::Key;
use crate::wire::{self, Malformed};

pub(crate) use self::net::{ChangeBatch, ChangeNumber, Totals};
pub(crate) use self::prepared::{Change, ChangeTarget, Changes, Prepared, Preparer};

/// One table.
#[derive(Clone, Debug)]
pub(crate) struct TableState {
    definition: Arc<TableDefinition>,
    rows: Rows,
    /// The names that the rows have in common.
    shapes: Shapes,
    /// The next automatic key; 2^63 once they are used up.
    next_key: u64,
    rows_digest: Digest,
    /// Bytes of the values of all rows.
    row_bytes: u64,
}

/// Rows in the order of their keys, made apart from their table, for [`TableState::append`].
#[derive(Debug)]
pub(crate) struct Run {
    rows: Rows,
    digest: Digest,
    bytes: u64,
    pub(crate) last: Option<Key>,
}

/// A [`Run`] in the making.
pub(crate) struct RunWriter<'t, 'r> {
    shapes: &'t Shapes,
    rows: rows::Run<'r>,
    digest: Digest,
    bytes: u64,
}

impl<'t, 'r> RunWriter<'t, 'r> {
    pub(crate) fn new(table: &'t TableState) -> RunWriter<'t, 'r> {
        RunWriter { shapes: &table.shapes, rows: rows::Run::new(), digest: Digest::EMPTY, bytes: 0 }
    }

    /// A row of that table, behind the last one.
    #[inline]
    pub(crate) fn push(&mut self, key: Key, row: Parts<'r>) {
        let summary = self.shapes.summary_of(&row);
        self.digest.add(summary.hash);
        self.bytes = self.bytes.saturating_add(summary.bytes);
        self.rows.push(key, row);
    }

    pub(crate) fn last(&self) -> Option<&Key> {
        self.rows.last()
    }

    pub(crate) fn finish(self) -> Run {
        let last = self.rows.last().cloned();
        Run { rows: self.rows.finish(), digest: self.digest, bytes: self.bytes, last }
    }
}

impl Run {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn first(&self) -> Option<Key> {
        self.rows.iter().next().map(|(key, _)| key)
    }
}

/// Automatic keys start here, as DictDB's do.
pub(crate) const FIRST_AUTOMATIC_KEY: u64 = 1;
/// What the counter says when no key is left.
const NO_KEY_LEFT: u64 = 1 << 63;

impl TableState {
    pub(crate) fn new(name: &str, definition: TableDefinition) -> TableState {
        TableState {
            rows: Rows::new(),
            shapes: Shapes::new(xxh3_64(name.as_bytes()), definition.primary_key()),
            definition: Arc::new(definition),
            next_key: FIRST_AUTOMATIC_KEY,
            rows_digest: Digest::EMPTY,
            row_bytes: 0,
        }
    }

    pub(crate) fn definition(&self) -> &Arc<TableDefinition> {
        &self.definition
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows as the table holds them; see [`TableState::shapes`].
    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The rows, leaf by leaf, each of which is let go of when it is given back; and what it takes to read them.
    pub(crate) fn into_leaves(self) -> (Leaves, Shapes) {
        (self.rows.into_leaves(), self.shapes)
    }

    /// What it takes to read the rows that the table holds.
    pub(crate) fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// The number by which rows with these names, which are valid, are held.
    pub(crate) fn shape_number(&mut self, names: &[u8]) -> Option<usize> {
        self.shapes.number(names)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<RowRef<'_>> {
        self.rows.get(key).map(|row| self.shapes.row(row))
    }

    /// Copies the row with this key; whether there is one.
    pub(crate) fn copy_row(&self, key: &Key, copy: &mut RowCopy) -> bool {
        let found = self.rows.get(key);
        if let Some(row) = found {
            self.shapes.copy(row, copy);
        }
        found.is_some()
    }

    /// The key of a valid row, and which field it is: where the row has the names of the last one, and a key.
    #[inline]
    pub(crate) fn key_like_the_last(&self, row: &[u8]) -> Option<(Key, usize)> {
        let (found, field) = self.shapes.key_like_the_last(row)?;
        match found {
            row::KeyIn::Int { key, .. } => Some((Key::Int(key), field)),
            row::KeyIn::Str { key, .. } if key.len() <= NAME_BYTES_MAX => Some((Key::from(key), field)),
            _ => None,
        }
    }

    /// Asks for the memory that putting a row under this key will look at. Gives the way there.
    pub(crate) fn prefetch(&self, key: &Key) -> Way {
        self.rows.prefetch(key)
    }

    /// Asks for the memory that putting the next few of these rows will look at. Gives the ways there.
    pub(crate) fn warm<'r>(&self, rows: impl Iterator<Item = &'r [u8]>) -> Ways {
        let keys: ArrayVec<Key, WARM_MAX> =
            rows.take(WARM_MAX).map_while(|row| self.key_like_the_last(row)).map(|(key, _)| key).collect();
        self.rows.warm(keys.iter())
    }

    /// All rows in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, RowRef<'_>)> {
        self.rows.iter().map(|(key, row)| (key, self.shapes.row(row)))
    }

    pub(crate) fn contains_key(&self, key: &Key) -> bool {
        self.rows.get(key).is_some()
    }

    pub(crate) fn row_bytes(&self) -> u64 {
        self.row_bytes
    }

    pub(crate) fn next_key(&self) -> u64 {
        self.next_key
    }

    /// The automatic key that the next record without a key gets; `None` when they are used up.
    pub(crate) fn automatic_key(&self) -> Option<i64> {
        i64::try_from(self.next_key).ok()
    }

    /// Sets the counter to what a snapshot says; `false` where a key already there contradicts it.
    pub(crate) fn set_next_key(&mut self, next_key: u64) -> bool {
        let sound = next_key >= self.next_key && next_key <= NO_KEY_LEFT;
        if sound {
            self.next_key = next_key;
        }
        sound
    }

    /// Sets the counter back to where it was before insertions that were undone and that nobody has seen.
    pub(crate) fn take_back_keys(&mut self, next_key: u64) {
        self.next_key = next_key;
    }

    /// Puts a valid row under its key; whether it replaces one.
    pub(crate) fn put(&mut self, key: Key, row: &[u8]) -> bool {
        let parts = self.shapes.take_apart(row);
        self.put_parts(key, &parts)
    }

    /// The same for its names and values.
    pub(crate) fn put_split(&mut self, key: Key, (names, values): (&[u8], &[u8])) -> bool {
        let number = self.shapes.number(names);
        self.put_parts(key, &Parts { number, names, values })
    }

    fn put_parts(&mut self, key: Key, row: &Parts<'_>) -> bool {
        self.count_key(&key);
        let (mut old, rows) = (None, &mut self.rows);
        let new = self.shapes.store(row, |shapes, stored, new| {
            rows.insert(key, stored, |row| old = Some(shapes.summary(row)));
            new
        });
        self.count_in(new);
        self.forget(old)
    }

    /// Puts a valid row under a key that has none; `false`, and no row changed, where it has one.
    pub(crate) fn put_new(&mut self, way: &Way, key: &Key, row: &[u8]) -> bool {
        let row = self.shapes.take_apart(row);
        let rows = &mut self.rows;
        let (vacant, new) = self.shapes.store(&row, |_, stored, new| (rows.insert_new(way, key, stored), new));
        if vacant {
            self.count_key(key);
            self.count_in(new);
        }
        vacant
    }

    /// A table without rows of which the rows of this one could be: what it takes to check them.
    pub(crate) fn without_rows(&self) -> TableState {
        TableState {
            definition: self.definition.clone(),
            rows: Rows::none(),
            shapes: self.shapes.clone(),
            next_key: FIRST_AUTOMATIC_KEY,
            rows_digest: Digest::EMPTY,
            row_bytes: 0,
        }
    }

    /// What it says of itself, and none of its rows.
    fn outline(&self) -> TableState {
        let Self { next_key, rows_digest, row_bytes, .. } = *self;
        TableState { next_key, rows_digest, row_bytes, ..self.without_rows() }
    }

    /// Puts rows behind all that are there.
    pub(crate) fn append(&mut self, run: Run) {
        self.rows_digest.add(run.digest.to_u128());
        self.row_bytes = self.row_bytes.saturating_add(run.bytes);
        if let Some(greatest) = run.rows.last_integer() {
            self.count_key(&Key::Int(greatest));
        }
        self.rows.join(run.rows);
    }

    fn count_in(&mut self, new: Summary) {
        self.rows_digest.add(new.hash);
        self.row_bytes = self.row_bytes.saturating_add(new.bytes);
    }

    fn count_key(&mut self, key: &Key) {
        if let Key::Int(n) = *key
            && let Ok(n) = u64::try_from(n)
            && n >= self.next_key
        {
            self.next_key = n.saturating_add(1);
        }
    }

    /// Takes a row away; whether there was one.
    pub(crate) fn delete(&mut self, key: &Key) -> bool {
        let mut old = None;
        self.rows.remove(key, |row| old = Some(self.shapes.summary(row)));
        self.forget(old)
    }

    /// Whether there was a row to forget.
    fn forget(&mut self, old: Option<Summary>) -> bool {
        let Some(old) = old else { return false };
        self.rows_digest.subtract(old.hash);
        self.row_bytes = self.row_bytes.saturating_sub(old.bytes);
        true
    }

    /// Checks a valid row against the schema; otherwise the field and what is wrong with it.
    pub(crate) fn check_schema(&self, row: RowRef<'_>) -> Result<(), (String, String)> {
        let Some(schema) = self.definition.schema_ref() else { return Ok(()) };
        let mut problem = None;
        let mut seen = 0_usize;
        let mut types = schema.types();
        let walked = row::for_each_field(row, |name, tag| {
            let found = match types.of(name) {
                None => Some("is not defined in the schema".to_owned()),
                Some(wanted) if fits(wanted, tag) => None,
                Some(wanted) => Some(format!("must be of type {wanted}, not {}", tag.name())),
            };
            seen = seen.saturating_add(1);
            match found {
                None => std::ops::ControlFlow::Continue(()),
                Some(what) => {
                    problem = Some((name.to_owned(), what));
                    std::ops::ControlFlow::Break(())
                }
            }
        });
        if let Some(problem) = problem {
            return Err(problem);
        }
        if walked.is_ok() && seen == schema.fields().len() {
            return Ok(());
        }
        // Names are unique on both sides and all of the row's are in the schema: one of the schema's is missing.
        let mut names = std::collections::HashSet::new();
        let _ = row::for_each_field(row, |name, _| {
            names.insert(name);
            std::ops::ControlFlow::Continue(())
        });
        let missing = schema.fields().map(|(name, _)| name).find(|name| !names.contains(name)).unwrap_or_default();
        Err((missing.to_owned(), "is required by the schema and missing".to_owned()))
    }

    /// What this table adds to the state's digest.
    fn digest_into(&self, name: &str, digest: &mut Digest) {
        let mut bytes = Vec::new();
        wire::put_str(&mut bytes, name);
        self.definition.encode_into(&mut bytes);
        wire::put_u64(&mut bytes, self.next_key);
        digest.add(xxh3_128(&bytes));
        digest.add(self.rows_digest.to_u128());
    }
}

fn fits(wanted: FieldType, tag: Tag) -> bool {
    matches!(
        (wanted, tag),
        (FieldType::Int, Tag::Int | Tag::UInt | Tag::Bool)
            | (FieldType::Float, Tag::Float)
            | (FieldType::Str, Tag::Str)
            | (FieldType::Bool, Tag::Bool)
            | (FieldType::List, Tag::List)
            | (FieldType::Dict, Tag::Dict)
    )
}

/// Which history a state belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) lineage: Lineage,
    /// The point of another history that this one began at; `None` where it began empty.
    pub(crate) parent: Option<Point>,
}

impl Identity {
    /// A history that begins empty.
    pub(crate) fn fresh() -> Identity {
        Identity { lineage: Lineage::random(), parent: None }
    }

    /// A history that begins at a point of another one.
    pub(crate) fn child_of(parent: Point) -> Identity {
        Identity { lineage: Lineage::random(), parent: Some(parent) }
    }

    /// The seq before this history's first commit.
    pub(crate) fn origin(&self) -> Seq {
        self.parent.map_or(Seq::ZERO, |parent| parent.seq)
    }
}

/// All tables at one seq.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) identity: Identity,
    pub(crate) seq: Seq,
    /// Time of the newest commit.
    pub(crate) time: Timestamp,
    tables: Tree<Arc<str>, Vec<TableState>>,
}

/// Why a commit does not apply to a state: nothing that this program wrote, if the checksums are to be believed.
#[derive(Debug)]
pub(crate) struct Mismatch {
    /// Offset in the commit's payload.
    pub(crate) at: usize,
    pub(crate) expected: String,
}

/// Why a table cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotCreated {
    Exists,
    TooMany,
}

impl NotCreated {
    /// What was expected where a file has such a table.
    pub(crate) fn expected(self, table: &str) -> String {
        match self {
            NotCreated::Exists => format!("no table {table:?} yet"),
            NotCreated::TooMany => format!("no more than {TABLES_MAX} tables"),
        }
    }
}

impl From<Malformed> for Mismatch {
    fn from(malformed: Malformed) -> Mismatch {
        Mismatch { at: malformed.at, expected: malformed.expected.to_owned() }
    }
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) puts: u64,
    pub(crate) deletes: u64,
}

impl State {
    /// The empty database at the beginning of a history.
    pub(crate) fn empty(identity: Identity) -> State {
        State { identity, seq: identity.origin(), time: Timestamp::default(), tables: Tree::new() }
    }

    pub(crate) fn table(&self, name: &str) -> Option<&TableState> {
        self.tables.get(name)
    }

    pub(crate) fn table_mut(&mut self, name: &str) -> Option<&mut TableState> {
        self.tables.get_mut(name)
    }

    /// In the order of their names.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&Arc<str>, &TableState)> {
        self.tables.iter()
    }

    pub(crate) fn table_count(&self) -> usize {
        self.tables.len()
    }

    /// Adds a table, or changes nothing.
    pub(crate) fn create_table(&mut self, name: &str, table: TableState) -> Result<(), NotCreated> {
        if self.tables.contains_key(name) {
            return Err(NotCreated::Exists);
        }
        if self.tables.len() >= TABLES_MAX {
            return Err(NotCreated::TooMany);
        }
        self.tables.insert(name.into(), table, |_, _, _| ());
        Ok(())
    }

    /// `false` where there is none of that name.
    pub(crate) fn drop_table(&mut self, name: &str) -> bool {
        self.tables.remove(name, |_| ())
    }

    pub(crate) fn record_count(&self) -> u64 {
        self.tables.values().map(|table| table.rows.len() as u64).sum()
    }

    pub(crate) fn row_bytes(&self) -> u64 {
        self.tables.values().map(TableState::row_bytes).sum()
    }

    /// The digest; costs a few hundred nanoseconds a table, whatever it holds.
    pub(crate) fn digest(&self) -> Digest {
        let mut digest = Digest::EMPTY;
        for (name, table) in self.tables.iter() {
            table.digest_into(name, &mut digest);
        }
        digest
    }

    /// What this state says of itself, and none of its rows: it stands at the same point.
    pub(crate) fn outline(&self) -> State {
        let mut outline = State::empty(self.identity);
        (outline.seq, outline.time) = (self.seq, self.time);
        for (name, table) in self.tables() {
            outline.tables.insert(name.clone(), table.outline(), |_, _, _| ());
        }
        outline
    }

    /// Where this state stands.
    pub(crate) fn point(&self) -> Point {
        Point { lineage: self.identity.lineage, seq: self.seq, digest: self.digest() }
    }

    /// Replays one commit from outside: every byte of it is checked against the rules and against the state.
    ///
    /// On failure the state holds part of the commit and must be thrown away.
    pub(crate) fn apply(&mut self, seq: Seq, payload: &[u8]) -> Result<Applied, Mismatch> {
        self.expect(seq)?;
        let mut reader = CommitReader::new(payload)?;
        let mut applied = Applied::default();
        loop {
            let at = reader.pos();
            let Some((table, event)) = reader.next()? else { break };
            let wrong = |expected: String| Mismatch { at, expected };
            match event {
                Event::Put { key_field, names, values } => {
                    let state = self.tables.get_mut(table).ok_or_else(|| wrong(format!("a table {table:?}")))?;
                    let key = state.admit(names, values, Some(key_field)).map_err(|mut m| {
                        // The values lie at the end of the bytes read so far, the names before them.
                        m.at =
                            reader.pos().saturating_add(m.at).saturating_sub(names.len()).saturating_sub(values.len());
                        m
                    })?;
                    state.put_split(key, (names, values));
                    applied.puts = applied.puts.saturating_add(1);
                }
                Event::Delete { key } => {
                    let state = self.tables.get_mut(table).ok_or_else(|| wrong(format!("a table {table:?}")))?;
                    if !state.delete(&key) {
                        return Err(wrong(missing(table, &key)));
                    }
                    applied.deletes = applied.deletes.saturating_add(1);
                }
                Event::Create { definition } => {
                    let created = self.create_table(table, TableState::new(table, definition));
                    created.map_err(|not_created| wrong(not_created.expected(table)))?;
                }
                Event::Drop => {
                    if !self.drop_table(table) {
                        return Err(wrong(format!("a table {table:?} to drop")));
                    }
                }
            }
        }
        self.time = reader.time();
        self.seq = seq;
        Ok(applied)
    }

    /// Takes a commit as applied whose changes are still to be made.
    pub(crate) fn pass(&mut self, seq: Seq, payload: &[u8]) -> Result<(), Mismatch> {
        self.expect(seq)?;
        (self.time, self.seq) = (CommitReader::new(payload)?.time(), seq);
        Ok(())
    }

    /// Whether this is the seq of the next commit.
    fn expect(&self, seq: Seq) -> Result<(), Mismatch> {
        if self.seq.next() == Some(seq) {
            return Ok(());
        }
        Err(Mismatch { at: 0, expected: format!("the commit after seq {}, not seq {seq}", self.seq) })
    }
}

/// What a delete of a record that is not there should have found.
fn missing(table: &str, key: &Key) -> String {
    format!("a record {key} of table {table:?} to delete")
}
