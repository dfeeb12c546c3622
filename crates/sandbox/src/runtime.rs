//! The Python files that the binary carries, and writing them into the run directory.
//!
//! The zygote imports them from there and shows the directory to its workers as `/runtime`,
//! read-only, so that modules of the SDK that are imported late are found.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Path below the runtime directory and contents, as `build.rs` found them.
pub(crate) const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The rules for both seccomp programs.
pub(crate) const SECCOMP_RULES: &str = include_str!("../runtime/seccomp.json");

/// Writes all files below `dir`, readable by every worker's uid whatever the umask.
pub(crate) fn write_to(dir: &Path) -> io::Result<()> {
    make_readable_dir(dir)?;
    for (name, contents) in FILES {
        let path = dir.join(name);
        let parents: Vec<_> = path.ancestors().skip(1).take_while(|above| *above != dir).collect();
        for parent in parents.into_iter().rev() {
            make_readable_dir(parent)?;
        }
        fs::write(&path, contents)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn make_readable_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zygote_and_its_packages_are_embedded() {
        for needed in ["zygote.py", "enter.py", "functionsplatform_runtime/worker.py"] {
            assert!(FILES.iter().any(|(name, _)| *name == needed), "{needed} is missing");
        }
    }

    #[test]
    fn files_are_readable_for_everybody() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        write_to(&dir.path().join("python")).expect("it writes");
        let mode =
            fs::metadata(dir.path().join("python/zygote.py")).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }
}
