//! The two secrets that are no certificates: the bootstrap token and the service-account key.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use super::{
    PkiError,
    rotation::{Rotation, RotationStage},
    store::Store,
};
use crate::secret::Secret;

pub(super) const TOKEN_FILE: &str = "bootstrap-token";
const KEY_FILE: &str = "sa.key";
/// The key that takes the place of the present one when a rotation comes to it.
pub(super) const NEXT_KEY_FILE: &str = "next-sa.key";
const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Reads the bootstrap token, or makes one: six letters, a dot, sixteen letters.
///
/// Source: Kubernetes' bootstrap tokens, `[a-z0-9]{6}\.[a-z0-9]{16}`.
pub(super) fn bootstrap_token(store: &Store) -> Result<Secret, PkiError> {
    if let Some(text) = store.read(TOKEN_FILE)?
        && well_formed(text.trim())
    {
        return Ok(Secret::new(text.trim()));
    }
    let token = format!("{}.{}", letters(6)?, letters(16)?);
    store.write(TOKEN_FILE, &format!("{token}\n"))?;
    Ok(Secret::new(token))
}

/// The keys of service-account tokens in one moment.
pub(super) struct SigningKeys {
    /// Signs (PKCS#8 PEM).
    pub(super) private: Secret,
    /// Its public half (PEM).
    pub(super) public: String,
    /// The public half of another one whose tokens are good, too.
    pub(super) other: Option<String>,
}

/// Reads or makes the key that signs service-account tokens, as `rotation` has it.
///
/// Always P-256, which signs with ES256: the algorithm of certificates is about their readers.
pub(super) fn signing_keys(
    store: &Store,
    rotation: Option<&Rotation>,
) -> Result<SigningKeys, PkiError> {
    let present = key(store, KEY_FILE)?;
    let keys = |signing: (Secret, String), other| {
        let (private, public) = signing;
        SigningKeys { private, public, other }
    };
    let stage = rotation.filter(|r| r.concerns(super::authority::CLUSTER.title)).map(|r| r.stage);
    let Some(stage) = stage else { return Ok(keys(present, None)) };
    let next = key(store, NEXT_KEY_FILE)?;
    Ok(match stage {
        RotationStage::Trust => keys(present, Some(next.1)),
        RotationStage::Issue => keys(next, Some(present.1)),
        RotationStage::Drop | RotationStage::Settle => keys(next, None),
    })
}

/// Makes sure that there is a key for the time after a rotation.
pub(super) fn next_signing_key(store: &Store) -> Result<(), PkiError> {
    key(store, NEXT_KEY_FILE).map(drop)
}

/// Puts the next key in the present one's place.
pub(super) fn settle(store: &Store) -> Result<(), PkiError> {
    match store.read(NEXT_KEY_FILE)? {
        Some(text) => store.write(KEY_FILE, &text),
        None => Ok(()),
    }
}

fn key(store: &Store, file: &str) -> Result<(Secret, String), PkiError> {
    if let Some(text) = store.read(file)?
        && let Ok(key) = KeyPair::from_pem(&text)
    {
        return Ok((Secret::new(text), key.public_key_pem()));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| PkiError::Issue { id: "sa".to_owned(), source })?;
    let text = key.serialize_pem();
    store.write(file, &text)?;
    Ok((Secret::new(text), key.public_key_pem()))
}

fn well_formed(token: &str) -> bool {
    let letters = |part: &str, len| part.len() == len && part.bytes().all(|b| LETTERS.contains(&b));
    token.split_once('.').is_some_and(|(id, rest)| letters(id, 6) && letters(rest, 16))
}

fn letters(count: usize) -> Result<String, PkiError> {
    let mut text = String::with_capacity(count);
    // A byte is thrown away with probability 1/64, so 8 rounds of 32 bytes give enough for sure
    // unless the system's generator is broken.
    for _ in 0..8 {
        let mut bytes = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
        // 252 is the largest multiple of 36 in a byte: beyond it, some letters would be likelier.
        let fair = bytes.iter().filter(|b| **b < 252);
        text.extend(fair.map(|b| char::from(LETTERS[usize::from(b % 36)])));
        if text.len() >= count {
            text.truncate(count);
            return Ok(text);
        }
    }
    Err(PkiError::Random)
}
