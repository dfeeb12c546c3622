//! A scenario made of a function's recorded calls: when they came, how long they ran, how long
//! workers took to start, and the function's settings.
//!
//! Run times are those of warm calls, start times those of cold ones. A call that ran warm runs as
//! long as it did; others, and second attempts, draw from all warm runs.

use std::collections::BTreeMap;
use std::path::Path;

use fp_core::settings::Criticality;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use toml::Table;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::{self, Global};

/// A page of the API at its largest.
const PAGE: u32 = 1000;

/// What the pool itself reckons with before it has seen a start.
const UNKNOWN_START_MS: f64 = 5.0;

/// The settings that a scenario has.
const SETTINGS: [&str; 7] =
    ["timeout", "concurrency", "idempotent", "criticality", "scaling", "latency", "slo"];

/// A scenario and the files that it names.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) scenario: String,
    /// By name: what each holds.
    files: BTreeMap<String, String>,
    /// What whoever asked should know.
    pub(super) notes: Vec<String>,
}

/// A call as `GET /invocations` tells it.
#[derive(Debug, Clone, Deserialize)]
struct Call {
    started_at: Timestamp,
    outcome: Option<String>,
    #[serde(default)]
    criticality: Criticality,
    phases: Option<Phases>,
    cold: Option<bool>,
    attempts: Option<u32>,
    weight: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Phases {
    start: f64,
    run: f64,
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Call>,
    next: Option<String>,
}

impl Call {
    fn is(&self, words: &[&str]) -> bool {
        self.outcome.as_deref().is_some_and(|outcome| words.contains(&outcome))
    }

    /// Whether it came as far as the queue: the others are refused before, whatever the pool does.
    fn reached_the_pool(&self) -> bool {
        let is_refused = self.is(&["quota_exceeded", "too_large"]) && self.attempts == Some(0);
        self.outcome.is_some() && !is_refused
    }

    /// How long a worker ran it, in milliseconds.
    fn run(&self) -> Option<f64> {
        self.phases.map(|phases| phases.run).filter(|run| *run > 0.0)
    }

    fn warm_run(&self) -> Option<f64> {
        self.run().filter(|_| self.cold == Some(false))
    }

    fn start(&self) -> Option<f64> {
        self.phases.map(|phases| phases.start).filter(|start| self.cold == Some(true) && *start > 0.0)
    }
}

/// Fetches a function's settings and calls.
pub(super) fn fetch(
    global: &Global,
    function: &str,
    since: &str,
    most: u32,
    save: Option<&Path>,
) -> Result<Recording, Failure> {
    let client = Client::new(global)?;
    let (settings, calls) = flags::wait(async {
        let known: Value = client.get(&format!("/functions/{}", segment(function))).await?.read()?;
        let calls = fetch_calls(&client, function, since, most).await?;
        Ok((known["settings"].clone(), calls))
    })?;
    let stem = save.and_then(|path| path.file_stem()?.to_str()).unwrap_or(function);
    model(function, stem, &settings, calls, most).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("no call of {function} since {since} is in history"))
            .hint("call it first, or look further back with --since 1d")
    })
}

/// The latest calls, in the order in which they came.
async fn fetch_calls(client: &Client, function: &str, since: &str, most: u32) -> Result<Vec<Call>, Failure> {
    let first = format!("/invocations?function={}&since={}", segment(function), segment(since));
    let mut calls = Vec::new();
    let mut cursor = String::new();
    while calls.len() < most as usize {
        let limit = (most - calls.len() as u32).min(PAGE);
        let page: Page = client.get(&format!("{first}&limit={limit}{cursor}")).await?.read()?;
        calls.extend(page.items);
        let Some(next) = page.next else { break };
        cursor = format!("&cursor={}", segment(&next));
    }
    calls.sort_by_key(|call| call.started_at);
    Ok(calls)
}

/// The scenario of these calls; none if there are none.
fn model(function: &str, stem: &str, settings: &Value, calls: Vec<Call>, most: u32) -> Option<Recording> {
    let fetched = calls.len();
    let calls: Vec<_> = calls.into_iter().filter(Call::reached_the_pool).collect();
    let (first, last) = (calls.first()?.started_at, calls.last()?.started_at);
    let mut files = BTreeMap::new();
    let mut file = |kind: &str, text: String| {
        let name = format!("{stem}.{kind}.csv");
        files.insert(name.clone(), text);
        name
    };
    let (runs, starts): (Vec<_>, Vec<_>) =
        (calls.iter().filter_map(Call::warm_run).collect(), calls.iter().filter_map(Call::start).collect());
    // Without a warm run, those of cold calls are what there is.
    let runs = if runs.is_empty() { calls.iter().filter_map(Call::run).collect() } else { runs };
    let mut notes = Vec::new();
    let mut times = |kind: &str, values: &[f64], assumed: f64| {
        let mut table = Table::from_iter([("kind".to_owned(), "empirical".into())]);
        match values {
            [] => table.insert("values_ms".into(), vec![assumed].into()),
            _ => {
                let lines: Vec<_> = values.iter().map(f64::to_string).collect();
                table.insert("file".into(), file(kind, lines.join("\n") + "\n").into())
            }
        };
        table
    };
    let service = times("runs", &runs, 0.0);
    let start = times("starts", &starts, UNKNOWN_START_MS);
    let ran = calls.iter().filter(|call| call.run().is_some()).map(weight).sum::<u64>().max(1) as f64;
    let percent = |words: &[&str]| {
        let share = calls.iter().filter(|call| call.is(words)).map(weight).sum::<u64>() as f64 / ran * 100.0;
        (share.min(100.0) * 1e4).round() / 1e4
    };
    let behaviour = Table::from_iter([
        ("service".to_owned(), service.into()),
        ("start".to_owned(), start.into()),
        ("error_percent".to_owned(), percent(&["function_error"]).into()),
        ("crash_percent".to_owned(), percent(&["crashed", "out_of_memory"]).into()),
    ]);
    let mut streams = Vec::new();
    for class in [Criticality::Critical, Criticality::Default, Criticality::Sheddable] {
        let of_class: Vec<_> = calls.iter().filter(|call| call.criticality == class).collect();
        if of_class.is_empty() {
            continue;
        }
        let word = serde_json::to_value(class).ok()?.as_str()?.to_owned();
        let trace = file(&word, arrivals(&of_class, first));
        streams.push(toml::Value::Table(Table::from_iter([
            ("name".to_owned(), word.clone().into()),
            ("criticality".to_owned(), word.into()),
            ("trace".to_owned(), trace.into()),
        ])));
    }
    let milliseconds = last.duration_since(first).as_millis().max(0) + 1;
    let mut document = Table::from_iter([
        ("name".to_owned(), toml::Value::from(format!("{function} as recorded"))),
        ("duration".to_owned(), format!("{milliseconds}ms").into()),
        ("function".to_owned(), behaviour.into()),
        ("streams".to_owned(), streams.into()),
    ]);
    for key in SETTINGS {
        if let Some(value) = settings.get(key).and_then(|value| toml::Value::try_from(value).ok()) {
            document.insert(key.to_owned(), value);
        }
    }
    let text = toml::to_string(&document).ok()?;
    let weight: u64 = calls.iter().map(weight).sum();
    notes.push(format!(
        "{function}: {weight} calls from {first} to {last}, {} warm runs, {} starts",
        runs.len(),
        starts.len()
    ));
    if starts.is_empty() {
        notes.push(format!("none of them began cold: a start is assumed to take {UNKNOWN_START_MS} ms"));
    }
    if fetched >= most as usize {
        notes.push(format!("there may be earlier ones: --calls {most} was reached"));
    }
    let scenario = format!("# {function} as it was called from {first} to {last}.\n{text}");
    Some(Recording { scenario, files, notes })
}

fn weight(call: &Call) -> u64 {
    u64::from(call.weight.unwrap_or(1).max(1))
}

/// The arrivals of a stream. A record that stands for several calls becomes as many, spread evenly
/// until the next one.
fn arrivals(calls: &[&Call], first: Timestamp) -> String {
    let since = |call: &Call| call.started_at.duration_since(first).as_micros() as f64 / 1000.0;
    let mut text = String::from("arrival_ms,service_ms\n");
    for (at, call) in calls.iter().enumerate() {
        let (from, copies) = (since(call), weight(call));
        let next = calls.get(at + 1).map_or(from, |next| since(next));
        for copy in 0..copies {
            let arrival = from + (next - from) * copy as f64 / copies as f64;
            let run = call.warm_run().filter(|_| copy == 0).map(|run| run.to_string()).unwrap_or_default();
            text.push_str(&format!("{arrival:.3},{run}\n"));
        }
    }
    text
}

impl Recording {
    /// A file that the scenario names.
    pub(super) fn file(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(String::as_str)
    }

    /// Writes the scenario, and its files beside it.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let dir = path.parent().unwrap_or(Path::new(""));
        let files = self.files.iter().map(|(name, text)| (dir.join(name), text));
        for (path, text) in files.chain([(path.to_owned(), &self.scenario)]) {
            std::fs::write(&path, text).map_err(|error| Failure::file("write", &path, &error))?;
        }
        Ok(())
    }
}
