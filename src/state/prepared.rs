//! Commits checked apart from the state that they will be applied to, so that other threads can do that.
//!
//! All that a commit of puts and deletes has to be checked for, but whether what it deletes is there, needs the tables'
//! definitions and shapes, and not their rows. A commit that is anything else, or wrong, is left to [`State::apply`], which
//! says what is wrong with it.

use std::ops::Range;
use std::sync::Arc;

use super::{Applied, State, TableState, missing};
use crate::memory;
use crate::mutation::{CommitReader, Event};
use crate::row::{Parts, Summary};
use crate::value::Key;

/// What it takes to check commits.
#[derive(Debug)]
pub(crate) struct Preparer {
    /// In the order of their names, without rows.
    pub(super) tables: Vec<(Arc<str>, TableState)>,
}

/// What was made of a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prepared {
    /// It is so many changes.
    Ready(Applied),
    /// It is for [`State::apply`], for example because of names that no row has had yet.
    Not,
    /// The same, and it may change which tables there are: what was prepared of later ones is of no use.
    Tables,
}

/// A put or a delete.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Change {
    /// Where it begins: enough to ask for its memory.
    begin: [u64; 0],
    pub(super) key: Key,
    /// Where it stands in the payload.
    pub(crate) at: usize,
    /// What is put: the number of its shape, and where the values stand among all bytes that were prepared.
    pub(super) put: Option<(usize, Range<usize>, Summary)>,
}

impl Change {
    /// Asks for its memory.
    pub(super) fn prefetch(&self) {
        memory::prefetch(&self.begin, size_of::<Change>().div_ceil(size_of::<u64>()));
    }
}

/// What a change is given out by, apart from it: whoever gives out many looks at little else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeTarget {
    /// Which of the tables.
    pub(super) table: usize,
    /// Of the key.
    pub(super) rank: u64,
}

/// Changes in the order of their commits.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    changes: Vec<Change>,
    targets: Vec<ChangeTarget>,
}

impl Changes {
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Change> {
        self.changes.get(at)
    }

    pub(super) fn targets(&self) -> &[ChangeTarget] {
        &self.targets
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.changes.truncate(len);
        self.targets.truncate(len);
    }

    fn push(&mut self, target: ChangeTarget, change: Change) {
        self.changes.push(change);
        self.targets.push(target);
    }
}

impl Preparer {
    /// What was expected of a change that deletes what is not there.
    pub(crate) fn missing(&self, changes: &Changes, at: usize) -> Option<String> {
        let (change, target) = (changes.get(at)?, changes.targets.get(at)?);
        let (name, _) = self.tables.get(target.table)?;
        Some(missing(name, &change.key))
    }

    /// Puts the changes of the commit whose payload stands there in `bytes` behind `changes`; none of one that is not ready.
    pub(crate) fn prepare(&self, bytes: &[u8], payload: Range<usize>, changes: &mut Changes) -> Prepared {
        let (before, start) = (changes.len(), payload.start);
        let prepared = self.read(bytes.get(payload).unwrap_or_default(), start, changes);
        if !matches!(prepared, Prepared::Ready(_)) {
            changes.truncate(before);
        }
        prepared
    }

    fn read(&self, payload: &[u8], start: usize, changes: &mut Changes) -> Prepared {
        let Ok(mut reader) = CommitReader::new(payload) else { return Prepared::Not };
        let (mut made, mut is_ready) = (Applied::default(), true);
        loop {
            let at = reader.pos();
            let (name, event) = match reader.next() {
                Ok(Some(next)) => next,
                Ok(None) if is_ready => return Prepared::Ready(made),
                Ok(None) | Err(_) => return Prepared::Not,
            };
            if matches!(event, Event::Create { .. } | Event::Drop) {
                return Prepared::Tables;
            }
            match self.change(name, event, at, start.saturating_add(reader.pos())) {
                Some((target, change)) => {
                    let kind = if change.put.is_some() { &mut made.puts } else { &mut made.deletes };
                    *kind = kind.saturating_add(1);
                    changes.push(target, change);
                }
                None => is_ready = false,
            }
        }
    }

    /// `None` for one that is not prepared. It begins at `at` in its payload, and ends at `end` among all bytes.
    fn change(&self, name: &str, event: Event<'_>, at: usize, end: usize) -> Option<(ChangeTarget, Change)> {
        let table = self.tables.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        let (_, state) = self.tables.get(table)?;
        let change = match event {
            Event::Put { key_field, names, values } => {
                let number = state.shapes.find(names)?;
                let key = state.admit(names, values, Some(key_field)).ok()?;
                let summary = state.shapes.summary_of(&Parts { number: Some(number), names, values });
                let values = end.saturating_sub(values.len())..end;
                Change { begin: [], key, at, put: Some((number, values, summary)) }
            }
            Event::Delete { key } => Change { begin: [], key, at, put: None },
            Event::Create { .. } | Event::Drop => return None,
        };
        Some((ChangeTarget { table, rank: change.key.rank() }, change))
    }
}

impl State {
    /// What it takes to check commits that come behind this state, until one changes which tables there are.
    pub(crate) fn preparer(&self) -> Preparer {
        let mut tables = Vec::with_capacity(self.table_count());
        tables.extend(self.tables().map(|(name, table)| (name.clone(), table.without_rows())));
        Preparer { tables }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::definition::TableDefinition;
    use crate::history::{Seq, Timestamp};
    use crate::mutation::CommitWriter;
    use crate::row::encode_record;
    use crate::state::{ChangeBatch, Identity, Mismatch};
    use crate::{Record, record};

    pub(in crate::state) fn payload(body: impl FnOnce(&mut CommitWriter, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = CommitWriter::begin(&mut out);
        body(&mut writer, &mut out);
        CommitWriter::set_time(&mut out, Timestamp::from_micros(7));
        out
    }

    pub(in crate::state) fn row(record: &Record) -> Vec<u8> {
        let mut row = Vec::new();
        encode_record(record, &mut row).unwrap();
        row
    }

    /// Two tables, the first with a hundred rows.
    fn state() -> State {
        let mut state = State::empty(Identity::fresh());
        let first = payload(|writer, out| {
            for table in ["a", "b"] {
                writer.create(out, table, &TableDefinition::new("id"));
            }
            (0..100).for_each(|n| writer.put(out, "a", 0, &row(&record! { "id": n, "n": n })));
        });
        state.apply(Seq::new(1), &first).unwrap();
        state
    }

    #[test]
    fn the_outline_of_a_state_stands_at_its_point_and_has_none_of_its_rows() {
        let state = state();
        let outline = state.outline();
        assert_eq!((outline.point(), outline.time, outline.identity), (state.point(), state.time, state.identity));
        assert_eq!((outline.row_bytes(), outline.record_count()), (state.row_bytes(), 0));
        assert!(state.record_count() > 0);
    }

    /// What becomes of the state on either way.
    fn both_ways(payload: &[u8]) -> (Result<Applied, (usize, String)>, State) {
        let (mut plain, mut prepared) = (state(), state());
        let wrong = |m: Mismatch| (m.at, m.expected);
        let outcome = plain.apply(Seq::new(2), payload).map_err(wrong);
        let (preparer, mut changes) = (prepared.preparer(), Changes::default());
        if let Prepared::Ready(made) = preparer.prepare(payload, 0..payload.len(), &mut changes) {
            assert_eq!(made.puts + made.deletes, changes.len() as u64);
            prepared.pass(Seq::new(2), payload).unwrap();
            let batch = ChangeBatch { changes: &changes, bytes: payload, delta: 0 };
            let (totals, wrong) = prepared.apply_net(&preparer, &[batch], 1);
            match wrong {
                None => {
                    prepared.count_net(&preparer, &totals, 0);
                    assert_eq!(outcome, Ok(made));
                    assert_eq!((prepared.digest(), prepared.row_bytes()), (plain.digest(), plain.row_bytes()));
                    assert_eq!((prepared.seq, prepared.time), (plain.seq, plain.time));
                }
                Some(first) => {
                    let at = changes.get(first.at).unwrap().at;
                    assert_eq!(outcome, Err((at, preparer.missing(&changes, first.at).unwrap())));
                }
            }
        } else {
            assert!(changes.len() == 0, "nothing of a commit that is not ready is left");
        }
        (outcome, plain)
    }

    #[test]
    fn a_commit_prepared_does_what_it_does_unprepared() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let commit = payload(|writer, out| {
                for _ in 0..rng.usize(1..60) {
                    let id = rng.i64(0..110);
                    match rng.u8(0..20) {
                        0..3 => writer.delete(out, "a", &Key::Int(id)),
                        3 => writer.put(out, "b", 0, &row(&record! { "id": id })),
                        _ => writer.put(out, "a", 0, &row(&record! { "id": id, "n": rng.i64(0..1_000_000) })),
                    }
                }
            });
            let _ = both_ways(&commit);
        }
    }

    #[test]
    fn a_delete_of_what_is_not_there_is_refused_at_its_place_prepared_or_not() {
        let mut at = 0;
        let commit = payload(|writer, out| {
            writer.put(out, "a", 0, &row(&record! { "id": 1, "n": 2 }));
            writer.delete(out, "a", &Key::Int(1));
            at = out.len();
            writer.delete(out, "a", &Key::Int(1));
        });
        let (outcome, _) = both_ways(&commit);
        assert_eq!(outcome, Err((at, "a record 1 of table \"a\" to delete".to_owned())));
    }

    #[test]
    fn what_needs_more_than_definitions_and_shapes_is_not_prepared() {
        let preparer = state().preparer();
        let prepare = |payload: &[u8]| preparer.prepare(payload, 0..payload.len(), &mut Changes::default());
        let known = row(&record! { "id": 1, "n": 2 });
        let new = row(&record! { "id": 1, "new": 2 });
        assert!(matches!(
            prepare(&payload(|w, out| w.put(out, "a", 0, &known))),
            Prepared::Ready(Applied { puts: 1, deletes: 0 })
        ));
        assert!(matches!(prepare(&payload(|w, out| w.put(out, "a", 0, &new))), Prepared::Not));
        assert!(matches!(prepare(&payload(|w, out| w.put(out, "a", 1, &known))), Prepared::Not));
        assert!(matches!(prepare(&payload(|w, out| w.put(out, "c", 0, &known))), Prepared::Not));
        assert!(matches!(prepare(&payload(|w, out| w.drop_table(out, "a"))), Prepared::Tables));
        // The new names stand before the table that is dropped.
        let both = payload(|w, out| {
            w.put(out, "a", 0, &new);
            w.drop_table(out, "b");
        });
        assert!(matches!(prepare(&both), Prepared::Tables));
    }
}
