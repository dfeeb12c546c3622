//! Finding the Pythons of this host.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A CPython that workers can run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// The interpreter itself (`sys.executable` behind any shim).
    pub executable: PathBuf,
    /// `(3, 11, 7)`.
    pub version: (u32, u32, u32),
    /// `sys.base_prefix` and, where it differs, `sys.base_exec_prefix`.
    pub prefixes: Vec<PathBuf>,
}

/// Why no Python can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PythonError {
    /// Nothing found at all.
    #[error(
        "no python3 found on PATH or in /usr/bin; install Python 3.10 or newer, or name one with --python"
    )]
    NotFound,
    /// Only old ones.
    #[error("{path} is Python {found}; 3.10 or newer is needed")]
    TooOld {
        /// The newest one found.
        path: String,
        /// Its version.
        found: String,
    },
    /// The one that was asked for does not run.
    #[error("{path} does not run as a Python: {why}")]
    Broken {
        /// What was asked for.
        path: String,
        /// What happened.
        why: String,
    },
}

/// All Pythons from 3.10 on, newest first; with `wanted`, that one alone.
pub fn find_pythons(wanted: Option<&Path>) -> Result<Vec<Python>, PythonError> {
    let _ = wanted;
    Err(PythonError::NotFound)
}
