//! The edge's own parsing for [`crate::fuzz`]: what a stranger's first bytes, heads and queries
//! are made of.

use std::time::Duration;

use fp_core::deadline::Given;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Version};

use super::api::text_request::TextRequest;
use super::gateway::intake;
use super::guard::{self, Hosts};
use super::jaeger::search::{Parameters, Search};
use super::listener::is_preface;

/// What a connection begins with. Once told, more of it does not change what it is.
pub fn first_bytes(bytes: &[u8]) {
    let mut told = None;
    for end in 1..=bytes.len().min(64) {
        let now = is_preface(&bytes[..end]);
        assert!(told.is_none() || told == now, "{end} bytes are told from {} otherwise", end - 1);
        told = now;
    }
}

/// Lines of a head, an empty one, the body: what the gateway and the guard make of them.
pub fn request_head(bytes: &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((bytes, &b""[..]), |end| (&bytes[..end], &bytes[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_11;
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.try_into().unwrap_or_default();
    *request.headers_mut() = headers(lines);
    let (parts, ()) = request.into_parts();
    let _ = intake::check_framing(&parts);
    if let Ok(Some(Given { time, .. })) = intake::time_given(&parts.headers) {
        assert!(time <= Duration::from_secs(86_400), "{time:?} is more than a caller can give");
    }
    intake::trace(&parts.headers);
    intake::criticality(&parts.headers);
    let _ = intake::check_json(&parts.headers, body);
    let hosts = Hosts::of(([127, 0, 0, 1], 8000).into());
    if guard::check(&hosts, &parts.uri, &parts.headers).is_ok() {
        let cross = parts.headers.get_all("origin").iter().any(|origin| {
            let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
            !["127.0.0.1", "localhost", "[::1]"].iter().any(|own| text.contains(own))
        });
        assert!(!cross, "a foreign origin passes: {:?}", parts.headers);
    }
}

fn headers<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    // As many as the listener lets through.
    let pairs = lines.take(100).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]);
        Some((HeaderName::from_bytes(&line[..colon]).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    })
}

/// The body of `POST /functions/trigger`.
pub fn text_request(bytes: &[u8]) {
    for unwrap in [true, false] {
        let Ok(request) = serde_json::from_slice::<TextRequest>(bytes) else { return };
        if let Ok((parts, body)) = request.into_parts(unwrap) {
            assert!(parts.uri.path().starts_with('/'), "{:?}", parts.uri);
            // An escape of six characters stands for one byte or more.
            assert!(body.len() <= 6 * bytes.len().max(4), "{} bytes became {}", bytes.len(), body.len());
        }
    }
}

/// The query of Jaeger's search.
pub fn trace_query(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    if let Ok(search) = Search::read(&Parameters::parse(Some(query)), 1_700_000_000_000_000) {
        assert!((1..=crate::history::Filter::MAX_LIMIT).contains(&search.filter().limit));
    }
}
