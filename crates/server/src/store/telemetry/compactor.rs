//! Makes blocks of rows when a segment's time is over.
//!
//! Reads the rows (and, where late rows came, the blocks of before) in the order of arrival,
//! writes blocks beside them and renames those when they are whole; then the rows go, unless more
//! have come meanwhile. Killed at any point it leaves what queries read as before: an unfinished
//! file counts for nothing, and rows beside blocks that have them already stand for the same
//! calls. It runs on a thread of its own; one block of calls is all it holds in memory.

use std::sync::Arc;
use std::time::Duration;

use fp_core::record::Kept;
use rusqlite::Connection;

use super::blocks::{Blocks, BlocksError, BlocksWriter};
use super::{Segment, Segments, Skipped, rows};
use crate::store::{StoreError, database};

/// How long after its end a segment is compacted: calls that last longer than this write late
/// rows, which cost another round.
const CLOSED_FOR: Duration = Duration::from_secs(300);

/// Why a segment could not be compacted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompactError {
    /// Its rows cannot be read.
    #[error("its rows cannot be read")]
    Rows(#[from] rusqlite::Error),
    /// Its blocks cannot be read or written.
    #[error("its blocks cannot be read or written")]
    Blocks(#[from] BlocksError),
    /// The files cannot be put into place.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was told to end.
    #[error("the platform is stopping")]
    Stopped,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compacted {
    pub(crate) calls: usize,
    pub(crate) bytes_before: u64,
    pub(crate) bytes_after: u64,
    /// The rows were taken away; if not, more had come.
    pub(crate) whole: bool,
}

/// Compacts segments, one at a time.
#[derive(Debug)]
pub(crate) struct Compactor {
    segments: Arc<Segments>,
}

impl Compactor {
    pub(crate) fn new(segments: Arc<Segments>) -> Self {
        Self { segments }
    }

    /// The oldest segment whose time for it has come.
    pub(crate) fn next(&self, now_us: u64, is_wanted: impl Fn(Segment) -> bool) -> Option<Segment> {
        self.segments.next_to_compact(now_us, CLOSED_FOR, is_wanted)
    }

    /// Compacts a segment. `goes_on` is asked after each block, and may take its time.
    pub(crate) fn compact(
        &self,
        segment: Segment,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Compacted, CompactError> {
        let result = self.try_compact(segment, goes_on);
        if result.is_err() {
            // Mostly it is gone already; what is left is overwritten by the next try.
            let _ = std::fs::remove_file(self.segments.unfinished_path(segment));
        }
        match &result {
            Err(CompactError::Rows(error)) if database::is_damage(error) => {
                self.segments.report_damage(segment)
            }
            Err(CompactError::Blocks(error @ BlocksError::Damaged(_))) => {
                self.segments.set_blocks_aside(segment, error);
            }
            _ => {}
        }
        result
    }

    fn try_compact(
        &self,
        segment: Segment,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Compacted, CompactError> {
        let bytes_before = self.segments.bytes(segment);
        let connection = database::open_reader(&self.segments.path(segment))?;
        let before =
            self.segments.forms(segment).blocks.then(|| Blocks::open(&self.segments.blocks_path(segment)));
        let before = before.transpose()?;
        let writer = BlocksWriter::create(&self.segments.unfinished_path(segment))?;
        let version = version_of(&connection)?;

        // One transaction: all is read as it was at one time.
        let reading = connection.unchecked_transaction()?;
        let mut merge = Merge { writer, calls: 0, goes_on };
        merge.all(&reading, before.as_ref())?;
        let mut skipped = before.as_ref().map(|blocks| blocks.skipped().clone()).unwrap_or_default();
        add_skipped(&mut skipped, rows::skipped(&reading)?);
        reading.commit()?;

        let calls = merge.calls;
        let bytes_after = merge.writer.finish(&skipped)?;
        let is_unchanged = || version_of(&connection).is_ok_and(|now| now == version);
        let is_put = self.segments.put_blocks(segment, is_unchanged)?;
        if !is_put {
            // Nobody else takes it away where retention has taken the segment.
            let _ = std::fs::remove_file(self.segments.unfinished_path(segment));
        }
        Ok(Compacted {
            calls,
            bytes_before,
            bytes_after,
            whole: is_put && !self.segments.forms(segment).rows,
        })
    }
}

/// Changes when another connection writes to the file.
fn version_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// The larger count stays: after a kill between two steps the same may be told twice.
fn add_skipped(skipped: &mut Skipped, more: Skipped) {
    for (at, calls) in more {
        let known = skipped.entry(at).or_default();
        *known = (*known).max(calls);
    }
}

/// Rows and blocks on their way into one file.
struct Merge<'a> {
    writer: BlocksWriter,
    calls: usize,
    goes_on: &'a mut dyn FnMut() -> bool,
}

impl Merge<'_> {
    fn all(&mut self, connection: &Connection, before: Option<&Blocks>) -> Result<(), CompactError> {
        let mut earlier = Earlier::new(before, connection);
        rows::visit_all(connection, |row| {
            let place = (row.invocation.started_us, row.invocation.id);
            while let Some(kept) =
                earlier.next_if(|kept| (kept.invocation.started_us, kept.invocation.id) < place)?
            {
                self.push(kept)?;
            }
            self.push(row)
        })?;
        while let Some(kept) = earlier.next_if(|_| true)? {
            self.push(kept)?;
        }
        Ok(())
    }

    fn push(&mut self, kept: Kept) -> Result<(), CompactError> {
        self.calls += 1;
        if self.writer.push(kept)? && !(self.goes_on)() {
            return Err(CompactError::Stopped);
        }
        Ok(())
    }
}

/// The calls of the blocks of before that no row stands for.
struct Earlier<'a> {
    blocks: Box<dyn Iterator<Item = Result<Vec<Kept>, BlocksError>> + 'a>,
    block: std::iter::Peekable<std::vec::IntoIter<Kept>>,
    connection: &'a Connection,
}

impl<'a> Earlier<'a> {
    fn new(blocks: Option<&'a Blocks>, connection: &'a Connection) -> Self {
        let blocks = blocks.into_iter().flat_map(Blocks::all);
        Self { blocks: Box::new(blocks), block: Vec::new().into_iter().peekable(), connection }
    }

    fn next_if(&mut self, test: impl Fn(&Kept) -> bool) -> Result<Option<Kept>, CompactError> {
        loop {
            match self.block.peek() {
                None => match self.blocks.next() {
                    Some(block) => self.block = block?.into_iter().peekable(),
                    None => return Ok(None),
                },
                Some(kept) if rows::has(self.connection, kept.invocation.id)? => drop(self.block.next()),
                Some(kept) if test(kept) => return Ok(self.block.next()),
                Some(_) => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
