//! A call and how it can end: the types that [`crate::Worker::call`] and
//! [`crate::SharedCall::call`] take and give.

use std::sync::Arc;

use bytes::Bytes;
use fp_core::record::LogLine;

use crate::protocol::{AnswerHead, CallHead, EndHead, FailureHead};
use crate::secrets::SecretFrames;
use crate::start::{Exit, LimitHit, MEMORY_SHORT};

/// One call of a handler.
#[derive(Debug)]
pub struct Call<'a> {
    /// Number of the call, unique for its worker and not 0; a cancel notice names it.
    pub serial: u64,
    /// What the handler sees, besides the body.
    pub head: CallHead<'a>,
    /// The request's body.
    pub body: Bytes,
    /// What its function may read; sent with the call where the worker has it not yet.
    pub secrets: Option<Arc<SecretFrames>>,
    /// Captured output, in bytes; what is beyond is counted and dropped.
    pub log_limit: usize,
    /// Largest answer that is not a stream, in bytes.
    pub response_limit: usize,
}

/// A handler's complete answer.
#[derive(Debug)]
pub struct WholeAnswer {
    /// Status, headers, spans, usage.
    pub head: AnswerHead,
    /// The response's body.
    pub body: Bytes,
    /// What it printed and logged.
    pub logs: Vec<LogLine>,
}

/// What a handler answered.
#[derive(Debug)]
pub enum Answer {
    /// All of it.
    Whole(WholeAnswer),
    /// The head of a stream; [`crate::Worker::next_chunk`] gives the rest.
    Stream {
        /// Status and headers.
        head: AnswerHead,
    },
    /// The handler failed; the worker is fine unless [`crate::Worker::is_reusable`] says no.
    Failed {
        /// Why.
        failure: Box<FailureHead>,
        /// What it printed and logged.
        logs: Vec<LogLine>,
    },
}

/// A piece of a streamed answer.
#[derive(Debug)]
pub enum StreamPiece {
    /// Bytes as the handler produced them.
    Chunk(Bytes),
    /// The stream is complete.
    End {
        /// Spans and usage.
        end: EndHead,
        /// What it printed and logged.
        logs: Vec<LogLine>,
    },
    /// The handler failed in the middle.
    Failed {
        /// Why.
        failure: Box<FailureHead>,
        /// What it printed and logged.
        logs: Vec<LogLine>,
    },
}

/// Why a call has no answer. A worker of its own is unusable after any of these: drop it.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The worker's process ended during the call.
    #[error("the worker {exit}")]
    Crashed {
        /// How.
        exit: Exit,
        /// What was printed and logged before.
        logs: Vec<LogLine>,
    },
    /// The worker was gone before it had read the call: the handler never ran, and the call can
    /// be made again.
    #[error("the worker {exit} before the call reached it")]
    NeverStarted {
        /// How.
        exit: Exit,
    },
    /// The worker was killed for its memory.
    #[error("the worker used more than its {} MiB; raise memory in the function's manifest", limit >> 20)]
    OutOfMemory {
        /// The limit, in bytes.
        limit: u64,
        /// What was printed and logged before.
        logs: Vec<LogLine>,
    },
    /// The worker was killed within its own memory limit: the platform's doing.
    #[error("{MEMORY_SHORT}")]
    MemoryShort {
        /// What was printed and logged before.
        logs: Vec<LogLine>,
    },
    /// The worker broke the frame protocol and was killed.
    #[error("the worker broke the protocol: {what}")]
    Protocol {
        /// What it did.
        what: String,
        /// What was printed and logged before.
        logs: Vec<LogLine>,
    },
    /// The worker, which several calls share, was ended for what another of them did.
    #[error("{why}")]
    EndedForAnother {
        /// What the other did, and what to do about it.
        why: String,
        /// What was printed and logged before.
        logs: Vec<LogLine>,
    },
    /// The platform could not do its part (no memory for a body, no descriptor).
    #[error("the platform could not talk to the worker: {what}")]
    Host {
        /// What failed.
        what: String,
        /// What was printed and logged before.
        logs: Vec<LogLine>,
    },
    /// The worker was already used up when the call was made.
    #[error("the worker cannot take a call: an earlier one ended in an error or was dropped")]
    NotReusable,
}

impl CallError {
    /// The process, whose memory was limited to so much, ended during the call.
    pub(crate) fn gone(exit: Exit, limit: u64, logs: Vec<LogLine>) -> Self {
        match exit.killed_for_memory() {
            Some(LimitHit::Memory) => Self::OutOfMemory { limit, logs },
            Some(_) => Self::MemoryShort { logs },
            None => Self::Crashed { exit, logs },
        }
    }

    /// The limit that ended the call, where one did.
    pub fn limit_hit(&self) -> Option<LimitHit> {
        match self {
            Self::OutOfMemory { .. } => Some(LimitHit::Memory),
            Self::MemoryShort { .. } => Some(LimitHit::WorkerMemory),
            Self::Crashed { exit, .. } => exit.limit_hit,
            _ => None,
        }
    }

    /// What was printed and logged before the end.
    pub fn into_logs(self) -> Vec<LogLine> {
        match self {
            Self::Crashed { logs, .. }
            | Self::OutOfMemory { logs, .. }
            | Self::MemoryShort { logs }
            | Self::Protocol { logs, .. }
            | Self::EndedForAnother { logs, .. }
            | Self::Host { logs, .. } => logs,
            Self::NeverStarted { .. } | Self::NotReusable => Vec::new(),
        }
    }
}
