//! Event types: the string keys that bind functions to what calls them.
//!
//! `http|GET|/api/cats/{id}`: a kind, a verb (or `*`) and a path pattern. Literals are kept
//! percent-decoded, so that `/caf%C3%A9` and `/café` are one route. Which pattern wins for a
//! path is decided by [`PathPattern`]'s order: literal before `{param}` before `{*rest}`,
//! segment by segment. Matching itself is [`route`](crate::route)'s.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest event type, in bytes: a path of the usual 8 KiB header limit would be more than
/// anybody can read in a list.
pub const MAX_EVENT_LEN: usize = 1024;

/// Why a piece of text is not an event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not `kind|…`.
    #[error("event type {text:?} has no kind; write it as http|VERB|/path")]
    Shape {
        /// What was given.
        text: String,
    },
    /// A kind that a later release may have.
    #[error("event kind {kind:?} is not built yet; the only kind so far is http|VERB|/path")]
    Kind {
        /// The kind that was given.
        kind: String,
    },
    /// A verb that is not an HTTP token.
    #[error("{verb:?} is not an HTTP verb; use GET, POST, PUT, … or * for any")]
    Verb {
        /// The verb that was given.
        verb: String,
    },
    /// A path pattern that cannot be matched.
    #[error("path {path:?} {fault}")]
    Path {
        /// The path that was given.
        path: String,
        /// What is wrong with it and what to do.
        fault: &'static str,
    },
}

/// The verb of an HTTP event type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// One verb, in upper case.
    Exactly(String),
    /// `*`: every verb that no function names.
    Any,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exactly(verb) => verb,
            Self::Any => "*",
        })
    }
}

/// One segment of a path pattern; the order is from most to least specific.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Text that must be there, percent-decoded.
    Literal(String),
    /// `{name}`: exactly one non-empty segment.
    Param(String),
    /// `{*name}`: everything that is left, at least one byte, without the leading slash.
    Rest(String),
}

/// A path pattern such as `/static/{*rest}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern {
    segments: Vec<Segment>,
}

impl PathPattern {
    /// The segments after the leading slash; `/` is one empty literal.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Param(name) => write!(f, "/{{{name}}}")?,
                Segment::Rest(name) => write!(f, "/{{*{name}}}")?,
            }
        }
        Ok(())
    }
}

/// What calls a function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// `http|VERB|/path`.
    Http {
        /// Which verb.
        verb: Verb,
        /// Which paths.
        path: PathPattern,
    },
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { verb, path } => write!(f, "http|{verb}|{path}"),
        }
    }
}

impl FromStr for EventType {
    type Err = EventError;
    fn from_str(text: &str) -> Result<Self, EventError> {
        let Some((kind, rest)) = text.split_once('|') else {
            return Err(EventError::Shape { text: text.into() });
        };
        if kind != "http" {
            return Err(EventError::Kind { kind: kind.into() });
        }
        let Some((verb, path)) = rest.split_once('|') else {
            return Err(EventError::Shape { text: text.into() });
        };
        Ok(Self::Http { verb: parse_verb(verb)?, path: path.parse()? })
    }
}

fn parse_verb(text: &str) -> Result<Verb, EventError> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    match text {
        "*" => Ok(Verb::Any),
        _ if !text.is_empty() && text.len() <= 32 && text.bytes().all(is_token) => {
            Ok(Verb::Exactly(text.to_ascii_uppercase()))
        }
        _ => Err(EventError::Verb { verb: text.into() }),
    }
}

impl FromStr for PathPattern {
    type Err = EventError;
    fn from_str(text: &str) -> Result<Self, EventError> {
        let fault = |fault| EventError::Path { path: text.into(), fault };
        if text.len() > MAX_EVENT_LEN {
            return Err(fault("is longer than 1024 bytes; shorten it"));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(fault("does not begin with /"));
        };
        if text == "/t" || text.starts_with("/t/") {
            return Err(fault("begins with /t/, which is reserved for tenants; choose another"));
        }
        if text.bytes().any(|b| b.is_ascii_control() || b == b' ' || b == b'?' || b == b'#') {
            return Err(fault("holds a space, ?, # or a control character; leave the query string out"));
        }
        let mut segments = Vec::new();
        for part in rest.split('/') {
            if matches!(segments.last(), Some(Segment::Rest(_))) {
                return Err(fault("goes on after {*…}, which takes all that is left"));
            }
            segments.push(parse_segment(part).map_err(fault)?);
        }
        let mut names: Vec<_> = segments.iter().filter_map(segment_name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(fault("names one parameter twice"));
        }
        Ok(Self { segments })
    }
}

fn segment_name(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Literal(_) => None,
        Segment::Param(name) | Segment::Rest(name) => Some(name),
    }
}

fn parse_segment(part: &str) -> Result<Segment, &'static str> {
    let Some(inner) = part.strip_prefix('{').and_then(|open| open.strip_suffix('}')) else {
        if part.contains(['{', '}']) {
            return Err("has a { } that is not a whole segment; write /{name}/");
        }
        return decode_percent(part).map(Segment::Literal);
    };
    let (name, rest) = match inner.strip_prefix('*') {
        Some(name) => (name, true),
        None => (inner, false),
    };
    let is_identifier = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if !is_identifier {
        return Err("has a parameter whose name is not a letter followed by letters, digits or _");
    }
    Ok(if rest { Segment::Rest(name.into()) } else { Segment::Param(name.into()) })
}

fn decode_percent(part: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let code = part_of_escape(tail).ok_or("has a % that is not followed by two hexadecimal digits")?;
        if code == b'/' {
            return Err("holds %2F; a literal segment cannot contain a slash");
        }
        bytes.push(code);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 once percent-decoded")
}

fn part_of_escape(tail: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
    let hexadecimal = digits.bytes().all(|b| b.is_ascii_hexdigit());
    hexadecimal.then(|| u8::from_str_radix(digits, 16).ok())?
}

impl Serialize for EventType {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_read_back_in_their_normal_form() {
        for (text, normal) in [
            ("http|get|/api/cats", "http|GET|/api/cats"),
            ("http|*|/", "http|*|/"),
            ("http|POST|/thumbs/{id}/", "http|POST|/thumbs/{id}/"),
            ("http|GET|/static/{*rest}", "http|GET|/static/{*rest}"),
            ("http|GET|/caf%C3%A9", "http|GET|/café"),
        ] {
            assert_eq!(text.parse::<EventType>().expect(text).to_string(), normal);
        }
    }

    #[test]
    fn faults_are_named() {
        for bad in [
            "http|GET|api",
            "http|GET|/t/x",
            "http|GET|/a b",
            "http|GET|/{*rest}/x",
            "http|GET|/{a}/{a}",
            "http|GET|/a{b}",
            "http|GET|/{1}",
            "http|GET|/%zz",
            "http|GET|/a%2Fb",
            "http|GET|/%ff",
            "http|GET|/a?b",
        ] {
            assert!(matches!(bad.parse::<EventType>(), Err(EventError::Path { .. })), "{bad}");
        }
        assert!(matches!("cron|* * * * *".parse::<EventType>(), Err(EventError::Kind { .. })));
        assert!(matches!("http|G T|/".parse::<EventType>(), Err(EventError::Verb { .. })));
        assert!(matches!("http".parse::<EventType>(), Err(EventError::Shape { .. })));
    }

    #[test]
    fn literals_are_more_specific_than_parameters_and_those_than_the_rest() {
        let pattern = |text: &str| text.parse::<PathPattern>().expect(text);
        assert!(pattern("/a/b") < pattern("/a/{x}"));
        assert!(pattern("/a/{x}") < pattern("/a/{*x}"));
        assert!(pattern("/a/{x}/c") < pattern("/{y}/b/c"));
    }
}
