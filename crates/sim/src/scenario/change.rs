//! Changes of a scenario from outside of its text: `scaling.max=8`, `streams.callers.rate=200`.

use std::fmt;
use std::str::FromStr;

use toml::{Table, Value};

use super::error::ScenarioError;

/// One changed value: a dotted path and what it is set to.
///
/// A part of the path names a key; within a list it is a number (0 is the first), the `name` of
/// an entry, or `*` for all of them. The value is TOML; what is no TOML is text, so that
/// `latency.hedge=30ms` needs no quotes.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    path: Vec<String>,
    value: Value,
    text: String,
}

impl FromStr for Change {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        let refuse =
            |message: &str| ScenarioError::Change { change: text.into(), message: message.to_owned() };
        let (path, value) =
            text.split_once('=').ok_or_else(|| refuse("write it as key=value, such as scaling.max=8"))?;
        let path: Vec<_> = path.split('.').map(|part| part.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(refuse("a part of the key is empty; write it as scaling.max=8"));
        }
        let value = value.trim();
        let as_toml = format!("value = {value}").parse::<Table>().ok();
        let as_toml = as_toml.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
        Ok(Self { path, value: as_toml.unwrap_or_else(|| value.into()), text: text.to_owned() })
    }
}

/// As it was written.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Change {
    /// Whether it sets this key (by its dotted path), or something around or within it. A number in
    /// the key is an entry of a list, which the change may call by name.
    pub(crate) fn touches(&self, field: &str) -> bool {
        let is_same = |(theirs, ours): (&str, &String)| theirs == ours || theirs.parse::<usize>().is_ok();
        field.split('.').zip(&self.path).all(is_same)
    }

    pub(crate) fn apply(&self, document: &mut Table) -> Result<(), ScenarioError> {
        let refuse = |message: String| ScenarioError::Change { change: self.text.clone(), message };
        let Some((first, rest)) = self.path.split_first() else { return Ok(()) };
        let slot = document.entry(first).or_insert_with(|| Value::Table(Table::new()));
        set(slot, rest, first, &self.value).map_err(refuse)
    }
}

fn set(slot: &mut Value, path: &[String], so_far: &str, value: &Value) -> Result<(), String> {
    let Some((part, rest)) = path.split_first() else {
        *slot = value.clone();
        return Ok(());
    };
    match slot {
        Value::Table(table) => {
            let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            set(inner, rest, part, value)
        }
        Value::Array(entries) if part == "*" => {
            entries.iter_mut().try_for_each(|entry| set(entry, rest, part, value))
        }
        Value::Array(entries) => {
            let named = |entry: &Value| entry.get("name").and_then(Value::as_str) == Some(part);
            let found = entries.iter().position(named).or_else(|| part.parse().ok());
            let count = entries.len();
            let entry = found.and_then(|at| entries.get_mut(at)).ok_or_else(|| {
                format!("{so_far} has {count} entries and none is called {part:?}; use a name, a number from 0, or *")
            })?;
            set(entry, rest, part, value)
        }
        _ => Err(format!("{so_far} is a single value and has no {part:?} inside")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, change: &str) -> Result<Table, ScenarioError> {
        let mut table: Table = text.parse().expect("TOML");
        change.parse::<Change>()?.apply(&mut table)?;
        Ok(table)
    }

    #[test]
    fn keys_of_tables_and_of_named_entries_are_set_and_tables_made() {
        let text = "[[streams]]\nname = \"a\"\n[[streams]]\nname = \"b\"";
        let rate = |change: &str, of: usize| {
            let table = changed(text, change).expect("can be set");
            table["streams"][of].get("rate").and_then(Value::as_integer)
        };
        assert_eq!((rate("streams.b.rate=7", 1), rate("streams.b.rate=7", 0)), (Some(7), None));
        assert_eq!(rate("streams.0.rate = 7", 0), Some(7));
        assert_eq!((rate("streams.*.rate=7", 0), rate("streams.*.rate=7", 1)), (Some(7), Some(7)));
        let table = changed("", "latency.hedge=30ms").expect("can be set");
        assert_eq!(table["latency"]["hedge"].as_str(), Some("30ms"), "what is no TOML is text");
        let table = changed("", "slo.latency={ under = \"1s\", percent = 99 }").expect("can be set");
        assert_eq!(table["slo"]["latency"]["percent"].as_integer(), Some(99));
    }

    #[test]
    fn what_cannot_be_set_says_why() {
        for (change, why) in [
            ("scaling.max", "key=value"),
            ("scaling..max=1", "empty"),
            ("streams.c.rate=1", "none is called \"c\""),
            ("name.x=1", "single value"),
        ] {
            let error = changed("name = \"n\"\n[[streams]]\nname = \"a\"", change).expect_err(change);
            assert!(error.to_string().contains(why), "{error}");
            assert!(error.to_string().contains(change), "{error}");
        }
    }
}
