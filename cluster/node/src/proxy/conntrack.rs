//! Forgets tracked UDP flows whose endpoint is gone, over the kernel's connection tracking
//! netlink interface.
//!
//! Source: Linux, `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use network::{Endpoint, Flow, FlowCheck, Protocol, RuleChange, RuleSet};
use rtnetlink::sys::{Socket, SocketAddr};

/// Whether the changes (`None`: everything) can leave stale flows.
pub(super) fn concerns(changes: Option<&[RuleChange]>) -> bool {
    changes.is_none_or(|changes| {
        let rules = changes.iter().flat_map(|change| [&change.before, &change.after]);
        let mut ports = rules.flatten().flat_map(|rules| rules.ports.values());
        ports.any(|port| port.protocol == Protocol::Udp)
    })
}

/// Deletes all tracked flows that the rules no longer allow. What goes wrong is logged: a stale
/// flow ends by itself, only later.
pub async fn forget_stale(rule_set: &RuleSet) {
    let check = FlowCheck::new(rule_set);
    if check.is_empty() {
        return;
    }
    let forgotten = tokio::task::spawn_blocking(move || forget(&check)).await;
    match forgotten {
        Ok(Ok(0)) => {}
        Ok(Ok(flows)) => tracing::info!(flows, "stale UDP flows forgotten"),
        Ok(Err(error)) => tracing::warn!(%error, "stale UDP flows were not forgotten"),
        Err(error) => tracing::warn!(%error, "the search for stale UDP flows broke off"),
    }
}

fn local_addresses() -> std::io::Result<BTreeSet<Ipv4Addr>> {
    let addresses = nix::ifaddrs::getifaddrs()?;
    Ok(addresses.filter_map(|a| Some(a.address?.as_sockaddr_in()?.ip())).collect())
}

/// The socket family of the packet filter.
pub(super) const NETLINK_NETFILTER: isize = 12;
/// Subsystem 1 of the packet filter is connection tracking; its messages are new, get, delete.
const MESSAGE_NEW: u16 = 1 << 8;
const MESSAGE_GET: u16 = MESSAGE_NEW | 1;
const MESSAGE_DELETE: u16 = MESSAGE_NEW | 2;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST_DUMP: u16 = 0x301;
const REQUEST_ACK: u16 = 5;
/// `nlmsghdr` and `nfgenmsg`.
const HEADERS: usize = 20;
const AF_INET: u8 = 2;
const IPPROTO_UDP: u8 = 17;
/// Attributes of a flow.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// A table this large holds no more flows than any kernel tracks by default.
const MESSAGES_MAX: usize = 1 << 20;

fn forget(check: &FlowCheck) -> std::io::Result<usize> {
    let local = local_addresses()?;
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(MESSAGE_GET, REQUEST_DUMP, &[]), 0)?;
    let mut stale = Vec::new();
    for _ in 0..MESSAGES_MAX {
        let (bytes, _) = socket.recv_from_full()?;
        let mut done = false;
        for (type_, body) in messages(&bytes) {
            match type_ {
                NLMSG_DONE => done = true,
                NLMSG_ERROR => return Err(error_of(body)),
                MESSAGE_NEW => {
                    let flow = body.get(4..).and_then(parse_flow);
                    stale.extend(flow.filter(|(f, _)| check.is_stale(f, &local)).map(|f| f.1));
                }
                _ => {}
            }
        }
        if done {
            break;
        }
    }
    for identity in &stale {
        socket.send(&request(MESSAGE_DELETE, REQUEST_ACK, identity), 0)?;
        // The answer is of no interest: a flow that is gone already is as good.
        socket.recv_from_full()?;
    }
    Ok(stale.len())
}

fn error_of(body: &[u8]) -> std::io::Error {
    let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    std::io::Error::from_raw_os_error(code.saturating_neg())
}

pub(super) fn request(type_: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + attributes.len()).expect("a flow's identity is small");
    let mut message = Vec::with_capacity(HEADERS + attributes.len());
    message.extend(length.to_ne_bytes());
    message.extend(type_.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([AF_INET, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// Splits a datagram into messages: type and body.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let type_ = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let body = bytes.get(16..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((type_, body))
    })
}

/// Splits a body into attributes: type, value, and the whole with its padding.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        // The upper bits say that the value is nested or in network order.
        let type_ = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        let whole = bytes.get(..align(length)).unwrap_or(bytes);
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((type_, value, whole))
    })
}

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// One direction of a flow.
struct Tuple {
    protocol: u8,
    source: Endpoint,
    destination: Endpoint,
}

/// The value of the first attribute of a type.
pub(super) fn attribute(bytes: &[u8], type_: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(t, ..)| *t == type_).map(|(_, value, _)| value)
}

fn parse_tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, protocol) = (attribute(bytes, 1)?, attribute(bytes, 2)?);
    let address = |type_| attribute(ip, type_)?.first_chunk::<4>().copied().map(Ipv4Addr::from);
    let port = |type_| attribute(protocol, type_)?.first_chunk().copied().map(u16::from_be_bytes);
    Some(Tuple {
        protocol: *attribute(protocol, 1)?.first()?,
        source: Endpoint { address: address(1)?, port: port(2)? },
        destination: Endpoint { address: address(2)?, port: port(3)? },
    })
}

/// A UDP flow, and the attributes by which the kernel finds it again.
fn parse_flow(bytes: &[u8]) -> Option<(Flow, Vec<u8>)> {
    let original = parse_tuple(attribute(bytes, TUPLE_ORIGINAL)?)?;
    let reply = parse_tuple(attribute(bytes, TUPLE_REPLY)?)?;
    if original.protocol != IPPROTO_UDP {
        return None;
    }
    let identity = attributes(bytes)
        .filter(|(type_, ..)| matches!(*type_, TUPLE_ORIGINAL | ID | ZONE))
        .flat_map(|(.., whole)| whole.iter().copied())
        .collect();
    let flow = Flow { destination: original.destination, answers_from: reply.source };
    Some((flow, identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_of(type_: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), type_.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn tuple(source: ([u8; 4], u16), destination: ([u8; 4], u16), protocol: u8) -> Vec<u8> {
        let ip = [attribute_of(1, &source.0), attribute_of(2, &destination.0)].concat();
        let ports = [
            attribute_of(1, &[protocol]),
            attribute_of(2, &source.1.to_be_bytes()),
            attribute_of(3, &destination.1.to_be_bytes()),
        ];
        [attribute_of(0x8001, &ip), attribute_of(0x8002, &ports.concat())].concat()
    }

    #[test]
    fn flows_are_read_from_messages() {
        let original = tuple(([10, 244, 1, 5], 4000), ([10, 96, 0, 10], 53), 17);
        let reply = tuple(([10, 244, 2, 2], 5353), ([10, 244, 1, 5], 4000), 17);
        let (original, reply) = (attribute_of(0x8001, &original), attribute_of(0x8002, &reply));
        let body = [original.clone(), reply, attribute_of(3, &[0; 4]), attribute_of(12, &[7; 4])];
        let sent = request(MESSAGE_NEW, 0, &body.concat());
        let (type_, received) = messages(&sent).next().unwrap();
        assert_eq!((type_, received[0]), (MESSAGE_NEW, AF_INET));
        let (flow, identity) = parse_flow(&received[4..]).unwrap();
        assert_eq!(flow.destination.to_string(), "10.96.0.10:53");
        assert_eq!(flow.answers_from.to_string(), "10.244.2.2:5353");
        assert_eq!(identity, [original, attribute_of(12, &[7; 4])].concat());
    }

    #[test]
    fn other_protocols_and_broken_messages_are_passed_over() {
        let tcp = tuple(([1, 1, 1, 1], 1), ([2, 2, 2, 2], 2), 6);
        let body = [attribute_of(0x8001, &tcp), attribute_of(0x8002, &tcp)].concat();
        assert!(parse_flow(&body).is_none());
        for end in 0..body.len() {
            assert!(parse_flow(&body[..end]).is_none());
            assert_eq!(messages(&body[..end.min(15)]).count(), 0);
        }
    }
}
