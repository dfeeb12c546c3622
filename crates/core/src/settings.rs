//! A function's settings and its manifest (`function.toml`).
//!
//! One struct per concern, each with its default beside it; `docs/function-toml.md` is the
//! reference for users. Unknown keys are errors that name the nearest key and the line.
//! The same struct reads `settings` of `POST /functions`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::event::EventType;
use crate::ids::{FunctionName, SecretName};
use crate::quota::Quota;

mod auth;
mod error;
mod read;
mod schedule;
mod tree;

pub use auth::{Auth, GITHUB_SIGNATURE, HmacAuth, JwtAuth, KeysFrom, Visibility};
pub use error::{Fault, SettingsError};
pub use read::HandlerError;
pub use schedule::{CivilMinute, Cron, CronError, ScheduledFloor};

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

impl Criticality {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Sheddable => "sheddable",
        }
    }
}

/// What the network is for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A network namespace of its own with nothing in it.
    None,
    /// As `none`, with the gateway on 127.0.0.1:5000.
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
#[derive(Debug, Clone, PartialEq)]
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
    /// When more workers are kept.
    pub schedule: Vec<ScheduledFloor>,
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
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Secrets that it may read.
    pub secrets: Vec<SecretName>,
    /// Environment variables that hold secrets, each one of [`secrets`](Self::secrets): in a
    /// manifest `env = { NAME = { secret = "NAME" } }`.
    pub secret_env: BTreeMap<String, SecretName>,
    /// Modules imported in the zygote.
    pub preload: Vec<String>,
    /// Directories of the function added to `sys.path`.
    pub path: Vec<String>,
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
    /// What its callers may use of it together; memory, code and CPU are set elsewhere.
    pub quota: Quota,
    /// Who sees it at the gateway.
    pub visibility: Visibility,
    /// What lets a caller in there.
    pub auth: Auth,
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

/// The header that tells calls which are the same from calls which only look so, as HTTP libraries see it.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl Idempotency {
    /// Whether a call with this verb may run twice; `has_key` says that it carries an
    /// `Idempotency-Key`.
    pub fn allows(self, verb: &str, has_key: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::WithKey => has_key,
            Self::ByVerb => matches!(verb, "GET" | "HEAD" | "OPTIONS"),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: ByteSize::mib(6), response: ByteSize::mib(6), logs: ByteSize::mib(1) }
    }
}

impl Default for Scaling {
    fn default() -> Self {
        Self { min: 0, max: 16, idle: IdleTime::Auto, schedule: Vec::new() }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self { hedge: Hedge::Auto, fallback: None }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            python: None,
            timeout: Duration::from_secs(60),
            stream_idle: Duration::from_secs(60),
            stream_total: Duration::from_secs(15 * 60),
            memory: ByteSize::mib(256),
            tasks: 64,
            cpu: 1.0,
            cpu_limit: None,
            concurrency: 1,
            network: Network::default(),
            idempotent: Idempotency::default(),
            criticality: Criticality::default(),
            on_disconnect: OnDisconnect::default(),
            env: BTreeMap::new(),
            secrets: Vec::new(),
            secret_env: BTreeMap::new(),
            preload: Vec::new(),
            path: Vec::new(),
            labels: BTreeMap::new(),
            limits: Limits::default(),
            scaling: Scaling::default(),
            latency: Latency::default(),
            slo: None,
            quota: Quota::default(),
            visibility: Visibility::default(),
            auth: Auth::default(),
        }
    }
}

impl Default for Handler {
    fn default() -> Self {
        Self { file: "handler.py".into(), callable: "handler".into() }
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.callable)
    }
}

impl Settings {
    /// As the interface spells them; [`from_json`](Self::from_json) reads it back. Every key is
    /// there, except those without a value.
    pub fn to_json(&self) -> Json {
        let mut json = json!({
            "timeout": show_duration(self.timeout),
            "stream_idle": show_duration(self.stream_idle),
            "stream_total": show_duration(self.stream_total),
            "memory": show_size(self.memory),
            "tasks": self.tasks,
            "cpu": self.cpu,
            "concurrency": self.concurrency,
            "network": self.network,
            "visibility": self.visibility,
            "criticality": self.criticality,
            "on_disconnect": self.on_disconnect,
            "env": self.env_json(),
            "secrets": self.secrets,
            "preload": self.preload,
            "path": self.path,
            "labels": self.labels,
            "limits": {
                "body": show_size(self.limits.body),
                "response": show_size(self.limits.response),
                "logs": show_size(self.limits.logs),
            },
            "scaling": self.scaling.to_json(),
            "latency": self.latency.to_json(),
        });
        let optional = [
            ("python", self.python.as_ref().map(|version| json!(version))),
            ("cpu_limit", self.cpu_limit.map(|cores| json!(cores))),
            ("idempotent", self.idempotent.to_json()),
            ("slo", self.slo.as_ref().map(Slo::to_json)),
            ("quota", (self.quota != Quota::default()).then(|| self.quota.to_json())),
            ("auth", (!self.auth.is_open()).then(|| self.auth.to_json())),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                json[key] = value;
            }
        }
        json
    }
}

impl Settings {
    /// Whether it asks who calls it, rather than answering everybody.
    pub fn is_guarded(&self) -> bool {
        self.visibility == Visibility::Private || !self.auth.is_open()
    }

    /// The secrets that it needs: those that its handler reads, and the one that its callers sign with.
    pub fn needed_secrets(&self) -> impl Iterator<Item = &SecretName> {
        self.secrets.iter().chain(self.auth.hmac.as_ref().map(|hmac| &hmac.secret))
    }

    /// Both kinds of variables in one table, as the manifest has them.
    fn env_json(&self) -> Json {
        let plain = self.env.iter().map(|(name, value)| (name.clone(), json!(value)));
        let secret = self.secret_env.iter().map(|(name, secret)| (name.clone(), json!({ "secret": secret })));
        plain.chain(secret).collect::<Map<_, _>>().into()
    }
}

impl Idempotency {
    fn to_json(self) -> Option<Json> {
        match self {
            Self::ByVerb => None,
            Self::Always => Some(json!(true)),
            Self::Never => Some(json!(false)),
            Self::WithKey => Some(json!("key")),
        }
    }
}

impl IdleTime {
    fn to_json(self) -> Json {
        match self {
            Self::Auto => json!("auto"),
            Self::After(idle) => json!(show_duration(idle)),
        }
    }
}

impl Scaling {
    fn to_json(&self) -> Json {
        let mut json = json!({ "min": self.min, "max": self.max, "idle": self.idle.to_json() });
        let time = |time: &ScheduledFloor| json!({ "cron": time.cron.to_string(), "for": show_duration(time.lasts), "min": time.min });
        if !self.schedule.is_empty() {
            json["schedule"] = self.schedule.iter().map(time).collect();
        }
        json
    }
}

impl Latency {
    fn to_json(&self) -> Json {
        let hedge = match self.hedge {
            Hedge::Off => "off".to_owned(),
            Hedge::Auto => "auto".to_owned(),
            Hedge::After(delay) => show_duration(delay),
        };
        match &self.fallback {
            None => json!({ "hedge": hedge }),
            Some(Fallback::Stale(age)) => {
                json!({ "hedge": hedge, "fallback": { "stale": show_duration(*age) } })
            }
            Some(Fallback::Function(name)) => json!({ "hedge": hedge, "fallback": { "function": name } }),
        }
    }
}

impl Quota {
    /// As the interface spells it: what it limits, and nothing else.
    pub fn to_json(&self) -> Json {
        let parts = [
            ("rate", self.rate.map(|rate| json!(rate.to_string()))),
            ("burst", self.burst.map(|calls| json!(calls))),
            ("concurrency", self.concurrency.map(|calls| json!(calls))),
            ("backlog", self.backlog.map(|calls| json!(calls))),
            ("memory", self.memory.map(|size| json!(show_size(size)))),
            ("code", self.code.map(|size| json!(show_size(size)))),
            ("history", self.history.map(|size| json!(show_size(size)))),
            ("history_rate", self.history_rate.map(|rate| json!(rate.to_string()))),
            ("weight", self.weight.map(|weight| json!(weight))),
        ];
        let parts = parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Json::Object(parts.collect())
    }
}

impl Slo {
    fn to_json(&self) -> Json {
        let mut json = Map::new();
        if let Some(availability) = self.availability {
            json.insert("availability".into(), json!(availability));
        }
        if let Some(LatencyObjective { under, percent }) = &self.latency {
            json.insert("latency".into(), json!({ "under": show_duration(*under), "percent": percent }));
        }
        json.insert("window".into(), json!(format!("{}d", self.window_days)));
        json.into()
    }
}

/// As humantime writes it, without spaces: `1m30s`.
pub fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// Exactly, in the largest binary unit that divides it: `6MiB`, `1000B`.
pub fn show_size(size: ByteSize) -> String {
    let bytes = size.as_u64();
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}
