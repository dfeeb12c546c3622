//! Reading the log: the latest records first, of all kinds in one order.
//!
//! Files are read from their ends, block by block, so that a page of the latest records costs as
//! much as it holds, whatever there is behind it.

use std::fs::File;
use std::io;
use std::iter::Peekable;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memchr::{memmem, memrchr};

use super::series::{self, Opened};
use super::{Kind, Page, Query, Record, Shared};

/// How much of a file is read at once: a page of two hundred records.
const BLOCK: u64 = 64 << 10;

/// The records that a query asks for.
pub(super) fn page(shared: &Shared, query: &Query) -> io::Result<Page> {
    let kinds = Kind::ALL.into_iter().filter(|kind| query.kind.is_none_or(|wanted| wanted == *kind));
    let mut sources = Vec::new();
    {
        let _names_stay = shared.names.lock();
        for kind in kinds {
            sources.push(Records::new(series::open_all(&shared.dir, kind)?, query).peekable());
        }
    }
    let mut items = Vec::new();
    while items.len() <= query.limit {
        let Some(record) = latest(&mut sources)? else { return Ok(Page { items, next: None }) };
        items.push(record);
    }
    items.pop();
    let next = items.last().map(|record| record.seq);
    Ok(Page { items, next })
}

/// The latest of what the sources have next.
fn latest(sources: &mut [Peekable<Records<'_>>]) -> io::Result<Option<Record>> {
    let mut best: Option<(u64, usize)> = None;
    for (index, source) in sources.iter_mut().enumerate() {
        let seq = match source.peek() {
            // It comes out below, whatever the others have.
            Some(Err(_)) => u64::MAX,
            Some(Ok(record)) => record.seq,
            None => continue,
        };
        best = best.max(Some((seq, index)));
    }
    best.and_then(|(_, index)| sources[index].next()).transpose()
}

/// The records of one kind that a query asks for, the latest first.
struct Records<'a> {
    query: &'a Query,
    /// The latest last.
    files: Vec<Opened>,
    lines: Option<Backwards>,
    /// What every line of the tenant's has in it.
    mark: Option<memmem::Finder<'static>>,
}

impl<'a> Records<'a> {
    fn new(mut latest_first: Vec<Opened>, query: &'a Query) -> Self {
        // All in a file come after the last of the full one before it.
        let is_too_late = |older: &Opened| {
            older.last_seq.zip(query.before).is_some_and(|(last, before)| last + 1 >= before)
        };
        while latest_first.get(1).is_some_and(is_too_late) {
            latest_first.remove(0);
        }
        latest_first.reverse();
        let mark = |tenant: &fp_core::Tenant| {
            memmem::Finder::new(format!("\"tenant\":\"{tenant}\"").as_bytes()).into_owned()
        };
        Self { query, files: latest_first, lines: None, mark: query.tenant.as_ref().map(mark) }
    }

    /// A file that was last written to before the time asked for has nothing of it. File systems
    /// take their times from a clock that is up to a tick behind ours, or a second.
    fn is_too_old(&self, file: &File) -> bool {
        let Some(since_us) = self.query.since_us else { return false };
        let since: SystemTime = UNIX_EPOCH + Duration::from_micros(since_us);
        file.metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| modified + Duration::from_secs(1) < since)
    }

    fn wanted(&self, line: &[u8]) -> Option<Record> {
        if self.mark.as_ref().is_some_and(|mark| mark.find(line).is_none()) {
            return None;
        }
        // A line that was torn by a full disk or a kill is nobody's record.
        let record: Record = serde_json::from_slice(line).ok()?;
        let query = self.query;
        let fits = query.tenant.as_ref().is_none_or(|tenant| record.tenant == tenant.as_str())
            && query.since_us.is_none_or(|since_us| record.at_us >= since_us)
            && query.before.is_none_or(|before| record.seq < before);
        fits.then_some(record)
    }
}

impl Iterator for Records<'_> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        loop {
            let Some(lines) = &mut self.lines else {
                let opened = self.files.pop()?;
                if self.is_too_old(&opened.file) {
                    continue;
                }
                match Backwards::new(opened.file) {
                    Ok(lines) => self.lines = Some(lines),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match lines.next() {
                Some(Ok(line)) => {
                    if let Some(record) = self.wanted(&line) {
                        return Some(Ok(record));
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                None => self.lines = None,
            }
        }
    }
}

/// The lines of a file from its end, without those that are empty.
#[derive(Debug)]
pub(super) struct Backwards {
    file: File,
    /// Bytes before those that were read.
    unread: u64,
    /// What was read and not given yet.
    held: Vec<u8>,
}

impl Backwards {
    /// Of what is in the file now.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let unread = file.metadata()?.len();
        Ok(Self { file, unread, held: Vec::new() })
    }

    fn read_more(&mut self) -> io::Result<()> {
        let size = BLOCK.min(self.unread);
        let mut block = vec![0; size as usize];
        self.file.read_exact_at(&mut block, self.unread - size)?;
        self.unread -= size;
        block.append(&mut self.held);
        self.held = block;
        Ok(())
    }
}

impl Iterator for Backwards {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        loop {
            let line = match memrchr(b'\n', &self.held) {
                Some(end_of_line_before) => {
                    let line = self.held.split_off(end_of_line_before + 1);
                    self.held.pop();
                    line
                }
                None if self.unread > 0 => {
                    if let Err(error) = self.read_more() {
                        // Once is enough: what comes before it is not looked for.
                        self.unread = 0;
                        self.held.clear();
                        return Some(Err(error));
                    }
                    continue;
                }
                None if self.held.is_empty() => return None,
                None => std::mem::take(&mut self.held),
            };
            if !line.is_empty() {
                return Some(Ok(line));
            }
        }
    }
}
