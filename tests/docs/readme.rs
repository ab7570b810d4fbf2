//! README.md against the program: every test that it names exists, every name of the Python guide has its row.

use std::collections::BTreeSet;

use crate::{read, sources};

/// One row of a table, by cell.
fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let section = text.split(&format!("# {heading}\n")).nth(1).unwrap_or_else(|| panic!("section {heading}"));
    let section = section.split("\n##").next().unwrap();
    let tables = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    tables.map(cells).filter(|cells: &Vec<String>| cells.last().is_none_or(|last| last != "Test")).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The names of all test functions.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in sources("src").into_iter().chain(sources("tests")) {
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            // Attributes may stand between.
            if let [attribute, function] = pair
                && (attribute.trim() == "#[test]" || attribute.trim().starts_with("#["))
                && let Some(rest) = function.trim().strip_prefix("fn ")
                && let Some((name, _)) = rest.split_once('(')
            {
                names.insert(name.to_owned());
            }
        }
        // The promises of the storage are functions called by a macro that makes the tests.
        for name in lines.iter().filter_map(|line| line.trim().strip_prefix("fn ")?.split_once("(storage: ")) {
            names.insert(name.0.to_owned());
        }
    }
    names
}

/// Tables whose last column names tests.
const TABLES_WITH_TESTS: [&str; 4] =
    ["What a store promises", "Every name of the Python guide", "Guarantees", "Different on purpose"];

#[test]
fn every_test_named_in_the_readme_exists() {
    let readme = read("README.md");
    let tests = tests();
    assert!(tests.contains("every_test_named_in_the_readme_exists"));
    let mut missing = Vec::new();
    for heading in TABLES_WITH_TESTS {
        let rows = rows(&readme, heading);
        assert!(rows.len() > 5, "{heading}");
        for row in rows {
            let named = quoted(row.last().unwrap());
            if named.is_empty() {
                missing.push(format!("{heading}: no test in {row:?}"));
            }
            missing
                .extend(named.iter().filter(|name| !tests.contains(**name)).map(|name| format!("{heading}: {name}")));
        }
    }
    assert_eq!(missing, [""; 0]);
}

/// Every class, function, parameter, method, attribute, member and file name of the guide, in its order.
const GUIDE: &[&str] = &[
    "DictDB",
    "BackupManager",
    "create_table",
    "db",
    "backup_dir",
    "backup_interval",
    "file_format",
    "start",
    "stop",
    "\"json\"",
    "\"pickle\"",
    "min_backup_interval",
    "on_backup_failure",
    "incremental",
    "max_deltas_before_full",
    "backup_now",
    "backup_full",
    "backup_delta",
    "notify_change",
    "\"type\": \"delta\"",
    "\"timestamp\"",
    "\"tables\"",
    "\"upserts\"",
    "\"deletes\"",
    "error",
    "consecutive_failures",
    "dictdb_backup_1234567890_123456.json",
    "dictdb_delta_1234567890_123456.json",
    "deltas_since_full",
    "primary_key",
    "get_table",
    "insert",
    "DictDB.load",
    "dictdb_backup_*.json",
    "dictdb_delta_*.json",
    "apply_delta",
];

#[test]
fn every_name_of_the_python_guide_has_its_row() {
    let readme = read("README.md");
    let rows = rows(&readme, "Every name of the Python guide");
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let missing: Vec<&&str> = GUIDE.iter().filter(|name| !named.contains(**name)).collect();
    assert_eq!(missing, [&""; 0]);
    for row in &rows {
        assert_eq!(row.len(), 3, "{row:?}");
        assert!(!quoted(&row[1]).is_empty(), "no Rust in {row:?}");
    }
}

#[test]
fn every_section_of_the_python_guide_has_its_own() {
    let readme = read("README.md");
    let sections = [
        "Basic usage",
        "Configuration options",
        "Manual backups",
        "Change notification",
        "Incremental backups",
        "Failure handling",
        "Backup file naming",
        "Status monitoring",
        "Example: production setup",
        "Restoring from backups",
    ];
    let mut at = 0;
    for section in sections {
        let found = readme[at..].find(&format!("\n### {section}\n")).unwrap_or_else(|| panic!("{section}, in order"));
        at += found;
        let body = readme[at + 5..].split("\n##").next().unwrap();
        assert!(body.contains("```rust"), "{section} has its Rust");
    }
}

#[test]
fn links_lead_to_files_that_are_there() {
    for document in ["README.md", "SPEC.md", "CHANGELOG.md"] {
        let text = read(document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if target.contains("://") {
                continue;
            }
            let file = if file.is_empty() { document } else { file };
            let linked = std::fs::metadata(file).unwrap_or_else(|error| panic!("{document}: {target}: {error}"));
            if !anchor.is_empty() && linked.is_file() {
                let slug = |line: &str| {
                    line.trim_start_matches('#').trim().to_lowercase().replace([':', ',', '`'], "").replace(' ', "-")
                };
                let there = read(file).lines().any(|line| line.starts_with('#') && slug(line) == anchor);
                assert!(there, "{document}: {target}");
            }
        }
    }
}
