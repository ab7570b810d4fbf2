//! A record where it lies, not decoded.

use std::fmt;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::row::{self, RowRef};
use crate::value::{Key, Record, Value};
use crate::view::decode_record;

/// A record where it lies: its bytes, one field of it, or what it decodes to, borrowed text included.
///
/// Comes from [`TableView::get_ref`](crate::TableView::get_ref), [`TableView::refs`](crate::TableView::refs) and
/// [`Table::read`](crate::Table::read). To have one costs finding the record; nothing is decoded and, in a view, nothing
/// copied.
///
/// ```
/// use dictdb::{record, DictDb};
/// #[derive(serde::Deserialize)]
/// struct Named<'a> {
///     name: &'a str, // where it lies
/// }
///
/// let db = DictDb::new();
/// let users = db.create_table("users", "id")?;
/// users.insert(record! { "id": 1, "name": "Ann", "age": 41 })?;
/// users.insert(record! { "id": 2, "name": "Bo", "age": 17 })?;
///
/// let view = users.view()?;
/// let mut adults = Vec::new();
/// for user in view.refs::<i64>(..) {
///     if user.field("age").is_some_and(|age| age.as_i64() >= Some(18)) {
///         adults.push(user.decode::<Named>()?.name);
///     }
/// }
/// assert_eq!(adults, ["Ann"]);
/// # Ok::<(), dictdb::Error>(())
/// ```
#[derive(Clone)]
pub struct RecordRef<'a> {
    table: &'a str,
    key: Key,
    row: RowRef<'a>,
}

impl<'a> RecordRef<'a> {
    pub(crate) fn new(table: &'a str, key: Key, row: RowRef<'a>) -> RecordRef<'a> {
        RecordRef { table, key, row }
    }

    /// Its primary key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The values of its fields, encoded, in the order of their names: the `values` of a row in `SPEC.md`, as the log and
    /// every backup in binary carry them.
    pub fn values(&self) -> &'a [u8] {
        self.row.values()
    }

    /// The names of its fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.row.field_names()
    }

    /// The value of one field; passes over those before it and decodes that one alone.
    pub fn field(&self, name: &str) -> Option<Value> {
        match row::decode_field(self.row, name) {
            Ok(value) => value,
            Err(malformed) => unreachable!("a row in memory is valid: {malformed:?}"),
        }
    }

    /// Decodes the whole of it.
    pub fn to_record(&self) -> Record {
        decode_record(self.row)
    }

    /// Decodes it as a type, which may borrow text from it.
    ///
    /// # Errors
    /// [`Error::Decode`] where the record does not fit the type.
    pub fn decode<T: Deserialize<'a>>(&self) -> Result<T> {
        row::decode(self.row).map_err(|error| Error::Decode {
            table: self.table.to_owned(),
            key: self.key.clone(),
            problem: error.to_string(),
        })
    }
}

impl fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordRef({}, {} bytes)", self.key, self.values().len())
    }
}
