//! Work for all cores: jobs given out one by one, outcomes taken back in the same order.
//!
//! The thread that gives them out does some itself whenever enough wait, so that no core waits for another while there is
//! something to do. Where no other thread can be had it does them all.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// More threads than this wait for the reading.
const THREADS_MAX: usize = 8;
/// Beyond this many jobs given out and not taken back, whoever gives them out waits for the first.
const OUTCOMES_MAX: usize = 64;
/// Beyond this many bytes waiting jobs are done by whoever gives them out.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// How many threads a file of so many bytes is worth; one of `small` bytes is worth no other.
pub(crate) fn threads_for(file_bytes: u64, small: u64) -> usize {
    if file_bytes <= small { 1 } else { cores() }
}

/// How many threads are worth it at all.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX)
}

/// Does the same work on this thread and on others.
pub(crate) fn on_threads(name: &str, threads: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread this one does it all.
            let _ = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, &work);
        }
        work();
    });
}

/// Calls `body` with a pipeline whose jobs `work` does in so many threads, this one counted.
pub(crate) fn with_threads<J: Send, R: Send, T>(
    threads: usize,
    work: impl Fn(J) -> R + Sync,
    body: impl FnOnce(&mut Pipeline<'_, J, R>) -> T,
) -> T {
    let shared = Shared::default();
    thread::scope(|scope| {
        let _close = OnDrop(|| {
            shared.lock().is_closed = true;
            shared.given.notify_all();
        });
        let mut helpers = 0_usize;
        for _ in 1..threads {
            let thread = thread::Builder::new().name("dictdb-load".to_owned());
            let spawned = thread.spawn_scoped(scope, || shared.help(&work));
            helpers = helpers.saturating_add(usize::from(spawned.is_ok()));
        }
        // Each helper has the next job there when it has done one, and one more while this thread is busy itself.
        let waiting_max = helpers.saturating_mul(2);
        body(&mut Pipeline { shared: &shared, work: &work, waiting_max })
    })
}

/// Where jobs are given out and outcomes taken back.
pub(crate) struct Pipeline<'p, J, R> {
    shared: &'p Shared<J, R>,
    work: &'p dyn Fn(J) -> R,
    waiting_max: usize,
}

struct Shared<J, R> {
    jobs: Mutex<Jobs<J, R>>,
    /// A job was given out, or there will be none any more.
    given: Condvar,
    /// A job was done.
    done: Condvar,
}

struct Jobs<J, R> {
    /// Those nobody has begun, each with its number and its bytes.
    waiting: VecDeque<(usize, usize, J)>,
    waiting_bytes: usize,
    /// Outcomes that were not taken back yet, as far as they are there.
    outcomes: VecDeque<Option<R>>,
    /// The number of the first of them.
    taken: usize,
    /// To wake somebody is a call of the system, even where nobody waits: so many threads wait for a job.
    idle: usize,
    /// Whether the thread that gives them out waits for an outcome.
    is_awaited: bool,
    is_closed: bool,
    has_panicked: bool,
}

impl<J, R> Pipeline<'_, J, R> {
    /// Gives out a job of so many bytes.
    pub(crate) fn give(&mut self, bytes: usize, job: J) {
        let mut jobs = self.shared.lock();
        let number = jobs.taken.saturating_add(jobs.outcomes.len());
        jobs.outcomes.push_back(None);
        jobs.waiting_bytes = jobs.waiting_bytes.saturating_add(bytes);
        jobs.waiting.push_back((number, bytes, job));
        let is_wanted = jobs.idle > 0;
        drop(jobs);
        if is_wanted {
            self.shared.given.notify_one();
        }
    }

    /// The next outcome, if it is there by now.
    pub(crate) fn ready(&mut self) -> Option<R> {
        let mut jobs = self.shared.lock();
        while jobs.waiting.len() > self.waiting_max || jobs.waiting_bytes > WAITING_BYTES_MAX {
            jobs = self.shared.work_off(jobs, self.work);
        }
        if jobs.outcomes.len() > OUTCOMES_MAX {
            drop(jobs);
            return self.next();
        }
        jobs.take_back()
    }

    /// The next outcome; `None` where all were taken back.
    pub(crate) fn next(&mut self) -> Option<R> {
        let mut jobs = self.shared.lock();
        loop {
            if jobs.outcomes.is_empty() {
                return None;
            }
            if let Some(outcome) = jobs.take_back() {
                return Some(outcome);
            }
            assert!(!jobs.has_panicked, "a thread that helps has panicked");
            jobs = if jobs.waiting.is_empty() {
                jobs.is_awaited = true;
                let mut jobs = self.shared.done.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                jobs.is_awaited = false;
                jobs
            } else {
                self.shared.work_off(jobs, self.work)
            };
        }
    }
}

impl<J, R> Shared<J, R> {
    fn lock(&self) -> MutexGuard<'_, Jobs<J, R>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the job that has waited longest.
    fn work_off<'s>(
        &'s self,
        mut jobs: MutexGuard<'s, Jobs<J, R>>,
        work: &dyn Fn(J) -> R,
    ) -> MutexGuard<'s, Jobs<J, R>> {
        let Some((number, bytes, job)) = jobs.waiting.pop_front() else { return jobs };
        jobs.waiting_bytes = jobs.waiting_bytes.saturating_sub(bytes);
        drop(jobs);
        let outcome = work(job);
        let mut jobs = self.lock();
        let at = number.saturating_sub(jobs.taken);
        if let Some(place) = jobs.outcomes.get_mut(at) {
            *place = Some(outcome);
        }
        if jobs.is_awaited {
            self.done.notify_one();
        }
        jobs
    }

    /// Does jobs until there will be none any more.
    fn help(&self, work: &dyn Fn(J) -> R) {
        let _told = OnDrop(|| {
            if thread::panicking() {
                self.lock().has_panicked = true;
                self.done.notify_one();
            }
        });
        let mut jobs = self.lock();
        while !jobs.is_closed {
            jobs = if jobs.waiting.is_empty() {
                jobs.idle = jobs.idle.saturating_add(1);
                let mut jobs = self.given.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                jobs.idle = jobs.idle.saturating_sub(1);
                jobs
            } else {
                self.work_off(jobs, work)
            };
        }
    }
}

impl<J, R> Jobs<J, R> {
    fn take_back(&mut self) -> Option<R> {
        let outcome = self.outcomes.front_mut()?.take()?;
        self.outcomes.pop_front();
        self.taken = self.taken.saturating_add(1);
        Some(outcome)
    }
}

impl<J, R> Default for Shared<J, R> {
    fn default() -> Shared<J, R> {
        let jobs = Jobs {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            outcomes: VecDeque::new(),
            taken: 0,
            idle: 0,
            is_awaited: false,
            is_closed: false,
            has_panicked: false,
        };
        Shared { jobs: Mutex::new(jobs), given: Condvar::new(), done: Condvar::new() }
    }
}

/// Calls it at the end of the scope, however that is left.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_in_the_order_of_the_jobs_however_many_threads_do_them() {
        for threads in 1..6 {
            let work = |n: u64| {
                // Some take much longer than others.
                (0..n * 7919 % 300).for_each(|_| thread::yield_now());
                n * n
            };
            let outcomes = with_threads(threads, work, |pipeline| {
                let mut outcomes = Vec::new();
                for n in 0..200 {
                    pipeline.give(1, n);
                    outcomes.extend(pipeline.ready());
                }
                outcomes.extend(std::iter::from_fn(|| pipeline.next()));
                outcomes
            });
            assert!(outcomes.into_iter().eq((0..200).map(|n| n * n)), "{threads} threads");
        }
    }

    #[test]
    fn jobs_that_nobody_wants_any_more_are_not_waited_for() {
        let done = std::sync::atomic::AtomicUsize::new(0);
        let work = |()| done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        with_threads(3, work, |pipeline| (0..1_000).for_each(|_| pipeline.give(1, ())));
        assert!(done.into_inner() <= 1_000);
    }

    #[test]
    fn no_more_bytes_wait_than_the_limit_and_one_job() {
        let waiting = |pipeline: &Pipeline<'_, (), ()>| pipeline.shared.lock().waiting_bytes;
        with_threads(
            1,
            |()| (),
            |pipeline| {
                pipeline.waiting_max = usize::MAX;
                for _ in 0..20 {
                    pipeline.give(WAITING_BYTES_MAX / 3, ());
                    let _ = pipeline.ready();
                    assert!(waiting(pipeline) <= WAITING_BYTES_MAX);
                }
            },
        );
    }

    #[test]
    #[should_panic(expected = "a thread that helps has panicked")]
    fn a_panic_in_a_thread_that_helps_is_one_here_and_no_wait_without_end() {
        let here = thread::current().id();
        let helped = std::sync::atomic::AtomicBool::new(false);
        let work = |()| {
            helped.fetch_or(thread::current().id() != here, std::sync::atomic::Ordering::Relaxed);
            assert!(thread::current().id() == here, "only here");
        };
        with_threads(2, work, |pipeline| {
            pipeline.give(1, ());
            // It is there for the thread that helps.
            while !helped.load(std::sync::atomic::Ordering::Relaxed) {
                thread::yield_now();
            }
            while pipeline.next().is_some() {}
        });
    }
}
