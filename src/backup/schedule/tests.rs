//! Every rule of the schedule, and every sequence of events up to a length.

use super::*;

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const NEVER: Step = Step::WaitUntil(None);

fn until(seconds: u64) -> Step {
    Step::WaitUntil(Some(at(seconds)))
}

/// A backup every 300 s, notified ones 10 s apart; started at 0.
fn started() -> Schedule {
    let mut schedule = Schedule::new(at(300), at(10));
    schedule.start(at(0));
    schedule
}

fn attempt(schedule: &mut Schedule, cause: Cause, end: Duration) {
    schedule.began(cause);
    schedule.finished(end);
}

#[test]
fn a_notified_change_whose_backup_failed_is_made_up_for_by_stop_or_the_next_success() {
    let second = Duration::from_secs(1);
    let mut schedule = Schedule::new(second * 100, second);
    schedule.start(Duration::ZERO);
    schedule.notify();
    schedule.began(Cause::Notified);
    schedule.failed(second);
    assert!(schedule.is_pending());
    assert_eq!(schedule.next(second * 50), Step::WaitUntil(Some(second * 100)), "not tried every moment");
    let mut stopped = schedule.clone();
    stopped.stop();
    stopped.began(Cause::Stop);
    stopped.failed(second * 50);
    assert!(stopped.is_pending(), "that one failed too");
    attempt(&mut stopped, Cause::Stop, second * 51);
    assert!(!stopped.is_pending());
    schedule.began(Cause::Interval);
    schedule.finished(second * 100);
    assert!(!schedule.is_pending());
}

#[test]
fn periodic_backups_are_counted_from_the_start_and_from_the_end_of_each() {
    let mut s = started();
    assert_eq!(s.next(at(0)), until(300));
    assert_eq!(s.next(at(299)), until(300));
    assert_eq!(s.next(at(300)), Step::Backup(Cause::Interval));
    attempt(&mut s, Cause::Interval, at(340));
    assert_eq!(s.next(at(340)), until(640));
}

#[test]
fn other_backups_do_not_shift_the_periodic_ones() {
    for cause in [Cause::Manual, Cause::Notified] {
        let mut s = started();
        attempt(&mut s, cause, at(100));
        assert_eq!(s.next(at(100)), until(300));
    }
}

#[test]
fn the_first_notification_is_due_at_once() {
    let mut s = started();
    s.notify();
    assert_eq!(s.next(at(1)), Step::Backup(Cause::Notified));
}

#[test]
fn notifications_close_together_are_put_off_and_become_one() {
    let mut s = started();
    attempt(&mut s, Cause::Manual, at(20));
    for second in 21..30 {
        s.notify();
        assert_eq!(s.next(at(second)), until(30));
    }
    assert_eq!(s.next(at(30)), Step::Backup(Cause::Notified));
    attempt(&mut s, Cause::Notified, at(31));
    assert!(!s.is_pending());
    assert_eq!(s.next(at(41)), until(300));
}

#[test]
fn a_notification_during_a_backup_waits_for_the_next_one() {
    let mut s = started();
    s.notify();
    s.began(Cause::Notified);
    assert!(!s.is_pending());
    s.notify();
    assert_eq!(s.next(at(3)), NEVER, "one at a time");
    s.finished(at(5));
    assert!(s.is_pending());
    assert_eq!(s.next(at(5)), until(15));
    assert_eq!(s.next(at(15)), Step::Backup(Cause::Notified));
}

#[test]
fn one_backup_serves_all_that_is_due() {
    let mut s = started();
    s.notify();
    assert_eq!(s.next(at(300)), Step::Backup(Cause::Interval));
    attempt(&mut s, Cause::Interval, at(301));
    assert_eq!(s.next(at(301)), until(601));
}

#[test]
fn a_periodic_backup_does_not_wait_for_the_minimum_and_takes_the_notification_along() {
    let mut s = started();
    attempt(&mut s, Cause::Manual, at(298));
    s.notify();
    assert_eq!(s.next(at(299)), until(300));
    assert_eq!(s.next(at(300)), Step::Backup(Cause::Interval));
    s.began(Cause::Interval);
    assert!(!s.is_pending());
}

#[test]
fn a_periodic_backup_that_falls_due_during_a_manual_one_follows_it() {
    let mut s = started();
    s.began(Cause::Manual);
    assert_eq!(s.next(at(300)), NEVER);
    s.finished(at(305));
    assert_eq!(s.next(at(305)), Step::Backup(Cause::Interval));
}

#[test]
fn a_stop_ends_the_schedule_and_leaves_what_was_notified_pending() {
    let mut s = started();
    s.stop();
    assert!(!s.is_pending());
    s.start(at(1));
    attempt(&mut s, Cause::Manual, at(2));
    s.notify(); // inside the minimum interval
    s.stop();
    assert_eq!(s.next(at(1_000)), NEVER);
    assert!(s.is_pending() && !s.is_saving());
    attempt(&mut s, Cause::Stop, at(3));
    assert!(!s.is_pending());
}

#[test]
fn what_a_running_backup_took_with_it_is_known_to_be_pending_or_not_once_that_has_ended() {
    let mut s = started();
    s.notify();
    s.began(Cause::Notified);
    s.stop();
    assert!(s.is_saving() && !s.is_pending());
    let mut failed = s.clone();
    failed.failed(at(3));
    assert!(!failed.is_saving() && failed.is_pending());
    s.finished(at(3));
    assert!(!s.is_saving() && !s.is_pending());
    s.began(Cause::Manual);
    assert!(!s.is_saving(), "nothing was notified since");
    s.notify();
    assert!(!s.is_saving() && s.is_pending(), "it began without");
}

#[test]
fn a_schedule_starts_again_after_a_stop() {
    let mut s = started();
    s.began(Cause::Interval);
    s.stop();
    s.finished(at(400));
    assert_eq!(s.next(at(700)), NEVER, "the end of a periodic attempt does not start it again");
    s.start(at(800));
    assert_eq!(s.next(at(800)), until(1_100));
}

#[test]
fn what_is_notified_while_stopped_is_due_at_the_start() {
    let mut s = Schedule::new(at(300), at(10));
    s.notify();
    assert_eq!(s.next(at(5)), NEVER);
    s.start(at(6));
    assert_eq!(s.next(at(6)), Step::Backup(Cause::Notified));
}

#[test]
fn an_interval_of_zero_means_back_to_back() {
    let mut s = Schedule::new(at(0), at(0));
    s.start(at(7));
    for _ in 0..3 {
        assert_eq!(s.next(at(7)), Step::Backup(Cause::Interval));
        attempt(&mut s, Cause::Interval, at(7)); // the time does not move
    }
}

#[test]
fn an_interval_without_end_never_comes_and_nothing_overflows() {
    let last = Duration::MAX - Duration::from_nanos(1);
    for start in [at(0), at(1), last, Duration::MAX] {
        let mut s = Schedule::new(Duration::MAX, Duration::MAX);
        s.start(start);
        assert_eq!(s.next(Duration::MAX), NEVER);
        s.notify();
        assert_eq!(s.next(start), Step::Backup(Cause::Notified), "the first has nothing to wait for");
        attempt(&mut s, Cause::Notified, start);
        s.notify();
        assert_eq!(s.next(Duration::MAX), NEVER);
        s.stop();
        assert!(s.is_pending(), "put off for ever, and still not dropped");
    }
}

#[test]
#[should_panic(expected = "while another one runs")]
fn two_backups_at_once_are_a_bug_of_the_caller() {
    let mut s = started();
    s.began(Cause::Manual);
    s.began(Cause::Manual);
}

#[test]
#[should_panic(expected = "never began")]
fn the_end_of_what_never_began_is_a_bug_of_the_caller() {
    started().finished(at(1));
}

/// What can happen to a schedule.
#[derive(Clone, Copy, Debug)]
enum Event {
    Tick,
    Notify,
    /// The thread asks, and begins what it is told to.
    Poll,
    /// A manual backup begins.
    Manual,
    Finish,
    Fail,
    Start,
    /// Ends the schedule, waits for an attempt that took a notification with it, and makes the backup of what is
    /// pending then.
    Stop,
}

const EVENTS: [Event; 8] =
    [Event::Tick, Event::Notify, Event::Poll, Event::Manual, Event::Finish, Event::Fail, Event::Start, Event::Stop];

/// The schedule beside a record of what happened to it, kept in terms of the promises.
#[derive(Clone)]
struct World {
    schedule: Schedule,
    now: Duration,
    started: bool,
    running: Option<Cause>,
    /// Notified, and no backup began since.
    unserved: bool,
    /// Notified, and no backup that began since has succeeded.
    unsaved: bool,
    /// A stop has not made its backup yet, nor found that there is none to make.
    stopping: bool,
    last_end: Option<Duration>,
    /// The start, or the end of the last periodic backup.
    period_from: Duration,
}

impl World {
    fn begin(&mut self, cause: Cause) {
        self.schedule.began(cause);
        self.running = Some(cause);
        self.unserved = false;
    }

    fn end(&mut self, succeeds: bool) {
        let Some(cause) = self.running.take() else { return };
        if succeeds {
            self.schedule.finished(self.now);
            self.unsaved = self.unserved;
        } else {
            self.schedule.failed(self.now);
        }
        self.last_end = Some(self.now);
        if cause == Cause::Interval {
            self.period_from = self.now;
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Tick => self.now += at(1),
            Event::Notify => {
                self.schedule.notify();
                (self.unserved, self.unsaved) = (true, true);
            }
            Event::Poll => {
                if let Step::Backup(cause) = self.schedule.next(self.now) {
                    self.began_rightly(cause);
                    self.begin(cause);
                }
            }
            Event::Manual => {
                if self.running.is_none() {
                    self.begin(Cause::Manual);
                }
            }
            Event::Finish => self.end(true),
            Event::Fail => self.end(false),
            Event::Start => {
                self.schedule.start(self.now);
                (self.started, self.period_from) = (true, self.now);
            }
            Event::Stop => {
                self.schedule.stop();
                (self.started, self.stopping) = (false, true);
            }
        }
        if self.stopping && !self.schedule.is_saving() {
            self.stopping = false;
            assert_eq!(self.schedule.is_pending(), self.unsaved, "stop saves what waits, and only that");
            if self.unsaved {
                self.end(true);
                self.begin(Cause::Stop);
            }
        }
    }

    fn began_rightly(&self, cause: Cause) {
        let (now, schedule) = (self.now, &self.schedule);
        assert!(self.started && self.running.is_none());
        match cause {
            Cause::Interval => assert!(now - self.period_from >= schedule.backup_interval),
            Cause::Notified => {
                assert!(self.unserved);
                assert!(self.last_end.is_none_or(|end| now - end >= schedule.min_backup_interval), "too close");
            }
            Cause::Stop | Cause::Manual => panic!("{cause:?} never comes out of next"),
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        let schedule = &self.schedule;
        assert_eq!(schedule.is_pending() || schedule.is_saving(), self.unsaved);
        assert!(schedule.is_pending() || !self.unserved);
        if !self.started || self.running.is_some() {
            assert_eq!(schedule.next(Duration::MAX), NEVER);
            return;
        }
        let backs_up = |time| matches!(schedule.next(time), Step::Backup(_));
        // No notification is lost, and none is late.
        let spaced = match self.last_end {
            Some(end) => end.checked_add(schedule.min_backup_interval),
            None => Some(self.now),
        };
        if self.unserved
            && spaced != Some(Duration::MAX)
            && let Some(spaced) = spaced
        {
            assert!(backs_up(self.now.max(spaced)), "a notification is late");
        }
        // Nor is a periodic backup.
        if let Some(due) = self.period_from.checked_add(schedule.backup_interval).filter(|due| *due < Duration::MAX) {
            assert_eq!(schedule.next(self.now.max(due)), Step::Backup(Cause::Interval), "a periodic one is late");
        }
        // A wait ends when there is work, and not before.
        match schedule.next(self.now) {
            Step::Backup(cause) => self.began_rightly(cause),
            Step::WaitUntil(Some(time)) => {
                assert!(time > self.now && backs_up(time), "woken for nothing");
                assert!(!backs_up(time - Duration::from_nanos(1)), "woken late");
            }
            Step::WaitUntil(None) => assert!(!backs_up(Duration::MAX), "never woken"),
        }
    }
}

fn walk(world: &World, trace: &mut Vec<Event>, depth: usize) -> u64 {
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.check()));
    assert!(checked.is_ok(), "after {trace:?}, {:?}", world.schedule);
    if depth == 0 {
        return 1;
    }
    let mut walked = 1;
    for event in EVENTS {
        trace.push(event);
        let mut next = world.clone();
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| next.happens(event)));
        assert!(happened.is_ok(), "at the end of {trace:?}");
        walked += walk(&next, trace, depth - 1);
        trace.pop();
    }
    walked
}

#[test]
fn no_sequence_of_events_loses_a_notification_or_crowds_the_backups() {
    let intervals = [(at(0), at(0)), (at(2), at(3)), (at(3), at(2)), (Duration::MAX, at(1)), (at(1), Duration::MAX)];
    for (backup_interval, min_backup_interval) in intervals {
        let schedule = Schedule::new(backup_interval, min_backup_interval);
        let now = at(1_000);
        let mut world = World {
            schedule,
            now,
            started: false,
            running: None,
            unserved: false,
            unsaved: false,
            stopping: false,
            last_end: None,
            period_from: now,
        };
        let stopped = walk(&world, &mut Vec::new(), 6);
        assert_eq!(stopped, (0..=6).map(|n| 8_u64.pow(n)).sum::<u64>(), "every sequence was walked");
        // Deeper from where most happens.
        world.happens(Event::Start);
        walk(&world, &mut Vec::new(), 6);
    }
}
