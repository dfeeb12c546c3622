//! What a person or a program sees: results on stdout, everything else on stderr.
//!
//! `--output json` prints the API's answer unchanged. Tables have no borders and, when stdout
//! is no terminal, no limit on their width, so that ids are never shortened or wrapped.
//! Colours follow NO_COLOR, CLICOLOR and the terminal (anstream). A reader that goes away
//! (`| head`) ends the command quietly.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::OwoColorize;
use serde_json::Value;

use crate::client::Answer;
use crate::exit::{Exit, Failure};
use crate::up::speaker;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences, for people.
    Table,
    /// The API's answer unchanged, for programs.
    Json,
    /// A drawing; `simulate` has one.
    #[value(hide = true)]
    Svg,
}

/// Prints text to stdout as it is.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// Prints bytes to stdout as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(stdout_failed)
}

/// Prints a line to stdout; colours are stripped where they are not wanted.
pub(crate) fn line(line: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(stdout_failed)
}

/// Prints an answer of the API unchanged, ending in one newline.
pub(crate) fn answer(answer: &Answer) -> Result<(), Failure> {
    bytes(&answer.body)?;
    if answer.body.ends_with(b"\n") { Ok(()) } else { text("\n") }
}

/// Prints a value that this command made itself.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(Exit::Other, e.to_string()))?;
    line(&text)
}

/// Prints a value whose parts are the API's own, as the API writes: without added space.
pub(crate) fn compact(value: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(|e| Failure::new(Exit::Other, e.to_string()))?;
    text(&format!("{json}\n"))
}

/// Prints rows under a header; says so when there are none.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, none: &str) -> Result<(), Failure> {
    if rows.is_empty() {
        note(none);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    table.set_content_arrangement(match io::stdout().is_terminal() {
        true => ContentArrangement::Dynamic,
        false => ContentArrangement::Disabled,
    });
    table.add_rows(rows);
    for index in 0..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
        }
    }
    let body: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    line(&body.join("\n"))
}

/// Prints names and values, one pair a line.
pub(crate) fn pairs(pairs: &[(String, String)]) -> Result<(), Failure> {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in pairs {
        let indented = value.trim_end().replace('\n', &format!("\n{:width$}  ", ""));
        line(&format!("{name:width$}  {indented}"))?;
    }
    Ok(())
}

/// The fields of a JSON object as pairs, in the order given, the rest after them.
pub(crate) fn fields(object: &Value, first: &[&str]) -> Vec<(String, String)> {
    let Some(map) = object.as_object() else {
        return vec![("value".into(), cell(object))];
    };
    let named = first.iter().filter_map(|name| map.get(*name).map(|value| (*name, value)));
    let rest = map.iter().filter(|(name, _)| !first.contains(&name.as_str()));
    named
        .chain(rest.map(|(name, value)| (name.as_str(), value)))
        .flat_map(|(name, value)| flat(name, value))
        .collect()
}

/// A value as pairs: what is inside of objects has dotted names.
pub(crate) fn flat(name: &str, value: &Value) -> Vec<(String, String)> {
    let Some(map) = value.as_object().filter(|map| !map.is_empty()) else {
        return vec![(name.to_owned(), cell(value))];
    };
    map.iter().flat_map(|(inner, value)| flat(&format!("{name}.{inner}"), value)).collect()
}

/// The items of a page of the API as rows of these columns.
pub(crate) fn rows(page: &Value, columns: &[&str]) -> Vec<Vec<String>> {
    let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |item: &Value| columns.iter().map(|column| cell(&item[*column])).collect();
    items.iter().map(row).collect()
}

/// A JSON value as text for a table: strings bare, null and what is empty as a dash.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        Value::Object(map) if map.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A remark to the person at the terminal, on stderr.
pub(crate) fn note(text: &str) {
    to_stderr(&format!("{text}\n"));
}

/// Something that may be wrong but does not stop the command, on stderr.
pub(crate) fn warning(text: &str) {
    to_stderr(&format!("{} {text}\n", "warning:".yellow().bold()));
}

/// Prints why the command failed, on stderr. A reader that left is not told.
pub(crate) fn failure(failure: &Failure) {
    if failure.message.is_empty() {
        return;
    }
    to_stderr(&format!("{} {}\n", "error:".red().bold(), failure.message));
    if let Some(hint) = &failure.hint {
        to_stderr(&format!("{} {hint}\n", "hint:".cyan().bold()));
    }
}

/// In a running platform through its speaker, which never makes anybody wait.
fn to_stderr(text: &str) {
    match speaker::get() {
        Some(speaker) => speaker.say(text.as_bytes()),
        // A reader that left is not told.
        None => drop(anstream::stderr().lock().write_all(text.as_bytes())),
    }
}

/// A closed pipe ends the command as if all had been printed: the reader has what it wants.
fn stdout_failed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Exit::Ok, ""),
        _ => Failure::new(Exit::Other, format!("cannot write to stdout: {}", crate::exit::plain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_columns_that_were_asked_for() {
        let page = serde_json::json!({ "items": [{ "name": "acme", "keys": 2, "created_at": null }] });
        assert_eq!(rows(&page, &["name", "keys", "created_at"]), [["acme", "2", "-"]]);
        assert!(rows(&Value::Null, &["name"]).is_empty());
    }
}
