//! The walls between the rooms: which crate may use which, what the pure room may depend on,
//! where `unsafe` may stand. Cargo keeps most of it; this test keeps Cargo's files.
#![expect(clippy::disallowed_methods, reason = "reads the workspace's own files")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate and the crates of ours that it may use. A new crate needs a line here.
const EDGES: [(&str, &[&str]); 5] = [
    ("fp-core", &[]),
    ("fp-sandbox", &["fp-core"]),
    ("fp-server", &["fp-core", "fp-sandbox"]),
    ("fp-sim", &["fp-core"]),
    ("functionsplatform", &["fp-core", "fp-sandbox", "fp-server", "fp-sim"]),
];

/// Everything else that the two rooms without I/O may use: formats, errors, and for the simulator
/// a generator that is seeded.
const PURE: [(&str, &[&str]); 2] = [
    ("fp-core", &["base64", "bytesize", "humantime", "rpds", "serde", "serde_json", "thiserror", "toml"]),
    ("fp-sim", &["fastrand", "humantime", "serde", "serde_json", "thiserror", "toml"]),
];

/// The one crate with `unsafe`.
const UNSAFE: &str = "fp-sandbox";

fn crates_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates/").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every crate's directory by its name, with its manifest.
fn manifests() -> BTreeMap<String, (PathBuf, toml::Table)> {
    let entries = fs::read_dir(crates_dir()).expect("the workspace has crates/");
    let dirs =
        entries.map(|entry| entry.expect("readable").path()).filter(|dir| dir.join("Cargo.toml").exists());
    let manifest = |dir: PathBuf| {
        let manifest: toml::Table = read(&dir.join("Cargo.toml")).parse().expect("valid TOML");
        (manifest["package"]["name"].as_str().expect("a name").to_owned(), (dir, manifest))
    };
    dirs.map(manifest).collect()
}

fn names(manifest: &toml::Table, section: &str) -> BTreeSet<String> {
    let of_table = |table: &toml::Table| table.get(section).and_then(|section| section.as_table()).cloned();
    let per_target = manifest.get("target").and_then(|target| target.as_table()).into_iter().flatten();
    let tables = per_target.filter_map(|(_, target)| target.as_table()).chain([manifest]);
    tables.filter_map(of_table).flat_map(|section| section.into_iter().map(|(name, _)| name)).collect()
}

/// Every Rust file below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("readable").path());
    let below = |path: PathBuf| match path.is_dir() {
        true => sources(&path),
        false => Vec::from_iter(path.extension().is_some_and(|end| end == "rs").then_some(path)),
    };
    paths.flat_map(below).collect()
}

/// The lines of code that hold one of the words, comments left out.
fn lines_with(path: &Path, words: &[&str]) -> Vec<String> {
    let text = read(path);
    let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let found = code.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    found.map(|(at, line)| format!("{}:{}: {}", path.display(), at + 1, line.trim())).collect()
}

#[test]
fn crates_use_only_the_crates_below_them() {
    let edges = BTreeMap::from(EDGES);
    let manifests = manifests();
    for (name, (_, manifest)) in &manifests {
        let allowed = edges.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in EDGES"));
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for used in names(manifest, section).iter().filter(|used| manifests.contains_key(*used)) {
                assert!(allowed.contains(&used.as_str()), "{name} must not use {used} ({section})");
            }
        }
    }
}

#[test]
fn the_pure_rooms_depend_on_nothing_that_could_do_io() {
    let manifests = manifests();
    for (name, allowed) in PURE {
        let used = names(&manifests[name].1, "dependencies");
        let foreign: Vec<_> = used
            .iter()
            .filter(|used| !allowed.contains(&used.as_str()) && !manifests.contains_key(*used))
            .collect();
        assert!(foreign.is_empty(), "{name} must not depend on {foreign:?}");
        assert!(names(&manifests[name].1, "build-dependencies").is_empty(), "{name} has a build script");
        assert!(
            manifests[name].0.join("clippy.toml").exists(),
            "{name} has no list of what it must not call"
        );
    }
}

#[test]
fn unsafe_code_stands_in_one_crate() {
    let workspace: toml::Table =
        read(&crates_dir().with_file_name("Cargo.toml")).parse().expect("valid TOML");
    assert_eq!(workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("deny"));
    for (name, (dir, manifest)) in manifests() {
        if name == UNSAFE {
            continue;
        }
        assert_eq!(manifest["lints"].get("workspace").and_then(|on| on.as_bool()), Some(true), "{name}");
        let found: Vec<_> = sources(&dir.join("src"))
            .iter()
            .flat_map(|path| lines_with(path, &["unsafe {", "unsafe fn", "unsafe impl", "(unsafe_code"]))
            .collect();
        assert!(found.is_empty(), "unsafe outside of {UNSAFE}:\n{}", found.join("\n"));
    }
}

/// `http` speaks to `invoke`, `catalog` and the like, never to what is below those. The data types
/// of the frame protocol may pass through: an answer's head is what it sends on.
#[test]
fn the_http_edge_does_not_reach_below_its_neighbours() {
    let server = crates_dir().join("server/src");
    let edge = sources(&server.join("http")).into_iter().chain([server.join("http.rs")]);
    let below = ["crate::store", "crate::pool", "fp_sandbox"];
    let lines = edge.filter(|path| path.exists()).flat_map(|path| lines_with(&path, &below));
    let found: Vec<_> = lines.filter(|line| !line.contains("fp_sandbox::protocol")).collect();
    assert!(found.is_empty(), "the http edge reaches below its neighbours:\n{}", found.join("\n"));
}
