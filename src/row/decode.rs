//! From a row straight to anything that serde can deserialize: its fields, whose values [`super::de`] reads.

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::de::{DecodeError, NameIn, Result, ValueIn};
use super::{Fields, RowRef, Shape};

/// The value whose row this is.
pub(crate) fn decode<'r, T: Deserialize<'r>>(row: impl Into<RowRef<'r>>) -> Result<T> {
    let row = row.into();
    let mut by_order = false;
    match decode_fields(row, true, &mut by_order) {
        // It may have no use for values without their names.
        Err(_) if by_order => decode_fields(row, false, &mut by_order),
        outcome => outcome,
    }
}

fn decode_fields<'r, T: Deserialize<'r>>(row: RowRef<'r>, may_be: bool, by_order: &mut bool) -> Result<T> {
    let mut fields = row.fields()?;
    let shape = match row {
        RowRef::Shaped { shape, .. } if may_be => Some(shape),
        _ => None,
    };
    let value = T::deserialize(RowIn { fields: &mut fields, shape, by_order })?;
    fields.values.finish()?;
    Ok(value)
}

/// Reads a row: a dict whose names and values lie apart.
struct RowIn<'r, 'de> {
    fields: &'r mut Fields<'de>,
    /// The row's, where a struct may be given its values in the order of the names.
    shape: Option<&'r Shape>,
    /// It was.
    by_order: &'r mut bool,
}

impl<'de> Deserializer<'de> for RowIn<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = visitor.visit_map(RowItems(self.fields))?;
        self.fields.finish(value)
    }

    /// Where the row's names are those of the struct's fields, in their order, none has to be looked up.
    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.shape {
            Some(shape) if shape.is_of(fields) => {
                *self.by_order = true;
                let value = visitor.visit_seq(RowItems(self.fields))?;
                self.fields.finish(value)
            }
            _ => self.deserialize_any(visitor),
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
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        if self.fields.left() != 1 {
            return Err(Error::invalid_value(Unexpected::Map, &"a dict of one field, the variant"));
        }
        visitor.visit_enum(RowItems(self.fields))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
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

impl<'de> SeqAccess<'de> for RowItems<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if !self.0.pass_name() {
            return Ok(None);
        }
        seed.deserialize(ValueIn { reader: &mut self.0.values, depth: 1 }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.left())
    }
}

impl Fields<'_> {
    /// Refuses a visitor's leaving some unread.
    fn finish<T>(&self, value: T) -> Result<T> {
        if self.left() == 0 { Ok(value) } else { Err(self.values.malformed("fewer fields in the row").into()) }
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

#[cfg(test)]
mod tests {
    use std::fmt;

    use serde::Deserialize;
    use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

    use super::super::{Shapes, encode_record, split};
    use super::decode;
    use crate::{Record, record};

    /// Decodes from a row as a table holds it.
    fn held<T: for<'de> Deserialize<'de>>(record: &Record) -> Result<T, String> {
        let mut row = Vec::new();
        encode_record(record, &mut row).unwrap();
        let mut shapes = Shapes::new(1, "id");
        let stored = shapes.store(split(&row).unwrap(), |_, stored, _| stored.to_vec());
        decode(shapes.row(&stored)).map_err(|error| error.to_string())
    }

    #[derive(Deserialize, PartialEq, Debug)]
    struct Point {
        x: i64,
        y: i64,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    struct Renamed {
        #[serde(rename = "y", alias = "z")]
        x: i64,
        #[serde(rename = "x", default)]
        y: i64,
    }

    #[test]
    fn a_struct_gets_each_field_by_its_name_in_whatever_order_the_record_has_them() {
        for _ in 0..2 {
            assert_eq!(held(&record! { "x": 1, "y": 2 }), Ok(Point { x: 1, y: 2 }));
            assert_eq!(held(&record! { "y": 2, "x": 1 }), Ok(Point { x: 1, y: 2 }));
            assert_eq!(held(&record! { "x": 1, "y": 2 }), Ok(Renamed { x: 2, y: 1 }));
            assert_eq!(held(&record! { "y": 2, "x": 1 }), Ok(Renamed { x: 2, y: 1 }));
            assert_eq!(held(&record! { "z": 2 }), Ok(Renamed { x: 2, y: 0 }));
            assert_eq!(held(&record! { "x": 1, "y": 2, "w": 3 }), Ok(Point { x: 1, y: 2 }));
        }
        assert!(held::<Renamed>(&record! { "y": 1, "z": 2, "x": 3 }).unwrap_err().contains("duplicate field"));
        assert!(held::<Point>(&record! { "x": 1 }).unwrap_err().contains("missing field `y`"));
        assert!(held::<Point>(&record! { "x": 1, "y": "2" }).unwrap_err().contains("string"));
    }

    /// Counts the fields it is given, which it wants as a map.
    #[derive(PartialEq, Debug)]
    struct MapOnly(usize);

    impl<'de> Deserialize<'de> for MapOnly {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MapOnly, D::Error> {
            struct Count;
            impl<'de> Visitor<'de> for Count {
                type Value = MapOnly;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a map")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MapOnly, A::Error> {
                    let mut count = 0_usize;
                    while map.next_entry::<String, IgnoredAny>()?.is_some() {
                        count = count.saturating_add(1);
                    }
                    Ok(MapOnly(count))
                }
            }
            deserializer.deserialize_struct("MapOnly", &["x", "y"], Count)
        }
    }

    #[test]
    fn a_type_that_takes_nothing_but_a_map_gets_one() {
        for _ in 0..2 {
            assert_eq!(held(&record! { "x": 1, "y": 2 }), Ok(MapOnly(2)));
        }
    }
}
