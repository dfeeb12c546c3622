//! `key`: who may do what in a tenant; for its admins.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Create, list and revoke keys
///
/// Keys are those of your own tenant, the operator's with --tenant those of another.
#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a key and print it: it is shown this once
    Create {
        /// What to call it, such as ci
        name: String,
        /// What its holder may do: any of deploy, invoke, read and admin, which stands for all
        #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true)]
        scopes: Vec<String>,
        /// When it ends: RFC 3339, or a time from now such as 90d [default: never]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List keys, without their secrets
    List,
    /// Revoke a key, from the next request on
    Revoke {
        /// Its id: the eight characters after fpk_
        id: String,
    },
}

impl Key {
    /// Does it and says so.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        match &self.verb {
            Verb::Create { name, scopes, expires } => {
                create(global, client, name, scopes, expires.as_deref()).await
            }
            Verb::List => list(global, client).await,
            Verb::Revoke { id } => revoke(global, client, id).await,
        }
    }
}

/// The key alone goes to stdout, so that a script can keep it.
async fn create(
    global: &Global,
    client: &Client,
    name: &str,
    scopes: &[String],
    expires: Option<&str>,
) -> Result<Exit, Failure> {
    let mut body = json!({ "name": name, "scopes": scopes });
    if let Some(expires) = expires {
        body["expires"] = expires.into();
    }
    let answer = client.post_json("/keys", &body).await?;
    if global.json() {
        screen::answer(&answer)?;
        return Ok(Exit::Ok);
    }
    let made: Value = answer.read()?;
    screen::line(made["key"].as_str().unwrap_or_default())?;
    screen::note("keep it now: the platform has only a hash of it and cannot show it again");
    Ok(Exit::Ok)
}

async fn list(global: &Global, client: &Client) -> Result<Exit, Failure> {
    let answer = client.get("/keys").await?;
    if global.json() {
        screen::answer(&answer)?;
        return Ok(Exit::Ok);
    }
    let columns = ["id", "name", "scopes", "state", "created_at", "expires_at", "last_used_at"];
    let titles = ["id", "name", "scopes", "state", "created", "expires", "last used"];
    screen::table(
        &titles,
        screen::rows(&answer.read()?, &columns),
        "no keys; make one with `functionsplatform key create`",
    )?;
    Ok(Exit::Ok)
}

async fn revoke(global: &Global, client: &Client, id: &str) -> Result<Exit, Failure> {
    let answer = client.call(Method::DELETE, &format!("/keys/{}", segment(id)), None).await?;
    match global.json() {
        true => screen::answer(&answer)?,
        false => screen::line(&format!("{id} is revoked"))?,
    }
    Ok(Exit::Ok)
}
