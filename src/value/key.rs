//! The key: what a table finds a record by.

use std::fmt;
use std::sync::Arc;

use super::{Value, write_quoted};
use crate::limits::NAME_BYTES_MAX;
use crate::wire::{Malformed, Reader, put_i64, put_str};

const INT: u8 = 0;
const STR: u8 = 1;

/// The value of a record's primary key: an integer or a string. Cheap to clone.
///
/// Keys are ordered, integers by value before strings by their bytes; a table lists its records in this order.
///
/// ```
/// use dictdb::Key;
/// assert!(Key::from(-1) < Key::from(2) && Key::from(2) < Key::from("10"));
/// assert_eq!(Key::from(7).to_string(), "7");
/// assert_eq!(Key::from("ann").to_string(), "\"ann\"");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An integer from -2^63 to 2^63 - 1.
    Int(i64),
    /// Text of at most 64 KiB.
    Str(Arc<str>),
}

impl Key {
    /// The key as the value of a field.
    pub fn to_value(&self) -> Value {
        match self {
            Key::Int(n) => Value::Int(*n),
            Key::Str(s) => Value::Str(s.as_ref().to_owned()),
        }
    }

    /// A number that is no smaller for a greater key: enough to go through many in about their order. Text that has the first
    /// eight bytes in common has the same one.
    pub(crate) fn rank(&self) -> u64 {
        const STRINGS: u64 = 1 << 63;
        match self {
            Key::Int(n) => n.cast_unsigned().wrapping_add(STRINGS) >> 1,
            Key::Str(s) => {
                let mut first = [0; 8];
                first.iter_mut().zip(s.bytes()).for_each(|(to, byte)| *to = byte);
                STRINGS | u64::from_be_bytes(first) >> 1
            }
        }
    }

    /// Appends the key's bytes: a tag (0 integer, 1 string), then the integer or the string.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Key::Int(n) => {
                out.push(INT);
                put_i64(out, *n);
            }
            Key::Str(s) => {
                out.push(STR);
                put_str(out, s);
            }
        }
    }

    /// Reads what [`Key::encode_into`] wrote.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Key, Malformed> {
        let at = reader.pos();
        match reader.u8()? {
            INT => reader.i64().map(Key::Int),
            STR => {
                let text = reader.str()?;
                if text.len() > NAME_BYTES_MAX {
                    return Err(Malformed { at, expected: "a key of at most 64 KiB" });
                }
                Ok(Key::Str(text.into()))
            }
            _ => Err(Malformed { at, expected: "the tag of an integer or string key" }),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Int(n) => n.fmt(f),
            Key::Str(s) => write_quoted(f, s),
        }
    }
}

macro_rules! from_each {
    ($($from:ty, $key:pat => $to:expr;)*) => {$(
        impl From<$from> for Key {
            fn from($key: $from) -> Key {
                $to
            }
        }
    )*};
}
from_each! {
    i8, n => Key::Int(n.into());
    i16, n => Key::Int(n.into());
    i32, n => Key::Int(n.into());
    i64, n => Key::Int(n);
    u8, n => Key::Int(n.into());
    u16, n => Key::Int(n.into());
    u32, n => Key::Int(n.into());
    &str, s => Key::Str(s.into());
    String, s => Key::Str(s.into());
    &String, s => Key::Str(s.as_str().into());
    Arc<str>, s => Key::Str(s);
    &Key, key => key.clone();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Key, Malformed> {
        let mut reader = Reader::new(bytes);
        let key = Key::decode(&mut reader)?;
        reader.finish().map(|()| key)
    }

    #[test]
    fn a_key_is_postcards_bytes_and_is_read_back() {
        #[derive(::serde::Serialize)]
        enum Mirror<'a> {
            Int(i64),
            Str(&'a str),
        }
        for n in [0, 1, -1, 63, 64, i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            Key::from(n).encode_into(&mut bytes);
            assert_eq!(bytes, postcard::to_stdvec(&Mirror::Int(n)).unwrap());
            assert_eq!(decode(&bytes), Ok(Key::Int(n)));
        }
        for s in ["", "ann", "ä€𝄞", &"x".repeat(NAME_BYTES_MAX)] {
            let mut bytes = Vec::new();
            Key::from(s).encode_into(&mut bytes);
            assert_eq!(bytes, postcard::to_stdvec(&Mirror::Str(s)).unwrap());
            assert_eq!(decode(&bytes), Ok(Key::from(s)));
        }
    }

    #[test]
    fn other_bytes_are_refused_as_a_key() {
        let mut long = Vec::new();
        Key::from("x".repeat(NAME_BYTES_MAX + 1)).encode_into(&mut long);
        for bytes in [&[][..], &[0], &[1], &[2, 0], &[0, 0x80, 0x00], &[1, 1, 0xff], &[1, 2, b'a'], &long] {
            assert!(decode(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn integers_come_before_strings_and_are_ordered_as_numbers() {
        let sorted = [Key::from(-5), Key::from(2), Key::from(10), Key::from(""), Key::from("10"), Key::from("2")];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn ranks_fall_nowhere_where_keys_rise() {
        let integers = [i64::MIN, i64::MIN + 3, -7, -1, 0, 4, 1 << 40, i64::MAX].map(Key::Int);
        let strings = ["", "\0", "\0\0\0\0\0\0\0\0\u{1}", "a", "ab", "abcdefgh", "abcdefghi", "b", "ä", "\u{10ffff}"];
        let keys: Vec<Key> = integers.into_iter().chain(strings.map(Key::from)).collect();
        assert!(keys.is_sorted());
        let ranks: Vec<u64> = keys.iter().map(Key::rank).collect();
        assert!(ranks.is_sorted(), "{ranks:x?}");
        let ranks = [-1, 0, 2, 3, 4].map(|n| Key::Int(n).rank());
        assert!(
            ranks[0] < ranks[1] && ranks[1] < ranks[2] && ranks[2] == ranks[3] && ranks[3] < ranks[4],
            "{ranks:x?}"
        );
        assert!(Key::Int(1).rank() < Key::Int(4).rank() && Key::from("abc").rank() < Key::from("abd").rank());
    }
}
