//! Where a sink's bytes go: hashed and written by whoever hands them over or, in a large file, by a thread of its own
//! beside the one that makes them.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};
use crate::file::give_way;
use crate::storage::WriteFile;

/// A file that is being written, with the hashes of what went into it so far.
pub(super) struct Target {
    file: Box<dyn WriteFile>,
    /// The temporary name, for messages.
    path: PathBuf,
    content: Xxh3Default,
    crc: crc32fast::Hasher,
    /// Bytes written since the last sync.
    unsynced: usize,
}

/// The disk is kept busy with what is there: so many bytes are synced while more are made, so that the last sync, for
/// which everybody waits, finds little left to do.
const SYNC_BYTES: usize = 16 << 20;

impl Target {
    pub(super) fn new(file: Box<dyn WriteFile>, path: PathBuf) -> Box<Target> {
        Box::new(Target { file, path, content: Xxh3Default::new(), crc: crc32fast::Hasher::new(), unsynced: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.content.update(bytes);
        self.crc.update(bytes);
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.unsynced = self.unsynced.saturating_add(bytes.len());
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        self.unsynced = 0;
        self.file.sync().map_err(Error::io("sync", &self.path))
    }

    pub(super) fn content(&self) -> u128 {
        self.content.digest128()
    }

    pub(super) fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }
}

/// A target on a thread of its own.
pub(super) struct Behind {
    to_write: SyncSender<Vec<u8>>,
    written: Receiver<Vec<u8>>,
    thread: JoinHandle<(Box<Target>, Result<()>)>,
}

/// Buffers on their way to the thread: what it writes while the next are filled.
const BUFFERS: usize = 4;

impl Behind {
    /// Gives the target back where there is no thread to be had.
    pub(super) fn start(target: Box<Target>) -> Result<Behind, Box<Target>> {
        let (to_write, next) = sync_channel::<Vec<u8>>(BUFFERS);
        let (done, written) = sync_channel::<Vec<u8>>(BUFFERS);
        // Handed over once the thread is there: one that cannot be started would take the target with it.
        let (hand_over, handed_over) = sync_channel::<Box<Target>>(1);
        let work = move || {
            give_way();
            let Ok(mut target) = handed_over.recv() else { unreachable!("it is handed over at once") };
            for mut bytes in next {
                if let Err(error) = target.write(&bytes) {
                    return (target, Err(error));
                }
                bytes.clear();
                let _ = done.try_send(bytes);
            }
            (target, Ok(()))
        };
        match thread::Builder::new().name("dictdb-write".to_owned()).spawn(work) {
            Ok(thread) => {
                let _ = hand_over.send(target);
                Ok(Behind { to_write, written, thread })
            }
            Err(_) => Err(target),
        }
    }

    /// Takes a buffer over and gives another one, empty; `None` once a write has failed, which [`Behind::end`] tells.
    pub(super) fn write(&self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        self.to_write.send(bytes).ok()?;
        Some(self.written.try_recv().unwrap_or_default())
    }

    /// Returns once nothing is written any more; what became of it nobody asks.
    pub(super) fn give_up(self) {
        let Behind { to_write, written, thread } = self;
        drop((to_write, written));
        let _ = thread.join();
    }

    /// Returns once all is written.
    pub(super) fn end(self) -> (Box<Target>, Result<()>) {
        let Behind { to_write, written, thread } = self;
        drop((to_write, written));
        match thread.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
