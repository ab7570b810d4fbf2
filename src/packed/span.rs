//! Where a row of a leaf lies, in four bytes.

use std::ops::Range;

use crate::tree::LEAF_MAX;

/// Bits of a span that hold the length of a row, and the piece it lies in; the others hold its offset there.
const LEN_BITS: u32 = 11;
const PIECE_BITS: u32 = 3;
const OFFSET_BITS: u32 = u32::BITS - LEN_BITS - PIECE_BITS;
/// Bytes of a row that lies in a piece.
pub(super) const INLINE_MAX: usize = (1 << LEN_BITS) - 1;
/// The number that stands for the tail instead of a piece.
pub(super) const TAIL: usize = (1 << PIECE_BITS) - 1;

// A leaf full of the longest rows in one piece has its offsets in a span.
const _: () = assert!(LEAF_MAX * INLINE_MAX + super::CLASS_BYTES < 1 << OFFSET_BITS);

/// Where a row lies: piece, offset and length; the length 0 says that the offset is an index among the big ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(u32);

impl Span {
    pub(super) fn new(piece: usize, offset: usize, len: usize) -> Span {
        debug_assert!(piece <= TAIL && offset < 1 << OFFSET_BITS && len <= INLINE_MAX);
        Span(((piece as u32) << OFFSET_BITS | offset as u32) << LEN_BITS | len as u32)
    }

    pub(super) fn of_big(index: usize) -> Span {
        Span::new(0, index, 0)
    }

    pub(super) fn piece(self) -> usize {
        (self.0 >> (OFFSET_BITS + LEN_BITS)) as usize
    }

    pub(super) fn offset(self) -> usize {
        (self.0 >> LEN_BITS) as usize & ((1 << OFFSET_BITS) - 1)
    }

    pub(super) fn len(self) -> usize {
        self.0 as usize & INLINE_MAX
    }

    /// The bytes in its piece.
    pub(super) fn range(self) -> Range<usize> {
        self.offset()..self.offset().saturating_add(self.len())
    }
}
