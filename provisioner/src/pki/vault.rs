//! Secrets at rest, sealed with a passphrase.
//!
//! A passphrase is slow to turn into a key on purpose, so it opens one random key only
//! ([`Header`]), and that one seals everything: many small files of a state directory, or one
//! archive. What is sealed is bound to a context (the name of its file), so that no sealed file
//! can be put in the place of another.

use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::secret::Secret;

/// What sealed text files begin with.
pub(super) const TAG: &str = "KPROV SEALED SECRET";
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// The format that this version writes; a newer one is refused.
const FORMAT: u32 = 1;
/// More memory is not spent on a header that says so, in KiB: it may have been tampered with.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Nor more passes.
const PASSES_MAX: u32 = 64;

/// Why sealed secrets cannot be used.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The secrets are sealed and nothing was given to open them.
    #[error("{} is sealed with a passphrase, and none was given", path.display())]
    NoPassphrase {
        /// The sealed file or directory.
        path: PathBuf,
    },
    /// The passphrase is another one.
    #[error("this is not the passphrase of {}", path.display())]
    WrongPassphrase {
        /// The sealed file or directory.
        path: PathBuf,
    },
    /// What is there cannot have been sealed here.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The sealed file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty")]
    Empty,
    /// The system gives no random bytes, or not the memory that a passphrase takes.
    #[error("the system gives no random bytes or too little memory for a passphrase")]
    System,
}

/// How slow a passphrase is to turn into a key.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Cost {
    /// About a quarter of a second on one core of 2024.
    ///
    /// Source: RFC 9106, section 4, the second recommended option.
    pub const USUAL: Self = Self { memory_kib: 64 << 10, passes: 3 };
}

/// What is kept in clear beside sealed secrets: how to open them with the passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
    wrapped: String,
}

/// An opened vault: seals and opens.
#[derive(Debug)]
pub struct Vault {
    key: RandomizedNonceKey,
}

impl Vault {
    /// Makes a vault that `passphrase` will open.
    ///
    /// # Errors
    /// When the passphrase is empty or the system gives no random bytes.
    pub fn create(passphrase: &Secret, cost: Cost) -> Result<(Self, Header), VaultError> {
        let (mut salt, mut key) = ([0; SALT_BYTES], [0; KEY_BYTES]);
        for bytes in [&mut salt[..], &mut key[..]] {
            aws_lc_rs::rand::fill(bytes).map_err(|_| VaultError::System)?;
        }
        let outer = derive(passphrase, &salt, cost)?;
        let header = Header {
            format: FORMAT,
            kdf: "argon2id".to_owned(),
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            salt: BASE64_STANDARD.encode(salt),
            wrapped: BASE64_STANDARD.encode(outer.seal("key", &key)?),
        };
        Ok((Self::with(&key)?, header))
    }

    /// Opens the vault of `header`; `path` is what errors name.
    ///
    /// # Errors
    /// When the passphrase is another one, or the header is damaged.
    pub fn open(header: &Header, passphrase: &Secret, path: &Path) -> Result<Self, VaultError> {
        let damaged =
            |reason: &str| VaultError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        if header.format != FORMAT || header.kdf != "argon2id" {
            return Err(damaged("a newer kprov has sealed it"));
        }
        if header.memory_kib > MEMORY_KIB_MAX || header.passes > PASSES_MAX {
            return Err(damaged("its passphrase would take more memory or time than is sensible"));
        }
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| damaged("no base64"));
        let (salt, wrapped) = (decode(&header.salt)?, decode(&header.wrapped)?);
        let cost = Cost { memory_kib: header.memory_kib, passes: header.passes };
        let outer = derive(passphrase, &salt, cost)?;
        let wrong = VaultError::WrongPassphrase { path: path.to_owned() };
        Self::with(&outer.unseal("key", &wrapped).ok_or(wrong)?)
    }

    fn with(key: &[u8]) -> Result<Self, VaultError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| VaultError::System)?;
        Ok(Self { key })
    }

    /// Seals bytes for `context`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut sealed = plain.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(context), &mut sealed)
            .map_err(|_| VaultError::System)?;
        let mut out = nonce.as_ref().to_vec();
        out.append(&mut sealed);
        Ok(out)
    }

    /// Opens what [`Vault::seal`] made for `context`; `None` for anything else.
    #[must_use]
    pub fn unseal(&self, context: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = rest.to_vec();
        let plain = self.key.open_in_place(nonce, Aad::from(context), &mut bytes).ok()?;
        Some(plain.to_vec())
    }

    /// Seals text into text.
    pub(super) fn seal_text(&self, context: &str, text: &str) -> Result<String, VaultError> {
        let sealed = self.seal(context, text.as_bytes())?;
        Ok(pem::encode(&pem::Pem::new(TAG, sealed)))
    }

    /// Opens text that [`Vault::seal_text`] made.
    pub(super) fn unseal_text(&self, context: &str, text: &str) -> Option<String> {
        let block = pem::parse(text).ok().filter(|block| block.tag() == TAG)?;
        String::from_utf8(self.unseal(context, block.contents())?).ok()
    }
}

/// Whether text was sealed.
pub(super) fn is_sealed(text: &str) -> bool {
    text.trim_start().starts_with(&format!("-----BEGIN {TAG}-----"))
}

fn derive(passphrase: &Secret, salt: &[u8], cost: Cost) -> Result<Vault, VaultError> {
    if passphrase.expose().is_empty() {
        return Err(VaultError::Empty);
    }
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(KEY_BYTES));
    let params = params.map_err(|_| VaultError::System)?;
    let mut key = [0; KEY_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.expose().as_bytes(), salt, &mut key)
        .map_err(|_| VaultError::System)?;
    Vault::with(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Cost = Cost { memory_kib: 32, passes: 1 };

    #[test]
    fn a_sealed_text_opens_with_its_passphrase_and_under_its_name_only() {
        let passphrase = Secret::new("correct horse");
        let (vault, header) = Vault::create(&passphrase, QUICK).unwrap();
        let sealed = vault.seal_text("ca.key", "KEY MATERIAL").unwrap();
        assert!(is_sealed(&sealed) && !sealed.contains("MATERIAL"), "{sealed}");
        let json = serde_json::to_string(&header).unwrap();
        let header: Header = serde_json::from_str(&json).unwrap();
        let again = Vault::open(&header, &passphrase, Path::new("x")).unwrap();
        assert_eq!(again.unseal_text("ca.key", &sealed).as_deref(), Some("KEY MATERIAL"));
        assert_eq!(again.unseal_text("etcd-ca.key", &sealed), None);
        let wrong = Vault::open(&header, &Secret::new("wrong"), Path::new("x")).unwrap_err();
        assert_eq!(wrong.to_string(), "this is not the passphrase of x");
        assert!(matches!(Vault::create(&Secret::new(""), QUICK), Err(VaultError::Empty)));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (vault, _) = Vault::create(&Secret::new("p"), QUICK).unwrap();
        let sealed = vault.seal("a", b"text").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(vault.unseal("a", &changed), None, "byte {at}");
            assert_eq!(vault.unseal("a", &sealed[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_header_cannot_ask_for_all_memory() {
        let (_, mut header) = Vault::create(&Secret::new("p"), QUICK).unwrap();
        header.memory_kib = u32::MAX;
        let error = Vault::open(&header, &Secret::new("p"), Path::new("x")).unwrap_err();
        assert!(matches!(error, VaultError::Damaged { .. }), "{error}");
    }
}
