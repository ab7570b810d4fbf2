//! Shapes: the names that many rows of a table have in common, kept once.
//!
//! A table holds a row as a number and the row's values; the number says which of the table's shapes has the names. A
//! table of documents that hardly share their names would gather shapes without end: beyond a limit a row keeps its own
//! names.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use super::key::key_after;
use super::{KeyIn, Lead, RowRef, skip};
use crate::wire::{Malformed, Reader, put_u64, u64_len};

/// Shapes of one table: records with up to twelve fields that each may be there or not.
const SHAPES_MAX: usize = 4_096;
/// Bytes of their names.
const SHAPE_BYTES_MAX: usize = 4 << 20;

/// The names of a row, in order.
#[derive(Debug)]
pub(crate) struct Shape {
    /// As they stand at the front of a row.
    bytes: Box<[u8]>,
    names: Box<[Box<str>]>,
    /// Which field is the primary key; the number of fields where none is.
    key_field: usize,
    /// Of the hash of a row's values.
    seed: u64,
}

impl Shape {
    fn new(bytes: &[u8], primary_key: &str, table_seed: u64) -> Result<Shape, Malformed> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(1)?;
        let names = (0..count).map(|_| reader.str().map(Into::into)).collect::<Result<Box<[Box<str>]>, _>>()?;
        let key_field = names.iter().position(|name| **name == *primary_key).unwrap_or(count);
        let seed = xxh3_64_with_seed(bytes, table_seed);
        Ok(Shape { bytes: bytes.into(), names, key_field, seed })
    }

    pub(crate) fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Which field is the primary key; the number of fields where none is.
    pub(crate) fn key_field(&self) -> usize {
        self.key_field
    }
}

/// The shapes of a table. `Clone` copies a pointer.
#[derive(Debug)]
pub(crate) struct Shapes {
    known: Arc<Known>,
    /// The shape that a row had last: the next one has it most often.
    last: usize,
    /// Hash of the table's name.
    seed: u64,
    primary_key: Arc<str>,
    scratch: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    shapes: Vec<Arc<Shape>>,
    by_bytes: HashMap<Box<[u8]>, usize>,
    bytes: usize,
}

impl Clone for Shapes {
    fn clone(&self) -> Shapes {
        let (known, primary_key) = (self.known.clone(), self.primary_key.clone());
        Shapes { known, last: self.last, seed: self.seed, primary_key, scratch: Vec::new() }
    }
}

/// A row as its table counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Of the table's name, the row's names and its values.
    pub(crate) hash: u128,
    /// Bytes of its values.
    pub(crate) bytes: u64,
}

/// A row that a table holds, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    /// The number of its shape; `None` where it has names of its own.
    pub(crate) number: Option<usize>,
    pub(crate) names: &'a [u8],
    pub(crate) values: &'a [u8],
}

/// The scratch buffer is given back beyond this.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

impl Shapes {
    /// None yet. `seed` is the hash of the table's name, which ties a row's hash to its table.
    pub(crate) fn new(seed: u64, primary_key: &str) -> Shapes {
        Shapes { known: Arc::default(), last: 0, seed, primary_key: primary_key.into(), scratch: Vec::new() }
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Shape> {
        self.known.shapes.get(number).map(|shape| &**shape)
    }

    /// The number of the shape with these names, which are valid; `None` where the table has too many to take it up.
    pub(crate) fn number(&mut self, names: &[u8]) -> Option<usize> {
        let number = match self.find(names) {
            Some(number) => number,
            None => self.take_up(names)?,
        };
        self.last = number;
        Some(number)
    }

    /// The same where a row had them before.
    #[inline]
    pub(crate) fn find(&self, names: &[u8]) -> Option<usize> {
        if self.get(self.last).is_some_and(|shape| *shape.bytes == *names) {
            return Some(self.last);
        }
        self.known.by_bytes.get(names).copied()
    }

    #[cold]
    fn take_up(&mut self, names: &[u8]) -> Option<usize> {
        if !self.has_room(names) {
            return None;
        }
        let shape = Shape::new(names, &self.primary_key, self.seed).ok()?;
        let known = Arc::make_mut(&mut self.known);
        let number = known.shapes.len();
        known.shapes.push(Arc::new(shape));
        known.by_bytes.insert(names.into(), number);
        known.bytes = known.bytes.saturating_add(names.len());
        Some(number)
    }

    /// Whether a shape with these names could be taken up.
    pub(crate) fn has_room(&self, names: &[u8]) -> bool {
        let bytes = self.known.bytes.saturating_add(names.len());
        self.known.shapes.len() < SHAPES_MAX && bytes <= SHAPE_BYTES_MAX
    }

    /// A valid row taken apart. Its shape has no number where it was not taken up.
    #[inline]
    fn apart<'r>(&self, row: &'r [u8]) -> Parts<'r> {
        if let Some(shape) = self.get(self.last)
            && let Some((names, values)) = row.split_at_checked(shape.bytes.len())
            && *names == *shape.bytes
        {
            return Parts { number: Some(self.last), names, values };
        }
        let (names, values) = row.split_at_checked(values_at(row)).unwrap_or_default();
        Parts { number: self.find(names), names, values }
    }

    /// Takes a valid row apart. A shape that is new is taken up.
    #[inline]
    pub(crate) fn take_apart<'r>(&mut self, row: &'r [u8]) -> Parts<'r> {
        let mut parts = self.apart(row);
        parts.number = parts.number.or_else(|| self.take_up(parts.names));
        self.last = parts.number.unwrap_or(self.last);
        parts
    }

    /// Calls `put` with what a table holds of a valid row.
    pub(crate) fn store<R>(&mut self, parts: &Parts<'_>, put: impl FnOnce(&Shapes, &[u8], Summary) -> R) -> R {
        self.store_counted(parts, |shapes, stored| put(shapes, stored, shapes.summary_of(parts)))
    }

    /// The same, not counted.
    pub(crate) fn store_counted<R>(&mut self, parts: &Parts<'_>, put: impl FnOnce(&Shapes, &[u8]) -> R) -> R {
        let mut stored = std::mem::take(&mut self.scratch);
        stored.clear();
        parts.append_to(&mut stored);
        let outcome = put(self, &stored);
        if stored.capacity() <= SCRATCH_BYTES_MAX {
            self.scratch = stored;
        }
        outcome
    }

    /// Fills `stored` with what the table is to hold of a valid row, and gives the number of the row's shape; `None`
    /// where that would have to be taken up first.
    pub(crate) fn prepare(&self, row: &[u8], stored: &mut Vec<u8>) -> Option<(Option<usize>, Summary)> {
        let parts = self.apart(row);
        if parts.number.is_none() && self.has_room(parts.names) {
            return None;
        }
        stored.clear();
        parts.append_to(stored);
        Some((parts.number, self.summary_of(&parts)))
    }

    /// A row that was [prepared](Self::prepare) had the shape of this number.
    pub(crate) fn had(&mut self, number: Option<usize>) {
        self.last = number.unwrap_or(self.last);
    }

    /// The key of a valid row, and which field it is: where the row has the names of the last one, and a key.
    #[inline]
    pub(crate) fn key_like_the_last<'r>(&self, row: &'r [u8]) -> Option<(KeyIn<'r>, usize)> {
        let shape = self.get(self.last)?;
        let mut values = Reader::new(row.strip_prefix(&*shape.bytes)?);
        for _ in 0..shape.key_field {
            skip(&mut values, 1).ok()?;
        }
        let lead = Lead::read(&mut values).ok()?;
        key_after(lead, &mut values, shape.key_field, 0).ok().map(|key| (key, shape.key_field))
    }

    /// What a table holds, taken apart.
    #[inline]
    pub(crate) fn parts<'a>(&'a self, stored: &'a [u8]) -> Parts<'a> {
        let mut reader = Reader::new(stored);
        let number = reader.u64().ok().and_then(|n| usize::try_from(n).ok());
        let rest = stored.get(reader.pos()..).unwrap_or_default();
        match number {
            Some(0) => {
                let (names, values) = rest.split_at_checked(values_at(rest)).unwrap_or_default();
                Parts { number: None, names, values }
            }
            Some(number) => {
                let number = number.saturating_sub(1);
                let names = self.get(number).map_or(&[][..], |shape| &shape.bytes);
                Parts { number: Some(number), names, values: rest }
            }
            None => unreachable!("what a table holds of a row begins with the number of its shape"),
        }
    }

    /// What a table holds, to be read.
    #[inline]
    pub(crate) fn row<'a>(&'a self, stored: &'a [u8]) -> RowRef<'a> {
        let mut reader = Reader::new(stored);
        let number = reader.u64().ok().and_then(|n| usize::try_from(n).ok());
        let rest = stored.get(reader.pos()..).unwrap_or_default();
        match number.and_then(|n| n.checked_sub(1)).and_then(|n| self.get(n)) {
            Some(shape) => RowRef::Shaped { shape, values: rest },
            None => RowRef::Whole(rest),
        }
    }

    /// Takes a copy of what a table holds.
    pub(crate) fn copy(&self, stored: &[u8], copy: &mut RowCopy) {
        let parts = self.parts(stored);
        let shape = parts.number.and_then(|number| self.known.shapes.get(number));
        copy.bytes.clear();
        copy.is_whole = shape.is_none();
        match shape {
            // Most often it is the one that the last row had: then nothing is counted that other threads count, too.
            Some(shape) if copy.shape.as_ref().is_some_and(|last| Arc::ptr_eq(last, shape)) => {}
            Some(shape) => copy.shape = Some(shape.clone()),
            None => copy.bytes.extend_from_slice(parts.names),
        }
        copy.bytes.extend_from_slice(parts.values);
    }

    /// How the table counts what it holds.
    #[inline]
    pub(crate) fn summary(&self, stored: &[u8]) -> Summary {
        self.summary_of(&self.parts(stored))
    }

    #[inline]
    pub(crate) fn summary_of(&self, parts: &Parts<'_>) -> Summary {
        let seed = match parts.number.and_then(|number| self.get(number)) {
            Some(shape) => shape.seed,
            None => xxh3_64_with_seed(parts.names, self.seed),
        };
        Summary { hash: xxh3_128_with_seed(parts.values, seed), bytes: parts.values.len() as u64 }
    }
}

/// A row copied out of its table.
#[derive(Debug)]
pub(crate) struct RowCopy {
    shape: Option<Arc<Shape>>,
    is_whole: bool,
    bytes: Vec<u8>,
}

impl Default for RowCopy {
    fn default() -> RowCopy {
        RowCopy::new()
    }
}

impl RowCopy {
    pub(crate) const fn new() -> RowCopy {
        RowCopy { shape: None, is_whole: true, bytes: Vec::new() }
    }

    #[inline]
    pub(crate) fn row(&self) -> RowRef<'_> {
        match &self.shape {
            Some(shape) if !self.is_whole => RowRef::Shaped { shape, values: &self.bytes },
            _ => RowRef::Whole(&self.bytes),
        }
    }

    /// Bytes that it takes, but for the shape.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Parts<'_> {
    /// Bytes that [`Parts::append_to`] appends.
    #[inline]
    pub(crate) fn stored_len(&self) -> usize {
        let before = match self.number {
            Some(number) => u64_len(number.saturating_add(1) as u64),
            None => self.names.len().saturating_add(1),
        };
        before.saturating_add(self.values.len())
    }

    /// What a table holds: the number of the shape, counted from 1, and the values; or 0, the names and the values.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match self.number {
            Some(number) => put_u64(out, number.saturating_add(1) as u64),
            None => {
                out.push(0);
                out.extend_from_slice(self.names);
            }
        }
        out.extend_from_slice(self.values);
    }
}

/// Where the names of a valid row end.
fn values_at(row: &[u8]) -> usize {
    super::split(row).map_or(row.len(), |(names, _)| names.len())
}

#[cfg(test)]
mod tests {
    use super::super::zoo::random_record;
    use super::super::{decode_record, encode_record, split};
    use super::*;
    use crate::{Record, record};

    fn row(record: &Record) -> Vec<u8> {
        let mut row = Vec::new();
        encode_record(record, &mut row).unwrap();
        row
    }

    fn stored(shapes: &mut Shapes, record: &Record) -> (Vec<u8>, Summary) {
        let row = row(record);
        let parts = shapes.take_apart(&row);
        let (names, values) = split(&row).unwrap();
        assert_eq!((parts.names, parts.values, parts.number), (names, values, shapes.number(names)));
        shapes.store(&parts, |_, stored, summary| (stored.to_vec(), summary))
    }

    #[test]
    fn what_a_table_holds_of_a_row_is_the_row() {
        let mut shapes = Shapes::new(1, "id");
        let records: Vec<Record> = (0..300).map(random_record).collect();
        let held: Vec<_> = records.iter().map(|record| stored(&mut shapes, record)).collect();
        for (record, (bytes, summary)) in records.iter().zip(&held) {
            assert_eq!(decode_record(shapes.row(bytes)).as_ref(), Ok(record));
            assert_eq!(shapes.summary(bytes), *summary);
            let parts = shapes.parts(bytes);
            assert_eq!(parts.stored_len(), bytes.len());
            assert_eq!([parts.names, parts.values].concat(), row(record));
        }
    }

    #[test]
    fn rows_of_one_shape_hold_their_names_once() {
        let mut shapes = Shapes::new(1, "id");
        let name = "a name of quite some length";
        for id in 0..10 {
            let (bytes, _) = stored(&mut shapes, &Record::from([(name, id)]));
            assert_eq!(bytes.len(), 2, "its shape, a small integer");
        }
        assert_eq!(shapes.get(0).unwrap().names(), [name.into()]);
        assert!(shapes.get(1).is_none());
    }

    #[test]
    fn beyond_the_most_shapes_rows_keep_their_names_and_count_the_same() {
        let mut full = Shapes::new(7, "id");
        for n in 0..SHAPES_MAX {
            stored(&mut full, &Record::from([(format!("f{n}"), n as i64)]));
        }
        let record = record! { "one": 1, "more": "x" };
        let (own, summary) = stored(&mut full, &record);
        assert_eq!(own.first(), Some(&0));
        assert!(full.get(SHAPES_MAX).is_none());
        assert_eq!(decode_record(full.row(&own)), Ok(record.clone()));
        let mut empty = Shapes::new(7, "id");
        assert_eq!(stored(&mut empty, &record).1, summary, "the digest knows nothing of shapes");
        let (shared, _) = stored(&mut empty, &record);
        assert_eq!((full.summary(&own), empty.summary(&shared)), (summary, summary));
        // What was there before is found still.
        let (old, _) = stored(&mut full, &Record::from([("f17", 1)]));
        assert_ne!(old.first(), Some(&0));
    }

    #[test]
    fn rows_that_differ_in_a_name_a_value_or_their_table_differ_in_their_hash() {
        let hash = |seed, record: Record| stored(&mut Shapes::new(seed, "id"), &record).1.hash;
        let hashes = [
            hash(1, record! { "a": 1, "b": 2 }),
            hash(1, record! { "a": 2, "b": 1 }),
            hash(1, record! { "b": 1, "a": 2 }),
            hash(1, record! { "a": 1, "c": 2 }),
            hash(2, record! { "a": 1, "b": 2 }),
        ];
        for (i, one) in hashes.iter().enumerate() {
            assert!(hashes.iter().skip(i + 1).all(|other| other != one), "{i}");
        }
    }
}
