//! Postcard's wire format (<https://postcard.jamesmunns.com/wire-format>), read and written by hand: canonical and
//! bounded. Nothing here allocates by a length that was not compared with the bytes at hand.
//!
//! - unsigned integer: LEB128, low seven bits first, in the fewest bytes; at most ten of them;
//! - signed integer: zigzag (0, -1, 1, -2, ... become 0, 1, 2, 3, ...), then as an unsigned one;
//! - float: its eight bytes, little-endian;
//! - bytes and strings: their length, then the bytes, which are UTF-8 in a string.
//!
//! Postcard itself takes `0x82 0x00` for 2. The reader here refuses every form but the one that the writer makes, so
//! that equal values have equal bytes, and bytes read and written again are the same bytes.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use ascii::AsAsciiStr;

/// Longer text is checked as UTF-8 at once: where it is not ASCII, looking for that first would take longer.
const SHORT_TEXT_MAX: usize = 64;

/// Bytes that are not what was expected of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Where: bytes from the start of the slice being read.
    pub(crate) at: usize,
    /// What should have stood there.
    pub(crate) expected: &'static str,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.at)
    }
}

/// Reads values off the front of a slice. After an error, where it stands is not defined.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, len: bytes.len() }
    }

    /// Bytes read so far.
    #[inline]
    pub(crate) fn pos(&self) -> usize {
        self.len.saturating_sub(self.rest.len())
    }

    /// Bytes not read yet.
    #[inline]
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What stands at the current position is not `expected`.
    #[cold]
    pub(crate) fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { at: self.pos(), expected }
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        match self.rest.split_first() {
            Some((&byte, rest)) => {
                self.rest = rest;
                Ok(byte)
            }
            None => Err(self.malformed("a byte")),
        }
    }

    /// The next byte, if it is such a one.
    #[inline(always)]
    pub(crate) fn u8_if(&mut self, is_wanted: impl FnOnce(u8) -> bool) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        if !is_wanted(byte) {
            return None;
        }
        self.rest = rest;
        Some(byte)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            _ => self.u64_of_many_bytes(),
        }
    }

    fn u64_of_many_bytes(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        let mut shift = 0_u32;
        let mut bytes = self.rest.iter();
        for &byte in bytes.by_ref().take(10) {
            number |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(self.malformed("an integer in its fewest bytes"));
                }
                // The tenth byte has room for one bit of the 64.
                if shift == 63 && byte > 1 {
                    return Err(self.malformed("an integer of at most 64 bits"));
                }
                self.rest = bytes.as_slice();
                return Ok(number);
            }
            shift = shift.saturating_add(7);
        }
        Err(self.malformed(if shift >= 70 { "an integer of at most 64 bits" } else { "a whole integer" }))
    }

    #[inline]
    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.u64().map(|n| (n >> 1).cast_signed() ^ (n & 1).cast_signed().wrapping_neg())
    }

    #[inline]
    pub(crate) fn f64(&mut self) -> Result<f64, Malformed> {
        match self.rest.split_first_chunk() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(f64::from_le_bytes(*bytes))
            }
            None => Err(self.malformed("the eight bytes of a float")),
        }
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.malformed("as many bytes as announced")),
        }
    }

    /// A length and that many bytes.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        // A length beyond usize is beyond the slice as well.
        let len = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        self.take(len)
    }

    /// A length and that many bytes of UTF-8.
    #[inline]
    pub(crate) fn str(&mut self) -> Result<&'a str, Malformed> {
        let len = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        self.text(len)
    }

    /// The next `len` bytes, which are UTF-8.
    #[inline]
    pub(crate) fn text(&mut self, len: usize) -> Result<&'a str, Malformed> {
        let bytes = self.take(len)?;
        // Most text is short and ASCII, which this tells in half the time.
        if len <= SHORT_TEXT_MAX
            && let Ok(text) = bytes.as_ascii_str()
        {
            return Ok(text.as_str());
        }
        std::str::from_utf8(bytes).map_err(|_| self.no_utf8(bytes))
    }

    /// Of what was read last.
    #[cold]
    fn no_utf8(&self, bytes: &[u8]) -> Malformed {
        Malformed { at: self.pos().saturating_sub(bytes.len()), expected: "text in UTF-8" }
    }

    /// As [`Reader::str`], but the bytes: much faster for text that is short and ASCII, as most is.
    #[inline]
    pub(crate) fn utf8_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        self.utf8(len)
    }

    /// As [`Reader::text`], but the bytes.
    #[inline(always)]
    pub(crate) fn utf8(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let bytes = self.take(len)?;
        if is_ascii(bytes) || is_utf8(bytes) { Ok(bytes) } else { Err(self.no_utf8(bytes)) }
    }

    /// How many things follow, each of which takes at least `min_bytes_each` (1 or more) bytes: a number that the
    /// remaining bytes cannot hold is refused, so it is safe to loop over.
    #[inline]
    pub(crate) fn count(&mut self, min_bytes_each: usize) -> Result<usize, Malformed> {
        let before = self.pos();
        let count = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        match count.checked_mul(min_bytes_each.max(1)) {
            Some(least) if least <= self.remaining() => Ok(count),
            _ => Err(Malformed { at: before, expected: "a count that the bytes after it can hold" }),
        }
    }

    /// Refuses bytes left over.
    #[inline]
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(self.malformed("the end")) }
    }
}

/// As `[u8]::is_ascii`, but inline and made for text of some dozen bytes: looks at as many as a register holds, twice at
/// some of them rather than one by one.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk() {
        let (chunks, _) = bytes.as_chunks();
        let all = chunks.iter().fold(u128::from_ne_bytes(*last), |all, chunk| all | u128::from_ne_bytes(*chunk));
        all & u128::from_ne_bytes([0x80; 16]) == 0
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        (u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last)) & u64::from_ne_bytes([0x80; 8]) == 0
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        (u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last)) & u32::from_ne_bytes([0x80; 4]) == 0
    } else {
        bytes.iter().fold(0, |all, byte| all | byte) < 0x80
    }
}

#[cold]
fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

#[inline]
pub(crate) fn put_u64(out: &mut Vec<u8>, number: u64) {
    if number < 0x80 {
        out.push(number.to_le_bytes()[0]);
    } else {
        put_u64_of_many_bytes(out, number);
    }
}

fn put_u64_of_many_bytes(out: &mut Vec<u8>, mut number: u64) {
    if number < 0x4000 {
        let [low, high, ..] = (number & 0x7f | 0x80 | (number >> 7) << 8).to_le_bytes();
        out.extend_from_slice(&[low, high]);
        return;
    }
    let mut bytes = [0_u8; 10];
    let mut len = 0_usize;
    for byte in &mut bytes {
        len = len.saturating_add(1);
        *byte = number.to_le_bytes()[0];
        number >>= 7;
        if number == 0 {
            break;
        }
        *byte |= 0x80;
    }
    out.extend_from_slice(bytes.get(..len).unwrap_or(&bytes));
}

#[inline]
pub(crate) fn put_i64(out: &mut Vec<u8>, number: i64) {
    put_u64(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[inline]
pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Bytes that [`put_u64`] writes for `number`: 1 to 10.
#[inline]
pub(crate) fn u64_len(number: u64) -> usize {
    // Bits in use, at least one, in groups of seven.
    ((number | 1).ilog2() / 7).saturating_add(1) as usize
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may overflow: they panic then")]
mod tests {
    use super::*;

    /// Numbers of every magnitude, not only huge ones.
    fn some_u64(random: &mut fastrand::Rng) -> u64 {
        random.u64(..) >> random.u32(0..64)
    }

    fn edges() -> Vec<u64> {
        let powers = (0..64).map(|bit| 1_u64 << bit);
        powers.flat_map(|p| [p - 1, p, p | 1]).chain([u64::MAX, u64::MAX - 1]).collect()
    }

    #[test]
    fn integers_are_postcards_bytes_and_are_read_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for n in edges().into_iter().chain((0..10_000).map(|_| some_u64(&mut random))) {
            let mut bytes = Vec::new();
            put_u64(&mut bytes, n);
            assert_eq!(bytes, postcard::to_stdvec(&n).unwrap(), "{n}");
            assert_eq!(u64_len(n), bytes.len(), "{n}");
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.u64(), Ok(n));
            assert_eq!(reader.finish(), Ok(()));

            for signed in [n.cast_signed(), n.cast_signed().wrapping_neg()] {
                bytes.clear();
                put_i64(&mut bytes, signed);
                assert_eq!(bytes, postcard::to_stdvec(&signed).unwrap(), "{signed}");
                let mut reader = Reader::new(&bytes);
                assert_eq!((reader.i64(), reader.is_empty()), (Ok(signed), true));
            }
        }
    }

    #[test]
    fn floats_and_strings_are_postcards_bytes_and_are_read_back() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..2_000 {
            let float = f64::from_bits(random.u64(..));
            let text: String = (0..random.usize(0..300)).map(|_| random.char(..)).collect();
            let mut bytes = Vec::new();
            bytes.extend_from_slice(&float.to_le_bytes());
            put_str(&mut bytes, &text);
            put_bytes(&mut bytes, text.as_bytes());
            assert_eq!(bytes, postcard::to_stdvec(&(float, &text, text.as_bytes())).unwrap());
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.f64().unwrap().to_bits(), float.to_bits());
            assert_eq!(reader.clone().utf8_bytes(), Ok(text.as_bytes()));
            assert_eq!(reader.str(), Ok(text.as_str()));
            assert_eq!(reader.bytes(), Ok(text.as_bytes()));
            assert_eq!((reader.pos(), reader.remaining()), (bytes.len(), 0));
        }
    }

    #[test]
    fn text_of_any_length_with_any_byte_is_utf8_where_the_standard_library_says_so() {
        for len in 0..70 {
            for (at, byte) in (0..len).flat_map(|at| [0x7f, 0x80, 0xc3, 0xff].map(|byte| (at, byte))) {
                let mut text = vec![b'x'; len];
                text[at] = byte;
                let mut bytes = Vec::new();
                put_bytes(&mut bytes, &text);
                let (mut one, mut other) = (Reader::new(&bytes), Reader::new(&bytes));
                assert_eq!(one.utf8_bytes(), other.str().map(str::as_bytes), "{byte:x} at {at} of {len}");
                assert_eq!(is_ascii(&text), text.is_ascii());
            }
        }
    }

    #[test]
    fn every_other_form_of_an_integer_is_refused() {
        let fewest = "an integer in its fewest bytes";
        let bits = "an integer of at most 64 bits";
        for (bytes, expected) in [
            (&[0x82, 0x00][..], fewest),
            (&[0x80, 0x00], fewest),
            (&[0xff, 0x80, 0x00], fewest),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00], fewest),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], bits),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], bits),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], bits),
            (&[0x80], "a whole integer"),
            (&[], "a whole integer"),
        ] {
            assert_eq!(Reader::new(bytes).u64(), Err(Malformed { at: 0, expected }), "{bytes:x?}");
        }
    }

    #[test]
    fn a_number_is_read_only_from_the_bytes_it_is_written_as() {
        // Every string of up to three bytes: what is accepted writes back as itself.
        for n in 0..1_u32 << 24 {
            let bytes = n.to_le_bytes();
            let mut reader = Reader::new(&bytes[..3]);
            if let Ok(number) = reader.u64() {
                let mut again = [0_u8; 0].to_vec();
                put_u64(&mut again, number);
                assert_eq!(again, bytes[..reader.pos()]);
            }
        }
    }

    #[test]
    fn lengths_and_counts_beyond_the_bytes_are_refused_where_they_stand() {
        let mut huge = vec![7];
        put_u64(&mut huge, u64::MAX);
        huge.extend_from_slice(b"abc");
        let at = |at, expected| Err::<(), _>(Malformed { at, expected });
        let reader = || {
            let mut reader = Reader::new(&huge);
            assert_eq!(reader.u8(), Ok(7));
            reader
        };
        assert_eq!(reader().bytes().map(drop), at(11, "as many bytes as announced"));
        assert_eq!(reader().str().map(drop), at(11, "as many bytes as announced"));
        assert_eq!(reader().count(1).map(drop), at(1, "a count that the bytes after it can hold"));
        assert_eq!(
            Reader::new(&[3, 0, 0, 0, 0, 0]).count(2),
            Err(Malformed { at: 0, expected: "a count that the bytes after it can hold" })
        );
        assert_eq!(Reader::new(&[3, 0, 0, 0, 0, 0, 0]).count(2), Ok(3));
        assert_eq!(Reader::new(&[2, b'a', 0xff]).str().map(drop), at(1, "text in UTF-8"));
        assert_eq!(Reader::new(&[2, b'a', 0xff]).utf8_bytes().map(drop), at(1, "text in UTF-8"));
        assert_eq!(Reader::new(&[0; 7]).f64().map(drop), at(0, "the eight bytes of a float"));
        assert_eq!(Reader::new(&[]).u8().map(drop), at(0, "a byte"));
        assert_eq!(Reader::new(&[1]).finish(), at(0, "the end"));
    }
}
