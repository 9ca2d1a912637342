//! The packet filter that holds the service rules.

use network::iptables::{self, Abilities, Chains};
use network::{ProxyConfig, RuleChange, RuleSet, nftables};

use super::{Mode, ProxyError};
use crate::packet_filter::{self, FilterError};

/// The packet filter in use.
pub(super) enum Filter {
    Nftables,
    Iptables {
        abilities: Abilities,
        /// What was written last.
        written: Option<Chains>,
    },
}

impl Filter {
    /// Finds the packet filter to use and removes the rules that another mode left.
    pub(super) async fn choose(mode: Mode) -> Result<Self, ProxyError> {
        let filter = match mode {
            Mode::Nftables => Self::nftables()
                .await
                .map_err(|source| ProxyError::Unusable { mode: "nftables", source })?,
            Mode::Iptables => Self::iptables()
                .await
                .map_err(|source| ProxyError::Unusable { mode: "iptables", source })?,
            Mode::Auto => match Self::nftables().await {
                Ok(filter) => filter,
                Err(nftables) => {
                    tracing::info!(reason = %nftables, "nftables does not work here");
                    Self::iptables()
                        .await
                        .map_err(|iptables| ProxyError::Neither { nftables, iptables })?
                }
            },
        };
        match filter {
            Self::Nftables => drop(clean_iptables().await),
            Self::Iptables { .. } => drop(clean_nftables().await),
        }
        Ok(filter)
    }

    async fn nftables() -> Result<Self, FilterError> {
        packet_filter::nft(&nftables::probe()).await?;
        Ok(Self::Nftables)
    }

    async fn iptables() -> Result<Self, FilterError> {
        let abilities = packet_filter::iptables_abilities().await?;
        packet_filter::iptables_saved().await?;
        Ok(Self::Iptables { abilities, written: None })
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables { .. } => "iptables",
        }
    }

    /// Writes `changes`, which lead to `desired`; everything when they are `None`.
    pub(super) async fn sync(
        &mut self,
        config: &ProxyConfig,
        changes: Option<&[RuleChange]>,
        desired: &RuleSet,
    ) -> Result<(), FilterError> {
        match self {
            Self::Nftables => sync_nftables(config, changes, desired).await,
            Self::Iptables { abilities, written } => {
                let chains = Chains::new(config, *abilities, desired);
                let text = match (changes, written.take()) {
                    (Some(_), Some(current)) => chains.update(&current),
                    _ => chains.resync(&packet_filter::iptables_saved().await?),
                };
                if !text.is_empty() {
                    packet_filter::iptables_restore(*abilities, &text).await?;
                }
                *written = Some(chains);
                Ok(())
            }
        }
    }

    /// Whether the rules that were written are still there.
    pub(super) async fn is_intact(&self) -> bool {
        match self {
            Self::Nftables => packet_filter::nft_chain(nftables::TABLE, nftables::PROBED_CHAIN)
                .await
                .is_ok_and(|listing| nftables::is_intact(&listing)),
            Self::Iptables { .. } => {
                packet_filter::iptables_saved().await.is_ok_and(|saved| iptables::is_intact(&saved))
            }
        }
    }
}

async fn sync_nftables(
    config: &ProxyConfig,
    changes: Option<&[RuleChange]>,
    desired: &RuleSet,
) -> Result<(), FilterError> {
    let Some(changes) = changes else {
        return packet_filter::nft(&nftables::full(config, desired)).await;
    };
    let update = nftables::update(config, changes);
    if !update.change.is_empty() {
        packet_filter::nft(&update.change).await?;
    }
    if !update.cleanup.is_empty()
        && let Err(error) = packet_filter::nft(&update.cleanup).await
    {
        // What is left is out of use, and rewritten should it come into use again.
        tracing::warn!(%error, "chains out of use were not removed");
    }
    Ok(())
}

/// Removes the rules of both modes.
///
/// # Errors
/// The rules are there and cannot be removed.
pub async fn cleanup() -> Result<(), FilterError> {
    let nftables = clean_nftables().await;
    let iptables = clean_iptables().await;
    // A program that is not there cannot have left anything.
    for result in [nftables, iptables] {
        match result {
            Ok(()) | Err(FilterError::Run { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn clean_nftables() -> Result<(), FilterError> {
    packet_filter::nft(&nftables::cleanup()).await
}

async fn clean_iptables() -> Result<(), FilterError> {
    let text = iptables::cleanup(&packet_filter::iptables_saved().await?);
    if text.is_empty() {
        return Ok(());
    }
    packet_filter::iptables_restore(packet_filter::iptables_abilities().await?, &text).await
}
