//! A function's page: what it promises, whether it keeps it, and what its time goes to.

use askama::Template;
use fp_core::SecretName;
use fp_core::record::Phases;
use fp_core::settings::{Auth, Fallback, Handler, Hedge, Idempotency, IdleTime, Settings};

use super::anatomy::{self, Anatomy, PHASES};
use super::calls::CallsTable;
use super::chart::{
    CallsChart, CapacityChart, LatencyChart, Minute, calls_chart, capacity_chart, latency_chart, queue_chart,
    tenths,
};
use super::overview::{minutes, try_line};
use super::parts::{Badge, Command, EventWords, Meter, Pair, Stat, budget_tone};
use super::shell::Shell;
use super::text::{self, Moment};
use super::workers::{Worker, WorkersTable};
use crate::catalog::HealthView;
use crate::history::Entry;
use crate::slo::{FunctionView, HedgeCounts, LatencySloView, SloView};

/// What the page is made of.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) events: Vec<String>,
    pub(super) created_us: u64,
    pub(super) deployed_us: u64,
    pub(super) code_hash: String,
    pub(super) handler: &'a Handler,
    pub(super) settings: &'a Settings,
    /// Path and bytes of each file.
    pub(super) files: Vec<(String, u64)>,
    pub(super) view: FunctionView,
    pub(super) slo: Option<SloView>,
    /// None where no call could have had a second attempt.
    pub(super) hedges: Option<HedgeCounts>,
    pub(super) health: HealthView,
    pub(super) workers: Vec<Worker>,
    /// Phases of recent calls.
    pub(super) phases: Vec<Phases>,
    pub(super) slowest: Vec<Entry>,
    pub(super) failed: Vec<Entry>,
    /// Start of the view's current minute.
    pub(super) minute_us: u64,
    pub(super) now_us: u64,
}

/// A minute in the charts' table.
#[derive(Debug)]
pub(super) struct MinuteRow {
    pub(super) time: String,
    pub(super) calls: String,
    pub(super) bad: String,
    pub(super) p99: String,
    pub(super) wait: String,
    pub(super) workers: String,
    pub(super) busy: String,
}

/// An outcome's counts.
#[derive(Debug)]
pub(super) struct OutcomeRow {
    pub(super) badge: Badge,
    /// Of the outcome above it, those that ended so for this reason.
    pub(super) reason: Option<String>,
    pub(super) hour: String,
    pub(super) total: String,
}

/// A file of the code.
#[derive(Debug)]
pub(super) struct FileRow {
    pub(super) path: String,
    pub(super) size: String,
}

/// An alert in words.
#[derive(Debug)]
pub(super) struct AlertWords {
    pub(super) text: String,
    pub(super) tone: &'static str,
}

/// One objective.
#[derive(Debug)]
pub(super) struct ObjectiveLine {
    pub(super) name: String,
    pub(super) target: String,
    pub(super) attained: String,
    pub(super) tone: &'static str,
    pub(super) budget: Meter,
    pub(super) budget_words: Option<String>,
    pub(super) good: String,
    pub(super) bad: String,
    pub(super) excluded: String,
    pub(super) cancelled: String,
}

/// A burn rate.
#[derive(Debug)]
pub(super) struct BurnCell {
    pub(super) text: String,
    pub(super) tone: &'static str,
}

/// The burn rates of one objective.
#[derive(Debug)]
pub(super) struct BurnLine {
    pub(super) name: &'static str,
    pub(super) cells: Vec<BurnCell>,
}

/// The objectives' state.
#[derive(Debug)]
pub(super) struct SloWords {
    pub(super) window: String,
    pub(super) alerts: Vec<AlertWords>,
    pub(super) lines: Vec<ObjectiveLine>,
    pub(super) burn_windows: Vec<&'static str>,
    pub(super) burn: Vec<BurnLine>,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "function.html")]
pub(super) struct FunctionPage {
    shell: Shell,
    name: String,
    version: String,
    created: Moment,
    deployed: Moment,
    events: Vec<EventWords>,
    try_it: Option<Command>,
    stats: Vec<Stat>,
    care: Vec<Stat>,
    calls_chart: CallsChart,
    latency_chart: LatencyChart,
    capacity_chart: CapacityChart,
    queue_chart: LatencyChart,
    minutes: Vec<MinuteRow>,
    phases: [&'static str; 5],
    anatomy: Option<Anatomy>,
    slo: Option<SloWords>,
    has_objective: bool,
    slo_hint: Command,
    calls_link: String,
    failed_link: String,
    slowest: CallsTable,
    failed: CallsTable,
    outcomes: Vec<OutcomeRow>,
    workers: WorkersTable,
    settings: Vec<Pair>,
    handler: String,
    code_hash: String,
    files: Vec<FileRow>,
}

/// Makes the page.
pub(super) fn page(shell: Shell, input: &Input<'_>) -> FunctionPage {
    let hour = minutes(&input.view, input.minute_us);
    let objective_ms = input.slo.as_ref().and_then(|slo| Some(slo.latency.as_ref()?.under_ms));
    let table = |label, entries| CallsTable::new(label, entries, false, &shell, input.now_us);
    let calls_link = format!("/ui/invocations?function={}", input.name);
    let line = input.events.iter().find_map(|event| try_line(&shell.gateway, event));
    FunctionPage {
        name: input.name.clone(),
        version: format!("version {}", input.version),
        created: text::moment(input.created_us, input.now_us),
        deployed: text::moment(input.deployed_us, input.now_us),
        events: input.events.iter().map(|event| EventWords::of(event)).collect(),
        try_it: line.map(|line| Command { label: "call this function", line }),
        stats: stats(&input.view, objective_ms),
        care: care(input.hedges.as_ref(), &input.health),
        calls_chart: calls_chart("calls", &hour),
        latency_chart: latency_chart("latency", &hour, objective_ms),
        capacity_chart: capacity_chart("capacity", &hour),
        queue_chart: queue_chart("queue", &hour),
        minutes: hour
            .iter()
            .rev()
            .filter(|minute| minute.calls > 0 || minute.workers > 0.0)
            .map(minute_row)
            .collect(),
        phases: PHASES,
        anatomy: anatomy::anatomy(&input.phases),
        slo: input.slo.as_ref().map(slo_words),
        has_objective: input.settings.slo.is_some(),
        slo_hint: Command {
            label: "an objective for function.toml",
            line: "[slo]\navailability = 99.9\nlatency = { under = \"250ms\", percent = 99 }".into(),
        },
        failed_link: format!("{calls_link}&outcome=failed"),
        calls_link,
        slowest: table("Slowest calls", &input.slowest),
        failed: table("Failed calls", &input.failed),
        outcomes: outcome_rows(&input.view),
        workers: WorkersTable::new(&input.workers, false, &shell, input.now_us),
        settings: settings(input.settings),
        handler: format!("{}:{}", input.handler.file, input.handler.callable),
        code_hash: input.code_hash.clone(),
        files: input.files.iter().map(file_row).collect(),
        shell: shell.titled(&input.name),
    }
}

/// What the platform did for its tail.
fn care(hedges: Option<&HedgeCounts>, health: &HealthView) -> Vec<Stat> {
    let mut stats = Vec::new();
    if let Some(HedgeCounts { calls, started, won, saved, .. }) = hedges {
        let share = if *calls == 0 { 0.0 } else { *started as f64 / *calls as f64 };
        let of_calls = format!("{} of calls", text::share(share));
        stats.push(Stat::new("Second attempts", text::count(*started), of_calls));
        stats.push(Stat::new("Answered first", text::count(*won), "of them"));
        let saved = text::duration(u64::try_from(saved.as_nanos()).unwrap_or(u64::MAX));
        stats.push(Stat::new("Saved", saved, "waiting, in all"));
    }
    let HealthView { is_open, opened, replaced } = *health;
    let (word, tone) = if is_open { ("open", "bad") } else { ("closed", "plain") };
    let times = if opened == 0 {
        "never opened".to_owned()
    } else {
        format!("opened {}", text::plural(opened, "time"))
    };
    stats.push(Stat::new("Breaker", word, times).toned(tone));
    stats.push(Stat::new("Replaced", text::count(replaced), "workers that stood out"));
    stats
}

fn stats(view: &FunctionView, objective_ms: Option<f64>) -> Vec<Stat> {
    let ms = |value: Option<f64>| value.map_or_else(|| "–".into(), text::milliseconds);
    let over = view.p99_ms.zip(objective_ms).is_some_and(|(p99, limit)| p99 > limit);
    let p99_note = match objective_ms {
        Some(limit) => format!("objective {}", text::milliseconds(limit)),
        None => "last 5 minutes".into(),
    };
    let warm = match view.warm_p50_ms {
        Some(warm) => format!("warm {}", text::milliseconds(warm)),
        None => "last 5 minutes".into(),
    };
    vec![
        Stat::new("Calls", text::rate(view.rate_per_second), format!("{} in all", text::count(view.calls))),
        Stat::new("Bad", text::percent(view.error_ratio), "last hour").toned(if view.error_ratio > 0.0 {
            "bad"
        } else {
            "plain"
        }),
        Stat::new("p50", ms(view.p50_ms), warm),
        Stat::new("p90", ms(view.p90_ms), "last 5 minutes"),
        Stat::new("p99", ms(view.p99_ms), p99_note).toned(if over { "bad" } else { "plain" }),
        Stat::new("p99.9", ms(view.p99_9_ms), format!("slowest {}", ms(view.max_ms))),
        Stat::new("Cold", text::percent(view.cold_share), "last hour"),
    ]
}

fn minute_row(minute: &Minute) -> MinuteRow {
    let ms = |value: Option<f64>| value.map_or_else(|| "–".into(), text::milliseconds);
    MinuteRow {
        time: text::clock_time(minute.at_us).chars().take(5).collect(),
        calls: text::count(minute.calls),
        bad: text::count(minute.errors),
        p99: ms(minute.p99_ms),
        wait: ms(minute.queue_p99_ms),
        workers: tenths(minute.workers),
        busy: tenths(minute.demand),
    }
}

/// Each outcome, and below it its reasons where it has some.
fn outcome_rows(view: &FunctionView) -> Vec<OutcomeRow> {
    let row = |outcome, reason: Option<&str>, hour, total| OutcomeRow {
        badge: Badge::word(outcome),
        reason: reason.map(|word| word.replace('_', " ")),
        hour: text::count(hour),
        total: text::count(total),
    };
    let mut rows = Vec::new();
    for count in &view.outcomes {
        let reasons = || view.reasons.iter().filter(|reason| reason.outcome == count.outcome);
        if reasons().next().is_none() {
            rows.push(row(count.outcome, None, count.last_hour, count.total));
        }
        rows.extend(reasons().map(|it| row(it.outcome, Some(it.reason), it.last_hour, it.total)));
    }
    rows
}

fn file_row((path, size): &(String, u64)) -> FileRow {
    FileRow { path: path.clone(), size: text::bytes(*size) }
}

fn slo_words(slo: &SloView) -> SloWords {
    let availability = slo.availability.map(|target| availability_line(slo, target));
    let latency = slo.latency.as_ref().map(latency_line);
    let line = |name, value: fn(&crate::slo::BurnRate) -> Option<f64>| BurnLine {
        name,
        cells: slo.burn.iter().map(|rate| burn_cell(value(rate))).collect(),
    };
    let mut burn = Vec::new();
    if availability.is_some() {
        burn.push(line("availability", |rate| rate.availability));
    }
    if latency.is_some() {
        burn.push(line("latency", |rate| rate.latency));
    }
    SloWords {
        window: format!("{} days", slo.window_days),
        alerts: slo.alerts.iter().map(alert_words).collect(),
        lines: availability.into_iter().chain(latency).collect(),
        burn_windows: slo.burn.iter().map(|rate| rate.window).collect(),
        burn,
    }
}

fn availability_line(slo: &SloView, target: f64) -> ObjectiveLine {
    let left = slo.budget_left.unwrap_or(1.0);
    ObjectiveLine {
        name: "availability".into(),
        target: format!("{}%", text::plain(target)),
        attained: attained(slo.attained),
        tone: budget_tone(left),
        budget: Meter::budget(left),
        budget_words: slo
            .budget_seconds_left
            .filter(|seconds| *seconds > 0.0)
            .map(|seconds| format!("{} of full outage", text::duration((seconds * 1e9) as u64))),
        good: text::count(slo.good),
        bad: text::count(slo.bad),
        excluded: text::count(slo.excluded),
        cancelled: text::count(slo.cancelled),
    }
}

fn latency_line(latency: &LatencySloView) -> ObjectiveLine {
    ObjectiveLine {
        name: format!("under {}", text::milliseconds(latency.under_ms)),
        target: format!("{}%", text::plain(latency.percent)),
        attained: attained(latency.attained),
        tone: budget_tone(latency.budget_left),
        budget: Meter::budget(latency.budget_left),
        budget_words: None,
        good: text::count(latency.good),
        bad: text::count(latency.bad),
        excluded: "–".into(),
        cancelled: "–".into(),
    }
}

fn attained(percent: Option<f64>) -> String {
    percent.map_or_else(|| "no calls".into(), |percent| text::percent(percent / 100.0))
}

fn burn_cell(burn: Option<f64>) -> BurnCell {
    // 6× and 14.4× are the paging factors of the multi-window table (TAIL, SRE workbook).
    let tone = match burn {
        Some(burn) if burn >= 6.0 => "bad",
        Some(burn) if burn > 1.0 => "warn",
        Some(_) => "plain",
        None => "quiet",
    };
    let text = match burn {
        Some(burn) if burn >= 10.0 => format!("{burn:.0}×"),
        Some(burn) => format!("{burn:.1}×"),
        None => "–".into(),
    };
    BurnCell { text, tone }
}

fn alert_words(alert: &crate::slo::AlertView) -> AlertWords {
    AlertWords {
        text: format!(
            "{}: {} burns {:.1}× over {} and {} (limit {}×)",
            alert.severity,
            alert.objective,
            alert.burn,
            alert.long,
            alert.short,
            text::plain(alert.factor)
        ),
        tone: if alert.severity == "page" { "bad" } else { "warn" },
    }
}

/// The settings that are set apart from a default that everybody knows, and the limits.
fn settings(settings: &Settings) -> Vec<Pair> {
    let duration = |value: std::time::Duration| humantime::format_duration(value).to_string();
    let size = |value: bytesize::ByteSize| text::bytes(value.as_u64());
    let variables = settings.env.keys().chain(settings.secret_env.keys()).cloned().collect::<Vec<_>>();
    let labels =
        settings.labels.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ");
    let scaling = &settings.scaling;
    let pairs = [
        ("timeout", duration(settings.timeout)),
        ("memory", size(settings.memory)),
        ("tasks", settings.tasks.to_string()),
        ("cpu weight", text::plain(settings.cpu)),
        ("cpu limit", settings.cpu_limit.map(text::plain).unwrap_or_default()),
        ("python", settings.python.clone().unwrap_or_default()),
        ("concurrency", format!("{} per worker", settings.concurrency)),
        ("workers", format!("{} to {}", scaling.min, scaling.max)),
        ("idle workers are kept", idle(scaling.idle)),
        ("network", word(&settings.network)),
        ("visibility", word(&settings.visibility)),
        ("callers are let in by", auth(&settings.auth)),
        ("criticality", word(&settings.criticality)),
        ("idempotent", idempotent(settings.idempotent)),
        ("when the caller leaves", word(&settings.on_disconnect)),
        ("hedging", hedge(settings.latency.hedge)),
        ("fallback", settings.latency.fallback.as_ref().map(fallback).unwrap_or_default()),
        ("largest request", size(settings.limits.body)),
        ("largest answer", size(settings.limits.response)),
        ("logs per call", size(settings.limits.logs)),
        ("environment variables", variables.join(", ")),
        ("secrets", settings.secrets.iter().map(SecretName::as_str).collect::<Vec<_>>().join(", ")),
        ("preload", settings.preload.join(", ")),
        ("path", settings.path.join(", ")),
        ("labels", labels),
    ];
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| Pair::new(key, value))
        .collect()
}

/// The word that a setting's value has in function.toml.
fn word(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

/// What lets a caller in, as `[auth]` names it; nothing where everybody is.
fn auth(auth: &Auth) -> String {
    let ways = [
        auth.key.then(|| "a key".to_owned()),
        auth.hmac.as_ref().map(|hmac| format!("a signature in {} with {}", hmac.header, hmac.secret)),
        auth.jwt.as_ref().map(|jwt| format!("a token of {}", jwt.issuer)),
    ];
    ways.into_iter().flatten().collect::<Vec<_>>().join(", or ")
}

fn idle(idle: IdleTime) -> String {
    match idle {
        IdleTime::Auto => "as long as it pays".into(),
        IdleTime::After(time) if time.is_zero() => "never: one call per worker".into(),
        IdleTime::After(time) => humantime::format_duration(time).to_string(),
    }
}

fn idempotent(idempotent: Idempotency) -> String {
    match idempotent {
        Idempotency::ByVerb => "GET, HEAD and OPTIONS",
        Idempotency::Always => "every call",
        Idempotency::Never => "no call",
        Idempotency::WithKey => "calls with an Idempotency-Key",
    }
    .into()
}

fn hedge(hedge: Hedge) -> String {
    match hedge {
        Hedge::Off => "off".into(),
        Hedge::Auto => "auto".into(),
        Hedge::After(delay) => format!("after {}", humantime::format_duration(delay)),
    }
}

fn fallback(fallback: &Fallback) -> String {
    match fallback {
        Fallback::Function(name) => format!("function {name}"),
        Fallback::Stale(age) => format!("last good answer, up to {}", humantime::format_duration(*age)),
    }
}
