//! The calls that have not ended.

use std::collections::VecDeque;
use std::time::Duration;

use fp_core::WorkerId;
use fp_core::pool::{CallId, Now};

/// A call that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) stream: u32,
    pub(super) arrived: Now,
    pub(super) deadline: Now,
    /// Its caller gave less than the function's own timeout.
    pub(super) is_short: bool,
    /// How long it ran when it was recorded.
    pub(super) service: Option<Duration>,
    pub(super) attempt: Option<Attempt>,
}

/// A run of a call on a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) worker: WorkerId,
    pub(super) since: Now,
    pub(super) is_cold: bool,
}

impl Call {
    pub(super) fn runs_on(&self, worker: WorkerId) -> bool {
        self.attempt.is_some_and(|attempt| attempt.worker == worker)
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

    /// Takes a call out, if it is there and is as it should be.
    pub(super) fn take_if(&mut self, id: CallId, fits: impl FnOnce(&Call) -> bool) -> Option<Call> {
        let at = id.0.checked_sub(self.first)?;
        let taken = self.window.get_mut(at as usize)?.take_if(|call| fits(call))?;
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
            service: None,
            attempt: None,
        };
        let mut calls = Calls::default();
        let ids: Vec<_> = (0..5).map(|_| calls.push(call.clone())).collect();
        assert!(calls.take_if(ids[1], |_| false).is_none());
        for id in [1, 0, 4] {
            assert!(calls.take_if(ids[id], |_| true).is_some());
            assert!(calls.take_if(ids[id], |_| true).is_none() && calls.get_mut(ids[id]).is_none());
        }
        assert_eq!((calls.len(), calls.window.len()), (2, 3));
        assert!(calls.get_mut(ids[2]).is_some() && calls.get_mut(CallId(9)).is_none());
        assert_eq!(calls.push(call), CallId(5));
    }
}
