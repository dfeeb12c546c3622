use serde_json::json;

use super::messages::{ArrayValue, Link as SentLink, Resource, Scope, ScopeSpans, Status};
use super::*;

/// The request of the specification's example (`examples/trace.json` of opentelemetry-proto), with more.
fn in_json() -> Value {
    json!({"resourceSpans": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "my.service"}},
            {"key": "host.cores", "value": {"intValue": "4"}},
        ], "droppedAttributesCount": 0},
        "scopeSpans": [{
            "scope": {"name": "my.code", "version": "1.0.0", "attributes": []},
            "spans": [{
                "traceId": "5B8EFFF798038103D269B633813FC60C",
                "spanId": "EEE19B7EC3C1B174",
                "parentSpanId": "EEE19B7EC3C1B173",
                "name": "I'm a server span",
                "startTimeUnixNano": "1544712660000000000",
                "endTimeUnixNano": 1544712661000000000u64,
                "kind": 2,
                "attributes": [
                    {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": true}, {"doubleValue": 0.5}]}}},
                    {"key": "bytes", "value": {"bytesValue": "AQI="}},
                    {"key": "none", "value": null},
                ],
                "events": [{"timeUnixNano": "1544712660500000000", "name": "half"}],
                "links": [{"traceId": "5b8efff798038103d269b633813fc60d", "spanId": "0000000000000001"}],
                "status": {"code": 2, "message": "broke"},
                "aFieldOfTheFuture": {"x": [1]},
            }],
        }],
    }]})
}

fn text(key: &str, text: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { string_value: Some(text.into()), ..AnyValue::default() }),
    }
}

/// The same in protobuf's messages.
fn in_messages() -> ExportTraceRequest {
    let value = |value: AnyValue| Some(value);
    let cores = KeyValue {
        key: "host.cores".into(),
        value: value(AnyValue { int_value: Some(4), ..AnyValue::default() }),
    };
    let list = ArrayValue {
        values: vec![
            AnyValue { bool_value: Some(true), ..AnyValue::default() },
            AnyValue { double_value: Some(0.5), ..AnyValue::default() },
        ],
    };
    let list = AnyValue { array_value: Some(list), ..AnyValue::default() };
    let bytes = AnyValue { bytes_value: Some(vec![1, 2]), ..AnyValue::default() };
    let trace_id = 0x5b8e_fff7_9803_8103_d269_b633_813f_c60c_u128;
    let span = Span {
        trace_id: trace_id.to_be_bytes().into(),
        span_id: 0xeee1_9b7e_c3c1_b174_u64.to_be_bytes().into(),
        parent_span_id: 0xeee1_9b7e_c3c1_b173_u64.to_be_bytes().into(),
        name: "I'm a server span".into(),
        kind: 2,
        start_time_unix_nano: 1_544_712_660_000_000_000,
        end_time_unix_nano: 1_544_712_661_000_000_000,
        attributes: vec![
            KeyValue { key: "list".into(), value: value(list) },
            KeyValue { key: "bytes".into(), value: value(bytes) },
            KeyValue { key: "none".into(), value: None },
        ],
        events: vec![Event {
            time_unix_nano: 1_544_712_660_500_000_000,
            name: "half".into(),
            attributes: Vec::new(),
        }],
        links: vec![SentLink {
            trace_id: (trace_id + 1).to_be_bytes().into(),
            span_id: 1u64.to_be_bytes().into(),
        }],
        status: Some(Status { message: "broke".into(), code: ERROR }),
    };
    let scope = Scope { name: "my.code".into(), version: "1.0.0".into() };
    ExportTraceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: vec![text("service.name", "my.service"), cores] }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans: vec![span] }],
        }],
    }
}

#[test]
fn both_encodings_say_the_same() {
    let by_json = read_traces(in_json().to_string().as_bytes(), Encoding::Json).expect("readable");
    let by_protobuf = read_traces(&in_messages().encode_to_vec(), Encoding::Protobuf).expect("readable");
    assert_eq!(by_json, by_protobuf);
    assert_eq!((by_json.rejected, by_json.complaint), (0, None));
    let [kept] = &by_json.spans[..] else { panic!("one span") };
    assert_eq!(kept.trace_id.to_string(), "5b8efff798038103d269b633813fc60c");
    assert_eq!((&*kept.service, kept.kind.word()), ("my.service", "server"));
    assert_eq!(kept.resource, [("host.cores".into(), json!(4))]);
    assert_eq!(kept.links[0].to_string(), "5b8efff798038103d269b633813fc60d-0000000000000001");
    let span = &kept.span;
    assert_eq!(span.parent_span_id.expect("a parent").to_string(), "eee19b7ec3c1b173");
    assert_eq!((span.duration_ns, span.error.as_deref()), (1_000_000_000, Some("broke")));
    assert_eq!(span.events[0].time_ns, 1_544_712_660_500_000_000);
    let attributes: serde_json::Map<_, _> =
        span.attributes.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    let expected = json!({
        "list": [true, 0.5], "bytes": "AQI=", "none": null,
        "otel.scope.name": "my.code", "otel.scope.version": "1.0.0",
    });
    assert_eq!(Value::Object(attributes), expected);
}

#[test]
fn what_holds_no_spans_is_said_to() {
    for body in ["", " \n", "{}", "[]", "\"spans\"", "{\"resourceMetrics\": []}", "{\"resourceSpans\": null}"]
    {
        let received = read_traces(body.as_bytes(), Encoding::Json).expect(body);
        assert_eq!((received.spans.len(), received.rejected), (0, 0), "{body}");
        assert!(received.complaint.expect(body).contains("no spans"));
    }
    // An empty message, and one whose only field is not known.
    for body in [&[][..], &[0x7a, 1, b'x']] {
        let received = read_traces(body, Encoding::Protobuf).expect("readable");
        assert!(received.complaint.expect("one").contains("no spans"));
    }
}

#[test]
fn what_is_not_of_its_type_is_undecodable() {
    let id =
        |id: &str| format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{id}"}}]}}]}}]}}"#);
    for body in ["{", "[1,", "nonsense", r#"{"resourceSpans": 5}"#, &id("xyz"), &id("abc"), &id("é0")] {
        let refused = read_traces(body.as_bytes(), Encoding::Json).expect_err(body);
        assert!(refused.to_string().contains("OTLP"), "{refused}");
    }
    assert!(read_traces(b"\x0a\xff", Encoding::Protobuf).is_err());
}

#[test]
fn spans_that_cannot_be_any_are_left_out_and_counted() {
    let mut request = in_json();
    let good = request["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone();
    let with = |key: &str, value: &str| {
        let mut span = good.clone();
        span[key] = value.into();
        span
    };
    request["resourceSpans"][0]["scopeSpans"][0]["spans"] = json!([
        with("traceId", "00000000000000000000000000000000"),
        with("traceId", "5b8efff7"),
        with("spanId", ""),
        good,
    ]);
    let received = read_traces(request.to_string().as_bytes(), Encoding::Json).expect("readable");
    assert_eq!((received.spans.len(), received.rejected), (1, 3));
    assert!(received.complaint.expect("one").contains("left out"));
}

#[test]
fn a_service_without_a_name_is_unknown() {
    let mut request = in_json();
    request["resourceSpans"][0]["resource"] = Value::Null;
    let received = read_traces(request.to_string().as_bytes(), Encoding::Json).expect("readable");
    assert_eq!(&*received.spans[0].service, UNKNOWN_SERVICE);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_safe(body in proptest::collection::vec(0u8.., 0..200)) {
        let _ = read_traces(&body, Encoding::Protobuf);
        let _ = read_traces(&body, Encoding::Json);
    }
}
