//! The token that the dashboard's forms carry, so that a foreign page cannot send them.
//!
//! One random token per process, written into each form and compared on arrival. A foreign page
//! cannot read our pages (the guard refuses its Host and Origin), so it cannot know the token.
//! No cookie takes part: cookies ignore ports, and any other program's page on localhost could
//! set one. After a restart open pages ask to be loaded again.

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;

use fp_core::code::Code;

use super::problem::Problem;

/// The form field that carries the token.
pub const FIELD: &str = "csrf_token";

/// The token of this process: 32 hexadecimal digits, 128 random bits.
pub fn token() -> &'static str {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| {
        let mut random = [0u8; 16];
        let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
        read.expect("every Linux has /dev/urandom, also in a chroot that can run the platform");
        random.iter().map(|byte| format!("{byte:02x}")).collect()
    })
}

/// Refuses a form whose token is not this process's.
///
/// # Errors
/// `cross_site` (403), with what to do.
pub fn check(given: Option<&str>) -> Result<(), Problem> {
    let given = given.unwrap_or_default().as_bytes();
    let expected = token().as_bytes();
    // Every byte is looked at, so that the time taken says nothing about where they differ.
    let differences = given.iter().zip(expected).fold(0, |all, (a, b)| all | (a ^ b));
    if given.len() == expected.len() && differences == 0 {
        return Ok(());
    }
    let detail = "the form's token is missing or from before a restart";
    Err(Problem::new(Code::CrossSite, detail).field(FIELD).hint("Load the page again and send it once more."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_of_this_process_passes() {
        assert_eq!(token().len(), 32);
        assert_eq!(token(), token());
        assert!(check(Some(token())).is_ok());
        let other = token().replace(['0', '1'], "2");
        let shorter = &token()[..31];
        for wrong in [None, Some(""), Some(shorter), Some("x".repeat(32).as_str())] {
            assert_eq!(check(wrong).expect_err("wrong").status(), 403);
        }
        assert!(other == token() || check(Some(&other)).is_err());
    }
}
