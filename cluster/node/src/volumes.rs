//! Pod folders on the node: volumes, their files, and how they are removed again.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use kubelet::volume::{HostPathType, VolumeContent, VolumeFile, VolumeSpec};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Gid, chown};

/// Why a volume or a pod's folder is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A volume could not be written.
    #[error("{volume}")]
    Volume {
        /// The volume's name.
        volume: String,
        /// Why.
        #[source]
        source: Box<Self>,
    },
    /// A file operation failed.
    #[error("{what} {path}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is at a `hostPath` is not what the pod says.
    #[error("hostPath type check failed: {path} is not {expected}")]
    HostPath {
        /// The path.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// A volume that others make is not there.
    #[error("path {path} does not exist")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A path leads out of its volume.
    #[error("{path} leads out of its volume")]
    Escape {
        /// The path.
        path: PathBuf,
    },
    /// Something is still mounted below a folder that is to be removed.
    #[error("{path} is still mounted")]
    Mounted {
        /// Where.
        path: PathBuf,
    },
}

impl VolumeError {
    /// The error and all that caused it, volume first.
    pub fn chain(&self) -> String {
        crate::docker::chain(self)
    }
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> VolumeError + 'a {
    move |source| VolumeError::Io { what, path: path.to_owned(), source }
}

/// Writes all volumes of a pod, or brings them up to date.
///
/// # Errors
/// The first volume that cannot be written, by name.
pub fn prepare(
    folder: &Path,
    volumes: &[VolumeSpec],
    fs_group: Option<i64>,
) -> Result<(), VolumeError> {
    make_dir(folder, 0o750)?;
    for volume in volumes {
        prepare_one(volume, fs_group).map_err(|source| VolumeError::Volume {
            volume: volume.name.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(())
}

fn prepare_one(volume: &VolumeSpec, fs_group: Option<i64>) -> Result<(), VolumeError> {
    let path = Path::new(&volume.path);
    match &volume.content {
        VolumeContent::HostPath(kind) => check_host_path(path, *kind),
        VolumeContent::Local { create } => prepare_local(path, *create, fs_group),
        VolumeContent::EmptyDir { memory, size_limit } => {
            make_dir(path, 0o777)?;
            if *memory && !is_mount_point(path) {
                mount_tmpfs(path, *size_limit)?;
            }
            // What the process's umask took away.
            let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
            set_group(path, fs_group)?;
            set_mode(path, mode)
        }
        VolumeContent::Files(files) => {
            make_dir(path, 0o755)?;
            set_mode(path, 0o755)?;
            set_group(path, fs_group)?;
            write_files(path, files, fs_group)
        }
    }
}

/// Sees to a folder that outlives its pods. A new one is open to all users: which one a pod will run
/// as is not known.
fn prepare_local(path: &Path, create: bool, fs_group: Option<i64>) -> Result<(), VolumeError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            return Err(VolumeError::HostPath { path: path.to_owned(), expected: "a directory" });
        }
        Err(_) if create => {
            make_dir(path, 0o777)?;
            set_mode(path, 0o777)?;
        }
        Err(_) => return Err(VolumeError::Missing { path: path.to_owned() }),
    }
    let Some(group) = fs_group.and_then(|g| u32::try_from(g).ok()) else { return Ok(()) };
    let found = fs::metadata(path).map_err(io_error("read", path))?;
    // What a pod of this group has had already is not walked through again.
    if found.gid() == group && found.permissions().mode() & 0o2070 == 0o2070 {
        return Ok(());
    }
    give_to_group(path, group)
}

/// Lets a group read and write all that a folder holds. Links are not followed, and the folder
/// itself comes last: what was interrupted is begun again.
fn give_to_group(path: &Path, group: u32) -> Result<(), VolumeError> {
    let found = fs::symlink_metadata(path).map_err(io_error("read", path))?;
    if found.is_dir() {
        for entry in fs::read_dir(path).map_err(io_error("list", path))? {
            give_to_group(&entry.map_err(io_error("list", path))?.path(), group)?;
        }
    }
    lchown(path, None, Some(group)).map_err(io_error("chgrp", path))?;
    if found.is_symlink() {
        return Ok(());
    }
    let added = if found.is_dir() { 0o2070 } else { 0o060 };
    set_mode(path, (found.permissions().mode() & 0o7777) | added)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), VolumeError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(io_error("create", path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_error("chmod", path))
}

fn set_group(path: &Path, group: Option<i64>) -> Result<(), VolumeError> {
    let Some(group) = group.and_then(|g| u32::try_from(g).ok()) else { return Ok(()) };
    chown(path, None, Some(Gid::from_raw(group))).map_err(|e| io_error("chgrp", path)(e.into()))
}

fn mount_tmpfs(path: &Path, size_limit: Option<i64>) -> Result<(), VolumeError> {
    let options = size_limit.filter(|s| *s > 0).map(|s| format!("size={s}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())
        .map_err(|e| io_error("mount", path)(e.into()))
}

fn check_host_path(path: &Path, kind: HostPathType) -> Result<(), VolumeError> {
    let found = fs::metadata(path).ok();
    let file_type = found.as_ref().map(fs::Metadata::file_type);
    let (fits, expected) = match kind {
        HostPathType::Unset => {
            // Docker made what was missing; so do we.
            return if found.is_none() { make_dir(path, 0o755) } else { Ok(()) };
        }
        HostPathType::DirectoryOrCreate if found.is_none() => return make_dir(path, 0o755),
        HostPathType::FileOrCreate if found.is_none() => {
            fs::write(path, b"").map_err(io_error("create", path))?;
            return set_mode(path, 0o644);
        }
        HostPathType::DirectoryOrCreate | HostPathType::Directory => {
            (file_type.is_some_and(|t| t.is_dir()), "a directory")
        }
        HostPathType::FileOrCreate | HostPathType::File => {
            (file_type.is_some_and(|t| t.is_file()), "a file")
        }
        HostPathType::Socket => (file_type.is_some_and(|t| t.is_socket()), "a socket file"),
        HostPathType::CharDevice => {
            (file_type.is_some_and(|t| t.is_char_device()), "a character device")
        }
        HostPathType::BlockDevice => {
            (file_type.is_some_and(|t| t.is_block_device()), "a block device")
        }
    };
    if fits { Ok(()) } else { Err(VolumeError::HostPath { path: path.to_owned(), expected }) }
}

/// The link that is turned over to change all files at once.
const DATA: &str = "..data";

/// Writes files so that readers see all of the old or all of the new: into a fresh folder, which
/// the link `..data` is then turned to. Each file is a link through `..data`.
///
/// Source: kubernetes 1.33, `pkg/volume/util/atomic_writer.go`.
fn write_files(
    volume: &Path,
    files: &[VolumeFile],
    fs_group: Option<i64>,
) -> Result<(), VolumeError> {
    let data = volume.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && holds(&data, files) {
        return Ok(());
    }
    let number = (0_u32..).find(|n| !volume.join(version_name(*n)).exists()).unwrap_or(u32::MAX);
    let version = version_name(number);
    let fresh = volume.join(&version);
    make_dir(&fresh, 0o755)?;
    set_mode(&fresh, 0o755)?;
    for file in files {
        let path = fresh.join(&file.path);
        if let Some(parent) = path.parent() {
            make_dir(parent, 0o755)?;
        }
        fs::write(&path, &file.content).map_err(io_error("write", &path))?;
        set_group(&path, fs_group)?;
        set_mode(&path, file.mode)?;
    }
    let turning = volume.join("..data_tmp");
    let _ = fs::remove_file(&turning);
    symlink(&version, &turning).map_err(io_error("link", &turning))?;
    fs::rename(&turning, &data).map_err(io_error("rename", &data))?;
    link_entries(volume, files)?;
    if let Some(old) = old {
        let path = volume.join(old);
        fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// Whether a folder holds just these files: readers are not disturbed for nothing.
fn holds(folder: &Path, files: &[VolumeFile]) -> bool {
    fn count(folder: &Path) -> Option<usize> {
        let mut files = 0;
        for entry in fs::read_dir(folder).ok()? {
            let entry = entry.ok()?;
            let inner = entry.file_type().ok()?.is_dir().then(|| count(&entry.path()));
            files += inner.unwrap_or(Some(1))?;
        }
        Some(files)
    }
    let same = |file: &VolumeFile| {
        let path = folder.join(&file.path);
        let mode = fs::metadata(&path).map(|m| m.permissions().mode() & 0o7777);
        mode.is_ok_and(|m| m == file.mode)
            && fs::read(&path).is_ok_and(|content| content == file.content)
    };
    count(folder) == Some(files.len()) && files.iter().all(same)
}

fn version_name(number: u32) -> String {
    format!("..version-{number}")
}

/// Makes the links that readers follow and removes those of files that are gone.
fn link_entries(volume: &Path, files: &[VolumeFile]) -> Result<(), VolumeError> {
    let top = |f: &VolumeFile| f.path.split('/').next().unwrap_or_default().to_owned();
    let wanted: std::collections::BTreeSet<String> = files.iter().map(top).collect();
    for name in &wanted {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            let target = Path::new(DATA).join(name);
            symlink(target, &link).map_err(io_error("link", &link))?;
        }
    }
    for entry in fs::read_dir(volume).map_err(io_error("list", volume))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            let path = entry.path();
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

/// Resolves a path below a volume, making folders that are missing.
///
/// # Errors
/// The path leads out of the volume.
pub fn sub_path(volume: &Path, sub: &str) -> Result<PathBuf, VolumeError> {
    let base = volume.canonicalize().map_err(io_error("resolve", volume))?;
    let escape = || VolumeError::Escape { path: volume.join(sub) };
    // New folders are as open as the volume itself, and belong to its group.
    let mode = fs::metadata(&base).map_err(io_error("read", &base))?.permissions().mode();
    let mut path = base.clone();
    for part in Path::new(sub).components() {
        let Component::Normal(name) = part else {
            if part == Component::CurDir {
                continue;
            }
            return Err(escape());
        };
        path.push(name);
        if fs::symlink_metadata(&path).is_err() {
            make_dir(&path, 0o750)?;
            set_mode(&path, mode & 0o7777)?;
        }
        path = path.canonicalize().map_err(io_error("resolve", &path))?;
        if !path.starts_with(&base) {
            return Err(escape());
        }
    }
    Ok(path)
}

/// Writes a file of a pod in place: containers have it mounted.
///
/// # Errors
/// The file or its folder cannot be written.
pub fn write_pod_file(path: &Path, content: &[u8], mode: u32) -> Result<(), VolumeError> {
    if let Some(parent) = path.parent() {
        make_dir(parent, 0o750)?;
    }
    fs::write(path, content).map_err(io_error("write", path))?;
    set_mode(path, mode)
}

/// The places below `folder` where something is mounted, deepest first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|text| PathBuf::from(text.replace("\\040", " ")))
        .filter(|path| path.starts_with(folder))
        .collect();
    found.sort();
    found.reverse();
    found
}

fn is_mount_point(path: &Path) -> bool {
    mounts_below(path).iter().any(|p| p == path)
}

/// Removes all that is left of a pod. Nothing outside its folder is touched, even when parts of
/// the node are mounted in it.
///
/// # Errors
/// Something is still mounted or cannot be removed.
pub fn remove_pod_folder(root: &Path, uid: &str) -> Result<(), VolumeError> {
    let folder = child(&root.join("pods"), uid)?;
    for path in mounts_below(&folder) {
        umount2(&path, MntFlags::MNT_DETACH).map_err(|e| io_error("unmount", &path)(e.into()))?;
    }
    remove_unmounted(&folder)
}

/// Removes the folder of a provisioned volume. Nothing outside of it is touched.
///
/// # Errors
/// Something is still mounted or cannot be removed.
pub fn remove_local(root: &Path, name: &str) -> Result<(), VolumeError> {
    remove_unmounted(&child(root, name)?)
}

/// The path of an entry of a folder.
fn child(folder: &Path, name: &str) -> Result<PathBuf, VolumeError> {
    let path = folder.join(name);
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Ok(path),
        _ => Err(VolumeError::Escape { path }),
    }
}

fn remove_unmounted(folder: &Path) -> Result<(), VolumeError> {
    if let Some(path) = mounts_below(folder).into_iter().next() {
        return Err(VolumeError::Mounted { path });
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str, mode: u32) -> VolumeFile {
        VolumeFile { path: path.into(), mode, content: text.into() }
    }

    fn volume(dir: &Path, content: VolumeContent) -> VolumeSpec {
        VolumeSpec { name: "v".into(), path: dir.join("v").display().to_string(), content }
    }

    #[test]
    fn files_change_all_at_once_and_vanish_when_gone() {
        let dir = tempfile::tempdir().unwrap();
        let write = |files: Vec<VolumeFile>| {
            let spec = volume(dir.path(), VolumeContent::Files(files));
            prepare(dir.path(), &[spec], None).unwrap();
        };
        let v = dir.path().join("v");
        write(vec![file("a", "1", 0o644), file("sub/b", "2", 0o400)]);
        assert_eq!(fs::read_to_string(v.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(v.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(v.join("sub/b")).unwrap().permissions().mode() & 0o777, 0o400);
        let before = fs::read_link(v.join(DATA)).unwrap();
        write(vec![file("a", "1", 0o644), file("sub/b", "2", 0o400)]);
        assert_eq!(fs::read_link(v.join(DATA)).unwrap(), before);
        write(vec![file("a", "3", 0o644)]);
        assert_ne!(fs::read_link(v.join(DATA)).unwrap(), before);
        assert_eq!(fs::read_to_string(v.join("a")).unwrap(), "3");
        assert!(!v.join("sub").exists() && !v.join(before).exists());
    }

    #[test]
    fn host_paths_are_checked_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let check = |kind: HostPathType| {
            let spec = volume(dir.path(), VolumeContent::HostPath(kind));
            prepare(dir.path(), &[spec], None).map_err(|e| e.chain())
        };
        let error = check(HostPathType::Directory).unwrap_err();
        assert!(error.starts_with("v: hostPath type check failed: "), "{error}");
        check(HostPathType::DirectoryOrCreate).unwrap();
        check(HostPathType::Directory).unwrap();
        assert!(check(HostPathType::File).is_err());
    }

    #[test]
    fn folders_that_outlive_pods_are_made_kept_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let prepare_as = |create: bool, group: Option<i64>| {
            let spec = volume(dir.path(), VolumeContent::Local { create });
            prepare(dir.path(), &[spec], group).map_err(|e| e.chain())
        };
        let v = dir.path().join("v");
        let error = prepare_as(false, None).unwrap_err();
        assert_eq!(error, format!("v: path {} does not exist", v.display()));
        prepare_as(true, None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&v), 0o777);
        fs::write(v.join("kept"), "x").unwrap();
        set_mode(&v.join("kept"), 0o600).unwrap();
        symlink("/nowhere", v.join("link")).unwrap();
        let group = fs::metadata(&v).unwrap().gid();
        prepare_as(false, Some(i64::from(group))).unwrap();
        assert_eq!((mode(&v), mode(&v.join("kept"))), (0o2777, 0o660));
        // It is not walked through again.
        set_mode(&v.join("kept"), 0o600).unwrap();
        prepare_as(true, Some(i64::from(group))).unwrap();
        assert_eq!(mode(&v.join("kept")), 0o600);
        for bad in ["", ".", "..", "v/x", "v/", "/v"] {
            assert!(matches!(remove_local(dir.path(), bad), Err(VolumeError::Escape { .. })));
        }
        remove_local(dir.path(), "v").unwrap();
        remove_local(dir.path(), "v").unwrap();
        assert!(!v.exists());
    }

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let v = dir.path().join("v");
        fs::create_dir(&v).unwrap();
        assert!(sub_path(&v, "x/y").unwrap().is_dir());
        assert!(matches!(sub_path(&v, "../x"), Err(VolumeError::Escape { .. })));
        symlink("/etc", v.join("out")).unwrap();
        assert!(matches!(sub_path(&v, "out/passwd"), Err(VolumeError::Escape { .. })));
    }

    #[test]
    fn only_a_pods_own_folder_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pods/u1/volumes")).unwrap();
        fs::create_dir_all(dir.path().join("pods/u2")).unwrap();
        for bad in ["", "..", ".", "../pods", "u1/x"] {
            assert!(remove_pod_folder(dir.path(), bad).is_err(), "{bad}");
        }
        remove_pod_folder(dir.path(), "u1").unwrap();
        remove_pod_folder(dir.path(), "u1").unwrap();
        assert!(!dir.path().join("pods/u1").exists() && dir.path().join("pods/u2").exists());
    }
}
