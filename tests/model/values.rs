//! Random values, records and keys, the odd ones more often than in life.

use dictdb::{Key, Record, Value};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a sequence's values are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taste {
    /// NaN and infinities, which JSON backups refuse.
    pub(crate) non_finite: bool,
}

pub(crate) fn pick<'a, T>(random: &mut Rng, from: &'a [T]) -> &'a T {
    &from[random.usize(0..from.len())]
}

/// True once in `n` times.
pub(crate) fn once_in(random: &mut Rng, n: u32) -> bool {
    random.u32(0..n) == 0
}

pub(crate) fn text(random: &mut Rng) -> String {
    match random.u8(0..6) {
        0 => String::new(),
        1 => (0..random.usize(1..6)).map(|_| random.char(..)).collect(),
        2 => (*pick(random, &["\u{0}", "\"\\/\u{8}\n\r\t", "\u{2028}\u{feff}", "𝄞é", "\u{fffd}\u{10ffff}", "null"]))
            .into(),
        _ => (0..random.usize(1..12)).map(|_| random.alphanumeric()).collect(),
    }
}

pub(crate) fn field_name(random: &mut Rng) -> String {
    // The last ones mean something to serde_json, to our JSON documents and to DictDB's.
    const NAMES: &[&str] = &[
        "a",
        "b",
        "name",
        "score",
        "id",
        "code",
        "",
        "ü \"\n",
        "$serde_json::private::RawValue",
        "$serde_json::private::Number",
        "dictdb",
        "records",
    ];
    if once_in(random, 8) { text(random) } else { (*pick(random, NAMES)).to_owned() }
}

pub(crate) fn float(random: &mut Rng, taste: Taste) -> f64 {
    if taste.non_finite && once_in(random, 3) {
        let strange = f64::from_bits(0x7ff8_0000_0000_0000 | u64::from(random.u16(..)));
        return *pick(random, &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, strange]);
    }
    match random.u8(0..4) {
        0 => *pick(random, &[0.0, -0.0, 1.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1, 1e23, -1e300]),
        1 => {
            let any = f64::from_bits(random.u64(..));
            if any.is_finite() { any } else { 0.5 }
        }
        _ => (random.f64() - 0.5) * 1e4,
    }
}

pub(crate) fn value(random: &mut Rng, depth: u32, taste: Taste) -> Value {
    match random.u8(0..if depth < 4 { 12 } else { 9 }) {
        0 => Value::Null,
        1 => Value::Bool(random.bool()),
        2 | 3 => Value::Int(random.i64(..) >> random.u32(0..64)),
        4 => {
            let odd = [Value::Int(i64::MIN), Value::Int(i64::MAX), Value::UInt(u64::MAX), Value::UInt(1 << 63)];
            if once_in(random, 4) { Value::UInt(7) } else { pick(random, &odd).clone() }
        }
        5 | 6 => Value::Float(float(random, taste)),
        7 | 8 => Value::Str(text(random)),
        9 => Value::List((0..random.usize(0..4)).map(|_| value(random, depth + 1, taste)).collect()),
        _ => Value::Dict(fields(random, depth + 1, taste)),
    }
}

pub(crate) fn fields(random: &mut Rng, depth: u32, taste: Taste) -> Record {
    let count = if once_in(random, 200) { random.usize(100..300) } else { random.usize(0..5) };
    (0..count)
        .map(|n| (if n < 6 { field_name(random) } else { format!("f{n}") }, value(random, depth, taste)))
        .collect()
}

/// A value that makes its record 97 to 103 containers deep: the limit is 100.
pub(crate) fn deep(random: &mut Rng) -> Value {
    let mut value = Value::Int(1);
    for _ in 0..random.usize(96..=102) {
        value = if random.bool() { Value::List(vec![value]) } else { Value::Dict(Record::from([("d", value)])) };
    }
    value
}

/// Mostly one of a few, so that it is met again.
pub(crate) fn key(random: &mut Rng) -> Key {
    match random.u8(0..40) {
        0 => Key::Int(i64::MIN),
        1 => Key::from(text(random)),
        2 if once_in(random, 4) => Key::Int(i64::MAX),
        3 => Key::Int(random.i64(..) >> random.u32(1..64)),
        4..16 => Key::from(*pick(random, &["", "a", "b", "10", "é"])),
        _ => Key::Int(random.i64(-3..20)),
    }
}

/// What no record may have for a key.
pub(crate) fn no_key(random: &mut Rng) -> Value {
    pick(
        random,
        &[
            Value::Bool(true),
            Value::Float(1.0),
            Value::UInt(u64::MAX),
            Value::List(Vec::new()),
            Value::Dict(Record::new()),
            Value::Str("x".repeat((64 << 10) + 1)),
        ],
    )
    .clone()
}

/// A record of a Rust type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Typed {
    pub(crate) id: Option<i64>,
    pub(crate) name: String,
    pub(crate) score: f64,
    pub(crate) tags: Vec<String>,
    pub(crate) extra: BTreeMap<String, u64>,
}

impl Typed {
    pub(crate) fn random(random: &mut Rng, taste: Taste) -> Typed {
        let id = if random.bool() { None } else { Some(random.i64(-3..20)) };
        let tags = (0..random.usize(0..3)).map(|_| text(random)).collect();
        let extra = (0..random.usize(0..3)).map(|_| (text(random), random.u64(..) >> random.u32(0..64))).collect();
        Typed { id, name: text(random), score: float(random, taste), tags, extra }
    }

    /// The same as a dynamic record.
    pub(crate) fn to_record(&self) -> Record {
        let extra: Record = self.extra.iter().map(|(name, n)| (name.clone(), Value::from(*n))).collect();
        Record::from([
            ("id", self.id.map_or(Value::Null, Value::Int)),
            ("name", Value::from(&self.name)),
            ("score", Value::Float(self.score)),
            ("tags", self.tags.iter().map(Value::from).collect()),
            ("extra", Value::Dict(extra)),
        ])
    }
}
