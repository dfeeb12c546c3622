//! A question about many calls, as it comes and as its answer is shown: for the API and for the page.

use fp_core::query::{By, Key, Kind, NONE, Number, Query};
use serde_json::{Value, json};

use super::api::time::{point_in_time, rfc3339};
use super::caller::Caller;
use crate::app::App;
use crate::history::Answer;

/// Where a question says no time.
const SINCE_US: u64 = 3_600_000_000;

/// Asks the calls of those whose the caller sees.
///
/// # Errors
/// A sentence: where the question cannot be read, or that it makes too many groups.
pub(super) async fn ask(app: &App, caller: &Caller, text: &str) -> Result<(Query, Answer), String> {
    let query = Query::parse(text).map_err(|error| error.to_string())?;
    let now_us = app.clock.wall_now_us();
    let time = |text: &Option<String>, word: &str, other: u64| match text {
        None => Ok(other),
        Some(text) => point_in_time(text, now_us).ok_or_else(|| {
            format!("{text:?} behind {word:?} is no time: write an age, such as 1h, or 2026-01-31T12:00:00Z")
        }),
    };
    // A little more than now: calls of this very microsecond are in.
    let to_us = time(&query.until, "until", now_us + 1)?;
    let from_us = time(&query.since, "since", to_us.saturating_sub(SINCE_US))?;
    if from_us >= to_us {
        let (from, to) = (rfc3339(from_us), rfc3339(to_us));
        return Err(format!("the time is empty: it begins at {from} and ends at {to}"));
    }
    let answer = app.history.ask(caller.tenants(app), query.clone(), from_us, to_us).await;
    answer.map(|answer| (query, answer)).map_err(|error| error.to_string())
}

/// The name of what is grouped by.
pub(super) fn name_of(by: By) -> &'static str {
    match by {
        By::Number(field) => field.name(),
        By::Text(field) => field.name(),
        By::Time(_) => "time",
    }
}

/// The unit that a measure is told in.
pub(super) fn unit_of(measure: Number) -> Option<&'static str> {
    match measure.kind() {
        Kind::Time => Some("ms"),
        Kind::Bytes => Some("bytes"),
        Kind::Plain | Kind::Truth => None,
    }
}

/// A measure in that unit.
pub(super) fn in_unit(measure: Number, value: f64) -> f64 {
    let value = if measure.kind() == Kind::Time { value / 1e6 } else { value };
    (value * 1e3).round() / 1e3
}

/// A value that is grouped by, as JSON.
pub(super) fn value_of(by: By, key: &Key) -> Value {
    match (by, key) {
        (_, Key::Number(NONE) | Key::Text(None)) => Value::Null,
        (_, Key::Text(Some(text))) => json!(text),
        (_, Key::Time(us)) => json!(rfc3339(*us)),
        (By::Number(field), Key::Number(number)) => match field.kind() {
            Kind::Time => json!(in_unit(field, *number as f64)),
            Kind::Truth => json!(*number != 0),
            Kind::Bytes | Kind::Plain => json!(number),
        },
        (_, Key::Number(number)) => json!(number),
    }
}
