//! A change of one record in two steps: all that can be found out about it while others read, and what is left.

use super::{State, TableState};
use crate::row::Summary;
use crate::value::Key;

/// Where a record is, or would be.
#[derive(Debug)]
pub(crate) struct Place {
    /// A copy of the state has nodes on the way there, which a change would have to copy.
    is_shared: bool,
    /// Of the record that is there.
    old: Option<Summary>,
}

/// What is known of a change before it is made, which can be made in place.
#[derive(Debug)]
pub(crate) struct InPlace {
    /// Of the record to be put, and the number of its shape; `None` where the record goes.
    new: Option<(Option<usize>, Summary)>,
    /// Of the record that is there.
    old: Option<Summary>,
}

impl Place {
    pub(crate) fn is_taken(&self) -> bool {
        self.old.is_some()
    }
}

impl State {
    /// A table, and whether a copy of the state has it, so that a change would have to copy it.
    pub(crate) fn look(&self, table: &str) -> (bool, Option<&TableState>) {
        self.tables.look(table)
    }
}

impl TableState {
    /// Looks at all that a change of the record with this key will touch.
    pub(crate) fn look(&self, key: &Key, is_shared: bool) -> Place {
        let (path_is_shared, old) = self.rows.look(key);
        Place { is_shared: is_shared || path_is_shared, old: old.map(|row| self.shapes.summary(row)) }
    }

    /// Prepares a valid row to be put there, or for none, the record that is there to go: `stored` gets what the table
    /// is to hold. `None` where something would have to be copied or added first.
    pub(crate) fn in_place(&self, place: &Place, row: Option<&[u8]>, stored: &mut Vec<u8>) -> Option<InPlace> {
        if place.is_shared {
            return None;
        }
        let new = match row {
            Some(row) => Some(self.shapes.prepare(row, stored)?),
            None => None,
        };
        Some(InPlace { new, old: place.old })
    }

    /// Makes the change, which was prepared on this state.
    pub(crate) fn apply_in_place(&mut self, key: &Key, change: &InPlace, stored: &[u8]) {
        match change.new {
            Some((number, new)) => {
                self.rows.insert(key.clone(), stored, |_| ());
                self.shapes.had(number);
                self.count_key(key);
                self.count_in(new);
            }
            None => _ = self.rows.remove(key, |_| ()),
        }
        self.forget(change.old);
    }
}
