//! Where a state stands in a history: sequence number, lineage, digest, time.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, SystemTime};

use crc32fast::Hasher;

/// Sequence number of a commit: the first is 1, each one is 1 more than the one before, without holes.
/// `Seq::ZERO` is the empty database, or what DictDB 1.11 wrote.
///
/// ```
/// use dictdb::{DictDb, Seq};
/// let db = DictDb::new();
/// assert_eq!(db.seq(), Seq::ZERO);
/// db.create_table("users", "id")?;
/// assert_eq!(db.seq().get(), 1);
/// # Ok::<(), dictdb::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// Before the first commit.
    pub const ZERO: Seq = Seq(0);

    /// The sequence number `n`.
    pub const fn new(n: u64) -> Self {
        Seq(n)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number after this one; `None` after 2^64 - 1 commits.
    pub(crate) const fn next(self) -> Option<Seq> {
        match self.0.checked_add(1) {
            Some(n) => Some(Seq(n)),
            None => None,
        }
    }

    /// How many commits lie in `(earlier, self]`; 0 where `earlier` is not earlier.
    pub const fn since(self, earlier: Seq) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random id of one history. A database that was restored or loaded starts a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// What stands for "none" in a header.
    pub(crate) const NONE: Lineage = Lineage([0; 16]);

    /// The history of files written by DictDB 1.11 for Python, which carry no lineage of their own.
    pub const DICTDB_1_11: Lineage = Lineage(*b"DictDB 1.11 JSON");

    /// A new one from the operating system's random numbers.
    pub(crate) fn random() -> Lineage {
        let mut id = [0_u8; 16];
        // Without entropy there is no way to tell two histories apart, and no platform with `std` lacks it.
        assert!(getrandom::fill(&mut id).is_ok(), "the operating system gives no random numbers");
        id[0] |= 1; // never NONE
        Lineage(id)
    }

    /// The id with these 16 bytes.
    pub const fn from_bytes(id: [u8; 16]) -> Lineage {
        Lineage(id)
    }

    /// The 16 bytes, as they stand in a file header.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// A hasher that goes on from the CRC-32 of the lineage, as every checksum of this history does, so that zeros or
    /// another history's bytes do not pass.
    pub(crate) fn hasher(self) -> Hasher {
        // Asked for at every frame, and seldom of another history than the one before. A copy costs less than a new one,
        // which looks at what the processor can do.
        thread_local!(static LAST: RefCell<Option<(Lineage, Hasher)>> = const { RefCell::new(None) });
        LAST.with_borrow_mut(|last| match last {
            Some((lineage, hasher)) if *lineage == self => hasher.clone(),
            _ => {
                let hasher = Hasher::new_with_initial(crc32fast::hash(&self.0));
                *last = Some((self, hasher.clone()));
                hasher
            }
        })
    }

    pub(crate) fn parse(hex: &str) -> Option<Lineage> {
        parse_hex(hex).map(|n| Lineage(n.to_be_bytes()))
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({self})")
    }
}

/// Order-independent 128-bit hash of a whole state: two databases with the same tables, definitions, records
/// (values, types and field order) and automatic-key counters have the same digest.
///
/// It tells damage and bugs, not an adversary: it is a sum of XXH3-128 hashes (<https://xxhash.com>), not a
/// cryptographic hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest(u128);

impl Digest {
    /// The digest of the empty database.
    pub const EMPTY: Digest = Digest(0);

    /// The digest with these 128 bits.
    pub const fn from_u128(bits: u128) -> Digest {
        Digest(bits)
    }

    /// The 128 bits.
    pub const fn to_u128(self) -> u128 {
        self.0
    }

    pub(crate) fn add(&mut self, term: u128) {
        self.0 = self.0.wrapping_add(term);
    }

    pub(crate) fn subtract(&mut self, term: u128) {
        self.0 = self.0.wrapping_sub(term);
    }

    pub(crate) fn parse(hex: &str) -> Option<Digest> {
        parse_hex(hex).map(Digest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Exactly 32 lower-case hexadecimal digits.
fn parse_hex(hex: &str) -> Option<u128> {
    let canonical = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if canonical { u128::from_str_radix(hex, 16).ok() } else { None }
}

/// One point of one history: what a delta joins onto, what a backup reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// The history.
    pub lineage: Lineage,
    /// How far along it.
    pub seq: Seq,
    /// The digest of the state there.
    pub digest: Digest,
}

impl Point {
    /// The empty database at the beginning of a history.
    pub(crate) const fn empty(lineage: Lineage) -> Point {
        Point { lineage, seq: Seq::ZERO, digest: Digest::EMPTY }
    }

    /// Whether it is the empty database. What DictDB 1.11 wrote stands at seq 0, too, and has records.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Point::empty(self.lineage)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {} of lineage {}", self.seq, self.lineage)
    }
}

/// Microseconds since 1970-01-01T00:00:00Z; negative before. An annotation only: nothing is ordered by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time `micros` microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Timestamp {
        Timestamp(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The system time; `None` where it lies outside what [`SystemTime`] holds.
    pub fn to_system_time(self) -> Option<SystemTime> {
        let distance = Duration::from_micros(self.0.unsigned_abs());
        if self.0 < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        }
    }
}

impl From<SystemTime> for Timestamp {
    /// Saturates some 290,000 years from 1970.
    fn from(time: SystemTime) -> Timestamp {
        let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        Timestamp(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => micros(after),
            Err(before) => micros(before.duration()).saturating_neg(),
        })
    }
}

impl fmt::Display for Timestamp {
    /// `2018-02-05T09:46:13.840000Z`; the Gregorian calendar extended to all years.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, in_day) = (self.0.div_euclid(86_400_000_000), self.0.rem_euclid(86_400_000_000));
        // Days to civil date, after Howard Hinnant, https://howardhinnant.github.io/date_algorithms.html
        let z = days.saturating_add(719_468);
        let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (seconds, micros) = (in_day / 1_000_000, in_day % 1_000_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_as_rfc_3339_on_either_side_of_1970() {
        for (micros, want) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_517_966_773_840_000, "2018-02-07T01:26:13.840000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
        ] {
            assert_eq!(Timestamp::from_micros(micros).to_string(), want);
        }
        let _ = (Timestamp::from_micros(i64::MIN).to_string(), Timestamp::from_micros(i64::MAX).to_string());
    }

    #[test]
    fn ids_are_read_back_from_their_hex_and_from_nothing_else() {
        let lineage = Lineage::random();
        assert_eq!(Lineage::parse(&lineage.to_string()), Some(lineage));
        let digest = Digest::from_u128(7);
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        for bad in [
            "",
            "7",
            "0000000000000000000000000000000G",
            "+000000000000000000000000000000f",
            "0000000000000000000000000000000F",
        ] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
