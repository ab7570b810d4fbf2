//! A delta backup in binary: the commits' frames as they stood in the ring, between a header and a seal.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file::container::{ContainerReader, ContainerWriter, Frame, Item};
use crate::file::header::FileKind;
use crate::file::sink::Sink;
use crate::file::snapshot::wrong_kind;
use crate::file::{Made, Origin, check_digest, pipeline};
use crate::frame::FrameKind;
use crate::history::Seq;
use crate::mutation::CommitReader;
use crate::mutation::Event;
use crate::progress::Watch;
use crate::ring::RingSlice;
use crate::state::{Applied, Change, Changes, Prepared, Preparer, State};

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
    for frame in slice.frames() {
        assert_eq!(Some(frame.seq), last.next(), "the log has no holes");
        last = frame.seq;
        out.frame(frame.whole)?;
        commits = commits.saturating_add(1);
        records = records.saturating_add(count(frame.payload));
        if commits.is_multiple_of(REPORT_EVERY) || commits == total {
            watch.report(records, None, out.written(), None)?;
        }
    }
    assert_eq!(last, state.seq, "a delta leads to the state that was backed up");
    out.seal(state.seq, state.digest(), state.time, commits, records)?;
    Ok(Made { records, commits })
}

/// Puts and deletes in a payload of this process's own making.
fn count(payload: &[u8]) -> u64 {
    let mut records = 0_u64;
    if let Ok(mut reader) = CommitReader::new(payload) {
        while let Ok(Some((_, event))) = reader.next() {
            records = records.saturating_add(u64::from(matches!(event, Event::Put { .. } | Event::Delete { .. })));
        }
    }
    records
}

/// Applies a delta to the state that it joins onto, and checks it against its seal. On failure the state is of no use.
pub(crate) fn apply(mut file: ContainerReader, state: &mut State, watch: &Watch<'_>) -> Result<Applied> {
    let path = file.path().to_owned();
    if file.header.kind != FileKind::Delta {
        return Err(wrong_kind(&path, &file.header, FileKind::Delta));
    }
    super::check_joins(&path, file.header.base, state)?;
    state.identity = crate::state::Identity { lineage: file.header.lineage, parent: file.header.parent };
    let file_bytes = file.bytes();
    let mut applying = Applying::new(&path, state, watch, file_bytes);
    let threads = pipeline::threads_for(file_bytes, CHUNK_BYTES as u64);
    let seal = pipeline::with_threads(threads, Chunk::prepare, |chunks| {
        let mut chunk = applying.chunk();
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
                chunks.give(chunk.payloads.len(), std::mem::replace(&mut chunk, applying.chunk()));
                // What comes before it in the file is told before it.
                while let Some(chunk) = if is_last { chunks.next() } else { chunks.ready() } {
                    applying.apply(chunk)?;
                }
            }
            if let Some((at, expected)) = wrong {
                return Err(Error::corrupt(&path, at, expected));
            }
            if let Item::Seal(seal) = next? {
                return Ok(seal);
            }
        }
    })?;
    let Applying { state, applied, commits, .. } = applying;
    let records = applied.puts.saturating_add(applied.deletes);
    if (seal.seq, seal.groups, seal.records) != (state.seq, commits, records) {
        let expected = format!("a seal of seq {}, {commits} commits and {records} puts and deletes", state.seq);
        return Err(Error::corrupt(&path, file_bytes, expected));
    }
    if commits == 0 {
        // An empty delta changes nothing, the time of the newest commit included.
        state.time = seal.time;
    } else if seal.time != state.time {
        return Err(Error::corrupt(&path, file_bytes, "the time of the last commit in the seal"));
    }
    check_digest(&path, file_bytes, seal.digest, state)?;
    watch.report(records, Some(records), file_bytes, Some(file_bytes))?;
    Ok(applied)
}

/// Commits that are checked in one go, on any core.
struct Chunk {
    preparer: Arc<Preparer>,
    generation: u64,
    payloads: Vec<u8>,
    /// Of each: its seq, where its payload lies, where that stands in the file, and what was made of it.
    commits: Vec<(Seq, Range<usize>, u64, Prepared)>,
    /// Of all that are ready.
    changes: Vec<Change>,
}

impl Chunk {
    fn push(&mut self, frame: &Frame<'_>) {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(frame.payload);
        self.commits.push((frame.header.seq, start..self.payloads.len(), frame.payload_at, Prepared::Not));
    }

    fn prepare(mut self) -> Chunk {
        for (_, payload, _, prepared) in &mut self.commits {
            let payload = self.payloads.get(payload.clone()).unwrap_or_default();
            *prepared = self.preparer.prepare(payload, &mut self.changes);
        }
        self
    }
}

/// The state that chunks are applied to, in the order of the file.
struct Applying<'a> {
    path: &'a Path,
    state: &'a mut State,
    watch: &'a Watch<'a>,
    file_bytes: u64,
    applied: Applied,
    commits: u64,
    preparer: Arc<Preparer>,
    /// Rises where a commit may have changed which tables there are.
    generation: u64,
    /// Chunks that were applied, for their buffers.
    spare: Vec<Chunk>,
}

impl<'a> Applying<'a> {
    fn new(path: &'a Path, state: &'a mut State, watch: &'a Watch<'a>, file_bytes: u64) -> Applying<'a> {
        let preparer = Arc::new(state.preparer());
        let (applied, spare) = (Applied::default(), Vec::new());
        Applying { path, state, watch, file_bytes, applied, commits: 0, preparer, generation: 0, spare }
    }

    /// One to be filled.
    fn chunk(&mut self) -> Chunk {
        let (preparer, generation) = (self.preparer.clone(), self.generation);
        let (payloads, commits, changes) =
            self.spare.pop().map(|spare| (spare.payloads, spare.commits, spare.changes)).unwrap_or_default();
        Chunk { preparer, generation, payloads, commits, changes }
    }

    fn apply(&mut self, mut chunk: Chunk) -> Result<()> {
        let mut is_stale = false;
        let mut changes = Changes::new(&chunk.preparer, &mut chunk.changes);
        for (seq, payload, payload_at, prepared) in chunk.commits.drain(..) {
            let payload = chunk.payloads.get(payload).unwrap_or_default();
            is_stale |= !matches!(prepared, Prepared::Ready(_));
            self.generation = self.generation.saturating_add(u64::from(matches!(prepared, Prepared::Tables)));
            let one = match prepared {
                Prepared::Ready(count) if chunk.generation == self.generation => {
                    self.state.apply_prepared(seq, payload, &mut changes, count)
                }
                _ => self.state.apply(seq, payload),
            };
            let one = one.map_err(|m| Error::corrupt(self.path, payload_at.saturating_add(m.at as u64), m.expected))?;
            self.applied.puts = self.applied.puts.saturating_add(one.puts);
            self.applied.deletes = self.applied.deletes.saturating_add(one.deletes);
            self.commits = self.commits.saturating_add(1);
            if self.commits.is_multiple_of(REPORT_EVERY) {
                let records = self.applied.puts.saturating_add(self.applied.deletes);
                let end = payload_at.saturating_add(payload.len() as u64);
                self.watch.report(records, None, end, Some(self.file_bytes))?;
            }
        }
        if is_stale {
            self.preparer = Arc::new(self.state.preparer());
        }
        drop(changes);
        chunk.changes.clear();
        chunk.payloads.clear();
        self.spare.push(chunk);
        Ok(())
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
