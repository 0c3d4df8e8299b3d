//! What replicas run on: this project's own engine, or a Docker daemon of this host.

use crate::names::Directory;
use crate::paths::Paths;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use throng_docker::{Docker, DockerOptions, Names, Nested, NestedOptions};
use throng_engine::dns::{self, DnsServer};
use throng_engine::{Engine, EngineOptions, Isolation, IsolationChoice};
use throng_image::Store;
use throng_model::replica::NetworkSpec;
use throng_proxy::Dial;
use throng_runtime::{Runtime, RuntimeError};

/// What an app's replicas run on, for as long as the app is up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "back_end")]
pub enum On {
    /// The embedded engine.
    #[default]
    Local,
    Docker {
        /// The daemon's socket, as in `unix:///var/run/docker.sock`.
        host: String,
        /// Daemons of their own inside that one, over which replicas are spread; 0: the daemon itself runs them.
        #[serde(default)]
        nodes: u32,
    },
}

/// What somebody asks an app to run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Local,
    /// Which daemon and how many nodes, as far as it was said; otherwise what the app runs on, or Docker's usual daemon
    /// without nodes.
    Docker {
        host: Option<String>,
        nodes: Option<u32>,
    },
}

impl std::fmt::Display for On {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            On::Local => f.write_str("local"),
            On::Docker { host, nodes } => write!(f, "docker ({})", place(host, *nodes)),
        }
    }
}

/// A daemon in words for people.
fn place(host: &str, nodes: u32) -> String {
    match nodes {
        0 => host.to_owned(),
        1 => format!("{host}, 1 node"),
        _ => format!("{host}, {nodes} nodes"),
    }
}

impl On {
    /// What is kept beside a project's state, if its replicas are not in folders of the engine: the daemon's address, and
    /// on a second line the number of nodes.
    pub fn record(&self) -> Option<String> {
        match self {
            On::Local => None,
            On::Docker { host, nodes: 0 } => Some(host.clone()),
            On::Docker { host, nodes } => Some(format!("{host}\n{nodes}\n")),
        }
    }

    /// Reads what [`On::record`] has written.
    pub fn of_record(text: &str) -> On {
        let mut lines = text.lines();
        let host = lines.next().unwrap_or_default().to_owned();
        On::Docker { host, nodes: lines.next().and_then(|line| line.parse().ok()).unwrap_or(0) }
    }

    /// What an app is to run on, given what it runs on already. Fails with that if it is something else.
    pub fn settle(asked: Option<&Asked>, recorded: Option<On>) -> Result<On, On> {
        match (asked, recorded) {
            (None, recorded) => Ok(recorded.unwrap_or_default()),
            (Some(Asked::Local), None | Some(On::Local)) => Ok(On::Local),
            (Some(Asked::Docker { host, nodes }), None) => Ok(On::Docker {
                host: host.clone().unwrap_or_else(throng_docker::default_host),
                nodes: nodes.unwrap_or(0),
            }),
            (Some(Asked::Docker { host, nodes }), Some(On::Docker { host: known, nodes: there }))
                if host.as_ref().is_none_or(|host| *host == known)
                    && nodes.is_none_or(|nodes| nodes == there) =>
            {
                Ok(On::Docker { host: known, nodes: there })
            }
            (Some(_), Some(other)) => Err(other),
        }
    }
}

/// The runtime of one supervisor, and what else differs between them.
pub enum Backend {
    Local(Arc<Engine>),
    Docker {
        docker: Arc<Docker>,
        /// The daemons inside it that run the replicas, if it does not run them itself.
        nested: Option<Arc<Nested>>,
        /// Answers for names at the gateways of Docker's networks; `None` where this user may not.
        names: Option<Arc<Engine>>,
    },
}

impl Backend {
    pub async fn open(
        on: &On,
        project: &str,
        isolation: IsolationChoice,
        paths: &Paths,
        store: &Arc<Store>,
    ) -> Result<Backend, RuntimeError> {
        let engine = |isolation| {
            Engine::open(EngineOptions { state_dir: paths.engine(), run_dir: paths.run.clone(), isolation })
        };
        let On::Docker { host, nodes } = on else { return Ok(Backend::Local(engine(isolation)?)) };
        // Port 53 is root's (ip(7), net.ipv4.ip_unprivileged_port_start).
        let root = rustix::process::geteuid().is_root();
        let docker = Docker::open(DockerOptions {
            host: host.clone(),
            folder: paths.docker(),
            store: store.clone(),
            names: if root { Names::Gateway } else { Names::Docker },
        });
        let docker = docker.await?;
        let nested = (*nodes > 0).then(|| {
            Nested::open(NestedOptions {
                outer: docker.clone(),
                name: project.to_owned(),
                nodes: *nodes,
                run: paths.run.clone(),
                home: paths.data.clone(),
            })
        });
        let nested = nested.transpose()?;
        let names = root.then(|| engine(IsolationChoice::Container)).transpose()?;
        Ok(Backend::Docker { docker, nested, names })
    }

    pub fn runtime(&self) -> Arc<dyn Runtime> {
        match self {
            Backend::Local(engine) => engine.clone(),
            Backend::Docker { nested: Some(nested), .. } => nested.clone(),
            Backend::Docker { docker, .. } => docker.clone(),
        }
    }

    /// In words for people, with the daemon's version.
    pub fn on(&self) -> String {
        match self {
            Backend::Local(_) => "local".into(),
            Backend::Docker { docker, nested, .. } => {
                let nodes = nested.as_ref().map_or(0, |nested| nested.nodes());
                format!("docker {} ({})", docker.version(), place(docker.host(), nodes))
            }
        }
    }

    /// `container`, `container (rootless)` or `process`.
    pub fn isolation(&self) -> &'static str {
        match self {
            Backend::Local(engine) => match engine.isolation() {
                Isolation::Container { rootless: false } => "container",
                Isolation::Container { rootless: true } => "container (rootless)",
                Isolation::Process => "process",
            },
            Backend::Docker { .. } => "container",
        }
    }

    /// One line about what this way of running lacks; `None` when nothing is lost.
    pub fn lost(&self) -> Option<String> {
        match self {
            Backend::Local(engine) => engine.lost(),
            Backend::Docker { docker, .. } => docker.lost(),
        }
    }

    pub fn limits_enforced(&self) -> bool {
        match self {
            Backend::Local(engine) => engine.limits_enforced(),
            Backend::Docker { .. } => true,
        }
    }

    /// Whether replicas have addresses of the host's own loopback.
    pub fn on_loopback(&self) -> bool {
        matches!(self, Backend::Local(engine) if *engine.isolation() == Isolation::Process)
    }

    /// Sockets from which replicas can be reached, whatever network namespace they are in.
    pub fn dial(&self) -> Dial {
        match self {
            Backend::Local(engine) => {
                let engine = engine.clone();
                Arc::new(move || engine.tcp_socket())
            }
            Backend::Docker { .. } => Arc::new(Docker::tcp_socket),
        }
    }

    /// Listens inside a network at an address that no replica has; `None` where names do not lead there.
    pub async fn listen_inside(
        &self,
        network: &NetworkSpec,
        address: Ipv4Addr,
        port: u16,
    ) -> Option<std::io::Result<TcpListener>> {
        let engine = match self {
            Backend::Local(engine) => Some(engine),
            Backend::Docker { names, .. } => names.as_ref(),
        };
        match engine?.service_listener(network, address, port).await {
            Ok(listener) => listener,
            Err(error) => Some(Err(std::io::Error::other(error.to_string()))),
        }
    }

    /// Starts answering names on a network that has no name server yet; `None` where the back end answers itself.
    pub async fn serve_names(
        &self,
        network: &NetworkSpec,
        directory: &Arc<Directory>,
    ) -> Result<Option<DnsServer>, RuntimeError> {
        let engine = match self {
            Backend::Local(engine) => Some(engine),
            Backend::Docker { names, .. } => names.as_ref(),
        };
        let Some(engine) = engine else { return Ok(None) };
        dns::serve(engine, network, directory.clone()).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_stays_where_it_is() {
        let docker = |host: &str| On::Docker { host: host.into(), nodes: 0 };
        let nested = |nodes| On::Docker { host: "a".into(), nodes };
        let asked = |host: Option<&str>| Some(Asked::Docker { host: host.map(str::to_owned), nodes: None });
        let with = |nodes| Some(Asked::Docker { host: Some("a".into()), nodes: Some(nodes) });
        for (asked, recorded, expected) in [
            (None, None, Ok(On::Local)),
            (None, Some(docker("a")), Ok(docker("a"))),
            (Some(Asked::Local), None, Ok(On::Local)),
            (Some(Asked::Local), Some(On::Local), Ok(On::Local)),
            (Some(Asked::Local), Some(docker("a")), Err(docker("a"))),
            (asked(Some("b")), None, Ok(docker("b"))),
            (asked(None), Some(docker("a")), Ok(docker("a"))),
            (asked(Some("a")), Some(docker("a")), Ok(docker("a"))),
            (asked(Some("b")), Some(docker("a")), Err(docker("a"))),
            (asked(None), Some(On::Local), Err(On::Local)),
            (with(2), None, Ok(nested(2))),
            (asked(None), Some(nested(2)), Ok(nested(2))),
            (with(2), Some(nested(2)), Ok(nested(2))),
            (with(3), Some(nested(2)), Err(nested(2))),
            (with(2), Some(docker("a")), Err(docker("a"))),
        ] {
            assert_eq!(On::settle(asked.as_ref(), recorded.clone()), expected, "{asked:?} {recorded:?}");
        }
    }

    #[test]
    fn what_is_recorded_is_read() {
        let docker = |nodes| On::Docker { host: "unix:///x".into(), nodes };
        for on in [On::Local, docker(0), docker(7)] {
            let text = serde_json::to_string(&on).expect("JSON");
            assert_eq!(serde_json::from_str::<On>(&text).expect("the same"), on, "{text}");
            assert!(on.record().is_none_or(|text| On::of_record(&text) == on), "{on}");
        }
        // As earlier versions wrote them.
        let earlier = serde_json::from_str::<On>(r#"{"back_end": "docker", "host": "unix:///x"}"#);
        assert_eq!((earlier.expect("read"), On::of_record("unix:///x")), (docker(0), docker(0)));
    }
}
