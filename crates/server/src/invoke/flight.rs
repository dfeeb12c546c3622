//! A call in flight: what is known of it so far, and the one record at its end.
//!
//! Exactly one of [`Flight::complete`], [`Flight::fail`], the stream's end or, when the caller
//! has left, the drop closes the record. A dropped flight whose handler runs interrupts it and
//! closes the record once the handler is gone, so that its last words are kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::deadline::{DeadlineFrom, Given};
use fp_core::decided;
use fp_core::hedge::AttemptEnd;
use fp_core::ids::SpanId;
use fp_core::outcome::Outcome;
use fp_core::pool::Reckoned;
use fp_core::record::{
    Invocation, Kept, Link, LogLine, LogSource, Phases, Span, SpanEvent, phase_span_id, second_run_span_id,
};
use fp_core::settings::Criticality;
use fp_core::trace_context::TraceContext;
use fp_core::{InvocationId, TraceId};
use fp_sandbox::protocol::{AnswerHead, BodyKind, FailureHead, Usage, WorkerSpan};

use super::hedge::{self, HedgedCall};
use super::{Completed, Fault, Invoker, Reply, Request, output};
use crate::catalog::Deployed;
use crate::history::{Finished, Running};
use crate::pool::{Lease, Probe};
use crate::quotas::{CallEntry, Refused};
use crate::secrets::Mask;

/// Time for an interrupted handler's `finally` blocks before its worker is killed: enough for a
/// rollback over a network, short enough that `max` workers are not held up by it.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Status in records of a caller that left (nginx's convention; never sent).
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// How a call ended, in the worker's words.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    pub(crate) logs: Vec<LogLine>,
    pub(crate) spans: Vec<WorkerSpan>,
    pub(crate) usage: Usage,
}

/// What a call is known by: made at its arrival, or, for an accepted one, promised before.
#[derive(Debug)]
pub(crate) struct Promise {
    pub(crate) id: InvocationId,
    /// The root span.
    pub(crate) trace: TraceContext,
    /// Unix time in microseconds.
    pub(crate) accepted_us: u64,
}

impl Promise {
    fn of(invoker: &Invoker, request: &Request) -> Self {
        let accepted_us = invoker.clock.wall_us(request.arrived);
        let id = InvocationId::from_parts(accepted_us / 1000, fastrand::u128(..));
        Self { id, trace: root_span(request, accepted_us), accepted_us }
    }
}

/// A call that has not ended.
pub(crate) struct Flight {
    pub(crate) invoker: Arc<Invoker>,
    pub(crate) function: Arc<Deployed>,
    pub(crate) request: Arc<Request>,
    pub(crate) id: InvocationId,
    /// The root span.
    pub(crate) trace: TraceContext,
    /// When the answer is due, on the platform's clock.
    pub(crate) deadline: Duration,
    /// The caller's time is what runs out first, not the function's timeout.
    pub(crate) callers_deadline: bool,
    /// The caller gave less time than the function promises.
    pub(crate) caller_was_short: bool,
    pub(crate) lease: Option<Lease>,
    /// Its second attempt, or why there is none; none where the function is never hedged.
    pub(crate) hedge: Option<Box<HedgedCall>>,
    /// When the handler began, on the platform's clock.
    pub(crate) run_began: Option<Duration>,
    pub(crate) record: Option<Box<Invocation>>,
    /// How long an accepted call waited before it was opened; part of its queue phase.
    waited: Duration,
    /// When the current phase began.
    mark: Duration,
    /// Its place in the quotas.
    pub(crate) entry: Option<CallEntry>,
    /// It decides whether its version's breaker closes.
    pub(crate) probe: Option<Probe>,
    /// It is among the running calls.
    is_shown: bool,
    /// What was decided about it, for the trace.
    decisions: Vec<SpanEvent>,
}

impl Flight {
    /// Opens the record. The call is visible as soon as it waits or runs: one that is refused at once is
    /// first seen when it has ended.
    pub(crate) fn open(invoker: &Arc<Invoker>, function: Arc<Deployed>, request: Arc<Request>) -> Self {
        Self::open_as(invoker, function, request, None)
    }

    /// As [`open`](Self::open), with what an accepted call was promised.
    pub(crate) fn open_as(
        invoker: &Arc<Invoker>,
        function: Arc<Deployed>,
        request: Arc<Request>,
        promise: Option<Promise>,
    ) -> Self {
        let now = invoker.clock.now();
        let waited = promise
            .as_ref()
            .map_or(0, |promise| invoker.clock.wall_now_us().saturating_sub(promise.accepted_us));
        let promise = promise.unwrap_or_else(|| Promise::of(invoker, &request));
        let record = Self::first_record(&function, &request, &promise, now);
        let Given { time: given, from } = time_given(&function, &request);
        let callers_deadline = from != DeadlineFrom::Timeout;
        Self {
            invoker: invoker.clone(),
            deadline: request.arrived + given,
            callers_deadline,
            caller_was_short: record.caller_was_short,
            function,
            request,
            id: promise.id,
            trace: promise.trace,
            lease: None,
            hedge: None,
            run_began: None,
            record: Some(Box::new(record)),
            waited: Duration::from_micros(waited),
            mark: now,
            entry: None,
            probe: None,
            is_shown: false,
            decisions: Vec::new(),
        }
    }

    /// Makes an accepted call visible before it is opened.
    pub(crate) fn announce(
        invoker: &Arc<Invoker>,
        function: &Deployed,
        request: &Request,
        promise: &Promise,
    ) {
        let record = Self::first_record(function, request, promise, request.arrived);
        invoker.history.begin(running(&record));
    }

    fn first_record(function: &Deployed, request: &Request, promise: &Promise, now: Duration) -> Invocation {
        let settings = &function.settings;
        let mask = function.pool.secrets().map(|secrets| secrets.mask());
        let shown = |text: &Arc<str>| {
            let masked = mask.as_ref().and_then(|mask| mask.masked(text));
            masked.map_or_else(|| text.clone(), Into::into)
        };
        let given = time_given(function, request);
        let trace = &promise.trace;
        Invocation {
            id: promise.id,
            tenant: function.tenant.clone(),
            function: function.name.clone(),
            version: function.version,
            event_type: request.event_type.clone(),
            trigger: request.trigger,
            verb: request.verb.clone(),
            path: shown(&request.path),
            correlation_id: shown(&request.correlation_id),
            trace_id: trace.trace_id,
            span_id: trace.span_id,
            parent_span_id: request.trace.as_ref().map(|parent| parent.span_id),
            called_by: request.called_by.clone(),
            link: request.link.as_ref().map(|from| Link { trace_id: from.trace_id, span_id: from.span_id }),
            started_us: promise.accepted_us,
            phases: Phases { route: nanos(now.saturating_sub(request.arrived)), ..Phases::default() },
            outcome: Outcome::Cancelled,
            blame: None,
            caller_was_short: request.time_given.is_some_and(|given| is_short(function, given.time)),
            status: CLIENT_CLOSED_REQUEST,
            error: None,
            cold: false,
            attempts: 0,
            worker: None,
            criticality: class(settings.criticality, request.criticality),
            deadline_ms: given.time.as_millis() as u64,
            deadline_from: given.from,
            queue_length: 0,
            request_bytes: request.body.len() as u64,
            response_bytes: 0,
            log_bytes: 0,
            cpu_us: 0,
            memory_peak_kib: 0,
            limit_hit: None,
            latency_met: None,
            degraded: None,
            weight: 1,
        }
    }

    /// What nothing that is kept or told of this call may show.
    pub(crate) fn mask(&self) -> Option<Arc<Mask>> {
        self.function.pool.secrets().map(|secrets| secrets.mask())
    }

    /// The worker's words about a failure, as they may be told.
    pub(crate) fn mask_failure(&self, failure: &mut FailureHead) {
        if let Some(mask) = self.mask() {
            mask.string(&mut failure.exception_type);
            mask.string(&mut failure.message);
            mask.string(&mut failure.traceback);
        }
    }

    pub(crate) fn record(&mut self) -> &mut Invocation {
        self.record.as_mut().expect("the record is open until the flight is closed")
    }

    /// Enters the call into the quotas of its function and tenant, until it is over.
    pub(crate) fn admit(&mut self) -> Result<(), Refused> {
        self.entry = self.function.pool.account().begin(self.invoker.clock.now())?;
        Ok(())
    }

    /// The call waits: it is among the running ones from here on.
    pub(crate) fn show(&mut self) {
        if !std::mem::replace(&mut self.is_shown, true) {
            let running = running(self.record());
            self.invoker.history.begin(running);
        }
    }

    /// The wait for a worker is over.
    pub(crate) fn dispatched(&mut self, lease: Lease) {
        let now = self.invoker.clock.now();
        let waited = now.saturating_sub(self.mark);
        let start = lease.start().map_or(Duration::ZERO, |start| start.min(waited));
        let worker = lease.worker_id();
        let before = self.waited;
        let record = self.record();
        record.phases.queue = nanos(before + waited - start);
        record.phases.start = nanos(start);
        record.cold = lease.start().is_some();
        record.queue_length = lease.queue_length;
        record.attempts = 1;
        record.worker = Some(worker);
        if std::mem::replace(&mut self.is_shown, true) {
            self.invoker.history.set_running(self.id, worker);
        } else {
            let running = running(self.record());
            self.invoker.history.begin_on(running, worker);
        }
        self.lease = Some(lease);
        self.run_began = Some(now);
        self.mark = now;
    }

    /// The worker was gone before the call reached it: back to waiting.
    pub(crate) fn never_started(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            lease.spoil();
        }
        self.hedge = None;
        self.waited = Duration::from_nanos(self.record().phases.queue);
        self.run_began = None;
    }

    /// The wait for a worker ended without one.
    pub(crate) fn not_dispatched(&mut self) {
        let now = self.invoker.clock.now();
        let waited = nanos(self.waited + now.saturating_sub(self.mark));
        self.record().phases.queue = waited;
        self.mark = now;
    }

    /// An accepted call that an earlier life began. When that ended nobody knows: the call is taken
    /// to have run until now.
    pub(crate) fn cut_off(&mut self, accepted_us: u64, started_us: u64) {
        let now_us = self.invoker.clock.wall_now_us();
        let nanos_between = |from: u64, to: u64| to.saturating_sub(from).saturating_mul(1000);
        let record = self.record();
        record.phases.queue = nanos_between(accepted_us, started_us.min(now_us));
        record.phases.run = nanos_between(started_us, now_us);
    }

    /// The handler is done, or given up.
    pub(crate) fn end_run(&mut self) {
        if let Some(began) = self.run_began {
            self.record().phases.run = nanos(self.invoker.clock.now().saturating_sub(began));
        }
    }

    /// The handler has ended in order, and so its worker may be compared with its siblings.
    pub(crate) fn judge(&mut self, failed: bool) {
        let why = self.lease.as_mut().and_then(|lease| lease.judge(failed));
        if let Some(why) = why {
            self.decisions.push(decided::worker_replaced(self.now_ns(), &why));
        }
    }

    /// The call waits.
    pub(super) fn note_queued(&mut self, reckoned: &Reckoned) {
        self.decisions.push(decided::queued(self.now_ns(), reckoned));
    }

    /// The call is refused.
    pub(super) fn note_refused(
        &mut self,
        outcome: Outcome,
        reckoned: Option<Reckoned>,
        retry_after: Option<Duration>,
    ) {
        let now = self.invoker.clock.now();
        // At the door nobody has waited, whatever the clock says.
        let waited = if reckoned.is_some() { Duration::ZERO } else { now.saturating_sub(self.mark) };
        let left = self.deadline.saturating_sub(now);
        let refused = decided::Refused { outcome, reckoned, waited, left, retry_after };
        self.decisions.push(decided::refused(self.now_ns(), &refused));
    }

    /// Unix time in nanoseconds.
    fn now_ns(&self) -> u64 {
        self.invoker.clock.wall_now_us() * 1000
    }

    /// The handler is done with its worker; whether calls waited for it.
    pub(crate) fn release(&mut self) -> bool {
        let waiting = self.function.pool.has_queue();
        drop(self.lease.take());
        waiting
    }

    /// Closes the record of a complete answer.
    pub(crate) fn complete(mut self, mut head: AnswerHead, body: Bytes, logs: Vec<LogLine>) -> Completed {
        let status = head.status.unwrap_or(if head.kind == BodyKind::None { 204 } else { 200 });
        let outcome = if status < 500 { Outcome::Ok } else { Outcome::FunctionError };
        let record = self.record();
        record.outcome = outcome;
        record.status = status;
        record.response_bytes = body.len() as u64;
        let spans = std::mem::take(&mut head.spans);
        let result = (self.request.trigger == fp_core::record::Trigger::Async).then(|| text_of(&body));
        let (finished, phases) = self.close(Leftovers { logs, spans, usage: head.usage }, result);
        self.completed(Reply::Whole { head, body }, phases, Some(finished))
    }

    /// Closes the record of a call without an answer.
    pub(crate) fn fail(
        mut self,
        fault: Fault,
        logs: Vec<LogLine>,
        failure: Option<Box<FailureHead>>,
    ) -> Completed {
        self.end_run();
        let leftovers = self.note_fault(&fault, logs, failure);
        let (finished, phases) = self.close(leftovers, None);
        self.settle_later();
        self.completed(Reply::Fault(Box::new(fault)), phases, Some(finished))
    }

    /// Writes what is known of a fault into the record.
    pub(crate) fn note_fault(
        &mut self,
        fault: &Fault,
        logs: Vec<LogLine>,
        failure: Option<Box<FailureHead>>,
    ) -> Leftovers {
        let status = (self.invoker.status_of)(fault.outcome);
        let record = self.record();
        record.outcome = fault.outcome;
        record.status = if fault.outcome == Outcome::Cancelled { CLIENT_CLOSED_REQUEST } else { status };
        record.limit_hit = fault.limit_hit.map(Into::into);
        record.error = Some(match &fault.exception {
            Some((kind, message)) => format!("{kind}: {message}").into(),
            None => fault.detail.as_ref().into(),
        });
        let mut leftovers = Leftovers { logs, ..Leftovers::default() };
        if let Some(failure) = failure {
            leftovers.spans = failure.spans;
            leftovers.usage = failure.usage;
            if !failure.traceback.is_empty() {
                leftovers.logs.push(self.platform_line(failure.traceback.trim_end(), LogSource::Stderr));
            }
        }
        leftovers
    }

    pub(crate) fn completed(&self, reply: Reply, phases: Phases, finished: Option<Finished>) -> Completed {
        Completed { reply, id: self.id, trace: self.trace.clone(), phases, finished, degraded: None }
    }

    pub(crate) fn completed_with(&self, reply: Reply) -> Completed {
        let phases = self.record.as_ref().map(|record| record.phases).unwrap_or_default();
        self.completed(reply, phases, None)
    }

    /// Closes the record: SLO, metrics and history know of it when this returns.
    pub(crate) fn close(&mut self, leftovers: Leftovers, result: Option<Box<str>>) -> (Finished, Phases) {
        let Leftovers { logs, spans, usage } = leftovers;
        let mut record = self.record.take().expect("a flight is closed once");
        record.blame = record.outcome.blame(record.caller_was_short);
        record.cpu_us = usage.cpu_us;
        record.memory_peak_kib = usage.memory_peak_kib;
        let kept_bytes: usize = logs.iter().map(|line| line.text.len()).sum();
        record.log_bytes = usage.log_bytes.max(kept_bytes as u64);
        let limit = self.function.settings.limits.logs.as_u64();
        let mask = self.mask();
        let mut logs = output::kept(logs, mask.as_deref(), record.log_bytes > limit);
        if record.log_bytes > limit {
            let dropped = record.log_bytes - limit;
            let mark = format!("[truncated: {dropped} bytes more than limits.logs of {limit} bytes]\n");
            logs.push(self.platform_line(&mark, LogSource::Platform));
            record.limit_hit.get_or_insert_with(|| "logs".into());
        }
        let phases = record.phases;
        // A caller's slow line must not spend the function's budget.
        let total = Duration::from_nanos(phases.total()).saturating_sub(self.request.upload);
        let objective = self.function.settings.slo.as_ref().and_then(|slo| slo.latency.as_ref());
        record.latency_met =
            objective.map(|objective| record.outcome == Outcome::Ok && total < objective.under);
        let now = self.invoker.clock.now();
        let ended_us = self.invoker.clock.wall_us(now);
        let (outcome, short, cold) = (record.outcome, record.caller_was_short, record.cold);
        match self.probe.take() {
            Some(probe) => probe.ended(outcome),
            None => self.function.pool.note_end(outcome, record.worker),
        }
        self.function.book.record(now, ended_us, outcome, short, total, cold);
        // Refused calls would say how long those wait that are not refused, which is nothing.
        if record.worker.is_some() {
            let [waited, ran] = [phases.queue + phases.start, phases.run].map(Duration::from_nanos);
            self.function.book.record_work(now, waited, ran);
        }
        let (mut spans, mut result) = (self.spans(spans), result);
        spans.extend(self.hedge.as_mut().map(|hedge| hedge.take_notes()).unwrap_or_default());
        spans.extend(self.decisions_as_span());
        if let Some(mask) = mask {
            spans.iter_mut().for_each(|span| mask.span(span));
            record.error.iter_mut().chain(&mut result).for_each(|text| mask.boxed(text));
        }
        let finished = self.invoker.history.finish(Kept { invocation: *record, spans, logs, result });
        (finished, phases)
    }

    fn platform_line(&self, text: &str, source: LogSource) -> LogLine {
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        LogLine {
            time_us: self.invoker.clock.wall_now_us(),
            source,
            level: None,
            text: format!("{text}{newline}").into(),
        }
    }

    /// Ends a call that was answered without its handler's end, so that the worker or its slot can
    /// be given back; nobody waits for the logs any more. A reusable one goes back at once. Until its
    /// handler has ended the call is under way, and keeps its place in the quotas.
    pub(crate) fn settle_later(&mut self) {
        let Some(mut lease) = self.lease.take().filter(|lease| !lease.is_reusable()) else { return };
        let entry = self.entry.take();
        self.invoker.endings.spawn(async move {
            lease.settle(GRACE, true).await;
            drop((lease, entry));
        });
    }

    /// What was decided about the call, as notes on its root span.
    fn decisions_as_span(&mut self) -> Option<Span> {
        if self.decisions.is_empty() {
            return None;
        }
        Some(Span {
            span_id: self.trace.span_id,
            parent_span_id: None,
            name: "".into(),
            start_ns: 0,
            duration_ns: 0,
            attributes: Vec::new(),
            events: std::mem::take(&mut self.decisions),
            error: None,
        })
    }

    /// The author's spans in the record's form.
    fn spans(&self, spans: Vec<WorkerSpan>) -> Vec<Span> {
        if spans.is_empty() {
            return Vec::new();
        }
        let clock = &self.invoker.clock;
        // A worker's word is not taken for a time outside of its run.
        let (began, now) = (self.run_began.unwrap_or_default(), clock.now());
        let at = |ns: u64| {
            let at = clock.of_monotonic(Duration::from_nanos(ns)).clamp(began, now.max(began));
            clock.wall_us(at) * 1000 + u64::from(at.subsec_nanos() % 1000)
        };
        let root = self.trace.span_id;
        let run = self.hedge.as_ref().map_or_else(|| phase_span_id(root, "run"), |hedge| hedge.span_id(root));
        // Those of its attempts are the platform's, and nobody else's word is taken for them.
        let platforms = [root, phase_span_id(root, "run"), second_run_span_id(root)];
        let spans = spans.into_iter().filter_map(|span| author_span(span, at, run));
        spans.filter(|span| !platforms.contains(&span.span_id)).collect()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.record.is_none() {
            return;
        }
        if self.run_began.is_none() {
            // It left the queue by itself.
            self.not_dispatched();
        }
        self.end_run();
        hedge::finish(self, AttemptEnd::CutOff);
        let status = CLIENT_CLOSED_REQUEST;
        let record = self.record();
        record.outcome = Outcome::Cancelled;
        record.status = status;
        record.error = Some("the caller left before the answer".into());
        let Some(mut lease) = self.lease.take() else {
            self.close(Leftovers::default(), None);
            return;
        };
        let mut orphan = Self {
            invoker: self.invoker.clone(),
            function: self.function.clone(),
            request: self.request.clone(),
            id: self.id,
            trace: self.trace.clone(),
            deadline: self.deadline,
            callers_deadline: self.callers_deadline,
            caller_was_short: self.caller_was_short,
            lease: None,
            hedge: self.hedge.take(),
            run_began: self.run_began,
            record: self.record.take(),
            waited: self.waited,
            mark: self.mark,
            entry: self.entry.take(),
            probe: self.probe.take(),
            is_shown: self.is_shown,
            decisions: std::mem::take(&mut self.decisions),
        };
        let invoker = self.invoker.clone();
        invoker.endings.spawn_on(
            async move {
                let logs = lease.settle(GRACE, false).await;
                drop(lease);
                orphan.close(Leftovers { logs, ..Leftovers::default() }, None);
            },
            invoker.sandbox.runtime(),
        );
    }
}

fn root_span(request: &Request, started_us: u64) -> TraceContext {
    let span_id = SpanId::from_random(fastrand::u64(..));
    match &request.trace {
        Some(parent) => parent.with_span(span_id),
        None => {
            let trace_id = TraceId::from_parts(started_us / 1000, fastrand::u128(..));
            TraceContext::begin(trace_id, span_id, |name| {
                request.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
            })
        }
    }
}

/// From the arrival to the deadline, and whose it is: the function's timeout begins when the body is
/// there, the caller's time when the request is.
fn time_given(function: &Deployed, request: &Request) -> Given {
    let own = function.settings.timeout + request.upload;
    match request.time_given {
        Some(given) if given.time < own => given,
        _ => Given { time: own, from: DeadlineFrom::Timeout },
    }
}

/// Nothing, or less than the latency objective; without one, less than twice the warm median.
fn is_short(function: &Deployed, given: Duration) -> bool {
    if given.is_zero() {
        return true;
    }
    if let Some(objective) = function.settings.slo.as_ref().and_then(|slo| slo.latency.as_ref()) {
        return given < objective.under;
    }
    function.book.warm_p50().is_some_and(|warm| given < warm * 2)
}

/// A caller may lower a function's class, never raise it.
fn class(functions: Criticality, callers: Option<Criticality>) -> Criticality {
    callers.map_or(functions, |callers| callers.max(functions))
}

fn author_span(span: WorkerSpan, at: impl Fn(u64) -> u64, run: SpanId) -> Option<Span> {
    let own =
        |pairs: Vec<(String, serde_json::Value)>| pairs.into_iter().map(|(k, v)| (k.into(), v)).collect();
    Some(Span {
        span_id: span.span_id.parse().ok()?,
        parent_span_id: Some(span.parent_span_id.and_then(|id| id.parse().ok()).unwrap_or(run)),
        name: span.name.into(),
        start_ns: at(span.start_ns),
        duration_ns: span.duration_ns,
        attributes: own(span.attributes),
        events: span
            .events
            .into_iter()
            .map(|(time, name, attributes)| SpanEvent {
                time_ns: at(time),
                name: name.into(),
                attributes: own(attributes),
            })
            .collect(),
        error: span.error.map(Into::into),
    })
}

/// Largest kept result of an asynchronous call, in bytes.
const MAX_RESULT: usize = 64 << 10;

fn text_of(body: &Bytes) -> Box<str> {
    String::from_utf8_lossy(&body[..body.len().min(MAX_RESULT)]).into()
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn running(record: &Invocation) -> Running {
    Running {
        id: record.id,
        tenant: record.tenant.clone(),
        function: record.function.clone(),
        version: record.version,
        event_type: record.event_type.clone(),
        trigger: record.trigger,
        verb: record.verb.clone(),
        path: record.path.clone(),
        correlation_id: record.correlation_id.clone(),
        trace_id: record.trace_id,
        span_id: record.span_id,
        parent_span_id: record.parent_span_id,
        called_by: record.called_by.clone(),
        started_us: record.started_us,
        criticality: record.criticality,
        deadline_ms: record.deadline_ms,
        deadline_from: record.deadline_from,
    }
}
