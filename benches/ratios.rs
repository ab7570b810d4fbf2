//! The figures that are claimed as ratios: each against a peer or a limit measured in the same run, interleaved, as a
//! median with its spread.
//!
//! `cargo bench --bench ratios` runs all; `-- --rounds N --rows N` sets how often and how much.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to tell")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dictdb::{BackupFormat, BackupManager, DictDb, Key, restore};

include!("data/users.rs");
include!("data/filled.rs");

/// Median, least and most of a set of measurements.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let median = values[values.len() / 2];
        Spread { median, least: values[0], most: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let precision = if self.median < 100.0 { 3 } else { 0 };
        write!(f, "{:.precision$} ({:.precision$} to {:.precision$})", self.median, self.least, self.most)
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let setting = |name: &str, default: usize| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)).and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let (rounds, rows) = (setting("--rounds", 5), setting("--rows", 1_000_000));
    println!("{rows} rows, {rounds} rounds, median (least to most)\n");
    inserts(rounds, rows);
    backups(rounds, rows);
}

/// Typed inserts, one commit each, log and ring included, against the same rows going into a bare map.
fn inserts(rounds: usize, rows: usize) {
    let ascending: Vec<User> = (0..rows as i64).map(User::new).collect();
    let mut ids: Vec<i64> = (0..rows as i64).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut ids);
    // Made in this order, so that walking the input is no random walk of the memory.
    let random: Vec<User> = ids.into_iter().map(User::new).collect();
    for (order, users) in [("ascending", &ascending), ("random", &random)] {
        let encoded = encoded_rows(users);
        let bytes: usize = encoded.iter().map(|(_, row)| row.len()).sum();
        let (mut bare, mut encoding, mut one, mut many) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut map: BTreeMap<Key, Arc<[u8]>> = BTreeMap::new();
            bare.push(
                rows as f64
                    / seconds(|| {
                        for (key, row) in &encoded {
                            map.insert(key.clone(), Arc::from(&row[..]));
                        }
                    }),
            );
            black_box(&map);
            drop(map);

            let mut map: BTreeMap<Key, Arc<[u8]>> = BTreeMap::new();
            encoding.push(
                rows as f64
                    / seconds(|| {
                        let mut row = Vec::new();
                        for user in users {
                            row = postcard::to_extend(user, std::mem::take(&mut row)).unwrap();
                            map.insert(Key::Int(user.id), Arc::from(&row[..]));
                            row.clear();
                        }
                    }),
            );
            black_box(&map);
            drop(map);

            let db = DictDb::new();
            db.create_table("users", "id").unwrap();
            let table = db.typed::<User>("users").unwrap();
            one.push(
                rows as f64
                    / seconds(|| {
                        for user in users {
                            table.insert(user).unwrap();
                        }
                    }),
            );
            drop((table, db));

            let db = DictDb::new();
            db.create_table("users", "id").unwrap();
            let table = db.typed::<User>("users").unwrap();
            many.push(
                rows as f64
                    / seconds(|| {
                        for chunk in users.chunks(1_000) {
                            table.insert_many(chunk).unwrap();
                        }
                    }),
            );
        }
        let ratio =
            |ours: &[f64], peer: &[f64]| Spread::of(ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect());
        println!("insert, {order} keys, rows of {} bytes", bytes / rows);
        println!("  bare BTreeMap<Key, Arc<[u8]>>   {} rows/s, encoded beforehand", Spread::of(bare.clone()));
        println!("                                  {} rows/s, encoding with postcard", Spread::of(encoding.clone()));
        println!("  dictdb, 1 row a commit          {} rows/s", Spread::of(one.clone()));
        println!("      against rows encoded before {}", ratio(&one, &bare));
        println!("      against encoding            {}", ratio(&one, &encoding));
        println!("  dictdb, 1,000 rows a commit     {} rows/s", Spread::of(many.clone()));
        println!("      against rows encoded before {}", ratio(&many, &bare));
        println!("      against encoding            {}\n", ratio(&many, &encoding));
    }
}

/// The rows as dictdb holds them, read off the bytes of a database that holds them.
fn encoded_rows(users: &[User]) -> Vec<(Key, Vec<u8>)> {
    users.iter().map(|user| (Key::Int(user.id), dictdb_row(user))).collect()
}

/// A row of the same length and content as dictdb's: count, then name, tag and value of each field.
fn dictdb_row(user: &User) -> Vec<u8> {
    let mut row = vec![7];
    let mut field = |name: &str, value: &[u8]| {
        row.push(name.len() as u8);
        row.extend_from_slice(name.as_bytes());
        row.extend_from_slice(value);
    };
    let text = |s: &str| [&[5, s.len() as u8], s.as_bytes()].concat();
    let int = |n: i64| {
        let mut n = (n as u64) << 1;
        let mut out = vec![2];
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    field("id", &int(user.id));
    field("name", &text(&user.name));
    field("email", &text(&user.email));
    field("age", &int(i64::from(user.age)));
    field("score", &[&[4], &user.score.to_le_bytes()[..]].concat());
    let tags: Vec<u8> = user.tags.iter().flat_map(|tag| text(tag)).collect();
    field("tags", &[&[6, user.tags.len() as u8], &tags[..]].concat());
    field("active", &[1, u8::from(user.active)]);
    row
}

/// Full and delta backups of a large database, what a writer sees meanwhile, and the way back.
fn backups(rounds: usize, rows: usize) {
    let changed = rows / 100;
    for format in [BackupFormat::Binary, BackupFormat::Json] {
        let (mut full, mut delta, mut ratio, mut size) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let (mut with, mut without, mut p999, mut back) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let dir = tempfile::tempdir().unwrap();
            let db = filled(rows as i64);
            let table = db.typed::<User>("users").unwrap();
            let manager =
                BackupManager::builder(&db, dir.path()).file_format(format).incremental(true).build().unwrap();
            let mut full_seconds = 0.0;
            let (_, pause, late) = writing_meanwhile(&db, rows, || {
                full_seconds = seconds(|| size = manager.backup_full().unwrap().bytes);
            });
            let (_, calm, _) = writing_meanwhile(&db, rows, || {
                let until = Instant::now() + Duration::from_secs_f64(full_seconds);
                while let left = until.saturating_duration_since(Instant::now())
                    && !left.is_zero()
                {
                    // Returns early where a scope's thread that ended had left its token.
                    std::thread::park_timeout(left);
                }
            });
            manager.backup_now().unwrap();
            for id in (0..rows as i64).step_by(rows / changed) {
                table.upsert(&User::new(id)).unwrap();
            }
            let delta_seconds = seconds(|| _ = manager.backup_delta().unwrap());
            let back_seconds = seconds(|| {
                let (restored, _) = restore(dir.path()).unwrap();
                assert_eq!(restored.digest(), db.digest());
            });
            full.push(full_seconds);
            delta.push(delta_seconds);
            ratio.push(full_seconds / delta_seconds);
            with.push(pause * 1e3);
            p999.push(late * 1e6);
            without.push(calm * 1e3);
            back.push(rows as f64 / back_seconds);
        }
        println!("backup, {format}, {rows} rows, {} MB", size / 1_000_000);
        println!("  full                            {} s", Spread::of(full.clone()));
        println!(
            "      rate                        {} MB/s",
            Spread::of(full.iter().map(|s| size as f64 / 1e6 / s).collect())
        );
        println!("  delta of {changed} changes         {} s", Spread::of(delta));
        println!("      full against delta          {} times", Spread::of(ratio));
        println!("  longest pause of a writer       {} ms", Spread::of(with));
        println!("      without a backup            {} ms", Spread::of(without));
        println!("      p99.9 during the backup     {} us", Spread::of(p999));
        println!("  restore, full and two deltas    {} rows/s\n", Spread::of(back));
    }
}

/// Runs `work` on this thread while another one writes; its commits, longest and p99.9 time of a commit in seconds.
fn writing_meanwhile(db: &DictDb, rows: usize, work: impl FnOnce()) -> (usize, f64, f64) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let table = db.typed::<User>("users").unwrap();
            let mut rng = fastrand::Rng::with_seed(3);
            let mut times = Vec::with_capacity(4 << 20);
            while !stop.load(Ordering::Relaxed) {
                let user = User::new(rng.i64(0..rows as i64));
                let start = Instant::now();
                table.upsert(&user).unwrap();
                times.push(start.elapsed().as_secs_f64());
            }
            times
        });
        work();
        stop.store(true, Ordering::Relaxed);
        let mut times = writer.join().unwrap();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
        (times.len(), times.last().copied().unwrap_or_default(), at(0.999))
    })
}
