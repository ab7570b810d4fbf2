//! Group commit and ring under a scheduler that tries thousands of interleavings: the very source files that the crate
//! is built of, with the scheduler's own locks.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "parts of the crate's own files, of which each test needs some"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::duplicate_mod, reason = "the files belong to the crate as well")]

#[path = "../src/frame.rs"]
mod frame;
#[path = "../src/log/group.rs"]
mod group;
#[path = "../src/history.rs"]
mod history;
#[path = "../src/limits.rs"]
mod limits;
#[path = "../src/ring.rs"]
mod ring;

/// What `group` locks with.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;
}

#[path = "concurrency/schedules.rs"]
mod schedules;
