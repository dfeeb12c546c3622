//! The route table: which functions answer a verb and a path.
//!
//! A tree by segments that shares what it has with its earlier states. At each step a literal is tried before `{param}`,
//! that before `{*rest}`; at the end of a path the named verb comes before `*`. A pattern that
//! has no function for the verb is passed over, so a less specific one that has may answer; only
//! if none has is it "other verbs". Each node is visited at most once per path, so a look-up is
//! bounded by the size of the table whatever the patterns are.
//!
//! Paths are matched after one normalisation ([`normal_path`]): everything percent-decoded
//! except `%2F` and `%25`, so that an escaped slash never becomes a separator.

use std::borrow::Cow;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

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
    /// Its order of creation: functions of one event type answer in this order.
    pub order: u64,
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

/// Who shares an event type, first created first.
#[derive(Debug)]
struct Entry<F> {
    pattern: PathPattern,
    event_type: Arc<str>,
    owners: Vec<(u64, FunctionName)>,
    /// In the order of `owners`.
    functions: Arc<[F]>,
}

/// Patterns that end in one place, by verb; nearly always one, for which a map's node would take
/// more than all else of a function's routes.
#[derive(Debug, Clone)]
struct Ends<F>(Vec<(Verb, Arc<Entry<F>>)>);

impl<F> Ends<F> {
    fn get(&self, verb: &Verb) -> Option<&Arc<Entry<F>>> {
        self.0.iter().find(|(known, _)| known == verb).map(|(_, entry)| entry)
    }

    fn get_mut(&mut self, verb: &Verb) -> Option<&mut Arc<Entry<F>>> {
        self.0.iter_mut().find(|(known, _)| known == verb).map(|(_, entry)| entry)
    }

    fn add(&mut self, verb: Verb, entry: Entry<F>) {
        self.0.reserve_exact(1);
        self.0.push((verb, Arc::new(entry)));
    }

    fn remove(&mut self, verb: &Verb) -> Option<Arc<Entry<F>>> {
        let at = self.0.iter().position(|(known, _)| known == verb)?;
        Some(self.0.remove(at).1)
    }

    fn verbs(&self) -> impl Iterator<Item = &Verb> {
        self.0.iter().map(|(verb, _)| verb)
    }
}

#[derive(Debug, Clone)]
struct Node<F> {
    literals: RedBlackTreeMapSync<Arc<str>, Arc<Node<F>>>,
    param: Option<Arc<Node<F>>>,
    /// Patterns that end here.
    here: Ends<F>,
    /// Patterns that end in `{*rest}` here.
    rest: Ends<F>,
}

impl<F> Default for Node<F> {
    fn default() -> Self {
        let literals = RedBlackTreeMapSync::new_sync();
        Self { literals, param: None, here: Ends(Vec::new()), rest: Ends(Vec::new()) }
    }
}

impl<F> Node<F> {
    fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.param.is_none() && self.here.0.is_empty() && self.rest.0.is_empty()
    }
}

/// An event type in the order of its path, so that near ones are neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known(Arc<str>);

impl Known {
    fn path(&self) -> &str {
        self.0.splitn(3, '|').nth(2).unwrap_or_default()
    }
}

impl Ord for Known {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.path().cmp(other.path()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Known {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Routes of one tenant. A clone costs nothing and shares everything; a change copies only what is
/// on the way to it, so that it costs the same with ten functions and with ten thousand.
#[derive(Debug, Clone)]
pub struct RouteTable<F> {
    root: Arc<Node<F>>,
    known: RedBlackTreeMapSync<Known, ()>,
}

impl<F> Default for RouteTable<F> {
    fn default() -> Self {
        Self { root: Arc::default(), known: RedBlackTreeMapSync::new_sync() }
    }
}

/// How many near event types a path that leads nowhere is told.
const NEAR: usize = 3;

impl<F: Clone> RouteTable<F> {
    /// Builds the table of these functions.
    pub fn build<'a>(functions: impl Iterator<Item = Routed<'a, F>>) -> Result<Self, Conflict> {
        let mut table = Self::default();
        for function in functions {
            table.insert(&function)?;
        }
        Ok(table)
    }

    /// Adds a function that is not in the table. On a conflict a part of its event types may be
    /// there: the table is of no use then.
    pub fn insert(&mut self, function: &Routed<'_, F>) -> Result<(), Conflict> {
        function.events.iter().try_for_each(|event| self.join(event, function))
    }

    /// Takes a function out of its event types.
    pub fn remove(&mut self, name: &FunctionName, events: &[EventType]) {
        for event in events {
            let EventType::Http { verb, path } = event;
            if let Some(gone) = leave(&mut self.root, path.segments(), verb, name) {
                self.known.remove_mut(&Known(gone));
            }
        }
    }

    /// Whether a function with these event types could take the place of the one of its name.
    pub fn check(&self, name: &FunctionName, events: &[EventType]) -> Result<(), Conflict> {
        let mut own = RouteTable::default();
        own.insert(&Routed { name, order: 0, events, function: () })?;
        for event in events {
            let others = |entry: &&Arc<Entry<F>>| entry.owners.iter().any(|(_, owner)| owner != name);
            let wanted = event.to_string();
            if let Some(present) = self.entry_at(event).filter(others)
                && *present.event_type != *wanted
            {
                return Err(Conflict {
                    wanted,
                    present: present.event_type.to_string(),
                    function: name.to_string(),
                });
            }
        }
        Ok(())
    }

    /// What is at the place of an event type, whatever its parameters are called.
    fn entry_at(&self, event: &EventType) -> Option<&Arc<Entry<F>>> {
        let EventType::Http { verb, path } = event;
        let mut node = &*self.root;
        for segment in path.segments() {
            node = match segment {
                Segment::Literal(literal) => node.literals.get(&*key_of(literal))?,
                Segment::Param(_) => node.param.as_ref()?,
                Segment::Rest(_) => return node.rest.get(verb),
            };
        }
        node.here.get(verb)
    }

    fn join(&mut self, event: &EventType, function: &Routed<'_, F>) -> Result<(), Conflict> {
        let EventType::Http { verb, path } = event;
        let mut node = Arc::make_mut(&mut self.root);
        let mut ends_in_rest = false;
        for segment in path.segments() {
            node = match segment {
                Segment::Literal(literal) => child(&mut node.literals, &key_of(literal)),
                Segment::Param(_) => Arc::make_mut(node.param.get_or_insert_default()),
                Segment::Rest(_) => {
                    ends_in_rest = true;
                    node
                }
            };
        }
        let ends = if ends_in_rest { &mut node.rest } else { &mut node.here };
        let event_type: Arc<str> = event.to_string().into();
        let Some(present) = ends.get_mut(verb) else {
            self.known.insert_mut(Known(event_type.clone()), ());
            ends.add(verb.clone(), Entry::first(path, event_type, function));
            return Ok(());
        };
        if present.event_type != event_type {
            let (wanted, present) = (event_type.to_string(), present.event_type.to_string());
            return Err(Conflict { wanted, present, function: function.name.to_string() });
        }
        *present = Arc::new(present.with(function));
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

    /// Up to three event types that share the longest beginning with the path: in the order of
    /// paths they are next to where it would stand.
    fn near(&self, normal: &str) -> Vec<String> {
        let here = Known(format!("||{normal}").into());
        let before = self.known.range(..here.clone()).rev().take(NEAR);
        let after = self.known.range(here..).take(NEAR);
        let shared =
            |known: &Known| known.path().bytes().zip(normal.bytes()).take_while(|(a, b)| a == b).count();
        let mut ranked: Vec<_> = before.chain(after).map(|(known, ())| (shared(known), &known.0)).collect();
        ranked.retain(|(shared, _)| *shared > 1);
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        ranked.into_iter().take(NEAR).map(|(_, known)| known.to_string()).collect()
    }
}

impl<F: Clone> Entry<F> {
    fn first(pattern: &PathPattern, event_type: Arc<str>, function: &Routed<'_, F>) -> Self {
        Self {
            pattern: pattern.clone(),
            event_type,
            owners: vec![(function.order, function.name.clone())],
            functions: [function.function.clone()].into(),
        }
    }

    /// The same with one more owner, unless it is one already: an event type may be named twice.
    fn with(&self, function: &Routed<'_, F>) -> Self {
        let (mut owners, mut functions) = (self.owners.clone(), self.functions.to_vec());
        if !owners.iter().any(|(_, name)| name == function.name) {
            let at = owners.partition_point(|(order, _)| *order <= function.order);
            owners.insert(at, (function.order, function.name.clone()));
            functions.insert(at, function.function.clone());
        }
        self.of(owners, functions)
    }

    /// The same without an owner; none when nobody is left.
    fn without(&self, name: &FunctionName) -> Option<Self> {
        let pairs = self.owners.iter().zip(&*self.functions).filter(|((_, owner), _)| owner != name);
        let (owners, functions): (Vec<_>, Vec<_>) =
            pairs.map(|(owner, function)| (owner.clone(), function.clone())).unzip();
        (!owners.is_empty()).then(|| self.of(owners, functions))
    }

    fn of(&self, owners: Vec<(u64, FunctionName)>, functions: Vec<F>) -> Self {
        let (pattern, event_type) = (self.pattern.clone(), self.event_type.clone());
        Self { pattern, event_type, owners, functions: functions.into() }
    }
}

/// A literal in the form in which paths are matched.
fn key_of(literal: &str) -> Cow<'_, str> {
    if literal.contains('%') { Cow::Owned(literal.replace('%', "%25")) } else { Cow::Borrowed(literal) }
}

/// The child of a literal, made when there is none.
fn child<'a, F: Clone>(
    literals: &'a mut RedBlackTreeMapSync<Arc<str>, Arc<Node<F>>>,
    key: &str,
) -> &'a mut Node<F> {
    if !literals.contains_key(key) {
        literals.insert_mut(key.into(), Arc::default());
    }
    Arc::make_mut(literals.get_mut(key).expect("it is there or was made just now"))
}

/// Takes a function out of one event type, and what is empty then out of the tree; returns the
/// event type if nobody has it any more.
fn leave<F: Clone>(
    node: &mut Arc<Node<F>>,
    segments: &[Segment],
    verb: &Verb,
    name: &FunctionName,
) -> Option<Arc<str>> {
    let node = Arc::make_mut(node);
    match segments.split_first() {
        None => leave_ends(&mut node.here, verb, name),
        Some((Segment::Rest(_), _)) => leave_ends(&mut node.rest, verb, name),
        Some((Segment::Param(_), deeper)) => {
            let below = node.param.as_mut()?;
            let gone = leave(below, deeper, verb, name);
            if below.is_empty() {
                node.param = None;
            }
            gone
        }
        Some((Segment::Literal(literal), deeper)) => {
            let key = key_of(literal);
            let below = node.literals.get_mut(&*key)?;
            let gone = leave(below, deeper, verb, name);
            if below.is_empty() {
                node.literals.remove_mut(&*key);
            }
            gone
        }
    }
}

fn leave_ends<F: Clone>(ends: &mut Ends<F>, verb: &Verb, name: &FunctionName) -> Option<Arc<str>> {
    let entry = ends.get_mut(verb)?;
    if let Some(rest) = entry.without(name) {
        *entry = Arc::new(rest);
        return None;
    }
    ends.remove(verb).map(|entry| entry.event_type.clone())
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

    fn choose<'n, F>(&mut self, ends: &'n Ends<F>) -> Option<&'n Entry<F>> {
        let chosen = ends
            .get(&self.verb)
            .or_else(|| self.fallback.as_ref().and_then(|fallback| ends.get(fallback)))
            .or_else(|| ends.get(&Verb::Any));
        if chosen.is_none() {
            self.others.extend(ends.verbs().cloned());
        }
        chosen.map(|entry| &**entry)
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
mod tests;
