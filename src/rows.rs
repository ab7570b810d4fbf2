//! The rows of a table by key.
//!
//! Most tables have integer keys only. Theirs lie in the tree as plain integers: a third of the memory, and a search
//! that touches a third of the cache lines. The first string key makes it a tree of [`Key`]s, once, at the cost of a
//! copy of the tree (the rows themselves are shared).

use std::ops::Bound;

use crate::row::Row;
use crate::tree::{self, Tree};
use crate::value::Key;

/// The map. `Clone` copies a pointer.
#[derive(Clone, Debug)]
pub(crate) enum Rows {
    Ints(Tree<i64, Row>),
    Keys(Tree<Key, Row>),
}

impl Rows {
    pub(crate) fn new() -> Rows {
        Rows::Ints(Tree::new())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Rows::Ints(tree) => tree.len(),
            Rows::Keys(tree) => tree.len(),
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Row> {
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.get(n),
            (Rows::Ints(_), Key::Str(_)) => None,
            (Rows::Keys(tree), key) => tree.get(key),
        }
    }

    /// Puts a row under a key; gives the one that it replaces.
    pub(crate) fn insert(&mut self, key: Key, row: Row) -> Option<Row> {
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.insert(n, row),
            (rows, key) => rows.keys().insert(key, row),
        }
    }

    /// Puts a row under a key that has none; gives it back where there is one already.
    pub(crate) fn insert_new(&mut self, key: &Key, row: Row) -> Option<Row> {
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.insert_new(*n, row),
            (rows, key) => rows.keys().insert_new(key.clone(), row),
        }
    }

    /// Takes the row under a key away.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Row> {
        match (self, key) {
            (Rows::Ints(tree), Key::Int(n)) => tree.remove(n),
            (Rows::Ints(_), Key::Str(_)) => None,
            (Rows::Keys(tree), key) => tree.remove(key),
        }
    }

    /// The tree that takes any key; makes it where there is none.
    fn keys(&mut self) -> &mut Tree<Key, Row> {
        if let Rows::Ints(ints) = self {
            let mut keys = Tree::new();
            for (n, row) in ints.iter() {
                keys.insert(Key::Int(*n), row.clone());
            }
            *self = Rows::Keys(keys);
        }
        match self {
            Rows::Keys(tree) => tree,
            Rows::Ints(_) => unreachable!("it was replaced a moment ago"),
        }
    }

    /// All rows in the order of their keys.
    pub(crate) fn iter(&self) -> Iter<'_> {
        self.iter_from(Bound::Unbounded)
    }

    /// All rows in the order of their keys, without them.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Row> {
        let (ints, keys) = match self {
            Rows::Ints(tree) => (Some(tree.values()), None),
            Rows::Keys(tree) => (None, Some(tree.values())),
        };
        ints.into_iter().flatten().chain(keys.into_iter().flatten())
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

    /// The rows up to a bound, descending.
    pub(crate) fn iter_back_from(&self, from: Bound<&Key>) -> IterBack<'_> {
        match self {
            Rows::Ints(tree) => IterBack::Ints(tree.iter_back_from(integer(from).as_ref())),
            Rows::Keys(tree) => IterBack::Keys(tree.iter_back_from(from)),
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
    Ints(tree::Iter<'t, i64, Row>),
    Keys(tree::Iter<'t, Key, Row>),
}

impl<'t> Iterator for Iter<'t> {
    type Item = (Key, &'t Row);

    fn next(&mut self) -> Option<(Key, &'t Row)> {
        match self {
            Iter::Empty => None,
            Iter::Ints(iter) => iter.next().map(|(n, row)| (Key::Int(*n), row)),
            Iter::Keys(iter) => iter.next().map(|(key, row)| (key.clone(), row)),
        }
    }
}

/// Rows in descending order.
pub(crate) enum IterBack<'t> {
    Ints(tree::IterBack<'t, i64, Row>),
    Keys(tree::IterBack<'t, Key, Row>),
}

impl<'t> Iterator for IterBack<'t> {
    type Item = (Key, &'t Row);

    fn next(&mut self) -> Option<(Key, &'t Row)> {
        match self {
            IterBack::Ints(iter) => iter.next().map(|(n, row)| (Key::Int(*n), row)),
            IterBack::Keys(iter) => iter.next().map(|(key, row)| (key.clone(), row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;
    use std::collections::BTreeMap;

    fn row(n: i64) -> Row {
        let mut bytes = Vec::new();
        crate::row::encode_record(&record! { "n": n }, &mut bytes).unwrap();
        Row::new(&bytes)
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
                    0 => assert_eq!(rows.remove(&key), model.remove(&key)),
                    1 => {
                        let taken = model.contains_key(&key);
                        assert_eq!(rows.insert_new(&key, row(step)).is_some(), taken);
                        model.entry(key.clone()).or_insert_with(|| row(step));
                    }
                    _ => assert_eq!(rows.insert(key.clone(), row(step)), model.insert(key.clone(), row(step))),
                }
                assert_eq!((rows.len(), rows.get(&key)), (model.len(), model.get(&key)));
            }
            assert_eq!(matches!(rows, Rows::Keys(_)), seed % 2 == 1, "seed {seed}");
            assert!(rows.values().eq(model.values()));
            assert!(rows.iter().map(|(key, _)| key).eq(model.keys().cloned()));
            for key in [Key::Int(i64::MIN), Key::Int(-3), Key::Int(40), Key::from(""), Key::from("2"), Key::from("x")] {
                for bound in [Bound::Included(&key), Bound::Excluded(&key)] {
                    let up = model.range((bound, Bound::Unbounded)).map(|(key, row)| (key.clone(), row));
                    assert!(rows.iter_from(bound).eq(up), "from {bound:?}");
                    let down = model.range((Bound::Unbounded, bound)).rev().map(|(key, row)| (key.clone(), row));
                    assert!(rows.iter_back_from(bound).eq(down), "to {bound:?}");
                }
            }
        }
    }
}
