//! Volumes as data.

use serde::{Deserialize, Serialize};

/// A volume that must be there before the pod's containers start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Its name in the pod.
    pub name: String,
    /// Where it is on the node.
    pub path: String,
    /// What it holds.
    pub content: VolumeContent,
}

/// What a volume holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeContent {
    /// An empty folder that lives as long as the pod.
    EmptyDir {
        /// In memory instead of on disk.
        memory: bool,
        /// Bytes, if limited.
        size_limit: Option<i64>,
    },
    /// Something of the node's own.
    HostPath(HostPathType),
    /// A folder that outlives the pod.
    Local {
        /// Whether it is made when it is not there.
        create: bool,
    },
    /// Files that change together.
    Files(Vec<VolumeFile>),
}

/// What must be at a `hostPath`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is the Kubernetes value of that name")]
pub enum HostPathType {
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

impl HostPathType {
    /// From the API's word; what is unknown is not checked.
    pub fn parse(text: &str) -> Self {
        match text {
            "DirectoryOrCreate" => Self::DirectoryOrCreate,
            "Directory" => Self::Directory,
            "FileOrCreate" => Self::FileOrCreate,
            "File" => Self::File,
            "Socket" => Self::Socket,
            "CharDevice" => Self::CharDevice,
            "BlockDevice" => Self::BlockDevice,
            _ => Self::Unset,
        }
    }
}

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeFile {
    /// Path below the volume.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it holds.
    #[serde(with = "base64_bytes")]
    pub content: Vec<u8>,
}

mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], ser: S) -> Result<S::Ok, S::Error> {
        ser.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(de)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
