//! A node: the kubelet, the pod network and the service proxy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    ComposeError, balancer,
    builder::{Builder, Component, StaticPods, port},
};
use crate::{
    digest::Digest,
    facts::ENGINE,
    inventory::{Backend, OvsDatapath, PodBridge},
    kubeconfig::encode,
    layout::Layout,
    pki::{LeafKind, NODE_PREFIX},
    secret::Secret,
    state::{Gate, Mode, PortUse, Protocol, Stage, UnitState},
};

/// What makes Docker read flanneld's file.
pub(crate) const DOCKER_ON_FLANNEL: &str =
    "/etc/systemd/system/docker.service.d/50-kprov-flannel.conf";

pub(super) fn add(builder: &mut Builder<'_>) -> Result<(), ComposeError> {
    let layout = builder.layout();
    builder.directory(layout.settings(), Mode::EXECUTABLE);
    builder.directory(layout.certificates(), Mode::EXECUTABLE);
    // Static pods are read from here; anyone who can write here is root.
    builder.directory(&layout.manifests(), Mode::PRIVATE_DIRECTORY);
    builder.state.docker = true;
    builder.state.open_vswitch = builder.inventory.network.backend == Backend::OvsGre;
    builder.state.data.insert("/var/lib/kubelet".to_owned());
    // What a kubelet writes for itself may lie elsewhere.
    let own = [layout.kubelet_kubeconfig(), layout.kubelet_certificates()];
    let given = format!("{}/kubelet.kubeconfig", layout.settings());
    let own = own.into_iter().filter(|path| {
        let by_kprov = builder.static_pods.is_some() && *path == given;
        !by_kprov && !path.starts_with("/var/lib/kubelet/")
    });
    builder.state.data.extend(own.map(str::to_owned));
    builder.state.data.insert(api::volume::LOCAL_FOLDER.to_owned());
    builder.state.images.extend(builder.artifacts.images.iter().cloned());
    kernel(builder)?;
    let ca = builder.trust("ca", &builder.pki.cluster_trust);
    balancer::add(builder, Stage::Node)?;
    kubelet(builder, &ca)?;
    flanneld(builder, &ca)?;
    docker(builder)?;
    kube_proxy(builder, &ca)?;
    cluster_dns(builder, &ca)
}

/// Where pods are on Docker's bridge, flanneld tells Docker its range: for the first time when the
/// kubelet has brought the node into the cluster, and before Docker starts from then on.
fn docker(builder: &mut Builder<'_>) -> Result<(), ComposeError> {
    if builder.inventory.network.pod_bridge != PodBridge::Docker0 {
        return Ok(());
    }
    let text = builder.render("docker-flannel.conf", DOCKER_ON_FLANNEL, &Value::Null)?;
    let drop_in = builder.text(DOCKER_ON_FLANNEL, text);
    let script = START_DOCKER.replace("@DROP_IN@", DOCKER_ON_FLANNEL);
    let script = builder.text(&format!("{}/start-docker.sh", builder.layout().settings()), script);
    let inputs = [drop_in, script].into();
    builder.state.units.push(UnitState {
        name: ENGINE.to_owned(),
        enabled: true,
        stage: Stage::Node,
        inputs,
        health: Gate::Active,
    });
    Ok(())
}

/// Distributions start Docker by several names, with options from several files, and owners add
/// drop-ins of their own. What they start is asked of systemd at each start, so that a new package
/// of Docker or another drop-in needs no apply. A unit that takes the options anyway, as that of
/// CentOS 7, gets them once.
const START_DOCKER: &str = r#"# Made by kprov; changes made here are overwritten.
# Starts Docker as its unit and all drop-ins but kprov's say, with the options that flanneld tells.
set -ef
command=$(systemctl cat docker.service | awk -v ours='# @DROP_IN@' '
  /^# \// { skip = ($0 == ours); next }
  skip || (more && /^[ \t]*[#;]/) { next }
  more || /^ExecStart[ \t]*=/ {
    line = $0
    if (!more) {
      command = ""
      sub(/^ExecStart[ \t]*=[ \t]*[-@:+!]*/, "", line)
    }
    more = sub(/\\$/, "", line)
    command = command line " "
  }
  END { gsub(/^ +| +$/, "", command); print command }')
if [ -z "$command" ]; then
  echo "docker.service has no ExecStart but kprov's: install Docker's package again" >&2
  exit 1
fi
case $command in
  *DOCKER_NETWORK_OPTIONS*) ;;
  *) command="$command \$DOCKER_NETWORK_OPTIONS" ;;
esac
eval "exec $command"
"#;

/// Packets of pods cross the host, and the service rules see those that a bridge carries.
fn kernel(builder: &mut Builder<'_>) -> Result<(), ComposeError> {
    let mut modules = BTreeSet::from(["br_netfilter", "nf_conntrack", "overlay"]);
    if builder.inventory.network.backend == Backend::Vxlan {
        modules.insert("vxlan");
    }
    // Open vSwitch loads it by itself, and does without where it may.
    if builder.inventory.network.ovs_datapath == OvsDatapath::System {
        modules.insert("openvswitch");
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
    let path = builder.layout().kubelet_configuration();
    let text = builder.render("kubelet.yaml", &path, &Value::Null)?;
    let mut inputs = vec![ca.to_owned(), builder.text(&path, text)];
    inputs.extend(identity(builder)?);
    inputs.extend(renewal(builder).into_iter().flatten());
    inputs.extend(builder.hyperkube("kubelet"));
    // Where it runs the masters' components, those are up when it is, one master at a time.
    let (stage, health) = match builder.static_pods.take() {
        Some(StaticPods { manifests, gate }) => {
            inputs.extend(manifests);
            (Stage::ControlPlane, Gate::StaticPods(gate))
        }
        None => (Stage::Node, Gate::Active),
    };
    builder.component(Component {
        name: "kubelet",
        stage,
        health,
        ports: &[port::KUBELET, port::KUBELET_HEALTHZ],
        inputs,
    })
}

/// How a kubelet proves who it is: with a token, for which the cluster gives it a certificate; or
/// with one that it has from the start, because there is no cluster before it has started its pods.
fn identity(builder: &mut Builder<'_>) -> Result<Vec<String>, ComposeError> {
    if builder.static_pods.is_some() {
        let leaf = builder.leaf(LeafKind::Kubelet)?;
        let user = format!("{NODE_PREFIX}{}", builder.host.name);
        let kubeconfig = builder.kubeconfig("kubelet", &user, &leaf)?;
        return Ok(leaf.into_iter().chain([kubeconfig]).collect());
    }
    let path = format!("{}/bootstrap.kubeconfig", builder.layout().settings());
    let more = json!({
        "server": builder.server(),
        "ca_data": encode(&builder.pki.cluster_trust),
        "token": builder.pki.bootstrap_token.expose(),
    });
    let text = builder.render("bootstrap.kubeconfig", &path, &more)?;
    Ok(vec![builder.secret(&path, Secret::new(text))])
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
    let layout = builder.layout();
    let authority = format!("{}/kubelet-authority", layout.certificates());
    // Its own are what it got from the cluster; those that kprov gave it change with an apply.
    let kubeconfig = match builder.static_pods {
        Some(_) => Layout::Fhs.kubelet_kubeconfig(),
        None => layout.kubelet_kubeconfig(),
    };
    let script = RENEWAL
        .replace("@AUTHORITY@", &authority)
        .replace("@KUBECONFIG@", kubeconfig)
        .replace("@CERTIFICATES@", layout.kubelet_certificates());
    let authority = builder.text(&authority, text);
    let script = builder.text(&format!("{}/renew-kubelet.sh", layout.settings()), script);
    Some([authority, script])
}

/// Run before each start of a kubelet; what it removes, the kubelet makes anew.
const RENEWAL: &str = r#"# Made by kprov; changes made here are overwritten.
set -eu
new=@AUTHORITY@
old=/var/lib/kubelet/authority
of() { sed -n "s/^$1 //p" "$2" 2>/dev/null || :; }
[ "$(of trust $new)" = "$(of trust $old)" ] || rm -f @KUBECONFIG@
if [ "$(of signer $new)" != "$(of signer $old)" ]; then
  rm -f @KUBECONFIG@
  rm -f @CERTIFICATES@/kubelet-client-current.pem
  rm -f @CERTIFICATES@/kubelet-server-current.pem
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
        stage: Stage::Node,
        health: Gate::Active,
        ports: &[port::FLANNELD_HEALTHZ, port::FLANNELD_METRICS],
        inputs,
    })
}

fn kube_proxy(builder: &mut Builder<'_>, ca: &str) -> Result<(), ComposeError> {
    let client = builder.leaf(LeafKind::KubeProxy)?;
    let kubeconfig = builder.kubeconfig("kube-proxy", "system:kube-proxy", &client)?;
    let path = format!("{}/kube-proxy.yaml", builder.layout().settings());
    let text = builder.render("kube-proxy.yaml", &path, &Value::Null)?;
    let config = builder.text(&path, text);
    let mut inputs = vec![ca.to_owned(), kubeconfig, config];
    inputs.extend(client);
    inputs.extend(builder.hyperkube("kube-proxy"));
    builder.component(Component {
        name: "kube-proxy",
        stage: Stage::Node,
        health: Gate::Active,
        ports: &[port::KUBE_PROXY_HEALTHZ, port::KUBE_PROXY_METRICS],
        inputs,
    })
}

/// The names of the cluster, on each node for its own pods.
fn cluster_dns(builder: &mut Builder<'_>, ca: &str) -> Result<(), ComposeError> {
    if !builder.inventory.cluster.dns {
        return Ok(());
    }
    let client = builder.leaf(LeafKind::ClusterDns)?;
    let kubeconfig = builder.kubeconfig("cluster-dns", "system:kube-dns", &client)?;
    let mut inputs = vec![ca.to_owned(), kubeconfig];
    inputs.extend(client);
    inputs.extend(builder.hyperkube("cluster-dns"));
    let (protocol, port) = (Protocol::Udp, port::CLUSTER_DNS);
    builder.state.ports.push(PortUse { protocol, port, unit: "cluster-dns.service".to_owned() });
    builder.component(Component {
        name: "cluster-dns",
        stage: Stage::Node,
        health: Gate::Active,
        ports: &[port::CLUSTER_DNS, port::CLUSTER_DNS_METRICS],
        inputs,
    })
}
