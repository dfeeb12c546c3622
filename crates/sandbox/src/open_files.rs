//! Open files: how many this process may have, and which part of them its workers take.
//!
//! Descriptors run out for all at once: whoever takes the last one, the next that needs one is
//! somebody else. So everything that takes many of them is bounded by a share of the limit, and
//! what has none (the launcher, the registry, code being unpacked) finds the rest free.
//!
//! A worker takes five in the platform: two pipes for its frames, the side channel, its output and
//! the handle by which it is killed. One pair of sockets instead of the two pipes would save one
//! and cost every call some microseconds; each of the others is what it is for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a worker takes in the platform: its five and, in an internal network, the two listeners there.
const PER_WORKER: u64 = 7;

/// Below this the platform works, but with few connections and workers: the usual soft limit of a
/// login shell, which is what is left where the hard limit is as low.
const ENOUGH: u64 = 4096;

/// The limit of open files of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    limit: u64,
}

impl OpenFiles {
    /// Raises the limit to what the host allows. A soft limit is there for programs that cannot
    /// deal with descriptors above 1,023, and this is none.
    pub fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
            // Where it stays lower, the shares are smaller, and nothing else.
            setrlimit(Resource::Nofile, raised).ok();
        }
        Self::now()
    }

    /// As it is.
    pub fn now() -> Self {
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// Another limit than this process has, for what is to be tested.
    pub fn of(limit: u64) -> Self {
        Self { limit }
    }

    /// The limit.
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// Workers at once: half of the limit is theirs.
    pub fn workers(self) -> usize {
        self.share(2) / PER_WORKER as usize
    }

    /// One part in so many of the limit; at least 8, so that a low limit leaves everybody some.
    pub fn share(self, one_in: u64) -> usize {
        usize::try_from(self.limit / one_in).unwrap_or(usize::MAX).max(8)
    }

    /// Why more is not to be had, and what to do about it, where that is so.
    pub fn complaint(self) -> Option<String> {
        let Self { limit } = self;
        (limit < ENOUGH).then(|| {
            format!(
                "this process may have no more than {limit} open files, which is enough for {} workers and \
                 {} connections; {REMEDY}",
                self.workers(),
                self.share(4),
            )
        })
    }
}

/// What to do about too few open files.
pub(crate) const REMEDY: &str =
    "raise the hard limit (ulimit -Hn, LimitNOFILE= of the service, --ulimit nofile= of the container)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_leave_a_reserve_and_a_low_limit_is_told_with_its_remedy() {
        for limit in [256, 1024, 20_000, 1 << 20] {
            let files = OpenFiles::of(limit);
            let taken = files.workers() as u64 * PER_WORKER + files.share(4) as u64;
            assert!(taken <= limit * 3 / 4, "{limit}: {taken}");
            assert_eq!(files.complaint().is_some(), limit < ENOUGH);
        }
        let said = OpenFiles::of(1024).complaint().expect("it is low");
        assert!(said.contains("1024") && said.contains("LimitNOFILE"), "{said}");
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let raised = OpenFiles::raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, OpenFiles::now());
    }
}
