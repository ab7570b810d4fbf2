//! DictDB 1.11 for Python, both ways: its files are read here, and the real one reads ours.
//!
//! What needs Python makes its own virtual environment (see [`venv`]) and says loudly where it could not run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod behind;
mod dictdb_1_11;
mod from_here;
mod oracle;
mod venv;
