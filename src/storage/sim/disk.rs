//! The recording disk: every operation gets a number, may be struck by a fault, and is written down with its effect.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::fault::{Class, Dirty, Fault, Faults};
use super::ledger::{Bytes, Change, Effect, Entry, InodeId, Ledger, Name, Node};
use super::monitor::{Monitor, Removal, is_temporary};
use crate::storage::DirEntry;

/// What the program asked for; for messages.
#[derive(Clone, Debug)]
pub(super) enum Act {
    CreateDirAll(Name),
    List(Name),
    Open(Name),
    Create(Name),
    Rename(Name, Name),
    RenameNew(Name, Name),
    Remove(Name),
    SyncDir(Name),
    Lock(Name),
    Read(Name, usize),
    Len(Name),
    Write { name: Name, offset: u64, len: usize },
    SetLen(Name, u64),
    BeginSync(Name),
    Sync(Name),
    Put(Name),
}

impl Act {
    fn class(&self) -> Class {
        match self {
            Act::Read(..) => Class::Read,
            Act::Write { .. } => Class::Write,
            Act::Create(_) | Act::CreateDirAll(_) | Act::SetLen(..) => Class::Grow,
            Act::BeginSync(_) | Act::Sync(_) | Act::SyncDir(_) => Class::Sync,
            _ => Class::Other,
        }
    }

    fn written(&self) -> usize {
        if let Act::Write { len, .. } = self { *len } else { 0 }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::CreateDirAll(dir) => write!(f, "create_dir_all {}", dir.display()),
            Act::List(dir) => write!(f, "list {}", dir.display()),
            Act::Open(name) => write!(f, "open {}", name.display()),
            Act::Create(name) => write!(f, "create {}", name.display()),
            Act::Rename(from, to) => write!(f, "rename {} to {}", from.display(), to.display()),
            Act::RenameNew(from, to) => write!(f, "rename_new {} to {}", from.display(), to.display()),
            Act::Remove(name) => write!(f, "remove {}", name.display()),
            Act::SyncDir(dir) => write!(f, "sync_dir {}", dir.display()),
            Act::Lock(dir) => write!(f, "lock {}", dir.display()),
            Act::Read(name, len) => write!(f, "read {} ({len} bytes)", name.display()),
            Act::Len(name) => write!(f, "len {}", name.display()),
            Act::Write { name, offset, len } => write!(f, "write {} at {offset} ({len} bytes)", name.display()),
            Act::SetLen(name, len) => write!(f, "set_len {} {len}", name.display()),
            Act::BeginSync(name) => write!(f, "begin_sync {}", name.display()),
            Act::Sync(name) => write!(f, "sync {}", name.display()),
            Act::Put(name) => write!(f, "put {}", name.display()),
        }
    }
}

/// One operation as it went. Its number is its place in the recording, from 1.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) act: Act,
    pub(super) effect: Effect,
    pub(super) error: Option<ErrorKind>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// As it was before the first operation.
    pub(super) base: Ledger,
    pub(super) now: Ledger,
    pub(super) steps: Vec<Step>,
    /// Each with the number of operations before it.
    pub(super) marks: Vec<(u64, u64)>,
    pub(super) locked: BTreeSet<PathBuf>,
    pub(super) is_dead: bool,
    pub(super) faults: Faults,
    /// Bytes by which files may still grow.
    pub(super) space: Option<u64>,
    pub(super) monitor: Monitor,
}

impl Disk {
    pub(super) fn of(ledger: Ledger) -> Disk {
        Disk { base: ledger.clone(), now: ledger, ..Disk::default() }
    }

    pub(super) fn op_count(&self) -> u64 {
        self.steps.len() as u64
    }

    /// One operation: struck by what was planned for its number, else done, and written down either way.
    ///
    /// `run` says what becomes of the files; it gets the fault where that does not decide alone.
    pub(super) fn operate<T>(
        &mut self,
        act: Act,
        run: impl FnOnce(&mut Disk, u64, Option<Fault>) -> (io::Result<T>, Effect),
    ) -> io::Result<T> {
        if self.is_dead {
            return Err(io::Error::other("the process that had this disk is dead"));
        }
        let op = self.op_count() + 1;
        let (result, effect) = match self.faults.strike(op, act.class(), act.written()) {
            Some(Fault::Error(kind)) => (Err(injected(kind)), Effect::Nothing),
            Some(Fault::Interrupted) => (Err(ErrorKind::Interrupted.into()), Effect::Nothing),
            Some(Fault::NoSpace { .. }) if matches!(act, Act::Create(_) | Act::CreateDirAll(_)) => {
                (Err(injected(ErrorKind::StorageFull)), Effect::Nothing)
            }
            fault => run(self, op, fault),
        };
        self.now.apply(op, &effect);
        self.steps.push(Step { act, effect, error: result.as_ref().err().map(io::Error::kind) });
        result
    }

    /// An operation that changes nothing.
    pub(super) fn look<T>(&mut self, act: Act, run: impl FnOnce(&Disk) -> io::Result<T>) -> io::Result<T> {
        self.operate(act, |disk, _, _| (run(disk), Effect::Nothing))
    }

    /// An operation on entries that no fault but an error can strike.
    pub(super) fn enter(
        &mut self,
        act: Act,
        run: impl FnOnce(&mut Disk, u64) -> io::Result<Vec<Entry>>,
    ) -> io::Result<()> {
        self.operate(act, |disk, op, _| match run(disk, op) {
            Ok(entries) if entries.is_empty() => (Ok(()), Effect::Nothing),
            Ok(entries) => (Ok(()), Effect::Entries(entries)),
            Err(error) => (Err(error), Effect::Nothing),
        })
    }

    pub(super) fn put(&mut self, name: Name, bytes: Bytes) -> io::Result<()> {
        if self.is_dir(&name) {
            return Err(ErrorKind::IsADirectory.into());
        }
        if self.is_below_a_file(&name) {
            return Err(ErrorKind::NotADirectory.into());
        }
        let effect = Effect::Put(Arc::clone(&name), bytes);
        if self.steps.is_empty() {
            self.base.apply(0, &effect);
            self.now.apply(0, &effect);
            return Ok(());
        }
        self.operate(Act::Put(name), |_, _, _| (Ok(()), effect))
    }

    /// `untold` is what one that was begun before has met.
    pub(super) fn sync(&mut self, name: Name, inode: InodeId, untold: Option<io::Error>) -> io::Result<()> {
        self.operate(Act::Sync(name), |disk, _, fault| match (fault, untold) {
            (Some(Fault::SyncFails { dirty: Dirty::Kept }), _) => (Err(injected(ErrorKind::Other)), Effect::Nothing),
            (Some(Fault::SyncFails { dirty: Dirty::Dropped }), _) => {
                (Err(injected(ErrorKind::Other)), Effect::Forget(inode))
            }
            (_, Some(untold)) => (Err(untold), Effect::Nothing),
            (Some(Fault::SyncLies), _) => (Ok(()), Effect::Pretend(inode)),
            _ if disk.now.inodes.get(inode).is_none_or(|inode| inode.pending.is_empty()) => (Ok(()), Effect::Nothing),
            _ => (Ok(()), Effect::Settle(inode)),
        })
    }

    /// A sync that nobody waits for: what an image holds of the file is open, as before. The error is for a later one.
    pub(super) fn begin_sync(&mut self, name: Name, inode: InodeId) -> io::Result<()> {
        self.operate(Act::BeginSync(name), |_, _, fault| match fault {
            Some(Fault::SyncFails { dirty: Dirty::Kept }) => (Err(injected(ErrorKind::Other)), Effect::Nothing),
            Some(Fault::SyncFails { dirty: Dirty::Dropped }) => {
                (Err(injected(ErrorKind::Other)), Effect::Forget(inode))
            }
            _ => (Ok(()), Effect::Nothing),
        })
    }

    pub(super) fn sync_dir(&mut self, dir: Name) -> io::Result<()> {
        self.operate(Act::SyncDir(Arc::clone(&dir)), |disk, _, fault| match (disk.require_dir(&dir), fault) {
            (Err(error), _) => (Err(error), Effect::Nothing),
            (_, Some(Fault::SyncFails { dirty: Dirty::Kept })) => (Err(injected(ErrorKind::Other)), Effect::Nothing),
            (_, Some(Fault::SyncFails { dirty: Dirty::Dropped })) => {
                (Err(injected(ErrorKind::Other)), Effect::ForgetDir(dir))
            }
            (_, Some(Fault::SyncLies)) => (Ok(()), Effect::PretendDir(dir)),
            _ if !disk.now.has_pending_entries(&dir) => (Ok(()), Effect::Nothing),
            _ => (Ok(()), Effect::SettleDir(dir)),
        })
    }

    pub(super) fn create_dir_all(&mut self, dir: Name) -> io::Result<()> {
        self.enter(Act::CreateDirAll(Arc::clone(&dir)), |disk, _| {
            if let Some(Node::File(_)) = disk.now.names.get(&*dir) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            if disk.is_below_a_file(&dir) {
                return Err(ErrorKind::NotADirectory.into());
            }
            let mut missing: Vec<&Path> = dir.ancestors().filter(|above| !disk.is_dir(above)).collect();
            missing.reverse();
            Ok(missing.into_iter().map(|dir| Entry::MakeDir(dir.into())).collect())
        })
    }

    pub(super) fn create(&mut self, name: Name) -> io::Result<InodeId> {
        let inode = self.now.inodes.len();
        self.enter(Act::Create(Arc::clone(&name)), |disk, _| {
            disk.require_parent(&name)?;
            if disk.is_taken(&name) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            if disk.space == Some(0) {
                return Err(ErrorKind::StorageFull.into());
            }
            Ok(vec![Entry::Create(name, inode)])
        })?;
        Ok(inode)
    }

    pub(super) fn rename(
        &mut self,
        act: Act,
        from: Name,
        to: Name,
        check: impl FnOnce(&Disk, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        self.enter(act, |disk, op| {
            let inode = disk.file(&from)?;
            disk.require_parent(&to)?;
            check(disk, &to)?;
            if from == to {
                return Ok(Vec::new());
            }
            if !is_temporary(&to) && disk.now.inodes.get(inode).is_some_and(|inode| inode.unsynced) {
                let what = format!("{} becomes {} before its bytes are synced", from.display(), to.display());
                disk.monitor.report(op, what);
            }
            disk.before_removal(op, &to, Some(&from));
            Ok(vec![Entry::Rename { from, to, inode }])
        })
    }

    pub(super) fn remove(&mut self, name: Name) -> io::Result<()> {
        self.enter(Act::Remove(Arc::clone(&name)), |disk, op| {
            let inode = disk.file(&name)?;
            disk.before_removal(op, &name, None);
            Ok(vec![Entry::Remove(name, inode)])
        })
    }

    /// What has to be seen to before a name loses the file that it may have.
    fn before_removal(&mut self, op: u64, path: &Path, replaced_by: Option<&Path>) {
        let Some(Node::File(inode)) = self.now.names.get(path) else { return };
        if let (Some(space), Some(inode)) = (&mut self.space, self.now.inodes.get(*inode)) {
            *space = space.saturating_add(inode.seen.len() as u64);
        }
        let durable = self.now.names.iter().filter_map(|(name, node)| match node {
            Node::File(inode) if &**name != path && self.now.is_promised(name, *inode) => Some(name.to_path_buf()),
            _ => None,
        });
        let durable: Vec<PathBuf> = durable.collect();
        self.monitor.check_removal(op, &Removal { path, replaced_by, durable: &durable });
    }

    pub(super) fn write(&mut self, inode: InodeId, name: Name, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.operate(Act::Write { name, offset, len: bytes.len() }, |disk, _, fault| {
            let Some(start) = place(offset, bytes.len()) else {
                return (Err(ErrorKind::FileTooLarge.into()), Effect::Nothing);
            };
            let fits = match fault {
                Some(Fault::NoSpace { after }) => after,
                Some(Fault::ShortWrite(at_most)) => at_most,
                _ => disk.take_space(inode, start, bytes.len()),
            };
            let written = bytes.get(..fits.min(bytes.len())).unwrap_or_default();
            let effect = match written {
                [] => Effect::Nothing,
                written => Effect::Change(inode, Change::Write { offset: start, bytes: written.into() }),
            };
            match fault {
                Some(Fault::NoSpace { .. }) => (Err(injected(ErrorKind::StorageFull)), effect),
                None if written.is_empty() && !bytes.is_empty() => (Err(ErrorKind::StorageFull.into()), effect),
                _ => (Ok(written.len()), effect),
            }
        })
    }

    /// How many of `len` bytes at `start` find room, which is taken.
    fn take_space(&mut self, inode: InodeId, start: usize, len: usize) -> usize {
        let old = self.now.inodes.get(inode).map_or(0, |inode| inode.seen.len());
        let Some(space) = &mut self.space else { return len };
        let new = start.saturating_add(len);
        let room = old.saturating_add(usize::try_from(*space).unwrap_or(usize::MAX)).min(new);
        let fits = room.saturating_sub(start);
        if len > 0 && fits > 0 {
            *space = space.saturating_sub(room.saturating_sub(old) as u64);
        }
        fits.min(len)
    }

    pub(super) fn set_len(&mut self, inode: InodeId, name: Name, len: u64) -> io::Result<()> {
        self.operate(Act::SetLen(name, len), |disk, _, fault| {
            let Some(new) = place(len, 0) else { return (Err(ErrorKind::FileTooLarge.into()), Effect::Nothing) };
            let old = disk.now.inodes.get(inode).map_or(0, |inode| inode.seen.len());
            if new > old && fault.is_some() {
                return (Err(injected(ErrorKind::StorageFull)), Effect::Nothing);
            }
            if let Some(space) = &mut disk.space {
                let all = space.saturating_add(old as u64);
                let Some(left) = all.checked_sub(new as u64) else {
                    return (Err(ErrorKind::StorageFull.into()), Effect::Nothing);
                };
                *space = left;
            }
            let effect = if new == old { Effect::Nothing } else { Effect::Change(inode, Change::SetLen(new)) };
            (Ok(()), effect)
        })
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.require_dir(dir)?;
        let entry = |(path, node): (&Name, &Node)| {
            let name = path.file_name()?.to_owned();
            Some(match node {
                Node::Dir => DirEntry { name, len: 0, is_file: false },
                Node::File(inode) => DirEntry { name, len: self.seen(*inode).len() as u64, is_file: true },
            })
        };
        // All names are normal: equal paths are equal bytes, which is told in a fraction of the time.
        let is_here = |path: &Path| path.parent().is_some_and(|parent| parent.as_os_str() == dir.as_os_str());
        Ok(self.now.names.iter().filter(|(path, _)| is_here(path)).filter_map(entry).collect())
    }

    pub(super) fn seen(&self, inode: InodeId) -> &[u8] {
        self.now.inodes.get(inode).map_or(&[], |inode| inode.seen.as_slice())
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || self.now.names.get(path) == Some(&Node::Dir)
    }

    pub(super) fn is_taken(&self, path: &Path) -> bool {
        path.parent().is_none() || self.now.names.contains_key(path)
    }

    pub(super) fn refuse_directory(&self, path: &Path) -> io::Result<()> {
        if self.is_dir(path) { Err(ErrorKind::IsADirectory.into()) } else { Ok(()) }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<InodeId> {
        match self.now.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            _ if self.is_dir(path) => Err(ErrorKind::IsADirectory.into()),
            _ if self.is_below_a_file(path) => Err(ErrorKind::NotADirectory.into()),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn is_below_a_file(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|above| matches!(self.now.names.get(above), Some(Node::File(_))))
    }

    pub(super) fn require_dir(&self, path: &Path) -> io::Result<()> {
        match self.file(path) {
            _ if self.is_dir(path) => Ok(()),
            Ok(_) => Err(ErrorKind::NotADirectory.into()),
            Err(missing) => Err(missing),
        }
    }

    fn require_parent(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.require_dir(parent))
    }
}

fn injected(kind: ErrorKind) -> io::Error {
    io::Error::new(kind, "injected by the simulator")
}

/// Where `len` bytes at `offset` begin, if a file can be so long.
fn place(offset: u64, len: usize) -> Option<usize> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(len)?;
    isize::try_from(end).is_ok().then_some(start)
}

/// Without `.` and `..`, which lead nowhere unexpected as there are no links.
pub(super) fn normal(path: &Path) -> Name {
    let is_plain = |component: Component<'_>| matches!(component, Component::RootDir | Component::Normal(_));
    if path.components().all(is_plain) && !path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return path.into();
    }
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = normal.pop(),
            other => normal.push(other),
        }
    }
    normal.into()
}
