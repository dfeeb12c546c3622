//! Finding the Pythons of this host: by running them, because only the interpreter behind a
//! shim, a link or a virtual environment knows where its library is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde::{Deserialize, Serialize};

/// The oldest version whose `socket`, `os` and `signal` have what the zygote uses.
const OLDEST: (u32, u32) = (3, 10);

/// `sys.executable` may be a virtual environment's link; the base is the interpreter itself.
/// The imports are what the zygote cannot do without and reduced builds lack; the extension
/// modules alone, because their Python halves would triple the time.
const QUESTION: &str = "import sys, _ctypes, _socket, resource, select, fcntl
print(sys.implementation.name, *sys.version_info[:3])
print(getattr(sys, '_base_executable', None) or sys.executable)
print(*sorted({sys.base_prefix, sys.base_exec_prefix}), sep='\\n')
import os, site
home = os.path.dirname(os.path.dirname(sys.executable))
if os.path.isfile(os.path.join(home, 'pyvenv.cfg')):
    sys.prefix = sys.exec_prefix = home
    site.PREFIXES = [home]
print('site')
print(*filter(os.path.isdir, site.getsitepackages()), sep='\\n')";

/// A CPython that workers can run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// The interpreter itself (`sys.executable` behind any shim).
    pub executable: PathBuf,
    /// `(3, 11, 7)`.
    pub version: (u32, u32, u32),
    /// `sys.base_prefix` and, where it differs, `sys.base_exec_prefix`.
    pub prefixes: Vec<PathBuf>,
    /// Where it finds installed packages; of the virtual environment, if it was named as one.
    /// Workers see them only where a function preloads.
    #[serde(default)]
    pub site_packages: Vec<PathBuf>,
}

impl Python {
    /// Whether `3`, `3.11` or `3.11.7` means this one.
    pub fn is(&self, wanted: &str) -> bool {
        let (major, minor, micro) = self.version;
        let own = [major.to_string(), minor.to_string(), micro.to_string()];
        let mut parts = wanted.split('.');
        let all_equal = parts.by_ref().zip(&own).all(|(part, own)| part == own);
        !wanted.is_empty() && all_equal && wanted.split('.').count() <= 3
    }

    /// `3.11.7`.
    pub fn version_text(&self) -> String {
        format!("{}.{}.{}", self.version.0, self.version.1, self.version.2)
    }
}

/// Why no Python can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PythonError {
    /// Nothing found at all.
    #[error("no python3 found on PATH; install Python 3.10 or newer, or name one with --python")]
    NotFound,
    /// Only old ones.
    #[error("{path} is Python {found}; 3.10 or newer is needed")]
    TooOld {
        /// The newest one found.
        path: String,
        /// Its version.
        found: String,
    },
    /// The one that was asked for does not run.
    #[error("{path} does not run as a Python: {why}")]
    Broken {
        /// What was asked for.
        path: String,
        /// What happened.
        why: String,
    },
}

/// The wanted Python first, or the newest; then every other that a function can ask for.
pub(crate) fn all_pythons(wanted: Option<PathBuf>) -> Result<Vec<Python>, PythonError> {
    let Some(wanted) = wanted else { return find_pythons(None) };
    let mut pythons = find_pythons(Some(&wanted))?;
    let others = find_pythons(None).unwrap_or_default();
    let is_other = |other: &Python| other.version != pythons[0].version;
    let others: Vec<_> = others.into_iter().filter(is_other).collect();
    pythons.extend(others);
    Ok(pythons)
}

/// All Pythons from 3.10 on, newest first, one per version; with `wanted`, that one alone.
/// Runs each candidate once (about 10 ms); blocks.
pub fn find_pythons(wanted: Option<&Path>) -> Result<Vec<Python>, PythonError> {
    if let Some(path) = wanted {
        let python = ask(path)?;
        return if is_new_enough(&python) { Ok(vec![python]) } else { Err(too_old(&python)) };
    }
    let (old, new): (Vec<_>, Vec<_>) = candidates().into_iter().partition(|path| is_old_by_name(path));
    let mut answers = ask_all(new);
    let mut usable: Vec<_> =
        answers.iter().flatten().filter(|python| is_new_enough(python)).cloned().collect();
    usable.sort_by(|a, b| b.version.cmp(&a.version).then_with(|| a.executable.cmp(&b.executable)));
    usable.dedup_by_key(|python| python.version);
    if !usable.is_empty() {
        return Ok(usable);
    }
    // Only to say what there is.
    answers.extend(ask_all(old));
    match answers.iter().flatten().max_by_key(|python| python.version) {
        Some(newest) => Err(too_old(newest)),
        None => Err(answers.into_iter().find_map(Result::err).unwrap_or(PythonError::NotFound)),
    }
}

fn ask_all(paths: Vec<PathBuf>) -> Vec<Result<Python, PythonError>> {
    let asking: Vec<_> = paths.into_iter().map(|path| thread::spawn(move || ask(&path))).collect();
    asking.into_iter().filter_map(|thread| thread.join().ok()).collect()
}

fn is_new_enough(python: &Python) -> bool {
    (python.version.0, python.version.1) >= OLDEST
}

fn too_old(python: &Python) -> PythonError {
    PythonError::TooOld { path: python.executable.display().to_string(), found: python.version_text() }
}

/// Files that could be Pythons: `python3` and `python3.N` on PATH, or in the usual places where there
/// is none.
/// A pyenv shim stands for all versions beside it: they are asked instead of it.
fn candidates() -> BTreeSet<PathBuf> {
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
    let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin".into());
    let mut found = BTreeSet::new();
    for dir in std::env::split_paths(&path).filter(|dir| dir.is_absolute()) {
        if dir.ends_with("shims") {
            let versions = fs::read_dir(dir.with_file_name("versions")).into_iter().flatten().flatten();
            found.extend(versions.flat_map(|version| pythons_in(&version.path().join("bin"))));
        } else {
            found.extend(pythons_in(&dir));
        }
    }
    found
}

/// Interpreters in a directory, links resolved so that each is asked once. A virtual
/// environment's link resolves to its base, which is the one that workers need.
fn pythons_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_python));
    named.filter_map(|entry| fs::canonicalize(entry.path()).ok()).collect()
}

/// `python3` and `python3.N`, not `python3-config` and the like.
fn is_python(name: &str) -> bool {
    let minor = name.strip_prefix("python3").map(|rest| rest.strip_prefix('.').unwrap_or(rest));
    minor.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Not worth asking while another is there: `python3.6`.
fn is_old_by_name(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let minor = name.strip_prefix("python3.").and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| (3, minor) < OLDEST)
}

fn ask(path: &Path) -> Result<Python, PythonError> {
    let broken = |why: String| PythonError::Broken { path: path.display().to_string(), why };
    let mut command = Command::new(path);
    command.args(["-I", "-S", "-c", QUESTION]).stdin(Stdio::null());
    let output = command.output().map_err(|e| broken(e.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.trim().lines().last().unwrap_or("it printed nothing").to_owned();
        return Err(broken(last));
    }
    let text = String::from_utf8(output.stdout).map_err(|e| broken(e.to_string()))?;
    parse_answer(&text).map_err(broken)
}

fn parse_answer(text: &str) -> Result<Python, String> {
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let implementation = words.next().unwrap_or_default();
    if implementation != "cpython" {
        return Err(format!("it is {implementation:?}; CPython is needed"));
    }
    let numbers: Vec<u32> = words.filter_map(|word| word.parse().ok()).collect();
    let (&[major, minor, micro], Some(executable)) = (&numbers[..], lines.next()) else {
        return Err(format!("it answered {text:?}"));
    };
    let prefixes = lines.by_ref().take_while(|line| *line != "site").map(PathBuf::from).collect();
    let site_packages = lines.filter(|line| !line.is_empty()).map(PathBuf::from).collect();
    Ok(Python { executable: executable.into(), version: (major, minor, micro), prefixes, site_packages })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(version: (u32, u32, u32)) -> Python {
        Python {
            executable: "/usr/bin/python3".into(),
            version,
            prefixes: vec!["/usr".into()],
            site_packages: Vec::new(),
        }
    }

    #[test]
    fn a_wanted_version_is_a_prefix_of_whole_numbers() {
        let this = python((3, 11, 7));
        assert!(this.is("3") && this.is("3.11") && this.is("3.11.7"));
        assert!(!this.is("3.1") && !this.is("3.12") && !this.is("") && !this.is("3.11.7.1"));
    }

    #[test]
    fn an_answer_is_taken_apart_and_nonsense_is_refused() {
        let text = "cpython 3 11 7\n/opt/py/bin/python3.11\n/opt/py\n/opt/py-exec\nsite\n/opt/py/sp\n";
        let found = parse_answer(text).expect("an answer");
        assert_eq!((found.version, found.prefixes.len()), ((3, 11, 7), 2));
        assert_eq!(found.site_packages, [Path::new("/opt/py/sp")]);
        assert!(parse_answer("pypy 3 10 0\n/usr/bin/pypy\n/usr\n").expect_err("pypy").contains("CPython"));
        assert!(parse_answer("cpython 3\n").is_err() && parse_answer("").is_err());
        assert!(is_old_by_name(Path::new("/x/python3.6")) && !is_old_by_name(Path::new("/x/python3.10")));
    }

    #[test]
    fn pythons_of_this_host_are_found_newest_first() {
        let found = find_pythons(None).expect("the tests need a Python");
        assert!(found.is_sorted_by(|a, b| a.version > b.version), "{found:?}");
        assert!(found.iter().all(|python| python.version >= (3, 10, 0)));
    }

    #[test]
    fn what_is_no_python_is_named() {
        let error = find_pythons(Some(Path::new("/bin/false"))).expect_err("false is no Python");
        assert!(error.to_string().starts_with("/bin/false does not run as a Python"), "{error}");
        assert!(!is_new_enough(&python((3, 9, 18))));
    }
}
