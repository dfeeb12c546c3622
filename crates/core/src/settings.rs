//! A function's settings and its manifest (`function.toml`).
//!
//! One struct per concern, each with its default beside it; `docs/function-toml.md` is the
//! reference for users. Unknown keys are errors that name the nearest key and the line.
//! The same struct reads `settings` of `POST /functions`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::event::EventType;
use crate::ids::FunctionName;

/// How much a call matters when not all can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criticality {
    /// Served first.
    Critical,
    /// What nothing says otherwise.
    #[default]
    Default,
    /// Refused first.
    Sheddable,
}

/// What the network is for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A network namespace of its own with nothing in it.
    None,
    /// As `none`, with the gateway and OTLP on 127.0.0.1.
    Internal,
    /// The host's network.
    #[default]
    Full,
}

/// Which calls may run twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idempotency {
    /// Nothing said: GET, HEAD and OPTIONS may, others may not.
    #[default]
    ByVerb,
    /// Every call may.
    Always,
    /// No call may.
    Never,
    /// Calls with an `Idempotency-Key` header may.
    WithKey,
}

/// What to do with a running call whose caller has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// Interrupt it.
    #[default]
    Cancel,
    /// Let it finish.
    Finish,
}

/// Sizes of what goes in and out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest request body.
    pub body: ByteSize,
    /// Largest response body that is not a stream.
    pub response: ByteSize,
    /// Captured logs per invocation; what is beyond is counted and dropped.
    pub logs: ByteSize,
}

/// How long an idle worker is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleTime {
    /// The platform decides.
    Auto,
    /// This long; zero means that a worker serves one call and none is kept.
    After(Duration),
}

/// How many workers.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// Workers kept warm.
    pub min: u32,
    /// Most workers at once.
    pub max: u32,
    /// How long an idle worker is kept.
    pub idle: IdleTime,
}

/// When a second attempt may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedge {
    /// Never.
    Off,
    /// When it pays, from the objective and the latencies seen.
    Auto,
    /// This long after dispatch.
    After(Duration),
}

/// What to answer instead of a refusal.
#[derive(Debug, Clone, PartialEq)]
pub enum Fallback {
    /// Another function of the tenant.
    Function(FunctionName),
    /// The last good answer, up to this age.
    Stale(Duration),
}

/// Tail-latency settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    /// Hedging.
    pub hedge: Hedge,
    /// Degraded answers.
    pub fallback: Option<Fallback>,
}

/// A latency objective: `percent` of calls in under `under`.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyObjective {
    /// The threshold.
    pub under: Duration,
    /// The share of calls that must be under it, in percent (0–100, exclusive).
    pub percent: f64,
}

/// A service level objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Slo {
    /// Share of good calls, in percent (0–100, exclusive).
    pub availability: Option<f64>,
    /// Latency objective.
    pub latency: Option<LatencyObjective>,
    /// Rolling window in days: 7, 28 or 30.
    pub window_days: u32,
}

/// Everything about a function except its name, handler, events and code.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Wanted Python, `3.11`; none means the newest found.
    pub python: Option<String>,
    /// Time to the answer; for streams to the first byte.
    pub timeout: Duration,
    /// Longest silence of a stream.
    pub stream_idle: Duration,
    /// Longest life of a stream.
    pub stream_total: Duration,
    /// Memory of one worker.
    pub memory: ByteSize,
    /// Processes and threads of one worker.
    pub tasks: u32,
    /// CPU weight.
    pub cpu: f64,
    /// Hard CPU quota in cores; off by default.
    pub cpu_limit: Option<f64>,
    /// Calls at once in one worker (`async def` only when above 1).
    pub concurrency: u32,
    /// What the network is.
    pub network: Network,
    /// Which calls may run twice.
    pub idempotent: Idempotency,
    /// Its class.
    pub criticality: Criticality,
    /// What a caller's leaving does.
    pub on_disconnect: OnDisconnect,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Names of secrets it wants.
    pub secrets: Vec<String>,
    /// Modules imported in the zygote.
    pub preload: Vec<String>,
    /// Directories of the function added to `sys.path`.
    pub path: Vec<String>,
    /// A requirements file (not built yet: refused).
    pub requirements: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Sizes.
    pub limits: Limits,
    /// Workers.
    pub scaling: Scaling,
    /// Tail latency.
    pub latency: Latency,
    /// Objective.
    pub slo: Option<Slo>,
}

/// A function directory's `function.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The function's name.
    pub name: FunctionName,
    /// `file.py:callable`.
    pub handler: Handler,
    /// What calls it; may be empty (then only `invoke` by name reaches it).
    pub events: Vec<EventType>,
    /// Everything else.
    pub settings: Settings,
}

/// Where the handler is: `file.py:callable`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handler {
    /// Path of the file inside the function's directory.
    pub file: String,
    /// Name of the callable.
    pub callable: String,
}
