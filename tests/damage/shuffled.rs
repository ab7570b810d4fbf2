//! Whole files in the wrong place: swapped, copied, removed, put back from elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dictdb::{Error, RestoreOptions};

use crate::chain::{Chain, DIR, FORMATS, Outcome, Shape, restore_and_judge};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Restores both ways; gives what the strict one gave.
fn judge(label: &str, files: &Files, chains: &[&Chain]) -> Outcome {
    let label = || label.to_owned();
    restore_and_judge(&label, files, chains, RestoreOptions::new().accept_earlier(true));
    restore_and_judge(&label, files, chains, RestoreOptions::new())
}

#[test]
fn any_two_files_swapped_never_pass_for_one_another() {
    for chain in Chain::all("a") {
        let paths: Vec<_> = chain.files.keys().collect();
        for (n, one) in paths.iter().enumerate() {
            for other in &paths[n + 1..] {
                let mut files = chain.with(one, chain.files[*other].clone());
                files.insert((*other).clone(), chain.files[*one].clone());
                let label = format!("{}: {} and {} swapped", chain.label, one.display(), other.display());
                let outcome = judge(&label, &files, &[&chain]);
                if let Outcome::Point(index, report) = outcome {
                    let newest = index + 1 == chain.points.len();
                    assert!(newest || !report.damaged.is_empty(), "{label}: {report}");
                }
            }
        }
    }
}

/// A name like `path`'s with another stamp.
fn restamped(path: &Path, micros: i64) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    let (stem, extension) = name.split_once('.').unwrap();
    let mut parts = stem.rsplitn(3, '_');
    let stamp: Vec<i64> = parts.by_ref().take(2).map(|part| part.parse().unwrap()).collect();
    let stamp = stamp[1] * 1_000_000 + stamp[0] + micros;
    let kind = parts.next().unwrap();
    Path::new(DIR).join(format!("{kind}_{}_{:06}.{extension}", stamp / 1_000_000, stamp % 1_000_000))
}

#[test]
fn a_copy_under_another_stamp_or_kind_or_extension_changes_no_outcome_silently() {
    for chain in Chain::all("a") {
        for (path, bytes) in &chain.files {
            let name = path.to_string_lossy();
            let other_kind = if name.contains("_backup_") {
                name.replace("_backup_", "_delta_")
            } else {
                name.replace("_delta_", "_backup_")
            };
            let other_extension =
                if name.ends_with(".json") { name.replace(".json", ".bin") } else { name.replace(".bin", ".json") };
            let stamps = [-1_000_000_000_000, -3, -1, 1, 2, 3, 60_000_000, 1_000_000_000_000];
            let mut copies: Vec<PathBuf> = stamps.iter().map(|micros| restamped(path, *micros)).collect();
            copies.extend([other_kind.into(), other_extension.into()]);
            for copy in copies {
                if chain.files.contains_key(&copy) {
                    continue; // that is a replaced file, and has its own test
                }
                let files = chain.with(&copy, bytes.clone());
                let label = format!("{}: {} copied to {}", chain.label, path.display(), copy.display());
                if let Some(index) = judge(&label, &files, &[&chain]).reached() {
                    assert_eq!(index, chain.points.len() - 1, "{label}");
                }
            }
        }
    }
}

#[test]
fn any_files_removed_leave_an_earlier_point_or_an_error_that_names_the_missing_link() {
    for chain in Chain::all("a") {
        let paths: Vec<_> = chain.files.keys().collect();
        // Every subset, the whole chain and the empty directory included.
        for kept in 0..1_u32 << paths.len() {
            let files: Files = (0..paths.len())
                .filter(|n| kept & (1 << n) != 0)
                .map(|n| (paths[n].clone(), chain.files[paths[n]].clone()))
                .collect();
            let label = format!("{}: kept {:?}", chain.label, files.keys());
            match judge(&label, &files, &[&chain]) {
                Outcome::Point(_, report) => {
                    assert!(report.damaged.is_empty() && !report.fell_back, "{label}: {report}")
                }
                Outcome::Refused(Error::MissingLink { needs, .. }) => {
                    assert!(chain.points.iter().any(|known| known.point == *needs), "{label}: {needs}");
                }
                Outcome::Refused(Error::NoBackup { damaged, .. }) => assert!(damaged.is_empty(), "{label}"),
                Outcome::Refused(error) => panic!("{label}: {error}"),
            }
        }
    }
}

#[test]
fn a_removed_file_is_missed_unless_what_remains_reaches_as_far() {
    for format in FORMATS {
        let chain = Chain::new(Shape::Bridged, format, "a");
        let last = chain.points.len() - 1;
        let (fulls, deltas) = (chain.of_kind("_backup_"), chain.of_kind("_delta_"));
        // full 0, delta 1, delta 2, full 3 with its bridge, delta 4.
        let [first, second, bridge, newest] = deltas[..] else { panic!("{deltas:?}") };
        for (path, reached) in [
            (fulls[0], last),
            (first, last),
            (second, last),
            (fulls[1], last), // the bridge leads there
            (bridge, last),   // the newest full backup stands there
            (newest, last - 1),
        ] {
            let mut files = chain.files.clone();
            files.remove(path);
            let label = format!("{}: {} removed", chain.label, path.display());
            assert_eq!(judge(&label, &files, &[&chain]).reached(), Some(reached), "{label}");
        }
    }
}

#[test]
fn a_file_of_another_history_is_never_mixed_in_though_its_name_and_stamp_are_the_same() {
    for (chain, stranger) in Chain::all("a").into_iter().zip(Chain::all("b")) {
        assert!(chain.files.keys().eq(stranger.files.keys()), "the clock makes the names the same");
        for path in chain.files.keys() {
            let label = format!("{}: {} is a stranger's", chain.label, path.display());
            let replaced = chain.with(path, stranger.files[path].clone());
            judge(&label, &replaced, &[&chain, &stranger]);
            // Told which history is wanted, it gives that one or says what is missing.
            for wanted in [&chain, &stranger] {
                let lineage = wanted.points[0].point.lineage;
                for accept in [false, true] {
                    let options = RestoreOptions::new().lineage(lineage).accept_earlier(accept);
                    restore_and_judge(&|| label.clone(), &replaced, &[wanted], options);
                }
            }
            let mut beside = chain.files.clone();
            for (other, bytes) in &stranger.files {
                beside.entry(restamped(other, 1_000)).or_insert_with(|| bytes.clone());
            }
            judge(&format!("{label}, renamed"), &beside, &[&chain]);
        }
    }
}

#[test]
fn two_unrelated_histories_in_a_directory_are_refused_until_one_is_named() {
    for format in FORMATS {
        let chain = Chain::new(Shape::Bridged, format, "a");
        let stranger = Chain::new(Shape::FullsOnly, format, "b");
        let (path, bytes) = stranger.files.iter().next_back().unwrap();
        assert!(!chain.files.contains_key(path) || chain.files[path] != *bytes);
        let mut files = chain.files.clone();
        files.insert(path.clone(), bytes.clone());
        let label = format!("{} beside {}", chain.label, stranger.label);
        let outcome = judge(&label, &files, &[&chain, &stranger]);
        assert!(matches!(outcome, Outcome::Refused(Error::SeveralHistories { .. })), "{label}: {outcome:?}");
        let wanted = RestoreOptions::new().lineage(stranger.points[0].point.lineage);
        let outcome = restore_and_judge(&|| label.clone(), &files, &[&stranger], wanted);
        assert_eq!(outcome.reached(), Some(2), "{label}: {outcome:?}");
    }
}
