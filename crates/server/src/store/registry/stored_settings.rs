//! How settings are written in the registry.
//!
//! Apart from the manifest's syntax on purpose: what people write may change its spelling, what
//! was stored must read back. Durations are nanoseconds, sizes bytes. A field that a later
//! release adds here needs a serde default.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use fp_core::quota::Quota;
use fp_core::settings::{
    Auth, Criticality, Fallback, Hedge, Idempotency, IdleTime, Latency, LatencyObjective, Limits, Network,
    OnDisconnect, Scaling, ScheduledFloor, Slo, Visibility,
};
use fp_core::{SecretName, Settings};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct StoredSettings {
    python: Option<String>,
    timeout_ns: u64,
    stream_idle_ns: u64,
    stream_total_ns: u64,
    memory: u64,
    tasks: u32,
    cpu: f64,
    cpu_limit: Option<f64>,
    concurrency: u32,
    network: Network,
    idempotent: Idempotency,
    criticality: Criticality,
    on_disconnect: OnDisconnect,
    env: BTreeMap<String, String>,
    secrets: Vec<SecretName>,
    /// Absent in rows of earlier releases.
    #[serde(default)]
    secret_env: BTreeMap<String, SecretName>,
    preload: Vec<String>,
    path: Vec<String>,
    labels: BTreeMap<String, String>,
    body_limit: u64,
    response_limit: u64,
    logs_limit: u64,
    min: u32,
    max: u32,
    /// None is `auto`.
    idle_ns: Option<u64>,
    /// Absent in rows of earlier releases: expression, nanoseconds, workers.
    #[serde(default)]
    schedule: Vec<(String, u64, u32)>,
    hedge: StoredHedge,
    fallback: Option<StoredFallback>,
    slo: Option<StoredSlo>,
    #[serde(default)]
    quota: Quota,
    #[serde(default)]
    visibility: Visibility,
    #[serde(default)]
    auth: Auth,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredHedge {
    Off,
    Auto,
    AfterNs(u64),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredFallback {
    Function(fp_core::FunctionName),
    StaleNs(u64),
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSlo {
    availability: Option<f64>,
    /// Threshold in nanoseconds, and percent.
    latency: Option<(u64, f64)>,
    window_days: u32,
}

/// The text that the registry keeps.
pub(super) fn to_json(settings: &Settings) -> String {
    serde_json::to_string(&StoredSettings::from(settings)).expect("plain data with text keys is JSON")
}

/// Settings from that text.
pub(super) fn from_json(text: &str) -> Result<Settings, serde_json::Error> {
    serde_json::from_str::<StoredSettings>(text).map(Settings::from)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&Settings> for StoredSettings {
    fn from(settings: &Settings) -> Self {
        let s = settings.clone();
        Self {
            python: s.python,
            timeout_ns: nanoseconds(s.timeout),
            stream_idle_ns: nanoseconds(s.stream_idle),
            stream_total_ns: nanoseconds(s.stream_total),
            memory: s.memory.as_u64(),
            tasks: s.tasks,
            cpu: s.cpu,
            cpu_limit: s.cpu_limit,
            concurrency: s.concurrency,
            network: s.network,
            idempotent: s.idempotent,
            criticality: s.criticality,
            on_disconnect: s.on_disconnect,
            env: s.env,
            secrets: s.secrets,
            secret_env: s.secret_env,
            preload: s.preload,
            path: s.path,
            labels: s.labels,
            body_limit: s.limits.body.as_u64(),
            response_limit: s.limits.response.as_u64(),
            logs_limit: s.limits.logs.as_u64(),
            min: s.scaling.min,
            max: s.scaling.max,
            idle_ns: match s.scaling.idle {
                IdleTime::Auto => None,
                IdleTime::After(time) => Some(nanoseconds(time)),
            },
            schedule: s
                .scaling
                .schedule
                .iter()
                .map(|at| (at.cron.to_string(), nanoseconds(at.lasts), at.min))
                .collect(),
            hedge: match s.latency.hedge {
                Hedge::Off => StoredHedge::Off,
                Hedge::Auto => StoredHedge::Auto,
                Hedge::After(time) => StoredHedge::AfterNs(nanoseconds(time)),
            },
            fallback: s.latency.fallback.map(|fallback| match fallback {
                Fallback::Function(name) => StoredFallback::Function(name),
                Fallback::Stale(age) => StoredFallback::StaleNs(nanoseconds(age)),
            }),
            slo: s.slo.map(|slo| StoredSlo {
                availability: slo.availability,
                latency: slo.latency.map(|objective| (nanoseconds(objective.under), objective.percent)),
                window_days: slo.window_days,
            }),
            quota: s.quota,
            visibility: s.visibility,
            auth: s.auth,
        }
    }
}

impl From<StoredSettings> for Settings {
    fn from(s: StoredSettings) -> Self {
        Self {
            python: s.python,
            timeout: Duration::from_nanos(s.timeout_ns),
            stream_idle: Duration::from_nanos(s.stream_idle_ns),
            stream_total: Duration::from_nanos(s.stream_total_ns),
            memory: ByteSize(s.memory),
            tasks: s.tasks,
            cpu: s.cpu,
            cpu_limit: s.cpu_limit,
            concurrency: s.concurrency,
            network: s.network,
            idempotent: s.idempotent,
            criticality: s.criticality,
            on_disconnect: s.on_disconnect,
            env: s.env,
            secrets: s.secrets,
            secret_env: s.secret_env,
            preload: s.preload,
            path: s.path,
            labels: s.labels,
            limits: Limits {
                body: ByteSize(s.body_limit),
                response: ByteSize(s.response_limit),
                logs: ByteSize(s.logs_limit),
            },
            scaling: Scaling {
                min: s.min,
                max: s.max,
                idle: s.idle_ns.map_or(IdleTime::Auto, |ns| IdleTime::After(Duration::from_nanos(ns))),
                // Was checked before it was stored; what a later release writes differently is left out.
                schedule: s
                    .schedule
                    .into_iter()
                    .filter_map(|(cron, lasts, min)| {
                        let lasts = Duration::from_nanos(lasts);
                        Some(ScheduledFloor { cron: cron.parse().ok()?, lasts, min })
                    })
                    .collect(),
            },
            latency: Latency {
                hedge: match s.hedge {
                    StoredHedge::Off => Hedge::Off,
                    StoredHedge::Auto => Hedge::Auto,
                    StoredHedge::AfterNs(ns) => Hedge::After(Duration::from_nanos(ns)),
                },
                fallback: s.fallback.map(|fallback| match fallback {
                    StoredFallback::Function(name) => Fallback::Function(name),
                    StoredFallback::StaleNs(ns) => Fallback::Stale(Duration::from_nanos(ns)),
                }),
            },
            slo: s.slo.map(|slo| Slo {
                availability: slo.availability,
                latency: slo.latency.map(|(under_ns, percent)| LatencyObjective {
                    under: Duration::from_nanos(under_ns),
                    percent,
                }),
                window_days: slo.window_days,
            }),
            quota: s.quota,
            visibility: s.visibility,
            auth: s.auth,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use fp_core::settings::{HmacAuth, JwtAuth, KeysFrom};

    use super::*;

    /// Settings in which no field has its default.
    pub(crate) fn unusual() -> Settings {
        let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        Settings {
            python: Some("3.11".into()),
            timeout: Duration::from_millis(1_500),
            stream_idle: Duration::from_micros(7),
            stream_total: Duration::from_secs(900),
            memory: ByteSize((100 << 20) + 1),
            tasks: 9,
            cpu: 0.1 + 0.2,
            cpu_limit: Some(0.5),
            concurrency: 3,
            network: Network::Internal,
            idempotent: Idempotency::WithKey,
            criticality: Criticality::Sheddable,
            on_disconnect: OnDisconnect::Finish,
            env: pair("LEVEL", "info"),
            secrets: vec!["KEY".parse().unwrap()],
            secret_env: BTreeMap::from([("TOKEN".to_owned(), "KEY".parse().unwrap())]),
            preload: vec!["numpy".into()],
            path: vec!["lib".into()],
            labels: pair("team", "média"),
            limits: Limits { body: ByteSize(1), response: ByteSize(2), logs: ByteSize(3) },
            scaling: Scaling {
                min: 1,
                max: 2,
                idle: IdleTime::After(Duration::ZERO),
                schedule: vec![ScheduledFloor {
                    cron: "0 8 * * 1-5".parse().unwrap(),
                    lasts: Duration::from_secs(3600),
                    min: 2,
                }],
            },
            latency: Latency {
                hedge: Hedge::After(Duration::from_millis(30)),
                fallback: Some(Fallback::Stale(Duration::from_secs(300))),
            },
            slo: Some(Slo {
                availability: Some(99.95),
                latency: Some(LatencyObjective { under: Duration::from_millis(250), percent: 99.0 }),
                window_days: 28,
            }),
            quota: Quota { burst: Some(7), rate: "0.1/s".parse().ok(), ..Quota::default() },
            visibility: Visibility::Private,
            auth: Auth {
                key: true,
                hmac: Some(HmacAuth { secret: "KEY".parse().unwrap(), header: "x-sign".into() }),
                jwt: Some(JwtAuth {
                    jwks: KeysFrom::Url("https://issuer.example/jwks".into()),
                    issuer: "https://issuer.example/".into(),
                    audience: vec!["a".into(), "b".into()],
                }),
            },
        }
    }

    #[test]
    fn settings_read_back_exactly() {
        let mut settings = unusual();
        assert_eq!(from_json(&to_json(&settings)).unwrap(), settings);
        settings.scaling.idle = IdleTime::Auto;
        settings.latency.hedge = Hedge::Off;
        settings.latency.fallback = Some(Fallback::Function("other".parse().unwrap()));
        settings.slo = None;
        assert_eq!(from_json(&to_json(&settings)).unwrap(), settings);
    }
}
