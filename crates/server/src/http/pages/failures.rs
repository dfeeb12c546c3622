//! Failed calls of every kind: several queries merged, because history filters by one outcome.

use fp_core::Outcome;
use fp_core::outcome::Sli;
use fp_core::{Blame, Tenant};

use crate::history::{Cursor, Entry, Filter, History, Page, TraceSummary};

/// Whether an outcome's word is a failure that a function or the platform is to blame for.
pub(super) fn is_failure(word: &str) -> bool {
    Outcome::ALL.into_iter().any(|outcome| outcome.word() == word && blamed(outcome))
}

fn blamed(outcome: Outcome) -> bool {
    outcome.sli(false) == Sli::Bad && outcome.blame(false) != Some(Blame::Caller)
}

/// The words of all failures.
pub(super) fn failure_words() -> Vec<&'static str> {
    Outcome::words().filter(|word| is_failure(word)).collect()
}

/// Failed calls, newest first, as [`History::list`] pages them. `words` are the outcomes that
/// can have occurred: counters know, and a query for one that has not would search everything.
pub(super) async fn list(
    history: &History,
    tenant: &Tenant,
    filter: &Filter,
    words: &[&'static str],
) -> Page {
    let mut items = Vec::new();
    for word in words {
        let of_word = Filter { outcome: Some((*word).to_owned()), ..filter.clone() };
        items.extend(history.list(tenant, &of_word).await.items);
    }
    merge(items, filter.limit)
}

/// Traces with a failed call, newest first.
pub(super) async fn search_traces(history: &History, tenant: &Tenant, filter: &Filter) -> Vec<TraceSummary> {
    let mut found = Vec::new();
    for word in failure_words() {
        let of_word = Filter { outcome: Some(word.to_owned()), ..filter.clone() };
        found.extend(history.search_traces(tenant, &of_word).await);
    }
    // A trace may have failed in two ways.
    found.sort_by_key(|trace| (std::cmp::Reverse(trace.started_us), trace.trace_id));
    found.dedup_by_key(|trace| trace.trace_id);
    found.truncate(filter.limit);
    found
}

fn merge(mut items: Vec<Entry>, limit: usize) -> Page {
    items.sort_by_key(|entry| std::cmp::Reverse(place(entry)));
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(place);
    Page { items, next }
}

fn place(entry: &Entry) -> Cursor {
    match entry {
        Entry::Done(call) => Cursor { started_us: call.started_us, id: call.id },
        Entry::Running(view) => Cursor { started_us: view.running.started_us, id: view.running.id },
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn failures_are_what_somebody_other_than_the_caller_is_to_blame_for() {
        assert!(is_failure("timeout") && is_failure("shed") && is_failure("too_large"));
        assert!(!is_failure("ok") && !is_failure("cancelled") && !is_failure("quota_exceeded"));
        let words = failure_words();
        assert_eq!(words.iter().filter(|word| **word == "shed").count(), 1);
    }

    #[test]
    fn merged_pages_are_newest_first_and_go_on() {
        let at = |seconds: u64| Entry::Done(Box::new(samples::call(seconds)));
        let page = merge(vec![at(3), at(1), at(4), at(2)], 3);
        let times: Vec<_> = page.items.iter().map(|entry| place(entry).started_us).collect();
        assert!(times.windows(2).all(|pair| pair[0] > pair[1]));
        assert_eq!(page.next.map(|cursor| cursor.started_us), times.last().copied());
        assert_eq!(merge(vec![at(1)], 3).next, None);
    }
}
