//! Choosing the newest entries that pass a filter, from sources that overlap.
//!
//! A [`Selection`] keeps the best `limit + 1` entries seen so far, ordered by arrival and id;
//! the one too many says that there is a next page. The same call may be offered twice (running
//! and ended, from the ring and from disk): the later offer of a better kind replaces.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use fp_core::record::Invocation;
use fp_core::{InvocationId, Tenant, glob};

use super::record::Record;
use crate::store::telemetry::RowQuery;

use super::types::{Cursor, Entry, Filter, Page, Running, RunningView};

/// The best entries so far.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    tenant: &'a Tenant,
    filter: &'a Filter,
    limit: usize,
    entries: BTreeMap<Reverse<Cursor>, Entry>,
    /// Where the search was cut off: nothing before this time was looked at on disk.
    stopped_us: Option<u64>,
}

impl<'a> Selection<'a> {
    pub(super) fn new(tenant: &'a Tenant, filter: &'a Filter) -> Self {
        let limit = filter.limit.clamp(1, Filter::MAX_LIMIT);
        Self { tenant, filter, limit, entries: BTreeMap::new(), stopped_us: None }
    }

    /// Entries that are looked for in all: the page and one more.
    pub(super) fn wanted(&self) -> usize {
        self.limit + 1
    }

    /// Whether a call that has not ended belongs to the page as far as is known.
    pub(super) fn wants_running(&self, running: &Running) -> bool {
        let filter = self.filter;
        let needs_an_end =
            filter.outcome.is_some() || filter.min_duration.is_some() || filter.max_duration.is_some();
        !needs_an_end
            && self.wants_arrival(running.started_us, running.id)
            && running.tenant == *self.tenant
            && filter.function.as_ref().is_none_or(|function| *function == running.function)
            && self.wants_event_type(&running.event_type)
    }

    /// The same for a call that has.
    pub(super) fn wants_record(&self, record: &Record) -> bool {
        let filter = self.filter;
        let invocation = &record.at_end().invocation;
        let duration_us = u128::from(record.duration_us());
        self.wants_arrival(invocation.started_us, invocation.id)
            && invocation.tenant == *self.tenant
            && filter.function.as_ref().is_none_or(|function| *function == invocation.function)
            && filter.outcome.as_ref().is_none_or(|word| record.outcome().word() == word)
            && filter.min_duration.is_none_or(|min| duration_us >= min.as_micros())
            && filter.max_duration.is_none_or(|max| duration_us <= max.as_micros())
            && self.wants_event_type(&invocation.event_type)
    }

    /// What SQL can check of the filter. It borrows from the filter, not from the selection, which
    /// goes on changing while rows arrive.
    pub(super) fn row_query(&self) -> RowQuery<'a> {
        let filter = self.filter;
        let microseconds = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let until_us = filter.until_us.unwrap_or(u64::MAX);
        RowQuery {
            tenant: self.tenant,
            function: filter.function.as_ref(),
            outcome: filter.outcome.as_deref(),
            event_type: filter.event_type.as_deref(),
            from_us: filter.since_us.unwrap_or(0),
            to_us: filter.cursor.map_or(until_us, |cursor| until_us.min(cursor.started_us.saturating_add(1))),
            min_us: filter.min_duration.map(microseconds),
            max_us: filter.max_duration.map(microseconds),
        }
    }

    fn wants_event_type(&self, event_type: &str) -> bool {
        self.filter.event_type.as_ref().is_none_or(|glob| glob::matches(glob, event_type))
    }

    fn wants_arrival(&self, started_us: u64, id: InvocationId) -> bool {
        let cursor = Cursor { started_us, id };
        let filter = self.filter;
        filter.since_us.is_none_or(|since| started_us >= since)
            && filter.until_us.is_none_or(|until| started_us < until)
            && filter.cursor.is_none_or(|last| cursor < last)
            && (self.entries.len() < self.wanted() || self.worst().is_none_or(|worst| cursor >= worst))
    }

    fn worst(&self) -> Option<Cursor> {
        self.entries.last_key_value().map(|(Reverse(cursor), _)| *cursor)
    }

    /// Whether no call that ended (and so began) by this time can belong to the page any more.
    pub(super) fn is_settled_at(&self, ended_us: u64) -> bool {
        self.filter.since_us.is_some_and(|since| ended_us < since)
            || self.entries.len() >= self.wanted()
                && self.worst().is_some_and(|worst| ended_us < worst.started_us)
    }

    pub(super) fn add_running(&mut self, view: RunningView) {
        let cursor = Cursor { started_us: view.running.started_us, id: view.running.id };
        self.add(cursor, Entry::Running(Box::new(view)));
    }

    pub(super) fn add_ended(&mut self, invocation: Invocation) {
        let cursor = Cursor { started_us: invocation.started_us, id: invocation.id };
        self.add(cursor, Entry::Done(Box::new(invocation)));
    }

    /// Adds a row of [`row_query`](Self::row_query) if it belongs to the page, unless memory knows
    /// the call already, and better.
    pub(super) fn add_row(&mut self, invocation: Invocation) {
        let cursor = Cursor { started_us: invocation.started_us, id: invocation.id };
        let is_wanted =
            self.wants_arrival(cursor.started_us, cursor.id) && self.wants_event_type(&invocation.event_type);
        if is_wanted && !self.entries.contains_key(&Reverse(cursor)) {
            self.add(cursor, Entry::Done(Box::new(invocation)));
        }
    }

    fn add(&mut self, cursor: Cursor, entry: Entry) {
        self.entries.insert(Reverse(cursor), entry);
        if self.entries.len() > self.wanted() {
            self.entries.pop_last();
        }
    }

    /// The search ends here for now.
    pub(super) fn stop_at(&mut self, to_us: u64) {
        self.stopped_us = Some(to_us);
    }

    pub(super) fn into_page(mut self) -> Page {
        // What memory holds from before the stop comes again with the next page, in its order.
        let stop = self.stopped_us.map(|started_us| {
            let stop = Cursor { started_us, id: InvocationId([0; 16]) };
            self.filter.cursor.map_or(stop, |last| stop.min(last))
        });
        if let Some(stop) = stop {
            self.entries.retain(|Reverse(cursor), _| *cursor >= stop);
        }
        let is_more = self.entries.len() > self.limit;
        if is_more {
            self.entries.pop_last();
        }
        let next = if is_more { self.worst() } else { stop };
        Page { items: self.entries.into_values().collect(), next }
    }
}
