//! okaywal: a write-ahead log alone. Every commit of it is synced; what writers wait for together is synced once.

use okaywal::{Configuration, LogVoid, WriteAheadLog};

use super::{Capability, Engine, Entry, Kind, Res, present};
use crate::data::{User, encoded};

pub(crate) static ENTRY: Entry = Entry {
    name: "okaywal",
    title: "okaywal",
    package: Some("okaywal"),
    kind: Kind::Log,
    unsynced: "-",
    synced: "always; checkpoints that do nothing",
    capabilities: &[Capability::Synced],
    open: |dir, _| Ok(Box::new(Okay(Configuration::default_for(dir.join("okaywal")).open(LogVoid)?))),
    missing: present,
};

struct Okay(WriteAheadLog);

impl Engine for Okay {
    fn insert(&self, user: &User) -> Res<()> {
        self.insert_many(std::slice::from_ref(user))
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let mut entry = self.0.begin_entry()?;
        for user in users {
            encoded(user, |bytes| entry.write_chunk(bytes).map(drop))??;
        }
        entry.commit()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Res<()> {
        Ok(self.0.shutdown()?)
    }
}
