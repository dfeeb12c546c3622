//! Showing a version's code inside a worker that already runs.
//!
//! The directory is cloned as a detached mount, made read-only, and moved to `/code` in the
//! worker's mount namespace, which the launcher enters for that one call: 80 µs.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

/// Where a worker finds its code.
pub(super) const CODE_DIR: &str = "/code";

/// The launcher's own mount namespace, to come back to.
#[derive(Debug)]
pub(super) struct Home(OwnedFd);

impl Home {
    pub(super) fn open() -> rustix::io::Result<Self> {
        rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// Binds `code_dir` read-only at `/code` of the process behind `pidfd`.
    pub(super) fn bind_code(&self, code_dir: &Path, pidfd: impl AsFd) -> Result<(), String> {
        let named = |step: &'static str| move |error: Errno| format!("{step}: {error}");
        let tree = read_only_clone(code_dir).map_err(|e| format!("open {}: {e}", code_dir.display()))?;
        rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::MOUNT)
            .map_err(named("enter the worker's mount namespace"))?;
        let moved = move_mount(&tree, c"", CWD, CODE_DIR, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        // Staying in a worker's namespace would be the end of all order: no way but back.
        rustix::thread::move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Mount))
            .expect("the launcher may return to its own mount namespace");
        moved.map_err(named("move the code to /code"))
    }
}

pub(super) fn read_only_clone(dir: &Path) -> rustix::io::Result<OwnedFd> {
    let tree = open_tree(CWD, dir, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    restrict(&tree)?;
    Ok(tree)
}

fn restrict(tree: &OwnedFd) -> rustix::io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let empty: &CStr = c"";
    // SAFETY: the path and the struct live across the call, and its size is what is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// `errno` of the call that just failed.
pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
