//! Throughput of commits, backups and restores, for watching one version against the next.
//!
//! `cargo bench --bench engine`; what is claimed against peers and limits is measured by `ratios`.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to tell")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dictdb::{BackupFormat, BackupManager, DictDb, Record, restore};

include!("data/users.rs");
include!("data/filled.rs");

const FORMATS: [BackupFormat; 2] = [BackupFormat::Binary, BackupFormat::Json];

/// Commits into a growing table: dynamic and typed records, 1 and 1,000 a commit.
fn commits(c: &mut Criterion) {
    const ROWS: i64 = 20_000;
    let mut group = c.benchmark_group("commits");
    group.throughput(Throughput::Elements(ROWS as u64));
    let users: Vec<User> = (0..ROWS).map(User::new).collect();
    let records: Vec<Record> =
        users.iter().map(|u| Record::try_from(serde_json::to_value(u).unwrap()).unwrap()).collect();
    let empty = || {
        let db = DictDb::new();
        db.create_table("users", "id").unwrap();
        db
    };
    for batch in [1_usize, 1_000] {
        group.bench_function(BenchmarkId::new("typed", batch), |b| {
            b.iter_batched(
                empty,
                |db| {
                    let table = db.typed::<User>("users").unwrap();
                    match batch {
                        1 => users.iter().for_each(|user| _ = table.insert(user).unwrap()),
                        n => users.chunks(n).for_each(|users| _ = table.insert_many(users).unwrap()),
                    }
                    db
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("dynamic", batch), |b| {
            b.iter_batched(
                || (empty(), records.clone()),
                |(db, mut records)| {
                    let table = db.table("users").unwrap();
                    match batch {
                        1 => records.drain(..).for_each(|record| _ = table.insert(record).unwrap()),
                        n => {
                            while !records.is_empty() {
                                let rest = records.split_off(n.min(records.len()));
                                table.insert_many(std::mem::replace(&mut records, rest)).unwrap();
                            }
                        }
                    }
                    db
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// A delta of 1,000 changes as the database grows: its cost should not.
fn deltas(c: &mut Criterion) {
    const CHANGES: i64 = 1_000;
    let mut group = c.benchmark_group("delta of 1,000 changes");
    group.sample_size(20);
    for rows in [10_000, 100_000, 1_000_000] {
        let db = filled(rows);
        let table = db.typed::<User>("users").unwrap();
        for format in FORMATS {
            let dir = tempfile::tempdir().unwrap();
            let manager = BackupManager::builder(&db, dir.path()).file_format(format).build().unwrap();
            manager.backup_full().unwrap();
            let change = || (0..CHANGES).for_each(|n| _ = table.upsert(&User::new(n * (rows / CHANGES))).unwrap());
            change();
            group.throughput(Throughput::Bytes(manager.backup_delta().unwrap().bytes));
            group.bench_function(BenchmarkId::new(format.to_string(), rows), |b| {
                b.iter_batched(change, |()| manager.backup_delta().unwrap(), BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

/// Full backups and their restore.
fn fulls(c: &mut Criterion) {
    const ROWS: i64 = 200_000;
    let db = filled(ROWS);
    for format in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let manager = BackupManager::builder(&db, dir.path()).file_format(format).build().unwrap();
        let first = manager.backup_full().unwrap();
        let mut group = c.benchmark_group(format!("full backup of 200,000 records, {format}"));
        group.sample_size(10);
        group.throughput(Throughput::Bytes(first.bytes));
        group.bench_function("write", |b| {
            b.iter_batched(
                || (),
                |()| std::fs::remove_file(manager.backup_full().unwrap().file).unwrap(),
                BatchSize::PerIteration,
            );
        });
        group.throughput(Throughput::Elements(ROWS as u64));
        group.bench_function("restore", |b| b.iter(|| black_box(restore(dir.path()).unwrap())));
        group.finish();
    }
}

criterion_group!(benches, commits, deltas, fulls);
criterion_main!(benches);
