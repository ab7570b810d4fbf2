//! An ordered map whose copies cost a pointer: a B+tree of shared nodes, copied where a writer changes them.
//!
//! Entries lie in leaves, all at the same depth, in order; an inner node holds its children and, between each two, the
//! least key that belongs to the right one. A node that only this tree owns is changed in place; one that a copy of the
//! tree still sees is cloned first, and only the nodes from the root to the change are. A table of a database is one.
//!
//! What a leaf's values lie in is the caller's choice ([`Values`]): a vector, or pieces of bytes that copies
//! share.
//!
//! A general persistent map (imbl 7) in its place took three times as long for a million inserts under random keys.

mod join;
mod leaf;
mod spare;
mod stock;
mod walk;

use std::borrow::Borrow;
use std::ops::Bound;
use std::sync::Arc as StdArc;

use arrayvec::ArrayVec;
use triomphe::Arc;

use self::leaf::Leaf;
pub(crate) use self::leaf::{LEAF_MAX, Values};
use self::spare::Spare;
pub(crate) use self::walk::{Iter, Leaves, SharedLeaf, WARM_MAX};
use crate::memory;

/// Children of an inner node, which is no larger with them than a leaf of integer keys.
const CHILDREN_MAX: usize = 44;
/// Separators of an inner node.
const KEYS_MAX: usize = CHILDREN_MAX - 1;

/// A leaf or what is above leaves.
#[derive(Clone, Debug)]
#[repr(C)]
struct Node<K, V> {
    /// Where it begins: all that is known of one that was not looked at, and enough to ask for its memory.
    begin: [u64; 0],
    kind: Kind<K, V>,
}

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are dozens of leaves to each inner node, and a box would cost a miss"
)]
enum Kind<K, V> {
    Leaf(Leaf<K, V>),
    Inner(Inner<K, V>),
}

#[derive(Clone, Debug)]
struct Inner<K, V> {
    /// `keys[i]` is above every key in `children[i]` and not above any in `children[i + 1]`.
    keys: ArrayVec<K, KEYS_MAX>,
    children: ArrayVec<Arc<Node<K, V>>, CHILDREN_MAX>,
    /// Whether the children are leaves.
    is_lowest: bool,
}

/// Where a walk down to a key went: a guess for one that follows, which checks it at each step and so may come much later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way([u8; LEVELS_MAX]);

/// Levels of inner nodes that are guessed.
const LEVELS_MAX: usize = 8;

const _: () = assert!(CHILDREN_MAX < u8::MAX as usize);

impl Way {
    /// No guess.
    pub(crate) const UNKNOWN: Way = Way([u8::MAX; LEVELS_MAX]);

    fn note(&mut self, level: usize, child: usize) {
        if let Some(place) = self.0.get_mut(level) {
            *place = child as u8;
        }
    }

    fn at(&self, level: usize) -> usize {
        self.0.get(level).map_or(CHILDREN_MAX, |child| usize::from(*child))
    }
}

/// The map. `Clone` copies a pointer.
#[derive(Debug)]
pub(crate) struct Tree<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
    spare: StdArc<Spare<K, V>>,
}

impl<K, V> Clone for Tree<K, V> {
    fn clone(&self) -> Tree<K, V> {
        Tree { root: self.root.clone(), len: self.len, spare: StdArc::clone(&self.spare) }
    }
}

/// The right half of a node that was split, and the least key that belongs there.
type Split<K, V> = Option<(K, Arc<Node<K, V>>)>;

impl<K: Ord + Clone, V: Values> Tree<K, V> {
    pub(crate) fn new() -> Tree<K, V> {
        Tree::of(Node::new(Kind::Leaf(Leaf::new())), 0)
    }

    /// An empty one that has the root of this one, which is empty, until something is put into it.
    pub(crate) fn empty(&self) -> Tree<K, V> {
        debug_assert_eq!(self.len, 0);
        Tree::of(self.root.clone(), 0)
    }

    fn of(root: Arc<Node<K, V>>, len: usize) -> Tree<K, V> {
        Tree { root, len, spare: Spare::new(len) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<V::Out<'_>>
    where
        K: Borrow<Q>,
    {
        let leaf = self.leaf_of(key)?;
        leaf.values.get(leaf.find(key).ok()?)
    }

    /// Whether a copy of the tree has a node on the way to a key, which a change there would have to copy; and the value.
    pub(crate) fn look<Q: Ord + ?Sized>(&self, key: &Q) -> (bool, Option<V::Out<'_>>)
    where
        K: Borrow<Q>,
    {
        let (mut node, mut is_shared) = (&self.root, false);
        loop {
            is_shared |= !node.is_unique();
            match &node.kind {
                Kind::Inner(inner) => match inner.child_for(key) {
                    Some(child) => node = child,
                    None => return (is_shared, None),
                },
                Kind::Leaf(leaf) => {
                    let found = leaf.find(key);
                    leaf.values.prefetch(found);
                    return (is_shared, found.ok().and_then(|at| leaf.values.get(at)));
                }
            }
        }
    }

    pub(crate) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Puts a value under a key. Where there is one already, `occupied` decides, and the outcome is `true`.
    pub(crate) fn insert<'v>(
        &mut self,
        key: K,
        value: V::In<'v>,
        occupied: impl FnOnce(&mut V, usize, V::In<'v>),
    ) -> bool {
        self.insert_near(&Way::UNKNOWN, key, value, occupied)
    }

    /// The same, where an earlier walk to the key went that way.
    pub(crate) fn insert_near<'v>(
        &mut self,
        way: &Way,
        key: K,
        value: V::In<'v>,
        occupied: impl FnOnce(&mut V, usize, V::In<'v>),
    ) -> bool {
        let leaf = self.leaf_mut(way, &key);
        match leaf.find(&key) {
            Ok(at) => {
                occupied(&mut leaf.values, at, value);
                return true;
            }
            Err(at) if leaf.keys.len() < LEAF_MAX => {
                leaf.keys.insert(at, key);
                leaf.values.insert(at, value);
            }
            Err(_) => {
                let split = insert_into_full(&mut self.root, &self.spare, key, value);
                self.grow(split);
            }
        }
        self.len = self.len.saturating_add(1);
        false
    }

    /// The leaf that a key belongs to, for change: the nodes that lead there are copied where they are shared.
    fn leaf_mut<Q: Ord + ?Sized>(&mut self, way: &Way, key: &Q) -> &mut Leaf<K, V>
    where
        K: Borrow<Q>,
    {
        let mut node = self.spare.own(&mut self.root);
        let mut level = 0_usize;
        loop {
            match &mut node.kind {
                Kind::Inner(inner) => {
                    let child = inner.child_mut(inner.child_near(key, way.at(level)));
                    child.prefetch();
                    node = self.spare.own(child);
                    level = level.saturating_add(1);
                }
                Kind::Leaf(leaf) => return leaf,
            }
        }
    }

    /// A new root over the two halves of the old one.
    fn grow(&mut self, split: Split<K, V>) {
        self.spare.stock.set_entries(self.len);
        if let Some((key, right)) = split {
            let (mut keys, mut children) = (ArrayVec::new(), ArrayVec::new());
            keys.push(key);
            children.push(self.root.clone());
            children.push(right);
            self.root = Node::over(keys, children);
        }
    }

    /// Puts entries behind all that are there: their keys ascend, from above the greatest. `take` puts the next so many
    /// values behind the last one of a leaf. Every leaf is left full but for the last.
    pub(crate) fn append(&mut self, keys: impl Iterator<Item = K>, mut take: impl FnMut(&mut V, usize)) {
        let mut keys = keys.fuse();
        let leaf = last_leaf(&mut self.root);
        let before = leaf.keys.len();
        leaf.keys.extend(keys.by_ref().take(LEAF_MAX.saturating_sub(before)));
        let added = leaf.keys.len().saturating_sub(before);
        take(&mut leaf.values, added);
        self.len = self.len.saturating_add(added);
        loop {
            // Filled where it will stay.
            let mut node = Node::new(Kind::Leaf(Leaf::new()));
            let leaf = last_leaf(&mut node);
            leaf.keys.extend(keys.by_ref().take(LEAF_MAX));
            let Some(least) = leaf.keys.first().cloned() else { break };
            take(&mut leaf.values, leaf.keys.len());
            self.len = self.len.saturating_add(leaf.keys.len());
            let split = push(&mut self.root, &self.spare, least, node);
            self.grow(split);
        }
    }

    /// Takes the value under a key away; `old` sees it before it goes. `false` where there is none.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q, old: impl FnOnce(V::Out<'_>)) -> bool
    where
        K: Borrow<Q>,
    {
        // Looked for first, so that a key that is not there costs no copies.
        let Some(value) = self.get(key) else { return false };
        old(value);
        remove(&mut self.root, &self.spare, key);
        self.len = self.len.saturating_sub(1);
        self.spare.stock.set_entries(self.len);
        if self.root.size() == 0 {
            self.root = Node::new(Kind::Leaf(Leaf::new()));
        }
        // A root with one child is a level too many.
        while let Kind::Inner(inner) = &self.root.kind
            && inner.children.len() == 1
            && let Some(only) = inner.children.first().cloned()
        {
            self.root = only;
        }
        true
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.iter_from::<K>(Bound::Unbounded)
    }

    /// All values in the order of their keys.
    pub(crate) fn values(&self) -> impl Iterator<Item = V::Out<'_>> {
        self.iter().map(|(_, value)| value)
    }

    /// The entries from a bound on, ascending.
    pub(crate) fn iter_from<Q: Ord + ?Sized>(&self, from: Bound<&Q>) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let mut iter = Iter { above: Vec::new(), leaf: None };
        let mut node = &*self.root;
        loop {
            match &node.kind {
                Kind::Inner(inner) => {
                    let child = match from {
                        Bound::Unbounded => 0,
                        Bound::Included(key) | Bound::Excluded(key) => inner.child_of(key),
                    };
                    let behind = child.saturating_add(1);
                    iter.above.push((inner, behind));
                    match inner.child(child) {
                        Some(child) => node = child,
                        None => return iter,
                    }
                    if inner.is_lowest {
                        let _after = inner.child(behind);
                    }
                }
                Kind::Leaf(leaf) => {
                    iter.leaf = Some((leaf, leaf.begin(from)));
                    return iter;
                }
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone> Tree<K, Vec<V>> {
    /// Access for change: copies the nodes that lead there where they are shared.
    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let leaf = self.leaf_mut(&Way::UNKNOWN, key);
        let at = leaf.find(key).ok()?;
        leaf.values.get_mut(at)
    }
}

impl<K: Ord + Clone, V: Values> Inner<K, V> {
    /// Which child holds the key, if any does.
    fn child_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.keys.partition_point(|k| k.borrow() <= key)
    }

    /// The same with a guess: where it is right, two looks.
    fn child_near<Q: Ord + ?Sized>(&self, key: &Q, guess: usize) -> usize
    where
        K: Borrow<Q>,
    {
        let is_from = |before: usize| self.keys.get(before).is_some_and(|k| k.borrow() <= key);
        let is_below = self.keys.get(guess).map_or(guess == self.keys.len(), |k| k.borrow() > key);
        if is_below && guess.checked_sub(1).is_none_or(is_from) { guess } else { self.child_of(key) }
    }

    /// The child at a place, which a search for a key has found.
    fn child_mut(&mut self, at: usize) -> &mut Arc<Node<K, V>> {
        match self.children.get_mut(at) {
            Some(child) => child,
            None => unreachable!("an inner node has a child for every key"),
        }
    }

    /// The child at a place, whose memory is asked for: whoever goes there waits for it once and not at each step of a search.
    fn child(&self, at: usize) -> Option<&Arc<Node<K, V>>> {
        let child = self.children.get(at)?;
        child.prefetch();
        Some(child)
    }

    /// The child that holds a key, if any does, whose memory is asked for.
    fn child_for<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<Node<K, V>>>
    where
        K: Borrow<Q>,
    {
        self.child(self.child_of(key))
    }
}

impl<K, V> Node<K, V> {
    fn new(kind: Kind<K, V>) -> Arc<Node<K, V>> {
        Arc::new(Node { begin: [], kind })
    }

    /// The node over others.
    fn over(keys: ArrayVec<K, KEYS_MAX>, children: ArrayVec<Arc<Node<K, V>>, CHILDREN_MAX>) -> Arc<Node<K, V>> {
        let is_lowest = children.first().is_some_and(|child| matches!(child.kind, Kind::Leaf(_)));
        Node::new(Kind::Inner(Inner { keys, children, is_lowest }))
    }

    /// Asks for its memory, all at once: of a leaf for what says where its values lie.
    fn prefetch(&self) {
        memory::prefetch(&self.begin, size_of::<Inner<K, V>>() / size_of::<u64>());
    }
}

impl<K: Ord + Clone, V: Values> Node<K, V> {
    fn size(&self) -> usize {
        match &self.kind {
            Kind::Leaf(leaf) => leaf.keys.len(),
            Kind::Inner(inner) => inner.children.len(),
        }
    }

    fn max(&self) -> usize {
        match &self.kind {
            Kind::Leaf(_) => LEAF_MAX,
            Kind::Inner(_) => CHILDREN_MAX,
        }
    }
}

/// Puts a value under a key that has none, whose leaf is full: it goes before all of the next leaf where it may, or else
/// the leaf is split, and so is what is full above it. The nodes that lead there are shared with nobody.
fn insert_into_full<K: Ord + Clone, V: Values>(
    node: &mut Arc<Node<K, V>>,
    spare: &Spare<K, V>,
    key: K,
    value: V::In<'_>,
) -> Split<K, V> {
    match &mut spare.own(node).kind {
        Kind::Leaf(leaf) => {
            let at = leaf.find(&key).unwrap_or_else(|at| at);
            // At its end a leaf is left full, so that keys that ascend fill every leaf. So do those that descend, as the
            // next ones find the leaf made here behind their own.
            let middle = if at == LEAF_MAX { LEAF_MAX } else { LEAF_MAX / 2 };
            let mut right = Leaf { keys: leaf.keys.drain(middle..).collect(), values: leaf.values.split_off(middle) };
            let (half, at) = if at >= middle { (&mut right, at.saturating_sub(middle)) } else { (leaf, at) };
            half.keys.insert(at, key);
            half.values.insert(at, value);
            let least = right.keys.first().cloned();
            least.map(|least| (least, spare.with(Kind::Leaf(right))))
        }
        Kind::Inner(inner) => {
            let at = inner.child_of(&key);
            if let Some(leaf) = inner.roomy_leaf_behind(at, &key, spare) {
                leaf.keys.insert(0, key.clone());
                leaf.values.insert(0, value);
                if let Some(separator) = inner.keys.get_mut(at) {
                    *separator = key;
                }
                return None;
            }
            let (key, right) = insert_into_full(inner.child_mut(at), spare, key, value)?;
            inner.add(at, key, right, spare)
        }
    }
}

/// Puts a leaf behind the last one.
fn push<K: Ord + Clone, V: Values>(
    node: &mut Arc<Node<K, V>>,
    spare: &Spare<K, V>,
    least: K,
    leaf: Arc<Node<K, V>>,
) -> Split<K, V> {
    match &node.kind {
        Kind::Leaf(_) => Some((least, leaf)),
        Kind::Inner(_) => {
            let Kind::Inner(inner) = &mut Arc::make_mut(node).kind else { return None };
            let (key, right) = push(inner.children.last_mut()?, spare, least, leaf)?;
            inner.add(inner.keys.len(), key, right, spare)
        }
    }
}

fn last_leaf<K: Ord + Clone, V: Values>(node: &mut Arc<Node<K, V>>) -> &mut Leaf<K, V> {
    match &mut Arc::make_mut(node).kind {
        Kind::Leaf(leaf) => leaf,
        Kind::Inner(inner) => match inner.children.last_mut() {
            Some(child) => last_leaf(child),
            None => unreachable!("an inner node has children"),
        },
    }
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Values, Q: Ord + ?Sized>(
    node: &mut Arc<Node<K, V>>,
    spare: &Spare<K, V>,
    key: &Q,
) {
    match &mut spare.own(node).kind {
        Kind::Leaf(leaf) => {
            if let Ok(at) = leaf.find(key) {
                leaf.keys.remove(at);
                leaf.values.remove(at);
            }
        }
        Kind::Inner(inner) => {
            let at = inner.child_of(key);
            if let Some(child) = inner.children.get_mut(at) {
                remove(child, spare, key);
            }
            inner.mend(at);
        }
    }
}

impl<K: Ord + Clone, V: Values> Inner<K, V> {
    /// The leaf behind the one at a place, for change, where a key that belongs behind all of that one may go before all of
    /// this one, which has room.
    fn roomy_leaf_behind(&mut self, at: usize, key: &K, spare: &Spare<K, V>) -> Option<&mut Leaf<K, V>> {
        let Kind::Leaf(leaf) = &self.children.get(at)?.kind else { return None };
        if leaf.keys.last().is_none_or(|last| last > key) {
            return None;
        }
        let behind = self.children.get_mut(at.saturating_add(1))?;
        if behind.size() >= LEAF_MAX {
            return None;
        }
        match &mut spare.own(behind).kind {
            Kind::Leaf(leaf) => Some(leaf),
            Kind::Inner(_) => None,
        }
    }

    /// Takes in the right half of a child that was split; splits this node where it is full.
    fn add(&mut self, at: usize, key: K, right: Arc<Node<K, V>>, spare: &Spare<K, V>) -> Split<K, V> {
        if self.children.len() < CHILDREN_MAX {
            self.keys.insert(at, key);
            self.children.insert(at.saturating_add(1), right);
            return None;
        }
        // Children middle.. go right; the separator before them goes up.
        let middle = if at == KEYS_MAX { KEYS_MAX } else { CHILDREN_MAX / 2 };
        let (keys, children) = (self.keys.drain(middle..).collect(), self.children.drain(middle..).collect());
        let mut new = Inner { keys, children, is_lowest: self.is_lowest };
        let Some(up) = self.keys.pop() else { unreachable!("middle is at least 1") };
        let (half, at) = if at >= middle { (&mut new, at.saturating_sub(middle)) } else { (self, at) };
        half.keys.insert(at, key);
        half.children.insert(at.saturating_add(1), right);
        Some((up, spare.with(Kind::Inner(new))))
    }

    /// Drops a child that has become empty; merges one that has become small with a neighbour, where both fit into one
    /// with room to spare.
    fn mend(&mut self, at: usize) {
        let size = |at: usize| self.children.get(at).map(|child| child.size());
        let Some(own) = size(at) else { return };
        let max = self.children.get(at).map_or(0, |child| child.max());
        if own == 0 {
            // Its keys' range falls to a neighbour; without one, this node is empty too, and its parent sees to it.
            self.children.remove(at);
            if !self.keys.is_empty() {
                self.keys.remove(at.saturating_sub(1));
            }
            return;
        }
        if own > max / 4 {
            return;
        }
        let fits = |other: Option<usize>| other.is_some_and(|other| own.saturating_add(other) <= max / 4 * 3);
        let left = if at > 0 && fits(size(at.saturating_sub(1))) {
            at.saturating_sub(1)
        } else if fits(size(at.saturating_add(1))) {
            at
        } else {
            return;
        };
        let separator = self.keys.remove(left);
        let right = self.children.remove(left.saturating_add(1));
        let Some(child) = self.children.get_mut(left) else { return };
        match (&mut Arc::make_mut(child).kind, Arc::unwrap_or_clone(right).kind) {
            (Kind::Leaf(left), Kind::Leaf(right)) => {
                left.keys.extend(right.keys);
                left.values.append(right.values);
            }
            (Kind::Inner(left), Kind::Inner(right)) => {
                left.keys.push(separator);
                left.keys.extend(right.keys);
                left.children.extend(right.children);
            }
            _ => unreachable!("all leaves are at the same depth"),
        }
    }
}

#[cfg(test)]
mod tests;
