//! Workers of a version: what they are started from, and whether that can be had here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fp_core::code::Code;
use fp_core::pool::PoolConfig;
use fp_core::settings::{Fallback, Network};
use fp_core::{FunctionName, Settings, Tenant};
use fp_sandbox::{INNER_GATEWAY, INNER_OTLP, PreloadPolicy, Sandbox, Template, Worker, WorkerSpec};

use super::CatalogError;
use super::code_store::CodeStore;
use crate::callers::Callers;
use crate::clock::Clock;
use crate::config::TenantsConfig;
use crate::last_good::{LastGood, Shelf};
use crate::pool::VersionPool;
use crate::pool::host::HostWorkers;
use crate::quotas::Quotas;
use crate::secrets::Secrets;
use crate::store::registry::StoredVersion;

/// What every worker gets besides its function's own settings.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSetup {
    pub(crate) sandbox: Sandbox,
    pub(crate) host: Arc<HostWorkers>,
    pub(crate) clock: Clock,
    pub(crate) secrets: Arc<Secrets>,
    /// `[services]`.
    pub(crate) services: BTreeMap<String, String>,
    /// `[tenants]`.
    pub(crate) tenants: TenantsConfig,
    /// Modules that the operator lets zygotes import; named tenants only those that it lists.
    pub(crate) preload: PreloadPolicy,
    /// `http://host:port` of the gateway, as `FUNCTIONSPLATFORM_GATEWAY` in environments whose
    /// network is the host's.
    pub(crate) gateway_url: String,
    /// The same of the receiver of spans; none where it asks for a key or a certificate to trust.
    pub(crate) otlp_url: Option<String>,
    /// What tenants and functions may use.
    pub(crate) quotas: Arc<Quotas>,
    /// What functions' callers are checked with.
    pub(crate) callers: Arc<Callers>,
    /// Answers for functions that give out old ones instead of a refusal.
    pub(crate) last_good: Arc<LastGood>,
}

/// Time that a handler may take to load: the interface's.
const START_LIMIT: Duration = Duration::from_secs(10);

impl WorkerSetup {
    pub(super) fn pool(&self, version: &StoredVersion, code: &CodeStore) -> Arc<VersionPool> {
        let config = PoolConfig::from_settings(&version.settings);
        let secrets = self.secrets.of_function(&version.tenant, &version.settings);
        let account = self.quotas.function(&version.tenant, &version.function);
        let spec = self.spec(version, code);
        let (host, sandbox, clock) = (self.host.clone(), self.sandbox.clone(), self.clock.clone());
        VersionPool::new(spec, secrets, config, account, host, sandbox, clock)
    }

    fn spec(&self, version: &StoredVersion, code: &CodeStore) -> WorkerSpec {
        let settings = &version.settings;
        let network = self.network_of(version);
        let mut env = settings.env.clone();
        if let Some(url) = self.gateway_url(network, &version.tenant) {
            env.entry("FUNCTIONSPLATFORM_GATEWAY".into()).or_insert(url);
        }
        if let Some(url) = self.otlp_url(network, &version.tenant) {
            tell_exporters(&mut env, &version.function, url);
        }
        let services = self.services_of(&version.tenant);
        let queue = services.get("message_queue").map(|url| host_of(url)).unwrap_or_default();
        WorkerSpec {
            tenant: version.tenant.clone(),
            function: version.function.clone(),
            version: version.version,
            code_dir: code.directory(&version.code_hash),
            handler: version.handler.clone(),
            python: settings.python.clone(),
            preload: self.preload_of(version),
            memory: settings.memory.as_u64(),
            tasks: settings.tasks,
            cpu: settings.cpu,
            cpu_limit: settings.cpu_limit,
            network,
            env,
            path: settings.path.clone(),
            services,
            message_queue_uri: queue,
            log_limit: settings.limits.logs.as_u64(),
            response_limit: settings.limits.response.as_u64(),
            concurrency: settings.concurrency,
            start_limit: START_LIMIT,
        }
    }

    /// Whether a zygote may import a module for a tenant. That every module is allowed is said for
    /// those who trust each other, and named tenants do not.
    fn may_preload(&self, tenant: &Tenant, module: &str) -> bool {
        match &self.preload {
            PreloadPolicy::Any => *tenant == Tenant::default(),
            policy => policy.allows(module),
        }
    }

    /// What was deployed while more was allowed is imported by each worker for itself.
    fn preload_of(&self, version: &StoredVersion) -> Vec<String> {
        let allowed =
            version.settings.preload.iter().filter(|module| self.may_preload(&version.tenant, module));
        allowed.cloned().collect()
    }

    /// What was deployed while its tenant was allowed the host's network is held to what it is allowed
    /// now.
    fn network_of(&self, version: &StoredVersion) -> Network {
        let network = version.settings.network;
        if network != Network::Full || self.tenants.full_network.allows(&version.tenant) {
            return network;
        }
        tracing::warn!(
            tenant = %version.tenant, function = %version.function,
            "its network is internal from now on, because [tenants] full_network does not name its tenant"
        );
        Network::Internal
    }

    /// The data services are the operator's, and their URLs hold passwords.
    fn services_of(&self, tenant: &Tenant) -> BTreeMap<String, String> {
        if self.tenants.services.allows(tenant) { self.services.clone() } else { BTreeMap::new() }
    }

    /// Where a worker's libraries send their spans; nowhere without a network, nor where a key is needed,
    /// which only its author could give it.
    fn otlp_url(&self, network: Network, tenant: &Tenant) -> Option<String> {
        match network {
            Network::None => None,
            Network::Internal => Some(format!("http://{INNER_OTLP}")),
            Network::Full => self.otlp_url.clone().filter(|_| *tenant == Tenant::default()),
        }
    }

    /// Where a worker finds the gateway; nowhere without a network.
    fn gateway_url(&self, network: Network, tenant: &Tenant) -> Option<String> {
        match network {
            Network::None => None,
            Network::Internal => Some(format!("http://{INNER_GATEWAY}")),
            Network::Full if *tenant == Tenant::default() => Some(self.gateway_url.clone()),
            // From there nobody can tell whose the connection is, so the address says it.
            Network::Full => Some(format!("{}/t/{tenant}", self.gateway_url)),
        }
    }

    /// Where a version's good answers are kept, if it wants that.
    pub(super) fn shelf(&self, version: &StoredVersion) -> Option<Shelf> {
        match version.settings.latency.fallback {
            Some(Fallback::Stale(age)) => Some(self.last_good.shelf(&version.tenant, age)),
            Some(Fallback::Function(_)) | None => None,
        }
    }

    /// Fallbacks that could never answer.
    pub(super) fn check_fallback(name: &FunctionName, settings: &Settings) -> Result<(), CatalogError> {
        let detail = match &settings.latency.fallback {
            Some(Fallback::Function(other)) if other == name => {
                format!("{name} is its own fallback; name another function, or remove the key")
            }
            Some(Fallback::Stale(_)) if settings.is_guarded() => {
                "answers to callers who say who they are are never given to others, so there would be no last good answer; remove the key, or name a function as fallback".to_owned()
            }
            _ => return Ok(()),
        };
        Err(CatalogError::field(Code::InvalidSettings, "latency.fallback", detail))
    }

    /// Settings that are valid but not to be had here.
    pub(super) fn check(&self, tenant: &Tenant, settings: &Settings) -> Result<(), CatalogError> {
        self.check_secrets(tenant, settings)?;
        if settings.network == Network::Full && !self.tenants.full_network.allows(tenant) {
            let detail = format!(
                "network is full, which the operator does not allow the tenant {tenant}; take internal, or have the tenant named in full_network under [tenants] of the platform's configuration"
            );
            return Err(CatalogError::field(Code::InvalidSettings, "network", detail));
        }
        if let Some(module) = settings.preload.iter().find(|module| !self.may_preload(tenant, module)) {
            let detail = format!(
                "module {module:?} may not be preloaded on this platform; \
                 name it under preload in the platform's configuration"
            );
            return Err(CatalogError::field(Code::InvalidSettings, "preload", detail));
        }
        Ok(())
    }

    /// What the version preloads, imported; the first of its like waits for the zygote's start.
    pub(super) async fn template(&self, pool: &VersionPool) -> Result<Option<Template>, CatalogError> {
        let template = self.sandbox.template(pool.spec()).map_err(CatalogError::from_start)?;
        if let Some(template) = &template {
            self.sandbox.prepare(template).await.map_err(CatalogError::from_start)?;
        }
        Ok(template)
    }

    pub(super) async fn load(&self, pool: &VersionPool, settings: &Settings) -> Result<Worker, CatalogError> {
        let started = pool.start_worker().await.map_err(CatalogError::from_start);
        let worker = started.map_err(|error| error.masked(pool.secrets()))?;
        if settings.concurrency > 1 && !worker.is_async() {
            let detail = format!(
                "concurrency is {}, but the handler is not async def: only such a handler can serve several calls at once; make it async def, or remove the key",
                settings.concurrency
            );
            return Err(CatalogError::field(Code::InvalidSettings, "concurrency", detail));
        }
        Ok(worker)
    }
}

/// Tells an OpenTelemetry SDK in the environment where to send to and who it is (its variables of these
/// names). What the author has set stays.
fn tell_exporters(env: &mut BTreeMap<String, String>, function: &FunctionName, url: String) {
    let told = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_SERVICE_NAME", function.to_string()),
        // Neither is taken there.
        ("OTEL_METRICS_EXPORTER", "none".to_owned()),
        ("OTEL_LOGS_EXPORTER", "none".to_owned()),
    ];
    for (name, value) in told {
        env.entry(name.to_owned()).or_insert(value);
    }
}

/// The host of a URL, without credentials and port: what the ancestor called its queue's URI.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, _)) => v6.to_owned(),
        None => host.split(':').next().unwrap_or_default().to_owned(),
    }
}
