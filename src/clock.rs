//! Where the time comes from. Nothing below the backup manager and the database reads a clock: the time comes in
//! as an argument.
//!
//! There are two times, for two uses. The wall clock labels commits and files, and may jump either way; nothing is
//! ordered by it. The monotonic one drives the schedule of backups, and never falls.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::history::Timestamp;

/// A source of time. [`SystemClock`] is what programs run with, [`ManualClock`] what their tests run with.
pub trait Clock: Send + Sync + Debug {
    /// The wall clock: an annotation of commits and backups, which may jump forward and back.
    fn now(&self) -> Timestamp;

    /// The time since some fixed point of the clock's own choice. It never falls. Backups, and the thread of a
    /// store that syncs, take one that panics to stand still.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
///
/// The monotonic one counts from its first use in the process, as [`Instant`] does; on most systems it stands still
/// while the machine is suspended.
///
/// ```
/// use dictdb::{Clock, SystemClock};
/// let before = SystemClock.monotonic();
/// assert!(SystemClock.monotonic() >= before);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn monotonic(&self) -> Duration {
        static FIRST_USE: LazyLock<Instant> = LazyLock::new(Instant::now);
        FIRST_USE.elapsed()
    }
}

/// The monotonic time of a clock that may panic: then it stands still, and whoever goes by it breaks off nothing.
#[derive(Debug)]
pub(crate) struct SteadyClock {
    clock: Arc<dyn Clock>,
    /// The last time that it showed.
    last: Mutex<Duration>,
}

impl SteadyClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> SteadyClock {
        SteadyClock { clock, last: Mutex::default() }
    }

    pub(crate) fn monotonic(&self) -> Duration {
        let shown = catch_unwind(AssertUnwindSafe(|| self.clock.monotonic()));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match shown {
            // Another thread may have asked later and come here before.
            Ok(now) => *last = now.max(*last),
            Err(_) => tracing::error!("the clock panicked; it is taken to stand still"),
        }
        *last
    }
}

/// A clock that moves only when told to. Its clones are the same clock. It wakes nobody: the thread of a backup manager that
/// was started sleeps by the system's time, and looks at this one when that is over, or a change is notified.
///
/// ```
/// use dictdb::{Clock, ManualClock, Timestamp};
/// use std::time::Duration;
///
/// let clock = ManualClock::new(Timestamp::from_micros(1_000));
/// clock.advance(Duration::from_micros(5));
/// assert_eq!(clock.now(), Timestamp::from_micros(1_005));
/// assert_eq!(clock.monotonic(), Duration::from_micros(5));
///
/// clock.set(Timestamp::from_micros(7)); // somebody corrects the wall clock
/// assert_eq!(clock.now(), Timestamp::from_micros(7));
/// assert_eq!(clock.monotonic(), Duration::from_micros(5));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    time: Arc<Mutex<ManualTime>>,
}

#[derive(Clone, Copy, Debug)]
struct ManualTime {
    /// The wall clock as it was last set.
    wall: Timestamp,
    /// The monotonic time at which it was set. The wall clock now follows from the two, so that no fraction of a
    /// microsecond is lost over many small steps.
    wall_set_at: Duration,
    monotonic: Duration,
}

impl ManualClock {
    /// A clock whose wall shows `wall` and whose monotonic time is zero.
    pub fn new(wall: Timestamp) -> ManualClock {
        let time = ManualTime { wall, wall_set_at: Duration::ZERO, monotonic: Duration::ZERO };
        ManualClock { time: Arc::new(Mutex::new(time)) }
    }

    /// Sets the wall clock, forward or back. The monotonic time stays.
    pub fn set(&self, wall: Timestamp) {
        self.update(|time| (time.wall, time.wall_set_at) = (wall, time.monotonic));
    }

    /// Moves both clocks forward. They stop at the largest time that they can show.
    pub fn advance(&self, by: Duration) {
        self.update(|time| time.monotonic = time.monotonic.saturating_add(by));
    }

    fn update<T>(&self, change: impl FnOnce(&mut ManualTime) -> T) -> T {
        change(&mut self.time.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let time = self.update(|time| *time);
        let since = time.monotonic.saturating_sub(time.wall_set_at).as_micros();
        let micros = i128::from(time.wall.as_micros()).saturating_add_unsigned(since);
        Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.update(|time| time.monotonic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_never_falls_though_its_wall_clock_does() {
        let clock = ManualClock::new(Timestamp::from_micros(100));
        clock.advance(Duration::from_secs(1));
        clock.set(Timestamp::from_micros(-5));
        assert_eq!(clock.monotonic(), Duration::from_secs(1));
        clock.advance(Duration::from_micros(3));
        assert_eq!(clock.now(), Timestamp::from_micros(-2));
        assert_eq!(clock.monotonic(), Duration::new(1, 3_000));
    }

    #[test]
    fn clones_of_a_manual_clock_are_the_same_clock() {
        let clock = ManualClock::new(Timestamp::default());
        clock.clone().advance(Duration::from_micros(1));
        assert_eq!(clock.now(), Timestamp::from_micros(1));
    }

    #[test]
    fn steps_below_a_microsecond_add_up() {
        let clock = ManualClock::new(Timestamp::default());
        (0..4_000).for_each(|_| clock.advance(Duration::from_nanos(250)));
        assert_eq!(clock.now(), Timestamp::from_micros(1_000));
    }

    #[test]
    fn a_manual_clock_stops_at_the_end_of_time() {
        let clock = ManualClock::new(Timestamp::from_micros(i64::MIN));
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::from_micros(i64::MAX));
        assert_eq!(clock.monotonic(), Duration::MAX);
    }
}
