//! A table's handle for dynamic records, each operation its own commit.

use std::cell::Cell;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::batch::{Rows, Upserted, no_table};
use crate::db::DictDb;
use crate::definition::TableDefinition;
use crate::error::{Error, Result};
use crate::record_ref::RecordRef;
use crate::row::{self, EncodeError, RowCopy, RowRef};
use crate::value::{Key, Record};
use crate::view::{Records, TableView, decode_record};

/// One table of a database. Cheap to clone; finds its table by name at each call, so it also serves a table that was
/// dropped and made again.
///
/// ```
/// use dictdb::{record, DictDb};
/// let db = DictDb::new();
/// let users = db.create_table("users", "id")?;
/// let ann = users.insert(record! { "name": "Ann" })?;      // automatic key
/// users.update(&ann, record! { "age": 41 })?;              // merges fields
/// users.upsert(record! { "id": 7, "name": "Bo" })?;        // inserts, or replaces the whole record
/// assert_eq!(users.len()?, 2);
/// assert!(users.delete(7)?);
/// # Ok::<(), dictdb::Error>(())
/// ```
#[derive(Clone)]
pub struct Table {
    db: DictDb,
    name: Arc<str>,
}

impl Table {
    pub(crate) fn new(db: DictDb, name: &str) -> Table {
        Table { db, name: name.into() }
    }

    pub(crate) fn db(&self) -> &DictDb {
        &self.db
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its primary key and schema.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`] once it was dropped, as every method here.
    pub fn definition(&self) -> Result<TableDefinition> {
        let state = self.db.read();
        state.table(&self.name).map(|table| (**table.definition()).clone()).ok_or_else(|| no_table(&self.name))
    }

    /// Adds a record. Where its primary key is missing, as its last field, or null, in its place, it gets the table's next
    /// automatic key: one above the largest integer that the table has ever held, and at least 1. Gives the key.
    ///
    /// # Errors
    /// [`Error::DuplicateKey`], [`Error::InvalidKey`], [`Error::SchemaViolation`], [`Error::Encode`] (over 100 levels
    /// deep), [`Error::TooLarge`], [`Error::NoSuchTable`]; [`Error::Exhausted`] where automatic keys are used up;
    /// [`Error::NestedWrite`], [`Error::Poisoned`], [`Error::Closed`], [`Error::ReadOnly`], as of every write.
    pub fn insert(&self, record: impl Into<Record>) -> Result<Key> {
        with_encoded(&self.name, &record.into(), |row| self.db.insert(&self.name, row))
    }

    /// Adds records in one commit, all or none. Gives their keys in order.
    ///
    /// # Errors
    /// As [`insert`](Table::insert); the first record that does not fit stops them all.
    pub fn insert_many<R: Into<Record>>(&self, records: impl IntoIterator<Item = R>) -> Result<Vec<Key>> {
        let records = records.into_iter().map(Into::into);
        insert_many(&self.db, &self.name, records, |record: Record, out| row::encode_record(&record, out))
    }

    /// Adds a record, or replaces the whole of the one with its key. (DictDB's `upsert` merges; that is
    /// [`update`](Table::update) here.) Gives the key, and which it was.
    ///
    /// # Errors
    /// As [`insert`](Table::insert), but for the duplicate.
    pub fn upsert(&self, record: impl Into<Record>) -> Result<(Key, Upserted)> {
        with_encoded(&self.name, &record.into(), |row| self.db.upsert(&self.name, row))
    }

    /// Merges fields into the record with this key: those that it has are overwritten in place, new ones come last.
    /// Gives the record as it now is.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`]; [`Error::InvalidKey`] where the changes hold another primary key; else as
    /// [`insert`](Table::insert).
    pub fn update(&self, key: impl Into<Key>, changes: impl Into<Record>) -> Result<Record> {
        let key = key.into();
        let row = with_encoded(&self.name, &changes.into(), |changes| self.db.update(&self.name, &key, changes))?;
        Ok(decode_record((&row).into()))
    }

    /// Replaces the whole of the record with the same primary key.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`]; else as [`insert`](Table::insert).
    pub fn replace(&self, record: impl Into<Record>) -> Result<Key> {
        with_encoded(&self.name, &record.into(), |row| self.db.replace(&self.name, row))
    }

    /// Removes the record with this key; `false`, and no commit, where there is none.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`]; [`Error::NestedWrite`], [`Error::Poisoned`], [`Error::Closed`], [`Error::ReadOnly`],
    /// [`Error::Exhausted`], as of every write.
    pub fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        self.db.delete(&self.name, &key.into())
    }

    /// The record with this key. Decodes it, outside every lock: the cost grows with the record, not with the table.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn get(&self, key: impl Into<Key>) -> Result<Option<Record>> {
        self.with_row(&key.into(), decode_record)
    }

    /// Has `read` look at the record with this key, not decoded: a copy of its bytes, outside every lock.
    ///
    /// ```
    /// use dictdb::{record, DictDb};
    /// let db = DictDb::new();
    /// let users = db.create_table("users", "id")?;
    /// users.insert(record! { "id": 1, "name": "Ann", "age": 41 })?;
    /// let age = users.read(1, |user| user.field("age"))?.flatten();
    /// assert_eq!(age.unwrap(), 41);
    /// assert!(users.read(2, |_| ())?.is_none());
    /// # Ok::<(), dictdb::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn read<T>(&self, key: impl Into<Key>, read: impl FnOnce(RecordRef<'_>) -> T) -> Result<Option<T>> {
        let key = key.into();
        self.with_row(&key, |row| read(RecordRef::new(&self.name, key.clone(), row)))
    }

    /// Whether there is a record with this key.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn contains_key(&self, key: impl Into<Key>) -> Result<bool> {
        let key = key.into();
        let state = self.db.read();
        let table = state.table(&self.name).ok_or_else(|| no_table(&self.name))?;
        Ok(table.contains_key(&key))
    }

    /// How many records there are, in constant time.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn len(&self) -> Result<usize> {
        let state = self.db.read();
        state.table(&self.name).map(|table| table.len()).ok_or_else(|| no_table(&self.name))
    }

    /// Whether there are none.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// All records in the order of their keys (integers, then strings by their bytes), as they stand now. Works on a
    /// frozen view, so it holds no lock, and decodes each record as it comes to it.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn iter(&self) -> Result<Records> {
        Ok(self.view()?.iter())
    }

    /// The records whose keys lie in `keys`, in order, as they stand now.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn range<K: Into<Key> + Clone>(&self, keys: impl RangeBounds<K>) -> Result<Records> {
        Ok(self.view()?.range(keys))
    }

    /// A frozen view of this table, in constant time.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn view(&self) -> Result<TableView> {
        TableView::of(&self.db.read(), &self.name)
    }

    /// Copies the row under the lock, and has `read` read it without: `read` may run code of the caller.
    pub(crate) fn with_row<T>(&self, key: &Key, read: impl FnOnce(RowRef<'_>) -> T) -> Result<Option<T>> {
        let copy = |copy: &mut RowCopy| {
            let state = self.db.read();
            let table = state.table(&self.name).ok_or_else(|| no_table(&self.name))?;
            Ok(table.copy_row(key, copy))
        };
        with_copy(copy, read)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({:?})", self.name)
    }
}

pub(crate) fn encode_error(table: &str, error: EncodeError) -> Error {
    match error {
        EncodeError::TooLarge(bytes) => {
            Error::TooLarge { what: "a record", bytes: bytes as u64, limit: crate::limits::ROW_BYTES_MAX as u64 }
        }
        other => Error::Encode { table: table.to_owned(), problem: other.to_string() },
    }
}

/// Rows, and bytes of them, inserted under the lock that readers share; more are inserted into a copy, so that readers
/// do not wait.
const ROWS_IN_PLACE_MAX: usize = 4_096;
const BYTES_IN_PLACE_MAX: usize = 1 << 20;

/// Encodes all values, without a lock, then inserts them in one commit.
pub(crate) fn insert_many<V>(
    db: &DictDb,
    table: &str,
    values: impl Iterator<Item = V>,
    mut encode: impl FnMut(V, &mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<Vec<Key>> {
    let mut rows = Rows::default();
    for value in values {
        encode(value, &mut rows.bytes).map_err(|error| encode_error(table, error))?;
        rows.end_row();
    }
    if rows.len() <= ROWS_IN_PLACE_MAX && rows.bytes.len() <= BYTES_IN_PLACE_MAX {
        db.write(|batch| batch.insert_all(table, &rows))
    } else {
        db.transaction_batch(|batch| batch.insert_all(table, &rows))
    }
}

/// Buffers of a thread that grow beyond this are given back.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

thread_local!(static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });

/// Runs `write` with a scratch buffer of this thread, which `encode` fills first. No lock is held while it encodes.
pub(crate) fn with_scratch<T>(
    encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    write: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<T> {
    // Taken, not borrowed: a `Serialize` that itself writes a record finds an empty one.
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    let result = encode(&mut scratch).and_then(|()| write(&scratch));
    if scratch.capacity() <= SCRATCH_BYTES_MAX {
        let _ = SCRATCH.try_with(|kept| kept.set(scratch)); // not at the end of the thread
    }
    result
}

thread_local!(static COPY: Cell<RowCopy> = const { Cell::new(RowCopy::new()) });

/// Has `copy` copy a row, and `read` read it if there is one. No lock is held while it does.
pub(crate) fn with_copy<T>(
    copy: impl FnOnce(&mut RowCopy) -> Result<bool>,
    read: impl FnOnce(RowRef<'_>) -> T,
) -> Result<Option<T>> {
    // Taken, not borrowed: a `Deserialize` that itself reads a record finds an empty one.
    let mut row = COPY.try_with(Cell::take).unwrap_or_default();
    let found = copy(&mut row)?;
    let value = found.then(|| read(row.row()));
    if row.capacity() <= SCRATCH_BYTES_MAX {
        let _ = COPY.try_with(|kept| kept.set(row)); // not at the end of the thread
    }
    Ok(value)
}

pub(crate) fn with_encoded<T>(table: &str, record: &Record, write: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    with_scratch(|out| row::encode_record(record, out).map_err(|e| encode_error(table, e)), write)
}
