//! A delta backup in binary: the commits' frames as they stood in the ring, between a header and a seal.

use crate::error::{Error, Result};
use crate::file::container::{ContainerReader, ContainerWriter, Item};
use crate::file::header::FileKind;
use crate::file::sink::Sink;
use crate::file::snapshot::wrong_kind;
use crate::file::{Made, Origin, check_digest};
use crate::frame::FrameKind;
use crate::mutation::CommitReader;
use crate::mutation::Event;
use crate::progress::Watch;
use crate::ring::RingSlice;
use crate::state::{Applied, State};

/// Commits between two reports of progress.
const REPORT_EVERY: u64 = 1_024;

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
    let mut applied = Applied::default();
    let mut commits = 0_u64;
    let seal = loop {
        let at = file.offset();
        match file.next()? {
            Item::Seal(seal) => break seal,
            Item::Frame(frame) => {
                if frame.header.kind != FrameKind::Commit {
                    return Err(Error::corrupt(&path, at, "a frame of kind 1 (commit)"));
                }
                if frame.header.synced >= frame.header.seq {
                    return Err(Error::corrupt(&path, at.saturating_add(16), "a synced seq before the frame's own"));
                }
                let one = state
                    .apply(frame.header.seq, frame.payload)
                    .map_err(|m| Error::corrupt(&path, frame.payload_at.saturating_add(m.at as u64), m.expected))?;
                applied.puts = applied.puts.saturating_add(one.puts);
                applied.deletes = applied.deletes.saturating_add(one.deletes);
                commits = commits.saturating_add(1);
                if commits.is_multiple_of(REPORT_EVERY) {
                    watch.report(
                        applied.puts.saturating_add(applied.deletes),
                        None,
                        file.offset(),
                        Some(file_bytes),
                    )?;
                }
            }
        }
    };
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
