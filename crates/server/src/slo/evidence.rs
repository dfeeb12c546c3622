//! The calls behind an alert: which spent the budget, and where they went wrong.
//!
//! History is asked for the newest bad calls of the long window, kind by kind, because it filters by
//! one outcome, and for good calls to compare them with. What it no longer has is not told of.

use std::time::Duration;

use fp_core::outcome::Sli;
use fp_core::slo::{Culprit, Indicator, Sample, culprit};
use fp_core::{Invocation, Outcome, Tenant};

use super::alerts::{AlertRecord, BadCall};
use super::function::FunctionBook;
use crate::history::{Entry, Filter, History, Lookup};

/// Bad calls that are told of: a screen of them.
const TOLD: usize = 20;

/// Bad and good calls that are compared: enough that the median of good calls is within a few
/// percent, few enough to be read from disk in a second.
const COMPARED: usize = 50;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) culprit: Option<Culprit>,
    pub(super) calls: Vec<BadCall>,
}

/// Looks for what is behind an alert.
pub(super) async fn of(
    history: &History,
    tenant: &Tenant,
    book: &FunctionBook,
    alert: &AlertRecord,
) -> Evidence {
    let base = Filter {
        function: Some(alert.function.clone()),
        since_us: Some(alert.began_us.saturating_sub(alert.long_s * 1_000_000)),
        limit: COMPARED,
        ..Filter::default()
    };
    let under = book.objective().and_then(|slo| slo.latency).map(|latency| latency.under);
    let bad = bad_calls(history, tenant, book, alert.objective, under, &base).await;
    let good = Filter {
        outcome: Some(Outcome::Ok.word().to_owned()),
        max_duration: under.filter(|_| alert.objective == Indicator::Latency),
        ..base
    };
    let good = done(history.list(tenant, &good).await.items);
    let bad_samples = samples(history, tenant, &bad).await;
    let normal = samples(history, tenant, &good).await;
    let calls = bad.iter().take(TOLD).map(bad_call).collect();
    Evidence { culprit: culprit(alert.objective, &bad_samples, &normal), calls }
}

/// The newest calls that the objective counts as bad.
async fn bad_calls(
    history: &History,
    tenant: &Tenant,
    book: &FunctionBook,
    objective: Indicator,
    under: Option<Duration>,
    base: &Filter,
) -> Vec<Invocation> {
    let mut words: Vec<&str> = book.outcomes_seen().into_iter().map(Outcome::word).collect();
    words.dedup();
    let mut found = Vec::new();
    for word in words {
        let is_ok = word == Outcome::Ok.word();
        if is_ok && objective == Indicator::Availability {
            continue;
        }
        let min_duration = under.filter(|_| is_ok);
        let of_word = Filter { outcome: Some(word.to_owned()), min_duration, ..base.clone() };
        found.extend(done(history.list(tenant, &of_word).await.items));
    }
    found.retain(|call| is_bad(objective, call));
    found.sort_by_key(|call| (std::cmp::Reverse(call.started_us), call.id));
    found.dedup_by_key(|call| call.id);
    found.truncate(COMPARED);
    found
}

/// As the counters of the objective have it.
fn is_bad(objective: Indicator, call: &Invocation) -> bool {
    let sli = call.outcome.sli(call.caller_was_short);
    match objective {
        Indicator::Availability => sli == Sli::Bad,
        Indicator::Latency => matches!(sli, Sli::Good | Sli::Bad) && call.latency_met == Some(false),
    }
}

fn done(entries: Vec<Entry>) -> Vec<Invocation> {
    let ended = |entry| match entry {
        Entry::Done(call) => Some(*call),
        Entry::Running(_) => None,
    };
    entries.into_iter().filter_map(ended).collect()
}

async fn samples(history: &History, tenant: &Tenant, calls: &[Invocation]) -> Vec<Sample> {
    let mut samples = Vec::with_capacity(calls.len());
    for call in calls {
        let Lookup::Done(kept) = history.get(tenant, call.id).await else { continue };
        samples.push(Sample::of(&kept));
    }
    samples
}

fn bad_call(call: &Invocation) -> BadCall {
    BadCall {
        id: call.id,
        trace_id: call.trace_id,
        outcome: call.outcome.word().into(),
        reason: call.outcome.reason().map(Into::into),
        started_us: call.started_us,
        duration_us: call.duration_us(),
    }
}
