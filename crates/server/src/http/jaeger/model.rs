//! Jaeger's trace model in JSON, made from what history keeps.
//!
//! One process per function and version, and per service with its resource; times are Unix microseconds; what a call printed
//! becomes the log of its `run` span.

use std::collections::BTreeMap;

use fp_core::ServiceSpan;
use fp_core::record::{Kept, LogLine, LogSource, Span as OwnSpan, phase_span_id};
use serde::Serialize;
use serde_json::Value;

use crate::history::{FoundTrace, TraceEntry};

/// Whether printed lines go into the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogLines {
    Include,
    LeaveOut,
}

/// Most that the traces of one answer may take here, and about what they are as JSON: more than a UI shows
/// of traces, few enough that a dozen answers at once do no harm.
const MOST_BYTES: usize = 32 << 20;

/// How many bytes may still be added to an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    left: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { left: MOST_BYTES }
    }
}

impl Room {
    /// Nothing more fits.
    pub(super) fn is_spent(self) -> bool {
        self.left == 0
    }

    fn take(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

/// A trace.
#[derive(Debug, Serialize)]
pub(super) struct Trace {
    #[serde(rename = "traceID")]
    trace_id: String,
    pub(super) spans: Vec<Span>,
    processes: BTreeMap<String, Process>,
    warnings: Option<Vec<String>>,
}

/// A span.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Span {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    pub(super) operation_name: String,
    references: Vec<Reference>,
    start_time: u64,
    pub(super) duration: u64,
    pub(super) tags: Vec<Tag>,
    logs: Vec<Log>,
    #[serde(rename = "processID")]
    process_id: String,
    warnings: Option<Vec<String>>,
    flags: u8,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: &'static str,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

/// A key with a typed value.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Tag {
    pub(super) key: String,
    r#type: &'static str,
    value: Value,
}

#[derive(Debug, Serialize)]
struct Log {
    timestamp: u64,
    fields: Vec<Tag>,
}

/// Who made spans: a version of a function, or a service.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    service_name: String,
    tags: Vec<Tag>,
}

impl Trace {
    /// A trace of what is kept of it, as far as there is room.
    pub(super) fn of(found: &FoundTrace, lines: LogLines, room: &mut Room) -> Self {
        let trace_id = found.trace_id.to_string();
        let mut trace = Self { trace_id, spans: Vec::new(), processes: BTreeMap::new(), warnings: None };
        for call in &found.calls {
            if trace.add_call(call, lines, room).is_none() {
                trace.warn("the answer is too large: more spans or log lines are kept than are shown; ask for fewer traces at once, or for the logs of single invocations at /invocations/{id}/logs");
                return trace;
            }
        }
        for span in &found.services {
            if trace.add_service(span, room).is_none() {
                trace.warn("the answer is too large: more spans of services are kept than are shown");
                break;
            }
        }
        trace
    }

    /// Says what its reader must know.
    pub(super) fn warn(&mut self, text: &str) {
        self.warnings.get_or_insert_default().push(text.to_owned());
    }

    /// None when there is no more room.
    fn add_call(&mut self, call: &TraceEntry, lines: LogLines, room: &mut Room) -> Option<()> {
        let process_id = self.process_of(&call.kept);
        let invocation = &call.kept.invocation;
        let run = phase_span_id(invocation.span_id, "run");
        for own in call.spans() {
            let mut span = Span::of(&self.trace_id, &own, &process_id);
            if own.span_id == invocation.span_id {
                span.references.extend(invocation.link.map(|link| Reference {
                    ref_type: "FOLLOWS_FROM",
                    trace_id: link.trace_id.to_string(),
                    span_id: link.span_id.to_string(),
                }));
                span.tags.push(Tag::text("span.kind", "server"));
            }
            room.take(span.bytes()).then_some(())?;
            let is_whole = own.span_id != run
                || lines == LogLines::LeaveOut
                || call.kept.logs.iter().all(|line| span.add_line(line, room));
            self.spans.push(span);
            is_whole.then_some(())?;
        }
        Some(())
    }

    /// The process of a call's function and version, added when it is new.
    fn process_of(&mut self, kept: &Kept) -> String {
        let version = kept.invocation.version.to_string();
        let tags = vec![Tag::text("service.version", &version)];
        self.process(Process { service_name: kept.invocation.function.to_string(), tags })
    }

    fn process(&mut self, process: Process) -> String {
        if let Some((id, _)) = self.processes.iter().find(|(_, known)| **known == process) {
            return id.clone();
        }
        let id = format!("p{}", self.processes.len() + 1);
        self.processes.insert(id.clone(), process);
        id
    }

    /// None when there is no more room.
    fn add_service(&mut self, sent: &ServiceSpan, room: &mut Room) -> Option<()> {
        let tags = sent.resource.iter().map(|(key, value)| Tag::of(key, value)).collect();
        let process_id = self.process(Process { service_name: sent.service.to_string(), tags });
        let mut span = Span::of(&self.trace_id, &sent.span, &process_id);
        span.references.extend(sent.links.iter().map(|link| Reference {
            ref_type: "FOLLOWS_FROM",
            trace_id: link.trace_id.to_string(),
            span_id: link.span_id.to_string(),
        }));
        span.tags.push(Tag::text("span.kind", sent.kind.word()));
        room.take(span.bytes()).then_some(())?;
        self.spans.push(span);
        Some(())
    }

    /// The service that made a span.
    pub(super) fn service_of(&self, span: &Span) -> &str {
        self.processes.get(&span.process_id).map_or("", |process| &process.service_name)
    }

    /// Names and kinds of the spans that a service made.
    pub(super) fn operations_of(&self, service: &str) -> impl Iterator<Item = (String, &'static str)> {
        let own = self.spans.iter().filter(move |span| self.service_of(span) == service);
        own.map(|span| (span.operation_name.clone(), span.kind()))
    }
}

impl Span {
    fn of(trace_id: &str, own: &OwnSpan, process_id: &str) -> Self {
        let parent = own.parent_span_id.map(|parent| Reference {
            ref_type: "CHILD_OF",
            trace_id: trace_id.to_owned(),
            span_id: parent.to_string(),
        });
        let winner = own.follows().map(|winner| Reference {
            ref_type: "FOLLOWS_FROM",
            trace_id: trace_id.to_owned(),
            span_id: winner.to_string(),
        });
        Self {
            trace_id: trace_id.to_owned(),
            span_id: own.span_id.to_string(),
            operation_name: own.name.to_string(),
            references: parent.into_iter().chain(winner).collect(),
            start_time: own.start_ns / 1_000,
            duration: own.duration_ns / 1_000,
            tags: tags_of(own),
            logs: own.events.iter().map(Log::of_event).collect(),
            process_id: process_id.to_owned(),
            warnings: None,
            // Sampled: what history keeps was.
            flags: 1,
        }
    }

    fn add_line(&mut self, line: &LogLine, room: &mut Room) -> bool {
        let log = Log::of_line(line);
        let has_room = room.take(log.bytes());
        if has_room {
            self.logs.push(log);
        }
        has_room
    }

    /// What it takes here.
    fn bytes(&self) -> usize {
        let texts = self.trace_id.len() + self.span_id.len() + self.operation_name.len();
        let references = self.references.len() * (size_of::<Reference>() + texts);
        let tags: usize = self.tags.iter().map(Tag::bytes).sum();
        let logs: usize = self.logs.iter().map(Log::bytes).sum();
        size_of::<Self>() + texts + references + tags + logs
    }

    fn kind(&self) -> &'static str {
        let given = self.tags.iter().rev().find(|tag| tag.key == "span.kind");
        let word = given.and_then(|tag| tag.value.as_str()).unwrap_or_default();
        let known = ["server", "client", "producer", "consumer"];
        known.into_iter().find(|known| *known == word).unwrap_or("internal")
    }

    /// Whether it has a tag of this value, as Jaeger compares: by text.
    pub(super) fn has_tag(&self, key: &str, value: &str) -> bool {
        self.tags.iter().any(|tag| tag.key == key && tag.value_text() == value)
    }
}

fn tags_of(own: &OwnSpan) -> Vec<Tag> {
    let mut tags: Vec<_> = own.attributes.iter().map(|(key, value)| Tag::of(key, value)).collect();
    if let Some(error) = &own.error {
        tags.push(Tag { key: "error".to_owned(), r#type: "bool", value: true.into() });
        tags.push(Tag::text("otel.status_code", "ERROR"));
        tags.push(Tag::text("otel.status_description", error));
    }
    tags
}

impl Tag {
    fn text(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), r#type: "string", value: value.into() }
    }

    /// Lists and objects become their JSON text: Jaeger has scalars only.
    fn of(key: &str, value: &Value) -> Self {
        let (r#type, value) = match value {
            Value::String(_) => ("string", value.clone()),
            Value::Bool(_) => ("bool", value.clone()),
            Value::Number(number) if number.is_i64() => ("int64", value.clone()),
            Value::Number(_) => ("float64", value.clone()),
            other => ("string", other.to_string().into()),
        };
        Self { key: key.to_owned(), r#type, value }
    }

    /// What it takes here.
    fn bytes(&self) -> usize {
        let value = self.value.as_str().map_or(0, str::len);
        size_of::<Self>() + self.key.len() + value
    }

    fn value_text(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

impl Log {
    fn of_event(event: &fp_core::record::SpanEvent) -> Self {
        let mut fields = vec![Tag::text("event", &event.name)];
        fields.extend(event.attributes.iter().map(|(key, value)| Tag::of(key, value)));
        Self { timestamp: event.time_ns / 1_000, fields }
    }

    /// What it takes here.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.fields.iter().map(Tag::bytes).sum::<usize>()
    }

    fn of_line(line: &LogLine) -> Self {
        let source = match line.source {
            LogSource::Stdout => "stdout",
            LogSource::Stderr => "stderr",
            LogSource::Logging => "logging",
            LogSource::Descriptor => "descriptor",
            LogSource::Platform => "platform",
        };
        let mut fields = vec![Tag::text("event", "log"), Tag::text("log.source", source)];
        fields.extend(line.level.as_deref().map(|level| Tag::text("level", level)));
        fields.push(Tag::text("message", line.text.trim_end_matches('\n')));
        Self { timestamp: line.time_us, fields }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use fp_core::outcome::Outcome;
    use fp_core::record::{Invocation, Phases, SpanEvent, Trigger};
    use fp_core::settings::Criticality;
    use fp_core::{InvocationId, SpanId, Tenant, TraceId, VersionNumber};
    use serde_json::json;

    use super::*;

    /// A call of `cats` with a span of its author's and one printed line.
    pub(in crate::http::jaeger) fn call() -> TraceEntry {
        let invocation = Invocation {
            id: InvocationId::from_parts(1_000, 7),
            tenant: Tenant::default(),
            function: "cats".parse().expect("a name"),
            version: VersionNumber(3),
            event_type: "http|GET|/cats/{id}".into(),
            trigger: Trigger::Http,
            verb: "GET".into(),
            path: "/cats/5".into(),
            correlation_id: "c".into(),
            trace_id: TraceId::from_parts(1_000, 9),
            span_id: SpanId::from_random(0x10),
            parent_span_id: None,
            called_by: None,
            link: None,
            started_us: 1_000_000,
            phases: Phases { route: 10_000, queue: 0, start: 0, run: 300_000, send: 5_000 },
            outcome: Outcome::FunctionError,
            blame: Outcome::FunctionError.blame(false),
            caller_was_short: false,
            status: 500,
            error: Some("ValueError: no".into()),
            cold: false,
            attempts: 1,
            worker: None,
            criticality: Criticality::Default,
            deadline_ms: 60_000,
            deadline_from: fp_core::deadline::DeadlineFrom::Timeout,
            queue_length: 0,
            request_bytes: 0,
            response_bytes: 2,
            log_bytes: 6,
            cpu_us: 1,
            memory_peak_kib: 1,
            limit_hit: None,
            latency_met: None,
            degraded: None,
            weight: 1,
        };
        let own = OwnSpan {
            span_id: SpanId::from_random(0x99),
            parent_span_id: Some(phase_span_id(invocation.span_id, "run")),
            name: "fetch".into(),
            start_ns: 1_000_020_000,
            duration_ns: 120_000,
            attributes: vec![
                ("rows".into(), json!(4)),
                ("tags".into(), json!(["a", 1])),
                ("ok".into(), json!(true)),
            ],
            events: vec![SpanEvent { time_ns: 1_000_030_000, name: "retry".into(), attributes: Vec::new() }],
            error: None,
        };
        let line =
            LogLine { time_us: 1_000_040, source: LogSource::Stdout, level: None, text: "hello\n".into() };
        TraceEntry { kept: Arc::new(Kept { invocation, spans: vec![own], logs: vec![line], result: None }) }
    }

    /// What is found of these calls' trace.
    pub(in crate::http::jaeger) fn found(calls: Vec<TraceEntry>) -> FoundTrace {
        FoundTrace { trace_id: TraceId::from_parts(1_000, 9), calls, services: Vec::new() }
    }

    #[test]
    fn a_trace_has_jaegers_shape() {
        let trace = Trace::of(&found(vec![call()]), LogLines::Include, &mut Room::default());
        let json = serde_json::to_value(&trace).expect("JSON");
        let id = "0000000003e800000000000000000009";
        assert_eq!(json["traceID"], id);
        assert_eq!(json["processes"]["p1"]["serviceName"], "cats");
        let names: Vec<_> = trace.spans.iter().map(|span| span.operation_name.as_str()).collect();
        assert_eq!(names, ["GET /cats/{id}", "route", "queue", "start", "run", "send", "fetch"]);
        let root = &json["spans"][0];
        assert_eq!(root["references"], json!([]));
        assert_eq!((&root["startTime"], &root["duration"]), (&json!(1_000_000), &json!(315)));
        assert!(trace.spans[0].has_tag("error", "true") && trace.spans[0].has_tag("span.kind", "server"));
        assert!(trace.spans[0].has_tag("otel.status_description", "ValueError: no"));
        let run = &json["spans"][4];
        assert_eq!(run["logs"][0]["timestamp"], 1_000_040);
        assert_eq!(
            run["logs"][0]["fields"][2],
            json!({"key": "message", "type": "string", "value": "hello"})
        );
        let expected = json!({
            "traceID": id,
            "spanID": "0000000000000099",
            "operationName": "fetch",
            "references": [{"refType": "CHILD_OF", "traceID": id, "spanID": run["spanID"]}],
            "startTime": 1_000_020,
            "duration": 120,
            "tags": [
                {"key": "rows", "type": "int64", "value": 4},
                {"key": "tags", "type": "string", "value": "[\"a\",1]"},
                {"key": "ok", "type": "bool", "value": true},
            ],
            "logs": [{"timestamp": 1_000_030, "fields": [{"key": "event", "type": "string", "value": "retry"}]}],
            "processID": "p1",
            "warnings": null,
            "flags": 1,
        });
        assert_eq!(json["spans"][6], expected);
    }

    #[test]
    fn calls_of_one_version_share_a_process() {
        let mut other = (*call().kept).clone();
        other.invocation.version = VersionNumber(4);
        let other = TraceEntry { kept: Arc::new(other) };
        let calls = found(vec![call(), call(), other]);
        let trace = Trace::of(&calls, LogLines::LeaveOut, &mut Room::default());
        assert_eq!(trace.processes.len(), 2);
        assert!(trace.spans.iter().all(|span| trace.service_of(span) == "cats"));
        assert!(trace.spans.iter().all(|span| span.logs.is_empty() || span.operation_name == "fetch"));
    }
}
