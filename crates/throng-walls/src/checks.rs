//! The check of each wall: which live value stands against which need.

mod kernel;
mod network;
mod storage;

use crate::demand::Demand;
use crate::host::Host;
use crate::predict::{Finding, State, Unit};
use crate::remedy::{Change, Remedy};
use crate::table::WallId;

/// Above this a number of replicas counts as without end.
const NO_END: u64 = 1 << 32;
/// Room that a raised setting gets beyond the need, in quarters of it.
const MARGIN_QUARTERS: u64 = 1;

pub fn check(id: WallId, host: &Host, demand: &Demand) -> Finding {
    match id {
        WallId::BridgePorts => network::bridge_ports(demand),
        WallId::BroadcastBacklog => network::broadcast_backlog(host, demand),
        WallId::NeighbourTable => network::neighbour_table(host, demand),
        WallId::ConnectionTracking => network::connection_tracking(host, demand),
        WallId::ProcessIds => kernel::process_ids(host, demand),
        WallId::PidsCgroup => kernel::pids_cgroup(host, demand),
        WallId::SessionKeyrings => kernel::session_keyrings(host),
        WallId::Inotify => kernel::inotify(host, demand),
        WallId::Descriptors => kernel::descriptors(host, demand),
        WallId::MemoryCgroupIds => kernel::memory_cgroup_ids(host, demand),
        WallId::CgroupDescendants => kernel::cgroup_descendants(host, demand),
        WallId::CgroupApply => Finding::new(id, State::DoesNotApply, "systemd is not asked for groups"),
        WallId::MountTable => storage::mount_table(host),
        WallId::MountCount => storage::mount_count(host, demand),
        WallId::Namespaces => kernel::namespaces(host, demand),
        WallId::PublishedPorts => network::published_ports(host, demand),
        WallId::SourcePorts => network::source_ports(host, demand),
        WallId::AddressPools => network::address_pools(demand),
        WallId::Disk => storage::disk(host, demand),
        WallId::ImagePulls => Finding::new(id, State::DoesNotApply, "each image is fetched once for all"),
        WallId::DockerFilter => network::docker_filter(host, demand),
        WallId::Memory => kernel::memory(host, demand),
        WallId::Cpu => kernel::cpu(host, demand),
    }
}

/// As [`check`], of a wall that was met whatever the demand says: where a setting is the limit, the remedy is twice that.
pub fn check_met(id: WallId, host: &Host, demand: &Demand) -> Finding {
    let settings: &[&str] = match id {
        WallId::BroadcastBacklog => &["net.core.netdev_max_backlog"],
        WallId::NeighbourTable => &network::THRESHOLDS,
        WallId::Inotify => &kernel::WATCHERS,
        WallId::ConnectionTracking => &["net.netfilter.nf_conntrack_max"],
        _ => &[],
    };
    let twice = settings.iter().filter_map(|name| {
        let from = host.setting(name)?;
        let to = from.checked_mul(2).filter(|to| *to <= network::INT_MAX)?;
        Some(Change { setting: (*name).into(), from, to })
    });
    let mut finding = check(id, host, demand);
    if finding.remedy.is_none() {
        finding.remedy = Remedy::raise(twice.collect(), "it was met as it is");
    }
    finding
}

/// A live value and what so many replicas need of it, which must not fall as their number rises.
struct Bound<'a> {
    setting: String,
    live: u64,
    needed: Box<dyn Fn(u64) -> u64 + 'a>,
    unit: Unit,
    /// The largest value that the kernel takes, if it is a setting that may be raised at run time.
    most: Option<u64>,
}

impl<'a> Bound<'a> {
    fn new(setting: impl Into<String>, live: u64, needed: impl Fn(u64) -> u64 + 'a) -> Bound<'a> {
        Bound { setting: setting.into(), live, needed: Box::new(needed), unit: Unit::Count, most: None }
    }

    /// A setting of sysctl(8); `None` where it cannot be read.
    fn of(host: &Host, setting: &str, most: u64, needed: impl Fn(u64) -> u64 + 'a) -> Option<Bound<'a>> {
        let bound = Bound::new(setting, host.setting(setting)?, needed);
        Some(Bound { most: Some(most), ..bound })
    }

    fn unit(self, unit: Unit) -> Self {
        Bound { unit, ..self }
    }

    /// The most replicas whose need is met; `None` without end.
    fn holds(&self) -> Option<u64> {
        let fits = |replicas| (self.needed)(replicas) <= self.live;
        if fits(NO_END) {
            return None;
        }
        let (mut low, mut high) = (0, NO_END);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        Some(low)
    }

    fn state(&self, replicas: u64) -> State {
        let needed = (self.needed)(replicas);
        if needed > self.live {
            State::InTheWay
        } else if u128::from(needed) * 5 > u128::from(self.live) * 4 {
            State::Tight
        } else {
            State::Ok
        }
    }

    /// The setting raised above the need, to a power of two; `None` if it suffices as it is or cannot be raised so far.
    fn change(&self, replicas: u64) -> Option<Change> {
        if self.state(replicas) == State::Ok {
            return None;
        }
        let (needed, most) = ((self.needed)(replicas), self.most?);
        let to = roomy(needed).min(most);
        (to > self.live && to >= needed).then(|| Change {
            setting: self.setting.clone(),
            from: self.live,
            to,
        })
    }
}

/// A power of two with some room above the need.
fn roomy(needed: u64) -> u64 {
    let wanted = needed.saturating_add(needed / 4 * MARGIN_QUARTERS);
    wanted.checked_next_power_of_two().unwrap_or(u64::MAX)
}

/// The finding of that bound which leaves room for the fewest; `bounds` must not be empty to be known.
fn judge(id: WallId, demand: &Demand, bounds: &[Bound<'_>]) -> Finding {
    let replicas = demand.replicas;
    let order = |bound: &&Bound<'_>| (bound.holds().unwrap_or(u64::MAX), bound.state(replicas));
    let Some(bound) = bounds.iter().min_by_key(order) else {
        return Finding::new(id, State::Unknown, "its limit cannot be read here");
    };
    Finding {
        setting: Some(bound.setting.clone()),
        live: Some(bound.live),
        needed: Some((bound.needed)(replicas)),
        unit: bound.unit,
        holds: bound.holds(),
        ..Finding::new(id, bound.state(replicas), "")
    }
}

/// As [`judge`], with all bounds that are too low raised.
fn judge_settings(id: WallId, demand: &Demand, bounds: &[Bound<'_>], why: &str) -> Finding {
    let changes = bounds.iter().filter_map(|bound| bound.change(demand.replicas)).collect();
    Finding { remedy: Remedy::raise(changes, why), ..judge(id, demand, bounds) }
}

impl Finding {
    /// A remedy for whoever needs one.
    fn or_by(mut self, remedy: impl FnOnce(&Finding) -> Remedy) -> Finding {
        if self.remedy.is_none() && matches!(self.state, State::InTheWay | State::Tight) {
            self.remedy = Some(remedy(&self));
        }
        self
    }

    fn noted(mut self, note: impl Into<String>) -> Finding {
        self.note = note.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_more_than_it_holds_does_not_fit(live in 0u64..1 << 40, used in 0u64..1 << 20, each in 1u64..5_000) {
            let bound = Bound::new("x", live, |n| used + n * each);
            match bound.holds() {
                None => prop_assert!(used + NO_END * each <= live),
                Some(n) => {
                    prop_assert!(n == 0 || used + n * each <= live);
                    prop_assert!(used + (n + 1) * each > live);
                    prop_assert!(n == 0 || bound.state(n) != State::InTheWay);
                    prop_assert_eq!(bound.state(n + 1), State::InTheWay);
                }
            }
        }

        #[test]
        fn a_raised_setting_suffices_and_is_no_more_than_the_kernel_takes(live in 1u64..1 << 20, n in 1u64..1 << 21) {
            let most = 1 << 22;
            let bound = Bound { most: Some(most), ..Bound::new("x", live, |n| n) };
            match bound.change(n) {
                Some(change) => {
                    prop_assert!(change.to >= n && change.to <= most && change.to > change.from);
                    let raised = Bound::new("x", change.to, |n| n);
                    prop_assert_ne!(raised.state(n), State::InTheWay);
                }
                None => prop_assert_eq!(bound.state(n), State::Ok),
            }
        }
    }
}
