//! The public key by which an SSH server is known.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::Digest as _;

/// A public key as a server sends it (RFC 4253, 6.6). Its text is that of `HOST.pub`: the algorithm
/// and the key in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey(Vec<u8>);

impl HostKey {
    /// Takes a key as it was sent.
    #[must_use]
    pub fn of_wire(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The key as it is sent.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The algorithm that the key says it is for; a key begins with its length-prefixed name.
    #[must_use]
    pub fn algorithm(&self) -> Option<&str> {
        let (len, rest) = self.0.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        std::str::from_utf8(rest.get(..len)?).ok()
    }

    /// The fingerprint as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(sha2::Sha256::digest(&self.0)))
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm().unwrap_or_default(), STANDARD.encode(&self.0))
    }
}

impl FromStr for HostKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split_whitespace();
        let (Some(algorithm), Some(key)) = (words.next(), words.next()) else {
            return Err("no algorithm and key");
        };
        let key = Self(STANDARD.decode(key).map_err(|_| "not base64")?);
        match key.algorithm() {
            Some(own) if own == algorithm => Ok(key),
            _ => Err("the key is for another algorithm, or cut off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_a_pub_file() {
        let text =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPNWZuLn8qqJBCrGTuNVyK8MtUsrzHQGsBGNmWZgB2Q";
        let key: HostKey = format!("{text} root@host").parse().unwrap();
        assert_eq!(key.to_string(), text);
        assert_eq!(key.algorithm(), Some("ssh-ed25519"));
        for bad in
            ["", "ssh-ed25519", "ssh-ed25519 ?", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIGPN", "x AAAA"]
        {
            assert!(bad.parse::<HostKey>().is_err(), "{bad}");
        }
    }
}
