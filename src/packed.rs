//! The rows of one leaf of a table's tree, one behind the other in a few pieces of memory.
//!
//! A row of its own allocation costs that allocation's header, a pointer to it and a miss to follow it; here it costs
//! the four bytes that say where it lies. A new row goes to the tail, which is part of the leaf itself: what is looked at
//! to find its place is next to where it goes. A tail that is full becomes a piece. Longer rows go to the end of the last
//! piece, and where that is full to another one, so that nothing moves when a leaf grows. Copies of a leaf share its
//! pieces: to add a longer row to a copy takes a copy of the last piece, unless more than a kilobyte of that is used. Rows
//! replaced or removed stay as garbage until that is a quarter of all, which is then written anew; a row that grows a
//! little has its piece written anew. A row too big for a piece is an allocation of its own, shared as well.

mod span;

use arrayvec::ArrayVec;
use triomphe::Arc;

use self::span::{INLINE_MAX, Span, TAIL};
use crate::memory::{self, LINE};
use crate::row::{Parts, Row};
use crate::tree::{LEAF_MAX, Values};

/// Pieces of a leaf.
const PIECES_MAX: usize = 6;
/// Bytes of the tail.
const TAIL_BYTES: usize = 640;
/// Bytes of a row that goes to the tail.
const SHORT_MAX: usize = TAIL_BYTES / 4;
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

const _: () = assert!(PIECES_MAX <= TAIL);

#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Packed {
    /// In the order of the keys.
    spans: ArrayVec<Span, LEAF_MAX>,
    /// In the order in which they came.
    pieces: ArrayVec<Arc<[u8]>, PIECES_MAX>,
    /// Bytes of the last piece that hold rows, or did.
    used: usize,
    /// Bytes that no row lies in any more.
    garbage: usize,
    /// Bytes of the tail that hold rows, or did.
    tail_used: usize,
    /// The big ones.
    big: Vec<Row>,
    /// The newest of the short rows.
    tail: [u8; TAIL_BYTES],
}

/// A piece without rows, for so many bytes of them.
fn piece(bytes: usize) -> Arc<[u8]> {
    static ZEROS: [u8; 8_192] = [0; 8_192];
    let bytes = bytes.saturating_add(BESIDE_BYTES).next_multiple_of(CLASS_BYTES).saturating_sub(BESIDE_BYTES);
    ZEROS.get(..bytes).map_or_else(|| Arc::from(vec![0; bytes]), Arc::from)
}

/// The bytes of a piece, so many of them, that no copy of the leaf sees: those of another one where it has to be.
fn own(of: &mut Arc<[u8]>, bytes: usize) -> &mut [u8] {
    if of.len() < bytes || !of.is_unique() {
        let mut new = piece(bytes.max(of.len()));
        if let Some(new) = Arc::get_mut(&mut new) {
            copy(Some(of), new, 0);
        }
        *of = new;
    }
    Arc::get_mut(of).unwrap_or_default()
}

impl Packed {
    /// Puts rows behind the last one: as many as have room in the tail there, those before them into a piece that holds just
    /// them. They are put together in `bytes`.
    pub(crate) fn extend<'r>(&mut self, rows: impl Iterator<Item = Parts<'r>> + Clone, bytes: &mut Vec<u8>) {
        let lens: ArrayVec<usize, LEAF_MAX> = rows.clone().map(|row| row.stored_len()).collect();
        let mut room = TAIL_BYTES.saturating_sub(self.tail_used);
        let fits = |len: &&usize| {
            let fits = is_short(**len) && **len <= room;
            room = room.saturating_sub(**len);
            fits
        };
        let before = lens.len().saturating_sub(lens.iter().rev().take_while(fits).count());
        if before > 0 {
            self.make_place();
        }
        let inline = lens.iter().copied().filter(|len| is_inline(*len)).sum();
        bytes.clear();
        bytes.reserve(inline);
        let mut split = 0;
        for (n, row) in rows.enumerate() {
            let (offset, len) = (bytes.len(), row.stored_len());
            let span = if is_inline(len) {
                row.append_to(bytes);
                if n < before { Span::new(self.pieces.len(), offset, len) } else { self.take_tail(len) }
            } else {
                let mut whole = Vec::with_capacity(len);
                row.append_to(&mut whole);
                self.store_apart(Row::new(&whole))
            };
            self.spans.push(span);
            if n < before {
                split = bytes.len();
            }
        }
        let (in_piece, in_tail) = bytes.split_at_checked(split).unwrap_or_default();
        if !in_piece.is_empty() {
            self.used = in_piece.len();
            self.pieces.push(Arc::from(in_piece));
        }
        copy(Some(in_tail), &mut self.tail, self.tail_used.saturating_sub(in_tail.len()));
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
        } else if !(fits && is_little_more(row.len(), span.len()) && self.widen(at, span, row)) {
            self.remove(at);
            self.insert(at, row);
        }
    }

    /// Writes a row over one that is no shorter; `false` where a copy of the leaf sees that.
    fn overwrite(&mut self, span: Span, row: &[u8]) -> bool {
        let place = match span.piece() {
            TAIL => Some(&mut self.tail[..]),
            piece => self.pieces.get_mut(piece).and_then(Arc::get_mut),
        };
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
        full.fold(self.used, usize::saturating_add).saturating_add(self.tail_used)
    }

    /// Whether a row of so many bytes fits behind the last one, where it costs no more than a small copy.
    fn has_room(&self, len: usize) -> bool {
        if is_short(len) {
            return TAIL_BYTES.saturating_sub(self.tail_used) >= len;
        }
        let Some(last) = self.pieces.last() else { return false };
        last.len().saturating_sub(self.used) >= len && (self.used <= COPY_MAX || Arc::is_unique(last))
    }

    /// Sees to it that there can be another piece.
    fn make_place(&mut self) {
        if self.pieces.is_full() {
            *self = self.part(&self.spans);
        }
    }

    /// Puts a row that is a little longer in the place of one, and moves those behind it there: in full pieces the few bytes
    /// that a row most often grows by seldom take another one. `false`, and no change, where it is better put elsewhere.
    #[cold]
    fn widen(&mut self, at: usize, span: Span, row: &[u8]) -> bool {
        let (from, more) = (span.range(), row.len().saturating_sub(span.len()));
        let is_last = span.piece().saturating_add(1) == self.pieces.len();
        let in_it = self.spans.iter().filter(|other| other.len() > 0 && other.piece() == span.piece());
        let end = match span.piece() {
            TAIL => self.tail_used,
            _ if is_last => self.used,
            _ => in_it.map(|other| other.range().end).max().unwrap_or_default(),
        };
        let wider = end.saturating_add(more);
        let has_room = self.has_room(row.len());
        let place = match span.piece() {
            TAIL if wider > TAIL_BYTES => return false,
            TAIL => &mut self.tail[..],
            _ if has_room => return false,
            piece => self.pieces.get_mut(piece).map(|piece| own(piece, wider)).unwrap_or_default(),
        };
        if let Some(place) = place.get_mut(from.start..wider) {
            place.copy_within(span.len()..end.saturating_sub(from.start), row.len());
            copy(Some(row), place, 0);
        }
        match span.piece() {
            TAIL => self.tail_used = wider,
            _ if is_last => self.used = wider,
            _ => {}
        }
        let same = |other: &&mut Span| other.len() > 0 && other.piece() == span.piece();
        for other in self.spans.iter_mut().filter(same).filter(|other| other.offset() > span.offset()) {
            *other = Span::new(other.piece(), other.offset().saturating_add(more), other.len());
        }
        if let Some(own) = self.spans.get_mut(at) {
            *own = Span::new(span.piece(), span.offset(), row.len());
        }
        true
    }

    /// Puts a row behind the last one.
    fn store(&mut self, row: &[u8]) -> Span {
        if is_short(row.len()) {
            if !self.has_room(row.len()) {
                self.close_tail();
            }
            let span = self.take_tail(row.len());
            copy(Some(row), &mut self.tail, span.offset());
            return span;
        }
        if !is_inline(row.len()) {
            return self.store_apart(Row::new(row));
        }
        if !self.has_room(row.len()) {
            self.add_piece(row.len());
        }
        let span = Span::new(self.pieces.len().saturating_sub(1), self.used, row.len());
        if !self.overwrite(span, row) {
            if let Some(last) = self.pieces.last_mut() {
                own(last, 0);
            }
            self.overwrite(span, row);
        }
        self.used = span.range().end;
        span
    }

    /// The next bytes of the tail, for a row of which it has room.
    fn take_tail(&mut self, len: usize) -> Span {
        let span = Span::new(TAIL, self.tail_used, len);
        self.tail_used = span.range().end;
        span
    }

    /// Makes a piece of the tail, which is empty then: the last one, or where that has room left the last but one.
    #[inline(never)]
    fn close_tail(&mut self) {
        self.make_place();
        if self.tail_used == 0 {
            return; // a leaf made anew has its rows in a piece
        }
        let has_room = self.pieces.last().is_some_and(|last| last.len() > self.used);
        let last = self.pieces.len();
        let at = last.saturating_sub(usize::from(has_room));
        for span in self.spans.iter_mut().filter(|span| span.len() > 0 && span.piece() >= at) {
            let piece = if span.piece() == TAIL { at } else { last };
            *span = Span::new(piece, span.offset(), span.len());
        }
        self.pieces.insert(at, Arc::from(self.tail.get(..self.tail_used).unwrap_or_default()));
        if !has_room {
            self.used = self.tail_used;
        }
        self.tail_used = 0;
    }

    /// Adds a piece for a row of so many bytes and some more.
    fn add_piece(&mut self, len: usize) {
        self.make_place();
        let bytes = self.bytes().saturating_add(len);
        let mean = bytes / self.spans.len().saturating_add(1);
        self.pieces.push(piece(mean.saturating_mul(PIECE_ROWS).min(bytes / 2).max(len)));
        self.used = 0;
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
        match span.piece() {
            TAIL => self.tail.get(span.range()),
            piece => self.pieces.get(piece)?.get(span.range()),
        }
    }

    fn big(&self, span: Span) -> Option<&Row> {
        if span.len() > 0 {
            return None;
        }
        self.big.get(span.offset())
    }
}

fn is_little_more(len: usize, than: usize) -> bool {
    len > than && len.saturating_sub(than) <= len / WIDER_PART
}

fn copy(bytes: Option<&[u8]>, to: &mut [u8], at: usize) {
    let bytes = bytes.unwrap_or_default();
    if let Some(place) = to.get_mut(at..at.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

fn is_short(len: usize) -> bool {
    (1..=SHORT_MAX).contains(&len)
}

fn is_inline(len: usize) -> bool {
    (1..=INLINE_MAX).contains(&len)
}

impl Values for Packed {
    type In<'v> = &'v [u8];
    type Out<'v> = &'v [u8];

    fn new() -> Packed {
        Packed {
            spans: ArrayVec::new(),
            pieces: ArrayVec::new(),
            used: 0,
            garbage: 0,
            tail_used: 0,
            big: Vec::new(),
            tail: [0; TAIL_BYTES],
        }
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

    fn clear(&mut self) {
        self.spans.clear();
        self.pieces.clear();
        self.big = Vec::new();
        (self.used, self.garbage, self.tail_used) = (0, 0, 0);
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
        memory::prefetch(&self.tail, self.tail_used);
    }

    /// The row, or the two lines behind the last one.
    fn prefetch(&self, at: Result<usize, usize>) {
        let span = at.ok().and_then(|at| self.spans.get(at));
        let Some(span) = span else {
            return memory::prefetch(self.tail.get(self.tail_used..).unwrap_or_default(), 2 * LINE);
        };
        if let Some(piece) = self.pieces.get(span.piece()) {
            // Beside its first bytes is the count of those who share it.
            memory::prefetch(piece, 1);
        }
        memory::prefetch(self.inline(*span).unwrap_or_default(), span.len());
    }
}

#[cfg(test)]
mod tests;
