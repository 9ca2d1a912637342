//! Text that must never be shown: private keys, tokens, kubeconfigs with credentials.

use std::fmt;

use serde::{Serialize, Serializer};

/// Text that no formatter, log or serializer can print.
///
/// Redaction is by type: `Debug`, `Display` and `Serialize` all give the same constant, so a secret
/// cannot leak through a derived implementation of a type that holds one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

const REDACTED: &str = "<secret>";

impl Secret {
    /// Wraps `text`; from here on only [`Secret::expose`] gives it back.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Gives the text itself; every call site is a place where a secret leaves the program.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_formatter_shows_the_text() {
        let secret = Secret::new("s3cr3t");
        let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("s3cr3t"), "{shown}");
        assert_eq!(secret.expose(), "s3cr3t");
    }
}
