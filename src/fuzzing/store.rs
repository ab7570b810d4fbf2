//! The target `store_ops`: operations, faults, crashes and reopenings of a store, against a plain model of its states.
//!
//! The first byte says how the store is used, each byte behind it what comes next, followed by its details. What must
//! hold of every reopening: the state is one that there was, at least as new as the last that was acknowledged as
//! durable, and no newer than the last that was begun.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Picks;
use crate::file::store_name::{StoreFile, StoreName};
use crate::storage::sim::{Budget, Dirty, Fault, Removal, Repeat, SimStorage};
use crate::{
    BackupFormat, BackupManager, CheckpointPolicy, DictDb, Durability, Error, Lineage, ManualClock, Options,
    RestoreOptions, Result, Timestamp, record,
};

const DATA: &str = "/data";
const BACKUPS: &str = "/backups";

/// What one input may do: enough for several reopenings, and done in a moment.
const STEPS_MAX: usize = 48;

/// Tables by name, their texts by id.
type Tables = BTreeMap<String, BTreeMap<i64, String>>;

/// What must be there after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Promise {
    /// Every commit up to here was acknowledged as durable.
    acked: u64,
    /// None behind this one was begun.
    issued: u64,
    /// Which of the copies was acknowledged as a backup.
    backed_up: Option<usize>,
}

/// A program that uses a store.
struct Run {
    disk: SimStorage,
    clock: ManualClock,
    durability: Durability,
    format: BackupFormat,
    db: Option<DictDb>,
    manager: Option<BackupManager>,
    /// The state at each seq of the history at hand.
    states: BTreeMap<u64, Tables>,
    promise: Promise,
    /// Every promise there was on this disk; its place is the mark that the disk records.
    promises: Vec<Promise>,
    /// What each backup that was begun holds.
    copies: Vec<Tables>,
    /// The last reopening: what a crash before it would leave is not what the model knows any more.
    floor: u64,
    /// A write has failed, and none may succeed before the store is opened again.
    is_broken: bool,
    /// The history of a store that was closed, until it is opened.
    closed: Option<Lineage>,
    a_segment_is_gone: Arc<AtomicBool>,
    /// The newest commit that was ever found again.
    recovered: u64,
    /// How many stores were made of backups.
    restored: u64,
    /// For messages: what was done so far.
    story: Vec<String>,
}

/// Operations, faults, crashes and reopenings of a store. Whether a commit outlived one.
pub fn store_ops(data: &[u8]) -> bool {
    let Some((first, rest)) = data.split_first() else { return false };
    let mut run = Run::begin(*first);
    let mut picks = Picks(rest);
    for _ in 0..STEPS_MAX {
        let Some(step) = picks.next() else { break };
        run.step(step, &mut picks);
        run.look();
    }
    // Only what was synced.
    run.crash(0, 1);
    run.put("a", 1, 1);
    run.look();
    run.recovered > 0
}

impl Run {
    fn begin(how: u8) -> Run {
        let mut run = Run {
            disk: SimStorage::new(),
            clock: ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)),
            durability: if how & 1 == 0 { Durability::Sync } else { Durability::Manual },
            format: if how & 2 == 0 { BackupFormat::Binary } else { BackupFormat::Json },
            db: None,
            manager: None,
            states: BTreeMap::from([(0, Tables::new())]),
            promise: Promise::default(),
            promises: Vec::new(),
            copies: Vec::new(),
            floor: 0,
            is_broken: false,
            closed: None,
            a_segment_is_gone: Arc::default(),
            recovered: 0,
            restored: 0,
            story: Vec::new(),
        };
        run.watch_removals();
        run.promise(run.promise);
        run.open();
        if how & 4 == 0 {
            run.create("a");
        }
        run
    }

    fn step(&mut self, step: u8, picks: &mut Picks<'_>) {
        let mut table = || ["a", "b"][usize::from(picks.pick() % 2)];
        match step % 20 {
            0..=4 => {
                let table = table();
                self.put(table, picks.pick(), picks.pick());
            }
            5 => {
                let table = table();
                self.delete(table, picks.pick());
            }
            6 => {
                let table = table();
                self.several(table, picks);
            }
            7 => {
                let table = table();
                if self.has_table(table) { self.drop_table(table) } else { self.create(table) }
            }
            8 => self.sync(),
            9 => self.checkpoint(),
            10 => self.close(),
            11 => self.drop(),
            12 | 13 => self.back_up(step % 20 == 12),
            14 => self.restore(),
            15 => self.restore_into(),
            16 => self.plan_fault(picks),
            17 => self.crash(0, picks.pick()),
            18 => self.crash(picks.pick(), picks.pick()),
            _ => self.turn_clock(picks),
        }
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    /// For a message, where something is wrong.
    fn so_far(&self) -> String {
        let Run { durability, promise, is_broken, story, .. } = self;
        format!("\n{durability:?} {promise:?} broken: {is_broken}\n{}", story.join("\n"))
    }

    /// A segment goes only beside a durable snapshot. So does a snapshot, unless every segment is still there: then it
    /// is one whose own publication failed.
    fn watch_removals(&self) {
        let kind = |path: &Path| path.file_name().and_then(StoreName::parse).map(|name| name.kind);
        let gone = Arc::clone(&self.a_segment_is_gone);
        self.disk.set_removal_rule(move |removal: &Removal<'_>| {
            let removed = kind(removal.path).filter(|_| removal.path.starts_with(DATA));
            if removed == Some(StoreFile::Log) {
                gone.store(true, Ordering::Relaxed);
            }
            let is_needed = matches!(removed, Some(StoreFile::Log | StoreFile::Snapshot));
            let is_snapshot = |path: &&Path| path.starts_with(DATA) && kind(path) == Some(StoreFile::Snapshot);
            let beside = removal.durable.iter().any(|path| is_snapshot(&path.as_path()));
            if is_needed && !beside && gone.load(Ordering::Relaxed) {
                return Err("no snapshot beside it is durable in its bytes and its name".to_owned());
            }
            Ok(())
        });
    }

    fn options(&self) -> Options {
        Options::new()
            .storage(self.disk.clone())
            .durability(self.durability)
            .checkpoint(CheckpointPolicy::manual())
            .segment_bytes(600)
            .preallocate_bytes(512)
            .ring_bytes(400)
            .clock(self.clock.clone())
    }

    /// From here on this is promised.
    fn promise(&mut self, promise: Promise) {
        self.promise = promise;
        self.disk.mark(self.promises.len() as u64);
        self.promises.push(promise);
    }

    fn acknowledge(&mut self, seq: u64) {
        if seq > self.promise.acked {
            self.promise(Promise { acked: seq, ..self.promise });
        }
    }

    fn seq(&self) -> Option<u64> {
        self.db.as_ref().map(|db| db.seq().get())
    }

    fn has_table(&self, table: &str) -> bool {
        self.db.as_ref().is_some_and(|db| db.table(table).is_ok())
    }

    /// Opens the store, which only a fault may hinder.
    fn open(&mut self) {
        let hits = self.disk.fault_hits();
        let db = match self.options().open(DATA) {
            Ok(db) => db,
            Err(error) => {
                assert!(self.disk.fault_hits() > hits, "does not open: {error}{}", self.so_far());
                return self.tell(format!("open: {error}"));
            }
        };
        let (seq, Promise { acked, issued, .. }) = (db.seq().get(), self.promise);
        let report = db.open_report().expect("a store has a report");
        self.tell(report.to_string());
        assert!(seq >= acked, "seq {acked} was acknowledged{}", self.so_far());
        assert!(seq <= issued, "seq {seq} was never issued{}", self.so_far());
        let state = self.states.get(&seq).unwrap_or_else(|| panic!("no state at seq {seq}{}", self.so_far()));
        assert_eq!(tables_of(&db), *state, "at seq {seq}{}", self.so_far());
        if let Some(lineage) = self.closed.take()
            && seq > 0
        {
            let found = (report.clean, db.lineage());
            assert_eq!(found, (true, lineage), "a closed store goes on{}", self.so_far());
        }
        self.states.retain(|at, _| *at <= seq);
        self.recovered = self.recovered.max(seq);
        self.is_broken = false;
        self.promise(Promise { issued: seq, ..self.promise });
        self.floor = self.disk.op_count();
        let manager = BackupManager::builder(&db, BACKUPS).storage(self.disk.clone());
        self.manager = match manager.file_format(self.format).incremental(true).build() {
            Ok(manager) => Some(manager),
            Err(error) => {
                assert!(self.disk.fault_hits() > hits, "no manager: {error}{}", self.so_far());
                None
            }
        };
        self.db = Some(db);
    }

    /// What holds after every step.
    fn look(&mut self) {
        let violations = self.disk.violations();
        assert!(violations.is_empty(), "{violations:?}{}", self.so_far());
        let Some(db) = self.db.clone() else { return };
        let seq = db.seq().get();
        assert_eq!(Some(&tables_of(&db)), self.states.get(&seq), "in memory, at seq {seq}{}", self.so_far());
        let report = db.durability_report();
        if let (false, Some(cause)) = (self.is_broken, &report.poisoned) {
            self.tell(format!("poisoned: {cause}"));
            self.is_broken = true;
        }
        let synced = report.synced.expect("a store knows what is synced").get();
        assert!(synced <= seq, "{report}{}", self.so_far());
        self.acknowledge(synced);
    }

    /// One commit, or none where nothing changes.
    fn write(
        &mut self,
        what: &str,
        is_durable: bool,
        change: impl FnOnce(&mut Tables),
        write: impl FnOnce(&DictDb) -> Result<()>,
    ) {
        let Some(db) = self.db.clone() else { return };
        let (before, next) = (db.seq().get(), db.seq().get().saturating_add(1));
        self.promise(Promise { issued: next, ..self.promise });
        let old = self.states.get(&before).cloned().unwrap_or_default();
        let mut new = old.clone();
        change(&mut new);
        let outcome = write(&db);
        let after = db.seq().get();
        self.tell(format!("{what}: seq {after}, {outcome:?}"));
        if after == next {
            // In memory a commit whose log failed may stand; on disk, too.
            self.states.insert(next, new);
        } else {
            assert_eq!(after, before, "one commit at a time{}", self.so_far());
            assert!(outcome.is_err() || new == old, "nothing was committed{}", self.so_far());
        }
        match outcome {
            Ok(()) => {
                assert!(!self.is_broken, "a write was accepted behind one that failed{}", self.so_far());
                if after == next && (is_durable || self.durability == Durability::Sync) {
                    self.acknowledge(after);
                }
            }
            Err(Error::Poisoned { .. }) => {
                assert!(self.disk.fault_hits() > 0, "nothing failed{}", self.so_far());
                assert!(!self.is_broken || after == before, "a commit behind one that failed{}", self.so_far());
                self.is_broken = true;
            }
            Err(error) => panic!("{error}{}", self.so_far()),
        }
    }

    fn create(&mut self, table: &str) {
        let change = |tables: &mut Tables| _ = tables.insert(table.to_owned(), BTreeMap::new());
        self.write(&format!("create {table}"), false, change, |db| db.create_table(table, "id").map(drop));
    }

    fn drop_table(&mut self, table: &str) {
        let change = |tables: &mut Tables| _ = tables.remove(table);
        self.write(&format!("drop table {table}"), false, change, |db| db.drop_table(table));
    }

    fn put(&mut self, table: &str, id: u8, bytes: u8) {
        if !self.has_table(table) {
            return;
        }
        // Some are larger than a segment and its preallocation.
        let (id, length) = (i64::from(id % 8), usize::from(bytes) * if bytes > 240 { 8 } else { 1 });
        let text = format!("{}:{}", self.promises.len(), "x".repeat(length));
        let record = record! { "id": id, "text": text.as_str() };
        let change = |tables: &mut Tables| _ = tables.entry(table.to_owned()).or_default().insert(id, text);
        self.write(&format!("put {table} {id} ({length} bytes)"), false, change, |db| {
            db.table(table)?.upsert(record).map(drop)
        });
    }

    fn delete(&mut self, table: &str, id: u8) {
        if !self.has_table(table) {
            return;
        }
        let id = i64::from(id % 8);
        let change = |tables: &mut Tables| _ = tables.entry(table.to_owned()).or_default().remove(&id);
        self.write(&format!("delete {table} {id}"), false, change, |db| db.table(table)?.delete(id).map(drop));
    }

    /// One commit of several mutations, which may ask for its own durability.
    fn several(&mut self, table: &str, picks: &mut Picks<'_>) {
        if !self.has_table(table) {
            return;
        }
        let how = picks.pick();
        let ids: Vec<(i64, bool)> =
            (0..how % 4).map(|_| picks.pick()).map(|id| (i64::from(id % 8), id & 8 == 0)).collect();
        let text = format!("{}:several", self.promises.len());
        let durability = if how & 64 == 0 { Durability::Manual } else { Durability::Sync };
        let change = |tables: &mut Tables| {
            let rows = tables.entry(table.to_owned()).or_default();
            for (id, put) in &ids {
                if *put { _ = rows.insert(*id, text.clone()) } else { _ = rows.remove(id) }
            }
        };
        let what = format!("{} mutations of {table} with {durability:?}", ids.len());
        self.write(&what, durability == Durability::Sync, change, |db| {
            db.transaction_with(durability, |tx| {
                let table = tx.table(table)?;
                for (id, put) in &ids {
                    if *put {
                        table.upsert(record! { "id": *id, "text": text.as_str() })?;
                    } else {
                        table.delete(*id)?;
                    }
                }
                Ok(())
            })
        });
    }

    /// What a failure that is not a commit's may be: a fault's, or a later one's.
    fn failed(&mut self, what: &str, error: &Error) {
        self.tell(format!("{what}: {error}"));
        assert!(self.disk.fault_hits() > 0, "nothing failed{}", self.so_far());
        self.is_broken |= matches!(error, Error::Poisoned { .. });
    }

    fn sync(&mut self) {
        let (Some(db), Some(seq)) = (self.db.clone(), self.seq()) else { return };
        match db.sync() {
            Ok(()) => {
                assert!(!self.is_broken, "synced what failed{}", self.so_far());
                self.tell("sync");
                self.acknowledge(seq);
            }
            Err(error) => self.failed("sync", &error),
        }
    }

    fn checkpoint(&mut self) {
        let (Some(db), Some(seq)) = (self.db.clone(), self.seq()) else { return };
        match db.checkpoint() {
            Ok(report) => {
                self.tell(report.to_string());
                assert!(!self.is_broken, "a checkpoint behind a write that failed{}", self.so_far());
                self.acknowledge(seq);
            }
            Err(error) => self.failed("checkpoint", &error),
        }
    }

    /// Ends the store with a close, and opens it.
    fn close(&mut self) {
        self.manager = None;
        let Some(db) = self.db.take() else { return self.open_again() };
        let (seq, lineage) = (db.seq().get(), db.lineage());
        match db.close() {
            Ok(_) => {
                self.tell("close");
                assert!(!self.is_broken, "closed behind a write that failed{}", self.so_far());
                self.acknowledge(seq);
                self.closed = Some(lineage);
            }
            Err(error) => self.failed("close", &error),
        }
        self.open_again();
    }

    /// Ends the store without a close, and opens it.
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            let (seq, hits) = (db.seq().get(), self.disk.fault_hits());
            let found = db.open_report().expect("a store has a report").point.seq.get();
            self.manager = None;
            drop(db);
            self.tell("drop");
            // A store that was only looked at is left as it was found.
            if !self.is_broken && self.disk.fault_hits() == hits && seq > found {
                self.acknowledge(seq);
            }
        }
        self.open_again();
    }

    /// The second attempt meets no fault.
    fn open_again(&mut self) {
        self.open();
        if self.db.is_none() {
            self.disk.clear_faults();
            self.open();
        }
        self.look();
    }

    fn back_up(&mut self, full: bool) {
        let (Some(manager), Some(seq)) = (&self.manager, self.seq()) else { return };
        let outcome = if full { manager.backup_full() } else { manager.backup_delta() };
        let copy = self.copies.len();
        self.copies.push(self.states.get(&seq).cloned().unwrap_or_default());
        match outcome {
            Ok(report) => {
                self.tell(format!("{report:?}"));
                assert_eq!(report.seq.get(), seq, "{}", self.so_far());
                self.promise(Promise { backed_up: Some(copy), ..self.promise });
            }
            Err(error) => self.failed("backup", &error),
        }
    }

    /// The newest backup leads to what was acknowledged last, or to one that was begun behind it.
    fn restore(&mut self) {
        let hits = self.disk.fault_hits();
        let restored = RestoreOptions::new().storage(self.disk.clone()).restore(BACKUPS);
        if self.disk.fault_hits() == hits {
            self.check_restored(restored.map(|(db, _)| db));
        }
    }

    fn restore_into(&mut self) {
        let hits = self.disk.fault_hits();
        self.restored = self.restored.saturating_add(1);
        let dir = format!("/restored {}", self.restored);
        let restored = RestoreOptions::new().storage(self.disk.clone()).restore_into(BACKUPS, &dir);
        let opened = restored.and_then(|_| self.options().open(&dir));
        if self.disk.fault_hits() == hits {
            self.check_restored(opened);
        }
    }

    fn check_restored(&mut self, restored: Result<DictDb>) {
        self.tell("restore");
        let least = self.promise.backed_up;
        match restored {
            Ok(db) => {
                let (tables, candidates) = (tables_of(&db), self.copies.get(least.unwrap_or(0)..).unwrap_or_default());
                assert!(candidates.contains(&tables), "restored {tables:?}, not {candidates:?}{}", self.so_far());
            }
            Err(error) => assert!(least.is_none(), "the backups are lost: {error}{}", self.so_far()),
        }
    }

    fn plan_fault(&mut self, picks: &mut Picks<'_>) {
        let (fault, at) = (picks.pick(), u64::from(picks.pick() % 64));
        let repeat = if fault & 0x80 == 0 { Repeat::Once } else { Repeat::Forever };
        let fault = match fault % 10 {
            0 => Fault::Error(ErrorKind::Other),
            1 => Fault::Error(ErrorKind::PermissionDenied),
            2 => Fault::NoSpace { after: 0 },
            3 => Fault::NoSpace { after: 17 },
            4 => Fault::NoSpace { after: 200 },
            5 => Fault::ShortWrite(0),
            6 => Fault::ShortWrite(7),
            7 => Fault::Interrupted,
            8 => Fault::SyncFails { dirty: Dirty::Kept },
            _ => Fault::SyncFails { dirty: Dirty::Dropped },
        };
        self.tell(format!("{fault:?} {repeat:?} in {at} operations"));
        self.disk.fail_at(self.disk.op_count().saturating_add(at).saturating_add(1), fault, repeat);
    }

    /// A crash some operations ago, and one of the disks that it may leave.
    fn crash(&mut self, ago: u8, which: u8) {
        self.disk.crash();
        (self.manager, self.db, self.closed) = (None, None, None);
        let n = self.disk.op_count().saturating_sub(ago.into()).max(self.floor);
        let mark = self.disk.marks_before(n).last().and_then(|mark| usize::try_from(*mark).ok());
        let promise = mark.and_then(|mark| self.promises.get(mark)).copied().expect("something is always promised");
        let images = self.disk.images(n, &Budget::small());
        let image = images.take(usize::from(which % 32).saturating_add(1)).last().expect("a crash leaves a disk");
        self.tell(format!("crash at {n} of {}, {}\n{}", self.disk.op_count(), image.id(), image.describe()));
        self.disk = image.storage();
        self.watch_removals();
        self.promises.clear();
        self.promise(promise);
        self.open();
        // All that is there is durable.
        let seq = self.seq().unwrap_or_default();
        self.acknowledge(seq);
        self.look();
    }

    /// Clocks are set, also back.
    fn turn_clock(&mut self, picks: &mut Picks<'_>) {
        let by = picks.pick();
        self.tell(format!("the clock is turned by {by}"));
        match by % 3 {
            0 => self.clock.set(Timestamp::from_micros(1_600_000_000_000_000)),
            1 => self.clock.advance(Duration::from_micros(by.into())),
            _ => self.clock.advance(Duration::from_secs(u64::from(by) * 1_000)),
        }
    }
}

fn tables_of(db: &DictDb) -> Tables {
    let rows = |name: &str| {
        let table = db.table(name).expect("a table that is named is there");
        let row = |(_, record): (crate::Key, crate::Record)| {
            let id = record["id"].as_i64().expect("ids are numbers");
            (id, record["text"].as_str().expect("texts are text").to_owned())
        };
        table.iter().expect("a table that is there has rows").map(row).collect()
    };
    db.table_names().into_iter().map(|name| (name.clone(), rows(&name))).collect()
}
