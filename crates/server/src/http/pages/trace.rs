//! One trace as a waterfall: every kept call of it, the platform's phases and the authors' spans, and
//! what services around the functions have sent.

use std::collections::HashSet;

use askama::Template;
use fp_core::record::{Kept, Span, second_run_span_id};
use fp_core::{ServiceSpan, TraceId};

use super::anatomy::PHASES;
use super::parts::{Badge, Stat};
use super::shell::Shell;
use super::text;
use super::waterfall::{Input, Kind, Waterfall, waterfall};

/// The page.
#[derive(Debug, Template)]
#[template(path = "trace.html")]
pub(super) struct TracePage {
    shell: Shell,
    id: String,
    root: String,
    outcome: Badge,
    stats: Vec<Stat>,
    phases: [&'static str; 5],
    waterfall: Waterfall,
    json_link: String,
}

/// Makes the page of a trace, of which there is at least a call or a service's span, oldest first.
pub(super) fn page(
    shell: Shell,
    id: TraceId,
    calls: &[&Kept],
    services: Vec<ServiceSpan>,
    now_us: u64,
) -> Option<TracePage> {
    let (root, started_us) = beginning(calls, &services)?;
    let mut inputs: Vec<_> = calls.iter().flat_map(|kept| inputs(kept, Some(&shell))).collect();
    let mut names: Vec<_> = calls.iter().map(|kept| kept.invocation.function.to_string()).collect();
    names.extend(services.iter().map(|sent| sent.service.to_string()));
    inputs.extend(services.into_iter().map(of_service));
    let failed = inputs.iter().filter(|input| input.span.error.is_some()).count();
    let spans = inputs.len();
    let waterfall = waterfall(inputs);
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let started = text::moment(started_us, now_us);
    // A call's outcome is the trace's; without one, whether a span failed.
    let outcome = match calls.first() {
        Some(first) => Badge::outcome(first.invocation.outcome),
        None => Badge::word(if failed > 0 { "error" } else { "ok" }),
    };
    let stats = vec![
        Stat::new("Duration", &*waterfall.duration, "first start to last end"),
        Stat::new("Calls", text::count(calls.len() as u64), names.join(", ")),
        Stat::new("Spans", text::count(spans as u64), "platform's and yours"),
        Stat::new("Errors", text::count(failed as u64), "spans that failed").toned(if failed > 0 {
            "bad"
        } else {
            "plain"
        }),
        Stat::new("Started", started.relative, started.absolute),
    ];
    Some(TracePage {
        id: id.to_string(),
        outcome,
        stats,
        phases: PHASES,
        waterfall,
        json_link: format!("/api/traces/{id}"),
        shell: shell.titled(root.clone()).still(),
        root,
    })
}

/// Name and time of what came first, Unix microseconds; a call goes before spans of services, which may
/// be of a host whose clock is ahead.
fn beginning(calls: &[&Kept], services: &[ServiceSpan]) -> Option<(String, u64)> {
    let call = calls.first().map(|kept| (kept.invocation.root_span_name(), kept.invocation.started_us));
    call.or_else(|| services.first().map(|sent| (sent.span.name.to_string(), sent.span.start_ns / 1_000)))
}

fn of_service(sent: ServiceSpan) -> Input {
    let function = sent.service.to_string();
    Input { span: sent.span, kind: Kind::Author, function, link: None, logs: Vec::new() }
}

/// The spans of one call. With a shell, the root span links to the call's page and has its logs.
pub(super) fn inputs(kept: &Kept, shell: Option<&Shell>) -> Vec<Input> {
    let call = &kept.invocation;
    let function = call.function.to_string();
    let input =
        |span: Span, kind| Input { span, kind, function: function.clone(), link: None, logs: Vec::new() };
    let platform = kept.platform_spans().into_iter().map(|span| {
        let kind = if span.span_id == call.span_id { Kind::Call } else { Kind::Phase };
        let mut input = input(span, kind);
        if let (Kind::Call, Some(shell)) = (kind, shell) {
            input.link = Some(shell.invocation_link(call.id));
            input.logs = kept.logs.clone();
        }
        input
    });
    let second = second_run_span_id(call.span_id);
    let author = kept.own_spans().cloned().map(|span| {
        let kind = if span.span_id == second { Kind::Phase } else { Kind::Author };
        input(span, kind)
    });
    platform.chain(author).collect()
}
