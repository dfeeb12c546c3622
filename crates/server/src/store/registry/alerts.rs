//! Alerts of objectives as the registry keeps them: texts that only their owner reads, under the name
//! of a function, with which they go.

use fp_core::{FunctionName, Tenant};
use rusqlite::{Connection, params};

use super::Registry;
use super::rows::parsed;
use crate::store::StoreError;

/// The step of the layout that made them.
pub(super) const LAYOUT: &str = "CREATE TABLE slo_alerts (
         tenant   TEXT NOT NULL,
         id       TEXT NOT NULL,
         function TEXT NOT NULL,
         began_us INTEGER NOT NULL,
         body     TEXT NOT NULL,
         PRIMARY KEY (tenant, id)
     ) WITHOUT ROWID;
     CREATE INDEX slo_alerts_by_function ON slo_alerts (tenant, function, began_us);";

/// An alert as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAlert {
    /// Whose.
    pub tenant: Tenant,
    /// Unique within the tenant.
    pub id: String,
    /// Of which function.
    pub function: FunctionName,
    /// When it began, Unix time in microseconds.
    pub began_us: u64,
    /// What its owner wrote.
    pub body: String,
}

impl Registry {
    /// Every alert that is kept, the oldest first.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn load_alerts(&self) -> Result<Vec<StoredAlert>, StoreError> {
        self.writer.run("reading alerts", |connection| Ok(alerts(connection)?)).await
    }

    /// Keeps alerts of functions that exist, and of each function the newest `kept` only. Does not wait;
    /// false when the writer is busy.
    pub fn try_save_alerts(&self, alerts: Vec<StoredAlert>, kept: usize) -> bool {
        let work = move |connection: &_| Ok(save_alerts(connection, &alerts, kept)?);
        self.writer.try_run("writing alerts", work)
    }
}

fn alerts(connection: &Connection) -> rusqlite::Result<Vec<StoredAlert>> {
    let sql = "SELECT tenant, id, function, began_us, body FROM slo_alerts ORDER BY began_us, id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(StoredAlert {
            tenant: parsed(row, "tenant")?,
            id: row.get("id")?,
            function: parsed(row, "function")?,
            began_us: row.get("began_us")?,
            body: row.get("body")?,
        })
    })?;
    rows.collect()
}

fn save_alerts(connection: &Connection, alerts: &[StoredAlert], kept: usize) -> rusqlite::Result<()> {
    let mut save = connection.prepare_cached(
        "INSERT OR REPLACE INTO slo_alerts (tenant, id, function, began_us, body)
         SELECT tenant, ?3, function, ?4, ?5 FROM functions
         WHERE tenant = ?1 AND function = ?2 AND NOT deleted",
    )?;
    let mut forget = connection.prepare_cached(
        "DELETE FROM slo_alerts WHERE tenant = ?1 AND function = ?2 AND id NOT IN (
             SELECT id FROM slo_alerts WHERE tenant = ?1 AND function = ?2
             ORDER BY began_us DESC, id DESC LIMIT ?3)",
    )?;
    for alert in alerts {
        let (tenant, function) = (alert.tenant.as_str(), alert.function.as_str());
        save.execute(params![tenant, function, alert.id, alert.began_us, alert.body])?;
        forget.execute(params![tenant, function, kept])?;
    }
    Ok(())
}

/// What is known of a function's objective goes with it.
pub(super) fn forget_function(
    connection: &Connection,
    tenant: &Tenant,
    function: &FunctionName,
) -> rusqlite::Result<()> {
    let sql = "DELETE FROM slo_alerts WHERE tenant = ?1 AND function = ?2";
    connection.execute(sql, params![tenant.as_str(), function.as_str()]).map(drop)
}
