//! One random sequence: operations, transactions, snapshots, feeds, backups and restores, each against the model.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dictdb::{
    BackupFormat, BackupKind, BackupManager, BackupReport, Compression, DictDb, DiskStorage, Error, Key, LoadOptions,
    ManualClock, MemoryStorage, Notified, Point, Promotion, RestoreOptions, RestoreReport, Seq, Snapshot, Storage,
    Table as Handle, Timestamp,
};
use fastrand::Rng;

use crate::operation::{Operation, known_key};
use crate::plain::{Model, assert_shows, assert_table_shows, same_outcome, same_record};
use crate::values::{Taste, Typed, once_in, pick};

/// How often what came up.
#[derive(Debug, Default)]
pub(crate) struct Counts(pub(crate) BTreeMap<String, u64>);

impl Counts {
    fn add(&mut self, what: &str, n: u64) {
        match self.0.get_mut(what) {
            Some(count) => *count += n,
            None => _ = self.0.insert(what.to_owned(), n),
        }
    }
}

/// Where a sequence's files are.
enum Files {
    Memory(MemoryStorage),
    Disk(tempfile::TempDir),
}

impl Files {
    fn dir(&self) -> &Path {
        match self {
            Files::Memory(_) => Path::new("/backups"),
            Files::Disk(dir) => dir.path(),
        }
    }

    fn restore(&self, options: RestoreOptions) -> (DictDb, RestoreReport) {
        let restored = match self {
            Files::Memory(memory) => options.storage(memory.clone()).restore(self.dir()),
            Files::Disk(_) => options.restore(self.dir()),
        };
        restored.unwrap()
    }

    fn load_options(&self) -> LoadOptions {
        match self {
            Files::Memory(memory) => LoadOptions::new().storage(memory.clone()),
            Files::Disk(_) => LoadOptions::new(),
        }
    }

    /// How many frames of the kind a binary file has.
    fn blocks_of_kind(&self, file: &Path, kind: u8) -> u64 {
        let opened = match self {
            Files::Memory(memory) => memory.open(file),
            Files::Disk(_) => DiskStorage.open(file),
        };
        let mut bytes = Vec::new();
        opened.unwrap().read_to_end(&mut bytes).unwrap();
        let mut frames = if bytes.starts_with(b"\x89DDB") { &bytes[128..] } else { &[] };
        let mut found = 0;
        while let Some((header, behind)) = frames.split_first_chunk::<32>() {
            found += u64::from(header[0] == kind);
            frames = &behind[u32::from_le_bytes(*header[4..].first_chunk().unwrap()) as usize..];
        }
        found
    }

    fn names(&self) -> Vec<PathBuf> {
        let entries = match self {
            Files::Memory(memory) => memory.list(self.dir()),
            Files::Disk(_) => DiskStorage.list(self.dir()),
        };
        let mut names: Vec<PathBuf> = entries.unwrap().into_iter().map(|entry| self.dir().join(entry.name)).collect();
        names.sort();
        names
    }
}

/// What the manager at hand was told.
#[derive(Clone, Copy, Debug)]
struct Settings {
    format: BackupFormat,
    compression: Compression,
    incremental: bool,
    max_deltas: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Now,
    Full,
    Delta,
    Automatic,
}

struct Sequence<'c> {
    random: Rng,
    taste: Taste,
    trace: bool,
    counts: &'c mut Counts,
    clock: ManualClock,
    db: DictDb,
    /// Whether the ring holds everything since the database was made or restored.
    ring_forgets_nothing: bool,
    handles: HashMap<String, Handle>,
    model: Model,
    /// Effective commits since the beginning.
    seq: u64,
    files: Files,
    manager: Option<BackupManager>,
    settings: Settings,
    /// The newest backup: the point, and the model then.
    newest: Option<(Point, Arc<Model>)>,
    /// Whether that lies in the history of `db`.
    continues: bool,
    fulls: Vec<(PathBuf, Point, Arc<Model>)>,
    /// The follower of the change feed.
    follower: (Model, Seq),
    held: Vec<(Snapshot, Arc<Model>)>,
    dropped: Vec<String>,
}

/// A panic of the tests' own, which the panic hook does not print.
struct OnPurpose;

/// Runs the sequence of this seed; panics where the database differs from the model.
pub(crate) fn run(seed: u64, trace: bool, counts: &mut Counts) {
    let mut random = Rng::with_seed(seed);
    let taste = Taste { non_finite: once_in(&mut random, 8) };
    let clock = ManualClock::new(Timestamp::from_micros(random.i64(-10_000_000..2_000_000_000_000_000)));
    let on_disk = seed % 200 == 199;
    let files = if on_disk {
        counts.add("sequences on disk", 1);
        Files::Disk(tempfile::tempdir().unwrap())
    } else {
        Files::Memory(MemoryStorage::new())
    };
    let (ring_bytes, ring_forgets_nothing) = ring(&mut random);
    let db = DictDb::builder().ring_bytes(ring_bytes).clock(clock.clone()).build();
    let (format, compression) = (BackupFormat::Json, Compression::None);
    let settings = Settings { format, compression, incremental: false, max_deltas: 0 };
    let mut sequence = Sequence {
        random,
        taste,
        trace,
        counts,
        clock,
        db,
        ring_forgets_nothing,
        handles: HashMap::new(),
        model: Model::default(),
        seq: 0,
        files,
        manager: None,
        settings,
        newest: None,
        continues: false,
        fulls: Vec::new(),
        follower: (Model::default(), Seq::ZERO),
        held: Vec::new(),
        dropped: Vec::new(),
    };
    sequence.note(&format_args!("ring of {ring_bytes} bytes, {taste:?}, on disk: {on_disk}"));
    let steps = sequence.random.usize(5..70);
    for _ in 0..steps {
        sequence.step();
    }
    sequence.finish();
}

fn ring(random: &mut Rng) -> (usize, bool) {
    match random.u8(0..8) {
        0 => (0, false),
        1 => (random.usize(1..200), false),
        2 | 3 => (random.usize(200..6_000), false),
        _ => (64 << 20, true),
    }
}

impl Sequence<'_> {
    fn note(&self, what: &dyn Debug) {
        if self.trace {
            println!("seq {}: {what:?}", self.seq);
        }
    }

    fn once_in(&mut self, n: u32) -> bool {
        once_in(&mut self.random, n)
    }

    fn step(&mut self) {
        if self.once_in(6) {
            self.turn_clock();
        }
        match self.random.u8(0..100) {
            0..52 => self.operation(),
            52..66 => self.transaction(),
            66..72 => self.read(),
            72..75 => self.hold_snapshot(),
            75..79 => self.feed(),
            79..96 => self.back_up(),
            96 => {
                self.close_manager();
                self.counts.add("managers made anew", 1);
            }
            97 => self.go_on_from_restore(),
            98 => self.go_on_from_load(),
            _ => self.save_and_load(),
        }
        assert_eq!(self.db.seq(), Seq::new(self.seq), "commits counted");
    }

    fn turn_clock(&mut self) {
        let times = [-86_400_000_000, -1, 0, 1, 1_700_000_000_000_000, 253_402_300_799_000_000, i64::MIN];
        match self.random.u8(0..3) {
            0 => self.clock.set(Timestamp::from_micros(*pick(&mut self.random, &times))),
            1 => self.clock.set(Timestamp::from_micros(self.random.i64(0..2_000_000_000_000_000))),
            _ => self.clock.advance(Duration::from_micros(self.random.u64(0..20_000_000))),
        }
    }

    fn operation(&mut self) {
        let operation = Operation::random(&mut self.random, &self.model, self.taste);
        self.note(&operation);
        self.counts.add("operations", 1);
        let takes_new_handle = self.once_in(2);
        if let (true, Operation::Act(name, _)) = (takes_new_handle, &operation) {
            self.handles.remove(name);
        }
        let asks_for_keys = operation.asks_for_keys(&self.model);
        let mut after = self.model.clone();
        let expected = operation.on_model(&mut after, true);
        let found = operation.on_database(&self.db, &mut self.handles);
        match (expected, found) {
            (Ok(expected), Ok(found)) => {
                assert!(same_outcome(&expected, &found), "{operation:?} gave {found:?}, not {expected:?}");
                self.count_done(&operation, asks_for_keys);
                self.model = after;
                let seq = self.db.seq().get();
                let nothing_done = matches!(found, crate::plain::Outcome::Deleted(false))
                    || matches!(&found, crate::plain::Outcome::Keys(keys) if keys.is_empty());
                self.seq += u64::from(!nothing_done);
                assert_eq!(seq, self.seq, "{operation:?} is one commit, or none where it changes nothing");
            }
            (Err(why), Err(error)) => {
                let found = crate::plain::Why::of(&error);
                assert!(why.contains(&found), "{operation:?} was refused with {error}, not for {why:?}");
                self.counts.add(&format!("operations refused: {found:?}"), 1);
            }
            (expected, found) => panic!("{operation:?} gave {found:?}, not {expected:?}"),
        }
        if self.once_in(8) {
            assert_shows(&self.db.snapshot(), &self.model, "after an operation");
        }
    }

    fn count_done(&mut self, operation: &Operation, asks_for_keys: bool) {
        match operation {
            Operation::Create(name, _) if self.dropped.contains(name) => self.counts.add("tables made again", 1),
            Operation::Drop(name) => self.dropped.push(name.clone()),
            Operation::Typed(..) => self.counts.add("typed operations", 1),
            _ => {}
        }
        if asks_for_keys {
            self.counts.add("automatic keys", 1);
        }
    }

    fn transaction(&mut self) {
        #[derive(Clone, Copy, Debug)]
        enum End {
            Commit,
            Fail,
            Panic,
        }
        #[derive(Debug)]
        struct Stopped;
        impl From<Error> for Stopped {
            fn from(error: Error) -> Stopped {
                panic!("the transaction itself failed: {error}")
            }
        }
        let end = *pick(&mut self.random, &[End::Commit, End::Commit, End::Fail, End::Panic]);
        let count = self.random.usize(0..8);
        let nested = self.once_in(8);
        self.note(&format_args!("transaction of {count}, to end in {end:?}"));
        let before = (self.db.seq(), self.db.digest());
        let mut after = self.model.clone();
        let mut mutated = false;
        let (db, random, taste, trace) = (self.db.clone(), &mut self.random, self.taste, self.trace);
        let mut refused_nested = 0;
        let mut dropped = Vec::new();
        let body = |tx: &dictdb::Transaction<'_>| -> Result<(), Stopped> {
            for _ in 0..count {
                let operation = Operation::random(random, &after, taste);
                if trace {
                    println!("    {operation:?}");
                }
                let found = operation.on_transaction(tx);
                let insert_many =
                    matches!(&operation, Operation::Act(_, crate::plain::Action::InsertMany(_)) | Operation::Typed(..));
                match (operation.on_model(&mut after, false), found) {
                    (Ok(expected), Ok(found)) => {
                        assert!(same_outcome(&expected, &found), "{operation:?} gave {found:?}, not {expected:?}");
                        use crate::plain::Outcome;
                        let nothing = matches!(&found, Outcome::Deleted(false))
                            || matches!(&found, Outcome::Keys(keys) if keys.is_empty());
                        mutated |= !nothing;
                        if let Operation::Drop(name) = operation {
                            dropped.push(name);
                        }
                    }
                    (Err(why), Err(error)) => {
                        let found = crate::plain::Why::of(&error);
                        assert!(why.contains(&found), "{operation:?} was refused with {error}, not for {why:?}");
                        // The records before the one that did not fit stay.
                        mutated |= insert_many;
                    }
                    (expected, found) => panic!("{operation:?} gave {found:?}, not {expected:?}"),
                }
                if once_in(random, 3) {
                    assert!(tx.table_names().iter().eq(after.tables.keys()), "tables in the transaction");
                    for (name, table) in &after.tables {
                        let view = tx.table(name).unwrap();
                        assert_eq!(view.len().unwrap(), table.rows.len());
                        assert!(
                            view.iter().unwrap().zip(&table.rows).all(|((k, r), (l, s))| k == *l && same_record(&r, s))
                        );
                        let key = known_key(random, Some(table));
                        assert_eq!(view.contains_key(&key).unwrap(), table.rows.contains_key(&key));
                    }
                }
            }
            if nested {
                assert!(matches!(db.create_table("nested", "id"), Err(Error::NestedWrite)));
                assert!(matches!(db.transaction(|_| Ok::<_, Error>(())), Err(Error::NestedWrite)));
                refused_nested += 1;
            }
            // Nothing is seen outside.
            assert_eq!((db.seq(), db.digest()), before, "readers see the state before the transaction");
            match end {
                End::Commit => Ok(()),
                End::Fail => Err(Stopped),
                End::Panic => resume_unwind(Box::new(OnPurpose)),
            }
        };
        let result = catch_unwind(AssertUnwindSafe(|| self.db.transaction(body)));
        self.counts.add("operations", count as u64);
        self.counts.add("nested writes refused", refused_nested);
        match result {
            Ok(Ok(())) => {
                self.counts.add("transactions committed", 1);
                self.dropped.append(&mut dropped);
                self.model = after;
                let seq = self.db.seq().get();
                // Where only a refused insert_many may have done something, the database knows.
                assert!(seq == self.seq || (mutated && seq == self.seq + 1), "one commit, or none for nothing");
                if seq == self.seq {
                    assert_eq!(self.db.digest(), before.1);
                }
                self.seq = seq;
            }
            Ok(Err(Stopped)) => {
                self.counts.add("transactions failed", 1);
                assert_eq!((self.db.seq(), self.db.digest()), before, "a failed transaction leaves nothing");
            }
            Err(panic) if panic.is::<OnPurpose>() => {
                self.counts.add("transactions panicked", 1);
                assert_eq!((self.db.seq(), self.db.digest()), before, "a panic in a transaction leaves nothing");
            }
            Err(panic) => resume_unwind(panic),
        }
        assert_shows(&self.db.snapshot(), &self.model, "after a transaction");
    }

    /// Single reads, ranges from both ends, typed reads.
    fn read(&mut self) {
        let names: Vec<String> = self.model.tables.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = pick(&mut self.random, &names);
        let table = &self.model.tables[name];
        let handle = self.db.table(name).unwrap();
        let (from, to) = (known_key(&mut self.random, Some(table)), known_key(&mut self.random, Some(table)));
        match (handle.get(&from).unwrap(), table.rows.get(&from)) {
            (Some(found), Some(wanted)) => assert!(same_record(&found, wanted)),
            (found, wanted) => assert!(found.is_none() && wanted.is_none(), "{from}: {found:?}, not {wanted:?}"),
        }
        let typed = self.db.typed::<Typed>(name).unwrap();
        for (entry, key) in typed.iter().unwrap().zip(table.rows.keys()) {
            if let Ok((found, value)) = entry {
                assert_eq!(found, *key);
                let (record, wanted) = (value.to_record(), &table.rows[key]);
                assert_eq!((record.get("name"), record.get("tags")), (wanted.get("name"), wanted.get("tags")));
            }
        }
        let wanted: Vec<&Key> = table.rows.keys().filter(|key| (&from..=&to).contains(key)).collect();
        let mut records = handle.range(from.clone()..=to.clone()).unwrap();
        let (mut front, mut back) = (Vec::new(), Vec::new());
        loop {
            let (from_front, side) =
                if self.random.bool() { (true, records.next()) } else { (false, records.next_back()) };
            match side {
                Some((key, _)) if from_front => front.push(key),
                Some((key, _)) => back.push(key),
                None => break,
            }
        }
        assert!(records.next().is_none() && records.next_back().is_none(), "an iterator that ended stays ended");
        let found: Vec<&Key> = front.iter().chain(back.iter().rev()).collect();
        assert_eq!(found, wanted, "range {from}..={to} from both ends");
        let half_open = handle.range(from.clone()..to.clone()).unwrap().map(|(key, _)| key);
        assert!(half_open.eq(table.rows.keys().filter(|key| (&from..&to).contains(key)).cloned()));
    }

    fn hold_snapshot(&mut self) {
        if self.held.len() >= 4 {
            let at = self.random.usize(0..self.held.len());
            let (snapshot, model) = self.held.swap_remove(at);
            assert_shows(&snapshot, &model, "a snapshot held across writes");
        }
        self.counts.add("snapshots held", 1);
        self.held.push((self.db.snapshot(), Arc::new(self.model.clone())));
    }

    /// Brings the follower up to date by the change feed.
    fn feed(&mut self) {
        let ahead = self.db.commits_since(Seq::new(self.seq + 1));
        assert!(matches!(ahead, Err(Error::Ahead { .. })), "{ahead:?}");
        let (follower, seen) = &mut self.follower;
        match self.db.commits_since(*seen) {
            Ok(commits) => {
                for commit in commits {
                    assert_eq!(commit.seq.get(), seen.get() + 1, "the feed has no holes");
                    *seen = commit.seq;
                    follower.follow(&commit);
                }
                assert_eq!(seen.get(), self.seq, "the feed reaches the newest commit");
                assert_shows(&self.db.snapshot(), follower, "the follower of the feed");
                for (name, table) in &self.model.tables {
                    assert_eq!(follower.tables[name].next_key, table.next_key, "automatic key of the follower");
                }
                self.counts.add("feeds replayed", 1);
            }
            Err(Error::Gap { wanted, oldest }) => {
                assert!(!self.ring_forgets_nothing, "a large ring forgets nothing");
                assert!(wanted == *seen && oldest.get() > seen.get() + 1, "gap from {wanted} to {oldest}");
                self.counts.add("feed gaps", 1);
                self.follow_from_here();
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn follow_from_here(&mut self) {
        self.follower = (self.model.clone(), self.db.seq());
    }

    fn manager(&mut self) -> &BackupManager {
        if self.manager.is_none() {
            let random = &mut self.random;
            let (format, compression) = *pick(
                random,
                &[
                    (BackupFormat::Json, Compression::None),
                    (BackupFormat::Json, Compression::None),
                    (BackupFormat::Binary, Compression::None),
                    (BackupFormat::Binary, Compression::Lz4),
                ],
            );
            self.settings =
                Settings { format, compression, incremental: !once_in(random, 3), max_deltas: random.u32(0..5) };
            let mut builder = BackupManager::builder(&self.db, self.files.dir())
                .file_format(self.settings.format)
                .compression(self.settings.compression)
                .incremental(self.settings.incremental)
                .max_deltas_before_full(self.settings.max_deltas)
                .min_backup_interval(Duration::from_secs(*pick(random, &[0, 5])));
            if let Files::Memory(memory) = &self.files {
                builder = builder.storage(memory.clone());
            }
            let manager = builder.build().unwrap();
            self.note(&self.settings);
            let last = manager.status().last_success.map(|last| last.seq);
            let wanted = self.newest.as_ref().filter(|_| self.continues).map(|(point, _)| point.seq);
            assert_eq!(last, wanted, "a new manager goes on with this history's chain, and with no other");
            self.manager = Some(manager);
        }
        self.manager.as_ref().unwrap()
    }

    fn back_up(&mut self) {
        let asked = *pick(&mut self.random, &[Asked::Now, Asked::Now, Asked::Full, Asked::Delta, Asked::Automatic]);
        self.note(&asked);
        self.manager();
        let manager = self.manager.take().unwrap();
        let deltas = manager.deltas_since_full();
        let failures = manager.consecutive_failures();
        let files = self.files.names();
        let report = match asked {
            Asked::Now => manager.backup_now(),
            Asked::Full => manager.backup_full(),
            Asked::Delta => manager.backup_delta(),
            Asked::Automatic => match manager.notify_change() {
                Ok(Notified::BackedUp(report)) => {
                    self.counts.add("notified changes backed up", 1);
                    Ok(*report)
                }
                Ok(Notified::Unchanged) => {
                    let covered = self.newest.as_ref().is_some_and(|(point, _)| point.seq.get() == self.seq);
                    assert!(covered && self.continues, "a change was taken for backed up");
                    self.manager = Some(manager);
                    return;
                }
                Ok(Notified::Deferred) => {
                    self.counts.add("notified changes deferred", 1);
                    assert!(manager.status().change_pending);
                    self.manager = Some(manager);
                    return;
                }
                Ok(other) => panic!("a manager that does not run said {other:?}"),
                Err(error) => Err(error),
            },
        };
        match report {
            Ok(report) => {
                assert_eq!(manager.consecutive_failures(), 0);
                let delta = report.kind == BackupKind::Delta;
                assert_eq!(manager.deltas_since_full(), if delta { deltas + 1 } else { 0 }, "{report}");
                assert_eq!(manager.status().pending_commits, 0);
                self.check(&report, asked, deltas);
            }
            Err(error) => {
                assert_eq!(manager.consecutive_failures(), failures + 1);
                assert_eq!(self.files.names(), files, "a failed backup leaves no file");
                self.refused(&error);
            }
        }
        self.manager = Some(manager);
    }

    fn refused(&mut self, error: &Error) {
        let not_representable = matches!(error, Error::NotRepresentable { .. });
        assert!(not_representable && self.settings.format == BackupFormat::Json, "{error}");
        assert!(self.model.has_non_finite(), "nothing speaks against JSON, yet: {error}");
        self.counts.add("backups refused: not representable", 1);
    }

    /// A backup was made: is it of the right kind, does it join, and does it restore?
    fn check(&mut self, report: &BackupReport, asked: Asked, deltas: u32) {
        self.note(&format_args!("{report}"));
        let Settings { format, compression, incremental, max_deltas } = self.settings;
        self.counts.add("backups", 1);
        self.counts.add(&format!("{}s {format}", report.kind), 1);
        assert_eq!(report.seq.get(), self.seq);
        let base = self.newest.as_ref().filter(|_| self.continues).map(|(point, _)| point.seq);
        let wants_delta = match asked {
            Asked::Full => false,
            Asked::Delta => true,
            Asked::Now | Asked::Automatic => incremental && deltas < max_deltas,
        };
        let from_empty = self.newest.is_none() && format == BackupFormat::Binary && self.db.parent().is_none();
        let joins = base.is_some() || from_empty;
        match report.kind {
            BackupKind::Delta => {
                assert!(wants_delta && joins, "nobody asked for a delta, or it has nothing to join onto: {report}");
                assert_eq!(report.base_seq, Some(base.unwrap_or(Seq::ZERO)), "deltas chain without a hole");
                assert_eq!(report.promoted, None);
                assert_eq!(report.commits, self.seq - base.unwrap_or(Seq::ZERO).get());
                if report.commits == 0 {
                    self.counts.add("empty deltas", 1);
                }
            }
            BackupKind::Full => {
                assert_eq!(report.promoted.is_some(), wants_delta, "a promotion is told, and nothing else: {report}");
                if let Some(why) = report.promoted {
                    self.counts.add(&format!("promotions: {why:?}"), 1);
                    let right = if joins && base.is_some() { why == Promotion::Gap } else { why == Promotion::NoChain };
                    assert!(right, "{report}");
                    assert!(
                        !(self.ring_forgets_nothing && joins),
                        "a large ring still held what the delta needs: {report}"
                    );
                }
                assert_eq!(report.records, self.model.tables.values().map(|t| t.rows.len() as u64).sum::<u64>());
                assert!(format == BackupFormat::Binary || !self.model.has_non_finite(), "JSON holds no NaN");
                assert_eq!(report.bridge_failure, None);
                let lies_between = base.is_some_and(|base| base.get() < self.seq);
                if self.ring_forgets_nothing && lies_between && incremental {
                    assert!(report.bridge.is_some(), "a bridge leads over to the full backup: {report}");
                }
            }
        }
        let point = self.db.snapshot().point();
        let model = Arc::new(self.model.clone());
        if report.kind == BackupKind::Full {
            let compressed = self.files.blocks_of_kind(&report.file, 6);
            assert!(compression == Compression::Lz4 || compressed == 0, "nobody asked for compression: {report}");
            self.counts.add("compressed blocks", compressed);
            self.counts.add("blocks", compressed + self.files.blocks_of_kind(&report.file, 3));
            self.fulls.push((report.file.clone(), point, model.clone()));
        }
        self.newest = Some((point, model));
        self.continues = true;
        let restored = self.files.restore(RestoreOptions::new());
        self.check_restored(&restored, "restored");
        assert!(!restored.1.fell_back && restored.1.damaged.is_empty(), "{}", restored.1);
        if restored.1.full.is_none() {
            self.counts.add("restores from the empty database", 1);
        }
        if self.once_in(4) {
            self.chain_by_hand(&restored.1);
        }
        self.check_automatic_keys(&restored.0);
        if let Some(bridge) = &report.bridge {
            self.counts.add("bridges", 1);
            assert!(self.files.names().contains(bridge));
            self.cross_bridge(&report.file);
        }
    }

    fn check_restored(&mut self, (db, report): &(DictDb, RestoreReport), what: &str) {
        self.counts.add("restores", 1);
        let (point, model) = self.newest.as_ref().unwrap();
        assert_eq!(report.point, *point, "{what}: {report}");
        assert_eq!(db.parent(), Some(*point), "{what}");
        assert_eq!((db.seq(), db.digest()), (point.seq, point.digest), "{what}");
        assert_shows(&db.snapshot(), model, what);
    }

    /// A restored database gives the automatic keys that the live one would give next. Writes to the restored one.
    fn check_automatic_keys(&mut self, restored: &DictDb) {
        let (_, model) = self.newest.as_ref().unwrap();
        for (name, table) in &model.tables {
            let inserted = restored.table(name).unwrap().insert(table.fitting_without_key());
            if table.gives_automatic_keys() {
                assert_eq!(inserted.unwrap(), Key::Int(table.next_key as i64), "automatic key of {name:?}");
            } else {
                assert!(
                    matches!(inserted, Err(Error::Exhausted { .. } | Error::SchemaViolation { .. })),
                    "{inserted:?}"
                );
            }
        }
    }

    /// The same files, loaded and applied one by one, give the same database.
    fn chain_by_hand(&mut self, report: &RestoreReport) {
        let options = self.files.load_options();
        let db = match &report.full {
            Some(full) => DictDb::load_with(full, &options).unwrap(),
            None => DictDb::new(),
        };
        for delta in &report.deltas {
            db.apply_delta_with(delta, &options).unwrap();
        }
        let (point, model) = self.newest.as_ref().unwrap();
        assert_eq!((db.seq(), db.digest()), (point.seq, point.digest), "the chain applied by hand");
        assert_shows(&db.snapshot(), model, "the chain applied by hand");
        self.counts.add("chains by hand", 1);
    }

    /// With the newest full backup damaged, the older ones and the bridge still lead to the same point.
    fn cross_bridge(&mut self, full: &Path) {
        let Files::Memory(memory) = &self.files else { return };
        let damaged = MemoryStorage::new();
        for path in memory.paths() {
            let mut bytes = memory.read(&path).unwrap();
            if path == full {
                let at = self.random.usize(0..bytes.len());
                bytes[at] ^= 1 << self.random.u8(0..8);
            }
            damaged.write(path, bytes).unwrap();
        }
        let restored = RestoreOptions::new().storage(damaged).restore(self.files.dir()).unwrap();
        self.check_restored(&restored, "restored across a bridge");
        assert!(restored.1.fell_back, "{}", restored.1);
        self.counts.add("bridges restored across a damaged full backup", 1);
    }

    /// Stops the manager, which finishes a change that was notified and deferred.
    fn close_manager(&mut self) {
        let Some(manager) = self.manager.take() else { return };
        let deltas = manager.deltas_since_full();
        match manager.stop() {
            Ok(Some(report)) => self.check(&report, Asked::Automatic, deltas),
            Ok(None) => {}
            Err(error) => {
                self.refused(&error);
                // Dropping it must not write behind our back either.
                let files = self.files.names();
                drop(manager);
                assert_eq!(self.files.names(), files);
            }
        }
    }

    /// The process is lost, with what was not backed up; the restored database goes on in the same directory.
    fn go_on_from_restore(&mut self) {
        self.close_manager();
        let Some((point, model)) = self.newest.clone() else { return };
        let (ring_bytes, ring_forgets_nothing) = ring(&mut self.random);
        let builder = DictDb::builder().ring_bytes(ring_bytes).clock(self.clock.clone());
        let restored = self.files.restore(RestoreOptions::new().database(builder));
        self.check_restored(&restored, "restored to go on from");
        self.note(&format_args!("{}, goes on with a ring of {ring_bytes} bytes", restored.1));
        if point.seq.get() < self.seq {
            self.counts.add("restores that lost commits", 1);
        }
        self.counts.add("restores to go on from", 1);
        self.replace_database(restored.0, (*model).clone(), ring_forgets_nothing);
        self.continues = true;
    }

    /// A full backup, perhaps an older one, is loaded by name; the database goes on in the same directory.
    fn go_on_from_load(&mut self) {
        self.close_manager();
        if self.fulls.is_empty() {
            return;
        }
        let (file, point, model) = pick(&mut self.random, &self.fulls).clone();
        let (ring_bytes, ring_forgets_nothing) = ring(&mut self.random);
        let builder = DictDb::builder().ring_bytes(ring_bytes).clock(self.clock.clone());
        let db = DictDb::load_with(&file, &self.files.load_options().database(builder)).unwrap();
        self.note(&format_args!("loaded {file:?}, goes on with a ring of {ring_bytes} bytes"));
        assert_eq!((db.parent(), db.digest()), (Some(point), point.digest));
        assert_shows(&db.snapshot(), &model, "loaded");
        self.counts.add("loads to go on from", 1);
        self.replace_database(db, (*model).clone(), ring_forgets_nothing);
        self.continues = self.newest.as_ref().is_some_and(|(newest, _)| *newest == point);
        if !self.continues {
            self.counts.add("loads of an older full backup", 1);
        }
    }

    fn replace_database(&mut self, db: DictDb, model: Model, ring_forgets_nothing: bool) {
        self.seq = db.seq().get();
        (self.db, self.model, self.ring_forgets_nothing) = (db, model, ring_forgets_nothing);
        self.handles.clear();
        self.follow_from_here();
    }

    /// `save` and `load` of a single file, which know only the real disk.
    fn save_and_load(&mut self) {
        let Files::Disk(dir) = &self.files else { return };
        let format = *pick(&mut self.random, &[BackupFormat::Json, BackupFormat::Binary]);
        let aside = tempfile::tempdir_in(dir.path()).unwrap();
        let file = aside.path().join("saved");
        match self.db.save(&file, format) {
            Ok(bytes) => {
                assert_eq!(std::fs::metadata(&file).unwrap().len(), bytes);
                let loaded = DictDb::load(&file).unwrap();
                assert_eq!((loaded.seq(), loaded.digest()), (self.db.seq(), self.db.digest()));
                assert_shows(&loaded.snapshot(), &self.model, "saved and loaded");
                self.counts.add("saves and loads", 1);
            }
            Err(error) => {
                assert!(matches!(error, Error::NotRepresentable { .. }) && format == BackupFormat::Json, "{error}");
                assert!(self.model.has_non_finite() && !file.exists());
            }
        }
    }

    fn finish(mut self) {
        self.close_manager();
        assert_shows(&self.db.snapshot(), &self.model, "in the end");
        for (name, table) in &self.model.tables {
            assert_table_shows(&self.db.table(name).unwrap().view().unwrap(), table, "in the end");
        }
        for (snapshot, model) in &self.held {
            assert_shows(snapshot, model, "a snapshot held to the end");
        }
        assert_eq!(self.model.rebuild().digest(), self.db.digest(), "the digest of the same data in a fresh database");
        self.counts.add("sequences", 1);
    }
}
