//! Adds to telemetry files and keeps them within their limits.
//!
//! Owned by one thread. A batch is committed segment by segment; when one fails, the caller
//! offers the whole batch again later, and what was committed is not written twice. Commits go
//! to the kernel, not to the platter: a power cut may cost the last seconds of history, the
//! platform's death costs nothing that was committed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::rows::{self, NewRow};
use super::{Segment, Segments, Skipped};
use crate::store::StoreError;
use crate::store::database::{self, Durability};

/// Files held open: the present period and one before it, for calls that began there.
const OPEN_FILES: usize = 2;

/// A segment is ended early when it holds this share of the disk budget, so that retention by
/// size takes away a tenth of history at a time, not all of it.
const SEGMENT_SHARE: u64 = 10;

/// How much is kept.
#[derive(Debug, Clone)]
pub(crate) struct TelemetryLimits {
    /// Bytes of all files.
    pub(crate) disk_bytes: u64,
    /// Age of the oldest file.
    pub(crate) keep: Duration,
}

/// What to write at once.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    pub(crate) rows: Vec<NewRow<'a>>,
    /// Later news about rows that were written before.
    pub(crate) amendments: Vec<NewRow<'a>>,
    /// Calls by the second of their arrival that will be in no file.
    pub(crate) skipped: Skipped,
}

impl Batch<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.amendments.is_empty() && self.skipped.is_empty()
    }
}

/// Adds to the files.
#[derive(Debug)]
pub(crate) struct TelemetryWriter {
    segments: Arc<Segments>,
    limits: TelemetryLimits,
    open: BTreeMap<Segment, Connection>,
    /// The directory was there and its files were read.
    is_read: bool,
    /// The segments' [`taken_away`](Segments::taken_away) when the files were opened.
    taken_away: u64,
    /// Stands in for a full disk in tests: SQLite then answers as it does when there is no space.
    #[cfg(test)]
    pub(crate) max_pages: Option<u32>,
}

impl TelemetryWriter {
    pub(crate) fn new(segments: Arc<Segments>, limits: TelemetryLimits) -> Self {
        Self {
            segments,
            limits,
            open: BTreeMap::new(),
            is_read: false,
            taken_away: 0,
            #[cfg(test)]
            max_pages: None,
        }
    }

    /// Commits a batch. Damaged files in its way are set aside.
    pub(crate) fn write(&mut self, now_us: u64, batch: &Batch<'_>) -> Result<(), StoreError> {
        let segments = self.segments.clone();
        let _still = segments.hold_still();
        if self.taken_away != segments.taken_away() {
            self.taken_away = segments.taken_away();
            self.open.clear();
        }
        if !self.is_read || !self.segments.dir().is_dir() {
            self.is_read = false;
            self.open.clear();
            self.segments.read()?;
            self.is_read = true;
        }
        self.set_damaged_aside()?;
        self.end_segment_when_large(now_us)?;
        for (segment, part) in self.by_segment(batch) {
            match self.commit(segment, &part) {
                Err(error) if error.is_damage() => {
                    self.set_aside(segment, &error)?;
                    self.commit(segment, &part)?;
                }
                result => result?,
            }
        }
        while self.open.len() > OPEN_FILES {
            self.open.pop_first();
        }
        Ok(())
    }

    fn by_segment<'b, 'a>(&self, batch: &'b Batch<'a>) -> BTreeMap<Segment, Part<'b, 'a>> {
        let mut parts: BTreeMap<Segment, Part<'b, 'a>> = BTreeMap::new();
        let segment_of =
            |row: &NewRow<'_>| self.segments.of_second(row.kept.invocation.started_us / 1_000_000);
        for row in &batch.rows {
            parts.entry(segment_of(row)).or_default().rows.push(row);
        }
        for row in &batch.amendments {
            parts.entry(segment_of(row)).or_default().amendments.push(row);
        }
        for (at, calls) in &batch.skipped {
            parts.entry(self.segments.of_second(at.second())).or_default().skipped.insert(*at, *calls);
        }
        parts
    }

    fn commit(&mut self, segment: Segment, part: &Part<'_, '_>) -> Result<(), StoreError> {
        let path = self.segments.path(segment);
        let has_blocks = self.segments.forms(segment).blocks;
        let connection = self.connection(segment)?;
        let failed = |source| StoreError::Database { what: "writing history", path, source };
        let transaction = connection.transaction().map_err(failed.clone())?;
        part.write(&transaction, has_blocks).map_err(failed.clone())?;
        transaction.commit().map_err(failed)
    }

    fn connection(&mut self, segment: Segment) -> Result<&mut Connection, StoreError> {
        match self.open.entry(segment) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(closed) => {
                let path = self.segments.path(segment);
                let connection = database::open_writer(&path, &rows::layout(), Durability::Written)?;
                #[cfg(test)]
                if let Some(pages) = self.max_pages {
                    connection.pragma_update(None, "max_page_count", pages).unwrap();
                }
                // Forty-odd columns and four tables: all statements stay prepared.
                connection.set_prepared_statement_cache_capacity(16);
                self.segments.add(segment);
                Ok(closed.insert(connection))
            }
        }
    }

    fn set_damaged_aside(&mut self) -> Result<(), StoreError> {
        for segment in self.segments.take_damaged() {
            let path = self.segments.path(segment);
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            let source = rusqlite::Error::SqliteFailure(code, None);
            self.set_aside(segment, &StoreError::Database { what: "reading history", path, source })?;
        }
        Ok(())
    }

    fn set_aside(&mut self, segment: Segment, why: &StoreError) -> Result<(), StoreError> {
        self.open.remove(&segment);
        self.segments.forget_rows(segment);
        database::set_aside(&self.segments.path(segment), why)
    }

    fn end_segment_when_large(&mut self, now_us: u64) -> Result<(), StoreError> {
        let second = now_us / 1_000_000;
        let present = self.segments.of_second(second);
        let is_large = self.segments.bytes(present) > self.limits.disk_bytes / SEGMENT_SHARE;
        if is_large && present.0 < second {
            // From the next second on, so that no second is in two files.
            self.connection(Segment(second + 1))?;
        }
        Ok(())
    }

    /// Removes what is too old, then the oldest while all of it is too large. Returns the bytes
    /// that are left.
    pub(crate) fn retain(&mut self, now_us: u64) -> Result<u64, StoreError> {
        let still_segments = self.segments.clone();
        let _still = still_segments.hold_still();
        let keep_us = u64::try_from(self.limits.keep.as_micros()).unwrap_or(u64::MAX);
        let oldest_us = now_us.saturating_sub(keep_us);
        let mut segments = self.segments.newest_first();
        let sizes: BTreeMap<Segment, u64> =
            segments.iter().map(|segment| (*segment, self.segments.bytes(*segment))).collect();
        let mut bytes: u64 = sizes.values().sum();
        // The newest stays: it is what is being written.
        while segments.len() > 1 {
            let Some(oldest) = segments.last().copied() else { break };
            if oldest.end_us() > oldest_us && bytes <= self.limits.disk_bytes {
                break;
            }
            segments.pop();
            self.open.remove(&oldest);
            self.segments.unlink(oldest)?;
            bytes -= sizes[&oldest];
        }
        Ok(bytes)
    }

    /// Lets go of every file; the last to leave folds the logs into the files.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }
}

/// What of a batch goes into one segment.
#[derive(Debug, Default)]
struct Part<'b, 'a> {
    rows: Vec<&'b NewRow<'a>>,
    amendments: Vec<&'b NewRow<'a>>,
    skipped: Skipped,
}

impl Part<'_, '_> {
    fn write(&self, connection: &Connection, has_blocks: bool) -> rusqlite::Result<()> {
        for row in &self.rows {
            rows::insert(connection, row)?;
        }
        for row in &self.amendments {
            let is_row = rows::amend(connection, row)?;
            if !is_row && has_blocks {
                // It is in the blocks, where a row stands for it from now on.
                rows::insert(connection, row)?;
            }
        }
        rows::add_skipped(connection, &self.skipped)
    }
}
