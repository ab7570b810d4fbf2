//! Errors on order: which operation fails, how, and how often.

use std::io::ErrorKind;

/// How an operation fails. One that the fault does not fit, such as a rename and a short write, goes well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Any operation: it fails with this error and changes nothing.
    Error(ErrorKind),
    /// Writes, and what else needs room (new files and directories, a longer length): `StorageFull` once `after` bytes
    /// have been written. What fits is written before the error. For ever: this many bytes are all that is left.
    NoSpace {
        /// Bytes that still fit.
        after: usize,
    },
    /// A write: says Ok to at most this many bytes of it; 0 too.
    ShortWrite(usize),
    /// A read or a write: fails with `Interrupted`, as a system call that a signal broke off. Always once, for those
    /// who try again may do so without end.
    Interrupted,
    /// A sync of a file or a directory fails.
    SyncFails {
        /// What becomes of that which was to be synced.
        dirty: Dirty,
    },
    /// A sync of a file or a directory says Ok and makes nothing durable. A later one that is honest does.
    SyncLies,
}

/// What a failed sync leaves of that which was to be synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// It waits for the next sync.
    Kept,
    /// The system forgets that it is not on the disk. It is read back as if it were, the next sync says Ok, and a crash
    /// may lose it all the same, as ext4 and XFS do (Rebello et al., "Can Applications Recover from fsync Failures?",
    /// ATC'20).
    Dropped,
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// At the operation of that number only.
    Once,
    /// At that operation and at every one behind it.
    Forever,
}

/// What a fault can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Read,
    Write,
    Grow,
    Sync,
    Other,
}

#[derive(Clone, Debug)]
struct Planned {
    at: u64,
    fault: Fault,
    repeat: Repeat,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Planned>,
    pub(super) hits: u64,
}

impl Faults {
    pub(super) fn plan(&mut self, at: u64, fault: Fault, repeat: Repeat) {
        self.planned.push(Planned { at, fault, repeat });
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    /// What strikes the operation `op`, which writes `len` bytes.
    pub(super) fn strike(&mut self, op: u64, class: Class, len: usize) -> Option<Fault> {
        let due = |planned: &Planned| match planned.repeat {
            Repeat::Once => planned.at == op,
            Repeat::Forever => planned.at <= op,
        };
        let at = self.planned.iter().position(|planned| due(planned) && planned.fault.fits(class, len))?;
        let struck = self.planned.get_mut(at)?;
        let fault = struck.fault;
        match &mut struck.fault {
            Fault::Interrupted => _ = self.planned.remove(at),
            Fault::NoSpace { after } if class == Class::Write => {
                *after = after.saturating_sub(len);
                if matches!(fault, Fault::NoSpace { after } if len <= after) {
                    return None;
                }
            }
            _ => {}
        }
        self.hits += 1;
        Some(fault)
    }
}

impl Fault {
    fn fits(self, class: Class, len: usize) -> bool {
        match self {
            Fault::Error(_) => true,
            Fault::NoSpace { after } => (class == Class::Write && len > 0) || (class == Class::Grow && after == 0),
            Fault::ShortWrite(at_most) => class == Class::Write && len > at_most,
            Fault::Interrupted => matches!(class, Class::Read | Class::Write),
            Fault::SyncFails { .. } | Fault::SyncLies => class == Class::Sync,
        }
    }
}
