//! The pool's timer: one task while the policy wants to be woken, and none otherwise.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{State, VersionPool};

impl VersionPool {
    /// Keeps one timer task alive while the policy wants to be woken.
    pub(super) fn keep_time(self: &Arc<Self>, state: &mut State) {
        let Some(wake) = state.policy.next_wake() else { return };
        match state.timer {
            Some(set) if set <= wake => {}
            Some(_) => {
                state.timer = Some(wake);
                self.timer_changed.notify_one();
            }
            None => {
                state.timer = Some(wake);
                self.sandbox.runtime().spawn(Self::run_timer(Arc::downgrade(self)));
            }
        }
    }

    async fn run_timer(pool: Weak<Self>) {
        loop {
            let Some(pool) = pool.upgrade() else { return };
            let now = pool.clock.now();
            let wake = {
                let mut state = pool.state.lock();
                let state = &mut *state;
                if state.policy.next_wake().is_some_and(|wake| wake <= now) {
                    // Not through `decide_in`: that would set this very timer.
                    state.policy.on_timer(now, &mut state.decisions);
                    state.timer = Some(Duration::MAX);
                    pool.carry_out(state);
                }
                state.timer = state.policy.next_wake();
                state.timer
            };
            let Some(wake) = wake else { return };
            tokio::select! {
                () = tokio::time::sleep_until(pool.clock.instant(wake)) => {}
                () = pool.timer_changed.notified() => {}
            }
        }
    }
}
