//! Traces from the calls in them, one at a time: each may have megabytes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use std::vec;

use fp_core::record::Kept;
use fp_core::{FunctionName, Tenant, TraceId};

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
            Which::Newest(filter) => Source::Newest(Box::new(Search {
                left: filter.limit.clamp(1, Filter::MAX_LIMIT),
                filter,
                page: Vec::new().into_iter(),
                pages: 0,
                known: HashSet::new(),
            })),
        };
        Self { inner, tenant, deadline, source }
    }

    /// Whether the time is up: then there may be more than were given.
    pub(crate) fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

impl Iterator for Traces<'_> {
    type Item = (TraceId, Vec<TraceEntry>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.is_late() {
                return None;
            }
            let trace_id = match &mut self.source {
                Source::These(ids) => ids.next()?,
                Source::Newest(search) => search.next(self.inner, self.tenant, self.deadline)?,
            };
            let calls = self.inner.trace(self.tenant, trace_id, self.deadline);
            // It may have been dropped from the ring since it was listed.
            if !calls.is_empty() {
                return Some((trace_id, calls));
            }
        }
    }
}

impl Search {
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
