//! `explain call`: what happened to one call, in plain sentences.

use serde_json::{Value, json};

use super::story::{Call, Function};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Fetches the call, and its function for the settings in force, and tells about it.
pub(super) async fn explain(global: &Global, client: &Client, id: &str) -> Result<Exit, Failure> {
    let call = Call::fetch(client, id).await?;
    let function = function_of(client, &call).await?;
    let sentences = sentences(&call, function.as_ref());
    if global.json() {
        screen::json(&document(&call, &sentences))?;
        return Ok(Exit::Ok);
    }
    for sentence in sentences {
        screen::line(&sentence)?;
    }
    Ok(Exit::Ok)
}

/// Its function, unless that is gone.
pub(super) async fn function_of(client: &Client, call: &Call) -> Result<Option<Function>, Failure> {
    match Function::fetch(client, &call.function).await {
        Ok(function) => Ok(Some(function)),
        Err(failure) if failure.exit == Exit::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Everything that can be said, in the order of the call's life.
fn sentences(call: &Call, function: Option<&Function>) -> Vec<String> {
    let mut said = vec![call.opening(), call.ending()];
    said.extend(call.error.as_ref().map(|error| format!("The error: {error}")));
    said.extend(call.time());
    said.extend(call.start());
    said.extend(call.decisions.clone().unwrap_or_default());
    said.extend(call.hedging.clone());
    let timeout = function.map(|function| function.setting("timeout"));
    said.push(call.deadline(timeout.as_deref()));
    said.extend(call.blame());
    said.extend(call.limit_hit.as_ref().map(|limit| match limit.as_str() {
        "logs" => "It printed more than limits.logs keeps; the rest of its output was cut.".to_owned(),
        limit => format!("It hit the limit of {limit}."),
    }));
    said.extend(call.degraded.as_deref().and_then(degraded));
    said.extend(call.latency_met.map(|met| match met {
        true => "It was as fast as the objective asks.".to_owned(),
        false => "It was slower than the objective asks, and counts against its budget.".to_owned(),
    }));
    if let Some(weight) = call.weight.filter(|weight| *weight > 1) {
        said.push(format!("History kept a sample of its time: this record stands for {weight} calls."));
    }
    said.extend(function.filter(|function| function.version != call.version).map(|function| {
        format!("Version {} answers for {} by now.", function.version, function.function_name)
    }));
    said.extend(call.code().map(|code| format!("What to do: {}", code.what_to_do())));
    said
}

/// How a refused call was answered all the same.
fn degraded(how: &str) -> Option<String> {
    let (kind, detail) = how.split_once("; ")?;
    let (_, value) = detail.split_once('=')?;
    Some(match kind {
        "stale" => format!(
            "The caller got the last good answer, {value} s old, instead of the refusal (latency.fallback); the objective counts the refusal."
        ),
        "fallback" => format!(
            "The caller got the answer of {value} instead of the refusal (latency.fallback); the objective counts the refusal."
        ),
        _ => return None,
    })
}

fn document(call: &Call, sentences: &[String]) -> Value {
    let longest = call.phases.map(|phases| phases.longest());
    json!({
        "id": call.id,
        "function": call.function,
        "state": call.state,
        "outcome": call.outcome,
        "reason": call.reason,
        "blame": call.blame,
        "longest_phase": longest.map(|(name, ms)| json!({ "name": name, "ms": ms })),
        "cold": call.cold,
        "attempts": call.attempts,
        "decisions": call.decisions,
        "hedging": call.hedging,
        "deadline_ms": call.deadline_ms,
        "deadline_from": call.deadline_from,
        "limit_hit": call.limit_hit,
        "degraded": call.degraded,
        "what_to_do": call.code().map(|code| code.what_to_do()),
        "sentences": sentences,
    })
}
