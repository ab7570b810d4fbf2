//! The disk after a crash: every legal image of it, one after the other.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::xxh3_128;

use super::SimStorage;
use super::disk::{Disk, Step, normal};
use super::ledger::{Bytes, Change, Effect, Inode, InodeId, Ledger, Names, Node, Pending, close_over_renames};
use super::plan::{Budget, Choice, Extent, Fill, Half, Plan, Subset, Torn, plan};

/// Which image of which crash: `n:index`, as printed for a failure and parsed to see it again.
///
/// The index counts what the same [`Budget`] makes of the same recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId {
    /// The crash came just after this operation.
    pub op: u64,
    /// The image's place among those of the crash.
    pub index: u64,
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.op, self.index)
    }
}

impl FromStr for ImageId {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<ImageId> {
        let parsed = text.split_once(':').and_then(|(op, index)| Some((op.parse().ok()?, index.parse().ok()?)));
        let (op, index) = parsed.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is not of the form operation:index"))
        })?;
        Ok(ImageId { op, index })
    }
}

/// The disk at the moment of a crash, shared by all its images.
struct Crash {
    op: u64,
    ledger: Ledger,
    /// The pending changes of all files, in the order in which they were made.
    changes: Vec<(InodeId, Pending)>,
    /// Which files have any.
    is_pending: Vec<bool>,
    names_all: Arc<Names>,
    names_durable: Arc<Names>,
    /// Bytes of the file that was removed last.
    stale: Bytes,
    /// Hashes of files as they are durable, and as the process saw them.
    hashes: Vec<[OnceLock<u128>; 2]>,
    steps: Vec<Step>,
    marks: Vec<(u64, u64)>,
}

/// Operations behind the crash that [`Image::describe`] shows.
const SHOWN_AFTER: usize = 3;

impl Crash {
    fn of(disk: &Disk, op: u64) -> Crash {
        let op = op.min(disk.op_count());
        let until = usize::try_from(op).unwrap_or(usize::MAX);
        let mut ledger = disk.base.clone();
        for (number, step) in (1..).zip(disk.steps.iter().take(until)) {
            ledger.apply(number, &step.effect);
        }
        let pending = |(id, inode): (InodeId, &Inode)| {
            inode.pending.iter().map(|pending| (id, pending.clone())).collect::<Vec<_>>()
        };
        let mut changes: Vec<_> = ledger.inodes.iter().enumerate().flat_map(pending).collect();
        changes.sort_by_key(|(_, pending)| pending.op);
        let is_pending = ledger.inodes.iter().map(|inode| !inode.pending.is_empty()).collect();
        let names = |subset| Arc::new(reachable(names_of(&ledger, subset)));
        let (names_all, names_durable) = (names(Subset::All), names(Subset::Nothing));
        let removed = ledger.inodes.iter().rev().find(|inode| !inode.is_linked && !inode.seen.is_empty());
        let stale = removed.map(|inode| Arc::clone(&inode.seen)).unwrap_or_default();
        let hashes = ledger.inodes.iter().map(|_| Default::default()).collect();
        let steps = disk.steps.iter().take(until.saturating_add(SHOWN_AFTER)).cloned().collect();
        let marks = disk.marks.clone();
        Crash { op, ledger, changes, is_pending, names_all, names_durable, stale, hashes, steps, marks }
    }

    fn plan(&self, budget: &Budget) -> Plan {
        let extent = |(id, pending): &(InodeId, Pending)| {
            let durable = self.ledger.inodes.get(*id).map_or(0, |inode| inode.durable.len());
            match &pending.change {
                Change::SetLen(_) => Extent { len: 0, grows: false },
                Change::Write { offset, bytes } => {
                    Extent { len: bytes.len(), grows: offset.saturating_add(bytes.len()) > durable }
                }
            }
        };
        // Where lengths are changed apart from writes, what a write grows depends on what else is kept.
        let lengths = self.changes.iter().any(|(_, pending)| matches!(pending.change, Change::SetLen(_)));
        let grows = |extent: Extent| Extent { grows: extent.grows || lengths, ..extent };
        let extents = self.changes.iter().map(extent).map(grows).collect();
        plan(extents, self.ledger.entries.len(), !self.stale.is_empty(), budget)
    }

    fn names(&self, entries: Subset) -> Arc<Names> {
        match entries {
            Subset::All => Arc::clone(&self.names_all),
            Subset::Nothing => Arc::clone(&self.names_durable),
            subset => Arc::new(reachable(names_of(&self.ledger, subset))),
        }
    }

    /// The file's bytes and their hash.
    fn content(&self, id: InodeId, choice: &Choice) -> (Bytes, u128) {
        let Some(inode) = self.ledger.inodes.get(id) else { return (Bytes::default(), 0) };
        let hash = |which: usize, bytes: &Bytes| {
            let known = self.hashes.get(id).and_then(|hashes| hashes.get(which));
            known.map_or(0, |hash| *hash.get_or_init(|| xxh3_128(bytes)))
        };
        let is_torn = choice.torn.is_some_and(|torn| self.changes.get(torn.change).is_some_and(|(of, _)| *of == id));
        if self.is_pending.get(id) != Some(&true) || (!is_torn && choice.changes == Subset::Nothing) {
            return (Arc::clone(&inode.durable), hash(0, &inode.durable));
        }
        if !is_torn && choice.changes == Subset::All {
            return (Arc::clone(&inode.seen), hash(1, &inode.seen));
        }
        let mut bytes = inode.durable.to_vec();
        for (i, (of, pending)) in self.changes.iter().enumerate() {
            match (&choice.torn, &pending.change) {
                _ if *of != id => {}
                (Some(torn), Change::Write { offset, bytes: written }) if torn.change == i => {
                    tear(&mut bytes, *offset, written, torn, &self.stale);
                }
                _ if choice.changes.has(i) => pending.change.apply(&mut bytes),
                _ => {}
            }
        }
        let hash = xxh3_128(&bytes);
        (Arc::new(bytes), hash)
    }

    /// The image and the hash of all that is in it; `None` if the write to be torn is in a file that is not there.
    fn image(self: &Arc<Crash>, index: u64, choice: Choice) -> Option<(Image, u128)> {
        let names = self.names(choice.entries);
        if let Some((torn, _)) = choice.torn.and_then(|torn| self.changes.get(torn.change))
            && !names.values().any(|node| *node == Node::File(*torn))
        {
            return None;
        }
        let mut contents = vec![None; self.ledger.inodes.len()];
        let mut all = 0_u128;
        for (name, node) in names.iter() {
            let path = xxh3_128(name.as_os_str().as_encoded_bytes());
            let content = match node {
                Node::Dir => 1,
                Node::File(id) => {
                    let (bytes, hash) = self.content(*id, &choice);
                    if let Some(content) = contents.get_mut(*id) {
                        *content = Some(bytes);
                    }
                    hash
                }
            };
            let mut both = [0; 32];
            let (head, tail) = both.split_at_mut(16);
            head.copy_from_slice(&path.to_le_bytes());
            tail.copy_from_slice(&content.to_le_bytes());
            all = all.wrapping_add(xxh3_128(&both));
        }
        let id = ImageId { op: self.op, index };
        Some((Image { id, choice, crash: Arc::clone(self), names, contents }, all))
    }
}

fn names_of(ledger: &Ledger, subset: Subset) -> Names {
    let mut keep: Vec<bool> = (0..ledger.entries.len()).map(|i| subset.has(i)).collect();
    close_over_renames(&ledger.entries, &mut keep);
    let mut names = ledger.durable.as_ref().clone();
    for (pending, _) in ledger.entries.iter().zip(keep).filter(|(_, keep)| *keep) {
        pending.entry.apply(&mut names);
    }
    names
}

/// Without what is in a directory that is not there. A path comes behind those above it.
fn reachable(names: Names) -> Names {
    let mut reached = Names::new();
    for (name, node) in names {
        let above = name.parent();
        if above.is_none_or(|dir| dir.parent().is_none() || reached.get(dir) == Some(&Node::Dir)) {
            reached.insert(name, node);
        }
    }
    reached
}

/// Does to `file` what is left of a write.
fn tear(file: &mut Vec<u8>, offset: usize, written: &[u8], torn: &Torn, stale: &[u8]) {
    let (old, at) = (file.len(), torn.at.min(written.len()));
    let end = offset.saturating_add(written.len());
    let cut = offset.saturating_add(at);
    let (kept, lost) = match torn.half {
        Half::Head => (offset..cut, cut..end),
        Half::Tail => (cut..end, offset..cut),
    };
    let reaches = if torn.fill == Fill::Old && kept.is_empty() {
        old
    } else if torn.fill == Fill::Old {
        kept.end
    } else {
        end
    };
    if file.len() < reaches {
        file.resize(reaches, 0);
    }
    let survives = match torn.half {
        Half::Head => written.get(..at),
        Half::Tail => written.get(at..),
    };
    if let (Some(place), Some(survives)) = (file.get_mut(kept), survives) {
        place.copy_from_slice(survives);
    }
    let fresh = lost.start.max(old)..lost.end.max(old);
    match torn.fill {
        Fill::Old | Fill::Hole => {}
        Fill::Zeros => file.get_mut(lost).into_iter().for_each(|place| place.fill(0)),
        Fill::Ones => file.get_mut(lost).into_iter().for_each(|place| place.fill(0xFF)),
        Fill::Stale => {
            let from = stale.iter().cycle().skip(fresh.start.checked_rem(stale.len()).unwrap_or(0));
            let place = file.get_mut(fresh).unwrap_or_default();
            place.iter_mut().zip(from).for_each(|(place, byte)| *place = *byte);
        }
    }
}

/// The legal images of one crash, from [`SimStorage::images`]. No two of them are the same.
pub struct Images {
    crash: Arc<Crash>,
    plan: std::iter::Enumerate<Plan>,
    made: HashSet<u128>,
}

impl Images {
    pub(super) fn of(disk: &Disk, op: u64, budget: &Budget) -> Images {
        let crash = Arc::new(Crash::of(disk, op));
        let plan = crash.plan(budget).enumerate();
        Images { crash, plan, made: HashSet::new() }
    }

    /// The image of this index, whether or not it equals an earlier one.
    pub(super) fn at(mut self, index: u64) -> Option<Image> {
        let (_, choice) = self.plan.nth(usize::try_from(index).ok()?)?;
        self.crash.image(index, choice).map(|(image, _)| image)
    }
}

impl Iterator for Images {
    type Item = Image;

    fn next(&mut self) -> Option<Image> {
        loop {
            let (index, choice) = self.plan.next()?;
            if let Some((image, hash)) = self.crash.image(index as u64, choice)
                && self.made.insert(hash)
            {
                return Some(image);
            }
        }
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Images(after operation {}, {} so far)", self.crash.op, self.made.len())
    }
}

/// A disk as a crash may have left it.
#[derive(Clone)]
pub struct Image {
    id: ImageId,
    choice: Choice,
    crash: Arc<Crash>,
    names: Arc<Names>,
    /// By inode; `None` for those that are not there.
    contents: Vec<Option<Bytes>>,
}

impl Image {
    /// What to print when the program fails on it: [`SimStorage::image`] makes it again.
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// The disk after the restart: all that it holds is durable, nothing is recorded yet. Shares the bytes that it
    /// does not change.
    pub fn storage(&self) -> SimStorage {
        let inodes = self.crash.ledger.inodes.iter().zip(&self.contents).map(|(inode, content)| {
            let mut fresh = Inode::new(Arc::clone(&inode.name), Bytes::default());
            match content {
                // Files that are gone may still turn up as stale bytes.
                None => (fresh.is_linked, fresh.seen) = (false, Arc::clone(&inode.seen)),
                Some(bytes) => (fresh.seen, fresh.durable) = (Arc::clone(bytes), Arc::clone(bytes)),
            }
            fresh
        });
        let names = || Arc::clone(&self.names);
        let ledger = Ledger { names: names(), durable: names(), inodes: inodes.collect(), entries: Vec::new() };
        SimStorage::of(Disk::of(ledger))
    }

    /// The paths of all files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        let files = self.names.iter().filter(|(_, node)| **node != Node::Dir);
        files.map(|(name, _)| name.to_path_buf()).collect()
    }

    /// The bytes of the file at `path`; `None` if there is none.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<&[u8]> {
        match self.names.get(&*normal(path.as_ref()))? {
            Node::Dir => None,
            Node::File(id) => self.contents.get(*id)?.as_deref().map(Vec::as_slice),
        }
    }

    /// The operations up to the crash and a few behind it, and what became of each that was pending; a line each.
    ///
    /// Operations that changed nothing are left out, unless they failed.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut marks = self.crash.marks.iter().peekable();
        for (op, step) in (1..).zip(&self.crash.steps) {
            while let Some((_, mark)) = marks.next_if(|(after, _)| *after < op) {
                _ = writeln!(text, "        mark {mark}");
            }
            if op == self.crash.op.saturating_add(1) {
                self.describe_crash(&mut text);
            }
            if matches!(step.effect, Effect::Nothing) && step.error.is_none() {
                continue;
            }
            _ = write!(text, "{op:>6}  {}", step.act);
            if let Some(error) = step.error {
                _ = write!(text, ", failed: {error}");
            }
            if op <= self.crash.op
                && let Some(fate) = self.fate(op)
            {
                _ = write!(text, "  <- {fate}");
            }
            text.push('\n');
        }
        if self.crash.op >= self.crash.steps.len() as u64 {
            marks.for_each(|(_, mark)| _ = writeln!(text, "        mark {mark}"));
            self.describe_crash(&mut text);
        }
        text
    }

    fn describe_crash(&self, text: &mut String) {
        _ = writeln!(text, "------  crash, SIM_REPRO={}, leaves:", self.id);
        for (name, node) in self.names.iter() {
            _ = match node {
                Node::Dir => writeln!(text, "        {}/", name.display()),
                Node::File(_) => {
                    let len = self.read(name).map_or(0, <[u8]>::len);
                    writeln!(text, "        {} ({len} bytes)", name.display())
                }
            };
        }
        _ = writeln!(text, "------");
    }

    /// What became of an operation that was pending.
    fn fate(&self, op: u64) -> Option<String> {
        let mut fates = Vec::new();
        for (i, (_, pending)) in self.crash.changes.iter().enumerate().filter(|(_, (_, pending))| pending.op == op) {
            fates.push(match (self.choice.torn, &pending.change) {
                (Some(torn), Change::Write { bytes, .. }) if torn.change == i => {
                    let (at, len) = (torn.at, bytes.len());
                    let kept = match torn.half {
                        Half::Head => format!("bytes 0..{at} of {len} kept"),
                        Half::Tail => format!("bytes {at}..{len} of {len} kept"),
                    };
                    format!("torn: {kept}, the rest {:?}", torn.fill)
                }
                _ if self.choice.changes.has(i) => "kept".into(),
                _ => "lost".into(),
            });
        }
        let entries = &self.crash.ledger.entries;
        let mut keep: Vec<bool> = (0..entries.len()).map(|i| self.choice.entries.has(i)).collect();
        close_over_renames(entries, &mut keep);
        for (_, keep) in entries.iter().zip(keep).filter(|(pending, _)| pending.op == op) {
            fates.push(if keep { "entry kept".into() } else { "entry lost".into() });
        }
        (!fates.is_empty()).then(|| fates.join(", "))
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("id", &self.id).field("paths", &self.paths()).finish_non_exhaustive()
    }
}
