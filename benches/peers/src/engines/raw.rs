//! The limit of the disk: writes at an offset, into a file that was filled with zeros before, and `fdatasync`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use super::{Capability, Engine, Entry, Kind, Promise, Res, present};
use crate::data::{User, encoded};

pub(crate) static ENTRY: Entry = Entry {
    name: "raw",
    title: "raw file",
    package: None,
    kind: Kind::Limit,
    unsynced: "`pwrite` of the record's bytes and 24 more, the size of a frame's head",
    synced: "the same and `fdatasync`, one writer at a time, into a file filled beforehand, a page at a time",
    capabilities: &[Capability::Unsynced, Capability::Synced],
    open: |dir, promise| {
        let file = File::options().create_new(true).write(true).open(dir.join("raw"))?;
        // A page at a time: small writes, and syncs, cost the system more where pages were written together.
        let zeros = [0; 4_096];
        for at in (0..BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Box::new(Raw { state: Mutex::new((0, Vec::new())), file, sync: promise == Promise::Synced }))
    },
    missing: present,
};

/// The file's length; writing begins at its start again once it is full, so that no write has to make room.
const BYTES: u64 = 256 << 20;
const HEAD: usize = 24;

struct Raw {
    state: Mutex<(u64, Vec<u8>)>,
    file: File,
    sync: bool,
}

impl Engine for Raw {
    fn insert(&self, user: &User) -> Res<()> {
        self.insert_many(std::slice::from_ref(user))
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let (at, buffer) = &mut *self.state.lock().map_err(|_| "a writer panicked")?;
        buffer.clear();
        buffer.extend_from_slice(&[0xA5; HEAD]);
        for user in users {
            encoded(user, |bytes| buffer.extend_from_slice(bytes))?;
        }
        if *at + buffer.len() as u64 > BYTES {
            *at = 0;
        }
        self.file.write_all_at(buffer, *at)?;
        if self.sync {
            self.file.sync_data()?;
        }
        *at += buffer.len() as u64;
        Ok(())
    }
}
