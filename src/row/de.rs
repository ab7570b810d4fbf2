//! From the values of a row to anything that serde can deserialize, by the conventions of `serde_json`: see
//! [`super::ser`], the other way round.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::lead::{bool_value, is_float, other_int, short_list, short_text, small_int};
use super::{Lead, deeper, skip};
use crate::wire::{Malformed, Reader};

/// Why a row cannot become a value of the type asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecodeError(String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

impl Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        DecodeError(message.to_string())
    }
}

impl From<Malformed> for DecodeError {
    #[cold]
    fn from(malformed: Malformed) -> Self {
        DecodeError(malformed.to_string())
    }
}

pub(super) type Result<T> = std::result::Result<T, DecodeError>;

/// Reads one value inside `depth` containers.
pub(super) struct ValueIn<'r, 'de> {
    pub(super) reader: &'r mut Reader<'de>,
    pub(super) depth: usize,
}

impl<'r, 'de> ValueIn<'r, 'de> {
    /// So many values of a list, or fields of a dict.
    fn items(self, left: usize) -> Result<Items<'r, 'de>> {
        let depth = deeper(self.reader, self.depth)?;
        Ok(Items { reader: self.reader, depth, left })
    }

    #[inline]
    fn list<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value> {
        let mut items = self.items(count)?;
        let outcome = visitor.visit_seq(&mut items);
        items.finish(outcome, "fewer values in the list")
    }
}

/// What is asked for is most often what comes next; where it is not, the visitor has its own word on it.
macro_rules! expected {
    ($($method:ident)* => |$this:ident, $visitor:ident| $visit:expr) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>($this: Self, $visitor: V) -> Result<V::Value> {
            $visit
        }
    )*};
}

impl<'de> Deserializer<'de> for ValueIn<'_, 'de> {
    type Error = DecodeError;

    expected! {
        deserialize_str deserialize_string => |self, visitor| match short_text(self.reader) {
            Some(len) => visitor.visit_borrowed_str(self.reader.text(len)?),
            None => self.deserialize_any(visitor),
        }
    }

    expected! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 => |self, visitor| match small_int(self.reader) {
            Some(number) => visitor.visit_i64(number),
            None => match other_int(self.reader)? {
                Some(number) => visitor.visit_i64(number),
                None => self.deserialize_any(visitor),
            }
        }
    }

    expected! {
        deserialize_bool => |self, visitor| match bool_value(self.reader) {
            Some(value) => visitor.visit_bool(value),
            None => self.deserialize_any(visitor),
        }
    }

    expected! {
        deserialize_seq => |self, visitor| match short_list(self.reader) {
            Some(count) => self.list(count, visitor),
            None => self.deserialize_any(visitor),
        }
    }

    expected! {
        deserialize_f32 deserialize_f64 => |self, visitor| match is_float(self.reader) {
            true => visitor.visit_f64(self.reader.f64()?),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match Lead::read(self.reader)? {
            Lead::Null => visitor.visit_unit(),
            Lead::Bool(b) => visitor.visit_bool(b),
            Lead::Int(number) => visitor.visit_i64(number),
            Lead::UInt(number) => visitor.visit_u64(number),
            Lead::Float(number) => visitor.visit_f64(number),
            Lead::Str(len) => visitor.visit_borrowed_str(self.reader.text(len)?),
            Lead::List(count) => self.list(count, visitor),
            Lead::Dict(count) => {
                let mut items = self.items(count)?;
                let outcome = visitor.visit_map(&mut items);
                items.finish(outcome, "fewer fields in the dict")
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let mut ahead = self.reader.clone();
        if matches!(Lead::read(&mut ahead)?, Lead::Null) {
            *self.reader = ahead;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match Lead::read(self.reader)? {
            Lead::Str(len) => visitor.visit_enum(self.reader.text(len)?.into_deserializer()),
            Lead::Dict(count) => {
                let items = self.items(count)?;
                if items.left != 1 {
                    return Err(Error::invalid_value(Unexpected::Map, &"a dict of one field, the variant"));
                }
                visitor.visit_enum(items)
            }
            Lead::Null => Err(Error::invalid_type(Unexpected::Unit, &"the name of a variant, or a dict of it")),
            other => {
                let found = Unexpected::Other(other.tag().name());
                Err(Error::invalid_type(found, &"the name of a variant, or a dict of it"))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        skip(self.reader, self.depth)?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier
    }
}

/// What a list or dict has left.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    depth: usize,
    left: usize,
}

impl<'de> Items<'_, 'de> {
    /// Whether another one follows, which is then to be read.
    fn another(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Refuses a visitor's leaving some unread, as it does where a tuple has fewer of them.
    #[inline(always)]
    fn finish<T>(&self, outcome: Result<T>, expected: &'static str) -> Result<T> {
        if outcome.is_ok() && self.left > 0 {
            return Err(self.reader.malformed(expected).into());
        }
        outcome
    }

    fn value(&mut self) -> ValueIn<'_, 'de> {
        ValueIn { reader: self.reader, depth: self.depth }
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.another() { seed.deserialize(self.value()).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if self.another() { seed.deserialize(NameIn(self.reader.str()?)).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(self.value())
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'r, 'de> EnumAccess<'de> for Items<'r, 'de> {
    type Error = DecodeError;
    type Variant = ValueIn<'r, 'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, ValueIn<'r, 'de>)> {
        let name = self.reader.str()?;
        Ok((seed.deserialize(NameIn(name))?, ValueIn { reader: self.reader, depth: self.depth }))
    }
}

impl<'de> VariantAccess<'de> for ValueIn<'_, 'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<()> {
        serde::Deserialize::deserialize(self)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _fields: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.deserialize_any(visitor)
    }
}

/// A field's name as the key of a map: text, or a number or bool written as text.
#[derive(Clone, Copy)]
pub(super) struct NameIn<'de>(pub(super) &'de str);

macro_rules! from_number {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            // JSON's numbers, as they were written by its rules; without the spaces that its reader would allow.
            let digit_last = self.0.ends_with(|c: char| c.is_ascii_digit());
            if !digit_last || !self.0.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
                return Err(Error::invalid_value(Unexpected::Str(self.0), &"a number as a field's name"));
            }
            let mut number = serde_json::Deserializer::from_str(self.0);
            let value = (&mut number).$method(visitor).map_err(DecodeError::custom)?;
            number.end().map_err(DecodeError::custom)?;
            Ok(value)
        }
    )*};
}

impl<'de> Deserializer<'de> for NameIn<'de> {
    type Error = DecodeError;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_str(self.0)
    }

    from_number! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => Err(Error::invalid_type(Unexpected::Str(other), &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let name_of_variant: serde::de::value::StrDeserializer<'de, DecodeError> = self.0.into_deserializer();
        name_of_variant.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};

    use super::super::zoo::{nested_row, on_a_small_stack, random_record};
    use super::super::{decode, decode_record, encode, encode_record, validate};
    use super::*;
    use crate::limits::DEPTH_MAX;
    use crate::{Record, Value};

    /// Encodes, compares with what `serde_json` makes of it, and decodes both ways.
    #[track_caller]
    fn round_trip<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T) {
        let mut row = Vec::new();
        encode(&value, &mut row).unwrap();
        assert_eq!(validate(&row), Ok(()));
        let json = serde_json::to_value(&value).unwrap();
        let record = decode_record(&row).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), json.to_string());
        assert_eq!(decode::<serde_json::Value>(&row).unwrap(), json);
        assert_eq!(decode::<Record>(&row).unwrap(), record);
        assert_eq!(decode::<T>(&row).unwrap(), value);
        assert_eq!(serde_json::from_value::<T>(json).unwrap(), value);
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
    struct Scalars {
        a: (i8, i16, i32, i64, i128),
        b: (u8, u16, u32, u64, u128),
        c: (f32, f64, bool, char, String),
        d: Option<i32>,
        e: Option<Option<String>>,
        f: (),
        g: std::time::Duration,
        h: Box<str>,
        i: [u8; 3],
        j: Vec<Option<bool>>,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Copy)]
    struct Unit;

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Hash, Eq, PartialOrd, Ord)]
    struct Newtype<T>(T);

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Pair(i32, String);

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Outer {
        Unit,
        Newtype(i32),
        Optional(Option<Unit>),
        Tuple(i32, String),
        Struct { a: i32, b: Vec<Outer> },
        Renamed(Newtype<Pair>),
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Internal {
        Empty,
        Point { x: f64, y: f64 },
        Nested(Box<Named>),
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "t", content = "c")]
    enum Adjacent {
        A,
        B(u8, u8),
        C { x: Option<u8> },
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(untagged)]
    enum Untagged {
        Number(i64),
        Big(u64),
        Float(f64),
        Text(String),
        Dict(BTreeMap<String, Untagged>),
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Named {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        skipped: Option<i32>,
        #[serde(flatten)]
        rest: BTreeMap<String, Untagged>,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Eq, PartialOrd, Ord, Clone, Copy)]
    enum Name {
        One,
        Two,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Maps {
        text: HashMap<String, i32>,
        signed: BTreeMap<i64, i32>,
        small: BTreeMap<u8, i32>,
        unsigned: BTreeMap<u64, i32>,
        wide: BTreeMap<i128, i32>,
        bool: BTreeMap<bool, i32>,
        char: BTreeMap<char, i32>,
        variant: BTreeMap<Name, i32>,
        newtype: BTreeMap<Newtype<u32>, i32>,
    }

    #[test]
    fn scalars_and_structs_go_as_serde_json_has_them() {
        round_trip(Scalars {
            a: (i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::from(i64::MIN)),
            b: (u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::from(u64::MAX)),
            c: (0.1, -0.5, true, 'ß', "text".to_owned()),
            d: Some(1),
            e: Some(Some("x".to_owned())),
            g: std::time::Duration::new(1, 2),
            h: "box".into(),
            i: [1, 2, 3],
            j: vec![None, Some(true)],
            ..Scalars::default()
        });
        round_trip(BTreeMap::from([("unit", ())].map(|(k, v)| (k.to_owned(), v))));
        round_trip(BTreeMap::from([("a".to_owned(), (Unit, Newtype(Pair(1, "x".to_owned()))))]));
        round_trip(Newtype(Some(Newtype(Scalars::default()))));
        round_trip(Named { name: "n".into(), skipped: None, rest: BTreeMap::new() });
    }

    #[test]
    fn enums_go_as_serde_json_has_them() {
        let all = || {
            vec![
                Outer::Unit,
                Outer::Newtype(-1),
                Outer::Optional(None),
                Outer::Tuple(1, "x".into()),
                Outer::Renamed(Newtype(Pair(2, "y".into()))),
            ]
        };
        round_trip(Outer::Struct { a: 1, b: all() });
        round_trip(Outer::Newtype(3));
        round_trip(Outer::Tuple(3, String::new()));
        round_trip(Internal::Empty);
        round_trip(Internal::Point { x: 1.0, y: -2.5 });
        let number = ("n".to_owned(), Untagged::Number(-1));
        let inner = BTreeMap::from([number, ("big".to_owned(), Untagged::Big(u64::MAX))]);
        let rest = BTreeMap::from([
            ("f".to_owned(), Untagged::Float(0.5)),
            ("s".to_owned(), Untagged::Text("s".into())),
            ("d".to_owned(), Untagged::Dict(inner)),
        ]);
        round_trip(Internal::Nested(Box::new(Named { name: "n".into(), skipped: Some(1), rest })));
        for value in [Adjacent::A, Adjacent::B(1, 2), Adjacent::C { x: None }] {
            round_trip(value);
        }
    }

    #[test]
    fn keys_that_are_some_go_as_serde_json_writes_them() {
        let map = BTreeMap::from([(Some(7), 1), (Some(8), 2)]);
        let mut row = Vec::new();
        encode(&map, &mut row).unwrap();
        let record = decode_record(&row).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), serde_json::to_string(&map).unwrap());
        assert_eq!(decode::<BTreeMap<Option<u32>, i32>>(&row).unwrap(), map);
        assert!(encode(&BTreeMap::from([(None::<u32>, 1)]), &mut row).is_err());
    }

    #[test]
    fn keys_of_maps_go_as_serde_json_has_them() {
        round_trip(Maps {
            text: HashMap::from([("k".to_owned(), 1)]),
            signed: BTreeMap::from([(i64::MIN, 1), (0, 2)]),
            small: BTreeMap::from([(255, 1)]),
            unsigned: BTreeMap::from([(u64::MAX, 1)]),
            wide: BTreeMap::from([(i128::MIN, 1)]),
            bool: BTreeMap::from([(true, 1), (false, 2)]),
            char: BTreeMap::from([('"', 1)]),
            variant: BTreeMap::from([(Name::One, 1), (Name::Two, 2)]),
            newtype: BTreeMap::from([(Newtype(7), 1)]),
        });
    }

    #[test]
    fn random_records_pass_through_serde_both_ways() {
        for seed in 0..300 {
            let record = random_record(seed);
            let mut row = Vec::new();
            encode_record(&record, &mut row).unwrap();
            let read: Record = decode(&row).unwrap();
            assert_eq!(read.to_string(), record.to_string(), "seed {seed}");
        }
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct One<T> {
        x: T,
    }

    #[track_caller]
    fn read<T: DeserializeOwned>(value: impl Into<Value>) -> Result<T> {
        let mut row = Vec::new();
        encode_record(&Record::from([("x", value)]), &mut row).unwrap();
        let ours = decode::<One<T>>(&row).map(|one| one.x);
        let json = serde_json::to_value(Record::from([("x", decode_record(&row).unwrap()["x"].clone())])).unwrap();
        assert_eq!(ours.is_ok(), serde_json::from_value::<One<T>>(json).is_ok());
        ours
    }

    #[test]
    fn numbers_go_into_every_type_that_holds_them_and_no_other() {
        assert_eq!(read::<u8>(255), Ok(255));
        assert!(read::<u8>(256).is_err() && read::<u8>(-1).is_err() && read::<i64>(u64::MAX).is_err());
        assert_eq!((read::<f64>(3), read::<f32>(0.5)), (Ok(3.0), Ok(0.5)));
        assert_eq!((read::<u128>(u64::MAX), read::<i128>(-1)), (Ok(u64::MAX.into()), Ok(-1)));
        assert!(read::<i64>(1.0).is_err() && read::<i64>("1").is_err() && read::<bool>(1).is_err());
        assert_eq!(read::<Option<i64>>(Value::Null), Ok(None));
        assert!(read::<i64>(Value::Null).is_err());
    }

    #[test]
    fn what_does_not_fit_the_type_is_an_error_as_in_serde_json() {
        assert!(read::<(i32, i32)>(vec![1, 2, 3]).is_err());
        assert!(read::<(i32, i32)>(vec![1]).is_err());
        assert!(read::<Name>("Three").is_err() && read::<Name>(1).is_err() && read::<Name>(Value::Null).is_err());
        assert!(read::<Outer>("Newtype").is_err());
        assert!(read::<Outer>(Record::new()).is_err());
        assert!(read::<Outer>(Record::from([("Newtype", 1), ("Tuple", 2)])).is_err());
        assert_eq!(read::<Name>(Record::from([("One", Value::Null)])), Ok(Name::One));
        assert_eq!(read::<Pair>(vec![Value::from(1), "x".into()]), Ok(Pair(1, "x".into())));
        assert_eq!(read::<One<i32>>(vec![1]), Ok(One { x: 1 }));
        for name in ["+1", " 1", "1 ", "01", "1.0", "", "-", "256", "x"] {
            assert!(read::<BTreeMap<u8, i32>>(Record::from([(name, 1)])).is_err(), "{name:?}");
        }
        assert_eq!(read::<serde::de::IgnoredAny>(vec![1]).map(drop), Ok(()));
        assert!(decode::<One<i32>>(&[0]).unwrap_err().to_string().contains("missing field `x`"));
    }

    #[test]
    fn a_row_100_deep_is_read_and_one_101_deep_is_not() {
        on_a_small_stack(|| {
            for row in nested_row(DEPTH_MAX) {
                assert_eq!(decode_record(&row), decode::<Record>(&row).map_err(|_| unreachable!()));
                assert_eq!(decode::<BTreeMap<String, serde::de::IgnoredAny>>(&row).map(|m| m.len()), Ok(1));
            }
            for depth in [DEPTH_MAX + 1, 100_000] {
                for row in nested_row(depth) {
                    assert!(decode_record(&row).is_err());
                    let error = decode::<Record>(&row).unwrap_err().to_string();
                    assert!(error.contains("containers no deeper than 100"), "{error}");
                    assert!(decode::<BTreeMap<String, serde::de::IgnoredAny>>(&row).is_err());
                }
            }
        });
    }
}
