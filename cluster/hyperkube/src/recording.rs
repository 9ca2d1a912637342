//! `--record-to`: a component's inputs and effects in a file, for `ksim replay`.

mod double;

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use controllers::bootstrap_signer::{SIGNATURE, SIGNED, sign};
use machine::recording::{Header, Sink};
use machine::{Machine, Recorded};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use double::Double;

/// Where `kubectl apply` keeps the manifest, values of secrets included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether, and where, a component is recorded.
#[derive(Args)]
pub(crate) struct Recording {
    /// Write every input and effect of this process to a file that `ksim replay` repeats.
    ///
    /// The file grows without limit. It holds whole objects of the cluster, without the values of
    /// secrets, and only its owner may read it. The recording of the process before is kept, with
    /// a name that ends in `.old.jsonl`.
    #[arg(long, value_name = "FILE.jsonl")]
    record_to: Option<PathBuf>,
}

impl Recording {
    /// The machine, recorded if that is asked for. It is one that looks at no values of secrets,
    /// or signs with them at most.
    pub(crate) fn of<M>(&self, machine: M, header: &Header) -> anyhow::Result<Recorded<M>> {
        let Some(file) = self.file()? else { return Ok(Recorded::silent(machine)) };
        Ok(Recorded::new(machine, header, sink(file, without_secrets)))
    }

    /// A machine that hands values of secrets on, recorded if that is asked for.
    pub(crate) fn of_keeper<M>(&self, machine: M, header: &Header) -> anyhow::Result<Recorded<M>>
    where
        M: Machine<Input: DeserializeOwned, Effect: Serialize> + Clone + Send + 'static,
    {
        let Some(file) = self.file()? else { return Ok(Recorded::silent(machine)) };
        let mut double = Double::new(machine.clone());
        let sink = sink(file, move |line| double.tell(line).map(Cow::Owned));
        Ok(Recorded::new(machine, header, sink))
    }

    fn file(&self) -> anyhow::Result<Option<File>> {
        let Some(path) = &self.record_to else { return Ok(None) };
        let file = create(path).with_context(|| format!("cannot create {}", path.display()))?;
        tracing::info!(file = %path.display(), "recording");
        Ok(Some(file))
    }
}

/// Makes the file anew. One of an earlier process is kept: that process may have ended by what
/// the recording is to explain, and systemd has started this one at once.
fn create(path: &Path) -> io::Result<File> {
    if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        std::fs::rename(path, path.with_extension("old.jsonl"))?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Hands each line to the kernel as soon as it is there, so that nothing is lost when the process
/// is killed. After a failure nothing more is written: a recording with a gap cannot be repeated.
///
/// `veil` makes of a line what may be written down.
fn sink(
    out: impl Write + Send + 'static,
    mut veil: impl for<'a> FnMut(&'a str) -> io::Result<Cow<'a, str>> + Send + 'static,
) -> Sink {
    let mut out = Some(out);
    Box::new(move |line| {
        let Some(open) = &mut out else { return };
        let written = veil(line).and_then(|line| {
            let mut text = line.into_owned();
            text.push('\n');
            open.write_all(text.as_bytes())
        });
        if let Err(error) = written {
            tracing::error!(%error, "the recording ends here");
            out = None;
        }
    })
}

/// The types of secrets that machines look into.
const TOKENS: [&str; 2] = ["bootstrap.kubernetes.io/token", "kubernetes.io/service-account-token"];
/// What machines look at in secrets, and is none: when and for what a bootstrap token is good, and
/// what stands beside the token of a service account.
const KEPT: [&str; 6] = [
    "ca.crt",
    "expiration",
    "namespace",
    "token-id",
    "usage-bootstrap-authentication",
    "usage-bootstrap-signing",
];

/// Stands for the secret part of every bootstrap token.
const STAND_IN: &str = "0000000000000000";
/// The same in base64, as the API carries it.
const STAND_IN_BASE64: &str = "MDAwMDAwMDAwMDAwMDAwMA==";

/// The line with every value of every secret emptied. No machine looks at those, so that the
/// repeated run is the same. But for one, which signs with bootstrap tokens: they get another
/// secret, and what was signed with them is signed anew.
fn without_secrets(line: &str) -> io::Result<Cow<'_, str>> {
    if !line.contains(r#""kind":"Secret""#) && !line.contains(SIGNATURE) {
        return Ok(line.into());
    }
    let mut value: Value = serde_json::from_str(line)?;
    empty_secrets(&mut value);
    Ok(value.to_string().into())
}

/// Signs anew what a config map holds of signatures by bootstrap tokens.
fn sign_anew(value: &mut Value) {
    let Some(content) = value["data"][SIGNED].as_str().map(str::to_owned) else { return };
    for (key, signature) in value["data"].as_object_mut().into_iter().flatten() {
        if let Some(id) = key.strip_prefix(SIGNATURE) {
            *signature = sign(&content, id, STAND_IN).into();
        }
    }
}

fn empty_secrets(value: &mut Value) {
    veil_secrets(value, &mut |kind, key, value| {
        let signs = kind == TOKENS[0] && key == "token-secret" && *value != "";
        *value = if signs { STAND_IN_BASE64 } else { "" }.into();
    });
    if value["kind"] == "ConfigMap" && value["apiVersion"] == "v1" {
        sign_anew(value);
    }
    for_each_part(value, &mut empty_secrets);
}

/// If this is a secret: takes away what tells of its values, and has `veil` change the values
/// themselves. It is given the secret's type, the key, and the value in base64.
fn veil_secrets(value: &mut Value, veil: &mut dyn FnMut(&str, &str, &mut Value)) {
    if value["kind"] != "Secret" || value["apiVersion"] != "v1" {
        return;
    }
    let kind = value["type"].as_str().unwrap_or_default().to_owned();
    let keeps = |key: &str| TOKENS.contains(&&*kind) && KEPT.contains(&key);
    // Only who writes a secret has it in text, and no component of ours does.
    value.as_object_mut().map(|secret| secret.remove("stringData"));
    let entries = value.get_mut("data").and_then(Value::as_object_mut);
    for (key, value) in entries.into_iter().flatten().filter(|(key, _)| !keeps(key)) {
        veil(&kind, key, value);
    }
    let annotations = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    annotations.map(|annotations| annotations.remove(LAST_APPLIED));
}

fn for_each_part(value: &mut Value, act: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(act),
        Value::Array(items) => items.iter_mut().for_each(act),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
