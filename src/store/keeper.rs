//! Threads of a store, where there have to be any: one that writes what commits leave to it, which is all of them but for
//! `Durability::Sync`, and under `Interval` syncs it; and one that writes checkpoints for an automatic policy. Both end
//! with the last handle, or with `close`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::SteadyClock;
use crate::db::{DictDb, WeakDictDb};
use crate::error::{Error, Result, catch_panics};
use crate::file::store_name::StoreFile;
use crate::limits::UNSYNCED_BYTES;
use crate::state::State;
use crate::store::{Durability, MEASURED_BYTES_MIN, Store};

/// A thread that waits to be woken, and ends when told to.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Signal {
    state: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    work: bool,
    /// Without a pause before it.
    now: bool,
    stop: bool,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` once the thread is to end.
    fn wait(&self) -> bool {
        let idle = |wanted: &mut Wanted| !wanted.work && !wanted.stop;
        let mut wanted = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        wanted.work = false;
        !wanted.stop
    }

    /// Lets time pass, unless the thread is to end or to hurry.
    fn pause(&self, time: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |wanted| !wanted.stop && !wanted.now);
        waited.unwrap_or_else(PoisonError::into_inner).0.now = false;
    }
}

impl Keeper {
    pub(crate) fn wake(&self, now: bool) {
        let mut wanted = self.signal.lock();
        wanted.work = true;
        wanted.now |= now;
        drop(wanted);
        self.signal.changed.notify_all();
    }

    /// Ends the thread and waits for it: at most as long as what it is doing takes.
    pub(crate) fn stop(&self) {
        self.signal.lock().stop = true;
        self.signal.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("a thread of the store panicked");
        }
    }

    fn start(
        &self,
        name: &str,
        db: WeakDictDb,
        mut round: impl FnMut(&DictDb, &Store, &Pause) + Send + 'static,
    ) -> Result<()> {
        let signal = Arc::clone(&self.signal);
        let run = move || {
            let pause = Pause { signal: Arc::clone(&signal) };
            while signal.wait() {
                // Only while there is work does the thread hold the database.
                let Some(db) = db.upgrade() else { return };
                if let Some(store) = db.store() {
                    // Checkpoints are the user's storage at work; that it panics is no reason to make no more of them.
                    let round = AssertUnwindSafe(|| round(&db, store, &pause));
                    if catch_unwind(round).is_err() {
                        tracing::error!("the storage panicked; the store's thread goes on");
                    }
                }
            }
        };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = spawned.map_err(Error::io("start a thread for", std::path::Path::new(name)))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }
}

struct Pause {
    signal: Arc<Signal>,
}

/// The threads that a store's settings call for.
#[derive(Debug)]
pub(crate) struct Keepers {
    syncer: Keeper,
    checkpointer: Keeper,
    /// The log's bytes behind the newest checkpoint at which `checkpointer` next looks whether one is due.
    look_at: AtomicU64,
    /// Those at which one that failed is tried again, whoever woke the thread meanwhile; 0 behind none that failed.
    retry_at: AtomicU64,
}

impl Default for Keepers {
    fn default() -> Keepers {
        Keepers {
            syncer: Keeper::default(),
            checkpointer: Keeper::default(),
            look_at: AtomicU64::new(u64::MAX),
            retry_at: AtomicU64::new(0),
        }
    }
}

impl Keepers {
    /// There is something to sync, or so much that it must not wait for its time.
    pub(crate) fn wake_syncer(&self, now: bool) {
        self.syncer.wake(now);
    }

    pub(crate) fn log_grew(&self, log_bytes: u64) {
        if log_bytes >= self.look_at.load(Ordering::Relaxed) {
            self.look_at.store(u64::MAX, Ordering::Relaxed);
            self.checkpointer.wake(false);
        }
    }

    /// A checkpoint was written, by whomever: that earlier ones failed is no reason to wait any longer.
    pub(crate) fn checkpointed(&self) {
        self.retry_at.store(0, Ordering::Relaxed);
        self.look_at.store(0, Ordering::Relaxed);
    }

    pub(crate) fn stop_checkpoints(&self) {
        self.checkpointer.stop();
    }

    /// The syncer last: a checkpoint may take long to break off.
    pub(crate) fn stop(&self) {
        self.checkpointer.stop();
        self.syncer.stop();
    }
}

/// Segments at which a checkpoint is written whatever their size: many short sessions leave many short segments.
const SEGMENTS_MAX: usize = 64;

pub(crate) fn start(db: &DictDb) -> Result<()> {
    let Some(store) = db.store() else { return Ok(()) };
    let every = match store.durability {
        Durability::Sync => None,
        Durability::Interval(every) => Some(every),
        // Only what has gathered wakes it, and that is not to wait.
        Durability::Manual => Some(Duration::ZERO),
    };
    if let Some(every) = every {
        let mut last: Option<Duration> = None;
        // What the segment had at the last sync.
        let mut synced = 0_u64;
        // One that panics must not leave what waits to be synced to a round that nobody wakes.
        let clock = SteadyClock::new(Arc::clone(db.clock()));
        store.keepers.syncer.start("dictdb-sync", db.downgrade(), move |_, store, pause| {
            // What waits now came after the last sync was begun.
            let since = last.map_or(Duration::ZERO, |last| clock.monotonic().saturating_sub(last));
            pause.signal.pause(every.saturating_sub(since));
            last = Some(clock.monotonic());
            store.mark_synced();
            let filled = store.filled();
            if filled < synced {
                // Another segment: it began with a sync of the one before.
                synced = 0;
            }
            // What nobody has asked to be durable is only handed over, but for a sync now and then.
            let is_enough = filled.saturating_sub(synced) >= UNSYNCED_BYTES;
            let done = if store.durability == Durability::Manual && !is_enough {
                store.write_out()
            } else {
                synced = filled;
                store.sync()
            };
            if let Err(error) = done {
                // Kept by the log: every later write and `close` tell it.
                tracing::error!("the log cannot be written: {error}");
            }
        })?;
    }
    if store.policy.is_automatic() {
        let mut probe = None;
        store.keepers.checkpointer.start("dictdb-checkpoint", db.downgrade(), move |db, store, _| {
            checkpoint_round(db, store, &mut probe);
        })?;
        store.keepers.checkpointer.wake(false);
    }
    Ok(())
}

fn checkpoint_round(db: &DictDb, store: &Store, probe: &mut Option<State>) {
    let look_every = || match store.replay_rate() {
        Some(_) => store.policy.look_every(),
        // While a copy of the state waits to be measured, every change beside it costs a copy, too.
        None => store.policy.look_every().min(MEASURED_BYTES_MIN),
    };
    // Also where what follows breaks off.
    store.keepers.look_at.store(store.log_bytes().saturating_add(look_every()), Ordering::Relaxed);
    if store.replay_rate().is_none() {
        *probe = match probe.take() {
            None => Some(db.read_in_passing().clone()),
            Some(state) => measure(db, store, state),
        };
    }
    let many = || store.files(StoreFile::Log).is_ok_and(|count| count > SEGMENTS_MAX);
    let log_bytes = store.log_bytes();
    let mut next = look_every();
    if log_bytes > 0
        && log_bytes >= store.keepers.retry_at.load(Ordering::Relaxed)
        && (store.checkpoint_due() || many())
        && let Err(error) = catch_panics("write a checkpoint in", store.place.dir(), || db.checkpoint())
        && !matches!(error, Error::Closed)
    {
        tracing::error!("no checkpoint could be written: {error}");
        // Not at every look: what hinders it may take long to mend, and each try costs a snapshot.
        next = next.max(store.log_bytes() / 4);
        store.keepers.retry_at.store(store.log_bytes().saturating_add(next), Ordering::Relaxed);
    }
    store.keepers.look_at.store(store.log_bytes().saturating_add(next), Ordering::Relaxed);
}

/// Replays what was committed since `state` onto it, and notes how fast that went; gives the state back where that was
/// too little to tell.
fn measure(db: &DictDb, store: &Store, mut state: State) -> Option<State> {
    let now = db.read_in_passing().clone();
    let slice = db.frames(state.seq, &now).ok()?;
    drop(now);
    if (slice.bytes() as u64) < MEASURED_BYTES_MIN {
        return Some(state);
    }
    let started = db.clock().monotonic();
    let mut bytes = 0_u64;
    for frame in slice.frames() {
        state.apply(frame.seq, frame.payload).ok()?;
        bytes = bytes.saturating_add(frame.whole.len() as u64);
        // What it makes is thrown away, and is memory until then.
        if bytes >= MEASURED_BYTES_MIN {
            break;
        }
    }
    let seconds = db.clock().monotonic().saturating_sub(started).as_secs_f64();
    store.set_replay_rate(bytes as f64 / seconds.max(1e-9));
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use crate::storage::MemoryStorage;
    use crate::{CheckpointPolicy, Durability, Options, record};

    #[test]
    fn behind_a_checkpoint_by_hand_automatic_ones_come_as_ever_however_long_failures_had_put_them_off() {
        let options = Options::new().storage(MemoryStorage::new()).durability(Durability::Manual);
        let db = options.checkpoint(CheckpointPolicy::automatic().log_bytes(64 << 10)).open("dir").unwrap();
        let table = db.create_table("t", "id").unwrap();
        let text = "x".repeat(1_000);
        let checkpoint = || db.durability_report().checkpoint;
        let until_a_checkpoint_behind = |last| {
            for _ in 0..50_000 {
                table.insert(record! { "text": text.as_str() }).unwrap();
                if checkpoint() > last {
                    return;
                }
                std::thread::yield_now();
            }
            panic!("none in 50 MB of log");
        };
        until_a_checkpoint_behind(None);
        let keepers = &db.store().unwrap().keepers;
        // It sets this last in a round.
        while keepers.look_at.load(Ordering::Relaxed) == u64::MAX {
            std::thread::yield_now();
        }
        // As behind failures while the log grew long.
        keepers.look_at.store(1 << 40, Ordering::Relaxed);
        keepers.retry_at.store(1 << 40, Ordering::Relaxed);
        table.insert(record! {}).unwrap();
        db.checkpoint().unwrap();
        until_a_checkpoint_behind(checkpoint());
    }

    /// Until then it holds a copy of the state, beside which every change costs a copy.
    #[test]
    fn a_store_soon_knows_how_fast_it_replays_however_small_its_ring() {
        let options = Options::new().storage(MemoryStorage::new()).durability(Durability::Manual).ring_bytes(0);
        let db = options.checkpoint(CheckpointPolicy::automatic()).open("dir").unwrap();
        let table = db.create_table("t", "id").unwrap();
        let text = "x".repeat(1_000);
        let mut commits = 0;
        while db.store().unwrap().replay_rate().is_none() {
            for _ in 0..100 {
                table.insert(record! { "text": text.as_str() }).unwrap();
            }
            commits += 100;
            assert!(commits < 50_000, "not after 50 MB of log");
            std::thread::yield_now();
        }
    }
}
