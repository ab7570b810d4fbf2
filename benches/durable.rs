//! What durability costs, on a real disk: each figure against a limit measured in the same run, interleaved, as a median
//! with its spread.
//!
//! `cargo bench --bench durable` runs all; `-- --quick` in a minute or so; `-- --rounds N --rows N` sets how often and how
//! much; further words choose parts: `sync`, `interval`, `open`, `checkpoint`. The files go next to the build's, or where
//! `DICTDB_BENCH_DIR` says: a memory file system there makes all of it meaningless.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to tell")]

use std::cell::Cell;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dictdb::{CheckpointPolicy, DictDb, Durability, Options, Stage, TypedTable};

include!("data/users.rs");

/// Median, least and most of a set of measurements.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Spread {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        Spread { median: values[values.len() / 2], least: values[0], most: values[values.len() - 1] }
    }

    fn of_ratios(ours: &[f64], peer: &[f64]) -> Spread {
        Spread::of(&ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect::<Vec<_>>())
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let precision = if self.median < 100.0 { 3 } else { 0 };
        write!(f, "{:.precision$} ({:.precision$} to {:.precision$})", self.median, self.least, self.most)
    }
}

/// What the median should be, and whether it is.
fn at_least(wanted: f64, found: &Spread) -> String {
    format!("at least {wanted}: {}", if found.median >= wanted { "holds" } else { "MISSED" })
}

struct Bench {
    dir: PathBuf,
    rounds: usize,
    rows: usize,
    /// How long one measurement of many small commits lasts.
    slice: Duration,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let setting = |name: &str, default: usize| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)).and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let parts = ["sync", "interval", "open", "checkpoint"];
    let chosen = |part: &str| args.iter().any(|arg| arg == part) || !args.iter().any(|arg| parts.contains(&&arg[..]));
    let within = std::env::var_os("DICTDB_BENCH_DIR").map_or_else(build_dir, PathBuf::from);
    let dir = tempfile::Builder::new().prefix("durable-").tempdir_in(within).unwrap();
    let bench = Bench {
        dir: dir.path().to_owned(),
        rounds: setting("--rounds", if quick { 3 } else { 7 }),
        rows: setting("--rows", 1_000_000),
        slice: Duration::from_millis(if quick { 500 } else { 1_000 }),
    };
    println!("{}", machine(dir.path()));
    println!("{} rows, {} rounds, median (least to most)\n", bench.rows, bench.rounds);
    for (part, run) in parts.iter().zip([Bench::sync, Bench::interval, Bench::open, Bench::checkpoint]) {
        if chosen(part) {
            run(&bench);
        }
    }
}

/// The directory of the build, which is on the disk that programs run from.
fn build_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().to_owned()
}

fn machine(dir: &Path) -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cpu = cpu.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mounts = read("/proc/mounts");
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, mount, kind) = (words.next()?, words.next()?, words.next()?);
        dir.starts_with(mount).then(|| (mount.len(), format!("{kind} on {device}")))
    });
    let disk = mounts.max().map_or_else(|| "an unknown file system".to_owned(), |(_, disk)| disk);
    format!("{cpu}, {cores} cores, {}; {disk}", read("/proc/sys/kernel/osrelease").trim())
}

/// Runs `work` until `time` is over, at least once; how often a second.
fn rate(time: Duration, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut count = 0_u64;
    loop {
        work();
        count += 1;
        let elapsed = start.elapsed();
        if elapsed >= time {
            return count as f64 / elapsed.as_secs_f64();
        }
    }
}

fn per_second(times: &[f64]) -> f64 {
    times.len() as f64 / times.iter().sum::<f64>()
}

/// The time `share` of the way up, in microseconds.
fn percentile(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = (times.len() as f64 * share) as usize;
    times[at.min(times.len() - 1)] * 1e6
}

fn users(db: &DictDb) -> TypedTable<User> {
    db.create_table("users", "id").unwrap();
    db.typed("users").unwrap()
}

fn options(durability: Durability) -> Options {
    Options::new().durability(durability).checkpoint(CheckpointPolicy::manual())
}

/// A file of zeros that have their place on the disk, to append to as directly as it gets.
struct Raw {
    file: File,
    at: u64,
}

impl Raw {
    const BYTES: u64 = 64 << 20;

    fn new(path: &Path) -> Raw {
        let file = File::create(path).unwrap();
        // A page at a time: writes and syncs of pages that were written together cost the system more.
        let zeros = [0; 4_096];
        for at in (0..Raw::BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at).unwrap();
        }
        file.sync_all().unwrap();
        Raw { file, at: 0 }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.at + bytes.len() as u64 > Raw::BYTES {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at).unwrap();
        self.file.sync_data().unwrap();
        self.at += bytes.len() as u64;
    }
}

impl Bench {
    /// Small commits, each synced before its `Ok`.
    fn sync(&self) {
        const WRITERS: usize = 16;
        let db = options(Durability::Sync).open(self.dir.join("sync")).unwrap();
        let table = users(&db);
        let next = AtomicI64::new(0);
        let insert = || {
            let id = next.fetch_add(1, Ordering::Relaxed);
            table.insert(&User::new(id)).unwrap();
        };
        insert();
        let before = db.durability_report().log_bytes;
        insert();
        let frame = vec![0xA5; usize::try_from(db.durability_report().log_bytes - before).unwrap()];
        let mut raw_file = Raw::new(&self.dir.join("raw"));

        let (mut raw, mut one, mut many) = (Vec::new(), Vec::new(), Vec::new());
        let (mut raw_times, mut one_times, mut many_times) = (Vec::new(), Vec::new(), Vec::new());
        // Short turns, and few commits of the one between few of the other: a disk's mood changes within seconds, and
        // one slow moment of it must not count for one side alone.
        let turns = self.rounds * 3;
        let slice = self.slice / 3;
        for _ in 0..turns {
            let (raw_from, one_from) = (raw_times.len(), one_times.len());
            rate(slice * 2, || {
                for _ in 0..4 {
                    timed(&mut raw_times, || raw_file.append(&frame));
                }
                for _ in 0..4 {
                    timed(&mut one_times, insert);
                }
            });
            raw.push(per_second(&raw_times[raw_from..]));
            one.push(per_second(&one_times[one_from..]));
            let all_times = Mutex::new(&mut many_times);
            let start = Instant::now();
            let count: usize = std::thread::scope(|scope| {
                let writers: Vec<_> = (0..WRITERS)
                    .map(|_| {
                        scope.spawn(|| {
                            let mut times = Vec::new();
                            rate(slice, || timed(&mut times, insert));
                            let count = times.len();
                            all_times.lock().unwrap().append(&mut times);
                            count
                        })
                    })
                    .collect();
                writers.into_iter().map(|writer| writer.join().unwrap()).sum()
            });
            many.push(count as f64 / start.elapsed().as_secs_f64());
        }
        let (to_raw, to_one) = (Spread::of_ratios(&one, &raw), Spread::of_ratios(&many, &one));
        println!("Durability::Sync, one record a commit, {} bytes a frame, {turns} turns", frame.len());
        println!("  pwrite and fdatasync, raw        {} commits/s", Spread::of(&raw));
        println!("  one writer                       {} commits/s", Spread::of(&one));
        println!("      against raw                  {}, {}", to_raw, at_least(0.9, &to_raw));
        println!("  {WRITERS} writers                       {} commits/s", Spread::of(&many));
        println!("      against one                  {}, {}", to_one, at_least(6.0, &to_one));
        let writers = format!("{WRITERS} writers");
        for (who, times) in [("raw", &mut raw_times), ("one writer", &mut one_times), (&writers, &mut many_times)] {
            let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| percentile(times, share));
            println!("  a commit of {who:<12}         p50 {p50:.0} us, p99 {p99:.0} us, max {most:.0} us");
        }
        println!();
        db.close().unwrap();
    }

    /// Small commits that do not wait for the disk, against the same in memory.
    fn interval(&self) {
        let rows = self.rows as i64 / 4;
        let kinds = [
            ("Interval(10 ms)", Durability::Interval(Duration::from_millis(10))),
            ("Interval(100 ms)", Durability::Interval(Duration::from_millis(100))),
            ("Manual", Durability::Manual),
        ];
        let mut memory = Vec::new();
        let mut rates = [const { Vec::new() }; 3];
        let insert_all = |db: &DictDb| {
            let table = users(db);
            let start = Instant::now();
            for id in 0..rows {
                table.insert(&User::new(id)).unwrap();
            }
            rows as f64 / start.elapsed().as_secs_f64()
        };
        let mut log_bytes = 0;
        for round in 0..self.rounds {
            memory.push(insert_all(&DictDb::new()));
            for (at, (_, durability)) in kinds.iter().enumerate() {
                let dir = self.dir.join(format!("interval-{round}-{at}"));
                let db = options(*durability).open(&dir).unwrap();
                rates[at].push(insert_all(&db));
                log_bytes = db.durability_report().log_bytes;
                db.close().unwrap();
                fs::remove_dir_all(&dir).unwrap();
            }
        }
        println!("{rows} inserts, one record a commit, {} MB of log", log_bytes / 1_000_000);
        println!("  in memory                        {} commits/s", Spread::of(&memory));
        for ((name, durability), rates) in kinds.iter().zip(&rates) {
            let ratio = Spread::of_ratios(rates, &memory);
            let wanted = if *durability == Durability::Manual { "" } else { &*format!(", {}", at_least(0.7, &ratio)) };
            println!("  {name:<32} {} commits/s", Spread::of(rates));
            println!("      against in memory            {ratio}{wanted}");
        }
        println!();
    }

    /// From files to a database that answers.
    fn open(&self) {
        let (rows, tail) = (self.rows as i64, self.rows as i64 / 10);
        let (bare, with_tail) = (self.dir.join("snapshot"), self.dir.join("snapshot-and-log"));
        let db = options(Durability::Manual).open(&bare).unwrap();
        fill(&db, rows);
        let snapshot = db.checkpoint().unwrap();
        db.close().unwrap();
        fs::create_dir(&with_tail).unwrap();
        for entry in fs::read_dir(&bare).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), with_tail.join(entry.file_name())).unwrap();
        }
        let db = options(Durability::Manual).open(&with_tail).unwrap();
        let table = db.typed::<User>("users").unwrap();
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..tail {
            table.upsert(&User::new(rng.i64(0..rows))).unwrap();
        }
        let (digest, log_bytes) = (db.digest(), db.durability_report().log_bytes);
        drop(table);
        db.close().unwrap();

        let open = |dir: &Path| {
            let snapshot_done = Arc::new(Mutex::new(None));
            let noted = Arc::clone(&snapshot_done);
            let options = options(Durability::Manual).on_progress(move |progress| {
                if progress.stage == Stage::ReadingFull {
                    *noted.lock().unwrap() = Some(Instant::now());
                }
                std::ops::ControlFlow::Continue(())
            });
            let start = Instant::now();
            let db = options.open(dir).unwrap();
            let all = start.elapsed().as_secs_f64();
            let done = snapshot_done.lock().unwrap().unwrap();
            (db, all, done.duration_since(start).as_secs_f64())
        };
        let (mut load, mut only, mut all, mut log) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let start = Instant::now();
            black_box(DictDb::load(snapshot.file.as_ref().unwrap()).unwrap());
            load.push(rows as f64 / start.elapsed().as_secs_f64());

            let (db, seconds, _) = open(&bare);
            only.push(rows as f64 / seconds);
            db.close().unwrap();

            let (db, seconds, snapshot_seconds) = open(&with_tail);
            all.push((rows + tail) as f64 / seconds);
            log.push(tail as f64 / (seconds - snapshot_seconds));
            assert_eq!(db.digest(), digest);
            assert_eq!(db.open_report().unwrap().commits, tail as u64);
            db.close().unwrap();
        }
        println!("open, {rows} rows in a snapshot of {} MB, {tail} commits behind it", snapshot.bytes / 1_000_000);
        println!("  DictDb::load of the snapshot     {} rows/s", Spread::of(&load));
        println!("  a store with the snapshot alone  {} rows/s", Spread::of(&only));
        println!("  with the log behind it           {} rows/s, both counted", Spread::of(&all));
        println!("      seconds                      {}", Spread::of(&seconds_of(&all, rows + tail)));
        println!("      the log, {:>3} MB              {} commits/s\n", log_bytes / 1_000_000, Spread::of(&log));
    }

    /// What a writer notices of a checkpoint.
    fn checkpoint(&self) {
        // Under `Manual` writers wait for the thread that writes the log once 8 MiB are pending: those are the disk's pauses.
        for (name, durability, wanted) in [
            ("Interval(100 ms)", Durability::Interval(Duration::from_millis(100)), Some(5.0)),
            ("Manual", Durability::Manual, None),
        ] {
            let dir = self.dir.join("checkpoint");
            let db = options(durability).open(&dir).unwrap();
            fill(&db, self.rows as i64);
            let (mut seconds, mut bytes) = (Vec::new(), 0);
            let mut pauses = [const { Vec::new() }; 2];
            let mut own = [const { Vec::new() }; 2];
            let mut p999 = [const { Vec::new() }; 2];
            let mut rates = [const { Vec::new() }; 2];
            for _ in 0..self.rounds {
                db.sync().unwrap();
                let took = Cell::new(Duration::ZERO);
                let with = self.writing_meanwhile(&db, || {
                    let start = Instant::now();
                    bytes = db.checkpoint().unwrap().bytes;
                    took.set(start.elapsed());
                });
                db.sync().unwrap();
                let without = self.writing_meanwhile(&db, || wait(took.get()));
                for (at, (mut times, own_pause)) in [with, without].into_iter().enumerate() {
                    own[at].push(own_pause * 1e3);
                    pauses[at].push(percentile(&mut times, 1.0) / 1e3);
                    p999[at].push(percentile(&mut times, 0.999));
                    rates[at].push(times.len() as f64 / took.get().as_secs_f64());
                }
                seconds.push(took.get().as_secs_f64());
            }
            let worst = Spread::of(&own[0]);
            println!("checkpoint under {name}, {} rows, {} MB", self.rows, bytes / 1_000_000);
            println!("  takes                            {} s", Spread::of(&seconds));
            let holds = wanted.map_or(String::new(), |most| {
                format!(", below {most}: {}", if worst.median < most { "holds" } else { "MISSED" })
            });
            println!("  longest pause of a writer        {} ms", Spread::of(&pauses[0]));
            println!("      without a checkpoint         {} ms", Spread::of(&pauses[1]));
            println!("  of that, not for want of a core  {worst} ms{holds}");
            println!("      without a checkpoint         {} ms", Spread::of(&own[1]));
            println!("      p99.9                        {} us", Spread::of(&p999[0]));
            println!("      without a checkpoint         {} us", Spread::of(&p999[1]));
            println!("  the writer's commits             {} a second", Spread::of(&rates[0]));
            println!("      without a checkpoint         {} a second\n", Spread::of(&rates[1]));
            db.close().unwrap();
            fs::remove_dir_all(&dir).unwrap();
        }
    }

    /// Runs `work` on this thread while another one writes; the times of its commits, and the longest without the time
    /// for which the thread was ready and the system had no core for it.
    fn writing_meanwhile(&self, db: &DictDb, work: impl FnOnce()) -> (Vec<f64>, f64) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let table = db.typed::<User>("users").unwrap();
                let mut rng = fastrand::Rng::with_seed(3);
                let mut times = Vec::with_capacity(4 << 20);
                let (mut longest, mut waited) = (0.0_f64, core_wait());
                while !stop.load(Ordering::Relaxed) {
                    let user = User::new(rng.i64(0..self.rows as i64));
                    timed(&mut times, || table.upsert(&user).unwrap());
                    let time = times[times.len() - 1];
                    if time > LONG {
                        let now = core_wait();
                        longest = longest.max(time - (now - waited));
                        waited = now;
                    } else {
                        longest = longest.max(time);
                        // Asking costs as much as a commit.
                        if times.len().is_multiple_of(64) {
                            waited = core_wait();
                        }
                    }
                }
                (times, longest)
            });
            work();
            stop.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        })
    }
}

/// Seconds that a commit has to take to be looked at.
const LONG: f64 = 0.5e-3;

/// Seconds for which this thread could have run and had no core; 0 where the system does not tell.
fn core_wait() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).map_or(0.0, |ns| ns / 1e9)
}

fn timed<T>(times: &mut Vec<f64>, work: impl FnOnce() -> T) {
    let start = Instant::now();
    black_box(work());
    times.push(start.elapsed().as_secs_f64());
}

fn wait(time: Duration) {
    let until = Instant::now() + time;
    while let left = until.saturating_duration_since(Instant::now())
        && !left.is_zero()
    {
        // Returns early where a scope's thread that ended had left its token.
        std::thread::park_timeout(left);
    }
}

fn seconds_of(rates: &[f64], rows: i64) -> Vec<f64> {
    rates.iter().map(|rate| rows as f64 / rate).collect()
}

/// Gives a new store the first `rows` users.
fn fill(db: &DictDb, rows: i64) {
    let table = users(db);
    let all: Vec<User> = (0..rows).map(User::new).collect();
    for chunk in all.chunks(1_000) {
        table.insert_many(chunk).unwrap();
    }
}
