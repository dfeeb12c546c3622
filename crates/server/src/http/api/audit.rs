//! The audit log: for those who administer a tenant, that of their tenant; for the operator all of it.

use std::sync::Arc;

use axum::extract::State;
use fp_core::code::Code;
use fp_core::{Scope, Tenant};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiQuery, wrong_parameter};
use super::invocations::{limit, since};
use crate::app::App;
use crate::audit::{Asker, Kind, Means, Query, Record};
use crate::http::caller::Caller;
use crate::http::openapi;
use crate::http::problem::Problem;

/// Records of a page when nobody says otherwise.
const DEFAULT_LIMIT: usize = 50;

pub(super) fn routes() -> UtoipaMethodRouter<Arc<App>> {
    routes!(list_audit)
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
struct AuditPage {
    /// The latest first.
    items: Vec<Record>,
    /// Pass it as `cursor` for the next page; null after the last one.
    next: Option<String>,
}

/// Which records to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Of this kind.
    #[param(value_type = Option<openapi::AuditKindWord>, inline)]
    kind: Option<String>,
    /// Arrived since: RFC 3339, or an age such as `1h`.
    #[param(value_type = Option<openapi::PointInTime>, inline, example = "1h")]
    since: Option<String>,
    /// Most records to return.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 50)]
    limit: Option<String>,
    /// `next` of the page before.
    #[param(pattern = "^[1-9][0-9]{0,17}$")]
    cursor: Option<String>,
}

impl AuditQuery {
    fn read(self, now_us: u64) -> Result<Query, Problem> {
        let kind = |word: String| {
            let words = Kind::ALL.map(Kind::word).join(", ");
            let refuse = || wrong_parameter("kind", format!("{word:?} is not one of {words}"));
            Kind::from_word(&word).ok_or_else(refuse)
        };
        let cursor = |text: String| {
            let number = text.parse().ok().filter(|number| *number > 0 && !text.starts_with(['0', '+']));
            number.ok_or_else(|| wrong_parameter("cursor", format!("{text:?} is not the next of a page")))
        };
        Ok(Query {
            tenant: None,
            since_us: self.since.map(|text| since(&text, now_us)).transpose()?,
            kind: self.kind.map(kind).transpose()?,
            before: self.cursor.map(cursor).transpose()?,
            limit: self.limit.map(|text| limit(&text)).transpose()?.unwrap_or(DEFAULT_LIMIT),
        })
    }
}

/// Read the audit log.
///
/// Every call of the management API, of the pages and of the traces, refused ones included: who, what,
/// when, from where, and how it ended. The operator reads all of it, unless they act for a tenant; a
/// tenant's admin what was about their tenant, where the operator's calls are without key and address.
#[utoipa::path(
    get,
    path = "/audit",
    tag = "audit",
    params(AuditQuery),
    responses((status = 200, description = "A page of the log", body = AuditPage))
)]
async fn list_audit(
    State(app): State<Arc<App>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<AuditQuery>,
) -> Result<Answer<AuditPage>, Problem> {
    caller.require(Scope::Admin)?;
    let query = query.read(app.clock.wall_now_us())?;
    let tenant = (caller.tenant != Tenant::default()).then(|| caller.tenant.clone());
    let query = match &tenant {
        Some(tenant) => of_tenant(query, tenant, caller.since_us),
        None => query,
    };
    let page = app.audit.list(query).await.map_err(|error| {
        tracing::error!(%error, "the audit log cannot be read");
        Problem::new(Code::StorageFailed, "the audit log cannot be read; the platform's own log says why")
    })?;
    let shown = |record| if caller.is_operator() { record } else { without_the_operator(record) };
    let items = page.items.into_iter().map(shown).collect();
    Ok(Answer(AuditPage { items, next: page.next.map(|number| number.to_string()) }))
}

/// What a tenant sees begins with it: an earlier one of its name was somebody else.
fn of_tenant(query: Query, tenant: &Tenant, began_us: u64) -> Query {
    Query { tenant: Some(tenant.clone()), since_us: query.since_us.max(Some(began_us)), ..query }
}

/// A tenant learns that the operator did something in it, and not with which key and from where.
fn without_the_operator(record: Record) -> Record {
    if record.caller.tenant.as_deref() == Some(record.tenant.as_str()) {
        return record;
    }
    let caller = Asker { means: Means::Operator, ..Asker::default() };
    Record { caller, peer: None, forwarded_for: None, ..record }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_reads_from_its_beginning_on_whatever_it_asks_for() {
        let tenant = "acme".parse().expect("a name");
        for (asked, since_us) in [(None, 7), (Some(5), 7), (Some(9), 9)] {
            let query = AuditQuery::default().read(0).expect("nothing is asked for");
            let query = of_tenant(Query { since_us: asked, ..query }, &tenant, 7);
            assert_eq!((query.tenant.as_ref(), query.since_us), (Some(&tenant), Some(since_us)));
        }
    }

    #[test]
    fn a_query_names_the_parameter_at_fault() {
        let with = |kind: Option<&str>, cursor: Option<&str>| {
            let query = AuditQuery {
                kind: kind.map(str::to_owned),
                cursor: cursor.map(str::to_owned),
                ..AuditQuery::default()
            };
            query.read(0).map_err(|problem| problem.status().as_u16())
        };
        for bad in ["0", "+1", "01", "x", "", "99999999999999999999"] {
            assert_eq!(with(None, Some(bad)).expect_err(bad), 422);
        }
        assert_eq!(with(Some("write"), None).expect_err("no kind"), 422);
        let query = with(Some("refusal"), Some("17")).expect("both are right");
        assert_eq!((query.kind, query.before, query.limit), (Some(Kind::Refusal), Some(17), DEFAULT_LIMIT));
    }
}
