//! How many connections one address may have at once.
//!
//! An address of IPv4, or the /64 network of IPv6 that one subscriber gets. Connections from this
//! machine are not counted: its functions and proxies speak for many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The counts of all listeners together.
#[derive(Debug)]
pub(crate) struct PerAddress {
    most: u32,
    counts: Mutex<HashMap<IpAddr, u32>>,
    refused: AtomicU64,
}

/// A connection that is counted until this goes.
#[derive(Debug)]
pub(super) struct Ticket {
    of: Arc<PerAddress>,
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

    /// Counts a connection; nothing for one from this machine.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Option<Ticket>, TooMany> {
        let peer = peer.to_canonical();
        if peer.is_loopback() {
            return Ok(None);
        }
        let address = counted(peer);
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(Ticket { of: self.clone(), address }))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.of.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
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

    #[test]
    fn an_address_has_so_many_and_others_are_not_touched() {
        let limit = PerAddress::new(2);
        let first = limit.enter(ip("192.0.2.1")).expect("room");
        let _second = limit.enter(ip("::ffff:192.0.2.1")).expect("room, and the same address");
        assert!(limit.enter(ip("192.0.2.1")).is_err());
        assert_eq!(limit.refused(), 1);
        let _other = limit.enter(ip("192.0.2.2")).expect("another address");
        drop(first);
        assert!(limit.enter(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_this_machine_none() {
        let limit = PerAddress::new(1);
        let ticket = limit.enter(ip("2001:db8::1")).expect("room");
        assert!(limit.enter(ip("2001:db8::ffff:1")).is_err());
        assert!(limit.enter(ip("2001:db8:0:1::1")).is_ok());
        drop(ticket);
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(limit.enter(ip(local)).expect("not counted").is_none());
        }
        assert!(limit.counts.lock().is_empty(), "nothing is kept of who has left");
    }
}
