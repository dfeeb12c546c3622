//! A worker as the platform sees it.

use std::fmt;

use fp_core::WorkerId;
use serde::{Deserialize, Serialize};

use crate::call::{Answer, Call, CallError, StreamPiece};
use crate::protocol::FailureHead;

/// A limit that ended or hindered a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitHit {
    /// Killed by the memory limit.
    Memory,
    /// A fork or a thread was refused.
    Tasks,
}

impl LimitHit {
    /// The word of the record's field `limit_hit`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
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

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ended {
            Ended::Code(code) => write!(f, "exited with code {code}"),
            Ended::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Ended::Lost => f.write_str("ended with its launcher"),
        }
    }
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The handler could not be loaded.
    #[error("the handler does not load: {}: {}", failure.exception_type, failure.message)]
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
        limit: std::time::Duration,
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
    /// The worker broke the frame protocol.
    #[error("the worker broke the protocol: {what}")]
    Protocol {
        /// What it did.
        what: String,
    },
    /// The host refused something.
    #[error("no worker can be started: {0}")]
    Host(String),
    /// The wanted Python is not here, or its zygote does not start.
    #[error("{0}")]
    Python(String),
}

/// One sandboxed process with a loaded handler, owned exclusively. Dropping it ends everything
/// that runs in it.
#[derive(Debug)]
pub struct Worker {
    id: WorkerId,
}

impl Worker {
    /// Its id.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Process id of its first process, as the host counts.
    pub fn host_pid(&self) -> u32 {
        0
    }

    /// The handler is `async def` or an async generator.
    pub fn is_async(&self) -> bool {
        false
    }

    /// What was printed while loading.
    pub fn load_output(&self) -> &str {
        ""
    }

    /// False after an error, an interrupted handler or a dropped call: drop the worker then.
    pub fn is_reusable(&self) -> bool {
        false
    }

    /// Runs the handler. Dropping the future leaves the worker unusable: drop it, too.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Answer, CallError> {
        let _ = call;
        Err(CallError::NotReusable)
    }

    /// The next piece after [`Answer::Stream`]. Cancel-safe.
    pub async fn next_chunk(&mut self) -> Result<StreamPiece, CallError> {
        Err(CallError::NotReusable)
    }

    /// After a [`call`](Self::call) or a stream was given up (its future dropped, with a cancel
    /// notice sent or its deadline passed): lets the interrupted handler run its `finally`
    /// blocks for up to `grace` and returns what the call printed and logged from its beginning.
    /// Logs survive a dropped `call` future because they are kept in the worker until taken.
    pub async fn settle(&mut self, grace: std::time::Duration) -> Vec<fp_core::record::LogLine> {
        let _ = grace;
        Vec::new()
    }

    /// What the current call has printed and logged so far; leaves nothing behind. For answers
    /// that are sent at a deadline while the handler still runs.
    pub fn take_logs(&mut self) -> Vec<fp_core::record::LogLine> {
        Vec::new()
    }

    /// Resolves when the worker is gone, without borrowing it: whoever keeps idle workers notices
    /// their death by this.
    pub fn exit_watch(&self) -> impl Future<Output = Exit> + Send + 'static {
        std::future::pending()
    }

    /// A handle that cancels calls from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle {}
    }

    /// Resolves when the worker is gone. Cancel-safe.
    pub async fn exited(&self) -> Exit {
        std::future::pending().await
    }
}

/// Sends cancel notices to one worker.
#[derive(Debug, Clone)]
pub struct CancelHandle {}

impl CancelHandle {
    /// Interrupts the call with this serial; one that has ended is left alone.
    pub fn cancel(&self, serial: u64) {
        let _ = serial;
    }
}
