//! The write path: one writer at a time, and readers who wait for it as little as can be.
//!
//! As long as no reader has had to wait, a commit of one record is made in one go, under the lock. Once one has, it is
//! decided, encoded and logged while readers go on; they wait only while it is put into the tree, whose nodes have been
//! looked at just before. Where a view shares those nodes, so that they have to be copied, that is done apart, and readers
//! wait for one pointer to change. That takes the writer a fifth longer, so it goes back when nobody has waited for long.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use super::{Access, DictDb};
use crate::batch::{Batch, Seal, Upserted, no_table};
use crate::error::{Error, Result};
use crate::frame;
use crate::history::{Seq, Timestamp};
use crate::log::SegmentEnd;
use crate::mutation::CommitWriter;
use crate::put::{self, Put};
use crate::state::{InPlace, State, TableState};
use crate::store::{Durability, Store};
use crate::value::Key;

/// What only the one writer uses.
#[derive(Default)]
pub(super) struct Writer {
    /// Scratch for the frame of the commit in the making.
    frame: Vec<u8>,
    /// Scratch for what its table is to hold of a record.
    stored: Vec<u8>,
}

/// A scratch buffer larger than this is given back after the commit that needed it.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// So many commits are made in two steps after a reader has waited: a tenth of a second of a busy writer.
pub(super) const CONSIDERATE_COMMITS: u32 = 1 << 16;

/// What the log made of a commit.
struct Logged {
    /// Bytes that wait to be written.
    pending: usize,
    /// Of the commit's frame.
    bytes: u64,
    /// Whether the ring is to be fitted to the records.
    fits: bool,
}

/// A commit of one record, decided.
struct Change<'c> {
    table: &'c str,
    key: &'c Key,
    /// The record, and which field of it the key is; `None` where the record goes.
    row: Option<(usize, &'c [u8])>,
    in_place: Option<InPlace>,
}

impl DictDb {
    /// Commits a record that is new.
    pub(crate) fn insert(&self, table: &str, row: &[u8]) -> Result<Key> {
        if !self.is_considerate() {
            return self.write(|batch| batch.insert(table, row));
        }
        self.put(table, true, |state| put::keyed(state, table, row)).map(|(put, _)| put.key)
    }

    pub(crate) fn upsert(&self, table: &str, row: &[u8]) -> Result<(Key, Upserted)> {
        if !self.is_considerate() {
            return self.write(|batch| batch.upsert(table, row));
        }
        let (put, replaced) = self.put(table, false, |state| put::keyed(state, table, row))?;
        Ok((put.key, if replaced { Upserted::Replaced } else { Upserted::Inserted }))
    }

    pub(crate) fn replace(&self, table: &str, row: &[u8]) -> Result<Key> {
        if !self.is_considerate() {
            return self.write(|batch| batch.replace(table, row));
        }
        self.put(table, false, |state| put::replacing(state, table, row)).map(|(put, _)| put.key)
    }

    /// Gives the new row.
    pub(crate) fn update(&self, table: &str, key: &Key, changes: &[u8]) -> Result<Vec<u8>> {
        if !self.is_considerate() {
            return self.write(|batch| batch.update(table, key, changes));
        }
        let (put, _) = self.put(table, false, |state| put::merged(state, table, key, changes))?;
        Ok(put.row.into_owned())
    }

    /// Commits that a record goes; `false`, and no commit, where there is none.
    pub(crate) fn delete(&self, table: &str, key: &Key) -> Result<bool> {
        if !self.is_considerate() {
            return self.write(|batch| batch.delete(table, key));
        }
        self.take_away(table, key)
    }

    /// Whether a reader has waited not long ago. For one commit.
    fn is_considerate(&self) -> bool {
        let left = self.shared.considerate.load(Ordering::Relaxed);
        if left > 0 {
            // A reader's word that comes in between may be lost; the next one's is not.
            self.shared.considerate.store(left.saturating_sub(1), Ordering::Relaxed);
        }
        left > 0
    }

    /// Puts, in two steps, a record that `decide` makes of the table as it is; whether it replaces one, which it must not
    /// where it `is_new`.
    fn put<'r>(
        &self,
        table: &str,
        is_new: bool,
        decide: impl FnOnce(&TableState) -> Result<Put<'r>>,
    ) -> Result<(Put<'r>, bool)> {
        // The clock may be the user's: it is asked where a panic of it breaks nothing.
        let time = self.shared.clock.now();
        let mut writer = self.lock_writer()?;
        let state = self.read();
        let (is_shared, held) = state.look(table);
        let held = held.ok_or_else(|| no_table(table))?;
        let put = decide(held)?;
        let place = held.look(&put.key, is_shared);
        if is_new && place.is_taken() {
            return Err(Error::DuplicateKey { table: table.to_owned(), key: put.key });
        }
        let in_place = held.in_place(&place, Some(&put.row), &mut writer.stored);
        let change = Change { table, key: &put.key, row: Some((put.field, &put.row)), in_place };
        self.commit_one(writer, state, time, &change)?;
        Ok((put, place.is_taken()))
    }

    /// Deletes in two steps.
    fn take_away(&self, table: &str, key: &Key) -> Result<bool> {
        let time = self.shared.clock.now();
        let mut writer = self.lock_writer()?;
        let state = self.read();
        let (is_shared, held) = state.look(table);
        let held = held.ok_or_else(|| no_table(table))?;
        let place = held.look(key, is_shared);
        if place.is_taken() {
            let in_place = held.in_place(&place, None, &mut writer.stored);
            self.commit_one(writer, state, time, &Change { table, key, row: None, in_place })?;
        }
        Ok(place.is_taken())
    }

    fn commit_one(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        state: RwLockReadGuard<'_, State>,
        time: Timestamp,
        change: &Change<'_>,
    ) -> Result<()> {
        let seq = next_seq(&state)?;
        let Writer { frame, stored } = &mut *writer;
        frame.clear();
        let start = frame::begin(frame);
        let mut commit = CommitWriter::begin(frame);
        match change.row {
            Some((field, row)) => commit.put(frame, change.table, field, row),
            None => commit.delete(frame, change.table, change.key),
        }
        let fills_a_segment = self.store().is_some_and(|store| store.fills_a_segment(frame.len()));
        let logged = match &change.in_place {
            Some(in_place) if !fills_a_segment => {
                let seal = self.seal(&state, seq, time);
                // Nobody changes the state meanwhile: the writer is this one.
                drop(state);
                seal.close(frame, start);
                let logged = self.log_commit(seq, frame, start, || None);
                let mut state = self.write_state();
                if let Some(table) = state.table_mut(change.table) {
                    table.apply_in_place(change.key, in_place, stored);
                }
                (state.seq, state.time) = (seq, time);
                self.fit_ring(&state, &logged);
                logged
            }
            _ => {
                let mut working = state.clone();
                drop(state);
                if let Some(table) = working.table_mut(change.table) {
                    match change.row {
                        Some((_, row)) => table.put(change.key.clone(), row),
                        None => table.delete(change.key),
                    };
                }
                self.seal(&working, seq, time).close(frame, start);
                let logged = self.end_commit(&mut working, frame, start, seq, time);
                self.publish(working);
                logged
            }
        };
        writer.give_back();
        drop(writer);
        self.settle(seq, logged, None)
    }

    /// Commits one operation on the live state; readers wait for the whole of it. `operation` either fails without
    /// having changed anything, or succeeds with at most the mutations of one commit.
    pub(crate) fn write<T>(&self, operation: impl FnOnce(&mut Batch<'_>) -> Result<T>) -> Result<T> {
        let time = self.shared.clock.now();
        let mut writer = self.lock_writer()?;
        let mut state = self.write_state();
        let seq = next_seq(&state)?;
        let seal = self.seal(&state, seq, time);
        let mut batch = Batch::of_one(&mut state, &mut writer.frame, seal);
        let value = operation(&mut batch);
        let (start, is_empty) = (batch.start(), batch.is_empty());
        let value = match value {
            Ok(value) if !is_empty => {
                batch.close(self.synced());
                value
            }
            nothing_done => {
                drop(state);
                writer.give_back();
                return nothing_done;
            }
        };
        let logged = self.end_commit(&mut state, &writer.frame, start, seq, time);
        drop(state);
        writer.give_back();
        drop(writer);
        self.settle(seq, logged, None)?;
        Ok(value)
    }

    /// A transaction whose body is the engine's own.
    pub(crate) fn transaction_batch<T>(&self, body: impl FnOnce(&mut Batch<'_>) -> Result<T>) -> Result<T> {
        self.commit_on_copy(None, |mut batch| {
            let outcome = body(&mut batch);
            (batch, outcome)
        })
    }

    /// Lets `body` work on a copy of the state and commits what it did, unless it fails or panics.
    pub(super) fn commit_on_copy<T, E: From<Error>>(
        &self,
        durability: Option<Durability>,
        body: impl for<'b> FnOnce(Batch<'b>) -> (Batch<'b>, Result<T, E>),
    ) -> Result<T, E> {
        let writer = self.lock_writer()?;
        let mut working = self.read().clone();
        let seq = next_seq(&working)?;
        let (mut writer, (start, is_empty, outcome, time)) = self.call_out(writer, |writer| {
            let (batch, outcome) = body(Batch::new(&mut working, &mut writer.frame));
            (batch.start(), batch.is_empty(), outcome, self.shared.clock.now())
        });
        let value = match outcome {
            Ok(value) if !is_empty => value,
            nothing_done => {
                writer.give_back();
                return nothing_done;
            }
        };
        let frame = &mut writer.frame;
        self.seal(&working, seq, time).close(frame, start);
        let logged = self.end_commit(&mut working, frame, start, seq, time);
        self.publish(working);
        writer.give_back();
        drop(writer);
        self.settle(seq, logged, durability)?;
        Ok(value)
    }

    /// Calls code that may be the user's, for the holder of `writer`. A write by it is refused. Where it panics, the guard is
    /// let go of before the panic goes on: user code broke, not the engine.
    fn call_out<'w, T>(
        &self,
        mut writer: MutexGuard<'w, Writer>,
        code: impl FnOnce(&mut Writer) -> T,
    ) -> (MutexGuard<'w, Writer>, T) {
        self.shared.in_transaction.store(thread_token(), Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| code(&mut writer)));
        self.shared.in_transaction.store(0, Ordering::Relaxed);
        match outcome {
            Ok(value) => (writer, value),
            Err(panic) => {
                writer.give_back();
                drop(writer);
                resume_unwind(panic);
            }
        }
    }

    /// Replaces the whole state, and with it the history: used by `apply_delta`. `change` decides on a copy.
    pub(crate) fn rebase<T>(&self, change: impl FnOnce(State) -> Result<(State, T)>) -> Result<T> {
        if self.store().is_some() {
            let what = "a delta begins a new history, which an opened store cannot: restore the whole chain into a new \
                        directory with RestoreOptions::restore_into";
            return Err(Error::Unsupported { what });
        }
        let writer = self.lock_writer()?;
        let working = self.read().clone();
        let (_writer, changed) = self.call_out(writer, |_| change(working));
        let (next, value) = changed?;
        let superseded = {
            let mut state = self.write_state();
            let mut ring = self.ring();
            *ring = ring.anew(next.seq);
            ring.fit(next.row_bytes());
            std::mem::replace(&mut *state, next)
        };
        drop(superseded);
        Ok(value)
    }

    /// Has readers see another state.
    fn publish(&self, next: State) {
        let superseded = std::mem::replace(&mut *self.write_state(), next);
        drop(superseded); // outside the lock: it may be the last owner of many nodes
    }

    fn seal(&self, state: &State, seq: Seq, time: Timestamp) -> Seal {
        Seal { lineage: state.identity.lineage, seq, time, synced: self.synced() }
    }

    /// A seq up to which commits are known to be durable.
    fn synced(&self) -> Seq {
        self.store().map_or(Seq::ZERO, Store::synced)
    }

    /// Gives the state the seq and time of a commit whose frame is closed, and [logs](Self::log_commit) that.
    fn end_commit(&self, state: &mut State, frame: &[u8], start: usize, seq: Seq, time: Timestamp) -> Result<Logged> {
        state.seq = seq;
        state.time = time;
        let logged = self.log_commit(seq, frame, start, || Some(SegmentEnd::of(state)));
        self.fit_ring(state, &logged);
        logged
    }

    /// Has the ring hold as much as it is to, where a commit gave cause to look.
    fn fit_ring(&self, state: &State, logged: &Result<Logged>) {
        if logged.as_ref().is_ok_and(|logged| logged.fits) {
            self.ring().fit(state.row_bytes());
        }
    }

    /// Pushes the closed frame of a commit into the ring and the log. The caller holds `writer`. Where the log refuses, the
    /// commit stands in memory alone, and nothing comes after it.
    fn log_commit(
        &self,
        seq: Seq,
        frame: &[u8],
        start: usize,
        end: impl FnOnce() -> Option<SegmentEnd>,
    ) -> Result<Logged> {
        let store = self.store();
        let frame = frame.get(start..).unwrap_or_default();
        let fits = self.ring().push(seq, frame);
        let pending = store.map_or(Ok(0), |store| store.append(seq, frame, end))?;
        Ok(Logged { pending, bytes: frame.len() as u64, fits })
    }

    /// Waits until a commit, which readers see, is as durable as it has to be.
    fn settle(&self, seq: Seq, logged: Result<Logged>, durability: Option<Durability>) -> Result<()> {
        let Logged { pending, bytes, .. } = logged?;
        let Some(store) = self.store() else { return Ok(()) };
        store.grew(bytes);
        store.settle(seq, pending, durability)
    }

    /// For the holder of `writer`.
    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refuse_inside_transaction(&self) -> Result<()> {
        if self.shared.in_transaction.load(Ordering::Relaxed) == thread_token() {
            return Err(Error::NestedWrite);
        }
        Ok(())
    }

    fn lock_writer(&self) -> Result<MutexGuard<'_, Writer>> {
        self.refuse_inside_transaction()?;
        let writer = self.shared.writer.lock().map_err(|_| Error::Poisoned { cause: Arc::new(Error::Panicked) })?;
        match &self.shared.access {
            Access::Memory => {}
            Access::Store(store) => store.begin()?,
            Access::ReadOnly(_) => return Err(Error::ReadOnly),
        }
        Ok(writer)
    }
}

impl Writer {
    #[cfg(test)]
    pub(super) fn frame_capacity(&self) -> usize {
        self.frame.capacity()
    }

    fn give_back(&mut self) {
        for scratch in [&mut self.frame, &mut self.stored] {
            if scratch.capacity() > SCRATCH_BYTES_MAX {
                *scratch = Vec::new();
            }
        }
    }
}

fn next_seq(state: &State) -> Result<Seq> {
    state.seq.next().ok_or_else(|| Error::Exhausted { what: "the log's seq".to_owned() })
}

/// A number of this thread's own, never 0.
fn thread_token() -> usize {
    thread_local!(static TOKEN: u8 = const { 0 });
    TOKEN.with(|token| std::ptr::from_ref(token).addr())
}
