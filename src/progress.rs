//! Progress of long work, and a way to stop it.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use crate::error::{Error, Result};

/// How far a backup or a restore has come. Handed to the callback at least once a block of records.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// What is being done.
    pub stage: Stage,
    /// The file that is being written (its final name) or read.
    pub file: &'a Path,
    /// Records (puts and deletes in a delta) done in this file.
    pub records_done: u64,
    /// All of them, where known beforehand.
    pub records_total: Option<u64>,
    /// Bytes of the file written or read.
    pub bytes_done: u64,
    /// All of them, where known beforehand.
    pub bytes_total: Option<u64>,
}

/// What a [`Progress`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// A full backup is being written.
    WritingFull,
    /// A delta backup is being written.
    WritingDelta,
    /// A full backup is being read.
    ReadingFull,
    /// A delta backup is being read and applied.
    ReadingDelta,
    /// A store's log is being replayed: commits take the place of records.
    ReadingLog,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::WritingFull => "writing full backup",
            Stage::WritingDelta => "writing delta backup",
            Stage::ReadingFull => "reading full backup",
            Stage::ReadingDelta => "reading delta backup",
            Stage::ReadingLog => "replaying log segment",
        })
    }
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |total: Option<u64>| total.map_or(String::new(), |total| format!(" of {total}"));
        let name = self.file.file_name().unwrap_or_default().display();
        let (records, bytes) = (self.records_done, self.bytes_done);
        let (records_of, bytes_of) = (of(self.records_total), of(self.bytes_total));
        let what = if self.stage == Stage::ReadingLog { "commits" } else { "records" };
        write!(f, "{} {name}: {records}{records_of} {what}, {bytes}{bytes_of} bytes", self.stage)
    }
}

/// What a progress callback is: it says whether to go on.
pub(crate) type ProgressFn = dyn Fn(&Progress<'_>) -> ControlFlow<()> + Send + Sync;

/// Hands the progress of one file to the callback, where there is one.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    callback: Option<&'a ProgressFn>,
    stage: Stage,
    file: &'a Path,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(callback: Option<&'a ProgressFn>, stage: Stage, file: &'a Path) -> Watch<'a> {
        Watch { callback, stage, file }
    }

    /// Fails with [`Error::Cancelled`] when the callback says so.
    pub(crate) fn report(
        &self,
        records_done: u64,
        records_total: Option<u64>,
        bytes_done: u64,
        bytes_total: Option<u64>,
    ) -> Result<()> {
        let Some(callback) = self.callback else { return Ok(()) };
        let (stage, file) = (self.stage, self.file);
        let progress = Progress { stage, file, records_done, records_total, bytes_done, bytes_total };
        match callback(&progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}
