//! Histories that end before their first commit.

use dictdb::Durability;
use dictdb::sim::Budget;

use crate::check::check_image;
use crate::story::Story;

/// A crash in the close of a history that holds a checkpoint and no commit leaves a segment in which nothing is proven.
/// The next history begins where that one began, and the checkpoint is then of a history that the log does not know.
#[test]
fn a_checkpoint_of_a_history_without_commits_never_hides_the_commits_behind_it() {
    let story = Story::new(Durability::Sync);
    let db = story.open().unwrap();
    story.put(&db, 1, 40);
    story.put(&db, 2, 40);
    story.drop(db);
    let db = story.open().unwrap();
    // The last commit is made durable once more, under the history that begins here.
    story.sync(&db);
    story.drop(db);
    let db = story.open().unwrap();
    story.checkpoint(&db);
    story.close(db);
    assert_eq!(*story.errors.borrow(), [""; 0]);
    let states = story.states.borrow();
    let mut images = 0;
    for n in story.disk.crash_points() {
        for image in story.disk.images(n, &Budget::default()) {
            images += 1;
            check_image(&image.storage(), &story.promised(n), &states)
                .unwrap_or_else(|wrong| panic!("{}: {wrong}\n{}", image.id(), image.describe()));
        }
    }
    assert!(images > 1_000, "{images}");
}
