//! When calls were left out of the files, and whose: so that whoever asks for one of their own is told
//! "left out" and not "unknown", and nobody learns when others are busy.
//!
//! Files hold it as one number, the second with a mark of the tenant above it. The mark of `default` is
//! 0, and so is that of everybody in files from before there were marks.

use std::collections::BTreeMap;

use fp_core::Tenant;

/// Calls that are in no file.
pub(crate) type Skipped = BTreeMap<SkippedAt, u64>;

/// A second of a tenant's, Unix time. Sorts by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SkippedAt {
    second: u32,
    /// Tells tenants apart but for one pair in two thousand million; below 2^31, so that the number is
    /// one that SQLite has.
    tenant: u32,
}

impl SkippedAt {
    pub(crate) fn new(tenant: &Tenant, second: u64) -> Self {
        // Seconds have 32 bits until the year 2106.
        let second = u32::try_from(second).unwrap_or(u32::MAX);
        let tenant = if *tenant == Tenant::default() { 0 } else { mark_of(tenant.as_str()) };
        Self { second, tenant }
    }

    pub(crate) fn second(self) -> u64 {
        self.second.into()
    }

    /// As files have it.
    pub(super) fn number(self) -> u64 {
        u64::from(self.tenant) << 32 | u64::from(self.second)
    }

    pub(super) fn of_number(number: u64) -> Self {
        Self { second: number as u32, tenant: (number >> 32) as u32 }
    }
}

/// FNV-1a, which is the same in every release: files outlive them.
fn mark_of(name: &str) -> u32 {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    (name.as_bytes().iter().fold(0x811c_9dc5, mix) & 0x7fff_ffff).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_reads_back_and_the_operators_is_the_second_itself() {
        let (default, acme) = (Tenant::default(), "acme".parse().expect("a tenant"));
        let noon = 1_767_268_800;
        assert_eq!(SkippedAt::new(&default, noon).number(), noon);
        let theirs = SkippedAt::new(&acme, noon);
        assert_ne!(theirs, SkippedAt::new(&default, noon));
        assert_eq!(SkippedAt::of_number(theirs.number()), theirs);
        assert!(i64::try_from(theirs.number()).is_ok() && theirs.second() == noon);
        assert!(theirs < SkippedAt::new(&default, noon + 1), "by time");
    }
}
