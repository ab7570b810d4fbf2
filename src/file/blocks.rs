//! Blocks of a snapshot's rows, decoded by all cores.
//!
//! A round gathers a few megabytes of blocks; threads take one after the other, check and copy its rows; then the rows go
//! into the table in the order of the file, and the first mistake in that order is the one told. Memory is bounded by
//! the round.

use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Result};
use crate::state::{Run, TableState};
use crate::value::Key;
use crate::wire::{Malformed, Reader};

/// A round ends with the block that reaches this many bytes.
const ROUND_BYTES: usize = 4 << 20;
/// More threads than this wait for the reading.
const THREADS_MAX: usize = 8;

/// A block as it stands in the file.
#[derive(Default)]
struct Block {
    payload: Vec<u8>,
    payload_at: u64,
    /// Where the file's reader is behind it.
    end: u64,
}

/// Why a block is none, and where in its payload.
type Refused = (usize, String);

/// The blocks of one round.
pub(crate) struct Blocks {
    threads: usize,
    blocks: Vec<Block>,
    bytes: usize,
    /// Buffers of the round before.
    spare: Vec<Vec<u8>>,
}

impl Blocks {
    /// For a file of so many bytes: a small one is not worth a thread.
    pub(crate) fn new(file_bytes: u64) -> Blocks {
        let cores = || thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
        let threads = if file_bytes > ROUND_BYTES as u64 { cores() } else { 1 };
        Blocks { threads, blocks: Vec::new(), bytes: 0, spare: Vec::new() }
    }

    /// A buffer for the payload of the next frame.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a block in. Says whether the round is full.
    pub(crate) fn push(&mut self, payload: Vec<u8>, payload_at: u64, end: u64) -> bool {
        self.bytes = self.bytes.saturating_add(payload.len());
        self.blocks.push(Block { payload, payload_at, end });
        self.threads == 1 || self.bytes >= ROUND_BYTES
    }

    /// Decodes the blocks of the round into the table, and calls `each` with the rows of one and where it ends.
    pub(crate) fn flush(
        &mut self,
        path: &Path,
        table: &mut TableState,
        last: &mut Option<Key>,
        mut each: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let decoded = decode_all(&self.blocks, table, self.threads);
        for (block, decoded) in self.blocks.drain(..).zip(decoded) {
            let refused =
                |(at, expected): Refused| Error::corrupt(path, block.payload_at.saturating_add(at as u64), expected);
            let Decoded { run, first_at } = decoded.map_err(refused)?;
            if let (Some(last), Some(first)) = (&*last, run.first())
                && last >= first
            {
                return Err(refused((first_at, not_behind(first))));
            }
            *last = run.last().cloned().or_else(|| last.take());
            let count = run.len() as u64;
            table.append(&run);
            self.spare.push(block.payload);
            each(count, block.end)?;
        }
        self.bytes = 0;
        Ok(())
    }

    /// Where the first block of the round is.
    pub(crate) fn begins_at(&self) -> Option<u64> {
        self.blocks.first().map(|block| block.payload_at)
    }
}

/// One block's rows.
struct Decoded {
    run: Run,
    /// Where the first row begins in the payload.
    first_at: usize,
}

/// In the order of the blocks.
fn decode_all(blocks: &[Block], table: &TableState, threads: usize) -> Vec<Result<Decoded, Refused>> {
    if threads == 1 || blocks.len() == 1 {
        return blocks.iter().map(|block| decode(table, &block.payload)).collect();
    }
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<Result<Decoded, Refused>>>> = blocks.iter().map(|_| Mutex::default()).collect();
    let work = || {
        while let Some((block, slot)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            blocks.get(at).zip(slots.get(at))
        } {
            let decoded = decode(table, &block.payload);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(decoded);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(blocks.len()) {
            // Without another thread this one does it all.
            let _ = thread::Builder::new().name("dictdb-load".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    let taken = slots.into_iter().zip(blocks).map(|(slot, block)| {
        let decoded = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        decoded.unwrap_or_else(|| decode(table, &block.payload))
    });
    taken.collect()
}

/// Checks the rows of one block, and that they are in order.
fn decode(table: &TableState, payload: &[u8]) -> Result<Decoded, Refused> {
    let malformed = |m: Malformed| (m.at, m.expected.to_owned());
    let mut reader = Reader::new(payload);
    let count = reader.count(2).map_err(malformed)?;
    if count == 0 {
        return Err((0, "at least one row in a block".to_owned()));
    }
    let mut run = Run::default();
    run.reserve(count, payload.len());
    let mut first_at = None;
    for _ in 0..count {
        let row = reader.bytes().map_err(malformed)?;
        let at = reader.pos().saturating_sub(row.len());
        let key = table.admit(row, None).map_err(|m| (at.saturating_add(m.at), m.expected))?;
        if run.last().is_some_and(|last| *last >= key) {
            return Err((at, not_behind(&key)));
        }
        run.push(table, key, row);
        first_at = first_at.or(Some(at));
    }
    reader.finish().map_err(malformed)?;
    Ok(Decoded { run, first_at: first_at.unwrap_or_default() })
}

fn not_behind(key: &Key) -> String {
    format!("a row whose key comes after the one before it, not {key}")
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::definition::TableDefinition;
    use crate::{record, row, wire};

    const BLOCK_AT: u64 = 1_000;

    fn payload(keys: Range<i64>) -> Vec<u8> {
        let mut payload = Vec::new();
        wire::put_u64(&mut payload, keys.clone().count() as u64);
        for id in keys {
            let mut bytes = Vec::new();
            row::encode_record(&record! { "id": id, "text": "x".repeat(50) }, &mut bytes).unwrap();
            wire::put_bytes(&mut payload, &bytes);
        }
        payload
    }

    /// Block `n` lies at `n` times [`BLOCK_AT`]. Gives what is told after each of them.
    fn load(threads: usize, payloads: &[Vec<u8>]) -> (TableState, Vec<(u64, u64)>, Result<()>) {
        let mut table = TableState::new("t", TableDefinition::new("id"));
        let mut blocks = Blocks { threads, blocks: Vec::new(), bytes: 0, spare: Vec::new() };
        for (n, payload) in payloads.iter().enumerate() {
            let at = n as u64 * BLOCK_AT;
            let mut buffer = blocks.buffer();
            buffer.extend_from_slice(payload);
            blocks.push(buffer, at, at + payload.len() as u64);
        }
        let (mut told, mut last) = (Vec::new(), None);
        let outcome = blocks.flush(Path::new("f"), &mut table, &mut last, |count, end| {
            told.push((count, end));
            Ok(())
        });
        (table, told, outcome)
    }

    #[test]
    fn however_many_threads_decode_them_the_rows_come_in_the_order_of_the_file() {
        let payloads: Vec<_> = (0..20).map(|n| payload(n * 100..n * 100 + 100 - n)).collect();
        let (one, told, outcome) = load(1, &payloads);
        outcome.unwrap();
        assert_eq!((one.rows().len(), told.len()), (payloads.len() * 100 - 190, payloads.len()));
        for threads in 2..6 {
            let (many, told_too, outcome) = load(threads, &payloads);
            outcome.unwrap();
            assert_eq!(told_too, told);
            assert!(many.rows().iter().eq(one.rows().iter()));
            assert_eq!((many.next_key(), many.row_bytes()), (one.next_key(), one.row_bytes()));
        }
    }

    #[test]
    fn the_first_mistake_in_the_order_of_the_file_is_told_and_nothing_behind_it_is_taken() {
        for threads in 1..5 {
            let mut payloads: Vec<_> = (0..12).map(|n| payload(n * 10..n * 10 + 10)).collect();
            payloads[9].clear();
            payloads[5].truncate(40);
            let (table, _, outcome) = load(threads, &payloads);
            let error = outcome.unwrap_err();
            let in_block_5 = 5 * BLOCK_AT..6 * BLOCK_AT;
            assert!(matches!(error, Error::Corrupt { offset, .. } if in_block_5.contains(&offset)), "{error}");
            assert_eq!(table.rows().len(), 50);
        }
    }

    #[test]
    fn a_block_that_does_not_begin_behind_the_end_of_the_one_before_it_is_refused_at_its_first_row() {
        let payloads = [payload(0..10), payload(9..20), payload(20..30)];
        let (_, _, outcome) = load(3, &payloads);
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Corrupt { offset, .. } if offset == BLOCK_AT + 2), "{error}");
        assert!(error.to_string().contains("comes after"), "{error}");
    }
}
