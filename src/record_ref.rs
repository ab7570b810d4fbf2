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
    #[inline]
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

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use super::*;
    use crate::{DictDb, record};

    #[test]
    fn records_where_they_lie_are_the_records_of_the_range_and_give_each_field_as_it_is() {
        let db = DictDb::new();
        let table = db.create_table("t", "id").unwrap();
        table
            .insert_many((0..200).map(|n| record! { "id": n * 2, "text": "x".repeat(n as usize), "n": null }))
            .unwrap();
        table.insert_many(["a", "b", "c"].map(|id| record! { "id": id, "other": [1, "y"] })).unwrap();
        let view = table.view().unwrap();
        let mut keys: Vec<Bound<Key>> = vec![Bound::Unbounded];
        for key in
            [Key::Int(-1), Key::Int(0), Key::Int(97), Key::Int(98), Key::Int(398), "".into(), "b".into(), "d".into()]
        {
            keys.extend([Bound::Included(key.clone()), Bound::Excluded(key)]);
        }
        for from in &keys {
            for to in &keys {
                let range = (from.clone(), to.clone());
                let there: Vec<_> = view.refs(range.clone()).map(|one| (one.key().clone(), one.to_record())).collect();
                assert_eq!(there, view.range(range.clone()).collect::<Vec<_>>(), "{range:?}");
            }
        }
        for (key, record) in view.iter() {
            let one = view.get_ref(key.clone()).unwrap();
            assert!(one.names().eq(record.keys()));
            assert!(record.iter().all(|(name, value)| one.field(name).as_ref() == Some(value)));
            assert_eq!((one.field("none"), one.decode::<Record>().unwrap()), (None, record));
            let copied = table.read(key, |copy| (copy.values().to_vec(), copy.to_record())).unwrap().unwrap();
            assert_eq!(copied, (one.values().to_vec(), one.to_record()));
        }
        assert!(view.get_ref(1).is_none());
        let error = view.get_ref("a").unwrap().decode::<Vec<u8>>().unwrap_err();
        assert!(matches!(error, Error::Decode { key, .. } if key == "a".into()));
    }
}
