//! Reading a tree entry by entry: through a borrowed tree, or leaf by leaf through leaves that are held.

use std::borrow::Borrow;
use std::ops::Bound;

use arrayvec::ArrayVec;
use triomphe::Arc;

use super::join::for_each_leaf;
use super::leaf::{Leaf, Values};
use super::spare::Spare;
use super::{Inner, Kind, Node, Tree, Way};

/// Keys that are warmed at once.
pub(crate) const WARM_MAX: usize = 16;

impl<K: Ord + Clone, V: Values> Tree<K, V> {
    /// Asks for the memory that a change of these keys will look at, all at once: at each step none of them needs what another
    /// one finds. Gives the way to each.
    pub(crate) fn warm<'q, Q: Ord + ?Sized + 'q>(
        &self,
        keys: impl Iterator<Item = &'q Q> + Clone,
    ) -> ArrayVec<Way, WARM_MAX>
    where
        K: Borrow<Q>,
    {
        let mut nodes: ArrayVec<&Node<K, V>, WARM_MAX> = ArrayVec::new();
        let mut ways = ArrayVec::new();
        let keys = keys.take(WARM_MAX);
        for key in keys.clone() {
            let Some((node, way)) = self.unseen(key) else { return ways };
            nodes.push(node);
            ways.push(way);
        }
        for (node, key) in nodes.iter().zip(keys) {
            if let Kind::Leaf(leaf) = &node.kind {
                leaf.values.prefetch(leaf.find(key));
            }
        }
        ways
    }

    /// Asks for the memory of the leaf that a key belongs to. Gives the way there.
    pub(crate) fn prefetch<Q: Ord + ?Sized>(&self, key: &Q) -> Way
    where
        K: Borrow<Q>,
    {
        self.unseen(key).map_or(Way::UNKNOWN, |(_, way)| way)
    }

    /// Asks for the memory of the value under a key, to which an earlier walk went that way.
    pub(crate) fn prefetch_value<Q: Ord + ?Sized>(&self, way: &Way, key: &Q)
    where
        K: Borrow<Q>,
    {
        let (mut node, mut level) = (&*self.root, 0_usize);
        loop {
            match &node.kind {
                Kind::Inner(inner) => {
                    let Some(child) = inner.children.get(inner.child_near(key, way.at(level))) else { return };
                    node = child;
                    level = level.saturating_add(1);
                }
                Kind::Leaf(leaf) => return leaf.values.prefetch(leaf.find(key)),
            }
        }
    }

    /// The leaf that a key belongs to, whose memory is asked for and not looked at, and the way there.
    fn unseen<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&Node<K, V>, Way)>
    where
        K: Borrow<Q>,
    {
        let (mut node, mut way) = (&*self.root, Way::UNKNOWN);
        let mut level = 0_usize;
        while let Kind::Inner(inner) = &node.kind {
            let at = inner.child_of(key);
            node = inner.child(at)?;
            way.note(level, at);
            level = level.saturating_add(1);
            if inner.is_lowest {
                break;
            }
        }
        Some((node, way))
    }

    /// The leaf that a key belongs to.
    #[inline]
    pub(super) fn leaf_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Leaf<K, V>>
    where
        K: Borrow<Q>,
    {
        let mut node = &*self.root;
        loop {
            match &node.kind {
                Kind::Inner(inner) => node = inner.child_for(key)?,
                Kind::Leaf(leaf) => return Some(leaf),
            }
        }
    }
}

/// A leaf that stays as it is while somebody holds it.
#[derive(Debug)]
pub(crate) struct SharedLeaf<K, V>(pub(super) Arc<Node<K, V>>);

impl<K, V> Clone for SharedLeaf<K, V> {
    fn clone(&self) -> SharedLeaf<K, V> {
        SharedLeaf(self.0.clone())
    }
}

impl<K: Ord + Clone, V: Values> SharedLeaf<K, V> {
    fn leaf(&self) -> &Leaf<K, V> {
        match &self.0.kind {
            Kind::Leaf(leaf) => leaf,
            Kind::Inner(_) => unreachable!("it is only made of leaves"),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.leaf().keys.len()
    }

    pub(crate) fn key(&self, at: usize) -> Option<&K> {
        self.leaf().keys.get(at)
    }

    pub(crate) fn value(&self, at: usize) -> Option<V::Out<'_>> {
        self.leaf().values.get(at)
    }

    /// All values will be read soon.
    pub(crate) fn fetch(&self) {
        self.leaf().values.fetch();
    }

    /// The first entry that is not before a bound.
    pub(crate) fn begin<Q: Ord + ?Sized>(&self, from: Bound<&Q>) -> usize
    where
        K: Borrow<Q>,
    {
        self.leaf().begin(from)
    }

    /// How many entries are not behind a bound.
    pub(crate) fn end<Q: Ord + ?Sized>(&self, to: Bound<&Q>) -> usize
    where
        K: Borrow<Q>,
    {
        self.leaf().end(to)
    }
}

impl<K: Ord + Clone, V: Values> Tree<K, V> {
    /// All leaves in order, each of which is let go of when it is given back.
    pub(crate) fn into_leaves(self) -> Leaves<K, V> {
        let mut leaves = Vec::new();
        for_each_leaf(self.root, &mut |leaf| leaves.push(SharedLeaf(leaf)));
        Leaves { leaves: leaves.into_iter(), spare: self.spare }
    }

    /// The leaf that holds the first entry from a bound on, and which one that is.
    pub(crate) fn leaf_from<Q: Ord + ?Sized>(&self, mut from: Bound<&Q>) -> Option<(SharedLeaf<K, V>, usize)>
    where
        K: Borrow<Q>,
    {
        let (mut node, mut right) = (&self.root, None);
        loop {
            match &node.kind {
                Kind::Inner(inner) => {
                    let child = match from {
                        Bound::Unbounded => 0,
                        Bound::Included(key) | Bound::Excluded(key) => inner.child_of(key),
                    };
                    node = inner.child(child)?;
                    if let Some(next) = inner.children.get(child.saturating_add(1)) {
                        right = Some(next);
                        if inner.is_lowest {
                            next.prefetch();
                        }
                    }
                }
                Kind::Leaf(leaf) => {
                    let at = leaf.begin(from);
                    if at < leaf.keys.len() {
                        return Some((SharedLeaf(node.clone()), at));
                    }
                    (node, from) = (right.take()?, Bound::Unbounded);
                }
            }
        }
    }

    /// The leaf that holds the last entry up to a bound, and how many of it are not behind the bound.
    pub(crate) fn leaf_back_from<Q: Ord + ?Sized>(&self, mut from: Bound<&Q>) -> Option<(SharedLeaf<K, V>, usize)>
    where
        K: Borrow<Q>,
    {
        let (mut node, mut left) = (&self.root, None);
        loop {
            match &node.kind {
                Kind::Inner(inner) => {
                    let child = match from {
                        Bound::Unbounded => inner.children.len().saturating_sub(1),
                        Bound::Included(key) | Bound::Excluded(key) => inner.child_of(key),
                    };
                    left = child.checked_sub(1).and_then(|child| inner.children.get(child)).or(left);
                    node = inner.child(child)?;
                }
                Kind::Leaf(leaf) => {
                    let end = leaf.end(from);
                    if end > 0 {
                        return Some((SharedLeaf(node.clone()), end));
                    }
                    (node, from) = (left.take()?, Bound::Unbounded);
                }
            }
        }
    }
}

/// The leaves of a tree, in order.
pub(crate) struct Leaves<K, V> {
    leaves: std::vec::IntoIter<SharedLeaf<K, V>>,
    spare: std::sync::Arc<Spare<K, V>>,
}

impl<K: Ord + Clone, V: Values> Leaves<K, V> {
    pub(crate) fn next(&mut self) -> Option<SharedLeaf<K, V>> {
        let leaf = self.leaves.next()?;
        // While this one is read the next one's values come, and what says where those of the one after it are.
        if let Some(next) = self.leaves.as_slice().first() {
            next.fetch();
        }
        if let Some(after) = self.leaves.as_slice().get(1) {
            after.0.prefetch();
        }
        Some(leaf)
    }

    /// Lets go of a leaf: the next copy of one is made where it was.
    pub(crate) fn give_back(&self, leaf: SharedLeaf<K, V>) {
        self.spare.give_back(leaf.0);
    }
}

/// Entries in ascending order.
pub(crate) struct Iter<'t, K, V> {
    /// The way down, each with the next child to visit.
    pub(super) above: Vec<(&'t Inner<K, V>, usize)>,
    pub(super) leaf: Option<(&'t Leaf<K, V>, usize)>,
}

impl<'t, K, V: Values> Iterator for Iter<'t, K, V> {
    type Item = (&'t K, V::Out<'t>);

    #[inline]
    fn next(&mut self) -> Option<(&'t K, V::Out<'t>)> {
        loop {
            let (leaf, at) = self.leaf.as_mut()?;
            if let (Some(key), Some(value)) = (leaf.keys.get(*at), leaf.values.get(*at)) {
                *at = at.saturating_add(1);
                return Some((key, value));
            }
            self.next_leaf();
        }
    }
}

impl<'t, K, V: Values> Iter<'t, K, V> {
    #[inline(never)]
    fn next_leaf(&mut self) {
        self.leaf = None;
        while let Some((inner, next)) = self.above.last_mut() {
            let Some(mut node) = inner.children.get(*next) else {
                self.above.pop();
                continue;
            };
            *next = next.saturating_add(1);
            while let Kind::Inner(inner) = &node.kind {
                self.above.push((inner, 1));
                match inner.children.first() {
                    Some(first) => node = first,
                    None => break,
                }
            }
            let after = self.above.last().and_then(|(inner, next)| inner.children.get(*next));
            if let Some(after) = after {
                after.prefetch();
            }
            if let Kind::Leaf(leaf) = &node.kind {
                leaf.values.fetch();
                self.leaf = Some((leaf, 0));
            }
            break;
        }
    }
}
