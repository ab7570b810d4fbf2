//! Frames: the unit of the log and of every file.
//!
//! ```text
//! offset size field
//!      0    1 kind
//!      1    3 reserved, zero
//!      4    4 payload length in bytes, 1 to 2^30
//!      8    8 seq
//!     16    8 synced: highest seq known durable when the frame was made
//!     24    4 CRC-32 of the payload
//!     28    4 CRC-32 of bytes 0..28
//!     32      payload
//! ```
//!
//! A frame is valid if and only if its header CRC fits, the reserved bytes are zero, the length is in range, and the
//! payload CRC fits; both CRCs start from the CRC-32 of the lineage, so that neither zeros nor another history's bytes
//! pass. A frame does not depend on the file that holds it: flushing is a copy.

use crc32fast::Hasher;

use crate::history::{Lineage, Seq};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;

/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// One commit.
    Commit = 1,
    /// A snapshot's table: name, definition, counter, rows to come.
    Table = 2,
    /// A snapshot's block of rows of the table before it.
    Rows = 3,
    /// The end of a finished file; in a log, of one that was closed.
    Seal = 4,
    /// The end of a log segment that goes on in the next one.
    Continued = 5,
    /// A snapshot's block of rows, compressed.
    CompressedRows = 6,
}

impl FrameKind {
    const ALL: [FrameKind; 6] = [
        FrameKind::Commit,
        FrameKind::Table,
        FrameKind::Rows,
        FrameKind::Seal,
        FrameKind::Continued,
        FrameKind::CompressedRows,
    ];

    /// Whether it is a block of a snapshot's rows.
    pub(crate) fn is_rows(self) -> bool {
        matches!(self, FrameKind::Rows | FrameKind::CompressedRows)
    }

    fn from_byte(byte: u8) -> Option<FrameKind> {
        FrameKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A frame header that passed its checks. The payload behind it has not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    pub(crate) payload_bytes: usize,
    pub(crate) seq: Seq,
    pub(crate) synced: Seq,
    payload_crc: u32,
}

impl FrameHeader {
    /// Reads a header; on failure the offset within it and what was expected there.
    pub(crate) fn parse(
        bytes: &[u8; FRAME_HEADER_BYTES],
        lineage: Lineage,
    ) -> Result<FrameHeader, (u64, &'static str)> {
        let word = |at: usize| -> u32 {
            bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 4]| u32::from_le_bytes(*b))
        };
        let long = |at: usize| -> u64 {
            bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 8]| u64::from_le_bytes(*b))
        };
        let [kind, reserved @ .., _, _, _, _, _, _, _, _] = *bytes.first_chunk::<12>().ok_or((0, "a frame header"))?;
        if checksum(lineage, bytes.get(..28).unwrap_or_default()) != word(28) {
            return Err((28, "the CRC of a frame header of this lineage"));
        }
        if reserved != [0; 3] {
            return Err((1, "three zero bytes"));
        }
        let payload_bytes = word(4) as usize;
        if payload_bytes == 0 || payload_bytes > FRAME_PAYLOAD_BYTES_MAX {
            return Err((4, "a payload of 1 byte to 1 GiB"));
        }
        let kind = FrameKind::from_byte(kind).ok_or((0, "a known frame kind"))?;
        Ok(FrameHeader {
            kind,
            payload_bytes,
            seq: Seq::new(long(8)),
            synced: Seq::new(long(16)),
            payload_crc: word(24),
        })
    }

    /// Whether `payload` is the one that this header was made for.
    pub(crate) fn fits(&self, payload: &[u8], lineage: Lineage) -> bool {
        payload.len() == self.payload_bytes && checksum(lineage, payload) == self.payload_crc
    }
}

/// Makes room for a frame header at the end of `out`; the payload is to be appended, then [`finish`] called.
pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    start
}

/// Fills in the header of the frame that [`begin`] put at `start`, whose payload is all that follows.
///
/// # Panics
/// When the payload is empty or over the limit: the caller has checked ([`payload_fits`]).
#[expect(clippy::indexing_slicing, reason = "start comes from begin, and the header's offsets are constants")]
pub(crate) fn finish(out: &mut [u8], start: usize, kind: FrameKind, lineage: Lineage, seq: Seq, synced: Seq) {
    let (header, payload) = out[start..].split_at_mut(FRAME_HEADER_BYTES);
    assert!(!payload.is_empty() && payload_fits(payload.len()), "a frame's payload is 1 byte to 1 GiB");
    header[0] = kind as u8;
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&seq.get().to_le_bytes());
    header[16..24].copy_from_slice(&synced.get().to_le_bytes());
    let hasher = lineage.hasher();
    header[24..28].copy_from_slice(&after(hasher.clone(), payload).to_le_bytes());
    let crc = after(hasher, &header[..28]);
    header[28..32].copy_from_slice(&crc.to_le_bytes());
}

/// Whether a payload of that many bytes can be one frame.
pub(crate) fn payload_fits(bytes: usize) -> bool {
    bytes <= FRAME_PAYLOAD_BYTES_MAX
}

/// One frame at the start of `bytes` that are known to be valid (the ring's own): its header's seq and its whole length.
pub(crate) fn split_first(bytes: &[u8]) -> Option<(&[u8; FRAME_HEADER_BYTES], &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let length = u32::from_le_bytes(*header.get(4..)?.first_chunk()?) as usize;
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((header, payload, rest))
}

fn checksum(lineage: Lineage, bytes: &[u8]) -> u32 {
    after(lineage.hasher(), bytes)
}

/// What a hasher says that goes on with these bytes.
fn after(mut hasher: Hasher, bytes: &[u8]) -> u32 {
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAGE: Lineage = Lineage::from_bytes([7; 16]);

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let start = begin(&mut out);
        out.extend_from_slice(payload);
        finish(&mut out, start, FrameKind::Commit, LINEAGE, Seq::new(9), Seq::new(4));
        out.split_off(start)
    }

    fn accepts(bytes: &[u8], lineage: Lineage) -> bool {
        let Some((header, payload)) = bytes.split_first_chunk() else { return false };
        FrameHeader::parse(header, lineage).is_ok_and(|h| h.fits(payload, lineage))
    }

    #[test]
    fn a_frame_is_read_back_as_it_was_written() {
        let bytes = frame(b"payload");
        let (header, payload) = bytes.split_first_chunk().unwrap();
        let parsed = FrameHeader::parse(header, LINEAGE).unwrap();
        assert_eq!((parsed.kind, parsed.seq.get(), parsed.synced.get()), (FrameKind::Commit, 9, 4));
        assert!(parsed.fits(payload, LINEAGE));
        assert_eq!(split_first(&bytes).unwrap().1, b"payload");
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let bytes = frame(b"some payload");
        assert!(accepts(&bytes, LINEAGE));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!accepts(&damaged, LINEAGE), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(!accepts(&bytes[..length], LINEAGE), "length {length}");
        }
    }

    #[test]
    fn zeros_and_another_lineage_are_refused() {
        for length in 0..4096 {
            assert!(!accepts(&vec![0; length], LINEAGE), "{length} zeros");
        }
        assert!(!accepts(&frame(b"payload"), Lineage::from_bytes([8; 16])));
    }

    #[test]
    fn a_sound_checksum_does_not_excuse_reserved_bytes_lengths_or_kinds() {
        for (at, byte) in [(0, 0), (0, 7), (1, 1), (3, 1), (4, 0), (7, 0xFF)] {
            let mut bytes = frame(b"p");
            bytes[at] = byte;
            let crc = checksum(LINEAGE, &bytes[..28]);
            bytes[28..32].copy_from_slice(&crc.to_le_bytes());
            assert!(FrameHeader::parse(bytes.first_chunk().unwrap(), LINEAGE).is_err(), "byte {at} = {byte}");
        }
    }

    #[test]
    fn the_largest_payload_that_is_written_is_read_and_no_larger_one() {
        for bytes in [FRAME_PAYLOAD_BYTES_MAX - 1, FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX + 1] {
            let mut header: [u8; FRAME_HEADER_BYTES] = *frame(b"p").first_chunk().unwrap();
            header[4..8].copy_from_slice(&(bytes as u32).to_le_bytes());
            let crc = checksum(LINEAGE, &header[..28]);
            header[28..].copy_from_slice(&crc.to_le_bytes());
            let is_read = FrameHeader::parse(&header, LINEAGE).is_ok();
            assert_eq!((is_read, payload_fits(bytes)), (bytes <= 1 << 30, bytes <= 1 << 30), "{bytes} bytes");
        }
    }
}
