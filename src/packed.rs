//! The rows of one leaf of a table's tree, one behind the other in one buffer.
//!
//! A row of its own allocation costs that allocation's header, a pointer to it and a miss to follow it; here it costs
//! the four bytes that say where in the buffer it lies. New rows go to the buffer's end. Those replaced or removed stay
//! as garbage until it is a quarter of the buffer, which is then written anew. A row too big for that is an allocation
//! that the copies of a leaf share, so that to copy a leaf never takes more than some tens of kilobytes.

use arrayvec::ArrayVec;

use crate::row::{Parts, Row};
use crate::tree::{LEAF_MAX, Values};

/// Bits of a span that hold the length of a row; the others hold its offset.
const LEN_BITS: u32 = 11;
/// Bytes of a row that lies in the buffer.
const INLINE_MAX: usize = (1 << LEN_BITS) - 1;
/// A buffer's capacity is a multiple of this, less what the allocator keeps beside it: what one leaf gives back fits
/// the next.
const CLASS_BYTES: usize = 1_024;
const ALLOCATOR_BYTES: usize = 16;

// A leaf full of the longest rows, and a quarter of garbage and one more row, has its offsets in a span.
const _: () = assert!((LEAF_MAX + 1) * INLINE_MAX * 2 < 1 << (u32::BITS - LEN_BITS));

/// Where a row lies: offset and length in the buffer; the length 0 says that the offset is an index among the big ones.
#[derive(Clone, Copy, Debug)]
struct Span(u32);

impl Span {
    fn new(offset: usize, len: usize) -> Span {
        match u32::try_from(offset) {
            Ok(offset) => Span(offset << LEN_BITS | len as u32),
            Err(_) => unreachable!("a leaf's buffer is small"),
        }
    }

    fn offset(self) -> usize {
        (self.0 >> LEN_BITS) as usize
    }

    fn len(self) -> usize {
        self.0 as usize & INLINE_MAX
    }
}

#[derive(Debug)]
pub(crate) struct Packed {
    /// In the order of the keys.
    spans: ArrayVec<Span, LEAF_MAX>,
    /// In the order in which they came.
    bytes: Vec<u8>,
    /// Bytes of the buffer that no span covers.
    garbage: usize,
    /// The big ones.
    big: Vec<Row>,
}

/// What a buffer for so many bytes is made to hold.
fn roomy(bytes: usize) -> usize {
    let room = bytes.saturating_add(bytes / 8).saturating_add(ALLOCATOR_BYTES);
    room.next_multiple_of(CLASS_BYTES).saturating_sub(ALLOCATOR_BYTES)
}

impl Packed {
    /// Puts rows behind the last one; the buffer is made to hold just them.
    pub(crate) fn extend<'r>(&mut self, rows: impl Iterator<Item = Parts<'r>> + Clone) {
        self.bytes.reserve_exact(rows.clone().map(|row| row.stored_len()).filter(|len| is_inline(*len)).sum());
        for row in rows {
            let (offset, len) = (self.bytes.len(), row.stored_len());
            let span = if is_inline(len) {
                row.append_to(&mut self.bytes);
                Span::new(offset, len)
            } else {
                let mut whole = Vec::with_capacity(len);
                row.append_to(&mut whole);
                self.store(&whole)
            };
            self.spans.push(span);
        }
    }

    /// Puts another row in the place of one.
    pub(crate) fn replace(&mut self, at: usize, row: &[u8]) {
        let Some((offset, len)) = self.spans.get(at).map(|span| (span.offset(), span.len())) else { return };
        if !is_inline(row.len()) || len == 0 || (row.len() > len && self.has_room(row.len())) {
            self.remove(at);
            self.insert(at, row);
        } else if row.len() > len {
            self.widen(at, row);
        } else if let Some(place) = self.bytes.get_mut(offset..offset.saturating_add(row.len())) {
            place.copy_from_slice(row);
            if let Some(span) = self.spans.get_mut(at) {
                *span = Span::new(offset, row.len());
            }
            self.waste(len.saturating_sub(row.len()));
        }
    }

    /// So many bytes more are of no row.
    fn waste(&mut self, len: usize) {
        self.garbage = self.garbage.saturating_add(len);
        if self.garbage > self.bytes.len() / 4 {
            *self = self.part(&self.spans);
        }
    }

    /// Whether a row of so many bytes fits behind the last one as it is.
    fn has_room(&self, len: usize) -> bool {
        self.bytes.capacity().saturating_sub(self.bytes.len()) >= len
    }

    /// Puts a longer row in the place of one, and moves those behind it: in a full buffer the few bytes that a row most
    /// often grows by seldom take another one.
    #[cold]
    fn widen(&mut self, at: usize, row: &[u8]) {
        let Some(&span) = self.spans.get(at) else { return };
        let (from, more) = (span.offset(), row.len().saturating_sub(span.len()));
        let (to, end) = (from.saturating_add(span.len()), self.bytes.len());
        self.bytes.reserve_exact(more);
        self.bytes.resize(end.saturating_add(more), 0);
        self.bytes.copy_within(to..end, to.saturating_add(more));
        if let Some(place) = self.bytes.get_mut(from..from.saturating_add(row.len())) {
            place.copy_from_slice(row);
        }
        for other in self.spans.iter_mut().filter(|span| span.len() > 0 && span.offset() > from) {
            *other = Span::new(other.offset().saturating_add(more), other.len());
        }
        if let Some(own) = self.spans.get_mut(at) {
            *own = Span::new(from, row.len());
        }
    }

    fn store(&mut self, row: &[u8]) -> Span {
        if !is_inline(row.len()) {
            self.big.push(Row::new(row));
            return Span::new(self.big.len().saturating_sub(1), 0);
        }
        let offset = self.bytes.len();
        let end = offset.saturating_add(row.len());
        if end > self.bytes.capacity() {
            self.bytes.reserve_exact(roomy(end).saturating_sub(offset));
        }
        self.bytes.extend_from_slice(row);
        Span::new(offset, row.len())
    }

    /// Some of the rows, in order and without garbage.
    fn part(&self, spans: &[Span]) -> Packed {
        let mut part = Packed::new();
        part.bytes.reserve_exact(roomy(spans.iter().map(|span| span.len()).sum()));
        for span in spans {
            part.take_in(self, *span);
        }
        part
    }

    fn take_in(&mut self, from: &Packed, span: Span) {
        let own = match (from.big(span), from.inline(span)) {
            (Some(row), _) => {
                self.big.push(row.clone());
                Span::new(self.big.len().saturating_sub(1), 0)
            }
            (None, Some(row)) => self.store(row),
            (None, None) => unreachable!("a span is of a row"),
        };
        self.spans.push(own);
    }

    fn inline(&self, span: Span) -> Option<&[u8]> {
        self.bytes.as_slice().get(span.offset()..span.offset().saturating_add(span.len()))
    }

    fn big(&self, span: Span) -> Option<&Row> {
        if span.len() > 0 {
            return None;
        }
        self.big.get(span.offset())
    }
}

fn is_inline(len: usize) -> bool {
    (1..=INLINE_MAX).contains(&len)
}

impl Clone for Packed {
    fn clone(&self) -> Packed {
        // It is copied in order to be changed.
        let mut bytes = Vec::with_capacity(roomy(self.bytes.len()));
        bytes.extend_from_slice(&self.bytes);
        Packed { spans: self.spans.clone(), bytes, garbage: self.garbage, big: self.big.clone() }
    }
}

impl Values for Packed {
    type In<'v> = &'v [u8];
    type Out<'v> = &'v [u8];

    fn new() -> Packed {
        Packed { spans: ArrayVec::new(), bytes: Vec::new(), garbage: 0, big: Vec::new() }
    }

    #[inline]
    fn get(&self, at: usize) -> Option<&[u8]> {
        let span = *self.spans.get(at)?;
        if span.len() > 0 { self.inline(span) } else { self.big(span).map(Row::as_bytes) }
    }

    fn insert(&mut self, at: usize, row: &[u8]) {
        let span = self.store(row);
        self.spans.insert(at, span);
    }

    fn remove(&mut self, at: usize) {
        let Some(gone) = self.spans.pop_at(at) else { return };
        if gone.len() > 0 {
            self.waste(gone.len());
        } else {
            // The last one takes the place of the one that goes.
            self.big.swap_remove(gone.offset());
            let moved = self.spans.iter_mut().find(|span| span.len() == 0 && span.offset() == self.big.len());
            if let Some(moved) = moved {
                *moved = gone;
            }
        }
    }

    fn split_off(&mut self, at: usize) -> Packed {
        let Some((left, right)) = self.spans.split_at_checked(at) else { return Packed::new() };
        if right.is_empty() {
            return Packed::new();
        }
        let (left, right) = (self.part(left), self.part(right));
        *self = left;
        right
    }

    fn append(&mut self, right: Packed) {
        for span in &right.spans {
            self.take_in(&right, *span);
        }
    }

    /// Rows lie in the order in which they came, so that whoever reads them in the order of their keys would wait for
    /// the memory at each of them. Here no look waits for another: together they take little longer than one.
    fn fetch(&self) {
        const LINE: usize = 64;
        std::hint::black_box(self.bytes.iter().step_by(LINE).fold(0, |all, byte| all ^ byte));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(packed: &Packed) -> Vec<Vec<u8>> {
        (0..packed.spans.len()).filter_map(|at| packed.get(at)).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn rows_replaced_and_removed_leave_no_more_garbage_than_a_quarter() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut packed, mut model) = (Packed::new(), Vec::new());
        for _ in 0..20_000 {
            let row = vec![rng.u8(..); rng.usize(1..300)];
            match rng.u8(0..3) {
                0 if model.len() < LEAF_MAX => {
                    let at = rng.usize(0..=model.len());
                    packed.insert(at, &row);
                    model.insert(at, row);
                }
                1 if !model.is_empty() => {
                    let at = rng.usize(0..model.len());
                    packed.remove(at);
                    model.remove(at);
                }
                _ if !model.is_empty() => {
                    let at = rng.usize(0..model.len());
                    packed.replace(at, &row);
                    model[at] = row;
                }
                _ => {}
            }
            let live: usize = model.iter().map(Vec::len).sum();
            assert_eq!(packed.bytes.len(), live + packed.garbage);
            assert!(packed.garbage <= packed.bytes.len() / 4, "{} of {}", packed.garbage, packed.bytes.len());
        }
        assert_eq!(rows(&packed), model);
    }

    #[test]
    fn a_row_that_grows_or_shrinks_by_a_byte_takes_no_more_than_that_in_a_full_buffer() {
        let values = [7; 100];
        let mut packed = Packed::new();
        packed.extend(std::iter::repeat_n(Parts { number: Some(0), names: &[], values: &values }, LEAF_MAX));
        let mut model = rows(&packed);
        for (at, len) in [(0, 102), (47, 102), (20, 100), (20, 101), (21, 102), (0, 99), (46, 103)] {
            model[at] = vec![at as u8; len];
            packed.replace(at, &model[at]);
            assert_eq!(rows(&packed), model);
        }
        let live: usize = model.iter().map(Vec::len).sum();
        assert!(packed.bytes.capacity() <= live + 5, "{} for {live}", packed.bytes.capacity());
    }

    #[test]
    fn a_big_row_lies_apart_and_copies_of_its_leaf_share_it() {
        let mut packed = Packed::new();
        for len in [1, INLINE_MAX, INLINE_MAX + 1, 100_000] {
            packed.insert(0, &vec![len as u8; len]);
        }
        assert_eq!((packed.bytes.len(), packed.big.len()), (1 + INLINE_MAX, 2));
        let copy = packed.clone();
        let place = |packed: &Packed| packed.get(0).map(<[u8]>::as_ptr);
        assert_eq!(place(&packed), place(&copy));
        // Of two big ones either may go first.
        for gone in [0, 1] {
            let mut packed = copy.clone();
            packed.remove(gone);
            let mut wanted = rows(&copy);
            wanted.remove(gone);
            assert_eq!((rows(&packed), packed.big.len()), (wanted, 1));
        }
        packed.remove(0);
        packed.remove(0);
        assert_eq!((packed.big.len(), rows(&copy).len()), (0, 4));
    }

    #[test]
    fn both_halves_of_a_split_hold_their_own_rows_and_no_garbage() {
        let mut packed = Packed::new();
        (0..40_u8).for_each(|n| packed.insert(n.into(), &[n; 50]));
        (0..5).for_each(|_| packed.remove(0));
        assert!(packed.garbage > 0);
        let right = packed.split_off(20);
        assert_eq!((rows(&packed).len(), rows(&right).len()), (20, 15));
        assert_eq!((packed.garbage, right.garbage, right.bytes.len()), (0, 0, 15 * 50));
        assert_eq!(rows(&right)[0], [25; 50]);
    }
}
