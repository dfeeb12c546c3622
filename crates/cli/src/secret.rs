//! `secret set|list|delete`: values that functions read and nobody else sees.
//!
//! A value comes from standard input, never as an argument: arguments are in the shell's history
//! and in every process list. On a terminal it is asked for without showing it.

use std::io::{IsTerminal as _, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// The most that the platform takes for a value, in bytes, and room for a line's end.
const MOST_BYTES: u64 = (64 << 10) + 2;

/// Set, list and delete secrets, which functions read by name
#[derive(Debug, Args)]
pub(crate) struct Secret {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Set a secret, or give it a new value, from standard input
    ///
    /// Running functions see a new value at their next call, without a deploy. One line end at the
    /// end of the input is not part of the value.
    Set {
        /// The secret's name, as function.toml has it under `secrets`
        name: String,
        /// Take the input as it is, with the line end at its end
        #[arg(long)]
        keep_newline: bool,
    },
    /// List secrets: names, times and who reads them, never values
    List,
    /// Delete a secret
    Delete {
        /// The secret's name
        name: String,
        /// Also while live functions read it
        #[arg(long)]
        force: bool,
    },
}

impl Secret {
    /// Does it and says so.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        match &self.what {
            What::Set { name, keep_newline } => set(global, client, name, *keep_newline).await?,
            What::List => list(global, client).await?,
            What::Delete { name, force } => delete(global, client, name, *force).await?,
        }
        Ok(Exit::Ok)
    }
}

async fn set(global: &Global, client: &Client, name: &str, keep_newline: bool) -> Result<(), Failure> {
    let value = read_value(name, keep_newline)?;
    let body = match String::from_utf8(value) {
        Ok(text) => json!({ "value": text }),
        Err(bytes) => json!({ "value": STANDARD.encode(bytes.as_bytes()), "encoding": "base64" }),
    };
    let body = Bytes::from(body.to_string());
    let path = format!("/secrets/{}", segment(name));
    let answer = client.call(Method::PUT, &path, Some(("application/json", body))).await?;
    if global.json() {
        return screen::answer(&answer);
    }
    let secret: Value = answer.read()?;
    let readers = readers(&secret);
    screen::line(&match (secret["created_at"] == secret["rotated_at"], readers.is_empty()) {
        (true, true) => format!("{name} is set; name it under secrets in a function.toml to use it"),
        (true, false) => format!("{name} is set for {readers}"),
        (false, true) => format!("{name} has a new value"),
        (false, false) => format!("{name} has a new value, which {readers} will see from the next call on"),
    })
}

async fn list(global: &Global, client: &Client) -> Result<(), Failure> {
    let answer = client.get("/secrets").await?;
    if global.json() {
        return screen::answer(&answer);
    }
    let page: Value = answer.read()?;
    let row = |secret: &Value| {
        let cell = |name: &str| screen::cell(&secret[name]);
        vec![cell("name"), cell("created_at"), cell("rotated_at"), readers(secret)]
    };
    let rows = page["items"].as_array().into_iter().flatten().map(row).collect();
    let none = "no secrets yet; set one with `functionsplatform secret set NAME`";
    screen::table(&["name", "created", "rotated", "functions"], rows, none)
}

async fn delete(global: &Global, client: &Client, name: &str, force: bool) -> Result<(), Failure> {
    let query = if force { "?force=true" } else { "" };
    let path = format!("/secrets/{}{query}", segment(name));
    let answer = client.call(Method::DELETE, &path, None).await?;
    match global.json() {
        true => screen::answer(&answer),
        false => screen::line(&format!("{name} is deleted")),
    }
}

fn readers(secret: &Value) -> String {
    let names = secret["functions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}

fn read_value(name: &str, keep_newline: bool) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let input = std::io::stdin();
    let quiet = input.is_terminal().then(|| Quiet::begin(name)).flatten();
    if quiet.is_some() {
        let mut line = String::new();
        input.read_line(&mut line)?;
        value = line.into_bytes();
    } else {
        input.lock().take(MOST_BYTES).read_to_end(&mut value)?;
    }
    drop(quiet);
    if !keep_newline && value.ends_with(b"\n") {
        value.pop();
        value.pop_if(|last| *last == b'\r');
    }
    if value.is_empty() {
        return Err(Failure::usage(format!("the value of {name} is empty"))
            .hint(format!("pipe it in: functionsplatform secret set {name} < file")));
    }
    Ok(value)
}

/// A terminal that does not show what is typed, until this goes.
struct Quiet(Termios);

impl Quiet {
    fn begin(name: &str) -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &silent).ok()?;
        screen::note(&format!("type the value of {name}; it is not shown"));
        Some(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
