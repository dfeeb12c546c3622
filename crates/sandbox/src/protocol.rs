//! The frame protocol between the platform and a worker: one definition for both ends.
//!
//! Calls come to a worker on descriptor 3 and answers leave it on descriptor 5, two pipes (a
//! socket would wake each side whenever the other has read: measured, twice the context switches
//! of a call). Each is a stream of frames:
//!
//! ```text
//! u32 LE  length of everything after this field
//! u8      type   (see [`FrameType`])
//! u8      flags  (bit 0: the body is in a sealed memfd that came over descriptor 4)
//! u16     zero
//! u64 LE  invocation serial; 0 outside of a call
//! u32 LE  length of the head
//! head    JSON, one of the `…Head` structs below; may be empty
//! body    raw bytes, never re-encoded
//! ```
//!
//! Descriptor 4 is a SEQPACKET side channel: memfds travel over it (one message of 8 bytes, the
//! invocation serial LE, with the descriptor attached, sent *before* the frame that refers to
//! it), and so do cancel notices (one message of 9 bytes: the serial LE and the byte `C`), for
//! which the worker asks the kernel for a signal (O_ASYNC), so that the stream needs none.
//!
//! A body comes by memfd if and only if it is longer than [`MEMFD_THRESHOLD`], and whoever sends
//! it pays for it. So an answer's is sealed in every way and has no holes, and a request's is
//! emptied by the platform when its call ends: a worker that has not read it by then finds it
//! shorter than that, and nobody waits for what it would make of it.
//!
//! Rules: the worker speaks first ([`FrameType::Hello`] with [`VERSION`]); lengths are checked
//! against the function's limits before memory is taken; any frame that is not allowed where
//! it arrives is a protocol error and ends the worker. The Python end is
//! `runtime/functionsplatform_runtime/frames.py`; a test holds the two lists together.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Version of this protocol, said in the worker's first frame.
pub const VERSION: u32 = 1;

/// Bytes of a frame before its head: length, type, flags, zero, serial, head length.
pub const PREFIX_LEN: usize = 20;

/// Set in `flags` when the body travels in a memfd.
pub const FLAG_MEMFD: u8 = 1;

/// Bodies above this go by memfd: measured, a socket copies 256 KiB in the time that two
/// descriptor passes take.
pub const MEMFD_THRESHOLD: usize = 256 * 1024;

/// Longest head; heads carry headers, spans and tracebacks, never bodies.
pub const MAX_HEAD_LEN: usize = 1024 * 1024;

/// What a frame is. Numbers below 16 go to the worker, from 16 on they come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// To the worker: become a worker of this version ([`LoadHead`]).
    Load = 1,
    /// To the worker: run the handler ([`CallHead`]; the body is the request's).
    Call = 2,
    /// To the worker: finish what runs, then exit.
    Exit = 3,
    /// To a worker that several calls share: hold the stream of this call (no head, no body).
    Pause = 4,
    /// To such a worker: go on with the stream of this call; without effect on others.
    Resume = 5,
    /// To the worker, before `Load` and between calls: a secret that its code may read
    /// ([`SecretHead`]; the body is the value).
    Secret = 6,
    /// From the worker, first: protocol and Python version ([`HelloHead`]).
    Hello = 16,
    /// The handler is loaded ([`LoadedHead`]).
    Loaded = 17,
    /// The handler could not be loaded ([`FailureHead`]).
    LoadFailed = 18,
    /// A piece of output of the call ([`LogHead`]; the body is the text).
    Log = 19,
    /// The whole answer ([`AnswerHead`]; the body is the response's).
    Answer = 20,
    /// The head of a streamed answer ([`AnswerHead`]); chunks follow.
    StreamHead = 21,
    /// A piece of a streamed answer (the body).
    StreamChunk = 22,
    /// The end of a streamed answer ([`EndHead`]).
    StreamEnd = 23,
    /// The handler failed ([`FailureHead`]); after `StreamHead` this ends the stream.
    Failure = 24,
}

impl FrameType {
    /// Every type, for decoding and for the test that compares the two ends.
    pub const ALL: [Self; 15] = [
        Self::Load,
        Self::Call,
        Self::Exit,
        Self::Pause,
        Self::Resume,
        Self::Secret,
        Self::Hello,
        Self::Loaded,
        Self::LoadFailed,
        Self::Log,
        Self::Answer,
        Self::StreamHead,
        Self::StreamChunk,
        Self::StreamEnd,
        Self::Failure,
    ];

    /// The type of a number on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind as u8 == number)
    }
}

/// [`FrameType::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloHead {
    /// [`VERSION`] as the worker knows it.
    pub protocol: u32,
    /// `3.11.7`.
    pub python: String,
}

/// [`FrameType::Load`]: what every call of this worker has in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadHead {
    /// Directory of the code as the worker sees it.
    pub code_dir: String,
    /// File of the handler, relative to the code directory.
    pub file: String,
    /// Name of the callable in it.
    pub callable: String,
    /// Directories added to `sys.path`, relative to the code directory.
    pub path: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// `context["function_name"]`.
    pub function: String,
    /// `context["version"]`.
    pub version: u32,
    /// Tenant of the function.
    pub tenant: String,
    /// `context["services"]`: URL by name.
    pub services: BTreeMap<String, String>,
    /// `context["message_queue_uri"]`: host of the first service's URL, or empty.
    pub message_queue_uri: String,
    /// Captured bytes per call; the worker stops sending `Log` bodies beyond it.
    pub log_limit: u64,
    /// Largest answer that is not a stream.
    pub response_limit: u64,
    /// Calls at once (more than 1 only for `async def`).
    pub concurrency: u32,
}

/// [`FrameType::Secret`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretHead<'a> {
    /// Its name.
    #[serde(rename = "n")]
    pub name: &'a str,
    /// Environment variables that hold it; absent when there are none.
    #[serde(rename = "e", skip_serializing_if = "<[_]>::is_empty")]
    pub env: &'a [String],
    /// It was deleted: there is no value.
    #[serde(rename = "g", skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// [`FrameType::Loaded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedHead {
    /// The handler is `async def` (or an async generator function).
    #[serde(default)]
    pub is_async: bool,
    /// Output written while loading, bounded by the log limit.
    #[serde(default)]
    pub output: String,
}

/// [`FrameType::Call`]. Key names are short because every call parses them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallHead<'a> {
    /// HTTP verb.
    #[serde(rename = "v")]
    pub verb: &'a str,
    /// Percent-decoded path.
    #[serde(rename = "p")]
    pub path: &'a str,
    /// Raw query string without `?`; absent when empty.
    #[serde(rename = "q", skip_serializing_if = "str::is_empty")]
    pub query: &'a str,
    /// Header pairs in lower case, duplicates already joined by ", ".
    #[serde(rename = "h", serialize_with = "serialize_pairs")]
    pub headers: &'a [(&'a str, &'a str)],
    /// Path parameters; absent when there are none.
    #[serde(rename = "pp", skip_serializing_if = "<[_]>::is_empty", serialize_with = "serialize_pairs")]
    pub path_params: &'a [(&'a str, &'a str)],
    /// Invocation id.
    #[serde(rename = "i")]
    pub invocation_id: &'a str,
    /// Correlation id.
    #[serde(rename = "c")]
    pub correlation_id: &'a str,
    /// Trace id, 32 hexadecimal digits.
    #[serde(rename = "t")]
    pub trace_id: &'a str,
    /// Id of the run span, 16 hexadecimal digits: parent of the author's spans.
    #[serde(rename = "s")]
    pub span_id: &'a str,
    /// The caller's `tracestate`, passed on by the SDK's outbound helpers.
    #[serde(rename = "ts", skip_serializing_if = "str::is_empty")]
    pub trace_state: &'a str,
    /// Milliseconds left when the frame was written; the worker arms its timer with it.
    #[serde(rename = "d")]
    pub remaining_ms: u64,
    /// The flags of the trace context (W3C: 1 sampled, 2 random); absent when it is sampled only.
    #[serde(rename = "f", skip_serializing_if = "is_sampled_only")]
    pub trace_flags: u8,
    /// `context["version"]` where it is not that of [`LoadHead::version`]: settings have changed since.
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// `context["auth"]`: who calls, and how that was proven; absent where nothing was asked.
    #[serde(rename = "a", skip_serializing_if = "Option::is_none")]
    pub auth: Option<&'a serde_json::Value>,
}

fn is_sampled_only(flags: &u8) -> bool {
    *flags == 1
}

fn serialize_pairs<S: serde::Serializer>(pairs: &[(&str, &str)], s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(pairs.iter().copied())
}

/// What a body is, so that the edge can choose a content type where the handler set none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    /// `application/json`.
    #[default]
    Json,
    /// `text/plain; charset=utf-8`.
    Text,
    /// `application/octet-stream`.
    Bytes,
    /// No body: 204 unless the envelope set another status.
    None,
}

/// What the handler used, said in every answer and failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of the process during the call, in microseconds.
    #[serde(rename = "c", default, deserialize_with = "counted")]
    pub cpu_us: u64,
    /// `ru_maxrss` of the process, in KiB.
    #[serde(rename = "m", default, deserialize_with = "counted")]
    pub memory_peak_kib: u64,
    /// Output bytes that were produced, including those beyond the limit.
    #[serde(rename = "l", default, deserialize_with = "counted")]
    pub log_bytes: u64,
}

/// [`FrameType::Answer`] and [`FrameType::StreamHead`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AnswerHead {
    /// Status of a response envelope; absent means 200 (204 for `BodyKind::None`).
    #[serde(
        rename = "s",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "final_status"
    )]
    pub status: Option<u16>,
    /// Headers of a response envelope in order; cookies are `set-cookie` entries.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// What the body is.
    #[serde(rename = "k", default)]
    pub kind: BodyKind,
    /// The author's finished spans (of `Answer` only; a stream sends them at its end).
    #[serde(rename = "sp", default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<WorkerSpan>,
    /// What the call used (of `Answer` only).
    #[serde(rename = "u", default)]
    pub usage: Usage,
}

/// [`FrameType::StreamEnd`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EndHead {
    /// The author's finished spans.
    #[serde(rename = "sp", default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<WorkerSpan>,
    /// What the call used.
    #[serde(rename = "u", default)]
    pub usage: Usage,
}

/// Nanoseconds of `CLOCK_MONOTONIC`, name, attributes.
pub type WorkerEvent = (u64, String, Vec<(String, serde_json::Value)>);

/// A span that the worker made. Times are of `CLOCK_MONOTONIC`, which both ends share: a worker
/// under load reads its call long after it was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerSpan {
    /// Its name.
    #[serde(rename = "n")]
    pub name: String,
    /// 16 hexadecimal digits.
    #[serde(rename = "i")]
    pub span_id: String,
    /// Its parent; absent for a child of the run span.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// Start, in nanoseconds of `CLOCK_MONOTONIC`.
    #[serde(rename = "b", deserialize_with = "nanoseconds")]
    pub start_ns: u64,
    /// Duration in nanoseconds.
    #[serde(rename = "d", deserialize_with = "nanoseconds")]
    pub duration_ns: u64,
    /// Attributes in the order they were set; values are JSON.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, serde_json::Value)>,
    /// What happened during it.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty", deserialize_with = "events")]
    pub events: Vec<WorkerEvent>,
    /// `Type: message` when an exception left the span.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a call or a load failed, from the worker's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The handler (or the module, while loading) raised, or returned what JSON cannot hold.
    Exception,
    /// The worker's own timer ended the handler at its deadline.
    DeadlineExceeded,
    /// A cancel notice ended the handler.
    Cancelled,
    /// The answer is over the response limit.
    ResponseTooLarge,
    /// The file does not compile, or the callable is not there (while loading).
    BadHandler,
}

/// [`FrameType::Failure`] and [`FrameType::LoadFailed`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureHead {
    /// What kind.
    pub kind: FailureKind,
    /// `ValueError`.
    #[serde(default)]
    pub exception_type: String,
    /// Its message, bounded to 4 KiB.
    #[serde(default)]
    pub message: String,
    /// The traceback as Python prints it, without the runtime's own frames, last 16 KiB.
    #[serde(default)]
    pub traceback: String,
    /// In-app frames, outermost first: file, line, function, source line text.
    #[serde(default)]
    pub frames: Vec<(String, u32, String, String)>,
    /// Line in the handler's file, where known (deploys report it).
    #[serde(default)]
    pub line: Option<u32>,
    /// What was printed while loading, bounded; only in [`FrameType::LoadFailed`].
    #[serde(default)]
    pub output: String,
    /// The limit behind the exception, where the worker can tell: `memory`, `tasks`, `files` or
    /// `disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_hit: Option<String>,
    /// The author's finished spans.
    #[serde(rename = "sp", default)]
    pub spans: Vec<WorkerSpan>,
    /// What the call used.
    #[serde(rename = "u", default)]
    pub usage: Usage,
}

/// [`FrameType::Log`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// Where from: `stdout`, `stderr` or `logging`.
    #[serde(rename = "o")]
    pub source: fp_core::record::LogSource,
    /// Level of a `logging` record, [`MAX_LEVEL`] bytes of it.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none", deserialize_with = "level")]
    pub level: Option<String>,
}

// A handler's code can write frames of its own, so what a worker says is checked where it is read:
// numbers that overflow in sums and units, or in SQLite's signed ones, stop here.

/// Most of anything that is counted: 200 days in microseconds, 16 PiB in KiB.
const MOST_COUNTED: u64 = 1 << 44;

/// Most nanoseconds, 73 years: added to a present time it stays within 63 bits.
const MOST_NANOSECONDS: u64 = 1 << 61;

/// Longest name of a level: four times the longest of `logging`'s own. Each line of a call's logs
/// has one, so that it must be short beside the line.
pub const MAX_LEVEL: usize = 32;

/// The beginning of a level's name: an author may have made one that is longer, which is no reason
/// to end the worker, and a whole head of it must not be kept with each line.
fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Beginning;
    impl serde::de::Visitor<'_> for Beginning {
        type Value = Option<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the name of a level")
        }

        fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
            let mut ends = (0..=name.len().min(MAX_LEVEL)).rev();
            let end = ends.find(|at| name.is_char_boundary(*at)).unwrap_or(0);
            Ok(Some(name[..end].to_owned()))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Beginning)
}

fn counted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    at_most(u64::deserialize(deserializer)?, MOST_COUNTED)
}

fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    at_most(u64::deserialize(deserializer)?, MOST_NANOSECONDS)
}

fn events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<WorkerEvent>, D::Error> {
    let events = Vec::<WorkerEvent>::deserialize(deserializer)?;
    for event in &events {
        at_most(event.0, MOST_NANOSECONDS)?;
    }
    Ok(events)
}

fn at_most<E: serde::de::Error>(number: u64, most: u64) -> Result<u64, E> {
    (number <= most).then_some(number).ok_or_else(|| E::custom(format!("{number} is not believable")))
}

/// 101 would hand the caller's connection over; other interim statuses are no answer.
fn final_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let status = Option::<u16>::deserialize(deserializer)?;
    match status {
        Some(status) if !(200..=599).contains(&status) => {
            Err(serde::de::Error::custom(format!("status {status} is not within 200 to 599")))
        }
        status => Ok(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_honest_worker_says_is_refused() {
        let refused = |head: &str| serde_json::from_str::<AnswerHead>(head).expect_err(head).to_string();
        let most = u64::MAX;
        for field in ["c", "m", "l"] {
            assert!(refused(&format!(r#"{{"u":{{"{field}":{most}}}}}"#)).contains("not believable"));
        }
        for times in [format!(r#""b":{most},"d":0"#), format!(r#""b":0,"d":{most}"#)] {
            assert!(
                refused(&format!(r#"{{"sp":[{{"n":"x","i":"1",{times}}}]}}"#)).contains("not believable")
            );
        }
        let event = format!(r#"{{"sp":[{{"n":"x","i":"1","b":0,"d":0,"e":[[{most},"e",[]]]}}]}}"#);
        assert!(refused(&event).contains("not believable"));
        for status in [0, 100, 101, 199, 600] {
            assert!(refused(&format!(r#"{{"s":{status}}}"#)).contains("not within"));
        }
        assert_eq!(serde_json::from_str::<AnswerHead>(r#"{"s":599}"#).expect("an answer").status, Some(599));
    }

    #[test]
    fn of_a_levels_name_the_beginning_is_kept() {
        let read = |level: &str| {
            let head = format!(r#"{{"o":"logging","l":{level}}}"#);
            serde_json::from_str::<LogHead>(&head).map(|head| head.level)
        };
        assert_eq!(read(r#""WARNING""#).expect("a level").as_deref(), Some("WARNING"));
        assert_eq!(read("null").expect("none"), None);
        assert_eq!(serde_json::from_str::<LogHead>(r#"{"o":"stdout"}"#).expect("none").level, None);
        let long = read(&format!("{:?}", "é".repeat(500_000))).expect("a level").expect("a level");
        assert_eq!((long.len(), long.capacity()), (MAX_LEVEL, MAX_LEVEL));
        assert!(read("7").is_err() && read("[]").is_err());
    }
}
