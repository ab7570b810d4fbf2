//! The results as Markdown, and a chart of each workload.

use std::fmt::Write;

use crate::args::Settings;
use crate::engines::{self, Entry, Kind, Promise, Res};
use crate::stats::Spread;
use crate::workloads::{Better, Metric, Workload};
use crate::{chart, machine};

pub(crate) struct Failure {
    pub(crate) engine: &'static str,
    pub(crate) why: String,
}

/// What one engine did in one round: figures by their keys.
pub(crate) type Figures = (&'static str, Vec<(String, f64)>);

/// Everything that was measured of one workload, round by round.
pub(crate) struct Measured {
    pub(crate) workload: &'static Workload,
    pub(crate) rounds: Vec<Vec<Figures>>,
    pub(crate) notes: Vec<String>,
    pub(crate) failures: Vec<Failure>,
}

impl Measured {
    fn value(&self, round: usize, engine: &str, key: &str) -> Option<f64> {
        let (_, figures) = self.rounds.get(round)?.iter().find(|(name, _)| *name == engine)?;
        figures.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    pub(crate) fn spread(&self, engine: &str, key: &str) -> Option<Spread> {
        let values: Vec<f64> = (0..self.rounds.len()).filter_map(|round| self.value(round, engine, key)).collect();
        Spread::of(&values)
    }

    /// How many times better `engine` is than `other`, by the median of the rounds' ratios.
    fn times_better(&self, engine: &str, other: &str, metric: &Metric) -> Option<f64> {
        let ratios: Vec<f64> = (0..self.rounds.len())
            .filter_map(|round| {
                let (a, b) = (self.value(round, engine, metric.key)?, self.value(round, other, metric.key)?);
                let (above, below) = if metric.better == Better::More { (a, b) } else { (b, a) };
                // Bytes beyond a record's own may be none, or fewer than none: no ratio says that.
                (above > 0.0 && below > 0.0).then(|| above / below)
            })
            .collect();
        Spread::of(&ratios).map(|spread| spread.median)
    }
}

pub(crate) fn write(settings: &Settings, measured: &[Measured], absent: &[(&Entry, String)]) -> Res<()> {
    std::fs::create_dir_all(&settings.out)?;
    std::fs::write(settings.out.join("RESULTS.md"), markdown(settings, measured, absent))?;
    for measured in measured {
        std::fs::write(settings.out.join(format!("{}.svg", measured.workload.name)), chart::svg(measured))?;
    }
    Ok(())
}

pub(crate) fn markdown(settings: &Settings, measured: &[Measured], absent: &[(&Entry, String)]) -> String {
    let mut out = String::new();
    push(
        &mut out,
        "# Results\n\nMade by the program in this directory; [README.md](../README.md) says what is measured.\n",
    );
    push(&mut out, &machine::description(&settings.dir));
    let (records, rounds, seconds) = (grouped(settings.records as f64), settings.rounds, settings.seconds);
    push(&mut out, &format!("- {records} records, {rounds} rounds, measurements by time last {seconds} s\n"));
    push(
        &mut out,
        "\nA figure is the median of the rounds, in brackets the least and the most. \"dictdb is\": how many times better dictdb did, by the median of the rounds' ratios; above 1 dictdb is better. \"of the limit\": the share of what the limit did.\n",
    );
    for measured in measured {
        section(&mut out, measured);
    }
    settings_of_engines(&mut out, settings, absent);
    out
}

fn push(out: &mut String, text: &str) {
    out.push_str(text);
}

fn section(out: &mut String, measured: &Measured) {
    let workload = measured.workload;
    let _ = writeln!(out, "\n## {}: {}\n\n![{}]({}.svg)", workload.name, workload.title, workload.title, workload.name);
    let limit = workload.limit;
    for metric in workload.metrics {
        let mut rows: Vec<(&Entry, Spread)> = engines::all()
            .into_iter()
            .filter_map(|entry| Some((entry, measured.spread(entry.name, metric.key)?)))
            .collect();
        if rows.is_empty() {
            continue;
        }
        rows.sort_by(|(_, a), (_, b)| match metric.better {
            Better::More => b.median.total_cmp(&a.median),
            Better::Less => a.median.total_cmp(&b.median),
        });
        let measured_here = |entry: &Entry| rows.iter().any(|(other, _)| other.name == entry.name);
        let ours: Vec<&Entry> =
            engines::all().into_iter().filter(|entry| entry.kind == Kind::Ours && measured_here(entry)).collect();
        let limit = limit.filter(|limit| rows.iter().any(|(entry, _)| entry.name == *limit));
        let _ = write!(out, "\n| {} | {} |", metric.title, metric.unit);
        for ours in &ours {
            let _ = write!(out, " {} is |", ours.title);
        }
        let of_limit = if limit.is_some() { " of the limit |" } else { "" };
        let _ = writeln!(
            out,
            "{of_limit}\n|---|---:|{}{}",
            "---:|".repeat(ours.len()),
            if limit.is_some() { "---:|" } else { "" }
        );
        for (entry, spread) in rows {
            let name = match entry.kind {
                Kind::Ours => format!("**{}**", entry.title),
                Kind::Store => entry.title.to_owned(),
                Kind::Log => format!("{} (a log alone)", entry.title),
                Kind::Limit => format!("_{}_ (limit)", entry.title),
            };
            let Spread { median, least, most } = spread;
            let _ = write!(out, "| {name} | {} ({} to {}) |", figure(median), figure(least), figure(most));
            for ours in &ours {
                let ratio =
                    (ours.name != entry.name).then(|| measured.times_better(ours.name, entry.name, metric)).flatten();
                let _ = write!(out, " {} |", ratio.map_or(String::new(), times));
            }
            if let Some(limit) = limit {
                let share = (limit != entry.name).then(|| measured.times_better(entry.name, limit, metric)).flatten();
                let _ = write!(out, " {} |", share.map_or(String::new(), times));
            }
            out.push('\n');
        }
    }
    for note in &measured.notes {
        let _ = writeln!(out, "\n- {note}");
    }
    for Failure { engine, why } in &measured.failures {
        let _ = writeln!(out, "\n- {engine} failed: {why}");
    }
}

fn settings_of_engines(out: &mut String, settings: &Settings, absent: &[(&Entry, String)]) {
    push(out, "\n## Engines\n\n| engine | version | not synced | synced (w3) |\n|---|---|---|---|\n");
    let absent_here = |entry: &Entry| absent.iter().any(|(other, _)| other.name == entry.name);
    for entry in engines::all().into_iter().filter(|entry| settings.engines.iter().any(|n| n == entry.name)) {
        if absent_here(entry) {
            continue;
        }
        let version = machine::version_of(entry);
        let level = |promise: Promise, text: &'static str| match promise {
            Promise::Unsynced if !entry.can(engines::Capability::Unsynced) => "-",
            Promise::Synced if !entry.can(engines::Capability::Synced) => "-",
            _ => text,
        };
        let unsynced = level(Promise::Unsynced, entry.unsynced);
        let synced = level(Promise::Synced, entry.synced);
        let _ = writeln!(out, "| {} | {version} | {unsynced} | {synced} |", entry.title);
    }
    for (entry, why) in absent {
        let _ = writeln!(out, "\nNot measured: {}, as {why}.", entry.title);
    }
}

fn times(ratio: f64) -> String {
    if ratio >= 100.0 { format!("{ratio:.0}") } else { format!("{ratio:.2}") }
}

/// Three or more significant digits.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 1_000.0 => grouped(value),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = if value < 0.0 { String::from("-") } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_grouped() {
        let shown: Vec<String> =
            [1_234_567.0, 999.4, 12.345, 0.01234, 0.000123, -1_500.0].into_iter().map(figure).collect();
        assert_eq!(shown, ["1,234,567", "999", "12.35", "0.012", "0.00012", "-1,500"]);
    }

    #[test]
    fn ratios_pair_the_rounds_and_above_one_is_better_whichever_way_the_figure_goes() {
        let workload = crate::workloads::all()[2];
        let round = |a: f64, b: f64| {
            let figures = |v: f64| vec![("one".to_owned(), v), ("one_p99".to_owned(), 100.0 / v)];
            vec![("dictdb", figures(a)), ("redb", figures(b))]
        };
        let rounds = vec![round(2.0, 1.0), round(30.0, 10.0), round(4.0, 1.0)];
        let measured = Measured { workload, rounds, notes: Vec::new(), failures: Vec::new() };
        for metric in &workload.metrics[..2] {
            let ratio = measured.times_better("dictdb", "redb", metric).unwrap();
            assert!((ratio - 3.0).abs() < 1e-9, "{}: {ratio}", metric.key);
        }
        assert_eq!(measured.spread("dictdb", "one").unwrap().median, 4.0);
        assert_eq!(measured.times_better("dictdb", "lmdb", &workload.metrics[0]), None);
    }
}
