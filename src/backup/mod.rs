//! Backups: when one is made, of which kind, and how a directory of them becomes a database again.
//!
//! | module | what |
//! |---|---|
//! | `schedule` | when: a pure state machine |
//! | `catalog` | what a directory holds |
//! | `chain` | one backup: which kind, write, advance the checkpoint |
//! | `manager` | the public face and its thread |
//! | `route` | which files lead to a state, and what they leave out |
//! | `restore` | newest sound snapshot, then the deltas that join |
//! | `single` | single files: `load`, `save`, `apply_delta` |
//! | `report` | what happened, for people and programs |
//!
//! Promise: a backup that fails changes nothing, and a restore never writes.

mod catalog;
mod chain;
mod found;
mod manager;
mod report;
mod restore;
mod route;
mod schedule;
mod single;
#[cfg(test)]
mod spec_example;

pub use catalog::{BackupDetails, BackupFile, list_backups};
pub use manager::{BackupManager, BackupManagerBuilder};
pub use report::{BackupReport, BackupStatus, LastBackup, Notified, Promotion, RestoreReport};
pub use restore::{RestoreOptions, restore};
pub use single::LoadOptions;
