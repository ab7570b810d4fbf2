//! w9: bytes per record, in memory and on disk.

use std::path::Path;

use super::{How, Job, Outcome, Workload, less};
use crate::data::{encoded, shuffled, users};
use crate::engines::{Capability, Engine, Entry, Promise, Res, bytes_on_disk};

pub(crate) static W9: Workload = Workload {
    name: "w9",
    title: "Bytes per record, its own included",
    needs: &[Capability::Unsynced, Capability::Bytes],
    only: None,
    limit: Some("btreemap"),
    metrics: &[
        less("anonymous", "in memory of the process (RssAnon)", "bytes"),
        less("resident", "the same and what it mapped of files (VmRSS)", "bytes"),
        less("small", "on disk, closed, as small as its manual can make it (dictdb: the snapshot alone)", "bytes"),
        less("compressed", "the same compressed, where it is not but can be (dictdb: LZ4)", "bytes"),
        less("compressed_share", "compressed it is", "times the same without"),
        less("closed", "not compressed, and what it keeps beside it (dictdb: of its log)", "bytes"),
        less("loaded", "on disk after loading", "bytes"),
        less("log", "log written", "bytes"),
    ],
    how: How::Once(bytes),
};

/// A figure of the process's status in bytes.
fn status(process: &str, name: &str) -> Res<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such figure")?;
    let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}

/// Of a compressed copy, which is removed again.
fn compressed_bytes(engine: &dyn Engine, dir: &Path) -> Res<u64> {
    let dir = dir.join("compressed");
    std::fs::create_dir(&dir)?;
    let bytes = engine.backup_compressed(&dir)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(bytes)
}

fn bytes(job: &Job, entry: &Entry) -> Res<Outcome> {
    let ids = shuffled(job.records);
    let engine = (entry.open)(&job.dir, Promise::Unsynced)?;
    let process = engine.process().map_or_else(|| "self".to_owned(), |id| id.to_string());
    let memory = || Res::Ok((status(&process, "RssAnon")?, status(&process, "VmRSS")?));
    let before = memory()?;
    let mut own = 0;
    // A checkpoint between two looks shortens the log: only where it grew, it tells what its records took.
    let (mut log, mut logged, mut last) = (0, 0, engine.log_bytes());
    for ids in ids.chunks(1_000) {
        let users = users(ids);
        for user in &users {
            own += encoded(user, <[u8]>::len)?;
        }
        engine.insert_many(&users)?;
        if let (Some(now), Some(before)) = (engine.log_bytes(), last)
            && now > before
        {
            log += now - before;
            logged += users.len();
        }
        last = engine.log_bytes();
    }
    let after = memory()?;
    let records = job.records as f64;
    let mut outcome = Outcome::default();
    outcome.set("anonymous", (after.0 - before.0) / records);
    outcome.set("resident", (after.1 - before.1) / records);
    if logged > 0 {
        outcome.set("log", log as f64 / logged as f64);
    }
    if entry.can(Capability::Reopen) {
        outcome.set("loaded", bytes_on_disk(&job.dir)? as f64 / records);
        let snapshot = engine.snapshot_bytes()?;
        let compressed = entry.can(Capability::Compressed).then(|| compressed_bytes(&*engine, &job.dir)).transpose()?;
        engine.close_small()?;
        let closed = bytes_on_disk(&job.dir)?;
        let small = snapshot.unwrap_or(closed) as f64 / records;
        outcome.set("small", small);
        if let Some(bytes) = compressed {
            outcome.set("compressed", bytes as f64 / records);
            outcome.set("compressed_share", bytes as f64 / records / small);
        }
        outcome.set("closed", closed as f64 / records);
    }
    if entry.name == "btreemap" {
        outcome.notes.push(format!("a record's own bytes, as postcard: {:.1}", own as f64 / records));
    }
    Ok(outcome)
}
