//! Whole leaves: trees put behind one another, and a tree under other keys.

use triomphe::Arc;

use super::leaf::{LEAF_MAX, Leaf, Values};
use super::{Inner, Node, Tree, last_leaf, push};

impl<K: Ord + Clone, V: Values> Tree<K, V> {
    /// Puts the leaves of another tree, whose keys are above the greatest here, behind the last one. One that fits into
    /// the last leaf goes into it.
    pub(crate) fn join(&mut self, right: Tree<K, V>) {
        self.len = self.len.saturating_add(right.len);
        for_each_leaf(right.root, &mut |leaf| self.push_leaf(leaf));
    }

    fn push_leaf(&mut self, node: Arc<Node<K, V>>) {
        let Node::Leaf(leaf) = &*node else { return };
        let Some(least) = leaf.keys.first().cloned() else { return };
        let last = last_leaf(&mut self.root);
        if last.keys.len().saturating_add(leaf.keys.len()) > LEAF_MAX {
            let split = push(&mut self.root, least, node);
            return self.grow(split);
        }
        if last.keys.is_empty() {
            *last = match Arc::unwrap_or_clone(node) {
                Node::Leaf(leaf) => leaf,
                Node::Inner(_) => return,
            };
        } else if let Node::Leaf(leaf) = Arc::unwrap_or_clone(node) {
            last.keys.extend(leaf.keys);
            last.values.append(leaf.values);
        }
    }

    /// The same values under other keys, which are in the same order.
    pub(crate) fn map_keys<L: Ord + Clone>(self, map: impl Fn(K) -> L) -> Tree<L, V> {
        Tree { root: map_keys(self.root, &map), len: self.len }
    }
}

fn for_each_leaf<K: Ord + Clone, V: Values>(node: Arc<Node<K, V>>, each: &mut impl FnMut(Arc<Node<K, V>>)) {
    match &*node {
        Node::Leaf(_) => each(node),
        Node::Inner(_) => {
            if let Node::Inner(inner) = Arc::unwrap_or_clone(node) {
                inner.children.into_iter().for_each(|child| for_each_leaf(child, each));
            }
        }
    }
}

fn map_keys<K: Ord + Clone, L: Ord + Clone, V: Values>(
    node: Arc<Node<K, V>>,
    map: &impl Fn(K) -> L,
) -> Arc<Node<L, V>> {
    Arc::new(match Arc::unwrap_or_clone(node) {
        Node::Leaf(leaf) => Node::Leaf(Leaf { keys: leaf.keys.into_iter().map(map).collect(), values: leaf.values }),
        Node::Inner(inner) => Node::Inner(Inner {
            keys: inner.keys.into_iter().map(map).collect(),
            children: inner.children.into_iter().map(|child| map_keys(child, map)).collect(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, leaves};
    use super::*;

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
