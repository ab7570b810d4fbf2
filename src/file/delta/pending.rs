//! Deltas that were read and checked, and whose changes are not in the state yet: they are put there together.

use std::path::PathBuf;
use std::sync::Arc;

use super::Chunk;
use crate::error::{Error, Result};
use crate::file::check_digest;
use crate::history::Digest;
use crate::state::{Change, ChangeBatch, ChangeNumber, ChangeTarget, Preparer, State, Totals};

/// Changes wait until they take so many bytes, those of the deltas themselves and what was made of them.
const BYTES_MAX: usize = 16 << 20;
/// Or there are so many pairs of a delta and a table, as each is counted.
const TOTALS_MAX: usize = 1 << 16;

/// What is wrong with one of the deltas that were read.
#[derive(Debug)]
pub(crate) struct Unsound {
    /// Which one, in the order in which they were.
    pub(crate) delta: usize,
    pub(crate) error: Error,
}

/// Deltas on their way into a state. Its seq and time, and which tables there are, are those behind all that was read; its
/// records and its digest are not, until they are [settled](Pending::settle).
#[derive(Default)]
pub(crate) struct Pending {
    /// All that were read, the one being read at the end.
    deltas: Vec<Delta>,
    /// Those before are settled.
    settled: usize,
    /// Of commits that are ready, each with its delta; prepared for the same tables.
    chunks: Vec<(usize, Chunk)>,
    bytes: usize,
    /// Where the last of them leads by its own word.
    claimed: Option<Digest>,
    /// The state is not the one that they speak of, as text before them was edited: their digests are not its own.
    pub(super) edited: bool,
    /// Chunks that are done with, for their buffers.
    pub(super) spare: Vec<Chunk>,
}

struct Delta {
    path: PathBuf,
    /// Its bytes, and the digest in its seal.
    seal: Option<(u64, Digest)>,
}

impl Pending {
    /// The digest that the state will have.
    pub(crate) fn digest(&self, state: &State) -> Digest {
        self.claimed.unwrap_or_else(|| state.digest())
    }

    /// Begins with the next delta.
    pub(crate) fn begin(&mut self, path: PathBuf) {
        self.deltas.push(Delta { path, seal: None });
    }

    /// Something is wrong with the delta being read, unless it is with one before. What is no damage is told in any case.
    pub(crate) fn unsound(&mut self, state: &mut State, error: Error) -> Unsound {
        let delta = self.deltas.len().saturating_sub(1);
        if !error.is_damage() {
            return Unsound { delta, error };
        }
        self.settle(state).map_or_else(|before| before, |()| Unsound { delta, error })
    }

    /// The delta being read is whole, and its seal has this digest.
    pub(super) fn seal(&mut self, state: &mut State, bytes: u64, digest: Digest) -> Result<(), Unsound> {
        if let Some(delta) = self.deltas.last_mut() {
            delta.seal = Some((bytes, digest));
        }
        self.claimed = Some(digest);
        let totals = self.deltas.len().saturating_sub(self.settled).saturating_mul(state.table_count());
        if self.chunks.is_empty() || totals > TOTALS_MAX { self.settle(state) } else { Ok(()) }
    }

    pub(super) fn push(&mut self, state: &mut State, chunk: Chunk) -> Result<(), Unsound> {
        // The payloads, and the keys in the changes, which may be text; the changes, and what it takes to give them out.
        let each = size_of::<(Change, ChangeTarget, u64, ChangeNumber)>();
        let changes = chunk.changes.len().saturating_mul(each);
        let payloads = chunk.payloads.len().saturating_mul(2);
        self.bytes = self.bytes.saturating_add(payloads).saturating_add(changes);
        self.chunks.push((self.deltas.len().saturating_sub(1), chunk));
        if self.bytes > BYTES_MAX { self.settle(state) } else { Ok(()) }
    }

    /// Makes all changes that were read, and checks the digest of each delta that is whole. The first delta with which
    /// something is wrong is the one told: what one deletes may be missing because of what another before it did.
    pub(crate) fn settle(&mut self, state: &mut State) -> Result<(), Unsound> {
        let first = self.settled;
        let chunks = std::mem::take(&mut self.chunks);
        let preparer = chunks.first().map(|(_, chunk)| Arc::clone(&chunk.preparer));
        let made = preparer.as_ref().map(|preparer| self.make(state, preparer, &chunks));
        let (totals, missing) = made.unzip();
        let missing = missing.flatten();
        for (number, delta) in self.deltas.iter().enumerate().skip(first) {
            if let Some(missing) = missing.as_ref().filter(|missing| missing.delta == number) {
                let (at, expected) = (missing.at, missing.expected.clone());
                return Err(Unsound { delta: number, error: Error::corrupt(&delta.path, at, expected) });
            }
            if let Some((preparer, totals)) = preparer.as_ref().zip(totals.as_ref()) {
                state.count_net(preparer, totals, number.saturating_sub(first));
            }
            if let Some((bytes, digest)) = delta.seal {
                if !self.edited {
                    let checked = check_digest(&delta.path, bytes, digest, state);
                    checked.map_err(|error| Unsound { delta: number, error })?;
                }
                self.settled = number.saturating_add(1);
            }
        }
        (self.bytes, self.claimed) = (0, None);
        self.spare.extend(chunks.into_iter().map(|(_, chunk)| chunk.cleared()));
        Ok(())
    }

    /// Makes the changes; what they make of the tables, and the first delete of what is not there.
    fn make(&self, state: &mut State, preparer: &Preparer, chunks: &[(usize, Chunk)]) -> (Totals, Option<Missing>) {
        let batches = chunks.iter().map(|(delta, chunk)| {
            let delta = delta.saturating_sub(self.settled);
            ChangeBatch { changes: &chunk.changes, bytes: &chunk.payloads, delta }
        });
        let batches: Vec<_> = batches.collect();
        let deltas = self.deltas.len().saturating_sub(self.settled);
        let (totals, wrong) = state.apply_net(preparer, &batches, deltas);
        let missing = wrong.map(|wrong| match Missing::of(wrong, preparer, chunks) {
            Some(missing) => missing,
            None => unreachable!("a change that was made is one of those that were read"),
        });
        (totals, missing)
    }
}

/// A delete of what is not there.
struct Missing {
    delta: usize,
    /// Where in its file.
    at: u64,
    expected: String,
}

impl Missing {
    fn of(wrong: ChangeNumber, preparer: &Preparer, chunks: &[(usize, Chunk)]) -> Option<Missing> {
        let ChangeNumber { batch, at } = wrong;
        let (delta, chunk) = chunks.get(batch)?;
        Some(Missing {
            delta: *delta,
            at: chunk.commit_of(at)?.payload_at.saturating_add(chunk.changes.get(at)?.at as u64),
            expected: preparer.missing(&chunk.changes, at)?,
        })
    }
}
