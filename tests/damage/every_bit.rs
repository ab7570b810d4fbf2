//! Every length, every bit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dictdb::{BackupFormat, DictDb, Error, LoadOptions, RestoreOptions};

use crate::chain::{
    Chain, DIR, FORMATS, Outcome, Shape, assert_says_where, bounded, contents, restore_and_judge, storage_of,
};

/// Full backups alone, of each sort.
fn full_backups() -> [Chain; 3] {
    [(Shape::FullsOnly, FORMATS[0]), (Shape::Compressed, FORMATS[0]), (Shape::FullsOnly, FORMATS[1])]
        .map(|(shape, format)| Chain::new(shape, format, "a"))
}

/// Each way in which one file of the chain can lose its tail or a bit, with a name for it.
fn damages(bytes: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let cut = (0..bytes.len()).map(|length| (format!("cut to {length}"), bytes[..length].to_vec()));
    let flipped = (0..bytes.len() * 8).map(|bit| {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {bit} flipped"), damaged)
    });
    cut.chain(flipped)
}

/// Damages each file of the chain in every way; `expect` looks at what came of it, with and without
/// `accept_earlier`.
fn damage_everything(chain: &Chain, expect: impl Fn(&str, &PathBuf, [Outcome; 2])) {
    for (path, bytes) in &chain.files {
        for (how, damaged) in damages(bytes) {
            let files = chain.with(path, damaged);
            let label = || format!("{}, {} {how}", chain.label, path.display());
            let judge =
                |accept| restore_and_judge(&label, &files, &[chain], RestoreOptions::new().accept_earlier(accept));
            expect(&label(), path, [judge(false), judge(true)]);
        }
    }
}

fn says_so(label: &str, chain: &Chain, path: &PathBuf, outcome: &Outcome) {
    if let Outcome::Point(index, report) = outcome {
        let newest = index + 1 == chain.points.len();
        assert!(
            newest || report.damaged.iter().any(|d| d.file == *path),
            "{label}: silently an earlier point: {report}"
        );
        let is_newest_full = chain.of_kind("_backup_").last() == Some(&path);
        assert_eq!(report.fell_back, is_newest_full, "{label}: {report}");
    }
}

fn damage_a_bridged_chain(format: BackupFormat) {
    let chain = Chain::new(Shape::Bridged, format, "a");
    let last = chain.points.len() - 1;
    damage_everything(&chain, |label, path, outcomes| {
        outcomes.iter().for_each(|outcome| says_so(label, &chain, path, outcome));
        let [strict, lenient] = outcomes;
        if chain.of_kind("_backup_").contains(&path) {
            // The bridge leads around either full backup.
            assert_eq!(strict.reached(), Some(last), "{label}: {strict:?}");
        }
        assert!(strict.reached().is_none_or(|index| index == last), "{label}: {strict:?}");
        assert!(lenient.reached().is_some(), "{label}: {lenient:?}");
    });
}

#[test]
fn no_flipped_bit_or_lost_tail_of_a_bridged_binary_chain_loses_a_commit_silently() {
    damage_a_bridged_chain(BackupFormat::Binary);
}

#[test]
fn no_flipped_bit_or_lost_tail_of_a_bridged_json_chain_loses_a_commit_silently() {
    damage_a_bridged_chain(BackupFormat::Json);
}

#[test]
fn no_flipped_bit_or_lost_tail_of_a_chain_of_deltas_loses_a_commit_silently() {
    let chain = Chain::new(Shape::DeltasOnly, FORMATS[0], "a");
    damage_everything(&chain, |label, path, outcomes| {
        outcomes.iter().for_each(|outcome| says_so(label, &chain, path, outcome));
        let [strict, lenient] = outcomes;
        assert!(strict.reached().is_none(), "{label}: every delta is needed: {strict:?}");
        let position = chain.files.keys().position(|p| p == path).unwrap();
        assert_eq!(lenient.reached(), position.checked_sub(1), "{label}: {lenient:?}");
    });
}

#[test]
fn full_backups_damaged_in_any_bit_or_cut_fall_back_to_the_one_before_and_say_so() {
    for chain in full_backups() {
        damage_everything(&chain, |label, path, outcomes| {
            let newest = chain.files.keys().last() == Some(path);
            let reached = if newest { chain.points.len() - 2 } else { chain.points.len() - 1 };
            for outcome in outcomes {
                says_so(label, &chain, path, &outcome);
                assert_eq!(outcome.reached(), Some(reached), "{label}: {outcome:?}");
            }
        });
    }
}

#[test]
fn a_single_full_backup_with_any_bit_flipped_or_any_tail_lost_is_refused() {
    for chain in full_backups() {
        let (path, bytes) = chain.files.iter().next().unwrap();
        for (how, damaged) in damages(bytes) {
            let label = || format!("{}, one full backup {how}", chain.label);
            let options = LoadOptions::new().storage(storage_of(&BTreeMap::from([(path.clone(), damaged)])));
            match bounded(&label, bytes.len(), || DictDb::load_with(path, &options)) {
                Ok(db) => panic!("{}: loaded {db:?}", label()),
                Err(error) => assert_says_where(&label, &error),
            }
        }
        let options = LoadOptions::new().storage(storage_of(&chain.files));
        let db = DictDb::load_with(path, &options).unwrap();
        assert_eq!(contents(&db), chain.points[0].contents, "undamaged it loads");
    }
}

#[test]
fn a_single_delta_with_any_bit_flipped_or_any_tail_lost_is_refused_and_changes_nothing() {
    for format in FORMATS {
        let chain = Chain::new(Shape::Bridged, format, "a");
        let sound = LoadOptions::new().storage(storage_of(&chain.files));
        let db = DictDb::load_with(chain.of_kind("_backup_")[0], &sound).unwrap();
        for path in chain.of_kind("_delta_") {
            let before = (db.digest(), db.seq(), db.lineage(), db.parent());
            for (how, damaged) in damages(&chain.files[path]) {
                let label = || format!("{format} {} {how}", path.display());
                let input_bytes = damaged.len() + chain.files.values().map(Vec::len).sum::<usize>();
                let options = LoadOptions::new().storage(storage_of(&BTreeMap::from([(path.clone(), damaged)])));
                match bounded(&label, input_bytes, || db.apply_delta_with(path, &options)) {
                    Ok(count) => panic!("{}: applied {count}", label()),
                    Err(error) => assert_says_where(&label, &error),
                }
                assert_eq!((db.digest(), db.seq(), db.lineage(), db.parent()), before, "{}", label());
            }
            db.apply_delta_with(path, &sound).unwrap();
        }
        assert_eq!(contents(&db), chain.points.last().unwrap().contents, "undamaged they lead to the end");
    }
}

#[test]
fn an_undamaged_chain_restores_to_its_newest_point_and_complains_of_nothing() {
    for chain in Chain::all("a") {
        for accept in [false, true] {
            let options = RestoreOptions::new().accept_earlier(accept);
            let outcome = restore_and_judge(&|| chain.label.clone(), &chain.files, &[&chain], options);
            let Outcome::Point(index, report) = outcome else { panic!("{}: {outcome:?}", chain.label) };
            assert_eq!(index, chain.points.len() - 1, "{}", chain.label);
            assert!(!report.fell_back && report.damaged.is_empty() && report.left_out.is_empty(), "{report}");
        }
    }
}

#[test]
fn zeros_of_any_length_and_an_empty_file_are_refused() {
    for chain in Chain::all("a") {
        for path in chain.files.keys() {
            for length in [0, 1, 7, 31, 127, 128, 232, 1_000, 4_096, 70_000] {
                let files = chain.with(path, vec![0; length]);
                let label = || format!("{}, {} is {length} zeros", chain.label, path.display());
                let outcome = restore_and_judge(&label, &files, &[&chain], RestoreOptions::new());
                says_so(&label(), &chain, path, &outcome);
            }
        }
    }
}

#[test]
fn an_empty_directory_and_a_missing_one_are_told_apart() {
    let restore = |files: &BTreeMap<_, _>, dir: &str| {
        RestoreOptions::new().storage(storage_of(files)).restore(dir).map(|(_, report)| report)
    };
    assert!(matches!(restore(&BTreeMap::new(), DIR), Err(Error::NoBackup { damaged, .. }) if damaged.is_empty()));
    let missing = restore(&BTreeMap::new(), "/none").unwrap_err();
    assert!(matches!(&missing, Error::Io { op: "list directory", .. }), "{missing}");
}
