//! How long a place in the queue waits, in microseconds.

/// When the `place`-th slot (1 is the first) comes free, where slot `i` comes free first at
/// `releases[i]` and then again every `run`. The order of `releases` is lost.
pub(super) fn nth_release(releases: &mut [u64], run: u64, place: u64) -> u64 {
    let Some(first) = releases.iter().min().copied() else { return u64::MAX };
    let run = run.max(1);
    // Usually every call before this one takes a slot of its own: then it is one look-up.
    if let Some(at) = usize::try_from(place.saturating_sub(1)).ok().filter(|at| *at < releases.len()) {
        let (_, candidate, _) = releases.select_nth_unstable(at);
        if *candidate < first.saturating_add(run) {
            return *candidate;
        }
    }
    // One slot alone would be done by then.
    let (mut low, mut high) = (first, first.saturating_add(run.saturating_mul(place.saturating_sub(1))));
    while low < high {
        let middle = low + (high - low) / 2;
        if releases_by(releases, run, middle) >= place { high = middle } else { low = middle + 1 }
    }
    low
}

/// How many slots have come free by this time.
pub(super) fn releases_by(releases: &[u64], run: u64, time: u64) -> u64 {
    let run = run.max(1);
    let of_slot = |release: &u64| time.checked_sub(*release).map_or(0, |since| since / run + 1);
    releases.iter().map(of_slot).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_busy_worker_and_one_that_is_starting_share_the_queue() {
        let waits: Vec<_> = (1..=5).map(|place| nth_release(&mut [100, 300], 100, place)).collect();
        assert_eq!(waits, [100, 200, 300, 300, 400]);
        assert_eq!(nth_release(&mut [], 100, 1), u64::MAX);
        assert_eq!(nth_release(&mut [5], 0, 3), 7, "a run takes at least a microsecond");
    }

    proptest! {
        #[test]
        fn it_is_what_playing_the_queue_through_gives(
            mut releases in prop::collection::vec(0..500u64, 1..8),
            run in 1..200u64,
            place in 1..40u64,
        ) {
            let told = nth_release(&mut releases.clone(), run, place);
            let mut freed = 0;
            for _ in 0..place {
                let next = releases.iter_mut().min().expect("not empty");
                freed = *next;
                *next += run;
            }
            prop_assert_eq!(told, freed);
        }
    }
}
