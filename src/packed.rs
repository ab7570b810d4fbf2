//! The rows of one leaf of a table's tree, one behind the other in a few pieces of memory.
//!
//! A row of its own allocation costs that allocation's header, a pointer to it and a miss to follow it; here it costs
//! the four bytes that say where it lies. New rows go to the end of the last piece, and where that is full to another
//! one, so that nothing moves when a leaf grows. Copies of a leaf share its pieces: to add a row to a copy takes a copy of a
//! kilobyte at most. Rows replaced or removed stay as garbage until that is a quarter of all, which is then written anew; a
//! row that grows a little has its piece written anew. A row too big for a piece is an allocation of its own, shared as well.

use std::ops::Range;

use arrayvec::ArrayVec;
use triomphe::Arc;

use crate::memory::{self, LINE};
use crate::row::{Parts, Row};
use crate::tree::{LEAF_MAX, Values};

/// Bits of a span that hold the length of a row, and the piece it lies in; the others hold its offset there.
const LEN_BITS: u32 = 11;
const PIECE_BITS: u32 = 3;
const OFFSET_BITS: u32 = u32::BITS - LEN_BITS - PIECE_BITS;
/// Bytes of a row that lies in a piece.
const INLINE_MAX: usize = (1 << LEN_BITS) - 1;
/// Pieces of a leaf.
const PIECES_MAX: usize = 6;
/// A piece is made for so many rows as long as those of the leaf are on average, and for no more than half of its bytes.
const PIECE_ROWS: usize = 6;
/// With what stands beside it, the allocator's word and the count of those who share it, a piece is a multiple of this: what
/// one leaf gives back fits the next.
const CLASS_BYTES: usize = 256;
const BESIDE_BYTES: usize = 16;
/// More than this of a piece that copies share is not copied to add a row to it: that one goes to another piece.
const COPY_MAX: usize = 1_024;
/// A row that grows by more than this part of it is put behind the others instead of where it was.
const WIDER_PART: usize = 8;

// A leaf full of the longest rows in one piece has its offsets in a span.
const _: () = assert!(LEAF_MAX * INLINE_MAX + CLASS_BYTES < 1 << OFFSET_BITS);
const _: () = assert!(PIECES_MAX <= 1 << PIECE_BITS);

/// Where a row lies: piece, offset and length; the length 0 says that the offset is an index among the big ones.
#[derive(Clone, Copy, Debug)]
struct Span(u32);

impl Span {
    fn new(piece: usize, offset: usize, len: usize) -> Span {
        debug_assert!(piece < PIECES_MAX && offset < 1 << OFFSET_BITS && len <= INLINE_MAX);
        Span(((piece as u32) << OFFSET_BITS | offset as u32) << LEN_BITS | len as u32)
    }

    fn of_big(index: usize) -> Span {
        Span::new(0, index, 0)
    }

    fn piece(self) -> usize {
        (self.0 >> (OFFSET_BITS + LEN_BITS)) as usize
    }

    fn offset(self) -> usize {
        (self.0 >> LEN_BITS) as usize & ((1 << OFFSET_BITS) - 1)
    }

    fn len(self) -> usize {
        self.0 as usize & INLINE_MAX
    }

    /// The bytes in its piece.
    fn range(self) -> Range<usize> {
        self.offset()..self.offset().saturating_add(self.len())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// In the order of the keys.
    spans: ArrayVec<Span, LEAF_MAX>,
    /// In the order in which they came.
    pieces: ArrayVec<Arc<[u8]>, PIECES_MAX>,
    /// Bytes of the last piece that hold rows, or did.
    used: usize,
    /// Bytes that no row lies in any more.
    garbage: usize,
    /// The big ones.
    big: Vec<Row>,
}

/// A piece without rows, for so many bytes of them.
fn piece(bytes: usize) -> Arc<[u8]> {
    static ZEROS: [u8; 8_192] = [0; 8_192];
    let bytes = bytes.saturating_add(BESIDE_BYTES).next_multiple_of(CLASS_BYTES).saturating_sub(BESIDE_BYTES);
    ZEROS.get(..bytes).map_or_else(|| Arc::from(vec![0; bytes]), Arc::from)
}

impl Packed {
    /// Puts rows behind the last one, into a piece that holds just them.
    pub(crate) fn extend<'r>(&mut self, rows: impl Iterator<Item = Parts<'r>> + Clone) {
        let inline = rows.clone().map(|row| row.stored_len()).filter(|len| is_inline(*len)).sum();
        self.make_place();
        let (at, mut bytes) = (self.pieces.len(), Vec::with_capacity(inline));
        for row in rows {
            let (offset, len) = (bytes.len(), row.stored_len());
            let span = if is_inline(len) {
                row.append_to(&mut bytes);
                Span::new(at, offset, len)
            } else {
                let mut whole = Vec::with_capacity(len);
                row.append_to(&mut whole);
                self.store_apart(Row::new(&whole))
            };
            self.spans.push(span);
        }
        if !bytes.is_empty() {
            self.used = bytes.len();
            self.pieces.push(Arc::from(bytes.as_slice()));
        }
    }

    /// Puts another row in the place of one.
    pub(crate) fn replace(&mut self, at: usize, row: &[u8]) {
        let Some(span) = self.spans.get(at).copied() else { return };
        let fits = is_inline(row.len()) && span.len() > 0;
        if fits && row.len() <= span.len() && self.overwrite(span, row) {
            if let Some(own) = self.spans.get_mut(at) {
                *own = Span::new(span.piece(), span.offset(), row.len());
            }
            self.waste(span.len().saturating_sub(row.len()));
        } else if fits && row.len() > span.len() && !self.has_room(row.len()) && is_little_more(row.len(), span.len()) {
            self.widen(at, span, row);
        } else {
            self.remove(at);
            self.insert(at, row);
        }
    }

    /// Writes a row over one that is no shorter; `false` where a copy of the leaf sees that.
    fn overwrite(&mut self, span: Span, row: &[u8]) -> bool {
        let place = self.pieces.get_mut(span.piece()).and_then(Arc::get_mut);
        match place.and_then(|piece| piece.get_mut(span.range())).and_then(|place| place.get_mut(..row.len())) {
            Some(place) => {
                place.copy_from_slice(row);
                true
            }
            None => false,
        }
    }

    /// So many bytes more are of no row.
    fn waste(&mut self, len: usize) {
        self.garbage = self.garbage.saturating_add(len);
        if self.garbage > self.bytes() / 4 {
            *self = self.part(&self.spans);
        }
    }

    /// Bytes of all pieces but for what is still to be used.
    fn bytes(&self) -> usize {
        let full = self.pieces.iter().rev().skip(1).map(|piece| piece.len());
        full.fold(self.used, usize::saturating_add)
    }

    /// Whether a row of so many bytes fits behind the last one, where it costs no more than a small copy.
    fn has_room(&self, len: usize) -> bool {
        let Some(last) = self.pieces.last() else { return false };
        last.len().saturating_sub(self.used) >= len && (self.used <= COPY_MAX || Arc::is_unique(last))
    }

    /// Sees to it that there can be another piece.
    fn make_place(&mut self) {
        if self.pieces.is_full() {
            *self = self.part(&self.spans);
        }
    }

    /// Puts a row that is a little longer in the place of one, and moves those behind it in its piece: in full pieces the few
    /// bytes that a row most often grows by seldom take another one.
    #[cold]
    fn widen(&mut self, at: usize, span: Span, row: &[u8]) {
        let is_last = span.piece().saturating_add(1) == self.pieces.len();
        let in_it = self.spans.iter().filter(|other| other.len() > 0 && other.piece() == span.piece());
        let end = if is_last { self.used } else { in_it.map(|other| other.range().end).max().unwrap_or_default() };
        let Some(old) = self.pieces.get_mut(span.piece()) else { return };
        let (from, more) = (span.range(), row.len().saturating_sub(span.len()));
        let wider = end.saturating_add(more);
        match Arc::get_mut(old).filter(|old| old.len() >= wider) {
            Some(own) => own.copy_within(from.end..end, from.end.saturating_add(more)),
            None => {
                let mut new = piece(wider);
                if let Some(new) = Arc::get_mut(&mut new) {
                    copy(old.get(..from.start), new, 0);
                    copy(old.get(from.end..end), new, from.end.saturating_add(more));
                }
                *old = new;
            }
        }
        if let Some(own) = Arc::get_mut(old) {
            copy(Some(row), own, from.start);
        }
        if is_last {
            self.used = wider;
        }
        let same = |other: &&mut Span| other.len() > 0 && other.piece() == span.piece();
        for other in self.spans.iter_mut().filter(same).filter(|other| other.offset() > span.offset()) {
            *other = Span::new(other.piece(), other.offset().saturating_add(more), other.len());
        }
        if let Some(own) = self.spans.get_mut(at) {
            *own = Span::new(span.piece(), span.offset(), row.len());
        }
    }

    /// Puts a row behind the last one.
    fn store(&mut self, row: &[u8]) -> Span {
        if !is_inline(row.len()) {
            return self.store_apart(Row::new(row));
        }
        if !self.has_room(row.len()) {
            self.add_piece(row.len());
        }
        let span = Span::new(self.pieces.len().saturating_sub(1), self.used, row.len());
        if !self.overwrite(span, row) {
            self.own_last();
            self.overwrite(span, row);
        }
        self.used = span.range().end;
        span
    }

    /// Adds a piece for a row of so many bytes and some more.
    fn add_piece(&mut self, len: usize) {
        self.make_place();
        let bytes = self.bytes().saturating_add(len);
        let mean = bytes / self.spans.len().saturating_add(1);
        self.pieces.push(piece(mean.saturating_mul(PIECE_ROWS).min(bytes / 2).max(len)));
        self.used = 0;
    }

    /// Copies the last piece, which a copy of the leaf sees.
    #[cold]
    fn own_last(&mut self) {
        if let Some(last) = self.pieces.last_mut() {
            *last = Arc::from(&**last);
        }
    }

    fn store_apart(&mut self, row: Row) -> Span {
        self.big.push(row);
        Span::of_big(self.big.len().saturating_sub(1))
    }

    /// Some of the rows, in order and without garbage, in one piece.
    fn part(&self, spans: &[Span]) -> Packed {
        let mut part = Packed::new();
        let bytes = spans.iter().map(|span| span.len()).fold(0, usize::saturating_add);
        let mut whole = (bytes > 0).then(|| piece(bytes));
        let room = whole.as_mut().and_then(Arc::get_mut).unwrap_or_default();
        for span in spans {
            let own = match self.big(*span) {
                Some(row) => part.store_apart(row.clone()),
                None => {
                    debug_assert!(self.inline(*span).is_some(), "a span is of a row");
                    let own = Span::new(0, part.used, span.len());
                    copy(self.inline(*span), room, part.used);
                    part.used = own.range().end;
                    own
                }
            };
            part.spans.push(own);
        }
        part.pieces.extend(whole);
        part
    }

    fn take_in(&mut self, from: &Packed, span: Span) {
        let own = match (from.big(span), from.inline(span)) {
            (Some(row), _) => self.store_apart(row.clone()),
            (None, Some(row)) => self.store(row),
            (None, None) => unreachable!("a span is of a row"),
        };
        self.spans.push(own);
    }

    fn inline(&self, span: Span) -> Option<&[u8]> {
        self.pieces.get(span.piece())?.get(span.range())
    }

    fn big(&self, span: Span) -> Option<&Row> {
        if span.len() > 0 {
            return None;
        }
        self.big.get(span.offset())
    }
}

fn is_little_more(len: usize, than: usize) -> bool {
    len.saturating_sub(than) <= len / WIDER_PART
}

fn copy(bytes: Option<&[u8]>, to: &mut [u8], at: usize) {
    let bytes = bytes.unwrap_or_default();
    if let Some(place) = to.get_mut(at..at.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

fn is_inline(len: usize) -> bool {
    (1..=INLINE_MAX).contains(&len)
}

impl Values for Packed {
    type In<'v> = &'v [u8];
    type Out<'v> = &'v [u8];

    fn new() -> Packed {
        Packed { spans: ArrayVec::new(), pieces: ArrayVec::new(), used: 0, garbage: 0, big: Vec::new() }
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
    /// the memory at each of them. Asked for together they take little longer than one.
    fn fetch(&self) {
        for (n, piece) in self.pieces.iter().enumerate() {
            let is_last = n.saturating_add(1) == self.pieces.len();
            memory::prefetch(piece, if is_last { self.used } else { piece.len() });
        }
    }

    /// The row, or the two lines behind the last one.
    fn prefetch(&self, at: Result<usize, usize>) {
        let span = at.ok().and_then(|at| self.spans.get(at));
        let (piece, range) = match span {
            Some(span) => (self.pieces.get(span.piece()), span.range()),
            None => (self.pieces.last(), self.used..self.used.saturating_add(2 * LINE)),
        };
        let Some(piece) = piece else { return };
        // Beside its first bytes is the count of those who share it.
        memory::prefetch(piece, 1);
        memory::prefetch(piece.get(range.start..).unwrap_or_default(), range.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Packed {
        fn room(&self) -> usize {
            self.pieces.iter().map(|piece| piece.len()).sum()
        }
    }

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
            assert!(packed.bytes() >= live);
            assert!(packed.garbage <= packed.bytes() / 4, "{} of {}", packed.garbage, packed.bytes());
            assert!(packed.room() <= live * 2 + 4 * COPY_MAX, "{} for {live}", packed.room());
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
        assert!(packed.room() <= live + CLASS_BYTES, "{} for {live}", packed.room());
    }

    #[test]
    fn a_big_row_lies_apart_and_copies_of_its_leaf_share_it() {
        let mut packed = Packed::new();
        for len in [1, INLINE_MAX, INLINE_MAX + 1, 100_000] {
            packed.insert(0, &vec![len as u8; len]);
        }
        assert_eq!(packed.big.len(), 2);
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
    fn a_copy_of_a_leaf_shares_its_rows_and_neither_sees_what_becomes_of_the_others() {
        let mut packed = Packed::new();
        (0..40_u8).for_each(|n| packed.insert(n.into(), &[n; 100]));
        let (copy, before) = (packed.clone(), rows(&packed));
        let places = |packed: &Packed| packed.pieces.iter().map(|piece| piece.as_ptr()).collect::<Vec<_>>();
        packed.insert(40, &[40; 100]);
        packed.replace(0, &[100; 99]);
        packed.replace(1, &[101; 101]);
        packed.remove(2);
        let shared = places(&packed).into_iter().filter(|place| places(&copy).contains(place)).count();
        assert!(shared + 1 >= copy.pieces.len(), "{shared}: all but the one that rows were added to");
        assert_eq!(rows(&copy), before);
        let mut wanted = before;
        wanted.push(vec![40; 100]);
        (wanted[0], wanted[1]) = (vec![100; 99], vec![101; 101]);
        wanted.remove(2);
        assert_eq!(rows(&packed), wanted);
    }

    #[test]
    fn rows_take_little_more_than_their_bytes_whatever_their_lengths_and_in_whatever_order_they_come() {
        let long_among_short = |n: usize, long: usize| if n % 48 == 7 { long } else { 20 + n % 40 };
        let lengths: [(&str, &dyn Fn(usize) -> usize); 6] = [
            ("short", &|_| 10),
            ("as the benchmark's", &|_| 110),
            ("of two kilobytes", &|_| 2_000),
            ("one of two kilobytes among short ones", &|n| long_among_short(n, 2_000)),
            ("one of a kilobyte among short ones", &|n| long_among_short(n, 1_000)),
            ("longer and longer", &|n| 1 + n * 40),
        ];
        for (name, len) in lengths {
            for is_last in [true, false] {
                let mut packed = Packed::new();
                for n in 0..LEAF_MAX {
                    packed.insert(if is_last { n } else { n * 7 % (n + 1) }, &vec![1; len(n)]);
                    let live: usize = (0..=n).map(len).sum();
                    let most = live * 2 + 2 * CLASS_BYTES;
                    assert!(packed.room() <= most, "{name}, {n}: {} for {live}", packed.room());
                }
            }
        }
    }

    #[test]
    fn a_row_that_grows_by_a_byte_again_and_again_seldom_has_its_piece_written_anew() {
        let mut packed = Packed::new();
        (0..LEAF_MAX).for_each(|n| packed.insert(n, &[n as u8; 100]));
        let place = |packed: &Packed| packed.pieces.iter().map(|piece| piece.as_ptr()).collect::<Vec<_>>();
        let (mut places, mut moves) = (place(&packed), 0);
        for round in 1..=200 {
            let row = vec![7; 100 + round];
            packed.replace(20, &row);
            assert_eq!(packed.get(20), Some(&*row));
            moves += usize::from(place(&packed) != places);
            places = place(&packed);
        }
        assert!(moves <= 20, "{moves}");
        assert_eq!(packed.get(47), Some(&[47; 100][..]));
    }

    #[test]
    fn both_halves_of_a_split_hold_their_own_rows_and_no_garbage() {
        let mut packed = Packed::new();
        (0..40_u8).for_each(|n| packed.insert(n.into(), &[n; 50]));
        (0..5).for_each(|_| packed.remove(0));
        assert!(packed.garbage > 0);
        let right = packed.split_off(20);
        assert_eq!((rows(&packed).len(), rows(&right).len()), (20, 15));
        assert_eq!((packed.garbage, right.garbage, right.bytes()), (0, 0, 15 * 50));
        assert_eq!(rows(&right)[0], [25; 50]);
    }
}
