//! `completions` and `man`: what clap can write about the command line.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::exit::{Exit, Failure};
use crate::flags::Cli;
use crate::screen;

/// Print a shell's completion script
///
/// For bash: source <(functionsplatform completions bash)
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "functionsplatform", &mut script);
        screen::bytes(&script)?;
        Ok(Exit::Ok)
    }
}

/// Write the manual pages
///
/// Without a directory the page of `functionsplatform` itself is printed; with one, a page
/// for it and for each verb is written there.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where to write functionsplatform.1, functionsplatform-up.1, …
    dir: Option<PathBuf>,
}

impl Man {
    /// Prints or writes the pages.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let command = Cli::command();
        match &self.dir {
            Some(dir) => write_pages(dir, command)?,
            None => screen::bytes(&page(command)?)?,
        }
        Ok(Exit::Ok)
    }
}

fn write_pages(dir: &Path, command: clap::Command) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|error| Failure::file("create", dir, &error))?;
    clap_mangen::generate_to(command, dir).map_err(|error| Failure::file("write pages to", dir, &error))
}

fn page(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}
