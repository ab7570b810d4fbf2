//! Making one backup: full or delta, into which file, and what the checkpoint is afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backup::catalog::{Listing, Tip};
use crate::backup::found::Found;
use crate::backup::report::{BackupReport, LastBackup, Promotion};
use crate::clock::SteadyClock;
use crate::db::DictDb;
use crate::error::{Error, Result, catch_panics};
use crate::file::compression::Compression;
use crate::file::name::{BackupFormat, BackupKind, BackupName, Stamp};
use crate::file::sink::{Existing, Sink, publish};
use crate::file::{self, Made, Origin};
use crate::history::{Point, Seq, Timestamp};
use crate::progress::{ProgressFn, Stage, Watch};
use crate::ring::{RingSlice, Unserved};
use crate::state::State;
use crate::storage::Storage;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Full,
    Delta,
    /// A delta in an incremental manager whose chain is not too long yet; else a full one.
    Usual,
}

/// The settings that matter to a single backup.
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) format: BackupFormat,
    /// Of full backups in binary.
    pub(crate) compression: Compression,
    pub(crate) incremental: bool,
    pub(crate) max_deltas_before_full: u32,
    pub(crate) progress: Option<Box<ProgressFn>>,
    pub(crate) storage: Box<dyn Storage>,
    pub(crate) clock: SteadyClock,
}

/// How far the backups of one directory reach.
#[derive(Debug)]
pub(crate) struct Chain {
    /// What was there when it was last looked at; what was published here since has been entered.
    found: Found,
    /// The files published here since. Any other with a newer stamp is another manager's, or of a backup that failed.
    own: Vec<BackupName>,
    /// The newest stamp given.
    stamp: Option<Stamp>,
    /// The newest stamp in the directory when the handle was last seen to be no closed one, or a look was first seen: whoever
    /// goes on from it comes later.
    before_close: Option<Stamp>,
    /// Whether the handle was ever seen to be no closed one.
    was_open: bool,
}

/// How a delta can be made now.
struct Join {
    base: Point,
    slice: RingSlice,
}

impl Chain {
    /// Finds out what the directory holds already.
    pub(crate) fn open(storage: &dyn Storage, dir: &Path, db: &DictDb) -> Result<Chain> {
        let found = Found::read(storage, dir, db)?;
        let mut chain = Chain { found, own: Vec::new(), stamp: None, before_close: None, was_open: false };
        chain.note_open(db);
        Ok(chain)
    }

    /// The checkpoint as far as it lies in the history of `state`: commits up to here are covered.
    pub(crate) fn checkpoint(&self, state: &State) -> Option<&Tip> {
        self.found.tip.as_ref().filter(|tip| in_history(tip.point, state))
    }

    pub(crate) fn deltas(&self, state: &State) -> u32 {
        self.checkpoint(state).map_or(0, |tip| tip.deltas)
    }

    pub(crate) fn last(&self, state: &State) -> Option<LastBackup> {
        self.checkpoint(state).map(|tip| LastBackup { time: tip.time, seq: tip.point.seq, file: tip.file.clone() })
    }

    /// Whether a backup now would hold what the newest one holds, whose files are all still there: somebody may have
    /// removed them.
    pub(crate) fn is_up_to_date(&self, settings: &Settings, db: &DictDb) -> Result<bool> {
        let covering = {
            let state = db.read_in_passing();
            self.checkpoint(&state).filter(|tip| tip.point.seq == state.seq)
        };
        match covering {
            Some(tip) => Ok(Listing::read(&*settings.storage, &settings.dir)?.has(tip)),
            None => Ok(false),
        }
    }

    /// Makes a backup of the database as it stands once its directory has been looked at, so that none there is ahead of
    /// it. Gives what that state says of itself, too. On failure nothing has changed.
    pub(crate) fn back_up(
        &mut self,
        settings: &Settings,
        db: &DictDb,
        wanted: Wanted,
    ) -> Result<(BackupReport, State)> {
        let started = settings.clock.monotonic();
        let mut listing = Listing::read(&*settings.storage, &settings.dir)?;
        let newer = listing.names.iter().rev().take_while(|name| Some(name.stamp) > self.found.known);
        // Written by another manager, perhaps while this one wrote its last; or by this one, in a backup that failed behind
        // its rename and could not take the file back. Restore will build on it, so the chain has to.
        let are_foreign = listing.pickle != self.found.pickle || !newer.into_iter().all(|name| self.own.contains(name));
        let is_broken = self.found.tip.as_ref().is_some_and(|tip| !listing.has(tip));
        if are_foreign || is_broken {
            let before = std::mem::replace(&mut self.found, Found::read(&*settings.storage, &settings.dir, db)?);
            if !are_foreign {
                // A full backup will say that it broke, and name as its base what is there now.
                self.found.tip = before.tip;
            }
            listing = Listing::read(&*settings.storage, &settings.dir)?;
        } else {
            self.found.known = listing.newest();
        }
        self.own.clear();
        self.note_open(db);
        let (stamp, state) = self.stamp(settings, db, &listing)?;
        self.refuse_left_behind(settings, db, &state)?;
        if db.is_closed() || db.is_read_only() {
            // Whoever went on may have backed up since the directory was looked at: that has an older stamp than this.
            if Listing::read(&*settings.storage, &settings.dir)?.newest() > self.found.known {
                return self.back_up(settings, db, wanted);
            }
        }
        let outline = state.outline();
        self.back_up_state(settings, db, (stamp, state), wanted, &listing, started).map(|report| (report, outline))
    }

    /// Refuses a backup of a handle whose history another handle went on with, and backed up here: of a store that was closed
    /// and opened again, or only looked at. It would get the newest name, and be what restores.
    fn refuse_left_behind(&self, settings: &Settings, db: &DictDb, state: &State) -> Result<()> {
        let Found { newest: Some(newest), known, is_newest_unknown, .. } = self.found else { return Ok(()) };
        let has_later = known > self.before_close;
        let is_left_behind = if db.is_read_only() {
            // A look stays where it was: the store that it looks at has come further, or what came since may be of another
            // future, as where the store was put back, restored, or crashed, or is damaged. (One that has its store open may
            // be behind what is here: it was put back from a copy, and goes on.)
            let stands_there = newest == state.point() || Some(newest) == state.identity.parent;
            let is_own = stands_there && !is_newest_unknown;
            // Of a store of which nothing was proven durable the look's history has no parent.
            let looked_at = db.open_report().and_then(|report| report.new_lineage_from);
            let origins =
                [Some(state.point()), state.identity.parent, looked_at].map(|at| at.map(|point| point.lineage));
            !is_own && (newest.seq > state.seq || has_later) && self.found.is_tied(newest.lineage, &origins)
        } else {
            // Files that lead to a point of its history from nowhere, as one between is gone, are its own as well. But what
            // came since it was seen open is of this session, or of another future, as where the store was put back from a
            // copy of before.
            let was_there = |point| if self.was_open { db.was_at(point) } else { db.may_have_been_at(point) };
            let is_own = |point| in_history(point, state) && was_there(point);
            let goes_on = self.checkpoint(state).is_some_and(|tip| is_own(tip.point));
            db.is_closed() && has_later && !goes_on && (is_newest_unknown || !is_own(newest))
        };
        if is_left_behind {
            let (dir, stands) = (settings.dir.clone(), Box::new(state.point()));
            return Err(Error::LeftBehind { dir, newest: Box::new(newest), stands });
        }
        Ok(())
    }

    /// For a moment behind one at which the directory was looked at.
    pub(crate) fn note_open(&mut self, db: &DictDb) {
        // A look falls behind from the first moment on.
        let is_behind = db.is_closed() || (db.is_read_only() && self.was_open);
        if !is_behind {
            (self.before_close, self.was_open) = (self.found.known, true);
        }
    }

    /// Whether the handle that went on from one left behind has backed up what this one holds. (Whose files are that were there
    /// before it was first seen nobody can tell.)
    pub(crate) fn is_covered(&self, newest: &Point, stands: &Point) -> bool {
        self.was_open && newest.lineage == stands.lineage && newest.seq >= stands.seq
    }

    /// What it makes is let go of as it is written.
    fn back_up_state(
        &mut self,
        settings: &Settings,
        db: &DictDb,
        (stamp, state): (Stamp, State),
        wanted: Wanted,
        listing: &Listing,
        started: Duration,
    ) -> Result<BackupReport> {
        let too_long = settings.incremental && self.deltas(&state) >= settings.max_deltas_before_full;
        let wants_delta = match wanted {
            Wanted::Full => false,
            Wanted::Delta => true,
            Wanted::Usual => settings.incremental && !too_long,
        };
        // Only an incremental manager has older deltas that a bridge could carry on.
        let bridges = settings.incremental && self.checkpoint(&state).is_some();
        // It may be read out of the log, so only where it is of use.
        let join = (wants_delta || bridges).then(|| self.join(settings, db, &state, listing));
        let (promoted, bridge) = match join {
            Some(Ok(join)) if wants_delta => return self.delta(settings, db, (stamp, &state), &join, started),
            Some(Err(why)) if wants_delta => {
                tracing::warn!(dir = %settings.dir.display(), "a delta backup becomes a full one, as {why}");
                (Some(why), None)
            }
            join => (None, join.and_then(Result::ok)),
        };
        // A delta in JSON has the records as they are now.
        let bridge = bridge.filter(|join| join.slice.last > join.base.seq).map(|join| match settings.format {
            BackupFormat::Binary => (join, state.outline()),
            BackupFormat::Json => (join, state.clone()),
        });
        // Before anybody can see the full backup: what others put onto it is to be newer than what leads there.
        let bridge = bridge.map(|bridge| (bridge, self.stamp(settings, db, listing).map(|(stamp, _)| stamp)));
        let mut report = self.full(settings, db, (stamp, state), promoted, started)?;
        if let Some(((join, state), stamp)) = bridge {
            let made = stamp.and_then(|stamp| {
                catch_panics("back up into", &settings.dir, || self.write_delta(settings, (stamp, &state), &join))
            });
            match made {
                Ok((_, path, ..)) => report.bridge = Some(path),
                Err(failure) => {
                    tracing::warn!(file = %report.file.display(), "no bridge to the full backup: {failure}");
                    report.bridge_failure = Some(failure.to_string());
                }
            }
        }
        Ok(report)
    }

    /// Whether a delta can join onto what is there.
    fn join(&self, settings: &Settings, db: &DictDb, state: &State, listing: &Listing) -> Result<Join, Promotion> {
        let from_empty = || {
            // A chain without a full backup: DictDB could not load it, so not in its format.
            let whole = state.identity.parent.is_none() && db.ring_reaches_back_to(Seq::ZERO);
            (settings.format == BackupFormat::Binary
                && whole
                && self.found.newest.is_none()
                && !self.found.has_unreadable)
                .then(|| Point::empty(state.identity.lineage))
        };
        let base = match self.checkpoint(state) {
            Some(tip) if listing.has(tip) => tip.point,
            Some(_) => return Err(Promotion::ChainBroken),
            None if self.found.is_newest_damaged => return Err(Promotion::NewestDamaged),
            None => from_empty().ok_or(Promotion::NoChain)?,
        };
        match db.frames(base.seq, state) {
            Ok(slice) => Ok(Join { base, slice }),
            Err(Unserved::Gap { .. }) => Err(Promotion::Gap),
            Err(Unserved::Unreadable) => Err(Promotion::LogUnreadable),
            // The ring was begun anew behind this state, by apply_delta.
            Err(Unserved::Ahead { .. }) => Err(Promotion::NoChain),
        }
    }

    fn full(
        &mut self,
        settings: &Settings,
        db: &DictDb,
        (stamp, state): (Stamp, State),
        promoted: Option<Promotion>,
        started: Duration,
    ) -> Result<BackupReport> {
        let (base, point) = (self.found.newest, state.point());
        let (name, path, made, bytes) = self.write(settings, stamp, BackupKind::Full, base, |sink, origin, path| {
            let watch = Watch::new(settings.progress.as_deref(), Stage::WritingFull, path);
            file::write_full(settings.format, settings.compression, sink, state, origin, &watch)
        })?;
        self.advance(db, point, 0, vec![name], (stamp, &path));
        let report = report(settings, started, &name, path, point.seq, made, bytes);
        Ok(BackupReport { promoted, ..report })
    }

    fn delta(
        &mut self,
        settings: &Settings,
        db: &DictDb,
        (stamp, state): (Stamp, &State),
        join: &Join,
        started: Duration,
    ) -> Result<BackupReport> {
        let (name, path, made, bytes) = self.write_delta(settings, (stamp, state), join)?;
        let tip = self.checkpoint(state);
        let mut names = tip.map(|tip| tip.names.clone()).unwrap_or_default();
        let deltas = tip.map_or(0, |tip| tip.deltas).saturating_add(1);
        names.push(name);
        self.advance(db, state.point(), deltas, names, (stamp, &path));
        let report = report(settings, started, &name, path, state.seq, made, bytes);
        Ok(BackupReport { base_seq: Some(join.base.seq), ..report })
    }

    fn write_delta(
        &mut self,
        settings: &Settings,
        (stamp, state): (Stamp, &State),
        join: &Join,
    ) -> Result<(BackupName, PathBuf, Made, u64)> {
        self.write(settings, stamp, BackupKind::Delta, Some(join.base), |sink, origin, path| {
            let watch = Watch::new(settings.progress.as_deref(), Stage::WritingDelta, path);
            file::write_delta(settings.format, sink, &join.slice, state, origin, &watch)
        })
    }

    /// The next stamp, past those given and those in the directory; it is used up even by a failure. And the state of the
    /// database then.
    fn stamp(&mut self, settings: &Settings, db: &DictDb, listing: &Listing) -> Result<(Stamp, State)> {
        let exhausted = || Error::Exhausted {
            what: format!(
                "{}, whose newest name has the last stamp that there is (move that file away),",
                settings.dir.display()
            ),
        };
        let (stamp, state) = db
            .stamped_state(&settings.dir, self.stamp.max(listing.newest()).max(listing.pickle))
            .ok_or_else(exhausted)?;
        self.stamp = Some(stamp);
        Ok((stamp, state))
    }

    /// Writes and publishes a file.
    fn write(
        &mut self,
        settings: &Settings,
        stamp: Stamp,
        kind: BackupKind,
        base: Option<Point>,
        fill: impl FnOnce(&mut Sink, &Origin, &Path) -> Result<Made>,
    ) -> Result<(BackupName, PathBuf, Made, u64)> {
        let created = i64::try_from(stamp.get()).unwrap_or(i64::MAX);
        let name = BackupName { kind, stamp, format: settings.format };
        let path = settings.dir.join(name.file_name());
        let origin = Origin { base, created: Timestamp::from_micros(created) };
        let (made, bytes) = publish(&*settings.storage, &path, Existing::Refuse, |sink| fill(sink, &origin, &path))?;
        self.own.push(name);
        Ok((name, path, made, bytes))
    }

    fn advance(
        &mut self,
        db: &DictDb,
        point: Point,
        deltas: u32,
        names: Vec<BackupName>,
        (stamp, path): (Stamp, &Path),
    ) {
        let time = Timestamp::from_micros(i64::try_from(stamp.get()).unwrap_or_default());
        db.note_backup(point.seq);
        self.found.newest = Some(point);
        (self.found.is_newest_unknown, self.found.is_newest_damaged) = (false, false);
        self.found.tip = Some(Tip { point, deltas, names, file: path.to_owned(), time });
    }
}

/// Whether `point` lies in the past of `state`.
fn in_history(point: Point, state: &State) -> bool {
    let own = point.lineage == state.identity.lineage && point.seq <= state.seq;
    own || state.identity.parent == Some(point)
}

fn report(
    settings: &Settings,
    started: Duration,
    name: &BackupName,
    file: PathBuf,
    seq: Seq,
    made: Made,
    bytes: u64,
) -> BackupReport {
    BackupReport {
        file,
        kind: name.kind,
        format: settings.format,
        promoted: None,
        base_seq: None,
        seq,
        commits: made.commits,
        records: made.records,
        bytes,
        duration: settings.clock.monotonic().saturating_sub(started),
        bridge: None,
        bridge_failure: None,
    }
}
