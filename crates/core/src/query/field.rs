//! The fields of the wide event by the names that questions use.

use std::borrow::Cow;

use crate::record::Invocation;

/// What stands for "there is none" in a column of numbers.
pub const NONE: u64 = u64::MAX;

/// What a number counts, and so how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain number.
    Plain,
    /// Nanoseconds; written with a unit, `50ms`.
    Time,
    /// Bytes; written with a unit, `64KiB`, or plain.
    Bytes,
    /// 1 and 0; written `true` and `false`, or as the field alone.
    Truth,
}

/// A field that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Number {
    /// The whole call.
    Duration,
    /// The phases of it.
    Route,
    /// Waiting for a worker.
    Queue,
    /// Starting one.
    Start,
    /// In the handler.
    Run,
    /// Sending the answer.
    Send,
    /// HTTP status.
    Status,
    /// The function's version.
    Version,
    /// Dispatches to workers.
    Attempts,
    /// The worker that answered.
    Worker,
    /// Time given to the call.
    Deadline,
    /// Calls ahead of it when it arrived.
    QueueLength,
    /// Bytes of the request body.
    RequestBytes,
    /// Bytes of the response body.
    ResponseBytes,
    /// Bytes of captured logs.
    LogBytes,
    /// CPU time of the handler.
    Cpu,
    /// Highest memory of the worker so far.
    MemoryPeak,
    /// A start was part of the call.
    Cold,
    /// The caller gave less time than the function promises.
    CallerWasShort,
    /// Under the latency objective's threshold; none without one.
    LatencyMet,
    /// Calls that the record stands for.
    Weight,
}

/// A field that is a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Text {
    /// Whose.
    Tenant,
    /// Of which function.
    Function,
    /// The event type that matched.
    EventType,
    /// What set it off.
    Trigger,
    /// HTTP verb.
    Verb,
    /// Percent-decoded path.
    Path,
    /// The caller's, or ours.
    CorrelationId,
    /// How it ended.
    Outcome,
    /// The finer reason of some outcomes.
    Reason,
    /// Who is to blame.
    Blame,
    /// Type and message of what was raised.
    Error,
    /// Its class.
    Criticality,
    /// Which limit was hit.
    LimitHit,
    /// How an answer came about that was given instead of a refusal.
    Degraded,
    /// The function that called.
    CalledBy,
    /// Who set the deadline.
    DeadlineFrom,
}

const NUMBERS: [(&str, Number); 26] = [
    ("duration", Number::Duration),
    ("phase.route", Number::Route),
    ("phase.queue", Number::Queue),
    ("phase.start", Number::Start),
    ("phase.run", Number::Run),
    ("phase.send", Number::Send),
    ("status", Number::Status),
    ("version", Number::Version),
    ("attempts", Number::Attempts),
    ("worker", Number::Worker),
    ("deadline", Number::Deadline),
    ("queue_length", Number::QueueLength),
    ("request_bytes", Number::RequestBytes),
    ("response_bytes", Number::ResponseBytes),
    ("log_bytes", Number::LogBytes),
    ("cpu", Number::Cpu),
    ("memory_peak", Number::MemoryPeak),
    ("cold", Number::Cold),
    ("caller_was_short", Number::CallerWasShort),
    ("latency_met", Number::LatencyMet),
    ("weight", Number::Weight),
    // The phases without their prefix, which nothing else is called.
    ("route", Number::Route),
    ("queue", Number::Queue),
    ("start", Number::Start),
    ("run", Number::Run),
    ("send", Number::Send),
];

const TEXTS: [(&str, Text); 16] = [
    ("tenant", Text::Tenant),
    ("function", Text::Function),
    ("event_type", Text::EventType),
    ("trigger", Text::Trigger),
    ("verb", Text::Verb),
    ("path", Text::Path),
    ("correlation_id", Text::CorrelationId),
    ("outcome", Text::Outcome),
    ("reason", Text::Reason),
    ("blame", Text::Blame),
    ("error", Text::Error),
    ("criticality", Text::Criticality),
    ("limit_hit", Text::LimitHit),
    ("degraded", Text::Degraded),
    ("called_by", Text::CalledBy),
    ("deadline_from", Text::DeadlineFrom),
];

/// The names that fields are known by, each field's first one.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let numbers = NUMBERS.iter().map(|(name, _)| *name).filter(|name| !is_short(name));
    TEXTS.iter().map(|(name, _)| *name).chain(numbers)
}

fn is_short(name: &str) -> bool {
    ["route", "queue", "start", "run", "send"].contains(&name)
}

impl Number {
    pub(super) fn named(name: &str) -> Option<Self> {
        NUMBERS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }

    /// Its name in questions and answers.
    pub fn name(self) -> &'static str {
        NUMBERS.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }

    /// What it counts.
    pub fn kind(self) -> Kind {
        match self {
            Self::Duration | Self::Route | Self::Queue | Self::Start | Self::Run | Self::Send => Kind::Time,
            Self::Deadline | Self::Cpu => Kind::Time,
            Self::RequestBytes | Self::ResponseBytes | Self::LogBytes | Self::MemoryPeak => Kind::Bytes,
            Self::Cold | Self::CallerWasShort | Self::LatencyMet => Kind::Truth,
            Self::Status | Self::Version | Self::Attempts | Self::Worker => Kind::Plain,
            Self::QueueLength | Self::Weight => Kind::Plain,
        }
    }

    /// Its value in a call, in the unit of its [`Kind`]; [`NONE`] if there is none.
    pub fn of(self, call: &Invocation) -> u64 {
        match self {
            Self::Duration => call.phases.total(),
            Self::Route => call.phases.route,
            Self::Queue => call.phases.queue,
            Self::Start => call.phases.start,
            Self::Run => call.phases.run,
            Self::Send => call.phases.send,
            Self::Status => call.status.into(),
            Self::Version => call.version.0.into(),
            Self::Attempts => call.attempts.into(),
            Self::Worker => call.worker.map_or(NONE, |worker| worker.0),
            Self::Deadline => call.deadline_ms.saturating_mul(1_000_000),
            Self::QueueLength => call.queue_length.into(),
            Self::RequestBytes => call.request_bytes,
            Self::ResponseBytes => call.response_bytes,
            Self::LogBytes => call.log_bytes,
            Self::Cpu => call.cpu_us.saturating_mul(1_000),
            Self::MemoryPeak => call.memory_peak_kib.saturating_mul(1_024),
            Self::Cold => call.cold.into(),
            Self::CallerWasShort => call.caller_was_short.into(),
            Self::LatencyMet => call.latency_met.map_or(NONE, u64::from),
            Self::Weight => call.weight.into(),
        }
    }
}

impl Text {
    pub(super) fn named(name: &str) -> Option<Self> {
        TEXTS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }

    /// Its name in questions and answers.
    pub fn name(self) -> &'static str {
        TEXTS.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }

    /// Its value in a call.
    pub fn of(self, call: &Invocation) -> Option<Cow<'_, str>> {
        let text = match self {
            Self::Tenant => call.tenant.as_str(),
            Self::Function => call.function.as_str(),
            Self::EventType => &call.event_type,
            Self::Trigger => call.trigger.word(),
            Self::Verb => &call.verb,
            Self::Path => &call.path,
            Self::CorrelationId => &call.correlation_id,
            Self::Outcome => call.outcome.word(),
            Self::Reason => call.outcome.reason()?,
            Self::Blame => call.blame?.word(),
            Self::Error => call.error.as_deref()?,
            Self::Criticality => call.criticality.word(),
            Self::LimitHit => call.limit_hit.as_deref()?,
            Self::Degraded => call.degraded.as_deref()?,
            Self::CalledBy => call.called_by.as_ref()?.as_str(),
            Self::DeadlineFrom => call.deadline_from.word()?,
        };
        Some(Cow::Borrowed(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_a_field_that_is_called_so() {
        for name in names() {
            let number = Number::named(name).map(Number::name);
            assert_eq!(number.or(Text::named(name).map(Text::name)), Some(name));
        }
        assert_eq!(Number::named("queue").map(Number::name), Some("phase.queue"));
        assert_eq!(names().count(), 37);
    }
}
