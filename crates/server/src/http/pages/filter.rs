//! The filter of lists: a plain GET form, read leniently and shown back as it was understood.
//!
//! A value that cannot be read is not used, is marked in the form and said in one sentence;
//! the rest of the filter still applies.

use std::time::Duration;

use askama::Template;
use askama::filters::HtmlSafe;
use fp_core::{FunctionName, Outcome};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::history::{Cursor, Filter};

/// Calls of a page.
pub(super) const PAGE: usize = 50;

/// The choice that stands for every outcome a function or the platform is to blame for.
pub(super) const FAILED: &str = "failed";

/// The form's fields as they come; empty ones count as not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Fields {
    #[serde(default, alias = "service")]
    function: String,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    since: String,
    #[serde(default, alias = "minDuration")]
    min: String,
    #[serde(default, alias = "maxDuration")]
    max: String,
    #[serde(default)]
    cursor: String,
    #[serde(skip)]
    unreadable: bool,
}

/// What the fields mean.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// For history. Its outcome is none when [`Wanted::failed`] is set.
    pub(super) filter: Filter,
    /// Every failure, whatever its outcome.
    pub(super) failed: bool,
    /// A value could not be read: nothing that was asked for can be shown.
    pub(super) problem: Option<String>,
}

/// An entry of a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) value: String,
    pub(super) word: String,
    pub(super) chosen: bool,
}

/// The form, filled in.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/filter_form.html")]
pub(super) struct FilterForm {
    pub(super) action: &'static str,
    pub(super) verb: &'static str,
    pub(super) function: String,
    pub(super) functions: Vec<String>,
    pub(super) outcomes: Vec<Choice>,
    pub(super) times: Vec<Choice>,
    pub(super) min: String,
    pub(super) max: String,
    pub(super) min_wrong: bool,
    pub(super) max_wrong: bool,
    pub(super) changed: bool,
    pub(super) problem: Option<String>,
}

impl HtmlSafe for FilterForm {}

impl Fields {
    /// The fields of an address that is no query.
    pub(super) fn unreadable() -> Self {
        Self { unreadable: true, ..Self::default() }
    }

    /// Reads the fields.
    pub(super) fn wanted(&self, now_us: u64) -> Wanted {
        let twice = || "The address names a field twice; nothing of it was used.".to_owned();
        let mut problem = self.unreadable.then(twice);
        let mut say = |text: Option<String>| problem = problem.take().or(text);
        let function = given(&self.function).and_then(|name| match name.parse::<FunctionName>() {
            Ok(name) => Some(name),
            Err(error) => {
                say(Some(format!("{error}.")));
                None
            }
        });
        let outcome = given(&self.outcome);
        let known = outcome.is_none_or(|word| word == FAILED || Outcome::words().any(|known| known == word));
        if !known {
            say(Some(format!("{} is not an outcome.", self.outcome)));
        }
        let mut duration = |name: &str, value: &str| {
            let read = given(value).map(read_duration);
            if let Some(None) = read {
                say(Some(format!("“{name}” is not a duration: write it like 250ms or 1.5s.")));
            }
            read.flatten()
        };
        let (min_duration, max_duration) = (duration("At least", &self.min), duration("At most", &self.max));
        let since_us = given(&self.since).and_then(|value| read_time(value, now_us));
        if since_us.is_none() && given(&self.since).is_some() {
            say(Some("“Time” is neither a duration like 15m nor a time like 2026-11-23T06:45:00Z.".into()));
        }
        let cursor = given(&self.cursor).and_then(|text| text.parse::<Cursor>().ok());
        let failed = outcome == Some(FAILED);
        let filter = Filter {
            function,
            outcome: outcome.filter(|_| known && !failed).map(str::to_owned),
            since_us,
            min_duration,
            max_duration,
            limit: PAGE,
            cursor,
            ..Filter::default()
        };
        Wanted { filter, failed, problem }
    }

    /// The form with these fields filled in. `functions` are suggested.
    pub(super) fn form(
        &self,
        action: &'static str,
        verb: &'static str,
        functions: Vec<String>,
    ) -> FilterForm {
        let wrong = |value: &str| given(value).is_some_and(|value| read_duration(value).is_none());
        FilterForm {
            action,
            verb,
            function: self.function.trim().to_owned(),
            functions,
            outcomes: self.outcomes(),
            times: self.times(),
            min: self.min.trim().to_owned(),
            max: self.max.trim().to_owned(),
            min_wrong: wrong(&self.min),
            max_wrong: wrong(&self.max),
            changed: self.is_narrowed(),
            problem: self.wanted(0).problem,
        }
    }

    /// Something is asked for.
    pub(super) fn is_narrowed(&self) -> bool {
        self.pairs().next().is_some()
    }

    /// The page that begins after a cursor, or the first page.
    pub(super) fn link(&self, action: &str, cursor: Option<&Cursor>) -> String {
        let cursor = cursor.map(|cursor| ("cursor", cursor.to_string()));
        let query: Vec<_> = self
            .pairs()
            .map(|(key, value)| (key, value.to_owned()))
            .chain(cursor)
            .map(|(key, value)| format!("{key}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC)))
            .collect();
        if query.is_empty() { action.into() } else { format!("{action}?{}", query.join("&")) }
    }

    /// This is not the first page.
    pub(super) fn is_later_page(&self) -> bool {
        given(&self.cursor).is_some()
    }

    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let pairs = [
            ("function", &self.function),
            ("outcome", &self.outcome),
            ("since", &self.since),
            ("min", &self.min),
            ("max", &self.max),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key, given(value)?)))
    }

    fn outcomes(&self) -> Vec<Choice> {
        let choice = |value: &str, word: &str| Choice {
            value: value.into(),
            word: word.into(),
            chosen: self.outcome.trim() == value,
        };
        let named = Outcome::words().map(|word| choice(word, word));
        [choice("", "any"), choice(FAILED, "failed, all kinds")].into_iter().chain(named).collect()
    }

    fn times(&self) -> Vec<Choice> {
        const TIMES: [(&str, &str); 6] = [
            ("", "any time"),
            ("15m", "last 15 minutes"),
            ("1h", "last hour"),
            ("6h", "last 6 hours"),
            ("1d", "last day"),
            ("7d", "last 7 days"),
        ];
        let own = self.since.trim();
        let choice = |(value, word): (&str, &str)| Choice {
            value: value.into(),
            word: word.into(),
            chosen: own == value,
        };
        let mut choices: Vec<_> = TIMES.into_iter().map(choice).collect();
        if choices.iter().all(|choice| !choice.chosen) {
            choices.push(choice((own, &format!("since {own}"))));
        }
        choices
    }
}

fn given(value: &str) -> Option<&str> {
    Some(value.trim()).filter(|value| !value.is_empty())
}

/// A duration with a unit, or a number of milliseconds.
fn read_duration(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(ms) => Duration::try_from_secs_f64(ms / 1e3).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    }
}

/// A time, or how long ago.
fn read_time(text: &str, now_us: u64) -> Option<u64> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Some(now_us.saturating_sub(u64::try_from(ago.as_micros()).ok()?));
    }
    u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_microsecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(query: &str) -> Fields {
        serde_urlencoded(query)
    }

    /// Reads a query the way the extractor does.
    fn serde_urlencoded(query: &str) -> Fields {
        let uri: http::Uri = format!("/?{query}").parse().expect("a URI");
        axum::extract::Query::try_from_uri(&uri).expect("any query can be read").0
    }

    #[test]
    fn an_empty_form_asks_for_everything() {
        let empty = fields("function=&outcome=&since=&min=&max=");
        assert!(!empty.is_narrowed());
        assert_eq!(empty.wanted(9).filter, Filter { limit: PAGE, ..Filter::default() });
        assert_eq!(empty.link("/x", None), "/x");
    }

    #[test]
    fn every_field_reaches_the_filter() {
        let wanted = fields("function=cats&outcome=timeout&since=15m&min=250ms&max=2").wanted(1_000_000_000);
        assert_eq!(wanted.problem, None);
        assert_eq!(wanted.filter.function.expect("given").as_str(), "cats");
        assert_eq!(wanted.filter.outcome.as_deref(), Some("timeout"));
        assert_eq!(wanted.filter.since_us, Some(100_000_000));
        assert_eq!(wanted.filter.min_duration, Some(Duration::from_millis(250)));
        assert_eq!(
            wanted.filter.max_duration,
            Some(Duration::from_millis(2)),
            "a bare number is milliseconds"
        );
    }

    #[test]
    fn jaegers_names_work_too() {
        let wanted = fields("service=cats&minDuration=1s").wanted(0);
        assert_eq!(wanted.filter.function.expect("given").as_str(), "cats");
        assert_eq!(wanted.filter.min_duration, Some(Duration::from_secs(1)));
    }

    #[test]
    fn nonsense_is_said_and_shown_back() {
        let odd = fields("function=a%2Fb&min=fast&since=%3Cb%3E");
        assert!(odd.wanted(0).problem.is_some());
        let form = odd.form("/x", "Filter", Vec::new());
        assert!(form.min_wrong);
        let html = form.to_string();
        assert!(!html.contains("<b>"), "{html}");
        assert!(fields("outcome=nonsense").wanted(0).problem.is_some());
        assert!(fields("max=-1").wanted(0).problem.is_some());
    }

    #[test]
    fn failed_is_no_outcome_of_history() {
        let wanted = fields("outcome=failed").wanted(0);
        assert!(wanted.failed && wanted.problem.is_none());
        assert_eq!(wanted.filter.outcome, None);
    }

    #[test]
    fn links_keep_the_filter_and_are_encoded() {
        assert_eq!(fields("function=a%26b&min=1s").link("/x", None), "/x?function=a%26b&min=1s");
    }
}
