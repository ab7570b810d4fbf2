//! Opened stores: what is acknowledged is there again.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "store/backups.rs"]
mod backups;
#[path = "store/basics.rs"]
mod basics;
#[path = "store/compression.rs"]
mod compression;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/damage_shapes.rs"]
mod damage_shapes;
#[path = "store/directories.rs"]
mod directories;
#[path = "store/kill.rs"]
mod kill;
#[path = "store/looks.rs"]
mod looks;
#[path = "store/poison.rs"]
mod poison;
#[path = "store/regressions.rs"]
mod regressions;
