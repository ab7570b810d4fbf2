//! Group commit without a thread: many writers, one write, one sync.
//!
//! Whoever commits appends its frame to the pending bytes, and then waits until the log has come as far as it needs.
//! The first to wait finds the sink there and takes it: it leads. It takes all that is pending, writes it, syncs it if
//! it needs to, puts the sink back and wakes those whose frames these were, and one of those who came meanwhile: that one
//! leads next. The first failure is kept: whoever waits for what was not reached gets it, and nothing more is appended.
//!
//! Waking a thread only for it to wait again costs more than all the rest, so that the waiters of the group that is
//! being written and those of the next one wait in different rooms, and nobody is woken while the lock is held.
//!
//! `Mutex` and `Condvar` come from the module above, so that the same lines run under a model checker.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering, PoisonError};

/// Where a group's bytes go.
pub(crate) trait Sink {
    /// What may be said of a place between two frames: here the log's segment ends.
    type Mark;
    /// Why it could not.
    type Error;

    /// Writes frames, each whole in one of the buffers; each mark stands at an offset in all their bytes, in rising order.
    /// `last` is the last frame's seq. For the goal `Synced` a sync follows.
    fn write(
        &mut self,
        buffers: &[Vec<u8>],
        marks: Vec<(usize, Self::Mark)>,
        last: u64,
        goal: Goal,
    ) -> Result<(), Self::Error>;

    /// Makes all that was written durable.
    fn sync(&mut self) -> Result<(), Self::Error>;

    /// What is told where one of the two panicked.
    fn panicked() -> Self::Error;
}

/// How far a waiter needs the log to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Goal {
    /// Handed to the operating system.
    Written,
    /// Durable.
    Synced,
}

/// How far a log has come, by the seqs of its commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) appended: u64,
    pub(crate) written: u64,
    pub(crate) synced: u64,
}

/// A log that many write and one at a time leads.
pub(crate) struct Group<S: Sink> {
    queue: Mutex<Queue<S>>,
    /// Where one waits for a turn to end: even turns, odd turns.
    rooms: [Room; 2],
    /// `synced` of the queue, for those who do not want to wait for its lock. Never ahead of it.
    synced: AtomicU64,
    /// 1 where there is a failure, for the same.
    broken: AtomicU64,
}

/// To wake somebody is a call of the system, even where nobody waits.
struct Room {
    woken: Condvar,
    /// Those who wait, or were woken a moment ago. Changed under the queue's lock, and read there.
    waiting: AtomicU64,
}

impl Room {
    fn new() -> Room {
        Room { woken: Condvar::new(), waiting: AtomicU64::new(0) }
    }

    fn wait<'q, Q>(&self, queue: MutexGuard<'q, Q>) -> MutexGuard<'q, Q> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let queue = self.woken.wait(queue).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        queue
    }

    /// For a moment when the queue is locked: whoever comes later sees what it has become.
    fn has_some(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

struct Queue<S: Sink> {
    /// Frames not written yet, how many bytes they are, and the marks between them.
    pending: Vec<Vec<u8>>,
    bytes: usize,
    marks: Vec<(usize, S::Mark)>,
    /// Empty buffers.
    spare: Vec<Vec<u8>>,
    reached: Reached,
    /// Where it is not here, somebody leads.
    sink: Option<S>,
    /// Counts those who led. The newest of them writes up to this seq, and for this goal.
    turn: u64,
    leading: (u64, Goal),
    failed: Option<Arc<S::Error>>,
}

/// The bytes of the first buffer, and the most of one, where no frame needs more: each is as large as all before it. None
/// grows, for whoever commits at that moment would copy what others have appended, into memory that the system has yet to
/// find.
const BUFFER_BYTES_MIN: usize = 16 << 10;
const BUFFER_BYTES_MAX: usize = 512 << 10;
/// Empty buffers kept while more frames come, and while none do.
const SPARES_MAX: usize = 64;
const IDLE_SPARES_MAX: usize = 2;

impl<S: Sink> Queue<S> {
    fn push(&mut self, frame: &[u8]) {
        let fits = |buffer: &Vec<u8>| buffer.capacity().saturating_sub(buffer.len()) >= frame.len();
        if !self.pending.last().is_some_and(fits) {
            let spare = self.spare.iter().rposition(fits).map(|at| self.spare.swap_remove(at));
            let bytes = self.bytes.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX).max(frame.len());
            self.pending.push(spare.unwrap_or_else(|| Vec::with_capacity(bytes)));
        }
        if let Some(buffer) = self.pending.last_mut() {
            buffer.extend_from_slice(frame);
            self.bytes = self.bytes.saturating_add(frame.len());
        }
    }

    /// Takes back the buffers of frames that were written. Returns those that are not worth keeping, to be freed without the
    /// lock.
    fn give_back(&mut self, mut buffers: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        buffers.iter_mut().for_each(Vec::clear);
        // One that a large frame needed is not kept.
        let is_usual = |buffer: &mut Vec<u8>| buffer.capacity() < BUFFER_BYTES_MAX.saturating_mul(2);
        self.spare.extend(buffers.extract_if(.., is_usual));
        let max = if self.pending.is_empty() { IDLE_SPARES_MAX } else { SPARES_MAX };
        // The newest are the largest.
        let too_many = self.spare.len().saturating_sub(max);
        buffers.extend(self.spare.drain(..too_many));
        buffers
    }
}

impl<S: Sink> Group<S> {
    /// A log that is durable up to `synced`. Frames behind it may be pending already.
    pub(crate) fn new(sink: S, synced: u64) -> Group<S> {
        let reached = Reached { appended: synced, written: synced, synced };
        let queue = Queue {
            pending: Vec::new(),
            bytes: 0,
            marks: Vec::new(),
            spare: Vec::new(),
            reached,
            sink: Some(sink),
            turn: 0,
            leading: (synced, Goal::Synced),
            failed: None,
        };
        Group {
            queue: Mutex::new(queue),
            rooms: [Room::new(), Room::new()],
            synced: AtomicU64::new(synced),
            broken: AtomicU64::new(0),
        }
    }

    /// Appends the frame of commit `seq`, and the mark behind it where `mark` gives one for the bytes pending then.
    /// Gives how many bytes are pending. Refused after a failure.
    pub(crate) fn append(
        &self,
        seq: u64,
        frame: &[u8],
        mark: impl FnOnce() -> Option<S::Mark>,
    ) -> Result<usize, Arc<S::Error>> {
        let mut queue = self.lock();
        if let Some(failed) = &queue.failed {
            return Err(Arc::clone(failed));
        }
        queue.push(frame);
        queue.reached.appended = seq;
        let pending = queue.bytes;
        if let Some(mark) = mark() {
            queue.marks.push((pending, mark));
        }
        Ok(pending)
    }

    /// Does `work` before the first frame is appended, while nobody leads yet. Refused after a failure, and is one.
    pub(crate) fn prepare(&self, work: impl FnOnce(&mut S) -> Result<(), S::Error>) -> Result<(), Arc<S::Error>> {
        let mut queue = self.lock();
        if let Some(failed) = &queue.failed {
            return Err(Arc::clone(failed));
        }
        let Some(sink) = &mut queue.sink else { return Ok(()) };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(sink))).unwrap_or_else(|_| Err(S::panicked()));
        outcome.map_err(|error| self.fail(&mut queue, error))
    }

    /// The first failure, if there was one.
    pub(crate) fn failure(&self) -> Option<Arc<S::Error>> {
        if self.broken.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.lock().failed.clone()
    }

    /// How far the log is.
    pub(crate) fn reached(&self) -> Reached {
        self.lock().reached
    }

    /// A seq up to which the log is durable: the newest but for a moment.
    pub(crate) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Returns once the log has come as far as `goal` up to `seq`, or has failed before. Leads if nobody does.
    pub(crate) fn reach(&self, seq: u64, goal: Goal) -> Result<(), Arc<S::Error>> {
        let mut queue = self.lock();
        loop {
            let done = match goal {
                Goal::Written => queue.reached.written,
                Goal::Synced => queue.reached.synced,
            };
            if done >= seq {
                return Ok(());
            }
            if let Some(failed) = &queue.failed {
                return Err(Arc::clone(failed));
            }
            queue = match queue.sink.take() {
                Some(sink) => {
                    if self.lead(queue, sink, goal)? >= seq {
                        return Ok(());
                    }
                    self.lock()
                }
                None => {
                    let (last, leads_to) = queue.leading;
                    let in_this_turn = seq <= last && goal <= leads_to;
                    let turn = if in_this_turn { queue.turn } else { queue.turn.wrapping_add(1) };
                    self.room(turn).wait(queue)
                }
            };
        }
    }

    /// Writes what is pending, and tells everybody what became of it, whatever that is. Gives the seq reached.
    fn lead(&self, mut queue: MutexGuard<'_, Queue<S>>, mut sink: S, goal: Goal) -> Result<u64, Arc<S::Error>> {
        let buffers = mem::take(&mut queue.pending);
        let marks = mem::take(&mut queue.marks);
        queue.bytes = 0;
        let last = queue.reached.appended;
        let turn = queue.turn.wrapping_add(1);
        queue.turn = turn;
        queue.leading = (last, goal);
        drop(queue);

        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if !buffers.is_empty() {
                sink.write(&buffers, marks, last, goal)?;
            }
            if goal == Goal::Synced { sink.sync() } else { Ok(()) }
        }));

        let mut queue = self.lock();
        let outcome = match outcome.unwrap_or_else(|_| Err(S::panicked())) {
            Ok(()) => {
                queue.reached.written = last;
                if goal == Goal::Synced {
                    queue.reached.synced = last;
                    self.synced.store(last, Ordering::Release);
                }
                Ok(last)
            }
            Err(error) => Err(self.fail(&mut queue, error)),
        };
        let _freed_without_the_lock = queue.give_back(buffers);
        queue.sink = Some(sink);
        let (this, next) = (self.room(turn), self.room(turn.wrapping_add(1)));
        let (in_this, in_next) = (this.has_some(), next.has_some());
        drop(queue);
        if in_this {
            this.woken.notify_all();
        }
        match &outcome {
            _ if !in_next => {}
            Ok(_) => next.woken.notify_one(),
            Err(_) => next.woken.notify_all(),
        }
        outcome
    }

    /// Nothing is appended from here on. The caller wakes both rooms.
    fn fail(&self, queue: &mut Queue<S>, error: S::Error) -> Arc<S::Error> {
        let error = Arc::new(error);
        queue.failed = Some(Arc::clone(&error));
        self.broken.store(1, Ordering::Release);
        error
    }

    fn room(&self, turn: u64) -> &Room {
        let [even, odd] = &self.rooms;
        if turn.is_multiple_of(2) { even } else { odd }
    }

    /// Ends the log: later appends get `why`, and the sink is handed out, unless somebody ended or broke it before.
    pub(crate) fn end(&self, why: S::Error) -> Result<S, Arc<S::Error>> {
        let mut queue = self.lock();
        loop {
            if let Some(failed) = &queue.failed {
                return Err(Arc::clone(failed));
            }
            match queue.sink.take() {
                Some(sink) => {
                    self.fail(&mut queue, why);
                    drop(queue);
                    self.rooms.iter().for_each(|room| room.woken.notify_all());
                    return Ok(sink);
                }
                None => {
                    let next = queue.turn.wrapping_add(1);
                    queue = self.room(next).wait(queue);
                }
            }
        }
    }

    /// Nothing panics while it is held but an allocation, and every change under it is complete in itself.
    fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
