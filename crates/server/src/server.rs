//! Wiring: builds the rooms in dependency order, binds early, starts late, drains.

mod inner;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fp_core::{Scope, Tenant};
use fp_sandbox::{BelowFloor, OpenFiles, Sandbox, SandboxConfig, SandboxError};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, AccessError, FreshKey, NewKey};
use crate::app::{Addresses, App};
use crate::audit::Audit;
use crate::bodies::BodyBudget;
use crate::callers::Callers;
use crate::catalog::{Catalog, CatalogError, Deployed, WorkerSetup};
use crate::clock::Clock;
use crate::config::{Config, ErrorDetail, TlsSource, USUAL_OTLP};
use crate::history::History;
use crate::http;
use crate::http::api::alert_document;
use crate::http::gateway::{self, Gateway, Peer};
use crate::http::listener::{self, Door, PerAddress, Places};
use crate::http::pages::Port;
use crate::invoke::Invoker;
use crate::notify::Notifier;
use crate::pool::host::HostWorkers;
use crate::quotas::Quotas;
use crate::readiness::Readiness;
use crate::secrets::{Secrets, SecretsError};
use crate::slo::SloBook;
use crate::store::{Registry, StoreError};
use crate::tenants::limit_history;
use crate::tls::{Certificate, TlsError};

/// For calls to notice that their workers are gone: milliseconds, unless the host is far behind.
const CUT_OFF: Duration = Duration::from_secs(2);

/// Why the platform did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error(
        "the {what} cannot listen on {addr}: {source}; choose another address with {flag}, or end what uses it"
    )]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There are named tenants, and the host does not keep them apart.
    #[error(
        "there are tenants, which do not trust each other, and {0}; if they do, start with --allow-weak-isolation-between-tenants"
    )]
    TenantsTooClose(BelowFloor),
    /// The operator's first key cannot be made.
    #[error("the management API is to ask for keys, and the first cannot be made: {0}")]
    FirstKey(#[from] AccessError),
    /// The data directory cannot be used.
    #[error(
        "the data directory {path:?} cannot be used: {source}; fix its permissions or choose another with --data-dir"
    )]
    DataDir {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another platform uses the data directory.
    #[error(
        "the data directory {path:?} is in use by process {pid}; stop it, or choose another with --data-dir"
    )]
    InUse {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        pid: String,
    },
    /// Workers cannot be had.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The registry cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener cannot speak TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The secrets of the registry cannot be read.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The functions of the registry cannot be brought back.
    #[error("the functions of the data directory cannot be brought back: {0}")]
    Catalog(#[from] CatalogError),
}

/// A running platform. [`stop`](Self::stop) it; dropping it ends it without a drain.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    gateway: Arc<Gateway>,
    registry: Arc<Registry>,
    sandbox: Sandbox,
    stop: CancellationToken,
    abort: CancellationToken,
    listeners: Vec<JoinHandle<()>>,
    /// What serves workers from inside their networks.
    inner: JoinHandle<()>,
    housekeeping: JoinHandle<()>,
    /// Until somebody has shown it.
    first_key: Option<FreshKey>,
    /// Locked as long as the platform lives.
    _lock: File,
    /// Nobody listens there as long.
    _held: Vec<socket2::Socket>,
}

/// How the management listeners let people in.
#[derive(Debug, Clone)]
pub struct Doors {
    /// The management API answers only to holders of keys.
    pub api_needs_key: bool,
    /// So do the traces.
    pub traces_needs_key: bool,
    /// Which of them others than this machine's own people can reach, and where.
    pub reachable: Vec<(&'static str, SocketAddr)>,
}

struct Bound {
    gateway: std::net::TcpListener,
    api: std::net::TcpListener,
    traces: std::net::TcpListener,
    otlp: Option<std::net::TcpListener>,
    addresses: Addresses,
    /// The same ports of the other loopback address.
    held: Vec<socket2::Socket>,
}

impl Server {
    /// Starts the platform: everything answers when this returns, and [`App::readiness`]
    /// says that functions are still being deployed.
    /// Calls are served by the runtime that this runs on, all else by `management`.
    pub async fn start(config: Config, management: &Handle) -> Result<Self, StartError> {
        if let Some(complaint) = OpenFiles::raise().complaint() {
            tracing::warn!("{complaint}");
        }
        let lock = lock_data_dir(&config.data_dir)?;
        let data_dir = std::path::absolute(&config.data_dir)
            .map_err(|source| StartError::DataDir { path: config.data_dir.clone(), source })?;
        let bound = bind(&config)?;
        let certificates = Certificates::open(&config, &data_dir)?;
        let clock = Clock::start();
        let registry = Arc::new(Registry::open(&data_dir)?);
        let audit = Arc::new(Audit::open(&data_dir)?);
        let secrets = open_secrets(&config, &registry, &data_dir).await?;
        let history = Arc::new(History::open(&config.history, &data_dir, clock.clone())?);
        let slo = Arc::new(SloBook::open(registry.clone(), clock.clone()).await);
        // Ten thousand functions are read and checked in the time that a zygote takes to start.
        let starting = Sandbox::start(sandbox_config(&config, bound.addresses, &data_dir));
        let (sandbox, stored) = tokio::join!(starting, registry.live_versions());
        let (sandbox, stored) = (sandbox?, stored?);
        let quotas = Arc::new(Quotas::open(registry.clone()).await?);
        let secrets = Arc::new(secrets);
        let guarded_ports = vec![bound.addresses.api.port(), bound.addresses.traces.port()];
        let callers = Callers::new(secrets.clone(), clock.clone(), management.clone(), guarded_ports);
        let host = HostWorkers::of(&sandbox, config.max_workers, clock.clone());
        quotas.weigh_by({
            let host = host.clone();
            move |tenant, weight| host.weigh(tenant, weight)
        });
        let setup = WorkerSetup {
            sandbox: sandbox.clone(),
            host,
            clock: clock.clone(),
            secrets,
            callers: Arc::new(callers),
            last_good: Arc::default(),
            services: config.services.clone(),
            tenants: config.tenants.clone(),
            preload: config.preload.allowed.clone(),
            quotas: quotas.clone(),
            otlp_url: otlp_url(&config, bound.addresses),
            gateway_url: format!(
                "{}://{}",
                bound.addresses.gateway_scheme(),
                reachable(bound.addresses.gateway)
            ),
        };
        let access = Arc::new(Access::open(registry.clone(), clock.clone()).await?);
        if access.has_named_tenants() && !config.allow_weak_isolation_between_tenants {
            sandbox.host().meets_the_floor().map_err(StartError::TenantsTooClose)?;
        }
        limit_history(&history, &Tenant::default(), &quotas.of(&Tenant::default()).0);
        for tenant in access.tenants() {
            history.show_tenant(&tenant.name, tenant.created_us);
            limit_history(&history, &tenant.name, &quotas.of(&tenant.name).0);
        }
        let catalog =
            Arc::new(Catalog::open(registry.clone(), stored, &data_dir, setup, slo.clone(), access.clone())?);
        let bodies = BodyBudget::of_host();
        let invoker = Arc::new(Invoker {
            catalog: catalog.clone(),
            history: history.clone(),
            registry: registry.clone(),
            sandbox: sandbox.clone(),
            clock: clock.clone(),
            bodies: bodies.clone(),
            status_of: gateway::answer::status_of,
            background: Default::default(),
            endings: Default::default(),
        });
        invoker.resume().await;
        let errors = match config.errors {
            Some(detail) => gateway::Detail::Always(detail == ErrorDetail::Full),
            None if bound.addresses.gateway.ip().is_loopback() => gateway::Detail::WithoutTenants,
            None => gateway::Detail::Always(false),
        };
        let gateway = Arc::new(Gateway::new(
            catalog.clone(),
            invoker.clone(),
            access.clone(),
            bodies.clone(),
            clock.clone(),
            config.gateway_hosts.clone(),
            errors,
        ));
        let pages = format!("{}://{}", bound.addresses.management_scheme(), bound.addresses.api);
        let app = Arc::new(App {
            gateway,
            bodies,
            addresses: bound.addresses,
            started_us: clock.wall_now_us(),
            clock: clock.clone(),
            access,
            audit,
            quotas,
            catalog,
            invoker,
            history,
            notifier: Notifier::new(&config.notify, pages, clock.clone(), alert_document),
            slo,
            otlp: Default::default(),
            connections: PerAddress::new(config.connections_per_address),
            readiness: Readiness::default(),
            config,
        });
        let first_key = first_key(&app).await?;
        let server = Self::serve(app, registry, sandbox, bound, certificates, lock, management);
        Ok(Self { first_key, ..server })
    }

    fn serve(
        app: Arc<App>,
        registry: Arc<Registry>,
        sandbox: Sandbox,
        bound: Bound,
        certificates: Certificates,
        lock: File,
        management: &Handle,
    ) -> Self {
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let gateway = app.gateway.clone();
        let answering = gateway.clone();
        let answer = move |request, peer| answering.clone().answer(request, Peer::Address(peer));
        // A quarter of all open files for those who call, little for those who manage: workers have
        // half (see `OpenFiles`), and a reserve is left.
        let files = OpenFiles::now();
        let most = |one_in| files.share(one_in).min(listener::MAX_CONNECTIONS);
        let door = |one_in, certificate: &Option<Arc<Certificate>>| Door {
            places: Places::new(most(one_in)),
            per_address: Some(app.connections.on_listener(most(one_in))),
            certificate: certificate.clone(),
        };
        let outer = door(4, &certificates.gateway);
        let managing = || door(32, &certificates.management);
        let api = http::served(http::api_router(&app));
        let traces = http::served(http::traces_router(&app));
        let mut listeners = vec![
            tokio::spawn(listener::serve(bound.gateway, outer, answer, stop.clone(), abort.clone())),
            management.spawn(listener::serve(bound.api, managing(), api, stop.clone(), abort.clone())),
            management.spawn(listener::serve(bound.traces, managing(), traces, stop.clone(), abort.clone())),
        ];
        if let Some(otlp) = bound.otlp {
            let answer = http::served(http::otlp::router(&app));
            let door = managing();
            listeners.push(management.spawn(listener::serve(
                otlp,
                door,
                answer,
                stop.clone(),
                abort.clone(),
            )));
        }
        let listeners_inside = sandbox.inner_listeners().expect("nobody else serves them");
        let inner = {
            let (app, management) = (app.clone(), management.clone());
            tokio::spawn(inner::serve(listeners_inside, app, management, most(16), abort.clone()))
        };
        let housekeeping = management.spawn(keep_house(app.clone(), certificates));
        Self {
            app,
            gateway,
            registry,
            sandbox,
            stop,
            abort,
            listeners,
            inner,
            housekeeping,
            first_key: None,
            _lock: lock,
            _held: bound.held,
        }
    }

    /// The rooms, for what starts with the platform.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The operator's first key, if it was made just now: to be shown, once.
    pub fn take_first_key(&mut self) -> Option<FreshKey> {
        self.first_key.take()
    }

    /// How the management listeners let people in.
    pub fn doors(&self) -> Doors {
        let Addresses { api, traces, .. } = self.app.addresses;
        let otlp = self.app.addresses.otlp.map(|otlp| ("OTLP listener", otlp));
        let all = [("management API", api), ("trace listener", traces)].into_iter().chain(otlp);
        Doors {
            api_needs_key: self.app.needs_key(Port::Api),
            traces_needs_key: self.app.needs_key(Port::Traces),
            reachable: all.filter(|(_, addr)| !addr.ip().is_loopback()).collect(),
        }
    }

    /// The certificate that clients must be told to trust, where one was made for a first look.
    pub fn to_trust(&self) -> Option<PathBuf> {
        let config = &self.app.config;
        let is_own = |source: &Option<TlsSource>| *source == Some(TlsSource::SelfSigned);
        let own = is_own(&config.gateway_tls) || is_own(&config.management_tls);
        own.then(|| config.data_dir.join(crate::tls::SELF_SIGNED))
    }

    /// Where things are.
    pub fn addresses(&self) -> Addresses {
        self.app.addresses
    }

    /// The function directories in a directory: itself, or those right below it, sorted.
    pub fn function_dirs(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
        if directory.join("function.toml").is_file() {
            return Ok(vec![directory.to_path_buf()]);
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.join("function.toml").is_file() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Deploys one function directory. The same code and settings as the live version's make no
    /// new version.
    pub async fn deploy_dir(&self, directory: &Path) -> Result<Arc<Deployed>, CatalogError> {
        let request = Catalog::directory_request(Tenant::default(), directory)?;
        self.app.catalog.deploy_if_changed(request).await
    }

    /// Stops: no new connections, running calls end within the limit, then everything goes.
    pub async fn stop(self, limit: Duration) {
        self.app.readiness.on_stop();
        self.stop.cancel();
        let listeners = self.listeners;
        let drained = async {
            for listener in listeners {
                // A listener that panicked has nothing left to drain.
                let _ = listener.await;
            }
            Self::calls_ended(&self.gateway, &self.app.invoker).await;
        };
        if tokio::time::timeout(limit, drained).await.is_err() {
            tracing::warn!(?limit, "calls still ran at the end of the drain and were cut off");
        }
        self.abort.cancel();
        self.housekeeping.abort();
        // They have ended their own, unless they panicked.
        let _ = tokio::join!(self.housekeeping, self.inner);
        self.sandbox.shutdown().await;
        // What was cut off notices now that no handler runs, and is on the record before that is closed.
        let noticed = Self::calls_ended(&self.gateway, &self.app.invoker);
        if tokio::time::timeout(CUT_OFF, noticed).await.is_err() {
            tracing::warn!("calls that were cut off have not ended, and are not on the record");
        }
        self.app.access.tick();
        self.app.slo.close().await;
        self.app.history.close().await;
        self.app.audit.close().await;
        self.registry.close().await;
    }
}

impl Server {
    /// Waits for the calls that no connection waits for.
    async fn calls_ended(gateway: &Gateway, invoker: &Invoker) {
        gateway.drain().await;
        invoker.stop_background().await;
        invoker.ended().await;
    }
}

/// Where a listener asks for keys and nobody has one that administers the platform, one is made:
/// otherwise nobody could ever make the first.
async fn first_key(app: &App) -> Result<Option<FreshKey>, AccessError> {
    let is_needed = app.needs_key(Port::Api) || app.needs_key(Port::Traces);
    if !is_needed || app.access.has_operators_key() {
        return Ok(None);
    }
    let new = NewKey {
        tenant: Tenant::default(),
        name: "operator".parse().expect("a name"),
        scopes: [Scope::Admin].into_iter().collect(),
        expires_us: None,
    };
    app.access.create_key(new).await.map(Some)
}

async fn keep_house(app: Arc<App>, certificates: Certificates) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    let mut looking = tokio::task::spawn(async {});
    let mut explaining = tokio::task::spawn(async {});
    // It ends with this task.
    let mut showing = tokio::task::JoinSet::new();
    showing.spawn(app.notifier.clone().keep_showing(app.slo.clone()));
    loop {
        every.tick().await;
        app.clock.resync();
        app.slo.tick(app.clock.now());
        app.slo.look();
        // It asks history, which may be on a slow disk.
        if explaining.is_finished() {
            let app = app.clone();
            explaining = tokio::task::spawn(async move { while app.slo.explain_next(&app.history).await {} });
        }
        app.notifier.look(&app.slo);
        app.catalog.note_workers(app.clock.now());
        app.catalog.keep_schedules(app.clock.wall_now_us());
        app.access.tick();
        // It reads files, which may be on a disk that is slow or gone: nothing else waits for that, and
        // the next look comes after this one.
        if looking.is_finished() {
            let certificates = certificates.clone();
            looking = tokio::task::spawn_blocking(move || certificates.look());
        }
    }
}

/// What the listeners show; the same object where both have one source, so that it is read once.
#[derive(Debug, Clone)]
struct Certificates {
    gateway: Option<Arc<Certificate>>,
    management: Option<Arc<Certificate>>,
}

impl Certificates {
    fn open(config: &Config, data_dir: &Path) -> Result<Self, TlsError> {
        let own = [config.gateway_addr, config.api_addr, config.traces_addr].map(|address| address.ip());
        let open = |source: &Option<TlsSource>| {
            source.as_ref().map(|source| Certificate::open(source, data_dir, &own)).transpose()
        };
        let gateway = open(&config.gateway_tls)?;
        let is_same = config.gateway_tls == config.management_tls;
        let management = if is_same { gateway.clone() } else { open(&config.management_tls)? };
        Ok(Self { gateway, management })
    }

    fn look(&self) {
        self.gateway.iter().chain(&self.management).for_each(|certificate| certificate.look());
    }
}

fn sandbox_config(config: &Config, addresses: Addresses, data_dir: &Path) -> SandboxConfig {
    SandboxConfig {
        run_dir: data_dir.join("run"),
        executable: config.executable.clone(),
        python: config.python.clone(),
        blanks: config.blanks,
        isolation: config.isolation,
        worker_memory: config.worker_memory,
        guarded_ports: vec![addresses.api.port(), addresses.traces.port()],
        served_ports: [addresses.gateway, addresses.api, addresses.traces]
            .into_iter()
            .chain(addresses.otlp)
            .map(|at| at.port())
            .collect(),
        preload: config.preload.clone(),
    }
}

async fn open_secrets(
    config: &Config,
    registry: &Arc<Registry>,
    data_dir: &Path,
) -> Result<Secrets, SecretsError> {
    let (key_file, discard) = (config.secrets_key_file.as_deref(), config.discard_unreadable_secrets);
    Secrets::open(registry.clone(), data_dir, key_file, discard).await
}

fn bind(config: &Config) -> Result<Bound, StartError> {
    let listen = |what, addr, flag| {
        listener::bind(addr).map_err(|source| StartError::Bind { what, addr, flag, source })
    };
    let gateway = listen("gateway", config.gateway_addr, "--gateway-addr")?;
    let api = listen("management API", config.api_addr, "--api-addr")?;
    let traces = listen("trace listener", config.traces_addr, "--traces-addr")?;
    let otlp = match config.otlp_addr {
        Some(addr) => Some(listen("OTLP listener", addr, "--otlp-addr")?),
        // Nobody asked for it: a collector of their own may be there.
        None => listener::bind(USUAL_OTLP).ok(),
    };
    let all = [&gateway, &api, &traces].into_iter().chain(&otlp);
    let held = all.filter_map(listener::hold_other_loopback).collect();
    let of = |listener: &std::net::TcpListener, asked| listener.local_addr().unwrap_or(asked);
    let addresses = Addresses {
        gateway: of(&gateway, config.gateway_addr),
        api: of(&api, config.api_addr),
        traces: of(&traces, config.traces_addr),
        otlp: otlp.as_ref().map(|otlp| of(otlp, config.otlp_addr.unwrap_or(USUAL_OTLP))),
        gateway_tls: config.gateway_tls.is_some(),
        management_tls: config.management_tls.is_some(),
    };
    Ok(Bound { gateway, api, traces, otlp, addresses, held })
}

/// Where functions in the host's network send their spans, if whoever does needs to show and trust
/// nothing.
fn otlp_url(config: &Config, addresses: Addresses) -> Option<String> {
    let is_open = !addresses.management_tls && !addresses.otlp_needs_key(config);
    addresses.otlp.filter(|_| is_open).map(|otlp| format!("http://{}", reachable(otlp)))
}

/// The address under which functions on this host reach a listener.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let loopback: std::net::IpAddr = match addr {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    if addr.ip().is_unspecified() { SocketAddr::new(loopback, addr.port()) } else { addr }
}

/// Makes the data directory ours: a lock that the kernel drops with us, and our pid for others.
fn lock_data_dir(path: &Path) -> Result<File, StartError> {
    let cannot = |source| StartError::DataDir { path: path.to_path_buf(), source };
    std::fs::create_dir_all(path).map_err(cannot)?;
    let lock_path = path.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut lock = options.open(&lock_path).map_err(cannot)?;
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        lock.read_to_string(&mut pid).map_err(cannot)?;
        return Err(StartError::InUse { path: path.to_path_buf(), pid: pid.trim().to_owned() });
    }
    lock.set_len(0).map_err(cannot)?;
    lock.rewind().map_err(cannot)?;
    writeln!(lock, "{}", std::process::id()).map_err(cannot)?;
    Ok(lock)
}
