//! Sending: threads that each run a part of the schedule on connections of their own.
//!
//! A thread has a single-threaded runtime, so nothing is shared between threads while the load
//! runs. It is woken by a timerfd, because the runtime's own timer has a step of 1 ms. A
//! request takes the connection that was used last (few are kept busy, the others serve bursts)
//! or opens one. Requests are never sent twice: one that may have reached the server on a
//! connection that then broke counts as broken.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use super::pace::{Pacer, Schedule, Step};
use super::report::{Ending, Recorder};
use crate::exit::{Exit, Failure, plain};

/// How many task polls may pass before the runtime looks at the timer and the sockets again:
/// at some 5 µs each, the lateness that this adds stays below 0.1 ms.
const POLLS_PER_LOOK: u32 = 16;

/// What is called.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) method: Method,
    pub(crate) path: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Target {
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    async fn connect(&self) -> io::Result<Sender> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Ends when its sender is dropped, at the latest with the runtime of this thread.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// What to send.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) target: Target,
    /// The open loop's schedule; none for a closed loop.
    pub(crate) schedule: Option<Schedule>,
    pub(crate) duration: Duration,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) timeout: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) books: Recorder,
    pub(crate) elapsed: Duration,
    pub(crate) connections: usize,
    /// The run was not interrupted.
    pub(crate) whole: bool,
}

/// Runs the load; true when it was interrupted by the user.
pub(crate) async fn run(load: &Load, show_progress: bool) -> Result<(Measured, bool), Failure> {
    raise_file_limit();
    check_reachable(&load.target).await?;
    let (stop, stopped) = watch::channel(false);
    let start = Instant::now();
    let (done, mut lanes) = tokio::sync::mpsc::channel(load.threads);
    for lane in 0..load.threads {
        let plan = Plan::new(load, lane, start);
        let (stopped, done) = (stopped.clone(), done.clone());
        std::thread::Builder::new().name(format!("load-{lane}")).spawn(move || {
            let _ = done.blocking_send(run_lane(plan, stopped));
        })?;
    }
    drop((done, stopped));

    let bar = progress_bar(load.duration, show_progress);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let (mut books, mut connections, mut interrupted) = (Recorder::default(), 0, false);
    loop {
        tokio::select! {
            lane = lanes.recv() => match lane {
                Some(lane) => {
                    let (lane_books, lane_connections) = lane?;
                    books.merge(&lane_books);
                    connections += lane_connections;
                }
                None => break,
            },
            _ = tokio::signal::ctrl_c() => {
                interrupted = true;
                let _ = stop.send(true);
            }
            _ = tick.tick() => bar.set_position(start.elapsed().as_millis() as u64),
        }
    }
    bar.finish_and_clear();
    Ok((Measured { books, elapsed: start.elapsed(), connections, whole: !interrupted }, interrupted))
}

/// A URL that nothing listens on is told at once, not counted ten thousand times.
async fn check_reachable(target: &Target) -> Result<(), Failure> {
    let place = format!("{}:{}", target.host, target.port);
    target.connect().await.map(drop).map_err(|error| {
        Failure::new(Exit::Unreachable, format!("cannot reach {place}: {}", plain(&error))).hint(
            "check the URL; functions answer at the gateway's address, by default http://127.0.0.1:5000",
        )
    })
}

/// Each connection is a file; the soft limit is often 1024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn progress_bar(duration: Duration, show: bool) -> ProgressBar {
    if !show {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(duration.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("sending {bar:40} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// One thread's part of the load.
#[derive(Debug)]
struct Plan {
    target: Target,
    pacer: Option<Pacer>,
    connections: usize,
    start: Instant,
    duration: Duration,
    timeout: Duration,
}

impl Plan {
    fn new(load: &Load, lane: usize, start: Instant) -> Self {
        let share = load.connections / load.threads;
        let connections = share + usize::from(lane < load.connections % load.threads);
        Self {
            target: load.target.clone(),
            pacer: load.schedule.map(|schedule| Pacer::new(schedule, lane, load.threads, connections)),
            connections,
            start,
            duration: load.duration,
            timeout: load.timeout,
        }
    }
}

fn run_lane(plan: Plan, stopped: watch::Receiver<bool>) -> Result<(Recorder, usize), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().event_interval(POLLS_PER_LOOK).build()?;
    runtime.block_on(async {
        let lane = Arc::new(Lane::new(&plan));
        let mut stopped = stopped;
        let sending = async {
            match plan.pacer {
                Some(_) => lane.open_loop(&plan).await,
                None => lane.closed_loop(&plan).await,
            }
        };
        tokio::select! {
            sent = sending => sent?,
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        let mut state = lane.state();
        Ok((std::mem::take(&mut state.books), state.opened))
    })
}

/// What the tasks of one thread share. The mutex is never contended: there is one thread.
#[derive(Debug)]
struct Lane {
    target: Target,
    start: Instant,
    timeout: Duration,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    idle: Vec<Sender>,
    pacer: Option<Pacer>,
    books: Recorder,
    running: usize,
    opened: usize,
}

impl Lane {
    fn new(plan: &Plan) -> Self {
        let state = State {
            idle: Vec::new(),
            pacer: plan.pacer.clone(),
            books: Recorder::default(),
            running: 0,
            opened: 0,
        };
        Self {
            target: plan.target.clone(),
            start: plan.start,
            timeout: plan.timeout,
            state: Mutex::new(state),
            freed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends on schedule, then waits for what is still running (each has its timeout).
    async fn open_loop(self: &Arc<Self>, plan: &Plan) -> Result<(), Failure> {
        let alarm = Alarm::new()?;
        loop {
            let now = plan.start.elapsed();
            let step = self.state().pacer.as_mut().map_or(Step::Done, |pacer| pacer.decide(now));
            match step {
                Step::Send { intended } => self.send(intended, now),
                Step::Wait { until } => alarm.ring_at(plan.start + until).await?,
                Step::Full { until } => tokio::select! {
                    () = self.freed.notified() => {}
                    rung = alarm.ring_at(plan.start + until) => rung?,
                },
                Step::Done => break,
            }
        }
        while self.state().running > 0 {
            self.freed.notified().await;
        }
        Ok(())
    }

    /// One request in a task of its own.
    fn send(self: &Arc<Self>, intended: Duration, now: Duration) {
        {
            let mut state = self.state();
            state.running += 1;
            state.books.on_sent(intended, now);
        }
        let lane = Arc::clone(self);
        tokio::spawn(async move {
            let ending = lane.exchange(intended).await;
            let now = lane.start.elapsed();
            let mut state = lane.state();
            state.running -= 1;
            state.books.on_end(intended, now, ending);
            if let Some(pacer) = &mut state.pacer {
                pacer.on_end();
            }
            drop(state);
            lane.freed.notify_one();
        });
    }

    /// Every connection sends when it has its answer, until time is up.
    async fn closed_loop(self: &Arc<Self>, plan: &Plan) -> Result<(), Failure> {
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..plan.connections {
            let lane = Arc::clone(self);
            let duration = plan.duration;
            callers.spawn(async move {
                loop {
                    let sent = lane.start.elapsed();
                    if sent >= duration {
                        return;
                    }
                    lane.state().books.on_sent(sent, sent);
                    let ending = lane.exchange(sent).await;
                    let now = lane.start.elapsed();
                    lane.state().books.on_end(sent, now, ending);
                    if ending == Ending::Refused {
                        // A server that is gone must not be asked in a busy loop.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            });
        }
        while callers.join_next().await.is_some() {}
        Ok(())
    }

    /// One request and its whole answer, within the timeout from when it was meant to be sent.
    async fn exchange(&self, intended: Duration) -> Ending {
        let limit = tokio::time::Instant::from_std(self.start + intended + self.timeout);
        tokio::time::timeout_at(limit, self.call()).await.unwrap_or(Ending::Timeout)
    }

    async fn call(&self) -> Ending {
        let mut request = self.target.request();
        loop {
            let reused = self.state().idle.pop();
            let mut sender = match reused {
                Some(sender) => sender,
                None => match self.target.connect().await {
                    Ok(sender) => {
                        self.state().opened += 1;
                        sender
                    }
                    Err(_) => return Ending::Refused,
                },
            };
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return self.drain(response, sender).await,
                Err(mut error) => match error.take_message() {
                    // The server had closed the idle connection and nothing was sent.
                    Some(unsent) => request = unsent,
                    None => return Ending::Broken,
                },
            }
        }
    }

    /// Reads the answer to its end and keeps the connection.
    async fn drain(&self, response: http::Response<hyper::body::Incoming>, sender: Sender) -> Ending {
        let status = response.status().as_u16();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return Ending::Broken;
            }
        }
        self.state().idle.push(sender);
        Ending::Status(status)
    }
}

/// A timer that rings within some 50 µs of its moment.
#[derive(Debug)]
struct Alarm {
    fd: AsyncFd<OwnedFd>,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        #[expect(
            deprecated,
            reason = "its fault needs a type that closes the descriptor early; OwnedFd cannot"
        )]
        let fd = AsyncFd::new(rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        Ok(Self { fd })
    }

    async fn ring_at(&self, moment: Instant) -> io::Result<()> {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
        rustix::time::timerfd_settime(
            self.fd.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: zero, it_value: value },
        )?;
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0_u8; 8])?)) {
                Ok(read) => return read.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}
