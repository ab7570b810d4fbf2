//! How a value begins. Its first byte says its kind, and where that is enough, how long it is or what it is: most values
//! are small integers, bools, and text of some dozen bytes.

use super::Tag;
use crate::wire::{Malformed, Reader, put_i64, put_u64};

const NULL: u8 = 0x00;
const FALSE: u8 = 0x01;
const TRUE: u8 = 0x02;
const INT: u8 = 0x03;
const UINT: u8 = 0x04;
const FLOAT: u8 = 0x05;
const STR: u8 = 0x06;
const LIST: u8 = 0x07;
const DICT: u8 = 0x08;
/// And on: lists of up to 15 values, by their count.
const SHORT_LIST: u8 = 0x10;
/// And on: text of up to 63 bytes, by its length.
const SHORT_STR: u8 = 0x20;
/// And on: integers from [`SMALL_MIN`] to [`SMALL_MAX`], by their value.
const SMALL_INT: u8 = 0x60;

const SHORT_LIST_MAX: u64 = (SHORT_STR - SHORT_LIST - 1) as u64;
const SHORT_STR_MAX: usize = (SMALL_INT - SHORT_STR - 1) as usize;
/// The byte of 0: the others follow it and come before it.
const ZERO: i64 = 0x80;
const SMALL_MIN: i64 = SMALL_INT as i64 - ZERO;
const SMALL_MAX: i64 = 0xff - ZERO;

/// A value as far as its length: all of one that has no text and holds no others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lead {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    /// So many bytes of UTF-8 follow, which were not looked at.
    Str(usize),
    /// So many values follow, which the bytes at hand can hold.
    List(usize),
    /// So many names and values follow, which the bytes at hand can hold.
    Dict(usize),
}

/// A value takes a byte at least, a field at least the length of an empty name as well.
const VALUE_BYTES_MIN: usize = 1;
pub(super) const FIELD_BYTES_MIN: usize = 2;

impl Lead {
    #[inline(always)]
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Lead, Malformed> {
        let byte = reader.u8()?;
        Ok(match byte {
            SMALL_INT.. => Lead::Int(i64::from(byte).wrapping_sub(ZERO)),
            SHORT_STR..SMALL_INT => Lead::Str(usize::from(byte.wrapping_sub(SHORT_STR))),
            SHORT_LIST..SHORT_STR => {
                let count = usize::from(byte.wrapping_sub(SHORT_LIST));
                if count > reader.remaining() {
                    return Err(before(reader, "a count that the bytes after it can hold"));
                }
                Lead::List(count)
            }
            FALSE => Lead::Bool(false),
            TRUE => Lead::Bool(true),
            NULL => Lead::Null,
            FLOAT => Lead::Float(reader.f64()?),
            _ => return Lead::read_long(byte, reader),
        })
    }

    #[inline(never)]
    fn read_long(byte: u8, reader: &mut Reader<'_>) -> Result<Lead, Malformed> {
        let at = reader.clone();
        Ok(match byte {
            INT => Lead::Int(long_int(reader)?),
            UINT => match reader.u64()? {
                number if i64::try_from(number).is_ok() => {
                    return Err(at.malformed("an integer above 2^63 - 1, as smaller ones have a kind of their own"));
                }
                number => Lead::UInt(number),
            },
            STR => match usize::try_from(reader.u64()?).unwrap_or(usize::MAX) {
                0..=SHORT_STR_MAX => return Err(at.malformed("a length that does not fit the byte before")),
                len => Lead::Str(len),
            },
            LIST => match reader.count(VALUE_BYTES_MIN)? {
                count if count as u64 <= SHORT_LIST_MAX => {
                    return Err(at.malformed("a count that does not fit the byte before"));
                }
                count => Lead::List(count),
            },
            DICT => Lead::Dict(reader.count(FIELD_BYTES_MIN)?),
            _ => return Err(before(reader, "the first byte of a value")),
        })
    }

    pub(super) const fn tag(self) -> Tag {
        match self {
            Lead::Null => Tag::Null,
            Lead::Bool(_) => Tag::Bool,
            Lead::Int(_) => Tag::Int,
            Lead::UInt(_) => Tag::UInt,
            Lead::Float(_) => Tag::Float,
            Lead::Str(_) => Tag::Str,
            Lead::List(_) => Tag::List,
            Lead::Dict(_) => Tag::Dict,
        }
    }
}

/// The length of the text that comes next, where it is a short one.
#[inline(always)]
pub(super) fn short_text(reader: &mut Reader<'_>) -> Option<usize> {
    let byte = reader.u8_if(|byte| (SHORT_STR..SMALL_INT).contains(&byte))?;
    Some(usize::from(byte.wrapping_sub(SHORT_STR)))
}

/// The integer that comes next, where it is a small one.
#[inline(always)]
pub(super) fn small_int(reader: &mut Reader<'_>) -> Option<i64> {
    let byte = reader.u8_if(|byte| byte >= SMALL_INT)?;
    Some(i64::from(byte).wrapping_sub(ZERO))
}

/// The integer that comes next, where it is one of several bytes.
#[inline]
pub(super) fn other_int(reader: &mut Reader<'_>) -> Result<Option<i64>, Malformed> {
    if reader.u8_if(|byte| byte == INT).is_none() {
        return Ok(None);
    }
    long_int(reader).map(Some)
}

#[inline]
fn long_int(reader: &mut Reader<'_>) -> Result<i64, Malformed> {
    let at = reader.pos();
    match reader.i64()? {
        SMALL_MIN..=SMALL_MAX => Err(Malformed { at, expected: "an integer that does not fit the byte before" }),
        number => Ok(number),
    }
}

/// The bool that comes next.
#[inline(always)]
pub(super) fn bool_value(reader: &mut Reader<'_>) -> Option<bool> {
    reader.u8_if(|byte| byte == FALSE || byte == TRUE).map(|byte| byte == TRUE)
}

/// How many values the list that comes next has, where they are few and the bytes at hand can hold them.
#[inline(always)]
pub(super) fn short_list(reader: &mut Reader<'_>) -> Option<usize> {
    let most = reader.remaining().saturating_sub(1);
    let count = |byte: u8| usize::from(byte.wrapping_sub(SHORT_LIST));
    reader.u8_if(|byte| (SHORT_LIST..SHORT_STR).contains(&byte) && count(byte) <= most).map(count)
}

/// Whether a float comes next; then its eight bytes do.
#[inline(always)]
pub(super) fn is_float(reader: &mut Reader<'_>) -> bool {
    reader.u8_if(|byte| byte == FLOAT).is_some()
}

/// The byte that was read last is not `expected`.
#[cold]
fn before(reader: &Reader<'_>, expected: &'static str) -> Malformed {
    Malformed { at: reader.pos().saturating_sub(1), expected }
}

/// Whether these bytes are null and another value's.
pub(super) fn is_null(value: &[u8]) -> bool {
    value.first() == Some(&NULL)
}

#[inline]
pub(super) fn put_null(out: &mut Vec<u8>) {
    out.push(NULL);
}

#[inline]
pub(super) fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { TRUE } else { FALSE });
}

#[inline]
pub(super) fn put_int(out: &mut Vec<u8>, number: i64) {
    match u8::try_from(number.wrapping_add(ZERO)) {
        Ok(byte @ SMALL_INT..) => out.push(byte),
        _ => {
            out.push(INT);
            put_i64(out, number);
        }
    }
}

/// Of an integer above `i64::MAX`.
pub(super) fn put_uint(out: &mut Vec<u8>, number: u64) {
    out.push(UINT);
    put_u64(out, number);
}

#[inline]
pub(super) fn put_float(out: &mut Vec<u8>, number: f64) {
    let mut bytes = [FLOAT; 9];
    if let Some(place) = bytes.last_chunk_mut() {
        *place = number.to_le_bytes();
    }
    out.extend_from_slice(&bytes);
}

#[inline]
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        len @ 0..=SHORT_STR_MAX => out.push(SHORT_STR.wrapping_add(len.to_le_bytes()[0])),
        len => {
            out.push(STR);
            put_u64(out, len as u64);
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// Of a list, whose values follow.
#[inline]
pub(super) fn put_list(out: &mut Vec<u8>, count: u64) {
    if count <= SHORT_LIST_MAX {
        out.push(SHORT_LIST.wrapping_add(count.to_le_bytes()[0]));
    } else {
        out.push(LIST);
        put_u64(out, count);
    }
}

/// Of a dict, whose names and values follow.
#[inline]
pub(super) fn put_dict(out: &mut Vec<u8>, count: u64) {
    out.push(DICT);
    put_u64(out, count);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Lead, Malformed> {
        Lead::read(&mut Reader::new(bytes))
    }

    #[test]
    fn integers_take_one_byte_from_minus_32_to_127_and_are_read_back_only_from_their_shortest_form() {
        let edges = [i64::MIN, -1 << 40, -8_193, -65, -64, 128, 8_191, 8_192, 1 << 40, i64::MAX];
        for number in (-300..300).chain(edges) {
            let mut bytes = Vec::new();
            put_int(&mut bytes, number);
            assert!(matches!(read(&bytes), Ok(Lead::Int(n)) if n == number), "{number}");
            assert_eq!(bytes.len() == 1, (-32..=127).contains(&number), "{number}");
            let mut long = vec![INT];
            put_i64(&mut long, number);
            assert_eq!(read(&long).is_ok(), bytes.len() > 1, "{number}");
        }
    }

    #[test]
    fn short_text_and_lists_have_their_length_in_their_first_byte_and_no_other_form() {
        for len in [0, 1, 15, 16, 63, 64, 127, 128, 20_000] {
            let mut bytes = Vec::new();
            put_text(&mut bytes, &"x".repeat(len));
            assert!(matches!(read(&bytes), Ok(Lead::Str(n)) if n == len), "{len}");
            assert_eq!(bytes.len() == len + 1, len < 64, "{len}");
            let mut long = vec![STR];
            put_u64(&mut long, len as u64);
            assert_eq!(read(&long).is_ok(), len >= 64, "{len}");

            bytes.clear();
            put_list(&mut bytes, len as u64);
            let values = vec![NULL; len];
            assert!(matches!(read(&[&*bytes, &values].concat()), Ok(Lead::List(n)) if n == len), "{len}");
            assert_eq!(bytes.len() == 1, len < 16, "{len}");
            let mut long = vec![LIST];
            put_u64(&mut long, len as u64);
            assert_eq!(read(&[long, values].concat()).is_ok(), len >= 16, "{len}");
            if len > 0 {
                assert!(read(&bytes).is_err(), "{len} values and no bytes for them");
            }
        }
    }

    #[test]
    fn every_first_byte_is_of_one_kind_or_of_none() {
        let rest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0];
        for byte in 0..=u8::MAX {
            let kind = read(&[&[byte][..], &rest].concat()).map(|lead| lead.tag().name()).map_err(|m| m.expected);
            let want = match byte {
                0 => Ok("null"),
                1 | 2 => Ok("bool"),
                3 | 4 | 0x60.. => Ok("int"),
                5 => Ok("float"),
                6 | 0x20..=0x5f => Ok("str"),
                7 | 8 => Err("a count that the bytes after it can hold"),
                0x10..=0x1f => Ok("list"),
                9..=0x0f => Err("the first byte of a value"),
            };
            assert_eq!(kind, want, "{byte:#x}");
        }
    }
}
