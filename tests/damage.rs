//! Damaged backups: whatever becomes of the bytes, `restore` gives the true state of a backup point of the chain and
//! says which, or an error that names the file. Never other data, a panic, a hang or a large allocation (but for names
//! that rows of many shapes share in a file: SPEC.md, Limits).
//!
//! A binary of its own, as it counts allocations.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "damage/chain.rs"]
mod chain;
#[path = "damage/edited.rs"]
mod edited;
#[path = "damage/every_bit.rs"]
mod every_bit;
#[path = "damage/forged.rs"]
mod forged;
#[path = "damage/forged_json.rs"]
mod forged_json;
#[path = "damage/lying_chain.rs"]
mod lying_chain;
#[path = "damage/shuffled.rs"]
mod shuffled;
