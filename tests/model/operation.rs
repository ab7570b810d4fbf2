//! Operations: made at random, run on the database, on a transaction, and on the model.

use std::collections::HashMap;

use dictdb::{DictDb, Error, FieldType, Key, Record, Schema, Table as Handle, TableDefinition, Transaction, Value};
use fastrand::Rng;

use crate::plain::{Action, Model, Outcome, Table, Why};
use crate::values::{Taste, Typed, deep, field_name, fields, float, key, no_key, once_in, pick, text, value};

const TABLES: &[&str] = &["a", "b", "users", "", "ü\"\n"];

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create(String, TableDefinition),
    Drop(String),
    Act(String, Action),
    Typed(String, TypedAction),
}

#[derive(Clone, Debug)]
pub(crate) enum TypedAction {
    Insert(Typed),
    InsertMany(Vec<Typed>),
    Upsert(Typed),
    Replace(Typed),
    Delete(Key),
}

impl TypedAction {
    fn untyped(&self) -> Action {
        match self {
            TypedAction::Insert(value) => Action::Insert(value.to_record()),
            TypedAction::InsertMany(values) => Action::InsertMany(values.iter().map(Typed::to_record).collect()),
            TypedAction::Upsert(value) => Action::Upsert(value.to_record()),
            TypedAction::Replace(value) => Action::Replace(value.to_record()),
            TypedAction::Delete(key) => Action::Delete(key.clone()),
        }
    }
}

/// The same calls on a table and on a table inside a transaction.
macro_rules! act {
    ($table:expr, $action:expr) => {
        match $action {
            Action::Insert(record) => $table.insert(record.clone()).map(Outcome::Key),
            Action::InsertMany(records) => $table.insert_many(records.clone()).map(Outcome::Keys),
            Action::Upsert(record) => $table.upsert(record.clone()).map(|(key, done)| Outcome::Upserted(key, done)),
            Action::Replace(record) => $table.replace(record.clone()).map(Outcome::Key),
            Action::Update(key, changes) => $table.update(key, changes.clone()).map(Outcome::Updated),
            Action::Delete(key) => $table.delete(key).map(Outcome::Deleted),
        }
    };
}

macro_rules! act_typed {
    ($table:expr, $action:expr) => {
        match $action {
            TypedAction::Insert(value) => $table.insert(value).map(Outcome::Key),
            TypedAction::InsertMany(values) => $table.insert_many(values).map(Outcome::Keys),
            TypedAction::Upsert(value) => $table.upsert(value).map(|(key, done)| Outcome::Upserted(key, done)),
            TypedAction::Replace(value) => $table.replace(value).map(Outcome::Key),
            TypedAction::Delete(key) => $table.delete(key).map(Outcome::Deleted),
        }
    };
}

impl Operation {
    pub(crate) fn on_model(&self, model: &mut Model, by_itself: bool) -> Result<Outcome, Vec<Why>> {
        match self {
            Operation::Create(table, definition) => model.create(table, definition),
            Operation::Drop(table) => model.drop_table(table),
            Operation::Act(table, action) => model.act(table, action, by_itself),
            Operation::Typed(table, action) => model.act(table, &action.untyped(), by_itself),
        }
    }

    /// `handles` were taken when the tables were first met: they may have been dropped and made again since.
    pub(crate) fn on_database(&self, db: &DictDb, handles: &mut HashMap<String, Handle>) -> Result<Outcome, Error> {
        match self {
            Operation::Create(table, definition) => {
                let handle = db.create_table(table, definition.clone())?;
                handles.entry(table.clone()).or_insert(handle);
                Ok(Outcome::Done)
            }
            Operation::Drop(table) => db.drop_table(table).map(|()| Outcome::Done),
            Operation::Act(table, action) => match handles.get(table) {
                Some(handle) => act!(handle, action),
                None => act!(db.table(table)?, action),
            },
            Operation::Typed(table, action) => act_typed!(db.typed::<Typed>(table)?, action),
        }
    }

    pub(crate) fn on_transaction(&self, tx: &Transaction<'_>) -> Result<Outcome, Error> {
        match self {
            Operation::Create(table, definition) => tx.create_table(table, definition.clone()).map(|_| Outcome::Done),
            Operation::Drop(table) => tx.drop_table(table).map(|()| Outcome::Done),
            Operation::Act(table, action) => act!(tx.table(table)?, action),
            Operation::Typed(table, action) => act_typed!(tx.typed::<Typed>(table)?, action),
        }
    }

    /// Whether it may take an automatic key.
    pub(crate) fn asks_for_keys(&self, model: &Model) -> bool {
        let keyless = |table: &str, record: &Record| {
            let primary_key = model.tables.get(table).map(|t| t.definition.primary_key());
            primary_key.is_some_and(|name| record.get(name).is_none_or(Value::is_null))
        };
        match self {
            Operation::Act(table, Action::Insert(record) | Action::Upsert(record)) => keyless(table, record),
            Operation::Act(table, Action::InsertMany(records)) => records.iter().any(|record| keyless(table, record)),
            _ => false,
        }
    }

    pub(crate) fn random(random: &mut Rng, model: &Model, taste: Taste) -> Operation {
        let any = (*pick(random, TABLES)).to_owned();
        let existing: Vec<&String> = model.tables.keys().collect();
        if existing.is_empty() || once_in(random, 12) {
            return Operation::Create(any, definition(random));
        }
        let name = if once_in(random, 40) { any } else { (*pick(random, &existing)).clone() };
        if once_in(random, 30) {
            return Operation::Drop(name);
        }
        let table = model.tables.get(&name);
        if once_in(random, 5) {
            let typed = |random: &mut Rng| Typed::random(random, taste);
            let action = match random.u8(0..6) {
                0 | 1 => TypedAction::Insert(typed(random)),
                2 => TypedAction::InsertMany((0..random.usize(0..4)).map(|_| typed(random)).collect()),
                3 => TypedAction::Replace(typed(random)),
                4 => TypedAction::Delete(known_key(random, table)),
                _ => TypedAction::Upsert(typed(random)),
            };
            return Operation::Typed(name, action);
        }
        let action = match random.u8(0..14) {
            0..4 => Action::Insert(record(random, table, taste)),
            4 | 5 => {
                let count = if once_in(random, 60) { 200 } else { random.usize(0..6) };
                Action::InsertMany((0..count).map(|_| record(random, table, taste)).collect())
            }
            6 | 7 => Action::Upsert(record(random, table, taste)),
            8 => Action::Replace(record(random, table, taste)),
            9 | 10 => {
                let mut changes = fields(random, 1, taste);
                if let (Some(table), false) = (table, once_in(random, 6)) {
                    let fitting = record(random, Some(table), taste);
                    let primary_key = table.definition.primary_key();
                    changes = fitting.into_iter().filter(|(name, _)| name != primary_key && random.bool()).collect();
                }
                Action::Update(known_key(random, table), changes)
            }
            _ => Action::Delete(known_key(random, table)),
        };
        Operation::Act(name, action)
    }
}

/// Mostly the key of a record that is there.
pub(crate) fn known_key(random: &mut Rng, table: Option<&std::sync::Arc<Table>>) -> Key {
    match table {
        Some(table) if !table.rows.is_empty() && !once_in(random, 4) => {
            let at = random.usize(0..table.rows.len().min(32));
            table.rows.keys().nth(at).unwrap().clone()
        }
        _ => key(random),
    }
}

fn definition(random: &mut Rng) -> TableDefinition {
    const TYPES: [FieldType; 6] =
        [FieldType::Int, FieldType::Float, FieldType::Str, FieldType::Bool, FieldType::List, FieldType::Dict];
    let primary_key = if random.bool() { "id".to_owned() } else { field_name(random) };
    let definition = TableDefinition::new(&*primary_key);
    match random.u8(0..4) {
        0 => {
            let mut names: Vec<String> = (0..random.usize(0..5)).map(|_| field_name(random)).collect();
            if !once_in(random, 10) {
                names.sort();
                names.dedup();
                random.shuffle(&mut names);
            }
            let field = |name: String| {
                let mut field_type = *pick(random, &TYPES);
                if name == primary_key && !once_in(random, 4) {
                    field_type = *pick(random, &[FieldType::Int, FieldType::Str]);
                }
                (name, field_type)
            };
            let fields: Vec<_> = names.into_iter().map(field).collect();
            definition.schema(Schema::new(fields))
        }
        1 => TableDefinition::new("id").schema(Schema::new([
            ("name", FieldType::Str),
            ("score", FieldType::Float),
            ("tags", FieldType::List),
            ("extra", FieldType::Dict),
        ])),
        _ => definition,
    }
}

/// Mostly one that the table takes.
fn record(random: &mut Rng, table: Option<&std::sync::Arc<Table>>, taste: Taste) -> Record {
    let Some(table) = table.filter(|_| !once_in(random, 15)) else { return fields(random, 0, taste) };
    let primary_key = table.definition.primary_key();
    let key_type = table.definition.schema_ref().and_then(|schema| schema.get(primary_key));
    let mut fields: Vec<(String, Value)> = match table.definition.schema_ref() {
        None => fields(random, 0, taste).into_iter().collect(),
        Some(schema) => schema
            .fields()
            .map(|(name, wanted)| {
                let value = match wanted {
                    FieldType::Int => {
                        pick(random, &[Value::Int(-1), Value::Bool(true), Value::UInt(u64::MAX), Value::Int(1 << 40)])
                            .clone()
                    }
                    FieldType::Float => Value::Float(float(random, taste)),
                    FieldType::Str => Value::Str(text(random)),
                    FieldType::Bool => Value::Bool(random.bool()),
                    FieldType::List => Value::List((0..random.usize(0..3)).map(|_| value(random, 2, taste)).collect()),
                    FieldType::Dict => Value::Dict(self::fields(random, 2, taste)),
                };
                (name.to_owned(), if once_in(random, 30) { value_of_any_kind(random, taste) } else { value })
            })
            .collect(),
    };
    if table.definition.schema_ref().is_none() && once_in(random, 60) {
        fields.push(("deep".to_owned(), deep(random)));
    }
    random.shuffle(&mut fields);
    fields.retain(|(name, _)| name != primary_key);
    let key = match random.u8(0..10) {
        0..3 if key_type != Some(FieldType::Str) => None,
        3 if key_type != Some(FieldType::Str) => Some(Value::Null),
        4 if once_in(random, 4) => Some(no_key(random)),
        5 if !table.rows.is_empty() => Some(known_key(random, Some(table)).to_value()),
        _ => match key_type {
            Some(FieldType::Int) => Some(Value::Int(random.i64(-3..30))),
            Some(_) => Some(Value::from(text(random))),
            None => Some(key(random).to_value()),
        },
    };
    if let Some(key) = key {
        let at = random.usize(0..=fields.len());
        fields.insert(at, (primary_key.to_owned(), key));
    }
    fields.into_iter().collect()
}

fn value_of_any_kind(random: &mut Rng, taste: Taste) -> Value {
    value(random, 3, taste)
}
