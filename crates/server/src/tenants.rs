//! The life of a tenant across the rooms: what begins with it and what ends.
//!
//! A tenant is a name that [`access`](crate::access) knows. Nothing of an earlier tenant of the same
//! name is ever seen by a later one: functions and accepted calls go with it, and history shows only
//! what came after its beginning.

use fp_core::Tenant;

use crate::access::{AccessError, StoredTenant};
use crate::app::App;

impl App {
    /// Makes a tenant, without functions and keys.
    ///
    /// # Errors
    /// When there is one of this name, the host does not keep tenants apart, or it cannot be written.
    pub async fn create_tenant(&self, name: Tenant) -> Result<StoredTenant, AccessError> {
        if !self.config.allow_weak_isolation_between_tenants {
            self.invoker.host().meets_the_floor().map_err(AccessError::BelowFloor)?;
        }
        let tenant = self.access.create_tenant(name).await?;
        self.history.show_tenant(&tenant.name, tenant.created_us);
        Ok(tenant)
    }

    /// Ends a tenant: its keys open nothing, its functions answer nobody and its history is not
    /// shown any more. Calls that run end in peace.
    ///
    /// # Errors
    /// When there is none of this name, it is `default`, or the end cannot be written: then it goes on.
    pub async fn delete_tenant(&self, tenant: Tenant) -> Result<(), AccessError> {
        self.catalog.delete_tenant(&tenant).await?;
        self.history.hide_tenant(&tenant);
        Ok(())
    }
}
