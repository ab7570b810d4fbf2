//! What the layout of the sources promises.

use crate::sources;

/// The program's part of a source: without comments and without its unit tests, which stand at the end.
fn program(text: &str) -> String {
    let text = text.split_once("\n#[cfg(test)]\nmod ").map_or(text, |(program, tests)| {
        // `mod zoo;` and the like are files of their own; only `mod tests {` ends the program.
        if tests.starts_with("tests {") { program } else { text }
    });
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Files of src whose program part contains any of the words, but for those that may.
fn offenders(words: &[&str], may: impl Fn(&str) -> bool) -> Vec<String> {
    let hits = |path: &str, text: &str| {
        let program = program(text);
        words.iter().filter(|w| program.contains(**w)).map(|w| format!("{path}: {w}")).collect::<Vec<_>>()
    };
    sources("src").iter().filter(|(path, _)| !may(path)).flat_map(|(path, text)| hits(path, text)).collect()
}

/// A word that stands where it may, and so shows that the search finds what it looks for.
fn is_found_in(words: &[&str], path: &str) {
    assert!(offenders(words, |p| p != path).len() == words.len(), "{words:?} in {path}");
}

/// Files that hold nothing but tests.
fn is_test(path: &str) -> bool {
    ["/zoo.rs", "/spec_example.rs"].iter().any(|end| path.ends_with(end)) || path.contains("/tests")
}

#[test]
fn only_storage_names_the_file_system() {
    let words = ["std::fs", "File::open", "OpenOptions"];
    assert_eq!(offenders(&words, |path| path.starts_with("src/storage/") || is_test(path)), [""; 0]);
    is_found_in(&["std::fs", "File::open"], "src/storage/disk.rs");
}

#[test]
fn only_the_name_module_spells_the_names_of_backups() {
    let words = ["dictdb_backup_", "dictdb_delta_", "\"bin\"", ".tmp"];
    assert_eq!(offenders(&words, |path| path == "src/file/name.rs" || is_test(path)), [""; 0]);
    is_found_in(&words, "src/file/name.rs");
}

/// The simulator's own rule about what may be removed has to know them, too, and lies below.
#[test]
fn only_the_store_name_module_spells_the_names_of_a_stores_files() {
    let words = ["dictdb_log_", "dictdb_snapshot_", "dictdb_torn_"];
    let may = |path: &str| ["src/file/store_name.rs", "src/storage/sim/monitor.rs"].contains(&path) || is_test(path);
    assert_eq!(offenders(&words, may), [""; 0]);
    is_found_in(&words, "src/file/store_name.rs");
}

#[test]
fn only_the_clock_reads_a_clock() {
    let words = ["SystemTime::now", "Instant::now"];
    assert_eq!(offenders(&words, |path| path == "src/clock.rs" || is_test(path)), [""; 0]);
    is_found_in(&words, "src/clock.rs");
}

#[test]
fn there_is_no_unsafe_code() {
    assert!(crate::read("Cargo.toml").contains("unsafe_code = \"forbid\""));
    assert_eq!(offenders(&["unsafe "], |_| false), [""; 0]);
}

/// A file of more than 600 lines is more than one concept. What is counted is the program, not its tests.
#[test]
fn no_source_is_longer_than_600_lines() {
    let long = |(path, text): &(String, String)| {
        let program = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
        (program > 600).then(|| format!("{path}: {program} lines"))
    };
    let long: Vec<String> = sources("src").iter().filter_map(long).collect();
    assert_eq!(long, [""; 0]);
}
