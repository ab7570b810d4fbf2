//! The log of an opened store: the ring's bytes, appended to files and synced.
//!
//! | module | what |
//! |---|---|
//! | `group` | many writers, one write, one sync |
//! | `writer` | segments being written: preallocated, rotated, sealed |
//! | `reader` | segments being read, frame by frame, up to where the sound ones end |
//! | `verdict` | torn tail or rot |
//!
//! Promise: what was reported as synced is on disk, in order and without holes, and a failure is never followed by
//! another write.

mod group;
mod reader;
#[cfg(test)]
mod table_walk;
mod verdict;
mod writer;

/// What `group` locks with. Its tests under a model checker put that checker's own here.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
}

pub(crate) use group::{Goal, Group, Reached};
pub(crate) use reader::{Ending, SegmentReader};
pub(crate) use verdict::{Found, Verdict, judge};
pub(crate) use writer::{LogWriter, SegmentEnd, Stamps, TornTail};
