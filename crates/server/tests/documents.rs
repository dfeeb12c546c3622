//! What the documents and examples say is what the code does.
//!
//! `docs/errors.md` has an entry per error code, written by this test with
//! `UPDATE_DOCUMENTS=1`; `docs/function-toml.md` has every key with its default; the manifests
//! of `examples/`, `examples-services/` and `examples-webhooks/` can be read and have an objective.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use fp_core::code::Code;
use fp_core::settings::{Manifest, Settings};
use fp_server::http::problem;
use serde_json::Value;

const CODES_BEGIN: &str = "<!-- codes: ";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn every_error_code_has_its_entry() {
    let document = read("docs/errors.md");
    let (head, _) = document.split_once(CODES_BEGIN).expect("the marker of the codes");
    let marker = document[head.len()..].lines().next().expect("the marker's line");
    let mut expected = format!("{head}{marker}\n");
    for code in Code::ALL {
        expected.push_str(&entry(code));
    }
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(root().join("docs/errors.md"), &expected).expect("docs/errors.md can be written");
        return;
    }
    let differing = expected.lines().zip(document.lines()).find(|(wanted, found)| wanted != found);
    assert_eq!(document, expected, "stale from {differing:?} on; run this test with UPDATE_DOCUMENTS=1");
}

fn entry(code: Code) -> String {
    let status = problem::status(code);
    let mut entry = format!("\n## {}\n\n", code.word());
    let again =
        if code.retryable() { "the same request may succeed later" } else { "do not repeat unchanged" };
    writeln!(entry, "**{}** · {} · {again}\n", code.title(), status.as_u16()).expect("a String takes it");
    writeln!(entry, "{}\n\n*What to do:* {}", code.meaning(), code.what_to_do()).expect("a String takes it");
    entry
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let document = read("docs/function-toml.md");
    for (key, default) in leaves("", &Settings::default().to_json()) {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/function-toml.md has no row for {key}"));
        let column = row.split(" | ").nth(1).expect("a second column");
        assert_eq!(column, format!("`{default}`"), "{row}");
    }
}

/// Dotted keys and their values as TOML writes them.
fn leaves(prefix: &str, settings: &Value) -> Vec<(String, String)> {
    let table = settings.as_object().expect("a table");
    let leaf = |(key, value): (&String, &Value)| match value {
        Value::Object(inner) if !inner.is_empty() => leaves(&format!("{prefix}{key}."), value),
        _ => vec![(format!("{prefix}{key}"), value.to_string())],
    };
    table.iter().flat_map(leaf).collect()
}

#[test]
fn the_manifests_in_the_document_can_be_read() {
    let document = read("docs/function-toml.md");
    let manifests: Vec<_> =
        document.split("```toml\n").skip(1).filter_map(|part| part.split("```").next()).collect();
    assert_eq!(manifests.len(), 2);
    for manifest in manifests {
        Manifest::parse(manifest).unwrap_or_else(|error| panic!("{error}\n{manifest}"));
    }
}

#[test]
fn every_example_can_be_read_and_has_an_objective() {
    let mut names = Vec::new();
    for folder in ["examples", "examples-services", "examples-webhooks"] {
        for directory in fs::read_dir(root().join(folder)).expect("a directory").flatten() {
            let Ok(text) = fs::read_to_string(directory.path().join("function.toml")) else { continue };
            let manifest =
                Manifest::parse(&text).unwrap_or_else(|error| panic!("{:?}: {error}", directory.path()));
            assert!(manifest.settings.slo.is_some(), "{} has no [slo]", manifest.name);
            assert!(directory.path().join(&manifest.handler.file).is_file(), "{} has no code", manifest.name);
            names.push(manifest.name.to_string());
        }
    }
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    let before = names.len();
    names.dedup();
    assert_eq!(names.len(), before, "two examples have one name: {names:?}");
}
