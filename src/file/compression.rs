//! Compression of a snapshot's blocks: LZ4, each block by itself, so that all cores can compress
//! and decompress them.
//!
//! ```text
//! compressed block = bytes of the block (varint), the block as one LZ4 block
//! ```
//!
//! What a block claims to hold is checked before memory is taken for it: it has a bound of its own, LZ4 makes at most
//! 255 bytes of one, and a block that compression does not shorten is no compressed one. (The last two bounds together
//! also keep the lengths inside an LZ4 block below 2^32, where 32-bit decoders would wrap around.)

use std::fmt;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::limits::COMPRESSED_BLOCK_BYTES_MAX;
use crate::wire::{self, Malformed, Reader};

/// How the records of a binary full backup, or of a store's snapshots, are compressed. Every reader reads either, and
/// files of both sorts in one directory.
///
/// LZ4 is made for speed. All cores compress: writing takes longer where the disk is faster than they are,
/// loading little longer than without. It finds what repeats within some hundreds of records; random numbers, hashes and
/// what is compressed already stay as large as they are.
///
/// ```
/// use dictdb::{BackupFormat, BackupManager, Compression, DictDb, record, restore};
/// let dir = tempfile::tempdir()?;
/// let db = DictDb::new();
/// let users = db.create_table("users", "id")?;
/// users.insert_many((0..1_000).map(|n| record! { "name": format!("user {n}"), "role": "reader" }))?;
///
/// let back_up = |name: &str, compression| {
///     let builder = BackupManager::builder(&db, dir.path().join(name)).file_format(BackupFormat::Binary);
///     builder.compression(compression).build()?.backup_full()
/// };
/// let (plain, lz4) = (back_up("plain", Compression::None)?, back_up("lz4", Compression::Lz4)?);
/// assert!(lz4.bytes < plain.bytes / 2);
/// assert_eq!(restore(dir.path().join("lz4"))?.0.digest(), db.digest());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// By LZ4, a block of about 256 KiB at a time, where that makes it smaller.
    Lz4,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Lz4 => "LZ4",
        })
    }
}

/// Compresses blocks one after the other, with buffers that it keeps.
pub(crate) struct Compressor {
    table: CompressTable,
    out: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new() -> Compressor {
        Compressor { table: CompressTable::large(), out: Vec::new() }
    }

    /// Puts the compressed block in the place of the one that begins at `start`. Says whether it did: not where that
    /// would save nothing.
    pub(crate) fn compress(&mut self, bytes: &mut Vec<u8>, start: usize) -> bool {
        let block = bytes.get(start..).unwrap_or_default();
        if block.len() > COMPRESSED_BLOCK_BYTES_MAX {
            return false;
        }
        let mut claim = Vec::with_capacity(10);
        wire::put_u64(&mut claim, block.len() as u64);
        // All of it is written over as far as it is used.
        let room = get_maximum_output_size(block.len()).max(self.out.len());
        self.out.resize(room, 0);
        let Ok(length) = compress_into_with_table(block, &mut self.out, &mut self.table) else { return false };
        if length.saturating_add(claim.len()) >= block.len() {
            return false;
        }
        bytes.truncate(start);
        bytes.extend_from_slice(&claim);
        bytes.extend_from_slice(self.out.get(..length).unwrap_or_default());
        true
    }
}

/// How many bytes a compressed block decompresses to, if that can be, and the LZ4 block.
fn split(payload: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    let mut reader = Reader::new(payload);
    let stated = reader.u64()?;
    let lz4 = reader.take(reader.remaining())?;
    let malformed = |expected| Err(Malformed { at: 0, expected });
    match usize::try_from(stated) {
        Ok(bytes) if bytes <= COMPRESSED_BLOCK_BYTES_MAX => {
            if bytes <= payload.len() {
                return malformed("more bytes than the compressed block has");
            }
            if bytes.div_ceil(255) > lz4.len() {
                return malformed("at most 255 times the bytes of the LZ4 block");
            }
            Ok((bytes, lz4))
        }
        _ => malformed("a compressed block of at most 16 MiB"),
    }
}

/// How many bytes a compressed block says it holds; 0 where that cannot be.
pub(crate) fn claimed(payload: &[u8]) -> usize {
    split(payload).map_or(0, |(bytes, _)| bytes)
}

/// What a compressed block holds.
pub(crate) fn decompressed(payload: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (bytes, lz4) = split(payload)?;
    let mut out = vec![0; bytes];
    match decompress_into(lz4, &mut out) {
        Ok(found) if found == bytes => Ok(out),
        _ => {
            let at = payload.len().saturating_sub(lz4.len());
            Err(Malformed { at, expected: "an LZ4 block of as many bytes as are stated before it" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The compressed block, where it is shorter.
    fn compressed(block: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = [b"before", block].concat();
        let shorter = Compressor::new().compress(&mut bytes, 6);
        assert_eq!(bytes[..6], *b"before");
        if !shorter {
            assert_eq!(bytes[6..], *block, "left as it was");
        }
        shorter.then(|| bytes.split_off(6))
    }

    fn claiming(bytes: u64, lz4: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        wire::put_u64(&mut payload, bytes);
        payload.extend_from_slice(lz4);
        payload
    }

    #[test]
    fn what_is_compressed_comes_back_and_what_would_not_get_shorter_stays() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut one = Compressor::new();
        for round in 0..300 {
            let letters = random.u8(1..=255);
            let length = random.usize(0..if round % 10 == 0 { 300_000 } else { 2_000 });
            let block: Vec<u8> = (0..length).map(|_| random.u8(0..letters)).collect();
            let mut again = block.clone();
            // The same with buffers that have seen other blocks.
            assert_eq!(one.compress(&mut again, 0).then_some(again), compressed(&block));
            match compressed(&block) {
                Some(payload) => {
                    assert!(payload.len() < block.len());
                    assert_eq!(decompressed(&payload), Ok(block));
                }
                None => assert!(letters > 4 || length < 100, "{length} bytes of {letters} letters"),
            }
        }
        let random: Vec<u8> = (0..10_000).map(|_| random.u8(..)).collect();
        assert_eq!((compressed(&random), compressed(b"")), (None, None));
    }

    #[test]
    fn a_block_of_more_than_16_mib_is_not_compressed() {
        let most = compressed(&vec![7; COMPRESSED_BLOCK_BYTES_MAX]).unwrap();
        assert_eq!(decompressed(&most).unwrap().len(), COMPRESSED_BLOCK_BYTES_MAX);
        assert_eq!(compressed(&vec![7; COMPRESSED_BLOCK_BYTES_MAX + 1]), None);
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_for_what_it_is() {
        let lz4 = &compressed(&[7; 1_000]).unwrap()[2..];
        let most = 255 * lz4.len() as u64;
        for (bytes, expected) in [
            (0, "more bytes than"),
            (lz4.len() as u64 + 1, "more bytes than"),
            (most + 1, "at most 255 times"),
            ((16 << 20) + 1, "at most 16 MiB"),
            (1 << 40, "at most 16 MiB"),
            (u64::MAX, "at most 16 MiB"),
        ] {
            let payload = claiming(bytes, lz4);
            let refused = decompressed(&payload).unwrap_err();
            assert!(refused.at == 0 && refused.expected.contains(expected), "{bytes}: {refused}");
        }
        assert_eq!(decompressed(&claiming(1_000, lz4)).unwrap(), [7; 1_000]);
        for bytes in (lz4.len() as u64 + 2..=most).filter(|&bytes| bytes != 1_000) {
            let refused = decompressed(&claiming(bytes, lz4)).unwrap_err();
            assert!(refused.expected.contains("as many bytes as are stated"), "{bytes}: {refused}");
        }
    }

    #[test]
    fn no_changed_byte_panics() {
        let mut random = fastrand::Rng::with_seed(9);
        let block: Vec<u8> = (0..600).map(|n| if n % 7 == 0 { random.u8(..) } else { b'a' + (n % 5) as u8 }).collect();
        let sound = compressed(&block).unwrap();
        for at in 0..sound.len() {
            for value in 0..=255 {
                let mut payload = sound.clone();
                payload[at] = value;
                if let Ok(held) = decompressed(&payload) {
                    assert_eq!(held.len(), block.len(), "byte {at} is {value}");
                }
            }
            assert!(decompressed(&sound[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn it_is_the_lz4_block_format() {
        // 40 bytes; 4 literals and a match of 4 + 15 + 11 bytes from 4 before it; 6 literals.
        let payload = compressed(&b"abcd".repeat(10)).unwrap();
        assert_eq!(payload, [&[40, 0x4F][..], b"abcd", &[4, 0, 11], &[0x60], b"cdabcd"].concat());
        let shown: Vec<String> = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(include_str!("../../SPEC.md").contains(&format!("`{}`", shown.join(" "))));
        let block: Vec<u8> = b"abcd".repeat(10);
        assert_eq!(decompressed(&payload), Ok(block));
    }
}
