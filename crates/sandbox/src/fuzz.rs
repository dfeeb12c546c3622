//! What reads the words of workers, as functions of bytes that panic when a promise of theirs is
//! broken: for the fuzzers in `fuzz/`, and for the test that runs their corpora. Not for anybody
//! else.

use serde::de::DeserializeOwned;

use crate::frames::{Frame, MAX_FRAME, Reader};
use crate::logs::Logs;
use crate::protocol::{AnswerHead, EndHead, FailureHead, FrameType, HelloHead, LoadedHead, LogHead};

/// A reader of bytes that panics when it breaks a promise.
pub type Target = fn(&[u8]);

/// Each target with its name, which is that of its corpus.
pub const TARGETS: [(&str, Target); 2] = [("frames", frames), ("logs", logs)];

/// How long the pieces are in which the stream comes, then the stream. No frame is found that was
/// not sent, and however it is cut the same ones are.
pub fn frames(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else { return };
    let pieces = feed(stream, usize::from(*piece) + 1);
    let whole = feed(stream, usize::MAX);
    assert_eq!(pieces, whole, "the frames depend on how the stream is cut");
}

/// The frames as far as the stream keeps to the protocol, and whether it does to its end.
fn feed(mut stream: &[u8], piece: usize) -> (Vec<(Frame, Vec<u8>)>, bool) {
    let mut reader = Reader::new();
    let mut found = Vec::new();
    while !stream.is_empty() {
        let space = reader.space();
        let count = space.len().min(piece).min(stream.len());
        assert!(count > 0, "no room to read into");
        space[..count].copy_from_slice(&stream[..count]);
        reader.filled(count);
        stream = &stream[count..];
        assert!(reader.capacity() <= MAX_FRAME, "the buffer grew to {}", reader.capacity());
        loop {
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return (found, false),
            };
            read_head(frame.kind, reader.bytes(&frame.head));
            let body = reader.bytes(&frame.body).to_vec();
            // Where it was in the buffer depends on the cut.
            found.push((Frame { head: 0..frame.head.len(), body: 0..frame.body.len(), ..frame }, body));
        }
    }
    (found, true)
}

/// As the platform does, which believes nothing that is in it.
fn read_head(kind: FrameType, head: &[u8]) {
    fn read<T: DeserializeOwned>(head: &[u8]) {
        serde_json::from_slice::<T>(head).ok();
    }
    match kind {
        FrameType::Hello => read::<HelloHead>(head),
        FrameType::Loaded => read::<LoadedHead>(head),
        FrameType::Log => read::<LogHead>(head),
        FrameType::Answer | FrameType::StreamHead => read::<AnswerHead>(head),
        FrameType::StreamEnd => read::<EndHead>(head),
        FrameType::Failure | FrameType::LoadFailed => read::<FailureHead>(head),
        _ => {}
    }
}

/// A limit in two bytes, then what comes from the output pipe. No more than the limit is kept.
pub fn logs(bytes: &[u8]) {
    let Some((limit, output)) = bytes.split_first_chunk::<2>() else { return };
    let limit = usize::from(u16::from_le_bytes(*limit));
    let mut logs = Logs::default();
    logs.begin(limit);
    for piece in output.chunks(4096) {
        logs.piped(piece);
    }
    let lines = logs.take(0);
    // A byte that is no UTF-8 is shown by three; the last line is the platform's own.
    let own: usize = lines.iter().rev().take(1).map(|line| line.text.len()).sum();
    let kept: usize = lines.iter().map(|line| line.text.len()).sum();
    assert!(kept <= 3 * limit + own, "{kept} bytes of {limit}");
}
