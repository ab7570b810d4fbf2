//! Reading: a frozen view of all tables, of one table, and iterators over it.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::batch::no_table;
use crate::definition::TableDefinition;
use crate::error::{Error, Result};
use crate::history::{Digest, Lineage, Point, Seq, Timestamp};
use crate::record_ref::RecordRef;
use crate::row::{self, RowRef, Shapes};
use crate::rows::{self, Rows, Window};
use crate::state::{State, TableState};
use crate::value::{Key, Record};

/// All tables as they stood at one seq. Later writes do not show, and holding one never blocks a writer.
///
/// Taking one copies a few pointers, whatever the database holds; reading it takes no lock. While it lives, a writer
/// copies each tree node (not each record) that it changes for the first time.
///
/// ```
/// use dictdb::{record, DictDb};
/// let db = DictDb::new();
/// let users = db.create_table("users", "id")?;
/// users.insert(record! { "id": 1, "name": "Ann" })?;
/// let before = db.snapshot();
/// users.delete(1)?;
/// assert_eq!(before.table("users")?.len(), 1);
/// assert_eq!(users.len()?, 0);
/// # Ok::<(), dictdb::Error>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    state: State,
}

impl Snapshot {
    pub(crate) fn new(state: State) -> Snapshot {
        Snapshot { state }
    }

    /// The newest commit that this view shows.
    pub fn seq(&self) -> Seq {
        self.state.seq
    }

    /// The time of that commit; the epoch where there is none.
    pub fn time(&self) -> Timestamp {
        self.state.time
    }

    /// The history that it belongs to.
    pub fn lineage(&self) -> Lineage {
        self.state.identity.lineage
    }

    /// The digest of all that it shows; a few hundred nanoseconds a table.
    pub fn digest(&self) -> Digest {
        self.state.digest()
    }

    /// Lineage, seq and digest in one.
    pub fn point(&self) -> Point {
        self.state.point()
    }

    /// The names of all tables, in order.
    pub fn table_names(&self) -> Vec<String> {
        self.state.tables().map(|(name, _)| name.to_string()).collect()
    }

    /// One table.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn table(&self, name: &str) -> Result<TableView> {
        TableView::of(&self.state, name)
    }

    /// Records in all tables.
    pub fn record_count(&self) -> u64 {
        self.state.record_count()
    }

    /// Bytes of the values of all records, encoded; the names of their fields are kept once for all.
    pub fn record_bytes(&self) -> u64 {
        self.state.row_bytes()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({}, {} tables, {} records)", self.point(), self.state.table_count(), self.record_count())
    }
}

/// One table as it stood at one seq.
#[derive(Clone)]
pub struct TableView {
    name: Arc<str>,
    table: TableState,
}

impl TableView {
    pub(crate) fn of(state: &State, name: &str) -> Result<TableView> {
        let table = state.table(name).ok_or_else(|| no_table(name))?;
        Ok(TableView { name: name.into(), table: table.clone() })
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its primary key and schema.
    pub fn definition(&self) -> &TableDefinition {
        self.table.definition()
    }

    /// The record with this key. Decodes it: cost grows with the record, not with the table.
    pub fn get(&self, key: impl Into<Key>) -> Option<Record> {
        self.table.get(&key.into()).map(decode_record)
    }

    /// The record with this key, as a type.
    ///
    /// # Errors
    /// [`Error::Decode`] where the record does not fit the type.
    pub fn get_as<T: DeserializeOwned>(&self, key: impl Into<Key>) -> Result<Option<T>> {
        let key = key.into();
        self.table.get(&key).map(|row| decode_as(&self.name, &key, row)).transpose()
    }

    /// The record with this key where it lies, not decoded.
    pub fn get_ref(&self, key: impl Into<Key>) -> Option<RecordRef<'_>> {
        let key = key.into();
        let row = self.table.get(&key)?;
        Some(RecordRef::new(&self.name, key, row))
    }

    /// Whether there is a record with this key.
    pub fn contains_key(&self, key: impl Into<Key>) -> bool {
        self.table.contains_key(&key.into())
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All records in the order of their keys: integers ascending, then strings by their bytes.
    pub fn iter(&self) -> Records {
        self.range::<Key>(..)
    }

    /// The records whose keys lie in `keys`, in order.
    ///
    /// ```
    /// use dictdb::{record, DictDb};
    /// let db = DictDb::new();
    /// let t = db.create_table("t", "id")?;
    /// for id in 0..10 {
    ///     t.insert(record! { "id": id })?;
    /// }
    /// let keys: Vec<String> = t.view()?.range(3..=5).map(|(key, _)| key.to_string()).collect();
    /// assert_eq!(keys, ["3", "4", "5"]);
    /// # Ok::<(), dictdb::Error>(())
    /// ```
    pub fn range<K: Into<Key> + Clone>(&self, keys: impl RangeBounds<K>) -> Records {
        Records(Range::new(&self.table, keys))
    }

    /// The same, each record where it lies, not decoded.
    pub fn refs<K: Into<Key> + Clone>(&self, keys: impl RangeBounds<K>) -> Refs<'_> {
        let bound = |b: Bound<&K>| b.map(|key| key.clone().into());
        let rows = self.table.rows().iter_from(bound(keys.start_bound()).as_ref());
        Refs { table: &self.name, rows, shapes: self.table.shapes(), end: bound(keys.end_bound()) }
    }

    /// The same, each record as a type.
    pub fn range_as<K: Into<Key> + Clone, T: DeserializeOwned>(&self, keys: impl RangeBounds<K>) -> RecordsAs<T> {
        RecordsAs { name: self.name.clone(), rows: Range::new(&self.table, keys), as_type: PhantomData }
    }
}

impl fmt::Debug for TableView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableView({:?}, {} records)", self.name, self.len())
    }
}

/// Rows in memory were checked when they came in.
pub(crate) fn decode_record(row: RowRef<'_>) -> Record {
    match row::decode_record(row) {
        Ok(record) => record,
        Err(malformed) => unreachable!("a row in memory is valid: {malformed:?}"),
    }
}

pub(crate) fn decode_as<T: DeserializeOwned>(table: &str, key: &Key, row: RowRef<'_>) -> Result<T> {
    row::decode(row).map_err(|error| Error::Decode {
        table: table.to_owned(),
        key: key.clone(),
        problem: error.to_string(),
    })
}

/// An owning iterator over the rows of a frozen table: from either end it holds the leaf that it has come to, and seeks
/// once a leaf.
#[derive(Clone)]
struct Range {
    rows: Rows,
    shapes: Shapes,
    /// What is left, but for the windows.
    front: Bound<Key>,
    back: Bound<Key>,
    front_rows: Option<Window>,
    back_rows: Option<Window>,
}

impl Range {
    fn new<K: Into<Key> + Clone>(table: &TableState, keys: impl RangeBounds<K>) -> Range {
        let bound = |b: Bound<&K>| b.map(|key| key.clone().into());
        Range {
            rows: table.rows().clone(),
            shapes: table.shapes().clone(),
            front: bound(keys.start_bound()),
            back: bound(keys.end_bound()),
            front_rows: None,
            back_rows: None,
        }
    }

    fn next(&mut self) -> Option<(Key, RowRef<'_>)> {
        if self.front_rows.as_ref().is_none_or(Window::is_empty) {
            self.front_rows = self.rows.window(self.front.as_ref(), self.back.as_ref());
            if let Some(key) = self.front_rows.as_ref().and_then(Window::last_key) {
                self.front = Bound::Excluded(key);
            }
        }
        let (key, row) = match &mut self.front_rows {
            Some(window) => window.next(),
            None => self.back_rows.as_mut()?.next(),
        }?;
        Some((key, self.shapes.row(row)))
    }

    fn next_back(&mut self) -> Option<(Key, RowRef<'_>)> {
        if self.back_rows.as_ref().is_none_or(Window::is_empty) {
            self.back_rows = self.rows.window_back(self.front.as_ref(), self.back.as_ref());
            if let Some(key) = self.back_rows.as_ref().and_then(Window::first_key) {
                self.back = Bound::Excluded(key);
            }
        }
        let (key, row) = match &mut self.back_rows {
            Some(window) => window.next_back(),
            None => self.front_rows.as_mut()?.next_back(),
        }?;
        Some((key, self.shapes.row(row)))
    }
}

/// Records in key order; see [`TableView::range`]. Sees none of the writes made after it was created.
#[derive(Clone)]
pub struct Records(Range);

impl Iterator for Records {
    type Item = (Key, Record);

    fn next(&mut self) -> Option<(Key, Record)> {
        self.0.next().map(|(key, row)| (key, decode_record(row)))
    }
}

impl DoubleEndedIterator for Records {
    fn next_back(&mut self) -> Option<(Key, Record)> {
        self.0.next_back().map(|(key, row)| (key, decode_record(row)))
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Records")
    }
}

/// Records in key order, where they lie; see [`TableView::refs`].
pub struct Refs<'v> {
    table: &'v str,
    rows: rows::Iter<'v>,
    shapes: &'v Shapes,
    end: Bound<Key>,
}

impl<'v> Iterator for Refs<'v> {
    type Item = RecordRef<'v>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'v>> {
        let (key, row) = self.rows.next()?;
        let is_in = match &self.end {
            Bound::Included(end) => key <= *end,
            Bound::Excluded(end) => key < *end,
            Bound::Unbounded => true,
        };
        if !is_in {
            self.rows = rows::Iter::Empty;
            return None;
        }
        Some(RecordRef::new(self.table, key, self.shapes.row(row)))
    }
}

impl fmt::Debug for Refs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refs")
    }
}

/// Records in key order, each as a type; see [`TableView::range_as`].
#[derive(Clone)]
pub struct RecordsAs<T> {
    name: Arc<str>,
    rows: Range,
    as_type: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for RecordsAs<T> {
    type Item = Result<(Key, T)>;

    fn next(&mut self) -> Option<Result<(Key, T)>> {
        let (key, row) = self.rows.next()?;
        Some(decode_as(&self.name, &key, row).map(|value| (key, value)))
    }
}

impl<T: DeserializeOwned> DoubleEndedIterator for RecordsAs<T> {
    fn next_back(&mut self) -> Option<Result<(Key, T)>> {
        let (key, row) = self.rows.next_back()?;
        Some(decode_as(&self.name, &key, row).map(|value| (key, value)))
    }
}

impl<T> fmt::Debug for RecordsAs<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordsAs")
    }
}
