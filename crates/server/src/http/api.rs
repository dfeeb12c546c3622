//! The management API: one file per resource, one router, one document.
//!
//! A handler reads its input with an extractor, calls one method of the rooms below and turns
//! the result into its answer; every error is a problem document. The router and the OpenAPI
//! document are made from the same handlers, so neither can have a route that the other lacks.
//! Put `http::guard` before it: the router itself checks only the content type of writes.

mod audit;
pub(super) mod extract;
mod functions;
mod instances;
mod invocations;
mod invoke;
mod keys;
pub(in crate::http) mod parameters;
mod platform;
mod query;
mod quotas;
mod scaling;
mod secrets;
mod settings;
mod silences;
mod slo;
mod tenants;
pub(in crate::http) mod text_request;
pub(in crate::http) mod time;
mod trigger;

pub(crate) use slo::alert_document;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_swagger_ui::SwaggerUi;

use self::parameters::Declared;
use crate::app::App;
use crate::http::{guard, metrics, openapi};

/// The routes of the API port, without the dashboard's pages, fallbacks and guard.
pub fn router(app: Arc<App>) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = openapi::complete(document);
    router.merge(SwaggerUi::new("/docs").url("/openapi.json", document)).with_state(app)
}

/// The OpenAPI document of the API.
pub fn document() -> OpenApi {
    openapi::complete(routes().into_openapi())
}

fn routes() -> OpenApiRouter<Arc<App>> {
    let mut router = OpenApiRouter::with_openapi(openapi::preamble());
    let resources = (functions::routes().into_iter())
        .chain([trigger::routes(), invoke::routes(), scaling::routes()])
        .chain(instances::routes())
        .chain(invocations::routes())
        .chain([query::routes()])
        .chain(slo::routes())
        .chain(silences::routes())
        .chain(secrets::routes())
        .chain(tenants::routes())
        .chain(keys::routes())
        .chain([audit::routes()])
        .chain(platform::routes())
        .chain(quotas::routes())
        .chain([metrics::routes()]);
    for resource in resources {
        let declared = Declared::of(&resource.1);
        let resource = resource.map(|route| route.route_layer(middleware::from_fn(guard::writes)));
        router = router.routes(match declared {
            Some(declared) => resource
                .map(|route| route.route_layer(middleware::from_fn_with_state(declared, parameters::known))),
            None => resource,
        });
    }
    router
}
