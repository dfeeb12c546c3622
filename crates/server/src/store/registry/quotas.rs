//! Quotas of tenants as the registry keeps them. A function's own are among its settings.

use fp_core::Tenant;
use fp_core::quota::Quota;
use rusqlite::{Connection, Row, params};

use super::Registry;
use super::rows::{parsed, unreadable};
use crate::store::StoreError;

/// The step of the layout that made them.
pub(super) const LAYOUT: &str = "CREATE TABLE tenant_quotas (
         tenant TEXT PRIMARY KEY NOT NULL,
         quota  TEXT NOT NULL
     ) WITHOUT ROWID;";

impl Registry {
    /// The quota of every tenant that has one.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn quotas(&self) -> Result<Vec<(Tenant, Quota)>, StoreError> {
        self.writer.run("reading quotas", |connection| Ok(quotas(connection)?)).await
    }

    /// Keeps a tenant's quota.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn put_quota(&self, tenant: &Tenant, quota: &Quota) -> Result<(), StoreError> {
        let (tenant, text) = (tenant.clone(), serde_json::to_string(quota).expect("a quota is plain data"));
        let work = move |connection: &_| Ok(put_quota(connection, &tenant, &text)?);
        self.writer.run("writing a quota", work).await
    }
}

fn quotas(connection: &Connection) -> rusqlite::Result<Vec<(Tenant, Quota)>> {
    let mut statement = connection.prepare_cached("SELECT tenant, quota FROM tenant_quotas")?;
    let read = |row: &Row<'_>| {
        let text: String = row.get("quota")?;
        Ok((parsed(row, "tenant")?, serde_json::from_str(&text).map_err(unreadable)?))
    };
    statement.query_map([], read)?.collect()
}

fn put_quota(connection: &Connection, tenant: &Tenant, text: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO tenant_quotas (tenant, quota) VALUES (?1, ?2)
               ON CONFLICT (tenant) DO UPDATE SET quota = excluded.quota";
    connection.prepare_cached(sql)?.execute(params![tenant.as_str(), text]).map(drop)
}
