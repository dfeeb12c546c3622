//! A worker's process: who it is, that it ends with its owner, and how it ended.

use std::os::fd::OwnedFd;

use fp_core::WorkerId;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Duration, timeout};

use crate::start::Exit;

/// From a worker's death to its report: the zygote reaps, the launcher counts. Milliseconds;
/// the bound is for a launcher that died, too.
const EXIT_REPORT_LIMIT: Duration = Duration::from_secs(2);

/// The first process of a worker's pid namespace: the kernel ends all others with it. Dropping
/// it kills it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: WorkerId,
    /// As the host counts.
    pub(super) host_pid: u32,
    /// Its limit, in bytes.
    pub(super) memory: u64,
    pub(super) exit: watch::Receiver<Option<Exit>>,
    pub(super) pidfd: OwnedFd,
    /// Given back with it.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Process {
    pub(super) fn kill(&self) {
        // Gone already is as good.
        pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
    }

    /// Whether it stands still by a signal: it does nothing until another one, and cannot say so.
    pub(super) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.host_pid)).unwrap_or_default();
        is_stopped(&stat)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Resolves when it is gone, without borrowing it.
    pub(super) fn exit_watch(&self) -> impl Future<Output = Exit> + Send + 'static {
        let mut exit = self.exit.clone();
        async move {
            let seen = exit.wait_for(Option::is_some).await.map(|exit| *exit);
            seen.ok().flatten().unwrap_or(Exit::LOST)
        }
    }

    /// How a process that has hung up ended.
    pub(super) async fn last_report(&self) -> Exit {
        timeout(EXIT_REPORT_LIMIT, self.exit_watch()).await.unwrap_or(Exit::LOST)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// By `/proc/PID/stat`: the state follows the name, which is in parentheses and may hold some itself.
fn is_stopped(stat: &str) -> bool {
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_process_is_told_by_its_state_and_not_by_its_name() {
        assert!(is_stopped("12 (python3) T 1 12 12 0 -1"));
        assert!(is_stopped("12 (python3) t 1 12 12 0 -1"));
        assert!(!is_stopped("12 (python3) S 1 12 12 0 -1"));
        assert!(!is_stopped("12 (a) T 1) R 1 12 12 0 -1"));
        assert!(!is_stopped(""));
    }
}
