//! What a worker is started for: everything about one version of a function that the worker,
//! its sandbox and its limits need. The server makes one per version and keeps it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fp_core::settings::{Handler, Network};
use fp_core::{FunctionName, Tenant, VersionNumber};

/// One version of a function, as its workers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerSpec {
    /// Whose function.
    pub tenant: Tenant,
    /// Which function.
    pub function: FunctionName,
    /// Which of its versions.
    pub version: VersionNumber,
    /// Directory of the code on the host; the worker sees it read-only.
    pub code_dir: PathBuf,
    /// File and callable.
    pub handler: Handler,
    /// Wanted Python, `3.11`; none means the default.
    pub python: Option<String>,
    /// Modules that its zygote has imported.
    pub preload: Vec<String>,
    /// Memory of the worker, in bytes.
    pub memory: u64,
    /// Processes and threads of the worker.
    pub tasks: u32,
    /// CPU weight; 1 is the default.
    pub cpu: f64,
    /// Hard CPU quota, in cores.
    pub cpu_limit: Option<f64>,
    /// What the network is.
    pub network: Network,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Directories added to `sys.path`, relative to the code directory.
    pub path: Vec<String>,
    /// `context["services"]`: URL by name.
    pub services: BTreeMap<String, String>,
    /// `context["message_queue_uri"]`.
    pub message_queue_uri: String,
    /// Captured output per call, in bytes.
    pub log_limit: u64,
    /// Largest answer that is not a stream, in bytes.
    pub response_limit: u64,
    /// Calls at once in the worker (more than 1 only for `async def`).
    pub concurrency: u32,
    /// Time from the request to a loaded handler.
    pub start_limit: Duration,
}
