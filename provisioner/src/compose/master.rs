//! A master: the API server, the controllers and the scheduler.

use serde_json::json;

use super::{
    ComposeError, balancer,
    builder::{Builder, Component, port},
};
use crate::{
    inventory::API_SERVER_PORT,
    pki::LeafKind,
    secret::Secret,
    state::{ClientFiles, Gate, HttpsGate, Mode, Stage},
};

pub(super) fn add(builder: &mut Builder<'_>) -> Result<(), ComposeError> {
    let layout = builder.layout();
    builder.directory(layout.settings(), Mode::EXECUTABLE);
    builder.directory(layout.certificates(), Mode::EXECUTABLE);
    let ca = builder.trust("ca", &builder.pki.cluster_trust);
    api_server(builder, &ca)?;
    balancer::add(builder, Stage::ControlPlane)?;
    controller_manager(builder, &ca)?;
    scheduler(builder, &ca)
}

fn api_server(builder: &mut Builder<'_>, ca: &str) -> Result<(), ComposeError> {
    let pki = builder.pki;
    let (settings, certificates) = (builder.layout().settings(), builder.layout().certificates());
    let etcd_ca = builder.trust("etcd-ca", &pki.etcd_trust);
    let etcd = builder.leaf(LeafKind::ApiServerEtcdClient)?;
    let serving = builder.leaf(LeafKind::ApiServer)?;
    let kubelet = builder.leaf(LeafKind::ApiServerKubeletClient)?;
    let signing =
        builder.secret(&format!("{certificates}/sa.key"), pki.service_account_key.clone());
    let public =
        builder.text(&format!("{certificates}/sa.pub"), pki.service_account_public.clone());
    let other = pki.service_account_other.clone();
    let other = other.map(|key| builder.text(&format!("{certificates}/sa-other.pub"), key));
    let tokens = format!("{settings}/token.csv");
    let text =
        builder.render("token.csv", &tokens, &json!({ "token": pki.bootstrap_token.expose() }))?;
    let tokens = builder.secret(&tokens, Secret::new(text));

    // The gate shows a certificate because the operator may switch anonymous requests off.
    let health = Gate::Https(HttpsGate {
        address: "127.0.0.1".to_owned(),
        port: API_SERVER_PORT,
        path: "/readyz".to_owned(),
        ca: ca.to_owned(),
        client: Some(ClientFiles { cert: kubelet[0].clone(), key: kubelet[1].clone() }),
    });
    let mut inputs = vec![ca.to_owned(), etcd_ca, signing, public, tokens];
    inputs.extend(etcd.into_iter().chain(serving).chain(kubelet).chain(other));
    inputs.extend(builder.hyperkube("kube-apiserver"));
    builder.master_component(Component {
        name: "kube-apiserver",
        stage: Stage::ControlPlane,
        health,
        ports: &[API_SERVER_PORT],
        inputs,
    })
}

fn controller_manager(builder: &mut Builder<'_>, ca: &str) -> Result<(), ComposeError> {
    let client = builder.leaf(LeafKind::ControllerManager)?;
    let serving = builder.leaf(LeafKind::ControllerManagerServing)?;
    let ca_key = builder.pki.cluster_ca.key.clone();
    let [_, signing] = builder.layout().certificate(builder.layout().certificates(), "ca");
    let signing = builder.secret(&signing, ca_key);
    let kubeconfig =
        builder.kubeconfig("controller-manager", "system:kube-controller-manager", &client)?;
    let mut inputs = vec![ca.to_owned(), signing, kubeconfig];
    inputs.extend(client.into_iter().chain(serving));
    inputs.extend(builder.hyperkube("kube-controller-manager"));
    builder.master_component(Component {
        name: "kube-controller-manager",
        stage: Stage::ControlPlane,
        health: healthz(port::CONTROLLER_MANAGER, ca),
        ports: &[port::CONTROLLER_MANAGER],
        inputs,
    })
}

fn scheduler(builder: &mut Builder<'_>, ca: &str) -> Result<(), ComposeError> {
    let client = builder.leaf(LeafKind::Scheduler)?;
    let serving = builder.leaf(LeafKind::SchedulerServing)?;
    let kubeconfig = builder.kubeconfig("scheduler", "system:kube-scheduler", &client)?;
    let mut inputs = vec![ca.to_owned(), kubeconfig];
    inputs.extend(client.into_iter().chain(serving));
    inputs.extend(builder.hyperkube("kube-scheduler"));
    builder.master_component(Component {
        name: "kube-scheduler",
        stage: Stage::ControlPlane,
        health: healthz(port::SCHEDULER, ca),
        ports: &[port::SCHEDULER],
        inputs,
    })
}

/// Health checks are open to everyone who reaches the loopback address.
fn healthz(port: u16, ca: &str) -> Gate {
    Gate::Https(HttpsGate {
        address: "127.0.0.1".to_owned(),
        port,
        path: "/healthz".to_owned(),
        ca: ca.to_owned(),
        client: None,
    })
}
