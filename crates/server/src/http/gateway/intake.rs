//! What a caller sends along: deadline, trace context, class, what its body claims to be.

use fp_core::code::Code;
use fp_core::deadline::{self, Given};
use fp_core::settings::Criticality;
use fp_core::trace_context::TraceContext;
use http::header::{CONTENT_TYPE, COOKIE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use crate::http::caller::{COOKIE_NAME, is_session};
use crate::http::problem::Problem;
use crate::invoke::attempt::latin1;

/// What HTTP/1.1 asks of a request's head beyond what hyper looks at (RFC 9112 3.2 and 6.1): one
/// Host, since proxies before us may choose by either of two, and no transfer coding that we
/// would hand to the function undone.
pub(in crate::http) fn check_framing(parts: &Parts) -> Result<(), Problem> {
    if parts.version != Version::HTTP_11 {
        return Ok(());
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let detail = match (hosts.next(), hosts.next()) {
        (Some(_), None) => None,
        (None, _) => Some("the request has no Host header, which HTTP/1.1 wants"),
        (Some(_), Some(_)) => Some("the request has more than one Host header"),
    };
    if let Some(detail) = detail {
        return Err(Problem::new(Code::BadRequest, detail).hint("Send one Host header."));
    }
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    match codings.find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        None => Ok(()),
        Some(coding) => {
            let detail = format!("the transfer coding {coding:?} is not understood here, only chunked is");
            let problem = Problem::new(Code::BadRequest, detail).with_status(StatusCode::NOT_IMPLEMENTED);
            Err(problem.hint("Send the body as it is, or say its coding in Content-Encoding."))
        }
    }
}

/// The time that the caller gives, from the smallest of the deadline headers.
pub(in crate::http) fn time_given(headers: &HeaderMap) -> Result<Option<Given>, Problem> {
    let present = deadline::HEADERS
        .iter()
        .flat_map(|name| headers.get_all(*name).iter().map(move |value| (*name, value.as_bytes())));
    deadline::smallest(present).map_err(|error| Problem::new(Code::InvalidDeadline, error.to_string()))
}

/// The caller's trace context, in whichever of the known forms it comes.
pub(in crate::http) fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::extract(|name| headers.get_all(name).iter().map(http::HeaderValue::as_bytes))
}

/// Takes the session of the pages out of a request: a browser sends it to every port of a host.
pub(super) fn keep_session_out(headers: &mut HeaderMap) {
    let holds_it = |line: &HeaderValue| names_session(line.as_bytes());
    if !headers.get_all(COOKIE).iter().any(holds_it) {
        return;
    }
    let lines: Vec<_> = headers.get_all(COOKIE).iter().filter_map(without_session).collect();
    headers.remove(COOKIE);
    for line in lines {
        headers.append(COOKIE, line);
    }
}

fn names_session(text: &[u8]) -> bool {
    text.windows(COOKIE_NAME.len()).any(|window| window == COOKIE_NAME.as_bytes())
}

/// A line of cookies without the session; none if nothing is left.
fn without_session(line: &HeaderValue) -> Option<HeaderValue> {
    let is_other = |pair: &&[u8]| !is_session(cookie_name(pair));
    let kept: Vec<_> = line.as_bytes().split(|byte| *byte == b';').filter(is_other).collect();
    let joined = kept.join(&b';');
    HeaderValue::from_bytes(joined.trim_ascii()).ok().filter(|line| !line.is_empty())
}

/// The name of `name=value; …`; empty where there is none.
pub(super) fn cookie_name(pair: &[u8]) -> &[u8] {
    let pair = pair.split(|byte| *byte == b';').next().unwrap_or_default();
    let name = pair.iter().position(|byte| *byte == b'=').map(|at| &pair[..at]);
    name.unwrap_or_default().trim_ascii()
}

/// The caller's class; what is no class is not asked for.
pub(in crate::http) fn criticality(headers: &HeaderMap) -> Option<Criticality> {
    match headers.get("x-criticality")?.as_bytes() {
        b"critical" => Some(Criticality::Critical),
        b"default" => Some(Criticality::Default),
        b"sheddable" => Some(Criticality::Sheddable),
        _ => None,
    }
}

/// Deepest JSON that is let through: Python's parser gives up a little below 1,000.
const MAX_JSON_DEPTH: usize = 500;

/// Most digits of a JSON integer: Python's own limit (`sys.int_info.default_max_str_digits`).
const MAX_JSON_DIGITS: usize = 4300;

/// Refuses a body that claims to be JSON and is not, or that Python's parser would not take:
/// handlers get such bodies parsed, and what cannot be parsed is the caller's mistake.
pub(in crate::http) fn check_json(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    if claims_json(headers) { check_json_text(body) } else { Ok(()) }
}

/// The same for a body that claims to be JSON.
pub(super) fn check_json_text(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() {
        return Ok(());
    }
    let refuse = |what: String| Problem::new(Code::InvalidBody, format!("the body is not JSON: {what}"));
    let text = std::str::from_utf8(body)
        .map_err(|error| refuse(format!("it is not UTF-8 from byte {}", error.valid_up_to())))?;
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Err(refuse(error.to_string()).line(error.line() as u32));
    }
    let Extent { depth, digits } = extent(text);
    let refuse = |what: String| Err(Problem::new(Code::InvalidBody, format!("the body is JSON that {what}")));
    if depth > MAX_JSON_DEPTH {
        return refuse(format!("is nested deeper than {MAX_JSON_DEPTH}; send it flatter"));
    }
    if digits > MAX_JSON_DIGITS {
        return refuse(format!(
            "has an integer of {digits} digits, and the limit is {MAX_JSON_DIGITS}; send it as a string"
        ));
    }
    Ok(())
}

/// Whether a handler gets the body parsed as JSON: the rule of the SDK's `_message.py`, on the
/// same text, so that there is no body that only one of the two takes for JSON.
pub(super) fn claims_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter().map(|value| latin1(value.as_bytes()));
    let Some(first) = values.next() else { return false };
    let whole = values.fold(first, |joined, next| format!("{joined}, {next}").into());
    let kind = whole.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

/// How far valid JSON goes.
struct Extent {
    /// How deep its arrays and objects are nested.
    depth: usize,
    /// Digits of its longest integer.
    digits: usize,
}

fn extent(text: &str) -> Extent {
    let mut extent = Extent { depth: 0, digits: 0 };
    if text.len() <= MAX_JSON_DEPTH {
        return extent;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let (mut digits, mut fraction) = (0usize, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'0'..=b'9' => {
                digits += 1;
                continue;
            }
            // A float has no limit; the letter of `true` does no harm.
            b'.' | b'e' | b'E' => {
                fraction = true;
                continue;
            }
            b'+' | b'-' if fraction => continue,
            b'[' | b'{' => {
                depth += 1;
                extent.depth = extent.depth.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !fraction {
            extent.digits = extent.digits.max(digits);
        }
        (digits, fraction) = (0, false);
    }
    if !fraction {
        extent.digits = extent.digits.max(digits);
    }
    extent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(version: Version, headers: &[(&str, &str)]) -> u16 {
        let mut request = http::Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        check_framing(&parts).map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn http_1_1_wants_one_host_and_no_unknown_transfer_coding() {
        let one = ("host", "a");
        assert_eq!(framing(Version::HTTP_11, &[one]), 200);
        assert_eq!(framing(Version::HTTP_11, &[]), 400);
        assert_eq!(framing(Version::HTTP_11, &[one, one]), 400);
        assert_eq!(framing(Version::HTTP_10, &[]), 200);
        assert_eq!(framing(Version::HTTP_2, &[]), 200);
        for (coding, status) in [("chunked", 200), ("Chunked", 200), ("gzip, chunked", 501), ("gzip", 501)] {
            assert_eq!(framing(Version::HTTP_11, &[one, ("transfer-encoding", coding)]), status, "{coding}");
        }
    }

    #[test]
    fn functions_do_not_see_the_session_of_the_pages() {
        let seen = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, line.parse().expect("header text"));
            }
            keep_session_out(&mut headers);
            let left = headers.get_all(COOKIE).iter().map(|line| line.to_str().expect("text").to_owned());
            left.collect::<Vec<_>>()
        };
        let session = format!("{COOKIE_NAME}=abc");
        assert!(seen(&[&session]).is_empty());
        assert_eq!(seen(&[&format!("a=1; {session}; b=2")]), ["a=1; b=2"]);
        assert_eq!(seen(&[&format!("{session}; b=2"), "c=3"]), ["b=2", "c=3"]);
        assert_eq!(seen(&["a=1", "b=2"]), ["a=1", "b=2"]);
        assert!(seen(&[&format!("__Host-{session}")]).is_empty());
        let value = format!("a={COOKIE_NAME}; my_{COOKIE_NAME}=1");
        assert_eq!(seen(&[&value]), [value]);
    }

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

    #[test]
    fn an_integer_that_python_would_not_parse_is_refused_here() {
        let json = json_headers("application/json");
        let check = |body: String| check_json(&json, body.as_bytes());
        assert!(check("7".repeat(4300)).is_ok());
        assert!(check(format!("-{}", "7".repeat(4300))).is_ok());
        let refused = check(format!("{{\"n\": [true, {}]}}", "7".repeat(4301))).expect_err("too long");
        assert_eq!(refused.code(), Code::InvalidBody);
        assert!(check("7".repeat(5001)).is_err());
        for float in ["{}.5", "{}e3", "0.{}", "1E+{}"] {
            assert!(check(float.replace("{}", &"7".repeat(5000))).is_ok(), "{float}");
        }
        assert!(check(format!("\"{}\"", "7".repeat(5000))).is_ok());
        assert!(check(format!("[{}]", "7777777777,".repeat(600) + "7")).is_ok());
    }

    #[test]
    fn a_content_type_is_read_as_the_worker_reads_it() {
        let mut two = json_headers("text/plain");
        two.append(CONTENT_TYPE, HeaderValue::from_static("application/x+json"));
        assert!(check_json(&two, b"{").is_err());
        let odd = HeaderValue::from_bytes(b"application/json; note=\xe9").expect("obs-text is allowed");
        assert!(check_json(&HeaderMap::from_iter([(CONTENT_TYPE, odd)]), b"{").is_err());
        assert!(check_json(&json_headers("thing+json"), b"{").is_err());
        assert!(check_json(&json_headers("text/json"), b"{").is_ok());
    }
}
