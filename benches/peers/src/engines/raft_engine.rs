//! raft-engine: the log of TiKV, with an index in memory.

use raft_engine::{Config, LogBatch};

use super::{Capability, Engine, Entry, Kind, Promise, Res, present};
use crate::data::{User, encoded, key};

pub(crate) static ENTRY: Entry = Entry {
    name: "raft-engine",
    title: "raft-engine",
    package: Some("raft-engine"),
    kind: Kind::Log,
    unsynced: "`write(batch, false)`, no compression",
    synced: "`write(batch, true)`",
    capabilities: &[Capability::Unsynced, Capability::Synced],
    open: |dir, promise| {
        let dir = dir.join("raft-engine").to_str().ok_or("a path that is not UTF-8")?.to_owned();
        let mut config = Config { dir, ..Config::default() };
        config.batch_compression_threshold.0 = 0;
        Ok(Box::new(Raft { engine: raft_engine::Engine::open(config)?, sync: promise == Promise::Synced }))
    },
    missing: present,
};

/// The region that all records belong to.
const REGION: u64 = 1;

struct Raft {
    engine: raft_engine::Engine,
    sync: bool,
}

impl Engine for Raft {
    fn insert(&self, user: &User) -> Res<()> {
        self.insert_many(std::slice::from_ref(user))
    }

    fn insert_many(&self, users: &[User]) -> Res<()> {
        let mut batch = LogBatch::with_capacity(users.len());
        for user in users {
            encoded(user, |bytes| batch.put(REGION, key(user.id).to_vec(), bytes.to_vec()))??;
        }
        self.engine.write(&mut batch, self.sync)?;
        Ok(())
    }
}
