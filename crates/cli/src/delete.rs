//! `delete`: a function and all its versions go; calls in flight finish.

use clap::Args;
use http::Method;

use crate::client::{Client, segment};
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Delete a function
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The function's name
    name: String,
}

impl Delete {
    /// Deletes it and says so.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let path = format!("/functions/{}", segment(&self.name));
        let answer = client.call(Method::DELETE, &path, None).await?;
        match global.json() {
            true => screen::answer(&answer)?,
            false => screen::line(&format!("{} is deleted", self.name))?,
        }
        Ok(Exit::Ok)
    }
}
