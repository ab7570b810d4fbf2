//! A thread that syncs a file while more of it is written.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// Syncs of a file, one after the other, beside whoever writes it. The system tells a failure to the first that asks, and to
/// nobody else: so what these met has to be asked for in the [end](Self::end).
pub(super) struct Syncer {
    /// Takes nothing while a sync goes on.
    again: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncer {
    /// Begins the first one. An error where no thread can be had.
    pub(super) fn start(mut sync: impl FnMut() -> io::Result<()> + Send + 'static) -> io::Result<Syncer> {
        let (again, asked) = sync_channel(0);
        let syncs = move || {
            sync()?;
            while asked.recv().is_ok() {
                sync()?;
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("dictdb-sync".to_owned()).spawn(syncs)?;
        Ok(Syncer { again, thread })
    }

    /// Begins another one, unless one goes on.
    pub(super) fn again(&self) {
        let _ = self.again.try_send(());
    }

    /// Waits for the one that goes on, and says whether one has failed.
    pub(super) fn end(self) -> io::Result<()> {
        drop(self.again);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn syncs_are_made_as_often_as_asked_for_one_after_the_other_and_the_first_failure_is_told() {
        let (begun, is_begun) = mpsc::channel();
        let mut left = 3;
        let sync = move || {
            left -= 1;
            begun.send(left).unwrap();
            if left == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        };
        let syncer = Syncer::start(sync).unwrap();
        assert_eq!(is_begun.recv().unwrap(), 2);
        for n in [1, 0] {
            // While the one before goes on, none is begun.
            let mut tries = 0..1_000;
            let begins = tries.any(|_| {
                syncer.again();
                is_begun.recv_timeout(Duration::from_millis(10)) == Ok(n)
            });
            assert!(begins, "a sync when {n} are left");
        }
        syncer.again();
        assert_eq!(syncer.end().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(is_begun.recv().is_err(), "none is made behind one that failed");
    }
}
