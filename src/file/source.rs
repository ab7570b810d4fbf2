//! Reading a file front to back, with offsets for messages and no allocation that the file's own size does not cover.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::storage::{ReadFile, Storage};

const BUFFER_BYTES: usize = 256 << 10;

pub(crate) struct Source {
    reader: BufReader<Box<dyn ReadFile>>,
    path: PathBuf,
    bytes: u64,
    offset: u64,
}

impl Source {
    pub(crate) fn open(storage: &dyn Storage, path: &Path) -> Result<Source> {
        let file = storage.open(path).map_err(Error::io("open", path))?;
        let bytes = file.len().map_err(Error::io("read", path))?;
        let buffer_bytes = usize::try_from(bytes).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        Ok(Source { reader: BufReader::with_capacity(buffer_bytes, file), path: path.to_owned(), bytes, offset: 0 })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file when it was opened.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.bytes.saturating_sub(self.offset)
    }

    pub(crate) fn seek(&mut self, offset: u64) -> Result<()> {
        self.reader.seek(SeekFrom::Start(offset)).map_err(Error::io("seek in", &self.path))?;
        self.offset = offset;
        Ok(())
    }

    pub(crate) fn array<const N: usize>(&mut self, expected: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        if self.remaining() < N as u64 {
            return Err(self.cut_short(expected));
        }
        self.fill(&mut bytes, expected)?;
        Ok(bytes)
    }

    /// Reads `length` bytes into `out`, after checking that the file has them.
    pub(crate) fn bytes_into(&mut self, out: &mut Vec<u8>, length: usize, expected: &str) -> Result<()> {
        if self.remaining() < length as u64 {
            return Err(self.cut_short(expected));
        }
        out.resize(length, 0); // what stands there is read over
        self.fill(out, expected)
    }

    fn fill(&mut self, bytes: &mut [u8], expected: &str) -> Result<()> {
        match self.reader.read_exact(bytes) {
            Ok(()) => {
                self.offset = self.offset.saturating_add(bytes.len() as u64);
                Ok(())
            }
            // The file shrank after it was opened.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.cut_short(expected)),
            Err(error) => Err(Error::io("read", &self.path)(error)),
        }
    }

    /// At least one byte unless the file has ended; for readers that want what there is.
    pub(crate) fn read_some(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let read = loop {
            match self.reader.read(bytes) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other.map_err(Error::io("read", &self.path))?,
            }
        };
        self.offset = self.offset.saturating_add(read as u64);
        Ok(read)
    }

    fn cut_short(&self, expected: &str) -> Error {
        Error::corrupt(&self.path, self.offset, format!("{expected}, and the file ends at byte {}", self.bytes))
    }
}
