//! Which images of a crash are made: what is kept, lost and torn, in which combinations.

use std::sync::Arc;

/// How many images are made of one crash point. The default is meant for the crashes of a workload,
/// [`small`](Self::small) for those of the recovery from each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// A write is cut at every byte if it has at most this many, else at this many places, spread evenly, and behind
    /// its first byte and before its last.
    pub cuts_max: usize,
    /// Places at which a write is cut so that its end survives and its beginning does not.
    pub tails_max: usize,
    /// All subsets of the pending operations are made if they are at most this many, else one lost, one kept, and
    /// every prefix. At most 16.
    pub subset_ops_max: usize,
    /// What stands where a write was lost or cut. [`Fill::Old`] is always among them.
    pub fills: Vec<Fill>,
}

impl Default for Budget {
    fn default() -> Budget {
        let fills = vec![Fill::Zeros, Fill::Ones, Fill::Stale, Fill::Hole];
        Budget { cuts_max: 1024, tails_max: 8, subset_ops_max: 10, fills }
    }
}

impl Budget {
    /// Every byte of every write, whatever its length.
    pub fn exhaustive() -> Budget {
        Budget { cuts_max: usize::MAX, ..Budget::default() }
    }

    /// A few images of each kind.
    pub fn small() -> Budget {
        Budget { cuts_max: 6, tails_max: 2, subset_ops_max: 4, ..Budget::default() }
    }

    /// With [`cuts_max`](Self::cuts_max).
    pub fn cuts(mut self, cuts_max: usize) -> Budget {
        self.cuts_max = cuts_max;
        self
    }

    /// With [`fills`](Self::fills).
    pub fn fills(mut self, fills: impl Into<Vec<Fill>>) -> Budget {
        self.fills = fills.into();
        self
    }
}

/// What stands in a file where a write was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// What was there; the file is as short as it was.
    Old,
    /// What was there, and zeros up to the length that the write gave the file: the length came, the bytes did not.
    Hole,
    /// Zeros, over what was there too.
    Zeros,
    /// 0xFF, over what was there too.
    Ones,
    /// What was there, and behind it bytes of the file that was removed last: blocks that were in use before.
    Stale,
}

/// Which of the pending operations are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subset {
    All,
    Nothing,
    Prefix(usize),
    Without(usize),
    Only(usize),
    Mask(u16),
}

impl Subset {
    pub(super) fn has(self, i: usize) -> bool {
        match self {
            Subset::All => true,
            Subset::Nothing => false,
            Subset::Prefix(n) => i < n,
            Subset::Without(n) => i != n,
            Subset::Only(n) => i == n,
            Subset::Mask(mask) => i < 16 && mask >> i & 1 == 1,
        }
    }
}

/// A write of which a part survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// Its place among the pending changes.
    pub(super) change: usize,
    pub(super) at: usize,
    pub(super) half: Half,
    pub(super) fill: Fill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// What is before the cut survives.
    Head,
    /// What is behind the cut survives.
    Tail,
}

/// One image: what becomes of each pending operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) changes: Subset,
    pub(super) entries: Subset,
    pub(super) torn: Option<Torn>,
}

/// A pending change of bytes, as far as the plan has to know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Bytes written; 0 for a change of length.
    pub(super) len: usize,
    /// Whether it reaches behind the durable end of the file.
    pub(super) grows: bool,
}

pub(super) type Plan = Box<dyn Iterator<Item = Choice> + Send>;

/// All images of a crash with these pending changes of bytes, and so many of entries. The first has everything, the
/// second nothing that was not synced.
pub(super) fn plan(changes: Vec<Extent>, entries: usize, has_stale: bool, budget: &Budget) -> Plan {
    let budget = Arc::new(budget.clone());
    let count = changes.len();
    let whole = whole(count, entries, &budget);
    let torn = changes.into_iter().enumerate().flat_map(move |(i, extent)| {
        let fills: Vec<Fill> = std::iter::once(Fill::Old)
            .chain(budget.fills.iter().copied())
            .filter(|fill| match fill {
                Fill::Hole => extent.grows,
                Fill::Stale => extent.grows && has_stale,
                _ => true,
            })
            .collect();
        let heads = cuts(extent.len, budget.cuts_max);
        let tails = spread(extent.len, budget.tails_max);
        torn(i, count, entries, fills, heads, tails)
    });
    Box::new(whole.chain(torn))
}

/// Operations kept or lost as a whole.
fn whole(changes: usize, entries: usize, budget: &Budget) -> Plan {
    const CROSSED_MAX: usize = 4096;
    let of_changes = subsets(changes, budget.subset_ops_max);
    let of_entries = subsets(entries, budget.subset_ops_max);
    let choice = |changes, entries| Choice { changes, entries, torn: None };
    if of_changes.len().saturating_mul(of_entries.len()) <= CROSSED_MAX {
        let with = |entries: &Subset| {
            let entries = *entries;
            of_changes.iter().map(move |changes| choice(*changes, entries)).collect::<Vec<_>>()
        };
        let mut all: Vec<Choice> = of_entries.iter().flat_map(with).collect();
        if let Some(nothing) = all.iter().position(|c| c.changes == Subset::Nothing && c.entries == Subset::Nothing) {
            let nothing = all.remove(nothing);
            all.insert(1.min(all.len()), nothing);
        }
        return Box::new(all.into_iter());
    }
    // Every two operations meet in each of their four combinations. They are made as they are asked for: of many
    // operations there are millions.
    let ends = [Subset::All, Subset::Nothing];
    let straight = ends.into_iter().map(move |end| choice(end, end));
    let all_changes = of_changes.into_iter().flat_map(move |changes| ends.map(|end| choice(changes, end)));
    let all_entries = of_entries.into_iter().flat_map(move |entries| ends.map(|end| choice(end, entries)));
    let singles = |n: usize| (0..n).flat_map(|i| [Subset::Without(i), Subset::Only(i)]);
    let pairs = singles(changes).flat_map(move |c| singles(entries).map(move |e| choice(c, e)));
    Box::new(straight.chain(all_changes).chain(all_entries).chain(pairs))
}

/// All of them first, then none.
fn subsets(n: usize, subset_ops_max: usize) -> Vec<Subset> {
    let ends = if n == 0 { vec![Subset::All] } else { vec![Subset::All, Subset::Nothing] };
    let between: Vec<Subset> = if n <= subset_ops_max.min(16) {
        let full = (1_u32 << n) - 1;
        (1..full).filter_map(|mask| u16::try_from(mask).ok().map(Subset::Mask)).collect()
    } else {
        let singles = (0..n).flat_map(|i| [Subset::Without(i), Subset::Only(i)]);
        singles.chain((1..n).map(Subset::Prefix)).collect()
    };
    ends.into_iter().chain(between).collect()
}

/// The change `i` of `count` torn: the ones before it kept and those behind it lost, as in a file that was written in
/// order; all others kept; all others lost.
fn torn(
    i: usize,
    count: usize,
    entries: usize,
    fills: Vec<Fill>,
    heads: Vec<usize>,
    tails: Vec<usize>,
) -> impl Iterator<Item = Choice> + Send {
    let mut around = vec![Subset::Prefix(i)];
    if i.saturating_add(1) < count {
        around.push(Subset::All);
    }
    if i > 0 {
        around.push(Subset::Nothing);
    }
    let names = if entries == 0 { vec![Subset::All] } else { vec![Subset::All, Subset::Nothing] };
    let heads = heads.into_iter().map(|at| (at, Half::Head));
    let cuts: Vec<(usize, Half)> = heads.chain(tails.into_iter().map(|at| (at, Half::Tail))).collect();
    let (fills, cuts) = (Arc::new(fills), Arc::new(cuts));
    names.into_iter().flat_map(move |entries| {
        let (fills, cuts) = (Arc::clone(&fills), Arc::clone(&cuts));
        around.clone().into_iter().flat_map(move |changes| {
            let cuts = Arc::clone(&cuts);
            let fills = Arc::clone(&fills);
            (0..cuts.len()).flat_map(move |cut| {
                let (at, half) = cuts.get(cut).copied().unwrap_or((0, Half::Head));
                let choice = move |fill| Choice { changes, entries, torn: Some(Torn { change: i, at, half, fill }) };
                let fills: Vec<Fill> = fills.to_vec();
                fills.into_iter().map(choice)
            })
        })
    })
}

/// Where a write is cut: before its first byte too, for then its place may be filled; never behind its last.
fn cuts(len: usize, cuts_max: usize) -> Vec<usize> {
    if len <= cuts_max {
        return (0..len).collect();
    }
    let mut cuts = spread(len, cuts_max.saturating_sub(3));
    cuts.extend([0, 1, len - 1]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// At most `n` places inside `0..len`, neither end among them.
fn spread(len: usize, n: usize) -> Vec<usize> {
    let n = n.min(len.saturating_sub(1));
    let place = |i: usize| (len as u128 * i as u128 / (n as u128 + 1)) as usize;
    (1..=n).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(len: usize) -> Extent {
        Extent { len, grows: true }
    }

    #[test]
    fn everything_comes_first_and_nothing_second() {
        for (changes, entries) in [(1, 0), (0, 1), (2, 3), (12, 12), (0, 20)] {
            let extents = vec![extent(3); changes];
            let first: Vec<Choice> = plan(extents, entries, true, &Budget::default()).take(2).collect();
            let kept = |choice: &Choice, keep: bool| {
                assert!((0..changes).all(|i| choice.changes.has(i) == keep), "{choice:?}");
                assert!((0..entries).all(|i| choice.entries.has(i) == keep), "{choice:?}");
            };
            kept(&first[0], true);
            kept(&first[1], false);
        }
        assert_eq!(plan(Vec::new(), 0, true, &Budget::default()).count(), 1);
    }

    #[test]
    fn every_two_pending_operations_meet_in_all_four_combinations() {
        for (changes, entries) in [(3, 3), (11, 2), (5, 12), (14, 14)] {
            let all: Vec<Choice> = plan(vec![extent(1); changes], entries, true, &Budget::default())
                .filter(|choice| choice.torn.is_none())
                .collect();
            let ops = changes + entries;
            let state = |choice: &Choice, i| {
                if i < changes { choice.changes.has(i) } else { choice.entries.has(i - changes) }
            };
            for a in 0..ops {
                for b in 0..a {
                    for want in [(false, false), (false, true), (true, false), (true, true)] {
                        let meets = all.iter().any(|choice| (state(choice, a), state(choice, b)) == want);
                        assert!(meets, "{changes} changes, {entries} entries: {a} and {b} are never {want:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn cuts_are_at_every_byte_or_spread_with_both_ends() {
        assert_eq!(cuts(5, 5), [0, 1, 2, 3, 4]);
        assert_eq!(cuts(0, 5), [0; 0]);
        assert_eq!(cuts(1_000_000, 6), [0, 1, 250_000, 500_000, 750_000, 999_999]);
        assert_eq!(cuts(2, 1), [0, 1]);
        assert_eq!(spread(3, 8), [1, 2]);
        assert_eq!(spread(1, 8), [0; 0]);
    }
}
