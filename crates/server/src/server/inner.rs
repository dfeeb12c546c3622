//! The gateway inside workers' networks: one listener for each worker of a function whose network
//! is internal, on which every connection is that function's.
//!
//! It lives as long as its worker, also while the platform drains: a call that still runs may need
//! others to end well.

use std::sync::Arc;

use fp_sandbox::InnerListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::gateway::{Gateway, Peer};
use crate::http::listener::{self, Door, Places};

/// Connections of one worker at once; more wait in the kernel. A few for each call that a shared
/// worker serves; a quarter of all that there are where these are few, so that nobody hoards them.
const MAX_CONNECTIONS: usize = 64;

/// Serves workers as they start, `most` connections of all of them at once, until `abort`.
pub(crate) async fn serve(
    mut listeners: mpsc::UnboundedReceiver<InnerListener>,
    gateway: Arc<Gateway>,
    most: usize,
    abort: CancellationToken,
) {
    let all = Arc::new(Semaphore::new(most));
    let own = MAX_CONNECTIONS.min(most.div_ceil(4));
    let workers = TaskTracker::new();
    while let Some(Some(listener)) = abort.run_until_cancelled(listeners.recv()).await {
        workers.spawn(serve_worker(
            listener,
            Places::within(own, &all),
            gateway.clone(),
            abort.child_token(),
        ));
    }
    workers.close();
    workers.wait().await;
}

async fn serve_worker(inner: InnerListener, places: Places, gateway: Arc<Gateway>, over: CancellationToken) {
    let gone = inner.worker_gone();
    let peer = Peer::Function { tenant: inner.tenant, function: inner.function };
    let answer = move |request, _| gateway.clone().answer(request, peer.clone());
    let door = Door { places, per_address: None, certificate: None };
    let serving = listener::serve(inner.listener, door, answer, over.clone(), over.clone());
    let ending = async {
        gone.await;
        // Its calls are over with it, like those of any caller that leaves.
        over.cancel();
    };
    tokio::join!(serving, over.run_until_cancelled(ending));
}
