//! JSON that was edited by hand: the error says that the checksum no longer fits and how to load the file all the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dictdb::{BackupFormat, DictDb, Error, LoadOptions, RestoreOptions};

use crate::chain::{Chain, DIR, Shape, storage_of};

/// Ways in which an editor or a person changes the text of a file, and whether a record's value is among them.
fn edits(text: &str) -> Vec<(&'static str, String, bool)> {
    let seal = text.rfind(",\n    \"dictdb_seal\"").unwrap();
    vec![
        ("a value of the same length", text.replacen("\"a1\"", "\"Z1\"", 1), true),
        ("a longer value", text.replacen("\"a1\"", "\"somebody else\"", 1), true),
        ("a shorter value", text.replacen("\"a1\"", "\"\"", 1), true),
        ("the last newline lost", text.trim_end().to_owned(), false),
        ("one newline more", format!("{text}\n"), false),
        ("lines ended by CR LF", text.replace('\n', "\r\n"), false),
        ("an empty line in front of the seal", format!("{}\n{}", &text[..seal], &text[seal..]), false),
    ]
}

fn only(path: &Path, text: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    BTreeMap::from([(path.to_owned(), text.as_bytes().to_vec())])
}

fn name_of_first(db: &DictDb) -> String {
    let record = db.table("accounts").unwrap().get(1).unwrap().unwrap();
    record["name"].as_str().unwrap().to_owned()
}

#[test]
fn an_edited_json_backup_says_how_to_load_it_and_loads_that_way() {
    let chain = Chain::new(Shape::FullsOnly, BackupFormat::Json, "a");
    let (path, bytes) = chain.files.iter().next().unwrap();
    let text = std::str::from_utf8(bytes).unwrap();
    for (edit, edited, is_value) in edits(text) {
        assert_ne!(edited, text, "{edit}");
        let files = only(path, &edited);
        let strict = LoadOptions::new().storage(storage_of(&files));
        let error = DictDb::load_with(path, &strict).unwrap_err();
        assert!(matches!(&error, Error::ChecksumMismatch { file, .. } if file == path), "{edit}: {error}");
        assert!(error.to_string().contains("ignore_checksum(true)"), "{edit}: {error}");

        let db = DictDb::load_with(path, &strict.clone().ignore_checksum(true)).unwrap();
        assert_eq!(name_of_first(&db) != "a1", is_value, "{edit}");
        assert_eq!(db.digest() != chain.points[0].point.digest, is_value, "{edit}");

        let restoring = RestoreOptions::new().storage(storage_of(&files));
        let error = restoring.restore(DIR).unwrap_err();
        assert!(error.to_string().contains("ignore_checksum(true)"), "{edit}: {error}");
        let (restored, report) = restoring.ignore_checksum(true).restore(DIR).unwrap();
        assert_eq!(restored.digest(), db.digest(), "{edit}: {report}");
    }
}

#[test]
fn an_edited_json_backup_is_passed_over_for_an_older_one_unless_it_is_to_be_trusted() {
    let chain = Chain::new(Shape::FullsOnly, BackupFormat::Json, "a");
    let (path, bytes) = chain.files.iter().next_back().unwrap();
    for (edit, edited, is_value) in edits(std::str::from_utf8(bytes).unwrap()) {
        let options = RestoreOptions::new().storage(storage_of(&chain.with(path, edited.into_bytes())));
        let (db, report) = options.restore(DIR).unwrap();
        assert_eq!(db.digest(), chain.points[1].point.digest, "{edit}");
        assert!(report.fell_back, "{edit}: {report}");
        assert!(matches!(&*report.damaged[0].error, Error::ChecksumMismatch { .. }), "{edit}: {report}");
        let (db, report) = options.ignore_checksum(true).restore(DIR).unwrap();
        assert_eq!(name_of_first(&db) != "a1", is_value, "{edit}: {report}");
        assert_eq!(report.full.as_deref(), Some(path.as_path()), "{edit}");
    }
}

#[test]
fn an_edited_json_delta_is_refused_and_applies_when_it_is_to_be_trusted() {
    let chain = Chain::new(Shape::Bridged, BackupFormat::Json, "a");
    let (full, delta) = (chain.of_kind("_backup_")[0], chain.of_kind("_delta_")[0]);
    let text = std::str::from_utf8(&chain.files[delta]).unwrap();
    for name in ["Z1", "someone"] {
        let edited = text.replacen("\"a1\"", &format!("{name:?}"), 1);
        assert_ne!(edited, text);
        let files = chain.with(delta, edited.into_bytes());
        let options = LoadOptions::new().storage(storage_of(&files));
        let db = DictDb::load_with(full, &options).unwrap();
        let error = db.apply_delta_with(delta, &options).unwrap_err();
        assert!(matches!(&error, Error::ChecksumMismatch { file, .. } if file == delta), "{error}");
        assert_eq!(db.digest(), chain.points[0].point.digest, "the refused delta changed nothing");
        db.apply_delta_with(delta, &options.ignore_checksum(true)).unwrap();
        assert_eq!(name_of_first(&db), name);
    }
}

#[test]
fn a_torn_json_backup_is_not_taken_for_an_edited_one() {
    let chain = Chain::new(Shape::FullsOnly, BackupFormat::Json, "a");
    let (path, bytes) = chain.files.iter().next().unwrap();
    let text = std::str::from_utf8(bytes).unwrap();
    // The last byte is a newline that editors drop and add; without the bracket before it the text is not whole.
    for length in 0..text.len() - 1 {
        let options = LoadOptions::new().storage(storage_of(&only(path, &text[..length])));
        let error = DictDb::load_with(path, &options).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { .. }), "cut to {length}: {error}");
        let trusting = options.ignore_checksum(true);
        assert!(DictDb::load_with(path, &trusting).is_err(), "cut to {length}, and loaded");
    }
}
