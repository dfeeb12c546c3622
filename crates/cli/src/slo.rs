//! `slo show`: what a function promises and how it stands.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

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
        let function: Function = client.get(&format!("/functions/{}", segment(name))).await?.read()?;
        let Some(slo) = function.slo else {
            return Err(Failure::new(Exit::NotFound, format!("{name} has no objective"))
                .hint("give it one with [slo] in its function.toml"));
        };
        match global.json() {
            true => screen::compact(&slo)?,
            false => print(&serde_json::from_str(slo.get()).unwrap_or_default())?,
        }
        Ok(Exit::Ok)
    }
}

/// What is read of a function: its objective as the API wrote it.
#[derive(Debug, Deserialize)]
struct Function {
    slo: Option<Box<RawValue>>,
}

/// Lists in an objective with the columns that they have.
const TABLES: [(&str, &[&str], &str); 2] = [
    ("burn", &["window", "availability", "latency"], "no burn rates yet"),
    ("alerts", &["objective", "severity", "long", "short", "factor", "burn"], "no alerts"),
];

/// Values line by line, then a table for each list.
fn print(slo: &Value) -> Result<(), Failure> {
    let Some(map) = slo.as_object() else { return Ok(()) };
    let is_table = |name: &str| TABLES.iter().any(|(table, _, _)| *table == name);
    let values = map.iter().filter(|(name, _)| !is_table(name));
    screen::pairs(&values.flat_map(|(name, value)| screen::flat(name, value)).collect::<Vec<_>>())?;
    for (name, columns, none) in TABLES {
        let Some(rows) = map.get(name).and_then(Value::as_array) else { continue };
        let cells = |row: &Value| columns.iter().map(|column| screen::cell(&row[*column])).collect();
        screen::line("")?;
        let header: Vec<_> = match name {
            "burn" => vec!["burn over", "availability", "latency"],
            _ => columns.to_vec(),
        };
        screen::table(&header, rows.iter().map(cells).collect(), none)?;
    }
    Ok(())
}
