//! What the figures were measured on, and with.

use std::path::Path;
use std::process::Command;

use crate::engines::Entry;

const LOCK: &str = include_str!("../Cargo.lock");

/// Lines of a list: processor, memory, kernel, file system, compiler.
pub(crate) fn description(dir: &Path) -> String {
    let unknown = || "unknown".to_owned();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches([':', ' ', '\t']).to_owned())
    };
    let model = after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown);
    let cores = std::thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string());
    let memory = after(&read("/proc/meminfo"), "MemTotal")
        .and_then(|kib| kib.trim_end_matches(" kB").trim().parse::<u64>().ok())
        .map_or_else(unknown, |kib| format!("{} GiB", (kib + (1 << 19)) >> 20));
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    let filesystem = asked("df", &["--output=fstype,source", &dir.to_string_lossy()])
        .and_then(|text| text.lines().nth(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" on ")))
        .unwrap_or_else(unknown);
    let compiler = compiler();
    let pages = read("/sys/kernel/mm/transparent_hugepage/enabled").trim().to_owned();
    let malloc = std::env::var(crate::TUNABLES).map_or_else(
        |_| "malloc with its defaults".to_owned(),
        |tunables| format!("malloc with `{tunables}`, all engines"),
    );
    format!(
        "\n- {model}, {cores} cores, {memory}\n- Linux {kernel}, files on {filesystem}\n- {compiler}, release profile\n\
         - {malloc}; transparent huge pages: {pages}\n- load of the machine before the run: {load}\n"
    )
}

/// dictdb's version and the commit that it was built from.
pub(crate) fn dictdb() -> String {
    let version = locked(LOCK, "dictdb").unwrap_or("unknown");
    let git = |arguments: &[&str]| asked("git", &[&["-C", env!("CARGO_MANIFEST_DIR")], arguments].concat());
    let commit = git(&["rev-parse", "--short", "HEAD"]).map_or(String::new(), |hash| format!(" at {}", hash.trim()));
    let changed = git(&["status", "--porcelain", "--", "../../src"]).is_some_and(|status| !status.trim().is_empty());
    format!("{version}{commit}{}", if changed { ", changed since" } else { "" })
}

pub(crate) fn compiler() -> String {
    asked("rustc", &["--version"]).map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn asked(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The version that was linked: of its crate in the lock file, of a library of the system's by its file.
pub(crate) fn version_of(entry: &Entry) -> String {
    match entry.package {
        Some("dictdb") => dictdb(),
        Some(package) => {
            let mut version = locked(LOCK, package).unwrap_or("unknown").to_owned();
            match entry.name {
                "sqlite" => version = format!("{version} (SQLite {})", rusqlite::version()),
                "lmdb" => {
                    let heed::LmdbVersion { major, minor, patch, .. } = heed::lmdb_version();
                    version = format!("{version} (LMDB {major}.{minor}.{patch})");
                }
                "rocksdb" => version = format!("{version} ({})", rocksdb_library()),
                _ => {}
            }
            version
        }
        None if entry.name == "redis" => asked("redis-server", &["--version"])
            .and_then(|text| Some(text.split_once("v=")?.1.split(' ').next()?.to_owned()))
            .unwrap_or_default(),
        None if entry.name == "dctdb" => crate::engines::dctdb::version().unwrap_or_default(),
        None => "-".to_owned(),
    }
}

/// RocksDB is built from the crate's sources, or it is the system's where `ROCKSDB_LIB_DIR` said so at build time.
fn rocksdb_library() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    match maps.lines().find_map(|line| line.split_once("librocksdb.so.")) {
        Some((_, version)) => format!("with the system's RocksDB {version}"),
        None => format!("built from source, {}", locked(LOCK, "librocksdb-sys").unwrap_or("unknown")),
    }
}

fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file_by_the_whole_name() {
        let lock =
            "[[package]]\nname = \"sled-x\"\nversion = \"1.0\"\n\n[[package]]\nname = \"sled\"\nversion = \"0.34.7\"\n";
        assert_eq!(locked(lock, "sled"), Some("0.34.7"));
        assert_eq!(locked(lock, "led"), None);
        assert!(locked(LOCK, "redb").is_some_and(|version| version.starts_with("4.")));
    }
}
