//! The calls that have not ended.

use std::collections::VecDeque;
use std::time::Duration;

use fp_core::WorkerId;
use fp_core::hedge::{Attempt as Which, Race};
use fp_core::pool::{CallId, Now};

/// A call that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) stream: u32,
    pub(super) arrived: Now,
    pub(super) deadline: Now,
    /// Its caller gave less than the function's own timeout.
    pub(super) is_short: bool,
    /// Its end decides whether the breaker closes.
    pub(super) is_probe: bool,
    /// How long its first attempt runs, and how that ends, in percent of [`fate_of`](super::fate_of).
    /// Drawn when it comes, so that other decisions about other calls leave them as they are.
    pub(super) service: Duration,
    pub(super) fate: f64,
    /// When its first attempt began.
    pub(super) dispatched: Now,
    pub(super) first: Option<Attempt>,
    pub(super) second: Option<Attempt>,
    pub(super) race: Option<Race>,
}

/// A run of a call on a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) worker: WorkerId,
    pub(super) since: Now,
    pub(super) is_cold: bool,
}

impl Call {
    /// Takes the attempt that runs on a worker.
    pub(super) fn take_on(&mut self, worker: WorkerId) -> Option<(Which, Attempt)> {
        let is_on = |attempt: &mut Attempt| attempt.worker == worker;
        let first = self.first.take_if(is_on).map(|attempt| (Which::First, attempt));
        first.or_else(|| self.second.take_if(is_on).map(|attempt| (Which::Second, attempt)))
    }

    /// Takes any attempt that runs.
    pub(super) fn take_any(&mut self) -> Option<(Which, Attempt)> {
        let first = self.first.take().map(|attempt| (Which::First, attempt));
        first.or_else(|| self.second.take().map(|attempt| (Which::Second, attempt)))
    }
}

/// All of them, by ids that only grow: a window over the latest, found without a search.
#[derive(Debug, Default)]
pub(super) struct Calls {
    window: VecDeque<Option<Call>>,
    /// The id of the window's first place.
    first: u64,
    len: u32,
}

impl Calls {
    pub(super) fn push(&mut self, call: Call) -> CallId {
        self.window.push_back(Some(call));
        self.len += 1;
        CallId(self.first + self.window.len() as u64 - 1)
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        let at = id.0.checked_sub(self.first)?;
        self.window.get_mut(at as usize)?.as_mut()
    }

    pub(super) fn take(&mut self, id: CallId) -> Option<Call> {
        let at = id.0.checked_sub(self.first)?;
        let taken = self.window.get_mut(at as usize)?.take()?;
        self.len -= 1;
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.first += 1;
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_until_they_are_taken() {
        let call = Call {
            stream: 0,
            arrived: Now::ZERO,
            deadline: Now::ZERO,
            is_short: false,
            is_probe: false,
            service: Duration::ZERO,
            fate: 0.0,
            dispatched: Now::ZERO,
            first: None,
            second: None,
            race: None,
        };
        let mut calls = Calls::default();
        let ids: Vec<_> = (0..5).map(|_| calls.push(call.clone())).collect();
        for id in [1, 0, 4] {
            assert!(calls.take(ids[id]).is_some());
            assert!(calls.take(ids[id]).is_none() && calls.get_mut(ids[id]).is_none());
        }
        assert_eq!((calls.len(), calls.window.len()), (2, 3));
        assert!(calls.get_mut(ids[2]).is_some() && calls.get_mut(CallId(9)).is_none());
        assert_eq!(calls.push(call), CallId(5));
    }
}
