//! One tree for the two ways in: a manifest in TOML, whose nodes know their lines, and the
//! `settings` of the API in JSON.
//!
//! [`Fields`] reads one table of it key by key, remembers which keys exist, and at the end
//! refuses those that do not, naming the nearest one that does.

use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::error::{Fault, SettingsError};
use crate::nearest::nearest;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: Option<u32>,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl Value {
    /// As the author wrote it, shortened.
    fn shown(&self) -> String {
        let text = match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::List(_) => "a list".into(),
            Self::Table(_) => "a table".into(),
        };
        match text.char_indices().nth(80) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

impl Node {
    /// The tree of a TOML document.
    pub(super) fn from_toml(text: &str) -> Result<Self, SettingsError> {
        let line_at = |offset: usize| text[..offset.min(text.len())].matches('\n').count() as u32 + 1;
        match DeTable::parse(text) {
            Ok(table) => Ok(from_toml_table(table.get_ref(), 1, &line_at)),
            Err(error) => Err(SettingsError {
                field: String::new(),
                line: error.span().map(|span| line_at(span.start)),
                fault: Fault::Syntax { message: error.message().trim().replace('\n', ", ") },
            }),
        }
    }

    /// The tree of a JSON value.
    pub(super) fn from_json(json: &Json) -> Self {
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(integer) => Value::Integer(integer),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            Json::Object(members) => Value::Table(
                members.iter().map(|(key, value)| (key.clone(), Self::from_json(value))).collect(),
            ),
        };
        Self { line: None, value }
    }
}

fn from_toml_table(table: &DeTable<'_>, line: u32, line_at: &dyn Fn(usize) -> u32) -> Node {
    let member = |(key, value): (&toml::Spanned<_>, &toml::Spanned<_>)| {
        let key: &toml::Spanned<std::borrow::Cow<'_, str>> = key;
        (key.get_ref().to_string(), from_toml_value(value, line_at(key.span().start), line_at))
    };
    Node { line: Some(line), value: Value::Table(table.iter().map(member).collect()) }
}

fn from_toml_value(value: &toml::Spanned<DeValue<'_>>, line: u32, line_at: &dyn Fn(usize) -> u32) -> Node {
    let value = match value.get_ref() {
        DeValue::Table(table) => return from_toml_table(table, line, line_at),
        DeValue::Array(items) => {
            let item = |item| -> Node {
                let item: &toml::Spanned<DeValue<'_>> = item;
                from_toml_value(item, line_at(item.span().start), line_at)
            };
            Value::List(items.iter().map(item).collect())
        }
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => Value::Float(f64::INFINITY),
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
    };
    Node { line: Some(line), value }
}

/// One value with its path, ready to be read.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) path: String,
    pub(super) node: Node,
}

impl Field {
    /// The error that this value is not allowed; `allowed` says what is ("write …").
    pub(super) fn refuse(&self, allowed: impl Into<String>) -> SettingsError {
        SettingsError {
            field: self.path.clone(),
            line: self.node.line,
            fault: Fault::Value { given: self.node.value.shown(), allowed: allowed.into() },
        }
    }

    pub(super) fn text(&self, allowed: &str) -> Result<&str, SettingsError> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.refuse(allowed)),
        }
    }

    pub(super) fn number(&self, allowed: &str) -> Result<f64, SettingsError> {
        match self.node.value {
            Value::Integer(number) => Ok(number as f64),
            Value::Float(number) => Ok(number),
            _ => Err(self.refuse(allowed)),
        }
    }

    /// A whole number within the range.
    pub(super) fn whole(&self, range: std::ops::RangeInclusive<u32>) -> Result<u32, SettingsError> {
        let number = match self.node.value {
            Value::Integer(number) => u32::try_from(number).ok(),
            _ => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.refuse(format!("write a whole number from {} to {}", range.start(), range.end()))
        })
    }

    pub(super) fn list(self, allowed: &str) -> Result<Vec<Field>, SettingsError> {
        let Value::List(items) = self.node.value else { return Err(self.refuse(allowed)) };
        let item = |(at, node)| Field { path: format!("{}[{at}]", self.path), node };
        Ok(items.into_iter().enumerate().map(item).collect())
    }

    /// The members of a table whose keys are the author's own.
    pub(super) fn members(self, allowed: &str) -> Result<Vec<(String, Field)>, SettingsError> {
        let Value::Table(members) = self.node.value else { return Err(self.refuse(allowed)) };
        let member = |(key, node)| {
            let path = format!("{}.{key}", self.path);
            (key, Field { path, node })
        };
        Ok(members.into_iter().map(member).collect())
    }
}

/// A table whose keys are ours, read key by key.
#[derive(Debug)]
pub(super) struct Fields {
    path: String,
    line: Option<u32>,
    left: Vec<(String, Node)>,
    known: Vec<&'static str>,
}

impl Fields {
    /// The root table.
    pub(super) fn root(node: Node) -> Result<Self, SettingsError> {
        Self::of(Field { path: String::new(), node })
    }

    /// The table that a field holds.
    pub(super) fn of(field: Field) -> Result<Self, SettingsError> {
        let line = field.node.line;
        let Value::Table(left) = field.node.value else { return Err(field.refuse("write a table")) };
        Ok(Self { path: field.path, line, left, known: Vec::new() })
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of a key, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field> {
        self.known.push(key);
        let at = self.left.iter().position(|(name, _)| name == key)?;
        let (_, node) = self.left.swap_remove(at);
        Some(Field { path: self.path_of(key), node })
    }

    /// As [`take`](Self::take), read by `read`; the default stays when the key is not there.
    pub(super) fn set<T>(
        &mut self,
        key: &'static str,
        place: &mut T,
        read: impl FnOnce(Field) -> Result<T, SettingsError>,
    ) -> Result<(), SettingsError> {
        if let Some(field) = self.take(key) {
            *place = read(field)?;
        }
        Ok(())
    }

    /// The table under a key, if it is there.
    pub(super) fn table(&mut self, key: &'static str) -> Result<Option<Self>, SettingsError> {
        self.take(key).map(Self::of).transpose()
    }

    /// The error that a key must be there, or that it is there and misspelt.
    pub(super) fn missing(&self, key: &'static str, write: &'static str) -> SettingsError {
        if let Some((misspelt, node)) = self.left.iter().find(|(left, _)| nearest(left, &[key]).is_some()) {
            return self.unknown(misspelt, node);
        }
        SettingsError { field: self.path_of(key), line: self.line, fault: Fault::Missing { write } }
    }

    /// An error about two keys of this table at once.
    pub(super) fn conflict(&self, key: &str, message: String) -> SettingsError {
        SettingsError { field: self.path_of(key), line: self.line, fault: Fault::Conflict { message } }
    }

    /// Refuses the keys that nobody took.
    pub(super) fn finish(self) -> Result<(), SettingsError> {
        match self.left.iter().min_by_key(|(_, node)| node.line) {
            Some((key, node)) => Err(self.unknown(key, node)),
            None => Ok(()),
        }
    }

    fn unknown(&self, key: &str, node: &Node) -> SettingsError {
        let near = nearest(key, &self.known).map(|known| self.path_of(known));
        SettingsError {
            field: self.path_of(key),
            line: node.line,
            fault: Fault::Unknown {
                nearest: near.or_else(|| elsewhere(key)),
                known: self.known.iter().map(|known| (*known).to_owned()).collect(),
            },
        }
    }
}

/// Keys that stand in tables and are often looked for outside of them.
const KEYS_IN_TABLES: [&str; 20] = [
    "limits.body",
    "limits.response",
    "limits.logs",
    "scaling.min",
    "scaling.max",
    "scaling.idle",
    "scaling.schedule",
    "latency.hedge",
    "latency.fallback",
    "slo.availability",
    "slo.latency",
    "slo.window",
    "slo.latency.under",
    "slo.latency.percent",
    "auth.key",
    "auth.hmac",
    "auth.jwt",
    "auth.jwt.jwks",
    "auth.jwt.issuer",
    "auth.jwt.audience",
];

fn elsewhere(key: &str) -> Option<String> {
    let last = |path: &&&str| path.rsplit('.').next() == Some(key);
    KEYS_IN_TABLES.iter().find(last).map(|path| (*path).to_owned())
}
