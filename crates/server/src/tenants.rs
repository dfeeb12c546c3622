//! The life of a tenant across the rooms: what begins with it and what ends.
//!
//! A tenant is a name that [`access`](crate::access) knows. Nothing of an earlier tenant of the same
//! name is ever seen by a later one: functions and accepted calls go with it, and history shows only
//! what came after its beginning. So its beginning, its end and what is set with it come one after the
//! other ([`Access::lives`]).

use std::sync::Arc;

use fp_core::Tenant;
use fp_core::quota::Quota;

use crate::access::{Access, AccessError, StoredTenant};
use crate::app::App;
use crate::history::History;
use crate::quotas::Quotas;

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
        begin(&self.access, &self.history, name).await
    }

    /// Gives the tenant that began then ([`Access::tenant_since`]) another quota.
    ///
    /// # Errors
    /// When it has ended or the quota cannot be written; then the old one stays.
    pub(crate) async fn set_quota(
        self: &Arc<Self>,
        tenant: &Tenant,
        since_us: u64,
        quota: Quota,
    ) -> Result<(), AccessError> {
        let (app, tenant) = (self.clone(), tenant.clone());
        // To its end, also when who asked for it leaves: what is written is in force.
        let whole = tokio::spawn(async move {
            change_quota(&app.access, &app.quotas, &app.history, &tenant, since_us, quota).await
        });
        whole.await.expect("setting a quota does not panic")
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
            let _one_life = app.access.lives().await;
            app.catalog.delete_tenant(&tenant).await?;
            app.history.hide_tenant(&tenant);
            app.slo.forget_silences(&tenant);
            Ok(())
        });
        whole.await.expect("deleting a tenant does not panic")
    }
}

async fn begin(access: &Access, history: &History, name: Tenant) -> Result<StoredTenant, AccessError> {
    let _one_life = access.lives().await;
    let tenant = access.create_tenant(name).await?;
    history.show_tenant(&tenant.name, tenant.created_us);
    Ok(tenant)
}

async fn change_quota(
    access: &Access,
    quotas: &Quotas,
    history: &History,
    tenant: &Tenant,
    since_us: u64,
    quota: Quota,
) -> Result<(), AccessError> {
    let _one_life = access.lives().await;
    if access.tenant_since(tenant) != Some(since_us) {
        return Err(AccessError::NoTenant { name: tenant.to_string() });
    }
    quotas.put(tenant, quota.clone()).await?;
    limit_history(history, tenant, &quota);
    Ok(())
}

/// What a quota says of a tenant's history.
pub(crate) fn limit_history(history: &History, tenant: &Tenant, quota: &Quota) {
    let bytes = quota.history.map(|size| size.as_u64());
    history.limit_tenant(tenant, bytes, quota.history_rows_per_second());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::Room;
    use crate::clock::Clock;
    use crate::config::HistoryConfig;
    use crate::store::registry::Registry;

    fn history(directory: &tempfile::TempDir) -> History {
        History::open(&HistoryConfig::default(), directory.path(), Clock::start()).expect("a thread")
    }

    #[tokio::test]
    async fn a_tenant_begins_when_the_earlier_one_of_its_name_has_ended_in_all_rooms() {
        let (room, directory) = (Room::new().await, tempfile::tempdir().expect("a directory"));
        let history = history(&directory);
        let acme: Tenant = "acme".parse().expect("a name");
        let ending = room.access.lives().await;
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut beginning = std::pin::pin!(begin(&room.access, &history, acme.clone()));
        assert!(beginning.as_mut().poll(&mut context).is_pending());
        assert!(!room.access.has_tenant(&acme));
        drop(ending);
        beginning.await.expect("made");
        assert!(room.access.has_tenant(&acme));
    }

    #[tokio::test]
    async fn a_quota_is_for_the_very_tenant_that_it_was_set_for() {
        let (room, directory) = (Room::new().await, tempfile::tempdir().expect("a directory"));
        let history = history(&directory);
        let registry = Arc::new(Registry::open(directory.path()).expect("a registry"));
        let quotas = Quotas::open(registry.clone()).await.expect("quotas");
        let acme = room.tenant("acme").await;
        let since_us = room.access.tenant_since(&acme).expect("it is there");
        let quota = Quota { concurrency: Some(7), ..Quota::default() };
        let earlier = change_quota(&room.access, &quotas, &history, &acme, since_us - 1, quota.clone()).await;
        assert!(matches!(earlier, Err(AccessError::NoTenant { .. })));
        assert!(registry.quotas().await.expect("quotas").is_empty(), "nothing was written");
        assert_eq!(quotas.of(&acme).0, Quota::default());
        change_quota(&room.access, &quotas, &history, &acme, since_us, quota.clone()).await.expect("set");
        assert_eq!(quotas.of(&acme).0, quota);
    }
}
