//! Notices at once when somebody removes the table of the service rules.
//!
//! Source: Linux, `include/uapi/linux/netfilter/nf_tables.h`: the group 7 of the packet filter's
//! netlink socket carries what transactions of nftables did.

use nix::errno::Errno;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio::sync::mpsc;

use super::conntrack::{NETLINK_NETFILTER, attribute, messages};

const GROUP_NFTABLES: u32 = 7;
/// Subsystem 10 of the packet filter is nftables; its message 2 says that a table is gone.
const TABLE_GONE: u16 = 10 << 8 | 2;
const NAME: u16 = 1;
/// `nfgenmsg`, before the attributes.
const HEADER: usize = 4;

/// Returns a channel that holds a token whenever the table `name` may be gone. It is closed when
/// the kernel tells nothing; a regular check has to do then.
pub(super) fn watch_table(name: &'static str) -> mpsc::Receiver<()> {
    let (sink, tokens) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(error) = follow(name, &sink).await {
            tracing::debug!(%error, "no news of removed tables");
        }
    });
    tokens
}

async fn follow(name: &str, sink: &mpsc::Sender<()>) -> std::io::Result<()> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_ref().add_membership(GROUP_NFTABLES)?;
    loop {
        let received = tokio::select! {
            received = socket.recv_from_full() => received,
            () = sink.closed() => return Ok(()),
        };
        let matters = match received {
            Ok((bytes, _)) => removes(&bytes, name),
            // An overrun socket has lost news of anything.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => true,
            Err(error) => return Err(error),
        };
        if matters {
            // A full channel holds a token already.
            let _ = sink.try_send(());
        }
    }
}

/// Whether a datagram tells that the table is gone.
fn removes(bytes: &[u8], name: &str) -> bool {
    messages(bytes).filter(|(type_, _)| *type_ == TABLE_GONE).any(|(_, body)| {
        let value = body.get(HEADER..).and_then(|attributes| attribute(attributes, NAME));
        value.is_some_and(|value| value.strip_suffix(&[0]).unwrap_or(value) == name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loss_of_the_table_itself_counts() {
        let message = |type_: u16, name: &[u8]| {
            let mut attribute = vec![0; 4];
            attribute[0] = u8::try_from(name.len() + 4).unwrap();
            attribute[2] = 1;
            attribute.extend(name);
            attribute.resize(attribute.len().next_multiple_of(4), 0);
            super::super::conntrack::request(type_, 0, &attribute)
        };
        let gone = |bytes: &[u8]| removes(bytes, "kube-proxy");
        assert!(gone(&message(TABLE_GONE, b"kube-proxy\0")));
        assert!(!gone(&message(TABLE_GONE, b"filter\0")));
        assert!(!gone(&message(TABLE_GONE - 2, b"kube-proxy\0")));
        let both = [message(TABLE_GONE, b"nat\0"), message(TABLE_GONE, b"kube-proxy\0")].concat();
        assert!(gone(&both));
        assert!(!gone(&both[..10]));
    }
}
