//! The configuration file: its keys as they are written, and what they may hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fp_server::config::{
    HistoryConfig, NotifyConfig, NotifyTo, Permit, PreloadPolicy, Severity, TenantsConfig, WebhookSecret,
    check_notify_url,
};
use serde::{Deserialize, Deserializer};

use super::{Errors, IsolationWord, address, host_name};
use crate::exit::{Exit, Failure};

/// Smallest ring of history, in bytes: less would not hold the calls of one screen.
const SMALLEST_RING: u64 = 1 << 20;

/// The file, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default, deserialize_with = "read_address")]
    pub(super) gateway_addr: Option<SocketAddr>,
    #[serde(default, deserialize_with = "read_address")]
    pub(super) api_addr: Option<SocketAddr>,
    #[serde(default, deserialize_with = "read_address")]
    pub(super) traces_addr: Option<SocketAddr>,
    #[serde(default, deserialize_with = "read_address")]
    pub(super) otlp_addr: Option<SocketAddr>,
    pub(super) require_key: Option<bool>,
    pub(super) allow_weak_isolation_between_tenants: Option<bool>,
    #[serde(default, deserialize_with = "read_host_names")]
    pub(super) api_hosts: Option<Vec<String>>,
    #[serde(default, deserialize_with = "read_host_names")]
    pub(super) gateway_hosts: Option<Vec<String>>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) python: Option<PathBuf>,
    pub(super) preload: Option<Preload>,
    pub(super) layers: Option<Vec<PathBuf>>,
    #[serde(default, deserialize_with = "read_size")]
    pub(super) preload_memory: Option<u64>,
    pub(super) blanks: Option<usize>,
    pub(super) max_workers: Option<u32>,
    #[serde(default, deserialize_with = "read_size")]
    pub(super) worker_memory: Option<u64>,
    pub(super) isolation: Option<IsolationWord>,
    pub(super) errors: Option<Errors>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) gateway_tls_cert: Option<PathBuf>,
    pub(super) gateway_tls_key: Option<PathBuf>,
    pub(super) api_tls_cert: Option<PathBuf>,
    pub(super) api_tls_key: Option<PathBuf>,
    pub(super) tls_self_signed: Option<bool>,
    pub(super) connections_per_address: Option<u32>,
    pub(super) secrets_key_file: Option<PathBuf>,
    pub(super) discard_unreadable_secrets: Option<bool>,
    #[serde(default, deserialize_with = "read_duration")]
    pub(super) drain_limit: Option<Duration>,
    #[serde(default)]
    pub(super) services: Services,
    #[serde(default)]
    pub(super) tenants: Tenants,
    #[serde(default)]
    pub(super) history: History,
    #[serde(default)]
    pub(super) notify: Vec<Notify>,
}

/// `"any"`, `"none"`, or a list of modules.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "write \"any\", \"none\" or a list of modules such as [\"numpy\"]")]
pub(super) enum Preload {
    Text(String),
    Modules(Vec<String>),
}

impl Preload {
    pub(super) fn policy(self) -> PreloadPolicy {
        match self {
            // As on the command line.
            Self::Text(text) => text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {}),
            Self::Modules(modules) => PreloadPolicy::Only(modules),
        }
    }
}

/// Where the data services are. A URL with a password in it is better kept in a file that only
/// the platform can read: `sql_db = { file = "/run/secrets/sql_db" }`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Services {
    message_queue: Option<ServiceUrl>,
    cache_service: Option<ServiceUrl>,
    document_db: Option<ServiceUrl>,
    sql_db: Option<ServiceUrl>,
    object_storage: Option<ServiceUrl>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum ServiceUrl {
    Url(String),
    File { file: PathBuf },
}

/// Somebody who is told when an objective is being missed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notify {
    name: Option<String>,
    webhook: Option<ServiceUrl>,
    alertmanager: Option<ServiceUrl>,
    secret: Option<ServiceUrl>,
    severities: Option<BTreeSet<Severity>>,
}

impl Notify {
    /// Each with a name of its own.
    pub(super) fn all(written: Vec<Self>) -> Result<Vec<NotifyConfig>, Failure> {
        let mut names = BTreeSet::new();
        let read = |(at, notify): (usize, Self)| {
            let config = notify.read(at)?;
            if !names.insert(config.name.clone()) {
                let wrong = format!("notify.{at}: there is another one called {:?}", config.name);
                return Err(Failure::usage(wrong).hint("give each a name of its own"));
            }
            Ok(config)
        };
        written.into_iter().enumerate().map(read).collect()
    }

    fn read(self, at: usize) -> Result<NotifyConfig, Failure> {
        let wrong = |what: &str| Failure::usage(format!("notify.{at}{what}"));
        let secret = self.secret.map(ServiceUrl::read).transpose()?;
        let (kind, to) = match (self.webhook, self.alertmanager, secret) {
            (Some(url), None, secret) => {
                let secret = secret.map(|text| WebhookSecret::of(&text));
                ("webhook", NotifyTo::Webhook { url: url.read()?, secret })
            }
            (None, Some(url), None) => ("alertmanager", NotifyTo::Alertmanager { url: url.read()? }),
            (None, Some(_), Some(_)) => {
                return Err(wrong(".secret is for webhooks, and this is an alertmanager"));
            }
            _ => return Err(wrong(" needs one of webhook = \"https://…\" and alertmanager = \"http://…\"")),
        };
        // The text may hold a password: it is not repeated.
        check_notify_url(to.url()).map_err(|why| wrong(&format!(".{kind}: {why}")))?;
        let severities = self.severities.unwrap_or_else(|| [Severity::Page, Severity::Ticket].into());
        Ok(NotifyConfig { name: self.name.unwrap_or_else(|| format!("{kind}-{at}")), to, severities })
    }
}

/// What named tenants may have.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tenants {
    #[serde(default, deserialize_with = "read_permit")]
    pub(super) services: Permit,
    #[serde(default, deserialize_with = "read_permit")]
    pub(super) full_network: Permit,
}

impl Tenants {
    pub(super) fn permits(self) -> TenantsConfig {
        TenantsConfig { services: self.services, full_network: self.full_network }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    #[serde(default, deserialize_with = "read_size")]
    ring: Option<u64>,
    #[serde(default, deserialize_with = "read_size")]
    disk: Option<u64>,
    #[serde(default, deserialize_with = "read_duration")]
    keep: Option<Duration>,
    per_function_per_second: Option<u32>,
    total_per_second: Option<u32>,
}

impl Services {
    pub(super) fn urls(self) -> Result<BTreeMap<String, String>, Failure> {
        let all = [
            ("message_queue", self.message_queue),
            ("cache_service", self.cache_service),
            ("document_db", self.document_db),
            ("sql_db", self.sql_db),
            ("object_storage", self.object_storage),
        ];
        let given = all.into_iter().filter_map(|(name, url)| Some((name.to_owned(), url?)));
        given
            .map(|(name, url)| {
                let url = url.read()?;
                // The text may hold a password: it is not repeated.
                if is_url(&url) { Ok((name, url)) } else { Err(not_a_url(&name)) }
            })
            .collect()
    }
}

/// `scheme://` and something after it, as all that speak to data services want it.
pub(super) fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(in_scheme);
    scheme_fits && !rest.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn not_a_url(name: &str) -> Failure {
    Failure::usage(format!("services.{name} is not a URL"))
        .hint("write it with its scheme and host, such as postgres://user@db:5432/name")
}

impl ServiceUrl {
    fn read(self) -> Result<String, Failure> {
        match self {
            Self::Url(url) => Ok(url),
            Self::File { file } => std::fs::read_to_string(&file)
                .map(|text| text.trim().to_owned())
                .map_err(|error| Failure::file("read a URL or a secret from", &file, &error)),
        }
    }
}

impl History {
    pub(super) fn over(self, default: HistoryConfig) -> Result<HistoryConfig, Failure> {
        if let Some(ring) = self.ring.filter(|ring| *ring < SMALLEST_RING) {
            let least = bytesize::ByteSize::b(SMALLEST_RING);
            return Err(Failure::usage(format!("history.ring is {ring} bytes, the least is {least}")));
        }
        Ok(HistoryConfig {
            ring_bytes: self.ring.map_or(default.ring_bytes, |bytes| bytes as usize),
            disk_bytes: self.disk.unwrap_or(default.disk_bytes),
            keep: self.keep.unwrap_or(default.keep),
            per_function_per_second: self.per_function_per_second.unwrap_or(default.per_function_per_second),
            total_per_second: self.total_per_second.unwrap_or(default.total_per_second),
        })
    }
}

pub(super) fn read_file(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let failure = Failure::file("read the configuration file", path, &error);
        Failure { exit: Exit::Usage, ..failure }
    })?;
    toml::from_str(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display()).trim_end().to_owned()))
}

fn read_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    address(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

fn read_host_names<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    let names: Result<_, _> = names.iter().map(|name| host_name(name)).collect();
    names.map(Some).map_err(serde::de::Error::custom)
}

/// `"any"`, `"none"`, or a list of tenants.
fn read_permit<'de, D: Deserializer<'de>>(from: D) -> Result<Permit, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "write \"any\", \"none\" or a list of tenants such as [\"acme\"]")]
    enum Written {
        Word(Word),
        Tenants(Vec<String>),
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Any,
        None,
    }
    match Written::deserialize(from)? {
        Written::Word(Word::Any) => Ok(Permit::Any),
        Written::Word(Word::None) => Ok(Permit::default()),
        Written::Tenants(names) => {
            let names: Result<_, _> = names.iter().map(|name| name.parse()).collect();
            names.map(Permit::Only).map_err(serde::de::Error::custom)
        }
    }
}

fn read_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    humantime::parse_duration(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

fn read_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let size: bytesize::ByteSize = String::deserialize(from)?.parse().map_err(serde::de::Error::custom)?;
    Ok(Some(size.as_u64()))
}
