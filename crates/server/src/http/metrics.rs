//! `GET /metrics`: OpenMetrics text, made from the books at each scrape.
//!
//! Nothing is counted here; counters belong to `slo`, `pool` and `history`, which never sample
//! them. Labels are bounded by the number of functions: no path, id or message is ever one.
//!
//! A tenant sees its own functions and nothing of the platform as a whole, whose figures say what
//! others do; the operator sees all tenants' at once, unless they act for one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fp_core::code::Code;
use fp_core::hedge::NotHedged;
use fp_core::{Scope, Tenant};
use http::header::CONTENT_TYPE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::problem::Problem;
use crate::app::App;
use crate::catalog::{Deployed, HealthView};
use crate::history::DiskState;
use crate::notify::Counts;
use crate::slo::{DurationCounts, FunctionView, HedgeCounts, SloView};

/// The media type of OpenMetrics 1.0, which Prometheus prefers.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn routes() -> UtoipaMethodRouter<Arc<App>> {
    routes!(get_metrics)
}

/// Read the metrics.
///
/// Calls by function and outcome, latencies, workers, objectives and history, as OpenMetrics
/// text for Prometheus. The operator gets those of every tenant and of the platform as a whole.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "platform",
    responses((
        status = 200,
        description = "OpenMetrics text",
        body = String,
        content_type = "application/openmetrics-text",
    ))
)]
async fn get_metrics(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let mut registry = Registry::with_prefix("functionsplatform");
    registry.register_collector(Box::new(Snapshot::of(&app, &caller)));
    let mut body = String::new();
    text::encode(&mut body, &registry)
        .map_err(|_| Problem::new(Code::PlatformError, "the metrics cannot be written as text"))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], body).into_response())
}

/// Everything that is exported, at one moment.
#[derive(Debug)]
struct Snapshot {
    functions: Vec<FunctionSample>,
    workers: Vec<WorkerSample>,
    running: i64,
    /// For the operator only.
    history: Option<HistorySample>,
    started_seconds: f64,
}

#[derive(Debug)]
struct WorkerSample {
    tenant: Tenant,
    function: String,
    state: &'static str,
    count: i64,
}

#[derive(Debug)]
struct HistorySample {
    on_disk: i64,
    dropped: u64,
    sampled_out: u64,
    ring_bytes: i64,
    disk_bytes: i64,
    connections_refused: u64,
    audit_lost: u64,
    service_spans: [u64; 3],
    notifications: Vec<Counts>,
}

#[derive(Debug)]
struct FunctionSample {
    tenant: Tenant,
    name: String,
    view: FunctionView,
    slo: Option<SloView>,
    durations: DurationCounts,
    refused: BTreeMap<Code, u64>,
    /// None where no call could have had a second attempt.
    hedges: Option<HedgeCounts>,
    health: HealthView,
}

/// Edges of the duration histogram, in milliseconds: three a decade from the warm path's
/// millisecond to the default timeout. A latency objective's threshold is one more.
const EDGES_MS: [u64; 15] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

fn edges(slo: Option<&SloView>) -> Vec<Duration> {
    let mut edges: Vec<_> = EDGES_MS.iter().copied().map(Duration::from_millis).collect();
    let threshold = slo.and_then(|slo| slo.latency.as_ref());
    edges.extend(threshold.map(|latency| Duration::from_secs_f64(latency.under_ms / 1e3)));
    edges.sort();
    edges.dedup();
    edges
}

impl Snapshot {
    fn of(app: &App, caller: &Caller) -> Self {
        let tenants = caller.tenants(app);
        let running = tenants.iter().map(|tenant| app.history.running_of(tenant)).sum::<usize>();
        Self {
            functions: tenants.iter().flat_map(|tenant| functions_of(app, tenant)).collect(),
            workers: tenants.iter().flat_map(|tenant| count_workers(app, tenant)).collect(),
            running: running as i64,
            history: caller.sees_all().then(|| HistorySample::of(app)),
            started_seconds: app.started_us as f64 / 1e6,
        }
    }

    fn encode_calls(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let kind = MetricType::Counter;
        let mut calls =
            encoder.encode_descriptor("calls", "Calls that have ended, by outcome", None, kind)?;
        for function in &self.functions {
            for count in &function.view.outcomes {
                let (tenant, name) = (function.tenant.as_str(), function.name.as_str());
                let labels = [("tenant", tenant), ("function", name), ("outcome", count.outcome)];
                ConstCounter::new(count.total).encode(calls.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_refused(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Callers that a function did not let in, by code; they are no calls";
        let mut refused = encoder.encode_descriptor("callers_refused", help, None, MetricType::Counter)?;
        for function in &self.functions {
            for (code, count) in &function.refused {
                let (tenant, name) = (function.tenant.as_str(), function.name.as_str());
                let labels = [("tenant", tenant), ("function", name), ("code", code.word())];
                ConstCounter::new(*count).encode(refused.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_hedges(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let kind = MetricType::Counter;
        let counts = |sample: &'_ FunctionSample| {
            let FunctionSample { tenant, name, hedges, .. } = sample;
            hedges.map(|counts| (tenant.to_string(), name.clone(), counts))
        };
        let counts: Vec<_> = self.functions.iter().filter_map(counts).collect();
        let help = "Second attempts at calls that ran long, by whether they answered instead of the first";
        let mut hedges = encoder.encode_descriptor("hedges", help, None, kind)?;
        for (tenant, name, counts) in &counts {
            for (won, count) in [("true", counts.won), ("false", counts.started - counts.won)] {
                let labels = [("tenant", tenant.as_str()), ("function", name.as_str()), ("won", won)];
                ConstCounter::new(count).encode(hedges.encode_family(&labels)?)?;
            }
        }
        let help = "Calls of functions that may hedge which had no second attempt, by reason";
        let mut none = encoder.encode_descriptor("calls_not_hedged", help, None, kind)?;
        for (tenant, name, counts) in &counts {
            for (reason, count) in NotHedged::WORDS.into_iter().zip(counts.not) {
                let labels = [("tenant", tenant.as_str()), ("function", name.as_str()), ("reason", reason)];
                ConstCounter::new(count).encode(none.encode_family(&labels)?)?;
            }
        }
        let help = "Time that second attempts saved, reckoned from how long such calls took before";
        let mut saved = encoder.encode_descriptor("hedges_saved", help, Some(&Unit::Seconds), kind)?;
        for (tenant, name, counts) in &counts {
            let labels = [("tenant", tenant.as_str()), ("function", name.as_str())];
            ConstCounter::new(counts.saved.as_secs_f64()).encode(saved.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_health(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "1 while the breaker of a function's version refuses calls but for probes";
        let mut open = encoder.encode_descriptor("breaker_open", help, None, MetricType::Gauge)?;
        for FunctionSample { tenant, name, health, .. } in &self.functions {
            let labels = [("tenant", tenant.as_str()), ("function", name.as_str())];
            ConstGauge::new(i64::from(health.is_open)).encode(open.encode_family(&labels)?)?;
        }
        let help = "Times that the breaker of a function's live version has opened";
        let mut opened = encoder.encode_descriptor("breaker_opened", help, None, MetricType::Counter)?;
        for FunctionSample { tenant, name, health, .. } in &self.functions {
            let labels = [("tenant", tenant.as_str()), ("function", name.as_str())];
            ConstCounter::new(health.opened).encode(opened.encode_family(&labels)?)?;
        }
        let help = "Workers of a function's live version that were replaced because they stood out";
        let mut replaced = encoder.encode_descriptor("workers_replaced", help, None, MetricType::Counter)?;
        for FunctionSample { tenant, name, health, .. } in &self.functions {
            let labels = [("tenant", tenant.as_str()), ("function", name.as_str())];
            ConstCounter::new(health.replaced).encode(replaced.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_durations(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Durations of the calls that reached a handler";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
        let mut durations = encoder.encode_descriptor("call_duration", help, unit, kind)?;
        for FunctionSample { tenant, name, durations: counts, .. } in &self.functions {
            let up_to = counts.up_to.iter().map(|(edge, count)| (edge.as_secs_f64(), *count));
            let buckets: Vec<_> = up_to.chain([(f64::INFINITY, counts.above)]).collect();
            let all = buckets.iter().map(|(_, count)| count).sum();
            let labels = [("tenant", tenant.as_str()), ("function", name.as_str())];
            let mut family = durations.encode_family(&labels)?;
            family.encode_histogram::<NoLabelSet>(counts.sum.as_secs_f64(), all, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_quantiles(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Durations of the calls of the last five minutes, by quantile";
        let (name, kind) = ("call_duration_quantile", MetricType::Gauge);
        let mut durations = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        for FunctionSample { tenant, name, view, .. } in &self.functions {
            let quantiles =
                [("0.5", view.p50_ms), ("0.9", view.p90_ms), ("0.99", view.p99_ms), ("0.999", view.p99_9_ms)];
            for (quantile, milliseconds) in quantiles {
                let Some(milliseconds) = milliseconds else { continue };
                let labels =
                    [("tenant", tenant.as_str()), ("function", name.as_str()), ("quantile", quantile)];
                ConstGauge::new(milliseconds / 1e3).encode(durations.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_objectives(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Share of the error budget that is left: 1 untouched, below 0 overspent";
        let kind = MetricType::Gauge;
        let unit = Unit::Other("ratio".to_owned());
        let mut budgets = encoder.encode_descriptor("slo_budget_left", help, Some(&unit), kind)?;
        for (tenant, name, slo) in self.objectives() {
            let latency = slo.latency.as_ref().map(|latency| latency.budget_left);
            for (objective, left) in [("availability", slo.budget_left), ("latency", latency)] {
                let Some(left) = left else { continue };
                let labels = [("tenant", tenant), ("function", name), ("objective", objective)];
                ConstGauge::new(left).encode(budgets.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_burn_rates(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Burn rate by window: 1 spends the budget exactly in the objective's window";
        let mut rates = encoder.encode_descriptor("slo_burn_rate", help, None, MetricType::Gauge)?;
        for (tenant, name, slo) in self.objectives() {
            for burn in &slo.burn {
                for (objective, rate) in [("availability", burn.availability), ("latency", burn.latency)] {
                    let Some(rate) = rate else { continue };
                    let labels = [
                        ("tenant", tenant),
                        ("function", name),
                        ("objective", objective),
                        ("window", burn.window),
                    ];
                    ConstGauge::new(rate).encode(rates.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn objectives(&self) -> impl Iterator<Item = (&str, &str, &SloView)> {
        self.functions
            .iter()
            .filter_map(|sample| Some((sample.tenant.as_str(), sample.name.as_str(), sample.slo.as_ref()?)))
    }

    fn encode_workers(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut workers =
            encoder.encode_descriptor("workers", "Workers that live now, by state", None, kind)?;
        for WorkerSample { tenant, function, state, count } in &self.workers {
            let labels = [("tenant", tenant.as_str()), ("function", function.as_str()), ("state", state)];
            ConstGauge::new(*count).encode(workers.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_running(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Calls that have not ended";
        let running = encoder.encode_descriptor("calls_running", help, None, MetricType::Gauge)?;
        ConstGauge::new(self.running).encode(running)
    }

    fn encode_history(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let Some(history) = &self.history else { return Ok(()) };
        let gauges = [
            ("history_on_disk", "1 while history reaches the disk", None, history.on_disk),
            ("history_ring", "Memory of the history ring in use", Some(&Unit::Bytes), history.ring_bytes),
            ("history_disk", "Size of the history on disk", Some(&Unit::Bytes), history.disk_bytes),
        ];
        for (name, help, unit, value) in gauges {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)?;
        }
        let [kept, rejected, turned_away] = history.service_spans;
        let counters = [
            ("service_spans", "Spans of services that were kept", kept),
            ("service_spans_rejected", "Spans of services that cannot be any", rejected),
            (
                "service_requests_turned_away",
                "Requests with spans of services that there was no room, turn or disk for",
                turned_away,
            ),
            ("history_dropped", "Records that were to be kept on disk and were lost", history.dropped),
            ("history_sampled_out", "Records that sampling left out", history.sampled_out),
            (
                "connections_refused",
                "Connections that were closed because their address had too many",
                history.connections_refused,
            ),
            ("audit_lost", "Records that the audit log had no room for", history.audit_lost),
        ];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let help = "Requests to those who are told of alerts, by whether they took them";
        let mut told = encoder.encode_descriptor("notifications", help, None, MetricType::Counter)?;
        for Counts { name, sent, failed } in &history.notifications {
            for (result, count) in [("sent", sent), ("failed", failed)] {
                let labels = [("to", name.as_str()), ("result", result)];
                ConstCounter::new(*count).encode(told.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.encode_calls(&mut encoder)?;
        self.encode_refused(&mut encoder)?;
        self.encode_hedges(&mut encoder)?;
        self.encode_health(&mut encoder)?;
        self.encode_durations(&mut encoder)?;
        self.encode_quantiles(&mut encoder)?;
        self.encode_objectives(&mut encoder)?;
        self.encode_burn_rates(&mut encoder)?;
        self.encode_workers(&mut encoder)?;
        self.encode_running(&mut encoder)?;
        self.encode_history(&mut encoder)?;
        let help = "When the platform started, Unix time";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Gauge);
        let started = encoder.encode_descriptor("start_time", help, unit, kind)?;
        ConstGauge::new(self.started_seconds).encode(started)
    }
}

impl HistorySample {
    fn of(app: &App) -> Self {
        let history = app.history.status();
        Self {
            on_disk: i64::from(history.disk == DiskState::On),
            dropped: history.dropped,
            sampled_out: history.sampled_out,
            ring_bytes: history.ring_bytes as i64,
            disk_bytes: history.disk_bytes as i64,
            connections_refused: app.connections.refused(),
            audit_lost: app.audit.lost(),
            service_spans: app.otlp.counts(),
            notifications: app.notifier.counts(),
        }
    }
}

fn functions_of(app: &App, tenant: &Tenant) -> Vec<FunctionSample> {
    let (now, wall_us) = (app.clock.now(), app.clock.wall_now_us());
    let sample = |function: Arc<Deployed>| {
        let book = app.slo.get(tenant, &function.name)?;
        let (name, slo) = (function.name.to_string(), book.slo(wall_us));
        let durations = book.durations(&edges(slo.as_ref()));
        let (view, refused, hedges) = (book.view(now), book.refusals(), book.hedge_counts());
        let (tenant, health) = (tenant.clone(), function.health());
        Some(FunctionSample { tenant, name, view, slo, durations, refused, hedges, health })
    };
    app.catalog.list(tenant).into_iter().filter_map(sample).collect()
}

fn count_workers(app: &App, tenant: &Tenant) -> Vec<WorkerSample> {
    let mut counts = BTreeMap::new();
    for worker in app.invoker.workers(tenant) {
        *counts.entry((worker.function, worker.state)).or_insert(0) += 1;
    }
    let sample = |((function, state), count): ((fp_core::FunctionName, _), _)| WorkerSample {
        tenant: tenant.clone(),
        function: function.to_string(),
        state,
        count,
    };
    counts.into_iter().map(sample).collect()
}
