//! What a backup directory holds. Names and the files' own words say it all; there is no manifest to lose.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file::name::{self, BackupFormat, BackupKind, BackupName, Stamp};
use crate::file::{self, Summary, SummaryHistory, Trust};
use crate::history::{Lineage, Point, Timestamp};
use crate::storage::{DiskStorage, Storage};
use crate::store;

/// One file with a backup's name.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) name: BackupName,
    /// What it says of itself; or what is wrong with its beginning, its end or its name.
    pub(crate) found: Result<Summary>,
}

/// A directory's backups in the order in which they were published: stamps rise past every name already there, so
/// their order holds whatever the clock did.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) entries: Vec<Entry>,
    /// Full backups that DictDB 1.11 wrote as pickles, in order: they cannot be read here, nor what goes on from one.
    pub(crate) pickles: Vec<(Stamp, PathBuf)>,
}

/// A directory by its names.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Those of backups, in order.
    pub(crate) names: Vec<BackupName>,
    /// The newest stamp of a pickle.
    pub(crate) pickle: Option<Stamp>,
}

impl Listing {
    /// Refuses the directory of a store: somebody may have made one there since.
    pub(crate) fn read(storage: &dyn Storage, dir: &Path) -> Result<Listing> {
        let files = list(storage, dir)?;
        if files.iter().any(|name| store::is_of_a_store(name)) {
            return Err(Error::StoreDirectory { dir: dir.to_owned() });
        }
        let pickle = files.iter().filter_map(|name| name::pickle_stamp(name)).max();
        Ok(Listing { names: names_of(&files), pickle })
    }

    /// The newest stamp of a backup.
    pub(crate) fn newest(&self) -> Option<Stamp> {
        self.names.last().map(|name| name.stamp)
    }

    /// Whether all files that lead to the end of a chain are there.
    pub(crate) fn has(&self, tip: &Tip) -> bool {
        let is_there = |name: &BackupName| self.names.binary_search_by_key(&name.order(), BackupName::order).is_ok();
        tip.names.iter().all(is_there)
    }
}

fn list(storage: &dyn Storage, dir: &Path) -> Result<Vec<OsString>> {
    storage.file_names(dir).map_err(Error::io("list directory", dir))
}

fn names_of(files: &[OsString]) -> Vec<BackupName> {
    let mut names: Vec<BackupName> = files.iter().filter_map(|name| BackupName::parse(name)).collect();
    names.sort_by_key(BackupName::order);
    names
}

impl Catalog {
    /// Reads the beginning and the end of every backup in the directory.
    pub(crate) fn read(storage: &dyn Storage, dir: &Path, trust: Trust) -> Result<Catalog> {
        let files = list(storage, dir)?;
        let entries = names_of(&files).into_iter().map(|name| {
            let path = dir.join(name.file_name());
            let found =
                file::inspect(storage, &path, name.kind, trust).and_then(|summary| agrees(&path, &name, summary));
            Entry { path, name, found }
        });
        let entries = entries.collect();
        let pickle = |name: &OsString| Some((name::pickle_stamp(name)?, dir.join(name)));
        let mut pickles: Vec<_> = files.iter().filter_map(pickle).collect();
        pickles.sort();
        Ok(Catalog { entries, pickles })
    }

    /// How far the history of the newest file leads, and the files that lead there from a full backup, newest first; `None`
    /// where that file is damaged, or a link is missing. Where two managers have begun deltas at one point, restore takes
    /// the one that leads furthest, whichever is newer; those older than the newest full backup it does not look at.
    pub(crate) fn tip(&self) -> Option<Tip> {
        let lineage = self.entries.last()?.history()?.end.lineage;
        let leads = |entry: &&Entry| entry.history().filter(|h| h.end.lineage == lineage).map(|h| h.end.seq);
        let is_full = |entry: &&Entry| entry.name.kind == BackupKind::Full && leads(entry).is_some();
        let since = self.entries.iter().rev().find(is_full).map(|full| full.name.order());
        let counts = |entry: &&Entry| leads(entry).is_some() && Some(entry.name.order()) >= since;
        let furthest = self.entries.iter().filter(counts).max_by_key(leads)?;
        let point = furthest.history()?.end;
        let mut names = vec![furthest.name];
        let mut link = furthest;
        let mut deltas = 0_u32;
        while link.name.kind == BackupKind::Delta {
            // A bridge ends where a full backup does, which is the shorter way.
            let end = link.history()?.end;
            let full = |e: &&Entry| e.name.kind == BackupKind::Full && e.history().is_some_and(|h| h.end == end);
            if let Some(full) = self.entries.iter().rev().find(full) {
                names.push(full.name);
                break;
            }
            deltas = deltas.saturating_add(1);
            let base = link.history()?.base?;
            // The root's own lineage: a restored database may have gone on with the chain under another.
            if base == Point::empty(end.lineage) && link.history()?.parent.is_none() {
                if self.has_unreadable() {
                    return None;
                }
                break;
            }
            // Every step goes to an older stamp, so this ends.
            let older = |e: &&Entry| e.name.order() < link.name.order() && e.history().is_some_and(|h| h.end == base);
            link = self.entries.iter().rev().find(older)?;
            names.push(link.name);
        }
        let time = furthest.history()?.created;
        Some(Tip { point, deltas, names, file: furthest.path.clone(), time })
    }

    /// Whether a file is of another format version, a pickle, or found to hold what no record here can. Restore passes none
    /// over in its search for a full backup, so no chain without one can be restored beside it.
    pub(crate) fn has_unreadable(&self) -> bool {
        let is_unreadable = |entry: &Entry| {
            matches!(entry.found, Err(Error::UnsupportedVersion { .. } | Error::UnsupportedValue { .. }))
        };
        !self.pickles.is_empty() || self.entries.iter().any(is_unreadable)
    }

    /// Whether DictDB 1.11 wrote a full backup here: without one its deltas are no history.
    pub(crate) fn has_full_of_dictdb(&self) -> bool {
        let is_one = |entry: &Entry| entry.name.kind == BackupKind::Full && entry.is_of_dictdb();
        !self.pickles.is_empty() || self.entries.iter().any(is_one)
    }
}

/// The end of a chain.
#[derive(Clone, Debug)]
pub(crate) struct Tip {
    pub(crate) point: Point,
    /// Deltas since the full backup.
    pub(crate) deltas: u32,
    /// The files that lead here.
    pub(crate) names: Vec<BackupName>,
    pub(crate) file: PathBuf,
    pub(crate) time: Timestamp,
}

impl Entry {
    pub(crate) fn history(&self) -> Option<&SummaryHistory> {
        self.found.as_ref().ok()?.history.as_ref()
    }

    /// Whether it is a file of DictDB 1.11, as far as it has been read.
    pub(crate) fn is_of_dictdb(&self) -> bool {
        self.found.as_ref().is_ok_and(|summary| summary.history.is_none())
    }

    /// The lineage of a sound file.
    pub(crate) fn lineage(&self) -> Option<Lineage> {
        let summary = self.found.as_ref().ok()?;
        Some(summary.history.map_or(Lineage::DICTDB_1_11, |history| history.end.lineage))
    }
}

/// A file that was copied over another name, or renamed, says so: name and content must agree.
fn agrees(path: &Path, name: &BackupName, summary: Summary) -> Result<Summary> {
    // Where the field stands in a binary header; in JSON it is all in the first lines.
    let at = |offset: u64| if summary.format == BackupFormat::Binary { offset } else { 0 };
    if summary.format != name.format {
        return Err(Error::corrupt(path, 0, format!("a {} file, as its name says", name.format)));
    }
    if summary.kind != name.kind {
        return Err(Error::corrupt(path, at(10), format!("a {} backup, as its name says", name.kind)));
    }
    let stamp = |created: Timestamp| u64::try_from(created.as_micros()).ok().map(Stamp::new);
    match &summary.history {
        Some(history) if stamp(history.created) != Some(name.stamp) => {
            let found = history.created.as_micros();
            let expected = format!(
                "the creation time {} that its name says, not {found}: the file was renamed, copied or damaged",
                name.stamp.get()
            );
            Err(Error::corrupt(path, at(112), expected))
        }
        _ => Ok(summary),
    }
}

/// One backup of a directory; see [`list_backups`].
#[derive(Debug)]
#[non_exhaustive]
pub struct BackupFile {
    /// The file.
    pub path: PathBuf,
    /// Full or delta, by its name.
    pub kind: BackupKind,
    /// JSON or binary, by its name.
    pub format: BackupFormat,
    /// What the file says of itself, or what is wrong with it. Its middle has not been read.
    pub details: Result<BackupDetails>,
}

/// What a backup file says of itself.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackupDetails {
    /// Its bytes.
    pub bytes: u64,
    /// The point that it leads to; `None` for a file of DictDB 1.11.
    pub end: Option<Point>,
    /// The point that a delta joins onto; for a full backup the point that its directory led to when it was made.
    pub base: Option<Point>,
    /// Records of a full backup, changes of a delta; `None` for a file of DictDB 1.11.
    pub records: Option<u64>,
    /// Time of the newest commit in it; `None` for a file of DictDB 1.11.
    pub time: Option<Timestamp>,
}

/// Lists the backups of a directory in the order in which they were made. Reads the beginning and the end of each;
/// [`restore`](crate::restore) reads and checks everything.
///
/// ```
/// use dictdb::{list_backups, BackupManager, DictDb};
/// let dir = tempfile::tempdir()?;
/// let db = DictDb::new();
/// BackupManager::new(&db, dir.path())?.backup_full()?;
/// let backups = list_backups(dir.path())?;
/// assert_eq!(backups.len(), 1);
/// assert!(backups[0].details.is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Io`] where the directory cannot be listed; what is wrong with a file stands in its entry.
pub fn list_backups(dir: impl AsRef<Path>) -> Result<Vec<BackupFile>> {
    let catalog = Catalog::read(&DiskStorage, dir.as_ref(), Trust::default())?;
    let file = |entry: Entry| BackupFile {
        path: entry.path,
        kind: entry.name.kind,
        format: entry.name.format,
        details: entry.found.map(|summary| BackupDetails {
            bytes: summary.bytes,
            end: summary.history.map(|h| h.end),
            base: summary.history.and_then(|h| h.base),
            records: summary.history.map(|h| h.records),
            time: summary.history.map(|h| h.time),
        }),
    };
    Ok(catalog.entries.into_iter().map(file).collect())
}
