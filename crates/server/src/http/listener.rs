//! Listeners: accept, bound, serve, drain.
//!
//! One loop for all three: HTTP/1.1 with keep-alive and h2c by prior knowledge, a time limit on
//! request heads (slow-loris clients are cut), a bound on connections, and a graceful end with a
//! deadline, which hyper's own lacks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Time for a request's head to arrive, and for the next one on a kept-alive connection: longer
/// than the 15 s within which browsers and clients come back, shorter than what a slow-loris
/// needs to pile up connections.
const HEAD_LIMIT: Duration = Duration::from_secs(20);

/// Connections at once on one listener: below the usual limit of open files.
const MAX_CONNECTIONS: usize = 16_384;

/// Largest request head, in bytes: what nginx and Apache take, times four.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Most header fields of a request: hyper's own default, said here because it is a limit.
const MAX_HEADERS: usize = 100;

/// Calls at once on one h2c connection.
const MAX_STREAMS: u32 = 1_000;

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: u32 = 4_096;

/// Binds a listener.
pub(crate) fn bind(addr: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let domain = if addr.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // Without it a restart would wait for the connections of its earlier life to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG as i32)?;
    Ok(socket.into())
}

/// Serves connections until `stop`; then lets requests that run end, until `abort`.
pub(crate) async fn serve<H, F, B>(
    listener: std::net::TcpListener,
    handle: H,
    stop: CancellationToken,
    abort: CancellationToken,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listener cannot be used"),
    };
    let builder = Arc::new(builder());
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let handle = handle.clone();
        let service = hyper::service::service_fn(move |request| {
            let answer = handle(request, peer);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let builder = builder.clone();
        let watcher = graceful.watcher();
        let abort = abort.clone();
        tokio::spawn(async move {
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let connection = watcher.watch(connection.into_owned());
            tokio::select! {
                biased;
                // What breaks a connection is its client's doing, and told to it by its own stack.
                _ = connection => {}
                () = abort.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = abort.cancelled() => {}
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are written whole; waiting for more to send would only cost time.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, place))
        }
        Err(error) => {
            // Out of descriptors or memory: a pause lets running calls give some back.
            tracing::warn!(%error, "a connection cannot be accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .keep_alive_interval(Some(HEAD_LIMIT))
        .keep_alive_timeout(HEAD_LIMIT);
    builder
}
