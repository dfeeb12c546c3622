//! The catalogue: which functions there are, and which answers a path.
//!
//! Readers take a snapshot (one atomic load); deploys and deletes build a new one and swap it.
//! A deploy is accepted after its handler has been loaded in a sandboxed worker; the registry
//! is written before the swap, so that what callers see survives a crash.

pub(crate) mod code_store;
mod error;
mod preloads;
mod scaling;
mod secrets;
mod snapshot;
mod turns;
mod workers;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fp_core::code::Code;
use fp_core::hedge::{HedgeConfig, Hedging};
use fp_core::route::{self, RouteTable, Routed};
use fp_core::settings::{Handler, IdleTime, Network};
use fp_core::{EventType, FunctionName, Manifest, Settings, Tenant, VersionNumber};
use fp_sandbox::{Template, ZygoteReport};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::{Access, AccessError};
use crate::callers::{Callers, Checks};
use crate::last_good::Shelf;
use crate::pool::VersionPool;
use crate::slo::{FunctionBook, SloBook};
use crate::store::registry::{Registry, StoredVersion};

pub use fp_core::route::BadPath;

pub use self::error::CatalogError;
pub use self::scaling::HealthView;
pub use self::secrets::{SecretNotDeleted, SecretUse};

use self::code_store::{CodeHold, CodeStore, Tree};
pub(crate) use self::snapshot::Sight;
use self::snapshot::Snapshot;
use self::turns::Turns;
pub(crate) use self::workers::WorkerSetup;

/// One live version of a function, with its workers.
#[derive(Debug)]
pub struct Deployed {
    /// Whose.
    pub tenant: Tenant,
    /// Which function.
    pub name: FunctionName,
    /// Which version of it.
    pub version: VersionNumber,
    /// Order of creation among all functions: the first created answers a shared event type.
    pub order: u64,
    /// When the function was first created, Unix time in microseconds.
    pub created_us: u64,
    /// When this version was deployed, Unix time in microseconds.
    pub deployed_us: u64,
    /// SHA-256 of the code tree, in hexadecimal.
    pub code_hash: String,
    /// Where the handler is.
    pub handler: Handler,
    /// What calls it.
    pub events: Vec<EventType>,
    /// Everything else.
    pub settings: Arc<Settings>,
    /// Its workers and its queue.
    pub pool: Arc<VersionPool>,
    /// Its rates, percentiles and objective; the same for all versions.
    pub book: Arc<FunctionBook>,
    /// What its callers are checked with; none if it lets everybody in.
    pub(crate) checks: Option<Box<Checks>>,
    /// Its good answers, for when it must refuse; they go with the version.
    pub(crate) last_good: Option<Shelf>,
    /// When its calls get a second attempt; none if they never do.
    pub(crate) hedging: Option<Box<Mutex<Hedging>>>,
    /// Keeps what it preloads imported while it is live.
    _template: Option<Template>,
    /// Keeps its code on disk until its last call has ended.
    code: CodeHold,
}

/// Code as it arrives.
#[derive(Debug, Clone)]
pub enum Source {
    /// The text of one file (`function_code` of `POST /functions`).
    Inline(String),
    /// A zip archive with the function's directory at its root.
    Archive(Bytes),
    /// A directory on this machine (`up DIR`).
    Directory(PathBuf),
}

/// What to deploy.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    /// Whose.
    pub tenant: Tenant,
    /// When that tenant began, as [`Access::tenant_since`] says: a later one of its name gets nothing of
    /// this. 0 for `default`.
    pub tenant_since_us: u64,
    /// The function; the same name again makes a new version.
    pub name: FunctionName,
    /// Where the handler is in the source.
    pub handler: Handler,
    /// What calls it.
    pub events: Vec<EventType>,
    /// Everything else.
    pub settings: Settings,
    /// The code.
    pub source: Source,
}

/// What a verb and a path lead to.
pub type Route = route::Route<Arc<Deployed>>;

/// A route that was found.
pub type Matched = route::Matched<Arc<Deployed>>;

/// Lets one deploy or delete of a function through at a time.
type Gate = Arc<tokio::sync::Mutex<()>>;

/// Gates beyond which those that are not in use are forgotten: some kilobytes.
const MANY_GATES: usize = 256;

/// Archives and directories that are read into memory at once; more wait their turn.
const UNPACKINGS: usize = 2;

/// Functions and routes.
pub struct Catalog {
    snapshot: ArcSwap<Snapshot>,
    registry: Arc<Registry>,
    code: CodeStore,
    workers: WorkerSetup,
    slo: Arc<SloBook>,
    access: Arc<Access>,
    /// One deploy or delete of a function at a time; the value is a gate, not data.
    gates: Mutex<BTreeMap<(Tenant, FunctionName), Gate>>,
    /// How many deploys are carried out at once.
    turns: Turns,
    /// Archives that are unpacked at once: each takes up to 250 MiB while it is.
    unpacking: Arc<Semaphore>,
    /// Held while a new snapshot is made from the latest, written to the registry and swapped in.
    swap: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog")
            .field("functions", &self.snapshot.load().all().count())
            .finish_non_exhaustive()
    }
}

impl Catalog {
    /// The functions that the registry knows (`stored`), ready to be called.
    pub(crate) fn open(
        registry: Arc<Registry>,
        stored: Vec<StoredVersion>,
        data_dir: &Path,
        workers: WorkerSetup,
        slo: Arc<SloBook>,
        access: Arc<Access>,
    ) -> Result<Self, CatalogError> {
        let code = CodeStore::open(data_dir).map_err(CatalogError::from_code)?;
        let wanted: HashSet<&str> = stored.iter().map(|version| version.code_hash.as_str()).collect();
        code.retain(|hash| wanted.contains(hash));
        let mut snapshot = Snapshot::default();
        for version in stored {
            let pool = workers.pool(&version, &code);
            // It imports in the background; what keeps it from that, calls will say.
            let template = workers.sandbox.template(pool.spec()).unwrap_or_else(|error| {
                tracing::warn!(function = %version.function, %error, "nothing is made ahead for its workers");
                None
            });
            let held = code.hold(&version.code_hash);
            held.keep();
            let directory = code.directory(&version.code_hash);
            let checks = workers.callers.checks(&version.tenant, &version.settings, &directory);
            let shelf = workers.shelf(&version);
            let function = Arc::new(Deployed::of(version, pool, template, held, checks, shelf, &slo));
            snapshot.put(function).map_err(CatalogError::from_conflict)?;
        }
        for function in snapshot.all() {
            function.pool.tend();
        }
        Ok(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            registry,
            code,
            workers,
            slo,
            access,
            gates: Mutex::default(),
            turns: Turns::default(),
            unpacking: Arc::new(Semaphore::new(UNPACKINGS)),
            swap: tokio::sync::Mutex::new(()),
        })
    }

    /// All functions of a tenant, first created first.
    pub fn list(&self, tenant: &Tenant) -> Vec<Arc<Deployed>> {
        self.snapshot.load().of_tenant(tenant)
    }

    /// A function by name.
    pub fn get(&self, tenant: &Tenant, name: &FunctionName) -> Option<Arc<Deployed>> {
        self.snapshot.load().get(tenant, name).cloned()
    }

    /// What a verb and a path (as it came, percent-encoded, without query) lead to.
    pub fn route(&self, tenant: &Tenant, verb: &str, raw_path: &str) -> Result<Route, BadPath> {
        self.route_seen(tenant, verb, raw_path, || Sight::All)
    }

    /// The same for somebody who may not see all of it.
    pub(crate) fn route_seen(
        &self,
        tenant: &Tenant,
        verb: &str,
        raw_path: &str,
        sight: impl FnOnce() -> Sight,
    ) -> Result<Route, BadPath> {
        let normal = route::normal_path(raw_path)?;
        Ok(self.snapshot.load().route(tenant, verb, &normal, sight))
    }

    /// What they lead to where there is no other function than this one. One without events answers
    /// whatever it is asked by its name.
    pub(crate) fn route_within(
        function: &Arc<Deployed>,
        verb: &str,
        raw_path: &str,
    ) -> Result<Route, BadPath> {
        let normal = route::normal_path(raw_path)?;
        let anything = ["http|*|/", "http|*|/{*path}"].map(|event| event.parse().expect("an event type"));
        let events = if function.events.is_empty() { &anything[..] } else { &function.events };
        let (name, order) = (&function.name, function.order);
        let only = Routed { name, order, events, function: function.clone() };
        let table = RouteTable::build([only].into_iter());
        Ok(table.map_or(Route::Nothing { near: Vec::new() }, |table| table.find(verb, &normal)))
    }

    /// The path as handlers and records see it: percent-decoded.
    pub fn decoded_path(raw_path: &str) -> Result<String, BadPath> {
        let normal = route::normal_path(raw_path)?;
        Ok(route::finish_decoding(&normal).into_owned())
    }

    /// Makes a new version of a function, loads it, and only then lets it answer. Goes on when the
    /// future is dropped: a client that leaves must not leave half a deploy, or while it waits for its turn,
    /// any.
    pub async fn deploy(self: &Arc<Self>, request: DeployRequest) -> Result<Arc<Deployed>, CatalogError> {
        let catalog = self.clone();
        let turn = self.turns.take(&request.tenant).await;
        let whole = tokio::spawn(async move {
            let _turn = turn;
            catalog.deploy_whole(request).await
        });
        whole.await.expect("a deploy does not panic")
    }

    async fn deploy_whole(&self, request: DeployRequest) -> Result<Arc<Deployed>, CatalogError> {
        let key = (request.tenant.clone(), request.name.clone());
        let _one_at_a_time = self.gate(key).await;
        self.workers.check(&request.tenant, &request.settings)?;
        WorkerSetup::check_fallback(&request.name, &request.settings)?;
        let code = self.store_code(&request).await?;
        self.check_code_quota(&request, code.hash()).await?;
        self.check_own_modules(code.hash(), &request.settings).await?;
        let checks = self.checks(&request, code.hash()).await?;
        let version = self.next_version(&request, code.hash().to_owned()).await?;
        self.snapshot.load().check(&version).map_err(CatalogError::from_conflict)?;
        let wanted = self.workers.pool(&version, &self.code);
        let goes_on =
            self.get(&request.tenant, &request.name).filter(|old| old.goes_on_as(&version, &wanted));
        let pool = goes_on.as_ref().map_or_else(|| wanted.clone(), |old| old.pool.clone());
        let template = self.workers.template(&pool).await?;
        // Workers that go on have loaded the handler.
        let loaded = if goes_on.is_some() && pool.worker_count() > 0 {
            None
        } else {
            let memory = pool.reserve().map_err(|over| CatalogError::over_quota(&over))?;
            // Also where none is free: those who start workers for calls are to know of it.
            let place = self.workers.host.take_place(&request.tenant);
            let began = self.workers.clock.now();
            Some((self.workers.load(&pool, &version.settings).await?, memory, place, began))
        };
        // From the check to the swap nobody else changes the routes: what the registry holds must
        // fit together at the next start.
        let _one_swap = self.swap.lock().await;
        self.check_tenant(&version.tenant, request.tenant_since_us)?;
        let mut next = Snapshot::clone(&self.snapshot.load());
        next.check(&version).map_err(CatalogError::from_conflict)?;
        self.workers.check_secrets(&version.tenant, &version.settings)?;
        // Once more: others were deployed while this one was loaded.
        self.check_code_quota(&request, code.hash()).await?;
        self.registry.put_version(version.clone()).await.map_err(CatalogError::from_store)?;
        code.keep();
        if goes_on.is_some() {
            pool.become_like(&wanted);
        }
        if let Some((worker, memory, place, began)) = loaded
            && version.settings.scaling.idle != IdleTime::After(Duration::ZERO)
        {
            pool.adopt(worker, memory, place, self.workers.clock.now().saturating_sub(began));
            self.workers.host.keep(&pool);
        }
        let shelf = self.workers.shelf(&version);
        let fresh = Arc::new(Deployed::of(version, pool, template, code, checks, shelf, &self.slo));
        fresh.pool.tend();
        let old = next.put(fresh.clone()).map_err(CatalogError::from_conflict)?;
        self.snapshot.store(Arc::new(next));
        if let Some(old) = old {
            if goes_on.is_none() {
                old.pool.close();
            } else if let (Some(old), Some(fresh)) = (&old.hedging, &fresh.hedging) {
                fresh.lock().learn_from(&mut old.lock());
            }
            old.code.let_go();
        }
        Ok(fresh)
    }

    /// Whether a tenant is still the one that began then. Called with `swap` held.
    fn check_tenant(&self, tenant: &Tenant, since_us: u64) -> Result<(), CatalogError> {
        let is_same = self.access.tenant_since(tenant) == Some(since_us);
        if is_same { Ok(()) } else { Err(CatalogError::no_tenant(tenant)) }
    }

    /// As [`deploy`](Self::deploy), unless the live version has the same code and settings.
    pub(crate) async fn deploy_if_changed(
        self: &Arc<Self>,
        request: DeployRequest,
    ) -> Result<Arc<Deployed>, CatalogError> {
        if let Some(live) = self.get(&request.tenant, &request.name)
            && live.handler == request.handler
            && live.events == request.events
            && *live.settings == request.settings
            && live.code_hash == self.store_code(&request).await?.hash()
        {
            return Ok(live);
        }
        self.deploy(request).await
    }

    async fn store_code(&self, request: &DeployRequest) -> Result<CodeHold, CatalogError> {
        let code = self.code.clone();
        let source = request.source.clone();
        let file = request.handler.file.clone();
        let path = request.settings.path.clone();
        let turn = self.turn_to_unpack().await;
        let put = move || {
            let _turn = turn;
            let tree = match &source {
                Source::Inline(text) => Tree::of_file(&file, text),
                Source::Archive(zip) => Tree::of_zip(zip).map_err(CatalogError::from_code)?,
                Source::Directory(directory) => {
                    Tree::of_directory(directory).map_err(CatalogError::from_code)?
                }
            };
            if let Some(missing) = path.iter().find(|directory| !tree.has_directory(directory)) {
                return Err(CatalogError::no_directory(missing));
            }
            code.put(&tree).map_err(CatalogError::from_code)
        };
        let stored = tokio::task::spawn_blocking(put).await;
        stored.expect("the code store does not panic")
    }

    /// The unpacked size of the code of a tenant's live versions, in bytes; what several share counts
    /// once.
    pub(crate) async fn code_bytes(&self, tenant: &Tenant) -> u64 {
        let hashes = self.list(tenant).iter().map(|function| function.code_hash.clone()).collect();
        self.bytes_of(hashes).await
    }

    async fn bytes_of(&self, hashes: HashSet<String>) -> u64 {
        let code = self.code.clone();
        let sum = tokio::task::spawn_blocking(move || hashes.iter().map(|hash| code.bytes(hash)).sum());
        sum.await.expect("the code store does not panic")
    }

    async fn check_code_quota(&self, request: &DeployRequest, hash: &str) -> Result<(), CatalogError> {
        let (quota, _) = self.workers.quotas.of(&request.tenant);
        let Some(most) = quota.code else { return Ok(()) };
        let others = self.list(&request.tenant).into_iter().filter(|function| function.name != request.name);
        let hashes = others.map(|function| function.code_hash.clone()).chain([hash.to_owned()]).collect();
        let wanted = self.bytes_of(hashes).await;
        if wanted > most.as_u64() {
            return Err(CatalogError::over_code_quota(&request.tenant, wanted, most));
        }
        Ok(())
    }

    /// Preloading what the function itself brings would run its code where sandboxes are built.
    async fn check_own_modules(&self, hash: &str, settings: &Settings) -> Result<(), CatalogError> {
        if settings.preload.is_empty() {
            return Ok(());
        }
        let (code, hash) = (self.code.clone(), hash.to_owned());
        let files = tokio::task::spawn_blocking(move || code.files(&hash)).await.unwrap_or_default();
        match preloads::own_module(&files, settings) {
            None => Ok(()),
            Some(detail) => Err(CatalogError::field(Code::InvalidSettings, "preload", detail)),
        }
    }

    /// What the function's callers are to be checked with, from its files where these have it.
    async fn checks(&self, request: &DeployRequest, hash: &str) -> Result<Option<Box<Checks>>, CatalogError> {
        if !request.settings.is_guarded() {
            return Ok(None);
        }
        let (callers, directory) = (self.workers.callers.clone(), self.code.directory(hash));
        let (tenant, settings) = (request.tenant.clone(), request.settings.clone());
        let make = move || {
            if let Some(jwt) = &settings.auth.jwt {
                Callers::check_keys(&tenant, &jwt.jwks, &directory)?;
            }
            Ok(callers.checks(&tenant, &settings, &directory))
        };
        let made = tokio::task::spawn_blocking(make).await.expect("reading keys does not panic");
        made.map_err(|detail| CatalogError::field(Code::InvalidSettings, "auth.jwt.jwks", detail))
    }

    async fn next_version(
        &self,
        request: &DeployRequest,
        code_hash: String,
    ) -> Result<StoredVersion, CatalogError> {
        let next = self.registry.next_version(&request.tenant, &request.name).await;
        let (version, order, created_us) = next.map_err(CatalogError::from_store)?;
        let deployed_us = self.workers.clock.wall_now_us();
        Ok(StoredVersion {
            tenant: request.tenant.clone(),
            function: request.name.clone(),
            version,
            order,
            created_us: created_us.unwrap_or(deployed_us),
            deployed_us,
            code_hash,
            handler: request.handler.clone(),
            events: request.events.clone(),
            settings: request.settings.clone(),
        })
    }

    /// Waits for the turn of a deploy or delete of a function.
    async fn gate(&self, key: (Tenant, FunctionName)) -> tokio::sync::OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.gates.lock();
            // Those that nobody waits for or is in are forgotten, now that the map is held anyway.
            if gates.len() >= MANY_GATES {
                gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            }
            gates.entry(key).or_default().clone()
        };
        gate.lock_owned().await
    }

    /// Removes a function; calls that run end in peace. Goes on when the future is dropped.
    pub async fn delete(self: &Arc<Self>, tenant: &Tenant, name: &FunctionName) -> Result<(), CatalogError> {
        let (catalog, tenant, name) = (self.clone(), tenant.clone(), name.clone());
        let whole = tokio::spawn(async move { catalog.delete_whole(&tenant, &name).await });
        whole.await.expect("a delete does not panic")
    }

    async fn delete_whole(&self, tenant: &Tenant, name: &FunctionName) -> Result<(), CatalogError> {
        let _one_at_a_time = self.gate((tenant.clone(), name.clone())).await;
        let _one_swap = self.swap.lock().await;
        let existed = self.registry.delete_function(tenant, name).await.map_err(CatalogError::from_store)?;
        let mut next = Snapshot::clone(&self.snapshot.load());
        let Some(old) = next.remove(tenant, name).filter(|_| existed) else {
            return Err(CatalogError::not_found(name));
        };
        self.snapshot.store(Arc::new(next));
        old.pool.close();
        old.code.let_go();
        self.slo.remove(tenant, name);
        Ok(())
    }

    /// Forgets a tenant with all its functions and secrets; calls that run end in peace. A deploy that is under
    /// way either comes before and goes with the rest, or finds no tenant. Goes on when the future is
    /// dropped.
    pub async fn delete_tenant(self: &Arc<Self>, tenant: &Tenant) -> Result<(), AccessError> {
        let (catalog, tenant) = (self.clone(), tenant.clone());
        let whole = tokio::spawn(async move { catalog.delete_whole_tenant(&tenant).await });
        whole.await.expect("a delete does not panic")
    }

    async fn delete_whole_tenant(&self, tenant: &Tenant) -> Result<(), AccessError> {
        let _one_swap = self.swap.lock().await;
        self.access.delete_tenant(tenant).await?;
        let mut next = Snapshot::clone(&self.snapshot.load());
        let functions = next.remove_tenant(tenant);
        self.snapshot.store(Arc::new(next));
        for old in functions {
            old.pool.close();
            old.code.let_go();
            self.slo.remove(tenant, &old.name);
        }
        self.workers.secrets.forget_tenant(tenant).await;
        self.workers.quotas.forget(tenant);
        Ok(())
    }

    /// The network of a function whose settings name none: the host's for the operator's, and one of
    /// their own for those of named tenants.
    pub fn default_network(tenant: &Tenant) -> Network {
        if *tenant == Tenant::default() { Settings::default().network } else { Network::Internal }
    }

    /// As [`archive_request`](Self::archive_request), in a turn of its own: it inflates the archive.
    pub(crate) async fn read_archive(
        &self,
        tenant: Tenant,
        name: FunctionName,
        zip: Bytes,
    ) -> Result<DeployRequest, CatalogError> {
        let turn = self.turn_to_unpack().await;
        // Inflating and reading take up to seconds, which a thread that serves others does not have.
        let read = move || {
            let _turn = turn;
            Self::archive_request(tenant, &name, zip)
        };
        tokio::task::spawn_blocking(read).await.expect("reading an archive does not panic")
    }

    async fn turn_to_unpack(&self) -> OwnedSemaphorePermit {
        self.unpacking.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Reads the manifest of an archive that is to become this function. For named tenants
    /// [`DeployRequest::tenant_since_us`] is still to be said.
    pub fn archive_request(
        tenant: Tenant,
        name: &FunctionName,
        zip: Bytes,
    ) -> Result<DeployRequest, CatalogError> {
        let tree = Tree::of_zip(&zip).map_err(CatalogError::from_code)?;
        let manifest = CatalogError::manifest_of(&tree, &tenant)?;
        if manifest.name != *name {
            let detail =
                format!("function.toml names {}, the request {name}; make them agree", manifest.name);
            return Err(CatalogError::field(Code::InvalidManifest, "name", detail));
        }
        Ok(DeployRequest::from_manifest(tenant, manifest, Source::Archive(zip)))
    }

    /// Reads the manifest of a directory on this machine.
    pub fn directory_request(tenant: Tenant, directory: &Path) -> Result<DeployRequest, CatalogError> {
        let tree = Tree::of_directory(directory).map_err(CatalogError::from_code)?;
        let manifest = CatalogError::manifest_of(&tree, &tenant)?;
        Ok(DeployRequest::from_manifest(tenant, manifest, Source::Directory(directory.to_path_buf())))
    }

    /// The zygotes that workers are forked from, with the memory that they take now.
    pub fn zygotes(&self) -> Vec<ZygoteReport> {
        self.workers.sandbox.zygotes()
    }

    /// Relative paths and sizes of a function's files.
    pub async fn source(&self, deployed: &Deployed) -> Vec<(String, u64)> {
        let code = self.code.clone();
        let hash = deployed.code_hash.clone();
        tokio::task::spawn_blocking(move || code.files(&hash)).await.unwrap_or_default()
    }
}

impl Deployed {
    /// Whether its workers go on as those of a later version: their code and all that they are started
    /// from are the same, and something else is not. Who deploys exactly the same gets new workers.
    fn goes_on_as(&self, version: &StoredVersion, wanted: &VersionPool) -> bool {
        let is_same = *self.settings == version.settings && self.events == version.events;
        !is_same && self.code_hash == version.code_hash && self.pool.can_become(wanted)
    }

    fn of(
        version: StoredVersion,
        pool: Arc<VersionPool>,
        template: Option<Template>,
        code: CodeHold,
        checks: Option<Box<Checks>>,
        last_good: Option<Shelf>,
        slo: &SloBook,
    ) -> Self {
        let book = slo.function(&version.tenant, &version.function, version.settings.slo.as_ref());
        pool.account().set(&version.settings.quota);
        let hedge = HedgeConfig::of(&version.settings.latency, version.settings.slo.as_ref());
        Self {
            tenant: version.tenant,
            name: version.function,
            version: version.version,
            order: version.order,
            created_us: version.created_us,
            deployed_us: version.deployed_us,
            code_hash: version.code_hash,
            handler: version.handler,
            events: version.events,
            settings: Arc::new(version.settings),
            pool,
            book,
            checks,
            last_good,
            hedging: hedge.map(|config| Box::new(Mutex::new(Hedging::new(config)))),
            _template: template,
            code,
        }
    }
}

impl DeployRequest {
    fn from_manifest(tenant: Tenant, manifest: Manifest, source: Source) -> Self {
        let Manifest { name, handler, events, settings } = manifest;
        Self { tenant, tenant_since_us: 0, name, handler, events, settings, source }
    }
}
