//! How workers end and why there may be none: the words for both.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::Refusal;
use crate::preload::PreloadFault;
use crate::protocol::{FailureHead, FailureKind};

/// The exception with which the runtime says that a handler is not what it should be.
const RUNTIMES_OWN: &str = "BadHandler";

/// What is said of a worker that the platform, or the kernel for it, chose when there was no memory.
pub(crate) const MEMORY_SHORT: &str = "the worker was ended within its own memory limit, because the memory \
    of all workers was short; try again later, let it use less, or let the operator raise worker_memory";

/// A limit that ended or hindered a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitHit {
    /// Killed by its own memory limit.
    Memory,
    /// Killed within it, because the memory of all workers was short: at their common limit, at its
    /// tenant's part of that, or because its tenant had more than its share.
    WorkerMemory,
    /// A fork or a thread was refused.
    Tasks,
}

impl LimitHit {
    /// The word of the record's field `limit_hit`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::WorkerMemory => "worker_memory",
            Self::Tasks => "tasks",
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// `exit(code)`.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Unknown: the launcher died with it.
    Lost,
}

/// The end of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How its first process ended.
    pub ended: Ended,
    /// A limit that was hit in its life.
    pub limit_hit: Option<LimitHit>,
}

impl Exit {
    /// Nobody is left who could know.
    pub(crate) const LOST: Self = Self { ended: Ended::Lost, limit_hit: None };

    /// The limit on memory that it was killed for.
    pub(crate) fn killed_for_memory(&self) -> Option<LimitHit> {
        let for_memory =
            self.limit_hit.filter(|limit| matches!(limit, LimitHit::Memory | LimitHit::WorkerMemory));
        for_memory.filter(|_| self.ended == Ended::Signal(libc::SIGKILL))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ended {
            Ended::Code(code) => write!(f, "exited with code {code}"),
            Ended::Signal(signal) => write!(f, "was ended by signal {signal}{}", signal_name(signal)),
            Ended::Lost => f.write_str("ended with its launcher"),
        }
    }
}

/// The signals that an author meets, by name.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => " (SIGABRT)",
        libc::SIGBUS => " (SIGBUS)",
        libc::SIGFPE => " (SIGFPE)",
        libc::SIGILL => " (SIGILL)",
        libc::SIGKILL => " (SIGKILL)",
        libc::SIGSEGV => " (SIGSEGV)",
        libc::SIGSYS => " (SIGSYS)",
        libc::SIGTERM => " (SIGTERM)",
        libc::SIGXFSZ => " (SIGXFSZ)",
        _ => "",
    }
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The handler could not be loaded.
    #[error("the handler does not load: {}", why(failure))]
    LoadFailed {
        /// Why.
        failure: Box<FailureHead>,
        /// What it printed while loading.
        output: String,
    },
    /// Not loaded within the start limit.
    #[error("the handler was not loaded within {limit:?}; its module does too much at import")]
    TimedOut {
        /// The start limit.
        limit: Duration,
        /// What it printed while loading.
        output: String,
    },
    /// The worker ended while loading.
    #[error("the worker {exit} while loading the handler")]
    Crashed {
        /// How.
        exit: Exit,
        /// What it printed while loading.
        output: String,
    },
    /// The worker was killed for its memory while loading.
    #[error("the worker used more than its {} MiB while loading the handler; raise memory in the function's manifest", limit >> 20)]
    OutOfMemory {
        /// The limit, in bytes.
        limit: u64,
        /// What it printed while loading.
        output: String,
    },
    /// The worker was killed within its own memory limit.
    #[error("{MEMORY_SHORT}")]
    MemoryShort {
        /// What it printed while loading.
        output: String,
    },
    /// The worker broke the frame protocol.
    #[error("the worker broke the protocol: {what}")]
    Protocol {
        /// What it did.
        what: String,
    },
    /// The host refused something.
    #[error("no worker can be started: {0}")]
    Host(String),
    /// As many workers run as this process has open files for.
    #[error(
        "no worker can be started: {workers} run, as many as a limit of {limit} open files is enough for; {}",
        crate::open_files::REMEDY
    )]
    TooMany {
        /// How many run.
        workers: usize,
        /// Open files of the platform.
        limit: u64,
    },
    /// The wanted Python is not here, or its zygote does not start.
    #[error("{0}")]
    Python(String),
    /// A module cannot be preloaded.
    #[error("{0}")]
    Preload(PreloadFault),
}

impl StartError {
    /// The process, whose memory was limited to so much, ended while loading.
    pub(crate) fn gone(exit: Exit, limit: u64, output: String) -> Self {
        match exit.killed_for_memory() {
            Some(LimitHit::Memory) => Self::OutOfMemory { limit, output },
            Some(_) => Self::MemoryShort { output },
            None => Self::Crashed { exit, output },
        }
    }
}

impl From<Refusal> for StartError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Host(why) => Self::Host(why),
            Refusal::Python(why) => Self::Python(why),
            Refusal::Preload(fault) => Self::Preload(fault),
        }
    }
}

/// An exception as Python says it; of what the runtime finds by itself only the words.
fn why(failure: &FailureHead) -> String {
    let kind = &failure.exception_type;
    if failure.kind == FailureKind::BadHandler && kind == RUNTIMES_OWN || kind.is_empty() {
        return failure.message.clone();
    }
    format!("{kind}: {}", failure.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_is_not_there_is_told_in_words_and_an_exception_by_its_name() {
        let said = |kind: &str, exception_type: &str, message: &str| {
            let head =
                serde_json::json!({ "kind": kind, "exception_type": exception_type, "message": message });
            let failure = serde_json::from_value(head).expect("a failure");
            StartError::LoadFailed { failure, output: String::new() }.to_string()
        };
        assert_eq!(
            said("bad_handler", "BadHandler", "handler.py has no function handler"),
            "the handler does not load: handler.py has no function handler"
        );
        assert_eq!(
            said("bad_handler", "SyntaxError", "invalid syntax"),
            "the handler does not load: SyntaxError: invalid syntax"
        );
        assert_eq!(said("exception", "ValueError", "x"), "the handler does not load: ValueError: x");
    }
}
