//! `slo`: what functions promise, how they stand, and what went wrong.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Show objectives of functions, their error budgets, burn rates and alerts
#[derive(Debug, Args)]
pub(crate) struct Slo {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the objectives of all functions and how they stand
    List,
    /// Show one function's objective, attainment and error budget
    Show {
        /// The function's name
        name: String,
    },
    /// Show how fast one function's error budget is being spent, by window
    Burn {
        /// The function's name
        name: String,
    },
    /// List alerts with what broke the objective and the calls that did
    Alerts {
        /// The function's name; every function's without it
        name: Option<String>,
        /// Those that fire now only
        #[arg(long)]
        firing: bool,
    },
    /// Have nobody told of alerts for a while; without --for, list the silences that hold
    Silence {
        /// The function's name; every function's without it
        name: Option<String>,
        /// How long from now on, such as 30m, 2h or 1d
        #[arg(long = "for", value_name = "TIME")]
        lasts: Option<String>,
        /// Alerts of this objective only: availability or latency
        #[arg(long, requires = "lasts")]
        objective: Option<String>,
        /// Alerts of this severity only: page or ticket
        #[arg(long, requires = "lasts")]
        severity: Option<String>,
        /// Why: who looks at it in the night wants to know
        #[arg(long, requires = "lasts")]
        reason: Option<String>,
        /// End the silence of this id instead
        #[arg(long, value_name = "ID", conflicts_with_all = ["name", "lasts"])]
        end: Option<String>,
    },
}

impl Slo {
    /// Asks the platform and prints what it says.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let path = match &self.what {
            What::Silence { end: Some(id), .. } => return end_silence(global, client, id).await,
            What::Silence { name, lasts: Some(lasts), objective, severity, reason, .. } => {
                let asked = [
                    ("function", name),
                    ("objective", objective),
                    ("severity", severity),
                    ("reason", reason),
                ];
                return silence(global, client, lasts, asked).await;
            }
            What::Silence { .. } => "/slo/silences".to_owned(),
            What::List => "/slo".to_owned(),
            What::Show { name } | What::Burn { name } => format!("/slo/functions/{}", segment(name)),
            What::Alerts { name, firing } => alerts_path(name.as_deref(), *firing),
        };
        let answer = client.get(&path).await?;
        if global.json() {
            screen::answer(&answer)?;
            return Ok(Exit::Ok);
        }
        match &self.what {
            What::List => print_list(&rounded(answer.read()?))?,
            What::Show { .. } => print_objective(&answer.read::<Objective>()?.rounded())?,
            What::Burn { .. } => print_table(&answer.read::<Objective>()?.rounded().slo, &BURN)?,
            What::Alerts { .. } => print_alerts(&answer.read()?)?,
            What::Silence { name, .. } => print_silences(&answer.read()?, name.as_deref())?,
        }
        Ok(Exit::Ok)
    }
}

async fn silence(
    global: &Global,
    client: &Client,
    lasts: &str,
    asked: [(&str, &Option<String>); 4],
) -> Result<Exit, Failure> {
    let mut body = serde_json::json!({ "for": lasts });
    for (key, value) in asked.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        body[key] = value.as_str().into();
    }
    let answer = client.post_json("/slo/silences", &body).await?;
    if global.json() {
        screen::answer(&answer)?;
        return Ok(Exit::Ok);
    }
    let silence: Value = answer.read()?;
    let (id, ends) = (screen::cell(&silence["id"]), screen::cell(&silence["ends_at"]));
    screen::line(&format!(
        "nobody is told until {ends}; `functionsplatform slo silence --end {id}` ends it"
    ))?;
    Ok(Exit::Ok)
}

async fn end_silence(global: &Global, client: &Client, id: &str) -> Result<Exit, Failure> {
    let answer = client.call(http::Method::DELETE, &format!("/slo/silences/{}", segment(id)), None).await?;
    match global.json() {
        true => screen::answer(&answer)?,
        false => screen::line(&format!("{id} is ended"))?,
    }
    Ok(Exit::Ok)
}

fn print_silences(page: &Value, function: Option<&str>) -> Result<(), Failure> {
    let columns = ["id", "function", "objective", "severity", "ends_at", "reason"];
    // One of every function's alerts is one of this one's, too.
    let is_asked = |item: &&Value| {
        let of = item["function"].as_str();
        function.is_none_or(|asked| of.is_none_or(|of| of == asked))
    };
    let cells = |item: &Value| columns.iter().map(|column| screen::cell(&item[*column])).collect();
    let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = items.iter().filter(is_asked).map(cells).collect();
    let header = ["id", "function", "objective", "severity", "ends", "reason"];
    screen::table(&header, rows, "no silences; make one with `functionsplatform slo silence NAME --for 2h`")
}

fn alerts_path(name: Option<&str>, firing: bool) -> String {
    let name = name.map(|name| format!("function={}", segment(name)));
    let state = firing.then(|| "state=firing".to_owned());
    let query: Vec<String> = name.into_iter().chain(state).collect();
    if query.is_empty() { "/slo/alerts".to_owned() } else { format!("/slo/alerts?{}", query.join("&")) }
}

/// What is read of one function's objective.
#[derive(Debug, Deserialize)]
struct Objective {
    slo: Value,
    budget: Vec<Course>,
}

#[derive(Debug, Deserialize)]
struct Course {
    objective: String,
    left: Vec<f64>,
}

impl Objective {
    fn rounded(self) -> Self {
        Self { slo: rounded(self.slo), ..self }
    }
}

/// Numbers as people read them: to a thousandth.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let to_thousandth = |number: f64| (number * 1e3).round() / 1e3;
            number.as_f64().map(to_thousandth).map_or(Value::Null, Value::from)
        }
        Value::Array(items) => items.into_iter().map(rounded).collect(),
        Value::Object(map) => map.into_iter().map(|(name, value)| (name, rounded(value))).collect(),
        other => other,
    }
}

/// A list in an objective with its columns as they are called there and here.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    header: &'static [&'static str],
    none: &'static str,
}

const BURN: Table = Table {
    name: "burn",
    columns: &["window", "availability", "latency"],
    header: &["burn over", "availability", "latency"],
    none: "no burn rates yet",
};

const ALERTS: Table = Table {
    name: "alerts",
    columns: &["objective", "severity", "long", "short", "factor", "burn"],
    header: &["objective", "severity", "long", "short", "factor", "burn"],
    none: "no alerts",
};

/// Values line by line, the budgets' courses, then a table for each list.
fn print_objective(objective: &Objective) -> Result<(), Failure> {
    let Some(map) = objective.slo.as_object() else { return Ok(()) };
    let values = map.iter().filter(|(name, _)| ![BURN.name, ALERTS.name].contains(&name.as_str()));
    let mut pairs: Vec<_> = values.flat_map(|(name, value)| screen::flat(name, value)).collect();
    let drawn = objective.budget.iter().filter(|course| !course.left.is_empty());
    pairs.extend(drawn.map(|course| (format!("budget.{}", course.objective), sparkline(&course.left))));
    screen::pairs(&pairs)?;
    for table in [BURN, ALERTS] {
        screen::line("")?;
        print_table(&objective.slo, &table)?;
    }
    Ok(())
}

fn print_table(slo: &Value, table: &Table) -> Result<(), Failure> {
    let rows = slo[table.name].as_array().map(Vec::as_slice).unwrap_or_default();
    let cells = |row: &Value| table.columns.iter().map(|column| screen::cell(&row[*column])).collect();
    screen::table(table.header, rows.iter().map(cells).collect(), table.none)
}

fn print_list(page: &Value) -> Result<(), Failure> {
    let row = |item: &Value| {
        let slo = &item["slo"];
        let latency = &slo["latency"];
        let under = latency["percent"]
            .as_f64()
            .map(|percent| format!("{percent}% < {} ms", screen::cell(&latency["under_ms"])));
        vec![
            screen::cell(&item["function"]),
            format!("{}d", screen::cell(&slo["window_days"])),
            screen::cell(&slo["availability"]),
            screen::cell(&slo["attained"]),
            percent(&slo["budget_left"]),
            under.unwrap_or_else(|| "-".into()),
            screen::cell(&latency["attained"]),
            percent(&latency["budget_left"]),
            screen::cell(&item["firing"]),
        ]
    };
    let rows = page["items"].as_array().map(|items| items.iter().map(row).collect()).unwrap_or_default();
    let header = [
        "function",
        "window",
        "availability",
        "attained",
        "budget left",
        "latency",
        "attained",
        "budget left",
        "firing",
    ];
    screen::table(&header, rows, "no function has an objective; give it one with [slo] in its function.toml")
}

fn print_alerts(page: &Value) -> Result<(), Failure> {
    let row = |item: &Value| {
        let culprit = &item["culprit"];
        let place = match culprit["span"].as_str() {
            Some(span) => format!("{}: {span}", screen::cell(&culprit["phase"])),
            None => screen::cell(&culprit["phase"]),
        };
        let mut cells = vec![
            screen::cell(&item["function"]),
            screen::cell(&item["objective"]),
            format!("{} {}", screen::cell(&item["severity"]), screen::cell(&item["long"])),
            screen::cell(&item["state"]),
        ];
        cells.extend(["began_at", "ended_at", "bad"].map(|name| screen::cell(&item[name])));
        cells.extend([place, screen::cell(&item["calls"][0]["trace_id"])]);
        cells
    };
    let rows = page["items"].as_array().map(|items| items.iter().map(row).collect()).unwrap_or_default();
    let header =
        ["function", "objective", "alert", "state", "began", "ended", "bad calls", "broken by", "a trace"];
    screen::table(&header, rows, "no alerts")
}

fn percent(share: &Value) -> String {
    share.as_f64().map_or_else(|| "-".into(), |share| format!("{:.1}%", share * 100.0))
}

/// One character a point: empty and overspent at the bottom, untouched at the top.
fn sparkline(left: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |share: &f64| BARS[(share.clamp(0.0, 1.0) * 7.0).round() as usize];
    left.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_drawn_from_untouched_to_overspent() {
        assert_eq!(sparkline(&[1.0, 0.5, 0.0, -3.0, 2.0]), "█▅▁▁█");
    }

    #[test]
    fn alerts_are_asked_for_by_function_and_state() {
        assert_eq!(alerts_path(None, false), "/slo/alerts");
        assert_eq!(alerts_path(Some("a.b"), true), "/slo/alerts?function=a.b&state=firing");
    }
}
