//! Code on disk: one read-only directory per content, named by its SHA-256.
//!
//! A tree is unpacked beside its final place and renamed into it, so a crash leaves either the
//! whole or nothing; what is left of half a deploy is swept at the next start. Archives are
//! checked before a byte is written: no absolute paths, no `..`, no links or devices, no two
//! names that differ in case only, and bounds on count and size.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Most files of one function: ten times what a large function with its packages has.
const MAX_FILES: usize = 20_000;

/// Largest unpacked code, in bytes: AWS Lambda's limit, which users know.
const MAX_UNPACKED: u64 = 250 << 20;

/// Why code was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodeError {
    #[error("the archive is not a zip file that can be read; zip the directory again")]
    NotZip,
    #[error("{path:?} in the archive {fault}")]
    Entry { path: String, fault: &'static str },
    #[error("the code has more than {MAX_FILES} files; leave caches and virtual environments out")]
    TooManyFiles,
    #[error("the code is more than {} MiB unpacked; leave caches and virtual environments out", MAX_UNPACKED >> 20)]
    TooLarge,
    #[error("cannot read {path:?}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the code store at {path:?}: {source}; free space or fix its permissions")]
    Write { path: PathBuf, source: io::Error },
}

impl CodeError {
    /// Whether the code is at fault, rather than this machine.
    pub(crate) fn is_callers(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }
}

/// Files of a function by relative path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree(BTreeMap<String, Bytes>);

impl Tree {
    /// One file.
    pub(crate) fn of_file(name: &str, text: &str) -> Self {
        Self(BTreeMap::from([(name.to_owned(), Bytes::copy_from_slice(text.as_bytes()))]))
    }

    /// The content of a file.
    pub(crate) fn get(&self, path: &str) -> Option<&Bytes> {
        self.0.get(path)
    }

    /// The files of an archive.
    pub(crate) fn of_zip(archive: &[u8]) -> Result<Self, CodeError> {
        let mut zip = zip::ZipArchive::new(io::Cursor::new(archive)).map_err(|_| CodeError::NotZip)?;
        let mut tree = Builder::default();
        for index in 0..zip.len() {
            let mut entry = zip.by_index(index).map_err(|_| CodeError::NotZip)?;
            let path = entry.name().map_err(|_| CodeError::NotZip)?.into_owned();
            let kind = entry.unix_mode().map_or(0, |mode| mode & 0o170_000);
            if entry.is_dir() {
                check_path(path.trim_end_matches('/'))?;
                continue;
            }
            if !matches!(kind, 0 | 0o100_000) {
                return Err(CodeError::Entry {
                    path,
                    fault: "is a link or a device; archives may hold files only",
                });
            }
            let mut content = Vec::new();
            let left = tree.left();
            entry.by_ref().take(left + 1).read_to_end(&mut content).map_err(|_| CodeError::NotZip)?;
            tree.add(path, content.into())?;
        }
        Ok(tree.finish())
    }

    /// The files of a directory; hidden files, `__pycache__` and links are left out.
    pub(crate) fn of_directory(root: &Path) -> Result<Self, CodeError> {
        let mut tree = Builder::default();
        let mut pending = vec![root.to_path_buf()];
        while let Some(directory) = pending.pop() {
            let read = |source| CodeError::Read { path: directory.clone(), source };
            for entry in fs::read_dir(&directory).map_err(read)? {
                let entry = entry.map_err(read)?;
                let name = entry.file_name();
                if name.as_encoded_bytes().starts_with(b".") || name == "__pycache__" {
                    continue;
                }
                let path = entry.path();
                let kind = entry.file_type().map_err(read)?;
                if kind.is_dir() {
                    pending.push(path);
                } else if kind.is_file() {
                    let content =
                        fs::read(&path).map_err(|source| CodeError::Read { path: path.clone(), source })?;
                    let relative = path.strip_prefix(root).unwrap_or(&path);
                    tree.add(relative.to_string_lossy().into_owned(), content.into())?;
                }
            }
        }
        Ok(tree.finish())
    }

    /// SHA-256 over names and contents, in hexadecimal.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for (path, content) in &self.0 {
            for part in [path.as_bytes(), content] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[derive(Default)]
struct Builder {
    files: BTreeMap<String, Bytes>,
    folded: std::collections::BTreeSet<String>,
    bytes: u64,
}

impl Builder {
    fn left(&self) -> u64 {
        MAX_UNPACKED - self.bytes
    }

    fn add(&mut self, path: String, content: Bytes) -> Result<(), CodeError> {
        check_path(&path)?;
        if self.files.len() == MAX_FILES {
            return Err(CodeError::TooManyFiles);
        }
        if content.len() as u64 > self.left() {
            return Err(CodeError::TooLarge);
        }
        if !self.folded.insert(path.to_lowercase()) {
            return Err(CodeError::Entry {
                path,
                fault: "is there twice, or differs from another in case only",
            });
        }
        self.bytes += content.len() as u64;
        self.files.insert(path, content);
        Ok(())
    }

    fn finish(self) -> Tree {
        Tree(self.files)
    }
}

fn check_path(path: &str) -> Result<(), CodeError> {
    let fault = |fault| CodeError::Entry { path: path.to_owned(), fault };
    if path.is_empty() || path.contains(['\0', '\\']) || path.len() > 1024 {
        return Err(fault("has an empty or unusable name"));
    }
    let only_normal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !only_normal || path.starts_with('/') {
        return Err(fault("is absolute or has a . or .. in it; name files relative to the root"));
    }
    Ok(())
}

/// Where code lives.
#[derive(Debug, Clone)]
pub(crate) struct CodeStore {
    root: PathBuf,
}

impl CodeStore {
    /// Opens the store, sweeping what a crash left half unpacked.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, CodeError> {
        let root = data_dir.join("code");
        let write = |source| CodeError::Write { path: root.clone(), source };
        fs::create_dir_all(&root).map_err(write)?;
        for entry in fs::read_dir(&root).map_err(write)?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".new-") {
                // A leftover that cannot be removed is in nobody's way: the next one has another name.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { root })
    }

    /// The directory of a content.
    pub(crate) fn directory(&self, hash: &str) -> PathBuf {
        self.root.join(hash)
    }

    /// Puts a tree on disk unless it is there, and returns its hash.
    pub(crate) fn put(&self, tree: &Tree) -> Result<String, CodeError> {
        let hash = tree.hash();
        let target = self.directory(&hash);
        if target.is_dir() {
            return Ok(hash);
        }
        let fresh = self.root.join(format!(".new-{hash}-{}", std::process::id()));
        self.write_tree(&fresh, tree).map_err(|source| CodeError::Write { path: fresh.clone(), source })?;
        match fs::rename(&fresh, &target) {
            Ok(()) => Ok(hash),
            Err(_) if target.is_dir() => fs::remove_dir_all(&fresh)
                .map(|()| hash)
                .map_err(|source| CodeError::Write { path: fresh, source }),
            Err(source) => Err(CodeError::Write { path: target, source }),
        }
    }

    fn write_tree(&self, fresh: &Path, tree: &Tree) -> io::Result<()> {
        let _ = fs::remove_dir_all(fresh);
        fs::create_dir_all(fresh)?;
        for (path, content) in &tree.0 {
            let file = fresh.join(path);
            let parent = file.parent().unwrap_or(fresh);
            fs::create_dir_all(parent)?;
            fs::write(&file, content)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o444))?;
        }
        readable_directories(fresh)
    }

    /// Removes contents that no live version needs.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && !wanted(&name) {
                // What cannot be removed now is tried again at the next start.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Relative paths and sizes of a content.
    pub(crate) fn files(&self, hash: &str) -> Vec<(String, u64)> {
        let root = self.directory(hash);
        let tree = Tree::of_directory(&root).unwrap_or_default();
        tree.0.iter().map(|(path, content)| (path.clone(), content.len() as u64)).collect()
    }
}

/// Workers run under other uids: directories must be searchable whatever our umask is.
fn readable_directories(root: &Path) -> io::Result<()> {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            readable_directories(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn zip_of(entries: &[(&str, Option<u32>, &[u8])]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, mode, content) in entries {
            let mut options = zip::write::SimpleFileOptions::default();
            if let Some(mode) = mode {
                options = options.unix_permissions(*mode);
            }
            zip.start_file(*name, options).expect("a file can be begun");
            zip.write_all(content).expect("memory takes it");
        }
        zip.finish().expect("the archive can be closed").into_inner()
    }

    #[test]
    fn hostile_archives_are_refused_by_name() {
        for bad in ["../x.py", "/etc/passwd", "a/../../b", "a\\b"] {
            let refused = Tree::of_zip(&zip_of(&[(bad, None, b"x")]));
            assert!(matches!(refused, Err(CodeError::Entry { .. })), "{bad}: {refused:?}");
        }
        let twice = zip_of(&[("A.py", None, b"1"), ("a.py", None, b"2")]);
        assert!(matches!(Tree::of_zip(&twice), Err(CodeError::Entry { .. })));
        assert!(matches!(Tree::of_zip(b"not a zip"), Err(CodeError::NotZip)));
    }

    #[test]
    fn a_tree_is_stored_once_under_its_hash() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = CodeStore::open(dir.path()).expect("the store opens");
        let tree = Tree::of_zip(&zip_of(&[("h.py", None, b"x = 1"), ("lib/a.py", None, b"")]))
            .expect("a good archive");
        let hash = store.put(&tree).expect("it is stored");
        assert_eq!(store.put(&tree).expect("again"), hash);
        assert_eq!(store.files(&hash), [("h.py".to_owned(), 5), ("lib/a.py".to_owned(), 0)]);
        store.retain(|_| false);
        assert!(!store.directory(&hash).exists());
    }
}
