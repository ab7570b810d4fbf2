//! From a row to JSON or whatever else serde writes, without a detour over values. A NaN or an infinity, which JSON has
//! no way to write, is refused, where `serde_json` itself would write null.

use std::cell::RefCell;

use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{Lead, RowRef, deeper, skip_after};
use crate::wire::{Malformed, Reader};

/// A row to be serialized as a map, its fields in order. A non-finite float is an error.
pub(crate) struct RowView<'a>(RowRef<'a>);

impl<'a> RowView<'a> {
    pub(crate) fn new(row: impl Into<RowRef<'a>>) -> RowView<'a> {
        RowView(row.into())
    }
}

impl Serialize for RowView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = self.0.fields().map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(Some(fields.left()))?;
        while let Some(name) = fields.next().map_err(S::Error::custom)? {
            map.serialize_key(name)?;
            map.serialize_value(&ValueView::new(&mut fields.values, 1))?;
        }
        map.end()
    }
}

fn dict_out<S: Serializer>(
    reader: &mut Reader<'_>,
    count: usize,
    depth: usize,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(count))?;
    for _ in 0..count {
        map.serialize_key(reader.str().map_err(S::Error::custom)?)?;
        map.serialize_value(&ValueView::new(reader, depth))?;
    }
    map.end()
}

/// The next value of a row. Serializing it reads it: it goes through a cell, since `serialize` takes `&self`.
struct ValueView<'r, 'a> {
    reader: RefCell<&'r mut Reader<'a>>,
    depth: usize,
}

impl<'r, 'a> ValueView<'r, 'a> {
    fn new(reader: &'r mut Reader<'a>, depth: usize) -> Self {
        ValueView { reader: reader.into(), depth }
    }
}

impl Serialize for ValueView<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut reader = self.reader.try_borrow_mut().map_err(S::Error::custom)?;
        let reader = &mut **reader;
        match Lead::read(reader).map_err(S::Error::custom)? {
            Lead::Null => serializer.serialize_unit(),
            Lead::Bool(b) => serializer.serialize_bool(b),
            Lead::Int(number) => serializer.serialize_i64(number),
            Lead::UInt(number) => serializer.serialize_u64(number),
            Lead::Float(number) => {
                if !number.is_finite() {
                    return Err(S::Error::custom(format_args!("JSON has no way to write the float {number}")));
                }
                serializer.serialize_f64(number)
            }
            Lead::Str(len) => serializer.serialize_str(reader.text(len).map_err(S::Error::custom)?),
            Lead::List(count) => {
                let depth = deeper(reader, self.depth).map_err(S::Error::custom)?;
                let mut list = serializer.serialize_seq(Some(count))?;
                for _ in 0..count {
                    list.serialize_element(&ValueView::new(reader, depth))?;
                }
                list.end()
            }
            Lead::Dict(count) => {
                let depth = deeper(reader, self.depth).map_err(S::Error::custom)?;
                dict_out(reader, count, depth, serializer)
            }
        }
    }
}

/// The first NaN or infinity of a row, and the path to it: `geometry.coordinates[2]`.
pub(crate) fn first_non_finite<'a>(row: impl Into<RowRef<'a>>) -> Option<(String, f64)> {
    let mut path = String::new();
    let mut fields = row.into().fields().ok()?;
    while let Some(name) = fields.next().ok()? {
        path.clear();
        path.push_str(name);
        if let Some(found) = non_finite(&mut fields.values, 1, &mut path).ok()? {
            return Some((path, found));
        }
    }
    None
}

/// With `path` extended to the float found, or else as it was.
fn non_finite_in_dict(
    reader: &mut Reader<'_>,
    count: usize,
    depth: usize,
    path: &mut String,
) -> Result<Option<f64>, Malformed> {
    let outside = path.len();
    for _ in 0..count {
        path.push('.');
        path.push_str(reader.str()?);
        if let Some(found) = non_finite(reader, depth, path)? {
            return Ok(Some(found));
        }
        path.truncate(outside);
    }
    Ok(None)
}

fn non_finite(reader: &mut Reader<'_>, depth: usize, path: &mut String) -> Result<Option<f64>, Malformed> {
    match Lead::read(reader)? {
        Lead::Float(number) => Ok(Some(number).filter(|number| !number.is_finite())),
        Lead::List(count) => {
            let depth = deeper(reader, depth)?;
            let outside = path.len();
            for i in 0..count {
                path.push_str(&format!("[{i}]"));
                if let Some(found) = non_finite(reader, depth, path)? {
                    return Ok(Some(found));
                }
                path.truncate(outside);
            }
            Ok(None)
        }
        Lead::Dict(count) => {
            let depth = deeper(reader, depth)?;
            non_finite_in_dict(reader, count, depth, path)
        }
        other => skip_after(other, reader, depth).map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode_record;
    use super::super::zoo::{nested_row, on_a_small_stack, random_record};
    use super::*;
    use crate::limits::DEPTH_MAX;
    use crate::{Record, record};

    fn row(record: &Record) -> Vec<u8> {
        let mut row = Vec::new();
        encode_record(record, &mut row).unwrap();
        row
    }

    #[test]
    fn a_row_is_written_as_the_json_of_its_record() {
        for seed in 0..300 {
            let record = random_record(seed);
            let row = row(&record);
            match first_non_finite(&row) {
                None => {
                    let text = serde_json::to_string(&RowView::new(&row)).unwrap();
                    assert_eq!(text, serde_json::to_string(&record).unwrap(), "seed {seed}");
                }
                Some(_) => assert!(serde_json::to_string(&RowView::new(&row)).is_err(), "seed {seed}"),
            }
        }
    }

    #[test]
    fn a_non_finite_float_is_refused_and_named_by_its_path() {
        let record = record! {
            "a": [1.5, []], "geometry": { "type": "Point", "coordinates": [1.0, [], f64::INFINITY] }, "z": f64::NAN
        };
        let row = row(&record);
        assert_eq!(first_non_finite(&row), Some(("geometry.coordinates[2]".to_owned(), f64::INFINITY)));
        let error = serde_json::to_string(&RowView::new(&row)).unwrap_err().to_string();
        assert_eq!(error, "JSON has no way to write the float inf");
        assert_eq!(first_non_finite(&self::row(&record! { "x": 1, "y": { "z": [{}] } })), None);
    }

    #[test]
    fn containers_are_written_100_deep_and_not_101() {
        on_a_small_stack(|| {
            for row in nested_row(DEPTH_MAX) {
                assert!(serde_json::to_string(&RowView::new(&row)).is_ok());
                assert_eq!(first_non_finite(&row), None);
            }
            for row in nested_row(100_000) {
                assert!(serde_json::to_string(&RowView::new(&row)).is_err());
                assert_eq!(first_non_finite(&row), None);
            }
        });
    }

    #[test]
    fn bytes_that_are_no_row_are_an_error() {
        for bytes in [&[][..], &[1], &[1, 0, 9], &[1, 0, 6, 1, 1, 2]] {
            assert!(serde_json::to_string(&RowView::new(bytes)).is_err());
        }
    }
}
