//! The frame that ends a finished binary file. A file without it is not a backup.
//!
//! ```text
//! offset size field                                    (of the payload; the frame header before it says kind 4)
//!      0   16 digest of the state that the file leads to
//!     16    8 time of the newest commit in that state, microseconds since 1970
//!     24    8 frames before the seal
//!     32    8 tables in a snapshot; commits in a delta
//!     40    8 records in a snapshot; puts and deletes in a delta
//!     48    8 bytes of the whole file, seal included
//!     56   16 XXH3-128 of all bytes before the seal
//! ```
//!
//! The frame header's seq is the seq that the file leads to. Its length is fixed, so that the end of a file can be
//! read first.

use crate::file::header::Fields;
use crate::frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::history::{Digest, Lineage, Seq, Timestamp};

const PAYLOAD_BYTES: usize = 72;

/// Bytes of the seal's frame.
pub(crate) const SEAL_BYTES: usize = FRAME_HEADER_BYTES + PAYLOAD_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) seq: Seq,
    pub(crate) digest: Digest,
    pub(crate) time: Timestamp,
    pub(crate) frames: u64,
    pub(crate) groups: u64,
    pub(crate) records: u64,
    pub(crate) file_bytes: u64,
    pub(crate) content: u128,
}

impl Seal {
    /// The seal of a backup.
    pub(crate) fn encode(&self, lineage: Lineage) -> Vec<u8> {
        self.encode_as(FrameKind::Seal, lineage, Seq::ZERO)
    }

    /// A seal of that kind; a log's says which seq was durable before it was written.
    pub(crate) fn encode_as(&self, kind: FrameKind, lineage: Lineage, synced: Seq) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEAL_BYTES);
        let start = frame::begin(&mut bytes);
        bytes.extend_from_slice(&self.digest.to_u128().to_le_bytes());
        bytes.extend_from_slice(&self.time.as_micros().to_le_bytes());
        for count in [self.frames, self.groups, self.records, self.file_bytes] {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        bytes.extend_from_slice(&self.content.to_le_bytes());
        frame::finish(&mut bytes, start, kind, lineage, self.seq, synced);
        bytes
    }

    /// The payload of a frame whose checksums fitted and whose kind and `synced` are those of a seal.
    pub(crate) fn decode(header: &FrameHeader, payload: &[u8]) -> Option<Seal> {
        if payload.len() != PAYLOAD_BYTES {
            return None;
        }
        let mut fields = Fields { bytes: payload };
        Some(Seal {
            seq: header.seq,
            digest: Digest::from_u128(u128::from_le_bytes(fields.take())),
            time: Timestamp::from_micros(i64::from_le_bytes(fields.take())),
            frames: u64::from_le_bytes(fields.take()),
            groups: u64::from_le_bytes(fields.take()),
            records: u64::from_le_bytes(fields.take()),
            file_bytes: u64::from_le_bytes(fields.take()),
            content: u128::from_le_bytes(fields.take()),
        })
    }

    /// The seal at the end of a file, from its last [`SEAL_BYTES`] bytes; nothing else of the file is looked at.
    pub(crate) fn parse(bytes: &[u8; SEAL_BYTES], lineage: Lineage) -> Option<Seal> {
        let (header, payload) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let header = FrameHeader::parse(header, lineage).ok()?;
        let of_backup = header.kind == FrameKind::Seal && header.synced == Seq::ZERO;
        if of_backup && header.fits(payload, lineage) { Seal::decode(&header, payload) } else { None }
    }
}
