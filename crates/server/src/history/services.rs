//! Spans of services around the functions, beside the calls: kept as they come, read with the
//! traces that they are of.
//!
//! They need the disk. Without it they are refused, and calls go on as ever.

use std::path::Path;

use fp_core::{ServiceSpan, Tenant, TraceId};

use super::{History, Inner};
use crate::config::HistoryConfig;
use crate::store::StoreError;
use crate::store::service_spans::{Limits, ServiceSpans, Shown};

/// One in so many bytes of history's disk is the most that spans of services take besides.
const PART_OF_DISK: u64 = 10;

/// Opens what there is; none where the disk does not let us.
pub(super) fn open(config: &HistoryConfig, data_dir: &Path) -> Option<ServiceSpans> {
    let limits = Limits { bytes: config.disk_bytes / PART_OF_DISK, keep: config.keep };
    let opened = ServiceSpans::open(data_dir, limits);
    opened.inspect_err(|error| tracing::warn!(error = %error.chain(), "spans of services are refused")).ok()
}

impl History {
    /// Keeps spans that services of a tenant have sent; they are in its traces when this returns.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub(crate) async fn keep_services(
        &self,
        tenant: &Tenant,
        spans: Vec<ServiceSpan>,
        now_us: u64,
    ) -> Result<(), StoreError> {
        let store = self.inner.services.as_ref().ok_or(StoreError::Closed)?;
        store.keep(tenant.clone(), spans, now_us).await
    }

    /// The services of a tenant that sent spans.
    pub(crate) async fn services(&self, tenant: &Tenant) -> Vec<String> {
        let tenant = tenant.clone();
        let query = move |inner: &Inner| inner.ask_services(&tenant, ServiceSpans::services);
        self.in_background(query).await.unwrap_or_default()
    }

    /// The spans of services in a trace.
    pub(crate) async fn services_in(&self, tenant: &Tenant, trace_id: TraceId) -> Vec<ServiceSpan> {
        let tenant = tenant.clone();
        self.in_background(move |inner| inner.services_in(&tenant, trace_id)).await.unwrap_or_default()
    }
}

impl Inner {
    pub(super) fn services_in(&self, tenant: &Tenant, trace_id: TraceId) -> Vec<ServiceSpan> {
        self.ask_services(tenant, |store, shown| store.trace(shown, trace_id))
    }

    /// The newest traces of a service that began between two times.
    pub(super) fn traces_of_service(
        &self,
        tenant: &Tenant,
        service: &str,
        within_us: (u64, u64),
        most: usize,
    ) -> Vec<TraceId> {
        self.ask_services(tenant, |store, shown| store.traces_of(shown, service, within_us, most))
    }

    /// Nothing where the disk fails: the calls of a trace are shown all the same.
    fn ask_services<T>(
        &self,
        tenant: &Tenant,
        query: impl FnOnce(&ServiceSpans, &Shown) -> Result<Vec<T>, StoreError>,
    ) -> Vec<T> {
        let (Some(store), Some(since_us)) = (&self.services, self.shown_since(tenant)) else {
            return Vec::new();
        };
        let found = query(store, &Shown { tenant: tenant.clone(), since_us });
        found.unwrap_or_else(|error| {
            tracing::warn!(error = %error.chain(), "spans of services cannot be read");
            Vec::new()
        })
    }
}
