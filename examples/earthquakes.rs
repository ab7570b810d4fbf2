//! A week of real earthquakes: kept in a database, backed up while it is written, lost, and restored.
//!
//! The USGS feed holds one week, 1,707 events. Each is replayed as it happened: reported at its `time`, and at its
//! `updated` either revised or withdrawn, all in one order of time. Two running managers, one per file format, back the
//! database up every twelve hours of feed time, writers never waiting for them. Then the database is dropped, restored
//! from either directory, and compared with what the feed itself says should be there.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dictdb::{
    BackupFormat, BackupKind, BackupManager, Commit, DictDb, Digest, FieldType, ManualClock, Mutation, Point, Record,
    Schema, TableDefinition, Timestamp, list_backups, restore,
};
use serde::{Deserialize, Serialize};

const FEED: &str = include_str!("../tests/data/earthquakes.json");

const HELP: &str = "\
Replays a week of earthquakes into a database, with backups; loses it, restores it, compares.

Usage: earthquakes [DIRECTORY]

  DIRECTORY   keep the backups in DIRECTORY/json and DIRECTORY/binary, which must not hold any yet
              (without it they go to a temporary directory)

Examples:
  cargo run --release --example earthquakes
  cargo run --release --example earthquakes -- quake-backups

Exits with 0 where everything came back exactly, with 1 where anything differs or fails, with 2 on wrong usage.";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let keep_in = match arguments.as_slice() {
        [] => None,
        [only] if only == "--help" || only == "-h" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [dir] if !dir.to_string_lossy().starts_with('-') => Some(PathBuf::from(dir)),
        _ => {
            eprintln!("one directory at most, and no options but --help\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(keep_in) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(differences) => {
            eprintln!("\n{differences} differences: see above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("\nfailed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The whole story. Gives the number of differences found.
fn run(keep_in: Option<PathBuf>) -> Outcome<u64> {
    let temporary = tempfile::tempdir()?; // removed at the end, whatever happens
    let dir = keep_in.as_deref().unwrap_or(temporary.path());
    let directories = [(BackupFormat::Json, dir.join("json")), (BackupFormat::Binary, dir.join("binary"))];
    for (_, dir) in &directories {
        if dir.exists() && !list_backups(dir)?.is_empty() {
            return Err(format!("{} holds backups already; choose another directory", dir.display()).into());
        }
    }

    let lost = write_and_lose(&directories)?;

    let expected = Expected::of_feed(FEED)?;
    let mut differences = 0;
    for (format, dir) in &directories {
        println!("\n{}", heading(&format!("{format} backups in {}", dir.display())));
        differences += print_backups(dir)?;
        let (restored, report) = restore(dir)?;
        println!("\n{report}");
        println!("newest commit restored: {}", report.time);
        differences += compare(&restored, &report.point, &lost, &expected)?;
    }

    let (restored, _) = restore(&directories[1].1)?;
    print_strongest(&restored)?;
    print_networks(&restored)?;
    if let Some(dir) = keep_in {
        println!("\nThe backups stay in {}.", dir.display());
    }
    Ok(differences)
}

// ---------------------------------------------------------------------------------------------------- the database

/// One event of the feed. Its properties stay a dynamic record, so that every field is kept, known or not.
#[derive(Deserialize)]
struct Feature {
    id: String,
    properties: Record,
    geometry: Record,
}

#[derive(Deserialize)]
struct Feed {
    features: Vec<Feature>,
}

/// What a seismic network did in the week: a typed record, kept up to date in the same transactions as the events.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Network {
    code: String,
    reported: u64,
    revised: u64,
    withdrawn: u64,
    /// The largest magnitude that it ever reported.
    strongest: f64,
    /// Milliseconds since 1970, as in the feed.
    last_change: i64,
}

/// What happens to an event at one moment.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    Report,
    Revise,
    Withdraw,
}

impl Feature {
    fn millis(&self, field: &str) -> Outcome<i64> {
        let value = self.properties.get(field).and_then(dictdb::Value::as_i64);
        value.ok_or_else(|| format!("event {}: {field:?} is not a time", self.id).into())
    }

    fn magnitude(&self) -> f64 {
        self.properties["mag"].as_f64().unwrap_or(0.0)
    }

    fn network(&self) -> &str {
        self.properties["net"].as_str().unwrap_or("?")
    }

    /// Our rule for which events turn out to be none: located by a machine alone, and weaker than magnitude 1.
    fn is_withdrawn(&self) -> bool {
        self.properties["status"] == "automatic" && self.magnitude() < 1.0
    }

    /// The event as the feed has it in the end: one flat record, with the geometry as a nested dict.
    fn record(&self) -> Record {
        let mut record = Record::with_capacity(self.properties.len() + 2);
        record.insert("id", self.id.as_str());
        record.extend(self.properties.clone());
        record.insert("geometry", self.geometry.clone());
        record
    }

    /// The event as it was first reported: by a machine, before anybody could say that they felt it.
    fn first_report(&self) -> Record {
        let mut record = self.record();
        record.insert("updated", self.properties["time"].clone());
        record.insert("status", "automatic");
        for unknown_yet in ["felt", "cdi", "mmi", "alert"] {
            record.insert(unknown_yet, dictdb::Value::Null);
        }
        record
    }
}

/// What the database was when it was lost.
struct Lost {
    point: Point,
    records: u64,
}

/// Replays the feed into a new database with a running manager per directory, and drops it.
fn write_and_lose(directories: &[(BackupFormat, PathBuf)]) -> Outcome<Lost> {
    let features = serde_json::from_str::<Feed>(FEED)?.features;
    let mut changes: Vec<(i64, Change, &Feature)> = Vec::with_capacity(features.len() * 2);
    for feature in &features {
        changes.push((feature.millis("time")?, Change::Report, feature));
        let second = if feature.is_withdrawn() { Change::Withdraw } else { Change::Revise };
        changes.push((feature.millis("updated")?, second, feature));
    }
    changes.sort_by(|a, b| (a.0, &a.2.id).cmp(&(b.0, &b.2.id)));
    let Some((first, ..)) = changes.first() else { return Err("the feed is empty".into()) };

    // The database's clock shows the feed's time, so that commits and backups bear the dates of the events.
    let clock = ManualClock::new(Timestamp::from_micros(first * 1_000));
    let db = DictDb::builder().clock(clock.clone()).build();
    db.create_table("quakes", "id")?;
    let schema = Schema::new([
        ("code", FieldType::Str),
        ("reported", FieldType::Int),
        ("revised", FieldType::Int),
        ("withdrawn", FieldType::Int),
        ("strongest", FieldType::Float),
        ("last_change", FieldType::Int),
    ]);
    db.create_table("networks", TableDefinition::new("code").schema(schema))?;

    let managers: Vec<BackupManager> =
        directories.iter().map(|(format, dir)| manager(&db, *format, dir)).collect::<Result<_, _>>()?;
    for manager in &managers {
        manager.start()?;
    }

    let started = Instant::now();
    let (mut now, mut next_backup, mut withdrawn) = (*first, *first, 0);
    for (time, change, feature) in &changes {
        clock.advance(Duration::from_millis(u64::try_from(time - now)?));
        now = *time;
        apply(&db, *change, feature, now)?;
        withdrawn += u64::from(*change == Change::Withdraw);
        if now >= next_backup {
            for manager in &managers {
                // A week goes by here in a fraction of a second: let the backup before this one begin first.
                while manager.status().change_pending {
                    std::thread::yield_now();
                }
                manager.notify_change()?; // returns at once: the manager's thread does the work
            }
            next_backup = now + BACKUP_EVERY.as_millis() as i64;
        }
    }
    for manager in &managers {
        manager.notify_change()?;
        manager.stop()?; // finishes what was notified
        let status = manager.status();
        if status.pending_commits != 0 || status.consecutive_failures != 0 {
            return Err(format!("the backups in {} are not complete: {status}", manager.backup_dir().display()).into());
        }
    }

    println!("{}", heading("The week"));
    println!("from {} to {}", Timestamp::from_micros(first * 1_000), Timestamp::from_micros(now * 1_000));
    println!(
        "{} events reported, {} revised, {withdrawn} withdrawn: {} commits in {:.0?}, backed up meanwhile",
        features.len(),
        features.len() as u64 - withdrawn,
        db.seq(),
        started.elapsed(),
    );
    print_newest_commits(&db)?;

    let end = db.snapshot();
    let lost = Lost { point: end.point(), records: end.record_count() };
    println!("\nlost: {} records at {}\n      digest {}", lost.records, lost.point, lost.point.digest);
    Ok(lost) // `db`, its managers and its snapshot end here; nothing is left but the files
}

/// Twelve hours of feed time.
const BACKUP_EVERY: Duration = Duration::from_secs(12 * 3_600);

fn manager(db: &DictDb, format: BackupFormat, dir: &Path) -> dictdb::Result<BackupManager> {
    BackupManager::builder(db, dir)
        .file_format(format)
        .incremental(true)
        .max_deltas_before_full(5)
        // Backups come when we notify of changes; by themselves only after two days of feed time without any.
        .backup_interval(Duration::from_secs(48 * 3_600))
        .min_backup_interval(Duration::ZERO)
        .on_backup_failure(|error, consecutive| eprintln!("backup failed ({consecutive}x): {error}"))
        .build()
}

/// One change: the event and its network's figures, in one commit.
fn apply(db: &DictDb, change: Change, feature: &Feature, now: i64) -> dictdb::Result<()> {
    db.transaction(|tx| {
        let quakes = tx.table("quakes")?;
        let networks = tx.typed::<Network>("networks")?;
        let mut network = networks.get(feature.network())?.unwrap_or_else(|| Network {
            code: feature.network().to_owned(),
            reported: 0,
            revised: 0,
            withdrawn: 0,
            strongest: f64::MIN,
            last_change: 0,
        });
        match change {
            Change::Report => {
                quakes.insert(feature.first_report())?;
                network.reported += 1;
                network.strongest = network.strongest.max(feature.magnitude());
            }
            Change::Revise => {
                quakes.update(feature.id.as_str(), feature.record())?;
                network.revised += 1;
            }
            Change::Withdraw => {
                quakes.delete(feature.id.as_str())?;
                network.withdrawn += 1;
            }
        }
        network.last_change = now;
        networks.upsert(&network)?;
        Ok(())
    })
}

// -------------------------------------------------------------------------------------------------- the comparison

/// What must be there in the end, straight from the feed's JSON: no database, no replay, no order of time.
#[derive(Default)]
struct Expected {
    quakes: BTreeMap<String, String>,
    networks: BTreeMap<String, Network>,
}

impl Expected {
    fn of_feed(feed: &str) -> Outcome<Expected> {
        let feed: serde_json::Value = serde_json::from_str(feed)?;
        let mut expected = Expected::default();
        for feature in feed["features"].as_array().ok_or("the feed has no features")? {
            let (id, properties) = (&feature["id"], &feature["properties"]);
            let magnitude = properties["mag"].as_f64().unwrap_or(0.0);
            let updated = properties["updated"].as_i64().unwrap_or(0);
            let is_withdrawn = properties["status"] == "automatic" && magnitude < 1.0;
            if !is_withdrawn {
                let mut record = serde_json::Map::new();
                record.insert("id".to_owned(), id.clone());
                record.extend(properties.as_object().cloned().unwrap_or_default());
                record.insert("geometry".to_owned(), feature["geometry"].clone());
                // As text, so that types (2 or 2.0) and the order of fields count too.
                expected.quakes.insert(text(id), serde_json::to_string(&record)?);
            }
            let code = text(&properties["net"]);
            let network = expected.networks.entry(code.clone()).or_insert(Network {
                code,
                reported: 0,
                revised: 0,
                withdrawn: 0,
                strongest: magnitude,
                last_change: updated,
            });
            network.reported += 1;
            network.revised += u64::from(!is_withdrawn);
            network.withdrawn += u64::from(is_withdrawn);
            network.strongest = network.strongest.max(magnitude);
            network.last_change = network.last_change.max(updated);
        }
        Ok(expected)
    }
}

fn text(json: &serde_json::Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

/// Prints what differs, and gives how much that is.
fn compare(restored: &DictDb, reached: &Point, lost: &Lost, expected: &Expected) -> Outcome<u64> {
    let mut differences: Vec<String> = Vec::new();
    if *reached != lost.point {
        differences.push(format!("the backups lead to {reached}, the database was lost at {}", lost.point));
    }
    let (digest, wanted): (Digest, Digest) = (restored.digest(), lost.point.digest);
    if digest != wanted {
        differences.push(format!("digest {digest}, not {wanted}"));
    }
    if restored.table_names() != ["networks", "quakes"] {
        differences.push(format!("tables {:?}", restored.table_names()));
    }
    let mut quakes = BTreeMap::new();
    for (_, record) in restored.table("quakes")?.iter()? {
        quakes.insert(record["id"].as_str().unwrap_or_default().to_owned(), serde_json::to_string(&record)?);
    }
    let mut networks = BTreeMap::new();
    for entry in restored.typed::<Network>("networks")?.iter()? {
        let (_, network) = entry?;
        networks.insert(network.code.clone(), network);
    }
    let records = quakes.len() + networks.len();
    differ("quakes", &expected.quakes, &quakes, &mut differences);
    differ("networks", &expected.networks, &networks, &mut differences);
    for difference in differences.iter().take(10) {
        eprintln!("DIFFERENT: {difference}");
    }
    if differences.is_empty() {
        println!("all {records} records are exactly what the feed says, field by field; the digest is the lost one");
    }
    Ok(differences.len() as u64)
}

fn differ<T: PartialEq + std::fmt::Debug>(
    table: &str,
    expected: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
    differences: &mut Vec<String>,
) {
    for key in expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key))) {
        let (wanted, got) = (expected.get(key), found.get(key));
        if wanted != got {
            differences.push(format!("{table} {key}: {got:?}, not {wanted:?}"));
        }
    }
}

// ----------------------------------------------------------------------------------------------------- for the eye

/// The directory as a table. Gives 1 where it does not hold fulls and deltas, as it should.
fn print_backups(dir: &Path) -> Outcome<u64> {
    let backups = list_backups(dir)?;
    println!("{:<38} {:<6} {:>12} {:>8} {:>10}  newest commit", "file", "kind", "seqs", "records", "bytes");
    let mut fulls = 0;
    for backup in &backups {
        let Ok(details) = &backup.details else {
            return Err(format!("{} is damaged: {:?}", backup.path.display(), backup.details).into());
        };
        let (Some(end), Some(time)) = (details.end, details.time) else {
            return Err(format!("{} is not a backup of this program", backup.path.display()).into());
        };
        let is_full = backup.kind == BackupKind::Full;
        fulls += u64::from(is_full);
        // A full backup's base is only where the chain stood before it.
        let base = details.base.filter(|_| !is_full);
        let seqs = base.map_or_else(|| format!("{}", end.seq), |base| format!("{}..{}", base.seq.get() + 1, end.seq));
        println!(
            "{:<38} {:<6} {seqs:>12} {:>8} {:>10}  {}",
            backup.path.file_name().unwrap_or_default().to_string_lossy(),
            backup.kind.to_string(),
            details.records.unwrap_or(0),
            details.bytes,
            minute(time),
        );
    }
    let deltas = backups.len() as u64 - fulls;
    println!("{fulls} full and {deltas} deltas (a delta beside each later full one carries the chain before on to it)");
    Ok(u64::from(fulls == 0 || deltas == 0))
}

/// The end of the change feed: what a program that follows the database would have seen last.
fn print_newest_commits(db: &DictDb) -> Outcome<()> {
    println!("\nthe newest commits, from the change feed:");
    let from = dictdb::Seq::new(db.seq().get().saturating_sub(3));
    for Commit { seq, time, mutations } in db.commits_since(from)? {
        let what: Vec<String> = mutations.iter().map(describe).collect();
        println!("  {seq}  {}  {}", minute(time), what.join(", "));
    }
    Ok(())
}

fn describe(mutation: &Mutation) -> String {
    match mutation {
        Mutation::Put { table, key, record } => match record.get("title") {
            Some(title) => format!("put {table} {key} ({})", title.as_str().unwrap_or("?")),
            None => format!("put {table} {key}"),
        },
        Mutation::Delete { table, key } => format!("delete {table} {key}"),
        other => format!("{other:?}"),
    }
}

fn print_strongest(db: &DictDb) -> Outcome<()> {
    let mut quakes: Vec<Record> = db.table("quakes")?.iter()?.map(|(_, record)| record).collect();
    let magnitude = |record: &Record| record["mag"].as_f64().unwrap_or(f64::MIN);
    quakes.sort_by(|a, b| magnitude(b).partial_cmp(&magnitude(a)).unwrap_or(Ordering::Equal));
    println!("\n{}", heading("The strongest of the week, from the restored database"));
    for quake in quakes.iter().take(5) {
        let time = Timestamp::from_micros(quake["time"].as_i64().unwrap_or(0) * 1_000);
        let depth =
            quake["geometry"].as_dict().and_then(|geometry| geometry["coordinates"].as_list()?.get(2)?.as_f64());
        println!(
            "  M {:.1}  {}  {:>6.1} km deep  {}",
            magnitude(quake),
            minute(time),
            depth.unwrap_or(0.0),
            quake["place"].as_str().unwrap_or("?"),
        );
    }
    Ok(())
}

fn print_networks(db: &DictDb) -> Outcome<()> {
    println!("\n{}", heading("The networks, from the restored database"));
    println!("  {:<4} {:>8} {:>8} {:>9}  strongest", "code", "reported", "revised", "withdrawn");
    for entry in db.typed::<Network>("networks")?.iter()? {
        let (_, n) = entry?;
        println!("  {:<4} {:>8} {:>8} {:>9}  M {:.1}", n.code, n.reported, n.revised, n.withdrawn, n.strongest);
    }
    Ok(())
}

/// A time to the minute: `2018-02-05T09:46Z`.
fn minute(time: Timestamp) -> String {
    let text = time.to_string();
    text.get(..16).map_or(text.clone(), |minute| format!("{minute}Z"))
}

fn heading(title: &str) -> String {
    format!("== {title} ==")
}
