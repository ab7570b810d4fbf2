//! Torn tail or rot: what is made of the place where a log's sound frames end.
//!
//! The rule stands three times: in SPEC.md, as [`TABLE`] here, and in the tests that walk every row. A torn tail is
//! what a crash leaves of writes that nobody was told were durable; it may be dropped. Everything else is damage to
//! what was once right, and the log is not opened over it.

use crate::history::Seq;

/// What stands where the next frame should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The end of the file, or zeros up to it.
    Nothing,
    /// Something that is not the next frame, whole, with fitting checksums. Another sound frame is no better than other
    /// bytes: a crash may show those of removed files in the place of what was written and not synced.
    Broken,
    /// A segment that ends with a seal, and something other than zeros behind it.
    BehindSeal,
    /// A file shorter than the bytes that were preallocated and synced before the first frame.
    TooShort,
}

/// What the frames from that place on say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Later {
    /// There is no sound frame header.
    None,
    /// All of them were made before the missing commit was known to be durable.
    Unproven,
    /// One was made when it was known that the missing commit is durable.
    Proof,
}

/// What is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The log ends here.
    CleanEnd,
    /// The log ends here, and what lies behind never was more than an attempt.
    TornTail,
    /// Something that was durable is missing or changed.
    Corrupt,
}

/// One row of the table; `None` stands for "whatever".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) found: Found,
    pub(crate) later: Option<Later>,
    /// Whether something outside of this place says that the log goes further: a snapshot, the next segment, a seal.
    pub(crate) witness: Option<bool>,
    pub(crate) verdict: Verdict,
    pub(crate) why: &'static str,
}

/// The first row that fits decides.
pub(crate) static TABLE: [Row; 8] = [
    row(Found::TooShort, None, None, Verdict::Corrupt, "the bytes preallocated before the first frame"),
    row(Found::BehindSeal, None, None, Verdict::Corrupt, "nothing but zeros behind the seal"),
    row(Found::Nothing, None, Some(true), Verdict::Corrupt, "the frame of a commit that a later file builds on"),
    row(Found::Nothing, None, Some(false), Verdict::CleanEnd, "the end of the log"),
    row(Found::Broken, None, Some(true), Verdict::Corrupt, "the frame of a commit that a later file builds on"),
    row(
        Found::Broken,
        Some(Later::Proof),
        Some(false),
        Verdict::Corrupt,
        "the frame of a commit that a later frame says was durable",
    ),
    row(Found::Broken, Some(Later::Unproven), Some(false), Verdict::TornTail, "a frame written whole"),
    row(Found::Broken, Some(Later::None), Some(false), Verdict::TornTail, "a frame written whole"),
];

const fn row(found: Found, later: Option<Later>, witness: Option<bool>, verdict: Verdict, why: &'static str) -> Row {
    Row { found, later, witness, verdict, why }
}

/// What the headers from the place on say of the commit that is missing there.
pub(crate) fn later(missing: Seq, synced_max: Option<Seq>) -> Later {
    match synced_max {
        None => Later::None,
        Some(synced) if synced >= missing => Later::Proof,
        Some(_) => Later::Unproven,
    }
}

/// The row that decides.
pub(crate) fn judge(found: Found, later: Later, witness: bool) -> &'static Row {
    let fits = |row: &&Row| {
        row.found == found
            && row.later.is_none_or(|wanted| wanted == later)
            && row.witness.is_none_or(|wanted| wanted == witness)
    };
    match TABLE.iter().find(fits) {
        Some(row) => row,
        None => unreachable!("a test shows that the table decides every case"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: [Found; 4] = [Found::Nothing, Found::Broken, Found::BehindSeal, Found::TooShort];
    const LATER: [Later; 3] = [Later::None, Later::Unproven, Later::Proof];

    #[test]
    fn the_table_decides_every_case_and_needs_every_row() {
        let mut used = [false; TABLE.len()];
        for found in FOUND {
            for later in LATER {
                for witness in [false, true] {
                    let row = judge(found, later, witness);
                    let at = TABLE.iter().position(|r| std::ptr::eq(r, row)).unwrap();
                    used[at] = true;
                }
            }
        }
        assert_eq!(used, [true; TABLE.len()]);
    }

    #[test]
    fn nothing_that_is_known_to_have_been_durable_is_ever_dropped() {
        for found in FOUND {
            for (later, witness) in
                [(Later::Proof, false), (Later::None, true), (Later::Unproven, true), (Later::Proof, true)]
            {
                let verdict = judge(found, later, witness).verdict;
                // Zeros up to the end leave no place for a later frame.
                assert!(
                    verdict == Verdict::Corrupt || (found, witness) == (Found::Nothing, false),
                    "{found:?} {later:?} {witness}"
                );
            }
        }
    }

    #[test]
    fn a_frame_that_names_the_missing_seq_as_synced_is_proof() {
        assert_eq!(later(Seq::new(5), None), Later::None);
        assert_eq!(later(Seq::new(5), Some(Seq::new(4))), Later::Unproven);
        assert_eq!(later(Seq::new(5), Some(Seq::new(5))), Later::Proof);
    }
}
