//! SPEC.md against the program: the worked example, the tables of bytes, the limits.

use std::collections::BTreeMap;
use std::fs;

use dictdb::{DictDb, Digest, Lineage, list_backups, record, restore};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128, xxh3_128_with_seed};

use crate::read;

/// The backups of the worked example, by name, in their order.
fn example(language: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = blocks(language);
    files.retain(|(name, _)| !name.ends_with(".log"));
    assert_eq!(files.len(), 2, "a full backup and a delta in {language}");
    files
}

/// The log segments of the worked example, in their order.
fn log_example() -> Vec<(String, Vec<u8>)> {
    let mut files = blocks("hex");
    files.retain(|(name, _)| name.ends_with(".log"));
    assert_eq!(files.len(), 2, "a segment that goes on, and the seal of a closed store");
    files
}

/// The fenced blocks of a language, by the name behind it.
fn blocks(language: &str) -> Vec<(String, Vec<u8>)> {
    let spec = read("SPEC.md");
    let opening = format!("\n```{language} ");
    let blocks = spec.split(&opening).skip(1).map(|rest| {
        let (name, rest) = rest.split_once('\n').unwrap();
        let (text, _) = rest.split_once("```\n").unwrap();
        let bytes = match language {
            "json" => text.as_bytes().to_vec(),
            _ => text.lines().flat_map(bytes_of_line).collect(),
        };
        (name.to_owned(), bytes)
    });
    blocks.collect()
}

/// `0010  01 02 | comment`
fn bytes_of_line(line: &str) -> Vec<u8> {
    let (hex, _) = line.split_once('|').unwrap();
    hex.split_whitespace().skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_worked_example_restores_to_what_it_says() {
    for language in ["hex", "json"] {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in example(language) {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let (db, report) = restore(dir.path()).unwrap();
        assert_eq!(report.point.lineage.to_string(), "0102030405060708090a0b0c0d0e0f10");
        assert_eq!((report.point.seq.get(), report.deltas.len(), report.damaged.len()), (3, 1, 0));
        let users = db.table("users").unwrap();
        let records: Vec<_> = users.iter().unwrap().map(|(_, record)| record).collect();
        assert_eq!(records, [record! { "id": 2, "name": "Bo" }]);
        assert_eq!(users.insert(record! {}).unwrap(), 3.into(), "the counter is restored");

        let full = list_backups(dir.path()).unwrap().remove(0);
        let before = DictDb::load(full.path).unwrap();
        let ann = before.table("users").unwrap().get(1).unwrap().unwrap();
        assert_eq!((ann, before.seq().get()), (record! { "name": "Ann", "id": 1 }, 2));
    }
}

#[test]
fn the_log_of_the_worked_example_opens_as_a_closed_store_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in log_example() {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let db = DictDb::open(dir.path()).unwrap();
    let report = db.open_report().unwrap();
    assert_eq!(db.lineage().to_string(), "0102030405060708090a0b0c0d0e0f10");
    assert_eq!((report.clean, report.commits, report.segments, report.torn.is_some()), (true, 2, 2, false), "{report}");
    let users = db.table("users").unwrap();
    assert_eq!(users.get(1).unwrap().unwrap(), record! { "name": "Ann", "id": 1 });
    assert_eq!(users.insert(record! {}).unwrap(), 2.into());
    // Without the seal, or the segment that has it, it was not closed, or its end is missing.
    drop((users, db));
    for (cut, wanted) in [(104, Some("not closed")), (0, None)] {
        let dir = tempfile::tempdir().unwrap();
        let [(first, whole), (last, mut sealed)]: [_; 2] = log_example().try_into().unwrap();
        fs::write(dir.path().join(first), whole).unwrap();
        if cut > 0 {
            sealed.truncate(sealed.len() - cut);
            sealed.resize(512, 0);
            fs::write(dir.path().join(last), sealed).unwrap();
        }
        let opened = DictDb::open(dir.path());
        match wanted {
            Some(words) => assert!(opened.unwrap().open_report().unwrap().to_string().contains(words)),
            None => assert!(matches!(opened, Err(dictdb::Error::Corrupt { .. })), "{opened:?}"),
        }
    }
}

/// A reader of fixed-width fields, after the tables of SPEC.md and nothing else.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken
    }

    fn number(&mut self, bytes: usize) -> u128 {
        self.take(bytes).iter().rev().fold(0, |n, byte| (n << 8) | u128::from(*byte))
    }

    /// The example has no varint of more than a byte.
    fn short(&mut self) -> usize {
        let [byte] = *self.take(1) else { unreachable!() };
        assert!(byte < 0x80);
        byte.into()
    }

    /// The names at the front of a row, or of a block's shape.
    fn names(&mut self) -> &'a [u8] {
        let from = self.0;
        for _ in 0..self.short() {
            self.prefixed();
        }
        &from[..from.len() - self.0.len()]
    }

    fn prefixed(&mut self) -> &'a [u8] {
        let bytes = self.short();
        self.take(bytes)
    }
}

/// Computes the digest of a state of one table by its definition in SPEC.md.
fn digest(table: &[u8], definition: &[u8], next_key: u8, rows: &[(&[u8], &[u8])]) -> u128 {
    let head = [&[table.len() as u8], table, definition, &[next_key]].concat();
    rows.iter().fold(xxh3_128(&head), |sum, (names, values)| {
        sum.wrapping_add(xxh3_128_with_seed(values, xxh3_64_with_seed(names, xxh3_64(table))))
    })
}

#[test]
fn a_reader_written_after_the_specification_alone_finds_every_checksum_right() {
    let mut digests = Vec::new();
    for (n, (_, bytes)) in example("hex").iter().enumerate() {
        let mut file = Fields(bytes);
        assert_eq!(file.take(8), b"\x89DDB\r\n\x1a\n");
        assert_eq!((file.number(2), file.number(1), file.number(5)), (2, n as u128 + 1, 0));
        let lineage = file.take(16);
        let base = (file.take(16), file.number(8), file.number(16));
        let parent = file.take(40);
        assert_eq!(parent, [0; 40]);
        assert!(base == (&[0; 16], 0, 0) || base == (lineage, 2, digests[0]), "the delta joins onto the snapshot");
        let (_created, reserved) = (file.number(8), file.number(4));
        assert_eq!((reserved, file.number(4)), (0, crc32fast::hash(&bytes[..124]).into()));

        let seeded = |bytes: &[u8]| u128::from(crc32fast::hash(&[lineage, bytes].concat()));
        let mut payloads = BTreeMap::new();
        let seal = loop {
            let at = bytes.len() - file.0.len();
            let kind = file.number(1);
            assert_eq!(file.number(3), 0);
            let length = file.number(4) as usize;
            assert_eq!((file.number(8), file.number(8)), (n as u128 + 2, 0), "seq and synced");
            let (payload_crc, header_crc) = (file.number(4), file.number(4));
            assert_eq!(header_crc, seeded(&bytes[at..at + 28]));
            let payload = file.take(length);
            assert_eq!(payload_crc, seeded(payload));
            if kind == 4 {
                break (at, Fields(payload));
            }
            payloads.insert(kind, payload);
        };
        assert!(file.0.is_empty(), "nothing follows the seal");

        let (seal_at, mut seal) = seal;
        let stated = seal.number(16);
        let _time = seal.number(8);
        let counts = (seal.number(8), seal.number(8), seal.number(8));
        assert_eq!(counts, if n == 0 { (2, 1, 1) } else { (1, 1, 2) }, "frames, groups, records");
        assert_eq!(seal.number(8), bytes.len() as u128);
        assert_eq!(seal.number(16), xxh3_128(&bytes[..seal_at]));

        let definition = b"\x02id\x00";
        let (row, next_key) = if n == 0 {
            let mut table = Fields(payloads[&2]);
            assert_eq!((table.prefixed(), table.take(4)), (b"users".as_slice(), definition.as_slice()));
            let next_key = table.short() as u8;
            assert_eq!((table.short(), table.0), (1, [].as_slice()), "one row");
            let mut rows = Fields(payloads[&3]);
            assert_eq!(rows.short(), 1, "one shape");
            let names = rows.names();
            assert_eq!(rows.short(), 1, "one row");
            ((names, rows.0), next_key)
        } else {
            let mut commit = Fields(payloads[&1]);
            commit.take(8);
            assert_eq!((commit.short(), commit.prefixed()), (0, b"users".as_slice()));
            assert_eq!((commit.short(), commit.short()), (1, 0), "put, its key being field 0");
            let mut row = Fields(commit.prefixed());
            let row = (row.names(), row.0);
            assert_eq!(commit.0, [2, 0, 2], "delete, integer key, 1");
            (row, 3)
        };
        assert_eq!(stated, digest(b"users", definition, next_key, &[row]));
        digests.push(stated);
    }
    // And the program agrees.
    let db = DictDb::new();
    db.create_table("users", "id").unwrap().insert(record! { "name": "Ann" }).unwrap();
    assert_eq!(db.digest(), Digest::from_u128(digests[0]));
    assert_eq!(Lineage::DICTDB_1_11.to_bytes(), *b"DictDB 1.11 JSON");
}

#[test]
fn a_reader_of_the_log_written_after_the_specification_alone_finds_every_checksum_right() {
    let mut last = (0, [0; 40].as_slice());
    for (n, (_, bytes)) in log_example().iter().enumerate() {
        let mut file = Fields(bytes);
        assert_eq!(file.take(8), b"\x89DDB\r\n\x1a\n");
        assert_eq!((file.number(2), file.number(1), file.number(5)), (2, 3, 0), "version 2, kind 3");
        let lineage = file.take(16);
        let base = file.take(40);
        if n > 0 {
            assert_eq!(
                (&base[..16], &base[24..]),
                (lineage, last.1),
                "the next segment begins where the one before ends"
            );
        } else {
            assert_eq!(base, [0; 40], "the log begins with the first commit");
        }
        assert_eq!(u128::from(u64::from_le_bytes(base[16..24].try_into().unwrap())), last.0);
        assert_eq!(file.take(40), [0; 40], "no parent");
        let (_created, preallocation) = (file.number(8), file.number(4));
        assert_eq!((preallocation, file.number(4)), (512, crc32fast::hash(&bytes[..124]).into()));

        let seeded = |bytes: &[u8]| u128::from(crc32fast::hash(&[lineage, bytes].concat()));
        let mut seq = last.0;
        let (seal_at, kind, payload) = loop {
            let at = bytes.len() - file.0.len();
            let kind = file.number(1);
            assert_eq!(file.number(3), 0);
            let length = file.number(4) as usize;
            let (own, synced) = (file.number(8), file.number(8));
            let (payload_crc, header_crc) = (file.number(4), file.number(4));
            assert_eq!(header_crc, seeded(&bytes[at..at + 28]));
            let payload = file.take(length);
            assert_eq!(payload_crc, seeded(payload));
            if kind != 1 {
                assert_eq!((own, synced), (seq, seq), "a seal says that the last commit is durable");
                break (at, kind, payload);
            }
            seq += 1;
            assert_eq!((own, synced), (seq, seq - 1), "each commit was synced before the next one was made");
        };
        assert!(file.0.is_empty(), "cut off behind the seal");
        assert_eq!(kind, if n == 0 { 5 } else { 4 }, "continued, then closed");
        let mut seal = Fields(payload);
        let (digest, _time) = (seal.take(16), seal.number(8));
        let commits = seq - last.0;
        assert_eq!((seal.number(8), seal.number(8), seal.number(8)), (commits, commits, 0));
        assert_eq!((seal.number(8), seal.number(16)), (bytes.len() as u128, xxh3_128(&bytes[..seal_at])));
        let db = DictDb::new();
        db.create_table("users", "id").unwrap().insert(record! { "name": "Ann" }).unwrap();
        assert_eq!(db.digest(), Digest::from_u128(u128::from_le_bytes(digest.try_into().unwrap())));
        last = (seq, digest);
    }
}

#[test]
fn the_json_of_the_example_is_sealed_as_specified() {
    for (name, bytes) in example("json") {
        let text = std::str::from_utf8(&bytes).unwrap();
        let at = text.find(",\n    \"dictdb_seal\"").unwrap();
        let crc = crc32fast::hash(&bytes[..at]);
        let seal = format!(",\n    \"dictdb_seal\": {{\"bytes\": {at}, \"crc32\": \"{crc:08x}\"}}\n}}\n");
        assert_eq!(&text[at..], seal, "{name}");
    }
}

/// The rows of each table whose first columns are offset and size.
fn byte_tables(spec: &str) -> Vec<Vec<(u64, Option<u64>)>> {
    let mut tables = Vec::new();
    let mut rows = None;
    for line in spec.lines() {
        if line.starts_with("| Offset | Size |") {
            rows = Some(Vec::new());
        } else if !line.starts_with('|') {
            tables.extend(rows.take());
        } else if let (Some(rows), false) = (&mut rows, line.starts_with("|--")) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            rows.push((cells[1].parse().unwrap(), cells[2].parse().ok()));
        }
    }
    tables
}

#[test]
fn the_tables_of_bytes_have_no_holes() {
    let tables = byte_tables(&read("SPEC.md"));
    let lengths: Vec<u64> = tables
        .iter()
        .map(|rows| {
            rows.iter().fold(0, |at, (offset, size)| {
                assert_eq!(at, *offset);
                at + size.unwrap_or(0)
            })
        })
        .collect();
    assert_eq!(lengths, [40, 128, 32, 72], "point, header, frame header, seal's payload");
}

#[test]
fn the_limits_are_those_of_the_program() {
    let mut in_program = BTreeMap::new();
    for line in read("src/limits.rs").lines() {
        let Some(rest) = line.strip_prefix("pub(crate) const ") else { continue };
        let (name, value) = rest.split_once(": usize = ").or_else(|| rest.split_once(": u64 = ")).expect(line);
        let value = value.trim_end_matches(';');
        let value: u64 = match value.split_once(" << ") {
            Some((number, bits)) => number.parse::<u64>().unwrap() << bits.parse::<u64>().unwrap(),
            None => value.parse().unwrap(),
        };
        in_program.insert(name.to_owned(), value);
    }
    assert!(in_program.len() >= 10, "{in_program:?}");
    let spec = read("SPEC.md");
    let section = spec.split("\n## Limits\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let in_spec: BTreeMap<String, u64> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap().replace(',', "").parse().unwrap()))
        .collect();
    assert_eq!(in_spec, in_program);
}
