//! Style, script and icon: in the binary, so that pages need no file and no other host.
//!
//! Pages link them with their hash, which lets browsers keep them for good; without the hash
//! they are checked again each time by ETag.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

/// One file.
struct Asset {
    kind: &'static str,
    bytes: &'static [u8],
    hash: String,
    link: String,
}

impl Asset {
    fn new(path: &str, kind: &'static str, bytes: &'static [u8]) -> Self {
        let hash: String = Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { kind, bytes, link: format!("{path}?v={hash}"), hash }
    }
}

static CSS: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("/static/app.css", "text/css; charset=utf-8", include_bytes!("../../../assets/app.css"))
});
static JS: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("/static/app.js", "text/javascript; charset=utf-8", include_bytes!("../../../assets/app.js"))
});
static ICON: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("/static/favicon.svg", "image/svg+xml", include_bytes!("../../../assets/favicon.svg"))
});

/// Where the style sheet is.
pub(crate) fn css_link() -> &'static str {
    &CSS.link
}

/// Where the script is.
pub(super) fn js_link() -> &'static str {
    &JS.link
}

/// The routes of the assets.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let serve = |asset: fn() -> &'static Asset| {
        get(
            move |headers: HeaderMap, RawQuery(query): RawQuery| async move { answer(asset(), &headers, query) },
        )
    };
    Router::new()
        .route("/static/app.css", serve(|| &CSS))
        .route("/static/app.js", serve(|| &JS))
        .route("/static/favicon.svg", serve(|| &ICON))
        .route("/favicon.ico", serve(|| &ICON))
}

fn answer(asset: &'static Asset, headers: &HeaderMap, query: Option<String>) -> Response {
    let etag = format!("\"{}\"", asset.hash);
    let pinned = query.is_some_and(|query| query == format!("v={}", asset.hash));
    let keep = if pinned { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|list| list.split(',').any(|tag| matches!(tag.trim(), t if t == etag || t == "*")))
    });
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, asset.kind)], asset.bytes).into_response()
    };
    let sent = response.headers_mut();
    sent.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    sent.insert(ETAG, HeaderValue::from_str(&etag).expect("hexadecimal digits in quotes are a header value"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_with_the_hash_is_kept_for_good_and_a_bare_one_is_checked() {
        let pinned = answer(&CSS, &HeaderMap::new(), Some(format!("v={}", CSS.hash)));
        assert_eq!(pinned.headers()[CACHE_CONTROL], "public, max-age=31536000, immutable");
        let bare = answer(&CSS, &HeaderMap::new(), Some("v=old".into()));
        assert_eq!(bare.headers()[CACHE_CONTROL], "no-cache");
        assert_eq!(bare.headers()[CONTENT_TYPE], "text/css; charset=utf-8");
    }

    #[test]
    fn a_known_tag_is_not_sent_again() {
        let tag = format!("\"old\", \"{}\"", JS.hash);
        let headers = HeaderMap::from_iter([(IF_NONE_MATCH, tag.parse().expect("a header value"))]);
        assert_eq!(answer(&JS, &headers, None).status(), StatusCode::NOT_MODIFIED);
        let other = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("\"other\""))]);
        assert_eq!(answer(&JS, &other, None).status(), StatusCode::OK);
    }
}
