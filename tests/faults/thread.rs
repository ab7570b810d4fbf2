//! The manager's thread: started, stopped, held at gates, and called back into.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use dictdb::{BackupManager, Clock, DictDb, Error, ManualClock, Notified, SystemClock, Timestamp};

use crate::faulty::{FORMATS, Fault, Faulty, Gate, Op, builder, commit, database, receive, restored};

/// Hears of every directory sync, which is the last thing that a backup does to the storage.
fn published(storage: &Faulty) -> Receiver<()> {
    let (sender, receiver) = sync_channel(1_000);
    storage.hook(move |op| {
        if op == Op::SyncDir {
            let _ = sender.send(());
        }
    });
    receiver
}

#[test]
fn a_stopped_manager_starts_again_any_number_of_times() {
    let (storage, db) = (Faulty::default(), database());
    let manager = builder(&db, &storage, FORMATS[0]).build().unwrap();
    let published = published(&storage);
    for _ in 0..5 {
        manager.start().unwrap();
        assert!(manager.status().running);
        commit(&db);
        assert!(matches!(manager.notify_change(), Ok(Notified::Scheduled)));
        receive(&published); // the thread did it, nobody else
        assert!(manager.stop().unwrap().is_none(), "nothing was left to do");
        assert!(!manager.status().running);
        assert_eq!(restored(&storage).0, db.digest());
        assert!(manager.stop().unwrap().is_none(), "stopping twice is harmless");
    }
    assert_eq!(storage.backups().len(), 5);
}

#[test]
fn starting_twice_is_harmless() {
    let (storage, db) = (Faulty::default(), database());
    let manager = builder(&db, &storage, FORMATS[0]).build().unwrap();
    let published = published(&storage);
    (0..3).for_each(|_| manager.start().unwrap());
    manager.notify_change().unwrap();
    receive(&published);
    manager.stop().unwrap();
    assert_eq!(storage.backups().len(), 1);
    drop(manager);
    assert_eq!(storage.handles(), 1, "no second thread is left behind");
}

#[test]
fn dropping_the_manager_ends_its_thread_and_finishes_what_was_notified() {
    let storage = Faulty::default();
    let clock = ManualClock::new(Timestamp::default());
    let db = DictDb::builder().clock(clock).build();
    db.create_table("t", "id").unwrap();
    let manager = builder(&db, &storage, FORMATS[0]).min_backup_interval(Duration::from_secs(3_600)).build().unwrap();
    manager.backup_now().unwrap();
    manager.start().unwrap();
    commit(&db);
    manager.notify_change().unwrap();
    drop(manager);
    assert_eq!(storage.handles(), 1, "the thread is gone, and all that it held");
    assert_eq!(restored(&storage).0, db.digest(), "the change inside min_backup_interval was put off, not dropped");
}

#[test]
fn stop_finishes_a_pending_change_first_and_reports_it() {
    let storage = Faulty::default();
    let db = DictDb::builder().clock(ManualClock::new(Timestamp::default())).build();
    db.create_table("t", "id").unwrap();
    let manager = builder(&db, &storage, FORMATS[0]).min_backup_interval(Duration::from_secs(3_600)).build().unwrap();
    manager.backup_now().unwrap();
    manager.start().unwrap();
    commit(&db);
    assert!(matches!(manager.notify_change(), Ok(Notified::Scheduled)));
    assert!(manager.status().change_pending, "inside min_backup_interval it waits");
    let report = manager.stop().unwrap().unwrap();
    assert_eq!((report.commits, report.seq), (1, db.seq()));
    assert!(!manager.status().change_pending);
    assert_eq!(restored(&storage).0, db.digest());
}

// Stop once asked what was pending before the backup under way had ended, and so knew nothing of its failure.
#[test]
fn a_change_whose_backup_fails_while_the_manager_is_stopped_is_backed_up_by_that_stop() {
    for by_hand in [false, true] {
        let storage = Faulty::default();
        let db = DictDb::builder().clock(ManualClock::new(Timestamp::default())).build();
        db.create_table("t", "id").unwrap();
        // By hand: inside the interval the thread leaves the change alone.
        let min = Duration::from_secs(if by_hand { 3_600 } else { 0 });
        let manager = builder(&db, &storage, FORMATS[0]).min_backup_interval(min).build().unwrap();
        manager.backup_now().unwrap();
        manager.start().unwrap();
        let gate = Gate::new();
        let (in_hook, holds) = (gate.clone(), AtomicBool::new(true));
        storage.hook(move |op| {
            if op == Op::Create && holds.swap(false, Ordering::SeqCst) {
                in_hook.pass();
            }
        });
        storage.fail_every(Op::Create, ErrorKind::PermissionDenied);
        commit(&db);
        manager.notify_change().unwrap();
        std::thread::scope(|scope| {
            let manual = by_hand.then(|| scope.spawn(|| manager.backup_now()));
            gate.wait_for_arrival(); // that it fails is decided
            storage.heal();
            let stop = scope.spawn(|| manager.stop());
            while manager.status().running {
                std::thread::yield_now();
            }
            gate.open();
            let report = stop.join().unwrap().unwrap();
            assert_eq!(report.map(|report| report.seq), Some(db.seq()), "by hand: {by_hand}");
            assert!(manual.is_none_or(|manual| manual.join().unwrap().is_err()));
        });
        assert!(!manager.status().change_pending);
        assert_eq!(restored(&storage).0, db.digest());
    }
}

#[test]
fn a_notification_without_a_commit_writes_nothing() {
    let (storage, db) = (Faulty::default(), database());
    let manager = builder(&db, &storage, FORMATS[0]).build().unwrap();
    manager.backup_now().unwrap();
    manager.start().unwrap();
    manager.notify_change().unwrap();
    manager.stop().unwrap();
    assert_eq!(storage.backups().len(), 1);
}

/// The system's clock, but for one panic.
#[derive(Clone, Debug)]
struct PanicsOnce {
    at: usize,
    calls: Arc<AtomicUsize>,
}

impl Clock for PanicsOnce {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        assert_ne!(self.calls.fetch_add(1, Ordering::SeqCst), self.at, "the clock panics");
        SystemClock.monotonic()
    }
}

// It once ended the thread while the manager went on to say that it runs, or left a backup under way for ever.
#[test]
fn a_clock_that_panics_once_at_whatever_call_fails_no_backup_and_ends_no_schedule() {
    for (at, interval) in (0..15).flat_map(|at| [(at, Duration::MAX), (at, Duration::from_nanos(1))]) {
        let clock = PanicsOnce { at, calls: Arc::default() };
        let (storage, db) = (Faulty::default(), DictDb::builder().clock(clock.clone()).build());
        db.create_table("t", "id").unwrap();
        let manager = builder(&db, &storage, FORMATS[0]).backup_interval(interval).build().unwrap();
        let published = published(&storage);
        for _ in 0..2 {
            manager.start().unwrap();
            for _ in 0..2 {
                commit(&db);
                if interval == Duration::MAX {
                    manager.notify_change().unwrap();
                }
                receive(&published); // by the thread
                // The first may be of the table alone, which was there before the thread was.
                while restored(&storage).0 != db.digest() {
                    receive(&published);
                }
                manager.backup_now().unwrap();
                assert_eq!(published.try_iter().count(), 1);
            }
            assert!(manager.stop().unwrap().is_none(), "call {at}");
            commit(&db);
            assert!(matches!(manager.notify_change(), Ok(Notified::BackedUp(_))), "call {at}");
            assert_eq!(published.try_iter().count(), 1);
        }
        assert!(clock.calls.load(Ordering::SeqCst) > at);
        assert_eq!(manager.consecutive_failures(), 0);
    }
}

#[test]
fn nobody_waits_for_a_long_backup_but_who_asks_for_another() {
    let (storage, db) = (Faulty::default(), database());
    let gate = Gate::new();
    let (in_hook, holds) = (gate.clone(), Arc::new(AtomicBool::new(true)));
    let hold = holds.clone();
    storage.hook(move |op| {
        if op == Op::Sync && hold.swap(false, Ordering::SeqCst) {
            in_hook.pass();
        }
    });
    let manager = builder(&db, &storage, FORMATS[0]).build().unwrap();
    manager.start().unwrap();
    manager.notify_change().unwrap();
    gate.wait_for_arrival();
    // The backup is held before its end; all of this returns.
    let backed_up = db.digest();
    commit(&db);
    assert!(matches!(manager.notify_change(), Ok(Notified::Scheduled)));
    let status = manager.status();
    assert!(status.running && status.change_pending && status.last_success.is_none(), "{status}");
    assert_eq!((manager.consecutive_failures(), manager.deltas_since_full()), (0, 0));
    assert_eq!(storage.backups().len(), 0);
    assert_ne!(db.digest(), backed_up);
    gate.open();
    manager.stop().unwrap();
    assert_eq!(restored(&storage).0, db.digest(), "what was notified meanwhile got its own backup");
    assert_eq!(storage.backups().len(), 2);
}

#[test]
fn a_failure_callback_that_panics_does_not_end_the_thread_or_poison_anything() {
    let (storage, db) = (Faulty::default(), database());
    let (sender, heard) = sync_channel(100);
    let manager = builder(&db, &storage, FORMATS[0])
        .on_backup_failure(move |_, count| {
            sender.send(count).unwrap();
            panic!("a broken callback");
        })
        .build()
        .unwrap();
    storage.fail_every(Op::Create, ErrorKind::PermissionDenied);
    manager.start().unwrap();
    for count in 1..=3 {
        manager.notify_change().unwrap();
        assert_eq!(receive(&heard), count);
    }
    assert!(manager.backup_now().is_err(), "and a manual one goes through the same callback");
    assert_eq!(receive(&heard), 4);
    storage.heal();
    let published = published(&storage);
    commit(&db);
    manager.notify_change().unwrap();
    receive(&published); // by the same thread
    manager.stop().unwrap();
    assert_eq!(manager.consecutive_failures(), 0);
    assert_eq!(restored(&storage).0, db.digest());
}

// It once went on as a panic from all but the manager's own thread, and was neither counted nor told.
#[test]
fn a_storage_that_panics_fails_the_backup_on_whatever_way_it_is_asked_for() {
    const HOUR: Duration = Duration::from_secs(3_600);
    type Way = fn(BackupManager, ManualClock) -> (Option<BackupManager>, Option<Error>);
    let by_hand: Way = |manager, _| {
        let error = manager.backup_now().unwrap_err();
        (Some(manager), Some(error))
    };
    let by_notification: Way = |manager, clock| {
        clock.advance(HOUR);
        let error = manager.notify_change().unwrap_err();
        (Some(manager), Some(error))
    };
    let on_the_thread: Way = |manager, clock| {
        clock.advance(HOUR);
        manager.start().unwrap();
        manager.notify_change().unwrap();
        (Some(manager), None)
    };
    let by_stop: Way = |manager, _| {
        manager.notify_change().unwrap();
        let error = manager.stop().unwrap_err();
        (Some(manager), Some(error))
    };
    let by_drop: Way = |manager, _| {
        manager.notify_change().unwrap();
        drop(manager);
        (None, None)
    };
    let by_drop_of_a_panic: Way = |manager, _| {
        manager.notify_change().unwrap();
        let panics = move || {
            let _manager = manager;
            panic!("the program panics");
        };
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        (None, None)
    };
    for way in [by_hand, by_notification, on_the_thread, by_stop, by_drop, by_drop_of_a_panic] {
        let (storage, clock) = (Faulty::default(), ManualClock::new(Timestamp::default()));
        let db = DictDb::builder().clock(clock.clone()).build();
        db.create_table("t", "id").unwrap();
        let (sender, heard) = sync_channel(10);
        let manager = builder(&db, &storage, FORMATS[0])
            .min_backup_interval(HOUR)
            .on_backup_failure(move |error, count| sender.send((error.to_string(), count)).unwrap())
            .build()
            .unwrap();
        manager.backup_now().unwrap();
        commit(&db);
        storage.panic(Fault { op: None, at: 0, forever: true, kind: ErrorKind::Other });
        let (manager, returned) = way(manager, clock);
        let (told, count) = receive(&heard);
        assert!(told.contains("panicked") && count == 1, "{told}");
        storage.heal();
        let manager = manager.unwrap_or_else(|| builder(&db, &storage, FORMATS[0]).build().unwrap());
        if let Some(error) = returned {
            assert_eq!(error.to_string(), told);
            assert_eq!((manager.consecutive_failures(), manager.status().last_failure), (1, Some(told)));
        }
        manager.backup_now().unwrap();
        assert_eq!(restored(&storage).0, db.digest());
        assert!(heard.try_recv().is_err(), "told once");
    }
}

/// A manager whose failure callback calls `body` with the manager, once.
fn calling_back(
    db: &DictDb,
    storage: &Faulty,
    body: impl Fn(&BackupManager) + Send + Sync + 'static,
) -> Arc<BackupManager> {
    let slot: Arc<OnceLock<Weak<BackupManager>>> = Arc::default();
    let (in_callback, called) = (slot.clone(), AtomicUsize::new(0));
    let manager = builder(db, storage, FORMATS[0])
        .on_backup_failure(move |_, _| {
            if called.fetch_add(1, Ordering::SeqCst) == 0 {
                body(&in_callback.get().unwrap().upgrade().unwrap());
            }
        })
        .build()
        .unwrap();
    let manager = Arc::new(manager);
    slot.set(Arc::downgrade(&manager)).unwrap();
    manager
}

#[test]
fn the_failure_callback_may_stop_start_and_back_up() {
    let (storage, db) = (Faulty::default(), database());
    let (sender, done) = sync_channel(1);
    let (healed, database) = (storage.clone(), db.clone());
    let manager = calling_back(&db, &storage, move |manager| {
        // It tries to save the notified change whose backup has just failed, and the storage is as it was.
        assert!(manager.stop().is_err());
        assert!(!manager.status().running && manager.status().change_pending);
        healed.heal();
        assert!(manager.backup_now().is_ok());
        assert!(!manager.status().change_pending);
        assert!(matches!(manager.notify_change(), Ok(Notified::Unchanged)));
        commit(&database);
        manager.start().unwrap();
        manager.start().unwrap();
        assert!(manager.status().running);
        sender.send(()).unwrap();
    });
    storage.fail_every(Op::Create, ErrorKind::PermissionDenied);
    manager.start().unwrap();
    manager.notify_change().unwrap();
    receive(&done);
    let published = published(&storage);
    manager.notify_change().unwrap();
    receive(&published);
    manager.stop().unwrap();
    assert_eq!(restored(&storage).0, db.digest());
}

/// Starts it, has a backup fail, and goes on once the callback stands at the gate, with the storage healed and the gate open.
fn into_the_callback(manager: &BackupManager, storage: &Faulty, gate: &Gate) {
    storage.fail_every(Op::Create, ErrorKind::PermissionDenied);
    manager.start().unwrap();
    manager.notify_change().unwrap();
    gate.wait_for_arrival();
    storage.heal();
    gate.open();
}

#[test]
fn a_callback_may_stop_the_manager_while_somebody_else_is_stopping_it() {
    let (storage, db) = (Faulty::default(), database());
    let gate = Gate::new();
    let in_callback = gate.clone();
    let manager = calling_back(&db, &storage, move |manager| {
        in_callback.pass();
        // The other stop has begun: it waits for this thread, and this must not wait for it.
        while manager.status().running {
            std::thread::yield_now();
        }
        // Nor does the other one back up before this returns.
        assert!(manager.stop().unwrap().is_some());
        assert!(!manager.status().change_pending);
        manager.start().unwrap();
        manager.stop().unwrap();
    });
    into_the_callback(&manager, &storage, &gate);
    assert!(manager.stop().unwrap().is_none(), "the other one has made its backup");
    assert!(!manager.status().running);
    manager.backup_now().unwrap();
    assert_eq!(restored(&storage).0, db.digest());
}

/// A thread that stopped itself ends by itself, and whoever stops or drops the manager next waits for that.
#[test]
fn a_stop_behind_one_in_a_callback_returns_once_the_thread_has_ended() {
    let (storage, db) = (Faulty::default(), database());
    let (gate, has_ended) = (Gate::new(), Arc::new(AtomicBool::new(false)));
    let (in_callback, ends) = (gate.clone(), has_ended.clone());
    let manager = calling_back(&db, &storage, move |manager| {
        let _ = manager.stop();
        in_callback.pass();
        std::thread::sleep(Duration::from_millis(100));
        ends.store(true, Ordering::SeqCst);
    });
    into_the_callback(&manager, &storage, &gate);
    manager.stop().unwrap();
    assert!(has_ended.load(Ordering::SeqCst), "the thread is still in the callback");
}

thread_local! {
    /// Tells of the end of the thread.
    static AT_ITS_END: std::cell::RefCell<Option<Farewell>> = const { std::cell::RefCell::new(None) };
}

struct Farewell(std::sync::mpsc::SyncSender<()>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn a_thread_that_was_stopped_in_a_callback_ends_though_another_one_was_started_there() {
    let (storage, db) = (Faulty::default(), database());
    let (sender, ended) = sync_channel(1);
    let manager = calling_back(&db, &storage, move |manager| {
        AT_ITS_END.set(Some(Farewell(sender.clone())));
        let _ = manager.stop();
        manager.start().unwrap();
    });
    storage.fail_every(Op::Create, ErrorKind::PermissionDenied);
    manager.start().unwrap();
    manager.notify_change().unwrap();
    receive(&ended);
    storage.heal();
    assert!(manager.status().running);
    let published = published(&storage);
    commit(&db);
    manager.notify_change().unwrap();
    receive(&published);
    manager.stop().unwrap();
    assert_eq!(restored(&storage).0, db.digest());
}

/// It ended the process: each failure called back, which tried again, until the stack was full.
#[test]
fn a_callback_that_stops_the_manager_or_tries_again_while_nothing_can_be_written_is_called_once_a_failure() {
    let (storage, db) = (Faulty::default(), database());
    let slot: Arc<OnceLock<Weak<BackupManager>>> = Arc::default();
    let (in_callback, calls) = (slot.clone(), Arc::new(AtomicUsize::new(0)));
    let called = calls.clone();
    let manager = builder(&db, &storage, FORMATS[0]).on_backup_failure(move |_, _| {
        called.fetch_add(1, Ordering::SeqCst);
        // None any more where it is dropped, which tries once more, too.
        if let Some(manager) = in_callback.get().unwrap().upgrade() {
            assert!(manager.stop().is_err() && manager.backup_now().is_err());
        }
    });
    let manager = Arc::new(manager.build().unwrap());
    slot.set(Arc::downgrade(&manager)).unwrap();
    storage.fail_every(Op::Create, ErrorKind::StorageFull);
    assert!(manager.notify_change().is_err());
    assert_eq!((calls.load(Ordering::SeqCst), manager.status().consecutive_failures), (1, 3));
    assert!(manager.backup_now().is_err());
    assert_eq!((calls.load(Ordering::SeqCst), manager.status().consecutive_failures), (2, 6));
    storage.heal();
    assert!(manager.stop().unwrap().is_some(), "the change is still noted");
    assert_eq!(restored(&storage).0, db.digest());
}

#[test]
fn failures_of_several_threads_are_each_told_their_own_count() {
    let (storage, db) = (Faulty::default(), database());
    let (sender, heard) = sync_channel(1_000);
    let manager =
        builder(&db, &storage, FORMATS[0]).on_backup_failure(move |_, n| sender.send(n).unwrap()).build().unwrap();
    storage.fail_every(Op::Create, ErrorKind::PermissionDenied);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| assert!(manager.backup_now().is_err())));
        }
    });
    let mut counts: Vec<u64> = heard.try_iter().collect();
    counts.sort_unstable();
    assert!(counts.into_iter().eq(1..=100));
}
