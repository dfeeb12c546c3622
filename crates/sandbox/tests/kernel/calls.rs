//! Calls: bodies, output, streams, failures, deadlines, cancelling.

use std::time::Duration;

use bytes::Bytes;
use fp_core::record::LogSource;
use fp_sandbox::protocol::{BodyKind, FailureKind};
use fp_sandbox::{Answer, CallError, StreamPiece};

use crate::stage::{Stage, call, failure, head, json, text_of};

const ECHO: &str = "def handler(message, context):\n    return message['raw_body']\n";

#[tokio::test]
async fn bodies_of_every_size_come_back_as_they_went() {
    let stage = Stage::new().await;
    let mut worker = stage.worker(ECHO).await;
    // Around the border between stream and memfd, and well above it.
    for (serial, size) in (1..).zip([0, 1, 100, 65_536, 262_143, 262_144, 262_145, 1 << 20, 6 << 20]) {
        let body: Bytes = (0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
        let answer = worker.call(call(serial, body.clone())).await.expect("an answer");
        let Answer::Whole(whole) = answer else { panic!("{answer:?}") };
        assert!(whole.body == body, "{size} bytes came back as {}", whole.body.len());
        assert_eq!(whole.head.kind, BodyKind::Bytes);
        assert!(worker.is_reusable());
    }
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn a_body_that_a_worker_keeps_is_gone_when_its_call_ends() {
    let stage = Stage::new().await;
    // The runtime empties it as soon as it is read; this one copies the descriptor instead.
    let code = "import os
from functionsplatform_runtime import frames
kept = []
class Keeping:
    def __getattr__(self, name):
        return getattr(os, name)
    def ftruncate(self, fd, size):
        kept.append(os.dup(fd))
frames.os = Keeping()
def handler(message, context):
    return [os.fstat(fd).st_size for fd in kept]
";
    let mut worker = stage.worker(code).await;
    let long = Bytes::from(vec![b'x'; 6 << 20]);
    for serial in 1..4 {
        let answer = worker.call(call(serial, long.clone())).await.expect("an answer");
        let Answer::Whole(whole) = answer else { panic!("{answer:?}") };
        let sizes: Vec<usize> = serde_json::from_slice(&whole.body).expect("JSON");
        assert_eq!((sizes.len() as u64, sizes.last()), (serial, Some(&long.len())), "its own it has");
    }
    // They are taken back by a thread aside.
    for serial in 4.. {
        let (sizes, _) = json(&mut worker, serial).await;
        if sizes == serde_json::json!([0, 0, 0]) {
            break;
        }
        assert!(serial < 10_000, "kept: {sizes}");
    }
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn output_of_python_and_of_subprocesses_is_there_with_the_answer() {
    let stage = Stage::new().await;
    let code = "import subprocess, sys, logging
print('while loading')
def handler(message, context):
    print('from print')
    subprocess.run(['sh', '-c', 'echo from sh; echo and its stderr >&2'], check=True)
    logging.warning('from logging')
    return 1
";
    let mut worker = stage.worker(code).await;
    assert!(worker.load_output().contains("while loading"), "{:?}", worker.load_output());
    let answer = worker.call(call(1, "")).await.expect("an answer");
    let Answer::Whole(whole) = answer else { panic!("{answer:?}") };
    for (text, source) in [
        ("from print\n", LogSource::Stdout),
        ("from sh\n", LogSource::Descriptor),
        ("and its stderr\n", LogSource::Descriptor),
    ] {
        assert!(
            whole.logs.iter().any(|line| &*line.text == text && line.source == source),
            "{:?}",
            whole.logs
        );
    }
    assert!(text_of(&whole.logs).contains("from logging"));
    let (_, second) = json(&mut worker, 2).await;
    assert!(!second.contains("while loading"), "{second}");
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn output_is_bounded_and_the_cut_is_marked() {
    let stage = Stage::new().await;
    let code = "import os
def handler(message, context):
    print('x' * 100_000)
    os.write(1, b'y' * 300_000)
    return 1
";
    let mut worker = stage.worker(code).await;
    let mut small = call(1, "");
    small.log_limit = 1000;
    let answer = worker.call(small).await.expect("an answer");
    let Answer::Whole(whole) = answer else { panic!("{answer:?}") };
    let text = text_of(&whole.logs);
    assert!(text.len() < 1200 && text.contains("[output is cut here"), "{} bytes", text.len());
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn a_stream_comes_in_pieces_and_the_worker_serves_on() {
    let stage = Stage::new().await;
    let code = "def handler(message, context):
    if message['raw_body'] == b'whole':
        return 1
    def pieces():
        for i in range(3):
            print('piece', i)
            yield f'{i};'
        if message['raw_body'] == b'fail':
            raise ValueError('in the middle')
    return pieces()
";
    let mut worker = stage.worker(code).await;
    for (serial, body) in [(1, ""), (2, "fail")] {
        let answer = worker.call(call(serial, body)).await.expect("an answer");
        assert!(matches!(answer, Answer::Stream { .. }), "{answer:?}");
        assert!(!worker.is_reusable());
        let mut all = Vec::new();
        let logs = loop {
            match worker.next_chunk().await.expect("a piece") {
                StreamPiece::Chunk(chunk) => all.extend_from_slice(&chunk),
                StreamPiece::End { logs, .. } => {
                    assert_eq!(body, "");
                    break logs;
                }
                StreamPiece::Failed { failure, logs } => {
                    assert_eq!((body, &*failure.message), ("fail", "in the middle"));
                    break logs;
                }
            }
        };
        assert_eq!(all, b"0;1;2;");
        assert!(text_of(&logs).contains("piece 2"));
        assert!(worker.is_reusable());
    }
    assert!(matches!(worker.next_chunk().await, Err(CallError::NotReusable)));
    let answer = worker.call(call(3, "whole")).await.expect("an answer");
    assert!(matches!(answer, Answer::Whole(_)));
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn an_exception_is_a_failure_and_the_worker_serves_on() {
    let stage = Stage::new().await;
    let code = "def handler(message, context):
    print('before')
    raise KeyError('missing')
";
    let mut worker = stage.worker(code).await;
    for serial in 1..3 {
        let (failure, logs) = failure(&mut worker, call(serial, "")).await;
        assert_eq!((failure.kind, &*failure.exception_type), (FailureKind::Exception, "KeyError"));
        assert_eq!(failure.line, Some(3));
        assert!(logs.contains("before"));
        assert!(worker.is_reusable());
    }
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_by_the_worker() {
    let stage = Stage::new().await;
    let mut spec = stage.function("f", "def handler(message, context):\n    return 'x' * 2_000_000\n");
    spec.response_limit = 1 << 20;
    let mut worker = stage.sandbox.start_worker(&spec).await.expect("a worker");
    let mut limited = call(1, "");
    limited.response_limit = 1 << 20;
    let (failure, _) = failure(&mut worker, limited).await;
    assert_eq!(failure.kind, FailureKind::ResponseTooLarge);
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn the_worker_keeps_its_own_deadline_and_is_used_up_then() {
    let stage = Stage::new().await;
    let mut worker = stage.worker("import time\ndef handler(message, context):\n    time.sleep(60)\n").await;
    let mut short = call(1, "");
    short.head = head(Duration::from_millis(50));
    let (failure, _) = failure(&mut worker, short).await;
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
    assert!(!worker.is_reusable());
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn a_cancel_notice_interrupts_the_handler() {
    let stage = Stage::new().await;
    let code = "import time
def handler(message, context):
    print('running', flush=True)
    time.sleep(60)
";
    let mut worker = stage.worker(code).await;
    let handle = worker.cancel_handle();
    let cancel = async {
        // The notice may be early: the worker keeps it for the call that it names.
        tokio::time::sleep(Duration::from_millis(100)).await;
        handle.cancel(1);
    };
    let (ended, ()) = tokio::join!(failure(&mut worker, call(1, "")), cancel);
    assert_eq!(ended.0.kind, FailureKind::Cancelled);
    assert!(!worker.is_reusable());
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn a_dropped_call_leaves_a_worker_that_takes_no_other() {
    let stage = Stage::new().await;
    let mut worker = stage.worker("import time\ndef handler(message, context):\n    time.sleep(60)\n").await;
    let dropped = tokio::time::timeout(Duration::from_millis(20), worker.call(call(1, ""))).await;
    assert!(dropped.is_err());
    assert!(!worker.is_reusable());
    assert!(matches!(worker.call(call(2, "")).await, Err(CallError::NotReusable)));
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn a_given_up_call_that_ends_by_itself_leaves_the_worker_in_use() {
    let stage = Stage::new().await;
    let mut worker = stage.worker("def handler(message, context):\n    print('ran')\n    return 1\n").await;
    {
        let mut given_up = Box::pin(worker.call(call(1, "")));
        // One poll sends the call.
        std::future::poll_fn(|cx| {
            let _ = given_up.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
    }
    assert!(!worker.is_reusable());
    assert_eq!(text_of(&worker.settle(Duration::from_secs(10)).await), "ran\n");
    assert!(worker.is_reusable());
    let (_, logs) = json(&mut worker, 2).await;
    assert_eq!(logs, "ran\n");
    // Nothing runs on it: there is nothing to end.
    worker.settle(Duration::ZERO).await;
    assert!(worker.is_reusable());
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn async_handlers_and_the_libraries_that_functions_use_work() {
    let stage = Stage::new().await;
    let code = "import asyncio, concurrent.futures, multiprocessing, socket, sqlite3, subprocess, ssl, tempfile, threading, uuid
async def handler(message, context):
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        threads = sum(await asyncio.gather(*(loop.run_in_executor(pool, int, i) for i in range(20))))
    process = await asyncio.create_subprocess_exec('echo', 'hi', stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    with tempfile.NamedTemporaryFile() as file:
        database = sqlite3.connect(file.name)
        database.execute('create table t (a)')
        database.execute('insert into t values (42)')
        database.commit()
        answer = database.execute('select a from t').fetchone()[0]
    with multiprocessing.get_context('fork').Pool(2) as pool:
        squares = pool.map(abs, [-1, -2])
    ssl.create_default_context()
    return {'threads': threads, 'out': out.decode(), 'answer': answer, 'squares': squares,
            'host': socket.gethostname(), 'local': socket.gethostbyname('localhost')}
";
    let mut worker = stage.worker(code).await;
    assert!(worker.is_async());
    let (answer, _) = json(&mut worker, 1).await;
    assert_eq!(answer["threads"], 190);
    assert_eq!(answer["out"], "hi\n");
    assert_eq!(answer["answer"], 42);
    assert_eq!(answer["squares"], serde_json::json!([1, 2]));
    assert_eq!(answer["local"], "127.0.0.1");
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn what_a_thread_prints_between_calls_harms_nobody() {
    let stage = Stage::new().await;
    let code = "import threading
printed = threading.Event()
def later():
    print('from the thread')
    printed.set()
def handler(message, context):
    if message['raw_body'] == b'wait':
        printed.wait()
        return 2
    threading.Timer(0.05, later).start()
    return 1
";
    let mut worker = stage.worker(code).await;
    assert!(matches!(worker.call(call(1, "")).await, Ok(Answer::Whole(_))));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = worker.call(call(2, "wait")).await;
    assert!(matches!(answer, Ok(Answer::Whole(_))), "{answer:?}");
    drop(worker);
    stage.close().await;
}
