//! The ring: the newest part of the log, encoded, in bounded memory.
//!
//! Frames lie in chunks, one behind the other. Only the newest chunk grows; the older ones are shared with whoever
//! reads them, so that a consumer copies at most the newest chunk while it holds the ring's lock. When the bytes
//! exceed the bound, whole chunks go, oldest first; a consumer that still wanted them gets a gap.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::frame;
use crate::history::Seq;
use crate::limits::{RING_BYTES_MAX, RING_BYTES_MIN};

/// The largest chunk, unless one frame alone is larger.
const CHUNK_BYTES_MAX: usize = 256 << 10;

#[derive(Debug)]
struct Chunk {
    first: Seq,
    last: Seq,
    bytes: Arc<Vec<u8>>,
}

/// How much a ring holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RingBytes {
    Fixed(usize),
    /// One of so many parts of the bytes of the records, within bounds.
    OfRecords(u64),
}

impl RingBytes {
    /// Of a database whose records have so many bytes.
    fn of(self, record_bytes: u64) -> usize {
        match self {
            RingBytes::Fixed(bytes) => bytes,
            RingBytes::OfRecords(parts) => {
                let part = record_bytes.checked_div(parts).unwrap_or(u64::MAX);
                usize::try_from(part).unwrap_or(usize::MAX).clamp(RING_BYTES_MIN, RING_BYTES_MAX)
            }
        }
    }

    /// Whatever the database holds.
    pub(crate) fn most(self) -> usize {
        self.of(u64::MAX)
    }
}

/// The newest frames of one history.
#[derive(Debug)]
pub(crate) struct Ring {
    setting: RingBytes,
    bytes_max: usize,
    chunk_bytes: usize,
    /// Closed chunks, oldest first; contiguous.
    closed: VecDeque<Chunk>,
    closed_bytes: usize,
    /// The chunk that grows, and where each of its frames begins.
    open: Vec<u8>,
    offsets: Vec<u32>,
    /// The memory of a chunk that went and that nobody else held, for the next one.
    spare: Vec<u8>,
    /// Seq of the newest frame pushed, whether or not it is still held.
    last: Seq,
    /// Seq of the oldest frame held; `last + 1` where none is.
    oldest: Seq,
}

/// The frames that a consumer asked for, shared or copied out of the ring.
#[derive(Clone, Debug)]
pub(crate) struct RingSlice {
    /// The frames lie in `(after, last]`.
    pub(crate) after: Seq,
    pub(crate) last: Seq,
    parts: Vec<Arc<Vec<u8>>>,
}

/// Where a reader of a slice stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    part: usize,
    at: usize,
}

/// Why the ring cannot serve a consumer, nor the log in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The oldest frame held comes later than the first one wanted.
    Gap { oldest: Seq },
    /// The seq lies beyond the newest frame.
    Ahead { last: Seq },
    /// The log, which should reach that far back, could not be read: damage, or a disk that fails.
    Unreadable,
}

impl Ring {
    /// A ring whose first frame will be the one after `last`. What it holds is [fitted](Ring::fit) to the records later.
    pub(crate) fn new(setting: RingBytes, last: Seq) -> Ring {
        let bytes_max = setting.of(0);
        Ring {
            setting,
            bytes_max,
            // A sixteenth at a time is lost when the ring is full.
            chunk_bytes: (bytes_max / 16).clamp(1, CHUNK_BYTES_MAX),
            closed: VecDeque::new(),
            closed_bytes: 0,
            open: Vec::new(),
            offsets: Vec::new(),
            spare: Vec::new(),
            last,
            oldest: Seq::new(last.get().saturating_add(1)),
        }
    }

    /// An empty ring of the same setting whose first frame will be the one after `last`.
    pub(crate) fn anew(&self, last: Seq) -> Ring {
        Ring::new(self.setting, last)
    }

    /// Holds what it is to hold of a database whose records have so many bytes.
    pub(crate) fn fit(&mut self, record_bytes: u64) {
        self.bytes_max = self.setting.of(record_bytes);
        self.forget_oldest();
    }

    /// Bytes of frames held now.
    pub(crate) fn bytes(&self) -> usize {
        self.closed_bytes.saturating_add(self.open.len())
    }

    /// Whether every commit after `seq` is still held.
    pub(crate) fn reaches_back_to(&self, seq: Seq) -> bool {
        seq.next().is_some_and(|first| first >= self.oldest) && seq <= self.last
    }

    /// Appends the frame of commit `seq`, which must be the one after the newest. Says whether it is time to
    /// [fit](Ring::fit): once a chunk, where it follows the records.
    pub(crate) fn push(&mut self, seq: Seq, frame: &[u8]) -> bool {
        assert_eq!(Some(seq), self.last.next(), "the log has no holes");
        let closes = !self.open.is_empty() && self.open.len().saturating_add(frame.len()) > self.chunk_bytes;
        if closes {
            self.close_chunk();
        }
        self.last = seq;
        let follows = matches!(self.setting, RingBytes::OfRecords(_));
        if frame.len() > self.bytes_max {
            // It would not fit if the ring were empty: the ring starts anew behind it.
            self.forget_all();
            return follows;
        }
        if self.open.is_empty() && frame.len() <= self.chunk_bytes && self.bytes_max >= CHUNK_BYTES_MAX {
            // One allocation for a chunk instead of a doubling series; small rings take memory as they need it.
            self.open.reserve_exact(self.chunk_bytes);
        }
        // A chunk holds less than 2^32 bytes: it is closed at 256 KiB, and one frame is at most 1 GiB and a header.
        self.offsets.push(self.open.len() as u32);
        self.open.extend_from_slice(frame);
        // A frame that is larger than a chunk is one by itself, at once: who reads it shares it, and copies nothing of it
        // under the lock.
        let is_large = self.open.len() > CHUNK_BYTES_MAX;
        if is_large {
            self.close_chunk();
        }
        self.forget_oldest();
        (closes || is_large) && follows
    }

    /// Keeps the bound.
    fn forget_oldest(&mut self) {
        while self.bytes() > self.bytes_max {
            match self.closed.pop_front() {
                Some(chunk) => {
                    self.closed_bytes = self.closed_bytes.saturating_sub(chunk.bytes.len());
                    self.oldest = chunk.last.next().unwrap_or(chunk.last);
                    self.spare = Arc::try_unwrap(chunk.bytes).unwrap_or_default();
                }
                None => break,
            }
        }
        if self.bytes() > self.bytes_max {
            // The bound has come down below the chunk that grows.
            self.forget_all();
        }
    }

    /// The frames in `(after, last]`. Copies at most one chunk; everything else is shared.
    pub(crate) fn since(&self, after: Seq, last: Seq) -> Result<RingSlice, Unserved> {
        if after > self.last || last > self.last {
            return Err(Unserved::Ahead { last: self.last });
        }
        if after >= last {
            return Ok(RingSlice { after, last: after, parts: Vec::new() });
        }
        let first = after.next().filter(|first| *first >= self.oldest).ok_or(Unserved::Gap { oldest: self.oldest })?;
        let from = self.closed.partition_point(|chunk| chunk.last < first);
        let mut parts: Vec<Arc<Vec<u8>>> = Vec::new();
        for chunk in self.closed.range(from..).take_while(|chunk| chunk.first <= last) {
            parts.push(chunk.bytes.clone());
        }
        // The open chunk holds the newest frames; its first is the one after the newest closed chunk.
        let open_first = self.last.get().saturating_add(1).saturating_sub(self.offsets.len() as u64);
        if last.get() >= open_first {
            let skipped = first.get().saturating_sub(open_first);
            let start = self.offsets.get(skipped as usize).map_or(self.open.len(), |o| *o as usize);
            let kept = last.get().saturating_add(1).saturating_sub(open_first);
            let end = self.offsets.get(kept as usize).map_or(self.open.len(), |o| *o as usize);
            parts.push(Arc::new(self.open.get(start..end).unwrap_or_default().to_vec()));
        }
        Ok(RingSlice { after, last, parts })
    }

    fn close_chunk(&mut self) {
        let count = self.offsets.len() as u64;
        let first = Seq::new(self.last.get().saturating_add(1).saturating_sub(count));
        let mut next = std::mem::take(&mut self.spare);
        next.clear();
        // One that a large frame had needed is not kept.
        if next.capacity() > self.chunk_bytes.saturating_mul(2) {
            next = Vec::new();
        }
        let bytes = std::mem::replace(&mut self.open, next);
        self.closed_bytes = self.closed_bytes.saturating_add(bytes.len());
        self.closed.push_back(Chunk { first, last: self.last, bytes: Arc::new(bytes) });
        self.offsets.clear();
    }

    fn forget_all(&mut self) {
        self.closed.clear();
        self.closed_bytes = 0;
        self.open.clear();
        if self.open.capacity() > self.chunk_bytes.saturating_mul(2) {
            self.open = Vec::new();
        }
        self.offsets.clear();
        self.oldest = Seq::new(self.last.get().saturating_add(1));
    }
}

impl RingSlice {
    /// A slice of frames that come from elsewhere: whole frames, contiguous, from `after` on or before.
    pub(crate) fn new(after: Seq, last: Seq, parts: Vec<Arc<Vec<u8>>>) -> RingSlice {
        RingSlice { after, last, parts }
    }

    /// Bytes that it holds; the first part may begin with older frames.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// The wanted frames, oldest first: seq, payload, and the whole frame as it stands.
    pub(crate) fn frames(&self) -> impl Iterator<Item = RingFrame<'_>> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || self.next(&mut cursor))
    }

    /// The frames at the cursor that lie one behind the other, some or all of a part, and the cursor moves behind them.
    /// `each` sees each of them first, and says whether more may follow in this run.
    pub(crate) fn next_run(&self, cursor: &mut Cursor, mut each: impl FnMut(RingFrame<'_>) -> bool) -> Option<&[u8]> {
        let first = self.next(cursor)?;
        let begin = cursor.at.saturating_sub(first.whole.len());
        let mut goes_on = each(first);
        while goes_on && cursor.at.saturating_sub(begin) < CHUNK_BYTES_MAX {
            let mut ahead = *cursor;
            match self.next(&mut ahead) {
                Some(frame) if ahead.part == cursor.part => goes_on = each(frame),
                _ => break,
            }
            *cursor = ahead;
        }
        self.parts.get(cursor.part)?.get(begin..cursor.at)
    }

    /// The frame at the cursor, which moves behind it. For readers that own the slice.
    pub(crate) fn next(&self, cursor: &mut Cursor) -> Option<RingFrame<'_>> {
        loop {
            let part = self.parts.get(cursor.part)?;
            let Some(frame) = part.get(cursor.at..).and_then(RingFrame::first_of) else {
                *cursor = Cursor { part: cursor.part.saturating_add(1), at: 0 };
                continue;
            };
            if frame.seq > self.last {
                return None;
            }
            cursor.at = cursor.at.saturating_add(frame.whole.len());
            // The first part may begin with older frames.
            if frame.seq > self.after {
                return Some(frame);
            }
        }
    }
}

/// One frame of the ring; its checksums were made by this process and are not checked again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingFrame<'a> {
    pub(crate) seq: Seq,
    pub(crate) payload: &'a [u8],
    pub(crate) whole: &'a [u8],
}

impl<'a> RingFrame<'a> {
    fn first_of(bytes: &'a [u8]) -> Option<RingFrame<'a>> {
        let (header, payload, rest) = frame::split_first(bytes)?;
        let whole = bytes.get(..bytes.len().saturating_sub(rest.len()))?;
        let seq = u64::from_le_bytes(*header.get(8..)?.first_chunk()?);
        Some(RingFrame { seq: Seq::new(seq), payload, whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameKind;
    use crate::history::Lineage;

    fn frame(seq: u64, payload_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let start = frame::begin(&mut out);
        out.resize(out.len() + payload_bytes, seq as u8);
        frame::finish(&mut out, start, FrameKind::Commit, Lineage::NONE, Seq::new(seq), Seq::ZERO);
        out
    }

    /// The seqs of the frames that a slice has, alone or in runs.
    fn seqs(slice: &RingSlice) -> Vec<u64> {
        let seqs: Vec<u64> = slice.frames().map(|f| f.seq.get()).collect();
        let (mut cursor, mut in_runs, mut bytes) = (Cursor::default(), Vec::new(), Vec::new());
        let mut each = |frame: RingFrame<'_>| {
            in_runs.push(frame.seq.get());
            !in_runs.len().is_multiple_of(7)
        };
        while let Some(run) = slice.next_run(&mut cursor, &mut each) {
            bytes.extend_from_slice(run);
        }
        assert_eq!(in_runs, seqs);
        assert_eq!(bytes, slice.frames().flat_map(|frame| frame.whole).copied().collect::<Vec<u8>>());
        seqs
    }

    #[test]
    fn what_the_ring_holds_is_served_whole_and_the_rest_is_a_gap() {
        for bytes_max in [0, 1, 100, 300, 1000, 4096, 100_000] {
            for base in [0, 41] {
                let mut ring = Ring::new(RingBytes::Fixed(bytes_max), Seq::new(base));
                for n in 1..=200_u64 {
                    let seq = base + n;
                    ring.push(Seq::new(seq), &frame(seq, 1 + (n as usize * 37) % 90));
                    assert!(ring.bytes() <= bytes_max);
                    let oldest = ring.oldest.get();
                    for after in [base, oldest.saturating_sub(2).max(base), oldest - 1, seq - 1, seq] {
                        for last in [after, after + 1, seq].map(|l| l.min(seq)) {
                            let want = if after >= last {
                                Ok((0..0).collect())
                            } else if after + 1 < oldest {
                                Err(Unserved::Gap { oldest: Seq::new(oldest) })
                            } else {
                                Ok((after + 1..=last).collect::<Vec<_>>())
                            };
                            let got = ring.since(Seq::new(after), Seq::new(last)).map(|s| seqs(&s));
                            assert_eq!(got, want, "bytes {bytes_max} base {base} ({after}, {last}] of {seq}");
                        }
                    }
                    assert_eq!(ring.reaches_back_to(Seq::new(base)), oldest == base + 1);
                }
                assert!(bytes_max < 100_000 || ring.reaches_back_to(Seq::new(base)), "a large ring forgets nothing");
            }
        }
    }

    #[test]
    fn a_ring_holds_a_tenth_of_the_records_within_its_bounds_and_grows_and_shrinks_with_them() {
        let mut ring = Ring::new(RingBytes::OfRecords(10), Seq::ZERO);
        let frame_bytes = 100_000;
        let push = |ring: &mut Ring, record_bytes: u64| {
            for _ in 0..1_000 {
                let seq = ring.last.next().unwrap();
                if ring.push(seq, &frame(seq.get(), frame_bytes)) {
                    ring.fit(record_bytes);
                }
            }
            ring.bytes() as u64
        };
        // A chunk goes at a time.
        let is_nearly = |found: u64, most: u64| (most - (CHUNK_BYTES_MAX as u64)..=most).contains(&found);
        for (record_bytes, most) in [
            (0, RING_BYTES_MIN as u64),
            (100 << 20, 10 << 20),
            (500 << 20, 50 << 20),
            (200 << 20, 20 << 20),
            (10 << 30, RING_BYTES_MAX as u64),
        ] {
            let found = push(&mut ring, record_bytes);
            assert!(is_nearly(found, most), "{found} of {most}");
        }
        ring.fit(0);
        assert!(is_nearly(ring.bytes() as u64, RING_BYTES_MIN as u64), "{}", ring.bytes());
        let mut fixed = Ring::new(RingBytes::Fixed(6 << 20), Seq::ZERO);
        assert!(is_nearly(push(&mut fixed, 10 << 30), 6 << 20));
    }

    #[test]
    fn what_a_large_commit_had_needed_is_not_kept_when_the_bound_comes_down() {
        let mut ring = Ring::new(RingBytes::OfRecords(10), Seq::ZERO);
        ring.fit(1 << 30);
        ring.push(Seq::new(1), &frame(1, 10));
        assert!(ring.push(Seq::new(2), &frame(2, 50 << 20)), "it is time to fit");
        assert!(ring.bytes() > 50 << 20);
        ring.fit(0);
        assert!(ring.bytes() == 0 && ring.open.capacity() <= 2 * CHUNK_BYTES_MAX, "{}", ring.open.capacity());
        // One that does not follow the records is never to be fitted.
        let mut none = Ring::new(RingBytes::Fixed(0), Seq::ZERO);
        assert!(!none.push(Seq::new(1), &frame(1, 10)) && !none.push(Seq::new(2), &frame(2, 10)));
    }

    /// It would be under the ring's lock, and writers would wait.
    #[test]
    fn of_a_commit_larger_than_a_chunk_nothing_is_ever_copied() {
        let mut ring = Ring::new(RingBytes::Fixed(64 << 20), Seq::ZERO);
        for (n, bytes) in (1..).zip([1_000, 200 << 10, 3 << 20, 20 << 20, 10, CHUNK_BYTES_MAX + 1, 5]) {
            ring.push(Seq::new(n), &frame(n, bytes));
            assert!(ring.open.len() <= CHUNK_BYTES_MAX, "{} bytes would be", ring.open.len());
            let slice = ring.since(Seq::ZERO, Seq::new(n)).unwrap();
            assert!(slice.parts.iter().zip(&ring.closed).all(|(part, chunk)| Arc::ptr_eq(part, &chunk.bytes)));
            assert_eq!(seqs(&slice), (1..=n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_seq_of_the_future_is_told_from_a_gap() {
        let mut ring = Ring::new(RingBytes::Fixed(1000), Seq::ZERO);
        ring.push(Seq::new(1), &frame(1, 5));
        assert_eq!(ring.since(Seq::new(2), Seq::new(2)).unwrap_err(), Unserved::Ahead { last: Seq::new(1) });
        assert_eq!(seqs(&ring.since(Seq::new(1), Seq::new(1)).unwrap()), Vec::<u64>::new());
    }

    #[test]
    fn a_slice_outlives_what_the_ring_forgets() {
        let mut ring = Ring::new(RingBytes::Fixed(2000), Seq::ZERO);
        ring.push(Seq::new(1), &frame(1, 50));
        let slice = ring.since(Seq::ZERO, Seq::new(1)).unwrap();
        for n in 2..200 {
            ring.push(Seq::new(n), &frame(n, 50));
        }
        assert_eq!(ring.since(Seq::ZERO, Seq::new(2)).unwrap_err(), Unserved::Gap { oldest: ring.oldest });
        assert_eq!(slice.frames().next().unwrap().whole, frame(1, 50));
    }

    #[test]
    #[should_panic(expected = "no holes")]
    fn a_hole_in_the_log_is_a_broken_promise() {
        Ring::new(RingBytes::Fixed(1000), Seq::ZERO).push(Seq::new(2), &frame(2, 5));
    }
}
