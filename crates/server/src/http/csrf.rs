//! The token that the dashboard's forms carry, so that a foreign page cannot send them.
//!
//! It is made from the session that a form belongs to, under a key of this process: the form that
//! everybody is shown at `/login` has the token of those without a session, which is of no use for
//! anybody's session. A foreign page cannot read ours (the guard refuses its Host and Origin), so it
//! does not know the token. After a restart open pages ask to be loaded again.

use std::sync::OnceLock;

use fp_core::code::Code;
use ring::hmac;
use subtle::ConstantTimeEq as _;

use super::problem::Problem;
use crate::random;

/// The form field that carries the token.
pub const FIELD: &str = "csrf_token";

/// Bytes of the authentication code that a token shows: 128 bits, that nobody guesses.
const LENGTH: usize = 16;

/// The token of a session, or of those who have none: 32 hexadecimal digits.
pub fn token(session: Option<&str>) -> String {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    let key = KEY.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()));
    let code = hmac::sign(key, session.unwrap_or_default().as_bytes());
    code.as_ref()[..LENGTH].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses a form whose token is not that of the session that it came with.
///
/// # Errors
/// `cross_site` (403), with what to do.
pub fn check(given: Option<&str>, session: Option<&str>) -> Result<(), Problem> {
    let given = given.unwrap_or_default().as_bytes();
    if bool::from(given.ct_eq(token(session).as_bytes())) {
        return Ok(());
    }
    let detail = "the form's token is missing, of another session or from before a restart";
    Err(Problem::new(Code::CrossSite, detail).field(FIELD).hint("Load the page again and send it once more."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_session_alone() {
        let sessions = [None, Some("one"), Some("two")];
        for own in sessions {
            let token = token(own);
            assert_eq!(token.len(), 32);
            for session in sessions {
                assert_eq!(check(Some(&token), session).is_ok(), session == own, "{own:?} {session:?}");
            }
            for wrong in [None, Some(""), Some(&token[..31]), Some("x".repeat(32).as_str())] {
                assert_eq!(check(wrong, own).expect_err("wrong").status(), 403);
            }
        }
    }
}
