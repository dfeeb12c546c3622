//! Network namespaces, made ahead.
//!
//! Creating one costs 0.4 ms, and 3.6 ms once in a hundred times; entering one that is there costs
//! 8 µs. So a few stand ready, with nothing in them but their loopback, and a worker's process is
//! given one to enter. For `internal` the launcher opens listeners inside, which the platform
//! serves: whoever connects there is that worker. None is used twice, and none has a name: it goes
//! with the last process and the last socket in it.

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::mounts::last_error;
use crate::inner::{INNER_GATEWAY, INNER_OTLP};

/// Namespaces that stand ready: for a burst beyond the blank workers, which have theirs. The zygote
/// takes some 3 ms for each of their forks, in which one more is made.
const READY: usize = 4;

/// Connections that wait for the platform to accept them: no handler has more at once.
const BACKLOG: i32 = 128;

/// The namespaces that stand ready.
#[derive(Debug, Default)]
pub(super) struct Networks {
    ready: Vec<OwnedFd>,
}

impl Networks {
    /// An unused one.
    pub(super) fn take(&mut self) -> Result<OwnedFd, String> {
        self.ready.pop().map_or_else(make, Ok)
    }

    /// Makes one for later; whether there was a need.
    pub(super) fn refill(&mut self) -> Result<bool, String> {
        if self.ready.len() >= READY {
            return Ok(false);
        }
        let network = make()?;
        self.ready.push(network);
        Ok(true)
    }
}

/// Listeners at [`INNER_GATEWAY`] and [`INNER_OTLP`] inside a namespace.
pub(super) fn listen_in(network: &OwnedFd) -> Result<[OwnedFd; 2], String> {
    aside(|| enter(network).and_then(|()| Ok([listen(INNER_GATEWAY)?, listen(INNER_OTLP)?])))
        .map_err(|e| format!("opening {INNER_GATEWAY} and {INNER_OTLP} in its network: {e}"))
}

fn make() -> Result<OwnedFd, String> {
    let made = aside(|| {
        // SAFETY: no descriptor table is unshared; the flag concerns the network only.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        loopback_up()?;
        own_network()
    });
    made.map_err(|e| format!("making a network namespace: {e}"))
}

/// Does it in a thread that ends with it, so that the launcher itself never leaves its network: in
/// a user namespace it could not come back, because the host's network is not its own.
///
/// The thread first parts with the directory state that threads share. A joined thread is still
/// on its way out of the kernel for a moment, and who shares that state may not enter a mount
/// namespace ([`super::mounts`]): the next claim would fail with EINVAL.
fn aside<T: Send>(task: impl FnOnce() -> rustix::io::Result<T> + Send) -> rustix::io::Result<T> {
    let task = || {
        // SAFETY: no descriptor table is unshared; the flag concerns root, directory and umask.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        task()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, task);
        let thread = thread.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::AGAIN))?;
        thread.join().unwrap_or(Err(Errno::IO))
    })
}

fn own_network() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn enter(network: &OwnedFd) -> rustix::io::Result<()> {
    rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
}

fn loopback_up() -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let any = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all zeros is a valid request without a name or flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request lives across the call, which reads no more than it.
    match unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

fn listen(address: SocketAddrV4) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Whether namespaces can be made and set up here.
pub(super) fn try_out() -> rustix::io::Result<()> {
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    loopback_up()?;
    listen(INNER_GATEWAY).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_aside_shares_no_directory_with_the_launcher() {
        let before = std::env::current_dir().expect("a directory");
        assert_ne!(before.as_os_str(), "/proc");

        aside(|| rustix::process::chdir("/proc")).expect("a thread");

        assert_eq!(std::env::current_dir().expect("a directory"), before);
    }
}
