//! The gateway inside workers' networks: one listener for each worker of a function whose network
//! is internal, on which every connection is that function's.
//!
//! It lives as long as its worker, also while the platform drains: a call that still runs may need
//! others to end well.

use std::sync::Arc;

use fp_sandbox::InnerListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::gateway::{Gateway, Peer};
use crate::http::listener::{self, Door};

/// Connections of one worker at once; more wait in the kernel. A few for each call that a shared
/// worker serves, and few enough that a thousand workers which hoard theirs leave the platform
/// descriptors for others.
const MAX_CONNECTIONS: usize = 64;

/// Serves workers as they start, until `abort`.
pub(crate) async fn serve(
    mut listeners: mpsc::UnboundedReceiver<InnerListener>,
    gateway: Arc<Gateway>,
    abort: CancellationToken,
) {
    let workers = TaskTracker::new();
    while let Some(Some(listener)) = abort.run_until_cancelled(listeners.recv()).await {
        workers.spawn(serve_worker(listener, gateway.clone(), abort.child_token()));
    }
    workers.close();
    workers.wait().await;
}

async fn serve_worker(inner: InnerListener, gateway: Arc<Gateway>, over: CancellationToken) {
    let gone = inner.worker_gone();
    let peer = Peer::Function { tenant: inner.tenant, function: inner.function };
    let answer = move |request, _| gateway.clone().answer(request, peer.clone());
    let door = Door { most: MAX_CONNECTIONS, per_address: None, certificate: None };
    let serving = listener::serve(inner.listener, door, answer, over.clone(), over.clone());
    let ending = async {
        gone.await;
        // Its calls are over with it, like those of any caller that leaves.
        over.cancel();
    };
    tokio::join!(serving, over.run_until_cancelled(ending));
}
