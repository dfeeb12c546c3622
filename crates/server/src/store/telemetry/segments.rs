//! Which telemetry files there are: those of an hour, or less when an hour outgrows its share.
//!
//! A segment is named by the UTC second it begins at and holds the calls that arrived from then
//! until the next one begins. It has rows (`….db`), which are written to, until it is compacted
//! into blocks (`….blocks`), which are not. Calls that are late for a compacted segment make rows
//! beside the blocks; a call that is in both is as its row says. Retention takes both away.
//!
//! Whoever reads or writes files holds the segments still; only putting blocks in the place of
//! rows is done while nobody does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::store::StoreError;
use crate::store::database;

/// Seconds of a period. Ten million calls an hour is the design's upper end; an hour then is
/// what one query should have to go through, and what retention takes away at once.
const PERIOD: u64 = 3_600;

/// `2026-11-23T06-00-00Z.db`: sorts by time, and holds no colon for copies to other systems.
const NAME: &str = "%Y-%m-%dT%H-%M-%SZ";
const ROWS: &str = "db";
const BLOCKS: &str = "blocks";
/// Blocks that are not whole yet.
const UNFINISHED: &str = "blocks-unfinished";

/// How long blocks wait for the end of queries before they are put into place: as long as a list
/// may take, twice.
const PATIENCE: Duration = Duration::from_secs(4);

/// Between two looks for that: queries take milliseconds.
const LOOK: Duration = Duration::from_millis(2);

/// A segment: the Unix second at which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Segment(pub(crate) u64);

impl Segment {
    /// The segment that an hour begins with.
    fn of_hour(second: u64) -> Self {
        Self(second - second % PERIOD)
    }

    /// The first microsecond that it holds.
    pub(crate) fn start_us(self) -> u64 {
        self.0 * 1_000_000
    }

    /// It holds no calls from this microsecond on.
    pub(crate) fn end_us(self) -> u64 {
        (Self::of_hour(self.0).0 + PERIOD) * 1_000_000
    }

    fn file_name(self, kind: &str) -> String {
        let time = i64::try_from(self.0).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
        // Only times beyond the year 9999 have no name.
        let name = time.map_or_else(|| self.0.to_string(), |time| time.strftime(NAME).to_string());
        format!("{name}.{kind}")
    }

    fn of_file_name(name: &str) -> Option<(Self, &str)> {
        let (name, kind) = name.split_once('.')?;
        let time = jiff::fmt::strtime::parse(NAME, name).ok()?.to_datetime().ok()?;
        let second = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
        Some((Self(u64::try_from(second).ok()?), kind))
    }
}

/// In which form a segment is there; at least one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Forms {
    pub(crate) rows: bool,
    pub(crate) blocks: bool,
}

/// The files of a directory, as they are made and removed.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    known: Mutex<BTreeMap<Segment, Forms>>,
    /// Found broken by a reader; the writer sets them aside.
    damaged: Mutex<BTreeSet<Segment>>,
    still: RwLock<()>,
    /// How often rows were taken away: connections from before that lead nowhere.
    taken_away: AtomicU64,
}

impl Segments {
    /// The segments of a directory that need not exist.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.into(),
            known: Mutex::default(),
            damaged: Mutex::default(),
            still: RwLock::default(),
            taken_away: AtomicU64::new(0),
        }
    }

    /// Makes the directory and reads which files are there.
    pub(crate) fn read(&self) -> Result<(), StoreError> {
        let failed =
            |source| StoreError::Directory { what: "the history directory", path: self.dir.clone(), source };
        std::fs::create_dir_all(&self.dir).map_err(failed)?;
        // Logs and results are for those with a key.
        let mode = Permissions::from_mode(0o700);
        std::fs::set_permissions(&self.dir, mode).map_err(failed)?;
        let mut known: BTreeMap<Segment, Forms> = BTreeMap::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            match name.to_str().and_then(Segment::of_file_name) {
                Some((segment, ROWS)) => known.entry(segment).or_default().rows = true,
                Some((segment, BLOCKS)) => known.entry(segment).or_default().blocks = true,
                _ => {}
            }
        }
        *self.known.lock() = known;
        Ok(())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a segment's rows are.
    pub(crate) fn path(&self, segment: Segment) -> PathBuf {
        self.dir.join(segment.file_name(ROWS))
    }

    pub(crate) fn blocks_path(&self, segment: Segment) -> PathBuf {
        self.dir.join(segment.file_name(BLOCKS))
    }

    /// Where its blocks are made.
    pub(crate) fn unfinished_path(&self, segment: Segment) -> PathBuf {
        self.dir.join(segment.file_name(UNFINISHED))
    }

    /// No rows are taken away while this is held. Not to be taken twice at a time.
    pub(crate) fn hold_still(&self) -> RwLockReadGuard<'_, ()> {
        self.still.read()
    }

    #[cfg(test)]
    pub(crate) fn can_be_held_still(&self) -> bool {
        self.still.try_read().is_some()
    }

    /// Changes with each time that rows were taken away.
    pub(crate) fn taken_away(&self) -> u64 {
        self.taken_away.load(Ordering::Acquire)
    }

    /// The segment that a call of this second belongs to; it may not exist yet.
    pub(crate) fn of_second(&self, second: u64) -> Segment {
        let hour = Segment::of_hour(second);
        let known = self.known.lock();
        let covering = known.range(..=Segment(second)).next_back().map(|(segment, _)| *segment);
        covering.map_or(hour, |segment| segment.max(hour))
    }

    /// A segment has rows from now on.
    pub(crate) fn add(&self, segment: Segment) {
        self.known.lock().entry(segment).or_default().rows = true;
    }

    pub(crate) fn forms(&self, segment: Segment) -> Forms {
        self.known.lock().get(&segment).copied().unwrap_or_default()
    }

    pub(crate) fn newest_first(&self) -> Vec<Segment> {
        self.known.lock().keys().rev().copied().collect()
    }

    /// The oldest segment that is to be compacted at this time: one of rows that has ended a while
    /// ago (its `closed_for`), or whose late rows are that old.
    pub(crate) fn next_to_compact(
        &self,
        now_us: u64,
        closed_for: Duration,
        is_wanted: impl Fn(Segment) -> bool,
    ) -> Option<Segment> {
        let known = self.known.lock().clone();
        let closed_for_us = closed_for.as_micros() as u64;
        let ends = known.keys().skip(1).map(|next| next.start_us()).chain([u64::MAX]);
        let mut closed = known.iter().zip(ends).filter(|((segment, forms), next_us)| {
            let end_us = segment.end_us().min(*next_us);
            forms.rows && end_us.saturating_add(closed_for_us) <= now_us && is_wanted(**segment)
        });
        closed
            .find(|((segment, forms), _)| !forms.blocks || self.is_quiet(**segment, closed_for))
            .map(|((segment, _), _)| *segment)
    }

    /// Nothing was written to its rows for a while.
    fn is_quiet(&self, segment: Segment, time: Duration) -> bool {
        let [file, log, _] = database::file_family(&self.path(segment));
        let written = |path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let age = |at: std::time::SystemTime| at.elapsed().unwrap_or_default();
        written(file).into_iter().chain(written(log)).all(|at| age(at) >= time)
    }

    /// Bytes of a segment, its log included.
    pub(crate) fn bytes(&self, segment: Segment) -> u64 {
        let [file, log, _] = database::file_family(&self.path(segment));
        let size = |path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        size(file) + size(log) + size(self.blocks_path(segment))
    }

    /// Puts finished blocks into place and takes the rows away, where `are_all_in` says, while
    /// nobody reads or writes, that they are all in. False if it was not to be had in time, or the
    /// segment is gone.
    pub(crate) fn put_blocks(
        &self,
        segment: Segment,
        are_all_in: impl FnOnce() -> bool,
    ) -> Result<bool, StoreError> {
        let Some(_alone) = self.alone() else { return Ok(false) };
        let mut known = self.known.lock();
        let Some(forms) = known.get_mut(&segment) else { return Ok(false) };
        let path = self.blocks_path(segment);
        let failed = |source| StoreError::Directory { what: "compacted history", path: path.clone(), source };
        std::fs::rename(self.unfinished_path(segment), &path).map_err(failed)?;
        std::fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        forms.blocks = true;
        self.taken_away.fetch_add(1, Ordering::AcqRel);
        if are_all_in() {
            forms.rows = false;
            remove(&database::file_family(&self.path(segment)))?;
        }
        Ok(true)
    }

    /// The files for itself, or none if somebody was always reading or writing. Not by waiting for the
    /// lock: a writer that waits holds up every reader that comes after it, and the history's writer
    /// with them.
    fn alone(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.still.try_write() {
                Some(alone) => return Some(alone),
                None if Instant::now() >= until => return None,
                None => std::thread::sleep(LOOK),
            }
        }
    }

    /// Removes what a compaction left that was cut off.
    pub(crate) fn sweep(&self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_unfinished =
                name.to_str().and_then(Segment::of_file_name).is_some_and(|(_, kind)| kind == UNFINISHED);
            // What stays is overwritten by the next try.
            if is_unfinished {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Removes a segment's files.
    pub(crate) fn unlink(&self, segment: Segment) -> Result<(), StoreError> {
        self.known.lock().remove(&segment);
        remove(&database::file_family(&self.path(segment)))?;
        remove(&[self.blocks_path(segment), self.unfinished_path(segment)])
    }

    pub(crate) fn report_damage(&self, segment: Segment) {
        self.damaged.lock().insert(segment);
    }

    pub(crate) fn take_damaged(&self) -> BTreeSet<Segment> {
        std::mem::take(&mut *self.damaged.lock())
    }

    /// Forgets rows that were set aside.
    pub(crate) fn forget_rows(&self, segment: Segment) {
        self.forget(segment, |forms| forms.rows = false);
    }

    /// Puts blocks out of the way that do not read back; never deletes.
    pub(crate) fn set_blocks_aside(&self, segment: Segment, why: &dyn std::error::Error) {
        self.forget(segment, |forms| forms.blocks = false);
        let path = self.blocks_path(segment);
        let aside = path.with_extension(format!("{BLOCKS}.damaged-{}", jiff::Timestamp::now().as_second()));
        match std::fs::rename(&path, &aside) {
            Ok(()) => tracing::warn!(
                file = %path.display(), aside = %aside.display(), error = %why,
                "a period of history is damaged; it was set aside"
            ),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a damaged file cannot be set aside")
            }
        }
    }

    fn forget(&self, segment: Segment, form: impl FnOnce(&mut Forms)) {
        let mut known = self.known.lock();
        if let Some(forms) = known.get_mut(&segment) {
            form(forms);
            if *forms == Forms::default() {
                known.remove(&segment);
            }
        }
    }
}

fn remove(paths: &[PathBuf]) -> Result<(), StoreError> {
    for path in paths {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(StoreError::Directory { what: "old history", path: path.clone(), source });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_other_files_are_not_segments() {
        let segment = Segment(1_767_225_600);
        let name = segment.file_name(ROWS);
        assert_eq!(name, "2026-01-01T00-00-00Z.db");
        assert_eq!(Segment::of_file_name(&name), Some((segment, ROWS)));
        for other in ["2026-01-01T00-00-00Z", "x.db", "", ".db"] {
            assert_eq!(Segment::of_file_name(other), None, "{other}");
        }
        for kind in ["db-wal", "db.damaged-1", "blocks-unfinished", "blocks.damaged-1"] {
            let found = Segment::of_file_name(&format!("2026-01-01T00-00-00Z.{kind}")).unwrap().1.to_owned();
            assert!(![ROWS, BLOCKS].contains(&&*found), "{found}");
        }
    }

    #[test]
    fn a_second_belongs_to_the_last_segment_begun_in_its_hour() {
        let segments = Segments::new(Path::new("/nowhere"));
        let hour = 1_767_225_600;
        assert_eq!(segments.of_second(hour + 5), Segment(hour));
        segments.add(Segment(hour));
        segments.add(Segment(hour + 100));
        assert_eq!(segments.of_second(hour + 99), Segment(hour));
        assert_eq!(segments.of_second(hour + 100), Segment(hour + 100));
        assert_eq!(segments.of_second(hour + PERIOD), Segment(hour + PERIOD));
        assert_eq!(segments.of_second(hour - 1), Segment(hour - PERIOD));
        assert_eq!(Segment(hour + 100).end_us(), Segment(hour + PERIOD).start_us());
    }
}
