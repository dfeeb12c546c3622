//! Requests of the platform itself: one connection each, by http or https, without redirects.
//!
//! Who may be reached is the asker's to say, and looked at after the name was resolved. For https the
//! certificates that this machine trusts are.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

const OURSELVES: HeaderValue =
    HeaderValue::from_static(concat!("functionsplatform/", env!("CARGO_PKG_VERSION")));

/// Where distributions keep whom they trust: Debian, Fedora, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why a URL was not read, in words that anybody may see.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreached {
    /// No URL, or of another scheme.
    #[error("it is no http or https URL")]
    Url,
    /// The name does not resolve.
    #[error("its host name is not known")]
    Unknown,
    /// Whoever asks may not reach it.
    #[error("it leads to addresses that may not be reached from here")]
    NotAllowed,
    /// Nobody takes the connection.
    #[error("its server cannot be reached ({0})")]
    Unreachable(std::io::ErrorKind),
    /// There are no roots of trust.
    #[error("this machine has no list of certificates to trust")]
    NobodyTrusted,
    /// The handshake failed.
    #[error("its server is not trusted, or speaks no TLS")]
    Tls,
    /// What came is no HTTP.
    #[error("its server does not answer by HTTP")]
    Http,
    /// Another answer than was wanted.
    #[error("its server answered {0}, not 200; redirects are not followed")]
    Status(StatusCode),
    /// More than is read.
    #[error("the answer is larger than 256 KiB")]
    TooLarge,
    /// The time is over.
    #[error("there was no answer within 5 s")]
    Late,
}

/// A URL taken apart.
#[derive(Debug)]
pub(crate) struct Target {
    uri: Uri,
    is_https: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl Target {
    /// Takes it apart.
    ///
    /// # Errors
    /// [`Unreached::Url`].
    pub(crate) fn of(url: &str) -> Result<Self, Unreached> {
        let uri: Uri = url.parse().map_err(|_| Unreached::Url)?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Unreached::Url),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(Unreached::Url)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        // Behind the brackets of an address there is only the port.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let names_port = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        let port = match uri.port_u16() {
            Some(port) => port,
            None if names_port => return Err(Unreached::Url),
            None if is_https => 443,
            None => 80,
        };
        Ok(Self { is_https, host, port, uri })
    }

    /// The path with its query, as a request line has it.
    pub(crate) fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Sends one request on a connection of its own. The body of the answer is read where its status is 2xx, up
    /// to `most` bytes.
    ///
    /// # Errors
    /// Why there is no answer, in words that anybody may see.
    pub(crate) async fn exchange(
        &self,
        allows: impl Fn(SocketAddr) -> bool,
        mut request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Response<Bytes>, Unreached> {
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| Unreached::Url)?);
        headers.insert(USER_AGENT, OURSELVES);
        let stream = self.connect(allows).await?;
        if !self.is_https {
            return send(stream, request, most).await;
        }
        // Read anew each time: it is seldom, and whom this machine trusts may have changed.
        let trusted = tokio::task::spawn_blocking(trusted).await;
        let connector = trusted.ok().flatten().ok_or(Unreached::NobodyTrusted)?;
        let name = ServerName::try_from(self.host.clone()).map_err(|_| Unreached::Url)?;
        let stream = connector.connect(name, stream).await.map_err(|_| Unreached::Tls)?;
        send(stream, request, most).await
    }

    /// Connects to the first address that answers of those that may be reached.
    async fn connect(&self, allows: impl Fn(SocketAddr) -> bool) -> Result<TcpStream, Unreached> {
        let resolved = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<_> = resolved.map_err(|_| Unreached::Unknown)?.collect();
        let mut failed = if addresses.is_empty() { Unreached::Unknown } else { Unreached::NotAllowed };
        for address in addresses.into_iter().filter(|address| allows(*address)) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Unreached::Unreachable(error.kind()),
            }
        }
        Err(failed)
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Response<Bytes>, Unreached> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Unreached::Http)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|_| Unreached::Http)?;
        read(response, most).await
    };
    tokio::pin!(answer);
    // The connection works only while it is polled, and ends with this.
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

async fn read(response: Response<Incoming>, most: usize) -> Result<Response<Bytes>, Unreached> {
    let (parts, body) = response.into_parts();
    if !parts.status.is_success() {
        return Ok(Response::from_parts(parts, Bytes::new()));
    }
    match Limited::new(body, most).collect().await {
        Ok(whole) => Ok(Response::from_parts(parts, whole.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(Unreached::TooLarge),
        Err(_) => Err(Unreached::Http),
    }
}

/// Trusts whom this machine trusts.
fn trusted() -> Option<TlsConnector> {
    let bundle = SYSTEM_BUNDLES.iter().find(|path| Path::new(path).is_file())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_file_iter(bundle).ok()?.flatten());
    if roots.is_empty() {
        return None;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.expect("the provider speaks TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target = Target::of("https://[2001:db8::1]:8443/jwks?x=1").expect("a URL");
        assert_eq!((target.host.as_str(), target.port, target.is_https), ("2001:db8::1", 8443, true));
        let target = Target::of("http://login.example.com/jwks").expect("a URL");
        assert_eq!((target.host.as_str(), target.port, target.is_https), ("login.example.com", 80, false));
        for url in ["ftp://a/", "/jwks", "https://", "https://a:99999/", "nothing"] {
            assert!(Target::of(url).is_err(), "{url}");
        }
    }
}
