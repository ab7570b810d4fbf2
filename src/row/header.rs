//! The names at the front of a row in the making.
//!
//! They stand before the first value and are known after the last. But the next row most often has the names of the one
//! before it: so those are written as a guess, compared as the fields come, and replaced only where they differ. The
//! names of the guess are known to be all different, too.

use std::cell::Cell;

use super::encode_error::EncodeError;
use super::names::Names;
use super::writer::duplicate;
use crate::wire::{Reader, put_str, put_u64};

/// Names in their encoding, and where each one's text stands in it.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    texts: Vec<(usize, usize)>,
    /// Of a struct: where the names of its fields lie in the program, and their lengths. They are `'static`: the same
    /// places hold the same names, so that the next struct's names need not be compared byte by byte.
    places: Vec<(usize, usize)>,
}

// The names of this thread's last row.
thread_local!(static LAST: Cell<Block> = const { Cell::new(Block { bytes: Vec::new(), texts: Vec::new(), places: Vec::new() }) });

/// Larger ones are not kept for the next row.
const KEPT_BYTES_MAX: usize = 64 << 10;

pub(super) struct Header {
    guess: Block,
    /// Names that came as in the guess.
    matched: usize,
    /// All names, each with its length, once one came that is not as in the guess; and how many they are.
    other: Option<(Vec<u8>, usize)>,
    /// The places of those that came.
    places: Vec<(usize, usize)>,
}

impl Header {
    pub(super) fn guess() -> Header {
        Header { guess: LAST.try_with(Cell::take).unwrap_or_default(), matched: 0, other: None, places: Vec::new() }
    }

    /// Keeps the names for the next row.
    pub(super) fn keep(self) {
        if self.guess.bytes.len() <= KEPT_BYTES_MAX {
            let _ = LAST.try_with(|kept| kept.set(self.guess)); // not at the end of the thread
        }
    }

    /// The row begins in `out`.
    #[inline]
    pub(super) fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.guess.bytes);
    }

    #[inline]
    pub(super) fn name(&mut self, name: &str) {
        if self.other.is_none() && self.guess.text(self.matched) == Some(name.as_bytes()) {
            self.matched = self.matched.saturating_add(1);
        } else {
            self.other_name(name);
        }
    }

    /// Takes the name of a struct's field where it lies in the same place as that of the row before; whether it did.
    #[inline]
    pub(super) fn is_next(&mut self, name: &'static str) -> bool {
        let place = (name.as_ptr().addr(), name.len());
        let is_next = self.guess.places.get(self.matched) == Some(&place) && self.other.is_none();
        if is_next {
            self.matched = self.matched.saturating_add(1);
        }
        is_next
    }

    /// Takes one that does not.
    pub(super) fn static_name(&mut self, name: &'static str) {
        let place = (name.as_ptr().addr(), name.len());
        if self.places.is_empty() {
            self.places.extend(self.guess.places.iter().take(self.matched));
        }
        self.places.push(place);
        self.name(name);
    }

    #[cold]
    fn other_name(&mut self, name: &str) {
        let (names, count) = self.other.get_or_insert_with(|| self.guess.first(self.matched));
        put_str(names, name);
        *count = count.saturating_add(1);
    }

    /// The row that begins at `start` has all its names.
    #[inline]
    pub(super) fn end(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), EncodeError> {
        if self.other.is_none() && self.matched == self.guess.texts.len() && self.matched > 0 {
            if self.places.len() == self.matched {
                self.guess.places = std::mem::take(&mut self.places);
            }
            return Ok(());
        }
        self.replace(out, start)
    }

    #[cold]
    fn replace(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), EncodeError> {
        let (names, count) = self.other.take().unwrap_or_else(|| self.guess.first(self.matched));
        let (mut bytes, mut texts) = (Vec::new(), Vec::new());
        put_u64(&mut bytes, count as u64);
        bytes.extend_from_slice(&names);
        let mut reader = Reader::new(&bytes);
        let mut seen = Names::new();
        for _ in 0..reader.count(1).unwrap_or_default() {
            let name = reader.bytes().unwrap_or_default();
            if !seen.insert(name) {
                return Err(duplicate(name));
            }
            let end = reader.pos();
            texts.push((end.saturating_sub(name.len()), end));
        }
        drop(seen);
        let guessed = start..start.saturating_add(self.guess.bytes.len());
        out.splice(guessed, bytes.iter().copied());
        let places = std::mem::take(&mut self.places);
        self.guess = Block { places: if places.len() == texts.len() { places } else { Vec::new() }, bytes, texts };
        self.matched = self.guess.texts.len();
        Ok(())
    }
}

impl Block {
    #[inline]
    fn text(&self, at: usize) -> Option<&[u8]> {
        let &(from, to) = self.texts.get(at)?;
        self.bytes.get(from..to)
    }

    /// The first names, each with its length.
    fn first(&self, count: usize) -> (Vec<u8>, usize) {
        let mut names = Vec::new();
        for &(from, to) in self.texts.iter().take(count) {
            crate::wire::put_bytes(&mut names, self.bytes.get(from..to).unwrap_or_default());
        }
        (names, count)
    }
}
