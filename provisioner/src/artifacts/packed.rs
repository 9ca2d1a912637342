//! The image of `hyperkube`, made of the program itself: the same program gives the same bytes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::json;
use tar::{Builder, Header};

use super::{ArtifactError, images};
use crate::digest::Digest;
use crate::distribution::Architecture;
use crate::state::{Blob, ImageState};

/// The name of every such image; the tag is the program's digest, so that pods of another program
/// are other pods.
const NAME: &str = "kprov.local/hyperkube";
/// 2020-01-01: a time that no tool takes for "unset".
const MTIME: u64 = 1_577_836_800;
const CREATED: &str = "2020-01-01T00:00:00Z";

/// The image's name for a program.
pub(super) fn reference(program: &Blob) -> String {
    format!("{NAME}:{}", program.sha256.short())
}

/// The image of `program`, kept in `cache` under the program's digest.
///
/// # Errors
/// When the program cannot be read or the cache cannot be written.
pub(super) fn image(program: &Blob, cache: &Path) -> Result<ImageState, ArtifactError> {
    let wanted = reference(program);
    let path = cache.join(format!("hyperkube-{}.tar", program.sha256));
    let known = images(&path).ok().and_then(|found| found.into_iter().next());
    if let Some(image) = known.filter(|image| image.reference == wanted) {
        return Ok(image);
    }
    let failed = |source| ArtifactError::Write {
        what: "the image of hyperkube".to_owned(),
        path: path.clone(),
        source,
    };
    if needs_interpreter(&program.source).map_err(failed)? {
        return Err(ArtifactError::Dynamic { path: program.source.clone() });
    }
    fs::create_dir_all(cache).map_err(failed)?;
    let mut partial = tempfile::NamedTempFile::new_in(cache).map_err(failed)?;
    write(program, &wanted, partial.as_file_mut()).map_err(failed)?;
    partial.persist(&path).map_err(|error| failed(error.error))?;
    images(&path)?.into_iter().next().ok_or_else(|| ArtifactError::Image {
        what: "the image of hyperkube".to_owned(),
        path: path.clone(),
        reason: "it is empty".to_owned(),
    })
}

/// Whether a program is started by another one (`ld.so`), which is in no image of one file.
///
/// Source: System V ABI, ELF-64 header and program headers, both little-endian here.
fn needs_interpreter(program: &Path) -> io::Result<bool> {
    /// A program header that names the interpreter.
    const PT_INTERP: u32 = 3;
    let mut file = File::open(program)?;
    let mut header = [0_u8; 64];
    if file.read_exact(&mut header).is_err() || !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(false);
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |all, b| all << 8 | u64::from(*b));
    let (offset, size, count) =
        (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
    for index in 0..count {
        let mut kind = [0_u8; 4];
        file.seek(SeekFrom::Start(offset.saturating_add(index * size)))?;
        file.read_exact(&mut kind)?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

fn write(program: &Blob, name: &str, out: &mut File) -> io::Result<()> {
    let mut layer = Builder::new(tempfile::tempfile()?);
    let mut bytes = File::open(&program.source)?;
    append(&mut layer, "hyperkube", 0o755, program.len, &mut bytes)?;
    let mut layer = layer.into_inner()?;
    let len = layer.stream_position()?;
    layer.seek(SeekFrom::Start(0))?;
    let (diff_id, _) = Digest::of_reader(&mut layer)?;
    layer.seek(SeekFrom::Start(0))?;
    let config = json!({
        "architecture": architecture(program),
        "os": "linux",
        "created": CREATED,
        "config": { "Entrypoint": ["/hyperkube"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
        "history": [{ "created": CREATED, "created_by": "kprov" }],
    })
    .to_string();
    let config_path = format!("{}.json", Digest::of(config.as_bytes()));
    let layer_path = format!("{diff_id}.tar");
    let manifest =
        json!([{ "Config": config_path, "RepoTags": [name], "Layers": [layer_path] }]).to_string();
    let mut archive = Builder::new(out);
    for (path, text) in [("manifest.json", &manifest), (config_path.as_str(), &config)] {
        append(&mut archive, path, 0o644, text.len() as u64, &mut text.as_bytes())?;
    }
    append(&mut archive, &layer_path, 0o644, len, &mut layer)?;
    archive.into_inner()?.flush()
}

/// The word that images have for it.
fn architecture(program: &Blob) -> &'static str {
    match program.architecture {
        Some(Architecture::Aarch64) => "arm64",
        _ => "amd64",
    }
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    path: &str,
    mode: u32,
    len: u64,
    bytes: &mut dyn Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(mode);
    header.set_size(len);
    archive.append_data(&mut header, path, bytes.take(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_program_is_one_image_and_another_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let blob = |text: &str| {
            let source = dir.path().join(text);
            fs::write(&source, text).unwrap();
            let (sha256, len) = (Digest::of(text.as_bytes()), text.len() as u64);
            Blob { sha256, len, source, architecture: None, version: None }
        };
        let (one, two) = (blob("one"), blob("two"));
        let first = image(&one, &dir.path().join("a")).unwrap();
        assert_eq!(first.reference, format!("kprov.local/hyperkube:{}", one.sha256.short()));
        assert_eq!(
            image(&one, &dir.path().join("b")).unwrap().archive.sha256,
            first.archive.sha256
        );
        let second = image(&two, &dir.path().join("a")).unwrap();
        assert!(second.id != first.id && second.reference != first.reference);
        // It is made once, and made again when somebody has damaged it.
        fs::remove_file(&one.source).unwrap();
        assert_eq!(image(&one, &dir.path().join("a")).unwrap(), first);
        fs::write(&first.archive.source, "nonsense").unwrap();
        assert!(image(&one, &dir.path().join("a")).is_err(), "the program is gone");
    }

    #[test]
    fn a_program_that_needs_another_one_is_refused() {
        // This test is one, where it is not linked as what is released.
        let own = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut header = vec![0_u8; 64 + 2 * 56];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (header[32], header[54], header[56]) = (64, 56, 2);
        header[64 + 56] = 3;
        let source = dir.path().join("dynamic");
        fs::write(&source, &header).unwrap();
        assert!(needs_interpreter(&source).unwrap());
        let program = Blob {
            sha256: Digest::of(&header),
            len: 176,
            source,
            architecture: None,
            version: None,
        };
        let error = image(&program, dir.path()).unwrap_err().to_string();
        assert!(error.contains("is linked dynamically"), "{error}");
        header[64 + 56] = 1;
        fs::write(&program.source, &header).unwrap();
        assert!(!needs_interpreter(&program.source).unwrap());
        assert_eq!(needs_interpreter(&own).unwrap(), !cfg!(target_feature = "crt-static"));
    }

    #[test]
    fn docker_finds_the_program_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("hyperkube");
        fs::write(&source, "program").unwrap();
        let program = Blob {
            sha256: Digest::of(b"program"),
            len: 7,
            source,
            architecture: None,
            version: None,
        };
        let image = image(&program, dir.path()).unwrap();
        let mut archive = tar::Archive::new(File::open(&image.archive.source).unwrap());
        let mut layer = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap().extension().is_some_and(|end| end == "tar") {
                entry.read_to_end(&mut layer).unwrap();
            }
        }
        let mut layer = tar::Archive::new(layer.as_slice());
        let mut files = layer.entries().unwrap();
        let mut file = files.next().unwrap().unwrap();
        let header = file.header().clone();
        assert_eq!((header.mode().unwrap(), header.uid().unwrap()), (0o755, 0));
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((file.path().unwrap().to_str(), text.as_str()), (Some("hyperkube"), "program"));
        assert!(files.next().is_none());
    }
}
