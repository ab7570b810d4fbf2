//! Lives of stores at random: commits, checkpoints, backups, looks; sessions that end in every way; losses of power, operations
//! that fail, clocks that jump, damaged snapshots. Whenever it opens everything that was acknowledged is there, and nothing that
//! was not issued.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use dictdb::sim::{Budget, Dirty, Fault, Repeat, SimStorage};
use dictdb::{
    BackupFormat, BackupManager, DictDb, Durability, Error, ManualClock, Options, RestoreOptions, Timestamp, record,
};

use crate::story::{BACKUPS, DATA, Rows, options, rows_of};

/// Lives that `cargo test` goes through. `DICTDB_LIVES=a..b` says which.
const LIVES: std::ops::Range<u64> = 0..1_000;

struct Life {
    rng: fastrand::Rng,
    disk: SimStorage,
    clock: ManualClock,
    durability: Durability,
    db: Option<DictDb>,
    /// The rows at each seq of the history that the store has gone through.
    states: BTreeMap<u64, Rows>,
    /// The digest at each point of each history: there is never another one.
    points: BTreeMap<(String, u64), u128>,
    acked: u64,
    issued: u64,
    /// Set by the first write that failed, until the store is opened again.
    is_broken: bool,
    /// Whether an operation has ever failed. Then no snapshot is damaged: SPEC.md, Retention.
    has_failed: bool,
    is_rotten: bool,
    told: String,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = SimStorage::new();
        // The directories are there, durably.
        for dir in [DATA, BACKUPS] {
            disk.write(format!("{dir}/.dictdb_log_1_000000.log.1-1.tmp"), *b"left").unwrap();
        }
        Life {
            durability: if rng.bool() { Durability::Sync } else { Durability::Manual },
            rng,
            disk,
            clock: ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)),
            db: None,
            states: BTreeMap::from([(0, None)]),
            points: BTreeMap::new(),
            acked: 0,
            issued: 0,
            is_broken: false,
            has_failed: false,
            is_rotten: false,
            told: String::new(),
        }
    }

    fn options(&self) -> Options {
        options(self.disk.clone(), self.durability).clock(self.clock.clone())
    }

    fn tell(&mut self, what: impl std::fmt::Display) {
        writeln!(self.told, "{what}").unwrap();
    }

    /// Whether an error is one that was planned.
    fn excuse(&mut self, what: &str, error: &Error) -> Result<(), String> {
        self.tell(format!("{what}: {error}"));
        if self.disk.fault_hits() > 0 { Ok(()) } else { Err(format!("{what}: {error}")) }
    }

    /// What must hold of a handle that was just opened.
    fn check(&self, db: &DictDb) -> Result<(), String> {
        let (seq, report) = (db.seq().get(), db.open_report().unwrap());
        if let Some(damage) = &report.damage {
            return Err(format!("damage: {damage}"));
        }
        if seq < self.acked || seq > self.issued {
            return Err(format!("seq {seq}, of {} acknowledged and {} issued: {report}", self.acked, self.issued));
        }
        if self.states.get(&seq) != Some(&rows_of(db)) {
            return Err(format!("at seq {seq} {:?}, not {:?}: {report}", rows_of(db), self.states.get(&seq)));
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), String> {
        self.db = None;
        let db = match self.options().open(DATA) {
            Ok(db) => db,
            Err(error) => {
                self.excuse("open", &error)?;
                self.disk.clear_faults();
                self.options().open(DATA).map_err(|error| format!("does not open: {error}"))?
            }
        };
        self.tell(db.open_report().unwrap());
        self.check(&db)?;
        let seq = db.seq().get();
        self.states.retain(|at, _| *at <= seq);
        (self.issued, self.is_broken) = (seq, false);
        self.db = Some(db);
        self.note()
    }

    fn note(&mut self) -> Result<(), String> {
        let Some(db) = &self.db else { return Ok(()) };
        let (seq, digest) = (db.seq().get(), db.digest().to_u128());
        let known = *self.points.entry((db.lineage().to_string(), seq)).or_insert(digest);
        let is_one = seq == 0 || known == digest;
        if is_one { Ok(()) } else { Err(format!("two states at seq {seq} of lineage {}", db.lineage())) }
    }

    fn put(&mut self) -> Result<(), String> {
        let Some(db) = self.db.clone() else { return Ok(()) };
        let (id, seq) = (self.rng.i64(0..6), db.seq().get() + 1);
        let bytes = [0, 10, 60, 150, 700][self.rng.usize(0..5)];
        let text = format!("{}:{}", self.points.len(), "x".repeat(bytes));
        let mut rows = rows_of(&db);
        self.issued = seq;
        let outcome = match db.table("t") {
            Ok(table) => {
                rows.get_or_insert_default().insert(id, text.clone());
                table.upsert(record! { "id": id, "text": text }).map(drop)
            }
            Err(_) => {
                rows = Some(BTreeMap::new());
                db.create_table("t", "id").map(drop)
            }
        };
        if db.seq().get() == seq {
            self.states.insert(seq, rows);
        }
        match outcome {
            Ok(()) if self.is_broken => return Err("accepted behind one that failed".to_owned()),
            Ok(()) if self.durability == Durability::Sync => self.acked = self.acked.max(seq),
            Ok(()) => {}
            Err(error) => {
                self.excuse("put", &error)?;
                self.is_broken = true;
            }
        }
        self.tell(format!("put {id}, {bytes} bytes: seq {}", db.seq()));
        self.note()
    }

    fn checkpoint(&mut self) -> Result<(), String> {
        let Some(db) = self.db.clone() else { return Ok(()) };
        match db.checkpoint() {
            Ok(report) => {
                self.acked = self.acked.max(db.seq().get());
                self.is_rotten &= report.file.is_none();
                self.tell(report);
            }
            Err(error) => {
                self.is_broken |= matches!(error, Error::Poisoned { .. });
                self.excuse("checkpoint", &error)?;
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        let Some(db) = self.db.clone() else { return Ok(()) };
        match db.sync() {
            Ok(()) => self.acked = self.acked.max(db.seq().get()),
            Err(error) => {
                self.excuse("sync", &error)?;
                self.is_broken = true;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(db) = self.db.take() else { return Ok(()) };
        let seq = db.seq().get();
        if self.rng.bool() {
            self.tell("drop");
            return Ok(());
        }
        match db.close() {
            Ok(_) => {
                self.acked = self.acked.max(seq);
                self.tell("close");
                Ok(())
            }
            Err(error) => self.excuse("close", &error),
        }
    }

    /// The process is killed: nothing more of it reaches the system.
    fn kill(&mut self) {
        self.disk.fail_at(self.disk.op_count() + 1, Fault::Error(ErrorKind::Other), Repeat::Forever);
        self.db = None;
        self.disk.clear_faults();
        self.tell("killed");
    }

    /// The power goes: of what was not synced anything may be left.
    fn lose_power(&mut self) {
        self.has_failed |= self.disk.fault_hits() > 0;
        self.disk.crash();
        self.db = None;
        let mut budget = Budget::small().cuts(3);
        budget.tails_max = 1;
        let images: Vec<_> = self.disk.images(self.disk.op_count(), &budget).take(200).collect();
        let image = &images[self.rng.usize(0..images.len())];
        self.tell(format!("no power, {}\n{}", image.id(), image.describe()));
        self.disk = image.storage();
    }

    /// One snapshot of several is damaged.
    fn rot(&mut self) {
        if self.is_rotten || self.has_failed || self.disk.fault_hits() > 0 {
            return;
        }
        // What is planned would strike this one's own operations.
        self.disk.clear_faults();
        let is_one = |path: &PathBuf| path.to_string_lossy().contains("/dictdb_snapshot_");
        let snapshots: Vec<_> = self.disk.paths().into_iter().filter(is_one).collect();
        if snapshots.len() < 2 {
            return;
        }
        let file = &snapshots[self.rng.usize(0..snapshots.len())];
        let mut bytes = self.disk.read(file).unwrap();
        let at = self.rng.usize(0..bytes.len());
        if self.rng.bool() {
            bytes.truncate(at)
        } else {
            bytes[at] ^= 4
        }
        self.disk.write(file, bytes).unwrap();
        self.tell(format!("damage to {} at {at}", file.display()));
        self.is_rotten = true;
    }

    fn look(&mut self) -> Result<(), String> {
        match self.options().open_read_only(DATA) {
            Ok(db) => self.check(&db),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => self.excuse("look", &error),
        }
    }

    fn fail_soon(&mut self) {
        let fault = match self.rng.u8(0..6) {
            0 => Fault::Error(ErrorKind::Other),
            1 => Fault::NoSpace { after: 17 },
            2 => Fault::ShortWrite(7),
            3 => Fault::SyncFails { dirty: Dirty::Kept },
            _ => Fault::SyncFails { dirty: Dirty::Dropped },
        };
        let repeat = if self.rng.u8(0..3) == 0 { Repeat::Forever } else { Repeat::Once };
        let at = self.disk.op_count() + self.rng.u64(1..40);
        self.tell(format!("{fault:?} {repeat:?} at {at}"));
        self.disk.fail_at(at, fault, repeat);
    }

    /// A backup restores to what the store holds.
    fn back_up(&mut self) -> Result<(), String> {
        let Some(db) = self.db.clone() else { return Ok(()) };
        let builder = BackupManager::builder(&db, BACKUPS).storage(self.disk.clone()).file_format(BackupFormat::Binary);
        match builder.incremental(true).build().and_then(|manager| manager.backup_now()) {
            Ok(report) => self.tell(report),
            Err(error) => return self.excuse("backup", &error),
        }
        match RestoreOptions::new().storage(self.disk.clone()).restore(BACKUPS) {
            Ok((restored, _)) if restored.digest() == db.digest() => Ok(()),
            Ok((_, report)) => Err(format!("restored is another state: {report}")),
            Err(error) => self.excuse("restore", &error),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        self.open()?;
        let (may_rot, may_fail) = (self.rng.bool(), self.rng.bool());
        for _ in 0..self.rng.usize(10..90) {
            match self.rng.u8(0..30) {
                0..=11 => self.put()?,
                12..=15 => self.checkpoint()?,
                16 => self.sync()?,
                way @ 17..=23 => {
                    match way {
                        17 | 18 => self.end()?,
                        19 | 20 => self.kill(),
                        _ => self.lose_power(),
                    }
                    if may_rot {
                        self.rot();
                    }
                    self.open()?;
                    if way > 20 {
                        // What is there now is all that the disk had.
                        self.acked = self.issued;
                    }
                }
                24 | 25 => self.look()?,
                26 => self.back_up()?,
                27 | 28 if may_fail => self.fail_soon(),
                _ if self.rng.bool() => self.clock.advance(Duration::from_micros(3)),
                _ => self.clock.set(Timestamp::from_micros(1_600_000_000_000_000)),
            }
        }
        self.disk.violations().into_iter().next().map_or(Ok(()), Err)
    }
}

#[test]
fn whatever_a_store_lives_through_what_was_acknowledged_is_there_when_it_opens() {
    let wanted = std::env::var("DICTDB_LIVES").ok().map(|range| {
        let (from, to) = range.split_once("..").expect("a range of lives as 7..9");
        from.parse().unwrap()..to.parse().unwrap()
    });
    let (mut commits, mut histories) = (0, 0);
    for seed in wanted.unwrap_or(LIVES) {
        let mut life = Life::new(seed);
        if let Err(wrong) = life.live() {
            let repeat = format!("DICTDB_LIVES={seed}..{} cargo test --test crash lives", seed + 1);
            panic!("{wrong}\n{repeat}\n{:?}\n{}", life.durability, life.told);
        }
        commits += life.points.len();
        histories += life.points.keys().map(|(lineage, _)| lineage).collect::<std::collections::BTreeSet<_>>().len();
    }
    println!("{commits} commits in {histories} histories");
}
