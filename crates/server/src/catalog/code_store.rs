//! Code on disk: one read-only directory per content, named by its SHA-256.
//!
//! A tree is unpacked beside its final place and renamed into it, so a crash leaves either the
//! whole or nothing; what is left of half a deploy is swept at the next start. Archives are
//! checked before a byte is written: no absolute paths, no `..`, no links or devices, no name
//! that a file system cannot hold or that is there twice, and bounds on count and size.
//!
//! Whoever needs a content holds a [`CodeHold`]; the directory goes with the last of them,
//! unless a live version keeps it for the next start.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use fp_core::code::Code;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::store;

/// Most files of one function: ten times what a large function with its packages has.
const MAX_FILES: usize = 20_000;

/// Largest unpacked code, in bytes: AWS Lambda's limit, which users know.
const MAX_UNPACKED: u64 = 250 << 20;

/// Longest path of a file: room for the code store's own path below Linux' 4,096 (PATH_MAX).
const MAX_PATH: usize = 1024;

/// Longest name of a file or directory: what Linux' file systems take (NAME_MAX).
const MAX_NAME: usize = 255;

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
    /// The error's word: the code is at fault, or this machine.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Write { source, .. } if store::is_out_of_space(source) => Code::StorageFull,
            Self::Write { .. } => Code::StorageFailed,
            _ => Code::InvalidArchive,
        }
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

    /// Where its files are, relative.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The content of a file.
    pub(crate) fn get(&self, path: &str) -> Option<&Bytes> {
        self.0.get(path)
    }

    /// The files of an archive.
    pub(crate) fn of_zip(archive: &[u8]) -> Result<Self, CodeError> {
        let mut zip = zip::ZipArchive::new(io::Cursor::new(archive)).map_err(|_| CodeError::NotZip)?;
        refuse_repeated_names(archive, zip.central_directory_start())?;
        // An archive that owns up to its size costs nothing; one that lies is found out below.
        if zip.decompressed_size().is_some_and(|size| size > u128::from(MAX_UNPACKED)) {
            return Err(CodeError::TooLarge);
        }
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
        tree.finish()
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
        tree.finish()
    }

    /// Whether a relative path is a directory here; `.` and double slashes say nothing.
    pub(crate) fn has_directory(&self, path: &str) -> bool {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let prefix = parts.join("/");
        prefix.is_empty() || self.0.keys().any(|file| is_below(file, &prefix))
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
            return Err(CodeError::Entry { path, fault: IS_THERE_TWICE });
        }
        self.bytes += content.len() as u64;
        self.files.insert(path, content);
        Ok(())
    }

    fn finish(self) -> Result<Tree, CodeError> {
        for path in self.files.keys() {
            let mut above = path.as_str();
            while let Some((parent, _)) = above.rsplit_once('/') {
                if self.files.contains_key(parent) {
                    let fault = "is below a name that is a file; rename one of them";
                    return Err(CodeError::Entry { path: path.clone(), fault });
                }
                above = parent;
            }
        }
        Ok(Tree(self.files))
    }
}

const IS_THERE_TWICE: &str = "is there twice, or differs from another in case only; leave one";

fn is_below(file: &str, directory: &str) -> bool {
    file.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn check_path(path: &str) -> Result<(), CodeError> {
    let fault = |fault| CodeError::Entry { path: path.to_owned(), fault };
    if path.is_empty() || path.contains(['\0', '\\']) {
        return Err(fault("has an empty or unusable name"));
    }
    if path.len() > MAX_PATH || path.split('/').any(|part| part.len() > MAX_NAME) {
        return Err(fault("has a longer name than files can have; the limit is 255 bytes"));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(fault("is absolute or has a . or .. in it; name files relative to the root"));
    }
    Ok(())
}

/// An archive may list a name twice; the reader would show the last one only, other tools the
/// first. `start` is where the list begins.
fn refuse_repeated_names(archive: &[u8], start: u64) -> Result<(), CodeError> {
    /// A file's entry in the list: signature, length of the fixed part, and where in it the
    /// lengths of name, extra field and comment are (APPNOTE.TXT 4.3.12).
    const SIGNATURE: &[u8] = b"PK\x01\x02";
    const FIXED: usize = 46;
    let mut seen = std::collections::BTreeSet::new();
    let mut left = usize::try_from(start).ok().and_then(|start| archive.get(start..)).unwrap_or_default();
    while left.len() >= FIXED && left.starts_with(SIGNATURE) {
        let length = |at: usize| usize::from(u16::from_le_bytes([left[at], left[at + 1]]));
        let (name, rest) = (length(28), length(30) + length(32));
        let Some(text) = left.get(FIXED..FIXED + name) else { return Err(CodeError::NotZip) };
        if !seen.insert(text) {
            let path = String::from_utf8_lossy(text).into_owned();
            return Err(CodeError::Entry { path, fault: IS_THERE_TWICE });
        }
        left = left.get(FIXED + name + rest..).unwrap_or_default();
    }
    Ok(())
}

/// Where code lives.
#[derive(Debug, Clone)]
pub(crate) struct CodeStore {
    root: PathBuf,
    /// How many need each content.
    holds: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Sizes of those that were asked for.
    sizes: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// Tells directories of one process apart that are being written or removed.
static NEXT_DIRECTORY: AtomicU64 = AtomicU64::new(1);

impl CodeStore {
    /// Opens the store, sweeping what a crash left half unpacked or half removed.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, CodeError> {
        let root = data_dir.join("code");
        let write = |source| CodeError::Write { path: root.clone(), source };
        fs::create_dir_all(&root).map_err(write)?;
        // Workers without namespaces of their own come by the path that they are told; nobody lists it.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).map_err(write)?;
        for entry in fs::read_dir(&root).map_err(write)?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                // A leftover that cannot be removed is in nobody's way: the next one has another name.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { root, holds: Arc::default(), sizes: Arc::default() })
    }

    /// The directory of a content.
    pub(crate) fn directory(&self, hash: &str) -> PathBuf {
        self.root.join(hash)
    }

    /// Keeps a content from being removed, whether it is there already or not.
    pub(crate) fn hold(&self, hash: &str) -> CodeHold {
        *self.holds.lock().entry(hash.to_owned()).or_default() += 1;
        CodeHold { store: self.clone(), hash: hash.to_owned(), kept: AtomicBool::new(false) }
    }

    /// Puts a tree on disk unless it is there.
    pub(crate) fn put(&self, tree: &Tree) -> Result<CodeHold, CodeError> {
        let hold = self.hold(&tree.hash());
        let target = self.directory(hold.hash());
        if target.is_dir() {
            return Ok(hold);
        }
        let fresh = self.beside("new");
        let written = self.write_tree(&fresh, tree).and_then(|()| match fs::rename(&fresh, &target) {
            Err(_) if target.is_dir() => fs::remove_dir_all(&fresh),
            renamed => renamed,
        });
        match written {
            Ok(()) => Ok(hold),
            Err(source) => {
                // The error that is told is the first one.
                let _ = fs::remove_dir_all(&fresh);
                Err(CodeError::Write { path: target, source })
            }
        }
    }

    /// A directory that no other step of this process uses, and that the next start sweeps.
    fn beside(&self, purpose: &str) -> PathBuf {
        let number = NEXT_DIRECTORY.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!(".{purpose}-{}-{number}", std::process::id()))
    }

    /// One holder less; the last one takes the directory along. It is renamed under the lock, so
    /// that a deploy of the same content begins with none, and removed after it.
    fn release(&self, hash: &str) {
        let mut holds = self.holds.lock();
        let Some(count) = holds.get_mut(hash) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        holds.remove(hash);
        self.sizes.lock().remove(hash);
        let old = self.beside("old");
        if fs::rename(self.directory(hash), &old).is_err() {
            return;
        }
        drop(holds);
        // What cannot be removed now is swept at the next start.
        let remove = move || drop(fs::remove_dir_all(old));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }

    fn write_tree(&self, fresh: &Path, tree: &Tree) -> io::Result<()> {
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

    /// Relative paths and sizes of a content: all of its files, also those that a directory's
    /// deploy would have left out.
    pub(crate) fn files(&self, hash: &str) -> Vec<(String, u64)> {
        let root = self.directory(hash);
        let mut files = Vec::new();
        // What cannot be read is not there: the directory goes when nobody needs it any more.
        let _ = walk(&root, &mut |path, bytes| {
            let relative = path.strip_prefix(&root).unwrap_or(path);
            files.push((relative.to_string_lossy().into_owned(), bytes));
        });
        files.sort_unstable();
        files
    }

    /// Size of a content. It is looked up on the disk once, because contents do not change.
    pub(crate) fn bytes(&self, hash: &str) -> u64 {
        if let Some(known) = self.sizes.lock().get(hash) {
            return *known;
        }
        let bytes = self.files(hash).iter().map(|(_, bytes)| bytes).sum();
        // Under this lock nothing goes: what has gone meanwhile is not remembered.
        let holds = self.holds.lock();
        if holds.contains_key(hash) {
            self.sizes.lock().insert(hash.to_owned(), bytes);
        }
        bytes
    }
}

/// Every file below a directory with its size.
fn walk(directory: &Path, found: &mut impl FnMut(&Path, u64)) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        // The store holds no links.
        if entry.file_type()?.is_dir() {
            walk(&path, found)?;
        } else {
            found(&path, entry.metadata()?.len());
        }
    }
    Ok(())
}

/// A reason for a content to stay on disk.
#[derive(Debug)]
pub(crate) struct CodeHold {
    store: CodeStore,
    hash: String,
    kept: AtomicBool,
}

impl CodeHold {
    /// SHA-256 of the content, in hexadecimal.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The registry names the content from now on: it outlives this process.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }

    /// The registry does not name it any more: it goes when the last call has ended.
    pub(crate) fn let_go(&self) {
        self.kept.store(false, Ordering::Release);
    }
}

impl Drop for CodeHold {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire) {
            self.store.release(&self.hash);
        }
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
        let long = "n".repeat(256);
        for bad in ["../x.py", "/etc/passwd", "a/../../b", "a\\b", "a/./b", "a//b", &long] {
            let refused = Tree::of_zip(&zip_of(&[(bad, None, b"x")]));
            assert!(matches!(refused, Err(CodeError::Entry { .. })), "{bad}: {refused:?}");
        }
        let twice = zip_of(&[("A.py", None, b"1"), ("a.py", None, b"2")]);
        assert!(matches!(Tree::of_zip(&twice), Err(CodeError::Entry { .. })));
        let both = zip_of(&[("a", None, b"1"), ("a/b", None, b"2")]);
        let refused = Tree::of_zip(&both).expect_err("a is a file and a directory").to_string();
        assert!(refused.contains("\"a/b\""), "{refused}");
        let same = zip_of(&[("x.txt", None, b"1"), ("w.txt", None, b"2")]);
        let same: Vec<u8> = same.iter().map(|byte| if *byte == b'w' { b'x' } else { *byte }).collect();
        let refused = Tree::of_zip(&same).map(|_| ()).expect_err("twice").to_string();
        assert!(refused.contains("\"x.txt\""), "{refused}");
        let not_zip = Tree::of_zip(b"not a zip").expect_err("refused");
        assert!(matches!(not_zip, CodeError::NotZip));
        assert_eq!(not_zip.code(), Code::InvalidArchive);
    }

    #[test]
    fn a_full_disk_is_told_from_one_that_cannot_be_written() {
        let write = |kind: io::ErrorKind| CodeError::Write { path: "/x".into(), source: kind.into() }.code();
        assert_eq!(write(io::ErrorKind::StorageFull), Code::StorageFull);
        assert_eq!(write(io::ErrorKind::ReadOnlyFilesystem), Code::StorageFailed);
    }

    #[test]
    fn a_tree_is_stored_once_under_its_hash() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = CodeStore::open(dir.path()).expect("the store opens");
        let tree = Tree::of_zip(&zip_of(&[("h.py", None, b"x = 1"), ("lib/a.py", None, b"")]))
            .expect("a good archive");
        let first = store.put(&tree).expect("it is stored");
        let second = store.put(&tree).expect("again");
        let hash = first.hash().to_owned();
        assert_eq!(second.hash(), hash);
        assert_eq!(store.files(&hash), [("h.py".to_owned(), 5), ("lib/a.py".to_owned(), 0)]);
        drop(first);
        assert!(store.directory(&hash).exists());
        second.keep();
        drop(second);
        assert!(store.directory(&hash).exists(), "the next start needs it");
        store.retain(|_| false);
        assert!(!store.directory(&hash).exists());
    }

    #[test]
    fn hidden_files_of_an_archive_count() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = CodeStore::open(dir.path()).expect("the store opens");
        let zip = zip_of(&[
            ("h.py", None, b"x = 1"),
            (".x/blob", None, &[0; 1000]),
            ("__pycache__/h.pyc", None, &[0; 100]),
        ]);
        let held = store.put(&Tree::of_zip(&zip).expect("a good archive")).expect("it is stored");
        let named = |name: &str, bytes| (name.to_owned(), bytes);
        let all = [named(".x/blob", 1000), named("__pycache__/h.pyc", 100), named("h.py", 5)];
        assert_eq!(store.files(held.hash()), all);
        assert_eq!((store.bytes(held.hash()), store.bytes(held.hash())), (1105, 1105));
        let hash = held.hash().to_owned();
        drop(held);
        assert_eq!(store.bytes(&hash), 0, "it is gone");
    }

    #[test]
    fn code_goes_with_the_last_who_needs_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = CodeStore::open(dir.path()).expect("the store opens");
        let tree = Tree::of_file("h.py", "x = 1");
        let live = store.put(&tree).expect("it is stored");
        live.keep();
        drop(store.put(&tree).expect("a deploy that is refused"));
        assert!(store.directory(live.hash()).exists());
        live.let_go();
        drop(live);
        let left: Vec<_> = fs::read_dir(dir.path().join("code")).expect("the store").collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = CodeStore::open(dir.path()).expect("the store opens");
        let tree = Tree(BTreeMap::from([("a".repeat(300), Bytes::new())]));
        assert!(matches!(store.put(&tree), Err(CodeError::Write { .. })));
        let left: Vec<_> = fs::read_dir(dir.path().join("code")).expect("the store").collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn directories_of_a_tree_are_known() {
        let tree = Tree::of_zip(&zip_of(&[("lib/a/b.py", None, b""), ("library", None, b"")])).expect("good");
        for there in [".", "lib", "./lib/", "lib/a", "lib//a"] {
            assert!(tree.has_directory(there), "{there}");
        }
        for not in ["nope", "li", "library", "lib/a/b.py"] {
            assert!(!tree.has_directory(not), "{not}");
        }
    }
}
