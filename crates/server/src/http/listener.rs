//! Listeners: accept, bound, serve, drain.
//!
//! One loop for all three: HTTP/1.1 with keep-alive and h2c by prior knowledge, a time limit on
//! first bytes, on request heads (slow-loris clients are cut) and on unread answers, a bound on
//! connections, and a graceful end with a deadline. Which protocol a client speaks is looked at
//! here, because hyper-util's look at it has no time limit. With a certificate the same over TLS,
//! where ALPN says the protocol; who speaks plain HTTP to it is told so in plain HTTP.

mod addresses;
mod line;
mod refusal;
mod transport;
mod upload;

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::code::Code;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::addresses::{OnListener, PerAddress};
use self::line::{Line, Stage};
use self::transport::{Transport, Wire};
use self::upload::UPLOAD_GRACE;
#[cfg(test)]
pub(in crate::http) use self::upload::tests as uploads;
pub(crate) use self::upload::{Upload, UploadError};
use super::problem::{PROBLEM_JSON, Problem};
use crate::tls::Certificate;

/// Time for a request's head to arrive, and for the next one on a kept-alive connection: longer
/// than the 15 s within which browsers and clients come back, shorter than what a slow-loris
/// needs to pile up connections.
const HEAD_LIMIT: Duration = Duration::from_secs(20);

/// What a client that knows of HTTP/2 beforehand sends first (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Between two looks at a preface that came in part, which hardly ever happens.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// Most connections at once on one listener, however many open files there may be: each takes memory.
pub(crate) const MAX_CONNECTIONS: usize = 16_384;

/// Largest request head, in bytes: what nginx and Apache take, times four.
pub(crate) const MAX_HEAD_BYTES: usize = 64 << 10;

/// Most header fields of a request: hyper's own default, said here because it is a limit.
const MAX_HEADERS: usize = 100;

/// Time for a TLS handshake, from the connection on: some round trips to the other end of the world,
/// with a lost packet among them.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// What every TLS connection begins with: a record of type handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// Calls at once on one connection of HTTP/2: what nginx takes, and no fewer than RFC 9113 section 5.1.2
/// would have it. Each may hold a head and a body's window, and connections are what is counted.
const MAX_STREAMS: u32 = 128;

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

/// Keeps the same port of the other loopback address from everybody, without serving it: `localhost`
/// is both, and whoever listened there would be taken for us. None where it is not to be had.
pub(crate) fn hold_other_loopback(listener: &std::net::TcpListener) -> Option<socket2::Socket> {
    let bound = listener.local_addr().ok()?;
    let other = match bound.ip() {
        std::net::IpAddr::V4(ip) if ip.is_loopback() || ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        _ => return None,
    };
    let other = SocketAddr::new(other, bound.port());
    // Not to be reused, or the next one with that wish could listen.
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(other), socket2::Type::STREAM, None).ok()?;
    socket.bind(&other.into()).ok().map(|()| socket)
}

/// Room for connections: each takes a place of a listener's own, and one that it shares with others,
/// where it does.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    own: Arc<Semaphore>,
    /// Of which others take as well, the fewest first.
    shared: Vec<Arc<Semaphore>>,
}

impl Places {
    /// So many for one listener.
    pub(crate) fn new(own: usize) -> Self {
        Self { own: Arc::new(Semaphore::new(own)), shared: Vec::new() }
    }

    /// So many for one listener, of those for all that share; in the same order for all of them.
    pub(crate) fn within(own: usize, shared: Vec<Arc<Semaphore>>) -> Self {
        Self { shared, ..Self::new(own) }
    }
}

async fn taken(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    places.clone().acquire_owned().await.expect("the semaphore is never closed")
}

/// A connection's room, until it is dropped.
#[derive(Debug)]
struct Place {
    _own: OwnedSemaphorePermit,
    _shared: Vec<OwnedSemaphorePermit>,
}

/// Who gets in, and how they speak.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// For how many connections at once there is room; more wait in the kernel.
    pub(crate) places: Places,
    /// Of one address; none where the addresses are our own.
    pub(crate) per_address: Option<Arc<OnListener>>,
    /// With one TLS is spoken, and nothing else.
    pub(crate) certificate: Option<Arc<Certificate>>,
}

/// Serves connections, as many at once as the door lets in, until `stop`; then lets requests that run end, until `abort`.
pub(crate) async fn serve<H, F, B>(
    listener: std::net::TcpListener,
    door: Door,
    handle: H,
    stop: CancellationToken,
    abort: CancellationToken,
) where
    H: Fn(Request<Upload>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listener cannot be used"),
    };
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &door.places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        // Closed at once: an answer would cost what the limit is to save.
        let Ok(ticket) = door.per_address.as_ref().map(|counts| counts.enter(peer.ip())).transpose() else {
            continue;
        };
        let (handle, stop, abort) = (handle.clone(), stop.clone(), abort.clone());
        let certificate = door.certificate.clone();
        connections.spawn(async move {
            let line = Arc::new(Line::new(stop.clone()));
            let calling = line.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let call = calling.begin(&request);
                let request = request.map(|body| Upload::new(body, calling.clone()));
                let answer = handle(request, peer);
                async move { Ok::<_, Infallible>(answer.await.map(|body| call.answer_with(body))) }
            });
            if let Some(certificate) = certificate {
                // Apart from the plain path, whose task stays as small as it is.
                Box::pin(async {
                    if let Some(stream) = secured(stream, &certificate, &stop).await {
                        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        converse(stream, is_http2, service, &line, &stop, &abort).await;
                    }
                })
                .await;
            } else if let Some(is_http2) = speaks_http2(&stream, HEAD_LIMIT, &stop).await {
                converse(stream, is_http2, service, &line, &stop, &abort).await;
            }
            drop((place, ticket));
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Answers the requests of one connection.
async fn converse<S, V, B>(
    stream: S,
    is_http2: bool,
    service: V,
    line: &Arc<Line>,
    stop: &CancellationToken,
    abort: &CancellationToken,
) where
    S: Wire + Send + 'static,
    V: HttpService<Incoming, ResBody = B, Error = Infallible>,
    V::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if is_http2 {
        let transport = TokioIo::new(Transport::new(stream));
        let connection = pin!(http2().serve_connection(transport, service));
        // Who has no call on it has that long to see that we leave.
        let unused = async {
            tokio::time::sleep(UPLOAD_GRACE).await;
            if line.calls() > 0 {
                std::future::pending().await
            }
        };
        // Pings alone keep nothing open: a connection without calls ends as over HTTP/1.
        let over = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = line.idle(HEAD_LIMIT) => {}
            }
        };
        // What breaks a connection is its client's doing, and told to it by its own stack.
        let _ = run(connection, over, abort, unused).await;
        return;
    }
    let transport = TokioIo::new(Transport::on(stream, line.clone()));
    let mut connection = http1().serve_connection(transport, service);
    // What has begun to ask waits for nobody's answer.
    let unused = async {
        if line.stage() != Stage::Idle {
            std::future::pending().await
        }
    };
    if run(Pin::new(&mut connection), stop.cancelled(), abort, unused).await.is_err() {
        // A request that is refused for its form may not be here in whole yet.
        let mut transport = connection.into_parts().io.into_inner();
        let _ = transport.shutdown().await;
    }
}

/// The stream behind a handshake; none if there was none in time.
async fn secured(
    stream: TcpStream,
    certificate: &Certificate,
    stop: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    let shaken = async {
        let mut first = [0];
        if stream.peek(&mut first).await.ok()? == 0 {
            return None;
        }
        if first[0] != HANDSHAKE_RECORD {
            refuse_plain(stream).await;
            return None;
        }
        // What the client does wrong here it is told by an alert.
        certificate.acceptor().accept(stream).await.ok()
    };
    tokio::select! {
        biased;
        shaken = tokio::time::timeout(HANDSHAKE_LIMIT, shaken) => shaken.ok().flatten(),
        // It has not asked for anything yet.
        () = stop.cancelled() => None,
    }
}

/// Says in plain HTTP that this is none.
async fn refuse_plain(stream: TcpStream) {
    let problem = Problem::new(Code::BadRequest, "this port speaks TLS, and the request came without")
        .component("listener")
        .hint("Write https:// instead of http://.");
    let body = problem.to_json();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut transport = Transport::new(stream);
    // A client that is gone needs no word.
    if transport.write_all(&[head.as_bytes(), &body].concat()).await.is_ok() {
        let _ = transport.shutdown().await;
    }
}

/// Drives a connection to its end: by its own requests until it is `over`; then until `unused` says that
/// no call is on it, and by force at `abort`.
async fn run<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    over: impl Future<Output = ()>,
    abort: &CancellationToken,
    unused: impl Future<Output = ()>,
) -> Result<(), C::Error> {
    tokio::select! {
        biased;
        ended = &mut connection => return ended,
        () = over => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        // A request that is here already is looked at before anybody asks for calls.
        biased;
        ended = connection => ended,
        () = unused => Ok(()),
        () = abort.cancelled() => Ok(()),
    }
}

/// Whether the client begins with HTTP/2's preface; none if it says nothing that tells in time.
async fn speaks_http2(stream: &TcpStream, limit: Duration, stop: &CancellationToken) -> Option<bool> {
    let mut first = [0; PREFACE.len()];
    let told = async {
        loop {
            let seen = stream.peek(&mut first).await.ok()?;
            if let Some(told) = is_preface(&first[..seen]) {
                return Some(told);
            }
            // The rest is on its way, and a peek does not wait for more than there was.
            tokio::time::sleep(PREFACE_PAUSE).await;
        }
    };
    tokio::select! {
        biased;
        told = tokio::time::timeout(limit, told) => told.ok().flatten(),
        // It has not asked for anything yet.
        () = stop.cancelled() => None,
    }
}

/// Whether a connection that begins so begins with HTTP/2's preface; none if that is not told yet.
/// Nothing at all means that the client has closed.
pub(crate) fn is_preface(first: &[u8]) -> Option<bool> {
    let length = first.len().min(PREFACE.len());
    if first.is_empty() || first[..length] != PREFACE[..length] {
        return Some(false);
    }
    (length == PREFACE.len()).then_some(true)
}

async fn accept(listener: &TcpListener, places: &Places) -> Option<(TcpStream, SocketAddr, Place)> {
    let own = taken(&places.own).await;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are written whole; waiting for more to send would only cost time.
            let _ = stream.set_nodelay(true);
            // Not before: a listener that nobody comes to would hold a place of all the others'.
            let mut shared = Vec::with_capacity(places.shared.len());
            for all in &places.shared {
                shared.push(taken(all).await);
            }
            Some((stream, peer, Place { _own: own, _shared: shared }))
        }
        Err(error) => {
            // Out of descriptors or memory: a pause lets running calls give some back.
            tracing::warn!(%error, "a connection cannot be accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .keep_alive_interval(Some(HEAD_LIMIT))
        .keep_alive_timeout(HEAD_LIMIT);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    /// What is made of these first bytes.
    async fn first_bytes(bytes: &[u8], limit: Duration) -> Option<bool> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let (stream, _) = listener.accept().await.expect("a connection");
        peer.write_all(bytes).await.expect("sent");
        speaks_http2(&stream, limit, &CancellationToken::new()).await
    }

    #[test]
    fn nobody_else_can_listen_at_the_same_port_of_the_other_loopback() {
        let ours = bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let other = SocketAddr::from((Ipv6Addr::LOCALHOST, ours.local_addr().expect("bound").port()));
        let Some(held) = hold_other_loopback(&ours) else { return eprintln!("skipped: no IPv6 here") };
        assert!(bind(other).is_err(), "it is held");
        assert!(std::net::TcpStream::connect(other).is_err(), "and not served");
        drop(held);
        bind(other).expect("it was free but for us");
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_protocol() {
        assert_eq!(first_bytes(PREFACE, HEAD_LIMIT).await, Some(true));
        assert_eq!(first_bytes(b"P", LIMIT).await, None);
        assert_eq!(first_bytes(b"POST / HTTP/1.1", HEAD_LIMIT).await, Some(false));
        assert_eq!(first_bytes(b"PRI * HTTP/1", HEAD_LIMIT).await, Some(false));
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_not_waited_for() {
        assert_eq!(first_bytes(b"", LIMIT).await, None);
        assert_eq!(first_bytes(&PREFACE[..20], LIMIT).await, None);
    }
}
