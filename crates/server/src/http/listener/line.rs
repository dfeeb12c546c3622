//! Where a connection is between its requests and its answers: what the service knows and the
//! transport below hyper must, and the bodies that tell it.
//!
//! Over HTTP/1 a line is idle, or one call is on it: called, then answering, then sent, and idle
//! again when the last byte has been handed to the kernel. Over HTTP/2 only the calls are counted.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

/// How long a body that is still on its way may take once the platform stops: it is no call yet,
/// and what a sender has in flight is there within that.
pub(super) const UPLOAD_GRACE: Duration = Duration::from_secs(1);

/// The stages of an HTTP/1 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// No request is read in whole, none is owed an answer.
    Idle,
    /// A call is made, and nothing of its answer is known.
    Called,
    /// The answer's head is known.
    Answering,
    /// hyper has all of the answer, the kernel may not.
    Sent,
}

/// Shared by a connection's transport and its service.
#[derive(Debug, Default)]
pub(super) struct Line {
    stage: AtomicU8,
    calls: AtomicUsize,
    /// The body of the request is not here in whole.
    uploading: AtomicBool,
    /// The caller speaks HTTP/1.1, and so understands interim answers.
    interim: AtomicBool,
    /// The platform stops. Here, because a clone for every request would be two locks that all share.
    stop: CancellationToken,
}

impl Line {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { stop, ..Self::default() }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Idle,
            1 => Stage::Called,
            2 => Stage::Answering,
            _ => Stage::Sent,
        }
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// A request is here.
    pub(super) fn begin(self: &Arc<Self>, request: &Request<Incoming>) -> Call {
        self.interim.store(request.version() == Version::HTTP_11, Ordering::Release);
        self.uploading.store(!request.body().is_end_stream(), Ordering::Release);
        self.enter(Stage::Called);
        self.calls.fetch_add(1, Ordering::AcqRel);
        Call(self.clone())
    }

    /// The kernel has everything that hyper had. Whether that ended an answer.
    pub(super) fn flushed(&self) -> bool {
        let ended = self.stage() == Stage::Sent;
        if ended {
            self.enter(Stage::Idle);
        }
        ended
    }

    pub(super) fn is_uploading(&self) -> bool {
        self.uploading.load(Ordering::Acquire)
    }

    pub(super) fn takes_interim(&self) -> bool {
        self.interim.load(Ordering::Acquire)
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(super) fn called(stage: Stage, interim: bool) -> Arc<Self> {
        let line = Self { interim: interim.into(), ..Self::default() };
        line.enter(stage);
        Arc::new(line)
    }
}

/// A call on a line, until its answer is sent or given up.
#[derive(Debug)]
pub(super) struct Call(Arc<Line>);

impl Call {
    pub(super) fn answer_with<B>(self, body: B) -> Answer<B> {
        self.0.enter(Stage::Answering);
        Answer { body, _call: self }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.enter(Stage::Sent);
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer; hyper drops it once it has all of it.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    _call: Call,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why a request's body is not here in whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// It broke off, or its framing is wrong.
    #[error("the body broke off or its framing is wrong")]
    Broken(#[source] hyper::Error),
    /// The platform stops, and does not wait for it.
    #[error("the platform is stopping, and the body was not here in whole")]
    Stopping,
}

impl UploadError {
    /// Whether an error is, or was caused by, the platform's stop.
    pub(crate) fn is_stopping(error: &(dyn Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(Self::Stopping) = error.downcast_ref() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// The body of a request.
pub(crate) struct Upload {
    body: Incoming,
    line: Arc<Line>,
    /// Ends a while after the stop; there once the body has been waited for.
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    over: bool,
}

impl Upload {
    pub(super) fn new(body: Incoming, line: Arc<Line>) -> Self {
        Self { body, line, cut: None, over: false }
    }

    fn end(&mut self) {
        self.over = true;
        self.line.uploading.store(false, Ordering::Release);
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.end();
    }
}

impl Body for Upload {
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
                if !matches!(&frame, Some(Ok(_))) || self.body.is_end_stream() {
                    self.end();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(UploadError::Broken)))
            }
            Poll::Pending => {
                let Self { line, cut, .. } = &mut *self;
                let cut = cut.get_or_insert_with(|| {
                    let stop = line.stop.clone();
                    Box::pin(async move {
                        stop.cancelled_owned().await;
                        tokio::time::sleep(UPLOAD_GRACE).await;
                    })
                });
                ready!(cut.as_mut().poll(cx));
                self.end();
                Poll::Ready(Some(Err(UploadError::Stopping)))
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
