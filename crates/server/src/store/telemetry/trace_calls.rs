//! The calls of one trace as they are found: each once, those that are wanted, until there are enough.
//!
//! Callers choose trace ids, so one may have any number of calls, of any size and of any tenant. What
//! is not wanted is never read in whole.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use fp_core::InvocationId;
use fp_core::record::{Invocation, Kept};

use super::footprint::heap_of_kept;

/// Most calls of a trace that are shown: ten times the largest fan-out that a person would look at.
const MOST_CALLS: usize = 2_000;

/// Most bytes of them in memory: a call may have a megabyte of logs.
const MOST_BYTES: usize = 64 << 20;

/// A search for the calls of a trace.
pub(crate) struct TraceCalls<'a> {
    is_wanted: &'a dyn Fn(&Invocation) -> bool,
    deadline: Instant,
    known: HashSet<InvocationId>,
    calls: Vec<Arc<Kept>>,
    bytes: usize,
}

impl<'a> TraceCalls<'a> {
    /// Until `deadline`, those that `is_wanted` says.
    pub(crate) fn new(is_wanted: &'a dyn Fn(&Invocation) -> bool, deadline: Instant) -> Self {
        Self { is_wanted, deadline, known: HashSet::new(), calls: Vec::new(), bytes: 0 }
    }

    /// Whether it is over: there are enough, or the time is up.
    pub(crate) fn is_over(&self) -> bool {
        self.calls.len() >= MOST_CALLS || self.bytes >= MOST_BYTES || Instant::now() >= self.deadline
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether this call is to be read in whole.
    pub(crate) fn wants(&self, invocation: &Invocation) -> bool {
        (self.is_wanted)(invocation) && !self.known.contains(&invocation.id)
    }

    /// Takes up a call that is wanted.
    pub(crate) fn add(&mut self, kept: Arc<Kept>) {
        if self.known.insert(kept.invocation.id) {
            self.bytes += heap_of_kept(&kept);
            self.calls.push(kept);
        }
    }

    /// What was found, in no order.
    pub(crate) fn into_calls(self) -> Vec<Arc<Kept>> {
        self.calls
    }
}
