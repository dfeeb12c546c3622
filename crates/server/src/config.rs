//! The platform's configuration: what `up` was told, by flag, environment or file.
//!
//! The command line merges the layers (flag > environment > file > default) and hands the
//! result over; nothing here reads a file or the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fp_core::Tenant;
pub use fp_core::slo::Severity;
pub use fp_sandbox::{Isolation, PreloadConfig, PreloadPolicy};

/// Where exporters of OpenTelemetry send to unless they are told (OTLP 1.0, default port of HTTP).
pub const USUAL_OTLP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4318);

/// How much an error answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorDetail {
    /// Exception type and message, near routes: for those who may know what functions do.
    Full,
    /// Type, id and hint.
    Safe,
}

/// Everything `up` can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where functions are called.
    pub gateway_addr: SocketAddr,
    /// Management API, dashboard, metrics.
    pub api_addr: SocketAddr,
    /// Trace pages and the Jaeger query API.
    pub traces_addr: SocketAddr,
    /// Where spans of services are taken (OTLP/HTTP); none means at [`USUAL_OTLP`], if nobody else is there.
    pub otlp_addr: Option<SocketAddr>,
    /// Also on loopback, the management API and the traces answer only to those who hold a key.
    pub require_key: bool,
    /// Named tenants may be had where the host is below the floor of isolation.
    pub allow_weak_isolation_between_tenants: bool,
    /// Names, besides those of their addresses, that the management API and the traces answer to:
    /// `name`, or `name:port` where a proxy has another port.
    pub api_hosts: Vec<String>,
    /// Names below which tenants have host names at the gateway, besides `localhost`: with
    /// `example.com`, `acme.example.com` is the tenant acme's.
    pub gateway_hosts: Vec<String>,
    /// Registry, code, history; locked while the platform runs.
    pub data_dir: PathBuf,
    /// The executable to start the launcher from: normally this one.
    pub executable: PathBuf,
    /// A Python to prefer over those found.
    pub python: Option<PathBuf>,
    /// What functions may have imported before their workers are forked, and from where.
    pub preload: PreloadConfig,
    /// Blank workers kept ready.
    pub blanks: usize,
    /// Workers of all functions at once; none means as many as there are open files for.
    pub max_workers: Option<u32>,
    /// Memory that all workers together may take, in bytes; none means what the host can spare.
    pub worker_memory: Option<u64>,
    /// Whether to start on a host that does not enforce everything.
    pub isolation: Isolation,
    /// How much error answers tell; none means full on loopback until there are named tenants, else
    /// what is safe.
    pub errors: Option<ErrorDetail>,
    /// Longest wait for running calls when stopping.
    pub drain_limit: Duration,
    /// `[services]`: URL by key (`message_queue`, `cache_service`, `document_db`, `sql_db`,
    /// `object_storage`).
    pub services: BTreeMap<String, String>,
    /// `[tenants]`: what named tenants may have.
    pub tenants: TenantsConfig,
    /// How the gateway speaks TLS; none means plain HTTP.
    pub gateway_tls: Option<TlsSource>,
    /// The same for the management API and the trace listener.
    pub management_tls: Option<TlsSource>,
    /// Connections of one address (IPv4) or network (IPv6, /64) at once, those of this machine apart.
    pub connections_per_address: u32,
    /// Where the key of secrets is; none means in the data directory.
    pub secrets_key_file: Option<PathBuf>,
    /// Delete secrets that cannot be read instead of refusing to start.
    pub discard_unreadable_secrets: bool,
    /// History and its limits.
    pub history: HistoryConfig,
    /// `[[notify]]`: who is told when an objective is being missed.
    pub notify: Vec<NotifyConfig>,
}

/// Somebody who is told when an objective is being missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyConfig {
    /// Its name in logs and metrics.
    pub name: String,
    /// Who.
    pub to: NotifyTo,
    /// Of how urgent alerts.
    pub severities: BTreeSet<Severity>,
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyTo {
    /// By a request for each beginning and end.
    Webhook {
        /// Where to.
        url: String,
        /// What the requests are signed with.
        secret: Option<WebhookSecret>,
    },
    /// An Alertmanager.
    Alertmanager {
        /// Its root, before `/api/v2/alerts`.
        url: String,
    },
}

impl NotifyTo {
    /// Where to.
    pub fn url(&self) -> &str {
        match self {
            Self::Webhook { url, .. } | Self::Alertmanager { url } => url,
        }
    }
}

/// What requests are signed with; its value is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(zeroize::Zeroizing<Vec<u8>>);

impl WebhookSecret {
    /// As Standard Webhooks writes them, `whsec_` and Base64; else the text itself.
    pub fn of(text: &str) -> Self {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD;
        let decoded = text.strip_prefix("whsec_").and_then(|coded| engine.decode(coded).ok());
        Self(decoded.unwrap_or_else(|| text.as_bytes().to_vec()).into())
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret")
    }
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSource {
    /// PEM files, read again when they change.
    Files {
        /// The chain, the server's own first.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Made for this machine's names and kept in the data directory.
    SelfSigned,
}

/// What the operator lets named tenants have: nothing, unless it is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantsConfig {
    /// Those whose functions get [`Config::services`], with the credentials in them.
    pub services: Permit,
    /// Those whose functions may be in the host's network (`network = "full"`).
    pub full_network: Permit,
}

/// Named tenants that may have something. The operator's own may in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// All of them.
    Any,
    /// These.
    Only(BTreeSet<Tenant>),
}

impl Permit {
    /// Whether a tenant may.
    pub fn allows(&self, tenant: &Tenant) -> bool {
        *tenant == Tenant::default()
            || match self {
                Self::Any => true,
                Self::Only(tenants) => tenants.contains(tenant),
            }
    }
}

impl Default for Permit {
    /// No named tenant.
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

/// How much history is kept where.
#[derive(Debug, Clone)]
pub struct HistoryConfig {
    /// Memory of the ring that holds every call, in bytes.
    pub ring_bytes: usize,
    /// Disk budget, in bytes; the oldest period is dropped first.
    pub disk_bytes: u64,
    /// Age limit; older periods are dropped.
    pub keep: Duration,
    /// Calls per second and function that go to disk unsampled.
    pub per_function_per_second: u32,
    /// Calls per second in all that go to disk unsampled.
    pub total_per_second: u32,
}

impl Default for HistoryConfig {
    /// The figures of the interface: 256 MiB, 10 GiB, 30 d (the longest SLO window), 200/s, 1,000/s.
    fn default() -> Self {
        Self {
            ring_bytes: 256 << 20,
            disk_bytes: 10 << 30,
            keep: Duration::from_secs(30 * 86_400),
            per_function_per_second: 200,
            total_per_second: 1_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gateway_addr: SocketAddr::from(([127, 0, 0, 1], 5000)),
            api_addr: SocketAddr::from(([127, 0, 0, 1], 8000)),
            traces_addr: SocketAddr::from(([127, 0, 0, 1], 16686)),
            otlp_addr: None,
            require_key: false,
            allow_weak_isolation_between_tenants: false,
            api_hosts: Vec::new(),
            gateway_hosts: Vec::new(),
            data_dir: PathBuf::from("./.functionsplatform"),
            executable: PathBuf::from("/proc/self/exe"),
            python: None,
            preload: PreloadConfig::default(),
            blanks: 4,
            max_workers: None,
            worker_memory: None,
            isolation: Isolation::Best,
            errors: None,
            drain_limit: Duration::from_secs(10),
            services: BTreeMap::new(),
            tenants: TenantsConfig::default(),
            gateway_tls: None,
            management_tls: None,
            connections_per_address: 1_024,
            secrets_key_file: None,
            discard_unreadable_secrets: false,
            history: HistoryConfig::default(),
            notify: Vec::new(),
        }
    }
}

/// Whether a URL of `[[notify]]` could be reached at all.
///
/// # Errors
/// Half a sentence.
pub fn check_notify_url(url: &str) -> Result<(), String> {
    crate::notify::check(url)
}
