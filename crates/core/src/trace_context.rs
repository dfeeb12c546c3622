//! Trace context in and out: W3C `traceparent`/`tracestate` (levels 1 and 2), B3 and Jaeger.
//!
//! [`TraceContext::extract`] reads whichever a caller sent; `traceparent` wins over `b3`, that
//! over the `X-B3-…` headers, that over `uber-trace-id`. What is invalid is as if it was not
//! there: never an error, the call just begins a trace of its own. `tracestate` is passed on
//! only beside a valid `traceparent`, and as a whole or not at all.
//! Ids are arguments: nothing here draws randomness.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Ascii, SpanId, TraceId, decode_hex};

/// Most members of a `tracestate`; with more the whole list is dropped (W3C 3.3.1.1).
const MAX_STATE_MEMBERS: usize = 32;

/// Longest key and longest value of a `tracestate` member, in bytes (W3C 3.3.1.3).
const MAX_STATE_PART_LEN: usize = 256;

const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// A position in a trace: which trace, under which span, with what flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The caller's span when extracted, the own one when sent.
    pub span_id: SpanId,
    /// The caller may have recorded it (W3C flag bit 0).
    pub sampled: bool,
    /// The trace id's last seven bytes are random (W3C level 2, flag bit 1).
    pub random: bool,
    /// The `tracestate` to pass on, in one line; never empty.
    pub state: Option<Box<str>>,
}

impl TraceContext {
    /// The beginning of a trace with an id that we made: sampled, and random as
    /// [`TraceId::from_parts`] promises.
    pub fn root(trace_id: TraceId, span_id: SpanId) -> Self {
        Self { trace_id, span_id, sampled: true, random: true, state: None }
    }

    /// The beginning of a trace for a caller whose headers name none: sampled, unless B3 said not
    /// to, which it may without ids.
    pub fn begin<'a, V>(trace_id: TraceId, span_id: SpanId, values: impl Fn(&'static str) -> V) -> Self
    where
        V: IntoIterator<Item = &'a [u8]>,
    {
        let only = |name| only_value(values(name));
        let debug = only("x-b3-flags") == Some("1");
        let sampled = match only("b3") {
            Some("0") => false,
            Some("1" | "d") => true,
            _ => debug || !matches!(only("x-b3-sampled"), Some("0" | "false")),
        };
        Self { sampled, ..Self::root(trace_id, span_id) }
    }

    /// The same trace seen from another span: what is sent onwards.
    pub fn with_span(&self, span_id: SpanId) -> Self {
        Self { span_id, ..self.clone() }
    }

    /// What the caller sent, if it can be used. `values` gives all values of a header by its
    /// lower-case name.
    pub fn extract<'a, V>(values: impl Fn(&'static str) -> V) -> Option<Self>
    where
        V: IntoIterator<Item = &'a [u8]>,
    {
        let only = |name| only_value(values(name));
        if let Some(mut context) = only("traceparent").and_then(parse_traceparent) {
            context.state = combine_state(values("tracestate"));
            return Some(context);
        }
        if let Some(context) = only("b3").and_then(parse_b3) {
            return Some(context);
        }
        let multi = || {
            let ids = (only("x-b3-traceid")?, only("x-b3-spanid")?);
            parse_b3_multi(ids, [only("x-b3-sampled"), only("x-b3-flags")])
        };
        multi().or_else(|| only("uber-trace-id").and_then(parse_uber))
    }

    /// The flags to send: those that this version knows.
    pub fn flags(&self) -> u8 {
        (u8::from(self.sampled) * SAMPLED) | (u8::from(self.random) * RANDOM)
    }

    /// The value of the `traceparent` header to send; version 00.
    pub fn traceparent(&self) -> Ascii<55> {
        let mut text = *b"00-________________________________-________________-00";
        text[3..35].copy_from_slice(self.trace_id.text().as_bytes());
        text[36..52].copy_from_slice(self.span_id.text().as_bytes());
        text[54] += self.flags();
        Ascii(text)
    }
}

/// As `traceparent`: `00-<trace id>-<span id>-<flags>`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())
    }
}

fn new_context(trace_id: TraceId, span_id: SpanId, sampled: bool, random: bool) -> Option<TraceContext> {
    let valid = trace_id != TraceId::default() && span_id != SpanId::default();
    valid.then_some(TraceContext { trace_id, span_id, sampled, random, state: None })
}

/// The value of a header that must come once: sent twice, it is invalid.
fn only_value<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<&'a str> {
    let mut values = values.into_iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    std::str::from_utf8(value).ok().map(trim)
}

/// Removes optional whitespace (OWS of RFC 9110: spaces and tabs).
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// `version-traceid-parentid-flags`. Versions above 00 may go on after another dash.
fn parse_traceparent(text: &str) -> Option<TraceContext> {
    let (head, rest) = text.split_at_checked(55)?;
    let bytes = head.as_bytes();
    if bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
        return None;
    }
    let [version] = decode_hex(head.get(..2)?)?;
    let may_follow = version != 0 && rest.starts_with('-');
    if version == 0xff || !(rest.is_empty() || may_follow) {
        return None;
    }
    let trace_id = TraceId(decode_hex(head.get(3..35)?)?);
    let span_id = SpanId(decode_hex(head.get(36..52)?)?);
    let [flags] = decode_hex(head.get(53..)?)?;
    new_context(trace_id, span_id, flags & SAMPLED != 0, flags & RANDOM != 0)
}

/// All `tracestate` headers as one list; none if it is empty or breaks a rule anywhere.
fn combine_state<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Box<str>> {
    let mut members: Vec<(&str, &str)> = Vec::new();
    for value in values {
        let value = std::str::from_utf8(value).ok()?;
        for member in value.split(',').map(trim).filter(|member| !member.is_empty()) {
            let (key, value) = member.split_once('=')?;
            let repeated = members.iter().any(|(other, _)| *other == key);
            if members.len() == MAX_STATE_MEMBERS || repeated || !is_state_key(key) || !is_state_value(value)
            {
                return None;
            }
            members.push((key, value));
        }
    }
    let members: Vec<_> = members.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!members.is_empty()).then(|| members.join(",").into())
}

/// A simple key, or `tenant@system` (1 to 241 and 1 to 14 bytes). Level 2 lets a simple key
/// begin with a digit; it also lets `@` stand anywhere, which level 1's readers would drop.
fn is_state_key(key: &str) -> bool {
    let begins_with_letter = |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase());
    match key.split_once('@') {
        None => key.len() <= MAX_STATE_PART_LEN && is_state_key_part(key),
        Some((tenant, system)) => {
            let short_enough = tenant.len() <= 241 && system.len() <= 14;
            short_enough
                && is_state_key_part(tenant)
                && is_state_key_part(system)
                && begins_with_letter(system)
        }
    }
}

fn is_state_key_part(part: &str) -> bool {
    let lower_alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    part.bytes().next().is_some_and(lower_alphanumeric)
        && part.bytes().all(|b| lower_alphanumeric(b) || matches!(b, b'_' | b'-' | b'*' | b'/'))
}

/// Printable ASCII without `,` and `=`; the trimming above took trailing blanks.
fn is_state_value(value: &str) -> bool {
    (1..=MAX_STATE_PART_LEN).contains(&value.len())
        && value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b',' && b != b'=')
}

/// `traceid-spanid[-sampled[-parentid]]`. The single-character form, a sampling decision
/// without ids, leaves nothing to join: [`TraceContext::begin`] reads it.
fn parse_b3(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let (trace_id, span_id) = (parts.next()?, parts.next()?);
    let sampled = parts.next().is_none_or(|state| state != "0");
    let context = new_context(short_trace_id(trace_id)?, short_span_id(span_id)?, sampled, false);
    let parent_is_valid = parts.next().is_none_or(|parent| short_span_id(parent).is_some());
    context.filter(|_| parent_is_valid && parts.next().is_none())
}

/// The `X-B3-…` headers. No decision means that we decide, which is to record.
fn parse_b3_multi(
    (trace_id, span_id): (&str, &str),
    [sampled, flags]: [Option<&str>; 2],
) -> Option<TraceContext> {
    let debug = flags == Some("1");
    let denied = matches!(sampled, Some("0" | "false"));
    new_context(short_trace_id(trace_id)?, short_span_id(span_id)?, debug || !denied, false)
}

/// Jaeger: `traceid:spanid:parentid:flags`, ids without leading zeros, colons perhaps escaped.
fn parse_uber(text: &str) -> Option<TraceContext> {
    let unescaped = text.replace("%3A", ":").replace("%3a", ":");
    let mut parts = unescaped.split(':');
    let (trace_id, span_id, _parent) = (parts.next()?, parts.next()?, parts.next()?);
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let context = new_context(TraceId(padded(trace_id)?), SpanId(padded(span_id)?), flags & 1 != 0, false);
    context.filter(|_| parts.next().is_none())
}

/// B3 has 64 and 128 bit trace ids; short ones are padded on the left.
fn short_trace_id(text: &str) -> Option<TraceId> {
    matches!(text.len(), 16 | 32).then(|| padded(text).map(TraceId))?
}

fn short_span_id(text: &str) -> Option<SpanId> {
    (text.len() == 16).then(|| padded(text).map(SpanId))?
}

/// Up to `N` bytes of hexadecimal digits in either case, padded on the left with zeros.
fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let fits = (1..=2 * N).contains(&text.len());
    fits.then(|| decode_hex(&format!("{:0>width$}", text.to_ascii_lowercase(), width = 2 * N)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "12345678901234567890123456789012";
    const PARENT: &str = "1234567890123456";

    fn extract(headers: &[(&str, &str)]) -> Option<TraceContext> {
        TraceContext::extract(|name| {
            let named = headers.iter().filter(move |(key, _)| *key == name);
            named.map(|(_, value)| value.as_bytes())
        })
    }

    fn parent(text: &str) -> Option<TraceContext> {
        extract(&[("traceparent", text)])
    }

    fn state(values: &[&str]) -> Option<String> {
        let traceparent = format!("00-{TRACE}-{PARENT}-00");
        let mut headers = vec![("traceparent", traceparent.as_str())];
        headers.extend(values.iter().map(|value| ("tracestate", *value)));
        extract(&headers).expect("a valid traceparent").state.map(String::from)
    }

    #[test]
    fn a_traceparent_reads_back() {
        for flags in ["00", "01", "02", "03"] {
            let text = format!("00-{TRACE}-{PARENT}-{flags}");
            assert_eq!(parent(&text).expect("valid").to_string(), text);
        }
        let context = parent(&format!(" \t00-{TRACE}-{PARENT}-ff\t ")).expect("valid");
        assert_eq!(context.to_string(), format!("00-{TRACE}-{PARENT}-03"), "unknown flags are not passed on");
    }

    #[test]
    fn invalid_traceparents_are_as_if_absent() {
        for bad in [
            "",
            &format!("00-{TRACE}-{PARENT}-01."),
            &format!("00-{TRACE}-{PARENT}-01-and-more"),
            &format!("cc-{TRACE}-{PARENT}-01.and-more"),
            &format!("ff-{TRACE}-{PARENT}-01"),
            &format!(".0-{TRACE}-{PARENT}-01"),
            &format!("0-{TRACE}-{PARENT}-01"),
            &format!("000-{TRACE}-{PARENT}-01"),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-00000000000000000000000000000000-{PARENT}-01"),
            &format!("00-{TRACE}1-{PARENT}-01"),
            &format!("00-{}-{PARENT}-01", &TRACE[1..]),
            &format!("00-{}A-{PARENT}-01", &TRACE[1..]),
            &format!("00-{TRACE}-{PARENT}-1"),
            &format!("00-{TRACE}-{PARENT}-0g"),
            &format!("00-{TRACE}-{PARENT}-001"),
            &format!("00_{TRACE}_{PARENT}_01"),
            &format!("00-{TRACE}-{}é-01", &PARENT[2..]),
        ] {
            assert_eq!(parent(bad), None, "{bad:?}");
        }
        let text = format!("00-{TRACE}-{PARENT}-01");
        assert_eq!(extract(&[("traceparent", &text), ("traceparent", &text)]), None, "sent twice");
    }

    #[test]
    fn later_versions_may_be_longer_and_go_out_as_ours() {
        for text in [format!("cc-{TRACE}-{PARENT}-01"), format!("cc-{TRACE}-{PARENT}-01-what-comes")] {
            assert_eq!(parent(&text).expect("valid").to_string(), format!("00-{TRACE}-{PARENT}-01"));
        }
    }

    #[test]
    fn tracestate_is_combined_in_order_and_trimmed() {
        let kept = |values: &[&str]| state(values).expect("valid");
        assert_eq!(kept(&["foo=1 \t , \t bar=2,baz=3\t"]), "foo=1,bar=2,baz=3");
        assert_eq!(kept(&["foo=1,bar=2", "", "rojo=1 , ,congo=2"]), "foo=1,bar=2,rojo=1,congo=2");
        assert_eq!(kept(&["0a/b*c-d_e@sys= !\"~"]), "0a/b*c-d_e@sys= !\"~");
        assert_eq!(state(&[""]), None);
        assert_eq!(extract(&[("tracestate", "foo=1")]), None, "worth nothing without a traceparent");
    }

    #[test]
    fn a_tracestate_that_breaks_a_rule_is_dropped_whole() {
        for bad in [
            "foo=1,foo=2",
            "foo =1",
            "FOO=1",
            "foo.bar=1",
            "foo@=1,bar=2",
            "@foo=1,bar=2",
            "foo@@bar=1,bar=2",
            "foo@bar@baz=1,bar=2",
            "foo=bar=baz",
            "foo=,bar=3",
            "foo",
            "foo=é",
        ] {
            assert_eq!(state(&[bad]), None, "{bad}");
        }
        assert_eq!(state(&["foo=1", "foo=1"]), None);
    }

    #[test]
    fn tracestate_limits_are_exact() {
        let members = |count| (0..count).map(|n| format!("k{n}=1")).collect::<Vec<_>>().join(",");
        assert!(state(&[&members(32)]).is_some());
        assert!(state(&[&members(33)]).is_none());
        for (key, valid) in [
            ("z".repeat(256), true),
            ("z".repeat(257), false),
            (format!("{}@{}", "t".repeat(241), "v".repeat(14)), true),
            (format!("{}@v", "t".repeat(242)), false),
            (format!("t@{}", "v".repeat(15)), false),
            ("t@0v".to_owned(), false),
        ] {
            assert_eq!(state(&[&format!("{key}=1")]).is_some(), valid, "{key}");
        }
        assert!(state(&[&format!("a={}", "v".repeat(256))]).is_some());
        assert!(state(&[&format!("a={}", "v".repeat(257))]).is_none());
    }

    #[test]
    fn b3_is_read_in_both_forms() {
        let expected = |sampled: &str| format!("00-{TRACE}-{PARENT}-{sampled}");
        let single = |text: &str| extract(&[("b3", text)]).map(|context| context.to_string());
        for (tail, flags) in
            [("", "01"), ("-1", "01"), ("-d", "01"), ("-0", "00"), ("-1-05e3ac9a4f6e3b90", "01")]
        {
            assert_eq!(single(&format!("{TRACE}-{PARENT}{tail}")), Some(expected(flags)), "{tail}");
        }
        for bad in ["0", "1", "d", "", &format!("{TRACE}-{PARENT}-1-x"), &format!("{TRACE}-1")] {
            assert_eq!(single(bad), None, "{bad}");
        }
        let multi = |more: &[(&str, &str)]| {
            let mut headers = vec![("x-b3-traceid", TRACE), ("x-b3-spanid", PARENT)];
            headers.extend(more);
            extract(&headers).map(|context| context.to_string())
        };
        assert_eq!(multi(&[]), Some(expected("01")));
        assert_eq!(multi(&[("x-b3-sampled", "0")]), Some(expected("00")));
        assert_eq!(multi(&[("x-b3-sampled", "0"), ("x-b3-flags", "1")]), Some(expected("01")));
        let short = extract(&[("x-b3-traceid", "463AC35C9F6413AD"), ("x-b3-spanid", PARENT)]).expect("valid");
        assert_eq!(short.trace_id.to_string(), "0000000000000000463ac35c9f6413ad");
    }

    #[test]
    fn a_b3_decision_without_ids_is_taken_for_the_trace_that_begins() {
        let sampled = |headers: &[(&str, &str)]| {
            assert_eq!(extract(headers), None, "{headers:?}");
            let begun = TraceContext::begin(TraceId::from_parts(1, 2), SpanId::from_random(3), |name| {
                let named = headers.iter().filter(move |(key, _)| *key == name);
                named.map(|(_, value)| value.as_bytes())
            });
            begun.sampled
        };
        for denied in ["0", " 0 "] {
            assert!(!sampled(&[("b3", denied)]));
            assert!(!sampled(&[("x-b3-sampled", denied)]));
        }
        assert!(!sampled(&[("x-b3-sampled", "false")]));
        assert!(sampled(&[]));
        assert!(sampled(&[("b3", "1")]) && sampled(&[("b3", "d")]) && sampled(&[("b3", "nonsense")]));
        assert!(sampled(&[("x-b3-sampled", "1")]));
        assert!(sampled(&[("x-b3-sampled", "0"), ("x-b3-flags", "1")]), "debug overrides");
        assert!(sampled(&[("b3", "1"), ("x-b3-sampled", "0")]), "the single header wins");
        assert!(sampled(&[("b3", "0"), ("b3", "0")]), "sent twice, it is invalid");
    }

    #[test]
    fn jaeger_ids_may_be_short_and_escaped() {
        for text in ["abc:1:0:1", "abc%3A1%3A0%3a1"] {
            let context = extract(&[("uber-trace-id", text)]).expect("valid");
            assert_eq!(context.to_string(), "00-00000000000000000000000000000abc-0000000000000001-01");
        }
        for bad in ["abc:1:0", "0:1:0:1", "abc:0:0:1", "abc:1:0:1:2", "xyz:1:0:1"] {
            assert_eq!(extract(&[("uber-trace-id", bad)]), None, "{bad}");
        }
    }

    #[test]
    fn traceparent_wins_over_b3_and_that_over_jaeger() {
        let traceparent = format!("00-{TRACE}-{PARENT}-00");
        let b3 = format!("{}-{PARENT}-1", "b".repeat(32));
        let all = [("uber-trace-id", "abc:1:0:1"), ("b3", b3.as_str()), ("traceparent", &traceparent)];
        assert_eq!(extract(&all).expect("valid").trace_id.to_string(), TRACE);
        assert_eq!(extract(&all[..2]).expect("valid").trace_id.to_string(), "b".repeat(32));
        assert!(extract(&all[..1]).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_header_text_is_safe(value in ".{0,80}", name in 0..6usize) {
            let names = ["traceparent", "b3", "x-b3-traceid", "uber-trace-id", "tracestate", "x-b3-spanid"];
            let _ = extract(&[(names[name], value.as_str())]);
            let _ = state(&[value.as_str()]);
        }
    }
}
