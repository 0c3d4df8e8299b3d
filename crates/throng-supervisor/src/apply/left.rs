//! Networks that an app has left when it went, since they could not be removed.

use crate::actor::Fixed;
use crate::protocol::Refusal;
use throng_model::app::Network;
use throng_model::replica::NetworkSpec;

/// The one that is to be used again as it is. One that is to be another now is removed first, if that can be by now.
pub(super) async fn behind(
    fixed: &Fixed,
    key: &str,
    wanted: &Network,
) -> Result<Option<NetworkSpec>, Refusal> {
    let name = format!("{}_{key}", fixed.project);
    let Some(left) = fixed.runtime.left_network(&name).await? else { return Ok(None) };
    let same = wanted.subnet.is_none_or(|subnet| subnet == left.subnet)
        && wanted.gateway.is_none_or(|gateway| gateway == left.gateway)
        && wanted.internal == left.internal;
    if same {
        tracing::info!("network {name} is there already, with subnet {}", left.subnet);
        return Ok(Some(left));
    }
    fixed.runtime.remove_network(&name).await.map_err(|error| {
        let message =
            format!("network {key} was left with subnet {} and does not go: {}", left.subnet, error.message);
        Refusal { message, ..Refusal::from(error) }
    })?;
    Ok(None)
}
