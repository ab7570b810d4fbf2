//! From a row straight to anything that serde can deserialize: its fields, whose values [`super::de`] reads.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::de::{DecodeError, NameIn, Result, ValueIn};
use super::{Fields, RowRef};

/// The value whose row this is.
pub(crate) fn decode<'r, T: Deserialize<'r>>(row: impl Into<RowRef<'r>>) -> Result<T> {
    match row.into() {
        RowRef::Shaped { shape, values } => decode_fields(Fields::shaped(shape, values)),
        row => decode_fields(row.fields()?),
    }
}

#[inline(always)]
fn decode_fields<'r, T: Deserialize<'r>>(mut fields: Fields<'r>) -> Result<T> {
    let outcome = T::deserialize(RowIn(&mut fields));
    if outcome.is_ok()
        && let Err(malformed) = fields.values.finish()
    {
        return Err(malformed.into());
    }
    outcome
}

/// Reads a row: a dict whose names and values lie apart.
struct RowIn<'r, 'de>(&'r mut Fields<'de>);

impl<'de> Deserializer<'de> for RowIn<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let outcome = visitor.visit_map(RowItems(self.0));
        if outcome.is_ok() && self.0.left() > 0 {
            return Err(self.0.values.malformed("fewer fields in the row").into());
        }
        outcome
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
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
        if self.0.left() != 1 {
            return Err(Error::invalid_value(Unexpected::Map, &"a dict of one field, the variant"));
        }
        visitor.visit_enum(RowItems(self.0))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// What a row has left.
struct RowItems<'r, 'de>(&'r mut Fields<'de>);

impl<'de> MapAccess<'de> for RowItems<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        self.0.next()?.map(|name| seed.deserialize(NameIn(name))).transpose()
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(ValueIn { reader: &mut self.0.values, depth: 1 })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.left())
    }
}

impl<'r, 'de> EnumAccess<'de> for RowItems<'r, 'de> {
    type Error = DecodeError;
    type Variant = ValueIn<'r, 'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, ValueIn<'r, 'de>)> {
        let name = self.0.next()?.unwrap_or_default();
        Ok((seed.deserialize(NameIn(name))?, ValueIn { reader: &mut self.0.values, depth: 1 }))
    }
}
