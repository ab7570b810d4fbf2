//! The fixed header at the start of every binary file.
//!
//! ```text
//! offset size field
//!      0    8 magic 89 44 44 42 0D 0A 1A 0A
//!      8    2 format version, 2
//!     10    1 kind: 1 snapshot, 2 delta, 3 log
//!     11    5 reserved, zero
//!     16   16 lineage
//!     32   40 base: lineage, seq, digest; all zero for none
//!     72   40 parent of the lineage: lineage, seq, digest; all zero for none
//!    112    8 created, microseconds since 1970; equals the stamp in the file's name
//!    120    4 preallocation of a log segment, in bytes; else zero
//!    124    4 CRC-32 of bytes 0..124
//! ```
//!
//! A delta joins onto its base. A snapshot's base is the point that its directory led to when it was written. A
//! log segment holds the commits after its base; one without a base begins with the first commit of all.

use std::path::Path;

use crate::error::{Error, Result};
use crate::history::{Digest, Lineage, Point, Seq, Timestamp};

pub(crate) const HEADER_BYTES: usize = 128;

/// A non-ASCII byte, our letters, and the line ends and end-of-file marks that text-mode copying breaks.
pub(crate) const MAGIC: [u8; 8] = *b"\x89DDB\r\n\x1A\n";

/// The format that this program writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u16 = 2;

/// The smallest preallocation of a log segment: a header, a seal, and room.
pub(crate) const PREALLOCATION_MIN: u32 = 512;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Snapshot = 1,
    Delta = 2,
    Log = 3,
}

impl FileKind {
    /// As an error message says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FileKind::Snapshot => "full backup",
            FileKind::Delta => "delta backup",
            FileKind::Log => "log segment",
        }
    }
}

/// A header that passed its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FileKind,
    pub(crate) lineage: Lineage,
    pub(crate) parent: Option<Point>,
    pub(crate) base: Option<Point>,
    pub(crate) created: Timestamp,
    /// Of a log segment: while it is open, its length is a multiple of this. 0 elsewhere.
    pub(crate) preallocation: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&[0; 5]);
        bytes.extend_from_slice(&self.lineage.to_bytes());
        encode_point(self.base, &mut bytes);
        encode_point(self.parent, &mut bytes);
        bytes.extend_from_slice(&self.created.as_micros().to_le_bytes());
        bytes.extend_from_slice(&self.preallocation.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes);
        header
    }

    /// Checks magic and version before the checksum, so that another format is told from damage.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES], file: &Path) -> Result<Header> {
        let mut fields = Fields { bytes };
        if fields.take::<8>() != MAGIC {
            return Err(Error::corrupt(file, 0, "the magic of a dictdb file"));
        }
        let version = u16::from_le_bytes(fields.take());
        if version != FORMAT_VERSION {
            // A damaged version looks like a later one unless the checksum is asked first.
            let sound = crc_fits(bytes);
            return Err(if sound {
                Error::UnsupportedVersion { file: file.to_owned(), found: version, supported: FORMAT_VERSION }
            } else {
                Error::corrupt(file, 8, format!("format version {FORMAT_VERSION}, or a header CRC that fits"))
            });
        }
        if !crc_fits(bytes) {
            return Err(Error::corrupt(file, 124, "the CRC of the header"));
        }
        let kind = match fields.take::<1>() {
            [1] => FileKind::Snapshot,
            [2] => FileKind::Delta,
            [3] => FileKind::Log,
            _ => return Err(Error::corrupt(file, 10, "kind 1 (snapshot), 2 (delta) or 3 (log)")),
        };
        if fields.take::<5>() != [0; 5] {
            return Err(Error::corrupt(file, 11, "zeros"));
        }
        let lineage = Lineage::from_bytes(fields.take());
        if lineage == Lineage::NONE {
            return Err(Error::corrupt(file, 16, "a lineage"));
        }
        let base = fields.point().ok_or_else(|| Error::corrupt(file, 32, "zeros, or a point with a lineage"))?;
        let parent = fields.point().ok_or_else(|| Error::corrupt(file, 72, "zeros, or a point with a lineage"))?;
        if kind == FileKind::Delta && base.is_none() {
            return Err(Error::corrupt(file, 32, "the base that the delta joins onto"));
        }
        let created = Timestamp::from_micros(i64::from_le_bytes(fields.take()));
        let preallocation = u32::from_le_bytes(fields.take());
        if (kind == FileKind::Log) != (preallocation >= PREALLOCATION_MIN)
            || (kind != FileKind::Log && preallocation != 0)
        {
            return Err(Error::corrupt(file, 120, "a preallocation of at least 512 bytes in a log, zeros elsewhere"));
        }
        Ok(Header { kind, lineage, parent, base, created, preallocation })
    }
}

fn crc_fits(bytes: &[u8; HEADER_BYTES]) -> bool {
    let (body, crc) = bytes.split_at(HEADER_BYTES - 4);
    crc32fast::hash(body).to_le_bytes() == crc
}

fn encode_point(point: Option<Point>, out: &mut Vec<u8>) {
    let point = point.unwrap_or(Point { lineage: Lineage::NONE, seq: Seq::ZERO, digest: Digest::EMPTY });
    out.extend_from_slice(&point.lineage.to_bytes());
    out.extend_from_slice(&point.seq.get().to_le_bytes());
    out.extend_from_slice(&point.digest.to_u128().to_le_bytes());
}

/// Fixed-width little-endian fields, one after the other; zeros past the end, which the fixed sizes rule out.
pub(crate) struct Fields<'a> {
    pub(crate) bytes: &'a [u8],
}

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.bytes.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.bytes = rest;
                *field
            }
            None => [0; N],
        }
    }

    /// `Some(None)` for all zeros; `None` for a point without a lineage.
    fn point(&mut self) -> Option<Option<Point>> {
        let lineage = Lineage::from_bytes(self.take());
        let seq = Seq::new(u64::from_le_bytes(self.take()));
        let digest = Digest::from_u128(u128::from_le_bytes(self.take()));
        match (lineage == Lineage::NONE, seq, digest) {
            (false, ..) => Some(Some(Point { lineage, seq, digest })),
            (true, Seq::ZERO, Digest::EMPTY) => Some(None),
            _ => None,
        }
    }
}
