//! The files of one kind of record: one that is written to, and full ones behind it.
//!
//! `changes.jsonl` is always the present one, so that a program can follow it by name; a full one
//! becomes `changes-<number of its last record>.jsonl`. The oldest goes but for what [`sift`] keeps of it,
//! which stays behind the others in one file more.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::{Kind, Record, reading, sift};

/// How much a series keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Size of a file that is full, in bytes.
    pub(super) file_bytes: u64,
    /// Full files that are kept whole.
    pub(super) kept: usize,
}

impl Default for Limits {
    /// 64 MiB a kind, a quarter of a million records: years of an operator's changes, a week of a
    /// dashboard that reads every two seconds.
    fn default() -> Self {
        Self { file_bytes: 16 << 20, kept: 3 }
    }
}

/// What the present file of a kind is called without its ending.
fn stem(kind: Kind) -> &'static str {
    match kind {
        Kind::Change => "changes",
        Kind::Call => "calls",
        Kind::Refusal => "refusals",
        Kind::Read => "reads",
    }
}

fn present(dir: &Path, kind: Kind) -> PathBuf {
    dir.join(format!("{}.jsonl", stem(kind)))
}

/// The full files of a kind with the number of their last record, the latest first.
pub(super) fn full_files(dir: &Path, kind: Kind) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| {
            name.strip_prefix(stem(kind))?.strip_prefix('-')?.strip_suffix(".jsonl")?.parse().ok()
        });
        files.extend(number.map(|number: u64| (number, entry.path())));
    }
    files.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(files)
}

/// A file of a series, opened to be read.
#[derive(Debug)]
pub(super) struct Opened {
    /// The number of its last record, if it is full.
    pub(super) last_seq: Option<u64>,
    pub(super) file: File,
}

/// Opens the files of a kind, the latest first. The names must not change meanwhile.
pub(super) fn open_all(dir: &Path, kind: Kind) -> io::Result<Vec<Opened>> {
    let full = match full_files(dir, kind) {
        Ok(full) => full,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let all = [(None, present(dir, kind))].into_iter().chain(full.into_iter().map(|(n, p)| (Some(n), p)));
    let mut opened = Vec::new();
    for (last_seq, path) in all {
        match File::open(&path) {
            Ok(file) => opened.push(Opened { last_seq, file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}

/// Whole lines to be added.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    pub(super) bytes: &'a [u8],
    /// The number of the last record in them.
    pub(super) last_seq: u64,
    /// They are to be on the disk before anything else is done.
    pub(super) are_durable: bool,
}

/// A series that is written to.
#[derive(Debug)]
pub(super) struct Series {
    kind: Kind,
    dir: PathBuf,
    limits: Limits,
    /// None until it is needed, and again after a failure.
    file: Option<File>,
    size: u64,
    /// The number of the last record in it.
    last_seq: u64,
    /// It does not end in a whole line.
    is_torn: bool,
}

impl Series {
    /// The series of a directory, as an earlier run left it.
    pub(super) fn new(dir: &Path, kind: Kind, limits: Limits) -> Self {
        let mut series =
            Self { kind, dir: dir.into(), limits, file: None, size: 0, last_seq: 0, is_torn: false };
        if let Err(error) = series.remove_what_was_sifted()
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, ?kind, "the files of the audit log cannot be looked at");
        }
        series.last_seq = series.find_last().unwrap_or(0);
        series
    }

    /// The number of the last record.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn find_last(&self) -> Option<u64> {
        let newest_first = open_all(&self.dir, self.kind).ok()?;
        newest_first.into_iter().find_map(|opened| {
            let mut lines = reading::Backwards::new(opened.file).ok()?;
            let in_it = lines.find_map(|line| serde_json::from_slice::<Record>(&line.ok()?).ok());
            in_it.map(|record| record.seq).or(opened.last_seq)
        })
    }

    /// Adds lines. What was written when it fails may be anything from nothing to all of it.
    pub(super) fn append(&mut self, lines: &Lines<'_>, names: &Mutex<()>) -> io::Result<()> {
        // After a failure it is looked at anew: who knows what is in it, or whether it is still there.
        self.try_append(lines, names).inspect_err(|_| self.file = None)
    }

    fn try_append(&mut self, lines: &Lines<'_>, names: &Mutex<()>) -> io::Result<()> {
        let length = lines.bytes.len() as u64;
        self.open()?;
        if self.size > 0 && self.size + length > self.limits.file_bytes {
            self.rotate(names)?;
            self.open()?;
        }
        let file = self.file.as_mut().expect("it was opened above");
        if self.is_torn {
            file.write_all(b"\n")?;
            self.is_torn = false;
        }
        file.write_all(lines.bytes)?;
        self.size += length;
        self.last_seq = lines.last_seq;
        if lines.are_durable { file.sync_data() } else { Ok(()) }
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(present(&self.dir, self.kind))?;
        self.size = file.metadata()?.len();
        let mut last = [b'\n'];
        if self.size > 0 {
            file.read_exact_at(&mut last, self.size - 1)?;
        }
        self.is_torn = last != [b'\n'];
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self, names: &Mutex<()>) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            file.sync_data()?;
        }
        let full = full_files(&self.dir, self.kind)?;
        let (newer, going) = full.split_at(full.len().min(self.limits.kept.saturating_sub(1)));
        let rest = self.sift(newer, going)?;
        let _names_change = names.lock();
        if let (Some(rest), [(_, latest), ..]) = (&rest, going) {
            fs::rename(rest, latest)?;
        }
        for (_, path) in going.iter().skip(usize::from(rest.is_some())) {
            fs::remove_file(path)?;
        }
        let name = format!("{}-{:016}.jsonl", stem(self.kind), self.last_seq);
        fs::rename(present(&self.dir, self.kind), self.dir.join(name))
    }

    /// Writes what stays of files that go into one that is to come into the place of the latest of them;
    /// none if that is nothing.
    fn sift(&self, newer: &[(u64, PathBuf)], going: &[(u64, PathBuf)]) -> io::Result<Option<PathBuf>> {
        if going.is_empty() {
            return Ok(None);
        }
        let paths = |files: &[(u64, PathBuf)]| files.iter().rev().map(|(_, path)| path.clone()).collect();
        let (going, mut newer): (Vec<_>, Vec<_>) = (paths(going), paths(newer));
        newer.push(present(&self.dir, self.kind));
        let path = self.dir.join(format!("{}.rest", stem(self.kind)));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let bytes = self.limits.file_bytes * (self.limits.kept as u64 + 1);
        if sift::sift(&going, &newer, bytes, BufWriter::new(&file))? == 0 {
            fs::remove_file(&path)?;
            return Ok(None);
        }
        file.sync_data()?;
        Ok(Some(path))
    }

    /// A kill between a rename and the removals after it leaves a file of which the next one has what stays.
    fn remove_what_was_sifted(&self) -> io::Result<()> {
        let full = full_files(&self.dir, self.kind)?;
        for pair in full.windows(2) {
            let [(_, newer), (last_seq, older)] = pair else { continue };
            let mut first = String::new();
            BufReader::new(File::open(newer)?).read_line(&mut first)?;
            if serde_json::from_str::<Record>(&first).is_ok_and(|record| record.seq <= *last_seq) {
                fs::remove_file(older)?;
            }
        }
        Ok(())
    }

    /// Makes what is written last.
    pub(super) fn sync(&self) {
        if let Some(file) = &self.file {
            // A failure now is one that the kernel has told, or will tell, somebody else too.
            let _ = file.sync_data();
        }
    }
}
