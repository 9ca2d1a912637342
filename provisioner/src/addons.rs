//! What is put into a cluster once its API answers: the operator's own manifests, in order.
//!
//! [`load`] reads them, [`reconcile`] brings them in and takes out what has left them, and
//! [`readiness`] says when the next addon may follow. All goes through the API with the
//! administrator's certificate, over the connection of a master.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{Kind, codec};
use serde_json::Value;

use crate::inventory::AddonSource;

pub mod readiness;
pub mod reconcile;

/// No file of manifests is longer, in bytes: an object of the API is at most 1.5 MiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A part of the cluster that comes from manifests.
#[derive(Debug, Clone, PartialEq)]
pub struct Addon {
    /// What it is called in reports.
    pub name: String,
    /// Its objects, in the order of the files.
    pub objects: Vec<Manifest>,
    /// How long its workloads may take to be ready before the run ends; `None` to wait for none.
    pub wait: Option<Duration>,
}

/// One object as its file has it.
#[derive(Clone, PartialEq)]
pub struct Manifest {
    /// Its kind, one that the API server has.
    pub kind: Kind,
    /// Its namespace; empty for kinds of the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All of it, without its status.
    pub value: Value,
}

/// Not its content, which may be a secret.
impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({self})")
    }
}

/// As in `Deployment kube-system/dns`.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

impl Manifest {
    /// The path of all objects of the kind, in the namespace.
    #[must_use]
    pub fn collection(&self) -> String {
        let info = self.kind.info();
        let root = if info.group.is_empty() { "/api" } else { "/apis" };
        let namespace = match self.namespace.as_str() {
            "" => String::new(),
            namespace => format!("/namespaces/{namespace}"),
        };
        format!("{root}/{}{namespace}/{}", info.api_version, info.plural)
    }

    /// The path of the object.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }
}

/// What is wrong with one file of manifests.
#[derive(Debug, thiserror::Error)]
pub enum AddonError {
    /// It cannot be read.
    #[error("addon {addon}: cannot read {}", path.display())]
    Read {
        /// The addon.
        addon: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no manifest, or one of an object that the API server would refuse.
    #[error("addon {addon}: {}: {why}", path.display())]
    Manifest {
        /// The addon.
        addon: String,
        /// The file.
        path: PathBuf,
        /// Which object, and what is wrong.
        why: String,
    },
}

/// All that is wrong with the addons.
#[derive(Debug)]
pub struct AddonErrors(pub Vec<AddonError>);

impl fmt::Display for AddonErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(|error| crate::execute::chain(error)).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for AddonErrors {}

/// Reads the manifests of all addons.
///
/// # Errors
/// All files that cannot be used, and why: kinds that the API server does not have, fields of the
/// wrong type or of no meaning, objects without a name or in two places.
pub fn load(sources: &[AddonSource]) -> Result<Vec<Addon>, AddonErrors> {
    let mut errors = Vec::new();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut addons = Vec::new();
    for source in sources {
        let addon = &source.name;
        let mut objects = Vec::new();
        for path in &source.manifests {
            let text = match text(path) {
                Ok(text) => text,
                Err(source) => {
                    let (addon, path) = (addon.clone(), path.clone());
                    errors.push(AddonError::Read { addon, path, source });
                    continue;
                }
            };
            let mut wrong = |why: String| {
                let (addon, path) = (addon.clone(), path.clone());
                errors.push(AddonError::Manifest { addon, path, why });
            };
            let found = match manifests(&text) {
                Ok(found) => found,
                Err(why) => {
                    wrong(why);
                    continue;
                }
            };
            for found in found {
                let manifest = match found {
                    Ok(manifest) => manifest,
                    Err(why) => {
                        wrong(why);
                        continue;
                    }
                };
                match seen.insert(manifest.path(), addon.clone()) {
                    Some(other) => wrong(format!("{manifest} is in the addon {other} already")),
                    None => objects.push(manifest),
                }
            }
        }
        addons.push(Addon { name: addon.clone(), objects, wait: source.wait });
    }
    if errors.is_empty() { Ok(addons) } else { Err(AddonErrors(errors)) }
}

fn text(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is too long for manifests"));
    }
    std::fs::read_to_string(path)
}

/// The objects of a file, those within lists as well; for each that is wrong, why.
fn manifests(text: &str) -> Result<Vec<Result<Manifest, String>>, String> {
    // Of YAML 1.1, which takes a namespace called `n` for a truth value, there is only confusion.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| format!("it is no YAML: {}", first_line(&error.to_string())))?;
    let mut found = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            mut list if list["kind"] == "List" => match list["items"].take() {
                Value::Array(items) => found.extend(items.into_iter().map(manifest)),
                _ => found.push(Err("a List without items".to_owned())),
            },
            document => found.push(manifest(document)),
        }
    }
    if found.is_empty() { Err("there is no object in it".to_owned()) } else { Ok(found) }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn manifest(mut value: Value) -> Result<Manifest, String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind_name) = (word(&value["apiVersion"]), word(&value["kind"]));
    let metadata = &value["metadata"];
    let (name, mut namespace) = (word(&metadata["name"]), word(&metadata["namespace"]));
    let kind = Kind::of_manifest(&api_version, &kind_name)
        .filter(|kind| kind.stored_as().info().stored)
        .ok_or_else(|| format!("the API server has no {kind_name:?} of {api_version:?}"))?;
    let segment = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c))
    };
    if !segment(&name) {
        return Err(format!("a {kind} needs a metadata.name, and has {name:?}"));
    }
    match (kind.namespaced(), namespace.is_empty()) {
        (true, true) => namespace = "default".to_owned(),
        (false, false) => return Err(format!("{kind} {name} cannot be in a namespace")),
        _ => {}
    }
    if !namespace.is_empty() && !segment(&namespace) {
        return Err(format!("{kind} {name}: {namespace:?} is no namespace"));
    }
    if let Value::Object(fields) = &mut value {
        fields.remove("status");
    }
    if kind.namespaced() {
        value["metadata"]["namespace"] = Value::from(namespace.clone());
    }
    let json = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
    let (_, unknown) =
        codec::decode(kind, &json).map_err(|error| format!("{kind} {name}: {error}"))?;
    match unknown.first() {
        Some(field) => Err(format!("{kind} {name} has no field {field}")),
        None => Ok(Manifest { kind, namespace, name, value }),
    }
}

#[cfg(test)]
mod tests;
