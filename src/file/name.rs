//! Names of backup files: the only code that formats or parses them.
//!
//! ```text
//! dictdb_backup_<seconds>_<micros, six digits>.<json|bin>     a full backup
//! dictdb_delta_<seconds>_<micros, six digits>.<json|bin>      a delta
//! .<one of the above>.<process id>-<counter>.tmp              one that is being written
//! ```
//!
//! Exactly these and nothing else: each backup has one name and each name one backup, for a name is accepted only if
//! what was read out of it formats to the very same bytes. The stamp is a label that only rises within a directory;
//! what joins onto what is told by the files' headers.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::history::Timestamp;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// The time in a backup file's name: microseconds since 1970, forced to rise within a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stamp(u64);

impl Stamp {
    pub(crate) const fn new(micros: u64) -> Stamp {
        Stamp(micros)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The stamp of the next file of a directory whose newest one is `newest`: the wall clock, or 1 more than
    /// `newest` where the wall clock does not lie past it. Before 1970 counts as 1970.
    ///
    /// `None` where `newest` is the last stamp there is (the year 586,524).
    pub(crate) fn next(wall: Timestamp, newest: Option<Stamp>) -> Option<Stamp> {
        let wall = u64::try_from(wall.as_micros()).unwrap_or(0);
        let least = match newest {
            Some(newest) => newest.0.checked_add(1)?,
            None => 0,
        };
        Some(Stamp(wall.max(least)))
    }
}

impl Stamp {
    /// What [`Display`](fmt::Display) gives, and nothing else: `parse` of a number takes signs and leading zeros.
    pub(crate) fn parse(text: &str) -> Option<Stamp> {
        let (seconds, micros) = text.split_once('_')?;
        let whole = seconds.parse::<u64>().ok()?.checked_mul(MICROS_PER_SECOND)?;
        let stamp = Stamp(whole.checked_add(micros.parse().ok()?)?);
        Some(stamp).filter(|stamp| stamp.to_string() == text)
    }
}

impl fmt::Display for Stamp {
    /// `1795344629_791450`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{:06}", self.0 / MICROS_PER_SECOND, self.0 % MICROS_PER_SECOND)
    }
}

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackupKind {
    /// The whole state at one point.
    Full,
    /// The commits between two points.
    Delta,
}

impl BackupKind {
    const ALL: [BackupKind; 2] = [BackupKind::Full, BackupKind::Delta];

    const fn prefix(self) -> &'static str {
        match self {
            BackupKind::Full => "dictdb_backup_",
            BackupKind::Delta => "dictdb_delta_",
        }
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackupKind::Full => "full",
            BackupKind::Delta => "delta",
        })
    }
}

/// How a backup is written down.
///
/// ```
/// use dictdb::BackupFormat;
/// assert_eq!("Binary".parse(), Ok(BackupFormat::Binary));
/// assert_eq!(BackupFormat::default(), BackupFormat::Json);
/// assert!("pickle".parse::<BackupFormat>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BackupFormat {
    /// The documents of DictDB 1.11 for Python, which reads and writes the same: `.json`.
    #[default]
    Json,
    /// Checksummed frames: `.bin`.
    Binary,
}

impl BackupFormat {
    const ALL: [BackupFormat; 2] = [BackupFormat::Json, BackupFormat::Binary];

    const fn extension(self) -> &'static str {
        match self {
            BackupFormat::Json => "json",
            BackupFormat::Binary => "bin",
        }
    }
}

impl fmt::Display for BackupFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackupFormat::Json => "json",
            BackupFormat::Binary => "binary",
        })
    }
}

impl FromStr for BackupFormat {
    type Err = ParseFormatError;

    /// `json`, `binary` or `bin`, in any case.
    fn from_str(s: &str) -> Result<BackupFormat, ParseFormatError> {
        let is = |name: &str| s.eq_ignore_ascii_case(name);
        if is("json") {
            Ok(BackupFormat::Json)
        } else if is("binary") || is("bin") {
            Ok(BackupFormat::Binary)
        } else {
            Err(ParseFormatError { found: s.to_owned() })
        }
    }
}

/// The name of a backup format that there is not. Its message says which there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFormatError {
    found: String,
}

impl fmt::Display for ParseFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found.eq_ignore_ascii_case("pickle") {
            f.write_str(
                "backup format \"pickle\" is for DictDB for Python only, its counterpart here is \"binary\" \
                 (expected \"json\" or \"binary\")",
            )
        } else {
            write!(f, "unknown backup format {:?} (expected \"json\" or \"binary\")", self.found)
        }
    }
}

impl std::error::Error for ParseFormatError {}

/// Where a backup stands among those of its directory.
pub(crate) type Order = (Stamp, &'static str, &'static str);

/// The name of one backup file, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BackupName {
    pub(crate) kind: BackupKind,
    pub(crate) stamp: Stamp,
    pub(crate) format: BackupFormat,
}

impl BackupName {
    /// By stamp, and those of one stamp by their file names: a delta comes behind a full backup.
    pub(crate) fn order(&self) -> Order {
        (self.stamp, self.kind.prefix(), self.format.extension())
    }

    pub(crate) fn file_name(&self) -> String {
        format!("{}{}.{}", self.kind.prefix(), self.stamp, self.format.extension())
    }

    /// `None` for everything that [`file_name`](Self::file_name) does not return.
    pub(crate) fn parse(name: &OsStr) -> Option<BackupName> {
        let name = name.to_str()?;
        let (kind, rest) = BackupKind::ALL.iter().find_map(|k| Some((*k, name.strip_prefix(k.prefix())?)))?;
        let (stamp, extension) = rest.split_once('.')?;
        let format = BackupFormat::ALL.into_iter().find(|f| f.extension() == extension)?;
        Some(BackupName { kind, stamp: Stamp::parse(stamp)?, format })
    }
}

/// The stamp of a full backup that DictDB 1.11 wrote as a pickle: none of ours, but a step of its chain.
pub(crate) fn pickle_stamp(name: &OsStr) -> Option<Stamp> {
    Stamp::parse(name.to_str()?.strip_prefix(BackupKind::Full.prefix())?.strip_suffix(".pickle")?)
}

/// A name for `final_name` while it is being written, in the same directory. No two calls of a process return the
/// same; a leftover of an earlier process with the same id can bear it, and then creating it says `AlreadyExists`
/// and the next call's name will do.
pub(crate) fn temp_name(final_name: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format_temp(final_name, std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// The final name that `name` is a temporary one for, as [`temp_name`] returned it in this process or another.
pub(crate) fn temp_target(name: &OsStr) -> Option<&str> {
    let text = name.to_str()?;
    let (final_name, id) = text.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
    let (pid, counter) = id.split_once('-')?;
    let canonical = format_temp(final_name, pid.parse().ok()?, counter.parse().ok()?);
    (canonical == text).then_some(final_name)
}

fn format_temp(final_name: &str, pid: u32, counter: u64) -> String {
    format!(".{final_name}.{pid}-{counter}.tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A temporary file of some other final name is not ours.
    fn is_temp_name(name: &OsStr) -> bool {
        temp_target(name).is_some_and(|target| BackupName::parse(OsStr::new(target)).is_some())
    }

    fn parse(name: &str) -> Option<BackupName> {
        BackupName::parse(OsStr::new(name))
    }

    #[test]
    fn every_name_is_read_back_as_what_it_was_made_from() {
        let stamps = [0, 1, 999_999, 1_000_000, 1_795_344_629_791_450, u64::MAX - 1, u64::MAX];
        for kind in BackupKind::ALL {
            for format in BackupFormat::ALL {
                for stamp in stamps.map(Stamp::new) {
                    let name = BackupName { kind, stamp, format };
                    assert_eq!(parse(&name.file_name()), Some(name));
                    let temp = temp_name(&name.file_name());
                    assert!(is_temp_name(OsStr::new(&temp)), "{temp}");
                    assert_eq!(parse(&temp), None, "half a file is not a backup");
                }
            }
        }
    }

    #[test]
    fn names_come_in_the_order_of_their_stamps_and_those_of_one_stamp_in_that_of_their_text() {
        let stamps = [3, 1_000_000, 20_000_000, 100_000_000].map(Stamp::new);
        let of = |stamp| BackupKind::ALL.map(|kind| BackupFormat::ALL.map(|format| BackupName { kind, stamp, format }));
        let mut names: Vec<BackupName> = stamps.into_iter().flat_map(of).flatten().collect();
        fastrand::Rng::with_seed(1).shuffle(&mut names);
        names.sort_by_key(BackupName::order);
        assert!(names.is_sorted_by_key(|name| (name.stamp, name.file_name())));
    }

    #[test]
    fn names_are_those_of_dictdb() {
        let name = |kind, micros, format| BackupName { kind, stamp: Stamp::new(micros), format };
        for (text, want) in [
            ("dictdb_backup_1795344629_791450.json", name(BackupKind::Full, 1_795_344_629_791_450, BackupFormat::Json)),
            (
                "dictdb_delta_1795344629_000007.bin",
                name(BackupKind::Delta, 1_795_344_629_000_007, BackupFormat::Binary),
            ),
            ("dictdb_delta_0_000000.json", name(BackupKind::Delta, 0, BackupFormat::Json)),
            ("dictdb_backup_18446744073709_551615.bin", name(BackupKind::Full, u64::MAX, BackupFormat::Binary)),
        ] {
            assert_eq!(parse(text), Some(want), "{text}");
            assert_eq!(want.file_name(), text);
        }
    }

    #[test]
    fn names_that_only_look_like_a_backup_are_none() {
        for trick in [
            "",
            ".",
            "..",
            "dictdb_backup_",
            "dictdb_backup_.json",
            "dictdb_backup__.json",
            "dictdb_backup_1_000000",
            "dictdb_backup_1_000000.",
            "dictdb_backup_1_000000.pickle",
            "dictdb_backup_1_000000.binary",
            "dictdb_backup_1_000000.JSON",
            "dictdb_backup_1_000000.json~",
            "dictdb_backup_1_000000.json.tmp",
            "dictdb_backup_1_000000.json.bin",
            "dictdb_backup_1_000000.bin.json",
            "dictdb_backup_1_000000..json",
            "dictdb_backup_1_000000.json ",
            "dictdb_backup_1_000000.json\n",
            "dictdb_backup_1_000000.json\0",
            " dictdb_backup_1_000000.json",
            "./dictdb_backup_1_000000.json",
            "../dictdb_backup_1_000000.json",
            "a/dictdb_backup_1_000000.json",
            "dictdb_backup_1_000000.json/",
            "Dictdb_backup_1_000000.json",
            "DICTDB_BACKUP_1_000000.json",
            "dictdb-backup_1_000000.json",
            "dictdb_snapshot_1_000000.json",
            "dictdb_backup_delta_1_000000.json",
            "dictdb_backup_1.000000.json",
            "dictdb_backup_1_00000.json",
            "dictdb_backup_1_0000000.json",
            "dictdb_backup_1_1000000.json",
            "dictdb_backup_1_000000_2.json",
            "dictdb_backup_01_000000.json",
            "dictdb_backup_00_000000.json",
            "dictdb_backup_+1_000000.json",
            "dictdb_backup_-1_000000.json",
            "dictdb_backup_-0_000000.json",
            "dictdb_backup_1_+00000.json",
            "dictdb_backup_1_-00001.json",
            "dictdb_backup_ 1_000000.json",
            "dictdb_backup_1_ 00000.json",
            "dictdb_backup_1e3_000000.json",
            "dictdb_backup_0x1_000000.json",
            "dictdb_backup_1_00000a.json",
            "dictdb_backup_\u{661}_000000.json",  // an Arabic-Indic digit
            "dictdb_backup_\u{ff11}_000000.json", // a full-width one
            "dictdb_backup_18446744073709_551616.json",
            "dictdb_backup_18446744073710_000000.json",
            "dictdb_backup_18446744073709551615_000000.json",
            "dictdb_backup_18446744073709551616_000000.json",
            "dictdb_backup_99999999999999999999999999999999_000000.json",
            "dictdb_backup_1_18446744073709551615.json",
        ] {
            assert_eq!(parse(trick), None, "{trick:?}");
        }
    }

    #[test]
    fn only_our_own_temporary_names_are_recognised() {
        for ours in
            [".dictdb_backup_1_000000.json.1-0.tmp", ".dictdb_delta_1_000000.bin.4294967295-18446744073709551615.tmp"]
        {
            assert!(is_temp_name(OsStr::new(ours)), "{ours}");
        }
        for other in [
            "",
            ".tmp",
            "..tmp",
            ".1-0.tmp",
            "..1-0.tmp",
            ".my.json.1-0.tmp",
            "dictdb_backup_1_000000.json.1-0.tmp",
            "..dictdb_backup_1_000000.json.1-0.tmp",
            ".dictdb_backup_1_000000.json",
            ".dictdb_backup_1_000000.json.tmp",
            ".dictdb_backup_1_000000.json.1.tmp",
            ".dictdb_backup_1_000000.json.1-.tmp",
            ".dictdb_backup_1_000000.json.-1.tmp",
            ".dictdb_backup_1_000000.json.1--0.tmp",
            ".dictdb_backup_1_000000.json.1-0-0.tmp",
            ".dictdb_backup_1_000000.json.01-0.tmp",
            ".dictdb_backup_1_000000.json.1-00.tmp",
            ".dictdb_backup_1_000000.json.+1-0.tmp",
            ".dictdb_backup_1_000000.json.1-+0.tmp",
            ".dictdb_backup_1_000000.json.4294967296-0.tmp",
            ".dictdb_backup_1_000000.json.1-18446744073709551616.tmp",
            ".dictdb_backup_1_000000.json.1-0.TMP",
            ".dictdb_backup_1_000000.json.1-0.tmp.tmp",
            ".dictdb_backup_1_000000.json.1-0.tmp~",
            ".dictdb_backup_01_000000.json.1-0.tmp",
            ".dictdb_backup_1_000000.pickle.1-0.tmp",
            "./.dictdb_backup_1_000000.json.1-0.tmp",
        ] {
            assert!(!is_temp_name(OsStr::new(other)), "{other:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf_8_are_none() {
        use std::os::unix::ffi::OsStrExt;
        for bytes in [&b"dictdb_backup_1_000000.json\xff"[..], b"\xffdictdb_backup_1_000000.json"] {
            assert_eq!(BackupName::parse(OsStr::from_bytes(bytes)), None);
        }
        assert!(!is_temp_name(OsStr::from_bytes(b".dictdb_backup_1_000000.json.1-0\xff.tmp")));
    }

    #[test]
    fn no_two_temporary_names_are_the_same() {
        assert_ne!(temp_name("my.json"), temp_name("my.json"));
    }

    #[test]
    fn stamps_rise_whatever_the_wall_clock_does() {
        let at = Timestamp::from_micros;
        for (wall, newest, want) in [
            (at(5), None, Some(5)),
            (at(0), None, Some(0)),
            (at(-1), None, Some(0)),
            (at(i64::MIN), None, Some(0)),
            (at(i64::MIN), Some(0), Some(1)),
            (at(5), Some(3), Some(5)),
            (at(5), Some(4), Some(5)),
            (at(5), Some(5), Some(6)),
            (at(5), Some(9), Some(10)),
            (at(i64::MAX), Some(3), Some(i64::MAX as u64)),
            (at(5), Some(u64::MAX - 1), Some(u64::MAX)),
            (at(5), Some(u64::MAX), None),
        ] {
            assert_eq!(Stamp::next(wall, newest.map(Stamp::new)).map(Stamp::get), want, "{wall} {newest:?}");
        }
    }

    #[test]
    fn formats_are_read_in_any_case_and_others_are_told_what_is_accepted() {
        for (text, want) in [
            ("json", BackupFormat::Json),
            ("JSON", BackupFormat::Json),
            ("binary", BackupFormat::Binary),
            ("Binary", BackupFormat::Binary),
            ("bin", BackupFormat::Binary),
            ("BIN", BackupFormat::Binary),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        for format in BackupFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        for bad in ["", " json", "json ", ".json", "xml", "pickle", "Pickle", "pkl", "jso\u{2115}"] {
            let message = bad.parse::<BackupFormat>().unwrap_err().to_string();
            assert!(message.contains("expected \"json\" or \"binary\""), "{message}");
            assert_eq!(message.contains("Python"), bad.eq_ignore_ascii_case("pickle"), "{message}");
        }
    }
}
