//! A node: the kubelet, the pod network and the service proxy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    ComposeError, balancer,
    builder::{Builder, Component, PKI, port},
};
use crate::{
    digest::Digest,
    inventory::Backend,
    kubeconfig::encode,
    pki::LeafKind,
    secret::Secret,
    state::{Gate, Mode, Stage},
};

const ETC: &str = "/etc/kubernetes";

pub(super) fn add(builder: &mut Builder<'_>) -> Result<(), ComposeError> {
    builder.directory(ETC, Mode::EXECUTABLE);
    builder.directory(PKI, Mode::EXECUTABLE);
    // Static pods are read from here; anyone who can write here is root.
    builder.directory(&format!("{ETC}/manifests"), Mode::PRIVATE_DIRECTORY);
    builder.state.docker = true;
    builder.state.data.insert("/var/lib/kubelet".to_owned());
    builder.state.data.insert(api::volume::LOCAL_FOLDER.to_owned());
    builder.state.images.clone_from(&builder.artifacts.images);
    kernel(builder)?;
    let ca = builder.text(&format!("{PKI}/ca.crt"), builder.pki.cluster_trust.clone());
    balancer::add(builder, Stage::Node)?;
    kubelet(builder, &ca)?;
    flanneld(builder, &ca)?;
    kube_proxy(builder, &ca)
}

/// Packets of pods cross the host, and the service rules see those that a bridge carries.
fn kernel(builder: &mut Builder<'_>) -> Result<(), ComposeError> {
    let mut modules = BTreeSet::from(["br_netfilter", "nf_conntrack", "overlay"]);
    if builder.inventory.network.backend == Backend::Vxlan {
        modules.insert("vxlan");
    }
    let sysctls = BTreeMap::from([
        ("net.bridge.bridge-nf-call-iptables", "1"),
        // The kernel does this itself with the switch for forwarding, and the contrary when it is
        // switched off: named here, so that a reset gives back what was there.
        ("net.ipv4.conf.all.accept_redirects", "0"),
        ("net.ipv4.ip_forward", "1"),
    ]);
    let path = "/etc/modules-load.d/kprov.conf";
    let text = builder.render("modules.conf", path, &json!({ "modules": modules }))?;
    builder.text(path, text);
    let path = "/etc/sysctl.d/99-kprov.conf";
    let named: Vec<Value> =
        sysctls.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let text = builder.render("sysctl.conf", path, &json!({ "sysctls": named }))?;
    builder.text(path, text);
    let owned = |text: &str| text.to_owned();
    builder.state.modules = modules.into_iter().map(owned).collect();
    builder.state.sysctls = sysctls.into_iter().map(|(k, v)| (owned(k), owned(v))).collect();
    Ok(())
}

fn kubelet(builder: &mut Builder<'_>, ca: &str) -> Result<(), ComposeError> {
    let path = format!("{ETC}/bootstrap.kubeconfig");
    let more = json!({
        "server": builder.server(),
        "ca_data": encode(&builder.pki.cluster_trust),
        "token": builder.pki.bootstrap_token.expose(),
    });
    let text = builder.render("bootstrap.kubeconfig", &path, &more)?;
    let bootstrap = builder.secret(&path, Secret::new(text));
    let path = format!("{ETC}/kubelet.yaml");
    let text = builder.render("kubelet.yaml", &path, &Value::Null)?;
    let config = builder.text(&path, text);
    let mut inputs = vec![ca.to_owned(), bootstrap, config];
    inputs.extend(renewal(builder).into_iter().flatten());
    inputs.extend(builder.hyperkube("kubelet"));
    builder.component(Component {
        name: "kubelet",
        etc: ETC,
        stage: Stage::Node,
        health: Gate::Active,
        ports: &[port::KUBELET, port::KUBELET_HEALTHZ],
        inputs,
    })
}

/// After a change of the authority a kubelet's own certificates, which it got from the cluster, are
/// not trusted for long, and its kubeconfig trusts the wrong one. Before each start it looks at
/// whose they are, so that no step of an apply can be missed.
fn renewal(builder: &mut Builder<'_>) -> Option<[String; 2]> {
    if !builder.pki.rotated {
        return None;
    }
    let trust = Digest::of(builder.pki.cluster_trust.as_bytes());
    let signer = Digest::of(builder.pki.cluster_ca.cert.as_bytes());
    let text = format!("trust {trust}\nsigner {signer}\n");
    let authority = builder.text(&format!("{PKI}/kubelet-authority"), text);
    let script = builder.text(&format!("{ETC}/renew-kubelet.sh"), RENEWAL.to_owned());
    Some([authority, script])
}

/// Run before each start of a kubelet; what it removes, the kubelet makes anew.
const RENEWAL: &str = r#"# Made by kprov; changes made here are overwritten.
set -eu
new=/etc/kubernetes/pki/kubelet-authority
old=/var/lib/kubelet/authority
of() { sed -n "s/^$1 //p" "$2" 2>/dev/null || :; }
[ "$(of trust $new)" = "$(of trust $old)" ] || rm -f /var/lib/kubelet/kubeconfig
if [ "$(of signer $new)" != "$(of signer $old)" ]; then
  rm -f /var/lib/kubelet/kubeconfig
  rm -f /var/lib/kubelet/pki/kubelet-client-current.pem
  rm -f /var/lib/kubelet/pki/kubelet-server-current.pem
fi
mkdir -p /var/lib/kubelet
cp "$new" "$old.new"
mv -f "$old.new" "$old"
"#;

fn flanneld(builder: &mut Builder<'_>, ca: &str) -> Result<(), ComposeError> {
    let client = builder.leaf(LeafKind::Flanneld)?;
    let kubeconfig = builder.kubeconfig("flanneld", "system:flannel", &client)?;
    let mut inputs = vec![ca.to_owned(), kubeconfig];
    inputs.extend(client);
    inputs.extend(builder.hyperkube("flanneld"));
    builder.component(Component {
        name: "flanneld",
        etc: ETC,
        stage: Stage::Node,
        health: Gate::Active,
        ports: &[port::FLANNELD_HEALTHZ, port::FLANNELD_METRICS],
        inputs,
    })
}

fn kube_proxy(builder: &mut Builder<'_>, ca: &str) -> Result<(), ComposeError> {
    let client = builder.leaf(LeafKind::KubeProxy)?;
    let kubeconfig = builder.kubeconfig("kube-proxy", "system:kube-proxy", &client)?;
    let path = format!("{ETC}/kube-proxy.yaml");
    let text = builder.render("kube-proxy.yaml", &path, &Value::Null)?;
    let config = builder.text(&path, text);
    let mut inputs = vec![ca.to_owned(), kubeconfig, config];
    inputs.extend(client);
    inputs.extend(builder.hyperkube("kube-proxy"));
    builder.component(Component {
        name: "kube-proxy",
        etc: ETC,
        stage: Stage::Node,
        health: Gate::Active,
        ports: &[port::KUBE_PROXY_HEALTHZ, port::KUBE_PROXY_METRICS],
        inputs,
    })
}
