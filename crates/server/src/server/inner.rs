//! The gateway and the receiver of spans inside workers' networks: a listener of each for each worker of
//! a function whose network is internal, on which every connection is that function's.
//!
//! It lives as long as its worker, also while the platform drains: a call that still runs may need
//! others to end well.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use fp_core::Tenant;
use fp_sandbox::InnerListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::http;
use crate::http::gateway::Peer;
use crate::http::listener::{self, Door, Places};

/// Connections of one worker at once; more wait in the kernel. A few for each call that a shared
/// worker serves; a quarter of all that there are where these are few, so that nobody hoards them.
const MAX_CONNECTIONS: usize = 64;

/// One in so many of all connections is the most that a named tenant's functions have together. The
/// operator's own may have all.
const TENANTS_SHARE: usize = 4;

/// Serves workers as they start, `most` connections of all of them at once, until `abort`.
pub(crate) async fn serve(
    mut listeners: mpsc::UnboundedReceiver<InnerListener>,
    app: Arc<App>,
    management: Handle,
    most: usize,
    abort: CancellationToken,
) {
    let all = Arc::new(Semaphore::new(most));
    let mut shares = Shares { each: most.div_ceil(TENANTS_SHARE), given: HashMap::new() };
    let own = MAX_CONNECTIONS.min(most.div_ceil(4));
    let workers = TaskTracker::new();
    while let Some(Some(listener)) = abort.run_until_cancelled(listeners.recv()).await {
        let shared: Vec<_> = shares.of(&listener.tenant).into_iter().chain([all.clone()]).collect();
        let places = [(); 2].map(|()| Places::within(own, Vec::clone(&shared)));
        let spans = Spans { app: app.clone(), management: management.clone() };
        workers.spawn(serve_worker(listener, places, spans, abort.child_token()));
    }
    workers.close();
    workers.wait().await;
}

/// What each named tenant's functions have together, as long as one of them has a worker.
struct Shares {
    each: usize,
    given: HashMap<Tenant, Weak<Semaphore>>,
}

impl Shares {
    fn of(&mut self, tenant: &Tenant) -> Option<Arc<Semaphore>> {
        if *tenant == Tenant::default() {
            return None;
        }
        if let Some(known) = self.given.get(tenant).and_then(Weak::upgrade) {
            return Some(known);
        }
        self.given.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.each));
        self.given.insert(tenant.clone(), Arc::downgrade(&share));
        Some(share)
    }
}

/// What takes spans, on threads that serve no calls.
struct Spans {
    app: Arc<App>,
    management: Handle,
}

async fn serve_worker(inner: InnerListener, places: [Places; 2], spans: Spans, over: CancellationToken) {
    let gone = inner.worker_gone();
    let Spans { app, management } = spans;
    // Of what is shared with others it has no more by having two listeners.
    let [calls, otlp] = places.map(|places| Door { places, per_address: None, certificate: None });
    let take = http::served(http::otlp::inner_router(&app, inner.tenant.clone(), inner.function.clone()));
    let taking = listener::serve(inner.otlp, otlp, take, over.clone(), over.clone());
    let taking = management.spawn(taking);
    let gateway = app.gateway.clone();
    let peer = Peer::Function { tenant: inner.tenant, function: inner.function };
    let answer = move |request, _| gateway.clone().answer(request, peer.clone());
    let serving = listener::serve(inner.listener, calls, answer, over.clone(), over.clone());
    let ending = async {
        gone.await;
        // Its calls are over with it, like those of any caller that leaves.
        over.cancel();
    };
    // What takes spans ends by the same token, unless its runtime has ended before.
    let _ = tokio::join!(serving, over.run_until_cancelled(ending), taking);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_tenants_have_a_share_each_and_the_operator_has_all() {
        let mut shares = Shares { each: 3, given: HashMap::new() };
        let [acme, globex] = ["acme", "globex"].map(|name| name.parse::<Tenant>().expect("a name"));
        let first = shares.of(&acme).expect("a share");
        assert!(Arc::ptr_eq(&first, &shares.of(&acme).expect("the same")));
        assert!(!Arc::ptr_eq(&first, &shares.of(&globex).expect("another")));
        assert_eq!(first.available_permits(), 3);
        assert!(shares.of(&Tenant::default()).is_none());
        drop(first);
        shares.of(&globex);
        assert_eq!(shares.given.len(), 1, "nothing is kept of who has no workers");
    }
}
