//! dictdb

mod backup;
mod batch;
mod clock;
mod db;
mod definition;
mod error;
mod file;
#[deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod frame;
mod history;
mod limits;
mod mutation;
mod progress;
mod ring;
mod row;
mod state;
mod storage;
mod table;
mod transaction;
mod typed;
mod value;
mod view;
mod wire;

pub use backup::{
    BackupFile, BackupManager, BackupManagerBuilder, BackupReport, BackupStatus, LastBackup, LoadOptions, Notified,
    Promotion, RestoreOptions, RestoreReport, list_backups, restore,
};
pub use batch::Upserted;
pub use clock::{Clock, ManualClock, SystemClock};
pub use db::{Builder, Commits, DictDb};
pub use definition::{FieldType, Schema, TableDefinition};
pub use error::{DamagedBackup, Error, Result};
pub use file::name::{BackupFormat, BackupKind, ParseFormatError};
pub use history::{Digest, Lineage, Point, Seq, Timestamp};
pub use mutation::{Commit, Mutation};
pub use progress::{Progress, Stage};
pub use storage::{DirEntry, DiskStorage, MemoryStorage, ReadFile, Storage, WriteFile};
pub use table::Table;
pub use transaction::{Transaction, TransactionTable, TypedTransactionTable};
pub use typed::TypedTable;
pub use value::{Key, Record, Value};
pub use view::{Records, RecordsAs, Snapshot, TableView};
