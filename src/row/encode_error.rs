//! Why a value cannot be a record.

use std::fmt;

use super::DEPTH;
use crate::limits::{NAME_BYTES_MAX, ROW_BYTES_MAX};

/// Why a value cannot be a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EncodeError {
    /// Containers inside one another beyond `DEPTH_MAX`.
    TooDeep,
    /// A dict has this field twice.
    DuplicateField(String),
    /// An integer outside i64 and u64.
    IntOutOfRange,
    /// The key of a map is neither text nor anything that JSON writes as text.
    KeyNotString,
    /// The whole is of this kind instead of a dict.
    NotADict(&'static str),
    /// A field's name has more than `NAME_BYTES_MAX` bytes.
    NameTooLong,
    /// The row would have so many bytes, more than `ROW_BYTES_MAX`.
    TooLarge(usize),
    /// What the value's own `Serialize` says.
    Custom(String),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::TooDeep => write!(f, "nested too deep, expected {DEPTH}"),
            EncodeError::DuplicateField(name) => write!(f, "field {name:?} occurs twice"),
            EncodeError::IntOutOfRange => f.write_str("an integer does not fit 64 bits"),
            EncodeError::KeyNotString => f.write_str("the key of a map is not text"),
            EncodeError::NotADict(kind) => write!(f, "a record is a dict, this is of kind {kind}"),
            EncodeError::NameTooLong => write!(f, "a field's name has more than {NAME_BYTES_MAX} bytes"),
            EncodeError::TooLarge(bytes) => write!(f, "a record of {bytes} bytes, the most are {ROW_BYTES_MAX}"),
            EncodeError::Custom(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for EncodeError {}

impl serde::ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        EncodeError::Custom(message.to_string())
    }
}
