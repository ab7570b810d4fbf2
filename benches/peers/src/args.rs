//! The command line.

use std::path::PathBuf;

use crate::engines::{self, Kind, Res};
use crate::workloads;

pub(crate) const HELP: &str = "\
Measures dictdb against other embedded stores and against the limits of the machine.

cargo run --release --manifest-path benches/peers/Cargo.toml -- [OPTIONS]

  --workloads w1,w2   which ones; all without it (--list shows them)
  --engines a,b       which ones; all that are found without it (dictdb is needed for ratios)
  --records N         records; 1,000,000
  --rounds N          rounds, each with every engine in turn; 3
  --seconds S         how long a measurement by time lasts; 2
  --quick             20,000 records, 1 round, 0.2 seconds, results into benches/results/quick; what follows it overrides
  --dir DIR           where the engines' files go, on a real disk; the system's temporary directory
  --out DIR           where the results go; benches/results. What was measured of other workloads before stays there
  --large-pages       runs every engine's process with GLIBC_TUNABLES=glibc.malloc.hugetlb=1
  --report            writes the report anew from the measurements that are there
  --instructions      counts instructions with valgrind instead, and compares with the counts recorded there
  --list              workloads and engines
  --help              this

Examples:
  ... -- --quick                                      everything once, in a minute or so: does it work here?
  ... -- --workloads w3 --dir /mnt/nvme               what a synced commit costs on that disk
  ... -- --workloads w4,w5 --engines dictdb,lmdb,redb,hashmap,btreemap --rounds 5
";

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) workloads: Vec<String>,
    pub(crate) engines: Vec<String>,
    pub(crate) records: u64,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) dir: PathBuf,
    pub(crate) out: PathBuf,
    pub(crate) large_pages: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Run(Settings),
    /// The report alone.
    Report(Settings),
    Instructions(Settings),
    /// One job, in this process; how the program starts itself.
    Child(String),
    List,
    Help,
}

pub(crate) fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> Res<Command> {
    use lexopt::prelude::*;
    let mut settings = Settings {
        workloads: workloads::all().iter().map(|w| w.name.to_owned()).collect(),
        engines: engines::all().iter().map(|e| e.name.to_owned()).collect(),
        records: 1_000_000,
        rounds: 3,
        seconds: 2.0,
        dir: std::env::temp_dir(),
        out: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../results"),
        large_pages: false,
    };
    let mut command: fn(Settings) -> Command = Command::Run;
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("workloads") => {
                let known: Vec<_> = workloads::all().iter().map(|w| w.name).collect();
                settings.workloads = chosen(&parser.value()?.string()?, &known)?;
            }
            Long("engines") => {
                let known: Vec<_> = engines::all().iter().map(|e| e.name).collect();
                settings.engines = chosen(&parser.value()?.string()?, &known)?;
            }
            Long("records") => settings.records = parser.value()?.string()?.replace(['_', ','], "").parse()?,
            Long("rounds") => settings.rounds = parser.value()?.parse()?,
            Long("seconds") => settings.seconds = parser.value()?.parse()?,
            Long("quick") => {
                (settings.records, settings.rounds, settings.seconds) = (20_000, 1, 0.2);
                settings.out = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../results/quick");
            }
            Long("dir") => settings.dir = parser.value()?.into(),
            Long("out") => settings.out = parser.value()?.into(),
            Long("large-pages") => settings.large_pages = true,
            Long("child") => return Ok(Command::Child(parser.value()?.string()?)),
            Long("report") => command = Command::Report,
            Long("instructions") => command = Command::Instructions,
            Long("list") => return Ok(Command::List),
            Long("help") | Short('h') => return Ok(Command::Help),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if settings.records < 1_000 {
        return Err("--records: at least 1,000".into());
    }
    if settings.rounds == 0 || !settings.seconds.is_finite() || settings.seconds <= 0.0 {
        return Err("--rounds and --seconds: more than none".into());
    }
    Ok(command(settings))
}

/// The names of a list, in the order in which they are known.
fn chosen(list: &str, known: &[&str]) -> Res<Vec<String>> {
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("{name} is none of: {}", known.join(", ")).into());
    }
    Ok(known.iter().filter(|name| names.contains(name)).map(|name| (*name).to_owned()).collect())
}

pub(crate) fn list() {
    println!("workloads");
    for workload in workloads::all() {
        println!("  {:<14} {}", workload.name, workload.title);
    }
    println!("engines");
    for entry in engines::all() {
        let kind = match entry.kind {
            Kind::Ours | Kind::Store => "",
            Kind::Log => " (a log alone)",
            Kind::Limit => " (a limit)",
        };
        let missing = (entry.missing)().map_or(String::new(), |why| format!(": {why}"));
        println!("  {:<14} {}{kind}{missing}", entry.name, entry.title);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &str) -> Res<Settings> {
        match parse(args.split_whitespace().map(Into::into))? {
            Command::Run(settings) => Ok(settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_said_has_its_default_and_lists_keep_the_known_order() {
        let settings = run("").unwrap();
        assert_eq!((settings.records, settings.rounds), (1_000_000, 3));
        assert!(["w1", "w10", "growth", "python"].iter().all(|name| settings.workloads.contains(&(*name).to_owned())));
        let settings = run("--workloads w4,w1 --engines=redb,dictdb --records 5_000 --dir /x").unwrap();
        assert_eq!(
            (settings.workloads, settings.engines),
            (vec!["w1".into(), "w4".into()], vec!["dictdb".into(), "redb".into()])
        );
        assert_eq!((settings.records, settings.dir, settings.large_pages), (5_000, PathBuf::from("/x"), false));
        assert!(run("--large-pages").unwrap().large_pages);
    }

    #[test]
    fn what_follows_quick_overrides_it_and_it_keeps_away_from_the_results() {
        let settings = run("--quick --rounds 2").unwrap();
        assert!(settings.out.ends_with("results/quick"));
        assert_eq!((settings.records, settings.rounds, settings.seconds), (20_000, 2, 0.2));
    }

    #[test]
    fn mistakes_are_refused() {
        for args in ["--workloads w0", "--engines oracle", "--records 10", "--rounds 0", "--seconds -1", "--what", "w1"]
        {
            assert!(run(args).is_err(), "{args}");
        }
        assert_eq!(parse(["--help".into()]).unwrap(), Command::Help);
    }
}
