//! The worked example of SPEC.md: the files that it shows are the files that this program writes.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::backup::BackupManager;
use crate::clock::ManualClock;
use crate::db::DictDb;
use crate::file::compression::Compression;
use crate::file::name::{BackupFormat, Stamp};
use crate::file::sink::{Existing, publish};
use crate::file::store_name::{StoreFile, StoreName};
use crate::file::{self, Origin};
use crate::history::{Lineage, Timestamp};
use crate::progress::{Stage, Watch};
use crate::record;
use crate::state::{Identity, State};
use crate::storage::{MemoryStorage, Storage};
use crate::store::{CheckpointPolicy, Options};

const SPEC: &str = include_str!("../../SPEC.md");

/// What the fenced block with this info string says: bytes for `hex`, text for `json`.
fn block(info: &str) -> Vec<u8> {
    let opening = format!("```{info}\n");
    let text = SPEC.split_once(&opening).and_then(|(_, rest)| rest.split_once("```\n")).unwrap().0;
    if info.starts_with("json") {
        return text.as_bytes().to_vec();
    }
    let mut bytes = Vec::new();
    for line in text.lines() {
        let (hex, _comment) = line.split_once('|').unwrap();
        let mut words = hex.split_whitespace();
        let at = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
        assert_eq!(at, bytes.len(), "the offset of {line:?}");
        bytes.extend(words.map(|word| u8::from_str_radix(word, 16).unwrap()));
    }
    bytes
}

/// 2026-01-01T00:00:00Z
const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// The empty database of the example's lineage.
fn empty() -> State {
    let lineage = Lineage::from_bytes(*b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10");
    State::empty(Identity { lineage, parent: None })
}

/// The example's commits, backed up in full after the second and as a delta after the third.
fn example(format: BackupFormat) -> Vec<(String, Vec<u8>)> {
    let storage = MemoryStorage::new();
    let clock = ManualClock::new(START);
    let db = DictDb::builder().clock(clock.clone()).build_from(empty());
    let dir = Path::new("backups");
    let manager = BackupManager::builder(&db, dir).file_format(format).storage(storage.clone()).build().unwrap();
    let users = db.create_table("users", "id").unwrap();
    users.insert(record! { "name": "Ann" }).unwrap();
    clock.advance(Duration::from_secs(1));
    let full = manager.backup_full().unwrap();
    clock.advance(Duration::from_secs(1));
    db.transaction(|tx| {
        let users = tx.table("users")?;
        users.insert(record! { "id": 2, "name": "Bo" })?;
        users.delete(1).map(drop)
    })
    .unwrap();
    clock.advance(Duration::from_secs(1));
    let delta = manager.backup_delta().unwrap();
    [full.file, delta.file]
        .map(|file| {
            let mut bytes = Vec::new();
            storage.open(&file).unwrap().read_to_end(&mut bytes).unwrap();
            (file.file_name().unwrap().to_str().unwrap().to_owned(), bytes)
        })
        .into()
}

/// The log of a store with the example's first two commits, closed a second later.
fn log_example() -> Vec<(String, Vec<u8>)> {
    let storage = MemoryStorage::new();
    let dir = Path::new("data");
    storage.create_dir_all(dir).unwrap();
    // A store's lineage is random, but for one that was there: an empty snapshot of an earlier stamp.
    let created = Timestamp::from_micros(0);
    let snapshot = dir.join(StoreName { stamp: Stamp::new(0), kind: StoreFile::Snapshot }.file_name());
    let watch = Watch::new(None, Stage::WritingFull, &snapshot);
    let origin = Origin { base: None, created };
    let fill = |sink: &mut _| file::write_full(BackupFormat::Binary, Compression::None, sink, empty(), &origin, &watch);
    publish(&storage, &snapshot, Existing::Refuse, fill).unwrap();

    let clock = ManualClock::new(START);
    let options = Options::new().storage(storage.clone()).clock(clock.clone()).preallocate_bytes(512);
    let db = options.checkpoint(CheckpointPolicy::manual()).open(dir).unwrap();
    storage.remove(&snapshot).unwrap();
    let users = db.create_table("users", "id").unwrap();
    users.insert(record! { "name": "Ann" }).unwrap();
    clock.advance(Duration::from_secs(1));
    db.close().unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    storage.paths().iter().map(|path| (name(path), storage.read(path).unwrap())).collect()
}

fn compare(language: &str, name: &str, bytes: &[u8]) {
    if std::env::var_os("PRINT_SPEC_EXAMPLE").is_some() {
        println!("@@ {name}\n{}", String::from_utf8_lossy(bytes));
        println!("@@ {}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>());
        return;
    }
    let shown = block(&format!("{language} {name}"));
    assert!(shown == bytes, "{name}: {shown:02x?} is shown, {bytes:02x?} is written");
}

#[test]
fn the_files_shown_in_the_specification_are_the_files_written() {
    for (format, language) in [(BackupFormat::Binary, "hex"), (BackupFormat::Json, "json")] {
        for (name, bytes) in example(format) {
            compare(language, &name, &bytes);
        }
    }
}

#[test]
fn the_log_shown_in_the_specification_is_the_log_written() {
    let files = log_example();
    assert_eq!(files.len(), 2, "one that goes on, and the one with the seal of the close");
    for (name, bytes) in files {
        compare("hex", &name, &bytes);
    }
}
