//! An etcd member.

use super::{
    ComposeError,
    builder::{Builder, Component, port},
};
use crate::{
    pki::LeafKind,
    state::{ClientFiles, Gate, HttpsGate, Mode, Stage},
};

const ETC: &str = "/etc/etcd";

pub(super) fn add(builder: &mut Builder<'_>) -> Result<(), ComposeError> {
    let pki = format!("{ETC}/pki");
    builder.directory(ETC, Mode::EXECUTABLE);
    builder.directory(&pki, Mode::EXECUTABLE);
    builder.state.data.insert("/var/lib/etcd".to_owned());

    let ca = builder.text(&format!("{pki}/ca.crt"), builder.pki.etcd_trust.clone());
    let server = builder.leaf(LeafKind::EtcdServer)?;
    let peer = builder.leaf(LeafKind::EtcdPeer)?;
    let [cert, key] = builder.leaf(LeafKind::EtcdHealth)?;
    let artifacts = builder.artifacts;
    let program = builder.program("etcd", &artifacts.etcd, "etcd");

    let mut inputs = vec![ca.clone()];
    inputs.extend(program);
    inputs.extend(server);
    inputs.extend(peer);
    let health = Gate::Https(HttpsGate {
        address: builder.host.address.to_string(),
        port: port::ETCD_CLIENT,
        path: "/health".to_owned(),
        ca,
        client: Some(ClientFiles { cert, key }),
    });
    builder.component(Component {
        name: "etcd",
        etc: ETC,
        stage: Stage::Etcd,
        health,
        ports: &[port::ETCD_CLIENT, port::ETCD_PEER],
        inputs,
    })
}
