//! From a row to a [`Record`].

use super::{Lead, RowRef, deeper, skip};
use crate::wire::{Malformed, Reader};
use crate::{Record, Value};

/// The record whose row this is.
pub(crate) fn decode_record<'a>(row: impl Into<RowRef<'a>>) -> Result<Record, Malformed> {
    let mut fields = row.into().fields()?;
    // A value takes more memory than bytes in a row: what is reserved by a count is kept small.
    let mut record = Record::with_capacity(fields.left().min(64));
    while let Some(name) = fields.next()? {
        let value = value(&mut fields.values, 1)?;
        if record.insert(name, value).is_some() {
            return Err(fields.values.malformed("a value of a name that the row does not have yet"));
        }
    }
    fields.values.finish()?;
    Ok(record)
}

/// The value that one field of the row has, if there is such a field.
pub(crate) fn decode_field(row: RowRef<'_>, wanted: &str) -> Result<Option<Value>, Malformed> {
    let mut fields = row.fields()?;
    while let Some(name) = fields.next()? {
        if name == wanted {
            return value(&mut fields.values, 1).map(Some);
        }
        skip(&mut fields.values, 1)?;
    }
    Ok(None)
}

fn dict(reader: &mut Reader<'_>, count: usize, depth: usize) -> Result<Record, Malformed> {
    let mut record = Record::with_capacity(count.min(64));
    for _ in 0..count {
        let before = reader.clone();
        let name = reader.str()?;
        let value = value(reader, depth)?;
        if record.insert(name, value).is_some() {
            return Err(before.malformed("a name that the dict does not have yet"));
        }
    }
    Ok(record)
}

fn value(reader: &mut Reader<'_>, depth: usize) -> Result<Value, Malformed> {
    Ok(match Lead::read(reader)? {
        Lead::Null => Value::Null,
        Lead::Bool(b) => Value::Bool(b),
        Lead::Int(number) => Value::Int(number),
        Lead::UInt(number) => Value::UInt(number),
        Lead::Float(number) => Value::Float(number),
        Lead::Str(len) => Value::Str(reader.text(len)?.to_owned()),
        Lead::List(count) => {
            let depth = deeper(reader, depth)?;
            let mut values = Vec::with_capacity(count.min(64));
            for _ in 0..count {
                values.push(value(reader, depth)?);
            }
            Value::List(values)
        }
        Lead::Dict(count) => {
            let depth = deeper(reader, depth)?;
            Value::Dict(dict(reader, count, depth)?)
        }
    })
}
