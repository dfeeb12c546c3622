//! `slo show`: what a function promises and how it stands.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Show a function's objective, attainment and error budget
#[derive(Debug, Args)]
pub(crate) struct Slo {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show one function's objective, attainment and error budget
    Show {
        /// The function's name
        name: String,
    },
}

impl Slo {
    /// Fetches the function and prints its objective.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let What::Show { name } = &self.what;
        let function: Value = client.get(&format!("/functions/{}", segment(name))).await?.read()?;
        let Some(slo) = function.get("slo").filter(|slo| !slo.is_null()) else {
            return Err(Failure::new(Exit::NotFound, format!("{name} has no objective"))
                .hint("give it one with [slo] in its function.toml"));
        };
        match global.json() {
            true => screen::json(slo)?,
            false => screen::pairs(&flatten("", slo))?,
        }
        Ok(Exit::Ok)
    }
}

/// Nested objects as dotted names.
fn flatten(prefix: &str, value: &Value) -> Vec<(String, String)> {
    let Some(map) = value.as_object() else {
        return vec![(prefix.to_owned(), screen::cell(value))];
    };
    let inner = map.iter().map(|(name, value)| match prefix {
        "" => flatten(name, value),
        _ => flatten(&format!("{prefix}.{name}"), value),
    });
    inner.flatten().collect()
}
