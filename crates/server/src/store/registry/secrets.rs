//! Secrets in the registry: sealed bytes by tenant and name. What is in them, their owner knows.

use fp_core::{SecretName, Tenant};
use rusqlite::{Connection, Row, named_params, params};

use super::rows::parsed;

/// The step of the layout that adds them.
pub(super) const LAYOUT: &str = "CREATE TABLE secrets (
     tenant     TEXT NOT NULL,
     name       TEXT NOT NULL,
     created_us INTEGER NOT NULL,
     rotated_us INTEGER NOT NULL,
     key_id     BLOB NOT NULL,
     sealed     BLOB NOT NULL,
     PRIMARY KEY (tenant, name)
 ) WITHOUT ROWID;";

/// A secret as it lies on the disk: what is sealed, and how, is its owner's affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Whose.
    pub tenant: Tenant,
    /// Its name.
    pub name: SecretName,
    /// When it was set first, Unix time in microseconds.
    pub created_us: u64,
    /// When its value was set last.
    pub rotated_us: u64,
    /// Which key it is sealed under.
    pub key_id: Vec<u8>,
    /// The sealed value.
    pub sealed: Vec<u8>,
}

pub(super) fn list(connection: &Connection) -> rusqlite::Result<Vec<SealedSecret>> {
    let mut statement = connection.prepare_cached(
        "SELECT tenant, name, created_us, rotated_us, key_id, sealed FROM secrets ORDER BY tenant, name",
    )?;
    let read = |row: &Row<'_>| {
        Ok(SealedSecret {
            tenant: parsed(row, "tenant")?,
            name: parsed(row, "name")?,
            created_us: row.get("created_us")?,
            rotated_us: row.get("rotated_us")?,
            key_id: row.get("key_id")?,
            sealed: row.get("sealed")?,
        })
    };
    statement.query_map([], read)?.collect()
}

pub(super) fn put(connection: &Connection, secret: &SealedSecret) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO secrets (tenant, name, created_us, rotated_us, key_id, sealed)
             VALUES (:tenant, :name, :created_us, :rotated_us, :key_id, :sealed)",
        )?
        .execute(named_params! {
            ":tenant": secret.tenant.as_str(),
            ":name": secret.name.as_str(),
            ":created_us": secret.created_us,
            ":rotated_us": secret.rotated_us,
            ":key_id": secret.key_id,
            ":sealed": secret.sealed,
        })
        .map(drop)
}

/// False if there was none.
pub(super) fn delete(connection: &Connection, tenant: &Tenant, name: &SecretName) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("DELETE FROM secrets WHERE tenant = ?1 AND name = ?2")?;
    Ok(statement.execute(params![tenant.as_str(), name.as_str()])? > 0)
}
