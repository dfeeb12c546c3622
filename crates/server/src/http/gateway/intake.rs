//! What a caller sends along: deadline, trace context, class, body.

use bytes::{Bytes, BytesMut};
use fp_core::code::Code;
use fp_core::deadline;
use fp_core::settings::Criticality;
use fp_core::trace_context::TraceContext;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;

use super::BODY_SILENCE;
use crate::http::problem::Problem;

/// The time that the caller gives, from the smallest of the deadline headers.
pub(super) fn time_given(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let present = deadline::HEADERS
        .iter()
        .flat_map(|name| headers.get_all(*name).iter().map(move |value| (*name, value.as_bytes())));
    deadline::smallest(present).map_err(|error| Problem::new(Code::InvalidDeadline, error.to_string()))
}

/// The caller's trace context, in whichever of the known forms it comes.
pub(super) fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::extract(|name| headers.get_all(name).iter().map(http::HeaderValue::as_bytes))
}

/// The caller's class; what is no class is not asked for.
pub(super) fn criticality(headers: &HeaderMap) -> Option<Criticality> {
    match headers.get("x-criticality")?.as_bytes() {
        b"critical" => Some(Criticality::Critical),
        b"default" => Some(Criticality::Default),
        b"sheddable" => Some(Criticality::Sheddable),
        _ => None,
    }
}

/// Why a body was not read to its end.
pub(super) enum Unread {
    /// It is larger than the limit.
    TooLarge,
    /// It broke off, or came too slowly.
    Broken(Problem),
}

/// Reads the body, up to the limit.
pub(super) async fn read_body(mut body: Incoming, limit: u64) -> Result<Bytes, Unread> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > limit {
        return Err(too_large(body));
    }
    let first = match next_data(&mut body).await.map_err(Unread::Broken)? {
        None => return Ok(Bytes::new()),
        Some(data) if data.len() as u64 > limit => return Err(too_large(body)),
        Some(data) if body.is_end_stream() => return Ok(data),
        Some(data) => data,
    };
    let mut whole = BytesMut::from(first);
    while let Some(data) = next_data(&mut body).await.map_err(Unread::Broken)? {
        if (whole.len() + data.len()) as u64 > limit {
            return Err(too_large(body));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
    loop {
        let frame = tokio::time::timeout(BODY_SILENCE, body.frame()).await;
        let Ok(frame) = frame else {
            let detail = format!("no byte of the body came for {} s; send it faster", BODY_SILENCE.as_secs());
            return Err(Problem::new(Code::RequestTimeout, detail));
        };
        match frame {
            None => return Ok(None),
            Some(Err(_)) => {
                return Err(Problem::new(
                    Code::BadRequest,
                    "the body broke off or its framing is wrong; send it again",
                ));
            }
            // Trailers say nothing that a handler is told.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// The rest is read and dropped for a while, so that the refusal reaches its sender.
fn too_large(body: Incoming) -> Unread {
    tokio::spawn(discard(body));
    Unread::TooLarge
}

/// Most that is read and dropped of a refused body: enough for what a client has in flight.
const DISCARD_BYTES: usize = 64 << 20;

/// Reads a refused body for a while, so that its sender gets to read the answer.
pub(super) async fn discard(mut body: Incoming) {
    let mut left = DISCARD_BYTES;
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(until, body.frame()).await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(1, Bytes::len)) else { return };
        left = rest;
    }
}

/// Deepest JSON that is let through: Python's parser gives up a little below 1,000.
const MAX_JSON_DEPTH: usize = 500;

/// Refuses a body that claims to be JSON and is not.
pub(super) fn check_json(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() || !claims_json(headers) {
        return Ok(());
    }
    let refuse = |what: String| Problem::new(Code::InvalidBody, format!("the body is not JSON: {what}"));
    let text = std::str::from_utf8(body)
        .map_err(|error| refuse(format!("it is not UTF-8 from byte {}", error.valid_up_to())))?;
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Err(refuse(error.to_string()).line(error.line() as u32));
    }
    if depth(text) > MAX_JSON_DEPTH {
        return Err(refuse(format!("it is nested deeper than {MAX_JSON_DEPTH}")));
    }
    Ok(())
}

fn claims_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    let subtype = media_type.split_once('/').map_or("", |(_, subtype)| subtype);
    subtype.eq_ignore_ascii_case("json")
        || subtype.len() > 5 && subtype[subtype.len() - 5..].eq_ignore_ascii_case("+json")
}

/// How deep the arrays and objects of valid JSON are nested.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    if text.len() <= MAX_JSON_DEPTH {
        return 0;
    }
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn json_headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_bodies_that_claim_json_are_held_to_it() {
        let broken = b"{\"a\":";
        for claims in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert!(check_json(&json_headers(claims), broken).is_err(), "{claims}");
            assert!(check_json(&json_headers(claims), b"{\"a\":1}").is_ok(), "{claims}");
            assert!(check_json(&json_headers(claims), b"").is_ok(), "{claims}");
            assert!(check_json(&json_headers(claims), b"\"\xff\"").is_err(), "{claims}");
        }
        for other in ["text/plain", "application/jsonlines", "json"] {
            assert!(check_json(&json_headers(other), broken).is_ok(), "{other}");
        }
        assert!(check_json(&HeaderMap::new(), broken).is_ok());
    }

    #[test]
    fn json_beyond_pythons_depth_is_refused_here() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check_json(&json_headers("application/json"), nested(400).as_bytes()).is_ok());
        assert!(check_json(&json_headers("application/json"), nested(100_000).as_bytes()).is_err());
        let brackets_in_text = format!("{:?}", "[".repeat(1000));
        assert!(check_json(&json_headers("application/json"), brackets_in_text.as_bytes()).is_ok());
    }
}
