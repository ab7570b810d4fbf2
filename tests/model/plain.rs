//! The plain model: what the database should be, in standard maps and the most obvious code.

use std::collections::BTreeMap;
use std::sync::Arc;

use dictdb::{
    Commit, DictDb, Error, FieldType, Key, Mutation, Record, Snapshot, TableDefinition, TableView, Upserted, Value,
};

/// The bounds that the database states.
const DEPTH_MAX: usize = 100;
const KEY_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) definition: TableDefinition,
    pub(crate) rows: BTreeMap<Key, Record>,
    /// The next automatic key; 2^63 once there is none left.
    pub(crate) next_key: u64,
}

/// All tables. Cheap to clone: a table is copied when it changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) tables: BTreeMap<String, Arc<Table>>,
}

/// One operation of the API on dynamic records; a typed one is the same with another way in.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Insert(Record),
    InsertMany(Vec<Record>),
    Upsert(Record),
    Replace(Record),
    Update(Key, Record),
    Delete(Key),
}

#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Done,
    Key(Key),
    Keys(Vec<Key>),
    Upserted(Key, Upserted),
    Updated(Record),
    Deleted(bool),
}

/// Why an operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NoTable,
    TableExists,
    Definition,
    NoRecord,
    Duplicate,
    Key,
    Schema,
    Depth,
    Exhausted,
}

impl Why {
    pub(crate) fn of(error: &Error) -> Why {
        match error {
            Error::NoSuchTable { .. } => Why::NoTable,
            Error::TableExists { .. } => Why::TableExists,
            Error::InvalidDefinition { .. } => Why::Definition,
            Error::NoSuchRecord { .. } => Why::NoRecord,
            Error::DuplicateKey { .. } => Why::Duplicate,
            Error::InvalidKey { .. } => Why::Key,
            Error::SchemaViolation { .. } => Why::Schema,
            Error::Encode { .. } => Why::Depth,
            Error::Exhausted { .. } => Why::Exhausted,
            other => panic!("no operation here should fail like this: {other}"),
        }
    }
}

/// Every reason for which it may be refused: which one is told is the database's choice.
type Refused = Vec<Why>;

impl Model {
    pub(crate) fn create(&mut self, name: &str, definition: &TableDefinition) -> Result<Outcome, Refused> {
        let mut why = Vec::new();
        if self.tables.contains_key(name) {
            why.push(Why::TableExists);
        }
        if let Some(schema) = definition.schema_ref() {
            let names: Vec<&str> = schema.fields().map(|(name, _)| name).collect();
            let twice = names.iter().enumerate().any(|(n, name)| names[..n].contains(name));
            let key_type = schema.get(definition.primary_key());
            if twice || !matches!(key_type, Some(FieldType::Int | FieldType::Str)) {
                why.push(Why::Definition);
            }
        }
        if why.is_empty() {
            let table = Table { definition: definition.clone(), rows: BTreeMap::new(), next_key: 1 };
            self.tables.insert(name.to_owned(), Arc::new(table));
            return Ok(Outcome::Done);
        }
        Err(why)
    }

    pub(crate) fn drop_table(&mut self, name: &str) -> Result<Outcome, Refused> {
        self.tables.remove(name).map(|_| Outcome::Done).ok_or(vec![Why::NoTable])
    }

    /// `by_itself`: as its own commit, so that `insert_many` is all or nothing; in a transaction, what came before the
    /// record that did not fit stays.
    pub(crate) fn act(&mut self, name: &str, action: &Action, by_itself: bool) -> Result<Outcome, Refused> {
        let Some(shared) = self.tables.get_mut(name) else { return Err(vec![Why::NoTable, Why::Depth]) };
        let table = Arc::make_mut(shared);
        match action {
            Action::Insert(record) => table.insert(record).map(Outcome::Key),
            Action::InsertMany(records) => {
                let mut working = table.clone();
                let keys: Result<Vec<Key>, Refused> = records.iter().map(|record| working.insert(record)).collect();
                if keys.is_ok() || !by_itself {
                    *table = working;
                }
                keys.map(Outcome::Keys).map_err(|mut why| {
                    // By itself it looks at all records before it takes the first.
                    let deep = |record| depth_of_fields(record) > DEPTH_MAX;
                    if by_itself && records.iter().any(deep) {
                        why.push(Why::Depth);
                    }
                    why
                })
            }
            Action::Upsert(record) => {
                let (key, record) = table.keyed(record)?;
                let done = if table.rows.contains_key(&key) { Upserted::Replaced } else { Upserted::Inserted };
                table.put(key.clone(), record);
                Ok(Outcome::Upserted(key, done))
            }
            Action::Replace(record) => {
                if record.get(table.definition.primary_key()).is_none_or(Value::is_null) {
                    return Err(vec![Why::Key, Why::Depth]);
                }
                let (key, record) = table.keyed(record)?;
                if !table.rows.contains_key(&key) {
                    return Err(vec![Why::NoRecord]);
                }
                table.put(key.clone(), record);
                Ok(Outcome::Key(key))
            }
            Action::Update(key, changes) => {
                let Some(old) = table.rows.get(key) else { return Err(vec![Why::NoRecord, Why::Depth]) };
                let mut merged = old.clone();
                merged.extend(normal_fields(changes));
                if merged.get(table.definition.primary_key()) != Some(&key.to_value()) {
                    return Err(vec![Why::Key, Why::Schema, Why::Exhausted, Why::Depth]);
                }
                let (key, merged) = table.keyed(&merged)?;
                table.put(key, merged.clone());
                Ok(Outcome::Updated(merged))
            }
            Action::Delete(key) => Ok(Outcome::Deleted(table.rows.remove(key).is_some())),
        }
    }

    /// Applies a commit of the change feed.
    pub(crate) fn follow(&mut self, commit: &Commit) {
        for mutation in &commit.mutations {
            let done = match mutation {
                Mutation::Put { table, key, record } => {
                    let table = Arc::make_mut(self.tables.get_mut(table).unwrap());
                    table.put(key.clone(), record.clone());
                    true
                }
                Mutation::Delete { table, key } => {
                    Arc::make_mut(self.tables.get_mut(table).unwrap()).rows.remove(key).is_some()
                }
                Mutation::CreateTable { table, definition } => self.create(table, definition).is_ok(),
                Mutation::DropTable { table } => self.drop_table(table).is_ok(),
                other => panic!("an unknown mutation {other:?}"),
            };
            assert!(done, "the feed says {mutation:?}, which changes nothing");
        }
    }

    pub(crate) fn has_non_finite(&self) -> bool {
        let mut records = self.tables.values().flat_map(|table| table.rows.values());
        records.any(|record| record.values().any(non_finite))
    }

    /// A database made from nothing but this model.
    pub(crate) fn rebuild(&self) -> DictDb {
        let db = DictDb::new();
        for (name, table) in &self.tables {
            let made = db.create_table(name, table.definition.clone()).unwrap();
            made.insert_many(table.rows.values().cloned()).unwrap();
            // The automatic key goes on where it was, also behind records that are gone.
            let before = Key::Int(i64::try_from(table.next_key - 1).unwrap());
            if table.next_key > 1 && !table.rows.contains_key(&before) {
                made.insert(table.fitting(&before)).unwrap();
                assert!(made.delete(before).unwrap());
            }
        }
        db
    }
}

impl Table {
    fn put(&mut self, key: Key, record: Record) {
        if let Key::Int(n) = key {
            self.next_key = self.next_key.max(u64::try_from(n).map_or(0, |n| n + 1));
        }
        self.rows.insert(key, record);
    }

    fn insert(&mut self, record: &Record) -> Result<Key, Refused> {
        let (key, record) = self.keyed(record)?;
        if self.rows.contains_key(&key) {
            return Err(vec![Why::Duplicate]);
        }
        self.put(key.clone(), record);
        Ok(key)
    }

    /// The record as it will be stored, and its key; or everything that speaks against it.
    fn keyed(&self, record: &Record) -> Result<(Key, Record), Refused> {
        let mut record = normal_fields(record);
        let mut why = Vec::new();
        if depth_of_fields(&record) > DEPTH_MAX {
            why.push(Why::Depth);
        }
        let primary_key = self.definition.primary_key();
        let key = match record.get(primary_key) {
            None | Some(Value::Null) => match i64::try_from(self.next_key) {
                Ok(automatic) => {
                    record.insert(primary_key, automatic);
                    Some(Key::Int(automatic))
                }
                Err(_) => {
                    why.push(Why::Exhausted);
                    return Err(why);
                }
            },
            Some(Value::Int(n)) => Some(Key::Int(*n)),
            Some(Value::Str(s)) if s.len() <= KEY_BYTES_MAX => Some(Key::from(s)),
            Some(_) => {
                why.push(Why::Key);
                None
            }
        };
        if !self.fits_schema(&record) {
            why.push(Why::Schema);
        }
        match key {
            Some(key) if why.is_empty() => Ok((key, record)),
            _ => Err(why),
        }
    }

    pub(crate) fn fits_schema(&self, record: &Record) -> bool {
        let Some(schema) = self.definition.schema_ref() else { return true };
        record.len() == schema.fields().len()
            && schema.fields().all(|(name, wanted)| {
                matches!(
                    (wanted, record.get(name)),
                    (FieldType::Int, Some(Value::Int(_) | Value::UInt(_) | Value::Bool(_)))
                        | (FieldType::Float, Some(Value::Float(_)))
                        | (FieldType::Str, Some(Value::Str(_)))
                        | (FieldType::Bool, Some(Value::Bool(_)))
                        | (FieldType::List, Some(Value::List(_)))
                        | (FieldType::Dict, Some(Value::Dict(_)))
                )
            })
    }

    /// The plainest record that the table takes under this key.
    pub(crate) fn fitting(&self, key: &Key) -> Record {
        let mut record = self.fitting_without_key();
        record.insert(self.definition.primary_key(), key);
        record
    }

    /// The plainest record that gets an automatic key.
    pub(crate) fn fitting_without_key(&self) -> Record {
        let Some(schema) = self.definition.schema_ref() else { return Record::new() };
        let plain = |wanted| match wanted {
            FieldType::Int => Value::Int(0),
            FieldType::Float => Value::Float(0.0),
            FieldType::Str => Value::from(""),
            FieldType::Bool => Value::Bool(false),
            FieldType::List => Value::List(Vec::new()),
            FieldType::Dict => Value::Dict(Record::new()),
        };
        let mut record: Record = schema.fields().map(|(name, wanted)| (name, plain(wanted))).collect();
        record.remove(self.definition.primary_key());
        record
    }

    /// Whether a record without a key is taken.
    pub(crate) fn gives_automatic_keys(&self) -> bool {
        let by_schema = self
            .definition
            .schema_ref()
            .is_some_and(|schema| schema.get(self.definition.primary_key()) == Some(FieldType::Str));
        !by_schema && self.next_key < 1 << 63
    }
}

fn non_finite(value: &Value) -> bool {
    match value {
        Value::Float(x) => !x.is_finite(),
        Value::List(values) => values.iter().any(non_finite),
        Value::Dict(fields) => fields.values().any(non_finite),
        _ => false,
    }
}

fn normal(value: &Value) -> Value {
    match value {
        Value::UInt(n) => Value::from(*n),
        Value::List(values) => Value::List(values.iter().map(normal).collect()),
        Value::Dict(fields) => Value::Dict(normal_fields(fields)),
        other => other.clone(),
    }
}

fn normal_fields(record: &Record) -> Record {
    record.iter().map(|(name, value)| (name, normal(value))).collect()
}

fn depth_of_fields(record: &Record) -> usize {
    1 + record.values().map(depth).max().unwrap_or(0)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::List(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Dict(fields) => depth_of_fields(fields),
        _ => 0,
    }
}

/// Equal in every bit: kinds, order of fields, sign of zero, NaN's payload.
pub(crate) fn same_record(a: &Record, b: &Record) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((x, v), (y, w))| x == y && same(v, w))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(x), Value::Float(y)) => x.to_bits() == y.to_bits(),
        (Value::List(x), Value::List(y)) => x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same(v, w)),
        (Value::Dict(x), Value::Dict(y)) => same_record(x, y),
        _ => a == b,
    }
}

pub(crate) fn same_outcome(a: &Outcome, b: &Outcome) -> bool {
    match (a, b) {
        (Outcome::Done, Outcome::Done) => true,
        (Outcome::Key(x), Outcome::Key(y)) => x == y,
        (Outcome::Keys(x), Outcome::Keys(y)) => x == y,
        (Outcome::Upserted(x, d), Outcome::Upserted(y, e)) => x == y && d == e,
        (Outcome::Updated(x), Outcome::Updated(y)) => same_record(x, y),
        (Outcome::Deleted(x), Outcome::Deleted(y)) => x == y,
        _ => false,
    }
}

/// Fails unless the view shows the model: tables, definitions, and every record in every bit.
pub(crate) fn assert_shows(view: &Snapshot, model: &Model, what: &str) {
    let names: Vec<&String> = model.tables.keys().collect();
    assert!(
        view.table_names().iter().eq(names),
        "{what}: tables {:?}, not {:?}",
        view.table_names(),
        model.tables.keys()
    );
    for (name, table) in &model.tables {
        assert_table_shows(&view.table(name).unwrap(), table, what);
    }
}

pub(crate) fn assert_table_shows(view: &TableView, table: &Table, what: &str) {
    let name = view.name();
    assert_eq!(*view.definition(), table.definition, "{what}: definition of {name:?}");
    assert_eq!(view.len(), table.rows.len(), "{what}: records of {name:?}");
    for ((key, record), (wanted_key, wanted)) in view.iter().zip(&table.rows) {
        assert_eq!(key, *wanted_key, "{what}: keys of {name:?}");
        assert!(same_record(&record, wanted), "{what}: record {key} of {name:?} is {record:?}, not {wanted:?}");
    }
}
