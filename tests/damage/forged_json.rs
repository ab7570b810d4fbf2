//! JSON files that lie with a checksum that fits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dictdb::{BackupFormat, DictDb, Error, LoadOptions, RestoreOptions};

use crate::chain::{Chain, DIR, Shape, bounded, contents, storage_of};

/// The text before the seal.
fn unsealed(bytes: &[u8]) -> Vec<u8> {
    let seal = b",\n    \"dictdb_seal\"";
    let at = bytes.windows(seal.len()).rposition(|window| window == seal).unwrap();
    bytes[..at].to_vec()
}

/// The text with a seal that fits it.
fn sealed(text: &[u8]) -> Vec<u8> {
    let (bytes, crc) = (text.len(), crc32fast::hash(text));
    let seal = format!(",\n    \"dictdb_seal\": {{\"bytes\": {bytes}, \"crc32\": \"{crc:08x}\"}}\n}}\n");
    [text, seal.as_bytes()].concat()
}

/// The full backup, and the delta that joins onto it.
fn chain_of_two() -> (Chain, PathBuf, PathBuf) {
    let mut chain = Chain::new(Shape::Bridged, BackupFormat::Json, "a");
    let (full, delta) = (chain.of_kind("_backup_")[0].clone(), chain.of_kind("_delta_")[0].clone());
    chain.files.retain(|path, _| [&full, &delta].contains(&path));
    (chain, full, delta)
}

/// Reads a forged file in every way: an error, or contents that were backed up.
fn judge(what: &str, chain: &Chain, path: &PathBuf, forged: Vec<u8>) -> Option<Error> {
    let files = chain.with(path, forged);
    let bytes: usize = files.values().map(Vec::len).sum();
    let storage = storage_of(&files);
    let label = || format!("{what} in {}", path.display());
    let known = |db: &DictDb| {
        let contents = contents(db);
        assert!(chain.points.iter().any(|point| point.contents == contents), "{}: {contents:?}", label());
    };
    let restoring = RestoreOptions::new().storage(storage.clone());
    let strict = bounded(&label, bytes, || restoring.restore(DIR)).map(|(db, _)| known(&db)).err();
    let accepting = restoring.accept_earlier(true);
    let _ = bounded(&label, bytes, || accepting.restore(DIR)).map(|(db, _)| known(&db));
    let options = LoadOptions::new().storage(storage.clone());
    let _ = bounded(&label, bytes, || DictDb::load_with(path, &options)).map(|db| known(&db));
    // Trusting the text may load other data, for that is what was asked; it costs no more.
    let trusting = options.clone().ignore_checksum(true);
    let _ = bounded(&label, bytes, || DictDb::load_with(path, &trusting));
    let db = DictDb::load_with(chain.of_kind("_backup_")[0], &options).unwrap_or_else(|_| DictDb::new());
    let before = contents(&db);
    if bounded(&label, bytes, || db.apply_delta_with(path, &options)).is_ok() {
        known(&db);
    } else {
        assert_eq!(contents(&db), before, "{}", label());
    }
    let _ = bounded(&label, bytes, || db.apply_delta_with(path, &trusting));
    strict
}

#[test]
fn the_forger_of_these_tests_makes_files_that_pass() {
    let (chain, full, delta) = chain_of_two();
    for path in [&full, &delta] {
        assert_eq!(sealed(&unsealed(&chain.files[path])), chain.files[path]);
    }
}

#[test]
fn no_flipped_bit_behind_a_repaired_checksum_gives_other_data_or_costs_memory() {
    let (chain, full, delta) = chain_of_two();
    for path in [&full, &delta] {
        let text = unsealed(&chain.files[path]);
        for bit in 0..text.len() * 8 {
            let mut forged = text.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            judge(&format!("bit {bit}"), &chain, path, sealed(&forged));
        }
    }
}

#[test]
fn no_huge_number_anywhere_costs_memory_or_time() {
    let (chain, full, delta) = chain_of_two();
    let huge = ["18446744073709551615", "18446744073709551616", "9223372036854775808", "-9223372036854775809", "1e308"];
    let long = "9".repeat(10_000);
    for path in [&full, &delta] {
        let text = String::from_utf8(unsealed(&chain.files[path])).unwrap();
        let digits: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
        for at in digits {
            for number in huge.into_iter().chain([long.as_str()]) {
                let forged = format!("{}{number}{}", &text[..at], &text[at + 1..]);
                judge(&format!("a huge number at byte {at}"), &chain, path, sealed(forged.as_bytes()));
            }
        }
    }
}

/// Replaces the first `from`, which must be there.
fn replaced(text: &[u8], from: &str, to: &[u8]) -> Option<Vec<u8>> {
    let at = text.windows(from.len()).position(|window| window == from.as_bytes())?;
    Some([&text[..at], to, &text[at + from.len()..]].concat())
}

#[test]
fn depth_bombs_duplicates_and_invalid_text_are_refused_whatever_the_checksum_says() {
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let lies: Vec<(&str, &str, Vec<u8>)> = vec![
        ("lists without end", "\"a1\"", nested("[", "]", 100_000).into_bytes()),
        ("dicts without end", "\"a1\"", nested("{\"x\":", "}", 100_000).into_bytes()),
        ("an open list without end", "\"a1\"", "[".repeat(100_000).into_bytes()),
        ("lists one deeper than allowed", "\"by\":\"a\"", format!("\"by\":{}", nested("[", "]", 100)).into_bytes()),
        ("text that is not UTF-8", "\"a1\"", b"\"\xFF\xFE\"".to_vec()),
        ("a name that is not UTF-8", "\"name\"", b"\"na\xC3\x28\"".to_vec()),
        ("half of a surrogate pair", "\"a1\"", br#""\ud800""#.to_vec()),
        ("a field twice", "\"name\":\"a1\"", b"\"name\":\"a1\",\"name\":\"a1\"".to_vec()),
        ("a field twice by another spelling", "\"name\":\"a1\"", br#""name":"a1","n\u0061me":"a1""#.to_vec()),
        ("a member twice", "\"tables\": {", b"\"tables\": {}, \"tables\": {".to_vec()),
        ("a table twice", "\"notes\": {", b"\"accounts\": {\"primary_key\": \"id\"}, \"notes\": {".to_vec()),
        ("a member that does not belong", "\"tables\": {", b"\"more\": 1, \"tables\": {".to_vec()),
        ("a head twice", "\"tables\": {", b"\"dictdb\": {}, \"tables\": {".to_vec()),
        ("NaN", "\"a1\"", b"NaN".to_vec()),
        ("a number for a name", "\"a1\"", b"1".to_vec()),
        ("a head that is deep", "\"parent\":null", nested("[", "]", 100_000).into_bytes()),
        ("a head without end", "\"parent\":null", vec![b' '; 1 << 20]),
    ];
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
        let (chain, full, delta) = chain_of_two();
        for path in [&full, &delta] {
            let text = unsealed(&chain.files[path]);
            for (what, from, to) in &lies {
                let Some(forged) = replaced(&text, from, to) else {
                    assert_eq!(path, &delta, "{what}: the full backup has no {from}");
                    continue;
                };
                let strict = judge(what, &chain, path, sealed(&forged));
                assert!(strict.is_some(), "{what} in {}: accepted", path.display());
            }
        }
        let text = unsealed(&chain.files[&full]);
        let line = text.split(|b| *b == b'\n').find(|line| line.windows(4).any(|w| w == b"\"a1\"")).unwrap().to_vec();
        let twice = [line.as_slice(), b",\n", &line].concat();
        let forged = replaced(&text, std::str::from_utf8(&line).unwrap(), &twice).unwrap();
        assert!(judge("a record twice", &chain, &full, sealed(&forged)).is_some(), "a record twice");
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn a_file_without_our_members_is_no_way_around_the_checksum() {
    // Without its first member a file reads as DictDB 1.11's, which has no checksum: then nothing of ours may be left.
    let (chain, full, _) = chain_of_two();
    let text = String::from_utf8(chain.files[&full].clone()).unwrap();
    for head in
        ["{\n  \"dictdb\": ", "{\"dictdb\": ", "{\n    \"dictdb\" : ", " {\n    \"dictdb\": ", "{\n    \"dict\": "]
    {
        let forged = text.replacen("{\n    \"dictdb\": ", head, 1);
        let files = BTreeMap::from([(full.clone(), forged.into_bytes())]);
        let options = LoadOptions::new().storage(storage_of(&files));
        let error = DictDb::load_with(&full, &options).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("is damaged at byte"), "{head:?}: {error}");
    }
}
