//! An ordered map whose copies cost a pointer: a B+tree of shared nodes, copied where a writer changes them.
//!
//! Entries lie in leaves, all at the same depth, in order; an inner node holds its children and, between each two, the
//! least key that belongs to the right one. A node that only this tree owns is changed in place; one that a copy of the
//! tree still sees is cloned first, and only the nodes from the root to the change are. A table of a database is one.
//!
//! A general persistent map (imbl 7) in its place took three times as long for a million inserts under random keys.

use std::borrow::Borrow;
use std::ops::Bound;

use arrayvec::ArrayVec;
use triomphe::Arc;

/// Entries of a leaf. More make the tree lower and a leaf dearer to copy while a snapshot is held.
const LEAF_MAX: usize = 32;
/// Children of an inner node.
const CHILDREN_MAX: usize = 32;
/// Separators of an inner node.
const KEYS_MAX: usize = CHILDREN_MAX - 1;

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are dozens of leaves to each inner node, and a box would cost a miss"
)]
enum Node<K, V> {
    Leaf(Leaf<K, V>),
    Inner(Inner<K, V>),
}

#[derive(Clone, Debug)]
struct Leaf<K, V> {
    keys: ArrayVec<K, LEAF_MAX>,
    values: ArrayVec<V, LEAF_MAX>,
}

#[derive(Clone, Debug)]
struct Inner<K, V> {
    /// `keys[i]` is above every key in `children[i]` and not above any in `children[i + 1]`.
    keys: ArrayVec<K, KEYS_MAX>,
    children: ArrayVec<Arc<Node<K, V>>, CHILDREN_MAX>,
}

/// The map. `Clone` copies a pointer.
#[derive(Debug)]
pub(crate) struct Tree<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

impl<K, V> Clone for Tree<K, V> {
    fn clone(&self) -> Tree<K, V> {
        Tree { root: self.root.clone(), len: self.len }
    }
}

/// What an insertion did to a node: the value replaced, and the right half where the node was split.
type Inserted<K, V> = (Option<V>, Option<(K, Arc<Node<K, V>>)>);

impl<K: Ord + Clone, V: Clone> Tree<K, V> {
    pub(crate) fn new() -> Tree<K, V> {
        Tree { root: Arc::new(Node::Leaf(Leaf::new())), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(inner) => node = inner.children.get(inner.child_of(key))?,
                Node::Leaf(leaf) => return leaf.values.get(leaf.find(key).ok()?),
            }
        }
    }

    pub(crate) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Access for change: copies the nodes that lead there where they are shared.
    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let mut node = Arc::make_mut(&mut self.root);
        loop {
            match node {
                Node::Inner(inner) => {
                    let child = inner.child_of(key);
                    node = Arc::make_mut(inner.children.get_mut(child)?);
                }
                Node::Leaf(leaf) => {
                    let at = leaf.find(key).ok()?;
                    return leaf.values.get_mut(at);
                }
            }
        }
    }

    /// Puts a value under a key; gives the one that it replaces.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.insert_with(key, value, |old, value| std::mem::replace(old, value))
    }

    /// Puts a value under a key that has none; gives it back where there is one already.
    pub(crate) fn insert_new(&mut self, key: K, value: V) -> Option<V> {
        self.insert_with(key, value, |_, value| value)
    }

    /// `occupied` decides about a value that is there already, and what to give back.
    fn insert_with(&mut self, key: K, value: V, occupied: impl FnOnce(&mut V, V) -> V) -> Option<V> {
        let (old, split) = insert(&mut self.root, key, value, occupied);
        if let Some((key, right)) = split {
            let (mut keys, mut children) = (ArrayVec::new(), ArrayVec::new());
            keys.push(key);
            children.push(self.root.clone());
            children.push(right);
            self.root = Arc::new(Node::Inner(Inner { keys, children }));
        }
        if old.is_none() {
            self.len = self.len.saturating_add(1);
        }
        old
    }

    /// Takes the value under a key away.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // Looked for first, so that a key that is not there costs no copies.
        if !self.contains_key(key) {
            return None;
        }
        let old = remove(&mut self.root, key);
        if old.is_some() {
            self.len = self.len.saturating_sub(1);
        }
        if self.root.size() == 0 {
            self.root = Arc::new(Node::Leaf(Leaf::new()));
        }
        // A root with one child is a level too many.
        while let Node::Inner(inner) = &*self.root
            && inner.children.len() == 1
            && let Some(only) = inner.children.first().cloned()
        {
            self.root = only;
        }
        old
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.iter_from::<K>(Bound::Unbounded)
    }

    /// All values in the order of their keys.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
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
            match node {
                Node::Inner(inner) => {
                    let child = match from {
                        Bound::Unbounded => 0,
                        Bound::Included(key) | Bound::Excluded(key) => inner.child_of(key),
                    };
                    iter.above.push((inner, child.saturating_add(1)));
                    match inner.children.get(child) {
                        Some(child) => node = child,
                        None => return iter,
                    }
                }
                Node::Leaf(leaf) => {
                    let at = match from {
                        Bound::Unbounded => 0,
                        Bound::Included(key) => leaf.find(key).unwrap_or_else(|at| at),
                        Bound::Excluded(key) => leaf.find(key).map_or_else(|at| at, |at| at.saturating_add(1)),
                    };
                    iter.leaf = Some((leaf, at));
                    return iter;
                }
            }
        }
    }

    /// The entries up to a bound, descending.
    pub(crate) fn iter_back_from<Q: Ord + ?Sized>(&self, from: Bound<&Q>) -> IterBack<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let mut iter = IterBack { above: Vec::new(), leaf: None };
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let child = match from {
                        Bound::Unbounded => inner.children.len().saturating_sub(1),
                        Bound::Included(key) | Bound::Excluded(key) => inner.child_of(key),
                    };
                    iter.above.push((inner, child));
                    match inner.children.get(child) {
                        Some(child) => node = child,
                        None => return iter,
                    }
                }
                Node::Leaf(leaf) => {
                    let end = match from {
                        Bound::Unbounded => leaf.keys.len(),
                        Bound::Included(key) => leaf.find(key).map_or_else(|at| at, |at| at.saturating_add(1)),
                        Bound::Excluded(key) => leaf.find(key).unwrap_or_else(|at| at),
                    };
                    iter.leaf = Some((leaf, end));
                    return iter;
                }
            }
        }
    }
}

/// How many keys, of keys in order, come before a place.
///
/// Keys of a machine word are looked at in two rounds, every eighth, then those between: within a round no look waits for
/// another's outcome, so that a node which is not in the cache costs the time of one miss and not of one for each step of
/// a binary search.
fn partition<K>(keys: &[K], is_before: impl Fn(&K) -> bool) -> usize {
    const STRIDE: usize = 8;
    if size_of::<K>() > size_of::<u64>() {
        return keys.partition_point(is_before);
    }
    let strides = keys.chunks_exact(STRIDE).filter(|chunk| chunk.last().is_some_and(&is_before)).count();
    let from = strides.saturating_mul(STRIDE);
    let rest = keys.iter().skip(from).take(STRIDE).filter(|key| is_before(key)).count();
    from.saturating_add(rest)
}

impl<K: Ord + Clone, V: Clone> Leaf<K, V> {
    fn new() -> Leaf<K, V> {
        Leaf { keys: ArrayVec::new(), values: ArrayVec::new() }
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        let at = partition(&self.keys, |k| k.borrow() < key);
        if self.keys.get(at).is_some_and(|k| k.borrow() == key) { Ok(at) } else { Err(at) }
    }
}

impl<K: Ord + Clone, V: Clone> Inner<K, V> {
    /// Which child holds the key, if any does.
    fn child_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        partition(&self.keys, |k| k.borrow() <= key)
    }
}

impl<K: Ord + Clone, V: Clone> Node<K, V> {
    fn size(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.keys.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }
}

fn insert<K: Ord + Clone, V: Clone>(
    node: &mut Arc<Node<K, V>>,
    key: K,
    value: V,
    occupied: impl FnOnce(&mut V, V) -> V,
) -> Inserted<K, V> {
    match Arc::make_mut(node) {
        Node::Leaf(leaf) => {
            let at = match leaf.find(&key) {
                Ok(at) => {
                    let old = leaf.values.get_mut(at).map(|old| occupied(old, value));
                    return (old, None);
                }
                Err(at) => at,
            };
            if leaf.keys.len() < LEAF_MAX {
                leaf.keys.insert(at, key);
                leaf.values.insert(at, value);
                return (None, None);
            }
            // At its end a leaf is left full, so that keys that come in order fill every leaf.
            let middle = if at == LEAF_MAX { LEAF_MAX } else { LEAF_MAX / 2 };
            let mut right =
                Leaf { keys: leaf.keys.drain(middle..).collect(), values: leaf.values.drain(middle..).collect() };
            let (half, at) = if at >= middle { (&mut right, at.saturating_sub(middle)) } else { (leaf, at) };
            half.keys.insert(at, key);
            half.values.insert(at, value);
            let least = right.keys.first().cloned();
            (None, least.map(|least| (least, Arc::new(Node::Leaf(right)))))
        }
        Node::Inner(inner) => {
            let at = inner.child_of(&key);
            let Some(child) = inner.children.get_mut(at) else {
                unreachable!("an inner node has a child for every key")
            };
            let (old, split) = insert(child, key, value, occupied);
            let Some((key, right)) = split else { return (old, None) };
            if inner.children.len() < CHILDREN_MAX {
                inner.keys.insert(at, key);
                inner.children.insert(at.saturating_add(1), right);
                return (old, None);
            }
            // Children middle.. go right; the separator before them goes up.
            let middle = if at == KEYS_MAX { KEYS_MAX } else { CHILDREN_MAX / 2 };
            let mut new = Inner {
                keys: inner.keys.drain(middle..).collect(),
                children: inner.children.drain(middle..).collect(),
            };
            let Some(up) = inner.keys.pop() else { unreachable!("middle is at least 1") };
            let (half, at) = if at >= middle { (&mut new, at.saturating_sub(middle)) } else { (inner, at) };
            half.keys.insert(at, key);
            half.children.insert(at.saturating_add(1), right);
            (old, Some((up, Arc::new(Node::Inner(new)))))
        }
    }
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(node: &mut Arc<Node<K, V>>, key: &Q) -> Option<V> {
    match Arc::make_mut(node) {
        Node::Leaf(leaf) => {
            let at = leaf.find(key).ok()?;
            leaf.keys.remove(at);
            Some(leaf.values.remove(at))
        }
        Node::Inner(inner) => {
            let at = inner.child_of(key);
            let old = remove(inner.children.get_mut(at)?, key);
            inner.mend(at);
            old
        }
    }
}

impl<K: Ord + Clone, V: Clone> Inner<K, V> {
    /// Drops a child that has become empty; merges one that has become small with a neighbour, where both fit into one
    /// with room to spare.
    fn mend(&mut self, at: usize) {
        let size = |at: usize| self.children.get(at).map(|child| child.size());
        let Some(own) = size(at) else { return };
        if own == 0 {
            // Its keys' range falls to a neighbour; without one, this node is empty too, and its parent sees to it.
            self.children.remove(at);
            if !self.keys.is_empty() {
                self.keys.remove(at.saturating_sub(1));
            }
            return;
        }
        if own > LEAF_MAX / 4 {
            return;
        }
        let fits = |other: Option<usize>| other.is_some_and(|other| own.saturating_add(other) <= LEAF_MAX * 3 / 4);
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
        match (Arc::make_mut(child), Arc::unwrap_or_clone(right)) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                left.keys.extend(right.keys);
                left.values.extend(right.values);
            }
            (Node::Inner(left), Node::Inner(right)) => {
                left.keys.push(separator);
                left.keys.extend(right.keys);
                left.children.extend(right.children);
            }
            _ => unreachable!("all leaves are at the same depth"),
        }
    }
}

/// Entries in ascending order.
pub(crate) struct Iter<'t, K, V> {
    /// The way down, each with the next child to visit.
    above: Vec<(&'t Inner<K, V>, usize)>,
    leaf: Option<(&'t Leaf<K, V>, usize)>,
}

impl<'t, K, V> Iterator for Iter<'t, K, V> {
    type Item = (&'t K, &'t V);

    fn next(&mut self) -> Option<(&'t K, &'t V)> {
        loop {
            let (leaf, at) = self.leaf.as_mut()?;
            if let (Some(key), Some(value)) = (leaf.keys.get(*at), leaf.values.get(*at)) {
                *at = at.saturating_add(1);
                return Some((key, value));
            }
            self.leaf = None;
            while let Some((inner, next)) = self.above.last_mut() {
                let Some(mut node) = inner.children.get(*next) else {
                    self.above.pop();
                    continue;
                };
                *next = next.saturating_add(1);
                while let Node::Inner(inner) = &**node {
                    self.above.push((inner, 1));
                    match inner.children.first() {
                        Some(first) => node = first,
                        None => break,
                    }
                }
                if let Node::Leaf(leaf) = &**node {
                    self.leaf = Some((leaf, 0));
                }
                break;
            }
        }
    }
}

/// Entries in descending order.
pub(crate) struct IterBack<'t, K, V> {
    /// The way down, each with the child visited last.
    above: Vec<(&'t Inner<K, V>, usize)>,
    /// The entries before this index are still to come.
    leaf: Option<(&'t Leaf<K, V>, usize)>,
}

impl<'t, K, V> Iterator for IterBack<'t, K, V> {
    type Item = (&'t K, &'t V);

    fn next(&mut self) -> Option<(&'t K, &'t V)> {
        loop {
            let (leaf, end) = self.leaf.as_mut()?;
            if let Some(at) = end.checked_sub(1) {
                *end = at;
                return Some((leaf.keys.get(at)?, leaf.values.get(at)?));
            }
            self.leaf = None;
            while let Some((inner, visited)) = self.above.last_mut() {
                let Some(at) = visited.checked_sub(1) else {
                    self.above.pop();
                    continue;
                };
                *visited = at;
                let mut node = inner.children.get(at)?;
                while let Node::Inner(inner) = &**node {
                    let last = inner.children.len().saturating_sub(1);
                    self.above.push((inner, last));
                    node = inner.children.get(last)?;
                }
                if let Node::Leaf(leaf) = &**node {
                    self.leaf = Some((leaf, leaf.keys.len()));
                }
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn check(tree: &Tree<u32, u32>, model: &BTreeMap<u32, u32>, rng: &mut fastrand::Rng) {
        assert_eq!(tree.len(), model.len());
        assert!(tree.iter().eq(model.iter()));
        assert!(tree.iter_back_from::<u32>(Bound::Unbounded).eq(model.iter().rev()));
        for _ in 0..20 {
            let key = rng.u32(0..700);
            assert_eq!(tree.get(&key), model.get(&key));
            for bound in [Bound::Included(&key), Bound::Excluded(&key)] {
                assert!(tree.iter_from(bound).eq(model.range((bound, Bound::Unbounded))), "from {bound:?}");
                assert!(tree.iter_back_from(bound).eq(model.range((Bound::Unbounded, bound)).rev()), "to {bound:?}");
            }
        }
        depth(&tree.root, None, None);
    }

    /// Checks order, separators and equal depth; gives the depth.
    fn depth(node: &Node<u32, u32>, least: Option<u32>, above: Option<u32>) -> usize {
        match node {
            Node::Leaf(leaf) => {
                assert_eq!(leaf.keys.len(), leaf.values.len());
                assert!(leaf.keys.is_sorted());
                assert!(leaf.keys.iter().all(|k| least.is_none_or(|l| *k >= l) && above.is_none_or(|a| *k < a)));
                1
            }
            Node::Inner(inner) => {
                assert_eq!(inner.children.len(), inner.keys.len() + 1);
                let bounds = |i: usize| {
                    let low = if i == 0 { least } else { Some(inner.keys[i - 1]) };
                    (low, inner.keys.get(i).copied().or(above))
                };
                let depths: Vec<usize> =
                    inner.children.iter().enumerate().map(|(i, c)| depth(c, bounds(i).0, bounds(i).1)).collect();
                assert!(depths.windows(2).all(|pair| pair[0] == pair[1]), "leaves at one depth");
                depths[0] + 1
            }
        }
    }

    #[test]
    fn it_is_an_ordered_map_and_its_copies_never_change() {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut tree, mut model) = (Tree::new(), BTreeMap::new());
            let mut copies = Vec::new();
            for step in 0..3_000_u32 {
                // Phases that grow, shrink to nothing, and run in order.
                let key = if seed % 3 == 0 { step % 700 } else { rng.u32(0..700) };
                let grows = (step / 700) % 2 == 0;
                if rng.u8(0..10) < if grows { 8 } else { 2 } {
                    assert_eq!(tree.insert(key, step), model.insert(key, step), "seed {seed}");
                } else {
                    assert_eq!(tree.remove(&key), model.remove(&key), "seed {seed}");
                }
                if let (Some(a), Some(b)) = (tree.get_mut(&(key / 2)), model.get_mut(&(key / 2))) {
                    *a = step;
                    *b = step;
                }
                if step % 250 == 0 {
                    check(&tree, &model, &mut rng);
                    copies.push((tree.clone(), model.clone()));
                }
            }
            for (tree, model) in &copies {
                check(tree, model, &mut rng);
            }
            for key in 0..700 {
                assert_eq!(tree.remove(&key), model.remove(&key));
            }
            check(&tree, &model, &mut rng);
            assert_eq!(tree.iter().next(), None);
        }
    }

    #[test]
    fn a_key_that_has_a_value_keeps_it_when_a_new_one_is_wanted() {
        let mut tree = Tree::new();
        assert_eq!(tree.insert_new(1, 'a'), None);
        assert_eq!(tree.insert_new(1, 'b'), Some('b'));
        assert_eq!((tree.get(&1), tree.len()), (Some(&'a'), 1));
    }

    #[test]
    fn keys_in_order_fill_the_leaves() {
        let mut tree = Tree::new();
        for key in 0..10_000 {
            tree.insert(key, ());
        }
        fn leaves(node: &Node<i32, ()>) -> usize {
            match node {
                Node::Leaf(_) => 1,
                Node::Inner(inner) => inner.children.iter().map(|child| leaves(child)).sum(),
            }
        }
        assert_eq!(leaves(&tree.root), 10_000_usize.div_ceil(LEAF_MAX));
    }
}
