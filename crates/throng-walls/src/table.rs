//! The walls as data: one row each. `docs/walls.md` is made from it.

mod kernel;
mod network;
mod storage;

use serde::Serialize;

/// The walls, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WallId {
    BridgePorts,
    BroadcastBacklog,
    NeighbourTable,
    ConnectionTracking,
    ProcessIds,
    PidsCgroup,
    SessionKeyrings,
    Inotify,
    Descriptors,
    MemoryCgroupIds,
    CgroupDescendants,
    CgroupApply,
    MountTable,
    MountCount,
    Namespaces,
    PublishedPorts,
    SourcePorts,
    AddressPools,
    Disk,
    ImagePulls,
    DockerFilter,
    Memory,
    Cpu,
}

impl WallId {
    pub fn wall(self) -> &'static Wall {
        // The tests hold the table to one row for each, in this order.
        table()[self as usize]
    }

    /// As it is written in JSON and in `docs/walls.md`.
    pub fn name(self) -> &'static str {
        self.wall().name
    }
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wall {
    pub id: WallId,
    /// The id in kebab case.
    #[serde(skip)]
    pub name: &'static str,
    pub title: &'static str,
    /// Texts that people meet, each as a kernel, a tool or this engine prints it; none where nothing is printed.
    pub seen: &'static [&'static str],
    /// What happens without a word; empty where something is printed.
    pub silent: &'static str,
    /// The limit and where it is read.
    pub limit: &'static str,
    /// Why there is such a limit, and what grows towards it.
    pub why: &'static str,
    /// What this program does about it by itself.
    pub here: &'static str,
    pub moves: &'static str,
    pub reference: &'static str,
}

/// All rows, in the order of [`WallId`].
pub fn table() -> &'static [&'static Wall] {
    const ROWS: [&Wall; 23] = [
        &network::BRIDGE_PORTS,
        &network::BROADCAST_BACKLOG,
        &network::NEIGHBOUR_TABLE,
        &network::CONNECTION_TRACKING,
        &kernel::PROCESS_IDS,
        &kernel::PIDS_CGROUP,
        &kernel::SESSION_KEYRINGS,
        &kernel::INOTIFY,
        &kernel::DESCRIPTORS,
        &kernel::MEMORY_CGROUP_IDS,
        &kernel::CGROUP_DESCENDANTS,
        &kernel::CGROUP_APPLY,
        &storage::MOUNT_TABLE,
        &storage::MOUNT_COUNT,
        &kernel::NAMESPACES,
        &network::PUBLISHED_PORTS,
        &network::SOURCE_PORTS,
        &network::ADDRESS_POOLS,
        &storage::DISK,
        &storage::IMAGE_PULLS,
        &network::DOCKER_FILTER,
        &kernel::MEMORY,
        &kernel::CPU,
    ];
    &ROWS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_are_in_the_order_of_their_ids_and_whole() {
        for (number, row) in table().iter().enumerate() {
            assert_eq!(row.id as usize, number, "{}", row.name);
            assert_eq!(serde_json::json!(row.id), row.name);
            assert!(row.seen.is_empty() != row.silent.is_empty(), "{}: either texts or silence", row.name);
            for text in [row.title, row.limit, row.why, row.here, row.moves, row.reference] {
                assert!(!text.is_empty() && text.trim() == text, "{}", row.name);
            }
        }
        let names: BTreeSet<_> = table().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), table().len());
    }
}
