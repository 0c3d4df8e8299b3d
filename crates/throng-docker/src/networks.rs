//! Networks of the daemon: bridges with our subnets.

use crate::docker::Core;
use crate::errors::{daemon, is};
use crate::labels;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptionsBuilder};
use std::collections::HashMap;
use std::path::PathBuf;
use throng_model::replica::NetworkSpec;
use throng_runtime::{ErrorKind, Result, RuntimeError};

/// How containers are put into a network.
pub enum Link {
    /// By ports of a bridge of the network's own, which has the gateway's address.
    Bridge,
    /// By interfaces of their own on top of this one, which leads to where the gateway is.
    Macvlan(String),
}

impl Core {
    pub async fn make_network(&self, network: &NetworkSpec, link: &Link) -> Result<()> {
        match self.subnet_of(&network.name).await? {
            Some(there) if there == (network.subnet.to_string(), network.gateway.to_string()) => {}
            Some((subnet, _)) => {
                let message = format!("network {} exists with subnet {subnet}", network.name);
                return Err(RuntimeError::new(ErrorKind::Invalid, message)
                    .hint("take the project down first, or give the network another name"));
            }
            None => self.new_network(network, link).await?,
        }
        self.write_resolver(network)
    }

    async fn new_network(&self, network: &NetworkSpec, link: &Link) -> Result<()> {
        let (project, _) = network.name.rsplit_once('_').unwrap_or((&network.name, ""));
        let labels = [(labels::HOME, self.home.clone()), (labels::PROJECT, project.to_owned())];
        let config = IpamConfig {
            subnet: Some(network.subnet.to_string()),
            gateway: Some(network.gateway.to_string()),
            ..Default::default()
        };
        let (driver, parent) = match link {
            Link::Bridge => ("bridge", None),
            Link::Macvlan(parent) => ("macvlan", Some(parent)),
        };
        let request = NetworkCreateRequest {
            name: network.name.clone(),
            driver: Some(driver.into()),
            options: parent.map(|parent| HashMap::from([("parent".to_owned(), parent.clone())])),
            internal: Some(network.internal),
            ipam: Some(Ipam { config: Some(vec![config]), ..Default::default() }),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ..Default::default()
        };
        let made = self.api.create_network(request).await;
        made.map(drop).map_err(|error| daemon(format_args!("cannot make network {}", network.name), error))
    }

    /// Subnet and gateway of a network of the daemon, as it writes them.
    async fn subnet_of(&self, name: &str) -> Result<Option<(String, String)>> {
        Ok(self.look_at(name).await?.map(written))
    }

    async fn look_at(&self, name: &str) -> Result<Option<NetworkInspect>> {
        match self.api.inspect_network(name, None::<InspectNetworkOptions>).await {
            Err(error) if is(&error, 404) => Ok(None),
            found => {
                found.map(Some).map_err(|error| daemon(format_args!("cannot look at network {name}"), error))
            }
        }
    }

    /// A network that bears this home's label. Before it removes one, dockerd 20.10 counts who is in it and is wrong at
    /// times, when many have just left; then it refuses, and the network stays until that daemon is restarted.
    pub async fn left_network(&self, name: &str) -> Result<Option<NetworkSpec>> {
        let Some(found) = self.look_at(name).await? else { return Ok(None) };
        let ours = found.labels.as_ref().and_then(|labels| labels.get(labels::HOME)) == Some(&self.home);
        let internal = found.internal.unwrap_or(false);
        let (subnet, gateway) = written(found);
        let spec = subnet.parse().ok().zip(gateway.parse().ok()).filter(|_| ours);
        Ok(spec.map(|(subnet, gateway)| NetworkSpec { name: name.to_owned(), subnet, gateway, internal }))
    }

    pub async fn unmake_network(&self, name: &str) -> Result<()> {
        if let Some(id) = self.attached(name) {
            return Err(in_use(name, &id.to_string()));
        }
        // Containers that have not started hold no address, so the daemon alone would let the network go.
        let filters = HashMap::from([("network", vec![name])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.api.list_containers(Some(options)).await;
        let listed = listed.map_err(|error| daemon(format_args!("cannot list users of {name}"), error))?;
        if let Some(other) = listed.first() {
            let names = other.names.as_deref().unwrap_or_default();
            return Err(in_use(
                name,
                names.first().map_or("a container", |name| name.trim_start_matches('/')),
            ));
        }
        match self.api.remove_network(name).await {
            Err(error) if !is(&error, 404) => {
                return Err(daemon(format_args!("cannot remove network {name}"), error));
            }
            _ => {}
        }
        if self.all().is_empty() {
            self.let_images_go().await;
        }
        match std::fs::remove_file(self.resolver(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(crate::errors::host(format_args!("cannot forget network {name}"), error))
            }
            _ => Ok(()),
        }
    }

    /// The resolv.conf(5) of replicas whose first network this is.
    pub fn resolver(&self, network: &str) -> PathBuf {
        self.folder.join(format!(".resolv-{network}"))
    }

    fn write_resolver(&self, network: &NetworkSpec) -> Result<()> {
        let path = self.resolver(&network.name);
        let text = format!("nameserver {}\n", network.gateway);
        // Containers hold the file itself, so that it is only written where it is missing or differs.
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        std::fs::write(&path, text)
            .map_err(|error| crate::errors::host(format_args!("cannot write {}", path.display()), error))
    }
}

fn written(network: NetworkInspect) -> (String, String) {
    let config = network.ipam.and_then(|ipam| ipam.config?.into_iter().next()).unwrap_or_default();
    (config.subnet.unwrap_or_default(), config.gateway.unwrap_or_default())
}

pub fn in_use(name: &str, by: &str) -> RuntimeError {
    RuntimeError::new(ErrorKind::Invalid, format!("network {name} is in use by {by}"))
        .hint("remove its replicas first")
}
