//! `deploy`: directories go to a running platform as archives.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use http::Method;

use crate::client::{Answer, Client, segment};
use crate::create::version_of;
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::{function_dir, screen};

/// Deploy a directory: one function, or every function in its subdirectories
///
/// The platform loads each handler before it accepts it; a refused one leaves the version
/// before it in place, and the others are deployed all the same.
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// A directory with a function.toml, or one whose subdirectories have them
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

impl Deploy {
    /// Deploys them one after the other; the exit code is that of the first failure.
    pub(crate) async fn run(&self, global: &Global, client: &Client) -> Result<Exit, Failure> {
        let dirs = function_dir::find(&self.dir)?;
        let mut exit = Exit::Ok;
        for dir in &dirs {
            match deploy(dir, client).await {
                Ok((name, answer)) => print(global, &name, &answer)?,
                Err(failure) if failure.exit == Exit::Unreachable || dirs.len() == 1 => return Err(failure),
                Err(failure) => {
                    exit = if exit == Exit::Ok { failure.exit } else { exit };
                    let message = format!("{}: {}", dir.display(), failure.message);
                    screen::failure(&Failure { message, ..failure });
                }
            }
        }
        Ok(exit)
    }
}

async fn deploy(dir: &Path, client: &Client) -> Result<(String, Answer), Failure> {
    let name = function_dir::name(dir)?;
    let archive = Bytes::from(function_dir::pack(dir)?);
    let path = format!("/functions/{}", segment(&name));
    let answer = client.call(Method::PUT, &path, Some(("application/zip", archive))).await?;
    Ok((name, answer))
}

fn print(global: &Global, name: &str, answer: &Answer) -> Result<(), Failure> {
    if global.json() {
        return screen::answer(answer);
    }
    screen::line(&format!("{name}{} is deployed", version_of(&answer.read()?)))
}
