//! Segments being written.
//!
//! A segment is made under a temporary name, with its header and its first stretch of zeros, synced, and only then
//! given its name: from then on a commit's sync does not have to change the file's size. It grows by further stretches.
//!
//! The first segment after an open is made by the first write, so that opening a store changes nothing. What each
//! segment begins after, its base, is the word on how far the one before it reaches: see
//! [`begin_segment`](LogWriter::begin_segment) for the order of steps and what a crash leaves between them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3Default;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::file::header::{FileKind, Header};
use crate::file::name::Stamp;
use crate::file::seal::{SEAL_BYTES, Seal};
use crate::file::sink::{Existing, create_temp, publish};
use crate::file::store_name::{StoreFile, StoreName};
use crate::frame::FrameKind;
use crate::history::{Point, Timestamp};
use crate::log::group::{Goal, Sink};
use crate::log::place::Place;
use crate::log::reader::SegmentReader;
use crate::state::{Identity, State};
use crate::storage::{PAGE_BYTES, Storage, WriteFile};

/// Gives out the stamps of a store's files: each past all before it.
#[derive(Debug)]
pub(crate) struct Stamps {
    newest: Mutex<Option<Stamp>>,
}

impl Stamps {
    /// Behind the newest name of the directory.
    pub(crate) fn after(newest: Option<Stamp>) -> Stamps {
        Stamps { newest: Mutex::new(newest) }
    }

    pub(crate) fn next(&self, wall: Timestamp) -> Result<Stamp> {
        let exhausted = || Error::Exhausted { what: "the stamps of a store's file names".to_owned() };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::next(wall, *newest).ok_or_else(exhausted)?;
        if i64::try_from(stamp.get()).is_err() {
            return Err(exhausted());
        }
        *newest = Some(stamp);
        Ok(stamp)
    }
}

/// Where a segment ends, or the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEnd {
    pub(crate) point: Point,
    /// Of the newest commit there.
    pub(crate) time: Timestamp,
}

impl SegmentEnd {
    /// Behind the newest commit of `state`.
    pub(crate) fn of(state: &State) -> SegmentEnd {
        SegmentEnd { point: state.point(), time: state.time }
    }
}

/// Bytes that recovery found behind the end of the log, and that nobody was told were durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TornTail {
    /// The segment.
    pub(crate) file: PathBuf,
    pub(crate) stamp: Stamp,
    /// Where in it.
    pub(crate) offset: u64,
}

/// The end of the log: where frames go.
#[derive(Debug)]
pub(crate) struct LogWriter {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) place: Place,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stamps: Arc<Stamps>,
    pub(crate) identity: Identity,
    pub(crate) preallocation: u32,
    /// Where the next segment begins.
    pub(crate) base: SegmentEnd,
    /// To be kept aside before the next segment closes it off.
    pub(crate) torn: Option<TornTail>,
    /// Whether the log was found closed, or there was none.
    pub(crate) sealed: bool,
    /// Whether no file knows of this history yet.
    pub(crate) is_new: bool,
    pub(crate) active: Option<Active>,
}

/// Bytes that are sent on their way to the disk at once. (Many at a time would keep a core busy for long.)
const WAY_BYTES: u64 = 256 << 10;

/// The segment that is being written.
pub(crate) struct Active {
    file: Box<dyn WriteFile>,
    path: PathBuf,
    base: Point,
    /// Where the next frame goes.
    at: u64,
    /// How long the file is, but for frames that came without their zeros: [`sync`](Active::sync) adds those.
    allocated: u64,
    /// What it grows by.
    step: u64,
    content: Xxh3Default,
    /// Whether something was written since the last sync.
    dirty: bool,
    /// Up to where the system was told that it will be synced.
    on_its_way: u64,
    /// Set once it is full.
    end: Option<SegmentEnd>,
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Active({}, {} of {} bytes)", self.path.display(), self.at, self.allocated)
    }
}

impl Sink for LogWriter {
    type Mark = SegmentEnd;
    type Error = Error;

    /// A mark ends the segment behind the frame before it.
    fn write(&mut self, buffers: &[Vec<u8>], marks: Vec<(usize, SegmentEnd)>, _last: u64, goal: Goal) -> Result<()> {
        let mut rest: VecDeque<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
        let mut from = 0_usize;
        for (at, end) in marks {
            let before = take(&mut rest, at.saturating_sub(from));
            self.put(&before, goal)?;
            if let Some(active) = &mut self.active {
                active.end = Some(end);
            }
            self.base = end;
            from = at;
        }
        self.put(rest.make_contiguous(), goal)
    }

    fn sync(&mut self) -> Result<()> {
        self.active.as_mut().map_or(Ok(()), Active::sync)
    }

    fn panicked() -> Error {
        Error::Panicked
    }
}

impl LogWriter {
    fn put(&mut self, frames: &[&[u8]], goal: Goal) -> Result<()> {
        if bytes_of(frames) == 0 {
            return Ok(());
        }
        if self.active.as_ref().is_none_or(|active| active.end.is_some()) {
            return self.begin_segment(frames);
        }
        match &mut self.active {
            Some(active) => active.append(frames, goal),
            None => unreachable!("a segment was begun"),
        }
    }

    /// Makes the next segment, with its first frames, and ends the one before it.
    ///
    /// The frames are there before the name is: behind an unclean end they are the commits that were found behind the
    /// base, which from then on nothing else holds.
    ///
    /// 1. A torn tail that recovery found is copied to a file of its own. A crash leaves the copy, or part of it under
    ///    a temporary name; the next open finds the same tail again.
    /// 2. The old segment is synced up to its end. A crash: as before, the log ends in the old segment.
    /// 3. The new one is written under a temporary name and synced. A crash leaves that name, which nobody reads.
    /// 4. It is renamed and the directory synced. From here on its base says how far the old segment reaches: what may
    ///    lie behind that is dead. A crash in between leaves it there or not, both whole.
    /// 5. The old segment gets its seal, which promises that there is a next one. A crash leaves it open; its end is
    ///    known all the same. Nothing of it is synced: nothing depends on it.
    fn begin_segment(&mut self, frames: &[&[u8]]) -> Result<()> {
        self.place.check()?;
        self.keep_torn_tail()?;
        if let Some(old) = &mut self.active {
            old.sync()?;
        }
        let stamp = self.stamps.next(self.clock.now())?;
        let name = StoreName { stamp, kind: StoreFile::Log }.file_name();
        let base = self.base.point;
        let Identity { lineage, parent } = self.identity;
        let header = Header {
            kind: FileKind::Log,
            lineage,
            parent,
            base: (!base.is_empty()).then_some(base),
            created: Timestamp::from_micros(i64::try_from(stamp.get()).unwrap_or(i64::MAX)),
            preallocation: self.preallocation,
        };
        let dir = self.place.dir().to_owned();
        let path = dir.join(&name);
        let (temp, file) = create_temp(&*self.storage, &dir, &name)?;
        let made = Active::make(file, path, &header, base, frames).and_then(|active| {
            self.storage
                .rename_new(&temp, &active.path)
                .map_err(Error::io("rename a temporary file to", &active.path))?;
            Ok(active)
        });
        let active = made.inspect_err(|_| {
            // The first error is the one to tell; the name says that the file is temporary in any case.
            let _ = self.storage.remove(&temp);
        })?;
        self.storage.sync_dir(&dir).map_err(Error::io("sync directory", &dir))?;
        if let Some(mut old) = self.active.replace(active)
            && let Some(end) = old.end
        {
            old.seal(FrameKind::Continued, end)?;
            old.trim();
        }
        Ok(())
    }

    /// Ends the seal's word, before the first commit behind it can be seen: from here on the log is open, and a crash
    /// begins a new history. Otherwise a commit that was shown, or is in a backup, and then lost would leave no trace,
    /// and another one would get its seq in the same history. (A new history cannot be gone on with before a file names it.)
    pub(crate) fn reopen(&mut self) -> Result<()> {
        if !self.sealed || self.active.is_some() || self.is_new {
            return Ok(());
        }
        self.begin_segment(&[])
    }

    fn keep_torn_tail(&mut self) -> Result<()> {
        let Some(torn) = self.torn.take() else { return Ok(()) };
        let path = self.place.dir().join(StoreName { stamp: torn.stamp, kind: StoreFile::Torn }.file_name());
        let mut segment = SegmentReader::open(&*self.storage, &torn.file)?;
        let kept = publish(&*self.storage, &path, Existing::Refuse, |sink| {
            segment.copy_tail(torn.offset, |bytes| sink.put(bytes))
        });
        match kept {
            // Kept by a process that got no further.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            kept => kept.map(drop),
        }
    }

    /// Ends the log with a seal: the next open finds that nothing is missing, and goes on with this history. Where nothing
    /// was written behind a seal, that one stands. Everything must have been synced before; `end` is where the log ends.
    ///
    /// The seal stands in a segment of its own, whose base bears witness to every frame before it. Behind the frames
    /// themselves it could be cut off together with them, to a length that an open segment may have.
    ///
    /// 1. That segment is begun: see [`begin_segment`](Self::begin_segment). A crash leaves the log open.
    /// 2. The seal is written and synced. A crash before leaves the log open, or its seal torn.
    /// 3. The file is cut off behind it. A crash leaves zeros there.
    pub(crate) fn close(mut self, end: SegmentEnd) -> Result<()> {
        match &mut self.active {
            Some(active) => {
                active.end = Some(end);
                self.base = end;
            }
            None if self.sealed => return Ok(()),
            // A new history without a commit of its own begins where the old one ended.
            None => {}
        }
        self.begin_segment(&[])?;
        let Some(active) = &mut self.active else { return Ok(()) };
        active.seal(FrameKind::Seal, end)?;
        active.sync()?;
        active.trim();
        Ok(())
    }
}

impl Active {
    fn make(file: Box<dyn WriteFile>, path: PathBuf, header: &Header, base: Point, frames: &[&[u8]]) -> Result<Active> {
        let content = Xxh3Default::new();
        let step = u64::from(header.preallocation).max(1);
        let mut active =
            Active { file, path, base, at: 0, allocated: 0, step, content, dirty: false, on_its_way: 0, end: None };
        active.write(&header.encode())?;
        active.write_each(frames)?;
        active.fill_step()?;
        active.file.sync().map_err(Error::io("sync", &active.path))?;
        active.dirty = false;
        active.on_its_way = active.at;
        Ok(active)
    }

    /// Writes frames; where they need more than is allocated, that first, synced, so that no frame lies in bytes whose
    /// place in the file a crash could take away. A step of frames or more at once come without, as do those that no sync
    /// follows, and all behind them up to the next sync: that one makes the place of all of them, and writes the zeros
    /// behind them first.
    fn append(&mut self, frames: &[&[u8]], goal: Goal) -> Result<()> {
        let bytes = bytes_of(frames);
        let end = self.at.saturating_add(bytes);
        if end <= self.allocated || self.at > self.allocated || bytes >= self.step || goal == Goal::Written {
            return self.write_each(frames);
        }
        let target = self.whole_steps(end);
        zeros(&mut *self.file, &self.path, self.allocated, target)?;
        self.allocated = target;
        self.dirty = true;
        self.sync()?;
        self.write_each(frames)
    }

    /// Zeros up to a whole step.
    fn fill_step(&mut self) -> Result<()> {
        if self.at > self.allocated {
            let target = self.whole_steps(self.at);
            zeros(&mut *self.file, &self.path, self.at, target)?;
            self.allocated = target;
        }
        Ok(())
    }

    fn whole_steps(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.step).saturating_mul(self.step)
    }

    fn write_each(&mut self, frames: &[&[u8]]) -> Result<()> {
        frames.iter().try_for_each(|bytes| self.write(bytes))?;
        // Perhaps nobody asks for a sync before the segment is full, and writers would wait while the disk takes in all of it.
        let whole = self.at & !(PAGE_BYTES - 1);
        if whole.saturating_sub(self.on_its_way) >= WAY_BYTES {
            self.file.will_sync(self.on_its_way..whole);
            self.on_its_way = whole;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.dirty = true;
        self.file.write_all_at(bytes, self.at).map_err(Error::io("append to", &self.path))?;
        self.content.update(bytes);
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if self.dirty {
            self.fill_step()?;
            self.file.sync_data().map_err(Error::io("sync", &self.path))?;
            self.dirty = false;
            self.on_its_way = self.at;
        }
        Ok(())
    }

    fn seal(&mut self, kind: FrameKind, end: SegmentEnd) -> Result<()> {
        let Point { lineage, seq, digest } = end.point;
        let frames = seq.since(self.base.seq);
        let seal = Seal {
            seq,
            digest,
            time: end.time,
            frames,
            groups: frames,
            records: 0,
            file_bytes: self.at.saturating_add(SEAL_BYTES as u64),
            content: self.content.digest128(),
        };
        self.write(&seal.encode_as(kind, lineage, seq))
    }

    /// Gives back what was preallocated and not used. Zeros left there are as good: a failure is told to nobody, least of all
    /// from here, where a subscriber that writes into this store would wait for itself.
    fn trim(&mut self) {
        let _ = self.file.set_len(self.at);
    }
}

fn bytes_of(frames: &[&[u8]]) -> u64 {
    frames.iter().fold(0, |bytes, one| bytes.saturating_add(one.len() as u64))
}

/// Takes the first so many bytes off `frames`.
fn take<'b>(frames: &mut VecDeque<&'b [u8]>, mut bytes: usize) -> Vec<&'b [u8]> {
    let mut taken = Vec::new();
    while let Some(first) = frames.front_mut()
        && bytes > 0
    {
        let (now, rest) = first.split_at(bytes.min(first.len()));
        bytes = bytes.saturating_sub(now.len());
        taken.push(now);
        *first = rest;
        if rest.is_empty() {
            frames.pop_front();
        }
    }
    taken
}

/// Writes zeros to `[from, to)`: not a hole, whose place on the disk would still have to be found by a later sync.
fn zeros(file: &mut dyn WriteFile, path: &Path, from: u64, to: u64) -> Result<()> {
    file.write_zeros(from..to).map_err(Error::io("preallocate in", path))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::ops::Range;

    use super::*;
    use crate::history::Lineage;

    /// What became of a file's bytes.
    #[derive(Default)]
    struct Told {
        written: u64,
        on_their_way: u64,
        hints: usize,
    }

    struct Fake(Arc<Mutex<Told>>);

    impl io::Write for Fake {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl WriteFile for Fake {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
            let mut told = self.0.lock().unwrap();
            told.written = told.written.max(offset + bytes.len() as u64);
            Ok(bytes.len())
        }

        fn set_len(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn will_sync(&mut self, bytes: Range<u64>) {
            let mut told = self.0.lock().unwrap();
            assert!(bytes.start < bytes.end && bytes.end <= told.written, "{bytes:?} of {}", told.written);
            assert!(bytes.start >= told.on_their_way, "{bytes:?} again, after {}", told.on_their_way);
            (told.on_their_way, told.hints) = (bytes.end, told.hints + 1);
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Otherwise the disk would have all of it to do when the sync comes, and writers would wait.
    #[test]
    fn frames_that_no_sync_follows_are_sent_on_their_way_and_each_byte_once() {
        let told = Arc::new(Mutex::new(Told::default()));
        let file = Box::new(Fake(Arc::clone(&told)));
        let header = Header {
            kind: FileKind::Log,
            lineage: Lineage::NONE,
            parent: None,
            base: None,
            created: Timestamp::from_micros(0),
            preallocation: 1 << 20,
        };
        let first = vec![1; 300_000];
        let mut active = Active::make(file, "log".into(), &header, Point::empty(Lineage::NONE), &[&first]).unwrap();
        for round in 0..5 {
            let (before, hints) = (active.at, told.lock().unwrap().hints);
            for _ in 0..40 {
                active.append(&[&first[..70_001]], Goal::Written).unwrap();
                let left = active.at - told.lock().unwrap().on_their_way.max(before);
                assert!(left < WAY_BYTES + 70_001 + PAGE_BYTES, "{left} bytes in round {round}");
            }
            assert!(told.lock().unwrap().hints >= hints + 8, "in round {round}");
            active.sync().unwrap();
        }
    }

    /// A header has no room for more.
    #[test]
    fn the_last_stamp_that_a_header_can_hold_is_given_out_and_then_none() {
        let stamps = Stamps::after(Some(Stamp::new(i64::MAX as u64 - 1)));
        assert_eq!(stamps.next(Timestamp::from_micros(0)).unwrap().get(), i64::MAX as u64);
        assert!(matches!(stamps.next(Timestamp::from_micros(0)), Err(Error::Exhausted { .. })));
        let behind = Stamps::after(Some(Stamp::new(u64::MAX)));
        assert!(matches!(behind.next(Timestamp::from_micros(0)), Err(Error::Exhausted { .. })));
    }
}
