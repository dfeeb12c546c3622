//! Where a connection is between its requests and its answers: what the service knows and the
//! transport below hyper must, and the bodies of answers that tell it.
//!
//! Over HTTP/1 a line is idle, or one call is on it: called, then answering, then sent, and idle
//! again when the last byte has been handed to the kernel. Over HTTP/2 only the calls are counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

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

    /// The platform's stop.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The body of the request is here in whole, or given up.
    pub(super) fn end_upload(&self) {
        self.uploading.store(false, Ordering::Release);
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

    /// Ends when no call has been on an HTTP/2 line for `limit`, or a look later.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            tokio::time::sleep(limit).await;
            // Over HTTP/2 nobody else asks for the stage: it says whether there was a call since the last look.
            let was_idle = self.stage.swap(Stage::Idle as u8, Ordering::AcqRel) == Stage::Idle as u8;
            if was_idle && self.calls() == 0 {
                return;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_idle_when_there_was_no_call_for_a_while() {
        let limit = Duration::from_millis(20);
        let line = Arc::new(Line::default());
        line.idle(limit).await;
        let call = || {
            line.enter(Stage::Called);
            line.calls.fetch_add(1, Ordering::AcqRel);
            Call(line.clone())
        };
        let running = call();
        assert!(tokio::time::timeout(limit * 5, line.idle(limit)).await.is_err(), "a call is on it");
        drop(running);
        line.idle(limit).await;
    }
}
