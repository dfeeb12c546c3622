//! OTLP, the protocol of OpenTelemetry: requests to keep spans, as protobuf and as JSON.
//!
//! [`messages`] are the protocol's own, as far as traces go; here they become
//! [`ServiceSpan`]s. A request is read as a whole or not at all; of what was read, a span that
//! cannot be one (an id of zeros, of a wrong length) is left out and counted. Nothing here knows
//! HTTP or where spans are kept.

pub(crate) mod messages;
mod numbers;

use std::borrow::Cow;

use fp_core::record::{Link, Span as KeptSpan, SpanEvent};
use fp_core::service_span::{ServiceSpan, SpanKind, UNKNOWN_SERVICE};
use fp_core::{SpanId, TraceId};
use prost::Message as _;
use serde_json::Value;

use messages::{AnyValue, Event, ExportTraceRequest, KeyValue, ResourceSpans, Span};

/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

/// Which of its two encodings a request has, and its answer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Protobuf,
    Json,
}

/// What there was in a request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Received {
    pub(crate) spans: Vec<ServiceSpan>,
    /// Spans that cannot be any.
    pub(crate) rejected: u64,
    /// What its sender should know: why some were rejected, or that nothing was found.
    pub(crate) complaint: Option<Cow<'static, str>>,
}

/// A body that is not of its content type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no OTLP request to export traces: {0}")]
pub(crate) struct Undecodable(String);

/// Reads a request to keep traces. What holds no spans is no error: the protocol leaves room for
/// fields that are not known yet.
pub(crate) fn read_traces(body: &[u8], encoding: Encoding) -> Result<Received, Undecodable> {
    let request = match encoding {
        Encoding::Protobuf => {
            ExportTraceRequest::decode(body).map_err(|error| Undecodable(error.to_string()))?
        }
        Encoding::Json => read_json(body)?,
    };
    let mut received = Received::default();
    for resource in request.resource_spans {
        received.add_resource(resource);
    }
    if received.rejected > 0 {
        let complaint =
            "spans were left out: a trace id is 16 bytes, a span id 8, and not all of them are zero";
        received.complaint = Some(complaint.into());
    } else if received.spans.is_empty() {
        let complaint = "the request holds no spans: an OTLP request to export traces has them in resourceSpans, scopeSpans, spans";
        received.complaint = Some(complaint.into());
    }
    Ok(received)
}

fn read_json(body: &[u8]) -> Result<ExportTraceRequest, Undecodable> {
    let undecodable = |error: serde_json::Error| Undecodable(error.to_string());
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(ExportTraceRequest::default());
    }
    // Whatever is JSON and no request of ours, a list or a word, holds no spans either.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        let _: serde::de::IgnoredAny = serde_json::from_slice(body).map_err(undecodable)?;
        return Ok(ExportTraceRequest::default());
    }
    serde_json::from_slice(body).map_err(undecodable)
}

impl Received {
    fn add_resource(&mut self, of: ResourceSpans) {
        let mut resource = attributes(of.resource.unwrap_or_default().attributes);
        let named = resource.iter().position(|(key, _)| &**key == "service.name");
        let service = named.map(|at| resource.remove(at).1);
        let service = service.as_ref().and_then(Value::as_str).filter(|name| !name.is_empty());
        let service: Box<str> = service.unwrap_or(UNKNOWN_SERVICE).into();
        for scope_spans in of.scope_spans {
            let scope = scope_spans.scope.unwrap_or_default();
            let made_by = [("otel.scope.name", scope.name), ("otel.scope.version", scope.version)];
            let made_by: Vec<_> = made_by.into_iter().filter(|(_, text)| !text.is_empty()).collect();
            for span in scope_spans.spans {
                let Some(mut kept) = service_span(span, &service, &resource) else {
                    self.rejected += 1;
                    continue;
                };
                let own = made_by.iter().map(|(key, text)| ((*key).into(), text.as_str().into()));
                kept.span.attributes.extend(own);
                self.spans.push(kept);
            }
        }
    }
}

fn service_span(span: Span, service: &str, resource: &[(Box<str>, Value)]) -> Option<ServiceSpan> {
    let status = span.status.unwrap_or_default();
    let links = span.links.into_iter().filter_map(|link| {
        Some(Link { trace_id: trace_id(&link.trace_id)?, span_id: span_id(&link.span_id)? })
    });
    Some(ServiceSpan {
        trace_id: trace_id(&span.trace_id)?,
        service: service.into(),
        resource: resource.to_vec(),
        kind: SpanKind::from_number(span.kind),
        links: links.collect(),
        span: KeptSpan {
            span_id: span_id(&span.span_id)?,
            parent_span_id: span_id(&span.parent_span_id),
            name: span.name.into(),
            start_ns: span.start_time_unix_nano,
            duration_ns: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
            attributes: attributes(span.attributes),
            events: span.events.into_iter().map(event).collect(),
            error: (status.code == ERROR).then(|| status.message.into()),
        },
    })
}

fn event(event: Event) -> SpanEvent {
    SpanEvent {
        time_ns: event.time_unix_nano,
        name: event.name.into(),
        attributes: attributes(event.attributes),
    }
}

fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    bytes.try_into().ok().map(TraceId).filter(|id| *id != TraceId::default())
}

fn span_id(bytes: &[u8]) -> Option<SpanId> {
    bytes.try_into().ok().map(SpanId).filter(|id| *id != SpanId::default())
}

fn attributes(pairs: Vec<KeyValue>) -> Vec<(Box<str>, Value)> {
    pairs.into_iter().map(|pair| (pair.key.into(), pair.value.map_or(Value::Null, value))).collect()
}

/// As JSON; bytes as their base64, numbers that JSON has no word for as text.
fn value(any: AnyValue) -> Value {
    use base64::Engine as _;

    if let Some(text) = any.string_value {
        text.into()
    } else if let Some(truth) = any.bool_value {
        truth.into()
    } else if let Some(number) = any.int_value {
        number.into()
    } else if let Some(number) = any.double_value {
        serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
    } else if let Some(list) = any.array_value {
        list.values.into_iter().map(value).collect()
    } else if let Some(pairs) = any.kvlist_value {
        let pairs = pairs.values.into_iter();
        pairs.map(|pair| (pair.key, pair.value.map_or(Value::Null, value))).collect()
    } else if let Some(bytes) = any.bytes_value {
        base64::engine::general_purpose::STANDARD.encode(bytes).into()
    } else {
        Value::Null
    }
}

#[cfg(test)]
mod tests;
