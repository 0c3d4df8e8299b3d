//! Checks of mounts and disks.

use super::{Bound, judge, judge_settings};
use crate::demand::{Demand, Links, footprint};
use crate::host::Host;
use crate::predict::{Finding, State, Unit};
use crate::remedy::Remedy;
use crate::table::WallId;

/// Mounts of the host from which copying them for each replica is felt, and readers of the table are slow.
const MANY_MOUNTS: u64 = 1_000;
const INT_MAX: u64 = i32::MAX as u64;

pub fn mount_table(host: &Host) -> Finding {
    let id = WallId::MountTable;
    let Some(mounts) = host.mounts else {
        return Finding::new(id, State::Unknown, "the host's mounts cannot be read here");
    };
    let (state, note) = if mounts > MANY_MOUNTS {
        (State::Tight, "each start copies all of the host's mounts; the table itself does not grow")
    } else {
        (State::Ok, "replicas' mounts do not appear in it")
    };
    let finding = Finding {
        setting: Some("mounts of the host".into()),
        live: Some(mounts),
        ..Finding::new(id, state, note)
    };
    finding.or_by(|_| {
        let why = "they are somebody else's: what made them must remove them";
        Remedy::by_hand("findmnt | less, and unmount what is not needed", why)
    })
}

pub fn mount_count(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::MountCount;
    if demand.links == Links::Host {
        return Finding::new(id, State::DoesNotApply, "plain processes have no mounts of their own");
    }
    let Some(mounts) = host.mounts else {
        return Finding::new(id, State::Unknown, "the host's mounts cannot be read here");
    };
    let needed = mounts.saturating_add(footprint::MOUNTS).saturating_add(demand.mounts);
    let bound = Bound::of(host, "fs.mount-max", INT_MAX, move |_| needed);
    let why = "it is a limit against programs that mount without end; what is free is not allocated";
    judge_settings(id, demand, &bound.into_iter().collect::<Vec<_>>(), why)
}

pub fn disk(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::Disk;
    let Some(disk) = host.disk else {
        return Finding::new(id, State::Unknown, "the file system of the state folder cannot be asked here");
    };
    let bytes = footprint::DISK.saturating_add(demand.disk);
    let files = footprint::INODES.saturating_add(demand.files_written);
    let mut bounds =
        vec![Bound::new("free bytes", disk.bytes_free, move |n| n.saturating_mul(bytes)).unit(Unit::Bytes)];
    if disk.inodes > 0 {
        bounds.push(Bound::new("free inodes", disk.inodes_free, move |n| n.saturating_mul(files)));
    }
    let finding = judge(id, demand, &bounds).or_by(|_| {
        Remedy::by_hand(
            "free space, or set THRONG_HOME to a folder of a larger disk",
            "a disk is not a setting",
        )
    });
    if demand.disk == 0 {
        finding.noted("counts nothing that programs write; --disk-per-replica does")
    } else {
        finding
    }
}
