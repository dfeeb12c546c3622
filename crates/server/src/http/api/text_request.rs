//! A request as text: the body of the routes that run functions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fp_core::code::Code;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::listener::MAX_HEAD_BYTES;
use crate::http::problem::Problem;

/// A request as text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "http_verb": "POST",
    "http_path": "/api/cats?colour=black",
    "http_header": "Content-Type: application/json\nX-Correlation-Id: nightly-7",
    "http_body": "{\"arg\": 21}",
}))]
pub(in crate::http) struct TextRequest {
    /// The verb, in any case.
    #[schema(pattern = "^[A-Za-z-]{1,32}$", example = "POST")]
    http_verb: String,
    /// The path, with a query string if there is one; escapes must be UTF-8.
    #[schema(
        pattern = r"^/([^%#\s\x00-\x1f\x7f]|%[0-7][0-9A-Fa-f]|%([Cc][2-9A-Fa-f]|[Dd][0-9A-Fa-f])%[89ABab][0-9A-Fa-f]|%[Ee]0%[ABab][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]|%[Ee][Dd]%[89][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]|%[Ee][1-9A-Ca-cEeFf](%[89ABab][0-9A-Fa-f]){2}|%[Ff]0%[9ABab][0-9A-Fa-f](%[89ABab][0-9A-Fa-f]){2}|%[Ff][1-3](%[89ABab][0-9A-Fa-f]){3}|%[Ff]4%8[0-9A-Fa-f](%[89ABab][0-9A-Fa-f]){2})*$",
        example = "/api/cats"
    )]
    http_path: String,
    /// Header lines, `Name: value`; lines without `: ` are ignored.
    #[serde(default)]
    #[schema(default = "")]
    http_header: String,
    /// The body: text is passed on as it is, other JSON as its text. In the background, of an
    /// object whose only key is `body` that value is taken.
    #[serde(default)]
    #[schema(value_type = Value, default = "")]
    http_body: Value,
    /// The body where it is not text, in base64; instead of `http_body`.
    #[serde(default)]
    #[schema(value_type = Option<String>, nullable = false, format = Byte)]
    http_body_base64: Option<String>,
}

impl TextRequest {
    /// The request's head and body; `unwrap` as the background route does.
    pub(in crate::http) fn into_parts(self, unwrap: bool) -> Result<(Parts, Bytes), Problem> {
        let wrong = |field: &str, detail: String| Problem::new(Code::Unprocessable, detail).field(field);
        if !self.http_path.starts_with('/') {
            return Err(wrong("http_path", format!("path {:?} does not begin with /", self.http_path)));
        }
        let verb = Method::from_bytes(self.http_verb.to_ascii_uppercase().as_bytes())
            .map_err(|_| wrong("http_verb", format!("{:?} is not an HTTP verb", self.http_verb)))?;
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = verb;
        parts.uri = self
            .http_path
            .parse()
            .map_err(|error| wrong("http_path", format!("path {:?}: {error}; escape it", self.http_path)))?;
        if self.http_header.len() > MAX_HEAD_BYTES {
            let length = self.http_header.len();
            let detail =
                format!("the header lines are {length} bytes, the most is {MAX_HEAD_BYTES}; send fewer");
            return Err(wrong("http_header", detail));
        }
        parts.headers = header_lines(&self.http_header);
        let body = match (self.http_body_base64, unwrap) {
            (Some(text), _) => STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|error| wrong("http_body_base64", format!("the text is not base64: {error}")))?,
            (None, true) => unwrapped_bytes(self.http_body),
            (None, false) => value_bytes(self.http_body),
        };
        Ok((parts, body))
    }
}

/// `Name: value` lines; anything else, such as a request line, is passed over.
fn header_lines(text: &str) -> HeaderMap {
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    let sendable = pairs.filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?))
    });
    sendable.fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    })
}

/// The body, with what is in an object whose only key is `body` taken out of it.
fn unwrapped_bytes(body: Value) -> Bytes {
    match body {
        Value::Null => Bytes::new(),
        Value::String(text) => match serde_json::from_str::<Value>(&text).ok().and_then(only_body) {
            Some(inner) => value_bytes(inner),
            None => Bytes::from(text),
        },
        other => match only_body(other.clone()) {
            Some(inner) => value_bytes(inner),
            None => value_bytes(other),
        },
    }
}

/// The value of an object whose only key is `body`.
fn only_body(value: Value) -> Option<Value> {
    match value {
        Value::Object(mut object) if object.len() == 1 => object.remove("body"),
        _ => None,
    }
}

fn value_bytes(value: Value) -> Bytes {
    match value {
        Value::Null => Bytes::new(),
        Value::String(text) => Bytes::from(text),
        other => Bytes::from(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_without_a_colon_and_a_space_are_ignored() {
        let lines =
            header_lines("GET / HTTP/1.1\r\nAccept: */*\r\nnonsense\r\nX-A:1\nbad name: 1\nX-B: a: b");
        let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(lines, [("accept", &b"*/*"[..]), ("x-b", b"a: b")]);
    }

    #[test]
    fn an_object_whose_only_key_is_body_is_unwrapped() {
        let cases = [
            (serde_json::json!("plain"), "plain"),
            (serde_json::json!("{\"arg\": 21}"), "{\"arg\": 21}"),
            (serde_json::json!("{\"body\": {\"arg\": 21}}"), "{\"arg\":21}"),
            (serde_json::json!({"body": "text"}), "text"),
            (serde_json::json!({"body": 1, "other": 2}), "{\"body\":1,\"other\":2}"),
            (serde_json::json!({"arg": 21}), "{\"arg\":21}"),
            (serde_json::json!(null), ""),
            (serde_json::json!(4), "4"),
        ];
        for (given, expected) in cases {
            assert_eq!(unwrapped_bytes(given), expected);
        }
    }
}
