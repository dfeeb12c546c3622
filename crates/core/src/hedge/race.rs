//! One call with its one or two attempts.

use std::time::Duration;

use super::reason::shown;
use super::{First, NotHedged, Second};
use crate::pool::Now;

/// Which attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The one that every call has.
    First,
    /// The hedge.
    Second,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// With a good answer.
    Answered,
    /// With an error: it never wins while the other attempt runs.
    Failed,
    /// Before its end: the other won, the time was up, or the caller left.
    CutOff,
}

/// What a race that the second attempt won was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Won {
    /// The first attempt would have taken at least this long: so long it had run.
    pub at_least: Duration,
    /// What attempts that run so long usually take in all, where that was ever seen.
    pub usually: Option<Duration>,
}

impl Won {
    /// What was saved, as far as that is known; at least nothing.
    pub fn saved(&self) -> Duration {
        self.usually.unwrap_or_default().saturating_sub(self.at_least)
    }
}

/// One call. Made by [`Hedging::on_dispatch`](super::Hedging::on_dispatch).
#[derive(Debug, Clone, PartialEq)]
pub struct Race {
    pub(super) dispatched: Now,
    is_cold: bool,
    pub(super) may_repeat: bool,
    /// The delay, or why there is no second attempt.
    pub(super) plan: Result<Duration, NotHedged>,
    pub(super) second: Option<Second>,
    pub(super) first: Option<(Now, AttemptEnd)>,
    second_end: Option<(Now, AttemptEnd)>,
    winner: Option<Attempt>,
    pub(super) usually: Option<Duration>,
}

impl Race {
    pub(super) fn of(now: Now, first: First, plan: Result<Duration, NotHedged>) -> Self {
        let First { is_cold, may_repeat, .. } = first;
        let (second, first, second_end, winner, usually) = (None, None, None, None, None);
        Self { dispatched: now, is_cold, may_repeat, plan, second, first, second_end, winner, usually }
    }

    /// When [`Hedging::on_timer`](super::Hedging::on_timer) is due; never once it was, or when the call
    /// is not to be hedged.
    pub fn next_wake(&self) -> Option<Now> {
        let is_open = self.second.is_none() && self.first.is_none();
        self.plan.as_ref().ok().filter(|_| is_open).map(|delay| self.dispatched + *delay)
    }

    /// The first attempt's dispatch.
    pub fn dispatched(&self) -> Now {
        self.dispatched
    }

    /// The second attempt, where there was one.
    pub fn second(&self) -> Option<&Second> {
        self.second.as_ref()
    }

    /// Whether the end of this attempt does not end the call: it failed, and the other still runs.
    pub fn waits_for_other(&self, attempt: Attempt, end: AttemptEnd) -> bool {
        let others_end = match attempt {
            Attempt::First => self.second_end,
            Attempt::Second => self.first,
        };
        end == AttemptEnd::Failed && self.second.is_some() && others_end.is_none()
    }

    /// Which attempt answered, once one did.
    pub fn won(&self) -> Option<Attempt> {
        self.winner
    }

    /// What the second attempt was worth, if it won.
    pub fn worth(&self) -> Option<Won> {
        let second_won = self.winner == Some(Attempt::Second);
        let (ended, _) = self.second_end.filter(|_| second_won)?;
        let at_least = ended.saturating_sub(self.dispatched);
        Some(Won { at_least, usually: self.usually })
    }

    /// Why there was no second attempt; none if there was. What is not known before its end is that a call
    /// ends before its second attempt is due.
    pub fn why_not(&self) -> Option<NotHedged> {
        match (&self.second, &self.plan) {
            (Some(_), _) => None,
            (None, Err(why)) => Some(*why),
            (None, Ok(delay)) => Some(NotHedged::EndedBefore { delay: *delay }),
        }
    }

    /// In one or two sentences, with the numbers: for traces and `explain`.
    pub fn told(&self) -> String {
        let Some(second) = &self.second else {
            let why = self.why_not().map(|why| why.to_string()).unwrap_or_default();
            return format!("It was not hedged: {why}.");
        };
        let Second { delay, tokens_left, utilisation, .. } = second;
        let began = format!(
            "It was hedged: a second attempt was due {} after the first, {:.0} % of the workers were busy besides, and {tokens_left:.1} more attempts were in the budget.",
            shown(*delay),
            utilisation * 100.0
        );
        match (self.winner, self.worth()) {
            (Some(Attempt::Second), Some(Won { at_least, usually })) => {
                let usually =
                    usually.map(|usual| format!("; what runs so long usually takes {}", shown(usual)));
                let usually = usually.unwrap_or_default();
                format!(
                    "{began} It answered; the first, which was cancelled, had run for {} and would have taken at least that{usually}.",
                    shown(at_least)
                )
            }
            (Some(Attempt::First), _) => format!("{began} The first answered before it all the same."),
            _ => format!("{began} Neither of them answered well."),
        }
    }

    /// Since when the attempt ran, and whether on a warm worker; none if its end is known already.
    pub(super) fn note_end(&mut self, now: Now, attempt: Attempt, end: AttemptEnd) -> Option<(Now, bool)> {
        let (began, is_warm, slot) = match attempt {
            Attempt::First => (self.dispatched, !self.is_cold, &mut self.first),
            Attempt::Second => (self.second.as_ref()?.began, true, &mut self.second_end),
        };
        if slot.is_some() {
            return None;
        }
        *slot = Some((now, end));
        if end == AttemptEnd::Answered {
            self.winner.get_or_insert(attempt);
        }
        Some((began, is_warm))
    }
}
