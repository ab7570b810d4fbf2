//! Encoded records. A table holds each record as a row: the bytes that the log, the ring and every backup carry as
//! well, so that most of the time nothing is encoded or decoded again.
//!
//! A row is a dict, its names before its values, so that rows with the same names share them (see [`shape`]). Integers,
//! lengths and counts are [postcard's](crate::wire); how a value begins is [`lead`]'s:
//! ```text
//! row   = names, values (one for each name)
//! names = count, then each name (length, UTF-8)
//! value = 0x00          null
//!       | 0x01, 0x02    false, true
//!       | 0x60..=0xff   int from -32 to 127, which is the byte less 0x80
//!       | 0x03          any other int: zigzag integer
//!       | 0x04          int above 2^63 - 1: unsigned integer
//!       | 0x05          float: eight bytes, as they are (any NaN)
//!       | 0x20..=0x5f   str of 0 to 63 bytes, which is the byte less 0x20: UTF-8
//!       | 0x06          any other str: length, UTF-8
//!       | 0x10..=0x1f   list of 0 to 15 values, which is the byte less 0x10: values
//!       | 0x07          any other list: count, values
//!       | 0x08          dict: count, then for each field name (length, UTF-8), value
//! ```
//! Bytes are a row if and only if `validate` takes them: everything in its shortest form, no name twice in a dict,
//! names of at most `NAME_BYTES_MAX` bytes, containers no deeper than `DEPTH_MAX`, at most `ROW_BYTES_MAX` bytes, and
//! none left over. Everything else in this module is given rows, and answers [`Malformed`] rather than
//! panic where it was not.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod de;
mod decode;
mod encode_error;
mod from_json;
mod header;
mod key;
mod lead;
mod merge;
mod names;
mod read;
mod ser;
mod shape;
mod to_json;
mod validate;
mod writer;
#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may overflow: they panic then")]
mod zoo;

use std::ops::ControlFlow;

use triomphe::ThinArc;

pub(crate) use self::decode::decode;
pub(crate) use self::encode_error::EncodeError;
pub(crate) use self::from_json::json_text_to_row;
pub(crate) use self::key::{KeyIn, find_key, key_at_field, with_key};
pub(crate) use self::merge::merge;
pub(crate) use self::read::{decode_field, decode_record};
pub(crate) use self::ser::{encode, encode_record};
pub(crate) use self::shape::{Parts, RowCopy, Shape, Shapes, Summary};
pub(crate) use self::to_json::{RowView, first_non_finite};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::validate::validate;
pub(crate) use self::validate::{names, values};

use self::lead::{FIELD_BYTES_MIN, Lead};
use crate::limits::{DEPTH_MAX, NAME_BYTES_MAX, ROW_BYTES_MAX};
use crate::wire::{Malformed, Reader};

/// One row as its table holds it (see [`Shapes::store`]), shared: a clone is a pointer copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row(ThinArc<(), u8>);

impl Row {
    pub(crate) fn new(bytes: &[u8]) -> Row {
        Row(ThinArc::from_header_and_slice((), bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0.slice
    }
}

/// What kind a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Null,
    Bool,
    Int,
    UInt,
    Float,
    Str,
    List,
    Dict,
}

const DEPTH: &str = "containers no deeper than 100";

/// How `serde_json` hands a number over where any crate of the program turns its feature `arbitrary_precision` on: as
/// a struct of this name, which would be stored as a dict. It is refused, for it is other data.
const HIDDEN_NUMBER: &str = "$serde_json::private::Number";
const NUMBERS_ARE_HIDDEN: &str = "a number is hidden by serde_json's feature arbitrary_precision, which some crate of \
                                  this program turns on: build without it, or use the binary format and own types";

/// How `serde_json` hands over its `RawValue`, a piece of JSON text: it asks for such a struct again, which a record is not
/// told from a dict by.
const HIDDEN_TEXT: &str = "$serde_json::private::RawValue";
const TEXT_IS_HIDDEN: &str = "a RawValue could not be read back: use a serde_json::Value, or the text as a String";

/// Why a struct of this name is not stored, if it is none of the user's.
#[inline]
fn hidden(struct_name: &str) -> Option<&'static str> {
    match struct_name {
        HIDDEN_NUMBER => Some(NUMBERS_ARE_HIDDEN),
        HIDDEN_TEXT => Some(TEXT_IS_HIDDEN),
        _ => None,
    }
}

/// Why a dict whose first field has this name is not taken from `serde_json`.
pub(crate) fn hidden_number(first_name: &str) -> Option<&'static str> {
    (first_name == HIDDEN_NUMBER && from_json::numbers_are_hidden()).then_some(NUMBERS_ARE_HIDDEN)
}

// What messages here and in the modules below say in words.
const _: () = assert!(DEPTH_MAX == 100 && ROW_BYTES_MAX == 256 << 20 && NAME_BYTES_MAX == 64 << 10);

impl Tag {
    /// The kind as [`Value::kind`](crate::Value::kind) names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Tag::Null => "null",
            Tag::Bool => "bool",
            Tag::Int | Tag::UInt => "int",
            Tag::Float => "float",
            Tag::Str => "str",
            Tag::List => "list",
            Tag::Dict => "dict",
        }
    }
}

/// A row to be read: as it stands in the log, or as a table holds it, its names apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowRef<'a> {
    /// Names and values in one.
    Whole(&'a [u8]),
    /// Names and values.
    Split { names: &'a [u8], values: &'a [u8] },
    /// The values; the names are those of a shape.
    Shaped { shape: &'a Shape, values: &'a [u8] },
}

impl<'a> From<&'a [u8]> for RowRef<'a> {
    fn from(row: &'a [u8]) -> RowRef<'a> {
        RowRef::Whole(row)
    }
}

impl<'a> From<&'a Vec<u8>> for RowRef<'a> {
    fn from(row: &'a Vec<u8>) -> RowRef<'a> {
        RowRef::Whole(row)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for RowRef<'a> {
    fn from(row: &'a [u8; N]) -> RowRef<'a> {
        RowRef::Whole(row)
    }
}

impl<'a> RowRef<'a> {
    #[inline]
    pub(crate) fn fields(self) -> Result<Fields<'a>, Malformed> {
        match self {
            RowRef::Whole(row) => {
                let mut values = Reader::new(row);
                let left = values.count(FIELD_BYTES_MIN)?;
                let names = values.clone();
                for _ in 0..left {
                    values.bytes()?;
                }
                Ok(Fields { names: Names::Read { reader: names, left }, values })
            }
            RowRef::Split { names, values } => {
                let mut names = Reader::new(names);
                let left = names.count(1)?;
                Ok(Fields { names: Names::Read { reader: names, left }, values: Reader::new(values) })
            }
            RowRef::Shaped { shape, values } => Ok(Fields::shaped(shape, values)),
        }
    }
}

impl<'a> RowRef<'a> {
    /// The bytes of its values.
    pub(crate) fn values(self) -> &'a [u8] {
        match self {
            RowRef::Whole(row) => split(row).map_or(&[], |(_, values)| values),
            RowRef::Split { values, .. } | RowRef::Shaped { values, .. } => values,
        }
    }

    /// The names of a valid row.
    pub(crate) fn field_names(self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut fields = self.fields().ok();
        std::iter::from_fn(move || fields.as_mut()?.next().ok()?)
    }
}

/// The fields of a row, one after the other: whoever asks for a name must read or skip its value.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    names: Names<'a>,
    values: Reader<'a>,
}

#[derive(Clone, Debug)]
enum Names<'a> {
    /// So many of them are left.
    Read {
        reader: Reader<'a>,
        left: usize,
    },
    Known(std::slice::Iter<'a, Box<str>>),
}

impl<'a> Fields<'a> {
    #[inline]
    fn shaped(shape: &'a Shape, values: &'a [u8]) -> Fields<'a> {
        Fields { names: Names::Known(shape.names().iter()), values: Reader::new(values) }
    }

    /// How many are still to come.
    #[inline]
    fn left(&self) -> usize {
        match &self.names {
            Names::Read { left, .. } => *left,
            Names::Known(names) => names.len(),
        }
    }

    /// The next name.
    #[inline]
    fn next(&mut self) -> Result<Option<&'a str>, Malformed> {
        match &mut self.names {
            Names::Known(names) => Ok(names.next().map(|name| &**name)),
            Names::Read { reader, left } => match left.checked_sub(1) {
                Some(less) => {
                    *left = less;
                    reader.str().map(Some)
                }
                None => Ok(None),
            },
        }
    }

    /// Passes over the next value; gives its bytes.
    fn value(&mut self) -> Result<&'a [u8], Malformed> {
        let mut value = self.values.clone();
        skip(&mut self.values, 1)?;
        value.take(value.remaining().saturating_sub(self.values.remaining()))
    }
}

/// A row's names and its values; checks no more than where they part.
pub(crate) fn split(row: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let at = RowRef::from(row).fields()?.values.pos();
    Ok(row.split_at_checked(at).unwrap_or_default())
}

/// How many of a row's names, valid ones, come before this one.
pub(crate) fn position(names: &[u8], name: &str) -> Result<Option<usize>, Malformed> {
    let mut reader = Reader::new(names);
    for at in 0..reader.count(1)? {
        if reader.bytes()? == name.as_bytes() {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Calls `f` with the name and kind of each field of the row in order, until it breaks off.
pub(crate) fn for_each_field<'a>(
    row: impl Into<RowRef<'a>>,
    mut f: impl FnMut(&'a str, Tag) -> ControlFlow<()>,
) -> Result<(), Malformed> {
    let mut fields = row.into().fields()?;
    while let Some(name) = fields.next()? {
        let lead = Lead::read(&mut fields.values)?;
        if f(name, lead.tag()).is_break() {
            return Ok(());
        }
        skip_after(lead, &mut fields.values, 1)?;
    }
    Ok(())
}

/// Passes over a value inside `depth` containers.
fn skip(reader: &mut Reader<'_>, depth: usize) -> Result<(), Malformed> {
    let lead = Lead::read(reader)?;
    skip_after(lead, reader, depth)
}

/// Passes over the rest of a value.
fn skip_after(lead: Lead, reader: &mut Reader<'_>, depth: usize) -> Result<(), Malformed> {
    match lead {
        Lead::Null | Lead::Bool(_) | Lead::Int(_) | Lead::UInt(_) | Lead::Float(_) => {}
        Lead::Str(len) => drop(reader.take(len)?),
        Lead::List(count) => {
            let depth = deeper(reader, depth)?;
            for _ in 0..count {
                skip(reader, depth)?;
            }
        }
        Lead::Dict(count) => {
            let depth = deeper(reader, depth)?;
            for _ in 0..count {
                reader.bytes()?;
                skip(reader, depth)?;
            }
        }
    }
    Ok(())
}

/// The depth of a container inside `depth` others: what bounds every recursion over a row.
#[inline]
fn deeper(reader: &Reader<'_>, depth: usize) -> Result<usize, Malformed> {
    if depth < DEPTH_MAX { Ok(depth.saturating_add(1)) } else { Err(reader.malformed(DEPTH)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;

    #[test]
    fn the_bytes_of_a_row_are_these() {
        let record = record! {
            "id": 7, "n": null, "t": true, "big": u64::MAX, "f": 1.5, "s": "é", "l": [-1, "x"], "d": { "k": 300 }, "e": {}
        };
        let mut row = Vec::new();
        encode_record(&record, &mut row).unwrap();
        let hex: String = row.iter().map(|b| format!("{b:02x}")).collect();
        let golden = [
            "09",                     // nine fields
            "026964016e0174",         // id, n, t
            "03626967016601730",      // big, f, s
            "16c01640165",            // l, d, e
            "87",                     // id: int 7
            "00",                     // n: null
            "02",                     // t: true
            "04ffffffffffffffffff01", // big: uint 2^64 - 1
            "05000000000000f83f",     // f: float 1.5
            "22c3a9",                 // s: str é
            "127f2178",               // l: list of int -1, str x
            "0801016b03d804",         // d: dict of k: int 300
            "0800",                   // e: empty dict
        ];
        assert_eq!(hex, golden.concat());
        assert_eq!(validate(&row), Ok(()));
        assert_eq!(decode_record(&row), Ok(record));
    }

    #[test]
    fn fields_are_named_with_their_kinds_until_the_caller_breaks_off() {
        let record = record! {
            "null": null, "bool": false, "int": 1, "float": 0.5, "str": "", "list": [[], {}], "dict": { "int": 1 }
        };
        let mut row = Vec::new();
        encode_record(&record, &mut row).unwrap();
        let mut seen = Vec::new();
        for_each_field(&row, |name, tag| {
            assert_eq!(name, tag.name());
            seen.push(name);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(seen.iter().copied().eq(record.keys()));
        let mut calls = 0;
        for_each_field(&row, |name, _| {
            calls += 1;
            if name == "int" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(calls, 3);
    }
}
