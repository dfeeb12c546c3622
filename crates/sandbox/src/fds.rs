//! Messages with descriptors over SEQPACKET sockets, and sealed memfds.
//!
//! One message is one `sendmsg`: whole or not at all, so senders need no lock. Received
//! descriptors are close-on-exec and owned at once; nothing can leak them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::closing::ClosedAside;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;

/// Most descriptors in one message: a fork order has five and one per cgroup hierarchy.
pub(crate) const MAX_FDS: usize = 16;

/// Longest control message; below the default socket buffer of 208 KiB. The longest is the
/// zygote's configuration with both seccomp programs, about 40 KiB.
pub(crate) const MAX_MESSAGE: usize = 128 * 1024;

const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS));

/// A connected pair that keeps message borders.
pub(crate) fn message_pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Registers a non-blocking descriptor with the runtime.
pub(crate) fn watch(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and `AsyncFd`
    // drops it only after deregistering it.
    unsafe { AsyncFd::register(fd) }.map_err(std::io::Error::from)
}

/// As [`watch`], of a descriptor that others use, too.
pub(crate) fn watch_shared(fd: Arc<ClosedAside>) -> std::io::Result<AsyncFd<Arc<ClosedAside>>> {
    // SAFETY: as above; the `Arc` that `AsyncFd` holds keeps the descriptor open until then.
    unsafe { AsyncFd::register(fd) }.map_err(std::io::Error::from)
}

/// Sends one message; never raises SIGPIPE.
pub(crate) fn send(socket: impl AsFd, data: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    loop {
        match sendmsg(socket.as_fd(), &[IoSlice::new(data)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result.map(drop),
        }
    }
}

/// Receives one message without waiting: its bytes in `buffer` and its descriptors. `Ok(None)`
/// means that the other side is gone. A message that lost some of its descriptors, because there
/// were too many or this process has none left, is an error.
pub(crate) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> rustix::io::Result<Option<(&[u8], Vec<OwnedFd>)>> {
    let Some((bytes, fds, is_whole)) = receive_parts(socket, buffer)? else { return Ok(None) };
    if !is_whole {
        not_wanted(fds);
        return Err(Errno::MSGSIZE);
    }
    Ok(Some((&buffer[..bytes], fds)))
}

/// As [`receive`], from somebody who is trusted: a message that lost some of its descriptors comes
/// without any. This process has none left then, which its sender cannot know.
pub(crate) fn receive_what_can_be(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> rustix::io::Result<Option<(&[u8], Vec<OwnedFd>)>> {
    let Some((bytes, mut fds, is_whole)) = receive_parts(socket, buffer)? else { return Ok(None) };
    if !is_whole {
        not_wanted(std::mem::take(&mut fds));
    }
    Ok(Some((&buffer[..bytes], fds)))
}

fn not_wanted(fds: Vec<OwnedFd>) {
    fds.into_iter().map(ClosedAside::new).for_each(drop);
}

/// The length of the message, the descriptors that came, and whether all of them did.
fn receive_parts(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> rustix::io::Result<Option<(usize, Vec<OwnedFd>, bool)>> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = loop {
        match recvmsg(socket.as_fd(), &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    let (flags, bytes) = (message.flags, message.bytes);
    if flags.contains(ReturnFlags::TRUNC) {
        not_wanted(fds);
        return Err(Errno::MSGSIZE);
    }
    if bytes == 0 {
        not_wanted(fds);
        return Ok(None);
    }
    Ok(Some((bytes, fds, !flags.contains(ReturnFlags::CTRUNC))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsRawFd as _;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (a, b) = message_pair().expect("a pair");
        send(&a, b"hello", &[a.as_fd(), b.as_fd()]).expect("it sends");
        let mut buffer = [0; 64];
        let (data, fds) = receive(&b, &mut buffer).expect("it receives").expect("a message");
        assert_eq!((data, fds.len()), (&b"hello"[..], 2));
        assert!(fds.iter().all(|fd| fd.as_raw_fd() > 2));
        drop((a, fds));
        assert!(receive(&b, &mut buffer).expect("end of file").is_none());
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error() {
        let (a, b) = message_pair().expect("a pair");
        send(&a, &[7; 100], &[]).expect("it sends");
        assert_eq!(receive(&b, &mut [0; 10]).err(), Some(Errno::MSGSIZE));
    }
}
