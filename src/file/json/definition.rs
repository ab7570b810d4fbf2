//! A table's definition in DictDB's documents.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use crate::definition::{FieldType, Schema, TableDefinition};
use crate::error::{Error, Result};
use crate::file::json::read::members;
use crate::file::json::text::Context;

/// The members `primary_key` and `schema`, in either order.
#[derive(Default)]
pub(super) struct DefinitionMembers {
    primary_key: Option<String>,
    schema: Option<Option<Schema>>,
}

impl DefinitionMembers {
    pub(super) fn take<'de, A: MapAccess<'de>>(
        &mut self,
        context: &Context,
        member: &str,
        map: &mut A,
    ) -> Result<bool, A::Error> {
        match member {
            "primary_key" => self.primary_key = Some(map.next_value()?),
            "schema" => self.schema = Some(map.next_value_seed(SchemaSeed { context })?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn finish<E: serde::de::Error>(&mut self, context: &Context) -> Result<TableDefinition, E> {
        let (Some(primary_key), Some(schema)) = (self.primary_key.take(), self.schema.take()) else {
            return Err(context.expected("\"primary_key\" and \"schema\" before the records"));
        };
        let definition = TableDefinition::new(primary_key);
        let definition = match schema {
            None => definition,
            Some(schema) => definition.schema(schema),
        };
        let usable = definition.check();
        usable
            .map_err(|problem| context.not_held(context.offset(), format!("a usable table definition: {problem}")))?;
        Ok(definition)
    }
}

struct SchemaSeed<'w> {
    context: &'w Context,
}

impl<'de> DeserializeSeed<'de> for SchemaSeed<'_> {
    type Value = Option<Schema>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<Schema>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SchemaSeed<'_> {
    type Value = Option<Schema>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, or an object of type names by field")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Option<Schema>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<Schema>, A::Error> {
        let mut fields: Vec<(String, FieldType)> = Vec::new();
        members(map, self.context, |name, map| {
            let type_name: String = map.next_value()?;
            let field_type = type_name.parse().map_err(|error: Error| self.context.expected(error.to_string()))?;
            fields.push((name.to_owned(), field_type));
            Ok(true)
        })?;
        Ok(Some(Schema::new(fields)))
    }
}
