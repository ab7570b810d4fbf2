//! The results as Markdown, and a chart of each workload.

use std::fmt::Write;
use std::path::Path;

use crate::engines::{self, Capability, Entry, Kind, Promise, Res};
use crate::measured::{self, All, Measured};
use crate::stats::Spread;
use crate::workloads::{self, Better, GROWTH_SIZES};
use crate::{chart, holds};

/// The report of what was measured before.
pub(crate) fn anew(dir: &Path) -> Res<()> {
    let all = measured::read(dir)?;
    if all.is_empty() {
        return Err(format!("no measurements in {}", dir.display()).into());
    }
    write(dir, &all)?;
    eprintln!("written: {}", dir.join("RESULTS.md").display());
    Ok(())
}

pub(crate) fn write(dir: &Path, all: &All) -> Res<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("RESULTS.md"), markdown(all)?)?;
    for measured in all.values() {
        let svg = if measured.workload == "growth" { chart::growth(measured) } else { chart::bars(measured)? };
        std::fs::write(dir.join(format!("{}.svg", measured.workload)), svg)?;
    }
    Ok(())
}

pub(crate) fn markdown(all: &All) -> Res<String> {
    let mut out = String::from(
        "# Results\n\nMade by [benches/peers](../peers/README.md), which says what is measured and how; \
         [measurements.json](measurements.json) has every figure.\n\n",
    );
    out.push_str(&holds::table(all)?);
    out.push_str(
        "\n## How to read the rest\n\nA figure is the median of the rounds or turns, in brackets the least and the \
         most. \"dictdb is\": how many times better dictdb did, by the median of the ratios of each round or turn; above \
         1 dictdb is better. \"of the limit\": the share of what the limit did.\n",
    );
    for workload in workloads::all() {
        if let Some(measured) = all.get(workload.name) {
            section(&mut out, measured)?;
        }
    }
    engines_used(&mut out, all);
    Ok(out)
}

/// What a metric's title or unit says of this run.
pub(crate) fn titled(title: &str, measured: &Measured) -> String {
    GROWTH_SIZES.iter().fold(title.to_owned(), |title, (name, times)| {
        title.replace(&format!("{{{name}}}"), &grouped(measured.records as f64 * times))
    })
}

fn section(out: &mut String, measured: &Measured) -> Res<()> {
    let workload = measured.of()?;
    let (name, title) = (workload.name, workload.title);
    let _ = writeln!(out, "\n## {name}: {title}\n\n![{title}]({name}.svg)");
    let (records, rounds) = (grouped(measured.records as f64), measured.rounds);
    let turns = match measured.turns.len() {
        turns if turns == rounds => String::new(),
        turns => format!(" in {turns} turns"),
    };
    let _ = writeln!(
        out,
        "{}- {records} records, {rounds} rounds{turns}, measurements by time {} s a round",
        measured.machine, measured.seconds
    );
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
        let (ours, without): (Vec<&Entry>, Vec<&Entry>) = engines::all()
            .into_iter()
            .filter(|entry| entry.kind == Kind::Ours && measured.ran(entry.name))
            .partition(|entry| rows.iter().any(|(other, _)| other.name == entry.name));
        let limit = workload.limit.filter(|limit| rows.iter().any(|(entry, _)| entry.name == *limit));
        let columns = ours.len() + usize::from(limit.is_some());
        let _ = write!(out, "\n| {} | {} |", titled(metric.title, measured), titled(metric.unit, measured));
        for ours in &ours {
            let _ = write!(out, " {} is |", ours.title);
        }
        let _ = writeln!(
            out,
            "{}\n|---|---:|{}",
            if limit.is_some() { " of the limit |" } else { "" },
            "---:|".repeat(columns)
        );
        for (entry, Spread { median, least, most }) in rows {
            let _ = write!(out, "| {} | {} ({} to {}) |", name_of(entry), figure(median), figure(least), figure(most));
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
        for entry in without.into_iter().filter(|_| metric.key.contains("encoded")) {
            let _ = writeln!(out, "| {} | n/a |{}", name_of(entry), " |".repeat(columns));
        }
    }
    for note in &measured.notes {
        let _ = writeln!(out, "\n- {note}");
    }
    for (engine, why) in &measured.failures {
        let _ = writeln!(out, "\n- {engine} failed: {why}");
    }
    Ok(())
}

fn name_of(entry: &Entry) -> String {
    match entry.kind {
        Kind::Ours => format!("**{}**", entry.title),
        Kind::Store => entry.title.to_owned(),
        Kind::Log => format!("{} (a log alone)", entry.title),
        Kind::Limit => format!("_{}_ (limit)", entry.title),
    }
}

fn engines_used(out: &mut String, all: &All) {
    out.push_str("\n## Engines\n\n| engine | version | not synced | synced (w3) |\n|---|---|---|---|\n");
    for entry in engines::all() {
        let mut versions: Vec<&str> = all
            .values()
            .flat_map(|measured| &measured.engines)
            .filter(|(name, _)| name == entry.name)
            .map(|(_, version)| &version[..])
            .collect();
        versions.dedup();
        if versions.is_empty() {
            continue;
        }
        let level = |promise: Promise, text: &'static str| match promise {
            Promise::Unsynced if !entry.can(Capability::Unsynced) && !entry.can(Capability::Json) => "-",
            Promise::Synced if !entry.can(Capability::Synced) => "-",
            _ => text,
        };
        let unsynced = level(Promise::Unsynced, entry.unsynced);
        let synced = level(Promise::Synced, entry.synced);
        let _ = writeln!(out, "| {} | {} | {unsynced} | {synced} |", entry.title, versions.join("; "));
    }
    let mut absent: Vec<&(String, String)> = all.values().flat_map(|measured| &measured.absent).collect();
    absent.sort();
    absent.dedup();
    for (name, why) in absent {
        let _ = writeln!(out, "\nNot measured: {name}, as {why}.");
    }
}

pub(crate) fn times(ratio: f64) -> String {
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

pub(crate) fn grouped(value: f64) -> String {
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
}
