//! What a disk holds: the files as the process sees them, what of that is durable, and what waits for a sync.
//!
//! Both the recording and the reconstruction of a crash go through [`Ledger::apply`], so that they cannot disagree.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(super) type InodeId = usize;
pub(super) type Name = Arc<Path>;
pub(super) type Names = BTreeMap<Name, Node>;
pub(super) type Bytes = Arc<Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(InodeId),
}

/// What an operation did. Most of it waits for a sync before a crash spares it.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Nothing,
    /// A file put there from outside, durable at once.
    Put(Name, Bytes),
    Entries(Vec<Entry>),
    Change(InodeId, Change),
    /// What waits in a file is durable now.
    Settle(InodeId),
    /// The system gave up on what waits in a file: it may be lost for ever, whatever is synced later.
    Forget(InodeId),
    /// A sync that said Ok and did nothing.
    Pretend(InodeId),
    SettleDir(Name),
    ForgetDir(Name),
    PretendDir(Name),
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    SetLen(usize),
}

/// A change of a directory's entries.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    MakeDir(Name),
    Create(Name, InodeId),
    Rename { from: Name, to: Name, inode: InodeId },
    Remove(Name, InodeId),
}

/// A change of bytes that a crash may undo.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) op: u64,
    pub(super) change: Change,
    pub(super) forgotten: bool,
}

/// A change of entries that a crash may undo.
#[derive(Clone, Debug)]
pub(super) struct PendingEntry {
    pub(super) op: u64,
    pub(super) entry: Entry,
    forgotten: bool,
    /// The process was told that it is durable, true or not.
    told: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    /// The name it had last, for messages.
    pub(super) name: Name,
    pub(super) is_linked: bool,
    /// As the process sees it.
    pub(super) seen: Bytes,
    pub(super) durable: Bytes,
    /// What has to be done to `durable` to make it `seen`, in order.
    pub(super) pending: Vec<Pending>,
    /// Something was written that no sync has said Ok to since.
    pub(super) unsynced: bool,
}

impl Inode {
    pub(super) fn new(name: Name, bytes: Bytes) -> Inode {
        let durable = Arc::clone(&bytes);
        Inode { name, is_linked: true, seen: bytes, durable, pending: Vec::new(), unsynced: false }
    }

    /// In order; of a write that the system forgot, only the length comes with a later sync, as the length is the
    /// journal's and the bytes are not.
    fn settle(&mut self) {
        let mut forgotten: Vec<Pending> = Vec::new();
        let durable = Arc::make_mut(&mut self.durable);
        for pending in self.pending.drain(..) {
            match &pending.change {
                Change::SetLen(len) => {
                    forgotten = forgotten.iter().flat_map(|old| without(old, *len, usize::MAX)).collect();
                    pending.change.apply(durable);
                }
                Change::Write { offset, bytes } => {
                    let end = offset.saturating_add(bytes.len());
                    if pending.forgotten {
                        if durable.len() < end {
                            durable.resize(end, 0);
                        }
                        forgotten.push(pending);
                    } else {
                        forgotten = forgotten.iter().flat_map(|old| without(old, *offset, end)).collect();
                        pending.change.apply(durable);
                    }
                }
            }
        }
        self.pending = forgotten;
    }
}

/// A write without its bytes in `from..to`, which were written again: none, one or two pieces.
fn without(old: &Pending, from: usize, to: usize) -> Vec<Pending> {
    let Change::Write { offset, bytes } = &old.change else { return vec![old.clone()] };
    let (begin, end) = (*offset, offset.saturating_add(bytes.len()));
    let piece = |from: usize, to: usize| {
        let bytes = bytes.get(from.saturating_sub(begin)..to.saturating_sub(begin))?;
        let change = Change::Write { offset: from, bytes: bytes.into() };
        (!bytes.is_empty()).then_some(Pending { op: old.op, change, forgotten: old.forgotten })
    };
    let head = if begin < from { piece(begin, end.min(from)) } else { None };
    let tail = if to < end { piece(to.max(begin), end) } else { None };
    head.into_iter().chain(tail).collect()
}

impl Change {
    pub(super) fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Change::SetLen(len) => file.resize(*len, 0),
            Change::Write { offset, bytes } => {
                let end = offset.saturating_add(bytes.len());
                if file.len() < end {
                    file.resize(end, 0);
                }
                if let Some(place) = file.get_mut(*offset..end) {
                    place.copy_from_slice(bytes);
                }
            }
        }
    }
}

impl Entry {
    /// Entries of a file apply to that file only: a removal that is durable while the rename before it is not leaves
    /// the file that the name had until then.
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Entry::MakeDir(name) => _ = names.insert(Arc::clone(name), Node::Dir),
            Entry::Create(name, inode) => _ = names.insert(Arc::clone(name), Node::File(*inode)),
            Entry::Rename { from, to, inode } => {
                remove_if(names, from, *inode);
                names.insert(Arc::clone(to), Node::File(*inode));
            }
            Entry::Remove(name, inode) => remove_if(names, name, *inode),
        }
    }

    /// The name that it gives or takes away.
    pub(super) fn target(&self) -> &Name {
        match self {
            Entry::MakeDir(name) | Entry::Create(name, _) | Entry::Remove(name, _) => name,
            Entry::Rename { to, .. } => to,
        }
    }

    /// The name that a rename frees.
    fn source(&self) -> Option<&Name> {
        if let Entry::Rename { from, .. } = self { Some(from) } else { None }
    }

    fn touches(&self, name: &Path) -> bool {
        &**self.target() == name || self.source().is_some_and(|source| &**source == name)
    }
}

fn remove_if(names: &mut Names, name: &Name, inode: InodeId) {
    if names.get(name) == Some(&Node::File(inode)) {
        names.remove(name);
    }
}

/// Entries are kept or lost each for itself, with one exception: who keeps a name that a rename had freed keeps the
/// rename, or the renamed file would be left without either name.
pub(super) fn close_over_renames(entries: &[PendingEntry], keep: &mut [bool]) {
    for (k, later) in entries.iter().enumerate().rev() {
        if keep.get(k) == Some(&true) {
            for (earlier, keep) in entries.iter().zip(keep.iter_mut()).take(k) {
                *keep |= earlier.entry.source() == Some(later.entry.target());
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) names: Arc<Names>,
    pub(super) durable: Arc<Names>,
    pub(super) inodes: Vec<Inode>,
    pub(super) entries: Vec<PendingEntry>,
}

impl Ledger {
    pub(super) fn apply(&mut self, op: u64, effect: &Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Put(name, bytes) => self.put(name, bytes),
            Effect::Entries(entries) => entries.iter().for_each(|entry| self.enter(op, entry)),
            Effect::Change(inode, change) => {
                if let Some(inode) = self.inodes.get_mut(*inode) {
                    change.apply(Arc::make_mut(&mut inode.seen));
                    inode.pending.push(Pending { op, change: change.clone(), forgotten: false });
                    inode.unsynced = true;
                }
            }
            Effect::Settle(inode) => {
                if let Some(inode) = self.inodes.get_mut(*inode) {
                    inode.settle();
                    inode.unsynced = false;
                }
            }
            Effect::Forget(inode) => {
                let pending = self.inodes.get_mut(*inode).into_iter().flat_map(|inode| &mut inode.pending);
                pending.for_each(|pending| pending.forgotten = true);
            }
            Effect::Pretend(inode) => {
                if let Some(inode) = self.inodes.get_mut(*inode) {
                    inode.unsynced = false;
                }
            }
            Effect::SettleDir(dir) => {
                self.tell(dir);
                self.settle_dir(dir);
            }
            Effect::ForgetDir(dir) => {
                let of_dir = self.entries.iter_mut().filter(|entry| is_in(&entry.entry, dir));
                of_dir.for_each(|entry| entry.forgotten = true);
            }
            Effect::PretendDir(dir) => self.tell(dir),
        }
    }

    fn put(&mut self, name: &Name, bytes: &Bytes) {
        let inode = self.inodes.len();
        self.unlink(name);
        self.inodes.push(Inode::new(Arc::clone(name), Arc::clone(bytes)));
        self.entries.retain(|pending| !pending.entry.touches(name));
        for names in [&mut self.names, &mut self.durable] {
            let names = Arc::make_mut(names);
            for above in name.ancestors().skip(1).filter(|above| above.parent().is_some()) {
                names.insert(above.into(), Node::Dir);
            }
            names.insert(Arc::clone(name), Node::File(inode));
        }
    }

    fn enter(&mut self, op: u64, entry: &Entry) {
        match entry {
            Entry::MakeDir(_) => {}
            Entry::Create(name, _) => self.inodes.push(Inode::new(Arc::clone(name), Bytes::default())),
            Entry::Rename { to, inode, .. } => {
                self.unlink(to);
                if let Some(inode) = self.inodes.get_mut(*inode) {
                    inode.name = Arc::clone(to);
                }
            }
            Entry::Remove(name, _) => self.unlink(name),
        }
        entry.apply(Arc::make_mut(&mut self.names));
        self.entries.push(PendingEntry { op, entry: entry.clone(), forgotten: false, told: false });
    }

    fn unlink(&mut self, name: &Path) {
        if let Some(Node::File(inode)) = self.names.get(name)
            && let Some(inode) = self.inodes.get_mut(*inode)
        {
            inode.is_linked = false;
        }
    }

    fn tell(&mut self, dir: &Path) {
        self.entries.iter_mut().filter(|pending| is_in(&pending.entry, dir)).for_each(|pending| pending.told = true);
    }

    /// With an entry go the earlier ones of the same names: what is written is the name's last state.
    fn settle_dir(&mut self, dir: &Path) {
        let mut settled: Vec<bool> = self.entries.iter().map(|e| !e.forgotten && is_in(&e.entry, dir)).collect();
        for (k, later) in self.entries.iter().enumerate().rev() {
            if settled.get(k) == Some(&true) {
                for (earlier, settled) in self.entries.iter().zip(settled.iter_mut()).take(k) {
                    let source_touches = later.entry.source().is_some_and(|source| earlier.entry.touches(source));
                    *settled |= source_touches || earlier.entry.touches(later.entry.target());
                }
            }
        }
        let durable = Arc::make_mut(&mut self.durable);
        let mut settled = settled.into_iter();
        self.entries.retain(|pending| {
            let settled = settled.next() == Some(true);
            if settled {
                pending.entry.apply(durable);
            }
            !settled
        });
    }

    pub(super) fn has_pending_entries(&self, dir: &Path) -> bool {
        self.entries.iter().any(|pending| is_in(&pending.entry, dir))
    }

    /// Whether the process may take the file for durable: its bytes, and that it has this name.
    pub(super) fn is_promised(&self, name: &Path, inode: InodeId) -> bool {
        self.inodes.get(inode).is_some_and(|inode| !inode.unsynced)
            && self.entries.iter().all(|pending| pending.told || !pending.entry.touches(name))
    }
}

fn is_in(entry: &Entry, dir: &Path) -> bool {
    entry.target().parent() == Some(dir)
}
