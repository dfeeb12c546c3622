//! Certificates of the listeners: read from PEM files, watched, or made for a first look.
//!
//! What is wrong with the files stops the start with one sentence. Later it is a warning, and what
//! was served before is served on: a renewal that went wrong must not take the platform down.
//! The files are looked at, not signalled about, because every signal ends the platform.

mod validity;

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

pub use crate::config::TlsSource;

/// Directory of self-signed certificates in the data directory.
const OWN_DIRECTORY: &str = "tls";

/// The certificate in it.
pub(crate) const SELF_SIGNED: &str = "tls/self-signed.pem";

/// Why a listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("the TLS {what} {path:?} cannot be read: {why}")]
    File {
        /// `certificate` or `key`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// They do not belong together, or are of a kind that is not spoken.
    #[error("the TLS certificate {cert:?} and the key {key:?} cannot be used together: {why}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What rustls says.
        why: String,
    },
    /// It is over, or has not begun.
    #[error("the TLS certificate {path:?} is {what}; renew it, or check the clock of this machine")]
    NotValid {
        /// Which file.
        path: PathBuf,
        /// `expired since …` or `not valid before …`.
        what: String,
    },
    /// None can be made.
    #[error("a self-signed certificate cannot be made in {path:?}: {why}")]
    SelfSigned {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// What tells a file from its next version.
type Stamp = [Option<(u64, i64, i64, u64)>; 2];

/// The certificate of some listeners, as it is now.
pub(crate) struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
    /// The files that were read last.
    tried: Mutex<Tried>,
}

/// Files that were read, and what of them was said.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tried {
    stamp: Stamp,
    /// Whether they could be used. What could not may be at another time, though nothing in the files
    /// has changed: one that begins later, a directory that was not mounted.
    are_used: bool,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads what the source names; `own` are the addresses that a self-signed one is for.
    ///
    /// # Errors
    /// When a file cannot be read, the two do not belong together, or the time is not theirs.
    pub(crate) fn open(source: &TlsSource, data_dir: &Path, own: &[IpAddr]) -> Result<Arc<Self>, TlsError> {
        let (cert, key) = match source {
            TlsSource::Files { cert, key } => (cert.clone(), key.clone()),
            TlsSource::SelfSigned => self_signed(&data_dir.join(OWN_DIRECTORY), own)?,
        };
        let stamp = stamp_of(&cert, &key);
        let config = ArcSwap::from_pointee(read(&cert, &key)?);
        Ok(Arc::new(Self { cert, key, config, tried: Mutex::new(Tried { stamp, are_used: true }) }))
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// Takes up files that have changed; what cannot be used is tried again at each look, and told
    /// once. Blocks for as long as reading two small files takes.
    pub(crate) fn look(&self) {
        let stamp = stamp_of(&self.cert, &self.key);
        let before = *self.tried.lock();
        if before == (Tried { stamp, are_used: true }) {
            return;
        }
        let read = read(&self.cert, &self.key);
        *self.tried.lock() = Tried { stamp, are_used: read.is_ok() };
        match read {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!(cert = %self.cert.display(), "the TLS certificate was read anew");
            }
            Err(_) if before.stamp == stamp => {}
            Err(error) => {
                tracing::warn!(%error, "the TLS certificate has changed and cannot be used; the one before stays");
            }
        }
    }
}

fn stamp_of(cert: &Path, key: &Path) -> Stamp {
    [cert, key].map(|path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    })
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let wrong = |what, path: &Path, why: String| TlsError::File { what, path: path.into(), why };
    let unreadable = |what, path, error: rustls::pki_types::pem::Error| wrong(what, path, pem_fault(&error));
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| unreadable("certificate", cert, error))?;
    let Some(first) = chain.first() else {
        return Err(wrong("certificate", cert, "there is no CERTIFICATE in it".into()));
    };
    check_time(cert, first)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("key", key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.expect("the provider speaks TLS 1.2 and 1.3").with_no_client_auth();
    let mut config = builder.with_single_cert(chain, private).map_err(|error| {
        let why = match error {
            rustls::Error::InconsistentKeys(_) => "the key is another certificate's".to_owned(),
            error => error.to_string(),
        };
        TlsError::Pair { cert: cert.into(), key: key.into(), why }
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn pem_fault(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound => "there is none in it; it must be in PEM".to_owned(),
        _ => "it is damaged PEM".to_owned(),
    }
}

fn check_time(path: &Path, certificate: &CertificateDer<'_>) -> Result<(), TlsError> {
    // One whose times cannot be read is rustls's and the client's to judge.
    let Some((from, until)) = validity::of(certificate) else { return Ok(()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let show =
        |seconds| jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default();
    let what = match now {
        now if now > until => format!("expired since {}", show(until)),
        now if now < from => format!("not valid before {}", show(from)),
        _ => return Ok(()),
    };
    Err(TlsError::NotValid { path: path.into(), what })
}

/// A certificate for this machine's names, made once and kept, so that clients that were told of
/// it need not be told again.
fn self_signed(directory: &Path, own: &[IpAddr]) -> Result<(PathBuf, PathBuf), TlsError> {
    let (cert, key) = (directory.join("self-signed.pem"), directory.join("self-signed.key"));
    if cert.is_file() && key.is_file() && read(&cert, &key).is_ok() {
        return Ok((cert, key));
    }
    let failed = |why: String| TlsError::SelfSigned { path: directory.into(), why };
    let (certificate, private) = make_self_signed(own).map_err(|error| failed(error.to_string()))?;
    let write = || {
        std::fs::create_dir_all(directory)?;
        write_private(&key, &private)?;
        std::fs::write(&cert, &certificate)
    };
    write().map_err(|error| failed(error.to_string()))?;
    Ok((cert, key))
}

fn make_self_signed(own: &[IpAddr]) -> Result<(String, String), rcgen::Error> {
    let mut names =
        vec!["localhost".to_owned(), "*.localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let others = own.iter().filter(|ip| !ip.is_unspecified()).map(IpAddr::to_string);
    names.extend(others.chain(host_name()));
    names.sort_unstable();
    names.dedup();
    let mut wanted = rcgen::CertificateParams::new(names)?;
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    wanted.distinguished_name.push(rcgen::DnType::CommonName, "functionsplatform, self-signed");
    let key = rcgen::KeyPair::generate()?;
    Ok((wanted.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    let is_dns = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    (!name.is_empty() && name.chars().all(is_dns)).then_some(name)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file: File = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // The mode above is only for a file that was not there.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests;
