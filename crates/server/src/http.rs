//! The HTTP edge: the gateway, the management API with its pages, and the trace pages.
//!
//! The only room that knows statuses and headers. It asks `catalog`, `invoke`, `history` and
//! `slo`, never what lies below them.

pub mod api;
pub(crate) mod audit;
pub(crate) mod caller;
pub mod csrf;
pub mod fuzz;
pub(crate) mod gateway;
pub mod guard;
pub mod jaeger;
pub(crate) mod listener;
mod login;
mod metrics;
mod openapi;
pub(crate) mod otlp;
pub mod pages;
pub mod problem;
mod question;
mod whole;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use fp_core::code::Code;
use http::{HeaderMap, Method, Request, Response, Uri};
use tower::ServiceExt;

use crate::app::App;

use self::audit::{Desk, PeerAddress};
use self::caller::{Caller, Door};
use self::guard::Hosts;
use self::listener::Upload;
use self::pages::Port;
use self::problem::Problem;

/// What the management port answers.
pub(crate) fn api_router(app: &Arc<App>) -> Router {
    let router = api::router(app.clone()).merge(pages::router(app.clone()));
    finished(router, app, Port::Api, Hosts::of(app.addresses.api).and(&app.config.api_hosts))
}

/// What the trace port answers.
pub(crate) fn traces_router(app: &Arc<App>) -> Router {
    let router = jaeger::router(app.clone()).merge(pages::traces_router(app.clone()));
    finished(router, app, Port::Traces, Hosts::of(app.addresses.traces).and(&app.config.api_hosts))
}

/// What every management listener has around its routes: the login, an answer for unknown paths and
/// verbs, the question who asks, the guard, and before everything the desk where all calls are noted.
/// It comes after all merges: it sees only what is there.
fn finished(router: Router, app: &Arc<App>, port: Port, hosts: Hosts) -> Router {
    let lost = {
        let app = app.clone();
        move |caller: Option<Caller>, uri: Uri, headers: HeaderMap| not_found(app, caller, port, uri, headers)
    };
    let router = router.merge(login::router(app.clone()));
    let router = router.method_not_allowed_fallback(method_not_allowed).fallback(lost);
    let door = Door { app: app.clone(), port, needs_key: app.needs_key(port) };
    let guarded = guard::protect(caller::authenticated(router, door), hosts);
    audit::noted(guarded, Desk { app: app.clone(), port })
}

/// A page for a browser, a problem document for everybody else.
async fn not_found(
    app: Arc<App>,
    caller: Option<Caller>,
    port: Port,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    if let Some(caller) = caller
        && let Some(page) = pages::lost(&app, &caller, port, &headers).await
    {
        return page;
    }
    let problem = Problem::new(Code::NotFound, format!("there is no {:?} here", uri.path()));
    problem.hint("The routes of the management API are listed at /docs on its port.").into_response()
}

/// The `Allow` header is added by the router.
async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not a verb of {:?}", uri.path());
    let problem = Problem::new(Code::MethodNotAllowed, detail);
    problem.component("api").hint("Use one of the verbs in the Allow header.")
}

/// A router as the listeners call it.
pub(crate) fn served(
    router: Router,
) -> impl Fn(Request<Upload>, SocketAddr) -> std::pin::Pin<Box<dyn Future<Output = Response<Body>> + Send>>
+ Clone
+ Send
+ Sync
+ 'static {
    move |mut request, peer| {
        request.extensions_mut().insert(PeerAddress(peer));
        let router = router.clone();
        Box::pin(async move {
            let answer = router.oneshot(request).await;
            answer.unwrap_or_else(|never: std::convert::Infallible| match never {})
        })
    }
}
