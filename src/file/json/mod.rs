//! Backups in DictDB's JSON: its documents, with what it does not have in extra members that it ignores.
//!
//! A file of ours begins with a member `dictdb` on a line of its own and ends with a member `dictdb_seal`, whose exact
//! text follows from the bytes before it. A file without the former is one of DictDB 1.11 and may hold DictDB's own
//! members only.

use std::fmt;
use std::path::Path;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use self::text::Context;
use crate::error::{Error, Result};
use crate::file::name::{BackupFormat, BackupKind};
use crate::file::{Summary, SummaryHistory, Trust};
use crate::storage::Storage;

mod definition;
pub(crate) mod head;
mod read;
pub(crate) mod seal;
mod text;
mod write;

pub(crate) use read::{apply_delta, commit_dictdb_delta, read_full};
pub(crate) use write::{write_delta, write_full};

use head::Head;

/// Reads the first and the last line.
pub(crate) fn inspect(storage: &dyn Storage, path: &Path, expected: BackupKind, trust: Trust) -> Result<Summary> {
    let mut source = crate::file::source::Source::open(storage, path)?;
    let head = Head::read(&mut source)?;
    let bytes = source.bytes();
    let Some(head) = head else {
        if bytes <= head::OPENING.len() as u64 || seal::ends_with_one(&mut source)? {
            // Taken for DictDB's it would be one of another history.
            let expected = "a backup's member \"dictdb\", or DictDB 1.11's \"tables\"";
            return Err(crate::error::Error::corrupt(path, 0, expected));
        }
        return Ok(Summary { kind: expected, format: BackupFormat::Json, history: None, bytes });
    };
    if !trust.ignore_checksum {
        seal::read(&mut source)?;
    }
    let kind = head.kind();
    let (parent, base) = (head.parent, head.base);
    let history =
        SummaryHistory { parent, base, end: head.end, created: head.created, time: head.time, records: head.records };
    Ok(Summary { kind, format: BackupFormat::Json, history: Some(history), bytes })
}

/// Compares a file of ours with its checksum, reading all of it.
pub(crate) fn verify(storage: &dyn Storage, path: &Path) -> Result<()> {
    seal::verify(&mut crate::file::source::Source::open(storage, path)?)
}

/// Refuses a file without our head that has members of ours, or is no JSON, reading all of it: it is one of ours whose
/// beginning is damaged or was written anew, and not DictDB 1.11's.
pub(crate) fn verify_dictdb(storage: &dyn Storage, path: &Path) -> Result<()> {
    text::parse(crate::file::source::Source::open(storage, path)?, |context| Members { context })
}

/// The members of a document, but for ours.
struct Members {
    context: Rc<Context>,
}

impl<'de> DeserializeSeed<'de> for Members {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document of DictDB")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name.starts_with("dictdb") {
                let expected =
                    "DictDB 1.11's members alone, or the member \"dictdb\" as it was written on the second line";
                return Err(self.context.expected(expected));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

fn wrong_kind(path: &Path, found: BackupKind, wanted: BackupKind) -> Error {
    let name = |kind| match kind {
        BackupKind::Full => "full backup",
        BackupKind::Delta => "delta backup",
    };
    Error::WrongKind { file: path.to_owned(), wanted: name(wanted), found: name(found) }
}
