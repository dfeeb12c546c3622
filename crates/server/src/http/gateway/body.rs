//! The body of a gateway answer; dropping it is the end of the phase `send`.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::history::Finished;
use crate::invoke::StreamBroken;

enum Content {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Result<Bytes, StreamBroken>>),
}

/// What is told when the answer has been handed to the kernel.
struct Receipt {
    finished: Finished,
    clock: Clock,
    began: Duration,
}

/// The body of an answer, whole or as produced.
pub(crate) struct GatewayBody {
    content: Content,
    receipt: Option<Receipt>,
}

impl GatewayBody {
    pub(crate) fn whole(bytes: Bytes, finished: Option<(Finished, Clock)>) -> Self {
        let receipt = finished.map(|(finished, clock)| Receipt { finished, began: clock.now(), clock });
        Self { content: Content::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())), receipt }
    }

    pub(crate) fn stream(pieces: mpsc::Receiver<Result<Bytes, StreamBroken>>) -> Self {
        Self { content: Content::Stream(pieces), receipt: None }
    }
}

impl GatewayBody {
    /// Sends nothing of it. A stream's function is told as by a caller that left.
    pub(crate) fn discard(&mut self) {
        self.content = Content::Whole(None);
    }
}

impl Drop for GatewayBody {
    fn drop(&mut self) {
        if let Some(Receipt { finished, clock, began }) = self.receipt.take() {
            let send = clock.now().saturating_sub(began);
            finished.sent(send.as_nanos() as u64, None);
        }
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = StreamBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamBroken>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(pieces) => {
                pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Stream(_) => SizeHint::default(),
        }
    }
}
