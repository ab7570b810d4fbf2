//! Two managers of one database write into one directory, one of them in the midst of the other's backup.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dictdb::{
    BackupFormat, BackupManager, DictDb, DirEntry, DirLock, LockError, ManualClock, MemoryStorage, ReadFile,
    RestoreOptions, Storage, Timestamp, WriteFile, record,
};

const DIR: &str = "/backups";

/// Where a backup is broken in upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Listed,
    Creates,
    Renames,
    Renamed,
}

#[derive(Clone, Default)]
struct Interrupted {
    files: MemoryStorage,
    at: Arc<Mutex<Option<At>>>,
    by: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>,
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Interrupted {
    fn come_to(&self, at: At) {
        let is_it = self.at.lock().unwrap().take_if(|here| *here == at).is_some();
        if is_it {
            self.by.get().unwrap()();
        }
    }
}

impl Storage for Interrupted {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.files.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let entries = self.files.list(dir);
        self.come_to(At::Listed);
        entries
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.files.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.come_to(At::Creates);
        self.files.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.come_to(At::Renames);
        self.files.rename_new(from, to)?;
        self.come_to(At::Renamed);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.files.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>, LockError> {
        self.files.lock(dir)
    }
}

/// Makes a backup of some kind; the newest commit that it holds.
fn back_up(manager: &BackupManager, kind: u8) -> u64 {
    let report = match kind {
        0 => manager.backup_full(),
        1 => manager.backup_delta(),
        _ => manager.backup_now(),
    };
    report.unwrap().seq.get()
}

/// Where a file of ours begins and ends; a full backup nowhere.
fn ends_of(path: &Path, bytes: &[u8]) -> (Option<u64>, u64) {
    let is_full = path.to_string_lossy().contains("_backup_");
    let (base, end) = if bytes[0] == b'{' {
        let head = std::str::from_utf8(bytes).unwrap().lines().nth(1).unwrap();
        let head = head.trim().strip_prefix("\"dictdb\": ").unwrap().trim_end_matches(',');
        let head: serde_json::Value = serde_json::from_str(head).unwrap();
        (head["base"]["seq"].as_u64().unwrap_or_default(), head["seq"].as_u64().unwrap())
    } else {
        let at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        (at(48), at(bytes.len() - 96))
    };
    ((!is_full).then_some(base), end)
}

/// How far files of one history lead.
fn furthest(files: &[(Option<u64>, u64)]) -> Option<u64> {
    let mut reached: Vec<u64> = files.iter().filter(|(base, _)| base.is_none()).map(|(_, end)| *end).collect();
    if files.iter().any(|(base, _)| *base == Some(0)) {
        reached.push(0);
    }
    loop {
        let joins =
            |(base, end): &&(Option<u64>, u64)| base.is_some_and(|b| reached.contains(&b)) && !reached.contains(end);
        match files.iter().find(joins) {
            Some((_, end)) => reached.push(*end),
            None => return reached.into_iter().max(),
        }
    }
}

/// Whichever one file is damaged, what the others lead to is to be had, and where that is less the error names the file.
fn judge_damage(files: &MemoryStorage, of: usize, case: &str) {
    let paths = files.paths();
    let damaged = &paths[of % paths.len()];
    let copy = MemoryStorage::new();
    paths.iter().for_each(|path| copy.write(path, files.read(path).unwrap()).unwrap());
    let mut bytes = files.read(damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    copy.write(damaged, bytes).unwrap();
    let ends = |path: &std::path::PathBuf| ends_of(path, &files.read(path).unwrap());
    let all = furthest(&paths.iter().map(ends).collect::<Vec<_>>());
    let others = furthest(&paths.iter().filter(|path| *path != damaged).map(ends).collect::<Vec<_>>());
    let restoring = RestoreOptions::new().storage(copy);
    let case = format!("{case}, {} damaged", damaged.display());
    match restoring.clone().accept_earlier(true).restore(DIR) {
        Ok((_, report)) => assert_eq!(Some(report.point.seq.get()), others, "{case}: {report}"),
        Err(error) => assert!(others.unwrap_or_default() == 0, "{case}, {others:?}: {error}"),
    }
    match restoring.restore(DIR) {
        Ok((_, report)) => assert!(others == all || report.fell_back, "{case}: {report}"),
        Err(error) => {
            let name = damaged.file_name().unwrap().to_str().unwrap();
            let is_full = name.contains("_backup_");
            assert!(is_full || error.to_string().contains(name), "{case}: {error}");
        }
    }
}

// A manager once took the state before it looked at the directory, and so put an older one under the newest name; and where
// both had made a delta from one point it went on from the newer one, though restore takes the one that leads further. And
// restore gave up commits in sound files where the newest full backup was not on the way to them.
#[test]
fn whatever_two_managers_of_one_database_do_in_the_midst_of_one_another_the_newest_backup_is_what_restores() {
    let wall = |micros| Timestamp::from_micros(1_000_000 + micros);
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let clock = ManualClock::new(wall(0));
        let db = DictDb::builder().clock(clock.clone()).build();
        let table = db.create_table("t", "id").unwrap();
        let storage = Interrupted::default();
        let mut manager = || {
            let format = if rng.bool() { BackupFormat::Json } else { BackupFormat::Binary };
            let own = Interrupted { files: storage.files.clone(), ..Interrupted::default() };
            let builder = BackupManager::builder(&db, DIR).storage(own.clone()).file_format(format);
            let builder = builder.incremental(rng.u8(0..4) > 0).max_deltas_before_full(rng.u32(1..6));
            (Arc::new(builder.build().unwrap()), own)
        };
        let managers = [manager(), manager()];
        let plans: [Arc<Mutex<Vec<u8>>>; 2] = Default::default();
        let reached = Arc::new(Mutex::new(0));
        for ((_, storage), ((other, _), plan)) in managers.iter().zip(managers.iter().zip(&plans).rev()) {
            let (other, plan, table, reached) = (Arc::downgrade(other), plan.clone(), table.clone(), reached.clone());
            let by = move || {
                for kind in plan.lock().unwrap().drain(..) {
                    table.insert(record! { "n": 1 }).unwrap();
                    let seq = back_up(&other.upgrade().unwrap(), kind);
                    let mut reached = reached.lock().unwrap();
                    *reached = seq.max(*reached);
                }
            };
            assert!(storage.by.set(Box::new(by)).is_ok());
        }
        for step in 0..12 {
            for _ in 0..rng.u8(0..3) {
                table.insert(record! { "n": 2 }).unwrap();
            }
            match rng.u8(0..6) {
                0 => clock.set(wall(rng.i64(-3..8))),
                1 | 2 => clock.advance(Duration::from_micros(rng.u64(1..5))),
                _ => {}
            }
            let of = rng.usize(0..2);
            let (manager, storage) = &managers[of];
            // One made anew goes on from what the directory says.
            let anew = BackupManager::builder(&db, DIR).storage(storage.clone()).incremental(true);
            let anew = (rng.u8(0..4) == 0).then(|| anew.file_format(BackupFormat::Binary).build().unwrap());
            let manager = anew.as_ref().unwrap_or(manager);
            let at = [At::Listed, At::Creates, At::Renames, At::Renamed][rng.usize(0..4)];
            let at = rng.bool().then_some(at);
            *storage.at.lock().unwrap() = at;
            plans[1 - of].lock().unwrap().extend((0..rng.u8(1..4)).map(|_| rng.u8(0..4)));
            let seq = back_up(manager, rng.u8(0..4));
            plans[1 - of].lock().unwrap().clear();
            let mut reached = reached.lock().unwrap();
            *reached = seq.max(*reached);
            let case = format!("seed {seed}, step {step}, {at:?}");
            let (restored, report) = RestoreOptions::new().storage(storage.files.clone()).restore(DIR).unwrap();
            assert_eq!(report.point.seq.get(), *reached, "{case}: {report}");
            assert!(!report.fell_back && report.left_out.is_empty(), "{case}: {report}");
            if *reached == db.seq().get() {
                assert_eq!(restored.digest(), db.digest(), "{case}");
            }
            judge_damage(&storage.files, rng.usize(..), &case);
        }
    }
}
