//! The one task of a shared worker: reads its frames as they come, and sends what was stuck.
//!
//! It ends with the worker's stream, then tells every call that still runs how it ended. It never
//! waits for a caller.

use std::sync::Arc;

use super::desk::Desk;
use crate::frames::Frame;
use crate::protocol::FrameType;
use crate::start::Exit;
use crate::worker::Broken;
use crate::worker::listener::Listener;

/// Until the worker is gone.
pub(super) async fn run(desk: Arc<Desk>, mut listener: Listener) {
    let broken = read_all(&desk, &mut listener).await;
    desk.process.kill();
    let exit = match broken {
        Broken::Gone | Broken::GoneUnread => desk.process.last_report().await,
        Broken::Protocol(_) | Broken::Host(_) => Exit::LOST,
    };
    listener.drain_output(|bytes| desk.last_words(bytes));
    desk.close(broken, exit);
}

async fn read_all(desk: &Desk, listener: &mut Listener) -> Broken {
    loop {
        let frame = tokio::select! {
            frame = listener.next_frame(|bytes| desk.piped(bytes)) => frame,
            never = desk.keep_sending() => match never {},
        };
        if let Err(broken) = frame.and_then(|frame| receive(desk, listener, &frame)) {
            return broken;
        }
    }
}

fn receive(desk: &Desk, listener: &mut Listener, frame: &Frame) -> Result<(), Broken> {
    let serial = frame.serial;
    match frame.kind {
        FrameType::Log => {
            let (head, text) = listener.log(frame)?;
            desk.log(serial, head, text);
            Ok(())
        }
        FrameType::StreamHead => desk.stream(serial, listener.parse(frame)?),
        FrameType::StreamChunk => {
            let limit = desk.response_limit(frame)?;
            desk.chunk(serial, listener.body(frame, limit)?)
        }
        FrameType::Answer => {
            let head = listener.parse(frame)?;
            let body = listener.whole_body(frame, desk.response_limit(frame)?)?;
            listener.drain_output(|bytes| desk.piped(bytes));
            desk.answer(serial, head, body)
        }
        FrameType::StreamEnd => {
            let end = listener.parse(frame)?;
            listener.drain_output(|bytes| desk.piped(bytes));
            desk.end(serial, end)
        }
        FrameType::Failure => {
            let failure = listener.parse(frame)?;
            listener.drain_output(|bytes| desk.piped(bytes));
            desk.failure(serial, failure)
        }
        other => Err(Broken::Protocol(format!("it sent {other:?} between calls"))),
    }
}
