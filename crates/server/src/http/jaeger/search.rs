//! What `/api/traces` is asked for: Jaeger's parameters, and whether a trace is meant.
//!
//! As in Jaeger, one span must meet everything at once: the service, the operation, the
//! durations and all tags.

use std::time::Duration;

use axum::extract::Query;
use fp_core::FunctionName;
use http::Uri;

use super::JaegerError;
use super::model::{Span, Trace};
use crate::history::{Filter, Which};

/// Jaeger's default number of traces.
const DEFAULT_LIMIT: usize = 100;

/// Jaeger's default age: two days.
const DEFAULT_LOOKBACK: Duration = Duration::from_secs(48 * 3_600);

/// The pairs of a query string, in order.
#[derive(Debug, Default)]
pub(in crate::http) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(in crate::http) fn parse(query: Option<&str>) -> Self {
        let uri: Result<Uri, _> = format!("/?{}", query.unwrap_or_default()).parse();
        let pairs = uri.ok().and_then(|uri| Query::try_from_uri(&uri).ok());
        Self(pairs.map(|Query(pairs)| pairs).unwrap_or_default())
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    }

    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is there and not empty: UIs send empty ones for fields left blank.
    fn given(&self, name: &str) -> Option<&str> {
        self.first(name).filter(|value| !value.is_empty())
    }
}

/// A search for traces.
#[derive(Debug)]
pub(in crate::http) struct Search {
    service: String,
    operation: Option<String>,
    tags: Vec<(String, String)>,
    since_us: u64,
    until_us: Option<u64>,
    min_duration: Option<Duration>,
    max_duration: Option<Duration>,
    pub(super) limit: usize,
}

impl Search {
    pub(in crate::http) fn read(parameters: &Parameters, now_us: u64) -> Result<Self, JaegerError> {
        let service = parameters.given("service");
        let service = service.ok_or_else(|| JaegerError::bad_request("parameter 'service' is required"))?;
        let lookback = parameters.given("lookback").and_then(|text| humantime::parse_duration(text).ok());
        let lookback_us = lookback.unwrap_or(DEFAULT_LOOKBACK).as_micros() as u64;
        let since_us = number(parameters, "start")?.unwrap_or(now_us.saturating_sub(lookback_us));
        let limit = number(parameters, "limit")?.unwrap_or(DEFAULT_LIMIT as u64);
        Ok(Self {
            service: service.to_owned(),
            operation: parameters.given("operation").map(str::to_owned),
            tags: tags(parameters)?,
            since_us,
            until_us: number(parameters, "end")?,
            min_duration: duration(parameters, "minDuration")?,
            max_duration: duration(parameters, "maxDuration")?,
            limit: (limit as usize).clamp(1, Filter::MAX_LIMIT),
        })
    }

    /// What history can judge. It knows durations of calls, not of every span, and neither
    /// operations nor tags: with those, more is read than wanted and [`matches`](Self::matches) decides.
    pub(in crate::http) fn filter(&self) -> Filter {
        let by_span = self.operation.is_some() || !self.tags.is_empty();
        let durations = if by_span { (None, None) } else { (self.min_duration, self.max_duration) };
        Filter {
            function: self.service.parse::<FunctionName>().ok(),
            since_us: Some(self.since_us),
            until_us: self.until_us,
            min_duration: durations.0,
            max_duration: durations.1,
            limit: if by_span { Filter::MAX_LIMIT } else { self.limit },
            ..Filter::default()
        }
    }

    /// Which traces history is to show.
    pub(in crate::http) fn which(&self) -> Which {
        Which::OfService(self.service.clone(), self.filter())
    }

    /// Whether one span of the trace meets everything.
    pub(super) fn matches(&self, trace: &Trace) -> bool {
        let own = trace.spans.iter().filter(|span| trace.service_of(span) == self.service);
        own.into_iter().any(|span| self.matches_span(span))
    }

    fn matches_span(&self, span: &Span) -> bool {
        let duration = Duration::from_micros(span.duration);
        self.operation.as_ref().is_none_or(|operation| *operation == span.operation_name)
            && self.min_duration.is_none_or(|least| duration >= least)
            && self.max_duration.is_none_or(|most| duration <= most)
            && self.tags.iter().all(|(key, value)| span.has_tag(key, value))
    }
}

fn number(parameters: &Parameters, name: &str) -> Result<Option<u64>, JaegerError> {
    let refuse = |text| JaegerError::bad_request(format!("unable to parse param '{name}': {text:?}"));
    parameters.given(name).map(|text| text.parse().map_err(|_| refuse(text))).transpose()
}

/// A duration as Go prints it: `1.2s`, `100ms`, `1m30s`, `500us`.
fn duration(parameters: &Parameters, name: &str) -> Result<Option<Duration>, JaegerError> {
    let refuse = |text| JaegerError::bad_request(format!("unable to parse param '{name}': {text:?}"));
    parameters.given(name).map(|text| go_duration(text).ok_or_else(|| refuse(text))).transpose()
}

fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(unit_at);
        let next_at = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(next_at);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = next;
    }
    Some(total).filter(|_| !text.is_empty())
}

/// `tags={"key":"value"}` and `tag=key:value`.
fn tags(parameters: &Parameters) -> Result<Vec<(String, String)>, JaegerError> {
    let mut tags = Vec::new();
    for text in parameters.all("tags").filter(|text| !text.is_empty()) {
        let object: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(text);
        let object = object.map_err(|_| {
            JaegerError::bad_request(format!("malformed 'tags' parameter, expecting a JSON object: {text:?}"))
        })?;
        tags.extend(object.into_iter().map(|(key, value)| match value {
            serde_json::Value::String(text) => (key, text),
            other => (key, other.to_string()),
        }));
    }
    for text in parameters.all("tag") {
        let pair = text.split_once(':').ok_or_else(|| {
            JaegerError::bad_request(format!("malformed 'tag' parameter, expecting key:value: {text:?}"))
        })?;
        tags.push((pair.0.to_owned(), pair.1.to_owned()));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{call, found};
    use super::super::model::{LogLines, Room};
    use super::*;

    fn read(query: &str) -> Result<Search, JaegerError> {
        Search::read(&Parameters::parse(Some(query)), 1_000_000_000_000_000)
    }

    #[test]
    fn parameters_are_jaegers() {
        let search =
            read("service=cats&start=5&end=9&minDuration=1.5ms&limit=20&operation=&tags=").expect("all fit");
        let filter = search.filter();
        assert_eq!((filter.since_us, filter.until_us, filter.limit), (Some(5), Some(9), 20));
        assert_eq!(filter.min_duration, Some(Duration::from_micros(1_500)));
        assert_eq!(read("service=cats&lookback=1h").expect("fits").since_us, 999_996_400_000_000);
        for bad in ["", "service=", "service=a&start=x", "service=a&minDuration=5", "service=a&tags=[]"] {
            assert_eq!(read(bad).expect_err(bad).code, 400, "{bad}");
        }
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(go_duration("100µs"), Some(Duration::from_micros(100)));
        assert_eq!(go_duration("0.25s"), Some(Duration::from_millis(250)));
        let beyond = "18446744073709551000s18446744073709551000s";
        for bad in ["", "5", "s", "1x", "1.2.3s", "-1s", beyond] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_span_must_meet_everything() {
        let trace = Trace::of(&found(vec![call()]), LogLines::LeaveOut, &mut Room::default());
        let meets = |query: &str| read(&format!("service=cats&{query}")).expect(query).matches(&trace);
        assert!(meets(""));
        assert!(meets("operation=fetch&minDuration=100us&maxDuration=200us"));
        assert!(!meets("operation=fetch&minDuration=200us"));
        assert!(meets("tags=%7B%22rows%22%3A%224%22%2C%22ok%22%3A%22true%22%7D"));
        assert!(!meets("tag=rows:4&tag=error:true"), "the tags are on different spans");
        assert!(!meets("operation=other"));
        assert!(!read("service=dogs").expect("fits").matches(&trace));
    }
}
