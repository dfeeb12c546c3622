//! `simulate`: a scenario against the pool's policy, in virtual time.

use std::path::Path;

use clap::Args;
use fp_sim::{Report, SCENARIOS, Sample, Scenario};

use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen;

/// Play a scenario against the platform's pool policy in virtual time
///
/// A minute of a busy function takes milliseconds, and the same seed gives the same report. Use
/// it to ask what `max`, a slower start or a burst would do. Without an argument the scenarios
/// that come with the program are listed.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A scenario file, or the name of one that comes with the program
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
    /// Use this seed instead of the scenario's
    #[arg(long)]
    seed: Option<u64>,
    /// Print the scenario instead of playing it, to start one of your own from
    #[arg(long, requires = "scenario")]
    show: bool,
    /// Show the pool second by second, too
    #[arg(long)]
    timeline: bool,
}

impl Simulate {
    /// Plays it and prints the report.
    pub(crate) fn run(&self, global: &Global) -> Result<Exit, Failure> {
        let Some(name) = &self.scenario else {
            let rows = SCENARIOS.iter().map(|(name, text)| vec![(*name).to_owned(), first_comment(text)]);
            screen::table(&["scenario", "about"], rows.collect(), "there are none")?;
            return Ok(Exit::Ok);
        };
        let text = read(name)?;
        if self.show {
            screen::text(&text)?;
            return Ok(Exit::Ok);
        }
        let mut scenario =
            Scenario::parse(&text).map_err(|error| Failure::usage(format!("{name}: {error}").trim_end()))?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        let report = fp_sim::run(&scenario);
        match global.json() {
            true => screen::json(&report)?,
            false => self.print(&report)?,
        }
        Ok(Exit::Ok)
    }

    fn print(&self, report: &Report) -> Result<(), Failure> {
        screen::text(&report.to_string())?;
        if self.timeline {
            screen::line("")?;
            let row = |at: &Sample| {
                let counts = [at.idle, at.busy, at.starting, at.queued].map(|count| count.to_string());
                [vec![at.at.to_string()], counts.to_vec()].concat()
            };
            let header = ["second", "idle", "busy", "starting", "queued"];
            screen::table(&header, report.timeline.iter().map(row).collect(), "no time passed")?;
        }
        Ok(())
    }
}

/// A file, or a scenario of ours by its name.
fn read(name: &str) -> Result<String, Failure> {
    let path = Path::new(name);
    if let Some((_, text)) = SCENARIOS.iter().find(|(ours, _)| *ours == name && !path.exists()) {
        return Ok((*text).to_owned());
    }
    std::fs::read_to_string(path).map_err(|error| {
        Failure::file("read the scenario", path, &error)
            .hint("`functionsplatform simulate` lists the scenarios that come with the program")
    })
}

/// What a scenario says about itself in its first lines.
fn first_comment(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with('#'));
    let words: Vec<_> = lines.map(|line| line.trim_start_matches('#').trim()).collect();
    let all = words.join(" ");
    all.split_once(". ").map_or(all.clone(), |(first, _)| first.to_owned())
}
