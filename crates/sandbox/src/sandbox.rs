//! The platform's handle on the launcher: orders go out, workers and deaths come in.
//!
//! One supervisor task owns the launcher's process and the reading side of its socket. When
//! the launcher dies, every worker died with it: their owners learn so, and a new launcher
//! sweeps and takes over; starts that come meanwhile wait for it.

mod link;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use fp_core::Tenant;
use fp_core::settings::Network;
use fp_core::share::DEFAULT_WEIGHT;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout, timeout_at};

use crate::control::{FromLauncher, Init, StartOrder, ToLauncher};
use crate::fds;
use crate::host::{HostReport, Isolation, memory_of};
use crate::inner::{Inner, InnerListener};
use crate::open_files::OpenFiles;
use crate::preload::{PreloadConfig, Template, TemplateKey, Want, Wanted, ZygoteReport};
use crate::protocol::LoadHead;
use crate::python::{self, Python, PythonError};
use crate::secrets::SecretFrames;
use crate::spec::WorkerSpec;
use crate::start::StartError;
use crate::worker::Worker;

use self::link::{Handed, Link};

/// The launcher gives up the imports of a zygote after half of that.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Before a launcher that was told to end is killed: above what it allows itself for the death of
/// thousands of workers and the removal of their groups. Without any it takes milliseconds.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// Until a launcher is told again what it had no room to hear: it waits for us in turn.
const RETELL_PAUSE: Duration = Duration::from_millis(20);
/// Between the death of a launcher and the next try, doubled by each failure.
const RESTART_PAUSE: Duration = Duration::from_millis(50);
/// The longest of these pauses.
const MAX_RESTART_PAUSE: Duration = Duration::from_secs(5);

/// How often room is made for one start: another may take what was made.
const ROOM_TRIES: usize = 8;

/// Who ends idle workers: one of anybody's when there is no room for another, some of a tenant's when
/// memory is short.
struct MakeRoom {
    anybodys: Box<dyn Fn() -> bool + Send + Sync>,
    tenants: Box<dyn Fn(&Tenant) + Send + Sync>,
}

impl fmt::Debug for MakeRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeRoom")
    }
}

/// How the sandbox is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxConfig {
    /// A directory of ours alone (below the locked data directory): made at the start, removed
    /// at the end; leftovers of an earlier life in it are swept.
    pub run_dir: PathBuf,
    /// The executable that becomes the launcher when its first argument is
    /// [`crate::LAUNCHER_ARGUMENT`]; normally `std::env::current_exe()`.
    pub executable: PathBuf,
    /// The default Python; none means the newest found.
    pub python: Option<PathBuf>,
    /// Blank workers kept ready for the default Python.
    pub blanks: usize,
    /// TCP ports of this host that no worker may reach: the platform's own but the gateway's.
    pub guarded_ports: Vec<u16>,
    /// TCP ports that the platform serves: on no other address of this host may a worker answer there.
    pub served_ports: Vec<u16>,
    /// What zygotes may import for their workers, and from where.
    pub preload: PreloadConfig,
    /// Memory that all workers together may take, in bytes; none means what the host can spare.
    pub worker_memory: Option<u64>,
    /// Whether a host below the floor will do. Asked of each launcher, also after a crash.
    pub isolation: Isolation,
}

/// Why the sandbox cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No usable Python.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// The launcher or the zygote did not come up.
    #[error("the sandbox does not start: {0}")]
    Host(String),
}

/// The sandbox of one platform. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

/// Dropping the last handle ends the supervisor, which ends the launcher by closing its socket.
#[derive(Debug)]
struct Shared {
    state: Arc<State>,
    /// Where it was started: the threads that serve calls.
    runtime: Handle,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    inner: Inner,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(supervisor) = lock(&self.supervisor).take() {
            supervisor.abort();
        }
    }
}

/// What callers and the supervisor share.
#[derive(Debug)]
struct State {
    config: SandboxConfig,
    /// All that were found; the first is the default.
    pythons: Vec<Python>,
    /// With those of them that workers can use, in the launcher's numbering.
    host: Mutex<HostReport>,
    /// As the launcher last told.
    zygotes: Mutex<Vec<ZygoteReport>>,
    /// Templates that live versions need; each launcher is told of all of them.
    wanted: Arc<watch::Sender<Wanted>>,
    /// The launcher that takes orders; none while there is none.
    link: watch::Sender<Option<Arc<Link>>>,
    /// What tenants weigh, those that were given a weight; each launcher is told of all of them.
    weights: watch::Sender<BTreeMap<Tenant, f64>>,
    /// Workers that may run at once, for want of open files.
    most_workers: usize,
    places: Arc<Semaphore>,
    room: OnceLock<MakeRoom>,
    next_request: AtomicU64,
    /// Above every worker id seen.
    next_worker: AtomicU64,
    closing: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing between lock and unlock can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    /// Starts the launcher, the default Python's zygote and, in the background, the blanks.
    pub async fn start(config: SandboxConfig) -> Result<Self, SandboxError> {
        let host = |what: &str, e: &dyn fmt::Display| SandboxError::Host(format!("{what}: {e}"));
        let wanted = config.python.clone();
        let found = tokio::task::spawn_blocking(move || python::all_pythons(wanted)).await;
        let pythons = found.map_err(|e| host("looking for Pythons", &e))??;
        std::fs::create_dir_all(&config.run_dir)
            .map_err(|e| host(&config.run_dir.display().to_string(), &e))?;
        let run_dir = config.run_dir.canonicalize().map_err(|e| host("the run directory", &e))?;
        let mut config = config;
        for layer in &mut config.preload.layers {
            let real = layer.canonicalize();
            *layer = real.map_err(|e| host(&format!("the layer {}", layer.display()), &e))?;
        }
        let most_workers = OpenFiles::now().workers().min(Semaphore::MAX_PERMITS);
        let state = Arc::new(State {
            config: SandboxConfig { run_dir, ..config },
            pythons,
            host: Mutex::new(HostReport::unknown()),
            zygotes: Mutex::default(),
            wanted: Arc::new(watch::Sender::new(Wanted::new())),
            link: watch::Sender::new(None),
            weights: watch::Sender::new(BTreeMap::new()),
            most_workers,
            places: Arc::new(Semaphore::new(most_workers)),
            room: OnceLock::new(),
            next_request: AtomicU64::new(1),
            next_worker: AtomicU64::new(first_worker()),
            closing: watch::Sender::new(false),
        });
        let (link, child) = state.launch().await.map_err(SandboxError::Host)?;
        let supervisor = tokio::spawn(supervise(state.clone(), link, child));
        let supervisor = Mutex::new(Some(supervisor));
        Ok(Self {
            shared: Arc::new(Shared { state, runtime: Handle::current(), supervisor, inner: Inner::new() }),
        })
    }

    /// What this host lets us enforce.
    pub fn host(&self) -> HostReport {
        lock(&self.shared.state.host).clone()
    }

    /// The zygotes there are, with the memory that they take now.
    pub fn zygotes(&self) -> Vec<ZygoteReport> {
        let mut zygotes = lock(&self.shared.state.zygotes).clone();
        for zygote in &mut zygotes {
            zygote.memory = memory_of(zygote.pid, "VmRSS");
        }
        zygotes
    }

    /// Keeps at hand what a version's workers are made from, when it preloads anything or has a
    /// network of its own. A zygote of its own starts in the background; [`prepare`](Self::prepare)
    /// waits for it.
    pub fn template(&self, spec: &WorkerSpec) -> Result<Option<Template>, StartError> {
        if spec.preload.is_empty() && spec.network == Network::Full {
            return Ok(None);
        }
        let state = &self.shared.state;
        let want = Want { template: state.template_key(spec)?, network: spec.network };
        Template::new(want, &state.wanted).map(Some).map_err(StartError::Preload)
    }

    /// Waits until a template's zygote has imported everything; the error says what it could not.
    pub async fn prepare(&self, template: &Template) -> Result<(), StartError> {
        let late = || StartError::Host(format!("the zygote was not ready within {READY_LIMIT:?}"));
        timeout(READY_LIMIT, self.shared.state.prepare(&template.want.template)).await.map_err(|_| late())?
    }

    /// The listeners inside workers' networks, each as its worker starts; none when they have been
    /// taken. Who takes them serves them until the receiver is dropped.
    pub fn inner_listeners(&self) -> Option<mpsc::UnboundedReceiver<InnerListener>> {
        self.shared.inner.take()
    }

    /// Whom to ask to end an idle worker, when a start finds no room: true if one was ended; and whom
    /// to tell that a tenant should end some of its own, because memory is short and it has more than
    /// its share. Only the first that is told is asked.
    pub fn make_room_by(
        &self,
        anybodys: impl Fn() -> bool + Send + Sync + 'static,
        tenants: impl Fn(&Tenant) + Send + Sync + 'static,
    ) {
        let room = MakeRoom { anybodys: Box::new(anybodys), tenants: Box::new(tenants) };
        // A second one would be of a second catalogue, which there never is.
        self.shared.state.room.set(room).ok();
    }

    /// What a tenant weighs against others that want the CPU or memory at the same time; 1 is the
    /// default. Holds until it is said anew, also for later launchers.
    pub fn weigh(&self, tenant: &Tenant, weight: f64) {
        let is_usual = (weight - DEFAULT_WEIGHT).abs() < f64::EPSILON;
        self.shared.state.weights.send_if_modified(|weights| {
            // The launcher remembers what it was told, so a weight is taken back, not left out.
            let is_news = !is_usual || weights.contains_key(tenant);
            if is_news {
                weights.insert(tenant.clone(), weight);
            }
            is_news
        });
    }

    /// Workers that may run at once, for want of open files.
    pub fn most_workers(&self) -> usize {
        self.shared.state.most_workers
    }

    /// The runtime that it was started on, on which its workers' descriptors are watched.
    pub fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// A worker with the spec's handler loaded: a claimed blank one, or one forked now.
    pub async fn start_worker(&self, spec: &WorkerSpec) -> Result<Worker, StartError> {
        self.start_worker_with(spec, None).await
    }

    /// The same for a function that may read secrets: its code has them while it is loaded.
    pub async fn start_worker_with(
        &self,
        spec: &WorkerSpec,
        secrets: Option<&SecretFrames>,
    ) -> Result<Worker, StartError> {
        let deadline = Instant::now() + spec.start_limit;
        let state = &self.shared.state;
        let place = state.place()?;
        let obtained = timeout_at(deadline, state.obtain(spec)).await;
        let late = || StartError::Host(format!("no worker was handed over within {:?}", spec.start_limit));
        let mut handed = obtained.map_err(|_| late())??;
        let code_dir = handed.started.code_dir.clone();
        if let Some(listeners) = handed.listeners.take() {
            // Before the handler is loaded: it may call others while it is.
            let (worker, exit) = (handed.started.worker, handed.exit.clone());
            self.shared.inner.give(InnerListener::new(listeners, spec, worker, exit));
        }
        let worker = {
            // Its descriptors wake the threads that will call it, whoever asked for it.
            let _calls = self.shared.runtime.enter();
            handed.into_worker(spec, place)
        };
        let mut worker = worker.map_err(|e| StartError::Host(e.to_string()))?;
        worker.load(&load_head(spec, code_dir), secrets, deadline, spec.start_limit).await?;
        Ok(worker)
    }

    /// Ends every worker, zygote and the launcher; returns when nothing is left.
    pub async fn shutdown(&self) {
        let state = &self.shared.state;
        state.closing.send_replace(true);
        let link = state.link.borrow().clone();
        if let Some(link) = link {
            // A launcher that cannot be told is dying or dead; the supervisor sees to it.
            link.send(&ToLauncher::Shutdown).await.ok();
        }
        let supervisor = lock(&self.shared.supervisor).take();
        if let Some(supervisor) = supervisor {
            supervisor.await.ok();
        }
    }
}

/// Worker ids are unique within a data directory's life without a file that counts them: they
/// go on from the time of the start, a thousand per second of it.
fn first_worker() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() * 1000
}

fn load_head(spec: &WorkerSpec, code_dir: String) -> LoadHead {
    LoadHead {
        code_dir,
        file: spec.handler.file.clone(),
        callable: spec.handler.callable.clone(),
        path: spec.path.clone(),
        env: spec.env.clone(),
        function: spec.function.to_string(),
        version: spec.version.0,
        tenant: spec.tenant.to_string(),
        services: spec.services.clone(),
        message_queue_uri: spec.message_queue_uri.clone(),
        log_limit: spec.log_limit,
        response_limit: spec.response_limit,
        concurrency: spec.concurrency,
    }
}

/// Tells the launcher when nobody waits any more.
struct Waiting<'a> {
    link: &'a Link,
    request: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if lock(&self.link.waiting).remove(&self.request).is_some() {
            let message = serde_json::to_vec(&ToLauncher::Abandon(self.request)).expect("plain data");
            // Without it the launcher hands the worker over, and it is ended on arrival.
            fds::send(self.link.control.get_ref(), &message, &[]).ok();
        }
    }
}

impl State {
    /// A worker's share of the open files, until it is dropped.
    fn place(&self) -> Result<OwnedSemaphorePermit, StartError> {
        for _ in 0..ROOM_TRIES {
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                return Ok(place);
            }
            if !self.room.get().is_some_and(|room| (room.anybodys)()) {
                break;
            }
        }
        let files = OpenFiles::now();
        Err(StartError::TooMany { workers: files.workers(), limit: files.limit() })
    }

    async fn obtain(&self, spec: &WorkerSpec) -> Result<Handed, StartError> {
        let link = self.live_link().await?;
        let template = self.template_key(spec)?;
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let order = StartOrder {
            request,
            tenant: spec.tenant.clone(),
            template,
            network: spec.network,
            code_dir: spec.code_dir.clone(),
            memory: spec.memory,
            tasks: spec.tasks,
            cpu: spec.cpu,
            cpu_limit: spec.cpu_limit,
        };
        let (sender, receiver) = oneshot::channel();
        lock(&link.waiting).insert(request, sender);
        let _waiting = Waiting { link: &link, request };
        let lost = || StartError::Host("the launcher died; another takes its place".into());
        link.send(&ToLauncher::Start(order)).await.map_err(|_| lost())?;
        receiver.await.map_err(|_| lost())?
    }

    async fn prepare(&self, template: &TemplateKey) -> Result<(), StartError> {
        let link = self.live_link().await?;
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&link.preparing).insert(request, sender);
        let lost = || StartError::Host("the launcher died; another takes its place".into());
        let message = ToLauncher::Prepare { request, template: template.clone() };
        link.send(&message).await.map_err(|_| lost())?;
        receiver.await.map_err(|_| lost())?
    }

    /// The launcher that takes orders, waited for while another takes its place.
    async fn live_link(&self) -> Result<Arc<Link>, StartError> {
        let mut link = self.link.subscribe();
        let link = link.wait_for(Option::is_some).await.ok().and_then(|link| link.clone());
        let closed = || StartError::Host("the platform is ending".into());
        link.filter(|_| !*self.closing.borrow()).ok_or_else(closed)
    }

    fn template_key(&self, spec: &WorkerSpec) -> Result<TemplateKey, StartError> {
        let python = self.python_for(spec.python.as_deref())?;
        TemplateKey::new(python, &spec.preload).map_err(StartError::Preload)
    }

    fn python_for(&self, wanted: Option<&str>) -> Result<usize, StartError> {
        let Some(wanted) = wanted else { return Ok(0) };
        let usable = &lock(&self.host).pythons;
        usable.iter().position(|python| python.is(wanted)).ok_or_else(|| {
            let found: Vec<_> = usable.iter().map(Python::version_text).collect();
            let found = found.join(", ");
            StartError::Python(format!("Python {wanted} is not on this host, which has {found}; change python in the function's manifest"))
        })
    }

    /// Starts a launcher and waits until its default zygote stands.
    async fn launch(&self) -> Result<(Arc<Link>, Child), String> {
        let text = |what: &str, e: &dyn fmt::Display| format!("{what}: {e}");
        let (ours, theirs) = fds::message_pair().map_err(|e| text("a socket", &e))?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|e| text("a socket", &e))?;
        let mut command = Command::new(&self.config.executable);
        command.arg(crate::LAUNCHER_ARGUMENT).stdin(Stdio::from(theirs));
        let what = self.config.executable.display().to_string();
        let mut child = command.spawn().map_err(|e| text(&what, &e))?;
        // It holds a copy of the launcher's end, which must close with the launcher.
        drop(command);
        let control = fds::watch(ours).map_err(|e| text("a socket", &e))?;
        let link = Arc::new(Link {
            control,
            preparing: Mutex::default(),
            waiting: Mutex::default(),
            workers: Mutex::default(),
        });
        let init = Init {
            run_dir: self.config.run_dir.clone(),
            pythons: self.pythons.clone(),
            blanks: self.config.blanks,
            guarded_ports: self.config.guarded_ports.clone(),
            served_ports: self.config.served_ports.clone(),
            preload: self.config.preload.clone(),
            first_worker: self.next_worker.load(Ordering::Relaxed),
            worker_memory: self.config.worker_memory,
        };
        link.send(&ToLauncher::Init(init)).await.map_err(|e| text("telling the launcher", &e))?;
        let ready = timeout(READY_LIMIT, link.receive(&mut vec![0; fds::MAX_MESSAGE])).await;
        let why = match ready {
            Ok(Ok(Some((FromLauncher::Ready(report), _)))) => {
                let floor = match self.config.isolation {
                    Isolation::Best => Ok(()),
                    Isolation::Strict => report.meets_the_floor(),
                };
                *lock(&self.host) = report;
                match floor {
                    Ok(()) => {
                        self.link.send_replace(Some(link.clone()));
                        return Ok((link, child));
                    }
                    Err(below) => below.to_string(),
                }
            }
            Ok(Ok(Some((FromLauncher::Failed(why), _)))) => why,
            Ok(Ok(Some(_))) => "the launcher speaks out of turn".into(),
            Ok(Ok(None)) => "the launcher ended at once; its complaint is above".into(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the zygote was not ready within {READY_LIMIT:?}"),
        };
        drop(link);
        wait_or_kill(&mut child).await;
        Err(why)
    }
}

/// Follows launchers, one after the other, until the platform ends.
async fn supervise(state: Arc<State>, mut link: Arc<Link>, mut child: Child) {
    loop {
        follow(&state, &link).await;
        state.link.send_replace(None);
        lock(&state.zygotes).clear();
        link.end();
        drop(link);
        wait_or_kill(&mut child).await;
        if *state.closing.borrow() {
            return;
        }
        tracing::error!("the launcher died; its workers with it; starting another");
        let Some(next) = relaunch(&state).await else { return };
        (link, child) = next;
    }
}

/// Until the launcher is gone. It is told which templates are wanted and what tenants weigh, at first
/// and after each change: all of it each time, so that nothing can be lost.
async fn follow(state: &State, link: &Link) {
    let mut buffer = vec![0; fds::MAX_MESSAGE];
    let (mut wanted, mut weights) = (state.wanted.subscribe(), state.weights.subscribe());
    let mut is_told = false;
    loop {
        if !is_told {
            is_told = link.tell_wanted(&wanted.borrow_and_update())
                && link.tell_weights(&weights.borrow_and_update());
        }
        let message = tokio::select! {
            message = link.receive(&mut buffer) => message,
            // The sender lives in the state.
            _ = wanted.changed() => {
                is_told = false;
                continue;
            }
            _ = weights.changed() => {
                is_told = false;
                continue;
            }
            () = sleep(RETELL_PAUSE), if !is_told => continue,
        };
        match message {
            Ok(Some((message, descriptors))) => link.take(message, descriptors, state),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the launcher cannot be understood");
                return;
            }
        }
    }
}

async fn relaunch(state: &State) -> Option<(Arc<Link>, Child)> {
    let mut closing = state.closing.subscribe();
    let mut pause = RESTART_PAUSE;
    loop {
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return None,
            () = sleep(pause) => {}
        }
        match state.launch().await {
            Ok(next) => return Some(next),
            Err(why) => tracing::error!("the sandbox does not come back: {why}"),
        }
        pause = (pause * 2).min(MAX_RESTART_PAUSE);
    }
}

/// It has seen the end of its socket, or should have.
async fn wait_or_kill(child: &mut Child) {
    if timeout(SHUTDOWN_LIMIT, child.wait()).await.is_err() {
        tracing::error!("the launcher does not end; killing it");
        child.kill().await.ok();
    }
}
