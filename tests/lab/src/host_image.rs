//! The hosts' image: built once for a recipe, kept as a tar for other checkouts.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::host_kind::HostKind;
use crate::recipe::Recipe;

/// Bytes handed to Docker at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Says why the hosts' image could not be made.
#[derive(Debug, Error)]
pub enum HostImageError {
    /// A file or a program could not be used.
    #[error("cannot {act}")]
    Io {
        /// What was tried.
        act: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The root file system could not be built.
    #[error("mmdebstrap failed:\n{output}")]
    Mmdebstrap {
        /// The end of what it said.
        output: String,
    },
    /// Docker refused the image.
    #[error("Docker refused the image {image}")]
    Docker {
        /// Name and tag.
        image: String,
        /// Why.
        #[source]
        source: Box<bollard::errors::Error>,
    },
}

/// Makes sure that Docker holds the recipe's image and returns its name.
///
/// # Errors
/// See [`HostImageError`].
pub(crate) async fn ensure(
    docker: &Docker,
    recipe: &Recipe,
    cache: &Path,
) -> Result<String, HostImageError> {
    let image = recipe.image();
    if docker.inspect_image(&image).await.is_ok() {
        return Ok(image);
    }
    let root = ensure_root(recipe, cache).await?;
    tracing::info!(image, "importing the hosts' image");
    import(docker, recipe, &root).await?;
    Ok(image)
}

/// Makes sure that the cache holds the recipe's root file system and returns its path.
async fn ensure_root(recipe: &Recipe, cache: &Path) -> Result<PathBuf, HostImageError> {
    let io = |act: String| move |source| HostImageError::Io { act, source };
    std::fs::create_dir_all(cache).map_err(io(format!("create {}", cache.display())))?;
    let root = cache.join(format!("host-{}.tar", recipe.hash()));
    // Two checkouts may want it at the same time; the second one finds it made.
    let _lock = lock(&cache.join("lock")).await.map_err(io("lock the cache".to_owned()))?;
    if root.exists() {
        return Ok(root);
    }
    let kind = recipe.dress.as_ref().map_or_else(HostKind::default, |(kind, _)| *kind);
    tracing::info!(suite = recipe.suite, %kind, "building the hosts' root file system");
    let partial = root.with_extension("tar.partial");
    let scripts = tempfile::tempdir().map_err(io("create a directory".to_owned()))?;
    let customize = scripts.path().join("customize");
    let init = scripts.path().join("lab-init");
    let dress = scripts.path().join("dress");
    for (path, text) in [(&customize, &recipe.customize), (&init, &recipe.init)] {
        write_program(path, text).map_err(io(format!("write {}", path.display())))?;
    }
    if let Some((_, text)) = &recipe.dress {
        write_program(&dress, text).map_err(io(format!("write {}", dress.display())))?;
    }
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--variant=essential", "--format=tar", "--quiet"])
        .arg("--aptopt=Apt::Install-Recommends \"false\"")
        .args(["man", "doc", "locale"].map(|d| format!("--dpkgopt=path-exclude=/usr/share/{d}/*")))
        .arg(format!("--include={}", recipe.packages.join(",")))
        .arg(format!("--customize-hook={} \"$1\"", customize.display()))
        .args(
            recipe
                .dress
                .as_ref()
                .map(|(kind, _)| format!("--customize-hook={} \"$1\" {kind}", dress.display())),
        )
        .arg(format!("--customize-hook=copy-in {} /usr/sbin", init.display()))
        .arg(&recipe.suite)
        .arg(&partial)
        .args(mirror(&recipe.suite).await)
        .stdin(Stdio::null());
    let output = mmdebstrap.output().await.map_err(io("run mmdebstrap".to_owned()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.trim().lines().collect();
        let output = lines[lines.len().saturating_sub(30)..].join("\n");
        return Err(HostImageError::Mmdebstrap { output });
    }
    std::fs::rename(&partial, &root).map_err(io(format!("rename {}", partial.display())))?;
    Ok(root)
}

/// The mirror that this machine takes the release from; none means mmdebstrap's default.
async fn mirror(suite: &str) -> Option<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"])
        .arg("Created-By: Packages")
        .stdin(Stdio::null())
        .output()
        .await
        .ok()?;
    choose_mirror(&String::from_utf8_lossy(&output.stdout), suite)
}

fn choose_mirror(targets: &str, suite: &str) -> Option<String> {
    targets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(|words| {
        match words.as_slice() {
            [uri, release, "main"] if *release == suite && uri.starts_with("http") => {
                Some((*uri).to_owned())
            }
            _ => None,
        }
    })
}

fn write_program(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

async fn import(docker: &Docker, recipe: &Recipe, root: &Path) -> Result<(), HostImageError> {
    let image = recipe.image();
    let (repository, tag) = image.rsplit_once(':').expect("a recipe's image has a tag");
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
    let act = || format!("read {}", root.display());
    let file = tokio::fs::File::open(root)
        .await
        .map_err(|source| HostImageError::Io { act: act(), source })?;
    let chunks = futures::stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let limit = u64::try_from(CHUNK_BYTES).map_err(io::Error::other)?;
        (&mut file).take(limit).read_to_end(&mut chunk).await?;
        Ok((!chunk.is_empty()).then(|| (Bytes::from(chunk), file)))
    });
    let body = bollard::body_try_stream(chunks);
    let mut progress = std::pin::pin!(docker.create_image(Some(options), Some(body), None));
    while let Some(step) = progress.next().await {
        step.map_err(|source| HostImageError::Docker {
            image: image.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(())
}

/// Takes the lock at `path`, waiting for whoever holds it; dropping the file releases it.
pub(crate) async fn lock(path: &Path) -> io::Result<File> {
    let path = path.to_path_buf();
    let locking = tokio::task::spawn_blocking(move || {
        let file = File::create(path)?;
        file.lock()?;
        Ok(file)
    });
    locking.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_mirror_is_chosen() {
        let targets = "https://x.example/foo nodistro main\n\
                       cdrom://a bookworm main\n\
                       http://mirror.example/debian/ bookworm main\n\
                       http://security.example/ bookworm-security main\n";
        assert_eq!(
            choose_mirror(targets, "bookworm").as_deref(),
            Some("http://mirror.example/debian/")
        );
        assert_eq!(choose_mirror(targets, "trixie"), None);
    }

    #[tokio::test]
    async fn a_lock_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = lock(&path).await.unwrap();
        let other = File::open(&path).unwrap();
        assert!(other.try_lock().is_err());
        drop(held);
        assert!(other.try_lock().is_ok());
    }
}
