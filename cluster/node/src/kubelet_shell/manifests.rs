//! The manifest directory: pods that run whatever the API says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{Kind, Object, codec};
use kubelet::NodeInput;
use tokio::sync::mpsc;

/// How often the directory is read. Kubernetes reads it every 20 s and at each change.
const CHECK: Duration = Duration::from_secs(2);
/// Larger files are no manifests.
const SIZE_MAX: u64 = 1 << 20;

/// Reads the directory until the receiver is gone; sends all pods when one changed. Without a
/// directory there are no static pods, which is sent too.
pub(super) async fn watch(directory: Option<PathBuf>, inputs: mpsc::Sender<NodeInput>) {
    let Some(directory) = directory else {
        let _ = inputs.send(NodeInput::StaticPods(Vec::new())).await;
        return;
    };
    let mut last: Option<BTreeMap<PathBuf, Vec<u8>>> = None;
    loop {
        let path = directory.clone();
        let files = tokio::task::spawn_blocking(move || read(&path)).await.unwrap_or_default();
        if last.as_ref() != Some(&files) {
            let pods = files.iter().filter_map(|(path, text)| parse(path, text)).collect();
            if inputs.send(NodeInput::StaticPods(pods)).await.is_err() {
                return;
            }
            last = Some(files);
        }
        tokio::select! {
            () = tokio::time::sleep(CHECK) => {}
            () = inputs.closed() => return,
        }
    }
}

fn read(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeMap::new() };
    entries
        .flatten()
        .filter(|e| !is_passing(&e.file_name().to_string_lossy()))
        .filter(|e| e.metadata().is_ok_and(|m| m.is_file() && m.len() <= SIZE_MAX))
        .filter_map(|e| Some((e.path(), std::fs::read(e.path()).ok()?)))
        .collect()
}

/// Files of somebody who is still writing: hidden ones, and those that will take another's place.
fn is_passing(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || name.ends_with(".kprov-new")
}

fn parse(path: &Path, text: &[u8]) -> Option<Object> {
    let pod = std::str::from_utf8(text).map_err(|e| e.to_string()).and_then(|text| {
        let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        let json = serde_json::to_vec(&value).map_err(|e| e.to_string())?;
        let object = codec::decode_any(&json).map_err(|e| e.to_string())?;
        if object.kind() == Kind::Pod && object.meta().name.is_some() {
            Ok(object)
        } else {
            Err("it is no pod with a name".to_owned())
        }
    });
    pod.inspect_err(|error| {
        tracing::error!(path = %path.display(), %error, "a manifest is not usable");
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_seen_and_nonsense_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: []}\n";
        std::fs::write(dir.path().join("web.yaml"), pod).unwrap();
        std::fs::write(dir.path().join("bad.yaml"), "kind: [").unwrap();
        std::fs::write(dir.path().join(".hidden"), pod).unwrap();
        std::fs::write(dir.path().join("web.yaml.kprov-new"), pod).unwrap();
        let (inputs, mut sent) = mpsc::channel(4);
        let task = tokio::spawn(watch(Some(dir.path().to_owned()), inputs));
        let Some(NodeInput::StaticPods(pods)) = sent.recv().await else { panic!("no pods") };
        assert_eq!(pods.iter().map(|p| p.key().name.to_string()).collect::<Vec<_>>(), ["web"]);
        drop(sent);
        task.await.unwrap();
    }
}
