//! A node: a container of the host's daemon in which another daemon runs.
//!
//! Nothing is pulled for it. Its image is a handful of links that lead into the host's own root, which is mounted beside
//! them, so that its dockerd, containerd and runc are the host's. Its layers and containers lie in a volume of its own,
//! at the path that the volume has on the host; its process IDs are the host's; its socket lies in a folder that both
//! see. So whatever its daemon says of a container holds here too.
//!
//! It is privileged in all but name. Docker's own flag asks for every capability that the kernel knows, which fails where
//! root itself lacks one; this asks for those that root has.

use crate::docker::Core;
use crate::errors::{chain, daemon, host, is};
use crate::labels;
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountBindOptions, MountType, NetworkConnectRequest, NetworkDisconnectRequest,
    NetworkingConfig, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, InspectContainerOptions,
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptionsBuilder,
    StartContainerOptions, WaitContainerOptions,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use rustix::thread::{CapabilitySet, capability_is_in_bounding_set};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use throng_model::replica::NetworkSpec;
use throng_runtime::{ErrorKind, Result, RuntimeError};
use tokio::time::Instant;

/// Where a node sees the root of the host's files.
pub const ROOT: &str = "/host";
/// The folder of its socket, as the node sees it.
const SHARED: &str = "/throng";
const SOCKET: &str = "docker.sock";
/// sockaddr_un holds 108 bytes with the zero at the end (unix(7)).
const SOCKET_PATH_MOST: usize = 107;
const IMAGE: (&str, &str) = ("throng-node", "1");
/// Folders of the host in which its programs and their libraries are found.
const LINKS: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"];
const FOLDERS: [&str; 4] = ["etc", "run", "tmp", "var"];
/// How long the daemon in a node may take until it answers: many start at the same time.
const START_LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lines of a node's log that an error repeats.
const LAST_LINES: &str = "5";
/// The daemon's own log; containers' logs have limits of their own.
const LOG_SIZE: &str = "1m";
/// Runs in the node before its daemon. Control groups are mounted read-only in a container that is not privileged by
/// name; and in version 2 no group holds both processes and the groups of containers (cgroups(7)).
const PREPARE: &str = "\
for group in /sys/fs/cgroup /sys/fs/cgroup/*/; do mount -o remount,bind,rw $group 2>/dev/null; done
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p /sys/fs/cgroup/node && echo 0 >/sys/fs/cgroup/node/cgroup.procs
fi
exec dockerd \"$@\"";

/// What the host's daemon says of a node.
pub struct Found {
    pub running: bool,
    pub networks: Vec<String>,
}

/// How the nodes of one project are made on the host's daemon.
pub struct Nodes {
    pub outer: Arc<Core>,
    /// The project; part of the nodes' names.
    pub name: String,
    /// Their sockets lie below it.
    pub run: PathBuf,
    /// A folder that nodes see beside the host's root file system, for it may lie on another one.
    pub home: PathBuf,
}

impl Nodes {
    /// Name of the container and of its volume. The dot is in no project's name, so that no replica is called so.
    pub fn title(&self, ordinal: u32) -> String {
        format!("{}.node-{ordinal}", self.name)
    }

    fn folder(&self, ordinal: u32) -> PathBuf {
        self.run.join(self.title(ordinal))
    }

    /// The address of its daemon on this host.
    pub fn address(&self, ordinal: u32) -> String {
        format!("unix://{}", self.folder(ordinal).join(SOCKET).display())
    }

    fn labels(&self, ordinal: u32) -> HashMap<String, String> {
        let pairs = [
            (labels::HOME, self.outer.home.clone()),
            (labels::PROJECT, self.name.clone()),
            (labels::NODE, ordinal.to_string()),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn filters(&self) -> HashMap<String, Vec<String>> {
        let ours = [
            format!("{}={}", labels::HOME, self.outer.home),
            format!("{}={}", labels::PROJECT, self.name),
            labels::NODE.to_owned(),
        ];
        HashMap::from([("label".to_owned(), ours.to_vec())])
    }

    /// All nodes that are there, by number.
    pub async fn list(&self) -> Result<BTreeMap<u32, Found>> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&self.filters()).build();
        let listed = self.outer.api.list_containers(Some(options)).await;
        let listed =
            listed.map_err(|error| daemon(format_args!("cannot list the nodes of {}", self.name), error))?;
        let found = listed.into_iter().filter_map(|container| {
            let ordinal = container.labels?.get(labels::NODE)?.parse().ok()?;
            let networks = container.network_settings.and_then(|settings| settings.networks);
            let networks = networks.unwrap_or_default().into_keys().collect();
            let running = container.state == Some(bollard::models::ContainerSummaryStateEnum::RUNNING);
            Some((ordinal, Found { running, networks }))
        });
        Ok(found.collect())
    }

    /// Makes the node afresh, in one network at first, and waits until its daemon answers.
    pub async fn make(&self, ordinal: u32, network: &NetworkSpec) -> Result<()> {
        self.remove(ordinal).await?;
        let made = self.start(ordinal, network).await;
        if made.is_err() {
            // What a failure leaves would be taken for a node; the failure is what is told.
            let _ = self.remove(ordinal).await;
        }
        made
    }

    async fn start(&self, ordinal: u32, network: &NetworkSpec) -> Result<()> {
        let what = || format!("cannot make node {ordinal} of {}", self.name);
        self.provide_image().await?;
        let folder = self.folder(ordinal);
        if folder.join(SOCKET).as_os_str().len() > SOCKET_PATH_MOST {
            let message =
                format!("{}: the path of its socket below {} is too long", what(), folder.display());
            return Err(RuntimeError::new(ErrorKind::Invalid, message).hint(format!(
                "{SOCKET_PATH_MOST} bytes are the most; give THRONG_HOME or the project a shorter name"
            )));
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| host(format_args!("{}: {}", what(), folder.display()), error))?;
        let volume = VolumeCreateRequest {
            name: Some(self.title(ordinal)),
            labels: Some(self.labels(ordinal)),
            ..Default::default()
        };
        let volume = self.outer.order(what(), self.outer.api.create_volume(volume)).await?;
        let body = self.body(ordinal, network, &volume.mountpoint)?;
        let title = self.title(ordinal);
        let options = CreateContainerOptionsBuilder::default().name(&title).build();
        self.outer.order(what(), self.outer.api.create_container(Some(options), body)).await?;
        let started = self.outer.api.start_container(&title, None::<StartContainerOptions>);
        self.outer.order(what(), started).await?;
        self.answers(ordinal).await
    }

    /// Waits until the node's daemon answers.
    pub async fn answers(&self, ordinal: u32) -> Result<()> {
        let failed = |why: &str, log: String| {
            let message = format!("node {ordinal} of {}: {why}: {}", self.name, log.trim());
            RuntimeError::new(ErrorKind::Host, message).hint(format!(
                "see what the dockerd in it says: it needs dockerd, containerd and runc in this host's folders, and room; \
                 a {START} s limit holds for its start",
                START = START_LIMIT.as_secs()
            ))
        };
        let address = self.address(ordinal);
        let path = address.trim_start_matches("unix://");
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let api = bollard::Docker::connect_with_unix(path, 1, bollard::API_DEFAULT_VERSION);
            if let Ok(api) = api
                && api.ping().await.is_ok()
            {
                return Ok(());
            }
            if self.process(ordinal).await?.is_none() {
                return Err(failed("its daemon has ended", self.last_lines(ordinal).await));
            }
            if Instant::now() >= deadline {
                return Err(failed("its daemon does not answer", self.last_lines(ordinal).await));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn last_lines(&self, ordinal: u32) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(LAST_LINES).build();
        let lines = self.outer.api.logs(&self.title(ordinal), Some(options));
        lines.filter_map(|line| async { Some(line.ok()?.to_string()) }).collect().await
    }

    /// The first process of the node, if it runs.
    pub async fn process(&self, ordinal: u32) -> Result<Option<u32>> {
        let found = self.inspect(ordinal).await?;
        let pid = found.and_then(|found| found.state?.pid).and_then(|pid| u32::try_from(pid).ok());
        Ok(pid.filter(|pid| *pid > 0))
    }

    /// Waits until the node runs no more, or until the daemon breaks the question off.
    pub async fn ended(&self, ordinal: u32) {
        let title = self.title(ordinal);
        let mut told = pin!(self.outer.api.wait_container(&title, None::<WaitContainerOptions>));
        // How it ended makes no difference.
        let _ = told.next().await;
    }

    async fn inspect(&self, ordinal: u32) -> Result<Option<bollard::models::ContainerInspectResponse>> {
        match self.outer.api.inspect_container(&self.title(ordinal), None::<InspectContainerOptions>).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is(&error, 404) => Ok(None),
            Err(error) => Err(daemon(format_args!("cannot look at node {ordinal} of {}", self.name), error)),
        }
    }

    fn body(&self, ordinal: u32, network: &NetworkSpec, data: &str) -> Result<ContainerCreateBody> {
        let endpoint = self.endpoint(ordinal, network)?;
        let mut command = vec![format!("--host=unix://{SHARED}/{SOCKET}"), format!("--data-root={data}")];
        command.extend(
            [
                "--exec-root=/run/docker",
                "--pidfile=/run/docker.pid",
                "--group=0",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
                "--ip-masq=false",
                "--userland-proxy=false",
                "--storage-driver=overlay2",
                "--log-level=warn",
            ]
            .map(str::to_owned),
        );
        Ok(ContainerCreateBody {
            hostname: Some(format!("node-{ordinal}")),
            image: Some(format!("{}:{}", IMAGE.0, IMAGE.1)),
            labels: Some(self.labels(ordinal)),
            entrypoint: Some(["/bin/sh", "-c", PREPARE, "sh"].map(str::to_owned).to_vec()),
            cmd: Some(command),
            // With the second one dockerd and runc know that they are inside already, and load no AppArmor profile.
            env: Some(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=docker"].map(str::to_owned).to_vec()),
            host_config: Some(self.host_config(ordinal, network, data)),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network.name.clone(), endpoint)])),
            }),
            ..Default::default()
        })
    }

    fn host_config(&self, ordinal: u32, network: &NetworkSpec, data: &str) -> HostConfig {
        let title = self.title(ordinal);
        let home = Path::new(ROOT).join(self.home.strip_prefix("/").unwrap_or(&self.home));
        let unconfined = ["seccomp=unconfined", "apparmor=unconfined", "label=disable"];
        let log = HashMap::from([("max-size".to_owned(), LOG_SIZE.to_owned())]);
        HostConfig {
            network_mode: Some(network.name.clone()),
            pid_mode: Some("host".into()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            cap_add: Some(capabilities()),
            security_opt: Some(unconfined.map(str::to_owned).to_vec()),
            masked_paths: Some(vec![]),
            readonly_paths: Some(vec![]),
            device_cgroup_rules: Some(vec!["a *:* rwm".into()]),
            // A node has an address in each network because Docker gives one; it answers for none of them (ip-sysctl).
            sysctls: Some(HashMap::from([("net.ipv4.conf.all.arp_ignore".to_owned(), "8".to_owned())])),
            mounts: Some(vec![
                bind(Path::new("/"), Path::new(ROOT)),
                bind(&self.home, &home),
                bind(&self.folder(ordinal), Path::new(SHARED)),
                Mount {
                    typ: Some(MountType::VOLUME),
                    source: Some(title),
                    target: Some(data.to_owned()),
                    ..Default::default()
                },
            ]),
            tmpfs: Some(["/run", "/tmp"].map(|path| (path.to_owned(), String::new())).into()),
            log_config: Some(HostConfigLogConfig { typ: Some("json-file".into()), config: Some(log) }),
            ..Default::default()
        }
    }

    /// Fails unless the network has an address for the node.
    pub fn has_room(&self, ordinal: u32, network: &NetworkSpec) -> Result<()> {
        self.endpoint(ordinal, network).map(drop)
    }

    fn endpoint(&self, ordinal: u32, network: &NetworkSpec) -> Result<EndpointSettings> {
        let address = address(network, ordinal).ok_or_else(|| {
            let message =
                format!("network {} ({}) has no address for node {ordinal}", network.name, network.subnet);
            RuntimeError::new(ErrorKind::Invalid, message).hint(
                "each node takes one of its last addresses: give it a larger subnet, or take fewer nodes",
            )
        })?;
        let ipam_config =
            EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..Default::default() };
        Ok(EndpointSettings { ipam_config: Some(ipam_config), ..Default::default() })
    }

    /// Puts the node into the network, if it is not there yet, and returns the interface by which it is.
    pub async fn attach(&self, ordinal: u32, network: &NetworkSpec) -> Result<String> {
        let what = || format!("cannot attach node {ordinal} of {} to {}", self.name, network.name);
        if let Some(interface) = self.interface(ordinal, &network.name).await? {
            return Ok(interface);
        }
        let request = NetworkConnectRequest {
            container: self.title(ordinal),
            endpoint_config: Some(self.endpoint(ordinal, network)?),
        };
        self.outer.order(what(), self.outer.api.connect_network(&network.name, request)).await?;
        self.interface(ordinal, &network.name).await?.ok_or_else(|| host(what(), "it has no interface there"))
    }

    /// The node's interface in a network: the one that has the hardware address which the daemon names.
    async fn interface(&self, ordinal: u32, network: &str) -> Result<Option<String>> {
        let Some(found) = self.inspect(ordinal).await? else { return Ok(None) };
        let pid = found.state.and_then(|state| state.pid).unwrap_or(0);
        let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let Some(hardware) = networks.get(network).and_then(|leg| leg.mac_address.clone()) else {
            return Ok(None);
        };
        let interfaces = format!("/proc/{pid}/root/sys/class/net");
        let mut entries = std::fs::read_dir(interfaces).into_iter().flatten().flatten();
        let entry = entries.find(|entry| {
            std::fs::read_to_string(entry.path().join("address")).is_ok_and(|text| text.trim() == hardware)
        });
        Ok(entry.and_then(|entry| entry.file_name().into_string().ok()))
    }

    pub async fn detach(&self, ordinal: u32, network: &str) -> Result<()> {
        let request = NetworkDisconnectRequest { container: self.title(ordinal), force: Some(true) };
        match self.outer.api.disconnect_network(network, request).await {
            // Docker tells that it was not in there as a failure of its own.
            Err(error) if !is(&error, 404) && !chain(&error).contains("is not connected") => {
                let what = format!("cannot take node {ordinal} of {} out of {network}", self.name);
                Err(daemon(what, error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the node with all that runs in it, and its volume; fine if there is none.
    pub async fn remove(&self, ordinal: u32) -> Result<()> {
        let what = || format!("cannot remove node {ordinal} of {}", self.name);
        let title = self.title(ordinal);
        if let Some(labels) = self.inspect(ordinal).await?.and_then(|found| found.config?.labels)
            && labels.get(labels::HOME) != Some(&self.outer.home)
        {
            let message = format!("{}: Docker has a container {title} that is not throng's here", what());
            return Err(RuntimeError::new(ErrorKind::Host, message)
                .hint("see `docker ps --all`; remove that one, or give the project another name"));
        }
        let options = RemoveContainerOptionsBuilder::default().v(true).force(true).build();
        match self.outer.api.remove_container(&title, Some(options)).await {
            Err(error) if !is(&error, 404) => return Err(daemon(what(), error)),
            _ => {}
        }
        self.remove_volume(&title).await?;
        match std::fs::remove_dir_all(self.folder(ordinal)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(host(what(), error)),
            _ => Ok(()),
        }
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        let options = RemoveVolumeOptionsBuilder::default().build();
        match self.outer.api.remove_volume(name, Some(options)).await {
            Err(error) if !is(&error, 404) => Err(daemon(format_args!("cannot remove volume {name}"), error)),
            _ => Ok(()),
        }
    }

    /// Removes what the nodes had in common, and volumes of nodes that nobody has seen to their end.
    pub async fn sweep(&self) -> Result<()> {
        let options = ListVolumesOptionsBuilder::default().filters(&self.filters()).build();
        let listed = self.outer.api.list_volumes(Some(options)).await;
        let listed =
            listed.map_err(|error| daemon(format_args!("cannot list volumes of {}", self.name), error))?;
        for volume in listed.volumes.unwrap_or_default() {
            self.remove_volume(&volume.name).await?;
        }
        let image = format!("{}:{}", IMAGE.0, IMAGE.1);
        let options = RemoveImageOptionsBuilder::default().build();
        match self.outer.api.remove_image(&image, Some(options), None).await {
            // Other projects' nodes may use it.
            Err(error) if !is(&error, 404) && !is(&error, 409) => {
                tracing::warn!("image {image} stays in Docker: {}", chain(&error));
            }
            _ => {}
        }
        Ok(())
    }

    async fn provide_image(&self) -> Result<()> {
        let image = format!("{}:{}", IMAGE.0, IMAGE.1);
        let what = || format!("cannot make image {image}");
        // One after another: of two that are made at the same time one would lose its name, and stay.
        let _one = self.outer.images.lock().await;
        match self.outer.api.inspect_image(&image).await {
            Err(error) if is(&error, 404) => {}
            found => return found.map(drop).map_err(|error| daemon(what(), error)),
        }
        let archive = archive().map_err(|error| host(what(), error))?;
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(IMAGE.0).tag(IMAGE.1).build();
        let body = bollard::body_full(Bytes::from(archive));
        let answers = self.outer.patient.create_image(Some(options), Some(body), None);
        answers.try_for_each(|_| async { Ok(()) }).await.map_err(|error| daemon(what(), error))
    }
}

/// A folder of the host as it is, without what else is mounted below it: a node would hold those mounts.
fn bind(source: &Path, target: &Path) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.display().to_string()),
        bind_options: Some(MountBindOptions { non_recursive: Some(true), ..Default::default() }),
        ..Default::default()
    }
}

/// Capabilities that this host's root has, as far as the oldest daemon that is meant knows them.
fn capabilities() -> Vec<String> {
    let known =
        CapabilitySet::all().iter_names().filter(|(_, one)| one.bits() <= CapabilitySet::AUDIT_READ.bits());
    let held = known.filter(|(_, one)| capability_is_in_bounding_set(*one).unwrap_or(false));
    held.map(|(name, _)| name.to_owned()).collect()
}

/// The node's address: counted down from the network's last, where replicas come last.
fn address(network: &NetworkSpec, ordinal: u32) -> Option<Ipv4Addr> {
    let (first, last) = (u32::from(network.subnet.network()), u32::from(network.subnet.broadcast()));
    let inner = first.saturating_add(1)..last;
    let mut free = inner.rev().map(Ipv4Addr::from).filter(|address| *address != network.gateway);
    free.nth(usize::try_from(ordinal.checked_sub(1)?).ok()?)
}

/// The image: links into the host's root, and folders to mount things at.
fn archive() -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for name in LINKS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_link(&mut header, name, format!("{}/{name}", ROOT.trim_start_matches('/')))?;
    }
    for name in FOLDERS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        archive.append_data(&mut header, name, std::io::empty())?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_the_last_addresses() {
        let network = |subnet: &str, gateway: [u8; 4]| NetworkSpec {
            name: "shop_default".into(),
            subnet: subnet.parse().expect("a subnet"),
            gateway: gateway.into(),
            internal: false,
        };
        let small = network("10.1.2.0/29", [10, 1, 2, 1]);
        let all: Vec<_> = (0..8).map(|ordinal| address(&small, ordinal).map(|a| a.octets()[3])).collect();
        assert_eq!(all, [None, Some(6), Some(5), Some(4), Some(3), Some(2), None, None]);
        let turned = network("10.1.2.0/29", [10, 1, 2, 6]);
        assert_eq!(address(&turned, 1), Some([10, 1, 2, 5].into()));
        let large = network("10.0.0.0/8", [10, 0, 0, 1]);
        assert_eq!(address(&large, 1_000), Some([10, 255, 252, 23].into()));
    }

    #[test]
    fn the_image_is_nothing_but_links_and_folders() {
        let archive = archive().expect("an archive");
        assert!(archive.len() < 16 << 10);
        let mut entries = tar::Archive::new(archive.as_slice());
        let links: Vec<_> = entries
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("an entry"))
            .filter(|entry| entry.header().entry_type().is_symlink())
            .map(|entry| entry.link_name().expect("a name").expect("a target").into_owned())
            .collect();
        assert_eq!(links.len(), LINKS.len());
        assert!(links.iter().all(|target| target.starts_with("host")), "{links:?}");
    }
}
