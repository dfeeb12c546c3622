//! The key that secrets are sealed under, and the file that it is in.
//!
//! The file is made when the first secret is set: 32 random bytes, mode 0600, synced before
//! anything is sealed under it, and never overwritten. One that others can read, or that belongs
//! to another user, is refused: then the secrets have to be taken for known.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

/// What the file begins with: what it is, and in which form.
const HEADER: &str = "functionsplatform-secrets-key-1 ";

const KEY_BYTES: usize = 32;

/// Far more than the file has.
const MOST_BYTES: u64 = 4096;

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others can read it.
    #[error(
        "the key file {path:?} has mode {mode:04o}, so others can read every secret; run `chmod 600` on it, and rotate the secrets if somebody may have"
    )]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is somebody else's.
    #[error(
        "the key file {path:?} belongs to user {owner}, and the platform runs as user {own}; run `chown {own}` on it, or name another file with --secrets-key-file"
    )]
    Owner {
        /// Which file.
        path: PathBuf,
        /// Whose.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// It does not hold a key.
    #[error(
        "the file {path:?} does not hold a key of secrets; name the right one with --secrets-key-file, or move it away to have one made"
    )]
    Content {
        /// Which file.
        path: PathBuf,
    },
    /// It cannot be read or made.
    #[error("the key file {path:?} cannot be {what}: {source}")]
    File {
        /// `read` or `made`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// A key, ready for use. It stays in memory as long as the platform lives.
pub(crate) struct Key {
    cipher: LessSafeKey,
    id: [u8; 8],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(b"functionsplatform secrets key id\0");
        hash.update(bytes);
        let mut id = [0; 8];
        id.copy_from_slice(&hash.finish().as_ref()[..8]);
        let cipher = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("the cipher takes 32 bytes");
        Self { cipher: LessSafeKey::new(cipher), id }
    }

    /// Tells keys apart without saying anything about them.
    pub(crate) fn id(&self) -> &[u8] {
        &self.id
    }

    pub(super) fn cipher(&self) -> &LessSafeKey {
        &self.cipher
    }
}

/// Where the key is.
#[derive(Debug, Clone)]
pub(crate) struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The key; none if there is no file.
    pub(crate) fn read(&self) -> Result<Option<Key>, KeyError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed("read", source)),
        };
        self.check(&file)?;
        let mut text = Zeroizing::new(String::with_capacity(MOST_BYTES as usize));
        let read = (&mut file).take(MOST_BYTES).read_to_string(&mut text);
        read.map_err(|_| KeyError::Content { path: self.path.clone() })?;
        decoded(&text).map(Some).ok_or_else(|| KeyError::Content { path: self.path.clone() })
    }

    /// The key; a new one if there is no file yet.
    pub(crate) fn read_or_make(&self) -> Result<Key, KeyError> {
        if let Some(key) = self.read()? {
            return Ok(key);
        }
        self.make().map_err(|source| self.failed("made", source))?;
        self.read()?.ok_or_else(|| self.failed("read", std::io::ErrorKind::NotFound.into()))
    }

    /// Written beside and linked into place: a file that is there is whole, and one that has
    /// come meanwhile is left alone.
    fn make(&self) -> std::io::Result<()> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let random = SystemRandom::new().fill(&mut *bytes);
        random.map_err(|_| std::io::Error::other("the kernel gives no random bytes"))?;
        let text = Zeroizing::new(format!("{HEADER}{}\n", STANDARD.encode(*bytes)));
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let beside = directory.join(format!(".secrets-key-{}", std::process::id()));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| match std::fs::hard_link(&beside, &self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
        std::fs::remove_file(&beside)?;
        linked?;
        File::open(directory)?.sync_all()
    }

    /// Of the open file, so that it is the one that is read.
    fn check(&self, file: &File) -> Result<(), KeyError> {
        let found = file.metadata().map_err(|source| self.failed("read", source))?;
        let own = rustix::process::geteuid().as_raw();
        let path = || self.path.clone();
        // What root gives out is root's to know.
        if found.uid() != own && found.uid() != 0 {
            return Err(KeyError::Owner { path: path(), owner: found.uid(), own });
        }
        let mode = found.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode { path: path(), mode });
        }
        Ok(())
    }

    fn failed(&self, what: &'static str, source: std::io::Error) -> KeyError {
        KeyError::File { what, path: self.path.clone(), source }
    }
}

fn decoded(text: &str) -> Option<Key> {
    let encoded = text.strip_prefix(HEADER)?.trim_end();
    let mut bytes = Zeroizing::new([0; KEY_BYTES + 3]);
    let length = STANDARD.decode_slice(encoded, &mut *bytes).ok()?;
    let key: &[u8; KEY_BYTES] = bytes[..length].try_into().ok()?;
    Some(Key::new(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file() -> (tempfile::TempDir, KeyFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::at(dir.path().join("a.key"));
        (dir, file)
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let (dir, file) = file();
        assert!(file.read().unwrap().is_none());
        let made = file.read_or_make().unwrap();
        assert_eq!(file.path().metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(file.read_or_make().unwrap().id(), made.id());
        assert_eq!(dir.path().read_dir().unwrap().count(), 1, "nothing is left beside it");
        let (_other_dir, other) = self::file();
        assert_ne!(other.read_or_make().unwrap().id(), made.id());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let (_dir, file) = file();
        file.read_or_make().unwrap();
        for mode in [0o640, 0o604, 0o610, 0o622] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let error = file.read().unwrap_err();
            assert!(matches!(error, KeyError::Mode { mode: told, .. } if told == mode), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o400)).unwrap();
        assert!(file.read().unwrap().is_some());
    }

    #[test]
    fn a_file_that_holds_something_else_is_refused_and_left() {
        let (_dir, file) = file();
        for text in
            ["", "hello", "functionsplatform-secrets-key-1 AAAA\n", "functionsplatform-secrets-key-2 "]
        {
            std::fs::write(file.path(), text).unwrap();
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(file.read_or_make().unwrap_err(), KeyError::Content { .. }), "{text:?}");
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text);
        }
    }
}
