//! Rows from outside, checked against a table before they are put into it.

use super::{Mismatch, TableState};
use crate::limits::{NAME_BYTES_MAX, ROW_BYTES_MAX};
use crate::row::{self, RowRef};
use crate::value::Key;
use crate::wire::{Malformed, Reader};

impl TableState {
    /// Checks a row from outside against the format, the primary key and the schema, and gives its key.
    /// `key_field` is the index that the log claims for the primary key.
    pub(crate) fn admit(&self, names: &[u8], values: &[u8], key_field: Option<usize>) -> Result<Key, Mismatch> {
        if names.len().saturating_add(values.len()) > ROW_BYTES_MAX {
            return Err(Malformed { at: 0, expected: "a row of at most 256 MiB" }.into());
        }
        let known = self.shapes.find(names).and_then(|number| self.shapes.get(number));
        let (row, count, key_at) = match known {
            Some(shape) => (RowRef::Shaped { shape, values }, shape.names().len(), shape.key_field()),
            None => {
                let mut reader = Reader::new(names);
                let count = row::names(&mut reader)?;
                reader.finish()?;
                let key_at = row::position(names, self.definition.primary_key())?.unwrap_or(count);
                (RowRef::Split { names, values }, count, key_at)
            }
        };
        let mut reader = Reader::new(values);
        let found = row::values(&mut reader, count, key_at)
            .and_then(|found| reader.finish().map(|()| found))
            .map_err(|m| Malformed { at: m.at.saturating_add(names.len()), ..m })?;
        self.admit_key(row, &found, key_field)
    }

    /// The same for a row as it stands in the log, whole.
    pub(crate) fn admit_whole(&self, row: &[u8]) -> Result<Key, Mismatch> {
        let (names, values) = row::split(row)?;
        self.admit(names, values, None)
    }

    /// The same for a row whose names and values were found valid, and its key in them.
    pub(crate) fn admit_key(
        &self,
        row: RowRef<'_>,
        found: &row::KeyIn<'_>,
        key_field: Option<usize>,
    ) -> Result<Key, Mismatch> {
        let name = self.definition.primary_key();
        let wrong = |expected: String| Mismatch { at: 0, expected };
        let (field, key) = match *found {
            row::KeyIn::Int { field, key } => (field, Key::Int(key)),
            row::KeyIn::Str { field, key } if key.len() <= NAME_BYTES_MAX => (field, Key::from(key)),
            _ => return Err(wrong(format!("a primary key {name:?} that is an integer or a string"))),
        };
        if key_field.is_some_and(|claimed| claimed != field) {
            return Err(wrong(format!("the primary key {name:?} as field {field} of the row")));
        }
        self.check_schema(row)
            .map_err(|(field, problem)| wrong(format!("a row of the schema: field {field:?} {problem}")))?;
        Ok(key)
    }
}
