//! One attempt: a lease, a call, and what may end either early.
//!
//! The `select!` of the request path: the handler's answer against the deadline, and in `hedge.rs`
//! against a second attempt's. (Waiting in the queue ends by the pool's policy, which knows the
//! deadline; the caller's leaving is the drop of this future.) The worker keeps the same deadline by its own timer and answers with
//! the handler's traceback; the platform waits for that a moment longer than the deadline.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::outcome::{DeadlineReason, Outcome, ShedReason};
use fp_core::record::{LogLine, Trigger, phase_span_id, second_run_span_id};
use fp_sandbox::protocol::{AnswerHead, CallHead, FailureHead, FailureKind};
use fp_sandbox::{Answer, Call, CallError};
use http::HeaderMap;

use super::flight::Flight;
use super::{Fault, hedge};
use crate::pool::{Asked, Lease, Refusal, Wanted};

/// How much longer than the deadline the platform waits for the worker's own word about it, which
/// comes at once unless the handler resists: some scheduler quanta of a busy host.
const EXPIRY_SLACK: Duration = Duration::from_millis(60);

/// How an attempt ended.
pub(crate) enum Ended {
    Whole { head: AnswerHead, body: Bytes, logs: Vec<LogLine> },
    Stream { head: AnswerHead },
    Fault { fault: Box<Fault>, logs: Vec<LogLine>, failure: Option<Box<FailureHead>> },
}

/// Gets a worker and runs the handler on it. A worker that was gone before the call reached it
/// is replaced: what never started may be tried again, whatever the function does.
pub(crate) async fn run(flight: &mut Flight) -> Ended {
    if let Err(fault) = enter(flight) {
        flight.not_dispatched();
        return Ended::Fault { fault, logs: Vec::new(), failure: None };
    }
    loop {
        match lease(flight).await {
            Ok(lease) => flight.dispatched(lease),
            Err(fault) => {
                flight.not_dispatched();
                return Ended::Fault { fault: Box::new(fault), logs: Vec::new(), failure: None };
            }
        }
        hedge::begin(flight);
        if let Some(ended) = call(flight).await {
            hedge::finish(flight, hedge::end_of(&ended));
            return ended;
        }
        flight.never_started();
    }
}

/// Asks the version's breaker. What was accepted for later is not refused for what may be over by then.
fn enter(flight: &mut Flight) -> Result<(), Box<Fault>> {
    if flight.request.trigger == Trigger::Async {
        return Ok(());
    }
    let broken = match flight.function.pool.ask_breaker() {
        Ok(probe) => {
            flight.probe = probe;
            return Ok(());
        }
        Err(broken) => broken,
    };
    let (name, (hard, all)) = (&flight.function.name, broken.evidence);
    let detail = format!(
        "{hard} of the latest {all} calls of {name} crashed or timed out; it is asked again, by one call at a time, after the time in Retry-After"
    );
    let outcome = Outcome::Shed(ShedReason::BreakerOpen);
    flight.note_refused(outcome, None, Some(broken.retry_after));
    Err(Box::new(Fault { retry_after: Some(broken.retry_after), ..fault(flight, outcome, "queue", detail) }))
}

/// The version that is called, where its workers were started for an earlier one.
fn later_version(flight: &Flight) -> Option<u32> {
    let version = flight.function.version;
    (version != flight.function.pool.spec().version).then_some(version.0)
}

/// Waits for a worker of the function's newest version.
async fn lease(flight: &mut Flight) -> Result<Lease, Fault> {
    let criticality = flight.record().criticality;
    let wanted = Wanted { criticality, caller: flight.request.caller, deadline: flight.deadline };
    loop {
        let granted = match flight.function.pool.ask(wanted) {
            Asked::Granted(lease) => return Ok(lease),
            Asked::Refused(refusal) => Err(refusal),
            Asked::Queued(queued) => {
                flight.show();
                flight.note_queued(queued.reckoned());
                queued.granted().await
            }
        };
        match granted {
            Ok(lease) => return Ok(lease),
            Err(Refusal::Refused { outcome, retry_after, why, reckoned }) => {
                let fault = refused(flight, outcome, retry_after, why.as_deref());
                flight.note_refused(outcome, reckoned, fault.retry_after);
                return Err(fault);
            }
            Err(Refusal::Moved) => {
                let tenant = flight.function.tenant.clone();
                let newest = flight.invoker.catalog.get(&tenant, &flight.function.name);
                // A later function of the name, perhaps of a later tenant of the name, is another one.
                let Some(newest) = newest.filter(|newest| newest.order == flight.function.order) else {
                    return Err(deleted(flight));
                };
                flight.record().version = newest.version;
                flight.function = newest;
            }
        }
    }
}

pub(crate) fn fault(flight: &Flight, outcome: Outcome, phase: &'static str, mut detail: String) -> Fault {
    if let Some(mask) = flight.mask() {
        // What broke the protocol, or a header's name: a worker's words.
        mask.string(&mut detail);
    }
    Fault {
        outcome,
        detail: detail.into(),
        exception: None,
        phase,
        limit_hit: None,
        limit_bytes: None,
        retry_after: None,
        caller_was_short: flight.caller_was_short,
    }
}

/// The function of a queued call is no more.
pub(crate) fn deleted(flight: &Flight) -> Fault {
    let detail = format!("function {} was deleted while the call was queued", flight.function.name);
    fault(flight, Outcome::Shed(ShedReason::Priority), "queue", detail)
}

fn refused(flight: &Flight, outcome: Outcome, retry_after: Duration, why: Option<&str>) -> Fault {
    let name = &flight.function.name;
    let max = flight.function.settings.scaling.max;
    let detail = match outcome {
        Outcome::DeadlineExceeded(DeadlineReason::Infeasible) => {
            format!(
                "the wait for a worker of {name} and its usual run time do not fit into the time left; give more time, or raise scaling.max ({max})"
            )
        }
        Outcome::DeadlineExceeded(_) if flight.request.time_given.is_some_and(|given| given.time.is_zero()) => {
            "the caller gave no time at all: its deadline of 0 had passed when the call came; send a longer one"
                .to_owned()
        }
        Outcome::DeadlineExceeded(_) => {
            format!(
                "the deadline passed while the call waited for a worker of {name}; give more time, or raise scaling.max ({max})"
            )
        }
        Outcome::StartFailed => {
            format!("no worker of {name} can be started: {}", why.unwrap_or("the last start failed"))
        }
        Outcome::Shed(reason) => {
            let reason = Outcome::Shed(reason).reason().unwrap_or_default();
            format!(
                "{name} is overloaded ({reason}); try again after the time in Retry-After, or raise scaling.max ({max})"
            )
        }
        Outcome::QuotaExceeded => {
            format!("no worker of {name} may be started: {}", why.unwrap_or("a quota is spent"))
        }
        _ => format!("the call to {name} was refused"),
    };
    let later = matches!(outcome, Outcome::Shed(_) | Outcome::StartFailed | Outcome::QuotaExceeded);
    let phase =
        if matches!(outcome, Outcome::StartFailed | Outcome::QuotaExceeded) { "start" } else { "queue" };
    let limit_hit = (outcome == Outcome::QuotaExceeded).then_some("memory");
    Fault { retry_after: later.then_some(retry_after), limit_hit, ..fault(flight, outcome, phase, detail) }
}

/// Runs the handler on the leased worker; none if the call did not reach it.
async fn call(flight: &mut Flight) -> Option<Ended> {
    let request = flight.request.clone();
    let correlation_id = &request.correlation_id;
    let (id, trace_id) = (flight.id.text(), flight.trace.trace_id.text());
    let span_id = phase_span_id(flight.trace.span_id, "run").text();
    let second_span_id = second_run_span_id(flight.trace.span_id).text();
    let joined = Joined::of(&request.headers);
    let pairs = joined.pairs(&request.headers);
    let params: Vec<(&str, &str)> =
        request.params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let clock = &flight.invoker.clock;
    let limits = &flight.function.settings.limits;
    let (log_limit, response_limit) = (limits.logs.as_u64() as usize, limits.response.as_u64() as usize);
    let expiry = clock.instant(flight.deadline + EXPIRY_SLACK);
    let secrets = flight.function.pool.secrets().map(|secrets| secrets.frames());
    let version = later_version(flight);
    let call = |serial, span_id| Call {
        serial,
        head: CallHead {
            verb: &request.verb,
            path: &request.path,
            query: &request.query,
            headers: &pairs,
            path_params: &params,
            invocation_id: &id,
            correlation_id,
            trace_id: &trace_id,
            span_id,
            trace_state: flight.trace.state.as_deref().unwrap_or_default(),
            remaining_ms: (flight.deadline.saturating_sub(clock.now()).as_millis() as u64).max(1),
            trace_flags: flight.trace.flags(),
            version,
            // The function's newest version runs, which may not be the one that was called.
            auth: request.auth.as_deref().filter(|_| flight.function.settings.is_guarded()),
        },
        body: request.body.clone(),
        secrets: secrets.clone(),
        log_limit,
        response_limit,
    };
    let lease = flight.lease.as_mut().expect("a call is made on a lease");
    let answer = {
        let first = call(lease.serial(), &*span_id);
        let mut first = pin!(lease.call(first));
        match flight.hedge.as_deref_mut().filter(|hedge| hedge.due().is_some()) {
            Some(hedge) => {
                let second = |serial| call(serial, &*second_span_id);
                hedge::race(hedge, (&flight.function, clock), expiry, first, second).await
            }
            None => tokio::select! {
                biased;
                answer = &mut first => Some(answer),
                () = tokio::time::sleep_until(expiry) => None,
            },
        }
    };
    hedge::change_places(flight);
    Some(match answer {
        Some(Err(CallError::NeverStarted { .. })) => return None,
        Some(Ok(Answer::Whole(whole))) => match unusable_header(&whole.head) {
            None => Ended::Whole { head: whole.head, body: whole.body, logs: whole.logs },
            Some(name) => {
                Ended::Fault { fault: Box::new(bad_header(flight, &name)), logs: whole.logs, failure: None }
            }
        },
        Some(Ok(Answer::Stream { head })) => match unusable_header(&head) {
            None => Ended::Stream { head },
            Some(name) => {
                let lease = flight.lease.as_mut().expect("a call is made on a lease");
                lease.give_up();
                let logs = lease.take_logs();
                Ended::Fault { fault: Box::new(bad_header(flight, &name)), logs, failure: None }
            }
        },
        Some(Ok(Answer::Failed { mut failure, logs })) => {
            flight.mask_failure(&mut failure);
            let lease = flight.lease.as_mut().expect("a call is made on a lease");
            if is_used_up(&failure) {
                lease.spoil();
            }
            Ended::Fault { fault: Box::new(failed(flight, &failure)), logs, failure: Some(failure) }
        }
        Some(Err(error)) => {
            let lease = flight.lease.as_mut().expect("a call is made on a lease");
            lease.spoil();
            let fault = Box::new(broken(flight, &error));
            Ended::Fault { fault, logs: error.into_logs(), failure: None }
        }
        None => {
            let lease = flight.lease.as_mut().expect("a call is made on a lease");
            lease.spoil();
            let logs = lease.take_logs();
            Ended::Fault { fault: Box::new(expired(flight)), logs, failure: None }
        }
    })
}

/// The first header of an answer that HTTP cannot carry.
fn unusable_header(head: &AnswerHead) -> Option<String> {
    let usable = |(name, value): &(String, String)| {
        http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(value).is_ok()
    };
    head.headers.iter().find(|pair| !usable(pair)).map(|(name, _)| name.clone())
}

fn bad_header(flight: &Flight, name: &str) -> Fault {
    let detail = format!(
        "the handler's answer has a header {name:?} that HTTP cannot carry; names are tokens, values one line of text"
    );
    fault(flight, Outcome::FunctionError, "run", detail)
}

/// The time ran out while the handler ran.
pub(crate) fn expired(flight: &Flight) -> Fault {
    let given = Duration::from_millis(flight.record.as_ref().map_or(0, |record| record.deadline_ms));
    let given = humantime::format_duration(given);
    if flight.callers_deadline {
        let detail = format!("the caller gave {given}, and the handler still ran when it was over");
        return fault(flight, Outcome::DeadlineExceeded(DeadlineReason::ExpiredRunning), "run", detail);
    }
    let detail = format!(
        "the handler did not answer within its timeout of {given}; raise timeout in function.toml, or make it faster"
    );
    fault(flight, Outcome::Timeout, "run", detail)
}

/// The worker's word about why the handler did not answer.
pub(crate) fn failed(flight: &Flight, failure: &FailureHead) -> Fault {
    let exception = (!failure.exception_type.is_empty())
        .then(|| (failure.exception_type.clone(), failure.message.clone()));
    let named = match &exception {
        Some((kind, message)) => format!("the handler raised {kind}: {message}"),
        None => format!("the handler failed: {}", failure.message),
    };
    match failure.kind {
        FailureKind::Exception | FailureKind::BadHandler => {
            let limit_hit = failure.limit_hit.as_deref().and_then(known_limit);
            Fault { exception, limit_hit, ..fault(flight, Outcome::FunctionError, "run", named) }
        }
        FailureKind::DeadlineExceeded => expired(flight),
        FailureKind::Cancelled => fault(flight, Outcome::Cancelled, "run", "the call was cancelled".into()),
        FailureKind::ResponseTooLarge => {
            let limit_bytes = Some(flight.function.settings.limits.response.as_u64());
            let fault = fault(flight, Outcome::ResponseTooLarge, "run", failure.message.clone());
            Fault { limit_bytes, ..fault }
        }
    }
}

/// A limit's word from the worker as our own.
fn known_limit(word: &str) -> Option<&'static str> {
    ["memory", "tasks", "files", "disk"].into_iter().find(|known| *known == word)
}

/// What a call used up stays used up for the next one: processes that it left, open files, a full
/// `/tmp`. Memory comes back with the exception.
fn is_used_up(failure: &FailureHead) -> bool {
    failure.limit_hit.as_deref().is_some_and(|limit| limit != "memory")
}

/// The worker is gone, or of no use any more.
pub(crate) fn broken(flight: &Flight, error: &CallError) -> Fault {
    if flight.invoker.clock.now() >= flight.deadline {
        return expired(flight);
    }
    broken_stream(flight, error)
}

/// As [`broken`], once the answer has begun: its deadline was kept.
pub(crate) fn broken_stream(flight: &Flight, error: &CallError) -> Fault {
    let outcome = match error {
        CallError::OutOfMemory { .. } => Outcome::OutOfMemory,
        // With the launcher, not by itself.
        CallError::Crashed { exit, .. } | CallError::NeverStarted { exit }
            if exit.ended == fp_sandbox::Ended::Lost =>
        {
            Outcome::PlatformError
        }
        CallError::Crashed { .. }
        | CallError::NeverStarted { .. }
        | CallError::Protocol { .. }
        | CallError::EndedForAnother { .. } => Outcome::Crashed,
        // Not for what the function did within its limits.
        CallError::MemoryShort { .. } | CallError::Host { .. } | CallError::NotReusable => {
            Outcome::PlatformError
        }
    };
    let limit_hit = error.limit_hit().map(fp_sandbox::LimitHit::word);
    Fault { limit_hit, ..fault(flight, outcome, "run", error.to_string()) }
}

/// Header values that cannot be borrowed as they are: duplicates, which are joined by ", ", and
/// bytes above ASCII, which HTTP leaves as Latin-1.
struct Joined(Vec<(Arc<str>, String)>);

impl Joined {
    fn of(headers: &HeaderMap) -> Self {
        let mut joined = Vec::new();
        if headers.len() == headers.keys_len() && headers.values().all(|value| value.to_str().is_ok()) {
            return Self(joined);
        }
        for name in headers.keys() {
            let mut values = headers.get_all(name).iter();
            let (first, second) = (values.next(), values.next());
            let plain = second.is_none() && first.is_some_and(|value| value.to_str().is_ok());
            if !plain {
                let all: Vec<_> =
                    headers.get_all(name).iter().map(|value| latin1(value.as_bytes())).collect();
                let glue = if name == http::header::COOKIE { "; " } else { ", " };
                joined.push((name.as_str().into(), all.join(glue)));
            }
        }
        Self(joined)
    }

    fn pairs<'a>(&'a self, headers: &'a HeaderMap) -> Vec<(&'a str, &'a str)> {
        if self.0.is_empty() {
            return headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()))
                .collect();
        }
        let mut pairs = Vec::with_capacity(headers.keys_len());
        for name in headers.keys() {
            let joined = self.0.iter().find(|(known, _)| **known == *name.as_str());
            let value = match joined {
                Some((_, value)) => value.as_str(),
                None => headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default(),
            };
            pairs.push((name.as_str(), value));
        }
        pairs
    }
}

/// The text of a header's value as a handler gets it: UTF-8 where it is, else Latin-1.
pub(crate) fn latin1(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}
