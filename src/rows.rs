//! The rows of a table by key.
//!
//! Most tables have integer keys only. Theirs lie in the tree as plain integers: a third of the memory, and a third of
//! the cache lines a leaf's keys take. The first string key makes it a tree of [`Key`]s, once, at the cost of a
//! copy of the tree's nodes.

use std::ops::Bound;
use std::sync::LazyLock;

use arrayvec::ArrayVec;

use crate::packed::Packed;
use crate::row::Parts;
use crate::tree::{self, LEAF_MAX, SharedLeaf, Tree, Values, WARM_MAX, Way};
use crate::value::Key;

/// The ways to some keys, in their order.
pub(crate) type Ways = ArrayVec<Way, WARM_MAX>;

/// The map. `Clone` copies a pointer.
#[derive(Clone, Debug)]
pub(crate) enum Rows {
    Ints(Tree<i64, Packed>),
    Keys(Tree<Key, Packed>),
}

/// A leaf is made for the first row: whoever sends tables without rows sends little, and shall not take much.
static EMPTY: LazyLock<Tree<i64, Packed>> = LazyLock::new(Tree::new);

impl Rows {
    pub(crate) fn new() -> Rows {
        Rows::Ints(EMPTY.empty())
    }

    /// For a table that no row is ever put into.
    pub(crate) fn none() -> Rows {
        Rows::Ints(EMPTY.clone())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Rows::Ints(tree) => tree.len(),
            Rows::Keys(tree) => tree.len(),
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&[u8]> {
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.get(n),
            (Rows::Ints(_), Key::Str(_)) => None,
            (Rows::Keys(tree), key) => tree.get(key),
        }
    }

    /// Whether a copy of the map has a node on the way to a key, which a change there would have to copy; and the row.
    pub(crate) fn look(&self, key: &Key) -> (bool, Option<&[u8]>) {
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.look(n),
            // The first string makes another tree of it.
            (Rows::Ints(_), Key::Str(_)) => (true, None),
            (Rows::Keys(tree), key) => tree.look(key),
        }
    }

    /// Asks for the memory of the leaf that this key belongs to. Gives the way there.
    pub(crate) fn prefetch(&self, key: &Key) -> Way {
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.prefetch(n),
            (Rows::Ints(_), Key::Str(_)) => Way::UNKNOWN,
            (Rows::Keys(tree), key) => tree.prefetch(key),
        }
    }

    /// Asks for the memory of the row under a key, to which an earlier walk went that way.
    pub(crate) fn prefetch_row(&self, way: &Way, key: &Key) {
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.prefetch_value(way, n),
            (Rows::Ints(_), Key::Str(_)) => {}
            (Rows::Keys(tree), key) => tree.prefetch_value(way, key),
        }
    }

    /// Asks for the memory that changes of the rows under these keys will look at. Gives the ways there.
    pub(crate) fn warm<'k>(&self, keys: impl Iterator<Item = &'k Key> + Clone) -> Ways {
        match self {
            Rows::Ints(tree) => {
                let integers = keys.filter_map(|key| if let Key::Int(n) = key { Some(n) } else { None });
                tree.warm(integers)
            }
            Rows::Keys(tree) => tree.warm(keys),
        }
    }

    /// Puts a row under a key. Where it replaces one, `old` sees that before it goes, and the outcome is `true`.
    pub(crate) fn insert(&mut self, key: Key, row: &[u8], old: impl FnOnce(&[u8])) -> bool {
        self.insert_near(&Way::UNKNOWN, key, row, old)
    }

    /// The same, where an earlier walk to the key went that way.
    pub(crate) fn insert_near(&mut self, way: &Way, key: Key, row: &[u8], old: impl FnOnce(&[u8])) -> bool {
        let replace = |rows: &mut Packed, at: usize, row: &[u8]| {
            if let Some(row) = rows.get(at) {
                old(row);
            }
            rows.replace(at, row);
        };
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.insert_near(way, n, row, replace),
            (rows, key) => rows.keys().insert_near(way, key, row, replace),
        }
    }

    /// Puts a row under a key that has none, to which an earlier walk went that way; `false`, and no change, where it has.
    pub(crate) fn insert_new(&mut self, way: &Way, key: &Key, row: &[u8]) -> bool {
        let was_there = match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.insert_near(way, *n, row, |_, _, _| ()),
            (rows, key) => rows.keys().insert_near(way, key.clone(), row, |_, _, _| ()),
        };
        !was_there
    }

    /// Takes the row under a key away; `old` sees it before it goes. `false` where there is none.
    pub(crate) fn remove(&mut self, key: &Key, old: impl FnOnce(&[u8])) -> bool {
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.remove(n, old),
            (Rows::Ints(_), Key::Str(_)) => false,
            (Rows::Keys(tree), key) => tree.remove(key, old),
        }
    }

    /// Puts rows behind all that are there: into full leaves, a copy of its bytes each, and no search.
    fn append(&mut self, keys: &[Key], rows: &[Parts<'_>], scratch: &mut Vec<u8>) {
        // In order the strings come last.
        let strings = matches!(keys.last(), Some(Key::Str(_)));
        let mut rows = rows.iter();
        let take = |leaf: &mut Packed, n: usize| {
            leaf.extend(rows.clone().take(n).copied(), scratch);
            rows = rows.as_slice().get(n..).unwrap_or_default().iter();
        };
        match self {
            Rows::Ints(tree) if !strings => {
                let integers = keys.iter().map_while(|key| match key {
                    Key::Int(n) => Some(*n),
                    Key::Str(_) => None,
                });
                tree.append(integers, take);
            }
            rows_here => rows_here.keys().append(keys.iter().cloned(), take),
        }
    }

    /// Puts other rows, whose keys are behind all that are there, behind them: their leaves as they are.
    pub(crate) fn join(&mut self, right: Rows) {
        match (self, right) {
            (Rows::Ints(tree), Rows::Ints(right)) => tree.join(right),
            (rows, mut right) => {
                right.keys();
                if let Rows::Keys(right) = right {
                    rows.keys().join(right);
                }
            }
        }
    }

    /// The rows in so many parts that lie behind one another, or fewer; and between each two the least key that belongs to
    /// the right one. Each says that it has as many rows as the whole, until they are [united](Rows::unite).
    pub(crate) fn part(self, parts: usize) -> (Vec<Key>, Vec<Rows>) {
        match self {
            Rows::Ints(tree) => {
                let (bounds, parts) = tree.part(parts);
                (bounds.into_iter().map(Key::Int).collect(), parts.into_iter().map(Rows::Ints).collect())
            }
            Rows::Keys(tree) => {
                let (bounds, parts) = tree.part(parts);
                (bounds, parts.into_iter().map(Rows::Keys).collect())
            }
        }
    }

    /// The whole of [parts](Rows::part) that were changed, each within its bounds; it had so many rows before.
    pub(crate) fn unite(bounds: Vec<Key>, parts: Vec<Rows>, before: usize) -> Rows {
        if parts.iter().all(|part| matches!(part, Rows::Ints(_))) {
            let trees =
                parts.into_iter().filter_map(|part| if let Rows::Ints(tree) = part { Some(tree) } else { None });
            let bounds = bounds.iter().filter_map(|bound| if let Key::Int(n) = bound { Some(*n) } else { None });
            return Rows::Ints(Tree::unite(bounds.collect(), trees.collect(), before));
        }
        let trees = parts.into_iter().map(|mut part| std::mem::replace(part.keys(), Tree::new()));
        Rows::Keys(Tree::unite(bounds, trees.collect(), before))
    }

    /// All rows, leaf by leaf. The tree is let go of at once, each leaf when it is given back.
    pub(crate) fn into_leaves(self) -> Leaves {
        match self {
            Rows::Ints(tree) => Leaves::Ints(tree.into_leaves()),
            Rows::Keys(tree) => Leaves::Keys(tree.into_leaves()),
        }
    }

    /// The tree that takes any key; makes it where there is none.
    fn keys(&mut self) -> &mut Tree<Key, Packed> {
        if let Rows::Ints(ints) = self {
            *self = Rows::Keys(std::mem::replace(ints, Tree::new()).map_keys(Key::Int));
        }
        match self {
            Rows::Keys(tree) => tree,
            Rows::Ints(_) => unreachable!("it was replaced a moment ago"),
        }
    }

    /// The greatest key that is an integer.
    pub(crate) fn last_integer(&self) -> Option<i64> {
        let end = Key::from("");
        match self.window_back(Bound::Unbounded, Bound::Excluded(&end))?.last_key()? {
            Key::Int(n) => Some(n),
            Key::Str(_) => None,
        }
    }

    /// All rows in the order of their keys.
    pub(crate) fn iter(&self) -> Iter<'_> {
        self.iter_from(Bound::Unbounded)
    }

    /// The rows from a bound on, ascending.
    pub(crate) fn iter_from(&self, from: Bound<&Key>) -> Iter<'_> {
        match self {
            // Strings come behind all integers.
            Rows::Ints(_) if is_string(from) => Iter::Empty,
            Rows::Ints(tree) => Iter::Ints(tree.iter_from(integer(from).as_ref())),
            Rows::Keys(tree) => Iter::Keys(tree.iter_from(from)),
        }
    }
}

/// Rows in the order of their keys, made apart from their table, in leaves of their own.
#[derive(Debug)]
pub(crate) struct Run<'r> {
    rows: Rows,
    /// Those that fill no leaf yet.
    keys: ArrayVec<Key, LEAF_MAX>,
    parts: ArrayVec<Parts<'r>, LEAF_MAX>,
    last: Option<Key>,
    scratch: Vec<u8>,
}

impl<'r> Run<'r> {
    pub(crate) fn new() -> Run<'r> {
        Run { rows: Rows::new(), keys: ArrayVec::new(), parts: ArrayVec::new(), last: None, scratch: Vec::new() }
    }

    /// Puts a row behind the last one.
    #[inline]
    pub(crate) fn push(&mut self, key: Key, row: Parts<'r>) {
        self.keys.push(key);
        self.parts.push(row);
        if self.keys.is_full() {
            self.fill();
        }
    }

    /// The greatest key.
    #[inline]
    pub(crate) fn last(&self) -> Option<&Key> {
        self.keys.last().or(self.last.as_ref())
    }

    fn fill(&mut self) {
        self.last = self.keys.last().cloned().or_else(|| self.last.take());
        self.rows.append(&self.keys, &self.parts, &mut self.scratch);
        self.keys.clear();
        self.parts.clear();
    }

    /// All of them, in full leaves but for the last.
    pub(crate) fn finish(mut self) -> Rows {
        self.fill();
        self.rows
    }
}

/// A run of rows in one leaf, which stays as it is while somebody holds it.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    leaf: Leaf,
    at: usize,
    end: usize,
    taken: usize,
}

#[derive(Clone, Debug)]
enum Leaf {
    Ints(SharedLeaf<i64, Packed>),
    Keys(SharedLeaf<Key, Packed>),
}

impl Leaf {
    fn fetch(&self) {
        match self {
            Leaf::Ints(leaf) => leaf.fetch(),
            Leaf::Keys(leaf) => leaf.fetch(),
        }
    }
}

/// The leaves of a table, in order.
pub(crate) enum Leaves {
    Ints(tree::Leaves<i64, Packed>),
    Keys(tree::Leaves<Key, Packed>),
}

impl Leaves {
    /// The rows of the next one.
    pub(crate) fn next(&mut self) -> Option<Window> {
        let (end, leaf) = match self {
            Leaves::Ints(leaves) => leaves.next().map(|leaf| (leaf.len(), Leaf::Ints(leaf)))?,
            Leaves::Keys(leaves) => leaves.next().map(|leaf| (leaf.len(), Leaf::Keys(leaf)))?,
        };
        Some(Window { leaf, at: 0, end, taken: 0 })
    }

    /// Lets go of one.
    pub(crate) fn give_back(&self, window: Window) {
        match (self, window.leaf) {
            (Leaves::Ints(leaves), Leaf::Ints(leaf)) => leaves.give_back(leaf),
            (Leaves::Keys(leaves), Leaf::Keys(leaf)) => leaves.give_back(leaf),
            _ => {}
        }
    }
}

/// So many rows are left to be read as they come.
const FEW: usize = 4;

impl Rows {
    /// The first rows between two bounds, those of one leaf; `None` where there are none.
    pub(crate) fn window(&self, from: Bound<&Key>, to: Bound<&Key>) -> Option<Window> {
        let (leaf, at) = match self {
            Rows::Ints(_) if is_string(from) => return None,
            Rows::Ints(tree) => tree.leaf_from(integer(from).as_ref()).map(|(leaf, at)| (Leaf::Ints(leaf), at))?,
            Rows::Keys(tree) => tree.leaf_from(from).map(|(leaf, at)| (Leaf::Keys(leaf), at))?,
        };
        let end = match &leaf {
            Leaf::Ints(leaf) => leaf.end(integer(to).as_ref()),
            Leaf::Keys(leaf) => leaf.end(to),
        };
        Window::of(leaf, at, end)
    }

    /// The last rows between two bounds, those of one leaf; `None` where there are none.
    pub(crate) fn window_back(&self, from: Bound<&Key>, to: Bound<&Key>) -> Option<Window> {
        let (leaf, end) = match self {
            Rows::Ints(_) if is_string(from) => return None,
            Rows::Ints(tree) => tree.leaf_back_from(integer(to).as_ref()).map(|(leaf, end)| (Leaf::Ints(leaf), end))?,
            Rows::Keys(tree) => tree.leaf_back_from(to).map(|(leaf, end)| (Leaf::Keys(leaf), end))?,
        };
        let at = match &leaf {
            Leaf::Ints(leaf) => leaf.begin(integer(from).as_ref()),
            Leaf::Keys(leaf) => leaf.begin(from),
        };
        Window::of(leaf, at, end)
    }
}

impl Window {
    fn of(leaf: Leaf, at: usize, end: usize) -> Option<Window> {
        if at >= end {
            return None;
        }
        Some(Window { leaf, at, end, taken: 0 })
    }

    /// A row is taken. Who takes a second one will take more; who wants but one does not pay for the leaf.
    #[inline]
    fn take(&mut self) {
        if self.taken == 1 && self.end.saturating_sub(self.at) > FEW {
            self.leaf.fetch();
        }
        self.taken = self.taken.saturating_add(1);
    }

    pub(crate) fn first_key(&self) -> Option<Key> {
        self.key(self.at)
    }

    pub(crate) fn last_key(&self) -> Option<Key> {
        self.key(self.end.checked_sub(1)?)
    }

    /// Takes the first row out.
    pub(crate) fn next(&mut self) -> Option<(Key, &[u8])> {
        let at = self.at;
        if at >= self.end {
            return None;
        }
        self.take();
        self.at = at.saturating_add(1);
        self.key(at).zip(self.row(at))
    }

    /// Takes the last row out.
    pub(crate) fn next_back(&mut self) -> Option<(Key, &[u8])> {
        if self.at >= self.end {
            return None;
        }
        self.take();
        self.end = self.end.saturating_sub(1);
        self.key(self.end).zip(self.row(self.end))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// All rows, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        (self.at..self.end).map_while(|at| self.row(at))
    }

    fn key(&self, at: usize) -> Option<Key> {
        match &self.leaf {
            Leaf::Ints(leaf) => leaf.key(at).map(|n| Key::Int(*n)),
            Leaf::Keys(leaf) => leaf.key(at).cloned(),
        }
    }

    fn row(&self, at: usize) -> Option<&[u8]> {
        match &self.leaf {
            Leaf::Ints(leaf) => leaf.value(at),
            Leaf::Keys(leaf) => leaf.value(at),
        }
    }
}

fn is_string(bound: Bound<&Key>) -> bool {
    matches!(bound, Bound::Included(Key::Str(_)) | Bound::Excluded(Key::Str(_)))
}

/// A bound among integers; none where it is a string.
fn integer(bound: Bound<&Key>) -> Bound<i64> {
    match bound {
        Bound::Included(Key::Int(n)) => Bound::Included(*n),
        Bound::Excluded(Key::Int(n)) => Bound::Excluded(*n),
        Bound::Included(Key::Str(_)) | Bound::Excluded(Key::Str(_)) | Bound::Unbounded => Bound::Unbounded,
    }
}

/// Rows in ascending order.
pub(crate) enum Iter<'t> {
    Empty,
    Ints(tree::Iter<'t, i64, Packed>),
    Keys(tree::Iter<'t, Key, Packed>),
}

impl<'t> Iterator for Iter<'t> {
    type Item = (Key, &'t [u8]);

    #[inline]
    fn next(&mut self) -> Option<(Key, &'t [u8])> {
        match self {
            Iter::Empty => None,
            Iter::Ints(iter) => iter.next().map(|(n, row)| (Key::Int(*n), row)),
            Iter::Keys(iter) => iter.next().map(|(key, row)| (key.clone(), row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn row(n: i64) -> Vec<u8> {
        n.to_string().into_bytes()
    }

    fn put(rows: &mut Rows, key: Key, row: &[u8]) -> Option<Vec<u8>> {
        let mut old = None;
        assert_eq!(rows.insert(key, row, |row| old = Some(row.to_vec())), old.is_some());
        old
    }

    fn take(rows: &mut Rows, key: &Key) -> Option<Vec<u8>> {
        let mut old = None;
        assert_eq!(rows.remove(key, |row| old = Some(row.to_vec())), old.is_some());
        old
    }

    fn descending(rows: &Rows, to: Bound<&Key>) -> Vec<(Key, Vec<u8>)> {
        let (mut all, mut to) = (Vec::new(), to.cloned());
        while let Some(mut window) = rows.window_back(Bound::Unbounded, to.as_ref()) {
            to = Bound::Excluded(window.first_key().unwrap());
            while let Some((key, row)) = window.next_back() {
                all.push((key, row.to_vec()));
            }
        }
        all
    }

    fn assert_same(rows: &Rows, model: &BTreeMap<Key, Vec<u8>>) {
        assert_eq!(rows.len(), model.len());
        let model = model.iter().map(|(key, row)| (key.clone(), &**row));
        assert!(rows.iter().eq(model.clone()));
        let mut leaves = rows.clone().into_leaves();
        let leaves: Vec<_> = std::iter::from_fn(|| leaves.next()).collect();
        assert!(leaves.iter().flat_map(Window::rows).eq(model.clone().map(|(_, row)| row)));
        assert!(descending(rows, Bound::Unbounded).into_iter().eq(model.rev().map(|(key, row)| (key, row.to_vec()))));
    }

    #[test]
    fn it_is_an_ordered_map_whether_its_keys_are_integers_or_become_mixed() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut rows, mut model) = (Rows::new(), BTreeMap::new());
            for step in 0..600 {
                let n = rng.i64(-40..40);
                let strings = seed % 2 == 1 && step > 300 && rng.bool();
                let key = if strings { Key::from(n.to_string()) } else { Key::Int(n) };
                match rng.u8(0..4) {
                    0 => assert_eq!(take(&mut rows, &key), model.remove(&key)),
                    1 => {
                        let taken = model.contains_key(&key);
                        assert_eq!(rows.insert_new(&Way::UNKNOWN, &key, &row(step)), !taken);
                        model.entry(key.clone()).or_insert_with(|| row(step));
                    }
                    _ => assert_eq!(put(&mut rows, key.clone(), &row(step)), model.insert(key.clone(), row(step))),
                }
                assert_eq!((rows.len(), rows.get(&key)), (model.len(), model.get(&key).map(|row| &**row)));
            }
            assert_eq!(matches!(rows, Rows::Keys(_)), seed % 2 == 1, "seed {seed}");
            assert_same(&rows, &model);
            for key in [Key::Int(i64::MIN), Key::Int(-3), Key::Int(40), Key::from(""), Key::from("2"), Key::from("x")] {
                for bound in [Bound::Included(&key), Bound::Excluded(&key)] {
                    let up = model.range((bound, Bound::Unbounded)).map(|(key, row)| (key.clone(), &**row));
                    assert!(rows.iter_from(bound).eq(up), "from {bound:?}");
                    let down = model.range((Bound::Unbounded, bound)).rev();
                    let down = down.map(|(key, row)| (key.clone(), row.clone()));
                    assert!(descending(&rows, bound).into_iter().eq(down), "to {bound:?}");
                }
            }
        }
    }

    #[test]
    fn rows_of_every_size_are_what_they_were_put_as_and_copies_never_change() {
        for seed in 0..12 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut rows, mut model, mut copies) = (Rows::new(), BTreeMap::new(), Vec::new());
            for step in 0..2_500 {
                let key = Key::Int(rng.i64(0..400));
                let len = if rng.u8(0..8) == 0 { rng.usize(1..5_000) } else { rng.usize(1..200) };
                let row = vec![rng.u8(..); len];
                let grows = step / 800 % 2 == 0;
                if rng.u8(0..10) < if grows { 8 } else { 3 } {
                    assert_eq!(put(&mut rows, key.clone(), &row), model.insert(key.clone(), row));
                } else {
                    assert_eq!(take(&mut rows, &key), model.remove(&key));
                }
                assert_eq!(rows.get(&key), model.get(&key).map(|row| &**row));
                if step % 300 == 0 {
                    copies.push((rows.clone(), model.clone()));
                }
            }
            let mut more = BTreeMap::new();
            for n in 400..400 + rng.i64(0..500) {
                let row = vec![rng.u8(..); rng.usize(1..3_000)];
                more.insert(if seed % 2 == 1 && n > 600 { Key::from(n.to_string()) } else { Key::Int(n) }, row);
            }
            let mut run = Run::new();
            for (key, values) in &more {
                run.push(key.clone(), Parts { number: Some(6), names: &[], values });
                assert_eq!(run.last(), Some(key));
            }
            rows.join(run.finish());
            model.extend(more.into_iter().map(|(key, values)| (key, [&[7], &*values].concat())));
            copies.push((rows, model));
            copies.iter().for_each(|(rows, model)| assert_same(rows, model));
        }
    }
}
