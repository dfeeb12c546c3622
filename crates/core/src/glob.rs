//! Globs over texts of calls, as lists and questions ask for them.
//!
//! The store and the ring ask the same, so that a list has one meaning wherever its calls lie.

/// `*` is any text, `?` one character; everything else is itself.
pub fn matches(glob: &str, text: &str) -> bool {
    let (mut glob, mut text) = (glob.chars(), text.chars());
    // Where to go on when what follows the last star does not fit: one character further.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let before_text = text.clone();
        match (glob.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                text = before_text;
                retry = Some((glob.clone(), text.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                let Some((after_star, mut from)) = retry.take() else { return false };
                if from.next().is_none() {
                    return false;
                }
                retry = Some((after_star.clone(), from.clone()));
                (glob, text) = (after_star, from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn globs_match_like_a_shells() {
        for (glob, text) in [
            ("*", ""),
            ("*", "http|GET|/x"),
            ("http|*|/api/*", "http|GET|/api/cats/{id}"),
            ("*cats*", "http|GET|/api/cats"),
            ("http|G?T|/", "http|GET|/"),
            ("*é?", "café!"),
            ("a*b*c", "aXbXbXc"),
            ("**a", "a"),
        ] {
            assert!(matches(glob, text), "{glob} {text}");
        }
        for (glob, text) in [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("a*b", "ab c"),
            ("*/x", "http|GET|/xx"),
            ("a?", "a"),
            ("[a]", "a"),
        ] {
            assert!(!matches(glob, text), "{glob} {text}");
        }
    }

    #[test]
    fn a_glob_of_many_stars_takes_no_exponential_time() {
        assert!(!matches(&"a*".repeat(200), &"a".repeat(190)));
    }
}
