//! What a call has printed and logged, as history keeps it: masked, and without its middle when it is
//! long.
//!
//! It is cut before it is masked, because to look for every form of every secret takes its time, and on
//! a thread that serves calls. So each side is told where it was cut: the rest of a secret there is
//! masked, too.

use fp_core::record::{LogLine, LogSource};

use crate::secrets::{Cut, Mask};

/// Most bytes of a call's output that history gets, whatever `limits.logs` lets a worker send: the ring is
/// everybody's, and one call of 64 MiB would take the place of a hundred thousand others.
const KEPT: usize = 4 << 20;

/// What is kept of it; `is_cut` says that there was more than came.
pub(super) fn kept(mut lines: Vec<LogLine>, mask: Option<&Mask>, is_cut: bool) -> Vec<LogLine> {
    let at_end = Cut { before: false, after: is_cut };
    let Some((mark, mut tail)) = cut_middle(&mut lines) else {
        mask.inspect(|mask| mask.lines(&mut lines, at_end));
        return lines;
    };
    if let Some(mask) = mask {
        mask.lines(&mut lines, Cut { before: false, after: true });
        mask.lines(&mut tail, Cut { before: true, ..at_end });
    }
    lines.push(mark);
    lines.append(&mut tail);
    lines.shrink_to_fit();
    lines
}

/// Takes the middle out of output that is too long, of which the beginning stays where it is: how it
/// began and how it ended say most. What is said in its place, and the end.
fn cut_middle(lines: &mut Vec<LogLine>) -> Option<(LogLine, Vec<LogLine>)> {
    let bytes_of = |lines: &[LogLine]| lines.iter().map(|line| line.text.len()).sum::<usize>();
    if bytes_of(lines) <= KEPT {
        return None;
    }
    let fits = |room: usize| {
        let mut bytes = 0;
        move |line: &&LogLine| {
            bytes += line.text.len();
            bytes <= room
        }
    };
    let head = lines.iter().take_while(fits(KEPT / 4 * 3)).count();
    let tail = lines[head..].iter().rev().take_while(fits(KEPT / 4)).count();
    let tail = lines.split_off(lines.len() - tail);
    let bytes = bytes_of(&lines[head..]);
    let text = format!("[cut: {bytes} bytes; history keeps {KEPT} of a call's output]\n");
    let mark = LogLine {
        time_us: lines.get(head)?.time_us,
        source: LogSource::Platform,
        level: None,
        text: text.into(),
    };
    lines.truncate(head);
    Some((mark, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, text: impl Into<Box<str>>) -> LogLine {
        LogLine { time_us: number, source: LogSource::Stdout, level: None, text: text.into() }
    }

    #[test]
    fn output_that_is_too_long_keeps_its_beginning_and_its_end() {
        let long = |number, bytes| line(number, "x".repeat(bytes));
        let mut lines: Vec<_> = (0..64).map(|number| long(number, 1 << 20)).collect();
        lines.push(long(64, 9));
        let lines = kept(lines, None, false);
        let numbers: Vec<_> = lines.iter().map(|line| line.time_us).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 64]);
        assert_eq!(&*lines[3].text, "[cut: 63963136 bytes; history keeps 4194304 of a call's output]\n");
        let one = kept(vec![long(0, 5 << 20)], None, false);
        assert!(one.len() == 1 && one[0].text.len() < 100, "a line of its own");
        assert_eq!(kept(vec![long(0, 9), long(1, 9)], None, true).len(), 2);
    }

    #[test]
    fn a_secret_that_lies_across_a_cut_is_masked_on_both_sides() {
        let secret = "-----BEGIN KEY-----\nabcdefgh\nijklmnop\nqrstuvwx\n-----END KEY-----\n";
        let mask = Mask::of([secret.as_bytes()].into_iter());
        let printed = || secret.split_inclusive('\n').map(|text| line(1, text));
        let fill = |bytes: usize| (0..bytes / 64).map(|_| line(0, format!("{}\n", "x".repeat(63))));
        // Its first two lines are the last ones of the beginning, its last two the first ones of the end.
        let first_two: usize = printed().take(2).map(|line| line.text.len()).sum();
        let last_two: usize = printed().skip(3).map(|line| line.text.len()).sum();
        let head = fill(KEPT / 4 * 3 - 128).chain([line(0, "y".repeat(128 - first_two))]);
        let tail = [line(0, "y".repeat(128 - last_two))].into_iter().chain(fill(KEPT / 4 - 128));
        let lines = kept(head.chain(printed()).chain(tail).collect(), Some(&mask), false);
        let text: String = lines.iter().map(|line| &*line.text).collect();
        assert!(text.contains("y***[cut: 9 bytes"), "{:?}", &text[KEPT / 4 * 3 - 200..][..300]);
        for piece in ["BEGIN", "abcd", "ijkl", "qrst", "END"] {
            assert!(!text.contains(piece), "{piece}");
        }
    }
}
