//! The small pieces pages are made of, each a struct with its own template.
//!
//! Templates escape everything that is text; a piece marks itself as markup because its own
//! template has escaped what is inside. Nothing else may be marked so.

use askama::Template;
use askama::filters::HtmlSafe;
use fp_core::Outcome;
use fp_core::record::State;

use super::chart::unit;
use super::text;

/// A word with a colour: an outcome, a state.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/badge.html")]
pub(super) struct Badge {
    pub(super) word: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) tone: &'static str,
}

impl HtmlSafe for Badge {}

impl Badge {
    /// An outcome's badge.
    pub(super) fn outcome(outcome: Outcome) -> Self {
        Self { word: outcome.word(), reason: outcome.reason(), tone: word_tone(outcome.word()) }
    }

    /// An outcome's badge from its word alone.
    pub(super) fn word(word: &'static str) -> Self {
        Self { word, reason: None, tone: word_tone(word) }
    }

    /// The badge of a call that has not ended.
    pub(super) fn state(state: State) -> Self {
        let word = match state {
            State::Queued => "queued",
            State::Running => "running",
            State::Done => "done",
        };
        Self { word, reason: None, tone: "live" }
    }
}

/// Good and neutral outcomes are few; whatever else there is, is bad.
fn word_tone(word: &str) -> &'static str {
    match word {
        "ok" => "good",
        "cancelled" | "quota_exceeded" => "plain",
        "shed" | "deadline_exceeded" => "warn",
        _ => "bad",
    }
}

/// How much of an error budget is left.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/meter.html")]
pub(super) struct Meter {
    pub(super) width: String,
    pub(super) tone: &'static str,
    pub(super) word: String,
}

impl HtmlSafe for Meter {}

impl Meter {
    /// The meter of a budget: 1 untouched, negative when overspent.
    pub(super) fn budget(left: f64) -> Self {
        Self {
            width: unit(left.clamp(0.0, 1.0) * 100.0),
            tone: budget_tone(left),
            word: if left < 0.0 { format!("{} over", text::percent(-left)) } else { text::percent(left) },
        }
    }
}

/// A quarter left is the usual point at which teams slow releases down.
pub(super) fn budget_tone(left: f64) -> &'static str {
    match left {
        _ if left <= 0.0 => "bad",
        _ if left < 0.25 => "warn",
        _ => "good",
    }
}

/// A line to run in a shell, with a button that copies it.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/command.html")]
pub(super) struct Command {
    pub(super) label: &'static str,
    pub(super) line: String,
}

impl HtmlSafe for Command {}

/// What to do where there is nothing to see yet.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/hint.html")]
pub(super) struct Hint {
    pub(super) title: String,
    pub(super) text: String,
    pub(super) lines: Vec<Command>,
}

impl HtmlSafe for Hint {}

/// Links to the pages before and after.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "parts/pager.html")]
pub(super) struct Pager {
    pub(super) earlier: Option<String>,
    pub(super) earlier_word: &'static str,
    pub(super) here: String,
    pub(super) later: Option<String>,
    pub(super) later_word: &'static str,
}

impl HtmlSafe for Pager {}

/// A figure at a page's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) note: String,
    pub(super) tone: &'static str,
}

impl Stat {
    /// A figure without a colour.
    pub(super) fn new(label: &'static str, value: impl Into<String>, note: impl Into<String>) -> Self {
        Self { label, value: value.into(), note: note.into(), tone: "plain" }
    }

    /// The same figure in a colour.
    pub(super) fn toned(self, tone: &'static str) -> Self {
        Self { tone, ..self }
    }
}

/// A key and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: String,
}

impl Pair {
    /// A pair.
    pub(super) fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// An HTTP event type: the verb and the path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventWords {
    pub(super) verb: String,
    pub(super) path: String,
}

impl EventWords {
    /// Takes an event type's text apart.
    pub(super) fn of(event_type: &str) -> Self {
        let mut parts = event_type.splitn(3, '|').skip(1);
        let mut next = || parts.next().unwrap_or_default().to_owned();
        Self { verb: next(), path: next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_reads_left_or_over() {
        assert_eq!(Meter::budget(0.72).word, "72%");
        assert_eq!(Meter::budget(0.1).tone, "warn");
        let over = Meter::budget(-1.4);
        assert_eq!((over.word.as_str(), over.width.as_str(), over.tone), ("140% over", "0", "bad"));
    }

    #[test]
    fn every_outcome_has_a_tone() {
        assert_eq!(Badge::outcome(Outcome::Ok).tone, "good");
        assert_eq!(Badge::outcome(Outcome::Cancelled).tone, "plain");
        assert_eq!(Badge::outcome(Outcome::Crashed).tone, "bad");
    }

    #[test]
    fn an_event_type_is_a_verb_and_a_path() {
        let words = EventWords::of("http|GET|/a|b");
        assert_eq!((words.verb.as_str(), words.path.as_str()), ("GET", "/a|b"));
    }
}
