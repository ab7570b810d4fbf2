//! Runs the workloads: with one engine after the other, or with all of them in turns.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::args::Settings;
use crate::engines::{self, Entry, Res};
use crate::machine;
use crate::measured::{self, All, Measured};
use crate::report;
use crate::session::Session;
use crate::workloads::{self, How, Job, Outcome, State, Workload};

pub(crate) fn run(settings: &Settings) -> Res<()> {
    let mut runner = Runner::new(settings)?;
    let mut left: Vec<&'static Workload> =
        workloads::all().into_iter().filter(|w| settings.workloads.iter().any(|n| n == w.name)).collect();
    while let Some(&first) = left.first() {
        let start = Instant::now();
        match &first.how {
            How::Alone(_) => runner.alone(first, settings.rounds)?,
            How::Once(_) => runner.alone(first, 1)?,
            How::Turns(turns) => {
                // Those that need the same before them share the processes.
                let state = turns.state;
                let group: Vec<_> = left.iter().copied().filter(|w| state_of(w) == Some(state)).collect();
                runner.in_turns(state, &group)?;
                left.retain(|w| state_of(w) != Some(state));
            }
        }
        left.retain(|w| w.name != first.name);
        eprintln!("took {:.0} s", start.elapsed().as_secs_f64());
        // After each, so that a long run that is stopped has told what it had found.
        measured::write(&settings.out, &runner.all)?;
        report::write(&settings.out, &runner.all)?;
    }
    print!("{}", report::markdown(&runner.all)?);
    eprintln!("written: {}", settings.out.join("RESULTS.md").display());
    Ok(())
}

fn state_of(workload: &Workload) -> Option<State> {
    match &workload.how {
        How::Turns(turns) => Some(turns.state),
        How::Alone(_) | How::Once(_) => None,
    }
}

struct Runner<'a> {
    settings: &'a Settings,
    entries: Vec<&'static Entry>,
    /// Of a workload that was not run yet.
    blank: Measured,
    all: All,
}

impl Runner<'_> {
    fn new(settings: &Settings) -> Res<Runner<'_>> {
        let (mut entries, mut absent) = (Vec::new(), Vec::new());
        for entry in engines::all().into_iter().filter(|e| settings.engines.iter().any(|n| n == e.name)) {
            match (entry.missing)() {
                Some(why) => absent.push((entry.name.to_owned(), why)),
                None => entries.push(entry),
            }
        }
        let blank = Measured {
            records: settings.records,
            rounds: settings.rounds,
            seconds: settings.seconds,
            machine: machine::description(&settings.dir),
            engines: entries.iter().map(|entry| (entry.name.to_owned(), machine::version_of(entry))).collect(),
            absent,
            ..Measured::default()
        };
        Ok(Runner { settings, entries, blank, all: measured::read(&settings.out)? })
    }

    /// The engines that a workload is for, in another order each time, the same in every run: nobody always runs first,
    /// or always behind one that leaves the disk busy, or idle.
    fn suited(&self, workload: &Workload, turn: usize) -> Vec<&'static Entry> {
        let mut suited: Vec<_> = self.entries.iter().copied().filter(|entry| workload.suits(entry)).collect();
        fastrand::Rng::with_seed(turn as u64).shuffle(&mut suited);
        suited
    }

    fn begin(&self, workload: &Workload) -> Measured {
        let engines = self.blank.engines.iter();
        let engines = engines.filter(|(name, _)| engines::by_name(name).is_some_and(|e| workload.suits(e))).cloned();
        Measured { workload: workload.name.to_owned(), engines: engines.collect(), ..self.blank.clone() }
    }

    fn job(&self, workload: &str, entry: &Entry, dir: &Path, state: Option<State>) -> Job {
        Job {
            workload: workload.to_owned(),
            engine: entry.name.to_owned(),
            dir: dir.to_owned(),
            records: self.settings.records,
            seconds: self.settings.seconds,
            state,
        }
    }

    fn dir(&self) -> Res<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("peers-").tempdir_in(&self.settings.dir)?)
    }

    fn alone(&mut self, workload: &'static Workload, rounds: usize) -> Res<()> {
        eprintln!("{}: {}", workload.name, workload.title);
        let mut measured = Measured { rounds, ..self.begin(workload) };
        for round in 0..rounds {
            let mut figures = Vec::new();
            for entry in self.suited(workload, round) {
                if failed(&measured, entry) {
                    continue;
                }
                let start = Instant::now();
                let dir = self.dir()?;
                let outcome = in_child(&self.job(workload.name, entry, dir.path(), None));
                dir.close()?;
                // What the disk still has to write of these files is not the next engine's to pay for.
                Command::new("sync").arg("-f").arg(&self.settings.dir).status()?;
                if let Ok(outcome) = &outcome {
                    let shown: Vec<String> = outcome
                        .metrics
                        .iter()
                        .map(|(key, value)| format!("{key} {}", report::figure(*value)))
                        .collect();
                    let took = start.elapsed().as_secs_f64();
                    eprintln!("  round {} {:<14} {took:>6.1} s  {}", round + 1, entry.name, shown.join(", "));
                }
                note(&mut measured, entry, outcome, &mut figures);
            }
            measured.turns.push(figures);
        }
        self.all.insert(workload.name.to_owned(), measured);
        Ok(())
    }

    fn in_turns(&mut self, state: State, group: &[&'static Workload]) -> Res<()> {
        let mut all: Vec<Measured> = group.iter().map(|workload| self.begin(workload)).collect();
        let mut sessions = Vec::new();
        for round in 0..self.settings.rounds {
            if round == 0 || state != State::Files {
                sessions = self.start(state, group, round, &mut all)?;
            }
            for (workload, measured) in group.iter().zip(&mut all) {
                let How::Turns(turns) = &workload.how else { continue };
                eprintln!("{}, round {}: {}", workload.name, round + 1, workload.title);
                let begin = Instant::now();
                self.ask(&mut sessions, workload, "begin", measured, round);
                let in_a_round = (turns.in_a_round)(self.settings.seconds);
                for turn in 0..in_a_round {
                    let turn = round as u64 * in_a_round + turn;
                    let figures = self.ask(&mut sessions, workload, &turn.to_string(), measured, turn as usize);
                    measured.turns.push(figures);
                }
                eprintln!("  {:.0} s", begin.elapsed().as_secs_f64());
            }
            if state != State::Files || round + 1 == self.settings.rounds {
                for session in sessions.drain(..) {
                    let name = session.entry.name;
                    if let Err(e) = session.end() {
                        eprintln!("  {name} did not close: {e}");
                    }
                }
                Command::new("sync").arg("-f").arg(&self.settings.dir).status()?;
            }
        }
        for measured in all {
            self.all.insert(measured.workload.clone(), measured);
        }
        Ok(())
    }

    /// A process of each engine that has work in the group, prepared one after the other.
    fn start(
        &self,
        state: State,
        group: &[&'static Workload],
        round: usize,
        all: &mut [Measured],
    ) -> Res<Vec<Session>> {
        let mut sessions = Vec::new();
        for &entry in &self.entries {
            let mut wanted = group.iter().zip(&mut *all).filter(|(w, m)| w.suits(entry) && !failed(m, entry));
            let Some((_, measured)) = wanted.next() else { continue };
            let begin = Instant::now();
            let dir = self.dir()?;
            let job = self.job("", entry, dir.path(), Some(state));
            match Session::start(entry, dir, &job) {
                Ok(session) => sessions.push(session),
                Err(e) => note(measured, entry, Err(e), &mut Vec::new()),
            }
            eprintln!("  round {} {:<14} ready after {:.1} s", round + 1, entry.name, begin.elapsed().as_secs_f64());
        }
        Command::new("sync").arg("-f").arg(&self.settings.dir).status()?;
        Ok(sessions)
    }

    /// Has each engine do a turn; one that fails is out, of what the group does after it, too.
    fn ask(
        &self,
        sessions: &mut Vec<Session>,
        workload: &Workload,
        what: &str,
        measured: &mut Measured,
        turn: usize,
    ) -> Vec<measured::Figures> {
        let mut figures = Vec::new();
        for entry in self.suited(workload, turn) {
            let Some(at) = sessions.iter().position(|session| session.entry.name == entry.name) else { continue };
            let outcome = sessions[at].ask(workload.name, what);
            if outcome.is_err() {
                drop(sessions.remove(at));
            }
            note(measured, entry, outcome, &mut figures);
        }
        figures
    }
}

fn failed(measured: &Measured, entry: &Entry) -> bool {
    measured.failures.iter().any(|(name, _)| name == entry.name)
}

fn note(measured: &mut Measured, entry: &Entry, outcome: Res<Outcome>, figures: &mut Vec<measured::Figures>) {
    match outcome {
        Ok(outcome) => {
            for note in &outcome.notes {
                let note = format!("{}: {note}", entry.title);
                if !measured.notes.contains(&note) {
                    measured.notes.push(note);
                }
            }
            figures.push((entry.name.to_owned(), outcome.metrics));
        }
        Err(e) => {
            eprintln!("  {:<14} failed: {e}", entry.name);
            measured.failures.push((entry.name.to_owned(), e.to_string()));
        }
    }
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
    let job: Job = serde_json::from_str(job)?;
    if job.state.is_some() {
        return workloads::serve(&job);
    }
    println!("{}", serde_json::to_string(&workloads::run(&job, started)?)?);
    Ok(())
}
