//! DictDB for Python, which dictdb succeeds: only in the workload that runs the two side by side.

use std::process::{Command, Stdio};

use super::{Capability, Entry, Kind, unsupported};

pub(crate) static ENTRY: Entry = Entry {
    name: "dctdb",
    title: "DictDB for Python",
    package: None,
    kind: Kind::Store,
    unsynced: "in memory; JSON backups, not synced",
    synced: "-",
    capabilities: &[Capability::Json],
    open: |_, _| unsupported("table in this process"),
    missing: || version().is_none().then(|| format!("`{}` has no dctdb (`pip install dctdb`)", interpreter())),
};

/// `python3`, or what `PYTHON` names.
pub(crate) fn interpreter() -> String {
    std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

pub(crate) fn version() -> Option<String> {
    let script = "import dictdb, importlib.metadata, platform\n\
                  print(importlib.metadata.version('dctdb') + ', Python ' + platform.python_version())";
    let output = Command::new(interpreter()).args(["-c", script]).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
