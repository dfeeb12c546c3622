//! A table of calls: the same on the overview, a function's page and the list.
//!
//! Pure: entries of history in, rows out. Bars share one scale, the slowest call of the table,
//! so that a glance finds it.

use askama::Template;
use askama::filters::HtmlSafe;
use fp_core::Invocation;

use super::anatomy::{PhaseBar, phase_bar_against};
use super::parts::Badge;
use super::shell::Shell;
use super::text::{self, Moment};
use crate::history::{Entry, RunningView};

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CallRow {
    pub(super) id: String,
    pub(super) link: String,
    pub(super) started: Moment,
    pub(super) function: String,
    pub(super) function_link: String,
    pub(super) verb: String,
    pub(super) path: String,
    pub(super) outcome: Badge,
    pub(super) status: Option<u16>,
    pub(super) cold: bool,
    pub(super) attempts: u8,
    pub(super) duration: String,
    pub(super) bar: Option<PhaseBar>,
}

/// A table of calls.
#[derive(Debug, Clone, PartialEq, Template)]
#[template(path = "parts/calls_table.html")]
pub(super) struct CallsTable {
    pub(super) label: String,
    pub(super) rows: Vec<CallRow>,
    pub(super) with_function: bool,
}

impl HtmlSafe for CallsTable {}

impl CallsTable {
    /// The table of some entries, in their order.
    pub(super) fn new(
        label: impl Into<String>,
        entries: &[Entry],
        with_function: bool,
        shell: &Shell,
        now_us: u64,
    ) -> Self {
        let longest = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Done(call) => Some(call.phases.total()),
                Entry::Running(_) => None,
            })
            .max()
            .unwrap_or(1);
        let rows = entries
            .iter()
            .map(|entry| match entry {
                Entry::Done(call) => done_row(call, longest, shell, now_us),
                Entry::Running(view) => running_row(view, shell, now_us),
            })
            .collect();
        Self { label: label.into(), rows, with_function }
    }
}

fn done_row(call: &Invocation, longest: u64, shell: &Shell, now_us: u64) -> CallRow {
    CallRow {
        id: call.id.to_string(),
        link: shell.invocation_link(call.id),
        started: text::moment(call.started_us, now_us),
        function: call.function.to_string(),
        function_link: shell.function_link(call.function.as_str()),
        verb: call.verb.to_string(),
        path: call.path.to_string(),
        outcome: Badge::outcome(call.outcome),
        status: (call.status != 0).then_some(call.status),
        cold: call.cold,
        attempts: call.attempts,
        duration: text::duration(call.phases.total()),
        bar: Some(phase_bar_against(&call.phases, longest)),
    }
}

fn running_row(view: &RunningView, shell: &Shell, now_us: u64) -> CallRow {
    let call = &view.running;
    let passed_us = now_us.saturating_sub(call.started_us);
    CallRow {
        id: call.id.to_string(),
        link: shell.invocation_link(call.id),
        started: text::moment(call.started_us, now_us),
        function: call.function.to_string(),
        function_link: shell.function_link(call.function.as_str()),
        verb: call.verb.to_string(),
        path: call.path.to_string(),
        outcome: Badge::state(view.state),
        status: None,
        cold: false,
        attempts: 0,
        duration: format!("{} …", text::duration(passed_us.saturating_mul(1_000))),
        bar: None,
    }
}
