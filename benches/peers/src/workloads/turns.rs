//! The side of a process that takes turns: prepares, and then does what its standard input says, line by line.

use std::hint::black_box;
use std::io::BufRead;

use super::{How, Job, Outcome, State, by_name, load, opens, synced};
use crate::data::shuffled_anew;
use crate::engines::{self, Capability, Engine, Entry, Promise, Res};

/// What it says to the process that started it, as a line each.
pub(crate) type Answer = Result<Outcome, String>;

/// Lines are `workload turn`; before a workload's first turn, `workload begin`. The end of the input is the end.
pub(crate) fn serve(job: &Job) -> Res<()> {
    let entry = engines::by_name(&job.engine).ok_or("no such engine")?;
    let engine = match prepare(job, entry) {
        Ok(engine) => engine,
        Err(e) => return answer(Err(e.to_string())),
    };
    answer(Ok(Outcome::default()))?;
    for line in std::io::stdin().lock().lines() {
        let outcome = obey(job, entry, &*engine, &line?).map_err(|e| e.to_string());
        let failed = outcome.is_err();
        answer(outcome)?;
        if failed {
            return Ok(());
        }
    }
    engine.close()
}

fn answer(answer: Answer) -> Res<()> {
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}

/// Stands where files alone matter.
struct Nothing;

impl Engine for Nothing {
    fn insert(&self, _: &crate::data::User) -> Res<()> {
        Err("files alone".into())
    }

    fn insert_many(&self, _: &[crate::data::User]) -> Res<()> {
        Err("files alone".into())
    }
}

fn prepare(job: &Job, entry: &Entry) -> Res<Box<dyn Engine>> {
    match job.state.ok_or("takes no turns")? {
        State::Empty => {
            let engine = (entry.open)(&job.dir, Promise::Synced)?;
            // Begins files and tables.
            synced::insert_next(&*engine)?;
            Ok(engine)
        }
        State::Loaded => {
            let engine = (entry.open)(&job.dir, Promise::Unsynced)?;
            load(&*engine, job.records)?;
            Ok(engine)
        }
        State::Files => {
            opens::prepare(job, entry)?;
            Ok(Box::new(Nothing))
        }
    }
}

fn obey(job: &Job, entry: &Entry, engine: &dyn Engine, line: &str) -> Res<Outcome> {
    let (name, what) = line.split_once(' ').ok_or("a line of two words")?;
    let How::Turns(turns) = &by_name(name)?.how else {
        return Err(format!("{name} takes no turns").into());
    };
    if what != "begin" {
        return (turns.turn)(job, entry, engine, what.parse()?);
    }
    if turns.state == State::Loaded && entry.can(Capability::Read) {
        engine.settle()?;
        // Compaction leaves caches cold: without this, whatever is measured first would be of another engine than the
        // rest.
        let mut reader = engine.reader()?;
        for id in shuffled_anew(job.records) {
            black_box(reader.get(id)?);
        }
    }
    Ok(Outcome::default())
}
