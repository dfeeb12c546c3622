//! `list-instances` and `lookup-instance`: runs of functions, by the ancestor's word for them.

use clap::Args;
use serde_json::Value;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// What people look for first in an invocation.
const FIRST_FIELDS: &[&str] =
    &["id", "container_id", "function_name", "function", "version", "state", "outcome"];

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
            false => screen::pairs(&screen::fields(&answer.read()?, FIRST_FIELDS))?,
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
    let instances = instances_of(answer.read()?);
    let field = |instance: &Value, names: &[&str]| {
        screen::cell(names.iter().find_map(|name| instance.get(*name)).unwrap_or(&Value::Null))
    };
    let rows = instances.iter().map(|instance| {
        vec![
            field(instance, &["id", "container_id"]),
            field(instance, &["function_name", "function"]),
            field(instance, &["state", "status"]),
            field(instance, &["outcome"]),
            field(instance, &["started_at", "started", "created_at"]),
        ]
    });
    screen::table(&["id", "function", "state", "outcome", "started"], rows.collect(), "no invocations yet")?;
    Ok(Exit::Ok)
}

/// The items of a list, or of an object that holds one by id.
fn instances_of(answer: Value) -> Vec<Value> {
    match answer {
        Value::Array(items) => items,
        Value::Object(mut map) => match map.remove("items").or_else(|| map.remove("instances")) {
            Some(inner) => instances_of(inner),
            None => map.into_iter().map(|(id, value)| with_id(id, value)).collect(),
        },
        _ => Vec::new(),
    }
}

fn with_id(id: String, mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.entry("id").or_insert(Value::String(id));
    }
    value
}
