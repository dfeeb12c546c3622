//! `query`: counts, rates and percentiles of many calls, grouped by what is asked.

use clap::Args;
use serde_json::Value;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Ask about many calls: which, since when, grouped by what
///
/// A question is a condition on the fields of calls, then any of: since TIME, until TIME,
/// group by FIELD, …, of NUMBER (what percentiles are of; duration), order by COLUMN, limit COUNT.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  functionsplatform query 'outcome != ok since 1h group by function, outcome'
  functionsplatform query 'phase.queue > 50ms group by time(5m), function'
  functionsplatform query 'path ~ /api/* and not cold of phase.run group by version order by p99'

Without since: the last hour. docs/query.md has all fields.")]
pub(crate) struct Query {
    /// The question; may be given in several words
    #[arg(required = true, num_args = 1.., value_name = "QUESTION")]
    question: Vec<String>,
}

impl Query {
    /// Asks, and prints a row for each group.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let answer = client.get(&format!("/query?q={}", segment(&self.question.join(" ")))).await?;
        if global.json() {
            screen::answer(&answer)?;
            return Ok(Exit::Ok);
        }
        let answer: Value = answer.read()?;
        let texts = |field: &str| answer[field].as_array().into_iter().flatten().map(screen::cell);
        let groups: Vec<String> = texts("group_by").collect();
        let unit = answer["unit"].as_str().map_or(String::new(), |unit| format!(" {unit}"));
        let of_measure = format!("{} p50{unit}", screen::cell(&answer["measure"]));
        let rest =
            ["calls", "per second", "failed", &of_measure, "p90", "p99", "p99.9", "max", "slowest trace"];
        let titles: Vec<&str> = groups.iter().map(String::as_str).chain(rest).collect();
        let rows = answer["items"].as_array().into_iter().flatten().map(|item| row(&groups, item)).collect();
        screen::table(&titles, rows, "no such call")?;
        if answer["whole"] == false {
            let from = screen::cell(&answer["from"]);
            screen::note(&format!(
                "only calls since {from} were looked at: the time holds more than one question may read"
            ));
        }
        if let Some(left_out) = answer["left_out"].as_u64().filter(|left_out| *left_out > 0) {
            screen::note(&format!("{left_out} more rows: ask with a larger \"limit\""));
        }
        Ok(Exit::Ok)
    }
}

fn row(groups: &[String], item: &Value) -> Vec<String> {
    let number = |field: &str| item[field].as_f64().map_or(String::new(), |value| format!("{value}"));
    let group = groups.iter().map(|name| screen::cell(&item["group"][name]));
    let failed = match item["failed"].as_u64() {
        Some(0) | None => "0".to_owned(),
        Some(failed) => format!("{failed} ({:.2} %)", item["failed_share"].as_f64().unwrap_or(0.0) * 100.0),
    };
    let figures = [number("count"), number("rate"), failed].into_iter();
    let measures = ["p50", "p90", "p99", "p99_9", "max"].map(number);
    group.chain(figures).chain(measures).chain([screen::cell(&item["slowest_trace_id"])]).collect()
}
