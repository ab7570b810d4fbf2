//! Serde both ways, so that any format can carry a value, and `serde_json::to_value` and `from_value` work.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::{Record, Value};
use crate::row;

impl Serialize for Value {
    /// With `serde_json` a non-finite float becomes null.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Int(n) => serializer.serialize_i64(*n),
            Value::UInt(n) => serializer.serialize_u64(*n),
            Value::Float(x) => serializer.serialize_f64(*x),
            Value::Str(s) => serializer.serialize_str(s),
            Value::List(values) => serializer.collect_seq(values),
            Value::Dict(fields) => fields.serialize(serializer),
        }
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for Record {
    /// Refuses a dict that has a field twice.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Record, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dict")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let mut record = Record::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if record.contains_key(&name) {
                return Err(A::Error::custom(format_args!("field {name:?} occurs twice")));
            }
            if let Some(why) = row::hidden_number(&name) {
                return Err(A::Error::custom(why));
            }
            record.insert(name, value);
        }
        Ok(record)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a bool, a number, text, a list or a dict")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(b.into())
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_i128<E: Error>(self, n: i128) -> Result<Value, E> {
        match (i64::try_from(n), u64::try_from(n)) {
            (Ok(n), _) => Ok(Value::Int(n)),
            (_, Ok(n)) => Ok(Value::UInt(n)),
            _ => Err(E::custom(format_args!("{n} does not fit 64 bits"))),
        }
    }

    fn visit_u128<E: Error>(self, n: u128) -> Result<Value, E> {
        match u64::try_from(n) {
            Ok(n) => Ok(n.into()),
            Err(_) => Err(E::custom(format_args!("{n} does not fit 64 bits"))),
        }
    }

    fn visit_f64<E>(self, x: f64) -> Result<Value, E> {
        Ok(x.into())
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(s.into())
    }

    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(s.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        RecordVisitor.visit_map(map).map(Value::Dict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;

    #[test]
    fn json_text_round_trips_in_order() {
        let text = r#"{"b":[1,-1,18446744073709551615,1.5,null],"a":{"y":"s","x":true}}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        let value = serde_json::to_value(&record).unwrap();
        assert_eq!(serde_json::from_value::<Value>(value.clone()).unwrap(), Value::Dict(record.clone()));
        assert_eq!(Record::try_from(value), Ok(record));
        assert!(serde_json::to_value(Value::from(f64::NAN)).unwrap().is_null());
    }

    #[test]
    fn a_field_twice_is_refused_at_every_level() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"b":2,"a":3}]}"#] {
            let error = serde_json::from_str::<Record>(text).unwrap_err().to_string();
            assert!(error.starts_with("field \"a\" occurs twice"), "{error}");
        }
        assert!(serde_json::from_str::<Record>("[1]").unwrap_err().to_string().contains("expected a dict"));
        assert_eq!(serde_json::from_str::<Record>("{}").unwrap(), record! {});
    }
}
