//! What platform, launcher and zygotes say to each other: one enum per direction, one JSON
//! message each over a SEQPACKET socket. Descriptors travel beside the message, in the order
//! that the variant names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fp_core::settings::Network;
use fp_core::{Tenant, WorkerId};
use serde::{Deserialize, Serialize};

use crate::host::{HostReport, Mode};
use crate::preload::{Need, PreloadConfig, PreloadFault, TemplateKey, ZygoteReport};
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
    /// All templates and networks that live versions need; others end when they have no workers.
    Templates(Vec<Need>),
    /// What these tenants weigh from here on; who was never named weighs 1.
    Weights(BTreeMap<Tenant, f64>),
    /// That worker is not wanted: its descriptors did not arrive.
    End(WorkerId),
    /// Say when that template stands, or why it cannot.
    Prepare { request: u64, template: TemplateKey },
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
    pub guarded_ports: Vec<u16>,
    pub served_ports: Vec<u16>,
    pub preload: PreloadConfig,
    pub first_worker: u64,
    /// Memory that all workers together may take, in bytes; none means what the host can spare.
    pub worker_memory: Option<u64>,
}

/// A worker is wanted: the half of the spec that the launcher enforces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartOrder {
    pub request: u64,
    /// Whose part of the host it takes.
    pub tenant: Tenant,
    /// Its Python is an index into [`Init::pythons`].
    pub template: TemplateKey,
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
    /// Here is a worker. Descriptors: requests, answers, side channel, output pipe, pidfd, and in
    /// an internal network the two listeners inside it.
    Started(Started),
    /// There is none.
    NotStarted { request: u64, refusal: Refusal },
    /// The template of that request stands.
    Prepared { request: u64 },
    /// A zygote that is new or has changed; its memory is the reader's to look up. Each by itself,
    /// because there is no bound on how many retired ones there are.
    Zygote(ZygoteReport),
    /// The one with this process id is gone.
    ZygoteGone { pid: i32 },
    /// Memory is short, and these tenants have more of it than their shares: the one that is furthest
    /// above its own first.
    MemoryShort(Vec<Tenant>),
    /// A worker's first process is gone, and with it all others.
    Exited { worker: WorkerId, exit: Exit },
}

/// Why there is no worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// The host refused something.
    Host(String),
    /// The Python is at fault.
    Python(String),
    /// A module that was to be preloaded is.
    Preload(PreloadFault),
}

impl Refusal {
    /// In words, for the launcher's own complaints.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Host(why) | Self::Python(why) => why.clone(),
            Self::Preload(fault) => fault.to_string(),
        }
    }
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
    /// Version of landlock's interface; 0 where it is not used.
    pub landlock: u32,
    /// The last cgroup of an order is the directory of a group of version 2.
    pub unified: bool,
    /// Modules to import, in this order.
    pub preload: &'a [String],
    /// What is added to `sys.path` for them.
    pub path: Vec<PathBuf>,
    /// Directories of the host and where the root shows them.
    pub layers: Vec<(PathBuf, PathBuf)>,
    pub base_filter: String,
    pub feigned_filter: String,
    pub denied_filter: String,
    pub worker_filter: String,
}

/// Launcher → zygote: fork one. Descriptors: requests, answers, side channel, output pipe, the
/// network namespace if it has its own, cgroups.
#[derive(Debug, Serialize)]
pub(crate) struct ForkOrder<'a> {
    pub serial: u64,
    /// Nobody waits for this one: it may take its time to get ready.
    pub blank: bool,
    pub uid: Option<u32>,
    pub own_network: bool,
    pub tmp_size: u64,
    pub tmp_files: u32,
    pub limits: &'a BTreeMap<&'static str, u64>,
}

/// Zygote, or a child of it that is entering its sandbox → launcher.
#[derive(Debug, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(crate) enum FromZygote {
    /// It begins to import a module.
    Importing {
        module: String,
    },
    /// That did not work, and the zygote ends.
    PreloadFailed(PreloadFault),
    Ready,
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
