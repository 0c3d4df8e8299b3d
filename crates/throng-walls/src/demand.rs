//! What is to run.

use serde::Serialize;

/// How replicas are attached to their networks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Links {
    /// Macvlan interfaces behind shared parents; a bridge has a port for each parent.
    #[default]
    Shared,
    /// A veth pair each, with one end in the bridge: what kernels without macvlan get, and what Docker does.
    Pairs,
    /// Plain processes: no network of their own.
    Host,
}

/// What the engine itself takes for each replica, whatever runs in it.
pub mod footprint {
    /// Bytes of kernel and engine memory: namespaces, a macvlan or veth end, control groups, mounts, the process itself
    /// before its program. The bar of the project's own benchmark; a clone with all namespaces alone takes 370 kB.
    pub const MEMORY: u64 = 800_000;
    /// Bytes of a memory group, which version 1 needs for replicas with a limit only.
    pub const MEMORY_GROUP: u64 = 160_000;
    /// Descriptors of the supervisor: one pidfd.
    pub const DESCRIPTORS: u64 = 1;
    /// Descriptors of the supervisor that do not grow: sockets, logs being rotated, starts under way.
    pub const DESCRIPTORS_BASE: u64 = 256;
    /// The most mounts inside a replica beside its volumes: root, /proc, /sys, control groups, /dev and what is below
    /// it, 11 masks, 5 read-only, and for an ordinary user 6 devices.
    pub const MOUNTS: u64 = 30;
    /// Files and folders of a replica on disk, its own writes not counted: its folder, specification, state, log, the
    /// two folders of overlayfs with what it puts there, the mount point, /etc with three files.
    pub const INODES: u64 = 16;
    /// Bytes of these, in blocks of 4 KiB.
    pub const DISK: u64 = 64 << 10;
    /// Addresses that share a parent, and the most parents of a network.
    pub const BEHIND_PARENT: u64 = 256;
    pub const PARENTS: u64 = 512;
    /// Addresses of a network whose subnet the supervisor chooses: a /16 without network, broadcast and gateway.
    pub const ADDRESSES: u64 = 65_533;
    /// Networks that the supervisor can choose subnets for.
    pub const NETWORKS: u64 = 128;
    /// Tasks left for the rest of the host and for commands run in replicas.
    pub const TASKS_BASE: u64 = 1_024;
    /// Files that one small program keeps open, its libraries and sockets counted.
    pub const OPEN_FILES: u64 = 8;
}

/// What is to run, as far as it matters to a host. Values per replica are averages over all services.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Demand {
    pub replicas: u64,
    pub links: Links,
    /// Networks, and replicas in the largest of them.
    pub networks: u64,
    pub largest_network: u64,
    /// Tasks of one replica, threads counted.
    pub processes: u64,
    /// Bytes that the program of one replica takes: its limit, or what it was seen to use.
    pub memory: u64,
    /// Replicas with a memory limit.
    pub limited: u64,
    /// CPU of one replica in thousandths of a core, 0 where nobody knows.
    pub cpu: u64,
    /// Bytes and files that one replica writes.
    pub disk: u64,
    pub files_written: u64,
    /// Volumes and other mounts of one replica.
    pub mounts: u64,
    /// Ports of the host that are published; one listener each, whatever the number of replicas.
    pub published: u64,
    /// inotify instances of one replica.
    pub watchers: u64,
    /// Connections that one replica keeps with others through the host's packet filter.
    pub connections: u64,
    /// Connections at once from this host to one published address.
    pub clients: u64,
    /// Every replica talks to every other one of its network.
    pub mesh: bool,
    /// Run by an ordinary user.
    pub rootless: bool,
}

impl Demand {
    /// `replicas` of one small process each, in one network, without limits.
    pub fn of(replicas: u64) -> Demand {
        Demand {
            replicas,
            links: Links::Shared,
            networks: 1,
            largest_network: replicas,
            processes: 1,
            memory: 0,
            limited: 0,
            cpu: 0,
            disk: 0,
            files_written: 0,
            mounts: 0,
            published: 0,
            watchers: 0,
            connections: 0,
            clients: 0,
            mesh: false,
            rootless: false,
        }
    }

    /// The same mix with another number of replicas.
    pub fn at(&self, replicas: u64) -> Demand {
        Demand {
            replicas,
            largest_network: self.share(self.largest_network, replicas),
            limited: self.share(self.limited, replicas),
            ..self.clone()
        }
    }

    /// A part of this demand that grows with the number of replicas, for another number of them.
    pub(crate) fn share(&self, part: u64, replicas: u64) -> u64 {
        let whole = u128::from(self.replicas.max(1));
        let scaled = (u128::from(part) * u128::from(replicas)).div_ceil(whole);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}
