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
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failed)?;
    if !old.is_empty() {
        let backup = format!("{name}.kprov-backup");
        replace(directory, Path::new(&backup), &old).map_err(failed)?;
    }
    replace(directory, file, &merged).map_err(failed)
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
    let parse = |text: &str| -> Result<Map<String, Value>, String> {
        if text.trim().is_empty() {
            return Ok(Map::new());
        }
        match serde_saphyr::from_str(text).map_err(|error| error.to_string())? {
            Value::Object(map) => Ok(map),
            _ => Err("its top level is no mapping".to_owned()),
        }
    };
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
        assert_eq!(fs::read_to_string(backup).unwrap(), OLD);
    }
}
