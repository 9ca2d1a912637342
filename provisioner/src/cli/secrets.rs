//! The passphrase of the state directory's secrets: from a file, from the environment, or asked.

use std::path::Path;

use super::output::Failure;
use super::{Source, Surroundings};
use crate::pki;
use crate::secret::Secret;

/// Longest key file that is read, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// The passphrase, if there is one. It is asked for only where something is sealed, and once.
pub(super) fn passphrase(
    source: &Source,
    surroundings: &Surroundings,
    state_dir: &Path,
) -> Result<Option<Secret>, Failure> {
    given(source.key_file.as_deref(), surroundings, || pki::is_sealed(state_dir))
}

/// The same without a state directory; `needed` says whether it is worth asking.
pub(super) fn given(
    key_file: Option<&Path>,
    surroundings: &Surroundings,
    needed: impl FnOnce() -> bool,
) -> Result<Option<Secret>, Failure> {
    if let Some(file) = key_file {
        return from_file(file).map(Some);
    }
    if let Some(known) = surroundings.passphrase.get() {
        return Ok(Some(known.clone()));
    }
    let terminal = console::Term::stderr();
    if !needed() || !terminal.features().is_attended() {
        return Ok(None);
    }
    let asked = terminal.write_str("passphrase: ").and_then(|()| terminal.read_secure_line());
    let asked = asked.map_err(|error| Failure::new(&error, "set KPROV_PASSPHRASE instead"))?;
    Ok(Some(surroundings.passphrase.get_or_init(|| Secret::new(asked)).clone()))
}

fn from_file(file: &Path) -> Result<Secret, Failure> {
    let failed = |message: String| Failure::Other {
        message,
        advice: "name a text file with the passphrase, readable by you alone".to_owned(),
    };
    let name = file.display();
    let size = std::fs::metadata(file).map_err(|e| failed(format!("cannot read {name}: {e}")))?;
    if size.len() > KEY_FILE_BYTES_MAX {
        return Err(failed(format!("{name} is too long for a passphrase")));
    }
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| failed(format!("cannot read {name}: {error}")))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(failed(format!("{name} is empty"))),
        text => Ok(Secret::new(text)),
    }
}
