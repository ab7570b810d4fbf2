//! Two syncs that fail, in one session or in two: what the first left not durable, nothing is built upon.

use dictdb::Durability;
use dictdb::sim::{Budget, Dirty, Fault, Fill, Repeat};

use crate::check::check_store;
use crate::story::Story;

/// A few images of each kind: there are hundreds of runs.
fn budget() -> Budget {
    let mut budget = Budget::small().cuts(1).fills([Fill::Zeros]);
    budget.tails_max = 1;
    budget.subset_ops_max = 2;
    budget
}

/// Sessions with a checkpoint each, the last of them without anything new.
fn sessions(story: &Story) {
    if let Some(db) = story.open() {
        story.create(&db);
        for id in 0..3 {
            story.put(&db, id, 200);
        }
        story.checkpoint(&db);
        story.put(&db, 3, 300);
        story.put(&db, 4, 300);
        story.checkpoint(&db);
        story.drop(db);
    }
    for round in 0..2 {
        if let Some(db) = story.open() {
            story.put(&db, 5 + round, 300);
            story.put(&db, 7 + round, 300);
            story.checkpoint(&db);
            if round == 0 { story.drop(db) } else { story.close(db) }
        }
    }
    for _ in 0..2 {
        if let Some(db) = story.open() {
            story.checkpoint(&db);
            story.drop(db);
        }
    }
}

/// The story with syncs that fail at these operations.
fn with_failures(at: &[u64]) -> Story {
    let story = Story::new(Durability::Sync);
    let fault = Fault::SyncFails { dirty: Dirty::Dropped };
    at.iter().for_each(|at| story.disk.fail_at(*at, fault, Repeat::Once));
    sessions(&story);
    story
}

#[test]
fn two_failed_syncs_in_one_session_or_two_cost_no_acknowledged_commit() {
    let (mut runs, mut images) = (0, 0);
    for first in 1..=with_failures(&[]).disk.op_count() {
        let one = with_failures(&[first]);
        if one.disk.fault_hits() == 0 {
            continue;
        }
        for second in first + 1..=one.disk.op_count() {
            let story = with_failures(&[first, second]);
            let told = story.errors.borrow().join("; ");
            // The name of the store's own directory that the system forgot: SPEC.md, Assumptions.
            if story.disk.fault_hits() < 2 || told.contains("cannot sync directory /:") {
                continue;
            }
            runs += 1;
            story.disk.clear_faults();
            let last = story.disk.op_count();
            let promised = story.promised(last);
            for image in story.disk.images(last, &budget()) {
                images += 1;
                check_store(&image.storage(), &promised, &story.states.borrow()).unwrap_or_else(|wrong| {
                    let (id, how) = (image.id(), image.describe());
                    panic!("{first} and {second} failed, {id}: {wrong}\ntold: {told}\n{how}")
                });
            }
        }
    }
    println!("{runs} runs with two failed syncs, {images} images");
    assert!(runs > 300 && images > 5_000, "{runs} runs, {images} images");
}
