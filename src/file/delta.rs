//! A delta backup in binary: the commits' frames as they stood in the ring, between a header and a seal.

mod pending;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub(crate) use self::pending::{Pending, Unsound};
use crate::error::{Error, Result};
use crate::file::container::{ContainerReader, ContainerWriter, Frame, Item};
use crate::file::header::FileKind;
use crate::file::seal::Seal;
use crate::file::sink::Sink;
use crate::file::snapshot::wrong_kind;
use crate::file::{Made, Origin, Trust};
use crate::frame::FrameKind;
use crate::history::Seq;
use crate::mutation::count_records;
use crate::pipeline;
use crate::progress::Watch;
use crate::ring::{Cursor, RingSlice};
use crate::state::{Applied, Changes, Identity, Mismatch, Prepared, Preparer, State};

/// Commits between two reports of progress.
const REPORT_EVERY: u64 = 1_024;
/// A chunk of commits ends with the one that reaches this many bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Writes the commits of `slice`, which lead to `state`.
pub(crate) fn write(
    sink: &mut Sink,
    slice: &RingSlice,
    state: &State,
    origin: &Origin,
    watch: &Watch<'_>,
) -> Result<Made> {
    let header = origin.header(FileKind::Delta, state.identity);
    let mut out = ContainerWriter::begin(sink, &header)?;
    let total = slice.last.since(slice.after);
    let (mut commits, mut records) = (0_u64, 0_u64);
    let mut last = slice.after;
    let mut cursor = Cursor::default();
    while let Some(run) = slice.next_run(&mut cursor, |frame| {
        assert_eq!(Some(frame.seq), last.next(), "the log has no holes");
        last = frame.seq;
        commits = commits.saturating_add(1);
        // The payload is of this process's own making, or was read with its checksums.
        records = records.saturating_add(count_records(frame.payload).unwrap_or_default());
        !commits.is_multiple_of(REPORT_EVERY)
    }) {
        out.frames(run, commits)?;
        if commits.is_multiple_of(REPORT_EVERY) || commits == total {
            watch.report(records, None, out.written(), None)?;
        }
    }
    assert_eq!(last, state.seq, "a delta leads to the state that was backed up");
    out.seal(state.seq, state.digest(), state.time, commits, records)?;
    Ok(Made { records, commits })
}

/// Reads a delta that joins onto the state with what is pending for it, and checks all of it but for its digest and whether
/// what it deletes is there: see [`Pending::settle`]. On failure the state is of no use.
pub(crate) fn read(
    mut file: ContainerReader,
    state: &mut State,
    pending: &mut Pending,
    trust: Trust,
    watch: &Watch<'_>,
) -> Result<Applied, Unsound> {
    let path = file.path().to_owned();
    let file_bytes = file.bytes();
    let read = join(&file, state, pending, trust).and_then(|()| {
        let mut reading = Reading::new(&path, state, pending, watch, file_bytes);
        let seal = reading.commits(&mut file)?;
        Ok((seal, reading.applied, reading.commits))
    });
    let checked = read.and_then(|(seal, applied, commits)| {
        check_seal(&path, file_bytes, &seal, state, applied, commits)?;
        Ok((seal, applied))
    });
    match checked {
        Ok((seal, applied)) => {
            pending.seal(state, file_bytes, seal.digest)?;
            let records = applied.puts.saturating_add(applied.deletes);
            let reported = watch.report(records, Some(records), file_bytes, Some(file_bytes));
            reported.map(|()| applied).map_err(|error| pending.unsound(state, error))
        }
        Err(Wrong::Before(unsound)) => Err(unsound),
        Err(Wrong::Here(error)) => Err(pending.unsound(state, error)),
    }
}

/// Begins to read a delta.
fn join(file: &ContainerReader, state: &mut State, pending: &mut Pending, trust: Trust) -> Result<(), Wrong> {
    let (path, header) = (file.path(), &file.header);
    let digest = pending.digest(state);
    pending.begin(path.to_owned());
    if header.kind != FileKind::Delta {
        return Err(wrong_kind(path, header, FileKind::Delta).into());
    }
    super::check_joins(path, header.base, state, digest, trust)?;
    pending.edited |= header.base.is_some_and(|base| base.digest != digest);
    state.identity = Identity { lineage: header.lineage, parent: header.parent };
    Ok(())
}

fn check_seal(
    path: &Path,
    file_bytes: u64,
    seal: &Seal,
    state: &mut State,
    applied: Applied,
    commits: u64,
) -> Result<(), Wrong> {
    let records = applied.puts.saturating_add(applied.deletes);
    if (seal.seq, seal.groups, seal.records) != (state.seq, commits, records) {
        let expected = format!("a seal of seq {}, {commits} commits and {records} puts and deletes", state.seq);
        return Err(Error::corrupt(path, file_bytes, expected).into());
    }
    if commits == 0 {
        // An empty delta changes nothing, the time of the newest commit included.
        state.time = seal.time;
    } else if seal.time != state.time {
        return Err(Error::corrupt(path, file_bytes, "the time of the last commit in the seal").into());
    }
    Ok(())
}

/// What is wrong, and whether it is known with which delta.
enum Wrong {
    Here(Error),
    Before(Unsound),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Wrong {
        Wrong::Here(error)
    }
}

impl From<Unsound> for Wrong {
    fn from(unsound: Unsound) -> Wrong {
        Wrong::Before(unsound)
    }
}

/// Commits that are checked in one go, on any core.
struct Chunk {
    preparer: Arc<Preparer>,
    generation: u64,
    payloads: Vec<u8>,
    commits: Vec<Commit>,
    /// Of all that are ready.
    changes: Changes,
}

struct Commit {
    seq: Seq,
    /// Where its payload lies among those of the chunk, and where in the file.
    payload: Range<usize>,
    payload_at: u64,
    prepared: Prepared,
}

impl Commit {
    /// What was prepared, if it is ready.
    fn made(&self) -> Option<Applied> {
        if let Prepared::Ready(made) = self.prepared { Some(made) } else { None }
    }

    /// How many changes that is.
    fn changes(&self) -> usize {
        let made = self.made().unwrap_or_default();
        usize::try_from(made.puts.saturating_add(made.deletes)).unwrap_or(usize::MAX)
    }
}

impl Chunk {
    fn push(&mut self, frame: &Frame<'_>) {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(frame.payload);
        let (payload, payload_at) = (start..self.payloads.len(), frame.payload_at);
        self.commits.push(Commit { seq: frame.header.seq, payload, payload_at, prepared: Prepared::Not });
    }

    fn prepare(mut self) -> Chunk {
        for commit in &mut self.commits {
            commit.prepared = self.preparer.prepare(&self.payloads, commit.payload.clone(), &mut self.changes);
        }
        self
    }

    /// The one that a change is part of, where all commits are ready.
    fn commit_of(&self, mut change: usize) -> Option<&Commit> {
        self.commits.iter().find(|commit| {
            let (own, before) = (commit.changes(), change);
            change = change.saturating_sub(own);
            before < own
        })
    }

    fn cleared(mut self) -> Chunk {
        self.changes.truncate(0);
        self.commits.clear();
        self.payloads.clear();
        self.payloads.shrink_to(4 * CHUNK_BYTES);
        self
    }
}

/// A delta being read, in the order of the file.
struct Reading<'a> {
    path: &'a Path,
    state: &'a mut State,
    pending: &'a mut Pending,
    watch: &'a Watch<'a>,
    file_bytes: u64,
    applied: Applied,
    commits: u64,
    preparer: Arc<Preparer>,
    /// Rises where a commit may have changed which tables there are.
    generation: u64,
}

impl<'a> Reading<'a> {
    fn new(
        path: &'a Path,
        state: &'a mut State,
        pending: &'a mut Pending,
        watch: &'a Watch<'a>,
        file_bytes: u64,
    ) -> Reading<'a> {
        let preparer = Arc::new(state.preparer());
        let applied = Applied::default();
        Reading { path, state, pending, watch, file_bytes, applied, commits: 0, preparer, generation: 0 }
    }

    fn commits(&mut self, file: &mut ContainerReader) -> Result<Seal, Wrong> {
        let threads = pipeline::threads_for(self.file_bytes, CHUNK_BYTES as u64);
        pipeline::with_threads(threads, Chunk::prepare, |chunks| {
            let mut chunk = self.chunk();
            loop {
                let at = file.offset();
                let next = file.next();
                let wrong = match &next {
                    Ok(Item::Frame(frame)) if frame.header.kind != FrameKind::Commit => {
                        Some((at, "a frame of kind 1 (commit)"))
                    }
                    Ok(Item::Frame(frame)) if frame.header.synced >= frame.header.seq => {
                        Some((at.saturating_add(16), "a synced seq before the frame's own"))
                    }
                    Ok(Item::Frame(frame)) => {
                        chunk.push(frame);
                        None
                    }
                    Ok(Item::Seal(_)) | Err(_) => None,
                };
                let is_last = wrong.is_some() || !matches!(next, Ok(Item::Frame(_)));
                if is_last || chunk.payloads.len() >= CHUNK_BYTES {
                    chunks.give(chunk.payloads.len(), std::mem::replace(&mut chunk, self.chunk()));
                    // What comes before it in the file is told before it.
                    while let Some(chunk) = if is_last { chunks.next() } else { chunks.ready() } {
                        self.take(chunk)?;
                    }
                }
                if let Some((at, expected)) = wrong {
                    return Err(Error::corrupt(self.path, at, expected).into());
                }
                if let Item::Seal(seal) = next? {
                    return Ok(seal);
                }
            }
        })
    }

    /// One to be filled.
    fn chunk(&mut self) -> Chunk {
        let (preparer, generation) = (self.preparer.clone(), self.generation);
        let (payloads, commits, changes) =
            self.pending.spare.pop().map(|spare| (spare.payloads, spare.commits, spare.changes)).unwrap_or_default();
        Chunk { preparer, generation, payloads, commits, changes }
    }

    /// Puts a chunk with what is pending; applies one that is not ready, behind all that is.
    fn take(&mut self, chunk: Chunk) -> Result<(), Wrong> {
        let is_ready = chunk.commits.iter().all(|commit| commit.made().is_some());
        if is_ready && chunk.generation == self.generation {
            for commit in &chunk.commits {
                let payload = chunk.payloads.get(commit.payload.clone()).unwrap_or_default();
                let passed = self.state.pass(commit.seq, payload);
                passed.map_err(|mismatch| self.corrupt(commit, mismatch))?;
                self.count(commit, payload, commit.made().unwrap_or_default())?;
            }
            self.pending.push(self.state, chunk)?;
            return Ok(());
        }
        self.pending.settle(self.state)?;
        for commit in &chunk.commits {
            let payload = chunk.payloads.get(commit.payload.clone()).unwrap_or_default();
            let applied = self.state.apply(commit.seq, payload);
            let applied = applied.map_err(|mismatch| self.corrupt(commit, mismatch))?;
            self.count(commit, payload, applied)?;
        }
        // Names that are new to a table come behind those that others were prepared with.
        let tables = chunk.commits.iter().any(|commit| matches!(commit.prepared, Prepared::Tables));
        self.generation = self.generation.saturating_add(u64::from(tables));
        self.preparer = Arc::new(self.state.preparer());
        self.pending.spare.push(chunk.cleared());
        Ok(())
    }

    fn corrupt(&self, commit: &Commit, mismatch: Mismatch) -> Error {
        Error::corrupt(self.path, commit.payload_at.saturating_add(mismatch.at as u64), mismatch.expected)
    }

    fn count(&mut self, commit: &Commit, payload: &[u8], applied: Applied) -> Result<()> {
        self.applied.puts = self.applied.puts.saturating_add(applied.puts);
        self.applied.deletes = self.applied.deletes.saturating_add(applied.deletes);
        self.commits = self.commits.saturating_add(1);
        if !self.commits.is_multiple_of(REPORT_EVERY) {
            return Ok(());
        }
        let records = self.applied.puts.saturating_add(self.applied.deletes);
        let end = commit.payload_at.saturating_add(payload.len() as u64);
        self.watch.report(records, None, end, Some(self.file_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{BackupManager, restore};
    use crate::file::name::BackupFormat;
    use crate::{DictDb, record};

    #[test]
    fn tables_and_names_that_come_and_go_amid_chunks_are_applied_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let db = DictDb::builder().ring_bytes(64 << 20).build();
        db.create_table("stays", "id").unwrap();
        let manager = BackupManager::builder(&db, dir.path()).file_format(BackupFormat::Binary).build().unwrap();
        manager.backup_full().unwrap();
        let text = "x".repeat(300);
        for round in 0..6_i64 {
            let comes = db.create_table("comes", if round == 3 { "key" } else { "id" }).unwrap();
            if round % 4 < 2 {
                // What comes next is the second shape of this table, and was the first of the one before it.
                comes.upsert(record! { "id": -1, "key": -1, "first": round }).unwrap();
            }
            for n in 0..400_i64 {
                let mut record = record! { "id": n, "key": n + 1, "text": text.as_str() };
                comes.upsert(record.clone()).unwrap();
                if n % 97 == 0 {
                    record.insert(format!("new in {round} {n}"), n);
                }
                db.table("stays").unwrap().upsert(record).unwrap();
                if n % 50 == 49 {
                    comes.delete(n - 20).unwrap();
                }
            }
            if round < 5 {
                db.drop_table("comes").unwrap();
            }
        }
        let report = manager.backup_delta().unwrap();
        assert!(report.bytes > 20 * CHUNK_BYTES as u64, "{report:?}");
        let (restored, report) = restore(dir.path()).unwrap();
        assert_eq!((restored.digest(), report.deltas.len()), (db.digest(), 1));
        for table in ["comes", "stays"] {
            let records = |db: &DictDb| db.table(table).unwrap().iter().unwrap().collect::<Vec<_>>();
            assert_eq!(records(&restored), records(&db));
        }
    }
}
