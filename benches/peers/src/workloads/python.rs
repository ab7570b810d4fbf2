//! python: the library that dictdb succeeds, and dictdb, in memory, with backups as JSON.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use dictdb::{BackupFormat, BackupManager, DictDb};

use super::{How, Job, Outcome, Workload, changed, less, more};
use crate::data::{User, shuffled, users};
use crate::engines::{Capability, Entry, Res, dctdb};

pub(crate) static PYTHON: Workload = Workload {
    name: "python",
    title: "The Python library that dictdb succeeds: a fifth of the records, in memory, backups as JSON",
    needs: &[Capability::Json],
    only: None,
    limit: None,
    metrics: &[
        more("insert", "inserts, one a commit", "records/s"),
        less("full", "a full JSON backup takes", "s"),
        less("full_bytes", "is", "MB"),
        less("load", "its load takes", "s"),
        less("delta", "an incremental backup after 1 % changed takes", "ms"),
        less("delta_bytes", "is", "MB"),
    ],
    how: How::Alone(run),
};

const SCRIPT: &str = include_str!("../../python/dctdb_peer.py");

fn run(job: &Job, entry: &Entry) -> Res<Outcome> {
    let records = job.records / 5;
    let all = users(&shuffled(records));
    let mut rng = fastrand::Rng::with_seed(31);
    let changes: Vec<User> = (0..records / 100).map(|_| changed(&mut rng, records)).collect();
    let backups = job.dir.join("backups");
    std::fs::create_dir(&backups)?;
    if entry.name == dctdb::ENTRY.name { python(job, &all, &changes, &backups) } else { ours(&all, &changes, &backups) }
}

fn ours(all: &[User], changes: &[User], backups: &Path) -> Res<Outcome> {
    let mut outcome = Outcome::default();
    let db = DictDb::new();
    db.create_table("users", "id")?;
    let table = db.typed::<User>("users")?;
    let start = Instant::now();
    for user in all {
        table.insert(user)?;
    }
    outcome.set("insert", all.len() as f64 / start.elapsed().as_secs_f64());
    let manager = BackupManager::builder(&db, backups).file_format(BackupFormat::Json).incremental(true).build()?;
    let start = Instant::now();
    let full = manager.backup_full()?;
    outcome.set("full", start.elapsed().as_secs_f64());
    outcome.set("full_bytes", full.bytes as f64 / 1e6);
    for user in changes {
        table.upsert(user)?;
    }
    let start = Instant::now();
    let delta = manager.backup_delta()?;
    outcome.set("delta", start.elapsed().as_secs_f64() * 1e3);
    outcome.set("delta_bytes", delta.bytes as f64 / 1e6);
    let start = Instant::now();
    let loaded = DictDb::load(full.file)?;
    outcome.set("load", start.elapsed().as_secs_f64());
    if loaded.table("users")?.len()? != all.len() {
        return Err("records are missing after the load".into());
    }
    Ok(outcome)
}

fn python(job: &Job, all: &[User], changes: &[User], backups: &Path) -> Res<Outcome> {
    let lines = |name: &str, users: &[User]| {
        let path = job.dir.join(name);
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        for user in users {
            serde_json::to_writer(&mut file, user)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        Res::Ok(path)
    };
    let script = job.dir.join("dctdb_peer.py");
    std::fs::write(&script, SCRIPT)?;
    let output = Command::new(dctdb::interpreter())
        .arg(&script)
        .arg(lines("records", all)?)
        .arg(lines("changes", changes)?)
        .arg(backups)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, why.lines().last().unwrap_or("no reason given")).into());
    }
    let answer = String::from_utf8(output.stdout)?;
    let figures: std::collections::BTreeMap<String, f64> =
        serde_json::from_str(answer.lines().last().ok_or("no figures")?)?;
    Ok(Outcome { metrics: figures.into_iter().collect(), notes: Vec::new() })
}
