//! `kprov kubeconfig`.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::output::{Console, Failure};
use super::{Exit, KubeconfigArgs, Source, Surroundings, prepare};
use crate::kubeconfig;
use crate::secret::Secret;

pub(super) fn run(
    args: &KubeconfigArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let (context, text) = of_operator(&args.source, surroundings, console)?;
    let Some(file) = &args.merge else {
        if console.is_json() {
            let value: Value = serde_saphyr::from_str(text.expose())
                .map_err(|error| Failure::new(&error, "correct the template"))?;
            return console.result(&value, String::new);
        }
        // The one place where a secret is printed: it is what was asked for.
        return console.text(text.expose());
    };
    merge(file, &context, &text, console)?;
    let value = serde_json::json!({ "context": context, "merged": file.display().to_string() });
    console.result(&value, String::new)
}

/// The operator's kubeconfig, and the name of its context.
pub(super) fn of_operator(
    source: &Source,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<(String, Secret), Failure> {
    let inventory = prepare::inventory(source, console)?;
    let templates = prepare::templates(source)?;
    let state_dir = prepare::state_dir(source, &inventory);
    if !state_dir.exists() {
        return Err(Failure::Other {
            message: format!("{} has no certificates yet", state_dir.display()),
            advice: "apply the inventory first, or name its --state-dir".to_owned(),
        });
    }
    let pki = prepare::certificates(source, surroundings, &inventory, &state_dir)?;
    let text = kubeconfig::admin(&inventory, &pki, &templates)
        .map_err(|error| Failure::new(&error, "correct the template"))?;
    Ok((inventory.cluster.name.clone(), text))
}

/// Merges a kubeconfig into `file`, and says so.
pub(super) fn merge(
    file: &Path,
    context: &str,
    text: &Secret,
    console: &Console,
) -> Result<(), Failure> {
    let advice = "correct the file, or print the kubeconfig without --merge";
    merge_into(file, text.expose()).map_err(|error| Failure::new(&error, advice))?;
    console.note(&format!("merged the context {context} into {}", file.display()));
    Ok(())
}

/// Takes a kubeconfig that was merged out of `file` again, and says so. Entries that have become
/// other ones since, and a file that is not there, are left alone.
pub(super) fn take_out(
    file: &Path,
    context: &str,
    text: &Secret,
    console: &Console,
) -> Result<(), Failure> {
    let advice = format!("correct the file, or remove the context {context} from it by hand");
    if take_out_of(file, text.expose()).map_err(|error| Failure::new(&error, advice))? {
        console.note(&format!("removed the context {context} from {}", file.display()));
    }
    Ok(())
}

/// Why a kubeconfig was not merged.
#[derive(Debug, thiserror::Error)]
enum MergeError {
    #[error("cannot read or write {file}")]
    File {
        file: String,
        #[source]
        source: io::Error,
    },
    #[error("{file} is not a kubeconfig: {reason}")]
    Format { file: String, reason: String },
}

/// Merges `new` into `file`, which keeps a backup beside it, is replaced in one step and is
/// readable by its owner alone.
fn merge_into(file: &Path, new: &str) -> Result<(), MergeError> {
    let name = file.display().to_string();
    let failed = |source| MergeError::File { file: name.clone(), source };
    let old = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        result => result.map_err(failed)?,
    };
    let merged =
        merged(&old, new).map_err(|reason| MergeError::Format { file: name.clone(), reason })?;
    if merged == old {
        return Ok(());
    }
    let directory = directory_of(file);
    fs::create_dir_all(directory).map_err(failed)?;
    if !old.is_empty() {
        let backup = format!("{name}.kprov-backup");
        replace(directory, Path::new(&backup), &old).map_err(failed)?;
    }
    replace(directory, file, &merged).map_err(failed)
}

/// Removes the entries of `merged` from `file`, and the file when nothing is left in it; whether there
/// were any.
fn take_out_of(file: &Path, merged: &str) -> Result<bool, MergeError> {
    let name = file.display().to_string();
    let failed = |source| MergeError::File { file: name.clone(), source };
    let old = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        result => result.map_err(failed)?,
    };
    match without(&old, merged)
        .map_err(|reason| MergeError::Format { file: name.clone(), reason })?
    {
        Rest::All => return Ok(false),
        Rest::Some(text) => replace(directory_of(file), file, &text).map_err(failed)?,
        Rest::Nothing => fs::remove_file(file).map_err(failed)?,
    }
    Ok(true)
}

fn directory_of(file: &Path) -> &Path {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

fn replace(directory: &Path, file: &Path, text: &str) -> io::Result<()> {
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// Entries of `new` replace those of the same name in `old`; its current context becomes current.
fn merged(old: &str, new: &str) -> Result<String, String> {
    let (mut old, new) = (parse(old)?, parse(new)?);
    for (key, value) in new {
        match (value, old.get_mut(&key)) {
            (Value::Array(entries), Some(Value::Array(present))) => {
                let named: Vec<_> = entries.iter().map(|entry| entry["name"].clone()).collect();
                present.retain(|entry| !named.contains(&entry["name"]));
                present.extend(entries);
            }
            (value, _) => _ = old.insert(key, value),
        }
    }
    serde_saphyr::to_string(&old).map_err(|error| error.to_string())
}

fn parse(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_saphyr::from_str(text).map_err(|error| error.to_string())? {
        Value::Object(map) => Ok(map),
        _ => Err("its top level is no mapping".to_owned()),
    }
}

/// What a kubeconfig is without what was merged into it.
enum Rest {
    /// Nothing of it was there.
    All,
    /// This much is left.
    Some(String),
    /// There is no cluster, user or context any more.
    Nothing,
}

fn without(old: &str, merged: &str) -> Result<Rest, String> {
    let (mut old, merged) = (parse(old)?, parse(merged)?);
    let (mut taken, mut left) = (0, 0);
    for key in ["clusters", "contexts", "users"] {
        let Some(Value::Array(entries)) = old.get_mut(key) else { continue };
        let ours = merged.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let before = entries.len();
        entries.retain(|entry| !ours.contains(entry));
        taken += before - entries.len();
        left += entries.len();
    }
    if taken == 0 {
        return Ok(Rest::All);
    }
    if left == 0 {
        return Ok(Rest::Nothing);
    }
    let current = old.get("current-context").and_then(Value::as_str).unwrap_or_default();
    let contexts = old.get("contexts").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if !contexts.iter().any(|context| context["name"] == current) {
        old.remove("current-context");
    }
    serde_saphyr::to_string(&old).map(Rest::Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "apiVersion: v1\nkind: Config\ncurrent-context: other\nclusters:\n\
        - name: other\n  cluster: {server: 'https://other:6443'}\n\
        - name: lab\n  cluster: {server: 'https://old:6443'}\nusers: null\n";
    const NEW: &str = "apiVersion: v1\nkind: Config\ncurrent-context: lab\nclusters:\n\
        - name: lab\n  cluster: {server: 'https://new:6443'}\nusers:\n- name: lab-admin\n";

    #[test]
    fn merging_replaces_entries_of_the_same_name_only() {
        let value: Value = serde_saphyr::from_str(&merged(OLD, NEW).unwrap()).unwrap();
        assert_eq!(value["current-context"], "lab");
        let servers: Vec<_> = value["clusters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["cluster"]["server"].as_str().unwrap())
            .collect();
        assert_eq!(servers, ["https://other:6443", "https://new:6443"]);
        assert_eq!(value["users"][0]["name"], "lab-admin");
        assert!(merged("- a list", NEW).is_err());
    }

    #[test]
    fn the_file_is_private_and_has_a_backup() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        fs::write(&file, OLD).unwrap();
        merge_into(&file, NEW).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let backup = directory.path().join("config.kprov-backup");
        assert_eq!((mode(&file), mode(&backup)), (0o600, 0o600));
        assert_eq!(fs::read_to_string(&backup).unwrap(), OLD);
        // The same once more is no change, and leaves the backup what it is.
        merge_into(&file, NEW).unwrap();
        assert_eq!(fs::read_to_string(&backup).unwrap(), OLD);
    }

    #[test]
    fn what_was_merged_can_be_taken_out_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        assert!(!take_out_of(&file, NEW).unwrap(), "there is no file");
        merge_into(&file, NEW).unwrap();
        assert!(take_out_of(&file, NEW).unwrap());
        assert!(!file.exists(), "an empty kubeconfig is of no use to anybody");
        fs::write(&file, OLD).unwrap();
        assert!(!take_out_of(&file, NEW).unwrap(), "another cluster of that name");
        assert_eq!(fs::read_to_string(&file).unwrap(), OLD);
        merge_into(&file, NEW).unwrap();
        assert!(take_out_of(&file, NEW).unwrap());
        let left: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(left["clusters"].as_array().unwrap().len(), 1);
        assert_eq!(left["clusters"][0]["name"], "other");
        assert!(left.get("current-context").is_none(), "{left}");
    }
}
