//! Degraded answers: what a function answers instead of a refusal, and what may be kept for that.
//!
//! A last good answer is given to somebody else than the one it was made for, so the rules here are
//! those of a shared cache (RFC 9111 section 3), and stricter where a handler cannot be trusted to say
//! what its answer depends on: every header of the request that is not known to be about the
//! connection, the trace or the browser's looks is part of the [`key`]. Who wants answers shared among
//! more callers says `Cache-Control: public`, and `Vary`. Nothing here reads a clock or keeps a byte.

use crate::outcome::{DeadlineReason, Outcome};

/// Whether an outcome is a refusal: the handler was not begun, and the caller is not at fault.
///
/// What was begun is not answered by something else: a timeout or a crash has its own status, which
/// tells its caller that the work may have been done. Quotas are the callers' own.
pub fn is_refusal(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Shed(_) | Outcome::StartFailed | Outcome::DeadlineExceeded(DeadlineReason::Infeasible)
    )
}

/// Request headers that no answer is taken to depend on: the connection's, the trace's, deadlines,
/// conditions (which an answer with status 200 meets) and what a browser tells of itself. In lower
/// case; sorted.
const IGNORED: [&str; 34] = [
    "b3",
    "cache-control",
    "connect-timeout-ms",
    "connection",
    "content-length",
    "date",
    "dnt",
    "grpc-timeout",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "pragma",
    "priority",
    "referer",
    "request-timeout",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "uber-trace-id",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-correlation-id",
    "x-criticality",
    "x-envoy-expected-rq-timeout-ms",
    "x-request-id",
    "x-request-start",
    "x-request-timeout",
];

/// Beginnings of further ones: client hints and fetch metadata of browsers.
const IGNORED_FAMILIES: [&str; 2] = ["sec-ch-", "sec-fetch-"];

/// Headers that say who asks. An answer to a request that has one is for nobody else.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// What of a request decides whether it is the same as another.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// HTTP verb.
    pub verb: &'a str,
    /// Percent-decoded path.
    pub path: &'a str,
    /// Percent-decoded path parameters.
    pub params: &'a [(String, String)],
    /// Raw query string.
    pub query: &'a str,
    /// Bytes of its body.
    pub body_bytes: usize,
    /// The platform has asked who calls, and knows.
    pub is_authenticated: bool,
}

/// Among whom an answer may be shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody: it must not be kept.
    Nobody,
    /// Those whose requests are alike in every header that may matter.
    Alike,
    /// Those whose requests are alike in these headers, in lower case and sorted.
    Public(Vec<String>),
}

/// Whether a request may be answered with what was made for another one, as far as the request tells.
/// `headers` have names in lower case.
pub fn may_be_shared<'a>(asked: Asked<'_>, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> bool {
    let is_plain = matches!(asked.verb, "GET" | "HEAD") && asked.body_bytes == 0;
    let refuses = |(name, value): (&str, &[u8])| {
        CREDENTIALS.contains(&name)
            || (name == "cache-control" && has_directive(value, &["no-store", "no-cache"]))
            || (name == "pragma" && has_directive(value, &["no-cache"]))
    };
    is_plain && !asked.is_authenticated && !headers.into_iter().any(refuses)
}

/// Among whom an answer may be shared, as far as the answer tells.
pub fn sharing<'a>(status: u16, headers: impl Iterator<Item = (&'a str, &'a str)>) -> Sharing {
    /// What forbids to keep an answer, or to give it out once it is old (RFC 9111 section 5.2.2).
    const FORBID: [&str; 5] = ["no-store", "private", "no-cache", "must-revalidate", "proxy-revalidate"];
    // 206 is a part, which only its asker can place.
    if !(200..300).contains(&status) || status == 206 {
        return Sharing::Nobody;
    }
    let (mut is_public, mut named) = (false, Vec::new());
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("set-cookie") {
            return Sharing::Nobody;
        }
        if name.eq_ignore_ascii_case("cache-control") {
            if has_directive(value.as_bytes(), &FORBID) {
                return Sharing::Nobody;
            }
            is_public |= has_directive(value.as_bytes(), &["public"]);
        }
        if name.eq_ignore_ascii_case("vary") {
            named.extend(value.split(',').map(|name| name.trim().to_ascii_lowercase()));
        }
    }
    named.retain(|name| !name.is_empty());
    named.sort();
    named.dedup();
    if named.iter().any(|name| name == "*") {
        return Sharing::Nobody;
    }
    if is_public { Sharing::Public(named) } else { Sharing::Alike }
}

/// Whether a comma-separated header has one of these directives, with or without an argument.
fn has_directive(value: &[u8], wanted: &[&str]) -> bool {
    value.split(|byte| *byte == b',').any(|directive| {
        let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes()))
    })
}

/// What two requests must have in common for one's answer to be the other's. `only` are the headers that
/// matter where the answer says so ([`Sharing::Public`]); else all do but those that never can.
///
/// Each part is written with its length, so that no two requests have one key by chance or by design.
pub fn key<'a>(
    asked: Asked<'_>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    only: Option<&[String]>,
) -> Box<[u8]> {
    let mut key = base_key(asked).into_vec();
    let matters = |name: &str| match only {
        Some(named) => name == "host" || named.iter().any(|known| known == name),
        None => !is_ignored(name),
    };
    let mut matching: Vec<_> = headers.into_iter().filter(|(name, _)| matters(name)).collect();
    // In a stable order: values of one name stay in theirs.
    matching.sort_by_key(|(name, _)| *name);
    for (name, value) in matching {
        push(&mut key, name.as_bytes());
        push(&mut key, value);
    }
    key.into()
}

/// The part of the [`key`] without headers.
pub fn base_key(asked: Asked<'_>) -> Box<[u8]> {
    let mut key = Vec::with_capacity(128);
    for part in [asked.verb, asked.path, asked.query] {
        push(&mut key, part.as_bytes());
    }
    key.extend((asked.params.len() as u64).to_le_bytes());
    for (name, value) in asked.params {
        push(&mut key, name.as_bytes());
        push(&mut key, value.as_bytes());
    }
    key.into()
}

fn push(key: &mut Vec<u8>, part: &[u8]) {
    key.extend((part.len() as u64).to_le_bytes());
    key.extend(part);
}

fn is_ignored(name: &str) -> bool {
    IGNORED.binary_search(&name).is_ok() || IGNORED_FAMILIES.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::ShedReason;

    const GET: Asked<'static> =
        Asked { verb: "GET", path: "/cats", params: &[], query: "", body_bytes: 0, is_authenticated: false };

    type Pairs = &'static [(&'static str, &'static str)];

    fn bytes(pairs: Pairs) -> impl Iterator<Item = (&'static str, &'static [u8])> {
        pairs.iter().map(|(name, value)| (*name, value.as_bytes()))
    }

    fn shared(asked: Asked<'_>, headers: Pairs) -> bool {
        may_be_shared(asked, bytes(headers))
    }

    fn of(status: u16, headers: Pairs) -> Sharing {
        sharing(status, headers.iter().copied())
    }

    #[test]
    fn only_what_never_began_and_is_not_the_callers_doing_is_a_refusal() {
        for outcome in Outcome::ALL {
            let refused =
                matches!(outcome.word(), "shed" | "start_failed") || outcome.reason() == Some("infeasible");
            assert_eq!(is_refusal(outcome), refused, "{outcome:?}");
        }
        assert!(is_refusal(Outcome::Shed(ShedReason::QueueFull)));
    }

    #[test]
    fn who_says_who_they_are_shares_with_nobody() {
        assert!(shared(GET, &[]));
        assert!(shared(Asked { verb: "HEAD", ..GET }, &[("accept", "*/*")]));
        assert!(!shared(Asked { verb: "POST", ..GET }, &[]));
        assert!(!shared(Asked { body_bytes: 1, ..GET }, &[]), "a body is part of the question");
        assert!(!shared(Asked { is_authenticated: true, ..GET }, &[]));
        for name in ["authorization", "cookie", "proxy-authorization"] {
            assert!(!may_be_shared(GET, [(name, &b"x"[..])].into_iter()), "{name}");
        }
        assert!(!shared(GET, &[("cache-control", "max-age=0, No-Store")]));
        assert!(!shared(GET, &[("cache-control", "no-cache")]));
        assert!(!shared(GET, &[("pragma", "no-cache")]));
        assert!(shared(GET, &[("cache-control", "max-age=0")]));
    }

    #[test]
    fn an_answer_says_who_may_have_it() {
        assert_eq!(of(200, &[]), Sharing::Alike);
        assert_eq!(of(204, &[("cache-control", "max-age=5")]), Sharing::Alike);
        for status in [199, 206, 301, 304, 404, 500] {
            assert_eq!(of(status, &[]), Sharing::Nobody, "{status}");
        }
        assert_eq!(of(200, &[("Set-Cookie", "a=1")]), Sharing::Nobody);
        for value in ["no-store", "public, Private=\"x\"", "no-cache", "max-age=3,must-revalidate"] {
            assert_eq!(sharing(200, [("Cache-Control", value)].into_iter()), Sharing::Nobody, "{value}");
        }
        assert_eq!(of(200, &[("vary", "Accept, *")]), Sharing::Nobody);
        assert_eq!(of(200, &[("vary", "Accept")]), Sharing::Alike);
        let named = Sharing::Public(vec!["accept".into(), "x-plan".into()]);
        assert_eq!(of(200, &[("cache-control", "public"), ("Vary", "X-Plan , accept,")]), named);
    }

    #[test]
    fn a_header_that_may_matter_parts_two_requests_and_one_that_cannot_does_not() {
        let plain = key(GET, bytes(&[("host", "a")]), None);
        let same: [Pairs; 3] = [
            &[("host", "a"), ("user-agent", "curl"), ("traceparent", "00")],
            &[("x-request-timeout", "5s"), ("host", "a")],
            &[("sec-fetch-mode", "cors"), ("host", "a")],
        ];
        for headers in same {
            assert_eq!(key(GET, bytes(headers), None), plain, "{headers:?}");
        }
        let other: [Pairs; 5] = [
            &[("host", "b")],
            &[("host", "a"), ("x-api-key", "secret")],
            &[("host", "a"), ("x-forwarded-for", "10.0.0.1")],
            &[("host", "a"), ("accept-language", "de")],
            &[("host", "a"), ("range", "bytes=0-1")],
        ];
        for headers in other {
            assert_ne!(key(GET, bytes(headers), None), plain, "{headers:?}");
        }
        let public = |headers| key(GET, bytes(headers), Some(&["accept".to_owned()]));
        assert_eq!(public(&[("host", "a"), ("x-api-key", "1")]), public(&[("host", "a")]));
        assert_ne!(public(&[("host", "a"), ("accept", "text/html")]), public(&[("host", "a")]));
        assert_ne!(public(&[("host", "b")]), public(&[("host", "a")]), "tenants and sites have hosts");
    }

    #[test]
    fn the_list_of_what_cannot_matter_is_in_order() {
        assert!(IGNORED.is_sorted());
    }

    proptest! {
        #[test]
        fn no_two_requests_have_one_key(
            a in (".{0,6}", ".{0,6}", prop::collection::vec((".{0,3}", ".{0,3}"), 0..3)),
            b in (".{0,6}", ".{0,6}", prop::collection::vec((".{0,3}", ".{0,3}"), 0..3)),
        ) {
            fn asked((path, query, params): &(String, String, Vec<(String, String)>)) -> Asked<'_> {
                Asked { path, query, params, ..GET }
            }
            prop_assert_eq!(a == b, base_key(asked(&a)) == base_key(asked(&b)));
        }
    }
}
