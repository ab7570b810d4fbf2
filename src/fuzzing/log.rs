//! The target `log_recover`: any bytes as what a store's directory holds, opened.
//!
//! The first byte picks how: the rest as a segment, as one whose checksums are put right, or as steps of a writer that
//! makes segments and snapshots, most of them right, and can do wrong whatever a writer can.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::repair::{frame_of, seal_frame};
use super::seeds::{LINEAGE, commit};
use super::{Mode, Picks, same_snapshot_again, write_full};
use crate::batch::Batch;
use crate::definition::TableDefinition;
use crate::error::{Error, Result};
use crate::file::Origin;
use crate::file::header::{FileKind, HEADER_BYTES, Header};
use crate::file::name::{BackupFormat, Stamp};
use crate::file::seal::Seal;
use crate::file::store_name::{StoreFile, StoreName};
use crate::frame::{FRAME_HEADER_BYTES, FrameKind};
use crate::history::{Digest, Lineage, Point, Seq, Timestamp};
use crate::state::{Identity, State};
use crate::storage::{LOCK_FILE, MemoryStorage, Storage};
use crate::value::Key;
use crate::{CheckpointPolicy, Durability, ManualClock, Options, record, row};

const DIR: &str = "/store";

/// What a writer of one input may do.
const STEPS_MAX: usize = 64;

/// The files of a directory, by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Any bytes as the log of a store. Whether it opens.
pub fn log_recover(data: &[u8]) -> bool {
    let Some((mode, rest)) = Mode::of(data, 3) else { return false };
    let one = |bytes: Vec<u8>| Files::from([(name(StoreFile::Log, FIRST), bytes)]);
    let files = match mode {
        Mode::Raw => one(rest.to_vec()),
        Mode::Checksums => one(repaired(rest)),
        _ => Writer::run(&mut Picks(rest)),
    };
    let storage = MemoryStorage::new();
    storage.create_dir_all(Path::new(DIR)).expect("memory has room for a directory");
    for (name, bytes) in files {
        storage.write(Path::new(DIR).join(name), bytes).expect("memory takes every file");
    }
    opens(&storage)
}

/// The stamp of the first file.
const FIRST: u64 = 1_000_000;

fn name(kind: StoreFile, stamp: u64) -> String {
    StoreName { stamp: Stamp::new(stamp), kind }.file_name()
}

fn options(storage: &MemoryStorage) -> Options {
    Options::new()
        .storage(storage.clone())
        .durability(Durability::Sync)
        .checkpoint(CheckpointPolicy::manual())
        .segment_bytes(600)
        .preallocate_bytes(512)
        .ring_bytes(400)
        .clock(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)))
}

fn contents(storage: &MemoryStorage) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| (path.clone(), storage.read(path).expect("a file that is listed is there"));
    storage.paths().into_iter().map(read).collect()
}

/// Opens what is there, and checks what must hold of whatever opens.
fn opens(storage: &MemoryStorage) -> bool {
    let before = contents(storage);
    let shown = options(storage).open_read_only(DIR);
    assert_eq!(contents(storage), before, "looking changes nothing");
    let opened = options(storage).open(DIR);
    assert_eq!(contents(storage), before, "opening changes nothing");
    let db = match (opened, shown) {
        (Ok(db), Ok(shown)) => {
            assert_eq!((shown.digest(), shown.seq()), (db.digest(), db.seq()), "looking shows what opening finds");
            let report = shown.open_report().expect("a store has a report");
            assert!(report.damage.is_none(), "{report}");
            db
        }
        (Ok(db), Err(error)) => panic!("{}, but not for looking: {error}", db.open_report().expect("a report")),
        (Err(error), shown) => {
            refused(&error, storage);
            match shown {
                Ok(shown) => {
                    let report = shown.open_report().expect("a store has a report");
                    assert!(report.damage.is_some(), "{report}; and for writing: {error}");
                    same_snapshot_again(&shown.read());
                }
                Err(error) => refused(&error, storage),
            }
            return false;
        }
    };
    same_snapshot_again(&db.read());
    let (digest, seq, clean) = (db.digest(), db.seq(), db.open_report().expect("a report").clean);
    drop(db);
    let kept = |what: &str| {
        for (path, bytes) in &before {
            assert!(storage.read(path).is_ok_and(|now| now == *bytes), "{what} changes {}", path.display());
        }
    };
    kept("ending");

    let db = options(storage).open(DIR).expect("what opens once opens twice");
    assert_eq!((db.digest(), db.seq()), (digest, seq), "it opens a second time to the same state");
    assert!(!clean || db.open_report().expect("a report").clean, "a closed store stays closed");
    let fresh = (0..).map(|n| format!("new {n}")).find(|name| db.table(name).is_err()).expect("names do not end");
    if !done(db.create_table(&fresh, "id")) {
        return true;
    }
    let (digest, lineage) = (db.digest(), db.lineage());
    assert_eq!(Some(db.seq()), seq.next(), "a commit comes behind what was found");
    let seq = db.seq();
    drop(db);
    kept("a commit");

    let db = options(storage).open(DIR).expect("it opens after a commit");
    assert_eq!((db.digest(), db.seq()), (digest, seq), "a commit is found again");
    assert!(db.lineage() != lineage, "an open log ends its history");
    if done(db.checkpoint()) {
        let lineage = db.lineage();
        if done(db.close()) {
            let db = options(storage).open(DIR).expect("it opens after a checkpoint and a close");
            assert_eq!((db.digest(), db.seq(), db.lineage()), (digest, seq, lineage));
        }
    }
    true
}

/// A write fails only where names or numbers have come to their end.
fn done<T>(outcome: Result<T>) -> bool {
    let error = match outcome {
        Ok(_) => return true,
        Err(Error::Poisoned { cause }) => cause.to_string(),
        Err(error @ Error::Exhausted { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
    };
    assert!(error.contains("no numbers left"), "{error}");
    false
}

/// A refusal names a file that is there, and a place in it.
fn refused(error: &Error, storage: &MemoryStorage) {
    match error {
        Error::Corrupt { file, offset, expected } => {
            let bytes = storage.read(file).unwrap_or_else(|_| panic!("no such file: {error}")).len() as u64;
            assert!(*offset <= bytes, "damage at byte {offset} of {bytes}: {error}");
            assert!(!expected.is_empty());
        }
        Error::WrongKind { .. } | Error::UnsupportedVersion { .. } | Error::NotAStore { .. } => {}
        error => panic!("{error}"),
    }
}

/// A segment with the checksums that fit, up to where there are only zeros.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut file = data.to_vec();
    let Some((header, mut left)) = file.split_first_chunk_mut::<HEADER_BYTES>() else { return file };
    header[112..120].copy_from_slice(&FIRST.to_le_bytes());
    let crc = crc32fast::hash(&header[..124]);
    header[124..].copy_from_slice(&crc.to_le_bytes());
    let lineage = header.get(16..).and_then(|bytes| bytes.first_chunk()).map(|id| Lineage::from_bytes(*id));
    let lineage = lineage.unwrap_or(LINEAGE);
    while left.len() > FRAME_HEADER_BYTES && left.iter().take(FRAME_HEADER_BYTES).any(|byte| *byte != 0) {
        let stated = u32::from_le_bytes([left[4], left[5], left[6], left[7]]) as usize;
        let end = stated.saturating_add(FRAME_HEADER_BYTES).min(left.len());
        let (frame, rest) = left.split_at_mut(end);
        seal_frame(frame, lineage);
        left = rest;
    }
    file
}

/// Makes the files of a store as the program does, and does wrong what it is told to.
struct Writer {
    files: Files,
    /// The stamp of the newest file.
    stamp: u64,
    state: State,
    /// States to go back to.
    states: Vec<State>,
    /// The segment that is being written.
    header: Header,
    bytes: Vec<u8>,
    frames: u64,
    /// Whether nothing is to come behind.
    is_sealed: bool,
    histories: u8,
}

impl Writer {
    fn run(picks: &mut Picks<'_>) -> Files {
        let state = State::empty(Identity { lineage: LINEAGE, parent: None });
        let mut writer = Writer {
            files: Files::new(),
            stamp: FIRST,
            states: vec![state.clone()],
            header: Writer::header(&state, None, FIRST, 512),
            bytes: Vec::new(),
            state,
            frames: 0,
            is_sealed: false,
            histories: 0,
        };
        writer.bytes = writer.header.encode().to_vec();
        let mut with_segment = true;
        for _ in 0..STEPS_MAX {
            let Some(step) = picks.next() else { break };
            if step == 0xFF {
                with_segment = false;
                break;
            }
            writer.step(step, picks);
        }
        if with_segment {
            writer.finish(true);
        }
        writer.files
    }

    fn header(state: &State, base: Option<Point>, stamp: u64, preallocation: u32) -> Header {
        let Identity { lineage, parent } = state.identity;
        let created = Timestamp::from_micros(stamp.cast_signed());
        Header { kind: FileKind::Log, lineage, parent, base, created, preallocation }
    }

    fn step(&mut self, step: u8, picks: &mut Picks<'_>) {
        match step % 20 {
            0..=4 => self.commit(picks),
            5 => {
                let synced = self.synced(picks);
                let payload = picks.some();
                let mut state = self.state.clone();
                if let Some(seq) = state.seq.next() {
                    let applies = state.apply(seq, &payload).is_ok();
                    self.frame(FrameKind::Commit, seq, synced, &payload);
                    if applies {
                        self.reach(state);
                    }
                }
            }
            6 => {
                let (mut state, kind) = (self.state.clone(), picks.pick());
                let frame = change(&mut state, kind, picks);
                let Some(payload) = frame.get(FRAME_HEADER_BYTES..) else { return };
                let seq = self.state.seq.get().wrapping_add(u64::from(picks.pick())).wrapping_sub(2);
                let synced = self.synced(picks);
                self.frame(FrameKind::Commit, Seq::new(seq), synced, payload);
            }
            7 => {
                let kinds = [FrameKind::Table, FrameKind::Rows, FrameKind::Seal, FrameKind::Continued];
                let (kind, synced) = (kinds[usize::from(picks.pick() % 4)], self.synced(picks));
                self.frame(kind, self.state.seq, synced, &picks.some());
            }
            8 => self.forged_length(picks),
            9 => self.seal(picks),
            10 => self.bytes.resize(self.bytes.len() + usize::from(picks.pick()) * 4, 0),
            11 => self.bytes.extend_from_slice(&picks.some()),
            12 => self.bytes.truncate(self.bytes.len().saturating_sub(picks.pick().into()).max(HEADER_BYTES)),
            13 => {
                let at = self.bytes.len().saturating_sub(usize::from(picks.pick()) + 1);
                let flip = picks.pick();
                if let Some(byte) = self.bytes.get_mut(at) {
                    *byte ^= flip;
                }
            }
            14 | 15 => self.next_segment(picks),
            16 => {
                let at = usize::from(picks.pick()) % self.states.len();
                self.begin_history(at, picks);
            }
            17 | 18 => self.snapshot(picks),
            _ => self.other_file(picks),
        }
    }

    fn lineage(&self) -> Lineage {
        self.header.lineage
    }

    /// What a frame may say is durable; mostly what a program would.
    fn synced(&self, picks: &mut Picks<'_>) -> Seq {
        let seq = self.state.seq.get();
        Seq::new(match picks.pick() % 8 {
            0..=2 => seq,
            3 | 4 => seq.saturating_sub(1),
            5 => 0,
            6 => seq.wrapping_add(u64::from(picks.pick())).wrapping_sub(3),
            _ => u64::MAX,
        })
    }

    fn frame(&mut self, kind: FrameKind, seq: Seq, synced: Seq, payload: &[u8]) {
        if !payload.is_empty() {
            self.bytes.extend_from_slice(&frame_of(kind, self.lineage(), seq, synced, payload));
        }
    }

    fn reach(&mut self, state: State) {
        self.states.push(state.clone());
        self.state = state;
        self.frames += 1;
    }

    fn commit(&mut self, picks: &mut Picks<'_>) {
        let mut state = self.state.clone();
        let frame = change(&mut state, picks.pick(), picks);
        let synced = self.synced(picks);
        if let Some(payload) = frame.get(FRAME_HEADER_BYTES..) {
            self.frame(FrameKind::Commit, state.seq, synced, payload);
            self.reach(state);
        }
    }

    fn forged_length(&mut self, picks: &mut Picks<'_>) {
        let seq = self.state.seq.next().unwrap_or_default();
        let mut frame = frame_of(FrameKind::Commit, self.lineage(), seq, self.state.seq, b"?");
        let length = [0, 2, 1 << 10, 1 << 30, (1 << 30) + 1, u32::MAX][usize::from(picks.pick() % 6)];
        frame[4..8].copy_from_slice(&length.to_le_bytes());
        let mut hasher = self.lineage().hasher();
        hasher.update(&frame[..28]);
        frame[28..32].copy_from_slice(&hasher.finalize().to_le_bytes());
        self.bytes.extend_from_slice(&frame);
    }

    fn seal(&mut self, picks: &mut Picks<'_>) {
        let mut seal = Seal {
            seq: self.state.seq,
            digest: self.state.digest(),
            time: self.state.time,
            frames: self.frames,
            groups: self.frames,
            records: 0,
            file_bytes: (self.bytes.len() + crate::file::seal::SEAL_BYTES) as u64,
            content: xxhash_rust::xxh3::xxh3_128(&self.bytes),
        };
        let mut synced = self.state.seq;
        let how = picks.pick();
        match how / 2 % 16 {
            0 => seal.digest = Digest::from_u128(seal.digest.to_u128() ^ 1),
            1 => seal.time = Timestamp::from_micros(0),
            2 => seal.frames ^= 1,
            3 => seal.file_bytes ^= 1,
            4 => seal.content ^= 1,
            5 => seal.records ^= 1,
            6 => synced = Seq::new(synced.get() ^ 1),
            7 => seal.seq = Seq::new(seal.seq.get() ^ 1),
            _ => {}
        }
        let kind = if how & 1 == 0 { FrameKind::Seal } else { FrameKind::Continued };
        self.bytes.extend_from_slice(&seal.encode_as(kind, self.lineage(), synced));
        self.is_sealed = true;
    }

    /// Ends the segment as it stands, or at the next step of its preallocation.
    fn finish(&mut self, whole: bool) {
        if whole && !self.is_sealed {
            let step = usize::try_from(self.header.preallocation).unwrap_or_default().clamp(512, 1 << 16);
            self.bytes.resize(self.bytes.len().next_multiple_of(step), 0);
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.files.insert(name(StoreFile::Log, self.header.created.as_micros().cast_unsigned()), bytes);
    }

    fn next_stamp(&mut self, how: u8) -> u64 {
        self.stamp = match how {
            0xFF => i64::MAX.cast_unsigned(),
            0xFE => i64::MAX.cast_unsigned() - 1,
            0xFD => self.stamp,
            how => self.stamp.saturating_add(u64::from(how % 8) * 1_000_000 + 1),
        };
        self.stamp
    }

    fn next_segment(&mut self, picks: &mut Picks<'_>) {
        let (how, stamp) = (picks.pick(), picks.pick());
        self.finish(how & 0xC0 != 0xC0);
        let point = self.state.point();
        let mut base = Some(point);
        let mut preallocation = [512, 1024, 512, 4096][usize::from(how % 4)];
        match how / 4 % 16 {
            0 => base = None,
            1 => base = Some(Point { digest: Digest::from_u128(point.digest.to_u128() ^ 1), ..point }),
            2 => base = Some(Point { seq: Seq::new(point.seq.get().wrapping_add(1)), ..point }),
            3 => base = Some(Point { seq: Seq::new(u64::MAX), ..point }),
            4 => base = self.states.get(usize::from(stamp)).map(State::point),
            5 => preallocation = [0, 511, u32::MAX, 1 << 30][usize::from(stamp % 4)],
            _ => {}
        }
        self.begin_segment(base, stamp, preallocation);
    }

    fn begin_segment(&mut self, base: Option<Point>, stamp: u8, preallocation: u32) {
        let stamp = self.next_stamp(stamp);
        self.header = Writer::header(&self.state, base, stamp, preallocation);
        self.bytes = self.header.encode().to_vec();
        (self.frames, self.is_sealed) = (0, false);
    }

    /// A history that begins at an earlier state, as recovery makes one.
    fn begin_history(&mut self, at: usize, picks: &mut Picks<'_>) {
        let (how, stamp) = (picks.pick(), picks.pick());
        self.finish(how & 1 == 0);
        self.histories = self.histories.wrapping_add(1);
        self.state = self.states[at].clone();
        let point = self.state.point();
        let parent = match how / 2 % 8 {
            0 => None,
            1 => Some(Point { digest: Digest::EMPTY, ..point }),
            _ => Some(point),
        };
        let lineage = Lineage::from_bytes([self.histories; 16]);
        self.state.identity = Identity { lineage, parent };
        let base = match how / 16 % 8 {
            0 => self.state.point(),
            _ => point,
        };
        self.states.push(self.state.clone());
        self.begin_segment(Some(base), stamp, 512);
    }

    fn snapshot(&mut self, picks: &mut Picks<'_>) {
        let (how, stamp) = (picks.pick(), picks.pick());
        let at = match how % 4 {
            0 => usize::from(picks.pick()) % self.states.len(),
            _ => self.states.len() - 1,
        };
        let mut state = self.states[at].clone();
        if how & 0xF0 == 0xF0 {
            state.seq = Seq::new(u64::MAX - u64::from(how % 4));
            self.states.push(state.clone());
            self.state = state.clone();
        }
        let stamp = self.next_stamp(stamp);
        let origin = Origin { base: None, created: Timestamp::from_micros(stamp.cast_signed()) };
        let Ok(mut file) = write_full(BackupFormat::Binary, &state, origin) else { return };
        if how & 0xF0 == 0xE0 {
            let at = usize::from(picks.pick()) * file.len() / 256;
            file[at] ^= picks.pick();
        }
        self.files.insert(name(StoreFile::Snapshot, stamp), file);
    }

    fn other_file(&mut self, picks: &mut Picks<'_>) {
        let (how, bytes) = (picks.pick(), picks.some());
        let log = name(StoreFile::Log, self.stamp);
        let name = match how % 5 {
            0 => name(StoreFile::Torn, self.stamp),
            1 => crate::file::name::temp_name(&log),
            2 => LOCK_FILE.to_owned(),
            3 => "notes".to_owned(),
            _ => {
                let stamp = self.next_stamp(how);
                name(if how & 0x80 == 0 { StoreFile::Log } else { StoreFile::Snapshot }, stamp)
            }
        };
        self.files.insert(name, bytes);
    }
}

/// Changes a state as a commit does; gives its frame, or nothing where nothing was done.
fn change(state: &mut State, kind: u8, picks: &mut Picks<'_>) -> Vec<u8> {
    let (id, value) = (i64::from(kind / 8 % 4), i64::from(picks.pick()));
    if state.seq.next().is_none() {
        return Vec::new();
    }
    commit(state, |batch| {
        let put = |batch: &mut Batch<'_>, id: i64| {
            // Where it is there already, nothing happens.
            let _ = batch.create_table("a", &TableDefinition::new("id"));
            let mut bytes = Vec::new();
            row::encode_record(&record! { "id": id, "v": value }, &mut bytes).expect("a record within the limits");
            batch.upsert("a", &bytes).expect("a record that fits its table");
        };
        match kind % 8 {
            0 => _ = batch.drop_table("a"),
            1 => _ = batch.delete("a", &Key::Int(id)),
            2 => (0..value % 16).for_each(|id| put(batch, id)),
            _ => put(batch, id),
        }
    })
}

/// What a segment of these steps is.
pub(super) fn segment(steps: &[u8]) -> Vec<u8> {
    let files = Writer::run(&mut Picks(steps));
    files.into_iter().next().map(|(_, bytes)| bytes).unwrap_or_default()
}
