//! Sessions: what a browser holds instead of a key.
//!
//! A session is 256 random bits in a cookie and an entry in memory that says whose key it stands
//! for. The entries are found by the hash of the bits, so that neither the time of a look-up nor a
//! dump of the memory gives a session away. They end by themselves, with their key, with their
//! tenant and with the platform.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fp_core::{KeyId, Tenant};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::random;

/// How long a session lasts: a working day with its breaks, after which the key is typed anew.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3_600);

/// Sessions of one tenant at once; the oldest ends for one more. Per tenant, so that nobody ends
/// those of others by signing in again and again.
const MAX_OF_TENANT: usize = 256;

#[derive(Debug)]
struct Session {
    key: KeyId,
    tenant: Tenant,
    /// On the platform's clock.
    ends: Duration,
}

/// The sessions that have not ended.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

impl Sessions {
    /// Begins one and returns what the browser is to hold.
    pub(super) fn begin(&self, key: KeyId, tenant: &Tenant, now: Duration) -> String {
        let text = URL_SAFE_NO_PAD.encode(random::bytes::<32>());
        let mut sessions = self.0.lock();
        sessions.retain(|_, session| session.ends > now);
        let of_tenant = || sessions.iter().filter(|(_, session)| session.tenant == *tenant);
        if of_tenant().count() >= MAX_OF_TENANT {
            let oldest = of_tenant().min_by_key(|(_, session)| session.ends).map(|(place, _)| *place);
            oldest.and_then(|place| sessions.remove(&place));
        }
        let session = Session { key, tenant: tenant.clone(), ends: now + SESSION_LIFE };
        sessions.insert(place_of(&text), session);
        text
    }

    /// The key that a session stands for.
    pub(super) fn key_of(&self, text: &str, now: Duration) -> Option<KeyId> {
        let sessions = self.0.lock();
        sessions.get(&place_of(text)).filter(|session| session.ends > now).map(|session| session.key)
    }

    /// Ends one.
    pub(super) fn end(&self, text: &str) {
        self.0.lock().remove(&place_of(text));
    }

    /// Ends all of a tenant.
    pub(super) fn end_of(&self, tenant: &Tenant) {
        self.0.lock().retain(|_, session| session.tenant != *tenant);
    }
}

fn place_of(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_secs(43_200);

    fn key(number: u64) -> KeyId {
        KeyId::from_random(number)
    }

    #[test]
    fn a_session_lasts_for_its_time_or_until_it_is_ended() {
        let (sessions, tenant) = (Sessions::default(), Tenant::default());
        let text = sessions.begin(key(1), &tenant, NOON);
        assert_eq!(sessions.key_of(&text, NOON), Some(key(1)));
        assert_eq!(sessions.key_of(&text, NOON + SESSION_LIFE), None);
        assert_eq!(sessions.key_of("", NOON), None);
        sessions.end(&text);
        assert_eq!(sessions.key_of(&text, NOON), None);
    }

    #[test]
    fn one_too_many_ends_the_oldest_of_the_same_tenant_and_nobody_elses() {
        let (sessions, tenant) = (Sessions::default(), Tenant::default());
        let other = "acme".parse().unwrap();
        let others = sessions.begin(key(1), &other, NOON);
        let second = Duration::from_secs(1);
        let begin = |place: u32| sessions.begin(key(2), &tenant, NOON + second * (place + 1));
        let own: Vec<_> = (0..=MAX_OF_TENANT as u32).map(begin).collect();
        assert_eq!(sessions.key_of(&own[0], NOON), None);
        assert!(own[1..].iter().all(|text| sessions.key_of(text, NOON) == Some(key(2))));
        assert_eq!(sessions.key_of(&others, NOON), Some(key(1)));
        sessions.end_of(&tenant);
        assert_eq!(sessions.key_of(&own[1], NOON), None);
        assert_eq!(sessions.0.lock().len(), 1);
    }
}
