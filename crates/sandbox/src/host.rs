//! What this host lets us enforce: every mechanism probed, with the reason and the remedy
//! where it is missing. `doctor` and `GET /host` print it.

use serde::{Deserialize, Serialize};

use crate::python::Python;

/// How much of the sandbox the host allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Namespaces made with real privileges, a uid per worker.
    Root,
    /// Namespaces inside a user namespace; one uid.
    UserNamespace,
    /// No namespaces: limits, no_new_privs and seccomp only.
    Reduced,
}

/// One mechanism of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mechanism {
    /// Its name: `pid namespace`, `memory limit`, …
    pub mechanism: String,
    /// It holds for every worker.
    pub enforced: bool,
    /// Why it is not, or only in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// What an operator can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how_to_get_it: Option<String>,
}

/// What is and is not enforced on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// The isolation mode in use.
    pub mode: Mode,
    /// `uname -r`.
    pub kernel: String,
    /// Every mechanism.
    pub mechanisms: Vec<Mechanism>,
    /// The Pythons that functions can ask for, newest first.
    pub pythons: Vec<Python>,
}

impl HostReport {
    /// Before the launcher has looked.
    pub(crate) fn unknown() -> Self {
        Self { mode: Mode::Reduced, kernel: String::new(), mechanisms: Vec::new(), pythons: Vec::new() }
    }

    /// Whether a mechanism holds; false for one that is not listed.
    pub fn enforces(&self, mechanism: &str) -> bool {
        self.mechanisms.iter().any(|entry| entry.mechanism == mechanism && entry.enforced)
    }
}

/// One of the sizes in `/proc/PID/status`, in bytes; 0 when the process is gone.
pub(crate) fn memory_of(pid: i32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|size| size.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}
