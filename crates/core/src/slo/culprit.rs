//! Where calls went wrong that spent an error budget: in the queue, at the start of a worker, in
//! the handler, or in something that the handler waited for.
//!
//! Each bad call points at one place. Where its outcome says it (a call that was shed never left
//! the queue), the outcome decides; else it is the phase that took longest beyond what it takes in
//! good calls. In the handler it is a span of the author's if one failed, or if one took at least
//! half of what the run took too long. A span counts for what its own children did not take.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Indicator;
use crate::outcome::{DeadlineReason, Outcome, ShedReason};
use crate::record::{Kept, Phases, Span};

/// What of a call says where it went wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// How it ended.
    pub outcome: Outcome,
    /// Where its time went.
    pub phases: Phases,
    /// What its handler waited for.
    pub waits: Vec<Wait>,
}

/// A span of the author's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Its name.
    pub name: Box<str>,
    /// How long it took without its children, in nanoseconds.
    pub own_ns: u64,
    /// It failed, and none of its children did.
    pub failed: bool,
}

/// The place that most bad calls point at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// `route`, `queue`, `start`, `run` or `send`.
    pub phase: Box<str>,
    /// The author's span within `run`, if it is one's.
    pub span: Option<Box<str>>,
    /// Bad calls that point at it.
    pub calls: u64,
    /// Bad calls that were looked at.
    pub of: u64,
    /// What it took beyond its median in good calls, on average, in milliseconds.
    pub excess_ms: f64,
}

impl Sample {
    /// What a kept call says.
    pub fn of(kept: &Kept) -> Self {
        let spans: Vec<&Span> = kept.own_spans().filter(|span| span.follows().is_none()).collect();
        let wait = |span: &&Span| {
            let children = || spans.iter().filter(|child| child.parent_span_id == Some(span.span_id));
            let of_children: u64 = children().map(|child| child.duration_ns).sum();
            Wait {
                name: span.name.clone(),
                own_ns: span.duration_ns.saturating_sub(of_children),
                failed: span.error.is_some() && children().all(|child| child.error.is_none()),
            }
        };
        let waits = spans.iter().map(wait).collect();
        Self { outcome: kept.invocation.outcome, phases: kept.invocation.phases, waits }
    }

    /// How long the author's spans of a name took together.
    fn waited_for(&self, name: &str) -> u64 {
        self.waits.iter().filter(|wait| *wait.name == *name).map(|wait| wait.own_ns).sum()
    }
}

/// Where bad calls went wrong; none without any. `normal` are good calls of the same function.
pub fn culprit(indicator: Indicator, bad: &[Sample], normal: &[Sample]) -> Option<Culprit> {
    let usual = Usual { calls: normal };
    // Phase and span; calls and what they took beyond the usual.
    type Place = (&'static str, Option<Box<str>>);
    let mut places: BTreeMap<Place, (u64, u64)> = BTreeMap::new();
    for call in bad {
        let (phase, span, excess_ns) = usual.place(indicator, call);
        let (calls, excess) = places.entry((phase, span)).or_default();
        *calls += 1;
        *excess += excess_ns;
    }
    let ((phase, span), (calls, excess)) = places.into_iter().max_by_key(|(_, weight)| *weight)?;
    let excess_ms = excess as f64 / calls as f64 / 1e6;
    Some(Culprit { phase: phase.into(), span, calls, of: bad.len() as u64, excess_ms })
}

/// What good calls are like.
struct Usual<'a> {
    calls: &'a [Sample],
}

impl Usual<'_> {
    /// Phase, span and by how many nanoseconds it was too long.
    fn place(&self, indicator: Indicator, call: &Sample) -> (&'static str, Option<Box<str>>, u64) {
        let excesses = self.excesses(call);
        let slowest = excesses.into_iter().max_by_key(|(_, excess)| *excess);
        let phase = said_by_outcome(indicator, call.outcome).or(slowest.map(|(phase, _)| phase));
        let phase = phase.unwrap_or("run");
        let excess = excesses.iter().find(|(name, _)| *name == phase).map_or(0, |(_, excess)| *excess);
        if phase == "run"
            && let Some((span, excess)) = self.wait(call, excess)
        {
            return (phase, Some(span), excess);
        }
        (phase, None, excess)
    }

    fn excesses(&self, call: &Sample) -> [(&'static str, u64); 5] {
        let phases = call.phases.by_name();
        std::array::from_fn(|at| {
            let (name, took) = phases[at];
            (name, took.saturating_sub(self.median(|usual| usual.phases.by_name()[at].1)))
        })
    }

    /// The span that a run was too long for, or failed in.
    fn wait(&self, call: &Sample, run_excess: u64) -> Option<(Box<str>, u64)> {
        let excess =
            |name: &str| call.waited_for(name).saturating_sub(self.median(|usual| usual.waited_for(name)));
        let is_failure = call.outcome != Outcome::Ok;
        if is_failure && let Some(failed) = call.waits.iter().find(|wait| wait.failed) {
            return Some((failed.name.clone(), excess(&failed.name)));
        }
        let slowest = call.waits.iter().max_by_key(|wait| excess(&wait.name))?;
        let excess = excess(&slowest.name);
        (excess > 0 && excess >= run_excess / 2).then(|| (slowest.name.clone(), excess))
    }

    /// The lower one of two in the middle; 0 without calls.
    fn median(&self, of: impl Fn(&Sample) -> u64) -> u64 {
        let mut values: Vec<u64> = self.calls.iter().map(of).collect();
        values.sort_unstable();
        values.len().checked_sub(1).map_or(0, |last| values[last / 2])
    }
}

/// The phase that an outcome names by itself. What came late is judged by its times.
fn said_by_outcome(indicator: Indicator, outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Shed(ShedReason::BreakerOpen) => Some("run"),
        Outcome::Shed(_) | Outcome::DeadlineExceeded(DeadlineReason::Infeasible) => Some("queue"),
        Outcome::StartFailed => Some("start"),
        Outcome::OutOfMemory | Outcome::Crashed | Outcome::ResponseTooLarge => Some("run"),
        // A handler that failed may have failed late, but what broke the promise is that it failed.
        Outcome::FunctionError => Some("run"),
        Outcome::Ok if indicator == Indicator::Availability => Some("run"),
        Outcome::Ok
        | Outcome::Timeout
        | Outcome::DeadlineExceeded(_)
        | Outcome::QuotaExceeded
        | Outcome::Cancelled
        | Outcome::RequestTooLarge
        | Outcome::PlatformError => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn call(outcome: Outcome, queue: u64, start: u64, run: u64) -> Sample {
        let phases =
            Phases { route: MS, queue: queue * MS, start: start * MS, run: run * MS, ..Phases::default() };
        Sample { outcome, phases, waits: Vec::new() }
    }

    fn with(mut sample: Sample, name: &str, ms: u64, failed: bool) -> Sample {
        sample.waits.push(Wait { name: name.into(), own_ns: ms * MS, failed });
        sample
    }

    fn found(indicator: Indicator, bad: &[Sample], normal: &[Sample]) -> (String, Option<String>, f64) {
        let found = culprit(indicator, bad, normal).expect("there are bad calls");
        (found.phase.into(), found.span.map(Into::into), found.excess_ms)
    }

    #[test]
    fn late_calls_point_at_what_took_longer_than_usual() {
        let normal = [call(Outcome::Ok, 1, 0, 200), call(Outcome::Ok, 1, 0, 210)];
        let late = |bad: Sample| found(Indicator::Latency, &[bad], &normal);
        assert_eq!(late(call(Outcome::Ok, 101, 0, 210)), ("queue".into(), None, 100.0), "not the longest");
        assert_eq!(late(call(Outcome::Ok, 1, 90, 210)), ("start".into(), None, 90.0));
        assert_eq!(late(call(Outcome::Timeout, 1, 0, 700)), ("run".into(), None, 500.0));
        let expired = Outcome::DeadlineExceeded(DeadlineReason::ExpiredInQueue);
        assert_eq!(late(call(expired, 0, 300, 0)), ("start".into(), None, 300.0), "waited for its worker");
    }

    #[test]
    fn outcomes_say_where_a_call_failed() {
        let place = |outcome| found(Indicator::Availability, &[call(outcome, 0, 0, 5)], &[]).0;
        assert_eq!(place(Outcome::Shed(ShedReason::QueueDelay)), "queue");
        assert_eq!(place(Outcome::Shed(ShedReason::BreakerOpen)), "run");
        assert_eq!(place(Outcome::StartFailed), "start");
        assert_eq!(place(Outcome::FunctionError), "run");
        assert_eq!(culprit(Indicator::Availability, &[], &[]), None);
    }

    #[test]
    fn a_dependency_is_named_when_it_failed_or_made_the_run_long() {
        let normal = [with(with(call(Outcome::Ok, 0, 0, 50), "db", 20, false), "cache", 1, false)];
        let slow = with(with(call(Outcome::Ok, 0, 0, 250), "db", 215, false), "cache", 1, false);
        let own = with(with(call(Outcome::Ok, 0, 0, 250), "db", 25, false), "cache", 1, false);
        let late = |bad: &Sample| found(Indicator::Latency, std::slice::from_ref(bad), &normal);
        assert_eq!(late(&slow), ("run".into(), Some("db".into()), 195.0));
        assert_eq!(late(&own), ("run".into(), None, 200.0), "the handler itself");
        let failed = with(with(call(Outcome::FunctionError, 0, 0, 5), "db", 2, false), "cache", 1, true);
        assert_eq!(found(Indicator::Availability, &[failed], &normal).1.as_deref(), Some("cache"));
    }

    #[test]
    fn most_calls_decide() {
        let shed = call(Outcome::Shed(ShedReason::QueueFull), 0, 0, 0);
        let bad = [shed.clone(), call(Outcome::FunctionError, 0, 0, 5), shed];
        let found = culprit(Indicator::Availability, &bad, &[]).expect("there are bad calls");
        assert_eq!((&*found.phase, found.calls, found.of), ("queue", 2, 3));
    }
}
