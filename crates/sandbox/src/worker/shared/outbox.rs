//! What goes to a shared worker, in order: frames, and the memfds that must arrive before them.
//!
//! Nobody waits to send. What the worker does not take at once stays here until there is room;
//! that is at most one call per seat, and two short notices per stream.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::net::unix::pipe;

use crate::closing::ClosedAside;
use crate::fds;
use crate::frames::Lent;
use crate::secrets::SecretFrames;

/// A frame on its way.
#[derive(Debug)]
pub(super) struct Letter {
    /// Body of the call with this serial.
    pub(super) memfd: Option<(u64, Arc<Lent>)>,
    pub(super) frame: Payload,
}

/// What is written.
#[derive(Debug)]
pub(super) enum Payload {
    Frame(Vec<u8>),
    Secrets(Arc<SecretFrames>),
}

impl Payload {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Frame(frame) => frame,
            Self::Secrets(secrets) => secrets.bytes(),
        }
    }
}

/// How far sending has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    All,
    /// The pipe of requests is full.
    PipeFull,
    /// The side channel is full.
    SideFull,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    letters: VecDeque<Letter>,
    /// Bytes of the first letter that are written.
    begun: usize,
    /// Bytes of all frames that were ever posted.
    posted: u64,
    /// Bytes that were written in all.
    written: u64,
}

impl Outbox {
    /// Takes a letter; returns where it ends in the stream, for [`was_read`](Self::was_read).
    pub(super) fn post(&mut self, letter: Letter) -> u64 {
        self.posted += letter.frame.bytes().len() as u64;
        self.letters.push_back(letter);
        self.posted
    }

    /// Whether a worker that has left `unread` bytes in its pipe has read up to `end`.
    pub(super) fn was_read(&self, end: u64, unread: u64) -> bool {
        end <= self.written.saturating_sub(unread)
    }

    /// Writes what can be written now.
    pub(super) fn flush(&mut self, requests: &pipe::Sender, side: &Arc<ClosedAside>) -> io::Result<Sent> {
        while let Some(letter) = self.letters.front_mut() {
            if let Some((serial, memfd)) = &letter.memfd {
                match fds::send(&**side, &serial.to_le_bytes(), &[memfd.as_fd()]) {
                    Ok(()) => letter.memfd = None,
                    // With too many descriptors under way the kernel wants some taken first.
                    Err(Errno::AGAIN | Errno::TOOMANYREFS) => return Ok(Sent::SideFull),
                    Err(error) => return Err(error.into()),
                }
            }
            while self.begun < letter.frame.bytes().len() {
                match requests.try_write(&letter.frame.bytes()[self.begun..]) {
                    Ok(count) => {
                        self.begun += count;
                        self.written += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::PipeFull),
                    Err(error) => return Err(error),
                }
            }
            self.begun = 0;
            self.letters.pop_front();
        }
        Ok(Sent::All)
    }
}
