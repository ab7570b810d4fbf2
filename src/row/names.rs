//! Tells whether a dict has a field twice.

use std::collections::HashSet;

use arrayvec::ArrayVec;

/// Up to here comparing each with each is cheapest, and needs no memory.
const FEW: usize = 16;

/// Collects the names of one dict.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and is there to spare an allocation")]
pub(super) enum Names<'a> {
    Few { heads: [u32; FEW], names: ArrayVec<&'a [u8], FEW> },
    Many(HashSet<&'a [u8]>),
}

impl<'a> Names<'a> {
    #[inline]
    pub(super) fn new() -> Names<'a> {
        Names::Few { heads: [0; FEW], names: ArrayVec::new() }
    }

    /// False where there is one of this name already.
    #[inline]
    pub(super) fn insert(&mut self, name: &'a [u8]) -> bool {
        match self {
            Names::Few { heads, names } => {
                let head = head(name);
                // All sixteen at once, without a branch: 32 bits each, which the oldest of x86-64 compares in fours.
                // Most names differ in their heads already; those that are not used yet are no name's.
                let alike = heads.iter().fold(0, |alike, other| alike | u32::from(*other == head));
                if alike != 0 && names.contains(&name) {
                    return false;
                }
                match heads.get_mut(names.len()) {
                    Some(its_head) => {
                        *its_head = head;
                        names.push(name);
                    }
                    None => {
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

/// The same for the same name, and seldom for two: of the length, and the ends or all of the bytes.
#[inline]
fn head(name: &[u8]) -> u32 {
    let ends = match (name.first_chunk::<4>(), name.last_chunk::<4>(), name) {
        (Some(first), Some(last), _) => u32::from_le_bytes(*first) ^ u32::from_le_bytes(*last).rotate_left(16),
        (_, _, [a, .., c]) => u32::from_le_bytes([*a, name.get(1).copied().unwrap_or(0), *c, 0]),
        (_, _, [a]) => u32::from(*a),
        _ => 0,
    };
    ends ^ (name.len() as u32).rotate_right(8)
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
