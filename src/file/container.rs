//! The container that all binary files share: header, frames, seal. One writer, one reader.

use std::path::Path;

use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};
use crate::file::header::{HEADER_BYTES, Header};
use crate::file::seal::{SEAL_BYTES, Seal};
use crate::file::sink::Sink;
use crate::file::source::Source;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::history::{Digest, Lineage, Seq, Timestamp};
use crate::storage::Storage;

/// Writes header and frames, then the seal.
pub(crate) struct ContainerWriter<'s> {
    sink: &'s mut Sink,
    lineage: Lineage,
    frames: u64,
}

impl<'s> ContainerWriter<'s> {
    pub(crate) fn begin(sink: &'s mut Sink, header: &Header) -> Result<ContainerWriter<'s>> {
        sink.put(&header.encode())?;
        Ok(ContainerWriter { sink, lineage: header.lineage, frames: 0 })
    }

    /// Appends a finished frame.
    pub(crate) fn frame(&mut self, frame: &[u8]) -> Result<()> {
        self.frames = self.frames.saturating_add(1);
        self.sink.put(frame)
    }

    /// Appends finished frames in one, after which there are so many.
    pub(crate) fn frames(&mut self, frames: &[u8], count: u64) -> Result<()> {
        self.frames = count;
        self.sink.put(frames)
    }

    pub(crate) fn written(&self) -> u64 {
        self.sink.written()
    }

    /// `groups` and `records` as the seal defines them for the kind of file.
    pub(crate) fn seal(self, seq: Seq, digest: Digest, time: Timestamp, groups: u64, records: u64) -> Result<()> {
        let file_bytes = self.sink.written().saturating_add(SEAL_BYTES as u64);
        let content = self.sink.content()?;
        let seal = Seal { seq, digest, time, frames: self.frames, groups, records, file_bytes, content };
        self.sink.put(&seal.encode(self.lineage))
    }
}

/// Reads header and frames in order and checks everything up to and including the seal.
pub(crate) struct ContainerReader {
    source: Source,
    pub(crate) header: Header,
    content: Xxh3Default,
    frames: u64,
    payload: Vec<u8>,
}

/// A frame whose checksums fitted.
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) payload: &'a [u8],
    /// Where the payload begins in the file.
    pub(crate) payload_at: u64,
}

/// What comes next in a file.
pub(crate) enum Item<'a> {
    Frame(Frame<'a>),
    Seal(Seal),
}

impl ContainerReader {
    pub(crate) fn open(storage: &dyn Storage, path: &Path) -> Result<ContainerReader> {
        let mut source = Source::open(storage, path)?;
        let bytes: [u8; HEADER_BYTES] = source.array("a header of 128 bytes")?;
        let header = Header::parse(&bytes, path)?;
        let mut content = Xxh3Default::new();
        content.update(&bytes);
        Ok(ContainerReader { source, header, content, frames: 0, payload: Vec::new() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.source.path()
    }

    pub(crate) fn offset(&self) -> u64 {
        self.source.offset()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.source.bytes()
    }

    /// Looks at the end of the file, and comes back: the seal, nothing before it checked.
    pub(crate) fn peek_seal(&mut self) -> Result<Seal> {
        let here = self.source.offset();
        let at = self.source.bytes().saturating_sub(SEAL_BYTES as u64).max(HEADER_BYTES as u64);
        self.source.seek(at)?;
        let bytes = self.source.array::<SEAL_BYTES>("the seal of a finished file")?;
        let seal = Seal::parse(&bytes, self.header.lineage)
            .ok_or_else(|| Error::corrupt(self.source.path(), at, "the seal of a finished file"))?;
        self.source.seek(here)?;
        Ok(seal)
    }

    /// The payload of the frame that came last, for a buffer to read the next one into.
    pub(crate) fn take_payload(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.payload, buffer)
    }

    pub(crate) fn next(&mut self) -> Result<Item<'_>> {
        let lineage = self.header.lineage;
        let at = self.source.offset();
        let bytes: [u8; FRAME_HEADER_BYTES] = self.source.array("a frame header, or the seal before it")?;
        let corrupt =
            |offset: u64, expected: &str| Error::corrupt(self.source.path(), at.saturating_add(offset), expected);
        let header = FrameHeader::parse(&bytes, lineage).map_err(|(offset, expected)| corrupt(offset, expected))?;
        self.source.bytes_into(&mut self.payload, header.payload_bytes, "a frame's payload")?;
        let corrupt =
            |offset: u64, expected: &str| Error::corrupt(self.source.path(), at.saturating_add(offset), expected);
        if !header.fits(&self.payload, lineage) {
            return Err(corrupt(FRAME_HEADER_BYTES as u64, "a payload that fits the CRC in its frame header"));
        }
        if header.kind == FrameKind::Seal {
            let seal = Seal::decode(&header, &self.payload).filter(|_| header.synced == Seq::ZERO);
            let seal = seal.ok_or_else(|| corrupt(0, "a seal of this format"))?;
            if seal.frames != self.frames {
                return Err(corrupt(56, &format!("a seal after {} frames, not {}", seal.frames, self.frames)));
            }
            if seal.content != self.content.digest128() {
                return Err(corrupt(88, "a seal whose hash fits the bytes before it"));
            }
            if seal.file_bytes != self.source.offset() || self.source.remaining() != 0 {
                let end = self.source.offset();
                return Err(Error::corrupt(self.source.path(), end, format!("the end of the file after {end} bytes")));
            }
            return Ok(Item::Seal(seal));
        }
        self.content.update(&bytes);
        self.content.update(&self.payload);
        self.frames = self.frames.saturating_add(1);
        let payload_at = at.saturating_add(FRAME_HEADER_BYTES as u64);
        Ok(Item::Frame(Frame { header, payload: &self.payload, payload_at }))
    }
}
