//! Reading settings: every key of `function.toml`, what it may hold, and what to write instead.
//!
//! The ranges are generous: they refuse what cannot work, not what is unwise. Each is here and
//! nowhere else; `docs/function-toml.md` repeats them for users.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde_json::Value as Json;

use super::error::SettingsError;
use super::tree::{Field, Fields, Node, Value};
use super::{
    Auth, Criticality, Fallback, Handler, Hedge, Idempotency, IdleTime, LatencyObjective, Limits, Manifest,
    Network, OnDisconnect, Scaling, ScheduledFloor, Settings, Slo, Visibility, auth, show_duration,
    show_size,
};
use crate::ids::SecretName;
use crate::quota::{Quota, Rate};
use crate::share::WEIGHTS;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Time limits of a call: a millisecond is the resolution of the clocks involved, an hour is
/// four times the longest run of the public clouds.
const CALL_TIME: RangeInclusive<Duration> = MILLISECOND..=HOUR;

/// The kernel's smallest quota is 1 ms in a period of 100 ms; weights have the same floor.
const LEAST_CPU: f64 = 0.01;

/// Below 16 MiB Python with its standard library does not start.
const MEMORY: RangeInclusive<ByteSize> = ByteSize::mib(16)..=ByteSize::tib(1);

/// Code of a tenant: from one small file to what no disk of today holds.
const CODE: RangeInclusive<ByteSize> = ByteSize::kib(1)..=ByteSize::tib(16);

/// A tenant's kept calls in memory: from some dozens of them to what no machine of today has.
const HISTORY: RangeInclusive<ByteSize> = ByteSize::kib(64)..=ByteSize::tib(16);

/// Sizes that are held in memory while a call is made.
const BODY: RangeInclusive<ByteSize> = ByteSize::b(1)..=ByteSize::gib(1);

/// Times of a schedule: a few a day, for each day of the week; each is looked at every minute.
const MOST_SCHEDULED: usize = 32;

const MINUTE: Duration = Duration::from_secs(60);

/// Each worker gets all of them when it starts (32 × 64 KiB at most), and all that its calls leave is
/// searched for each.
const MOST_SECRETS: usize = 32;

impl Manifest {
    /// Reads a `function.toml`.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let mut fields = Fields::root(Node::from_toml(text)?)?;
        let Some(name) = fields.take("name") else {
            return Err(fields.missing("name", "write name = \"thumbs\""));
        };
        let name = parsed(&name, "write a name such as \"thumbs\"")?;
        let mut handler = Handler::default();
        fields.set("handler", &mut handler, |field| parsed(&field, "write it as \"handler.py:handler\""))?;
        let mut events = Vec::new();
        fields.set("events", &mut events, |field| {
            let example = "write a list such as [\"http|GET|/api/cats\"]";
            field.list(example)?.iter().map(|event| parsed(event, example)).collect()
        })?;
        let settings = read_settings(&mut fields)?;
        fields.finish()?;
        Ok(Self { name, handler, events, settings })
    }
}

impl Settings {
    /// Reads the API's `settings` object: the keys of the manifest except name, handler and events.
    pub fn from_json(json: &Json) -> Result<Self, SettingsError> {
        let mut fields = Fields::root(Node::from_json(json))?;
        let settings = read_settings(&mut fields)?;
        fields.finish()?;
        Ok(settings)
    }
}

fn read_settings(fields: &mut Fields) -> Result<Settings, SettingsError> {
    let mut settings = Settings::default();
    let Settings { timeout, stream_idle, stream_total, memory, tasks, cpu, .. } = &mut settings;
    fields.set("timeout", timeout, |field| duration(&field, CALL_TIME))?;
    fields.set("stream_idle", stream_idle, |field| duration(&field, CALL_TIME))?;
    fields.set("stream_total", stream_total, |field| duration(&field, MILLISECOND..=DAY))?;
    fields.set("memory", memory, |field| size(&field, MEMORY))?;
    // Four: the interpreter, its init, and room for one thread and one child.
    fields.set("tasks", tasks, |field| field.whole(4..=32_768))?;
    fields.set("cpu", cpu, |field| number(&field, LEAST_CPU..=100.0))?;
    fields.set("cpu_limit", &mut settings.cpu_limit, |field| number(&field, LEAST_CPU..=1024.0).map(Some))?;
    fields.set("concurrency", &mut settings.concurrency, |field| field.whole(1..=1000))?;
    read_words(fields, &mut settings)?;
    read_lists(fields, &mut settings)?;
    if let Some(table) = fields.table("limits")? {
        settings.limits = read_limits(table)?;
    }
    if let Some(table) = fields.table("scaling")? {
        settings.scaling = read_scaling(table)?;
    }
    if let Some(table) = fields.table("latency")? {
        read_latency(table, &mut settings)?;
    }
    if let Some(table) = fields.table("slo")? {
        settings.slo = Some(read_slo(table)?);
    }
    if let Some(mut table) = fields.table("quota")? {
        settings.quota = read_call_quota(&mut table)?;
        table.finish()?;
    }
    read_callers(fields, &mut settings)?;
    Ok(settings)
}

/// Who may call.
fn read_callers(fields: &mut Fields, settings: &mut Settings) -> Result<(), SettingsError> {
    fields.set("visibility", &mut settings.visibility, |field| auth::read_visibility(&field))?;
    if let Some(table) = fields.table("auth")? {
        settings.auth = auth::read(table)?;
    }
    let Auth { hmac, jwt, .. } = &settings.auth;
    if settings.visibility == Visibility::Private && (hmac.is_some() || jwt.is_some()) {
        let message = "a private function is for its tenant's functions and key holders only; take hmac and jwt out of [auth], or make it public";
        return Err(fields.conflict("visibility", message.to_owned()));
    }
    Ok(())
}

fn read_words(fields: &mut Fields, settings: &mut Settings) -> Result<(), SettingsError> {
    fields.set("python", &mut settings.python, |field| python_version(&field).map(Some))?;
    fields.set("network", &mut settings.network, |field| {
        word(&field, &[("none", Network::None), ("internal", Network::Internal), ("full", Network::Full)])
    })?;
    fields.set("criticality", &mut settings.criticality, |field| {
        use Criticality::{Critical, Default, Sheddable};
        word(&field, &[("critical", Critical), ("default", Default), ("sheddable", Sheddable)])
    })?;
    fields.set("on_disconnect", &mut settings.on_disconnect, |field| {
        word(&field, &[("cancel", OnDisconnect::Cancel), ("finish", OnDisconnect::Finish)])
    })?;
    fields.set("idempotent", &mut settings.idempotent, |field| match &field.node.value {
        Value::Bool(true) => Ok(Idempotency::Always),
        Value::Bool(false) => Ok(Idempotency::Never),
        Value::Text(text) if text == "key" => Ok(Idempotency::WithKey),
        _ => Err(field.refuse("write true, false or \"key\"")),
    })
}

fn read_lists(fields: &mut Fields, settings: &mut Settings) -> Result<(), SettingsError> {
    if let Some(env) = fields.take("env") {
        read_env(env, settings)?;
    }
    fields.set("labels", &mut settings.labels, |field| {
        texts_by_name(field, |key| !key.is_empty(), "write a table of texts such as { team = \"media\" }")
    })?;
    fields.set("secrets", &mut settings.secrets, secrets)?;
    if let Some((variable, secret)) =
        settings.secret_env.iter().find(|(_, secret)| !settings.secrets.contains(secret))
    {
        let message = format!("{variable} is to hold secret {secret}; add it to secrets = [\"{secret}\"]");
        return Err(fields.conflict("env", message));
    }
    fields.set("preload", &mut settings.preload, |field| {
        texts(field, is_module, "write a list of modules such as [\"numpy\"]")
    })?;
    fields.set("path", &mut settings.path, |field| {
        let example = "write a list of directories inside the function's own, such as [\"lib\"]";
        texts(field, is_inside, example)
    })?;
    match fields.take("requirements") {
        Some(field) => Err(field.refuse(
            "a later release installs requirements; install them into a directory of the function \
             (pip install --target lib -r requirements.txt) and write path = [\"lib\"]",
        )),
        None => Ok(()),
    }
}

/// Texts, and names of secrets.
fn read_env(field: Field, settings: &mut Settings) -> Result<(), SettingsError> {
    let example = "write a table such as { LEVEL = \"info\", TOKEN = { secret = \"TOKEN\" } }";
    for (name, value) in field.members(example)? {
        if !is_variable(&name) {
            return Err(value.refuse(example));
        }
        match &value.node.value {
            Value::Text(text) if !text.contains('\0') => {
                settings.env.insert(name, text.clone());
            }
            Value::Table(_) => {
                let mut table = Fields::of(value)?;
                let Some(secret) = table.take("secret") else {
                    return Err(table.missing("secret", "write { secret = \"TOKEN\" }"));
                };
                settings.secret_env.insert(name, parsed(&secret, "write the name of a secret")?);
                table.finish()?;
            }
            _ => return Err(value.refuse(example)),
        }
    }
    Ok(())
}

fn secrets(field: Field) -> Result<Vec<SecretName>, SettingsError> {
    let example = "write a list of names such as [\"STRIPE_KEY\"]";
    let too_many = field.refuse(format!("name at most {MOST_SECRETS}"));
    let mut names = Vec::new();
    for item in field.list(example)? {
        let name = parsed(&item, example)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > MOST_SECRETS { Err(too_many) } else { Ok(names) }
}

fn read_limits(mut table: Fields) -> Result<Limits, SettingsError> {
    let mut limits = Limits::default();
    table.set("body", &mut limits.body, |field| size(&field, BODY))?;
    table.set("response", &mut limits.response, |field| size(&field, BODY))?;
    table.set("logs", &mut limits.logs, |field| size(&field, ByteSize::b(0)..=ByteSize::mib(64)))?;
    table.finish()?;
    Ok(limits)
}

fn read_scaling(mut table: Fields) -> Result<Scaling, SettingsError> {
    let mut scaling = Scaling::default();
    table.set("min", &mut scaling.min, |field| field.whole(0..=10_000))?;
    table.set("max", &mut scaling.max, |field| field.whole(1..=10_000))?;
    table.set("idle", &mut scaling.idle, |field| {
        if matches!(&field.node.value, Value::Text(text) if text == "auto") {
            return Ok(IdleTime::Auto);
        }
        duration(&field, Duration::ZERO..=30 * DAY).map(IdleTime::After)
    })?;
    if let Some(field) = table.take("schedule") {
        scaling.schedule = read_schedule(field, scaling.max)?;
    }
    if scaling.min > scaling.max {
        let message =
            format!("min = {} is more than max = {}; lower one or raise the other", scaling.min, scaling.max);
        return Err(table.conflict("min", message));
    }
    table.finish()?;
    Ok(scaling)
}

fn read_schedule(field: Field, max: u32) -> Result<Vec<ScheduledFloor>, SettingsError> {
    let example = "write a list such as [{ cron = \"0 8 * * 1-5\", for = \"10h\", min = 4 }]";
    let too_many = field.refuse(format!("write at most {MOST_SCHEDULED}"));
    let items = field.list(example)?;
    if items.len() > MOST_SCHEDULED {
        return Err(too_many);
    }
    items.into_iter().map(|item| read_scheduled(item, max)).collect()
}

fn read_scheduled(item: Field, max: u32) -> Result<ScheduledFloor, SettingsError> {
    let mut table = Fields::of(item)?;
    let Some(cron) = table.take("cron") else {
        return Err(table.missing("cron", "write when it begins, such as cron = \"0 8 * * 1-5\""));
    };
    let cron = parsed(&cron, "write a cron expression such as \"0 8 * * 1-5\"")?;
    let Some(lasts) = table.take("for") else {
        return Err(table.missing("for", "write how long it lasts, such as for = \"10h\""));
    };
    let lasts = duration(&lasts, MINUTE..=DAY)?;
    let Some(min) = table.take("min") else {
        return Err(table.missing("min", "write how many workers are kept, such as min = 4"));
    };
    let min = min.whole(0..=max)?;
    table.finish()?;
    Ok(ScheduledFloor { cron, lasts, min })
}

fn read_latency(mut table: Fields, settings: &mut Settings) -> Result<(), SettingsError> {
    table.set("hedge", &mut settings.latency.hedge, |field| match &field.node.value {
        Value::Text(text) if text == "off" => Ok(Hedge::Off),
        Value::Text(text) if text == "auto" => Ok(Hedge::Auto),
        _ => match duration(&field, CALL_TIME) {
            Ok(delay) => Ok(Hedge::After(delay)),
            Err(_) => Err(field.refuse("write \"off\", \"auto\" or a delay such as \"30ms\"")),
        },
    })?;
    if let Some(mut fallback) = table.table("fallback")? {
        let stale =
            fallback.take("stale").map(|field| duration(&field, MILLISECOND..=30 * DAY)).transpose()?;
        let function = fallback.take("function");
        let function = function.map(|field| parsed(&field, "write the name of a function")).transpose()?;
        let either = "write either stale = \"5m\" or function = \"name\"";
        let not_both = fallback.conflict("stale", either.to_owned());
        fallback.finish()?;
        settings.latency.fallback = Some(match (stale, function) {
            (Some(age), None) => Fallback::Stale(age),
            (None, Some(name)) => Fallback::Function(name),
            _ => return Err(not_both),
        });
    }
    table.finish()
}

fn read_slo(mut table: Fields) -> Result<Slo, SettingsError> {
    let mut slo = Slo { availability: None, latency: None, window_days: 30 };
    table.set("availability", &mut slo.availability, |field| percent(&field).map(Some))?;
    if let Some(mut latency) = table.table("latency")? {
        let Some(under) = latency.take("under") else {
            return Err(latency.missing("under", "write under = \"250ms\""));
        };
        let under = duration(&under, CALL_TIME)?;
        let Some(share) = latency.take("percent") else {
            return Err(latency.missing("percent", "write percent = 99"));
        };
        slo.latency = Some(LatencyObjective { under, percent: percent(&share)? });
        latency.finish()?;
    }
    table
        .set("window", &mut slo.window_days, |field| word(&field, &[("7d", 7), ("28d", 28), ("30d", 30)]))?;
    if slo.availability.is_none() && slo.latency.is_none() {
        return Err(
            table.missing("availability", "write availability = 99.9, or latency, or leave [slo] out")
        );
    }
    table.finish()?;
    Ok(slo)
}

impl Quota {
    /// Reads a tenant's quota.
    pub fn from_json(json: &Json) -> Result<Self, SettingsError> {
        let mut fields = Fields::root(Node::from_json(json))?;
        let mut quota = read_call_quota(&mut fields)?;
        fields.set("memory", &mut quota.memory, |field| size(&field, MEMORY).map(Some))?;
        fields.set("code", &mut quota.code, |field| size(&field, CODE).map(Some))?;
        fields.set("history", &mut quota.history, |field| size(&field, HISTORY).map(Some))?;
        fields.set("history_rate", &mut quota.history_rate, rate)?;
        fields.set("weight", &mut quota.weight, |field| number(&field, WEIGHTS).map(Some))?;
        fields.finish()?;
        Ok(quota)
    }
}

/// The quotas that a function can have, too.
fn read_call_quota(fields: &mut Fields) -> Result<Quota, SettingsError> {
    let mut quota = Quota::default();
    let some = |field: Field| field.whole(1..=1_000_000).map(Some);
    fields.set("rate", &mut quota.rate, rate)?;
    fields.set("burst", &mut quota.burst, some)?;
    fields.set("concurrency", &mut quota.concurrency, some)?;
    fields.set("backlog", &mut quota.backlog, some)?;
    if quota.burst.is_some() && quota.rate.is_none() {
        return Err(fields.missing("rate", "burst goes with a rate; write rate = \"100/s\""));
    }
    Ok(quota)
}

fn rate(field: Field) -> Result<Option<Rate>, SettingsError> {
    parsed(&field, "write calls per time, such as \"100/s\"").map(Some)
}

pub(super) fn parsed<T: FromStr<Err: Display>>(field: &Field, example: &str) -> Result<T, SettingsError> {
    field.text(example)?.parse().map_err(|error: T::Err| field.refuse(error.to_string()))
}

pub(super) fn word<T: Copy>(field: &Field, words: &[(&str, T)]) -> Result<T, SettingsError> {
    let found = match &field.node.value {
        Value::Text(text) => words.iter().find(|(word, _)| word == text),
        _ => None,
    };
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        field.refuse(format!("write one of {}", words.join(", ")))
    })
}

fn duration(field: &Field, range: RangeInclusive<Duration>) -> Result<Duration, SettingsError> {
    let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
    let allowed = format!("write a time from {least} to {most} with its unit, such as \"30s\" or \"250ms\"");
    let duration = humantime::parse_duration(field.text(&allowed)?.trim()).ok();
    duration.filter(|duration| range.contains(duration)).ok_or_else(|| field.refuse(allowed))
}

fn size(field: &Field, range: RangeInclusive<ByteSize>) -> Result<ByteSize, SettingsError> {
    let (least, most) = (show_size(*range.start()), show_size(*range.end()));
    let size = match &field.node.value {
        Value::Integer(bytes) => u64::try_from(*bytes).ok().map(ByteSize),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    let allowed = || format!("write a size from {least} to {most}, such as \"64MiB\"");
    size.filter(|size| range.contains(size)).ok_or_else(|| field.refuse(allowed()))
}

fn number(field: &Field, range: RangeInclusive<f64>) -> Result<f64, SettingsError> {
    let allowed = format!("write a number from {} to {}", range.start(), range.end());
    let number = field.number(&allowed)?;
    if range.contains(&number) { Ok(number) } else { Err(field.refuse(allowed)) }
}

fn percent(field: &Field) -> Result<f64, SettingsError> {
    let allowed = "write a percentage above 0 and below 100, such as 99.9";
    let number = field.number(allowed)?;
    if number > 0.0 && number < 100.0 { Ok(number) } else { Err(field.refuse(allowed)) }
}

fn python_version(field: &Field) -> Result<String, SettingsError> {
    let allowed = "write a version of 3.10 or later as a text, such as \"3.11\"";
    let text = field.text(allowed)?;
    let minor = text.strip_prefix("3.").filter(|minor| minor.bytes().all(|b| b.is_ascii_digit()));
    match minor.and_then(|minor| minor.parse::<u8>().ok()) {
        Some(10..) => Ok(text.to_owned()),
        _ => Err(field.refuse(allowed)),
    }
}

fn texts(field: Field, valid: fn(&str) -> bool, example: &str) -> Result<Vec<String>, SettingsError> {
    let items = field.list(example)?;
    let text = |item: &Field| match item.text(example)? {
        text if valid(text) => Ok(text.to_owned()),
        _ => Err(item.refuse(example)),
    };
    items.iter().map(text).collect()
}

fn texts_by_name(
    field: Field,
    valid: fn(&str) -> bool,
    example: &str,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let member = |(key, value): (String, Field)| {
        let text = value.text(example)?;
        if !valid(&key) || text.contains('\0') {
            return Err(value.refuse(example));
        }
        let text = text.to_owned();
        Ok((key, text))
    };
    field.members(example)?.into_iter().map(member).collect()
}

/// A name that a shell could export.
fn is_variable(name: &str) -> bool {
    is_identifier(name) && name.is_ascii()
}

fn is_module(name: &str) -> bool {
    name.split('.').all(is_identifier)
}

/// Python's identifiers, as far as anybody writes them.
fn is_identifier(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    begins && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// A relative path that stays where it is.
pub(super) fn is_inside(path: &str) -> bool {
    let harmless = |part: &str| part != ".." && !part.contains(['\0', '\\']);
    !path.is_empty() && !path.starts_with('/') && path.split('/').all(harmless)
}

/// Why a text is not a handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// Not `file.py:callable`.
    #[error("write the handler as file.py:callable, such as handler.py:handler")]
    Shape,
    /// An absolute path, or one that leaves the function's directory.
    #[error("the handler's file must be inside the function's directory: no leading / and no ..")]
    Outside,
    /// The callable is no Python name.
    #[error("after the colon comes the name of a function, such as handler.py:handler")]
    Callable,
}

impl FromStr for Handler {
    type Err = HandlerError;
    fn from_str(text: &str) -> Result<Self, HandlerError> {
        let (file, callable) = text.rsplit_once(':').ok_or(HandlerError::Shape)?;
        if !file.ends_with(".py") || file.len() <= ".py".len() {
            return Err(HandlerError::Shape);
        }
        if !is_inside(file) {
            return Err(HandlerError::Outside);
        }
        if !is_identifier(callable) {
            return Err(HandlerError::Callable);
        }
        Ok(Self { file: file.into(), callable: callable.into() })
    }
}
