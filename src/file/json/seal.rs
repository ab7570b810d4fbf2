//! The member `dictdb_seal`, last in a JSON backup of ours: a CRC-32 of every byte before it.

use crate::error::{Error, Result};
use crate::file::source::Source;

const OPENING: &str = ",\n    \"dictdb_seal\": {\"bytes\": ";

/// No seal is longer: 20 digits, 8 digits and what stands around them, with room for what an editor may add.
const SEAL_BYTES_MAX: u64 = 128;

/// The end of a file whose first `bytes` bytes have this CRC. There is no other way to write it.
pub(crate) fn render(bytes: u64, crc: u32) -> String {
    format!("{OPENING}{bytes}, \"crc32\": \"{crc:08x}\"}}\n}}\n")
}

/// The seal at the end of a file: where it begins, and the CRC that it states.
pub(crate) fn read(source: &mut Source) -> Result<(u64, u32)> {
    let tail_at = source.bytes().saturating_sub(SEAL_BYTES_MAX);
    source.seek(tail_at)?;
    let mut tail = Vec::new();
    let length = usize::try_from(source.remaining()).unwrap_or(0);
    source.bytes_into(&mut tail, length, "the end of the file")?;
    let found = (0..tail.len()).rev().find_map(|start| {
        let text = std::str::from_utf8(tail.get(start..)?).ok()?;
        let rest = text.strip_prefix(OPENING)?;
        let (bytes, rest) = rest.split_once(", \"crc32\": \"")?;
        let (bytes, crc) = (bytes.parse::<u64>().ok()?, u32::from_str_radix(rest.get(..8)?, 16).ok()?);
        let at = tail_at.saturating_add(start as u64);
        (bytes == at && render(bytes, crc) == text).then_some((bytes, crc))
    });
    if let Some(found) = found {
        return Ok(found);
    }
    let end = source.bytes();
    match moved(&tail) {
        Some(stored) => {
            let computed = crc_of(source, end)?;
            Err(Error::ChecksumMismatch { file: source.path().to_owned(), stored, computed })
        }
        None => {
            let expected = "the member \"dictdb_seal\" at the very end: the file is not whole";
            Err(Error::corrupt(source.path(), end, expected))
        }
    }
}

/// The CRC in a seal that is whole but not where it says, or not written as it was: the text before it grew or shrank,
/// or its line ends changed, as an editor does. A file cut short has no whole seal.
fn moved(tail: &[u8]) -> Option<u32> {
    let text: Vec<u8> = tail.iter().copied().filter(|b| *b != b'\r').collect();
    let from = text.windows(OPENING.len()).rposition(|window| window == OPENING.as_bytes())?;
    let text = std::str::from_utf8(text.get(from..)?).ok()?;
    let rest = text.trim_end().strip_prefix(OPENING)?.strip_suffix("\"}\n}")?;
    let (bytes, crc) = rest.split_once(", \"crc32\": \"")?;
    bytes.parse::<u64>().ok()?;
    u32::from_str_radix(crc, 16).ok()
}

/// Whether the file ends as only one of ours does, whatever has become of its beginning.
pub(crate) fn ends_with_one(source: &mut Source) -> Result<bool> {
    match read(source) {
        Err(Error::Corrupt { .. }) => Ok(false),
        Ok(_) | Err(Error::ChecksumMismatch { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Compares the file with its seal, reading all of it.
pub(crate) fn verify(source: &mut Source) -> Result<()> {
    let (bytes, stored) = read(source)?;
    match crc_of(source, bytes)? {
        computed if computed == stored => Ok(()),
        computed => Err(Error::ChecksumMismatch { file: source.path().to_owned(), stored, computed }),
    }
}

/// The CRC-32 of the first `bytes` bytes.
fn crc_of(source: &mut Source, bytes: u64) -> Result<u32> {
    source.seek(0)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..want).unwrap_or_default();
        let read = source.read_some(room)?;
        if read == 0 {
            return Err(Error::corrupt(source.path(), source.offset(), format!("{left} more bytes before the end")));
        }
        hasher.update(room.get(..read).unwrap_or_default());
        left = left.saturating_sub(read as u64);
    }
    Ok(hasher.finalize())
}
