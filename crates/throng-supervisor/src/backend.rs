//! What replicas run on: this project's own engine, or a Docker daemon of this host.

use crate::names::Directory;
use crate::paths::Paths;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use throng_docker::{Docker, DockerOptions, Names};
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
    },
}

/// What somebody asks an app to run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Local,
    /// `host`: which daemon, if it was named; otherwise the one that the app runs on, or Docker's usual one.
    Docker {
        host: Option<String>,
    },
}

impl std::fmt::Display for On {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            On::Local => f.write_str("local"),
            On::Docker { host } => write!(f, "docker ({host})"),
        }
    }
}

impl On {
    /// What an app is to run on, given what it runs on already. Fails with that if it is something else.
    pub fn settle(asked: Option<&Asked>, recorded: Option<On>) -> Result<On, On> {
        match (asked, recorded) {
            (None, recorded) => Ok(recorded.unwrap_or_default()),
            (Some(Asked::Local), None | Some(On::Local)) => Ok(On::Local),
            (Some(Asked::Docker { host }), None) => {
                Ok(On::Docker { host: host.clone().unwrap_or_else(throng_docker::default_host) })
            }
            (Some(Asked::Docker { host }), Some(On::Docker { host: known }))
                if host.as_ref().is_none_or(|host| *host == known) =>
            {
                Ok(On::Docker { host: known })
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
        /// Answers for names at the gateways of Docker's networks; `None` where this user may not.
        names: Option<Arc<Engine>>,
    },
}

impl Backend {
    pub async fn open(
        on: &On,
        isolation: IsolationChoice,
        paths: &Paths,
        store: &Arc<Store>,
    ) -> Result<Backend, RuntimeError> {
        let engine = |isolation| {
            Engine::open(EngineOptions { state_dir: paths.engine(), run_dir: paths.run.clone(), isolation })
        };
        let On::Docker { host } = on else { return Ok(Backend::Local(engine(isolation)?)) };
        // Port 53 is root's (ip(7), net.ipv4.ip_unprivileged_port_start).
        let root = rustix::process::geteuid().is_root();
        let docker = Docker::open(DockerOptions {
            host: host.clone(),
            folder: paths.docker(),
            store: store.clone(),
            names: if root { Names::Gateway } else { Names::Docker },
        });
        let docker = docker.await?;
        let names = root.then(|| engine(IsolationChoice::Container)).transpose()?;
        Ok(Backend::Docker { docker, names })
    }

    pub fn runtime(&self) -> Arc<dyn Runtime> {
        match self {
            Backend::Local(engine) => engine.clone(),
            Backend::Docker { docker, .. } => docker.clone(),
        }
    }

    /// In words for people, with the daemon's version.
    pub fn on(&self) -> String {
        match self {
            Backend::Local(_) => "local".into(),
            Backend::Docker { docker, .. } => format!("docker {} ({})", docker.version(), docker.host()),
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
        let docker = |host: &str| On::Docker { host: host.into() };
        let asked = |host: Option<&str>| Some(Asked::Docker { host: host.map(str::to_owned) });
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
        ] {
            assert_eq!(On::settle(asked.as_ref(), recorded.clone()), expected, "{asked:?} {recorded:?}");
        }
    }

    #[test]
    fn what_is_recorded_is_read() {
        for on in [On::Local, On::Docker { host: "unix:///x".into() }] {
            let text = serde_json::to_string(&on).expect("JSON");
            assert_eq!(serde_json::from_str::<On>(&text).expect("the same"), on, "{text}");
        }
    }
}
