//! The rows of one leaf against those that they were put as, and what they take.

use super::*;

impl Packed {
    fn room(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum::<usize>() + self.tail_used
    }
}

fn rows(packed: &Packed) -> Vec<Vec<u8>> {
    (0..packed.spans.len()).filter_map(|at| packed.get(at)).map(<[u8]>::to_vec).collect()
}

#[test]
fn rows_replaced_and_removed_leave_no_more_garbage_than_a_quarter() {
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut packed, mut model) = (Packed::new(), Vec::new());
    for _ in 0..20_000 {
        let row = vec![rng.u8(..); rng.usize(1..300)];
        match rng.u8(0..3) {
            0 if model.len() < LEAF_MAX => {
                let at = rng.usize(0..=model.len());
                packed.insert(at, &row);
                model.insert(at, row);
            }
            1 if !model.is_empty() => {
                let at = rng.usize(0..model.len());
                packed.remove(at);
                model.remove(at);
            }
            _ if !model.is_empty() => {
                let at = rng.usize(0..model.len());
                packed.replace(at, &row);
                model[at] = row;
            }
            _ => {}
        }
        let live: usize = model.iter().map(Vec::len).sum();
        assert!(packed.bytes() >= live);
        assert!(packed.garbage <= packed.bytes() / 4, "{} of {}", packed.garbage, packed.bytes());
        assert!(packed.room() <= live * 2 + 4 * COPY_MAX, "{} for {live}", packed.room());
    }
    assert_eq!(rows(&packed), model);
}

#[test]
fn a_row_that_grows_or_shrinks_by_a_byte_takes_no_more_than_that_in_a_full_buffer() {
    let values = [7; 100];
    let mut packed = Packed::new();
    packed
        .extend(std::iter::repeat_n(Parts { number: Some(0), names: &[], values: &values }, LEAF_MAX), &mut Vec::new());
    let mut model = rows(&packed);
    for (at, len) in [(0, 102), (47, 102), (20, 100), (20, 101), (21, 102), (0, 99), (46, 103)] {
        model[at] = vec![at as u8; len];
        packed.replace(at, &model[at]);
        assert_eq!(rows(&packed), model);
    }
    let live: usize = model.iter().map(Vec::len).sum();
    assert!(packed.room() <= live + CLASS_BYTES, "{} for {live}", packed.room());
}

#[test]
fn a_big_row_lies_apart_and_copies_of_its_leaf_share_it() {
    let mut packed = Packed::new();
    for len in [1, INLINE_MAX, INLINE_MAX + 1, 100_000] {
        packed.insert(0, &vec![len as u8; len]);
    }
    assert_eq!(packed.big.len(), 2);
    let copy = packed.clone();
    let place = |packed: &Packed| packed.get(0).map(<[u8]>::as_ptr);
    assert_eq!(place(&packed), place(&copy));
    // Of two big ones either may go first.
    for gone in [0, 1] {
        let mut packed = copy.clone();
        packed.remove(gone);
        let mut wanted = rows(&copy);
        wanted.remove(gone);
        assert_eq!((rows(&packed), packed.big.len()), (wanted, 1));
    }
    packed.remove(0);
    packed.remove(0);
    assert_eq!((packed.big.len(), rows(&copy).len()), (0, 4));
}

#[test]
fn a_copy_of_a_leaf_shares_its_rows_and_neither_sees_what_becomes_of_the_others() {
    let mut packed = Packed::new();
    (0..40_u8).for_each(|n| packed.insert(n.into(), &[n; 100]));
    let (copy, before) = (packed.clone(), rows(&packed));
    let places = |packed: &Packed| packed.pieces.iter().map(|piece| piece.as_ptr()).collect::<Vec<_>>();
    packed.insert(40, &[40; 100]);
    packed.replace(0, &[100; 99]);
    packed.replace(1, &[101; 101]);
    packed.remove(2);
    let shared = places(&packed).into_iter().filter(|place| places(&copy).contains(place)).count();
    assert!(shared + 1 >= copy.pieces.len(), "{shared}: all but the one that rows were added to");
    assert_eq!(rows(&copy), before);
    let mut wanted = before;
    wanted.push(vec![40; 100]);
    (wanted[0], wanted[1]) = (vec![100; 99], vec![101; 101]);
    wanted.remove(2);
    assert_eq!(rows(&packed), wanted);
}

#[test]
fn rows_take_little_more_than_their_bytes_whatever_their_lengths_and_in_whatever_order_they_come() {
    let long_among_short = |n: usize, long: usize| if n % 48 == 7 { long } else { 20 + n % 40 };
    let lengths: [(&str, &dyn Fn(usize) -> usize); 8] = [
        ("short", &|_| 10),
        ("as the benchmark's", &|_| 110),
        ("of two kilobytes", &|_| 2_000),
        ("one of two kilobytes among short ones", &|n| long_among_short(n, 2_000)),
        ("one of a kilobyte among short ones", &|n| long_among_short(n, 1_000)),
        ("long and short by turns", &|n| if n % 2 == 0 { 300 } else { 160 }),
        ("one in four a little longer than short", &|n| if n % 4 == 0 { 161 } else { 129 }),
        ("longer and longer", &|n| 1 + n * 40),
    ];
    for (name, len) in lengths {
        for is_last in [true, false] {
            let mut packed = Packed::new();
            for n in 0..LEAF_MAX {
                packed.insert(if is_last { n } else { n * 7 % (n + 1) }, &vec![1; len(n)]);
                let live: usize = (0..=n).map(len).sum();
                let most = live * 2 + 2 * CLASS_BYTES;
                assert!(packed.room() <= most, "{name}, {n}: {} for {live}", packed.room());
            }
        }
    }
}

#[test]
fn rows_put_behind_others_are_what_they_were_put_as_however_full_the_leaf_is() {
    for (first, count) in [(50, 24), (130, 12), (400, 6), (3_000, 4), (150, 30)] {
        for at_once in [1, 3, 7] {
            let (mut packed, mut model) = (Packed::new(), Vec::new());
            for n in 0..12_usize {
                packed.insert(n, &vec![n as u8; 161 + n * 40]);
                model.push(vec![n as u8; 161 + n * 40]);
            }
            let values: Vec<Vec<u8>> = (0..count).map(|n| vec![n as u8; first + n]).collect();
            for values in values.chunks(at_once) {
                let parts = values.iter().map(|values| Parts { number: Some(0), names: &[], values });
                for part in parts.clone() {
                    model.push(Vec::new());
                    part.append_to(model.last_mut().unwrap());
                }
                packed.extend(parts, &mut Vec::new());
                assert_eq!(rows(&packed), model);
            }
        }
    }
}

#[test]
fn a_leaf_that_is_cleared_holds_nothing() {
    let mut packed = Packed::new();
    for len in [100, 300, 5_000, 100] {
        packed.insert(0, &vec![1; len]);
    }
    packed.remove(0);
    packed.clear();
    assert_eq!((packed.bytes(), packed.room(), packed.garbage, packed.big.capacity()), (0, 0, 0, 0));
    assert_eq!(rows(&packed).len(), 0);
}

#[test]
fn a_row_that_grows_by_a_byte_again_and_again_seldom_has_its_piece_written_anew() {
    let mut packed = Packed::new();
    (0..LEAF_MAX).for_each(|n| packed.insert(n, &[n as u8; 100]));
    let place = |packed: &Packed| packed.pieces.iter().map(|piece| piece.as_ptr()).collect::<Vec<_>>();
    let (mut places, mut moves) = (place(&packed), 0);
    for round in 1..=200 {
        let row = vec![7; 100 + round];
        packed.replace(20, &row);
        assert_eq!(packed.get(20), Some(&*row));
        moves += usize::from(place(&packed) != places);
        places = place(&packed);
    }
    assert!(moves <= 20, "{moves}");
    assert_eq!(packed.get(47), Some(&[47; 100][..]));
}

#[test]
fn both_halves_of_a_split_hold_their_own_rows_and_no_garbage() {
    let mut packed = Packed::new();
    (0..40_u8).for_each(|n| packed.insert(n.into(), &[n; 50]));
    (0..5).for_each(|_| packed.remove(0));
    assert!(packed.garbage > 0);
    let right = packed.split_off(20);
    assert_eq!((rows(&packed).len(), rows(&right).len()), (20, 15));
    assert_eq!((packed.garbage, right.garbage, right.bytes()), (0, 0, 15 * 50));
    assert_eq!(rows(&right)[0], [25; 50]);
}
