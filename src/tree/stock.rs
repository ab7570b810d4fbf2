//! Inner nodes made many at once.
//!
//! Every walk down a tree goes over inner nodes, of which there is one to a thousand entries. Made one by one, each lies on
//! a page of its own among the leaves and rows that were made before and after it, and a large table has more such pages
//! than a processor knows the place of. Made together they lie next to one another.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use triomphe::Arc;

use super::{Inner, Kind, Node};

/// As many entries as there are to eight inner nodes, or to four where keys came in order: that part of them is in stock
/// at most, and of a small tree none.
const ENTRIES_EACH: usize = 8_192;
/// Ninety kilobytes with integer keys.
const STOCK_MAX: usize = 64;

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

    pub(super) fn set_entries(&self, entries: usize) {
        self.entries.store(entries, Ordering::Relaxed);
    }

    /// The next one; `None` where it is better made alone. Never waits for another thread.
    pub(super) fn take(&self) -> Option<Arc<Node<K, V>>> {
        let mut nodes = self.nodes.try_lock().ok()?;
        if nodes.is_empty() {
            let count = (self.entries.load(Ordering::Relaxed) / ENTRIES_EACH).min(STOCK_MAX);
            nodes.extend((0..count).map(|_| Node::new(Kind::Inner(Inner::empty()))));
            // The first that was made is the first that is taken.
            nodes.reverse();
        }
        nodes.pop()
    }
}

impl<K, V> Inner<K, V> {
    fn empty() -> Inner<K, V> {
        Inner { keys: ArrayVec::new(), children: ArrayVec::new(), is_lowest: false }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tree;
    use super::super::tests::inner_nodes;

    fn tree_of(entries: u32) -> Tree<u32, Vec<u32>> {
        let mut tree = Tree::new();
        let mut keys: Vec<u32> = (0..entries).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut keys);
        keys.into_iter().for_each(|key| _ = tree.insert(key, key, |_, _, _| ()));
        tree
    }

    fn in_stock(tree: &Tree<u32, Vec<u32>>) -> usize {
        tree.spare.stock.nodes.lock().unwrap().len()
    }

    #[test]
    fn a_small_tree_has_no_inner_nodes_in_stock_and_a_large_one_few() {
        let mut trees: Vec<_> = [10, 5_000, 8_000].map(tree_of).into();
        assert!(trees.iter().all(|tree| in_stock(tree) == 0));
        trees.push(tree_of(100_000));
        let mut most = 0;
        for tree in &mut trees {
            let inner = inner_nodes(tree);
            for key in (0..tree.len() as u32).step_by(7) {
                // A copy of the tree sees every node on the way, so that each is made anew.
                let _copy = tree.clone();
                tree.insert(key, 0, |values, at, value| values[at] = value);
                most = most.max(in_stock(tree));
                assert!(in_stock(tree) <= inner / 6, "{} of {inner}", in_stock(tree));
            }
        }
        assert!(most > 4, "{most}");
    }

    #[test]
    fn a_node_in_stock_is_empty_when_it_is_taken_and_holds_nothing_of_a_tree() {
        let mut tree = tree_of(100_000);
        let (copy, before) = (tree.clone(), inner_nodes(&tree));
        (0..100_000).step_by(100).for_each(|key| _ = tree.insert(key, 7, |values, at, value| values[at] = value));
        assert_eq!((inner_nodes(&tree), inner_nodes(&copy)), (before, before));
        assert!(copy.iter().all(|(key, value)| key == value));
        let stock = tree.spare.stock.nodes.lock().unwrap();
        assert!(stock.iter().all(|node| node.size() == 0 && node.is_unique()));
    }
}
