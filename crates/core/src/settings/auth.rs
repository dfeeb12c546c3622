//! Who may call a function at the gateway: `visibility` and `[auth]`.
//!
//! A function is seen by everybody, or by its tenant's functions and the holders of its tenant's
//! keys alone. `[auth]` names what lets a caller in; any one of what it names is enough, and where
//! it names nothing everybody is let in. What a caller sent is judged in [`crate::credential`] and
//! [`crate::token`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::error::SettingsError;
use super::read::{is_inside, parsed};
use super::tree::{Field, Fields, Value};
use crate::ids::SecretName;

/// The header that GitHub signs its webhooks in.
pub const GITHUB_SIGNATURE: &str = "x-hub-signature-256";

/// Longest text that names a key set, an issuer or an audience: URLs beyond are refused by servers.
const LONGEST_NAME: usize = 2048;

/// Audiences of one function: one for each name that it ever had, and some.
const MOST_AUDIENCES: usize = 16;

/// Who sees a function at the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// Functions of its tenant, and who holds a key of it; for all others it does not exist.
    Private,
}

/// What lets a caller in; any one of it is enough, and nothing at all lets everybody in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// A key of the tenant with the scope `invoke`.
    pub key: bool,
    /// A signature over the body.
    pub hmac: Option<HmacAuth>,
    /// A JSON web token.
    pub jwt: Option<JwtAuth>,
}

impl Auth {
    /// Whether everybody is let in.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// HMAC-SHA256 over the body, in hexadecimal digits in a header, as GitHub does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HmacAuth {
    /// The secret of the tenant that both sides know.
    pub secret: SecretName,
    /// The header, in lower case.
    pub header: String,
}

/// A token that one of a set of keys has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtAuth {
    /// Where the keys are.
    pub jwks: KeysFrom,
    /// Who must have made the token (`iss`).
    pub issuer: String,
    /// For whom it must have been made (`aud`): any one of these; never empty.
    pub audience: Vec<String>,
}

/// Where a JWK set is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeysFrom {
    /// A file of the function's own.
    Code(String),
    /// A file of the platform's host, by its absolute path.
    Host(String),
    /// An http or https URL.
    Url(String),
}

impl KeysFrom {
    /// As the author wrote it.
    pub fn as_str(&self) -> &str {
        let (Self::Code(text) | Self::Host(text) | Self::Url(text)) = self;
        text
    }

    fn of(text: &str) -> Option<Self> {
        let is_plain = text.len() <= LONGEST_NAME && !text.contains(['\0', '\\']);
        let own = |text: &str| text.to_owned();
        if !is_plain {
            None
        } else if text.contains("://") {
            is_url(text).then(|| Self::Url(own(text)))
        } else if text.starts_with('/') {
            Some(Self::Host(own(text)))
        } else {
            is_inside(text).then(|| Self::Code(own(text)))
        }
    }
}

/// Whether it is an http or https URL that can be fetched: with a host, without a user, a fragment
/// or what has to be escaped.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let is_host = !authority.is_empty() && !authority.starts_with(':') && !authority.contains('@');
    is_host && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>'))
}

pub(super) fn read_visibility(field: &Field) -> Result<Visibility, SettingsError> {
    super::read::word(field, &[("public", Visibility::Public), ("private", Visibility::Private)])
}

pub(super) fn read(mut table: Fields) -> Result<Auth, SettingsError> {
    let mut auth = Auth::default();
    table.set("key", &mut auth.key, |field| match field.node.value {
        Value::Bool(needed) => Ok(needed),
        _ => Err(field.refuse("write true or false")),
    })?;
    if let Some(hmac) = table.table("hmac")? {
        auth.hmac = Some(read_hmac(hmac)?);
    }
    if let Some(jwt) = table.table("jwt")? {
        auth.jwt = Some(read_jwt(jwt)?);
    }
    table.finish()?;
    Ok(auth)
}

fn read_hmac(mut table: Fields) -> Result<HmacAuth, SettingsError> {
    let Some(secret) = table.take("secret") else {
        return Err(table.missing("secret", "write secret = \"WEBHOOK_SECRET\", the name of a secret"));
    };
    let secret = parsed(&secret, "write the name of a secret")?;
    let mut header = GITHUB_SIGNATURE.to_owned();
    table.set("header", &mut header, |field| {
        let example = "write the name of a header such as \"X-Hub-Signature-256\"";
        let name = field.text(example)?.to_ascii_lowercase();
        let is_token = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        // That one is read by others already.
        if is_token && name != "authorization" { Ok(name) } else { Err(field.refuse(example)) }
    })?;
    table.finish()?;
    Ok(HmacAuth { secret, header })
}

fn read_jwt(mut table: Fields) -> Result<JwtAuth, SettingsError> {
    let Some(jwks) = table.take("jwks") else {
        return Err(table.missing("jwks", "write jwks = \"https://login.example.com/jwks.json\" or a file"));
    };
    let example =
        "write an http or https URL, a file of the function such as \"jwks.json\", or a path of the host";
    let jwks = KeysFrom::of(jwks.text(example)?).ok_or_else(|| jwks.refuse(example))?;
    let Some(issuer) = table.take("issuer") else {
        return Err(table.missing(
            "issuer",
            "write issuer = \"https://login.example.com/\": several issuers may share their keys",
        ));
    };
    let issuer = name(&issuer, "write whose tokens these are (\"iss\")")?;
    let Some(audience) = table.take("audience") else {
        return Err(table.missing(
            "audience",
            "write audience = \"thumbs\": without it a token that was made for another service would open this one",
        ));
    };
    let audience = read_audience(audience)?;
    table.finish()?;
    Ok(JwtAuth { jwks, issuer, audience })
}

fn read_audience(field: Field) -> Result<Vec<String>, SettingsError> {
    let example = "write for whom tokens are made (\"aud\"), such as \"thumbs\" or [\"thumbs\", \"images\"]";
    if let Value::Text(_) = &field.node.value {
        return Ok(vec![name(&field, example)?]);
    }
    let refused = field.refuse(example);
    let items = field.list(example)?;
    if items.is_empty() || items.len() > MOST_AUDIENCES {
        return Err(refused);
    }
    items.iter().map(|item| name(item, example)).collect()
}

fn name(field: &Field, example: &str) -> Result<String, SettingsError> {
    match field.text(example)? {
        text if !text.is_empty() && text.len() <= LONGEST_NAME => Ok(text.to_owned()),
        _ => Err(field.refuse(example)),
    }
}

impl Auth {
    /// As the interface spells it: what is asked, and nothing else.
    pub(super) fn to_json(&self) -> Json {
        let mut json = Map::new();
        if self.key {
            json.insert("key".into(), json!(true));
        }
        if let Some(HmacAuth { secret, header }) = &self.hmac {
            let mut hmac = json!({ "secret": secret });
            if header != GITHUB_SIGNATURE {
                hmac["header"] = json!(header);
            }
            json.insert("hmac".into(), hmac);
        }
        if let Some(JwtAuth { jwks, issuer, audience }) = &self.jwt {
            let audience = match audience.as_slice() {
                [only] => json!(only),
                several => json!(several),
            };
            let jwt = json!({ "jwks": jwks.as_str(), "issuer": issuer, "audience": audience });
            json.insert("jwt".into(), jwt);
        }
        json.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_keys_are_is_told_by_the_form() {
        for (text, kind) in [
            ("jwks.json", Some(KeysFrom::Code("jwks.json".into()))),
            ("keys/jwks.json", Some(KeysFrom::Code("keys/jwks.json".into()))),
            ("/etc/jwks.json", Some(KeysFrom::Host("/etc/jwks.json".into()))),
            ("https://a.example/jwks?x=1", Some(KeysFrom::Url("https://a.example/jwks?x=1".into()))),
            ("http://127.0.0.1:9/j", Some(KeysFrom::Url("http://127.0.0.1:9/j".into()))),
        ] {
            assert_eq!(KeysFrom::of(text), kind, "{text}");
        }
        for text in [
            "",
            "../jwks.json",
            "a/../b",
            "ftp://a/b",
            "https://",
            "https:///x",
            "https://u@a/x",
            "https://a/x#y",
            "https://a/ x",
            "https://é/x",
            "file:///etc/passwd",
            "https://:1/x",
        ] {
            assert_eq!(KeysFrom::of(text), None, "{text}");
        }
    }
}
