//! The member `dictdb`, first in a JSON backup of ours and alone on the second line.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file::header::FORMAT_VERSION;
use crate::file::json::seal;
use crate::file::name::BackupKind;
use crate::file::source::Source;
use crate::history::{Digest, Lineage, Point, Seq, Timestamp};

/// How the file of ours begins; whatever else begins otherwise.
pub(crate) const OPENING: &str = "{\n    \"dictdb\": ";

/// A head is a few hundred bytes; what is longer is none.
const HEAD_BYTES_MAX: usize = 2_048;

/// What the member says, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) snapshot: bool,
    pub(crate) parent: Option<Point>,
    pub(crate) base: Option<Point>,
    pub(crate) end: Point,
    pub(crate) created: Timestamp,
    pub(crate) time: Timestamp,
    /// Tables of a snapshot, commits of a delta.
    pub(crate) groups: u64,
    /// Records of a snapshot; upserts and deletes of a delta.
    pub(crate) records: u64,
}

/// The member as it stands. Hexadecimal where JSON's numbers would not do.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHead {
    format: u16,
    kind: String,
    lineage: String,
    parent: Option<RawPoint>,
    base: Option<RawPoint>,
    seq: u64,
    digest: String,
    created: i64,
    time: i64,
    groups: u64,
    records: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPoint {
    lineage: String,
    seq: u64,
    digest: String,
}

impl RawPoint {
    fn of(point: Point) -> RawPoint {
        RawPoint { lineage: point.lineage.to_string(), seq: point.seq.get(), digest: point.digest.to_string() }
    }

    fn check(&self) -> Option<Point> {
        let lineage = Lineage::parse(&self.lineage).filter(|l| *l != Lineage::NONE)?;
        Some(Point { lineage, seq: Seq::new(self.seq), digest: Digest::parse(&self.digest)? })
    }
}

impl Head {
    pub(crate) fn kind(&self) -> BackupKind {
        if self.snapshot { BackupKind::Full } else { BackupKind::Delta }
    }

    pub(crate) fn raw(&self) -> RawHead {
        RawHead {
            format: FORMAT_VERSION,
            kind: if self.snapshot { "snapshot" } else { "delta" }.to_owned(),
            lineage: self.end.lineage.to_string(),
            parent: self.parent.map(RawPoint::of),
            base: self.base.map(RawPoint::of),
            seq: self.end.seq.get(),
            digest: self.end.digest.to_string(),
            created: self.created.as_micros(),
            time: self.time.as_micros(),
            groups: self.groups,
            records: self.records,
        }
    }

    /// Checks what stands in the member; `file` and `at` are for the message.
    pub(crate) fn check(raw: &RawHead, file: &std::path::Path, at: u64) -> Result<Head> {
        if raw.format != FORMAT_VERSION {
            return Err(Error::UnsupportedVersion {
                file: file.to_owned(),
                found: raw.format,
                supported: FORMAT_VERSION,
            });
        }
        let wrong = |expected: &str| Error::corrupt(file, at, expected);
        let snapshot = match raw.kind.as_str() {
            "snapshot" => true,
            "delta" => false,
            _ => return Err(wrong("kind \"snapshot\" or \"delta\" in member \"dictdb\"")),
        };
        let point = |raw: &Option<RawPoint>| match raw {
            None => Ok(None),
            Some(raw) => raw.check().map(Some).ok_or_else(|| wrong("32 hexadecimal digits for lineage and digest")),
        };
        let own = RawPoint { lineage: raw.lineage.clone(), seq: raw.seq, digest: raw.digest.clone() };
        let end = point(&Some(own))?.ok_or_else(|| wrong("a lineage"))?;
        let (parent, base) = (point(&raw.parent)?, point(&raw.base)?);
        if !snapshot && base.is_none() {
            return Err(wrong("the base that the delta joins onto"));
        }
        let (created, time) = (Timestamp::from_micros(raw.created), Timestamp::from_micros(raw.time));
        Ok(Head { snapshot, parent, base, end, created, time, groups: raw.groups, records: raw.records })
    }

    /// Reads the head from the start of a file; `None` where the file begins otherwise.
    pub(crate) fn read(source: &mut Source) -> Result<Option<Head>> {
        source.seek(0)?;
        let mut start = vec![0; HEAD_BYTES_MAX];
        let mut length = 0;
        while let Some(room) = start.get_mut(length..).filter(|room| !room.is_empty()) {
            match source.read_some(room)? {
                0 => break,
                read => length = length.saturating_add(read),
            }
        }
        start.truncate(length);
        // An editor may have changed the line ends. The checksum says so; here it would make a file of ours DictDB's.
        start.retain(|byte| *byte != b'\r');
        let Some(member) = start.strip_prefix(OPENING.as_bytes()) else { return Ok(None) };
        let line = member.split(|b| *b == b'\n').next().unwrap_or_default();
        let at = OPENING.len() as u64;
        let raw: RawHead =
            line.strip_suffix(b",").and_then(|json| serde_json::from_slice(json).ok()).ok_or_else(|| {
                Error::corrupt(source.path(), at, "the member \"dictdb\" of a backup on a line of its own")
            })?;
        let checked = Head::check(&raw, source.path(), at);
        if let Err(Error::UnsupportedVersion { .. }) = checked {
            // A damaged version looks like a later one unless the checksum is asked first.
            seal::verify(source)?;
        }
        checked.map(Some)
    }
}
