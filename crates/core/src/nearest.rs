//! The word that a typing mistake could have meant.

/// The known word that a typing mistake could have meant: at most a third of it wrong.
pub(crate) fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &&'a str| (edit_distance(key, known), *known);
    let (distance, known) = known.iter().map(distance).min()?;
    (distance <= key.len().max(known.len()).div_ceil(3)).then_some(known)
}

/// Levenshtein's distance over characters, with exchanged neighbours counted as one mistake.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_within_a_third_of_it() {
        let known = ["timeout", "memory", "tasks", "cpu"];
        assert_eq!(nearest("timout", &known), Some("timeout"));
        assert_eq!(nearest("tiemout", &known), Some("timeout"));
        assert_eq!(nearest("memmory", &known), Some("memory"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abcd", "acbd"), 1);
    }
}
