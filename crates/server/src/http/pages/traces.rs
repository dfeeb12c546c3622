//! The search for traces, on the port that tracing tools use.

use askama::Template;

use super::chart::unit;
use super::filter::{Fields, FilterForm, PAGE};
use super::invocations::nothing;
use super::parts::{Badge, Hint};
use super::shell::Shell;
use super::text::{self, Moment};
use crate::history::TraceSummary;

/// Where the search is.
pub(super) const PATH: &str = "/";

/// A trace in the list.
#[derive(Debug)]
pub(super) struct TraceRow {
    pub(super) started: Moment,
    pub(super) link: String,
    pub(super) root: String,
    pub(super) functions: Vec<String>,
    pub(super) spans: String,
    pub(super) outcome: Badge,
    pub(super) duration: String,
    pub(super) width: String,
    pub(super) class: &'static str,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "traces.html")]
pub(super) struct TracesPage {
    shell: Shell,
    form: FilterForm,
    traces: Vec<TraceRow>,
    /// There may be more than a page of them.
    cut: bool,
    empty: Hint,
}

/// Makes the page.
pub(super) fn page(
    shell: Shell,
    fields: &Fields,
    functions: Vec<String>,
    found: &[TraceSummary],
    now_us: u64,
) -> TracesPage {
    let longest = found.iter().map(|trace| trace.duration_us).max().unwrap_or(1).max(1);
    TracesPage {
        form: fields.form(PATH, "Find traces", functions),
        traces: found.iter().map(|trace| row(trace, longest, &shell, now_us)).collect(),
        cut: found.len() >= PAGE,
        empty: nothing(fields.is_narrowed(), &shell),
        shell: shell.titled("Traces"),
    }
}

fn row(trace: &TraceSummary, longest: u64, shell: &Shell, now_us: u64) -> TraceRow {
    let share = trace.duration_us as f64 / longest as f64 * 100.0;
    TraceRow {
        started: text::moment(trace.started_us, now_us),
        link: shell.trace_link(trace.trace_id),
        root: trace.name.clone(),
        functions: trace.functions.iter().map(|(name, _)| name.to_string()).collect(),
        spans: text::count(trace.spans as u64),
        outcome: Badge::outcome(trace.outcome),
        duration: text::duration(trace.duration_us.saturating_mul(1_000)),
        width: unit(share.max(0.5)),
        class: if trace.errors > 0 { "failed" } else { "call" },
    }
}
