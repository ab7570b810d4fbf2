//! The check that makes bytes a row.

#[cfg(any(test, feature = "fuzzing"))]
use super::FIELD_BYTES_MIN;
use super::key::key_after;
use super::names::Names;
use super::{KeyIn, Lead, deeper};
use crate::limits::NAME_BYTES_MAX;
#[cfg(any(test, feature = "fuzzing"))]
use crate::limits::ROW_BYTES_MAX;
use crate::wire::{Malformed, Reader};

/// Whether the bytes are a row; where not, the first place that is wrong. Allocates nothing for dicts of up to 16
/// fields.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn validate(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.len() > ROW_BYTES_MAX {
        return Err(Malformed { at: ROW_BYTES_MAX, expected: "a row of at most 256 MiB" });
    }
    let mut reader = Reader::new(bytes);
    reader.clone().count(FIELD_BYTES_MIN)?;
    for _ in 0..names(&mut reader)? {
        value(&mut reader, 1)?;
    }
    reader.finish()
}

/// The names of a row; how many there are.
pub(crate) fn names(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    let count = reader.count(1)?;
    let mut names = Names::new();
    for _ in 0..count {
        name(reader, &mut names)?;
    }
    Ok(count)
}

/// The values of a row with so many names; what the one in `key_field` is as a key. Runs for every row that is restored.
pub(crate) fn values<'a>(reader: &mut Reader<'a>, count: usize, key_field: usize) -> Result<KeyIn<'a>, Malformed> {
    let mut key = KeyIn::Missing;
    for field in 0..count {
        if field == key_field {
            let at = reader.pos();
            let mut ahead = reader.clone();
            let lead = Lead::read(&mut ahead)?;
            key = key_after(lead, &mut ahead, field, at)?;
            if matches!(key, KeyIn::Int { .. } | KeyIn::Str { .. }) {
                // Read as a key it is checked as a value, too.
                *reader = ahead;
                continue;
            }
        }
        value(reader, 1)?;
    }
    Ok(key)
}

#[inline]
fn name<'a>(reader: &mut Reader<'a>, names: &mut Names<'a>) -> Result<(), Malformed> {
    let before = reader.clone();
    let name = reader.utf8_bytes()?;
    if name.len() > NAME_BYTES_MAX {
        return Err(before.malformed("a field's name of at most 64 KiB"));
    }
    if !names.insert(name) {
        return Err(before.malformed("a name that the dict does not have yet"));
    }
    Ok(())
}

#[inline(never)]
fn list(reader: &mut Reader<'_>, count: usize, depth: usize) -> Result<(), Malformed> {
    let depth = deeper(reader, depth)?;
    for _ in 0..count {
        value(reader, depth)?;
    }
    Ok(())
}

#[inline(never)]
fn dict(reader: &mut Reader<'_>, count: usize, depth: usize) -> Result<(), Malformed> {
    let depth = deeper(reader, depth)?;
    let mut names = Names::new();
    for _ in 0..count {
        name(reader, &mut names)?;
        value(reader, depth)?;
    }
    Ok(())
}

/// Inline, so that only containers are a call.
#[inline(always)]
fn value(reader: &mut Reader<'_>, depth: usize) -> Result<(), Malformed> {
    match Lead::read(reader)? {
        Lead::Null | Lead::Bool(_) | Lead::Int(_) | Lead::UInt(_) | Lead::Float(_) => {}
        Lead::Str(len) => drop(reader.utf8(len)?),
        Lead::List(count) => list(reader, count, depth)?,
        Lead::Dict(count) => dict(reader, count, depth)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::zoo::{nested_row, on_a_small_stack, random_row};
    use super::super::{decode, decode_record, find_key, first_non_finite, merge};
    use super::*;
    use crate::limits::DEPTH_MAX;
    use crate::wire::put_str;

    /// A row of one field `a` with these bytes for its value.
    fn row_of(value: &[u8]) -> Vec<u8> {
        [&[1, 1, b'a'], value].concat()
    }

    #[test]
    fn each_class_of_damage_is_refused_where_it_stands() {
        for (row, at, expected) in [
            (row_of(&[9]), 3, "the first byte of a value"),
            (row_of(&[0x0f, 0x00]), 3, "the first byte of a value"),
            (row_of(&[3, 0x82, 0x00]), 4, "an integer in its fewest bytes"),
            (row_of(&[3, 2]), 4, "an integer that does not fit the byte before"),
            (row_of(&[4, 7]), 4, "an integer above 2^63 - 1, as smaller ones have a kind of their own"),
            (row_of(&[0x21, 0xff]), 4, "text in UTF-8"),
            (row_of(&[6, 1, b'x']), 4, "a length that does not fit the byte before"),
            (row_of(&[0, 0]), 4, "the end"),
            (row_of(&[0x12, 0]), 3, "a count that the bytes after it can hold"),
            (row_of(&[7, 1, 0]), 4, "a count that does not fit the byte before"),
            (row_of(&[7, 20, 0]), 4, "a count that the bytes after it can hold"),
            (row_of(&[8, 1, 0]), 4, "a count that the bytes after it can hold"),
            (vec![1, 1, 0xff, 0], 2, "text in UTF-8"),
            (vec![0x81, 0x00, 1, b'a', 0], 0, "an integer in its fewest bytes"),
            (vec![2, 1, b'a', 1, b'a', 0, 0], 3, "a name that the dict does not have yet"),
            (row_of(&[8, 2, 0, 0, 0, 0]), 7, "a name that the dict does not have yet"),
            (vec![], 0, "a whole integer"),
        ] {
            assert_eq!(validate(&row), Err(Malformed { at, expected }), "{row:x?}");
        }
        assert_eq!(validate(&row_of(&[0x12, 8, 1, 1, b'a', 0, 8, 1, 1, b'a', 0])), Ok(()));
        assert_eq!(validate(&[0]), Ok(()));
    }

    #[test]
    fn a_name_twice_is_refused_among_many_fields() {
        for count in [2_u8, 16, 17, 18, 100] {
            let mut row = vec![count];
            for i in 1..count {
                put_str(&mut row, &i.to_string());
            }
            let nulls = vec![0; usize::from(count)];
            let unique = {
                let mut row = row.clone();
                put_str(&mut row, "last");
                row.extend_from_slice(&nulls);
                row
            };
            assert_eq!(validate(&unique), Ok(()));
            let at = row.len();
            put_str(&mut row, "1");
            row.extend_from_slice(&nulls);
            assert_eq!(validate(&row), Err(Malformed { at, expected: "a name that the dict does not have yet" }));
        }
    }

    #[test]
    fn a_name_of_64_kib_is_taken_and_one_byte_more_refused() {
        for (len, ok) in [(NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)] {
            let mut row = vec![1];
            put_str(&mut row, &"x".repeat(len));
            row.push(0);
            assert_eq!(validate(&row).is_ok(), ok);
        }
    }

    #[test]
    fn a_row_cut_short_anywhere_or_lengthened_is_refused() {
        for seed in 0..300 {
            let mut row = random_row(seed);
            for len in 0..row.len() {
                assert!(validate(&row[..len]).is_err(), "seed {seed}, length {len}");
                let _ = decode_record(&row[..len]);
            }
            row.push(0);
            assert!(validate(&row).is_err(), "seed {seed}");
        }
    }

    #[test]
    fn no_flipped_bit_panics_and_what_is_accepted_reads_back_as_the_same_bytes() {
        let mut accepted = 0;
        for seed in 0..100 {
            let row = random_row(seed);
            for bit in 0..row.len() * 8 {
                let mut flipped = row.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let _ = (find_key(&flipped, "id"), first_non_finite(&flipped), merge(&flipped, &row));
                let _ = (decode::<serde_json::Value>(&flipped), merge(&row, &flipped));
                let record = decode_record(&flipped);
                if validate(&flipped).is_ok() {
                    accepted += 1;
                    let mut again = Vec::new();
                    super::super::encode_record(&record.unwrap(), &mut again).unwrap();
                    assert_eq!(again, flipped, "seed {seed}, bit {bit}");
                }
            }
        }
        assert!(accepted > 1_000, "only {accepted}");
    }

    #[test]
    fn containers_may_be_100_deep_and_not_101() {
        on_a_small_stack(|| {
            for depth in [DEPTH_MAX - 1, DEPTH_MAX] {
                for row in nested_row(depth) {
                    assert_eq!(validate(&row), Ok(()), "{depth}");
                }
            }
            for depth in [DEPTH_MAX + 1, 100_000] {
                for row in nested_row(depth) {
                    assert_eq!(validate(&row).map_err(|m| m.expected), Err(super::super::DEPTH), "{depth}");
                }
            }
        });
    }
}
