//! The documents keep their word: README.md, SPEC.md and the layout of the sources are compared with the program.

// An integration test is all test; clippy takes only `#[cfg(test)]` for one.
#[cfg(test)]
#[path = "docs/guide.rs"]
mod guide;
#[cfg(test)]
#[path = "docs/layout.rs"]
mod layout;
#[cfg(test)]
#[path = "docs/readme.rs"]
mod readme;
#[cfg(test)]
#[path = "docs/spec.rs"]
mod spec;

/// A file of the repository.
#[cfg(test)]
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust sources under a directory, with their text.
#[cfg(test)]
fn sources(dir: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![std::path::PathBuf::from(dir)];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.to_str().unwrap().replace('\\', "/");
                found.push((name.clone(), read(&name)));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}
