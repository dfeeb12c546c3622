//! Sealing: a value with its place in the registry, under the key.
//!
//! ChaCha20-Poly1305 with a random nonce per sealing (96 bits: safe for billions of rotations
//! under one key). Tenant and name are additional data, so a row that was moved or exchanged
//! with another does not open.

use fp_core::{SecretName, Tenant};
use ring::aead::{Aad, NONCE_LEN, Nonce};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::key::Key;
use super::value::SecretValue;

/// The form: this byte, the nonce, the sealed bytes with their tag.
const FORM: u8 = 1;

/// Where a value belongs.
pub(super) struct Place<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) name: &'a SecretName,
}

impl Place<'_> {
    /// Neither part can hold a zero byte, so two places never read the same.
    fn bound(&self) -> Aad<Vec<u8>> {
        let parts =
            [b"functionsplatform secret 1", self.tenant.as_str().as_bytes(), self.name.as_str().as_bytes()];
        Aad::from(parts.join(&0))
    }
}

pub(super) fn seal(key: &Key, place: &Place<'_>, value: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).expect("the kernel gave random bytes for the key");
    // Sealed in place: the clear bytes do not stay behind.
    let mut sealed = Zeroizing::new(Vec::with_capacity(value.len() + 16));
    sealed.extend_from_slice(value);
    let nonce_used = Nonce::assume_unique_for_key(nonce);
    let done = key.cipher().seal_in_place_append_tag(nonce_used, place.bound(), &mut *sealed);
    done.expect("a value is far below the cipher's limit");
    let mut row = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
    row.push(FORM);
    row.extend_from_slice(&nonce);
    row.extend_from_slice(&sealed);
    row
}

/// None if the row is not what was sealed for this place under this key.
pub(super) fn open(key: &Key, place: &Place<'_>, mut row: Vec<u8>) -> Option<SecretValue> {
    let (head, sealed) = row.split_at_mut_checked(1 + NONCE_LEN)?;
    let (form, nonce) = head.split_first()?;
    if *form != FORM {
        return None;
    }
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let length = key.cipher().open_in_place(nonce, place.bound(), sealed).ok()?.len();
    let opened = Zeroizing::new(row);
    Some(opened[1 + NONCE_LEN..][..length].to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::key::KeyFile;

    fn key() -> Key {
        let dir = tempfile::tempdir().unwrap();
        KeyFile::at(dir.path().join("key")).read_or_make().unwrap()
    }

    #[test]
    fn a_row_opens_in_its_place_under_its_key_and_nowhere_else() {
        let (key, tenant, name) = (key(), Tenant::default(), "TOKEN".parse().unwrap());
        let place = Place { tenant: &tenant, name: &name };
        let row = seal(&key, &place, b"sk_live_1");
        assert_eq!(open(&key, &place, row.clone()).unwrap().bytes(), b"sk_live_1");
        assert!(!row.windows(9).any(|part| part == b"sk_live_1"));
        let (other_tenant, other_name) = ("acme".parse().unwrap(), "OTHER".parse().unwrap());
        assert!(open(&key, &Place { tenant: &other_tenant, name: &name }, row.clone()).is_none());
        assert!(open(&key, &Place { tenant: &tenant, name: &other_name }, row.clone()).is_none());
        assert!(open(&self::key(), &place, row.clone()).is_none());
        for at in 0..row.len() {
            let mut changed = row.clone();
            changed[at] ^= 1;
            assert!(open(&key, &place, changed).is_none(), "byte {at}");
        }
        assert!(open(&key, &place, Vec::new()).is_none());
        assert_ne!(seal(&key, &place, b"sk_live_1"), row, "each sealing has a nonce of its own");
    }
}
