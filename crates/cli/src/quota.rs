//! `quota`: what a tenant may use, and what it uses.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value};

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Show and set what a tenant may use
#[derive(Debug, Args)]
pub(crate) struct Quota {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show a tenant's quota, and what of it is used
    Show {
        /// The tenant's name
        tenant: String,
    },
    /// Change parts of a tenant's quota; what is not named stays as it is. For the operator
    Set(Box<Set>),
}

/// What is given is changed; `none` takes a limit away.
#[derive(Debug, Args)]
struct Set {
    /// The tenant's name
    tenant: String,
    /// Calls per time, such as 100/s or 300/min
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// Calls at once that the rate lets pass after quiet
    #[arg(long, value_name = "N")]
    burst: Option<String>,
    /// Calls under way at once
    #[arg(long, value_name = "N")]
    concurrency: Option<String>,
    /// Accepted background calls that have not ended
    #[arg(long, value_name = "N")]
    backlog: Option<String>,
    /// Memory limits of all workers together, such as 2GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Deployed code, unpacked, such as 500MiB
    #[arg(long, value_name = "SIZE")]
    code: Option<String>,
    /// Memory of the history ring that its calls may take, such as 64MiB
    #[arg(long, value_name = "SIZE")]
    history: Option<String>,
    /// Calls per time that go to the history on disk unsampled, such as 100/s
    #[arg(long, value_name = "RATE")]
    history_rate: Option<String>,
    /// Its part of what tenants want at the same time, against others' 1: CPU, workers, memory
    #[arg(long, value_name = "WEIGHT")]
    weight: Option<String>,
    /// Take away every limit that is not named here
    #[arg(long)]
    clear: bool,
}

/// Parts that are numbers; the others are texts.
const NUMBERS: [&str; 4] = ["burst", "concurrency", "backlog", "weight"];

/// What takes a limit away.
const NONE: &str = "none";

impl Quota {
    /// Does it and prints what holds.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let answer = match &self.verb {
            Verb::Show { tenant } => client.get(&path(tenant)).await?,
            Verb::Set(set) => {
                let quota = set.apply(client).await?;
                let body = Bytes::from(Value::Object(quota).to_string());
                client.call(Method::PUT, &path(&set.tenant), Some(("application/json", body))).await?
            }
        };
        if global.json() {
            screen::answer(&answer)?;
            return Ok(Exit::Ok);
        }
        let view: Value = answer.read()?;
        screen::table(&["quota", "limit", "used"], rows(&view), "")?;
        Ok(Exit::Ok)
    }
}

fn path(tenant: &str) -> String {
    format!("/tenants/{}/quota", segment(tenant))
}

impl Set {
    fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("rate", &self.rate),
            ("burst", &self.burst),
            ("concurrency", &self.concurrency),
            ("backlog", &self.backlog),
            ("memory", &self.memory),
            ("code", &self.code),
            ("history", &self.history),
            ("history_rate", &self.history_rate),
            ("weight", &self.weight),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// The whole quota that is to hold, since the API takes no part of one.
    async fn apply(&self, client: &Client) -> Result<Map<String, Value>, Failure> {
        if !self.clear && self.given().next().is_none() {
            return Err(
                Failure::usage("nothing is to be set").hint("name a limit, such as --rate 100/s, or --clear")
            );
        }
        let mut quota = match self.clear {
            true => Map::new(),
            false => {
                let view: Value = client.get(&path(&self.tenant)).await?.read()?;
                view["quota"].as_object().cloned().unwrap_or_default()
            }
        };
        for (name, text) in self.given() {
            match text {
                NONE => drop(quota.remove(name)),
                text => drop(quota.insert(name.to_owned(), value(name, text)?)),
            }
        }
        Ok(quota)
    }
}

fn value(name: &str, text: &str) -> Result<Value, Failure> {
    if !NUMBERS.contains(&name) {
        return Ok(text.into());
    }
    // What it may be the API says, also of a weight, which need not be whole.
    let whole: Result<Value, _> = text.parse().map(|number: u64| number.into());
    whole
        .or_else(|_| text.parse().map(|number: f64| number.into()))
        .map_err(|_| Failure::usage(format!("--{name} {text:?} is neither a number nor {NONE}")))
}

/// A row for each part that is limited or counted.
fn rows(view: &Value) -> Vec<Vec<String>> {
    let empty = Map::new();
    let part = |name: &str| view[name].as_object().unwrap_or(&empty);
    let (quota, used) = (part("quota"), part("used"));
    let known = ["rate", "burst", "concurrency", "backlog", "memory", "code", "history", "history_rate"];
    let others = quota.keys().chain(used.keys()).map(String::as_str).filter(|name| !known.contains(name));
    let mut names: Vec<&str> = known.into_iter().chain(others).collect();
    names.dedup();
    let cell =
        |of: &Map<String, Value>, name: &str| of.get(name).map_or_else(|| "-".to_owned(), screen::cell);
    let limit = |name: &str| match quota.get(name) {
        Some(limit) => screen::cell(limit),
        None => "none".to_owned(),
    };
    names.into_iter().map(|name| vec![name.to_owned(), limit(name), cell(used, name)]).collect()
}
