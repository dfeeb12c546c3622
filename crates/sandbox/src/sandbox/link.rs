//! One launcher's life: what was asked of it and who waits for the answer.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use fp_core::{Tenant, WorkerId};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::{State, lock};
use crate::control::{FromLauncher, Refusal, Started, ToLauncher};
use crate::fds;
use crate::open_files::{OpenFiles, REMEDY};
use crate::preload::{Need, Wanted};
use crate::spec::WorkerSpec;
use crate::start::{Exit, StartError};
use crate::worker::{Parts, Worker};

/// Tenants in one message about weights: each takes a hundred bytes at most, and a message 128 KiB.
const WEIGHTS_AT_ONCE: usize = 1000;

/// One launcher's life, as callers see it.
pub(super) struct Link {
    pub(super) control: AsyncFd<OwnedFd>,
    pub(super) preparing: Mutex<HashMap<u64, oneshot::Sender<Result<(), StartError>>>>,
    pub(super) waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Handed, StartError>>>>,
    pub(super) workers: Mutex<HashMap<WorkerId, watch::Sender<Option<Exit>>>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("workers", &lock(&self.workers).len()).finish_non_exhaustive()
    }
}

/// A worker as the launcher hands it over.
pub(super) struct Handed {
    pub(super) started: Started,
    pub(super) descriptors: [OwnedFd; 5],
    /// Inside its network, if that is internal.
    pub(super) listeners: Option<[OwnedFd; 2]>,
    pub(super) exit: watch::Receiver<Option<Exit>>,
}

impl Handed {
    pub(super) fn into_worker(
        self,
        spec: &WorkerSpec,
        place: OwnedSemaphorePermit,
    ) -> std::io::Result<Worker> {
        let [requests, answers, side, output, pidfd] = self.descriptors;
        Worker::new(Parts {
            id: self.started.worker,
            host_pid: self.started.pid,
            blank: self.started.blank,
            requests,
            answers,
            side,
            output,
            pidfd,
            exit: self.exit,
            place,
            memory: spec.memory,
            response_limit: usize::try_from(spec.response_limit).unwrap_or(usize::MAX),
        })
    }
}

impl Link {
    pub(super) async fn send(&self, message: &ToLauncher) -> std::io::Result<()> {
        let data = serde_json::to_vec(message)?;
        loop {
            match fds::send(self.control.get_ref(), &data, &[]) {
                Err(Errno::AGAIN) => self.control.writable().await?.clear_ready(),
                result => return result.map_err(Into::into),
            }
        }
    }

    /// Never waits: whoever reads from the launcher must not wait for it to read.
    pub(super) fn tell_wanted(&self, wanted: &Wanted) -> bool {
        let message = ToLauncher::Templates(Need::all(wanted));
        let data = serde_json::to_vec(&message).expect("plain data is serialisable");
        fds::send(self.control.get_ref(), &data, &[]).is_ok()
    }

    /// The same for what tenants weigh, in as many messages as they take.
    pub(super) fn tell_weights(&self, weights: &BTreeMap<Tenant, f64>) -> bool {
        let all: Vec<_> = weights.iter().map(|(tenant, weight)| (tenant.clone(), *weight)).collect();
        all.chunks(WEIGHTS_AT_ONCE).all(|some| {
            let message = ToLauncher::Weights(some.iter().cloned().collect());
            let data = serde_json::to_vec(&message).expect("plain data is serialisable");
            fds::send(self.control.get_ref(), &data, &[]).is_ok()
        })
    }

    pub(super) async fn receive(
        &self,
        buffer: &mut [u8],
    ) -> std::io::Result<Option<(FromLauncher, Vec<OwnedFd>)>> {
        loop {
            match fds::receive_what_can_be(self.control.get_ref().as_fd(), buffer) {
                Ok(Some((data, descriptors))) => {
                    return Ok(Some((serde_json::from_slice(data)?, descriptors)));
                }
                Ok(None) | Err(Errno::CONNRESET) => return Ok(None),
                Err(Errno::AGAIN) => self.control.readable().await?.clear_ready(),
                // One message is lost, and with it perhaps one start; the rest is as it was.
                Err(Errno::MSGSIZE) => tracing::error!("a message of the launcher is too long"),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn take(&self, message: FromLauncher, descriptors: Vec<OwnedFd>, state: &State) {
        match message {
            FromLauncher::Started(started) => self.take_started(started, descriptors, state),
            FromLauncher::NotStarted { request, refusal } => self.take_refusal(request, refusal),
            FromLauncher::Prepared { request } => {
                if let Some(preparing) = lock(&self.preparing).remove(&request) {
                    preparing.send(Ok(())).ok();
                }
            }
            FromLauncher::Zygote(report) => {
                let mut zygotes = lock(&state.zygotes);
                match zygotes.iter_mut().find(|zygote| zygote.pid == report.pid) {
                    Some(known) => *known = report,
                    None => zygotes.push(report),
                }
            }
            FromLauncher::ZygoteGone { pid } => lock(&state.zygotes).retain(|zygote| zygote.pid != pid),
            FromLauncher::MemoryShort(tenants) => {
                if let Some(room) = state.room.get() {
                    tenants.iter().for_each(|tenant| (room.tenants)(tenant));
                }
            }
            FromLauncher::Exited { worker, exit } => {
                if let Some(watcher) = lock(&self.workers).remove(&worker) {
                    watcher.send_replace(Some(exit));
                }
            }
            FromLauncher::Ready(_) | FromLauncher::Failed(_) => {
                tracing::warn!("the launcher speaks out of turn");
            }
        }
    }

    fn take_refusal(&self, request: u64, refusal: Refusal) {
        // Whoever waited may have given up.
        if let Some(waiting) = lock(&self.waiting).remove(&request) {
            waiting.send(Err(refusal.into())).ok();
        } else if let Some(preparing) = lock(&self.preparing).remove(&request) {
            preparing.send(Err(refusal.into())).ok();
        }
    }

    fn take_started(&self, started: Started, mut descriptors: Vec<OwnedFd>, state: &State) {
        state.next_worker.fetch_max(started.worker.0 + 1, Ordering::Relaxed);
        let waiting = lock(&self.waiting).remove(&started.request);
        let inner = (descriptors.len() == 7).then(|| descriptors.split_off(5));
        let listeners = inner.and_then(|inner| inner.try_into().ok());
        let Ok(descriptors) = <[OwnedFd; 5]>::try_from(descriptors) else {
            return self.refuse_started(started.worker, waiting);
        };
        let (sender, exit) = watch::channel(None);
        lock(&self.workers).insert(started.worker, sender);
        let handed = Handed { started, descriptors, listeners, exit };
        let refused = match waiting {
            Some(waiting) => waiting.send(Ok(handed)).err().and_then(Result::ok),
            None => Some(handed),
        };
        if let Some(handed) = refused {
            // Nobody waits any more.
            let [.., pidfd] = &handed.descriptors;
            rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).ok();
        }
    }

    /// Its descriptors found no room in this process: one start that failed, and no reason to part
    /// with the launcher and everybody's workers.
    fn refuse_started(&self, worker: WorkerId, waiting: Option<oneshot::Sender<Result<Handed, StartError>>>) {
        let limit = OpenFiles::now().limit();
        let why = format!("all of the platform's {limit} open files are in use; {REMEDY}");
        if let Some(waiting) = waiting {
            // Whoever waited may have given up.
            waiting.send(Err(StartError::Host(why))).ok();
        }
        let message = serde_json::to_vec(&ToLauncher::End(worker)).expect("plain data is serialisable");
        // Without it the worker ends by itself: nobody has the other end of its pipes.
        fds::send(self.control.get_ref(), &message, &[]).ok();
    }

    /// The launcher is gone, and all of its workers with it.
    pub(super) fn end(&self) {
        lock(&self.waiting).clear();
        lock(&self.preparing).clear();
        for (_, watcher) in lock(&self.workers).drain() {
            watcher.send_replace(Some(Exit::LOST));
        }
    }
}
