//! How many connections one address may have at once.
//!
//! An address of IPv4, or the /64 network of IPv6 that one subscriber gets. Connections from this
//! machine are not counted: its functions and proxies speak for many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// One part in how many of a listener's places one address may have, whatever the limit is: so
/// many addresses at least it takes to keep everybody else out.
const SHARE: usize = 4;

/// Connections that an address may have on the smallest listener: what a browser opens at once.
const FEWEST: usize = 8;

/// The counts of all listeners together.
#[derive(Debug)]
pub(crate) struct PerAddress {
    most: u32,
    counts: Counts,
    refused: AtomicU64,
}

type Counts = Mutex<HashMap<IpAddr, u32>>;

/// What the addresses may have of one listener.
#[derive(Debug)]
pub(crate) struct OnListener {
    all: Arc<PerAddress>,
    most: u32,
    counts: Counts,
}

/// A connection that is counted until this goes.
#[derive(Debug)]
pub(super) struct Ticket {
    of: Arc<OnListener>,
    address: IpAddr,
}

/// The address has as many as it may.
#[derive(Debug)]
pub(super) struct TooMany;

impl PerAddress {
    pub(crate) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// Connections that were closed at once, since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The same for a listener with so many places, of which an address gets no more than a share.
    pub(crate) fn on_listener(self: &Arc<Self>, places: usize) -> Arc<OnListener> {
        let most = u32::try_from((places / SHARE).max(FEWEST)).unwrap_or(u32::MAX);
        Arc::new(OnListener { all: self.clone(), most, counts: Mutex::default() })
    }
}

impl OnListener {
    /// Counts a connection; nothing for one from this machine.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Option<Ticket>, TooMany> {
        let peer = peer.to_canonical();
        if peer.is_loopback() {
            return Ok(None);
        }
        let address = counted(peer);
        if !add(&self.counts, address, self.most) {
            self.all.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TooMany);
        }
        if !add(&self.all.counts, address, self.all.most) {
            take(&self.counts, address);
            self.all.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TooMany);
        }
        Ok(Some(Ticket { of: self.clone(), address }))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        take(&self.of.counts, self.address);
        take(&self.of.all.counts, self.address);
    }
}

/// Counts one more, if there may be one. Who is refused the first leaves no entry behind.
fn add(counts: &Counts, address: IpAddr, most: u32) -> bool {
    let mut counts = counts.lock();
    let count = counts.get(&address).copied().unwrap_or(0);
    let has_room = count < most;
    if has_room {
        counts.insert(address, count + 1);
    }
    has_room
}

fn take(counts: &Counts, address: IpAddr) {
    let mut counts = counts.lock();
    if let Some(count) = counts.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&address);
        }
    }
}

fn counted(peer: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn limit(most: u32) -> (Arc<PerAddress>, Arc<OnListener>) {
        let all = PerAddress::new(most);
        let listener = all.on_listener(1_000);
        (all, listener)
    }

    #[test]
    fn an_address_has_so_many_and_others_are_not_touched() {
        let (all, limit) = limit(2);
        let first = limit.enter(ip("192.0.2.1")).expect("room");
        let _second = limit.enter(ip("::ffff:192.0.2.1")).expect("room, and the same address");
        assert!(limit.enter(ip("192.0.2.1")).is_err());
        assert_eq!(all.refused(), 1);
        let _other = limit.enter(ip("192.0.2.2")).expect("another address");
        drop(first);
        assert!(limit.enter(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn an_address_never_has_all_places_of_a_listener() {
        let all = PerAddress::new(1_024);
        let (small, large) = (all.on_listener(64), all.on_listener(4_096));
        let tickets: Vec<_> = std::iter::from_fn(|| small.enter(ip("192.0.2.1")).ok()).collect();
        assert_eq!(tickets.len(), 16);
        assert!(small.enter(ip("192.0.2.2")).is_ok());
        let more: Vec<_> = std::iter::from_fn(|| large.enter(ip("192.0.2.1")).ok()).collect();
        assert_eq!(more.len(), 1_024 - 16, "those of all listeners count together");
        drop((tickets, more));
        for counts in [&small.counts, &large.counts, &all.counts] {
            assert!(counts.lock().is_empty(), "nothing is kept of who has left");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_this_machine_none() {
        let (all, limit) = limit(1);
        let ticket = limit.enter(ip("2001:db8::1")).expect("room");
        assert!(limit.enter(ip("2001:db8::ffff:1")).is_err());
        assert!(limit.enter(ip("2001:db8:0:1::1")).is_ok());
        drop(ticket);
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(limit.enter(ip(local)).expect("not counted").is_none());
        }
        assert!(all.counts.lock().is_empty() && limit.counts.lock().is_empty());
    }

    #[test]
    fn who_is_refused_leaves_nothing_behind() {
        let (all, limit) = limit(0);
        assert!(limit.enter(ip("192.0.2.1")).is_err());
        assert!(all.counts.lock().is_empty() && limit.counts.lock().is_empty());
    }
}
