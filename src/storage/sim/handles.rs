//! Files that are open, and locks that are held.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use super::SimStorage;
use super::disk::{Act, Disk};
use super::ledger::{InodeId, Name};
use crate::storage::{DirLock, ReadFile, WriteFile};

#[derive(Debug)]
pub(super) struct Lock {
    pub(super) storage: SimStorage,
    pub(super) dir: Name,
}

impl DirLock for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        self.storage.disk().locked.remove(&*self.dir);
    }
}

pub(super) struct Reader {
    pub(super) storage: SimStorage,
    pub(super) inode: InodeId,
    pub(super) position: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.storage.disk();
        let act = Act::Read(name(&disk, self.inode), buffer.len());
        let position = usize::try_from(self.position).unwrap_or(usize::MAX);
        let n = disk.look(act, |disk| disk.seen(self.inode).get(position..).unwrap_or_default().read(buffer))?;
        self.position = self.position.saturating_add(n as u64);
        Ok(n)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => (self.storage.disk().seen(self.inode).len() as u64).checked_add_signed(by),
        };
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl ReadFile for Reader {
    fn len(&self) -> io::Result<u64> {
        let mut disk = self.storage.disk();
        let act = Act::Len(name(&disk, self.inode));
        disk.look(act, |disk| Ok(disk.seen(self.inode).len() as u64))
    }
}

pub(super) struct Writer {
    pub(super) storage: SimStorage,
    pub(super) inode: InodeId,
    /// Where [`Write`] goes on.
    pub(super) position: u64,
    /// An operation on this handle failed: nothing is known about the file any more.
    pub(super) has_failed: bool,
    /// What a sync that was begun has met, for the next one to tell.
    pub(super) untold: Option<io::Error>,
}

impl Writer {
    fn operate<T>(&mut self, what: &str, run: impl FnOnce(&mut Disk, Name) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.storage.disk();
        let name = name(&disk, self.inode);
        if !disk.is_dead {
            let op = disk.op_count() + 1;
            if self.has_failed {
                let what = format!("{what} of {} through a handle that has failed", name.display());
                disk.monitor.report(op, what);
            }
            if what != "sync" && disk.now.inodes.get(self.inode).is_some_and(|inode| !inode.is_linked) {
                disk.monitor.report(op, format_args!("{what} of {}, which was removed", name.display()));
            }
        }
        let result = run(&mut disk, name);
        self.has_failed |= result.as_ref().is_err_and(|error| error.kind() != ErrorKind::Interrupted);
        result
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_at(bytes, self.position)?;
        self.position = self.position.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for Writer {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let inode = self.inode;
        self.operate("write", |disk, name| disk.write(inode, name, bytes, offset))
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let inode = self.inode;
        self.operate("set_len", |disk, name| disk.set_len(inode, name, len))
    }

    fn begin_sync(&mut self) {
        let mut disk = self.storage.disk();
        let name = name(&disk, self.inode);
        if let Err(error) = disk.begin_sync(name, self.inode) {
            self.untold.get_or_insert(error);
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let (inode, untold) = (self.inode, self.untold.take());
        self.operate("sync", |disk, name| disk.sync(name, inode, untold))
    }
}

fn name(disk: &Disk, inode: InodeId) -> Name {
    disk.now.inodes.get(inode).map_or_else(|| Path::new("").into(), |inode| Arc::clone(&inode.name))
}
