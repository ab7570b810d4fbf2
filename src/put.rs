//! One record to be put, decided against the table as it stands and not put yet.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::limits::{NAME_BYTES_MAX, ROW_BYTES_MAX};
use crate::row::{self, KeyIn};
use crate::state::TableState;
use crate::value::Key;

/// A valid row that fits its table.
#[derive(Debug)]
pub(crate) struct Put<'r> {
    pub(crate) key: Key,
    /// Which field of the row the key is.
    pub(crate) field: usize,
    pub(crate) row: Cow<'r, [u8]>,
}

/// The row in the place of the one with its key, which has to be there.
pub(crate) fn replacing<'r>(state: &TableState, table: &str, row: &'r [u8]) -> Result<Put<'r>> {
    let primary_key = state.definition().primary_key();
    if let Ok(KeyIn::Missing | KeyIn::Null { .. }) = row::find_key(row, primary_key) {
        let problem = "is missing: replace needs to know which record it replaces".to_owned();
        return Err(Error::InvalidKey { table: table.to_owned(), field: primary_key.to_owned(), problem });
    }
    let put = keyed(state, table, row)?;
    if !state.contains_key(&put.key) {
        return Err(Error::NoSuchRecord { table: table.to_owned(), key: put.key });
    }
    Ok(put)
}

/// The record with this key and the fields of `changes`; its key must stay.
pub(crate) fn merged(state: &TableState, table: &str, key: &Key, changes: &[u8]) -> Result<Put<'static>> {
    let Some(old) = state.get(key) else {
        return Err(Error::NoSuchRecord { table: table.to_owned(), key: key.clone() });
    };
    let merged = row::merge(old, changes)
        .map_err(|m| Error::Encode { table: table.to_owned(), problem: m.expected.to_owned() })?;
    if merged.len() > ROW_BYTES_MAX {
        return Err(Error::TooLarge { what: "a record", bytes: merged.len() as u64, limit: ROW_BYTES_MAX as u64 });
    }
    let (field, is_same) = match keyed(state, table, &merged)? {
        Put { key: new_key, field, row: Cow::Borrowed(_) } => (field, new_key == *key),
        Put { field, .. } => (field, false),
    };
    if !is_same {
        let field = state.definition().primary_key().to_owned();
        let problem = format!("of record {key} cannot be changed: insert a new record and delete this one");
        return Err(Error::InvalidKey { table: table.to_owned(), field, problem });
    }
    Ok(Put { key: key.clone(), field, row: Cow::Owned(merged) })
}

/// The row's key, or the next automatic one put into it; and the schema's word on the result.
pub(crate) fn keyed<'r>(state: &TableState, table: &str, row: &'r [u8]) -> Result<Put<'r>> {
    let schema = |key: Key, field: usize, row: Cow<'r, [u8]>| match state.check_schema(row.as_ref().into()) {
        Ok(()) => Ok(Put { key, field, row }),
        Err((field, problem)) => Err(Error::SchemaViolation { table: table.to_owned(), key, field, problem }),
    };
    if let Some((key, field)) = state.key_like_the_last(row) {
        return schema(key, field, Cow::Borrowed(row));
    }
    let primary_key = state.definition().primary_key();
    let invalid =
        |problem: String| Error::InvalidKey { table: table.to_owned(), field: primary_key.to_owned(), problem };
    let found = row::find_key(row, primary_key).map_err(|m| invalid(format!("cannot be found: {}", m.expected)))?;
    let (key, field, row) = match found {
        KeyIn::Int { field, key } => (Key::Int(key), field, Cow::Borrowed(row)),
        KeyIn::Str { field, key } if key.len() <= NAME_BYTES_MAX => (Key::from(key), field, Cow::Borrowed(row)),
        KeyIn::Str { key, .. } => {
            return Err(invalid(format!("has {} bytes; {NAME_BYTES_MAX} are the most", key.len())));
        }
        KeyIn::Other { kind, .. } => {
            return Err(invalid(format!("must be an integer of 64 bits, signed, or a string; this is of kind {kind}")));
        }
        KeyIn::Missing | KeyIn::Null { .. } => {
            let key = state
                .automatic_key()
                .ok_or_else(|| Error::Exhausted { what: format!("the automatic key of table {table:?}") })?;
            let (row, field) = row::with_key(row, &found, primary_key, key);
            if row.len() > ROW_BYTES_MAX {
                return Err(Error::TooLarge { what: "a record", bytes: row.len() as u64, limit: ROW_BYTES_MAX as u64 });
            }
            (Key::Int(key), field, Cow::Owned(row))
        }
    };
    schema(key, field, row)
}
