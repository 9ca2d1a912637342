//! The two secrets that are no certificates: the bootstrap token and the service-account key.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use super::{PkiError, store::Store};
use crate::secret::Secret;

const TOKEN_FILE: &str = "bootstrap-token";
const KEY_FILE: &str = "sa.key";
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

/// Reads or makes the key that signs service-account tokens; returns it with its public half.
///
/// Always P-256, which signs with ES256: the algorithm of certificates is about their readers.
pub(super) fn signing_key(store: &Store) -> Result<(Secret, String), PkiError> {
    if let Some(text) = store.read(KEY_FILE)?
        && let Ok(key) = KeyPair::from_pem(&text)
    {
        return Ok((Secret::new(text), key.public_key_pem()));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| PkiError::Issue { id: "sa".to_owned(), source })?;
    let text = key.serialize_pem();
    store.write(KEY_FILE, &text)?;
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
