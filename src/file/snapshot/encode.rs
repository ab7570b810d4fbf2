//! The frames of a snapshot, made beside the thread that writes them.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::Result;
use crate::file::blocks::BlockWriter;
use crate::file::compression::{Compression, Compressor};
use crate::file::give_way;
use crate::frame::{self, FRAME_HEADER_BYTES, FrameKind};
use crate::history::{Lineage, Seq};
use crate::limits::BLOCK_BYTES;
use crate::pipeline;
use crate::state::State;
use crate::wire;

/// Of a state with fewer bytes of rows the frames are made where they are wanted.
const BESIDE_BYTES_MIN: u64 = 4 << 20;
/// Frames on their way.
const WAITING: usize = 2;

/// Takes a frame, and the rows in it. Ends the making where it fails.
type Take<'t> = dyn FnMut(&[u8], u64) -> Result<()> + 't;

/// Calls `take` with each frame in order.
///
/// Writers copy the leaves that the state holds when they change them, so that it lets go of each one that is done with.
pub(super) fn frames(state: State, compression: Compression, take: &mut Take<'_>) -> Result<()> {
    if state.row_bytes() < BESIDE_BYTES_MIN {
        return make(state, compression, |frame, rows| take(frame, rows));
    }
    let mut state = Some(state);
    let (give, frames) = sync_channel::<(Vec<u8>, u64)>(WAITING);
    let (give_back, spare) = sync_channel::<Vec<u8>>(WAITING);
    let taken = thread::scope(|scope| {
        let held = &mut state;
        let beside = move || {
            give_way();
            if let Some(state) = held.take() {
                // Whoever takes no more has said why.
                let _ = make(state, compression, |frame, rows| hand_over(&give, &spare, frame, rows));
            }
        };
        match thread::Builder::new().name("dictdb-backup".to_owned()).spawn_scoped(scope, beside) {
            Ok(_) => Some(take_all(frames, &give_back, take)),
            Err(_) => None,
        }
    });
    match (taken, state) {
        (None, Some(state)) => make(state, compression, |frame, rows| take(frame, rows)),
        (taken, _) => taken.unwrap_or(Ok(())),
    }
}

fn take_all(frames: Receiver<(Vec<u8>, u64)>, give_back: &SyncSender<Vec<u8>>, take: &mut Take<'_>) -> Result<()> {
    for (frame, rows) in frames {
        take(&frame, rows)?;
        let _ = give_back.try_send(frame);
    }
    Ok(())
}

/// Nobody takes frames any more.
struct Unwanted;

fn hand_over(
    give: &SyncSender<(Vec<u8>, u64)>,
    spare: &Receiver<Vec<u8>>,
    frame: &mut Vec<u8>,
    rows: u64,
) -> std::result::Result<(), Unwanted> {
    let frame = std::mem::replace(frame, spare.try_recv().unwrap_or_default());
    give.send((frame, rows)).map_err(|_| Unwanted)
}

fn make<E>(
    state: State,
    compression: Compression,
    mut each: impl FnMut(&mut Vec<u8>, u64) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let (lineage, seq) = (state.identity.lineage, state.seq);
    let mut bytes = Vec::new();
    let mut round = Round::new(compression, lineage, seq);
    let mut block = BlockWriter::default();
    let tables: Vec<_> = state.tables().map(|(name, table)| (name.clone(), table.clone())).collect();
    drop(state);
    for (name, table) in tables {
        bytes.clear();
        let start = frame::begin(&mut bytes);
        wire::put_str(&mut bytes, &name);
        table.definition().encode_into(&mut bytes);
        wire::put_u64(&mut bytes, table.next_key());
        wire::put_u64(&mut bytes, table.len() as u64);
        frame::finish(&mut bytes, start, FrameKind::Table, lineage, seq, Seq::ZERO);
        each(&mut bytes, 0)?;

        let (mut leaves, shapes) = table.into_leaves();
        while let Some(leaf) = leaves.next() {
            for row in leaf.rows() {
                block.push(shapes.parts(row));
                if block.bytes() >= BLOCK_BYTES && round.push(&mut block) {
                    round.finish(&mut each)?;
                }
            }
            leaves.give_back(leaf);
        }
        if block.len() > 0 {
            round.push(&mut block);
        }
        round.finish(&mut each)?;
    }
    Ok(())
}

/// A round ends with the block that reaches this many bytes.
const ROUND_BYTES: usize = 4 << 20;

/// Blocks of rows on their way into the file: made into frames by all cores where they are to be compressed.
struct Round {
    compression: Compression,
    lineage: Lineage,
    seq: Seq,
    threads: usize,
    /// Frames, and the rows in them.
    frames: Vec<(Vec<u8>, u64)>,
    bytes: usize,
    /// Buffers of the round before.
    spare: Vec<Vec<u8>>,
}

impl Round {
    fn new(compression: Compression, lineage: Lineage, seq: Seq) -> Round {
        let threads = if compression == Compression::None { 1 } else { pipeline::cores() };
        Round { compression, lineage, seq, threads, frames: Vec::new(), bytes: 0, spare: Vec::new() }
    }

    /// Takes a block in. Says whether the round is full.
    fn push(&mut self, block: &mut BlockWriter) -> bool {
        let mut bytes = self.spare.pop().unwrap_or_default();
        let rows = block.len() as u64;
        bytes.clear();
        frame::begin(&mut bytes);
        block.finish(&mut bytes);
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.frames.push((bytes, rows));
        self.threads == 1 || self.bytes >= ROUND_BYTES
    }

    /// Finishes the frames of the round, and calls `each` with them.
    fn finish<E>(
        &mut self,
        each: &mut impl FnMut(&mut Vec<u8>, u64) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let (lineage, seq) = (self.lineage, self.seq);
        let threads = self.threads.min(self.frames.len());
        let next = Mutex::new(self.frames.iter_mut());
        let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
        let compressor = || match self.compression {
            Compression::None => None,
            Compression::Lz4 => Some(Compressor::new()),
        };
        pipeline::on_threads("dictdb-compress", threads, || {
            let mut compressor = compressor();
            while let Some((bytes, _)) = take() {
                let compressed = compressor.as_mut().is_some_and(|one| one.compress(bytes, FRAME_HEADER_BYTES));
                let kind = if compressed { FrameKind::CompressedRows } else { FrameKind::Rows };
                frame::finish(bytes, 0, kind, lineage, seq, Seq::ZERO);
            }
        });
        for (mut bytes, rows) in self.frames.drain(..) {
            each(&mut bytes, rows)?;
            self.spare.push(bytes);
        }
        self.bytes = 0;
        Ok(())
    }
}
