//! Changes of many commits, made together: those of far keys on different threads.
//!
//! Most leaves are in no cache, so that what counts is how few of them are gone to and how many are waited for at once. What
//! each delta makes of the digest and of the next automatic key is counted all the same.

use std::sync::{Mutex, PoisonError};

use super::prepared::{Change, Changes, Preparer};
use super::{State, TableState};
use crate::history::Digest;
use crate::memory;
use crate::pipeline;
use crate::row::{Parts, Shapes, Summary};
use crate::rows::{Rows, Ways};
use crate::tree::{WARM_MAX, Way};
use crate::value::Key;

/// Some changes of one delta.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeBatch<'c> {
    pub(crate) changes: &'c Changes,
    /// What they were prepared of.
    pub(crate) bytes: &'c [u8],
    /// Which of the deltas it is part of.
    pub(crate) delta: usize,
}

impl<'c> ChangeBatch<'c> {
    /// Those of the row that a change puts.
    fn values(&self, change: &Change) -> &'c [u8] {
        let values = change.put.as_ref().and_then(|(_, values, _)| self.bytes.get(values.clone()));
        values.unwrap_or_default()
    }
}

/// Which of the changes of many batches, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChangeNumber {
    pub(crate) batch: usize,
    /// Which of the batch's.
    pub(crate) at: usize,
}

/// What each delta makes of each table.
#[derive(Debug)]
pub(crate) struct Totals(Vec<Vec<Total>>);

#[derive(Clone, Copy, Debug)]
struct Total {
    rows: Digest,
    /// May wrap, as the sum of what goes and what comes does not.
    bytes: u64,
    /// Above every integer key that was put.
    next_key: u64,
}

/// Fewer changes are not worth a thread.
const SHARE_MIN: usize = 1_024;
/// Of the values that are to be put so many bytes are asked for; who reads more of them finds those coming.
const ASKED_MAX: usize = 1 << 10;

/// A table whose rows are away, in parts that lie behind one another.
struct Parted<'c> {
    /// Between each two the least key that belongs to the right one, behind its rank.
    bounds: Vec<(u64, Key)>,
    shares: Vec<Share<'c>>,
    /// Rows that there were.
    before: usize,
}

/// Part of a table's rows, and what is to be done with them.
struct Share<'c> {
    rows: Rows,
    shapes: Shapes,
    batches: &'c [ChangeBatch<'c>],
    /// The rank of each one's key, and which of all it is.
    changes: Vec<(u64, ChangeNumber)>,
    /// By delta.
    totals: Vec<Total>,
    /// The first change that deletes what is not there.
    wrong: Option<ChangeNumber>,
}

impl State {
    /// Makes changes, which come in the order of their commits, and were prepared for the tables that there are. What they
    /// make of each table is to be counted afterwards, for one delta after the other. Where one deletes what is not
    /// there, the first that does comes with that; then only the deltas before its own can be counted.
    pub(crate) fn apply_net(
        &mut self,
        preparer: &Preparer,
        batches: &[ChangeBatch<'_>],
        deltas: usize,
    ) -> (Totals, Option<ChangeNumber>) {
        let mut counts = vec![0_usize; preparer.tables.len()];
        for target in batches.iter().flat_map(|batch| batch.changes.targets()) {
            if let Some(count) = counts.get_mut(target.table) {
                *count = count.saturating_add(1);
            }
        }
        let tables = counts.iter().zip(&preparer.tables).map(|(count, (name, _))| {
            let table = self.tables.get_mut(&**name).filter(|_| *count > 0)?;
            Some(table.part(batches, *count, deltas))
        });
        let mut tables: Vec<Option<Parted<'_>>> = tables.collect();
        for (batch, ChangeBatch { changes, .. }) in batches.iter().enumerate() {
            for (at, target) in changes.targets().iter().enumerate() {
                if let Some(Some(parted)) = tables.get_mut(target.table) {
                    parted.give(target.rank, changes, ChangeNumber { batch, at });
                }
            }
        }
        let threads = threads_for(counts.into_iter().fold(0, usize::saturating_add));
        let shares = Mutex::new(tables.iter_mut().flatten().flat_map(|parted| parted.shares.iter_mut()));
        pipeline::on_threads("dictdb-load", threads, || {
            let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some(share) = next() {
                share.make();
            }
        });
        let (mut totals, mut wrong) = (Vec::with_capacity(tables.len()), None);
        for (parted, (name, _)) in tables.into_iter().zip(&preparer.tables) {
            let Some((parted, table)) = parted.zip(self.tables.get_mut(&**name)) else {
                totals.push(Vec::new());
                continue;
            };
            let (of_deltas, first) = table.unite(parted, deltas);
            totals.push(of_deltas);
            wrong = wrong.into_iter().chain(first).min();
        }
        (Totals(totals), wrong)
    }

    /// Counts what a delta made of the tables.
    pub(crate) fn count_net(&mut self, preparer: &Preparer, totals: &Totals, delta: usize) {
        for ((name, _), of_deltas) in preparer.tables.iter().zip(&totals.0) {
            let Some(total) = of_deltas.get(delta) else { continue };
            if let Some(table) = self.tables.get_mut(&**name) {
                table.rows_digest.add(total.rows.to_u128());
                table.row_bytes = table.row_bytes.wrapping_add(total.bytes);
                table.next_key = table.next_key.max(total.next_key);
            }
        }
    }
}

/// How many threads so many changes are worth.
fn threads_for(changes: usize) -> usize {
    pipeline::cores().min(changes / SHARE_MIN).max(1)
}

impl TableState {
    /// Its rows for so many changes; it has none until they are [united](Self::unite).
    fn part<'c>(&mut self, batches: &'c [ChangeBatch<'c>], count: usize, deltas: usize) -> Parted<'c> {
        let rows = std::mem::replace(&mut self.rows, Rows::new());
        let before = rows.len();
        let (bounds, parts): (Vec<Key>, Vec<Rows>) = rows.part(threads_for(count));
        // They are seldom all alike.
        let mean = count.checked_div(parts.len()).unwrap_or(count);
        let most = mean.saturating_add(mean / 8);
        let shares = parts.into_iter().map(|rows| {
            let (changes, totals) = (Vec::with_capacity(most), vec![Total::NONE; deltas]);
            Share { rows, shapes: self.shapes.clone(), batches, changes, totals, wrong: None }
        });
        let shares = shares.collect();
        Parted { bounds: bounds.into_iter().map(|bound| (bound.rank(), bound)).collect(), shares, before }
    }

    /// What each delta made of the table, none of which is counted; and the first change that is wrong.
    fn unite(&mut self, parted: Parted<'_>, deltas: usize) -> (Vec<Total>, Option<ChangeNumber>) {
        let (mut totals, mut wrong) = (vec![Total::NONE; deltas], None);
        let mut parts = Vec::with_capacity(parted.shares.len());
        for share in parted.shares {
            totals.iter_mut().zip(&share.totals).for_each(|(total, more)| total.add(more));
            wrong = wrong.into_iter().chain(share.wrong).min();
            parts.push(share.rows);
        }
        let bounds = parted.bounds.into_iter().map(|(_, bound)| bound).collect();
        self.rows = Rows::unite(bounds, parts, parted.before);
        (totals, wrong)
    }
}

impl Parted<'_> {
    fn give(&mut self, rank: u64, changes: &Changes, number: ChangeNumber) {
        // Integers that differ seldom have the same rank; text that begins alike has.
        let is_from = |(of, bound): &(u64, Key)| {
            *of < rank || (*of == rank && changes.get(number.at).is_some_and(|change| *bound <= change.key))
        };
        let at = self.bounds.partition_point(is_from);
        if let Some(share) = self.shares.get_mut(at) {
            share.changes.push((rank, number));
        }
    }
}

impl Share<'_> {
    /// Makes the changes in the order of their keys' ranks, so that a leaf is gone to once for all that is to be done to it;
    /// those of one rank, and so of one key, in their own order.
    ///
    /// What they need is asked for some groups ahead, one step at a time, and comes while those before them are made: what
    /// the changes say, the leaves they go to and what is put there, the rows that are there.
    fn make(&mut self) {
        let mut changes = std::mem::take(&mut self.changes);
        changes.sort_unstable();
        let batches = self.batches;
        let group = |n: usize| {
            let group = changes.chunks(WARM_MAX).nth(n).unwrap_or_default();
            group.iter().filter_map(|(_, number)| {
                let batch = batches.get(number.batch)?;
                Some((*number, batch, batch.changes.get(number.at)?))
            })
        };
        let (mut to_leaves, mut to_rows) = (Ways::new(), Ways::new());
        for step in 0..changes.len().div_ceil(WARM_MAX).saturating_add(3) {
            if let Some(n) = step.checked_sub(3) {
                // No change depends on whether there is a way.
                let ways = to_rows.iter().chain(std::iter::repeat(&Way::UNKNOWN));
                for ((number, batch, change), way) in group(n).zip(ways) {
                    self.change(number, batch, change, way);
                }
            }
            if let Some(n) = step.checked_sub(2) {
                group(n).zip(&to_leaves).for_each(|((.., change), way)| self.rows.prefetch_row(way, &change.key));
                to_rows = std::mem::take(&mut to_leaves);
            }
            if let Some(n) = step.checked_sub(1) {
                to_leaves.extend(group(n).map(|(_, batch, change)| {
                    let values = batch.values(change);
                    memory::prefetch(values, values.len().min(ASKED_MAX));
                    self.rows.prefetch(&change.key)
                }));
            }
            group(step).for_each(|(.., change)| change.prefetch());
        }
    }

    /// Makes a change, to whose key an earlier walk went that way.
    fn change(&mut self, number: ChangeNumber, batch: &ChangeBatch<'_>, change: &Change, way: &Way) {
        let before = self.put(batch, change, way);
        let after = change.put.as_ref().map(|(.., summary)| *summary);
        if before.is_none() && after.is_none() {
            self.wrong = self.wrong.into_iter().chain(Some(number)).min();
        }
        if let Some(total) = self.totals.get_mut(batch.delta) {
            total.count(&change.key, before, after);
        }
    }

    /// What was there before.
    fn put(&mut self, batch: &ChangeBatch<'_>, change: &Change, way: &Way) -> Option<Summary> {
        let (rows, key, mut before) = (&mut self.rows, &change.key, None);
        match &change.put {
            Some((number, ..)) => {
                let parts = Parts { number: Some(*number), names: &[], values: batch.values(change) };
                self.shapes.store_counted(&parts, |shapes, stored| {
                    rows.insert_near(way, key.clone(), stored, |row| before = Some(shapes.summary(row)));
                });
            }
            None => _ = rows.remove(key, |row| before = Some(self.shapes.summary(row))),
        }
        before
    }
}

impl Total {
    const NONE: Total = Total { rows: Digest::EMPTY, bytes: 0, next_key: 0 };

    fn count(&mut self, key: &Key, before: Option<Summary>, after: Option<Summary>) {
        if let Some(before) = before {
            self.rows.subtract(before.hash);
            self.bytes = self.bytes.wrapping_sub(before.bytes);
        }
        if let Some(after) = after {
            self.rows.add(after.hash);
            self.bytes = self.bytes.wrapping_add(after.bytes);
            let integer = if let Key::Int(n) = *key { u64::try_from(n).ok() } else { None };
            self.next_key = self.next_key.max(integer.map_or(0, |n| n.saturating_add(1)));
        }
    }

    fn add(&mut self, more: &Total) {
        self.rows.add(more.rows.to_u128());
        self.bytes = self.bytes.wrapping_add(more.bytes);
        self.next_key = self.next_key.max(more.next_key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::TableDefinition;
    use crate::history::Seq;
    use crate::mutation::CommitWriter;
    use crate::record;
    use crate::row::decode_record;
    use crate::state::prepared::tests::{payload as commit, row};
    use crate::state::{Identity, Prepared};

    /// Integers, or also text most of which begins alike, so that ranks are the same where keys are not.
    fn key(rng: &mut fastrand::Rng, with_text: bool) -> Key {
        let n = rng.i64(0..3_000);
        if with_text && n % 2 == 0 { Key::from(format!("all of them {n}")) } else { Key::Int(n - 1_000) }
    }

    #[test]
    fn changes_made_together_are_what_they_are_one_after_the_other_whatever_their_keys() {
        // With text that comes when there are integers only, one of several parts gets its first text.
        for (seed, at_first, with_text) in [(1, false, false), (2, true, true), (3, false, true), (4, true, true)] {
            let mut rng = fastrand::Rng::with_seed(seed);
            let tables = ["large", "small"];
            let mut state = State::empty(Identity::fresh());
            let first = commit(|writer, out| {
                for table in tables {
                    writer.create(out, table, &TableDefinition::new("id"));
                }
                let mut seen = std::collections::HashSet::new();
                for _ in 0..3_000 {
                    let key = key(&mut rng, at_first);
                    if seen.insert(key.clone()) {
                        writer.put(out, "large", 0, &row(&record! { "id": key.to_value(), "n": -1 }));
                    }
                }
                writer.put(out, "small", 0, &row(&record! { "id": 0, "n": -1 }));
            });
            state.apply(Seq::new(1), &first).unwrap();
            let (preparer, mut plain) = (state.preparer(), state.clone());
            let (mut prepared, mut points) = (Vec::new(), Vec::new());
            let mut seq = state.seq;
            for delta in 0..6 {
                for _ in 0..10 {
                    let (mut bytes, mut changes) = (Vec::new(), Changes::default());
                    for n in 0..10 {
                        let payload = commit(|writer, out| {
                            for at in 0..rng.i64(1..20) {
                                let table = tables[usize::from(rng.u8(0..10) == 0)];
                                let key = key(&mut rng, with_text);
                                let held = plain.table(table).unwrap().contains_key(&key);
                                if at == 0 && held && rng.bool() {
                                    writer.delete(out, table, &key);
                                } else {
                                    writer.put(
                                        out,
                                        table,
                                        0,
                                        &row(&record! { "id": key.to_value(), "n": n * 100 + at }),
                                    );
                                }
                            }
                        });
                        seq = seq.next().unwrap();
                        plain.apply(seq, &payload).unwrap();
                        let start = bytes.len();
                        bytes.extend_from_slice(&payload);
                        let made = preparer.prepare(&bytes, start..bytes.len(), &mut changes);
                        assert!(matches!(made, Prepared::Ready(_)));
                    }
                    prepared.push((bytes, changes, delta));
                }
                points.push((plain.digest(), plain.row_bytes()));
            }
            let batches = prepared.iter().map(|(bytes, changes, delta)| ChangeBatch { changes, bytes, delta: *delta });
            let batches: Vec<_> = batches.collect();
            let all: usize = batches.iter().map(|batch| batch.changes.len()).sum();
            assert!(all > 4 * SHARE_MIN, "enough of them for several threads");
            let (totals, wrong) = state.apply_net(&preparer, &batches, points.len());
            assert_eq!(wrong, None);
            for (delta, point) in points.into_iter().enumerate() {
                state.count_net(&preparer, &totals, delta);
                assert_eq!((state.digest(), state.row_bytes()), point, "behind delta {delta}");
            }
            for table in tables {
                let records = |state: &State| {
                    let rows = state.table(table).unwrap().iter().map(|(key, row)| (key, decode_record(row).unwrap()));
                    rows.collect::<Vec<_>>()
                };
                assert_eq!(records(&state), records(&plain));
            }
        }
    }

    #[test]
    fn of_several_deletes_of_what_is_not_there_the_first_by_the_order_of_the_commits_is_told() {
        let mut state = State::empty(Identity::fresh());
        let rows = |writer: &mut CommitWriter, out: &mut Vec<u8>| {
            (0..3_000).for_each(|id| writer.put(out, "t", 0, &row(&record! { "id": id, "n": 1 })));
        };
        let first = commit(|writer, out| {
            writer.create(out, "t", &TableDefinition::new("id"));
            rows(writer, out);
        });
        state.apply(Seq::new(1), &first).unwrap();
        let preparer = state.preparer();
        // The first one is of the greatest key, so that it is among the last that are made.
        let prepared = [9_000, 5_000, -1].map(|gone| {
            let payload = commit(|writer, out| {
                rows(writer, out);
                writer.delete(out, "t", &Key::Int(gone));
            });
            let mut changes = Changes::default();
            assert!(matches!(preparer.prepare(&payload, 0..payload.len(), &mut changes), Prepared::Ready(_)));
            (payload, changes)
        });
        let batches = prepared.iter().enumerate();
        let batches: Vec<_> = batches.map(|(delta, (bytes, changes))| ChangeBatch { changes, bytes, delta }).collect();
        let (_, wrong) = state.apply_net(&preparer, &batches, batches.len());
        assert_eq!(wrong, Some(ChangeNumber { batch: 0, at: 3_000 }));
        assert_eq!(preparer.missing(&prepared[0].1, 3_000).unwrap(), "a record 9000 of table \"t\" to delete");
    }
}
