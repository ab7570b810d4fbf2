//! The crash matrix: a crash at every operation of every workload, every legal image, and again in the recovery.

use std::collections::BTreeSet;

use dictdb::sim::{Budget, ImageId};

use crate::check::{check_again, check_backups, check_image};
use crate::story::{BACKUPS, Story, WORKLOADS, Workload};

/// Images that `cargo test` goes through at least, the crashes of recoveries included.
const IMAGES_MIN: u64 = 100_000;

#[derive(Default)]
struct Count {
    points: u64,
    images: u64,
    kinds: u64,
    again: u64,
}

fn budget() -> Budget {
    Budget::default()
}

/// Runs the workload and goes through its crashes, or through the one image asked for.
fn go_through(workload: &Workload, only: Option<ImageId>) -> Result<Count, String> {
    let story = Story::new(workload.durability);
    (workload.play)(&story);
    assert_eq!(*story.errors.borrow(), [""; 0], "no fault was planned");
    assert_eq!(story.disk.violations(), [""; 0], "{}", workload.name);
    let states = story.states.borrow();
    let has_backups = story.disk.paths().iter().any(|path| path.starts_with(BACKUPS));
    let mut count = Count::default();
    let mut kinds = BTreeSet::new();
    for n in story.disk.crash_points() {
        let promised = story.promised(n);
        count.points += 1;
        for image in story.disk.images(n, &budget()) {
            if only.is_some_and(|only| only != image.id()) {
                continue;
            }
            count.images += 1;
            let wrong = |wrong: String| {
                let (name, id) = (workload.name, image.id());
                let repeat =
                    format!("DICTDB_SIM_REPRO={id} DICTDB_SIM_WORKLOAD={name:?} cargo test --test crash matrix");
                format!("{name}: {wrong}\npromised {promised:?}\n{repeat}\n{}", image.describe())
            };
            if has_backups {
                check_backups(&image.storage(), &promised, &states).map_err(wrong)?;
            }
            let disk = image.storage();
            let (kind, disk, begun) = check_image(&disk, &promised, &states).map_err(wrong)?;
            if kinds.insert((n, kind.clone())) || only.is_some() {
                count.again += check_again(&disk, begun, &kind, &states[&kind.seq()]).map_err(wrong)?;
            }
        }
    }
    count.kinds = kinds.len() as u64;
    Ok(count)
}

#[test]
fn acked_commit_survives_a_crash_at_every_operation_and_a_crash_of_the_recovery() {
    let only = std::env::var("DICTDB_SIM_REPRO").ok().map(|id| id.parse::<ImageId>().expect("an image as n:index"));
    let wanted = std::env::var("DICTDB_SIM_WORKLOAD").ok();
    let workloads = WORKLOADS.iter().filter(|workload| wanted.as_deref().is_none_or(|name| name == workload.name));
    // One thread for each: they share nothing.
    let counts: Vec<_> = std::thread::scope(|scope| {
        let run = |workload: &'static Workload| scope.spawn(move || (workload.name, go_through(workload, only)));
        let threads: Vec<_> = workloads.map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut total = 0;
    for (name, count) in counts {
        let count = count.unwrap_or_else(|wrong| panic!("{wrong}"));
        let Count { points, images, kinds, again } = count;
        println!("{name}: {points} crash points, {images} images; in {kinds} kinds of recovery {again} images more");
        total += images + again;
    }
    println!("{total} images in all");
    assert!(only.is_some() || wanted.is_some() || total >= IMAGES_MIN, "{total} images are too few");
}
