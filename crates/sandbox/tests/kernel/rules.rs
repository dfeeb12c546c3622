//! Workers that break the frame protocol: each is ended, and none takes the platform's memory
//! or time.

use fp_sandbox::CallError;

use crate::stage::{Stage, call_error};

/// Frames written by hand: length, type, flags, zero, serial, head length, head.
const FRAME: &str = "import os, struct, socket, time
def frame(kind, serial, head=b'{}', body=b'', flags=0, length=None, head_length=None):
    length = 16 + len(head) + len(body) if length is None else length
    head_length = len(head) if head_length is None else head_length
    return struct.pack('<IBBHQI', length, kind, flags, 0, serial, head_length) + head + body
";

async fn broken_by(handler: &str) -> String {
    let stage = Stage::new().await;
    let mut worker = stage
        .worker(&format!("{FRAME}def handler(message, context):\n    {handler}\n    time.sleep(60)\n"))
        .await;
    let error = call_error(&mut worker).await;
    assert!(!worker.is_reusable());
    let CallError::Protocol { what, .. } = error else { panic!("{error:?}") };
    // The worker was ended, not only given up.
    worker.exited().await;
    drop(worker);
    stage.close().await;
    what
}

#[tokio::test]
async fn a_length_of_four_gigabytes_is_refused() {
    let what = broken_by("os.write(5, frame(20, 1, length=0xffffffff))").await;
    assert!(what.contains("over the limit"), "{what}");
}

#[tokio::test]
async fn a_head_longer_than_its_frame_is_refused() {
    let what = broken_by("os.write(5, frame(20, 1, head_length=0x7fffffff))").await;
    assert!(what.contains("does not fit"), "{what}");
}

#[tokio::test]
async fn an_answer_for_another_call_is_refused() {
    let what = broken_by("os.write(5, frame(20, 7))").await;
    assert!(what.contains("for call 7"), "{what}");
}

#[tokio::test]
async fn a_frame_that_has_no_place_in_a_call_is_refused() {
    let what = broken_by("os.write(5, frame(17, 1))").await;
    assert!(what.contains("Loaded"), "{what}");
}

#[tokio::test]
async fn an_unknown_type_is_refused_without_waiting_for_the_rest() {
    let what = broken_by("os.write(5, frame(99, 1, length=1000))").await;
    assert!(what.contains("type 99"), "{what}");
}

#[tokio::test]
async fn a_head_that_is_not_json_is_refused() {
    let what = broken_by("os.write(5, frame(20, 1, head=b'nonsense'))").await;
    assert!(what.contains("the head of Answer"), "{what}");
}

#[tokio::test]
async fn a_memfd_that_never_came_is_refused() {
    let what = broken_by("os.write(5, frame(20, 1, flags=1))").await;
    assert!(what.contains("is not there"), "{what}");
}

#[tokio::test]
async fn a_memfd_that_is_not_sealed_is_refused() {
    let what = broken_by(
        "fd = os.memfd_create('x'); os.write(fd, b'x' * 400_000); \
         socket.send_fds(socket.socket(fileno=os.dup(4)), [struct.pack('<Q', 1)], [fd]); \
         os.write(5, frame(20, 1, flags=1))",
    )
    .await;
    assert!(what.contains("not sealed"), "{what}");
}

#[tokio::test]
async fn a_memfd_that_the_platform_would_have_to_pay_for_is_refused() {
    // One that is long and was never written, and one that would have gone inline.
    for (fill, why) in [("os.truncate(fd, 8 << 20)", "has a hole"), ("os.write(fd, b'x')", "for longer ones")]
    {
        let what = broken_by(&format!(
            "import fcntl; fd = os.memfd_create('x', os.MFD_ALLOW_SEALING); {fill}; \
             fcntl.fcntl(fd, 1033, 15); \
             socket.send_fds(socket.socket(fileno=os.dup(4)), [struct.pack('<Q', 1)], [fd]); \
             os.write(5, frame(20, 1, flags=1))",
        ))
        .await;
        assert!(what.contains(why), "{what}");
    }
}

#[tokio::test]
async fn a_second_answer_ends_the_worker_before_the_next_call() {
    let stage = Stage::new().await;
    let code = format!(
        "{FRAME}import threading
def handler(message, context):
    def later():
        time.sleep(0.05)
        os.write(5, frame(20, 1, head=b'{{\"k\": \"none\"}}'))
    threading.Thread(target=later).start()
    return 1
"
    );
    let mut worker = stage.worker(&code).await;
    crate::stage::json(&mut worker, 1).await;
    // The unasked frame waits in the stream until the next call reads it.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let error = worker.call(crate::stage::call(2, "")).await.expect_err("the second answer is found");
    assert!(matches!(error, CallError::Protocol { .. }), "{error:?}");
    drop(worker);
    stage.close().await;
}

#[tokio::test]
async fn closing_the_stream_is_a_crash() {
    let stage = Stage::new().await;
    let mut worker = stage
        .worker("import os, time\ndef handler(message, context):\n    os.close(5)\n    time.sleep(60)\n")
        .await;
    let error = call_error(&mut worker).await;
    assert!(matches!(error, CallError::Crashed { .. }), "{error:?}");
    drop(worker);
    stage.close().await;
}
