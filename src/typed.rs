//! A table's handle for records of one Rust type: straight between the type and the row's bytes.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::Upserted;
use crate::error::Result;
use crate::record_ref::RecordRef;
use crate::row;
use crate::table::{Table, encode_error, insert_many, with_scratch};
use crate::value::Key;
use crate::view::{RecordsAs, decode_as};

/// One table, its records as values of `T`. The same table may be used through [`Table`] at the same time.
///
/// `T` serializes to a map or a struct, by serde_json's conventions (an enum is tagged internally: `#[serde(tag = "..")]`); its primary-key field is an integer or a string,
/// or `None` for an automatic key.
///
/// ```
/// use dictdb::DictDb;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct User { id: Option<i64>, name: String }
///
/// let db = DictDb::new();
/// db.create_table("users", "id")?;
/// let users = db.typed::<User>("users")?;
/// let key = users.insert(&User { id: None, name: "Ann".into() })?;
/// assert_eq!(users.get(key)?, Some(User { id: Some(1), name: "Ann".into() }));
/// # Ok::<(), dictdb::Error>(())
/// ```
pub struct TypedTable<T> {
    table: Table,
    of_type: PhantomData<fn(T) -> T>,
}

impl<T> TypedTable<T> {
    pub(crate) fn new(table: Table) -> TypedTable<T> {
        TypedTable { table, of_type: PhantomData }
    }

    /// The same table for dynamic records.
    pub fn untyped(&self) -> &Table {
        &self.table
    }

    /// Removes the record with this key; `false`, and no commit, where there is none.
    ///
    /// # Errors
    /// As [`Table::delete`].
    pub fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        self.table.delete(key)
    }

    /// Has `read` look at the record with this key, not decoded; see [`Table::read`].
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn read<R>(&self, key: impl Into<Key>, read: impl FnOnce(RecordRef<'_>) -> R) -> Result<Option<R>> {
        self.table.read(key, read)
    }

    /// Whether there is a record with this key.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn contains_key(&self, key: impl Into<Key>) -> Result<bool> {
        self.table.contains_key(key)
    }

    /// How many records there are.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn len(&self) -> Result<usize> {
        self.table.len()
    }

    /// Whether there are none.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn is_empty(&self) -> Result<bool> {
        self.table.is_empty()
    }
}

impl<T: Serialize> TypedTable<T> {
    /// Adds a record; see [`Table::insert`].
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub fn insert(&self, value: &T) -> Result<Key> {
        self.with_row(value, |row| self.table.db().insert(self.table.name(), row))
    }

    /// Adds records in one commit, all or none; see [`Table::insert_many`].
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub fn insert_many<'v>(&self, values: impl IntoIterator<Item = &'v T>) -> Result<Vec<Key>>
    where
        T: 'v,
    {
        insert_many(self.table.db(), self.table.name(), values.into_iter(), row::encode)
    }

    /// Adds a record or replaces the whole of the one with its key; see [`Table::upsert`].
    ///
    /// # Errors
    /// As [`Table::upsert`].
    pub fn upsert(&self, value: &T) -> Result<(Key, Upserted)> {
        self.with_row(value, |row| self.table.db().upsert(self.table.name(), row))
    }

    /// Replaces the whole of the record with the same primary key; see [`Table::replace`].
    ///
    /// # Errors
    /// As [`Table::replace`].
    pub fn replace(&self, value: &T) -> Result<Key> {
        self.with_row(value, |row| self.table.db().replace(self.table.name(), row))
    }

    fn with_row<R>(&self, value: &T, write: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        with_scratch(|out| row::encode(value, out).map_err(|e| encode_error(self.table.name(), e)), write)
    }
}

impl<T: DeserializeOwned> TypedTable<T> {
    /// The record with this key.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode) where the record does not fit `T`;
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn get(&self, key: impl Into<Key>) -> Result<Option<T>> {
        let key = key.into();
        self.table.with_row(&key, |row| decode_as(self.table.name(), &key, row))?.transpose()
    }

    /// All records in the order of their keys, as they stand now.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn iter(&self) -> Result<RecordsAs<T>> {
        self.range::<Key>(..)
    }

    /// The records whose keys lie in `keys`, in order, as they stand now.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`](crate::Error::NoSuchTable).
    pub fn range<K: Into<Key> + Clone>(&self, keys: impl RangeBounds<K>) -> Result<RecordsAs<T>> {
        Ok(self.table.view()?.range_as(keys))
    }
}

impl<T> Clone for TypedTable<T> {
    fn clone(&self) -> TypedTable<T> {
        TypedTable::new(self.table.clone())
    }
}

impl<T> fmt::Debug for TypedTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedTable<{}>({:?})", std::any::type_name::<T>(), self.table.name())
    }
}
