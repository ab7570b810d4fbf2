//! Backups in DictDB's JSON: its documents, with what it does not have in extra members that it ignores.
//!
//! A file of ours begins with a member `dictdb` on a line of its own and ends with a member `dictdb_seal`, whose exact
//! text follows from the bytes before it. A file without the former is one of DictDB 1.11 and may hold DictDB's own
//! members only.

use std::path::Path;

use crate::error::{Error, Result};
use crate::file::name::{BackupFormat, BackupKind};
use crate::file::{Summary, SummaryHistory};
use crate::storage::Storage;

mod head;
mod read;
mod seal;
mod text;
mod write;

pub(crate) use read::{apply_delta, commit_dictdb_delta, read_full};
pub(crate) use write::{write_delta, write_full};

use head::Head;

/// Reads the first and the last line.
pub(crate) fn inspect(storage: &dyn Storage, path: &Path, expected: BackupKind) -> Result<Summary> {
    let mut source = crate::file::source::Source::open(storage, path)?;
    let head = Head::read(&mut source)?;
    let bytes = source.bytes();
    let Some(head) = head else {
        return Ok(Summary { kind: expected, format: BackupFormat::Json, history: None, bytes });
    };
    seal::read(&mut source)?;
    let kind = head.kind();
    let (parent, base) = (head.parent, head.base);
    let history =
        SummaryHistory { parent, base, end: head.end, created: head.created, time: head.time, records: head.records };
    Ok(Summary { kind, format: BackupFormat::Json, history: Some(history), bytes })
}

fn wrong_kind(path: &Path, found: BackupKind, wanted: BackupKind) -> Error {
    let name = |kind| match kind {
        BackupKind::Full => "full backup",
        BackupKind::Delta => "delta backup",
    };
    Error::WrongKind { file: path.to_owned(), wanted: name(wanted), found: name(found) }
}
