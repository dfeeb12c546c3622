//! `trigger`: a call that nobody waits for. The platform writes it down before it answers.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::{payload, screen};

/// Run the functions of a route in the background
///
/// The call is stored before the command returns and runs even if the platform is restarted.
/// It prints one invocation id a line; `functionsplatform logs ID` shows what became of it.
#[derive(Debug, Args)]
pub(crate) struct Trigger {
    /// The verb of the route
    #[arg(short = 'X', long, value_name = "VERB", value_parser = payload::verb, default_value = "GET")]
    http_verb: String,
    /// The path of the route
    #[arg(short = 'P', long, value_name = "PATH", value_parser = payload::path)]
    http_path: String,
    /// The body, as text; @FILE reads it from a file, @- from stdin
    #[arg(short = 'd', long = "http-body", visible_alias = "data", value_name = "BODY", default_value = "")]
    #[arg(hide_default_value = true)]
    http_body: String,
    /// A header, as 'Name: value', or several, one a line; may be given many times; lines without a colon are ignored
    #[arg(short = 'H', long = "http-header", visible_alias = "header", value_name = "HEADER")]
    http_header: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Accepted {
    #[serde(default)]
    container_ids: Vec<String>,
}

impl Trigger {
    /// Posts the call and prints the ids of the invocations.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let lines = self.http_header.iter().flat_map(|text| text.lines());
        // What is no header is passed over, as the API does with its `http_header`.
        let lines = lines.filter(|line| line.contains(':')).map(header_line);
        let body = json!({
            "http_header": lines.collect::<Result<Vec<_>, _>>()?.join("\n"),
            "http_body": payload::read_text(&self.http_body, "the body")?,
            "http_path": self.http_path,
            "http_verb": self.http_verb,
        });
        let answer = client.post_json("/functions/trigger", &body).await?;
        if global.json() {
            screen::answer(&answer)?;
            return Ok(Exit::Ok);
        }
        for id in answer.read::<Accepted>()?.container_ids {
            screen::line(&id)?;
        }
        Ok(Exit::Ok)
    }
}

/// A header as the API takes it, or what is wrong with it.
fn header_line(line: &str) -> Result<String, Failure> {
    let header: Result<payload::Header, _> = line.parse();
    header.map(|header| header.as_line()).map_err(|fault| Failure::usage(format!("header {line:?}: {fault}")))
}
