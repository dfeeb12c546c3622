//! The body of a request: as it comes, but not for ever.
//!
//! Whoever reads it, on whichever listener, it must come on: a silence or a trickle ends it, and so
//! does the platform's stop. The clock of the whole runs from the first wait on, that of a silence while
//! the sender is waited for; a body that is here with its head starts none.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fp_core::code::Code;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::line::Line;
use crate::http::problem::{self, Problem};

/// How long a body that is still on its way may take once the platform stops: it is no call yet,
/// and what a sender has in flight is there within that.
pub(super) const UPLOAD_GRACE: Duration = Duration::from_secs(1);

/// How fast a body must come.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The longest silence of its sender.
    silence: Duration,
    /// The fewest bytes per second, over all of it and after a silence's time for free.
    slowest: u64,
}

/// Twice as fast as what Apache's mod_reqtimeout takes, which has callers over modems in mind.
const PACE: Pace = Pace { silence: Duration::from_secs(15), slowest: 1024 };

impl Pace {
    /// Until when the next piece must be here.
    fn until(self, began: Instant, received: u64) -> Instant {
        let whole = self.silence + Duration::from_secs(received / self.slowest);
        (Instant::now() + self.silence).min(began + whole)
    }
}

/// Why a request's body is not here in whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// It broke off, or its framing is wrong.
    #[error("the body broke off or its framing is wrong; send it again")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// Its sender was silent for too long, or sent too little.
    #[error(
        "the body came too slowly: {received} bytes in {} s; send it faster than {} bytes a second, and without pauses of {} s",
        .took.as_secs(), PACE.slowest, PACE.silence.as_secs()
    )]
    TooSlow {
        /// Bytes that came.
        received: u64,
        /// Since the first wait for one.
        took: Duration,
    },
    /// The platform stops, and does not wait for it.
    #[error("the platform is stopping, and the body was not here in whole")]
    Stopping,
}

impl UploadError {
    /// The answer to whoever was sending.
    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Broken(_) => Problem::new(Code::BadRequest, self.to_string())
                .hint("Send as many bytes as Content-Length says, or well-formed chunks up to the last one."),
            Self::TooSlow { .. } => Problem::new(Code::RequestTimeout, self.to_string()),
            Self::Stopping => problem::stopping(),
        }
    }

    /// The same for an error that this is, or that was caused by this.
    pub(crate) fn problem_of(error: &(dyn Error + 'static)) -> Option<Problem> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(upload) = error.downcast_ref::<Self>() {
                return Some(upload.problem());
            }
            cause = error.source();
        }
        None
    }
}

/// The body of a request.
pub(crate) struct Upload<B = Incoming> {
    body: B,
    line: Arc<Line>,
    pace: Pace,
    received: u64,
    /// There once the body has been waited for.
    wait: Option<Pin<Box<Wait>>>,
    over: bool,
}

impl<B> Upload<B> {
    pub(super) fn new(body: B, line: Arc<Line>) -> Self {
        Self { body, line, pace: PACE, received: 0, wait: None, over: false }
    }

    fn end(&mut self) {
        self.over = true;
        self.line.end_upload();
    }

    /// A piece is here: the next silence is a new one.
    fn advance(&mut self, bytes: usize) {
        self.received += bytes as u64;
        if let Some(wait) = &mut self.wait {
            wait.is_new = true;
        }
    }

    /// Pending as long as the sender may go on sending.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<UploadError> {
        let (pace, received) = (self.pace, self.received);
        let Self { line, wait, .. } = self;
        let wait = wait.get_or_insert_with(|| Wait::begin(line.stop().clone()));
        if wait.is_new {
            wait.is_new = false;
            let until = pace.until(wait.began, received);
            wait.timeout.as_mut().reset(until);
        }
        if wait.timeout.as_mut().poll(cx).is_ready() {
            return Poll::Ready(UploadError::TooSlow { received, took: wait.began.elapsed() });
        }
        wait.cut.as_mut().poll(cx).map(|()| UploadError::Stopping)
    }
}

impl<B> Drop for Upload<B> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The time for a body that was not here at once.
struct Wait {
    began: Instant,
    /// A piece has come since `timeout` was set.
    is_new: bool,
    timeout: Pin<Box<Sleep>>,
    /// Ends a while after the stop.
    cut: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

impl Wait {
    fn begin(stop: CancellationToken) -> Pin<Box<Self>> {
        let began = Instant::now();
        let cut = async move {
            stop.cancelled_owned().await;
            tokio::time::sleep(UPLOAD_GRACE).await;
        };
        let timeout = Box::pin(sleep_until(began));
        Box::pin(Self { began, is_new: true, timeout, cut: Box::pin(cut) })
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(Ok(piece)) = &frame {
                    let bytes = piece.data_ref().map_or(0, Bytes::len);
                    self.advance(bytes);
                }
                if !matches!(&frame, Some(Ok(_))) || self.body.is_end_stream() {
                    self.end();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|error| UploadError::Broken(error.into()))))
            }
            Poll::Pending => {
                let fault = ready!(self.poll_patience(cx));
                self.end();
                Poll::Ready(Some(Err(fault)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.over { SizeHint::with_exact(0) } else { self.body.size_hint() }
    }
}

#[cfg(test)]
pub(in crate::http) mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt as _;
    use tokio::sync::mpsc;

    use super::*;

    /// A body whose sender is the test.
    pub(in crate::http) struct Pieces(mpsc::Receiver<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// A body that must not be silent for so long.
    pub(in crate::http) fn upload(silence: Duration) -> (mpsc::Sender<Bytes>, Upload<Pieces>) {
        let (sender, pieces) = mpsc::channel(4);
        let mut upload = Upload::new(Pieces(pieces), Arc::default());
        upload.pace = Pace { silence, slowest: 1 << 20 };
        (sender, upload)
    }

    const NOT_LONG: Duration = Duration::from_millis(40);

    #[tokio::test]
    async fn a_sender_that_falls_silent_is_not_waited_for() {
        let (sender, body) = upload(NOT_LONG);
        sender.send(Bytes::from_static(b"half")).await.expect("it is read");
        let fault = body.collect().await.expect_err("the rest never comes");
        assert!(matches!(fault, UploadError::TooSlow { received: 4, .. }), "{fault:?}");
        assert_eq!(fault.problem().code(), Code::RequestTimeout);
    }

    #[tokio::test]
    async fn a_trickle_ends_though_it_never_falls_silent() {
        let (sender, body) = upload(NOT_LONG);
        let trickle = async {
            while sender.send(Bytes::from_static(b"a")).await.is_ok() {
                tokio::time::sleep(NOT_LONG / 8).await;
            }
        };
        let (fault, ()) = tokio::join!(async { body.collect().await.map(|_| ()) }, trickle);
        assert!(matches!(fault, Err(UploadError::TooSlow { .. })), "{fault:?}");
    }

    #[tokio::test]
    async fn a_body_that_is_here_starts_no_clock() {
        let (sender, mut body) = upload(Duration::ZERO);
        sender.send(Bytes::from_static(b"all")).await.expect("it is read");
        drop(sender);
        while let Some(frame) = body.frame().await {
            frame.expect("it is here");
        }
        assert!(body.wait.is_none());
    }

    #[test]
    fn what_hides_an_error_of_the_body_does_not_hide_its_answer() {
        let wrapped = axum::Error::new(UploadError::Stopping);
        let problem = UploadError::problem_of(&wrapped).expect("its cause is known");
        assert_eq!(problem.code(), Code::NotReady);
        assert!(UploadError::problem_of(&axum::Error::new(std::fmt::Error)).is_none());
    }
}
