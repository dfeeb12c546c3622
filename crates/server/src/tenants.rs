//! The life of a tenant across the rooms: what begins with it and what ends.
//!
//! A tenant is a name that [`access`](crate::access) knows. Nothing of an earlier tenant of the same
//! name is ever seen by a later one: functions and accepted calls go with it, and history shows only
//! what came after its beginning.

use std::sync::Arc;

use fp_core::Tenant;
use fp_core::quota::Quota;

use crate::access::{AccessError, StoredTenant};
use crate::app::App;
use crate::history::History;
use crate::store::StoreError;

impl App {
    /// Makes a tenant, without functions and keys. Goes on when the future is dropped.
    ///
    /// # Errors
    /// When there is one of this name, the host does not keep tenants apart, or it cannot be written.
    pub async fn create_tenant(self: &Arc<Self>, name: Tenant) -> Result<StoredTenant, AccessError> {
        let app = self.clone();
        let whole = tokio::spawn(async move { app.create_whole_tenant(name).await });
        whole.await.expect("making a tenant does not panic")
    }

    async fn create_whole_tenant(&self, name: Tenant) -> Result<StoredTenant, AccessError> {
        if !self.config.allow_weak_isolation_between_tenants {
            self.invoker.host().meets_the_floor().map_err(AccessError::BelowFloor)?;
        }
        let tenant = self.access.create_tenant(name).await?;
        self.history.show_tenant(&tenant.name, tenant.created_us);
        Ok(tenant)
    }

    /// Gives a tenant another quota.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stays.
    pub(crate) async fn set_quota(&self, tenant: &Tenant, quota: Quota) -> Result<(), StoreError> {
        let (quotas, history, tenant) = (self.quotas.clone(), self.history.clone(), tenant.clone());
        // To its end, also when who asked for it leaves: what is written is in force.
        let change = async move {
            quotas.put(&tenant, quota.clone()).await?;
            limit_history(&history, &tenant, &quota);
            Ok(())
        };
        tokio::spawn(change).await.expect("setting a quota does not panic")
    }

    /// Ends a tenant: its keys open nothing, its functions answer nobody and its history is not
    /// shown any more. Calls that run end in peace. Goes on when the future is dropped: a client that
    /// leaves must not leave half an end.
    ///
    /// # Errors
    /// When there is none of this name, it is `default`, or the end cannot be written: then it goes on.
    pub async fn delete_tenant(self: &Arc<Self>, tenant: Tenant) -> Result<(), AccessError> {
        let app = self.clone();
        let whole = tokio::spawn(async move {
            app.catalog.delete_tenant(&tenant).await?;
            app.history.hide_tenant(&tenant);
            Ok(())
        });
        whole.await.expect("deleting a tenant does not panic")
    }
}

/// What a quota says of a tenant's history.
pub(crate) fn limit_history(history: &History, tenant: &Tenant, quota: &Quota) {
    let bytes = quota.history.map(|size| size.as_u64());
    history.limit_tenant(tenant, bytes, quota.history_rows_per_second());
}
