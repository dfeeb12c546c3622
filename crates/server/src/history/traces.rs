//! Traces from the calls in them.

use std::sync::Arc;

use fp_core::record::Kept;
use fp_core::{FunctionName, TraceId};

use super::types::{TraceEntry, TraceSummary};

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
