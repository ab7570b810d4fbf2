//! What a table is: its primary key and, where it has one, its schema.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::limits::NAME_BYTES_MAX;
use crate::wire::{self, Malformed, Reader};

/// The six types of DictDB's schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// An integer; as in Python, where `bool` is a kind of `int`, `true` and `false` pass too.
    Int = 0,
    /// A floating-point number; an integer does not pass, as in DictDB.
    Float = 1,
    /// A string.
    Str = 2,
    /// `true` or `false`.
    Bool = 3,
    /// A list.
    List = 4,
    /// A dict.
    Dict = 5,
}

impl FieldType {
    const ALL: [FieldType; 6] =
        [FieldType::Int, FieldType::Float, FieldType::Str, FieldType::Bool, FieldType::List, FieldType::Dict];

    /// DictDB's name of the type: `int`, `float`, `str`, `bool`, `list`, `dict`.
    pub const fn name(self) -> &'static str {
        match self {
            FieldType::Int => "int",
            FieldType::Float => "float",
            FieldType::Str => "str",
            FieldType::Bool => "bool",
            FieldType::List => "list",
            FieldType::Dict => "dict",
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FieldType {
    type Err = Error;

    /// Reads DictDB's name of the type.
    fn from_str(name: &str) -> Result<FieldType> {
        FieldType::ALL.into_iter().find(|t| t.name() == name).ok_or_else(|| Error::InvalidSetting {
            setting: "a schema's field type",
            problem: format!("cannot be {name:?}: it is one of int, float, str, bool, list, dict"),
        })
    }
}

/// The fields that every record of a table has, and their types; a record has no others.
///
/// ```
/// use dictdb::{record, DictDb, Error, FieldType, Schema, TableDefinition};
/// let db = DictDb::new();
/// let schema = Schema::new([("id", FieldType::Int), ("name", FieldType::Str)]);
/// let users = db.create_table("users", TableDefinition::new("id").schema(schema))?;
/// users.insert(record! { "name": "Ann" })?;
/// assert!(matches!(users.insert(record! { "name": 7 }), Err(Error::SchemaViolation { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    fields: Vec<(String, FieldType)>,
}

impl Schema {
    /// A schema of these fields, in this order.
    pub fn new<N: Into<String>>(fields: impl IntoIterator<Item = (N, FieldType)>) -> Schema {
        Schema { fields: fields.into_iter().map(|(name, field_type)| (name.into(), field_type)).collect() }
    }

    /// The fields and their types, in order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&str, FieldType)> {
        self.fields.iter().map(|(name, field_type)| (name.as_str(), *field_type))
    }

    /// The type of one field; `None` where the schema lacks it. Costs a look at each field before it.
    pub fn get(&self, field: &str) -> Option<FieldType> {
        self.fields().find(|(name, _)| *name == field).map(|(_, field_type)| field_type)
    }

    /// For one who asks for many fields.
    pub(crate) fn types(&self) -> Types<'_> {
        Types { fields: &self.fields, next: 0, by_name: None }
    }
}

/// Gives the types of a schema's fields, fastest where they are asked for in the order of the schema.
pub(crate) struct Types<'s> {
    fields: &'s [(String, FieldType)],
    /// Behind the one asked for last; behind the last one, the first.
    next: usize,
    /// Made where the order is another one and there are many.
    by_name: Option<HashMap<&'s str, usize>>,
}

/// So many fields are looked through.
const FEW_FIELDS: usize = 32;

impl Types<'_> {
    /// The type of one field; `None` where the schema lacks it.
    pub(crate) fn of(&mut self, field: &str) -> Option<FieldType> {
        let is_it = |(name, _): &&(String, FieldType)| name == field;
        let at = match self.fields.get(self.next).filter(is_it) {
            Some(_) => self.next,
            None if self.fields.len() <= FEW_FIELDS => self.fields.iter().position(|other| is_it(&other))?,
            None => {
                let names = self.fields.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at));
                *self.by_name.get_or_insert_with(|| names.collect()).get(field)?
            }
        };
        let next = at.saturating_add(1);
        self.next = if next < self.fields.len() { next } else { 0 };
        self.fields.get(at).map(|(_, field_type)| *field_type)
    }
}

/// A table's primary key and optional schema; fixed from creation on.
///
/// A `&str` or `String` becomes the definition with that primary key and no schema, so `create_table("users", "id")`
/// is enough for most tables. [`Default`] is the primary key `id`, as in DictDB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDefinition {
    primary_key: String,
    schema: Option<Schema>,
}

impl TableDefinition {
    /// A table keyed by this field, without a schema.
    pub fn new(primary_key: impl Into<String>) -> TableDefinition {
        TableDefinition { primary_key: primary_key.into(), schema: None }
    }

    /// Adds a schema. Where it lacks the primary key, that is added as an `int`, as DictDB does.
    pub fn schema(mut self, mut schema: Schema) -> TableDefinition {
        if schema.get(&self.primary_key).is_none() {
            schema.fields.push((self.primary_key.clone(), FieldType::Int));
        }
        self.schema = Some(schema);
        self
    }

    /// The field that identifies a record.
    pub fn primary_key(&self) -> &str {
        &self.primary_key
    }

    /// The schema, where there is one.
    pub fn schema_ref(&self) -> Option<&Schema> {
        self.schema.as_ref()
    }

    /// Whether a table can be made of this, and if not, why.
    pub(crate) fn check(&self) -> Result<(), String> {
        let too_long = |name: &str| name.len() > NAME_BYTES_MAX;
        if too_long(&self.primary_key) {
            return Err(format!("the primary key's name is over {NAME_BYTES_MAX} bytes long"));
        }
        let Some(schema) = &self.schema else { return Ok(()) };
        let mut seen = std::collections::HashSet::new();
        for (name, _) in schema.fields() {
            if too_long(name) {
                return Err(format!("a field's name is over {NAME_BYTES_MAX} bytes long"));
            }
            if !seen.insert(name) {
                return Err(format!("the schema names field {name:?} twice"));
            }
        }
        match schema.get(&self.primary_key) {
            Some(FieldType::Int | FieldType::Str) => Ok(()),
            Some(other) => {
                Err(format!("the primary key {:?} must be an int or a str, not a {other}", self.primary_key))
            }
            None => Err(format!("the schema lacks the primary key {:?}", self.primary_key)),
        }
    }

    /// Appends: primary key, then 0, or 1 and the count of fields, each a name and a type byte.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        wire::put_str(out, &self.primary_key);
        match &self.schema {
            None => out.push(0),
            Some(schema) => {
                out.push(1);
                wire::put_u64(out, schema.fields.len() as u64);
                for (name, field_type) in schema.fields() {
                    wire::put_str(out, name);
                    out.push(field_type as u8);
                }
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<TableDefinition, Malformed> {
        let at = reader.pos();
        let primary_key = reader.str()?.to_owned();
        let schema = match reader.u8()? {
            0 => None,
            1 => {
                let mut fields = Vec::new();
                for _ in 0..reader.count(2)? {
                    let name = reader.str()?.to_owned();
                    let tag = reader.u8()?;
                    let field_type = FieldType::ALL.into_iter().find(|t| *t as u8 == tag);
                    fields.push((name, field_type.ok_or_else(|| reader.malformed("a field type from 0 to 5"))?));
                }
                Some(Schema { fields })
            }
            _ => return Err(reader.malformed("0 or 1 for the schema")),
        };
        let definition = TableDefinition { primary_key, schema };
        match definition.check() {
            Ok(()) => Ok(definition),
            Err(_) => Err(Malformed { at, expected: "a usable table definition" }),
        }
    }
}

impl Default for TableDefinition {
    fn default() -> TableDefinition {
        TableDefinition::new("id")
    }
}

impl From<&str> for TableDefinition {
    fn from(primary_key: &str) -> TableDefinition {
        TableDefinition::new(primary_key)
    }
}

impl From<String> for TableDefinition {
    fn from(primary_key: String) -> TableDefinition {
        TableDefinition::new(primary_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_of_a_wide_schema_are_found_in_any_order_without_a_search_for_each() {
        for count in [1, 3, FEW_FIELDS, 1_000] {
            let fields = (0..count).map(|n| (format!("f{n}"), FieldType::ALL[n % 6]));
            let schema = Schema::new(fields.clone());
            let fields: Vec<(String, FieldType)> = fields.collect();
            let mut last_first = fields.clone();
            last_first.rotate_right(1);
            let mut types = schema.types();
            for (name, field_type) in last_first.iter().chain(&fields) {
                assert_eq!(types.of(name), Some(*field_type));
            }
            assert_eq!(types.by_name.is_some(), count > FEW_FIELDS, "where the first was the last");
            for (name, field_type) in fields.iter().rev() {
                assert_eq!(types.of(name), Some(*field_type));
            }
            assert_eq!((types.of("f"), types.of("")), (None, None));
            assert_eq!(types.by_name.is_some(), count > FEW_FIELDS);

            let mut types = schema.types();
            assert!(fields.iter().chain(&fields).all(|(name, field_type)| types.of(name) == Some(*field_type)));
            assert!(types.by_name.is_none(), "in order nothing is looked for");
        }
    }
}
