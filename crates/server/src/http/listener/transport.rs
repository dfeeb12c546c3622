//! A stream, TCP's or TLS's, that neither waits for ever for a peer that does not read, nor closes on one that
//! is still sending.
//!
//! Over HTTP/1 it also knows a caller that has only ended its sending (`shutdown(SHUT_WR)`) from
//! one that has left. Both look the same, a FIN, until something is sent: then the system of one
//! that has left answers with a reset. So the answer itself tells, and if that takes its time an
//! interim answer does (`100 Continue`, which RFC 9110 section 15.2 has every client skip). And it
//! sends a problem document where hyper refuses what is no request by a bare head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

use super::line::{Line, Stage};
use super::refusal;

/// How long a peer may take nothing of what is there for it: half of nginx's `send_timeout`, which
/// is meant for callers far away.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How long, and how much, is read of a peer that still sends after the last answer. Closing at
/// once would reset the connection and take the answer from it (RFC 9112 section 9.6).
const LINGER_LIMIT: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// How long a caller that sends no more is left alone: most answers are there within that, so
/// that they alone are what it reads, and a call that nobody waits for costs little in it.
const END_GRACE: Duration = Duration::from_millis(200);

/// Between two looks for the reset of a caller that has left: what a line within a data centre
/// takes is far less, and what one around the world takes a few times as much.
const END_LOOK: Duration = Duration::from_millis(50);

/// What a caller that has left answers with a reset, and any other skips.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A stream over TCP.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// What lies below.
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// What hyper reads from and writes to.
pub(super) struct Transport<S> {
    stream: S,
    stall_limit: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    lingering: Option<Lingering>,
    exchange: Option<Exchange>,
}

/// What is known over HTTP/1.
struct Exchange {
    line: Arc<Line>,
    /// The request that comes.
    head: Option<Head>,
    /// hyper has nothing that is written in part.
    flushed: bool,
    /// There once the caller sends no more while a call is on the line.
    end: Option<End>,
    /// What goes out in place of hyper's refusal, as far as it is not written yet.
    refusal: Option<Bytes>,
}

/// The first bytes of a request.
struct Head {
    since: Instant,
    /// Only a head may answer it.
    is_head: bool,
}

/// A caller that sends no more.
struct End {
    wait: Pin<Box<Sleep>>,
    /// Something was sent to it since.
    asked: bool,
}

struct Lingering {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S: Wire> Transport<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, stall_limit: STALL_LIMIT, stalled: None, lingering: None, exchange: None }
    }

    /// For HTTP/1, whose calls are on this line.
    pub(super) fn on(stream: S, line: Arc<Line>) -> Self {
        let exchange = Exchange { line, head: None, flushed: true, end: None, refusal: None };
        Self { exchange: Some(exchange), ..Self::new(stream) }
    }

    /// For a caller that sends no more: ready, which is the end for hyper, once it is owed nothing
    /// or has left.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(Exchange { line, flushed, end: Some(end), .. }) = &mut self.exchange else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if matches!(line.stage(), Stage::Idle) {
                return Poll::Ready(Ok(()));
            }
            ready!(end.wait.as_mut().poll(cx));
            end.wait.as_mut().reset(Instant::now() + END_LOOK);
            if self.stream.tcp().take_error()?.is_some() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if end.asked {
                continue;
            }
            if line.stage() != Stage::Called {
                // The answer asks.
                end.asked = true;
            } else if line.is_uploading() || !line.takes_interim() {
                // Half a body is none; and HTTP/1.0 knows no interim answers.
                return Poll::Ready(Ok(()));
            } else if *flushed
                && let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, INTERIM)
            {
                if written? < INTERIM.len() {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                // TLS keeps what it cannot write at once; the answer takes it along.
                let _ = Pin::new(&mut self.stream).poll_flush(cx)?;
                end.asked = true;
            }
        }
    }

    /// What hyper writes while no call is on the line is its refusal of what is no request.
    fn begin_refusal(&mut self, bare: &[u8]) {
        let Some(exchange) = self.exchange.as_mut().filter(|exchange| {
            exchange.refusal.is_none() && exchange.line.stage() == Stage::Idle && !bare.is_empty()
        }) else {
            return;
        };
        let (is_head, took) =
            exchange.head.as_ref().map_or_else(Default::default, |head| (head.is_head, head.since.elapsed()));
        exchange.refusal = Some(refusal::in_place_of(bare, is_head, took).into());
    }

    /// Writes the refusal, if there is one, for the whole of what it stands for.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, bare: usize) -> Option<Poll<io::Result<usize>>> {
        let refusal = self.exchange.as_mut()?.refusal.as_mut()?;
        while !refusal.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, refusal) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(written)) => refusal.advance(written),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(self.watch_stall(cx, Poll::Pending)),
            }
        }
        Some(self.watch_stall(cx, Poll::Ready(Ok(bare))))
    }

    /// hyper writes; it says by a flush that it has written all.
    fn begin_write(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.flushed = false;
        }
    }

    /// Bounds a write that the kernel has not taken.
    fn watch_stall<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.stall_limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and drops what the peer still sends.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let lingering = self.lingering.get_or_insert_with(|| Lingering {
                        until: Box::pin(tokio::time::sleep(LINGER_LIMIT)),
                        left: LINGER_BYTES,
                    });
                    let Some(left) = lingering.left.checked_sub(buffer.filled().len()) else {
                        return Poll::Ready(Ok(()));
                    };
                    lingering.left = left;
                }
                // The peer is done, or gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    // Nothing was unread: nothing to wait for.
                    let Some(lingering) = &mut self.lingering else { return Poll::Ready(Ok(())) };
                    ready!(lingering.until.as_mut().poll(cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: Wire> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.exchange.as_ref().is_some_and(|exchange| exchange.end.is_some()) {
            return this.poll_end(cx);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let Some(exchange) = &mut this.exchange else { return Poll::Ready(Ok(())) };
        let read = &buffer.filled()[before..];
        match exchange.line.stage() {
            Stage::Idle if exchange.head.is_none() && !read.is_empty() => {
                exchange.head = Some(Head { since: Instant::now(), is_head: read.starts_with(b"HEAD ") });
            }
            Stage::Called if read.is_empty() && buffer.remaining() > 0 => {
                exchange.end = Some(End { wait: Box::pin(tokio::time::sleep(END_GRACE)), asked: false });
                return this.poll_end(cx);
            }
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Wire> AsyncWrite for Transport<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.begin_refusal(data);
        if let Some(written) = self.poll_refusal(cx, data.len()) {
            return written;
        }
        self.begin_write();
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.watch_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(first) = data.iter().find(|slice| !slice.is_empty()) {
            self.begin_refusal(first);
        }
        if let Some(written) = self.poll_refusal(cx, data.iter().map(|slice| slice.len()).sum()) {
            return written;
        }
        self.begin_write();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.watch_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if let Some(exchange) = &mut self.exchange {
            exchange.flushed = true;
            if exchange.line.flushed() {
                exchange.head = None;
                if exchange.end.is_some() {
                    // It is owed nothing any more.
                    cx.waker().wake_by_ref();
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.poll_linger(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn pair() -> (Transport<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let (stream, _) = listener.accept().await.expect("a connection");
        (Transport::new(stream), peer)
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (mut transport, _peer) = pair().await;
        transport.stall_limit = Duration::from_millis(10);
        let flood = vec![0; 64 << 20];
        let error = transport.write_all(&flood).await.expect_err("the kernel holds less than that");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_still_sends_reads_the_last_answer() {
        let (mut transport, mut peer) = pair().await;
        let sent = vec![b'x'; 200 << 10];
        let sending = tokio::spawn(async move {
            peer.write_all(&sent).await.expect("taken, though nobody wants it");
            peer.shutdown().await.expect("half a close");
            let mut answer = String::new();
            peer.read_to_string(&mut answer).await.expect("no reset");
            answer
        });
        transport.write_all(b"no").await.expect("written");
        // A byte of it is there, so that the close finds something unread.
        transport.stream.readable().await.expect("something came");
        transport.shutdown().await.expect("closed");
        drop(transport);
        assert_eq!(sending.await.expect("it does not panic"), "no");
    }

    #[tokio::test]
    async fn a_quiet_peer_is_not_waited_for() {
        let (mut transport, _peer) = pair().await;
        transport.shutdown().await.expect("closed");
        assert!(transport.lingering.is_none());
    }

    /// What hyper is told of a caller that sends no more while a call is on the line.
    async fn told_of_end(transport: &mut Transport<TcpStream>) -> io::Result<usize> {
        let mut byte = [0];
        transport.read(&mut byte).await
    }

    async fn ended_pair(
        stage: Stage,
        interim: bool,
        leaves: bool,
    ) -> (Transport<TcpStream>, Option<TcpStream>) {
        let (transport, mut peer) = pair().await;
        let transport = Transport::on(transport.stream, Line::called(stage, interim));
        let peer = if leaves {
            drop(peer);
            None
        } else {
            peer.shutdown().await.expect("half a close");
            Some(peer)
        };
        (transport, peer)
    }

    #[tokio::test]
    async fn a_caller_that_left_is_told_from_one_that_sends_no_more() {
        let (mut transport, _gone) = ended_pair(Stage::Called, true, true).await;
        assert!(told_of_end(&mut transport).await.is_err());

        let (mut transport, peer) = ended_pair(Stage::Called, true, false).await;
        let waited = tokio::time::timeout(END_GRACE + 4 * END_LOOK, told_of_end(&mut transport));
        assert!(waited.await.is_err(), "it waits for its answer");
        transport.write_all(b"HTTP/1.1 200 OK").await.expect("written");
        drop(transport);
        let mut read = String::new();
        peer.expect("it stayed").read_to_string(&mut read).await.expect("no reset");
        assert_eq!(read, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK");
    }

    #[tokio::test]
    async fn who_cannot_be_asked_has_left() {
        for (stage, interim) in [(Stage::Called, false), (Stage::Answering, true), (Stage::Idle, true)] {
            let (mut transport, _peer) = ended_pair(stage, interim, false).await;
            assert_eq!(told_of_end(&mut transport).await.expect("an end"), 0, "{stage:?}");
        }
    }
}
