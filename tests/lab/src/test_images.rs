//! The container images that tests and the demo deploy, built without a registry.
//!
//! | image | content |
//! |---|---|
//! | `kprov.local/pause:3.10` | our own `pause` |
//! | `kprov.local/echo:1`, `:2` | our own `echo`, which tells its version |
//! | `kprov.local/busybox:1` | the distribution's static busybox with its links |

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use thiserror::Error;
use tokio::process::Command;

use crate::docker_archive::{DockerArchive, Entry};

/// Where the distribution's package puts the static busybox.
const BUSYBOX: &str = "/bin/busybox";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Says why the test images could not be written.
#[derive(Debug, Error)]
pub enum TestImagesError {
    /// A program could not be started.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// The program.
        program: String,
        /// The end of what it said.
        output: String,
    },
    /// A file could not be read or written.
    #[error("cannot access {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One image on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestImage {
    /// Name and tag.
    pub name: String,
    /// The archive for `docker load`.
    pub path: PathBuf,
    /// Size of the archive, in bytes.
    pub bytes: u64,
}

/// Builds the static programs of the checkout at `root` and writes every image into `dir`.
///
/// # Errors
/// A failed build, a missing busybox, or a file that cannot be written.
pub async fn write_all(root: &Path, dir: &Path) -> Result<Vec<TestImage>, TestImagesError> {
    let programs = build_programs(root).await?;
    let file = |path: &Path| {
        let path = path.to_path_buf();
        move |source| TestImagesError::File { path, source }
    };
    fs::create_dir_all(dir).map_err(file(dir))?;
    let read = |path: &Path| fs::read(path).map_err(file(path));
    let echo = read(&programs.join("echo"))?;
    let archives = [
        pause(read(&programs.join("pause"))?),
        echo_of_version("1", echo.clone()),
        echo_of_version("2", echo),
        busybox(read(Path::new(BUSYBOX))?, &busybox_links().await?),
    ];
    let mut images = Vec::new();
    for archive in archives {
        let path = dir.join(file_name(&archive.name));
        let bytes = replace(&archive, &path).map_err(file(&path))?;
        images.push(TestImage { name: archive.name, path, bytes });
    }
    Ok(images)
}

/// The archive's file name for an image name: `echo-1.tar` for `kprov.local/echo:1`.
pub fn file_name(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    format!("{}.tar", name.replace(':', "-"))
}

/// Writes beside the file and renames, so that a reader never sees half an archive.
fn replace(archive: &DockerArchive, path: &Path) -> io::Result<u64> {
    let partial = path.with_extension("tar.partial");
    let mut output = BufWriter::new(fs::File::create(&partial)?);
    archive.write(&mut output)?;
    output.flush()?;
    let bytes = output.get_ref().metadata()?.len();
    fs::rename(&partial, path)?;
    Ok(bytes)
}

async fn build_programs(root: &Path) -> Result<PathBuf, TestImagesError> {
    let target_dir = root.join("target");
    for program in ["echo", "pause"] {
        let mut cargo = Command::new("cargo");
        // Only the last step is told to link statically, so that every crate before it is
        // shared with the other release programs.
        cargo
            .current_dir(root)
            .args(["rustc", "--quiet", "--release", "--package", program])
            .args(["--bin", program, "--target-dir"])
            .arg(&target_dir)
            .args(["--", "-C", "target-feature=+crt-static"])
            .env_remove("RUSTFLAGS");
        run(cargo).await?;
    }
    Ok(target_dir.join("release"))
}

async fn busybox_links() -> Result<Vec<String>, TestImagesError> {
    let mut busybox = Command::new(BUSYBOX);
    busybox.arg("--list-full");
    let listing = run(busybox).await?;
    Ok(listing.lines().map(str::to_owned).collect())
}

async fn run(mut command: Command) -> Result<String, TestImagesError> {
    let program = command.as_std().get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| TestImagesError::Run { program: program.clone(), source })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.trim().lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        return Err(TestImagesError::Failed { program, output: last });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn pause(program: Vec<u8>) -> DockerArchive {
    DockerArchive {
        name: "kprov.local/pause:3.10".to_owned(),
        entries: vec![Entry::File("pause".to_owned(), 0o755, program)],
        entrypoint: vec!["/pause".to_owned()],
        ..DockerArchive::default()
    }
}

fn echo_of_version(version: &str, program: Vec<u8>) -> DockerArchive {
    let mut entries = base_files();
    entries.push(Entry::Directory("bin".to_owned(), 0o755));
    entries.push(Entry::File("bin/echo".to_owned(), 0o755, program));
    entries.push(Entry::Link("echo".to_owned(), "bin/echo".to_owned()));
    DockerArchive {
        name: format!("kprov.local/echo:{version}"),
        entries,
        environment: vec![PATH.to_owned(), format!("VERSION={version}")],
        entrypoint: vec!["/echo".to_owned()],
        labels: vec![("version".to_owned(), version.to_owned())],
        ..DockerArchive::default()
    }
}

fn busybox(program: Vec<u8>, links: &[String]) -> DockerArchive {
    let mut entries = base_files();
    for directory in ["bin", "sbin", "usr", "usr/bin", "usr/sbin", "root"] {
        entries.push(Entry::Directory(directory.to_owned(), 0o755));
    }
    entries.push(Entry::File("bin/busybox".to_owned(), 0o755, program));
    for link in links.iter().filter(|link| *link != "bin/busybox") {
        entries.push(Entry::Link(link.clone(), BUSYBOX.to_owned()));
    }
    DockerArchive {
        name: "kprov.local/busybox:1".to_owned(),
        entries,
        environment: vec![PATH.to_owned()],
        command: vec!["sh".to_owned()],
        ..DockerArchive::default()
    }
}

/// Users and a scratch directory, which programs expect.
fn base_files() -> Vec<Entry> {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    let group = "root:x:0:\nnogroup:x:65534:\n";
    vec![
        Entry::Directory("etc".to_owned(), 0o755),
        Entry::File("etc/passwd".to_owned(), 0o644, passwd.as_bytes().to_vec()),
        Entry::File("etc/group".to_owned(), 0o644, group.as_bytes().to_vec()),
        Entry::Directory("tmp".to_owned(), 0o1777),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_carry_the_tag() {
        assert_eq!(file_name("kprov.local/echo:1"), "echo-1.tar");
        assert_eq!(file_name("kprov.local/pause:3.10"), "pause-3.10.tar");
    }

    #[test]
    fn the_two_versions_differ_in_nothing_but_the_version() {
        let [one, two] = ["1", "2"].map(|version| echo_of_version(version, b"x".to_vec()));
        assert_eq!(one.entries, two.entries);
        assert_ne!(one.environment, two.environment);
        assert_ne!(one.name, two.name);
    }

    #[test]
    fn busybox_is_not_linked_to_itself() {
        let links = ["bin/busybox".to_owned(), "bin/sh".to_owned()];
        let image = busybox(b"x".to_vec(), &links);
        let link = Entry::Link("bin/sh".to_owned(), "/bin/busybox".to_owned());
        assert!(image.entries.contains(&link));
        let count = image.entries.iter().filter(|entry| matches!(entry, Entry::Link(..))).count();
        assert_eq!(count, 1);
    }
}
