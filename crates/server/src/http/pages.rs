//! Pages for people: the dashboard on the API's port and the traces on theirs.
//!
//! Server-rendered: a handler gathers what a page needs from the rooms below, a pure function
//! makes a struct of it, and the struct's template makes the HTML. Templates see words, never
//! the rooms' types. Everything works without a script; the script adds refreshing, shortcuts,
//! copying and local time. Nothing on a page comes from another host, and the content security
//! policy allows neither inline scripts nor inline styles.

mod anatomy;
mod assets;
mod calls;
mod chart;
mod failures;
mod filter;
mod function;
mod invocation;
mod invocations;
mod message;
mod overview;
mod parts;
mod question;
#[cfg(test)]
mod samples;
mod shell;
#[cfg(test)]
mod tests;
mod text;
mod trace;
mod traces;
mod waterfall;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use fp_core::{FunctionName, InvocationId, Scope, Tenant, TraceId};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

pub(crate) use self::assets::css_link;
use self::filter::Fields;
use self::message::WayOn;
pub(crate) use self::shell::Port;
use self::shell::Shell;
use crate::app::App;
use crate::catalog::Deployed;
use crate::history::{Entry, Filter, Lookup};
use crate::http::caller::Caller;
use crate::http::problem::Problem;
use crate::invoke::WorkerView;

/// What pages may load and do: their own style, script, images and requests, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Calls that a function's anatomy looks at: enough for ten at or above the 99th percentile.
const ANATOMY_CALLS: usize = 1_000;
/// Rows of a small table of calls.
const FEW: usize = 8;
/// Function names that a filter suggests; a longer list is no help.
const SUGGESTED: usize = 200;
const HOUR_US: u64 = 3_600_000_000;

/// The dashboard: `/`, `/ui/…` and `/static/…` of the management API's port.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(show_overview))
        .route("/ui", get(|| async { Redirect::permanent("/") }))
        .route("/ui/functions/{name}", get(show_function))
        .route("/ui/invocations", get(list_invocations))
        .route("/ui/invocations/{id}", get(show_invocation))
        .route("/ui/query", get(ask))
        .route("/ui/workers", get(list_workers))
        .with_state(app)
        .layer(map_response(protect))
        .merge(assets::router())
}

/// The trace pages: `/`, `/search`, `/trace/{id}` and `/static/…` of the traces' port.
pub fn traces_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(search_traces))
        .route("/search", get(search_traces))
        .route("/trace", get(open_trace))
        .route("/trace/{id}", get(show_trace))
        .with_state(app)
        .layer(map_response(protect))
        .merge(assets::router())
}

pub(crate) async fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Debug, Default, Deserialize)]
struct OverviewQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    page: String,
}

async fn show_overview(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    query: Result<Query<OverviewQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let tenant = caller.tenant.clone();
    let shell = Shell::of(&app, &caller, &headers, Port::Api, "Overview");
    let all = app.catalog.list(&tenant);
    let wanted = query.q.trim().to_lowercase();
    let matching: Vec<_> = all.iter().filter(|function| matches(function, &wanted)).collect();
    let last_page = matching.len().saturating_sub(1) / overview::PAGE;
    let page = query.page.parse::<usize>().unwrap_or(1).saturating_sub(1).min(last_page);
    let workers = app.invoker.workers(&tenant);
    let shown = matching.iter().skip(page * overview::PAGE).take(overview::PAGE);
    let functions: Vec<_> = shown.map(|function| summary(&app, function, &workers)).collect();
    let words = failures_of(functions.iter().flat_map(|function| &function.view.outcomes));
    let now_us = app.clock.wall_now_us();
    let few = Filter { limit: FEW, ..Filter::default() };
    let last_hour = Filter { since_us: Some(now_us.saturating_sub(HOUR_US)), ..few.clone() };
    let input = overview::Input {
        functions,
        matching: matching.len(),
        total: all.len(),
        query: query.q.trim().to_owned(),
        page,
        busy: workers.iter().filter(|worker| worker.state == "busy").count(),
        workers: workers.len(),
        running: app.history.running_of(&tenant),
        failures: failures::list(&app.history, &tenant, &last_hour, &words).await.items,
        recent: app.history.list(&tenant, &few).await.items,
        minute_us: minute_us(&app),
        now_us,
    };
    Ok(render(StatusCode::OK, &overview::page(shell, &input)))
}

/// Start of the books' current minute: they count minutes of the monotonic clock.
fn minute_us(app: &App) -> u64 {
    let now = app.clock.now();
    app.clock.wall_us(Duration::from_secs(now.as_secs() / 60 * 60))
}

fn matches(function: &Deployed, wanted: &str) -> bool {
    let event_matches =
        || function.events.iter().any(|event| event.to_string().to_lowercase().contains(wanted));
    wanted.is_empty() || function.name.as_str().to_lowercase().contains(wanted) || event_matches()
}

fn summary(app: &App, function: &Deployed, workers: &[WorkerView]) -> overview::Summary {
    let book = app.slo.get(&function.tenant, &function.name);
    let own = || workers.iter().filter(|worker| worker.function == function.name);
    overview::Summary {
        name: function.name.to_string(),
        version: function.version.0,
        events: function.events.iter().map(ToString::to_string).collect(),
        view: book.as_ref().map(|book| book.view(app.clock.now())).unwrap_or_default(),
        slo: book.and_then(|book| book.slo(app.clock.wall_now_us())),
        workers: own().count(),
        busy: own().filter(|worker| worker.state == "busy").count(),
    }
}

/// The failures that counters have seen in the last hour.
fn failures_of<'a>(counts: impl Iterator<Item = &'a crate::slo::OutcomeCount>) -> Vec<&'static str> {
    let mut words: Vec<_> = counts
        .filter(|count| count.last_hour > 0 && failures::is_failure(count.outcome))
        .map(|count| count.outcome)
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

async fn show_function(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    name: Result<Path<FunctionName>, PathRejection>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let tenant = caller.tenant.clone();
    let shell = Shell::of(&app, &caller, &headers, Port::Api, "");
    let found = name.ok().and_then(|Path(name)| app.catalog.get(&tenant, &name));
    let Some(function) = found else {
        let text = "It may have been deleted; its invocations are still in history.";
        let ways = vec![way("All functions", "/"), way("All invocations", invocations::PATH)];
        return Ok(missing(shell, "There is no such function", text, ways));
    };
    let book = app.slo.get(&tenant, &function.name);
    let view = book.as_ref().map(|book| book.view(app.clock.now())).unwrap_or_default();
    let now_us = app.clock.wall_now_us();
    let of_function = Filter {
        function: Some(function.name.clone()),
        since_us: Some(now_us.saturating_sub(HOUR_US)),
        limit: ANATOMY_CALLS,
        ..Filter::default()
    };
    let recent = app.history.list(&tenant, &of_function).await.items;
    let few_failed = Filter { limit: FEW, ..of_function.clone() };
    let words = failures_of(view.outcomes.iter());
    let workers = app.invoker.workers(&tenant);
    let input = function::Input {
        name: function.name.to_string(),
        version: function.version.0,
        events: function.events.iter().map(ToString::to_string).collect(),
        created_us: function.created_us,
        deployed_us: function.deployed_us,
        code_hash: function.code_hash.clone(),
        handler: &function.handler,
        settings: &function.settings,
        files: app.catalog.source(&function).await,
        slowest: slowest(&app, &tenant, &of_function, view.p99_ms, &recent).await,
        failed: failures::list(&app.history, &tenant, &few_failed, &words).await.items,
        // Refusals are quick, and would be what is typical of an overloaded function.
        phases: recent
            .iter()
            .filter_map(done)
            .filter(|call| crate::slo::tells_latency(call.outcome))
            .map(|call| call.phases)
            .collect(),
        hedges: book.as_ref().and_then(|book| book.hedge_counts()),
        health: function.health(),
        slo: book.and_then(|book| book.slo(now_us)),
        workers: workers.iter().filter(|worker| worker.function == function.name).map(worker).collect(),
        view,
        minute_us: minute_us(&app),
        now_us,
    };
    Ok(render(StatusCode::OK, &function::page(shell, &input)))
}

/// The slowest calls of the last hour: those above the present p99, which finds them also where
/// the newest thousand calls are only the last second; and the slowest of these thousand.
async fn slowest(
    app: &App,
    tenant: &Tenant,
    of_function: &Filter,
    p99_ms: Option<f64>,
    recent: &[Entry],
) -> Vec<Entry> {
    let mut calls: Vec<Entry> = recent.iter().filter(|entry| done(entry).is_some()).cloned().collect();
    if recent.len() >= ANATOMY_CALLS {
        let p99 = Duration::try_from_secs_f64(p99_ms.unwrap_or_default() / 1e3).unwrap_or_default();
        let tail = Filter { min_duration: Some(p99), ..of_function.clone() };
        calls.extend(app.history.list(tenant, &tail).await.items);
    }
    calls.sort_by_key(|entry| done(entry).map(|call| (std::cmp::Reverse(call.phases.total()), call.id)));
    calls.dedup_by_key(|entry| done(entry).map(|call| call.id));
    calls.truncate(FEW);
    calls
}

fn done(entry: &Entry) -> Option<&fp_core::Invocation> {
    match entry {
        Entry::Done(call) => Some(call),
        Entry::Running(_) => None,
    }
}

async fn list_invocations(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    fields: Result<Query<Fields>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let fields = readable(fields);
    let tenant = caller.tenant.clone();
    let shell = Shell::of(&app, &caller, &headers, Port::Api, "Invocations");
    let now_us = app.clock.wall_now_us();
    let wanted = fields.wanted(now_us);
    let found = if wanted.failed {
        failures::list(&app.history, &tenant, &wanted.filter, &failures::failure_words()).await
    } else {
        app.history.list(&tenant, &wanted.filter).await
    };
    let names = function_names(&app, &tenant);
    Ok(render(StatusCode::OK, &invocations::page(shell, &fields, names, &found, now_us)))
}

#[derive(Debug, Default, Deserialize)]
struct AskQuery {
    #[serde(default)]
    q: String,
}

async fn ask(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    query: Result<Query<AskQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let shell = Shell::of(&app, &caller, &headers, Port::Api, "Query");
    let text = query.map(|Query(query)| query.q).unwrap_or_default();
    let text = if text.trim().is_empty() { question::FIRST } else { text.trim() };
    let asked = crate::http::question::ask(&app, &caller, text).await;
    Ok(render(StatusCode::OK, &question::page(shell, text, asked)))
}

fn readable(fields: Result<Query<Fields>, QueryRejection>) -> Fields {
    fields.map_or_else(|_| Fields::unreadable(), |Query(fields)| fields)
}

fn function_names(app: &App, tenant: &Tenant) -> Vec<String> {
    app.catalog.list(tenant).iter().take(SUGGESTED).map(|function| function.name.to_string()).collect()
}

async fn show_invocation(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    id: Result<Path<InvocationId>, PathRejection>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let shell = Shell::of(&app, &caller, &headers, Port::Api, "Invocations");
    let now_us = app.clock.wall_now_us();
    let lookup = match id {
        Ok(Path(id)) => app.history.get(&caller.tenant, id).await,
        Err(_) => Lookup::Unknown,
    };
    let ways = || vec![way("All invocations", invocations::PATH)];
    Ok(match lookup {
        Lookup::Done(kept) => render(StatusCode::OK, &invocation::done_page(shell, &kept, now_us)),
        Lookup::Running(view) => render(StatusCode::OK, &invocation::running_page(shell, &view, now_us)),
        Lookup::SampledOut => missing(
            shell,
            "This invocation was not kept",
            "History keeps a sample of what is beyond its rate, and this call is not in it. Counters, \
             objectives and metrics have counted it.",
            ways(),
        ),
        Lookup::Unknown => missing(
            shell,
            "There is no such invocation",
            "Take the id from the header X-Serverless-Instance-Id of an answer, or from the list.",
            ways(),
        ),
    })
}

async fn list_workers(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let shell = Shell::of(&app, &caller, &headers, Port::Api, "Workers");
    let workers: Vec<_> = app.invoker.workers(&caller.tenant).iter().map(worker).collect();
    let host = caller.is_operator().then(|| host(&app)).flatten();
    Ok(render(StatusCode::OK, &workers::page(shell, &workers, host, app.clock.wall_now_us())))
}

/// What the host enforces; none before it was examined.
fn host(app: &App) -> Option<workers::Host> {
    let report = app.invoker.host();
    let word = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let mechanisms = report.mechanisms.into_iter().map(|mechanism| workers::Mechanism {
        note: [mechanism.why_not, mechanism.how_to_get_it]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("; "),
        name: mechanism.mechanism,
        enforced: mechanism.enforced,
    });
    let pythons: Vec<_> = report
        .pythons
        .iter()
        .map(|python| format!("{}.{}.{}", python.version.0, python.version.1, python.version.2))
        .collect();
    let facts = vec![
        parts::Pair::new("isolation", word(serde_json::to_value(report.mode))),
        parts::Pair::new("kernel", report.kernel),
        parts::Pair::new("Pythons", pythons.join(", ")),
    ];
    Some(workers::Host { facts, mechanisms: mechanisms.collect() }).filter(|host| !host.mechanisms.is_empty())
}

fn worker(view: &WorkerView) -> workers::Worker {
    workers::Worker {
        id: view.id.to_string(),
        host_pid: view.host_pid,
        of: Some((view.function.to_string(), view.version.0)),
        state: view.state.into(),
        started_us: view.started_us,
        calls: view.calls,
    }
}

async fn search_traces(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    fields: Result<Query<Fields>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let fields = readable(fields);
    let tenant = caller.tenant.clone();
    let shell = Shell::of(&app, &caller, &headers, Port::Traces, "Traces");
    let now_us = app.clock.wall_now_us();
    let wanted = fields.wanted(now_us);
    let found = if wanted.failed {
        failures::search_traces(&app.history, &tenant, &wanted.filter).await
    } else {
        app.history.search_traces(&tenant, &wanted.filter).await
    };
    let names = function_names(&app, &tenant);
    Ok(render(StatusCode::OK, &traces::page(shell, &fields, names, &found, now_us)))
}

#[derive(Debug, Default, Deserialize)]
struct TraceQuery {
    #[serde(default)]
    id: String,
}

/// The form that opens a trace by id; ids are hexadecimal, so nothing else reaches the location.
async fn open_trace(query: Result<Query<TraceQuery>, QueryRejection>) -> Redirect {
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let digits = query.id.chars().filter(char::is_ascii_hexdigit).take(32).collect::<String>();
    Redirect::to(&format!("/trace/{:0>32}", digits.to_ascii_lowercase()))
}

async fn show_trace(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    id: Result<Path<TraceId>, PathRejection>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let shell = Shell::of(&app, &caller, &headers, Port::Traces, "Traces");
    if let Ok(Path(id)) = id {
        let entries = app.history.trace(&caller.tenant, id).await.unwrap_or_default();
        let calls: Vec<_> = entries.iter().map(|entry| &*entry.kept).collect();
        let services = app.history.services_in(&caller.tenant, id).await;
        let now_us = app.clock.wall_now_us();
        if let Some(page) = trace::page(shell.clone(), id, &calls, services, now_us) {
            return Ok(render(StatusCode::OK, &page));
        }
    }
    let text = "It may still be running, or it was not kept: history keeps a sample of what is beyond its rate. \
                Take the id from an answer's traceparent, or search.";
    Ok(missing(shell, "There is no such trace", text, vec![way("Search traces", traces::PATH)]))
}

/// The page for paths that lead nowhere on a management listener; none when no browser asks.
pub(crate) async fn lost(app: &App, caller: &Caller, port: Port, headers: &HeaderMap) -> Option<Response> {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|list| list.contains("text/html"));
    headers.get_all(ACCEPT).iter().any(accepts).then_some(())?;
    let shell = Shell::of(app, caller, headers, port, "");
    let (text, ways) = ("The address leads nowhere.", vec![way("To the start", "/")]);
    Some(protect(missing(shell, "There is no such page", text, ways)).await)
}

/// Whether a path is a page's: readers who are not let in are sent to the login from there.
pub(crate) fn is_page(path: &str) -> bool {
    let at_or_below =
        |base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matches!(path, "/" | "/search") || ["/ui", "/docs", "/trace"].into_iter().any(at_or_below)
}

/// The page for readers whose key does not let them read.
pub(crate) async fn forbidden(app: &App, port: Port, headers: &HeaderMap, caller: &Caller) -> Response {
    let shell = Shell::of(app, caller, headers, port, "");
    let text = "Pages are for keys with the scope read, and yours is without. Sign in with another one.";
    let page = message::page(shell, 403, "Your key may not read", text, vec![way("Sign in", "/login")]);
    protect(render(StatusCode::FORBIDDEN, &page)).await
}

fn way(name: &'static str, link: &str) -> WayOn {
    WayOn { name, link: link.to_owned() }
}

fn missing(shell: Shell, title: &str, text: &str, ways: Vec<WayOn>) -> Response {
    render(StatusCode::NOT_FOUND, &message::page(shell, 404, title, text, ways))
}

pub(crate) fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
