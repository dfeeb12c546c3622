//! The `functionsplatform` executable.
//!
//! `up` starts the server in this process; every command about a running platform is an HTTP
//! client of its management API and has no back door. This file only wires: the allocator,
//! the launcher's entry (the same executable is started anew with a hidden argument), and the
//! hand-over to [`flags`]. One file per verb; what a verb prints goes through [`screen`], how
//! it ends is an [`exit::Exit`].

mod audit;
mod bench;
mod client;
mod completions;
mod configuration;
mod create;
mod delete;
mod deploy;
mod doctor;
mod exit;
mod explain;
mod flags;
mod function_dir;
mod glob;
mod instances;
mod invoke;
mod key;
mod list;
mod logs;
mod payload;
mod query;
mod quota;
mod screen;
mod secret;
mod simulate;
mod slo;
mod tenant;
mod trigger;
mod up;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: the launcher must be single-threaded.
    if std::env::args_os().nth(1).is_some_and(|first| first == fp_sandbox::LAUNCHER_ARGUMENT) {
        return fp_sandbox::launcher_main();
    }
    let exit = flags::run(std::env::args_os());
    up::speaker::finish();
    exit.into()
}
