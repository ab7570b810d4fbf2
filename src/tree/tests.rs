//! The tree against a map that is known to be right.

use super::*;
use std::collections::BTreeMap;

fn put(tree: &mut Tree<u32, Vec<u32>>, key: u32, value: u32) -> Option<u32> {
    let mut old = None;
    let was_there = tree.insert(key, value, |values, at, value| {
        old = values.get_mut(at).map(|old| std::mem::replace(old, value));
    });
    assert_eq!(was_there, old.is_some());
    old
}

fn take(tree: &mut Tree<u32, Vec<u32>>, key: u32) -> Option<u32> {
    let mut old = None;
    assert_eq!(tree.remove(&key, |value| old = Some(*value)), old.is_some());
    old
}

/// All entries up to a bound, leaf by leaf.
fn descending(tree: &Tree<u32, Vec<u32>>, to: Bound<&u32>) -> impl Iterator<Item = (u32, u32)> {
    let mut all = Vec::new();
    let mut to = to.cloned();
    while let Some((leaf, end)) = tree.leaf_back_from(to.as_ref()) {
        all.extend((0..end).rev().map(|at| (*leaf.key(at).unwrap(), *leaf.value(at).unwrap())));
        to = Bound::Excluded(*leaf.key(0).unwrap());
    }
    all.into_iter()
}

pub(super) fn leaves<K, V>(node: &Node<K, V>) -> usize {
    match &node.kind {
        Kind::Leaf(_) => 1,
        Kind::Inner(inner) => inner.children.iter().map(|child| leaves(child)).sum(),
    }
}

/// Where the inner nodes lie.
pub(super) fn inner_nodes<K, V>(tree: &Tree<K, V>) -> Vec<*const Node<K, V>> {
    fn below<K, V>(node: &Arc<Node<K, V>>, all: &mut Vec<*const Node<K, V>>) {
        if let Kind::Inner(inner) = &node.kind {
            all.push(Arc::as_ptr(node));
            inner.children.iter().for_each(|child| below(child, all));
        }
    }
    let mut all = Vec::new();
    below(&tree.root, &mut all);
    all
}

pub(super) fn check(tree: &Tree<u32, Vec<u32>>, model: &BTreeMap<u32, u32>, rng: &mut fastrand::Rng) {
    assert_eq!(tree.len(), model.len());
    assert!(tree.iter().eq(model.iter()));
    assert!(descending(tree, Bound::Unbounded).eq(model.iter().rev().map(|(k, v)| (*k, *v))));
    for _ in 0..20 {
        let key = rng.u32(0..700);
        assert_eq!(tree.get(&key), model.get(&key));
        for bound in [Bound::Included(&key), Bound::Excluded(&key)] {
            assert!(tree.iter_from(bound).eq(model.range((bound, Bound::Unbounded))), "from {bound:?}");
            let up = tree.leaf_from(bound).and_then(|(leaf, at)| Some((*leaf.key(at)?, *leaf.value(at)?)));
            assert_eq!(up, model.range((bound, Bound::Unbounded)).next().map(|(k, v)| (*k, *v)));
            let down = model.range((Bound::Unbounded, bound)).rev().map(|(k, v)| (*k, *v));
            assert!(descending(tree, bound).eq(down), "to {bound:?}");
        }
    }
    depth(&tree.root, None, None);
}

/// Checks order, separators and equal depth; gives the depth.
fn depth(node: &Node<u32, Vec<u32>>, least: Option<u32>, above: Option<u32>) -> usize {
    match &node.kind {
        Kind::Leaf(leaf) => {
            assert_eq!(leaf.keys.len(), leaf.values.len());
            assert!(leaf.keys.is_sorted());
            assert!(leaf.keys.iter().all(|k| least.is_none_or(|l| *k >= l) && above.is_none_or(|a| *k < a)));
            1
        }
        Kind::Inner(inner) => {
            assert_eq!(inner.children.len(), inner.keys.len() + 1);
            let bounds = |i: usize| {
                let low = if i == 0 { least } else { Some(inner.keys[i - 1]) };
                (low, inner.keys.get(i).copied().or(above))
            };
            let depths: Vec<usize> =
                inner.children.iter().enumerate().map(|(i, c)| depth(c, bounds(i).0, bounds(i).1)).collect();
            assert!(depths.windows(2).all(|pair| pair[0] == pair[1]), "leaves at one depth");
            assert_eq!(inner.is_lowest, depths[0] == 1);
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
                assert_eq!(put(&mut tree, key, step), model.insert(key, step), "seed {seed}");
            } else {
                assert_eq!(take(&mut tree, key), model.remove(&key), "seed {seed}");
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
            assert_eq!(take(&mut tree, key), model.remove(&key));
        }
        check(&tree, &model, &mut rng);
        assert_eq!(tree.iter().next(), None);
    }
}

#[test]
fn entries_appended_are_those_that_insertion_makes_and_fill_the_leaves() {
    for (first, more) in [(0, 5), (0, 10_000), (7, 3_000), (48, 48), (1_000, 100), (2_000, 0)] {
        let (mut tree, mut model) = (Tree::new(), BTreeMap::new());
        for key in 0..first {
            put(&mut tree, key, key);
            model.insert(key, key);
        }
        let before = (tree.clone(), model.clone());
        let mut values = first..first + more;
        tree.append(first..first + more, |leaf, n| leaf.extend(values.by_ref().take(n)));
        model.extend((first..first + more).map(|key| (key, key)));
        let mut rng = fastrand::Rng::with_seed(1);
        check(&tree, &model, &mut rng);
        check(&before.0, &before.1, &mut rng);
        assert_eq!(leaves(&tree.root), model.len().div_ceil(LEAF_MAX).max(1));
    }
}

#[test]
fn keys_in_order_fill_the_leaves() {
    let mut tree = Tree::<i32, Vec<()>>::new();
    for key in 0..10_000 {
        assert!(!tree.insert(key, (), |_, _, ()| ()));
    }
    assert_eq!(leaves(&tree.root), 10_000_usize.div_ceil(LEAF_MAX));
}

#[test]
fn keys_that_descend_or_ascend_behind_a_full_leaf_fill_the_leaves() {
    for descends in [true, false] {
        let mut tree = Tree::<u32, Vec<u32>>::new();
        let (mut model, mut copies) = (BTreeMap::new(), Vec::new());
        let full = LEAF_MAX as u32;
        let between = full..10_000;
        let behind: Vec<u32> = if descends { between.rev().collect() } else { between.collect() };
        let far_behind = 20_000..20_000 + full;
        for (n, key) in (0..full).chain(far_behind).chain(behind).enumerate() {
            assert!(put(&mut tree, key, key).is_none());
            model.insert(key, key);
            if n % 1_000 == 0 {
                copies.push((tree.clone(), model.clone()));
            }
        }
        let fewest = model.len().div_ceil(LEAF_MAX);
        assert!(leaves(&tree.root) <= fewest + 1, "{} leaves, descending: {descends}", leaves(&tree.root));
        copies.push((tree, model));
        let mut rng = fastrand::Rng::with_seed(1);
        copies.iter().for_each(|(tree, model)| check(tree, model, &mut rng));
    }
}

#[test]
fn a_way_of_long_ago_or_to_another_key_misleads_nobody() {
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut tree, mut model) = (Tree::<u32, Vec<u32>>::new(), BTreeMap::new());
    let mut ways = vec![Way::UNKNOWN];
    for step in 0..60_000 {
        let key = rng.u32(0..20_000);
        let mut way = ways[rng.usize(..ways.len())];
        match rng.u8(..8) {
            0 => way = tree.prefetch(&key),
            1 => way.note(rng.usize(..3), rng.usize(..CHILDREN_MAX)),
            2 => ways.extend(tree.warm([key, step, step / 2].iter())),
            _ => {}
        }
        if rng.u8(..4) == 0 {
            assert_eq!(take(&mut tree, key), model.remove(&key));
        } else {
            let was_there = tree.insert_near(&way, key, step, |values, at, value| values[at] = value);
            assert_eq!(was_there, model.insert(key, step).is_some());
        }
        if ways.len() > 300 {
            ways.drain(..200);
        }
        if step % 5_000 == 0 {
            check(&tree, &model, &mut rng);
        }
    }
    check(&tree, &model, &mut rng);
    assert!(tree.len() > 10_000);
}
