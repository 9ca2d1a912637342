//! Private key files: whether one is encrypted, and whose key it is.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What can be seen of a private key without its passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyFile {
    /// Whether it needs a passphrase.
    pub(super) encrypted: bool,
    /// The public key as SSH sends it, where the file, or `FILE.pub` beside it, shows it.
    pub(super) public: Option<Vec<u8>>,
}

impl KeyFile {
    /// Looks at the file at `path`; one that cannot be read is for the login to fail with.
    pub(super) fn look(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let seen = Self::of(&text);
        if seen.public.is_some() {
            return seen;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".pub");
        let public = std::fs::read_to_string(name).ok();
        let public = public.and_then(|text| STANDARD.decode(text.split_whitespace().nth(1)?).ok());
        Self { public, ..seen }
    }

    fn of(text: &str) -> Self {
        if let Some(seen) = openssh(text) {
            return seen;
        }
        let encrypted = text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || text
                .lines()
                .any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"));
        Self { encrypted, public: None }
    }
}

/// OpenSSH's own format tells cipher and public key in clear. Source: PROTOCOL.key of OpenSSH.
fn openssh(text: &str) -> Option<KeyFile> {
    let (_, rest) = text.split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END")?;
    let body: String = body.split_whitespace().collect();
    let bytes = STANDARD.decode(body).ok()?;
    let mut rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    let cipher = field(&mut rest)?;
    field(&mut rest)?;
    field(&mut rest)?;
    // The number of keys, which is always one.
    let (_, after) = rest.split_first_chunk::<4>()?;
    rest = after;
    let public = field(&mut rest)?.to_vec();
    Some(KeyFile { encrypted: cipher != b"none", public: Some(public) })
}

/// Takes one text with its length before it.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (field, after) = after.split_at_checked(len)?;
    *rest = after;
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_ssh_keygen_are_understood() {
        let scratch = tempfile::tempdir().unwrap();
        for (name, kind, passphrase, format) in [
            ("a", "ed25519", "", None),
            ("b", "ed25519", "secret", None),
            ("c", "ecdsa", "secret", Some("PEM")),
            ("d", "ecdsa", "", Some("PEM")),
        ] {
            let path = scratch.path().join(name);
            let mut command = std::process::Command::new("ssh-keygen");
            command.args(["-q", "-t", kind, "-N", passphrase, "-f"]).arg(&path);
            if let Some(format) = format {
                command.args(["-m", format]);
            }
            assert!(command.status().unwrap().success());
            let seen = KeyFile::look(&path);
            assert_eq!(seen.encrypted, !passphrase.is_empty(), "{name}");
            let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let public = STANDARD.decode(public.split(' ').nth(1).unwrap()).unwrap();
            assert_eq!(seen.public, Some(public), "{name}");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_key_of_ours() {
        let text = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END\n";
        assert_eq!(KeyFile::of(text), KeyFile { encrypted: false, public: None });
    }
}
