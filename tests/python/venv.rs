//! A Python with the real DictDB: found, installed into a virtual environment of the tests' own, checked.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What the tests are measured against.
const REQUIREMENT: &str = "dctdb==1.11.0";

/// Says nothing and succeeds where the interpreter is new enough.
const IS_NEW_ENOUGH: &str = "import sys, venv; sys.exit(sys.version_info < (3, 13))";

/// Succeeds where the environment is complete.
const IS_SOUND: &str = "\
import sys, importlib.metadata, dictdb.storage.persist
sys.exit(sys.version_info < (3, 13) or importlib.metadata.version('dctdb') != '1.11.0')";

/// Runs a script of this folder with the real DictDB and gives what it printed; `None` where there is no Python for
/// it, which has been said loudly, or fails the test where CI or `DICTDB_REQUIRE_PYTHON=1` asks for one.
///
/// # Panics
/// Where the script fails.
pub(crate) fn run(script: &str, arguments: &[&Path]) -> Option<String> {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            say_loudly(why);
            return None;
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let output = Command::new(python).arg("-I").arg(&script).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed:\n{errors}", script.display());
    Some(String::from_utf8(output.stdout).unwrap())
}

fn say_loudly(why: &str) {
    let is_set = |name: &str| std::env::var(name).is_ok_and(|value| value == "1" || value == "true");
    let text = format!(
        "NOT TESTED against the real DictDB 1.11: {why}\n\
         Install Python 3.13 or later (pyenv counts), or name one in DICTDB_PYTHON."
    );
    assert!(!is_set("CI") && !is_set("DICTDB_REQUIRE_PYTHON"), "{text}");
    let bar = "!".repeat(100);
    // Not a print macro, whose output the test harness swallows where the test passes.
    let _ = std::io::stderr().write_all(format!("\n{bar}\n{text}\n{bar}\n").as_bytes());
}

/// The environment's interpreter; made once in a process, and found again by the next one.
fn python() -> Result<&'static Path, &'static str> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(make).as_deref().map_err(String::as_str)
}

fn make() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dictdb-1.11-venv");
    let inside = dir.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // Two test runs in one target directory: the second waits, and finds the environment of the first.
    let lock = File::create(dir.with_extension("lock")).map_err(|e| format!("{}: {e}", dir.display()))?;
    lock.lock().map_err(|e| format!("{}: {e}", dir.display()))?;
    if runs(&inside, ["-I", "-c", IS_SOUND]).is_ok() {
        return Ok(inside);
    }
    let base = candidates().into_iter().find(|python| runs(python, ["-I", "-c", IS_NEW_ENOUGH]).is_ok());
    let base = base.ok_or("there is no Python 3.13 or later here")?;
    runs(&base, [OsStr::new("-m"), "venv".as_ref(), "--clear".as_ref(), dir.as_os_str()])?;
    runs(&inside, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", REQUIREMENT])?;
    runs(&inside, ["-I", "-c", IS_SOUND])?;
    Ok(inside)
}

/// Where a Python may be, the one asked for first.
fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::var_os("DICTDB_PYTHON").map(PathBuf::from).into_iter().collect();
    found.extend(["python3.13", "python3.14", "python3", "python"].map(PathBuf::from));
    let home = std::env::home_dir().map(|home| home.join(".pyenv"));
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from).or(home);
    let versions = pyenv.and_then(|root| std::fs::read_dir(root.join("versions")).ok());
    for version in versions.into_iter().flatten().flatten() {
        found.push(version.path().join("bin/python3"));
    }
    found
}

fn runs<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{}: {e}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{} failed: {} {}", program.display(), said.trim(), errors.trim()))
}
