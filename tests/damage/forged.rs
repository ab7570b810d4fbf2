//! Binary files that lie with sound checksums: whoever can write a file can make its CRCs fit, so the parser behind
//! them is on its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dictdb::{BackupFormat, BackupManager, DictDb, LoadOptions, RestoreOptions};
use xxhash_rust::xxh3::xxh3_128;

use crate::chain::{Chain, DIR, Shape, bounded, contents, storage_of};

const HEADER_BYTES: usize = 128;
const FRAME_HEADER_BYTES: usize = 32;

/// A file taken apart into what its checksums cover. The seal is the last frame.
#[derive(Clone)]
pub(crate) struct Parts {
    header: Vec<u8>,
    pub(crate) frames: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Parts {
    pub(crate) fn of(bytes: &[u8]) -> Parts {
        let (header, mut rest) = bytes.split_at(HEADER_BYTES);
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (frame, behind) = rest.split_at(FRAME_HEADER_BYTES);
            let length = u32::from_le_bytes(frame[4..8].try_into().unwrap()) as usize;
            let (payload, behind) = behind.split_at(length);
            frames.push((frame.to_vec(), payload.to_vec()));
            rest = behind;
        }
        Parts { header: header.to_vec(), frames }
    }

    /// The file, with every length, count and checksum made to fit what is in it.
    pub(crate) fn forge(&self) -> Vec<u8> {
        let mut parts = self.clone();
        let last = parts.frames.len() - 1;
        for (frame, payload) in &mut parts.frames {
            frame[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        }
        let before: usize = HEADER_BYTES + parts.frames[..last].iter().map(|(f, p)| f.len() + p.len()).sum::<usize>();
        let (seal_header, seal) = &mut parts.frames[last];
        let file_bytes = before + seal_header.len() + seal.len();
        seal[24..32].copy_from_slice(&(last as u64).to_le_bytes());
        seal[48..56].copy_from_slice(&(file_bytes as u64).to_le_bytes());
        parts.with_checksums()
    }

    /// The file as it is, with checksums that fit.
    fn with_checksums(&self) -> Vec<u8> {
        let mut out = self.header.clone();
        let crc = crc32fast::hash(&out[..124]);
        out[124..].copy_from_slice(&crc.to_le_bytes());
        let seed = crc32fast::hash(&out[16..32]);
        let seeded = |bytes: &[u8]| {
            let mut hasher = crc32fast::Hasher::new_with_initial(seed);
            hasher.update(bytes);
            hasher.finalize().to_le_bytes()
        };
        for (n, (frame, payload)) in self.frames.iter().enumerate() {
            let (mut frame, mut payload) = (frame.clone(), payload.clone());
            if n + 1 == self.frames.len() && payload.len() == 72 {
                let content = xxh3_128(&out);
                payload[56..].copy_from_slice(&content.to_le_bytes());
            }
            frame[24..28].copy_from_slice(&seeded(&payload));
            let crc = seeded(&frame[..28]);
            frame[28..].copy_from_slice(&crc);
            out.extend_from_slice(&frame);
            out.extend_from_slice(&payload);
        }
        out
    }
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// What a chain is made of that holds one file of each sort and nothing else: a snapshot, a delta from the empty
/// database, or a snapshot with a compressed block.
fn lone_files() -> Vec<(Chain, PathBuf)> {
    let lone = |shape| {
        let chain = Chain::new(shape, BackupFormat::Binary, "a");
        let path = chain.files.keys().next().unwrap().clone();
        (chain, path)
    };
    vec![lone(Shape::FullsOnly), lone(Shape::DeltasOnly), lone(Shape::Compressed)]
}

/// Restores and loads a forged file: an error, or the contents of the backup point that the file was made of, whose
/// digest a forger of bytes has not changed.
fn judge(what: &str, chain: &Chain, path: &PathBuf, forged: Vec<u8>) {
    let bytes = forged.len();
    let storage = storage_of(&BTreeMap::from([(path.clone(), forged)]));
    let restoring = RestoreOptions::new().storage(storage.clone());
    let label = || format!("{what}: {}", path.display());
    if let Ok((db, report)) = bounded(&label, bytes, || restoring.restore(DIR)) {
        assert_eq!(contents(&db), chain.points[0].contents, "{}: {report}", label());
    }
    let options = LoadOptions::new().storage(storage);
    if let Ok(db) = bounded(&label, bytes, || DictDb::load_with(path, &options)) {
        assert_eq!(contents(&db), chain.points[0].contents, "{}", label());
    }
    let db = DictDb::new();
    if bounded(&label, bytes, || db.apply_delta_with(path, &options)).is_ok() {
        assert_eq!(contents(&db), chain.points[0].contents, "{}", label());
    }
}

#[test]
fn the_forger_of_these_tests_makes_files_that_pass() {
    for (chain, path) in lone_files() {
        let forged = Parts::of(&chain.files[&path]).forge();
        assert_eq!(forged, chain.files[&path]);
    }
}

#[test]
fn no_flipped_bit_behind_repaired_checksums_gives_other_data_or_costs_memory() {
    for (chain, path) in lone_files() {
        let parts = Parts::of(&chain.files[&path]);
        for n in 0..parts.frames.len() {
            for bit in 0..parts.frames[n].1.len() * 8 {
                let mut forged = parts.clone();
                forged.frames[n].1[bit / 8] ^= 1 << (bit % 8);
                judge(&format!("bit {bit} of frame {n}'s payload"), &chain, &path, forged.with_checksums());
            }
            for bit in 0..24 * 8 {
                let mut forged = parts.clone();
                forged.frames[n].0[bit / 8] ^= 1 << (bit % 8);
                judge(&format!("bit {bit} of frame {n}'s header"), &chain, &path, forged.with_checksums());
            }
        }
        for bit in 0..124 * 8 {
            let mut forged = parts.clone();
            forged.header[bit / 8] ^= 1 << (bit % 8);
            judge(&format!("bit {bit} of the header"), &chain, &path, forged.with_checksums());
        }
    }
}

#[test]
fn no_huge_length_or_count_at_any_place_allocates_for_it() {
    let huge = [1 << 20, (1 << 30) - 1, 1 << 30, u64::from(u32::MAX), 1 << 40, i64::MAX as u64, u64::MAX];
    for (chain, path) in lone_files() {
        let parts = Parts::of(&chain.files[&path]);
        for n in 0..parts.frames.len() - 1 {
            for at in 0..parts.frames[n].1.len() {
                for value in huge {
                    let mut forged = parts.clone();
                    forged.frames[n].1.splice(at..=at, varint(value));
                    judge(&format!("{value} at byte {at} of frame {n}"), &chain, &path, forged.forge());
                }
            }
        }
        for n in 0..parts.frames.len() {
            for value in [0, 1, 1 << 20, 1 << 30, (1 << 30) + 1, u32::MAX] {
                let mut forged = parts.clone();
                forged.frames[n].0[4..8].copy_from_slice(&u32::to_le_bytes(value));
                judge(&format!("frame {n} says {value} bytes"), &chain, &path, forged.with_checksums());
            }
        }
        let seal = parts.frames.len() - 1;
        for field in (16..56).step_by(8) {
            for value in huge.into_iter().chain([0, 1]) {
                let mut forged = parts.clone();
                forged.frames[seal].1[field..field + 8].copy_from_slice(&value.to_le_bytes());
                judge(&format!("{value} at {field} of the seal"), &chain, &path, forged.with_checksums());
            }
        }
    }
}

/// Puts a row, its names and its values, in place of the first row of the snapshot, or of the first put of the delta.
fn with_row(parts: &Parts, names: &[u8], values: &[u8]) -> Parts {
    let mut forged = parts.clone();
    let (header, payload) = forged.frames.iter_mut().find(|(_, p)| p.windows(2).any(|w| w == b"a1")).unwrap();
    // The names begin with their count, then "name"; the key was added last.
    let start = payload.windows(6).position(|w| w == b"\x03\x04name").unwrap();
    let names_end = start + 13;
    assert_eq!(payload[names_end - 3..names_end], *b"\x02id");
    if header[0] == 1 {
        let length = usize::from(payload[start - 1]); // below 128
        let entry = [varint((names.len() + values.len()) as u64), names.to_vec(), values.to_vec()].concat();
        payload.splice(start - 1..start + length, entry);
        return forged;
    }
    assert_eq!((header[0], start, payload[0]), (3, 1, 1), "a block of rows that have the same names");
    let (old_names, rows) = (payload[start..names_end].to_vec(), payload[names_end..].to_vec());
    let (count, mut rest) = (rows[0], &rows[1..]);
    let mut old_values = Vec::new();
    while !rest.is_empty() {
        // A text below 64 bytes, a float, and a key below 128.
        let text = usize::from(rest[0]).checked_sub(0x20).unwrap();
        assert_eq!((rest[0] < 0x60, rest[1 + text], rest[1 + text + 9] >= 0x60), (true, 5, true), "name, sum, id");
        let (values, behind) = rest.split_at(1 + text + 9 + 1);
        old_values.push(values);
        rest = behind;
    }
    assert_eq!(old_values.len(), usize::from(count));
    let shapes: Vec<&[u8]> = if names == old_names || count == 1 { vec![names] } else { vec![names, &old_names] };
    *payload = [varint(shapes.len() as u64), shapes.concat(), vec![count]].concat();
    for (n, old) in old_values.iter().enumerate() {
        if shapes.len() > 1 {
            payload.push(u8::from(n > 0));
        }
        let values = if n == 0 { values } else { old };
        payload.extend_from_slice(values);
    }
    forged
}

#[test]
fn rows_that_lie_are_refused_whatever_their_checksums_say() {
    let field = |name: &[u8], value: &[u8]| ([varint(name.len() as u64), name.to_vec()].concat(), value.to_vec());
    let dict = |fields: &[(Vec<u8>, Vec<u8>)]| {
        let (names, values): (Vec<_>, Vec<_>) = fields.iter().cloned().unzip();
        ([varint(names.len() as u64), names.concat()].concat(), values.concat())
    };
    let id = field(b"id", &[0x81]);
    let name = field(b"name", &[0x22, b'a', b'1']);
    let sum_of = |sum: f64| field(b"sum", &[&[5][..], &sum.to_le_bytes()].concat());
    let sum = sum_of(0.5);
    let nested = |container: &[u8], depth: usize| [container.repeat(depth), vec![0]].concat();
    let (list, dict_of_x) = ([0x11], [8, 1, 1, b'x']);
    let bombs = vec![
        ("a sound row", dict(&[name.clone(), sum.clone(), id.clone()])), // as the delta's first commit has it
        ("a sound row", dict(&[name.clone(), sum_of(-0.5), id.clone()])), // and the snapshot, later
        ("a field twice", dict(&[name.clone(), name.clone(), sum.clone(), id.clone()])),
        ("the primary key twice", dict(&[name.clone(), sum.clone(), id.clone(), id.clone()])),
        ("no primary key", dict(&[name.clone(), sum.clone()])),
        ("a name that is not UTF-8", dict(&[field(b"na\xFFe", &[0]), sum.clone(), id.clone()])),
        ("text that is not UTF-8", dict(&[field(b"name", &[0x22, 0xC3, 0x28]), sum.clone(), id.clone()])),
        ("a surrogate in UTF-8", dict(&[field(b"name", &[0x23, 0xED, 0xA0, 0x80]), sum.clone(), id.clone()])),
        ("lists a hundred deep", dict(&[field(b"name", &nested(&list, 100)), sum.clone(), id.clone()])),
        ("lists without end", dict(&[field(b"name", &nested(&list, 200_000)), sum.clone(), id.clone()])),
        ("dicts without end", dict(&[field(b"name", &nested(&dict_of_x, 200_000)), sum.clone(), id.clone()])),
        (
            "a list of 2^63 nulls",
            dict(&[field(b"name", &[vec![7], varint(1 << 63)].concat()), sum.clone(), id.clone()]),
        ),
        ("a key that is a float", dict(&[name.clone(), sum.clone(), field(b"id", &[&[5][..], &[0; 8]].concat())])),
        ("a field that the schema lacks", dict(&[name.clone(), sum.clone(), id.clone(), field(b"x", &[0])])),
        ("a number in two bytes", dict(&[name.clone(), sum.clone(), field(b"id", &[3, 2])])),
        ("a text with a length of its own", dict(&[field(b"name", &[6, 2, b'a', b'1']), sum.clone(), id.clone()])),
        ("an unknown kind", dict(&[field(b"name", &[9]), sum.clone(), id.clone()])),
        ("bytes behind the row", dict(&[name.clone(), sum.clone(), (id.0.clone(), [&*id.1, &[0]].concat())])),
        ("nothing at all", (Vec::new(), Vec::new())),
    ];
    // A stack on which deep recursion would not go unnoticed.
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
        for (chain, path) in lone_files() {
            let parts = Parts::of(&chain.files[&path]);
            let mut sound = 0;
            for (what, (names, values)) in &bombs {
                let forged = with_row(&parts, names, values).forge();
                let bytes = forged.len();
                let storage = storage_of(&BTreeMap::from([(path.clone(), forged)]));
                let options = RestoreOptions::new().storage(storage);
                let label = || format!("{what} in {}", path.display());
                let outcome = bounded(&label, bytes, || options.restore(DIR)).map(|(_, report)| report);
                if *what == "a sound row" {
                    sound += usize::from(outcome.is_ok());
                    continue;
                }
                let error = outcome.unwrap_err();
                let text = error.to_string();
                assert!(text.contains("is damaged at byte"), "{}: {text}", label());
                assert!(!text.contains("digest"), "{}: only the digest told: {text}", label());
                judge(what, &chain, &path, with_row(&parts, names, values).forge());
            }
            // In the delta a later commit puts the row anew, so either will do.
            assert!(sound >= 1, "{}: the forger does not put rows where they are read", path.display());
        }
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn tables_and_rows_twice_or_out_of_order_are_refused() {
    let (chain, path) = lone_files().remove(0);
    let parts = Parts::of(&chain.files[&path]);
    let count = parts.frames.len() - 1;
    for from in 0..count {
        for to in 0..=count {
            let mut forged = parts.clone();
            forged.frames.insert(to, parts.frames[from].clone());
            judge(&format!("frame {from} again at {to}"), &chain, &path, forged.forge());
        }
        let mut forged = parts.clone();
        forged.frames.remove(from);
        judge(&format!("frame {from} removed"), &chain, &path, forged.forge());
    }
    let rows = parts.frames.iter().position(|(header, _)| header[0] == 3).unwrap();
    let mut forged = parts.clone();
    let payload = &mut forged.frames[rows].1;
    let row = payload[1..].to_vec();
    payload[0] *= 2;
    payload.extend_from_slice(&row);
    judge("the rows of a block twice", &chain, &path, forged.forge());
}

/// A block as frames of kind 6 have it.
fn compressed(bytes: usize, lz4: &[u8]) -> Vec<u8> {
    [varint(bytes as u64), lz4.to_vec()].concat()
}

/// The snapshot with a compressed block, and which frame that is.
fn compressed_snapshot() -> (Chain, PathBuf, Parts, usize) {
    let (chain, path) = lone_files().remove(2);
    let parts = Parts::of(&chain.files[&path]);
    let kinds: Vec<u8> = parts.frames.iter().map(|(header, _)| header[0]).collect();
    assert_eq!(kinds, [2, 3, 2, 3, 2, 6, 4], "accounts and notes do not get smaller");
    (chain, path, parts, 5)
}

fn load(chain: &Chain, path: &PathBuf, what: &str, forged: Vec<u8>) -> dictdb::Result<DictDb> {
    let bytes = forged.len();
    judge(what, chain, path, forged.clone());
    let options = LoadOptions::new().storage(storage_of(&BTreeMap::from([(path.clone(), forged)])));
    bounded(&|| what.to_owned(), bytes, || DictDb::load_with(path, &options))
}

const TEXT: &[u8] = b"much the same words";

#[test]
fn any_lz4_of_the_same_rows_will_do_and_so_will_the_rows_themselves() {
    let (chain, path, parts, at) = compressed_snapshot();
    let (length, payload) = parts.frames[at].1.split_first().unwrap();
    let length = usize::from(*length); // below 128
    let rows = lz4_flex::block::decompress(payload, length).unwrap();
    let mut forged = parts.clone();
    forged.frames[at].0[0] = 3;
    forged.frames[at].1 = rows.clone();
    load(&chain, &path, "not compressed", forged.forge()).unwrap();
    // One match, of the text of the second row, where a compressor finds more.
    let mut texts = (0..rows.len()).filter(|&at| rows[at..].starts_with(TEXT));
    let (first, second) = (texts.next().unwrap(), texts.next().unwrap());
    let (before, behind) = (&rows[..second], &rows[second + TEXT.len()..]);
    let [long, rest] = [before, behind].map(|literals| u8::try_from(literals.len() - 15).unwrap());
    let back = u8::try_from(second - first).unwrap();
    let lz4 = [&[0xFF, long], before, &[back, 0, TEXT.len() as u8 - 19], &[0xF0, rest], behind].concat();
    assert_ne!(lz4, payload);
    forged.frames[at].0[0] = 6;
    forged.frames[at].1 = compressed(length, &lz4);
    load(&chain, &path, "compressed in another way", forged.forge()).unwrap();
}

#[test]
fn compressed_blocks_that_lie_are_refused_before_memory_is_taken_for_them() {
    let (chain, path, parts, at) = compressed_snapshot();
    let lz4 = parts.frames[at].1[1..].to_vec();
    let rows = lz4_flex::block::decompress(&lz4, 1_000).unwrap();
    // A match that goes on and on: 255 times its bytes.
    let bomb = |bytes: usize| [&[0x1F, 7, 1, 0][..], &vec![0xFF; bytes], &[0, 0x50], &[7; 5]].concat();
    let twice = [&rows[..], &rows].concat();
    for (what, payload, expected) in [
        ("a byte more than there is", compressed(rows.len() + 1, &lz4), "as many bytes as are stated"),
        ("a byte less than there is", compressed(rows.len() - 1, &lz4), "as many bytes as are stated"),
        ("as many bytes as there are", compressed(lz4.len() + 1, &lz4), "more bytes than the compressed block"),
        ("256 times the bytes", compressed(lz4.len() * 256, &lz4), "at most 255 times"),
        ("1 MiB that is said to be 16 MiB and more", compressed((16 << 20) + 1, &bomb(1 << 20)), "at most 16 MiB"),
        ("1 MiB that is said to be 200 MiB", compressed(200 << 20, &bomb(1 << 20)), "at most 16 MiB"),
        ("nothing", compressed(0, &[]), "more bytes than the compressed block"),
        ("a length alone", varint(100), "at most 255 times"),
        ("half a length", vec![0x80], "a whole integer"),
        ("bytes of before the block", compressed(100, &[0x1F, 7, 9, 0, 77, 0x50, 1, 2, 3, 4, 5]), "an LZ4 block of"),
        ("the rows twice", compressed(twice.len(), &lz4_flex::block::compress(&twice)), "at byte"),
        ("sevens", compressed(7 * 255, &bomb(6)[..]), "an LZ4 block of"),
    ] {
        let mut forged = parts.clone();
        forged.frames[at].1 = payload;
        let error = load(&chain, &path, what, forged.forge()).unwrap_err().to_string();
        assert!(error.contains("is damaged at byte") && error.contains(expected), "{what}: {error}");
    }
    let mut forged = parts.clone();
    forged.frames[at].0[0] = 3;
    load(&chain, &path, "compressed, in a frame of rows that are not", forged.forge()).unwrap_err();
    forged = parts.clone();
    forged.frames[1].0[0] = 6;
    load(&chain, &path, "not compressed, in a frame of rows that are", forged.forge()).unwrap_err();
}

/// A table takes nine bytes of a delta, and is some hundreds in memory.
#[test]
fn tables_without_rows_take_no_memory_out_of_proportion() {
    const TABLES: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let db = DictDb::new();
    db.transaction(|tx| (0..TABLES).try_for_each(|n| tx.create_table(&format!("{n:x}"), "").map(drop))).unwrap();
    let manager = BackupManager::builder(&db, dir.path().join("chain")).file_format(BackupFormat::Binary);
    manager.incremental(true).build().unwrap().backup_delta().unwrap();
    let (binary, json) = (dir.path().join("full.bin"), dir.path().join("full.json"));
    db.save(&binary, BackupFormat::Binary).unwrap();
    db.save(&json, BackupFormat::Json).unwrap();
    let load = |file: &std::path::Path| DictDb::load(file).unwrap();
    let restore = || dictdb::restore(dir.path().join("chain")).unwrap().0;
    let ways: [(&str, &dyn Fn() -> DictDb); 3] =
        [("a full one", &|| load(&binary)), ("JSON", &|| load(&json)), ("a delta", &restore)];
    for (way, read) in ways {
        let mut found = None;
        let used = allocation_counter::measure(|| found = Some(read().digest()));
        assert_eq!(found, Some(db.digest()), "{way}");
        assert!(used.bytes_max <= 1_024 * TABLES, "{way}: {} bytes a table", used.bytes_max / TABLES);
    }
}
