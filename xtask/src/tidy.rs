//! The rules of the house that no compiler checks: who may import whom, how large a file may
//! be, and which names say nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

/// What each crate may depend on, of this workspace. A crate that is not listed may depend on
/// nothing here; `tests`, `lab` and `xtask` are not restricted.
const IMPORTS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("machine", &["api"]),
    ("registry", &["api", "machine"]),
    ("scheduler", &["api", "machine"]),
    ("controllers", &["api", "machine"]),
    ("kubelet", &["api", "machine"]),
    ("network", &["api", "machine"]),
    ("store", &["api", "registry"]),
    ("client", &["api", "machine"]),
    ("apiserver", &["api", "registry", "store"]),
    ("node", &["api", "machine", "client", "kubelet", "network"]),
    (
        "hyperkube",
        &[
            "api",
            "machine",
            "registry",
            "scheduler",
            "controllers",
            "kubelet",
            "network",
            "store",
            "apiserver",
            "client",
            "node",
        ],
    ),
    ("inventory", &[]),
    ("provisioner", &["api", "inventory"]),
    (
        "simulator",
        &["api", "inventory", "machine", "registry", "scheduler", "controllers", "kubelet"],
    ),
    ("pause", &[]),
    ("echo", &[]),
];
const UNRESTRICTED: &[&str] = &["tests", "lab", "xtask"];
/// No file of code is longer; tests and generated tables do not count.
const LINES_MAX: usize = 800;
/// Names under which anything could be.
const EMPTY_NAMES: &[&str] = &["common", "utils", "util", "helpers", "types", "manager", "misc"];

/// Checks everything and lists all that is wrong.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut faults = imports(root)?;
    let mut files = Vec::new();
    for folder in ["cluster", "provisioner", "simulator", "tests", "xtask"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    for file in &files {
        faults.extend(of_file(root, file)?);
    }
    ensure!(faults.is_empty(), "tidy found {} faults:\n  {}", faults.len(), faults.join("\n  "));
    Ok(())
}

fn imports(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let empty = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let members: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let allowed: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if UNRESTRICTED.contains(&name) {
            continue;
        }
        for dependency in package["dependencies"].as_array().unwrap_or(&empty) {
            let on = dependency["name"].as_str().unwrap_or_default();
            // Tests may use what the crate itself may not.
            let own = dependency["path"].is_string() && members.contains(on);
            if !own || dependency["kind"] == "dev" {
                continue;
            }
            if !allowed.get(name).is_some_and(|list| list.contains(&on)) {
                faults.push(format!("{name} must not import {on} (ARCHITECTURE.md)"));
            }
        }
    }
    Ok(faults)
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn of_file(root: &Path, file: &Path) -> anyhow::Result<Vec<String>> {
    let shown = file.strip_prefix(root).unwrap_or(file).display().to_string();
    let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let mut faults = Vec::new();
    if stem == "mod" {
        faults.push(format!("{shown}: name the file after its module, not mod.rs"));
    }
    if EMPTY_NAMES.contains(&stem) {
        faults.push(format!("{shown}: the name says nothing; name the concept"));
    }
    let text = std::fs::read_to_string(file)?;
    let test = stem == "tests" || shown.contains("/tests/");
    // Unit tests at the end of a file do not make it hard to find one's way in it.
    let code = text.find("#[cfg(test)]\nmod tests {").map_or(text.as_str(), |at| &text[..at]);
    let lines = code.lines().count();
    let generated = text.starts_with("// @generated") || text.contains("\n//! @generated");
    if lines > LINES_MAX && !test && !generated {
        faults.push(format!("{shown}: {lines} lines of code, more than {LINES_MAX}: split it"));
    }
    Ok(faults)
}
