//! The primary key in a row.

use super::lead::{is_null, put_int};
use super::{Lead, RowRef, skip_after};
use crate::Key;
use crate::wire::{Malformed, Reader, put_str, put_u64, u64_len};

/// What a row has for its primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyIn<'a> {
    /// No such field.
    Missing,
    /// The field is null: a key is to be made for it. `at` is where it stands.
    Null { field: usize, at: usize },
    /// An integer.
    Int { field: usize, key: i64 },
    /// A string.
    Str { field: usize, key: &'a str },
    /// Something that cannot be a key.
    Other { field: usize, kind: &'static str },
}

/// Finds the field of this name. `field` counts the fields before it.
pub(crate) fn find_key<'a>(row: impl Into<RowRef<'a>>, primary_key: &str) -> Result<KeyIn<'a>, Malformed> {
    let mut fields = row.into().fields()?;
    let count = fields.left();
    for field in 0..count {
        let found = fields.next()? == Some(primary_key);
        let reader = &mut fields.values;
        let at = reader.pos();
        let lead = Lead::read(reader)?;
        if found {
            return key_after(lead, reader, field, at);
        }
        skip_after(lead, reader, 1)?;
    }
    Ok(KeyIn::Missing)
}

/// The key that begins so, at `at`.
#[inline]
pub(super) fn key_after<'a>(
    lead: Lead,
    reader: &mut Reader<'a>,
    field: usize,
    at: usize,
) -> Result<KeyIn<'a>, Malformed> {
    Ok(match lead {
        Lead::Null => KeyIn::Null { field, at },
        Lead::Int(key) => KeyIn::Int { field, key },
        Lead::Str(len) => KeyIn::Str { field, key: reader.text(len)? },
        Lead::UInt(_) => KeyIn::Other { field, kind: "int above 2^63 - 1" },
        other => KeyIn::Other { field, kind: other.tag().name() },
    })
}

/// The name of the field that has `field` others before it, and its value as a key.
pub(crate) fn key_at_field<'a>(row: impl Into<RowRef<'a>>, field: usize) -> Result<(&'a str, Key), Malformed> {
    let mut fields = row.into().fields()?;
    let mut passed = 0_usize;
    while let Some(name) = fields.next()? {
        let reader = &mut fields.values;
        let before = reader.clone();
        let lead = Lead::read(reader)?;
        if passed == field {
            return match lead {
                Lead::Int(key) => Ok((name, Key::Int(key))),
                Lead::Str(len) => Ok((name, Key::Str(reader.text(len)?.into()))),
                _ => Err(before.malformed("an integer or a string, as the record's key")),
            };
        }
        skip_after(lead, reader, 1)?;
        passed = passed.saturating_add(1);
    }
    Err(fields.values.malformed("another field, the record's key"))
}

/// The row with the automatic key put in, and which field that is: the last one if it was missing, as in DictDB for
/// Python, else the one that was null. A row that has a key comes back as it is.
///
/// # Panics
/// Where `found` is not what [`find_key`] said of `row`.
pub(crate) fn with_key(row: &[u8], found: &KeyIn<'_>, primary_key: &str, key: i64) -> (Vec<u8>, usize) {
    // Up to eleven bytes for the integer; the field count may take one more than it did.
    let mut out = Vec::with_capacity(row.len().saturating_add(primary_key.len()).saturating_add(32));
    match *found {
        KeyIn::Missing => {
            let Ok(fields) = RowRef::from(row).fields() else { unreachable!("a row starts with its names") };
            let count = fields.left();
            let (names, values) = row.split_at_checked(fields.values.pos()).unwrap_or_default();
            put_u64(&mut out, count.saturating_add(1) as u64);
            out.extend_from_slice(names.get(u64_len(count as u64)..).unwrap_or_default());
            put_str(&mut out, primary_key);
            out.extend_from_slice(values);
            put_int(&mut out, key);
            (out, count)
        }
        KeyIn::Null { field, at } => {
            let (before, from) = row.split_at_checked(at).unwrap_or_default();
            assert!(is_null(from), "the key is null");
            out.extend_from_slice(before);
            put_int(&mut out, key);
            out.extend_from_slice(from.get(1..).unwrap_or_default());
            (out, field)
        }
        KeyIn::Int { field, .. } | KeyIn::Str { field, .. } | KeyIn::Other { field, .. } => (row.to_vec(), field),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode_record, encode_record, validate};
    use super::*;
    use crate::{Record, record};

    fn row(record: &Record) -> Vec<u8> {
        let mut row = Vec::new();
        encode_record(record, &mut row).unwrap();
        row
    }

    #[test]
    fn the_key_is_found_by_name_at_the_top_only() {
        let nested = record! { "a": { "id": 1 }, "b": [{ "id": 2 }] };
        assert_eq!(find_key(&row(&nested), "id"), Ok(KeyIn::Missing));
        for (value, want) in [
            (crate::Value::from(-3), KeyIn::Int { field: 1, key: -3 }),
            ("k".into(), KeyIn::Str { field: 1, key: "k" }),
            (1.0.into(), KeyIn::Other { field: 1, kind: "float" }),
            (u64::MAX.into(), KeyIn::Other { field: 1, kind: "int above 2^63 - 1" }),
            (true.into(), KeyIn::Other { field: 1, kind: "bool" }),
            (vec![1].into(), KeyIn::Other { field: 1, kind: "list" }),
            (record! {}.into(), KeyIn::Other { field: 1, kind: "dict" }),
        ] {
            let bytes = row(&record! { "x": { "id": null }, "id": value.clone(), "y": 1 });
            assert_eq!(find_key(&bytes, "id"), Ok(want));
            let key = key_at_field(&bytes, 1);
            match value {
                crate::Value::Int(n) => assert_eq!(key, Ok(("id", Key::Int(n)))),
                crate::Value::Str(s) => assert_eq!(key, Ok(("id", Key::from(s)))),
                _ => assert!(key.is_err()),
            }
        }
        assert_eq!(key_at_field(&row(&record! { "a": 1, "b": "x" }), 1), Ok(("b", Key::from("x"))));
        assert!(key_at_field(&row(&record! { "a": 1 }), 1).is_err());
    }

    #[test]
    fn a_missing_key_becomes_the_last_field() {
        // From 127 fields to 128 the count takes another byte.
        for fields in [0, 1, 126, 127, 128, 300] {
            let mut record: Record = (0..fields).map(|i| (format!("f{i}"), i)).collect();
            let bytes = row(&record);
            let (with, field) = with_key(&bytes, &find_key(&bytes, "id").unwrap(), "id", i64::MAX);
            record.insert("id", i64::MAX);
            assert_eq!(with, row(&record), "{fields}");
            assert_eq!(validate(&with), Ok(()));
            assert_eq!(key_at_field(&with, field), Ok(("id", Key::Int(i64::MAX))));
        }
    }

    #[test]
    fn a_null_key_is_replaced_in_its_place() {
        for key in [0, 1, -1, i64::MIN] {
            let bytes = row(&record! { "a": "x", "id": null, "b": null });
            let (with, field) = with_key(&bytes, &find_key(&bytes, "id").unwrap(), "id", key);
            assert_eq!(decode_record(&with).unwrap().to_string(), format!(r#"{{"a": "x", "id": {key}, "b": null}}"#));
            assert_eq!((validate(&with), field), (Ok(()), 1));
        }
    }

    #[test]
    fn a_key_that_is_there_stays() {
        let bytes = row(&record! { "a": 1, "id": "k" });
        assert_eq!(with_key(&bytes, &find_key(&bytes, "id").unwrap(), "id", 9), (bytes.clone(), 1));
    }
}
