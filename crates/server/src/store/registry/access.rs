//! Tenants and keys as the registry keeps them.
//!
//! Of a key there is the hash of its secret, never the secret. Keys that were revoked or have
//! expired stay listed for a while, so that whoever wonders what a leaked key could do finds it.

use fp_core::{KeyId, KeyName, Scopes, Tenant};
use rusqlite::{Connection, Row, named_params, params};

use super::Registry;
use super::rows::{parsed, unreadable};
use crate::store::StoreError;

/// How long a key that is of no use any more stays listed, in microseconds: thirty days, as long
/// as history is kept by default.
const KEEP_DEAD_US: u64 = 30 * 86_400 * 1_000_000;

/// The step of the layout that made them.
pub(super) const LAYOUT: &str = "CREATE TABLE tenants (
         name       TEXT PRIMARY KEY NOT NULL,
         created_us INTEGER NOT NULL
     ) WITHOUT ROWID;
     CREATE TABLE keys (
         id           TEXT PRIMARY KEY NOT NULL,
         tenant       TEXT NOT NULL,
         name         TEXT NOT NULL,
         scopes       TEXT NOT NULL,
         hash         BLOB NOT NULL,
         created_us   INTEGER NOT NULL,
         expires_us   INTEGER,
         last_used_us INTEGER,
         revoked_us   INTEGER
     ) WITHOUT ROWID;";

/// A named tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTenant {
    /// Its name.
    pub name: Tenant,
    /// When it was created, Unix time in microseconds.
    pub created_us: u64,
}

/// SHA-256 of a key's secret half.
pub type KeyHash = [u8; 32];

/// A key. Times are Unix time in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Which key.
    pub id: KeyId,
    /// Whose.
    pub tenant: Tenant,
    /// What people call it.
    pub name: KeyName,
    /// What its holder may do.
    pub scopes: Scopes,
    /// What its secret is compared with.
    pub hash: KeyHash,
    /// When it was made.
    pub created_us: u64,
    /// From when on it is of no use.
    pub expires_us: Option<u64>,
    /// When it was last used, to the minute.
    pub last_used_us: Option<u64>,
    /// When it was revoked.
    pub revoked_us: Option<u64>,
}

impl Registry {
    /// Every named tenant, by name.
    ///
    /// # Errors
    /// As [`live_versions`](Self::live_versions); so do all that follow.
    pub async fn tenants(&self) -> Result<Vec<StoredTenant>, StoreError> {
        self.writer.run("reading tenants", |connection| Ok(tenants(connection)?)).await
    }

    /// Keeps a tenant.
    pub async fn put_tenant(&self, tenant: StoredTenant) -> Result<(), StoreError> {
        let work = move |connection: &_| Ok(put_tenant(connection, &tenant)?);
        self.writer.run("writing a tenant", work).await
    }

    /// Forgets a tenant with everything that is its: keys, functions, secrets, SLO counters and
    /// accepted calls, in one transaction.
    pub async fn delete_tenant(&self, tenant: &Tenant) -> Result<(), StoreError> {
        let tenant = tenant.clone();
        let work = move |connection: &_| Ok(delete_tenant(connection, &tenant)?);
        self.writer.run("deleting a tenant", work).await
    }

    /// Every key, those left out that have been dead for long, which are then forgotten.
    pub async fn keys(&self, now_us: u64) -> Result<Vec<StoredKey>, StoreError> {
        let work = move |connection: &_| Ok(keys(connection, now_us.saturating_sub(KEEP_DEAD_US))?);
        self.writer.run("reading keys", work).await
    }

    /// Keeps a new key, and forgets others for it.
    pub async fn put_key(&self, key: StoredKey, forgotten: Vec<KeyId>) -> Result<(), StoreError> {
        let work = move |connection: &_| {
            put_key(connection, &key)?;
            Ok(forget_keys(connection, &forgotten)?)
        };
        self.writer.run("writing a key", work).await
    }

    /// Notes that a key was revoked.
    pub async fn revoke_key(&self, id: KeyId, revoked_us: u64) -> Result<(), StoreError> {
        let work = move |connection: &_| Ok(revoke_key(connection, id, revoked_us)?);
        self.writer.run("revoking a key", work).await
    }

    /// Notes when keys were last used, without waiting; false when the writer is busy.
    pub fn try_note_use(&self, uses: Vec<(KeyId, u64)>) -> bool {
        self.writer.try_run("noting the use of keys", move |connection| Ok(note_use(connection, &uses)?))
    }
}

fn tenants(connection: &Connection) -> rusqlite::Result<Vec<StoredTenant>> {
    let mut statement = connection.prepare("SELECT name, created_us FROM tenants ORDER BY name")?;
    let read =
        |row: &Row<'_>| Ok(StoredTenant { name: parsed(row, "name")?, created_us: row.get("created_us")? });
    statement.query_map([], read)?.collect()
}

/// What a request of an earlier tenant of this name has written after its end goes first.
fn put_tenant(connection: &Connection, tenant: &StoredTenant) -> rusqlite::Result<()> {
    delete_tenant(connection, &tenant.name)?;
    let sql = "INSERT INTO tenants (name, created_us) VALUES (?1, ?2)";
    connection.execute(sql, params![tenant.name.as_str(), tenant.created_us]).map(drop)
}

fn delete_tenant(connection: &Connection, tenant: &Tenant) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM tenants WHERE name = ?1",
        "DELETE FROM keys WHERE tenant = ?1",
        "DELETE FROM tenant_quotas WHERE tenant = ?1",
        "DELETE FROM versions WHERE tenant = ?1",
        "DELETE FROM slo_snapshots WHERE tenant = ?1",
        "DELETE FROM slo_alerts WHERE tenant = ?1",
        "DELETE FROM slo_silences WHERE tenant = ?1",
        "DELETE FROM async_calls WHERE tenant = ?1",
        "DELETE FROM secrets WHERE tenant = ?1",
        // Numbers of versions are never used again, also not by a later tenant of this name.
        "UPDATE functions SET deleted = 1 WHERE tenant = ?1",
    ] {
        connection.execute(sql, [tenant.as_str()])?;
    }
    Ok(())
}

fn keys(connection: &Connection, dead_before_us: u64) -> rusqlite::Result<Vec<StoredKey>> {
    let dead = "DELETE FROM keys WHERE revoked_us < ?1 OR expires_us < ?1";
    connection.execute(dead, [dead_before_us])?;
    let mut statement = connection.prepare("SELECT * FROM keys ORDER BY created_us, id")?;
    statement.query_map([], read_key)?.collect()
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<StoredKey> {
    Ok(StoredKey {
        id: parsed(row, "id")?,
        tenant: parsed(row, "tenant")?,
        name: parsed(row, "name")?,
        scopes: parsed(row, "scopes")?,
        hash: row.get_ref("hash")?.as_blob()?.try_into().map_err(unreadable)?,
        created_us: row.get("created_us")?,
        expires_us: row.get("expires_us")?,
        last_used_us: row.get("last_used_us")?,
        revoked_us: row.get("revoked_us")?,
    })
}

fn put_key(connection: &Connection, key: &StoredKey) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO keys (id, tenant, name, scopes, hash, created_us, expires_us)
             VALUES (:id, :tenant, :name, :scopes, :hash, :created_us, :expires_us)",
        )?
        .execute(named_params! {
            ":id": key.id.as_str(),
            ":tenant": key.tenant.as_str(),
            ":name": key.name.as_str(),
            ":scopes": key.scopes.to_string(),
            ":hash": key.hash,
            ":created_us": key.created_us,
            ":expires_us": key.expires_us,
        })
        .map(drop)
}

fn forget_keys(connection: &Connection, ids: &[KeyId]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("DELETE FROM keys WHERE id = ?1")?;
    ids.iter().try_for_each(|id| statement.execute([id.as_str()]).map(drop))
}

fn revoke_key(connection: &Connection, id: KeyId, revoked_us: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE keys SET revoked_us = ?2 WHERE id = ?1 AND revoked_us IS NULL";
    connection.execute(sql, params![id.as_str(), revoked_us]).map(drop)
}

fn note_use(connection: &Connection, uses: &[(KeyId, u64)]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE keys SET last_used_us = ?2 WHERE id = ?1")?;
    for (id, used_us) in uses {
        statement.execute(params![id.as_str(), used_us])?;
    }
    Ok(())
}
