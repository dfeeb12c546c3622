//! `explain timeout`: why a call ran out of time: whose limit it was, where the time went, what to
//! change.

use serde_json::json;

use super::call::function_of;
use super::story::{Call, Function, Milliseconds};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Which limit ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// The function's `timeout`.
    Timeout,
    /// The function's `stream_idle` or `stream_total`.
    Stream(&'static str),
    /// What the caller gave.
    Caller,
    /// None: it ended otherwise, or runs.
    None,
}

impl Limit {
    fn of(call: &Call) -> Self {
        let error = call.error.as_deref().unwrap_or_default();
        let names = |setting: &&'static str| error.contains(*setting);
        match call.outcome.as_deref() {
            Some("timeout") => {
                let stream = ["stream_total", "stream_idle"].iter().copied().find(names);
                stream.map_or(Self::Timeout, Self::Stream)
            }
            Some("deadline_exceeded") => Self::Caller,
            _ => Self::None,
        }
    }

    fn word(self) -> Option<&'static str> {
        match self {
            Self::Timeout => Some("timeout"),
            Self::Stream(setting) => Some(setting),
            Self::Caller => Some("caller"),
            Self::None => None,
        }
    }
}

/// Fetches the call and tells what it had time for.
pub(super) async fn explain(global: &Global, client: &Client, id: &str) -> Result<Exit, Failure> {
    let call = Call::fetch(client, id).await?;
    let function = function_of(client, &call).await?;
    let limit = Limit::of(&call);
    let mut sentences = vec![call.opening(), call.ending(), which(&call, limit, function.as_ref())];
    sentences.extend(call.time());
    sentences.extend(call.start());
    let advice = advice(&call, limit);
    sentences.extend(advice.iter().map(|advice| format!("What to do: {advice}")));
    if global.json() {
        let phases =
            call.phases.map(|phases| phases.by_name().map(|(name, ms)| json!({ "name": name, "ms": ms })));
        screen::json(&json!({
            "id": call.id, "function": call.function, "outcome": call.outcome, "reason": call.reason,
            "limit": limit.word(), "deadline_ms": call.deadline_ms, "deadline_from": call.deadline_from,
            "phases": phases, "what_to_do": advice, "sentences": sentences,
        }))?;
        return Ok(Exit::Ok);
    }
    for sentence in sentences {
        screen::line(&sentence)?;
    }
    Ok(Exit::Ok)
}

/// Which of the limits it was.
fn which(call: &Call, limit: Limit, function: Option<&Function>) -> String {
    let timeout = function.map(|function| function.setting("timeout"));
    let deadline = call.deadline(timeout.as_deref());
    let when = match call.reason.as_deref() {
        Some("infeasible") => {
            " It was refused at once: the wait and the run that were to be expected did not fit into that."
        }
        Some("expired_in_queue") => " It was over before there was a worker: the handler never ran.",
        Some("expired_running") => " It was over while the handler ran.",
        _ => "",
    };
    match limit {
        Limit::Stream(setting) => {
            let now = function
                .map(|function| format!(" = {:?} now", function.setting(setting)))
                .unwrap_or_default();
            format!("Its answer had begun in time; then the stream passed the function's {setting}{now}.")
        }
        Limit::Timeout | Limit::Caller => format!("{deadline}{when}"),
        Limit::None => {
            let left =
                call.duration_ms.map(|took| call.deadline_ms as f64 - took).filter(|left| *left >= 0.0);
            let left =
                left.map(|left| format!(" {} of it were left.", Milliseconds(left))).unwrap_or_default();
            format!("It did not run out of time. {deadline}{left}")
        }
    }
}

/// What would have helped, by where the time went.
fn advice(call: &Call, limit: Limit) -> Option<String> {
    let longest = call.phases.map_or("run", |phases| phases.longest().0);
    let never_ran = call.attempts == Some(0);
    let text = match (limit, longest) {
        (Limit::None, _) => return None,
        (Limit::Stream("stream_idle"), _) => {
            "send something more often, such as a comment of an event stream, or raise stream_idle."
        }
        (Limit::Stream(_), _) => {
            "end the stream earlier and let the caller come again, or raise stream_total."
        }
        (_, "queue") | (_, "route") if never_ran => {
            "there were too few workers for the calls: raise scaling.max, keep some ready with scaling.min, or send less \
             at once; `functionsplatform explain scaling NAME` shows the pool."
        }
        (_, "queue") => {
            "raise scaling.max, or keep workers ready with scaling.min: it waited longer than it ran."
        }
        (_, "start") => {
            "keep a worker ready (scaling.min = 1), load less when the handler is imported, or preload heavy modules."
        }
        (_, "route") => "the caller sent its body slowly: send less, or from nearer.",
        (Limit::Timeout, _) => {
            "make the handler faster, or raise timeout in function.toml; give what it calls a timeout that is shorter \
             than its own (context.remaining_ms() says what is left)."
        }
        (Limit::Caller, _) => {
            "have the caller give more time, or make the handler faster; in it context.remaining_ms() says what is left."
        }
    };
    Some(text.to_owned())
}
