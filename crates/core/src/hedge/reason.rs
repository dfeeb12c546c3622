//! Why a call was hedged or not, with the numbers that decided it: for traces, metrics and `explain`.

use std::fmt;
use std::time::Duration;

use super::Load;
use crate::pool::Now;
use crate::settings::show_duration;

/// A second attempt that was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Second {
    /// When.
    pub began: Now,
    /// How long after the first that was due.
    pub delay: Duration,
    /// Second attempts that the budget has room for after this one.
    pub tokens_left: f64,
    /// The share of the workers that were busy, without the call itself.
    pub utilisation: f64,
}

/// Why there was no second attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NotHedged {
    /// The call may not run twice.
    NotIdempotent,
    /// Too few calls have run to know what is slow.
    TooLittleHistory {
        /// Runs that are known.
        runs: u32,
        /// How many there must be.
        needed: u32,
    },
    /// Nothing that a second attempt could make up for is known: no run took longer than the objective,
    /// or none would be quick enough after it.
    NothingToGain {
        /// The objective.
        objective: Duration,
        /// Runs that are known.
        runs: u32,
    },
    /// The call had waited too long to reach the objective by a second attempt.
    TooLate {
        /// How long.
        waited: Duration,
        /// When a second attempt would have been due after dispatch.
        delay: Duration,
        /// The objective.
        objective: Duration,
    },
    /// Its time was up before a second attempt would have been due.
    DeadlineFirst {
        /// When that would have been, after dispatch.
        delay: Duration,
    },
    /// It ended before a second attempt was due.
    EndedBefore {
        /// When that would have been, after dispatch.
        delay: Duration,
    },
    /// Too many of the workers were busy.
    Utilisation {
        /// Their share.
        utilisation: f64,
        /// The share at which there are no second attempts.
        most: f64,
    },
    /// As many second attempts as the budget allows were made.
    BudgetSpent {
        /// When one was due, after dispatch.
        delay: Duration,
        /// What was saved up: less than one.
        tokens: f64,
        /// Second attempts per call that the budget gives.
        budget: f64,
    },
    /// It was due, and no other worker was idle.
    NoIdleWorker {
        /// When it was due, after dispatch.
        delay: Duration,
        /// How busy the workers were.
        load: Load,
    },
}

impl NotHedged {
    /// All words, for metrics that begin at zero.
    pub const WORDS: [&'static str; 9] = [
        "not_idempotent",
        "too_little_history",
        "nothing_to_gain",
        "too_late",
        "deadline_first",
        "ended_before",
        "utilisation",
        "budget_spent",
        "no_idle_worker",
    ];

    /// Its place among [`WORDS`](Self::WORDS).
    pub fn index(&self) -> usize {
        match self {
            Self::NotIdempotent => 0,
            Self::TooLittleHistory { .. } => 1,
            Self::NothingToGain { .. } => 2,
            Self::TooLate { .. } => 3,
            Self::DeadlineFirst { .. } => 4,
            Self::EndedBefore { .. } => 5,
            Self::Utilisation { .. } => 6,
            Self::BudgetSpent { .. } => 7,
            Self::NoIdleWorker { .. } => 8,
        }
    }

    /// One word, for labels.
    pub fn word(&self) -> &'static str {
        Self::WORDS[self.index()]
    }

    /// Whether a second attempt was due and not made: what somebody who looks for the tail wants to see.
    pub fn was_due(&self) -> bool {
        matches!(self, Self::Utilisation { .. } | Self::BudgetSpent { .. } | Self::NoIdleWorker { .. })
    }
}

/// The rest of the sentence "It was not hedged: …".
impl fmt::Display for NotHedged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotIdempotent => {
                write!(
                    f,
                    "not idempotent, so it must not run twice; declare idempotent in function.toml if it may"
                )
            }
            Self::TooLittleHistory { runs, needed } => {
                write!(f, "too little history: {runs} of {needed} calls that it takes to know what is slow")
            }
            Self::NothingToGain { objective, runs } => write!(
                f,
                "nothing to gain: of {runs} runs that are known none says that a second attempt would bring more calls under {}",
                shown(objective)
            ),
            Self::TooLate { waited, delay, objective } => write!(
                f,
                "too late: it had waited {}, and a second attempt {} after dispatch could not keep it under {}",
                shown(waited),
                shown(delay),
                shown(objective)
            ),
            Self::DeadlineFirst { delay } => {
                write!(f, "its time was up before a second attempt was due, {} after dispatch", shown(delay))
            }
            Self::EndedBefore { delay } => {
                write!(f, "it ended before a second attempt was due, {} after dispatch", shown(delay))
            }
            Self::Utilisation { utilisation, most } => write!(
                f,
                "utilisation {:.0} % of its workers, and from {:.0} % on there are no second attempts",
                utilisation * 100.0,
                most * 100.0
            ),
            Self::BudgetSpent { delay, tokens, budget } => write!(
                f,
                "budget spent: a second attempt was due after {}, {tokens:.2} of one were left, and each call adds {budget:.3}",
                shown(delay)
            ),
            Self::NoIdleWorker { delay, load } => write!(
                f,
                "no idle warm worker when a second attempt was due, {} after dispatch ({} other calls ran, for {} there are workers)",
                shown(delay),
                load.others,
                load.slots
            ),
        }
    }
}

/// In microseconds at most: what people read.
pub(super) fn shown(duration: Duration) -> String {
    show_duration(Duration::from_micros(duration.as_micros() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own_and_says_its_numbers() {
        let (ms, load) = (Duration::from_millis(12), Load { others: 3, slots: 4 });
        let all = [
            NotHedged::NotIdempotent,
            NotHedged::TooLittleHistory { runs: 37, needed: 100 },
            NotHedged::NothingToGain { objective: ms, runs: 400 },
            NotHedged::TooLate { waited: ms, delay: ms, objective: ms },
            NotHedged::DeadlineFirst { delay: ms },
            NotHedged::EndedBefore { delay: ms },
            NotHedged::Utilisation { utilisation: 0.93, most: 0.9 },
            NotHedged::BudgetSpent { delay: ms, tokens: 0.25, budget: 0.05 },
            NotHedged::NoIdleWorker { delay: ms, load },
        ];
        let words: Vec<_> = all.iter().map(NotHedged::word).collect();
        assert_eq!(words, NotHedged::WORDS);
        let said: Vec<_> = all.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(said.join("\n"), @"
        not idempotent, so it must not run twice; declare idempotent in function.toml if it may
        too little history: 37 of 100 calls that it takes to know what is slow
        nothing to gain: of 400 runs that are known none says that a second attempt would bring more calls under 12ms
        too late: it had waited 12ms, and a second attempt 12ms after dispatch could not keep it under 12ms
        its time was up before a second attempt was due, 12ms after dispatch
        it ended before a second attempt was due, 12ms after dispatch
        utilisation 93 % of its workers, and from 90 % on there are no second attempts
        budget spent: a second attempt was due after 12ms, 0.25 of one were left, and each call adds 0.050
        no idle warm worker when a second attempt was due, 12ms after dispatch (3 other calls ran, for 4 there are workers)
        ");
    }
}
