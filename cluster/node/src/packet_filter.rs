//! Runs `nft` and iptables: the only two programs that change packet filters here.

use network::iptables::{Abilities, Saved};

use crate::program::run;

pub use crate::program::ProgramError as FilterError;

/// Carries out one transaction of nftables.
pub(crate) async fn nft(text: &str) -> Result<(), FilterError> {
    run("nft", &["-f", "-"], Some(text)).await.map(drop)
}

/// Lists a chain of nftables.
pub(crate) async fn nft_chain(table: &str, chain: &str) -> Result<String, FilterError> {
    let (family, name) = table.split_once(' ').unwrap_or(("ip", table));
    run("nft", &["list", "chain", family, name, chain], None).await
}

/// What iptables holds.
pub(crate) async fn iptables_saved() -> Result<Saved, FilterError> {
    Ok(Saved::parse(&run("iptables-save", &[], None).await?))
}

/// What iptables can do.
pub(crate) async fn iptables_abilities() -> Result<Abilities, FilterError> {
    Ok(Abilities::of_version(&run("iptables", &["--version"], None).await?))
}

/// Changes the chains that the text names, and no others.
pub(crate) async fn iptables_restore(abilities: Abilities, text: &str) -> Result<(), FilterError> {
    // Waiting for the lock came with the same version as `--random-fully`.
    let arguments: &[&str] =
        if abilities.random_fully { &["--noflush", "-w", "5"] } else { &["--noflush"] };
    run("iptables-restore", arguments, Some(text)).await.map(drop)
}
