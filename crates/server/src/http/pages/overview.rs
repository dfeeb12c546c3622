//! The overview: is everything well, and where to look if not.
//!
//! A page of functions at a time: figures of ten thousand functions are too many to read and
//! to compute on every refresh. Totals are over the functions shown, and say so when these are
//! not all.

use askama::Template;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::calls::CallsTable;
use super::chart::{Minute, Sparkline, sparkline};
use super::parts::{Command, EventWords, Hint, Meter, Pager, Stat, budget_tone};
use super::shell::Shell;
use super::text;
use crate::history::Entry;
use crate::slo::{FunctionView, SloView};

/// Functions of one page.
pub(super) const PAGE: usize = 100;
/// Event types of a row; more are counted.
const MAX_EVENTS: usize = 3;

/// A function, as the overview needs it.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) events: Vec<String>,
    pub(super) view: FunctionView,
    pub(super) slo: Option<SloView>,
    pub(super) workers: usize,
    pub(super) busy: usize,
}

/// What the overview is made of.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) functions: Vec<Summary>,
    /// All functions that match the query.
    pub(super) matching: usize,
    /// All functions.
    pub(super) total: usize,
    pub(super) query: String,
    /// Which page, from 0.
    pub(super) page: usize,
    pub(super) workers: usize,
    pub(super) busy: usize,
    pub(super) running: usize,
    pub(super) failures: Vec<Entry>,
    pub(super) recent: Vec<Entry>,
    /// Start of the views' current minute.
    pub(super) minute_us: u64,
    pub(super) now_us: u64,
}

/// An objective in a row.
#[derive(Debug)]
pub(super) struct ObjectiveCell {
    pub(super) attained: String,
    pub(super) target: String,
    pub(super) tone: &'static str,
    pub(super) budget: Meter,
}

/// A function's row.
#[derive(Debug)]
pub(super) struct FunctionRow {
    pub(super) name: String,
    pub(super) link: String,
    pub(super) version: String,
    pub(super) events: Vec<EventWords>,
    pub(super) more_events: usize,
    pub(super) rate: String,
    pub(super) spark: Sparkline,
    pub(super) bad: String,
    pub(super) bad_tone: &'static str,
    pub(super) p50: String,
    pub(super) p99: String,
    pub(super) p99_tone: &'static str,
    pub(super) objective: Option<ObjectiveCell>,
    pub(super) workers: String,
}

/// A function that somebody should look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attention {
    pub(super) name: String,
    pub(super) link: String,
    pub(super) text: String,
    pub(super) tone: &'static str,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "overview.html")]
pub(super) struct OverviewPage {
    shell: Shell,
    stats: Vec<Stat>,
    empty: Option<Hint>,
    attention: Vec<Attention>,
    total: String,
    query: String,
    functions: Vec<FunctionRow>,
    pager: Pager,
    failures: CallsTable,
    recent: CallsTable,
    no_calls: Hint,
}

/// Makes the page.
pub(super) fn page(shell: Shell, input: &Input) -> OverviewPage {
    let table = |label, entries| CallsTable::new(label, entries, true, &shell, input.now_us);
    OverviewPage {
        stats: stats(input),
        empty: (input.total == 0).then(|| no_functions(&shell)),
        attention: input.functions.iter().filter_map(|function| attention(function, &shell)).collect(),
        total: text::count(input.total as u64),
        query: input.query.clone(),
        functions: input.functions.iter().map(|function| row(function, &shell, input.minute_us)).collect(),
        pager: pager(input),
        failures: table("Latest failures", &input.failures),
        recent: table("Latest calls", &input.recent),
        no_calls: no_calls(input, &shell),
        shell: shell.titled("Overview"),
    }
}

fn stats(input: &Input) -> Vec<Stat> {
    let shown = |all: &str| match input.functions.len() < input.total {
        true => format!("of the {} shown", text::plural(input.functions.len() as u64, "function")),
        false => all.to_owned(),
    };
    let rate: f64 = input.functions.iter().map(|f| f.view.rate_per_second).sum();
    let minutes = || input.functions.iter().flat_map(|f| &f.view.minutes);
    let calls: u64 = minutes().map(|minute| minute.calls).sum();
    let bad: u64 = minutes().map(|minute| minute.errors).sum();
    let slowest = input
        .functions
        .iter()
        .filter_map(|f| Some((f.view.p99_ms?, &f.name)))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let objectives = input.functions.iter().filter_map(|f| f.slo.as_ref());
    let (kept, all) = objectives.fold((0, 0), |(kept, all), slo| (kept + u64::from(is_kept(slo)), all + 1));
    vec![
        Stat::new("Calls", text::rate(rate), shown("over the last minute")),
        Stat::new(
            "Bad calls",
            text::percent(bad as f64 / calls.max(1) as f64),
            format!("{} of {} in the last hour", text::count(bad), text::count(calls)),
        )
        .toned(if bad > 0 { "bad" } else { "plain" }),
        match slowest {
            Some((p99, name)) => Stat::new("Slowest p99", text::milliseconds(p99), name.as_str()),
            None => Stat::new("Slowest p99", "–", "no calls in the last minutes"),
        },
        Stat::new("Objectives", format!("{kept} of {all}"), "have budget left").toned(if kept < all {
            "bad"
        } else {
            "plain"
        }),
        Stat::new("Running", text::count(input.running as u64), "calls now"),
        Stat::new("Workers", text::count(input.workers as u64), format!("{} busy", input.busy)),
    ]
}

/// The least of the budgets that are left.
pub(super) fn least_budget(slo: &SloView) -> Option<f64> {
    let latency = slo.latency.as_ref().map(|latency| latency.budget_left);
    slo.budget_left.into_iter().chain(latency).min_by(f64::total_cmp)
}

fn is_kept(slo: &SloView) -> bool {
    least_budget(slo).is_none_or(|left| left > 0.0)
}

fn row(function: &Summary, shell: &Shell, minute_us: u64) -> FunctionRow {
    let view = &function.view;
    let objective_ms = function.slo.as_ref().and_then(|slo| Some(slo.latency.as_ref()?.under_ms));
    let over = view.p99_ms.zip(objective_ms).is_some_and(|(p99, limit)| p99 > limit);
    let ms = |value: Option<f64>| value.map_or_else(|| "–".into(), text::milliseconds);
    FunctionRow {
        link: shell.function_link(&function.name),
        name: function.name.clone(),
        version: format!("v{}", function.version),
        events: function.events.iter().take(MAX_EVENTS).map(|event| EventWords::of(event)).collect(),
        more_events: function.events.len().saturating_sub(MAX_EVENTS),
        rate: text::rate(view.rate_per_second),
        spark: sparkline(&minutes(view, minute_us)),
        bad: text::percent(view.error_ratio),
        bad_tone: if view.error_ratio > 0.0 { "bad" } else { "quiet" },
        p50: ms(view.p50_ms),
        p99: ms(view.p99_ms),
        p99_tone: if over { "bad" } else { "plain" },
        objective: function.slo.as_ref().and_then(objective),
        workers: format!("{} / {}", function.busy, function.workers),
    }
}

/// The objective of which less budget is left.
fn objective(slo: &SloView) -> Option<ObjectiveCell> {
    let share =
        |percent: Option<f64>| percent.map_or_else(|| "–".into(), |percent| text::percent(percent / 100.0));
    let availability = slo.availability.zip(slo.budget_left).map(|(target, left)| ObjectiveCell {
        attained: share(slo.attained),
        target: format!("{}%", text::plain(target)),
        tone: budget_tone(left),
        budget: Meter::budget(left),
    });
    let latency = slo.latency.as_ref().map(|latency| ObjectiveCell {
        attained: share(latency.attained),
        target: format!("{}% < {}", text::plain(latency.percent), text::milliseconds(latency.under_ms)),
        tone: budget_tone(latency.budget_left),
        budget: Meter::budget(latency.budget_left),
    });
    let latency_is_worse = slo.latency.as_ref().map(|latency| latency.budget_left) < slo.budget_left;
    if latency_is_worse { latency.or(availability) } else { availability.or(latency) }
}

/// What is wrong with a function, worst first.
fn attention(function: &Summary, shell: &Shell) -> Option<Attention> {
    let slo = function.slo.as_ref()?;
    let alert = slo.alerts.iter().max_by(|a, b| (a.severity == "page").cmp(&(b.severity == "page")));
    let (text, tone) = match (alert, least_budget(slo)) {
        (Some(alert), _) => (
            format!(
                "{} burns its budget at {:.1}× over {} and {}",
                alert.objective, alert.burn, alert.long, alert.short
            ),
            if alert.severity == "page" { "bad" } else { "warn" },
        ),
        (None, Some(left)) if left <= 0.0 => (spent(slo), "bad"),
        _ => return None,
    };
    Some(Attention { link: shell.function_link(&function.name), name: function.name.clone(), text, tone })
}

/// Which budget is spent, with the evidence: one bad call of twelve weighs less than of a million.
fn spent(slo: &SloView) -> String {
    let (name, good, bad) = match &slo.latency {
        Some(latency) if Some(latency.budget_left) == least_budget(slo) => {
            ("latency", latency.good, latency.bad)
        }
        _ => ("availability", slo.good, slo.bad),
    };
    format!(
        "has spent its {name} budget of {} days: {} of {} missed it",
        slo.window_days,
        text::count(bad),
        text::plural(good + bad, "call")
    )
}

/// The last sixty minutes with their times; `current_us` is the start of the last one.
pub(super) fn minutes(view: &FunctionView, current_us: u64) -> Vec<Minute> {
    const MINUTE_US: u64 = 60_000_000;
    let ages = (0..view.minutes.len() as u64).rev();
    view.minutes
        .iter()
        .zip(ages)
        .map(|(minute, age)| Minute {
            at_us: current_us.saturating_sub(age * MINUTE_US),
            calls: minute.calls,
            errors: minute.errors,
            p99_ms: minute.p99_ms,
            queue_p99_ms: minute.queue_p99_ms,
            demand: minute.demand,
            workers: minute.workers,
        })
        .collect()
}

fn pager(input: &Input) -> Pager {
    let last = input.matching.saturating_sub(1) / PAGE;
    let link = |page: usize| {
        let query = utf8_percent_encode(&input.query, NON_ALPHANUMERIC);
        format!("/?q={query}&page={}", page + 1)
    };
    Pager {
        earlier: (input.page > 0).then(|| link(input.page - 1)),
        earlier_word: "Previous",
        here: format!("page {} of {}", input.page + 1, last + 1),
        later: (input.page < last).then(|| link(input.page + 1)),
        later_word: "Next",
    }
}

fn no_functions(shell: &Shell) -> Hint {
    let create = format!(
        "curl -X POST {}/functions -H 'content-type: application/json' -d '{{\"function_name\": \"hello\", \
         \"event_type\": \"http|GET|/hello\", \"function_code\": \"def handler(message, context):\\n    return \
         {{\\\"hello\\\": \\\"world\\\"}}\"}}'",
        shell.api_uri
    );
    Hint {
        title: "No function is deployed yet".into(),
        text: "Deploy a directory with a function.toml, or one file over HTTP. It is here a moment later."
            .into(),
        lines: vec![
            Command { label: "deploy a directory", line: "functionsplatform deploy examples/hello".into() },
            Command { label: "deploy one file over HTTP", line: create },
        ],
    }
}

fn no_calls(input: &Input, shell: &Shell) -> Hint {
    let first = input.functions.iter().find_map(|f| try_line(&shell.gateway, f.events.first()?));
    Hint {
        title: "No call has arrived yet".into(),
        text: "Call a function; it is listed here before its answer arrives.".into(),
        lines: first.into_iter().map(|line| Command { label: "call a function", line }).collect(),
    }
}

/// A curl line that calls an event type: parameters get a value, verbs with a body get one.
pub(super) fn try_line(gateway: &str, event_type: &str) -> Option<String> {
    let EventWords { verb, path } = EventWords::of(event_type);
    let filled: Vec<String> = path
        .split('/')
        .map(|segment| match segment.strip_prefix('{') {
            Some(name) if name.starts_with('*') => "some/path".into(),
            Some(_) => "1".into(),
            None => utf8_percent_encode(segment, URL_PATH).to_string(),
        })
        .collect();
    let url = format!("{gateway}{}", filled.join("/"));
    Some(match verb.as_str() {
        "" => return None,
        "GET" | "*" => format!("curl -i '{url}'"),
        "HEAD" => format!("curl -I '{url}'"),
        "POST" | "PUT" | "PATCH" => format!("curl -i -X {verb} '{url}' -d '{{\"arg\": 21}}'"),
        _ => format!("curl -i -X '{}' '{url}'", verb.replace('\'', "")),
    })
}

/// What must be encoded in a path so that it can stand in single quotes in a shell.
const URL_PATH: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'\'')
    .add(b'#')
    .add(b'?')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_to_try_fills_parameters_and_survives_the_shell() {
        let line = |event| try_line("http://h:1", event).expect("an HTTP event");
        assert_eq!(line("http|GET|/cats/{id}"), "curl -i 'http://h:1/cats/1'");
        assert_eq!(line("http|*|/static/{*rest}"), "curl -i 'http://h:1/static/some/path'");
        assert_eq!(line("http|POST|/a"), "curl -i -X POST 'http://h:1/a' -d '{\"arg\": 21}'");
        assert_eq!(line("http|GET|/it's"), "curl -i 'http://h:1/it%27s'");
        assert_eq!(line("http|GET|/café"), "curl -i 'http://h:1/caf%C3%A9'");
    }

    #[test]
    fn pages_link_to_their_neighbours() {
        let mut input = super::super::samples::overview_input();
        input.matching = 250;
        input.query = "a b".into();
        input.page = 1;
        let pager = pager(&input);
        assert_eq!(pager.earlier.as_deref(), Some("/?q=a%20b&page=1"));
        assert_eq!(pager.later.as_deref(), Some("/?q=a%20b&page=3"));
        assert_eq!(pager.here, "page 2 of 3");
    }
}
