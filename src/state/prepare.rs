//! A change of one record in two steps: all that can be found out about it while others read, and what is left.

use super::{State, TableState};
use crate::row::Summary;
use crate::value::Key;

/// What is known of a change before it is made.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Of the record to be put, and the number of its shape; `None` where the record goes.
    new: Option<(Option<usize>, Summary)>,
    /// Of the record that is there.
    old: Option<Summary>,
}

impl State {
    /// Looks at all that putting a valid row, or taking the one that is there away, will touch: `stored` gets what the
    /// table is to hold. `None` where something would have to be copied or added first.
    pub(crate) fn prepare(&self, table: &str, key: &Key, row: Option<&[u8]>, stored: &mut Vec<u8>) -> Option<Prepared> {
        let (is_shared, table) = self.tables.look(table);
        table.filter(|_| !is_shared)?.prepare(key, row, stored)
    }

    /// Makes the change that was [prepared](Self::prepare) on this state.
    pub(crate) fn apply_prepared(&mut self, table: &str, key: &Key, prepared: &Prepared, stored: &[u8]) {
        if let Some(table) = self.tables.get_mut(table) {
            table.apply_prepared(key, prepared, stored);
        }
    }
}

impl TableState {
    fn prepare(&self, key: &Key, row: Option<&[u8]>, stored: &mut Vec<u8>) -> Option<Prepared> {
        let (is_shared, old) = self.rows.look(key);
        if is_shared {
            return None;
        }
        let old = old.map(|row| self.shapes.summary(row));
        let new = match row {
            Some(row) => Some(self.shapes.prepare(self.shapes.split(row), stored)?),
            None => None,
        };
        Some(Prepared { new, old })
    }

    fn apply_prepared(&mut self, key: &Key, prepared: &Prepared, stored: &[u8]) {
        match prepared.new {
            Some((number, new)) => {
                self.rows.insert(key.clone(), stored, |_| ());
                self.shapes.had(number);
                self.count_key(key);
                self.count_in(new);
            }
            None => _ = self.rows.remove(key, |_| ()),
        }
        self.forget(prepared.old);
    }
}
