//! The scenario as its text has it: which keys there are, and on which line each stands.
//!
//! The keys of `function.toml` are read by the platform's own reader, so that they mean here what
//! they mean there, and are refused in the same words.

use std::time::Duration;

use fp_core::Settings;
use fp_core::settings::SettingsError;
use serde::Deserialize;
use serde_json::Map;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::change::Change;
use super::error::ScenarioError;
use super::stream::Stream;
use super::{Function, Incident, Scaler, Scenario, time, to_json};

/// Every key of a scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    #[serde(default)]
    seed: u64,
    #[serde(with = "time")]
    duration: Duration,
    #[serde(default, with = "time")]
    warmup: Duration,
    #[serde(default)]
    warm: u32,
    #[serde(default = "one")]
    load: f64,
    timeout: Option<Value>,
    concurrency: Option<Value>,
    idempotent: Option<Value>,
    criticality: Option<Value>,
    scaling: Option<Value>,
    latency: Option<Value>,
    slo: Option<Value>,
    #[serde(default)]
    scaler: Scaler,
    #[serde(default)]
    pool: PoolTable,
    function: Function,
    streams: Vec<Stream>,
    #[serde(default)]
    incidents: Vec<Incident>,
}

fn one() -> f64 {
    1.0
}

/// The pool in one table: `[scaling]` and `concurrency` under other names, and what no manifest
/// has.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolTable {
    min: Option<Value>,
    max: Option<Value>,
    idle: Option<Value>,
    concurrency: Option<Value>,
    queue_bound: Option<u32>,
}

/// Reads the text and sets what is changed.
pub(super) fn read(text: &str, changes: &[Change]) -> Result<Scenario, ScenarioError> {
    let document: Document = toml::from_str(text).map_err(|error| syntax(text, &error))?;
    if changes.is_empty() {
        return document.into_scenario();
    }
    let mut table: Table = text.parse().map_err(|error| syntax(text, &error))?;
    changes.iter().try_for_each(|change| change.apply(&mut table))?;
    let all = changes.iter().map(Change::to_string).collect::<Vec<_>>().join(" ");
    let changed = Document::deserialize(Value::Table(table))
        .map_err(|error| ScenarioError::Change { change: all, message: first_line(error.message()) })?;
    changed.into_scenario()
}

/// The line of a key by its dotted path, in which numbers stand for entries of lists; where the
/// key is not there, of the innermost table around it that is.
pub(super) fn line_of(text: &str, field: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut at = None;
    let mut parts = field.split('.');
    let first = parts.next()?;
    let (key, mut value) = document.get_ref().get_key_value(first)?;
    at = at.or(Some(key.span().start));
    for part in parts {
        let inner = match value.get_ref() {
            DeValue::Table(table) => table.get_key_value(part).map(|(key, value)| (key.span(), value)),
            DeValue::Array(list) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| list.get(index))
                .map(|entry| (entry.span(), entry)),
            _ => None,
        };
        let Some((span, next)) = inner else { break };
        at = Some(span.start);
        value = next;
    }
    at.map(|offset| line_at(text, offset))
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn syntax(text: &str, error: &toml::de::Error) -> ScenarioError {
    let line = error.span().map(|span| line_at(text, span.start));
    ScenarioError::Syntax { message: first_line(error.message()), line }
}

/// One sentence: the parser's messages sometimes have several lines.
fn first_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(", ")
}

impl Document {
    fn into_scenario(self) -> Result<Scenario, ScenarioError> {
        let settings = self.settings()?;
        Ok(Scenario {
            name: self.name,
            seed: self.seed,
            duration: self.duration,
            warmup: self.warmup,
            warm: self.warm,
            load: self.load,
            settings,
            scaler: self.scaler,
            queue_bound: self.pool.queue_bound,
            function: self.function,
            streams: self.streams,
            incidents: self.incidents,
        })
    }

    fn settings(&self) -> Result<Settings, ScenarioError> {
        let keys = [
            ("timeout", &self.timeout),
            ("concurrency", &self.concurrency),
            ("idempotent", &self.idempotent),
            ("criticality", &self.criticality),
            ("scaling", &self.scaling),
            ("latency", &self.latency),
            ("slo", &self.slo),
        ];
        let given =
            keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), to_json(value.as_ref()?))));
        let mut json: Map<_, _> = given.collect();
        if let Some(concurrency) = &self.pool.concurrency {
            json.entry("concurrency").or_insert_with(|| to_json(concurrency));
        }
        let workers = [("min", &self.pool.min), ("max", &self.pool.max), ("idle", &self.pool.idle)];
        let scaling = json.entry("scaling").or_insert_with(|| serde_json::json!({}));
        for (key, value) in workers {
            if let (Some(value), Some(scaling)) = (value, scaling.as_object_mut()) {
                scaling.entry(key).or_insert_with(|| to_json(value));
            }
        }
        Settings::from_json(&json.into()).map_err(|error| self.setting(&error))
    }

    /// A refused setting, by the name that the scenario has for it.
    fn setting(&self, error: &SettingsError) -> ScenarioError {
        let message = error.to_string();
        let in_pool = match error.field.as_str() {
            "scaling.min" if self.pool.min.is_some() => Some("pool.min"),
            "scaling.max" if self.pool.max.is_some() => Some("pool.max"),
            "scaling.idle" if self.pool.idle.is_some() => Some("pool.idle"),
            "concurrency" if self.pool.concurrency.is_some() => Some("pool.concurrency"),
            _ => None,
        };
        let field = in_pool.unwrap_or(&error.field).to_owned();
        ScenarioError::Setting { field, message, line: None }
    }
}
