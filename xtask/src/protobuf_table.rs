//! Generates `cluster/registry/src/schema/table.rs`: field numbers, JSON names and merge rules
//! of every served message.
//!
//! The numbers and merge markers stand in the sources of k8s-pb, the JSON names and which fields
//! are required in those of k8s-openapi. Both are read as text where cargo unpacked them;
//! neither is compiled for this.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The Kubernetes version whose fields are kept; newer ones are left out.
const VERSION_DIR: &str = "src/v1_33";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The width of a line.
const COLUMNS: usize = 100;

/// What the table must reach: the kind (or name) and its definition.
const ROOTS: &[(&str, &str)] = &[
    ("Namespace", "io.k8s.api.core.v1.Namespace"),
    ("Node", "io.k8s.api.core.v1.Node"),
    ("Pod", "io.k8s.api.core.v1.Pod"),
    ("Service", "io.k8s.api.core.v1.Service"),
    ("Endpoints", "io.k8s.api.core.v1.Endpoints"),
    ("EndpointSlice", "io.k8s.api.discovery.v1.EndpointSlice"),
    ("ConfigMap", "io.k8s.api.core.v1.ConfigMap"),
    ("Secret", "io.k8s.api.core.v1.Secret"),
    ("ResourceQuota", "io.k8s.api.core.v1.ResourceQuota"),
    ("LimitRange", "io.k8s.api.core.v1.LimitRange"),
    ("ServiceAccount", "io.k8s.api.core.v1.ServiceAccount"),
    ("PersistentVolume", "io.k8s.api.core.v1.PersistentVolume"),
    ("PersistentVolumeClaim", "io.k8s.api.core.v1.PersistentVolumeClaim"),
    ("Event", "io.k8s.api.core.v1.Event"),
    ("ReplicationController", "io.k8s.api.core.v1.ReplicationController"),
    ("ReplicaSet", "io.k8s.api.apps.v1.ReplicaSet"),
    ("Deployment", "io.k8s.api.apps.v1.Deployment"),
    ("DaemonSet", "io.k8s.api.apps.v1.DaemonSet"),
    ("StatefulSet", "io.k8s.api.apps.v1.StatefulSet"),
    ("ControllerRevision", "io.k8s.api.apps.v1.ControllerRevision"),
    ("Job", "io.k8s.api.batch.v1.Job"),
    ("CronJob", "io.k8s.api.batch.v1.CronJob"),
    ("HorizontalPodAutoscaler", "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"),
    ("Lease", "io.k8s.api.coordination.v1.Lease"),
    ("PodDisruptionBudget", "io.k8s.api.policy.v1.PodDisruptionBudget"),
    ("CertificateSigningRequest", "io.k8s.api.certificates.v1.CertificateSigningRequest"),
    ("PriorityClass", "io.k8s.api.scheduling.v1.PriorityClass"),
    ("StorageClass", "io.k8s.api.storage.v1.StorageClass"),
    ("CsiNode", "io.k8s.api.storage.v1.CSINode"),
    ("Role", "io.k8s.api.rbac.v1.Role"),
    ("RoleBinding", "io.k8s.api.rbac.v1.RoleBinding"),
    ("ClusterRole", "io.k8s.api.rbac.v1.ClusterRole"),
    ("ClusterRoleBinding", "io.k8s.api.rbac.v1.ClusterRoleBinding"),
    ("HorizontalPodAutoscalerV1", "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler"),
    ("Binding", "io.k8s.api.core.v1.Binding"),
    ("Scale", "io.k8s.api.autoscaling.v1.Scale"),
    ("Eviction", "io.k8s.api.policy.v1.Eviction"),
    ("TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"),
    ("TokenReview", "io.k8s.api.authentication.v1.TokenReview"),
    ("SelfSubjectReview", "io.k8s.api.authentication.v1.SelfSubjectReview"),
    ("SubjectAccessReview", "io.k8s.api.authorization.v1.SubjectAccessReview"),
    ("LocalSubjectAccessReview", "io.k8s.api.authorization.v1.LocalSubjectAccessReview"),
    ("SelfSubjectAccessReview", "io.k8s.api.authorization.v1.SelfSubjectAccessReview"),
    ("SelfSubjectRulesReview", "io.k8s.api.authorization.v1.SelfSubjectRulesReview"),
];

/// Kinds of which nobody sends messages, and the names of their definitions: what metadata they
/// have is all that is to be known.
const WITHOUT_MESSAGE: &[(&str, &str)] = &[
    ("NodeMetrics", "metrics.pkg.apis.metrics.v1beta1.NodeMetrics"),
    ("PodMetrics", "metrics.pkg.apis.metrics.v1beta1.PodMetrics"),
];

/// Optional scalars that are pointers in Go (JSON names, by group and message): a zero on the
/// wire was set by someone, and stays. The zero of all others is what Go's JSON leaves out.
/// (`ScaleSpec.replicas` is none, but nobody gains from dropping an explicit zero.)
///
/// Source: kubernetes 1.33, `types.go` of each API group.
const POINTERS: &[(&str, &str)] = &[
    ("apps.DaemonSetSpec", "revisionHistoryLimit"),
    ("apps.DaemonSetStatus", "collisionCount"),
    ("apps.DeploymentSpec", "replicas revisionHistoryLimit progressDeadlineSeconds"),
    ("apps.DeploymentStatus", "collisionCount terminatingReplicas"),
    ("apps.ReplicaSetSpec", "replicas"),
    ("apps.ReplicaSetStatus", "terminatingReplicas"),
    ("apps.RollingUpdateDaemonSet", "maxUnavailable maxSurge"),
    ("apps.RollingUpdateDeployment", "maxUnavailable maxSurge"),
    ("apps.RollingUpdateStatefulSetStrategy", "partition maxUnavailable"),
    ("apps.StatefulSetSpec", "replicas revisionHistoryLimit"),
    ("apps.StatefulSetStatus", "collisionCount"),
    ("authentication.TokenRequestSpec", "expirationSeconds"),
    ("autoscaling.ScaleSpec", "replicas"),
    ("autoscaling.HPAScalingRules", "stabilizationWindowSeconds selectPolicy"),
    ("autoscaling.MetricTarget", "averageUtilization"),
    ("autoscaling.MetricValueStatus", "averageUtilization"),
    (
        "autoscaling.HorizontalPodAutoscalerSpec",
        "minReplicas targetCPUUtilizationPercentage minReplicas",
    ),
    (
        "autoscaling.HorizontalPodAutoscalerStatus",
        "observedGeneration currentCPUUtilizationPercentage observedGeneration",
    ),
    (
        "batch.CronJobSpec",
        "timeZone startingDeadlineSeconds suspend successfulJobsHistoryLimit \
         failedJobsHistoryLimit",
    ),
    (
        "batch.JobSpec",
        "parallelism completions activeDeadlineSeconds backoffLimit backoffLimitPerIndex \
         maxFailedIndexes manualSelector ttlSecondsAfterFinished completionMode suspend \
         podReplacementPolicy managedBy",
    ),
    ("batch.JobStatus", "terminating ready failedIndexes"),
    ("batch.PodFailurePolicyOnExitCodesRequirement", "containerName"),
    ("batch.SuccessPolicyRule", "succeededIndexes succeededCount"),
    ("certificates.CertificateSigningRequestSpec", "expirationSeconds"),
    (
        "coordination.LeaseSpec",
        "holderIdentity leaseDurationSeconds leaseTransitions strategy preferredHolder",
    ),
    ("core.AppArmorProfile", "localhostProfile"),
    ("core.SeccompProfile", "localhostProfile"),
    ("core.AzureDiskVolumeSource", "cachingMode fsType readOnly kind"),
    ("core.ClientIPConfig", "timeoutSeconds"),
    ("core.ClusterTrustBundleProjection", "name signerName optional"),
    ("core.ConfigMap", "immutable"),
    ("core.Secret", "immutable"),
    ("core.ConfigMapEnvSource", "optional"),
    ("core.ConfigMapKeySelector", "optional"),
    ("core.ConfigMapProjection", "optional"),
    ("core.ConfigMapVolumeSource", "defaultMode optional"),
    ("core.SecretEnvSource", "optional"),
    ("core.SecretKeySelector", "optional"),
    ("core.SecretProjection", "optional"),
    ("core.SecretVolumeSource", "defaultMode optional"),
    ("core.Container", "restartPolicy"),
    ("core.ephemeralcontainercommon", "restartPolicy"),
    ("core.ContainerStatus", "started stopSignal"),
    ("core.CSIVolumeSource", "readOnly fsType"),
    ("core.DownwardAPIVolumeFile", "mode"),
    ("core.DownwardAPIVolumeSource", "defaultMode"),
    ("core.EndpointAddress", "nodeName"),
    ("core.EndpointPort", "appProtocol"),
    ("core.FCVolumeSource", "lun"),
    ("core.GRPCAction", "service"),
    ("core.HostPathVolumeSource", "type"),
    ("core.ISCSIVolumeSource", "initiatorName"),
    ("core.KeyToPath", "mode"),
    ("core.Lifecycle", "stopSignal"),
    ("core.LoadBalancerIngress", "ipMode"),
    ("core.NodeFeatures", "supplementalGroupsPolicy"),
    ("core.NodeRuntimeHandlerFeatures", "recursiveReadOnlyMounts userNamespaces"),
    ("core.NodeSwapStatus", "capacity"),
    ("core.AzureFilePersistentVolumeSource", "secretNamespace"),
    ("core.GlusterfsPersistentVolumeSource", "endpointsNamespace"),
    ("core.ISCSIPersistentVolumeSource", "initiatorName"),
    ("core.LocalVolumeSource", "fsType"),
    ("core.PersistentVolumeClaimStatus", "currentVolumeAttributesClassName"),
    ("core.PersistentVolumeSpec", "volumeMode volumeAttributesClassName"),
    ("core.PersistentVolumeClaimSpec", "storageClassName volumeMode volumeAttributesClassName"),
    ("core.PodDNSConfigOption", "value"),
    ("core.PodResourceClaim", "resourceClaimName resourceClaimTemplateName"),
    ("core.PodResourceClaimStatus", "resourceClaimName"),
    (
        "core.PodSecurityContext",
        "runAsUser runAsNonRoot fsGroup runAsGroup fsGroupChangePolicy supplementalGroupsPolicy \
         seLinuxChangePolicy",
    ),
    (
        "core.PodSpec",
        "terminationGracePeriodSeconds activeDeadlineSeconds automountServiceAccountToken \
         priority shareProcessNamespace runtimeClassName enableServiceLinks preemptionPolicy \
         setHostnameAsFQDN hostUsers",
    ),
    ("core.PortStatus", "error"),
    ("core.Probe", "terminationGracePeriodSeconds"),
    ("core.ProjectedVolumeSource", "defaultMode"),
    ("core.ReplicationControllerSpec", "replicas"),
    (
        "core.SecurityContext",
        "privileged runAsUser runAsNonRoot readOnlyRootFilesystem allowPrivilegeEscalation \
         runAsGroup procMount",
    ),
    ("core.ServiceAccount", "automountServiceAccountToken"),
    ("core.ServiceAccountTokenProjection", "expirationSeconds"),
    ("core.ServicePort", "appProtocol"),
    (
        "core.ServiceSpec",
        "ipFamilyPolicy allocateLoadBalancerNodePorts loadBalancerClass internalTrafficPolicy \
         trafficDistribution",
    ),
    ("core.Toleration", "tolerationSeconds"),
    ("core.TopologySpreadConstraint", "minDomains nodeAffinityPolicy nodeTaintsPolicy"),
    ("core.TypedLocalObjectReference", "apiGroup"),
    ("core.TypedObjectReference", "apiGroup namespace"),
    ("core.VolumeMount", "mountPropagation recursiveReadOnly"),
    ("core.VolumeMountStatus", "recursiveReadOnly"),
    (
        "core.WindowsSecurityContextOptions",
        "gmsaCredentialSpecName gmsaCredentialSpec runAsUserName hostProcess",
    ),
    ("discovery.Endpoint", "hostname nodeName zone"),
    ("discovery.EndpointConditions", "ready serving terminating"),
    ("discovery.EndpointPort", "name protocol port appProtocol"),
    (
        "meta.DeleteOptions",
        "gracePeriodSeconds orphanDependents propagationPolicy \
         ignoreStoreReadErrorWithClusterBreakingPotential",
    ),
    ("meta.ObjectMeta", "deletionGracePeriodSeconds"),
    ("meta.OwnerReference", "controller blockOwnerDeletion"),
    ("meta.Preconditions", "uid resourceVersion"),
    ("scheduling.PriorityClass", "preemptionPolicy"),
    ("storage.StorageClass", "reclaimPolicy allowVolumeExpansion volumeBindingMode"),
    ("storage.VolumeNodeResources", "count"),
    ("policy.PodDisruptionBudgetSpec", "minAvailable maxUnavailable unhealthyPodEvictionPolicy"),
];

/// Rewrites the table in the workspace at `root`.
///
/// # Errors
/// The sources cannot be found or have an unexpected shape, or the table cannot be written.
pub(crate) fn run(root: &Path) -> Result<()> {
    let pb = read_protos(&package_dir(root, "k8s-pb")?.join("src"))?;
    let json = read_structs(&package_dir(root, "k8s-openapi")?.join(VERSION_DIR))?;
    let text = Generator { pb: &pb, json: &json, done: BTreeMap::new(), pointers: 0 }.generate()?;
    let path = root.join("cluster/registry/src/schema/table.rs");
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// One field of a message, as the source of k8s-pb has it.
struct ProtoField {
    /// The Rust name.
    name: String,
    number: u32,
    /// `string`, `message`, `btree_map = "string, bytes"`, …
    wire: String,
    repeated: bool,
    /// The definition a message field refers to, in lower case.
    refers: String,
    /// `patchMergeKey=name` and the like, from the comment.
    markers: Vec<String>,
}

/// One message of k8s-pb.
struct ProtoMessage {
    fields: Vec<ProtoField>,
    atomic: bool,
}

/// One struct of k8s-openapi.
struct JsonStruct {
    /// The full name of the definition, with its capital letters.
    definition: String,
    /// Rust field name without underscores → (JSON name, required).
    fields: BTreeMap<String, (String, bool)>,
}

fn package_dir(root: &Path, name: &str) -> Result<PathBuf> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|p| p["name"] == name)
        .and_then(|p| p["manifest_path"].as_str())
        .with_context(|| format!("{name} is no dependency of the workspace"))?;
    Ok(Path::new(manifest).parent().context("a manifest has a folder")?.to_owned())
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// Reads every message of k8s-pb, by definition in lower case.
fn read_protos(src: &Path) -> Result<BTreeMap<String, ProtoMessage>> {
    let mut files = Vec::new();
    rust_files(src, &mut files)?;
    let mut messages = BTreeMap::new();
    for file in files.iter().filter(|f| f.file_name().is_some_and(|n| n == "mod.rs")) {
        let folder = file.parent().unwrap_or(src).strip_prefix(src)?;
        let module: Vec<&str> = folder.iter().filter_map(|s| s.to_str()).collect();
        let text = std::fs::read_to_string(file)?;
        read_proto_file(&text, &module, &mut messages)
            .with_context(|| format!("in {}", file.display()))?;
    }
    Ok(messages)
}

fn read_proto_file(
    text: &str,
    module: &[&str],
    messages: &mut BTreeMap<String, ProtoMessage>,
) -> Result<()> {
    let mut markers = Vec::new();
    let mut attribute = "";
    let mut current: Option<(String, ProtoMessage)> = None;
    let lines = unwrapped(text);
    for line in lines.iter().map(String::as_str) {
        if let Some(comment) = line.strip_prefix("///") {
            if let Some(marker) = comment.trim().strip_prefix('+') {
                markers.push(marker.to_owned());
            }
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.trim_end_matches(['{', '}', ' ']).to_lowercase();
            let atomic = markers.iter().any(|m| m == "structType=atomic");
            markers.clear();
            let message = ProtoMessage { fields: Vec::new(), atomic };
            let definition = format!("io.k8s.{}.{name}", module.join("."));
            if rest.ends_with("{}") {
                messages.insert(definition, message);
            } else {
                current = Some((definition, message));
            }
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            attribute = rest.trim_end_matches(")]");
        } else if let Some(rest) = line.strip_prefix("pub ")
            && let Some((_, message)) = &mut current
            && let Some((name, ty)) = rest.split_once(": ")
        {
            let ty: String = ty.chars().filter(|c| !c.is_whitespace()).collect();
            message.fields.push(proto_field(name, &ty, attribute, &markers, module)?);
            markers.clear();
        } else if line == "}"
            && let Some((name, message)) = current.take()
        {
            messages.insert(name, message);
        }
    }
    Ok(())
}

/// The lines without indentation; a long type, which is wrapped after `<`, is one line again.
fn unwrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        match lines.last_mut() {
            Some(last) if last.starts_with("pub ") && last.ends_with([':', '<']) => {
                last.push(' ');
                last.push_str(line);
            }
            Some(last)
                if last.contains("<") && last.starts_with("pub ") && !last.ends_with(">,") =>
            {
                last.push_str(line);
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

fn proto_field(
    name: &str,
    ty: &str,
    attribute: &str,
    markers: &[String],
    module: &[&str],
) -> Result<ProtoField> {
    let number = attribute
        .split_once("tag = \"")
        .and_then(|(_, rest)| rest.split('"').next())
        .and_then(|n| n.parse().ok())
        .with_context(|| format!("no tag in {attribute:?}"))?;
    let map = attribute.split_once("btree_map = \"").and_then(|(_, r)| r.split('"').next());
    let wire = match map {
        Some(types) => format!("map {types}"),
        None => attribute.split([',', ' ']).next().unwrap_or_default().to_owned(),
    };
    // The innermost type is the last path before the closing brackets.
    let inner = ty.trim_end_matches([',', '>']).rsplit(['<', ',']).next().unwrap_or_default();
    let mut path: Vec<&str> = module.to_vec();
    for segment in inner.split("::") {
        match segment {
            "super" => drop(path.pop()),
            other => path.push(other),
        }
    }
    Ok(ProtoField {
        name: name.trim_start_matches("r#").to_owned(),
        number,
        wire,
        repeated: attribute.contains("repeated"),
        refers: format!("io.k8s.{}", path.join(".")).to_lowercase(),
        markers: markers.to_vec(),
    })
}

/// Reads every struct of k8s-openapi, by definition in lower case.
fn read_structs(src: &Path) -> Result<BTreeMap<String, JsonStruct>> {
    let mut files = Vec::new();
    rust_files(src, &mut files)?;
    let mut structs = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let Some(definition) = text
            .lines()
            .find_map(|l| l.strip_prefix("// Generated from definition "))
            .map(str::to_owned)
        else {
            continue;
        };
        let required: BTreeSet<&str> = text
            .lines()
            .map(str::trim)
            .skip_while(|l| !l.starts_with("pub struct "))
            .take_while(|l| *l != "}")
            .filter_map(|l| l.strip_prefix("pub ")?.split_once(": "))
            .filter(|(_, ty)| !ty.starts_with("Option<"))
            .map(|(name, _)| name.trim_start_matches("r#"))
            .collect();
        let mut fields = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            let Some((json, field)) = line.split_once("\" => Field::Key_") else { continue };
            let field = field.trim_end_matches(',').trim_start_matches("r#");
            let json = json.trim_start_matches('"').to_owned();
            fields.insert(plain(field), (json, required.contains(field)));
        }
        structs.insert(definition.to_lowercase(), JsonStruct { definition, fields });
    }
    Ok(structs)
}

/// A name without underscores: both crates split capitals differently.
fn plain(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

struct Generator<'a> {
    pb: &'a BTreeMap<String, ProtoMessage>,
    json: &'a BTreeMap<String, JsonStruct>,
    /// Static name → source text of each message already written.
    done: BTreeMap<String, String>,
    /// How many entries of [`POINTERS`] were found.
    pointers: usize,
}

impl Generator<'_> {
    fn generate(mut self) -> Result<String> {
        let mut roots = String::new();
        for (kind, definition) in ROOTS {
            let ident = self.message(&definition.to_lowercase(), None)?;
            writeln!(roots, "        Kind::{kind} => &{ident},")?;
        }
        for (kind, definition) in WITHOUT_MESSAGE {
            let ident = ident(&definition.to_lowercase());
            writeln!(roots, "        Kind::{kind} => &{ident},")?;
            let head = format!("static {ident}: Message =\n    message(\"{definition}\", &[");
            let metadata = "opt(1, \"metadata\", M(&META_OBJECTMETA))".to_owned();
            let text = wrapped(&head, &[metadata], "]);");
            self.done.insert(ident, text);
        }
        let options = self.message(&format!("{META}.deleteoptions"), None)?;
        let listed: usize = POINTERS.iter().map(|(_, fields)| fields.split(' ').count()).sum();
        if self.pointers != listed {
            bail!("only {} of {listed} listed pointers are fields", self.pointers);
        }
        let mut out = String::from(
            "// @generated\n//! Generated by `cargo xtask protobuf-table`; do not edit.\n\n\
             use api::Kind;\n\n\
             use super::Type::{Bool, Bytes, Int, IntOrString, Json, M, MicroTime, Quantity};\n\
             use super::Type::{S, Strings, Time};\n\
             use super::{Message, inline, list, map, message, opt, ptr, req};\n\n\
             /// The message that carries objects of a kind.\n\
             pub(super) const fn of_kind(kind: Kind) -> &'static Message {\n    match kind {\n",
        );
        out += &roots;
        out += "    }\n}\n\n/// The body of a delete.\n";
        writeln!(out, "pub(super) const DELETE_OPTIONS: &Message = &{options};\n")?;
        for text in self.done.values() {
            out += text;
        }
        Ok(out)
    }

    /// Writes the message and all it refers to; returns the name of its static.
    fn message(&mut self, definition: &str, parent: Option<&str>) -> Result<String> {
        let known = self.json.get(definition).or_else(|| self.json.get(parent?));
        let names = known.with_context(|| format!("{definition} has no JSON form"))?;
        let ident = ident(definition);
        if self.done.contains_key(&ident) {
            return Ok(ident);
        }
        self.done.insert(ident.clone(), String::new());
        let full = self.json.get(definition).map_or(definition, |j| j.definition.as_str());
        let proto = self.pb.get(definition).with_context(|| format!("no message {definition}"))?;
        let mut fields: Vec<&ProtoField> = proto.fields.iter().collect();
        fields.sort_by_key(|f| f.number);
        let mut items = Vec::new();
        for field in fields {
            let known = names.fields.get(&plain(&field.name));
            match known {
                Some((json, required)) => {
                    items.push(self.field(field, json, *required, full)?);
                }
                None if inlined(field) => {
                    let inner = self.message(&field.refers, Some(definition))?;
                    items.push(format!("inline({}, M(&{inner}))", field.number));
                }
                // A field newer than the version that is served.
                None => {}
            }
        }
        let name = full.trim_start_matches("io.k8s.");
        let atomic = if proto.atomic { ".atomic()" } else { "" };
        let mut head = format!("static {ident}: Message = message(\"{name}\", &[");
        if head.len() > COLUMNS {
            head = head.replacen(" = ", " =\n    ", 1);
        }
        self.done.insert(ident.clone(), wrapped(&head, &items, &format!("]){atomic};")));
        Ok(ident)
    }

    fn field(
        &mut self,
        field: &ProtoField,
        json: &str,
        required: bool,
        message: &str,
    ) -> Result<String> {
        let number = field.number;
        let (shape, ty) = match field.wire.as_str() {
            "map string, string" => ("map", "S".to_owned()),
            "map string, bytes" => ("map", "Bytes".to_owned()),
            "map string, message" => ("map", self.reference(&field.refers)?),
            wire => {
                let ty = match wire {
                    "string" => "S".to_owned(),
                    "bytes" => "Bytes".to_owned(),
                    "bool" => "Bool".to_owned(),
                    "int32" | "int64" => "Int".to_owned(),
                    "message" => self.reference(&field.refers)?,
                    other => bail!("{message}.{json} has type {other:?}"),
                };
                let shape = if field.repeated {
                    "list"
                } else if required {
                    "req"
                } else if is_pointer(message, json) {
                    self.pointers += 1;
                    "ptr"
                } else {
                    "opt"
                };
                (shape, ty)
            }
        };
        Ok(format!("{shape}({number}, \"{json}\", {ty}){}", merge_rules(&field.markers)))
    }

    fn reference(&mut self, definition: &str) -> Result<String> {
        Ok(match definition {
            "io.k8s.apimachinery.pkg.apis.meta.v1.time" => "Time".to_owned(),
            "io.k8s.apimachinery.pkg.apis.meta.v1.microtime" => "MicroTime".to_owned(),
            "io.k8s.apimachinery.pkg.apis.meta.v1.fieldsv1"
            | "io.k8s.apimachinery.pkg.runtime.rawextension" => "Json".to_owned(),
            "io.k8s.apimachinery.pkg.api.resource.quantity" => "Quantity".to_owned(),
            "io.k8s.apimachinery.pkg.util.intstr.intorstring" => "IntOrString".to_owned(),
            other if other.ends_with(".extravalue") => "Strings".to_owned(),
            other => format!("M(&{})", self.message(other, None)?),
        })
    }
}

/// Whether the fields of a message stand in its parent's JSON: Go embeds the struct.
fn inlined(field: &ProtoField) -> bool {
    let ty = field.refers.rsplit('.').next().unwrap_or_default();
    field.wire == "message"
        && !field.repeated
        && (plain(&field.name) == ty || (field.name == "handler" && ty.ends_with("handler")))
}

fn is_pointer(definition: &str, json: &str) -> bool {
    let parts: Vec<&str> = definition.rsplitn(4, '.').collect();
    let message = format!("{}.{}", parts[2], parts[0]);
    POINTERS.iter().any(|(m, fields)| *m == message && fields.split(' ').any(|f| f == json))
}

fn merge_rules(markers: &[String]) -> String {
    let all = |key: &str| -> Vec<&str> {
        markers.iter().filter_map(|m| m.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    let mut rules = String::new();
    let strategy = all("patchStrategy").first().copied().unwrap_or_default();
    let key = all("patchMergeKey").first().copied().unwrap_or_default();
    let by_key = strategy.contains("merge") && !key.is_empty() && all("listMapKey") == [key];
    if by_key {
        rules += &format!(".by(&[\"{key}\"])");
    } else if strategy.contains("merge") {
        rules += &format!(".merge(\"{key}\")");
    }
    if strategy == "replace" {
        rules += ".replace()";
    }
    if strategy.contains("retainKeys") {
        rules += ".retain_keys()";
    }
    match all("listType").first().copied() {
        Some("set") => rules += ".set()",
        Some("map") if !by_key => {
            let keys: Vec<String> = all("listMapKey").iter().map(|k| format!("\"{k}\"")).collect();
            rules += &format!(".keyed(&[{}])", keys.join(", "));
        }
        _ => {}
    }
    rules
}

fn ident(definition: &str) -> String {
    let parts: Vec<&str> = definition.rsplitn(4, '.').collect();
    match parts[2] {
        "core" => parts[0].to_uppercase(),
        // Both versions have parts of one name.
        "autoscaling" if parts[1] != "v1" => {
            format!("autoscaling_{}_{}", parts[1], parts[0]).to_uppercase()
        }
        group => format!("{group}_{}", parts[0]).to_uppercase(),
    }
}

/// `head`, the items and `tail` in lines of at most 100 columns.
fn wrapped(head: &str, items: &[String], tail: &str) -> String {
    let (start, line) = head.rsplit_once('\n').unwrap_or(("", head));
    let mut text = start.to_owned();
    if !start.is_empty() {
        text.push('\n');
    }
    let mut line = line.to_owned();
    for (i, item) in items.iter().enumerate() {
        let last = i + 1 == items.len();
        let mut piece = if last { format!("{item}{tail}") } else { format!("{item},") };
        if piece.len() > COLUMNS - 4 {
            piece = piece.replace(".keyed", "\n        .keyed");
        }
        if line.len() + 1 + piece.len() > COLUMNS {
            text += line.trim_end();
            text += "\n";
            line = "   ".to_owned();
        }
        if !line.ends_with('[') {
            line.push(' ');
        }
        line += &piece;
    }
    if items.is_empty() {
        line += tail;
    }
    text += &line;
    text.push('\n');
    text
}
