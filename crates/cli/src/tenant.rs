//! `tenant`: who shares the platform; for its operator.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Create, list and delete tenants
///
/// A tenant has functions, routes, keys and history of its own, which no other tenant sees. Its
/// routes are at http://NAME.localhost:5000/ and below /t/NAME/ of the gateway.
#[derive(Debug, Args)]
pub(crate) struct Tenant {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a tenant
    Create {
        /// Its name: 1 to 63 of a-z 0-9 -
        name: String,
    },
    /// List tenants
    List,
    /// Delete a tenant with its functions, keys, secrets and waiting calls
    Delete {
        /// Its name
        name: String,
    },
}

impl Tenant {
    /// Does it and says so.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let (answer, said) = match &self.verb {
            Verb::List => return list(global, client).await,
            Verb::Create { name } => {
                let answer = client.post_json("/tenants", &json!({ "name": name })).await?;
                (
                    answer,
                    format!(
                        "{name} is created; make its first key with `functionsplatform key create NAME --scopes admin --tenant {name}`"
                    ),
                )
            }
            Verb::Delete { name } => {
                let path = format!("/tenants/{}", segment(name));
                (
                    client.call(Method::DELETE, &path, None).await?,
                    format!("{name} is deleted with all that was its"),
                )
            }
        };
        match global.json() {
            true => screen::answer(&answer)?,
            false => screen::line(&said)?,
        }
        Ok(Exit::Ok)
    }
}

async fn list(global: &Global, client: &Client) -> Result<Exit, Failure> {
    let answer = client.get("/tenants").await?;
    if global.json() {
        screen::answer(&answer)?;
        return Ok(Exit::Ok);
    }
    let columns = ["name", "functions", "keys", "created_at"];
    screen::table(
        &["tenant", "functions", "keys", "created"],
        screen::rows(&answer.read()?, &columns),
        "no tenants",
    )?;
    Ok(Exit::Ok)
}
