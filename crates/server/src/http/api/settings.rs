//! What `settings` may hold, for the OpenAPI document. The reading is `fp_core::settings`'s, which
//! also names the field at fault; a test keeps the two lists of keys the same.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Settings of a function: the keys of function.toml except `name`, `handler` and `events`.
/// Times are written as `60s`, `250ms` or `1m30s`, sizes as `256MiB`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Settings, example = json!({ "timeout": "5s", "memory": "128MiB" }))]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
pub(super) struct SettingsSchema {
    /// The Python to run on; the newest found when left out.
    #[schema(pattern = r"^3\.1[0-9]$", example = "3.11", nullable = false)]
    python: Option<String>,
    /// Time to the answer; for streams to the first byte.
    #[schema(example = "60s", nullable = false)]
    timeout: Option<String>,
    /// Longest silence of a stream.
    #[schema(example = "60s", nullable = false)]
    stream_idle: Option<String>,
    /// Longest life of a stream.
    #[schema(example = "15m", nullable = false)]
    stream_total: Option<String>,
    /// Memory of one worker.
    #[schema(example = "256MiB", nullable = false)]
    memory: Option<String>,
    /// Processes and threads of one worker.
    #[schema(minimum = 4, maximum = 32_768, nullable = false)]
    tasks: Option<u32>,
    /// CPU weight.
    #[schema(minimum = 0.01, maximum = 100, nullable = false)]
    cpu: Option<f64>,
    /// Hard CPU quota in cores; none when left out.
    #[schema(minimum = 0.01, maximum = 1024, nullable = false)]
    cpu_limit: Option<f64>,
    /// Calls at once in one worker; above 1 only for `async def`.
    #[schema(minimum = 1, maximum = 1000, nullable = false)]
    concurrency: Option<u32>,
    /// `none`, `internal` or `full`.
    #[schema(pattern = "^(none|internal|full)$", example = "full", nullable = false)]
    network: Option<String>,
    /// Which calls may run twice: all (true), none (false) or those with an Idempotency-Key
    /// (`key`); GET, HEAD and OPTIONS when left out.
    #[schema(value_type = Option<Value>, example = "key", nullable = false)]
    idempotent: Option<Value>,
    /// `critical`, `default` or `sheddable`.
    #[schema(pattern = "^(critical|default|sheddable)$", example = "default", nullable = false)]
    criticality: Option<String>,
    /// What a caller's leaving does: `cancel` or `finish`.
    #[schema(pattern = "^(cancel|finish)$", example = "cancel", nullable = false)]
    on_disconnect: Option<String>,
    /// Environment variables: a text, or `{ "secret": "NAME" }` for one of `secrets`.
    #[schema(nullable = false)]
    env: Option<BTreeMap<String, VariableSchema>>,
    /// Names of secrets that it may read.
    #[schema(nullable = false)]
    secrets: Option<Vec<String>>,
    /// Modules imported before its workers start.
    #[schema(nullable = false)]
    preload: Option<Vec<String>>,
    /// Directories of the function added to `sys.path`.
    #[schema(nullable = false)]
    path: Option<Vec<String>>,
    /// Free labels.
    #[schema(nullable = false)]
    labels: Option<BTreeMap<String, String>>,
    /// Sizes.
    #[schema(nullable = false)]
    limits: Option<LimitsSchema>,
    /// Workers.
    #[schema(nullable = false)]
    scaling: Option<ScalingSchema>,
    /// Tail latency.
    #[schema(nullable = false)]
    latency: Option<LatencySchema>,
    /// Objective.
    #[schema(nullable = false)]
    slo: Option<SloSchema>,
    /// What its callers may use of it together.
    #[schema(nullable = false)]
    quota: Option<CallQuotaSchema>,
    /// Who sees it at the gateway: `public`, or `private`: only functions of its tenant and holders
    /// of its tenant's keys.
    #[schema(pattern = "^(public|private)$", example = "public", nullable = false)]
    visibility: Option<String>,
    /// What lets a caller in at the gateway.
    #[schema(nullable = false)]
    auth: Option<AuthSchema>,
}

/// What lets a caller in: any one of these. Without any, everybody is let in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Auth, example = json!({ "key": true }))]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct AuthSchema {
    /// A key of the tenant with the scope `invoke`.
    #[schema(nullable = false)]
    key: Option<bool>,
    /// A signature over the body; not for a private function.
    #[schema(nullable = false)]
    hmac: Option<HmacAuthSchema>,
    /// A JSON web token; not for a private function.
    #[schema(nullable = false)]
    jwt: Option<JwtAuthSchema>,
}

/// HMAC-SHA256 of the body in hexadecimal digits in a header, as GitHub signs its webhooks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HmacAuth)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct HmacAuthSchema {
    /// The name of the secret.
    #[schema(example = "WEBHOOK_SECRET")]
    secret: String,
    /// The header; X-Hub-Signature-256 when left out.
    #[schema(example = "X-Hub-Signature-256", nullable = false)]
    header: Option<String>,
}

/// A token that a key of a set has signed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JwtAuth)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct JwtAuthSchema {
    /// Where the JWK set is: an http or https URL, a file of the function, or an absolute path of the
    /// platform's host.
    #[schema(example = "https://login.example.com/.well-known/jwks.json")]
    jwks: String,
    /// Whose tokens these are (`iss`).
    #[schema(example = "https://login.example.com/")]
    issuer: String,
    /// For whom they are (`aud`): a text, or a list of which one is enough.
    #[schema(value_type = Value, example = "thumbs")]
    audience: Value,
}

/// The value of an environment variable.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Variable)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
enum VariableSchema {
    /// A text.
    Text(String),
    /// A secret's value.
    Secret(SecretVariableSchema),
}

/// A variable that holds a secret.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SecretVariable)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct SecretVariableSchema {
    /// Its name, which is also in `secrets`.
    #[schema(example = "STRIPE_KEY")]
    secret: String,
}

/// Sizes of what goes in and out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Limits)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct LimitsSchema {
    /// Largest request body.
    #[schema(example = "6MiB", nullable = false)]
    body: Option<String>,
    /// Largest response body that is not a stream.
    #[schema(example = "6MiB", nullable = false)]
    response: Option<String>,
    /// Captured logs per call.
    #[schema(example = "1MiB", nullable = false)]
    logs: Option<String>,
}

/// How many workers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Scaling)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct ScalingSchema {
    /// Workers kept warm.
    #[schema(minimum = 0, maximum = 10_000, nullable = false)]
    min: Option<u32>,
    /// Most workers at once; not below `min`.
    #[schema(minimum = 1, maximum = 10_000, nullable = false)]
    max: Option<u32>,
    /// How long an idle worker is kept: `auto` or a time; `0s` keeps none.
    #[schema(example = "auto", nullable = false)]
    idle: Option<String>,
    /// When more workers are kept.
    #[schema(max_items = 32, nullable = false)]
    schedule: Option<Vec<ScheduledFloorSchema>>,
}

/// A time from which more workers are kept.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScheduledFloor)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct ScheduledFloorSchema {
    /// When it begins, in the host's time zone: minute, hour, day, month, weekday.
    #[schema(example = "0 8 * * 1-5")]
    cron: String,
    /// How long it lasts, from a minute to a day.
    #[serde(rename = "for")]
    #[schema(example = "10h")]
    lasts: String,
    /// Workers kept then; not above `max`.
    #[schema(minimum = 0, maximum = 10_000, example = 4)]
    min: u32,
}

/// Tail latency.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Latency)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct LatencySchema {
    /// When a second attempt may start: `off`, `auto` or a delay.
    #[schema(example = "auto", nullable = false)]
    hedge: Option<String>,
    /// What to answer instead of a refusal.
    #[schema(nullable = false)]
    fallback: Option<FallbackSchema>,
}

/// What to answer instead of a refusal: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Fallback)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct FallbackSchema {
    /// The last good answer, up to this age.
    #[schema(example = "5m", nullable = false)]
    stale: Option<String>,
    /// Another function's answer.
    #[schema(nullable = false)]
    function: Option<String>,
}

/// What the callers of a function may use of it together; what is left out is not limited.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CallQuota)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct CallQuotaSchema {
    /// Calls per time.
    #[schema(example = "100/s", nullable = false)]
    rate: Option<String>,
    /// Calls at once that the rate lets pass after quiet; without it, a second's worth of them.
    #[schema(minimum = 1, maximum = 1_000_000, nullable = false)]
    burst: Option<u32>,
    /// Calls under way at once.
    #[schema(minimum = 1, maximum = 1_000_000, nullable = false)]
    concurrency: Option<u32>,
    /// Accepted asynchronous calls that have not ended.
    #[schema(minimum = 1, maximum = 1_000_000, nullable = false)]
    backlog: Option<u32>,
}

/// A service level objective: at least one of availability and latency.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Slo)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct SloSchema {
    /// Share of good calls, in percent.
    #[schema(exclusive_minimum = 0, exclusive_maximum = 100, example = 99.9, nullable = false)]
    availability: Option<f64>,
    /// Share of fast calls.
    #[schema(nullable = false)]
    latency: Option<LatencyObjectiveSchema>,
    /// The rolling window: `7d`, `28d` or `30d`.
    #[schema(pattern = "^(7|28|30)d$", example = "30d", nullable = false)]
    window: Option<String>,
}

/// A latency objective.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LatencyObjective)]
#[expect(dead_code, reason = "describes the settings for the document; core reads them")]
struct LatencyObjectiveSchema {
    /// The threshold.
    #[schema(example = "250ms")]
    under: String,
    /// Share of calls that must be under it, in percent.
    #[schema(exclusive_minimum = 0, exclusive_maximum = 100, example = 99)]
    percent: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_knows_every_key_that_core_knows() {
        let everything = serde_json::json!({
            "python": "3.11", "cpu_limit": 0.5, "idempotent": "key",
            "env": { "A": "1", "B": { "secret": "KEY" } }, "secrets": ["KEY"],
            "latency": { "hedge": "30ms", "fallback": { "stale": "5m" } },
            "slo": { "availability": 99.9, "latency": { "under": "250ms", "percent": 99 }, "window": "7d" },
            "auth": {
                "key": true,
                "hmac": { "secret": "HOOK", "header": "X-Signature" },
                "jwt": { "jwks": "jwks.json", "issuer": "i", "audience": ["a", "b"] },
            },
        });
        let settings = fp_core::Settings::from_json(&everything).expect("allowed");
        let told: Result<SettingsSchema, _> = serde_json::from_value(settings.to_json());
        told.expect("each key of core is in the document");
    }

    #[test]
    fn core_knows_every_key_that_the_document_knows() {
        let schema = serde_json::to_value(<SettingsSchema as utoipa::PartialSchema>::schema()).expect("JSON");
        for key in schema["properties"].as_object().expect("keys").keys() {
            let wrong = serde_json::json!({ key: [[]] });
            let error = fp_core::Settings::from_json(&wrong).expect_err(key);
            assert!(
                !matches!(error.fault, fp_core::settings::Fault::Unknown { .. }),
                "{key} is unknown to core"
            );
        }
    }
}
