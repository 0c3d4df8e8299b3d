//! A Docker daemon for a measurement, and what is asked of it over its socket.

use super::children::Children;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;
use throng_dockerd::{Dockerd, Options, request};

/// Of its bridge and control group.
const NAME: &str = "thr-bench";
/// Room for a thousand containers.
const BRIDGE_ADDRESS: &str = "10.198.0.1/22";

pub struct Docker {
    daemon: Dockerd,
}

/// What a container is made of.
pub struct Image<'a> {
    pub name: &'a str,
    pub arguments: &'a [&'a str],
}

impl Docker {
    /// Starts the daemon with everything of it below `folder`, whose path must be short enough for sockets.
    pub fn start(children: &Children, folder: &Path) -> Result<Docker> {
        let options = Options { folder, name: NAME, bridge: BRIDGE_ADDRESS };
        let stopped = || children.check().is_err();
        let started = Dockerd::start_unless(&options, stopped);
        // That somebody has stopped it is said as such.
        children.check()?;
        Ok(Docker { daemon: started? })
    }

    /// The daemon's address, as DOCKER_HOST takes it.
    pub fn host(&self) -> String {
        self.daemon.host()
    }

    /// Takes an image in that `throng save` has written.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let bytes = std::fs::read(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        let (status, text) = request(&self.daemon.socket(), "POST", "/images/load?quiet=1", &bytes)?;
        if status != 200 || text.contains("errorDetail") {
            bail!("dockerd does not load the image ({status}): {}", text.trim());
        }
        Ok(())
    }

    /// Makes a container without health checks and starts it, as `docker run -d` does.
    pub fn run(&self, image: &Image<'_>) -> Result<String> {
        let container = json!({
            "Image": image.name,
            "Cmd": image.arguments,
            "Healthcheck": {"Test": ["NONE"]},
        });
        let made = self.ask("POST", "/containers/create", &container)?;
        let id = made["Id"].as_str().context("dockerd names no new container")?.to_owned();
        self.ask("POST", &format!("/containers/{id}/start"), &Value::Null)?;
        Ok(id)
    }

    pub fn address(&self, container: &str) -> Result<Ipv4Addr> {
        let found = self.ask("GET", &format!("/containers/{container}/json"), &Value::Null)?;
        address_in(&found).with_context(|| format!("container {container} has no address"))
    }

    /// All containers, running or not.
    pub fn containers(&self) -> Result<Vec<String>> {
        let all = self.ask("GET", "/containers/json?all=1", &Value::Null)?;
        let ids = all.as_array().into_iter().flatten().filter_map(|container| container["Id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// Kills the container and removes it.
    pub fn remove(&self, container: &str) -> Result<()> {
        self.ask("DELETE", &format!("/containers/{container}?force=1"), &Value::Null).map(drop)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (status, text) = request(&self.daemon.socket(), method, path, &bytes)?;
        if !(200..300).contains(&status) {
            bail!("dockerd refuses {method} {path} ({status}): {}", text.trim());
        }
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }
}

/// The address on the bridge, where older and newer daemons say it.
fn address_in(container: &Value) -> Option<Ipv4Addr> {
    let settings = &container["NetworkSettings"];
    let networks = settings["Networks"].as_object().into_iter().flat_map(|networks| networks.values());
    std::iter::once(settings).chain(networks).find_map(|place| place["IPAddress"].as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_where_either_daemon_says_them() {
        let expected = Some(Ipv4Addr::new(10, 198, 0, 2));
        let old = json!({"NetworkSettings": {"IPAddress": "10.198.0.2", "Networks": {}}});
        let new = json!({"NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.198.0.2"}}}});
        assert_eq!((address_in(&old), address_in(&new)), (expected, expected));
        assert_eq!(address_in(&json!({"NetworkSettings": {"IPAddress": ""}})), None);
    }
}
