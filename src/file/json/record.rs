//! A record of DictDB's documents: its text, put into a table, or told as what it is instead.

use serde_json::value::RawValue;

use crate::error::Error;
use crate::file::json::text::Context;
use crate::limits::{NAME_BYTES_MAX, ROW_BYTES_MAX};
use crate::row::{self, KeyIn};
use crate::state::TableState;
use crate::value::Key;

/// Puts a record's text into a table. In a file of DictDB 1.11 a record without a key gets the next one, as DictDB does.
pub(super) fn put_record<E: serde::de::Error>(
    context: &Context,
    table: &mut TableState,
    text: &RawValue,
) -> Result<Key, E> {
    let (key, row) = keyed_record(context, table, text)?;
    table.put(key.clone(), &row);
    Ok(key)
}

/// The same without putting it there: its key, and the row with it.
pub(super) fn keyed_record<E: serde::de::Error>(
    context: &Context,
    table: &TableState,
    text: &RawValue,
) -> Result<(Key, Vec<u8>), E> {
    let row = row_of(context, text)?;
    let at = start_of(context, text);
    let row = match row::find_key(&row, table.definition().primary_key()) {
        Ok(found @ KeyIn::Missing) if context.is_foreign() => {
            let automatic = table.automatic_key().ok_or_else(|| context.expected::<E>("a key in the record"))?;
            row::with_key(&row, &found, table.definition().primary_key(), automatic).0
        }
        Ok(KeyIn::Str { key, .. }) if key.len() > NAME_BYTES_MAX => {
            return Err(context.not_held(at, "a primary key of at most 65,536 bytes".to_owned()));
        }
        Ok(KeyIn::Null { .. } | KeyIn::Other { .. }) => {
            let name = table.definition().primary_key();
            let expected = format!("a primary key {name:?} that is an integer or a string");
            return Err(context.not_held(at, expected));
        }
        _ => row,
    };
    let admitted = table.admit_whole(&row);
    let key = admitted.map_err(|m| context.fail::<E>(Error::corrupt(context.file(), at, m.expected)))?;
    Ok((key, row))
}

/// Where the text just parsed begins.
pub(super) fn start_of(context: &Context, text: &RawValue) -> u64 {
    context.offset().saturating_sub(text.get().len() as u64)
}

fn row_of<E: serde::de::Error>(context: &Context, text: &RawValue) -> Result<Vec<u8>, E> {
    let at = start_of(context, text);
    let mut row = Vec::new();
    row::json_text_to_row(text.get(), &mut row).map_err(|error| {
        let at = at.saturating_add(error.at.unwrap_or(0) as u64);
        let expected = format!("a record ({})", error.message);
        match text.get().starts_with('{') {
            true => context.not_held::<E>(at, expected),
            false => context.fail(Error::corrupt(context.file(), at, expected)),
        }
    })?;
    if row.len() > ROW_BYTES_MAX {
        return Err(context.not_held(at, "a record of at most 256 MiB".to_owned()));
    }
    Ok(row)
}
