//! `list-instances` and `lookup-instance`: runs of functions, by the ancestor's word for them.

use clap::Args;
use serde_json::Value;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// What people look for first in an invocation.
const FIRST_FIELDS: &[&str] = &[
    "id",
    "function",
    "version",
    "state",
    "outcome",
    "reason",
    "status",
    "error",
    "started_at",
    "duration_ms",
    "phases.route",
    "phases.queue",
    "phases.start",
    "phases.run",
    "phases.send",
    "cold",
    "worker",
    "trace_id",
];

/// The same under the ancestor's names.
const SAID_TWICE: &[&str] = &["container_id", "instance_id", "function_name"];

/// Show one invocation
#[derive(Debug, Args)]
pub(crate) struct Lookup {
    /// The invocation's id
    id: String,
}

impl Lookup {
    /// Fetches the invocation and prints its fields.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let answer = client.get(&format!("/functions/instances/{}", segment(&self.id))).await?;
        match global.json() {
            true => screen::answer(&answer)?,
            false => screen::pairs(&fields(answer.read()?))?,
        }
        Ok(Exit::Ok)
    }
}

/// Fetches the latest invocations and prints a row for each.
pub(crate) async fn list(global: &Global, client: &Client) -> Result<Exit, Failure> {
    let answer = client.get("/functions/instances").await?;
    if global.json() {
        screen::answer(&answer)?;
        return Ok(Exit::Ok);
    }
    let instances: Vec<Value> = answer.read()?;
    let field = |instance: &Value, name| screen::cell(instance.get(name).unwrap_or(&Value::Null));
    let columns = ["id", "function", "state", "outcome", "status", "duration_ms", "started_at"];
    let rows = instances.iter().map(|instance| columns.iter().map(|name| field(instance, *name)).collect());
    screen::table(&columns.map(|name| name.trim_end_matches("_at")), rows.collect(), "no invocations yet")?;
    Ok(Exit::Ok)
}

/// The fields of an instance, each once and without those that say nothing.
fn fields(mut instance: Value) -> Vec<(String, String)> {
    if let Some(map) = instance.as_object_mut() {
        map.retain(|name, value| !value.is_null() && !SAID_TWICE.contains(&name.as_str()));
        if let Some(Value::Object(phases)) = map.remove("phases") {
            map.extend(phases.into_iter().map(|(name, value)| (format!("phases.{name}"), value)));
        }
    }
    screen::fields(&instance, FIRST_FIELDS)
}
