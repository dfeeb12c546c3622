//! `create`: one file becomes a function bound to a verb and a path.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::{payload, screen};

/// Create a function from one file, or a new version of it
///
/// The platform loads the handler before it accepts it: a file that does not compile, or has
/// no `handler`, is refused with the line, and the version before it stays.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The function's name
    #[arg(long)]
    name: String,
    /// The verb that it answers, or * for any
    #[arg(short = 'X', long, value_name = "VERB", value_parser = payload::verb, default_value = "GET")]
    http_verb: String,
    /// The path that it answers, such as /cats or /cats/{id}
    #[arg(short = 'P', long, value_name = "PATH", value_parser = payload::path)]
    http_path: String,
    /// The file with its handler; - reads it from stdin
    #[arg(short = 'f', long, value_name = "FILE")]
    code_file: String,
    /// Settings: a TOML or JSON file with the keys of function.toml except name, handler and events
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

impl Create {
    /// Posts the function and says what became of it.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let code = payload::read_code(&self.code_file)?;
        let mut body = json!({
            "event_type": format!("http|{}|{}", self.http_verb, self.http_path),
            "function_code": code,
            "function_name": self.name,
        });
        if let Some(file) = &self.settings {
            body["settings"] = read_settings(file)?;
        }
        let answer = client.post_json("/functions", &body).await?;
        if global.json() {
            screen::answer(&answer)?;
            return Ok(Exit::Ok);
        }
        let version = version_of(&answer.read()?);
        screen::line(&format!("{}{version} answers {} {}", self.name, self.http_verb, self.http_path))?;
        Ok(Exit::Ok)
    }
}

/// ` version 3`, where the answer tells.
pub(crate) fn version_of(answer: &Value) -> String {
    answer.get("version").map(|version| format!(" version {}", screen::cell(version))).unwrap_or_default()
}

fn read_settings(file: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::file("read", file, &error))?;
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", file.display()));
    match file.extension().is_some_and(|extension| extension == "json") {
        true => serde_json::from_str(&text).map_err(|error| wrong(&error)),
        false => toml::from_str(&text).map_err(|error| wrong(&error)),
    }
}
