//! Changes of many commits, made together: those of far keys on different threads.
//!
//! Nearly each of them waits for a leaf that is in no cache, so that what counts is how many wait at once. What each delta
//! makes of the digest and of the next automatic key is counted all the same.

use std::sync::{Mutex, PoisonError};

use super::prepared::{Change, Preparer};
use super::{State, TableState};
use crate::history::Digest;
use crate::pipeline;
use crate::row::{Parts, Shapes, Summary};
use crate::rows::Rows;
use crate::tree::{WARM_MAX, Way};
use crate::value::Key;

/// A change among many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net<'c> {
    pub(crate) change: &'c Change,
    /// Of the commit that it is part of.
    pub(crate) payload: &'c [u8],
    /// Which of the deltas it is part of.
    pub(crate) delta: usize,
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

/// The changes of one table, or of a part of it, each with its number.
type Numbered<'n, 'c> = Vec<(usize, &'n Net<'c>)>;

/// Part of a table's rows, and what is to be done with them.
struct Share<'n, 'c> {
    rows: Rows,
    shapes: Shapes,
    changes: Numbered<'n, 'c>,
    /// By delta.
    totals: Vec<Total>,
    /// The first change that deletes what is not there.
    wrong: Option<usize>,
}

impl State {
    /// Makes changes, which come in the order of their commits, and were prepared for the tables that there are. What they
    /// make of each table is to be counted afterwards, for one delta after the other. Where one deletes what is not there,
    /// the first that does comes with that; then only the deltas before its own can be counted.
    pub(crate) fn apply_net(
        &mut self,
        preparer: &Preparer,
        changes: &[Net<'_>],
        deltas: usize,
    ) -> (Totals, Option<usize>) {
        let mut of_tables: Vec<Numbered<'_, '_>> = preparer.tables.iter().map(|_| Vec::new()).collect();
        for (number, net) in changes.iter().enumerate() {
            if let Some(of_table) = of_tables.get_mut(net.change.table) {
                of_table.push((number, net));
            }
        }
        let (mut totals, mut wrong) = (Vec::with_capacity(of_tables.len()), None);
        for (of_table, (name, _)) in of_tables.into_iter().zip(&preparer.tables) {
            let Some(table) = self.tables.get_mut(&**name).filter(|_| !of_table.is_empty()) else {
                totals.push(Vec::new());
                continue;
            };
            let (of_deltas, first) = table.apply_net(of_table, deltas);
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

impl TableState {
    /// What each delta makes of the table, none of which is counted; and the first change that is wrong.
    fn apply_net(&mut self, changes: Numbered<'_, '_>, deltas: usize) -> (Vec<Total>, Option<usize>) {
        let threads = pipeline::cores().min(changes.len() / SHARE_MIN).max(1);
        let rows = std::mem::replace(&mut self.rows, Rows::new());
        let before = rows.len();
        let (bounds, parts): (Vec<Key>, Vec<Rows>) = rows.part(threads);
        let shares = parts.into_iter().map(|rows| {
            let totals = vec![Total::NONE; deltas];
            Share { rows, shapes: self.shapes.clone(), changes: Vec::new(), totals, wrong: None }
        });
        let mut shares: Vec<_> = shares.collect();
        for (number, net) in changes {
            let at = bounds.partition_point(|bound| *bound <= net.change.key);
            if let Some(share) = shares.get_mut(at) {
                share.changes.push((number, net));
            }
        }
        let waiting = Mutex::new(shares.iter_mut());
        pipeline::on_threads("dictdb-load", threads, || {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(share) = next else { break };
                share.make();
            }
        });
        let (mut totals, mut wrong) = (vec![Total::NONE; deltas], None);
        let mut parts = Vec::with_capacity(shares.len());
        for share in shares {
            totals.iter_mut().zip(&share.totals).for_each(|(total, more)| total.add(more));
            wrong = wrong.into_iter().chain(share.wrong).min();
            parts.push(share.rows);
        }
        self.rows = Rows::unite(bounds, parts, before);
        (totals, wrong)
    }
}

impl Share<'_, '_> {
    fn make(&mut self) {
        for group in self.changes.chunks(WARM_MAX) {
            let ways = self.rows.warm(group.iter().map(|(_, net)| &net.change.key));
            for (at, (number, net)) in group.iter().enumerate() {
                let way = ways.get(at).unwrap_or(&Way::UNKNOWN);
                let before = put(&mut self.rows, &mut self.shapes, way, net);
                let after = net.change.put.as_ref().map(|(.., summary)| *summary);
                if before.is_none() && after.is_none() {
                    self.wrong = self.wrong.or(Some(*number));
                }
                if let Some(total) = self.totals.get_mut(net.delta) {
                    total.count(&net.change.key, before, after);
                }
            }
        }
    }
}

/// Makes a change, to whose key an earlier walk went that way; what was there before.
fn put(rows: &mut Rows, shapes: &mut Shapes, way: &Way, net: &Net<'_>) -> Option<Summary> {
    let (key, mut before) = (&net.change.key, None);
    match &net.change.put {
        Some((number, values, _)) => {
            let values = net.payload.get(values.clone()).unwrap_or_default();
            shapes.store_counted(&Parts { number: Some(*number), names: &[], values }, |shapes, stored| {
                rows.insert_near(way, key.clone(), stored, |row| before = Some(shapes.summary(row)));
            });
        }
        None => _ = rows.remove(key, |row| before = Some(shapes.summary(row))),
    }
    before
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
