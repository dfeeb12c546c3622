//! The gateway's door, carried out: whoever may not come in at once waits to be called.
//!
//! A turn is one of the event loop's: the task that calls gives way each time, and what has come from
//! workers and connections meanwhile is seen to before it goes on ([`tokio::task::yield_now`] comes
//! back after the loop has looked for events).

use std::sync::Arc;

use fp_core::Tenant;
use fp_core::door::Door;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::Clock;

type Ticket = oneshot::Sender<()>;

/// The door; shared as `Arc<Doorkeeper>`.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    clock: Clock,
    door: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    door: Door<Ticket>,
    /// A task calls those who stand outside.
    is_calling: bool,
}

impl Doorkeeper {
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, door: Mutex::default() })
    }

    /// Comes back when a request of this caller of the tenant may come in. Dropping it is leaving.
    pub(super) async fn enter(self: &Arc<Self>, tenant: &Tenant, caller: u64) {
        let called = {
            let mut state = self.door.lock();
            if state.door.is_open(self.clock.now()) {
                return;
            }
            let (ticket, called) = oneshot::channel();
            state.door.stand(tenant, caller, ticket);
            if !std::mem::replace(&mut state.is_calling, true) {
                tokio::spawn(self.clone().call());
            }
            called
        };
        // Only a runtime that ends drops the task that calls, and this one with it.
        called.await.ok();
    }

    async fn call(self: Arc<Self>) {
        loop {
            tokio::task::yield_now().await;
            let mut state = self.door.lock();
            for ticket in state.door.turn(|ticket| !ticket.is_closed()) {
                ticket.send(()).ok();
            }
            if state.door.outside() == 0 {
                state.is_calling = false;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crowd_comes_in_whole_and_leaves_nobody_behind() {
        let door = Doorkeeper::new(Clock::start());
        let tenant = Tenant::default();
        let entering: Vec<_> = (0..500)
            .map(|caller| {
                let (door, tenant) = (door.clone(), tenant.clone());
                tokio::spawn(async move { door.enter(&tenant, caller % 3).await })
            })
            .collect();
        // Some of them leave.
        entering.iter().step_by(7).for_each(tokio::task::JoinHandle::abort);
        for entered in entering {
            let left = entered.await.is_err_and(|error| !error.is_cancelled());
            assert!(!left);
        }
        while door.door.lock().is_calling {
            tokio::task::yield_now().await;
        }
        assert_eq!(door.door.lock().door.outside(), 0);
    }
}
