//! Single files: `load`, `save`, `apply_delta`.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::db::{self, Builder, DictDb};
use crate::error::{Error, Result};
use crate::file::compression::Compression;
use crate::file::name::{BackupFormat, BackupKind};
use crate::file::sink::{Existing, publish};
use crate::file::{self, Origin, Trust};
use crate::progress::{Progress, ProgressFn, Stage, Watch};
use crate::state::Identity;
use crate::storage::{DiskStorage, Storage};

/// How to load a single file; see [`DictDb::load_with`].
#[derive(Clone)]
pub struct LoadOptions {
    trust: Trust,
    builder: Builder,
    progress: Option<Arc<ProgressFn>>,
    storage: Arc<dyn Storage>,
}

impl LoadOptions {
    /// What [`DictDb::load`] does.
    pub fn new() -> LoadOptions {
        let trust = Trust::default();
        LoadOptions { trust, builder: DictDb::builder(), progress: None, storage: Arc::new(DiskStorage) }
    }

    /// Takes a JSON file's text as it stands: for files that were edited by hand on purpose. Everything but checksum,
    /// counts and digest is still checked. Deltas then join by lineage and seq, whatever the digest, and what was edited
    /// stays, unless they change it. (A binary delta that deletes a record which was edited away is refused all the same.)
    /// Binary files themselves have no such way.
    pub fn ignore_checksum(mut self, ignore: bool) -> LoadOptions {
        self.trust.ignore_checksum = ignore;
        self
    }

    /// Settings of the loaded database.
    pub fn database(mut self, builder: Builder) -> LoadOptions {
        self.builder = builder;
        self
    }

    /// Called at least once a block of records (256 KiB; in JSON once 1,024 records); `Break` ends the work with
    /// [`Error::Cancelled`].
    pub fn on_progress(
        mut self,
        callback: impl Fn(&Progress<'_>) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> LoadOptions {
        self.progress = Some(Arc::new(callback));
        self
    }

    /// Where files are read from; the disk unless said otherwise.
    pub fn storage(mut self, storage: impl Storage + 'static) -> LoadOptions {
        self.storage = Arc::new(storage);
        self
    }
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions::new()
    }
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("trust", &self.trust)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

impl DictDb {
    /// Writes the whole database, as it stands now, to a file: a full backup under a name of your choice. An existing
    /// file is replaced in one step, once the new one is safe. Writers go on meanwhile. Gives the file's bytes.
    ///
    /// ```
    /// use dictdb::{record, BackupFormat, DictDb};
    /// let dir = tempfile::tempdir()?;
    /// let db = DictDb::new();
    /// db.create_table("users", "id")?.insert(record! { "name": "Ann" })?;
    /// let file = dir.path().join("users.json");
    /// db.save(&file, BackupFormat::Json)?;
    /// assert_eq!(DictDb::load(&file)?.digest(), db.digest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`]; [`Error::NotRepresentable`] for a NaN or infinity in JSON.
    pub fn save(&self, file: impl AsRef<Path>, format: BackupFormat) -> Result<u64> {
        let file = file.as_ref();
        let state = self.read_in_passing().clone();
        let origin = Origin { base: None, created: db::now(self) };
        let watch = Watch::new(None, Stage::WritingFull, file);
        let (_, bytes) = publish(&DiskStorage, file, Existing::Replace, |sink| {
            file::write_full(format, Compression::None, sink, state, &origin, &watch)
        })?;
        Ok(bytes)
    }

    /// Loads a full backup, binary or JSON (told by its content), ours or DictDB 1.11's, reading and checking all of
    /// it. The database begins a new history whose parent is the point that the file leads to. The file is only read.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`], [`Error::ChecksumMismatch`], [`Error::UnsupportedVersion`],
    /// [`Error::UnsupportedValue`] in DictDB 1.11's, [`Error::WrongKind`] for a delta.
    pub fn load(file: impl AsRef<Path>) -> Result<DictDb> {
        DictDb::load_with(file, &LoadOptions::new())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`load`](DictDb::load); [`Error::Cancelled`].
    pub fn load_with(file: impl AsRef<Path>, options: &LoadOptions) -> Result<DictDb> {
        let file = file.as_ref();
        let watch = Watch::new(options.progress.as_deref(), Stage::ReadingFull, file);
        let mut state = file::read_full(&*options.storage, file, options.trust, &watch)?;
        state.identity = Identity::child_of(state.point());
        Ok(options.builder.clone().build_from(state))
    }

    /// Applies a delta backup, binary or JSON (told by its content), and gives the count of records that it changed:
    /// upserts, and deletes of records that were there. All or nothing.
    ///
    /// One of ours must join onto the point that this database was loaded, restored or brought to, and the database
    /// must not have been written to since; it then stands where the delta leads, at the beginning of a new history.
    /// One of DictDB 1.11 says nothing of where it belongs: its changes become one commit.
    ///
    /// # Errors
    /// [`Error::DoesNotJoin`]; [`Error::Unsupported`] for a store, [`Error::ReadOnly`], [`Error::NestedWrite`]; else as
    /// [`load`](DictDb::load).
    pub fn apply_delta(&self, file: impl AsRef<Path>) -> Result<u64> {
        self.apply_delta_with(file, &LoadOptions::new())
    }

    /// The same with options (of which the database's settings do not matter).
    ///
    /// # Errors
    /// As [`apply_delta`](DictDb::apply_delta); [`Error::Cancelled`].
    pub fn apply_delta_with(&self, file: impl AsRef<Path>, options: &LoadOptions) -> Result<u64> {
        let (file, storage) = (file.as_ref(), &*options.storage);
        let watch = Watch::new(options.progress.as_deref(), Stage::ReadingDelta, file);
        let summary = file::inspect(storage, file, BackupKind::Delta, options.trust)?;
        let applied = if summary.history.is_none() {
            self.transaction_batch(|batch| file::json::commit_dictdb_delta(storage, file, batch, &watch))?
        } else {
            self.rebase(|mut state| {
                if state.seq != state.identity.origin() {
                    // Commits of its own: whatever the delta says, it was made of another history.
                    let needs = summary.history.and_then(|h| h.base).unwrap_or(state.point());
                    let (file, stands) = (file.to_owned(), Box::new(state.point()));
                    return Err(Error::DoesNotJoin { file, needs: Box::new(needs), stands });
                }
                let applied = file::apply_delta(storage, file, &mut state, options.trust, &watch)?;
                state.identity = Identity::child_of(state.point());
                Ok((state, applied))
            })?
        };
        Ok(applied.puts.saturating_add(applied.deletes))
    }
}
