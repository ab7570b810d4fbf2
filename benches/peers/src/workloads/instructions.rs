//! What `--instructions` counts: a number of operations, in a process that does nothing else that depends on it.

use std::hint::black_box;

use super::{Job, Outcome, load};
use crate::data::{shuffled, shuffled_anew, users};
use crate::engines::{self, Promise, Res};

/// An operation to count: its name there, how the report calls it, and the engine. "records" is what making the
/// records takes, which the writes have in their counts and the report takes off.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    engine: &'static str,
    work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Nothing,
    Insert,
    InsertMany,
    Get,
    Scan,
}

pub(crate) const OPERATIONS: [Operation; 8] = [
    Operation { name: "records", title: "", engine: "dictdb-memory", work: Work::Nothing },
    Operation { name: "w1-memory", title: "W1, in memory: an insert", engine: "dictdb-memory", work: Work::Insert },
    Operation { name: "w1-store", title: "W1, store: an insert", engine: "dictdb", work: Work::Insert },
    Operation {
        name: "w2-memory",
        title: "W2, in memory: a row of 1,000 a commit",
        engine: "dictdb-memory",
        work: Work::InsertMany,
    },
    Operation {
        name: "w2-store",
        title: "W2, store: a row of 1,000 a commit",
        engine: "dictdb",
        work: Work::InsertMany,
    },
    Operation { name: "get", title: "W4: a read by key, decoded", engine: "dictdb-memory", work: Work::Get },
    Operation { name: "scan", title: "W5: a row of a full scan, decoded", engine: "dictdb-memory", work: Work::Scan },
    Operation {
        name: "get-btreemap",
        title: "for comparison, BTreeMap: a read by key",
        engine: "btreemap",
        work: Work::Get,
    },
];

impl Operation {
    /// Whether making the records is part of its count.
    pub(crate) fn writes(&self) -> bool {
        matches!(self.work, Work::Insert | Work::InsertMany)
    }
}

/// Records that reads find.
const TABLE: u64 = 20_000;

/// `None` where the job is another. The job's records are how many operations it does.
pub(super) fn run(job: &Job) -> Res<Option<Outcome>> {
    let Some(operation) =
        job.workload.strip_prefix("count-").and_then(|name| OPERATIONS.iter().find(|o| o.name == name))
    else {
        return Ok(None);
    };
    let engine = if operation.engine == engines::dictdb::STORE.name {
        engines::dictdb::unattended(&job.dir)?
    } else {
        (engines::by_name(operation.engine).ok_or("no such engine")?.open)(&job.dir, Promise::Unsynced)?
    };
    match operation.work {
        Work::Nothing => drop(black_box(users(&shuffled(job.records)))),
        Work::Insert => {
            for user in users(&shuffled(job.records)) {
                engine.insert(&user)?;
            }
        }
        Work::InsertMany => {
            for users in users(&shuffled(job.records)).chunks(1_000) {
                engine.insert_many(users)?;
            }
        }
        Work::Get => {
            load(&*engine, TABLE)?;
            let mut reader = engine.reader()?;
            for id in shuffled_anew(TABLE).into_iter().cycle().take(usize::try_from(job.records)?) {
                black_box(reader.get(id)?.ok_or("a record is missing")?);
            }
        }
        Work::Scan => {
            load(&*engine, TABLE)?;
            let mut reader = engine.reader()?;
            for _ in 0..job.records / TABLE {
                black_box(reader.scan(0, usize::MAX / 2)?);
            }
        }
    }
    engine.close()?;
    Ok(Some(Outcome::default()))
}
