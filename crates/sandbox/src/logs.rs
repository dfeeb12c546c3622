//! What a call printed and logged, in order and bounded.
//!
//! Two sources: `Log` frames (Python's own output and the `logging` module) and the pipe on
//! descriptors 1 and 2 (subprocesses, C libraries). Beyond the limit output is counted and
//! dropped, and one line at the end says so. Lines are bounded in number as well: what is kept
//! beside the text of a line takes more memory than a short one.

use std::time::{SystemTime, UNIX_EPOCH};

use fp_core::record::{LogLine, LogSource};

/// One line for so many bytes of the limit, which is what a line takes besides its text: time, source,
/// two pointers with what they point to, half of them again in a list that grows. So the
/// memory behind a call's logs is a small multiple of the limit, however they are cut.
const BYTES_PER_LINE: usize = 64;

/// Lines that any limit has room for, so that a low one cuts by its bytes.
const FEW_LINES: usize = 64;

/// Output of the call that runs.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    lines: Vec<LogLine>,
    limit: usize,
    /// Bytes of text.
    kept: usize,
    /// From the pipe; the worker itself counts the rest.
    piped: u64,
    dropped: bool,
    /// Bytes that may be this call's or another's.
    unclaimed: u64,
}

impl Logs {
    /// A new call begins.
    pub(crate) fn begin(&mut self, limit: usize) {
        // What came on the pipe since the last call stays: it belongs to nobody else.
        self.limit = limit;
    }

    /// A `Log` frame.
    pub(crate) fn frame(&mut self, source: LogSource, level: Option<String>, text: &[u8]) {
        self.push(source, level.map(String::into_boxed_str), text);
    }

    /// Bytes from the pipe, cut into lines.
    pub(crate) fn piped(&mut self, bytes: &[u8]) {
        self.piped += bytes.len() as u64;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.push(LogSource::Descriptor, None, line);
        }
    }

    /// So much output came that may be this call's or that of another on the same worker.
    pub(crate) fn unclaimed(&mut self, bytes: &[u8]) {
        self.unclaimed += bytes.len() as u64;
    }

    /// How many lines may be kept.
    fn most_lines(&self) -> usize {
        (self.limit / BYTES_PER_LINE).max(FEW_LINES)
    }

    fn push(&mut self, source: LogSource, level: Option<Box<str>>, text: &[u8]) {
        let has_line = self.lines.len() < self.most_lines();
        let room = if has_line { self.limit - self.kept.min(self.limit) } else { 0 };
        let text = if text.len() > room {
            self.dropped = true;
            &text[..room]
        } else {
            text
        };
        if text.is_empty() {
            return;
        }
        self.kept += text.len();
        let text = String::from_utf8_lossy(text).into_owned().into_boxed_str();
        self.lines.push(LogLine { time_us: now_us(), source, level, text });
    }

    /// The call has ended: its lines, with a last one where something was dropped. `produced` is
    /// the worker's own count of bytes, the pipe not included.
    pub(crate) fn take(&mut self, produced: u64) -> Vec<LogLine> {
        let produced = produced + self.piped;
        let dropped = self.dropped || produced > self.kept as u64;
        let (limit, most_lines) = (self.limit, self.most_lines());
        let mut lines = std::mem::take(&mut self.lines);
        if dropped && limit > 0 {
            let and_lines =
                if lines.len() >= most_lines { format!(" and {most_lines} lines") } else { String::new() };
            let text = format!(
                "[output is cut here: {produced} bytes, the limit is {limit}{and_lines}; raise limits.logs]\n",
            );
            lines.push(platform_line(text));
        }
        if self.unclaimed > 0 && self.limit > 0 {
            let text = format!(
                "[{} bytes of output are not shown: a subprocess, C code or a thread of the worker wrote them while several calls ran, so they belong to no one call; print in the handler's own tasks, or set concurrency = 1]\n",
                self.unclaimed
            );
            lines.push(platform_line(text));
        }
        *self = Self::default();
        lines
    }
}

fn platform_line(text: String) -> LogLine {
    LogLine { time_us: now_us(), source: LogSource::Platform, level: None, text: text.into_boxed_str() }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_in_order_to_the_limit_and_the_cut_is_said() {
        let mut logs = Logs::default();
        logs.begin(10);
        logs.frame(LogSource::Stdout, None, b"hello\n");
        logs.piped(b"ab\ncdef\n");
        let lines = logs.take(6);
        let texts: Vec<_> = lines.iter().map(|line| &*line.text).collect();
        assert_eq!(texts[..3], ["hello\n", "ab\n", "c"]);
        assert!(texts[3].starts_with("[output is cut here: 14 bytes, the limit is 10"));
        assert!(logs.take(0).is_empty());
    }

    #[test]
    fn the_shortest_of_lines_take_no_more_than_a_few_times_the_limit() {
        let limit = 1 << 20;
        let mut logs = Logs::default();
        logs.begin(limit);
        for _ in 0..limit / 2 {
            logs.frame(LogSource::Logging, Some("L".repeat(32)), b"x");
            logs.piped(b"\n");
        }
        let lines = logs.take(limit as u64 / 2);
        let last = &lines[lines.len() - 1].text;
        assert!(last.contains("1048576 bytes, the limit is 1048576 and 16384 lines;"), "{last}");
        // What an allocation takes at least, besides.
        let of_line = |line: &LogLine| {
            let level = line.level.as_ref().map_or(0, |level| level.len() + 16);
            size_of::<LogLine>() + line.text.len() + 16 + level
        };
        let taken: usize = lines.iter().map(of_line).sum();
        assert!(taken < 3 * limit, "{taken} bytes");
    }

    #[test]
    fn what_the_worker_dropped_itself_is_said_too() {
        let mut logs = Logs::default();
        logs.begin(10);
        logs.frame(LogSource::Stdout, None, b"0123456789");
        assert_eq!(logs.take(1000).len(), 2);
        logs.begin(10);
        logs.frame(LogSource::Stdout, None, b"01234");
        assert_eq!(logs.take(5).len(), 1);
    }
}
