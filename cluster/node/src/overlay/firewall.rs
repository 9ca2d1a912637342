//! Lets pod traffic through the host's packet filter.

use network::overlay_firewall::{self, OverlayFirewall};

use crate::packet_filter::{self, FilterError};

/// Puts the rules in place: with iptables where there is one, because that is where Docker
/// drops what it does not know; else with nftables.
pub(super) async fn ensure(firewall: &OverlayFirewall) -> Result<(), FilterError> {
    let saved = match packet_filter::iptables_saved().await {
        Ok(saved) => saved,
        Err(FilterError::Run { .. }) => return ensure_nftables(firewall).await,
        Err(error) => return Err(error),
    };
    let abilities = packet_filter::iptables_abilities().await?;
    let text = firewall.iptables(&saved, abilities);
    if text.is_empty() {
        return Ok(());
    }
    packet_filter::iptables_restore(abilities, &text).await?;
    tracing::info!(network = %firewall.network, "pod traffic is let through");
    Ok(())
}

async fn ensure_nftables(firewall: &OverlayFirewall) -> Result<(), FilterError> {
    let table = overlay_firewall::NFTABLES_TABLE;
    if packet_filter::nft_chain(table, overlay_firewall::NFTABLES_CHAIN)
        .await
        .is_ok_and(|listing| firewall.is_intact(&listing))
    {
        return Ok(());
    }
    packet_filter::nft(&firewall.nftables()).await?;
    tracing::info!(network = %firewall.network, "pod traffic is masqueraded");
    Ok(())
}

/// Removes the rules.
///
/// # Errors
/// The rules are there and cannot be removed.
pub async fn cleanup() -> Result<(), FilterError> {
    match packet_filter::iptables_saved().await {
        Ok(saved) => {
            let text = overlay_firewall::iptables_cleanup(&saved);
            if !text.is_empty() {
                let abilities = packet_filter::iptables_abilities().await?;
                packet_filter::iptables_restore(abilities, &text).await?;
            }
        }
        // A program that is not there cannot have left anything.
        Err(FilterError::Run { .. }) => {}
        Err(error) => return Err(error),
    }
    match packet_filter::nft(&OverlayFirewall::nftables_cleanup()).await {
        Err(FilterError::Run { .. }) => Ok(()),
        result => result,
    }
}
