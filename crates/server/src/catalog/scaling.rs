//! What decides about the workers of a function, for who asks.

use fp_core::pool::{Entry, ScalingView};

use super::Deployed;

impl Deployed {
    /// What the policy of its workers reckons with, and its latest decisions, the oldest first, each with its
    /// Unix time in microseconds.
    pub fn scaling(&self) -> (ScalingView, Vec<(u64, Entry)>) {
        self.pool.scaling()
    }
}
