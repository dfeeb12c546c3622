//! Closing what a worker has passed to us, where nobody waits for it.
//!
//! Whoever closes a file last does the kernel's work of taking it down: a hundred megabytes in a
//! memfd take milliseconds, a socket with other sockets in it takes those with it. What a worker
//! puts into its side channel, asked or not, is closed last by the platform. So that never happens
//! on a thread that serves calls: one thread of the process does nothing else. When more is waiting
//! for it than any honest workers leave, closing is done on the spot, so that nothing piles up.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Descriptors that wait to be closed: as many workers may end at once on a large machine.
const WAITING: usize = 1024;

static CLOSER: OnceLock<Option<SyncSender<OwnedFd>>> = OnceLock::new();

/// A descriptor that is closed aside when it is dropped.
#[derive(Debug)]
pub(crate) struct ClosedAside(Option<OwnedFd>);

impl ClosedAside {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }
}

impl AsFd for ClosedAside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("taken by drop only").as_fd()
    }
}

impl AsRawFd for ClosedAside {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for ClosedAside {
    fn drop(&mut self) {
        if let (Some(fd), Some(closer)) = (self.0.take(), CLOSER.get_or_init(start)) {
            // Full, or the thread is gone: the descriptor comes back in the error and is closed here.
            closer.try_send(fd).ok();
        }
    }
}

/// The thread ends with the process. None where no more threads can be had.
fn start() -> Option<SyncSender<OwnedFd>> {
    let (sender, waiting) = sync_channel::<OwnedFd>(WAITING);
    let thread = std::thread::Builder::new().name("closing".into());
    thread.spawn(move || waiting.iter().for_each(drop)).ok().map(|_| sender)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_dropped_is_closed_soon() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        drop(ClosedAside::new(writer.into()));
        // Ends only when nobody has the other end any more.
        reader.read_to_end(&mut Vec::new()).expect("an end");
    }
}
