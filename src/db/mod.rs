//! The database handle.

mod durable;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError, Weak};

use self::write::Writer;
use crate::clock::{Clock, SystemClock};
use crate::definition::TableDefinition;
use crate::error::{Error, Result};
use crate::file::name::Stamp;
use crate::history::{Digest, Lineage, Point, Seq, Timestamp};
use crate::limits::RING_PART_OF_RECORDS;
use crate::mutation::Commit;
use crate::ring::{Cursor, Ring, RingBytes, RingSlice, Unserved};
use crate::state::{Identity, State};
use crate::store::{Durability, OpenReport, Store};
use crate::table::Table;
use crate::transaction::Transaction;
use crate::typed::TypedTable;
use crate::view::Snapshot;

/// An in-memory database: tables of records by primary key, every change a commit of one log.
///
/// Cloning a handle is cheap and gives the same database; handles may be used from any number of threads. One writer
/// works at a time; readers never wait for a transaction. They wait while the commit of a single record is made, a
/// microsecond or two for a small one; once a reader had to, only while the record is put into its place, a fraction of
/// that, for as long as readers and the writer meet. And they wait while the records of one
/// [`insert_many`](Table::insert_many) are put in (more than 4,096, or of more than 1 MiB, are put in apart), and while a
/// dropped table is freed.
///
/// One made with [`new`](Self::new) lives in memory and ends with its last handle: what must survive is backed up with
/// [`BackupManager`](crate::BackupManager) or [`DictDb::save`], and comes back with [`restore`](crate::restore). One
/// that was [opened](Self::open) from a directory logs every commit there, and is there again at the next open.
///
/// ```
/// use dictdb::{record, DictDb};
/// let db = DictDb::new();
/// let users = db.create_table("users", "id")?;
/// let key = users.insert(record! { "name": "Ann", "age": 41 })?;
/// assert_eq!(users.get(&key)?.unwrap()["age"], 41);
/// # Ok::<(), dictdb::Error>(())
/// ```
#[derive(Clone)]
pub struct DictDb {
    /// Of a store; `None` for a handle of one of the store's own threads.
    _owner: Option<Arc<Owner>>,
    shared: Arc<Shared>,
}

/// What the handles that a program has share: with the last of them a store ends, whatever its own threads are doing.
struct Owner {
    shared: Weak<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade()
            && let Access::Store(store) = &shared.access
        {
            store.stop();
        }
    }
}

/// States given out for backups that are remembered. Of an older one a backup is a full one.
const GIVEN_OUT_MAX: usize = 1_024;

struct Shared {
    /// Held by whoever writes, for the whole of a transaction. Taken before `state`, `state` before `ring`.
    writer: Mutex<Writer>,
    /// What readers see. Changed only by the holder of `writer`.
    state: RwLock<State>,
    /// Always holds the commits up to at least `state.seq`, as far as it reaches back.
    ring: Mutex<Ring>,
    /// A reader has waited for the writer: so many commits to come keep out of the way of others.
    considerate: AtomicU32,
    /// Token of the thread inside a transaction's closure; 0 for none.
    in_transaction: AtomicUsize,
    clock: Arc<dyn Clock>,
    access: Access,
    /// The seq that the newest backup of a manager of this process holds, plus 1; 0 for none.
    backed_up: AtomicU64,
    /// Held while a backup gets its stamp and its state.
    given_out: Mutex<GivenOut>,
}

/// What backups were given.
#[derive(Default)]
struct GivenOut {
    /// The newest stamp in each directory.
    stamps: HashMap<PathBuf, Stamp>,
    /// The newest states.
    points: VecDeque<Point>,
}

/// What becomes of commits beyond memory.
pub(crate) enum Access {
    /// Nothing.
    Memory,
    /// They are logged.
    Store(Box<Store>),
    /// There are none.
    ReadOnly(Arc<OpenReport>),
}

/// A handle that does not keep the database, for a store's own threads.
#[derive(Clone)]
pub(crate) struct WeakDictDb {
    shared: Weak<Shared>,
}

impl WeakDictDb {
    pub(crate) fn upgrade(&self) -> Option<DictDb> {
        self.shared.upgrade().map(|shared| DictDb { _owner: None, shared })
    }
}

/// Settings of a database; see [`DictDb::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    ring_bytes: RingBytes,
    clock: Arc<dyn Clock>,
}

impl Builder {
    /// Bytes of the newest commits kept in memory for delta backups and change feeds. Unless said otherwise a tenth of the
    /// bytes of the records' values, at least 4 MiB and at most 64 MiB: where more has changed since the last backup, the next one
    /// is a full one. Memory is taken as commits come. 0 keeps none: every backup of something new is then a full one.
    pub fn ring_bytes(mut self, bytes: usize) -> Builder {
        self.ring_bytes = RingBytes::Fixed(bytes);
        self
    }

    /// Where times come from; the system's clock unless said otherwise.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Builder {
        self.clock = Arc::new(clock);
        self
    }

    /// An empty database with these settings, the beginning of a new history.
    pub fn build(self) -> DictDb {
        self.build_from(State::empty(Identity::fresh()))
    }

    pub(crate) fn build_from(self, state: State) -> DictDb {
        let ring = Ring::new(self.ring_bytes, state.seq);
        DictDb::assemble(state, ring, self.clock, Access::Memory)
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder { ring_bytes: RingBytes::OfRecords(RING_PART_OF_RECORDS), clock: Arc::new(SystemClock) }
    }
}

impl DictDb {
    /// An empty database with default settings, the beginning of a new history.
    #[expect(clippy::new_without_default, reason = "each call begins a new history; a default would hide that")]
    pub fn new() -> DictDb {
        DictDb::builder().build()
    }

    /// Settings for a database.
    ///
    /// ```
    /// let db = dictdb::DictDb::builder().ring_bytes(8 << 20).build();
    /// # let _ = db;
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn assemble(state: State, mut ring: Ring, clock: Arc<dyn Clock>, access: Access) -> DictDb {
        ring.fit(state.row_bytes());
        let is_store = matches!(access, Access::Store(_));
        let shared = Arc::new(Shared {
            writer: Mutex::default(),
            ring: Mutex::new(ring),
            state: RwLock::new(state),
            considerate: AtomicU32::new(0),
            in_transaction: AtomicUsize::new(0),
            clock,
            access,
            backed_up: AtomicU64::new(0),
            given_out: Mutex::default(),
        });
        let owner = is_store.then(|| Arc::new(Owner { shared: Arc::downgrade(&shared) }));
        DictDb { _owner: owner, shared }
    }

    pub(crate) fn downgrade(&self) -> WeakDictDb {
        WeakDictDb { shared: Arc::downgrade(&self.shared) }
    }

    pub(crate) fn store(&self) -> Option<&Store> {
        match &self.shared.access {
            Access::Store(store) => Some(store),
            Access::Memory | Access::ReadOnly(_) => None,
        }
    }

    /// Whether it is a store that was closed: another handle may go on with its history.
    pub(crate) fn is_closed(&self) -> bool {
        self.store().is_some_and(Store::is_given_back)
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.shared.access, Access::ReadOnly(_))
    }

    pub(crate) fn writable_store(&self) -> Result<&Store> {
        match &self.shared.access {
            Access::Store(store) => Ok(store),
            Access::ReadOnly(_) => Err(Error::ReadOnly),
            Access::Memory => Err(Error::Unsupported {
                what: "a database in memory has no checkpoints: open a store with DictDb::open, or use a BackupManager",
            }),
        }
    }

    /// A manager's backup holds everything up to `seq`.
    pub(crate) fn note_backup(&self, seq: Seq) {
        self.shared.backed_up.fetch_max(seq.get().saturating_add(1), Ordering::Relaxed);
    }

    /// A stamp for a backup into a directory, past `known` and past those that others into it got, and the state that it is
    /// to hold: of several managers' backups one of a later stamp holds no less. `None` where the stamps that a file can
    /// bear are used up.
    pub(crate) fn stamped_state(&self, dir: &Path, known: Option<Stamp>) -> Option<(Stamp, State)> {
        let wall = now(self);
        let mut given_out = self.given_out();
        let stamp = Stamp::next(wall, known.max(given_out.stamps.get(dir).copied()))?;
        i64::try_from(stamp.get()).ok()?;
        given_out.stamps.insert(dir.to_owned(), stamp);
        let state = self.read_in_passing().clone();
        given_out.points.push_back(state.point());
        if given_out.points.len() > GIVEN_OUT_MAX {
            given_out.points.pop_front();
        }
        Some((stamp, state))
    }

    /// Whether a backup that leads to this point can be of this database, should it be of its lineage. Beyond the point at
    /// which a store was opened it has to be of a state that this session gave out, or of this one.
    pub(crate) fn may_have_been_at(&self, point: Point) -> bool {
        let Some(opened) = self.open_report().map(|report| report.point) else { return true };
        if point.lineage != opened.lineage || point.seq < opened.seq {
            return true;
        }
        self.was_at(point)
    }

    /// Whether this session of a store is known to have stood there: at its open, for a backup, or now.
    pub(crate) fn was_at(&self, point: Point) -> bool {
        let was_opened_there = || self.open_report().is_some_and(|report| report.point == point);
        point == self.read_in_passing().point() || self.given_out().points.contains(&point) || was_opened_there()
    }

    /// Makes a table, as a commit of its own. A `&str` definition is the name of the primary key.
    ///
    /// # Errors
    /// [`Error::TableExists`], [`Error::InvalidDefinition`], [`Error::TooLarge`] for a name over 64 KiB; else as
    /// [`drop_table`](Self::drop_table), but for the first.
    pub fn create_table(&self, name: &str, definition: impl Into<TableDefinition>) -> Result<Table> {
        let definition = definition.into();
        self.write(|batch| batch.create_table(name, &definition))?;
        Ok(Table::new(self.clone(), name))
    }

    /// Drops a table with all its records, as a commit of its own. Costs what freeing them costs; a table made again
    /// under the name starts with its own definition and automatic keys from 1.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`]; [`Error::NestedWrite`], [`Error::Poisoned`], [`Error::Closed`], [`Error::ReadOnly`],
    /// [`Error::Exhausted`], as of every write.
    pub fn drop_table(&self, name: &str) -> Result<()> {
        self.write(|batch| batch.drop_table(name))
    }

    /// A handle of a table that exists.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn table(&self, name: &str) -> Result<Table> {
        match self.read().table(name) {
            Some(_) => Ok(Table::new(self.clone(), name)),
            None => Err(crate::batch::no_table(name)),
        }
    }

    /// A handle of a table that exists, for records of one Rust type.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn typed<T>(&self, name: &str) -> Result<TypedTable<T>> {
        self.table(name).map(TypedTable::new)
    }

    /// The names of all tables, in order.
    pub fn table_names(&self) -> Vec<String> {
        self.snapshot().table_names()
    }

    /// Runs `body` and commits all that it wrote as one commit, or nothing: on an error or a panic the database is as
    /// if it had never run. Other writers wait meanwhile; readers go on and see the state before it.
    ///
    /// Writes must go through `tx`: any other write to this database from inside `body` fails with
    /// [`Error::NestedWrite`] (and would wait forever if `body` made another thread do it and waited for that).
    ///
    /// Its first change to each part of a table copies that part's tree nodes.
    ///
    /// ```
    /// use dictdb::{record, DictDb, Error};
    /// let db = DictDb::new();
    /// let accounts = db.create_table("accounts", "id")?;
    /// accounts.insert_many([record! { "id": 1, "sum": 10 }, record! { "id": 2, "sum": 0 }])?;
    /// db.transaction(|tx| {
    ///     let accounts = tx.table("accounts")?;
    ///     accounts.update(1, record! { "sum": 3 })?;
    ///     accounts.update(2, record! { "sum": 7 })?;
    ///     Ok::<_, Error>(())
    /// })?;
    /// assert_eq!(accounts.get(2)?.unwrap()["sum"], 7);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// What `body` returns; [`Error::NestedWrite`], [`Error::Poisoned`], [`Error::Closed`], [`Error::ReadOnly`],
    /// [`Error::Exhausted`].
    pub fn transaction<T, E: From<Error>>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        self.transaction_in(None, body)
    }

    /// The same, with at least this durability: where it is stronger than that of the store
    /// ([`Options::durability`](crate::Options::durability)), the commit is synced before this returns; asking for less
    /// changes nothing. For a database that is not a store it is [`transaction`](Self::transaction).
    ///
    /// ```
    /// # use dictdb::{record, DictDb, Durability, Error, Options};
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path().join("data");
    /// let db = Options::new().durability(Durability::Manual).open(&dir)?;
    /// db.create_table("payments", "id")?;
    /// db.transaction_with(Durability::Sync, |tx| tx.table("payments")?.insert(record! { "sum": 12 }))?;
    /// assert_eq!(db.durability_report().synced, Some(db.seq()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`transaction`](Self::transaction).
    pub fn transaction_with<T, E: From<Error>>(
        &self,
        durability: Durability,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transaction_in(Some(durability), body)
    }

    fn transaction_in<T, E: From<Error>>(
        &self,
        durability: Option<Durability>,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.commit_on_copy(durability, |batch| {
            let transaction = Transaction::new(batch);
            let outcome = body(&transaction);
            (transaction.into_batch(), outcome)
        })
    }

    /// A frozen view of all tables, in constant time. See [`Snapshot`].
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.read().clone())
    }

    /// The seq of the newest commit.
    pub fn seq(&self) -> Seq {
        self.read().seq
    }

    /// The history that this database writes.
    pub fn lineage(&self) -> Lineage {
        self.read().identity.lineage
    }

    /// The point of another history that this one began at: set on a database that was restored or loaded, and on a store that
    /// was opened after it had not been closed.
    pub fn parent(&self) -> Option<Point> {
        self.read().identity.parent
    }

    /// The digest of the whole state, kept up to date by every write: a few hundred nanoseconds a table. See
    /// [`Digest`].
    pub fn digest(&self) -> Digest {
        // Not under the readers' lock: there may be very many tables.
        let state = self.read().clone();
        state.digest()
    }

    /// The commits after `seq`, oldest first: a change feed.
    ///
    /// Copies at most 256 KiB under a lock; the iterator decodes as it goes and sees no commit later than this call.
    ///
    /// ```
    /// use dictdb::{record, DictDb, Mutation};
    /// let db = DictDb::new();
    /// let seen = db.seq();
    /// db.create_table("users", "id")?.insert(record! { "id": 1 })?;
    /// let commits: Vec<_> = db.commits_since(seen)?.collect();
    /// assert_eq!(commits.len(), 2);
    /// assert!(matches!(commits[1].mutations[0], Mutation::Put { .. }));
    /// # Ok::<(), dictdb::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Gap`] where the ring no longer holds them all; [`Error::Ahead`] where `seq` has not been reached.
    pub fn commits_since(&self, seq: Seq) -> Result<Commits> {
        let last = self.seq();
        if seq > last {
            return Err(Error::Ahead { wanted: seq, last });
        }
        let slice = self.ring_slice(seq, last).map_err(|unserved| match unserved {
            Unserved::Gap { oldest } => Error::Gap { wanted: seq, oldest },
            Unserved::Ahead { last } => Error::Ahead { wanted: seq, last },
            Unserved::Unreadable => unreachable!("the log is not asked"),
        })?;
        Ok(Commits { slice, cursor: Cursor::default() })
    }

    /// As [`read`](Self::read), for the engine's own threads: they look seldom, and a writer takes no notice of it.
    pub(crate) fn read_in_passing(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic inside the engine poisons `writer`; what readers see is the last state that was complete enough to
        // be memory-safe, and they may go on.
        match self.shared.state.try_read() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.shared.considerate.store(write::CONSIDERATE_COMMITS, Ordering::Relaxed);
                self.read_in_passing()
            }
        }
    }

    pub(crate) fn ring_slice(&self, after: Seq, last: Seq) -> Result<RingSlice, Unserved> {
        self.ring().since(after, last)
    }

    /// The frames that lead from `after` to `state`: out of the ring, or else out of the log.
    pub(crate) fn frames(&self, after: Seq, state: &State) -> Result<RingSlice, Unserved> {
        match (self.ring_slice(after, state.seq), self.store()) {
            (Err(Unserved::Gap { .. }), Some(store)) => store.slice(state.identity.lineage, after, state.seq),
            (outcome, _) => outcome,
        }
    }

    pub(crate) fn ring_reaches_back_to(&self, seq: Seq) -> bool {
        self.ring().reaches_back_to(seq)
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    fn given_out(&self) -> MutexGuard<'_, GivenOut> {
        self.shared.given_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A panic in the middle of a write leaves nothing of it behind.
impl RefUnwindSafe for DictDb {}
impl UnwindSafe for DictDb {}

impl fmt::Debug for DictDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.read().clone();
        write!(f, "DictDb({} tables, {} records, {})", state.table_count(), state.record_count(), state.point())
    }
}

/// Commits of the log, decoded one by one; see [`DictDb::commits_since`].
#[derive(Clone)]
pub struct Commits {
    slice: RingSlice,
    cursor: Cursor,
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commits(after seq {}, up to seq {})", self.slice.after, self.slice.last)
    }
}

impl Iterator for Commits {
    type Item = Commit;

    fn next(&mut self) -> Option<Commit> {
        let frame = self.slice.next(&mut self.cursor)?;
        match Commit::decode(frame.seq, frame.payload) {
            Ok(commit) => Some(commit),
            Err(malformed) => unreachable!("a frame in the ring is valid: {malformed:?}"),
        }
    }
}

/// Time of a database's clock; for the layers above.
pub(crate) fn now(db: &DictDb) -> Timestamp {
    db.shared.clock.now()
}
