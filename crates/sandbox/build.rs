//! Lists the Python files that the binary carries: the runtime and the SDK package.
//!
//! Writes `$OUT_DIR/embedded.rs`, a slice of (path in the run directory, contents). A file
//! that is added to either directory is embedded without another word.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let mut files = Vec::new();
    collect(&here.join("runtime"), Path::new(""), &mut files)?;
    let sdk = here.join("../../sdk/python/functionsplatform");
    if sdk.is_dir() {
        collect(&sdk.canonicalize()?, Path::new("functionsplatform"), &mut files)?;
    }
    files.sort();
    let mut code = String::from("&[\n");
    for (inside, source) in files {
        writeln!(
            code,
            "    ({:?}, include_str!({:?})),",
            inside.display().to_string(),
            source.display().to_string()
        )?;
    }
    code.push_str("]\n");
    fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("embedded.rs"), code)?;
    println!("cargo:rerun-if-changed={}", here.join("../../sdk/python").display());
    Ok(())
}

fn collect(dir: &Path, inside: &Path, files: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={}", dir.display());
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = inside.join(path.file_name().ok_or("an entry without a name")?);
        if path.is_dir() {
            collect(&path, &name, files)?;
        } else if path.extension().is_some_and(|end| end == "py") {
            files.push((name, path));
        }
    }
    Ok(())
}
