//! Reading DictDB's documents, ours and those of DictDB 1.11, one record at a time.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::batch::Batch;
use crate::definition::TableDefinition;
use crate::error::{Error, Result};
use crate::file::json::definition::DefinitionMembers;
use crate::file::json::head::Head;
use crate::file::json::record::{keyed_record, put_record, start_of};
use crate::file::json::text::{self, Context};
use crate::file::json::{seal, wrong_kind};
use crate::file::name::BackupKind;
use crate::file::source::Source;
use crate::file::{Trust, check_digest, check_joins};
use crate::history::{Lineage, Seq};
use crate::limits::NAME_BYTES_MAX;
use crate::progress::Watch;
use crate::state::{Applied, Identity, State, TableState};
use crate::storage::Storage;
use crate::value::Key;

/// Records between two reports of progress.
const REPORT_EVERY: u64 = 1_024;

/// Reads a full backup. One of DictDB 1.11 gives a state at seq 0 of [`Lineage::DICTDB_1_11`].
pub(crate) fn read_full(storage: &dyn Storage, path: &Path, trust: Trust, watch: &Watch<'_>) -> Result<State> {
    let (source, head) = open(storage, path, BackupKind::Full, trust)?;
    let identity = match &head {
        Some(head) => Identity { lineage: head.end.lineage, parent: head.parent },
        None => Identity { lineage: Lineage::DICTDB_1_11, parent: None },
    };
    let mut state = State::empty(identity);
    state.seq = Seq::ZERO;
    let bytes = source.bytes();
    let reading = Reading { watch, bytes, total: head.map(|h| h.records), ours: head.is_some() };
    let records = text::parse(source, !reading.ours, |context| FullDocument { context, reading, state: &mut state })?;
    if let Some(head) = head {
        state.seq = head.end.seq;
        state.time = head.time;
        if !trust.ignore_checksum {
            check_counts(path, bytes, &head, (state.table_count() as u64, records))?;
            check_digest(path, bytes, head.end.digest, &state)?;
        }
    }
    watch.report(records, Some(records), bytes, Some(bytes))?;
    Ok(state)
}

/// Applies a delta. One of ours must join onto the state; one of DictDB 1.11 changes it without moving its seq.
pub(crate) fn apply_delta(
    storage: &dyn Storage,
    path: &Path,
    state: &mut State,
    trust: Trust,
    watch: &Watch<'_>,
) -> Result<Applied> {
    let (source, head) = open(storage, path, BackupKind::Delta, trust)?;
    let bytes = source.bytes();
    if let Some(head) = &head {
        check_joins(path, head.base, state, state.digest(), trust)?;
    }
    let reading = Reading { watch, bytes, total: head.map(|h| h.records), ours: head.is_some() };
    let target = Target::State(state);
    let applied = text::parse(source, !reading.ours, |context| DeltaDocument { context, reading, target })?;
    if let Some(head) = head {
        state.identity = Identity { lineage: head.end.lineage, parent: head.parent };
        let commits = head.end.seq.since(state.seq);
        if head.end.seq < state.seq || head.groups != commits {
            let expected = format!("as many commits as lie between seq {} and {}", state.seq, head.end.seq);
            return Err(Error::corrupt(path, 0, expected));
        }
        state.seq = head.end.seq;
        state.time = head.time;
        if !trust.ignore_checksum {
            check_digest(path, bytes, head.end.digest, state)?;
        }
    }
    let records = applied.puts.saturating_add(applied.deletes);
    watch.report(records, Some(records), bytes, Some(bytes))?;
    Ok(applied)
}

/// Applies a delta of DictDB 1.11 as part of a commit.
pub(crate) fn commit_dictdb_delta(
    storage: &dyn Storage,
    path: &Path,
    batch: &mut Batch<'_>,
    watch: &Watch<'_>,
) -> Result<Applied> {
    let source = Source::open(storage, path)?;
    let reading = Reading { watch, bytes: source.bytes(), total: None, ours: false };
    text::parse(source, true, |context| DeltaDocument { context, reading, target: Target::Commit(batch) })
}

/// Opens a file and checks its head and seal.
fn open(storage: &dyn Storage, path: &Path, wanted: BackupKind, trust: Trust) -> Result<(Source, Option<Head>)> {
    let mut source = Source::open(storage, path)?;
    let head = Head::read(&mut source)?;
    if let Some(head) = &head {
        if !trust.ignore_checksum {
            seal::verify(&mut source)?;
        }
        if head.kind() != wanted {
            return Err(wrong_kind(path, head.kind(), wanted));
        }
    }
    Ok((source, head))
}

fn check_counts(path: &Path, bytes: u64, head: &Head, found: (u64, u64)) -> Result<()> {
    if (head.groups, head.records) == found {
        return Ok(());
    }
    let expected = format!("{} tables and {} records, not {} and {}", head.groups, head.records, found.0, found.1);
    Err(Error::corrupt(path, bytes, expected))
}

/// What all visitors of one document share.
#[derive(Clone, Copy)]
struct Reading<'w> {
    watch: &'w Watch<'w>,
    bytes: u64,
    total: Option<u64>,
    /// A file of ours: our extra members are allowed, and nothing else is.
    ours: bool,
}

impl Reading<'_> {
    fn report<E: serde::de::Error>(&self, context: &Context, records: u64) -> Result<(), E> {
        if !records.is_multiple_of(REPORT_EVERY) {
            return Ok(());
        }
        self.watch
            .report(records, self.total, context.offset(), Some(self.bytes))
            .map_err(|cancelled| context.fail(cancelled))
    }
}

/// Reads a map's members by name; a second one of the same name, or one that `member` does not know, is refused.
pub(super) fn members<'de, A: MapAccess<'de>>(
    mut map: A,
    context: &Context,
    mut member: impl FnMut(&str, &mut A) -> Result<bool, A::Error>,
) -> Result<(), A::Error> {
    let mut seen = HashSet::new();
    while let Some(name) = map.next_key::<String>()? {
        if seen.contains(&name) {
            return Err(context.not_held(context.offset(), format!("member {name:?} only once")));
        }
        if !member(&name, &mut map)? {
            return Err(context.expected(format!("a member that belongs here, not {name:?}")));
        }
        seen.insert(name);
    }
    Ok(())
}

macro_rules! seed_of_map {
    ($seed:ident<$($lifetime:lifetime),*>, $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $seed<$($lifetime),*> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<$value, D::Error> {
                json.deserialize_map(self)
            }
        }
    };
}

struct FullDocument<'w> {
    context: Rc<Context>,
    reading: Reading<'w>,
    state: &'w mut State,
}

seed_of_map!(FullDocument<'_>, u64);

impl<'de> Visitor<'de> for FullDocument<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a full backup: an object with a member \"tables\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<u64, A::Error> {
        let FullDocument { context, reading, state } = self;
        let (mut records, mut has_tables) = (0, false);
        members(map, &context, |name, map| {
            match name {
                "tables" => {
                    has_tables = true;
                    let tables = FullTables { context: &context, reading, state, records: &mut records };
                    map.next_value_seed(tables)?;
                }
                "dictdb" | "dictdb_seal" if reading.ours => _ = map.next_value::<IgnoredAny>()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if has_tables { Ok(records) } else { Err(context.expected("a member \"tables\"")) }
    }
}

struct FullTables<'w> {
    context: &'w Context,
    reading: Reading<'w>,
    state: &'w mut State,
    records: &'w mut u64,
}

seed_of_map!(FullTables<'_>, ());

impl<'de> Visitor<'de> for FullTables<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tables by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let FullTables { context, reading, state, records } = self;
        members(map, context, |name, map| {
            check_name(context, name)?;
            let table = map.next_value_seed(FullTable { context, reading, name, records })?;
            let created = state.create_table(name, table);
            created.map_err(|not_created| context.not_held(context.offset(), not_created.expected(name)))?;
            Ok(true)
        })
    }
}

fn check_name<E: serde::de::Error>(context: &Context, name: &str) -> Result<(), E> {
    if name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(context.not_held(context.offset(), "a name of at most 65,536 bytes".to_owned()))
}

struct FullTable<'w> {
    context: &'w Context,
    reading: Reading<'w>,
    name: &'w str,
    records: &'w mut u64,
}

seed_of_map!(FullTable<'_>, TableState);

impl<'de> Visitor<'de> for FullTable<'_> {
    type Value = TableState;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table: an object with \"primary_key\", \"schema\" and, after them, \"records\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TableState, A::Error> {
        let FullTable { context, reading, name, records } = self;
        let (mut definition, mut next_key, mut table) = (DefinitionMembers::default(), None, None);
        members(map, context, |member, map| {
            if definition.take(context, member, map)? {
                return Ok(true);
            }
            match member {
                "next_key" if reading.ours => next_key = Some(map.next_value::<u64>()?),
                "records" => {
                    let mut state = TableState::new(name, definition.finish(context)?);
                    let mut seen = 0_u64;
                    map.next_value_seed(Each(|text: &RawValue| {
                        let key = put_record::<A::Error>(context, &mut state, text)?;
                        seen = seen.saturating_add(1);
                        if state.len() as u64 != seen {
                            return Err(context.expected::<A::Error>(format!("one record only with key {key}")));
                        }
                        *records = records.saturating_add(1);
                        reading.report::<A::Error>(context, *records)
                    }))?;
                    table = Some(state);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let mut table = table.ok_or_else(|| context.expected("a member \"records\" in every table"))?;
        match next_key {
            None if reading.ours => Err(context.expected("a member \"next_key\" in every table")),
            Some(next_key) if !table.set_next_key(next_key) => {
                Err(context.expected("a \"next_key\" above all the table's integer keys"))
            }
            _ => Ok(table),
        }
    }
}

/// Calls the function with the text of each element of an array.
struct Each<F>(F);

impl<'de, F, E> DeserializeSeed<'de> for Each<F>
where
    F: FnMut(&RawValue) -> Result<(), E>,
    E: serde::de::Error,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de, F, E> Visitor<'de> for Each<F>
where
    F: FnMut(&RawValue) -> Result<(), E>,
    E: serde::de::Error,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(text) = seq.next_element::<Box<RawValue>>()? {
            // The error proper lies in the context.
            (self.0)(&text).map_err(|error| serde::de::Error::custom(error))?;
        }
        Ok(())
    }
}

/// Where a delta's changes go.
enum Target<'t, 'b> {
    State(&'t mut State),
    Commit(&'t mut Batch<'b>),
}

struct DeltaDocument<'w, 't, 'b> {
    context: Rc<Context>,
    reading: Reading<'w>,
    target: Target<'t, 'b>,
}

seed_of_map!(DeltaDocument<'_, '_, '_>, Applied);

impl<'de> Visitor<'de> for DeltaDocument<'_, '_, '_> {
    type Value = Applied;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a delta backup: an object with \"type\": \"delta\" and \"tables\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Applied, A::Error> {
        let DeltaDocument { context, reading, mut target } = self;
        let (mut is_delta, mut applied) = (false, None);
        members(map, &context, |name, map| {
            match name {
                "type" => {
                    is_delta = map.next_value::<String>()? == "delta";
                    if !is_delta {
                        return Err(context.expected("\"delta\" as the type of a delta backup"));
                    }
                }
                "timestamp" => _ = map.next_value::<f64>()?,
                "tables" if is_delta => {
                    let mut done = Applied::default();
                    let target = &mut target;
                    map.next_value_seed(DeltaTables { context: &context, reading, target, applied: &mut done })?;
                    applied = Some(done);
                }
                "dictdb_dropped" if reading.ours && applied.is_none() => {
                    let names: Vec<String> = map.next_value()?;
                    if let Target::State(state) = &mut target {
                        for name in names {
                            let dropped = state.drop_table(&name);
                            if !dropped {
                                return Err(context.expected(format!("a table {name:?} to drop")));
                            }
                        }
                    }
                }
                "dictdb" | "dictdb_seal" if reading.ours => _ = map.next_value::<IgnoredAny>()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        applied.ok_or_else(|| context.expected("members \"type\": \"delta\" and, after it, \"tables\""))
    }
}

struct DeltaTables<'w, 't, 'b> {
    context: &'w Context,
    reading: Reading<'w>,
    target: &'w mut Target<'t, 'b>,
    applied: &'w mut Applied,
}

seed_of_map!(DeltaTables<'_, '_, '_>, ());

impl<'de> Visitor<'de> for DeltaTables<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of changed tables by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let DeltaTables { context, reading, target, applied } = self;
        members(map, context, |name, map| {
            check_name(context, name)?;
            map.next_value_seed(DeltaTable { context, reading, name, target, applied })?;
            Ok(true)
        })
    }
}

struct DeltaTable<'w, 't, 'b> {
    context: &'w Context,
    reading: Reading<'w>,
    name: &'w str,
    target: &'w mut Target<'t, 'b>,
    applied: &'w mut Applied,
}

seed_of_map!(DeltaTable<'_, '_, '_>, ());

impl<'de> Visitor<'de> for DeltaTable<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a changed table: an object with \"upserts\" and, after them, \"deletes\"")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        let (context, reading) = (self.context, self.reading);
        let (mut next_key, mut begun, mut deleting) = (None, false, false);
        members(map, context, |member, map| {
            match member {
                "created" if reading.ours && !begun => {
                    let definition = map.next_value_seed(CreatedTable { context })?;
                    self.create(definition)?;
                }
                "next_key" if reading.ours => next_key = Some(map.next_value::<u64>()?),
                "upserts" if !deleting => {
                    begun = true;
                    map.next_value_seed(Each(|text: &RawValue| self.upsert::<A::Error>(text)))?;
                }
                "deletes" => {
                    (begun, deleting) = (true, true);
                    map.next_value_seed(Each(|text: &RawValue| self.delete::<A::Error>(text)))?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        match (next_key, self.target) {
            (None, _) if reading.ours => Err(context.expected("a member \"next_key\" in every table")),
            (Some(next_key), Target::State(state)) => {
                let set = state.table_mut(self.name).is_some_and(|table| table.set_next_key(next_key));
                if set {
                    Ok(())
                } else {
                    Err(context.expected("a table, and a \"next_key\" above all its integer keys"))
                }
            }
            _ => Ok(()),
        }
    }
}

impl DeltaTable<'_, '_, '_> {
    fn unknown<E: serde::de::Error>(&self) -> E {
        let name = self.name;
        self.context.expected(format!(
            "a table that the backups before define, not {name:?} (DictDB 1.11 does not say in a delta what a new \
             table is: take a full backup there, or create the table before)"
        ))
    }

    fn create<E: serde::de::Error>(&mut self, definition: TableDefinition) -> Result<(), E> {
        let Target::State(state) = &mut *self.target else { return Ok(()) };
        let created = state.create_table(self.name, TableState::new(self.name, definition));
        created.map_err(|not_created| self.context.expected(not_created.expected(self.name)))
    }

    fn upsert<E: serde::de::Error>(&mut self, text: &RawValue) -> Result<(), E> {
        match &mut *self.target {
            Target::State(state) => {
                let Some(table) = state.table_mut(self.name) else { return Err(self.unknown()) };
                put_record::<E>(self.context, table, text)?;
            }
            Target::Commit(batch) => {
                let Some(table) = batch.table(self.name) else { return Err(self.unknown()) };
                let (_, row) = keyed_record::<E>(self.context, table, text)?;
                batch.upsert(self.name, &row).map_err(|error| self.context.fail::<E>(error))?;
            }
        }
        self.applied.puts = self.applied.puts.saturating_add(1);
        self.reading.report(self.context, self.applied.puts)
    }

    fn delete<E: serde::de::Error>(&mut self, text: &RawValue) -> Result<(), E> {
        let key = match serde_json::from_str::<JsonKey>(text.get()) {
            Ok(JsonKey::Int(n)) => Key::Int(n),
            Ok(JsonKey::Str(s)) if s.len() <= NAME_BYTES_MAX => Key::from(s),
            _ => {
                let expected = "a key to delete: an integer of 64 bits, signed, or a string".to_owned();
                return Err(self.context.not_held(start_of(self.context, text), expected));
            }
        };
        let was_there = match &mut *self.target {
            Target::State(state) => match state.table_mut(self.name) {
                Some(table) => table.delete(&key),
                None => return Err(self.unknown()),
            },
            Target::Commit(batch) if batch.table(self.name).is_none() => return Err(self.unknown()),
            Target::Commit(batch) => batch.delete(self.name, &key).map_err(|error| self.context.fail::<E>(error))?,
        };
        self.applied.deletes = self.applied.deletes.saturating_add(u64::from(was_there));
        Ok(())
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum JsonKey {
    Int(i64),
    Str(String),
}

struct CreatedTable<'w> {
    context: &'w Context,
}

seed_of_map!(CreatedTable<'_>, TableDefinition);

impl<'de> Visitor<'de> for CreatedTable<'_> {
    type Value = TableDefinition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table definition: an object with \"primary_key\" and \"schema\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TableDefinition, A::Error> {
        let mut definition = DefinitionMembers::default();
        members(map, self.context, |member, map| definition.take(self.context, member, map))?;
        definition.finish(self.context)
    }
}
