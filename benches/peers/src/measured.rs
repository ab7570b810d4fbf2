//! What was measured, as it is kept beside the report: each workload with what it was measured on, and with.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engines::Res;
use crate::stats::Spread;
use crate::workloads::{Better, Metric, Workload, by_name};

/// By the workloads' names.
pub(crate) type All = BTreeMap<String, Measured>;

/// Everything that one run found of one workload. Another run of it replaces it as a whole: figures of two runs are
/// never compared.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) workload: String,
    pub(crate) records: u64,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// Machine and compiler, as Markdown.
    pub(crate) machine: String,
    /// Names and versions.
    pub(crate) engines: Vec<(String, String)>,
    /// Names of engines that were not there, and why.
    pub(crate) absent: Vec<(String, String)>,
    /// Round by round, or turn by turn.
    pub(crate) turns: Vec<Vec<Figures>>,
    pub(crate) notes: Vec<String>,
    pub(crate) failures: Vec<(String, String)>,
}

/// What one engine did in one turn: figures by their keys.
pub(crate) type Figures = (String, Vec<(String, f64)>);

impl Measured {
    pub(crate) fn of(&self) -> Res<&'static Workload> {
        by_name(&self.workload)
    }

    fn value(&self, turn: usize, engine: &str, key: &str) -> Option<f64> {
        let (_, figures) = self.turns.get(turn)?.iter().find(|(name, _)| *name == engine)?;
        figures.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    pub(crate) fn spread(&self, engine: &str, key: &str) -> Option<Spread> {
        let values: Vec<f64> = (0..self.turns.len()).filter_map(|turn| self.value(turn, engine, key)).collect();
        Spread::of(&values)
    }

    /// How many times better `engine` is than `other`, by the median of the turns' ratios.
    pub(crate) fn times_better(&self, engine: &str, other: &str, metric: &Metric) -> Option<f64> {
        let ratios: Vec<f64> = (0..self.turns.len())
            .filter_map(|turn| {
                let (a, b) = (self.value(turn, engine, metric.key)?, self.value(turn, other, metric.key)?);
                let (above, below) = if metric.better == Better::More { (a, b) } else { (b, a) };
                (above > 0.0 && below > 0.0).then(|| above / below)
            })
            .collect();
        Spread::of(&ratios).map(|spread| spread.median)
    }

    pub(crate) fn ran(&self, engine: &str) -> bool {
        self.turns.iter().flatten().any(|(name, _)| name == engine)
    }
}

const FILE: &str = "measurements.json";

pub(crate) fn read(dir: &Path) -> Res<All> {
    match std::fs::read(dir.join(FILE)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(All::new()),
        Err(e) => Err(e.into()),
    }
}

pub(crate) fn write(dir: &Path, all: &All) -> Res<()> {
    std::fs::create_dir_all(dir)?;
    // A line for each workload: what changes is seen at a glance.
    let lines: Vec<String> = all
        .iter()
        .map(|(name, measured)| Ok(format!("{}:{}", serde_json::to_string(name)?, serde_json::to_string(measured)?)))
        .collect::<Res<_>>()?;
    std::fs::write(dir.join(FILE), format!("{{\n{}\n}}\n", lines.join(",\n")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(a: f64, b: f64) -> Vec<Figures> {
        let figures = |v: f64| vec![("one".to_owned(), v), ("one_p99".to_owned(), 100.0 / v)];
        vec![("dictdb".to_owned(), figures(a)), ("redb".to_owned(), figures(b))]
    }

    #[test]
    fn ratios_pair_the_turns_and_above_one_is_better_whichever_way_the_figure_goes() {
        let turns = vec![turn(2.0, 1.0), turn(30.0, 10.0), turn(4.0, 1.0)];
        let measured = Measured { workload: "w3".to_owned(), turns, ..Measured::default() };
        let metrics = measured.of().unwrap().metrics;
        for metric in &metrics[..2] {
            let ratio = measured.times_better("dictdb", "redb", metric).unwrap();
            assert!((ratio - 3.0).abs() < 1e-9, "{}: {ratio}", metric.key);
        }
        assert_eq!(measured.spread("dictdb", "one").unwrap().median, 4.0);
        assert_eq!(measured.times_better("dictdb", "lmdb", &metrics[0]), None);
    }

    #[test]
    fn what_other_runs_measured_stays_and_the_same_workload_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let of = |workload: &str, value| Measured {
            workload: workload.to_owned(),
            turns: vec![turn(value, 1.0)],
            ..Measured::default()
        };
        for (workload, value) in [("w1", 1.0), ("w3", 2.0), ("w1", 3.0)] {
            let mut all = read(dir.path()).unwrap();
            all.insert(workload.to_owned(), of(workload, value));
            write(dir.path(), &all).unwrap();
        }
        let all = read(dir.path()).unwrap();
        let found: Vec<f64> = all.values().map(|m| m.spread("dictdb", "one").unwrap().median).collect();
        assert_eq!(found, [3.0, 2.0]);
    }
}
