//! What the API says of an invocation, and the sentences that more than one explanation is made of.

use std::fmt;

use fp_core::code::Code;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, segment};
use crate::exit::Failure;

/// An invocation, as `GET /invocations/{id}` answers; what it has not yet, or is not there in older
/// platforms, is none.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) function: String,
    pub(super) version: u32,
    pub(super) event_type: String,
    pub(super) trigger: String,
    pub(super) verb: String,
    pub(super) path: String,
    pub(super) state: String,
    pub(super) started_at: String,
    pub(super) deadline_ms: u64,
    pub(super) deadline_from: Option<String>,
    pub(super) called_by: Option<String>,
    pub(super) worker: Option<String>,
    pub(super) outcome: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) blame: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) error: Option<String>,
    pub(super) duration_ms: Option<f64>,
    pub(super) phases: Option<Phases>,
    pub(super) cold: Option<bool>,
    pub(super) attempts: Option<u32>,
    pub(super) queue_length: Option<u32>,
    pub(super) request_bytes: Option<u64>,
    pub(super) cpu_ms: Option<f64>,
    pub(super) limit_hit: Option<String>,
    pub(super) degraded: Option<String>,
    pub(super) latency_met: Option<bool>,
    pub(super) hedging: Option<String>,
    #[serde(default)]
    pub(super) decisions: Option<Vec<String>>,
    pub(super) weight: Option<u32>,
}

/// Where its time went, in milliseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Phases {
    route: f64,
    queue: f64,
    start: f64,
    run: f64,
    send: f64,
}

impl Phases {
    /// Each by its name, in the order in which they happen.
    pub(super) fn by_name(self) -> [(&'static str, f64); 5] {
        let Self { route, queue, start, run, send } = self;
        [("route", route), ("queue", queue), ("start", start), ("run", run), ("send", send)]
    }

    /// The longest of them.
    pub(super) fn longest(self) -> (&'static str, f64) {
        let longer = |one: (&'static str, f64), other: (&'static str, f64)| {
            if other.1 > one.1 { other } else { one }
        };
        self.by_name().into_iter().reduce(longer).expect("there are five")
    }

    fn total(self) -> f64 {
        self.by_name().into_iter().map(|(_, ms)| ms).sum()
    }
}

impl Call {
    /// Fetches it.
    pub(super) async fn fetch(client: &Client, id: &str) -> Result<Self, Failure> {
        client.get(&format!("/invocations/{}", segment(id))).await?.read()
    }

    /// The code whose entry says what to do; none if nothing went wrong.
    pub(super) fn code(&self) -> Option<Code> {
        self.outcome.as_deref().and_then(Code::from_word)
    }

    /// What was called, how, and when.
    pub(super) fn opening(&self) -> String {
        let Self { verb, path, function, version, event_type, started_at, .. } = self;
        let from = match (&self.called_by, self.trigger.as_str()) {
            (Some(caller), _) => format!("the function {caller} called it"),
            (None, "async") => "it was accepted to run in the background".to_owned(),
            (None, _) => "it came".to_owned(),
        };
        format!("{verb} {path} was for {function}, version {version} ({event_type}); {from} at {started_at}.")
    }

    /// How it ended, or how far it has come.
    pub(super) fn ending(&self) -> String {
        let Some(outcome) = &self.outcome else {
            return match (self.state.as_str(), &self.worker) {
                ("queued", _) => "It has not ended: it waits for a worker.".to_owned(),
                (_, Some(worker)) => format!("It has not ended: it runs in the worker {worker}."),
                (_, None) => "It has not ended.".to_owned(),
            };
        };
        let reason = self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let meaning = self.code().map(|code| format!(", {}", lower(code.title()))).unwrap_or_default();
        let status = match self.status {
            Some(499) => " The caller had left, so nobody got an answer.".to_owned(),
            Some(status) => format!(" The caller got the status {status}."),
            None => String::new(),
        };
        let took = self.duration_ms.map(|ms| format!(" after {}", Milliseconds(ms))).unwrap_or_default();
        format!("It ended{took} as {outcome}{reason}{meaning}.{status}")
    }

    /// Where the time went, and what took most of it.
    pub(super) fn time(&self) -> Vec<String> {
        let Some(phases) = self.phases else { return Vec::new() };
        let total = phases.total();
        let shown = phases.by_name().map(|(name, ms)| format!("{name} {}", Milliseconds(ms)));
        let mut sentences = vec![format!("Its phases: {}.", shown.join(", "))];
        let (name, ms) = phases.longest();
        if total > 0.0 {
            let share = (ms / total * 100.0).round();
            sentences.push(format!("The longest of them, {share} % of all, was {}.", self.meaning_of(name)));
        }
        sentences
    }

    fn meaning_of(&self, phase: &str) -> String {
        match phase {
            "route" => {
                let bytes = self.request_bytes.unwrap_or(0);
                format!("reading the request, whose body had {bytes} bytes, and finding its function")
            }
            "queue" => "waiting for a worker".to_owned(),
            "start" => "starting a worker for it and loading the handler".to_owned(),
            "run" => {
                let (cpu_ms, run_ms) = (self.cpu_ms.unwrap_or(0.0), self.phases.map_or(0.0, |all| all.run));
                let what = match cpu_ms * 2.0 >= run_ms {
                    true => "it computed for most of that",
                    false => "for the rest it waited: for the network, a lock or a sleep",
                };
                format!("the handler itself, with {} of CPU time: {what}", Milliseconds(cpu_ms))
            }
            _ => "writing the answer, as fast as the caller took it".to_owned(),
        }
    }

    /// Whether a worker had to be started, and why.
    pub(super) fn start(&self) -> Option<String> {
        let ahead = self.queue_length.unwrap_or(0);
        let worker = self.worker.as_deref().unwrap_or("one");
        Some(match (self.attempts?, self.cold?) {
            (0, _) => "It never reached a worker.".to_owned(),
            (_, true) if ahead > 0 => format!(
                "It was a cold start: {ahead} calls were ahead of it, no worker was free, and starting {worker} was \
                 expected to be faster than to wait."
            ),
            (_, true) => format!(
                "It was a cold start: no worker of this version was free when it came, so {worker} was started."
            ),
            (_, false) if ahead > 0 => {
                format!(
                    "It was warm: {ahead} calls were ahead of it, then {worker}, which ran already, took it."
                )
            }
            (_, false) => format!("It was warm: the worker {worker} ran already."),
        })
    }

    /// How long it had, and who said so.
    pub(super) fn deadline(&self, timeout: Option<&str>) -> String {
        let given = Milliseconds(self.deadline_ms as f64);
        let own = timeout.map(|timeout| format!(" (timeout = {timeout:?} now)")).unwrap_or_default();
        match self.deadline_from.as_deref() {
            Some("timeout") => format!("It had {given}: the function's own timeout{own}."),
            Some(header) => format!(
                "It had {given}: the caller said so in the header {header}, and the function's own timeout{own} was not less."
            ),
            None => format!("It had {given}; the record does not say whether that was the caller's word."),
        }
    }

    /// Who could have prevented it, and why.
    pub(super) fn blame(&self) -> Option<String> {
        let why = match (self.outcome.as_deref()?, self.reason.as_deref(), self.blame.as_deref()?) {
            ("deadline_exceeded", _, "caller") => "it gave less time than the function promises to need",
            ("deadline_exceeded", _, _) => "the caller gave as much as the function promises to need",
            ("timeout", ..) => "it did not answer within the time that it set itself",
            ("function_error", ..) => "its handler raised, or answered with 500 or more",
            ("out_of_memory", ..) => "it used more memory than it may",
            ("crashed", ..) => "its process ended in the middle of the call",
            ("start_failed", ..) => "no worker could be started for it",
            ("too_large", Some("request"), _) => "the body that it sent is over the function's limit",
            ("too_large", ..) => "its answer is over its own limit",
            ("quota_exceeded", ..) => "it is over a quota",
            ("cancelled", ..) => "it left before the answer",
            ("shed", ..) => "it had not enough workers for all the calls that came",
            ("platform_error", ..) => "it failed by itself",
            _ => "that is how its outcome counts",
        };
        Some(format!("To blame is the {}: {why}.", self.blame.as_deref()?))
    }
}

/// Of a function what explanations need, as `GET /functions/{name}` answers.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Function {
    pub(super) function_name: String,
    pub(super) version: u32,
    pub(super) settings: Value,
}

impl Function {
    /// Fetches it.
    pub(super) async fn fetch(client: &Client, name: &str) -> Result<Self, Failure> {
        client.get(&format!("/functions/{}", segment(name))).await?.read()
    }

    /// A setting as function.toml has it; `scaling.min` is inside of another.
    pub(super) fn setting(&self, path: &str) -> String {
        let found = path.split('.').fold(&self.settings, |inner, name| &inner[name]);
        crate::screen::cell(found)
    }
}

/// A duration as people read it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Milliseconds(pub(super) f64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ms) = *self;
        let number = |value: f64, decimals: usize| {
            let text = format!("{value:.decimals$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        };
        match ms {
            ms if ms >= 1_000.0 => write!(f, "{} s", number(ms / 1e3, 2)),
            ms if ms >= 10.0 => write!(f, "{} ms", number(ms, 1)),
            ms => write!(f, "{} ms", number(ms, 3)),
        }
    }
}

/// A title inside of a sentence.
fn lower(title: &str) -> String {
    let mut letters = title.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_exact_as_they_are_short() {
        for (ms, text) in [
            (0.0, "0 ms"),
            (0.1234, "0.123 ms"),
            (3.1, "3.1 ms"),
            (250.0, "250 ms"),
            (12.34, "12.3 ms"),
            (60_000.0, "60 s"),
            (1_234.0, "1.23 s"),
        ] {
            assert_eq!(Milliseconds(ms).to_string(), text);
        }
    }
}
