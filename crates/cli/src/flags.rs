//! The command line: every verb, the flags they share, and how a command is run.
//!
//! Each verb's own flags stand beside its code. Flags win over the environment
//! (`FUNCTIONSPLATFORM_<FLAG>`), that over the configuration file, that over defaults. Global
//! flags may stand before or after the verb.

use std::ffi::OsString;
use std::future::Future;

use clap::{Args, Parser, Subcommand};

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::screen::{self, Format};

/// Where clients look for a platform that nobody told them about.
const DEFAULT_URI: &str = "http://127.0.0.1:8000";

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 other, 2 usage, 3 not found, 4 refused (409, 413, 422), 5 auth,
6 unreachable, 7 the function failed, 8 shed or over quota, 130 interrupted.";

/// Serverless functions on your own machine, with an SLO on every one of them
#[derive(Debug, Parser)]
#[command(name = "functionsplatform", version, after_long_help = EXIT_CODES)]
#[command(arg_required_else_help = true, propagate_version = false, infer_long_args = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Address of the platform's management API [default: http://127.0.0.1:8000]
    #[arg(long, global = true, value_name = "URI", env = "FUNCTIONSPLATFORM_URI", hide_env_values = true)]
    pub(crate) platform_uri: Option<String>,

    /// Key for a platform that asks for one
    #[arg(long, global = true, value_name = "KEY", env = "FUNCTIONSPLATFORM_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,

    /// Tenant to act for; only the operator may act for another than the key's own
    #[arg(
        long,
        global = true,
        value_name = "TENANT",
        env = "FUNCTIONSPLATFORM_TENANT",
        hide_env_values = true
    )]
    pub(crate) tenant: Option<String>,

    /// Certificates to trust for an https:// platform, as PEM [default: this machine's]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "FUNCTIONSPLATFORM_CA_CERT",
        hide_env_values = true
    )]
    pub(crate) ca_cert: Option<std::path::PathBuf>,

    /// How results are printed
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "FUNCTIONSPLATFORM_OUTPUT",
        hide_env_values = true
    )]
    #[arg(value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,

    /// What the program says about its own working on stderr, such as `info` or `fp_server=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "FUNCTIONSPLATFORM_LOG", hide_env_values = true)]
    #[arg(default_value = "warn")]
    pub(crate) log: String,
}

impl Global {
    /// The flag, else `FUNCTIONSPLATFORM_URI`, else the variable that is named like the flag,
    /// else the default.
    pub(crate) fn platform_uri(&self) -> String {
        let given = self.platform_uri.clone().filter(|uri| !uri.is_empty());
        let named_like_the_flag = || std::env::var("FUNCTIONSPLATFORM_PLATFORM_URI").ok();
        given.or_else(named_like_the_flag).unwrap_or_else(|| DEFAULT_URI.into())
    }

    /// Whether results are for a program.
    pub(crate) fn json(&self) -> bool {
        self.output == Format::Json
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Up(crate::up::Up),
    Deploy(crate::deploy::Deploy),
    Create(crate::create::Create),
    List(crate::list::List),
    Delete(crate::delete::Delete),
    Secret(crate::secret::Secret),
    Invoke(crate::invoke::Invoke),
    Trigger(crate::trigger::Trigger),
    Logs(crate::logs::Logs),
    /// List the latest invocations
    ///
    /// An instance is one run of a function: what the rest of the platform calls an invocation.
    ListInstances,
    LookupInstance(crate::instances::Lookup),
    Slo(crate::slo::Slo),
    Tenant(crate::tenant::Tenant),
    Key(crate::key::Key),
    Quota(crate::quota::Quota),
    Query(crate::query::Query),
    Audit(crate::audit::Audit),
    Explain(crate::explain::Explain),
    Bench(crate::bench::Bench),
    Simulate(crate::simulate::Simulate),
    Doctor(crate::doctor::Doctor),
    Completions(crate::completions::Completions),
    Man(crate::completions::Man),
}

/// Reads the command line, runs the verb and says how it ended.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    match dispatch(&cli) {
        Ok(exit) => exit,
        Err(failure) => {
            screen::failure(&failure);
            failure.exit
        }
    }
}

fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    let global = &cli.global;
    if global.output == Format::Svg && !matches!(cli.verb, Verb::Simulate(_)) {
        return Err(Failure::usage("only simulate has a drawing; use --output table or json"));
    }
    let client = || Client::new(global);
    match &cli.verb {
        Verb::Up(up) => up.run(global),
        Verb::Deploy(deploy) => wait(deploy.run(global, &client()?)),
        Verb::Create(create) => wait(create.run(global, &client()?)),
        Verb::List(list) => wait(list.run(global, &client()?)),
        Verb::Delete(delete) => wait(delete.run(global, &client()?)),
        Verb::Secret(secret) => wait(secret.run(global, &client()?)),
        Verb::Invoke(invoke) => wait(invoke.run(&client()?)),
        Verb::Trigger(trigger) => wait(trigger.run(global, &client()?)),
        Verb::Logs(logs) => wait(logs.run(global, &client()?)),
        Verb::ListInstances => wait(crate::instances::list(global, &client()?)),
        Verb::LookupInstance(lookup) => wait(lookup.run(global, &client()?)),
        Verb::Slo(slo) => wait(slo.run(global, &client()?)),
        Verb::Tenant(tenant) => wait(tenant.run(global, &client()?)),
        Verb::Key(key) => wait(key.run(global, &client()?)),
        Verb::Quota(quota) => wait(quota.run(global, &client()?)),
        Verb::Query(query) => wait(query.run(global, &client()?)),
        Verb::Audit(audit) => wait(audit.run(global, &client()?)),
        Verb::Explain(explain) => explain.run(global),
        Verb::Bench(bench) => bench.run(global),
        Verb::Simulate(simulate) => simulate.run(global),
        Verb::Doctor(doctor) => doctor.run(global),
        Verb::Completions(completions) => completions.run(),
        Verb::Man(man) => man.run(),
    }
}

/// Runs an asynchronous verb on this thread.
pub(crate) fn wait<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(verb)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_verb() {
        for line in [
            ["functionsplatform", "--output", "json", "delete", "cats"],
            ["functionsplatform", "delete", "--output", "json", "cats"],
            ["functionsplatform", "delete", "cats", "--output", "json"],
        ] {
            assert!(Cli::try_parse_from(line).expect("parses").global.json());
        }
    }
}
