//! Questions about the calls of a segment, in whichever form it is.

use std::collections::BTreeMap;
use std::convert::Infallible;

use fp_core::deadline::DeadlineFrom;
use fp_core::outcome::Sli;
use fp_core::query::{Batch, Calls, NONE, Number, Query, Text, Totals, Words};
use fp_core::{Outcome, TraceId};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::{Forms, RowQuery, Stretch, TelemetryReader, saturate};

/// Rows that are looked at together: as many as a block has.
const ROWS: usize = 4_096;

impl TelemetryReader {
    /// Adds the calls of a stretch to an answer until `goes_on` says no. Returns whether it said so.
    pub(crate) fn total(
        &self,
        stretch: Stretch,
        query: &Query,
        totals: &mut Totals<'_>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> bool {
        if !totals.wants(stretch.from_us, stretch.to_us.saturating_sub(1)) {
            return true;
        }
        let _still = self.segments.hold_still();
        // What cannot be read is reported there, and then is as if it were not.
        let whole = match self.segments.forms(stretch.segment) {
            Forms { rows: true, blocks: true } => self.total_both(stretch, totals, goes_on),
            Forms { rows: true, blocks: false } => {
                let read = |connection: &Connection| total_rows(connection, stretch, query, totals, goes_on);
                self.with_rows(stretch.segment, read)
            }
            Forms { rows: false, .. } => {
                self.with_blocks(stretch.segment, |blocks| blocks.total(totals, goes_on))
            }
        };
        whole.unwrap_or(true)
    }

    /// Late rows stand beside blocks: a call that is in both is as its row says. That is rare and short.
    fn total_both(
        &self,
        stretch: Stretch,
        totals: &mut Totals<'_>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Option<bool> {
        let mut calls = Vec::with_capacity(ROWS);
        let mut is_whole = true;
        for tenant in totals.tenants() {
            let query = RowQuery {
                tenant: &tenant,
                function: None,
                outcome: None,
                event_type: None,
                from_us: stretch.from_us,
                to_us: stretch.to_us,
                min_us: None,
                max_us: None,
            };
            let mut visit = |call| {
                calls.push(call);
                if calls.len() == ROWS {
                    add(totals, &Calls(&calls));
                    calls.clear();
                    is_whole = goes_on();
                }
                is_whole
            };
            self.visit_both(stretch.segment, &query, &mut visit)?;
        }
        add(totals, &Calls(&calls));
        Some(is_whole)
    }
}

/// Adds what cannot fail.
fn add<B: Batch<Error = Infallible>>(totals: &mut Totals<'_>, batch: &B) {
    let Ok(()) = totals.add(batch);
}

/// The columns of some rows that a question names.
struct Rows {
    arrivals: Vec<u64>,
    traces: Vec<TraceId>,
    verdicts: Vec<bool>,
    numbers: Vec<(Number, Vec<u64>)>,
    texts: Vec<(Text, Words, BTreeMap<Box<str>, u32>)>,
}

/// What every question reads, in this order.
const ALWAYS: &str = "started_us, trace_id, outcome, reason, caller_was_short";

fn total_rows(
    connection: &Connection,
    stretch: Stretch,
    query: &Query,
    totals: &mut Totals<'_>,
    goes_on: &mut dyn FnMut() -> bool,
) -> rusqlite::Result<bool> {
    let (numbers, texts) = query.columns();
    let columns: Vec<&str> =
        numbers.iter().copied().map(number_sql).chain(texts.iter().copied().map(text_sql)).collect();
    let mut sql = format!(
        "SELECT {ALWAYS}, {} FROM invocations WHERE started_us >= :from AND started_us < :to",
        columns.join(", ")
    );
    let function = query.only_function();
    let [from_us, to_us] = [stretch.from_us, stretch.to_us].map(saturate);
    let mut parameters: Vec<(&str, &dyn rusqlite::ToSql)> = vec![(":from", &from_us), (":to", &to_us)];
    if let Some(function) = &function {
        sql.push_str(" AND function = :function");
        parameters.push((":function", function));
    }
    let mut statement = connection.prepare(&sql)?;
    let mut found = statement.query(parameters.as_slice())?;
    let mut rows = Rows::new(&numbers, &texts);
    while let Some(row) = found.next()? {
        rows.push(row)?;
        if rows.rows() == ROWS {
            add(totals, &rows);
            rows = Rows::new(&numbers, &texts);
            if !goes_on() {
                return Ok(false);
            }
        }
    }
    add(totals, &rows);
    Ok(true)
}

impl Rows {
    fn new(numbers: &[Number], texts: &[Text]) -> Self {
        Self {
            arrivals: Vec::with_capacity(ROWS),
            traces: Vec::with_capacity(ROWS),
            verdicts: Vec::with_capacity(ROWS),
            numbers: numbers.iter().map(|field| (*field, Vec::with_capacity(ROWS))).collect(),
            texts: texts.iter().map(|field| (*field, Words::default(), BTreeMap::new())).collect(),
        }
    }

    fn push(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        self.arrivals.push(whole(row, 0)?);
        self.traces.push(TraceId(row.get(1)?));
        let reason = row.get_ref(3)?.as_str_or_null()?;
        let outcome = Outcome::from_words(row.get_ref(2)?.as_str()?, reason);
        let short: bool = row.get(4)?;
        self.verdicts.push(outcome.is_some_and(|outcome| outcome.sli(short) == Sli::Bad));
        let mut at = 5;
        for (field, column) in &mut self.numbers {
            column.push(number_of(*field, row, at)?);
            at += 1;
        }
        for (field, words, places) in &mut self.texts {
            match field {
                Text::DeadlineFrom => {
                    words.push(DeadlineFrom::from_number(whole(row, at)?).word(), places);
                }
                _ => words.push(row.get_ref(at)?.as_str_or_null()?, places),
            }
            at += 1;
        }
        Ok(())
    }
}

/// A number that is never below 0.
fn whole(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(at)?.max(0) as u64)
}

fn number_of(field: Number, row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    if row.get_ref(at)? == ValueRef::Null {
        return Ok(NONE);
    }
    let value = whole(row, at)?;
    Ok(match field {
        Number::Deadline => value.saturating_mul(1_000_000),
        Number::Cpu => value.saturating_mul(1_000),
        Number::MemoryPeak => value.saturating_mul(1_024),
        _ => value,
    })
}

fn number_sql(field: Number) -> &'static str {
    match field {
        Number::Duration => "route_ns + queue_ns + start_ns + run_ns + send_ns",
        Number::Route => "route_ns",
        Number::Queue => "queue_ns",
        Number::Start => "start_ns",
        Number::Run => "run_ns",
        Number::Send => "send_ns",
        Number::Deadline => "deadline_ms",
        Number::Cpu => "cpu_us",
        Number::MemoryPeak => "memory_peak_kib",
        same => same.name(),
    }
}

fn text_sql(field: Text) -> &'static str {
    field.name()
}

impl Batch for Rows {
    type Error = Infallible;

    fn rows(&self) -> usize {
        self.arrivals.len()
    }

    fn times(&self) -> (u64, u64) {
        let arrivals = || self.arrivals.iter().copied();
        (arrivals().min().unwrap_or(0), arrivals().max().unwrap_or(0))
    }

    fn arrivals(&self) -> Result<Vec<u64>, Infallible> {
        Ok(self.arrivals.clone())
    }

    fn numbers(&self, field: Number) -> Result<Vec<u64>, Infallible> {
        let column = self.numbers.iter().find(|(of, _)| *of == field).map(|(_, column)| column.clone());
        Ok(column.expect("a question asks only for the columns that it names"))
    }

    fn texts(&self, field: Text) -> Result<Words, Infallible> {
        let column = self.texts.iter().find(|(of, ..)| *of == field).map(|(_, words, _)| words.clone());
        Ok(column.expect("a question asks only for the columns that it names"))
    }

    fn verdicts(&self) -> Result<Vec<bool>, Infallible> {
        Ok(self.verdicts.clone())
    }

    fn trace(&self, row: usize) -> Result<TraceId, Infallible> {
        Ok(self.traces[row])
    }
}
