//! The HTTP edge: the gateway, the management API with its pages, and the trace pages.
//!
//! The only room that knows statuses and headers. It asks `catalog`, `invoke`, `history` and
//! `slo`, never what lies below them.

pub mod api;
pub mod csrf;
pub(crate) mod gateway;
pub mod guard;
pub(crate) mod listener;
mod metrics;
mod openapi;
pub mod problem;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::app::App;

use self::guard::Hosts;

/// What the management port answers.
pub(crate) fn api_router(app: &Arc<App>) -> Router {
    guard::protect(api::router(app.clone()), Hosts::of(app.addresses.api))
}

/// What the trace port answers.
pub(crate) fn traces_router(app: &Arc<App>) -> Router {
    let _ = app;
    Router::new()
}

/// A router as the listeners call it.
pub(crate) fn served(
    router: Router,
) -> impl Fn(Request<Incoming>, SocketAddr) -> std::pin::Pin<Box<dyn Future<Output = Response<Body>> + Send>>
+ Clone
+ Send
+ Sync
+ 'static {
    move |request, _| {
        let router = router.clone();
        Box::pin(async move {
            let answer = router.oneshot(request).await;
            answer.unwrap_or_else(|never: std::convert::Infallible| match never {})
        })
    }
}
