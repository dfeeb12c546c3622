//! `audit`: who asked the platform for what; for admins.

use clap::Args;
use serde_json::Value;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Show the audit log: who asked for what, when and from where, the latest first
///
/// Every call of the management API, of the pages and of the traces is in it, refused ones included.
/// An admin sees what was about their tenant, the operator everything; with --tenant that of one tenant.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only what arrived since: RFC 3339, or an age such as 1h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only records of this kind
    #[arg(long, value_name = "KIND", value_parser = ["change", "call", "refusal", "read"])]
    kind: Option<String>,
    /// Most records to show, 1 to 1000
    #[arg(long, value_name = "N", default_value = "50")]
    limit: u32,
    /// Where the page before ended: its `next`
    #[arg(long, value_name = "NEXT")]
    cursor: Option<String>,
}

impl Audit {
    /// Fetches a page and prints a row for each record.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let answer = client.get(&self.path()).await?;
        if global.json() {
            screen::answer(&answer)?;
            return Ok(Exit::Ok);
        }
        let page: Value = answer.read()?;
        let rows = page["items"].as_array().into_iter().flatten().map(row).collect();
        let titles = ["time", "kind", "tenant", "who", "from", "what", "about", "status"];
        screen::table(&titles, rows, "nothing is in the audit log yet")?;
        if let Some(next) = page["next"].as_str() {
            screen::note(&format!("there are earlier ones: --cursor {next}"));
        }
        Ok(Exit::Ok)
    }

    fn path(&self) -> String {
        let optional = [("since", &self.since), ("kind", &self.kind), ("cursor", &self.cursor)];
        let given = optional.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given.fold(format!("/audit?limit={}", self.limit), |path, (name, value)| {
            format!("{path}&{name}={}", segment(value))
        })
    }
}

fn row(record: &Value) -> Vec<String> {
    let cell = |name: &str| screen::cell(&record[name]);
    let status = match record["code"].as_str() {
        Some(code) => format!("{} {code}", record["status"]),
        None => cell("status"),
    };
    let missing = record["lost_before"].as_u64().filter(|lost| *lost > 0);
    let status = match missing {
        Some(lost) => format!("{status} ({lost} missing before it)"),
        None => status,
    };
    vec![
        cell("time"),
        cell("kind"),
        cell("tenant"),
        who(&record["caller"]),
        cell("peer"),
        format!("{} {}", cell("method"), cell("path")),
        cell("acted_on"),
        status,
    ]
}

/// Who asked, in a few words.
fn who(caller: &Value) -> String {
    let key = match (caller["key_name"].as_str(), caller["key_id"].as_str()) {
        (Some(name), Some(id)) => format!("{name} ({id})"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => String::new(),
    };
    match caller["means"].as_str().unwrap_or_default() {
        "bearer" => key,
        "session" => format!("{key}, signed in"),
        "loopback" => "nobody, on loopback".into(),
        "not_in_force" if key.is_empty() => "a key not in force".into(),
        "not_in_force" => format!("{key}, not in force"),
        "operator" => "the operator".into(),
        _ => "nobody".into(),
    }
}
