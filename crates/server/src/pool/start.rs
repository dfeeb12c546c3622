//! Starts of workers: what has to be had first, and what becomes of those that do not come.

use std::sync::Arc;
use std::time::Duration;

use fp_core::outcome::Outcome;
use fp_sandbox::{StartError, Worker};

use super::VersionPool;
use super::host::NoPlace;
use super::workers::Room;
use crate::quotas::Refused;

impl VersionPool {
    pub(super) fn start_one(self: &Arc<Self>) {
        let pool = self.clone();
        self.sandbox.runtime().spawn(async move {
            let asked = pool.clock.now();
            let memory = match pool.reserve() {
                Ok(memory) => memory,
                Err(refused) => return pool.start_denied(asked, refused),
            };
            let place = match pool.host.place(&pool.spec.tenant, pool.spec.start_limit).await {
                Ok(place) => place,
                Err(why) => return pool.start_without_place(why),
            };
            let room = Room { _memory: memory, _place: place };
            let started = pool.start_worker().await;
            let now = pool.clock.now();
            let took = now.saturating_sub(asked);
            match started.and_then(|worker| pool.ready(worker)) {
                Ok(worker) => {
                    let id = worker.id();
                    let mut state = pool.state.lock();
                    pool.enter(&mut state, worker, Some(took), room);
                    pool.decide_in(&mut state, |policy, out| policy.on_started(now, id, took, out));
                }
                Err(error) => pool.start_failed(now, &error),
            }
        });
    }

    /// A worker with the handler loaded, not yet one of the pool's.
    pub(crate) async fn start_worker(&self) -> Result<Worker, StartError> {
        let secrets = self.secrets.as_ref().map(|secrets| secrets.frames());
        self.sandbox.start_worker_with(&self.spec, secrets.as_deref()).await
    }

    fn start_denied(self: &Arc<Self>, now: Duration, refused: Refused) {
        let mut state = self.state.lock();
        state.over_quota = Some(refused);
        self.decide_in(&mut state, |policy, out| policy.on_start_denied(now, Outcome::QuotaExceeded, out));
    }

    fn start_without_place(self: &Arc<Self>, why: NoPlace) {
        let now = self.clock.now();
        tracing::debug!(function = %self.spec.function, %why, "there is no place for a worker");
        let mut state = self.state.lock();
        self.decide_in(&mut state, |policy, out| policy.on_start_denied(now, why.outcome(), out));
    }

    fn start_failed(self: &Arc<Self>, now: Duration, error: &StartError) {
        let mut error = error.to_string();
        if let Some(secrets) = &self.secrets {
            secrets.mask().string(&mut error);
        }
        tracing::warn!(function = %self.spec.function, version = %self.spec.version, %error, "a worker did not start");
        let mut state = self.state.lock();
        state.last_start_error = Some(error.into());
        self.decide_in(&mut state, |policy, out| policy.on_start_failed(now, out));
    }
}
