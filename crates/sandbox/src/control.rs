//! What platform, launcher and zygotes say to each other: one enum per direction, one JSON
//! message each over a SEQPACKET socket. Descriptors travel beside the message, in the order
//! that the variant names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fp_core::WorkerId;
use fp_core::settings::Network;
use serde::{Deserialize, Serialize};

use crate::host::{HostReport, Mode};
use crate::python::Python;
use crate::start::Exit;

/// Platform → launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToLauncher {
    /// First and once.
    Init(Init),
    /// A worker is wanted.
    Start(StartOrder),
    /// Nobody waits for the worker of that request any more.
    Abandon(u64),
    /// End everything.
    Shutdown,
}

/// What the launcher needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Init {
    pub run_dir: PathBuf,
    /// The first is the default.
    pub pythons: Vec<Python>,
    pub blanks: usize,
    pub preload: Vec<String>,
    pub first_worker: u64,
}

/// A worker is wanted: the half of the spec that the launcher enforces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartOrder {
    pub request: u64,
    /// Index into [`Init::pythons`].
    pub python: usize,
    pub network: Network,
    pub code_dir: PathBuf,
    pub memory: u64,
    pub tasks: u32,
    pub cpu: f64,
    pub cpu_limit: Option<f64>,
}

/// Launcher → platform.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromLauncher {
    /// The default Python's zygote stands.
    Ready(HostReport),
    /// It does not, and the launcher ends.
    Failed(String),
    /// Here is a worker. Descriptors: requests, answers, side channel, output pipe, pidfd.
    Started(Started),
    /// There is none.
    NotStarted { request: u64, why: String, python: bool },
    /// A worker's first process is gone, and with it all others.
    Exited { worker: WorkerId, exit: Exit },
}

/// A worker that waits for its `Load` frame.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub request: u64,
    pub worker: WorkerId,
    pub pid: u32,
    /// Claimed from the pool of blank ones.
    pub blank: bool,
    /// The code directory as the worker sees it.
    pub code_dir: String,
}

/// Launcher → zygote, first and once (`zygote.py` reads it).
#[derive(Debug, Serialize)]
pub(crate) struct ZygoteConfig<'a> {
    pub mode: Mode,
    pub root_dir: PathBuf,
    pub runtime_dir: PathBuf,
    pub prefixes: &'a [PathBuf],
    pub gid: u32,
    pub own_proc: bool,
    pub preload: &'a [String],
    pub base_filter: String,
    pub worker_filter: String,
}

/// Launcher → zygote: fork one. Descriptors: requests, answers, side channel, output pipe, cgroups.
#[derive(Debug, Serialize)]
pub(crate) struct ForkOrder<'a> {
    pub serial: u64,
    /// Nobody waits for this one: it may take its time to get ready.
    pub blank: bool,
    pub uid: Option<u32>,
    pub network: Network,
    pub tmp_size: u64,
    pub tmp_files: u32,
    pub limits: &'a BTreeMap<&'static str, u64>,
}

/// Zygote, or a child of it that is entering its sandbox → launcher.
#[derive(Debug, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(crate) enum FromZygote {
    Ready {
        preload_failed: BTreeMap<String, String>,
    },
    /// Descriptor: pidfd. The number is the zygote's, not the host's.
    Forked {
        serial: u64,
        pid: i32,
    },
    Entered {
        serial: u64,
    },
    Failed {
        serial: u64,
        step: String,
        why: String,
    },
    Exited {
        pid: i32,
        status: i32,
    },
}
