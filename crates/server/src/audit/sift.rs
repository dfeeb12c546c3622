//! What stays of full files that must make room.
//!
//! Half of a series is the operator's, the rest is divided equally among the others who are in it. Who has
//! less than that loses nothing, and who has more loses its oldest records: nobody pushes out what others
//! did. Whoever asked for a record is told from its line, which this platform has written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};

use fp_core::Tenant;
use memchr::memmem;

/// Who asked, in a line; those who showed no key that is in force are one.
fn asker(line: &[u8]) -> &[u8] {
    let after = |text: &[u8]| memmem::find(line, text).map(|at| &line[at + text.len()..]);
    let upto_quote = |text: &'_ [u8]| memchr::memchr(b'"', text).unwrap_or(0);
    let Some(caller) = after(b"\"caller\":{\"means\":\"") else { return b"" };
    let (means, rest) = caller.split_at(upto_quote(caller));
    match rest.strip_prefix(b"\",\"tenant\":\"") {
        Some(tenant) if means != b"not_in_force" => &line[line.len() - tenant.len()..][..upto_quote(tenant)],
        _ => b"",
    }
}

fn for_each_line(path: &Path, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        // A torn line is nobody's record.
        if line.ends_with(b"\n") {
            take(&line)?;
        }
        line.clear();
    }
    Ok(())
}

/// Writes the lines of `going` (the oldest file first) that stay in a series that holds `newer` besides
/// and is to hold so many bytes; how many bytes they are.
pub(super) fn sift(going: &[PathBuf], newer: &[PathBuf], bytes: u64, mut out: impl Write) -> io::Result<u64> {
    let mut surplus: HashMap<Vec<u8>, u64> = HashMap::new();
    for path in going.iter().chain(newer) {
        for_each_line(path, |line| {
            let length = line.len() as u64;
            match surplus.get_mut(asker(line)) {
                Some(sum) => *sum += length,
                None => drop(surplus.insert(asker(line).to_vec(), length)),
            }
            Ok(())
        })?;
    }
    let operator = Tenant::default();
    let is_operator = |whose: &[u8]| whose == operator.as_str().as_bytes();
    let others = surplus.keys().filter(|whose| !is_operator(whose)).count() as u64;
    for (whose, sum) in &mut surplus {
        let share = if is_operator(whose) { bytes / 2 } else { bytes / 2 / others };
        *sum = sum.saturating_sub(share);
    }
    let mut written = 0;
    for path in going {
        for_each_line(path, |line| {
            let length = line.len() as u64;
            if let Some(surplus) = surplus.get_mut(asker(line)).filter(|surplus| **surplus > 0) {
                *surplus = surplus.saturating_sub(length);
                return Ok(());
            }
            written += length;
            out.write_all(line)
        })?;
    }
    out.flush()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_is_read_from_the_line() {
        let line =
            |caller: &str| format!("{{\"seq\":1,\"tenant\":\"acme\",\"caller\":{caller},\"path\":\"/\"}}\n");
        for (caller, whose) in [
            (r#"{"means":"bearer","tenant":"acme","key_id":"k3j9x0ab"}"#, "acme"),
            (r#"{"means":"loopback","tenant":"default"}"#, "default"),
            (r#"{"means":"not_in_force","tenant":"acme","key_id":"k3j9x0ab"}"#, ""),
            (r#"{"means":"nobody"}"#, ""),
        ] {
            assert_eq!(asker(line(caller).as_bytes()), whose.as_bytes(), "{caller}");
        }
        assert_eq!(asker(b"{\"seq\":1,\"ti\n"), b"");
    }
}
