//! Images as `docker load` reads them, written without a Docker.
//!
//! An archive holds one layer, the image's configuration and a manifest. The same input gives
//! the same bytes: times are fixed, owners are root, entries come in the order given.

use std::io::{self, Write};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::recipe::hex;

/// 2020-01-01: a time that no tool takes for "unset".
const MTIME: u64 = 1_577_836_800;
const CREATED: &str = "2020-01-01T00:00:00Z";

/// One entry of the layer; paths are relative to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory with its mode.
    Directory(String, u32),
    /// A file with its mode and bytes.
    File(String, u32, Vec<u8>),
    /// A symbolic link and its target.
    Link(String, String),
}

/// An image of one layer.
#[derive(Debug, Clone, Default)]
pub struct DockerArchive {
    /// Name and tag, as `kprov.local/echo:1`.
    pub name: String,
    /// Content of the layer.
    pub entries: Vec<Entry>,
    /// `NAME=value` pairs.
    pub environment: Vec<String>,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entry point.
    pub command: Vec<String>,
    /// Labels of the image.
    pub labels: Vec<(String, String)>,
}

impl DockerArchive {
    /// Writes the archive.
    ///
    /// # Errors
    /// The writer's error, or a path too long for the format.
    pub fn write(&self, output: impl Write) -> io::Result<()> {
        let layer = self.layer()?;
        let layer_digest = digest(&layer);
        let config = self.config(&layer_digest).to_string();
        let config_digest = digest(config.as_bytes());
        let layer_path = format!("{layer_digest}/layer.tar");
        let manifest = json!([{
            "Config": format!("{config_digest}.json"),
            "RepoTags": [self.name],
            "Layers": [layer_path],
        }]);
        let mut archive = Builder::new(output);
        append(&mut archive, &Entry::Directory(layer_digest, 0o755))?;
        append(&mut archive, &Entry::File(layer_path, 0o644, layer))?;
        let config_path = format!("{config_digest}.json");
        append(&mut archive, &Entry::File(config_path, 0o644, config.into_bytes()))?;
        let manifest = manifest.to_string().into_bytes();
        append(&mut archive, &Entry::File("manifest.json".to_owned(), 0o644, manifest))?;
        archive.finish()
    }

    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        for entry in &self.entries {
            append(&mut layer, entry)?;
        }
        layer.into_inner()
    }

    fn config(&self, layer_digest: &str) -> Value {
        let labels: serde_json::Map<String, Value> = self
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.clone())))
            .collect();
        json!({
            "architecture": architecture(),
            "os": "linux",
            "created": CREATED,
            "config": {
                "Env": self.environment,
                "Entrypoint": none_if_empty(&self.entrypoint),
                "Cmd": none_if_empty(&self.command),
                "Labels": labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
            "history": [{ "created": CREATED, "created_by": "kprov lab" }],
        })
    }
}

fn append<W: Write>(archive: &mut Builder<W>, entry: &Entry) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match entry {
        Entry::Directory(path, mode) => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(*mode);
            archive.append_data(&mut header, format!("{path}/"), io::empty())
        }
        Entry::File(path, mode, bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(u64::try_from(bytes.len()).map_err(io::Error::other)?);
            archive.append_data(&mut header, path, bytes.as_slice())
        }
        Entry::Link(path, target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, target)
        }
    }
}

fn none_if_empty(words: &[String]) -> Option<&[String]> {
    (!words.is_empty()).then_some(words)
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The machine's architecture by the name that images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn archive() -> DockerArchive {
        DockerArchive {
            name: "kprov.local/a:1".to_owned(),
            entries: vec![
                Entry::Directory("tmp".to_owned(), 0o1777),
                Entry::File("bin/a".to_owned(), 0o755, b"program".to_vec()),
                Entry::Link("bin/b".to_owned(), "a".to_owned()),
            ],
            environment: vec!["PATH=/bin".to_owned()],
            entrypoint: vec!["/bin/a".to_owned()],
            ..DockerArchive::default()
        }
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        archive().write(&mut bytes).unwrap();
        bytes
    }

    /// Path → (mode, mtime, content) of every file of a tar.
    fn files(bytes: &[u8]) -> BTreeMap<String, (u32, u64, Vec<u8>)> {
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let header = entry.header();
            let (mode, mtime) = (header.mode().unwrap(), header.mtime().unwrap());
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.insert(path, (mode, mtime, content));
        }
        found
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(written(), written());
    }

    #[test]
    fn manifest_configuration_and_layer_agree() {
        let outer = files(&written());
        let manifest: Value = serde_json::from_slice(&outer["manifest.json"].2).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "kprov.local/a:1");
        let config_path = manifest[0]["Config"].as_str().unwrap();
        let config_bytes = &outer[config_path].2;
        assert_eq!(config_path, format!("{}.json", digest(config_bytes)));
        let layer = &outer[manifest[0]["Layers"][0].as_str().unwrap()].2;
        let config: Value = serde_json::from_slice(config_bytes).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(layer)));
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/a"]));
        assert_eq!(config["config"]["Cmd"], Value::Null);

        let inner = files(layer);
        assert_eq!(inner["bin/a"], (0o755, MTIME, b"program".to_vec()));
        assert_eq!(inner["tmp/"].0, 0o1777);
        assert!(inner.contains_key("bin/b"));
    }
}
