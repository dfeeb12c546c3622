//! What the launcher says on stderr: at once, or not at all.
//!
//! Its stderr is the platform's, often a pipe whose reader may be slow, stopped or gone. The
//! launcher has one thread, so waiting for that reader would stop every start of a worker, and
//! a failed write must not end it: all workers would go with it.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

/// What a pipe that is ready for writing takes whole (PIPE_BUF), and long enough for a line.
const LONGEST: usize = 4096;

/// Prints a line on stderr, or drops it where nobody reads.
pub(crate) fn complain(words: fmt::Arguments<'_>) {
    let mut line = words.to_string().into_bytes();
    line.truncate(LONGEST - 1);
    line.push(b'\n');
    // Whether it arrives is its reader's affair.
    let _ = write_at_once(std::io::stderr(), &line);
}

/// Writes what there is room for now. The descriptor itself stays as it is: others share it, and
/// would not expect it to be non-blocking.
fn write_at_once(stream: impl AsFd, line: &[u8]) -> rustix::io::Result<usize> {
    let mut ready = [PollFd::new(&stream, PollFlags::OUT)];
    if poll(&mut ready, Some(&Timespec::default()))? == 0 {
        return Err(Errno::AGAIN);
    }
    // The platform writes to the same pipe and may fill it between the look and the write.
    match pwritev2(&stream, &[IoSlice::new(line)], CURRENT, ReadWriteFlags::NOWAIT) {
        // A kernel before 6.4 for pipes, or a terminal; or a file, which is always written.
        Err(Errno::OPNOTSUPP | Errno::INVAL) => rustix::io::write(&stream, line),
        Err(Errno::AGAIN) if is_file(&stream) => rustix::io::write(&stream, line),
        result => result,
    }
}

/// Where the stream is now.
const CURRENT: u64 = u64::MAX;

fn is_file(stream: impl AsFd) -> bool {
    fstat(stream).is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_line_is_written_where_there_is_room_and_dropped_where_there_is_none() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        assert_eq!(write_at_once(&writer, b"one\n"), Ok(4));
        // Two who write: one of them finds no room after it has looked for some.
        let floods = [writer.try_clone(), writer.try_clone()].map(|writer| {
            let writer = writer.expect("a descriptor");
            std::thread::spawn(move || while write_at_once(&writer, &[b'.'; LONGEST]).is_ok() {})
        });
        for flood in floods {
            flood.join().expect("it does not wait for a reader");
        }
        assert_eq!(write_at_once(&writer, b"two\n"), Err(Errno::AGAIN));
        drop(writer);
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("text");
        assert!(read.starts_with("one\n") && !read.contains("two"));
    }

    #[test]
    fn a_file_is_always_written() {
        let mut file = tempfile::tempfile().expect("a file");
        assert_eq!((write_at_once(&file, b"one\n"), write_at_once(&file, b"two\n")), (Ok(4), Ok(4)));
        std::io::Seek::rewind(&mut file).expect("it can");
        let mut read = String::new();
        file.read_to_string(&mut read).expect("text");
        assert_eq!(read, "one\ntwo\n");
    }
}
