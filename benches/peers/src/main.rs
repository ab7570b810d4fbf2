//! Measures dictdb against other embedded stores, the same records and the same promise for all; README.md says how.

use std::process::ExitCode;
use std::time::Instant;

mod args;
mod chart;
mod data;
mod engines;
mod holds;
mod instructions;
mod machine;
mod measured;
mod report;
mod runner;
mod session;
mod stats;
mod workloads;

/// What glibc takes settings from. The processes of all engines inherit it.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Becomes this program anew, with an allocator that asks for pages of 2 MiB.
fn with_large_pages() -> engines::Res<()> {
    use std::os::unix::process::CommandExt;
    let mut again = std::process::Command::new(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env(TUNABLES, "glibc.malloc.hugetlb=1").exec().into())
}

fn main() -> ExitCode {
    let started = Instant::now();
    let done = match args::parse(std::env::args_os().skip(1)) {
        Ok(args::Command::Run(settings)) if settings.large_pages && std::env::var_os(TUNABLES).is_none() => {
            with_large_pages()
        }
        Ok(args::Command::Run(settings)) => runner::run(&settings),
        Ok(args::Command::Report(settings)) => report::anew(&settings.out),
        Ok(args::Command::Instructions(settings)) => instructions::count(&settings),
        Ok(args::Command::Child(job)) => runner::child(&job, started),
        Ok(args::Command::List) => {
            args::list();
            Ok(())
        }
        Ok(args::Command::Help) => {
            print!("{}", args::HELP);
            Ok(())
        }
        Err(e) => Err(format!("{e}\n\n{}", args::HELP).into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
