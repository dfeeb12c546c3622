//! A function's directory on this machine: finding it and packing it.
//!
//! The archive depends on names and contents alone (sorted, no times, no owners, one mode), so
//! the same directory packs to the same bytes on every machine. Symbolic links are not
//! followed: what is deployed is what is there. Caches, version control and the platform's own
//! data are left out.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::exit::{Exit, Failure};
use crate::screen;

/// The file that makes a directory a function.
pub(crate) const MANIFEST: &str = "function.toml";

/// Never part of a function.
const LEFT_OUT: &[&str] = &[
    ".git",
    ".hg",
    "__pycache__",
    ".functionsplatform",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
];

/// The function directories that a DIR on the command line stands for: itself, or those of its
/// subdirectories that have a manifest, by name.
pub(crate) fn find(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    if dir.join(MANIFEST).is_file() {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = entries(dir)?;
    let found: Vec<_> = entries.into_iter().filter(|entry| entry.join(MANIFEST).is_file()).collect();
    if found.is_empty() {
        let message = format!("{} has no {MANIFEST}, nor has any directory in it", dir.display());
        return Err(Failure::new(Exit::Other, message).hint(format!(
            "a function is a directory with a {MANIFEST}; a single file is deployed with `functionsplatform create`"
        )));
    }
    Ok(found)
}

/// The name in a function directory's manifest. Everything else in it is the platform's to judge.
pub(crate) fn name(dir: &Path) -> Result<String, Failure> {
    let file = dir.join(MANIFEST);
    let text = fs::read_to_string(&file).map_err(|error| Failure::file("read", &file, &error))?;
    let manifest: toml::Table = toml::from_str(&text)
        .map_err(|error| Failure::new(Exit::Refused, format!("{}: {error}", file.display()).trim_end()))?;
    match manifest.get("name").and_then(toml::Value::as_str) {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(Failure::new(Exit::Refused, format!("{} gives the function no name", file.display()))
            .hint("its first line is usually: name = \"thumbs\"")),
    }
}

/// A zip archive of the directory with its manifest at the root.
pub(crate) fn pack(dir: &Path) -> Result<Vec<u8>, Failure> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // One fixed time (1980, zip's epoch) and mode: the archive says nothing about this machine.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644);
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Other, format!("cannot pack {}: {error}", dir.display()))
    };
    for file in &files {
        let bytes = fs::read(file).map_err(|error| Failure::file("read", file, &error))?;
        archive.start_file(name_in_archive(dir, file)?, options).map_err(|error| broken(&error))?;
        archive.write_all(&bytes).map_err(|error| broken(&error))?;
    }
    Ok(archive.finish().map_err(|error| broken(&error))?.into_inner())
}

/// All regular files below `dir`, sorted.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if LEFT_OUT.contains(&&*name) || name.ends_with(".pyc") {
            continue;
        }
        let kind = fs::symlink_metadata(&path).map_err(|error| Failure::file("read", &path, &error))?;
        if kind.is_symlink() {
            screen::warning(&format!("{} is a symbolic link and is left out", path.display()));
        } else if kind.is_dir() {
            collect(&path, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::file("read the directory", dir, &error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    Ok(entries)
}

fn name_in_archive(dir: &Path, file: &Path) -> Result<String, Failure> {
    let relative = file.strip_prefix(dir).unwrap_or(file);
    relative.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(Exit::Other, format!("the name of {} is not UTF-8; rename it", file.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        write(MANIFEST, "name = \"cats\"\n");
        write("handler.py", "def handler(message, context): return {}\n");
        write("lib/é.txt", "ü");
        write("lib/__pycache__/x.pyc", "cache");
        write(".git/HEAD", "ref");
        dir
    }

    #[test]
    fn an_archive_holds_the_functions_files_alone() {
        let dir = directory();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).expect("linked");
        let bytes = pack(dir.path()).expect("packed");
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).expect("a zip");
        let names: Vec<_> = (0..archive.len())
            .map(|index| archive.by_index(index).expect("an entry").name().expect("a name").into_owned())
            .collect();
        assert_eq!(names, ["function.toml", "handler.py", "lib/é.txt"]);
        let mut text = String::new();
        archive.by_name("lib/é.txt").expect("there").read_to_string(&mut text).expect("read");
        assert_eq!(text, "ü");
    }

    #[test]
    fn the_same_files_pack_to_the_same_bytes() {
        let (one, other) = (directory(), directory());
        let past = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        let file = fs::File::options().append(true).open(other.path().join("handler.py")).expect("opened");
        file.set_times(past).expect("dated back");
        assert_eq!(pack(one.path()).expect("packed"), pack(other.path()).expect("packed"));
    }

    #[test]
    fn a_directory_stands_for_itself_or_for_the_functions_in_it() {
        let dir = directory();
        assert_eq!(find(dir.path()).expect("itself"), [dir.path()]);
        assert_eq!(name(dir.path()).expect("a name"), "cats");
        let parent = tempfile::tempdir().expect("a directory");
        for name in ["b", "a", "not-one"] {
            fs::create_dir(parent.path().join(name)).expect("made");
        }
        for name in ["b", "a"] {
            fs::write(parent.path().join(name).join(MANIFEST), "").expect("written");
        }
        assert_eq!(find(parent.path()).expect("two"), [parent.path().join("a"), parent.path().join("b")]);
        assert!(find(&parent.path().join("not-one")).is_err());
        assert!(name(&parent.path().join("a")).expect_err("nameless").message.contains("no name"));
    }
}
