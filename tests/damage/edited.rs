//! JSON that was edited by hand: the error says that the checksum no longer fits and how to load the file all the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dictdb::{BackupFormat, BackupManager, DictDb, Error, LoadOptions, MemoryStorage, RestoreOptions, record};

use crate::chain::{Chain, DIR, Shape, storage_of};
use crate::forged::Parts;

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

/// A full backup and deltas, in these formats, with one record more each: their names are `name 0`, `name 1`, ...
fn chain_of(formats: &[BackupFormat]) -> Vec<(PathBuf, Vec<u8>)> {
    let (storage, db) = (MemoryStorage::new(), DictDb::new());
    let table = db.create_table("people", "id").unwrap();
    let file = |(n, format): (usize, &BackupFormat)| {
        table.insert(record! { "name": format!("name {n}") }).unwrap();
        let builder = BackupManager::builder(&db, DIR).storage(storage.clone()).file_format(*format);
        let manager = builder.incremental(true).build().unwrap();
        let report = if n == 0 { manager.backup_full() } else { manager.backup_delta() }.unwrap();
        (report.file.clone(), storage.read(&report.file).unwrap())
    };
    formats.iter().enumerate().map(file).collect()
}

fn names(db: &DictDb) -> Vec<String> {
    let name = |(_, record): (dictdb::Key, dictdb::Record)| record["name"].as_str().unwrap().to_owned();
    db.table("people").unwrap().iter().unwrap().map(name).collect()
}

// The first edited file of a chain was once the last one used: the next delta did not join onto what the edit had made.
#[test]
fn an_edited_json_chain_restores_whole_with_the_edited_values_when_it_is_to_be_trusted() {
    use BackupFormat::{Binary, Json};
    for formats in [[Json, Json, Json, Json], [Json, Json, Binary, Json], [Json, Binary, Binary, Json]] {
        for edited in [&[0][..], &[1], &[0, 1], &[0, 3]] {
            let mut chain = chain_of(&formats);
            let mut expected: Vec<String> = (0..4).map(|n| format!("name {n}")).collect();
            for n in edited.iter().copied().filter(|n| formats[*n] == Json) {
                let text = std::str::from_utf8(&chain[n].1).unwrap();
                chain[n].1 = text.replacen(&expected[n], "by hand", 1).into_bytes();
                expected[n] = "by hand".to_owned();
            }
            let files: BTreeMap<_, _> = chain.iter().cloned().collect();
            let label = format!("{formats:?}, {edited:?}");
            let restoring = RestoreOptions::new().storage(storage_of(&files)).ignore_checksum(true);
            let (db, report) = restoring.restore(DIR).unwrap_or_else(|error| panic!("{label}: {error}"));
            assert_eq!((names(&db), report.deltas.len()), (expected.clone(), 3), "{label}: {report}");
            assert!(report.damaged.is_empty() && report.left_out.is_empty(), "{label}: {report}");
            let text = edited.iter().filter(|index| formats[**index] == Json);
            let unchecked = text.map(|index| chain[*index].0.clone());
            assert!(report.unchecked.iter().cloned().eq(unchecked), "{label}: {report}");
            assert_eq!(
                report.to_string().contains("CHECKSUM DOES NOT FIT"),
                !report.unchecked.is_empty(),
                "{label}: {report}"
            );

            let options = LoadOptions::new().storage(storage_of(&files)).ignore_checksum(true);
            let db = DictDb::load_with(&chain[0].0, &options).unwrap();
            for (delta, _) in &chain[1..] {
                db.apply_delta_with(delta, &options).unwrap_or_else(|error| panic!("{label}: {error}"));
            }
            assert_eq!(names(&db), expected, "{label}");
        }
    }
}

#[test]
fn who_trusts_edited_text_takes_no_delta_of_another_place_and_no_binary_file_that_lies() {
    use BackupFormat::{Binary, Json};
    for format in [Json, Binary] {
        let chain = chain_of(&[format, format, format]);
        let restoring = |files| RestoreOptions::new().storage(storage_of(files)).ignore_checksum(true);
        let mut files: BTreeMap<_, _> = chain.iter().cloned().collect();
        files.remove(&chain[1].0);
        let error = restoring(&files).restore(DIR).unwrap_err();
        assert!(matches!(&error, Error::MissingLink { file, .. } if *file == chain[2].0), "{error}");
        let options = LoadOptions::new().storage(storage_of(&files)).ignore_checksum(true);
        let db = DictDb::load_with(&chain[0].0, &options).unwrap();
        let error = db.apply_delta_with(&chain[2].0, &options).unwrap_err();
        assert!(matches!(&error, Error::DoesNotJoin { .. }), "{error}");
    }

    // One that states another base is of another database, as a copy of a closed store is.
    let chain = chain_of(&[Json, Json]);
    let text = std::str::from_utf8(&chain[1].1).unwrap();
    let (head, base) = text.split_once("\"base\":").unwrap();
    let (lineage, digest) = base.split_once("\"digest\":\"").unwrap();
    let other = format!("{head}\"base\":{lineage}\"digest\":\"{}", "f".repeat(32) + &digest[32..]);
    let files = BTreeMap::from([chain[0].clone(), (chain[1].0.clone(), other.into_bytes())]);
    let restoring = RestoreOptions::new().storage(storage_of(&files)).ignore_checksum(true);
    assert!(matches!(restoring.restore(DIR).unwrap_err(), Error::MissingLink { .. }));

    let chain = chain_of(&[Json, Binary]);
    let mut parts = Parts::of(&chain[1].1);
    parts.frames.last_mut().unwrap().1[0] ^= 1;
    let files = BTreeMap::from([chain[0].clone(), (chain[1].0.clone(), parts.forge())]);
    let restoring = RestoreOptions::new().storage(storage_of(&files)).ignore_checksum(true);
    let error = restoring.restore(DIR).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, .. } if *file == chain[1].0), "{error}");
}
