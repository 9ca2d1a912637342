//! An etcd member.

use super::{
    ComposeError,
    builder::{Builder, Component, port},
};
use crate::{
    pki::LeafKind,
    state::{ClientFiles, Gate, HttpsGate, Mode, Stage},
};

pub(super) fn add(builder: &mut Builder<'_>) -> Result<(), ComposeError> {
    let layout = builder.layout();
    builder.directory(layout.etcd_settings(), Mode::EXECUTABLE);
    builder.directory(layout.etcd_certificates(), Mode::EXECUTABLE);
    builder.state.data.insert(layout.etcd_data().to_owned());
    // A folder of the root that is there for the data alone goes with them.
    if let Some(parent) = Some("/data1").filter(|parent| layout.etcd_data().starts_with(parent)) {
        builder.directory(parent, Mode::EXECUTABLE);
    }

    let [ca, _] = layout.certificate(layout.etcd_certificates(), "ca");
    let ca = builder.text(&ca, builder.pki.etcd_trust.clone());
    let server = builder.leaf(LeafKind::EtcdServer)?;
    let peer = builder.leaf(LeafKind::EtcdPeer)?;
    let [cert, key] = builder.leaf(LeafKind::EtcdHealth)?;
    let artifacts = builder.artifacts;
    let program = builder.program(layout.etcd_programs(), "etcd", &artifacts.etcd, "etcd");

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
        stage: Stage::Etcd,
        health,
        ports: &[port::ETCD_CLIENT, port::ETCD_PEER],
        inputs,
    })
}
