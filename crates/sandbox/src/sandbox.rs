//! The platform's handle on the launcher.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::host::HostReport;
use crate::spec::WorkerSpec;
use crate::worker::{StartError, Worker};

/// How the sandbox is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxConfig {
    /// A directory of ours alone (below the locked data directory): made at the start, removed
    /// at the end; leftovers of an earlier life in it are swept.
    pub run_dir: PathBuf,
    /// The executable that becomes the launcher when its first argument is
    /// [`crate::LAUNCHER_ARGUMENT`]; normally `std::env::current_exe()`.
    pub executable: PathBuf,
    /// The Python to use; none means the newest found.
    pub python: Option<PathBuf>,
    /// Blank workers kept ready for the default Python.
    pub blanks: usize,
    /// Modules imported in the template zygote.
    pub preload: Vec<String>,
}

/// Why the sandbox cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No usable Python.
    #[error(transparent)]
    Python(#[from] crate::python::PythonError),
    /// The launcher or the zygote did not come up.
    #[error("the sandbox does not start: {0}")]
    Host(String),
}

/// The sandbox of one platform. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    host: HostReport,
}

impl Sandbox {
    /// Starts the launcher, the default Python's zygote and, in the background, the blanks.
    pub async fn start(config: SandboxConfig) -> Result<Self, SandboxError> {
        let _ = config;
        Err(SandboxError::Host("not finished".into()))
    }

    /// What this host lets us enforce.
    pub fn host(&self) -> HostReport {
        self.shared.host.clone()
    }

    /// A worker with the spec's handler loaded: a claimed blank one, or one forked now.
    pub async fn start_worker(&self, spec: &WorkerSpec) -> Result<Worker, StartError> {
        let _ = spec;
        Err(StartError::Host("not finished".into()))
    }

    /// Ends every worker, zygote and the launcher; returns when nothing is left.
    pub async fn shutdown(&self) {}
}

/// The launcher's `main`.
pub fn launcher_main() -> ExitCode {
    ExitCode::FAILURE
}
