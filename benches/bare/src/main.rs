//! The bare path: what an HTTP server in front of Python loops costs before anything of a
//! platform is added.
//!
//! The same HTTP server (hyper), the same runtime flavour and allocator as the
//! platform, and N blocking Python loops behind Unix sockets. No sandbox, no routes, no
//! deadline, no telemetry, no supervision: a floor to compare with, not something to run.
//! With `--cold FILE` a loop forks for each call, and the child loads the handler in that file: what a
//! cold start costs without isolation.
//! `GET /refusal/N` answers 504 with N bytes and no loop: the floor of a refusal.
//! A caller that leaves in the middle of a call costs its loop, which is then replaced.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The Python end.
const LOOP: &str = include_str!("loop.py");

/// The Python end of cold calls.
const FORK: &str = include_str!("fork.py");

/// Bytes of a frame's length.
const PREFIX: usize = 4;

/// Serve a no-op JSON handler over Python loops, with nothing else in between.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 picks a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: SocketAddr,
    /// Python loops.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: u32,
    /// The Python to run them with.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Fork for each call, and load this file's `handler` in the child.
    #[arg(long, value_name = "FILE")]
    cold: Option<PathBuf>,
}

/// Python loops; the one that was used last is used next, since its memory is in the cache.
struct Pool {
    end: End,
    idle: Mutex<Vec<Loop>>,
    permits: Semaphore,
}

/// What runs at the other end.
struct End {
    python: PathBuf,
    cold: Option<PathBuf>,
}

/// One Python process and our end of its socket; dropping it ends the process.
struct Loop {
    stream: BufReader<UnixStream>,
    child: Child,
}

/// A loop during a call.
struct Lease<'a> {
    pool: &'a Pool,
    /// There until it is given back.
    held: Option<Loop>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match cores / 2 {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        several => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(several);
            builder
        }
    };
    builder.enable_all().build()?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let pool: &'static Pool = Box::leak(Box::new(Pool::start(
        End { python: arguments.python, cold: arguments.cold },
        arguments.workers,
    )?));
    let listener = TcpListener::bind(arguments.addr)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.addr))?;
    println!("listening on http://{}", listener.local_addr()?);
    tokio::select! {
        () = accept(&listener, pool) => {}
        result = tokio::signal::ctrl_c() => result.context("cannot wait for SIGINT")?,
        () = terminated() => {}
    }
    pool.permits.close();
    pool.idle.lock().clear();
    Ok(())
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

async fn accept(listener: &TcpListener, pool: &'static Pool) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                tokio::spawn(serve(connection, pool));
            }
            // Out of descriptors, most likely: the ones in use will come back.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn serve(connection: TcpStream, pool: &'static Pool) {
    if connection.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, pool).await) });
    // A connection's end by error is the load generator's leaving.
    _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

async fn answer(request: Request<Incoming>, pool: &Pool) -> Response<Full<Bytes>> {
    if let Some(bytes) = request.uri().path().strip_prefix("/refusal/") {
        return refusal(bytes.parse().unwrap_or(0), request.into_body()).await;
    }
    let result = match request.into_body().collect().await {
        Ok(body) => pool.call(&body.to_bytes()).await,
        Err(error) => Err(std::io::Error::other(error)),
    };
    let mut response = match result {
        Ok(body) => Response::new(Full::new(body)),
        Err(_) => {
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    };
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// Longest body of a refusal.
const MAX_REFUSAL: usize = 4_096;

async fn refusal(bytes: usize, body: Incoming) -> Response<Full<Bytes>> {
    static BODY: [u8; MAX_REFUSAL] = [b'x'; MAX_REFUSAL];
    // Read to its end, as the platform does, so that the connection can be used again.
    _ = body.collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(&BODY[..bytes.min(MAX_REFUSAL)])));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response
}

impl Pool {
    fn start(end: End, workers: u32) -> anyhow::Result<Self> {
        let idle = (0..workers).map(|_| Loop::start(&end)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { end, permits: Semaphore::new(idle.len()), idle: Mutex::new(idle) })
    }

    async fn call(&self, body: &[u8]) -> std::io::Result<Bytes> {
        // Declared before the lease, and so given back after it.
        let _permit = self.permits.acquire().await.map_err(std::io::Error::other)?;
        let taken = self.idle.lock().pop();
        let mut lease = Lease { pool: self, held: taken };
        let Some(held) = &mut lease.held else { return Err(std::io::ErrorKind::NotConnected.into()) };
        let answer = exchange(&mut held.stream, body).await?;
        self.idle.lock().extend(lease.held.take());
        Ok(answer)
    }
}

impl Drop for Lease<'_> {
    /// Replaces a loop whose call did not end well: its stream is out of step.
    fn drop(&mut self) {
        if self.held.take().is_some() && !self.pool.permits.is_closed() {
            self.pool.idle.lock().extend(Loop::start(&self.pool.end));
        }
    }
}

impl Loop {
    fn start(end: &End) -> anyhow::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let program = if end.cold.is_some() { FORK } else { LOOP };
        let child = Command::new(&end.python)
            .args(["-I", "-S", "-c", program])
            .args(&end.cold)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .with_context(|| format!("cannot start {}", end.python.display()))?;
        Ok(Self { stream: BufReader::new(UnixStream::from_std(ours)?), child })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

async fn exchange(stream: &mut BufReader<UnixStream>, body: &[u8]) -> std::io::Result<Bytes> {
    let length = u32::try_from(body.len()).map_err(std::io::Error::other)?;
    let mut frame = Vec::with_capacity(PREFIX + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(body);
    stream.get_mut().write_all(&frame).await?;

    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).await?;
    let mut answer = vec![0; u32::from_le_bytes(prefix) as usize];
    stream.read_exact(&mut answer).await?;
    Ok(answer.into())
}
