//! `kprov man`: manual pages from the command line's own description.

use std::path::Path;

use clap::CommandFactory as _;

use super::output::{Console, Failure};
use super::{Cli, Exit};

pub(super) fn run(directory: &Path, console: &Console) -> Result<Exit, Failure> {
    let pages = pages(directory)
        .map_err(|error| Failure::new(&error, format!("check {}", directory.display())))?;
    console.result(&pages, || pages.iter().map(|page| format!("{page}\n")).collect())
}

/// Writes `kprov.1` and a page a command; gives their names.
fn pages(directory: &Path) -> std::io::Result<Vec<String>> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("kprov") && name.ends_with(".1") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let scratch = tempfile::tempdir().unwrap();
        let names = pages(scratch.path()).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = format!("kprov-{}.1", command.get_name());
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        let text = std::fs::read_to_string(scratch.path().join("kprov-apply.1")).unwrap();
        assert!(text.contains("allow") && text.contains("SYNOPSIS"), "{text}");
    }
}
