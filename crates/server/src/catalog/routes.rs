//! The route table: one radix tree per verb, immutable once built.
//!
//! Paths are matched after one normalisation ([`normal_path`]): everything percent-decoded
//! except `%2F` and `%25`, so that an escaped slash never becomes a separator. When both a
//! verb's tree and the any-verb tree know the path, the more specific pattern wins, and the
//! named verb between equals. A path that only other verbs know answers with those.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use fp_core::EventType;
use fp_core::event::{PathPattern, Segment, Verb};

use super::{Deployed, Matched, Route};

/// Why an event type cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} conflicts with {present} of function {function:?}: both match the same paths; use the same pattern or another path"
)]
pub(crate) struct Conflict {
    pub(crate) wanted: String,
    pub(crate) present: String,
    pub(crate) function: String,
}

/// Why a path cannot be routed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path is not UTF-8 once percent-decoded, or has a broken % escape; escape it again")]
pub struct BadPath;

#[derive(Debug, Clone)]
struct Entry {
    pattern: PathPattern,
    event_type: Arc<str>,
    functions: Arc<[Arc<Deployed>]>,
}

/// Routes of one tenant.
#[derive(Debug, Clone, Default)]
pub(crate) struct RouteTable {
    by_verb: BTreeMap<String, matchit::Router<Entry>>,
    any_verb: matchit::Router<Entry>,
    patterns: Vec<String>,
}

impl RouteTable {
    /// Builds the table of these functions, which come in order of creation.
    pub(crate) fn build<'a>(functions: impl Iterator<Item = &'a Arc<Deployed>>) -> Result<Self, Conflict> {
        let mut by_event: BTreeMap<&EventType, Vec<Arc<Deployed>>> = BTreeMap::new();
        for function in functions {
            for event in &function.events {
                let sharing = by_event.entry(event).or_default();
                if !sharing.iter().any(|other| other.name == function.name) {
                    sharing.push(function.clone());
                }
            }
        }
        let mut table = Self::default();
        for (event, mut functions) in by_event {
            functions.sort_by_key(|function| function.order);
            table.insert(event, functions.into())?;
        }
        Ok(table)
    }

    fn insert(&mut self, event: &EventType, functions: Arc<[Arc<Deployed>]>) -> Result<(), Conflict> {
        let EventType::Http { verb, path } = event;
        let router = match verb {
            Verb::Any => &mut self.any_verb,
            Verb::Exactly(verb) => self.by_verb.entry(verb.clone()).or_default(),
        };
        let entry = Entry { pattern: path.clone(), event_type: event.to_string().into(), functions };
        let newcomer = entry.functions[0].name.to_string();
        if router.insert(matchit_pattern(path), entry).is_err() {
            let present = self.patterns.iter().find(|known| overlaps(known, event));
            return Err(Conflict {
                wanted: event.to_string(),
                present: present.cloned().unwrap_or_else(|| event.to_string()),
                function: newcomer,
            });
        }
        self.patterns.push(event.to_string());
        Ok(())
    }

    /// What a verb and a normalised path lead to. HEAD falls back to GET.
    pub(crate) fn find(&self, verb: &str, normal: &str) -> Route {
        let found = self.find_verb(verb, normal);
        let found = if found.is_none() && verb == "HEAD" { self.find_verb("GET", normal) } else { found };
        if let Some(matched) = found {
            return Route::Found(matched);
        }
        let mut others: Vec<String> = self
            .by_verb
            .iter()
            .filter(|(_, router)| router.at(normal).is_ok())
            .map(|(verb, _)| verb.clone())
            .collect();
        if others.is_empty() {
            return Route::Nothing { near: self.near(normal) };
        }
        if others.iter().any(|verb| verb == "GET") && !others.iter().any(|verb| verb == "HEAD") {
            others.push("HEAD".into());
            others.sort_unstable();
        }
        Route::OtherVerbs(others)
    }

    fn find_verb(&self, verb: &str, normal: &str) -> Option<Matched> {
        let exact = self.by_verb.get(verb).and_then(|router| router.at(normal).ok());
        let any = self.any_verb.at(normal).ok();
        let best = match (exact, any) {
            (Some(exact), Some(any)) if any.value.pattern < exact.value.pattern => any,
            (Some(exact), _) => exact,
            (None, any) => any?,
        };
        Some(Matched {
            event_type: best.value.event_type.clone(),
            functions: best.value.functions.clone(),
            params: best
                .params
                .iter()
                .map(|(name, value)| (name.to_owned(), finish_decoding(value).into_owned()))
                .collect(),
        })
    }

    /// Up to three event types that share the longest beginning with the path.
    fn near(&self, normal: &str) -> Vec<String> {
        let shared = |known: &str| {
            let path = known.splitn(3, '|').nth(2).unwrap_or_default();
            path.bytes().zip(normal.bytes()).take_while(|(a, b)| a == b).count()
        };
        let mut ranked: Vec<_> = self.patterns.iter().map(|known| (shared(known), known)).collect();
        ranked.retain(|(shared, _)| *shared > 1);
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        ranked.into_iter().take(3).map(|(_, known)| known.clone()).collect()
    }
}

fn matchit_pattern(path: &PathPattern) -> String {
    let mut text = String::new();
    for segment in path.segments() {
        text.push('/');
        match segment {
            Segment::Literal(literal) => text.push_str(&escape_literal(literal)),
            Segment::Param(name) => text.push_str(&format!("{{{name}}}")),
            Segment::Rest(name) => text.push_str(&format!("{{*{name}}}")),
        }
    }
    text
}

/// A decoded literal in the normal form of paths: its own `%` as `%25`, braces doubled for the router.
fn escape_literal(literal: &str) -> String {
    literal.replace('%', "%25").replace('{', "{{").replace('}', "}}")
}

/// Whether an event type that is in the table matches paths that the other one would, too.
fn overlaps(known: &str, wanted: &EventType) -> bool {
    let Ok(EventType::Http { verb: known_verb, path: known }) = known.parse::<EventType>() else {
        return false;
    };
    let EventType::Http { verb, path } = wanted;
    let same_shape = known.segments().iter().zip(path.segments()).all(|(a, b)| match (a, b) {
        (Segment::Literal(a), Segment::Literal(b)) => a == b,
        (Segment::Param(_), Segment::Param(_)) | (Segment::Rest(_), _) | (_, Segment::Rest(_)) => true,
        _ => false,
    });
    known_verb == *verb && same_shape
}

/// The form in which paths are matched: percent-decoded but for `%2F` and `%25`.
pub(crate) fn normal_path(raw: &str) -> Result<Cow<'_, str>, BadPath> {
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).filter(|two| two.iter().all(u8::is_ascii_hexdigit)).ok_or(BadPath)?;
        let code =
            u8::from_str_radix(std::str::from_utf8(digits).map_err(|_| BadPath)?, 16).map_err(|_| BadPath)?;
        match code {
            b'/' => bytes.extend_from_slice(b"%2F"),
            b'%' => bytes.extend_from_slice(b"%25"),
            code => bytes.push(code),
        }
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| BadPath)
}

/// Decodes the two escapes that [`normal_path`] left.
pub(crate) fn finish_decoding(normal: &str) -> Cow<'_, str> {
    if !normal.contains('%') {
        return Cow::Borrowed(normal);
    }
    Cow::Owned(normal.replace("%2F", "/").replace("%25", "%"))
}
