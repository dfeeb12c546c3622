//! The Linux room: sandboxed Python workers.
//!
//! [`Sandbox::start`] spawns the launcher (this same executable, started anew as
//! [`launcher_main`]); the launcher runs template zygotes, which fork sandboxed workers;
//! [`Sandbox::start_worker`] claims one for a version of a function and [`Worker::call`] runs
//! its handler, or [`Worker::share`] lets several calls at once run it. Dropping a [`Worker`] ends everything that ran in it. What the host lets us
//! enforce is in [`HostReport`]; nothing degrades silently.
//!
//! The only room with `unsafe`. It knows nothing of HTTP, routes, queues or SLOs.

/// In this crate, too, `eprintln!` says a line on stderr, but neither waits for its reader nor
/// fails without one.
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::complaint::complain(format_args!($($words)*)) };
}

mod call;
mod closing;
mod complaint;
mod control;
mod fds;
mod frames;
mod host;
mod inner;
mod launcher;
mod logs;
mod open_files;
mod preload;
mod python;
mod runtime;
mod sandbox;
mod seccomp;
mod secrets;
mod spec;
mod start;
mod worker;

#[doc(hidden)]
pub mod fuzz;
pub mod protocol;

pub use call::{Answer, Call, CallError, StreamPiece, WholeAnswer};
pub use host::{BelowFloor, HostReport, Isolation, Mechanism, Mode};
pub use inner::{INNER_GATEWAY, INNER_OTLP, InnerListener};
pub use launcher::launcher_main;
pub use open_files::OpenFiles;
pub use preload::{PreloadConfig, PreloadFault, PreloadPolicy, Template, ZygoteReport, ZygoteState};
pub use python::{Python, PythonError, find_pythons};
pub use sandbox::{Sandbox, SandboxConfig, SandboxError};
pub use secrets::SecretFrames;
pub use spec::WorkerSpec;
pub use start::{Ended, Exit, LimitHit, StartError};
pub use worker::{CancelHandle, SharedCall, SharedWorker, Worker};

/// The hidden first argument with which the executable becomes the launcher: when
/// `args().nth(1)` is this, `main` must return [`launcher_main`] before anything else.
pub const LAUNCHER_ARGUMENT: &str = "__launcher";
