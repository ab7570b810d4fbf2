//! A thread that syncs a file while more of it is written.

use std::fs::File;
use std::io;
use std::sync::Arc;
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
    pub(super) fn start(file: Arc<File>) -> io::Result<Syncer> {
        let (again, asked) = sync_channel(0);
        let syncs = move || {
            file.sync_data()?;
            while asked.recv().is_ok() {
                file.sync_data()?;
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
