//! The order of writes, watched while the program runs: mistakes that only an unlucky crash would show.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file about to lose its name, by a removal or because a rename gives the name to another.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Removal<'a> {
    /// The name.
    pub path: &'a Path,
    /// The file that gets it, by the name it has had so far.
    pub replaced_by: Option<&'a Path>,
    /// All files whose bytes and name the program has been told are durable, without `path`, in order.
    pub durable: &'a [PathBuf],
}

type Rule = Arc<dyn Fn(&Removal<'_>) -> Result<(), String> + Send + Sync>;

#[derive(Clone, Default)]
pub(super) struct Monitor {
    rule: Option<Rule>,
    pub(super) violations: Vec<String>,
}

impl Monitor {
    pub(super) fn set_rule(&mut self, rule: impl Fn(&Removal<'_>) -> Result<(), String> + Send + Sync + 'static) {
        self.rule = Some(Arc::new(rule));
    }

    pub(super) fn report(&mut self, op: u64, what: impl fmt::Display) {
        self.violations.push(format!("operation {op}: {what}"));
    }

    pub(super) fn check_removal(&mut self, op: u64, removal: &Removal<'_>) {
        let verdict = match &self.rule {
            Some(rule) => rule(removal),
            None => keeps_a_snapshot(removal),
        };
        if let Err(why) = verdict {
            self.report(op, format_args!("{} loses its name: {why}", removal.path.display()));
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Monitor").field(&self.violations).finish()
    }
}

/// Whether a file of this name is one that nobody relies on yet.
pub(super) fn is_temporary(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("tmp"))
}

/// The rule of a store's own files: what a log segment or a snapshot held is in a snapshot that a crash spares.
fn keeps_a_snapshot(removal: &Removal<'_>) -> Result<(), String> {
    let begins = |path: &Path, prefix: &str| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
    };
    let is_snapshot = |path: &Path| begins(path, "dictdb_snapshot_") && !is_temporary(path);
    let matters = is_snapshot(removal.path) || begins(removal.path, "dictdb_log_");
    let beside = |path: &&PathBuf| path.parent() == removal.path.parent() && is_snapshot(path);
    if matters && removal.durable.iter().find(beside).is_none() {
        return Err("no snapshot beside it is durable in its bytes and its name".into());
    }
    Ok(())
}
