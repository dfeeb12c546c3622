//! What comes from a worker: its frames, their bodies, and the pipe of descriptors 1 and 2.
//!
//! One reused buffer; waiting for a frame empties the output pipe meanwhile, so that a worker
//! never blocks on its output. Whose output that is, is the caller's affair.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::io::AsyncReadExt as _;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::task::coop::consume_budget;

use super::Broken;
use crate::closing::ClosedAside;
use crate::fds;
use crate::frames::{self, Frame, Reader};
use crate::logs::Logs;
use crate::protocol::LogHead;

/// The reading side of a worker.
#[derive(Debug)]
pub(super) struct Listener {
    answers: pipe::Receiver,
    side: Arc<ClosedAside>,
    /// None after its end of file.
    output: Option<AsyncFd<OwnedFd>>,
    reader: Reader,
}

impl Listener {
    pub(super) fn new(answers: OwnedFd, side: Arc<ClosedAside>, output: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            answers: pipe::Receiver::from_owned_fd(answers)?,
            side,
            output: Some(fds::watch(output)?),
            reader: Reader::new(),
        })
    }

    pub(super) fn side(&self) -> &Arc<ClosedAside> {
        &self.side
    }

    /// Waits for a whole frame; bytes of the pipe go to `piped` meanwhile. Cancel-safe.
    pub(super) async fn next_frame(&mut self, mut piped: impl FnMut(&[u8])) -> Result<Frame, Broken> {
        loop {
            // One read may bring tens of thousands of frames: other calls have their turn between.
            consume_budget().await;
            if let Some(frame) = self.reader.next().map_err(Broken::Protocol)? {
                return Ok(frame);
            }
            match self.read_stream(&mut piped).await.map_err(Broken::host)? {
                0 => return Err(Broken::Gone),
                count => self.reader.filled(count),
            }
        }
    }

    /// Reads once from the stream; empties the pipe as often as it fills. `read` and not
    /// `try_read`, because it remembers a drained stream and so saves the next call a syscall.
    async fn read_stream(&mut self, piped: &mut impl FnMut(&[u8])) -> io::Result<usize> {
        loop {
            let Some(output) = &self.output else {
                return self.answers.read(self.reader.space()).await;
            };
            let mut ready = tokio::select! {
                biased;
                count = self.answers.read(self.reader.space()) => return count,
                ready = output.readable() => ready?,
            };
            let drained = drain(output.get_ref(), piped);
            // The kernel tells of a pipe's filling, not of its being full: ready until empty.
            match drained {
                Drained::Full => {
                    ready.retain_ready();
                    // Who never stops writing must not keep this thread from other calls.
                    tokio::task::yield_now().await;
                }
                Drained::Empty => ready.clear_ready(),
                Drained::Ended => self.output = None,
            }
        }
    }

    /// Takes what the pipe holds now.
    pub(super) fn drain_output(&mut self, mut piped: impl FnMut(&[u8])) {
        let drained = self.output.as_ref().map(|output| drain(output.get_ref(), &mut piped));
        if matches!(drained, Some(Drained::Ended)) {
            self.output = None;
        }
    }

    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self, frame: &Frame) -> Result<T, Broken> {
        let head = self.reader.bytes(&frame.head);
        serde_json::from_slice(head)
            .map_err(|e| Broken::Protocol(format!("the head of {:?}: {e}", frame.kind)))
    }

    /// A `Log` frame.
    pub(super) fn log(&self, frame: &Frame) -> Result<(LogHead, &[u8]), Broken> {
        let head: LogHead = self.parse(frame)?;
        if frame.memfd {
            return Err(Broken::Protocol("output came in a memfd".into()));
        }
        Ok((head, self.reader.bytes(&frame.body)))
    }

    pub(super) fn keep_log(&self, frame: &Frame, logs: &mut Logs) -> Result<(), Broken> {
        let (head, text) = self.log(frame)?;
        logs.frame(head.source, head.level, text);
        Ok(())
    }

    /// The frame's body: copied out of the buffer, or mapped, then at most `limit` bytes.
    pub(super) fn body(&self, frame: &Frame, limit: usize) -> Result<Bytes, Broken> {
        if !frame.memfd {
            return Ok(Bytes::copy_from_slice(self.reader.bytes(&frame.body)));
        }
        if !frame.body.is_empty() {
            return Err(Broken::Protocol("a frame has a body and a memfd".into()));
        }
        let mut message = [0; 16];
        // The worker sends it before the frame, so it is here or it never comes; several come in
        // the order of their frames.
        let (data, descriptors) = match fds::receive(&*self.side, &mut message) {
            Ok(Some(received)) => received,
            Ok(None) => return Err(Broken::Gone),
            Err(error) => {
                return Err(Broken::Protocol(format!("a memfd was announced and is not there: {error}")));
            }
        };
        let descriptors: Vec<_> = descriptors.into_iter().map(ClosedAside::new).collect();
        match descriptors.as_slice() {
            [memfd] if data == frame.serial.to_le_bytes() => {
                frames::open_sealed(memfd, limit).map_err(Broken::Protocol)
            }
            _ => Err(Broken::Protocol(
                "the side channel brought something else than the announced memfd".into(),
            )),
        }
    }

    /// The body of an answer that is no stream, within the call's limit.
    pub(super) fn whole_body(&self, frame: &Frame, limit: usize) -> Result<Bytes, Broken> {
        let body = self.body(frame, limit)?;
        if body.len() > limit {
            let what = format!("an answer of {} bytes, the limit is {limit}", body.len());
            return Err(Broken::Protocol(what));
        }
        Ok(body)
    }
}

/// What a pipe holds after [`drain`].
enum Drained {
    Empty,
    Full,
    Ended,
}

/// Takes what is in the pipe, at most once its size, so that a flood cannot hold us.
fn drain(output: &OwnedFd, piped: &mut impl FnMut(&[u8])) -> Drained {
    let mut buffer = [0; 4096];
    for _ in 0..16 {
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => return Drained::Ended,
            Ok(count) => piped(&buffer[..count]),
            Err(Errno::AGAIN) => return Drained::Empty,
            Err(Errno::INTR) => {}
            Err(_) => return Drained::Ended,
        }
    }
    Drained::Full
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::FrameType;

    #[tokio::test]
    async fn many_frames_at_once_leave_others_their_turn() {
        const FRAMES: usize = 2000;
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("a pipe");
        let ((answers, worker_answers), (output, _worker_output)) = (pipe(), pipe());
        let (side, _worker_side) = fds::message_pair().expect("a pair");
        let mut wire = Vec::new();
        for _ in 0..FRAMES {
            frames::append(&mut wire, FrameType::StreamChunk, 1, &(), b"").expect("a short head");
        }
        assert_eq!(rustix::io::write(&worker_answers, &wire), Ok(wire.len()), "it fits into the pipe");
        let side = Arc::new(ClosedAside::new(side));
        let mut listener = Listener::new(answers, side, output).expect("a listener");
        let reading = async {
            for _ in 0..FRAMES {
                assert!(listener.next_frame(|_| {}).await.is_ok());
            }
        };
        let mut polls = 0;
        let mut reading = std::pin::pin!(reading);
        std::future::poll_fn(|context| {
            polls += 1;
            reading.as_mut().poll(context)
        })
        .await;
        assert!(polls >= FRAMES / 200, "{polls} turns of others in {FRAMES} frames");
    }
}
