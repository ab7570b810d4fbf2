//! What must hold of every disk that a crash may leave.

use std::collections::BTreeMap;

use dictdb::sim::{Budget, SimStorage};
use dictdb::{DictDb, Durability, RestoreOptions, record};

use crate::story::{BACKUPS, Closed, DATA, Promised, Rows, options, rows_of};

/// What was recovered: images of one kind need only one look at the crashes of their recovery.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    seq: u64,
    clean: bool,
    torn: bool,
    snapshot: Option<String>,
    unproven: u64,
    segments: u64,
    fell_back: bool,
}

impl Kind {
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }
}

/// Opens a store and compares it with what was promised; says what is wrong.
pub(crate) fn check_store(
    disk: &SimStorage,
    promised: &Promised,
    states: &BTreeMap<u64, Rows>,
) -> Result<(DictDb, Kind), String> {
    let db = options(disk.clone(), Durability::Sync).open(DATA).map_err(|error| format!("does not open: {error}"))?;
    let report = db.open_report().ok_or("no report")?;
    let seq = db.seq().get();
    // Before a restore was acknowledged there may be no store yet; then nothing was committed to it either.
    let restored_from = states.keys().nth(1).copied().filter(|first| *first > 1).unwrap_or(0);
    let least = if promised.restored { promised.acked.max(restored_from) } else { promised.acked };
    if seq < least {
        return Err(format!("seq {least} was promised, and {seq} is what there is: {report}"));
    }
    if seq > promised.issued.max(restored_from) {
        return Err(format!("seq {seq} was never issued, {} was the last", promised.issued));
    }
    let expected = states.get(&seq).ok_or_else(|| format!("there was no state at seq {seq}"))?;
    let found = rows_of(&db);
    if found != *expected {
        return Err(format!("the rows at seq {seq} are {found:?}, not {expected:?}"));
    }
    if promised.closed == Closed::No && promised.issued > 0 && seq == promised.issued && report.clean {
        return Err(format!("it was not closed behind seq {seq}, and is found closed: {report}"));
    }
    let kind = Kind {
        seq,
        clean: report.clean,
        torn: report.torn.is_some(),
        snapshot: report.snapshot.as_ref().map(|path| path.display().to_string()),
        unproven: report.unproven,
        segments: report.segments,
        fell_back: report.fell_back,
    };
    Ok((db, kind))
}

/// Everything that must hold of one image. Gives what was recovered, and the disk after writing went on.
pub(crate) fn check_image(
    disk: &SimStorage,
    promised: &Promised,
    states: &BTreeMap<u64, Rows>,
) -> Result<(Kind, SimStorage, u64), String> {
    let before: Vec<_> = disk.paths().into_iter().map(|path| (disk.read(&path).ok(), path)).collect();
    let (db, kind) = check_store(disk, promised, states)?;
    let report = db.open_report().ok_or("no report")?;
    if report.fell_back || !report.damaged.is_empty() {
        return Err(format!("a crash alone damages no snapshot: {report}"));
    }
    // (Behind a close whose sync failed the seal may be shown, and be stood by, and never reach the disk.)
    if promised.closed == Closed::Yes && kind.seq > 0 && !kind.clean {
        return Err(format!("it was closed, and is not found closed: {report}"));
    }
    let (digest, lineage, clean) = (db.digest(), db.lineage(), kind.clean);
    drop(db);
    let after: Vec<_> = disk.paths().into_iter().map(|path| (disk.read(&path).ok(), path)).collect();
    // A new history is only in memory until something is written.
    if before != after {
        return Err("opening changed a file".to_owned());
    }
    let db = options(disk.clone(), Durability::Sync).open(DATA).map_err(|error| format!("opens only once: {error}"))?;
    if db.digest() != digest {
        return Err("opens a second time with another state".to_owned());
    }
    if clean && kind.seq > 0 && db.lineage() != lineage {
        return Err("a closed store begins a new history".to_owned());
    }
    // Writing goes on.
    let begun = disk.op_count();
    let outcome = match db.table("t") {
        Ok(table) => table.upsert(record! { "id": 1_000, "text": "after" }).map(drop),
        Err(_) => db.create_table("t", "id").map(drop),
    };
    outcome.map_err(|error| format!("does not take a commit: {error}"))?;
    let (digest, seq) = (db.digest(), db.seq());
    if seq.get() != kind.seq + 1 {
        return Err(format!("the commit behind seq {} is {seq}", kind.seq));
    }
    disk.mark(1);
    drop(db);
    let db = options(disk.clone(), Durability::Sync).open(DATA).map_err(|error| format!("after a commit: {error}"))?;
    if (db.digest(), db.seq()) != (digest, seq) {
        return Err(format!("a commit after recovery is not there: {}", db.open_report().unwrap()));
    }
    match disk.violations().first() {
        Some(violation) => Err(violation.clone()),
        None => Ok((kind, disk.clone(), begun)),
    }
}

/// The backups lead at least to what was acknowledged, and to nothing that never was.
pub(crate) fn check_backups(
    disk: &SimStorage,
    promised: &Promised,
    states: &BTreeMap<u64, Rows>,
) -> Result<(), String> {
    let (db, report) = match RestoreOptions::new().storage(disk.clone()).restore(BACKUPS) {
        Ok(restored) => restored,
        Err(error) => {
            let why = |seq| Err(format!("a backup of seq {seq} was acknowledged, and: {error}"));
            return promised.backed_up.map_or(Ok(()), why);
        }
    };
    let seq = report.point.seq.get();
    if let Some(least) = promised.backed_up.filter(|least| seq < *least) {
        return Err(format!("backups lead to seq {seq}, and {least} was acknowledged"));
    }
    // Also where none was acknowledged yet.
    if states.get(&seq) != Some(&rows_of(&db)) {
        return Err(format!("the backups' rows at seq {seq} are not what they were"));
    }
    Ok(())
}

/// The crashes of a recovery and of the first commit behind it: every operation from `begun` on. Gives how many images.
pub(crate) fn check_again(disk: &SimStorage, begun: u64, kind: &Kind, before: &Rows) -> Result<u64, String> {
    let mut rows = before.clone();
    match &mut rows {
        Some(rows) => _ = rows.insert(1_000, "after".to_owned()),
        None => rows = Some(BTreeMap::new()),
    }
    let states = BTreeMap::from([(kind.seq, before.clone()), (kind.seq + 1, rows)]);
    let mut images = 0;
    let budget = Budget::small();
    for n in disk.crash_points().into_iter().filter(|n| *n == 0 || *n >= begun) {
        let acked = kind.seq + u64::from(disk.marks_before(n).contains(&1));
        let promised = Promised { acked, issued: kind.seq + 1, ..Promised::default() };
        for image in disk.images(n, &budget) {
            images += 1;
            check_store(&image.storage(), &promised, &states)
                .map_err(|wrong| format!("again, {}: {wrong}\n{}", image.id(), image.describe()))?;
        }
    }
    Ok(images)
}
