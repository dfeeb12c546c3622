//! Several calls at once on one worker: whose answer, output and end is whose.

use std::time::Duration;

use bytes::Bytes;
use fp_core::record::{LogLine, LogSource};
use fp_sandbox::protocol::FailureKind;
use fp_sandbox::{Answer, Call, CallError, Ended, SharedCall, SharedWorker, StreamPiece};

use crate::stage::{PATIENCE, Stage, call, head, kill, text_of};

/// Does what the path says; `/wait/x` waits for `/open/x`.
const HANDLER: &str = "import asyncio, os, subprocess, time
gates = {}
def gate(name):
    return gates.setdefault(name, asyncio.Event())
async def handler(message, context):
    what, _, name = message['body'].partition(' ')
    print('began', what, name)
    if what == 'open':
        gate(name).set()
    elif what == 'wait':
        try:
            await gate(name).wait()
        finally:
            print('ended', what, name)
    elif what == 'raise':
        raise ValueError(name)
    elif what == 'block':
        time.sleep(600)
    elif what == 'stubborn':
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                print('no')
    elif what == 'shell':
        await (await asyncio.create_subprocess_exec('echo', 'from the shell')).wait()
    elif what == 'garbage':
        os.write(5, b'x' * 64)
    return name
";

async fn shared(stage: &Stage, code: &str) -> SharedWorker {
    let mut spec = stage.function("f", code);
    spec.concurrency = 8;
    stage.sandbox.start_worker(&spec).await.expect("a worker").share().expect("it is shared")
}

fn said(serial: u64, what: &str) -> Call<'static> {
    call(serial, what.to_owned())
}

/// Begins a call and waits until the handler runs.
async fn begun(worker: &SharedWorker, call: Call<'static>) -> tokio::task::JoinHandle<Ran> {
    let mut seat = worker.seat();
    let running = tokio::spawn(async move {
        let answer = seat.call(call).await;
        Ran { seat, answer }
    });
    // Our first goes out first, and the loop takes calls in order: when the second is answered,
    // the first runs.
    tokio::task::yield_now().await;
    assert_eq!(whole(worker.seat().call(said(u64::MAX, "nothing")).await).0, "");
    running
}

struct Ran {
    seat: SharedCall,
    answer: Result<Answer, CallError>,
}

async fn end(running: tokio::task::JoinHandle<Ran>) -> Ran {
    tokio::time::timeout(PATIENCE, running).await.expect("an end").expect("it does not panic")
}

fn whole(answer: Result<Answer, CallError>) -> (String, Vec<LogLine>) {
    match answer.expect("an answer") {
        Answer::Whole(whole) => (String::from_utf8_lossy(&whole.body).into_owned(), whole.logs),
        other => panic!("not a whole answer: {other:?}"),
    }
}

#[tokio::test]
async fn answers_come_when_they_are_ready_each_with_its_own_output() {
    let stage = Stage::new().await;
    let worker = shared(&stage, HANDLER).await;
    let a = begun(&worker, said(1, "wait a")).await;
    let b = begun(&worker, said(2, "wait b")).await;
    let answer = worker.seat().call(said(3, "raise oh")).await.expect("an answer");
    let Answer::Failed { failure, logs } = answer else { panic!("{answer:?}") };
    assert_eq!((&*failure.message, &*text_of(&logs)), ("oh", "began raise oh\n"));
    for (serial, name, waiting) in [(4, "b", b), (5, "a", a)] {
        whole(worker.seat().call(said(serial, &format!("open {name}"))).await);
        let ran = end(waiting).await;
        assert!(ran.seat.is_reusable());
        let (body, logs) = whole(ran.answer);
        assert_eq!((&*body, text_of(&logs)), (name, format!("began wait {name}\nended wait {name}\n")));
    }
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn bodies_of_every_size_find_their_calls() {
    let stage = Stage::new().await;
    let code = "import asyncio
async def handler(message, context):
    await asyncio.sleep(0)
    return message['raw_body']
";
    let worker = shared(&stage, code).await;
    let sizes = [0, 1, 65_536, 262_144, 262_145, 1 << 20, 300_000, 6 << 20];
    let calls = sizes.into_iter().zip(1..).map(|(size, serial)| {
        let mut seat = worker.seat();
        tokio::spawn(async move {
            let body = Bytes::from(vec![serial as u8; size]);
            let answer = seat.call(call(serial, body.clone())).await.expect("an answer");
            let Answer::Whole(whole) = answer else { panic!("{answer:?}") };
            assert!(whole.body == body, "{size} bytes came back as {}", whole.body.len());
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("it comes back");
    }
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn a_stream_that_nobody_takes_is_paused_and_holds_up_nobody() {
    const PIECES: usize = 300;
    let stage = Stage::new().await;
    // Without an await of its own between the pieces, and with one piece that is far too large.
    let code = "sent = 0
async def pieces():
    global sent
    for n in range(300):
        sent += 1
        yield (b'%07d,' % n) * 8192
    yield b'x' * 40_000_000
async def handler(message, context):
    return sent if message['body'] == 'sent' else pieces()
";
    let worker = shared(&stage, code).await;
    let mut slow = worker.seat();
    let answer = slow.call(said(1, "")).await.expect("an answer");
    assert!(matches!(answer, Answer::Stream { .. }), "{answer:?}");
    let mut streams: Vec<_> = (2..4).map(|serial| (serial, worker.seat())).collect();
    for (serial, other) in &mut streams {
        other.call(said(*serial, "")).await.expect("an answer");
        assert_eq!(length(other, |_| {}).await, PIECES * 65_536 + 40_000_000);
    }
    let (sent, _) = whole(worker.seat().call(said(9, "sent")).await);
    let sent: usize = sent.parse().expect("a number");
    assert!(sent < 2 * (PIECES + 1) + 40, "the slow one was not paused: {sent}");
    let mut first = Vec::new();
    let all = length(&mut slow, |chunk| first.extend(chunk.first().copied())).await;
    assert_eq!(all, PIECES * 65_536 + 40_000_000);
    assert!(first.len() > PIECES && slow.is_reusable());
    drop((worker, slow, streams));
    stage.close().await;
}

#[tokio::test]
async fn a_stream_of_nothing_that_nobody_takes_is_bounded_like_any_other() {
    let stage = Stage::new().await;
    let code = "import asyncio, os, struct, sys
def frame(kind, serial, head=b''):
    return struct.pack('<IBBHQI', 16 + len(head), kind, 0, 0, serial, len(head)) + head
def whole(data):
    while data:
        data = data[os.write(5, data):]
async def handler(message, context):
    serial = sys._getframe(1).f_locals['call'].serial
    whole(frame(21, serial, b'{}'))
    for _ in range(500):
        whole(frame(22, serial) * 1000)
    await asyncio.sleep(600)
";
    let worker = shared(&stage, code).await;
    let mut seat = worker.seat();
    let answer = seat.call(said(1, "")).await.expect("an answer");
    assert!(matches!(answer, Answer::Stream { .. }), "{answer:?}");
    // Nothing is taken until the worker has sent all, or was ended for it.
    worker.exit_watch().await;
    let mut pieces = 0;
    let error = loop {
        match seat.next_chunk().await {
            Ok(_) => pieces += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, CallError::Protocol { what, .. } if what.contains("told to pause")),
        "{error:?}"
    );
    assert!(pieces < 20_000, "{pieces} were kept");
    drop((worker, seat));
    stage.close().await;
}

#[tokio::test]
async fn a_long_body_whose_caller_left_before_it_was_read_harms_nobody() {
    let stage = Stage::new().await;
    let code = "import os, time
seen = []
async def blocking():
    yield b'begun'
    while not os.path.exists(os.path.dirname(__file__) + '/go'):
        time.sleep(0.005)
async def handler(message, context):
    seen.append(message['raw_body'][:5].decode())
    return blocking() if seen == ['block'] else seen
";
    let worker = shared(&stage, code).await;
    let mut blocks = worker.seat();
    blocks.call(said(1, "block")).await.expect("an answer");
    assert!(matches!(blocks.next_chunk().await.expect("a piece"), StreamPiece::Chunk(_)));
    let mut left = worker.seat();
    {
        // Written at once, and not read before the loop goes on.
        let mut called = std::pin::pin!(left.call(call(2, vec![b'x'; 1 << 20])));
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(called.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }
    drop(left);
    std::fs::write(stage.dir.path().join("f/go"), "").expect("it is written");
    assert_eq!(length(&mut blocks, |_| {}).await, 0);
    let (seen, _) = whole(worker.seat().call(said(3, "third")).await);
    assert!(!seen.contains("xxxxx") && seen.contains("third"), "{seen}");
    drop((worker, blocks));
    stage.close().await;
}

async fn length(seat: &mut SharedCall, mut see: impl FnMut(&Bytes)) -> usize {
    let mut length = 0;
    loop {
        match seat.next_chunk().await.expect("a piece") {
            StreamPiece::Chunk(chunk) => {
                see(&chunk);
                length += chunk.len();
            }
            StreamPiece::End { .. } => return length,
            StreamPiece::Failed { failure, .. } => panic!("{failure:?}"),
        }
    }
}

#[tokio::test]
async fn an_interrupted_call_leaves_the_worker_to_the_others() {
    let stage = Stage::new().await;
    let worker = shared(&stage, HANDLER).await;
    let other = begun(&worker, said(1, "wait a")).await;
    let mut late = worker.seat();
    let short = Call { head: head(Duration::from_millis(30)), ..said(2, "wait never") };
    let answer = late.call(short).await.expect("an answer");
    let Answer::Failed { failure, logs } = answer else { panic!("{answer:?}") };
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
    assert_eq!(text_of(&logs), "began wait never\nended wait never\n");
    assert!(late.is_reusable());

    let mut left = worker.seat();
    let gone = tokio::time::timeout(Duration::from_millis(20), left.call(said(3, "wait never"))).await;
    assert!(gone.is_err() && !left.is_reusable());
    left.cancel();
    let logs = left.settle(PATIENCE, false).await;
    assert_eq!(text_of(&logs), "began wait never\nended wait never\n");
    assert!(left.is_reusable(), "it has ended in order");

    // A seat that is dropped without a word frees the worker, too.
    let mut dropped = worker.seat();
    assert!(tokio::time::timeout(Duration::from_millis(20), dropped.call(said(4, "wait a"))).await.is_err());
    drop(dropped);
    whole(worker.seat().call(said(5, "open a")).await);
    assert_eq!(whole(end(other).await.answer).0, "a");
    drop((worker, late, left));
    stage.close().await;
}

#[tokio::test]
async fn a_late_call_that_blocks_the_loop_ends_the_worker_and_the_others_are_told() {
    let stage = Stage::new().await;
    let worker = shared(&stage, HANDLER).await;
    let other = begun(&worker, said(1, "wait a")).await;
    let mut late = worker.seat();
    let gave_up = tokio::time::timeout(Duration::from_millis(100), late.call(said(2, "block"))).await;
    assert!(gave_up.is_err());
    let mut unread = worker.seat();
    let unread = tokio::spawn(async move { unread.call(said(3, "wait b")).await });
    tokio::task::yield_now().await;
    late.cancel();
    // A caller that only left is no reason to end it.
    late.settle(Duration::from_millis(50), false).await;
    assert!(!other.is_finished());
    late.settle(Duration::from_millis(200), true).await;
    assert!(!late.is_reusable());
    let error = end(other).await.answer.expect_err("it was ended");
    assert!(matches!(error, CallError::EndedForAnother { .. }), "{error:?}");
    assert!(error.to_string().contains("event loop had stood still for 200ms"), "{error}");
    assert_eq!(text_of(&error.into_logs()), "began wait a\n");
    let error = unread.await.expect("it does not panic").expect_err("it was never read");
    assert!(matches!(error, CallError::NeverStarted { .. }), "{error:?}");
    let after = worker.seat().call(said(4, "nothing")).await;
    assert!(matches!(after, Err(CallError::NeverStarted { .. })), "{after:?}");
    drop((worker, late));
    stage.close().await;
}

#[tokio::test]
async fn a_call_that_resists_costs_the_others_nothing() {
    let stage = Stage::new().await;
    let worker = shared(&stage, HANDLER).await;
    let other = begun(&worker, said(1, "wait a")).await;
    let mut resisting = worker.seat();
    let gave_up = tokio::time::timeout(Duration::from_millis(50), resisting.call(said(2, "stubborn"))).await;
    assert!(gave_up.is_err());
    resisting.cancel();
    let logs = resisting.settle(Duration::from_millis(200), true).await;
    assert_eq!(text_of(&logs), "began stubborn \nno\n");
    assert!(!resisting.is_reusable(), "its slot is lost");
    whole(worker.seat().call(said(3, "open a")).await);
    assert_eq!(whole(end(other).await.answer).0, "a");
    drop((worker, resisting));
    stage.close().await;
}

#[tokio::test]
async fn a_killed_worker_fails_exactly_the_calls_on_it() {
    let stage = Stage::new().await;
    let (worker, neighbour) = (shared(&stage, HANDLER).await, shared(&stage, HANDLER).await);
    let mut on_it = Vec::new();
    for serial in 1..4 {
        on_it.push(begun(&worker, said(serial, "wait a")).await);
    }
    let beside = begun(&neighbour, said(9, "wait a")).await;
    kill(worker.host_pid());
    for call in on_it {
        let error = end(call).await.answer.expect_err("it was killed");
        let CallError::Crashed { exit, logs } = &error else { panic!("{error:?}") };
        assert_eq!((exit.ended, &*text_of(logs)), (Ended::Signal(9), "began wait a\n"));
    }
    whole(neighbour.seat().call(said(10, "open a")).await);
    assert_eq!(whole(end(beside).await.answer).0, "a");
    drop((worker, neighbour));
    stage.close().await;
}

#[tokio::test]
async fn breaking_the_protocol_ends_all_calls() {
    let stage = Stage::new().await;
    let worker = shared(&stage, HANDLER).await;
    let other = begun(&worker, said(1, "wait a")).await;
    let error = worker.seat().call(said(2, "garbage")).await.expect_err("no frame");
    assert!(matches!(error, CallError::Protocol { .. }), "{error:?}");
    let error = end(other).await.answer.expect_err("the worker was ended");
    assert!(matches!(error, CallError::Protocol { .. }), "{error:?}");
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn output_that_says_not_whose_it_is_goes_to_a_sole_call_only() {
    let stage = Stage::new().await;
    let worker = shared(&stage, HANDLER).await;
    let (_, logs) = whole(worker.seat().call(said(1, "shell")).await);
    assert_eq!(text_of(&logs), "began shell \nfrom the shell\n");
    let other = begun(&worker, said(2, "wait a")).await;
    let (_, logs) = whole(worker.seat().call(said(3, "shell")).await);
    assert!(text_of(&logs).starts_with("began shell \n[15 bytes of output are not shown"), "{logs:?}");
    assert_eq!(logs.last().map(|line| line.source), Some(LogSource::Platform));
    whole(worker.seat().call(said(4, "open a")).await);
    let logs = text_of(&whole(end(other).await.answer).1);
    assert!(!logs.contains("from the shell"), "{logs}");
    drop(worker);
    stage.close().await;
}
