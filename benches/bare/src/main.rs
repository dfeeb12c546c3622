//! The bare path: what an HTTP server in front of Python loops costs before anything of a
//! platform is added.
//!
//! The same HTTP server (hyper-util's `auto`), the same runtime flavour and allocator as the
//! platform, and N blocking Python loops behind Unix sockets. No sandbox, no routes, no
//! deadline, no telemetry, no supervision: a floor to compare with, not something to run.
//! A loop that dies takes its requests down with it (502) and is not replaced.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The Python end.
const LOOP: &str = include_str!("loop.py");

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
}

/// Python loops; the one that was used last is used next, since its memory is in the cache.
struct Pool {
    idle: Mutex<Vec<BufReader<UnixStream>>>,
    permits: Semaphore,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (pool, children) = start_loops(&arguments.python, arguments.workers)?;
    let pool: &'static Pool = Box::leak(Box::new(pool));
    let listener = TcpListener::bind(arguments.addr)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.addr))?;
    println!("listening on http://{}", listener.local_addr()?);
    tokio::select! {
        () = accept(&listener, pool) => {}
        result = tokio::signal::ctrl_c() => result.context("cannot wait for SIGINT")?,
        () = terminated() => {}
    }
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
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

fn start_loops(python: &Path, workers: u32) -> anyhow::Result<(Pool, Vec<Child>)> {
    let mut idle = Vec::new();
    let mut children = Vec::new();
    for _ in 0..workers {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new(python)
            .args(["-I", "-S", "-c", LOOP])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        children.push(child);
        idle.push(BufReader::new(UnixStream::from_std(ours)?));
    }
    let permits = Semaphore::new(idle.len());
    Ok((Pool { idle: Mutex::new(idle), permits }, children))
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
    _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service).await;
}

async fn answer(request: Request<Incoming>, pool: &Pool) -> Response<Full<Bytes>> {
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

impl Pool {
    async fn call(&self, body: &[u8]) -> std::io::Result<Bytes> {
        let _permit = self.permits.acquire().await.map_err(std::io::Error::other)?;
        let taken = self.idle.lock().pop();
        let mut stream = taken.ok_or(std::io::ErrorKind::NotConnected)?;
        // A loop whose call failed is not put back: its stream is out of step.
        let answer = exchange(&mut stream, body).await?;
        self.idle.lock().push(stream);
        Ok(answer)
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
