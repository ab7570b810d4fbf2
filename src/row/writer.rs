//! Writes the values of a row one after the other: what the serde serializer and the JSON reader have in common.

use smallvec::SmallVec;

use super::Tag;
use super::encode_error::EncodeError;
use super::header::Header;
use super::lead;
use super::names::Names;
use crate::limits::{DEPTH_MAX, NAME_BYTES_MAX, ROW_BYTES_MAX};
use crate::wire::put_str;

/// Appends one row to a buffer.
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// Where the row starts.
    start: usize,
    /// Containers begun and not ended.
    depth: usize,
    /// Where the names of the dicts inside the row that are not ended stand in `out`, the innermost dict's last.
    names: SmallVec<[(usize, usize); 16]>,
    /// The names of the row itself.
    header: Header,
    /// A value is to come next: the row itself, or what a name or an item announced.
    due: bool,
    /// Names, values and ends did not come as they must. A `Serialize` may swallow the error of a value, or forget one:
    /// then the row is refused, whatever it says itself.
    broken: bool,
}

const BROKEN: &str = "its Serialize swallowed an error, or left out a value, a name or an end";

/// A container begun. Its count is put right when it ends: a length told beforehand is only a guess, since a `Serialize`
/// may say nothing, or something wrong.
#[must_use]
pub(super) struct Open {
    tag: Tag,
    /// Where its count was written, and how many it says.
    lead: (usize, usize),
    guess: u64,
    names_from: usize,
    depth: usize,
    count: u64,
}

impl<'o> Writer<'o> {
    /// Has `write` append a row to `out`; on an error `out` is as it was.
    pub(super) fn append<T, E: From<EncodeError>>(
        out: &'o mut Vec<u8>,
        write: impl FnOnce(&mut Writer<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let start = out.len();
        let header = Header::guess();
        let mut writer = Writer { out, start, depth: 0, names: SmallVec::new(), header, due: true, broken: false };
        let outcome = write(&mut writer).and_then(|done| match writer.bytes_written() {
            bytes if bytes > ROW_BYTES_MAX => Err(EncodeError::TooLarge(bytes).into()),
            _ if writer.broken || writer.due || writer.depth > 0 => Err(EncodeError::Custom(BROKEN.to_owned()).into()),
            _ => Ok(done),
        });
        if outcome.is_err() {
            writer.out.truncate(start);
        }
        writer.header.keep();
        outcome
    }

    fn bytes_written(&self) -> usize {
        self.out.len().saturating_sub(self.start)
    }

    /// A value comes; the row itself has to be a dict.
    #[inline]
    fn begins(&mut self, tag: Tag) -> Result<(), EncodeError> {
        if self.depth == 0 {
            return Err(EncodeError::NotADict(tag.name()));
        }
        self.value_comes();
        Ok(())
    }

    #[inline]
    pub(super) fn null(&mut self) -> Result<(), EncodeError> {
        self.begins(Tag::Null)?;
        lead::put_null(self.out);
        Ok(())
    }

    #[inline]
    pub(super) fn bool(&mut self, b: bool) -> Result<(), EncodeError> {
        self.begins(Tag::Bool)?;
        lead::put_bool(self.out, b);
        Ok(())
    }

    #[inline]
    pub(super) fn i64(&mut self, number: i64) -> Result<(), EncodeError> {
        self.begins(Tag::Int)?;
        lead::put_int(self.out, number);
        Ok(())
    }

    #[inline]
    pub(super) fn u64(&mut self, number: u64) -> Result<(), EncodeError> {
        if let Ok(number) = i64::try_from(number) {
            return self.i64(number);
        }
        self.begins(Tag::UInt)?;
        lead::put_uint(self.out, number);
        Ok(())
    }

    pub(super) fn i128(&mut self, number: i128) -> Result<(), EncodeError> {
        match (i64::try_from(number), u64::try_from(number)) {
            (Ok(number), _) => self.i64(number),
            (_, Ok(number)) => self.u64(number),
            _ => Err(EncodeError::IntOutOfRange),
        }
    }

    #[inline]
    pub(super) fn f64(&mut self, number: f64) -> Result<(), EncodeError> {
        self.begins(Tag::Float)?;
        lead::put_float(self.out, number);
        Ok(())
    }

    #[inline]
    pub(super) fn str(&mut self, text: &str) -> Result<(), EncodeError> {
        self.begins(Tag::Str)?;
        lead::put_text(self.out, text);
        Ok(())
    }

    #[inline]
    pub(super) fn begin_list(&mut self, len: Option<usize>) -> Result<Open, EncodeError> {
        self.begin(Tag::List, len)
    }

    #[inline]
    pub(super) fn begin_dict(&mut self, len: Option<usize>) -> Result<Open, EncodeError> {
        if self.depth > 0 {
            return self.begin(Tag::Dict, len);
        }
        self.value_comes();
        self.depth = 1;
        self.header.begin(self.out);
        Ok(Open { tag: Tag::Dict, lead: (0, 0), guess: 0, names_from: 0, depth: 1, count: 0 })
    }

    #[inline]
    fn value_comes(&mut self) {
        self.broken |= !self.due;
        self.due = false;
    }

    #[inline]
    fn value_is_due(&mut self) {
        self.broken |= self.due;
        self.due = true;
    }

    /// A container ends, which is to be the innermost one.
    #[inline]
    fn ends(&mut self, container: &Open) {
        self.broken |= self.due || self.depth != container.depth;
        self.depth = self.depth.saturating_sub(1);
    }

    #[inline]
    fn begin(&mut self, tag: Tag, len: Option<usize>) -> Result<Open, EncodeError> {
        if self.depth >= DEPTH_MAX {
            return Err(EncodeError::TooDeep);
        }
        self.begins(tag)?;
        self.depth = self.depth.saturating_add(1);
        let (from, guess) = (self.out.len(), len.unwrap_or(0) as u64);
        put_count(self.out, tag, guess);
        let lead = (from, self.out.len());
        Ok(Open { tag, lead, guess, names_from: self.names.len(), depth: self.depth, count: 0 })
    }

    /// A value of the list follows.
    #[inline]
    pub(super) fn item(&mut self, list: &mut Open) {
        self.value_is_due();
        list.count = list.count.saturating_add(1);
    }

    /// The name of a field, whose value follows.
    #[inline]
    pub(super) fn name(&mut self, dict: &mut Open, name: &str) -> Result<(), EncodeError> {
        if name.len() > NAME_BYTES_MAX {
            return Err(EncodeError::NameTooLong);
        }
        self.value_is_due();
        if dict.depth == 1 {
            self.header.name(name);
            return Ok(());
        }
        dict.count = dict.count.saturating_add(1);
        put_str(self.out, name);
        let end = self.out.len();
        self.names.push((end.saturating_sub(name.len()), end));
        Ok(())
    }

    /// The name of a field of a struct, whose value follows.
    #[inline]
    pub(super) fn static_name(&mut self, dict: &mut Open, name: &'static str) -> Result<(), EncodeError> {
        if dict.depth == 1 && self.header.is_next(name) {
            self.value_is_due();
            return Ok(());
        }
        self.other_static_name(dict, name)
    }

    #[cold]
    fn other_static_name(&mut self, dict: &mut Open, name: &'static str) -> Result<(), EncodeError> {
        if dict.depth != 1 || name.len() > NAME_BYTES_MAX {
            return self.name(dict, name);
        }
        self.value_is_due();
        self.header.static_name(name);
        Ok(())
    }

    #[inline]
    pub(super) fn end_list(&mut self, list: Open) {
        self.ends(&list);
        self.put_count(&list);
    }

    #[inline]
    pub(super) fn end_dict(&mut self, dict: Open) -> Result<(), EncodeError> {
        if dict.depth == 1 {
            self.header.end(self.out, self.start)?;
            self.ends(&dict);
            return Ok(());
        }
        // Before the count is put right, which may move the names.
        self.check_names(&dict)?;
        self.names.truncate(dict.names_from);
        self.ends(&dict);
        self.put_count(&dict);
        Ok(())
    }

    fn check_names(&self, dict: &Open) -> Result<(), EncodeError> {
        let mut names = Names::new();
        for &(from, to) in self.names.get(dict.names_from..).unwrap_or_default() {
            let name = self.out.get(from..to).unwrap_or_default();
            if !names.insert(name) {
                return Err(duplicate(name));
            }
        }
        Ok(())
    }

    #[inline]
    fn put_count(&mut self, open: &Open) {
        if open.count != open.guess {
            self.put_other_count(open);
        }
    }

    #[cold]
    fn put_other_count(&mut self, open: &Open) {
        let mut count = Vec::with_capacity(11);
        put_count(&mut count, open.tag, open.count);
        let (from, to) = open.lead;
        self.out.splice(from..to, count);
    }
}

#[inline]
fn put_count(out: &mut Vec<u8>, tag: Tag, count: u64) {
    if tag == Tag::List { lead::put_list(out, count) } else { lead::put_dict(out, count) }
}

pub(super) fn duplicate(name: &[u8]) -> EncodeError {
    EncodeError::DuplicateField(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::ser::{SerializeMap, SerializeSeq, Serializer};

    use super::super::zoo::{by_the_book, nested_records, on_a_small_stack, random_record};
    use super::super::{decode_record, encode, encode_record, validate};
    use super::*;
    use crate::{Record, Value};

    #[test]
    fn a_row_is_what_the_spec_says_and_is_read_back() {
        for seed in 0..500 {
            let record = random_record(seed);
            let mut row = b"before".to_vec();
            encode_record(&record, &mut row).unwrap();
            let row = row.strip_prefix(b"before").unwrap();
            let names: Vec<_> = record.keys().collect();
            let mut want = postcard::to_stdvec(&names).unwrap();
            want.extend(record.values().flat_map(by_the_book));
            assert_eq!(row, want, "seed {seed}");
            assert_eq!(validate(row), Ok(()), "seed {seed}");
            let read = decode_record(row).unwrap();
            assert_eq!(read, record, "seed {seed}");
            assert_eq!(read.to_string(), record.to_string(), "seed {seed}: order");
        }
    }

    /// A struct whose fields have these names.
    struct Named(&'static [&'static str]);

    impl Serialize for Named {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeStruct;
            let mut fields = serializer.serialize_struct("Named", self.0.len())?;
            self.0.iter().try_for_each(|name| fields.serialize_field(name, &1))?;
            fields.end()
        }
    }

    /// Makes calls in an order drawn at random, and swallows every error but a few.
    struct Sloppy(std::cell::RefCell<fastrand::Rng>, usize);

    impl Serialize for Sloppy {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeStruct;
            let draw = |n: u8| self.0.borrow_mut().u8(0..n);
            let inner = Sloppy(std::cell::RefCell::new(self.0.borrow_mut().fork()), self.1.saturating_add(1));
            let kind = if self.1 > 3 { self.0.borrow_mut().u8(3..6) } else { draw(6) };
            match kind {
                0 if self.1 > 0 => {
                    let mut seq = serializer.serialize_seq(None)?;
                    for _ in 0..draw(4) {
                        let _ = seq.serialize_element(&inner);
                    }
                    seq.end()
                }
                0 | 1 => {
                    let mut map = serializer.serialize_map(None)?;
                    for n in 0..draw(5) {
                        match draw(10) {
                            0 => _ = map.serialize_value(&1),
                            1 => _ = map.serialize_key(&n),
                            2 => _ = map.serialize_entry(&n, &u128::MAX),
                            3 => _ = map.serialize_key(&[1]),
                            _ => _ = map.serialize_entry(&n, &inner),
                        }
                    }
                    map.end()
                }
                2 => {
                    let mut fields = serializer.serialize_struct("S", 2)?;
                    for name in ["a", "b", "a"].iter().take(draw(4).into()) {
                        let _ = fields.serialize_field(name, &inner);
                    }
                    fields.end()
                }
                3 => serializer.serialize_i128(i128::MIN),
                4 => Err(serde::ser::Error::custom("no")),
                _ => serializer.serialize_str("text"),
            }
        }
    }

    #[test]
    fn a_serialize_that_swallows_errors_or_forgets_calls_never_makes_a_malformed_row() {
        let (mut made, mut refused) = (0, 0);
        for seed in 0..50_000 {
            let mut row = Vec::new();
            let sloppy = Sloppy(std::cell::RefCell::new(fastrand::Rng::with_seed(seed)), 0);
            match encode(&sloppy, &mut row) {
                Ok(()) => {
                    assert_eq!(validate(&row), Ok(()), "seed {seed}");
                    made += 1;
                }
                Err(_) => {
                    assert!(row.is_empty(), "seed {seed}");
                    refused += 1;
                }
            }
        }
        assert!(made > 1_000 && refused > 1_000, "{made} made, {refused} refused");
    }

    #[test]
    fn a_struct_with_a_field_twice_is_refused_whatever_structs_came_before() {
        let (good, longer, twice) = (Named(&["a", "b"]), Named(&["a", "b", "c"]), Named(&["a", "b", "a"]));
        for before in [&good, &longer, &twice, &Named(&[])] {
            for _ in 0..3 {
                let _ = encode(before, &mut Vec::new());
                let mut out = Vec::new();
                assert_eq!(encode(&twice, &mut out), Err(EncodeError::DuplicateField("a".to_owned())));
                assert!(out.is_empty());
                encode(&good, &mut out).unwrap();
                encode(&longer, &mut out).unwrap();
            }
        }
    }

    #[test]
    fn a_float_keeps_its_bits() {
        for bits in [f64::NAN.to_bits(), 0x7ff0_0000_0000_0001, 0xfff8_dead_beef_0001, (-0.0_f64).to_bits(), 1] {
            let mut row = Vec::new();
            encode_record(&Record::from([("x", f64::from_bits(bits))]), &mut row).unwrap();
            assert_eq!(decode_record(&row).unwrap()["x"].as_f64().unwrap().to_bits(), bits);
        }
    }

    #[test]
    fn an_unsigned_integer_that_fits_is_written_as_an_int() {
        let mut row = Vec::new();
        encode_record(&Record::from([("x", Value::UInt(7))]), &mut row).unwrap();
        assert_eq!(row, [1, 1, b'x', 0x87]);
    }

    /// A map and a list that announce a length, or none, and have another.
    struct Announced {
        len: Option<usize>,
        real: u32,
    }

    impl Serialize for Announced {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            struct List<'a>(&'a Announced);
            impl Serialize for List<'_> {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    let mut seq = serializer.serialize_seq(self.0.len)?;
                    (0..self.0.real).try_for_each(|i| seq.serialize_element(&i))?;
                    seq.end()
                }
            }
            let mut map = serializer.serialize_map(self.len)?;
            map.serialize_entry("list", &List(self))?;
            (0..self.real).try_for_each(|i| map.serialize_entry(&i, &List(self)))?;
            map.end()
        }
    }

    #[test]
    fn a_count_is_right_whatever_was_announced() {
        for real in [0, 1, 127, 128, 300] {
            let mut rows = Vec::new();
            for len in [None, Some(0), Some(1), Some(127), Some(128), Some(20_000), Some(usize::MAX)] {
                let mut row = Vec::new();
                encode(&Announced { len, real }, &mut row).unwrap();
                assert_eq!(validate(&row), Ok(()), "{len:?} for {real}");
                rows.push(row);
            }
            rows.dedup();
            assert_eq!(rows.len(), 1, "{real}");
        }
    }

    #[test]
    fn what_cannot_be_a_record_is_refused_and_leaves_the_buffer_as_it_was() {
        use EncodeError::*;
        struct Twice(u32);
        impl Serialize for Twice {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map((0..self.0).map(|i| (i.to_string(), i)).chain([("0".to_owned(), 1)]))
            }
        }
        fn refused<T: Serialize>(value: T) -> EncodeError {
            let mut out = vec![1, 2, 3];
            let error = encode(&value, &mut out).unwrap_err();
            assert_eq!(out, [1, 2, 3]);
            assert!(!error.to_string().is_empty());
            error
        }
        use std::collections::BTreeMap as Map;
        for count in [1, 15, 16, 17, 200] {
            assert_eq!(refused(Twice(count)), DuplicateField("0".to_owned()));
            assert_eq!(refused(Map::from([("a", [Twice(count)])])), DuplicateField("0".to_owned()));
        }
        assert_eq!(refused(7), NotADict("int"));
        assert_eq!(refused("x"), NotADict("str"));
        assert_eq!(refused([1]), NotADict("list"));
        assert_eq!(refused(()), NotADict("null"));
        assert_eq!(refused(None::<Record>), NotADict("null"));
        assert_eq!(refused(Map::from([("a", u128::MAX)])), IntOutOfRange);
        assert_eq!(refused(Map::from([("a", i128::MIN)])), IntOutOfRange);
        assert_eq!(refused(Map::from([("a", Map::from([((1, 2), 3)]))])), KeyNotString);
        assert_eq!(refused(Map::from([("x".repeat(NAME_BYTES_MAX + 1), 1)])), NameTooLong);
        assert!(encode(&Map::from([("x".repeat(NAME_BYTES_MAX), 1)]), &mut Vec::new()).is_ok());
    }

    #[test]
    fn a_row_of_the_most_bytes_is_written_and_one_byte_more_refused() {
        // The count, a name of one byte with its length, the tag, and the length of the text.
        let around = 1 + 2 + 1 + 4;
        let mut record = Record::from([("a", "x".repeat(ROW_BYTES_MAX - around))]);
        let mut row = Vec::new();
        encode_record(&record, &mut row).unwrap();
        assert_eq!((row.len(), validate(&row)), (ROW_BYTES_MAX, Ok(())));
        if let Some(Value::Str(text)) = record.get_mut("a") {
            text.push('x');
        }
        row.clear();
        assert_eq!(encode_record(&record, &mut row), Err(EncodeError::TooLarge(ROW_BYTES_MAX + 1)));
        assert!(row.is_empty());
    }

    #[test]
    fn containers_may_be_100_deep_and_not_101() {
        on_a_small_stack(|| {
            for depth in [DEPTH_MAX - 1, DEPTH_MAX] {
                for record in nested_records(depth) {
                    let mut row = Vec::new();
                    encode_record(&record, &mut row).unwrap();
                    assert_eq!(decode_record(&row), Ok(record));
                }
            }
            for record in nested_records(DEPTH_MAX + 1) {
                assert_eq!(encode_record(&record, &mut Vec::new()), Err(EncodeError::TooDeep));
            }
        });
    }
}
