//! Shell patterns over whole texts: `*` any text (slashes too, as names and event types are
//! not paths of files), `?` one character, `[a-c]` and `[!a-c]` one of a set.

/// Whether `pattern` matches the whole of `text`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    match_from(&pattern, &text)
}

/// Greedy with one point of return: the last `*` is the only one worth trying again, so the
/// time is bounded by the product of the lengths.
fn match_from(pattern: &[char], text: &[char]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while seen < text.len() {
        if pattern.get(at) == Some(&'*') {
            retry = Some((at + 1, seen));
            at += 1;
            continue;
        }
        if let Some(width) = match_one(&pattern[at..], text[seen]) {
            at += width;
            seen += 1;
            continue;
        }
        let Some((after_star, from)) = retry else { return false };
        retry = Some((after_star, from + 1));
        (at, seen) = (after_star, from + 1);
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// How many characters of the pattern match this one character of the text.
fn match_one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match match_set(pattern, c) {
            Some((width, true)) => Some(width),
            Some((_, false)) => None,
            None => (c == '[').then_some(1),
        },
        literal => (*literal == c).then_some(1),
    }
}

/// The width of the set that the pattern begins with, and whether the character is in it;
/// none when the bracket is never closed (then it is a literal).
fn match_set(pattern: &[char], c: char) -> Option<(usize, bool)> {
    let negated = pattern.get(1) == Some(&'!');
    let first = if negated { 2 } else { 1 };
    let close = first + 1 + pattern.get(first + 1..)?.iter().position(|c| *c == ']')?;
    let mut members = &pattern[first..close];
    let mut inside = false;
    while let Some((low, rest)) = members.split_first() {
        members = rest;
        let mut high = low;
        if let ['-', end, tail @ ..] = rest {
            high = end;
            members = tail;
        }
        inside |= (*low..=*high).contains(&c);
    }
    Some((close + 1, inside != negated))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("cats", "cats", true),
            ("cat", "cats", false),
            ("c*s", "cats", true),
            ("http|GET|*", "http|GET|/api/cats/{id}", true),
            ("*cats*", "http|GET|/api/cats", true),
            ("http|?ET|/", "http|GET|/", true),
            ("[a-c]x[!0-9]", "bxz", true),
            ("[a-c]x[!0-9]", "bx1", false),
            ("[ab", "[ab", true),
            ("[", "[", true),
            ("a*b*c", "a-b-b-d", false),
            ("**é*", "café!", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_patterns_end_soon() {
        assert!(!matches(&format!("{}b", "*a".repeat(60)), &"a".repeat(3000)));
    }
}
