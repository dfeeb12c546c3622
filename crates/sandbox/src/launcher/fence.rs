//! The fence around `network = "full"`: what workers may not reach although the host can.
//!
//! A table of packet-filter rules on the range of workers' uids, which no worker can leave. Said to
//! the kernel directly (netlink, `nf_tables`), so that no program has to be installed, and with this
//! process as the table's owner: the kernel removes it with the socket, however the launcher ends.
//! `nft list ruleset` shows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

use super::mounts::last_error;
use super::probe::{FIRST_UID, UIDS};

/// Where clouds hand credentials of the machine to whatever runs on it, with the bits that count:
/// link-local addresses of both families (AWS and everybody who copied it, its containers and pods,
/// Scaleway, Tencent, OpenStack), Alibaba's, Azure's WireServer, and by unique local addresses of
/// IPv6 AWS's two, Google's, Oracle's and Scaleway's.
const METADATA: [(IpAddr, u32); 9] = [
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), 32),
    (IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)), 128),
];

/// Some of these machines answer for names as well (Google): that stays.
const NAMES_PORT: u16 = 53;

const CHAIN: &str = "output";

// Of the kernel's headers (linux/netfilter/nfnetlink.h and nf_tables.h), which libc has in part.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;
const NEWTABLE: u16 = NFTABLES << 8;
const NEWCHAIN: u16 = NFTABLES << 8 | 3;
const NEWRULE: u16 = NFTABLES << 8 | 6;
const FAMILY_INET: u8 = 1;
const TABLE_OWNED: u32 = 2;
const HOOK_LOCAL_OUT: u32 = 3;
const ACCEPT: u32 = 1;
const REGISTER: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const TO_NETWORK_ORDER: u32 = 1;
const META_OIFTYPE: u32 = 9;
const META_SKUID: u32 = 10;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Source port first, then the other, in every transport that has ports.
const SOURCE_PORT: (u32, u32, u32) = (TRANSPORT_HEADER, 0, 2);
const DESTINATION_PORT: (u32, u32, u32) = (TRANSPORT_HEADER, 2, 2);
const TCP_FLAGS: (u32, u32, u32) = (TRANSPORT_HEADER, 13, 1);
/// SYN and ACK: what a listener answers, and nobody else says.
const ACCEPTING: [u8; 1] = [0x12];
const REJECT_RESET: u32 = 1;
const REJECT_ICMPX: u32 = 2;
const ADMIN_PROHIBITED: u8 = 3;
const NESTED: u16 = 0x8000;

/// The rules are in force as long as this lives.
#[derive(Debug)]
pub(super) struct Fence {
    _owner: OwnedFd,
}

impl Fence {
    /// Keeps workers from the guarded ports of this host, and from cloud metadata; and from answering
    /// at a port that the platform serves on another of the host's addresses.
    pub(super) fn raise(table: &str, guarded: &[u16], served: &[u16]) -> Result<Self, String> {
        let owner = netlink().map_err(|e| format!("this kernel has no netfilter: {e}"))?;
        tell(&owner, &transaction(table, guarded, served)).map_err(why)?;
        Ok(Self { _owner: owner })
    }
}

fn why(error: Errno) -> String {
    match error {
        Errno::PERM => "packet-filter rules may not be set here: no CAP_NET_ADMIN".into(),
        Errno::OPNOTSUPP | Errno::INVAL | Errno::NOENT | Errno::PROTONOSUPPORT => {
            format!("this kernel cannot filter packets by nf_tables: {error}")
        }
        other => format!("packet-filter rules cannot be set: {other}"),
    }
}

fn netlink() -> rustix::io::Result<OwnedFd> {
    // SAFETY: plain numbers; the descriptor is ours alone.
    unsafe {
        match libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER) {
            -1 => Err(last_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Sends a transaction; the kernel has done all of it or nothing when this returns.
fn tell(socket: &OwnedFd, transaction: &[u8]) -> rustix::io::Result<()> {
    let (fd, nothing) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
    // SAFETY: the bytes live across the call and are as many as said.
    if unsafe { libc::send(fd, transaction.as_ptr().cast(), transaction.len(), 0) } < 0 {
        return Err(last_error());
    }
    // The kernel works in our call, so its answers are there by now: one for each message.
    let mut answered = false;
    let mut answer = [0_u8; 8192];
    loop {
        // SAFETY: a buffer of that size.
        let read = unsafe { libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), nothing) };
        let Ok(read) = usize::try_from(read) else {
            return match last_error() {
                Errno::AGAIN if answered => Ok(()),
                error => Err(error),
            };
        };
        for code in errors(&answer[..read]) {
            answered = true;
            if code != 0 {
                return Err(Errno::from_raw_os_error(-code));
            }
        }
    }
}

/// The codes of the NLMSG_ERROR messages in an answer: 0 means done.
fn errors(answer: &[u8]) -> Vec<i32> {
    let mut rest = answer;
    let mut codes = Vec::new();
    while let Some((header, _)) = rest.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if i32::from(kind) == libc::NLMSG_ERROR
            && let Some(code) = rest.get(16..20).and_then(|code| code.try_into().ok())
        {
            codes.push(i32::from_ne_bytes(code));
        }
        rest = rest.get(length.max(16).next_multiple_of(4)..).unwrap_or_default();
    }
    codes
}

/// A table of ours with one chain at the way out, and the rules, as one transaction.
fn transaction(table: &str, guarded: &[u16], served: &[u16]) -> Vec<u8> {
    let mut bytes = message(BATCH_BEGIN, 0, 0, NFTABLES, &[]);
    let name = |kind| attribute(kind, &text(table));
    let create = libc::NLM_F_CREATE | libc::NLM_F_ACK;
    let owned = [name(1), number(2, TABLE_OWNED)].concat();
    bytes.extend(message(NEWTABLE, create, FAMILY_INET, 0, &owned));
    let hook = nested(4, &[number(1, HOOK_LOCAL_OUT), number(2, 0)]);
    let chain = [name(1), attribute(3, &text(CHAIN)), hook, number(5, ACCEPT), attribute(7, &text("filter"))]
        .concat();
    bytes.extend(message(NEWCHAIN, create, FAMILY_INET, 0, &chain));
    let rules = guarded.iter().map(|port| no_port(*port));
    let rules = rules.chain(served.iter().map(|port| no_listener(*port))).chain(METADATA.map(no_metadata));
    for rule in rules {
        let rule = [name(1), attribute(2, &text(CHAIN)), nested(4, &rule)].concat();
        bytes.extend(message(NEWRULE, create | libc::NLM_F_APPEND, FAMILY_INET, 0, &rule));
    }
    bytes.extend(message(BATCH_END, 0, 0, NFTABLES, &[]));
    bytes
}

/// No connection to that port of any of the host's addresses: all of them are behind its loopback.
fn no_port(port: u16) -> Vec<Vec<u8>> {
    let mut rule = of_a_worker();
    rule.extend([meta(META_OIFTYPE), compare(EQUAL, &libc::ARPHRD_LOOPBACK.to_ne_bytes())]);
    rule.extend([meta(META_L4PROTO), compare(EQUAL, &[libc::IPPROTO_TCP as u8])]);
    rule.extend([payload(DESTINATION_PORT), compare(EQUAL, &port.to_be_bytes())]);
    rule.push(expression("reject", &[number(1, REJECT_RESET), attribute(2, &[0])]));
    rule
}

/// No answer from that port, on whichever address: who looks for the platform by a name finds nobody
/// else, and the platform's own listeners are not a worker's.
fn no_listener(port: u16) -> Vec<Vec<u8>> {
    let mut rule = of_a_worker();
    rule.extend([meta(META_L4PROTO), compare(EQUAL, &[libc::IPPROTO_TCP as u8])]);
    rule.extend([payload(SOURCE_PORT), compare(EQUAL, &port.to_be_bytes())]);
    rule.extend([payload(TCP_FLAGS), masked(&ACCEPTING), compare(EQUAL, &ACCEPTING)]);
    rule.push(expression("reject", &[number(1, REJECT_RESET), attribute(2, &[0])]));
    rule
}

/// Nothing to addresses that begin so but questions for names.
fn no_metadata((address, bits): (IpAddr, u32)) -> Vec<Vec<u8>> {
    let mut rule = of_a_worker();
    let (family, place, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, (NETWORK_HEADER, 16, 4), address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, (NETWORK_HEADER, 24, 16), address.octets().to_vec()),
    };
    rule.extend([meta(META_NFPROTO), compare(EQUAL, &[family as u8])]);
    rule.extend([payload(place), masked(&first_bits(bits, bytes.len())), compare(EQUAL, &bytes)]);
    rule.extend([payload(DESTINATION_PORT), compare(NOT_EQUAL, &NAMES_PORT.to_be_bytes())]);
    rule.push(expression("reject", &[number(1, REJECT_ICMPX), attribute(2, &[ADMIN_PROHIBITED])]));
    rule
}

/// The socket is one of a worker's.
fn of_a_worker() -> Vec<Vec<u8>> {
    let order =
        [number(1, REGISTER), number(2, REGISTER), number(3, TO_NETWORK_ORDER), number(4, 4), number(5, 4)];
    let value = |uid: u32| attribute(1, &uid.to_be_bytes());
    let from = nested(3, &[value(FIRST_UID)]);
    let to = nested(4, &[value(FIRST_UID + UIDS - 1)]);
    vec![
        meta(META_SKUID),
        expression("byteorder", &order),
        expression("range", &[number(1, REGISTER), number(2, EQUAL), from, to]),
    ]
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, key)])
}

fn payload((base, offset, length): (u32, u32, u32)) -> Vec<u8> {
    expression("payload", &[number(1, REGISTER), number(2, base), number(3, offset), number(4, length)])
}

/// So many bits set, in so many bytes.
fn first_bits(bits: u32, bytes: usize) -> Vec<u8> {
    let set_in = |byte: u32| bits.saturating_sub(byte * 8).min(8);
    (0..bytes as u32).map(|byte| !0xff_u8.checked_shr(set_in(byte)).unwrap_or(0)).collect()
}

fn masked(mask: &[u8]) -> Vec<u8> {
    let value = |kind, bytes: &[u8]| nested(kind, &[attribute(1, bytes)]);
    let registers = [number(1, REGISTER), number(2, REGISTER), number(3, mask.len() as u32)].concat();
    expression("bitwise", &[registers, value(4, mask), value(5, &vec![0; mask.len()])])
}

fn compare(operator: u32, value: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, operator), nested(3, &[attribute(1, value)])])
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[attribute(1, &text(name)), nested(2, data)])
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Numbers are in network order in nf_tables.
fn number(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

fn nested(kind: u16, inner: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &inner.concat())
}

/// Length without padding, kind, value, padding to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("attributes are short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: libc::c_int, family: u8, resource: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + body.len()).expect("messages are short");
    let flags = u16::try_from(flags | libc::NLM_F_REQUEST).expect("flags are 16 bits");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    // Sequence and sender are not needed: one transaction, one socket.
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_say_their_length_and_are_padded() {
        assert_eq!(attribute(7, &text("filter")), [[11, 0, 7, 0], *b"filt", *b"er\0\0"].concat());
        assert_eq!(number(5, ACCEPT), [8, 0, 5, 0, 0, 0, 0, 1]);
        assert_eq!(nested(4, &[number(2, 0)])[..4], [12, 0, 4, 0x80]);
    }

    #[test]
    fn a_transaction_is_whole_messages_with_a_rule_for_each_port_and_address() {
        let bytes = transaction("functionsplatform_0", &[8000, 16686], &[5000, 8000, 16686]);
        let mut rest = &bytes[..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().expect("four")) as usize;
            kinds.push(u16::from_ne_bytes(rest[4..6].try_into().expect("two")));
            rest = &rest[length..];
        }
        assert_eq!(kinds[..3], [BATCH_BEGIN, NEWTABLE, NEWCHAIN]);
        assert_eq!(kinds[3..kinds.len() - 1], [NEWRULE; 5 + METADATA.len()]);
        assert_eq!(kinds.last(), Some(&BATCH_END));
    }

    #[test]
    fn a_mask_has_its_bits_from_the_left() {
        assert_eq!(first_bits(16, 4), [0xff, 0xff, 0, 0]);
        assert_eq!(first_bits(10, 3), [0xff, 0xc0, 0]);
        assert_eq!((first_bits(32, 4), first_bits(0, 1)), (vec![0xff; 4], vec![0]));
    }

    #[test]
    fn the_kernels_answers_are_read_to_their_end() {
        let answer = |code: i32| {
            let mut bytes = 36_u32.to_ne_bytes().to_vec();
            bytes.extend([2_u16.to_ne_bytes(), [0; 2]].concat());
            bytes.extend([0; 8]);
            bytes.extend(code.to_ne_bytes());
            bytes.extend([0; 16]);
            bytes
        };
        assert_eq!(errors(&[answer(0), answer(-1)].concat()), [0, -1]);
        assert_eq!(errors(&[1, 2, 3]), Vec::<i32>::new());
        assert_eq!(why(Errno::PERM), "packet-filter rules may not be set here: no CAP_NET_ADMIN");
    }
}
