//! The readers of this room that meet foreign bytes, as functions of bytes that panic when a
//! promise of theirs is broken: for the fuzzers in `fuzz/`, and for the test that runs their
//! corpora. Not for anybody else.

use std::str::from_utf8;
use std::time::Duration;

use crate::credential::{Bearer, holds_key};
use crate::deadline::{self, LONGEST};
use crate::route::{Route, RouteTable, Routed, finish_decoding, normal_path};
use crate::settings::{JwtAuth, KeysFrom};
use crate::token::{KeySet, Token};
use crate::trace_context::TraceContext;
use crate::{EventType, FunctionName, Manifest, Settings};

/// A reader of bytes that panics when it breaks a promise.
pub type Target = fn(&[u8]);

/// Each target with its name, which is that of its corpus.
pub const TARGETS: [(&str, Target); 5] = [
    ("settings", settings),
    ("event", event),
    ("deadline", deadline),
    ("trace_context", trace_context),
    ("token", token),
];

/// A `function.toml`. What is accepted reads back as the same settings from what is stored of it.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = from_utf8(bytes) else { return };
    if let Ok(manifest) = Manifest::parse(text) {
        let stored = manifest.settings.to_json();
        let again = Settings::from_json(&stored).expect("stored settings are read back");
        assert_eq!(manifest.settings, again, "settings change when they are stored as {stored}");
    }
}

/// An event type in the first line, what is asked of the route table in the second: verb and path.
pub fn event(bytes: &[u8]) {
    let Ok(text) = from_utf8(bytes) else { return };
    let (pattern, asked) = text.split_once('\n').unwrap_or((text, "GET /"));
    let Ok(event) = pattern.parse::<EventType>() else { return };
    let normal = event.to_string();
    assert_eq!(normal.parse(), Ok(event.clone()), "the normal form {normal:?} is another event");
    let name: FunctionName = "f".parse().expect("a name");
    let mut table = RouteTable::default();
    let events = [event];
    table.insert(&Routed { name: &name, order: 0, events: &events, function: () }).expect("it is alone");
    let (verb, path) = asked.split_once(' ').unwrap_or(("GET", asked));
    if let Ok(path) = normal_path(path)
        && let Route::Found(_) = table.find(verb, &path)
    {
        finish_decoding(&path);
    }
    table.remove(&name, &events);
    assert!(matches!(table.find(verb, "/"), Route::Nothing { .. }), "{normal:?} stays in the table");
}

/// The number of a deadline header, then its value.
pub fn deadline(bytes: &[u8]) {
    let Some((number, value)) = bytes.split_first() else { return };
    let header = deadline::HEADERS[usize::from(*number) % deadline::HEADERS.len()];
    let read = deadline::parse(header, value);
    let smallest = deadline::smallest([(header, value)]);
    assert_eq!(smallest.map(|given| given.map(|given| given.time)), read.clone().map(Some));
    match read {
        Ok(time) => assert!(time <= LONGEST, "{time:?}"),
        Err(error) => assert!(error.to_string().len() < 1024, "a long complaint: {error}"),
    }
}

/// Lines `name: value`. What is taken goes on in a form that is understood again.
pub fn trace_context(bytes: &[u8]) {
    let headers: Vec<_> = bytes.split(|byte| *byte == b'\n').filter_map(pair).collect();
    let named =
        |name: &'static str| headers.iter().filter(move |pair| pair.0 == name.as_bytes()).map(|pair| pair.1);
    if let Some(context) = TraceContext::extract(named) {
        let sent = context.to_string();
        let again = TraceContext::extract(|name| (name == "traceparent").then_some(sent.as_bytes()))
            .expect("our own");
        assert_eq!((again.trace_id, again.span_id), (context.trace_id, context.span_id), "{sent}");
    }
}

/// An `Authorization` header in the first line, a JWK set behind it. What a token claims is given out
/// only with an issuer, an audience and an end of life.
pub fn token(bytes: &[u8]) {
    let (header, set) = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or((bytes, &b""[..]), |end| (&bytes[..end], &bytes[end + 1..]));
    let bearer = Bearer::of([header].into_iter());
    assert_eq!(
        matches!(bearer, Bearer::Key(_)),
        holds_key(header) && from_utf8(header).is_ok(),
        "{bearer:?}"
    );
    let set = KeySet::parse(set);
    let Bearer::Token(text) = bearer else { return };
    let Ok(token) = Token::parse(text) else { return };
    if let Ok(set) = set {
        assert!(set.for_token(&token).count() <= 8, "a token is tried with too many keys");
    }
    let rules = JwtAuth {
        jwks: KeysFrom::Code("jwks.json".into()),
        issuer: "joe".into(),
        audience: vec!["thumbs".into()],
    };
    let now = Duration::from_secs(1_300_819_000);
    if let Ok(claims) = token.claims(&rules, now) {
        assert_eq!(claims["iss"], "joe");
        let end = claims["exp"].as_f64().expect("a number");
        assert!(end > now.as_secs_f64() - 61.0, "it ended at {end}");
    }
}

/// What is before the first `: ` of a line and what is behind it.
fn pair(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.windows(2).position(|two| two == b": ")?;
    Some((&line[..colon], &line[colon + 2..]))
}
