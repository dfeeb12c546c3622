//! Silences: who may not be told of what, and until when. Kept in the registry.

use std::collections::BTreeMap;

use fp_core::Tenant;
use fp_core::slo::Silence;
use serde::{Deserialize, Serialize};

use super::{AlertRecord, SloBook};
use crate::store::StoreError;
use crate::store::registry::StoredSilence;

/// A silence with who it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SilenceRecord {
    /// Unique within the tenant.
    pub id: String,
    /// What it covers.
    pub silence: Silence,
    /// Why, in its maker's words.
    pub reason: String,
    /// When it was made, Unix time in microseconds.
    pub created_us: u64,
}

type Key = (Tenant, String);

/// All silences of all tenants.
#[derive(Debug, Default)]
pub(super) struct Silences(BTreeMap<Key, SilenceRecord>);

impl Silences {
    pub(super) fn of(stored: Vec<StoredSilence>) -> Self {
        let read = |stored: StoredSilence| match serde_json::from_str(&stored.body) {
            Ok(record) => Some(((stored.tenant, stored.id), record)),
            Err(error) => {
                tracing::warn!(id = stored.id, %error, "a silence cannot be read and is forgotten");
                None
            }
        };
        Self(stored.into_iter().filter_map(read).collect())
    }

    /// Whether nobody is to be told of an alert now.
    pub(super) fn cover(&self, tenant: &Tenant, alert: &AlertRecord, now_us: u64) -> bool {
        let covers = |record: &SilenceRecord| {
            record.silence.covers(&alert.function, alert.objective, alert.severity, now_us)
        };
        self.0.iter().any(|((of, _), record)| of == tenant && covers(record))
    }

    pub(super) fn forget_ended(&mut self, now_us: u64) {
        self.0.retain(|_, record| record.silence.ends_us > now_us);
    }
}

impl SloBook {
    /// Keeps a silence; it holds from now on.
    ///
    /// # Errors
    /// When it cannot be written; then there is none.
    pub(crate) async fn silence(
        &self,
        tenant: &Tenant,
        silence: Silence,
        reason: String,
    ) -> Result<SilenceRecord, StoreError> {
        let created_us = self.clock.wall_now_us();
        let id = format!("{:016x}", fastrand::u64(..));
        let ends_us = silence.ends_us;
        let record = SilenceRecord { id: id.clone(), silence, reason, created_us };
        let body = serde_json::to_string(&record).expect("a record is plain data");
        let stored = StoredSilence { tenant: tenant.clone(), id: id.clone(), ends_us, body };
        self.registry.save_silence(stored, created_us).await?;
        self.silences.lock().0.insert((tenant.clone(), id), record.clone());
        Ok(record)
    }

    /// The silences of a tenant that hold, the newest first.
    pub(crate) fn silences(&self, tenant: &Tenant) -> Vec<SilenceRecord> {
        let now_us = self.clock.wall_now_us();
        let silences = self.silences.lock();
        let holds =
            |(key, record): &(&Key, &SilenceRecord)| key.0 == *tenant && record.silence.ends_us > now_us;
        let mut found: Vec<_> = silences.0.iter().filter(holds).map(|(_, record)| record.clone()).collect();
        found.sort_by(|a, b| (b.created_us, &b.id).cmp(&(a.created_us, &a.id)));
        found
    }

    /// Ends a silence before its time; false when there is none of this id.
    ///
    /// # Errors
    /// When that cannot be written; then it goes on.
    pub(crate) async fn end_silence(&self, tenant: &Tenant, id: &str) -> Result<bool, StoreError> {
        let key = (tenant.clone(), id.to_owned());
        if !self.silences.lock().0.contains_key(&key) {
            return Ok(false);
        }
        self.registry.delete_silence(key.0.clone(), key.1.clone()).await?;
        Ok(self.silences.lock().0.remove(&key).is_some())
    }

    /// A tenant is no more.
    pub(crate) fn forget_silences(&self, tenant: &Tenant) {
        self.silences.lock().0.retain(|(of, _), _| of != tenant);
    }

    /// Whether nobody is to be told of an alert now.
    pub(crate) fn is_silent(&self, tenant: &Tenant, alert: &AlertRecord) -> bool {
        self.silences.lock().cover(tenant, alert, self.clock.wall_now_us())
    }
}
