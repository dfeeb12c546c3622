//! Signatures of bodies: HMAC-SHA256, as GitHub and many after it sign their webhooks.

use std::fmt;

use ring::hmac::{self, HMAC_SHA256};

/// Bytes of a SHA-256.
const LENGTH: usize = 32;

/// A signature as a caller sent it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signature([u8; LENGTH]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(…)")
    }
}

impl Signature {
    /// `sha256=` and 64 hexadecimal digits; some senders leave out what is before the digits.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let digits = value.strip_prefix(b"sha256=").unwrap_or(value);
        let digits: &[u8; 2 * LENGTH] = digits.try_into().ok()?;
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let mut bytes = [0; LENGTH];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// Whether it is this secret's for this body; how long that takes does not say how nearly.
    pub(crate) fn fits(&self, secret: &[u8], body: &[u8]) -> bool {
        hmac::verify(&hmac::Key::new(HMAC_SHA256, secret), body, &self.0).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From GitHub's "Validating webhook deliveries".
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const DIGITS: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn parsed(text: &str) -> Signature {
        Signature::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_documented_example_of_github_fits() {
        assert!(parsed(&format!("sha256={DIGITS}")).fits(SECRET, BODY));
        assert!(parsed(DIGITS).fits(SECRET, BODY));
        assert!(parsed(&format!(" sha256={} ", DIGITS.to_uppercase())).fits(SECRET, BODY));
        assert!(!parsed(DIGITS).fits(SECRET, b"Hello, World"));
        assert!(!parsed(DIGITS).fits(b"It's a Secret to everybody", BODY));
    }

    #[test]
    fn an_empty_body_is_signed_like_any_other() {
        let digits = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad";
        assert!(parsed(digits).fits(b"", b""));
    }

    #[test]
    fn what_is_no_signature_is_none() {
        for text in [
            "",
            "sha256=",
            &DIGITS[1..],
            &format!("sha1={DIGITS}"),
            &format!("SHA256={DIGITS}"),
            &format!("sha256=sha256={DIGITS}"),
            &format!("{DIGITS}0"),
            &format!("{}g", &DIGITS[1..]),
            &format!("{DIGITS}, {DIGITS}"),
        ] {
            assert_eq!(Signature::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn one_changed_bit_does_not_fit(byte in 0..LENGTH, bit in 0..8_u8) {
            let mut signature = parsed(DIGITS);
            signature.0[byte] ^= 1_u8 << bit;
            prop_assert!(!signature.fits(SECRET, BODY));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Signature::parse(&bytes);
        }
    }
}
