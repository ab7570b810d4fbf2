//! The record: named values in order.

use std::fmt;
use std::ops::Index;

use indexmap::{IndexMap, map};

use super::{Value, write_quoted};

/// Named values in the order they were put in: the unit that a table stores.
///
/// Two records are equal if they have the same fields with equal values, **whatever the order of the fields**, as for
/// Python's `dict`. The order is kept all the same, through storage and backups.
///
/// ```
/// use dictdb::record;
/// let mut user = record! { "id": 1, "name": "Ann" };
/// user.insert("age", 30);
/// assert_eq!(user["name"], "Ann");
/// assert_eq!(user.keys().collect::<Vec<_>>(), ["id", "name", "age"]);
/// assert_eq!(user, record! { "name": "Ann", "age": 30, "id": 1 });
/// assert_eq!(user.to_string(), r#"{"id": 1, "name": "Ann", "age": 30}"#);
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Record(IndexMap<String, Value>);

impl Record {
    /// No fields.
    pub fn new() -> Record {
        Record::default()
    }

    /// No fields, and room for `fields` of them.
    pub fn with_capacity(fields: usize) -> Record {
        Record(IndexMap::with_capacity(fields))
    }

    /// The field's value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The field's value, to change it in place.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.0.get_mut(name)
    }

    /// Sets a field: in its old place if there is one of that name, whose value is returned, else as the last.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.0.insert(name.into(), value.into())
    }

    /// Takes a field out; the others keep their order. Moves every field behind it.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name)
    }

    /// Whether there is a field of this name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + DoubleEndedIterator + Clone {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The fields in order, their values to be changed in place.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Value)> + DoubleEndedIterator {
        self.0.iter_mut().map(|(name, value)| (name.as_str(), value))
    }

    /// The fields' names in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + Clone {
        self.0.keys().map(String::as_str)
    }

    /// The fields' values in order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> + DoubleEndedIterator + Clone {
        self.0.values()
    }
}

impl Index<&str> for Record {
    type Output = Value;

    /// The field's value.
    ///
    /// # Panics
    /// Where there is no such field, as for the standard library's maps; [`Record::get`] does not.
    fn index(&self, name: &str) -> &Value {
        match self.0.get(name) {
            Some(value) => value,
            None => panic!("the record has no field {name:?}"),
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter()).finish()
    }
}

impl fmt::Display for Record {
    /// As JSON has it, except that a non-finite float prints as `NaN`, `inf` or `-inf`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            write_quoted(f, name)?;
            write!(f, ": {value}")?;
        }
        f.write_str("}")
    }
}

/// A record's fields in order, by value.
#[derive(Debug)]
pub struct IntoIter(map::IntoIter<String, Value>);

impl Iterator for IntoIter {
    type Item = (String, Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for IntoIter {}

impl IntoIterator for Record {
    type Item = (String, Value);
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter(self.0.into_iter())
    }
}

/// A record's fields in order, by reference.
#[derive(Debug, Clone)]
pub struct Iter<'a>(map::Iter<'a, String, Value>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_str(), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Record {
    type Item = (&'a str, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter(self.0.iter())
    }
}

impl<K: Into<String>, V: Into<Value>> Extend<(K, V)> for Record {
    /// As [`Record::insert`] of each: Python's `dict.update`.
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, fields: I) {
        self.0.extend(fields.into_iter().map(|(name, value)| (name.into(), value.into())));
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Record {
    /// Of fields with the same name the last one's value counts, in the first one's place.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Record {
        let mut record = Record::new();
        record.extend(fields);
        record
    }
}

impl<K: Into<String>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Record {
    fn from(fields: [(K, V); N]) -> Record {
        Record::from_iter(fields)
    }
}

impl From<serde_json::Map<String, serde_json::Value>> for Record {
    fn from(fields: serde_json::Map<String, serde_json::Value>) -> Record {
        Record(fields.into_iter().map(|(name, value)| (name, value.into())).collect())
    }
}

impl TryFrom<serde_json::Value> for Record {
    /// The value given back where it is not an object.
    type Error = serde_json::Value;

    /// ```
    /// use dictdb::Record;
    /// use serde_json::json;
    /// assert_eq!(Record::try_from(json!({ "id": 1 })).map(|r| r.len()), Ok(1));
    /// assert_eq!(Record::try_from(json!([1])), Err(json!([1])));
    /// ```
    fn try_from(value: serde_json::Value) -> Result<Record, serde_json::Value> {
        match value {
            serde_json::Value::Object(fields) => Ok(fields.into()),
            other => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;

    #[test]
    fn fields_keep_their_order_through_insert_and_remove() {
        let mut r = record! { "a": 1, "b": 2, "c": 3 };
        assert_eq!(r.insert("b", "two"), Some(Value::Int(2)));
        assert_eq!(r.remove("a"), Some(Value::Int(1)));
        assert_eq!(r.insert("a", 4), None);
        assert_eq!(r.to_string(), r#"{"b": "two", "c": 3, "a": 4}"#);
        assert_eq!((r.len(), r.contains_key("c"), r.get("x")), (3, true, None));
        assert_eq!(r.remove("x"), None);
        r.extend([("c", Value::Null), ("d", Value::Bool(true))]);
        assert_eq!(r.iter().rev().map(|(name, _)| name).collect::<String>(), "dacb");
        assert_eq!((&r).into_iter().len(), r.clone().into_iter().len());
        assert_eq!(r.into_iter().collect::<Record>().to_string(), r#"{"b": "two", "c": null, "a": 4, "d": true}"#);
    }

    #[test]
    fn equality_does_not_look_at_the_order_of_fields() {
        assert_eq!(record! { "a": 1, "b": { "c": 1, "d": 2 } }, record! { "b": { "d": 2, "c": 1 }, "a": 1 });
        assert_ne!(record! { "a": 1 }, record! { "a": 1, "b": null });
    }

    #[test]
    #[should_panic(expected = "the record has no field \"x\"")]
    fn indexing_a_missing_field_panics_with_its_name() {
        let _ = &record! { "a": 1 }["x"];
    }
}
