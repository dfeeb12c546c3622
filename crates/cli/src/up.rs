//! `up`: the platform, in this process, until a signal ends it.
//!
//! In order: the configuration, the functions that are to be deployed (a wrong DIR is told
//! before anything starts), the server, one deploy after the other, then where things are.
//! SIGTERM and SIGHUP are SIGINT: the first drains within the limit, the second ends at once. A
//! function that is refused leaves the others and the platform running; `/readyz` stays 503 and
//! names it until it is deployed after all.

mod places;
mod progress;
mod signals;
pub(crate) mod speaker;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use fp_core::Tenant;
use fp_server::catalog::CatalogError;
use fp_server::readiness::{Refused, Standing};
use fp_server::server::Doors;
use fp_server::{Config, Runtimes, Server};
use tokio::runtime::Handle;

use crate::configuration::PlatformFlags;
use crate::exit::{Exit, Failure};
use crate::flags::Global;
use crate::{function_dir, screen};
use progress::Progress;
use signals::Signals;

/// Start the platform and deploy the functions in the given directories
///
/// Runs until SIGINT, SIGTERM or SIGHUP, then lets running calls end within --drain-limit; a
/// second signal ends it at once. Functions of earlier runs come back from the data directory.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Directories with a function.toml, or whose subdirectories have them
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) platform: PlatformFlags,
}

impl Up {
    /// Runs the platform to its end.
    pub(crate) fn run(&self, global: &Global) -> Result<Exit, Failure> {
        let config = self.platform.configuration()?;
        keep_memory_private();
        start_diagnostics(&global.log)?;
        speaker::start()?;
        let mut functions = Vec::new();
        for dir in &self.dirs {
            functions.extend(function_dir::find(dir)?);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtimes = Runtimes::start(cores)?;
        let exit = runtimes.block_on(serve(global, config, &functions, runtimes.management()));
        runtimes.shut_down();
        exit
    }
}

/// Secrets are in this process's memory: it leaves no core file, and its user's other processes
/// cannot attach to it or read it in /proc. What it starts decides for itself.
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
    // One byte, where that may be: with zero a helper that core_pattern names gets it all (core(5)).
    let least = Some(getrlimit(Resource::Core).maximum.map_or(1, |hard| hard.min(1)));
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: least, maximum: least }) {
        screen::warning(&format!("core files cannot be switched off: {error}"));
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        screen::warning(&format!("the platform's memory cannot be kept from its user's processes: {error}"));
    }
}

async fn serve(
    global: &Global,
    config: Config,
    functions: &[PathBuf],
    management: &Handle,
) -> Result<Exit, Failure> {
    let limit = config.drain_limit;
    let mut signals = Signals::listen(limit)?;
    let progress = Progress::new(functions.len());
    progress.starting();
    let server = tokio::select! {
        server = Server::start(config, management) => server.map_err(|error| Failure::new(Exit::Other, error.to_string())),
        // Nothing was promised to anybody yet: what has started goes with its owner.
        () = signals.next() => return Ok(Exit::Ok),
    };
    let mut server = server.inspect_err(|_| progress.finish())?;
    tokio::select! {
        () = deploy_all(&server, functions, &progress) => {}
        () = signals.next() => return Ok(stop(server, limit, &mut signals).await),
    }
    progress.finish();
    server.app().readiness.on_deployed();
    let all = server.app().catalog.list(&Tenant::default());
    let (json, addresses) = (global.json(), server.addresses());
    // Stdout may be a pipe that nobody reads: only this waits for it.
    let (first_key, doors) = (server.take_first_key(), server.doors());
    if !addresses.management_tls {
        warn_of_plain_http(&doors);
    }
    let trust = server.to_trust();
    let shown = tokio::task::spawn_blocking(move || {
        places::show(json, addresses, &doors, trust.as_deref(), first_key, &all)
    });
    if let Standing::Refused(refused) = server.app().readiness.standing() {
        warn_of(&refused, functions.len());
    }
    tokio::select! {
        shown = shown => shown.context("showing where things are")??,
        () = signals.next() => return Ok(stop(server, limit, &mut signals).await),
    }
    signals.next().await;
    Ok(stop(server, limit, &mut signals).await)
}

/// Deploys what was asked for; what is refused is told and noted.
async fn deploy_all(server: &Server, functions: &[PathBuf], progress: &Progress) {
    for dir in functions {
        progress.deploying(dir);
        match server.deploy_dir(dir).await {
            Ok(function) => progress.deployed(&function.name, function.version),
            Err(error) => {
                progress.suspend(|| screen::failure(&refused(dir, &error)));
                server.app().readiness.on_refused(Refused {
                    function: name_of(dir),
                    directory: dir.display().to_string(),
                    detail: error.to_string(),
                });
            }
        }
    }
}

/// By which a later deploy is known to be this one's: its directory's name where the manifest
/// cannot be read.
fn name_of(dir: &Path) -> String {
    let directory = || dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    function_dir::name(dir)
        .unwrap_or_else(|_| directory().file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Whoever can listen in on the way learns the keys that pass.
fn warn_of_plain_http(doors: &Doors) {
    for (what, addr) in &doors.reachable {
        screen::warning(&format!(
            "the {what} at {addr} can be reached by others and speaks plain HTTP: keys can be read on the way; give it a certificate with --tls-cert and --tls-key, or put a proxy that speaks TLS before it"
        ));
    }
}

/// Said last, where it is seen: the errors may have scrolled away.
fn warn_of(refused: &[Refused], of: usize) {
    let names: Vec<_> = refused.iter().map(|refused| refused.function.as_str()).collect();
    screen::warning(&format!(
        "not ready: {} of {of} functions refused: {}; mend and `functionsplatform deploy DIR` each, then /readyz is 200",
        names.len(),
        names.join(", ")
    ));
}

fn refused(dir: &Path, error: &CatalogError) -> Failure {
    let place = match (&error.field, error.line) {
        (Some(field), Some(line)) => format!(" (field {field}, line {line})"),
        (Some(field), None) => format!(" (field {field})"),
        (None, Some(line)) => format!(" (line {line})"),
        (None, None) => String::new(),
    };
    let traceback = error.traceback.as_ref().map(|text| format!("\n{}", text.trim_end())).unwrap_or_default();
    Failure::new(Exit::Refused, format!("{} is not deployed: {error}{place}{traceback}", dir.display())).hint(
        format!("mend it and run `functionsplatform deploy {}`; until then /readyz is 503", dir.display()),
    )
}

/// Lets running calls end; a second signal does not.
async fn stop(server: Server, limit: Duration, signals: &mut Signals) -> Exit {
    screen::note(&format!(
        "stopping: running calls have {} to end; again to stop at once",
        humantime::format_duration(limit)
    ));
    tokio::select! {
        () = server.stop(limit) => Exit::Ok,
        () = signals.next() => Exit::Interrupted,
    }
}

/// The platform's own words go to stderr, as the filter lets them.
fn start_diagnostics(filter: &str) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| Failure::usage(format!("--log {filter:?} is not a filter: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| speaker::Diagnostics)
        .with_ansi(anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never)
        .init();
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// A panic ends its task or thread and nothing else. It is reported like everything else:
/// the default report would wait for stderr's reader.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(thread = thread.name().unwrap_or("unnamed"), "{panic}\n{backtrace}");
}
