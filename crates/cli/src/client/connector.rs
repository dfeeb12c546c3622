//! Connections to a platform, in the clear or by TLS, as the URI's scheme says.
//!
//! Who is trusted: the certificates in the file of `--ca-cert`, and nobody else where it is given;
//! else those that this machine trusts.

use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tower_service::Service;

use crate::exit::{Exit, Failure};

/// Where distributions keep whom they trust: Debian, Fedora, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

type BoxError = Box<dyn Error + Send + Sync>;

/// Connects by TCP, and speaks TLS where the URI says https.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Connector {
    /// `is_https` says that TLS will be spoken, so that whom to trust is read now.
    pub(crate) fn new(
        mut tcp: HttpConnector,
        is_https: bool,
        ca_cert: Option<&Path>,
    ) -> Result<Self, Failure> {
        tcp.enforce_http(false);
        let tls = is_https.then(|| trusted(ca_cert).map(TlsConnector::from)).transpose()?;
        Ok(Self { tcp, tls })
    }
}

fn trusted(ca_cert: Option<&Path>) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    match ca_cert {
        Some(path) => {
            let wrong = |why: String| Failure::usage(format!("--ca-cert {}: {why}", path.display()));
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let certificates =
                read.map_err(|error| wrong(format!("no certificates can be read from it: {error}")))?;
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(wrong("there is no certificate in it".into()));
            }
        }
        None => {
            let bundle = SYSTEM_BUNDLES.iter().find(|path| Path::new(path).is_file());
            let read = bundle.and_then(|path| CertificateDer::pem_file_iter(path).ok());
            roots.add_parsable_certificates(read.into_iter().flatten().flatten());
            if roots.is_empty() {
                return Err(Failure::new(Exit::Other, "this machine has no list of certificates to trust")
                    .hint("name one with --ca-cert FILE"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.expect("the provider speaks TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone().filter(|_| uri.scheme_str() == Some("https"));
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let connecting = self.tcp.call(uri);
        Box::pin(async move {
            let stream = connecting.await?;
            let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
            let name = ServerName::try_from(host)?;
            let secured = tls.connect(name, stream.into_inner()).await?;
            Ok(Stream::Secured(Box::new(TokioIo::new(secured))))
        })
    }
}

/// A connection to a platform.
#[derive(Debug)]
pub(crate) enum Stream {
    /// In the clear.
    Plain(TokioIo<TcpStream>),
    /// By TLS.
    Secured(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(stream) => stream.connected(),
            Self::Secured(stream) => stream.inner().get_ref().0.connected(),
        }
    }
}

impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, to),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, to),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
