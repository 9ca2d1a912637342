//! `metadata`: what the server fills in, what callers may write, and what must not change.
//!
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/api/validation/objectmeta.go` and
//! `k8s.io/apiserver/pkg/registry/rest`.

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Object, Reason, Status, hash};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::field::{Causes, Json, Path, quote};
use crate::names;
use crate::operation::{Stamp, View};
use crate::strategy;

/// The finalizer by which dependents are orphaned before the owner goes.
pub(crate) const ORPHAN: &str = "orphan";
/// The finalizer by which dependents are deleted before the owner goes.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Longest base of a generated name: 63 characters less the suffix.
const GENERATED_BASE_MAX: usize = 58;
/// How many generated names are tried before the caller is told to try again.
const GENERATE_TRIES: u32 = 8;
/// Annotations of one object together: 256 KiB.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

impl Stamp {
    /// Uniform bits for one purpose, independent of those for another.
    pub(crate) fn bits(&self, purpose: &str) -> u64 {
        let mut bytes = self.entropy.to_vec();
        bytes.extend_from_slice(purpose.as_bytes());
        // Two rounds: FNV alone leaves the high bits of short inputs related.
        hash::fnv64(&hash::fnv64(&bytes).to_be_bytes()).rotate_left(29) ^ hash::fnv64(&bytes)
    }

    /// A UID of the shape of a random (version 4) UUID.
    pub(crate) fn uid(&self) -> String {
        let mut b = self.entropy;
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let mut uid = String::with_capacity(36);
        for (i, byte) in b.into_iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                uid.push('-');
            }
            for digit in [byte >> 4, byte & 0x0f] {
                uid.push(char::from_digit(u32::from(digit), 16).expect("a digit is below 16"));
            }
        }
        uid
    }

    /// Five letters for a generated name.
    pub(crate) fn suffix(&self, purpose: &str) -> String {
        hash::letters(self.bits(purpose), 5)
    }
}

/// Replaces what only the server may set, and names the object if it has no name.
///
/// # Errors
/// The object carries a revision, or no free name was found.
pub(crate) fn fill_for_create(
    object: &mut Object,
    view: &dyn View,
    stamp: Stamp,
) -> Result<(), Status> {
    let kind = object.kind();
    let meta = object.meta_mut();
    if !matches!(meta.resource_version.as_deref(), None | Some("" | "0")) {
        return Err(Status::new(
            Reason::InternalError,
            "resourceVersion should not be set on objects to be created",
        ));
    }
    tidy(meta);
    meta.resource_version = None;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.uid = Some(stamp.uid());
    meta.creation_timestamp = Some(stamp.now.to_meta());
    meta.generation = strategy::of(kind).generation.then_some(1);
    let namespace = meta.namespace.clone().unwrap_or_default();
    let base = meta.generate_name.clone().unwrap_or_default();
    if meta.name.as_deref().unwrap_or_default().is_empty() && !base.is_empty() {
        let name = generate_name(kind, &namespace, &base, view, stamp)?;
        object.meta_mut().name = Some(name);
    }
    Ok(())
}

/// Drops what is never stored, and lists and maps that are empty.
pub(crate) fn tidy(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    meta.self_link = None;
    drop_empty_map(&mut meta.labels);
    drop_empty_map(&mut meta.annotations);
    drop_empty(&mut meta.finalizers);
    drop_empty(&mut meta.owner_references);
    for text in [&mut meta.generate_name, &mut meta.namespace, &mut meta.name, &mut meta.uid] {
        if text.as_deref() == Some("") {
            *text = None;
        }
    }
}

/// An empty list is the same as none.
pub(crate) fn drop_empty<T>(list: &mut Option<Vec<T>>) {
    if list.as_ref().is_some_and(Vec::is_empty) {
        *list = None;
    }
}

/// An empty map is the same as none.
pub(crate) fn drop_empty_map<V>(map: &mut Option<BTreeMap<String, V>>) {
    if map.as_ref().is_some_and(BTreeMap::is_empty) {
        *map = None;
    }
}

fn generate_name(
    kind: Kind,
    namespace: &str,
    base: &str,
    view: &dyn View,
    stamp: Stamp,
) -> Result<String, Status> {
    let end = base.char_indices().map(|(i, c)| i + c.len_utf8());
    let end = end.take_while(|end| *end <= GENERATED_BASE_MAX).last().unwrap_or(0);
    let mut name = String::new();
    for attempt in 0..GENERATE_TRIES {
        name = format!("{}{}", &base[..end], stamp.suffix(&format!("name {attempt}")));
        if view.get(&Key::new(kind, namespace, &name)).is_none() {
            return Ok(name);
        }
    }
    let mut status = Status::already_exists(kind, &name);
    status.message.push_str(", the server was not able to generate a unique name for the object");
    status.retry_after_seconds = 1;
    Err(status)
}

/// Checks the metadata of an object that is created.
pub(crate) fn validate(meta: &ObjectMeta, kind: Kind) -> Causes {
    let path = Path::new("metadata");
    let mut causes = Causes::default();
    let rule = strategy::of(kind).names;
    if let Some(base) = meta.generate_name.as_deref().filter(|b| !b.is_empty()) {
        causes.invalid_each(&path.child("generateName"), base, rule.check(base, true));
    }
    let name = meta.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        causes.required(&path.child("name"), "name or generateName is required");
    } else {
        causes.invalid_each(&path.child("name"), name, rule.check(name, false));
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let at = path.child("namespace");
    if !kind.namespaced() {
        if !namespace.is_empty() {
            causes.forbidden(&at, "not allowed on this type");
        }
    } else if namespace.is_empty() {
        causes.required(&at, "");
    } else {
        causes.invalid_each(&at, namespace, names::label(namespace));
    }
    validate_free_fields(meta, &path, &mut causes);
    validate_finalizers(meta, &path.child("finalizers"), &mut causes);
    causes
}

/// Labels, annotations and owners: what callers may change at any time.
fn validate_free_fields(meta: &ObjectMeta, path: &Path<'_>, causes: &mut Causes) {
    validate_labels(meta.labels.as_ref(), &path.child("labels"), causes);
    validate_annotations(meta.annotations.as_ref(), &path.child("annotations"), causes);
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    validate_owners(owners, &path.child("ownerReferences"), causes);
}

/// Checks keys and values of labels, wherever they occur.
pub(crate) fn validate_labels(
    labels: Option<&BTreeMap<String, String>>,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    for (key, value) in labels.into_iter().flatten() {
        causes.invalid_each(path, key, names::qualified_name(key));
        causes.invalid_each(path, value, names::label_value(value));
    }
}

/// Checks keys and total size of annotations.
pub(crate) fn validate_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        // Keys may have upper case letters in their domain; that has always been accepted.
        let complaints = if key.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii()) {
            names::qualified_name(&key.to_lowercase())
        } else {
            names::qualified_name(key)
        };
        causes.invalid_each(path, key, complaints);
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATION_BYTES_MAX {
        causes.too_long(path, ANNOTATION_BYTES_MAX);
    }
}

/// Each complaint about a second controller shows all owners, of which there may be thousands.
const CONTROLLERS_TOLD_MAX: usize = 8;

fn validate_owners(owners: &[OwnerReference], path: &Path<'_>, causes: &mut Causes) {
    let mut controller: Option<&OwnerReference> = None;
    let mut others = 0;
    for owner in owners {
        if owner.api_version.is_empty() {
            causes.invalid(
                &path.child("apiVersion"),
                &owner.api_version,
                "version must not be empty",
            );
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                causes.invalid(&path.child(field), value, "must not be empty");
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            causes.invalid(path, Json(owner), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                others += 1;
                if others > CONTROLLERS_TOLD_MAX {
                    continue;
                }
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {}/{} and {}/{}",
                    first.kind, first.name, owner.kind, owner.name
                );
                causes.invalid(path, Json(owners), &detail);
            } else {
                controller = Some(owner);
            }
        }
    }
}

fn validate_finalizers(meta: &ObjectMeta, path: &Path<'_>, causes: &mut Causes) {
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    for (i, finalizer) in finalizers.iter().enumerate() {
        causes.invalid_each(path, finalizer, names::qualified_name(finalizer));
        if !finalizer.contains('/')
            && ![ORPHAN, FOREGROUND, "kubernetes"].contains(&finalizer.as_str())
        {
            causes.invalid(
                &path.index(i),
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        causes.invalid(path, finalizers, &detail);
    }
}

/// Checks that the caller read what it overwrites, and returns the refusal if it did not.
///
/// # Errors
/// Another UID or revision, or none where one is required.
pub(crate) fn check_preconditions(new: &Object, current: &Object) -> Result<(), Status> {
    let kind = current.kind();
    let name = current.meta().name.as_deref().unwrap_or_default();
    if !new.uid().is_empty() && new.uid() != current.uid() {
        return Err(uid_mismatch(kind, name, new.uid(), current.uid()));
    }
    let revision = new.meta().resource_version.as_deref().unwrap_or_default();
    if revision.is_empty() || revision == "0" {
        if strategy::of(kind).unconditional_update {
            return Ok(());
        }
        let detail = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an \
                      update";
        return Err(revision_refused(kind, name, detail));
    }
    match api::Revision::parse(revision) {
        None => {
            let detail = format!(
                "metadata.resourceVersion: Invalid value: {}: \
                         strconv.ParseUint: parsing {0}: invalid syntax",
                quote(revision)
            );
            Err(revision_refused(kind, name, &detail))
        }
        Some(revision) if revision != current.revision() => Err(Status::modified(kind, name)),
        Some(_) => Ok(()),
    }
}

fn revision_refused(kind: Kind, name: &str, detail: &str) -> Status {
    let (field, message) = detail.split_once(": ").expect("the detail starts with the field");
    let mut status = Status::new(
        Reason::Invalid,
        format!("{} {} is invalid: {detail}", kind.group_resource(), quote(name)),
    );
    status.kind = kind.plural().to_owned();
    status.group = kind.info().group.to_owned();
    status.name = name.to_owned();
    status.causes = vec![api::Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: message.to_owned(),
        field: field.to_owned(),
    }];
    status
}

/// The object has another UID than the caller expects.
pub(crate) fn uid_mismatch(kind: Kind, name: &str, wanted: &str, found: &str) -> Status {
    let why =
        format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
    Status::conflict(kind, name, &why)
}

/// Takes over from `old` what no update changes.
pub(crate) fn carry_over(new: &mut ObjectMeta, old: &ObjectMeta) {
    tidy(new);
    new.resource_version.clone_from(&old.resource_version);
    new.generation = old.generation;
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    if new.uid.is_none() {
        new.uid.clone_from(&old.uid);
    }
    if new.name.is_none() {
        new.name.clone_from(&old.name);
    }
    if new.namespace.is_none() {
        new.namespace.clone_from(&old.namespace);
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
}

/// Checks the metadata of an object that is updated.
pub(crate) fn validate_update(new: &ObjectMeta, old: &ObjectMeta) -> Causes {
    let path = Path::new("metadata");
    let mut causes = Causes::default();
    if old.deletion_timestamp.is_some() {
        let known: BTreeSet<&String> = old.finalizers.iter().flatten().collect();
        let added: BTreeSet<&String> =
            new.finalizers.iter().flatten().filter(|f| !known.contains(f)).collect();
        if !added.is_empty() {
            let list: Vec<String> = added.into_iter().map(|f| quote(f)).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                list.join(", ")
            );
            causes.forbidden(&path.child("finalizers"), &detail);
        }
    }
    causes.immutable(&path.child("name"), &new.name, &old.name);
    causes.immutable(&path.child("namespace"), &new.namespace, &old.namespace);
    causes.immutable(&path.child("uid"), &new.uid, &old.uid);
    causes.immutable(
        &path.child("deletionTimestamp"),
        &new.deletion_timestamp,
        &old.deletion_timestamp,
    );
    causes.immutable(
        &path.child("deletionGracePeriodSeconds"),
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
    );
    validate_free_fields(new, &path, &mut causes);
    if new.finalizers != old.finalizers {
        validate_finalizers(new, &path.child("finalizers"), &mut causes);
    }
    causes
}
