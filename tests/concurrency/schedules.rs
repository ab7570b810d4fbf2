//! What must hold in every schedule.

use std::sync::Arc;

use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use shuttle::thread;

use crate::frame::{self, FrameKind};
use crate::group::{Goal, Group, Sink};
use crate::history::{Lineage, Seq};
use crate::ring::{Ring, RingBytes};

/// Schedules tried of each scene.
const SCHEDULES: usize = 3_000;

/// Runs a scene under random schedules, and under ones that preempt rarely, which find other mistakes. A failure
/// prints the schedule to replay; a deadlock is one.
fn everywhere(scene: impl Fn() + Send + Sync + 'static) {
    let scene = Arc::new(scene);
    let again = Arc::clone(&scene);
    shuttle::check_random(move || scene(), SCHEDULES);
    shuttle::check_pct(move || again(), SCHEDULES, 3);
}

/// What the disk has seen, as the test knows it.
#[derive(Default)]
struct Disk {
    /// The last commit in the frames written and synced.
    written: AtomicU64,
    durable: AtomicU64,
    operations: AtomicUsize,
    /// Set by the operation that failed; nothing may come behind it.
    failed: AtomicUsize,
}

/// A disk whose operation of this number fails, or panics.
struct Faulty {
    disk: Arc<Disk>,
    fail_at: Option<usize>,
    panics: bool,
}

impl Faulty {
    fn step(&self) -> Result<(), &'static str> {
        assert_eq!(self.disk.failed.load(Ordering::SeqCst), 0, "nothing is written behind a failure");
        let at = self.disk.operations.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
        if self.fail_at != Some(at) {
            return Ok(());
        }
        self.disk.failed.store(1, Ordering::SeqCst);
        assert!(!self.panics, "the storage panics");
        Err("the disk failed")
    }
}

impl Sink for Faulty {
    type Mark = u64;
    type Error = &'static str;

    fn write(&mut self, buffers: &[Vec<u8>], marks: Vec<(usize, u64)>, last: u64, _: Goal) -> Result<(), &'static str> {
        self.step()?;
        let bytes = buffers.concat();
        // A frame is one byte here: the low byte of its seq.
        let before = self.disk.written.load(Ordering::SeqCst);
        let expected: Vec<u8> = (before + 1..=last).map(|seq| seq as u8).collect();
        assert_eq!(bytes, expected, "every commit is written once, in order");
        for (at, seq) in marks {
            assert_eq!(before + at as u64, seq, "a mark stands behind its frame");
        }
        self.disk.written.store(last, Ordering::SeqCst);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), &'static str> {
        let written = self.disk.written.load(Ordering::SeqCst);
        self.step()?;
        self.disk.durable.store(written, Ordering::SeqCst);
        Ok(())
    }

    fn panicked() -> &'static str {
        "the disk panicked"
    }
}

fn group(fail_at: Option<usize>, panics: bool) -> (Arc<Group<Faulty>>, Arc<Disk>) {
    let disk = Arc::new(Disk::default());
    (Arc::new(Group::new(Faulty { disk: Arc::clone(&disk), fail_at, panics }, 0)), disk)
}

/// Commits as the database does: the seq is given out and the frame appended under the writer's lock, then waited for.
fn commit(writer: &Mutex<u64>, group: &Group<Faulty>, goal: Goal) -> (u64, Result<(), &'static str>) {
    let mut last = writer.lock().unwrap();
    let seq = *last + 1;
    assert!(group.synced() < seq, "what is not appended yet is not durable");
    let appended = group.append(seq, &[seq as u8], || seq.is_multiple_of(3).then_some(seq));
    if appended.is_ok() {
        *last = seq;
    }
    drop(last);
    (seq, appended.map(drop).and_then(|()| group.reach(seq, goal)).map_err(|error| *error))
}

fn writers(fail_at: Option<usize>, panics: bool, goals: [Goal; 3]) {
    let (group, disk) = group(fail_at, panics);
    let writer = Arc::new(Mutex::new(0));
    let threads: Vec<_> = goals
        .into_iter()
        .map(|goal| {
            let (group, disk, writer) = (Arc::clone(&group), Arc::clone(&disk), Arc::clone(&writer));
            thread::spawn(move || {
                let mut refused = false;
                for _ in 0..2 {
                    let (seq, outcome) = commit(&writer, &group, goal);
                    match outcome {
                        Ok(()) => {
                            assert!(!refused, "nothing is accepted behind a failure");
                            let reached = if goal == Goal::Synced { &disk.durable } else { &disk.written };
                            assert!(reached.load(Ordering::SeqCst) >= seq, "nothing is acknowledged before it is so");
                        }
                        Err(_) => {
                            assert_eq!(disk.failed.load(Ordering::SeqCst), 1, "no error without a failure");
                            refused = true;
                        }
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let reached = group.reached();
    assert!(reached.synced <= disk.durable.load(Ordering::SeqCst));
    assert_eq!(group.failure().is_some(), disk.failed.load(Ordering::SeqCst) == 1);
    if group.failure().is_none() && goals.contains(&Goal::Synced) {
        group.reach(reached.appended, Goal::Synced).unwrap();
        assert_eq!(disk.durable.load(Ordering::SeqCst), 6);
    }
}

#[test]
fn every_commit_is_acknowledged_after_its_sync_and_no_wake_up_is_lost() {
    everywhere(|| writers(None, false, [Goal::Synced; 3]));
}

#[test]
fn those_who_wait_for_less_neither_hold_up_nor_mislead_those_who_wait_for_more() {
    everywhere(|| writers(None, false, [Goal::Written, Goal::Synced, Goal::Written]));
}

#[test]
fn a_leader_that_fails_tells_every_waiter_and_nothing_is_written_behind_it() {
    for fail_at in 0..4 {
        everywhere(move || writers(Some(fail_at), false, [Goal::Synced, Goal::Synced, Goal::Written]));
    }
}

#[test]
fn a_leader_whose_storage_panics_leaves_nobody_waiting() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(|| {
        for fail_at in 0..3 {
            everywhere(move || writers(Some(fail_at), true, [Goal::Synced, Goal::Synced, Goal::Written]));
        }
    });
    std::panic::set_hook(hook);
    outcome.unwrap();
}

#[test]
fn a_log_that_is_ended_answers_everybody_and_writes_nothing_more() {
    everywhere(|| {
        let (group, disk) = group(None, false);
        let writer = Arc::new(Mutex::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (group, disk, writer) = (Arc::clone(&group), Arc::clone(&disk), Arc::clone(&writer));
                thread::spawn(move || {
                    let (seq, outcome) = commit(&writer, &group, Goal::Synced);
                    match outcome {
                        Ok(()) => assert!(disk.durable.load(Ordering::SeqCst) >= seq),
                        Err(why) => assert_eq!(why, "closed"),
                    }
                })
            })
            .collect();
        let sink = group.end("closed").ok().unwrap();
        let operations = disk.operations.load(Ordering::SeqCst);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(disk.operations.load(Ordering::SeqCst), operations, "an ended log is written by its ender alone");
        assert_eq!(group.end("again").err().as_deref(), Some(&"closed"));
        drop(sink);
    });
}

#[test]
fn a_reader_of_the_ring_sees_contiguous_commits_while_writers_push_and_the_oldest_go() {
    fn bytes(seq: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let start = frame::begin(&mut out);
        out.resize(out.len() + 1 + (seq as usize * 7) % 40, seq as u8);
        frame::finish(&mut out, start, FrameKind::Commit, Lineage::NONE, Seq::new(seq), Seq::ZERO);
        out
    }
    everywhere(|| {
        let ring = Arc::new(Mutex::new(Ring::new(RingBytes::Fixed(400), Seq::ZERO)));
        let writer = Arc::new(Mutex::new(0_u64));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (ring, writer) = (Arc::clone(&ring), Arc::clone(&writer));
                thread::spawn(move || {
                    for _ in 0..5 {
                        let mut last = writer.lock().unwrap();
                        *last += 1;
                        ring.lock().unwrap().push(Seq::new(*last), &bytes(*last));
                    }
                })
            })
            .collect();
        let reader = thread::spawn(move || {
            let mut base = 0;
            for _ in 0..6 {
                let last = *writer.lock().unwrap();
                let slice = ring.lock().unwrap().since(Seq::new(base), Seq::new(last));
                // The lock is gone: what was handed out must not change under the reader.
                thread::yield_now();
                match slice {
                    Ok(slice) => {
                        let seen: Vec<u64> = slice.frames().map(|frame| frame.seq.get()).collect();
                        assert_eq!(seen, (base + 1..=last).collect::<Vec<_>>());
                        slice.frames().for_each(|frame| assert_eq!(frame.whole, bytes(frame.seq.get())));
                        base = last;
                    }
                    Err(gap) => {
                        assert!(matches!(gap, crate::ring::Unserved::Gap { oldest } if oldest.get() > base + 1));
                        base = last;
                    }
                }
            }
        });
        writers.into_iter().for_each(|thread| thread.join().unwrap());
        reader.join().unwrap();
    });
}
