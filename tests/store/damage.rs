//! Damaged stores: whatever becomes of one file's bytes, or of the names, `open` gives the true state, or an error that
//! names file and offset.
//!
//! The only exceptions, each counted: a newest segment that was never sealed and is damaged so that no witness is left
//! loses commits of its own: those whose frames are not what they were, and those synced together with such a one as
//! the last of all. A closed store has none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dictdb::{CheckpointPolicy, DictDb, Error, MemoryStorage, Options, Storage, record};

use crate::damage_shapes::{self as shapes, DIR, Files, Shape, commit, files_of, frames, is_log, options, storage_of};
use crate::hooked::{Hooked, Op};

/// What came of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The error names file and offset.
    Refused,
    /// All commits are there.
    True,
    /// Exception: bytes of writes that never completed, says the report.
    Torn,
    /// Exception: the log seems to end earlier.
    Shorter,
    /// Exception: nothing is left of the store, and a new one begins.
    Nothing,
}

/// Says which case it was when the test fails in the middle of it.
struct Label<'a>(&'a dyn Fn() -> String);

impl Drop for Label<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the case: {}", (self.0)());
        }
    }
}

/// Counts by sort of damage.
struct Counts<'s> {
    shape: &'s Shape,
    counts: BTreeMap<(&'static str, Outcome), u64>,
    cases: u64,
}

impl<'s> Counts<'s> {
    fn new(shape: &'s Shape) -> Counts<'s> {
        Counts { shape, counts: BTreeMap::new(), cases: 0 }
    }

    /// One case: the files as they are now, and `dirs` in the place of files.
    fn case(&mut self, sort: &'static str, what: &dyn Fn() -> String, files: &Files, dirs: &[&Path]) {
        if *files == self.shape.files && dirs.is_empty() {
            return;
        }
        let label = || format!("{}: {sort}: {}", self.shape.name, what());
        let _label = Label(&label);
        self.cases += 1;
        let look = self.cases.is_multiple_of(8);
        let outcome = judge(self.shape, files, dirs, look);
        *self.counts.entry((sort, outcome)).or_default() += 1;
    }

    fn with(&mut self, sort: &'static str, what: &dyn Fn() -> String, path: &Path, bytes: Vec<u8>) {
        let mut files = self.shape.files.clone();
        files.insert(path.to_owned(), bytes);
        self.case(sort, what, &files, &[]);
    }

    fn of(&self, outcomes: &[Outcome]) -> u64 {
        self.counts.iter().filter(|((_, outcome), _)| outcomes.contains(outcome)).map(|(_, count)| count).sum()
    }

    /// Prints all counts, gives that of the exceptions.
    fn finish(&self) -> u64 {
        println!("{}: {} cases", self.shape.name, self.cases);
        for ((sort, outcome), count) in &self.counts {
            println!("  {sort}: {outcome:?} {count}");
        }
        assert!(self.of(&[Outcome::Refused]) > 0 && self.of(&[Outcome::True]) > 0, "one of the two is never told");
        self.of(&[Outcome::Torn, Outcome::Shorter, Outcome::Nothing])
    }
}

fn judge(shape: &Shape, files: &Files, dirs: &[&Path], look: bool) -> Outcome {
    let storage = storage_of(files);
    for dir in dirs {
        storage.create_dir_all(dir).unwrap();
    }
    let opened = options(&storage).open(DIR);
    let outcome = match &opened {
        Err(error) => {
            assert_names_the_place(error, files);
            Outcome::Refused
        }
        Ok(db) => reached(shape, files, db),
    };
    let state = opened.map(|db| (db.seq(), db.digest()));
    // The handle is gone, with what its drop may have written: into files of its own.
    for (path, bytes) in files {
        assert_eq!(storage.read(path).unwrap(), *bytes, "{} was written to", path.display());
    }
    if look || outcome != Outcome::True {
        assert_shows_the_sound_part(shape, files, dirs, &state);
    }
    outcome
}

fn assert_names_the_place(error: &Error, files: &Files) {
    match error {
        Error::Corrupt { file, offset, expected } => {
            assert!(file.starts_with(DIR) && file != Path::new(DIR) && !expected.is_empty(), "{error}");
            if let Some(bytes) = files.get(file) {
                assert!(*offset <= bytes.len() as u64, "{error}, of {} bytes", bytes.len());
            }
        }
        Error::WrongKind { file, .. } => assert!(files.contains_key(file), "{error}"),
        // Where something else than a file is in the place of the only one.
        Error::NotAStore { .. } => assert!(files.is_empty(), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// A store that opened: true, or one of the exceptions.
fn reached(shape: &Shape, files: &Files, db: &DictDb) -> Outcome {
    let report = db.open_report().unwrap();
    let seq = db.seq().get();
    assert_eq!(Some(&db.digest()), shape.digests.get(seq as usize), "not a state that ever was: {report}");
    assert!(report.damage.is_none(), "{report}");
    let newest = shape.digests.len() as u64 - 1;
    if seq == newest {
        return Outcome::True;
    }
    if files.is_empty() && shape.files.len() == 1 {
        assert_eq!(seq, 0, "{report}");
        return Outcome::Nothing;
    }
    let Some((open, frames)) = &shape.open else {
        panic!("commits behind {seq} are lost, and nothing is said: {report}")
    };
    let (before, now) = (&shape.files[open], files.get(open));
    let touched = |at: &shapes::Frame| now.is_none_or(|now| now.get(at.bytes.clone()) != before.get(at.bytes.clone()));
    let durable_before_the_last_group = frames.iter().map(|frame| frame.synced).max().unwrap();
    let lost: Vec<_> = frames.iter().filter(|frame| frame.seq > seq).collect();
    assert_eq!(lost.len() as u64, newest - seq, "commits of other segments are lost: {report}");
    assert!(lost.iter().any(|frame| touched(frame)), "nothing was damaged: {report}");
    assert!(now.is_none_or(|now| now.len() >= 512), "cut off inside the preallocation, and nothing is said: {report}");
    for frame in lost {
        let last_group = frame.seq > durable_before_the_last_group;
        assert!(last_group || touched(frame), "commit {} is lost, whose frame is sound: {report}", frame.seq);
    }
    assert!(!report.clean, "{report}");
    match &report.torn {
        Some(torn) => {
            assert_eq!(&torn.file, open, "{report}");
            Outcome::Torn
        }
        None => Outcome::Shorter,
    }
}

/// A look at it without writing gives what `open` gave, or else what comes before the damage and the same error.
fn assert_shows_the_sound_part(
    shape: &Shape,
    files: &Files,
    dirs: &[&Path],
    opened: &Result<(dictdb::Seq, dictdb::Digest), Error>,
) {
    let storage = storage_of(files);
    for dir in dirs {
        storage.create_dir_all(dir).unwrap();
    }
    let looked = options(&storage).open_read_only(DIR);
    assert_eq!(files_of(&storage), *files, "looking has written");
    match (opened, looked) {
        (Ok((seq, digest)), Ok(db)) => {
            let report = db.open_report().unwrap();
            assert_eq!((db.seq(), db.digest(), report.damage.is_some()), (*seq, *digest, false), "{report}");
        }
        (Err(error), Ok(db)) => {
            let report = db.open_report().unwrap();
            let damage = report.damage.as_ref().unwrap_or_else(|| panic!("{error}, but {report}"));
            assert_eq!(damage.to_string(), error.to_string());
            let seq = db.seq().get();
            assert_eq!(Some(&db.digest()), shape.digests.get(seq as usize), "not a state that ever was: {report}");
            if let (Some((open, frames)), Error::Corrupt { file, offset, .. }) = (&shape.open, &**damage)
                && open == file
            {
                let before = frames.iter().filter(|frame| frame.kind == 1 && frame.bytes.end as u64 <= *offset);
                let last = before.map(|frame| frame.seq).max().unwrap_or_default();
                assert!(seq >= last, "commit {last} comes before the damage: {report}");
            }
            assert!(matches!(db.create_table("u", "id"), Err(Error::ReadOnly)));
        }
        (Err(error), Err(again)) => {
            assert_eq!(again.to_string(), error.to_string());
            let sound = |path: &&PathBuf| {
                let before = &shape.files[*path];
                files
                    .get(*path)
                    .is_some_and(|now| now.get(..128) == before.get(..128) && (is_log(path) || now == before))
            };
            // A snapshot, or the segment that the log begins with.
            let mut beginnings = shape.files.iter().filter(|(path, bytes)| !is_log(path) || bytes[32..72] == [0; 40]);
            assert!(!beginnings.any(|(path, _)| sound(&path)), "there was something to show, but {error}");
        }
        (Ok(_), Err(error)) => panic!("a look says {error}"),
    }
}

fn flip_every_bit(counts: &mut Counts<'_>) {
    let shape = counts.shape;
    for (path, bytes) in &shape.files {
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            counts.with("bit", &|| format!("bit {} of byte {} of {}", bit % 8, bit / 8, path.display()), path, damaged);
        }
    }
}

fn cut_at_every_length(counts: &mut Counts<'_>) {
    let shape = counts.shape;
    for (path, bytes) in &shape.files {
        for length in 0..bytes.len() {
            counts.with("length", &|| format!("{length} of {}", path.display()), path, bytes[..length].to_vec());
        }
    }
}

fn spoil_every_block(counts: &mut Counts<'_>) {
    const BLOCK: usize = 512;
    let shape = counts.shape;
    for (path, bytes) in &shape.files {
        for from in (0..bytes.len()).step_by(BLOCK) {
            let to = bytes.len().min(from + BLOCK);
            for fill in [0, 0xFF] {
                let mut damaged = bytes.clone();
                damaged[from..to].fill(fill);
                let what = || format!("{from}..{to} of {} filled with {fill:#x}", path.display());
                counts.with("block filled", &what, path, damaged);
            }
            for other in (from + BLOCK..bytes.len()).step_by(BLOCK) {
                let length = BLOCK.min(bytes.len() - other);
                let mut damaged = bytes.clone();
                let (before, behind) = damaged.split_at_mut(other);
                before[from..from + length].swap_with_slice(&mut behind[..length]);
                let what = || format!("{from} and {other} of {}", path.display());
                counts.with("blocks exchanged", &what, path, damaged);
            }
        }
    }
}

fn mix_up_the_files(counts: &mut Counts<'_>) {
    let shape = counts.shape;
    for (path, bytes) in &shape.files {
        let name = || path.display().to_string();
        let mut files = shape.files.clone();
        files.remove(path);
        counts.case("removed", &name, &files, &[]);
        counts.case("a directory", &name, &files, &[path]);
        counts.with("emptied", &name, path, Vec::new());
        for (other, content) in &shape.files {
            let what = || format!("{} and {}", path.display(), other.display());
            let mut files = shape.files.clone();
            files.insert(path.clone(), content.clone());
            counts.case("another's bytes", &what, &files, &[]);
            files.insert(other.clone(), bytes.clone());
            if other > path {
                counts.case("exchanged", &what, &files, &[]);
            }
        }
        for fresh in FRESH_NAMES {
            let fresh = Path::new(DIR).join(fresh);
            let what = || format!("{} as {}", path.display(), fresh.display());
            counts.with("copied", &what, &fresh, bytes.clone());
            let mut files = shape.files.clone();
            files.remove(path);
            files.insert(fresh.clone(), bytes.clone());
            counts.case("renamed", &what, &files, &[]);
        }
        for (n, older) in shape.versions[path].iter().enumerate() {
            counts.with("older", &|| format!("version {n} of {}", path.display()), path, older.clone());
        }
    }
}

/// Stamps before and behind those of every shape.
const FRESH_NAMES: [&str; 5] = [
    "dictdb_log_5_000000.log",
    "dictdb_log_4000000000_000000.log",
    "dictdb_snapshot_5_000000.bin",
    "dictdb_snapshot_4000000000_000000.bin",
    "dictdb_torn_4000000000_000000.bin",
];

fn all(shape: &Shape) -> u64 {
    let mut counts = Counts::new(shape);
    cut_at_every_length(&mut counts);
    spoil_every_block(&mut counts);
    mix_up_the_files(&mut counts);
    flip_every_bit(&mut counts);
    counts.finish()
}

#[test]
fn no_damage_to_one_file_of_a_closed_store_goes_unnoticed_or_costs_a_commit() {
    assert_eq!(all(&shapes::closed()), 0);
}

#[test]
fn no_damage_but_the_loss_of_the_only_file_costs_a_closed_log_or_a_restored_store_a_commit() {
    assert_eq!(all(&shapes::closed_log()), 0);
    // Removed, or under a name that is nobody's.
    let exceptions = all(&shapes::restored());
    assert_eq!(exceptions, 1);
}

#[test]
fn damage_to_a_dropped_store_costs_only_commits_of_its_open_segment_that_it_hit() {
    assert!(all(&shapes::dropped()) > 0);
    assert!(all(&shapes::only_a_log()) > 0);
}

#[test]
fn damage_to_the_last_synced_group_costs_at_most_that_group_and_what_it_hit() {
    assert!(all(&shapes::in_groups()) > 0);
}

/// Bits in the middle of the newest snapshot and in its header.
#[test]
fn a_store_that_fell_back_to_an_older_snapshot_goes_on_as_if_nothing_was_and_never_writes_the_damaged_one() {
    let shape = shapes::closed();
    let newest = shape.files.keys().rfind(|path| !is_log(path)).unwrap();
    for at in [40, 170, shape.files[newest].len() - 10] {
        for close in [false, true] {
            let storage = storage_of(&shape.files);
            let mut damaged = shape.files[newest].clone();
            damaged[at] ^= 4;
            storage.write(newest, damaged.clone()).unwrap();

            let mut db = options(&storage).open(DIR).unwrap();
            let report = db.open_report().unwrap();
            assert!(report.fell_back && report.clean, "{report}");
            assert_eq!(report.damaged.iter().map(|damaged| &damaged.file).collect::<Vec<_>>(), [newest]);
            assert_eq!(Some(&db.digest()), shape.digests.last());
            for round in 0..3 {
                commit(&db, 5);
                db = reopened(&storage, db, close, round == 0);
                db.checkpoint().unwrap();
                // A checkpoint keeps what comes behind the last sound one before it.
                let left = files_of(&storage);
                assert!(left.get(newest).is_none_or(|bytes| *bytes == damaged));
                commit(&db, 5);
                db = reopened(&storage, db, close, false);
            }
            assert!(!files_of(&storage).contains_key(newest), "the damaged snapshot is never removed");
            assert_eq!(db.open_report().unwrap().damaged.len(), 0);
        }
    }
}

fn reopened(storage: &MemoryStorage, db: DictDb, close: bool, fell_back: bool) -> DictDb {
    let state = (db.seq(), db.digest());
    if close {
        db.close().unwrap();
    } else {
        drop(db);
    }
    let db = options(storage).open(DIR).unwrap();
    let report = db.open_report().unwrap();
    assert_eq!((db.seq(), db.digest()), state, "{report}");
    assert_eq!(report.fell_back, fell_back, "{report}");
    db
}

/// Whoever can write a file can make its checksums fit: the lengths are then on their own.
#[test]
fn no_length_that_lies_behind_sound_checksums_allocates_for_it() {
    let mut cases = 0;
    for shape in [shapes::closed(), shapes::dropped()] {
        for (path, bytes) in &shape.files {
            for value in [0, 511, 512, 1 << 20, 1 << 30, u32::MAX] {
                let mut forged = bytes.clone();
                forged[120..124].copy_from_slice(&value.to_le_bytes());
                let crc = crc32fast::hash(&forged[..124]);
                forged[124..128].copy_from_slice(&crc.to_le_bytes());
                cases += within_bounds(&shape, path, forged, &|| format!("{value} bytes preallocated"));
            }
            for frame in shapes::frames(bytes) {
                for value in [0, 1, 1 << 20, 1 << 30, (1 << 30) + 1, u32::MAX] {
                    let mut forged = bytes.clone();
                    forged[frame.bytes.start + 4..][..4].copy_from_slice(&value.to_le_bytes());
                    repair(&mut forged, &frame);
                    let what = || format!("{value} bytes in the frame at {}", frame.bytes.start);
                    cases += within_bounds(&shape, path, forged, &what);
                }
                for at in frame.bytes.clone().skip(32) {
                    // The largest varints that take five and ten bytes, as far as the payload has room for them.
                    for value in [&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F][..], &[0xFF; 9]] {
                        let mut forged = bytes.clone();
                        let room = value.len().min(frame.bytes.end - at);
                        forged[at..at + room].copy_from_slice(&value[..room]);
                        repair(&mut forged, &frame);
                        cases += within_bounds(&shape, path, forged, &|| format!("a huge number at {at}"));
                    }
                }
            }
        }
    }
    println!("{cases} files that lie about lengths");
    assert!(cases > 1_000);
}

/// Makes the checksums of a frame fit.
pub(crate) fn repair(file: &mut [u8], frame: &shapes::Frame) {
    let seed = crc32fast::hash(&file[16..32]);
    let seeded = |bytes: &[u8]| {
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        hasher.update(bytes);
        hasher.finalize().to_le_bytes()
    };
    let at = frame.bytes.start;
    let payload = seeded(&file[at + 32..frame.bytes.end]);
    file[at + 24..at + 28].copy_from_slice(&payload);
    let header = seeded(&file[at..at + 28]);
    file[at + 28..at + 32].copy_from_slice(&header);
}

/// Two windows of 64 KiB in which later frames and zeros are looked for, tables, handles and messages.
const FIXED_BYTES: u64 = 256 << 10;
/// Of the files' bytes: buffers, payloads, the ring, and the rows in memory.
const PER_FILE_BYTE: u64 = 12;

fn within_bounds(shape: &Shape, path: &std::path::Path, forged: Vec<u8>, what: &dyn Fn() -> String) -> u64 {
    let label = || format!("{}: {} of {}", shape.name, what(), path.display());
    let _label = Label(&label);
    let mut files = shape.files.clone();
    files.insert(path.to_owned(), forged);
    let bytes: usize = files.values().map(Vec::len).sum();
    let limit = FIXED_BYTES + PER_FILE_BYTE * bytes as u64;
    let storage = storage_of(&files);
    for read_only in [true, false] {
        let open = || if read_only { options(&storage).open_read_only(DIR) } else { options(&storage).open(DIR) };
        let mut outcome = None;
        let used = allocation_counter::measure(|| outcome = Some(open()));
        assert!(used.bytes_max <= limit, "{} bytes at once, and {limit} were allowed", used.bytes_max);
        if let Some(Err(error)) = outcome {
            assert_names_the_place(&error, &files);
        }
    }
    1
}

/// A store in memory: two snapshots, and a log of several segments that the first of them joins onto, closed.
fn with_a_log_of_segments(storage: &MemoryStorage) -> Options {
    let options = Options::new().checkpoint(CheckpointPolicy::manual()).segment_bytes(512).preallocate_bytes(512);
    let db = options.clone().storage(storage.clone()).open("/data").unwrap();
    let table = db.create_table("t", "id").unwrap();
    for id in 0..40 {
        table.insert(record! { "id": id, "text": "some of many" }).unwrap();
        if id == 20 || id == 30 {
            db.checkpoint().unwrap();
        }
    }
    db.close().unwrap();
    options
}

/// The same with another header, whose checksum fits.
fn with_header(bytes: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte) in changes {
        bytes[*at] = *byte;
    }
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_file_that_cannot_be_read_or_is_of_a_later_version_is_never_taken_for_a_damaged_one() {
    let ill: Arc<Mutex<Option<PathBuf>>> = Arc::default();
    let is_ill = Arc::clone(&ill);
    let storage = Hooked::new(move |op, path| {
        let fails = op == Op::Open && is_ill.lock().unwrap().as_deref() == Some(path);
        if fails { Err(std::io::ErrorKind::Other.into()) } else { Ok(()) }
    });
    let files = storage.files.clone();
    let options = with_a_log_of_segments(&files).storage(storage);
    let both = || [options.open("/data"), options.open_read_only("/data")].map(Result::unwrap_err);
    assert!(files.paths().len() > 4, "{files:?}");
    for path in files.paths().into_iter().filter(|path| path.starts_with("/data")) {
        *ill.lock().unwrap() = Some(path.clone());
        for error in both() {
            assert!(matches!(&error, Error::Io { path: told, .. } if *told == path), "{error}");
        }
        *ill.lock().unwrap() = None;
        let bytes = files.read(&path).unwrap();
        files.write(&path, with_header(&bytes, &[(8, 3)])).unwrap();
        for error in both() {
            assert!(matches!(&error, Error::UnsupportedVersion { file, found: 3, .. } if *file == path), "{error}");
        }
        files.write(&path, bytes).unwrap();
    }
    assert_eq!(options.open("/data").unwrap().table("t").unwrap().len().unwrap(), 40);
}

#[test]
fn a_header_whose_checksum_fits_is_held_to_each_of_its_fields() {
    let files = MemoryStorage::new();
    let options = with_a_log_of_segments(&files).storage(files.clone());
    let newest = |prefix: &str| {
        let is_one = |path: &PathBuf| path.to_string_lossy().contains(prefix);
        files.paths().into_iter().filter(is_one).max().unwrap()
    };
    let (log, snapshot) = (newest("dictdb_log_"), newest("dictdb_snapshot_"));
    let zeros = |bytes: std::ops::Range<usize>| bytes.map(|at| (at, 0)).collect::<Vec<_>>();
    let stamps = [&log, &snapshot].map(|path| files.read(path).unwrap()[112]);
    for (changes, offset) in [
        (vec![(0, 0)], 0),
        (vec![(10, 4)], 10),
        (vec![(15, 1)], 11),
        (zeros(16..32), 16),
        (zeros(32..48), 32),
        (vec![(88, 1)], 72),
        (vec![(112, stamps[0] ^ 1)], 112),
        (vec![(120, 255), (121, 1)], 120),
        (zeros(120..124), 120),
        // The empty database, and a history that did not begin there.
        (zeros(48..72), 32),
        (vec![(32, files.read(&log).unwrap()[32] ^ 1)], 72),
    ] {
        let bytes = files.read(&log).unwrap();
        files.write(&log, with_header(&bytes, &changes)).unwrap();
        match options.open("/data") {
            Err(Error::Corrupt { file, offset: told, .. }) => assert_eq!((file, told), (log.clone(), offset)),
            other => panic!("{changes:?}: {other:?}"),
        }
        files.write(&log, bytes).unwrap();
    }
    for (changes, offset) in [(vec![(120, 1)], 120), (vec![(112, stamps[1] ^ 1)], 112), (vec![(10, 2), (32, 1)], 10)] {
        let bytes = files.read(&snapshot).unwrap();
        files.write(&snapshot, with_header(&bytes, &changes)).unwrap();
        let db = options.open("/data").unwrap();
        let report = db.open_report().unwrap();
        match &report.damaged[..] {
            [damaged] if damaged.file == snapshot => match &*damaged.error {
                Error::Corrupt { offset: told, .. } => assert_eq!(*told, offset),
                other => panic!("{changes:?}: {other:?}"),
            },
            other => panic!("{changes:?}: {other:?}"),
        }
        files.write(&snapshot, bytes).unwrap();
    }
}

#[test]
fn a_seal_whose_checksums_fit_is_held_to_each_of_its_fields() {
    let files = MemoryStorage::new();
    let options = with_a_log_of_segments(&files).storage(files.clone());
    let log = files.paths().into_iter().filter(|path| is_log(path)).max().unwrap();
    let sealed = files.read(&log).unwrap();
    let seal = frames(&sealed).pop().unwrap();
    // Digest, time, frames, groups, records, bytes of the file, hash of what it holds.
    for at in [0, 16, 24, 32, 40, 48, 56] {
        let mut forged = sealed.clone();
        forged[seal.bytes.start + 32 + at] ^= 1;
        repair(&mut forged, &seal);
        files.write(&log, forged).unwrap();
        match options.open("/data") {
            Err(Error::Corrupt { file, .. }) => assert_eq!(file, log),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}
