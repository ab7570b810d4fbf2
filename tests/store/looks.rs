//! Looks at a store, by `open_read_only`: of one that is damaged, and of one that goes on meanwhile.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dictdb::{CheckpointPolicy, DictDb, Error, MemoryStorage, Options, ReadFile, Storage, record};

use crate::damage::repair;
use crate::damage_shapes::{DIR, frames};

/// A storage in which a store goes on while another handle lists and reads: before the `n`th file that is opened.
#[derive(Clone)]
struct Busy {
    files: MemoryStorage,
    opened: Arc<AtomicUsize>,
    go_on: Arc<dyn Fn(usize) + Send + Sync>,
}

impl std::fmt::Debug for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.fmt(f)
    }
}

impl Storage for Busy {
    left_to_files! { create_dir_all list create rename rename_new remove sync_dir lock }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn ReadFile>> {
        (self.go_on)(self.opened.fetch_add(1, Ordering::Relaxed));
        self.files.open(path)
    }
}

/// Checkpoints remove what a reader has listed, and has not read yet; then it looks again.
#[test]
fn a_look_at_a_store_in_use_finds_it_whole_whenever_it_goes_on_meanwhile() {
    let mut looks = 0;
    for moment in 0..40 {
        let files = MemoryStorage::new();
        let options = Options::new().checkpoint(CheckpointPolicy::manual()).segment_bytes(512).preallocate_bytes(512);
        let db = options.clone().storage(files.clone()).open(DIR).unwrap();
        db.create_table("t", "id").unwrap();
        let write = |db: &DictDb, ids: std::ops::Range<i64>| {
            ids.for_each(|id| _ = db.table("t").unwrap().insert(record! { "id": id }).unwrap());
            db.sync().unwrap();
            db.checkpoint().unwrap();
        };
        (0..4).for_each(|n| write(&db, n * 10..n * 10 + 10));
        db.table("t").unwrap().insert(record! { "id": 40 }).unwrap();
        db.sync().unwrap();
        let writer = db.clone();
        let go_on = move |opened: usize| {
            if opened == moment {
                (5..9).for_each(|n| write(&writer, n * 10..n * 10 + 10));
            }
        };
        let busy = Busy { files, opened: Arc::default(), go_on: Arc::new(go_on) };
        let shown = options.storage(busy.clone()).open_read_only(DIR).unwrap();
        assert!(shown.open_report().unwrap().damage.is_none(), "{}", shown.open_report().unwrap());
        let records = shown.table("t").unwrap().len().unwrap();
        assert!([41, 81].contains(&records), "{records} records");
        looks += usize::from(records == 81);
        if busy.opened.load(Ordering::Relaxed) <= moment {
            assert!(looks > 0, "it never had to look again");
            return;
        }
    }
    panic!("it opens more files than there are");
}

/// A commit in front of others that are whole, and say that it was durable, is damage: unless it was read too early.
#[test]
fn a_look_at_a_store_that_is_being_written_takes_no_half_written_commit_for_damage() {
    let files = MemoryStorage::new();
    let options = Options::new().checkpoint(CheckpointPolicy::manual()).preallocate_bytes(4_096);
    let db = options.clone().storage(files.clone()).open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    for text in ["a", "b", "read too early", "c", "d"] {
        table.insert(record! { "text": text }).unwrap();
    }
    let log = files.list(Path::new(DIR)).unwrap().into_iter().find(|entry| entry.len >= 4_096).unwrap();
    let path = Path::new(DIR).join(log.name);
    let whole = files.read(&path).unwrap();
    let at = whole.windows(14).position(|bytes| bytes == b"read too early").unwrap();
    let half = [&whole[..at], &[0; 14], &whole[at + 14..]].concat();

    // The half is there until the file of this number is opened.
    let look = |moment: usize| {
        files.write(path.clone(), half.clone()).unwrap();
        let (storage, path, whole) = (files.clone(), path.clone(), whole.clone());
        let go_on = move |opened: usize| {
            if opened == moment {
                storage.write(path.clone(), whole.clone()).unwrap();
            }
        };
        let busy = Busy { files: files.clone(), opened: Arc::default(), go_on: Arc::new(go_on) };
        let shown = options.clone().storage(busy.clone()).open_read_only(DIR).unwrap();
        (shown.open_report().unwrap(), busy.opened.load(Ordering::Relaxed))
    };
    let (_, opened_by_one) = look(0);
    let mut most = 0;
    for moment in 0..=opened_by_one {
        let (report, opened) = look(moment);
        assert!(report.damage.is_none() && report.read_only && report.records == 5, "{report}");
        most = most.max(opened);
    }
    assert!(most > opened_by_one, "it never had to look again");
    let (report, _) = look(usize::MAX);
    assert!(report.damage.is_some() && report.records == 2, "{report}");
    assert!(report.to_string().contains("THE LOG IS DAMAGED") && !report.to_string().contains("is open"), "{report}");
}

/// A commit that is damaged in front of others that say it was durable costs itself and those, and none before it.
#[test]
fn a_look_shows_every_commit_before_the_damage_also_in_the_newest_segment() {
    let files = MemoryStorage::new();
    let options = Options::new().checkpoint(CheckpointPolicy::manual()).storage(files.clone());
    let db = options.open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let mut digests = vec![db.digest()];
    for id in 0..20 {
        table.insert(record! { "id": id }).unwrap();
        digests.push(db.digest());
    }
    drop((table, db));
    let path = files.paths().into_iter().find(|path| path.to_str().unwrap().contains("_log_")).unwrap();
    let whole = files.read(&path).unwrap();
    let frames = frames(&whole);
    assert_eq!(frames.len(), 21);
    // Nothing says of the last two that they were durable.
    for (at, frame) in frames.iter().enumerate().take(19).skip(1) {
        let mut damaged = whole.clone();
        damaged[frame.bytes.end - 1] ^= 1;
        files.write(&path, damaged).unwrap();
        let refused = options.open(DIR).map(drop).unwrap_err();
        assert!(matches!(&refused, Error::Corrupt { .. }), "{refused}");
        let shown = options.open_read_only(DIR).unwrap();
        let report = shown.open_report().unwrap();
        assert!(matches!(report.damage.as_deref(), Some(Error::Corrupt { .. })), "{report}");
        assert_eq!((shown.seq().get(), report.commits, report.segments), (at as u64, at as u64, 1), "{report}");
        assert_eq!(shown.digest(), digests[at - 1], "{report}");
        assert_eq!(shown.table("t").unwrap().len().unwrap(), at - 1);
    }
}

/// Checksums that fit do not make a commit of what cannot be one.
#[test]
fn a_look_shows_no_part_of_a_commit_that_cannot_be_replayed() {
    let files = MemoryStorage::new();
    let options = Options::new().checkpoint(CheckpointPolicy::manual()).storage(files.clone());
    let db = options.open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    (1..=3).for_each(|id| _ = table.insert(record! { "id": id }).unwrap());
    let (seq, digest) = (db.seq(), db.digest());
    db.transaction(|tx| {
        let table = tx.table("t")?;
        table.insert(record! { "id": 4 })?;
        table.delete(1)
    })
    .unwrap();
    drop((table, db));
    let path = files.paths().into_iter().find(|path| path.to_str().unwrap().contains("_log_")).unwrap();
    let mut forged = files.read(&path).unwrap();
    let frame = frames(&forged).pop().unwrap();
    // The key of the delete: 1 becomes 9.
    assert_eq!(std::mem::replace(&mut forged[frame.bytes.end - 1], 18), 2);
    repair(&mut forged, &frame);
    files.write(&path, forged).unwrap();
    let refused = options.open(DIR).map(drop).unwrap_err();
    let shown = options.open_read_only(DIR).unwrap();
    let report = shown.open_report().unwrap();
    assert_eq!(report.damage.as_ref().unwrap().to_string(), refused.to_string());
    assert_eq!((shown.seq(), shown.digest()), (seq, digest), "{report}");
}

#[test]
fn a_look_shows_the_commits_of_a_segment_whose_successor_is_gone_also_where_its_seal_does_not_fit() {
    let files = MemoryStorage::new();
    let options = Options::new().checkpoint(CheckpointPolicy::manual()).segment_bytes(512).storage(files.clone());
    let logs = || files.paths().into_iter().filter(|path| path.to_str().unwrap().contains("_log_"));
    let db = options.open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    let mut digests = vec![db.digest()];
    while logs().count() < 2 {
        table.insert(record! { "text": "x".repeat(50) }).unwrap();
        digests.push(db.digest());
    }
    drop((table, db));
    let (first, second) = (logs().min().unwrap(), logs().max().unwrap());
    files.remove(&second).unwrap();
    let mut segment = files.read(&first).unwrap();
    let frames = frames(&segment);
    let (seal, commits) = frames.split_last().unwrap();
    for forged in [false, true] {
        if forged {
            segment[seal.bytes.end - 1] ^= 1;
            repair(&mut segment, seal);
            files.write(&first, segment.clone()).unwrap();
        }
        let refused = options.open(DIR).map(drop).unwrap_err();
        let shown = options.open_read_only(DIR).unwrap();
        let report = shown.open_report().unwrap();
        assert_eq!(report.damage.as_ref().unwrap().to_string(), refused.to_string());
        assert_eq!((shown.seq().get(), report.segments), (commits.len() as u64, 1), "{report}");
        assert_eq!(shown.digest(), digests[commits.len() - 1], "{report}");
    }
}

#[test]
fn a_look_that_is_called_off_does_not_look_again_though_the_store_went_on() {
    let files = MemoryStorage::new();
    let options = Options::new().checkpoint(CheckpointPolicy::manual()).storage(files.clone());
    let db = options.open(DIR).unwrap();
    let table = db.create_table("t", "id").unwrap();
    table.insert(record! { "id": 0 }).unwrap();
    db.checkpoint().unwrap();
    let (calls, called) = (Arc::new(AtomicUsize::new(0)), db.clone());
    let told = Arc::clone(&calls);
    let looking = options.on_progress(move |_| {
        let id = told.fetch_add(1, Ordering::Relaxed) + 1;
        called.table("t").unwrap().insert(record! { "id": id as i64 }).unwrap();
        called.checkpoint().unwrap();
        ControlFlow::Break(())
    });
    assert!(matches!(looking.open_read_only(DIR), Err(Error::Cancelled)));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}
