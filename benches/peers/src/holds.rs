//! What dictdb should reach, and whether it does: from the same run as the figures.

use std::fmt::Write;

use crate::engines::{self, Kind, Res};
use crate::measured::{All, Measured};
use crate::report::figure;
use crate::workloads::{GROWTH_SIZES, Metric};

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Bound {
    fn holds(self, found: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => found >= bound,
            Bound::AtMost(bound) => found <= bound,
            Bound::Below(bound) => found < bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::AtLeast(bound) => write!(f, "at least {}", short(*bound)),
            Bound::AtMost(bound) => write!(f, "at most {}", short(*bound)),
            Bound::Below(bound) => write!(f, "below {}", short(*bound)),
        }
    }
}

/// As it is written where it was asked for.
fn short(bound: f64) -> String {
    if bound >= 1_000.0 { figure(bound) } else { format!("{bound}") }
}

/// A point of the list, what is looked at, what was found (`None`: not measured), and by whom.
struct Row {
    point: u8,
    what: String,
    found: Option<(f64, String)>,
    bound: Bound,
}

struct Rows<'a> {
    all: &'a All,
    rows: Vec<Row>,
}

const STORE: &str = "dictdb";
const MEMORY: &str = "dictdb-memory";

fn is_peer(name: &str) -> bool {
    engines::by_name(name).is_some_and(|entry| entry.kind == Kind::Store)
}

/// Those whose synced commits are: sled's flush does not reach fsync.
fn is_synced(name: &str) -> bool {
    engines::by_name(name).is_some_and(|entry| matches!(entry.kind, Kind::Store | Kind::Log)) && name != "sled"
}

/// Peers that keep what they answer from in memory.
fn is_in_memory(name: &str) -> bool {
    ["redis", "btreemap"].contains(&name)
}

impl Rows<'_> {
    fn add(&mut self, point: u8, what: &str, bound: Bound, found: Option<(f64, String)>) {
        self.rows.push(Row { point, what: what.to_owned(), found, bound });
    }

    fn metric(&self, workload: &str, key: &str) -> Option<(&Measured, &'static Metric)> {
        let measured = self.all.get(workload)?;
        let metric = measured.of().ok()?.metrics.iter().find(|metric| metric.key == key)?;
        Some((measured, metric))
    }

    /// How many times better than the best of the others, by the ratio to each: the least of these.
    fn against(&self, workload: &str, key: &str, ours: &str, others: fn(&str) -> bool) -> Option<(f64, String)> {
        let (measured, metric) = self.metric(workload, key)?;
        engines::all()
            .into_iter()
            .filter(|entry| others(entry.name))
            .filter_map(|entry| Some((measured.times_better(ours, entry.name, metric)?, entry.title.to_owned())))
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
    }

    fn value(&self, workload: &str, key: &str, engine: &str) -> Option<(f64, String)> {
        Some((self.metric(workload, key)?.0.spread(engine, key)?.median, String::new()))
    }
}

pub(crate) fn table(all: &All) -> Res<String> {
    use Bound::{AtLeast, AtMost, Below};
    let mut t = Rows { all, rows: Vec::new() };
    for workload in ["w1", "w2"] {
        let title = workload.to_uppercase();
        let what = |of: &str| format!("{title}, {of}");
        let peer = t.against(workload, "inserts", STORE, is_peer);
        t.add(1, &what("store: times the fastest peer database"), AtLeast(2.0), peer);
        for (ours, name) in [(STORE, "store"), (MEMORY, "memory")] {
            let map = t.against(workload, "inserts", ours, |name| name == "btreemap");
            t.add(1, &what(&format!("{name}: of a bare BTreeMap")), AtLeast(0.6), map);
        }
    }
    let one = t.against("w3", "one", STORE, is_synced);
    t.add(2, "W3, one writer: times the fastest peer, logs included, sled apart", AtLeast(1.0), one);
    let raw = t.against("w3", "one", STORE, |name| name == "raw");
    t.add(2, "W3, one writer: of the raw `fdatasync` loop", AtLeast(0.9), raw);
    let sixteen = t.against("w3", "sixteen", STORE, is_synced);
    t.add(2, "W3, 16 writers: times the fastest peer, logs included, sled apart", AtLeast(1.0), sixteen);

    for (workload, key, what) in [
        ("w4", "decoded_1", "W4, decoded, 1 reader"),
        ("w4", "decoded_2", "W4, decoded, 2 readers"),
        ("w4", "encoded_1", "W4, encoded, 1 reader"),
        ("w4", "encoded_2", "W4, encoded, 2 readers"),
        ("w4", "writing", "W4, while a writer writes"),
        ("w5", "full", "W5, full scan"),
        ("w5", "hundred", "W5, scans of 100"),
        ("w5", "full_encoded", "W5, full scan, encoded"),
        ("w5", "hundred_encoded", "W5, scans of 100, encoded"),
    ] {
        let found = t.against(workload, key, STORE, is_peer);
        t.add(3, &format!("{what}: times the fastest peer"), AtLeast(1.0), found);
        if ["decoded_1", "encoded_1"].contains(&key) {
            let map = t.against(workload, key, STORE, |name| name == "btreemap");
            t.add(3, &format!("{what}: of a bare BTreeMap"), AtLeast(1.0), map);
        }
    }
    for (key, what) in [
        ("held_share", "W4, while a snapshot is held: of the reads without"),
        ("held_writing_share", "W4, the same while a writer writes"),
    ] {
        let found = t.value("w4", key, STORE);
        t.add(3, what, AtLeast(0.9), found);
    }
    // "Scale with cores" has no number where it was asked for: this is ours, for two of them.
    let scale = t.value("w4", "decoded_scale", STORE);
    t.add(3, "W4, decoded, 2 readers: times 1 reader", AtLeast(1.6), scale);

    let peer = t.against("w6", "seconds", STORE, is_peer);
    t.add(4, "W6, full backup while a writer writes: times as fast as the fastest peer's", AtLeast(1.0), peer);
    let raw = t.value("w6", "against_raw", STORE).map(|(times, by)| (1.0 / times, by));
    t.add(4, "W6, the same: of the rate of a raw write and sync", AtLeast(0.9), raw);
    // How long the machine itself stops under as much load, whatever runs on it.
    let clock = t.value("w6", "longest_clock", STORE);
    let longest = t.value("w6", "longest", STORE).map(|(longest, by)| match clock {
        Some((clock, _)) => (longest, format!("a thread that only reads the clock: {}", figure(clock))),
        None => (longest, by),
    });
    t.add(4, "W6, longest pause of the writer, ms", Below(1.0), longest);
    let p999 = t.value("w6", "p999_ratio", STORE);
    t.add(4, "W6, 99.9 % of the commits: times without a backup", Below(2.0), p999);

    for (name, times) in &GROWTH_SIZES[..3] {
        let Some(measured) = all.get("w7") else { break };
        let raw = t.value("w7", &format!("{name}_raw"), STORE).map(|(times, by)| (1.0 / times, by));
        let records = figure(measured.records as f64 * times);
        t.add(5, &format!("W7, {records} records: of the rate of a raw write and sync"), AtLeast(0.8), raw);
    }
    for (key, what) in [("five_tenth", "fifty times as many records"), ("five_all", "five times as many records")] {
        let found = t.value("w7", key, STORE);
        t.add(5, &format!("W7, a changed row's cost with {what}: times as much"), AtMost(1.1), found);
    }

    let rows = t.value("w8", "rows", STORE);
    t.add(6, "W8, records/s from a snapshot", AtLeast(5e6), rows);
    let redis = t.against("w8", "first", STORE, |name| name == "redis");
    t.add(6, "W8, from a snapshot: times as fast as Redis's RDB load", AtLeast(5.0), redis);
    let deltas = t.value("w8", "deltas_full", STORE);
    t.add(6, "W8, full and 10 deltas: times the full alone", AtMost(1.5), deltas);

    for (ours, name) in [(STORE, "store"), (MEMORY, "memory")] {
        let memory = t.against("w9", "anonymous", ours, is_in_memory);
        t.add(
            7,
            &format!("W9, memory a record, {name}: times less than the least in-memory peer's"),
            AtLeast(1.0),
            memory,
        );
    }
    let small = t.against("w9", "small", STORE, is_peer);
    t.add(7, "W9, snapshot a record: times less than the smallest peer's file", AtLeast(1.0), small);

    let share = t.value("w9", "compressed_share", STORE);
    t.add(7, "W9, compressed snapshot a record: times one that is not", Below(1.0), share);
    let raw = t.value("w8", "compressed_raw_disk", STORE).map(|(times, by)| (1.0 / times, by));
    t.add(
        7,
        "W8, a compressed backup from the disk: of the rate of a plain read of one that is not",
        AtLeast(1.0),
        raw,
    );
    let plain = t.value("w8", "compressed_full_disk", STORE);
    t.add(7, "W8, the same: times the load of one that is not", AtMost(1.0), plain);

    // "No cliff" has no number where it was asked for: these are ours. What outgrows the processor's caches gets slower
    // in any structure, so that a step is compared with that of a bare map in the same run.
    for (key, what) in [("insert", "inserts"), ("read", "reads")] {
        let against_map =
            |from: &str, to: &str| Some(t.step(STORE, key, from, to)? / t.step("btreemap", key, from, to)?);
        let worst = worst_step(against_map);
        t.add(8, &format!("growth, {what}: the worst step, times what a BTreeMap keeps"), AtLeast(0.8), worst);
    }
    let worst = worst_step(|from, to| t.step(STORE, "open", from, to));
    t.add(8, "growth, opening: the worst step from one size to the next keeps", AtLeast(0.5), worst);
    Ok(t.markdown())
}

/// The least of what is found from one size to the next.
fn worst_step(step: impl Fn(&str, &str) -> Option<f64>) -> Option<(f64, String)> {
    let steps = GROWTH_SIZES.windows(2).filter_map(|sizes| step(sizes[0].0, sizes[1].0));
    steps.min_by(f64::total_cmp).map(|step| (step, String::new()))
}

impl Rows<'_> {
    /// What an engine's rate keeps from one size to another.
    fn step(&self, engine: &str, key: &str, from: &str, to: &str) -> Option<f64> {
        let rate = |size: &str| Some(self.value("growth", &format!("{key}_{size}"), engine)?.0);
        Some(rate(to)? / rate(from)?)
    }

    fn markdown(&self) -> String {
        let mut out = String::from(
            "## What must hold\n\nAgainst the peer, log or limit that came closest, by the median of the ratios; \
             bounds of 1.6 for two readers and those of growth are this program's own.\n\n\
             | point | what | found | bound | |\n|---|---|---:|---|---|\n",
        );
        for Row { point, what, found, bound } in &self.rows {
            let (value, verdict) = match found {
                None => ("n/a".to_owned(), "not measured"),
                Some((value, by)) => {
                    let by = if by.is_empty() { String::new() } else { format!(" ({by})") };
                    let verdict = if bound.holds(*value) { "holds" } else { "**does not hold**" };
                    (format!("{}{by}", figure(*value)), verdict)
                }
            };
            let _ = writeln!(out, "| {point} | {what} | {value} | {bound} | {verdict} |");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(workload: &str, figures: &[(&str, &[(&str, f64)])]) -> (String, Measured) {
        let turn = figures.iter().map(|(engine, figures)| {
            ((*engine).to_owned(), figures.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect())
        });
        let turns = vec![turn.collect()];
        (workload.to_owned(), Measured { workload: workload.to_owned(), turns, ..Measured::default() })
    }

    #[test]
    fn the_closest_peer_decides_and_logs_and_limits_are_judged_apart() {
        let engines: &[(&str, &[(&str, f64)])] = &[
            ("dictdb", &[("inserts", 100.0)]),
            ("redb", &[("inserts", 20.0), ("one", 50.0)]),
            ("sled", &[("one", 500.0)]),
            ("lmdb", &[("inserts", 40.0)]),
            ("raft-engine", &[("inserts", 400.0)]),
            ("btreemap", &[("inserts", 200.0)]),
        ];
        let table = table(&All::from([measured("w1", engines)])).unwrap();
        assert!(
            table.contains(
                "| 1 | W1, store: times the fastest peer database | 2.50 (LMDB (heed)) | at least 2 | holds |"
            ),
            "{table}"
        );
        assert!(!table.contains("(sled)"), "{table}");
        assert!(table.contains("| 0.500 (BTreeMap in a RwLock) | at least 0.6 | **does not hold** |"), "{table}");
        assert!(table.contains(
            "| 2 | W3, 16 writers: times the fastest peer, logs included, sled apart | n/a | at least 1 | not measured |"
        ));
    }

    #[test]
    fn a_step_of_growth_is_measured_by_the_step_of_a_map() {
        let engines: &[(&str, &[(&str, f64)])] = &[
            ("dictdb", &[("read_tenth", 100.0), ("read_all", 40.0), ("open_tenth", 10.0), ("open_all", 8.0)]),
            ("btreemap", &[("read_tenth", 200.0), ("read_all", 100.0)]),
        ];
        let table = table(&All::from([measured("growth", engines)])).unwrap();
        assert!(table.contains("times what a BTreeMap keeps | 0.800 | at least 0.8 | holds |"), "{table}");
        assert!(table.contains("keeps | 0.800 | at least 0.5 | holds |"), "{table}");
    }

    #[test]
    fn what_takes_longer_than_the_raw_write_is_a_share_of_its_rate() {
        let table =
            table(&All::from([measured("w6", &[("dictdb", &[("against_raw", 1.25), ("longest", 0.4)])])])).unwrap();
        assert!(table.contains("| 0.800 | at least 0.9 | **does not hold** |"), "{table}");
        assert!(table.contains("| 0.400 | below 1 | holds |"), "{table}");
    }

    #[test]
    fn beside_the_longest_pause_of_a_writer_stands_how_long_the_machine_itself_stopped() {
        let engines: &[(&str, &[(&str, f64)])] = &[("dictdb", &[("longest", 16.0), ("longest_clock", 14.5)])];
        let table = table(&All::from([measured("w6", engines)])).unwrap();
        let row = "| 16.00 (a thread that only reads the clock: 14.50) | below 1 | **does not hold** |";
        assert!(table.contains(row), "{table}");
    }

    #[test]
    fn what_compression_saves_and_costs_is_judged_against_what_is_not_compressed_and_against_the_disk() {
        let w8 = measured("w8", &[("dictdb", &[("compressed_raw_disk", 4.0), ("compressed_full_disk", 0.9)])]);
        let w9 = measured("w9", &[("dictdb", &[("compressed_share", 0.8)])]);
        let table = table(&All::from([w8, w9])).unwrap();
        assert!(table.contains("times one that is not | 0.800 | below 1 | holds |"), "{table}");
        assert!(table.contains("plain read of one that is not | 0.250 | at least 1 | **does not hold** |"), "{table}");
        assert!(table.contains("the load of one that is not | 0.900 | at most 1 | holds |"), "{table}");
    }
}
