//! A leaf: keys in order, what their values lie in, and how a key is found among others.

use std::borrow::Borrow;
use std::ops::Bound;

use arrayvec::ArrayVec;

/// Entries of a leaf. More make the tree lower and a leaf dearer to copy while a snapshot is held.
pub(crate) const LEAF_MAX: usize = 48;

/// The values of one leaf, at most [`LEAF_MAX`] of them, in the order of their keys.
pub(crate) trait Values: Clone {
    /// What is put in, and what is seen of it.
    type In<'v>;
    type Out<'v>
    where
        Self: 'v;

    fn new() -> Self;
    fn get(&self, at: usize) -> Option<Self::Out<'_>>;
    fn insert(&mut self, at: usize, value: Self::In<'_>);
    fn remove(&mut self, at: usize);
    fn clear(&mut self);
    /// Takes the values from a place on out.
    fn split_off(&mut self, at: usize) -> Self;
    /// Puts the values of a right neighbour behind the own ones.
    fn append(&mut self, right: Self);
    /// All values will be read soon.
    fn fetch(&self) {}
    /// Asks for the memory of the value at a place, or of where a new one goes.
    fn prefetch(&self, _at: Result<usize, usize>) {}
}

impl<V: Clone> Values for Vec<V> {
    type In<'v> = V;
    type Out<'v>
        = &'v V
    where
        V: 'v;

    fn new() -> Vec<V> {
        Vec::new()
    }

    fn get(&self, at: usize) -> Option<&V> {
        <[V]>::get(self, at)
    }

    fn insert(&mut self, at: usize, value: V) {
        Vec::insert(self, at, value);
    }

    fn remove(&mut self, at: usize) {
        Vec::remove(self, at);
    }

    fn clear(&mut self) {
        Vec::clear(self);
    }

    fn split_off(&mut self, at: usize) -> Vec<V> {
        Vec::split_off(self, at)
    }

    fn append(&mut self, mut right: Vec<V>) {
        Vec::append(self, &mut right);
    }
}

#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Leaf<K, V> {
    pub(super) keys: ArrayVec<K, LEAF_MAX>,
    pub(super) values: V,
}

impl<K: Ord + Clone, V: Values> Leaf<K, V> {
    pub(super) fn new() -> Leaf<K, V> {
        Leaf { keys: ArrayVec::new(), values: V::new() }
    }

    /// The first entry that is not before a bound.
    pub(super) fn begin<Q: Ord + ?Sized>(&self, from: Bound<&Q>) -> usize
    where
        K: Borrow<Q>,
    {
        match from {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.find(key).unwrap_or_else(|at| at),
            Bound::Excluded(key) => self.find(key).map_or_else(|at| at, |at| at.saturating_add(1)),
        }
    }

    /// How many entries are not behind a bound.
    pub(super) fn end<Q: Ord + ?Sized>(&self, to: Bound<&Q>) -> usize
    where
        K: Borrow<Q>,
    {
        match to {
            Bound::Unbounded => self.keys.len(),
            Bound::Included(key) => self.find(key).map_or_else(|at| at, |at| at.saturating_add(1)),
            Bound::Excluded(key) => self.find(key).unwrap_or_else(|at| at),
        }
    }

    pub(super) fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        let at = self.keys.partition_point(|k| k.borrow() < key);
        if self.keys.get(at).is_some_and(|k| k.borrow() == key) { Ok(at) } else { Err(at) }
    }
}
