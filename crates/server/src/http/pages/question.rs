//! Questions about many calls, and their answers as a table.

use askama::Template;
use fp_core::query::{By, Key, Kind, NONE, Number, Query, Row};

use super::shell::Shell;
use super::text;
use crate::history::Answer;
use crate::http::question::name_of;

/// Where the page is.
pub(super) const PATH: &str = "/ui/query";

/// What is asked where nothing is.
pub(super) const FIRST: &str = "since 1h group by function, outcome";

/// Questions to begin with: what they tell, and themselves.
const EXAMPLES: [(&str, &str); 6] = [
    ("What fails, and why", "outcome != ok since 1h group by function, outcome, reason"),
    ("Since when", "outcome != ok since 1h group by time(5m), function"),
    ("Which version", "since 1d group by function, version order by p99"),
    ("Who waits for a worker", "phase.queue > 10ms since 1h group by function of phase.queue"),
    ("What cold starts cost", "cold since 1d group by function of phase.start"),
    ("Which errors", "error != none since 1d group by error, function limit 20"),
];

/// An example.
#[derive(Debug)]
struct Example {
    word: &'static str,
    question: &'static str,
    link: String,
}

/// A row of the answer.
#[derive(Debug)]
struct Line {
    group: Vec<String>,
    count: String,
    rate: String,
    failed: String,
    is_failing: bool,
    measures: [String; 5],
    slowest: Option<String>,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "query.html")]
pub(super) struct QueryPage {
    shell: Shell,
    question: String,
    examples: Vec<Example>,
    problem: Option<String>,
    /// Over which time, and what is missing.
    note: String,
    measure: &'static str,
    titles: Vec<&'static str>,
    lines: Vec<Line>,
}

/// Makes the page: of an answer, or of why there is none.
pub(super) fn page(shell: Shell, question: &str, asked: Result<(Query, Answer), String>) -> QueryPage {
    let example = |(word, question): (&'static str, &'static str)| Example {
        word,
        question,
        link: format!("{PATH}?q={}", encoded(question)),
    };
    let page = QueryPage {
        question: question.to_owned(),
        examples: EXAMPLES.into_iter().map(example).collect(),
        problem: None,
        note: String::new(),
        measure: "",
        titles: Vec::new(),
        lines: Vec::new(),
        shell: shell.titled("Query").still(),
    };
    match asked {
        Err(problem) => QueryPage { problem: Some(problem), ..page },
        Ok((query, answer)) => {
            let seconds = answer.to_us.saturating_sub(answer.from_us).max(1) as f64 / 1e6;
            QueryPage {
                note: note(&answer),
                measure: query.measure.name(),
                titles: query.group_by.iter().map(|by| name_of(*by)).collect(),
                lines: answer.rows.iter().map(|row| line(&query, row, seconds, &page.shell)).collect(),
                ..page
            }
        }
    }
}

fn note(answer: &Answer) -> String {
    let time = |us| text::absolute(us).1;
    let mut note =
        format!("Ended calls that arrived from {} to {}.", time(answer.from_us), time(answer.to_us));
    if !answer.is_whole {
        note.push_str(
            " The time that was asked for holds more than could be looked at: earlier calls are not in it.",
        );
    }
    if answer.left_out > 0 {
        note.push_str(&format!(
            " {} more were left out by the limit.",
            text::plural(answer.left_out as u64, "row")
        ));
    }
    note
}

fn line(query: &Query, row: &Row, seconds: f64, shell: &Shell) -> Line {
    let show = |value: Option<f64>| value.map_or("–".to_owned(), |value| shown(query.measure, value));
    let percentile = |per_mille| show(row.spread.percentile(per_mille));
    Line {
        group: query.group_by.iter().zip(&row.key).map(|(by, key)| cell(*by, key)).collect(),
        count: text::count(row.count),
        rate: text::rate(row.count as f64 / seconds),
        failed: if row.failed == 0 { "0".to_owned() } else { text::share(row.failed_share()) },
        is_failing: row.failed > 0,
        measures: [
            percentile(500),
            percentile(900),
            percentile(990),
            percentile(999),
            show(row.spread.max().map(|max| max as f64)),
        ],
        slowest: row.slowest.map(|trace| shell.trace_link(trace)),
    }
}

fn cell(by: By, key: &Key) -> String {
    match (by, key) {
        (_, Key::Number(NONE) | Key::Text(None)) => "–".to_owned(),
        (_, Key::Text(Some(text))) => text.to_string(),
        (_, Key::Time(us)) => text::absolute(*us).1,
        (By::Number(field), Key::Number(number)) => shown(field, *number as f64),
        (_, Key::Number(number)) => number.to_string(),
    }
}

fn shown(field: Number, value: f64) -> String {
    match field.kind() {
        Kind::Time => text::duration(value as u64),
        Kind::Bytes => text::bytes(value as u64),
        Kind::Truth => (if value == 0.0 { "no" } else { "yes" }).to_owned(),
        Kind::Plain => text::plain(value),
    }
}

/// As a value in a link.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => (byte as char).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_can_be_asked() {
        for question in EXAMPLES.map(|(_, question)| question).into_iter().chain([FIRST]) {
            Query::parse(question).unwrap_or_else(|error| panic!("{question}: {error}"));
        }
    }

    #[test]
    fn links_keep_every_character() {
        assert_eq!(encoded("a != \"é\""), "a%20%21%3D%20%22%C3%A9%22");
    }
}
