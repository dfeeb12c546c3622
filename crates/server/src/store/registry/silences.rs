//! Silences as the registry keeps them: texts that only their owner reads.

use fp_core::Tenant;
use rusqlite::{Connection, params};

use super::Registry;
use super::rows::parsed;
use crate::store::StoreError;

/// The step of the layout that made them.
pub(super) const LAYOUT: &str = "CREATE TABLE slo_silences (
         tenant  TEXT NOT NULL,
         id      TEXT NOT NULL,
         ends_us INTEGER NOT NULL,
         body    TEXT NOT NULL,
         PRIMARY KEY (tenant, id)
     ) WITHOUT ROWID;";

/// A silence as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSilence {
    /// Whose.
    pub tenant: Tenant,
    /// Unique within the tenant.
    pub id: String,
    /// When it ends, Unix time in microseconds.
    pub ends_us: u64,
    /// What its owner wrote.
    pub body: String,
}

impl Registry {
    /// Every silence that is kept.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn load_silences(&self) -> Result<Vec<StoredSilence>, StoreError> {
        self.writer.run("reading silences", |connection| Ok(silences(connection)?)).await
    }

    /// Keeps a silence, and forgets those that had ended by `now_us`.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn save_silence(&self, silence: StoredSilence, now_us: u64) -> Result<(), StoreError> {
        self.writer.run("writing a silence", move |connection| Ok(save(connection, &silence, now_us)?)).await
    }

    /// Forgets a silence.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions).
    pub async fn delete_silence(&self, tenant: Tenant, id: String) -> Result<(), StoreError> {
        let sql = "DELETE FROM slo_silences WHERE tenant = ?1 AND id = ?2";
        let work = move |connection: &Connection| {
            Ok(connection.execute(sql, params![tenant.as_str(), id]).map(drop)?)
        };
        self.writer.run("deleting a silence", work).await
    }
}

fn silences(connection: &Connection) -> rusqlite::Result<Vec<StoredSilence>> {
    let mut statement =
        connection.prepare("SELECT tenant, id, ends_us, body FROM slo_silences ORDER BY id")?;
    let rows = statement.query_map([], |row| {
        Ok(StoredSilence {
            tenant: parsed(row, "tenant")?,
            id: row.get("id")?,
            ends_us: row.get("ends_us")?,
            body: row.get("body")?,
        })
    })?;
    rows.collect()
}

fn save(connection: &Connection, silence: &StoredSilence, now_us: u64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM slo_silences WHERE ends_us <= ?1", [now_us])?;
    let sql = "INSERT OR REPLACE INTO slo_silences (tenant, id, ends_us, body) VALUES (?1, ?2, ?3, ?4)";
    let StoredSilence { tenant, id, ends_us, body } = silence;
    connection.execute(sql, params![tenant.as_str(), id, ends_us, body]).map(drop)
}
