//! Replays the corpus of the fuzz targets through the code that the fuzzers run, and keeps it up to date.
//!
//! After a change of format `DICTDB_WRITE_CORPUS=1 cargo test --test corpus committed_seeds` writes the seeds anew.
//! An input that a fuzzer has found goes beside them as `found-<what was wrong>`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dictdb::fuzzing::{TARGETS, seeds};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join("corpus")
}

/// The files of one target's corpus, by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = corpus().join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn the_committed_seeds_are_what_todays_writers_make() {
    if std::env::var_os("DICTDB_WRITE_CORPUS").is_some() {
        for seed in seeds() {
            let dir = corpus().join(seed.target);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(seed.name), &seed.data).unwrap();
        }
    }
    let mut wanted = BTreeSet::new();
    for seed in seeds() {
        wanted.insert((seed.target, seed.name.to_owned()));
        let path = corpus().join(seed.target).join(seed.name);
        let committed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            committed == seed.data,
            "the format has changed, or what writes it: {} is out of date. If that was meant, say so in SPEC.md, and run \
             DICTDB_WRITE_CORPUS=1 cargo test --test corpus committed_seeds",
            path.display()
        );
    }
    for (target, _) in TARGETS {
        for (name, _) in inputs(target) {
            let known = name.starts_with("found-") || wanted.contains(&(target, name.clone()));
            assert!(known, "fuzz/corpus/{target}/{name} is neither a seed nor something found");
        }
    }
}

#[test]
fn every_committed_input_is_replayed_and_keeps_every_promise() {
    let mut replayed = 0;
    for (target, run) in TARGETS {
        for (name, data) in inputs(target) {
            println!("{target}/{name}");
            run(&data);
            replayed += 1;
        }
    }
    assert!(replayed >= seeds().len(), "{replayed} inputs");
}

#[test]
fn each_target_gets_past_the_checksums_with_the_seeds_that_are_sound_and_with_no_other() {
    for (target, run) in TARGETS {
        let mut accepted = 0;
        for seed in seeds().into_iter().filter(|seed| seed.target == target) {
            assert_eq!(run(&seed.data), seed.accepted, "{target}/{}", seed.name);
            accepted += u32::from(seed.accepted);
        }
        assert!(accepted > 0, "no seed of {target} is accepted");
    }
}

/// What a fuzzer does, without one and in a moment: every byte of every seed changed, and every length.
#[test]
fn every_byte_of_every_seed_may_change_and_every_length_be_cut() {
    for (target, run) in TARGETS {
        for seed in seeds().into_iter().filter(|seed| seed.target == target) {
            for at in 1..seed.data.len() {
                run(&seed.data[..at]);
                let mut changed = seed.data.clone();
                changed[at] ^= [0x01, 0x80, 0xFF][at % 3];
                run(&changed);
            }
        }
    }
}
