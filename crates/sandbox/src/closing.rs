//! Closing what a worker has passed to us, where nobody waits for it.
//!
//! Whoever closes a file last does the kernel's work of taking it down: a hundred megabytes in a
//! memfd take milliseconds, a socket with other sockets in it takes those with it. What a worker
//! puts into its side channel, asked or not, is closed last by the platform. So that never happens
//! on a thread that serves calls: one thread of the process does nothing else. When more is waiting
//! for it than any honest workers leave, closing is done on the spot, so that nothing piles up.
//!
//! The other way round, a worker may keep what the platform has passed to it and has paid for: a
//! request's body. Closing our descriptor would leave the memory behind, so such a file is
//! emptied first.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use rustix::fs::{fstat, ftruncate};

/// Descriptors that wait to be closed: as many workers may end at once on a large machine.
const WAITING: usize = 1024;

static CLOSER: OnceLock<Option<SyncSender<Last>>> = OnceLock::new();

/// A descriptor that is closed aside when it is dropped.
#[derive(Debug)]
pub(crate) struct ClosedAside(Option<Last>);

impl ClosedAside {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Some(Last { fd, empties: false }))
    }

    /// A file of ours, which is empty after that, whoever else has it open or mapped.
    pub(crate) fn emptied(fd: OwnedFd) -> Self {
        Self(Some(Last { fd, empties: true }))
    }
}

/// What is to be done when nobody needs a descriptor any more; dropping it does it.
#[derive(Debug)]
struct Last {
    fd: OwnedFd,
    empties: bool,
}

impl Last {
    /// Whoever had it has emptied it already: no work, and no reason to wake the thread.
    fn is_done(&self) -> bool {
        self.empties && fstat(&self.fd).is_ok_and(|file| file.st_size == 0)
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        if self.empties {
            // Only a seal against shrinking could refuse, and the file was sealed without.
            ftruncate(&self.fd, 0).ok();
        }
    }
}

impl AsFd for ClosedAside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("taken by drop only").fd.as_fd()
    }
}

impl AsRawFd for ClosedAside {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for ClosedAside {
    fn drop(&mut self) {
        let Some(last) = self.0.take().filter(|last| !last.is_done()) else { return };
        if let Some(closer) = CLOSER.get_or_init(start) {
            // Full, or the thread is gone: the descriptor comes back in the error and is closed here.
            closer.try_send(last).ok();
        }
    }
}

/// The thread ends with the process. None where no more threads can be had.
fn start() -> Option<SyncSender<Last>> {
    let (sender, waiting) = sync_channel::<Last>(WAITING);
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
