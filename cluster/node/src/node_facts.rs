//! Measures the node.

use std::collections::BTreeMap;
use std::path::Path;

use bollard::Docker;
use bollard::query_parameters::ListImagesOptions;
use kubelet::RuntimeError;
use kubelet::runtime::NodeFacts;

use crate::docker::plain_error;

/// Reads what the node is and has.
///
/// # Errors
/// Docker does not answer.
pub async fn read(
    docker: &Docker,
    root_dir: &Path,
    resolv_conf: &Path,
) -> Result<NodeFacts, RuntimeError> {
    let version = docker.version().await.map_err(|e| plain_error(&e))?;
    let images = docker.list_images(None::<ListImagesOptions>).await.unwrap_or_default();
    let mut images: Vec<(Vec<String>, u64)> = images
        .into_iter()
        .filter(|i| !i.repo_tags.is_empty())
        .map(|i| (i.repo_tags, u64::try_from(i.size).unwrap_or(0)))
        .collect();
    // Largest first, as in Kubernetes.
    images.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let memory = meminfo(&text("/proc/meminfo"));
    let (disk_bytes, disk_available_bytes) = disk(root_dir);
    let machine_id = line("/etc/machine-id");
    Ok(NodeFacts {
        cpus: std::thread::available_parallelism()
            .map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
        memory_bytes: memory.0,
        memory_available_bytes: memory.1,
        disk_bytes,
        disk_available_bytes,
        pids_available: pids(),
        system_uuid: Some(line("/sys/class/dmi/id/product_uuid"))
            .filter(|u| !u.is_empty())
            .unwrap_or_else(|| machine_id.clone()),
        machine_id,
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        os_image: os_image(&text("/etc/os-release")),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        runtime_version: format!("docker://{}", version.version.unwrap_or_default()),
        resolv_conf: std::fs::read_to_string(resolv_conf).unwrap_or_default(),
        images,
        // There are no device plugins that could tell of any.
        devices: BTreeMap::new(),
    })
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn line(path: &str) -> String {
    text(path).trim().to_owned()
}

/// Total and available bytes.
fn meminfo(text: &str) -> (u64, u64) {
    let of = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    (of("MemTotal:"), of("MemAvailable:"))
}

fn os_image(text: &str) -> String {
    let value = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    value.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// Bytes and free bytes of the file system that holds `path`.
fn disk(path: &Path) -> (u64, u64) {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return (0, 0) };
    let block = stat.fragment_size();
    (stat.blocks() * block, stat.blocks_available() * block)
}

/// Processes that may still be started.
fn pids() -> u64 {
    let max: u64 = line("/proc/sys/kernel/pid_max").parse().unwrap_or(32_768);
    // The fourth field is `running/all`.
    let loadavg = line("/proc/loadavg");
    let used = loadavg.split(' ').nth(3).and_then(|f| f.split('/').nth(1)?.parse::<u64>().ok());
    max.saturating_sub(used.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel() {
        assert_eq!(
            meminfo("MemTotal: 2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\n"),
            (2 << 20, 1 << 20)
        );
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        assert!(pids() > 0 && disk(Path::new("/")).0 > 0);
    }
}
