//! Every operation failing in every way, once and from then on.

use std::io::ErrorKind;

use dictdb::sim::{Budget, Dirty, Fault, Fill, Repeat};
use dictdb::{Durability, record};

use crate::check::{check_backups, check_store};
use crate::story::{BACKUPS, DATA, Story, WORKLOADS, Workload, options, rows_of};

/// The ways in which an operation fails.
const FAULTS: [Fault; 10] = [
    Fault::Error(ErrorKind::Other),
    Fault::Error(ErrorKind::PermissionDenied),
    Fault::NoSpace { after: 0 },
    Fault::NoSpace { after: 17 },
    Fault::NoSpace { after: 200 },
    Fault::ShortWrite(0),
    Fault::ShortWrite(7),
    Fault::Interrupted,
    Fault::SyncFails { dirty: Dirty::Kept },
    Fault::SyncFails { dirty: Dirty::Dropped },
];

/// A few images of each kind: there are thousands of runs.
fn budget() -> Budget {
    let mut budget = Budget::small().cuts(3).fills([Fill::Zeros]);
    budget.tails_max = 1;
    budget.subset_ops_max = 2;
    budget
}

#[derive(Default)]
struct Count {
    runs: u64,
    struck: u64,
    told: u64,
    images: u64,
}

/// One run with one fault; what comes of it is gone through as it stands and after a crash.
fn run(workload: &Workload, at: u64, fault: Fault, repeat: Repeat, count: &mut Count) -> Result<u64, String> {
    let story = Story::new(workload.durability);
    story.disk.fail_at(at, fault, repeat);
    (workload.play)(&story);
    let operations = story.disk.op_count();
    count.runs += 1;
    if story.disk.fault_hits() == 0 {
        return Ok(operations);
    }
    count.struck += 1;
    count.told += u64::from(!story.errors.borrow().is_empty());
    let told = story.errors.borrow().join("; ");
    let wrong = |wrong: String| format!("{} {fault:?} {repeat:?} at {at}: {wrong}\ntold: {told}", workload.name);
    if matches!(fault, Fault::SyncFails { dirty: Dirty::Dropped }) && told.contains("cannot sync directory /:") {
        // The system forgot the name of the store's own directory and will not say so again: SPEC.md, Assumptions.
        return Ok(operations);
    }
    if matches!(fault, Fault::Error(ErrorKind::PermissionDenied)) && told.is_empty() {
        // Taken for a directory above that may not be read.
        return Ok(operations);
    }
    if let Some(violation) = story.disk.violations().first() {
        return Err(wrong(violation.clone()));
    }
    story.disk.clear_faults();
    let promised = story.promised(story.disk.op_count());
    let has_backups = story.disk.paths().iter().any(|path| path.starts_with(BACKUPS));

    // A crash of the machine after all of it.
    let last = story.disk.op_count();
    for image in story.disk.images(last, &budget()) {
        count.images += 1;
        let states = story.states.borrow();
        check_store(&image.storage(), &promised, &states)
            .map_err(|e| wrong(format!("after a crash, {}: {e}\n{}", image.id(), image.describe())))?;
        if has_backups {
            check_backups(&image.storage(), &promised, &states).map_err(|e| wrong(format!("after a crash: {e}")))?;
        }
    }

    // Only the process ended: the system may show what it will never write. Going on from there, and then the crash.
    let (db, kind) = {
        let states = story.states.borrow();
        check_store(&story.disk, &promised, &states).map_err(|e| wrong(format!("reopened: {e}")))?
    };
    let outcome = match db.table("t") {
        Ok(table) => table.upsert(record! { "id": 1_000, "text": "after" }).map(drop),
        Err(_) => db.create_table("t", "id").map(drop),
    };
    outcome.map_err(|e| wrong(format!("does not go on after reopening: {e}")))?;
    let (rows, seq) = (rows_of(&db), db.seq().get());
    let n = story.disk.op_count();
    drop(db);
    for image in story.disk.images(n, &budget()) {
        count.images += 1;
        let db = options(image.storage(), Durability::Sync).open(DATA).map_err(|e| {
            wrong(format!(
                "reopened at {}, then a crash, {}: does not open: {e}\n{}",
                kind.seq(),
                image.id(),
                image.describe()
            ))
        })?;
        if (db.seq().get(), rows_of(&db)) != (seq, rows.clone()) {
            let report = db.open_report().unwrap();
            return Err(wrong(format!(
                "reopened, seq {seq} acknowledged, then a crash, {}: {report}\n{}",
                image.id(),
                image.describe()
            )));
        }
    }
    Ok(operations)
}

#[test]
fn whatever_fails_whenever_no_acked_commit_is_lost_and_none_is_accepted_behind_it() {
    let counts: Vec<_> = std::thread::scope(|scope| {
        let one = |workload: &'static Workload| {
            scope.spawn(move || {
                let mut count = Count::default();
                for (fault, repeat) in FAULTS.into_iter().flat_map(|f| [(f, Repeat::Once), (f, Repeat::Forever)]) {
                    let mut at = 1;
                    loop {
                        let operations = run(workload, at, fault, repeat, &mut count)?;
                        if at > operations {
                            break;
                        }
                        at += 1;
                    }
                }
                Ok::<_, String>((workload.name, count))
            })
        };
        let wanted = std::env::var("DICTDB_SIM_WORKLOAD").ok();
        let chosen = WORKLOADS.iter().filter(|workload| wanted.as_deref().is_none_or(|name| name == workload.name));
        let threads: Vec<_> = chosen.map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for count in counts {
        let (name, count) = count.unwrap_or_else(|wrong: String| panic!("{wrong}"));
        let Count { runs, struck, told, images } = count;
        println!("{name}: {runs} runs, in {struck} of them the fault struck, {told} of them told it; {images} images");
        assert!(struck > 200 && told > 100, "the faults hardly did anything");
    }
}

/// A disk that says Ok to a sync and does nothing breaks every promise but one: what comes back is a prefix, or an error.
#[test]
fn a_sync_that_lies_leaves_a_prefix_of_the_commits_or_an_error_never_other_data() {
    let (mut prefixes, mut refused) = (0_u64, 0_u64);
    for workload in WORKLOADS.iter().filter(|workload| workload.name != "restore into") {
        for repeat in [Repeat::Once, Repeat::Forever] {
            for at in 1.. {
                let story = Story::new(workload.durability);
                story.disk.fail_at(at, Fault::SyncLies, repeat);
                (workload.play)(&story);
                let operations = story.disk.op_count();
                for n in story.disk.crash_points().into_iter().filter(|n| *n >= at).step_by(3) {
                    for image in story.disk.images(n, &Budget::small()).take(12) {
                        match options(image.storage(), Durability::Sync).open(DATA) {
                            Ok(db) => {
                                prefixes += 1;
                                let expected = story.states.borrow().get(&db.seq().get()).cloned();
                                assert_eq!(Some(rows_of(&db)), expected, "{} {}", workload.name, image.describe());
                            }
                            Err(dictdb::Error::Corrupt { .. }) => refused += 1,
                            Err(error) => panic!("{} {}: {error}", workload.name, image.describe()),
                        }
                    }
                }
                if at > operations {
                    break;
                }
            }
        }
    }
    println!("lying syncs: {prefixes} prefixes, {refused} refused");
    assert!(prefixes > 1_000 && refused > 10);
}
