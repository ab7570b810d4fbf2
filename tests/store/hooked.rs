//! A storage in memory whose operations the test has a word in.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use dictdb::{DirEntry, MemoryStorage, ReadFile, Storage, WriteFile};

/// What the storage is about to do to a file; or has done, where that is to list a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    List,
    Open,
    Create,
    /// Under its final name.
    Publish,
    Remove,
}

type Hook = dyn Fn(Op, &Path) -> io::Result<()> + Send + Sync;

/// Its clones have the same files and the same hook.
#[derive(Clone)]
pub(crate) struct Hooked {
    pub(crate) files: MemoryStorage,
    hook: Arc<Hook>,
}

impl Hooked {
    pub(crate) fn new(hook: impl Fn(Op, &Path) -> io::Result<()> + Send + Sync + 'static) -> Hooked {
        Hooked { files: MemoryStorage::new(), hook: Arc::new(hook) }
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Storage for Hooked {
    left_to_files! { create_dir_all rename sync_dir lock }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let found = self.files.list(dir)?;
        (self.hook)(Op::List, dir)?;
        Ok(found)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        (self.hook)(Op::Open, path)?;
        self.files.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        (self.hook)(Op::Create, path)?;
        self.files.create(path)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)(Op::Publish, to)?;
        self.files.rename_new(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.hook)(Op::Remove, path)?;
        self.files.remove(path)
    }
}
