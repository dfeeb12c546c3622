//! How an invocation ended: one enum, and what follows from it.
//!
//! Status codes live at the HTTP edge (`fp_server::http`); here are the words, who is to blame
//! and what the availability SLI counts. The table is documented for users in
//! `docs/errors.md`.

use serde::{Deserialize, Serialize};

/// Why a deadline ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadlineReason {
    /// Refused at the door: the expected wait and run do not fit into what is left.
    Infeasible,
    /// The deadline passed while the call was queued; the handler never ran.
    ExpiredInQueue,
    /// The deadline passed while the handler ran.
    ExpiredRunning,
}

/// Why the platform refused a call that it could have queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShedReason {
    /// The queue's delay has stood above its target.
    QueueDelay,
    /// The queue is at its bound.
    QueueFull,
    /// A call of a higher class needed the place.
    Priority,
    /// The memory for queued bodies is used up.
    Memory,
    /// Nearly all of the version's latest calls crashed or timed out ([`crate::breaker`]).
    BreakerOpen,
}

/// Who could have prevented a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The caller asked for something that cannot be had.
    Caller,
    /// The function's code or settings.
    Function,
    /// The platform, or how it is sized.
    Platform,
}

impl Blame {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Function => "function",
            Self::Platform => "platform",
        }
    }
}

/// What an invocation counts as in the availability SLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sli {
    /// Served as promised.
    Good,
    /// Spends error budget.
    Bad,
    /// The caller's doing; in neither the numerator nor the denominator.
    Excluded,
    /// The caller left; a class of its own.
    Cancelled,
}

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "reason")]
pub enum Outcome {
    /// The handler answered with a status below 500.
    Ok,
    /// The handler raised, or answered with 500 or more.
    FunctionError,
    /// The function's own timeout passed.
    Timeout,
    /// The caller's deadline could not be kept.
    DeadlineExceeded(DeadlineReason),
    /// Refused because of overload.
    Shed(ShedReason),
    /// The caller is over its own quota.
    QuotaExceeded,
    /// The caller left before the answer.
    Cancelled,
    /// The worker was killed for its memory.
    OutOfMemory,
    /// The worker died during the call.
    Crashed,
    /// No worker could be started.
    StartFailed,
    /// The request body was over the limit.
    RequestTooLarge,
    /// The response body was over the limit.
    ResponseTooLarge,
    /// A fault of ours.
    PlatformError,
}

impl Outcome {
    /// The word of the interface: what APIs, records and metrics print.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::FunctionError => "function_error",
            Self::Timeout => "timeout",
            Self::DeadlineExceeded(_) => "deadline_exceeded",
            Self::Shed(_) => "shed",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Cancelled => "cancelled",
            Self::OutOfMemory => "out_of_memory",
            Self::Crashed => "crashed",
            Self::StartFailed => "start_failed",
            Self::RequestTooLarge | Self::ResponseTooLarge => "too_large",
            Self::PlatformError => "platform_error",
        }
    }

    /// The reason behind the word, where there is more than one.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::DeadlineExceeded(DeadlineReason::Infeasible) => Some("infeasible"),
            Self::DeadlineExceeded(DeadlineReason::ExpiredInQueue) => Some("expired_in_queue"),
            Self::DeadlineExceeded(DeadlineReason::ExpiredRunning) => Some("expired_running"),
            Self::Shed(ShedReason::QueueDelay) => Some("queue_delay"),
            Self::Shed(ShedReason::QueueFull) => Some("queue_full"),
            Self::Shed(ShedReason::Priority) => Some("priority"),
            Self::Shed(ShedReason::Memory) => Some("memory"),
            Self::Shed(ShedReason::BreakerOpen) => Some("breaker_open"),
            Self::RequestTooLarge => Some("request"),
            Self::ResponseTooLarge => Some("response"),
            _ => None,
        }
    }

    /// The words of all outcomes, each once.
    pub fn words() -> impl Iterator<Item = &'static str> {
        let is_first = |at: usize, word: &str| Self::ALL[..at].iter().all(|before| before.word() != word);
        let words = Self::ALL.iter().map(|outcome| outcome.word()).enumerate();
        words.filter(move |(at, word)| is_first(*at, word)).map(|(_, word)| word)
    }

    /// The outcome of a word and a reason as [`word`](Self::word) and [`reason`](Self::reason) print them.
    pub fn from_words(word: &str, reason: Option<&str>) -> Option<Self> {
        Self::ALL.iter().copied().find(|outcome| outcome.word() == word && outcome.reason() == reason)
    }

    /// Who is to blame. `caller_was_short` says that the caller gave less time than the latency
    /// objective (without one: less than twice the warm p50), which moves the blame for a
    /// missed deadline from the function to the caller.
    pub fn blame(self, caller_was_short: bool) -> Option<Blame> {
        match self {
            Self::Ok => None,
            Self::DeadlineExceeded(_) if caller_was_short => Some(Blame::Caller),
            Self::FunctionError
            | Self::Shed(ShedReason::BreakerOpen)
            | Self::Timeout
            | Self::DeadlineExceeded(_)
            | Self::OutOfMemory
            | Self::Crashed
            | Self::StartFailed
            | Self::ResponseTooLarge => Some(Blame::Function),
            Self::QuotaExceeded | Self::Cancelled | Self::RequestTooLarge => Some(Blame::Caller),
            Self::Shed(_) | Self::PlatformError => Some(Blame::Platform),
        }
    }

    /// What the call counts as in the availability SLI.
    pub fn sli(self, caller_was_short: bool) -> Sli {
        match self {
            Self::Ok => Sli::Good,
            Self::Cancelled => Sli::Cancelled,
            outcome if outcome.blame(caller_was_short) == Some(Blame::Caller) => Sli::Excluded,
            _ => Sli::Bad,
        }
    }

    /// Its place in [`Outcome::ALL`], for tables of counters.
    pub fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::FunctionError => 1,
            Self::Timeout => 2,
            Self::DeadlineExceeded(DeadlineReason::Infeasible) => 3,
            Self::DeadlineExceeded(DeadlineReason::ExpiredInQueue) => 4,
            Self::DeadlineExceeded(DeadlineReason::ExpiredRunning) => 5,
            Self::Shed(ShedReason::QueueDelay) => 6,
            Self::Shed(ShedReason::QueueFull) => 7,
            Self::Shed(ShedReason::Priority) => 8,
            Self::Shed(ShedReason::Memory) => 9,
            Self::QuotaExceeded => 10,
            Self::Cancelled => 11,
            Self::OutOfMemory => 12,
            Self::Crashed => 13,
            Self::StartFailed => 14,
            Self::RequestTooLarge => 15,
            Self::ResponseTooLarge => 16,
            Self::PlatformError => 17,
            // At the end, because counters are stored by these places.
            Self::Shed(ShedReason::BreakerOpen) => 18,
        }
    }

    /// Every outcome, in the order of the interface's table, and what came later.
    pub const ALL: [Self; 19] = [
        Self::Ok,
        Self::FunctionError,
        Self::Timeout,
        Self::DeadlineExceeded(DeadlineReason::Infeasible),
        Self::DeadlineExceeded(DeadlineReason::ExpiredInQueue),
        Self::DeadlineExceeded(DeadlineReason::ExpiredRunning),
        Self::Shed(ShedReason::QueueDelay),
        Self::Shed(ShedReason::QueueFull),
        Self::Shed(ShedReason::Priority),
        Self::Shed(ShedReason::Memory),
        Self::QuotaExceeded,
        Self::Cancelled,
        Self::OutOfMemory,
        Self::Crashed,
        Self::StartFailed,
        Self::RequestTooLarge,
        Self::ResponseTooLarge,
        Self::PlatformError,
        Self::Shed(ShedReason::BreakerOpen),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_words(outcome.word(), outcome.reason()), Some(outcome));
            assert_eq!(Outcome::ALL[outcome.index()], outcome);
        }
        assert_eq!(Outcome::from_words("ok", Some("why")), None);
    }

    #[test]
    fn each_word_is_listed_once() {
        let words: Vec<_> = Outcome::words().collect();
        let different: std::collections::BTreeSet<_> = Outcome::ALL.iter().map(|it| it.word()).collect();
        assert_eq!((words.len(), words[0]), (different.len(), "ok"));
        assert_eq!(words.iter().filter(|word| **word == "shed").count(), 1);
    }

    #[test]
    fn the_availability_column_of_the_interface_holds() {
        let deadline = Outcome::DeadlineExceeded(DeadlineReason::ExpiredRunning);
        assert_eq!(Outcome::Ok.sli(false), Sli::Good);
        assert_eq!(deadline.sli(false), Sli::Bad);
        assert_eq!(deadline.sli(true), Sli::Excluded);
        assert_eq!(Outcome::QuotaExceeded.sli(false), Sli::Excluded);
        assert_eq!(Outcome::RequestTooLarge.sli(false), Sli::Excluded);
        assert_eq!(Outcome::ResponseTooLarge.sli(false), Sli::Bad);
        assert_eq!(Outcome::Cancelled.sli(false), Sli::Cancelled);
        assert_eq!(Outcome::Shed(ShedReason::QueueFull).sli(false), Sli::Bad);
        assert_eq!(Outcome::Shed(ShedReason::BreakerOpen).sli(false), Sli::Bad);
        assert_eq!(Outcome::Shed(ShedReason::BreakerOpen).blame(true), Some(Blame::Function));
    }
}
