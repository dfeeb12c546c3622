//! What may not be preloaded: the modules that a function brings itself.
//!
//! A preloaded module is imported by a process that builds sandboxes, so it must be the
//! operator's. One that is also among the function's own files would be taken from the operator's
//! places all the same, and the function's version of it silently ignored: refused, too.

use std::path::Path;

use fp_core::Settings;

/// A sentence about the first preload that the function's own files have; none when all is well.
pub(super) fn own_module(files: &[(String, u64)], settings: &Settings) -> Option<String> {
    let (module, file) = settings.preload.iter().find_map(|module| {
        let top = module.split('.').next().unwrap_or(module);
        let own = files.iter().find(|(file, _)| is_module(file, top, &settings.path))?;
        Some((module, &own.0))
    })?;
    Some(format!(
        "module {module:?} is the function's own ({file}), and own code is never preloaded: it would run in a \
         process that holds the privilege to build sandboxes; take it out of preload, and each worker imports \
         it by itself, or let the operator install it"
    ))
}

/// Whether a file makes a top-level module importable from the code directory or one of `path`.
fn is_module(file: &str, top: &str, path: &[String]) -> bool {
    let directories = path.iter().map(|directory| Path::new(directory.trim_start_matches("./")));
    directories.chain([Path::new("")]).any(|directory| {
        let Ok(inner) = Path::new(file).strip_prefix(directory) else { return false };
        let Some(inner) = inner.to_str() else { return false };
        let is_code = [".py", ".pyc", ".so"].iter().any(|suffix| inner.ends_with(suffix));
        let rest = inner.strip_prefix(top);
        is_code && rest.is_some_and(|rest| rest.starts_with('.') || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(files: &[&str], path: &[&str], preload: &str) -> Option<String> {
        let files: Vec<_> = files.iter().map(|file| ((*file).to_owned(), 1)).collect();
        let settings = Settings {
            path: path.iter().map(|directory| (*directory).to_owned()).collect(),
            preload: vec![preload.to_owned()],
            ..Settings::default()
        };
        own_module(&files, &settings)
    }

    #[test]
    fn what_the_function_brings_is_refused_with_the_file() {
        let found = sentence(&["handler.py", "lib/numpy/__init__.py"], &["lib"], "numpy.linalg");
        assert!(
            found
                .expect("its own")
                .contains("\"numpy.linalg\" is the function's own (lib/numpy/__init__.py)")
        );
        for file in
            ["side.py", "side.pyc", "side/inner/x.py", "side.cpython-311-x86_64-linux-gnu.so", "a/b/side.py"]
        {
            assert!(sentence(&[file], &["a/b", "./a"], "side").is_some(), "{file}");
        }
    }

    #[test]
    fn what_it_does_not_bring_is_not() {
        for file in ["sideways.py", "side.txt", "other/side.py", "side/data.json", "handler.py"] {
            assert_eq!(sentence(&[file], &["lib"], "side"), None, "{file}");
        }
    }
}
