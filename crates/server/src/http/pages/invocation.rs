//! One invocation: how it ended, where its time went, what it logged, and every field of its
//! record.

use askama::Template;
use fp_core::record::{Kept, Trigger};
use fp_core::{Blame, Invocation};

use super::anatomy::{PhaseBar, phase_bar};
use super::parts::{Badge, Pair};
use super::shell::Shell;
use super::text::{self, Moment};
use super::trace;
use super::waterfall::{self, LogRow, Waterfall};
use crate::history::RunningView;

/// One phase in the table below the bar.
#[derive(Debug)]
pub(super) struct PhaseRow {
    pub(super) name: &'static str,
    pub(super) duration: String,
    pub(super) share: String,
    pub(super) meaning: &'static str,
}

/// What went wrong.
#[derive(Debug)]
pub(super) struct ProblemWords {
    pub(super) title: String,
    pub(super) error: Option<String>,
    pub(super) blame: String,
}

/// Fields that belong together.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) pairs: Vec<Pair>,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "invocation.html")]
pub(super) struct InvocationPage {
    shell: Shell,
    id: String,
    function: String,
    function_link: String,
    version: String,
    verb: String,
    path: String,
    started: Moment,
    outcome: Badge,
    status: Option<u16>,
    cold: bool,
    running: bool,
    state_word: &'static str,
    problem: Option<ProblemWords>,
    bar: Option<PhaseBar>,
    phases: Vec<PhaseRow>,
    waterfall: Waterfall,
    trace_link: String,
    logs: Vec<LogRow>,
    log_note: String,
    logs_link: String,
    result: Option<String>,
    facts: Vec<Facts>,
    json_link: String,
}

/// The page of a call that has ended.
pub(super) fn done_page(shell: Shell, kept: &Kept, now_us: u64) -> InvocationPage {
    let call = &kept.invocation;
    InvocationPage {
        id: call.id.to_string(),
        function: call.function.to_string(),
        function_link: shell.function_link(call.function.as_str()),
        version: format!("v{}", call.version),
        verb: call.verb.to_string(),
        path: call.path.to_string(),
        started: text::moment(call.started_us, now_us),
        outcome: Badge::outcome(call.outcome),
        status: (call.status != 0).then_some(call.status),
        cold: call.cold,
        running: false,
        state_word: "done",
        problem: problem(call),
        bar: Some(phase_bar(&call.phases)),
        phases: phase_rows(call),
        waterfall: waterfall::waterfall(trace::inputs(kept, None)),
        trace_link: shell.trace_link(call.trace_id),
        logs: waterfall::log_rows(&kept.logs),
        log_note: log_note(kept),
        logs_link: format!("/functions/instances/{}/logs", call.id),
        result: kept.result.as_deref().map(str::to_owned),
        facts: facts(call),
        json_link: format!("/invocations/{}", call.id),
        shell: shell.titled(format!("{} {}", call.verb, call.path)).still(),
    }
}

/// The page of a call that has not ended.
pub(super) fn running_page(shell: Shell, view: &RunningView, now_us: u64) -> InvocationPage {
    let call = &view.running;
    let badge = Badge::state(view.state);
    let given = Pair::new("time given", text::duration(call.deadline_ms.saturating_mul(1_000_000)));
    let mut pairs = vec![
        Pair::new("trace_id", call.trace_id.to_string()),
        Pair::new("correlation_id", &*call.correlation_id),
        Pair::new("event_type", &*call.event_type),
        given,
    ];
    pairs.extend(view.worker.map(|worker| Pair::new("worker", worker.to_string())));
    InvocationPage {
        id: call.id.to_string(),
        function: call.function.to_string(),
        function_link: shell.function_link(call.function.as_str()),
        version: format!("v{}", call.version),
        verb: call.verb.to_string(),
        path: call.path.to_string(),
        started: text::moment(call.started_us, now_us),
        state_word: badge.word,
        outcome: badge,
        status: None,
        cold: false,
        running: true,
        problem: None,
        bar: None,
        phases: Vec::new(),
        waterfall: waterfall::waterfall(Vec::new()),
        trace_link: shell.trace_link(call.trace_id),
        logs: Vec::new(),
        log_note: String::new(),
        logs_link: String::new(),
        result: None,
        facts: vec![Facts { id: "facts-known", name: "Known so far", pairs }],
        json_link: format!("/invocations/{}", call.id),
        shell: shell.titled(format!("{} {}", call.verb, call.path)),
    }
}

fn problem(call: &Invocation) -> Option<ProblemWords> {
    let blame = match call.blame? {
        Blame::Caller => "The caller could have prevented it",
        Blame::Function => "The function's code or settings could have prevented it",
        Blame::Platform => "The platform, or how it is sized, could have prevented it",
    };
    let limit = call.limit_hit.as_deref().map(|limit| format!("; the limit that was hit is {limit}"));
    Some(ProblemWords {
        title: match call.outcome.reason() {
            Some(reason) => format!("{}: {reason}", call.outcome.word()),
            None => call.outcome.word().into(),
        },
        error: call.error.as_deref().map(str::to_owned),
        blame: format!("{blame}{}.", limit.unwrap_or_default()),
    })
}

fn phase_rows(call: &Invocation) -> Vec<PhaseRow> {
    const MEANINGS: [&str; 5] = [
        "reading the request, finding the function, admission",
        "waiting for a worker",
        "starting the worker; none when it was warm",
        "in the handler",
        "from the answer's head to its last byte",
    ];
    let total = call.phases.total().max(1);
    let phases = call.phases.by_name().into_iter().zip(MEANINGS);
    phases
        .map(|((name, time), meaning)| PhaseRow {
            name,
            duration: if time == 0 { "–".into() } else { text::duration(time) },
            share: if time == 0 { "–".into() } else { text::share(time as f64 / total as f64) },
            meaning,
        })
        .collect()
}

fn log_note(kept: &Kept) -> String {
    let shown: u64 = kept.logs.iter().map(|line| line.text.len() as u64).sum();
    let written = kept.invocation.log_bytes;
    match (written, written > shown) {
        (0, _) => String::new(),
        (_, false) => text::bytes(written),
        (_, true) => format!("{} of {} kept", text::bytes(shown), text::bytes(written)),
    }
}

/// Every field of the wide event, by what it is about.
fn facts(call: &Invocation) -> Vec<Facts> {
    let optional = |value: Option<String>| value.unwrap_or_else(|| "–".into());
    let yes_no = |value: bool| if value { "yes" } else { "no" };
    let identity = vec![
        Pair::new("id", call.id.to_string()),
        Pair::new("tenant", call.tenant.as_str()),
        Pair::new("function", call.function.as_str()),
        Pair::new("version", call.version.to_string()),
        Pair::new("trace_id", call.trace_id.to_string()),
        Pair::new("span_id", call.span_id.to_string()),
        Pair::new("called_by", optional(call.called_by.as_ref().map(ToString::to_string))),
        Pair::new("link", optional(call.link.map(|link| link.to_string()))),
        Pair::new("parent_span_id", optional(call.parent_span_id.map(|id| id.to_string()))),
        Pair::new("correlation_id", &*call.correlation_id),
    ];
    let request = vec![
        Pair::new("event_type", &*call.event_type),
        Pair::new(
            "trigger",
            match call.trigger {
                Trigger::Http => "http",
                Trigger::Async => "async",
            },
        ),
        Pair::new("verb", &*call.verb),
        Pair::new("path", &*call.path),
        Pair::new("status", call.status.to_string()),
        Pair::new("request_bytes", text::bytes(call.request_bytes)),
        Pair::new("response_bytes", text::bytes(call.response_bytes)),
    ];
    let timing = vec![
        Pair::new("started_us", text::absolute(call.started_us).1),
        Pair::new("phases", phase_bar(&call.phases).summary),
        Pair::new("deadline_ms", text::duration(call.deadline_ms.saturating_mul(1_000_000))),
        Pair::new("deadline_from", optional(call.deadline_from.word().map(Into::into))),
        Pair::new("queue_length", format!("{} ahead on arrival", call.queue_length)),
        Pair::new("cold", yes_no(call.cold)),
        Pair::new("latency_met", optional(call.latency_met.map(|met| yes_no(met).into()))),
    ];
    let decisions = vec![
        Pair::new("outcome", call.outcome.word()),
        Pair::new("reason", optional(call.outcome.reason().map(str::to_owned))),
        Pair::new("blame", optional(call.blame.map(|blame| format!("{blame:?}").to_lowercase()))),
        Pair::new("error", optional(call.error.as_deref().map(str::to_owned))),
        Pair::new("caller_was_short", yes_no(call.caller_was_short)),
        Pair::new("criticality", format!("{:?}", call.criticality).to_lowercase()),
        Pair::new("attempts", call.attempts.to_string()),
        Pair::new("degraded", optional(call.degraded.as_deref().map(str::to_owned))),
    ];
    let resources = vec![
        Pair::new("worker", optional(call.worker.map(|worker| worker.to_string()))),
        Pair::new("cpu_us", text::duration(call.cpu_us.saturating_mul(1_000))),
        Pair::new("memory_peak_kib", text::bytes(call.memory_peak_kib.saturating_mul(1024))),
        Pair::new("log_bytes", text::bytes(call.log_bytes)),
        Pair::new("limit_hit", optional(call.limit_hit.as_deref().map(str::to_owned))),
        Pair::new("weight", format!("stands for {}", text::plural(u64::from(call.weight), "call"))),
    ];
    vec![
        Facts { id: "facts-identity", name: "Identity", pairs: identity },
        Facts { id: "facts-request", name: "Request", pairs: request },
        Facts { id: "facts-timing", name: "Timing", pairs: timing },
        Facts { id: "facts-decisions", name: "Outcome", pairs: decisions },
        Facts { id: "facts-resources", name: "Resources", pairs: resources },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn every_field_of_the_wide_event_is_shown() {
        let call = samples::call(1);
        let shown: Vec<String> =
            facts(&call).into_iter().flat_map(|f| f.pairs).map(|pair| pair.key).collect();
        let record = serde_json::to_value(&call).expect("a record is JSON");
        for field in record.as_object().expect("an object").keys() {
            assert!(shown.contains(field), "{field} is not on the page");
        }
    }
}
