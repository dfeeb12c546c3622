//! Query parameters that a route does not have are refused, so that a misspelt name cannot pass
//! unnoticed.
//!
//! What a route has is read from its own description, the one that the OpenAPI document is made
//! of. `/healthz` and `/readyz` take anything: probes add what keeps caches away.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use fp_core::code::Code;
use http::{Method, Uri};
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem, Paths};

use crate::http::caller::Caller;
use crate::http::problem::Problem;

/// Paths whose callers may add what they like.
pub(in crate::http) const LENIENT: [&str; 2] = ["/healthz", "/readyz"];

/// The parameters of one path, by verb.
#[derive(Debug)]
pub(super) struct Declared(Vec<(Method, Vec<String>)>);

impl Declared {
    /// Of a route's description; none where anything may come.
    pub(super) fn of(paths: &Paths) -> Option<Arc<Self>> {
        let strict = paths.paths.iter().filter(|(path, _)| !LENIENT.contains(&path.as_str()));
        let verbs: Vec<_> = strict.flat_map(|(_, item)| by_verb(item)).collect();
        (!verbs.is_empty()).then(|| Arc::new(Self(verbs)))
    }

    /// Refuses a query that has another.
    fn check(&self, verb: &Method, uri: &Uri) -> Result<(), Problem> {
        // A query that cannot be read is for the route to refuse.
        let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else { return Ok(()) };
        let verb = if verb == Method::HEAD { &Method::GET } else { verb };
        let Some((_, known)) = self.0.iter().find(|(declared, _)| declared == verb) else { return Ok(()) };
        let Some((unknown, _)) = given.into_iter().find(|(name, _)| !known.contains(name)) else {
            return Ok(());
        };
        let detail = match known.as_slice() {
            [] => format!("unknown parameter {unknown:?}: this route has none"),
            known => format!("unknown parameter {unknown:?}, expected one of {}", known.join(", ")),
        };
        Err(Problem::new(Code::Unprocessable, detail).field(unknown))
    }
}

fn by_verb(item: &PathItem) -> impl Iterator<Item = (Method, Vec<String>)> {
    let verbs = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
    ];
    verbs.into_iter().filter_map(|(verb, operation)| Some((verb, query_names(operation.as_ref()?))))
}

fn query_names(operation: &Operation) -> Vec<String> {
    let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    let in_query = parameters.filter(|parameter| parameter.parameter_in == ParameterIn::Query);
    in_query.map(|parameter| parameter.name.clone()).collect()
}

/// Stands before a route. Whoever is not let in hears of that first.
pub(super) async fn known(State(declared): State<Arc<Declared>>, request: Request, next: Next) -> Response {
    let known_caller = request.extensions().get::<Caller>().is_some();
    match declared.check(request.method(), request.uri()) {
        Err(problem) if known_caller => problem.into_response(),
        _ => next.run(request).await,
    }
}
