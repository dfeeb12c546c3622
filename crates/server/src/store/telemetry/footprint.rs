//! How many bytes a record takes in memory, counted without looking at the allocator.

use fp_core::record::{Kept, LogLine, Span, SpanEvent};
use serde_json::Value;

/// What the allocator adds to a block on average, rounding included.
const PER_BLOCK: usize = 16;

fn heap(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + PER_BLOCK }
}

fn heap_of_text(text: Option<&str>) -> usize {
    heap(text.map_or(0, str::len))
}

/// The counts before a text that is shared.
const COUNTS: usize = 2 * size_of::<usize>();

/// Bytes that a call has beside its own struct.
pub(crate) fn heap_of_kept(kept: &Kept) -> usize {
    let invocation = &kept.invocation;
    let shared = [&invocation.verb, &invocation.path, &invocation.correlation_id];
    let texts = [
        invocation.error.as_deref(),
        invocation.limit_hit.as_deref(),
        invocation.degraded.as_deref(),
        kept.result.as_deref(),
    ];
    let spans =
        heap(kept.spans.capacity() * size_of::<Span>()) + kept.spans.iter().map(heap_of_span).sum::<usize>();
    let logs =
        heap(kept.logs.capacity() * size_of::<LogLine>()) + kept.logs.iter().map(heap_of_line).sum::<usize>();
    shared.into_iter().map(|text| heap(text.len() + COUNTS)).sum::<usize>()
        + texts.into_iter().map(heap_of_text).sum::<usize>()
        + spans
        + logs
}

fn heap_of_line(line: &LogLine) -> usize {
    heap_of_text(line.level.as_deref()) + heap(line.text.len())
}

/// Bytes that a span has beside its own struct.
pub(crate) fn heap_of_span(span: &Span) -> usize {
    heap(span.name.len())
        + heap_of_text(span.error.as_deref())
        + heap_of_attributes(&span.attributes)
        + heap(span.events.capacity() * size_of::<SpanEvent>())
        + span.events.iter().map(heap_of_event).sum::<usize>()
}

fn heap_of_event(event: &SpanEvent) -> usize {
    heap(event.name.len()) + heap_of_attributes(&event.attributes)
}

fn heap_of_attributes(attributes: &Vec<(Box<str>, Value)>) -> usize {
    heap(attributes.capacity() * size_of::<(Box<str>, Value)>())
        + attributes.iter().map(|(key, value)| heap(key.len()) + heap_of_value(value)).sum::<usize>()
}

fn heap_of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => heap(text.capacity()),
        Value::Array(items) => {
            heap(items.capacity() * size_of::<Value>()) + items.iter().map(heap_of_value).sum::<usize>()
        }
        Value::Object(map) => {
            // A B-tree's nodes are two thirds full on average.
            let entry = size_of::<(String, Value)>() * 3 / 2;
            let entries = map.iter().map(|(key, value)| heap(key.capacity()) + heap_of_value(value));
            heap(map.len() * entry) + entries.sum::<usize>()
        }
    }
}
