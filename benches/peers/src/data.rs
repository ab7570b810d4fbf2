//! The records, the same for every engine: made from their id alone, in one random order.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};

use crate::engines::Res;

/// About 120 bytes as postcard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) age: u32,
    pub(crate) score: f64,
    pub(crate) tags: Vec<String>,
    pub(crate) active: bool,
}

impl User {
    pub(crate) fn new(id: i64) -> User {
        User::version(id, 0)
    }

    /// The same record with other values of the same length, for writes over it.
    pub(crate) fn version(id: i64, version: u64) -> User {
        let seed = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ version.wrapping_mul(0xD1B5_4A32_D192_ED03);
        let mut rng = fastrand::Rng::with_seed(seed);
        User {
            id,
            name: format!("{} {:012}", word(&mut rng, 24), rng.u32(..)),
            email: format!("{}.{id:010}@example.org", word(&mut rng, 21)),
            age: rng.u32(0..100),
            score: rng.f64() * 1_000.0,
            tags: (0..3).map(|_| word(&mut rng, 7)).collect(),
            active: rng.bool(),
        }
    }
}

fn word(rng: &mut fastrand::Rng, length: usize) -> String {
    (0..length).map(|_| rng.lowercase()).collect()
}

/// The ids below `records` in the order of their insertion; the same for every engine and round.
pub(crate) fn shuffled(records: u64) -> Vec<i64> {
    shuffled_by(7, records)
}

/// Another order for reads: in that of insertion, rows that an allocator gave out one after the other would be read one
/// after the other.
pub(crate) fn shuffled_anew(records: u64) -> Vec<i64> {
    shuffled_by(37, records)
}

fn shuffled_by(seed: u64, records: u64) -> Vec<i64> {
    let mut ids: Vec<i64> = (0..records as i64).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut ids);
    ids
}

/// Records made before the clock runs, in that order, so that walking them is no random walk of the memory.
pub(crate) fn users(ids: &[i64]) -> Vec<User> {
    ids.iter().copied().map(User::new).collect()
}

/// Big-endian, so that bytes sort as the numbers do.
pub(crate) fn key(id: i64) -> [u8; 8] {
    id.to_be_bytes()
}

/// Hands `use_bytes` the record as postcard, in a buffer that is kept.
pub(crate) fn encoded<T>(user: &User, use_bytes: impl FnOnce(&[u8]) -> T) -> Result<T, postcard::Error> {
    thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        *buffer = postcard::to_extend(user, std::mem::take(buffer))?;
        Ok(use_bytes(buffer))
    })
}

pub(crate) fn decoded(bytes: &[u8]) -> Result<User, postcard::Error> {
    postcard::from_bytes(bytes)
}

/// Looks at a record's bytes, one of each cache line: what was only found and not looked at has not been read. Gives how
/// many they are.
pub(crate) fn seen(bytes: &[u8]) -> usize {
    std::hint::black_box(bytes.iter().step_by(64).fold(0, |all, byte| all ^ byte));
    bytes.len()
}

/// What a scan saw: enough that no value of a record can be skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Touched {
    pub(crate) records: u64,
    pub(crate) sum: u64,
}

impl Touched {
    /// Of a record that is handed out as bytes: makes the struct of it.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Res<()> {
        self.add(&decoded(bytes)?);
        Ok(())
    }

    /// The same, and makes nothing of it: sees the bytes.
    pub(crate) fn measure(&mut self, bytes: &[u8]) -> Res<()> {
        self.records += 1;
        self.sum = self.sum.wrapping_add(seen(bytes) as u64);
        Ok(())
    }

    pub(crate) fn add(&mut self, user: &User) {
        let tags: usize = user.tags.iter().map(String::len).sum();
        let text = user.name.len() + user.email.len() + tags;
        self.records += 1;
        self.sum = self
            .sum
            .wrapping_add(user.id as u64)
            .wrapping_add(text as u64)
            .wrapping_add(u64::from(user.age))
            .wrapping_add(user.score.to_bits())
            .wrapping_add(u64::from(user.active));
    }
}

/// Zipf's law over `0..n` with exponent 0.99, after Gray et al., "Quickly Generating Billion-Record Synthetic Databases"
/// (1994), as YCSB does it; the ranks are scattered over the keys.
pub(crate) struct Zipf {
    n: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipf {
    pub(crate) fn new(n: u64) -> Zipf {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let all = zeta(n);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - THETA)) / (1.0 - zeta(2.min(n)) / all);
        Zipf { n, zeta: all, alpha: 1.0 / (1.0 - THETA), eta }
    }

    /// 0 is drawn most often.
    pub(crate) fn rank(&self, rng: &mut fastrand::Rng) -> u64 {
        let u = rng.f64();
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1.min(self.n - 1);
        }
        ((self.n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64).min(self.n - 1)
    }

    pub(crate) fn id(&self, rng: &mut fastrand::Rng) -> i64 {
        (self.rank(rng).wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.n) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_about_120_bytes_and_reads_back() {
        let lengths: usize = (0..1_000)
            .map(|id| {
                let user = User::new(id);
                encoded(&user, |bytes| {
                    assert_eq!(decoded(bytes).unwrap(), user);
                    bytes.len()
                })
                .unwrap()
            })
            .sum();
        assert!((110_000..130_000).contains(&lengths), "{lengths}");
        assert_ne!(User::new(5), User::version(5, 1));
    }

    #[test]
    fn keys_sort_as_numbers_and_the_order_is_one_shuffle_of_all() {
        assert!(key(255) < key(256));
        let mut ids = shuffled(1_000);
        assert_eq!(ids, shuffled(1_000));
        ids.sort_unstable();
        assert_eq!(ids, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn zipf_draws_the_first_rank_as_often_as_its_law_says_and_stays_within() {
        let (n, draws) = (1_000, 200_000);
        let zipf = Zipf::new(n);
        let mut rng = fastrand::Rng::with_seed(1);
        let ranks: Vec<u64> = (0..draws).map(|_| zipf.rank(&mut rng)).collect();
        let share = |rank: u64| ranks.iter().filter(|&&r| r == rank).count() as f64 / draws as f64;
        assert!((share(0) - 1.0 / zipf.zeta).abs() < 0.01, "{}", share(0));
        assert!(share(0) > share(1) && share(1) > share(10));
        assert!(ranks.iter().all(|&rank| rank < n));
        assert!(ranks.iter().any(|&rank| rank > n / 2));
        assert_eq!(Zipf::new(1).rank(&mut rng), 0);
    }
}
