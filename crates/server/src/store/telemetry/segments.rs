//! Which telemetry files there are: one per hour, or shorter when an hour outgrows its share.
//!
//! A segment is named by the UTC second it begins at and holds the calls that arrived from then
//! until the next one begins. Calls that arrive late for their hour make that hour's segment
//! anew; retention takes it away again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::store::StoreError;
use crate::store::database;

/// Seconds of a period. Ten million calls an hour is the design's upper end; an hour then is
/// what one query should have to go through, and what retention takes away at once.
const PERIOD: u64 = 3_600;

/// `2026-11-23T06-00-00Z.db`: sorts by time, and holds no colon for copies to other systems.
const NAME: &str = "%Y-%m-%dT%H-%M-%SZ.db";

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

    fn file_name(self) -> Option<String> {
        let time = jiff::Timestamp::from_second(i64::try_from(self.0).ok()?).ok()?;
        Some(time.strftime(NAME).to_string())
    }

    fn of_file_name(name: &str) -> Option<Self> {
        let time = jiff::fmt::strtime::parse(NAME, name).ok()?.to_datetime().ok()?;
        let second = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
        Some(Self(u64::try_from(second).ok()?))
    }
}

/// The files of a directory, as the writer makes and removes them.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    known: Mutex<BTreeSet<Segment>>,
    /// Found broken by a reader; the writer sets them aside.
    damaged: Mutex<BTreeSet<Segment>>,
}

impl Segments {
    /// The segments of a directory that need not exist.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), known: Mutex::default(), damaged: Mutex::default() }
    }

    /// Makes the directory and reads which files are there.
    pub(crate) fn read(&self) -> Result<(), StoreError> {
        let failed =
            |source| StoreError::Directory { what: "the history directory", path: self.dir.clone(), source };
        std::fs::create_dir_all(&self.dir).map_err(failed)?;
        let mut known = BTreeSet::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            known.extend(name.to_str().and_then(Segment::of_file_name));
        }
        *self.known.lock() = known;
        Ok(())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a segment is.
    pub(crate) fn path(&self, segment: Segment) -> PathBuf {
        // Only times beyond the year 9999 have no name.
        self.dir.join(segment.file_name().unwrap_or_else(|| format!("{}.db", segment.0)))
    }

    /// The segment that a call of this second belongs to; it may not exist yet.
    pub(crate) fn of_second(&self, second: u64) -> Segment {
        let hour = Segment::of_hour(second);
        let covering = self.known.lock().range(..=Segment(second)).next_back().copied();
        covering.map_or(hour, |segment| segment.max(hour))
    }

    pub(crate) fn add(&self, segment: Segment) {
        self.known.lock().insert(segment);
    }

    pub(crate) fn is_known(&self, segment: Segment) -> bool {
        self.known.lock().contains(&segment)
    }

    pub(crate) fn newest_first(&self) -> Vec<Segment> {
        self.known.lock().iter().rev().copied().collect()
    }

    /// Bytes of a segment, its log included.
    pub(crate) fn bytes(&self, segment: Segment) -> u64 {
        let [file, log, _] = database::file_family(&self.path(segment));
        let size = |path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        size(file) + size(log)
    }

    /// Removes a segment's files.
    pub(crate) fn unlink(&self, segment: Segment) -> Result<(), StoreError> {
        self.known.lock().remove(&segment);
        for path in database::file_family(&self.path(segment)) {
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(StoreError::Directory { what: "old history", path, source });
                }
            }
        }
        Ok(())
    }

    pub(crate) fn report_damage(&self, segment: Segment) {
        self.damaged.lock().insert(segment);
    }

    pub(crate) fn take_damaged(&self) -> BTreeSet<Segment> {
        std::mem::take(&mut *self.damaged.lock())
    }

    /// Forgets a segment whose file was set aside.
    pub(crate) fn forget(&self, segment: Segment) {
        self.known.lock().remove(&segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_other_files_are_not_segments() {
        let segment = Segment(1_767_225_600);
        let name = segment.file_name().unwrap();
        assert_eq!(name, "2026-01-01T00-00-00Z.db");
        assert_eq!(Segment::of_file_name(&name), Some(segment));
        for other in ["2026-01-01T00-00-00Z.db-wal", "2026-01-01T00-00-00Z.db.damaged-1", "x.db", ""] {
            assert_eq!(Segment::of_file_name(other), None, "{other}");
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
