//! What the launcher says on stderr: at once, or not at all.
//!
//! Its stderr is the platform's, often a pipe whose reader may be slow, stopped or gone. The
//! launcher has one thread, so waiting for that reader would stop every start of a worker, and
//! a failed write must not end it: all workers would go with it.

use std::fmt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a pipe that is ready for writing takes whole (PIPE_BUF), and long enough for a line.
const LONGEST: usize = 4096;

/// Prints a line on stderr, or drops it where nobody reads.
pub(crate) fn complain(words: fmt::Arguments<'_>) {
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut ready, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
        let mut line = words.to_string().into_bytes();
        line.truncate(LONGEST - 1);
        line.push(b'\n');
        // Whether it arrives is its reader's affair.
        let _ = rustix::io::write(&stderr, &line);
    }
}
