//! An embeddable document store: tables of records in memory, every change a commit of one log; a store on disk that
//! has every commit it said Ok to after a crash; and checksummed full and incremental backups that restore to exactly
//! what was there, or say why not.
//!
//! ```
//! use dictdb::{BackupManager, DictDb, record, restore};
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let db = DictDb::new();
//! let users = db.create_table("users", "id")?;
//! let ann = users.insert(record! { "name": "Ann" })?; // gets an automatic key
//! users.update(&ann, record! { "age": 30 })?;
//!
//! let backup = BackupManager::builder(&db, dir).incremental(true).build()?;
//! backup.backup_full()?;
//! users.insert(record! { "id": "bo", "name": "Bo" })?;
//! backup.backup_delta()?; // or start() a thread that does it every so often
//! let lost = db.digest();
//! # drop((backup, users));
//! drop(db);
//!
//! let (db, report) = restore(dir)?;
//! assert_eq!(db.digest(), lost);
//! println!("{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`DictDb::open`] gives the same database with its log in a directory:
//!
//! ```
//! use dictdb::{DictDb, record};
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("data");
//! let db = DictDb::open(&dir)?; // made if need be
//! db.create_table("users", "id")?.insert(record! { "name": "Ann" })?; // Ok: written and synced
//! db.close()?; // dropping it, or a crash, loses nothing either
//! assert_eq!(DictDb::open(&dir)?.table("users")?.get(1)?.unwrap()["name"], "Ann");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it keeps
//!
//! - A commit is applied whole or not at all: in memory, in every file, after every crash, in every restore.
//! - A store has every commit whose `Ok` came under [`Durability::Sync`], after a crash of the process, the system or
//!   the power, also after one during the recovery from another. What comes back is a prefix of the commits in their
//!   order. The other levels of [`Durability`] say what they promise.
//! - Opening a store writes nothing but its lock. What a crash tore is told from what was damaged: the first is
//!   reported, the second is an error that names file and offset.
//! - After a failed write or sync of the log nothing more is accepted ([`Error::Poisoned`]); reads go on, and reopening
//!   decides what is there.
//! - A backup shows one point in time of all tables, and never holds up writers.
//! - A restored database has the [`Digest`] that the live one had at that [`Seq`]: every record, value, type, field
//!   order, definition and automatic key. A changed byte in a file is an [`Error::Corrupt`] that names file and offset.
//! - A backup that fails changes nothing, counts, and is told to the callback; the next one holds all it would have.
//! - No bytes from outside panic, hang, or take memory out of proportion (a compressed block is at most 255 times its
//!   bytes, and 16 MiB). There is no unsafe code.
//!
//! # What it does not
//!
//! - All data is in memory. Of a database that is not a store ([`DictDb::new`]), what was committed after the newest
//!   backup is gone with the process.
//! - A store is as durable as its one disk keeps what it said it had synced. Backups are for the loss of the disk.
//! - In a store that was not closed, damage to the commits synced last looks like writes that never completed (SPEC.md,
//!   "What is not detected").
//! - One process has a database; any number of its threads may use it. A store has a lock ([`Error::Locked`]).
//! - No queries beyond keys, ranges and iterators.
//! - JSON backups hold no NaN or infinity (an error, not a null), and none at all where a crate of the program turns on
//!   serde_json's `arbitrary_precision` (an error when they are read). The binary format knows neither limit.
//! - Checksums find accidents, not forgeries. Backups are never deleted; nothing is encrypted.
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | the database | [`DictDb`], [`Table`], [`TypedTable`], [`Transaction`], [`Snapshot`], [`DictDb::commits_since`] |
//! | a store | [`DictDb::open`], [`Options`], [`Durability`], [`DictDb::sync`], [`DictDb::close`] |
//! | its state | [`DictDb::open_report`], [`DictDb::durability_report`], [`DictDb::open_read_only`] |
//! | bounding its log | [`DictDb::checkpoint`], [`CheckpointPolicy`] |
//! | data | [`Record`], [`record!`], [`Value`], [`Key`], [`Schema`] |
//! | backups | [`BackupManager`], [`Compression`], [`list_backups`], [`DictDb::save`] |
//! | getting it back | [`restore`], [`RestoreOptions::restore_into`], [`DictDb::load`], [`DictDb::apply_delta`] |
//! | failures | [`Error`] |
//! | tests of your own | [`MemoryStorage`], [`Storage`], [`ManualClock`]; `sim`, a disk that crashes (feature `sim`) |
//!
//! README.md says what a store promises and what to do when it reports something, maps the guide of DictDB for Python
//! to this crate, and names the test that shows each guarantee; SPEC.md has the files byte by byte, the recovery step
//! by step, and the design.

mod backup;
mod batch;
mod clock;
mod db;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod definition;
mod error;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod file;
#[deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod limits;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod log;
mod memory;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod mutation;
mod packed;
mod pipeline;
mod progress;
mod put;
mod record_ref;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod ring;
mod row;
mod rows;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod state;
mod storage;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod store;
mod table;
mod transaction;
mod tree;
mod typed;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod value;
mod view;
mod wire;

/// The examples in README.md compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

pub use backup::{
    BackupDetails, BackupFile, BackupManager, BackupManagerBuilder, BackupReport, BackupStatus, LastBackup,
    LoadOptions, Notified, Promotion, RestoreOptions, RestoreReport, list_backups, restore,
};
pub use batch::Upserted;
pub use clock::{Clock, ManualClock, SystemClock};
pub use db::{Builder, Commits, DictDb};
pub use definition::{FieldType, Schema, TableDefinition};
pub use error::{DamagedBackup, Error, Result};
pub use file::compression::Compression;
pub use file::name::{BackupFormat, BackupKind, ParseFormatError};
pub use history::{Digest, Lineage, Point, Seq, Timestamp};
pub use mutation::{Commit, Mutation};
pub use progress::{Progress, Stage};
pub use record_ref::RecordRef;
#[cfg(feature = "sim")]
pub use storage::sim;
pub use storage::{DirEntry, DirLock, DiskStorage, LOCK_FILE, LockError, MemoryStorage, ReadFile, Storage, WriteFile};
pub use store::{CheckpointPolicy, CheckpointReport, Durability, DurabilityReport, OpenReport, Options, TornReport};
pub use table::Table;
pub use transaction::{Transaction, TransactionTable, TypedTransactionTable};
pub use typed::TypedTable;
pub use value::{Key, Record, Value};
pub use view::{Records, RecordsAs, Refs, Snapshot, TableView};
