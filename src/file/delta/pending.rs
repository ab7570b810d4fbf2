//! Deltas that were read and checked, and whose changes are not in the state yet: they are put there together.

use std::path::PathBuf;
use std::sync::Arc;

use super::Chunk;
use crate::error::{Error, Result};
use crate::file::check_digest;
use crate::history::Digest;
use crate::state::{Net, Preparer, State, Totals};

/// Changes wait until they take so many bytes, those of the deltas themselves and what was made of them.
const BYTES_MAX: usize = 32 << 20;

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

    /// Something is wrong with the delta being read, unless it is with one before.
    pub(crate) fn unsound(&mut self, state: &mut State, error: Error) -> Unsound {
        match self.settle(state) {
            Ok(()) => Unsound { delta: self.deltas.len().saturating_sub(1), error },
            Err(before) => before,
        }
    }

    /// The delta being read is whole, and its seal has this digest.
    pub(super) fn seal(&mut self, state: &mut State, bytes: u64, digest: Digest) -> Result<(), Unsound> {
        if let Some(delta) = self.deltas.last_mut() {
            delta.seal = Some((bytes, digest));
        }
        self.claimed = Some(digest);
        if self.chunks.is_empty() { self.settle(state) } else { Ok(()) }
    }

    pub(super) fn push(&mut self, state: &mut State, chunk: Chunk) -> Result<(), Unsound> {
        let changes = size_of_val(chunk.changes.as_slice());
        self.bytes = self.bytes.saturating_add(chunk.payloads.len()).saturating_add(changes);
        self.chunks.push((self.deltas.len().saturating_sub(1), chunk));
        if self.bytes > BYTES_MAX { self.settle(state) } else { Ok(()) }
    }

    /// Makes all changes that were read, and checks the digest of each delta that is whole.
    pub(crate) fn settle(&mut self, state: &mut State) -> Result<(), Unsound> {
        let first = self.settled;
        let counts = self.deltas.len().saturating_sub(first);
        let mut chunks = std::mem::take(&mut self.chunks);
        let preparer = chunks.first().map(|(_, chunk)| Arc::clone(&chunk.preparer));
        let totals = match &preparer {
            Some(preparer) => Some(self.make(state, preparer, &chunks, counts)?),
            None => None,
        };
        for (number, delta) in self.deltas.iter().enumerate().skip(first) {
            if let Some((preparer, totals)) = preparer.as_ref().zip(totals.as_ref()) {
                state.count_net(preparer, totals, number.saturating_sub(first));
            }
            if let Some((bytes, digest)) = delta.seal {
                check_digest(&delta.path, bytes, digest, state).map_err(|error| Unsound { delta: number, error })?;
                self.settled = number.saturating_add(1);
            }
        }
        (self.bytes, self.claimed) = (0, None);
        self.spare.extend(chunks.drain(..).map(|(_, chunk)| chunk.cleared()));
        Ok(())
    }

    fn make(
        &self,
        state: &mut State,
        preparer: &Preparer,
        chunks: &[(usize, Chunk)],
        deltas: usize,
    ) -> Result<Totals, Unsound> {
        let mut changes = Vec::with_capacity(chunks.iter().map(|(_, chunk)| chunk.changes.len()).sum());
        // Where the payload of each commit stands in its file, and how many changes come before its own.
        let mut places = Vec::new();
        for (delta, chunk) in chunks {
            let mut left = chunk.changes.iter();
            for commit in &chunk.commits {
                places.push((changes.len(), commit.payload_at));
                let payload = chunk.payloads.get(commit.payload.clone()).unwrap_or_default();
                let delta = delta.saturating_sub(self.settled);
                changes.extend(left.by_ref().take(commit.ready()).map(|change| Net { change, payload, delta }));
            }
        }
        state.apply_net(preparer, &changes, deltas).map_err(|wrong| {
            let (delta, at, expected) = changes.get(wrong).map_or((0, 0, String::new()), |net| {
                (net.delta.saturating_add(self.settled), net.change.at, preparer.missing(net.change))
            });
            let before = places.partition_point(|(first, _)| *first <= wrong);
            let payload_at = before.checked_sub(1).and_then(|n| places.get(n)).map_or(0, |(_, at)| *at);
            let path = self.deltas.get(delta).map(|delta| &*delta.path).unwrap_or(std::path::Path::new(""));
            Unsound { delta, error: Error::corrupt(path, payload_at.saturating_add(at as u64), expected) }
        })
    }
}
