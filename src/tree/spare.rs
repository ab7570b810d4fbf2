//! Leaves that nobody holds any more, kept for the next copies of others; and a [stock](super::stock) of inner nodes.
//!
//! While a snapshot is written, its thread lets go of leaves that the writer has copied, and the writer copies more. Were
//! each given back to the allocator and another one asked for, the two threads would wait for one another there, and the
//! writer for fresh memory from the operating system: a tenth of a millisecond at times. Here it gets one that was in use a
//! moment ago.

use std::sync::{Mutex, PoisonError};

use triomphe::Arc;

use super::leaf::Values;
use super::stock::Stock;
use super::{Kind, Node};

/// More than so many of a table, a megabyte and a half with integer keys, are given back.
const SPARE_MAX: usize = 1_024;

/// Empty leaves, and a stock of inner nodes. A tree and copies of it have the same ones.
#[derive(Debug)]
pub(super) struct Spare<K, V> {
    leaves: Mutex<Vec<Arc<Node<K, V>>>>,
    pub(super) stock: Stock<K, V>,
}

impl<K, V> Spare<K, V> {
    /// For a tree of so many entries.
    pub(super) fn new(entries: usize) -> std::sync::Arc<Spare<K, V>> {
        std::sync::Arc::new(Spare { leaves: Mutex::new(Vec::new()), stock: Stock::new(entries) })
    }

    /// What the next node is made of, if there is something. Never waits for another thread.
    fn take(&self, kind: &Kind<K, V>) -> Option<Arc<Node<K, V>>> {
        match kind {
            Kind::Leaf(_) => self.leaves.try_lock().ok()?.pop(),
            Kind::Inner(_) => self.stock.take(),
        }
    }
}

impl<K: Clone, V: Values> Spare<K, V> {
    /// A leaf is let go of: kept where nobody else holds it.
    pub(super) fn give_back(&self, mut node: Arc<Node<K, V>>) {
        let Some(Node { kind: Kind::Leaf(leaf), .. }) = Arc::get_mut(&mut node) else { return };
        leaf.keys.clear();
        leaf.values.clear();
        let mut spare = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(node);
        }
    }

    /// A node that is this.
    pub(super) fn with(&self, kind: Kind<K, V>) -> Arc<Node<K, V>> {
        let Some(mut spare) = self.take(&kind) else { return Node::new(kind) };
        match Arc::get_mut(&mut spare) {
            Some(place) => {
                place.kind = kind;
                spare
            }
            None => Node::new(kind),
        }
    }

    /// Access for change: a node that a copy of the tree sees is copied first.
    pub(super) fn own<'n>(&self, node: &'n mut Arc<Node<K, V>>) -> &'n mut Node<K, V> {
        if !node.is_unique() {
            *node = self.with(node.kind.clone());
        }
        match Arc::get_mut(node) {
            Some(node) => node,
            None => unreachable!("nobody else has seen the copy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Tree;
    use super::super::tests::check;
    use super::*;

    /// Reads a tree leaf by leaf and lets go of each; what is in it.
    fn used_up(tree: Tree<u32, Vec<u32>>) -> Vec<(u32, u32)> {
        let (mut leaves, mut entries) = (tree.into_leaves(), Vec::new());
        while let Some(leaf) = leaves.next() {
            entries.extend((0..leaf.len()).map(|at| (*leaf.key(at).unwrap(), *leaf.value(at).unwrap())));
            leaves.give_back(leaf);
        }
        entries
    }

    #[test]
    fn a_tree_and_the_copies_that_are_held_never_change_while_others_are_used_up_and_their_leaves_used_anew() {
        for seed in 0..40 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut tree, mut model, mut copies) = (Tree::new(), BTreeMap::new(), Vec::new());
            for step in 0..3_000_u32 {
                let key = rng.u32(0..600);
                if rng.u8(0..10) < 7 {
                    tree.insert(key, step, |values: &mut Vec<u32>, at, value| values[at] = value);
                    model.insert(key, step);
                } else {
                    tree.remove(&key, |_| ());
                    model.remove(&key);
                }
                if rng.u8(0..40) == 0 {
                    copies.push((tree.clone(), model.clone()));
                }
                if rng.u8(0..50) == 0 && !copies.is_empty() {
                    let (copy, model) = copies.swap_remove(rng.usize(..copies.len()));
                    assert!(used_up(copy).into_iter().eq(model), "seed {seed}");
                }
            }
            check(&tree, &model, &mut rng);
            copies.iter().for_each(|(copy, model)| check(copy, model, &mut rng));
        }
    }

    #[test]
    fn a_leaf_let_go_of_is_where_the_next_copy_of_one_is_made_unless_somebody_holds_it() {
        let mut tree = Tree::<u32, Vec<u32>>::new();
        (0..1_000).for_each(|key| _ = tree.insert(key, key, |_, _, _| ()));
        let kept = |tree: &Tree<u32, Vec<u32>>| tree.spare.leaves.lock().unwrap().len();
        assert_eq!(kept(&tree), 0);
        used_up(tree.clone());
        assert_eq!(kept(&tree), 0, "the tree holds them all");
        let copy = tree.clone();
        tree.insert(1, 7, |values, at, value| values[at] = value);
        used_up(copy);
        assert_eq!(kept(&tree), 1, "of that one the tree has a copy");
        let is_empty = |node: &Arc<Node<u32, Vec<u32>>>| matches!(&node.kind, Kind::Leaf(leaf) if leaf.keys.is_empty() && leaf.values.is_empty());
        assert!(tree.spare.leaves.lock().unwrap().iter().all(is_empty), "it holds no values");
        let copy = tree.clone();
        tree.insert(999, 7, |values, at, value| values[at] = value);
        assert_eq!(kept(&tree), 0);
        drop(copy);
    }

    #[test]
    fn no_more_than_a_few_leaves_are_kept() {
        let mut tree = Tree::<u32, Vec<u32>>::new();
        (0..200_000).for_each(|key| _ = tree.insert(key, key, |_, _, _| ()));
        let copy = tree.clone();
        for key in (0..200_000).step_by(20) {
            tree.insert(key, 7, |values, at, value| values[at] = value);
        }
        used_up(copy);
        assert_eq!(tree.spare.leaves.lock().unwrap().len(), SPARE_MAX);
    }
}
