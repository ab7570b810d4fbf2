//! Inner nodes made many at once.
//!
//! Every walk down a tree goes over inner nodes, of which there is one to a thousand entries or two. Made one by one, each
//! lies on a page of its own among the leaves and rows that were made before and after it, and a large table has more such
//! pages than a processor knows the place of. Made together they mostly lie next to one another.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use triomphe::Arc;

use super::{Inner, Kind, Node};

/// As many entries as there are to eight inner nodes, or to four where keys came in order: that part of them is in stock
/// at most, and of a small tree none.
const ENTRIES_EACH: usize = 8_192;
/// Some twenty kilobytes. More would hardly take fewer pages, and whoever makes them waits for it.
const STOCK_MAX: usize = 16;

/// Inner nodes to come, empty.
#[derive(Debug)]
pub(super) struct Stock<K, V> {
    nodes: Mutex<Vec<Arc<Node<K, V>>>>,
    /// Of the tree, nearly.
    entries: AtomicUsize,
}

impl<K, V> Stock<K, V> {
    pub(super) fn new(entries: usize) -> Stock<K, V> {
        Stock { nodes: Mutex::new(Vec::new()), entries: AtomicUsize::new(entries) }
    }

    /// The tree has so many entries now.
    pub(super) fn set_entries(&self, entries: usize) {
        self.entries.store(entries, Ordering::Relaxed);
    }

    /// The next one; `None` where the tree is small, or another thread takes one now.
    pub(super) fn take(&self) -> Option<Arc<Node<K, V>>> {
        let mut nodes = self.nodes.try_lock().ok()?;
        if nodes.is_empty() {
            let empty = || Inner { keys: ArrayVec::new(), children: ArrayVec::new(), is_lowest: false };
            let count = (self.entries.load(Ordering::Relaxed) / ENTRIES_EACH).min(STOCK_MAX);
            nodes.extend((0..count).map(|_| Node::new(Kind::Inner(empty()))));
        }
        nodes.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tree;
    use super::super::tests::inner_nodes;
    use super::*;

    type TestTree = Tree<u32, Vec<u32>>;

    fn insert(tree: &mut TestTree, key: u32) {
        tree.insert(key, key, |values, at, value| values[at] = value);
    }

    fn tree_of(entries: u32) -> TestTree {
        let mut tree = Tree::new();
        let mut keys: Vec<u32> = (0..entries).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut keys);
        keys.into_iter().for_each(|key| insert(&mut tree, key * 2));
        tree
    }

    fn in_stock(tree: &TestTree) -> usize {
        tree.spare.stock.nodes.lock().unwrap().len()
    }

    /// Where the node lies that is taken next, if there is one.
    fn next(tree: &TestTree) -> Option<*const Node<u32, Vec<u32>>> {
        tree.spare.stock.nodes.lock().unwrap().last().map(Arc::as_ptr)
    }

    #[test]
    fn a_small_tree_has_no_inner_nodes_in_stock_and_a_large_one_few() {
        for (entries, most) in [(10, 0), (5_000, 0), (8_000, 0), (50_000, 6), (300_000, STOCK_MAX)] {
            let mut tree = tree_of(entries);
            let mut found = in_stock(&tree);
            assert!(most <= inner_nodes(&tree).len() / 6, "{entries}");
            for key in (0..entries).step_by(7) {
                // A copy of the tree sees every node on the way, so that each is made anew.
                let _copy = tree.clone();
                insert(&mut tree, key * 2);
                found = found.max(in_stock(&tree));
            }
            // An insert takes two of those that were made, or three.
            assert!((most.saturating_sub(3)..=most).contains(&found), "{entries}: {found}");
        }
    }

    #[test]
    fn inner_nodes_that_are_copied_or_split_come_out_of_the_stock() {
        let mut tree = tree_of(100_000);
        let (mut copied, mut split) = (0, 0);
        for key in 0..30_000 {
            let copy = (key % 2 == 0).then(|| tree.clone());
            let (before, next) = (inner_nodes(&tree).len(), next(&tree));
            insert(&mut tree, key * 2 + 1);
            let Some(next) = next else { continue };
            if copy.is_some() {
                assert_eq!(Arc::as_ptr(&tree.root), next, "the copied root");
                copied += 1;
            } else if inner_nodes(&tree).len() > before {
                assert!(inner_nodes(&tree).contains(&next), "the right half of one that was split");
                split += 1;
            }
        }
        assert!(copied > 1_000 && split > 10, "{copied} {split}");
    }

    #[test]
    fn a_tree_that_has_shrunk_fills_no_stock_any_more() {
        let mut tree = tree_of(100_000);
        (500..100_000).for_each(|key| _ = tree.remove(&(key * 2), |_| ()));
        while next(&tree).is_some() {
            let _copy = tree.clone();
            insert(&mut tree, 2);
        }
        for key in 0..100 {
            let _copy = tree.clone();
            insert(&mut tree, key * 2);
            assert_eq!(in_stock(&tree), 0);
        }
    }
}
