//! Listeners inside workers' networks.
//!
//! A function with `network = "internal"` reaches two addresses, [`INNER_GATEWAY`] and [`INNER_OTLP`],
//! and only its own worker reaches those: whoever connects there needs no other proof of who it is.
//! The launcher opened the listeners; serving them is the platform's, from before the handler is loaded
//! until the worker is gone.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use fp_core::{FunctionName, Tenant, WorkerId};
use tokio::sync::{mpsc, watch};

use crate::spec::WorkerSpec;
use crate::start::Exit;

/// Where the platform's gateway is inside a network of its own, wherever it listens outside.
pub const INNER_GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000);

/// Where spans are taken there: where exporters of OpenTelemetry send to unless they are told.
pub const INNER_OTLP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4318);

/// The listeners that one worker alone can reach. Non-blocking.
#[derive(Debug)]
pub struct InnerListener {
    /// The one at [`INNER_GATEWAY`]. Its network lives until both are closed.
    pub listener: TcpListener,
    /// The one at [`INNER_OTLP`].
    pub otlp: TcpListener,
    /// Whose function.
    pub tenant: Tenant,
    /// The function of whoever connects.
    pub function: FunctionName,
    /// The worker of whoever connects.
    pub worker: WorkerId,
    exit: watch::Receiver<Option<Exit>>,
}

impl InnerListener {
    pub(crate) fn new(
        [listener, otlp]: [OwnedFd; 2],
        spec: &WorkerSpec,
        worker: WorkerId,
        exit: watch::Receiver<Option<Exit>>,
    ) -> Self {
        let (tenant, function) = (spec.tenant.clone(), spec.function.clone());
        Self { listener: listener.into(), otlp: otlp.into(), tenant, function, worker, exit }
    }

    /// Resolves when the worker is gone: nobody can connect any more.
    pub fn worker_gone(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut exit = self.exit.clone();
        async move {
            // A launcher that ended took the worker with it.
            exit.wait_for(Option::is_some).await.ok();
        }
    }
}

/// From where workers are started to whoever serves them; kept until somebody does, because
/// functions are brought back before there is a gateway. Without a bound of its own: there are no
/// more of them than workers.
pub(crate) struct Inner {
    sender: mpsc::UnboundedSender<InnerListener>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<InnerListener>>>,
}

impl Inner {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }

    pub(crate) fn give(&self, listener: InnerListener) {
        // Nobody serves any more: connections inside are refused.
        self.sender.send(listener).ok();
    }

    pub(crate) fn take(&self) -> Option<mpsc::UnboundedReceiver<InnerListener>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}
