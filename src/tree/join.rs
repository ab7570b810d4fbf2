//! Whole leaves: trees put behind one another, and a tree under other keys.

use arrayvec::ArrayVec;
use triomphe::Arc;

use super::leaf::{LEAF_MAX, Leaf, Values};
use super::{CHILDREN_MAX, Inner, Kind, Node, Tree, last_leaf, push};

impl<K: Ord + Clone, V: Values> Tree<K, V> {
    /// Puts the leaves of another tree, whose keys are above the greatest here, behind the last one. One that fits into
    /// the last leaf goes into it.
    pub(crate) fn join(&mut self, right: Tree<K, V>) {
        self.len = self.len.saturating_add(right.len);
        for_each_leaf(right.root, &mut |leaf| self.push_leaf(leaf));
    }

    fn push_leaf(&mut self, node: Arc<Node<K, V>>) {
        let Kind::Leaf(leaf) = &node.kind else { return };
        let Some(least) = leaf.keys.first().cloned() else { return };
        let last = last_leaf(&mut self.root);
        if last.keys.len().saturating_add(leaf.keys.len()) > LEAF_MAX {
            let split = push(&mut self.root, &self.spare, least, node);
            return self.grow(split);
        }
        if last.keys.is_empty() {
            *last = match Arc::unwrap_or_clone(node).kind {
                Kind::Leaf(leaf) => leaf,
                Kind::Inner(_) => return,
            };
        } else if let Kind::Leaf(leaf) = Arc::unwrap_or_clone(node).kind {
            last.keys.extend(leaf.keys);
            last.values.append(leaf.values);
        }
    }

    /// The tree in so many parts that lie behind one another, or fewer; and between each two the least key that belongs to
    /// the right one. Each says that it has as many entries as the whole, until they are [united](Tree::unite).
    pub(crate) fn part(self, parts: usize) -> (Vec<K>, Vec<Tree<K, V>>) {
        let Tree { root, len, .. } = self;
        let Kind::Inner(inner) = &root.kind else { return (Vec::new(), vec![Tree::of(root, len)]) };
        let share = inner.children.len().div_ceil(parts.max(1));
        let bounds = (1..).map_while(|n| inner.keys.get(share.saturating_mul(n).checked_sub(1)?).cloned()).collect();
        let groups = inner.children.chunks(share).enumerate().map(|(n, children)| {
            let first = share.saturating_mul(n);
            let keys = inner.keys.get(first..).unwrap_or_default();
            let keys = keys.get(..children.len().saturating_sub(1)).unwrap_or_default();
            let root = match children {
                [only] => only.clone(),
                _ => Node::over(keys.iter().cloned().collect(), children.iter().cloned().collect()),
            };
            Tree::of(root, len)
        });
        (bounds, groups.collect())
    }

    /// The whole of [parts](Tree::part) that were changed, each within its bounds; it had so many entries before.
    pub(crate) fn unite(bounds: Vec<K>, mut parts: Vec<Tree<K, V>>, before: usize) -> Tree<K, V> {
        if let [_] = *parts
            && let Some(only) = parts.pop()
        {
            return only;
        }
        let others = parts.len().saturating_sub(1);
        let lens = parts.iter().map(|part| part.len).fold(0, usize::saturating_add);
        let len = lens.saturating_sub(before.saturating_mul(others));
        if let Some(root) = root_over(&bounds, &parts) {
            return Tree::of(root, len);
        }
        let mut parts = parts.into_iter();
        let mut whole = parts.next().unwrap_or_else(Tree::new);
        parts.for_each(|part| whole.join(part));
        Tree { len, ..whole }
    }

    /// The same values under other keys, which are in the same order.
    pub(crate) fn map_keys<L: Ord + Clone>(self, map: impl Fn(K) -> L) -> Tree<L, V> {
        Tree::of(map_keys(self.root, &map), self.len)
    }
}

/// The node over the tops of parts of one height, or a level lower; `None` where there are others, or too many tops.
fn root_over<K: Ord + Clone, V: Values>(bounds: &[K], parts: &[Tree<K, V>]) -> Option<Arc<Node<K, V>>> {
    let highest = parts.iter().map(|part| height(&part.root)).max().filter(|height| *height > 0)?;
    let is_whole = |part: &Tree<K, V>| height(&part.root) == highest;
    let size = |part: &Tree<K, V>| if is_whole(part) { part.root.size() } else { 1 };
    if parts.iter().map(size).fold(0, usize::saturating_add) > CHILDREN_MAX {
        return None;
    }
    let (mut keys, mut children) = (ArrayVec::new(), ArrayVec::new());
    for (n, part) in parts.iter().enumerate() {
        keys.extend(n.checked_sub(1).and_then(|before| bounds.get(before)).cloned());
        match &part.root.kind {
            Kind::Inner(inner) if is_whole(part) => {
                keys.extend(inner.keys.iter().cloned());
                children.extend(inner.children.iter().cloned());
            }
            // A child that was a part by itself.
            _ if height(&part.root).saturating_add(1) == highest && part.root.size() > 0 => {
                children.push(part.root.clone());
            }
            _ => return None,
        }
    }
    Some(Node::over(keys, children))
}

/// Nodes between this one and its leaves, itself included.
fn height<K, V>(mut node: &Arc<Node<K, V>>) -> usize {
    let mut height = 0_usize;
    while let Kind::Inner(inner) = &node.kind
        && let Some(first) = inner.children.first()
    {
        (node, height) = (first, height.saturating_add(1));
    }
    height
}

pub(super) fn for_each_leaf<K: Ord + Clone, V: Values>(node: Arc<Node<K, V>>, each: &mut impl FnMut(Arc<Node<K, V>>)) {
    match &node.kind {
        Kind::Leaf(_) => each(node),
        Kind::Inner(_) => {
            let Kind::Inner(inner) = Arc::unwrap_or_clone(node).kind else { return };
            if inner.is_lowest {
                // None of them is looked at.
                inner.children.into_iter().for_each(each);
            } else {
                inner.children.into_iter().for_each(|child| for_each_leaf(child, each));
            }
        }
    }
}

fn map_keys<K: Ord + Clone, L: Ord + Clone, V: Values>(
    node: Arc<Node<K, V>>,
    map: &impl Fn(K) -> L,
) -> Arc<Node<L, V>> {
    Node::new(match Arc::unwrap_or_clone(node).kind {
        Kind::Leaf(leaf) => Kind::Leaf(Leaf { keys: leaf.keys.into_iter().map(map).collect(), values: leaf.values }),
        Kind::Inner(inner) => Kind::Inner(Inner {
            keys: inner.keys.into_iter().map(map).collect(),
            children: inner.children.into_iter().map(|child| map_keys(child, map)).collect(),
            is_lowest: inner.is_lowest,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, leaves};
    use super::*;

    #[test]
    fn parts_of_a_tree_changed_each_within_its_bounds_are_the_changed_tree() {
        let mut rng = fastrand::Rng::with_seed(3);
        for (len, parts) in
            [(0, 2), (5, 2), (60, 2), (3_000, 1), (3_000, 2), (3_000, 3), (9_000, 8), (100, 40), (60_000, 2)]
        {
            let mut tree = Tree::<u32, Vec<u32>>::new();
            let mut model: std::collections::BTreeMap<u32, u32> = (0..len).map(|n| (n * 3, n)).collect();
            model.iter().for_each(|(key, value)| _ = tree.insert(*key, *value, |_, _, _| ()));
            let (copy, before) = (tree.clone(), model.clone());
            let (bounds, mut made) = tree.part(parts);
            assert!(bounds.len() + 1 == made.len() && made.len() <= parts);
            for _ in 0..len * 2 {
                let key = rng.u32(0..len * 3);
                let part = &mut made[bounds.partition_point(|bound| *bound <= key)];
                // One part loses nearly all it has.
                if rng.u8(0..3) == 0 || key < len && rng.u8(0..8) > 0 {
                    assert_eq!(part.remove(&key, |_| ()), model.remove(&key).is_some());
                } else if part.insert(key, 7, |values, at, value| values[at] = value) {
                    assert!(model.insert(key, 7).is_some());
                } else {
                    assert!(model.insert(key, 7).is_none());
                }
            }
            check(&Tree::unite(bounds, made, len as usize), &model, &mut rng);
            check(&copy, &before, &mut rng);
        }
    }

    #[test]
    fn trees_joined_are_the_entries_of_both_in_leaves_that_are_full_but_at_the_seams() {
        let tree_of = |keys: std::ops::Range<u32>| {
            let (mut tree, mut values) = (Tree::<u32, Vec<u32>>::new(), keys.clone());
            tree.append(keys, |leaf, n| leaf.extend(values.by_ref().take(n)));
            tree
        };
        let mut rng = fastrand::Rng::with_seed(1);
        for most in [0, 1, 7, 48, 60, 2_000, 6_000] {
            let (mut tree, mut end, mut copies) = (Tree::new(), 0, Vec::new());
            for _ in 0..40 {
                let len = rng.u32(0..=most);
                let right = tree_of(end..end + len);
                let before = tree.clone();
                tree.join(right.clone());
                copies.push((before, end));
                copies.push((right, len));
                end += len;
            }
            let model = (0..end).map(|key| (key, key)).collect();
            check(&tree, &model, &mut rng);
            assert!(copies.iter().all(|(copy, len)| copy.iter().count() == *len as usize));
            assert!(leaves(&tree.root) <= 2 * model.len().div_ceil(LEAF_MAX).max(1));
            assert!(leaves(&tree.root) <= model.len() / LEAF_MAX + 41);
            let mapped = tree.map_keys(|key| key + 1);
            check(&mapped, &model.iter().map(|(key, value)| (key + 1, *value)).collect(), &mut rng);
        }
    }
}
