//! Walks the decision table row by row, with the bytes of real stores, and compares it with SPEC.md.

use std::path::{Path, PathBuf};

use super::verdict::{Found, Later, Row, TABLE, Verdict, judge};
use super::{Ending, SegmentReader};
use crate::clock::ManualClock;
use crate::db::DictDb;
use crate::error::Error;
use crate::file::header::{FileKind, Header};
use crate::file::seal::Seal;
use crate::frame::{self, FRAME_HEADER_BYTES, FrameKind};
use crate::history::{Digest, Lineage, Seq, Timestamp};
use crate::record;
use crate::storage::MemoryStorage;
use crate::store::{CheckpointPolicy, Durability, Options};

const DIR: &str = "/data";

fn options(storage: &MemoryStorage) -> Options {
    let clock = ManualClock::new(Timestamp::from_micros(1_000_000_000_000_000));
    let checkpoint = CheckpointPolicy::manual();
    Options::new().storage(storage.clone()).clock(clock).checkpoint(checkpoint).preallocate_bytes(4_096)
}

/// A store whose first commit makes a table, and whose next six put a record each.
fn filled(options: Options) -> DictDb {
    let db = options.open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    for id in 2..=7 {
        table
            .insert(record! { "id": id, "text": "what a commit puts, long enough for a few of them to fill a segment" })
            .unwrap();
    }
    db
}

/// One log segment, never sealed.
fn dropped() -> MemoryStorage {
    let storage = MemoryStorage::new();
    drop(filled(options(&storage)));
    storage
}

/// The same, all seven commits having been synced at once.
fn in_one_group() -> MemoryStorage {
    let storage = MemoryStorage::new();
    drop(filled(options(&storage).durability(Durability::Manual)));
    storage
}

/// The same, with a snapshot of all seven.
fn with_a_snapshot() -> MemoryStorage {
    let storage = MemoryStorage::new();
    filled(options(&storage)).checkpoint().unwrap();
    storage
}

/// A log of more than one segment.
fn rotated() -> MemoryStorage {
    let storage = MemoryStorage::new();
    drop(filled(options(&storage).segment_bytes(600)));
    assert!(logs(&storage).len() > 1);
    storage
}

fn closed() -> MemoryStorage {
    let storage = MemoryStorage::new();
    filled(options(&storage)).close().unwrap();
    storage
}

fn logs(storage: &MemoryStorage) -> Vec<PathBuf> {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|e| e == "log");
    storage.paths().into_iter().filter(is_log).collect()
}

/// A segment's bytes and where its frames begin, its seal among them; the last place is the end of the last of them.
struct Bytes {
    file: Vec<u8>,
    frames: Vec<usize>,
}

impl Bytes {
    fn of(file: Vec<u8>) -> Bytes {
        let mut frames = vec![128];
        let mut at = 128;
        while file.get(at).is_some_and(|kind| *kind != 0) {
            at += FRAME_HEADER_BYTES + u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize;
            frames.push(at);
        }
        Bytes { file, frames }
    }

    /// Where the last commit's frame begins.
    fn last(&self) -> usize {
        let commits = self.frames.iter().filter(|at| self.file.get(**at) == Some(&1));
        *commits.max().unwrap()
    }

    fn flip(mut self, at: usize) -> Vec<u8> {
        self.file[at] ^= 0x10;
        self.file
    }

    /// As long as it was before it was trimmed, which a crash may leave it.
    fn untrimmed(mut self) -> Bytes {
        self.file.resize(4_096, 0);
        self
    }

    fn zero_from(mut self, at: usize) -> Vec<u8> {
        self.file[at..].fill(0);
        self.file
    }

    fn frame(&self, n: usize) -> &[u8] {
        &self.file[self.frames[n]..self.frames[n + 1]]
    }

    /// As the last frame of a backup of this history up to `seq`.
    fn seal_of_a_backup(&self, seq: u64) -> Vec<u8> {
        let lineage = Header::parse(self.file.first_chunk().unwrap(), Path::new("log")).unwrap().lineage;
        let (seq, digest, time) = (Seq::new(seq), Digest::EMPTY, Timestamp::from_micros(0));
        Seal { seq, digest, time, frames: 1, groups: 1, records: 0, file_bytes: 0, content: 0 }.encode(lineage)
    }

    /// With other bytes in place of the zeros behind the last frame.
    fn with_behind(mut self, bytes: &[u8]) -> Vec<u8> {
        let end = *self.frames.last().unwrap();
        self.file[end..end + bytes.len()].copy_from_slice(bytes);
        self.file
    }

    /// Without the frame that begins at the `n`th place; those behind it close up.
    fn without(mut self, n: usize) -> Vec<u8> {
        let (from, to) = (self.frames[n], self.frames[n + 1]);
        self.file.drain(from..to);
        self.file.resize(self.file.len() + (to - from), 0);
        self.file
    }

    /// One byte of the `n`th frame's header changed, and its checksum made to fit.
    fn forged(mut self, n: usize, at: usize, byte: u8) -> Vec<u8> {
        let from = self.frames[n];
        let mut seed = crc32fast::Hasher::new();
        seed.update(&self.file[16..32]);
        self.file[from + at] = byte;
        let mut crc = crc32fast::Hasher::new_with_initial(seed.finalize());
        crc.update(&self.file[from..from + 28]);
        self.file[from + 28..from + 32].copy_from_slice(&crc.finalize().to_le_bytes());
        self.file
    }
}

/// A store, which of its segments is damaged, how, and the case that it is meant to be.
struct Scenario {
    what: &'static str,
    make: fn() -> MemoryStorage,
    /// Counted from the oldest; the newest where there are fewer.
    segment: usize,
    damage: fn(Bytes) -> Vec<u8>,
    case: (Found, Later, bool),
}

const NEWEST: usize = usize::MAX;

const SCENARIOS: &[Scenario] = &[
    Scenario {
        what: "an open segment cut off inside its preallocation",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| bytes.file[..300].to_vec(),
        case: (Found::TooShort, Later::Unproven, false),
    },
    Scenario {
        what: "a seal that is torn in a file that was trimmed behind it",
        make: closed,
        segment: NEWEST,
        damage: |bytes| bytes.flip(140),
        case: (Found::TooShort, Later::None, false),
    },
    Scenario {
        what: "a frame taken out",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| bytes.without(3),
        case: (Found::Broken, Later::Proof, false),
    },
    Scenario {
        what: "a frame with another seq",
        make: in_one_group,
        segment: NEWEST,
        damage: |bytes| bytes.forged(3, 8, 9),
        case: (Found::Broken, Later::Unproven, false),
    },
    Scenario {
        what: "a frame that calls itself durable",
        make: in_one_group,
        segment: NEWEST,
        damage: |bytes| bytes.forged(3, 16, 4),
        case: (Found::Broken, Later::Proof, false),
    },
    Scenario {
        what: "a snapshot's frame in a log",
        make: with_a_snapshot,
        segment: NEWEST,
        damage: |bytes| bytes.forged(3, 0, 2),
        case: (Found::Broken, Later::Proof, true),
    },
    Scenario {
        what: "an old frame behind the last one",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| {
            let old = bytes.frame(2).to_vec();
            bytes.with_behind(&old)
        },
        case: (Found::Broken, Later::Unproven, false),
    },
    Scenario {
        what: "a part of an old frame behind the last one, another one, and the seal of a backup that goes further",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| {
            let torn = [&bytes.frame(2)[40..], bytes.frame(5), &bytes.seal_of_a_backup(9)].concat();
            bytes.with_behind(&torn)
        },
        case: (Found::Broken, Later::Unproven, false),
    },
    Scenario {
        what: "the seal of a backup behind the last frame",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| {
            let seal = bytes.seal_of_a_backup(7);
            bytes.with_behind(&seal)
        },
        case: (Found::Broken, Later::Unproven, false),
    },
    Scenario {
        what: "an old frame in the place of one that a snapshot holds",
        make: with_a_snapshot,
        segment: NEWEST,
        damage: |bytes| bytes.forged(6, 8, 2),
        case: (Found::Broken, Later::Unproven, true),
    },
    Scenario {
        what: "a byte behind the seal",
        make: closed,
        segment: NEWEST,
        damage: |bytes| [&bytes.file[..], &[0, 0, 1]].concat(),
        case: (Found::BehindSeal, Later::None, false),
    },
    Scenario {
        what: "zeros for the last commit, which a snapshot holds",
        make: with_a_snapshot,
        segment: NEWEST,
        damage: |bytes| {
            let at = bytes.last();
            bytes.zero_from(at)
        },
        case: (Found::Nothing, Later::None, true),
    },
    Scenario {
        what: "zeros for the last commit and the seal of a segment that another one follows",
        make: rotated,
        segment: 0,
        damage: |bytes| {
            let at = bytes.last();
            bytes.untrimmed().zero_from(at)
        },
        case: (Found::Nothing, Later::None, true),
    },
    Scenario {
        what: "an open segment as it was left",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| bytes.file,
        case: (Found::Nothing, Later::None, false),
    },
    Scenario {
        what: "zeros for the last commit, to which nothing bears witness",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| {
            let at = bytes.last();
            bytes.zero_from(at)
        },
        case: (Found::Nothing, Later::None, false),
    },
    Scenario {
        what: "a flipped bit in the last commit, which a snapshot holds",
        make: with_a_snapshot,
        segment: NEWEST,
        damage: |bytes| {
            let at = bytes.last() + 40;
            bytes.flip(at)
        },
        case: (Found::Broken, Later::Unproven, true),
    },
    Scenario {
        what: "a flipped bit in the last commit of a segment that another one follows",
        make: rotated,
        segment: 0,
        damage: |bytes| {
            let at = bytes.last() + 3;
            bytes.untrimmed().flip(at)
        },
        case: (Found::Broken, Later::Proof, true),
    },
    Scenario {
        what: "a flipped bit in a commit, the next of which was made when this one was durable",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| {
            let at = bytes.frames[3] + 50;
            bytes.flip(at)
        },
        case: (Found::Broken, Later::Proof, false),
    },
    Scenario {
        what: "a flipped bit in a commit that was synced with all those behind it",
        make: in_one_group,
        segment: NEWEST,
        damage: |bytes| {
            let at = bytes.frames[3] + 50;
            bytes.flip(at)
        },
        case: (Found::Broken, Later::Unproven, false),
    },
    Scenario {
        what: "a flipped bit in the last commit, to which nothing bears witness",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| {
            let at = bytes.last() + 28;
            bytes.flip(at)
        },
        case: (Found::Broken, Later::None, false),
    },
    Scenario {
        what: "the last commit cut off in the middle of its payload, zeros behind it",
        make: dropped,
        segment: NEWEST,
        damage: |bytes| {
            let at = bytes.last() + 60;
            bytes.zero_from(at)
        },
        case: (Found::Broken, Later::Unproven, false),
    },
];

fn ending(storage: &MemoryStorage, file: &Path) -> Ending {
    SegmentReader::open(storage, file).unwrap().read(None, |_| Ok(())).unwrap()
}

/// The row that recovery went by, as far as what it gives can show.
fn walk(scenario: &Scenario) -> &'static Row {
    let Scenario { what, make, segment, damage, case: (found, later, witness) } = scenario;
    let storage = make();
    let logs = logs(&storage);
    let file = &logs[(*segment).min(logs.len() - 1)];
    let bytes = Bytes::of(storage.read(file).unwrap());
    storage.write(file, damage(bytes)).unwrap();

    let ending = ending(&storage, file);
    assert_eq!((ending.found, ending.later), (*found, *later), "{what}");
    let row = judge(*found, *later, *witness);
    let outcome = options(&storage).open(DIR).map(|db| db.open_report().unwrap());
    match (row.verdict, outcome) {
        (Verdict::CleanEnd, Ok(report)) => assert_eq!(report.torn, None, "{what}: {report}"),
        (Verdict::TornTail, Ok(report)) => {
            let torn = report.torn.as_ref().unwrap_or_else(|| panic!("{what}: {report}"));
            assert_eq!((&torn.file, torn.offset), (file, ending.at), "{what}: {report}");
        }
        (Verdict::Corrupt, Err(Error::Corrupt { file: told, offset, expected })) => {
            assert_eq!((&told, offset, expected.as_str()), (file, ending.at, row.why), "{what}");
        }
        (verdict, outcome) => panic!("{what}: {verdict:?}, but {outcome:?}"),
    }
    row
}

#[test]
fn every_row_of_the_table_decides_a_real_store() {
    let mut walked = [0; TABLE.len()];
    for scenario in SCENARIOS {
        let row = walk(scenario);
        walked[TABLE.iter().position(|r| std::ptr::eq(r, row)).unwrap()] += 1;
    }
    println!("{} stores over {} rows: {walked:?}", SCENARIOS.len(), TABLE.len());
    for (row, count) in TABLE.iter().zip(walked) {
        assert!(count > 0, "no store is decided by {row:?}");
    }
}

/// A row as SPEC.md has it.
fn as_markdown(row: &Row) -> String {
    let found = match row.found {
        Found::Nothing => "the end of the file, or zeros up to it",
        Found::Broken => "something other than the next frame",
        Found::BehindSeal => "a seal, and more than zeros behind it",
        Found::TooShort => "a file shorter than its preallocation",
    };
    let later = match row.later {
        None => "any",
        Some(Later::None) => "none",
        Some(Later::Unproven) => "`synced` < missing seq",
        Some(Later::Proof) => "`synced` >= missing seq",
    };
    let witness = match row.witness {
        None => "any",
        Some(true) => "yes",
        Some(false) => "no",
    };
    let verdict = match row.verdict {
        Verdict::CleanEnd => "clean end",
        Verdict::TornTail => "torn tail",
        Verdict::Corrupt => "`Corrupt`",
    };
    format!("| {found} | {later} | {witness} | {verdict} |")
}

#[test]
fn the_table_in_the_specification_is_this_one() {
    let spec = include_str!("../../SPEC.md");
    let (_, section) = spec.split_once("\n### Torn tail or rot\n").unwrap();
    let section = section.split("\n##").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).collect();
    let expected: Vec<String> = TABLE.iter().map(as_markdown).collect();
    assert_eq!(rows[0], "| found | later frame | witness | verdict |");
    assert_eq!(rows[1..], expected);
}

#[test]
fn the_stores_of_the_scenarios_open_whole_before_they_are_damaged() {
    for make in [dropped, in_one_group, with_a_snapshot, rotated, closed] {
        let storage = make();
        let db = options(&storage).open(DIR).unwrap();
        assert_eq!((db.seq().get(), db.open_report().unwrap().torn.is_some()), (7, false));
    }
}

/// It is looked for in pieces, and may lie across the end of one.
#[test]
fn a_frame_behind_the_damage_bears_witness_wherever_it_begins() {
    let storage = MemoryStorage::new();
    let file = Path::new("log");
    let lineage = Lineage::from_bytes([7; 16]);
    let created = Timestamp::from_micros(0);
    let head = Header { kind: FileKind::Log, lineage, parent: None, base: None, created, preallocation: 512 }.encode();
    for behind in (1..100).chain(65_490..65_540).chain(130_990..131_050) {
        let mut bytes = head.to_vec();
        bytes.resize(head.len() + behind, 0);
        let start = frame::begin(&mut bytes);
        bytes.push(1);
        frame::finish(&mut bytes, start, FrameKind::Commit, lineage, Seq::new(9), Seq::new(4));
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        storage.write(file, bytes).unwrap();
        let ending = ending(&storage, file);
        assert_eq!((ending.found, ending.later), (Found::Broken, Later::Proof), "{behind} bytes behind");
    }
}
