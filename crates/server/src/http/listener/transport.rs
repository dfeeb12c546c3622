//! A stream, TCP's or TLS's, that neither waits for ever for a peer that does not read, nor closes on one that
//! is still sending.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a peer may take nothing of what is there for it: half of nginx's `send_timeout`, which
/// is meant for callers far away.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How long, and how much, is read of a peer that still sends after the last answer. Closing at
/// once would reset the connection and take the answer from it (RFC 9112 section 9.6).
const LINGER_LIMIT: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// What hyper reads from and writes to.
pub(super) struct Transport<S> {
    stream: S,
    stall_limit: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    lingering: Option<Lingering>,
}

struct Lingering {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, stall_limit: STALL_LIMIT, stalled: None, lingering: None }
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

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.watch_stall(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.watch_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
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
    use tokio::net::{TcpListener, TcpStream};

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
}
