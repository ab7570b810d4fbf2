//! Backups in DictDB's JSON: its documents, with what it does not have in extra members that it ignores.
//!
//! A file of ours begins with a member `dictdb` on a line of its own and ends with a member `dictdb_seal`, whose exact
//! text follows from the bytes before it. A file without the former is one of DictDB 1.11 and may hold DictDB's own
//! members only.

use std::path::Path;

use crate::error::{Error, Result};
use crate::file::name::{BackupFormat, BackupKind};
use crate::file::{Summary, SummaryHistory, Trust};
use crate::storage::Storage;

mod definition;
pub(crate) mod head;
mod read;
mod record;
pub(crate) mod seal;
mod stranger;
mod text;
mod write;

pub(crate) use read::{apply_delta, commit_dictdb_delta, read_full};
pub(crate) use stranger::verify_dictdb;
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

fn wrong_kind(path: &Path, found: BackupKind, wanted: BackupKind) -> Error {
    let name = |kind| match kind {
        BackupKind::Full => "full backup",
        BackupKind::Delta => "delta backup",
    };
    Error::WrongKind { file: path.to_owned(), wanted: name(wanted), found: name(found) }
}
