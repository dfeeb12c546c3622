//! A closed period of history in one file that is never changed: calls as compressed columns.
//!
//! Calls lie in the order of their arrival, some thousands to a block; a block's fields lie apart,
//! so that a list reads only what it asks for. The footer has for each block its time, its ids and
//! durations, by which most are passed over, and for the traces sorted hashes with the numbers of
//! their blocks. A file is written beside and renamed when it is whole, so there are no half ones;
//! every part has a checksum. Numbers are little-endian or varints.
//!
//! ```text
//! blocks: directory (place and checksum of each column), columns …
//! traces: for each 256 blocks the hashes in chunks
//! footer: blocks, chunks, skipped seconds; deflated
//! end:    place, lengths and checksum of the footer, the format's name
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use fp_core::record::{Invocation, Kept};
use fp_core::{InvocationId, TraceId};

mod columns;
mod events;
mod questions;

use super::footprint::heap_of_span;
use super::{RowQuery, Skipped, SkippedAt, TraceCalls};
use columns::{Packed, Packer, Source, checksum, put_number, unpack};
use events::{Beside, Column, Events, columns_of, words_of};

/// Calls in a block. The look at one call reads whole columns, some 300 KiB at this number; the
/// directory and the dictionaries of a block are then below 1 B a call, so more would gain little.
/// Tests have small ones, so that they have several.
const BLOCK_CALLS: usize = if cfg!(test) { 16 } else { 4_096 };

/// A block is ended at so many bytes of logs, spans and results: what compaction holds in memory.
const BLOCK_BYTES: usize = 8 << 20;

/// Blocks whose traces are sorted together: 8 MiB of hashes in memory, and the number of a block
/// among them fits into a byte.
const TRACE_BLOCKS: usize = if cfg!(test) { 3 } else { 256 };

/// Hashes in a chunk: what the look-up of a trace reads of each million calls.
const TRACE_CHUNK: usize = if cfg!(test) { 5 } else { 4_096 };

/// The last bytes of a file; the number is the format's.
const NAME: [u8; 8] = *b"fpblock1";

/// Place, stored and inflated length, checksum of the footer; the name.
const END_BYTES: usize = 8 + 4 + 4 + 4 + 8;

/// One column in a block's directory: which, stored and inflated length, checksum.
const ENTRY_BYTES: usize = 1 + 4 + 4 + 4;

/// Why a file of blocks could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlocksError {
    /// The kernel refused.
    #[error("the file cannot be used")]
    Io(#[from] std::io::Error),
    /// What is there is not what was written.
    #[error("{0} does not read back")]
    Damaged(&'static str),
    /// It ends otherwise than files of this release.
    #[error("this is no file of blocks, or one of a newer release")]
    Foreign,
    /// A column has outgrown what lengths can say.
    #[error("a column is too large to be packed")]
    TooLarge,
}

/// What the footer says of a block.
#[derive(Debug)]
struct Summary {
    offset: u64,
    columns: usize,
    /// Of the directory.
    checksum: u32,
    rows: usize,
    /// The first and the last arrival.
    from_us: u64,
    to_us: u64,
    /// The smallest and the largest id.
    first_id: InvocationId,
    last_id: InvocationId,
    min_us: u64,
    max_us: u64,
    /// Every outcome in it, words and reasons.
    outcomes: Vec<Box<str>>,
}

/// Sorted hashes of traces.
#[derive(Debug)]
struct Chunk {
    offset: u64,
    length: usize,
    first: u32,
    count: usize,
    /// What the numbers of blocks in it count from.
    first_block: usize,
    checksum: u32,
}

/// Writes a file, call by call.
#[derive(Debug)]
pub(crate) struct BlocksWriter {
    out: BufWriter<File>,
    at: u64,
    packer: Packer,
    calls: Vec<Kept>,
    bytes: usize,
    summaries: Vec<Summary>,
    /// Hash, and the block among those that are sorted together.
    traces: Vec<(u32, u8)>,
    chunks: Vec<Chunk>,
}

impl BlocksWriter {
    pub(crate) fn create(path: &Path) -> Result<Self, BlocksError> {
        Ok(Self {
            out: BufWriter::with_capacity(1 << 18, File::create(path)?),
            at: 0,
            packer: Packer::new(),
            calls: Vec::with_capacity(BLOCK_CALLS),
            bytes: 0,
            summaries: Vec::new(),
            traces: Vec::new(),
            chunks: Vec::new(),
        })
    }

    /// Adds a call; none may have arrived later than one before it. Says whether a block is
    /// complete with it.
    pub(crate) fn push(&mut self, kept: Kept) -> Result<bool, BlocksError> {
        self.bytes += bytes_beside(&kept);
        self.calls.push(kept);
        let is_full = self.calls.len() >= BLOCK_CALLS || self.bytes >= BLOCK_BYTES;
        if is_full {
            self.end_block()?;
        }
        Ok(is_full)
    }

    fn end_block(&mut self) -> Result<(), BlocksError> {
        if self.calls.is_empty() {
            return Ok(());
        }
        let mut summary = summary_of(&self.calls, self.at);
        let among = self.summaries.len() % TRACE_BLOCKS;
        self.traces.extend(self.calls.iter().map(|kept| (hash_of(kept.invocation.trace_id), among as u8)));
        let (mut directory, mut body) = (Vec::new(), Vec::new());
        for (column, raw) in columns_of(&self.calls).into_iter().filter(|(_, raw)| !raw.is_empty()) {
            let Packed { bytes, inflated, checksum } = self.packer.pack(raw)?;
            directory.push(column.0);
            for number in [bytes.len() as u32, inflated, checksum] {
                directory.extend(number.to_le_bytes());
            }
            body.extend(bytes);
        }
        summary.columns = directory.len() / ENTRY_BYTES;
        summary.checksum = checksum(&directory);
        self.summaries.push(summary);
        self.write(&directory)?;
        self.write(&body)?;
        self.calls.clear();
        self.bytes = 0;
        if among + 1 == TRACE_BLOCKS {
            self.end_traces()?;
        }
        Ok(())
    }

    fn end_traces(&mut self) -> Result<(), BlocksError> {
        let first_block = self.summaries.len().saturating_sub(1) / TRACE_BLOCKS * TRACE_BLOCKS;
        let mut traces = std::mem::take(&mut self.traces);
        traces.sort_unstable();
        traces.dedup();
        for hashes in traces.chunks(TRACE_CHUNK) {
            let first = hashes[0].0;
            let (mut raw, mut before) = (Vec::with_capacity(hashes.len() * 3), first);
            for (hash, block) in hashes {
                put_number(&mut raw, u64::from(hash - before));
                raw.push(*block);
                before = *hash;
            }
            let Packed { bytes, checksum, .. } = Packed::as_it_is(raw);
            let (offset, length, count) = (self.at, bytes.len(), hashes.len());
            self.chunks.push(Chunk { offset, length, first, count, first_block, checksum });
            self.write(&bytes)?;
        }
        Ok(())
    }

    /// Completes the file and has it written to the disk. Returns its length.
    pub(crate) fn finish(mut self, skipped: &Skipped) -> Result<u64, BlocksError> {
        self.end_block()?;
        self.end_traces()?;
        let footer = footer_of(&self.summaries, &self.chunks, skipped);
        let Packed { bytes, inflated, checksum } = self.packer.pack(footer)?;
        let offset = self.at;
        self.write(&bytes)?;
        let mut end = offset.to_le_bytes().to_vec();
        for number in [bytes.len() as u32, inflated, checksum] {
            end.extend(number.to_le_bytes());
        }
        end.extend(NAME);
        self.write(&end)?;
        let file = self.out.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        Ok(self.at)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BlocksError> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// What a call brings along that has no bound of a few hundred bytes.
fn bytes_beside(kept: &Kept) -> usize {
    let logs: usize = kept.logs.iter().map(|line| line.text.len()).sum();
    // An attribute may be as long as the frame that it came in, which is a megabyte.
    let spans: usize = kept.spans.iter().map(|span| size_of_val(span) + heap_of_span(span)).sum();
    logs + spans + kept.result.as_deref().map_or(0, str::len)
}

fn summary_of(calls: &[Kept], offset: u64) -> Summary {
    let events = || calls.iter().map(|kept| &kept.invocation);
    let ids = || events().map(|call| call.id);
    let durations = || events().map(|call| call.duration_us());
    let mut outcomes: Vec<Box<str>> = Vec::new();
    for outcome in events().map(|call| call.outcome) {
        let words = words_of(outcome);
        if outcomes.iter().all(|known| **known != *words) {
            outcomes.push(words.into());
        }
    }
    Summary {
        offset,
        columns: 0,
        checksum: 0,
        rows: calls.len(),
        from_us: events().map(|call| call.started_us).min().unwrap_or_default(),
        to_us: events().map(|call| call.started_us).max().unwrap_or_default(),
        first_id: ids().min().unwrap_or(InvocationId([0; 16])),
        last_id: ids().max().unwrap_or(InvocationId([0; 16])),
        min_us: durations().min().unwrap_or_default(),
        max_us: durations().max().unwrap_or_default(),
        outcomes,
    }
}

/// Callers choose trace ids; one who makes many alike makes looks at his own slower.
fn hash_of(trace_id: TraceId) -> u32 {
    let mixed = u128::from_le_bytes(trace_id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (mixed >> 96) as u32
}

fn footer_of(summaries: &[Summary], chunks: &[Chunk], skipped: &Skipped) -> Vec<u8> {
    let mut raw = Vec::new();
    put_number(&mut raw, summaries.len() as u64);
    for summary in summaries {
        let length_us = summary.to_us - summary.from_us;
        let place = [summary.offset, summary.columns as u64, summary.checksum.into(), summary.rows as u64];
        for number in place.into_iter().chain([summary.from_us, length_us, summary.min_us, summary.max_us]) {
            put_number(&mut raw, number);
        }
        raw.extend(summary.first_id.0);
        raw.extend(summary.last_id.0);
        put_number(&mut raw, summary.outcomes.len() as u64);
        for words in &summary.outcomes {
            put_number(&mut raw, words.len() as u64);
            raw.extend(words.as_bytes());
        }
    }
    put_number(&mut raw, chunks.len() as u64);
    for chunk in chunks {
        let numbers = [chunk.offset, chunk.length as u64, chunk.count as u64, chunk.first_block as u64];
        for number in numbers.into_iter().chain([chunk.first.into(), chunk.checksum.into()]) {
            put_number(&mut raw, number);
        }
    }
    put_number(&mut raw, skipped.len() as u64);
    for (at, calls) in skipped {
        put_number(&mut raw, at.number());
        put_number(&mut raw, *calls);
    }
    raw
}

/// A file of blocks, open for reading; any number of threads may.
#[derive(Debug)]
pub(crate) struct Blocks {
    file: File,
    /// Where the blocks end.
    end: u64,
    summaries: Vec<Summary>,
    chunks: Vec<Chunk>,
    skipped: Skipped,
}

const FOOTER: BlocksError = BlocksError::Damaged("the footer");

impl Blocks {
    pub(crate) fn open(path: &Path) -> Result<Self, BlocksError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let at = length.checked_sub(END_BYTES as u64).ok_or(BlocksError::Foreign)?;
        let end = read(&file, at, END_BYTES, length)?;
        let mut source = Source(&end);
        let offset = u64::from_le_bytes(source.array()?);
        let [stored, inflated, checksum] =
            [source.array()?, source.array()?, source.array()?].map(u32::from_le_bytes);
        if source.array()? != NAME {
            return Err(BlocksError::Foreign);
        }
        let footer = unpack(read(&file, offset, stored as usize, at)?, inflated, checksum)?;
        let mut source = Source(&footer);
        let (summaries, chunks) = (read_summaries(&mut source)?, read_chunks(&mut source)?);
        let mut skipped = Skipped::new();
        for _ in 0..source.count()? {
            skipped.insert(SkippedAt::of_number(source.number()?), source.number()?);
        }
        Ok(Self { file, end: offset, summaries, chunks, skipped })
    }

    /// Calls by the second of their arrival that are in no file.
    pub(crate) fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// One call.
    pub(crate) fn find(&self, id: InvocationId) -> Result<Option<Kept>, BlocksError> {
        for summary in &self.summaries {
            if !(summary.first_id..=summary.last_id).contains(&id) {
                continue;
            }
            let block = self.block(summary)?;
            if let Some(row) = block.row_of(id)? {
                return block.kept(&[row]).map(|mut calls| calls.pop());
            }
        }
        Ok(None)
    }

    /// Adds the calls of a trace; the number of all of them.
    pub(crate) fn trace(&self, trace_id: TraceId, calls: &mut TraceCalls<'_>) -> Result<usize, BlocksError> {
        let mut count = 0;
        for number in self.blocks_with(trace_id)? {
            let block = self.block(self.summaries.get(number).ok_or(FOOTER)?)?;
            let rows = block.rows_of_trace(trace_id)?;
            count += rows.len();
            let found = if rows.is_empty() { Vec::new() } else { block.kept(&rows)? };
            for kept in found {
                if calls.wants(&kept.invocation) {
                    calls.add(Arc::new(kept));
                }
            }
            if calls.is_over() {
                break;
            }
        }
        Ok(count)
    }

    /// Numbers of the blocks that have a trace, and perhaps of a few others.
    fn blocks_with(&self, trace_id: TraceId) -> Result<Vec<usize>, BlocksError> {
        let hash = hash_of(trace_id);
        let mut numbers = Vec::new();
        for (at, chunk) in self.chunks.iter().enumerate() {
            // Equal hashes may go on from the chunk before: the first one counts.
            let next = self.chunks.get(at + 1).filter(|next| next.first_block == chunk.first_block);
            if chunk.first > hash || next.is_some_and(|next| next.first < hash) {
                continue;
            }
            let raw = unpack(read(&self.file, chunk.offset, chunk.length, self.end)?, 0, chunk.checksum)?;
            let mut source = Source(&raw);
            let mut found = u64::from(chunk.first);
            for _ in 0..chunk.count {
                found += source.number()?;
                let [block] = source.array()?;
                if found == u64::from(hash) {
                    numbers.push(chunk.first_block + usize::from(block));
                } else if found > u64::from(hash) {
                    break;
                }
            }
        }
        numbers.dedup();
        Ok(numbers)
    }

    /// The calls that a list asks for, newest arrival first.
    pub(crate) fn scan<'a>(&'a self, query: &'a RowQuery<'a>) -> Scan<'a> {
        Scan { blocks: self, query, left: self.summaries.len(), found: None, ahead: None }
    }

    /// All calls in the order of their arrival, block by block.
    pub(crate) fn all(&self) -> impl Iterator<Item = Result<Vec<Kept>, BlocksError>> {
        self.summaries.iter().map(|summary| {
            let block = self.block(summary)?;
            block.kept(&(0..summary.rows).collect::<Vec<_>>())
        })
    }

    fn block<'a>(&'a self, summary: &'a Summary) -> Result<Block<'a>, BlocksError> {
        let directory = read(&self.file, summary.offset, summary.columns * ENTRY_BYTES, self.end)?;
        let directory = unpack(directory, 0, summary.checksum)?;
        Ok(Block { blocks: self, summary, directory })
    }
}

/// Bytes of a file before `end`.
fn read(file: &File, offset: u64, length: usize, end: u64) -> Result<Vec<u8>, BlocksError> {
    if offset.checked_add(length as u64).is_none_or(|after| after > end) {
        return Err(BlocksError::Damaged("a length"));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn read_summaries(source: &mut Source<'_>) -> Result<Vec<Summary>, BlocksError> {
    let small = |number: u64| usize::try_from(number).map_err(|_| FOOTER);
    let one = |source: &mut Source<'_>| {
        let (offset, columns) = (source.number()?, small(source.number()?)?);
        let checksum = u32::try_from(source.number()?).map_err(|_| FOOTER)?;
        let (rows, from_us) = (small(source.number()?)?, source.number()?);
        let to_us = from_us.checked_add(source.number()?).ok_or(FOOTER)?;
        let (min_us, max_us) = (source.number()?, source.number()?);
        let (first_id, last_id) = (InvocationId(source.array()?), InvocationId(source.array()?));
        let mut outcomes = Vec::new();
        for _ in 0..source.count()? {
            let length = source.count()?;
            outcomes.push(std::str::from_utf8(source.bytes(length)?).map_err(|_| FOOTER)?.into());
        }
        if columns > usize::from(u8::MAX) || rows > BLOCK_CALLS.max(u16::MAX.into()) {
            return Err(FOOTER);
        }
        Ok(Summary {
            offset,
            columns,
            checksum,
            rows,
            from_us,
            to_us,
            first_id,
            last_id,
            min_us,
            max_us,
            outcomes,
        })
    };
    (0..source.count()?).map(|_| one(source)).collect()
}

fn read_chunks(source: &mut Source<'_>) -> Result<Vec<Chunk>, BlocksError> {
    let small = |number: u64| usize::try_from(number).map_err(|_| FOOTER);
    let short = |number: u64| u32::try_from(number).map_err(|_| FOOTER);
    let one = |source: &mut Source<'_>| {
        Ok(Chunk {
            offset: source.number()?,
            length: small(source.number()?)?,
            count: small(source.number()?)?,
            first_block: small(source.number()?)?,
            first: short(source.number()?)?,
            checksum: short(source.number()?)?,
        })
    };
    (0..source.count()?).map(|_| one(source)).collect()
}

/// One block of an open file.
struct Block<'a> {
    blocks: &'a Blocks,
    summary: &'a Summary,
    directory: Vec<u8>,
}

impl Block<'_> {
    fn rows(&self) -> usize {
        self.summary.rows
    }

    /// A column's bytes; none if the file has none of this field.
    fn column(&self, column: Column) -> Result<Option<Vec<u8>>, BlocksError> {
        let mut offset = self.summary.offset + self.directory.len() as u64;
        for entry in self.directory.chunks_exact(ENTRY_BYTES) {
            let mut source = Source(entry);
            let [number] = source.array()?;
            let [stored, inflated, checksum] =
                [source.array()?, source.array()?, source.array()?].map(u32::from_le_bytes);
            if number == column.0 {
                let bytes = read(&self.blocks.file, offset, stored as usize, self.blocks.end)?;
                return unpack(bytes, inflated, checksum).map(Some);
            }
            offset += u64::from(stored);
        }
        Ok(None)
    }

    /// Some of its calls, with everything beside them.
    fn kept(&self, rows: &[usize]) -> Result<Vec<Kept>, BlocksError> {
        let (events, beside) = (Events::read(self)?, Beside::read(self)?);
        rows.iter().map(|row| beside.add_to(events.get(*row)?, *row)).collect()
    }

    /// Rows that a list asks for, oldest first.
    fn rows_of(&self, query: &RowQuery<'_>) -> Result<Vec<u32>, BlocksError> {
        let is_within = |us: u64| us >= query.from_us && us < query.to_us;
        let mut rows: Vec<u32> = (0..self.rows() as u32).collect();
        if !is_within(self.summary.from_us) || !is_within(self.summary.to_us) {
            let started_us = self.started_us()?;
            rows.retain(|row| is_within(started_us[*row as usize]));
        }
        if !rows.is_empty() {
            self.retain(query, &mut rows)?;
        }
        Ok(rows)
    }
}

/// A list's way through a file, from its end.
pub(crate) struct Scan<'a> {
    blocks: &'a Blocks,
    query: &'a RowQuery<'a>,
    /// Blocks that were not looked at.
    left: usize,
    /// What a block has, the next one last.
    found: Option<(Vec<u32>, Events)>,
    ahead: Option<Invocation>,
}

impl Scan<'_> {
    /// The next call, if it comes before a place in the order: it arrived later, or had the larger
    /// id at the same time.
    pub(crate) fn next_before(
        &mut self,
        place: Option<(u64, InvocationId)>,
    ) -> Result<Option<Invocation>, BlocksError> {
        if self.ahead.is_none() {
            self.ahead = self.next()?;
        }
        let is_before = |call: &Invocation| place.is_none_or(|place| (call.started_us, call.id) > place);
        Ok(self.ahead.take_if(|call| is_before(call)))
    }

    fn next(&mut self) -> Result<Option<Invocation>, BlocksError> {
        loop {
            if let Some((rows, events)) = &mut self.found
                && let Some(row) = rows.pop()
            {
                return events.get(row as usize).map(Some);
            }
            self.found = None;
            let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
            self.left = left;
            let summary = &self.blocks.summaries[left];
            if summary.to_us < self.query.from_us {
                self.left = 0;
            } else if summary.may_have(self.query) {
                let block = self.blocks.block(summary)?;
                let rows = block.rows_of(self.query)?;
                if !rows.is_empty() {
                    self.found = Some((rows, Events::read(&block)?));
                }
            }
        }
    }
}

impl Summary {
    fn may_have(&self, query: &RowQuery<'_>) -> bool {
        let has = |word: &str| self.outcomes.iter().any(|words| words.split(' ').next() == Some(word));
        self.from_us < query.to_us
            && self.to_us >= query.from_us
            && query.min_us.is_none_or(|min| self.max_us >= min)
            && query.max_us.is_none_or(|max| self.min_us <= max)
            && query.outcome.is_none_or(has)
    }
}
