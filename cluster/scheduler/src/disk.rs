//! [`Disk`]: a disk that pods name in their volumes, beside claims, and that does not bear two of
//! them.

use k8s_openapi::api::core::v1::{PodSpec, Volume};

/// The pool of images that name none.
const POOL: &str = "rbd";

/// A disk as one pod uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// A persistent disk of GCE: its name, and whether it is only read.
    Gce(String, bool),
    /// A volume of EBS, by its ID. It cannot be shared, even to be read.
    Ebs(String),
    /// A target of iSCSI: its qualified name, and whether it is only read.
    Iscsi(String, bool),
    /// An image of Ceph.
    Rbd {
        /// Addresses of its monitors.
        monitors: Vec<String>,
        /// Its pool.
        pool: String,
        /// Its name.
        image: String,
        /// Whether it is only read.
        read_only: bool,
    },
}

impl Disk {
    /// Those of a pod.
    pub(crate) fn of(spec: &PodSpec) -> Vec<Self> {
        spec.volumes.iter().flatten().filter_map(Self::of_volume).collect()
    }

    fn of_volume(volume: &Volume) -> Option<Self> {
        let read = |only: Option<bool>| only.unwrap_or(false);
        if let Some(disk) = &volume.gce_persistent_disk {
            return Some(Self::Gce(disk.pd_name.clone(), read(disk.read_only)));
        }
        if let Some(disk) = &volume.aws_elastic_block_store {
            return Some(Self::Ebs(disk.volume_id.clone()));
        }
        if let Some(disk) = &volume.iscsi {
            return Some(Self::Iscsi(disk.iqn.clone(), read(disk.read_only)));
        }
        let disk = volume.rbd.as_ref()?;
        let pool = disk.pool.as_deref().filter(|pool| !pool.is_empty()).unwrap_or(POOL);
        Some(Self::Rbd {
            monitors: disk.monitors.clone(),
            pool: pool.to_owned(),
            image: disk.image.clone(),
            read_only: read(disk.read_only),
        })
    }

    /// Whether two pods on one node cannot have these.
    ///
    /// Source: kubernetes 1.33, `isVolumeConflict` in `plugins/volumerestrictions`.
    pub fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Gce(a, a_reads), Self::Gce(b, b_reads))
            | (Self::Iscsi(a, a_reads), Self::Iscsi(b, b_reads)) => {
                a == b && !(*a_reads && *b_reads)
            }
            (Self::Ebs(a), Self::Ebs(b)) => a == b,
            (
                Self::Rbd { monitors, pool, image, read_only },
                Self::Rbd { monitors: others, pool: its_pool, image: its_image, read_only: reads },
            ) => {
                monitors.iter().any(|monitor| others.contains(monitor))
                    && (pool, image) == (its_pool, its_image)
                    && !(*read_only && *reads)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(a: &Value, b: &Value, expected: bool) {
        let of = |volume: &Value| {
            let spec =
                json!({"containers": [], "volumes": [volume, {"name": "t", "emptyDir": {}}]});
            let mut disks = Disk::of(&serde_json::from_value(spec).unwrap());
            assert_eq!(disks.len(), 1);
            disks.remove(0)
        };
        let (one, other) = (of(a), of(b));
        assert_eq!(one.conflicts(&other), expected, "{a} {b}");
        assert_eq!(other.conflicts(&one), expected, "{b} {a}");
    }

    #[test]
    fn a_disk_is_shared_if_all_only_read_it() {
        let gce = |name: &str, reads: bool| json!({"name": "v", "gcePersistentDisk": {"pdName": name, "readOnly": reads}});
        let iscsi = |iqn: &str, reads: bool| {
            json!({"name": "v", "iscsi": {"targetPortal": "t", "iqn": iqn, "lun": 0,
                "readOnly": reads}})
        };
        let rbd = |monitors: &[&str], pool: Option<&str>, image: &str, reads: bool| {
            json!({"name": "v", "rbd": {"monitors": monitors, "pool": pool, "image": image,
                "readOnly": reads}})
        };
        for disk in [gce, iscsi] {
            check(&disk("a", false), &disk("a", false), true);
            check(&disk("a", true), &disk("a", false), true);
            check(&disk("a", true), &disk("a", true), false);
            check(&disk("a", false), &disk("b", false), false);
        }
        check(&gce("a", false), &iscsi("a", false), false);
        let ebs = |id: &str, reads: bool| json!({"name": "v", "awsElasticBlockStore": {"volumeID": id, "readOnly": reads}});
        check(&ebs("a", true), &ebs("a", true), true);
        check(&ebs("a", false), &ebs("b", false), false);
        let ours = rbd(&["m1", "m2"], None, "i", false);
        check(&ours, &rbd(&["m2", "m3"], Some("rbd"), "i", false), true);
        check(&ours, &rbd(&["m3"], None, "i", false), false);
        check(&ours, &rbd(&["m1"], Some("other"), "i", false), false);
        check(&ours, &rbd(&["m1"], None, "j", false), false);
        check(&rbd(&["m1"], None, "i", true), &rbd(&["m1"], None, "i", true), false);
    }
}
