//! Tells whether a dict has a field twice.

use std::collections::HashSet;

/// Up to here comparing each with each is cheapest, and needs no memory.
const FEW: usize = 16;

/// Collects the names of one dict.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and is there to spare an allocation")]
pub(super) enum Names<'a> {
    Few { heads: [u64; FEW], names: [&'a [u8]; FEW], len: usize },
    Many(HashSet<&'a [u8]>),
}

impl<'a> Names<'a> {
    #[inline]
    pub(super) fn new() -> Names<'a> {
        Names::Few { heads: [0; FEW], names: [&[]; FEW], len: 0 }
    }

    /// False where there is one of this name already.
    #[inline]
    pub(super) fn insert(&mut self, name: &'a [u8]) -> bool {
        match self {
            Names::Few { heads, names, len } => {
                let head = head(name);
                // All sixteen at once, without a branch. Most names differ in their heads already.
                let alike = heads.iter().fold(false, |alike, other| alike | (*other == head));
                if alike && names.iter().take(*len).any(|other| *other == name) {
                    return false;
                }
                match (heads.get_mut(*len), names.get_mut(*len)) {
                    (Some(its_head), Some(whole)) => {
                        (*its_head, *whole) = (head, name);
                        *len = len.saturating_add(1);
                    }
                    _ => {
                        let many = names.iter().copied().chain([name]).collect();
                        *self = Names::Many(many);
                    }
                }
                true
            }
            Names::Many(names) => names.insert(name),
        }
    }
}

/// The same for the same name, and seldom for two: the length, and the ends or all of the bytes.
#[inline]
fn head(name: &[u8]) -> u64 {
    let ends = match (name.first_chunk::<4>(), name.last_chunk::<4>(), name) {
        (Some(first), Some(last), _) => {
            (u64::from(u32::from_le_bytes(*first)) << 32) | u64::from(u32::from_le_bytes(*last))
        }
        (_, _, [a, .., c]) => u64::from(u32::from_le_bytes([*a, name.get(1).copied().unwrap_or(0), *c, 0])),
        (_, _, [a]) => u64::from(*a),
        _ => 0,
    };
    ends ^ (name.len() as u64).rotate_right(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_name_is_told_among_few_and_among_many() {
        let names: Vec<String> = (0..100).map(|i| format!("{i}")).collect();
        for count in 0..names.len() {
            let mut seen = Names::new();
            assert!(names.iter().take(count).all(|name| seen.insert(name.as_bytes())));
            for (i, name) in names.iter().enumerate().take(count) {
                assert!(!seen.insert(name.as_bytes()), "{i} of {count}");
            }
            assert!(seen.insert(b"new") && !seen.insert(b"new"));
            assert!(seen.insert(b"") && !seen.insert(b""));
        }
    }
}
