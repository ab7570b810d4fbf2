//! When to make a backup: a pure state machine. No thread, no clock, no lock; the time comes in as an argument.
//!
//! The rules, `interval` and `min` being the two intervals given to [`Schedule::new`]:
//! 1. **Periodic.** Due `interval` after [`start`](Schedule::start), and then `interval` after the end of each
//!    periodic attempt, successful or not (DictDB's `Event.wait(interval)` loop). Other attempts do not shift it.
//! 2. **Notified.** After [`notify`](Schedule::notify) a backup is due at once, but not before `min` has passed since
//!    the end of the last attempt of any cause. It is put off, never dropped; any number until then are one.
//! 3. A notification is satisfied by any attempt that begins after it, of whatever cause and outcome: one backup
//!    serves all that is due. One that comes while an attempt runs waits for the next. A failure does not make it due
//!    again, or a full disk would be tried every moment: the next periodic one retries, or `stop`.
//! 4. **Stop.** A notification still unsatisfied at [`stop`](Schedule::stop), or whose attempt failed, gets its backup
//!    there and then; one that the running attempt took, once that has failed.
//! 5. One attempt at a time: while one runs, nothing is due.
//!
//! Only rules 2 and 5 keep backups apart: periodic, stop and manual ones do not wait for `min`. An `interval` of zero
//! means back to back, each as soon as the one before has ended; a `min` of zero means at once. A time that lies past
//! what `Duration` holds, as after an interval of `Duration::MAX`, never comes.
//!
//! The owner keeps it under a lock, with a condition variable on which its thread waits as [`Step`] says, and which
//! every call that changes the schedule notifies.

use std::time::Duration;

/// Why a backup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The periodic one. Also where a notification is due at the same moment.
    Interval,
    /// A change was notified.
    Notified,
    /// A change was notified and not backed up when the schedule was stopped. Never comes out of the schedule, only in.
    Stop,
    /// Somebody asked for it. Comes in only, as well.
    Manual,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a backup, reported by [`Schedule::began`] and [`Schedule::finished`].
    Backup(Cause),
    /// Nothing before that moment, which is later than now; `None`: nothing until the schedule changes.
    WaitUntil(Option<Duration>),
}

/// When the next backup is due. Times count from any one fixed point.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    backup_interval: Duration,
    min_backup_interval: Duration,
    started: bool,
    /// `None`: not started, or never.
    periodic_due: Option<Duration>,
    /// A notification came that no attempt has begun after.
    notified: bool,
    /// A notification whose attempt failed: the next one that succeeds saves it, or the one at `stop`.
    unsaved: bool,
    /// Whether the running attempt took a notification with it.
    taken: bool,
    last_end: Option<Duration>,
    running: Option<Cause>,
}

impl Schedule {
    /// A schedule that is not started.
    pub(crate) fn new(backup_interval: Duration, min_backup_interval: Duration) -> Schedule {
        Schedule {
            backup_interval,
            min_backup_interval,
            started: false,
            periodic_due: None,
            notified: false,
            unsaved: false,
            taken: false,
            last_end: None,
            running: None,
        }
    }

    /// Counts the periodic backups from now on. What was notified before is due as ever.
    pub(crate) fn start(&mut self, now: Duration) {
        self.started = true;
        self.periodic_due = later(now, self.backup_interval);
    }

    /// Ends the schedule: nothing is due until it is started again. The caller waits while an attempt
    /// [is saving](Self::is_saving) a notification, and makes a backup where one [is pending](Self::is_pending) then.
    pub(crate) fn stop(&mut self) {
        self.started = false;
        self.periodic_due = None;
    }

    /// A change was made that wants a backup.
    pub(crate) fn notify(&mut self) {
        self.notified = true;
    }

    /// Whether a notification waits for a backup to begin, or for one that succeeds.
    pub(crate) fn is_pending(&self) -> bool {
        self.notified || self.unsaved
    }

    /// Whether the running attempt took a notification with it, which is pending again should it fail.
    pub(crate) fn is_saving(&self) -> bool {
        self.taken
    }

    /// What to do at `now`. Asking changes nothing.
    pub(crate) fn next(&self, now: Duration) -> Step {
        if !self.started || self.running.is_some() {
            return Step::WaitUntil(None);
        }
        let is_due = |due: Option<Duration>| due.is_some_and(|due| due <= now);
        let notified_due = self.notified_due();
        if is_due(self.periodic_due) {
            Step::Backup(Cause::Interval)
        } else if is_due(notified_due) {
            Step::Backup(Cause::Notified)
        } else {
            Step::WaitUntil([self.periodic_due, notified_due].into_iter().flatten().min())
        }
    }

    /// An attempt begins, before it looks at the data: all that was notified until now is in it.
    ///
    /// # Panics
    /// If another one runs: whose end would [`finished`](Self::finished) tell of?
    pub(crate) fn began(&mut self, cause: Cause) {
        assert!(self.running.is_none(), "a backup ({cause:?}) began while another one runs ({:?})", self.running);
        self.running = Some(cause);
        self.taken = std::mem::take(&mut self.notified);
    }

    /// What a notification means while the schedule is not started: its backup is made by the caller, or put off.
    pub(crate) fn inline_step(&self, now: Duration) -> Step {
        match self.notified_due() {
            Some(due) if due <= now => Step::Backup(Cause::Notified),
            due => Step::WaitUntil(due),
        }
    }

    /// The attempt that began failed or was cancelled: what was notified is still to be saved.
    ///
    /// # Panics
    /// If none runs.
    pub(crate) fn failed(&mut self, now: Duration) {
        let unsaved = self.unsaved | self.taken;
        self.finished(now);
        self.unsaved = unsaved;
    }

    /// The attempt that began found nothing to do: no backup was made that others must keep away from.
    ///
    /// # Panics
    /// If none runs.
    pub(crate) fn skipped(&mut self, now: Duration) {
        let last_end = self.last_end;
        self.finished(now);
        self.last_end = last_end;
    }

    /// The attempt that began has ended, successful or not. To be called whatever becomes of it, a panic included:
    /// until then nothing is due.
    ///
    /// # Panics
    /// If none runs.
    pub(crate) fn finished(&mut self, now: Duration) {
        let cause = self.running.take();
        assert!(cause.is_some(), "a backup ended that never began");
        self.last_end = Some(now);
        (self.unsaved, self.taken) = (false, false);
        if cause == Some(Cause::Interval) {
            self.periodic_due = later(now, self.backup_interval);
        }
    }

    fn notified_due(&self) -> Option<Duration> {
        match self.last_end {
            _ if !self.notified => None,
            Some(end) => later(end, self.min_backup_interval),
            None => Some(Duration::ZERO),
        }
    }
}

/// `None`: never. `Duration::MAX` itself counts as never, so that `Duration::MAX` after zero does, too.
fn later(from: Duration, by: Duration) -> Option<Duration> {
    from.checked_add(by).filter(|time| *time < Duration::MAX)
}

#[cfg(test)]
mod tests;
