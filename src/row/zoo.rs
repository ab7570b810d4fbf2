//! What the tests of this module have in common: random records, deep rows, and a stack to overflow.

use crate::{Record, Value};

/// A random record; the same for the same seed.
pub(super) fn random_record(seed: u64) -> Record {
    let mut random = fastrand::Rng::with_seed(seed);
    dict(&mut random, 0)
}

pub(super) fn random_row(seed: u64) -> Vec<u8> {
    let mut row = Vec::new();
    super::encode_record(&random_record(seed), &mut row).unwrap();
    row
}

fn dict(random: &mut fastrand::Rng, depth: usize) -> Record {
    let fields = if random.u8(..) == 0 { random.usize(0..200) } else { random.usize(0..6) };
    (0..fields).map(|_| (text(random), value(random, depth))).collect()
}

fn value(random: &mut fastrand::Rng, depth: usize) -> Value {
    match random.u8(0..if depth < 5 { 10 } else { 7 }) {
        0 => Value::Null,
        1 => Value::Bool(random.bool()),
        2 => Value::Int(random.i64(..) >> random.u32(0..64)),
        3 => Value::UInt(random.u64(1 << 63..)),
        4 => Value::Float(random.f64() * 1e6),
        5 if random.u8(..) < 10 => Value::Float([f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MAX][random.usize(0..4)]),
        5 | 6 => Value::Str(text(random)),
        7 => (0..random.usize(0..5)).map(|_| value(random, depth + 1)).collect(),
        8 if random.u8(..) < 10 => (0..random.usize(100..200)).map(|_| random.i64(..)).collect(),
        _ => Value::Dict(dict(random, depth + 1)),
    }
}

fn text(random: &mut fastrand::Rng) -> String {
    match random.u8(0..3) {
        0 => ["id", "a", "b", "", "name"][random.usize(0..5)].to_owned(),
        1 => (0..random.usize(0..20)).map(|_| random.alphanumeric()).collect(),
        _ => (0..random.usize(0..8)).map(|_| random.char(..)).collect(),
    }
}

/// What SPEC.md says of values, with postcard's word on integers and lengths.
pub(super) fn by_the_book(value: &Value) -> Vec<u8> {
    let postcard = |number: usize| postcard::to_stdvec(&number).unwrap();
    match value {
        Value::Null => vec![0],
        Value::Bool(b) => vec![if *b { 2 } else { 1 }],
        Value::Int(n @ -32..=127) => vec![u8::try_from(n + 0x80).unwrap()],
        Value::Int(n) => [vec![3], postcard::to_stdvec(n).unwrap()].concat(),
        Value::UInt(n) => [vec![4], postcard::to_stdvec(n).unwrap()].concat(),
        Value::Float(x) => [vec![5], postcard::to_stdvec(x).unwrap()].concat(),
        Value::Str(s) if s.len() < 64 => [&[0x20 + s.len() as u8], s.as_bytes()].concat(),
        Value::Str(s) => [vec![6], postcard::to_stdvec(s).unwrap()].concat(),
        Value::List(values) => {
            let begin = if values.len() < 16 {
                vec![0x10 + values.len() as u8]
            } else {
                [vec![7], postcard(values.len())].concat()
            };
            [begin, values.iter().flat_map(by_the_book).collect()].concat()
        }
        Value::Dict(fields) => {
            let field = |(name, value)| [postcard::to_stdvec(name).unwrap(), by_the_book(value)].concat();
            [vec![8], postcard(fields.len()), fields.iter().flat_map(field).collect()].concat()
        }
    }
}

/// Bytes of rows with containers `depth` deep: lists, and dicts.
pub(super) fn nested_row(depth: usize) -> [Vec<u8>; 2] {
    let inner = depth.saturating_sub(1);
    let row = |container: &[u8]| [&[1, 1, b'a'], container.repeat(inner).as_slice(), &[0]].concat();
    [row(&[0x11]), row(&[8, 1, 1, b'a'])]
}

/// Values with containers `depth` deep, the record that is to hold them counted: lists, and dicts.
pub(super) fn nested_records(depth: usize) -> [Record; 2] {
    let (mut list, mut dict) = (Value::Null, Value::Null);
    for _ in 1..depth {
        list = Value::List(vec![list]);
        dict = Value::Dict(Record::from([("a", dict)]));
    }
    [Record::from([("a", list)]), Record::from([("a", dict)])]
}

/// Runs on 256 KiB of stack, an eighth of what a thread has, so that recursion without a bound shows.
pub(super) fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(256 << 10).spawn(test).unwrap().join().unwrap();
}
