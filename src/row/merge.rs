//! An update of some fields, on rows.

use std::collections::HashMap;

use super::RowRef;
use crate::wire::{Malformed, put_str, put_u64};

/// Up to here looking at each is faster than hashing.
const FEW: usize = 16;

/// A field of the changes: its name, the bytes of its value, and whether the row had a field of this name.
struct Change<'a> {
    name: &'a str,
    value: &'a [u8],
    placed: bool,
}

/// The fields of `row`, with those of `changes` in place of the ones of the same name, and the others of `changes`
/// behind them: what `dict.update` does in Python. Both are rows, so the outcome, whole, is one too, but for its length,
/// which may come to exceed `ROW_BYTES_MAX`: that is for the caller to look at.
pub(crate) fn merge<'r>(row: impl Into<RowRef<'r>>, changes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut new = Vec::new();
    let mut fields = RowRef::from(changes).fields()?;
    while let Some(name) = fields.next()? {
        new.push(Change { name, value: fields.value()?, placed: false });
    }
    let by_name: Option<HashMap<&str, usize>> =
        (new.len() > FEW).then(|| new.iter().enumerate().map(|(i, change)| (change.name, i)).collect());

    let mut fields = row.into().fields()?;
    let mut total = fields.left();
    let mut names = Vec::new();
    let mut values = Vec::with_capacity(fields.values.remaining().saturating_add(changes.len()));
    while let Some(name) = fields.next()? {
        let value = fields.value()?;
        let change = match &by_name {
            None => new.iter_mut().find(|change| change.name == name),
            Some(by_name) => by_name.get(name).and_then(|&i| new.get_mut(i)),
        };
        put_str(&mut names, name);
        values.extend_from_slice(match change {
            Some(change) => {
                change.placed = true;
                change.value
            }
            None => value,
        });
    }
    for change in new.iter().filter(|change| !change.placed) {
        put_str(&mut names, change.name);
        values.extend_from_slice(change.value);
        total = total.saturating_add(1);
    }
    let mut out = Vec::with_capacity(names.len().saturating_add(values.len()).saturating_add(10));
    put_u64(&mut out, total as u64);
    out.extend_from_slice(&names);
    out.extend_from_slice(&values);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::zoo::random_record;
    use super::super::{decode_record, encode_record, validate};
    use super::*;
    use crate::{Record, record};

    fn row(record: &Record) -> Vec<u8> {
        let mut row = Vec::new();
        encode_record(record, &mut row).unwrap();
        row
    }

    #[test]
    fn merging_rows_is_what_extending_records_is() {
        let wide = |from: i64, to: i64, by: i64| (from..to).map(|i| (format!("f{i}"), i * by)).collect::<Record>();
        let mut pairs = vec![
            (record! { "a": 1, "b": [2], "c": 3 }, record! { "d": null, "b": { "x": "y" }, "a": 0 }),
            (record! {}, record! { "a": 1 }),
            (record! { "a": 1 }, record! {}),
            (wide(0, 120, 1), wide(100, 140, 7)),
            (wide(0, 5, 1), wide(0, 16, 7)),
            (wide(0, 5, 1), wide(0, 17, 7)),
        ];
        pairs.extend((0..200).map(|seed| (random_record(seed), random_record(seed + 1_000))));
        for (old, changes) in pairs {
            let merged = merge(&row(&old), &row(&changes)).unwrap();
            let mut want = old;
            want.extend(changes);
            assert_eq!(merged, row(&want));
            assert_eq!(validate(&merged), Ok(()));
            assert_eq!(decode_record(&merged).unwrap().to_string(), want.to_string());
        }
    }
}
