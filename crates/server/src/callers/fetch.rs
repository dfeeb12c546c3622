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
use http::header::ACCEPT;
use http::{Request, StatusCode};
use http_body_util::Full;

use super::keys;
use crate::outbound::{Target, Unreached};

/// Longest read, from the look-up of the name to the last byte: a caller may wait for it.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

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
                let bytes = fetched.unwrap_or(Err(Unreached::Late)).map_err(|error| error.to_string())?;
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

async fn fetch(url: &str, reach: &Reach) -> Result<Bytes, Unreached> {
    let target = Target::of(url)?;
    let request = Request::get(target.path()).header(ACCEPT, "application/json").body(Full::default());
    let request = request.map_err(|_| Unreached::Url)?;
    let answer = target.exchange(|address| reach.allows(address), request, MAX_KEY_SET).await?;
    if answer.status() != StatusCode::OK {
        return Err(Unreached::Status(answer.status()));
    }
    Ok(answer.into_body())
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
}
