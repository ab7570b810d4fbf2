//! A process that writes from four threads and is killed at any moment: while it opens, writes, or takes a checkpoint.
//!
//! The process is this test binary itself, started anew for one test. It tells of each step by a line on its error
//! stream, written at once; the kill comes after a line that chance names. What survives a loss of power is shown by
//! the simulator; a kill shows that locks, processes and real files behave as it assumes.

use std::ffi::OsStr;
use std::hint::spin_loop;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use dictdb::{CheckpointPolicy, DictDb, Error, Options, record};

/// So that a process which hangs fails its test. No test waits for this to pass.
const GIVE_UP: Duration = Duration::from_secs(120);

/// Another process that runs one test of this binary.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
    /// All that it said.
    pub(crate) said: Vec<String>,
}

impl Child {
    /// Starts `test`, which finds in the environment that it is the child.
    pub(crate) fn start(test: &str, environment: &[(&str, &OsStr)]) -> Child {
        let mut command = Child::command(&std::env::current_exe().unwrap(), test);
        Child::spawn(command.envs(environment.iter().copied())).unwrap()
    }

    pub(crate) fn command(program: &Path, test: &str) -> Command {
        let mut command = Command::new(program);
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        command
    }

    pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Child> {
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = pipes.spawn()?;
        let from = BufReader::new(process.stderr.take().unwrap());
        let (to, lines) = channel();
        thread::spawn(move || from.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        Ok(Child { process, lines, said: Vec::new() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next line; `None` when the process has ended.
    pub(crate) fn line(&mut self) -> Option<&str> {
        match self.lines.recv_timeout(GIVE_UP) {
            Ok(line) => self.said.push(line),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                let _ = self.process.kill();
                panic!("process {} said nothing more after {:?}", self.process.id(), self.said.last());
            }
        }
        self.said.last().map(String::as_str)
    }

    /// Reads on until it has said `line`.
    pub(crate) fn wait_for(&mut self, line: &str) {
        while self.line().unwrap_or_else(|| panic!("it ended without {line:?}")) != line {}
    }

    /// Ends it as `kill -9` does, and reads what it had said by then.
    pub(crate) fn kill(mut self) -> (Vec<String>, ExitStatus) {
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        while self.line().is_some() {}
        (self.said, status)
    }
}

/// One line, in one write, that is out when this returns.
pub(crate) fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Waits until it is killed, or the other process is gone.
pub(crate) fn wait_for_the_end() {
    let _ = std::io::stdin().read(&mut [0]);
}

const TEST: &str = "kill::a_process_killed_at_any_moment_loses_no_acknowledged_commit_and_leaves_no_part_of_one";
const DIR: &str = "DICTDB_KILL_DIR";
const AUTOMATIC: &str = "DICTDB_KILL_AUTOMATIC";
const SEED: &str = "DICTDB_KILL_SEED";
const DIRECTORIES: usize = 10;
const ROUNDS: usize = 30;
/// Directories that are being worked on at a time.
const LANES: usize = 3;
const WRITERS: usize = 4;
/// By one writer in one process: more than are ever waited for.
const COMMITS: i64 = 60;

fn options(automatic: bool) -> Options {
    let policy = CheckpointPolicy::automatic().log_bytes(6 << 10);
    Options::new().segment_bytes(4 << 10).preallocate_bytes(2 << 10).checkpoint(if automatic {
        policy
    } else {
        CheckpointPolicy::manual()
    })
}

fn table(writer: usize) -> String {
    format!("t{writer}")
}

fn set_up(db: &DictDb) {
    let tables = (0..WRITERS).map(table).chain(["counters".to_owned(), "wide".to_owned(), "parent".to_owned()]);
    db.transaction(|tx| tables.into_iter().try_for_each(|name| tx.create_table(&name, "id").map(drop))).unwrap();
}

/// The `n`th commit of a writer: a record, and in two of three cases what must come with it.
fn commit(db: &DictDb, writer: usize, n: i64) {
    let own = record! { "id": n, "text": format!("{writer} {n} ").repeat((n as usize * 7 + writer) % 40) };
    let with = |n: i64| (0..3).map(move |part| format!("{writer}-{n}-{part}"));
    let done = match n % 3 {
        0 => db.table(&table(writer)).unwrap().insert(own).map(drop),
        kind => db.transaction(|tx| {
            tx.table(&table(writer))?.insert(own)?;
            tx.table("counters")?.upsert(record! { "id": writer as i64, "newest": n })?;
            let wide = tx.table("wide")?;
            if kind == 1 {
                wide.insert_many(with(n).map(|id| record! { "id": id }))?;
            } else {
                with(n - 1).try_for_each(|id| wide.delete(id).map(drop))?;
            }
            Ok::<_, Error>(())
        }),
    };
    done.unwrap();
}

fn count(db: &DictDb, name: &str) -> i64 {
    db.table(name).unwrap().len().unwrap() as i64
}

/// What the process does that is killed.
fn write_until_killed(dir: &Path) {
    let options = options(std::env::var_os(AUTOMATIC).is_some());
    say("opening");
    let db = options.open(dir).unwrap();
    say(if db.open_report().unwrap().clean { "opened after a close" } else { "opened after no close" });
    if db.table_names().is_empty() {
        set_up(&db);
    }
    say("ready");
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let db = &db;
            scope.spawn(move || {
                let first = count(db, &table(writer));
                for n in first..first + COMMITS {
                    commit(db, writer, n);
                    say(&format!("ack {writer} {n}"));
                    if writer == 0 && n % 5 == 4 {
                        say("checkpoint");
                        db.checkpoint().unwrap();
                        say("checkpointed");
                    }
                }
            });
        }
    });
    say("done");
    wait_for_the_end();
}

/// The line after which the kill comes, and how much later.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Open(u32),
    FirstWrite(u32),
    Checkpoint(u32),
    Acks(usize, u32),
}

impl Moment {
    fn of_round(round: usize, random: &mut fastrand::Rng) -> Moment {
        match round % 6 {
            0 => Moment::Open(random.u32(..300_000)),
            1 => Moment::Checkpoint(random.u32(..300_000)),
            2 => Moment::FirstWrite(random.u32(..300_000)),
            _ => Moment::Acks(random.usize(..=60), random.u32(..50_000)),
        }
    }

    fn await_it(self, child: &mut Child) -> Option<()> {
        let spins = match self {
            Moment::Open(spins) => {
                while child.line()? != "opening" {}
                spins
            }
            Moment::FirstWrite(spins) => {
                while !child.line()?.starts_with("opened") {}
                spins
            }
            Moment::Checkpoint(spins) => {
                while child.line()? != "checkpoint" {}
                spins
            }
            Moment::Acks(mut acks, spins) => {
                while acks > 0 {
                    acks -= usize::from(child.line()?.starts_with("ack"));
                }
                spins
            }
        };
        (0..spins).for_each(|_| spin_loop());
        Some(())
    }
}

/// What the store has to hold.
struct Expected {
    model: DictDb,
    next: [i64; WRITERS],
    is_set_up: bool,
    opened: i64,
    was_closed: bool,
}

/// Where two databases differ.
fn difference(found: &DictDb, expected: &DictDb) -> String {
    let rows = |db: &DictDb| -> Vec<String> {
        let rows = |name: String| db.table(&name).unwrap().iter().unwrap().map(move |row| format!("{name} {row:?}"));
        db.table_names().into_iter().flat_map(rows).collect()
    };
    let (found, expected) = (rows(found), rows(expected));
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|row| !those.contains(row)).cloned().collect()
    };
    format!("{:#?} instead of {:#?}", only(&found, &expected), only(&expected, &found))
}

#[derive(Debug, Default)]
struct Tally {
    kills: AtomicUsize,
    in_open: AtomicUsize,
    in_checkpoint: AtomicUsize,
    acknowledged: AtomicUsize,
    beyond: AtomicUsize,
    torn: AtomicUsize,
    unproven: AtomicUsize,
}

fn add(to: &AtomicUsize, n: usize) {
    to.fetch_add(n, Ordering::Relaxed);
}

impl Expected {
    fn new() -> Expected {
        Expected { model: DictDb::new(), next: [0; WRITERS], is_set_up: false, opened: 0, was_closed: true }
    }

    /// Kills one process, looks at what it left, writes, and closes or just drops the store.
    fn round(&mut self, dir: &Path, automatic: bool, moment: Moment, close: bool, tally: &Tally, context: &str) {
        let mut environment = vec![(DIR, dir.as_os_str())];
        environment.extend(automatic.then_some((AUTOMATIC, OsStr::new("1"))));
        let mut child = Child::start(TEST, &environment);
        let reached = moment.await_it(&mut child);
        let (said, status) = child.kill();
        let context = format!("{context}, {moment:?}, {status}, it said {said:#?}");
        assert!(reached.is_some(), "it ended by itself: {context}");

        let mut acked = self.next;
        let mut last = "";
        for line in &said {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["ack", writer, n] => {
                    let next = &mut acked[writer.parse::<usize>().unwrap()];
                    assert_eq!(n.parse::<i64>().unwrap(), *next, "{context}");
                    *next += 1;
                }
                ["opened", "after", "a", "close"] => assert!(self.was_closed, "{context}"),
                ["opened", "after", "no", "close"] => assert!(!self.was_closed, "{context}"),
                ["ready"] => self.set_up_is_due(),
                ["opening" | "done"] => {}
                ["checkpoint" | "checkpointed"] => last = line,
                _ => panic!("{line}: {context}"),
            }
        }
        add(&tally.kills, 1);
        add(&tally.in_open, usize::from(!said.iter().any(|line| line.starts_with("opened"))));
        add(&tally.in_checkpoint, usize::from(last == "checkpoint"));

        let db = options(automatic).open(dir).unwrap_or_else(|error| panic!("{error}: {context}"));
        let report = db.open_report().unwrap();
        let context = format!("{report}: {context}");
        add(&tally.torn, usize::from(report.torn.is_some()));
        add(&tally.unproven, usize::from(report.unproven > 0));
        if db.table_names().is_empty() {
            assert!(!self.is_set_up, "{context}");
            set_up(&db);
        }
        self.set_up_is_due();
        for (writer, acked) in acked.into_iter().enumerate() {
            let found = count(&db, &table(writer));
            assert!(found >= acked, "writer {writer}: {acked} commits were acknowledged, {found} are there; {context}");
            assert!(found <= acked + 1, "writer {writer}: {found} are there, {acked} and one were issued; {context}");
            (self.next[writer]..found).for_each(|n| commit(&self.model, writer, n));
            add(&tally.acknowledged, (acked - self.next[writer]) as usize);
            add(&tally.beyond, (found - acked) as usize);
            self.next[writer] = found;
        }
        if db.digest() != self.model.digest() {
            panic!("not what these commits lead to: {}; {context}", difference(&db, &self.model));
        }

        for db in [&db, &self.model] {
            db.table("parent").unwrap().insert(record! { "id": self.opened }).unwrap();
        }
        self.opened += 1;
        assert_eq!(db.digest(), self.model.digest(), "{context}");
        self.was_closed = close;
        if close {
            db.close().unwrap_or_else(|error| panic!("{error}: {context}"));
        }
    }

    fn set_up_is_due(&mut self) {
        if !self.is_set_up {
            set_up(&self.model);
            self.is_set_up = true;
        }
    }
}

#[test]
fn a_process_killed_at_any_moment_loses_no_acknowledged_commit_and_leaves_no_part_of_one() {
    if let Some(dir) = std::env::var_os(DIR) {
        return write_until_killed(Path::new(&dir));
    }
    let seed: u64 = std::env::var(SEED).map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}; to repeat: {SEED}={seed} cargo test --test store killed_at_any_moment -- --nocapture");
    let (tally, next) = (Tally::default(), AtomicUsize::new(0));
    let lane = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= DIRECTORIES {
                return;
            }
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number as u64));
            let place = tempfile::tempdir().unwrap();
            // One that is not there yet: the first process is killed while it makes it.
            let (dir, automatic) = (place.path().join("store"), number % 2 == 1);
            let mut expected = Expected::new();
            for round in 0..ROUNDS {
                let moment = Moment::of_round(round, &mut random);
                let context = format!("{SEED}={seed}, directory {number}, round {round}");
                expected.round(&dir, automatic, moment, random.bool(), &tally, &context);
            }
        }
    };
    thread::scope(|scope| {
        (0..LANES).for_each(|_| _ = scope.spawn(lane));
    });
    println!("{tally:?}");
    assert_eq!(tally.kills.into_inner(), DIRECTORIES * ROUNDS);
    // Each was tried fifty times.
    assert!(tally.in_open.into_inner() > 0 && tally.in_checkpoint.into_inner() > 0);
}
