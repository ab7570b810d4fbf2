//! A segment being read: its frames in order, up to the place where the sound ones end, and what is found there.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};
use crate::file::header::{FileKind, HEADER_BYTES, Header};
use crate::file::seal::Seal;
use crate::file::source::Source;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::history::{Point, Seq};
use crate::log::verdict::{self, Found, Later};
use crate::storage::Storage;

/// A log segment whose header passed its checks.
pub(crate) struct SegmentReader {
    source: Source,
    pub(crate) header: Header,
}

/// A commit's frame, its checksums found to fit.
pub(crate) struct CommitFrame<'a> {
    pub(crate) seq: Seq,
    pub(crate) payload: &'a [u8],
    pub(crate) header_bytes: &'a [u8; FRAME_HEADER_BYTES],
    /// Where the payload begins in the file.
    pub(crate) payload_at: u64,
}

/// Where and how a segment's sound frames end.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// The offset behind the last sound frame.
    pub(crate) at: u64,
    /// The last sound commit; the segment's base where it has none.
    pub(crate) last: Seq,
    /// The highest seq that a frame of this segment says was durable; its base at least.
    pub(crate) proven: Seq,
    pub(crate) found: Found,
    pub(crate) later: Later,
    /// The seal, and whether the log goes on in a next segment.
    pub(crate) seal: Option<(Seal, FrameKind)>,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Commits read.
    pub(crate) frames: u64,
}

impl SegmentReader {
    pub(crate) fn open(storage: &dyn Storage, path: &Path) -> Result<SegmentReader> {
        let mut source = Source::open(storage, path)?;
        let bytes: [u8; HEADER_BYTES] = source.array("a header of 128 bytes")?;
        let header = Header::parse(&bytes, path)?;
        if header.kind != FileKind::Log {
            let file = path.to_owned();
            return Err(Error::WrongKind { file, wanted: FileKind::Log.name(), found: header.kind.name() });
        }
        Ok(SegmentReader { source, header })
    }

    pub(crate) fn path(&self) -> &Path {
        self.source.path()
    }

    /// The point that the first commit comes after.
    pub(crate) fn base(&self) -> Point {
        self.header.base.unwrap_or(Point::empty(self.header.lineage))
    }

    /// Hands the commits up to `until` to `each`, in order, and says where the sound ones end; where `until` is given
    /// and reached, that is there. Whatever is not a sound frame in its place ends the reading and is no error here.
    pub(crate) fn read(
        &mut self,
        until: Option<Seq>,
        mut each: impl FnMut(CommitFrame<'_>) -> Result<()>,
    ) -> Result<Ending> {
        let lineage = self.header.lineage;
        self.source.seek(0)?;
        let head: [u8; HEADER_BYTES] = self.source.array("a header of 128 bytes")?;
        let mut content = Xxh3Default::new();
        content.update(&head);
        let base = self.base().seq;
        let mut ending = Ending {
            at: self.source.offset(),
            last: base,
            proven: base,
            found: Found::Nothing,
            later: Later::None,
            seal: None,
            bytes: self.source.bytes(),
            frames: 0,
        };
        let preallocation = u64::from(self.header.preallocation);
        let whole_steps = ending.bytes.checked_rem(preallocation).map_or(0, |rest| ending.bytes.saturating_sub(rest));
        // The first commit that needs more than the whole steps of preallocation that the file has.
        let mut beyond: Option<Seq> = None;
        let mut payload = Vec::new();
        loop {
            if until.is_some_and(|until| ending.last >= until) {
                return Ok(ending);
            }
            if self.source.remaining() < FRAME_HEADER_BYTES as u64 {
                ending.found = if self.is_zero_to_end()? { Found::Nothing } else { Found::Broken };
                break;
            }
            let bytes: [u8; FRAME_HEADER_BYTES] = self.source.array("a frame header")?;
            let Ok(header) = FrameHeader::parse(&bytes, lineage) else {
                let nothing = bytes == [0; FRAME_HEADER_BYTES] && self.is_zero_to_end()?;
                ending.found = if nothing { Found::Nothing } else { Found::Broken };
                break;
            };
            let in_place = match header.kind {
                FrameKind::Commit => Some(header.seq) == ending.last.next() && header.synced < header.seq,
                FrameKind::Seal | FrameKind::Continued => header.seq == ending.last && header.synced == header.seq,
                FrameKind::Table | FrameKind::Rows | FrameKind::CompressedRows => false,
            };
            if !in_place || self.source.remaining() < header.payload_bytes as u64 {
                ending.found = Found::Broken;
                break;
            }
            self.source.bytes_into(&mut payload, header.payload_bytes, "a frame's payload")?;
            if !header.fits(&payload, lineage) {
                ending.found = Found::Broken;
                break;
            }
            ending.proven = ending.proven.max(header.synced);
            if header.kind != FrameKind::Commit {
                self.end_at_seal(&header, &payload, content.digest128(), &mut ending)?;
                return Ok(ending);
            }
            let payload_at = ending.at.saturating_add(FRAME_HEADER_BYTES as u64);
            each(CommitFrame { seq: header.seq, payload: &payload, header_bytes: &bytes, payload_at })?;
            content.update(&bytes);
            content.update(&payload);
            ending.at = self.source.offset();
            ending.last = header.seq;
            ending.frames = ending.frames.saturating_add(1);
            if ending.at > whole_steps {
                beyond = beyond.or(Some(header.seq));
            }
        }
        if ending.found == Found::Broken {
            let synced_max = self.search_from(ending.at)?;
            let missing = ending.last.next().unwrap_or(ending.last);
            ending.later = verdict::later(missing, synced_max);
            ending.proven = ending.proven.max(synced_max.unwrap_or_default().min(ending.last));
        }
        // An open segment has been as long as its preallocation since before its first frame, and grows by whole steps
        // that are synced before or with the frames in them.
        if ending.bytes < preallocation || beyond.is_some_and(|seq| seq <= ending.proven) {
            ending.found = Found::TooShort;
        }
        Ok(ending)
    }

    fn end_at_seal(&mut self, header: &FrameHeader, payload: &[u8], content: u128, ending: &mut Ending) -> Result<()> {
        let sealed_at = ending.at;
        let seal = Seal::decode(header, payload).filter(|seal| {
            let frames = ending.last.since(self.base().seq);
            let counted = (seal.frames, seal.groups, seal.records) == (frames, frames, 0);
            counted && seal.file_bytes == self.source.offset() && seal.content == content
        });
        let Some(seal) = seal else {
            let expected = "a seal whose counts and hash fit the segment";
            return Err(Error::corrupt(self.source.path(), sealed_at, expected));
        };
        ending.at = self.source.offset();
        ending.found = if self.is_zero_to_end()? { Found::Nothing } else { Found::BehindSeal };
        ending.seal = Some((seal, header.kind));
        Ok(())
    }

    /// Whether all bytes from here to the end are zero.
    fn is_zero_to_end(&mut self) -> Result<bool> {
        let mut buffer = vec![0; SEARCH_BYTES];
        loop {
            let read = self.source.read_some(&mut buffer)?;
            match buffer.get(..read) {
                None | Some([]) => return Ok(true),
                Some(bytes) if bytes.iter().all(|byte| *byte == 0) => {}
                Some(_) => return Ok(false),
            }
        }
    }

    /// The highest `synced` in any sound frame header from `at` on, wherever it begins.
    ///
    /// Bytes of a record that look like a frame of this log do no harm, nor do those of a file of this log's directory or
    /// its backups that was removed, which a crash may show there: what was made before the missing commit was durable
    /// cannot say that it is.
    fn search_from(&mut self, at: u64) -> Result<Option<Seq>> {
        const KEEP: usize = FRAME_HEADER_BYTES - 1;
        let lineage = self.header.lineage;
        self.source.seek(at)?;
        let mut window = vec![0; SEARCH_BYTES];
        let mut held = 0_usize;
        let mut synced_max = None;
        loop {
            let read = self.source.read_some(window.get_mut(held..).unwrap_or_default())?;
            if read == 0 {
                return Ok(synced_max);
            }
            held = held.saturating_add(read);
            let bytes = window.get(..held).unwrap_or_default();
            for candidate in bytes.windows(FRAME_HEADER_BYTES) {
                let [kind, 0, 0, 0, ..] = candidate else { continue };
                if *kind == 0 {
                    continue;
                }
                if let Some(header) = candidate.first_chunk().and_then(|c| FrameHeader::parse(c, lineage).ok()) {
                    synced_max = synced_max.max(Some(header.synced));
                }
            }
            let kept = held.min(KEEP);
            window.copy_within(held.saturating_sub(kept)..held, 0);
            held = kept;
        }
    }

    /// Copies the bytes from `at` to the end, without the zeros that end them, to `out`.
    pub(crate) fn copy_tail(&mut self, at: u64, mut out: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut left = self.tail_bytes(at)?;
        self.source.seek(at)?;
        let mut buffer = vec![0; SEARCH_BYTES];
        while left > 0 {
            let read = self.source.read_some(&mut buffer)?;
            let take = usize::try_from(left).unwrap_or(read).min(read);
            if take == 0 {
                return Ok(());
            }
            out(buffer.get(..take).unwrap_or_default())?;
            left = left.saturating_sub(take as u64);
        }
        Ok(())
    }

    /// How many bytes stand behind `at`, not counting the zeros that end them.
    pub(crate) fn tail_bytes(&mut self, at: u64) -> Result<u64> {
        self.source.seek(at.min(self.source.bytes()))?;
        let mut buffer = vec![0; SEARCH_BYTES];
        let (mut seen, mut end) = (0_u64, 0_u64);
        loop {
            let read = self.source.read_some(&mut buffer)?;
            if read == 0 {
                return Ok(end);
            }
            let bytes = buffer.get(..read).unwrap_or_default();
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                end = seen.saturating_add(last as u64).saturating_add(1);
            }
            seen = seen.saturating_add(read as u64);
        }
    }
}

/// Bytes read at a time where frames are not.
const SEARCH_BYTES: usize = 64 << 10;

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path: PathBuf = self.path().to_owned();
        write!(f, "SegmentReader({}, after {})", path.display(), self.base())
    }
}
