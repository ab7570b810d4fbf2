//! Recovery: from a store's directory to its state. Reads, and writes nothing.
//!
//! 1. The newest sound snapshot, or the empty database where the log reaches back to it.
//! 2. The log's segments behind it, in order. Each next segment's base says how far the one before it reaches; that
//!    much must be there, and its digest must fit.
//! 3. The last segment up to where its sound frames end. `log/verdict.rs` says whether that is the end of the log, a torn
//!    tail, or damage.
//! 4. After a clean close the history goes on. After anything else a new one begins, at the last commit that is proven to
//!    have been durable. Sound commits behind that one are kept, as the first commits of the new history: they are
//!    written once more, because a system whose sync failed once may show bytes that it will never write
//!    (Rebello et al., ATC'20).
//!
//! As nothing is written, a crash in here, or any number of them, changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{DamagedBackup, Error, Result};
use crate::file::store_name::{StoreFile, StoreName};
use crate::file::{self, Trust};
use crate::frame::{self, FrameKind};
use crate::history::{Lineage, Point, Seq};
use crate::log::{Ending, Found, SegmentEnd, SegmentReader, TornTail, Verdict, judge};
use crate::progress::{ProgressFn, Stage, Watch};
use crate::ring::{Ring, RingBytes};
use crate::state::{Identity, State};
use crate::storage::Storage;
use crate::store::directory::{Directory, Line, Segment, SnapshotInfo, is_io, path, snapshots};
use crate::store::report::{OpenReport, TornReport};

/// How to recover.
#[derive(Clone, Copy)]
pub(crate) struct Recovery<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) dir: &'a Path,
    pub(crate) ring_bytes: RingBytes,
    pub(crate) progress: Option<&'a ProgressFn>,
    pub(crate) clock: &'a dyn Clock,
    /// Where the log is damaged, give what comes before the damage, and say so: for looking, never for writing.
    pub(crate) lenient: bool,
    /// Only commits before this one.
    pub(crate) before: Option<Seq>,
}

/// A store as it was found.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) ring: Ring,
    /// Where the next segment begins: everything up to here is durable.
    pub(crate) durable: SegmentEnd,
    /// Frames of the commits behind it, which are still to be written.
    pub(crate) pending: Vec<(Seq, Vec<u8>)>,
    pub(crate) torn: Option<TornTail>,
    /// The seq of the snapshot begun with.
    pub(crate) checkpoint: Option<Seq>,
    /// Bytes of the log's frames behind that snapshot, and how long their replay took.
    pub(crate) log_bytes: u64,
    pub(crate) replay_time: Duration,
    pub(crate) report: OpenReport,
}

/// Where the replay stands.
struct Replay {
    state: State,
    ring: Ring,
    commits: u64,
    log_bytes: u64,
    time: Duration,
    /// The commit that could not be replayed: the state may hold part of it.
    spoiled_by: Option<Seq>,
}

impl Recovery<'_> {
    pub(crate) fn run(&self, found: &Directory) -> Result<Recovered> {
        let outcome = self.attempt(found);
        let Err(error) = outcome else { return outcome };
        let mut found = found.clone();
        // For looking: what comes before the segments that nothing leads to.
        while self.lenient && !is_io(&error) {
            let Some(newest) = found.files.iter().rposition(|name| name.kind == StoreFile::Log) else { break };
            found.files.remove(newest);
            if found.files.iter().all(|name| name.kind == StoreFile::Torn) {
                break;
            }
            match self.attempt(&found) {
                Ok(mut recovered) => {
                    recovered.report.damage = Some(Box::new(error));
                    return Ok(recovered);
                }
                Err(error) if is_io(&error) => return Err(error),
                Err(_) => {}
            }
        }
        Err(error)
    }

    fn attempt(&self, found: &Directory) -> Result<Recovered> {
        let mut line = Line::read(self.storage, self.dir, found)?;
        let (sound, damaged) = snapshots(self.storage, self.dir, found)?;
        if line.segments.is_empty()
            && sound.is_empty()
            && damaged.is_empty()
            && let Some(torn) = found.of_kind(StoreFile::Torn).next()
        {
            let expected = "the log that this tail was torn from, or a snapshot: all of them are missing";
            return Err(Error::corrupt(&path(self.dir, StoreFile::Torn, torn), 0, expected));
        }
        let mut report = OpenReport::new(self.dir, found.leftovers.len());
        let (state, start) = self.begin(&mut line, &sound, damaged, &mut report)?;
        let checkpoint = report.snapshot.is_some().then_some(state.seq);
        let ring = Ring::new(self.ring_bytes, state.seq);
        let mut replay = Replay { state, ring, commits: 0, log_bytes: 0, time: Duration::ZERO, spoiled_by: None };
        let begun = self.clock.monotonic();

        let segments = line.segments.get(start..).unwrap_or_default();
        let mut outcome = Ok(None);
        for (at, segment) in segments.iter().enumerate() {
            let next = segments.get(at.saturating_add(1));
            let commits = replay.commits;
            let ended = match next {
                Some(next) => self.closed(&mut replay, segment, next).map(|()| None),
                None => self.last(&mut replay, segment, &sound, &mut report).map(Some),
            };
            match ended {
                Ok(end) => outcome = Ok(end),
                Err(error) if replay.spoiled_by.is_some() && self.before.is_none() && self.lenient => {
                    let mut recovered = Recovery { before: replay.spoiled_by, ..*self }.attempt(found)?;
                    (recovered.report.damage, recovered.report.clean) = (Some(Box::new(error)), false);
                    return Ok(recovered);
                }
                Err(error) if self.lenient && !is_io(&error) => {
                    report.segments = report.segments.saturating_add(u64::from(replay.commits > commits));
                    report.damage.get_or_insert(Box::new(error));
                    outcome = Ok(None);
                    break;
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
            report.segments = report.segments.saturating_add(1);
        }
        replay.time = self.clock.monotonic().saturating_sub(begun);
        let end = match outcome? {
            Some(end) => end,
            None => {
                let here = replay.state.point();
                let is_beyond = |info: &&SnapshotInfo| info.durable_in(here.lineage) > Some(here.seq);
                if let Some(beyond) = sound.iter().find(is_beyond)
                    && report.damage.is_none()
                {
                    let error = no_log_behind(beyond, &line);
                    if !self.lenient {
                        return Err(error);
                    }
                    report.damage = Some(Box::new(error));
                }
                let (mut durable, mut torn) = (SegmentEnd::of(&replay.state), None);
                // The log of the history before is still there: what comes next joins onto it.
                if let Some(parent) = replay.state.identity.parent.filter(|parent| parent.seq == replay.state.seq)
                    && parent.seq > Seq::ZERO
                    && let Some(last) = line.segments.last()
                {
                    durable.point = parent;
                    torn = self.torn_behind(last, parent.seq, &mut report)?;
                }
                // Beside the log of a history before it, it is a checkpoint of a session that began unclean. Commits behind
                // it may have been shown, and are lost.
                let clean = report.damage.is_none() && line.segments.is_empty() && !report.fell_back;
                End { durable, pending: Vec::new(), torn, clean }
            }
        };
        self.finish(replay, end, checkpoint, report)
    }

    fn finish(
        &self,
        mut replay: Replay,
        mut end: End,
        checkpoint: Option<Seq>,
        mut report: OpenReport,
    ) -> Result<Recovered> {
        report.clean = end.clean;
        if !end.clean {
            report.new_lineage_from = Some(end.durable.point);
            replay.state.identity = if end.durable.point.is_empty() {
                // Before its first commit a history is as good as none, and its log need not have been made durable.
                let fresh = Identity::fresh();
                end.durable.point = Point::empty(fresh.lineage);
                fresh
            } else {
                Identity::child_of(end.durable.point)
            };
            replay.ring = Ring::new(self.ring_bytes, end.durable.point.seq);
            replay.ring.fit(replay.state.row_bytes());
        }
        let lineage = replay.state.identity.lineage;
        let mut pending = Vec::new();
        for (seq, payload) in end.pending {
            let mut bytes = Vec::with_capacity(payload.len().saturating_add(frame::FRAME_HEADER_BYTES));
            let start = frame::begin(&mut bytes);
            bytes.extend_from_slice(&payload);
            frame::finish(&mut bytes, start, FrameKind::Commit, lineage, seq, end.durable.point.seq);
            replay.ring.push(seq, &bytes);
            pending.push((seq, bytes));
        }
        report.point = replay.state.point();
        report.time = replay.state.time;
        report.records = replay.state.record_count();
        report.commits = replay.commits;
        report.log_bytes = replay.log_bytes;
        report.unproven = pending.len() as u64;
        Ok(Recovered {
            state: replay.state,
            ring: replay.ring,
            durable: end.durable,
            pending,
            torn: end.torn,
            checkpoint,
            log_bytes: replay.log_bytes,
            replay_time: replay.time,
            report,
        })
    }

    /// The state to begin with, and the first segment behind it.
    fn begin(
        &self,
        line: &mut Line,
        sound: &[SnapshotInfo],
        damaged: Vec<DamagedBackup>,
        report: &mut OpenReport,
    ) -> Result<(State, usize)> {
        report.damaged = damaged;
        for info in sound {
            let Some(start) = line.position(info.point) else {
                let older = line.segments.first().is_some_and(|first| first.stamp > info.stamp);
                let twin = info.twin().and_then(|twin| line.position(twin));
                let joins = line.segments.is_empty() || twin.is_some();
                if info.is_origin() && joins && line.segments.iter().all(|segment| segment.stamp < info.stamp) {
                    // Restored, or written before the first commit of its history: no log has been begun behind it.
                    if let Some(state) = self.snapshot(info, report)? {
                        return Ok((state, line.segments.len()));
                    }
                } else if let Some(start) = twin {
                    // Its history ended before its first commit, and the next one began where it had begun.
                    if let Some(state) = self.snapshot(info, report)? {
                        return Ok((state, start));
                    }
                } else if !older && !line.has_left_behind(info.point) {
                    let error = no_log_behind(info, line);
                    if !self.lenient {
                        return Err(error);
                    }
                    report.damage.get_or_insert(Box::new(error));
                    if let Some(state) = self.snapshot(info, report)? {
                        return Ok((state, line.segments.len()));
                    }
                }
                continue;
            };
            if let Some(state) = self.snapshot(info, report)? {
                return Ok((state, start));
            }
        }
        match line.segments.first() {
            Some(first) if first.header.base.is_none() && first.header.parent.is_none() => {
                report.fell_back = !report.damaged.is_empty();
                let identity = Identity { lineage: first.header.lineage, parent: None };
                Ok((State::empty(identity), 0))
            }
            None if report.damaged.is_empty() => Ok((State::empty(Identity::fresh()), 0)),
            first => {
                let damaged = std::mem::take(&mut report.damaged).into_iter().map(|damaged| *damaged.error);
                let error = damaged.chain(line.broken_by.take()).next();
                Err(error.unwrap_or_else(|| nothing_to_begin_with(first)))
            }
        }
    }

    /// `None`, and a note in the report, for a damaged one.
    fn snapshot(&self, info: &SnapshotInfo, report: &mut OpenReport) -> Result<Option<State>> {
        let watch = Watch::new(self.progress, Stage::ReadingFull, &info.path);
        match file::read_full(self.storage, &info.path, Trust::default(), &watch) {
            Ok(state) => {
                // An older one that is damaged was not needed.
                let stamp = |file: &Path| file.file_name().and_then(StoreName::parse).map(|name| name.stamp);
                report.fell_back = report.damaged.iter().any(|damaged| stamp(&damaged.file) > Some(info.stamp));
                report.snapshot = Some(info.path.clone());
                Ok(Some(state))
            }
            Err(error) if is_io(&error) => Err(error),
            Err(error) => {
                report.damaged.push(DamagedBackup { file: info.path.clone(), error: Box::new(error) });
                Ok(None)
            }
        }
    }

    /// A segment that another one follows: it must reach the other's base.
    fn closed(&self, replay: &mut Replay, segment: &Segment, next: &Segment) -> Result<()> {
        let base = next.base;
        if replay.state.point() == base {
            return Ok(());
        }
        let mut reader = self.enter(replay, segment)?;
        let ending = self.replay(replay, &mut reader, base.seq, |_, _| {})?;
        if ending.last < base.seq {
            let missing = ending.seal.map(|_| "the commits up to the next segment's first: a segment is missing");
            let row = judge(ending.found, ending.later, true);
            return Err(Error::corrupt(&segment.path, ending.at, missing.unwrap_or(row.why)));
        }
        if replay.state.point() != base {
            let expected = format!("as base the point that the log reaches, {}", replay.state.point());
            return Err(Error::corrupt(&next.path, 32, expected));
        }
        Ok(())
    }

    /// The segment at the end of the log.
    fn last(
        &self,
        replay: &mut Replay,
        segment: &Segment,
        sound: &[SnapshotInfo],
        report: &mut OpenReport,
    ) -> Result<End> {
        let mut reader = self.enter(replay, segment)?;
        let ending = match reader.read(None, |_| Ok(())) {
            Err(damage) if self.lenient && !is_io(&damage) => {
                return self.up_to(replay, &mut reader, Seq::new(u64::MAX), damage);
            }
            ending => ending?,
        };
        let lineage = segment.header.lineage;
        let witness = sound.iter().filter_map(|info| info.durable_in(lineage)).max().unwrap_or_default();
        let verdict = match self.verdict(segment, &ending, witness) {
            Err(damage) if self.lenient => return self.up_to(replay, &mut reader, ending.last, damage),
            verdict => verdict?,
        };

        let proven = ending.proven.max(witness).min(ending.last);
        // Where nothing of this segment is proven, not even its name is: then the end of the one before it is what
        // the next one builds on. A seal proves it.
        let is_unproven = ending.seal.is_none() && proven == segment.base.seq;
        let begins_here = is_unproven && replay.state.seq == proven;
        let mut durable = match begins_here {
            true => Some(SegmentEnd { point: segment.base, time: replay.state.time }),
            false => (replay.state.seq == proven).then(|| SegmentEnd::of(&replay.state)),
        };
        let mut pending = Vec::new();
        self.replay(replay, &mut reader, ending.last, |state, payload| {
            if state.seq == proven {
                durable = Some(SegmentEnd::of(state));
            } else if state.seq > proven {
                pending.push((state.seq, payload.to_vec()));
            }
        })?;
        let durable = durable.ok_or_else(|| {
            Error::corrupt(&segment.path, ending.at, format!("the commits up to seq {proven}, which were durable"))
        })?;
        if let Some((seal, _)) = &ending.seal {
            let stated = (seal.digest, seal.time);
            if stated != (replay.state.digest(), replay.state.time) {
                let expected = "a seal with the digest and time of the state that the log leads to";
                return Err(Error::corrupt(&segment.path, ending.at, expected));
            }
            return Ok(End { durable, pending: Vec::new(), torn: None, clean: true });
        }
        let mut torn = None;
        if verdict == Verdict::TornTail {
            torn = Some(torn_tail(segment, &mut reader, ending.at, report)?);
        }
        Ok(End { durable, pending, torn, clean: false })
    }

    /// What was torn behind a snapshot that was written before anything was written behind the end of the log: until there
    /// is a segment behind it, nothing has kept that.
    fn torn_behind(&self, segment: &Segment, end: Seq, report: &mut OpenReport) -> Result<Option<TornTail>> {
        let mut reader = SegmentReader::open(self.storage, &segment.path)?;
        match reader.read(None, |_| Ok(())) {
            Ok(ending) if ending.found == Found::Broken && ending.last == end => {
                torn_tail(segment, &mut reader, ending.at, report).map(Some)
            }
            Err(error) if is_io(&error) => Err(error),
            _ => Ok(None),
        }
    }

    /// Replays what comes before the damage, for looking. Where that cannot be replayed, the damage told is an earlier one.
    fn up_to<T>(&self, replay: &mut Replay, reader: &mut SegmentReader, last: Seq, damage: Error) -> Result<T> {
        self.replay(replay, reader, last, |_, _| ())?;
        Err(damage)
    }

    fn verdict(&self, segment: &Segment, ending: &Ending, witness: Seq) -> Result<Verdict> {
        if let Some((_, FrameKind::Continued)) = ending.seal {
            let expected = "a next segment, which the seal says there is: it is missing";
            return Err(Error::corrupt(&segment.path, ending.at, expected));
        }
        if ending.seal.is_some() && ending.found == Found::Nothing && witness <= ending.last {
            return Ok(Verdict::CleanEnd);
        }
        let row = judge(ending.found, ending.later, witness > ending.last);
        if row.verdict == Verdict::Corrupt {
            return Err(Error::corrupt(&segment.path, ending.at, row.why));
        }
        Ok(row.verdict)
    }

    /// Opens a segment whose base the replay has reached, or lies behind.
    fn enter(&self, replay: &mut Replay, segment: &Segment) -> Result<SegmentReader> {
        let reader = SegmentReader::open(self.storage, &segment.path)?;
        let (lineage, found) = (segment.header.lineage, replay.state.point());
        if segment.base.seq == found.seq && segment.base.digest != found.digest {
            let expected = format!("as base the point that the files before it lead to, {found}");
            return Err(Error::corrupt(&segment.path, 32, expected));
        }
        if replay.state.identity.lineage != lineage {
            replay.state.identity = Identity { lineage, parent: segment.header.parent };
            replay.ring = Ring::new(self.ring_bytes, replay.state.seq);
        }
        Ok(reader)
    }

    /// Applies the commits of a segment that the state does not have yet, up to `until`.
    fn replay(
        &self,
        replay: &mut Replay,
        reader: &mut SegmentReader,
        until: Seq,
        mut each: impl FnMut(&State, &[u8]),
    ) -> Result<Ending> {
        const REPORT_EVERY: u64 = 4_096;
        let last = self.before.map_or(Seq::new(u64::MAX), |before| Seq::new(before.get().saturating_sub(1)));
        let path: PathBuf = reader.path().to_owned();
        let watch = Watch::new(self.progress, Stage::ReadingLog, &path);
        let mut whole = Vec::new();
        reader.read(Some(until.min(last)), |frame| {
            if frame.seq <= replay.state.seq {
                return Ok(());
            }
            if let Err(wrong) = replay.state.apply(frame.seq, frame.payload) {
                replay.spoiled_by = Some(frame.seq);
                let at = frame.payload_at.saturating_add(wrong.at as u64);
                return Err(Error::corrupt(&path, at, wrong.expected));
            }
            whole.clear();
            whole.extend_from_slice(frame.header_bytes);
            whole.extend_from_slice(frame.payload);
            if replay.ring.push(frame.seq, &whole) {
                replay.ring.fit(replay.state.row_bytes());
            }
            replay.commits = replay.commits.saturating_add(1);
            replay.log_bytes = replay.log_bytes.saturating_add(whole.len() as u64);
            each(&replay.state, frame.payload);
            if replay.commits.is_multiple_of(REPORT_EVERY) {
                watch.report(replay.commits, None, frame.payload_at, None)?;
            }
            Ok(())
        })
    }
}

/// What the end of the log comes to.
struct End {
    durable: SegmentEnd,
    /// Payloads of the sound commits behind it.
    pending: Vec<(Seq, Vec<u8>)>,
    torn: Option<TornTail>,
    clean: bool,
}

fn torn_tail(segment: &Segment, reader: &mut SegmentReader, offset: u64, report: &mut OpenReport) -> Result<TornTail> {
    let bytes = reader.tail_bytes(offset)?;
    report.torn = Some(TornReport { file: segment.path.clone(), offset, bytes });
    Ok(TornTail { file: segment.path.clone(), stamp: segment.stamp, offset })
}

fn no_log_behind(info: &SnapshotInfo, line: &Line) -> Error {
    let expected = match &line.broken_by {
        Some(error) => format!("a log that goes on from this snapshot's {}, but {error}", info.point),
        None => format!("a log that goes on from this snapshot's {}: a log segment is missing", info.point),
    };
    Error::corrupt(&info.path, 0, expected)
}

fn nothing_to_begin_with(first: Option<&Segment>) -> Error {
    match first {
        Some(first) => {
            let base = first.header.base.unwrap_or(Point::empty(Lineage::NONE));
            Error::corrupt(&first.path, 32, format!("a snapshot, or a segment, that leads to {base}: it is missing"))
        }
        None => unreachable!("a directory without segments and snapshots is an empty store"),
    }
}
