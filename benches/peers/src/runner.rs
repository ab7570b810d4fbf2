//! Runs every workload with every engine in turn, each in a process and a directory of its own.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::args::Settings;
use crate::engines::{self, Entry, Res};
use crate::report::{self, Failure, Measured};
use crate::workloads::{self, Job, Outcome, Workload};

pub(crate) fn run(settings: &Settings) -> Res<()> {
    let named: Vec<&Entry> =
        engines::all().into_iter().filter(|e| settings.engines.iter().any(|n| n == e.name)).collect();
    let (mut entries, mut absent) = (Vec::new(), Vec::new());
    for entry in named {
        match (entry.missing)() {
            Some(why) => absent.push((entry, why)),
            None => entries.push(entry),
        }
    }
    let mut measured = Vec::new();
    for workload in workloads::all().into_iter().filter(|w| settings.workloads.iter().any(|n| n == w.name)) {
        eprintln!("{}: {}", workload.name, workload.title);
        let suited: Vec<&Entry> = entries.iter().copied().filter(|entry| workload.suits(entry)).collect();
        measured.push(measure(settings, workload, &suited));
        // After each workload, so that a long run that is stopped has told what it had found.
        report::write(settings, &measured, &absent)?;
    }
    print!("{}", report::markdown(settings, &measured, &absent));
    eprintln!("written: {}", settings.out.join("RESULTS.md").display());
    Ok(())
}

fn measure(settings: &Settings, workload: &'static Workload, entries: &[&'static Entry]) -> Measured {
    let mut measured = Measured { workload, rounds: Vec::new(), notes: Vec::new(), failures: Vec::new() };
    for round in 0..settings.rounds {
        let mut outcomes = Vec::new();
        for at in 0..entries.len() {
            // A B C, then B C A: nobody always runs first, or always behind the same one.
            let entry = entries[(at + round) % entries.len()];
            if measured.failures.iter().any(|failure| failure.engine == entry.name) {
                continue;
            }
            let start = Instant::now();
            match one(settings, workload, entry) {
                Ok(outcome) => {
                    let shown: Vec<String> = outcome
                        .metrics
                        .iter()
                        .map(|(key, value)| format!("{key} {}", report::figure(*value)))
                        .collect();
                    let took = start.elapsed().as_secs_f64();
                    eprintln!("  round {} {:<14} {took:>6.1} s  {}", round + 1, entry.name, shown.join(", "));
                    for note in &outcome.notes {
                        let note = format!("{}: {note}", entry.title);
                        if !measured.notes.contains(&note) {
                            measured.notes.push(note);
                        }
                    }
                    outcomes.push((entry.name, outcome.metrics));
                }
                Err(e) => {
                    eprintln!("  round {} {:<14} failed: {e}", round + 1, entry.name);
                    measured.failures.push(Failure { engine: entry.name, why: e.to_string() });
                }
            }
        }
        measured.rounds.push(outcomes);
    }
    measured
}

fn one(settings: &Settings, workload: &Workload, entry: &Entry) -> Res<Outcome> {
    let dir = tempfile::Builder::new().prefix("peers-").tempdir_in(&settings.dir)?;
    let job = Job {
        workload: workload.name.to_owned(),
        engine: entry.name.to_owned(),
        dir: dir.path().to_owned(),
        records: settings.records,
        seconds: settings.seconds,
        large: settings.large,
    };
    let outcome = in_child(&job);
    dir.close()?;
    // What the disk still has to write of these files is not the next engine's to pay for.
    Command::new("sync").arg("-f").arg(&settings.dir).status()?;
    outcome
}

/// Runs the job in a new process: no allocator, cache or background thread of one engine meets another's.
pub(crate) fn in_child(job: &Job) -> Res<Outcome> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--child")
        .arg(serde_json::to_string(job)?)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, why.lines().last().unwrap_or("no reason given")).into());
    }
    let answer = String::from_utf8(output.stdout)?;
    Ok(serde_json::from_str(answer.lines().last().ok_or("a child without an answer")?)?)
}

/// This process is such a child.
pub(crate) fn child(job: &str, started: Instant) -> Res<()> {
    let outcome = workloads::run(&serde_json::from_str(job)?, started)?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}
