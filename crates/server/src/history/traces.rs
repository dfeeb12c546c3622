//! Traces from the calls in them, one at a time: each may have megabytes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use std::vec;

use fp_core::record::Kept;
use fp_core::{FunctionName, ServiceSpan, Tenant, TraceId};

use super::Inner;
use super::types::{Entry, Filter, TraceEntry, TraceSummary};

/// Pages of matching calls that a search for traces goes through: with many calls per trace it
/// may find fewer traces than asked, rather than read all of history.
const SEARCH_PAGES: usize = 20;

/// Which traces are wanted.
#[derive(Debug)]
pub(crate) enum Which {
    /// Those of these ids that there are.
    These(Vec<TraceId>),
    /// The newest with at least one ended call that passes the filter; its `limit` counts traces.
    Newest(Filter),
    /// The same of a service that is no function of ours, or besides is one: those of its calls first,
    /// then those of the spans that it has sent. Of the filter only its times and its `limit` say
    /// which of these; none of the calls are wanted where it names no function.
    OfService(String, Filter),
}

/// What is kept of a trace.
#[derive(Debug)]
pub(crate) struct FoundTrace {
    /// Which trace.
    pub(crate) trace_id: TraceId,
    /// Its calls, in order of arrival.
    pub(crate) calls: Vec<TraceEntry>,
    /// What services around them did, in the order in which it began.
    pub(crate) services: Vec<ServiceSpan>,
}

/// Traces one after the other: the calls of each, in order of arrival, are read when it is asked for.
pub(crate) struct Traces<'a> {
    inner: &'a Inner,
    tenant: &'a Tenant,
    deadline: Instant,
    source: Source,
}

enum Source {
    These(vec::IntoIter<TraceId>),
    Newest(Box<Search>),
    OfService { calls: Option<Box<Search>>, sent: vec::IntoIter<TraceId>, known: HashSet<TraceId> },
}

/// A search through the calls, for the traces that they are of.
struct Search {
    filter: Filter,
    page: vec::IntoIter<Entry>,
    pages: usize,
    known: HashSet<TraceId>,
    left: usize,
}

impl<'a> Traces<'a> {
    pub(super) fn new(inner: &'a Inner, tenant: &'a Tenant, which: Which, deadline: Instant) -> Self {
        let source = match which {
            Which::These(ids) => Source::These(ids.into_iter()),
            Which::Newest(filter) => Source::Newest(Box::new(Search::new(filter))),
            Which::OfService(service, filter) => {
                let within_us = (filter.since_us.unwrap_or(0), filter.until_us.unwrap_or(u64::MAX));
                let by_duration = filter.min_duration.is_some() || filter.max_duration.is_some();
                // Whoever asks judges durations: then more is read than is wanted.
                let most = if by_duration { Filter::MAX_LIMIT } else { filter.limit };
                let most = most.clamp(1, Filter::MAX_LIMIT);
                let sent = inner.traces_of_service(tenant, &service, within_us, most).into_iter();
                let calls = filter.function.is_some().then(|| Box::new(Search::new(filter)));
                Source::OfService { calls, sent, known: HashSet::new() }
            }
        };
        Self { inner, tenant, deadline, source }
    }

    /// Whether the time is up: then there may be more than were given.
    pub(crate) fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

impl Iterator for Traces<'_> {
    type Item = FoundTrace;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.is_late() {
                return None;
            }
            let trace_id = match &mut self.source {
                Source::These(ids) => ids.next()?,
                Source::Newest(search) => search.next(self.inner, self.tenant, self.deadline)?,
                Source::OfService { calls, sent, known } => {
                    let of_calls =
                        calls.as_mut().and_then(|s| s.next(self.inner, self.tenant, self.deadline));
                    let trace_id = match of_calls {
                        Some(trace_id) => trace_id,
                        None => sent.next()?,
                    };
                    if !known.insert(trace_id) {
                        continue;
                    }
                    trace_id
                }
            };
            let calls = self.inner.trace(self.tenant, trace_id, self.deadline);
            let services = self.inner.services_in(self.tenant, trace_id);
            // It may have been dropped from the ring since it was listed.
            if !calls.is_empty() || !services.is_empty() {
                return Some(FoundTrace { trace_id, calls, services });
            }
        }
    }
}

impl Search {
    fn new(filter: Filter) -> Self {
        Self {
            left: filter.limit.clamp(1, Filter::MAX_LIMIT),
            filter,
            page: Vec::new().into_iter(),
            pages: 0,
            known: HashSet::new(),
        }
    }

    fn next(&mut self, inner: &Inner, tenant: &Tenant, deadline: Instant) -> Option<TraceId> {
        self.left = self.left.checked_sub(1)?;
        loop {
            for entry in self.page.by_ref() {
                let Entry::Done(invocation) = entry else { continue };
                if self.known.insert(invocation.trace_id) {
                    return Some(invocation.trace_id);
                }
            }
            let is_over = self.pages > 0 && self.filter.cursor.is_none();
            if is_over || self.pages == SEARCH_PAGES || Instant::now() >= deadline {
                return None;
            }
            let page = inner.list(tenant, &self.filter, deadline);
            self.pages += 1;
            self.filter.cursor = page.next;
            self.page = page.items.into_iter();
        }
    }
}

/// Puts the calls of a trace in the order in which they arrived.
pub(super) fn in_order(mut calls: Vec<Arc<Kept>>) -> Vec<TraceEntry> {
    calls.sort_by_key(|kept| (kept.invocation.started_us, kept.invocation.id));
    calls.into_iter().map(|kept| TraceEntry { kept }).collect()
}

/// One line about a trace; none without calls. `calls` are in order of arrival.
pub(super) fn summarise(trace_id: TraceId, calls: &[TraceEntry]) -> Option<TraceSummary> {
    let first = &calls.first()?.kept.invocation;
    let ends = calls.iter().map(|call| {
        let invocation = &call.kept.invocation;
        invocation.started_us + invocation.duration_us()
    });
    let mut summary = TraceSummary {
        trace_id,
        name: first.root_span_name(),
        functions: Vec::new(),
        started_us: first.started_us,
        duration_us: ends.max()?.saturating_sub(first.started_us),
        calls: calls.len(),
        spans: 0,
        errors: 0,
        outcome: first.outcome,
    };
    for call in calls {
        let spans = call.spans();
        summary.spans += spans.len();
        summary.errors += spans.iter().filter(|span| span.error.is_some()).count();
        count(&mut summary.functions, &call.kept.invocation.function, spans.len());
    }
    Some(summary)
}

fn count(functions: &mut Vec<(FunctionName, usize)>, function: &FunctionName, spans: usize) {
    match functions.iter_mut().find(|(known, _)| known == function) {
        Some((_, count)) => *count += spans,
        None => functions.push((function.clone(), spans)),
    }
}
