//! `simulate`: a scenario against the platform's policies, in virtual time.

use std::path::{Path, PathBuf};

use clap::Args;
use fp_sim::{Change, Report, SCENARIOS, Sample, Scenario, ScenarioError};

use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::screen::{self, Format};

mod comparison;
mod plot;
mod recorded;

use comparison::Run;
use recorded::Recording;

/// Rows of a table that a screen has room for.
const MOST_ROWS: usize = 60;

/// Play a load against the platform's policies in virtual time
///
/// A minute of a busy function takes milliseconds, and the same seed gives the same report. Use it
/// to ask what hedging, another `max`, a slower start or twice the load would do: to the
/// percentiles, to the answers per second, and to the cost in workers.
///
/// A scenario is a TOML file, one that comes with the program (--list), or a function's recorded
/// calls (--from). With --output svg the report is a drawing.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A scenario file, or the name of one that comes with the program
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
    /// List the scenarios that come with the program
    #[arg(long, conflicts_with_all = ["scenario", "from"])]
    list: bool,
    /// Use this seed instead of the scenario's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Change a value of the scenario: scaling.max=8, load=2, streams.NAME.rate=50
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Change>,
    /// Play it once more with these values changed, and show both side by side; several are
    /// separated by `;`
    #[arg(long, value_name = "KEY=VALUE")]
    compare: Vec<String>,
    /// Draw the report into this file, too
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Show the pool over time, too
    #[arg(long)]
    timeline: bool,
    /// Print the scenario instead of playing it, to start one of your own from
    #[arg(long)]
    show: bool,
    /// Make the scenario of a function's recorded calls: arrivals, run times, starts and settings
    #[arg(long, value_name = "FUNCTION", conflicts_with = "scenario")]
    from: Option<String>,
    /// With --from: only calls that arrived since: RFC 3339, or an age such as 1h
    #[arg(long, value_name = "TIME", requires = "from", conflicts_with = "scenario", default_value = "1h")]
    since: String,
    /// With --from: at most this many calls, the latest
    #[arg(long, value_name = "N", requires = "from", conflicts_with = "scenario", default_value = "100000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    calls: u32,
    /// With --from: keep the scenario in this file, and what it is made of in files beside it
    #[arg(long, value_name = "FILE.toml", requires = "from", conflicts_with = "scenario")]
    save: Option<PathBuf>,
}

/// A scenario's text and where its files are.
struct Source {
    name: String,
    text: String,
    files: Files,
}

/// The files that a scenario names.
enum Files {
    /// Beside the scenario.
    In(PathBuf),
    /// As they were recorded.
    Recorded(Recording),
}

impl Simulate {
    /// Plays it and prints the report.
    pub(crate) fn run(&self, global: &Global) -> Result<Exit, Failure> {
        let Some(source) = self.source(global)? else { return list() };
        if self.show {
            screen::text(&source.text)?;
            return Ok(Exit::Ok);
        }
        let mut runs = vec![Run::new("as it is", self.play(&source, &self.set)?)];
        for compared in &self.compare {
            let more = compared.split(';').filter(|part| !part.trim().is_empty());
            let more = more.map(|part| part.trim().parse()).collect::<Result<Vec<Change>, _>>();
            let more = more.map_err(|error| Failure::usage(error.to_string()))?;
            let changes: Vec<_> = self.set.iter().cloned().chain(more).collect();
            runs.push(Run::new(compared, self.play(&source, &changes)?));
        }
        if let Some(path) = &self.plot {
            std::fs::write(path, plot::draw(&runs))
                .map_err(|error| Failure::file("write the plot", path, &error))?;
        }
        match global.output {
            Format::Svg => screen::text(&plot::draw(&runs))?,
            Format::Json if runs.len() == 1 => screen::json(&runs[0].report)?,
            Format::Json => screen::json(&serde_json::json!({ "runs": runs }))?,
            Format::Table => self.print(&runs)?,
        }
        Ok(Exit::Ok)
    }

    /// What is to be played; none if nothing was named.
    fn source(&self, global: &Global) -> Result<Option<Source>, Failure> {
        if let Some(function) = &self.from {
            let recording = recorded::fetch(global, function, &self.since, self.calls, self.save.as_deref())?;
            recording.notes.iter().for_each(|note| screen::note(note));
            if let Some(path) = &self.save {
                recording.write(path)?;
            }
            let text = recording.scenario.clone();
            return Ok(Some(Source { name: function.clone(), text, files: Files::Recorded(recording) }));
        }
        let Some(name) = self.scenario.as_ref().filter(|_| !self.list) else { return Ok(None) };
        let path = Path::new(name);
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Some(Source { name: name.clone(), text: read(name)?, files: Files::In(dir) }))
    }

    fn play(&self, source: &Source, changes: &[Change]) -> Result<(Scenario, Report), Failure> {
        let Source { name, text, files } = source;
        let read = |file: &str| match files {
            Files::Recorded(recording) => {
                recording.file(file).map(str::to_owned).ok_or_else(|| format!("there is no {file}"))
            }
            Files::In(dir) => std::fs::read_to_string(dir.join(file))
                .map_err(|error| format!("cannot read {file}: {}", crate::exit::plain(&error))),
        };
        let mut scenario =
            Scenario::parse_with(text, changes, read).map_err(|error| refused(name, &error))?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        let report = fp_sim::run(&scenario);
        Ok((scenario, report))
    }

    fn print(&self, runs: &[Run]) -> Result<(), Failure> {
        match runs {
            [one] => screen::text(&one.report.to_string())?,
            several => screen::text(&comparison::table(several))?,
        }
        if !self.timeline {
            return Ok(());
        }
        for run in runs {
            screen::line("")?;
            if runs.len() > 1 {
                screen::line(&format!("{}: {}", run.letter(runs), run.name))?;
            }
            let header =
                ["second", "idle", "busy", "starting", "queued", "offered", "answered", "slowest ms"];
            screen::table(&header, timeline(&run.report.timeline), "no time passed")?;
        }
        Ok(())
    }
}

/// As many rows as fit, each with what happened since the row before.
fn timeline(samples: &[Sample]) -> Vec<Vec<String>> {
    let together = samples.len().div_ceil(MOST_ROWS).max(1);
    let row = |group: &[Sample]| {
        let last = group.last()?;
        let sum = |of: fn(&Sample) -> u32| group.iter().map(of).sum::<u32>().to_string();
        let slowest = group.iter().map(|sample| sample.slowest_ms).fold(0.0, f64::max);
        Some(vec![
            last.at.to_string(),
            last.idle.to_string(),
            last.busy.to_string(),
            last.starting.to_string(),
            last.queued.to_string(),
            sum(|sample| sample.offered),
            sum(|sample| sample.answered),
            format!("{slowest:.1}"),
        ])
    };
    let (first, rest) = samples.split_at(samples.len().min(1));
    [first].into_iter().chain(rest.chunks(together)).filter_map(row).collect()
}

/// A scenario that cannot be played is a wrong input, as a wrong flag is.
fn refused(name: &str, error: &ScenarioError) -> Failure {
    let failure = match error {
        ScenarioError::Change { .. } => Failure::usage(error.to_string()),
        ScenarioError::File { .. } => Failure::new(Exit::Other, format!("{name}: {error}")),
        _ => Failure::usage(format!("{name}: {error}")),
    };
    failure.hint("docs/simulate.md lists every key; `simulate --show tail` prints a scenario to start from")
}

fn list() -> Result<Exit, Failure> {
    let rows = SCENARIOS.iter().map(|(name, text)| vec![(*name).to_owned(), first_comment(text)]);
    screen::table(&["scenario", "about"], rows.collect(), "there are none")?;
    Ok(Exit::Ok)
}

/// A file, or a scenario of ours by its name.
fn read(name: &str) -> Result<String, Failure> {
    let path = Path::new(name);
    if let Some((_, text)) = SCENARIOS.iter().find(|(ours, _)| *ours == name && !path.exists()) {
        return Ok((*text).to_owned());
    }
    std::fs::read_to_string(path).map_err(|error| {
        Failure::file("read the scenario", path, &error)
            .hint("`functionsplatform simulate --list` lists the scenarios that come with the program")
    })
}

/// What a scenario says about itself in its first lines.
fn first_comment(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with('#'));
    let words: Vec<_> = lines.map(|line| line.trim_start_matches('#').trim()).collect();
    let all = words.join(" ");
    all.split_once(". ").map_or(all.clone(), |(first, _)| first.to_owned())
}
