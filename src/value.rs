//! Data as a program sees it: a value, a record of named values, the key of a record.
//!
//! How they are laid out in bytes is the business of [`crate::row`]; a key alone knows its own bytes.

mod key;
mod macros;
mod record;
mod serde;

use std::fmt;

pub use self::key::Key;
pub use self::record::Record;

/// One value of a record's field.
///
/// ```
/// use dictdb::{Value, record};
/// let user = record! { "name": "Ann", "age": 30, "tags": ["a", "b"] };
/// assert_eq!(user["name"], "Ann");
/// assert_eq!(user["age"].as_i64(), Some(30));
/// assert_eq!(user["tags"].as_list().map(<[Value]>::len), Some(2));
/// assert!(Value::from(None::<i64>).is_null());
/// ```
///
/// Equality is by kind and value: `Int(1)` is not `Float(1.0)`, a NaN is not equal to itself, and dicts are equal
/// whatever the order of their fields (see [`Record`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// No value: `None` in Python, `null` in JSON.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// An integer from -2^63 to 2^63 - 1.
    Int(i64),
    /// An integer from 2^63 to 2^64 - 1. A smaller one belongs in [`Int`](Value::Int): `Value::from` puts it there,
    /// and so does storing it.
    UInt(u64),
    /// A 64-bit float, NaN and infinities included. Those cannot go into a JSON backup.
    Float(f64),
    /// Text.
    Str(String),
    /// Values in order.
    List(Vec<Value>),
    /// Named values in order.
    Dict(Record),
}

impl Value {
    /// The name of this kind of value, as messages and schemas have it: `"null"`, `"bool"`, `"int"`, `"float"`,
    /// `"str"`, `"list"` or `"dict"`.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::UInt(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::List(_) => "list",
            Value::Dict(_) => "dict",
        }
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The bool, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(b) = self { Some(*b) } else { None }
    }

    /// The integer, if it is one below 2^63.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            Value::UInt(n) => i64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The integer, if it is one of at least 0.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Int(n) => u64::try_from(*n).ok(),
            Value::UInt(n) => Some(*n),
            _ => None,
        }
    }

    /// The number, if it is one; an integer beyond 2^53 is rounded to the nearest float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(*n as f64),
            Value::UInt(n) => Some(*n as f64),
            Value::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::Str(s) = self { Some(s) } else { None }
    }

    /// The values of the list, if it is one.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Value::List(values) = self { Some(values) } else { None }
    }

    /// The fields of the dict, if it is one.
    pub fn as_dict(&self) -> Option<&Record> {
        if let Value::Dict(fields) = self { Some(fields) } else { None }
    }
}

impl fmt::Display for Value {
    /// As JSON has it, except that a non-finite float prints as `NaN`, `inf` or `-inf`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(n) => write!(f, "{n}"),
            Value::UInt(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x:?}"),
            Value::Str(s) => write_quoted(f, s),
            Value::List(values) => {
                f.write_str("[")?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Dict(fields) => fields.fmt(f),
        }
    }
}

/// Text in JSON's quotes and escapes.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

macro_rules! from_integers {
    ($($int:ty)*) => {$(
        impl From<$int> for Value {
            fn from(n: $int) -> Value {
                Value::Int(n.into())
            }
        }
    )*};
}
from_integers!(i8 i16 i32 i64 u8 u16 u32);

impl From<u64> for Value {
    /// [`Value::Int`] where it fits, else [`Value::UInt`].
    fn from(n: u64) -> Value {
        i64::try_from(n).map_or(Value::UInt(n), Value::Int)
    }
}

impl From<usize> for Value {
    fn from(n: usize) -> Value {
        Value::from(n as u64) // no platform has wider ones
    }
}

impl From<isize> for Value {
    fn from(n: isize) -> Value {
        Value::Int(n as i64) // no platform has wider ones
    }
}

macro_rules! from_each {
    ($($from:ty, $value:pat => $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Value {
                $to
            }
        }
    )*};
}
from_each! {
    (), () => Value::Null;
    bool, b => Value::Bool(b);
    f32, x => Value::Float(x.into());
    f64, x => Value::Float(x);
    char, c => Value::Str(c.into());
    &str, s => Value::Str(s.to_owned());
    &String, s => Value::Str(s.clone());
    String, s => Value::Str(s);
    std::borrow::Cow<'_, str>, s => Value::Str(s.into_owned());
    Record, fields => Value::Dict(fields);
    Key, key => key.to_value();
    &Key, key => key.to_value();
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value> + Clone> From<&[T]> for Value {
    fn from(values: &[T]) -> Value {
        Value::List(values.iter().cloned().map(Into::into).collect())
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(values: [T; N]) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    /// Null for `None`.
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    /// A list.
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

impl From<serde_json::Value> for Value {
    /// A number becomes an `Int` or a `UInt` where it is an integer that fits, else a `Float`: the nearest, or where
    /// serde_json's feature `arbitrary_precision` lets in one beyond all floats, an infinite one.
    ///
    /// ```
    /// use dictdb::Value;
    /// assert_eq!(Value::from(serde_json::json!([1, 1.0])), Value::List(vec![Value::Int(1), Value::Float(1.0)]));
    /// ```
    fn from(value: serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match value {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Value::Int(n),
                (_, Some(n)) => Value::UInt(n),
                // Every other number of serde_json's is a float; or, where it keeps the text, reads as one.
                _ => Value::Float(n.as_f64().or_else(|| n.to_string().parse().ok()).unwrap_or(f64::NAN)),
            },
            Json::String(s) => Value::Str(s),
            Json::Array(values) => Value::List(values.into_iter().map(Value::from).collect()),
            Json::Object(fields) => Value::Dict(fields.into()),
        }
    }
}

macro_rules! equal_to {
    ($($other:ty, $accessor:ident;)*) => {$(
        impl PartialEq<$other> for Value {
            fn eq(&self, other: &$other) -> bool {
                self.$accessor().is_some_and(|own| own == *other)
            }
        }
    )*};
}
equal_to! {
    &str, as_str;
    String, as_str;
    bool, as_bool;
    i64, as_i64;
    u64, as_u64;
}

impl PartialEq<str> for Value {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Some(other)
    }
}

impl PartialEq<i32> for Value {
    fn eq(&self, other: &i32) -> bool {
        *self == i64::from(*other)
    }
}

impl PartialEq<f64> for Value {
    /// Only a `Float` is equal to a float.
    fn eq(&self, other: &f64) -> bool {
        matches!(self, Value::Float(x) if x == other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;

    #[test]
    fn an_integer_is_an_int_wherever_it_fits() {
        assert_eq!(Value::from(7_u64), Value::Int(7));
        assert_eq!(Value::from(i64::MAX as u64), Value::Int(i64::MAX));
        assert_eq!(Value::from(i64::MAX as u64 + 1), Value::UInt(1 << 63));
        assert_eq!(Value::from(serde_json::json!(u64::MAX)), Value::UInt(u64::MAX));
        assert_eq!(Value::from(serde_json::json!(i64::MIN)), Value::Int(i64::MIN));
        assert_eq!(Value::from(serde_json::json!(7_u64)), Value::Int(7));
        assert_eq!((Value::UInt(7).as_i64(), Value::UInt(u64::MAX).as_i64()), (Some(7), None));
        assert_eq!((Value::Int(7).as_u64(), Value::Int(-7).as_u64()), (Some(7), None));
    }

    #[test]
    fn accessors_answer_for_their_own_kind_only() {
        let all = record! { "null": null, "bool": true, "int": -1, "float": 1.5, "str": "s", "list": [1], "dict": {} };
        for (name, value) in &all {
            assert_eq!(value.kind(), name);
            let answers = [
                value.is_null(),
                value.as_bool().is_some(),
                value.as_i64().is_some(),
                value.as_f64().is_some() && value.as_i64().is_none(),
                value.as_str().is_some(),
                value.as_list().is_some(),
                value.as_dict().is_some(),
            ];
            assert_eq!(answers.iter().filter(|&&a| a).count(), 1, "{name}");
        }
        assert_eq!(all["str"], "s");
        assert_eq!(all["int"], -1);
        assert_ne!(all["float"], 1);
        assert_eq!(all["float"], 1.5);
    }

    #[test]
    fn a_value_prints_as_json_would_have_it() {
        let value = Value::from(record! {
            "a": [1, -0.0, 1e300, u64::MAX], "q\"\n": null, "nan": f64::NAN, "d": { "x": true }
        });
        let want = r#"{"a": [1, -0.0, 1e300, 18446744073709551615], "q\"\n": null, "nan": NaN, "d": {"x": true}}"#;
        assert_eq!(value.to_string(), want);
    }
}
