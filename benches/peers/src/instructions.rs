//! Instructions an operation takes, counted by valgrind: the difference of two runs of different lengths, which has no
//! start, no loading and hardly any noise in it. A later run compares with what was recorded.

use std::fmt::Write;
use std::process::Command;

use crate::args::Settings;
use crate::engines::Res;
use crate::machine;
use crate::report::figure;
use crate::workloads::{Job, OPERATIONS};

/// Operations of the two runs: whole scans of 20,000 rows, and enough of the rest.
const SIZES: [u64; 2] = [20_000, 60_000];

/// What is dearer by a larger share is reported.
const TOLERATED: f64 = 0.02;

const FILE: &str = "INSTRUCTIONS.md";

pub(crate) fn count(settings: &Settings) -> Res<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Err("valgrind is not installed (Debian: apt-get install valgrind)".into());
    }
    let path = settings.out.join(FILE);
    let before = recorded(&std::fs::read_to_string(&path).unwrap_or_default());
    let mut records = 0.0;
    let mut found = Vec::new();
    for operation in &OPERATIONS {
        let [few, many] = SIZES.map(|size| counted(settings, operation.name, size));
        let all = (many? - few?) / (SIZES[1] - SIZES[0]) as f64;
        if operation.title.is_empty() {
            records = all;
            continue;
        }
        let count = if operation.writes() { all - records } else { all };
        eprintln!("  {:<48} {:>8}", operation.title, figure(count));
        found.push((operation.title, count));
    }
    std::fs::create_dir_all(&settings.out)?;
    std::fs::write(&path, markdown(&found, &before))?;
    eprintln!("written: {}", path.display());
    for (title, was, is) in dearer(&found, &before) {
        println!("dearer: {title}: {} instead of {} ({:+.1} %)", figure(is), figure(was), (is / was - 1.0) * 100.0);
    }
    Ok(())
}

fn counted(settings: &Settings, name: &str, operations: u64) -> Res<f64> {
    let dir = tempfile::Builder::new().prefix("peers-").tempdir_in(&settings.dir)?;
    let job = Job {
        workload: format!("count-{name}"),
        engine: String::new(),
        dir: dir.path().join("files"),
        records: operations,
        seconds: settings.seconds,
        state: None,
    };
    std::fs::create_dir(&job.dir)?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .arg("--child")
        .arg(serde_json::to_string(&job)?)
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {}", told.lines().last().unwrap_or("no reason given")).into());
    }
    let count = told.lines().find_map(|line| line.split_once("Collected :")).ok_or("valgrind gives no count")?.1;
    Ok(count.trim().parse()?)
}

/// Operations and their counts.
type Counts = Vec<(String, f64)>;

/// The counts that such a file has.
fn recorded(markdown: &str) -> Counts {
    let rows = markdown.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (title, count) = (cells.next()?, cells.next()?);
        Some((title.to_owned(), count.replace([',', '|', ' '], "").parse().ok()?))
    });
    rows.collect()
}

fn was(before: &Counts, title: &str) -> Option<f64> {
    before.iter().find(|(name, _)| name == title).map(|(_, count)| *count)
}

fn dearer<'a>(found: &[(&'a str, f64)], before: &Counts) -> Vec<(&'a str, f64, f64)> {
    let both = found.iter().filter_map(|&(title, is)| Some((title, was(before, title)?, is)));
    both.filter(|(_, was, is)| *is > was * (1.0 + TOLERATED)).collect()
}

fn markdown(found: &[(&str, f64)], before: &Counts) -> String {
    let mut out = format!(
        "# Instructions\n\nUser-space instructions an operation takes, with the records of [RESULTS.md](RESULTS.md), \
         counted by `valgrind --tool=callgrind`: `cargo run --release --manifest-path benches/peers/Cargo.toml -- \
         --instructions`. Writes: {} and then {} into a new table, the difference, less what making the records takes. \
         Reads: of 20,000 records.\n\n- dictdb {}\n- {}\n\n| operation | instructions | before |\n|---|---:|---:|\n",
        figure(SIZES[0] as f64),
        figure(SIZES[1] as f64),
        machine::dictdb(),
        machine::compiler(),
    );
    for (title, count) in found {
        let before = was(before, title).map_or_else(|| "-".to_owned(), whole);
        let _ = writeln!(out, "| {title} | {} | {before} |", whole(*count));
    }
    out
}

fn whole(count: f64) -> String {
    format!("{count:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dearer_by_more_than_tolerated_is_told_and_nothing_else() {
        let before = recorded(&markdown(&[("an insert", 1_000.0), ("a read", 500.0), ("a scan", 100.0)], &Vec::new()));
        assert_eq!(before.len(), 3);
        let found = [("an insert", 1_030.0), ("a read", 505.0), ("a scan", 50.0), ("a new one", 7.0)];
        assert_eq!(dearer(&found, &before), [("an insert", 1_000.0, 1_030.0)]);
        assert!(markdown(&found, &before).contains("| a read | 505 | 500 |"));
    }
}
