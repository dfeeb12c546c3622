//! Degraded answers: what a caller gets instead of a refusal, where its function says so.
//!
//! [`fp_core::fallback`] decides what is a refusal and what may be shared; here that is carried out.
//! The call stays what it was, refused: its record, its objective and its trace say so, with how it
//! was answered all the same. Another function that answers is a call of its own, below this one in
//! the trace, with the time that is left; its own fallback is not asked. Where there is no degraded
//! answer either, the refusal goes out, and the call's logs say why.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::FunctionName;
use fp_core::deadline::{DeadlineFrom, Given};
use fp_core::fallback::{self, Asked, Sharing};
use fp_core::record::{LogLine, LogSource, Trigger, phase_span_id};
use fp_core::settings::{Fallback, OnDisconnect};
use fp_sandbox::protocol::{AnswerHead, BodyKind};
use http::HeaderMap;
use serde_json::{Value, json};

use super::flight::Flight;
use super::{Completed, Fault, Invoker, Reply, Request, attempt, over_quota};
use crate::catalog::Deployed;
use crate::last_good::Shelf;

/// Whether another answer is to be looked for.
pub(super) fn is_due(flight: &Flight, fault: &Fault) -> bool {
    flight.function.settings.latency.fallback.is_some()
        // What was accepted for later has nobody who waits for an answer.
        && flight.request.trigger == Trigger::Http
        && fault.phase != "run"
        && fallback::is_refusal(fault.outcome)
        // A function that was deleted meanwhile has nothing to fall back to.
        && !is_deleted(flight)
}

fn is_deleted(flight: &Flight) -> bool {
    let live = flight.invoker.catalog.get(&flight.function.tenant, &flight.function.name);
    live.is_none_or(|live| live.order != flight.function.order)
}

/// The answer of a call that was refused.
pub(super) async fn answer(mut flight: Flight, refusal: Fault) -> Completed {
    let answered = match flight.function.settings.latency.fallback.clone() {
        Some(Fallback::Stale(_)) => last_good(&flight),
        Some(Fallback::Function(name)) => other_function(&mut flight, &name).await,
        None => return flight.fail(refusal, Vec::new(), None),
    };
    match answered {
        Ok((reply, how)) => instead(flight, &refusal, reply, how),
        Err(why) => {
            let text = format!("[no degraded answer: {why}]\n").into();
            let time_us = flight.invoker.clock.wall_now_us();
            let line = LogLine { time_us, source: LogSource::Platform, level: None, text };
            flight.fail(refusal, vec![line], None)
        }
    }
}

/// Closes the record as that of a refusal that was answered all the same.
fn instead(mut flight: Flight, refusal: &Fault, reply: Reply, how: String) -> Completed {
    flight.end_run();
    let leftovers = flight.note_fault(refusal, Vec::new(), None);
    let record = flight.record();
    let (status, bytes) = match &reply {
        Reply::Whole { head, body } => (status_of(head), body.len() as u64),
        Reply::Stream { head, .. } => (status_of(head), 0),
        Reply::Fault(_) => (record.status, 0),
    };
    record.status = status;
    record.response_bytes = bytes;
    record.degraded = Some(how.as_str().into());
    let (finished, phases) = flight.close(leftovers, None);
    let completed = flight.completed(reply, phases, Some(finished));
    Completed { degraded: Some(how), ..completed }
}

fn status_of(head: &AnswerHead) -> u16 {
    head.status.unwrap_or(if head.kind == BodyKind::None { 204 } else { 200 })
}

/// An answer, and how it came about; or why there is none.
type Found = Result<(Reply, String), String>;

/// The last good answer to the same question.
fn last_good(flight: &Flight) -> Found {
    let shelf = flight.function.last_good.as_ref().ok_or("nothing is kept")?;
    if !may_be_shared(&flight.function, &flight.request) {
        return Err("requests like this one share no answers".into());
    }
    let key = key_of(shelf, &flight.request);
    match shelf.get(flight.invoker.clock.now(), &key) {
        Some((kept, age)) => {
            let how = format!("stale; age={}", age.as_secs());
            Ok((Reply::Whole { head: kept.head, body: kept.body }, how))
        }
        None => {
            let age = humantime::format_duration(shelf.most_age);
            Err(format!("there was no good answer to the same request in the last {age}"))
        }
    }
}

/// Keeps a handler's answer, where its function wants that and it may be given to others; or takes
/// away what it has overtaken.
pub(super) fn keep(flight: &Flight, head: &AnswerHead, body: &Bytes) {
    let Some(shelf) = &flight.function.last_good else { return };
    let status = status_of(head);
    // An error says nothing of what was good; that a thing is gone, or not for everybody, does.
    if status >= 500 || !may_be_shared(&flight.function, &flight.request) {
        return;
    }
    let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let base = fallback::base_key(asked(&flight.function, &flight.request));
    let named = match fallback::sharing(status, headers) {
        Sharing::Nobody => return shelf.remove(&key_of(shelf, &flight.request)),
        Sharing::Alike => None,
        Sharing::Public(named) => Some(named),
    };
    shelf.set_public(base, named.as_deref());
    shelf.put(flight.invoker.clock.now(), key_of(shelf, &flight.request), head, body);
}

fn asked<'a>(function: &Deployed, request: &'a Request) -> Asked<'a> {
    Asked {
        verb: &request.verb,
        path: &request.path,
        params: &request.params,
        query: &request.query,
        body_bytes: request.body.len(),
        is_authenticated: request.auth.is_some() || function.settings.is_guarded(),
    }
}

fn may_be_shared(function: &Deployed, request: &Request) -> bool {
    fallback::may_be_shared(asked(function, request), lines(&request.headers))
}

fn key_of(shelf: &Shelf, request: &Request) -> Box<[u8]> {
    // Who is authenticated does not come this far.
    let asked = Asked {
        verb: &request.verb,
        path: &request.path,
        params: &request.params,
        query: &request.query,
        body_bytes: 0,
        is_authenticated: false,
    };
    let named = shelf.public(&fallback::base_key(asked));
    fallback::key(asked, lines(&request.headers), named.as_deref())
}

fn lines(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// The answer of another function of the tenant to the same request.
async fn other_function(flight: &mut Flight, name: &FunctionName) -> Found {
    let invoker = flight.invoker.clone();
    let other = invoker.catalog.get(&flight.function.tenant, name);
    let other = other.ok_or_else(|| format!("function {name} does not exist"))?;
    if other.order == flight.function.order {
        return Err(format!("{name} is this function itself"));
    }
    let limit = other.settings.limits.body;
    if flight.request.body.len() as u64 > limit.as_u64() {
        return Err(format!("the body is larger than {limit}, the most that {name} takes"));
    }
    let now = invoker.clock.now();
    let left = flight.deadline.saturating_sub(now);
    if left.is_zero() {
        return Err(format!("no time is left for {name}"));
    }
    // What was refused is under way no more; what answers for it is.
    drop(flight.entry.take());
    flight.run_began = Some(now);
    let request = Arc::new(handed_on(flight, &other, now, left));
    match call_once(&invoker, other, request).await.reply {
        Reply::Fault(fault) => Err(format!("{name} did not answer: {}", fault.outcome.word())),
        Reply::Whole { head, .. } | Reply::Stream { head, .. } if status_of(&head) >= 500 => {
            Err(format!("{name} answered with status {}", status_of(&head)))
        }
        reply => Ok((reply, format!("fallback; function={name}"))),
    }
}

/// As [`Invoker::call`], but what is refused stays refused.
async fn call_once(invoker: &Arc<Invoker>, function: Arc<Deployed>, request: Arc<Request>) -> Completed {
    let finish = function.settings.on_disconnect == OnDisconnect::Finish;
    let mut flight = Flight::open(invoker, function, request);
    if let Err(refused) = flight.admit() {
        return over_quota(flight, &refused);
    }
    let whole = async move {
        let ended = attempt::run(&mut flight).await;
        Invoker::land(flight, ended).await
    };
    if !finish {
        return whole.await;
    }
    invoker.endings.spawn(whole).await.expect("a flight does not panic")
}

/// The request as the other function gets it: from this one, now, and with the time that is left.
fn handed_on(flight: &Flight, other: &Deployed, now: Duration, left: Duration) -> Request {
    let request = &*flight.request;
    let record = flight.record.as_ref();
    let from = record.map_or(DeadlineFrom::Timeout, |record| record.deadline_from);
    Request {
        trace: Some(flight.trace.with_span(phase_span_id(flight.trace.span_id, "run"))),
        link: None,
        time_given: Some(Given {
            time: left,
            // The function's own timeout is, to another, what its caller gave.
            from: if from == DeadlineFrom::Timeout { DeadlineFrom::XRequestTimeout } else { from },
        }),
        criticality: record.map(|record| record.criticality),
        called_by: Some(flight.function.name.clone()),
        arrived: now,
        upload: Duration::ZERO,
        auth: facts_for(flight, other),
        ..request.clone()
    }
}

/// Who calls, to a function that asks: the caller, where both ask alike; else the function whose
/// fallback it is, for functions of a tenant let each other in.
fn facts_for(flight: &Flight, other: &Deployed) -> Option<Arc<Value>> {
    let (own, others) = (&flight.function.settings, &other.settings);
    if !others.is_guarded() {
        return None;
    }
    let known = flight.request.auth.clone().filter(|_| own.is_guarded() && own.auth == others.auth);
    let sibling = || Arc::new(json!({ "kind": "function", "function": flight.function.name.as_str() }));
    Some(known.unwrap_or_else(sibling))
}
