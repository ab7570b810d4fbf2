//! Several operations in one commit.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::{Batch, Upserted, no_table};
use crate::definition::TableDefinition;
use crate::error::Result;
use crate::row::{self, RowCopy, RowRef};
use crate::table::{encode_error, with_copy, with_encoded, with_scratch};
use crate::value::{Key, Record};
use crate::view::{Records, RecordsAs, TableView, decode_as, decode_record};

/// A transaction in progress; see [`DictDb::transaction`](crate::DictDb::transaction). Reads see its own writes.
pub struct Transaction<'a> {
    batch: RefCell<Batch<'a>>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(batch: Batch<'a>) -> Transaction<'a> {
        Transaction { batch: RefCell::new(batch) }
    }

    pub(crate) fn into_batch(self) -> Batch<'a> {
        self.batch.into_inner()
    }

    /// Makes a table.
    ///
    /// # Errors
    /// As [`DictDb::create_table`](crate::DictDb::create_table).
    pub fn create_table(&self, name: &str, definition: impl Into<TableDefinition>) -> Result<TransactionTable<'_, 'a>> {
        let definition = definition.into();
        self.batch.borrow_mut().create_table(name, &definition)?;
        self.table(name)
    }

    /// Drops a table with all its records.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn drop_table(&self, name: &str) -> Result<()> {
        self.batch.borrow_mut().drop_table(name)
    }

    /// The names of all tables, in order.
    pub fn table_names(&self) -> Vec<String> {
        self.batch.borrow().state().tables().map(|(name, _)| name.to_string()).collect()
    }

    /// A table that exists. Several may be in use at once.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn table(&self, name: &str) -> Result<TransactionTable<'_, 'a>> {
        match self.batch.borrow().state().table(name) {
            Some(_) => Ok(TransactionTable { transaction: self, name: name.to_owned() }),
            None => Err(no_table(name)),
        }
    }

    /// A table that exists, its records as values of `T`.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn typed<T>(&self, name: &str) -> Result<TypedTransactionTable<'_, 'a, T>> {
        Ok(TypedTransactionTable { table: self.table(name)?, of_type: PhantomData })
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transaction")
    }
}

/// One table inside a transaction. Its methods are those of [`Table`](crate::Table), and so are their errors; nothing
/// of it is seen outside before the transaction commits.
#[derive(Clone, Debug)]
pub struct TransactionTable<'t, 'a> {
    transaction: &'t Transaction<'a>,
    name: String,
}

impl<'a> TransactionTable<'_, 'a> {
    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`Table::insert`](crate::Table::insert).
    ///
    /// # Errors
    /// As there. A failed operation changes nothing; the transaction can go on without it.
    pub fn insert(&self, record: impl Into<Record>) -> Result<Key> {
        with_encoded(&self.name, &record.into(), |row| self.batch().insert(&self.name, row))
    }

    /// Adds records; stops at the first that does not fit, the ones before it being part of the transaction. Gives
    /// their keys in order.
    ///
    /// # Errors
    /// As [`Table::insert`](crate::Table::insert).
    pub fn insert_many<R: Into<Record>>(&self, records: impl IntoIterator<Item = R>) -> Result<Vec<Key>> {
        records.into_iter().map(|record| self.insert(record)).collect()
    }

    /// See [`Table::upsert`](crate::Table::upsert).
    ///
    /// # Errors
    /// As there.
    pub fn upsert(&self, record: impl Into<Record>) -> Result<(Key, Upserted)> {
        with_encoded(&self.name, &record.into(), |row| self.batch().upsert(&self.name, row))
    }

    /// See [`Table::update`](crate::Table::update).
    ///
    /// # Errors
    /// As there.
    pub fn update(&self, key: impl Into<Key>, changes: impl Into<Record>) -> Result<Record> {
        let key = key.into();
        let row = with_encoded(&self.name, &changes.into(), |row| self.batch().update(&self.name, &key, row))?;
        Ok(decode_record((&row).into()))
    }

    /// See [`Table::replace`](crate::Table::replace).
    ///
    /// # Errors
    /// As there.
    pub fn replace(&self, record: impl Into<Record>) -> Result<Key> {
        with_encoded(&self.name, &record.into(), |row| self.batch().replace(&self.name, row))
    }

    /// See [`Table::delete`](crate::Table::delete).
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        let key = key.into();
        self.batch().delete(&self.name, &key)
    }

    /// The record with this key, this transaction's own writes included.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable) once the transaction dropped it.
    pub fn get(&self, key: impl Into<Key>) -> Result<Option<Record>> {
        self.with_row(&key.into(), decode_record)
    }

    /// Whether there is a record with this key.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable) once the transaction dropped it.
    pub fn contains_key(&self, key: impl Into<Key>) -> Result<bool> {
        let key = key.into();
        let batch = self.batch();
        let table = batch.state().table(&self.name).ok_or_else(|| no_table(&self.name))?;
        Ok(table.contains_key(&key))
    }

    /// How many records there are.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable) once the transaction dropped it.
    pub fn len(&self) -> Result<usize> {
        let batch = self.batch();
        batch.state().table(&self.name).map(|table| table.len()).ok_or_else(|| no_table(&self.name))
    }

    /// Whether there are none.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable) once the transaction dropped it.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// All records in the order of their keys, as they stand in the transaction now.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable) once the transaction dropped it.
    pub fn iter(&self) -> Result<Records> {
        Ok(self.view()?.iter())
    }

    /// The records whose keys lie in `keys`, in order, as they stand in the transaction now.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable) once the transaction dropped it.
    pub fn range<K: Into<Key> + Clone>(&self, keys: impl RangeBounds<K>) -> Result<Records> {
        Ok(self.view()?.range(keys))
    }

    fn view(&self) -> Result<TableView> {
        TableView::of(self.batch().state(), &self.name)
    }

    /// Copies the row first: `read` may run code of the caller, which may use the transaction.
    fn with_row<R>(&self, key: &Key, read: impl FnOnce(RowRef<'_>) -> R) -> Result<Option<R>> {
        let copy = |copy: &mut RowCopy| {
            let batch = self.batch();
            let table = batch.state().table(&self.name).ok_or_else(|| no_table(&self.name))?;
            Ok(table.copy_row(key, copy))
        };
        with_copy(copy, read)
    }

    /// Never held across a call into the user's code.
    fn batch(&self) -> RefMut<'_, Batch<'a>> {
        self.transaction.batch.borrow_mut()
    }
}

/// One table inside a transaction, its records as values of `T`. Its methods are those of
/// [`TypedTable`](crate::TypedTable), and so are their errors.
pub struct TypedTransactionTable<'t, 'a, T> {
    table: TransactionTable<'t, 'a>,
    of_type: PhantomData<fn(T) -> T>,
}

impl<T> TypedTransactionTable<'_, '_, T> {
    /// See [`TypedTable::delete`](crate::TypedTable::delete).
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        self.table.delete(key)
    }
}

impl<T: Serialize> TypedTransactionTable<'_, '_, T> {
    /// See [`TypedTable::insert`](crate::TypedTable::insert).
    ///
    /// # Errors
    /// As there.
    pub fn insert(&self, value: &T) -> Result<Key> {
        self.with_row(value, |row| self.table.batch().insert(&self.table.name, row))
    }

    /// Adds records; stops at the first that does not fit, the ones before it being part of the transaction.
    ///
    /// # Errors
    /// As [`Table::insert`](crate::Table::insert).
    pub fn insert_many<'v>(&self, values: impl IntoIterator<Item = &'v T>) -> Result<Vec<Key>>
    where
        T: 'v,
    {
        values.into_iter().map(|value| self.insert(value)).collect()
    }

    /// See [`TypedTable::upsert`](crate::TypedTable::upsert).
    ///
    /// # Errors
    /// As there.
    pub fn upsert(&self, value: &T) -> Result<(Key, Upserted)> {
        self.with_row(value, |row| self.table.batch().upsert(&self.table.name, row))
    }

    /// See [`TypedTable::replace`](crate::TypedTable::replace).
    ///
    /// # Errors
    /// As there.
    pub fn replace(&self, value: &T) -> Result<Key> {
        self.with_row(value, |row| self.table.batch().replace(&self.table.name, row))
    }

    fn with_row<R>(&self, value: &T, write: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        with_scratch(|out| row::encode(value, out).map_err(|e| encode_error(&self.table.name, e)), write)
    }
}

impl<T: DeserializeOwned> TypedTransactionTable<'_, '_, T> {
    /// See [`TypedTable::get`](crate::TypedTable::get); this transaction's own writes included.
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: impl Into<Key>) -> Result<Option<T>> {
        let key = key.into();
        self.table.with_row(&key, |row| decode_as(&self.table.name, &key, row))?.transpose()
    }

    /// All records in the order of their keys, as they stand in the transaction now.
    ///
    /// # Errors
    /// As [`TypedTable::iter`](crate::TypedTable::iter).
    pub fn iter(&self) -> Result<RecordsAs<T>> {
        Ok(self.table.view()?.range_as::<Key, T>(..))
    }
}

impl<T> fmt::Debug for TypedTransactionTable<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedTransactionTable<{}>({:?})", std::any::type_name::<T>(), self.table.name)
    }
}
