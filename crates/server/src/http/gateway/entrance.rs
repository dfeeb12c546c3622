//! Who may enter: what a function asks of its callers, against what they sent.
//!
//! Three questions, each as early as it can be answered: what a caller sees (before the route is
//! looked up, so that a private function is to a stranger as if it did not exist), what its
//! `Authorization` header proves (before its body is read), and whether its body is signed (once it
//! is there, and before a worker is asked). Each function of an event type is asked for itself.
//! For functions that let everybody in nothing is looked at and nothing is allocated.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fp_core::code::Code;
use fp_core::credential::{self, Bearer, Lack, Next, Presented};
use fp_core::token::TokenError;
use fp_core::{Scope, Tenant};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use super::Peer;
use crate::access::{Access, Key};
use crate::callers::{Checks, Signature, Unproven};
use crate::catalog::{Deployed, Sight};
use crate::http::problem::Problem;
use crate::invoke::Request;

/// When what callers are checked with may be there again.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(5);

/// Somebody at the gateway, as far as the head of a request tells.
pub(super) struct Visitor<'a> {
    access: &'a Access,
    headers: &'a HeaderMap,
    peer: &'a Peer,
    bearer: Bearer<'a>,
    /// The key that came, once somebody has asked; none if it is not in force.
    key: OnceLock<Option<Arc<Key>>>,
}

impl<'a> Visitor<'a> {
    pub(super) fn of(access: &'a Access, headers: &'a HeaderMap, peer: &'a Peer) -> Self {
        let bearer = Bearer::of(headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes));
        Self { access, headers, peer, bearer, key: OnceLock::new() }
    }

    /// Whether there may be a key in its headers, which no function is to see.
    pub(super) fn may_carry_key(&self) -> bool {
        matches!(self.bearer, Bearer::Key(_) | Bearer::Unclear)
    }

    /// What it sees of a tenant's functions: all of them if it is one, or holds a key of the tenant.
    pub(super) fn sight(&self, tenant: &Tenant) -> Sight {
        let sees_all = self.peer.is_function_of(tenant) || self.key_of(tenant).is_some();
        if sees_all { Sight::All } else { Sight::Public }
    }

    /// The key that came, if it is in force and the tenant's.
    fn key_of(&self, tenant: &Tenant) -> Option<&Arc<Key>> {
        let Bearer::Key(text) = self.bearer else { return None };
        let key = self.key.get_or_init(|| self.access.check(text));
        key.as_ref().filter(|key| key.tenant() == tenant)
    }

    /// Asks each of some functions, none of which needs to ask anything.
    pub(super) async fn enter(&self, functions: &[Arc<Deployed>]) -> Entrance {
        if functions.iter().all(|function| function.checks.is_none()) {
            return Entrance::free();
        }
        // In a box: calls that are not asked anything need no room for it.
        Box::pin(self.enter_guarded(functions)).await
    }

    async fn enter_guarded(&self, functions: &[Arc<Deployed>]) -> Entrance {
        let mut passes = Vec::with_capacity(functions.len());
        for function in functions {
            passes.push(match &function.checks {
                None => Pass::In(None),
                Some(checks) => self.pass(function, checks).await,
            });
        }
        Entrance(passes)
    }

    async fn pass(&self, function: &Deployed, checks: &Checks) -> Pass {
        let header = checks.signatures().map(|check| check.header());
        let presented = Presented {
            bearer: self.bearer,
            signature: header.is_some_and(|header| self.headers.contains_key(header)),
            is_sibling: self.peer.is_function_of(&function.tenant),
        };
        match credential::next(&function.settings, presented) {
            Next::Enter => Pass::In(None),
            Next::EnterAsSibling => Pass::In(Some(self.sibling())),
            Next::CheckKey(_) => self.by_key(function),
            Next::CheckToken(text) => by_token(function, checks, text).await,
            Next::CheckSignature => self.by_signature(function, header.unwrap_or_default()),
            Next::Refuse(lack) => Pass::out(function, lacking(function, lack)),
        }
    }

    fn sibling(&self) -> Arc<Value> {
        let name = match self.peer {
            Peer::Function { function, .. } => Some(function.as_str()),
            Peer::Address(_) => None,
        };
        Arc::new(json!({ "kind": "function", "function": name }))
    }

    fn by_key(&self, function: &Deployed) -> Pass {
        let Some(key) = self.key_of(&function.tenant) else {
            let detail = "the key is none of this function's tenant, has expired or was revoked";
            return Pass::out(function, challenge(function, Problem::new(Code::KeyInvalid, detail), None));
        };
        if !key.scopes().allow(Scope::Invoke) {
            let (name, has) = (key.name().as_str(), key.scopes());
            let detail = format!("calling this needs the scope invoke, and the key {name:?} has {has}");
            let problem = Problem::new(Code::ScopeMissing, detail);
            return Pass::out(function, problem.extra("scope", Scope::Invoke.word()).extra("key", name));
        }
        let facts = json!({ "kind": "key", "key": key.name().as_str(), "id": key.id().as_str() });
        Pass::In(Some(Arc::new(facts)))
    }

    fn by_signature(&self, function: &Deployed, header: &str) -> Pass {
        let mut given = self.headers.get_all(header).iter();
        let (first, second) = (given.next(), given.next());
        let signature =
            first.filter(|_| second.is_none()).and_then(|value| Signature::parse(value.as_bytes()));
        match signature {
            Some(signature) => Pass::Signed(signature),
            None => {
                let detail = format!("{header} is not one sha256= with 64 hexadecimal digits");
                Pass::out(function, challenge(function, Problem::new(Code::SignatureInvalid, detail), None))
            }
        }
    }
}

async fn by_token(function: &Deployed, checks: &Checks, text: &str) -> Pass {
    let Some(check) = checks.tokens() else { return Pass::out(function, lacking(function, Lack::NotAKey)) };
    match check.check(text).await {
        Ok(claims) => Pass::In(Some(Arc::new(json!({ "kind": "jwt", "claims": claims })))),
        Err(Unproven::Wrong(error)) => Pass::out(function, wrong_token(function, &error)),
        Err(Unproven::Unavailable(detail)) => Pass::out(function, unavailable(function, &detail)),
    }
}

/// What each of a call's functions says of the caller.
pub(super) struct Entrance(Vec<Pass>);

/// What one function says.
enum Pass {
    /// Let in, with what is known of the caller where something was asked.
    In(Option<Arc<Value>>),
    /// Let in if this is the signature of its body.
    Signed(Signature),
    /// Refused.
    Out(Box<Problem>),
}

impl Pass {
    fn out(function: &Deployed, problem: Problem) -> Self {
        function.book.note_refusal(problem.code());
        Self::Out(Box::new(problem))
    }
}

impl Entrance {
    /// Of functions none of which asks anything.
    pub(super) fn free() -> Self {
        Self(Vec::new())
    }

    /// Whether one of them looks at the body.
    pub(super) fn wants_body(&self) -> bool {
        self.0.iter().any(|pass| matches!(pass, Pass::Signed(_)))
    }

    /// Which function is the first that may let the caller in; whether its limits are to be asked.
    pub(super) fn first_open(&self) -> Option<usize> {
        if self.0.is_empty() {
            return Some(0);
        }
        self.0.iter().position(|pass| !matches!(pass, Pass::Out(_)))
    }

    /// Looks at the signatures, now that the body is there.
    pub(super) fn check_body(&mut self, functions: &[Arc<Deployed>], body: &[u8]) {
        for (pass, function) in self.0.iter_mut().zip(functions) {
            if let Pass::Signed(signature) = pass {
                *pass = signed(function, signature, body);
            }
        }
    }

    /// Why the first function refuses the caller, whose answer the caller gets; or that it does not.
    pub(super) fn into_refusal(mut self) -> Result<Self, Problem> {
        if matches!(self.0.first(), Some(Pass::Out(_)))
            && let Pass::Out(problem) = self.0.swap_remove(0)
        {
            return Err(*problem);
        }
        Ok(self)
    }

    /// The request as the function of this place is to see it; none if it refuses.
    pub(super) fn request(&self, place: usize, mut request: Arc<Request>) -> Option<Arc<Request>> {
        match self.0.get(place) {
            None | Some(Pass::In(None)) => Some(request),
            Some(Pass::In(Some(facts))) => {
                // It is copied only where several functions get it.
                Arc::make_mut(&mut request).auth = Some(facts.clone());
                Some(request)
            }
            Some(Pass::Signed(_) | Pass::Out(_)) => None,
        }
    }
}

fn signed(function: &Deployed, signature: &Signature, body: &[u8]) -> Pass {
    let Some(check) = function.checks.as_ref().and_then(|checks| checks.signatures()) else {
        return Pass::out(function, lacking(function, Lack::NoSignature));
    };
    match check.check(signature, body) {
        Ok(()) => Pass::In(Some(Arc::new(json!({ "kind": "hmac" })))),
        Err(Unproven::Wrong(())) => {
            let detail = format!("{} is not the signature of this body", check.header());
            Pass::out(function, challenge(function, Problem::new(Code::SignatureInvalid, detail), None))
        }
        Err(Unproven::Unavailable(detail)) => Pass::out(function, unavailable(function, &detail)),
    }
}

/// What a caller did not send, or sent in another form.
fn lacking(function: &Deployed, lack: Lack) -> Problem {
    let name = &function.name;
    let (code, detail) = match lack {
        Lack::NoKey => (Code::KeyMissing, format!("{name} answers only to those who {}", ways(function))),
        Lack::NotAKey => {
            (Code::KeyInvalid, "the Authorization header holds no key; send it as Bearer fpk_…".to_owned())
        }
        Lack::NoToken => (Code::TokenMissing, format!("{name} answers only to those who {}", ways(function))),
        Lack::NotAToken => {
            let problem = Problem::new(Code::TokenInvalid, "the Authorization header holds no token");
            return challenge(function, problem.reason("malformed"), Some("malformed"));
        }
        Lack::NoSignature => {
            (Code::SignatureMissing, format!("{name} answers only to those who {}", ways(function)))
        }
    };
    challenge(function, Problem::new(code, detail), None)
}

/// What lets a caller in, in words.
fn ways(function: &Deployed) -> String {
    let auth = &function.settings.auth;
    let takes_keys = auth.key || function.settings.is_guarded() && auth.is_open();
    let ways = [
        takes_keys.then(|| "send a key of its tenant".to_owned()),
        auth.jwt.as_ref().map(|_| "send a token of its issuer".to_owned()),
        auth.hmac.as_ref().map(|hmac| format!("sign the body in {}", hmac.header)),
    ];
    ways.into_iter().flatten().collect::<Vec<_>>().join(" or ")
}

fn wrong_token(function: &Deployed, error: &TokenError) -> Problem {
    let problem = Problem::new(Code::TokenInvalid, error.to_string()).reason(error.reason());
    challenge(function, problem, Some(error.reason()))
}

/// Says how to be let in (RFC 9110 section 11.6.1); what is wrong with a token as RFC 6750 does.
fn challenge(function: &Deployed, problem: Problem, token_error: Option<&'static str>) -> Problem {
    let auth = &function.settings.auth;
    let mut challenges = Vec::with_capacity(2);
    if auth.jwt.is_some() || auth.key || auth.hmac.is_none() {
        let mut bearer = "Bearer realm=\"functionsplatform\"".to_owned();
        if let Some(reason) = token_error {
            bearer += &format!(", error=\"invalid_token\", error_description=\"{reason}\"");
        }
        challenges.push(bearer);
    }
    if let Some(hmac) = &auth.hmac {
        challenges.push(format!("HMAC-SHA256 realm=\"functionsplatform\", header=\"{}\"", hmac.header));
    }
    problem.header(WWW_AUTHENTICATE, &challenges.join(", "))
}

fn unavailable(function: &Deployed, detail: &str) -> Problem {
    let detail = format!("{} lets nobody in now: {detail}", function.name);
    Problem::new(Code::AuthUnavailable, detail).retry_after(UNAVAILABLE_FOR)
}

/// Takes keys of the platform out of a request that goes on to functions: who sees one can use it.
pub(in crate::http) fn keep_keys_out(headers: &mut HeaderMap) {
    let holds_key = |value: &HeaderValue| credential::holds_key(value.as_bytes());
    if !headers.get_all(AUTHORIZATION).iter().any(holds_key) {
        return;
    }
    let others: Vec<_> =
        headers.get_all(AUTHORIZATION).iter().filter(|value| !holds_key(value)).cloned().collect();
    headers.remove(AUTHORIZATION);
    for other in others {
        headers.append(AUTHORIZATION, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_never_sees_a_key_of_the_platform_and_sees_all_else() {
        let left = |values: &[&'static str]| {
            let pairs = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value)));
            let mut headers = HeaderMap::new();
            pairs.for_each(|(name, value)| {
                headers.append(name, value);
            });
            keep_keys_out(&mut headers);
            let left = headers.get_all(AUTHORIZATION).iter();
            left.map(|value| value.to_str().expect("text").to_owned()).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(left(&[]), none);
        assert_eq!(left(&["Bearer fpk_00000000_x"]), none);
        assert_eq!(left(&["bearer   fpk_"]), none, "also what is none in the end");
        assert_eq!(left(&["Bearer eyJ.e30.x"]), ["Bearer eyJ.e30.x"]);
        assert_eq!(left(&["Basic eDp5", "Bearer fpk_1"]), ["Basic eDp5"]);
    }
}
