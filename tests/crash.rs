//! Stores on a disk that crashes and fails on order: every operation, every image, every error.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "crash/canaries.rs"]
mod canaries;
#[path = "crash/check.rs"]
mod check;
#[path = "crash/errors.rs"]
mod errors;
#[path = "crash/histories.rs"]
mod histories;
#[path = "crash/legacy.rs"]
mod legacy;
#[path = "crash/lives.rs"]
mod lives;
#[path = "crash/matrix.rs"]
mod matrix;
#[path = "crash/pairs.rs"]
mod pairs;
#[path = "crash/story.rs"]
mod story;
