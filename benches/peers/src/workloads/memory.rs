//! w9: bytes per record, in memory and on disk.

use super::{Job, Outcome, Workload, less};
use crate::data::{User, encoded, shuffled};
use crate::engines::{Capability, Entry, Promise, Res, bytes_on_disk};

pub(crate) static W9: Workload = Workload {
    name: "w9",
    title: "Bytes per record, beyond the record's own as postcard",
    needs: &[Capability::Unsynced, Capability::Bytes],
    only: None,
    limit: Some("btreemap"),
    metrics: &[
        less("anonymous", "in memory of the process (RssAnon)", "bytes"),
        less("resident", "the same and what it mapped of files (VmRSS)", "bytes"),
        less("loaded", "on disk after loading (dictdb: mostly log)", "bytes"),
        less("settled", "on disk, settled and closed (dictdb: mostly snapshot)", "bytes"),
    ],
    run: bytes,
};

/// A figure of /proc/self/status in bytes.
fn status(name: &str) -> Res<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such figure")?;
    let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}

fn bytes(job: &Job, entry: &Entry) -> Res<Outcome> {
    let ids = shuffled(job.records);
    let engine = (entry.open)(&job.dir, Promise::Unsynced)?;
    let before = (status("RssAnon")?, status("VmRSS")?);
    let mut own = 0;
    for ids in ids.chunks(1_000) {
        let users: Vec<User> = ids.iter().copied().map(User::new).collect();
        for user in &users {
            own += encoded(user, <[u8]>::len)?;
        }
        engine.insert_many(&users)?;
    }
    let records = job.records as f64;
    let own = own as f64 / records;
    let mut outcome = Outcome::default();
    outcome.set("anonymous", (status("RssAnon")? - before.0) / records - own);
    outcome.set("resident", (status("VmRSS")? - before.1) / records - own);
    let on_disk = || Res::Ok(bytes_on_disk(&job.dir)? as f64 / records - own);
    if entry.can(Capability::Reopen) {
        outcome.set("loaded", on_disk()?);
        engine.settle()?;
        engine.close()?;
        outcome.set("settled", on_disk()?);
    }
    Ok(outcome)
}
