//! Reading a set of keys from where it is: a file of the host, or an http or https URL.
//!
//! A URL is named by whoever deploys a function and fetched by the platform, which can reach more
//! than that function may: so the addresses that it leads to are looked at after they were resolved
//! ([`Reach`]), redirects are not followed, and nothing of an answer is told but that it is no set of
//! keys. Time and size are bounded. For https the certificates that this machine trusts are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::token::{KeySet, MAX_KEY_SET};
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::keys;

/// Longest read, from the look-up of the name to the last byte: a caller may wait for it.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Where distributions keep whom they trust: Debian, Fedora, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where a set of keys is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A file of the host.
    File(PathBuf),
    /// A URL.
    Url {
        /// As the author wrote it.
        url: Arc<str>,
        /// Where it may lead.
        reach: Reach,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url { url, .. } => f.write_str(url),
        }
    }
}

/// Where a URL may lead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// The operator's own: everywhere, as functions of theirs can, but for the management of this
    /// platform and link-local addresses, where clouds have their metadata.
    Operator {
        /// The ports of the management.
        guarded_ports: Vec<u16>,
    },
    /// A tenant's: what anybody on the internet reaches.
    Public,
}

impl Reach {
    fn allows(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        match self {
            Self::Operator { guarded_ports } => {
                let is_management = is_own(ip) && guarded_ports.contains(&address.port());
                !is_management && !is_link_local(ip)
            }
            Self::Public => is_public(ip),
        }
    }
}

fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Whether the IANA registries of special addresses leave it to everybody.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

/// Global unicast, without documentation and without what leads on to addresses of IPv4.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let is_special = matches!((a, b), (0x2001, 0..=0x1ff) | (0x2001, 0xdb8) | (0x2002, _) | (0x3fff, _));
    (0x2000..=0x3fff).contains(&a) && !is_special
}

/// Why a URL was not read, in words that anybody may see.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("it is no http or https URL")]
    Url,
    #[error("its host name is not known")]
    Unknown,
    #[error("it leads to addresses that may not be reached from here")]
    NotAllowed,
    #[error("its server cannot be reached ({0})")]
    Unreachable(std::io::ErrorKind),
    #[error("this machine has no list of certificates to trust")]
    NobodyTrusted,
    #[error("its server is not trusted, or speaks no TLS")]
    Tls,
    #[error("its server does not answer by HTTP")]
    Http,
    #[error("its server answered {0}, not 200; redirects are not followed")]
    Status(StatusCode),
    #[error("the answer is larger than 256 KiB")]
    TooLarge,
    #[error("there was no answer within {} s", LIMIT.as_secs())]
    Late,
}

impl Place {
    /// The set of keys that is there now.
    ///
    /// # Errors
    /// Half a sentence.
    pub(super) async fn read(&self) -> Result<KeySet, String> {
        match self {
            Self::File(path) => read_file(path).await,
            Self::Url { url, reach } => {
                let fetched = tokio::time::timeout(LIMIT, fetch(url, reach)).await;
                let bytes = fetched.unwrap_or(Err(FetchError::Late)).map_err(|error| error.to_string())?;
                KeySet::parse(&bytes).map_err(|error| error.to_string())
            }
        }
    }
}

async fn read_file(path: &Path) -> Result<KeySet, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || keys::read_file(&path)).await;
    read.unwrap_or_else(|_| Err("reading it was broken off".to_owned()))
}

/// Whether a URL could be fetched at all.
///
/// # Errors
/// Half a sentence.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    Target::of(url).map(|_| ()).map_err(|error| error.to_string())
}

/// A URL taken apart.
#[derive(Debug)]
struct Target {
    uri: Uri,
    is_https: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl Target {
    fn of(url: &str) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(FetchError::Url),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(FetchError::Url)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        // Behind the brackets of an address there is only the port.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let names_port = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        let port = match uri.port_u16() {
            Some(port) => port,
            None if names_port => return Err(FetchError::Url),
            None if is_https => 443,
            None => 80,
        };
        Ok(Self { is_https, host, port, uri })
    }
}

async fn fetch(url: &str, reach: &Reach) -> Result<Bytes, FetchError> {
    let target = Target::of(url)?;
    let stream = connect(&target, reach).await?;
    if !target.is_https {
        return exchange(stream, &target).await;
    }
    // Read anew each time: it is seldom, and whom this machine trusts may have changed.
    let trusted = tokio::task::spawn_blocking(trusted).await;
    let connector = trusted.ok().flatten().ok_or(FetchError::NobodyTrusted)?;
    let name = ServerName::try_from(target.host.clone()).map_err(|_| FetchError::Url)?;
    let stream = connector.connect(name, stream).await.map_err(|_| FetchError::Tls)?;
    exchange(stream, &target).await
}

/// Connects to the first address that answers of those that may be reached.
async fn connect(target: &Target, reach: &Reach) -> Result<TcpStream, FetchError> {
    let resolved = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let addresses: Vec<_> = resolved.map_err(|_| FetchError::Unknown)?.collect();
    let mut failed = if addresses.is_empty() { FetchError::Unknown } else { FetchError::NotAllowed };
    for address in addresses.into_iter().filter(|address| reach.allows(*address)) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = FetchError::Unreachable(error.kind()),
        }
    }
    Err(failed)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    target: &Target,
) -> Result<Bytes, FetchError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| FetchError::Http)?;
    let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = target.uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("functionsplatform/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|_| FetchError::Http)?;
        body_of(response).await
    };
    tokio::pin!(answer);
    // The connection works only while it is polled, and ends with this.
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

async fn body_of(response: Response<Incoming>) -> Result<Bytes, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    match Limited::new(response.into_body(), MAX_KEY_SET).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
        Err(_) => Err(FetchError::Http),
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

    fn allows(reach: &Reach, address: &str) -> bool {
        reach.allows(address.parse().unwrap())
    }

    #[test]
    fn a_tenants_url_leads_to_the_internet_only() {
        for address in
            ["1.1.1.1:443", "93.184.216.34:80", "[2606:4700::1]:443", "172.32.0.1:1", "100.63.0.1:1"]
        {
            assert!(allows(&Reach::Public, address), "{address}");
        }
        for address in [
            "127.0.0.1:80",
            "127.9.9.9:80",
            "0.0.0.0:80",
            "10.0.0.1:80",
            "172.16.0.1:80",
            "172.31.255.1:80",
            "192.168.1.1:80",
            "169.254.169.254:80",
            "100.64.0.1:80",
            "192.0.2.1:80",
            "198.19.0.1:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[::1]:80",
            "[::]:80",
            "[fe80::1]:80",
            "[fc00::1]:80",
            "[fd12::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:10.0.0.1]:80",
            "[64:ff9b::a00:1]:80",
            "[2002:7f00:1::]:80",
            "[2001:db8::1]:80",
            "[2001::1]:80",
            "[ff02::1]:80",
            "[::127.0.0.1]:80",
        ] {
            assert!(!allows(&Reach::Public, address), "{address}");
        }
    }

    #[test]
    fn the_operators_leads_everywhere_but_to_the_management_and_to_metadata() {
        let reach = Reach::Operator { guarded_ports: vec![8000] };
        for address in ["127.0.0.1:5000", "10.0.0.1:8000", "1.1.1.1:443", "[::1]:80"] {
            assert!(allows(&reach, address), "{address}");
        }
        for address in [
            "127.0.0.1:8000",
            "127.0.0.2:8000",
            "0.0.0.0:8000",
            "[::1]:8000",
            "[::ffff:127.0.0.1]:8000",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[::ffff:169.254.169.254]:80",
        ] {
            assert!(!allows(&reach, address), "{address}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let target = Target::of("https://[2001:db8::1]:8443/jwks?x=1").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.is_https), ("2001:db8::1", 8443, true));
        let target = Target::of("http://login.example.com/jwks").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.is_https), ("login.example.com", 80, false));
        for url in ["ftp://a/", "/jwks", "https://", "https://a:99999/", "nothing"] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }
}
