//! Histories that end before their first commit.

use std::io::ErrorKind;

use dictdb::Durability;
use dictdb::sim::{Fault, Repeat};

use crate::story::Story;

/// A close that fails before its seal leaves a segment without commits. The history that begins behind it has a
/// checkpoint at its first seq; where none of its commits is proven, the one after it begins at the same place, and the
/// log does not know the checkpoint's history.
#[test]
fn a_checkpoint_of_a_history_without_proven_commits_never_hides_the_commits_behind_it() {
    let mut reopened = 0;
    for at in 1.. {
        let story = Story::new(Durability::Sync);
        let db = story.open().unwrap();
        story.put(&db, 1, 40);
        story.put(&db, 2, 40);
        story.disk.fail_at(story.disk.op_count() + at, Fault::Error(ErrorKind::Other), Repeat::Once);
        story.close(db);
        if story.disk.fault_hits() == 0 {
            break;
        }
        story.disk.clear_faults();
        story.errors.borrow_mut().clear();
        for id in 3..6 {
            let db = story.open();
            let db = db.unwrap_or_else(|| panic!("operation {at} of close failed: {:?}", story.errors.borrow()));
            if id == 3 {
                story.checkpoint(&db);
            }
            story.put(&db, id, 40);
            story.drop(db);
            reopened += 1;
        }
        let db = story.open();
        let db = db.unwrap_or_else(|| panic!("operation {at} of close failed: {:?}", story.errors.borrow()));
        let states = story.states.borrow();
        assert_eq!(states.get(&db.seq().get()), Some(&crate::story::rows_of(&db)));
        assert_eq!(db.seq().get(), 6, "operation {at} of close failed");
    }
    assert!(reopened > 10, "{reopened}");
}
