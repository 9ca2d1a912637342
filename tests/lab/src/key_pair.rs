//! The key pair that opens every host of a lab directory.

use std::io;
use std::path::Path;

use tokio::process::Command;

/// Returns the public key beside `private`, making the pair first where there is none.
///
/// # Errors
/// A failed `ssh-keygen`, or a key that cannot be read.
pub(crate) async fn ensure(private: &Path) -> io::Result<String> {
    let public = private.with_extension("pub");
    if !private.exists() {
        let output = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "kprov-lab", "-f"])
            .arg(private)
            .output()
            .await?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io::Error::other(format!("ssh-keygen failed: {}", message.trim())));
        }
    }
    tokio::fs::read_to_string(public).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pair_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id_ed25519");
        let first = ensure(&path).await.unwrap();
        assert!(first.starts_with("ssh-ed25519 "), "{first}");
        assert_eq!(ensure(&path).await.unwrap(), first);
    }
}
