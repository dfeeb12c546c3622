//! Whose functions a request is for: by host name, by the prefix `/t/…`, else by where it comes from.
//!
//! `acme.localhost` and `acme.<name>` for every name that the operator gave are the tenant acme's; so
//! is what begins with `/t/acme/`, which is cut off before the route is looked up. Without either, a
//! function's request is for its own tenant, everybody else's for `default`. A tenant that does not
//! exist has no routes: what is said then is what is said of an unknown route.

use fp_core::Tenant;
use http::header::HOST;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};

use super::Peer;
use crate::access::Access;

/// What comes before a tenant's name in a path.
const PREFIX: &str = "/t/";

/// The name that is always this machine's own, below which tenants have names of their own.
const LOCALHOST: &str = "localhost";

/// Whose functions are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Addressee {
    /// This tenant's.
    Tenant(Tenant),
    /// Those of a tenant that does not exist.
    Nobody,
}

/// Finds out whose functions a request is for, and takes the prefix from its path.
pub(super) fn addressee(parts: &mut Parts, peer: &Peer, access: &Access, hosts: &[String]) -> Addressee {
    let by_host = named_by_host(parts, hosts).map(|name| existing(access, name));
    let by_path = parts.uri.path().strip_prefix(PREFIX).map(|rest| {
        let name = rest.split('/').next().unwrap_or_default();
        (existing(access, name), name.len())
    });
    match (by_host, by_path) {
        // Two names must be the same tenant's: a page of one host name speaks for one tenant.
        (Some(host), Some((path, _))) if host != path => Addressee::Nobody,
        (_, Some((addressee, length))) => {
            parts.uri = without_prefix(&parts.uri, PREFIX.len() + length);
            addressee
        }
        (Some(addressee), None) => addressee,
        (None, None) => Addressee::Tenant(peer.tenant()),
    }
}

fn existing(access: &Access, name: &str) -> Addressee {
    access.tenant(&name.to_ascii_lowercase()).map_or(Addressee::Nobody, Addressee::Tenant)
}

/// What stands before the dot of a name that tenants have names below.
fn named_by_host<'a>(parts: &'a Parts, hosts: &[String]) -> Option<&'a str> {
    let in_uri = parts.uri.host();
    let in_header = || parts.headers.get(HOST)?.to_str().ok().map(without_port);
    let host = in_uri.or_else(in_header)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    let bases = hosts.iter().map(|base| without_port(base)).chain([LOCALHOST]);
    bases.into_iter().find_map(|base| below(host, base))
}

/// `acme` of `acme.localhost`.
fn below<'a>(host: &'a str, base: &str) -> Option<&'a str> {
    let (name, tail) = host.split_at_checked(host.len().checked_sub(base.len() + 1)?)?;
    let fits = tail.starts_with('.') && tail[1..].eq_ignore_ascii_case(base);
    Some(name).filter(|name| fits && !name.is_empty())
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

/// The same without the first bytes of its path; what is left begins with a slash.
fn without_prefix(uri: &Uri, length: usize) -> Uri {
    let path = &uri.path()[length..];
    let path = if path.is_empty() { "/" } else { path };
    let left = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(left).expect("a part of a path is one"));
    Uri::from_parts(parts).expect("it had these parts before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::Room;

    fn parts(host: &str, target: &str) -> Parts {
        http::Request::builder().uri(target).header(HOST, host).body(()).expect("a request").into_parts().0
    }

    async fn room() -> Room {
        let room = Room::new().await;
        room.tenant("acme").await;
        room.tenant("globex").await;
        room
    }

    /// The tenant and the path that is left; `-` for nobody.
    fn found(room: &Room, host: &str, target: &str, peer: &Peer) -> (String, String) {
        let mut parts = parts(host, target);
        let hosts = ["functions.example.com".to_owned(), "example.org:8443".to_owned()];
        let name = match addressee(&mut parts, peer, &room.access, &hosts) {
            Addressee::Tenant(tenant) => tenant.to_string(),
            Addressee::Nobody => "-".to_owned(),
        };
        (name, parts.uri.to_string())
    }

    fn stranger() -> Peer {
        Peer::Address(([127, 0, 0, 1], 1).into())
    }

    #[tokio::test]
    async fn a_tenant_is_named_by_its_host_or_by_its_prefix() {
        let room = room().await;
        for (host, target, tenant, left) in [
            ("127.0.0.1:5000", "/x?a=1", "default", "/x?a=1"),
            ("localhost:5000", "/x", "default", "/x"),
            ("acme.localhost:5000", "/x", "acme", "/x"),
            ("ACME.LocalHost", "/x", "acme", "/x"),
            ("acme.localhost.:5000", "/x", "acme", "/x"),
            ("acme.functions.example.com", "/x", "acme", "/x"),
            ("acme.example.org", "/x", "acme", "/x"),
            ("functions.example.com", "/x", "default", "/x"),
            ("acme.example.com", "/x", "default", "/x"),
            ("notlocalhost", "/x", "default", "/x"),
            ("default.localhost", "/x", "default", "/x"),
            ("h", "/t/acme/x?a=1", "acme", "/x?a=1"),
            ("h", "/t/acme/", "acme", "/"),
            ("h", "/t/acme", "acme", "/"),
            ("h", "/t/acme?a=1", "acme", "/?a=1"),
            ("h", "/t/acme//x", "acme", "//x"),
            ("h", "/t/default/x", "default", "/x"),
            ("acme.localhost", "/t/acme/x", "acme", "/x"),
            ("h", "http://acme.localhost/x", "acme", "http://acme.localhost/x"),
            ("h", "http://h/t/acme/x", "acme", "http://h/x"),
            ("h", "/tt/acme/x", "default", "/tt/acme/x"),
        ] {
            let wanted = (tenant.to_owned(), left.to_owned());
            assert_eq!(found(&room, host, target, &stranger()), wanted, "{host} {target}");
        }
    }

    #[tokio::test]
    async fn a_tenant_that_does_not_exist_is_nobody_and_two_names_are_one_tenants_or_nobodys() {
        let room = room().await;
        for (host, target) in [
            ("nowhere.localhost", "/x"),
            ("a.b.localhost", "/x"),
            ("h", "/t/nowhere/x"),
            ("h", "/t//x"),
            ("h", "/t/"),
            ("acme.localhost", "/t/globex/x"),
            ("acme.localhost", "/t/nowhere/x"),
        ] {
            assert_eq!(found(&room, host, target, &stranger()).0, "-", "{host} {target}");
        }
    }

    #[tokio::test]
    async fn a_functions_request_is_for_its_own_tenant_unless_it_names_another() {
        let room = room().await;
        let acme: Tenant = "acme".parse().expect("a tenant");
        let peer = Peer::Function { tenant: acme, function: "front".parse().expect("a name") };
        assert_eq!(found(&room, "127.0.0.1:5000", "/x", &peer).0, "acme");
        assert_eq!(found(&room, "127.0.0.1:5000", "/t/globex/x", &peer).0, "globex");
        assert_eq!(found(&room, "localhost:5000", "/t/default/x", &peer).0, "default");
    }
}
