//! The route table: which functions answer a verb and a path.
//!
//! A tree by segments, immutable once built. At each step a literal is tried before `{param}`,
//! that before `{*rest}`; at the end of a path the named verb comes before `*`. A pattern that
//! has no function for the verb is passed over, so a less specific one that has may answer; only
//! if none has is it "other verbs". Each node is visited at most once per path, so a look-up is
//! bounded by the size of the table whatever the patterns are.
//!
//! Paths are matched after one normalisation ([`normal_path`]): everything percent-decoded
//! except `%2F` and `%25`, so that an escaped slash never becomes a separator.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{EventType, PathPattern, Segment, Verb};
use crate::ids::FunctionName;

/// Why an event type cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} of function {function} conflicts with {present}: both match the same paths; use the same pattern or another path"
)]
pub struct Conflict {
    /// The event type that was to be added.
    pub wanted: String,
    /// The one that is there.
    pub present: String,
    /// The newest of the functions that wanted it.
    pub function: String,
}

/// A path that cannot be routed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path is not UTF-8 once percent-decoded, or has a broken % escape; escape it again")]
pub struct BadPath;

/// What the table must know of a function.
#[derive(Debug)]
pub struct Routed<'a, F> {
    /// Its name.
    pub name: &'a FunctionName,
    /// What calls it.
    pub events: &'a [EventType],
    /// What a look-up gives back.
    pub function: F,
}

/// What a verb and a path lead to.
#[derive(Debug)]
pub enum Route<F> {
    /// These functions, with the matched pattern's parameters.
    Found(Matched<F>),
    /// The path is known, with other verbs (sorted).
    OtherVerbs(Vec<String>),
    /// Nothing here.
    Nothing {
        /// Up to three event types that are near.
        near: Vec<String>,
    },
}

/// A route that was found.
#[derive(Debug)]
pub struct Matched<F> {
    /// The event type that matched, as text.
    pub event_type: Arc<str>,
    /// Whose it is, first created first; never empty.
    pub functions: Arc<[F]>,
    /// Percent-decoded parameters, in the order of the pattern.
    pub params: Vec<(String, String)>,
}

#[derive(Debug)]
struct Entry<F> {
    pattern: PathPattern,
    event_type: Arc<str>,
    functions: Arc<[F]>,
}

#[derive(Debug)]
struct Node<F> {
    literals: BTreeMap<String, Node<F>>,
    param: Option<Box<Node<F>>>,
    /// Patterns that end here, by verb.
    here: BTreeMap<Verb, Entry<F>>,
    /// Patterns that end in `{*rest}` here, by verb.
    rest: BTreeMap<Verb, Entry<F>>,
}

impl<F> Default for Node<F> {
    fn default() -> Self {
        Self { literals: BTreeMap::new(), param: None, here: BTreeMap::new(), rest: BTreeMap::new() }
    }
}

/// Routes of one tenant.
#[derive(Debug)]
pub struct RouteTable<F> {
    root: Node<F>,
    event_types: Vec<Arc<str>>,
}

impl<F> Default for RouteTable<F> {
    fn default() -> Self {
        Self { root: Node::default(), event_types: Vec::new() }
    }
}

impl<F: Clone> RouteTable<F> {
    /// Builds the table of these functions, which come in order of creation.
    pub fn build<'a>(functions: impl Iterator<Item = Routed<'a, F>>) -> Result<Self, Conflict> {
        let mut by_event: BTreeMap<&EventType, Vec<(&FunctionName, F)>> = BTreeMap::new();
        for Routed { name, events, function } in functions {
            for event in events {
                let sharing = by_event.entry(event).or_default();
                if !sharing.iter().any(|(other, _)| *other == name) {
                    sharing.push((name, function.clone()));
                }
            }
        }
        let mut table = Self::default();
        for (event, sharing) in by_event {
            let newest = sharing.last().map(|(name, _)| name.to_string()).unwrap_or_default();
            let functions = sharing.into_iter().map(|(_, function)| function).collect();
            table.insert(event, functions, newest)?;
        }
        Ok(table)
    }

    fn insert(&mut self, event: &EventType, functions: Arc<[F]>, newest: String) -> Result<(), Conflict> {
        let EventType::Http { verb, path } = event;
        let mut node = &mut self.root;
        let mut ends_in_rest = false;
        for segment in path.segments() {
            match segment {
                Segment::Literal(literal) => {
                    node = node.literals.entry(literal.replace('%', "%25")).or_default();
                }
                Segment::Param(_) => node = node.param.get_or_insert_with(Default::default),
                Segment::Rest(_) => ends_in_rest = true,
            }
        }
        let ends = if ends_in_rest { &mut node.rest } else { &mut node.here };
        let event_type: Arc<str> = event.to_string().into();
        if let Some(present) = ends.get(verb) {
            let (wanted, present) = (event_type.to_string(), present.event_type.to_string());
            return Err(Conflict { wanted, present, function: newest });
        }
        self.event_types.push(event_type.clone());
        ends.insert(verb.clone(), Entry { pattern: path.clone(), event_type, functions });
        Ok(())
    }

    /// What a verb and a normalised path lead to. HEAD falls back to GET.
    pub fn find(&self, verb: &str, normal: &str) -> Route<F> {
        let Some(path) = normal.strip_prefix('/') else { return Route::Nothing { near: Vec::new() } };
        let fallback = (verb == "HEAD").then(|| Verb::Exactly("GET".to_owned()));
        let verb = Verb::Exactly(verb.to_owned());
        let mut search = Search { verb, fallback, captured: Vec::new(), others: Vec::new() };
        match search.walk(&self.root, path) {
            Some(entry) => Route::Found(search.matched(entry)),
            None if search.others.is_empty() => Route::Nothing { near: self.near(normal) },
            None => Route::OtherVerbs(search.other_verbs()),
        }
    }

    /// Up to three event types that share the longest beginning with the path.
    fn near(&self, normal: &str) -> Vec<String> {
        let shared = |known: &str| {
            let path = known.splitn(3, '|').nth(2).unwrap_or_default();
            path.bytes().zip(normal.bytes()).take_while(|(a, b)| a == b).count()
        };
        let mut ranked: Vec<_> = self.event_types.iter().map(|known| (shared(known), known)).collect();
        ranked.retain(|(shared, _)| *shared > 1);
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        ranked.into_iter().take(3).map(|(_, known)| known.to_string()).collect()
    }
}

/// One look-up.
struct Search<'a> {
    verb: Verb,
    /// GET for HEAD.
    fallback: Option<Verb>,
    captured: Vec<&'a str>,
    /// Verbs of patterns that match the path and not the verb.
    others: Vec<Verb>,
}

impl<'a> Search<'a> {
    fn walk<'n, F>(&mut self, node: &'n Node<F>, path: &'a str) -> Option<&'n Entry<F>> {
        let (segment, left) = match path.split_once('/') {
            Some((segment, left)) => (segment, Some(left)),
            None => (path, None),
        };
        if let Some(child) = node.literals.get(segment)
            && let Some(entry) = self.go_on(child, left)
        {
            return Some(entry);
        }
        if let Some(child) = node.param.as_deref().filter(|_| !segment.is_empty()) {
            self.captured.push(segment);
            if let Some(entry) = self.go_on(child, left) {
                return Some(entry);
            }
            self.captured.pop();
        }
        if path.is_empty() {
            return None;
        }
        let entry = self.choose(&node.rest)?;
        self.captured.push(path);
        Some(entry)
    }

    fn go_on<'n, F>(&mut self, child: &'n Node<F>, left: Option<&'a str>) -> Option<&'n Entry<F>> {
        match left {
            Some(left) => self.walk(child, left),
            None => self.choose(&child.here),
        }
    }

    fn choose<'n, F>(&mut self, ends: &'n BTreeMap<Verb, Entry<F>>) -> Option<&'n Entry<F>> {
        let chosen = ends
            .get(&self.verb)
            .or_else(|| self.fallback.as_ref().and_then(|fallback| ends.get(fallback)))
            .or_else(|| ends.get(&Verb::Any));
        if chosen.is_none() {
            self.others.extend(ends.keys().cloned());
        }
        chosen
    }

    fn matched<F: Clone>(self, entry: &Entry<F>) -> Matched<F> {
        let names = entry.pattern.segments().iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Param(name) | Segment::Rest(name) => Some(name.clone()),
        });
        let values = self.captured.iter().map(|value| finish_decoding(value).into_owned());
        Matched {
            event_type: entry.event_type.clone(),
            functions: entry.functions.clone(),
            params: names.zip(values).collect(),
        }
    }

    fn other_verbs(self) -> Vec<String> {
        let mut verbs: Vec<String> = self.others.iter().map(Verb::to_string).collect();
        if verbs.iter().any(|verb| verb == "GET") {
            verbs.push("HEAD".to_owned());
        }
        verbs.sort_unstable();
        verbs.dedup();
        verbs
    }
}

/// The form in which paths are matched: percent-decoded but for `%2F` and `%25`.
pub fn normal_path(raw: &str) -> Result<Cow<'_, str>, BadPath> {
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
pub fn finish_decoding(normal: &str) -> Cow<'_, str> {
    if !normal.contains('%') {
        return Cow::Borrowed(normal);
    }
    Cow::Owned(normal.replace("%2F", "/").replace("%25", "%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_normal_form() {
        for (raw, normal) in [
            ("/api/cats", "/api/cats"),
            ("/caf%C3%A9", "/café"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2Fb"),
            ("/100%25", "/100%25"),
            ("/%7Euser", "/~user"),
        ] {
            assert_eq!(normal_path(raw).as_deref(), Ok(normal), "{raw}");
        }
        for bad in ["/%", "/%4", "/%zz", "/%+1", "/%ff"] {
            assert_eq!(normal_path(bad), Err(BadPath), "{bad}");
        }
    }

    #[test]
    fn the_two_kept_escapes_are_told_apart_at_the_end() {
        let decoded = |raw: &str| finish_decoding(&normal_path(raw).expect(raw)).into_owned();
        assert_eq!(decoded("/a%2Fb"), "/a/b");
        assert_eq!(decoded("/a%252Fb"), "/a%2Fb");
        assert_eq!(decoded("/100%25"), "/100%");
    }

    fn table(functions: &[(&str, &[&str])]) -> Result<RouteTable<String>, Conflict> {
        let parsed: Vec<(FunctionName, Vec<EventType>)> = functions
            .iter()
            .map(|(name, events)| {
                let events = events.iter().map(|event| event.parse().expect(event)).collect();
                (name.parse().expect(name), events)
            })
            .collect();
        RouteTable::build(parsed.iter().map(|(name, events)| Routed {
            name,
            events,
            function: name.to_string(),
        }))
    }

    fn answer(table: &RouteTable<String>, verb: &str, path: &str) -> String {
        match table.find(verb, &normal_path(path).expect(path)) {
            Route::Found(Matched { functions, params, .. }) => {
                let params: String = params.iter().map(|(name, value)| format!(" {name}={value}")).collect();
                format!("{}{params}", functions.join("+"))
            }
            Route::OtherVerbs(verbs) => format!("405 {}", verbs.join(",")),
            Route::Nothing { .. } => "404".to_owned(),
        }
    }

    #[test]
    fn the_most_specific_pattern_answers() {
        let table = table(&[
            ("any", &["http|*|/x"]),
            ("get", &["http|GET|/x"]),
            ("rest", &["http|GET|/s/{*rest}"]),
            ("param", &["http|GET|/s/{id}", "http|POST|/s/{id}"]),
            ("literal", &["http|GET|/s/me"]),
            ("wild", &["http|*|/s/you"]),
            ("slash", &["http|GET|/s/me/"]),
        ])
        .expect("no conflict");
        for (verb, path, expected) in [
            ("GET", "/x", "get"),
            ("HEAD", "/x", "get"),
            ("PURGE", "/x", "any"),
            ("GET", "/s/me", "literal"),
            ("HEAD", "/s/me", "literal"),
            ("GET", "/s/you", "wild"),
            ("GET", "/s/a%2Fb", "param id=a/b"),
            ("GET", "/s/caf%C3%A9", "param id=café"),
            ("GET", "/s/a/b/c", "rest rest=a/b/c"),
            ("GET", "/s/me/", "slash"),
            ("POST", "/s/me", "param id=me"),
            ("PUT", "/s/me", "405 GET,HEAD,POST"),
            ("GET", "/s/", "404"),
            ("GET", "/nothing", "404"),
        ] {
            assert_eq!(answer(&table, verb, path), expected, "{verb} {path}");
        }
    }

    #[test]
    fn functions_of_one_event_type_share_it_in_order() {
        let table = table(&[("first", &["http|GET|/x"]), ("second", &["http|GET|/x", "http|GET|/x"])]);
        assert_eq!(answer(&table.expect("sharing is no conflict"), "GET", "/x"), "first+second");
    }

    #[test]
    fn patterns_that_match_the_same_paths_conflict_by_name() {
        let refused = table(&[("a", &["http|GET|/x/{id}"]), ("b", &["http|GET|/x/{name}"])]);
        let refused = refused.expect_err("one position, two names");
        assert!(
            refused.to_string().contains("/x/{id}") && refused.to_string().contains("/x/{name}"),
            "{refused}"
        );
        assert!(table(&[("a", &["http|GET|/x/{id}"]), ("b", &["http|POST|/x/{name}"])]).is_ok());
    }
}
