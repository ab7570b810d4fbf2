//! Storage that fails, clocks that lie, and the promises of the backup manager, all through the public API.
//!
//! Nothing here sleeps or measures time: threads are met at gates in the storage or in callbacks.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/directory.rs"]
mod directory;
#[path = "faults/failing.rs"]
mod failing;
#[path = "faults/faulty.rs"]
mod faulty;
#[path = "faults/manager.rs"]
mod manager;
#[path = "faults/midst.rs"]
mod midst;
#[path = "faults/progress.rs"]
mod progress;
#[path = "faults/reports.rs"]
mod reports;
#[path = "faults/thread.rs"]
mod thread;
