//! `logs`: the text that an invocation printed, exactly.

use clap::Args;
use serde::Deserialize;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Print what an invocation printed
///
/// The captured text of stdout, stderr and logging comes out as it was written, without
/// prefixes and with nothing added.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The invocation's id, as in the response header X-Serverless-Instance-Id
    id: String,
}

#[derive(Debug, Deserialize)]
struct Captured {
    logs: String,
}

impl Logs {
    /// Fetches the logs and prints them.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let answer = client.get(&format!("/functions/instances/{}/logs", segment(&self.id))).await?;
        match global.json() {
            true => screen::answer(&answer)?,
            false => screen::text(&answer.read::<Captured>()?.logs)?,
        }
        Ok(Exit::Ok)
    }
}
