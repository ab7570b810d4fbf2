//! From JSON to a row, without a detour over values.
//!
//! `serde_json` reads `-0` and integers outside i64 and u64 as floats. Here they are refused: a number is kept
//! exactly, or not at all. Whether a float was such an integer only the text can tell, and only a few floats give
//! cause to look at it again.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::encode_error::EncodeError;
use super::hidden_number;
use super::writer::{Open, Writer};

/// Whether there was a float that `serde_json` may have made of an integer: then the text is to be given to
/// [`refuse_lossy_numbers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct NumberDoubt(pub(crate) bool);

/// Why a JSON text is not a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonRowError {
    /// What is wrong.
    pub(crate) message: String,
    /// About where: bytes from the start of the text.
    pub(crate) at: Option<usize>,
}

impl fmt::Display for JsonRowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} at byte {at}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for JsonRowError {}

/// Appends the row of a JSON object to `out`, which is left as it was on an error.
pub(crate) fn json_text_to_row(text: &str, out: &mut Vec<u8>) -> Result<(), JsonRowError> {
    let start = out.len();
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = RowSeed(out)
        .deserialize(&mut json)
        .and_then(|doubt| json.end().map(|()| doubt))
        .map_err(|error| json_error(text, &error))
        .and_then(|doubt| if doubt.0 { refuse_lossy_numbers(text) } else { Ok(()) });
    if outcome.is_err() {
        out.truncate(start);
    }
    outcome
}

/// With serde_json's line and column, both counted from 1, as an offset.
fn json_error(text: &str, error: &serde_json::Error) -> JsonRowError {
    let full = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = full.strip_suffix(&place).unwrap_or(&full).to_owned();
    let at = error.line().checked_sub(1).map(|lines_before| {
        let line: usize = text.split_inclusive('\n').take(lines_before).map(str::len).sum();
        line.saturating_add(error.column().saturating_sub(1)).min(text.len())
    });
    JsonRowError { message, at }
}

/// Refuses valid JSON that has an integer outside i64 and u64, or `-0`, anywhere outside its strings.
pub(crate) fn refuse_lossy_numbers(text: &str) -> Result<(), JsonRowError> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                while let Some((_, byte)) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            b'-' | b'0'..=b'9' => {
                let from = text.get(at..).unwrap_or_default();
                let len = from.bytes().take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
                let token = from.get(..len.count()).unwrap_or_default();
                if let Some(message) = lossy(token) {
                    return Err(JsonRowError { message, at: Some(at) });
                }
                // The byte at hand is the token's first.
                if let Some(others) = token.len().checked_sub(2) {
                    bytes.nth(others);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is wrong with a number, if anything is.
fn lossy(token: &str) -> Option<String> {
    if token.contains(['.', 'e', 'E']) {
        None
    } else if token == "-0" {
        Some("-0 is no integer, and as a float it is written -0.0".to_owned())
    } else if token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
        Some(format!("the integer {token} does not fit 64 bits"))
    } else {
        None
    }
}

/// Whether `serde_json` was built with `arbitrary_precision`: only then does it keep a number that no float holds.
pub(super) fn numbers_are_hidden() -> bool {
    serde_json::from_str::<serde_json::Number>("1e999").is_ok()
}

/// Reads one dict from a self-describing format and appends its row, or on an error nothing, to the buffer.
pub(crate) struct RowSeed<'a>(pub(crate) &'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = NumberDoubt;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<NumberDoubt, D::Error> {
        // What the writer refuses passes through the deserializer's own error type, and is put aside here.
        Writer::append(self.0, |writer| {
            let mut doubt = false;
            let read = deserializer.deserialize_map(RowIn(ValueIn { writer, doubt: &mut doubt }));
            read.map(|()| NumberDoubt(doubt)).map_err(Refused::Read)
        })
        .map_err(|refused| match refused {
            Refused::Read(error) => error,
            Refused::Write(error) => D::Error::custom(error),
        })
    }
}

enum Refused<E> {
    Read(E),
    Write(EncodeError),
}

impl<E> From<EncodeError> for Refused<E> {
    fn from(error: EncodeError) -> Self {
        Refused::Write(error)
    }
}

/// Writes the next value that is read.
struct ValueIn<'w, 'o> {
    writer: &'w mut Writer<'o>,
    doubt: &'w mut bool,
}

impl<'o> ValueIn<'_, 'o> {
    /// The same for a value inside.
    fn inner(&mut self) -> ValueIn<'_, 'o> {
        ValueIn { writer: self.writer, doubt: self.doubt }
    }
}

impl<'de> DeserializeSeed<'de> for ValueIn<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($visit:ident $from:ty => $write:ident;)*) => {$(
        fn $visit<E: Error>(self, value: $from) -> Result<(), E> {
            self.writer.$write(value).map_err(E::custom)
        }
    )*};
}

impl<'de> Visitor<'de> for ValueIn<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a bool, a number, text, a list or a dict")
    }

    scalars! {
        visit_bool bool => bool;
        visit_i64 i64 => i64;
        visit_u64 u64 => u64;
        visit_i128 i128 => i128;
        visit_str &str => str;
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<(), E> {
        self.writer.u64(u64::try_from(value).map_err(|_| E::custom(EncodeError::IntOutOfRange))?).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        const TWO_POW_63: f64 = (1_u64 << 63) as f64;
        *self.doubt |= value.abs() >= TWO_POW_63 || (value == 0.0 && value.is_sign_negative());
        self.writer.f64(value).map_err(E::custom)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.writer.null().map_err(E::custom)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut list = self.writer.begin_list(None).map_err(A::Error::custom)?;
        while seq.next_element_seed(ItemIn { value: self.inner(), list: &mut list })?.is_some() {}
        self.writer.end_list(list);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut dict = self.writer.begin_dict(None).map_err(A::Error::custom)?;
        while map.next_key_seed(NameIn { writer: self.writer, dict: &mut dict })?.is_some() {
            map.next_value_seed(self.inner())?;
        }
        self.writer.end_dict(dict).map_err(A::Error::custom)
    }
}

/// Announces one value of a list, once it is known that there is one, and takes it.
struct ItemIn<'w, 'o, 'l> {
    value: ValueIn<'w, 'o>,
    list: &'l mut Open,
}

impl<'de> DeserializeSeed<'de> for ItemIn<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.value.writer.item(self.list);
        self.value.deserialize(deserializer)
    }
}

/// Takes a dict only.
struct RowIn<'w, 'o>(ValueIn<'w, 'o>);

impl<'de> Visitor<'de> for RowIn<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dict")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.visit_map(map)
    }
}

/// Writes the next field's name.
struct NameIn<'w, 'o> {
    writer: &'w mut Writer<'o>,
    dict: &'w mut Open,
}

impl<'de> DeserializeSeed<'de> for NameIn<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameIn<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        if let Some(why) = hidden_number(name) {
            return Err(E::custom(why));
        }
        self.writer.name(self.dict, name).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::zoo::{on_a_small_stack, random_record};
    use super::super::{decode_record, encode_record, first_non_finite, validate};
    use super::*;
    use crate::limits::DEPTH_MAX;
    use crate::{Record, Value};

    fn read(text: &str) -> Result<Record, JsonRowError> {
        let mut out = b"before".to_vec();
        let outcome = json_text_to_row(text, &mut out);
        let row = out.strip_prefix(b"before").unwrap();
        match outcome {
            Ok(()) => {
                assert_eq!(validate(row), Ok(()));
                Ok(decode_record(row).unwrap())
            }
            Err(error) => {
                assert!(row.is_empty());
                Err(error)
            }
        }
    }

    fn refused(text: &str) -> (String, usize) {
        let error = read(text).unwrap_err();
        (error.message, error.at.unwrap())
    }

    #[test]
    fn json_reads_as_the_row_of_its_record() {
        for seed in 0..300 {
            let record = random_record(seed);
            let mut row = Vec::new();
            encode_record(&record, &mut row).unwrap();
            if first_non_finite(&row).is_some() {
                continue;
            }
            for text in [serde_json::to_string(&record).unwrap(), serde_json::to_string_pretty(&record).unwrap()] {
                let mut out = Vec::new();
                json_text_to_row(&text, &mut out).unwrap();
                assert_eq!(out, row, "seed {seed}: {text}");
            }
        }
    }

    #[test]
    fn numbers_are_kept_exactly() {
        for (token, value) in [
            ("18446744073709551615", Value::UInt(u64::MAX)),
            ("9223372036854775808", Value::UInt(1 << 63)),
            ("9223372036854775807", Value::Int(i64::MAX)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("1e300", Value::Float(1e300)),
            ("18446744073709551616.0", Value::Float(18446744073709551616.0)),
            ("-1e19", Value::Float(-1e19)),
            ("0", Value::Int(0)),
            ("1.0", Value::Float(1.0)),
        ] {
            assert_eq!(read(&format!(r#"{{"a":{token}}}"#)).unwrap()["a"], value, "{token}");
        }
        for token in ["-0.0", "-0e3", "-1e-400"] {
            let read = read(&format!(r#"{{"a":{token}}}"#)).unwrap()["a"].as_f64().unwrap();
            assert_eq!(read.to_bits(), (-0.0_f64).to_bits(), "{token}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_kept_are_refused_by_name() {
        for token in
            ["18446744073709551616", "-9223372036854775809", "-9223372036854775808000", "1234567890123456789012"]
        {
            let (message, at) = refused(&format!(r#"{{"99":["-0","\"-0",1e300,{token}]}}"#));
            assert_eq!(message, format!("the integer {token} does not fit 64 bits"));
            assert_eq!(at, 25);
        }
        assert_eq!(refused(r#"{"a":-0}"#), ("-0 is no integer, and as a float it is written -0.0".to_owned(), 5));
        assert_eq!(refused("{\"b\":0,\n\"a\": 1e400}").0, "number out of range");
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_place() {
        for (text, message, at) in [
            ("[1]", "invalid type: sequence, expected a dict", 0),
            ("7", "invalid type: integer `7`, expected a dict", 0),
            ("{} 1", "trailing characters", 3),
            ("{\n \"a\": 1,\n \"b\": x}", "expected value", 17),
            (r#"{"a":1,"a":2}"#, "field \"a\" occurs twice", 12),
            (r#"{"x":[{"a":1,"b":2,"a":2}]}"#, "field \"a\" occurs twice", 24),
            ("", "EOF while parsing a value", 0),
            (r#"{"a":NaN}"#, "expected value", 5),
        ] {
            assert_eq!(refused(text), (message.to_owned(), at), "{text}");
        }
    }

    #[test]
    fn containers_may_be_100_deep_and_not_101() {
        let nested = |depth: usize, open: &str, close: &str| {
            let inner = depth - 1;
            format!(r#"{{"a":{}1{}}}"#, open.repeat(inner), close.repeat(inner))
        };
        on_a_small_stack(move || {
            for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
                assert!(read(&nested(DEPTH_MAX - 1, open, close)).is_ok());
                assert!(read(&nested(DEPTH_MAX, open, close)).is_ok());
                for depth in [DEPTH_MAX + 1, 100_000] {
                    let (message, _) = refused(&nested(depth, open, close));
                    assert_eq!(message, "nested too deep, expected containers no deeper than 100");
                }
            }
        });
    }
}
