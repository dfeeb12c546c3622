//! What `up` is doing: a bar on a terminal, plain lines otherwise; always on stderr.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use fp_core::{FunctionName, VersionNumber};
use indicatif::{ProgressBar, ProgressStyle};

use crate::screen;

/// Progress of starting and deploying.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// For so many functions.
    pub(crate) fn new(functions: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(functions as u64);
            let template =
                if functions == 0 { "{spinner} {msg}" } else { "{spinner} [{bar:30}] {pos}/{len} {msg}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar }
    }

    /// The server is starting.
    pub(crate) fn starting(&self) {
        self.say("starting the platform");
    }

    /// A directory is being deployed.
    pub(crate) fn deploying(&self, dir: &Path) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("deploying {}", dir.display()));
        }
    }

    /// It is deployed.
    pub(crate) fn deployed(&self, name: &FunctionName, version: VersionNumber) {
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => screen::note(&format!("deployed {name} version {}", version.0)),
        }
    }

    /// Prints something without disturbing the bar.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Leaves nothing on the terminal.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => screen::note(text),
        }
    }
}
