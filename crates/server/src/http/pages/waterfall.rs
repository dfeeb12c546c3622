//! A trace as rows: spans in tree order with their place on the time axis.
//!
//! Pure. Spans of all invocations of a trace nest by parent id, so a call made inside an
//! author's span hangs under it. Clocks of other machines may disagree, parents may be missing
//! (a caller's own span, history that was not kept) and ids may repeat: every span gives
//! exactly one row, whatever the input.

use std::collections::{HashMap, HashSet};

use askama::Template;
use fp_core::SpanId;
use fp_core::record::{LogLine, LogSource, Span};

use super::chart::unit;
use super::text;

/// Rows of one page; a larger trace is cut with a note, since a browser slows down beyond.
const MAX_ROWS: usize = 1_500;
/// Deepest indentation that is drawn; deeper spans stay at it.
const MAX_DEPTH: usize = 12;

/// What a span is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The whole call.
    Call,
    /// One of the platform's phases.
    Phase,
    /// The author's.
    Author,
}

/// A span with what a row says about it besides.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) span: Span,
    pub(super) kind: Kind,
    pub(super) function: String,
    /// Where the invocation's page is.
    pub(super) link: Option<String>,
    /// Logs, on the root span of a call.
    pub(super) logs: Vec<LogLine>,
}

/// A key and its value, both as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    pub(super) key: String,
    pub(super) value: String,
}

/// Something that happened during a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: String,
    pub(super) name: String,
    pub(super) attributes: Vec<Attribute>,
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogRow {
    pub(super) time: String,
    pub(super) source: &'static str,
    pub(super) tone: &'static str,
    pub(super) text: String,
}

/// One span's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) depth: usize,
    pub(super) name: String,
    pub(super) function: String,
    /// Class of the bar: `call`, `author` or the phase's name.
    pub(super) class: String,
    /// Left end and width of the bar, in percent of the axis.
    pub(super) x: String,
    pub(super) width: String,
    /// Start after the trace's, for people.
    pub(super) start: String,
    pub(super) duration: String,
    pub(super) error: Option<String>,
    pub(super) span_id: String,
    pub(super) link: Option<String>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) events: Vec<Event>,
    pub(super) logs: Vec<LogRow>,
    /// Its parent is elsewhere or was not kept.
    pub(super) parent_missing: bool,
}

/// A trace, ready to draw.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "parts/waterfall.html")]
pub(super) struct Waterfall {
    pub(super) rows: Vec<Row>,
    /// Words at 0, 25, 50, 75 and 100 % of the axis.
    pub(super) ticks: Vec<String>,
    /// How many rows were left out.
    pub(super) cut: usize,
    /// From the first start to the last end.
    pub(super) duration: String,
}

impl askama::filters::HtmlSafe for Waterfall {}

/// Lays a trace out.
pub(super) fn waterfall(inputs: Vec<Input>) -> Waterfall {
    let start = inputs.iter().map(|i| i.span.start_ns).min().unwrap_or(0);
    let end =
        inputs.iter().map(|i| i.span.start_ns.saturating_add(i.span.duration_ns)).max().unwrap_or(start);
    let axis = Axis { start, length: (end - start).max(1) };
    let order = tree_order(&inputs);
    let cut = order.len().saturating_sub(MAX_ROWS);
    let rows =
        order.into_iter().take(MAX_ROWS).map(|place| row(&inputs[place.index], &place, &axis)).collect();
    let ticks = (0..=4).map(|quarter| text::duration((end - start) / 4 * quarter)).collect();
    Waterfall { rows, ticks, cut, duration: text::duration(end - start) }
}

struct Axis {
    start: u64,
    length: u64,
}

impl Axis {
    fn percent(&self, nanoseconds: u64) -> f64 {
        (nanoseconds as f64 / self.length as f64 * 100.0).clamp(0.0, 100.0)
    }
}

struct Place {
    index: usize,
    depth: usize,
    parent_missing: bool,
}

/// Depth first, children by start time; every input exactly once.
fn tree_order(inputs: &[Input]) -> Vec<Place> {
    let mut first_with: HashMap<SpanId, usize> = HashMap::new();
    for (index, input) in inputs.iter().enumerate() {
        first_with.entry(input.span.span_id).or_insert(index);
    }
    let parent = |index: usize| {
        let id = inputs[index].span.parent_span_id?;
        first_with.get(&id).copied().filter(|parent| *parent != index)
    };
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for index in 0..inputs.len() {
        match parent(index) {
            Some(parent) => children.entry(parent).or_default().push(index),
            None => roots.push(index),
        }
    }
    let by_start = |index: &usize| (inputs[*index].span.start_ns, *index);
    roots.sort_by_key(by_start);
    children.values_mut().for_each(|list| list.sort_by_key(by_start));

    let mut order = Vec::with_capacity(inputs.len());
    let mut seen = HashSet::new();
    // Spans in a ring of parents have no root above them: they start after the real roots.
    for top in roots.into_iter().chain(0..inputs.len()) {
        let mut stack = vec![(top, 0)];
        while let Some((index, depth)) = stack.pop() {
            if !seen.insert(index) {
                continue;
            }
            let parent_missing = depth == 0 && inputs[index].span.parent_span_id.is_some();
            order.push(Place { index, depth: depth.min(MAX_DEPTH), parent_missing });
            let below = children.get(&index).into_iter().flatten().rev();
            stack.extend(below.map(|child| (*child, depth + 1)));
        }
    }
    order
}

fn row(input: &Input, place: &Place, axis: &Axis) -> Row {
    let span = &input.span;
    let from_start = span.start_ns.saturating_sub(axis.start);
    // A span too short for a pixel still shows: a fifth of a percent.
    let width = axis.percent(span.duration_ns).max(0.2);
    let x = axis.percent(from_start).min(100.0 - width);
    Row {
        depth: place.depth,
        name: span.name.to_string(),
        function: input.function.clone(),
        class: match input.kind {
            Kind::Call => "call".into(),
            Kind::Author => "author".into(),
            Kind::Phase => span.name.to_string(),
        },
        x: unit(x),
        width: unit(width),
        start: text::duration(from_start),
        duration: text::duration(span.duration_ns),
        error: span.error.as_deref().map(str::to_owned),
        span_id: span.span_id.to_string(),
        link: input.link.clone(),
        attributes: attributes(&span.attributes),
        events: span
            .events
            .iter()
            .map(|event| Event {
                at: text::duration(event.time_ns.saturating_sub(axis.start)),
                name: event.name.to_string(),
                attributes: attributes(&event.attributes),
            })
            .collect(),
        logs: log_rows(&input.logs),
        parent_missing: place.parent_missing,
    }
}

fn attributes(pairs: &[(Box<str>, serde_json::Value)]) -> Vec<Attribute> {
    pairs.iter().map(|(key, value)| Attribute { key: key.to_string(), value: value_text(value) }).collect()
}

/// A string as it is, anything else as JSON.
fn value_text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Log lines as rows, without the newline that ends each.
pub(super) fn log_rows(lines: &[LogLine]) -> Vec<LogRow> {
    lines
        .iter()
        .map(|line| LogRow {
            time: text::clock_time(line.time_us),
            source: source_word(line),
            tone: tone(line),
            text: line.text.strip_suffix('\n').unwrap_or(&line.text).to_owned(),
        })
        .collect()
}

fn source_word(line: &LogLine) -> &'static str {
    match (line.source, line.level.as_deref()) {
        (LogSource::Logging, Some("DEBUG")) => "debug",
        (LogSource::Logging, Some("WARNING")) => "warn",
        (LogSource::Logging, Some("ERROR")) => "error",
        (LogSource::Logging, Some("CRITICAL")) => "critical",
        (LogSource::Logging, _) => "info",
        (LogSource::Stdout, _) => "stdout",
        (LogSource::Stderr, _) => "stderr",
        (LogSource::Descriptor, _) => "fd",
        (LogSource::Platform, _) => "platform",
    }
}

fn tone(line: &LogLine) -> &'static str {
    match source_word(line) {
        "error" | "critical" => "bad",
        "warn" | "stderr" => "warn",
        "platform" => "note",
        "debug" => "quiet",
        _ => "plain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: u64, parent: Option<u64>, start_ns: u64, duration_ns: u64, name: &str) -> Input {
        Input {
            span: Span {
                span_id: SpanId(id.to_be_bytes()),
                parent_span_id: parent.map(|p| SpanId(p.to_be_bytes())),
                name: name.into(),
                start_ns,
                duration_ns,
                attributes: Vec::new(),
                events: Vec::new(),
                error: None,
            },
            kind: Kind::Author,
            function: "f".into(),
            link: None,
            logs: Vec::new(),
        }
    }

    fn shape(fall: &Waterfall) -> Vec<(usize, &str, &str, &str)> {
        fall.rows.iter().map(|r| (r.depth, r.name.as_str(), r.x.as_str(), r.width.as_str())).collect()
    }

    #[test]
    fn spans_nest_by_parent_and_sort_by_start() {
        let fall = waterfall(vec![
            span(3, Some(1), 1_500, 500, "late"),
            span(1, None, 1_000, 1_000, "root"),
            span(2, Some(1), 1_000, 250, "early"),
            span(4, Some(2), 1_100, 100, "inner"),
        ]);
        assert_eq!(
            shape(&fall),
            [
                (0, "root", "0", "100"),
                (1, "early", "0", "25"),
                (2, "inner", "10", "10"),
                (1, "late", "50", "50")
            ]
        );
        assert_eq!(fall.ticks, ["0 µs", "0.2 µs", "0.5 µs", "0.8 µs", "1.0 µs"]);
    }

    #[test]
    fn a_span_whose_parent_was_not_kept_is_a_root_that_says_so() {
        let fall = waterfall(vec![span(1, Some(99), 0, 10, "remote child")]);
        assert_eq!(fall.rows[0].depth, 0);
        assert!(fall.rows[0].parent_missing);
    }

    #[test]
    fn rings_and_repeated_ids_give_each_span_one_row() {
        let fall = waterfall(vec![
            span(1, Some(2), 0, 10, "a"),
            span(2, Some(1), 0, 10, "b"),
            span(3, Some(3), 0, 10, "own parent"),
            span(4, None, 0, 10, "c"),
            span(4, None, 0, 10, "c again"),
        ]);
        let mut names: Vec<_> = fall.rows.iter().map(|r| r.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c", "c again", "own parent"]);
    }

    #[test]
    fn short_spans_stay_visible_inside_the_axis() {
        let fall =
            waterfall(vec![span(1, None, 0, 1_000_000, "long"), span(2, Some(1), 1_000_000, 0, "end")]);
        assert_eq!(shape(&fall)[1], (1, "end", "99.8", "0.2"));
    }

    #[test]
    fn depth_and_rows_are_bounded() {
        let chain = (1..=5_000).map(|at| span(at, Some(at - 1), at, 1, "s")).collect();
        let fall = waterfall(chain);
        assert_eq!(fall.rows.len(), MAX_ROWS);
        assert_eq!(fall.cut, 5_000 - MAX_ROWS);
        assert_eq!(fall.rows.iter().map(|r| r.depth).max(), Some(MAX_DEPTH));
        assert!(waterfall(Vec::new()).rows.is_empty());
    }
}
