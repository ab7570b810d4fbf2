//! From anything that serde can serialize straight to row bytes. What becomes what is as in `serde_json`: `None` and
//! units are null, a unit variant is its name, any other variant a dict of its name alone, bytes a list of integers,
//! the keys of a map are text or what JSON writes as text.

use std::fmt;

use serde::ser::{
    Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::encode_error::EncodeError;
use super::hidden;
use super::writer::{Open, Writer};
use crate::Record;

type Result<T> = std::result::Result<T, EncodeError>;

/// Appends the record's row to `out`, which is left as it was on an error.
pub(crate) fn encode_record(record: &Record, out: &mut Vec<u8>) -> Result<()> {
    encode(record, out)
}

/// Appends the row of a struct or map to `out`, which is left as it was on an error.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    Writer::append(out, |writer| value.serialize(ValueOut(writer)))
}

/// Writes one value.
struct ValueOut<'w, 'o>(&'w mut Writer<'o>);

impl<'w, 'o> ValueOut<'w, 'o> {
    /// Begins the dict of a variant, whose name is its one field.
    fn variant(&mut self, name: &str) -> Result<Open> {
        let mut dict = self.0.begin_dict(Some(1))?;
        self.0.name(&mut dict, name)?;
        Ok(dict)
    }

    #[inline]
    fn list(self, len: Option<usize>, variant: Option<Open>) -> Result<ListOut<'w, 'o>> {
        let list = self.0.begin_list(len)?;
        Ok(ListOut { writer: self.0, list, variant })
    }

    #[inline]
    fn dict(self, len: Option<usize>, variant: Option<Open>) -> Result<DictOut<'w, 'o>> {
        let dict = self.0.begin_dict(len)?;
        Ok(DictOut { writer: self.0, dict, variant })
    }
}

macro_rules! integers {
    ($($method:ident $int:ty => $write:ident;)*) => {$(
        #[inline]
        fn $method(self, n: $int) -> Result<()> {
            self.0.$write(n.into())
        }
    )*};
}

impl<'w, 'o> Serializer for ValueOut<'w, 'o> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = ListOut<'w, 'o>;
    type SerializeTuple = ListOut<'w, 'o>;
    type SerializeTupleStruct = ListOut<'w, 'o>;
    type SerializeTupleVariant = ListOut<'w, 'o>;
    type SerializeMap = DictOut<'w, 'o>;
    type SerializeStruct = DictOut<'w, 'o>;
    type SerializeStructVariant = DictOut<'w, 'o>;

    integers! {
        serialize_i8 i8 => i64;
        serialize_i16 i16 => i64;
        serialize_i32 i32 => i64;
        serialize_i64 i64 => i64;
        serialize_u8 u8 => i64;
        serialize_u16 u16 => i64;
        serialize_u32 u32 => i64;
        serialize_u64 u64 => u64;
        serialize_i128 i128 => i128;
        serialize_f32 f32 => f64;
        serialize_f64 f64 => f64;
    }

    fn serialize_u128(self, n: u128) -> Result<()> {
        self.0.u64(u64::try_from(n).map_err(|_| EncodeError::IntOutOfRange)?)
    }

    #[inline]
    fn serialize_bool(self, b: bool) -> Result<()> {
        self.0.bool(b)
    }

    fn serialize_char(self, c: char) -> Result<()> {
        self.0.str(c.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result<()> {
        self.0.str(text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<()> {
        let mut list = self.list(Some(bytes.len()), None)?;
        bytes.iter().try_for_each(|byte| list.item(byte))?;
        list.finish()
    }

    fn serialize_none(self) -> Result<()> {
        self.0.null()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        self.0.null()
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<()> {
        self.0.null()
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Result<()> {
        self.0.str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        let dict = self.variant(variant)?;
        value.serialize(ValueOut(self.0))?;
        self.0.end_dict(dict)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<ListOut<'w, 'o>> {
        self.list(len, None)
    }

    fn serialize_tuple(self, len: usize) -> Result<ListOut<'w, 'o>> {
        self.list(Some(len), None)
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<ListOut<'w, 'o>> {
        self.list(Some(len), None)
    }

    fn serialize_tuple_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<ListOut<'w, 'o>> {
        let dict = self.variant(variant)?;
        self.list(Some(len), Some(dict))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<DictOut<'w, 'o>> {
        self.dict(len, None)
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<DictOut<'w, 'o>> {
        match hidden(name) {
            None => self.dict(Some(len), None),
            Some(why) => Err(EncodeError::Custom(why.to_owned())),
        }
    }

    fn serialize_struct_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<DictOut<'w, 'o>> {
        let dict = self.variant(variant)?;
        self.dict(Some(len), Some(dict))
    }
}

/// Writes the values of a list, and ends the dict of the variant that it belongs to.
struct ListOut<'w, 'o> {
    writer: &'w mut Writer<'o>,
    list: Open,
    variant: Option<Open>,
}

impl ListOut<'_, '_> {
    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.writer.item(&mut self.list);
        value.serialize(ValueOut(self.writer))
    }

    #[inline]
    fn finish(self) -> Result<()> {
        self.writer.end_list(self.list);
        self.variant.map_or(Ok(()), |dict| self.writer.end_dict(dict))
    }
}

macro_rules! list_of {
    ($($trait:ident $method:ident;)*) => {$(
        impl $trait for ListOut<'_, '_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.item(value)
            }

            #[inline]
            fn end(self) -> Result<()> {
                self.finish()
            }
        }
    )*};
}
list_of! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

/// Writes the fields of a dict, and ends the dict of the variant that it belongs to.
struct DictOut<'w, 'o> {
    writer: &'w mut Writer<'o>,
    dict: Open,
    variant: Option<Open>,
}

impl DictOut<'_, '_> {
    #[inline]
    fn finish(self) -> Result<()> {
        self.writer.end_dict(self.dict)?;
        self.variant.map_or(Ok(()), |dict| self.writer.end_dict(dict))
    }
}

impl SerializeMap for DictOut<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        key.serialize(NameOut { writer: self.writer, dict: &mut self.dict })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(ValueOut(self.writer))
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

macro_rules! dict_of {
    ($($trait:ident)*) => {$(
        impl $trait for DictOut<'_, '_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
                self.writer.static_name(&mut self.dict, name)?;
                value.serialize(ValueOut(self.writer))
            }

            #[inline]
            fn end(self) -> Result<()> {
                self.finish()
            }
        }
    )*};
}
dict_of!(SerializeStruct SerializeStructVariant);

/// Writes the key of a map as a field's name.
struct NameOut<'w, 'o> {
    writer: &'w mut Writer<'o>,
    dict: &'w mut Open,
}

macro_rules! printed {
    ($($method:ident $from:ty;)*) => {$(
        fn $method(self, key: $from) -> Result<()> {
            self.collect_str(&key)
        }
    )*};
}

macro_rules! not_a_name {
    ($($method:ident($($arg:ty),*) -> $ok:ty;)*) => {$(
        fn $method(self, $(_: $arg),*) -> Result<$ok> {
            Err(EncodeError::KeyNotString)
        }
    )*};
}

type Never = Impossible<(), EncodeError>;

impl Serializer for NameOut<'_, '_> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    #[inline]
    fn serialize_str(self, key: &str) -> Result<()> {
        self.writer.name(self.dict, key)
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Result<()> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, key: &T) -> Result<()> {
        key.serialize(self)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, key: &T) -> Result<()> {
        self.serialize_str(&key.to_string())
    }

    printed! {
        serialize_bool bool;
        serialize_char char;
        serialize_i8 i8;
        serialize_i16 i16;
        serialize_i32 i32;
        serialize_i64 i64;
        serialize_i128 i128;
        serialize_u8 u8;
        serialize_u16 u16;
        serialize_u32 u32;
        serialize_u64 u64;
        serialize_u128 u128;
    }

    fn serialize_f32(self, key: f32) -> Result<()> {
        if !key.is_finite() {
            return Err(EncodeError::KeyNotString);
        }
        self.serialize_str(&serde_json::to_string(&key).map_err(serde::ser::Error::custom)?)
    }

    fn serialize_f64(self, key: f64) -> Result<()> {
        if !key.is_finite() {
            return Err(EncodeError::KeyNotString);
        }
        self.serialize_str(&serde_json::to_string(&key).map_err(serde::ser::Error::custom)?)
    }

    not_a_name! {
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, key: &T) -> Result<()> {
        key.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<()> {
        Err(EncodeError::KeyNotString)
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode;

    #[test]
    fn a_number_that_serde_json_hides_is_refused_and_not_stored_as_a_dict() {
        #[derive(serde::Serialize)]
        #[serde(rename = "$serde_json::private::Number")]
        struct Hidden {
            digits: &'static str,
        }
        let value = std::collections::BTreeMap::from([("n", Hidden { digits: "1.5" })]);
        let refused = encode(&value, &mut Vec::new()).unwrap_err().to_string();
        assert!(refused.contains("arbitrary_precision"), "{refused}");
    }

    #[test]
    fn json_text_that_could_not_be_read_back_is_refused() {
        let text = serde_json::value::RawValue::from_string(r#"{"x":1}"#.to_owned()).unwrap();
        let value = std::collections::BTreeMap::from([("body", text)]);
        let mut row = vec![7];
        let refused = encode(&value, &mut row).unwrap_err().to_string();
        assert!(refused.contains("serde_json::Value"), "{refused}");
        assert_eq!(row, [7]);
    }
}
