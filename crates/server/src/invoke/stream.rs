//! Streamed answers: a task per stream carries pieces from the worker to the caller.
//!
//! The channel holds one piece, so a slow caller slows the handler down (its writes block) and
//! nothing piles up here. The record is closed before the end of the body is told, so that it
//! is there when the caller has read the last byte.

use std::time::Duration;

use bytes::Bytes;
use fp_core::outcome::Outcome;
use fp_core::record::LogLine;
use fp_sandbox::StreamPiece;
use fp_sandbox::protocol::{AnswerHead, FailureHead};
use tokio::sync::mpsc;

use super::flight::{Flight, Leftovers};
use super::{Completed, Fault, Reply, StreamBroken, attempt};

/// A caller that takes nothing for this long holds up the stream, not the handler: far above what
/// a piece needs on any line that is alive.
const SLOW_READER: Duration = Duration::from_secs(1);

type Pieces = mpsc::Sender<Result<Bytes, StreamBroken>>;

/// Answers with the head now; the rest follows by itself, if the caller asked for more than that.
pub(super) fn begin(flight: Flight, head: AnswerHead) -> Completed {
    let (sender, pieces) = mpsc::channel(1);
    let status = head.status.unwrap_or(200);
    if &*flight.request.verb == "HEAD" {
        drop(sender);
        return end_at_head(flight, status, Reply::Stream { head, pieces });
    }
    let completed = flight.completed_with(Reply::Stream { head, pieces });
    let invoker = flight.invoker.clone();
    invoker.endings.spawn(carry(flight, status, sender));
    completed
}

/// To a HEAD the head is the whole answer: the handler is told to stop, for it may never do so by
/// itself, and the call has ended as it should.
fn end_at_head(mut flight: Flight, status: u16, reply: Reply) -> Completed {
    let lease = flight.lease.as_mut().expect("a stream holds its lease until its end");
    lease.give_up();
    let logs = lease.take_logs();
    note_end(&mut flight, status, 0);
    let (finished, phases) = flight.close(Leftovers { logs, ..Leftovers::default() }, None);
    flight.settle_later();
    flight.completed(reply, phases, Some(finished))
}

fn note_end(flight: &mut Flight, status: u16, sent: u64) {
    let record = flight.record();
    record.outcome = if status < 500 { Outcome::Ok } else { Outcome::FunctionError };
    record.status = status;
    record.response_bytes = sent;
    flight.end_run();
}

/// How a stream ended before its end.
enum Stop {
    /// The handler, its worker or a time limit ended it.
    Fault(Box<Fault>, Vec<LogLine>, Option<Box<FailureHead>>),
    /// The caller left; the flight's drop interrupts the handler and closes the record.
    CallerLeft,
}

async fn carry(mut flight: Flight, status: u16, sender: Pieces) {
    let mut sent = 0;
    match pump(&mut flight, &sender, &mut sent).await {
        Ok(leftovers) => {
            note_end(&mut flight, status, sent);
            flight.close(leftovers, None);
        }
        Err(Stop::CallerLeft) => {
            flight.record().response_bytes = sent;
        }
        Err(Stop::Fault(fault, logs, failure)) => {
            flight.record().response_bytes = sent;
            flight.end_run();
            let leftovers = flight.note_fault(&fault, logs, failure);
            flight.record().status = status;
            flight.close(leftovers, None);
            flight.settle_later();
            // A caller that is gone as well needs no word.
            let _ = sender.send(Err(StreamBroken(fault.outcome.word()))).await;
        }
    }
}

async fn pump(flight: &mut Flight, sender: &Pieces, sent: &mut u64) -> Result<Leftovers, Stop> {
    let settings = flight.function.settings.clone();
    let total = tokio::time::Instant::now() + settings.stream_total;
    loop {
        let lease = flight.lease.as_mut().expect("a stream holds its lease until its end");
        let silent = tokio::time::Instant::now() + settings.stream_idle;
        let piece = tokio::select! {
            biased;
            piece = lease.next_chunk() => piece,
            () = sender.closed() => return Err(Stop::CallerLeft),
            () = tokio::time::sleep_until(silent.min(total)) => {
                return Err(too_slow(flight, if silent < total { settings.stream_idle } else { settings.stream_total }));
            }
        };
        match piece {
            Ok(StreamPiece::Chunk(bytes)) => {
                *sent += bytes.len() as u64;
                let offered = tokio::time::Instant::now();
                let delivered = tokio::time::timeout_at(total, sender.send(Ok(bytes))).await;
                match delivered {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(Stop::CallerLeft),
                    Err(_) if offered.elapsed() >= SLOW_READER => return Err(not_taken(flight)),
                    Err(_) => return Err(too_slow(flight, settings.stream_total)),
                }
            }
            Ok(StreamPiece::End { end, logs }) => {
                return Ok(Leftovers { logs, spans: end.spans, usage: end.usage });
            }
            Ok(StreamPiece::Failed { mut failure, logs }) => {
                flight.mask_failure(&mut failure);
                let fault = attempt::failed(flight, &failure);
                return Err(Stop::Fault(Box::new(fault), logs, Some(failure)));
            }
            Err(error) => {
                lease.spoil();
                let fault = attempt::broken_stream(flight, &error);
                return Err(Stop::Fault(Box::new(fault), error.into_logs(), None));
            }
        }
    }
}

/// The handler waited for the caller, not the caller for the handler.
fn not_taken(flight: &mut Flight) -> Stop {
    let limit = humantime::format_duration(flight.function.settings.stream_total);
    let detail = format!("the caller did not take the stream within stream_total of {limit}");
    cut_off(flight, Outcome::Cancelled, detail)
}

fn too_slow(flight: &mut Flight, limit: Duration) -> Stop {
    let which = if limit == flight.function.settings.stream_total { "stream_total" } else { "stream_idle" };
    let limit = humantime::format_duration(limit);
    let detail =
        format!("the stream passed {which} of {limit}; send sooner, or raise {which} in function.toml");
    cut_off(flight, Outcome::Timeout, detail)
}

fn cut_off(flight: &mut Flight, outcome: Outcome, detail: String) -> Stop {
    let lease = flight.lease.as_mut().expect("a stream holds its lease until its end");
    lease.give_up();
    let logs = lease.take_logs();
    Stop::Fault(Box::new(attempt::fault(flight, outcome, "run", detail)), logs, None)
}
